"""Activations, element by element. Each keeps the values that its backward kernel reads, and gives them back to
autograd as recorded ops when a second derivative is asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.arguments import direct, run, wants
from tilewright.autograd import record, wrap
from tilewright.grad_mode import mode
from tilewright.ops.elementary import erf, exp
from tilewright.ops.elementwise import _before, where

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def _activate(kernel, rule, x, in_place, attrs=(), keep_output=False):
    """y = kernel(x, *attrs), in x's own memory when `in_place`; saves y or x for the rule."""
    if not isinstance(x, autograd.Tensor):
        raise TypeError(f"{kernel.__name__}: expects a Tensor, got {type(x).__name__}")
    if in_place:
        out = getattr(_engine, kernel.__name__ + "_out")
        p = (*attrs, 0.0, 0.0)
        return autograd.inplace(rule, x, lambda: out(x.array, x.array, p[0], p[1]), (x,),
                                (x.array if keep_output else _before(x) if mode.grad and wants(x) else x,), attrs)
    y = kernel(x.array, *(*attrs, 0.0)[:2]) if attrs else kernel(x.array)
    return record(rule, y, (x,), (y if keep_output else x,), attrs)


@direct("output")
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0); NaN stays NaN.

    >>> import tilewright as tw
    >>> tw.relu(tw.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return _activate(_engine.relu, relu_grad, input, inplace, keep_output=True)


def relu_grad(node, dy):
    (y,) = node.saved
    if mode.grad:
        return (where(y > 0, dy, 0.0),)
    return (wrap(_engine.relu_backward(dy.array, y.array)),)


def relu_(input: Tensor) -> Tensor:
    """relu in place."""
    return relu(input, True)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """input where positive, negative_slope * input elsewhere."""
    if inplace and negative_slope < 0:
        raise ValueError(f"leaky_relu: in place, negative_slope must not be negative, got {negative_slope}")
    # Of the output, only the sign is read, which is the input's for slopes that are not negative.
    return _activate(_engine.leaky_relu, leaky_relu_grad, input, inplace, (float(negative_slope),), inplace)


def leaky_relu_grad(node, dy):
    (x,), (slope,) = node.saved, node.attrs
    if mode.grad:
        return (where(x > 0, dy, dy * slope),)
    return (wrap(_engine.leaky_relu_backward(dy.array, x.array, slope, 0.0)),)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where positive, alpha * (exp(input) - 1) elsewhere (Clevert et al., 2016)."""
    return _activate(_engine.elu, elu_grad, input, inplace, (float(alpha),), keep_output=True)


def elu_grad(node, dy):
    (y,), (alpha,) = node.saved, node.attrs
    if mode.grad:
        return (where(y > 0, dy, dy * (y + alpha)),)
    return (wrap(_engine.elu_backward(dy.array, y.array, alpha, 0.0)),)


@direct("output")
def sigmoid(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """1 / (1 + exp(-input))."""
    return run(sigmoid, input, out=out)


def sigmoid_grad(node, dy):
    (y,) = node.saved
    if mode.grad:
        return (dy * (y * (1.0 - y)),)
    return (wrap(_engine.sigmoid_backward(dy.array, y.array)),)


def sigmoid_(input: Tensor) -> Tensor:
    """sigmoid in place."""
    return _activate(_engine.sigmoid, sigmoid_grad, input, True, keep_output=True)


@direct("output")
def tanh(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The hyperbolic tangent."""
    return run(tanh, input, out=out)


def tanh_grad(node, dy):
    (y,) = node.saved
    if mode.grad:
        return (dy * (1.0 - y * y),)
    return (wrap(_engine.tanh_backward(dy.array, y.array)),)


def tanh_(input: Tensor) -> Tensor:
    """tanh in place."""
    return _activate(_engine.tanh, tanh_grad, input, True, keep_output=True)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input * Phi(input), Phi the normal distribution function (Hendrycks & Gimpel, 2016); "tanh" approximates it by
    0.5 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

    Raises:
        ValueError: another approximation.
    """
    if approximate == "none":
        return _activate(_engine.gelu, gelu_grad, input, False)
    if approximate == "tanh":
        return _activate(_engine.gelu_tanh, gelu_tanh_grad, input, False)
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


def gelu_grad(node, dy):
    (x,) = node.saved
    if mode.grad:
        phi = exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
        return (dy * ((erf(x * math.sqrt(0.5)) + 1.0) * 0.5 + x * phi),)
    return (wrap(_engine.gelu_backward(dy.array, x.array)),)


def gelu_tanh_grad(node, dy):
    (x,) = node.saved
    if mode.grad:
        k = math.sqrt(2.0 / math.pi)
        t = tanh((x + x * x * x * 0.044715) * k)
        return (dy * ((t + 1.0) * 0.5 + x * (1.0 - t * t) * (x * x * (3 * 0.044715) + 1.0) * (0.5 * k)),)
    return (wrap(_engine.gelu_tanh_backward(dy.array, x.array)),)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """input * sigmoid(input)."""
    return _activate(_engine.silu, silu_grad, input, inplace)


def silu_grad(node, dy):
    (x,) = node.saved
    if mode.grad:
        s = sigmoid(x)
        return (dy * (s * (x * (1.0 - s) + 1.0)),)
    return (wrap(_engine.silu_backward(dy.array, x.array)),)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * input)) / beta; the input itself where beta * input exceeds the threshold."""
    return _activate(_engine.softplus, softplus_grad, input, False, (float(beta), float(threshold)))


def softplus_grad(node, dy):
    (x,), (beta, threshold) = node.saved, node.attrs
    if mode.grad:
        return (where(x * beta > threshold, dy, dy * sigmoid(x * beta)),)
    return (wrap(_engine.softplus_backward(dy.array, x.array, beta, threshold)),)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """input moved into [min_val, max_val]; the gradient is 0 on and outside the bounds, as in PyTorch."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val must not be above max_val, got {min_val} and {max_val}")
    bounds = (float(min_val), float(max_val))
    if inplace:
        return autograd.inplace(hardtanh_grad, input, lambda: _engine.clamp_out(input.array, input.array, *bounds),
                                (input,), (input.array,), bounds)
    y = _engine.clamp(input.array, *bounds)
    return record(hardtanh_grad, y, (input,), (y,), bounds)


def _rule(name, kernel, slope):
    """The rule of an activation that saved one value v: dy * slope(v, *attrs), by `kernel` when nothing is recorded."""
    def rule(node, dy):
        (v,), attrs = node.saved, node.attrs
        if mode.grad:
            return (dy * slope(v, *attrs),)
        return (wrap(kernel(dy.array, v.array, *attrs)),)

    rule.__name__ = name
    return rule


def _step(condition, like):
    return condition.to(like.dtype)


hardtanh_grad = _rule("hardtanh_grad", _engine.inside_backward, lambda y, lo, hi: _step((y > lo) & (y < hi), y))


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """input moved into [0, 6]."""
    return hardtanh(input, 0.0, 6.0, inplace)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(input)), stable for large negative inputs."""
    return _activate(_engine.logsigmoid, logsigmoid_grad, input, False)


logsigmoid_grad = _rule("logsigmoid_grad", _engine.logsigmoid_backward, lambda x: sigmoid(-x))


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * tanh(softplus(input)) (Misra, 2019)."""
    return _activate(_engine.mish, mish_grad, input, inplace)


def _mish_slope(x):
    t = tanh(softplus(x))
    return t + x * (1.0 - t * t) * sigmoid(x)


mish_grad = _rule("mish_grad", _engine.mish_backward, _mish_slope)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """clamp(input / 6 + 1/2, 0, 1)."""
    return _activate(_engine.hardsigmoid, hardsigmoid_grad, input, inplace)


hardsigmoid_grad = _rule("hardsigmoid_grad", _engine.hardsigmoid_backward,
                         lambda x: _step((x > -3) & (x < 3), x) * (1.0 / 6.0))


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * hardsigmoid(input) (Howard et al., 2019)."""
    return _activate(_engine.hardswish, hardswish_grad, input, inplace)


hardswish_grad = _rule("hardswish_grad", _engine.hardswish_backward,
                       lambda x: where(x <= -3, 0.0, where(x < 3, x / 3.0 + 0.5, 1.0)))


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(input, alpha), the constants that keep mean 0 and variance 1 (Klambauer et al., 2017)."""
    return _activate(_engine.selu, selu_grad, input, inplace, keep_output=True)


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
selu_grad = _rule("selu_grad", _engine.selu_backward,
                  lambda y: where(y > 0, _SELU_SCALE, y + _SELU_SCALE * _SELU_ALPHA))


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(0, input) + min(0, alpha * (exp(input / alpha) - 1)) (Barron, 2017).

    Raises:
        ValueError: alpha is 0.
    """
    if alpha == 0:
        raise ValueError("celu: alpha must not be 0, got 0")
    return _activate(_engine.celu, celu_grad, input, inplace, (float(alpha),))


celu_grad = _rule("celu_grad", _engine.celu_backward, lambda x, alpha: where(x > 0, 1.0, exp(x.clamp(max=0.0) / alpha)))


def softsign(input: Tensor) -> Tensor:
    """input / (1 + |input|)."""
    return _activate(_engine.softsign, softsign_grad, input, False)


softsign_grad = _rule("softsign_grad", _engine.softsign_backward, lambda x: 1.0 / (x.abs() + 1.0).square())


def tanhshrink(input: Tensor) -> Tensor:
    """input - tanh(input)."""
    return _activate(_engine.tanhshrink, tanhshrink_grad, input, False)


tanhshrink_grad = _rule("tanhshrink_grad", _engine.tanhshrink_backward, lambda x: tanh(x).square())  # type: ignore[has-type]


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input where |input| > lambd, 0 elsewhere."""
    return _activate(_engine.hardshrink, hardshrink_grad, input, False, (float(lambd),))


hardshrink_grad = _rule("hardshrink_grad", _engine.shrink_backward, lambda x, lambd: _step(x.abs() > lambd, x))


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input moved by lambd towards 0, and 0 where |input| <= lambd.

    Raises:
        ValueError: lambd is negative.
    """
    if lambd < 0:
        raise ValueError(f"softshrink: lambd must not be negative, got {lambd}")
    return _activate(_engine.softshrink, softshrink_grad, input, False, (float(lambd),))


softshrink_grad = _rule("softshrink_grad", _engine.shrink_backward, lambda x, lambd: _step(x.abs() > lambd, x))


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """input where it is above the threshold, value elsewhere."""
    if not input.array.is_float:
        y = where(input > threshold, input, int(value))
        return input.copy_(y) if inplace else y
    return _activate(_engine.threshold, threshold_grad, input, inplace, (float(threshold), float(value)))


threshold_grad = _rule("threshold_grad", _engine.threshold_backward, lambda x, at, value: _step(x > at, x))


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """input where positive, weight * input elsewhere; weight has one value, or one a channel (dim 1 of the input).

    Raises:
        ValueError: weight is no 0-d or 1-d tensor, or its size is neither 1 nor the number of channels.

    Source: He et al., 2015 (arXiv:1502.01852).
    """
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, channels):
        raise ValueError(f"prelu: weight must have 1 or {channels} values, got shape {weight.shape} for input "
                         f"{input.shape}")
    if weight.numel() > 1:
        weight = weight.reshape((-1,) + (1,) * (input.ndim - 2))
    elif input.ndim == 0:
        weight = weight.reshape(())
    return where(input > 0, input, input * weight)


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """input where positive, elsewhere a * input: a is drawn from [lower, upper] for each element in training, and is
    their mean otherwise (Xu et al., 2015)."""
    if lower > upper:
        raise ValueError(f"rrelu: lower must not be above upper, got {lower} and {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    from tilewright.ops.random import rand_like
    y = where(input > 0, input, input * (rand_like(input) * (upper - lower) + lower))
    return input.copy_(y) if inplace else y


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a * sigmoid(b), a and b the halves of the input along `dim` (Dauphin et al., 2016).

    Raises:
        ValueError: the size of `dim` is odd.
    """
    size = input.size(dim)
    if size % 2:
        raise ValueError(f"glu: the size of dim {dim} must be even, got {size}")
    a, b = input.chunk(2, dim)
    return a * sigmoid(b)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """softmax(-input) along `dim`."""
    from tilewright.ops.softmax import softmax
    return softmax(-(input if dtype is None else input.to(dtype)), -1 if dim is None else dim)


def gumbel_softmax(logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """softmax((logits + g) / tau), g Gumbel noise; `hard` gives one-hot samples with the soft ones' gradient.

    Raises:
        ValueError: tau is not positive.

    Source: Jang, Gu & Poole, 2016 (arXiv:1611.01144).
    """
    if not tau > 0:
        raise ValueError(f"gumbel_softmax: tau must be positive, got {tau}")
    from tilewright.ops.random import rand_like
    from tilewright.ops.softmax import softmax
    noise = -(-(1.0 - rand_like(logits.detach())).log()).log()  # 1 - u is in (0, 1]
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    picked = soft.detach().argmax(dim, keepdim=True)
    one = wrap(_engine.full(soft.shape, 0, soft.array.dtype, soft.device)).scatter_(dim, picked, 1.0)
    return one - soft.detach() + soft


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """leaky_relu in place."""
    return leaky_relu(input, negative_slope, True)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """elu in place."""
    return elu(input, alpha, True)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """celu in place."""
    return celu(input, alpha, True)


def selu_(input: Tensor) -> Tensor:
    """selu in place."""
    return selu(input, True)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """hardtanh in place."""
    return hardtanh(input, min_val, max_val, True)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """threshold in place."""
    return _activate(_engine.threshold, threshold_grad, input, True, (float(threshold), float(value)))


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """rrelu in place."""
    return rrelu(input, lower, upper, training, True)
