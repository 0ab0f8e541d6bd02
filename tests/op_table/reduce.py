"""Rows of the reductions: sums, means, extremes, and what is made of them, over any dims."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import BOOL, FLOATS, INTS
from op_table.row import EXACT, SUMS, Bad, Row, Sample, Tolerance

ALL = (*FLOATS, *INTS, *BOOL)
NUMBERS = (*FLOATS, *INTS)
VARIANCE = Tolerance(4.0, "array", "a sum of squares about a mean that is itself rounded", grad_ulps=64.0)
LARGE = (3, 41, 4099)

CASES = (
    ((), None), ((1,), 0), ((3,), None), ((127,), 0), ((128,), -1), ((129,), None), ((3, 5), 0), ((3, 5), 1),
    ((2, 3, 33), 1), ((2, 3, 33), (0, 2)), ((2, 3, 33), (-1, 0)), ((4, 1, 129), (0, 1, 2)), ((5, 200), -1),
    ((200, 5), 0),
)  # fmt: skip
EMPTY = (((0,), 0), ((0,), None), ((2, 0, 3), 1), ((2, 0, 3), 2), ((2, 0, 3), (0, 1)))


def over(cases, keepdims=(False, True), **extra):
    """Samples (x, dim=..., keepdim=...); without `dim` the whole array."""

    def samples(g):
        for shape, dim in cases:
            if dim is None:
                yield Sample(g.array(*shape), **extra)
            else:
                for keepdim in keepdims:
                    yield Sample(g.array(*shape), dim=dim, keepdim=keepdim, **extra)

    return samples


def single(cases=CASES):
    """For ops that take one dim: the cases with an integer."""
    return tuple(case for case in cases if isinstance(case[1], int))


def distinct(cases):
    """Extremes and their gradients need one winner, so values do not repeat; integers and bools do repeat."""

    def samples(g):
        for shape, dim in cases:
            x = g.distinct(*shape) if g.kind == "f" and np.prod(shape) < 200 else g.array(*shape)
            if dim is None:
                yield Sample(x)
            else:
                for keepdim in (False, True):
                    yield Sample(x, dim=dim, keepdim=keepdim)

    return samples


def with_nan(inner):
    def samples(g):
        yield from inner(g)
        if g.kind == "f":
            x = g.array(4, 33)
            x[1, 7], x[2, 32], x[3, 0] = np.nan, np.inf, -np.inf
            yield Sample(x, dim=1, keepdim=False)

    return samples


def large(**kwargs):
    return lambda g: Sample(g.array(*LARGE), **kwargs)


def bad_dim(call):
    return Bad("dim", call, IndexError, r"dim.*\b3\b|\b3\b")


def ones(*shape):
    return tw.ones(shape)


def axis_of(fn):
    """A NumPy reduction with the engine's keywords."""
    return lambda x, dim=None, keepdim=False: fn(x, axis=R.axes(dim), keepdims=keepdim)


def ties(g):
    yield from distinct(single())(g)
    yield from (Sample(g.array(*shape)) for shape in ((), (1,), (129,), (3, 5)))
    x = g.array(5, 64)
    x[:, 9], x[:, 40] = (1, 1) if g.dtype == "bool" else (5, 5)
    yield Sample(x, dim=1)


def sums_agree():
    """A sum over parts equals the sum over the whole, exactly where the arithmetic is exact."""
    x = tw.arange(3 * 41 * 129, dtype=tw.int64).reshape(3, 41, 129)
    n = x.numel()
    assert x.sum().item() == n * (n - 1) // 2 == x.sum((0, 2)).sum().item()


def long_sum_is_accurate():
    """A million equal terms, which bias every partial sum: at most twice the error of NumPy's pairwise float32 sum."""
    x = np.full(1_000_003, 0.1, np.float32)
    exact = x.sum(dtype=np.float64)
    plain = abs(float(x.sum()) - exact)
    assert abs(tw.tensor(x).sum().item() - exact) <= 2 * plain + np.spacing(np.float32(exact))


def var_of_constant_is_zero():
    """The deviations are those of the rounded mean at most: two ulp of it, squared."""
    x = tw.full((1001,), 12345.678)
    assert x.var().item() <= (2 * float(np.spacing(np.float32(12345.678)))) ** 2


ROWS = [
    Row("sum", "sum", R.total, with_nan(over((*CASES, *EMPTY))), ALL, SUMS, slots=("sum",), large=large(),
        magnitude=lambda x, **k: R.total(np.abs(x), **k), properties=(sums_agree, long_sum_is_accurate),
        grad_samples=over((*CASES, *EMPTY)),
        bad=(bad_dim(lambda g: ones(2, 3).sum(3)),
             Bad("repeated", lambda g: ones(2, 3).sum((1, -1)), ValueError, "dim"))),
    Row("sum_rows", "sum", R.total, over((((3, 5), 1),), (False,)), FLOATS, SUMS,
        large=large(dim=2), magnitude=lambda x, **k: R.total(np.abs(x), **k)),
    Row("sum_columns", "sum", R.total, over((((3, 5), 0),), (False,)), FLOATS, SUMS,
        large=lambda g: Sample(g.array(4099, 121), dim=0), magnitude=lambda x, **k: R.total(np.abs(x), **k)),
    Row("mean", "mean", R.mean, over((*CASES, ((0,), None), ((2, 0, 3), 2))), FLOATS, SUMS, large=large(dim=(0, 2)),
        grad_samples=over(CASES), magnitude=lambda x, **k: R.mean(np.abs(x), **k),
        bad=(Bad("integers", lambda g: tw.ones(3, dtype=tw.int64).mean(), TypeError, "int64|Long"),)),
    Row("prod", "prod", R.prod, over(tuple(c for c in (*single(), *single(EMPTY), ((3,), None), ((), None)) if
                                          np.prod(c[0]) < 150)), ("float32", "float64", *INTS),
        Tolerance(8.0, "array", "up to 129 roundings, each relative to the product", grad_ulps=64.0), slots=("prod",),
        large=lambda g: Sample(g.array(*LARGE, low=0.99, high=1.01), dim=1)),
    Row("amax", "amax", axis_of(np.max), with_nan(distinct(CASES)), ALL, EXACT, slots=("amax",), large=large(dim=2),
        grad_samples=distinct(CASES),
        bad=(Bad("empty", lambda g: ones(2, 0).amax(1), (ValueError, IndexError), "amax.*(0|empty)"),)),
    Row("amin", "amin", axis_of(np.min), with_nan(distinct(CASES)), ALL, EXACT, slots=("amin",), large=large(dim=0),
        grad_samples=distinct(CASES)),
    Row("max", "max", axis_of(np.max), lambda g: (Sample(g.distinct(*s)) for s in ((), (1,), (129,), (3, 5))), ALL,
        EXACT, large=large(),
        bad=(Bad("empty", lambda g: ones(0).max(), ValueError, "max.*(0|empty)"),)),
    Row("min", "min", axis_of(np.min), lambda g: (Sample(g.distinct(*s)) for s in ((), (1,), (129,), (3, 5))), ALL,
        EXACT, large=large()),
    Row("max_dim", lambda x, **k: tuple(tw.max(x, **k)), R.max_dim, distinct(single()), NUMBERS, EXACT,
        slots=("argmax",), large=large(dim=1)),
    Row("min_dim", lambda x, **k: tuple(tw.min(x, **k)), R.min_dim, distinct(single()), NUMBERS, EXACT,
        slots=("argmin",), large=large(dim=1)),
    Row("argmax", "argmax", axis_of(np.argmax), with_nan(ties), NUMBERS, grad=False, slots=("argmax",),
        large=large(dim=2), bad=(bad_dim(lambda g: ones(2, 3).argmax(3)),
                                 Bad("empty", lambda g: ones(0).argmax(), (ValueError, IndexError),
                                     "argmax.*(0|empty|non-zero)"))),
    Row("argmin", "argmin", axis_of(np.argmin), with_nan(ties), NUMBERS, grad=False, slots=("argmin",),
        large=large(dim=0)),
    Row("any", "any", axis_of(np.any), over((*single(), *single(EMPTY), ((129,), None), ((), None))), ALL, grad=False,
        slots=("any",), large=lambda g: Sample(g.array(*LARGE) * 0, dim=1)),
    Row("all", "all", axis_of(np.all), over((*single(), *single(EMPTY), ((129,), None), ((), None))), ALL, grad=False,
        slots=("all",), large=large(dim=1)),
    Row("var", "var", R.var, lambda g: (s for c in (0, 1) for s in over(
        tuple(case for case in CASES if np.prod(case[0]) > 1), correction=c)(g)), FLOATS, VARIANCE, slots=("var",),
        large=large(dim=(0, 2)), properties=(var_of_constant_is_zero,),
        magnitude=lambda x, **k: np.mean(x * x)),
    Row("std", "std", R.std, lambda g: (s for c in (0, 1) for s in over(
        (((129,), 0), ((3, 5), 1), ((2, 3, 33), (0, 2)), ((5, 200), -1), ((33,), None)), correction=c)(g)), FLOATS,
        VARIANCE, large=large(dim=1)),
    Row("logsumexp", "logsumexp", R.logsumexp, over(tuple(c for c in CASES if c[1] is not None)), FLOATS,
        Tolerance(4.0, "array", "exp, sum and log of a few ulp each"), large=large(dim=1)),
]  # fmt: skip
