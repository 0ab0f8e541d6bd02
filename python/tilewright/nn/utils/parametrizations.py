"""Weight norm and spectral norm as parametrizations, under the names of `torch.nn.utils.parametrizations`."""

from __future__ import annotations

from typing import Any

from tilewright.autograd import no_grad
from tilewright.nn import functional as F
from tilewright.nn.module import Module
from tilewright.nn.utils.parametrize import register_parametrization
from tilewright.tensor import Tensor


def norm_except_dim(v: Tensor, pow: int = 2, dim: int | None = 0) -> Tensor:
    """The norm over all dimensions but `dim`, which keeps its place; over all with None or -1."""
    if dim is None or dim == -1:
        return v.norm(pow)
    moved = v.transpose(0, dim)
    rows = moved.reshape((moved.shape[0], -1)).norm(pow, 1)
    shape = [1] * v.dim()
    shape[dim] = v.shape[dim]
    return rows.reshape(shape)


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_v * (weight_g / norm_except_dim(weight_v, 2, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Splits a weight into length and direction: w = g v / |v|, the norm over all dimensions but `dim`.

    `parametrizations.weight.original0` is g and `original1` is v. Source: Salimans & Kingma, 2016 (arXiv:1602.07868).

    >>> import tilewright as tw
    >>> layer = tw.nn.utils.parametrizations.weight_norm(tw.nn.Linear(4, 3))
    >>> [(n, tuple(p.shape)) for n, p in layer.named_parameters() if "original" in n]
    [('parametrizations.weight.original0', (3, 1)), ('parametrizations.weight.original1', (3, 4))]
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class SpectralPower:
    """The two singular vectors u, v of the largest singular value, found by power iterations."""

    def __init__(self, dim: int, eps: float) -> None:
        self.dim, self.eps = dim, eps

    def matrix(self, weight: Tensor) -> Tensor:
        if self.dim:
            weight = weight.permute(self.dim, *[d for d in range(weight.dim()) if d != self.dim])
        return weight.reshape((weight.shape[0], -1))

    def start(self, weight: Tensor, steps: int = 15) -> tuple[Tensor, Tensor]:
        """Random vectors after some iterations."""
        w = self.matrix(weight.detach())
        u, v = (F.normalize(w.new_empty(n).normal_(), dim=0, eps=self.eps) for n in w.shape)
        self.iterate(w, u, v, steps)
        return u, v

    def iterate(self, matrix: Tensor, u: Tensor, v: Tensor, steps: int) -> None:
        """Moves u and v, in place, on towards the singular vectors: u first."""
        with no_grad():
            for _ in range(steps):
                u.copy_(F.normalize(matrix @ v, dim=0, eps=self.eps))
                v.copy_(F.normalize(matrix.T @ u, dim=0, eps=self.eps))


def spectral_dim(module: Module, dim: int | None) -> int:
    """The dimension of a weight's outputs: 1 for transposed convolutions."""
    return dim if dim is not None else int(type(module).__name__.startswith("ConvTranspose"))


def check_iterations(op: str, n_power_iterations: int) -> int:
    if n_power_iterations <= 0:
        raise ValueError(f"{op}: n_power_iterations must be positive, got {n_power_iterations}")
    return n_power_iterations


class _SpectralNorm(Module):
    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        self.dim = dim if dim >= 0 else dim + weight.dim()
        self.n_power_iterations = check_iterations("spectral_norm", n_power_iterations)
        self.eps = eps
        if weight.dim() > 1:
            u, v = SpectralPower(self.dim, eps).start(weight)
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.dim() == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        power = SpectralPower(self.dim, self.eps)
        matrix = power.matrix(weight)
        if self.training:
            power.iterate(matrix.detach(), self._u, self._v, self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()  # of this call: the next one's iterations change the buffers
        return weight / (u * (matrix @ v)).sum()

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  dim: int | None = None) -> Module:
    """Divides a weight by its largest singular value, estimated by power iterations: one, by default, in each call that
    trains.

    The weight is seen as a matrix whose rows are `dim` (0, or 1 for a transposed convolution).
    Source: Miyato et al., 2018 (arXiv:1802.05957).

    Raises:
        ValueError: no such tensor; n_power_iterations not positive.
    """
    weight: Any = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"spectral_norm: {type(module).__name__} has no parameter or buffer '{name}'")
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations,
                                                                spectral_dim(module, dim), eps))


def __getattr__(name: str) -> Any:
    if name == "orthogonal":
        raise NotImplementedError("parametrizations.orthogonal: not offered; use nn.init.orthogonal_, or register a "
                                  "parametrization of your own with nn.utils.parametrize.register_parametrization")
    raise AttributeError(f"module 'tilewright.nn.utils.parametrizations' has no attribute {name!r}")
