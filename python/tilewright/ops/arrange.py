"""Shapes and places, made of other ops: further views, joins and splits, scatters by reduction, products."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.arguments import takes_out
from tilewright.autograd import record, wrap
from tilewright.ops import elementwise, matmul, reduce, shape
from tilewright.ops import index as _index
from tilewright.ops.elementwise import where

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


# --- views -----------------------------------------------------------------------------------------------------------
def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose`."""
    return shape.transpose(input, axis0, axis1)


def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """`transpose`."""
    return shape.transpose(input, dim0, dim1)


def moveaxis(input: Tensor, source: Tensor, destination: Any) -> Tensor:
    """`movedim`."""
    return shape.movedim(input, source, destination)


def adjoint(input: Tensor) -> Tensor:
    """The transpose of matrices."""
    return shape.transpose(input, -1, -2)


def _atleast(n: int, name: str, text: str):
    def one(x):
        if x.dim() >= n:
            return x
        if n == 3 and x.dim() == 2:
            return shape.unsqueeze(x, -1)
        return x.reshape([1] * n if not x.dim() else [1, -1] if n == 2 else [1, -1, 1] if n == 3 else [-1])

    def op(*tensors: Any) -> Any:
        given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
        return one(given[0]) if given is tensors and len(given) == 1 else tuple(one(x) for x in given)

    op.__name__ = op.__qualname__ = name
    op.__doc__ = text
    return op


atleast_1d = _atleast(1, "atleast_1d", "0-d tensors as 1-d ones.")
atleast_2d = _atleast(2, "atleast_2d", "Tensors with at least two dimensions, new ones in front.")
atleast_3d = _atleast(3, "atleast_3d", "Tensors with at least three dimensions: (N) gives (1, N, 1), (M, N) (M, N, 1).")


def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """Turned by 90 degrees k times, from the first of `dims` towards the second."""
    first, second = (d % max(input.dim(), 1) for d in dims)
    if first == second:
        raise ValueError(f"rot90: dims must differ, got {tuple(dims)}")
    if k % 4 == 2:
        return shape.flip(input, (first, second))
    if k % 2:
        turned = shape.transpose(shape.flip(input, (second,)) if k % 4 == 1 else input, first, second)
        return turned if k % 4 == 1 else shape.flip(turned, (second,))
    return elementwise.clone(input)


def broadcast_shapes(*shapes: Any) -> tuple:
    """The shape that tensors of these shapes broadcast to.

    Raises:
        ValueError: sizes that do not broadcast.
    """
    sizes = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    out = [1] * max((len(s) for s in sizes), default=0)
    for s in sizes:
        for d in range(-len(s), 0):
            if s[d] != 1 and out[d] not in (1, s[d]):
                raise ValueError(f"broadcast_shapes: sizes must agree or be 1, got {', '.join(map(str, sizes))}")
            out[d] = s[d] if s[d] != 1 else out[d]
    return tuple(out)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The last dimension as diagonals of new matrices in dimensions dim1 and dim2."""
    n, total = input.shape[-1] + abs(offset), input.dim() + 1
    dim1, dim2 = shape._dim("diag_embed", dim1, total), shape._dim("diag_embed", dim2, total)
    y = input.new_zeros((*input.shape[:-1], n, n))
    shape.diagonal(y, offset, -2, -1).copy_(input)
    return shape.movedim(y, (-2, -1), (dim1, dim2))


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with the flattened tensor on its diagonal."""
    return shape.diag(input.reshape(-1), offset)


# --- bits and memory formats -----------------------------------------------------------------------------------------
def view_bits(input: Tensor, dtype: Any) -> Tensor:
    """The same memory read as another dtype; the last dimension shrinks or grows with the dtype's size. No gradient."""
    a, old, new = input.array, input.array.dtype.itemsize, dtype.itemsize
    if a.dtype is dtype:
        return input
    if old != new and (not a.ndim or a.strides[-1] != 1 or a.shape[-1] * old % new
                       or (new > old and any(s * old % new for s in (*a.strides[:-1], a.offset)))):
        raise ValueError(f"view: the last dimension must be dense and its bytes a multiple of {new}, got "
                         f"{a.dtype.name} {a.shape} with strides {a.strides}")
    if old != new:  # another number of elements: NumPy's view of the same memory
        if not a.on_cpu:
            raise NotImplementedError(f"view: dtypes must have one item size on {a.device}, got {a.dtype.name} and "
                                      f"{dtype.name}")
        import numpy

        a = _engine.from_buffer(numpy.asarray(_engine.bitcast(a, _OF_SIZE[old])).view(_OF_SIZE[new].name))
    return wrap(_engine.bitcast(a, dtype))


_OF_SIZE = {1: _engine.int8, 2: _engine.int16, 4: _engine.int32, 8: _engine.int64}
_FORMATS = {"channels_last": 4, "channels_last_3d": 5}


def laid_out(input: Tensor, memory_format: Any, copy: bool = False) -> Tensor:
    """The tensor in a memory format: channels last puts dimension 1 behind the spatial ones in memory."""
    name = getattr(memory_format, "name", None)
    if name not in _FORMATS:
        as_it_is = input.array.is_contiguous or name == "preserve_format"
        return input if as_it_is and not copy else elementwise.clone(input)
    if input.array.ndim != _FORMATS[name]:
        raise ValueError(f"{name}: the tensor must have {_FORMATS[name]} dimensions, got shape {input.array.shape}")
    if is_channels_last(input, memory_format) and not copy:
        return input
    return shape.movedim(elementwise.clone(shape.movedim(input, 1, -1)), -1, 1)


def is_channels_last(input: Tensor, memory_format: Any) -> bool:
    return input.array.ndim == _FORMATS[memory_format.name] and shape.movedim(input.detach(), 1, -1).array.is_contiguous


# --- joins and splits ------------------------------------------------------------------------------------------------
@takes_out
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """cat along dimension 2 of tensors with at least three dimensions."""
    return shape.cat(list(atleast_3d(list(tensors))), 2)


@takes_out
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """hstack of tensors, 1-d ones as columns."""
    return shape.hstack([x.reshape(-1, 1) if x.dim() < 2 else x for x in tensors])


def block_diag(*tensors: Tensor) -> Any:
    """A matrix with the tensors as blocks along its diagonal."""
    blocks = [x.reshape(1, -1) if x.dim() < 2 else x for x in tensors]
    if any(x.dim() > 2 for x in blocks):
        raise ValueError(f"block_diag: tensors must have at most 2 dimensions, got {[tuple(x.shape) for x in blocks]}")
    columns, rows, at = sum(x.shape[1] for x in blocks), [], 0
    for x in blocks:
        left, right = x.new_zeros(x.shape[0], at), x.new_zeros(x.shape[0], columns - at - x.shape[1])
        rows.append(shape.cat([left, x, right], 1))
        at += x.shape[1]
    return shape.cat(rows, 0)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple:
    """Views of nearly equal parts along dim, or of the parts between places."""
    n = input.shape[dim]
    cuts = indices_or_sections
    if isinstance(cuts, autograd.Tensor):
        cuts = cuts.tolist()
    if isinstance(cuts, int):
        if cuts < 1:
            raise ValueError(f"tensor_split: the number of sections must be positive, got {cuts}")
        sizes = [n // cuts + (k < n % cuts) for k in range(cuts)]
        cuts = [sum(sizes[:k]) for k in range(1, len(sizes))]
    ends = [0, *(min(max(c + n if c < 0 else c, 0), n) for c in cuts), n]
    return tuple(shape.narrow(input, dim, a, max(b - a, 0)) for a, b in itertools.pairwise(ends))


def _splits(name: str, dim: int, least: int):
    def op(input: Tensor, indices_or_sections: Any) -> tuple:
        if input.dim() < least:
            raise ValueError(f"{name}: input must have at least {least} dimensions, got shape {tuple(input.shape)}")
        over = 0 if name == "hsplit" and input.dim() == 1 else dim
        if isinstance(indices_or_sections, int) and (
                indices_or_sections < 1 or input.shape[over] % indices_or_sections):
            raise ValueError(f"{name}: the size must be a multiple of the sections, got {input.shape[over]} for "
                             f"{indices_or_sections}")
        return tensor_split(input, indices_or_sections, over)

    op.__name__ = op.__qualname__ = name
    op.__doc__ = f"Views of equal parts along dimension {dim}, or of the parts between places."
    return op


vsplit, hsplit, dsplit = _splits("vsplit", 0, 2), _splits("hsplit", 1, 1), _splits("dsplit", 2, 3)


def select_scatter(input: Tensor, src: Any, dim: int, index: int) -> Tensor:
    """A copy of input with src in the place of input.select(dim, index)."""
    y = elementwise.clone(input)
    shape.select(y, dim, index).copy_(src)
    return y


def slice_scatter(input: Tensor, src: Any, dim: int = 0, start: int | None = None, end: int | None = None,
                  step: int = 1) -> Tensor:
    """A copy of input with src in the place of a slice along dim."""
    y = elementwise.clone(input)
    y[(*[slice(None)] * (dim % input.dim()), slice(start, end, step))] = src
    return y


def diagonal_scatter(input: Tensor, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of input with src on a diagonal."""
    y = elementwise.clone(input)
    shape.diagonal(y, offset, dim1, dim2).copy_(src)
    return y


def fill_diagonal_(input: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Sets the diagonal in place; with `wrap` it goes on below the end of a tall matrix.

    Raises:
        ValueError: fewer than 2 dimensions, or more of different sizes.
    """
    if input.dim() < 2 or (input.dim() > 2 and len(set(input.shape)) > 1):
        raise ValueError(f"fill_diagonal_: input must be a matrix, or have dimensions of one size, got shape "
                         f"{tuple(input.shape)}")
    n = min(input.shape)
    places = input.new_tensor(range(n), dtype=_engine.int64)
    if wrap and input.dim() == 2 and input.shape[0] > input.shape[1] + 1:
        width = input.shape[1]
        flat = input.new_tensor(range(0, input.numel(), width + 1), dtype=_engine.int64)
        return _index.index_put_(input, [flat // width, flat % width], fill_value)
    return _index.index_put_(input, [places] * input.dim(), fill_value)


# --- scatters --------------------------------------------------------------------------------------------------------
@takes_out
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of input with the first values of source, in order, where the mask holds.

    Raises:
        ValueError: source has fewer values than the mask has places.
    """
    x, mask = shape.broadcast_tensors(input, mask)
    count, values = int(mask.sum().item()), source.reshape(-1)
    if source.dtype is not input.dtype:
        raise TypeError(f"masked_scatter: source must have the input's dtype, got {source.dtype.name} for "
                        f"{input.dtype.name}")
    if values.numel() < count:
        raise ValueError(f"masked_scatter: source must have a value for each place, got {values.numel()} for {count}")
    if not x.dim():
        return where(mask, values[:1], x).reshape(()) if count else elementwise.clone(x)
    return _index.index_put(x.contiguous(), [mask], values[:count])


_UFUNCS = {"prod": "multiply", "amax": "maximum", "amin": "minimum"}


@takes_out
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Any, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """A copy of input in which, for dim 0, y[index[i][j]][j] is the sum, product, mean, largest or smallest of itself
    (if `include_self`) and all src[i][j] that go there.

    `reduce`: "sum", "prod", "mean", "amax" or "amin". The gradient of an extreme is shared evenly between equals.

    Raises:
        ValueError: another reduction. TypeError: src of another dtype.

    >>> import tilewright as tw
    >>> tw.scatter_reduce(tw.zeros(2), 0, tw.tensor([0, 1, 1]), tw.tensor([1.0, 5.0, 3.0]), "amax").tolist()
    [1.0, 5.0]
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise ValueError(f"scatter_reduce: reduce must be 'sum', 'prod', 'mean', 'amax' or 'amin', got {reduce!r}")
    if not input.dim():
        return scatter_reduce(input.reshape(1), 0, index.reshape(-1), src.reshape(-1), reduce,
                              include_self=include_self).reshape(())
    if reduce in ("sum", "mean"):
        base = input if include_self else _scatter(input, dim, index, 0)
        y = _scatter_add(base, dim, index, _under(src, index))
        if reduce == "sum":
            return y
        ones = _under(src, index).new_ones(index.shape)
        first = input.new_ones(input.shape)
        count = _scatter_add(first if include_self else _scatter(first, dim, index, 0), dim, index, ones).clamp(min=1)
        return y / count if input.is_floating_point() else elementwise.floor_divide(y, count)
    if src.dtype is not input.dtype:
        raise TypeError(f"scatter_reduce: src must have the input's dtype, got {src.dtype.name} for {input.dtype.name}")
    import numpy

    src = _under(src, index)
    start = {"prod": 1, "amax": -math.inf, "amin": math.inf}[reduce]
    if not input.is_floating_point() and reduce != "prod":
        from tilewright.legacy import iinfo
        name = "min" if reduce == "amax" else "max"
        start = reduce == "amin" if input.dtype is _engine.bool else getattr(iinfo(input.dtype), name)
    half = input.dtype in (_engine.float16, _engine.bfloat16)
    base = input.detach() if include_self else _scatter(input.detach(), dim, index, start)
    values, more = (numpy.array((v.detach().float() if half else v.detach()).cpu().numpy()) for v in (base, src))
    places = list(numpy.indices(tuple(index.shape)))
    places[dim] = index.cpu().numpy()
    getattr(numpy, _UFUNCS[reduce]).at(values, tuple(places), more)
    y = elementwise.cast(wrap(_engine.to_device(_engine.clone(_engine.from_buffer(values)), input.device)), input.dtype)
    rule = scatter_prod_grad if reduce == "prod" else scatter_extreme_grad
    return record(rule, y.array, (input, src), (input, src, index, y.array), (dim, include_self))


def _scatter(x, dim, places, value):
    return _index.scatter(x, dim, places, value)


def _scatter_add(x, dim, places, src):
    return _index.scatter_add(x, dim, places, src)


def _under(src, places):
    """The part of src that the index covers."""
    if tuple(src.shape) == tuple(places.shape):
        return src
    return src[tuple(slice(0, n) for n in places.shape)]


def scatter_extreme_grad(node, dy):
    (x, src, places, y), (dim, include_self) = node.saved, node.attrs
    mine, theirs = (x == y).to(dy.dtype), (src == _index.gather(y, dim, places)).to(dy.dtype)
    if not include_self:
        mine = _scatter(mine, dim, places, 0)
    share = dy / _scatter_add(mine, dim, places, theirs).clamp(min=1)
    return share * mine, _index.gather(share, dim, places) * theirs


def scatter_prod_grad(node, dy):
    """The product of the others: of all but zeros over the value, if no other is 0."""
    (x, src, places, _), (dim, include_self) = node.saved, node.attrs
    zero_x, zero_src = x == 0, src == 0
    safe_x, safe_src = where(zero_x, 1.0, x), where(zero_src, 1.0, src)
    product = scatter_reduce(safe_x, dim, places, safe_src, "prod", include_self=include_self)
    mine = zero_x.to(dy.dtype) if include_self else _scatter(zero_x.to(dy.dtype), dim, places, 0)
    zeros = _scatter_add(mine, dim, places, zero_src.to(dy.dtype))
    dx = where(zeros == mine, dy * product / safe_x, 0.0)
    if not include_self:
        dx = _scatter(dx, dim, places, 0)
    here = _index.gather(zeros, dim, places) == zero_src.to(dy.dtype)
    return dx, where(here, _index.gather(dy * product, dim, places) / safe_src, 0.0)


@takes_out
def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
                 include_self: bool = True) -> Tensor:
    """`scatter_reduce` of whole slices: `reduce` "prod", "mean", "amax" or "amin"."""
    places = index.reshape([-1 if d == dim % input.dim() else 1 for d in range(input.dim())]).expand(source.shape)
    return scatter_reduce(input, dim, places, source, reduce, include_self=include_self)


def put_(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Writes source's values to places of the flattened tensor, or adds them with `accumulate`; in place."""
    if not input.dim():
        put_(shape.unsqueeze(input, 0), index, source, accumulate)
        return input
    flat = index.reshape(-1)
    flat = where(flat < 0, flat + input.numel(), flat)
    places, rest = [], flat
    for n in reversed(input.shape):
        places.append(rest % n)
        rest = rest // n
    if bool((rest != 0).any()):
        raise IndexError(f"put_: places must be within {input.numel()} elements, got {index.tolist()}")
    _index.index_put_(input, list(reversed(places)), source.reshape(-1), accumulate)
    return input


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of input with source's values at places of the flattened tensor."""
    return put_(elementwise.clone(input), index, source, accumulate)


@takes_out
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """The slices along dim scaled down to a p-norm of at most maxnorm."""
    if input.dim() < 2:
        raise ValueError(f"renorm: input must have at least 2 dimensions, got {tuple(input.shape)}")
    over = [d for d in range(input.dim()) if d != dim % input.dim()]
    norms = reduce.norm(input, p, over, True)
    return input * where(norms > maxnorm, maxnorm / (norms + 1e-7), 1.0)


# --- products --------------------------------------------------------------------------------------------------------
def _plus(input, product, beta, alpha):
    if not product.is_floating_point():  # the factors are cut to integers, or to bools
        kind = bool if product.dtype is _engine.bool else int
        alpha, beta = kind(alpha), kind(beta)
    product = product if alpha == 1 else product * alpha
    if beta == 0:
        return product
    return product + (input if beta == 1 else input * beta)


@takes_out
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * mat @ vec."""
    return _plus(input, matmul.mv(mat, vec), beta, alpha)


@takes_out
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * the outer product of two vectors."""
    return _plus(input, matmul.outer(vec1, vec2), beta, alpha)


@takes_out
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * the sum over the batch of batch1 @ batch2."""
    return _plus(input, matmul.bmm(batch1, batch2).sum(0), beta, alpha)


@takes_out
def ger(input: Tensor, vec2: Tensor) -> Tensor:
    """`outer`."""
    return matmul.outer(input, vec2)


@takes_out
def vdot(input: Tensor, other: Tensor | float) -> Tensor:
    """`dot`."""
    return matmul.dot(input, other)


@takes_out
def inner(input: Tensor, other: Tensor | float) -> Tensor:
    """The sums of products over the last dimension of both: (..., K) and (*, K) give (..., *)."""
    if not input.dim() or not other.dim():
        return input * other
    if input.shape[-1] != other.shape[-1]:
        raise ValueError(f"inner: last sizes must match, got {tuple(input.shape)} and {tuple(other.shape)}")
    y = matmul.matmul(input.reshape(-1, input.shape[-1]), other.reshape(-1, other.shape[-1]).transpose(0, 1))
    return y.reshape((*input.shape[:-1], *other.shape[:-1]))


@takes_out
def kron(input: Tensor, other: Tensor | float) -> Tensor:
    """The Kronecker product: each element of input times all of other."""
    n = max(input.dim(), other.dim())
    a, b = ((1,) * (n - x.dim()) + tuple(x.shape) for x in (input, other))
    y = input.reshape([v for s in a for v in (s, 1)]) * other.reshape([v for s in b for v in (1, s)])
    return y.reshape([s * t for s, t in zip(a, b, strict=True)])


def chain_matmul(*matrices: Any) -> Tensor:
    """The product of several matrices, in the order of fewest operations."""
    from tilewright.linalg import multi_dot
    return multi_dot(matrices)
