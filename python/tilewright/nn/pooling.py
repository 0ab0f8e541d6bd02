"""Pooling layers over (N, C, ...) or (C, ...) with one, two or three spatial dimensions, and Upsample."""

from __future__ import annotations

from typing import Any

from tilewright.nn import functional as F
from tilewright.nn.checks import check_number, check_size
from tilewright.nn.module import Module
from tilewright.tensor import Tensor

Sizes = int | tuple[int, ...]


def _spread(owner: str, name: str, value: Any, dims: int, minimum: int = 0) -> tuple[int, ...]:
    """One int for all dimensions or one each."""
    if not isinstance(value, (tuple, list)):
        return (check_size(owner, name, value, minimum),) * dims
    if len(value) not in (1, dims):
        raise ValueError(f"{owner}: {name} must be an int or {dims} ints, got {tuple(value)}")
    return tuple(check_size(owner, name, v, minimum) for v in (value if len(value) == dims else (*value,) * dims))


class _Pool(Module):
    """Arguments as given (an int stays an int, as users and repr expect), checked."""

    _dims = 1

    def _set_window(self, kernel_size: Any, stride: Any, padding: Any = 0) -> None:
        owner = type(self).__name__
        kernel = _spread(owner, "kernel_size", kernel_size, self._dims, 1)
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        _spread(owner, "stride", self.stride, self._dims, 1)
        pads = _spread(owner, "padding", padding, self._dims)
        if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
            raise ValueError(f"{owner}: padding must be at most half of kernel_size, got {padding} and {kernel_size}")

    def _spread_window(self) -> None:
        """An int becomes one int a dimension, where PyTorch keeps it so."""
        for name in ("kernel_size", "stride", "padding"):
            setattr(self, name, _spread(type(self).__name__, name, getattr(self, name), self._dims))

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(F, f"{name}{self._dims}d")(*args, **kwargs)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _MaxPoolNd(_Pool):
    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
                 return_indices: bool = False, ceil_mode: bool = False) -> None:
        super().__init__()
        self._set_window(kernel_size, stride, padding)
        _spread(type(self).__name__, "dilation", dilation, self._dims, 1)
        self.dilation, self.return_indices, self.ceil_mode = dilation, return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        return self._call("max_pool", input, self.kernel_size, self.stride, self.padding, self.dilation,
                          ceil_mode=self.ceil_mode, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dilation={self.dilation}, ceil_mode={self.ceil_mode}"


class MaxPool1d(_MaxPoolNd):
    """The largest value of each window along L; padding counts as -inf.

    Raises:
        ValueError: a window or stride below 1, padding above half the window.
    """

    _dims = 1


class MaxPool2d(_MaxPoolNd):
    """The largest value of each window of a plane; arguments as MaxPool1d's, an int or a pair each."""

    _dims = 2


class MaxPool3d(_MaxPoolNd):
    """The largest value of each window of a volume; arguments as MaxPool1d's, an int or three each."""

    _dims = 3


class _MaxUnpoolNd(_Pool):
    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        super().__init__()
        self._set_window(kernel_size, stride, padding)
        self._spread_window()

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return self._call("max_unpool", input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool1d(_MaxUnpoolNd):
    """Zeros but for the values of a MaxPool1d, put back where its indices say."""

    _dims = 1


class MaxUnpool2d(_MaxUnpoolNd):
    """Zeros but for the values of a MaxPool2d, put back where its indices say."""

    _dims = 2


class MaxUnpool3d(_MaxUnpoolNd):
    """Zeros but for the values of a MaxPool3d, put back where its indices say."""

    _dims = 3


class _AvgPoolNd(_Pool):
    def _set_up(self, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, ceil_mode: bool,
                count_include_pad: bool) -> None:
        self._set_window(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def _options(self) -> tuple:
        return (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def forward(self, input: Tensor) -> Tensor:
        return self._call("avg_pool", input, *self._options())


class AvgPool1d(_AvgPoolNd):
    """The mean of each window along L, over the window's size or, with count_include_pad=False, what lies inside.

    Raises:
        ValueError: a window or stride below 1, padding above half the window.
    """

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True) -> None:
        super().__init__()
        self._set_up(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self._spread_window()


class _DividedAvgPool(_AvgPoolNd):
    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None) -> None:
        super().__init__()
        self._set_up(kernel_size, stride, padding, ceil_mode, count_include_pad)
        if divisor_override is not None:
            check_size(type(self).__name__, "divisor_override", divisor_override, 1)
        self.divisor_override = divisor_override

    def _options(self) -> tuple:
        return (*super()._options(), self.divisor_override)


class AvgPool2d(_DividedAvgPool):
    """The mean of each window of a plane, over the window's size, what lies inside, or divisor_override.

    Raises:
        ValueError: as AvgPool1d, or a divisor_override of 0.
    """

    _dims = 2


class AvgPool3d(_DividedAvgPool):
    """The mean of each window of a volume, over the window's size, what lies inside, or divisor_override."""

    _dims = 3


class _LPPoolNd(_Pool):
    def __init__(self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self._set_window(kernel_size, stride)
        self.norm_type, self.stride = check_number(type(self).__name__, "norm_type", norm_type), stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return self._call("lp_pool", input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
                f"ceil_mode={self.ceil_mode}")


class LPPool1d(_LPPoolNd):
    """(sum of x^norm_type)^(1 / norm_type) of each window along L."""

    _dims = 1


class LPPool2d(_LPPoolNd):
    """(sum of x^norm_type)^(1 / norm_type) of each window of a plane."""

    _dims = 2


class LPPool3d(_LPPoolNd):
    """(sum of x^norm_type)^(1 / norm_type) of each window of a volume."""

    _dims = 3


class _AdaptivePoolNd(_Pool):
    def __init__(self, output_size: int | tuple[int | None, ...] | None) -> None:
        super().__init__()
        owner = type(self).__name__
        sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * self._dims
        if len(sizes) != self._dims:
            raise ValueError(f"{owner}: output_size must be an int or {self._dims} ints, got {output_size}")
        for size in sizes:
            if size is not None:
                check_size(owner, "output_size", size)
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPoolNd(_AdaptivePoolNd):
    def forward(self, input: Tensor) -> Any:
        return self._call("adaptive_avg_pool", input, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPoolNd):
    """Means over windows chosen so that the output is output_size; None keeps a direction's size."""

    _dims = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPoolNd):
    """Means over a grid of windows chosen so that the output is output_size; None keeps a direction's size."""

    _dims = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPoolNd):
    """Means over a grid of windows chosen so that the output is output_size; None keeps a direction's size."""

    _dims = 3


class _AdaptiveMaxPoolNd(_AdaptivePoolNd):
    def __init__(self, output_size: int | tuple[int | None, ...] | None, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return self._call("adaptive_max_pool", input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPoolNd):
    """Maxima over windows chosen so that the output is output_size, and their positions with return_indices."""

    _dims = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPoolNd):
    """Maxima over a grid of windows chosen so that the output is output_size, and their positions if asked."""

    _dims = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPoolNd):
    """Maxima over a grid of windows chosen so that the output is output_size, and their positions if asked."""

    _dims = 3


# --- upsampling ------------------------------------------------------------------------------------------------------
class Upsample(Module):
    """Interpolation to `size` or by `scale_factor`; see F.interpolate."""

    def __init__(self, size: Sizes | None = None, scale_factor: float | tuple[float, ...] | None = None,
                 mode: str = "nearest", align_corners: bool | None = None,
                 recompute_scale_factor: bool | None = None) -> None:
        super().__init__()
        self.size, self.mode, self.align_corners = size, mode, align_corners
        self.scale_factor = tuple(float(f) for f in scale_factor) if isinstance(scale_factor, (tuple, list)) else (
            float(scale_factor) if scale_factor else None)
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners,
                             recompute_scale_factor=self.recompute_scale_factor)

    def extra_repr(self) -> str:
        how = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{how}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Upsample of images by the nearest pixel."""

    def __init__(self, size: Sizes | None = None, scale_factor: float | tuple[float, ...] | None = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Upsample of images, bilinear, with the corners aligned."""

    def __init__(self, size: Sizes | None = None, scale_factor: float | tuple[float, ...] | None = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)
