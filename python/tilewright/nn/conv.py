"""Conv2d."""

from __future__ import annotations

from typing import Any

from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.checks import check_choice, check_pair, check_size
from tilewright.nn.module import Module
from tilewright.nn.parameter import empty_parameter
from tilewright.tensor import Tensor


class Conv2d(Module):
    """Cross-correlation of images (N, in_channels, H, W) with filters W (out_channels, in_channels/groups, kh, kw).

    The output is (N, out_channels, oh, ow), oh = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1.
    padding is an int, a pair, 'valid' (none) or 'same' (oh = H, for stride 1). W and the bias start uniform in
    +-1/sqrt(in_channels/groups kh kw).

    Raises:
        ValueError: sizes below 1, groups that do not divide both channel counts, 'same' with a stride.
        NotImplementedError: a padding_mode other than 'zeros'.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> tuple(nn.Conv2d(3, 8, 3, stride=2, padding=1)(tw.zeros(4, 3, 32, 32)).shape)
    (4, 8, 16, 16)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] | str = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.in_channels = check_size("Conv2d", "in_channels", in_channels, 1)
        self.out_channels = check_size("Conv2d", "out_channels", out_channels, 1)
        self.kernel_size = check_pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride = check_pair("Conv2d", "stride", stride, 1)
        self.dilation = check_pair("Conv2d", "dilation", dilation, 1)
        self.groups = check_size("Conv2d", "groups", groups, 1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"Conv2d: groups must divide {name}, got groups {groups}, {name} {channels}")
        check_choice("Conv2d", "padding_mode", padding_mode, ("zeros", "reflect", "replicate", "circular"))
        if padding_mode != "zeros":
            raise NotImplementedError(f"Conv2d: padding_mode '{padding_mode}' is not offered; pad the input first")
        self.padding_mode = padding_mode
        if isinstance(padding, str):
            self.padding: str | tuple[int, int] = check_choice("Conv2d", "padding", padding, ("same", "valid"))
            if padding == "same" and self.stride != (1, 1):
                raise ValueError(f"Conv2d: padding 'same' needs stride 1, got stride {self.stride}")
        else:
            self.padding = check_pair("Conv2d", "padding", padding)
        # What is added before (an odd total puts the extra row or column behind, by F.pad in forward).
        self._before, self._extra = self._split_padding()
        self.weight = empty_parameter((out_channels, in_channels // groups, *self.kernel_size), device, dtype)
        self.bias = empty_parameter((out_channels,), device, dtype) if bias else None
        self.reset_parameters()

    def _split_padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        if isinstance(self.padding, tuple):
            return self.padding, (0, 0)
        if self.padding == "valid":
            return (0, 0), (0, 0)
        total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return (total[0] // 2, total[1] // 2), (total[0] % 2, total[1] % 2)

    def reset_parameters(self) -> None:
        init.default_linear_(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        if self._extra != (0, 0):
            input = F.pad(input, (0, self._extra[1], 0, self._extra[0]))
        return F.conv2d(input, self.weight, self.bias, self.stride, self._before, self.dilation, self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text + (", bias=False" if self.bias is None else "")

    def _label(self) -> str:
        window = "x".join(map(str, self.kernel_size))
        return f"{type(self).__name__} {self.in_channels} -> {self.out_channels}, {window}"
