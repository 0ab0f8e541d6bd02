"""BatchNorm1d, BatchNorm2d (Ioffe & Szegedy 2015, arXiv:1502.03167), LayerNorm (Ba et al. 2016, arXiv:1607.06450)."""

from __future__ import annotations

from typing import Any

import tilewright as tw
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.checks import check_number, check_size
from tilewright.nn.module import Module
from tilewright.nn.parameter import empty_parameter
from tilewright.tensor import Tensor


class _BatchNorm(Module):
    """y = (x - mean_c) / sqrt(var_c + eps) * weight_c + bias_c for each channel c, over batch and positions.

    While training, mean and (biased) var are the batch's, and the running ones move towards them (var unbiased) by
    `momentum`, or with momentum=None are the plain average over all batches; in eval mode the running ones are used,
    unless track_running_stats is False.
    """

    _ndims: tuple[int, ...]

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        owner = type(self).__name__
        self.num_features = check_size(owner, "num_features", num_features)
        self.eps = check_number(owner, "eps", eps, low=0)
        self.momentum = momentum if momentum is None else check_number(owner, "momentum", momentum, 0, 1)
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = empty_parameter((num_features,), device, dtype) if affine else None
        self.bias = empty_parameter((num_features,), device, dtype) if affine else None
        kind = {"device": device, "dtype": dtype}
        self.register_buffer("running_mean", tw.zeros(num_features, **kind) if track_running_stats else None)
        self.register_buffer("running_var", tw.ones(num_features, **kind) if track_running_stats else None)
        self.register_buffer("num_batches_tracked",
                             tw.zeros((), dtype=tw.int64, device=device) if track_running_stats else None)
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def reset_running_stats(self) -> None:
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in self._ndims:
            raise ValueError(f"{type(self).__name__}: input must have {' or '.join(map(str, self._ndims))} dimensions, "
                             f"got {tuple(input.shape)}")
        counter = self.num_batches_tracked if self.training else None
        momentum = self.momentum
        if momentum is None:
            momentum = 0.0 if counter is None else 1.0 / (counter.item() + 1)
        use_batch = self.training or self.running_mean is None
        track = not self.training or self.track_running_stats
        output = F.batch_norm(input, self.running_mean if track else None, self.running_var if track else None,
                              self.weight, self.bias, use_batch, momentum, self.eps)
        if counter is not None:
            counter.add_(1)  # last, so that a refused input is not counted
        return output

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"track_running_stats={self.track_running_stats}")

    def _label(self) -> str:
        return f"{type(self).__name__} {self.num_features}"


class BatchNorm1d(_BatchNorm):
    __doc__ = f"Batch normalization of (N, C) or (N, C, L): {_BatchNorm.__doc__}"
    _ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = f"Batch normalization of images (N, C, H, W): {_BatchNorm.__doc__}"
    _ndims = (4,)


class LayerNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, over the last len(normalized_shape) dimensions.

    Raises:
        ValueError: an empty normalized_shape; on a call, an input that does not end in it.
    """

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        shape = tuple(normalized_shape) if hasattr(normalized_shape, "__iter__") else (normalized_shape,)
        if not shape:
            raise ValueError("LayerNorm: normalized_shape must have at least one dimension, got ()")
        self.normalized_shape = tuple(check_size("LayerNorm", "normalized_shape", n) for n in shape)
        self.eps = check_number("LayerNorm", "eps", eps, low=0)
        self.elementwise_affine = elementwise_affine
        self.weight = empty_parameter(self.normalized_shape, device, dtype) if elementwise_affine else None
        self.bias = empty_parameter(self.normalized_shape, device, dtype) if elementwise_affine and bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"

    def _label(self) -> str:
        return f"{type(self).__name__} {self.normalized_shape}"
