"""How a tensor shows itself: PyTorch's form, whose choices `set_printoptions` changes.

Numbers stand in columns of one width. Floats that are all whole show as `2.`; others with `precision` digits behind the
point, or in scientific form where the largest is above 1e8 or more than 1000 times the smallest, or that is below 1e-4.
"""

from __future__ import annotations

import math
from typing import Any

from tilewright import _engine


class _Options:
    precision, threshold, edgeitems, linewidth = 4, 1000.0, 3, 80
    sci_mode: bool | None = None


_options = _Options()
_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(precision: int | None = None, threshold: float | None = None, edgeitems: int | None = None,
                     linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None) -> None:
    """Sets how tensors are shown; what is None stays as it is, but `sci_mode` None means "as the values need".

    Args:
        precision: digits behind the point (4). threshold: more elements than that are summarised (1000).
        edgeitems: elements that a summary shows at each end of a dimension (3). linewidth: characters a line (80).
        profile: "default", "short" or "full", all of these at once. sci_mode: scientific form always or never.

    Raises:
        ValueError: another profile.

    >>> import tilewright as tw
    >>> tw.set_printoptions(precision=2)
    >>> tw.tensor([0.123456])
    tensor([0.12])
    >>> tw.set_printoptions(profile="default")
    """
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"set_printoptions: profile must be 'default', 'short' or 'full', got {profile!r}")
        vars(_options).update(_PROFILES[profile])
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    vars(_options).update({name: value for name, value in given.items() if value is not None})
    _options.sci_mode = sci_mode


class _Column:
    """The form of one number, chosen from all that are shown."""

    def __init__(self, values: Any) -> None:
        import numpy

        self.float, self.whole, self.scientific = values.dtype.kind == "f", True, False
        if not self.float:
            self.width = max((len(str(v)) for v in values.ravel().tolist()), default=1)
            return
        found = values[numpy.isfinite(values) & (values != 0)]
        self.width = 1
        if not found.size:
            return
        least, most = abs(found).min(), abs(found).max()
        self.whole = bool((found == numpy.ceil(found)).all())
        self.scientific = bool(most / least > 1000 or most > 1e8 or (not self.whole and least < 1e-4))
        if _options.sci_mode is not None:
            self.scientific = _options.sci_mode
        self.width = max(len(self._text(v)) for v in found.tolist())

    def _text(self, v: Any) -> str:
        if not self.float:
            return str(v)
        if self.scientific:
            return f"{v:.{_options.precision}e}"
        if self.whole:
            return f"{v:.0f}" + "." * math.isfinite(v)
        return f"{v:.{_options.precision}f}"

    def __call__(self, v: Any) -> str:
        return self._text(v).rjust(self.width)


def _edges(n: int, summarise: bool) -> tuple[list[int], list[int]]:
    """The places of a dimension that are shown before and behind "..."."""
    e = _options.edgeitems
    return (list(range(e)), list(range(n - e, n))) if summarise and n > 2 * e else (list(range(n)), [])


def _layout(values: Any, indent: int, summarise: bool, column: _Column) -> str:
    if values.ndim == 0:
        return column(values.item())
    first, last = _edges(len(values), summarise)
    cut = len(first) + len(last) < len(values)
    if values.ndim == 1:
        texts = [column(values[i].item()) for i in first]
        texts += ([" ..."] if cut else []) + [column(values[i].item()) for i in last]
        n = max(1, (_options.linewidth - indent) // (column.width + 2))
        lines = [", ".join(texts[i : i + n]) for i in range(0, len(texts), n)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    parts = [_layout(values[i], indent + 1, summarise, column) for i in first]
    parts += (["..."] if cut else []) + [_layout(values[i], indent + 1, summarise, column) for i in last]
    return "[" + ("," + "\n" * (values.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def tensor_str(t: Any, indent: int = 0) -> str:
    """`tensor([[1., 2.]], requires_grad=True)`: values, then what is not the default."""
    import numpy

    numel, prefix, default = t.numel(), "tensor(", _engine.get_default_dtype()
    indent += len(prefix)
    suffixes = [] if t.array.on_cpu else [f"device='{t.device}'"]
    if numel == 0:
        text = "[]"
        suffixes += [f"size={tuple(t.shape)}"] if t.dim() != 1 else []
        suffixes += [f"dtype={t.dtype!r}"] if t.dtype is not default else []
    else:
        summarise = numel > _options.threshold
        values = t.detach()
        if summarise:  # only what is shown leaves the device
            for dim, n in enumerate(values.shape):
                first, last = _edges(n, True)
                if last:
                    values = values.index_select(dim, values.new_tensor([*first, *last], dtype=_engine.int64))
        shown = values.cpu().__array__()
        column = _Column(shown.astype(numpy.float64) if shown.dtype.kind == "f" else shown)
        shape = tuple(t.shape)
        whole = shown if shown.shape == shape else _Sparse(shown, shape)
        text = _layout(whole, indent, summarise, column)
        suffixes += [f"dtype={t.dtype!r}"] if t.dtype not in (default, _engine.int64, _engine.bool) else []
    if t.node is not None:
        suffixes.append(f"grad_fn={t.node!r}")
    elif t.requires_grad:
        suffixes.append("requires_grad=True")
    text = prefix + text
    last_line = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if last_line + len(suffix) + 2 > _options.linewidth:
            text, last_line = f"{text},\n{' ' * indent}{suffix}", indent + len(suffix)
        else:
            text, last_line = f"{text}, {suffix}", last_line + len(suffix) + 2
    return text + ")"


class _Sparse:
    """A large array of which only the edges are there; it is indexed as if it were whole."""

    def __init__(self, shown: Any, shape: tuple[int, ...]) -> None:
        self.shown, self.shape, self.ndim = shown, shape, len(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i: int) -> Any:
        there, n = len(self.shown), self.shape[0]
        one = self.shown[i if i < there // 2 or there == n else i - (n - there)]
        return _Sparse(one, self.shape[1:]) if self.ndim > 1 else one
