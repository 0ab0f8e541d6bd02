"""Linear algebra under PyTorch's names: factorizations, solutions and norms of matrices (..., M, N) of float32/64.

Values come from LAPACK through NumPy, on the CPU: these are the ops round a network (whitening, regression, spectra),
not those inside one. Gradients are formulas in matrix products, so every order of derivative exists. Sources: M. Giles,
"An extended collection of matrix derivative results" (2008); Golub & Pereyra 1973 (the pseudoinverse); Murray 2016
(arXiv:1602.07527, Cholesky); Townsend 2016 and Roberts & Roberts 2020 (arXiv:2009.10071) (SVD, QR).

>>> import tilewright as tw
>>> a = tw.tensor([[4.0, 2.0], [2.0, 3.0]])
>>> tw.linalg.solve(a, tw.tensor([2.0, 1.0])).tolist()
[0.5, 0.0]
"""

from __future__ import annotations

import functools
import math
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright import _engine, autograd
from tilewright.arguments import into
from tilewright.autograd import record, wrap
from tilewright.ops import elementary, elementwise, reduce, shape

if TYPE_CHECKING:
    from tilewright.tensor import Tensor

__all__ = ["LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvalsh",
           "inv", "inv_ex", "lstsq", "matrix_norm", "matrix_power", "matrix_rank", "multi_dot", "norm", "pinv", "qr",
           "slogdet", "solve", "solve_triangular", "svd", "svdvals", "vecdot", "vector_norm"]

LinAlgError = np.linalg.LinAlgError
_Slogdet = namedtuple("slogdet", ("sign", "logabsdet"))  # type: ignore[name-match]
_QR = namedtuple("qr", ("Q", "R"))  # type: ignore[name-match]
_SVD = namedtuple("svd", ("U", "S", "Vh"))  # type: ignore[name-match]
_OldSVD = namedtuple("svd", ("U", "S", "V"))  # type: ignore[name-match]
_Eigh = namedtuple("eigh", ("eigenvalues", "eigenvectors"))  # type: ignore[name-match]
_Lstsq = namedtuple("lstsq", ("solution", "residuals", "rank", "singular_values"))  # type: ignore[name-match]
_TriangularSolve = namedtuple("triangular_solve", ("solution", "cloned_coefficient"))  # type: ignore[name-match]
_InvEx = namedtuple("inv_ex", ("inverse", "info"))  # type: ignore[name-match]
_CholeskyEx = namedtuple("cholesky_ex", ("L", "info"))  # type: ignore[name-match]


# --- to LAPACK and back ----------------------------------------------------------------------------------------------
def _matrix(op: str, x: Any, square: bool = False) -> Any:
    """x's values for NumPy, after the checks that all of these ops share."""
    if not isinstance(x, autograd.Tensor):
        raise TypeError(f"{op}: expects a Tensor, got {type(x).__name__}")
    if x.dtype not in (_engine.float32, _engine.float64):
        raise TypeError(f"{op}: the dtype must be float32 or float64, got {x.dtype.name}; use .float()")
    if x.dim() < 2 or (square and x.shape[-1] != x.shape[-2]):
        raise ValueError(f"{op}: input must be {'square matrices' if square else 'matrices'}, got shape "
                         f"{tuple(x.shape)}")
    return x.detach().cpu().numpy()


def _array(values: Any, like: Tensor) -> Any:
    """An engine array of NumPy's result, on like's device and of its dtype where it is a float."""
    values = np.require(values, like.dtype.name if np.asarray(values).dtype.kind == "f" else None, "C")
    return _engine.to_device(_engine.clone(_engine.from_buffer(values)), like.device)


def _call(op: str, function: Any, *values: Any) -> Any:
    try:
        return function(*values)
    except LinAlgError as error:
        shapes = " and ".join(str(v.shape) for v in values if hasattr(v, "shape"))
        raise LinAlgError(f"{op}: {str(error)[:1].lower()}{str(error)[1:]}, got {shapes}") from None


def _diagonal(x: Tensor) -> Tensor:
    return shape.diagonal(x, 0, -2, -1)


def _on_diagonal(x: Tensor) -> Tensor:
    """(..., N) as diagonal matrices (..., N, N)."""
    return x.unsqueeze(-1) * _eye(x.shape[-1], x)


def _eye(n: int, like: Tensor) -> Tensor:
    return like.new_ones(n).diag()


def _symmetric(x: Tensor) -> Tensor:
    """The symmetric matrix of the lower triangle."""
    return x.tril() + x.tril(-1).mT


def _into(op: str, y: Any, out: Any) -> Any:
    return y if out is None else into(op, y, out, y)


# --- determinants, inverses, solutions -------------------------------------------------------------------------------
def det(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The determinant of square matrices: (..., N, N) gives (...).

    >>> import tilewright as tw
    >>> tw.linalg.det(tw.tensor([[1.0, 2.0], [3.0, 5.0]])).round().item()
    -1.0
    """
    y = _array(np.linalg.det(_matrix("det", A, True)), A)
    return _into("det", record(det_grad, y, (A,), (A,)), out)


def det_grad(node, dy):
    """d det = det tr(A^-1 dA); of a matrix without inverse the cofactors, from the singular values of the others."""
    (a,) = node.saved
    if autograd.is_grad_enabled():
        return ((dy * det(a)).unsqueeze(-1).unsqueeze(-1) * inv(a).mT,)
    values = _matrix("det", a)
    u, s, vh = np.linalg.svd(values)
    others = np.stack([np.prod(np.delete(s, k, -1), -1) for k in range(s.shape[-1])], -1) if s.size else s
    cofactors = (np.linalg.det(u) * np.linalg.det(vh))[..., None, None] * ((u * others[..., None, :]) @ vh)
    return (dy.unsqueeze(-1).unsqueeze(-1) * wrap(_array(cofactors, a)),)


def slogdet(A: Tensor) -> Any:
    """(sign, logabsdet): the determinant is sign exp(logabsdet)."""
    sign, log = np.linalg.slogdet(_matrix("slogdet", A, True))
    return _Slogdet(wrap(_array(sign, A)), record(slogdet_grad, _array(log, A), (A,), (A,)))


def slogdet_grad(node, dy):
    (a,) = node.saved
    return (dy.unsqueeze(-1).unsqueeze(-1) * inv(a).mT,)


def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinant: NaN where that is negative, -inf where it is 0."""
    sign, log = slogdet(input)
    return elementwise.where(sign < 0, math.nan, log)


def inv(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The inverse of square matrices.

    Raises:
        LinAlgError: a matrix without inverse.

    >>> import tilewright as tw
    >>> tw.linalg.inv(tw.tensor([[2.0, 0.0], [0.0, 4.0]])).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    y = _array(_call("inv", np.linalg.inv, _matrix("inv", A, True)), A)
    return _into("inv", record(inv_grad, y, (A,), (y,)), out)


def inv_grad(node, dy):
    (y,) = node.saved
    return (-(y.mT @ dy @ y.mT),)


def inv_ex(A: Tensor, *, check_errors: bool = False) -> Any:
    """(inverse, info): info is 0; a matrix without inverse raises, whatever `check_errors`."""
    return _InvEx(inv(A), A.new_zeros(A.shape[:-2], dtype=_engine.int32))


def solve(A: Tensor, B: Tensor, *, left: bool = True, out: Tensor | None = None) -> Tensor:
    """X of A X = B (of X A = B unless `left`), for A (..., N, N) and B (..., N, K) or vectors (..., N).

    As in PyTorch, B counts as vectors if it is 1-d, or has one dimension less than A and A's shape without the last.

    Raises:
        LinAlgError: a matrix without inverse. ValueError: shapes that do not fit.
    """
    a = _matrix("solve", A, True)
    vectors = B.dim() == 1 or (B.dim() == A.dim() - 1 and tuple(B.shape) == tuple(A.shape[:-1]))
    if B.dim() < 1 or B.dtype is not A.dtype or B.shape[-1 if vectors or not left else -2] != A.shape[-1]:
        raise ValueError(f"solve: B must have A's dtype and rows, got {B.dtype.name} {tuple(B.shape)} for "
                         f"{A.dtype.name} {tuple(A.shape)}")
    if vectors:
        return _into("solve", solve(A, B.unsqueeze(-1)).squeeze(-1), out)
    if not left:
        return _into("solve", solve(A.mT, B.mT).mT, out)
    batch = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    b = np.broadcast_to(_matrix("solve", B), (*batch, *B.shape[-2:]))
    y = _array(_call("solve", np.linalg.solve, np.broadcast_to(a, (*batch, *a.shape[-2:])), b), A)
    return _into("solve", record(solve_grad, y, (A, B), (A, y)), out)


def solve_grad(node, dy):
    a, y = node.saved
    db = solve(a.mT, dy)
    return -(db @ y.mT) if node.needs[0] else None, db


def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False,
                     out: Tensor | None = None) -> Tensor:
    """X of A X = B (of X A = B unless `left`), reading only A's upper or lower triangle."""
    triangle = A.triu(int(unitriangular)) if upper else A.tril(-int(unitriangular))
    if unitriangular:
        triangle = triangle + _eye(A.shape[-1], A)
    if B.dim() < 2:
        raise ValueError(f"solve_triangular: B must be matrices, got shape {tuple(B.shape)}")
    if not left:
        return _into("solve_triangular", solve_triangular(A.mT, B.mT, upper=not upper,
                                                          unitriangular=unitriangular).mT, out)
    batch = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])  # else solve might take B for vectors
    return _into("solve_triangular", solve(triangle, B.expand(*batch, *B.shape[-2:])), out)


def triangular_solve(b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False,
                     unitriangular: bool = False) -> Any:
    """(solution, A) of the older name; `solve_triangular` is today's."""
    a, up = (A.mT, not upper) if transpose else (A, upper)
    return _TriangularSolve(solve_triangular(a, b, upper=up, unitriangular=unitriangular), A.clone())


def pinv(A: Tensor, *, atol: Any = None, rtol: Any = None, hermitian: bool = False,
         out: Tensor | None = None) -> Tensor:
    """The pseudoinverse: singular values up to max(atol, rtol times the largest) count as 0; rtol max(M, N) eps.

    The gradient is that of matrices of constant rank.
    """
    a = _matrix("pinv", _symmetric(A.detach()) if hermitian else A, hermitian)
    u, s, vh = _call("pinv", functools.partial(np.linalg.svd, full_matrices=False), a)
    kept = s > _cutoff(A, s, atol, rtol)[..., None]
    y = _array(np.swapaxes((u * np.where(kept, 1 / np.where(kept, s, 1), 0)[..., None, :]) @ vh, -1, -2), A)
    return _into("pinv", record(pinv_grad, y, (A,), (A, y)), out)


def pinv_grad(node, dy):
    a, p = node.saved
    m, n = a.shape[-2:]
    rest = (_eye(m, a) - a @ p) @ dy.mT @ (p @ p.mT) + (p.mT @ p) @ dy.mT @ (_eye(n, a) - p @ a)
    return (rest - p.mT @ dy @ p.mT,)


def _cutoff(A: Tensor, s: Any, atol: Any, rtol: Any) -> Any:
    given = [v.detach().numpy(force=True) if isinstance(v, autograd.Tensor) else v for v in (atol, rtol)]
    eps = np.finfo(s.dtype).eps * max(A.shape[-2:])
    absolute = np.asarray(0.0 if given[0] is None else given[0])
    relative = np.where(absolute > 0, 0.0, eps) if given[1] is None else given[1]
    return np.maximum(absolute, relative * s.max(-1, initial=0))


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """(solution, residuals, rank, singular_values): X of least ||A X - B||, for A (..., M, N) and B (..., M, K).

    Of A of rank below N the X of least norm, whatever `driver`. residuals: the squared error of each column where
    M > N and the rank is N; not of the driver "gelsy", the usual one. rank: not of "gels". singular_values are those
    of the drivers "gelsd" and "gelss".
    """
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise ValueError(f"lstsq: driver must be 'gels', 'gelsy', 'gelsd' or 'gelss', got {driver!r}")
    vectors = B.dim() == A.dim() - 1 and tuple(B.shape) == tuple(A.shape[:-1])
    X = pinv(A, rtol=rcond) @ (B.unsqueeze(-1) if vectors else B)
    rank = matrix_rank(A, rtol=rcond)
    full = driver not in (None, "gelsy") and A.shape[-2] > A.shape[-1] and bool((rank == A.shape[-1]).all())
    error = elementary.square(A @ X - (B.unsqueeze(-1) if vectors else B)).sum(-2) if full else A.new_empty(0)
    return _Lstsq(X.squeeze(-1) if vectors else X, error, rank.new_empty(0) if driver == "gels" else rank,
                  svdvals(A) if driver in ("gelsd", "gelss") else A.new_empty(0))


def matrix_power(A: Tensor, n: int, *, out: Tensor | None = None) -> Tensor:
    """A times itself n times; of n < 0 the inverse's power."""
    _matrix("matrix_power", A, True)
    if n < 0:
        return _into("matrix_power", matrix_power(inv(A), -n), out)
    if n == 0:  # of A nothing is left, but its gradient is 0 rather than none
        return _into("matrix_power", elementwise.where(wrap(_engine.full((), True, _engine.bool, A.device)),
                                                       _eye(A.shape[-1], A), A), out)
    y, square = None, A
    while n:
        if n & 1:
            y = square if y is None else y @ square
        n >>= 1
        square = square @ square if n else square
    return _into("matrix_power", y, out)


def multi_dot(tensors: Any, *, out: Tensor | None = None) -> Tensor:
    """The product of several matrices in the order that costs the fewest operations; the ends may be vectors."""
    x = [t.unsqueeze(0) if k == 0 and t.dim() == 1 else t.unsqueeze(1) if t.dim() == 1 else t
         for k, t in enumerate(tensors)]
    sizes = [t.shape[0] for t in x] + [x[-1].shape[1]]

    @functools.cache
    def best(i: int, j: int) -> tuple[float, int]:
        return min(((best(i, k)[0] + best(k + 1, j)[0] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                    for k in range(i, j)), default=(0, i))

    def product(i: int, j: int) -> Tensor:
        return x[i] if i == j else product(i, best(i, j)[1]) @ product(best(i, j)[1] + 1, j)

    y = product(0, len(x) - 1)
    y = y.squeeze(0) if tensors[0].dim() == 1 else y
    return _into("multi_dot", y.squeeze(-1) if tensors[-1].dim() == 1 else y, out)


# --- factorizations --------------------------------------------------------------------------------------------------
def cholesky(A: Tensor, *, upper: bool = False, out: Tensor | None = None) -> Tensor:
    """L, lower triangular, of A = L L^T (L^T if `upper`), for symmetric positive definite A; one triangle is read.

    Raises:
        LinAlgError: a matrix that is not positive definite.

    >>> import tilewright as tw
    >>> tw.linalg.cholesky(tw.tensor([[4.0, 2.0], [2.0, 5.0]])).tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    a = _matrix("cholesky", A, True)
    y = _array(_call("cholesky", np.linalg.cholesky, np.swapaxes(a, -1, -2) if upper else a), A)
    y = record(cholesky_grad, y, (A,), (y,))
    return _into("cholesky", y.mT if upper else y, out)


def cholesky_grad(node, dy):
    (y,) = node.saved
    inverse = solve_triangular(y, _eye(y.shape[-1], y).expand(y.shape), upper=False)
    phi = y.mT @ dy
    phi = phi.tril() - 0.5 * _on_diagonal(_diagonal(phi))
    da = inverse.mT @ phi @ inverse
    return (0.5 * (da + da.mT),)


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """(L, info): info is 0; a matrix that is not positive definite raises, whatever `check_errors`."""
    return _CholeskyEx(cholesky(A, upper=upper), A.new_zeros(A.shape[:-2], dtype=_engine.int32))


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X of A X = B from A's Cholesky factor, of which one triangle is read."""
    with autograd.no_grad():
        low = L.mT if upper else L
        y = solve_triangular(low.tril().mT, solve_triangular(low, B, upper=False), upper=True)
    return record(cholesky_solve_grad, y.array, (B, L), (L, y.array), (upper,))


def cholesky_solve_grad(node, dy):
    """As if A = L L^T, whatever lies in L's other triangle."""
    (factor, y), (upper,) = node.saved, node.attrs
    db = cholesky_solve(dy, factor, upper)
    da = db @ y.mT
    da = da + da.mT
    return db, -(factor @ da if upper else da @ factor)


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """A's inverse from its Cholesky factor."""
    return cholesky_solve(_eye(L.shape[-1], L).expand(L.shape), L, upper)


def qr(A: Tensor, mode: str = "reduced") -> Any:
    """(Q, R) of A = Q R: Q with orthonormal columns, R upper triangular. mode: "reduced", "complete" or "r" (no Q).

    Raises:
        ValueError: another mode. RuntimeError: the gradient of "r", and of "complete" where M > N.
    """
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f"qr: mode must be 'reduced', 'complete' or 'r', got {mode!r}")
    kind: Any = "reduced" if mode == "r" else mode
    made = np.linalg.qr(_matrix("qr", A), kind)
    q, r = autograd.record_many(qr_grad, tuple(_array(v, A) for v in made), (A,), (A,), (mode,))
    return _QR(A.new_empty(0) if mode == "r" else q, r)


def qr_grad(node, dq, dr):
    (a,), (mode,) = node.saved, node.attrs
    m, n = a.shape[-2:]
    if mode == "r" or (mode == "complete" and m > n):
        raise RuntimeError(f"qr: the factors of mode={mode!r} have no gradient for shape {tuple(a.shape)}; use "
                           f"mode='reduced'")
    q, r = qr(a)
    dq = q * 0 if dq is None else dq
    dr = r * 0 if dr is None else dr
    if m < n:  # A = (X, Y): Q and the first columns of R are X's, the rest Q^T Y
        y, dv = a[..., m:], dr[..., m:]
        dx = _qr_square(q, r[..., :m], dq + y @ dv.mT, dr[..., :m])
        return (shape.cat([dx, q @ dv], -1),)
    return (_qr_square(q, r, dq, dr),)


def _qr_square(q, r, dq, dr):
    m = r @ dr.mT - dq.mT @ q
    symmetric = m.tril() + m.tril(-1).mT
    return solve_triangular(r.mT, dq + q @ symmetric, upper=False, left=False)


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """(U, S, Vh) of A = U diag(S) Vh, singular values in descending order.

    U and Vh are square with `full_matrices`, else (..., M, K) and (..., K, N), K the smaller size. Their gradient is
    that of the first K columns and rows, and is not finite where singular values are equal or 0.

    Raises:
        ValueError: a driver, which names a routine of a library that is not here.
    """
    if driver is not None:
        raise ValueError(f"svd: driver names a routine of cuSOLVER, which is not used here, got {driver!r}")
    made = _call("svd", functools.partial(np.linalg.svd, full_matrices=full_matrices), _matrix("svd", A))
    return _SVD(*autograd.record_many(svd_grad, tuple(_array(v, A) for v in made), (A,), (A,)))


def svd_grad(node, du, ds, dvh):
    (a,) = node.saved
    u, s, vh = svd(a, full_matrices=False)
    k = s.shape[-1]
    inner = _on_diagonal(ds) if ds is not None else u.mT @ u * 0
    eye = _eye(k, s)
    gaps = elementary.square(s).unsqueeze(-2) - elementary.square(s).unsqueeze(-1) + eye
    outer = 0
    if du is not None:
        du = du[..., :k]
        x = u.mT @ du
        inner = inner + (x - x.mT) / gaps * s.unsqueeze(-2)
        if u.shape[-2] > k:
            outer = ((du - u @ x) / s.unsqueeze(-2)) @ vh
    if dvh is not None:
        dv = dvh[..., :k, :].mT
        x = vh @ dv
        inner = inner + s.unsqueeze(-1) * ((x - x.mT) / gaps)
        if vh.shape[-1] > k:
            outer = outer + (u / s.unsqueeze(-2)) @ (dv - vh.mT @ x).mT
    return (u @ inner @ vh + outer,)


def svdvals(A: Tensor, *, driver: str | None = None, out: Tensor | None = None) -> Tensor:
    """The singular values, in descending order."""
    return _into("svdvals", svd(A, full_matrices=False, driver=driver)[1], out)


def eigh(A: Tensor, UPLO: str = "L") -> Any:
    """(eigenvalues, eigenvectors) of symmetric matrices, of which one triangle is read; values ascend.

    The vectors' gradient is not finite where eigenvalues are equal.
    """
    if UPLO.upper() not in ("L", "U"):
        raise ValueError(f"eigh: UPLO must be 'L' or 'U', got {UPLO!r}")
    made = _call("eigh", np.linalg.eigh, _matrix("eigh", A, True), UPLO.upper())
    return _Eigh(*autograd.record_many(eigh_grad, tuple(_array(v, A) for v in made), (A,), (A,), (UPLO,)))


def eigh_grad(node, dvalues, dvectors):
    (a,), (UPLO,) = node.saved, node.attrs
    values, v = eigh(a, UPLO)
    inner = _on_diagonal(dvalues) if dvalues is not None else 0
    if dvectors is not None:
        eye = _eye(values.shape[-1], values)
        gaps = values.unsqueeze(-2) - values.unsqueeze(-1) + eye
        inner = inner + (v.mT @ dvectors) / gaps * (1 - eye)
    da = v @ inner @ v.mT
    return ((da + da.mT) / 2,)


def eigvalsh(A: Tensor, UPLO: str = "L", *, out: Tensor | None = None) -> Tensor:
    """The eigenvalues of symmetric matrices, ascending."""
    return _into("eigvalsh", eigh(A, UPLO)[0], out)


def eig(A: Tensor, *, out: Any = None) -> Any:
    """Refused: eigenvalues of a matrix that is not symmetric may be complex."""
    raise NotImplementedError("eig: eigenvalues may be complex, a dtype that tilewright lacks; use linalg.eigh for "
                              "symmetric matrices, or numpy.linalg.eig")


# --- norms -----------------------------------------------------------------------------------------------------------
def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
                out: Tensor | None = None) -> Tensor:
    """(sum |x|^ord)^(1/ord) over `dim`, or over all elements; ord inf, -inf: the largest, smallest; 0: how many."""
    if not x.is_floating_point() and dtype is None:
        raise TypeError(f"vector_norm: input must be floating-point, got {x.dtype.name}")
    if dim is None and not keepdim:
        x = shape.flatten(x)
    return _into("vector_norm", reduce.norm(x if dtype is None else x.to(dtype), ord, dim, keepdim), out)


def matrix_norm(A: Tensor, ord: Any = "fro", dim: tuple = (-2, -1), keepdim: bool = False, *, dtype: Any = None,
                out: Tensor | None = None) -> Tensor:
    """A matrix's norm: "fro"; "nuc", the sum of singular values; inf, -inf, 1, -1, extremes of row and column sums of
    |A|; 2, -2, extreme singular values."""
    x = A if dtype is None else A.to(dtype)
    rows, columns = (d % x.dim() for d in dim)
    if ord == "fro":
        y = reduce.norm(x, 2, (rows, columns), keepdim)
    elif ord in ("nuc", 2, -2):
        s = svdvals(shape.movedim(x, (rows, columns), (-2, -1)))
        y = s.sum(-1) if ord == "nuc" else s.amax(-1) if ord == 2 else s.amin(-1)
        if keepdim:
            for d in sorted((rows, columns)):
                y = y.unsqueeze(d)
    elif ord in (math.inf, -math.inf, 1, -1):
        over, rest = (columns, rows) if abs(ord) != 1 else (rows, columns)
        sums = elementary.abs(x).sum(over, keepdim=True)
        y = sums.amax(rest, keepdim=True) if ord > 0 else sums.amin(rest, keepdim=True)
        if not keepdim:
            for d in sorted((rows, columns), reverse=True):
                y = y.squeeze(d)
    else:
        raise ValueError(f"matrix_norm: ord must be 'fro', 'nuc', inf, -inf, 1, -1, 2 or -2, got {ord!r}")
    return _into("matrix_norm", y, out)


def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, out: Tensor | None = None,
         dtype: Any = None) -> Tensor:
    """`vector_norm`, or `matrix_norm` where dim names two dimensions, or where ord is given for a matrix."""
    two = isinstance(dim, tuple | list) and len(dim) == 2
    if isinstance(ord, str) or (ord is not None and (two or (dim is None and A.dim() == 2))):
        return matrix_norm(A, ord, tuple(dim) if two else (-2, -1), keepdim, dtype=dtype, out=out)
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype, out=out)


def matrix_rank(A: Tensor, *, atol: Any = None, rtol: Any = None, tol: Any = None, hermitian: bool = False,
                out: Tensor | None = None) -> Tensor:
    """How many singular values are above max(atol, rtol times the largest); rtol max(M, N) eps by default."""
    A = _symmetric(A) if hermitian else A
    s = np.linalg.svd(_matrix("matrix_rank", A, hermitian), compute_uv=False)
    above = s > _cutoff(A, s, atol if tol is None else tol, rtol)[..., None]
    return _into("matrix_rank", wrap(_array(above.sum(-1).astype(np.int64), A)), out)


def cond(A: Tensor, p: Any = None, *, out: Tensor | None = None) -> Tensor:
    """The condition number: norm(A) norm(A^-1); by default the ratio of extreme singular values."""
    if p in (None, 2, -2):
        s = svdvals(A)
        ratio = s.amax(-1) / s.amin(-1)
        return _into("cond", ratio if p != -2 else ratio.reciprocal(), out)
    return _into("cond", matrix_norm(A, p) * matrix_norm(inv(A), p), out)


# --- products and diagonals ------------------------------------------------------------------------------------------
def cross(input: Tensor, other: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Tensor:
    """The vector product over a dimension of size 3."""
    if input.dim() != other.dim():
        raise ValueError(f"cross: inputs must have one number of dimensions, got {tuple(input.shape)} and "
                         f"{tuple(other.shape)}")
    if input.shape[dim] != 3 or other.shape[dim] != 3:
        raise ValueError(f"cross: sizes along dim {dim} must be 3, got {tuple(input.shape)} and {tuple(other.shape)}")
    a, b = shape.broadcast_tensors(input, other)
    (a1, a2), (b1, b2) = ([shape.roll(x, -k, dim) for k in (1, 2)] for x in (a, b))
    return _into("cross", a1 * b2 - a2 * b1, out)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonal of matrices, as a view."""
    return shape.diagonal(A, offset, dim1, dim2)


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Tensor:
    """The sum of x y over a dimension."""
    return _into("vecdot", (x * y).sum(dim), out)


# --- PyTorch's older names -------------------------------------------------------------------------------------------
def old_svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """`torch.svd`: (U, S, V), V and not its transpose, of reduced size with `some`."""
    if not compute_uv:
        s, (m, n) = svdvals(input), input.shape[-2:]
        return _OldSVD(input.new_zeros(*input.shape[:-2], m, m), s, input.new_zeros(*input.shape[:-2], n, n))
    u, s, vh = svd(input, full_matrices=not some)
    return _OldSVD(u, s, vh.mT)


def old_qr(input: Tensor, some: bool = True) -> Any:
    """`torch.qr`: "reduced" with `some`, else "complete"."""
    return qr(input, "reduced" if some else "complete")


def old_cholesky(input: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """`torch.cholesky`."""
    return cholesky(input, upper=upper, out=out)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """`pinv` with a limit relative to the largest singular value."""
    return pinv(input, rtol=rcond)


def old_cross(input: Tensor, other: Tensor, dim: int | None = None, *, out: Tensor | None = None) -> Tensor:
    """`torch.cross`: over the first dimension of size 3 unless `dim` says which."""
    if dim is None:
        dim = next((d for d, n in enumerate(input.shape) if n == 3), -1)
    return cross(input, other, dim=dim, out=out)
