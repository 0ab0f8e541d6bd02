"""Ops made of other ops against PyTorch: values, dtypes, gradients of two orders, in-place forms, out=, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tilewright as tw
from tilewright import methods

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
NAN, INF = math.nan, math.inf


def real(*shape):
    return RNG.standard_normal(shape)


def unit(*shape):
    return RNG.uniform(-0.95, 0.95, shape)


def positive(*shape):
    return RNG.uniform(0.2, 4.0, shape)


def ints(*shape, low=-5, high=6):
    return RNG.integers(low, high, shape)


def mask(*shape):
    return RNG.random(shape) < 0.5


ODD = np.array([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 3.5, -2.5])
UP = np.array([-1.0, 0.0, 0.5, 0.5, 2.0])

# name: (function(library, *tensors), arrays); floats are differentiated twice
CASES = {
    "acosh": (lambda lib, x: lib.acosh(x), [positive(5) + 1]),
    "asinh": (lambda lib, x: x.asinh(), [real(5) * 10]),
    "atanh": (lambda lib, x: lib.arctanh(x), [unit(5)]),
    "erfc": (lambda lib, x: x.erfc(), [real(5) * 2]),
    "erfinv": (lambda lib, x: lib.erfinv(x), [unit(5)]),
    "lgamma": (lambda lib, x: lib.lgamma(x), [positive(5)]),
    "lgamma-negative": (lambda lib, x: x.lgamma(), [-positive(5)]),
    "digamma": (lambda lib, x: x.digamma(), [positive(5) + 1]),
    "digamma-negative": (lambda lib, x: lib.digamma(x), [np.array([-0.3, -1.7, -4.2])]),
    "polygamma": (lambda lib, x: lib.polygamma(2, x), [np.array([0.3, 2.0, -1.7, 15.0])]),
    "mvlgamma": (lambda lib, x: x.mvlgamma(3), [positive(4) + 2]),
    "sinc": (lambda lib, x: x.sinc(), [np.array([0.7, -2.5, 1.0, 4.2])]),
    "logit": (lambda lib, x: lib.logit(x, eps=0.2), [RNG.uniform(0, 1, 9)]),
    "logaddexp": (lambda lib, x, y: lib.logaddexp(x, y), [real(3, 1), real(4) * 50]),
    "logaddexp2": (lambda lib, x, y: x.logaddexp2(y), [real(4), real(4)]),
    "hypot": (lambda lib, x, y: lib.hypot(x, y), [real(3, 1), real(4)]),
    "xlogy": (lambda lib, x, y: lib.xlogy(x, y), [real(3, 1), positive(4)]),
    "xlogy-number": (lambda lib, x: lib.xlogy(2, x), [positive(4)]),
    "float_power": (lambda lib, x: lib.float_power(x, 3), [real(4)]),
    "ldexp": (lambda lib, x, y: lib.ldexp(x, y), [real(4), ints(4, low=0)]),
    "fmax": (lambda lib, x, y: lib.fmax(x, y), [real(9), real(9)]),
    "fmin": (lambda lib, x, y: x.fmin(y), [real(9), real(9)]),
    "copysign": (lambda lib, x, y: lib.copysign(x, y), [real(4), real(4)]),
    "heaviside": (lambda lib, x, y: lib.heaviside(x.detach(), y.detach()), [ODD, real(9)]),
    "nan_to_num": (lambda lib, x: lib.nan_to_num(x, 2.0, 7.0), [real(4)]),
    "nan_to_num-odd": (lambda lib, x: x.detach().nan_to_num(), [ODD]),
    "signbit": (lambda lib, x: lib.signbit(x.detach()), [ODD]),
    "sgn": (lambda lib, x: x.sgn(), [ints(6)]),
    "isposinf": (lambda lib, x: lib.isposinf(x.detach()) | x.detach().isneginf(), [ODD]),
    "fmax-odd": (lambda lib, x, y: lib.fmax(x.detach(), y.detach()), [ODD, np.roll(ODD, 1)]),
    "angle": (lambda lib, x: lib.angle(x.detach()), [ODD]),
    "gcd": (lambda lib, x, y: lib.gcd(x, y), [ints(3, 1), ints(4)]),
    "lcm": (lambda lib, x, y: x.lcm(y), [ints(5), ints(5)]),
    "rad2deg": (lambda lib, x: lib.deg2rad(lib.rad2deg(x) * 2), [real(4)]),
    "clamp_min": (lambda lib, x: lib.clamp_min(x, 0.1).clamp_max(0.9), [real(9)]),
    "positive": (lambda lib, x: +lib.positive(x), [real(3)]),
    "true_divide": (lambda lib, x, y: lib.true_divide(x, y), [ints(4), ints(4, low=1)]),
    "fill": (lambda lib, x: lib.fill(x, 2.5) * x, [real(3)]),
    "greater": (lambda lib, x, y: lib.greater(x, y) ^ x.less_equal(y) ^ lib.not_equal(x, y), [ints(9), ints(9)]),
    # order, counts, integrals
    "searchsorted": (lambda lib, s, x: lib.searchsorted(s, x.detach(), right=True), [UP, np.append(real(20), [0.5,
        NAN])]),
    "searchsorted-left": (lambda lib, s, x: lib.searchsorted(s, x, side="left", out_int32=True), [UP, np.append(UP,
        NAN)]),
    "searchsorted-rows": (lambda lib, s, x: lib.searchsorted(s, x), [np.sort(ints(2, 3, 7), -1), ints(2, 3, 4)]),
    "searchsorted-sorter": (lambda lib, s, x: lib.searchsorted(s, x, sorter=lib.argsort(s)), [real(7), real(4)]),
    "searchsorted-number": (lambda lib, s: lib.searchsorted(s, 0.6), [UP]),
    "searchsorted-empty": (lambda lib, s, x: lib.searchsorted(s, x), [real(0), real(3)]),
    "bucketize": (lambda lib, x, s: lib.bucketize(x, s, right=True), [real(3, 4), UP]),
    "isin": (lambda lib, x, t: lib.isin(x, t), [ints(4, 5), ints(3)]),
    "isin-inverted": (lambda lib, x: lib.isin(x, 2, invert=True), [ints(9)]),
    "histc": (lambda lib, x: lib.histc(x.detach(), bins=5, min=-1, max=1), [real(50)]),
    "histc-own": (lambda lib, x: x.detach().histc(7), [real(50)]),
    "quantile": (lambda lib, x, q: lib.quantile(x, q.detach(), dim=1), [real(3, 7), np.array([0.0, 0.3, 1.0])]),
    "quantile-all": (lambda lib, x: x.quantile(0.4, keepdim=True), [real(3, 7)]),
    **{f"quantile-{how}": (lambda lib, x, how=how: lib.quantile(x, 0.37, 0, True, interpolation=how), [real(7, 3)])
       for how in ("lower", "higher", "midpoint", "nearest")},
    "quantile-nan": (lambda lib, x: lib.quantile(x.detach(), 0.5, dim=0), [np.stack([ODD, real(9)], 1)]),
    "nanquantile": (lambda lib, x: lib.nanquantile(x.detach(), 0.4, dim=0), [np.stack([ODD[:4], [NAN] * 4, real(4)],
        1)]),
    "mode": (lambda lib, x: lib.mode(x, 1)[0], [ints(4, 9, low=0, high=4)]),
    "mode-float": (lambda lib, x: x.mode(0, keepdim=True).values, [ints(9, 4, low=0, high=3) / 2.0]),
    "diff": (lambda lib, x, y: lib.diff(x, 2, 0, prepend=y), [real(5, 3), real(1, 3)]),
    "diff-bool": (lambda lib, x: x.diff(), [mask(3, 6)]),
    "trapezoid": (lambda lib, y, x: lib.trapezoid(y, x, dim=0), [real(5, 3), real(5)]),
    "trapz": (lambda lib, y: lib.trapz(y, dx=0.5), [real(2, 5)]),
    "cumulative_trapezoid": (lambda lib, y: lib.cumulative_trapezoid(y), [real(2, 5)]),
    "cov": (lambda lib, x: lib.cov(x), [real(3, 7)]),
    "cov-weights": (lambda lib, x, f, a: lib.cov(x, fweights=f, aweights=a.detach(), correction=0),
                    [real(3, 5), ints(5, low=1), positive(5)]),
    "cov-1d": (lambda lib, x, a: x.cov(aweights=a.detach()), [real(7), positive(7)]),
    "corrcoef": (lambda lib, x: lib.corrcoef(x), [real(3, 7)]),
    "take": (lambda lib, x, i: lib.take(x, i), [real(3, 4), ints(2, 5)]),
    "tril_indices": (lambda lib: lib.tril_indices(3, 5, 1), []),
    "triu_indices": (lambda lib: lib.triu_indices(4, 3, -1), []),
    "unravel_index": (lambda lib, i: lib.stack(lib.unravel_index(i, (3, 4))), [ints(5, low=0, high=12)]),
    "combinations": (lambda lib, x: lib.combinations(x, 3), [real(5)]),
    "combinations-again": (lambda lib, x: lib.combinations(x, with_replacement=True), [real(3)]),
    "cartesian_prod": (lambda lib, x, y: lib.cartesian_prod(x, y), [real(3), real(2)]),
    "vander": (lambda lib, x: lib.vander(x.detach(), 4, increasing=True), [positive(3)]),
    # shapes
    "swapaxes": (lambda lib, x: lib.swapaxes(x, 0, -1).swapdims(1, 0), [real(2, 3, 4)]),
    "moveaxis": (lambda lib, x: lib.moveaxis(x, (0, 1), (2, 0)), [real(2, 3, 4)]),
    "adjoint": (lambda lib, x: lib.adjoint(x) + x.mH, [real(2, 3, 3)]),
    "atleast": (lambda lib, x, y: lib.cat([lib.atleast_3d(x), lib.atleast_3d([lib.atleast_2d(y)])[0]], 1),
                [real(1, 3), real(2)]),
    **{f"rot90-{k}": (lambda lib, x, k=k: lib.rot90(x, k, (1, 2)), [real(2, 3, 4)]) for k in (-1, 0, 1, 2, 3, 5)},
    "diag_embed": (lambda lib, x: lib.diag_embed(x, 1, 0, 2), [real(2, 3)]),
    "diagflat": (lambda lib, x: lib.diagflat(x, -1), [real(2, 2)]),
    "dstack": (lambda lib, x, y: lib.dstack([x, y]), [real(2, 3), real(2, 3)]),
    "column_stack": (lambda lib, x, y: lib.column_stack([x, y]), [real(3), real(3, 2)]),
    "row_stack": (lambda lib, x, y: lib.vstack([x, y]), [real(3), real(2, 3)]),
    "block_diag": (lambda lib, x, y, z: lib.block_diag(x, y, z), [real(2, 3), real(2), np.array(1.5)]),
    "tensor_split": (lambda lib, x: lib.cat([t.flip(0) for t in lib.tensor_split(x, 3)]), [real(7, 2)]),
    "tensor_split-places": (lambda lib, x: lib.cat([t * t.shape[1] for t in x.tensor_split((1, -2), dim=1)], 1),
                            [real(2, 7)]),
    "hsplit": (lambda lib, x: lib.hsplit(x, 2)[1] * x.vsplit([1])[0][:, :3], [real(2, 6)]),
    "select_scatter": (lambda lib, x, y: lib.select_scatter(x, y, 1, 2), [real(2, 3, 4), real(2, 4)]),
    "slice_scatter": (lambda lib, x, y: x.slice_scatter(y, 1, 1, None, 2), [real(2, 5), real(2, 2)]),
    "diagonal_scatter": (lambda lib, x, y: lib.diagonal_scatter(x, y, 1), [real(3, 3), real(2)]),
    "fill_diagonal": (lambda lib, x: x.clone().fill_diagonal_(2.0, wrap=True), [real(9, 3)]),
    "fill_diagonal-3": (lambda lib, x: x.clone().fill_diagonal_(2), [ints(3, 3, 3)]),
    "masked_scatter": (lambda lib, x, m, y: lib.masked_scatter(x, m, y), [real(3, 4), mask(3, 4), real(12)]),
    "masked_scatter-broadcast": (lambda lib, x, m, y: x.masked_scatter(m, y), [real(3, 4), mask(4), real(12)]),
    "put": (lambda lib, x, i, y: x.put(i, y, accumulate=True), [real(3, 4), ints(5), real(5)]),
    "renorm": (lambda lib, x: lib.renorm(x, 2, 1, 1.2), [real(3, 4, 2)]),
    "index_reduce": (lambda lib, x, i, y: lib.index_reduce(x, 1, i, y, "mean"), [real(2, 4), ints(3, low=0, high=4),
                                                                               real(2, 3)]),
    # products
    "addmv": (lambda lib, b, m, v: lib.addmv(b, m, v, beta=0.5, alpha=2), [real(3), real(3, 4), real(4)]),
    "addr": (lambda lib, b, v, w: b.addr(v, w, alpha=-1), [real(3, 4), real(3), real(4)]),
    "addbmm": (lambda lib, b, x, y: lib.addbmm(b, x, y, beta=2), [real(3, 5), real(2, 3, 4), real(2, 4, 5)]),
    "addmv-0": (lambda lib, b, m, v: lib.addmv(b.detach(), m, v, beta=0), [np.full(3, NAN), real(3, 4), real(4)]),
    "ger": (lambda lib, x, y: x.ger(y) * lib.outer(x, y), [real(3), real(4)]),
    "inner": (lambda lib, x, y: lib.inner(x, y), [real(2, 3, 4), real(5, 4)]),
    "vdot": (lambda lib, x, y: lib.vdot(x, y), [real(4), real(4)]),
    "kron": (lambda lib, x, y: lib.kron(x, y), [real(2, 3), real(3, 1, 2)]),
    "chain_matmul": (lambda lib, x, y, z: lib.chain_matmul(x, y, z), [real(2, 6), real(6, 3), real(3, 5)]),
    "special": (lambda lib, x: lib.special.expit(x) * lib.special.gammaln(x) + lib.special.psi(x), [positive(4)]),
    "functional": (lambda lib, x, y: lib.cosine_similarity(x, y, dim=0) * lib.pairwise_distance(x, y).sum(),
                   [real(3, 4), real(3, 4)]),
    "view-bits": (lambda lib, x: x.detach().view(lib.int32), [real(2, 3)]),
    "unique-rows": (lambda lib, x: lib.unique(x, dim=0), [ints(9, 2, low=0, high=3)]),
    "unique-counts": (lambda lib, x: lib.cat(lib.unique(x, return_inverse=True, return_counts=True, dim=1)[1:]),
                      [ints(2, 9, low=0, high=2)]),
    "unique_consecutive": (lambda lib, x: lib.unique_consecutive(x, dim=0), [np.repeat(ints(4, 2, low=0, high=2), 3,
        0)]),
    "unique_consecutive-counts": (lambda lib, x: lib.cat(lib.unique_consecutive(
        x, return_inverse=True, return_counts=True, dim=1)[1:]), [np.repeat(ints(2, 4, low=0, high=2), 2, 1)]),
    **{f"scatter_reduce-{how}-{own}": (lambda lib, x, i, y, how=how, own=own: lib.scatter_reduce(
        x, 1, i, y, how, include_self=own), [np.round(real(3, 4)) / 2, ints(3, 6, low=0, high=4),
                                             np.round(real(3, 6)) / 2 + 0.25 * (not own)])
       for how in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)},
    "scatter_reduce-ints": (lambda lib, x, i, y: x.scatter_reduce(0, i, y, "amax"), [ints(4), ints(6, low=0, high=4),
                                                                                     ints(6)]),
}  # fmt: skip
# Where PyTorch has no second derivative, or one of few digits (its polygamma).
FIRST_ORDER = {"scatter_reduce-prod-True", "scatter_reduce-prod-False", "digamma-negative", "polygamma", "index_reduce",
               "corrcoef", "digamma", "lgamma", "lgamma-negative", "mvlgamma", "special"}


def results(lib, function, arrays, orders):
    x = [lib.tensor(a, requires_grad=a.dtype == np.float64) for a in arrays]
    y = function(lib, *x)
    found = [y.detach().numpy()]
    if y.requires_grad and orders:
        leaves = [v for v in x if v.requires_grad]
        w = lib.tensor(np.random.default_rng(1).standard_normal(tuple(y.shape)))
        first = lib.autograd.grad((y * w).sum(), leaves, create_graph=orders > 1, allow_unused=True)
        found += [None if g is None else g.detach().numpy() for g in first]
        if orders > 1 and any(g is not None and g.requires_grad for g in first):
            total = sum((g.square() * 0.5).sum() for g in first if g is not None and g.requires_grad)
            second = lib.autograd.grad(total, leaves, allow_unused=True)
            found += [None if g is None else (g + 0).numpy() for g in second]
    return found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_against_pytorch(name):
    function, arrays = CASES[name]
    orders = 1 if name in FIRST_ORDER else 2
    ours, theirs = results(tw, function, arrays, orders), results(torch, function, arrays, orders)
    assert ours[0].dtype == theirs[0].dtype and ours[0].shape == theirs[0].shape
    for a, b in zip(ours, theirs, strict=False):
        if a is not None and b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)


def _arguments(name):
    """What an in-place op takes besides the tensor."""
    other = positive(3, 4) + 1
    pairs = ("arctan2 atan2 copysign divide floor_divide fmod hypot multiply remainder subtract true_divide xlogy eq "
             "ge greater greater_equal gt le less less_equal lt ne not_equal heaviside float_power")
    extra = {"addbmm": (real(2, 3, 5), real(2, 5, 4)), "addmm": (real(3, 5), real(5, 4)), "addmv": None,
        "baddbmm": None,
             "addr": (real(3), real(4)), "clamp_max": (0.5,), "clamp_min": (0.5,), "clip": (0.2, 0.6), "cumprod": (1,),
             "cumsum": (0,), "mvlgamma": (2,), "polygamma": (1,), "renorm": (2, 0, 0.5), "ldexp": (ints(3, 4, low=0),),
             "masked_scatter": (mask(3, 4), real(12)), "index_reduce": (0, ints(2, low=0, high=3), real(2, 4), "mean"),
             "scatter_reduce": (1, ints(3, 5, low=0, high=4), real(3, 5), "sum")}
    return extra.get(name, (other,) if name in pairs.split() else ())


def _start(name):
    if name.startswith(("bitwise", "gcd", "lcm")):
        return ints(3, 4, low=1, high=9)
    if name in ("acosh", "arccosh", "mvlgamma"):
        return positive(3, 4) + 1
    return RNG.uniform(0.1, 0.9, (3, 4))


# PyTorch has none, or lets the gradient through as if nothing had been written.
NO_GRADIENT = ["acosh", "arccosh", "asinh", "arcsinh", "atanh", "arctanh", "floor_divide", "heaviside", "logical_and",
    "logical_or", "logical_xor", "logical_not"]


@pytest.mark.parametrize("name", methods._IN_PLACE.split())
@pytest.mark.filterwarnings("ignore")
def test_in_place(name):
    arguments, start = _arguments(name), _start(name)
    if arguments is None:
        start = real(3) if name == "addmv" else real(2, 3, 4)
        arguments = (real(3, 5), real(5)) if name == "addmv" else (real(2, 3, 5), real(2, 5, 4))
    if start.dtype.kind == "i" and "not" not in name:
        arguments = (ints(3, 4, low=1, high=4),)
    if name in ("logical_and", "logical_or", "logical_xor"):
        arguments = (real(3, 4),)
    found = []
    for lib in (tw, torch):
        x = lib.tensor(start, requires_grad=start.dtype.kind == "f" and name not in NO_GRADIENT)
        more = [lib.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
        y = x * 1
        base = y[:]
        made = getattr(base, name + "_")(*more)
        assert made is base and y.data_ptr() == base.data_ptr()
        found.append([y.detach().numpy()])
        if y.requires_grad:
            (g,) = lib.autograd.grad(y.sum(), x, allow_unused=True)
            found[-1].append(np.zeros(start.shape) if g is None else g.numpy())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


OUT = {
    "add": [real(3, 4), real(4)], "matmul": [real(2, 3), real(3, 4)], "cat": [[real(2, 3), real(1, 3)]],
    "stack": [[real(2, 3), real(2, 3)], 1], "gather": [real(3, 4), 1, ints(3, 2, low=0, high=4)], "cumsum": [real(3,
        4), 1],
    "addmm": [real(3, 4), real(3, 2), real(2, 4)], "mv": [real(3, 4), real(4)], "outer": [real(3), real(4)],
    "index_select": [real(3, 4), 1, ints(5, low=0, high=4)], "masked_select": [real(3, 4), mask(3, 4)],
    "tril": [real(3, 3)], "max": [real(3, 4), 1], "sort": [real(3, 4)], "topk": [real(3, 4), 2], "std": [real(3, 4), 0],
    "lerp": [real(3), real(3), 0.5], "logsumexp": [real(3, 4), 1], "cummax": [real(3, 4), 0], "hypot": [real(3),
        real(3)],
    "searchsorted": [UP, real(3)], "scatter_add": [real(3, 4), 0, ints(2, 4, low=0, high=3), real(2, 4)],
    "quantile": [real(3, 4), 0.5], "sigmoid": [real(3)], "mean": [real(3, 4), 1], "kron": [real(2), real(3)],
}  # fmt: skip


@pytest.mark.parametrize("name", OUT)
def test_out(name):
    def tensors(lib):
        return [lib.tensor(a) if isinstance(a, np.ndarray) else [lib.tensor(v) for v in a] if isinstance(a, list) else a
                for a in OUT[name]]

    want = getattr(torch, name)(*tensors(torch))
    want = want if isinstance(want, tuple) else (want,)
    for fresh in (True, False):
        places = [tw.empty(0 if fresh else tuple(w.shape), dtype=getattr(tw, str(w.dtype)[6:])) for w in want]
        addresses = [p.data_ptr() for p in places]
        made = getattr(tw, name)(*tensors(tw), out=tuple(places) if len(places) > 1 else places[0])
        made = made if isinstance(made, tuple) else (made,)
        for one, place, address, w in zip(made, places, addresses, want, strict=True):
            assert one is place and (fresh or place.data_ptr() == address)
            np.testing.assert_allclose(place.numpy(), w.numpy(), rtol=1e-9)


@pytest.mark.parametrize("call, error, words", [
    (lambda: tw.cumsum(tw.ones(3), 0, out=tw.empty(2)), ValueError, r"cumsum: the output's shape must be the result's"),
    (lambda: tw.cumsum(tw.ones(3), 0, out=tw.empty(3, dtype=tw.int64)), TypeError, "a result of float32 cannot be"),
    (lambda: tw.cat([tw.ones(3, requires_grad=True)], out=tw.empty(3)), RuntimeError, r"cat: out= is not recorded"),
    (lambda: tw.ones(3, dtype=tw.int64).rsqrt_(), TypeError,
        "rsqrt_: a result of float32 cannot be written into int64"),
    (lambda: tw.ones(3, requires_grad=True).ceil_(), RuntimeError, "ceil_: a leaf that requires grad"),
    (lambda: tw.ones(1, 3).subtract_(tw.ones(2, 3)), ValueError, "subtract_: the result must have the tensor's shape"),
    (lambda: tw.searchsorted(tw.ones(2, 3), tw.ones(3, 1)), ValueError, "searchsorted: rows of both must match"),
    (lambda: tw.quantile(tw.ones(3), 1.5), ValueError, "quantile: q must be a number or 1-d, in"),
    (lambda: tw.scatter_reduce(tw.ones(3), 0, tw.tensor([0]), tw.ones(1), "max"), ValueError,
        "scatter_reduce: reduce must"),
    (lambda: tw.masked_scatter(tw.ones(3), tw.tensor([True] * 3), tw.ones(2)), ValueError, "got 2 for 3"),
    (lambda: tw.gcd(tw.ones(1), tw.ones(1)), TypeError, "gcd: expects integers"),
    (lambda: tw.polygamma(-1, tw.ones(1)), ValueError, "polygamma: n must not be negative"),
    (lambda: tw.broadcast_shapes((2, 3), (4,)), ValueError, "broadcast_shapes: sizes must agree"),
    (lambda: tw.ones(2, 3).view(tw.float64), ValueError, "view: the last dimension must be dense"),
])  # fmt: skip
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()
