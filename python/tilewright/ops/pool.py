"""Pooling over windows of (N, C, ...) or (C, ...) with one, two or three spatial dimensions: maximum, average, power
average, their adaptive forms, and the inverse of maximum pooling.

A window's sizes are an int or one int a dimension; stride is the kernel size by default. Output size: floor((n + 2
padding - dilation (kernel - 1) - 1) / stride) + 1, or with `ceil_mode` ceil, where the last window may stick out but
must begin inside the input or its left padding. Adaptive window i covers items floor(i n / m) to ceil((i + 1) n / m).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.autograd import is_grad_enabled, record, wrap
from tilewright.ops import elementary, elementwise, reduce, shape
from tilewright.ops.index import gather, scatter

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def _ints(op: str, what: str, value, nd: int):
    """An int or a sequence of one or nd ints, as a tuple; None stays."""
    if value is None:
        return None
    items = tuple(value) if isinstance(value, tuple | list) else (value,)
    if len(items) not in (0, 1, nd) or not all(hasattr(v, "__index__") and not isinstance(v, bool) for v in items):
        kinds = {1: "an int", 2: "an int or a pair of ints", 3: "an int or three ints"}[nd]
        raise TypeError(f"{op}: {what} must be {kinds}, got {value!r}")
    return items


# --- maximum ---------------------------------------------------------------------------------------------------------
def _max_pool(op, nd, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    window = (_ints(op, "kernel_size", kernel_size, nd), _ints(op, "stride", stride, nd),
              _ints(op, "padding", padding, nd), _ints(op, "dilation", dilation, nd))
    if not x.array.is_float and x.dtype is not _engine.bool:  # through float64, which holds these integers exactly
        if x.dtype is _engine.int64 and x.numel() and max(x.max().item(), -x.min().item()) > 2**53:
            raise ValueError(f"{op}: integers must be within 2^53, got {x.min().item()} to {x.max().item()}")
        wide = _max_pool(op, nd, x.double(), kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        return (wide[0].to(x.dtype), wide[1]) if return_indices else wide.to(x.dtype)
    return _picked(op, nd, x, _engine.max_pool, (*window, ceil_mode), window, return_indices)


def _picked(op, nd, x, kernel, given, window, return_indices):
    # The gradient alone is content with 4 bytes a position.
    tracked = x.requires_grad and is_grad_enabled()
    y, indices = kernel(op, nd, x.array, *given, 8 if return_indices else 4 if tracked else 0)
    y = record(max_pool_grad, y, (x,), (indices,) if tracked else (), (op, nd, x.array.shape, window))
    return (y, wrap(indices)) if return_indices else y


def max_pool_grad(node, dy):
    (indices,) = node.saved
    return (_spread(dy, indices, *node.attrs),)


def _spread(dy, indices, op, nd, size, window):
    """dy summed at the maxima's positions; its gradient picks there."""
    dx = _engine.max_pool_backward(op, nd, dy.array, indices.array, size, window)
    return record(max_pool_backward_grad, dx, (dy,), (indices,), (nd,))


def max_pool_backward_grad(node, ddx):
    (indices,), (nd,) = node.saved, node.attrs
    at = wrap(_engine.cast(indices.array, _engine.int64))
    return (shape.reshape(gather(shape.flatten(ddx, -nd), -1, shape.flatten(at, -nd)), at.array.shape),)


def max_pool1d(input: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
               padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, ceil_mode: bool = False,
               return_indices: bool = False) -> Any:
    """The maximum of each window along L of (N, C, L) or (C, L); NaN if the window holds one.

    With `return_indices` also the int64 positions of the maxima among the items of one channel (the first of equals).

    Raises:
        ValueError: another number of dimensions, padding above half the kernel, or a window larger than the input.
    """
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(input: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
               padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, ceil_mode: bool = False,
               return_indices: bool = False) -> Any:
    """The maximum of each window over the planes of (N, C, H, W) or (C, H, W); NaN if the window holds one.

    With `return_indices` also the int64 positions of the maxima among the items of one channel (the first of equals).

    Raises:
        ValueError: another number of dimensions, padding above half the kernel, or a window larger than the input.

    >>> import tilewright as tw
    >>> tw.nn.functional.max_pool2d(tw.arange(16.0).reshape(1, 4, 4), 2).tolist()
    [[[5.0, 7.0], [13.0, 15.0]]]
    """
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(input: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
               padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, ceil_mode: bool = False,
               return_indices: bool = False) -> Any:
    """The maximum of each window over the volumes of (N, C, D, H, W) or (C, D, H, W); NaN if the window holds one.

    With `return_indices` also the int64 positions of the maxima among the items of one channel (the first of equals).

    Raises:
        ValueError: another number of dimensions, padding above half the kernel, or a window larger than the input.
    """
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _output_size(op, nd, x, output_size):
    """The sizes an adaptive pooling makes; None keeps the input's."""
    s = x.array.shape
    if len(s) not in (nd + 1, nd + 2):
        raise ValueError(f"{op}: input must have {nd + 1} or {nd + 2} dimensions, got {s}")
    sizes = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,) * nd
    if len(sizes) != nd or not all(n is None or (hasattr(n, "__index__") and not isinstance(n, bool)) for n in sizes):
        raise TypeError(f"{op}: output_size must be an int, None or {nd} of these, got {output_size!r}")
    return tuple(have if n is None else n.__index__() for n, have in zip(sizes, s[-nd:], strict=True))


def _adaptive_max_pool(op, nd, x, output_size, return_indices):
    size = _output_size(op, nd, x, output_size)
    return _picked(op, nd, x, _engine.adaptive_max_pool, (size,), None, return_indices)


def adaptive_max_pool1d(input: Tensor, output_size: int | Sequence[int], return_indices: bool = False) -> Any:
    """Maxima of output_size windows that cover L, as (N, C, output_size); also their positions, if asked."""
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: int | Sequence[int], return_indices: bool = False) -> Any:
    """Maxima of a grid of output_size windows that cover the plane; also their positions in it, if asked."""
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: int | Sequence[int], return_indices: bool = False) -> Any:
    """Maxima of a grid of output_size windows that cover the volume; also their positions in it, if asked."""
    return _adaptive_max_pool("adaptive_max_pool3d", 3, input, output_size, return_indices)


def _max_unpool(op, nd, x, indices, kernel_size, stride, padding, output_size):
    kernel = _ints(op, "kernel_size", kernel_size, nd)
    kernel, stride, padding = (tuple(v * nd if len(v) == 1 else v) for v in (
        kernel, _ints(op, "stride", stride, nd) or kernel, _ints(op, "padding", padding, nd)))
    s = x.array.shape
    if len(s) not in (nd + 1, nd + 2) or indices.array.shape != s:
        raise ValueError(f"{op}: input must have {nd + 1} or {nd + 2} dimensions and indices its shape, got {s} and "
                         f"{indices.array.shape}")
    plain = tuple((n - 1) * st + k - 2 * p for n, k, st, p in zip(s[-nd:], kernel, stride, padding, strict=True))
    size = plain if output_size is None else tuple(output_size)[-nd:]
    if any(not low - st < n < low + st for n, low, st in zip(size, plain, stride, strict=True)):
        raise ValueError(f"{op}: output_size must be less than a stride from {plain}, got {size}")
    lead, count = s[:-nd], math.prod(size)
    zeros = wrap(_engine.full((*lead, count), 0, x.array.dtype, x.device))
    y = scatter(zeros, -1, shape.flatten(indices, -nd), shape.flatten(x, -nd))
    return shape.reshape(y, (*lead, *size))


def max_unpool1d(input: Tensor, indices: Tensor, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] | None = None, padding: int | Sequence[int] = 0,
                 output_size: Any = None) -> Tensor:
    """Zeros but for the items of input, put at the positions that max_pool1d gave; where two meet the last stays."""
    return _max_unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(input: Tensor, indices: Tensor, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] | None = None, padding: int | Sequence[int] = 0,
                 output_size: Any = None) -> Tensor:
    """Zeros but for the items of input, put at the positions that max_pool2d gave; where two meet the last stays."""
    return _max_unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(input: Tensor, indices: Tensor, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] | None = None, padding: int | Sequence[int] = 0,
                 output_size: Any = None) -> Tensor:
    """Zeros but for the items of input, put at the positions that max_pool3d gave; where two meet the last stays."""
    return _max_unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


# --- averages --------------------------------------------------------------------------------------------------------
def _avg_pool(op, nd, x, kernel_size, stride, padding, *counting):
    return _mean(x, op, nd, (_ints(op, "kernel_size", kernel_size, nd), _ints(op, "stride", stride, nd),
                             _ints(op, "padding", padding, nd), *counting))


def _mean(x, op, nd, window):
    y = _engine.avg_pool(op, nd, x.array, *window)
    return record(avg_pool_grad, y, (x,), (), (op, nd, x.array.shape, window))


def avg_pool_grad(node, dy):
    op, nd, size, window = node.attrs
    dx = _engine.avg_pool_backward(op, nd, dy.array, size, *window)
    return (record(avg_pool_backward_grad, dx, (dy,), (), (op, nd, window)),)


def avg_pool_backward_grad(node, ddx):
    return (_mean(ddx, *node.attrs),)  # linear, so that its transpose's transpose is itself


def avg_pool1d(input: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
               padding: int | Sequence[int] = 0, ceil_mode: bool = False, count_include_pad: bool = True) -> Tensor:
    """The mean of each window along L of (N, C, L) or (C, L); padding counts as zeros if asked.

    Raises:
        ValueError: as max_pool1d.
    """
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(input: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
               padding: int | Sequence[int] = 0, ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window over the planes of (N, C, H, W) or (C, H, W); padding counts as zeros if asked.

    `divisor_override` replaces the window's size.

    Raises:
        ValueError: as max_pool2d, or a divisor of zero.

    >>> import tilewright as tw
    >>> tw.nn.functional.avg_pool2d(tw.arange(16.0).reshape(1, 4, 4), 2).tolist()
    [[[2.5, 4.5], [10.5, 12.5]]]
    """
    return _avg_pool("avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                     divisor_override)


def avg_pool3d(input: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
               padding: int | Sequence[int] = 0, ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window over the volumes of (N, C, D, H, W) or (C, D, H, W); padding counts as zeros if asked.

    `divisor_override` replaces the window's size.

    Raises:
        ValueError: as max_pool3d, or a divisor of zero.
    """
    return _avg_pool("avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                     divisor_override)


def _adaptive_avg_pool(op, nd, x, output_size):
    size = _output_size(op, nd, x, output_size)
    if size == (1,) * nd and 0 not in x.array.shape[-nd:] and x.array.is_float:
        return reduce.mean(x, tuple(range(-nd, 0)), True)
    return _grid_mean(x, op, nd, size)


def _grid_mean(x, op, nd, size):
    y = _engine.adaptive_avg_pool(op, nd, x.array, size)
    return record(adaptive_avg_pool_grad, y, (x,), (), (op, nd, x.array.shape, size))


def adaptive_avg_pool_grad(node, dy):
    op, nd, before, size = node.attrs
    dx = _engine.adaptive_avg_pool_backward(op, nd, dy.array, before)
    return (record(adaptive_avg_pool_backward_grad, dx, (dy,), (), (op, nd, size)),)


def adaptive_avg_pool_backward_grad(node, ddx):
    return (_grid_mean(ddx, *node.attrs),)


def adaptive_avg_pool1d(input: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """Means of output_size windows that cover L of (N, C, L) or (C, L)."""
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """Means of a grid of output_size windows that cover the plane of (N, C, H, W) or (C, H, W); None keeps a size.

    >>> import tilewright as tw
    >>> tw.nn.functional.adaptive_avg_pool2d(tw.arange(16.0).reshape(1, 4, 4), 1).tolist()
    [[[7.5]]]
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """Means of a grid of output_size windows that cover the volume of (N, C, D, H, W); None keeps a size."""
    return _adaptive_avg_pool("adaptive_avg_pool3d", 3, input, output_size)


# --- power averages --------------------------------------------------------------------------------------------------
def _lp_pool(op, nd, x, norm_type, kernel_size, stride, ceil_mode):
    kernel = _ints(op, "kernel_size", kernel_size, nd)
    mean = _avg_pool(op, nd, elementwise.pow(x, norm_type), kernel, stride, 0, ceil_mode, True, None)
    count = math.prod(kernel * nd if len(kernel) == 1 else kernel)
    positive = elementary.sign(mean) * elementwise.clamp(elementary.abs(mean), min=0)
    return elementwise.pow(positive * count, 1.0 / norm_type)


def lp_pool1d(input: Tensor, norm_type: Any, kernel_size: int | Sequence[int],
              stride: int | Sequence[int] | None = None, ceil_mode: bool = False) -> Tensor:
    """(sum of x^norm_type over each window)^(1 / norm_type), windows as avg_pool1d's without padding."""
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Tensor, norm_type: Any, kernel_size: int | Sequence[int],
              stride: int | Sequence[int] | None = None, ceil_mode: bool = False) -> Tensor:
    """(sum of x^norm_type over each window)^(1 / norm_type), windows as avg_pool2d's without padding."""
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Tensor, norm_type: Any, kernel_size: int | Sequence[int],
              stride: int | Sequence[int] | None = None, ceil_mode: bool = False) -> Tensor:
    """(sum of x^norm_type over each window)^(1 / norm_type), windows as avg_pool3d's without padding."""
    return _lp_pool("lp_pool3d", 3, input, norm_type, kernel_size, stride, ceil_mode)
