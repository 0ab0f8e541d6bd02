"""GoogLeNet, Szegedy et al., Going deeper with convolutions (arXiv:1409.4842), and Inception v3, Szegedy et al.,
Rethinking the Inception architecture (arXiv:1512.00567), in the form of PyTorch's published weights: batch norm
everywhere, and in GoogLeNet 3 x 3 filters where the paper has 5 x 5."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import tilewright as tw
from tilewright import nn
from tilewright.tensor import Tensor
from tilewright.vision.models._parts import ConvNorm, with_weights

__all__ = ["GoogLeNet", "GoogLeNetOutputs", "Inception3", "InceptionOutputs", "googlenet", "inception_v3"]

GoogLeNetOutputs = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])
InceptionOutputs = namedtuple("InceptionOutputs", ["logits", "aux_logits"])
F = nn.functional


def _start(model: nn.Module) -> None:
    """The papers' truncated normal weights: 0.1, or a module's own `stddev`."""
    for m in model.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(m.weight, 0.0, getattr(m, "stddev", 0.1), -2, 2)


def _renormalized(x: Tensor) -> Tensor:
    """From ImageNet's mean and deviation by channel to those of [-1, 1]."""
    scale = tw.tensor([0.229, 0.224, 0.225], device=x.device).view(3, 1, 1) / 0.5
    return x * scale + (tw.tensor([0.485, 0.456, 0.406], device=x.device).view(3, 1, 1) - 0.5) / 0.5


# --- GoogLeNet -------------------------------------------------------------------------------------------------------
class _Inception(nn.Module):
    """1 x 1; 1 x 1 and 3 x 3, twice; pool and 1 x 1: side by side."""

    def __init__(self, c: int, ch1x1: int, ch3x3red: int, ch3x3: int, ch5x5red: int, ch5x5: int, pool_proj: int):
        super().__init__()
        self.branch1 = ConvNorm(c, ch1x1, kernel_size=1)
        self.branch2 = nn.Sequential(ConvNorm(c, ch3x3red, kernel_size=1),
                                     ConvNorm(ch3x3red, ch3x3, kernel_size=3, padding=1))
        self.branch3 = nn.Sequential(ConvNorm(c, ch5x5red, kernel_size=1),
                                     ConvNorm(ch5x5red, ch5x5, kernel_size=3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), ConvNorm(c, pool_proj, kernel_size=1))

    def forward(self, x: Tensor) -> Tensor:
        return tw.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class _GoogLeNetAux(nn.Module):
    def __init__(self, c: int, num_classes: int, dropout: float):
        super().__init__()
        self.conv = ConvNorm(c, 128, kernel_size=1)
        self.fc1, self.fc2, self.dropout = nn.Linear(2048, 1024), nn.Linear(1024, num_classes), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class GoogLeNet(nn.Module):
    """Images (N, 3, H, W) to (N, num_classes): 6,624,904 parameters, with both auxiliary heads 13,004,888.

    In training, with aux_logits, a `GoogLeNetOutputs`. transform_input: the images are normalized as ImageNet's.
    """

    def __init__(self, num_classes: int = 1000, aux_logits: bool = True, transform_input: bool = False,
                 init_weights: bool = True, dropout: float = 0.2, dropout_aux: float = 0.7):
        super().__init__()
        self.aux_logits, self.transform_input = aux_logits, transform_input
        self.conv1 = ConvNorm(3, 64, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.conv3 = ConvNorm(64, 64, kernel_size=1), ConvNorm(64, 192, kernel_size=3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = _Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = _Inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = _Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = _Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = _Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = _Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = _Inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.inception5a = _Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = _Inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1: Any = _GoogLeNetAux(512, num_classes, dropout_aux) if aux_logits else None
        self.aux2: Any = _GoogLeNetAux(528, num_classes, dropout_aux) if aux_logits else None
        self.avgpool, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        if init_weights:
            for m in self.modules():
                if isinstance(m, nn.Conv2d | nn.Linear):
                    m.stddev = 0.01
            _start(self)

    def forward(self, x: Tensor) -> Any:
        if self.transform_input:
            x = _renormalized(x)
        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        x = self.inception4a(self.maxpool3(self.inception3b(self.inception3a(x))))
        heads = self.training and self.aux_logits
        aux1 = self.aux1(x) if heads else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        aux2 = self.aux2(x) if heads else None
        x = self.inception5b(self.inception5a(self.maxpool4(self.inception4e(x))))
        y = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return GoogLeNetOutputs(y, aux2, aux1) if heads else y


# --- Inception v3 ----------------------------------------------------------------------------------------------------
class _InceptionA(nn.Module):
    def __init__(self, c: int, pool_features: int):
        super().__init__()
        self.branch1x1 = ConvNorm(c, 64, kernel_size=1)
        self.branch5x5_1, self.branch5x5_2 = ConvNorm(c, 48, kernel_size=1), ConvNorm(48, 64, kernel_size=5, padding=2)
        self.branch3x3dbl_1 = ConvNorm(c, 64, kernel_size=1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, kernel_size=3, padding=1)
        self.branch_pool = ConvNorm(c, pool_features, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return tw.cat([self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double,
                       self.branch_pool(F.avg_pool2d(x, 3, 1, 1))], 1)


class _InceptionB(nn.Module):
    """Halves height and width."""

    def __init__(self, c: int):
        super().__init__()
        self.branch3x3 = ConvNorm(c, 384, kernel_size=3, stride=2)
        self.branch3x3dbl_1 = ConvNorm(c, 64, kernel_size=1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return tw.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


def _row(c: int, o: int) -> ConvNorm:
    return ConvNorm(c, o, kernel_size=(1, 7), padding=(0, 3))


def _column(c: int, o: int) -> ConvNorm:
    return ConvNorm(c, o, kernel_size=(7, 1), padding=(3, 0))


class _InceptionC(nn.Module):
    """7 x 7 as a row and a column, once and twice."""

    def __init__(self, c: int, c7: int):
        super().__init__()
        self.branch1x1 = ConvNorm(c, 192, kernel_size=1)
        self.branch7x7_1 = ConvNorm(c, c7, kernel_size=1)
        self.branch7x7_2, self.branch7x7_3 = _row(c7, c7), _column(c7, 192)
        self.branch7x7dbl_1 = ConvNorm(c, c7, kernel_size=1)
        self.branch7x7dbl_2, self.branch7x7dbl_3 = _column(c7, c7), _row(c7, c7)
        self.branch7x7dbl_4, self.branch7x7dbl_5 = _column(c7, c7), _row(c7, 192)
        self.branch_pool = ConvNorm(c, 192, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return tw.cat([self.branch1x1(x), once, twice, self.branch_pool(F.avg_pool2d(x, 3, 1, 1))], 1)


class _InceptionD(nn.Module):
    """Halves height and width."""

    def __init__(self, c: int):
        super().__init__()
        self.branch3x3_1 = ConvNorm(c, 192, kernel_size=1)
        self.branch3x3_2 = ConvNorm(192, 320, kernel_size=3, stride=2)
        self.branch7x7x3_1 = ConvNorm(c, 192, kernel_size=1)
        self.branch7x7x3_2, self.branch7x7x3_3 = _row(192, 192), _column(192, 192)
        self.branch7x7x3_4 = ConvNorm(192, 192, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return tw.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class _InceptionE(nn.Module):
    """3 x 3 as a row beside a column."""

    def __init__(self, c: int):
        super().__init__()
        self.branch1x1 = ConvNorm(c, 320, kernel_size=1)
        self.branch3x3_1 = ConvNorm(c, 384, kernel_size=1)
        self.branch3x3_2a = ConvNorm(384, 384, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvNorm(384, 384, kernel_size=(3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvNorm(c, 448, kernel_size=1)
        self.branch3x3dbl_2 = ConvNorm(448, 384, kernel_size=3, padding=1)
        self.branch3x3dbl_3a = ConvNorm(384, 384, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvNorm(384, 384, kernel_size=(3, 1), padding=(1, 0))
        self.branch_pool = ConvNorm(c, 192, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        once, twice = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return tw.cat([self.branch1x1(x), self.branch3x3_2a(once), self.branch3x3_2b(once),
                       self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice),
                       self.branch_pool(F.avg_pool2d(x, 3, 1, 1))], 1)


class _InceptionAux(nn.Module):
    def __init__(self, c: int, num_classes: int):
        super().__init__()
        self.conv0, self.conv1 = ConvNorm(c, 128, kernel_size=1), ConvNorm(128, 768, kernel_size=5)
        self.conv1.conv.stddev = 0.01
        self.fc = nn.Linear(768, num_classes)
        self.fc.stddev = 0.001

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Inception3(nn.Module):
    """Images (N, 3, H, W), 299 x 299 in the paper and 75 x 75 at least, to (N, num_classes).

    23,834,568 parameters, with the auxiliary head 27,161,264. In training, with aux_logits, an `InceptionOutputs`.
    """

    def __init__(self, num_classes: int = 1000, aux_logits: bool = True, transform_input: bool = False,
                 init_weights: bool = True, dropout: float = 0.5):
        super().__init__()
        self.aux_logits, self.transform_input = aux_logits, transform_input
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, kernel_size=3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, kernel_size=3)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _InceptionA(192, 32), _InceptionA(256, 64), _InceptionA(288, 64)
        self.Mixed_6a = _InceptionB(288)
        self.Mixed_6b, self.Mixed_6c = _InceptionC(768, 128), _InceptionC(768, 160)
        self.Mixed_6d, self.Mixed_6e = _InceptionC(768, 160), _InceptionC(768, 192)
        self.AuxLogits: Any = _InceptionAux(768, num_classes) if aux_logits else None
        self.Mixed_7a = _InceptionD(768)
        self.Mixed_7b, self.Mixed_7c = _InceptionE(1280), _InceptionE(2048)
        self.avgpool, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        if init_weights:
            _start(self)

    def forward(self, x: Tensor) -> Any:
        if self.transform_input:
            x = _renormalized(x)
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        heads = self.training and self.aux_logits
        aux = self.AuxLogits(x) if heads else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        y = self.fc(self.dropout(self.avgpool(x)).flatten(1))
        return InceptionOutputs(y, aux) if heads else y


def googlenet(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> GoogLeNet:
    """`GoogLeNet`; weights: the path of a local file of PyTorch's or tilewright's."""
    return with_weights(GoogLeNet(**kwargs), weights)


def inception_v3(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> Inception3:
    """`Inception3`; weights: the path of a local file of PyTorch's or tilewright's."""
    return with_weights(Inception3(**kwargs), weights)
