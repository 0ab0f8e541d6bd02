"""VGG, Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition (2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilewright import nn
from tilewright.tensor import Tensor
from tilewright.vision.models._parts import normal_start, with_weights

__all__ = ["VGG", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
           "vgg_features"]

COUNTS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # 3 x 3 layers a stage


def vgg_features(depth: int, batch_norm: bool = False,
                 widths: Sequence[int] = (64, 128, 256, 512, 512)) -> nn.Sequential:
    """The five stages, each of some 3 x 3 convolutions and a halving."""
    layers: list[nn.Module] = []
    channels = 3
    for count, width in zip(COUNTS[depth], widths, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """Images (N, 3, H, W), 32 x 32 at least, to (N, num_classes), by `features` of so many channels (`vgg_features`),
    their mean over size x size places and two layers of `hidden`; for 32 x 32 images size=1 is enough."""

    def __init__(self, features: nn.Module, num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5,
                 channels: int = 512, size: int = 7, hidden: int = 4096):
        super().__init__()
        self.features, self.avgpool = features, nn.AdaptiveAvgPool2d(size)
        self.classifier = nn.Sequential(
            nn.Linear(channels * size**2, hidden), nn.ReLU(True), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(dropout), nn.Linear(hidden, num_classes))
        if init_weights:
            normal_start(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _maker(depth: int, batch_norm: bool, count: int) -> Any:
    def make(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
        return with_weights(VGG(vgg_features(depth, batch_norm), **kwargs), weights)

    make.__name__ = make.__qualname__ = f"vgg{depth}" + "_bn" * batch_norm
    make.__doc__ = f"VGG of {depth} layers{' with batch norm' * batch_norm}: {count:,} parameters for 1,000 classes."
    return make


vgg11, vgg11_bn = _maker(11, False, 132_863_336), _maker(11, True, 132_868_840)
vgg13, vgg13_bn = _maker(13, False, 133_047_848), _maker(13, True, 133_053_736)
vgg16, vgg16_bn = _maker(16, False, 138_357_544), _maker(16, True, 138_365_992)
vgg19, vgg19_bn = _maker(19, False, 143_667_240), _maker(19, True, 143_678_248)
