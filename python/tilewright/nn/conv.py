"""Conv1d, Conv2d, Conv3d and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.checks import check_choice, check_size
from tilewright.nn.module import Module
from tilewright.nn.parameter import empty_parameter
from tilewright.tensor import Tensor


def _check_sizes(owner: str, name: str, value: Any, nd: int, minimum: int = 0) -> tuple[int, ...]:
    """An int for all dimensions, or one each."""
    if not isinstance(value, (tuple, list)):
        return (check_size(owner, name, value, minimum),) * nd
    if len(value) != nd:
        many = {1: "one int", 2: "a pair", 3: "three ints"}[nd]
        raise ValueError(f"{owner}: {name} must be an int or {many}, got {tuple(value)}")
    return tuple(check_size(owner, name, v, minimum) for v in value)


class _ConvNd(Module):
    """What all six layers share: the arguments' checks, the parameters and their start, the printed form."""

    _nd: int
    _transposed = False

    def _set_up(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
                groups: int, bias: bool, padding_mode: str, device: Any, dtype: Any) -> None:
        owner, nd = type(self).__name__, self._nd
        self.in_channels = check_size(owner, "in_channels", in_channels, 1)
        self.out_channels = check_size(owner, "out_channels", out_channels, 1)
        self.kernel_size = _check_sizes(owner, "kernel_size", kernel_size, nd, 1)
        self.stride = _check_sizes(owner, "stride", stride, nd, 1)
        self.dilation = _check_sizes(owner, "dilation", dilation, nd, 1)
        self.groups = check_size(owner, "groups", groups, 1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{owner}: groups must divide {name}, got groups {groups}, {name} {channels}")
        modes = ("zeros",) if self._transposed else ("zeros", "reflect", "replicate", "circular")
        self.padding_mode = check_choice(owner, "padding_mode", padding_mode, modes)
        if isinstance(padding, str) and not self._transposed:
            self.padding: str | tuple[int, ...] = check_choice(owner, "padding", padding, ("same", "valid"))
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError(f"{owner}: padding 'same' needs stride 1, got stride {self.stride}")
        else:
            self.padding = _check_sizes(owner, "padding", padding, nd)
        first, second = (in_channels, out_channels) if self._transposed else (out_channels, in_channels)
        self.weight = empty_parameter((first, second // groups, *self.kernel_size), device, dtype)
        self.register_parameter("bias", empty_parameter((out_channels,), device, dtype, bias))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        init.default_linear_(self.weight, self.bias)

    def extra_repr(self) -> str:
        zeros, ones = (0,) * self._nd, (1,) * self._nd
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != zeros:
            text += f", padding={self.padding}"
        if self.dilation != ones:
            text += f", dilation={self.dilation}"
        if getattr(self, "output_padding", zeros) != zeros:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else text + f", padding_mode={self.padding_mode}"

    def _label(self) -> str:
        window = "x".join(map(str, self.kernel_size))
        return f"{type(self).__name__} {self.in_channels} -> {self.out_channels}, {window}"


class _ForwardConv(_ConvNd):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1, padding: int | Sequence[int] | str = 0,
                 dilation: int | Sequence[int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self._set_up(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
                     device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        convolve = getattr(F, f"conv{self._nd}d")
        padding: str | int | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros" and padding != "valid":
            input, padding = F.pad(input, self._pad_widths(), self.padding_mode), 0
        return convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _pad_widths(self) -> tuple[int, ...]:
        """F.pad's widths, last dimension first."""
        if isinstance(self.padding, tuple):
            return tuple(n for p in reversed(self.padding) for n in (p, p))
        totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return tuple(n for total in reversed(totals) for n in (total // 2, total - total // 2))


class Conv1d(_ForwardConv):
    """Cross-correlation of signals (N, in_channels, L) with filters W (out_channels, in_channels/groups, k).

    The output is (N, out_channels, l), l = floor((L + 2 padding - dilation (k - 1) - 1) / stride) + 1. padding is an
    int, 'valid' (none) or 'same' (l = L, for stride 1); padding_mode is 'zeros', 'reflect', 'replicate' or 'circular'.
    W and the bias start uniform in +-1/sqrt(in_channels/groups k).

    Raises:
        ValueError: sizes below 1, groups that do not divide both channel counts, 'same' with a stride.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> tuple(nn.Conv1d(3, 8, 3, stride=2, padding=1)(tw.zeros(4, 3, 32)).shape)
    (4, 8, 16)
    """

    _nd = 1


class Conv2d(_ForwardConv):
    """Cross-correlation of images (N, in_channels, H, W) with filters W (out_channels, in_channels/groups, kh, kw).

    The output is (N, out_channels, oh, ow), oh = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1.
    padding is an int, a pair, 'valid' (none) or 'same' (oh = H, for stride 1); padding_mode is 'zeros', 'reflect',
    'replicate' or 'circular'. W and the bias start uniform in +-1/sqrt(in_channels/groups kh kw).

    Raises:
        ValueError: sizes below 1, groups that do not divide both channel counts, 'same' with a stride.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> tuple(nn.Conv2d(3, 8, 3, stride=2, padding=1)(tw.zeros(4, 3, 32, 32)).shape)
    (4, 8, 16, 16)
    """

    _nd = 2


class Conv3d(_ForwardConv):
    """Cross-correlation of volumes (N, in_channels, D, H, W) with filters.

    The filters are (out_channels, in_channels/groups, kd, kh, kw). Sizes, padding, padding_mode, start and errors as in
    Conv2d, with one dimension more.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> tuple(nn.Conv3d(1, 4, 3, padding="same")(tw.zeros(2, 1, 6, 7, 8)).shape)
    (2, 4, 6, 7, 8)
    """

    _nd = 3


class _ConvTransposeNd(_ConvNd):
    _transposed = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0,
                 output_padding: int | Sequence[int] = 0, groups: int = 1, bias: bool = True,
                 dilation: int | Sequence[int] = 1, padding_mode: str = "zeros", device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        owner = type(self).__name__
        self.output_padding = _check_sizes(owner, "output_padding", output_padding, self._nd)
        self._set_up(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
                     device, dtype)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """output_size: the sizes wanted, where a stride leaves several possible; takes output_padding's place."""
        extra = self.output_padding if output_size is None else self._extra(input, list(output_size))
        convolve = getattr(F, f"conv_transpose{self._nd}d")
        return convolve(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def _extra(self, input: Tensor, wanted: list[int]) -> tuple[int, ...]:
        nd, owner = self._nd, type(self).__name__
        given = wanted[-nd:]
        if len(wanted) not in (nd, input.ndim):
            raise ValueError(f"{owner}: output_size must have {nd} or {input.ndim} numbers, got {tuple(wanted)}")
        low = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in
               zip(input.shape[-nd:], self.stride, cast(tuple, self.padding), self.dilation, self.kernel_size,
                   strict=True)]
        if any(not at <= g < at + s for g, at, s in zip(given, low, self.stride, strict=True)):
            high = tuple(at + s - 1 for at, s in zip(low, self.stride, strict=True))
            raise ValueError(f"{owner}: output_size must lie between {tuple(low)} and {high}, got {tuple(given)}")
        return tuple(g - at for g, at in zip(given, low, strict=True))


class ConvTranspose1d(_ConvTransposeNd):
    """The transpose of Conv1d: (N, in_channels, L) to (N, out_channels, l).

    Filters (in_channels, out_channels/groups, k), l = (L - 1) stride - 2 padding + dilation (k - 1) + output_padding
    + 1. W and the bias start uniform in +-1/sqrt(out_channels/groups k).

    Raises:
        ValueError: sizes below 1, groups that do not divide both channel counts, an output_padding that is neither
            below the stride nor below the dilation, an output_size that no output_padding gives.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> tuple(nn.ConvTranspose1d(8, 3, 4, stride=2, padding=1)(tw.zeros(4, 8, 16)).shape)
    (4, 3, 32)
    """

    _nd = 1


class ConvTranspose2d(_ConvTransposeNd):
    """The transpose of Conv2d: (N, in_channels, H, W) to (N, out_channels, h, w).

    Filters (in_channels, out_channels/groups, kh, kw); sizes, start and errors as in ConvTranspose1d.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> up = nn.ConvTranspose2d(8, 3, 3, stride=2, padding=1)
    >>> tuple(up(tw.zeros(4, 8, 16, 16), output_size=(32, 32)).shape)
    (4, 3, 32, 32)
    """

    _nd = 2


class ConvTranspose3d(_ConvTransposeNd):
    """The transpose of Conv3d: (N, in_channels, D, H, W) to (N, out_channels, d, h, w).

    Filters (in_channels, out_channels/groups, kd, kh, kw); sizes, start and errors as in ConvTranspose1d.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> tuple(nn.ConvTranspose3d(4, 2, 2, stride=2)(tw.zeros(1, 4, 3, 4, 5)).shape)
    (1, 2, 6, 8, 10)
    """

    _nd = 3
