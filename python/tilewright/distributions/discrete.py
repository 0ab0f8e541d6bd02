"""Distributions of counts and choices. Formulas: Johnson, Kemp & Kotz, Univariate Discrete Distributions (2005)."""

from __future__ import annotations

from typing import Any

import tilewright as tw
from tilewright.distributions.distribution import (
    Distribution,
    broadcast_all,
    clamp_probs,
    lazy_property,
    logits_to_probs,
    probs_to_logits,
)
from tilewright.nn.functional import one_hot
from tilewright.ops.maths import lgamma, xlogy
from tilewright.tensor import Tensor


class _Odds(Distribution):
    """A distribution of either `probs` or `logits`; the other is computed when asked for."""

    _binary = True
    arg_constraints = {"probs": "unit interval", "logits": "real"}  # noqa: RUF012

    def _take(self, probs: Any, logits: Any) -> Tensor:
        if (probs is None) == (logits is None):
            raise ValueError(f"{type(self).__name__}: exactly one of probs and logits must be given, got "
                             f"{'neither' if probs is None else 'both'}")
        (given,) = broadcast_all(probs if logits is None else logits)
        setattr(self, "probs" if logits is None else "logits", given)
        return given

    @lazy_property
    def probs(self) -> Tensor:
        """Probabilities."""
        return logits_to_probs(self.logits, self._binary)

    @lazy_property
    def logits(self) -> Tensor:
        """Log odds, or logarithms of probabilities."""
        return probs_to_logits(self.probs, self._binary)

    @property
    def param_shape(self) -> Any:
        return vars(self)["probs" if "probs" in vars(self) else "logits"].shape


def _softplus_pair(logits: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log(1 - p) of log odds."""
    soft = tw.nn.functional.logsigmoid
    return soft(logits), soft(-logits)


class Bernoulli(_Odds):
    """1 with probability p, else 0.

    >>> import tilewright as tw
    >>> tw.distributions.Bernoulli(0.25).log_prob(tw.tensor(1.0)).exp()
    tensor(0.2500)
    """

    has_enumerate_support = True
    support = "boolean"

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        super().__init__(self._take(probs, logits).shape, (), validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with tw.no_grad():
            return tw.bernoulli(self.probs.expand(self._extended(sample_shape)))

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return tw.where(self.probs == 0.5, float("nan"), (self.probs >= 0.5).to(self.probs.dtype))

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        yes, no = _softplus_pair(self.logits)
        return value * yes + (1 - value) * no

    def entropy(self) -> Tensor:
        yes, no = _softplus_pair(self.logits)
        return -(self.probs * yes + (1 - self.probs) * no)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = tw.arange(2, dtype=self.probs.dtype, device=self.probs.device)
        values = values.reshape(-1, *[1] * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values


class Geometric(_Odds):
    """p (1 - p)^k: failures before the first success."""

    support = "nonnegative integer"

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        super().__init__(self._take(probs, logits).shape, (), validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with tw.no_grad():
            p = self.probs.expand(self._extended(sample_shape))
            u = tw.rand(p.shape, dtype=p.dtype, device=p.device).clamp(min=tw.finfo(p.dtype).tiny)
            return (u.log() / (-p).log1p()).floor()

    @property
    def mean(self) -> Tensor:
        return 1 / self.probs - 1

    @property
    def variance(self) -> Tensor:
        return (1 / self.probs - 1) / self.probs

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        p = self.probs
        return xlogy(value, 1 - p) + p.log()

    def entropy(self) -> Tensor:
        yes, no = _softplus_pair(self.logits)
        return -(self.probs * yes + (1 - self.probs) * no) / self.probs


class Binomial(_Odds):
    """The successes among total_count trials of probability p."""

    support = "nonnegative integer"

    def __init__(self, total_count: Any = 1, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        given = self._take(probs, logits)
        count, given = broadcast_all(total_count, given)
        self.total_count = count.to(given.dtype)
        setattr(self, "probs" if logits is None else "logits", given)
        super().__init__(given.shape, (), validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with tw.no_grad():
            shape = self._extended(sample_shape)
            n = int(self.total_count.max().item()) if self.total_count.numel() else 0
            p, count = self.probs.expand(shape), self.total_count.expand(shape)
            trial = tw.arange(n, device=p.device)
            hit = tw.rand((*shape, n), dtype=p.dtype, device=p.device) < p.unsqueeze(-1)
            return (hit & (trial < count.unsqueeze(-1))).sum(-1).to(p.dtype)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def _check_value(self, value: Any) -> None:
        super()._check_value(value)
        if self._validate and not bool((value <= self.total_count).all()):
            raise ValueError(f"Binomial: the value must be at most total_count, got {value!s:.300}")

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        n, (yes, no) = self.total_count, _softplus_pair(self.logits)
        ways = lgamma(n + 1) - lgamma(value + 1) - lgamma(n - value + 1)
        return ways + value * yes + (n - value) * no


class Categorical(_Odds):
    """One of the classes 0 .. K-1, of probabilities (or their logarithms, up to a constant) in the last dimension.

    >>> import tilewright as tw
    >>> d = tw.distributions.Categorical(probs=tw.tensor([1.0, 3.0]))
    >>> d.probs
    tensor([0.2500, 0.7500])
    """

    _binary = False
    has_enumerate_support = True
    arg_constraints = {"probs": "simplex", "logits": "real"}  # noqa: RUF012
    support = "nonnegative integer"

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        given = self._take(probs, logits)
        if given.dim() < 1:
            raise ValueError(f"Categorical: {'probs' if logits is None else 'logits'} must have at least 1 dimension, "
                             f"got a 0-d tensor")
        if logits is None:
            self.probs = given / given.sum(-1, keepdim=True)
        else:
            self.logits = given - given.logsumexp(-1, keepdim=True)
        super().__init__(given.shape[:-1], (), validate_args)

    @property
    def _num_events(self) -> int:
        return self.param_shape[-1]

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with tw.no_grad():
            n = 1
            for s in sample_shape:
                n *= s
            flat = self.probs.reshape(-1, self._num_events)
            drawn = tw.multinomial(flat, n, True) if n and flat.shape[0] else tw.zeros(flat.shape[0], n, dtype=tw.int64)
            return drawn.t().reshape(self._extended(sample_shape))

    @property
    def mean(self) -> Tensor:
        return tw.full(self._extended(), float("nan"), dtype=self.probs.dtype, device=self.probs.device)

    variance = mean

    @property
    def mode(self) -> Tensor:
        return self.probs.argmax(-1)

    def _check_value(self, value: Any) -> None:
        super()._check_value(value)
        if self._validate and not bool((value < self._num_events).all()):
            raise ValueError(f"Categorical: the value must be below {self._num_events}, got {value!s:.300}")

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        shape = tw.broadcast_shapes(tuple(value.shape), tuple(self.batch_shape))
        logits = self.logits.expand(*shape, self._num_events)
        return logits.gather(-1, value.long().expand(shape).unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        least = tw.finfo(self.logits.dtype).min
        return -(self.logits.clamp(min=least) * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = tw.arange(self._num_events, device=self.probs.device).reshape(-1, *[1] * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values


class OneHotCategorical(_Odds):
    """`Categorical` whose values are one-hot vectors."""

    _binary = False
    has_enumerate_support = True
    arg_constraints = Categorical.arg_constraints
    support = "one-hot"

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        vars(self).update({k: v for k, v in vars(self._categorical).items() if k in ("probs", "logits")})
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return one_hot(self._categorical.sample(sample_shape), self.event_shape[0]).to(self.probs.dtype)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return one_hot(self._categorical.mode, self.event_shape[0]).to(self.probs.dtype)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return self._categorical.log_prob(value.argmax(-1))

    def entropy(self) -> Tensor:
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        n = self.event_shape[0]
        values = tw.eye(n, dtype=self.probs.dtype, device=self.probs.device).reshape(
            n, *[1] * len(self.batch_shape), n)
        return values.expand(n, *self.batch_shape, n) if expand else values


class Multinomial(_Odds):
    """How often each class is drawn in total_count independent draws."""

    _binary = False
    arg_constraints = Categorical.arg_constraints
    support = "nonnegative integer"

    def __init__(self, total_count: int = 1, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        if not isinstance(total_count, int):
            raise NotImplementedError(f"Multinomial: total_count must be one int for the batch, got {total_count!r}")
        self.total_count, self._categorical = total_count, Categorical(probs, logits, validate_args)
        vars(self).update({k: v for k, v in vars(self._categorical).items() if k in ("probs", "logits")})
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        drawn = self._categorical.sample((self.total_count, *sample_shape))
        return one_hot(drawn, self.event_shape[0]).sum(0).to(self.probs.dtype)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        if self._validate and not bool((value.sum(-1) == self.total_count).all()):
            raise ValueError(f"Multinomial: counts must sum to {self.total_count}, got {value!s:.300}")
        logits = self._categorical.logits
        terms = tw.where((value == 0) & (logits == -float("inf")), 0.0, logits * value)
        return lgamma(value.sum(-1) + 1) - lgamma(value + 1).sum(-1) + terms.sum(-1)


class Poisson(Distribution):
    """rate^k exp(-rate) / k!."""

    arg_constraints = {"rate": "nonnegative"}  # noqa: RUF012
    support = "nonnegative integer"

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, (), validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return tw.poisson(self.rate.detach().expand(self._extended(sample_shape)))

    @property
    def mean(self) -> Tensor:
        return self.rate

    variance = mean

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        return xlogy(value, self.rate) - self.rate - lgamma(value + 1)


__all__ = ["Bernoulli", "Binomial", "Categorical", "Geometric", "Multinomial", "OneHotCategorical", "Poisson",
           "clamp_probs"]
