"""Rows of the products and windows: matmul, linear, pooling."""

from __future__ import annotations

import math

import numpy as np

import references as R
import tilewright as tw
from arrays import FLOATS
from op_table.row import EXACT, SUMS, Bad, Row, Sample, Tolerance

MATMUL_SHAPES = (
    ((3,), (3,)), ((0,), (0,)), ((4,), (4, 5)), ((5, 4), (4,)), ((1, 1), (1, 1)), ((2, 3), (3, 4)),
    ((17, 129), (129, 33)), ((128, 31), (31, 7)), ((1, 127), (127, 65)), ((65, 127), (127, 1)), ((0, 3), (3, 4)),
    ((3, 0), (0, 4)), ((2, 5, 3), (2, 3, 4)), ((2, 5, 3), (3, 4)), ((5, 3), (2, 3, 4)), ((2, 1, 5, 3), (3, 3, 4)),
    ((3,), (2, 3, 4)), ((2, 5, 3), (3,)), ((0, 5, 3), (3, 4)), ((2, 19, 40), (1, 40, 35)),
)  # fmt: skip
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


def transposed_matmul(g):
    for a, b in (((4, 3), (4, 5)), ((129, 17), (129, 33)), ((2, 3, 5), (2, 3, 4))):
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
MAX_POOL = (
    ((1, 1, 1, 1), 1, {}), ((2, 3, 8, 8), 2, {}), ((1, 2, 7, 9), 3, {"stride": 2, "padding": 1}),
    ((1, 2, 7, 9), (3, 2), {"stride": (1, 2)}), ((2, 2, 8, 7), 3, {"dilation": 2, "stride": 1, "padding": 1}),
    ((1, 2, 7, 8), 3, {"stride": 2, "ceil_mode": True}),
    ((1, 1, 6, 5), 3, {"stride": 3, "ceil_mode": True, "padding": 1}),
    ((3, 5, 5), 2, {}), ((0, 3, 6, 6), 2, {}), ((1, 1, 5, 129), 2, {}),
)  # fmt: skip
AVG_POOL = (
    ((1, 1, 1, 1), 1, {}), ((2, 3, 8, 8), 2, {}), ((1, 2, 7, 9), 3, {"stride": 2, "padding": 1}),
    ((1, 2, 7, 9), 3, {"stride": 2, "padding": 1, "count_include_pad": False}),
    ((1, 2, 7, 9), (3, 2), {"stride": (1, 2)}),
    ((1, 2, 7, 8), 3, {"stride": 2, "ceil_mode": True}),
    ((1, 1, 6, 5), 3, {"stride": 3, "ceil_mode": True, "padding": 1}),
    ((1, 1, 6, 5), 3, {"stride": 3, "ceil_mode": True, "padding": 1, "count_include_pad": False}),
    ((1, 2, 6, 6), 2, {"divisor_override": 3}), ((3, 5, 5), 2, {}), ((0, 3, 6, 6), 2, {}),
)  # fmt: skip
ADAPTIVE = (
    ((1, 1, 1, 1), 1), ((2, 3, 8, 8), 1), ((2, 3, 7, 9), (3, 4)), ((1, 2, 5, 5), (7, 5)), ((3, 5, 6), (2, 3)),
    ((1, 2, 5, 6), (None, 3)), ((2, 3, 12, 12), 6),
)  # fmt: skip


def pooled(name, **kw):
    return lambda g: getattr(tw.nn.functional, name)(ones(1, 1, 4, 4), **kw)


def pool_bad(name):
    return (
        Bad("padding", pooled(name, kernel_size=2, padding=2), SHAPE, "pad"),
        Bad("kernel", pooled(name, kernel_size=0), SHAPE, "kernel"),
        Bad("stride", pooled(name, kernel_size=2, stride=-1), SHAPE, "stride"),
        Bad("too_large", pooled(name, kernel_size=9), SHAPE, name),
    )


def images(cases, make):
    return lambda g: (Sample(make(g)(*shape), kernel, **kw) for shape, kernel, kw in cases)


def indices_case(g):
    for shape, kernel, kw in MAX_POOL:
        yield Sample(g.distinct(*shape), kernel, return_indices=True, **kw)
    x = np.zeros((1, 1, 4, 4), np.float32)
    yield Sample(x.astype(g.array(1).dtype), 2, return_indices=True)  # ties: the first wins


def pool_keeps_nan():
    x = tw.zeros(1, 1, 4, 4)
    x[0, 0, 3, 3] = float("nan")
    y = tw.nn.functional.max_pool2d(x, 2)
    assert bool(tw.isnan(y[0, 0, 1, 1])) and int(tw.isnan(y).sum().item()) == 1


ROWS = [
    Row("matmul", "matmul", np.matmul, lambda g: pairs(g, MATMUL_SHAPES), FLOATS, PRODUCT, slots=("gemm",),
        magnitude=sized(np.matmul), flops=matmul_flops, bad=MATMUL_BAD, ops=("bmm", "mm"),
        properties=(identity_is_neutral, integers_are_exact),
        large=lambda g: Sample(g.array(2, 301, 130), g.array(130, 515))),
    Row("matmul_transposed", lambda a, b: a.transpose(-1, -2) @ b, lambda a, b: np.matmul(np.swapaxes(a, -1, -2), b),
        transposed_matmul, FLOATS, PRODUCT,
        magnitude=lambda a, b: np.matmul(np.swapaxes(np.abs(a), -1, -2), np.abs(b)),
        large=lambda g: Sample(g.array(700, 300), g.array(700, 129))),
    Row("linear", "F.linear", R.linear, linear_samples, FLOATS, PRODUCT,
        magnitude=lambda x, w, b=None: R.linear(np.abs(x), np.abs(w), None if b is None else np.abs(b)),
        bad=(Bad("inner", lambda g: tw.nn.functional.linear(ones(2, 3), ones(4, 5)), SHAPE,
                 r"linear.*\(2, 3\).*\(4, 5\)"),
             Bad("bias", lambda g: tw.nn.functional.linear(ones(2, 3), ones(4, 3), ones(3)), SHAPE, "linear.*bias")),
        large=lambda g: Sample(g.array(257, 300), g.array(130, 300), g.array(130))),
    Row("max_pool2d", "F.max_pool2d", R.max_pool2d, images(MAX_POOL, lambda g: g.distinct), FLOATS, EXACT,
        slots=("max_pool2d", "max_pool2d_backward"), bad=pool_bad("max_pool2d"), properties=(pool_keeps_nan,),
        large=lambda g: Sample(g.array(9, 16, 40, 41), 3, stride=2, padding=1)),
    Row("max_pool2d_indices", lambda x, k, **kw: tuple(tw.nn.functional.max_pool2d(x, k, **kw)), R.max_pool2d,
        indices_case, FLOATS, EXACT, grad_samples=lambda g: (s for s in indices_case(g) if s.args[0].any())),
    Row("avg_pool2d", "F.avg_pool2d", R.avg_pool2d, images(AVG_POOL, lambda g: g.array), FLOATS, SUMS,
        slots=("avg_pool2d", "avg_pool2d_backward"), bad=pool_bad("avg_pool2d"),
        large=lambda g: Sample(g.array(9, 16, 40, 41), 3, stride=2, padding=1)),
    Row("adaptive_avg_pool2d", "F.adaptive_avg_pool2d", R.adaptive_avg_pool2d,
        lambda g: (Sample(g.array(*shape), size) for shape, size in ADAPTIVE), FLOATS, SUMS,
        slots=("adaptive_avg_pool2d", "adaptive_avg_pool2d_backward"),
        large=lambda g: Sample(g.array(9, 16, 40, 41), (6, 7)),
        bad=(Bad("size", lambda g: tw.nn.functional.adaptive_avg_pool2d(ones(1, 1, 4, 4), -1), SHAPE, "size|-1"),)),
]  # fmt: skip
