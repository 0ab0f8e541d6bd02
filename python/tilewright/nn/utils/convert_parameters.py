"""Parameters to and from one vector."""

from __future__ import annotations

from collections.abc import Iterable

import tilewright as tw
from tilewright.autograd import no_grad
from tilewright.tensor import Tensor


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
