"""MaxPool2d, AvgPool2d and AdaptiveAvgPool2d over images (N, C, H, W) or (C, H, W)."""

from __future__ import annotations

from typing import Any

from tilewright.nn import functional as F
from tilewright.nn.checks import check_pair, check_size
from tilewright.nn.module import Module
from tilewright.tensor import Tensor


def _check_window(owner: str, kernel_size: Any, stride: Any, padding: Any) -> tuple:
    """The arguments as given (an int stays an int, as users and repr expect), checked."""
    kernel = check_pair(owner, "kernel_size", kernel_size, 1)
    stride = kernel_size if stride is None else stride
    check_pair(owner, "stride", stride, 1)
    pad = check_pair(owner, "padding", padding)
    if 2 * pad[0] > kernel[0] or 2 * pad[1] > kernel[1]:
        raise ValueError(f"{owner}: padding must be at most half of kernel_size, got {padding} and {kernel_size}")
    return kernel_size, stride, padding


class MaxPool2d(Module):
    """The largest value of each window; padding counts as -inf.

    Raises:
        ValueError: a window or stride below 1, padding above half the window.
    """

    def __init__(self, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None,
                 padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1,
                 return_indices: bool = False, ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = _check_window("MaxPool2d", kernel_size, stride, padding)
        check_pair("MaxPool2d", "dilation", dilation, 1)
        self.dilation, self.return_indices, self.ceil_mode = dilation, return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation,
                            ceil_mode=self.ceil_mode, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class AvgPool2d(Module):
    """The mean of each window, over kh kw values or, with count_include_pad=False, over those inside the image.

    Raises:
        ValueError: a window or stride below 1, padding above half the window, a divisor_override of 0.
    """

    def __init__(self, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None,
                 padding: int | tuple[int, int] = 0, ceil_mode: bool = False, count_include_pad: bool = True,
                 divisor_override: int | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = _check_window("AvgPool2d", kernel_size, stride, padding)
        if divisor_override is not None:
            check_size("AvgPool2d", "divisor_override", divisor_override, 1)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                            self.count_include_pad, self.divisor_override)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Means over windows chosen so that the output is output_size; None keeps a direction's size."""

    def __init__(self, output_size: int | tuple[int | None, int | None] | None) -> None:
        super().__init__()
        sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
        if len(sizes) != 2:
            raise ValueError(f"AdaptiveAvgPool2d: output_size must be an int or a pair, got {output_size}")
        for size in sizes:
            if size is not None:
                check_size("AdaptiveAvgPool2d", "output_size", size)
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
