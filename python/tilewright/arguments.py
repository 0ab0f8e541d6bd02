"""Public ops as `_engine.Op`: straight to the kernel where that is possible, by `run` for operands of other kinds, and
named in the message for the commonest slip, a list, a NumPy array or None where a Tensor belongs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from tilewright import _engine, autograd
from tilewright.grad_mode import mode

F = TypeVar("F", bound=Callable)


class _Number:
    """What stands for a Python number among an op's inputs: it needs no gradient."""

    requires_grad = False
    node = _base = None


NUMBER = _Number()


def direct(saves: str = "", numbers: bool = True) -> Callable[[F], F]:
    """Decorator for the function of an elementwise kernel of the same name. Tensors of floats (and, beside one, float
    numbers) skip the function: C++ runs the kernel and records the rule `<name>_grad`, found beside the function.

    `saves` is what the rule reads: "" nothing; "inputs"; "output"; "others", each operand if the other one needs a
    gradient; "divisor", the same but the second operand always; "none": there is no gradient. With `numbers=False`
    the function sees numbers.
    """
    def made(function: F) -> F:
        name = function.__name__
        op: Any = functools.update_wrapper(_engine.Op(function, name, saves, numbers), function)
        op.kernel, op.kernel_out, op.saves = getattr(_engine, name), getattr(_engine, name + "_out"), saves
        return op

    return made


def run(op, *operands, out=None):
    """What an Op does in C++, for operands of every kind: integers, numbers, NumPy arrays; and into `out`."""
    pairs = [(v, v.array) for v in operands] if len(operands) == 1 else [operand(op.__name__, v) for v in operands]
    inputs, arrays = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
    if out is not None:
        return write(op.__name__, lambda y: op.kernel(*arrays) if y is None else op.kernel_out(*arrays, y), inputs, out)
    y = op.kernel(*arrays)
    if op.saves == "none":
        return autograd.wrap(y)
    tensors = tuple(None if x is NUMBER else x for x in inputs)
    saved: tuple = {"": (), "output": (y,)}.get(op.saves, tensors)
    if op.saves in ("others", "divisor"):
        a, b = tensors
        saved = (a if wants(inputs[1]) else None, b if op.saves == "divisor" or wants(inputs[0]) else None)
    numbers = tuple(a if x is NUMBER else None for x, a in pairs) if len(pairs) > 1 else ()
    return autograd.record(op.__wrapped__.__globals__[op.__name__ + "_grad"], y, inputs, saved, numbers)


def write(name: str, kernel: Callable, inputs, out):
    """`out=`: calls `kernel(array to write into)`, or takes what `kernel(None)` returns where `out` is empty.

    Raises:
        RuntimeError: gradients are recorded and one of the tensors needs one. TypeError: out is no Tensor.
    """
    if not isinstance(out, autograd.Tensor):
        raise TypeError(f"{name}: out must be a Tensor, got {type(out).__name__}")
    if mode.grad and (out.requires_grad or any(wants(x) for x in inputs)):
        raise RuntimeError(f"{name}: out= is not recorded, but a tensor requires grad; use no_grad() or leave it out")
    if out.array.numel:
        kernel(out.array)
    else:
        out.array = _engine.cast(kernel(None), out.array.dtype)
    return out


def into(name: str, y, out, *inputs):
    """`out=` of ops without a kernel that writes into it: y copied there. Where out is empty it takes y's shape.

    Raises:
        RuntimeError: gradients are recorded and one of the tensors needs one. ValueError: another shape.
        TypeError: out is no Tensor, or its dtype cannot hold y's: floats in integers, numbers in bools.
    """
    if not isinstance(out, autograd.Tensor):
        raise TypeError(f"{name}: out must be a Tensor, got {type(out).__name__}")
    if _engine.promote_types(y.dtype, out.dtype) is not out.dtype and (
            y.dtype.is_floating_point > out.dtype.is_floating_point or out.dtype is _engine.bool):
        raise TypeError(f"{name}: a result of {y.dtype.name} cannot be written into {out.dtype.name}")

    def kernel(to):
        if to is not None:
            if to.shape != y.array.shape:
                raise ValueError(f"{name}: the output's shape must be the result's, got {to.shape} for {y.array.shape}")
            _engine.copy_into(to, y.array)
        return y.array

    return write(name, kernel, inputs, out)


def takes_out(function: F) -> F:
    """Decorator: the op also takes `out=`, a Tensor or, for one of several results, a tuple of them."""
    parameters = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*args, out=None, **kwargs):
        if out is None:
            return function(*args, **kwargs)
        given = [v for v in (*args, *kwargs.values()) if isinstance(v, autograd.Tensor)]
        given += [t for v in args if isinstance(v, list | tuple) for t in v if isinstance(t, autograd.Tensor)]
        y = function(*args, **kwargs)
        if not isinstance(y, tuple):
            return into(function.__name__, y, out, *given)
        for one, place in zip(y, out, strict=True):
            into(function.__name__, one, place, *given)
        return type(y)(*out) if hasattr(y, "_fields") else tuple(out)

    extra = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Tensor | None")
    wrapped.__signature__ = parameters.replace(parameters=[*parameters.parameters.values(), extra])  # type: ignore
    return wrapped  # type: ignore[return-value]


def tensor(op: str, x):
    """x itself when it is a Tensor; a Tensor of a NumPy array or number; TypeError otherwise."""
    if isinstance(x, autograd.Tensor):
        return x
    from tilewright.creation import as_tensor
    try:
        return as_tensor(x)
    except Exception:
        raise TypeError(f"{op}: expects a Tensor, got {type(x).__name__}") from None


def operand(op: str, x):
    """(Tensor for the tape, operand for the engine) of a Tensor, a number or a NumPy array."""
    if isinstance(x, autograd.Tensor):
        return x, x.array
    if isinstance(x, (int, float)):
        return NUMBER, x
    x = tensor(op, x)
    return x, x.array


def wants(x) -> bool:
    """Whether x needs a gradient, or will: a view of a tensor that has come to need one since."""
    return x.requires_grad or (x._base is not None and x._base.requires_grad)


def export(names: dict) -> None:
    """Puts an Op in the place of every op function in a module's names.

    Nothing is checked beforehand: the op runs, and only an AttributeError about one of its arguments is looked at.
    """
    for name, value in names.items():
        if callable(value) and not isinstance(value, type | _engine.Op) and (value.__module__ or "").startswith(
                "tilewright.ops."):
            names[name] = functools.update_wrapper(_engine.Op(value), value)
