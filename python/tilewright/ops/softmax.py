"""softmax and log_softmax along any dim."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.autocast import widen
from tilewright.autograd import record, wrap
from tilewright.grad_mode import mode
from tilewright.ops.elementary import exp
from tilewright.ops.reduce import sum

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def _prepare(op, x, dim, dtype):
    if dim is None:  # PyTorch's rule of old
        dim = 0 if x.array.ndim in (0, 1, 3) else 1
        warnings.warn(f"{op}: dim was not given; taking {dim}. Pass dim= to choose.", UserWarning, stacklevel=4)
    return (x if dtype is None else x.to(dtype)), dim


@widen
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None, *,
            axis: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, computed from x - max x, which does not overflow.

    Raises:
        TypeError: bool or integers (without `dtype`). IndexError: dim out of range.

    >>> import tilewright as tw
    >>> tw.softmax(tw.tensor([[0.0, 0.0], [0.0, 1000.0]]), 1).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    dim = axis if dim is None else dim
    if dim is None or dtype is not None:
        input, dim = _prepare("softmax", input, dim, dtype)
    y = _engine.softmax(input.array, dim)
    return record(softmax_grad, y, (input,), (y,), (dim,))


def softmax_grad(node, dy):
    (y,), (dim,) = node.saved, node.attrs
    if mode.grad:
        g = y * dy
        return (g - y * sum(g, dim, True),)
    return (wrap(_engine.softmax_backward(y.array, dy.array, dim)),)


@widen
def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None, *,
                axis: Any = None) -> Tensor:
    """x - max x - log(sum(exp(x - max x))) along `dim`: the logarithm of `softmax`, exact where that is tiny.

    Raises:
        TypeError: bool or integers (without `dtype`). IndexError: dim out of range.

    >>> import tilewright as tw
    >>> tw.log_softmax(tw.tensor([0.0, 1000.0]), 0).tolist()
    [-1000.0, 0.0]
    """
    dim = axis if dim is None else dim
    if dim is None or dtype is not None:
        input, dim = _prepare("log_softmax", input, dim, dtype)
    y = _engine.log_softmax(input.array, dim)
    return record(log_softmax_grad, y, (input,), (y,), (dim,))


def log_softmax_grad(node, dy):
    (y,), (dim,) = node.saved, node.attrs
    if mode.grad:
        return (dy - exp(y) * sum(dy, dim, True),)
    return (wrap(_engine.log_softmax_backward(y.array, dy.array, dim)),)
