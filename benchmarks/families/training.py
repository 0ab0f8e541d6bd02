"""Optimizer steps, and what a call costs by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tilewright as tw
from benchmarks.families.common import OURS, Case, Setup, small, to_numpy


@small("tensors=3 size=50")
def adam(s: Setup, tensors: int, size: int) -> Case:
    """One step of Adam, defaults, over `tensors` parameters of `size` elements. Checked: parameters after step one."""
    values, grads = s.normal(tensors, size), s.normal(tensors, size)
    lists: dict[str, tuple[list, list]] = {}

    def step(name: str, module: Any) -> Callable:
        def parameter(v: Any, g: Any) -> Any:
            p = module.nn.Parameter(v.clone())
            p.grad = g
            return p

        params = [parameter(values[name][i], grads[name][i]) for i in range(tensors)]
        lists[name] = params
        return module.optim.Adam(params).step

    calls = {name: step(name, m) for name, m in {OURS: tw, **s.peers}.items() if name in (OURS, "torch")}
    if "numpy" in s.peers:
        calls["numpy"] = _numpy_adam(values["numpy"].copy(), grads["numpy"], lists)
    owner = {id(call): name for name, call in calls.items()}

    def result(call: Callable) -> np.ndarray:
        call()
        return np.stack([to_numpy(p) for p in lists[owner[id(call)]]])

    g = grads["exact"]
    count, half = tensors * size, s.itemsize == 2
    state = count * (4 if half else s.itemsize)  # moments of half parameters are float32
    return Case(calls, values["exact"] - 1e-3 * g / (np.abs(g) + 1e-8), flops=0,
                read=2 * count * s.itemsize + 2 * state, written=count * s.itemsize + 2 * state, tolerance=4,
                shape=(tensors, size), result=result)


def _numpy_adam(p: np.ndarray, g: np.ndarray, lists: dict) -> Callable:
    """Kingma & Ba 2014, algorithm 1, on one array for all tensors, in place."""
    m, v, t = np.zeros_like(p), np.zeros_like(p), 0
    lists["numpy"] = list(p)

    def step() -> None:
        nonlocal t, m, v
        t += 1
        m *= 0.9
        m += 0.1 * g
        v *= 0.999
        v += 0.001 * (g * g)
        p[...] -= (1e-3 / (1 - 0.9**t)) * m / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)

    return step


@small("grad=1")
def overhead(s: Setup, size: int = 8, grad: int = 0) -> Case:
    """a + b of a few numbers: what a call costs by itself. grad=1: a needs a gradient, so the call is recorded."""
    a, b = s.normal(size), s.normal(size)
    if grad:
        for name in (OURS, "torch"):
            if name in a:
                a[name].requires_grad_()
    makers = s.named("add")
    if grad:
        makers = {name: f for name, f in makers.items() if name in (OURS, "torch")}
    return Case(s.each(makers, a, b), a["exact"] + b["exact"], flops=0, read=2 * size * s.itemsize,
                written=size * s.itemsize, tolerance=1, shape=(size,))
