"""Fully convolutional networks, Long et al. (arXiv:1411.4038), on dilated ResNets, as PyTorch's weights are."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from tilewright import nn
from tilewright.tensor import Tensor
from tilewright.vision.models._parts import with_weights
from tilewright.vision.models.resnet import resnet50, resnet101

__all__ = ["FCN", "fcn_resnet50", "fcn_resnet101"]


class _Backbone(nn.Module):
    """A ResNet without its head, which returns its third and fourth stage."""

    def __init__(self, resnet: nn.Module):
        super().__init__()
        for name, child in resnet.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, child)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x))))))
        aux = self.layer3(x)
        return aux, self.layer4(aux)


def _head(channels: int, num_classes: int) -> nn.Sequential:
    inner = channels // 4
    return nn.Sequential(nn.Conv2d(channels, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
                         nn.Dropout(0.1), nn.Conv2d(inner, num_classes, 1))


class FCN(nn.Module):
    """Images (N, 3, H, W) to {"out": (N, num_classes, H, W)}, and with aux_loss "aux", from the third stage."""

    def __init__(self, resnet: nn.Module, num_classes: int = 21, aux_loss: bool = False):
        super().__init__()
        self.backbone, self.classifier = _Backbone(resnet), _head(2048, num_classes)
        self.aux_classifier = _head(1024, num_classes) if aux_loss else None

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        third, fourth = self.backbone(x)

        def sized(y: Tensor) -> Tensor:
            return nn.functional.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)

        result = OrderedDict(out=sized(self.classifier(fourth)))
        if self.aux_classifier is not None:
            result["aux"] = sized(self.aux_classifier(third))
        return result


def _maker(name: str, resnet: Any) -> Any:
    def make(*, weights: Any = None, progress: bool = True, num_classes: int = 21, aux_loss: bool = False) -> FCN:
        dilated = resnet(replace_stride_with_dilation=(False, True, True))
        return with_weights(FCN(dilated, num_classes, aux_loss), weights)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"`FCN` on a {resnet.__name__} whose last two stages keep an eighth of the resolution."
    return make


fcn_resnet50, fcn_resnet101 = _maker("fcn_resnet50", resnet50), _maker("fcn_resnet101", resnet101)
