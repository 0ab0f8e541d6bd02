"""Special functions, under the names of `torch.special`."""

from __future__ import annotations

from tilewright import erf, exp2, expm1, log1p, log_softmax, logsumexp, round, sigmoid, softmax
from tilewright.ops.maths import digamma, erfc, erfinv, logit, polygamma, sinc, xlogy
from tilewright.ops.maths import lgamma as gammaln
from tilewright.ops.maths import mvlgamma as multigammaln

expit, psi = sigmoid, digamma

__all__ = ["digamma", "erf", "erfc", "erfinv", "exp2", "expit", "expm1", "gammaln", "log1p", "log_softmax", "logit",
           "logsumexp", "multigammaln", "polygamma", "psi", "round", "sinc", "softmax", "xlogy"]
