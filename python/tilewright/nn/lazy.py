"""Layers that learn the size of their input from the first one they see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tilewright as tw
from tilewright.nn import conv, norm
from tilewright.nn.linear import Linear
from tilewright.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

Sizes = int | Sequence[int]
_PARAMETERS, _STATISTICS = ("weight", "bias"), ("running_mean", "running_var")


class LazyModuleMixin:
    """A layer whose parameters get their shape in the first call, from which on it is an ordinary `cls_to_become`."""

    cls_to_become: Any = None

    def _make_lazy(self: Any, bias: bool, device: Any, dtype: Any) -> None:
        kind = {"device": device, "dtype": dtype}
        for name in _PARAMETERS[:2 if bias else 1]:
            setattr(self, name, UninitializedParameter(**kind))
        self.__dict__["_size_hook"] = self.register_forward_pre_hook(type(self)._see)

    def has_uninitialized_params(self: Any) -> bool:
        return any(is_lazy(t) for t in (*self._parameters.values(), *self._buffers.values()))

    def _see(self: Any, args: tuple) -> None:
        self._set_size(args[0])
        self.__dict__.pop("_size_hook").remove()
        self.__class__ = self.cls_to_become

    def _set_size(self: Any, input: tw.Tensor) -> None:
        raise NotImplementedError

    def _shape_all(self: Any, shapes: dict[str, tuple[int, ...]]) -> None:
        fresh = self.has_uninitialized_params()
        for name, shape in shapes.items():
            held = getattr(self, name)
            if is_lazy(held):
                held.materialize(shape)
        if fresh:
            self.reset_parameters()

    def reset_parameters(self: Any) -> None:
        """Sets the parameters anew, as when the layer was made."""
        if not self.has_uninitialized_params():
            super().reset_parameters()  # type: ignore[misc]

    def _save_to_state_dict(self: Any, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[misc]
        destination.update((prefix + name, t) for name, _, t in self._own_state() if is_lazy(t))

    def _load_from_state_dict(self: Any, state_dict: dict, prefix: str, *rest: Any) -> None:
        for name, _, held in self._own_state():
            given = state_dict.get(prefix + name)
            if is_lazy(held) and isinstance(given, tw.Tensor) and not is_lazy(given):
                held.materialize(tuple(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[misc]


class LazyLinear(LazyModuleMixin, Linear):
    """Linear whose in_features is the last size of its first input.

    >>> import tilewright as tw
    >>> layer = tw.nn.LazyLinear(3)
    >>> y = layer(tw.zeros(2, 5))
    >>> layer
    Linear(in_features=5, out_features=3, bias=True)
    """

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        Linear.__init__(self, 0, out_features, False)
        self._make_lazy(bias, device, dtype)

    def _set_size(self, input: tw.Tensor) -> None:
        self.in_features = input.shape[-1]
        shapes: dict = {"weight": (self.out_features, self.in_features)}
        self._shape_all(shapes if self.bias is None else {**shapes, "bias": (self.out_features,)})


class _LazyConv(LazyModuleMixin):
    def _begin(self: Any, out_channels: int, bias: bool, device: Any, dtype: Any, groups: int, **window: Any) -> None:
        if out_channels % groups:
            raise ValueError(f"{type(self).__name__}: groups must divide out_channels, got groups {groups}, "
                             f"out_channels {out_channels}")
        self.cls_to_become.__init__(self, groups, groups, groups=groups, bias=False, **window)
        self.in_channels, self.out_channels = 0, out_channels
        self._make_lazy(bias, device, dtype)

    def _set_size(self: Any, input: tw.Tensor) -> None:
        nd, groups = self._nd, self.groups
        if input.dim() not in (nd + 1, nd + 2):
            raise ValueError(f"{type(self).__name__}: input must have {nd + 1} or {nd + 2} dimensions, got "
                             f"{tuple(input.shape)}")
        self.in_channels = input.shape[-nd - 1]
        if self.in_channels % groups:
            raise ValueError(f"{type(self).__name__}: groups must divide in_channels, got groups {groups}, in_channels "
                             f"{self.in_channels}")
        pair = (self.in_channels, self.out_channels) if self._transposed else (self.out_channels, self.in_channels)
        shapes: dict = {"weight": (pair[0], pair[1] // groups, *self.kernel_size)}
        self._shape_all(shapes if self.bias is None else {**shapes, "bias": (self.out_channels,)})


class _LazyForward(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes | str = 0,
                 dilation: Sizes = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
                 device: Any = None, dtype: Any = None) -> None:
        self._begin(out_channels, bias, device, dtype, groups, kernel_size=kernel_size, stride=stride, padding=padding,
                    dilation=dilation, padding_mode=padding_mode)


class _LazyTransposed(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0,
                 output_padding: Sizes = 0, groups: int = 1, bias: bool = True, dilation: Sizes = 1,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        self._begin(out_channels, bias, device, dtype, groups, kernel_size=kernel_size, stride=stride, padding=padding,
                    output_padding=output_padding, dilation=dilation, padding_mode=padding_mode)


class LazyConv1d(_LazyForward, conv.Conv1d):
    """Conv1d without in_channels, which is that of its first input."""

    cls_to_become = conv.Conv1d


class LazyConv2d(_LazyForward, conv.Conv2d):
    """Conv2d without in_channels, which is that of its first input."""

    cls_to_become = conv.Conv2d


class LazyConv3d(_LazyForward, conv.Conv3d):
    """Conv3d without in_channels, which is that of its first input."""

    cls_to_become = conv.Conv3d


class LazyConvTranspose1d(_LazyTransposed, conv.ConvTranspose1d):
    """ConvTranspose1d without in_channels, which is that of its first input."""

    cls_to_become = conv.ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposed, conv.ConvTranspose2d):
    """ConvTranspose2d without in_channels, which is that of its first input."""

    cls_to_become = conv.ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposed, conv.ConvTranspose3d):
    """ConvTranspose3d without in_channels, which is that of its first input."""

    cls_to_become = conv.ConvTranspose3d


class _LazyNorm(LazyModuleMixin):
    def __init__(self: Any, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        self.cls_to_become.__init__(self, 0, eps, momentum, False, track_running_stats, device, dtype)
        self.affine = affine
        if affine:
            self._make_lazy(bias, device, dtype)
        else:
            self.__dict__["_size_hook"] = self.register_forward_pre_hook(type(self)._see)
        if track_running_stats:
            for name in _STATISTICS:
                self._buffers[name] = UninitializedBuffer(device=device, dtype=dtype)

    def _set_size(self: Any, input: tw.Tensor) -> None:
        self._check_input_dim(input)
        single = input.dim() == self._ndims[0] and issubclass(self.cls_to_become, norm._InstanceNorm)
        self.num_features = input.shape[0 if single else 1]
        self._shape_all({name: (self.num_features,) for name in (*_PARAMETERS, *_STATISTICS)
                         if getattr(self, name) is not None})


class LazyBatchNorm1d(_LazyNorm, norm.BatchNorm1d):
    """BatchNorm1d without num_features, which is that of its first input."""

    cls_to_become = norm.BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, norm.BatchNorm2d):
    """BatchNorm2d without num_features, which is that of its first input."""

    cls_to_become = norm.BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, norm.BatchNorm3d):
    """BatchNorm3d without num_features, which is that of its first input."""

    cls_to_become = norm.BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, norm.InstanceNorm1d):
    """InstanceNorm1d without num_features, which is that of its first input."""

    cls_to_become = norm.InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, norm.InstanceNorm2d):
    """InstanceNorm2d without num_features, which is that of its first input."""

    cls_to_become = norm.InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, norm.InstanceNorm3d):
    """InstanceNorm3d without num_features, which is that of its first input."""

    cls_to_become = norm.InstanceNorm3d

