"""Padding layers: constant, zero, reflection, replication and circular, over the last one, two or three dims."""

from __future__ import annotations

from tilewright.nn import functional as F
from tilewright.nn.checks import check_number
from tilewright.nn.module import Module
from tilewright.tensor import Tensor


class _Pad(Module):
    """`padding` is an int for every side, or (before, after) for the last dim, then the one before it, and so on.

    Raises:
        ValueError: as many widths as two a dim are not given. TypeError: widths that are not ints.
    """

    _mode = "constant"
    _dims = 1

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__()
        owner, count = type(self).__name__, 2 * self._dims
        widths = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * count
        if len(widths) != count:
            raise ValueError(f"{owner}: padding must be an int or {count} ints, got {padding}")
        if any(isinstance(n, bool) or not hasattr(n, "__index__") for n in widths):
            raise TypeError(f"{owner}: padding must be ints, got {padding!r}")
        self.padding = widths

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (self._dims + 1, self._dims + 2):
            raise ValueError(f"{type(self).__name__}: input must have {self._dims + 1} or {self._dims + 2} dims, got "
                             f"{tuple(input.shape)}")
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPadNd(_Pad):
    def __init__(self, padding: int | tuple[int, ...], value: float) -> None:
        super().__init__(padding)
        self.value = check_number(type(self).__name__, "value", value)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPadNd):
    """Grows the last dim by items of `value`; negative widths crop."""


class ConstantPad2d(_ConstantPadNd):
    """Grows the last two dims by items of `value`; negative widths crop."""

    _dims = 2


class ConstantPad3d(_ConstantPadNd):
    """Grows the last three dims by items of `value`; negative widths crop."""

    _dims = 3


class _ZeroPad(_ConstantPadNd):
    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad, ConstantPad1d):
    """Grows the last dim by zeros; negative widths crop."""


class ZeroPad2d(_ZeroPad, ConstantPad2d):
    """Grows the last two dims by zeros; negative widths crop."""


class ZeroPad3d(_ZeroPad, ConstantPad3d):
    """Grows the last three dims by zeros; negative widths crop."""


class _ReflectionPadNd(_Pad):
    _mode = "reflect"


class ReflectionPad1d(_ReflectionPadNd):
    """Grows the last dim by its mirror image about its end items."""


class ReflectionPad2d(_ReflectionPadNd):
    """Grows the last two dims by their mirror images about their end items."""

    _dims = 2


class ReflectionPad3d(_ReflectionPadNd):
    """Grows the last three dims by their mirror images about their end items."""

    _dims = 3


class _ReplicationPadNd(_Pad):
    _mode = "replicate"


class ReplicationPad1d(_ReplicationPadNd):
    """Grows the last dim by copies of its end items."""


class ReplicationPad2d(_ReplicationPadNd):
    """Grows the last two dims by copies of their end items."""

    _dims = 2


class ReplicationPad3d(_ReplicationPadNd):
    """Grows the last three dims by copies of their end items."""

    _dims = 3


class _CircularPadNd(_Pad):
    _mode = "circular"


class CircularPad1d(_CircularPadNd):
    """Grows the last dim by itself, as if it were a ring."""


class CircularPad2d(_CircularPadNd):
    """Grows the last two dims by themselves, as if they were rings."""

    _dims = 2


class CircularPad3d(_CircularPadNd):
    """Grows the last three dims by themselves, as if they were rings."""

    _dims = 3
