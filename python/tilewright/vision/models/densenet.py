"""DenseNet, Huang et al., Densely connected convolutional networks (arXiv:1608.06993), the BC form."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import tilewright as tw
from tilewright import nn
from tilewright.tensor import Tensor
from tilewright.vision.models._parts import with_weights

__all__ = ["DenseNet", "densenet121", "densenet161", "densenet169", "densenet201"]


class _DenseLayer(nn.Module):
    """The features so far (N, C, H, W) to `growth_rate` new ones, by 1 x 1 and 3 x 3, each after norm and ReLU."""

    def __init__(self, channels: int, growth_rate: int, bn_size: int, drop_rate: float):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, bn_size * growth_rate, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(bn_size * growth_rate), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bn_size * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.drop_rate = float(drop_rate)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        for key in [k for k in state_dict if k.startswith(prefix)]:  # the public files have norm.1 for norm1, and so on
            state_dict[re.sub(r"(norm|conv)\.([12])\.(\w+)$", r"\1\2.\3", key)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))
        return nn.functional.dropout(y, self.drop_rate, self.training) if self.drop_rate else y


class _DenseBlock(nn.ModuleDict):
    def __init__(self, count: int, channels: int, growth_rate: int, bn_size: int, drop_rate: float):
        super().__init__()
        for i in range(count):
            self[f"denselayer{i + 1}"] = _DenseLayer(channels + i * growth_rate, growth_rate, bn_size, drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = tw.cat([x, layer(x)], 1)
        return x


def _transition(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True),
                                     conv=nn.Conv2d(channels, out, 1, bias=False), pool=nn.AvgPool2d(2, 2)))


class DenseNet(nn.Module):
    """Images (N, 3, H, W) to (N, num_classes); each layer sees what all before it in its block have made.

    small=True: a 3 x 3 start without pooling, for 32 x 32 images.
    """

    def __init__(self, growth_rate: int = 32, block_config: Sequence[int] = (6, 12, 24, 16),
                 num_init_features: int = 64, bn_size: int = 4, drop_rate: float = 0.0, num_classes: int = 1000,
                 small: bool = False):
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, num_init_features, *((3, 1, 1) if small else (7, 2, 3)), bias=False),
            norm0=nn.BatchNorm2d(num_init_features), relu0=nn.ReLU(inplace=True))
        if not small:
            parts["pool0"] = nn.MaxPool2d(3, 2, 1)
        channels = num_init_features
        for i, count in enumerate(block_config):
            parts[f"denseblock{i + 1}"] = _DenseBlock(count, channels, growth_rate, bn_size, drop_rate)
            channels += count * growth_rate
            if i != len(block_config) - 1:
                parts[f"transition{i + 1}"] = _transition(channels, channels // 2)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features, self.classifier = nn.Sequential(parts), nn.Linear(channels, num_classes)
        for name, p in self.named_parameters():
            if p.ndim == 4:
                nn.init.kaiming_normal_(p)
            elif name == "classifier.bias":
                nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu(self.features(x))
        return self.classifier(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


def _maker(depth: int, growth: int, blocks: Sequence[int], start: int, count: int) -> Any:
    def make(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> DenseNet:
        return with_weights(DenseNet(growth, blocks, start, **kwargs), weights)

    make.__name__ = make.__qualname__ = f"densenet{depth}"
    make.__doc__ = f"`DenseNet` of {depth} layers: {count:,} parameters for 1,000 classes."
    return make


densenet121 = _maker(121, 32, (6, 12, 24, 16), 64, 7_978_856)
densenet161 = _maker(161, 48, (6, 12, 36, 24), 96, 28_681_000)
densenet169 = _maker(169, 32, (6, 12, 32, 32), 64, 14_149_480)
densenet201 = _maker(201, 32, (6, 12, 48, 32), 64, 20_013_928)
