"""Attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.families.common import OURS, Case, Setup, small, to_numpy

# Exponentials count as nothing here: the limit is that of the products alone.
KINDS = ("plain", "causal", "mask", "dropout")


@small("b=2 h=2 t=9 d=8", "b=1 h=2 t=9 d=8 kind=causal grad=1", "b=1 h=2 t=9 d=8 kind=mask",
       "b=1 h=2 t=9 d=8 kind=dropout grad=1", "b=1 h=2 t=9 d=8 kind=dropout")
def attention(s: Setup, b: int, h: int, t: int, d: int, kind: str = "plain", grad: int = 0) -> Case:
    """scaled_dot_product_attention of (b, h, t, d), every one of queries, keys and values; grad=1: and its backward.

    kind: plain, causal, mask (bool (t, t), four in five true) or dropout (0.1). Causal counts half the operations.
    With dropout, of which every library draws its own, only the shape is checked, and that all is finite.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind, got {kind}")
    q, k, v = (s.normal(b, h, t, d) for _ in range(3))
    operands = [q, k, v]
    if kind == "mask":
        operands.append(s.operand((s.rng.random((t, t)) < 0.8) | np.eye(t, dtype=bool)))
    options: dict[str, Any] = {"causal": {"is_causal": True}, "dropout": {"dropout_p": 0.1}}.get(kind, {})
    named = s.named("nn.functional.scaled_dot_product_attention")
    makers: dict[str, Callable] = {name: lambda *o, f=f: f(*o, **options) for name, f in named.items()
                                   if name in (OURS, "torch")}
    flops = 4.0 * b * h * t * t * d * (0.5 if kind == "causal" else 1)
    size = q["numpy"].size * s.itemsize
    if grad:
        case = Case(**s.backward(makers, *operands), flops=3.5 * flops, read=8 * size, written=4 * size,
                    tolerance=16 * math.sqrt(t))
        if kind == "dropout":
            checked = case.result
            case.expected, case.scale, case.tolerance = np.ones(4), None, 0
            case.result = lambda call: np.isfinite(checked(call)).reshape(4, -1).all(1).astype(float)
        return case
    calls = s.each(makers, *operands)
    case = Case(calls, np.zeros(0), flops=flops, read=3 * size, written=size, tolerance=8 * math.sqrt(d),
                shape=(b, h, t, d))
    if kind == "dropout":
        case.expected, case.tolerance = np.ones(1), 0
        case.pick = lambda y: np.isfinite(to_numpy(y)).all(keepdims=True).reshape(1).astype(float)
        return case
    # One item of the batch and one of its heads: the others are the same loops' work.
    scores = q["exact"][-1, -1] @ k["exact"][-1, -1].T / math.sqrt(d)
    if kind == "causal":
        scores = np.where(np.tril(np.ones((t, t), bool)), scores, -np.inf)
    elif kind == "mask":
        scores = np.where(operands[3]["exact"], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    case.expected = weights / weights.sum(axis=1, keepdims=True) @ v["exact"][-1, -1]
    case.pick = lambda y: y[-1, -1]
    return case
