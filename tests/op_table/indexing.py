"""Rows of selection and arrangement: indexing, gather, scatter, cat, stack, and the views."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import BOOL, FLOATS, INTS
from op_table.row import EXACT, SUMS, Bad, Row, Sample

ALL = (*FLOATS, *INTS, *BOOL)
SOME = (*FLOATS, "int64", "uint8", "bool")


def ones(*shape):
    return tw.ones(shape)


def pick(x, *key):
    return x[key if len(key) != 1 else key[0]]


def index_samples(g):
    x = g.array(5, 4, 7)
    for key in ((1,), (-1,), (slice(1, 4),), (slice(None, None, 2), 3), (Ellipsis, 0), (None, slice(None)),
                (slice(3, 1),), (1, 2, 3), (slice(-3, None), None, Ellipsis, slice(None, None, 3))):  # fmt: skip
        yield Sample(x, *key)
    row, col = g.indices(6, n=5, low=-5), g.indices(6, n=4)
    yield Sample(x, row)
    yield Sample(x, row, col)
    yield Sample(x, row[:, None], col[None, :3])
    yield Sample(x, slice(None), col)
    yield Sample(x, row, slice(None), g.indices(6, n=7))
    yield Sample(x, g.indices(0, n=5))
    yield Sample(x, g.indices(2, 3, n=5), slice(0, 2))
    yield Sample(x, g.mask(5))
    yield Sample(x, g.mask(5, 4))
    yield Sample(x, g.mask(5, 4, 7))
    yield Sample(x, slice(None), g.mask(4))
    yield Sample(x, np.zeros((5, 4, 7), bool))
    yield Sample(g.array(129), g.indices(127, n=129))


def integers_are_taken_before_arrays():
    """Unlike NumPy, an integer beside index arrays picks its slice first, as in x[2][1:3, i]."""
    x, i = tw.arange(0, 140).reshape(5, 4, 7), tw.tensor([0, 6, 3])
    assert x[2, 1:3, i].tolist() == x[2][1:3, i].tolist()


def assigned(x, value, *key):
    y = x.copy() if isinstance(x, np.ndarray) else x.clone()
    y[key if len(key) != 1 else key[0]] = value
    return y


def assign_samples(g):
    x = g.array(5, 4, 7)
    for key in ((1,), (slice(1, 4),), (slice(None, None, 2), 3), (Ellipsis, 0), (1, 2, 3), (slice(3, 1),)):
        shape = x[key].shape
        yield Sample(x, g.array(*shape), *key)
        yield Sample(x, 1, *key)
    order = g.rng.permutation(5)[:3]  # assignment to one place twice has no defined winner
    yield Sample(x, g.array(3, 4, 7), order)
    yield Sample(x, g.array(7), order)
    yield Sample(x, g.array(3, 7), order, np.array([0, 3, 3]))
    yield Sample(x, g.array(5, 2, 7), slice(None), np.array([3, 1]))
    mask = g.mask(5, 4, 7)
    yield Sample(x, 1, mask)
    yield Sample(x, g.array(int(mask.sum())), mask)
    yield Sample(x, g.array(7), g.mask(5, 4))


def gather_samples(g):
    for shape, dim, index in (((3,), 0, (5,)), ((129,), 0, (127,)), ((3, 5), 0, (4, 5)), ((3, 5), 1, (2, 7)),
                              ((2, 3, 33), 1, (2, 4, 30)), ((2, 3, 33), -1, (1, 3, 2)), ((3, 4), 1, (3, 0)),
                              ((), 0, ())):  # fmt: skip
        n = shape[dim] if shape else 1
        yield Sample(g.array(*shape), dim, g.indices(*index, n=n))


def scatter_samples(g):
    for shape, dim, index, src in (((3,), 0, (5,), (5,)), ((129,), 0, (127,), (128,)), ((3, 5), 0, (4, 5), (4, 5)),
                                   ((3, 5), 1, (2, 7), (3, 8)), ((2, 3, 33), 1, (2, 4, 30), (2, 4, 33)),
                                   ((3, 4), 1, (3, 0), (3, 2))):  # fmt: skip
        yield Sample(g.array(*shape), dim, g.indices(*index, n=shape[dim]), g.array(*src))


def scatter_grad_samples(g):
    yield from (s for s in scatter_samples(g) if s.args[2].shape == s.args[3].shape)


def select_samples(g):
    for shape, dim, count in (((3,), 0, 5), ((129, 2), 0, 127), ((3, 5), 1, 0), ((2, 3, 33), 1, 4),
                              ((2, 3, 33), -1, 9)):  # fmt: skip
        yield Sample(g.array(*shape), dim, g.indices(count, n=shape[dim]))


def put_samples(g):
    for shape, dim, count in (((3,), 0, 5), ((129, 2), 0, 127), ((2, 3, 33), 1, 4), ((2, 3, 33), -1, 9)):
        src = list(shape)
        src[dim] = count
        yield Sample(g.array(*shape), dim, g.indices(count, n=shape[dim]), g.array(*src))


def joined(name):
    return lambda *tensors, dim: getattr(tw, name)(tensors, dim)


def cat_samples(g):
    for shapes, dim in ((((3,), (0,), (127,)), 0), (((2, 3), (4, 3)), 0), (((2, 3), (2, 129), (2, 1)), 1),
                        (((2, 3, 5), (2, 4, 5)), -2), (((0, 3), (2, 3)), 0), (((5,),), 0)):  # fmt: skip
        yield Sample(*(g.array(*shape) for shape in shapes), dim=dim)


def stack_samples(g):
    for shape, count, dim in (((), 3, 0), ((3,), 2, 0), ((129,), 2, 1), ((2, 3), 3, -1), ((0, 2), 2, 1)):
        yield Sample(*(g.array(*shape) for _ in range(count)), dim=dim)


def shaped(cases):
    """Samples of one array and keywords."""
    return lambda g: (Sample(g.array(*shape), **kw) for shape, kw in cases)


def flipped(g):
    for shape, dims in (((3,), (0,)), ((2, 129), (1,)), ((2, 3, 33), (0, 2))):
        yield Sample(g.array(*shape), dims=dims)


VIEWS = [
    Row("reshape", lambda x, s: x.reshape(s), lambda x, s: x.reshape(s), lambda g: (Sample(g.array(*a), b) for a, b in (
        ((6,), (2, 3)), ((2, 3, 33), (-1, 33)), ((2, 3, 4), (4, 6)), ((0, 3), (3, 0)), ((1,), ()))), SOME, EXACT,
        bad=(Bad("size", lambda g: ones(6).reshape(4, 2), ValueError, r"reshape.*6|reshape.*\(4, 2\)"),
             Bad("two_unknown", lambda g: ones(6).reshape(-1, -1), ValueError, "reshape.*-1"))),
    Row("permute", lambda x, o: x.permute(*o), np.transpose, lambda g: (Sample(g.array(*a), o) for a, o in (
        ((2, 3), (1, 0)), ((2, 3, 33), (2, 0, 1)), ((2, 0, 3), (1, 2, 0)))), SOME, EXACT,
        bad=(Bad("repeated", lambda g: ones(2, 3).permute(0, 0), ValueError, "permute"),)),
    Row("transpose", lambda x, a, b: x.transpose(a, b), np.swapaxes, lambda g: (Sample(g.array(*s), a, b) for s, a, b in
        (((2, 3), 0, 1), ((2, 3, 33), -1, 0))), SOME, EXACT, ops=("t",),
        bad=(Bad("dim", lambda g: ones(2, 3).transpose(0, 2), IndexError, "transpose.*2"),)),
    Row("expand", lambda x, s: x.expand(*s), lambda x, s: np.broadcast_to(x, s), lambda g: (Sample(g.array(*a), b) for
        a, b in (((1,), (3,)), ((3, 1), (3, 129)), ((33,), (2, 33)), ((1, 0), (5, 0)))), SOME, EXACT,
        ops=("broadcast_to", "expand_as"),
        bad=(Bad("size", lambda g: ones(2, 3).expand(4, 3), ValueError, r"expand.*\(2, 3\).*\(4, 3\)"),)),
    Row("squeeze", lambda x, **k: x.squeeze(**k), lambda x, dim=None: np.squeeze(x, dim), shaped((
        ((1, 3, 1), {}), ((1, 3, 1), {"dim": 2}))), SOME, EXACT),
    Row("unsqueeze", lambda x, dim: x.unsqueeze(dim), np.expand_dims, lambda g: (Sample(g.array(2, 3), d) for d in
        (0, 1, 2, -1)), SOME, EXACT),
    Row("flatten", "flatten", lambda x, start_dim=0, end_dim=-1: x.reshape(
        *x.shape[:start_dim], -1, *x.shape[x.ndim + end_dim + 1:]), shaped((
            ((2, 3, 5), {}), ((2, 3, 5), {"start_dim": 1}), ((2, 3, 5), {"start_dim": 0, "end_dim": -2}))), SOME,
        EXACT),
    Row("flip", "flip", lambda x, dims: np.flip(x, dims), flipped, SOME, EXACT),
    Row("split", lambda x, n, dim: tuple(x.split(n, dim)), lambda x, n, dim: tuple(
        np.split(x, range(n, x.shape[dim], n), dim)), lambda g: (Sample(g.array(*s), n, d) for s, n, d in (
            ((7,), 3, 0), ((2, 130), 64, 1))), SOME, EXACT, ops=("chunk",)),
    Row("chunk", lambda x, n, dim: tuple(x.chunk(n, dim)), lambda x, n, dim: tuple(np.split(
        x, range(-(-x.shape[dim] // n), x.shape[dim], -(-x.shape[dim] // n)), dim)), lambda g: (
            Sample(g.array(*s), n, d) for s, n, d in (((7,), 3, 0), ((2, 130), 4, 1))), SOME, EXACT),
]  # fmt: skip


def bad_index(name, call, words):
    return Bad(name, call, IndexError, words)


ROWS = [
    Row("index", pick, pick, index_samples, ALL, EXACT, slots=("index",), ops=("getitem",),
        properties=(integers_are_taken_before_arrays,),
        large=lambda g: Sample(g.array(3001, 70), g.indices(4001, n=3001)),
        bad=(bad_index("range", lambda g: ones(3)[tw.tensor([0, 3])], "index.*3"),
             bad_index("scalar", lambda g: ones(3)[5], "5"),
             bad_index("many", lambda g: ones(3)[0, 0], "dim|indices"),
             Bad("mask", lambda g: ones(3)[tw.ones(4) > 0], IndexError, "mask|index"),
             Bad("float", lambda g: ones(3)[ones(2)], (IndexError, TypeError), "float32|integer"),
             Bad("step", lambda g: ones(3)[::-1], ValueError, "step"),
             Bad("broadcast", lambda g: ones(3, 3)[tw.tensor([0, 1]), tw.tensor([0, 1, 2])], (IndexError, ValueError),
                 r"\(2,\).*\(3,\)"))),
    Row("index_put", assigned, assigned, assign_samples, ALL, EXACT, slots=("index_put",), ops=("setitem",),
        large=lambda g: Sample(g.array(3001, 70), g.array(2000, 70), g.rng.permutation(3001)[:2000]),
        bad=(bad_index("range", lambda g: ones(3).__setitem__(tw.tensor([0, 3]), 1.0), "3"),
             Bad("shape", lambda g: ones(3).__setitem__(slice(None), ones(2)), ValueError, r"\(2,\).*\(3,\)"))),
    Row("gather", "gather", R.gather, gather_samples, ALL, EXACT, slots=("gather",), large=lambda g: Sample(
        g.array(501, 401), 1, g.indices(501, 300, n=401)),
        bad=(bad_index("range", lambda g: tw.gather(ones(3, 2), 0, tw.tensor([[3, 0]])), "gather.*3"),
             Bad("dims", lambda g: tw.gather(ones(3, 2), 0, tw.tensor([0])), ValueError, "gather"),
             Bad("size", lambda g: tw.gather(ones(3, 2), 0, tw.zeros((1, 3), dtype=tw.int64)), ValueError, "gather"),
             Bad("dtype", lambda g: tw.gather(ones(3), 0, ones(2)), TypeError, "gather.*float32"))),
    Row("scatter_add", "scatter_add", R.scatter_add, scatter_samples, (*FLOATS, "int32", "int64"), SUMS,
        slots=("scatter",), grad_samples=scatter_grad_samples,
        large=lambda g: Sample(g.array(501, 40), 1, g.indices(501, 300, n=40), g.array(501, 300)),
        magnitude=lambda x, d, i, s: R.scatter_add(np.abs(x), d, i, np.abs(s)),
        bad=(bad_index("range", lambda g: tw.scatter_add(ones(3), 0, tw.tensor([3]), ones(1)), "scatter_add.*3"),
             Bad("dtypes", lambda g: tw.scatter_add(ones(3), 0, tw.tensor([0]), ones(1).to(tw.float64)), TypeError,
                 "scatter_add.*float"))),
    Row("index_select", "index_select", lambda x, dim, i: np.take(x, i, dim), select_samples, ALL, EXACT,
        slots=("take",), large=lambda g: Sample(g.array(70, 301, 3), 1, g.indices(2000, n=301)),
        bad=(bad_index("range", lambda g: tw.index_select(ones(3), 0, tw.tensor([3])), "index_select.*3"),)),
    Row("index_add", "index_add", R.index_add, put_samples, ("float32", "float64", "int64"), SUMS,
        magnitude=lambda x, d, i, s: R.index_add(np.abs(x), d, i, np.abs(s))),
    Row("masked_fill", lambda x, m, v: x.masked_fill(m, v), lambda x, m, v: np.where(m, np.asarray(v, x.dtype), x),
        lambda g: (Sample(g.array(*s), g.mask(*m), 1) for s, m in (((), ()), ((129,), (129,)), ((2, 3, 33), (3, 1)))),
        SOME, EXACT),
    Row("cat", joined("cat"), lambda *a, dim: np.concatenate(a, dim), cat_samples, ALL, EXACT,
        ops=("cat", "concat", "concatenate"), large=lambda g: Sample(g.array(501, 70), g.array(501, 301), dim=1),
        bad=(Bad("shapes", lambda g: tw.cat([ones(2, 3), ones(2, 4)], 0), ValueError, r"cat.*\(2, 3\).*\(2, 4\)"),
             Bad("none", lambda g: tw.cat([], 0), ValueError, "cat"),
             Bad("dim", lambda g: tw.cat([ones(2)], 1), IndexError, "cat.*1"))),
    Row("stack", joined("stack"), lambda *a, dim: np.stack(a, dim), stack_samples, ALL, EXACT, ops=("stack",),
        bad=(Bad("shapes", lambda g: tw.stack([ones(2), ones(3)]), ValueError, r"stack.*\(2,\).*\(3,\)"),)),
    *VIEWS,
]  # fmt: skip
