"""Activations, element by element. Each keeps the values that its backward kernel reads, and gives them back to
autograd as recorded ops when a second derivative is asked for."""

from __future__ import annotations

import math

from tilewright import _engine, autograd
from tilewright.arguments import direct, run
from tilewright.autograd import record, wrap
from tilewright.grad_mode import mode
from tilewright.ops.elementary import erf, exp, expm1, reciprocal
from tilewright.ops.elementwise import clamp, in_float32, where


def _activate(kernel, rule, x, in_place, attrs=(), keep_output=False):
    """y = kernel(x, *attrs), in x's own memory when `in_place`; saves y or x for the rule."""
    if not isinstance(x, autograd.Tensor):
        raise TypeError(f"{kernel.__name__}: expects a Tensor, got {type(x).__name__}")
    if in_place:
        out = getattr(_engine, kernel.__name__ + "_out")
        p = (*attrs, 0.0, 0.0)
        return autograd.inplace(rule, x, lambda: out(x.array, x.array, p[0], p[1]), (x,),
                                (x.array if keep_output else x,), attrs)
    y = kernel(x.array, *(*attrs, 0.0)[:2]) if attrs else kernel(x.array)
    return record(rule, y, (x,), (y if keep_output else x,), attrs)


@direct("output")
def relu(input, inplace: bool = False):
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


def relu_(input):
    """relu in place."""
    return relu(input, True)


def leaky_relu(input, negative_slope: float = 0.01, inplace: bool = False):
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


def elu(input, alpha: float = 1.0, inplace: bool = False):
    """input where positive, alpha * (exp(input) - 1) elsewhere (Clevert et al., 2016)."""
    return _activate(_engine.elu, elu_grad, input, inplace, (float(alpha),), keep_output=True)


def elu_grad(node, dy):
    (y,), (alpha,) = node.saved, node.attrs
    if mode.grad:
        return (where(y > 0, dy, dy * (y + alpha)),)
    return (wrap(_engine.elu_backward(dy.array, y.array, alpha, 0.0)),)


@direct("output")
def sigmoid(input, *, out=None):
    """1 / (1 + exp(-input))."""
    return run(sigmoid, input, out=out)


def sigmoid_grad(node, dy):
    (y,) = node.saved
    if mode.grad:
        return (dy * (y * (1.0 - y)),)
    return (wrap(_engine.sigmoid_backward(dy.array, y.array)),)


def sigmoid_(input):
    """sigmoid in place."""
    return _activate(_engine.sigmoid, sigmoid_grad, input, True, keep_output=True)


@direct("output")
def tanh(input, *, out=None):
    """The hyperbolic tangent."""
    return run(tanh, input, out=out)


def tanh_grad(node, dy):
    (y,) = node.saved
    if mode.grad:
        return (dy * (1.0 - y * y),)
    return (wrap(_engine.tanh_backward(dy.array, y.array)),)


def tanh_(input):
    """tanh in place."""
    return _activate(_engine.tanh, tanh_grad, input, True, keep_output=True)


def gelu(input, approximate: str = "none"):
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


def silu(input, inplace: bool = False):
    """input * sigmoid(input)."""
    return _activate(_engine.silu, silu_grad, input, inplace)


def silu_grad(node, dy):
    (x,) = node.saved
    if mode.grad:
        s = sigmoid(x)
        return (dy * (s * (x * (1.0 - s) + 1.0)),)
    return (wrap(_engine.silu_backward(dy.array, x.array)),)


def softplus(input, beta: float = 1.0, threshold: float = 20.0):
    """log(1 + exp(beta * input)) / beta; the input itself where beta * input exceeds the threshold."""
    return _activate(_engine.softplus, softplus_grad, input, False, (float(beta), float(threshold)))


def softplus_grad(node, dy):
    (x,), (beta, threshold) = node.saved, node.attrs
    if mode.grad:
        return (where(x * beta > threshold, dy, dy * sigmoid(x * beta)),)
    return (wrap(_engine.softplus_backward(dy.array, x.array, beta, threshold)),)


def hardtanh(input, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
    """input moved into [min_val, max_val]; the gradient is 0 on and outside the bounds, as in PyTorch."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val must not be above max_val, got {min_val} and {max_val}")
    bounds = (float(min_val), float(max_val))
    if inplace:
        return autograd.inplace(hardtanh_grad, input, lambda: _engine.clamp_out(input.array, input.array, *bounds),
                                (input,), (input.array,), bounds)
    y = _engine.clamp(input.array, *bounds)
    return record(hardtanh_grad, y, (input,), (y,), bounds)


def hardtanh_grad(node, dy):
    (y,), (lo, hi) = node.saved, node.attrs
    return (where((y > lo) & (y < hi), dy, 0.0),)


def relu6(input, inplace: bool = False):
    """input moved into [0, 6]."""
    return hardtanh(input, 0.0, 6.0, inplace)


@in_float32
def logsigmoid(input):
    """log(sigmoid(input)), stable for large negative inputs."""
    return -softplus(-input, threshold=math.inf)


def mish(input, inplace: bool = False):
    """input * tanh(softplus(input)) (Misra, 2019)."""
    y = _mish(input)
    return input.copy_(y) if inplace else y


@in_float32
def _mish(x):
    return x * tanh(softplus(x))


@in_float32
def hardsigmoid(input):
    """clamp(input / 6 + 1/2, 0, 1)."""
    return hardtanh(input / 6.0 + 0.5, 0.0, 1.0)


@in_float32
def hardswish(input):
    """input * hardsigmoid(input)."""
    return input * hardsigmoid(input)


def selu(input, inplace: bool = False):
    """scale * elu(input, alpha), the constants that keep mean 0 and variance 1 (Klambauer et al., 2017)."""
    y = _selu(input)
    return input.copy_(y) if inplace else y


@in_float32
def _selu(x):
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return elu(x, alpha) * scale


@in_float32
def celu(input, alpha: float = 1.0):
    """max(0, input) + min(0, alpha * (exp(input / alpha) - 1))."""
    return where(input > 0, input, expm1(clamp(input, max=0.0) / alpha) * alpha)


@in_float32
def softsign(input):
    """input / (1 + |input|)."""
    return input * reciprocal(input.abs() + 1.0)


@in_float32
def tanhshrink(input):
    """input - tanh(input)."""
    return input - tanh(input)
