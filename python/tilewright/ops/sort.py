"""Orders along one dimension: sort, topk, the k-th value, medians, and unique values.

NaN counts as the largest value; equals keep their order, so every result here is that of a stable sort.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.arguments import takes_out
from tilewright.autograd import record, wrap
from tilewright.ops import elementwise, scan, shape
from tilewright.ops.index import _gather_sum, nonzero, scatter

if TYPE_CHECKING:
    from tilewright.tensor import Tensor

_Sort = namedtuple("sort", ("values", "indices"))  # type: ignore[name-match]
_Topk = namedtuple("topk", ("values", "indices"))  # type: ignore[name-match]
_Kthvalue = namedtuple("kthvalue", ("values", "indices"))  # type: ignore[name-match]
_Median = namedtuple("median", ("values", "indices"))  # type: ignore[name-match]
_Nanmedian = namedtuple("nanmedian", ("values", "indices"))  # type: ignore[name-match]


def _picked(pair, x, results, dim, keepdim=True):
    """values and indices as the op's pair; the gradient goes to where each value stood."""
    values, indices = results
    return pair(record(sort_grad, values, (x,), (indices,), (x.array.shape, dim, keepdim)), wrap(indices))


def sort_grad(node, dy):
    (indices,), (size, dim, keepdim) = node.saved, node.attrs
    if not size:
        return (dy,)
    if not keepdim:
        dy, indices = shape.unsqueeze(dy, dim % len(size)), shape.unsqueeze(indices, dim % len(size))
    return (_gather_sum(dy, dim, indices, size),)


@takes_out
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """(values, indices) in ascending or descending order along `dim`; always stable.

    Raises:
        IndexError: dim out of range.

    >>> import tilewright as tw
    >>> values, indices = tw.sort(tw.tensor([3, 1, 2]))
    >>> values.tolist(), indices.tolist()
    ([1, 2, 3], [1, 2, 0])
    """
    return _picked(_Sort, input, _engine.sort("sort", input.array, dim, descending), dim)


@takes_out
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that `sort` gives."""
    return wrap(_engine.sort("argsort", input.array, dim, descending)[1])


@takes_out
def msort(input: Tensor) -> Tensor:
    """The values in ascending order along dim 0."""
    return sort(input, 0).values


@takes_out
def topk(input: Tensor, k: int, dim: int | None = None, largest: bool = True, sorted: bool = True) -> Any:
    """(values, indices) of the k largest (or smallest) along `dim`, by default the last, in order.

    Raises:
        ValueError: k above the size of the dimension. IndexError: dim out of range.

    >>> import tilewright as tw
    >>> tw.topk(tw.tensor([3.0, 1.0, 2.0]), 2).indices.tolist()
    [0, 2]
    """
    dim = -1 if dim is None else dim
    return _picked(_Topk, input, _engine.topk(input.array, k, dim, largest), dim)


@takes_out
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """(values, indices) of the k-th smallest along `dim`, k from 1.

    Raises:
        ValueError: k outside [1, n]. IndexError: dim out of range.
    """
    return _picked(_Kthvalue, input, _engine.kth("kthvalue", input.array, k, dim, keepdim), dim, keepdim)


def _middle(op, pair, x, dim, keepdim):
    if dim is not None:
        return _picked(pair, x, _engine.kth(op, x.array, 0, dim, keepdim), dim, keepdim)
    return _picked(pair, flat := shape.flatten(x), _engine.kth(op, flat.array, 0, 0, False), 0, False).values


@takes_out
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median: of all values, or (values, indices) along `dim`; NaN where there is one.

    Raises:
        ValueError: a dimension of size 0. IndexError: dim out of range.

    >>> import tilewright as tw
    >>> tw.tensor([4.0, 1.0, 3.0, 2.0]).median().item()
    2.0
    """
    return _middle("median", _Median, input, dim, keepdim)


@takes_out
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of the values that are not NaN: of all, or (values, indices) along `dim`."""
    return _middle("nanmedian", _Nanmedian, input, dim, keepdim)


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
           dim: int | tuple[int, ...] | list[int] | None = None) -> Any:
    """The different values in ascending order; also each element's place among them, and how often each occurs.

    With `dim`, the different slices along it, in lexicographic order (through `numpy.unique`).

    >>> import tilewright as tw
    >>> tw.tensor([3, 1, 3]).unique().tolist()
    [1, 3]
    """
    if dim is not None:
        return _unique_slices(input, dim, return_inverse, return_counts)
    flat = shape.flatten(input.detach())
    values, order = sort(flat)
    runs, places, counts = _runs(values)
    inverse = None
    if return_inverse:
        none = wrap(_engine.full(flat.array.shape, 0, _engine.int64, flat.device))
        inverse = shape.reshape(scatter(none, 0, order, places), input.array.shape)
    return _results(runs, inverse, counts, return_inverse, return_counts)


def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | tuple[int, ...] | list[int] | None = None) -> Any:
    """The first of each run of equal values (of equal slices along `dim`); also each element's run, and the runs'
    lengths.
    """
    if dim is not None:
        x = shape.movedim(input.detach(), dim, 0)
        runs, places, counts = _runs(x)
        return _results(shape.movedim(runs, 0, dim), places, counts, return_inverse, return_counts)
    runs, places, counts = _runs(shape.flatten(input.detach()))
    return _results(runs, shape.reshape(places, input.array.shape), counts, return_inverse, return_counts)


def _unique_slices(input, dim, return_inverse, return_counts):
    import numpy

    x, half = input.detach().cpu(), input.dtype in (_engine.float16, _engine.bfloat16)
    d = shape._dim("unique", dim, x.array.ndim)
    if 0 in x.array.shape and x.array.shape[d]:
        raise ValueError(f"unique: slices along dim {d} must not be empty, got {x.array.shape}")
    made = numpy.unique((x.float() if half else x).numpy(), return_inverse=True, return_counts=True, axis=d)
    values, places, counts = (wrap(_engine.to_device(_engine.clone(_engine.from_buffer(numpy.ascontiguousarray(v))),
                                                     input.device)) for v in made)
    return _results(values.to(input.dtype), shape.flatten(places), counts, return_inverse, return_counts)


def _runs(x):
    """The first of each run of equal items along dimension 0, each item's run, and the runs' lengths."""
    n = x.array.shape[0]
    if n == 0:
        none = wrap(_engine.full((0,), 0, _engine.int64, x.device))
        return x, none, none
    new = elementwise.ne(x[1:], x[:-1])
    new = shape.reshape(new, (n - 1, new.array.numel // max(n - 1, 1))).any(1) if x.array.ndim > 1 else new
    starts = shape.cat([wrap(_engine.full((1,), True, _engine.bool, x.device)), new])
    at = shape.flatten(nonzero(starts))
    ends = shape.cat([at[1:], wrap(_engine.full((1,), n, _engine.int64, x.device))])
    return x[at], scan.cumsum(starts, 0) - 1, ends - at


def _results(values, inverse, counts, return_inverse, return_counts):
    out = (values, *((inverse,) if return_inverse else ()), *((counts,) if return_counts else ()))
    return out if len(out) > 1 else values
