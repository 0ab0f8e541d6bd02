"""Matrix products. All take operands of any strides without copying them, and accumulate float16 and bfloat16 in
float32; integers wrap.

Gradients of c = a b: da = dc b^T and db = a^T dc. Each rule is made of the same products, so every order of derivative
exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright import _engine, autograd
from tilewright.arguments import takes_out, write
from tilewright.autocast import lower
from tilewright.autograd import record, wrap
from tilewright.grad_mode import mode

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def _check(op: str, *operands) -> None:
    for x in operands:
        if not isinstance(x, autograd.Tensor):
            raise TypeError(f"{op}: expects a Tensor, got {type(x).__name__}")


def _check_ndim(op: str, x, ndim: int, what: str) -> None:
    _check(op, x)
    if len(x.array.shape) != ndim:
        raise ValueError(f"{op}: {what} must have {ndim} dimension{'s' if ndim > 1 else ''}, got shape {x.array.shape}")


@lower
def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The product of two matrices, or of batches of them, with PyTorch's rules.

    c[..., i, j] = sum over k of input[..., i, k] other[..., k, j]: (..., M, K) and (..., K, N) give (..., M, N), batch
    dimensions broadcast. A 1-d `input` is a row, a 1-d `other` a column, and the result drops that dimension.

    Raises:
        ValueError: the inner sizes differ, the batch sizes do not broadcast, or an operand is 0-d.
        TypeError: the dtypes differ.

    >>> import tilewright as tw
    >>> (tw.tensor([[1.0, 2.0], [3.0, 4.0]]) @ tw.tensor([1.0, 1.0])).tolist()
    [3.0, 7.0]
    """
    _check("matmul", input, other)
    if out is not None:
        def into(y):
            product = _engine.matmul(input.array, other.array)
            if y is None:
                return product
            if y.shape != product.shape:
                raise ValueError(f"matmul: the output's shape must be the result's, got {y.shape} for {product.shape}")
            return _engine.copy_into(y, product)

        return write("matmul", into, (input, other), out)
    return record(matmul_grad, _engine.matmul(input.array, other.array), (input, other), (input, other))


def matmul_grad(node, dy):
    a, b = node.saved
    rows, columns = len(a.array.shape), len(b.array.shape)
    if rows == 1 and columns == 1:
        return dy * b if node.needs[0] else None, dy * a if node.needs[1] else None
    if rows == 1:
        a, dy = a.unsqueeze(0), dy.unsqueeze(-2)
    if columns == 1:
        b, dy = b.unsqueeze(1), dy.unsqueeze(-1)
    da = _times(dy, b, transpose_b=True) if node.needs[0] else None
    if not node.needs[1]:
        db = None
    elif len(b.array.shape) == 2 and len(a.array.shape) > 2:  # the sum over the batch is one product
        db = _weight_gradient(a, dy)
    else:
        db = _times(a, dy, transpose_a=True)
    if rows == 1 and da is not None:
        da = da.squeeze(-2)
    if columns == 1 and db is not None:
        db = db.squeeze(-1)
    return da, db


def _times(a, b, transpose_a=False, transpose_b=False):
    if not mode.grad:
        return wrap(_engine.matmul(a.array, b.array, transpose_a, transpose_b))
    return matmul(a.transpose(-1, -2) if transpose_a else a, b.transpose(-1, -2) if transpose_b else b)


def _weight_gradient(dy, x):
    """dy^T x over all rows: (..., out) and (..., in) give (out, in)."""
    if not mode.grad:
        return wrap(_engine.linear_backward_w(dy.array, x.array))
    rows = dy.numel() // dy.shape[-1] if dy.shape[-1] else 0
    return matmul(dy.reshape(rows, dy.shape[-1]).transpose(0, 1), x.reshape(rows, x.shape[-1]))


@lower
def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """matmul of two matrices (M, K) and (K, N); nothing is broadcast."""
    _check_ndim("mm", input, 2, "input")
    _check_ndim("mm", mat2, 2, "mat2")
    return matmul(input, mat2, out=out)


@lower
def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """matmul of two batches (B, M, K) and (B, K, N); nothing is broadcast."""
    _check_ndim("bmm", input, 3, "input")
    _check_ndim("bmm", mat2, 3, "mat2")
    if input.array.shape[0] != mat2.array.shape[0]:
        raise ValueError(f"bmm: batch sizes must match, got {input.array.shape} @ {mat2.array.shape}")
    return matmul(input, mat2, out=out)


@takes_out
@lower
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """matmul of a matrix (M, K) and a vector (K)."""
    _check_ndim("mv", input, 2, "input")
    _check_ndim("mv", vec, 1, "vec")
    return matmul(input, vec)


@takes_out
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The sum of the products of two vectors (K).

    >>> import tilewright as tw
    >>> tw.dot(tw.tensor([1.0, 2.0]), tw.tensor([3.0, 4.0])).item()
    11.0
    """
    _check_ndim("dot", input, 1, "input")
    _check_ndim("dot", tensor, 1, "tensor")
    return matmul(input, tensor)


@takes_out
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """out[i, j] = input[i] vec2[j] of two vectors."""
    _check_ndim("outer", input, 1, "input")
    _check_ndim("outer", vec2, 1, "vec2")
    return input.unsqueeze(1) * vec2


@takes_out
@lower
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * mat1 @ mat2 in one product; input broadcasts to (M, N). beta 0 ignores input's values.

    Raises:
        ValueError: the inner sizes differ, or input does not broadcast to the result.
        TypeError: the dtypes differ.

    >>> import tilewright as tw
    >>> tw.addmm(tw.ones(2), tw.eye(2), tw.eye(2), beta=2).tolist()
    [[3.0, 2.0], [2.0, 3.0]]
    """
    _check("addmm", input)
    _check_ndim("addmm", mat1, 2, "mat1")
    _check_ndim("addmm", mat2, 2, "mat2")
    y = _engine.addmm(input.array, mat1.array, mat2.array, beta, alpha)
    return record(addmm_grad, y, (input, mat1, mat2), (mat1, mat2), (beta, alpha))


def addmm_grad(node, dy):
    a, b = node.saved
    beta, alpha = node.attrs
    scaled = dy if alpha == 1 else dy * alpha
    return (dy if beta == 1 else dy * beta, _times(scaled, b, transpose_b=True) if node.needs[1] else None,
            _times(a, scaled, transpose_a=True) if node.needs[2] else None)


@takes_out
@lower
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * batch1 @ batch2 over batches (B, M, K) and (B, K, N); input broadcasts to (B, M, N)."""
    _check("baddbmm", input)
    _check_ndim("baddbmm", batch1, 3, "batch1")
    _check_ndim("baddbmm", batch2, 3, "batch2")
    if batch1.array.shape[0] != batch2.array.shape[0]:
        raise ValueError(f"baddbmm: batch sizes must match, got {batch1.array.shape} @ {batch2.array.shape}")
    y = _engine.baddbmm(input.array, batch1.array, batch2.array, beta, alpha)
    return record(baddbmm_grad, y, (input, batch1, batch2), (batch1, batch2), (beta, alpha))


def baddbmm_grad(node, dy):
    return addmm_grad(node, dy)


@lower
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x w^T + b, one fused product.

    Args:
        input: x (..., in).
        weight: w (out, in).
        bias: b (out), or None.

    Raises:
        ValueError: x's last size is not w's, or b's size is not out.
        TypeError: the dtypes differ.

    >>> import tilewright as tw
    >>> tw.nn.functional.linear(tw.ones(2, 3), tw.ones(1, 3), tw.ones(1)).tolist()
    [[4.0], [4.0]]
    """
    _check("linear", input, weight)
    if bias is None:
        return record(linear_grad, _engine.linear(input.array, weight.array), (input, weight), (input, weight))
    _check("linear", bias)
    y = _engine.linear(input.array, weight.array, bias.array)
    return record(linear_grad, y, (input, weight, bias), (input, weight))


def linear_grad(node, dy):
    x, w = node.saved
    needs = node.needs
    dx = _times(dy, w) if needs[0] else None
    dw = _weight_gradient(dy, x) if needs[1] else None
    return (dx, dw) if len(needs) == 2 else (dx, dw, dy)  # the tape sums dy to the bias
