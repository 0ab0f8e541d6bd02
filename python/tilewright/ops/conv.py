"""Convolution in one, two and three dimensions, transposed convolution, and their gradients.

A convolution is linear in the image and in the weight, so each of its two gradients is linear in its own operands as
well, and every gradient of the three is again one of the three. All are recorded ops: every order of derivative exists.
A transposed convolution is the gradient by the image, applied to its input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright import _engine, autograd
from tilewright.autocast import lower
from tilewright.autograd import record

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def _check_tensors(op: str, *tensors) -> None:
    for x in tensors:
        if x is not None and not isinstance(x, autograd.Tensor):
            raise TypeError(f"{op}: expects a Tensor, got {type(x).__name__}")


def _sizes(op: str, what: str, value, nd: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * nd
    if isinstance(value, (tuple, list)) and len(value) in (1, nd) and all(isinstance(v, int) for v in value):
        return tuple(value) if len(value) == nd else (value[0],) * nd
    raise TypeError(f"{op}: {what} must be an int or {nd} ints, got {value!r}")


def _padding(op: str, padding, weight_shape, stride, dilation) -> tuple[int, ...]:
    """One number a dimension, or (before, after) for 'same': an odd total puts the extra zero at the end."""
    nd = len(stride)
    if not isinstance(padding, str):
        return _sizes(op, "padding", padding, nd)
    if padding == "valid":
        return (0,) * nd
    if padding != "same":
        raise ValueError(f"{op}: padding must be 'same', 'valid' or numbers, got '{padding}'")
    if any(s != 1 for s in stride):
        raise ValueError(f"{op}: padding 'same' needs stride 1, got {stride}")
    totals = [d * (k - 1) for d, k in zip(dilation, weight_shape[-nd:], strict=True)]
    return tuple(n for total in totals for n in (total // 2, total - total // 2))


def _conv(nd: int, input, weight, bias, stride, padding, dilation, groups):
    op = f"conv{nd}d"
    _check_tensors(op, input, weight, bias)
    stride, dilation = _sizes(op, "stride", stride, nd), _sizes(op, "dilation", dilation, nd)
    geometry = (stride, _padding(op, padding, weight.array.shape, stride, dilation), dilation, groups)
    y = _engine.conv(nd, input.array, weight.array, None if bias is None else bias.array, *geometry)
    inputs = (input, weight) if bias is None else (input, weight, bias)
    return record(conv_grad, y, inputs, (input, weight), (nd, *geometry))


@lower
def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple[int] = 1,
           padding: int | tuple[int] | str = 0, dilation: int | tuple[int] = 1, groups: int = 1) -> Tensor:
    """The cross-correlation of signals with a bank of filters.

    y[n, o, p] = b[o] + sum over c, r of x[n, c, p stride - padding + r dilation] w[o, c, r], where x is 0
    outside the signal; c runs over the channels of o's group.

    Args:
        input: x (N, C, L), or (C, L) without a batch.
        weight: w (O, C / groups, k).
        bias: b (O), or None.
        stride, dilation: in samples, one number.
        padding: zeros on every side, one number; 'valid' for none, 'same' for as many as keep the sizes.
        groups: parts into which the channels in and out are divided, each part filtered on its own.

    Returns:
        y (N, O, l), l = (L + 2 padding - dilation (k - 1) - 1) // stride + 1.

    Raises:
        ValueError: shapes that do not fit each other, groups that do not divide the channels, a kernel larger than the
            padded input, a negative padding, a stride or dilation below 1.
        TypeError: dtypes that differ or are not floating point.

    >>> import tilewright as tw
    >>> x = tw.arange(5.0).reshape(1, 1, 5)
    >>> tw.nn.functional.conv1d(x, tw.ones(1, 1, 2), dilation=2).tolist()
    [[[2.0, 4.0, 6.0]]]
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


@lower
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
        padding: zeros on every side, one number or (h, w); 'valid' for none, 'same' for as many as keep the sizes.
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
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


@lower
def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple[int, int, int] = 1,
           padding: int | tuple[int, int, int] | str = 0, dilation: int | tuple[int, int, int] = 1,
           groups: int = 1) -> Tensor:
    """The cross-correlation of volumes with a bank of filters.

    The formula is conv2d's with one more dimension.

    Args:
        input: x (N, C, D, H, W), or (C, D, H, W) without a batch.
        weight: w (O, C / groups, kd, kh, kw).
        bias: b (O), or None.
        stride, dilation: in voxels, one number or (d, h, w).
        padding: zeros on every side, one number or (d, h, w); 'valid' for none, 'same' for as many as keep the sizes.
        groups: parts into which the channels in and out are divided, each part filtered on its own.

    Returns:
        y (N, O, od, oh, ow), od = (D + 2 padding_d - dilation_d (kd - 1) - 1) // stride_d + 1, and so on.

    Raises:
        ValueError: shapes that do not fit each other, groups that do not divide the channels, a kernel larger than the
            padded input, a negative padding, a stride or dilation below 1.
        TypeError: dtypes that differ or are not floating point.

    >>> import tilewright as tw
    >>> x = tw.arange(8.0).reshape(1, 1, 2, 2, 2)
    >>> tw.nn.functional.conv3d(x, tw.ones(1, 1, 2, 2, 1)).tolist()
    [[[[[12.0, 16.0]]]]]
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(nd: int, input, weight, bias, stride, padding, output_padding, groups, dilation):
    op = f"conv_transpose{nd}d"
    _check_tensors(op, input, weight, bias)
    stride, padding = _sizes(op, "stride", stride, nd), _sizes(op, "padding", padding, nd)
    extra, dilation = _sizes(op, "output_padding", output_padding, nd), _sizes(op, "dilation", dilation, nd)
    y = _engine.conv_transpose(nd, input.array, weight.array, None if bias is None else bias.array, stride, padding,
                               extra, dilation, groups)
    # The convolution whose gradient this is pads `padding` before and what the output lacks behind.
    padding = tuple(n for p, e in zip(padding, extra, strict=True) for n in (p, p - e))
    inputs = (input, weight) if bias is None else (input, weight, bias)
    return record(conv_backward_x_grad, y, inputs, (input, weight), (nd, stride, padding, dilation, groups))


@lower
def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple[int] = 1,
                     padding: int | tuple[int] = 0, output_padding: int | tuple[int] = 0, groups: int = 1,
                     dilation: int | tuple[int] = 1) -> Tensor:
    """The transpose of conv1d, which adds each input times the filters to the samples it came from.

    y = b + the gradient, by its input, of conv1d with these weights, applied to x. Every size becomes
    (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1.

    Args:
        input: x (N, C, L), or (C, L) without a batch.
        weight: w (C, O / groups, k).
        bias: b (O), or None.
        stride, padding, dilation: those of the conv1d, one number.
        output_padding: added to the size on one side, smaller than stride or dilation.
        groups: parts into which the channels in and out are divided.

    Returns:
        y (N, O, l).

    Raises:
        ValueError: shapes that do not fit each other, groups that do not divide the channels, an output_padding that is
            too large, a result of no samples, a negative padding, a stride or dilation below 1.
        TypeError: dtypes that differ or are not floating point.

    Source: Zeiler et al. 2010, "Deconvolutional Networks".

    >>> import tilewright as tw
    >>> x = tw.tensor([[[1.0, 2.0]]])
    >>> tw.nn.functional.conv_transpose1d(x, tw.ones(1, 1, 2), stride=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@lower
def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple[int, int] = 1,
                     padding: int | tuple[int, int] = 0, output_padding: int | tuple[int, int] = 0, groups: int = 1,
                     dilation: int | tuple[int, int] = 1) -> Tensor:
    """The transpose of conv2d, which adds each input times the filters to the pixels it came from.

    y = b + the gradient, by its input, of conv2d with these weights, applied to x. Every size becomes
    (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1.

    Args:
        input: x (N, C, H, W), or (C, H, W) without a batch.
        weight: w (C, O / groups, kh, kw).
        bias: b (O), or None.
        stride, padding, dilation: those of the conv2d, one number or (h, w).
        output_padding: added to the size on one side, smaller than stride or dilation.
        groups: parts into which the channels in and out are divided.

    Returns:
        y (N, O, h, w).

    Raises:
        ValueError: shapes that do not fit each other, groups that do not divide the channels, an output_padding that is
            too large, a result of no pixels, a negative padding, a stride or dilation below 1.
        TypeError: dtypes that differ or are not floating point.

    Source: Zeiler et al. 2010, "Deconvolutional Networks".

    >>> import tilewright as tw
    >>> x = tw.tensor([[[[1.0, 2.0]]]])
    >>> tw.nn.functional.conv_transpose2d(x, tw.ones(1, 1, 2, 2)).tolist()
    [[[[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]]]
    """
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@lower
def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple[int, int, int] = 1,
                     padding: int | tuple[int, int, int] = 0, output_padding: int | tuple[int, int, int] = 0,
                     groups: int = 1, dilation: int | tuple[int, int, int] = 1) -> Tensor:
    """The transpose of conv3d, which adds each input times the filters to the voxels it came from.

    y = b + the gradient, by its input, of conv3d with these weights, applied to x. Every size becomes
    (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1.

    Args:
        input: x (N, C, D, H, W), or (C, D, H, W) without a batch.
        weight: w (C, O / groups, kd, kh, kw).
        bias: b (O), or None.
        stride, padding, dilation: those of the conv3d, one number or (d, h, w).
        output_padding: added to the size on one side, smaller than stride or dilation.
        groups: parts into which the channels in and out are divided.

    Returns:
        y (N, O, d, h, w).

    Raises:
        ValueError: shapes that do not fit each other, groups that do not divide the channels, an output_padding that is
            too large, a result of no voxels, a negative padding, a stride or dilation below 1.
        TypeError: dtypes that differ or are not floating point.

    Source: Zeiler et al. 2010, "Deconvolutional Networks".

    >>> import tilewright as tw
    >>> x = tw.tensor([[[[[1.0, 2.0]]]]])
    >>> tw.nn.functional.conv_transpose3d(x, tw.ones(1, 1, 1, 1, 2)).tolist()
    [[[[[1.0, 3.0, 2.0]]]]]
    """
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_grad(node, dy):
    x, w = node.saved
    needs = node.needs
    dx = _backward_x(dy, w, x.array.shape, node.attrs) if needs[0] else None
    dw = _backward_w(dy, x, w.array.shape, node.attrs) if needs[1] else None
    return (dx, dw) if len(needs) == 2 else (dx, dw, _bias_grad(node, dy))


def _bias_grad(node, dy):
    nd, shape = node.attrs[0], dy.array.shape
    channel = len(shape) - nd - 1
    return dy.sum(tuple(d for d in range(len(shape)) if d != channel)) if node.needs[2] else None


def _forward(x, w, geometry):
    nd, *rest = geometry
    return record(conv_grad, _engine.conv(nd, x.array, w.array, None, *rest), (x, w), (x, w), geometry)


def _backward_x(dy, w, x_shape, geometry):
    """dx: the transpose of x -> conv(x, w), applied to dy."""
    nd, *rest = geometry
    dx = _engine.conv_backward_x(nd, dy.array, w.array, None, x_shape, *rest)
    return record(conv_backward_x_grad, dx, (dy, w), (dy, w), geometry)


def conv_backward_x_grad(node, g):
    dy, w = node.saved
    needs = node.needs
    ddy = _forward(g, w, node.attrs) if needs[0] else None
    dw = _backward_w(dy, g, w.array.shape, node.attrs) if needs[1] else None
    return (ddy, dw) if len(needs) == 2 else (ddy, dw, _bias_grad(node, g))


def _backward_w(dy, x, w_shape, geometry):
    """dw: the transpose of w -> conv(x, w), applied to dy."""
    nd, *rest = geometry
    dw = _engine.conv_backward_w(nd, dy.array, x.array, w_shape, *rest)
    return record(conv_backward_w_grad, dw, (dy, x), (dy, x), geometry)


def conv_backward_w_grad(node, g):
    dy, x = node.saved
    return (_forward(x, g, node.attrs) if node.needs[0] else None,
            _backward_x(dy, g, x.array.shape, node.attrs) if node.needs[1] else None)
