"""Layer, RMS, group, instance and batch norm, and normalization to unit length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tilewright import _engine
from tilewright.autocast import widen
from tilewright.autograd import record, wrap
from tilewright.grad_mode import mode
from tilewright.ops.elementary import rsqrt
from tilewright.ops.elementwise import NUMBER, clamp, div
from tilewright.ops.reduce import mean as _mean
from tilewright.ops.reduce import norm as _norm
from tilewright.ops.reduce import sum as _sum
from tilewright.ops.reduce import var as _var

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def _array(t):
    return None if t is None else t.array


def _input(t):
    """A missing parameter's place among a node's inputs."""
    return NUMBER if t is None else t


def _wrapped(arrays):
    return tuple(None if a is None else wrap(a) for a in arrays)


@widen
def layer_norm(input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-05) -> Tensor:
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
    return _row_norm(input, normalized_shape, weight, bias, eps, False)


def rms_norm(input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dims, whose sizes are `normalized_shape`.

    Without `eps` it is 2^-52 for float64 and 2^-23 for the others, which are computed in float32.

    Raises:
        ValueError: the input's last sizes are not normalized_shape, or weight's are not.
        TypeError: integers; weight neither in the input's dtype nor float32 beside a half.

    Zhang and Sennrich, Root Mean Square Layer Normalization (2019), arXiv:1910.07467.

    >>> import tilewright as tw
    >>> [round(v, 3) for v in tw.nn.functional.rms_norm(tw.tensor([1.0, 7.0]), (2,)).tolist()]
    [0.2, 1.4]
    """
    if eps is None:
        eps = 2.0**-52 if input.dtype is _engine.float64 else 2.0**-23
    return _row_norm(input, normalized_shape, weight, None, eps, True)


def _row_norm(input, normalized_shape, weight, bias, eps, rms):
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    y, mean, rstd = _engine.layer_norm(input.array, shape, _array(weight), _array(bias), eps, rms)
    return record(layer_norm_grad, y, (input, _input(weight), _input(bias)), (input, weight, mean, rstd),
                  (shape, eps, rms))


def layer_norm_grad(node, dy):
    (x, w, mean, rstd), (shape, eps, rms) = node.saved, node.attrs
    if mode.grad:
        return _composite_grad(dy, x, w, tuple(range(-len(shape), 0)), lambda t: t.sum_to_size(shape), eps, rms)
    return _wrapped(_engine.layer_norm_backward(dy.array, x.array, shape, _array(w), mean.array, rstd.array, rms,
                                                *node.needs))


def _composite_grad(dy, x, w, dims, to_parameter, eps, rms=False):
    """The gradients of a norm over `dims` by recorded ops."""
    d = x if rms else x - _mean(x, dims, True)
    r = rsqrt(_mean(d * d, dims, True) + eps)
    xhat = d * r
    g = dy if w is None else dy * w
    centred = g if rms else g - _mean(g, dims, True)
    dx = r * (centred - xhat * _mean(g * xhat, dims, True))
    return dx, to_parameter(dy * xhat), to_parameter(dy)


@widen
def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-05) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight_c + bias_c over each image's groups of channels; var biased.

    input (N, C, ...), weight and bias (C,).

    Raises:
        ValueError: C is not a multiple of num_groups; one value a group; weight or bias not of C values.
        TypeError: integers; parameters neither in the input's dtype nor float32 beside a half.

    Wu and He, Group Normalization (2018), arXiv:1803.08494.

    >>> import tilewright as tw
    >>> y = tw.nn.functional.group_norm(tw.tensor([[1.0, 3.0, 5.0, 9.0]]), 2)
    >>> [round(v, 3) for v in y[0].tolist()]
    [-1.0, 1.0, -1.0, 1.0]
    """
    shape = input.array.shape
    if len(shape) >= 2 and num_groups > 0 and shape[0] * math.prod(shape[1:]) == num_groups:
        raise ValueError(f"group_norm: must have more than 1 value per group, got input {shape} in {num_groups} groups")
    return _group_norm("group_norm", input, num_groups, weight, bias, eps)


def _group_norm(op, input, groups, weight, bias, eps):
    y, mean, rstd = _engine.group_norm(op, input.array, groups, _array(weight), _array(bias), eps)
    return record(group_norm_grad, y, (input, _input(weight), _input(bias)), (input, weight, mean, rstd), (groups, eps))


def group_norm_grad(node, dy):
    (x, w, mean, rstd), (groups, eps) = node.saved, node.attrs
    if not mode.grad:
        return _wrapped(_engine.group_norm_backward(dy.array, x.array, groups, _array(w), mean.array, rstd.array,
                                                    *node.needs))
    N, C = x.shape[:2]
    split = (N, groups, C // groups, math.prod(x.shape[2:]))
    w = None if w is None else w.reshape(1, *split[1:3], 1)
    dx, dw, db = _composite_grad(dy.reshape(split), x.reshape(split), w, (2, 3),
                                 lambda t: _sum(t, (0, 3)).reshape(C), eps)
    return dx.reshape(x.shape), dw, db


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                  weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-05) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight_c + bias_c over the positions of each image and channel; var biased.

    input (N, C, positions...). With `use_input_stats` the running statistics, where given, move in place towards the
    mean over images (var unbiased); without it they are used.

    Raises:
        ValueError: one position a channel; no running statistics without use_input_stats; wrong shapes.
        TypeError: integers; parameters neither in the input's dtype nor float32 beside a half.

    Ulyanov, Vedaldi and Lempitsky, Instance Normalization (2016), arXiv:1607.08022.

    >>> import tilewright as tw
    >>> y = tw.nn.functional.instance_norm(tw.tensor([[[1.0, 3.0], [5.0, 9.0]]]))
    >>> [[round(v, 3) for v in row] for row in y[0].tolist()]
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ValueError("instance_norm: running_mean and running_var must be given without use_input_stats, got "
                             "None")
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    shape = input.array.shape
    if len(shape) < 3 or math.prod(shape[2:]) == 1:
        raise ValueError(f"instance_norm: input must be (N, C, positions...) with more than 1 position, got {shape}")
    y = _group_norm("instance_norm", input, max(1, shape[1]), weight, bias, eps)
    if running_mean is not None or running_var is not None:
        x, positions = input.detach(), tuple(range(2, len(shape)))
        for running, batch in ((running_mean, _mean), (running_var, _var)):
            if running is not None:
                now = _mean(batch(x, positions).to(running.dtype), 0)
                running.detach().copy_(running.detach() * (1 - momentum) + now * momentum)
    return y


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-05) -> Tensor:
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
    if training and input.array.ndim > 1 and input.array.shape[0] == 0:  # an empty batch has no statistics
        shape = (1, -1, *[1] * (input.array.ndim - 2))
        y = input * 1 if weight is None else input * weight.reshape(shape)
        return y if bias is None else y + bias.reshape(shape)
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


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """x / max(norm(x, p), eps) along `dim`.

    >>> import tilewright as tw
    >>> tw.nn.functional.normalize(tw.tensor([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    return div(input, clamp(_norm(input, p, dim, True), min=eps), out=out)
