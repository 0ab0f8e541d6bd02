"""Convolution over images, and its gradients.

conv2d is linear in the image and in the weight, so each of its two gradients is linear in its own operands as well, and
every gradient of the three is again one of the three. All are recorded ops: every order of derivative exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright import _engine, autograd
from tilewright.autograd import record

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def _pair(op: str, what: str, value) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, (tuple, list)) and len(value) in (1, 2) and all(isinstance(v, int) for v in value):
        return value[0], value[-1]
    raise TypeError(f"{op}: {what} must be an int or a pair of ints, got {value!r}")


def _padding(padding, weight_shape, stride, dilation) -> tuple[int, ...]:
    """(h, w), or (top, bottom, left, right) for 'same': an odd total puts the extra row or column at the end."""
    if not isinstance(padding, str):
        return _pair("conv2d", "padding", padding)
    if padding == "valid":
        return 0, 0
    if padding != "same":
        raise ValueError(f"conv2d: padding must be 'same', 'valid' or numbers, got '{padding}'")
    if stride != (1, 1):
        raise ValueError(f"conv2d: padding 'same' needs stride 1, got {stride}")
    totals = [d * (k - 1) for d, k in zip(dilation, weight_shape[-2:], strict=True)]
    return totals[0] // 2, totals[0] - totals[0] // 2, totals[1] // 2, totals[1] - totals[1] // 2


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple[int, int] = 1,
           padding: int | tuple[int, int] | str = 0, dilation: int | tuple[int, int] = 1, groups: int = 1) -> Tensor:
    """The cross-correlation of images with a bank of filters.

    y[n, o, p, q] = b[o] + sum over c, r, s of
    x[n, c, p stride_h - padding_h + r dilation_h, q stride_w - padding_w + s dilation_w] w[o, c, r, s], where x is 0
    outside the image; c runs over the channels of o's group.

    Args:
        input: x (N, C, H, W), or (C, H, W) without a batch.
        weight: w (O, C / groups, kh, kw).
        bias: b (O), or None.
        stride, dilation: in pixels, one number or (h, w).
        padding: zeros on every side, one number or (h, w); 'valid' for none, 'same' for as many as keep H and W.
        groups: parts into which the channels in and out are divided, each part filtered on its own.

    Returns:
        y (N, O, oh, ow), oh = (H + 2 padding_h - dilation_h (kh - 1) - 1) // stride_h + 1, and ow likewise.

    Raises:
        ValueError: shapes that do not fit each other, groups that do not divide the channels, a kernel larger than the
            padded input, a negative padding, a stride or dilation below 1.
        TypeError: dtypes that differ or are not floating point.

    >>> import tilewright as tw
    >>> x = tw.arange(9.0).reshape(1, 1, 3, 3)
    >>> tw.nn.functional.conv2d(x, tw.ones(1, 1, 2, 2)).tolist()
    [[[[8.0, 12.0], [20.0, 24.0]]]]
    """
    for x in (input, weight) if bias is None else (input, weight, bias):
        if not isinstance(x, autograd.Tensor):
            raise TypeError(f"conv2d: expects a Tensor, got {type(x).__name__}")
    stride, dilation = _pair("conv2d", "stride", stride), _pair("conv2d", "dilation", dilation)
    geometry = (stride, _padding(padding, weight.array.shape, stride, dilation), dilation, groups)
    y = _engine.conv2d(input.array, weight.array, None if bias is None else bias.array, *geometry)
    return record(conv2d_grad, y, (input, weight) if bias is None else (input, weight, bias), (input, weight), geometry)


def conv2d_grad(node, dy):
    x, w = node.saved
    needs = node.needs
    dx = _backward_x(dy, w, x.array.shape, node.attrs) if needs[0] else None
    dw = _backward_w(dy, x, w.array.shape, node.attrs) if needs[1] else None
    if len(needs) == 2:
        return dx, dw
    return dx, dw, dy.sum((0, 2, 3) if len(dy.array.shape) == 4 else (1, 2)) if needs[2] else None


def _forward(x, w, geometry):
    return record(conv2d_grad, _engine.conv2d(x.array, w.array, None, *geometry), (x, w), (x, w), geometry)


def _backward_x(dy, w, x_shape, geometry):
    """dx: the transpose of x -> conv2d(x, w), applied to dy."""
    dx = _engine.conv2d_backward_x(dy.array, w.array, x_shape, *geometry)
    return record(conv2d_backward_x_grad, dx, (dy, w), (dy, w), geometry)


def conv2d_backward_x_grad(node, g):
    dy, w = node.saved
    return (_forward(g, w, node.attrs) if node.needs[0] else None,
            _backward_w(dy, g, w.array.shape, node.attrs) if node.needs[1] else None)


def _backward_w(dy, x, w_shape, geometry):
    """dw: the transpose of w -> conv2d(x, w), applied to dy."""
    dw = _engine.conv2d_backward_w(dy.array, x.array, w_shape, *geometry)
    return record(conv2d_backward_w_grad, dw, (dy, x), (dy, x), geometry)


def conv2d_backward_w_grad(node, g):
    dy, x = node.saved
    return (_forward(x, g, node.attrs) if node.needs[0] else None,
            _backward_x(dy, g, x.array.shape, node.attrs) if node.needs[1] else None)
