"""Distributions of real numbers and vectors. Formulas: Johnson, Kotz & Balakrishnan, Continuous Univariate
Distributions (1994); Gamma variates by Marsaglia & Tsang 2000."""

from __future__ import annotations

import math
from typing import Any

import tilewright as tw
from tilewright import linalg
from tilewright.distributions.distribution import LOG_2PI, Distribution, broadcast_all
from tilewright.ops.maths import digamma, erfinv, lgamma, xlogy
from tilewright.tensor import Tensor


def _uniform(like: Tensor, shape: tuple) -> Tensor:
    """Uniform numbers in (0, 1): logarithms of them and of their complements are finite."""
    tiny = tw.finfo(like.dtype).tiny
    return tw.rand(shape, dtype=like.dtype, device=like.device).clamp(min=tiny)


class _LocationScale(Distribution):
    has_rsample = True
    arg_constraints = {"loc": "real", "scale": "positive"}  # noqa: RUF012

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, (), validate_args)

    def _standard(self, shape: tuple) -> Tensor:
        raise NotImplementedError

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """loc + scale * noise: gradients reach both parameters."""
        with tw.no_grad():
            noise = self._standard(self._extended(sample_shape))
        return self.loc + self.scale * noise

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc


class Normal(_LocationScale):
    """exp(-(x - loc)^2 / (2 scale^2)) / (scale sqrt(2 pi)).

    >>> import tilewright as tw
    >>> d = tw.distributions.Normal(tw.zeros(2), 1.0)
    >>> d.log_prob(tw.zeros(2))
    tensor([-0.9189, -0.9189])
    """

    def _standard(self, shape: tuple) -> Tensor:
        return tw.randn(shape, dtype=self.loc.dtype, device=self.loc.device)

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return -((value - self.loc) / self.scale).square() / 2 - self.scale.log() - LOG_2PI / 2

    def cdf(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return 0.5 * (1 + tw.erf((value - self.loc) / (self.scale * math.sqrt(2))))

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self) -> Tensor:
        return 0.5 + LOG_2PI / 2 + self.scale.log()


class LogNormal(Normal):
    """exp of a normal number."""

    support = "positive"

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return super().rsample(sample_shape).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        log = value.log()
        return -((log - self.loc) / self.scale).square() / 2 - self.scale.log() - LOG_2PI / 2 - log

    def cdf(self, value: Tensor) -> Tensor:
        return 0.5 * (1 + tw.erf((value.log() - self.loc) / (self.scale * math.sqrt(2))))

    def icdf(self, value: Tensor) -> Tensor:
        return super().icdf(value).exp()

    @property
    def mean(self) -> Tensor:
        return (self.loc + self.scale.square() / 2).exp()

    @property
    def mode(self) -> Tensor:
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        squared = self.scale.square()
        return squared.expm1() * (2 * self.loc + squared).exp()

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    def entropy(self) -> Tensor:
        return super().entropy() + self.loc


class Laplace(_LocationScale):
    """exp(-|x - loc| / scale) / (2 scale)."""

    def _standard(self, shape: tuple) -> Tensor:
        u = _uniform(self.loc, shape) * 2 - 1
        return -u.sign() * (-u.abs()).clamp(min=-1 + tw.finfo(u.dtype).eps).log1p()

    @property
    def variance(self) -> Tensor:
        return 2 * self.scale.square()

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return -(2 * self.scale).log() - (value - self.loc).abs() / self.scale

    def cdf(self, value: Tensor) -> Tensor:
        self._check_value(value)
        gap = value - self.loc
        return 0.5 - 0.5 * gap.sign() * (-gap.abs() / self.scale).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc - self.scale * (value - 0.5).sign() * (-2 * (value - 0.5).abs()).log1p()

    def entropy(self) -> Tensor:
        return 1 + (2 * self.scale).log()


class Cauchy(_LocationScale):
    """1 / (pi scale (1 + ((x - loc) / scale)^2)): it has no mean."""

    def _standard(self, shape: tuple) -> Tensor:
        return ((_uniform(self.loc, shape) - 0.5) * math.pi).tan()

    @property
    def mean(self) -> Tensor:
        return tw.full_like(self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        return tw.full_like(self.loc, math.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return -math.log(math.pi) - self.scale.log() - ((value - self.loc) / self.scale).square().log1p()

    def cdf(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return ((value - self.loc) / self.scale).atan() / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        return (math.pi * (value - 0.5)).tan() * self.scale + self.loc

    def entropy(self) -> Tensor:
        return math.log(4 * math.pi) + self.scale.log()


class Gumbel(_LocationScale):
    """The largest of many: exp(-z - exp(-z)) / scale, z = (x - loc) / scale."""

    def _standard(self, shape: tuple) -> Tensor:
        u = _uniform(self.loc, shape)
        return -(-u.clamp(max=1 - tw.finfo(u.dtype).eps / 2).log()).log()

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * 0.5772156649015329

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * (math.pi**2 / 6)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        z = (value - self.loc) / self.scale
        return -z - (-z).exp() - self.scale.log()

    def entropy(self) -> Tensor:
        return self.scale.log() + (1 + 0.5772156649015329)


class Uniform(Distribution):
    """1 / (high - low) in [low, high)."""

    has_rsample = True
    arg_constraints = {"low": "real", "high": "real"}  # noqa: RUF012

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = broadcast_all(low, high)
        super().__init__(self.low.shape, (), validate_args)
        if self._validate and not bool((self.low < self.high).all()):
            raise ValueError(f"Uniform: low must be below high, got {self.low.detach()} and {self.high.detach()}")

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = tw.rand(self._extended(sample_shape), dtype=self.low.dtype, device=self.low.device)
        return self.low + u * (self.high - self.low)

    @property
    def mean(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def mode(self) -> Tensor:
        return self.high * math.nan

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low).square() / 12

    def _check_value(self, value: Any) -> None:
        super()._check_value(value)
        if self._validate and not bool(((value >= self.low) & (value <= self.high)).all()):
            raise ValueError(f"Uniform: the value must be in [low, high], got {value.detach()!s:.300}")

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        inside = ((value >= self.low) & (value < self.high)).to(self.low.dtype)
        return inside.log() - (self.high - self.low).log()

    def cdf(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        return self.low + value * (self.high - self.low)

    def entropy(self) -> Tensor:
        return (self.high - self.low).log()


class Exponential(Distribution):
    """rate exp(-rate x), x >= 0."""

    has_rsample = True
    arg_constraints = {"rate": "positive"}  # noqa: RUF012
    support = "nonnegative"

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, (), validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = tw.rand(self._extended(sample_shape), dtype=self.rate.dtype, device=self.rate.device)
        return -(-u).log1p() / self.rate

    @property
    def mean(self) -> Tensor:
        return self.rate.reciprocal()

    @property
    def mode(self) -> Tensor:
        return tw.zeros_like(self.rate)

    @property
    def variance(self) -> Tensor:
        return self.rate.pow(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return -(-self.rate * value).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        return -(-value).log1p() / self.rate

    def entropy(self) -> Tensor:
        return 1 - self.rate.log()


def _standard_gamma(shape: Tensor) -> Tensor:
    """Gamma variates of rate 1: d v, v = (1 + c x)^3 of a normal x, accepted by its density's ratio, d = shape - 1/3,
    c = 1 / sqrt(9 d); a shape below 1 by the variate of shape + 1 times u^(1 / shape)."""
    small = shape < 1
    d = tw.where(small, shape + 1, shape) - 1 / 3
    c = (9 * d).rsqrt()
    result, open_ = tw.zeros_like(d), tw.ones_like(d, dtype=tw.bool)
    while bool(open_.any()):
        x, u = tw.randn_like(d), _uniform(d, d.shape)
        v = (1 + c * x) ** 3
        good = (v > 0) & (u.log() < x.square() / 2 + d - d * v + d * v.clamp(min=1e-30).log())
        result = tw.where(open_ & good, d * v, result)
        open_ = open_ & ~good
    return tw.where(small, result * _uniform(d, d.shape) ** (1 / shape), result).clamp(min=tw.finfo(d.dtype).tiny)


class Gamma(Distribution):
    """rate^a x^(a - 1) exp(-rate x) / Gamma(a), a = concentration, x > 0."""

    arg_constraints = {"concentration": "positive", "rate": "positive"}  # noqa: RUF012
    support = "nonnegative"

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, (), validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with tw.no_grad():
            shape = self._extended(sample_shape)
            return _standard_gamma(self.concentration.expand(shape)) / self.rate.expand(shape)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate.square()

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        a, rate = self.concentration, self.rate
        return xlogy(a, rate) + xlogy(a - 1, value) - rate * value - lgamma(a)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - self.rate.log() + lgamma(a) + (1 - a) * digamma(a)


class Chi2(Gamma):
    """The sum of df squared normal numbers."""

    arg_constraints = {"df": "positive"}  # noqa: RUF012

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        (self.df,) = broadcast_all(df)
        super().__init__(0.5 * self.df, 0.5, validate_args)


class Dirichlet(Distribution):
    """prod x_i^(a_i - 1) Gamma(sum a) / prod Gamma(a_i) over vectors of positive numbers whose sum is 1."""

    arg_constraints = {"concentration": "positive"}  # noqa: RUF012
    support = "simplex"

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if concentration.dim() < 1:
            raise ValueError("Dirichlet: concentration must have at least 1 dimension, got a 0-d tensor")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with tw.no_grad():
            x = _standard_gamma(self.concentration.expand(self._extended(sample_shape)))
            return x / x.sum(-1, keepdim=True)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def mode(self) -> Tensor:
        above = (self.concentration - 1).clamp(min=0)
        corner = tw.nn.functional.one_hot(self.concentration.argmax(-1), above.shape[-1]).to(above.dtype)
        inside = (self.concentration >= 1).any(-1, keepdim=True)
        return tw.where(inside, above / above.sum(-1, keepdim=True), corner)

    @property
    def variance(self) -> Tensor:
        total, mean = self.concentration.sum(-1, keepdim=True), self.mean
        return mean * (1 - mean) / (total + 1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        a = self.concentration
        return xlogy(a - 1, value).sum(-1) + lgamma(a.sum(-1)) - lgamma(a).sum(-1)

    def entropy(self) -> Tensor:
        a, total, k = self.concentration, self.concentration.sum(-1), self.concentration.shape[-1]
        return (lgamma(a).sum(-1) - lgamma(total) - (k - total) * digamma(total) -
                ((a - 1) * digamma(a)).sum(-1))


class Beta(Distribution):
    """x^(a - 1) (1 - x)^(b - 1) Gamma(a + b) / (Gamma(a) Gamma(b)) in [0, 1]."""

    arg_constraints = {"concentration1": "positive", "concentration0": "positive"}  # noqa: RUF012
    support = "unit interval"

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, (), validate_args)

    def _pair(self) -> Dirichlet:
        return Dirichlet(tw.stack([self.concentration1, self.concentration0], -1), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self._pair().sample(sample_shape)[..., 0]

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        return self._pair().mode[..., 0]

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total.square() * (total + 1))

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return self._pair().log_prob(tw.stack([value, 1 - value], -1))

    def entropy(self) -> Tensor:
        return self._pair().entropy()


class MultivariateNormal(Distribution):
    """exp(-(x - loc)^T C^-1 (x - loc) / 2) / sqrt(det(2 pi C)), C given as covariance_matrix, precision_matrix (its
    inverse) or scale_tril (its Cholesky factor).

    Raises:
        ValueError: not exactly one of the three.
    """

    has_rsample = True
    arg_constraints = {"loc": "real"}  # noqa: RUF012

    def __init__(self, loc: Tensor, covariance_matrix: Tensor | None = None, precision_matrix: Tensor | None = None,
                 scale_tril: Tensor | None = None, validate_args: bool | None = None) -> None:
        given = [m for m in (covariance_matrix, precision_matrix, scale_tril) if m is not None]
        if len(given) != 1:
            raise ValueError(f"MultivariateNormal: exactly one of covariance_matrix, precision_matrix and scale_tril "
                             f"must be given, got {len(given)}")
        if loc.dim() < 1 or given[0].dim() < 2 or given[0].shape[-2:] != (loc.shape[-1],) * 2:
            raise ValueError(f"MultivariateNormal: loc must be (..., N) and the matrix (..., N, N), got "
                             f"{tuple(loc.shape)} and {tuple(given[0].shape)}")
        batch = tw.broadcast_shapes(loc.shape[:-1], given[0].shape[:-2])
        self.loc = loc.expand(*batch, loc.shape[-1])
        if scale_tril is not None:
            tril = scale_tril
        elif covariance_matrix is not None:
            tril = linalg.cholesky(covariance_matrix)
        else:
            tril = linalg.cholesky(linalg.inv(given[0]))
        self.scale_tril = tril.expand(*batch, *tril.shape[-2:])
        super().__init__(batch, loc.shape[-1:], validate_args)

    @property
    def covariance_matrix(self) -> Tensor:
        """L L^T, L = scale_tril."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        return linalg.cholesky_inverse(self.scale_tril)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = tw.randn(self._extended(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale_tril.square().sum(-1)

    def _half_log_det(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        gap = (value - self.loc).unsqueeze(-1)
        batch = gap.shape[:-2]
        white = linalg.solve_triangular(self.scale_tril.expand(*batch, *self.scale_tril.shape[-2:]), gap, upper=False)
        distance = white.squeeze(-1).square().sum(-1)
        return -0.5 * (self.loc.shape[-1] * LOG_2PI + distance) - self._half_log_det()

    def entropy(self) -> Tensor:
        return 0.5 * self.loc.shape[-1] * (1 + LOG_2PI) + self._half_log_det()


class StudentT(_LocationScale):
    """A normal number over the root of a Chi2(df) one by df."""

    has_rsample = False
    arg_constraints = {"df": "positive", "loc": "real", "scale": "positive"}  # noqa: RUF012

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, loc, scale = broadcast_all(df, loc, scale)
        super().__init__(loc, scale, validate_args)

    def _standard(self, shape: tuple) -> Tensor:
        df = self.df.expand(shape)
        return tw.randn(shape, dtype=df.dtype, device=df.device) * (df / (2 * _standard_gamma(df / 2))).sqrt()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        if tw.is_grad_enabled():
            return Distribution.rsample(self, sample_shape)
        return super().rsample(sample_shape)

    @property
    def mean(self) -> Tensor:
        return tw.where(self.df > 1, self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        known = tw.where(self.df > 2, self.scale.square() * self.df / (self.df - 2), math.inf)
        return tw.where(self.df > 1, known, math.nan)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        z = (value - self.loc) / self.scale
        norm = self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi) + lgamma(self.df / 2) - lgamma(
            (self.df + 1) / 2)
        return -0.5 * (self.df + 1) * (z.square() / self.df).log1p() - norm
