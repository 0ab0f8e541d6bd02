"""Functions over lists of parameters: clipping gradients, and moving parameters to and from one vector."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import tilewright as tw
from tilewright import _engine
from tilewright.autograd import no_grad, wrap
from tilewright.nn.checks import check_number
from tilewright.nn.utils import rnn as rnn
from tilewright.tensor import Tensor


def _grads(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    return [param.grad for param in parameters if param.grad is not None]


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False, foreach: bool | None = None) -> Tensor:
    """Scales all gradients by min(1, max_norm / (norm + 1e-6)), norm = (sum |g|^p)^(1/p) over all of them.

    Returns the norm before clipping, as a 0-d tensor. `foreach` is PyTorch's choice between two ways to compute the
    same; there is one here.

    Raises:
        ValueError: norm_type not above 0, max_norm negative or NaN.
        RuntimeError: a norm that is not finite, if error_if_nonfinite.
    """
    grads = _grads(parameters)
    max_norm = float(check_number("clip_grad_norm_", "max_norm", max_norm, low=0))
    norm_type = float(norm_type)
    if not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: norm_type must be > 0, got {norm_type}")
    if not grads:
        return tw.tensor(0.0)
    arrays = [grad.array for grad in grads]
    with no_grad():
        norm = wrap(_engine.grad_norm(arrays, norm_type))
        if error_if_nonfinite and not math.isfinite(norm.item()):
            raise RuntimeError(f"clip_grad_norm_: the norm must be finite, got {norm.item()}")
        # Nothing here waits for a GPU. A NaN norm reaches the gradients, as it does in PyTorch.
        _engine.grad_scale(arrays, (max_norm / (norm + 1e-6)).clamp(max=1.0).array)
    return norm.to(grads[0].dtype)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Limits every gradient value to [-clip_value, clip_value]."""
    clip_value = float(check_number("clip_grad_value_", "clip_value", clip_value, low=0))
    with no_grad():
        for grad in _grads(parameters):
            grad.clamp_(-clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters flattened and joined in order."""
    return tw.cat([param.reshape(-1) for param in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copies consecutive parts of `vec` into the parameters.

    Raises:
        ValueError: vec has not exactly as many values as the parameters.
    """
    params = list(parameters)
    total = sum(param.numel() for param in params)
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: vec must be a Tensor, got {type(vec).__name__}")
    if tuple(vec.shape) != (total,):
        raise ValueError(f"vector_to_parameters: vec must have shape ({total},), got {tuple(vec.shape)}")
    start = 0
    with no_grad():
        for param in params:
            param.copy_(vec[start:start + param.numel()].reshape(tuple(param.shape)))
            start += param.numel()


# PyTorch's old name, which public scripts still call.
clip_grad_norm: Any = clip_grad_norm_
