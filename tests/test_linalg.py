"""linalg against PyTorch: values, gradients, gradients of gradients, shapes with batches, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tilewright as tw

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)


def general(*shape):
    return RNG.standard_normal(shape)


def well(n, *batch):
    return RNG.standard_normal((*batch, n, n)) + n * np.eye(n)


def positive(n, *batch):
    a = RNG.standard_normal((*batch, n, n))
    return a @ np.swapaxes(a, -1, -2) + n * np.eye(n)


def apart(m, n, *batch):
    """Singular values 1, 2, 3, ...: their gradients are well conditioned."""
    u, v = (np.linalg.qr(RNG.standard_normal((*batch, k, k)))[0] for k in (m, n))
    s = np.zeros((m, n))
    np.fill_diagonal(s, np.arange(1.0, min(m, n) + 1))
    return u @ s @ v


def symmetric(lib, x):
    return x + x.transpose(-1, -2)


def projector(u):
    """What of vectors does not hang on their signs."""
    return u.unsqueeze(-1) * u.unsqueeze(-2)


# name: (function(lib, *tensors), arrays). Vectors are squared or projected, since their signs are LAPACK's choice.
CASES = {
    "det": (lambda lib, a: lib.linalg.det(a), [well(4, 2)]),
    "det-1": (lambda lib, a: lib.det(a), [well(1)]),
    "slogdet": (lambda lib, a: lib.linalg.slogdet(a)[1], [-well(3, 2)]),
    "logdet": (lambda lib, a: lib.logdet(a), [positive(3)]),
    "inv": (lambda lib, a: lib.linalg.inv(a), [well(4, 2, 3)]),
    "inverse": (lambda lib, a: a.inverse(), [well(4)]),
    "inv_ex": (lambda lib, a: lib.linalg.inv_ex(a)[0], [well(4)]),
    "solve": (lambda lib, a, b: lib.linalg.solve(a, b), [well(4, 2), general(2, 4, 3)]),
    "solve-vector": (lambda lib, a, b: lib.linalg.solve(a, b), [well(4), general(4)]),
    "solve-vectors": (lambda lib, a, b: lib.linalg.solve(a, b), [well(3, 5), general(5, 3)]),
    "solve-broadcast": (lambda lib, a, b: lib.linalg.solve(a, b), [well(3, 2, 1), general(4, 3, 2)]),
    "solve-right": (lambda lib, a, b: lib.linalg.solve(a, b, left=False), [well(3), general(2, 5, 3)]),
    "triangular": (lambda lib, a, b: lib.linalg.solve_triangular(a, b, upper=True), [well(4), general(2, 4, 2)]),
    "triangular-unit": (lambda lib, a, b: lib.linalg.solve_triangular(a, b, upper=False, left=False,
                                                                      unitriangular=True), [well(4), general(3, 4)]),
    "triangular-old": (lambda lib, a, b: lib.triangular_solve(b, a, upper=False, transpose=True)[0],
                       [well(4), general(4, 3)]),
    "cholesky": (lambda lib, a: lib.linalg.cholesky(symmetric(lib, a)), [positive(4, 2)]),
    "cholesky-upper": (lambda lib, a: lib.cholesky(symmetric(lib, a), upper=True), [positive(3)]),
    "cholesky_solve": (lambda lib, b, a: lib.cholesky_solve(b, a.tril()), [general(3, 2), well(3)]),
    "cholesky_inverse": (lambda lib, a: lib.cholesky_inverse(a.tril()), [well(3)]),
    "qr": (lambda lib, a: sum(x.square() for x in (lib.linalg.qr(a)[0] @ lib.linalg.qr(a)[1].abs(),)),
           [well(4, 2)]),
    "qr-tall": (lambda lib, a: lib.linalg.qr(a)[0].square(), [general(5, 3)]),
    "qr-wide": (lambda lib, a: lib.qr(a)[1].square(), [general(2, 4)]),
    "svd-values": (lambda lib, a: lib.linalg.svdvals(a), [apart(4, 3, 2)]),
    "svd-u": (lambda lib, a: projector(lib.linalg.svd(a, full_matrices=False)[0][..., 0]), [apart(5, 3)]),
    "svd-v": (lambda lib, a: projector(lib.svd(a)[2][..., 1]), [apart(3, 5)]),
    "svd-all": (lambda lib, a: (lambda u, s, v: (u * s.square()) @ v)(*lib.linalg.svd(a, full_matrices=False)),
                [apart(4, 3)]),
    "eigh": (lambda lib, a: lib.linalg.eigh(symmetric(lib, a))[0], [general(4, 4)]),
    "eigh-vectors": (lambda lib, a: projector(lib.linalg.eigh(symmetric(lib, a), UPLO="U")[1][..., 1]),
                     [apart(3, 3) + np.diag([0, 3, 9])]),
    "eigvalsh": (lambda lib, a: lib.linalg.eigvalsh(symmetric(lib, a)), [general(2, 3, 3)]),
    "pinv": (lambda lib, a: lib.linalg.pinv(a), [general(2, 5, 3)]),
    "pinv-wide": (lambda lib, a: lib.pinverse(a), [general(2, 4)]),
    "lstsq": (lambda lib, a, b: lib.linalg.lstsq(a, b).solution, [general(5, 3), general(5, 2)]),
    "matrix_power": (lambda lib, a: lib.linalg.matrix_power(a, 5), [general(2, 3, 3)]),
    "matrix_power-inverse": (lambda lib, a: a.matrix_power(-2), [well(3)]),
    "matrix_power-0": (lambda lib, a: lib.matrix_power(a, 0) * a, [general(2, 3, 3)]),
    "multi_dot": (lambda lib, *x: lib.linalg.multi_dot(x), [general(2, 6), general(6, 3), general(3, 5), general(5)]),
    "cross": (lambda lib, a, b: lib.linalg.cross(a, b), [general(4, 3), general(1, 3)]),
    "cross-old": (lambda lib, a, b: lib.cross(a, b, dim=0), [general(3, 4), general(3, 4)]),
    "diagonal": (lambda lib, a: lib.linalg.diagonal(a, offset=1), [general(2, 3, 4)]),
    "vecdot": (lambda lib, a, b: lib.linalg.vecdot(a, b), [general(2, 3), general(3)]),
    "cond": (lambda lib, a: lib.linalg.cond(a), [apart(3, 3)]),
    "norm": (lambda lib, a: lib.linalg.norm(a), [general(3, 4)]),
    "norm-matrix": (lambda lib, a: lib.linalg.norm(a, "nuc"), [apart(3, 4)]),
    "norm-dims": (lambda lib, a: lib.linalg.norm(a, 1, (0, 2), True), [general(3, 2, 4)]),
    **{f"vector_norm{p}": (lambda lib, a, p=p: lib.linalg.vector_norm(a, p, dim=1, keepdim=True), [general(3, 4)])
       for p in (0.5, 1, 2, 3, math.inf, -math.inf)},
    **{f"matrix_norm{p}": (lambda lib, a, p=p: lib.linalg.matrix_norm(a, p, dim=(2, 0), keepdim=p == 2),
                           [general(3, 2, 4)]) for p in ("fro", "nuc", math.inf, -math.inf, 1, -1, 2, -2)},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_values_and_both_derivatives(name):
    function, arrays = CASES[name]
    results = []
    for lib in (tw, torch):
        x = [lib.tensor(a, requires_grad=True) for a in arrays]
        y = function(lib, *x)
        w = lib.tensor(np.random.default_rng(1).standard_normal(tuple(y.shape)))
        first = lib.autograd.grad((y * w).sum(), x, create_graph=True)
        second = lib.autograd.grad(sum((g.square() * 0.5).sum() for g in first), x, allow_unused=True) if any(
            g.requires_grad for g in first) else ()
        results.append([v.detach().numpy() for v in (y, *first)] + [
            v if v is None else (v + 0).numpy() for v in second])
    for a, b in zip(*results, strict=False):
        if a is not None and b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8 * max(1, abs(b).max(initial=0)))


def test_det_of_singular_matrices_has_cofactors_for_gradient():
    a = np.array([[[1.0, 2, 3], [2, 4, 6], [0, 1, 5]], [[1, 2, 3], [4, 5, 6], [7, 8, 10]]])
    x = tw.tensor(a, requires_grad=True)
    tw.linalg.det(x).sum().backward()
    for matrix, gradient in zip(a, x.grad.numpy(), strict=True):
        for i, j in np.ndindex(3, 3):
            minor = np.linalg.det(np.delete(np.delete(matrix, i, 0), j, 1))
            np.testing.assert_allclose(gradient[i, j], (-1) ** (i + j) * minor, atol=1e-12)


def test_what_has_no_gradient():
    a = np.concatenate([apart(3, 4), np.zeros((2, 4))])
    ours, theirs = tw.linalg.lstsq(tw.tensor(a), tw.ones(5, 2, dtype=tw.float64)), torch.linalg.matrix_rank(
        torch.tensor(a))
    assert ours.rank.item() == theirs.item() == tw.linalg.matrix_rank(tw.tensor(a)).item() == 3
    assert tw.linalg.matrix_rank(tw.tensor(a), atol=1.5).item() == 2
    u, s, vh = tw.linalg.svd(tw.tensor(a))
    assert u.shape == (5, 5) and vh.shape == (4, 4) and s.shape == (4,)
    q, r = tw.linalg.qr(tw.tensor(a), mode="complete")
    np.testing.assert_allclose((q @ r).numpy(), a, atol=1e-12)
    sign, log = tw.linalg.slogdet(tw.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert sign.item() == -1 and log.item() == 0 and math.isnan(tw.logdet(tw.tensor([[0.0, 1.0], [1.0, 0.0]])).item())
    np.testing.assert_allclose(tw.linalg.cond(tw.tensor(a[:4] + np.eye(4)), math.inf).item(),
                               torch.linalg.cond(torch.tensor(a[:4] + np.eye(4)), math.inf).item())
    out = tw.empty(2, 2)
    assert tw.linalg.inv(2 * tw.eye(2), out=out) is out and out.tolist() == [[0.5, 0], [0, 0.5]]
    assert tw.linalg.inv(tw.ones(0, 3, 3)).shape == (0, 3, 3) and tw.linalg.solve(tw.eye(2), tw.ones(2)).dtype == \
        tw.float32


@pytest.mark.parametrize("call, error, words", [
    (lambda: tw.linalg.inv(tw.zeros(2, 2)), tw.linalg.LinAlgError, r"inv: singular matrix, got \(2, 2\)"),
    (lambda: tw.linalg.inv(tw.zeros(2, 3)), ValueError, r"inv: input must be square matrices, got shape \(2, 3\)"),
    (lambda: tw.linalg.det(tw.ones(2, 2, dtype=tw.int64)), TypeError, "det: the dtype must be float32 or float64"),
    (lambda: tw.linalg.cholesky(-tw.eye(2)), tw.linalg.LinAlgError, "cholesky: .*not positive definite"),
    (lambda: tw.linalg.solve(tw.eye(2), tw.ones(3, 1)), ValueError, "solve: B must have A's dtype and rows"),
    (lambda: tw.linalg.qr(tw.eye(2), mode="full"), ValueError, "qr: mode must be"),
    (lambda: tw.linalg.matrix_norm(tw.eye(2), 3), ValueError, "matrix_norm: ord must be"),
    (lambda: tw.linalg.eig(tw.eye(2)), NotImplementedError, r"eig: .* use linalg\.eigh"),
    (lambda: tw.linalg.cross(tw.ones(2), tw.ones(2)), ValueError, "cross: sizes along dim -1 must be 3"),
    (lambda: tw.linalg.qr(tw.ones(3, 2, requires_grad=True), mode="r")[1].sum().backward(), RuntimeError,
     "qr: the factors of mode='r' have no gradient"),
])
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()
