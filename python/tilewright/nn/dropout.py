"""Dropout of values, of channels and of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tilewright.nn import functional as F
from tilewright.nn.checks import check_number
from tilewright.nn.module import Module
from tilewright.tensor import Tensor


class _DropoutNd(Module):
    _function: Callable

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = check_number(type(self).__name__, "p", p, 0, 1)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd):
    """While training, zeroes each value with probability p and multiplies the rest by 1 / (1 - p).

    Raises:
        ValueError: p outside [0, 1].
    """

    _function = F.dropout


class Dropout1d(_DropoutNd):
    """Zeroes whole channels of (N, C, L) with probability p while training."""

    _function = F.dropout1d


class Dropout2d(_DropoutNd):
    """Zeroes whole channels of (N, C, H, W) with probability p while training."""

    _function = F.dropout2d


class Dropout3d(_DropoutNd):
    """Zeroes whole channels of (N, C, D, H, W) with probability p while training."""

    _function = F.dropout3d


class AlphaDropout(_DropoutNd):
    """While training, sets values to SELU's lower limit with probability p, and keeps mean 0 and variance 1."""

    _function = F.alpha_dropout


class FeatureAlphaDropout(_DropoutNd):
    """AlphaDropout of whole channels of (N, C, ...)."""

    _function = F.feature_alpha_dropout


class DropConnect(Module):
    """Runs `module` with dropped weights: while training, each value of the parameters `names` is 0 with probability p
    and the rest is multiplied by 1 / (1 - p), anew in each call; in evaluation the module runs as it is.

    `names` are those of parameters that the module itself holds; by default all that begin with "weight". The wrapped
    module stays in `.module`, so that its parameters keep their names behind "module.".

    Raises:
        ValueError: p outside [0, 1]. AttributeError: a name that is no parameter of the module.

    Source: Wan et al., Regularization of neural networks using DropConnect, 2013; for the hidden weights of an LSTM
    (`names=["weight_hh_l0"]`) Merity et al., 2017 (arXiv:1708.02182).

    >>> import tilewright as tw
    >>> layer = tw.nn.DropConnect(tw.nn.Linear(4, 3), p=1.0)
    >>> bool((layer(tw.ones(2, 4)) == layer.module.bias).all())
    True
    """

    def __init__(self, module: Module, p: float = 0.5, names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.p = check_number("DropConnect", "p", p, 0, 1)
        self.module = module
        self.names = [n for n in module._parameters if n.startswith("weight")] if names is None else list(names)
        for name in self.names:
            module.get_parameter(name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        held: dict[str, Any] = self.module._parameters
        kept = {name: held[name] for name in self.names}
        try:
            held.update({name: F.dropout(weight, self.p, self.training) for name, weight in kept.items()})
            return self.module(*args, **kwargs)
        finally:
            held.update(kept)

    def extra_repr(self) -> str:
        return f"p={self.p}, names={self.names}"
