"""kl_divergence(p, q): the expectation under p of log p - log q, by formulas for pairs of classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tilewright as tw
from tilewright import linalg
from tilewright.distributions import continuous as c
from tilewright.distributions import discrete as d
from tilewright.distributions.distribution import Distribution, Independent
from tilewright.ops.maths import digamma, lgamma
from tilewright.tensor import Tensor

_RULES: dict[tuple[type, type], Callable] = {}


def register_kl(type_p: type, type_q: type) -> Callable:
    """Decorator: the function is the divergence of these classes and of their subclasses."""
    def mark(function: Callable) -> Callable:
        _RULES[type_p, type_q] = function
        return function

    return mark


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The Kullback-Leibler divergence of q from p, for each of the batch.

    Raises:
        NotImplementedError: no formula is known for the pair.

    >>> import tilewright as tw
    >>> N = tw.distributions.Normal
    >>> tw.distributions.kl_divergence(N(1.0, 1.0), N(0.0, 1.0)).item()
    0.5
    """
    matches = [(a, b) for a, b in _RULES if isinstance(p, a) and isinstance(q, b)]
    if not matches:
        raise NotImplementedError(f"kl_divergence: no formula for {type(p).__name__} and {type(q).__name__}; register "
                                  f"one with register_kl")
    best = min(matches, key=lambda pair: (type(p).__mro__.index(pair[0]), type(q).__mro__.index(pair[1])))
    return _RULES[best](p, q)


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("kl_divergence: Independent distributions must join as many dimensions, got "
                                  f"{p.reinterpreted_batch_ndims} and {q.reinterpreted_batch_ndims}")
    return p._sum(kl_divergence(p.base_dist, q.base_dist))


@register_kl(c.Normal, c.Normal)
def _normal(p: Any, q: Any) -> Tensor:
    ratio = (p.scale / q.scale).square()
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).square() - 1 - ratio.log())


@register_kl(c.Laplace, c.Laplace)
def _laplace(p: Any, q: Any) -> Tensor:
    gap, ratio = (p.loc - q.loc).abs(), p.scale / q.scale
    return -ratio.log() + gap / q.scale + ratio * (-gap / p.scale).exp() - 1


@register_kl(c.Cauchy, c.Cauchy)
def _cauchy(p: Any, q: Any) -> Tensor:
    return (((p.scale + q.scale).square() + (p.loc - q.loc).square()) / (4 * p.scale * q.scale)).log()


@register_kl(c.Uniform, c.Uniform)
def _uniform(p: Any, q: Any) -> Tensor:
    inside = (q.low <= p.low) & (q.high >= p.high)
    return tw.where(inside, ((q.high - q.low) / (p.high - p.low)).log(), math.inf)


@register_kl(c.Exponential, c.Exponential)
def _exponential(p: Any, q: Any) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - ratio.log()


@register_kl(c.Gamma, c.Gamma)
def _gamma(p: Any, q: Any) -> Tensor:
    a, b = p.concentration, q.concentration
    return (b * (p.rate / q.rate).log() + lgamma(b) - lgamma(a) + (a - b) * digamma(a) +
            (q.rate - p.rate) * (a / p.rate))


@register_kl(c.Dirichlet, c.Dirichlet)
def _dirichlet(p: Any, q: Any) -> Tensor:
    a, b = p.concentration, q.concentration
    total = a.sum(-1, keepdim=True)
    return (lgamma(a.sum(-1)) - lgamma(b.sum(-1)) - (lgamma(a) - lgamma(b)).sum(-1) +
            ((a - b) * (digamma(a) - digamma(total))).sum(-1))


@register_kl(c.Beta, c.Beta)
def _beta(p: Any, q: Any) -> Tensor:
    return _dirichlet(p._pair(), q._pair())


@register_kl(c.MultivariateNormal, c.MultivariateNormal)
def _multivariate_normal(p: Any, q: Any) -> Tensor:
    n = p.loc.shape[-1]
    gap = linalg.solve_triangular(q.scale_tril, (q.loc - p.loc).unsqueeze(-1), upper=False).squeeze(-1)
    spread = linalg.solve_triangular(q.scale_tril, p.scale_tril, upper=False)
    return (q._half_log_det() - p._half_log_det() +
            0.5 * (spread.square().sum((-2, -1)) + gap.square().sum(-1) - n))


@register_kl(d.Bernoulli, d.Bernoulli)
def _bernoulli(p: Any, q: Any) -> Tensor:
    x, y = p.probs, q.probs
    yes = tw.where(x == 0, 0.0, x * (x / y).log())
    no = tw.where(x == 1, 0.0, (1 - x) * ((1 - x) / (1 - y)).log())
    return yes + no


@register_kl(d.Binomial, d.Binomial)
def _binomial(p: Any, q: Any) -> Tensor:
    if bool((p.total_count != q.total_count).any()):
        raise NotImplementedError("kl_divergence: Binomial distributions must have the same total_count")
    return p.total_count * _bernoulli(p, q)


@register_kl(d.Geometric, d.Geometric)
def _geometric(p: Any, q: Any) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(d.Categorical, d.Categorical)
def _categorical(p: Any, q: Any) -> Tensor:
    terms = p.probs * (p.logits - q.logits)
    terms = tw.where(q.probs == 0, math.inf, terms)
    return tw.where(p.probs == 0, 0.0, terms).sum(-1)


@register_kl(d.OneHotCategorical, d.OneHotCategorical)
def _one_hot(p: Any, q: Any) -> Tensor:
    return _categorical(p._categorical, q._categorical)


@register_kl(d.Poisson, d.Poisson)
def _poisson(p: Any, q: Any) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)
