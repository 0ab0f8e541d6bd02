"""Optimizer steps, whole training steps, and what a call costs by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
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


@small("batch=8 widths=6-5-4")
def mlp(s: Setup, batch: int = 64, widths: str = "64-128-128-10") -> Case:
    """A training step: forward with ReLU, cross-entropy, backward, Adam. Checked: the losses of the first three."""
    sizes = [int(n) for n in widths.split("-")]
    x, target = s.normal(batch, sizes[0]), s.operand(s.rng.integers(0, sizes[-1], batch))
    weights = [s.operand((s.rng.standard_normal((o, i)) * math.sqrt(2 / i)).astype(np.float32))
               for i, o in pairwise(sizes)]

    def make(name: str, module: Any) -> Callable:
        layers: list[Any] = []
        for w in weights:
            o, i = w["numpy"].shape
            linear = module.nn.Linear(i, o, dtype=getattr(module, s.dtype))
            with module.no_grad():
                linear.weight.copy_(w[name])
                linear.bias.zero_()
            layers += [linear, module.nn.ReLU()]
        model = module.nn.Sequential(*layers[:-1])
        optimizer, cross_entropy = module.optim.Adam(model.parameters()), module.nn.functional.cross_entropy
        images, labels = x[name], target[name]

        def step() -> Any:
            optimizer.zero_grad()
            loss = cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            return loss

        return step

    calls = {name: make(name, m) for name, m in {OURS: tw, **s.peers}.items() if name in (OURS, "torch")}
    expected = _mlp_losses(x["exact"], target["exact"], [w["exact"] for w in weights], 3)
    count = sum(w["numpy"].size + len(w["numpy"]) for w in weights)
    return Case(calls, expected, flops=6.0 * batch * sum(w["numpy"].size for w in weights),
                read=4 * count * s.itemsize, written=3 * count * s.itemsize, tolerance=64, shape=(3,),
                result=lambda call: np.array([to_numpy(call()) for _ in range(3)]))


def _mlp_losses(x: np.ndarray, target: np.ndarray, weights: list[np.ndarray], steps: int) -> np.ndarray:
    """The losses of the first steps in float64: backpropagation by the chain rule, Adam as in _numpy_adam."""
    params = [p for w in weights for p in (w.copy(), np.zeros(len(w)))]
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in params]
    losses = []
    for t in range(1, steps + 1):
        inputs = [x]
        for w, b in zip(params[::2], params[1::2], strict=True):
            z = inputs[-1] @ w.T + b
            inputs.append(np.maximum(z, 0))
        shifted = z - z.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        losses.append(-log_p[np.arange(len(x)), target].mean())
        d = np.exp(log_p)
        d[np.arange(len(x)), target] -= 1
        d /= len(x)
        grads = [np.zeros(0)] * len(params)
        for i in reversed(range(len(weights))):
            grads[2 * i], grads[2 * i + 1] = d.T @ inputs[i], d.sum(axis=0)
            d = d @ params[2 * i] * (inputs[i] > 0)
        for p, g, (m, v) in zip(params, grads, moments, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            p -= 1e-3 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return np.array(losses)
