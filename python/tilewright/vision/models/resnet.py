"""Residual networks: He et al., Deep residual learning (arXiv:1512.03385) and Identity mappings (arXiv:1603.05027);
Xie et al., Aggregated residual transformations (arXiv:1611.05431); Zagoruyko and Komodakis, Wide residual networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tilewright import nn
from tilewright.tensor import Tensor
from tilewright.vision.models._parts import normal_start, with_weights

__all__ = ["BasicBlock", "Bottleneck", "PreActBlock", "PreActBottleneck", "PreActResNet", "ResNet", "preact_resnet18",
           "preact_resnet34", "preact_resnet50", "preact_resnet101", "preact_resnet152", "resnet18", "resnet34",
           "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2"]

Norm = Callable[[int], nn.Module]
WIDTHS = (64, 128, 256, 512)


def _conv3(c: int, o: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c, o, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False)


def _check_stages(owner: str, layers: Sequence[int], widths: Sequence[int]) -> None:
    if len(layers) != len(widths):
        raise ValueError(f"{owner}: layers and widths must be as many, got {tuple(layers)} and {tuple(widths)}")


class BasicBlock(nn.Module):
    """relu(x + bn(conv3(relu(bn(conv3(x))))))."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None,
                 groups: int = 1, base_width: int = 64, dilation: int = 1, norm_layer: Norm | None = None):
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        if groups != 1 or base_width != 64 or dilation != 1:
            raise ValueError("BasicBlock: has one group, base width 64 and dilation 1, got "
                             f"{groups}, {base_width}, {dilation}")
        self.conv1, self.bn1 = _conv3(inplanes, planes, stride), norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _conv3(planes, planes), norm(planes)
        self.downsample, self.stride = downsample, stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1 x 1 down, 3 x 3 with the stride, 1 x 1 up to four times `planes`."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None,
                 groups: int = 1, base_width: int = 64, dilation: int = 1, norm_layer: Norm | None = None):
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1, self.bn1 = nn.Conv2d(inplanes, width, 1, bias=False), norm(width)
        self.conv2, self.bn2 = _conv3(width, width, stride, groups, dilation), norm(width)
        self.conv3, self.bn3 = nn.Conv2d(width, planes * 4, 1, bias=False), norm(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample, self.stride = downsample, stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Images (N, 3, H, W) to (N, num_classes): a 7 x 7 start, four stages of `layers` blocks, the mean, one layer.

    small=True: a 3 x 3 start without pooling, for 32 x 32 images; with widths=(16, 32, 64), three stages, the nets of
    the paper's section 4.2. zero_init_residual: blocks begin as the identity. replace_stride_with_dilation: of the
    stages after the first, which keep their resolution and widen their filters instead, as segmentation wants it.
    """

    def __init__(self, block: Any, layers: Sequence[int], num_classes: int = 1000, zero_init_residual: bool = False,
                 groups: int = 1, width_per_group: int = 64,
                 replace_stride_with_dilation: Sequence[bool] | None = None, norm_layer: Norm | None = None,
                 widths: Sequence[int] = WIDTHS, small: bool = False):
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        dilate = list(replace_stride_with_dilation or [False] * (len(widths) - 1))
        if len(dilate) != len(widths) - 1:
            raise ValueError(f"ResNet: replace_stride_with_dilation must have {len(widths) - 1} entries, got {dilate}")
        _check_stages("ResNet", layers, widths)
        self.inplanes, self.dilation = widths[0], 1
        self.conv1 = _conv3(3, widths[0]) if small else nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1, self.relu = norm(widths[0]), nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        stages = []
        for i, (planes, count) in enumerate(zip(widths, layers, strict=True)):
            stride, before = (2 if i else 1), self.dilation
            if i and dilate[i - 1]:
                self.dilation, stride = self.dilation * stride, 1
            blocks = []
            for k in range(count):
                first, c = k == 0, self.inplanes
                down = None
                if first and (stride != 1 or c != planes * block.expansion):
                    down = nn.Sequential(nn.Conv2d(c, planes * block.expansion, 1, stride, bias=False),
                                         norm(planes * block.expansion))
                blocks.append(block(c, planes, stride if first else 1, down, groups, width_per_group,
                                    before if first else self.dilation, norm))
                self.inplanes = planes * block.expansion
            stages.append(f"layer{i + 1}")
            setattr(self, stages[-1], nn.Sequential(*blocks))
        self.stages, self.avgpool = tuple(stages), nn.AdaptiveAvgPool2d(1)
        normal_start(self)
        self.fc = nn.Linear(widths[-1] * block.expansion, num_classes)  # which keeps nn.Linear's own start
        if zero_init_residual:
            for m in self.modules():
                if isinstance(m, BasicBlock | Bottleneck):
                    nn.init.zeros_((m.bn3 if isinstance(m, Bottleneck) else m.bn2).weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(self.avgpool(x).flatten(1))


# --- pre-activation --------------------------------------------------------------------------------------------------
class PreActBlock(nn.Module):
    """x + conv3(relu(bn(conv3(relu(bn(x)))))): nothing lies on the way of the identity."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int = 1):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inplanes), _conv3(inplanes, planes, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(planes), _conv3(planes, planes)
        self.shortcut = None if stride == 1 and inplanes == planes else \
            nn.Conv2d(inplanes, planes, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu(self.bn1(x))
        identity = x if self.shortcut is None else self.shortcut(y)
        return self.conv2(nn.functional.relu(self.bn2(self.conv1(y)))) + identity


class PreActBottleneck(nn.Module):
    """`PreActBlock` with 1 x 1 convolutions before and after the 3 x 3."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inplanes), nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(planes), _conv3(planes, planes, stride)
        self.bn3, self.conv3 = nn.BatchNorm2d(planes), nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.shortcut = None if stride == 1 and inplanes == 4 * planes else \
            nn.Conv2d(inplanes, 4 * planes, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu(self.bn1(x))
        identity = x if self.shortcut is None else self.shortcut(y)
        y = self.conv2(nn.functional.relu(self.bn2(self.conv1(y))))
        return self.conv3(nn.functional.relu(self.bn3(y))) + identity


class PreActResNet(nn.Module):
    """As `ResNet`, with pre-activation blocks. small=True: a 3 x 3 start without pooling, for 32 x 32 images."""

    def __init__(self, block: Any, layers: Sequence[int], num_classes: int = 1000, small: bool = False,
                 widths: Sequence[int] = WIDTHS):
        super().__init__()
        _check_stages("PreActResNet", layers, widths)
        c, stages = widths[0], []
        self.start = nn.Sequential(_conv3(3, c)) if small else nn.Sequential(
            nn.Conv2d(3, c, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1))
        for i, (planes, count) in enumerate(zip(widths, layers, strict=True)):
            for k in range(count):
                stages.append(block(c, planes, 2 if i and k == 0 else 1))
                c = planes * block.expansion
        self.blocks, self.bn = nn.Sequential(*stages), nn.BatchNorm2d(c)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(c, num_classes)
        normal_start(self.start)
        normal_start(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu(self.bn(self.blocks(self.start(x))))
        return self.fc(self.avgpool(y).flatten(1))


LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _maker(name: str, cls: Any, block: Any, depth: int, doc: str, **fixed: Any) -> Any:
    def make(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> Any:
        return with_weights(cls(block, LAYERS[depth], **{**fixed, **kwargs}), weights)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = doc
    return make


def _residual(depth: int, count: int) -> Any:
    return _maker(f"resnet{depth}", ResNet, BasicBlock if depth < 50 else Bottleneck, depth,
                  f"`ResNet` of {depth} layers: {count:,} parameters for 1,000 classes.")


def _preact(depth: int) -> Any:
    return _maker(f"preact_resnet{depth}", PreActResNet, PreActBlock if depth < 50 else PreActBottleneck, depth,
                  f"`PreActResNet` of {depth} layers.")


resnet18, resnet34 = _residual(18, 11_689_512), _residual(34, 21_797_672)
resnet50, resnet101, resnet152 = _residual(50, 25_557_032), _residual(101, 44_549_160), _residual(152, 60_192_808)
preact_resnet18, preact_resnet34, preact_resnet50 = _preact(18), _preact(34), _preact(50)
preact_resnet101, preact_resnet152 = _preact(101), _preact(152)
resnext50_32x4d = _maker("resnext50_32x4d", ResNet, Bottleneck, 50, "ResNeXt-50 of 32 groups of width 4: "
                         "25,028,904 parameters for 1,000 classes.", groups=32, width_per_group=4)
wide_resnet50_2 = _maker("wide_resnet50_2", ResNet, Bottleneck, 50, "ResNet-50 whose blocks are twice as wide inside: "
                         "68,883,240 parameters for 1,000 classes.", width_per_group=128)
