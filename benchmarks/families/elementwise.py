"""Elementwise operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.families.common import OURS, Case, Setup, small
from tilewright import _engine, kernels


@small("op=add size=1K", "op=gelu size=1K layout=transposed", "op=where size=1K layout=broadcast",
       "op=tanh size=1K out=1", "op=add size=1K out=1", "op=where size=1K out=1")
def elementwise(s: Setup, op: str, size: int, layout: str = "contiguous", out: int = 0) -> Case:
    """op over a square of `size` bytes. broadcast: the last operand is a row; transposed: the first one's columns are
    contiguous; out=1: into memory given by the caller."""
    functions = {  # operands, reference in float64, errors in ulp, NumPy's name
        "add": (2, np.add, 1, "add"), "mul": (2, np.multiply, 1, "multiply"), "exp": (1, np.exp, 4, "exp"),
        "relu": (1, lambda x: np.maximum(x, 0), 0, None), "tanh": (1, np.tanh, 4, "tanh"),
        "gelu": (1, lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))), 4, None),
        "where": (3, np.where, 0, "where"),
    }
    if op not in functions or layout not in ("contiguous", "broadcast", "transposed"):
        raise ValueError(f"unknown op or layout, got {op} {layout}")
    inputs, reference, ulp, numpy_name = functions[op]
    rows = 1 << (size // s.itemsize).bit_length() // 2
    cols = max(size // s.itemsize // rows, 1)
    operands = [s.normal(rows, cols, transposed=layout == "transposed" and i == 0) for i in range(inputs)]
    if layout == "broadcast":
        operands[-1] = s.normal(cols)
    if op == "where":
        operands[0] = s.operand(s.rng.random((rows, cols)) < 0.5)
    makers = s.named(f"nn.functional.{op}" if op == "gelu" else op, numpy_name or op)
    if op == "relu" and "numpy" in s.peers:
        makers["numpy"] = lambda x: np.maximum(x, 0)
    if out:
        y = s.operand(np.zeros((rows, cols), np.float32))
        makers = _into(op, inputs, makers, y)
    # In a large result, every 61st element and the last 4,096; the memory between holds the same loops' work.
    part = (lambda a: np.concatenate([a.ravel()[::61], a.ravel()[-4096:]])) if rows * cols > 1 << 20 else np.ravel
    exact = [part(np.broadcast_to(o["exact"], (rows, cols))) for o in operands]
    expected = reference(*exact)
    read = sum(o["numpy"].nbytes if o["numpy"].dtype == bool else o["numpy"].size * s.itemsize for o in operands)
    calls = s.each(makers, *operands) | s.alone(getattr(kernels, op), *operands, shape=(rows, cols))
    return Case(calls, expected, flops=0, read=read, written=rows * cols * s.itemsize,
                tolerance=ulp, scale=np.abs(exact[0] if op == "gelu" else expected) + 1e-30, shape=(rows, cols),
                pick=part)


def _into(op: str, inputs: int, makers: dict[str, Callable], y: dict[str, Any]) -> dict[str, Callable]:
    """The same functions writing into y; ours is the engine's own function, below Tensor."""
    def ours(*operands: Any) -> Any:
        arrays = [o.array for o in operands]
        if op == "where":
            _engine.where(*arrays, out=y[OURS].array)
        elif inputs == 1:
            getattr(_engine, f"{op}_out")(*arrays, y[OURS].array, 0.0, 0.0)
        else:
            getattr(_engine, f"{op}_out")(*arrays, y[OURS].array)
        return y[OURS]

    into = {OURS: ours}
    if "torch" in makers and op not in ("relu", "gelu"):
        into["torch"] = partial(makers["torch"], out=y["torch"])
    if isinstance(makers.get("numpy"), np.ufunc):
        into["numpy"] = partial(makers["numpy"], out=y["numpy"])
    return into
