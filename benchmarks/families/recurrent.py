"""Whole sequences through recurrent nets."""

from __future__ import annotations

from typing import Any

import numpy as np

import tilewright as tw
from benchmarks.families.common import OURS, Case, Setup, small, to_numpy

_SMALL = ("T=3 B=2 H=5", "T=3 B=2 H=5 directions=2 layers=2 backward=1")


def _net(s: Setup, name: str, gates: int, T: int, B: int, H: int, directions: int, layers: int,
         backward: int) -> Case:
    """One net of each library with the same weights; backward adds the gradients of the input and of all weights."""
    makers: dict[str, Any] = {}
    weights: list[dict] = []
    for layer in range(layers):
        inputs = H * directions if layer else H
        for _ in range(directions):
            for shape in ((gates * H, inputs), (gates * H, H), (gates * H,), (gates * H,)):
                weights.append(s.operand(s.rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(H))))
    x, state = s.normal(T, B, H), s.operand(np.zeros((layers * directions, B, H), np.float32))
    mode = {"rnn": "rnn_tanh"}.get(name, name)
    for library, module in {OURS: tw, **{k: v for k, v in s.peers.items() if k == "torch"}}.items():
        def run(x: Any, state: Any, *w: Any, module: Any = module) -> Any:
            return getattr(module, mode)(x, (state, state) if name == "lstm" else state, list(w), True, layers, 0.0,
                                         bool(backward), directions == 2, False)[0]

        makers[library] = run
    rows, wide = T * B, directions * H
    products = sum((wide if layer else H) + H for layer in range(layers)) * 2 * rows * gates * H * directions
    nbytes = s.itemsize * (rows * (H + wide) + sum(w["exact"].size for w in weights))
    if backward:
        case = s.backward(makers, x, state, *weights)
        return Case(**case, flops=3 * products, read=2 * nbytes, written=nbytes, tolerance=256)
    calls = s.each({k: _without_gradient({OURS: tw, **s.peers}[k], f) for k, f in makers.items()}, x, state, *weights)
    oracle = "torch" if "torch" in makers else OURS
    module = s.peers.get(oracle, tw)
    exact = makers[oracle](*(module.as_tensor(o["exact"]) for o in (x, state, *weights)))
    return Case(calls, to_numpy(exact).astype(np.float64), flops=products, read=nbytes - s.itemsize * rows * wide,
                written=s.itemsize * rows * wide, tolerance=64, shape=(T, B, wide))


def _without_gradient(module: Any, f: Any) -> Any:
    def call(*operands: Any) -> Any:
        with module.no_grad():
            return f(*operands)

    return call


@small(*_SMALL)
def lstm(s: Setup, T: int, B: int, H: int, directions: int = 1, layers: int = 1, backward: int = 0) -> Case:
    """Input as wide as the hidden state."""
    return _net(s, "lstm", 4, T, B, H, directions, layers, backward)


@small(*_SMALL)
def gru(s: Setup, T: int, B: int, H: int, directions: int = 1, layers: int = 1, backward: int = 0) -> Case:
    """Input as wide as the hidden state."""
    return _net(s, "gru", 3, T, B, H, directions, layers, backward)


@small(*_SMALL)
def rnn(s: Setup, T: int, B: int, H: int, directions: int = 1, layers: int = 1, backward: int = 0) -> Case:
    """tanh; input as wide as the hidden state."""
    return _net(s, "rnn", 1, T, B, H, directions, layers, backward)
