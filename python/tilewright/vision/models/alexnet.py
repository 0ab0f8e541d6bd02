"""AlexNet in one column: Krizhevsky, One weird trick for parallelizing convolutional neural networks (2014)."""

from __future__ import annotations

from typing import Any

from tilewright import nn
from tilewright.tensor import Tensor
from tilewright.vision.models._parts import with_weights

__all__ = ["AlexNet", "alexnet"]


class AlexNet(nn.Module):
    """Images (N, 3, H, W), 63 x 63 at least and 224 x 224 in the paper, to (N, num_classes); 61,100,840 parameters."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 36, 4096), nn.ReLU(inplace=True),
            nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def alexnet(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> AlexNet:
    """`AlexNet`; weights: the path of a local file of PyTorch's or tilewright's."""
    return with_weights(AlexNet(**kwargs), weights)
