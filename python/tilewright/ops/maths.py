"""Elementwise functions made of other ops: hyperbolic inverses, special functions, choices and rounding, angles.

A function with a rule of its own (`_ruled`) computes in at least float32; rules are Tensor ops, so every order of
derivative exists. Special functions (`erfc`, `lgamma`, `digamma`, ...) are evaluated in float64 on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.arguments import NUMBER, into, operand, takes_out, tensor
from tilewright.autograd import record, wrap
from tilewright.ops import elementary, elementwise
from tilewright.ops.elementwise import in_float32, where

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


# --- functions of one tensor with a rule -----------------------------------------------------------------------------
def _floating(x: Any) -> Any:
    return x if x.array.is_float else x.to(_engine.get_default_dtype())


def _ruled(name: str, forward: Callable, slope: Callable, text: str) -> Any:
    """The op `name`: forward(x) without history, and the gradient dy * slope(x)."""
    def rule(node, dy):
        return (dy * slope(*node.saved),)

    def op(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        if not isinstance(input, autograd.Tensor):
            raise TypeError(f"{name}: expects a Tensor, got {type(input).__name__}")
        x = _floating(input)
        half = x.dtype in (_engine.float16, _engine.bfloat16)
        with autograd.no_grad():
            y = forward(x.detach().float() if half else x.detach()).to(x.dtype)
        y = record(rule, y.array, (x,), (x,))
        return y if out is None else into(name, y, out, input)

    rule.__name__, op.__name__, op.__qualname__, op.__doc__ = f"{name}_grad", name, name, text
    return op


def _numpy_values(function: Callable) -> Callable:
    """forward(x) that applies a function of NumPy float64 arrays."""
    def forward(x):
        import numpy

        with numpy.errstate(all="ignore"):
            values = numpy.asarray(function(x.double().cpu().numpy().reshape(-1)), numpy.float64)
        return wrap(_engine.to_device(_engine.clone(_engine.from_buffer(values)), x.device)).reshape(x.shape)

    return forward


def _each(function: Callable[[float], float]) -> Callable:
    """forward(x) that calls a function of Python floats for each element; NaN where it is not defined."""
    def total(v):
        try:
            return function(v)
        except ValueError:  # a pole, or no number
            return math.inf if v == v and function is math.lgamma else math.nan
        except OverflowError:
            return math.inf

    def values(a):
        import numpy

        return numpy.frompyfunc(total, 1, 1)(a).astype(numpy.float64)

    return _numpy_values(values)


def _hurwitz(s: int, a: Any) -> Any:
    """The sum over k >= 0 of (a + k)^-s, s >= 2, a > 0: 12 terms, then Euler and Maclaurin's formula."""
    total, n = a * 0, 12
    for k in range(n):
        total = total + (a + k) ** -s
    a = a + n
    total = total + a ** (1 - s) / (s - 1) + a**-s / 2
    factor: float = s
    for k, b in enumerate((1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6), 1):
        total = total + b / math.factorial(2 * k) * factor * a ** (1 - s - 2 * k)
        factor *= (s + 2 * k - 1) * (s + 2 * k)
    return total


def _digamma_values(x: Any) -> Any:
    """psi(x): the asymptotic series from 10 on, reached by psi(x) = psi(x + 1) - 1/x; below 0 by reflection."""
    import numpy

    negative = x < 0
    up, total = numpy.where(negative, 1 - x, x), x * 0
    for _ in range(10):
        low = up < 10
        total = total - numpy.where(low, 1 / up, 0)
        up = up + low
    inverse = 1 / up**2
    series = up * 0
    for c in (1 / 12, -691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12):
        series = (series + c) * inverse
    total = total + numpy.log(up) - 0.5 / up - series
    total = numpy.where(negative, total - math.pi / numpy.tan(math.pi * (x - numpy.floor(x))), total)
    total = numpy.where(negative & (x == numpy.floor(x)), math.nan, total)
    return numpy.where(x == 0, numpy.copysign(math.inf, -x), total)


def _polygamma_values(n: int, x: Any) -> Any:
    import numpy

    sign = (-1) ** (n + 1)
    total = sign * math.factorial(n) * _hurwitz(n + 1, numpy.where(x > 0, x, 1 - x))
    if (x > 0).all():
        return total
    # psi_n(1 - x) (-1)^n - psi_n(x) is the n-th derivative of pi cot(pi x): a polynomial in the cotangent.
    cotangent = numpy.polynomial.Polynomial([0.0, 1.0])
    for _ in range(n):
        cotangent = cotangent.deriv() * numpy.polynomial.Polynomial([-math.pi, 0, -math.pi])
    reflected = (-1) ** n * total - math.pi * cotangent(1 / numpy.tan(math.pi * (x - numpy.floor(x))))
    return numpy.where(x > 0, total, numpy.where(x == numpy.floor(x), sign * math.inf, reflected))


def _erfinv_values(y: Any) -> Any:
    """Winitzki's approximation (2008), then three steps of Halley's method, on erfc in the tails, where it is exact."""
    import numpy

    size = numpy.abs(y)
    log = numpy.log1p(-size * size)
    first = 2 / (math.pi * 0.147) + log / 2
    x = numpy.sqrt(numpy.sqrt(first * first - log / 0.147) - first)
    erf_of, erfc_of = numpy.frompyfunc(math.erf, 1, 1), numpy.frompyfunc(math.erfc, 1, 1)
    inside = size < 1
    x = numpy.where(inside, x, 0)
    for _ in range(3):
        error = numpy.where(size < 0.5, erf_of(x) - size, (1 - size) - erfc_of(x)).astype(numpy.float64)
        step = error / (2 / math.sqrt(math.pi) * numpy.exp(-x * x))
        x = numpy.where(inside, x - step / (1 + x * step), 0)
    x = numpy.where(inside, x, numpy.where(size == 1, math.inf, math.nan))
    return numpy.copysign(x, y)


def _acosh(x):
    return elementary.log1p((x - 1) + elementary.sqrt((x - 1) * (x + 1)))


def _asinh(x):
    size = x.abs()
    return elementary.log1p(size + size * size / (1 + elementary.sqrt(size * size + 1))).mul(x.sign())


def _atanh(x):
    size = x.abs()
    return elementary.log1p(2 * size / (1 - size)).mul(x.sign() * 0.5)


acosh = _ruled("acosh", _acosh, lambda x: elementary.rsqrt(x * x - 1), "The inverse of cosh, from 1 on.")
asinh = _ruled("asinh", _asinh, lambda x: elementary.rsqrt(x * x + 1), "The inverse of sinh.")
atanh = _ruled("atanh", _atanh, lambda x: 1 / (1 - x * x), "The inverse of tanh, in [-1, 1].")
erfc = _ruled("erfc", _each(math.erfc), lambda x: elementary.exp(-x * x) * (-2 / math.sqrt(math.pi)), "1 - erf(x).")
erfinv: Any = _ruled("erfinv", _numpy_values(_erfinv_values),
                lambda x: elementary.exp(elementary.square(erfinv(x))) * (math.sqrt(math.pi) / 2),
                "The inverse of erf, in [-1, 1].")
digamma = _ruled("digamma", _numpy_values(_digamma_values), lambda x: polygamma(1, x), "The derivative of lgamma.")
lgamma = _ruled("lgamma", _each(math.lgamma), lambda x: digamma(x), "The logarithm of |Gamma(x)|.")
sinc: Any = _ruled("sinc", lambda x: where(x == 0, 1.0, elementary.sin(x * math.pi) / where(x == 0, 1.0, x * math.pi)),
              lambda x: where(x.abs() < 1e-3, x * (-math.pi**2 / 3) + x**3 * (math.pi**4 / 30),
                              (elementary.cos(x * math.pi) - sinc(x)) / where(x == 0, 1.0, x)),
              "sin(pi x) / (pi x), 1 at 0.")
_POLYGAMMA: dict[int, Any] = {}


def polygamma(n: int, input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The n-th derivative of digamma.

    Raises:
        ValueError: n negative.
    """
    if n < 0:
        raise ValueError(f"polygamma: n must not be negative, got {n}")
    if n not in _POLYGAMMA:
        _POLYGAMMA[n] = digamma if n == 0 else _ruled("polygamma", _numpy_values(
            lambda a: _polygamma_values(n, a)), lambda x: polygamma(n + 1, x), "")
    return _POLYGAMMA[n](input, out=out)


@takes_out
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate Gamma function of dimension p."""
    x = _floating(input)
    shifts = wrap(_engine.arange(0, p, 1, _engine.int64, x.device)).to(x.dtype) * -0.5
    return lgamma(x.unsqueeze(-1) + shifts).sum(-1) + p * (p - 1) / 4 * math.log(math.pi)


@takes_out
@in_float32
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), x first moved into [eps, 1 - eps] where eps is given."""
    x = _floating(input)
    x = x if eps is None else x.clamp(eps, 1 - eps)
    return elementary.log(x / (1 - x))


def _two_tensors(op: str, *operands) -> None:
    for x in operands:
        if not isinstance(x, autograd.Tensor):
            raise TypeError(f"{op}: expects a Tensor, got {type(x).__name__}")


# --- functions of two ------------------------------------------------------------------------------------------------
@takes_out
@in_float32
def logaddexp(input: Tensor, other: Tensor | float) -> Tensor:
    """log(exp x + exp y), computed from the larger one."""
    _two_tensors("logaddexp", input, other)
    gap = where(input == other, 0.0, input - other)
    return elementwise.maximum(input, other) + elementary.log1p(elementary.exp(-elementary.abs(gap)))


@takes_out
@in_float32
def logaddexp2(input: Tensor, other: Tensor | float) -> Tensor:
    """log2(2^x + 2^y), computed from the larger one."""
    _two_tensors("logaddexp2", input, other)
    gap = where(input == other, 0.0, input - other)
    tail = elementary.log1p(elementary.exp2(-elementary.abs(gap)))
    return elementwise.maximum(input, other) + tail * (1 / math.log(2))


def _pair_of(op: str, x, y):
    """Both as floating-point Tensors of the dtype they promote to."""
    if op != "xlogy":
        _two_tensors(op, x, y)
    (a, av), (b, bv) = operand(op, x), operand(op, y)
    if a is NUMBER and b is NUMBER:
        raise TypeError(f"{op}: one operand must be a Tensor, got {x!r} and {y!r}")
    dtype = _engine.result_type(av, bv)
    dtype = dtype if dtype.is_floating_point else _engine.get_default_dtype()
    device = (b if a is NUMBER else a).device
    return tuple((wrap(_engine.full((), v, dtype, device)) if t is NUMBER else t.to(dtype))
                 for t, v in ((a, av), (b, bv)))


@takes_out
def hypot(input: Tensor, other: Tensor | float) -> Tensor:
    """sqrt(x^2 + y^2), without overflow on the way."""
    x, y = _pair_of("hypot", input, other)
    with autograd.no_grad():
        size = elementwise.maximum(x.abs(), y.abs())
        safe = where((size == 0) | size.isinf(), 1.0, size)
        root = where(size.isinf(), size, elementary.sqrt(elementary.square(x / safe) + elementary.square(y / safe)) *
                     safe)
    return record(hypot_grad, root.array, (x, y), (x, y, root.array))


def hypot_grad(node, dy):
    x, y, root = node.saved
    return dy * x / root, dy * y / root


@takes_out
def xlogy(input: Tensor, other: Tensor | float) -> Tensor:
    """x log y, 0 where x is 0 and y is not NaN."""
    x, y = _pair_of("xlogy", input, other)
    with autograd.no_grad():
        value = where((x == 0) & ~y.isnan(), 0.0, x * elementary.log(y))
    return record(xlogy_grad, value.array, (x, y), (x, y))


def xlogy_grad(node, dy):
    x, y = node.saved
    nothing = (x == 0) & (y <= 0)
    return (where(nothing, 0.0, dy * elementary.log(where(nothing, 1.0, y))) if node.needs[0] else None,
            dy * x / y if node.needs[1] else None)


@takes_out
def float_power(input: Tensor, exponent: Any) -> Tensor:
    """x^y in float64."""
    return elementwise.pow(*(v.double() if isinstance(v, autograd.Tensor) else float(v) for v in (input, exponent)))


@takes_out
def ldexp(input: Tensor, other: Tensor | float) -> Tensor:
    """x 2^y."""
    x, y = _pair_of("ldexp", input, other)
    return x * elementary.exp2(y)


@takes_out
def fmax(input: Tensor, other: Tensor | float) -> Tensor:
    """The larger of each pair; of a NaN and a number the number."""
    _two_tensors("fmax", input, other)
    return where((input >= other) | elementwise.isnan(other), input, other)


@takes_out
def fmin(input: Tensor, other: Tensor | float) -> Tensor:
    """The smaller of each pair; of a NaN and a number the number."""
    _two_tensors("fmin", input, other)
    return where((input <= other) | elementwise.isnan(other), input, other)


@takes_out
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below 0, 1 above, `values` at 0."""
    if input.dtype is not values.dtype:
        raise TypeError(f"heaviside: values must have the input's dtype, got {values.dtype.name} for "
                        f"{input.dtype.name}")
    return where(input == 0, values, (input > 0).to(input.dtype))


def _integers(op: str, function: str, x, y):
    import numpy

    if x.array.is_float or y.array.is_float:
        raise TypeError(f"{op}: expects integers, got {x.dtype.name} and {y.dtype.name}")
    dtype = _engine.promote_types(x.dtype, y.dtype)
    values = getattr(numpy, function)(*(v.to(dtype).cpu().numpy() for v in (x, y)))
    return wrap(_engine.to_device(_engine.clone(_engine.from_buffer(numpy.asarray(values))), x.device))


@takes_out
def gcd(input: Tensor, other: Tensor | float) -> Tensor:
    """The greatest common divisor of integers."""
    return _integers("gcd", "gcd", input, other)


@takes_out
def lcm(input: Tensor, other: Tensor | float) -> Tensor:
    """The least common multiple of integers."""
    return _integers("lcm", "lcm", input, other)


# --- signs, choices, angles ------------------------------------------------------------------------------------------
_BITS = {_engine.float16: _engine.int16, _engine.bfloat16: _engine.int16, _engine.float32: _engine.int32,
         _engine.float64: _engine.int64}


@takes_out
def signbit(input: Tensor) -> Tensor:
    """Whether the sign is minus, of -0.0 too."""
    if not input.array.is_float:
        return input < 0
    return wrap(_engine.bitcast(_engine.contiguous(input.array), _BITS[input.dtype])) < 0


@takes_out
def copysign(input: Tensor, other: Tensor | float) -> Tensor:
    """|x| with the sign of y."""
    y = other if isinstance(other, autograd.Tensor) else wrap(_engine.full((), other, _engine.get_default_dtype(),
                                                                          input.device))
    size = elementary.abs(_floating(input))
    return where(signbit(y), -size, size)


@takes_out
def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """NaN, inf and -inf replaced by numbers: by default 0 and the dtype's largest and smallest."""
    if not input.array.is_float:
        return elementwise.clone(input)
    from tilewright.legacy import finfo

    limits = finfo(input.dtype)
    y = where(elementwise.isnan(input), 0.0 if nan is None else nan, input)
    y = where(input == math.inf, limits.max if posinf is None else posinf, y)
    return where(input == -math.inf, limits.min if neginf is None else neginf, y)


@takes_out
def isposinf(input: Tensor) -> Tensor:
    """Where the value is inf."""
    return input == math.inf


@takes_out
def isneginf(input: Tensor) -> Tensor:
    """Where the value is -inf."""
    return input == -math.inf


def isreal(input: Tensor) -> Tensor:
    """Where the value is real: everywhere."""
    return input.new_ones(input.shape, dtype=_engine.bool)


@takes_out
def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees."""
    return _floating(input) * (180 / math.pi)


@takes_out
def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians."""
    return _floating(input) * (math.pi / 180)


def positive(input: Tensor) -> Tensor:
    """The tensor itself. TypeError for bool."""
    if input.dtype is _engine.bool:
        raise TypeError("positive: bool tensors have no sign; use .int()")
    return input


@takes_out
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """`clamp` from below."""
    return elementwise.clamp(input, min=min)


@takes_out
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """`clamp` from above."""
    return elementwise.clamp(input, max=max)


def true_divide(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """`div`."""
    return elementwise.div(input, other, out=out)


@takes_out
def angle(input: Tensor) -> Tensor:
    """The angle of a real number: pi below 0, else 0; NaN of NaN."""
    x = _floating(input)
    return where(elementwise.isnan(x), x, where(x < 0, math.pi, x.new_zeros(())))


def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor of the input's shape and dtype, of one value."""
    return elementwise.fill_(elementwise.clone(input), value)


def can_cast(from_: Any, to: Any) -> bool:
    """Whether a result of dtype `from_` may be written into a tensor of dtype `to`."""
    return not (from_.is_floating_point > to.is_floating_point or (to is _engine.bool and from_ is not _engine.bool))


def numel(input: Tensor) -> int:
    """How many elements there are."""
    return input.array.numel


def is_nonzero(input: Tensor) -> bool:
    """Whether the one element is not 0."""
    return bool(tensor("is_nonzero", input))


greater, greater_equal, less, less_equal, not_equal = (
    elementwise.gt, elementwise.ge, elementwise.lt, elementwise.le, elementwise.ne)
arccosh, arcsinh, arctanh, arctan2, fix, sgn = acosh, asinh, atanh, elementwise.atan2, elementary.trunc, elementary.sign
