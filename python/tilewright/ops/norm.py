"""Layer norm, batch norm and normalization to unit length."""

from __future__ import annotations

from tilewright import _engine
from tilewright.autograd import record, wrap
from tilewright.grad_mode import mode
from tilewright.ops.elementary import rsqrt
from tilewright.ops.elementwise import NUMBER, clamp
from tilewright.ops.reduce import mean as _mean
from tilewright.ops.reduce import norm as _norm
from tilewright.ops.reduce import sum as _sum


def _array(t):
    return None if t is None else t.array


def _input(t):
    """A missing parameter's place among a node's inputs."""
    return NUMBER if t is None else t


def _wrapped(arrays):
    return tuple(None if a is None else wrap(a) for a in arrays)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps: float = 1e-5):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dims, whose sizes are `normalized_shape`; var biased.

    Raises:
        ValueError: the input's last sizes are not normalized_shape, or weight's or bias's are not.
        TypeError: integers; parameters neither in the input's dtype nor float32 beside a half.

    Ba, Kiros and Hinton, Layer Normalization (2016), arXiv:1607.06450.

    >>> import tilewright as tw
    >>> y = tw.nn.functional.layer_norm(tw.tensor([[1.0, 3.0], [2.0, 2.0]]), (2,))
    >>> [[round(v, 3) for v in row] for row in y.tolist()]
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    y, mean, rstd = _engine.layer_norm(input.array, shape, _array(weight), _array(bias), eps)
    return record(layer_norm_grad, y, (input, _input(weight), _input(bias)), (input, weight, mean, rstd), (shape, eps))


def layer_norm_grad(node, dy):
    (x, w, mean, rstd), (shape, eps) = node.saved, node.attrs
    if mode.grad:
        return _composite_grad(dy, x, w, tuple(range(-len(shape), 0)), lambda t: t.sum_to_size(shape), eps)
    return _wrapped(_engine.layer_norm_backward(dy.array, x.array, shape, _array(w), mean.array, rstd.array,
                                                *node.needs))


def _composite_grad(dy, x, w, dims, to_parameter, eps):
    """The gradients of a norm over `dims` by recorded ops."""
    d = x - _mean(x, dims, True)
    r = rsqrt(_mean(d * d, dims, True) + eps)
    xhat = d * r
    g = dy if w is None else dy * w
    dx = r * (g - _mean(g, dims, True) - xhat * _mean(g * xhat, dims, True))
    return dx, to_parameter(dy * xhat), to_parameter(dy)


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training: bool = False,
               momentum: float = 0.1, eps: float = 1e-5):
    """(x - mean_c) / sqrt(var_c + eps) * weight_c + bias_c for each channel c of (N, C, ...).

    In training, mean and (biased) var are the batch's, and the running ones, where given, move in place:
    running = (1 - momentum) running + momentum batch, var unbiased. Otherwise the running ones are used.

    Raises:
        ValueError: one value per channel in training; no running statistics in evaluation; wrong shapes.
        TypeError: integers; parameters neither in the input's dtype nor float32 beside a half.

    Ioffe and Szegedy, Batch Normalization (2015), arXiv:1502.03167.

    >>> import tilewright as tw
    >>> x, mean, var = tw.tensor([[1.0], [3.0]]), tw.zeros(1), tw.ones(1)
    >>> y = tw.nn.functional.batch_norm(x, mean, var, training=True, momentum=0.5)
    >>> [round(v, 3) for (v,) in y.tolist()], mean.item(), var.item()
    ([-1.0, 1.0], 1.0, 1.5)
    """
    running = [_array(t) for t in (running_mean, running_var)]
    if not training:  # then they are only read
        running = [a if a is None else _engine.contiguous(a) for a in running]
    y, mean, rstd = _engine.batch_norm(input.array, _array(weight), _array(bias), running[0], running[1], training,
                                       momentum, eps)
    dtype = next((p.dtype for p in (weight, bias) if p is not None), None)
    return record(batch_norm_grad, y, (input, _input(weight), _input(bias)), (input, weight, mean, rstd),
                  (training, eps, dtype))


def batch_norm_grad(node, dy):
    (x, w, mean, rstd), (training, eps, dtype) = node.saved, node.attrs
    if not mode.grad:
        return _wrapped(_engine.batch_norm_backward(dy.array, x.array, _array(w), mean.array, rstd.array, training,
                                                    dtype, *node.needs))
    dims, column = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
    w = None if w is None else w.reshape(column)

    def to_parameter(t):
        return _sum(t, dims)

    if training:
        return _composite_grad(dy, x, w, dims, to_parameter, eps)
    r = rstd.reshape(column)
    return ((dy if w is None else dy * w) * r, to_parameter(dy * ((x - mean.reshape(column)) * r)), to_parameter(dy))


def normalize(input, p: float = 2.0, dim: int = 1, eps: float = 1e-12):
    """x / max(norm(x, p), eps) along `dim`.

    >>> import tilewright as tw
    >>> tw.nn.functional.normalize(tw.tensor([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    return input / clamp(_norm(input, p, dim, True), min=eps)
