"""The problem families: each function makes one problem ready for every library, and is named by `problems/<name>.txt`.

A function's keyword arguments are the keys a problem line may have; its defaults are theirs. It returns a Case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import tilewright as tw
from tilewright import _engine

OURS = "tilewright"
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def to_numpy(result: Any) -> np.ndarray:
    """A library's result as a NumPy array; half types widened to float32, which is exact."""
    if isinstance(result, np.ndarray | np.generic):
        return np.asarray(result)
    if hasattr(result, "detach"):
        result = result.detach()
        return (result.float() if str(result.dtype).rsplit(".", 1)[-1] in ("float16", "bfloat16") else result).numpy()
    result = np.asarray(result)
    return result.astype(np.float32) if result.dtype.itemsize < 4 and result.dtype.kind in "fV" else result


@dataclass
class Case:
    """A problem made ready: what to call, what must come out, and what it costs at least."""

    calls: dict[str, Callable[[], Any]]       # library -> the whole call
    expected: np.ndarray                      # float64: the result, or the part of it that `pick` takes
    flops: float                              # operations that the formula needs; 0 where bytes alone count
    read: int                                 # bytes that must be read and written at least once
    written: int
    tolerance: float                          # largest error, in eps(dtype) * scale
    scale: Any = None                         # array or number; None: the largest of |expected|
    shape: tuple[int, ...] | None = None      # of the whole result
    pick: Callable[[np.ndarray], np.ndarray] = np.asarray
    result: Callable[[Callable[[], Any]], np.ndarray] = lambda call: to_numpy(call())


class Setup:
    """What a family function gets: the dtype, the device, the libraries, and random operands in each of them."""

    def __init__(self, dtype: str, device: str, peers: dict[str, Any], seed: int):
        self.dtype, self.device, self.peers = dtype, device, dict(peers)
        if dtype in ("float16", "bfloat16"):
            self.peers.pop("numpy", None)  # it has no bfloat16, and computes float16 one element at a time
        self.itemsize = {"float64": 8, "float32": 4}.get(dtype, 2)
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int, transposed: bool = False) -> dict[str, Any]:
        """Normal numbers of `shape` in every library, rounded to the dtype; transposed: columns contiguous."""
        shape = (*shape[:-2], shape[-1], shape[-2]) if transposed else shape
        values = self.operand(self.rng.standard_normal(shape, dtype=np.float32))
        return {k: v.swapaxes(-1, -2) if k in ("numpy", "exact", "jax") else v.transpose(-1, -2)
                for k, v in values.items()} if transposed else values

    def operand(self, values: np.ndarray) -> dict[str, Any]:
        """The array in every library, and under "exact" as NumPy float64 of the values rounded to the dtype."""
        if values.dtype.kind != "f":
            made = {OURS: tw.from_numpy(values).to(self.device), "exact": values, "numpy": values}
            rounded = values
        else:
            ours = tw.from_numpy(values).to(getattr(tw, self.dtype)).to(self.device)
            rounded = to_numpy(ours)
            made = {OURS: ours, "exact": rounded.astype(np.float64), "numpy": rounded}
        if "torch" in self.peers:
            torch = self.peers["torch"]
            made["torch"] = torch.from_numpy(rounded.copy()).to(self.device)
            if values.dtype.kind == "f":
                made["torch"] = made["torch"].to(getattr(torch, self.dtype))
        if "jax" in self.peers:
            made["jax"] = self.peers["jax"].asarray(rounded)
            if values.dtype.kind == "f":
                made["jax"] = made["jax"].astype(self.dtype)
        return made

    def each(self, makers: dict[str, Callable], *operands: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """{library: function of no arguments} from {library: function of the operands}, for the libraries present."""
        calls = {}
        for name in (OURS, "torch", "numpy", "jax"):
            if name in makers and (name == OURS or name in self.peers):
                calls[name] = partial(makers[name], *(o[name] for o in operands))
                if name == "jax":  # returns before it has computed
                    calls[name] = partial(lambda call: call().block_until_ready(), calls[name])
        return calls

    def named(self, path: str, numpy: str | None = None) -> dict[str, Callable]:
        """The function `path` in every library that has it, NumPy's perhaps under another name."""
        makers = {}
        for name, module in {OURS: tw, **self.peers}.items():
            f: Any = module
            for part in (numpy if name in ("numpy", "jax") and numpy else path).split("."):
                f = getattr(f, part, None)
            if f is not None:
                makers[name] = f
            elif name == OURS:
                raise NotImplementedError(f"tilewright has no {path}")
        return makers


# --- products ---------------------------------------------------------------------------------------------------------
def matmul(s: Setup, m: int, n: int, k: int, layout: str = "NN", batch: int = 0) -> Case:
    """c = a @ b, of M x K and K x N; a T in the layout: that operand is stored transposed."""
    if len(layout) != 2 or set(layout) - set("NT"):
        raise ValueError(f"layout must be NN, NT, TN or TT, got {layout}")
    lead = (batch,) if batch else ()
    a = s.normal(*lead, m, k, transposed=layout[0] == "T")
    b = s.normal(*lead, k, n, transposed=layout[1] == "T")
    count = max(batch, 1)
    return Case(s.each(s.named("matmul"), a, b), np.matmul(a["exact"], b["exact"]), flops=2.0 * count * m * n * k,
                read=count * (m * k + k * n) * s.itemsize, written=count * m * n * s.itemsize,
                tolerance=4 * math.sqrt(k), shape=(*lead, m, n))


def conv2d(s: Setup, n: int, c: int, hw: int, o: int, k: int, stride: int = 1, pad: int = 0, groups: int = 1) -> Case:
    """Images (n, c, hw, hw), filters (o, c / groups, k, k), no bias. Checked at 64 places of the output, edges too."""
    x, w = s.normal(n, c, hw, hw), s.normal(o, c // groups, k, k)
    out = (hw + 2 * pad - k) // stride + 1
    inner = c // groups * k * k
    if out < 1 or c % groups or o % groups:
        raise ValueError(f"the filter must fit, groups divide c and o, got hw={hw} k={k} c={c} o={o} groups={groups}")
    at = np.stack([s.rng.integers(0, size, 64) for size in (n, out, out)])
    at[1:, :4] = [[0, 0, out - 1, out - 1], [0, out - 1, 0, out - 1]]
    padded = np.pad(x["numpy"], ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    patches = np.stack([padded[i, :, y * stride:y * stride + k, z * stride:z * stride + k] for i, y, z in at.T])
    expected = np.einsum("pgi,goi->pgo", patches.reshape(64, groups, inner).astype(np.float64),
                         w["exact"].reshape(groups, o // groups, inner)).reshape(64, o)

    def options(f: Callable) -> Callable:
        return partial(f, stride=stride, padding=pad, groups=groups)

    makers = {name: options(f) for name, f in s.named("nn.functional.conv2d").items() if name in (OURS, "torch")}
    return Case(s.each(makers, x, w), expected, flops=2.0 * n * o * out * out * inner,
                read=(x["numpy"].size + w["numpy"].size) * s.itemsize, written=n * o * out * out * s.itemsize,
                tolerance=4 * math.sqrt(inner), shape=(n, o, out, out), pick=lambda y: y[at[0], :, at[1], at[2]])


# --- elementwise and rows ---------------------------------------------------------------------------------------------
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
    return Case(s.each(makers, *operands), expected, flops=0, read=read, written=rows * cols * s.itemsize,
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


def reductions(s: Setup, op: str, rows: int, cols: int, dim: str) -> Case:
    """sum, mean, amax or argmax of (rows, cols) over dim 0, dim 1 or all. An argmax is judged by the value it names."""
    if op not in ("sum", "mean", "amax", "argmax") or dim not in ("0", "1", "all"):
        raise ValueError(f"unknown op or dim, got {op} {dim}")
    x = s.normal(rows, cols)
    axis = None if dim == "all" else int(dim)
    reference = {"sum": np.sum, "mean": np.mean}.get(op, np.amax)(x["exact"], axis=axis)

    def bound(name: str, f: Callable) -> Callable:
        if axis is not None:
            return partial(f, **{"axis" if name in ("numpy", "jax") else "dim": axis})
        return partial(f, dim=()) if op == "amax" and name == "torch" else f

    def pick(y: np.ndarray) -> np.ndarray:
        if op != "argmax":
            return y
        return x["exact"].ravel()[y] if axis is None else np.take_along_axis(
            x["exact"], np.expand_dims(y, axis), axis).squeeze(axis)

    count = rows * cols if axis is None else (rows, cols)[axis]
    means = np.abs(x["exact"]).sum(axis=axis) / (count if op == "mean" else 1)
    written = reference.size * (8 if op == "argmax" else s.itemsize)
    exact = op in ("amax", "argmax")
    return Case(s.each({k: bound(k, f) for k, f in s.named(op).items()}, x), reference, flops=0,
                read=rows * cols * s.itemsize, written=written, tolerance=0 if exact else 4, scale=means,
                shape=reference.shape, pick=pick)


def softmax(s: Setup, rows: int, cols: int) -> Case:
    """Over the rows' columns."""
    x = s.normal(rows, cols)

    def of_numpy(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    makers = {k: partial(f, dim=1) for k, f in s.named("softmax").items() if k in (OURS, "torch")}
    calls = s.each(makers | {"numpy": of_numpy} | ({"jax": _jax_softmax()} if "jax" in s.peers else {}), x)
    expected = of_numpy(x["exact"])
    return Case(calls, expected, flops=0, read=rows * cols * s.itemsize, written=rows * cols * s.itemsize,
                tolerance=16, scale=expected, shape=(rows, cols))


def _jax_softmax() -> Callable:
    import jax

    return jax.jit(partial(jax.nn.softmax, axis=1))


def layer_norm(s: Setup, rows: int, cols: int) -> Case:
    """Over the rows' columns, with weight and bias."""
    x, w, b = s.normal(rows, cols), s.normal(cols), s.normal(cols)

    def of_numpy(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        d = x - x.mean(axis=1, keepdims=True)
        return d / np.sqrt((d * d).mean(axis=1, keepdims=True) + 1e-5) * w + b

    makers = {k: (lambda x, w, b, f=f: f(x, (cols,), w, b))
              for k, f in s.named("nn.functional.layer_norm").items() if k in (OURS, "torch")}
    moved = rows * cols * s.itemsize
    return Case(s.each(makers | {"numpy": of_numpy}, x, w, b), of_numpy(x["exact"], w["exact"], b["exact"]), flops=0,
                read=moved + 2 * cols * s.itemsize, written=moved, tolerance=8, shape=(rows, cols))


# --- training ---------------------------------------------------------------------------------------------------------
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
