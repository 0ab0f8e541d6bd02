"""Softmax and normalization."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.families.common import OURS, Case, Setup, small
from tilewright import kernels


def _both(s: Setup, path: str, call: Callable) -> dict[str, Callable]:
    """call(f, operands...) with our function and with PyTorch's."""
    return {k: partial(call, f) for k, f in s.named(path).items() if k in (OURS, "torch")}


def _grad(s: Setup, makers: dict[str, Callable], operands: list, passes: int, tolerance: float) -> Case:
    """Forward and backward; `passes` over the first operand's bytes is what both must move at least."""
    size = operands[0]["numpy"].size * s.itemsize
    return Case(**s.backward(makers, *operands), flops=0, read=(passes - 2) * size, written=2 * size,
                tolerance=tolerance)


@small("rows=5 cols=9", "rows=5 cols=9 grad=1")
def softmax(s: Setup, rows: int, cols: int, grad: int = 0) -> Case:
    """Over the rows' columns; grad=1: forward and backward."""
    x = s.normal(rows, cols)

    def of_numpy(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    makers = _both(s, "softmax", lambda f, x: f(x, dim=1))
    if grad:
        return _grad(s, makers, [x], 5, 32)
    calls = s.each(makers | {"numpy": of_numpy} | ({"jax": _jax_softmax()} if "jax" in s.peers else {}), x)
    calls |= s.alone(kernels.softmax, x, shape=(rows, cols))
    expected = of_numpy(x["exact"])
    return Case(calls, expected, flops=0, read=rows * cols * s.itemsize, written=rows * cols * s.itemsize,
                tolerance=16, scale=expected, shape=(rows, cols))


def _jax_softmax() -> Callable:
    import jax

    return jax.jit(partial(jax.nn.softmax, axis=1))


@small("rows=5 cols=9", "rows=5 cols=9 grad=1")
def cross_entropy(s: Setup, rows: int, cols: int, grad: int = 0) -> Case:
    """The mean over rows of logits against labels; grad=1: forward and backward."""
    x, labels = s.normal(rows, cols), s.operand(s.rng.integers(0, cols, rows))
    makers = _both(s, "nn.functional.cross_entropy", lambda f, x, t: f(x, t))
    if grad:
        return _grad(s, makers, [x, labels], 4, 32)
    shifted = x["exact"] - x["exact"].max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(rows), labels["exact"]]
    return Case(s.each(makers, x, labels), np.mean(losses), flops=0, read=rows * cols * s.itemsize, written=s.itemsize,
                tolerance=16, shape=())


@small("rows=5 cols=9", "rows=5 cols=9 grad=1")
def layer_norm(s: Setup, rows: int, cols: int, grad: int = 0) -> Case:
    """Over the rows' columns, with weight and bias; grad=1: forward and backward."""
    x, w, b = s.normal(rows, cols), s.normal(cols), s.normal(cols)

    def of_numpy(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        d = x - x.mean(axis=1, keepdims=True)
        return d / np.sqrt((d * d).mean(axis=1, keepdims=True) + 1e-5) * w + b

    makers = _both(s, "nn.functional.layer_norm", lambda f, x, w, b: f(x, (cols,), w, b))
    if grad:
        return _grad(s, makers, [x, w, b], 5, 64)
    moved = rows * cols * s.itemsize
    calls = s.each(makers | {"numpy": of_numpy}, x, w, b)
    calls |= s.alone(lambda x, w, b, out: kernels.layer_norm(x, out, w, b), x, w, b, shape=(rows, cols))
    return Case(calls, of_numpy(x["exact"], w["exact"], b["exact"]), flops=0,
                read=moved + 2 * cols * s.itemsize, written=moved, tolerance=8, shape=(rows, cols))


@small("rows=5 cols=9", "rows=5 cols=9 grad=1")
def rms_norm(s: Setup, rows: int, cols: int, grad: int = 0) -> Case:
    """Over the rows' columns, with weight; grad=1: forward and backward."""
    x, w = s.normal(rows, cols), s.normal(cols)

    def of_numpy(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5) * w

    makers = _both(s, "nn.functional.rms_norm", lambda f, x, w: f(x, (cols,), w, 1e-5))
    if grad:
        return _grad(s, makers, [x, w], 5, 64)
    moved = rows * cols * s.itemsize
    return Case(s.each(makers | {"numpy": of_numpy}, x, w), of_numpy(x["exact"], w["exact"]), flops=0,
                read=moved + cols * s.itemsize, written=moved, tolerance=8, shape=(rows, cols))


def _channel_norm(s: Setup, path: str, call: Callable, passes: int, n: int, c: int, hw: int, groups: int,
                  grad: int) -> Case:
    """A norm of images (n, c, hw, hw) over their groups, or with groups=0 of the batch's channels."""
    x, w, b = s.normal(n, c, hw, hw), s.normal(c), s.normal(c)
    makers = _both(s, path, call)
    if grad:
        return _grad(s, makers, [x, w, b], passes + 3 + (groups == 0), 4 * math.sqrt(n * hw * hw))
    x2 = x["exact"].reshape((n, groups, -1) if groups else x["exact"].shape)
    rest = 2 if groups else (0, 2, 3)
    d = x2 - x2.mean(axis=rest, keepdims=True)
    expected = (d / np.sqrt((d * d).mean(axis=rest, keepdims=True) + 1e-5)).reshape(x["exact"].shape)
    expected = expected * w["exact"].reshape(-1, 1, 1) + b["exact"].reshape(-1, 1, 1)
    size = expected.size * s.itemsize
    return Case(s.each(makers, x, w, b), expected, flops=0, read=(passes - 1) * size, written=size, tolerance=8,
                shape=expected.shape)


@small("n=3 c=4 hw=5", "n=3 c=4 hw=5 grad=1")
def batch_norm(s: Setup, n: int, c: int, hw: int, grad: int = 0) -> Case:
    """In training, with weight and bias: statistics first, so x is read twice; grad=1: forward and backward."""
    return _channel_norm(s, "nn.functional.batch_norm", lambda f, x, w, b: f(x, None, None, w, b, True), 3, n, c, hw, 0,
                         grad)


@small("n=3 c=4 hw=5 groups=2", "n=3 c=4 hw=9 groups=2 grad=1")
def group_norm(s: Setup, n: int, c: int, hw: int, groups: int = 32, grad: int = 0) -> Case:
    """With weight and bias; groups=c is instance norm. grad=1: forward and backward."""
    return _channel_norm(s, "nn.functional.group_norm", lambda f, x, w, b: f(x, groups, w, b), 2, n, c, hw, groups,
                         grad)
