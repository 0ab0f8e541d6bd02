"""Pooling over windows of images (N, C, H, W) or (C, H, W): maximum, average, adaptive average."""

from __future__ import annotations

from tilewright import _engine
from tilewright.autograd import is_grad_enabled, record, wrap
from tilewright.ops import shape


def _pair(op: str, what: str, value):
    """An int or a pair of ints, as a tuple; None stays."""
    if value is None:
        return None
    items = tuple(value) if isinstance(value, tuple | list) else (value,)
    if len(items) not in (1, 2) or not all(hasattr(v, "__index__") and not isinstance(v, bool) for v in items):
        raise TypeError(f"{op}: {what} must be an int or a pair of ints, got {value!r}")
    return items


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False,
               return_indices: bool = False):
    """y[n, c, i, j] = the maximum of a window of x[n, c]; NaN if the window holds one.

    Output size: floor((H + 2 padding - dilation (kernel - 1) - 1) / stride) + 1, or ceil with `ceil_mode`; stride is
    the kernel size by default. With `return_indices` also the int64 positions of the maxima in the H*W plane (the
    first of equals).

    Raises:
        ValueError: not 3 or 4 dimensions, padding above half the kernel, or a window larger than the padded image.

    >>> import tilewright as tw
    >>> tw.nn.functional.max_pool2d(tw.arange(16.0).reshape(1, 4, 4), 2).tolist()
    [[[5.0, 7.0], [13.0, 15.0]]]
    """
    op = "max_pool2d"
    a = input.array
    tracked = input.requires_grad and is_grad_enabled()
    y, indices = _engine.max_pool2d(
        a, _pair(op, "kernel_size", kernel_size), _pair(op, "stride", stride), _pair(op, "padding", padding),
        _pair(op, "dilation", dilation), ceil_mode, return_indices or tracked)
    y = record(max_pool2d_grad, y, (input,), (indices,) if tracked else (), a.shape[-2:])
    return (y, wrap(indices)) if return_indices else y


def max_pool2d_grad(node, dy):
    (indices,) = node.saved
    return (_max_pool2d_spread(dy, indices, *node.attrs),)


def _max_pool2d_spread(dy, indices, height, width):
    """dy summed at the maxima's positions; its gradient picks there."""
    dx = _engine.max_pool2d_backward(dy.array, indices.array, height, width)
    return record(max_pool2d_backward_grad, dx, (dy,), (indices,))


def max_pool2d_backward_grad(node, ddx):
    from tilewright.ops.index import gather
    (indices,) = node.saved
    picked = gather(shape.flatten(ddx, -2), -1, shape.flatten(indices, -2))
    return (shape.reshape(picked, indices.array.shape),)


def avg_pool2d(input, kernel_size, stride=None, padding=0, ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None):
    """y[n, c, i, j] = the mean of a window of x[n, c]; padding counts as zeros unless count_include_pad is False.

    Output size as `max_pool2d`'s. `divisor_override` replaces the window's size.

    Raises:
        ValueError: as max_pool2d, or a divisor of zero.

    >>> import tilewright as tw
    >>> tw.nn.functional.avg_pool2d(tw.arange(16.0).reshape(1, 4, 4), 2).tolist()
    [[[2.5, 4.5], [10.5, 12.5]]]
    """
    op = "avg_pool2d"
    window = (_pair(op, "kernel_size", kernel_size), _pair(op, "stride", stride), _pair(op, "padding", padding))
    return _avg_pool2d(input, window, ceil_mode, count_include_pad, divisor_override)


def _avg_pool2d(x, window, ceil_mode, *counting):
    y = _engine.avg_pool2d(x.array, *window, ceil_mode, *counting)
    return record(avg_pool2d_grad, y, (x,), (), (x.array.shape[-2:], window, ceil_mode, counting))


def avg_pool2d_grad(node, dy):
    size, window, ceil_mode, counting = node.attrs
    dx = _engine.avg_pool2d_backward(dy.array, *size, *window, *counting)
    return (record(avg_pool2d_backward_grad, dx, (dy,), (), (window, ceil_mode, *counting)),)


def avg_pool2d_backward_grad(node, ddx):
    return (_avg_pool2d(ddx, *node.attrs),)  # linear, so that its transpose's transpose is itself


def adaptive_avg_pool2d(input, output_size):
    """Means over a grid of output_size windows that cover the image: rows floor(i H / h) to ceil((i + 1) H / h) - 1.

    output_size is an int or (h, w); None keeps the input's size.

    >>> import tilewright as tw
    >>> tw.nn.functional.adaptive_avg_pool2d(tw.arange(16.0).reshape(1, 4, 4), 1).tolist()
    [[[7.5]]]
    """
    h, w = _output_size("adaptive_avg_pool2d", input, output_size)
    y = _engine.adaptive_avg_pool2d(input.array, h, w)
    return record(adaptive_avg_pool2d_grad, y, (input,), (), input.array.shape[-2:])


def _output_size(op, input, output_size):
    s = input.array.shape
    if len(s) not in (3, 4):
        raise ValueError(f"{op}: input must be (N, C, H, W) or (C, H, W), got {s}")
    sizes = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size, output_size)
    if len(sizes) != 2 or not all(n is None or (hasattr(n, "__index__") and not isinstance(n, bool)) for n in sizes):
        raise TypeError(f"{op}: output_size must be an int, None or a pair of these, got {output_size!r}")
    return tuple(have if n is None else n.__index__() for n, have in zip(sizes, s[-2:], strict=True))


def adaptive_avg_pool2d_grad(node, dy):
    dx = _engine.adaptive_avg_pool2d_backward(dy.array, *node.attrs)
    return (record(adaptive_avg_pool2d_backward_grad, dx, (dy,), (), dy.array.shape[-2:]),)


def adaptive_avg_pool2d_backward_grad(node, ddx):
    return (adaptive_avg_pool2d(ddx, tuple(node.attrs)),)


def adaptive_max_pool2d(input, output_size, return_indices: bool = False):
    """Maxima over a grid of output_size equal windows; image sizes must be multiples of the output's."""
    h, w = _output_size("adaptive_max_pool2d", input, output_size)
    height, width = input.array.shape[-2:]
    if h < 1 or w < 1 or height % h or width % w:
        raise NotImplementedError(f"adaptive_max_pool2d: the image's sizes must be multiples of output_size, got "
                                  f"{(height, width)} for {(h, w)}")
    return max_pool2d(input, (height // h, width // w), return_indices=return_indices)


# --- one dimension: images of height 1 -------------------------------------------------------------------------------
def _one(op, what, value):
    value = _pair(op, what, value)
    if value is not None and len(value) != 1:
        raise TypeError(f"{op}: {what} must be an int, got {value!r}")
    return value


def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False,
               return_indices: bool = False):
    """max_pool2d over (N, C, L) or (C, L), along L."""
    op = "max_pool1d"
    (k,), s, (p,), (d,) = (_one(op, "kernel_size", kernel_size), _one(op, "stride", stride),
                           _one(op, "padding", padding), _one(op, "dilation", dilation))
    out = max_pool2d(shape.unsqueeze(input, -2), (1, k), (1, s[0] if s else k), (0, p), (1, d), ceil_mode,
                     return_indices)
    return tuple(shape.squeeze(y, -2) for y in out) if return_indices else shape.squeeze(out, -2)


def avg_pool1d(input, kernel_size, stride=None, padding=0, ceil_mode: bool = False, count_include_pad: bool = True):
    """avg_pool2d over (N, C, L) or (C, L), along L."""
    op = "avg_pool1d"
    (k,), s, (p,) = (_one(op, "kernel_size", kernel_size), _one(op, "stride", stride), _one(op, "padding", padding))
    y = avg_pool2d(shape.unsqueeze(input, -2), (1, k), (1, s[0] if s else k), (0, p), ceil_mode, count_include_pad)
    return shape.squeeze(y, -2)


def adaptive_avg_pool1d(input, output_size: int):
    """adaptive_avg_pool2d over (N, C, L) or (C, L), along L."""
    return shape.squeeze(adaptive_avg_pool2d(shape.unsqueeze(input, -2), (1, output_size)), -2)
