"""Rows of functions that scripts seldom use, made of other ops; test_further_ops.py holds more forms to PyTorch."""

from __future__ import annotations

import math

import mpmath
import numpy as np

import tilewright as tw
from op_table.row import ELEMENTARY, EXACT, Row, Sample, Tolerance

TERMS = Tolerance(16.0, "array", "a few ops, each rounding once")


def further(name, ref, *arguments, fn=None, ops=(), tol=TERMS, dtypes=("float32",), low=-3.0, high=3.0, **fields):
    """A row of one sample. A tuple is the shape of an array in [low, high), a function makes an argument, the rest is
    passed as it is."""
    def samples(g):
        keywords = fields.get("keywords", {})
        yield Sample(*(g.array(*a, low=low, high=high) if isinstance(a, tuple) else a(g) if callable(a) else a
                       for a in arguments), **keywords)

    rest = {k: v for k, v in fields.items() if k != "keywords"}
    return Row(name, fn or name, ref, samples, dtypes, tol, ops=ops, layouts=False, **rest)


def ints(*shape, low=-5, high=5):
    return lambda g: np.asarray(g.rng.integers(low, high, shape))


def mask(*shape):
    return lambda g: g.mask(*shape)


def each(function):
    return lambda x, *rest: np.vectorize(lambda v: float(function(v, *rest)))(x.astype(float)).astype(x.dtype)


def sorted_values(n):
    return lambda g: np.sort(g.array(n))


def moved(name, ref, *arguments, **fields):
    return further(name, ref, *arguments, tol=EXACT, dtypes=fields.pop("dtypes", ("float32", "int64")), **fields)


def at(ref, place):
    """The reference of one of several results."""
    return lambda *a: ref(*a)[place]


def scatter_max(x, dim, index, src, reduce):
    y, places = x.copy(), list(np.indices(index.shape))
    places[dim] = index
    np.maximum.at(y, tuple(places), src)
    return y


def written(write):
    def ref(x, *rest):
        y = x.copy()
        write(y, *rest)
        return y

    return ref


def put(y, index, values):
    y.reshape(-1)[index % y.size] = values


def masked(y, where, values):
    y[where] = values.reshape(-1)[:where.sum()]


def index_mean(y, dim, index, source, how):
    total, count = y.copy(), np.ones(y.shape, y.dtype)
    np.add.at(total, index, source)
    np.add.at(count, index, 1)
    y[...] = total / count


def renorm(x, p, dim, most):
    norms = np.sqrt((x**2).sum(1, keepdims=True))
    return x * np.where(norms > most, most / (norms + np.asarray(1e-7, x.dtype)), 1).astype(x.dtype)


def block(a, b):
    y = np.zeros((a.shape[0] + b.shape[0], a.shape[1] + b.shape[1]), a.dtype)
    y[:a.shape[0], :a.shape[1]], y[a.shape[0]:, a.shape[1]:] = a, b
    return y


def embed(x):
    return x[..., None] * np.eye(x.shape[-1], dtype=x.dtype)


def mode_values(x):
    return np.array([min(set(r), key=lambda v: (-r.count(v), v)) for r in x.tolist()], x.dtype)


def trapezoid(y):
    return ((y[..., 1:] + y[..., :-1]) / 2).sum(-1, dtype=y.dtype)


def scalar_ops():
    assert tw.is_nonzero(tw.tensor(2.0)) and not tw.is_nonzero(tw.tensor(0))
    assert tw.numel(tw.ones(2, 3)) == 6 and tw.can_cast(tw.int64, tw.float16) and not tw.can_cast(tw.float16, tw.int64)
    assert tw.broadcast_shapes((2, 1), 3, (1, 1, 1)) == (1, 2, 3)
    x = tw.ones(2)
    assert tw.positive(x) is x and tw.isreal(x).all() and tw.atleast_1d(x, x)[1] is x


def poisson_moments():
    tw.manual_seed(0)
    for rate in (0.3, 30.0):
        x = tw.poisson(tw.full((20_000,), rate))
        assert abs(x.mean().item() - rate) < 0.05 * rate and abs(x.var().item() - rate) < 0.05 * rate


ROWS = [
    further("acosh", np.arccosh, (129,), low=1.2, high=5.0, ops=("arccosh",)),
    further("asinh", np.arcsinh, (3, 43), ops=("arcsinh",)),
    further("atanh", np.arctanh, (129,), low=-0.9, high=0.9, ops=("arctanh",)),
    further("erfc", each(math.erfc), (129,)),
    further("erfinv", each(mpmath.erfinv), (65,), low=-0.9, high=0.9),
    further("lgamma", each(math.lgamma), (129,), low=0.2, high=9.0),
    further("digamma", each(mpmath.digamma), (65,), low=0.3, high=9.0),
    further("polygamma", lambda x: each(lambda v: mpmath.psi(2, v))(x), (65,), low=0.4, high=9.0,
            fn=lambda x: tw.polygamma(2, x)),
    further("mvlgamma", lambda x, p: sum(each(math.lgamma)(x - np.asarray(j / 2, x.dtype)) for j in range(p)) +
            np.asarray(p * (p - 1) / 4 * math.log(math.pi), x.dtype), (65,), 2, low=2.0, high=9.0),
    further("sinc", np.sinc, (129,)),
    further("logit", lambda x: np.log(x / (1 - x)), (129,), low=0.1, high=0.9),
    further("logaddexp", np.logaddexp, (3, 1), (43,)),
    further("logaddexp2", np.logaddexp2, (3, 43), (43,)),
    further("hypot", np.hypot, (3, 1), (43,)),
    further("xlogy", lambda x, y: x * np.log(y), (3, 1), (43,), low=0.2),
    further("float_power", lambda x, p: x.astype(np.float64) ** p, (43,), 3, dtypes=("float64",)),
    further("ldexp", lambda x, n: np.ldexp(x, n), (43,), ints(43)),
    further("copysign", np.copysign, (43,), (43,), tol=EXACT, no_grad=(1,)),
    further("rad2deg", np.rad2deg, (43,)),
    further("deg2rad", np.deg2rad, (43,)),
    further("angle", np.angle, (43,), grad=False),
    moved("fmax", np.fmax, (43,), (43,)),
    moved("fmin", np.fmin, (43,), (43,)),
    moved("heaviside", np.heaviside, (43,), (43,), grad=False, dtypes=("float32",)),
    moved("nan_to_num", np.nan_to_num, (43,)),
    moved("signbit", np.signbit, (43,), grad=False),
    moved("sgn", np.sign, (43,), ops=("fix",), grad=False),
    moved("isposinf", np.isposinf, (43,), grad=False, ops=("isneginf", "isreal", "is_nonzero", "can_cast",
                                                           "broadcast_shapes", "numel"), properties=(scalar_ops,)),
    moved("clamp_min", np.maximum, (43,), 0.5, dtypes=("float32",)),
    moved("clamp_max", np.minimum, (43,), 0.5, dtypes=("float32",)),
    moved("fill", lambda x, v: np.full_like(x, v), (43,), 2, grad=False),
    moved("greater", np.greater, (43,), (43,), grad=False),
    moved("greater_equal", np.greater_equal, (43,), (43,), grad=False),
    moved("less", np.less, (43,), (43,), grad=False),
    moved("less_equal", np.less_equal, (43,), (43,), grad=False),
    moved("not_equal", np.not_equal, (43,), (43,), grad=False),
    moved("gcd", np.gcd, ints(43), ints(43), dtypes=("int64",), grad=False),
    moved("lcm", np.lcm, ints(43), ints(43), dtypes=("int64",), grad=False),
    moved("positive", lambda x: +x, (43,), dtypes=("float32",)),
    further("true_divide", np.true_divide, (43,), (43,), low=0.5, tol=ELEMENTARY),
    further("arctan2", np.arctan2, (43,), (43,)),
    moved("searchsorted", np.searchsorted, sorted_values(9), (3, 43), grad=False),
    moved("bucketize", lambda x, s: np.searchsorted(s, x), (3, 43), sorted_values(9), grad=False),
    moved("isin", np.isin, ints(43), ints(4), dtypes=("int64",), grad=False),
    moved("histc", lambda x, n, a, b: np.histogram(x, n, (a, b))[0].astype(x.dtype), (300,), 8, -3, 3,
          dtypes=("float32",), grad=False),
    further("quantile", lambda x, q, d: np.quantile(x, q, d).astype(x.dtype), (5, 43), 0.3, 1),
    further("nanquantile", lambda x, q, d: np.nanquantile(x, q, d).astype(x.dtype), (5, 43), 0.3, 1),
    moved("mode", lambda x: [mode_values(x)], ints(5, 43), fn=lambda x: tw.mode(x)[:1], dtypes=("int64",), grad=False),
    further("diff", lambda x, n: np.diff(x, n), (5, 43), 2),
    further("trapezoid", trapezoid, (5, 43), ops=("trapz",)),
    further("cumulative_trapezoid", lambda y: np.cumsum((y[:, 1:] + y[:, :-1]) / 2, 1, dtype=y.dtype), (5, 43)),
    further("cov", lambda x: np.cov(x).astype(x.dtype), (5, 43)),
    further("corrcoef", lambda x: np.corrcoef(x).astype(x.dtype), (5, 43)),
    moved("take", lambda x, i: x.reshape(-1)[i], (5, 7), ints(4, 3)),
    moved("tril_indices", lambda m, n: np.stack(np.tril_indices(m, 0, n)), 5, 7, dtypes=("int64",), grad=False),
    moved("triu_indices", lambda m, n: np.stack(np.triu_indices(m, 0, n)), 5, 7, dtypes=("int64",), grad=False),
    moved("unravel_index", lambda i, s: list(np.unravel_index(i, s)), ints(9, low=0, high=30), (lambda g: (5, 6)),
          dtypes=("int64",), grad=False),
    moved("combinations", lambda x: np.array([(a, b) for k, a in enumerate(x) for b in x[k + 1:]], x.dtype), (5,)),
    moved("cartesian_prod", lambda x, y: np.stack([v.ravel() for v in np.meshgrid(x, y, indexing="ij")], -1), (5,),
        (3,)),
    further("vander", lambda x: np.vander(x, 3), (5,), fn=lambda x: tw.vander(x, 3)),
    moved("swapaxes", np.swapaxes, (2, 3, 4), 0, 2, ops=("swapdims",)),
    moved("moveaxis", np.moveaxis, (2, 3, 4), 0, 2),
    moved("adjoint", lambda x: np.swapaxes(x, -1, -2), (2, 3, 4)),
    moved("atleast_3d", lambda x: np.atleast_3d(x), (4, 5), ops=("atleast_1d", "atleast_2d")),
    moved("rot90", lambda x, k: np.rot90(x, k).copy(), (4, 5), 3),
    moved("diag_embed", embed, (4, 5)),
    moved("diagflat", np.diagflat, (2, 3)),
    moved("dstack", lambda x, y: np.dstack([x, y]), (4, 5), (4, 5), fn=lambda x, y: tw.dstack([x, y])),
    moved("column_stack", lambda x, y: np.column_stack([x, y]), (4,), (4, 5), fn=lambda x, y: tw.column_stack([x, y])),
    moved("block_diag", block, (2, 3), (1, 4)),
    moved("tensor_split", lambda x, n: np.array_split(x, n), (7, 2), 3, ops=("vsplit", "hsplit", "dsplit")),
    moved("select_scatter", written(lambda y, v, d, i: np.copyto(y[:, i], v)), (3, 4), (3,), 1, 2),
    moved("slice_scatter", written(lambda y, v, d, a: np.copyto(y[:, a:], v)), (3, 4), (3, 2), 1, 2),
    moved("diagonal_scatter", written(lambda y, v: np.fill_diagonal(y, v)), (4, 4), (4,)),
    moved("masked_scatter", written(masked), (3, 4), mask(3, 4), (12,)),
    moved("scatter_reduce", scatter_max, (4, 5), 0, ints(3, 5, low=0, high=4), (3, 5), "amax"),
    further("index_reduce", written(index_mean), (4, 5), 0, ints(6, low=0, high=4), (6, 5), "mean"),
    moved("put", written(put), (3, 4), (lambda g: np.array([0, 5, -1])), (3,)),
    further("renorm", renorm, (3, 4), 2, 0, 1.5),
    further("addmv", lambda b, m, v: b + m @ v, (3,), (3, 4), (4,)),
    further("addr", lambda b, v, w: b + np.outer(v, w), (3, 4), (3,), (4,)),
    further("addbmm", lambda b, x, y: b + (x @ y).sum(0), (3, 5), (2, 3, 4), (2, 4, 5)),
    further("ger", np.outer, (3,), (4,)),
    further("vdot", np.vdot, (9,), (9,)),
    further("inner", np.inner, (2, 3, 4), (5, 4)),
    further("kron", np.kron, (2, 3), (3, 2)),
    further("chain_matmul", lambda x, y, z: x @ y @ z, (2, 6), (6, 3), (3, 5)),
    moved("argwhere", np.argwhere, (4, 5), grad=False),
    moved("poisson", lambda x: x * 0, (0,), dtypes=("float32",), grad=False, properties=(poisson_moments,)),
]  # fmt: skip
