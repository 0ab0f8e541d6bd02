"""Scans: cumulative sums, products, extremes and log-sum-exps along one dimension."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.arguments import takes_out
from tilewright.autocast import widen
from tilewright.autograd import record, wrap
from tilewright.grad_mode import mode
from tilewright.ops import elementary, elementwise, shape
from tilewright.ops.index import _gather_sum
from tilewright.ops.reduce import each_as_one

if TYPE_CHECKING:
    from tilewright.tensor import Tensor

_Cummax = namedtuple("cummax", ("values", "indices"))  # type: ignore[name-match]
_Cummin = namedtuple("cummin", ("values", "indices"))  # type: ignore[name-match]


@takes_out
@widen
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """y_i = x_0 + ... + x_i along `dim`; of bool and integers in int64.

    Raises:
        IndexError: dim out of range.

    >>> import tilewright as tw
    >>> tw.tensor([1, 2, 3]).cumsum(0).tolist()
    [1, 3, 6]
    """
    return _cumsum(input, dim, dtype, False)


def _cumsum(x, dim, dtype, reverse):
    y, _ = _engine.scan("cumsum", x.array, dim, dtype, "sum", reverse)
    return record(cumsum_grad, y, (x,), (), (dim, reverse))


def cumsum_grad(node, dy):
    dim, reverse = node.attrs
    return (_cumsum(dy, dim, None, not reverse),)


@takes_out
@widen
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """y_i = x_0 ... x_i along `dim`; of bool and integers in int64.

    Raises:
        IndexError: dim out of range.

    >>> import tilewright as tw
    >>> tw.tensor([1, 2, 3, 4]).cumprod(0).tolist()
    [1, 2, 6, 24]
    """
    x = input if dtype is None else input.to(dtype)
    y, _ = _engine.scan("cumprod", x.array, dim, dtype, "prod", False)
    return record(cumprod_grad, y, (x,), (x, y), (dim,))


def cumprod_grad(node, dy):
    """The sum over j >= i of dy_j y_j / x_i. Of zeros only the first has a derivative, and behind it there is none."""
    (x, y), (dim,) = node.saved, node.attrs
    zero = x == 0
    met = cumsum(zero, dim)
    safe = elementwise.where(zero, 1.0, x)
    before = _cumsum(dy * y, dim, None, True) / safe
    if not bool(wrap(_engine.any(zero.array, None, False))):
        return (before,)
    if mode.grad:  # the sum over j >= i of dy_j and the product of x_k, k != i and k <= j: it has a derivative at 0
        others = cumprod(each_as_one(x.transpose(dim, -1)), -1)
        return ((others * dy.transpose(dim, -1).unsqueeze(-2)).triu().sum(-1).transpose(dim, -1),)
    first = elementwise.logical_and(zero, met == 1)
    others = cumprod(elementwise.where(first, 1.0, x), dim)
    at_first = _cumsum(dy * others, dim, None, True)
    return (elementwise.where(met == 0, before, elementwise.where(first, at_first, 0.0)),)


@takes_out
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """y_i = log(exp x_0 + ... + exp x_i) along `dim`, computed from x minus the largest so far.

    Raises:
        TypeError: bool or integers. IndexError: dim out of range.
    """
    y, _ = _engine.scan("logcumsumexp", input.array, dim, None, "logsumexp", False)
    return record(logcumsumexp_grad, y, (input,), (input, y), (dim,))


def logcumsumexp_grad(node, dy):
    """exp(x_i) times the sum over j >= i of dy_j exp(-y_j), positive and negative dy apart and in logarithms."""
    (x, y), (dim,) = node.saved, node.attrs

    def part(g):
        logs = elementwise.where(g > 0, elementary.log(elementwise.where(g > 0, g, 1.0)) - y, -float("inf"))
        return elementary.exp(shape.flip(logcumsumexp(shape.flip(logs, dim), dim), dim) + x)

    return (part(dy) - part(-dy),)


def _extreme(op, x, dim, kind, pair):
    y, indices = _engine.scan(op, x.array, dim, None, kind, False)
    return pair(record(cummax_grad, y, (x,), (indices,), (dim, x.array.shape)), wrap(indices))


@takes_out
def cummax(input: Tensor, dim: int) -> Any:
    """(values, indices) of the largest value so far along `dim`, the last of equals; NaN from the first NaN on."""
    return _extreme("cummax", input, dim, "max", _Cummax)


@takes_out
def cummin(input: Tensor, dim: int) -> Any:
    """(values, indices) of the smallest value so far along `dim`, the last of equals; NaN from the first NaN on."""
    return _extreme("cummin", input, dim, "min", _Cummin)


def cummax_grad(node, dy):
    (indices,), (dim, size) = node.saved, node.attrs
    return (_gather_sum(dy, dim, indices, size) if size else dy,)
