"""BatchNorm (Ioffe & Szegedy 2015, arXiv:1502.03167), LayerNorm (Ba et al. 2016, arXiv:1607.06450), GroupNorm (Wu & He
2018, arXiv:1803.08494), InstanceNorm (Ulyanov et al. 2016, arXiv:1607.08022), RMSNorm (Zhang & Sennrich 2019)."""

from __future__ import annotations

from typing import Any

import tilewright as tw
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.checks import check_number, check_size
from tilewright.nn.module import Module
from tilewright.nn.parameter import empty_parameter
from tilewright.tensor import Tensor


class _NormBase(Module):
    """A norm by channel that may keep running statistics: what BatchNorm and InstanceNorm share."""

    _version = 2
    _ndims: tuple[int, ...]

    def __init__(self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
                 device: Any, dtype: Any, bias: bool) -> None:
        super().__init__()
        owner = type(self).__name__
        self.num_features = check_size(owner, "num_features", num_features)
        self.eps = check_number(owner, "eps", eps, low=0)
        self.momentum = momentum if momentum is None else check_number(owner, "momentum", momentum, 0, 1)
        self.affine, self.track_running_stats = affine, track_running_stats
        self.register_parameter("weight", empty_parameter((num_features,), device, dtype, affine))
        self.register_parameter("bias", empty_parameter((num_features,), device, dtype, affine and bias))
        kind = {"device": device, "dtype": dtype}
        self.register_buffer("running_mean", tw.zeros(num_features, **kind) if track_running_stats else None)
        self.register_buffer("running_var", tw.ones(num_features, **kind) if track_running_stats else None)
        self.register_buffer("num_batches_tracked",
                             tw.zeros((), dtype=tw.int64, device=device) if track_running_stats else None)
        self._reset_affine()

    def reset_running_stats(self) -> None:
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        self.reset_running_stats()
        self._reset_affine()

    def _reset_affine(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self._ndims:
            raise ValueError(f"{type(self).__name__}: input must have {' or '.join(map(str, self._ndims))} dimensions, "
                             f"got {tuple(input.shape)}")

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *rest: Any) -> None:
        counter = prefix + "num_batches_tracked"
        if (local_metadata.get("version") or 0) < 2 and self.track_running_stats and counter not in state_dict:
            # Checkpoints from before PyTorch 0.4.1 lack it.
            state_dict[counter] = tw.zeros((), dtype=tw.int64) if self.num_batches_tracked is None else (
                self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")

    def _label(self) -> str:
        return f"{type(self).__name__} {self.num_features}"


class _BatchNorm(_NormBase):
    """y = (x - mean_c) / sqrt(var_c + eps) * weight_c + bias_c for each channel c, over batch and positions.

    While training, mean and (biased) var are the batch's, and the running ones move towards them (var unbiased) by
    `momentum`, or with momentum=None are the plain average over all batches; in eval mode the running ones are used,
    unless track_running_stats is False.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
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


class BatchNorm1d(_BatchNorm):
    __doc__ = f"Batch normalization of (N, C) or (N, C, L): {_BatchNorm.__doc__}"
    _ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = f"Batch normalization of images (N, C, H, W): {_BatchNorm.__doc__}"
    _ndims = (4,)


class BatchNorm3d(_BatchNorm):
    __doc__ = f"Batch normalization of volumes (N, C, D, H, W): {_BatchNorm.__doc__}"
    _ndims = (5,)


class SyncBatchNorm(_BatchNorm):
    __doc__ = f"""Batch normalization of (N, C, ...) over all processes of a group. There is one process here, so that
    it is BatchNorm; `process_group` must be None. {_BatchNorm.__doc__}"""
    _ndims = (2, 3, 4, 5)

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, process_group: Any = None, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        if process_group is not None:
            raise NotImplementedError("SyncBatchNorm: process_group must be None, for tilewright trains in one process")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """`module` with every BatchNorm in it replaced by a SyncBatchNorm that holds the same tensors."""
        made = module
        if isinstance(module, _BatchNorm):
            made = cls(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats,
                       process_group)
            made.__dict__.update(module.__dict__)
        for name, child in list(module.named_children()):
            made.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return made


class _InstanceNorm(_NormBase):
    """y = (x - mean) / sqrt(var + eps) * weight_c + bias_c over the positions of each image and channel.

    With track_running_stats the running statistics move by `momentum` while training, and are used in eval mode. An
    input without the batch dimension is one image.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
                 track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        channels = input.shape[input.dim() - self._ndims[1] + 1]
        if channels != self.num_features and (self.affine or self.track_running_stats):
            raise ValueError(f"{type(self).__name__}: input must have {self.num_features} channels, got "
                             f"{tuple(input.shape)}")
        single = input.dim() == self._ndims[0]
        y = F.instance_norm(input.unsqueeze(0) if single else input, self.running_mean, self.running_var, self.weight,
                            self.bias, self.training or not self.track_running_stats, self.momentum or 0.0, self.eps)
        return y.squeeze(0) if single else y


class InstanceNorm1d(_InstanceNorm):
    __doc__ = f"Instance normalization of (N, C, L) or (C, L): {_InstanceNorm.__doc__}"
    _ndims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    __doc__ = f"Instance normalization of images (N, C, H, W) or (C, H, W): {_InstanceNorm.__doc__}"
    _ndims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    __doc__ = f"Instance normalization of volumes (N, C, D, H, W) or (C, D, H, W): {_InstanceNorm.__doc__}"
    _ndims = (4, 5)


class LocalResponseNorm(Module):
    """x / (k + alpha mean of x^2 over the `size` channels around)^beta; see F.local_response_norm."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = check_size(type(self).__name__, "size", size, 1)
        self.alpha, self.beta, self.k = alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class GroupNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight_c + bias_c over each image's num_groups groups of channels.

    Raises:
        ValueError: num_channels is not a multiple of num_groups; on a call, another number of channels.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__()
        self.num_groups = check_size("GroupNorm", "num_groups", num_groups, 1)
        self.num_channels = check_size("GroupNorm", "num_channels", num_channels)
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_channels must be a multiple of num_groups, got {num_channels} and "
                             f"{num_groups}")
        self.eps = check_number("GroupNorm", "eps", eps, low=0)
        self.affine = affine
        self.register_parameter("weight", empty_parameter((num_channels,), device, dtype, affine))
        self.register_parameter("bias", empty_parameter((num_channels,), device, dtype, affine and bias))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")

    def _label(self) -> str:
        return f"GroupNorm {self.num_groups}, {self.num_channels}"


class RMSNorm(Module):
    """y = x / sqrt(mean(x^2) + eps) * weight, over the last len(normalized_shape) dimensions.

    Raises:
        ValueError: an empty normalized_shape; on a call, an input that does not end in it.
    """

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float | None = None,
                 elementwise_affine: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.normalized_shape = _normalized_shape("RMSNorm", normalized_shape)
        self.eps = eps if eps is None else check_number("RMSNorm", "eps", eps, low=0)
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", empty_parameter(self.normalized_shape, device, dtype, elementwise_affine))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"

    def _label(self) -> str:
        return f"RMSNorm {self.normalized_shape}"


def _normalized_shape(owner: str, shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
    if not sizes:
        raise ValueError(f"{owner}: normalized_shape must have at least one dimension, got ()")
    return tuple(check_size(owner, "normalized_shape", n) for n in sizes)


class LayerNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, over the last len(normalized_shape) dimensions.

    Raises:
        ValueError: an empty normalized_shape; on a call, an input that does not end in it.
    """

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.normalized_shape = _normalized_shape("LayerNorm", normalized_shape)
        self.eps = check_number("LayerNorm", "eps", eps, low=0)
        self.elementwise_affine = elementwise_affine
        for name, wanted in (("weight", elementwise_affine), ("bias", elementwise_affine and bias)):
            self.register_parameter(name, empty_parameter(self.normalized_shape, device, dtype, wanted))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")

    def _label(self) -> str:
        return f"{type(self).__name__} {self.normalized_shape}"
