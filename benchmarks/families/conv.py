"""Convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.families.common import OURS, Case, Setup, small
from tilewright import kernels


@small("n=2 c=4 hw=7 o=6 k=3 stride=2 pad=1 groups=2", "n=2 c=4 hw=7 o=6 k=3 stride=2 pad=1 groups=2 grad=1")
def conv2d(s: Setup, n: int, c: int, hw: int, o: int, k: int, stride: int = 1, pad: int = 0, groups: int = 1,
           grad: int = 0) -> Case:
    """Images (n, c, hw, hw), filters (o, c / groups, k, k), no bias; grad=1: forward and both gradients.

    The forward is checked at 64 places of the output, edges too.
    """
    x, w = s.normal(n, c, hw, hw), s.normal(o, c // groups, k, k)
    out = (hw + 2 * pad - k) // stride + 1
    inner = c // groups * k * k
    if out < 1 or c % groups or o % groups:
        raise ValueError(f"the filter must fit, groups divide c and o, got hw={hw} k={k} c={c} o={o} groups={groups}")

    def options(f: Callable) -> Callable:
        return partial(f, stride=stride, padding=pad, groups=groups)

    makers = {name: options(f) for name, f in s.named("nn.functional.conv2d").items() if name in (OURS, "torch")}
    flops, x_bytes, y_bytes = 2.0 * n * o * out * out * inner, x["numpy"].size * s.itemsize, n * o * out**2 * s.itemsize
    w_bytes = w["numpy"].size * s.itemsize
    if grad:
        return Case(**s.backward(makers, x, w), flops=3 * flops, read=3 * x_bytes + 2 * y_bytes + 2 * w_bytes,
                    written=y_bytes + x_bytes + w_bytes, tolerance=4 * math.sqrt(max(inner, n * out * out)))
    at = np.stack([s.rng.integers(0, size, 64) for size in (n, out, out)])
    at[1:, :4] = [[0, 0, out - 1, out - 1], [0, out - 1, 0, out - 1]]
    padded = np.pad(x["numpy"], ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    patches = np.stack([padded[i, :, y * stride:y * stride + k, z * stride:z * stride + k] for i, y, z in at.T])
    expected = np.einsum("pgi,goi->pgo", patches.reshape(64, groups, inner).astype(np.float64),
                         w["exact"].reshape(groups, o // groups, inner)).reshape(64, o)
    calls = s.each(makers, x, w) | s.alone(options(kernels.conv), x, w, shape=(n, o, out, out))
    return Case(calls, expected, flops=flops, read=x_bytes + w_bytes, written=y_bytes,
                tolerance=4 * math.sqrt(inner), shape=(n, o, out, out), pick=lambda y: y[at[0], :, at[1], at[2]])
