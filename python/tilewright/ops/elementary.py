"""Elementary functions, element by element: signs and rounding, powers, exponentials, logarithms, trigonometry.

Formulas are in `csrc/kernels/functors.h`; the largest error of each, in ulp, in `csrc/kernels/cpu/vec_math.h`.
"""

from __future__ import annotations

import math

from tilewright import _engine
from tilewright.autograd import record
from tilewright.ops.elementwise import _before, _unary_


def neg(input):
    """-input."""
    if input.array.dtype is _engine.bool:
        raise TypeError("neg: a bool tensor has no negative; use logical_not (~)")
    return record(neg_grad, _engine.neg(input.array), (input,))


def neg_grad(node, dy):
    return (-dy,)


def abs(input):
    """|input|; the gradient at 0 is 0."""
    return record(abs_grad, _engine.abs(input.array), (input,), (input,))


def abs_grad(node, dy):
    (x,) = node.saved
    return (dy * sign(x),)


def _flat_grad(node, dy):
    return (dy * 0.0,)


def sign(input):
    """-1, 0 or 1."""
    return record(_flat_grad, _engine.sign(input.array), (input,))


def floor(input):
    """The largest integer not above."""
    return record(_flat_grad, _engine.floor(input.array), (input,)) if input.array.is_float else input.clone()


def ceil(input):
    """The smallest integer not below."""
    return record(_flat_grad, _engine.ceil(input.array), (input,)) if input.array.is_float else input.clone()


def trunc(input):
    """The integer part."""
    return record(_flat_grad, _engine.trunc(input.array), (input,)) if input.array.is_float else input.clone()


def round(input, *, decimals: int = 0):
    """The nearest integer (or multiple of 10**-decimals), halves to even."""
    if not input.array.is_float:
        return input.clone()
    if decimals:
        return round(input * 10.0**decimals) / 10.0**decimals
    return record(_flat_grad, _engine.round(input.array), (input,))


def frac(input):
    """input - trunc(input)."""
    return input - trunc(input)


def square(input):
    """input ** 2."""
    return record(square_grad, _engine.square(input.array), (input,), (input,))


def square_grad(node, dy):
    (x,) = node.saved
    return (dy * (x * 2.0),)


def reciprocal(input):
    """1 / input."""
    y = _engine.reciprocal(input.array)
    return record(reciprocal_grad, y, (input,), (y,))


def reciprocal_grad(node, dy):
    (y,) = node.saved
    return (-dy * (y * y),)


def sqrt(input):
    """The square root; NaN below 0."""
    y = _engine.sqrt(input.array)
    return record(sqrt_grad, y, (input,), (y,))


def sqrt_grad(node, dy):
    (y,) = node.saved
    return (dy / (y * 2.0),)


def rsqrt(input):
    """1 / sqrt(input)."""
    y = _engine.rsqrt(input.array)
    return record(rsqrt_grad, y, (input,), (y,))


def rsqrt_grad(node, dy):
    (y,) = node.saved
    return (dy * (y * y * y) * -0.5,)


def exp(input):
    """e ** input."""
    y = _engine.exp(input.array)
    return record(exp_grad, y, (input,), (y,))


def exp_grad(node, dy):
    (y,) = node.saved
    return (dy * y,)


def exp2(input):
    """2 ** input."""
    y = _engine.exp2(input.array)
    return record(exp2_grad, y, (input,), (y,))


def exp2_grad(node, dy):
    (y,) = node.saved
    return (dy * y * math.log(2.0),)


def expm1(input):
    """e ** input - 1, accurate near 0."""
    y = _engine.expm1(input.array)
    return record(expm1_grad, y, (input,), (y,))


def expm1_grad(node, dy):
    (y,) = node.saved
    return (dy * (y + 1.0),)


def log(input):
    """The natural logarithm; -inf at 0, NaN below."""
    return record(log_grad, _engine.log(input.array), (input,), (input,))


def log_grad(node, dy):
    (x,) = node.saved
    return (dy / x,)


def log2(input):
    """The logarithm to base 2."""
    return record(log2_grad, _engine.log2(input.array), (input,), (input,))


def log2_grad(node, dy):
    (x,) = node.saved
    return (dy / (x * math.log(2.0)),)


def log10(input):
    """The logarithm to base 10."""
    return record(log10_grad, _engine.log10(input.array), (input,), (input,))


def log10_grad(node, dy):
    (x,) = node.saved
    return (dy / (x * math.log(10.0)),)


def log1p(input):
    """log(1 + input), accurate near 0."""
    return record(log1p_grad, _engine.log1p(input.array), (input,), (input,))


def log1p_grad(node, dy):
    (x,) = node.saved
    return (dy / (x + 1.0),)


def sin(input):
    """The sine, of radians."""
    return record(sin_grad, _engine.sin(input.array), (input,), (input,))


def sin_grad(node, dy):
    (x,) = node.saved
    return (dy * cos(x),)


def cos(input):
    """The cosine, of radians."""
    return record(cos_grad, _engine.cos(input.array), (input,), (input,))


def cos_grad(node, dy):
    (x,) = node.saved
    return (-dy * sin(x),)


def tan(input):
    """The tangent, of radians."""
    y = _engine.tan(input.array)
    return record(tan_grad, y, (input,), (y,))


def tan_grad(node, dy):
    (y,) = node.saved
    return (dy * (y * y + 1.0),)


def sinh(input):
    """The hyperbolic sine."""
    return record(sinh_grad, _engine.sinh(input.array), (input,), (input,))


def sinh_grad(node, dy):
    (x,) = node.saved
    return (dy * cosh(x),)


def cosh(input):
    """The hyperbolic cosine."""
    return record(cosh_grad, _engine.cosh(input.array), (input,), (input,))


def cosh_grad(node, dy):
    (x,) = node.saved
    return (dy * sinh(x),)


def asin(input):
    """The inverse sine, in [-pi/2, pi/2]."""
    return record(asin_grad, _engine.asin(input.array), (input,), (input,))


def asin_grad(node, dy):
    (x,) = node.saved
    return (dy * rsqrt(1.0 - x * x),)


def acos(input):
    """The inverse cosine, in [0, pi]."""
    return record(acos_grad, _engine.acos(input.array), (input,), (input,))


def acos_grad(node, dy):
    (x,) = node.saved
    return (-dy * rsqrt(1.0 - x * x),)


def atan(input):
    """The inverse tangent, in [-pi/2, pi/2]."""
    return record(atan_grad, _engine.atan(input.array), (input,), (input,))


def atan_grad(node, dy):
    (x,) = node.saved
    return (dy / (x * x + 1.0),)


def erf(input):
    """The error function, 2 / sqrt(pi) * integral from 0 to input of exp(-t^2)."""
    return record(erf_grad, _engine.erf(input.array), (input,), (input,))


def erf_grad(node, dy):
    (x,) = node.saved
    return (dy * exp(-(x * x)) * (2.0 / math.sqrt(math.pi)),)


# --- in place --------------------------------------------------------------------------------------------------------
def neg_(input):
    """input = -input."""
    return _unary_(_engine.neg_out, neg_grad, input)


def abs_(input):
    """input = |input|."""
    return _unary_(_engine.abs_out, abs_grad, input, (_before(input),))


def exp_(input):
    """input = e ** input."""
    return _unary_(_engine.exp_out, exp_grad, input, (input.array,))


def log_(input):
    """input = log(input)."""
    return _unary_(_engine.log_out, log_grad, input, (_before(input),))


def sqrt_(input):
    """input = sqrt(input)."""
    return _unary_(_engine.sqrt_out, sqrt_grad, input, (input.array,))
