"""MobileNet v2, Sandler et al., Inverted residuals and linear bottlenecks (arXiv:1801.04381)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilewright import nn
from tilewright.tensor import Tensor
from tilewright.vision.models._parts import normal_start, with_weights

__all__ = ["MobileNetV2", "mobilenet_v2"]

# expansion, channels, how often, stride of the first
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _divisible(value: float, by: int) -> int:
    """The nearest multiple, that takes away no more than a tenth."""
    near = max(by, int(value + by / 2) // by * by)
    return near + by if near < 0.9 * value else near


def _conv_norm(c: int, o: int, k: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, o, k, stride, (k - 1) // 2, groups=groups, bias=False), nn.BatchNorm2d(o),
                         nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1 x 1 up, 3 x 3 a channel, 1 x 1 down without activation; added to x where the shapes allow."""

    def __init__(self, inp: int, oup: int, stride: int, expand_ratio: int):
        super().__init__()
        hidden = inp * expand_ratio
        self.use_res_connect = stride == 1 and inp == oup
        self.conv = nn.Sequential(*([_conv_norm(inp, hidden, 1)] if expand_ratio != 1 else []),
                                  _conv_norm(hidden, hidden, 3, stride, hidden),
                                  nn.Conv2d(hidden, oup, 1, bias=False), nn.BatchNorm2d(oup))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    """Images (N, 3, H, W) to (N, num_classes); width_mult scales all channels. 3,504,872 parameters by default."""

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0,
                 inverted_residual_setting: Sequence[Sequence[int]] | None = None, round_nearest: int = 8,
                 dropout: float = 0.2):
        super().__init__()
        channels = _divisible(32 * width_mult, round_nearest)
        self.last_channel = _divisible(1280 * max(1.0, width_mult), round_nearest)
        parts: list[nn.Module] = [_conv_norm(3, channels, 3, 2)]
        for expansion, width, count, stride in inverted_residual_setting or STAGES:
            out = _divisible(width * width_mult, round_nearest)
            for i in range(count):
                parts.append(InvertedResidual(channels, out, 1 if i else stride, expansion))
                channels = out
        self.features = nn.Sequential(*parts, _conv_norm(channels, self.last_channel, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.last_channel, num_classes))
        normal_start(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def mobilenet_v2(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> MobileNetV2:
    """`MobileNetV2`; weights: the path of a local file of PyTorch's or tilewright's."""
    return with_weights(MobileNetV2(**kwargs), weights)
