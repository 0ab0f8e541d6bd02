"""Places, counts and statistics, made of other ops: binary search, quantiles, the mode, differences, covariances."""

from __future__ import annotations

import itertools
import math
from collections import namedtuple
from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.arguments import takes_out
from tilewright.autograd import wrap
from tilewright.ops import elementwise, index, reduce, scan, shape, sort
from tilewright.ops.elementwise import where
from tilewright.ops.maths import _floating

if TYPE_CHECKING:
    from tilewright.tensor import Tensor

_Mode = namedtuple("mode", ("values", "indices"))  # type: ignore[name-match]
_Histogram = namedtuple("histogram", ("hist", "bin_edges"))  # type: ignore[name-match]


def _integers(start: int, end: int, like):
    return wrap(_engine.arange(start, end, 1, _engine.int64, like.device))


def _as_tensor(value, like):
    if isinstance(value, autograd.Tensor):
        return value
    from tilewright.creation import tensor
    return tensor(value, device=like.device)


# --- search ----------------------------------------------------------------------------------------------------------
@takes_out
def searchsorted(sorted_sequence: Tensor, input: Tensor, *, out_int32: bool = False, right: bool = False,
                 side: str | None = None, sorter: Any = None) -> Tensor:
    """Where each value belongs in an ascending sequence: the first place i with sequence[i] >= value, or > if `right`.

    A 1-d sequence serves all values; one of more dimensions has a row for each row of values. By bisection: ceil(log2
    n) + 1 steps over all values at once.

    Raises:
        ValueError: rows that do not match, or `side` against `right`.

    >>> import tilewright as tw
    >>> tw.searchsorted(tw.tensor([1, 3, 5]), tw.tensor([3, 4])).tolist()
    [1, 2]
    """
    if side not in (None, "left", "right") or (side == "left" and right):
        raise ValueError(f"searchsorted: side must be 'left' or 'right' and agree with right, got side={side!r}, "
                         f"right={right}")
    right = right or side == "right"
    values = _as_tensor(input, sorted_sequence)
    rows = sorted_sequence.dim() > 1
    if rows and tuple(values.shape[:-1]) != tuple(sorted_sequence.shape[:-1]):
        raise ValueError(f"searchsorted: rows of both must match, got {tuple(sorted_sequence.shape)} and "
                         f"{tuple(values.shape)}")
    sequence = sorted_sequence.detach()
    if sorter is not None:
        sequence = index.gather(sequence, -1, sorter)
    values, n = values.detach(), sequence.shape[-1]
    low = wrap(_engine.full(values.shape, 0, _engine.int64, values.device))
    high = low + n
    for _ in range(n.bit_length()):
        middle = (low + high) // 2
        place = middle.clamp(max=max(n - 1, 0))
        found = index.gather(sequence, -1, place) if rows else index.index_select(
            sequence, 0, place.reshape(-1)).reshape(values.shape)
        up = ~(found > values if right else found >= values) & (low < high)  # NaN comes last
        low, high = where(up, middle + 1, low), where(up, high, middle)
    return low.int() if out_int32 else low


@takes_out
def bucketize(input: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The bucket of each value between ascending boundaries: `searchsorted` with its operands the other way round."""
    if boundaries.dim() != 1:
        raise ValueError(f"bucketize: boundaries must be 1-d, got shape {tuple(boundaries.shape)}")
    return searchsorted(boundaries, _as_tensor(input, boundaries), out_int32=out_int32, right=right)


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Which elements are among the test elements; `assume_unique` changes nothing here."""
    like = elements if isinstance(elements, autograd.Tensor) else test_elements
    elements, tests = _as_tensor(elements, like), _as_tensor(test_elements, like).reshape(-1)
    if not tests.numel():
        return wrap(_engine.full(elements.shape, invert, _engine.bool, elements.device))
    tests = sort.sort(tests)[0]
    place = searchsorted(tests, elements).clamp(max=tests.numel() - 1)
    found = index.index_select(tests, 0, place.reshape(-1)).reshape(elements.shape) == elements
    return ~found if invert else found


@takes_out
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many values fall into each of `bins` equal parts of [min, max] (the values' own range if both are equal)."""
    x = input.detach().reshape(-1)
    if min == max and x.numel():
        min, max = x.min().item(), x.max().item()
    if min == max:
        min, max = min - 1, max + 1
    if not (math.isfinite(min) and math.isfinite(max)) or max < min or bins < 1:
        raise ValueError(f"histc: bins must be positive and min <= max finite, got bins={bins}, min={min}, max={max}")
    inside = index.masked_select(x, (x >= min) & (x <= max))
    place = ((inside - min) * bins / (max - min)).long().clamp(max=bins - 1)
    from tilewright.ops.composed import bincount
    return bincount(place, minlength=bins).to(input.dtype)


# --- order statistics ------------------------------------------------------------------------------------------------
def _quantile(op, input, q, dim, keepdim, interpolation, skip_nan):
    choices = ("linear", "lower", "higher", "midpoint", "nearest")
    if interpolation not in choices:
        raise ValueError(f"{op}: interpolation must be one of {', '.join(choices)}, got {interpolation!r}")
    if not input.is_floating_point() or not input.numel():
        raise ValueError(f"{op}: input must be floating-point and not empty, got {input.dtype.name} "
                         f"{tuple(input.shape)}")
    q = q.to(input.dtype) if isinstance(q, autograd.Tensor) else input.new_tensor(q)
    if q.dim() > 1 or bool(((q < 0) | (q > 1)).any()):
        raise ValueError(f"{op}: q must be a number or 1-d, in [0, 1], got {q.tolist()}")
    if not input.dim():
        y = _quantile(op, input.reshape(1), q, 0, False, interpolation, skip_nan)
        return y
    x = input.reshape(-1) if dim is None else shape.movedim(input, dim, -1)
    ordered = sort.sort(x, -1)[0]
    nan = elementwise.isnan(ordered).sum(-1, keepdim=True)
    n = x.shape[-1] - nan if skip_nan else nan * 0 + x.shape[-1]
    at = q.reshape(-1) * (n - 1).to(input.dtype)
    at = where(n == 0, 0.0, at)
    if interpolation == "nearest":
        at = at.round()
    low, high = (v.clamp(0, x.shape[-1] - 1) for v in (at.floor().long(), at.ceil().long()))
    if interpolation in ("lower", "higher"):
        y = index.gather(ordered, -1, low if interpolation == "lower" else high)
    else:
        weight = at - low.to(at.dtype) if interpolation != "midpoint" else (low != high).to(at.dtype) * 0.5
        y = elementwise.lerp(index.gather(ordered, -1, low), index.gather(ordered, -1, high), weight)
    y = where((nan > 0) if not skip_nan else (n == 0), math.nan, y)
    y = shape.movedim(y, -1, 0)
    if keepdim:
        whole = dim is None or not input.dim()
        y = y.reshape((-1, *[1] * input.dim())) if whole else shape.unsqueeze(y, dim % input.dim() + 1)
    return y if q.dim() else shape.select(y, 0, 0)


@takes_out
def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """The q-quantiles over `dim` or all values; q a number, or 1-d for a leading dimension. NaN where there is one.

    Raises:
        ValueError: q outside [0, 1], another interpolation than linear, lower, higher, midpoint, nearest.

    >>> import tilewright as tw
    >>> tw.quantile(tw.tensor([1.0, 2.0, 4.0]), 0.75).item()
    3.0
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@takes_out
def nanquantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
                interpolation: str = "linear") -> Tensor:
    """`quantile` of the values that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


@takes_out
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """(values, indices) of the most frequent value along `dim`, the smallest of several, and where it stands last."""
    if not input.dim():
        return _Mode(input.clone(), wrap(_engine.full((), 0, _engine.int64, input.device)))
    x = shape.movedim(input, dim, -1)
    ordered, order = sort.sort(x.detach(), -1, stable=True)
    n = x.shape[-1]
    start = shape.cat([ordered[..., :1] == ordered[..., :1], ordered[..., 1:] != ordered[..., :-1]], -1)
    start[..., 0] = True
    place = _integers(0, n, input)
    length = place - scan.cummax(where(start, place, 0), -1)[0]
    best = reduce.argmax(length, -1, keepdim=True)  # the first: the smallest value, at its run's end
    indices = index.gather(order, -1, best)
    values = index.gather(x, -1, indices)
    pair = [shape.movedim(v, -1, dim) for v in (values, indices)]
    return _Mode(*(pair if keepdim else [shape.squeeze(v, dim) for v in pair]))


# --- differences and integrals ---------------------------------------------------------------------------------------
@takes_out
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Tensor:
    """The differences of neighbours along `dim`, n times over; bools differ or not."""
    x = shape.cat([v for v in (prepend, input, append) if v is not None], dim) if (
        prepend is not None or append is not None) else input
    if n < 0:
        raise ValueError(f"diff: n must not be negative, got {n}")
    if n == 0:
        return elementwise.clone(input)
    for _ in range(n):
        size = x.shape[dim]
        after, before = shape.narrow(x, dim, min(1, size), max(size - 1, 0)), shape.narrow(x, dim, 0, max(size - 1, 0))
        x = after != before if x.dtype is _engine.bool else after - before
    return x


def _steps(y, x, dx, dim):
    """The areas between neighbours."""
    size = y.shape[dim]
    heights = (shape.narrow(y, dim, 1, size - 1) + shape.narrow(y, dim, 0, size - 1)) / 2
    if x is None:
        return heights * (1.0 if dx is None else dx)
    if x.dim() == 1:
        x = x.reshape([-1 if d == dim % y.dim() else 1 for d in range(y.dim())])
    return heights * diff(x, dim=dim)


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral of y over `dim` by the trapezoidal rule, at places x or at distances dx (1)."""
    return _steps(y, x, dx, dim).sum(dim)


def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integrals of y from the first place to each further one."""
    return scan.cumsum(_steps(y, x, dx, dim), dim)


def trapz(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """`trapezoid`."""
    return trapezoid(y, x, dx=dx, dim=dim)


def cov(input: Tensor, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Tensor:
    """The covariances of variables (rows) over observations (columns), weighted by counts and by importance."""
    if input.dim() > 2:
        raise ValueError(f"cov: input must have at most 2 dimensions, got {tuple(input.shape)}")
    x = _floating(input.reshape(1, -1) if input.dim() < 2 else input)
    for name, w in (("fweights", fweights), ("aweights", aweights)):
        if w is None:
            continue
        if w.dim() > 1 or w.numel() != x.shape[1]:
            raise ValueError(f"cov: {name} must have one value for each of {x.shape[1]} observations, got shape "
                             f"{tuple(w.shape)}")
        if w.is_floating_point() != (name == "aweights"):
            raise TypeError(f"cov: fweights must be integers and aweights floats, got {name} of {w.dtype.name}")
        if w.numel() and w.min().item() < 0:
            raise ValueError(f"cov: {name} must not be negative, got {w.min().item()}")
    if fweights is not None and aweights is not None:
        weights = fweights * aweights
    else:
        weights = fweights if fweights is not None else aweights
    if weights is None:
        weights = x.new_ones(x.shape[1])
    w, total = weights, weights.sum()
    centred = x - ((x * w).sum(1) / total).unsqueeze(1)
    spent = (w * (w if aweights is None or fweights is None else aweights)).sum() if aweights is not None else total
    degrees = total - (correction if aweights is None else correction * spent / total)
    y = (centred * w) @ centred.transpose(0, 1) / degrees.clamp(min=0)
    return y.squeeze() if y.numel() == 1 else y


def corrcoef(input: Tensor) -> Tensor:
    """The correlations of variables (rows) over observations (columns)."""
    c = cov(input)
    if not c.dim():
        return c / c
    deviation = shape.diagonal(c).sqrt()
    return (c / deviation.unsqueeze(1) / deviation).clamp(-1, 1)


# --- positions and combinations --------------------------------------------------------------------------------------
def take(input: Tensor, index: Tensor) -> Tensor:
    """The values at places of the flattened tensor; negative places count from the end."""
    flat = input.reshape(-1)
    return flat[index.reshape(-1)].reshape(index.shape)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None,
                 layout: Any = None) -> Tensor:
    """The (2, count) places of the lower triangle of a (row, col) matrix, in row-major order."""
    from tilewright.creation import ones
    return index.nonzero(shape.tril(ones(row, col, device=device, layout=layout), offset)).t().contiguous().to(
        dtype or _engine.int64)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None,
                 layout: Any = None) -> Tensor:
    """The (2, count) places of the upper triangle of a (row, col) matrix, in row-major order."""
    from tilewright.creation import ones
    return index.nonzero(shape.triu(ones(row, col, device=device, layout=layout), offset)).t().contiguous().to(
        dtype or _engine.int64)


def unravel_index(indices: Tensor, shape: Any) -> Any:
    """The coordinates, one tensor a dimension, of places in a flattened tensor of that shape."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if indices.numel() and (indices.max().item() >= math.prod(sizes) or indices.min().item() < -math.prod(sizes)):
        raise ValueError(f"unravel_index: indices must be within shape {sizes}, got {indices.max().item()}")
    coordinates, rest = [], indices % math.prod(sizes)
    for n in reversed(sizes):
        coordinates.append(rest % n)
        rest = rest // n
    return tuple(reversed(coordinates))


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """The combinations of r elements of a 1-d tensor, one a row."""
    if input.dim() != 1 or r < 0:
        raise ValueError(f"combinations: input must be 1-d and r not negative, got {tuple(input.shape)} and {r}")
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    places = [p for row in choose(range(input.numel()), r) for p in row]
    if not places:
        return input.new_empty(0, r) if r else input.new_empty(0)
    return index.index_select(input, 0, input.new_tensor(places, dtype=_engine.int64)).reshape(-1, r)


def cartesian_prod(*tensors: Tensor) -> Any:
    """All combinations of one element of each 1-d tensor, one a row."""
    if len(tensors) == 1:
        return tensors[0]
    return shape.stack([g.reshape(-1) for g in shape.meshgrid(*tensors, indexing="ij")], -1)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of a 1-d tensor, N columns, the highest first unless `increasing`."""
    powers = _integers(0, x.numel() if N is None else N, x)
    return elementwise.pow(x.unsqueeze(-1), powers if increasing else shape.flip(powers, 0))
