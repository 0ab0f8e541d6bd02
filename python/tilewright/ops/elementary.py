"""Elementary functions, element by element: signs and rounding, powers, exponentials, logarithms, trigonometry.

Formulas are in `csrc/kernels/functors.h`; the largest error of each, in ulp, in `csrc/kernels/cpu/vec_math.h`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tilewright import _engine
from tilewright.arguments import direct, run, takes_out
from tilewright.ops.elementwise import _before, _unary_, cast, div

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


@direct()
def neg(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """-input."""
    if input.array.dtype is _engine.bool:
        raise TypeError("neg: a bool tensor has no negative; use logical_not (~)")
    return run(neg, input, out=out)


def neg_grad(node, dy):
    return (-dy,)


@direct("inputs")
def abs(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """|input|; the gradient at 0 is 0."""
    return run(abs, input, out=out)


def abs_grad(node, dy):
    (x,) = node.saved
    return (dy * sign(x),)


def sign_grad(node, dy):
    return (dy * 0.0,)


floor_grad = ceil_grad = trunc_grad = round_grad = sign_grad


@direct()
def sign(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """-1, 0 or 1."""
    return run(sign, input, out=out)


@direct()
def floor(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The largest integer not above."""
    return run(floor, input, out=out)


@direct()
def ceil(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The smallest integer not below."""
    return run(ceil, input, out=out)


@direct()
def trunc(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The integer part."""
    return run(trunc, input, out=out)


@direct()
def round(input: Tensor, *, decimals: int = 0, out: Tensor | None = None) -> Tensor:
    """The nearest integer (or multiple of 10**-decimals), halves to even."""
    if decimals and input.array.is_float:
        return div(round(input * 10.0**decimals), 10.0**decimals, out=out)
    return run(round, input, out=out)


@takes_out
def frac(input: Tensor) -> Tensor:
    """input - trunc(input)."""
    return input - trunc(input)


@direct("inputs")
def square(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """input ** 2; of bools as int64."""
    if getattr(input, "dtype", None) is _engine.bool:
        input = cast(input, _engine.int64)
    return run(square, input, out=out)


def square_grad(node, dy):
    (x,) = node.saved
    return (dy * (x * 2.0),)


@direct("output")
def reciprocal(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """1 / input."""
    return run(reciprocal, input, out=out)


def reciprocal_grad(node, dy):
    (y,) = node.saved
    return (-dy * (y * y),)


@direct("output")
def sqrt(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The square root; NaN below 0."""
    return run(sqrt, input, out=out)


def sqrt_grad(node, dy):
    (y,) = node.saved
    return (dy / (y * 2.0),)


@direct("output")
def rsqrt(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """1 / sqrt(input)."""
    return run(rsqrt, input, out=out)


def rsqrt_grad(node, dy):
    (y,) = node.saved
    return (dy * (y * y * y) * -0.5,)


@direct("output")
def exp(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """e ** input."""
    return run(exp, input, out=out)


def exp_grad(node, dy):
    (y,) = node.saved
    return (dy * y,)


@direct("output")
def exp2(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """2 ** input."""
    return run(exp2, input, out=out)


def exp2_grad(node, dy):
    (y,) = node.saved
    return (dy * y * math.log(2.0),)


@direct("output")
def expm1(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """e ** input - 1, accurate near 0."""
    return run(expm1, input, out=out)


def expm1_grad(node, dy):
    (y,) = node.saved
    return (dy * (y + 1.0),)


@direct("inputs")
def log(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The natural logarithm; -inf at 0, NaN below."""
    return run(log, input, out=out)


def log_grad(node, dy):
    (x,) = node.saved
    return (dy / x,)


@direct("inputs")
def log2(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The logarithm to base 2."""
    return run(log2, input, out=out)


def log2_grad(node, dy):
    (x,) = node.saved
    return (dy / (x * math.log(2.0)),)


@direct("inputs")
def log10(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The logarithm to base 10."""
    return run(log10, input, out=out)


def log10_grad(node, dy):
    (x,) = node.saved
    return (dy / (x * math.log(10.0)),)


@direct("inputs")
def log1p(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """log(1 + input), accurate near 0."""
    return run(log1p, input, out=out)


def log1p_grad(node, dy):
    (x,) = node.saved
    return (dy / (x + 1.0),)


@direct("inputs")
def sin(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The sine, of radians."""
    return run(sin, input, out=out)


def sin_grad(node, dy):
    (x,) = node.saved
    return (dy * cos(x),)


@direct("inputs")
def cos(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The cosine, of radians."""
    return run(cos, input, out=out)


def cos_grad(node, dy):
    (x,) = node.saved
    return (-dy * sin(x),)


@direct("output")
def tan(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The tangent, of radians."""
    return run(tan, input, out=out)


def tan_grad(node, dy):
    (y,) = node.saved
    return (dy * (y * y + 1.0),)


@direct("inputs")
def sinh(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The hyperbolic sine."""
    return run(sinh, input, out=out)


def sinh_grad(node, dy):
    (x,) = node.saved
    return (dy * cosh(x),)


@direct("inputs")
def cosh(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The hyperbolic cosine."""
    return run(cosh, input, out=out)


def cosh_grad(node, dy):
    (x,) = node.saved
    return (dy * sinh(x),)


@direct("inputs")
def asin(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The inverse sine, in [-pi/2, pi/2]."""
    return run(asin, input, out=out)


def asin_grad(node, dy):
    (x,) = node.saved
    return (dy * rsqrt(1.0 - x * x),)


@direct("inputs")
def acos(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The inverse cosine, in [0, pi]."""
    return run(acos, input, out=out)


def acos_grad(node, dy):
    (x,) = node.saved
    return (-dy * rsqrt(1.0 - x * x),)


@direct("inputs")
def atan(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The inverse tangent, in [-pi/2, pi/2]."""
    return run(atan, input, out=out)


def atan_grad(node, dy):
    (x,) = node.saved
    return (dy / (x * x + 1.0),)


@direct("inputs")
def erf(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The error function, 2 / sqrt(pi) * integral from 0 to input of exp(-t^2)."""
    return run(erf, input, out=out)


def erf_grad(node, dy):
    (x,) = node.saved
    return (dy * exp(-(x * x)) * (2.0 / math.sqrt(math.pi)),)


# --- in place --------------------------------------------------------------------------------------------------------
def neg_(input: Tensor) -> Tensor:
    """input = -input."""
    return _unary_(_engine.neg_out, neg_grad, input)


def abs_(input: Tensor) -> Tensor:
    """input = |input|."""
    return _unary_(_engine.abs_out, abs_grad, input, (_before(input),))


def exp_(input: Tensor) -> Tensor:
    """input = e ** input."""
    return _unary_(_engine.exp_out, exp_grad, input, (input.array,))


def log_(input: Tensor) -> Tensor:
    """input = log(input)."""
    return _unary_(_engine.log_out, log_grad, input, (_before(input),))


def sqrt_(input: Tensor) -> Tensor:
    """input = sqrt(input)."""
    return _unary_(_engine.sqrt_out, sqrt_grad, input, (input.array,))
