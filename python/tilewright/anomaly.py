"""Anomaly detection: where a NaN or Inf comes from, by the op and the line of the user's code that recorded it.

While it is on, the tape calls `_recorded` for each new node and `run` in the place of each gradient rule. A NaN that a
rule makes stops the walk back; the first Inf, which may be meant (a scaled loss overflows, say), is a warning, and so
is a NaN that an op makes on the way forward. All name the op, the lines that called it, and what was not finite before.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
import warnings
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from tilewright import _engine, autograd

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LINES = 8  # of the user's code, the innermost


class _Origin(NamedTuple):
    lines: traceback.StackSummary
    found: str  # "NaN" or "Inf" if the op's result held one, else ""
    parent: Any  # of an op that a gradient rule recorded: that rule's op and its own origin


_origins: WeakKeyDictionary[Any, _Origin] = WeakKeyDictionary()
# "walk": the node whose rule runs; "inf": the first Inf of this walk; "last": the number of the walk's latest node
_state: dict[str, Any] = {"on": False, "check": True, "walk": None, "inf": "", "last": -1}


def is_anomaly_enabled() -> bool:
    """Whether anomaly detection is on."""
    return _state["on"]


def is_anomaly_check_nan_enabled() -> bool:
    """Whether anomaly detection, where it is on, looks at the gradients' values."""
    return _state["check"]


def _kind(arrays: Any) -> str:
    """"NaN" where an array holds one, else "Inf" where one holds that, else ""."""
    bad = [a for a in arrays if a.is_float and a.numel and not _engine.item(_engine.all(_engine.isfinite(a), None,
                                                                                       False))]
    if any(_engine.item(_engine.any(_engine.isnan(a), None, False)) for a in bad):
        return "NaN"
    return "Inf" if bad else ""


def _user_lines() -> traceback.StackSummary:
    frame = sys._getframe(2)
    kept: list[tuple] = []
    while frame is not None and len(kept) < _LINES:
        if not frame.f_code.co_filename.startswith(_HERE):
            kept.append((frame, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    return traceback.StackSummary.extract(iter(reversed(kept)))


def _recorded(node: Any, arrays: Any) -> None:
    walked = _state["walk"]
    parent = None if walked is None else (walked.name, _origins.get(walked))
    origin = _Origin(_user_lines(), _kind(arrays) if _state["check"] else "", parent)
    if origin.found == "NaN" and not any(_was_nan(edge) for edge in node.edges if edge is not None):
        warnings.warn(f"forward: a NaN is in the result of {_where(node.name, origin)}", RuntimeWarning, stacklevel=2)
    _origins[node] = origin


def _was_nan(edge: tuple) -> bool:
    source, slot = edge
    if slot < 0:
        return _kind([source.array]) == "NaN"
    return source in _origins and _origins[source].found == "NaN"


def _where(name: str, origin: _Origin | None) -> str:
    if origin is None:
        return f"'{name}', recorded while anomaly detection was off"
    text = f"'{name}', recorded at\n{''.join(origin.lines.format())}".rstrip()
    return text if origin.parent is None else f"{text}\nby the gradient of {_where(*origin.parent)}"


def _earlier() -> str:
    """The first ops on the tape whose results were not finite."""
    told = ""
    for kind in ("NaN", "Inf"):
        first = min((n for n, o in _origins.items() if o.found == kind), key=lambda n: n.sequence, default=None)
        if first is not None:
            told += f"\nThe first {kind} among the results was made by {_where(first.name, _origins[first])}"
    return told


def run(node: Any, dys: Any) -> Any:
    """The gradient rule of a node, watched."""
    before, _state["walk"] = _state["walk"], node
    try:
        dxs = node.rule(node, *dys)
    except Exception as error:
        error.add_note(f"in the gradient of {_where(node.name, _origins.get(node))}")
        raise
    finally:
        _state["walk"] = before
    if not _state["check"]:
        return dxs
    wanted = [(k, g) for k, (g, want) in enumerate(zip(dxs, node.needs, strict=False)) if want and g is not None]
    if node.sequence >= _state["last"]:  # a walk goes from new nodes to old ones: this is another
        _state["inf"] = ""
    _state["last"] = node.sequence
    found = _kind([g.array for _, g in wanted])
    if not found:
        return dxs
    came = _kind([d.array for d in dys if d is not None])
    k, g = next((k, g) for k, g in wanted if _kind([g.array]) == found)
    what = f"the gradient of input {k}, {g.dtype.name} {g.shape}, by {_where(node.name, _origins.get(node))}"
    if found == "Inf":
        if came != "Inf" and not _state["inf"]:
            _state["inf"] = what
            warnings.warn(f"backward: an Inf is in {what}{_earlier()}", RuntimeWarning, stacklevel=4)
        return dxs
    earlier = f"\nAn Inf came before it, in {_state['inf']}" if _state["inf"] else ""
    begun = "; the gradient that came in held one already" if came == "NaN" else ""
    raise RuntimeError(f"backward: a NaN is in {what}{begun}{earlier}{_earlier()}")


def _switch(on: bool, check: bool) -> None:
    _state.update(on=on, check=check, inf="", last=-1)
    autograd.watch = run if on else None
    _engine.set_on_record(_recorded if on else None)


class set_detect_anomaly:
    """Switches anomaly detection on or off at once; as a context manager, puts back what was there at the end.

    It finds the first NaN or Inf of the walk back, and the line that recorded the op: a NaN is a RuntimeError, an Inf a
    warning, and so is a NaN that an op made on the way forward. Without `check_nan` only the exceptions of gradient
    rules gain the lines. Every op is slower by far.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = (_state["on"], _state["check"])
        _switch(bool(mode), bool(check_nan))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: Any) -> None:
        _switch(*self._before)


class detect_anomaly:
    """Anomaly detection inside a `with` block, or in a decorated function; see `set_detect_anomaly`.

    >>> import tilewright as tw
    >>> x = tw.zeros(2, requires_grad=True)
    >>> with tw.autograd.detect_anomaly():
    ...     y = (x.sqrt() * 0).sum()
    ...     try:
    ...         y.backward()
    ...     except RuntimeError as error:
    ...         print(str(error).split(", recorded")[0])
    backward: a NaN is in the gradient of input 0, float32 (2,), by 'sqrt'
    """

    def __init__(self, check_nan: bool = True) -> None:
        self._check, self._before = check_nan, (False, True)

    def __enter__(self) -> None:
        self._before = (_state["on"], _state["check"])
        _switch(True, self._check)

    def __exit__(self, *exc: Any) -> None:
        _switch(*self._before)

    def __call__(self, function: Any) -> Any:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with detect_anomaly(self._check):
                return function(*args, **kwargs)

        return wrapped
