"""LeNet-5, LeCun et al., Gradient-based learning applied to document recognition (1998)."""

from __future__ import annotations

from typing import Any

from tilewright import nn
from tilewright.tensor import Tensor
from tilewright.vision.models._parts import with_weights

__all__ = ["LeNet5", "lenet5"]


class LeNet5(nn.Module):
    """Images (N, 1, 32, 32), or of 28 x 28 with `padding=2`, to (N, num_classes); 61,706 parameters.

    As in the paper but for two things: every map of the third layer sees all maps of the second, and the last layer is
    linear where the paper had distances to drawn figures. activation="relu", pooling="max" make today's variant.

    >>> import tilewright as tw
    >>> sum(p.numel() for p in LeNet5().parameters())
    61706
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, padding: int = 0, activation: str = "tanh",
                 pooling: str = "avg"):
        super().__init__()
        kinds = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}
        pools = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}
        if activation not in kinds or pooling not in pools:
            raise ValueError(f"LeNet5: activation must be of {', '.join(kinds)} and pooling avg or max, "
                             f"got {activation!r} and {pooling!r}")
        act, pool = kinds[activation], pools[pooling]
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5, padding=padding), act(), pool(2),
            nn.Conv2d(6, 16, 5), act(), pool(2),
            nn.Conv2d(16, 120, 5), act())
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(120, 84), act(), nn.Linear(84, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def lenet5(*, weights: Any = None, **kwargs: Any) -> LeNet5:
    """`LeNet5`."""
    return with_weights(LeNet5(**kwargs), weights)
