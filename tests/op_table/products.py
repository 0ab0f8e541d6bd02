"""Rows of the products and windows: matmul, linear, pooling."""

from __future__ import annotations

import math

import numpy as np

import references as R
import tilewright as tw
from arrays import FLOATS
from op_table.row import Bad, Row, Sample, Tolerance

MATMUL_SHAPES = (
    ((3,), (3,)), ((0,), (0,)), ((4,), (4, 5)), ((5, 4), (4,)), ((1, 1), (1, 1)), ((2, 3), (3, 4)),
    ((17, 129), (129, 33)), ((128, 31), (31, 7)), ((1, 127), (127, 65)), ((65, 127), (127, 1)), ((0, 3), (3, 4)),
    ((3, 0), (0, 4)), ((2, 5, 3), (2, 3, 4)), ((2, 5, 3), (3, 4)), ((5, 3), (2, 3, 4)), ((2, 1, 5, 3), (3, 3, 4)),
    ((3,), (2, 3, 4)), ((2, 5, 3), (3,)), ((0, 5, 3), (3, 4)), ((2, 19, 40), (1, 40, 35)),
    # thin: one to four rows or columns over a long K, in several chunks; the next width is a tile's again
    ((2, 300), (300, 37)), ((3, 1100), (1100, 5)), ((4, 129), (129, 261)), ((70, 1030), (1030, 4)),
    ((2, 300, 2), (2, 2)), ((2, 9, 130), (2, 130, 3)), ((5, 400), (400, 40)), ((40, 401), (401, 5)),
    ((8, 5, 8200), (8, 8200, 2)),  # more of K than is copied at a time
)  # fmt: skip
DEEP_SHAPES = (((57, 801), (801, 133)), ((64, 2600), (2600, 40)), ((2, 3), (3, 2)))
PRODUCT = Tolerance(2.0, "array", "a sum of products whose order differs from NumPy's; the error scales with its terms")


def pairs(g, shapes):
    for a, b in shapes:
        yield Sample(g.array(*a), g.array(*b))


def sized(fn):
    """The size of a product's terms: the same product of absolute values."""
    return lambda *arrays, **kw: fn(*(np.abs(a) for a in arrays), **{k: np.abs(v) if isinstance(v, np.ndarray) else v
                                                                     for k, v in kw.items()})  # fmt: skip


def matmul_flops(s):
    a, b = s.args
    return 2 * math.prod(np.matmul(a, b).shape) * a.shape[-1]


def identity_is_neutral():
    x = tw.arange(0, 6 * 129, dtype=tw.float32).reshape(6, 129)
    assert bool((x @ tw.eye(129) == x).all())


def integers_are_exact():
    """Products of small integers are exact in float32, whatever the order of the sums."""
    rng = np.random.default_rng(3)
    a, b = rng.integers(-9, 10, (67, 300)), rng.integers(-9, 10, (300, 131))
    got = (tw.tensor(a, dtype=tw.float32) @ tw.tensor(b, dtype=tw.float32)).numpy()
    assert np.array_equal(got, a @ b)


def thin_ignores_where_memory_begins():
    """Columns from a matrix that begins inside a cache line have the bits of a copy's."""
    rng = np.random.default_rng(5)
    flat = tw.tensor(rng.standard_normal(1100 * 560 + 16), dtype=tw.float32)
    for rows, start, n in ((1, 4, 560), (2, 1, 560), (4, 15, 48), (1, 3, 16)):
        x = tw.tensor(rng.standard_normal((rows, 1100)), dtype=tw.float32)
        w = flat[start : start + 1100 * n].view(1100, n)
        assert bool((x @ w == x @ w.clone()).all())
        assert np.allclose((x @ w).numpy(), x.numpy() @ w.numpy(), rtol=0, atol=1e-3)


def halves_sum_in_float32():
    """Sums of small integers are exact in float32, so a half type rounds once: what comes out is that rounding."""
    rng = np.random.default_rng(4)
    a, b = rng.integers(-9, 10, (67, 301)), rng.integers(-9, 10, (301, 131))
    for dtype in (tw.float16, tw.bfloat16):
        got = tw.tensor(a, dtype=tw.float32).to(dtype) @ tw.tensor(b, dtype=tw.float32).to(dtype)
        assert bool((got == tw.tensor(a @ b, dtype=tw.float32).to(dtype)).all())


def bfloat16_keeps_its_bound():
    """|error| <= 2^-8 |c| for the result's rounding, K 2^-24 |A||B| for the sums, K 2^-126 (|A| + |B| + 1) where an
    instruction takes subnormals as 0."""
    rng = np.random.default_rng(5)
    for scale in (1.0, 2.0**-64, 2.0**-130):
        a, b = rng.standard_normal((40, 999)) * scale, rng.standard_normal((999, 50)) * min(1.0, scale * 2.0**66)
        a, b = (tw.tensor(x.astype(np.float32)).to(tw.bfloat16) for x in (a, b))
        got = (a @ b).to(tw.float64).numpy()
        a, b = (x.to(tw.float64).numpy() for x in (a, b))
        bound = 2.0**-8 * np.abs(a @ b) + 999 * 2.0**-24 * (np.abs(a) @ np.abs(b))
        assert np.all(np.abs(got - a @ b) <= bound + 2.0**-126 * (np.abs(a).sum(1)[:, None] + np.abs(b).sum(0) + 999))


def transposed_matmul(g):
    for a, b in (((4, 3), (4, 5)), ((129, 17), (129, 33)), ((2, 3, 5), (2, 3, 4)), ((300, 2), (300, 37)),
                 ((1100, 70), (1100, 3))):
        yield Sample(g.array(*a), g.array(*b))


def linear_samples(g):
    for batch in ((), (0,), (1,), (5,), (2, 3), (129,)):
        for inner, out in ((3, 4), (127, 33)):
            yield Sample(g.array(*batch, inner), g.array(out, inner))
            yield Sample(g.array(*batch, inner), g.array(out, inner), g.array(out))


def ones(*shape):
    return tw.ones(shape)


SHAPE = ValueError
MATMUL_BAD = (
    Bad("inner", lambda g: ones(2, 3) @ ones(4, 5), SHAPE, r"matmul.*\(2, 3\).*\(4, 5\)"),
    Bad("scalar", lambda g: tw.matmul(tw.tensor(1.0), ones(2)), SHAPE, r"matmul.*\(\) @ \(2,\)"),
    Bad("batch", lambda g: ones(2, 3, 4) @ ones(3, 4, 5), SHAPE, r"matmul.*\(2, 3, 4\).*\(3, 4, 5\)"),
    Bad("dtypes", lambda g: ones(2, 2) @ ones(2, 2).to(tw.float64), (TypeError,), "matmul.*float32.*float64"),
)

# shape, kernel, keywords


ROWS = [
    Row("matmul", "matmul", np.matmul, lambda g: pairs(g, MATMUL_SHAPES), FLOATS, PRODUCT, slots=("gemm",),
        magnitude=sized(np.matmul), flops=matmul_flops, bad=MATMUL_BAD, ops=("bmm", "mm"),
        properties=(identity_is_neutral, integers_are_exact, thin_ignores_where_memory_begins, halves_sum_in_float32,
                    bfloat16_keeps_its_bound),
        large=lambda g: Sample(g.array(2, 301, 130), g.array(130, 515))),
    Row("matmul_transposed", lambda a, b: a.transpose(-1, -2) @ b, lambda a, b: np.matmul(np.swapaxes(a, -1, -2), b),
        transposed_matmul, FLOATS, PRODUCT,
        magnitude=lambda a, b: np.matmul(np.swapaxes(np.abs(a), -1, -2), np.abs(b)),
        large=lambda g: Sample(g.array(700, 300), g.array(700, 129))),
    Row("matmul_deep", "matmul", np.matmul, lambda g: pairs(g, DEEP_SHAPES),
        FLOATS, PRODUCT, magnitude=sized(np.matmul), large=lambda g: Sample(g.array(131, 900), g.array(900, 200))),
    Row("linear", "F.linear", R.linear, linear_samples, FLOATS, PRODUCT,
        magnitude=lambda x, w, b=None: R.linear(np.abs(x), np.abs(w), None if b is None else np.abs(b)),
        bad=(Bad("inner", lambda g: tw.nn.functional.linear(ones(2, 3), ones(4, 5)), SHAPE,
                 r"linear.*\(2, 3\).*\(4, 5\)"),
             Bad("bias", lambda g: tw.nn.functional.linear(ones(2, 3), ones(4, 3), ones(3)), SHAPE, "linear.*bias")),
        large=lambda g: Sample(g.array(257, 300), g.array(130, 300), g.array(130))),
]  # fmt: skip
