"""Optimizer steps, and what a call costs by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tilewright as tw
from benchmarks.families.common import OURS, Case, Setup, small, to_numpy

# The class, its options, and the parameter after the first step from values p and gradients g.
RULES: dict[str, tuple[str, dict[str, Any], Callable]] = {
    "sgd": ("SGD", {}, lambda p, g: p - 1e-3 * g),
    "momentum": ("SGD", {"momentum": 0.9}, lambda p, g: p - 1e-3 * g),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}, lambda p, g: p - 1.9e-3 * g),
    "adam": ("Adam", {}, lambda p, g: p - 1e-3 * g / (np.abs(g) + 1e-8)),
    "adamw": ("AdamW", {}, lambda p, g: p * (1 - 1e-5) - 1e-3 * g / (np.abs(g) + 1e-8)),
}


@small("rule=adam tensors=3 size=50", "rule=nesterov tensors=3 size=50", "rule=adamw tensors=1 size=50")
def optimizers(s: Setup, rule: str, tensors: int, size: int) -> Case:
    """One step over `tensors` parameters of `size` elements. Checked: the parameters after step one."""
    if rule not in RULES:
        raise ValueError(f"unknown rule, got {rule}")
    kind, options, first = RULES[rule]
    values, grads = s.normal(tensors, size), s.normal(tensors, size)
    lists: dict[str, Any] = {}

    def step(name: str, module: Any) -> Callable:
        def parameter(v: Any, g: Any) -> Any:
            p = module.nn.Parameter(v.clone())
            p.grad = g
            return p

        params = [parameter(values[name][i], grads[name][i]) for i in range(tensors)]
        lists[name] = params
        return getattr(module.optim, kind)(params, lr=1e-3, **options).step

    calls = {name: step(name, m) for name, m in {OURS: tw, **s.peers}.items() if name in (OURS, "torch")}
    if "numpy" in s.peers and rule == "adam":
        calls["numpy"] = _numpy_adam(values["numpy"].copy(), grads["numpy"], lists)
    owner = {id(call): name for name, call in calls.items()}

    def result(call: Callable) -> np.ndarray:
        call()
        return np.stack([to_numpy(p) for p in lists[owner[id(call)]]])

    count, half = tensors * size, s.itemsize == 2
    states = {"sgd": 0, "momentum": 1, "nesterov": 1}.get(rule, 2)
    state = states * count * (4 if half else s.itemsize)  # states of half parameters are float32
    return Case(calls, first(values["exact"], grads["exact"]), flops=0, read=2 * count * s.itemsize + state,
                written=count * s.itemsize + state, tolerance=4, shape=(tensors, size), result=result)


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
