"""Public ops as `_engine.Op`: straight to the kernel where that is possible, and named in the message for the commonest
slip, a list, a NumPy array or None where a Tensor belongs."""

from __future__ import annotations

import functools
from collections.abc import Callable

from tilewright import _engine


def direct(saves: str) -> Callable:
    """Decorator for the function of an elementwise kernel of the same name. Tensors of floats (and, beside one, float
    numbers) skip the function: C++ runs the kernel and records the rule `<name>_grad`, found beside the function.

    `saves` is what the rule reads: "" nothing; "inputs"; "output"; "others", each operand if the other one needs a
    gradient; "divisor", the same but the second operand always; "none": there is no gradient.
    """
    return lambda function: functools.update_wrapper(_engine.Op(function, function.__name__, saves), function)


def export(names: dict) -> None:
    """Puts an Op in the place of every op function in a module's names.

    Nothing is checked beforehand: the op runs, and only an AttributeError about one of its arguments is looked at.
    """
    for name, value in names.items():
        if callable(value) and not isinstance(value, type | _engine.Op) and (value.__module__ or "").startswith(
                "tilewright.ops."):
            names[name] = functools.update_wrapper(_engine.Op(value), value)
