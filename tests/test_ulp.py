"""The largest error of the elementary functions, in units in the last place, against mpmath and long double.

Each function is measured on every float16 and bfloat16 pattern of its domain, on a dense sample of float32 (all
exponents, plus the neighbourhood of every power of two and of the function's own critical points), and on a smaller
sample of float64. The bounds are the figures of csrc/kernels/cpu/vec_math.h, rounded up.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

import tilewright as tw
from arrays import quantize, spacing, to_np, to_tw
from references import erf as erf64
from references import sigmoid

# name: (reference, domain, points of interest, the bound in ulp for float32, the same for float64)
CASES = {
    "exp": (np.exp, (-104.0, 88.8), (0.0, math.log(2), -math.log(2)), 1.0, 1.0),
    "exp2": (np.exp2, (-150.0, 128.0), (0.0, 0.5, 1.0), 1.25, 1.2),
    "expm1": (np.expm1, (-50.0, 88.8), (0.0, math.log(2), -math.log(2)), 1.55, 2.1),
    "log": (np.log, (0.0, 3.4e38), (1.0, math.e, 2.0, 0.5), 0.95, 0.85),
    "log2": (np.log2, (0.0, 3.4e38), (1.0, 2.0, 0.5), 1.85, 1.5),
    "log10": (np.log10, (0.0, 3.4e38), (1.0, 10.0, 0.1), 1.9, 1.8),
    "log1p": (np.log1p, (-1.0, 3.4e38), (0.0, -0.5, 1.0), 0.95, 0.85),
    "sin": (np.sin, (-1e4, 1e4), (0.0, math.pi, math.pi / 2, 355.0, 710.0), 1.6, 1.6),
    "cos": (np.cos, (-1e4, 1e4), (0.0, math.pi, math.pi / 2, 355.0, 710.0), 1.6, 1.6),
    "tan": (np.tan, (-1e4, 1e4), (0.0, math.pi, math.pi / 2, 355.0), 3.7, 3.5),
    "asin": (np.arcsin, (-1.0, 1.0), (0.0, 0.5, 1.0), 2.4, 2.3),
    "acos": (np.arccos, (-1.0, 1.0), (0.0, 0.5, 1.0), 2.25, 2.1),
    "atan": (np.arctan, (-1e30, 1e30), (0.0, 0.4375, 1.0, 2.4375), 1.5, 1.75),
    "sinh": (np.sinh, (-89.0, 89.0), (0.0, 1.0), 1.65, 1.65),
    "cosh": (np.cosh, (-89.0, 89.0), (0.0, 1.0), 1.45, 1.4),
    "tanh": (np.tanh, (-20.0, 20.0), (0.0, 0.5, 1.0), 1.45, 2.7),
    "sigmoid": (sigmoid, (-100.0, 100.0), (0.0, 1.0), 1.9, 1.9),
    "erf": (erf64, (-6.0, 6.0), (0.0, 0.5, 0.84375, 1.0, 1.25, 4.0), 1.2, 1.25),
    "rsqrt": (lambda x: 1 / np.sqrt(x), (0.0, 3.4e38), (1.0, 4.0), 2.0, 2.0),
    "sqrt": (np.sqrt, (0.0, 3.4e38), (1.0, 2.0), 0.5, 0.5),
}
HUGE = ("sin", "cos", "tan")


def points(low: float, high: float, special: tuple, dtype: str, count: int) -> np.ndarray:
    """Values spread over the exponents and linearly, and the 64 nearest neighbours of each special point."""
    rng = np.random.default_rng(9)
    kind = np.float64 if dtype == "float64" else np.float32
    linear = rng.uniform(max(low, -1e3), min(high, 1e3), count)
    top = math.log2(max(abs(low), high))
    spread = 2.0 ** rng.uniform(-40, top, count) * rng.choice([-1, 1], count)
    near = [np.linspace(low, high, 17)]
    for s in (*special, *(2.0**k for k in range(-10, 10))):
        step = np.spacing(kind(s)) * np.arange(-32, 33)
        near += [s + step, -(s + step)]
    x = np.concatenate([linear, spread, *near]).astype(kind)
    return x[(x >= low) & (x <= high)]


def every_half(dtype: str, low: float, high: float) -> np.ndarray:
    raw = np.arange(1 << 16, dtype=np.uint16)
    wide = raw.view(np.float16) if dtype == "float16" else (raw.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return wide[(wide >= low) & (wide <= high)]


def error_in_ulp(got: np.ndarray, exact: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(exact.dtype) - exact) / spacing(exact, dtype)
    same = (got == quantize(exact, dtype)) | (np.isnan(got) & np.isnan(exact))
    return np.where(same, np.minimum(np.nan_to_num(error, nan=0.0, posinf=0.0), 0.5), error).astype(np.float64)


def measured(name: str, x: np.ndarray, dtype: str, exact: np.ndarray) -> tuple[float, float]:
    """The largest error and where it is."""
    error = error_in_ulp(to_np(getattr(tw, name)(to_tw(x, dtype))), exact, dtype)
    worst = int(np.argmax(error))
    return float(error[worst]), float(x[worst])


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
    ref, (low, high), special, bound, _ = CASES[name]
    x = points(low, high, special, "float32", 100_000)
    with np.errstate(all="ignore"):
        worst, at = measured(name, x, "float32", ref(x.astype(np.float64)))
    print(f"{name} float32: {worst:.2f} ulp at {at!r}")  # shown by pytest -rP
    assert worst <= bound, f"{name}({at!r}) is off by {worst:.2f} ulp"


@pytest.mark.parametrize("name", CASES)
def test_float64(name):
    ref, (low, high), special, _, bound = CASES[name]
    x = points(low, high, special, "float64", 10_000)
    with np.errstate(all="ignore"):
        if name == "erf":  # NumPy has none, and mpmath is slow
            x = x[:: max(len(x) // 800, 1)]
            exact = exact_by_mpmath(mpmath.erf, x)
        else:
            exact = ref(x.astype(np.longdouble))
        worst, at = measured(name, x, "float64", exact)
    print(f"{name} float64: {worst:.2f} ulp at {at!r}")  # shown by pytest -rP
    assert worst <= bound, f"{name}({at!r}) is off by {worst:.2f} ulp"


def exact_by_mpmath(fn, x: np.ndarray) -> np.ndarray:
    """The value rounded to long double: its leading float64 and what that leaves."""
    with mpmath.workprec(120):
        values = [fn(mpmath.mpf(float(v))) for v in x]
        return np.array([np.longdouble(float(v)) + np.longdouble(float(v - mpmath.mpf(float(v)))) for v in values])


def test_references_agree_with_mpmath():
    """The NumPy functions that the other tests take for exact, against 120 bits."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-5, 5, 60)
    for name in ("exp", "expm1", "sin", "cos", "tan", "sinh", "cosh", "tanh", "erf"):
        exact = exact_by_mpmath(getattr(mpmath, name), x)
        off = np.abs(CASES[name][0](x).astype(np.longdouble) - exact) / spacing(exact, "float64")
        assert off.max() < 2, name
    positive = rng.uniform(0.01, 50, 60)
    for name in ("log", "log10", "log1p"):
        exact = exact_by_mpmath(getattr(mpmath, name), positive)
        assert (np.abs(CASES[name][0](positive) - exact) / spacing(exact, "float64")).max() < 2, name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_every_half(name, dtype):
    """Halves are computed in float32 and rounded once, so they are within 0.5 ulp and a little."""
    ref, (low, high), *_ = CASES[name]
    x = every_half(dtype, low, high)
    with np.errstate(all="ignore"):
        worst, at = measured(name, x, dtype, ref(x.astype(np.float64)))
    assert worst <= 0.501, f"{name}({at!r}) is off by {worst:.4f} ulp"


@pytest.mark.parametrize("name", HUGE)
def test_large_arguments(name):
    """Far from zero the argument must be reduced with many bits of pi."""
    x = np.array([1e5, 1e6, 1e10, 1e20, 3.0e38, 16367173.0 * 2**72, -1e22], np.float32)
    exact = np.array(exact_by_mpmath(getattr(mpmath, name), x), np.float64)
    worst, at = measured(name, x, "float32", exact)
    assert worst <= CASES[name][3], f"{name}({at!r}) is off by {worst:.2f} ulp"


SPECIAL = {
    "exp": ((-np.inf, 0), (np.inf, np.inf), (89.0, np.inf), (-104.0, 0), (0.0, 1)),
    "log": ((0.0, -np.inf), (-0.0, -np.inf), (-1.0, np.nan), (np.inf, np.inf), (1.0, 0)),
    "log1p": ((-1.0, -np.inf), (-2.0, np.nan), (np.inf, np.inf), (-0.0, -0.0)),
    "expm1": ((-np.inf, -1), (np.inf, np.inf), (-0.0, -0.0)),
    "sin": ((np.inf, np.nan), (-np.inf, np.nan), (-0.0, -0.0)),
    "cos": ((np.inf, np.nan), (0.0, 1)),
    "tanh": ((np.inf, 1), (-np.inf, -1), (-0.0, -0.0)),
    "sigmoid": ((np.inf, 1), (-np.inf, 0), (0.0, 0.5)),
    "erf": ((np.inf, 1), (-np.inf, -1), (-0.0, -0.0)),
    "sqrt": ((-1.0, np.nan), (np.inf, np.inf), (-0.0, -0.0)),
    "rsqrt": ((0.0, np.inf), (-1.0, np.nan), (np.inf, 0)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name, dtype):
    x, expected = (np.array(column) for column in zip(*SPECIAL[name], (np.nan, np.nan), strict=True))
    if dtype in ("float64", "bfloat16"):
        keep = np.abs(np.where(np.isfinite(x), x, 0)) < 50  # where exp over- and underflows depends on the dtype
        x, expected = x[keep], expected[keep]
    got = to_np(getattr(tw, name)(to_tw(quantize(x, dtype), dtype))).astype(np.float64)
    assert np.array_equal(got, expected, equal_nan=True), f"{name}({x}) = {got}"
    zeros = expected == 0
    assert np.array_equal(np.signbit(got[zeros]), np.signbit(expected[zeros])), "signs of zeros"
