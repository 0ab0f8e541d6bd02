"""Indexing against NumPy with random keys: values, views, assignment, gradients, and gradients of gradients."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw

F = tw.nn.functional


class Keys:
    """Random shapes and keys, the same on every run."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def int(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def shape(self, smallest: int = 0) -> tuple:
        return tuple(self.int(smallest, 6) for _ in range(self.int(1, 5)))

    def slice(self, n: int):
        def bound():
            return None if self.rng.random() < 0.4 else self.int(-n - 2, n + 3)

        return slice(bound(), bound(), None if self.rng.random() < 0.5 else self.int(1, 4))

    def key(self, shape: tuple, arrays: bool) -> tuple:
        key, d, ellipsis = [], 0, False
        common = tuple(self.int(1, 4) for _ in range(self.int(0, 3)))
        while d < len(shape) and self.rng.random() < 0.9:
            n, kind = shape[d], self.rng.random()
            if kind < 0.1:
                key.append(None)
                continue
            if kind < 0.15 and not ellipsis:
                ellipsis = True
                d = self.int(d, len(shape) + 1)
                key.append(Ellipsis)
                continue
            if kind < 0.35 and n:
                key.append(self.int(-n, n))
            elif kind < 0.6 or not arrays or not n:
                key.append(self.slice(n))
            elif kind < 0.7:
                dims = self.int(1, len(shape) - d + 1)
                key.append(self.rng.random(shape[d : d + dims]) < 0.5)
                d += dims - 1
            else:
                size = [1 if self.rng.random() < 0.2 else m for m in common[self.int(0, len(common) + 1) :]]
                index = self.rng.integers(-n, n, size)
                key.append(index.tolist() if index.ndim == 1 and self.rng.random() < 0.3 else index)
            d += 1
        return tuple(key)


def is_array(item) -> bool:
    return isinstance(item, np.ndarray | list)


def ints_first(x, key):
    """NumPy's x and key by PyTorch's rules: beside arrays, ints pick their slice first."""
    if not any(is_array(i) and np.ndim(i) for i in key):
        return x, key
    key = tuple(int(i) if is_array(i) and np.ndim(i) == 0 else i for i in key)
    first = []
    for i in key:
        if is_array(i) and np.asarray(i).dtype == bool:
            first += [slice(None)] * np.ndim(i)
        elif i is not None:
            first.append(i if i is Ellipsis or isinstance(i, int) else slice(None))
    x, key = x[tuple(first)], tuple(i for i in key if not isinstance(i, int))
    used = sum(0 if i is None or i is Ellipsis else np.ndim(i) if np.asarray(i).dtype == bool else 1 for i in key)
    # An ellipsis for no dimension keeps two arrays apart in NumPy, and not in PyTorch.
    return x, tuple(i for i in key if i is not Ellipsis or used < x.ndim)


def as_key(key, rng=None):
    """The key with its arrays as Tensors, arrays or lists."""
    return tuple(tw.tensor(i) if isinstance(i, np.ndarray) and (rng is None or rng.random() < 0.8) else i for i in key)


def cases(seed: int, count: int, arrays: bool, smallest: int = 0):
    """(keys, x, key) whose key NumPy accepts too."""
    keys = Keys(seed)
    for _ in range(count):
        shape = keys.shape(smallest)
        key = keys.key(shape, arrays)
        x = keys.rng.integers(-99, 100, shape)
        try:
            y, k = ints_first(x, key)
            y[k]
        except IndexError:
            with pytest.raises((IndexError, ValueError)):
                tw.tensor(x)[as_key(key)]
            continue
        yield keys, x, key


def layout(keys, x):
    """x as a Tensor that is contiguous, or transposed in memory, or a step through a larger one."""
    kind = keys.int(0, 3)
    if kind == 1:
        return tw.tensor(np.ascontiguousarray(x.T)).permute(*range(x.ndim)[::-1])
    if kind == 2:
        wide = np.zeros((2 * x.shape[0], *x.shape[1:]), x.dtype)
        wide[::2] = x
        return tw.tensor(wide)[::2]
    return tw.tensor(x)


@pytest.mark.parametrize("arrays", [False, True])
def test_reading_matches_numpy(arrays):
    for keys, x, key in cases(1, 1500, arrays):
        y, k = ints_first(x, key)
        t = layout(keys, x)
        got = t[as_key(key, keys.rng)]
        assert tuple(got.shape) == y[k].shape and np.array_equal(got.numpy(), y[k]), (x.shape, key)
        shares = got.array.storage_id == t.array.storage_id
        assert shares == (not any(is_array(i) and np.ndim(i) for i in key)), (x.shape, key)


@pytest.mark.parametrize("arrays", [False, True])
def test_assignment_matches_numpy(arrays):
    for keys, x, key in cases(2, 1500, arrays):
        t = layout(keys, x)
        y, k = ints_first(x, key)
        shape = tuple(1 if keys.rng.random() < 0.3 else n for n in y[k].shape)
        value = keys.rng.integers(-99, 100, shape[keys.int(0, len(shape) + 1) :])
        new = int(value.reshape(-1)[0]) if value.size and keys.rng.random() < 0.3 else value
        y[k] = new
        t[as_key(key, keys.rng)] = tw.tensor(new) if isinstance(new, np.ndarray) else new
        assert np.array_equal(t.numpy(), x), (x.shape, key, np.shape(new))


def test_accumulating_assignment_adds_every_repeat():
    for keys, x, key in cases(3, 800, True, smallest=1):
        key = tuple(i for i in key if is_array(i) and np.ndim(i))
        if not key or sum(np.ndim(i) if np.asarray(i).dtype == bool else 1 for i in key) > x.ndim:
            continue
        t, expected = layout(keys, x), x.copy()
        try:
            value = keys.rng.integers(-99, 100, x[key].shape)
        except IndexError:
            continue
        np.add.at(expected, key, value)
        t.index_put_(tuple(tw.tensor(i) for i in key), tw.tensor(value), accumulate=True)
        assert np.array_equal(t.numpy(), expected), (x.shape, key)


def test_gradients_of_reading_and_assignment():
    for keys, x, key in cases(4, 400, True, smallest=1):
        x = x.astype(np.float64)
        positions, k = ints_first(np.arange(x.size).reshape(x.shape), key)
        taken = positions[k]
        t = tw.tensor(x, requires_grad=True)
        dy = keys.rng.integers(-9, 10, taken.shape).astype(np.float64)
        y = t[as_key(key)]
        (dx,) = tw.autograd.grad(y, t, tw.tensor(dy))
        expected = np.zeros(x.size)
        np.add.at(expected, taken.ravel(), dy.ravel())
        assert np.array_equal(dx.numpy(), expected.reshape(x.shape)), (x.shape, key)

        value = tw.tensor(keys.rng.standard_normal(taken.shape), requires_grad=True)
        changed = t.clone()
        changed[as_key(key)] = value
        dy = keys.rng.integers(-9, 10, x.shape).astype(np.float64)
        dx, dvalue = tw.autograd.grad(changed, (t, value), tw.tensor(dy))
        assert np.array_equal(dvalue.numpy(), dy.ravel()[taken]), (x.shape, key)
        cleared = dy.copy()
        cleared.reshape(-1)[taken] = 0
        assert np.array_equal(dx.numpy(), cleared), (x.shape, key)


INDEX = np.array([2, 0, 2, 3])
ALONG = np.array([[0, 1, 1], [2, 0, 2]])
LINEAR = {
    "basic": (lambda x: x[1:3, ..., None, 0], (4, 3)),
    "arrays": (lambda x: x[tw.tensor(INDEX), :, tw.tensor(INDEX)], (4, 3, 5)),
    "mask": (lambda x: x[tw.tensor([True, False, True, True])], (4, 3)),
    "index_select": (lambda x: tw.index_select(x, 1, tw.tensor(INDEX)), (2, 4, 3)),
    "gather": (lambda x: tw.gather(x, 1, tw.tensor(ALONG)), (3, 3)),
    "scatter_add": (lambda x: tw.scatter_add(tw.zeros(2, 3, dtype=tw.float64), 1, tw.tensor(ALONG), x), (3, 4)),
    "scatter": (lambda x: tw.zeros(4, 3, dtype=tw.float64).scatter(0, tw.tensor([[2, 0, 1], [3, 1, 0]]), x), (2, 3)),
    "index_add": (lambda x: x.index_add(0, tw.tensor(INDEX), x, alpha=2), (4, 3)),
    "assigned": (lambda x: assigned(x, slice(1, 3), x[:2]), (4, 3)),
    "assigned_arrays": (lambda x: assigned(x, (tw.tensor([3, 1]), tw.tensor([0, 2])), x[0, :2]), (4, 3)),
    "masked_fill": (lambda x: x.masked_fill(tw.tensor([True, False, True]), 0.0), (4, 3)),
    "embedding": (lambda w: F.embedding(tw.tensor(ALONG), w), (4, 3)),
    "reshape": (lambda x: x.transpose(0, 1).reshape(2, 6), (4, 3)),
    "expand": (lambda x: x.expand(2, 4, 3), (4, 1)),
    "permute": (lambda x: x.permute(2, 0, 1), (2, 3, 4)),
    "as_strided": (lambda x: x.as_strided((3, 3), (2, 1), 1), (3, 4)),
    "diagonal": (lambda x: x.diagonal(1), (4, 5)),
    "unfold": (lambda x: x.unfold(0, 3, 2), (7, 2)),
    "split": (lambda x: tw.cat(x.split([1, 3])[::-1], 0), (4, 2)),
    "cat": (lambda x: tw.cat([x, x[:, :2], x], 1), (2, 3)),
    "stack": (lambda x: tw.stack([x, 2 * x], -1), (2, 3)),
    "pad": (lambda x: F.pad(x, (1, -1, 2, 0)), (3, 4)),
    "pad_reflect": (lambda x: F.pad(x, (2, 1), mode="reflect"), (3, 4)),
    "flip_roll": (lambda x: x.flip(0).roll((1, -1), (0, 1)), (3, 4)),
    "repeat": (lambda x: x.repeat(2, 1, 2).repeat_interleave(tw.tensor([1, 0, 2]), 1), (3, 2)),
    "tril": (lambda x: x.tril(1) + x.triu(-1), (3, 4)),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), (2, 5, 6)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, (2, 3), 2, 1, ceil_mode=True, count_include_pad=False), (2, 5, 6)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (1, 2, 5, 4)),
}  # fmt: skip


def assigned(x, key, value):
    y = x.clone()
    y[key] = value
    return y


@pytest.mark.parametrize("name", LINEAR)
def test_gradient_is_the_transpose_and_its_gradient_the_op(name):
    """For a linear f: <dy, f(v)> = <f'(dy), v>, and d<f'(dy), v>/d dy = f(v). Max pooling is linear round one point."""
    f, shape = LINEAR[name]
    rng = np.random.default_rng(5)
    x = tw.tensor(rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.float64), requires_grad=True)
    y = f(x)
    dy = tw.tensor(rng.standard_normal(tuple(y.shape)), requires_grad=True)
    (dx,) = tw.autograd.grad(y, x, dy, create_graph=True)
    direction = 1e-3 * rng.standard_normal(shape)  # too small to change which element is a window's maximum
    moved = f(tw.tensor(x.detach().numpy() + direction)).numpy() - y.detach().numpy()
    np.testing.assert_allclose((dx.detach().numpy() * direction).sum(), (dy.detach().numpy() * moved).sum(), rtol=1e-8)
    (ddy,) = tw.autograd.grad(dx, dy, tw.tensor(direction))
    np.testing.assert_allclose(ddy.numpy(), moved, atol=1e-12)


def test_views_and_their_bases_see_each_other_through_autograd():
    x = tw.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    y = x * 2
    view = y[1:3]
    y[1] = 10.0
    view[1] = 20.0
    (y * tw.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert y.tolist() == [2, 10, 20, 8] and view.tolist() == [10, 20]
    assert x.grad.tolist() == [2, 0, 0, 8]


def test_assignment_from_an_overlapping_view():
    x = tw.arange(8)
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
    x[tw.tensor([0, 1])] = x[[6, 7]]
    assert x.tolist() == [5, 6, 1, 2, 3, 4, 5, 6]


def test_bools_and_numpy_numbers_in_keys():
    x, a = tw.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3)
    for key in (True, False, (True, 1), (Ellipsis, True), np.int64(1), (np.uint8(0), slice(None)), np.bool_(True)):
        assert np.array_equal(x[key].numpy(), a[key]), key
    assert x[tw.tensor(1), tw.tensor(2)].item() == 5
    with pytest.raises(TypeError, match="uint8"):
        x[np.array([1, 0], np.uint8)]
    with pytest.raises(TypeError, match="str"):
        x["a"]
    with pytest.raises(IndexError, match="ellipsis"):
        x[..., ...]


def test_a_leaf_that_requires_grad_is_not_assigned_to():
    x = tw.ones(3, requires_grad=True)
    for write in (lambda: x.__setitem__(0, 2.0), lambda: x.index_add_(0, tw.tensor([0]), tw.ones(1)),
                  lambda: x[:2].masked_fill_(tw.tensor([True, False]), 0.0)):  # fmt: skip
        with pytest.raises(RuntimeError, match="leaf"):
            write()
        assert x.tolist() == [1, 1, 1]


def test_sums_over_indices_do_not_depend_on_threads():
    rng = np.random.default_rng(6)
    index, grid = tw.tensor(rng.integers(0, 300, 20000)), tw.tensor(rng.integers(0, 40, (600, 300)))
    rows, values = tw.tensor(rng.standard_normal((20000, 65)).astype(np.float32)), tw.randn(600, 300)
    before, results = tw.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            tw.set_num_threads(threads)
            results.append((tw.zeros(300, 65).index_add_(0, index, rows).numpy(),
                            tw.zeros(600, 40).scatter_add_(1, grid, values).numpy()))
    finally:
        tw.set_num_threads(before)
    exact = np.zeros((300, 65))
    np.add.at(exact, index.numpy(), rows.numpy().astype(np.float64))
    size = np.zeros((300, 65))
    np.add.at(size, index.numpy(), np.abs(rows.numpy().astype(np.float64)))
    count = np.bincount(index.numpy(), minlength=300)[:, None]
    for sums, scattered in results:
        assert np.array_equal(sums, results[0][0]) and np.array_equal(scattered, results[0][1])
    assert (np.abs(results[0][0] - exact) <= count * 2.0**-24 * size).all()


def test_single_elements_of_long_lists():
    """One dimension, long enough for every way that gather, scatter_add and index pick for single elements."""
    rng = np.random.default_rng(8)
    n, count = 500, 100_003
    index, values = rng.integers(0, n, count), rng.integers(-9, 10, count)
    table, matrix = rng.standard_normal(n).astype(np.float32), rng.standard_normal((n, 30)).astype(np.float32)
    column = rng.integers(-30, 30, count)
    at, before = tw.tensor(index), tw.get_num_threads()
    for dtype in (np.int8, np.int64, np.float32, np.float64):  # sums that every dtype holds exactly, or wraps
        want = np.arange(n).astype(dtype)
        np.add.at(want, index, values.astype(dtype))
        got = tw.tensor(np.arange(n).astype(dtype)).scatter_add(0, at, tw.tensor(values.astype(dtype)))
        assert np.array_equal(got.numpy(), want)
    assert np.array_equal(tw.gather(tw.tensor(table), 0, at).numpy(), table[index])
    assert np.array_equal(tw.tensor(matrix)[at, tw.tensor(column)].numpy(), matrix[index, column])
    put = tw.tensor(matrix)
    put[at, tw.tensor(column)] = 2.0
    changed = matrix.copy()
    changed[index, column] = 2.0
    assert np.array_equal(put.numpy(), changed)
    sums = []
    try:
        for threads in (1, 2, 5):
            tw.set_num_threads(threads)
            sums.append(tw.zeros(n).scatter_add(0, at, tw.tensor(table[index])).numpy())
    finally:
        tw.set_num_threads(before)
    assert np.array_equal(sums[0], sums[1]) and np.array_equal(sums[0], sums[2])
    times = np.bincount(index, minlength=n)
    assert (np.abs(sums[0] - times * table.astype(np.float64)) <= times * 2.0**-24 * times * np.abs(table)).all()
    for bad, place in ((n, 70_000), (-1, 3)):
        wrong = index.copy()
        wrong[[place, 99_000]] = bad
        for call, first in ((lambda i: tw.gather(tw.tensor(table), 0, i), place),
                            (lambda i: tw.zeros(n).scatter_add(0, i, tw.tensor(table[index])), place)):
            with pytest.raises(IndexError, match=rf"{bad}.*position {first}"):
                call(tw.tensor(wrong))
    wrong = column.copy()
    wrong[[80_000, 5]] = 30
    with pytest.raises(IndexError, match=r"30.*position 5"):
        tw.tensor(matrix)[at, tw.tensor(wrong)]
