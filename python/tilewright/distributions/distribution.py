"""What all distributions share: shapes, checks of parameters and values, samples, moments."""

from __future__ import annotations

import math
from typing import Any

import tilewright as tw
from tilewright.tensor import Tensor

_CHECKS: dict[str, Any] = {
    "real": lambda x: x == x,
    "positive": lambda x: x > 0,
    "nonnegative": lambda x: x >= 0,
    "unit interval": lambda x: (x >= 0) & (x <= 1),
    "boolean": lambda x: (x == 0) | (x == 1),
    "nonnegative integer": lambda x: (x >= 0) & (x == x.floor() if x.is_floating_point() else x >= 0),
    "simplex": lambda x: (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() < 1e-6 * max(1, x.shape[-1])),
    "one-hot": lambda x: ((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1),
}


class lazy_property:
    """A property computed once: the second of `probs` and `logits`."""

    def __init__(self, function: Any) -> None:
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        value = self.function(instance)
        setattr(instance, self.function.__name__, value)
        return value


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape; numbers take the tensors' dtype and device."""
    tensors = [v for v in values if isinstance(v, Tensor)]
    dtype = tensors[0].dtype if tensors else tw.get_default_dtype()
    made = [v if isinstance(v, Tensor) else tw.tensor(v, dtype=dtype, device=tensors[0].device if tensors else None)
            for v in values]
    return tw.broadcast_tensors(*made)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities of log odds (binary), or of logarithms of weights."""
    return tw.sigmoid(logits) if is_binary else tw.softmax(logits, -1)


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities kept off 0 and 1 by the dtype's eps."""
    eps = tw.finfo(probs.dtype).eps
    return probs.clamp(eps, 1 - eps)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """The inverse of `logits_to_probs`."""
    p = clamp_probs(probs)
    return p.log() - (-p).log1p() if is_binary else p.log()


class Distribution:
    """Random values: `batch_shape` independent distributions, each of values of shape `event_shape`.

    `sample` draws without gradient, `rsample` (where `has_rsample`) through a transformation of noise, so that
    gradients reach the parameters (Kingma & Welling 2014, arXiv:1312.6114).
    """

    has_rsample = has_enumerate_support = False
    arg_constraints: dict[str, str] = {}  # noqa: RUF012
    support = "real"

    def __init__(self, batch_shape: Any = (), event_shape: Any = (), validate_args: bool | None = None) -> None:
        self.batch_shape, self.event_shape = tw.Size(batch_shape), tw.Size(event_shape)
        self._validate = validate_args is not False
        if self._validate:
            for name, rule in self.arg_constraints.items():
                if name in vars(self):
                    self._check(name, rule, vars(self)[name])

    def _check(self, name: str, rule: str, value: Any) -> None:
        value = value if isinstance(value, Tensor) else tw.as_tensor(value)
        if not bool(_CHECKS[rule](value.detach()).all()):
            raise ValueError(f"{type(self).__name__}: {name} must be {rule}, got {value.detach().cpu()!s:.300}")

    def _check_value(self, value: Any) -> None:
        if not self._validate:
            return
        if not isinstance(value, Tensor):
            raise TypeError(f"{type(self).__name__}: the value must be a Tensor, got {type(value).__name__}")
        n = len(self.event_shape)
        if n and tuple(value.shape[-n:]) != tuple(self.event_shape):
            raise ValueError(f"{type(self).__name__}: values must end in event_shape {tuple(self.event_shape)}, got "
                             f"{tuple(value.shape)}")
        tw.broadcast_shapes(tuple(value.shape)[:value.dim() - n], tuple(self.batch_shape))
        self._check("the value", self.support, value)

    def _extended(self, sample_shape: Any = ()) -> tuple:
        return (*sample_shape, *self.batch_shape, *self.event_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        """The distribution for a larger batch, as views of its parameters."""
        made = object.__new__(type(self))
        n = len(self.batch_shape)
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and tuple(value.shape[:n]) == tuple(self.batch_shape):
                value = value.expand(*batch_shape, *value.shape[n:])
            elif isinstance(value, Distribution):
                value = value.expand(batch_shape)
            setattr(made, name, value)
        made.batch_shape = tw.Size(batch_shape)
        return made

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Values of shape sample_shape + batch_shape + event_shape, without gradient."""
        with tw.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Values of shape sample_shape + batch_shape + event_shape, through which gradients reach the parameters."""
        raise NotImplementedError(f"{type(self).__name__}: rsample is not offered; use sample, and log_prob for the "
                                  f"gradient of an expectation")

    def sample_n(self, n: int) -> Tensor:
        """`sample((n,))`."""
        return self.sample((n,))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability, or of its density, of values (..., batch_shape, event_shape)."""
        raise NotImplementedError(f"{type(self).__name__}: log_prob is not offered")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value at most as large."""
        raise NotImplementedError(f"{type(self).__name__}: cdf is not offered")

    def icdf(self, value: Tensor) -> Tensor:
        """The value with that cumulative probability: `cdf` turned round."""
        raise NotImplementedError(f"{type(self).__name__}: icdf is not offered")

    def entropy(self) -> Tensor:
        """The mean of -log_prob, of shape batch_shape, in nats."""
        raise NotImplementedError(f"{type(self).__name__}: entropy is not offered")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every value there is, (n, batch_shape): where `has_enumerate_support`."""
        raise NotImplementedError(f"{type(self).__name__}: its values cannot be enumerated")

    def perplexity(self) -> Tensor:
        """exp(entropy): how many equally likely values are as hard to guess."""
        return self.entropy().exp()

    @property
    def mean(self) -> Tensor:
        """Of shape batch_shape + event_shape, as the others."""
        raise NotImplementedError(f"{type(self).__name__}: mean is not offered")

    @property
    def mode(self) -> Tensor:
        """The likeliest value."""
        raise NotImplementedError(f"{type(self).__name__}: mode is not offered")

    @property
    def variance(self) -> Tensor:
        """The mean of the squared distance to the mean."""
        raise NotImplementedError(f"{type(self).__name__}: variance is not offered")

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return self.variance.sqrt()

    def __repr__(self) -> str:
        shown = [f"{k}: {v if not v.dim() else tuple(v.shape)}" for k, v in vars(self).items()
                 if k in self.arg_constraints and isinstance(v, Tensor)]
        return f"{type(self).__name__}({', '.join(shown)})"


class Independent(Distribution):
    """A distribution whose last `reinterpreted_batch_ndims` batch dimensions count as one event."""

    def __init__(self, base_distribution: Distribution, reinterpreted_batch_ndims: int,
                 validate_args: bool | None = None) -> None:
        n = reinterpreted_batch_ndims
        if not 0 <= n <= len(base_distribution.batch_shape):
            raise ValueError(f"Independent: reinterpreted_batch_ndims must be at most "
                             f"{len(base_distribution.batch_shape)} and not negative, got {n}")
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, n
        shape, cut = tuple(base_distribution.batch_shape), len(base_distribution.batch_shape) - n
        self.has_rsample, self.support = base_distribution.has_rsample, base_distribution.support
        super().__init__(shape[:cut], shape[cut:] + tuple(base_distribution.event_shape), validate_args)

    def _sum(self, x: Tensor) -> Tensor:
        n = self.reinterpreted_batch_ndims
        return x.sum(tuple(range(-n, 0))) if n else x

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        events = tuple(self.event_shape)[:self.reinterpreted_batch_ndims]
        return Independent(self.base_dist.expand((*batch_shape, *events)), self.reinterpreted_batch_ndims)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._sum(self.base_dist.log_prob(value))

    def entropy(self) -> Tensor:
        return self._sum(self.base_dist.entropy())

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def __repr__(self) -> str:
        return f"Independent({self.base_dist!r}, {self.reinterpreted_batch_ndims})"


LOG_2PI = math.log(2 * math.pi)
