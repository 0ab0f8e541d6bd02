"""`autocast`: a block in which products run in half precision and sums over many terms in float32.

The lists of ops are PyTorch's. `lower` marks an op of the first kind, `widen` one of the second; other ops take what
they are given, by the usual promotion.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from tilewright import _engine, autograd

F = TypeVar("F", bound=Callable)

_HALVES = (_engine.float16, _engine.bfloat16)
_active = [0]  # blocks open in any thread: while there are none, an op looks no further


class _State(threading.local):
    dtype: Any = None  # that products run in


_state = _State()


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether this thread is in an `autocast` block."""
    return _state.dtype is not None


def get_autocast_dtype(device_type: str | None = None) -> Any:
    """The dtype that products run in, or would by default."""
    return _state.dtype or (_engine.float16 if device_type == "cuda" else _engine.bfloat16)


def is_autocast_cpu_enabled() -> bool:
    """`is_autocast_enabled`."""
    return is_autocast_enabled()


def get_autocast_cpu_dtype() -> Any:
    """`get_autocast_dtype("cpu")`."""
    return get_autocast_dtype("cpu")


def get_autocast_gpu_dtype() -> Any:
    """`get_autocast_dtype("cuda")`."""
    return get_autocast_dtype("cuda")


class autocast:
    """`with autocast("cuda", dtype=tw.float16):` runs matrix products, convolutions and attention in half precision,
    and softmax, norms and losses in float32, whatever dtype their operands have. Also a decorator.

    The default dtype is float16 on "cuda" and bfloat16 on "cpu". Parameters stay as they are: each is cast where it is
    used, and its gradient comes back in its own dtype.

    Raises:
        ValueError: another device. TypeError: a dtype that is not a half.
    """

    def __init__(self, device_type: str = "cuda", dtype: Any = None, enabled: bool = True,
                 cache_enabled: bool | None = None) -> None:
        if isinstance(device_type, bool):  # cuda.amp.autocast(enabled)
            device_type, enabled = "cuda", device_type
        if str(device_type).partition(":")[0] not in ("cpu", "cuda"):
            raise ValueError(f"autocast: device_type must be 'cpu' or 'cuda', got {device_type!r}")
        dtype = dtype or (_engine.float16 if str(device_type).startswith("cuda") else _engine.bfloat16)
        if enabled and dtype not in (*_HALVES, _engine.float32):
            raise TypeError(f"autocast: dtype must be float16 or bfloat16, got {dtype}")
        self.dtype = dtype if enabled and dtype in _HALVES else None
        self._before: list = []

    def __enter__(self) -> autocast:
        self._before.append(_state.dtype)
        _state.dtype = self.dtype
        _active[0] += 1
        return self

    def __exit__(self, *exc: Any) -> None:
        _state.dtype = self._before.pop()
        _active[0] -= 1

    def __call__(self, function):
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any):
            with self:
                return function(*args, **kwargs)

        return wrapped


def _cast(x, dtype):
    if isinstance(x, autograd.Tensor) and x.array.is_float and x.array.dtype not in (dtype, _engine.float64):
        return x.to(dtype)
    return x


def _marked(function: F, choose: Callable[[], Any]) -> Any:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any):
        if not _active[0] or _state.dtype is None:
            return function(*args, **kwargs)
        dtype = choose()
        before, _state.dtype = _state.dtype, None  # once is enough
        try:
            return function(*(_cast(a, dtype) for a in args), **{k: _cast(v, dtype) for k, v in kwargs.items()})
        finally:
            _state.dtype = before

    return wrapped


def lower(function: F) -> F:
    """Decorator: under autocast the op runs in half precision."""
    return _marked(function, lambda: _state.dtype)


def widen(function: F) -> F:
    """Decorator: under autocast the op runs in float32."""
    return _marked(function, lambda: _engine.float32)
