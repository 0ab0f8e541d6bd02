"""The message for the commonest slip: a list, a NumPy array or None where a Tensor belongs."""

from __future__ import annotations

import functools
from collections.abc import Callable

from tilewright import autograd


def tensors_only(function: Callable) -> Callable:
    """Wraps an op so that an argument which lacks a Tensor's attributes is a TypeError that names op and type.

    Nothing is checked beforehand: the op runs, and only its failure is looked at.
    """

    @functools.wraps(function)
    def checked(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except AttributeError as error:
            culprit = error.obj
            if isinstance(culprit, autograd.Tensor) or not any(culprit is a for a in (*args, *kwargs.values())):
                raise
            raise TypeError(f"{function.__name__}: expects a Tensor, got {type(culprit).__name__}") from None

    return checked


def export(names: dict) -> None:
    """Puts the wrapped form of every op function in a module's names in the function's place."""
    for name, value in names.items():
        if callable(value) and not isinstance(value, type) and (value.__module__ or "").startswith("tilewright.ops."):
            names[name] = tensors_only(value)
