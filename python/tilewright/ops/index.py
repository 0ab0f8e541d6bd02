"""Indexing: `x[key]` and assignment through it, rows by index, gather and scatter, masks.

A key of ints, slices, None and Ellipsis gives a view. Lists, arrays, integer Tensors and bool masks give copies: their
dimensions stand where the arrays stood when these are neighbours, and first otherwise (NumPy's rule); ints are taken
before arrays, as in PyTorch. Sums over repeated indices add in the order of the indices, the same for any number of
threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.arguments import into, takes_out, wants
from tilewright.autograd import inplace, record, wrap
from tilewright.grad_mode import no_grad
from tilewright.ops import elementwise, shape
from tilewright.ops.reduce import norm

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


# --- keys ------------------------------------------------------------------------------------------------------------
def getitem(input: Tensor, key: Any) -> Tensor:
    """x[key]: a view for ints, slices, None and Ellipsis; a copy for lists, arrays, integer Tensors and masks.

    Raises:
        IndexError: an index out of range, too many indices, or a mask of another shape.
        ValueError: a slice step below 1, or index arrays that do not broadcast.
        TypeError: index arrays of floats.

    >>> import tilewright as tw
    >>> x = tw.arange(6).reshape(2, 3)
    >>> x[:, 1].tolist(), x[[1, 0], [2, 0]].tolist(), x[x > 3].tolist()
    ([1, 4], [5, 0], [4, 5])
    """
    a = input.array
    if _is_index(key):
        return _index(input, [key])
    try:
        view = _engine.index_basic(a, key)
    except IndexError:
        if a.ndim or not isinstance(key, int):
            raise
        raise IndexError(f"index: a 0-d tensor has no dimension to index, got [{key}]; use .item() for its "
                         f"number") from None
    if view is not None:
        return record(getitem_grad, view, (input,), (), (key, a.shape), input)
    view, indices = _split_key(input, key)
    return view if indices is None else _index(view, indices)


def _is_index(key) -> bool:
    """Whether the key is one Tensor of positions or a mask: the usual kind, which needs no taking apart."""
    return isinstance(key, autograd.Tensor) and key.array.ndim > 0 and key.array.dtype in _INDEX_DTYPES


_INDEX_DTYPES = (_engine.int64, _engine.bool, _engine.int32)


def getitem_grad(node, dy):
    key, shape = node.attrs
    return (_place(dy, shape, key),)


def _place(dy, shape, key):
    """dy at x[key] of an x of zeros: the gradient of a basic view, and its own kind of inverse."""
    return record(slice_backward_grad, _engine.index_basic_backward(dy.array, shape, key), (dy,), (), (key,))


def slice_backward_grad(node, ddx):
    return (getitem(ddx, node.attrs[0]),)


def _without(dy, key):
    """dy with zeros at dy[key]: the part of a gradient that an assignment lets through."""
    a = _engine.clone(dy.array)
    _engine.fill(_engine.index_basic(a, key), 0)
    return record(zero_region_grad, a, (dy,), (), (key,))


def zero_region_grad(node, ddx):
    return (_without(ddx, node.attrs[0]),)


def _array_item(item):
    """A key's item: a Tensor for lists and arrays, an int or bool for what has no dimension, or the item as it is."""
    if item is None or item is Ellipsis or isinstance(item, slice | bool | int):
        return item
    if not isinstance(item, autograd.Tensor):
        if not (hasattr(item, "__array__") or isinstance(item, list | tuple | range)):
            raise TypeError(f"index: a key holds ints, slices, None, ..., lists, arrays and Tensors, got "
                            f"{type(item).__name__}")
        if not hasattr(item, "__array__"):
            item = list(item)
            if not item:
                return wrap(_engine.empty((0,), _engine.int64))
        from tilewright.creation import as_tensor
        item = as_tensor(item)
    a = item.array
    if a.is_float or a.dtype is _engine.uint8:
        hint = "; use .bool() for a mask or .long() for positions" if a.dtype is _engine.uint8 else ""
        raise TypeError(f"index: index arrays must be bool or integers, got {a.dtype.name} {a.shape}{hint}")
    return item if a.ndim else _engine.item(a)


def _split_key(input, key):
    """The view that the key's basic part names, and index Tensors by its dimensions (None: all of one)."""
    items = [_array_item(i) for i in (key if isinstance(key, tuple) else (key,))]
    used = sum(_dims_of(i) for i in items)
    ndim = input.array.ndim
    if used > ndim:
        raise IndexError(f"index: too many indices for shape {input.array.shape}, got {used}")
    basic, indices = [], []
    for item in items:
        if item is Ellipsis:
            basic += [slice(None)] * (ndim - used)
            indices += [None] * (ndim - used)
        elif item is None or isinstance(item, slice):
            basic.append(item)
            indices.append(None)
        elif isinstance(item, bool):  # a mask of no dimension: one more, of size 1 or 0
            basic.append(None)
            indices.append(wrap(_engine.full((int(item),), 0, _engine.int64)))
        elif isinstance(item, int):
            basic.append(item)
        else:
            basic += [slice(None)] * _dims_of(item)
            indices.append(item)
    view = input if all(type(b) is slice and b == slice(None) for b in basic) else getitem(input, tuple(basic))
    return view, (indices if any(i is not None for i in indices) else None)


def _dims_of(item) -> int:
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    return item.array.ndim if isinstance(item, autograd.Tensor) and item.array.dtype is _engine.bool else 1


# --- index arrays ----------------------------------------------------------------------------------------------------
def _arrays(indices):
    return [None if i is None else i.array for i in indices]


def _saved(indices):
    """The index Tensors to save, and where they go."""
    return tuple(i for i in indices if i is not None), tuple(i is not None for i in indices)


def _restored(saved, pattern):
    saved = iter(saved)
    return [next(saved) if there else None for there in pattern]


def _index(x, indices):
    saved, pattern = _saved(indices)
    return record(index_grad, _engine.index(x.array, _arrays(indices)), (x,), saved, (x.array.shape, pattern))


def index_grad(node, dy):
    shape, pattern = node.attrs
    return (_index_sum(dy, shape, _restored(node.saved, pattern)),)


def _index_sum(dy, shape, indices):
    """dy summed into x[indices] of an x of zeros: the gradient of `_index`, which is its gradient in turn."""
    saved, pattern = _saved(indices)
    return record(index_backward_grad, _engine.index_backward(dy.array, shape, _arrays(indices)), (dy,), saved,
                  (pattern,))


def index_backward_grad(node, ddx):
    return (_index(ddx, _restored(node.saved, node.attrs[0])),)


def _index_clear(dy, indices):
    """dy with zeros at dy[indices]."""
    a = _engine.clone(dy.array)
    _engine.index_put_("index", a, _arrays(indices), _engine.full((), 0, a.dtype, a.device), False)
    saved, pattern = _saved(indices)
    return record(index_clear_grad, a, (dy,), saved, (pattern,))


def index_clear_grad(node, ddx):
    return (_index_clear(ddx, _restored(node.saved, node.attrs[0])),)


def _value(op, value, like):
    """A value to assign, as a Tensor."""
    if isinstance(value, bool | int | float):
        return wrap(_engine.full((), value, like.array.dtype, like.array.device))
    if isinstance(value, autograd.Tensor):
        return value
    return wrap(_engine.to_device(elementwise.tensor(op, value).array, like.array.device))


def setitem(input: Tensor, key: Any, value: Any) -> None:
    """x[key] = value, in place; value is a number or broadcasts to x[key], and is cast to x's dtype.

    Raises:
        IndexError, TypeError: as x[key]. ValueError: a value that does not broadcast to x[key].

    >>> import tilewright as tw
    >>> x = tw.zeros(2, 3)
    >>> x[:, 1] = 1; x[x == 0] = 5; x[[0, 1], [0, 2]] = tw.tensor([7.0, 8.0])
    >>> x.tolist()
    [[7.0, 1.0, 5.0], [5.0, 1.0, 8.0]]
    """
    if _is_index(key):
        _assign(input, [key], value)
        return
    region = _engine.index_basic(input.array, key)
    if region is not None:
        if isinstance(value, bool | int | float):
            inplace(setitem_grad, input, lambda: _engine.fill(region, value), (input,), (), (key,))
            return
        value = _fewer_dims(_value("setitem", value, input), region.ndim)
        inplace(setitem_grad, input, lambda: _engine.copy_into(region, value.array), (input, value), (), (key,))
        return
    view, indices = _split_key(input, key)
    if indices is None:
        setitem(view, Ellipsis, value)
    else:
        _assign(view, indices, value)


def _assign(x, indices, value) -> None:
    mask, a = indices[0], x.array
    # One mask over the first dimensions and a number: no positions are needed. Masks of keys do not broadcast.
    if mask is not None and mask.array.dtype is _engine.bool and isinstance(value, bool | int | float) \
            and mask.array.device == a.device and mask.array.shape == a.shape[:mask.array.ndim] \
            and not any(i is not None for i in indices[1:]):
        trailing = (1,) * (a.ndim - mask.array.ndim)
        masked_fill_(x, shape.reshape(mask, mask.array.shape + trailing) if trailing else mask, value)
    else:
        index_put_(x, indices, value)


def _fewer_dims(value, ndim):
    """Without the leading dimensions of size 1 that an assignment's target lacks."""
    while value.array.ndim > ndim and value.array.shape[0] == 1:
        value = shape.select(value, 0, 0)
    return value


def setitem_grad(node, dy):
    (key,) = node.attrs
    dx = _without(dy, key) if node.needs[0] else None
    return (dx, getitem(dy, key) if node.needs[1] else None) if len(node.needs) > 1 else (dx,)


def index_put_(input: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """x[indices] = values in place, or += with `accumulate`, where equal indices add up.

    `indices`: a sequence of integer or bool Tensors (or None) for the first dimensions.
    """
    indices = [None if i is None else elementwise.tensor("index_put_", i) for i in indices]
    values = _value("index_put_", values, input)
    saved, pattern = _saved(indices)

    def write():
        _added(input.array, values.array, accumulate, lambda to, source: _engine.index_put_(
            "index_put_", to, _arrays(indices), source, accumulate))

    return inplace(index_put__grad, input, write, (input, values), saved, (pattern, accumulate))


def index_put__grad(node, dy):
    pattern, accumulate = node.attrs
    indices = _restored(node.saved, pattern)
    dx = None
    if node.needs[0]:
        dx = dy if accumulate else _index_clear(dy, indices)
    return dx, _index(dy, indices) if node.needs[1] else None


def _added(to, source, add: bool, write) -> None:
    """write(to, source); of bools sums are the logical or, taken through integers."""
    if not add or to.dtype is not _engine.bool:
        write(to, source)
        return
    wide = _engine.cast(to, _engine.int64)
    write(wide, _engine.cast(source, _engine.int64))
    _engine.copy_into(to, _engine.ne(wide, 0))


def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of x with x[indices] = values, or += with `accumulate`."""
    return index_put_(elementwise.clone(input), indices, values, accumulate)


# --- rows by index ---------------------------------------------------------------------------------------------------
def _check_dim(op, dim, ndim) -> int:
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise IndexError(f"{op}: dim must be in [{-max(ndim, 1)}, {max(ndim, 1) - 1}] for {ndim} dimensions, got {dim}")
    return dim % max(ndim, 1)


def _take(op, rule, x, dim, index):
    a = x.array
    return record(rule, _engine.take(op, a, dim, index.array), (x,), (index,), (dim, a.shape[dim]))


@takes_out
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of input along dim that a 1-d integer index names, in its order.

    Raises:
        IndexError: an index outside [0, size). TypeError: an index of floats.

    >>> import tilewright as tw
    >>> tw.index_select(tw.eye(3), 0, tw.tensor([2, 0])).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    if index.array.ndim > 1:
        raise ValueError(f"index_select: index must be 1-d, got {index.array.shape}")
    if not input.array.ndim:
        return shape.reshape(index_select(shape.reshape(input, 1), dim, index), ())
    dim = _check_dim("index_select", dim, input.array.ndim)
    return _take("index_select", index_select_grad, input, dim, index if index.array.ndim else shape.reshape(index, 1))


def index_select_grad(node, dy):
    (index,), (dim, n) = node.saved, node.attrs
    return (_take_sum(dy, dim, index, n),)


def _take_sum(dy, dim, index, n):
    """dy's slices along dim summed into n rows by index: the gradient of `_take`, which is its gradient in turn."""
    return record(take_backward_grad, _engine.take_backward("index_select", dy.array, dim, index.array, n), (dy,),
                  (index,), (dim,))


def take_backward_grad(node, ddx):
    return (_take("index_select", index_select_grad, ddx, node.attrs[0], node.saved[0]),)


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: Any = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """y[..., :] = weight[input[...], :]: rows of a (num_embeddings, dim) table by integer indices of any shape.

    Row `padding_idx` gets no gradient. With max_norm, the rows that are looked up are first scaled, in place, to a norm
    of at most max_norm. With scale_grad_by_freq, an index's gradient is divided by how often it occurs in the input.

    Raises:
        IndexError: an index outside [0, num_embeddings). TypeError: indices of floats. NotImplementedError: sparse.

    >>> import tilewright as tw
    >>> tw.nn.functional.embedding(tw.tensor([1, 1]), tw.tensor([[0.0, 1.0], [2.0, 3.0]])).tolist()
    [[2.0, 3.0], [2.0, 3.0]]
    """
    if sparse:
        raise NotImplementedError("embedding: sparse is not offered")
    a = weight.array
    if a.ndim != 2:
        raise ValueError(f"embedding: weight must be (num_embeddings, dim), got {a.shape}")
    rows = a.shape[0]
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise ValueError(f"embedding: padding_idx must be in [{-rows}, {rows}), got {padding_idx}")
        padding_idx %= rows
    if max_norm is not None:
        _limit_rows(weight, input, max_norm, norm_type)
    y = _engine.take("embedding", a, 0, input.array)
    return record(embedding_grad, y, (weight,), (input,), (rows, padding_idx, scale_grad_by_freq))


def _limit_rows(weight, input, max_norm: float, norm_type: float) -> None:
    with no_grad():
        index = input.reshape((-1,))
        picked = index_select(weight, 0, index)
        norms = norm(picked, norm_type, 1, True)
        factor = elementwise.where(norms > max_norm, max_norm / (norms + 1e-7), 1.0)
        index_copy_(weight, 0, index, picked * factor)  # equal indices write equal rows


def embedding_grad(node, dy):
    (index,), (rows, padding_idx, by_frequency) = node.saved, node.attrs
    if by_frequency:
        ones = wrap(_engine.full(index.array.shape, 1, dy.dtype, dy.device))
        dy = dy / index_select(_take_sum(ones, 0, index, rows), 0, index.reshape((-1,))).reshape((*index.shape, 1))
    dw = _take_sum(dy, 0, index, rows)
    return (dw if padding_idx is None else _without(dw, padding_idx),)


def index_add_(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """x[.., index[i], ..] += alpha * source[.., i, ..] along dim, in place; equal indices add up."""
    _same_dtype("index_add_", input, source)
    if not input.array.ndim:
        row = shape.reshape(source, (-1,))
        index_add_(shape.unsqueeze(input, 0), dim, shape.reshape(index, (-1,)), row, alpha=alpha)
        return input
    dim = _check_dim("index_add_", dim, input.array.ndim)
    scaled = source.array if alpha == 1 else _engine.mul(source.array, alpha)

    def write():
        _added(input.array, scaled, True, lambda to, given: _engine.index_add_(to, dim, index.array, given))

    return inplace(index_add__grad, input, write, (input, source), (index,), (dim, alpha))


def index_add__grad(node, dy):
    dim, alpha = node.attrs
    if not node.needs[1]:
        return dy, None
    dsource = index_select(dy, dim, node.saved[0])
    return dy, dsource if alpha == 1 else dsource * alpha


@takes_out
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """A copy of x with alpha * source's slices added at the index along dim."""
    return index_add_(elementwise.clone(input), dim, index, source, alpha=alpha)


def _put_at(op, x, dim, index, value):
    """x[.., index[i], ..] = value[.., i, ..] along dim, in place; a 0-d x is a row of one."""
    row = x if x.array.ndim else shape.unsqueeze(x, 0)
    index_put_(row, [None] * _check_dim(op, dim, x.array.ndim) + [index], value)
    return x


def index_copy_(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """x[.., index[i], ..] = source[.., i, ..] along dim, in place."""
    _same_dtype("index_copy_", input, source)
    return _put_at("index_copy_", input, dim, index, source if source.array.ndim else shape.reshape(source, (1,)))


@takes_out
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy of x with source's slices at the index along dim."""
    return index_copy_(elementwise.clone(input), dim, index, source)


def index_fill_(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """x[.., index[i], ..] = value (a number or a 0-d Tensor) along dim, in place."""
    if not isinstance(value, autograd.Tensor) or not wants(value):
        return _put_at("index_fill_", input, dim, index, value)
    dim, size = _check_dim("index_fill_", dim, input.array.ndim), input.array.shape or (1,)
    hit = wrap(_engine.full((size[dim],), False, _engine.bool, input.device))  # an index met twice is filled once
    index_put_(hit, [index], True)
    ones = (1,) * (len(size) - 1 - dim)
    return masked_fill_(input, shape.reshape(hit, (size[dim], *ones) if input.array.ndim else ()), value)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of x with the value at the index along dim."""
    return index_fill_(elementwise.clone(input), dim, index, value)


# --- along one dimension ---------------------------------------------------------------------------------------------
def _same_dtype(op, input, src) -> None:
    if src.array.dtype is not input.array.dtype:
        raise TypeError(f"{op}: the source must have the input's dtype, got {src.array.dtype.name} for "
                        f"{input.array.dtype.name}")


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, out: Tensor | None = None) -> Tensor:
    """y[i][j][k] = input[index[i][j][k]][j][k] for dim 0, and so on; y has the index's shape.

    Raises:
        IndexError: an index outside [0, size). ValueError: another number of dimensions, or a larger index elsewhere.

    >>> import tilewright as tw
    >>> tw.gather(tw.tensor([[1, 2], [3, 4]]), 1, tw.tensor([[1], [0]])).tolist()
    [[2], [3]]
    """
    if sparse_grad:
        raise NotImplementedError("gather: sparse gradients are not offered")
    y = _engine.gather("gather", input.array, dim, index.array)
    if out is not None:
        return into("gather", wrap(y), out, input)
    return record(gather_grad, y, (input,), (index,), (dim, input.array.shape))


def gather_grad(node, dy):
    (index,), (dim, shape) = node.saved, node.attrs
    return (_gather_sum(dy, dim, index, shape),)


def _gather_sum(dy, dim, index, shape):
    a = _engine.full(shape, 0, dy.array.dtype, dy.array.device)
    _engine.scatter_("gather", a, dim, index.array, dy.array, True)
    return record(gather_backward_grad, a, (dy,), (index,), (dim,))


def gather_backward_grad(node, ddx):
    return (gather(ddx, node.attrs[0], node.saved[0]),)


@takes_out
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """gather, after broadcasting input and indices against each other outside dim; flat when dim is None."""
    if dim is None:
        return gather(shape.flatten(input), 0, shape.flatten(indices))
    dim = _check_dim("take_along_dim", dim, input.array.ndim)
    a, b = list(input.array.shape), list(indices.array.shape)
    if len(a) != len(b):
        raise ValueError(f"take_along_dim: input and indices must have the same number of dimensions, got "
                         f"{tuple(a)} and {tuple(b)}")
    for k in range(len(a)):
        if k != dim:
            a[k] = b[k] = b[k] if a[k] == 1 else a[k]
    if not indices.array.is_float:  # from the end, too
        indices = elementwise.where(indices < 0, indices + a[dim], indices)
    return gather(shape.expand(input, a), dim, shape.expand(indices, b))


def _scatter_write(op, input, dim, index, src, add):
    _same_dtype(op, input, src)
    return lambda: _added(input.array, src.array, add, lambda to, source: _engine.scatter_(
        op, to, dim, index.array, source, add))


def _scatter_src_grad(node, dy, dim, index, src_shape):
    if not node.needs[1]:
        return None
    d = gather(dy, dim, index)
    if src_shape and d.array.shape != src_shape:  # only src's part under the index was read
        d = _place(d, src_shape, tuple(slice(0, n) for n in d.array.shape))
    return d


def scatter_add_(input: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    """x[index[i][j]][j] += src[i][j] for dim 0, and so on, in place; equal indices add up in the order of i.

    Raises:
        IndexError: an index outside [0, size). TypeError: src of another dtype. ValueError: shapes that do not fit.
    """
    write = _scatter_write("scatter_add_", input, dim, index, src, True)
    return inplace(scatter_add__grad, input, write, (input, src), (index,), (dim, src.array.shape))


def scatter_add__grad(node, dy):
    (index,), (dim, src_shape) = node.saved, node.attrs
    return dy, _scatter_src_grad(node, dy, dim, index, src_shape)


@takes_out
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    """A copy of input with src added at the index along dim.

    >>> import tilewright as tw
    >>> tw.scatter_add(tw.zeros(3), 0, tw.tensor([2, 0, 2]), tw.tensor([1.0, 2.0, 3.0])).tolist()
    [2.0, 0.0, 4.0]
    """
    _same_dtype("scatter_add", input, src)
    if src.array.dtype is _engine.bool:
        return scatter_add_(elementwise.clone(input), dim, index, src)
    y = _engine.scatter("scatter_add", input.array, dim, index.array, src.array, True)
    return record(scatter_add__grad, y, (input, src), (index,), (dim, src.array.shape))


def _scatter_source(op, input, src, value, reduce):
    if (src is None) == (value is None):
        raise TypeError(f"{op}: expects either src or value")
    if reduce not in (None, "add", "multiply"):
        raise ValueError(f"{op}: reduce must be None, 'add' or 'multiply', got {reduce!r}")
    return _value(op, value if src is None else src, input)


def scatter_(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
             reduce: Any = None) -> Tensor:
    """x[index[i][j]][j] = src[i][j] for dim 0, and so on, in place; src is a Tensor or a number; the last i wins."""
    src = _scatter_source("scatter_", input, src, value, reduce)
    if reduce == "multiply":
        from tilewright.ops.arrange import scatter_reduce
        old = elementwise._before(input) if wants(input) else input
        src = shape.expand(src, index.array.shape) if not src.array.ndim else src
        return elementwise.copy_(input, scatter_reduce(old, dim, index, src, "prod"))
    write = _scatter_write("scatter_", input, dim, index, src, reduce == "add")
    rule = scatter_add__grad if reduce else scatter__grad
    return inplace(rule, input, write, (input, src), (index,), (dim, src.array.shape))


def scatter__grad(node, dy):
    (index,), (dim, src_shape) = node.saved, node.attrs
    dx = scatter(dy, dim, index, 0) if node.needs[0] else None
    return dx, _scatter_src_grad(node, dy, dim, index, src_shape)


@takes_out
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
            reduce: Any = None) -> Tensor:
    """A copy of input with src (a Tensor or a number) at the index along dim."""
    return scatter_(elementwise.clone(input), dim, index, src, value=value, reduce=reduce)


# --- masks -----------------------------------------------------------------------------------------------------------
def _check_mask(op, mask) -> None:
    if mask.array.dtype is not _engine.bool:
        raise TypeError(f"{op}: the mask must be bool, got {mask.array.dtype.name} {mask.array.shape}")


def _fill_operand(op, value, like):
    """What to fill with, as the engine takes it, and the op's inputs for the tape; always of like's dtype."""
    if like.array.is_float and isinstance(value, bool | int | float):
        return value, (like,)
    value = _value(op, value, like)
    if value.array.ndim:
        raise ValueError(f"{op}: the value must be a number or a 0-d tensor, got shape {value.array.shape}")
    value = value if value.array.dtype is like.array.dtype else elementwise.cast(value, like.array.dtype)
    return value.array, (like, value)


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """input with `value` (a number or a 0-d Tensor) where the bool mask holds; mask and input broadcast.

    >>> import tilewright as tw
    >>> tw.masked_fill(tw.ones(3), tw.tensor([True, False, True]), -1.0).tolist()
    [-1.0, 1.0, -1.0]
    """
    _check_mask("masked_fill", mask)
    operand, inputs = _fill_operand("masked_fill", value, input)
    return record(masked_fill_grad, _engine.where(mask.array, operand, input.array), inputs, (mask,))


def masked_fill_grad(node, dy):
    (mask,) = node.saved
    dx = masked_fill(dy, mask, 0.0) if node.needs[0] else None
    if len(node.needs) == 1:
        return (dx,)
    return dx, elementwise.where(mask, dy, 0.0).sum() if node.needs[1] else None


def masked_fill_(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Sets x to `value` where the bool mask, which broadcasts to x, holds; in place."""
    _check_mask("masked_fill_", mask)
    operand, inputs = _fill_operand("masked_fill_", value, input)
    a = input.array
    return inplace(masked_fill_grad, input, lambda: _engine.where(mask.array, operand, a, a), inputs, (mask,))


@takes_out
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the bool mask holds, 1-d, in row-major order; mask and input broadcast."""
    _check_mask("masked_select", mask)
    x, mask = shape.broadcast_tensors(input, mask)
    if not x.array.ndim:
        x, mask = shape.reshape(x, 1), shape.reshape(mask, 1)
    return _index(x, [mask])


@takes_out
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of the elements that are not zero: (count, ndim) int64, or one 1-d Tensor a dimension as_tuple.

    >>> import tilewright as tw
    >>> tw.nonzero(tw.tensor([[0, 3], [4, 0]])).tolist()
    [[0, 1], [1, 0]]
    """
    if as_tuple and not input.array.ndim:
        input = shape.reshape(input, 1)
    positions = wrap(_engine.nonzero(input.array))
    return shape.unbind(positions, 1) if as_tuple else positions


argwhere = nonzero


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """y[..., c] = 1 where tensor[...] == c, else 0; int64. num_classes -1: the largest class plus one.

    Raises:
        IndexError: a class outside [0, num_classes). TypeError: classes that are not integers.

    >>> import tilewright as tw
    >>> tw.nn.functional.one_hot(tw.tensor([0, 2]), 3).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    a = tensor.array
    if a.is_float or a.dtype is _engine.bool:
        raise TypeError(f"one_hot: classes must be integers, got {a.dtype.name} {a.shape}")
    if num_classes == -1:
        if not a.numel:
            raise ValueError(f"one_hot: num_classes must be given for an empty tensor, got {a.shape}")
        num_classes = int(tensor.max().item()) + 1
    if num_classes < 1 and a.numel:
        raise ValueError(f"one_hot: num_classes must be positive or -1, got {num_classes}")
    y = _engine.full((*a.shape, num_classes), 0, _engine.int64, a.device)
    one = _engine.full((), 1, _engine.int64, a.device)
    _engine.scatter_("one_hot", y, -1, shape.unsqueeze(tensor, -1).array, one, False)
    return wrap(y)
