"""Orders, scans and indexing on the emulated device at sizes that the op table does not reach: rows of several chunks,
selections from them, parts that meet, long runs of one index, and refused launches that leave an array as it was."""

from __future__ import annotations

from test_cuda import needs_emulator, script

START = """
rng = np.random.default_rng(5)
dev = lambda a: tw.tensor(a, device="cuda")
host = lambda t: t.cpu().numpy()
"""


@needs_emulator
def test_orders_of_long_rows():
    script(START + """
def rows():
    yield rng.standard_normal((2, 4097)).astype(np.float32)
    yield rng.integers(0, 50, (3, 9000))
    yield rng.integers(0, 2, 5000).astype(bool)
    yield rng.integers(-9, 9, (2, 6000)).astype(np.int8)
    yield np.round(rng.standard_normal(20000), 1).astype(np.float16)
    yield -np.arange(4500.0)
    yield np.zeros(4200, np.float32)
    x = rng.standard_normal(5000).astype(np.float32)
    x[rng.integers(0, 5000, 40)] = np.nan
    x[:3], x[7] = (0.0, -0.0, np.inf), -np.inf
    yield x
for x in rows():
    t, n = dev(x), x.shape[-1]
    key = x.astype(np.float64)
    nan = np.isnan(key)
    key = np.where(nan, np.inf, key)
    for down in (False, True):
        at = np.lexsort((-key if down else key, ~nan if down else nan))
        values, got = tw.sort(t, descending=down)
        assert np.array_equal(host(got), at), (x.dtype, down)
        want = np.take_along_axis(x, at, -1)
        assert np.array_equal(host(values).view(np.uint8), want.view(np.uint8))
        for k in (1, 130, 1500, 4097 if n > 8194 else 4):
            values, got = tw.topk(t, k, largest=down)
            assert np.array_equal(host(got), at[..., :k]), (x.dtype, k, down)
            assert np.array_equal(host(values).view(np.uint8), want[..., :k].copy().view(np.uint8))
    at = np.lexsort((key, nan))
    for k in (1, n // 3, n):
        assert np.array_equal(host(tw.kthvalue(t, k).indices), at[..., k - 1])
    if x.dtype.kind == "f":
        nans = nan.sum(-1)
        rank = np.where(nans > 0, n - nans, (n - 1) // 2)
        assert np.array_equal(host(tw.median(t, -1).indices), np.take_along_axis(at, rank[..., None], -1)[..., 0])
        rank = (n - nans - 1) // 2
        assert np.array_equal(host(tw.nanmedian(t, -1).indices), np.take_along_axis(at, rank[..., None], -1)[..., 0])
x = np.full((3, 4100), np.nan, np.float32)
assert host(tw.nanmedian(dev(x), 1).indices).tolist() == [0, 0, 0] == host(tw.median(dev(x), 1).indices).tolist()
""")


@needs_emulator
def test_scans_in_parts():
    script(START + """
for shape, dim in (((1, 40000), 1), ((2, 20001), 1), ((3, 2048), 1), ((1000, 3), 0), ((2, 700, 5), 1), ((300, 7), 1)):
    x = rng.standard_normal(shape)
    for dtype in (np.float64, np.float32, np.int64, np.int8):
        a = (x * 20 if np.dtype(dtype).kind == "i" else x).astype(dtype)
        wide = a.astype(np.int64 if np.dtype(dtype).kind == "i" else np.float64)
        t, tolerance = dev(a), 1e-4 if dtype == np.float32 else 1e-10
        np.testing.assert_allclose(host(tw.cumsum(t, dim)), np.cumsum(wide, dim), tolerance, 100 * tolerance)
        for name, fold in (("cummax", np.maximum), ("cummin", np.minimum)):
            values, at = getattr(tw, name)(t, dim)
            assert np.array_equal(host(values), fold.accumulate(a, dim))
            here = np.arange(a.shape[dim]).reshape([-1 if d == dim else 1 for d in range(a.ndim)])
            met = np.maximum.accumulate(np.where(host(values) == a, here, -1), dim)
            assert np.array_equal(host(at), met)
    t = dev(x)
    want = np.logaddexp.accumulate(x, dim)
    np.testing.assert_allclose(host(tw.logcumsumexp(t, dim)), want, 1e-11)
    t.requires_grad_()
    w = rng.standard_normal(shape)
    (tw.cumsum(t, dim) * dev(w)).sum().backward()
    np.testing.assert_allclose(host(t.grad), np.flip(np.cumsum(np.flip(w, dim), dim), dim), 1e-9, 1e-9)
    near = 1 + x / 1000
    np.testing.assert_allclose(host(tw.cumprod(dev(near), dim)), np.cumprod(near, dim), 1e-9)
""")


@needs_emulator
def test_long_runs_of_one_index():
    script(START + """
for dtype in (np.float32, np.float64, np.int64, np.int16, np.uint8):
    for n, count, inner, outer in ((3, 2000, 8, 1), (70000, 700, 4, 1), (5, 300, 3, 2), (1, 1025, 1, 3), (9, 70, 1, 2)):
        index = rng.integers(0, n, count)
        x, y = (rng.integers(-9, 9, s).astype(dtype) for s in ((outer, n, inner), (outer, count, inner)))
        want = x.copy()
        np.add.at(want, (slice(None), index), y)
        got = tw.index_add(dev(x), 1, dev(index), dev(y))
        assert np.array_equal(host(got), want), (dtype, n, count, inner)
        t = dev(x)
        t.index_put_((dev(np.arange(outer))[:, None], dev(index - n)[None]), dev(y), accumulate=True)
        assert np.array_equal(host(t), want)
        last = x.copy()
        for i, k in enumerate(index):
            last[:, k] = y[:, i]
        t = dev(x)
        t[dev(np.arange(outer))[:, None], dev(index)[None]] = dev(y)
        assert np.array_equal(host(t), last)
        at = np.broadcast_to(index[:, None], (outer, count, inner))
        assert np.array_equal(host(tw.scatter_add(dev(x), 1, dev(at), dev(y))), want)
        assert np.array_equal(host(tw.scatter(dev(x), 1, dev(at), dev(y))), last)
        assert np.array_equal(host(tw.gather(dev(x), 1, dev(at))), np.take_along_axis(x, at, 1))
        assert np.array_equal(host(tw.index_select(dev(x), 1, dev(index))), x[:, index])
x = rng.standard_normal(3)
y = rng.standard_normal(100000)
runs = [host(tw.index_add(dev(x), 0, dev(np.full(100000, 1)), dev(y))) for _ in range(2)]
assert np.array_equal(*runs)
np.testing.assert_allclose(runs[0][1], x[1] + y.sum(), 1e-10)
""")


@needs_emulator
def test_a_refused_launch_leaves_the_array():
    script(START + """
import re
for count in (3, 2000):
    good = rng.integers(0, 6, count)
    bad = good.copy()
    bad[count - 2] = 6
    ones = dev(np.ones((count, 4), np.float32))
    for name, call in (
        ("index_add_", lambda t, i: t.index_add_(0, i, ones)),
        ("scatter_add", lambda t, i: t.scatter_add_(0, i[:, None].expand(count, 4), ones)),
        ("scatter", lambda t, i: t.scatter_(0, i[:, None].expand(count, 4), ones)),
        ("index_put", lambda t, i: t.index_put_((i,), ones, accumulate=True)),
        ("index_put", lambda t, i: t.index_put_((i, i // 2), ones[:, 0], accumulate=True)),
        ("index_put", lambda t, i: t.__setitem__(i, ones)),
    ):
        t = tw.zeros(6, 4, device="cuda")
        try:
            call(t, dev(bad))
        except IndexError as e:
            assert re.search(rf"^{name}.*: index must be in \\[-?\\d+, [46]\\), got [36] at position \\d+", str(e)), e
        else:
            raise AssertionError(name)
        assert not host(t).any(), name
        call(t, dev(good))
        assert host(t).any()
    x = dev(np.ones((6, 4), np.float32))
    for call in (lambda i: x[i], lambda i: x[i, i // 2], lambda i: tw.index_select(x, 0, i),
                 lambda i: tw.gather(x, 0, i[:, None]), lambda i: nn.functional.embedding(i, x)):
        try:
            call(dev(bad))
        except IndexError as e:
            assert "must be in" in str(e), e
        else:
            raise AssertionError
        assert host(call(dev(good))).all()
""")
