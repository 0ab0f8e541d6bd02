"""Norms of gradients, and gradients kept small, over whole lists of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import tilewright as tw
from tilewright import _engine
from tilewright.autograd import no_grad, wrap
from tilewright.nn.checks import check_number
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
    norm = _norm("clip_grad_norm_", grads, norm_type, error_if_nonfinite)
    if grads:
        _scale(grads, max_norm, norm)
    return norm.to(grads[0].dtype) if grads else norm


def _norm(op: str, tensors: list[Tensor], norm_type: float, error_if_nonfinite: bool) -> Tensor:
    if not float(norm_type) > 0:
        raise ValueError(f"{op}: norm_type must be > 0, got {norm_type}")
    if not tensors:
        return tw.tensor(0.0)
    norm = wrap(_engine.grad_norm([t.array for t in tensors], float(norm_type)))
    if error_if_nonfinite and not math.isfinite(norm.item()):
        raise RuntimeError(f"{op}: the norm must be finite, got {norm.item()}")
    return norm


def _scale(grads: list[Tensor], max_norm: float, norm: Tensor) -> None:
    with no_grad():  # nothing here waits for a GPU; a NaN norm reaches the gradients, as it does in PyTorch
        _engine.grad_scale([grad.array for grad in grads], (max_norm / (norm + 1e-6)).clamp(max=1.0).array)


def get_total_norm(tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False,
                   foreach: bool | None = None) -> Tensor:
    """(sum |t|^p)^(1/p) over all elements of all tensors, as a 0-d tensor.

    Raises:
        ValueError: norm_type not above 0. RuntimeError: a norm that is not finite, if error_if_nonfinite.
    """
    listed = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    norm = _norm("get_total_norm", listed, norm_type, error_if_nonfinite)
    return norm.to(listed[0].dtype) if listed else norm


def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor,
                          foreach: bool | None = None) -> None:
    """Scales all gradients by min(1, max_norm / (total_norm + 1e-6)), for a norm known already."""
    grads = _grads(parameters)
    if grads:
        _scale(grads, float(max_norm), total_norm.to(tw.float64))


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Limits every gradient value to [-clip_value, clip_value]."""
    clip_value = float(check_number("clip_grad_value_", "clip_value", clip_value, low=0))
    with no_grad():
        for grad in _grads(parameters):
            grad.clamp_(-clip_value, clip_value)


# PyTorch's old name, which public scripts still call.
clip_grad_norm: Any = clip_grad_norm_
