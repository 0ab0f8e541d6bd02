"""Padding: dimensions that grow by a constant, a mirror image, their end items or themselves, or are cropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.autograd import record

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def pad(input: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Tensor:
    """Grows (or, with negative widths, crops) the last dimensions.

    `pad` lists (before, after) for the last dimension, then the one before it, and so on. Modes: "constant" (value,
    0 by default), "reflect" (mirrored about the end items), "replicate" (the end items), "circular".

    Raises:
        ValueError: widths not in pairs, more than the dimensions, or past what the mode can take from the input.

    >>> import tilewright as tw
    >>> tw.nn.functional.pad(tw.tensor([1, 2, 3]), (2, 1), mode="reflect").tolist()
    [3, 2, 1, 2, 3, 2]
    """
    try:
        widths = tuple(n.__index__() for n in pad)
    except (AttributeError, TypeError):
        raise TypeError(f"pad: expects integers, got {pad!r}") from None
    if mode == "constant":
        y = _engine.pad(input.array, widths, mode, 0 if value is None else value)
        return record(pad_grad, y, (input,), (), (widths,))
    if value:
        raise ValueError(f"pad: mode {mode!r} takes no value, got {value}")
    if mode == "circular" and min(widths, default=0) < 0:  # what is left wraps around
        crop, widths = tuple(min(n, 0) for n in widths), tuple(max(n, 0) for n in widths)
        input = record(pad_grad, _engine.pad(input.array, crop, "constant", 0), (input,), (), (crop,))
    return _pad(input, widths, mode)


def pad_grad(node, dy):
    return (pad(dy, tuple(-n for n in node.attrs[0])),)


def _pad(x, widths, mode):
    y = _engine.pad(x.array, widths, mode, 0)
    return record(pad_mode_grad, y, (x,), (), (x.array.shape, widths, mode))


def pad_mode_grad(node, dy):
    dx = _engine.pad_backward(dy.array, *node.attrs)
    return (record(pad_backward_grad, dx, (dy,), (), node.attrs[1:]),)


def pad_backward_grad(node, ddx):
    return (_pad(ddx, *node.attrs),)  # linear, so that its transpose's transpose is itself
