"""Rows of the ops that are made of other ops: no kernel of their own, so their dtypes are float32 and float64."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import FLOATS
from op_table.elementwise import LARGE
from op_table.nn import COMPOSED
from op_table.products import PRODUCT, sized
from op_table.row import ELEMENTARY, EXACT, SUMS, Bad, Row, Sample, Tolerance

WIDE = ("float32", "float64")
MOVED = (*WIDE, "int64", "bool")
TERMS = Tolerance(8.0, "array", "a few ops, each rounding once")


def arrays(*shapes, **kwargs):
    """One sample of arrays of these shapes."""
    return lambda g: iter((Sample(*(g.array(*shape) for shape in shapes), **kwargs),))


def many(*cases, **limits):
    """Samples (shape, *other arguments)."""
    return lambda g: (Sample(g.array(*shape, **limits), *rest) for shape, *rest in cases)


def moved(name, ref, samples, fn=None, **fields):
    return Row(name, fn or name, ref, samples, fields.pop("dtypes", MOVED), EXACT, **fields)


def addmm(c, a, b, beta=1, alpha=1):
    return beta * c + alpha * np.matmul(a, b)


def curve(name, ref, low=-6.0, high=6.0, **fields):
    """A row of an activation."""
    shapes = fields.pop("shapes", ((), (0,), (129,), (3, 43)))
    samples = many(*((shape,) for shape in shapes), low=low, high=high)
    dtypes, tol = fields.pop("dtypes", WIDE), fields.pop("tol", ELEMENTARY)
    return Row(name, fields.pop("fn", name), ref, samples, dtypes, tol, **fields)


def large(g):
    return Sample(g.array(*LARGE))


def kernel(name, ref, backward=None, **fields):
    """A row of an activation that has kernels of its own."""
    return curve(f"F.{name}", ref, dtypes=FLOATS, slots=(name, backward or f"{name}_backward"), large=large, **fields)


def log_sigmoid(x):
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def hard_sigmoid(x):
    return np.clip(x / 6 + np.asarray(0.5, x.dtype), 0, 1)


def celu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def huber(x, t, reduction="mean", delta=1.0):
    away = np.abs(x - t)
    return R.reduced(np.where(away <= delta, away * away / 2, delta * (away - delta / 2)), reduction)


def norm(x, dim=None, keepdim=False):
    return np.sqrt(np.sum(x * x, axis=R.axes(dim), keepdims=keepdim))


def normalize(x, dim=1):
    return x / np.maximum(norm(x, dim, True), np.asarray(1e-12, x.dtype))


def index_copy(x, dim, index, src):
    y = np.moveaxis(x.copy(), dim, 0)
    y[index] = np.moveaxis(src, dim, 0)
    return np.moveaxis(y, 0, dim)


def index_fill(x, dim, index, value):
    y = np.moveaxis(x.copy(), dim, 0)
    y[index] = value
    return np.moveaxis(y, 0, dim)


def scatter(x, dim, index, src):
    y = x.copy()
    np.put_along_axis(y, index, src, dim)
    return y


def scattered(g):
    index = np.stack([g.rng.permutation(7)[:4] for _ in range(3)])
    yield Sample(g.array(3, 7), 1, index, g.array(3, 4))


def copied(g):
    yield Sample(g.array(5, 4), 0, g.rng.permutation(5)[:3], g.array(3, 4))
    yield Sample(g.array(5, 4), 1, np.array([3, 0]), g.array(5, 2))


def holes(g):
    """Values with NaN among them, at least one number a row and a column."""
    for dim in (None, 0, 1):
        x = g.array(3, 43)
        x[g.mask(3, 43)] = np.nan
        x[np.arange(43) % 3, np.arange(43)] = 1.5
        yield Sample(x, dim)


def functional(name):
    return lambda *args, **kw: getattr(tw.nn.functional, name)(*args, **kw)


ROWS = [
    Row("addmm", "addmm", addmm, lambda g: (Sample(g.array(*c), g.array(3, 129), g.array(129, 5), beta=b, alpha=a)
        for c in ((3, 5), (5,)) for a, b in ((1, 1), (2, 0.5))), WIDE, PRODUCT, magnitude=sized(addmm)),
    Row("baddbmm", "baddbmm", addmm, arrays((2, 3, 5), (2, 3, 33), (2, 33, 5)), WIDE, PRODUCT, magnitude=sized(addmm)),
    Row("dot", "dot", np.dot, arrays((129,), (129,)), WIDE, PRODUCT, magnitude=sized(np.dot),
        bad=(Bad("shapes", lambda g: tw.dot(tw.ones(2), tw.ones(3)), ValueError, r"\(2,\).*\(3,\)"),)),
    Row("mv", "mv", np.matmul, arrays((5, 129), (129,)), WIDE, PRODUCT, magnitude=sized(np.matmul)),
    Row("outer", "outer", np.outer, arrays((3,), (129,)), WIDE, TERMS),
    moved("diag", np.diag, many(((4,),), ((3, 5),), ((3, 5), 1), ((4,), -1))),
    moved("diagonal", np.diagonal, many(((3, 5),), ((5, 3), -1))),
    moved("fliplr", np.fliplr, many(((3, 129),))),
    moved("flipud", np.flipud, many(((3, 129),))),
    moved("hstack", lambda *a: np.hstack(a), arrays((2, 3), (2, 5)), lambda *a: tw.hstack(a)),
    moved("vstack", lambda *a: np.vstack(a), arrays((3,), (2, 3)), lambda *a: tw.vstack(a)),
    moved("index_copy", index_copy, copied),
    moved("index_fill", index_fill, lambda g: (Sample(g.array(5, 4), d, np.array([2, 0]), 1) for d in (0, 1))),
    moved("masked_select", lambda x, m: x[m], lambda g: iter((Sample(g.array(3, 43), g.mask(3, 43)),)), layouts=False),
    moved("meshgrid", lambda *a: np.meshgrid(*a, indexing="ij"), arrays((3,), (4,)),
          lambda *a: tuple(tw.meshgrid(*a, indexing="ij"))),
    moved("broadcast_tensors", lambda *a: np.broadcast_arrays(*a), arrays((3, 1), (4,)),
          lambda *a: tuple(tw.broadcast_tensors(*a))),
    moved("movedim", np.moveaxis, many(((2, 3, 5), 0, 2), ((2, 3, 5), -1, 0))),
    moved("narrow", lambda x, d, s, n: np.take(x, range(s, s + n), d), many(((5, 4), 0, 1, 3), ((5, 129), 1, 2, 64)),
          bad=(Bad("range", lambda g: tw.narrow(tw.ones(3), 0, 2, 2), (ValueError, IndexError), "narrow"),)),
    Row("nonzero", "nonzero", np.argwhere, lambda g: (Sample(g.array(*s)) for s in ((0,), (129,), (3, 43))),
        ("bool", "int64"), EXACT, grad=False, layouts=False),
    Row("aminmax", lambda x, **k: tuple(tw.aminmax(x, **k)), lambda x, dim=None: (np.min(x, dim), np.max(x, dim)),
        lambda g: (Sample(g.distinct(3, 43), **k) for k in ({}, {"dim": 0}, {"dim": 1})), WIDE, EXACT),
    Row("count_nonzero", "count_nonzero", lambda x, dim=None: np.asarray(np.count_nonzero(x, axis=dim)),
        many(((3, 43),), ((3, 43), 0), ((3, 43), 1), ((0,),)), ("int64", "bool"), EXACT, grad=False),
    Row("nansum", "nansum", lambda x, dim: np.nansum(x, dim), holes, WIDE, SUMS,
        magnitude=lambda x, dim: np.nansum(np.abs(x), dim), grad_samples=many(((3, 43), 1))),
    Row("nanmean", "nanmean", lambda x, dim: np.nanmean(x, dim), holes, WIDE, SUMS,
        magnitude=lambda x, dim: np.nanmean(np.abs(x), dim), grad_samples=many(((3, 43), 1))),
    Row("norm", "norm", norm, lambda g: (Sample(g.array(3, 43), **k) for k in ({}, {"dim": 1},
        {"dim": 0, "keepdim": True})), WIDE, SUMS),
    moved("repeat_interleave", np.repeat, many(((3, 5), 2, 0), ((3, 5), 3, 1))),
    moved("roll", np.roll, many(((129,), 5), ((3, 5), -2, 1), ((3, 5), (1, 2), (0, 1)))),
    moved("scatter", scatter, scattered),
    moved("select", lambda x, d, i: np.take(x, i, d), many(((3, 5), 0, 1), ((3, 5), 1, -1))),
    Row("std_mean", "std_mean", lambda x, dim: (R.std(x, dim), R.mean(x, dim)), many(((3, 43), 1), ((3, 43), 0)), WIDE,
        TERMS, magnitude=lambda x, dim: np.max(np.abs(x))),
    Row("var_mean", "var_mean", lambda x, dim: (R.var(x, dim), R.mean(x, dim)), many(((3, 43), 1), ((3, 43), 0)), WIDE,
        TERMS, magnitude=lambda x, dim: np.max(x * x)),
    moved("take_along_dim", np.take_along_axis, lambda g: iter((Sample(g.array(3, 7), g.indices(3, 4, n=7), 1),))),
    moved("tile", np.tile, many(((3,), (2,)), ((2, 3), (2, 1, 2)))),
    moved("tril", np.tril, many(((5, 7),), ((5, 7), 2), ((5, 7), -1), ((2, 4, 4),))),
    moved("triu", np.triu, many(((5, 7),), ((5, 7), 2), ((5, 7), -1), ((2, 4, 4),))),
    moved("unbind", lambda x, d: tuple(np.moveaxis(x, d, 0)), many(((3, 5), 0), ((3, 5), 1)),
          lambda x, d: tuple(tw.unbind(x, d))),
    moved("unflatten", lambda x, d, s: x.reshape(*x.shape[:d], *s, *x.shape[d + 1 :]), many(((3, 12), 1, (3, 4)))),
    moved("as_strided", lambda x, size, stride, offset: np.lib.stride_tricks.as_strided(
        x.reshape(-1)[offset:], size, tuple(s * x.itemsize for s in stride)), many(((20,), (3, 4), (2, 3), 1)),
        layouts=False, grad=False),
    kernel("celu", celu),
    kernel("hardsigmoid", hard_sigmoid),
    kernel("hardswish", lambda x: x * hard_sigmoid(x), tol=TERMS),
    curve("F.hardtanh", lambda x: np.clip(x, -1, 1), tol=EXACT, dtypes=FLOATS, slots=("inside_backward",),
          large=large),
    curve("F.relu6", lambda x: np.clip(x, 0, 6), high=9.0, tol=EXACT, dtypes=FLOATS),
    kernel("logsigmoid", log_sigmoid),
    kernel("mish", lambda x: x * np.tanh(R.softplus(x)), tol=Tolerance(12.0, reason="softplus, tanh, product")),
    kernel("softsign", lambda x: x / (1 + np.abs(x))),
    kernel("tanhshrink", lambda x: x - np.tanh(x), tol=TERMS),
    kernel("hardshrink", lambda x: np.where(np.abs(x) > 0.5, x, 0), tol=EXACT, backward="shrink_backward"),
    kernel("softshrink", lambda x: np.sign(x) * np.maximum(np.abs(x) - np.asarray(0.5, x.dtype), 0),
           backward="shrink_backward"),
    kernel("threshold", lambda x: np.where(x > 0.25, x, np.asarray(-2.0, x.dtype)),
           fn=lambda x: functional("threshold")(x, 0.25, -2.0), tol=EXACT),
    # Without training, a leaky ReLU; the slopes drawn and gumbel_softmax's samples are measured in test_direct.py.
    curve("F.rrelu", lambda x: np.where(x > 0, x, x * np.asarray(11 / 48, x.dtype)), ops=("gumbel_softmax",)),
    curve("F.softmin", lambda x: R.softmax(-x, -1), tol=SUMS, shapes=((129,), (3, 43))),
    curve("F.glu", lambda x: x[..., : x.shape[-1] // 2] * R.sigmoid(x[..., x.shape[-1] // 2 :]), tol=TERMS,
          shapes=((128,), (3, 44))),
    Row("prelu", "F.prelu", lambda x, w: np.where(x > 0, x, x * w.reshape(-1, *(1,) * (x.ndim - 2))), lambda g: (
        Sample(g.array(*shape), g.array(n)) for shape, n in (((129,), 1), ((3, 5, 7), 5), ((3, 5), 1))), WIDE, TERMS),
    Row("huber_loss", "F.huber_loss", huber, lambda g: (Sample(g.array(3, 43), g.array(3, 43), reduction=r, delta=d)
        for r in ("mean", "sum", "none") for d in (1.0, 0.5)), WIDE, COMPOSED),
    Row("normalize", "F.normalize", normalize, lambda g: (Sample(g.array(3, 43), dim=d) for d in (0, 1)), WIDE, TERMS),
    Row("one_hot", "F.one_hot", lambda i, n: (i[..., None] == np.arange(n)).astype(np.int64), lambda g: (
        Sample(g.indices(*s, n=7), 7) for s in ((), (5,), (3, 4))), ("int64",), EXACT, grad=False,
        bad=(Bad("range", lambda g: functional("one_hot")(tw.tensor([7]), 7), (ValueError, IndexError),
                 "one_hot.*7"),)),
]  # fmt: skip
