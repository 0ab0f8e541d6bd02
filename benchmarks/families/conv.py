"""Convolutions of one, two and three dimensions, plain and transposed."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np

from benchmarks.families.common import OURS, Case, Setup, small
from tilewright import kernels


def _case(s: Setup, name: str, n: int, c: int, sizes: tuple[int, ...], o: int, k: int, stride: int, pad: int,
          groups: int, dilation: int, grad: int) -> Case:
    """Inputs (n, c, *sizes), cubic filters, no bias; grad=1: forward and both gradients.

    The forward is checked at 64 places of the output, corners too.
    """
    transposed, nd, span = "transpose" in name, len(sizes), dilation * (k - 1) + 1
    if c % groups or o % groups:
        raise ValueError(f"groups must divide c and o, got c={c} o={o} groups={groups}")
    x = s.normal(n, c, *sizes)
    w = s.normal(*((c, o // groups) if transposed else (o, c // groups)), *(k,) * nd)
    out = tuple((h - 1) * stride - 2 * pad + span if transposed else (h + 2 * pad - span) // stride + 1 for h in sizes)
    if min(out) < 1:
        raise ValueError(f"the filter must fit, got sizes={sizes} k={k} dilation={dilation} pad={pad}")
    options = {"stride": stride, "padding": pad, "groups": groups, "dilation": dilation}
    makers: dict[str, Callable] = {library: partial(f, **options) for library, f in s.named(
        f"nn.functional.{name}").items() if library in (OURS, "torch")}
    inner = c // groups * k**nd
    flops = 2.0 * n * o * inner * math.prod(sizes if transposed else out)
    x_bytes, y_bytes = x["numpy"].size * s.itemsize, n * o * math.prod(out) * s.itemsize
    w_bytes = w["numpy"].size * s.itemsize
    if grad:
        return Case(**s.backward(makers, x, w), flops=3 * flops, read=3 * x_bytes + 2 * y_bytes + 2 * w_bytes,
                    written=y_bytes + x_bytes + w_bytes, tolerance=4 * math.sqrt(max(inner, n * math.prod(out))))
    at = np.stack([s.rng.integers(0, size, 64) for size in (n, *out)])
    for i, corner in enumerate(product(*((0, size - 1) for size in out))):
        at[1:, i] = corner
    places = at.T
    expected = _transposed_at(x, w, places, stride, pad, groups, dilation) if transposed else \
        _plain_at(x, w, places, stride, pad, groups, dilation)
    calls = s.each(makers, x, w)
    if not transposed:
        calls |= s.alone(partial(kernels.conv, **options), x, w, shape=(n, o, *out))
    return Case(calls, expected, flops=flops, read=x_bytes + w_bytes, written=y_bytes,
                tolerance=4 * math.sqrt(inner), shape=(n, o, *out), pick=lambda y: y[(at[0], slice(None), *at[1:])])


def _plain_at(x, w, places, stride: int, pad: int, groups: int, dilation: int) -> np.ndarray:
    o, _, *kernel = w["exact"].shape
    padded = np.pad(x["numpy"], ((0, 0), (0, 0), *((pad, pad),) * len(kernel)))
    spans = [dilation * (k - 1) + 1 for k in kernel]
    patches = np.stack([padded[(i, slice(None), *(slice(p * stride, p * stride + span, dilation)
                                                  for p, span in zip(at, spans, strict=True)))] for i, *at in places])
    return np.einsum("pgi,goi->pgo", patches.reshape(len(places), groups, -1).astype(np.float64),
                     w["exact"].reshape(groups, o // groups, -1)).reshape(len(places), o)


def _transposed_at(x, w, places, stride: int, pad: int, groups: int, dilation: int) -> np.ndarray:
    c, per_group, *kernel = w["exact"].shape
    filters = w["exact"].reshape(groups, c // groups, per_group, *kernel)
    expected = np.zeros((len(places), groups, per_group))
    for row, (i, *at) in enumerate(places):
        for tap in np.ndindex(*kernel):
            whole = [divmod(p + pad - t * dilation, stride) for p, t in zip(at, tap, strict=True)]
            if all(not rest and 0 <= q < size for (q, rest), size in zip(whole, x["exact"].shape[2:], strict=True)):
                seen = x["exact"][(i, slice(None), *(q for q, _ in whole))].reshape(groups, -1)
                expected[row] += np.einsum("gc,gco->go", seen, filters[(..., *tap)])
    return expected.reshape(len(places), -1)


@small("n=2 c=4 hw=7 o=6 k=3 stride=2 pad=1 groups=2", "n=2 c=4 hw=7 o=6 k=3 stride=2 pad=1 groups=2 grad=1",
       "n=1 c=2 hw=9 o=3 k=3 dilation=2")
def conv2d(s: Setup, n: int, c: int, hw: int, o: int, k: int, stride: int = 1, pad: int = 0, groups: int = 1,
           dilation: int = 1, grad: int = 0) -> Case:
    """Images (n, c, hw, hw), filters (o, c / groups, k, k)."""
    return _case(s, "conv2d", n, c, (hw, hw), o, k, stride, pad, groups, dilation, grad)


@small("n=2 c=4 t=19 o=6 k=2 dilation=4", "n=2 c=4 t=19 o=6 k=3 stride=2 pad=1 groups=2 grad=1")
def conv1d(s: Setup, n: int, c: int, t: int, o: int, k: int, stride: int = 1, pad: int = 0, groups: int = 1,
           dilation: int = 1, grad: int = 0) -> Case:
    """Signals (n, c, t), filters (o, c / groups, k)."""
    return _case(s, "conv1d", n, c, (t,), o, k, stride, pad, groups, dilation, grad)


@small("n=1 c=2 d=4 hw=5 o=3 k=3 pad=1", "n=1 c=2 d=4 hw=5 o=4 k=2 stride=2 groups=2 grad=1")
def conv3d(s: Setup, n: int, c: int, d: int, hw: int, o: int, k: int, stride: int = 1, pad: int = 0, groups: int = 1,
           dilation: int = 1, grad: int = 0) -> Case:
    """Volumes (n, c, d, hw, hw), filters (o, c / groups, k, k, k)."""
    return _case(s, "conv3d", n, c, (d, hw, hw), o, k, stride, pad, groups, dilation, grad)


@small("dims=1 n=2 c=4 hw=9 o=6 k=4 stride=2 pad=1 groups=2", "n=1 c=3 hw=4 o=2 k=4 stride=2 pad=1",
       "dims=3 n=1 c=2 hw=3 o=3 k=2 stride=2 grad=1")
def conv_transpose(s: Setup, n: int, c: int, hw: int, o: int, k: int, dims: int = 2, stride: int = 1, pad: int = 0,
                   groups: int = 1, dilation: int = 1, grad: int = 0) -> Case:
    """Inputs (n, c, hw, ...) of `dims` equal sizes, filters (c, o / groups, k, ...)."""
    return _case(s, f"conv_transpose{dims}d", n, c, (hw,) * dims, o, k, stride, pad, groups, dilation, grad)
