"""Rows of a table by index, and elements along a dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

import tilewright as tw
from benchmarks.families.common import OURS, Case, Setup, sampled, small


def _words(s: Setup, vocab: int, *shape: int) -> np.ndarray:
    """Indices as often repeated as words are: the word of rank r with a probability of about 1 / (r log vocab)."""
    return np.minimum(np.exp(s.rng.random(shape) * np.log(vocab)).astype(np.int64) - 1, vocab - 1)


@small("vocab=9 dim=5 count=7", "vocab=9 dim=5 count=7 backward=1")
def embedding(s: Setup, vocab: int, dim: int, count: int, backward: int = 0) -> Case:
    """Words of a text; backward: the table's gradient, which is as large as the table."""
    w, i = s.normal(vocab, dim), s.operand(_words(s, vocab, count))
    makers = s.named("nn.functional.embedding")
    moved = count * dim * s.itemsize
    if backward:
        case = s.backward(makers, i, w)
        return Case(**case, flops=0, read=2 * moved + 8 * count, written=moved + vocab * dim * s.itemsize,
                    tolerance=64)
    calls = s.each(makers | {"numpy": lambda i, w: w[i]}, i, w)
    return Case(calls, sampled(w["exact"][i["exact"]]), flops=0, read=moved + 8 * count, written=moved, tolerance=0,
                shape=(count, dim), pick=sampled)


@small("rows=5 cols=9 count=4", "rows=5 cols=9 count=4 backward=1", "rows=9 cols=5 count=4 dim=0")
def gather(s: Setup, rows: int, cols: int, count: int, dim: int = 1, backward: int = 0) -> Case:
    """`count` elements of each row (dim 1) or column (dim 0)."""
    x = s.normal(rows, cols)
    i = s.operand(s.rng.integers(0, cols, (rows, count)) if dim else s.rng.integers(0, rows, (count, cols)))
    makers = {k: (lambda x, i, f=f: f(x, dim, i)) for k, f in s.named("gather").items() if k in (OURS, "torch")}
    moved = i["exact"].size * s.itemsize
    if backward:
        case = s.backward(makers, x, i)
        return Case(**case, flops=0, read=2 * moved + 2 * i["exact"].nbytes,
                    written=moved + rows * cols * s.itemsize, tolerance=64)
    calls = s.each(makers | {"numpy": lambda x, i: np.take_along_axis(x, i, dim)}, x, i)
    want = np.take_along_axis(x["exact"], i["exact"], dim)
    return Case(calls, sampled(want), flops=0, read=moved + i["exact"].nbytes, written=moved, tolerance=0,
                shape=want.shape, pick=sampled)


@small("rows=5 cols=9 count=4", "rows=9 cols=5 count=4 dim=0", "rows=1 cols=9 count=7 backward=1")
def scatter(s: Setup, rows: int, cols: int, count: int, dim: int = 1, backward: int = 0) -> Case:
    """scatter_add of `count` elements into each row (dim 1) or column (dim 0)."""
    x = s.normal(rows, cols)
    i = s.operand(s.rng.integers(0, cols, (rows, count)) if dim else s.rng.integers(0, rows, (count, cols)))
    v = s.normal(*i["exact"].shape)
    makers = {k: (lambda x, i, v, f=f: f(x, dim, i, v)) for k, f in s.named("scatter_add").items()
              if k in (OURS, "torch")}
    size, moved = x["exact"].size * s.itemsize, i["exact"].size * s.itemsize
    if backward:
        return Case(**s.backward(makers, x, i, v), flops=0, read=2 * (size + moved) + 2 * i["exact"].nbytes,
                    written=2 * size + moved, tolerance=64)
    expected = x["exact"].copy()
    at = np.arange(rows)[:, None] if dim else np.arange(cols)
    np.add.at(expected, (at, i["exact"]) if dim else (i["exact"], at), v["exact"])
    return Case(s.each(makers, x, i, v), sampled(expected), flops=0, read=size + moved + i["exact"].nbytes,
                written=size, tolerance=64, shape=(rows, cols), pick=sampled)


@small("kind=rows rows=9 cols=5 count=7", "kind=pairs rows=9 cols=5 count=7", "kind=add rows=9 cols=5 count=7",
       "kind=rows rows=9 cols=5 count=7 backward=1", "kind=pairs rows=9 cols=5 count=7 backward=1")
def index(s: Setup, kind: str, rows: int, cols: int, count: int, backward: int = 0) -> Case:
    """rows: x[i]; pairs: x[i, j]; add: x.index_add(0, i, v). Indices repeat as words do."""
    x, i = s.normal(rows, cols), s.operand(_words(s, rows, count))
    libraries = {OURS: tw, **s.peers}
    items = count * (1 if kind == "pairs" else cols) * s.itemsize
    operands: tuple[dict[str, Any], ...]
    if kind == "add":
        operands = (x, i, s.normal(count, cols))
        makers = {k: (lambda x, i, v: x.index_add(0, i, v)) for k in libraries if k in (OURS, "torch")}
        want = x["exact"].copy()
        np.add.at(want, i["exact"], operands[2]["exact"])
        read, written = x["exact"].size * s.itemsize + items, x["exact"].size * s.itemsize
    elif kind == "pairs":
        operands = (x, i, s.operand(s.rng.integers(0, cols, count)))
        makers = {k: (lambda x, i, j: x[i, j]) for k in libraries if k != "jax"}
        want, read, written = x["exact"][i["exact"], operands[2]["exact"]], items, items
    else:
        operands = (x, i)
        makers = {k: (lambda x, i: x[i]) for k in libraries if k != "jax"}
        want, read, written = x["exact"][i["exact"]], items, items
    if backward:
        makers = {k: f for k, f in makers.items() if k in (OURS, "torch")}
        return Case(**s.backward(makers, *operands), flops=0, read=2 * read,
                    written=written + rows * cols * s.itemsize, tolerance=64)
    return Case(s.each(makers, *operands), sampled(want), flops=0, read=read + 8 * count, written=written,
                tolerance=64 if kind == "add" else 0, shape=want.shape, pick=sampled)
