"""Rows of the elementwise family: one, two and three arguments, comparisons, casts, copies."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import BOOL, FLOATS, INTS, NUMPY_DTYPE, dtype_of, quantize
from op_table.row import ELEMENTARY, EXACT, SHAPES, Bad, Row, Sample, Tolerance

ALL = (*FLOATS, *INTS, *BOOL)
NUMBERS = (*FLOATS, *INTS)
REALS = (*FLOATS, "int32", "int64", "uint8", "bool")  # integers become float32 in functions with real results
TERMS = Tolerance(2.0, reason="several roundings, each relative to the largest term")
LARGE = (7, 131, 257)


def special(dtype: str) -> np.ndarray:
    """Zeros of both signs, infinities, nan, ones, and the ends of the dtype's range."""
    info = {"float16": (6e-8, 6.2e-5, 65504.0), "bfloat16": (1e-40, 1.2e-38, 3.3e38)}
    info |= {"float32": (1e-44, 1.2e-38, 3.4e38), "float64": (5e-324, 2.3e-308, 1.7e308)}
    small, tiny, huge = info[dtype]
    return quantize([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, small, -small, tiny, -tiny, huge, -huge], dtype)


def real(fn):
    """A NumPy function of real results, which sees integers as float64."""
    return lambda x, *rest, **kw: fn(R.widened(x), *rest, **kw)


def unary(name, ref, low=-3.0, high=3.0, *, specials=True, args=({},), **fields) -> Row:
    grad_low, grad_high = fields.pop("grad_domain", (low, high))

    def samples(g):
        for kw in args:
            for shape in SHAPES:
                yield Sample(g.array(*shape, low=low, high=high), **kw)
            if specials and g.kind == "f":
                yield Sample(special(g.dtype), **kw)
            elif specials and g.kind in "iu":
                info = np.iinfo(NUMPY_DTYPE[g.dtype])
                yield Sample(np.array([info.min, info.max, 0, 1], info.dtype), **kw)

    def grad_samples(g):
        for kw in args:
            for shape in ((), (0,), (5,), (3, 43)):
                yield Sample(g.array(*shape, low=grad_low, high=grad_high), **kw)

    large = fields.pop("large", lambda g: Sample(g.array(*LARGE, low=low, high=high), **args[0]))
    fields.setdefault("slots", (name.rpartition(".")[2],))
    fields.setdefault("fn", name)
    return Row(name, ref=ref, samples=samples, grad_samples=grad_samples, large=large, **fields)


PAIRS = (
    ((), ()), ((0,), (1,)), ((1,), (3,)), ((127,), (127,)), ((128,), ()), ((129,), (129,)), ((3, 1), (1, 4)),
    ((2, 3, 33), (33,)), ((2, 1, 3), (5, 1)), ((2, 0, 3), (2, 1, 1)), ((4, 5), (1, 5)),
)  # fmt: skip


def mismatched(name):
    def call(g):
        dtype = tw.int64 if name.startswith("bitwise") else tw.float32
        return tw_fn(name)(tw.ones((2, 3), dtype=dtype), tw.ones((2, 4), dtype=dtype))

    return Bad("shapes", call, ValueError, r"\(2, 3\).*\(2, 4\)")


def tw_fn(name):
    return Row(name, name, None, None).resolve()


def binary(name, ref, low=-3.0, high=3.0, *, b=None, scalars=(2, 0.5), specials=True, args=({},), **fields) -> Row:
    """`b`: the second argument's range, where it differs (divisors that stay away from 0)."""
    b_low, b_high = b or (low, high)

    def pairs(g, shapes):
        for kw in args:
            for left, right in shapes:
                yield Sample(g.array(*left, low=low, high=high), g.array(*right, low=b_low, high=b_high), **kw)

    def samples(g):
        yield from pairs(g, PAIRS)
        for kw in args:
            for scalar in scalars:
                if g.kind == "f" or (g.kind in "iu" and isinstance(scalar, int)):
                    yield Sample(g.array(7, low=low, high=high), scalar, **kw)
            if specials and g.kind == "f":
                values = special(g.dtype)[:7]
                yield Sample(np.repeat(values, 7), np.tile(values, 7), **kw)
            elif specials and g.kind in "iu":
                info = np.iinfo(NUMPY_DTYPE[g.dtype])
                ends = np.array([info.min, info.max, 2, 1], info.dtype)
                yield Sample(np.repeat(ends, 4), np.tile(ends, 4), **kw)

    def grad_samples(g):
        yield from pairs(g, (((), ()), ((0,), (1,)), ((3, 1), (1, 4)), ((2, 3, 33), (33,)), ((2, 1, 3), (5, 1))))
        for scalar in scalars:
            yield Sample(g.array(7, low=low, high=high), scalar, **args[0])

    def large(g):
        left, right = g.array(*LARGE, low=low, high=high), g.array(LARGE[-1], low=b_low, high=b_high)
        return Sample(left, right, **args[0])

    fields.setdefault("slots", (name,))
    fields.setdefault("bad", (mismatched(name), *((float_only(name),) if name.startswith("bitwise") else ())))
    return Row(name, name, ref, samples, grad_samples=grad_samples, large=large, **fields)


def float_only(name):
    def call(g):
        return tw_fn(name)(tw.ones(3), tw.ones(3))

    return Bad("float32", call, TypeError, f"{name}.*float32")


def property_odd(name):
    def odd():
        x = tw.linspace(-1, 1, 101)
        assert bool((tw_fn(name)(-x) == -tw_fn(name)(x)).all())

    return odd


def integers_over_zero():
    """There is no integer for x / 0 and no check before a launch: quotient and remainder are 0, in every dtype."""
    for dtype in INTS:
        x, zero = tw.tensor([5, 0, 100], dtype=dtype_of(dtype)), tw.zeros(3, dtype=dtype_of(dtype))
        assert (x // zero).tolist() == (x % zero).tolist() == tw.fmod(x, zero).tolist() == [0, 0, 0]


UNARY = [
    unary("neg", np.negative, dtypes=NUMBERS, tol=EXACT),
    unary("abs", np.abs, dtypes=NUMBERS, tol=EXACT),
    unary("sign", lambda x: np.where(x == x, np.sign(x), 0).astype(x.dtype), dtypes=NUMBERS, tol=EXACT),
    unary("square", np.square, dtypes=NUMBERS),
    unary("reciprocal", real(np.reciprocal), dtypes=REALS[:-1], grad_domain=(0.5, 3)),
    unary("sqrt", real(np.sqrt), 0, 3, dtypes=REALS, grad_domain=(0.2, 3)),
    unary("rsqrt", real(lambda x: 1 / np.sqrt(x)), 0.05, 3, dtypes=REALS[:-1], grad_domain=(0.5, 3), tol=ELEMENTARY),
    unary("exp", real(np.exp), -10, 10, dtypes=REALS, grad_domain=(-3, 3), tol=ELEMENTARY),
    unary("exp2", real(np.exp2), -10, 10, dtypes=REALS, grad_domain=(-3, 3), tol=ELEMENTARY),
    unary("expm1", real(np.expm1), -10, 10, dtypes=REALS, grad_domain=(-3, 3), tol=ELEMENTARY),
    unary("log", real(np.log), 0, 20, dtypes=REALS, grad_domain=(0.3, 3), tol=ELEMENTARY),
    unary("log2", real(np.log2), 0, 20, dtypes=REALS, grad_domain=(0.3, 3), tol=ELEMENTARY),
    unary("log10", real(np.log10), 0, 20, dtypes=REALS, grad_domain=(0.3, 3), tol=ELEMENTARY),
    unary("log1p", real(np.log1p), -0.9, 20, dtypes=REALS, grad_domain=(-0.5, 3), tol=ELEMENTARY),
    unary("sin", real(np.sin), -100, 100, dtypes=REALS, specials=False, tol=ELEMENTARY,
          properties=(property_odd("sin"),)),
    unary("cos", real(np.cos), -100, 100, dtypes=REALS, specials=False, tol=ELEMENTARY),
    unary("tan", real(np.tan), -1.4, 1.4, dtypes=REALS, specials=False, tol=ELEMENTARY,
          properties=(property_odd("tan"),)),
    unary("asin", real(np.arcsin), -1, 1, dtypes=REALS, grad_domain=(-0.8, 0.8), tol=ELEMENTARY,
          properties=(property_odd("asin"),)),
    unary("acos", real(np.arccos), -1, 1, dtypes=REALS, grad_domain=(-0.8, 0.8), tol=ELEMENTARY),
    unary("atan", real(np.arctan), -20, 20, dtypes=REALS, tol=ELEMENTARY, properties=(property_odd("atan"),)),
    unary("sinh", real(np.sinh), -10, 10, dtypes=REALS, grad_domain=(-3, 3), tol=ELEMENTARY),
    unary("cosh", real(np.cosh), -10, 10, dtypes=REALS, grad_domain=(-3, 3), tol=ELEMENTARY),
    unary("tanh", real(np.tanh), -10, 10, dtypes=REALS, slots=("tanh", "tanh_backward"), grad_domain=(-3, 3),
          tol=ELEMENTARY, properties=(property_odd("tanh"),)),
    unary("sigmoid", real(R.sigmoid), -10, 10, dtypes=REALS, slots=("sigmoid", "sigmoid_backward"),
          grad_domain=(-3, 3), tol=ELEMENTARY),
    unary("erf", real(R.erf), dtypes=REALS, tol=ELEMENTARY, properties=(property_odd("erf"),)),
    unary("floor", np.floor, dtypes=NUMBERS, tol=EXACT),
    unary("ceil", np.ceil, dtypes=NUMBERS, tol=EXACT),
    unary("trunc", np.trunc, dtypes=NUMBERS, tol=EXACT),
    unary("round", np.round, dtypes=NUMBERS, tol=EXACT),
    unary("relu", R.relu, dtypes=NUMBERS, slots=("relu", "relu_backward"), tol=EXACT),
    unary("F.leaky_relu", R.leaky_relu, slots=("leaky_relu", "leaky_relu_backward"),
          args=({}, {"negative_slope": 0.2})),
    unary("F.elu", R.elu, slots=("elu", "elu_backward"), args=({}, {"alpha": 0.5}), tol=ELEMENTARY),
    unary("selu", R.selu, slots=("selu", "selu_backward"), fn="F.selu", tol=ELEMENTARY),
    unary("frac", lambda x: x - np.trunc(x), slots=(), dtypes=FLOATS, specials=False, tol=EXACT),
    unary("F.softplus", R.softplus, -8, 8, slots=("softplus", "softplus_backward"),
          args=({}, {"beta": 2.0, "threshold": 5.0}), tol=ELEMENTARY),
    unary("F.gelu", R.gelu, args=({}, {"approximate": "tanh"}), specials=False,
          slots=("gelu", "gelu_tanh", "gelu_backward", "gelu_tanh_backward"),
          magnitude=lambda x, **_: x / 2, tol=Tolerance(4.0, reason="1 + erf cancels for negative x")),
    unary("F.silu", lambda x: x * R.sigmoid(x), slots=("silu", "silu_backward"), specials=False, tol=ELEMENTARY),
    unary("clamp", R.clamp, dtypes=NUMBERS, tol=EXACT, args=({"min": 0, "max": 2}, {"min": 1}, {"max": 1})),
    unary("bitwise_not", np.invert, dtypes=(*INTS, *BOOL), grad=False, tol=EXACT),
    unary("logical_not", np.logical_not, dtypes=ALL, grad=False),
    unary("isnan", np.isnan, dtypes=FLOATS, grad=False),
    unary("isinf", np.isinf, dtypes=FLOATS, grad=False),
    unary("isfinite", np.isfinite, dtypes=FLOATS, grad=False),
]  # fmt: skip

AWAY = (0.5, 3.0)  # divisors
BINARY = [
    binary("add", lambda a, b, alpha=1: a + alpha * b if alpha != 1 else a + b, dtypes=NUMBERS,
           args=({}, {"alpha": 2}), magnitude=lambda a, b, alpha=1: np.abs(a) + np.abs(alpha * b)),
    binary("sub", lambda a, b, alpha=1: a - alpha * b if alpha != 1 else a - b, dtypes=NUMBERS,
           args=({}, {"alpha": 2}), magnitude=lambda a, b, alpha=1: np.abs(a) + np.abs(alpha * b)),
    binary("mul", np.multiply, dtypes=NUMBERS),
    binary("div", R.div, b=AWAY, dtypes=(*FLOATS, "int32", "int64", "uint8")),
    binary("floor_divide", np.floor_divide, b=(1, 3), specials=False, dtypes=NUMBERS, grad=False,
           properties=(integers_over_zero,)),
    binary("remainder", np.mod, b=(1, 3), specials=False, dtypes=NUMBERS, tol=TERMS),
    binary("fmod", np.fmod, b=(1, 3), specials=False, dtypes=NUMBERS, tol=EXACT),
    binary("pow", np.power, 0.2, 3, b=(-2, 3), scalars=(2, 3, 0.5, -1, 1, 0), specials=False, tol=ELEMENTARY),
    binary("atan2", np.arctan2, dtypes=FLOATS, scalars=(), tol=ELEMENTARY),
    binary("maximum", np.maximum, dtypes=ALL, scalars=(), tol=EXACT),
    binary("minimum", np.minimum, dtypes=ALL, scalars=(), tol=EXACT),
    binary("bitwise_and", np.bitwise_and, dtypes=(*INTS, *BOOL), grad=False, scalars=(6,)),
    binary("bitwise_or", np.bitwise_or, dtypes=(*INTS, *BOOL), grad=False, scalars=(6,)),
    binary("bitwise_xor", np.bitwise_xor, dtypes=(*INTS, *BOOL), grad=False, scalars=(6,)),
    binary("bitwise_left_shift", np.left_shift, b=(0, 6), specials=False, dtypes=INTS, grad=False, scalars=(3,)),
    binary("bitwise_right_shift", np.right_shift, -100, 100, b=(0, 6), specials=False, dtypes=INTS, grad=False,
           scalars=(3,)),
    *(binary(name, getattr(np, long), dtypes=ALL, grad=False, scalars=(1, 0.5)) for name, long in (
        ("eq", "equal"), ("ne", "not_equal"), ("lt", "less"), ("le", "less_equal"), ("gt", "greater"),
        ("ge", "greater_equal"))),
    *(binary(f"logical_{name}", getattr(np, f"logical_{name}"), dtypes=ALL, grad=False, scalars=())
      for name in ("and", "or", "xor")),
]  # fmt: skip


def int_pow(g):
    for shape in ((), (3,), (129,)):
        yield Sample(g.array(*shape), g.array(*shape, low=0, high=4))
    yield Sample(g.array(9), 3)


def rounding_modes(g):
    for mode in ("floor", "trunc"):
        for left, right in PAIRS:
            divisor = g.array(*right, low=1, high=3)
            yield Sample(g.array(*left, low=-30, high=30), divisor, rounding_mode=mode)
        if g.dtype != "uint8":
            yield Sample(g.array(9), -g.array(9, low=1, high=3), rounding_mode=mode)


def triples(g, last=True):
    for a, b, c in (((), (), ()), ((0,), (1,), (0,)), ((129,), (129,), (129,)), ((3, 1), (1, 4), (4,)),
                    ((2, 3, 33), (33,), (3, 1))):  # fmt: skip
        yield Sample(*(g.array(*shape, low=0.5) for shape in (a, b, c)))


def lerp_samples(g):
    yield from triples(g)
    for weight in (0.0, 0.25, 0.75, 1.0):
        yield Sample(g.array(33), g.array(33), weight)


def where_samples(g):
    for c, a, b in (((), (), ()), ((0,), (0,), (1,)), ((129,), (129,), (129,)), ((3, 1), (1, 4), (4,)),
                    ((2, 3, 33), (33,), (3, 1)), ((5,), (), (2, 1))):  # fmt: skip
        yield Sample(g.mask(*c), g.array(*a), g.array(*b))


def clamp_tensors(g):
    for a, b in (((), ()), ((129,), (129,)), ((3, 4), (4,))):
        low = g.array(*b, low=0, high=1)
        yield Sample(g.array(*a), min=low, max=quantize(low + np.asarray(1, low.dtype), g.dtype))


def close(a, b, rtol=1e-5, atol=1e-8, equal_nan=False):
    with np.errstate(invalid="ignore"):
        near = np.abs(R.widened(a) - R.widened(b)) <= atol + np.abs(rtol * R.widened(b))
    return (a == b) | (near & np.isfinite(a) & np.isfinite(b)) | (equal_nan & np.isnan(a) & np.isnan(b))


def close_samples(g):
    a = g.array(129)
    yield Sample(a, a)
    yield Sample(a, quantize(a * 1.000001, g.dtype))
    yield Sample(g.array(3, 1), g.array(4), atol=1.0, rtol=0.0)
    if g.kind == "f":
        x, y = special(g.dtype)[:7], special(g.dtype)[:7][::-1].copy()
        for equal_nan in (False, True):
            yield Sample(x, x, equal_nan=equal_nan)
            yield Sample(x, y, equal_nan=equal_nan)


def equality_of_wholes():
    x = tw.arange(0, 129, dtype=tw.float32)
    y = x.clone()
    assert tw.equal(x, y) is True and tw.allclose(x, y) is True
    y[128] = 128.0005
    assert tw.equal(x, y) is False and tw.allclose(x, y) is True
    y[128] = 129.0
    assert tw.allclose(x, y) is False and tw.equal(x, x[:5]) is False


def scaled(fn):
    return lambda x, a, b, value=1: x + value * fn(a, b)


def three(g):
    return Sample(*(g.array(*LARGE, low=0.5) for _ in range(3)))


TERNARY = [
    Row("pow_int", "pow", np.power, int_pow, INTS, EXACT, grad=False, slots=("pow",)),
    Row("div_rounding_mode", "div", R.div, rounding_modes, ("float32", "float64", *INTS), EXACT, grad=False),
    Row("lerp", "lerp", R.lerp, lerp_samples, tol=TERMS, slots=("lerp",), large=three,
        magnitude=lambda a, b, w: np.abs(a) + np.abs(np.multiply(w, b - a))),
    Row("addcmul", "addcmul", scaled(np.multiply), lambda g: (
        Sample(*s.args, value=v) for v in (1, 0.5) for s in triples(g)), tol=TERMS, slots=("addcmul",), large=three,
        magnitude=lambda x, a, b, value=1: np.abs(x) + np.abs(a * b)),
    Row("addcdiv", "addcdiv", scaled(np.divide), lambda g: (
        Sample(*s.args, value=v) for v in (1, 0.5) for s in triples(g)), tol=TERMS, slots=("addcdiv",), large=three,
        magnitude=lambda x, a, b, value=1: np.abs(x) + np.abs(a / b)),
    Row("where", "where", np.where, where_samples, ALL, EXACT, slots=("where",),
        large=lambda g: Sample(g.mask(*LARGE), g.array(*LARGE), g.array(LARGE[-1])),
        bad=(Bad("shapes", lambda g: tw.where(tw.ones((2,)) > 0, tw.ones((2, 3)), tw.ones((2, 3))),
                 ValueError, r"2.*3"),)),
    Row("rsub", "rsub", lambda a, b, alpha=1: b - alpha * a, lambda g: (
        Sample(g.array(*a), g.array(*b), **kw) for a, b in PAIRS for kw in ({}, {"alpha": 2})), NUMBERS,
        magnitude=lambda a, b, alpha=1: np.abs(a) * alpha + np.abs(b)),
    Row("isclose", "isclose", close, close_samples, ("float32", "float64", "int64"), EXACT, grad=False,
        ops=("allclose", "equal"), properties=(equality_of_wholes,)),
    Row("clamp_tensors", "clamp", R.clamp, clamp_tensors, NUMBERS, EXACT, grad=False),
    Row("clone", lambda x: x.clone(), lambda x: x, lambda g: (Sample(g.array(*s)) for s in SHAPES), ALL, EXACT,
        slots=("copy",), large=lambda g: Sample(g.array(*LARGE))),
    Row("contiguous", lambda x: x.contiguous(), lambda x: x, lambda g: (Sample(g.array(*s)) for s in SHAPES), ALL,
        EXACT),
]  # fmt: skip


def cast_to(target: str) -> Row:
    def ref(x):
        if target in FLOATS:
            return R.widened(x)
        return x != 0 if target == "bool" else np.trunc(x).astype(target) if x.dtype.kind == "f" else x.astype(target)

    def samples(g):
        low, high = (0, 120) if target == "uint8" else (-120, 120)
        for shape in ((), (0,), (3,), (127,), (129,), (3, 43)):
            yield Sample(g.array(*shape, low=low, high=high))
        if g.kind == "f" and target in FLOATS:
            yield Sample(special(g.dtype))
        if g.kind in "iu":
            info = np.iinfo(NUMPY_DTYPE[g.dtype])
            yield Sample(np.array([info.min, info.max], info.dtype))

    tol = Tolerance(1.0, reason="float64 to a half goes through float32, so it rounds twice")
    return Row(f"cast_{target}", lambda x: x.to(dtype_of(target)), ref, samples, ALL, tol, grad=False,
               out_dtype=target, slots=("copy",))  # fmt: skip


ROWS = UNARY + BINARY + TERNARY + [cast_to(target) for target in ALL]
