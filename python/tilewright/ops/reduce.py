"""Reductions: sums, means, extremes and what is made of them, over the whole tensor or any set of dims.

`dim` is an int, a sequence of ints, or None for all; `keepdim` keeps the reduced dims as size 1. NumPy's names `axis`
and `keepdims` are taken too, as PyTorch does; `out` is a Tensor of the result's shape and dtype. float16 and bfloat16
are summed in float32; bool and integer sums are int64. IndexError for a dim out of range, ValueError for one named
twice.
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.arguments import takes_out, write
from tilewright.autocast import widen
from tilewright.autograd import record, wrap
from tilewright.grad_mode import mode
from tilewright.ops import elementary as _m
from tilewright.ops import elementwise as _e

if TYPE_CHECKING:
    from tilewright.tensor import Tensor

# What the functions of these names return, shown as in PyTorch.
_Max = namedtuple("max", ("values", "indices"))  # type: ignore[name-match]
_Min = namedtuple("min", ("values", "indices"))  # type: ignore[name-match]
_MinMax = namedtuple("aminmax", ("min", "max"))  # type: ignore[name-match]


def _dims(dim, ndim):
    """The reduced dims as a set of non-negative ints."""
    if dim is None or (isinstance(dim, tuple | list) and not dim):
        return set(range(ndim))
    return {d % ndim for d in (dim if isinstance(dim, tuple | list) else (dim,))} if ndim else set()


def _spread(t, shape, dim, keepdim):
    """A result of a reduction of `shape` over `dim`, put back beside its inputs (expanded, no copy)."""
    if not keepdim and t.array.ndim != len(shape):
        dims = _dims(dim, len(shape))
        t = t.reshape(tuple(1 if i in dims else n for i, n in enumerate(shape)))
    return t.expand(shape)


def _count(shape, dim):
    """How many values are folded into each result."""
    return math.prod(shape[i] for i in _dims(dim, len(shape)))


def _given(name, y, input, out):
    """The array y, in `out` where that is given, whose shape (unless it is empty) and dtype must be y's."""
    if out is None:
        return wrap(y)

    def kernel(to):
        if to is not None:
            if to.shape != y.shape:
                raise ValueError(f"{name}: the output's shape must be the result's, got {to.shape} for {y.shape}")
            _engine.copy_into(to, y)
        return y

    if isinstance(out, autograd.Tensor) and out.dtype is not y.dtype:
        raise TypeError(f"{name}: the output's dtype must be {y.dtype}, got {out.dtype}")
    return write(name, kernel, (input,), out)


# --- sums ------------------------------------------------------------------------------------------------------------
def sum(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
        dtype: Any = None, out: Tensor | None = None, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over `dim`; of bool and integers in int64; 0 over nothing.

    >>> import tilewright as tw
    >>> tw.tensor([[1, 2], [3, 4]]).sum(0).tolist()
    [4, 6]
    """
    dim, keepdim = axis if dim is None else dim, keepdim or keepdims
    a = input.array
    y = _engine.sum(a, dim, keepdim, dtype)
    if out is not None:
        return _given("sum", y, input, out)
    return record(sum_grad, y, (input,), (), (a.shape, dim, keepdim))


def sum_grad(node, dy):
    return (_spread(dy, *node.attrs),)


def mean(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
         dtype: Any = None, out: Tensor | None = None, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean over `dim`; NaN over nothing.

    Raises:
        TypeError: bool or integers (without `dtype`).

    >>> import tilewright as tw
    >>> tw.tensor([[1.0, 2.0], [3.0, 4.0]]).mean(1).tolist()
    [1.5, 3.5]
    """
    dim, keepdim = axis if dim is None else dim, keepdim or keepdims
    a = input.array
    y = _engine.mean(a, dim, keepdim, dtype)
    if out is not None:
        return _given("mean", y, input, out)
    return record(mean_grad, y, (input,), (), (a.shape, dim, keepdim))


def mean_grad(node, dy):
    shape, dim, _ = node.attrs
    n = _count(shape, dim)
    return (_spread(dy / n if n else dy, *node.attrs),)


@widen
def prod(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
         dtype: Any = None, out: Tensor | None = None, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The product over `dim`; of bool and integers in int64; 1 over nothing.

    >>> import tilewright as tw
    >>> tw.tensor([2.0, 3.0, 4.0]).prod().item()
    24.0
    """
    dim, keepdim = axis if dim is None else dim, keepdim or keepdims
    y = _engine.prod(input.array, dim, keepdim, dtype)
    if out is not None:
        return _given("prod", y, input, out)
    return record(prod_grad, y, (input,), (input, y), (input.array.shape, dim, keepdim))


def prod_grad(node, dy):
    x, y = node.saved
    if bool(wrap(_engine.all(x.array, None, False))):
        return (_spread(dy * y, *node.attrs) / x,)
    # With one zero, only its own derivative is not 0: the product of the others. With two, all are 0.
    shape, dim, keepdim = node.attrs
    if mode.grad:  # by the products of the others themselves, n^2 of them: they can be differentiated at 0
        dims = _dims(dim, len(shape))
        order = [i for i in range(len(shape)) if i not in dims] + sorted(dims)
        rows = x.permute(order).reshape(*(n for i, n in enumerate(shape) if i not in dims), -1)
        others = prod(each_as_one(rows), -1).reshape(tuple(shape[i] for i in order))
        back = [order.index(i) for i in range(len(shape))]
        return (_spread(dy, *node.attrs) * others.permute(back),)
    zero = x == 0
    others = prod(_e.where(zero, 1.0, x), dim, keepdim)
    zeros = sum(zero, dim, keepdim)
    single = _e.logical_and(zero, _spread(zeros == 1, *node.attrs))
    none = _spread(zeros == 0, *node.attrs)
    others = _spread(dy * others, *node.attrs)
    return (_e.where(none, others / _e.where(zero, 1.0, x), _e.where(single, others, 0.0)),)


def each_as_one(x: Tensor) -> Tensor:
    """(..., n) as (..., n, n): row i is x with a 1 in the place of x_i."""
    n = x.array.shape[-1]
    places = wrap(_engine.arange(0, n, 1, _engine.int64, x.device))
    return _e.where(places == places.reshape(n, 1), 1.0, x.unsqueeze(-2))


def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """The sum over the dims that broadcasting would expand from `size`; undoes `expand`."""
    size = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    if input.array.dtype is _engine.bool and (input.array.shape != size or not size):
        input = input.long()
    return record(sum_to_size_grad, _engine.sum_to(input.array, size), (input,), (), (input.array.shape,))


def sum_to_size_grad(node, dy):
    return (dy.expand(node.attrs[0]),)


@takes_out
def nansum(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
           dtype: Any = None) -> Tensor:
    """The sum over `dim` of the values that are not NaN."""
    return sum(_e.where(_e.isnan(input), 0.0, input) if input.array.is_float else input, dim, keepdim, dtype=dtype)


@takes_out
def nanmean(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
            dtype: Any = None) -> Tensor:
    """The mean over `dim` of the values that are not NaN."""
    return nansum(input, dim, keepdim, dtype=dtype) / sum(_e.logical_not(_e.isnan(input)), dim, keepdim)


def count_nonzero(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None) -> Tensor:
    """How many values over `dim` are not 0, as int64."""
    return wrap(_engine.sum(_engine.ne(input.array, 0), dim, False, None))


# --- extremes --------------------------------------------------------------------------------------------------------
def amax(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
         out: Tensor | None = None, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest value over `dim`; NaN if there is one. The gradient is shared evenly between equals.

    Raises:
        ValueError: a reduced dim of size 0.
    """
    return _extremum("amax", amax_grad, input, axis if dim is None else dim, keepdim or keepdims, out)


def amin(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
         out: Tensor | None = None, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The smallest value over `dim`; NaN if there is one. The gradient is shared evenly between equals.

    Raises:
        ValueError: a reduced dim of size 0.
    """
    return _extremum("amin", amin_grad, input, axis if dim is None else dim, keepdim or keepdims, out)


def _extremum(name, rule, x, dim, keepdim, out=None):
    y = getattr(_engine, name)(x.array, dim, keepdim)
    if out is not None:
        return _given(name, y, x, out)
    return record(rule, y, (x,), (x, y), (x.array.shape, dim, keepdim))


def amax_grad(node, dy):
    x, y = node.saved
    _, dim, keepdim = node.attrs
    best = x == _spread(y, *node.attrs)
    share = dy / sum(best, dim, keepdim).to(dy.dtype)
    return (_e.where(best, _spread(share, *node.attrs), 0.0),)


def amin_grad(node, dy):
    return amax_grad(node, dy)


def max_grad(node, dy):
    """Of `max` and `min` along one dim: the gradient goes to the element that was picked."""
    (indices,), (shape, dim, keepdim) = node.saved, node.attrs
    if not shape:
        return (dy,)
    dim %= len(shape)
    if not keepdim:
        dy, indices = dy.unsqueeze(dim), indices.unsqueeze(dim)
    places = wrap(_engine.arange(0, shape[dim], 1, _engine.int64, dy.device))
    places = places.reshape((-1,) + (1,) * (len(shape) - dim - 1))
    return (_e.where(places == indices, dy, 0.0),)


def min_grad(node, dy):
    return max_grad(node, dy)


def _pick(op, kernels, rules, pair, binary, input, dim, keepdim, other):
    if isinstance(dim, autograd.Tensor):
        dim, other = None, dim
    if other is not None:
        return binary(input, other)
    a = input.array
    if dim is None:
        if not a.numel:
            raise ValueError(f"{op}: cannot reduce a dimension of size 0, got shape {a.shape}")
        return _extremum(f"a{op}", rules[0], input, None, False)
    indices = kernels[1](a, dim, keepdim)
    values = record(rules[1], kernels[0](a, dim, keepdim), (input,), (indices,), (a.shape, dim, keepdim))
    return pair(values, wrap(indices))


@takes_out
def max(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
        other: Tensor | float | None = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest value: of the whole tensor; along `dim`, as (values, indices); or of each pair, given a Tensor.

    Of equal values along a dim the first is picked, and gets the gradient; over the whole tensor equals share it.

    Raises:
        ValueError: a reduced dim of size 0.

    >>> import tilewright as tw
    >>> values, indices = tw.tensor([[1.0, 5.0], [4.0, 2.0]]).max(1)
    >>> values.tolist(), indices.tolist()
    ([5.0, 4.0], [1, 0])
    """
    return _pick("max", (_engine.amax, _engine.argmax), (amax_grad, max_grad), _Max, _e.maximum, input,
                 axis if dim is None else dim, keepdim or keepdims, other)


@takes_out
def min(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
        other: Tensor | float | None = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The smallest value: of the whole tensor; along `dim`, as (values, indices); or of each pair, given a Tensor.

    Of equal values along a dim the first is picked, and gets the gradient; over the whole tensor equals share it.

    Raises:
        ValueError: a reduced dim of size 0.
    """
    return _pick("min", (_engine.amin, _engine.argmin), (amin_grad, min_grad), _Min, _e.minimum, input,
                 axis if dim is None else dim, keepdim or keepdims, other)


@takes_out
def aminmax(input: Tensor, *, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False) -> Any:
    """(min, max) of the whole tensor or along `dim`."""
    return _MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Tensor | None = None, axis: Any = None,
           keepdims: bool = False) -> Tensor:
    """Where the largest value is along `dim`, or in the flattened tensor: the first of equals; the first NaN.

    Raises:
        ValueError: a reduced dim of size 0.

    >>> import tilewright as tw
    >>> tw.tensor([[1.0, 5.0], [4.0, 2.0]]).argmax(1).tolist()
    [1, 0]
    """
    y = _engine.argmax(input.array, axis if dim is None else dim, keepdim or keepdims)
    return _given("argmax", y, input, out)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Tensor | None = None, axis: Any = None,
           keepdims: bool = False) -> Tensor:
    """Where the smallest value is along `dim`, or in the flattened tensor: the first of equals; the first NaN.

    Raises:
        ValueError: a reduced dim of size 0.
    """
    y = _engine.argmin(input.array, axis if dim is None else dim, keepdim or keepdims)
    return _given("argmin", y, input, out)


def any(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
        out: Tensor | None = None, axis: Any = None) -> Tensor:
    """Whether some value over `dim` is not 0 (NaN counts); False over nothing."""
    return _given("any", _engine.any(input.array, axis if dim is None else dim, keepdim), input, out)


def all(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False, *,
        out: Tensor | None = None, axis: Any = None) -> Tensor:
    """Whether every value over `dim` is not 0 (NaN counts); True over nothing."""
    return _given("all", _engine.all(input.array, axis if dim is None else dim, keepdim), input, out)


# --- variance and norms ----------------------------------------------------------------------------------------------
def _correction(dim, unbiased, correction):
    """PyTorch's older forms: var(unbiased) and var(dim, unbiased)."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return dim, float(unbiased if unbiased is not None else 1 if correction is None else correction)


@takes_out
def var(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, unbiased: Any = None,
        keepdim: bool = False, *, correction: Any = 1, axis: Any = None, keepdims: bool = False) -> Tensor:
    """sum((x - mean)^2) / (n - correction) over `dim`, n values each; in two passes, so large means do not cancel.

    Raises:
        TypeError: bool or integers.

    >>> import tilewright as tw
    >>> tw.tensor([1.0, 2.0, 3.0]).var().item(), tw.tensor([1.0, 3.0]).var(correction=0).item()
    (1.0, 1.0)
    """
    dim, correction = _correction(axis if dim is None else dim, unbiased, correction)
    keepdim = keepdim or keepdims
    y = _engine.var(input.array, dim, correction, keepdim)
    return record(var_grad, y, (input,), (input,), (input.array.shape, dim, keepdim, correction))


def var_grad(node, dy):
    (x,), (shape, dim, keepdim, correction) = node.saved, node.attrs
    degrees = _count(shape, dim) - correction
    scale = dy * (2.0 / degrees if degrees > 0 else math.inf)
    return (_spread(scale, shape, dim, keepdim) * (x - mean(x, dim, True) if shape else x - x),)


@takes_out
@_e.in_float32
def std(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, unbiased: Any = None,
        keepdim: bool = False, *, correction: Any = 1, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The square root of `var`; its gradient where it is 0 is taken as 0."""
    dim, correction = _correction(axis if dim is None else dim, unbiased, correction)
    keepdim = keepdim or keepdims
    y = _engine.cast(_engine.sqrt(_engine.var(input.array, dim, correction, keepdim, True)), input.dtype)
    return record(std_grad, y, (input,), (input, y), (input.array.shape, dim, keepdim, correction))


def std_grad(node, dy):
    (x, y), (shape, dim, keepdim, correction) = node.saved, node.attrs
    degrees = _count(shape, dim) - correction
    zero = y == 0
    scale = _e.where(zero, 0.0, dy / _e.where(zero, 1.0, y)) * (1.0 / degrees if degrees > 0 else math.inf)
    return (_spread(scale, shape, dim, keepdim) * (x - mean(x, dim, True) if shape else x - x),)


def var_mean(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, unbiased: Any = None,
             keepdim: bool = False, *, correction: Any = 1) -> Any:
    """(var, mean)."""
    dim, correction = _correction(dim, unbiased, correction)
    return var(input, dim, None, keepdim, correction=correction), mean(input, dim, keepdim)


def std_mean(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, unbiased: Any = None,
             keepdim: bool = False, *, correction: Any = 1) -> Any:
    """(std, mean)."""
    dim, correction = _correction(dim, unbiased, correction)
    return std(input, dim, None, keepdim, correction=correction), mean(input, dim, keepdim)


@takes_out
@widen
def norm(input: Tensor, p: Any = "fro", dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False,
         dtype: Any = None, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The vector norm sum(|x|^p)^(1/p) over `dim`; p "fro" is 2, inf and -inf the largest and smallest |x|, 0 counts.
    "nuc" is the sum of a matrix's singular values.

    Raises:
        TypeError: bool or integers. ValueError: another p.

    >>> import tilewright as tw
    >>> tw.tensor([3.0, 4.0]).norm().item()
    5.0
    """
    x = input if dtype is None else input.to(dtype)
    if not x.array.is_float:
        raise TypeError(f"norm: must have a floating-point dtype, got {x.dtype.name} {x.shape}")
    if p == "nuc":
        from tilewright.linalg import matrix_norm

        return matrix_norm(x, "nuc", (-2, -1) if dim is None else dim, keepdim)
    if not (p is None or p == "fro" or isinstance(p, int | float)):
        raise ValueError(f"norm: p must be a number or 'fro', got {p!r}")
    dim, keepdim = axis if dim is None else dim, keepdim or keepdims
    if p is None or p in ("fro", 2):
        wide = _engine.cast(x.array, _engine.float32) if x.dtype.itemsize == 2 else x.array
        y = _engine.cast(_engine.sqrt(_engine.sum(_engine.square(wide), dim, keepdim, None)), x.dtype)
        return record(norm_grad, y, (x,), (x, y), (x.array.shape, dim, keepdim))
    if math.isinf(p):
        return (amax if p > 0 else amin)(_m.abs(x), dim, keepdim)
    if p == 0:
        return record(norm_zero_grad, sum((x != 0).to(x.dtype), dim, keepdim).array, (x,), (), (x.array.shape,))
    if p == 1:
        return sum(_m.abs(x), dim, keepdim)
    # Where the slope is infinite, at zeros and at a norm of 0, the gradient is taken as 0.
    zero = x == 0
    total = sum(_e.where(zero, 0.0, _e.pow(_e.where(zero, 1.0, _m.abs(x)), p)), dim, keepdim)
    nothing = total == 0 if p > 0 else sum(zero, dim, keepdim) > 0
    return _e.where(nothing, 0.0, _e.pow(_e.where(nothing, 1.0, total), 1.0 / p))


def norm_zero_grad(node, dy):
    return (wrap(_engine.full(node.attrs[0], 0, dy.array.dtype, dy.device)),)


def norm_grad(node, dy):
    """Of p = 2: x dy / y; 0 where y is 0."""
    x, y = node.saved
    zero = y == 0
    return (x * _spread(_e.where(zero, 0.0, dy / _e.where(zero, 1.0, y)), *node.attrs),)


@takes_out
def logsumexp(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over `dim`, as max x + log(sum(exp(x - max x))), which does not overflow.

    >>> import tilewright as tw
    >>> round(tw.tensor([1000.0, 1000.0]).logsumexp(0).item(), 3)
    1000.693
    """
    input = input if input.array.is_float else _e.cast(input, _engine.get_default_dtype())
    a = input.array
    wide = _engine.cast(a, _engine.float32) if a.dtype.itemsize == 2 else a
    top = _engine.amax(wide, dim, True)
    top = _engine.where(_engine.isfinite(top), top, 0.0)
    y = _engine.log(_engine.sum(_engine.exp(_engine.sub(wide, top)), dim, True, None))
    y = _engine.cast(_engine.add(y, top), a.dtype)
    if not keepdim:
        dims = _dims(dim, a.ndim)
        y = wrap(y).reshape(tuple(n for i, n in enumerate(a.shape) if i not in dims)).array
    return record(logsumexp_grad, y, (input,), (input, y), (a.shape, dim, keepdim))


def logsumexp_grad(node, dy):
    x, y = node.saved
    return (_spread(dy, *node.attrs) * _m.exp(x - _spread(y, *node.attrs)),)
