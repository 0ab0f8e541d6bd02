"""Arithmetic, comparisons, choice, casts and copies, element by element, with broadcasting and promotion.

Every function takes Tensors (and, where there are two operands, Python numbers in either place), of shapes that
broadcast; the result's dtype follows PyTorch's promotion. Formulas are in `csrc/kernels/functors.h`, accuracy in
`csrc/kernels/cpu/vec_math.h`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tilewright import _engine, autograd
from tilewright.arguments import NUMBER, direct, operand, run, takes_out, tensor, wants, write
from tilewright.autograd import inplace, record, wrap

if TYPE_CHECKING:
    from tilewright.tensor import Tensor

F = TypeVar("F", bound=Callable)


def in_float32(op: F) -> F:
    """Decorator for ops made of other ops: with half-precision tensors they compute in float32 and round once."""

    @functools.wraps(op)
    def wrapped(*args, **kwargs):
        values = [v for v in (*args, *kwargs.values()) if isinstance(v, autograd.Tensor) and v.array.is_float]
        dtype = values[0].array.dtype if values else None
        if dtype not in (_engine.float16, _engine.bfloat16) or any(v.array.dtype is not dtype for v in values):
            return op(*args, **kwargs)

        def up(v):
            return cast(v, _engine.float32) if isinstance(v, autograd.Tensor) and v.array.is_float else v

        return cast(op(*map(up, args), **{k: up(v) for k, v in kwargs.items()}), dtype)

    return wrapped  # type: ignore[return-value]


def _values(node):
    """The two operands of a binary node: saved Tensors or Python numbers."""
    (x, y), (xn, yn) = node.saved, node.attrs[:2]
    return (xn if x is None else x), (yn if y is None else y)


# --- arithmetic ------------------------------------------------------------------------------------------------------
@direct()
def add(input: Tensor, other: Tensor | float, *, alpha: float = 1, out: Tensor | None = None) -> Tensor:
    """input + alpha * other.

    >>> import tilewright as tw
    >>> tw.add(tw.tensor([1.0, 2.0]), 10).tolist()
    [11.0, 12.0]
    """
    return run(add, input, other if alpha == 1 else _scaled(other, alpha), out=out)


def _scaled(other, alpha):
    return mul(other, alpha) if isinstance(other, autograd.Tensor) else other * alpha


def add_grad(node, dy):
    return dy, dy


@direct()
def sub(input: Any, other: Tensor | float, *, alpha: float = 1, out: Tensor | None = None) -> Tensor:
    """input - alpha * other. Bool tensors are refused, as in PyTorch."""
    if all(isinstance(v, autograd.Tensor) and v.array.dtype is _engine.bool for v in (input, other)):
        raise TypeError("sub: two bool tensors cannot be subtracted; use logical_xor (^), or logical_not for 1 - x")
    return run(sub, input, other if alpha == 1 else _scaled(other, alpha), out=out)


def sub_grad(node, dy):
    return dy, -dy if node.needs[1] else None


def rsub(input: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    """other - alpha * input."""
    return sub(other, input, alpha=alpha)


@direct("others")
def mul(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input * other.

    >>> import tilewright as tw
    >>> (tw.tensor([[1], [2]]) * tw.tensor([3, 4])).tolist()
    [[3, 4], [6, 8]]
    """
    return run(mul, input, other, out=out)


def mul_grad(node, dy):
    x, y = _values(node)
    return dy * y if node.needs[0] else None, dy * x if node.needs[1] else None


@direct("divisor")
def div(input: Tensor, other: Tensor | float, *, rounding_mode: Any = None, out: Tensor | None = None) -> Tensor:
    """input / other (integers give the default float dtype); `rounding_mode` "floor" or "trunc" rounds the quotient.

    Raises:
        ValueError: another rounding mode.
    """
    if rounding_mode == "floor":
        y = floor_divide(input, other, out=out)
        return y if out is not None else record(div_floor_grad, y.array, (operand("div", input)[0],
                                                                          operand("div", other)[0]))
    if rounding_mode == "trunc":
        (x, xa), (_, ya) = operand("div", input), operand("div", other)
        if not _engine.result_type(xa, ya).is_floating_point:
            return floor_divide(sub(x if x is not NUMBER else xa, fmod(input, other)), other, out=out)
        return div(input, other).trunc(out=out)
    if rounding_mode is not None:
        raise ValueError(f"div: rounding_mode must be None, 'trunc' or 'floor', got {rounding_mode!r}")
    return run(div, input, other, out=out)


def div_floor_grad(node, dy):
    return dy * 0.0, dy * 0.0


def div_grad(node, dy):
    x, y = _values(node)
    dx = dy / y
    return dx, -dx * (x / y) if node.needs[1] else None


@direct("none")
def floor_divide(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """floor(input / other); of integers too (a zero divisor gives 0 there)."""
    return run(floor_divide, input, other, out=out)


@direct("inputs")
def remainder(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input - floor(input / other) * other: the sign is the divisor's, as Python's %."""
    return run(remainder, input, other, out=out)


def remainder_grad(node, dy):
    x, y = _values(node)
    return dy, -dy * floor_divide(x, y) if node.needs[1] else None


@direct("inputs")
def fmod(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input - trunc(input / other) * other: the sign is the dividend's, as C's fmod."""
    return run(fmod, input, other, out=out)


def fmod_grad(node, dy):
    x, y = _values(node)
    return dy, -dy * div(x, y).trunc() if node.needs[1] else None


@direct("inputs", numbers=False)
def pow(input: Tensor, exponent: Any, *, out: Tensor | None = None) -> Tensor:
    """input ** exponent. Integers to a negative integer power are refused, as in PyTorch.

    Raises:
        ValueError: an integer tensor with a negative integer exponent.
    """
    if isinstance(exponent, int | float) and isinstance(input, autograd.Tensor):
        if exponent == 2:
            return input.square(out=out)
        if exponent == 1 and out is None:
            return input.clone()
        if exponent == 0.5 and input.array.is_float:
            return input.sqrt(out=out)
        if exponent < 0 and isinstance(exponent, int) and not input.array.is_float:
            raise ValueError(f"pow: integers cannot be raised to a negative integer power, got {exponent}")
    return run(pow, input, exponent, out=out)


def pow_grad(node, dy):
    x, y = _values(node)
    dx = dexp = None
    if node.needs[0]:
        dx = dy * (y * pow(x, y - 1)) if isinstance(y, int | float) else dy * where(y == 0, 0.0, y * pow(x, y - 1))
        if isinstance(y, int | float) and y == 0:
            dx = dy * 0.0
    if node.needs[1]:
        # d/dy x^y = x^y log x, which is 0 (not NaN) where x is 0 and y is not negative
        power = pow(x, y)
        if isinstance(x, int | float):
            dexp = dy * power * (math.log(x) if x > 0 else (0.0 if x == 0 else math.nan))
        else:
            dexp = dy * where(logical_and(x == 0, y >= 0), 0.0, power * x.log())
    return dx, dexp


@direct("inputs")
def maximum(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """The larger of each pair; NaN if either is. The gradient goes to the larger, half to each of equals."""
    return run(maximum, input, other, out=out)


@direct("inputs")
def minimum(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """The smaller of each pair; NaN if either is. The gradient goes to the smaller, half to each of equals."""
    return run(minimum, input, other, out=out)


def _extremum_grad(node, dy, better):
    x, y = _values(node)
    half = dy * 0.5
    tie = eq(x, y)
    return tuple(where(tie, half, where(better(p, q), dy, 0.0)) if need else None
                 for (p, q), need in zip(((x, y), (y, x)), node.needs, strict=True))


def maximum_grad(node, dy):
    return _extremum_grad(node, dy, gt)


def minimum_grad(node, dy):
    return _extremum_grad(node, dy, lt)


@direct("inputs")
def atan2(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """The angle of the point (other, input), in (-pi, pi]."""
    return run(atan2, input, other, out=out)


def atan2_grad(node, dy):
    y, x = _values(node)
    scale = dy / (x * x + y * y)
    return scale * x if node.needs[0] else None, -scale * y if node.needs[1] else None


# --- comparisons and logic: bool results, no gradient ----------------------------------------------------------------
@direct("none")
def eq(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input == other, element by element."""
    return run(eq, input, other, out=out)


@direct("none")
def ne(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input != other, element by element."""
    return run(ne, input, other, out=out)


@direct("none")
def lt(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input < other, element by element."""
    return run(lt, input, other, out=out)


@direct("none")
def le(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input <= other, element by element."""
    return run(le, input, other, out=out)


@direct("none")
def gt(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input > other, element by element."""
    return run(gt, input, other, out=out)


@direct("none")
def ge(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input >= other, element by element."""
    return run(ge, input, other, out=out)


@direct("none")
def logical_and(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """Both non-zero."""
    return run(logical_and, input, other, out=out)


@direct("none")
def logical_or(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """Either non-zero."""
    return run(logical_or, input, other, out=out)


@direct("none")
def logical_xor(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """Exactly one non-zero."""
    return run(logical_xor, input, other, out=out)


@direct("none")
def logical_not(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Zero."""
    return run(logical_not, tensor("logical_not", input), out=out)


@direct("none")
def bitwise_and(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """Bits in both; of bools, the logical and."""
    return run(bitwise_and, input, other, out=out)


@direct("none")
def bitwise_or(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """Bits in either; of bools, the logical or."""
    return run(bitwise_or, input, other, out=out)


@direct("none")
def bitwise_xor(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """Bits in exactly one; of bools, the logical exclusive or."""
    return run(bitwise_xor, input, other, out=out)


@direct("none")
def bitwise_left_shift(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input * 2 ** other, integers."""
    return run(bitwise_left_shift, input, other, out=out)


@direct("none")
def bitwise_right_shift(input: Tensor, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """input >> other, integers, with the sign."""
    return run(bitwise_right_shift, input, other, out=out)


@direct("none")
def bitwise_not(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """All bits flipped; of bools, the logical not."""
    x = tensor("bitwise_not", input)
    return run(logical_not if x.array.dtype is _engine.bool else bitwise_not, x, out=out)


@direct("none")
def isnan(input: Tensor) -> Tensor:
    """Where the value is not a number."""
    return run(isnan, tensor("isnan", input))


@direct("none")
def isinf(input: Tensor) -> Tensor:
    """Where the value is infinite, of either sign."""
    return run(isinf, tensor("isinf", input))


@direct("none")
def isfinite(input: Tensor) -> Tensor:
    """Where the value is neither NaN nor infinite."""
    return run(isfinite, tensor("isfinite", input))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """|input - other| <= atol + rtol * |other|, or equal (infinities); NaNs equal each other when `equal_nan`."""
    input, other = tensor("isclose", input), tensor("isclose", other)
    if rtol < 0 or atol < 0:
        raise ValueError(f"isclose: rtol and atol must not be negative, got {rtol} and {atol}")
    close = eq(input, other)
    if _engine.result_type(input.array, other.array) is not _engine.bool:
        close = logical_or(close, logical_and(isfinite(other), le(abs(input - other), atol + rtol * abs(other))))
    return logical_or(close, logical_and(isnan(input), isnan(other))) if equal_nan else close


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether every pair is close in the sense of `isclose`."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether the tensors have one shape and equal elements."""
    return input.array.shape == other.array.shape and bool(eq(input, other).all())


# --- choice ----------------------------------------------------------------------------------------------------------
def where(condition: Tensor, input: Any = None, other: Any = None, *, out: Tensor | None = None) -> Any:
    """input where the condition holds, other elsewhere; with the condition alone, `nonzero(as_tuple=True)`.

    Raises:
        TypeError: the condition is not bool.
    """
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    (x, xa), (y, ya) = operand("where", input), operand("where", other)
    if out is not None:
        def into(to):
            if to is None or to.dtype is _engine.result_type(xa, ya):
                return _engine.where(condition.array, xa, ya, to)
            return _engine.add_out(_engine.where(condition.array, xa, ya), 0, to)  # with the checks of every `out=`

        return write("where", into, (x, y), out)
    return record(where_grad, _engine.where(condition.array, xa, ya), (x, y), (condition,))


def where_grad(node, dy):
    (c,) = node.saved
    return where(c, dy, 0.0) if node.needs[0] else None, where(c, 0.0, dy) if node.needs[1] else None


def clamp(input: Tensor, min: Any = None, max: Any = None, *, out: Tensor | None = None) -> Tensor:
    """Each element moved into [min, max]; NaN stays NaN. Bounds are numbers or Tensors, either may be None.

    The gradient is 1 inside the bounds (ends included) and 0 outside.

    Raises:
        ValueError: neither bound is given.
    """
    if min is None and max is None:
        raise ValueError("clamp: at least one of min and max must be given")
    if isinstance(min, autograd.Tensor) or isinstance(max, autograd.Tensor) or not input.array.is_float:
        y = input if min is None else maximum(input, min, out=out)
        return y if max is None else minimum(y, max, out=out)
    lo, hi = (-math.inf if min is None else min), (math.inf if max is None else max)
    if out is not None:
        return write("clamp", lambda to: _engine.clamp(input.array, lo, hi) if to is None else
                     _engine.clamp_out(input.array, to, lo, hi), (input,), out)
    return record(clamp_grad, _engine.clamp(input.array, lo, hi), (input,), (input,), (lo, hi))


def clamp_grad(node, dy):
    (x,), (lo, hi) = node.saved, node.attrs
    return (where(logical_and(ge(x, lo), le(x, hi)), dy, 0.0),)


# --- three operands --------------------------------------------------------------------------------------------------
@takes_out
def lerp(input: Tensor, end: Any, weight: Tensor | float) -> Tensor:
    """input + weight * (end - input)."""
    (x, xa), (e, ea), (w, wa) = (operand("lerp", v) for v in (input, end, weight))
    saved = (x, e, w) if w is not NUMBER and wants(w) else (None, None, None if w is NUMBER else w)
    return record(lerp_grad, _engine.lerp(xa, ea, wa, 0.0), (x, e, w), saved, (wa if w is NUMBER else None,))


def lerp_grad(node, dy):
    (x, e, w), (number,) = node.saved, node.attrs
    w = number if w is None else w
    return (dy * (1 - w) if node.needs[0] else None, dy * w if node.needs[1] else None,
            dy * (e - x) if node.needs[2] else None)


@takes_out
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    y = _engine.addcmul(input.array, tensor1.array, tensor2.array, float(value))
    return record(addcmul_grad, y, (input, tensor1, tensor2), (tensor1, tensor2), (value,))


def addcmul_grad(node, dy):
    (a, b), (value,) = node.saved, node.attrs
    return (dy, dy * b * value if node.needs[1] else None, dy * a * value if node.needs[2] else None)


@takes_out
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    y = _engine.addcdiv(input.array, tensor1.array, tensor2.array, float(value))
    return record(addcdiv_grad, y, (input, tensor1, tensor2), (tensor1, tensor2), (value,))


def addcdiv_grad(node, dy):
    (a, b), (value,) = node.saved, node.attrs
    return (dy, dy / b * value if node.needs[1] else None, -dy * a / (b * b) * value if node.needs[2] else None)


# --- casts and copies ------------------------------------------------------------------------------------------------
def cast(input: Tensor, dtype: Any) -> Tensor:
    """The tensor in another dtype (itself when it has it already): floats to integers truncate, to bool is != 0."""
    return input if input.array.dtype is dtype else record(cast_grad, _engine.cast(input.array, dtype), (input,))


def cast_grad(node, dy):
    return (dy,)  # the tape casts it to the input's dtype


def to_device(input: Tensor, device: Any, non_blocking: bool = False) -> Tensor:
    """The tensor on a device: itself when it is there already, else a row-major copy.

    non_blocking: the copy is made in the order of the device's stream, while the program goes on. From a device, the
    result is in pinned memory, to be read after `cuda.synchronize()` or an event; to a device it needs a pinned tensor
    (`pin_memory()`), for other memory has been read when the call returns.
    """
    if input.device == device:
        return input
    return record(to_device_grad, _engine.to_device(input.array, device, non_blocking), (input,), attrs=(input.device,))


def to_device_grad(node, dy):
    return (to_device(dy, node.attrs[0]),)


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy with memory of its own, in row-major order (or channels last), through which gradients flow."""
    if memory_format is not None:
        from tilewright.ops import arrange
        return arrange.laid_out(input, memory_format, copy=True)
    return record(clone_grad, _engine.clone(input.array), (input,))


def clone_grad(node, dy):
    return (dy,)


def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor in row-major order, or with channels last: itself when it is already, else a copy."""
    if memory_format is not None:
        from tilewright.ops import arrange
        return arrange.laid_out(input, memory_format)
    return input if input.array.is_contiguous else clone(input)


# --- in place --------------------------------------------------------------------------------------------------------
def _before(x):
    """A copy of x as it is before an in-place op, with its history, for the gradient that needs the old value."""
    if x._base is not None and x._view_version != x.array.version:
        autograd.refresh_view(x)
    old = wrap(_engine.clone(x.array))
    old.requires_grad, old.node, old.slot = x.requires_grad, x.node, x.slot
    return old


def _binary_(kernel, rule, x, other):
    """x = kernel(x, other) in place; the operand that only the other's gradient needs is saved only then."""
    y, ya = operand(kernel.__name__, other)
    saved = (_before(x) if wants(y) else None, None if y is NUMBER else y)
    return inplace(rule, x, lambda: kernel(x.array, ya, x.array), (x, y), saved, (None, ya if y is NUMBER else None))


def add_(input: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    """input += alpha * other."""
    if alpha != 1:
        other = mul(other, alpha) if isinstance(other, autograd.Tensor) else other * alpha
    y, ya = operand("add_", other)
    return inplace(add_grad, input, lambda: _engine.add_out(input.array, ya, input.array), (input, y))


def sub_(input: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    """input -= alpha * other."""
    if alpha != 1:
        other = mul(other, alpha) if isinstance(other, autograd.Tensor) else other * alpha
    y, ya = operand("sub_", other)
    return inplace(sub_grad, input, lambda: _engine.sub_out(input.array, ya, input.array), (input, y))


def mul_(input: Tensor, other: Tensor | float) -> Tensor:
    """input *= other."""
    return _binary_(_engine.mul_out, mul_grad, input, other)


def div_(input: Tensor, other: Tensor | float, *, rounding_mode: Any = None) -> Tensor:
    """input /= other, rounded as `div` does."""
    if rounding_mode is not None:
        return _updated("div_", input, div(_before(input), other, rounding_mode=rounding_mode))
    return _binary_(_engine.div_out, div_grad, input, other)


def pow_(input: Tensor, exponent: Any) -> Tensor:
    """input **= exponent."""
    y, ya = operand("pow_", exponent)
    saved, numbers = (_before(input), None if y is NUMBER else y), (None, ya if y is NUMBER else None)
    return inplace(pow_grad, input, lambda: _engine.pow_out(input.array, ya, input.array), (input, y), saved, numbers)


def lerp_(input: Tensor, end: Any, weight: Tensor | float) -> Tensor:
    """input += weight * (end - input)."""
    old = _before(input) if isinstance(weight, autograd.Tensor) and wants(weight) else input
    return copy_(input, lerp(old, end, weight))


def addcmul_(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input += value * tensor1 * tensor2."""
    def write():
        _engine.addcmul_out(input.array, tensor1.array, tensor2.array, input.array, float(value))

    return inplace(addcmul_grad, input, write, (input, tensor1, tensor2), (tensor1, tensor2), (value,))


def addcdiv_(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input += value * tensor1 / tensor2."""
    def write():
        _engine.addcdiv_out(input.array, tensor1.array, tensor2.array, input.array, float(value))

    return inplace(addcdiv_grad, input, write, (input, tensor1, tensor2), (tensor1, tensor2), (value,))


def _updated(op, x, y):
    """x with the values of y, which were computed from `_before(x)`: y's shape and kind of dtype must be x's."""
    if y.array.shape != x.array.shape:
        raise ValueError(f"{op}: the result's shape must be the input's, got {y.array.shape} for {x.array.shape}")
    if y.array.is_float > x.array.is_float or (x.array.dtype is _engine.bool and y.array.dtype is not _engine.bool):
        raise TypeError(f"{op}: a result of {y.array.dtype.name} cannot be written into {x.array.dtype.name}")
    return copy_(x, y)


def _unary_(kernel, rule, x, saved=(), attrs=(), p0=0.0, p1=0.0):
    return inplace(rule, x, lambda: kernel(x.array, x.array, p0, p1), (x,), saved, attrs)


def clamp_(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Moves each element into [min, max]."""
    if not input.array.is_float or isinstance(min, autograd.Tensor) or isinstance(max, autograd.Tensor):
        return _updated("clamp_", input, clamp(_before(input), min, max))
    if min is None and max is None:
        raise ValueError("clamp_: at least one of min and max must be given")
    lo, hi = (-math.inf if min is None else min), (math.inf if max is None else max)
    return _unary_(_engine.clamp_out, clamp_grad, input, (_before(input),), (lo, hi), lo, hi)


def copy_(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Copies src, broadcast and cast, into input's memory. non_blocking: to a device, as `to_device` says."""
    src = tensor("copy_", src)
    if non_blocking and input.is_cuda:
        src = to_device(src, input.device, True)
    return inplace(copy__grad, input, lambda: _engine.copy_into(input.array, src.array), (input, src))


def copy__grad(node, dy):
    return None, dy


def fill_(input: Tensor, value: Any) -> Tensor:
    """Sets every element to a number (or to a 0-d tensor's value)."""
    if isinstance(value, autograd.Tensor):
        return copy_(input, value)
    return inplace(fill__grad, input, lambda: _engine.fill(input.array, value), (input,))


def fill__grad(node, dy):
    return (None,)


def zero_(input: Tensor) -> Tensor:
    """Sets every element to 0."""
    return fill_(input, 0)
