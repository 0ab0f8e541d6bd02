"""Shapes: views without a copy, joins and splits, pads, and the orders of elements.

A view shares its input's memory, and its gradient is the inverse view. What must copy says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.arguments import into, takes_out
from tilewright.autograd import inplace, record, wrap

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def _sizes(op: str, sizes) -> tuple:
    """The ints of `f(2, 3)` or `f((2, 3))`."""
    if len(sizes) == 1 and not hasattr(sizes[0], "__index__"):
        sizes = sizes[0]
    if type(sizes) is tuple:  # the usual case, without the generator below
        for n in sizes:
            if type(n) is not int:
                break
        else:
            return sizes
    try:
        return tuple(n.__index__() for n in sizes)
    except (AttributeError, TypeError):
        raise TypeError(f"{op}: expects integers, got {sizes!r}") from None


def _dim(op: str, dim: int, ndim: int) -> int:
    n = max(ndim, 1)
    if not -n <= dim < n:
        raise IndexError(f"{op}: dim must be in [{-n}, {n - 1}] for {ndim} dimensions, got {dim}")
    return dim % n


# --- views -----------------------------------------------------------------------------------------------------------
def view(input: Tensor, *shape: Any) -> Tensor:
    """The same memory as another shape; one size may be -1.

    Raises:
        ValueError: another number of elements, or strides that would need a copy (then use reshape).

    >>> import tilewright as tw
    >>> tw.arange(6).view(2, -1).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    if len(shape) == 1 and isinstance(shape[0], _engine.dtype):
        from tilewright.ops.arrange import view_bits
        return view_bits(input, shape[0])
    a = input.array
    return record(reshape_grad, _engine.view(a, _sizes("view", shape)), (input,), (), (a.shape,), input)


def reshape(input: Tensor, *args: Any, shape: Any = None) -> Tensor:
    """The elements in row-major order as another shape; one size may be -1. A view where strides allow, else a copy.

    Raises:
        ValueError: another number of elements.
    """
    a = input.array
    y, is_view = _engine.reshape(a, _sizes("reshape", args if shape is None else (shape,)))
    return record(reshape_grad, y, (input,), (), (a.shape,), input if is_view else None)


def reshape_grad(node, dy):
    return (reshape(dy, node.attrs[0]),)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """view of the other's shape."""
    return view(input, other.array.shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """reshape to the other's shape."""
    return reshape(input, other.array.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions start_dim to end_dim, both included, joined into one."""
    a = input.array
    y, is_view = _engine.flatten(a, start_dim, end_dim)
    return record(reshape_grad, y, (input,), (), (a.shape,), input if is_view else None)


ravel = flatten


def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """Dimension dim cut into several; one size may be -1."""
    s, sizes = input.array.shape, _sizes("unflatten", (sizes,))
    d = _dim("unflatten", dim, len(s))
    if sizes.count(-1) == 1:
        known = 1
        for n in sizes:
            known *= 1 if n == -1 else n
        if known and s[d] % known == 0:
            sizes = tuple(s[d] // known if n == -1 else n for n in sizes)
    product = 1
    for n in sizes:
        product *= n
    if product != s[d] or min(sizes, default=1) < 0:
        raise ValueError(f"unflatten: sizes must multiply to dimension {d} of size {s[d]}, got {sizes}")
    return reshape(input, (*s[:d], *sizes, *s[d + 1:]))


def squeeze(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, *, axis: Any = None) -> Tensor:
    """Without the dimensions of size 1, or without those that `dim` (an int or several) names and are of size 1."""
    a, dim = input.array, axis if dim is None else dim
    y = _engine.squeeze(a, dim if dim is None else _sizes("squeeze", (dim,)))
    return record(reshape_grad, y, (input,), (), (a.shape,), input)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a dimension of size 1 at dim."""
    a = input.array
    return record(reshape_grad, _engine.unsqueeze(a, dim), (input,), (), (a.shape,), input)


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Dimensions of size 1, and new ones in front, repeated to `sizes` without a copy; -1 keeps a size."""
    return record(expand_grad, _engine.expand(input.array, _sizes("expand", sizes)), (input,), (), (), input)


def expand_grad(node, dy):
    return (dy,)  # the tape sums it to the input's shape


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """expand to the other's shape."""
    return expand(input, other.array.shape)


def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """expand to the shape `size`."""
    return expand(input, size)


def broadcast_tensors(*tensors: Tensor) -> tuple:
    """Each tensor expanded to their common shape."""
    shape: tuple[int, ...] = ()
    for t in tensors:
        s = t.array.shape
        n = max(len(shape), len(s))
        a, b = (1,) * (n - len(shape)) + tuple(shape), (1,) * (n - len(s)) + tuple(s)
        if any(p != q and p != 1 and q != 1 for p, q in zip(a, b, strict=True)):
            raise ValueError(f"broadcast_tensors: shapes must match or broadcast, got {tuple(shape)} and {s}")
        shape = tuple(q if p == 1 else p for p, q in zip(a, b, strict=True))
    return tuple(t if t.array.shape == shape else expand(t, shape) for t in tensors)


def permute(input: Tensor, *args: Any, dims: int | tuple[int, ...] | list[int] | None = None) -> Tensor:
    """The dimensions in another order, without a copy.

    >>> import tilewright as tw
    >>> tw.zeros(2, 3, 5).permute(2, 0, 1).shape
    (5, 2, 3)
    """
    dims = _sizes("permute", args if dims is None else (dims,))
    return record(permute_grad, _engine.permute(input.array, dims), (input,), (), (dims,), input)


def permute_grad(node, dy):
    (dims,) = node.attrs
    n = len(dims)
    inverse = [0] * n
    for k, d in enumerate(dims):
        inverse[d % n] = k
    return (permute(dy, inverse),)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Dimensions dim0 and dim1 exchanged, without a copy."""
    return record(transpose_grad, _engine.transpose(input.array, dim0, dim1), (input,), (), (dim0, dim1), input)


def transpose_grad(node, dy):
    return (transpose(dy, *node.attrs),)


swapaxes = transpose


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; 1-d and 0-d tensors as they are."""
    if input.array.ndim > 2:
        raise ValueError(f"t: input must have at most 2 dimensions, got {input.array.shape}")
    return transpose(input, 0, 1) if input.array.ndim == 2 else input


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimension(s) `source` moved to `destination`; the others keep their order."""
    n = input.array.ndim
    src = [_dim("movedim", d, n) for d in _sizes("movedim", (source,) if isinstance(source, tuple | list) else
                                                 ((source,),))]
    dst = [_dim("movedim", d, n) for d in _sizes("movedim", (destination,) if isinstance(destination, tuple | list) else
                                                 ((destination,),))]
    if len(src) != len(dst) or len(set(src)) != len(src) or len(set(dst)) != len(dst):
        raise ValueError(f"movedim: source and destination must be as many different dims, got {source} and "
                         f"{destination}")
    rest = iter(d for d in range(n) if d not in src)
    return permute(input, [src[dst.index(k)] if k in dst else next(rest) for k in range(n)])


def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of the input's storage with these sizes, strides and offset, in elements.

    Raises:
        ValueError: a view that leaves the storage, or negative strides.
    """
    a = input.array
    offset = a.offset if storage_offset is None else storage_offset
    size, stride = tuple(size), tuple(stride)
    place = (size, stride, offset - a.offset)
    return record(as_strided_grad, _engine.as_strided(a, size, stride, offset), (input,), (),
                  (place, a.shape, a.is_contiguous), input)


def as_strided_grad(node, dy):
    (size, stride, offset), shape, contiguous = node.attrs
    if not contiguous:
        raise NotImplementedError("as_strided: its gradient needs a contiguous input")
    from tilewright.ops.index import _take_sum
    n = 1
    for s in shape:
        n *= s
    # Which element of x each element of y is; repeated ones sum.
    positions = _engine.as_strided(_engine.arange(0, n, 1, None, dy.device), size, stride, offset)
    index = wrap(_engine.reshape(positions, (positions.numel,))[0])
    return (reshape(_take_sum(reshape(dy, (dy.array.numel,)), 0, index, n), shape),)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice of dimension dim at an index, without that dimension: a view."""
    d = _dim("select", dim, input.array.ndim)
    return _basic(input, _engine.select(input.array, d, index), d, index)


def _basic(input, array, dim, key):
    """Records a view that is x[:, ..., key] with the key at dim."""
    from tilewright.ops.index import getitem_grad
    return record(getitem_grad, array, (input,), (), ((slice(None),) * dim + (key,), input.array.shape), input)


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """x[start : start + length] along dim: a view.

    Raises:
        IndexError: a range outside the dimension.
    """
    d = _dim("narrow", dim, input.array.ndim)
    if isinstance(start, autograd.Tensor):
        if start.array.ndim or start.array.is_float or start.array.dtype is _engine.bool:
            raise TypeError(f"narrow: start must be an int or a 0-d integer tensor, got {start.dtype.name} "
                            f"{start.shape}")
        start = int(start)
    y = _engine.narrow(input.array, d, start, length)
    begin = start + input.array.shape[d] if start < 0 else start
    return _basic(input, y, d, slice(begin, begin + length))


def unbind(input: Tensor, dim: int = 0) -> tuple:
    """The slices along dim, without that dimension: views."""
    d = _dim("unbind", dim, input.array.ndim)
    if not input.array.ndim:
        raise ValueError("unbind: input must have a dimension, got a 0-d tensor")
    return tuple(select(input, d, k) for k in range(input.array.shape[d]))


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple:
    """Views of size split_size along dim (the last may be smaller), or of the sizes in a list."""
    d = _dim("split", dim, tensor.array.ndim)
    n = tensor.array.shape[d]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size < 0 or (size == 0 and n):
            raise ValueError(f"split: the size must be positive, got {size}")
        sizes = [min(size, n - at) for at in range(0, n, size)] if n else [0]
    else:
        sizes = list(_sizes("split", (list(split_size_or_sections),)))
        if sum(sizes) != n or min(sizes, default=0) < 0:
            raise ValueError(f"split: sizes must sum to dimension {d} of size {n}, got {sizes}")
    ends = itertools.accumulate(sizes)
    return tuple(narrow(tensor, d, end - size, size) for end, size in zip(ends, sizes, strict=True))


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple:
    """At most `chunks` views along dim, of equal size except perhaps the last."""
    if chunks < 1:
        raise ValueError(f"chunk: chunks must be at least 1, got {chunks}")
    n = input.array.shape[_dim("chunk", dim, input.array.ndim)]
    if not n:
        return split(input, [0] * chunks, dim)
    return split(input, -(-n // chunks), dim)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of dims dim1 and dim2, as the last dimension: a view."""
    a = input.array
    return record(diagonal_grad, _engine.diagonal(a, offset, dim1, dim2), (input,), (), (a.shape, offset, dim1, dim2),
                  input)


def diagonal_grad(node, dy):
    return (_to_diagonal(dy, *node.attrs),)


def _to_diagonal(dy, shape, offset, dim1, dim2):
    """dy on the diagonal of zeros."""
    y = _engine.diagonal_backward(dy.array, shape, offset, dim1, dim2)
    return record(diagonal_backward_grad, y, (dy,), (), (offset, dim1, dim2))


def diagonal_backward_grad(node, ddx):
    return (diagonal(ddx, *node.attrs),)


@takes_out
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A matrix's diagonal (a copy), or the square matrix with a vector on its diagonal."""
    if input.array.ndim == 2:
        return _diagonal(input, diagonal).clone()
    if input.array.ndim != 1:
        raise ValueError(f"diag: input must be 1-d or 2-d, got {input.array.shape}")
    n = input.array.shape[0] + abs(diagonal)
    return _to_diagonal(input, (n, n), diagonal, 0, 1)


_diagonal = diagonal  # diag's parameter hides the name


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `size` every `step` along a dimension, as a new last dimension: a view."""
    if not input.array.ndim:
        return unfold(reshape(input, (1,)), dimension, size, step).squeeze(0)
    a = input.array
    d = _dim("unfold", dimension, a.ndim)
    return record(unfold_grad, _engine.unfold(a, d, size, step), (input,), (), (d, a.shape, size, step), input)


def unfold_grad(node, dy):
    from tilewright.ops.index import _take_sum
    d, shape, size, step = node.attrs
    n = shape[d]
    positions = _engine.unfold(_engine.arange(0, n, 1, None, dy.device), 0, size, step)
    positions, _ = _engine.reshape(positions, (positions.numel,))
    windows = movedim(dy, -1, d + 1)
    s = windows.array.shape
    return (_take_sum(reshape(windows, (*s[:d], s[d] * size, *s[d + 2:])), d, wrap(positions), n),)


# --- joins -----------------------------------------------------------------------------------------------------------
def _tensors(op, tensors) -> tuple:
    if isinstance(tensors, autograd.Tensor):
        raise TypeError(f"{op}: expects a sequence of tensors, got one Tensor")
    tensors = tuple(tensors)
    for x in tensors:
        if not isinstance(x, autograd.Tensor):
            raise TypeError(f"{op}: expects a sequence of tensors, got one that holds {type(x).__name__}")
    return tensors


def cat(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    """The tensors one after another along dim; their other sizes must match, dtypes promote.

    1-d tensors of size 0 are skipped.

    Raises:
        ValueError: sizes that do not match, or no tensors. IndexError: dim out of range.

    >>> import tilewright as tw
    >>> tw.cat([tw.ones(1, 2), tw.zeros(2, 2)]).tolist()
    [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    """
    tensors = _tensors("cat", tensors)
    y = _engine.cat([x.array for x in tensors], dim)
    if out is not None:
        return into("cat", wrap(y), out, *tensors)
    return record(cat_grad, y, tensors, (), (dim % y.ndim, [x.array.shape for x in tensors]))


def cat_grad(node, dy):
    dim, shapes = node.attrs
    dxs, at = [], 0
    for need, s in zip(node.needs, shapes, strict=True):
        if s == (0,):  # a placeholder beside others, or nothing anyway
            dxs.append(wrap(_engine.empty((0,), dy.array.dtype, dy.device)) if need else None)
            continue
        dxs.append(narrow(dy, dim, at, s[dim]) if need else None)
        at += s[dim]
    return dxs


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    """The tensors, all of one shape, side by side along a new dimension."""
    tensors = _tensors("stack", tensors)
    y = _engine.stack([x.array for x in tensors], dim)
    if out is not None:
        return into("stack", wrap(y), out, *tensors)
    return record(stack_grad, y, tensors, (), (dim % y.ndim,))


def stack_grad(node, dy):
    (dim,) = node.attrs
    return [select(dy, dim, k) if need else None for k, need in enumerate(node.needs)]


@takes_out
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """cat along dimension 0 of tensors with at least two dimensions."""
    return cat([reshape(x, (1, -1)) if x.array.ndim < 2 else x for x in tensors])


@takes_out
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """cat along dimension 1, or 0 for 1-d tensors."""
    tensors = [reshape(x, (1,)) if not x.array.ndim else x for x in _tensors("hstack", tensors)]
    return cat(tensors, 0 if tensors and tensors[0].array.ndim == 1 else 1)


def meshgrid(*tensors: Tensor, indexing: str = "ij") -> tuple:
    """Grids of coordinates from 1-d tensors, as views; `indexing` "ij" (matrix) or "xy" (Cartesian)."""
    if len(tensors) == 1 and isinstance(tensors[0], tuple | list):
        tensors = tuple(tensors[0])
    if indexing not in ("ij", "xy"):
        raise ValueError(f"meshgrid: indexing must be 'ij' or 'xy', got {indexing!r}")
    if any(x.array.ndim > 1 for x in tensors):
        raise ValueError(f"meshgrid: tensors must be 1-d or 0-d, got {[x.array.shape for x in tensors]}")
    shape, n = [x.array.numel for x in tensors], len(tensors)
    grids = tuple(expand(reshape(x, [-1 if j == k else 1 for j in range(n)]), shape) for k, x in enumerate(tensors))
    return tuple(transpose(g, 0, 1) for g in grids) if indexing == "xy" and n > 1 else grids


# --- orders and repeats ----------------------------------------------------------------------------------------------
def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """The elements in reverse order along dims: a copy."""
    dims = _sizes("flip", args if dims is None else (dims,))
    return record(flip_grad, _engine.flip(input.array, dims), (input,), (), (dims,))


def flip_grad(node, dy):
    return (flip(dy, node.attrs[0]),)


def fliplr(input: Tensor) -> Tensor:
    """flip along dimension 1."""
    if input.array.ndim < 2:
        raise ValueError(f"fliplr: input must have at least 2 dimensions, got {input.array.shape}")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """flip along dimension 0."""
    if not input.array.ndim:
        raise ValueError("flipud: input must have a dimension, got a 0-d tensor")
    return flip(input, 0)


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """The elements moved on by `shifts` along dims, those at the end coming in at the front; flat when dims is None."""
    shifts = _sizes("roll", (shifts,) if isinstance(shifts, tuple | list) else ((shifts,),))
    if dims is None:
        if len(shifts) != 1:
            raise ValueError(f"roll: without dims one shift is expected, got {shifts}")
        return reshape(roll(reshape(input, (input.array.numel,)), shifts, 0), input.array.shape)
    dims = _sizes("roll", (dims,) if isinstance(dims, tuple | list) else ((dims,),))
    if len(shifts) != len(dims):
        raise ValueError(f"roll: expects as many shifts as dims, got {shifts} and {dims}")
    given = input
    for by, dim in zip(shifts, dims, strict=True):
        d = _dim("roll", dim, input.array.ndim)
        n = input.array.shape[d]
        if n and by % n:
            cut = n - by % n
            input = cat([narrow(input, d, cut, n - cut), narrow(input, d, 0, cut)], d)
    return input.clone() if input is given else input


def repeat(input: Tensor, *sizes: Any) -> Tensor:
    """The whole tensor repeated `sizes` times a dimension; more sizes than dimensions add dimensions in front."""
    sizes = _sizes("repeat", sizes)
    lead = len(sizes) - input.array.ndim
    if lead < 0 or min(sizes, default=0) < 0:
        raise ValueError(f"repeat: expects a size that is not negative for each of {input.array.ndim} dimensions, got "
                         f"{sizes}")
    if not lead and all(n == 1 for n in sizes):
        return input.clone()
    y = reshape(input, (1,) * lead + tuple(input.array.shape))
    for d, n in enumerate(sizes):
        if n != 1:
            s = tuple(y.array.shape)
            y = reshape(expand(unsqueeze(y, d), (*s[:d], n, *s[d:])), (*s[:d], n * s[d], *s[d + 1:]))
    return y


def tile(input: Tensor, *args: Any, dims: int | tuple[int, ...] | list[int] | None = None) -> Tensor:
    """repeat, with sizes of 1 put in front when there are fewer than dimensions."""
    dims = _sizes("tile", args if dims is None else (dims,))
    return repeat(input, (1,) * (input.array.ndim - len(dims)) + dims)


def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *,
                      output_size: int | None = None) -> Tensor:
    """Each slice along dim repeated in place: `repeats` times, or as often as an integer Tensor says; flat for None.

    `repeat_interleave(repeats)` gives each position as often as `repeats` says. `output_size`, the sum of the repeats,
    is checked.
    """
    import numpy

    from tilewright.ops.index import index_select
    if repeats is None:
        input, repeats = wrap(_engine.arange(0, input.array.shape[0], 1, None, input.device)), input
    if dim is None:
        input, dim = reshape(input, (input.array.numel,)), 0
    d = _dim("repeat_interleave", dim, input.array.ndim)
    n = input.array.shape[d]
    counts = repeats.cpu().numpy() if isinstance(repeats, autograd.Tensor) else numpy.asarray(repeats)
    if counts.dtype.kind not in "iu" or counts.ndim > 1 or counts.size not in (1, n) or (counts < 0).any():
        raise ValueError(f"repeat_interleave: repeats must be an int or {n} ints, not negative, got {repeats}")
    positions = numpy.repeat(numpy.arange(n, dtype=numpy.int64), counts)
    if output_size is not None and output_size != positions.size:
        raise ValueError(f"repeat_interleave: output_size must be the repeats' sum {positions.size}, got {output_size}")
    return index_select(input, d, wrap(_engine.to_device(_engine.from_buffer(positions), input.device)))


def _triangle(op, x, k, upper):
    """x where its column minus its row is >= k (upper) or <= k (lower); zeros elsewhere."""
    if x.array.ndim < 2:
        raise ValueError(f"{op}: input must have at least 2 dimensions, got {x.array.shape}")
    rows, cols = x.array.shape[-2:]
    column = _engine.arange(0, cols, 1, None, x.device)
    row = _engine.reshape(_engine.arange(0, rows, 1, None, x.device), (rows, 1))[0]
    kept = (_engine.ge if upper else _engine.le)(_engine.sub(column, row), k)
    return _engine.where(kept, x.array, False if x.array.dtype is _engine.bool else 0)


@takes_out
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of each matrix, up to the given diagonal; zeros above."""
    return record(tril_grad, _triangle("tril", input, diagonal, False), (input,), (), (diagonal,))


def tril_grad(node, dy):
    return (tril(dy, *node.attrs),)


@takes_out
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of each matrix, from the given diagonal on; zeros below."""
    return record(triu_grad, _triangle("triu", input, diagonal, True), (input,), (), (diagonal,))


def triu_grad(node, dy):
    return (triu(dy, *node.attrs),)


def _triangle_(rule, input, upper, diagonal):
    def write():
        _engine.copy_into(input.array, _triangle("triu_" if upper else "tril_", input, diagonal, upper))
    return inplace(rule, input, write, (input,), (), (diagonal,))


def tril_(input: Tensor, diagonal: int = 0) -> Tensor:
    """Zeros above the given diagonal, in place."""
    return _triangle_(tril_grad, input, False, diagonal)


def triu_(input: Tensor, diagonal: int = 0) -> Tensor:
    """Zeros below the given diagonal, in place."""
    return _triangle_(triu_grad, input, True, diagonal)
