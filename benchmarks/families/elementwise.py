"""Elementwise operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import tilewright as tw
from benchmarks.families.common import EPS, OURS, Case, Setup, small
from tilewright import kernels


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _identity(x: np.ndarray) -> np.ndarray:
    return x


# Operands, reference in float64, errors in ulp (of the input for activations), NumPy's name, bytes of a result that is
# not of the operands' dtype.
OPS: dict[str, tuple[int, Callable, float, str | None, int | None]] = {
    "add": (2, np.add, 1, "add", None), "mul": (2, np.multiply, 1, "multiply", None),
    "div": (2, np.divide, 1, "divide", None), "maximum": (2, np.maximum, 0, "maximum", None),
    "gt": (2, np.greater, 0, "greater", 1), "eq": (2, np.equal, 0, "equal", 1),
    "where": (3, np.where, 0, "where", None),
    "exp": (1, np.exp, 4, "exp", None), "log1p": (1, lambda x: np.log1p(np.abs(x)), 4, None, None),
    "tanh": (1, np.tanh, 4, "tanh", None), "sigmoid": (1, _sigmoid, 4, None, None),
    "sin": (1, np.sin, 4, "sin", None), "erf": (1, _erf, 4, None, None),
    "sqrt": (1, lambda x: np.sqrt(np.abs(x)), 1, None, None), "neg": (1, np.negative, 0, "negative", None),
    "relu": (1, lambda x: np.maximum(x, 0), 0, None, None),
    "clone": (1, _identity, 0, None, None), "contiguous": (1, _identity, 0, None, None),
    "to_float64": (1, _identity, 0, None, 8), "to_bfloat16": (1, _identity, 2.0**16, None, 2),
    "to_int32": (1, np.trunc, 0, None, 4),
    "gelu": (1, lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))), 4, None, None),
    "silu": (1, lambda x: x * _sigmoid(x), 4, None, None),
    "mish": (1, lambda x: x * np.tanh(_softplus(x)), 8, None, None),
    "softplus": (1, _softplus, 8, None, None), "logsigmoid": (1, lambda x: -_softplus(-x), 8, None, None),
    "elu": (1, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), 4, None, None),
    "selu": (1, lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))), 8,
             None, None),
    "leaky_relu": (1, lambda x: np.where(x > 0, x, 0.01 * x), 1, None, None),
    "hardtanh": (1, lambda x: np.clip(x, -1, 1), 0, None, None),
    "hardswish": (1, lambda x: x * np.clip(x / 6 + 0.5, 0, 1), 4, None, None),
    "softsign": (1, lambda x: x / (1 + np.abs(x)), 4, None, None),
}
ACTIVATIONS = ("gelu", "silu", "mish", "softplus", "logsigmoid", "elu", "selu", "leaky_relu", "hardtanh", "hardswish",
               "softsign")
# Those whose kernel takes the operands and nothing else.
PLAIN = ("add", "mul", "div", "maximum", "gt", "eq", "where", "exp", "tanh", "sigmoid", "sin", "erf", "neg", "relu",
         "gelu", "silu")


@small("op=add size=1K", "op=gelu size=1K layout=transposed", "op=where size=1K layout=broadcast",
       "op=tanh size=1K out=1", "op=add size=1K out=1", "op=where size=1K out=1", "op=gt size=1K",
       "op=to_bfloat16 size=1K", "op=contiguous size=1K layout=transposed", "op=mish size=1K", "op=selu size=1K")
def elementwise(s: Setup, op: str, size: int, layout: str = "contiguous", out: int = 0) -> Case:
    """op over a square of `size` bytes. broadcast: the last operand is a row; transposed: the first one's columns are
    contiguous; out=1: into memory given by the caller."""
    if op not in OPS or layout not in ("contiguous", "broadcast", "transposed"):
        raise ValueError(f"unknown op or layout, got {op} {layout}")
    inputs, reference, ulp, numpy_name, result_size = OPS[op]
    rows = 1 << (size // s.itemsize).bit_length() // 2
    cols = max(size // s.itemsize // rows, 1)
    operands = [s.normal(rows, cols, transposed=layout == "transposed" and i == 0) for i in range(inputs)]
    if op in ("log1p", "sqrt"):
        operands = [{k: abs(v) for k, v in o.items()} for o in operands]
    if layout == "broadcast":
        operands[-1] = s.normal(cols)
    if op == "where":
        operands[0] = s.operand(s.rng.random((rows, cols)) < 0.5)
    makers = _makers(s, op, numpy_name)
    if out:
        makers = _into(makers, s.operand(np.zeros((rows, cols), np.float32)))
    # In a large result, every 61st element and the last 4,096; the memory between holds the same loops' work.
    part = (lambda a: np.concatenate([a.ravel()[::61], a.ravel()[-4096:]])) if rows * cols > 1 << 20 else np.ravel
    exact = [part(np.broadcast_to(o["exact"], (rows, cols))) for o in operands]
    expected = np.asarray(reference(*exact), np.float64)
    read = sum(o["numpy"].nbytes if o["numpy"].dtype == bool else o["numpy"].size * s.itemsize for o in operands)
    scale = np.abs(exact[0] if op in ACTIVATIONS or op == "to_bfloat16" else expected) + 1e-30
    calls = s.each(makers, *operands)
    if op in PLAIN:
        calls |= s.alone(getattr(kernels, op), *operands, shape=(rows, cols),
                         dtype="bool" if result_size == 1 else None)
    return Case(calls, expected, flops=0, read=read, written=rows * cols * (result_size or s.itemsize), tolerance=ulp,
                scale=np.maximum(scale, 1.0) if op in ("softplus", "logsigmoid") else scale, shape=(rows, cols),
                pick=part)


def _makers(s: Setup, op: str, numpy_name: str | None) -> dict[str, Callable]:
    """The op in every library that has it."""
    if op in ("clone", "contiguous") or op.startswith("to_"):
        def method(x: Any, module: Any) -> Any:
            return getattr(x, op)() if not op.startswith("to_") else x.to(getattr(module, op.removeprefix("to_")))

        return {k: partial(method, module=m) for k, m in {OURS: tw, **s.peers}.items() if k in (OURS, "torch")}
    makers = s.named(f"nn.functional.{op}" if op in ACTIVATIONS else op, numpy_name or op)
    if op == "relu" and "numpy" in s.peers:
        makers["numpy"] = lambda x: np.maximum(x, 0)
    return makers


def _into(makers: dict[str, Callable], y: dict[str, Any]) -> dict[str, Callable]:
    """The same functions writing into y, in the libraries that can."""
    return {name: partial(f, out=y[name]) for name, f in makers.items()
            if name in (OURS, "torch") or isinstance(f, np.ufunc)}


# --- random -----------------------------------------------------------------------------------------------------------
@small("op=uniform size=1K", "op=normal size=1K", "op=dropout size=1K", "op=bernoulli size=1K")
def random(s: Setup, op: str, size: int) -> Case:
    """uniform_, normal_, bernoulli_ (p = 1/2) or dropout (p = 1/2, its mask included) of `size` elements. Checked: the
    mean and the mean square, of which the expected values are known, to six of their standard deviations."""
    moments = {"uniform": (1 / 2, 1 / 3), "normal": (0.0, 1.0), "bernoulli": (1 / 2, 1 / 2), "dropout": (1.0, 2.0)}
    if op not in moments:
        raise ValueError(f"unknown op, got {op}")
    x = s.operand(np.ones(size, np.float32))

    def draw(module: Any) -> Callable:
        if op == "dropout":
            return module.nn.functional.dropout
        return lambda x: getattr(x, f"{op}_")()

    makers = {k: draw(m) for k, m in {OURS: tw, **s.peers}.items() if k in (OURS, "torch")}
    if op in ("uniform", "normal") and "numpy" in s.peers and s.dtype in ("float32", "float64"):
        generator = np.random.default_rng(0)
        filled = np.empty(size, s.dtype)
        f = generator.random if op == "uniform" else generator.standard_normal
        makers["numpy"] = lambda x: f(dtype=s.dtype, out=filled)
    written = size * s.itemsize + (size if op == "dropout" else 0)
    return Case(s.each(makers, x), np.array(moments[op]), flops=0, read=size * s.itemsize if op == "dropout" else 0,
                written=written, tolerance=6 / EPS[s.dtype],
                scale=np.array([1.0, 1.5]) * (1 / math.sqrt(size) + 2.0**-9 * (s.itemsize == 2)), shape=(size,),
                pick=lambda y: np.array([y.mean(dtype=np.float64), np.square(y, dtype=np.float64).mean()]))
