"""Functions over lists of parameters (clipping gradients, parameters to and from one vector) and over modules."""

from __future__ import annotations

from typing import Any

import tilewright as tw
from tilewright.nn.utils import clip_grad, convert_parameters, parametrizations, parametrize, prune, rnn
from tilewright.nn.utils.clip_grad import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from tilewright.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from tilewright.nn.utils.fusion import (
    fuse_conv_bn_eval,
    fuse_conv_bn_weights,
    fuse_linear_bn_eval,
    fuse_linear_bn_weights,
)
from tilewright.nn.utils.reparametrize import (
    remove_spectral_norm,
    remove_weight_norm,
    spectral_norm,
    weight_norm,
)


def skip_init(module_cls: Any, *args: Any, **kwargs: Any) -> Any:
    """module_cls(*args, **kwargs) with its parameters left as the memory was, for weights that are loaded next.

    >>> from tilewright import nn
    >>> nn.utils.skip_init(nn.Linear, 3, 2)
    Linear(in_features=3, out_features=2, bias=True)
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, tw.nn.Module)):
        raise ValueError(f"skip_init: module_cls must be a Module class, got {module_cls!r}")
    with tw.nn.init.skipped():
        return module_cls(*args, **kwargs)


__all__ = [
    "clip_grad", "clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_",
    "convert_parameters", "fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval",
    "fuse_linear_bn_weights", "get_total_norm", "parameters_to_vector", "parametrizations", "parametrize", "prune",
    "remove_spectral_norm", "remove_weight_norm", "rnn", "skip_init", "spectral_norm", "vector_to_parameters",
    "weight_norm",
]
