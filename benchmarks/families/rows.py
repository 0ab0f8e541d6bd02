"""Softmax and normalization."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.families.common import OURS, Case, Setup, small
from tilewright import kernels


@small("rows=5 cols=9")
def softmax(s: Setup, rows: int, cols: int) -> Case:
    """Over the rows' columns."""
    x = s.normal(rows, cols)

    def of_numpy(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    makers = {k: partial(f, dim=1) for k, f in s.named("softmax").items() if k in (OURS, "torch")}
    calls = s.each(makers | {"numpy": of_numpy} | ({"jax": _jax_softmax()} if "jax" in s.peers else {}), x)
    calls |= s.alone(kernels.softmax, x, shape=(rows, cols))
    expected = of_numpy(x["exact"])
    return Case(calls, expected, flops=0, read=rows * cols * s.itemsize, written=rows * cols * s.itemsize,
                tolerance=16, scale=expected, shape=(rows, cols))


def _jax_softmax() -> Callable:
    import jax

    return jax.jit(partial(jax.nn.softmax, axis=1))


@small("rows=5 cols=9")
def layer_norm(s: Setup, rows: int, cols: int) -> Case:
    """Over the rows' columns, with weight and bias."""
    x, w, b = s.normal(rows, cols), s.normal(cols), s.normal(cols)

    def of_numpy(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        d = x - x.mean(axis=1, keepdims=True)
        return d / np.sqrt((d * d).mean(axis=1, keepdims=True) + 1e-5) * w + b

    makers = {k: (lambda x, w, b, f=f: f(x, (cols,), w, b))
              for k, f in s.named("nn.functional.layer_norm").items() if k in (OURS, "torch")}
    moved = rows * cols * s.itemsize
    calls = s.each(makers | {"numpy": of_numpy}, x, w, b)
    calls |= s.alone(lambda x, w, b, out: kernels.layer_norm(x, out, w, b), x, w, b, shape=(rows, cols))
    return Case(calls, of_numpy(x["exact"], w["exact"], b["exact"]), flops=0,
                read=moved + 2 * cols * s.itemsize, written=moved, tolerance=8, shape=(rows, cols))
