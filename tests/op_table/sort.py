"""Rows of scans and orders: cumulative sums and their kin, sort, topk, kthvalue, medians, unique values."""

from __future__ import annotations

import numpy as np

import tilewright as tw
from arrays import FLOATS, quantize, to_np
from op_table.row import EXACT, Bad, Row, Sample, Tolerance

ALL = (*FLOATS, "int64", "int32", "int16", "int8", "uint8", "bool")
SCANS = Tolerance(4.0, "array", "a sum in another order than NumPy's, whose error scales with its terms", 64.0, 2.0)
PRODUCTS = Tolerance(16.0, "array", "up to 130 products, each rounding once", 128.0, 2.0)
LOGS = Tolerance(64.0, "array", "exp and log of 2 ulp for each of up to 130 items", 512.0, 2.0)
CASES = (
    ((1,), 0), ((3,), 0), ((127,), 0), ((129,), -1), ((0,), 0), ((3, 5), 0), ((3, 5), 1), ((2, 3, 33), 1),
    ((2, 33, 3), 1), ((2, 130, 70), 1), ((70, 3), 1), ((5, 40), 1), ((2, 0, 3), 1), ((2, 0, 3), 0), ((), 0),
)  # fmt: skip


def ones(*shape):
    return tw.ones(shape)


def along(fold):
    """A scan of NumPy's in the dtype of sums: int64 of integers, which a 0-d array too has."""
    def scan(x, dim):
        x = x.astype(np.int64) if x.dtype.kind in "iub" else x
        return fold(x[None], 0)[0] if x.ndim == 0 else fold(x, dim)

    return scan


def samples(**limits):
    return lambda g: (Sample(g.array(*shape, **limits), dim) for shape, dim in CASES)


def with_zeros(g):
    for shape, dim in (((7,), 0), ((4, 6), 1), ((4, 6), 0)):
        x = g.array(*shape, low=0.5, high=1.5)
        yield Sample(x, dim)


def log_cumsum(x, dim):
    if x.ndim == 0:
        return x
    if x.size == 0:
        return x
    top = np.maximum.accumulate(x, dim)
    out, y = np.full(x.shape, -np.inf, x.dtype), np.moveaxis
    rows, tops, result = y(x, dim, 0), y(top, dim, 0), y(out, dim, 0)
    for i in range(rows.shape[0]):
        result[i] = tops[i] + np.log(np.exp(rows[: i + 1] - tops[i]).sum(0))
    return out


def extreme(largest):
    def scan(x, dim):
        if x.ndim == 0:
            return x, np.zeros((), np.int64)
        rows = np.moveaxis(x, dim, 0)
        values, at = rows.copy(), np.zeros(rows.shape, np.int64)
        for i in range(1, len(rows)):
            keep = (rows[i] < values[i - 1]) if largest else (rows[i] > values[i - 1])
            values[i] = np.where(keep, values[i - 1], rows[i])
            at[i] = np.where(keep, at[i - 1], i)
        return np.moveaxis(values, 0, dim), np.moveaxis(at, 0, dim)

    return scan


# --- orders ----------------------------------------------------------------------------------------------------------
ORDERS = (
    ((1,), 0), ((2,), 0), ((3,), 0), ((24,), 0), ((25,), -1), ((127,), 0), ((129,), 0), ((5, 7), 1), ((5, 7), 0),
    ((3, 64), 1), ((9, 65), 1), ((2, 3, 33), 1), ((17, 16), 1), ((2, 300), 1), ((0, 3), 1), ((3, 0), 1), ((), 0),
)  # fmt: skip


def order(x, dim, descending=False):
    """Stable, NaN last (first when descending)."""
    key = np.nan_to_num(x.astype(np.float64), nan=np.inf) if x.dtype.kind == "f" else x.astype(np.int64)
    nan = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    return np.lexsort((-key if descending else key, ~nan if descending else nan), dim)


def sort(x, dim=-1, descending=False):
    if x.ndim == 0:
        return x, np.zeros((), np.int64)
    at = order(x, dim, descending)
    return np.take_along_axis(x, at, dim), at


def topk(x, k, dim=-1, largest=True):
    if x.ndim == 0:
        return x, np.zeros((), np.int64)
    return tuple(a.take(range(k), dim) for a in sort(x, dim, largest))


def kth(x, k, dim=-1, keepdim=False):
    if x.ndim == 0:
        return x, np.zeros((), np.int64)
    return tuple((a.take([k - 1], dim) if keepdim else a.take(k - 1, dim)) for a in sort(x, dim))


def median(x, dim=None, keepdim=False):
    if dim is None:
        return np.sort(x.ravel())[(x.size - 1) // 2]
    return kth(x, (x.shape[dim] + 1) // 2 if x.ndim else 1, dim, keepdim)


def order_samples(**kw):
    return lambda g: (Sample(make(g)(*shape), dim, **kw) for shape, dim in ORDERS for make in (tied, distinct))


def tied(g):
    def make(*shape):
        a = g.array(*shape, low=-2, high=2)
        return np.asarray(quantize(np.round(a, 1), g.dtype)) if g.kind == "f" else a

    return make


def distinct(g):
    return g.distinct


def only_distinct(make):
    return lambda g: (s for s in make(g) if s.args[0].size and np.unique(s.args[0]).size == s.args[0].size)


def few(cases):
    def samples(g):
        for shape, k, dim in cases:
            for make in (tied, distinct):
                for largest in (True, False):
                    yield Sample(make(g)(*shape), k, dim, largest=largest)

    return samples


FEW = (((1,), 1, 0), ((5,), 0, 0), ((5,), 5, 0), ((3, 40), 7, 1), ((40, 3), 7, 0), ((2, 700), 5, 1), ((2, 700), 200, 1),
       ((1, 9000), 64, 1), ((), 1, 0))  # fmt: skip
KTH = (((1,), 1, 0), ((5,), 2, 0), ((3, 40), 7, 1), ((40, 3), 40, 0), ((2, 700), 350, 1))


def kth_samples(g):
    for shape, k, dim in KTH:
        for make in (tied, distinct):
            yield Sample(make(g)(*shape), k, dim, keepdim=k % 2 == 0)


def median_samples(g):
    for shape, dim in (((1,), 0), ((6,), 0), ((7, 4), 0), ((7, 4), 1), ((2, 301), -1)):
        for make in (tied, distinct):
            yield Sample(make(g)(*shape), dim)
            yield Sample(make(g)(*shape), dim, keepdim=True)


def pair_of(fn):
    return lambda *args, **kw: tuple(getattr(tw, fn)(*args, **kw))


def nan_is_largest():
    nan = float("nan")
    x = tw.tensor([1.0, nan, -float("inf"), float("inf"), nan, -0.0, 0.0])
    values, at = tw.sort(x)
    assert at.tolist() == [2, 5, 6, 0, 3, 1, 4] and tw.argsort(x, descending=True).tolist() == [1, 4, 3, 0, 5, 6, 2]
    assert tw.topk(x, 3).indices.tolist() == [1, 4, 3] and tw.topk(x, 2, largest=False).indices.tolist() == [2, 5]
    assert tw.kthvalue(x, 6).indices.item() == 1 and int(tw.median(x, 0).indices) == 1
    assert np.isnan(tw.median(x).item()) and tw.nanmedian(x).item() == 0 and tw.nanmedian(x, 0).indices.item() == 6
    assert np.isnan(tw.cummax(x, 0).values.tolist()[1:]).all()
    assert tw.cummin(x, 0).indices.tolist() == [0, 1, 1, 1, 4, 4, 4]
    long = tw.cat([x, tw.zeros(500)])
    assert tw.topk(long, 4).indices.tolist() == [1, 4, 3, 0] and tw.nanmedian(long).item() == 0
    assert values._fields if hasattr(values, "_fields") else tw.sort(x)._fields == ("values", "indices")


def orders_of_millions():
    """Long rows take other paths: 11-bit digits, parts that meet, and thresholds."""
    rng = np.random.default_rng(3)
    for x in (rng.standard_normal(300_001).astype(np.float32), rng.integers(0, 50, 300_001), np.arange(200_000.0),
              -np.arange(200_000, dtype=np.float32)):  # fmt: skip
        t = tw.tensor(x)
        for descending in (False, True):
            at = order(x, 0, descending)
            assert np.array_equal(tw.argsort(t, descending=descending).numpy(), at)
            for k in (1, 50, 5000):
                got = tw.topk(t, k, largest=descending)
                assert np.array_equal(got.indices.numpy(), at[:k]) and np.array_equal(got.values.numpy(), x[at[:k]])
        at = order(x, 0)
        assert tw.kthvalue(t, 12345).indices.item() == at[12344]
        assert np.allclose(tw.cumsum(t, 0).numpy(), np.cumsum(x.astype(np.float64)), rtol=1e-6, atol=0.01)


def unique_as_numpy():
    rng = np.random.default_rng(4)
    for x in (rng.integers(-5, 5, (20, 30)), np.zeros((0,), np.int64), np.array([3.5]), rng.integers(0, 3, 1000) / 2):
        got = tw.unique(tw.tensor(x), return_inverse=True, return_counts=True)
        want = np.unique(x, return_inverse=True, return_counts=True)
        for a, b in zip(got, want, strict=True):
            assert np.array_equal(to_np(a).ravel(), b.ravel())
        assert np.array_equal(tw.tensor(x).unique().numpy(), want[0])
    got = tw.unique_consecutive(tw.tensor([1, 1, 2, 1]), return_inverse=True, return_counts=True)
    assert [t.tolist() for t in got] == [[1, 2, 1], [0, 0, 1, 2], [2, 1, 1]]
    rows = tw.tensor([[1, 2], [1, 2], [0, 1]])
    got = tw.unique(rows, dim=0, return_inverse=True, return_counts=True)
    assert [t.tolist() for t in got] == [[[0, 1], [1, 2]], [1, 1, 0], [1, 2]]
    got = tw.unique_consecutive(rows.t(), dim=1, return_inverse=True, return_counts=True)
    assert [t.tolist() for t in got] == [[[1, 0], [2, 1]], [0, 0, 1], [2, 1]]


def zeros_in_products():
    import pytest

    torch = pytest.importorskip("torch")
    for row in ([2.0, 0, 3, 4], [0.0, 0, 3], [1.5, 2, 0, 5, 0, 2], [0.0, 2, 3]):
        x = tw.tensor(row, requires_grad=True)
        z = torch.tensor(row, requires_grad=True)
        w = [0.5, -1, 2, 3, 1, -2][: len(row)]
        (tw.cumprod(x, 0) * tw.tensor(w)).sum().backward()
        (torch.cumprod(z, 0) * torch.tensor(w)).sum().backward()
        assert np.allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-6), row


def scan_bad(name):
    return (Bad("dim", lambda g: getattr(tw, name)(ones(3), 1), IndexError, name),)


ROWS = [
    Row("cumsum", "cumsum", along(np.cumsum), samples(), ALL, SCANS, slots=("scan",), bad=scan_bad("cumsum"),
        magnitude=along(lambda x, d: np.cumsum(np.abs(x), d)), large=lambda g: Sample(g.array(3, 70000), 1)),
    Row("cumsum_columns", "cumsum", along(np.cumsum), lambda g: (
        Sample(g.array(1, 30, 70), 1), Sample(g.array(2, 3, 140), 1), Sample(g.array(1, 70, 9), 1)), FLOATS, SCANS,
        magnitude=along(lambda x, d: np.cumsum(np.abs(x), d)), large=lambda g: Sample(g.array(9, 70, 300), 1)),
    Row("cumprod", "cumprod", along(np.cumprod), samples(low=0.9, high=1.1), (*FLOATS, "int64", "uint8", "bool"),
        PRODUCTS, slots=("scan",), bad=scan_bad("cumprod"), properties=(zeros_in_products,)),
    Row("logcumsumexp", "logcumsumexp", log_cumsum, samples(), FLOATS, LOGS, bad=(*scan_bad("logcumsumexp"), Bad(
        "dtype", lambda g: tw.logcumsumexp(tw.tensor([1, 2]), 0), TypeError, "logcumsumexp.*int64"))),
    Row("cummax", pair_of("cummax"), extreme(True), order_samples(), ALL, EXACT, ops=("cummax",),
        grad_samples=only_distinct(order_samples()), bad=scan_bad("cummax")),
    Row("cummin", pair_of("cummin"), extreme(False), order_samples(), ALL, EXACT, ops=("cummin",),
        grad_samples=only_distinct(order_samples()), bad=scan_bad("cummin")),
    Row("sort", pair_of("sort"), sort, order_samples(), ALL, EXACT, slots=("sort",), ops=("sort", "argsort"),
        grad_samples=only_distinct(order_samples()), properties=(nan_is_largest, orders_of_millions),
        large=lambda g: Sample(g.array(20, 3000)), bad=scan_bad("sort")),
    Row("sort_descending", pair_of("sort"), sort, order_samples(descending=True), ALL, EXACT, ops=("msort",),
        grad_samples=only_distinct(order_samples(descending=True))),
    Row("topk", pair_of("topk"), topk, few(FEW), ALL, EXACT, slots=("topk",), ops=("topk",),
        grad_samples=only_distinct(few(FEW)), large=lambda g: Sample(g.array(3, 90000), 100),
        bad=(Bad("k", lambda g: tw.topk(ones(3), 4), ValueError, "topk.*got 4"),
             Bad("dim", lambda g: tw.topk(ones(3), 1, 2), IndexError, "topk"))),
    Row("kthvalue", pair_of("kthvalue"), kth, kth_samples, ALL, EXACT, slots=("kth",), ops=("kthvalue",),
        grad_samples=only_distinct(kth_samples), large=lambda g: Sample(g.distinct(90, 4097), 700),
        bad=(Bad("k", lambda g: tw.kthvalue(ones(3), 0), ValueError, "kthvalue.*got 0"),
             Bad("empty", lambda g: tw.kthvalue(ones(0), 1), ValueError, r"kthvalue.*\(0,\)"))),
    Row("median", pair_of("median"), median, median_samples, ALL, EXACT, ops=("median", "nanmedian"),
        grad_samples=only_distinct(median_samples),
        bad=(Bad("empty", lambda g: tw.median(ones(0)), ValueError, r"median.*\(0,\)"),)),
    Row("median_all", lambda x: tw.median(x), lambda x: median(x), lambda g: (Sample(g.distinct(*s)) for s in (
        (1,), (6,), (3, 5), ())), (*FLOATS, "int64"), EXACT),
    Row("unique", "unique", lambda x: np.unique(x), lambda g: (Sample(g.array(n)) for n in (1, 3, 129)),
        ("int64", "int32", "uint8", "bool"), EXACT, grad=False, layouts=False, properties=(unique_as_numpy,),
        ops=("unique_consecutive",),
        bad=(Bad("dim", lambda g: tw.unique(ones(3), dim=1), IndexError, "unique.*dim"),)),
]  # fmt: skip
