"""How a tensor shows itself, in PyTorch's form; NumPy lays out the numbers."""

from __future__ import annotations

from typing import Any

from tilewright import _engine

_DEFAULTS = (_engine.float32, _engine.int64, _engine.bool)


def _number(dtype, values):
    import numpy

    finite = values[numpy.isfinite(values)]
    if not finite.size or ((finite == numpy.floor(finite)).all() and abs(finite).max(initial=0) < 1e8):
        return lambda v: f"{v:.0f}." if numpy.isfinite(v) else str(v)
    span = abs(finite[finite != 0])
    scientific = span.max() >= 1e8 or span.min() < 1e-4 or span.max() / span.min() > 1e3 * 1e5
    return lambda v: (f"{v:.4e}" if scientific else f"{v:.4f}") if numpy.isfinite(v) else str(v)


def tensor_str(t) -> str:
    """`tensor([[1., 2.]], requires_grad=True)`: values, then what is not the default."""
    import numpy

    values = t.detach().cpu().__array__()
    if t.array.is_float:
        values = values.astype(numpy.float64)
        one = _number(t.dtype, values)
        width = max((len(one(v)) for v in values.ravel()[:1000]), default=0) if values.size <= 1000 else 0
        form: Any = {"float_kind": lambda v: one(v).rjust(width)}
    else:
        form = {}
    if values.size == 0:
        text = "[]" if values.ndim == 1 else str(values.tolist())
    elif values.ndim == 0:
        text = one(values) if t.array.is_float else str(values.item())
    else:
        text = numpy.array2string(values, separator=", ", prefix="tensor(", formatter=form, threshold=1000)
    suffix = ""
    if values.size == 0 and values.ndim != 1:
        suffix += f", size={t.shape}"
    if not t.array.on_cpu:
        suffix += f", device='{t.device}'"
    if t.dtype not in _DEFAULTS:
        suffix += f", dtype={t.dtype!r}"
    if t.node is not None:
        suffix += f", grad_fn={t.node!r}"
    elif t.requires_grad:
        suffix += ", requires_grad=True"
    return f"tensor({text}{suffix})"
