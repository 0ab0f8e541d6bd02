"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.families.common import OURS, Case, Setup, small
from tilewright import kernels


@small("m=5 n=7 k=9", "m=5 n=7 k=9 layout=TN", "batch=2 m=3 n=4 k=5 layout=NT")
def matmul(s: Setup, m: int, n: int, k: int, layout: str = "NN", batch: int = 0) -> Case:
    """c = a @ b, of M x K and K x N; a T in the layout: that operand is stored transposed."""
    if len(layout) != 2 or set(layout) - set("NT"):
        raise ValueError(f"layout must be NN, NT, TN or TT, got {layout}")
    lead = (batch,) if batch else ()
    a = s.normal(*lead, m, k, transposed=layout[0] == "T")
    b = s.normal(*lead, k, n, transposed=layout[1] == "T")
    count = max(batch, 1)
    calls = s.each(s.named("matmul"), a, b) | s.alone(kernels.gemm, a, b, shape=(*lead, m, n))
    some = rows_checked(m, count * n * k)
    return Case(calls, np.matmul(a["exact"][..., some, :], b["exact"]), flops=2.0 * count * m * n * k,
                read=count * (m * k + k * n) * s.itemsize, written=count * m * n * s.itemsize,
                tolerance=4 * math.sqrt(k), shape=(*lead, m, n), pick=lambda y: y[..., some, :])


def rows_checked(m: int, each: int) -> slice | np.ndarray:
    """All rows of a result, or some 64 of a large one, of which each costs so many multiplications in float64."""
    return slice(None) if m * each <= 1 << 37 else np.unique(np.linspace(0, m - 1, 64).astype(int))


ACTIVATIONS = {"none": "", "relu": "nn.functional.relu", "gelu": "nn.functional.gelu"}


@small("m=5 k=9 n=7", "m=5 k=9 n=7 act=relu grad=1", "m=3 k=4 n=5 act=gelu bias=0")
def linear(s: Setup, m: int, k: int, n: int, act: str = "none", bias: int = 1, grad: int = 0) -> Case:
    """y = act(x w^T + b) as a user of PyTorch writes it, x (m, k) and w (n, k); grad=1: and the gradients of all three.

    JAX writes the same formula, compiled.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act must be of {', '.join(ACTIVATIONS)}, got {act}")
    x, w, b = s.normal(m, k), s.normal(n, k), s.normal(n)
    w = {name: v * k**-0.5 for name, v in w.items()}
    if s.dtype != "float64":  # the scaled weight, rounded once more, is the one that all see
        w = s.operand(w["numpy"].astype(np.float32))
    activations = s.named(ACTIVATIONS[act]) if act != "none" else {}

    def with_activation(name: str, product: Callable) -> Callable:
        f = activations.get(name)
        return (lambda *operands: f(product(*operands))) if f else product

    makers = {name: with_activation(name, f) for name, f in s.named("nn.functional.linear").items()
              if name in (OURS, "torch")}
    if "jax" in s.peers:
        import jax

        function = {"none": lambda y: y, "relu": jax.nn.relu, "gelu": partial(jax.nn.gelu, approximate=False)}[act]
        makers["jax"] = jax.jit(lambda x, w, *b: function(x @ w.T + (b[0] if b else 0)))
    operands = (x, w, b) if bias else (x, w)
    flops, parameters = 2.0 * m * n * k, n * k + (n if bias else 0)
    if grad:
        return Case(**s.backward(makers, *operands), flops=3 * flops,
                    read=(3 * m * k + 2 * parameters + 3 * m * n) * s.itemsize,
                    written=(m * n + m * k + parameters) * s.itemsize, tolerance=8 * math.sqrt(max(m, n, k)))
    some = rows_checked(m, n * k)
    y = x["exact"][some] @ w["exact"].T + (b["exact"] if bias else 0)
    if act == "relu":
        y = np.maximum(y, 0)
    elif act == "gelu":
        y = y * (0.5 + 0.5 * np.vectorize(math.erf)(y / math.sqrt(2)))
    return Case(s.each(makers, *operands), y, flops=flops, read=(m * k + parameters) * s.itemsize,
                written=m * n * s.itemsize, tolerance=4 * math.sqrt(k), shape=(m, n), pick=lambda y: y[some])
