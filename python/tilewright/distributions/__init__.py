"""Random variables under PyTorch's names: `log_prob`, `sample`, `rsample`, `entropy`, `kl_divergence`.

>>> import tilewright as tw
>>> policy = tw.distributions.Categorical(logits=tw.zeros(3))
>>> policy.log_prob(tw.tensor(1)).exp()
tensor(0.3333)
"""

from tilewright.distributions import distribution as utils
from tilewright.distributions.continuous import (
    Beta,
    Cauchy,
    Chi2,
    Dirichlet,
    Exponential,
    Gamma,
    Gumbel,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
)
from tilewright.distributions.discrete import (
    Bernoulli,
    Binomial,
    Categorical,
    Geometric,
    Multinomial,
    OneHotCategorical,
    Poisson,
)
from tilewright.distributions.distribution import Distribution, Independent
from tilewright.distributions.kl import kl_divergence, register_kl

__all__ = ["Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Chi2", "Dirichlet", "Distribution", "Exponential",
           "Gamma", "Geometric", "Gumbel", "Independent", "Laplace", "LogNormal", "Multinomial", "MultivariateNormal",
           "Normal", "OneHotCategorical", "Poisson", "StudentT", "Uniform", "kl_divergence", "register_kl", "utils"]
