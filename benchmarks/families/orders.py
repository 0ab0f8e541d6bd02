"""Scans and orders along one dimension."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.families.common import OURS, Case, Setup, sampled, small


@small("rows=9 cols=7 dim=1", "rows=40 cols=70 dim=0 grad=1", "rows=1 cols=70000 dim=1")
def cumsum(s: Setup, rows: int, cols: int, dim: int = 1, grad: int = 0) -> Case:
    """Cumulative sums of (rows, cols) along dim; grad=1: both directions."""
    x = s.normal(rows, cols)
    makers = {k: partial(f, **{"axis" if k in ("numpy", "jax") else "dim": dim}) for k, f in s.named("cumsum").items()}
    size, n = rows * cols * s.itemsize, (rows, cols)[dim]
    if grad:
        return Case(**s.backward({k: f for k, f in makers.items() if k in (OURS, "torch")}, x), flops=0, read=2 * size,
                    written=2 * size, tolerance=4 * np.sqrt(n))
    reference = np.cumsum(x["exact"], axis=dim)
    return Case(s.each(makers, x), sampled(reference), flops=0, read=size, written=size, tolerance=4 * np.sqrt(n),
                scale=np.sqrt(n), shape=reference.shape, pick=sampled)


@small("rows=9 cols=7", "rows=9 cols=70 descending=1", "rows=3 cols=700")
def sort(s: Setup, rows: int, cols: int, descending: int = 0) -> Case:
    """Values and positions of (rows, cols) in order along the rows; the values are compared."""
    x = s.normal(rows, cols)
    makers = {k: partial(f, dim=1, descending=bool(descending)) for k, f in s.named("sort").items()
              if k in (OURS, "torch")}
    reference = np.sort(x["exact"], axis=1)
    return Case(s.each({k: partial(_values, f) for k, f in makers.items()}, x),
                sampled(reference[:, ::-1] if descending else reference), flops=0, read=rows * cols * s.itemsize,
                written=rows * cols * (s.itemsize + 8), tolerance=0, shape=reference.shape, pick=sampled)


@small("rows=9 cols=70 k=3", "rows=2 cols=700 k=300")
def topk(s: Setup, rows: int, cols: int, k: int) -> Case:
    """The k largest of each row with their positions; the values are compared."""
    x = s.normal(rows, cols)
    makers = {name: partial(f, k=k, dim=1) for name, f in s.named("topk").items() if name in (OURS, "torch")}
    reference = np.sort(x["exact"], axis=1)[:, ::-1][:, :k]
    return Case(s.each({name: partial(_values, f) for name, f in makers.items()}, x), sampled(reference), flops=0,
                read=rows * cols * s.itemsize, written=rows * k * (s.itemsize + 8), tolerance=0, shape=reference.shape,
                pick=sampled)


def _values(f, x):
    return f(x)[0]
