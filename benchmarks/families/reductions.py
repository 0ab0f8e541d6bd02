"""Reductions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.families.common import Case, Setup, small
from tilewright import kernels


@small("op=sum rows=9 cols=7 dim=0", "op=amax rows=9 cols=7 dim=all", "op=argmax rows=9 cols=7 dim=1",
       "op=argmax rows=9 cols=7 dim=all", "op=mean rows=9 cols=7 dim=1")
def reductions(s: Setup, op: str, rows: int, cols: int, dim: str) -> Case:
    """sum, mean, amax or argmax of (rows, cols) over dim 0, dim 1 or all. An argmax is judged by the value it names."""
    if op not in ("sum", "mean", "amax", "argmax") or dim not in ("0", "1", "all"):
        raise ValueError(f"unknown op or dim, got {op} {dim}")
    x = s.normal(rows, cols)
    axis = None if dim == "all" else int(dim)
    reference = {"sum": np.sum, "mean": np.mean}.get(op, np.amax)(x["exact"], axis=axis)

    def bound(name: str, f: Callable) -> Callable:
        if axis is not None:
            return partial(f, **{"axis" if name in ("numpy", "jax") else "dim": axis})
        return partial(f, dim=()) if op == "amax" and name == "torch" else f

    def pick(y: np.ndarray) -> np.ndarray:
        if op != "argmax":
            return y
        return x["exact"].ravel()[y] if axis is None else np.take_along_axis(
            x["exact"], np.expand_dims(y, axis), axis).squeeze(axis)

    count = rows * cols if axis is None else (rows, cols)[axis]
    means = np.abs(x["exact"]).sum(axis=axis) / (count if op == "mean" else 1)
    written = reference.size * (8 if op == "argmax" else s.itemsize)
    exact = op in ("amax", "argmax")
    calls = s.each({k: bound(k, f) for k, f in s.named(op).items()}, x)
    calls |= s.alone(getattr(kernels, op), x, shape=reference.shape, dim=axis,
                     dtype="int64" if op == "argmax" else None)
    return Case(calls, reference, flops=0,
                read=rows * cols * s.itemsize, written=written, tolerance=0 if exact else 4, scale=means,
                shape=reference.shape, pick=pick)
