"""Whether ops are recorded: one flag a thread, and the context managers that set it."""

from __future__ import annotations

import functools
from typing import Any

from tilewright._engine import mode


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require grad are recorded in this thread."""
    return mode.grad


class _SetGrad:
    """A context manager and decorator: sets the flag to `value`, and puts back what was there."""

    value = True
    _previous: list[bool]

    def __new__(cls, function: Any = None) -> Any:
        self = super().__new__(cls)
        self._previous = []
        return self(function) if callable(function) else self

    def __enter__(self) -> None:
        self._previous.append(mode.grad)
        mode.grad = self.value

    def __exit__(self, *exc) -> None:
        mode.grad = self._previous.pop()

    def __call__(self, function):
        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            with self:
                return function(*args, **kwargs)

        return wrapped


class enable_grad(_SetGrad):
    """Records ops inside the block, even within `no_grad`."""


class no_grad(_SetGrad):
    """Records nothing inside the block (or the decorated function): results need no gradient.

    >>> import tilewright as tw
    >>> w = tw.ones(2, requires_grad=True)
    >>> with tw.no_grad():
    ...     y = w * 2
    >>> y.requires_grad
    False
    """

    value = False


class set_grad_enabled(_SetGrad):
    """Sets the flag at once; as a context manager, puts back what was there at the end of the block."""

    def __new__(cls, mode_on: bool) -> Any:
        self = object.__new__(cls)
        self._previous = [mode.grad]
        self.value = mode.grad = bool(mode_on)
        return self

    def __enter__(self) -> None:
        mode.grad = self.value

    def __exit__(self, *exc) -> None:
        mode.grad = self._previous[0]

    def __call__(self, function):
        mode.grad = self._previous[0]  # as a decorator, it holds inside the function only
        value = self.value

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            with set_grad_enabled(value):
                return function(*args, **kwargs)

        return wrapped
