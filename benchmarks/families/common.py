"""What every family is made of: a Case, the Setup that makes operands and calls for each library, and `small`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import tilewright as tw

OURS = "tilewright"
KERNEL = "kernel"
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "tf32": 2.0**-10, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def to_numpy(result: Any) -> np.ndarray:
    """A library's result as a NumPy array; half types widened to float32, which is exact."""
    if isinstance(result, np.ndarray | np.generic):
        return np.asarray(result)
    if hasattr(result, "detach"):
        result = result.detach().cpu()
        return (result.float() if str(result.dtype).rsplit(".", 1)[-1] in ("float16", "bfloat16") else result).numpy()
    result = np.asarray(result)
    return result.astype(np.float32) if result.dtype.itemsize < 4 and result.dtype.kind in "fV" else result


def small(*lines: str) -> Callable:
    """Makes a function a family; `lines` are problems small enough for the tests."""
    def mark(family: Callable) -> Callable:
        family.small = lines  # type: ignore[attr-defined]
        return family

    return mark


def sampled(a: np.ndarray) -> np.ndarray:
    """The array, flat; of a large one every 61st element and the last 4,096: the rest is the same loops' work."""
    return a.ravel() if a.size <= 1 << 20 else np.concatenate([a.ravel()[::61], a.ravel()[-4096:]])


@dataclass
class Case:
    """A problem made ready: what to call, what must come out, and what it costs at least."""

    calls: dict[str, Callable[[], Any]]       # library -> the whole call; KERNEL -> ours alone, into memory given to it
    expected: np.ndarray                      # float64: the result, or the part of it that `pick` takes
    flops: float                              # operations that the formula needs; 0 where bytes alone count
    read: int                                 # bytes that must be read and written at least once
    written: int
    tolerance: float                          # largest error, in eps(dtype) * scale
    scale: Any = None                         # array or number; None: the largest of |expected|
    shape: tuple[int, ...] | None = None      # of the whole result
    pick: Callable[[np.ndarray], np.ndarray] = np.asarray
    result: Callable[[Callable[[], Any]], np.ndarray] = lambda call: to_numpy(call())
    fresh: str | None = None                  # "name batch dtype" of a model whose peak memory is measured too


class Setup:
    """What a family function gets: the dtype, the device, the libraries, and random operands in each of them."""

    def __init__(self, dtype: str, device: str, peers: dict[str, Any], seed: int):
        self.dtype, self.device, self.peers = "float32" if dtype == "tf32" else dtype, device, dict(peers)
        if dtype in ("float16", "bfloat16") or device != "cpu":
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

    def alone(self, kernel: Callable, *operands: dict[str, Any], shape: tuple[int, ...], dtype: str | None = None,
              **options: Any) -> dict[str, Callable[[], Any]]:
        """{KERNEL: a function of `tilewright.kernels` on our operands}, whose result has `shape` and is made here."""
        out = tw.empty(shape, dtype=getattr(tw, dtype or self.dtype), device=self.device)
        return {KERNEL: partial(kernel, *(o[OURS] for o in operands), out=out, **options)}

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

    def backward(self, makers: dict[str, Callable], *operands: dict[str, Any]) -> dict[str, Any]:
        """Case's calls, expected, scale and result for forward and backward of f(*operands).

        A call runs f, then its backward with random gradients of the results (f may return several), and returns the
        results and the gradient of every floating operand. The reference is the same in float64: PyTorch's where it
        is installed (on the GPU, if that is timed), else our own, which the op table holds to NumPy. Results are
        compared as `sampled` parts.
        """
        floating = [i for i, o in enumerate(operands) if o["exact"].dtype.kind == "f"]
        oracle = "torch" if "torch" in self.peers and "torch" in makers else OURS
        module = self.peers.get(oracle, tw)
        place = self.device if oracle == "torch" else "cpu"
        exact = [module.as_tensor(o["exact"]).to(place) for o in operands]
        shapes = [y.shape for y in _several(makers[oracle](*exact))]
        dys = [self.normal(*shape) for shape in shapes]
        expected = [np.asarray(to_numpy(a), np.float64) for a in _differentiated(
            module, makers[oracle], exact, [module.as_tensor(dy["exact"]).to(place) for dy in dys], floating)()]
        calls = {}
        for name in (OURS, "torch", "jax"):
            if name in makers and (name == OURS or name in self.peers):
                values, dy = [o[name] for o in operands], [d[name] for d in dys]
                calls[name] = _jax_differentiated(makers[name], values, dy, floating) if name == "jax" else \
                    _differentiated(self.peers.get(name, tw), makers[name], values, dy, floating)
        return {"calls": calls, "expected": np.concatenate([sampled(e) for e in expected]),
                "scale": np.concatenate([np.full(sampled(e).size, np.max(np.abs(e), initial=1e-30)) for e in expected]),
                "result": lambda call: np.concatenate([sampled(to_numpy(a)) for a in call()])}


def _several(y: Any) -> list:
    """The results of a call, nested tuples flattened."""
    return [a for part in y for a in _several(part)] if isinstance(y, tuple | list) else [y]


def _differentiated(module: Any, f: Callable, operands: list, dys: list, floating: list[int]) -> Callable[[], list]:
    wanted = [operands[i].requires_grad_() for i in floating]

    def call() -> list:
        for x in wanted:
            x.grad = None
        ys = _several(f(*operands))
        module.autograd.backward(ys, dys)
        return [*ys, *(x.grad for x in wanted)]

    return call


def _jax_differentiated(f: Callable, operands: list, dys: list, floating: list[int]) -> Callable[[], list]:
    import jax

    def both(values: list, dys: list) -> list:
        def of_floating(*xs: Any) -> list:
            full = list(values)
            for i, x in zip(floating, xs, strict=True):
                full[i] = x
            return _several(f(*full))

        ys, gradient = jax.vjp(of_floating, *(values[i] for i in floating))
        return [*ys, *gradient(dys)]

    compiled = jax.jit(both)
    return lambda: jax.block_until_ready(compiled(operands, dys))
