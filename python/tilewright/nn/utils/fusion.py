"""A layer and the batch norm behind it as one layer, for evaluation: w' = w g, b' = (b - mean) g + beta, with
g = gamma / sqrt(var + eps) for each output channel."""

from __future__ import annotations

import copy
from typing import Any

import tilewright as tw
from tilewright.nn.parameter import Parameter
from tilewright.tensor import Tensor


def _fused(w: Tensor, b: Tensor | None, mean: Tensor, var: Tensor, eps: float, gamma: Tensor | None,
           beta: Tensor | None, channels: int) -> tuple[Parameter, Parameter]:
    """`channels`: the dimension of w that holds the output channels."""
    with tw.no_grad():
        scale = tw.rsqrt(var + eps)
        scale = scale if gamma is None else gamma * scale
        shape = [1] * w.dim()
        shape[channels] = -1
        bias = (-mean if b is None else b - mean) * scale
        bias = bias if beta is None else bias + beta
        requires = (w.requires_grad, b is not None and b.requires_grad)
        return Parameter((w * scale.reshape(shape)).to(w.dtype), requires[0]), Parameter(bias.to(w.dtype), requires[1])


def fuse_conv_bn_weights(conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
                         bn_w: Tensor | None, bn_b: Tensor | None,
                         transpose: bool = False) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution that does what conv and then bn do in evaluation."""
    return _fused(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, int(transpose))


def fuse_linear_bn_weights(linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
                           bn_w: Tensor, bn_b: Tensor) -> tuple[Parameter, Parameter]:
    """Weight and bias of a linear layer that does what linear and then bn do in evaluation."""
    return _fused(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _fuse(op: str, layer: Any, bn: Any, transpose: bool) -> Any:
    if layer.training or bn.training:
        raise ValueError(f"{op}: both modules must be in evaluation mode; call .eval() first")
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError(f"{op}: the norm must have running statistics, got track_running_stats=False")
    made = copy.deepcopy(layer)
    made.weight, made.bias = _fused(made.weight, made.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias,
                                    int(transpose))
    return made


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of `conv` that does what conv and then bn do in evaluation.

    Raises:
        ValueError: a module that is training, or a norm without running statistics.

    >>> from tilewright import nn
    >>> nn.utils.fuse_conv_bn_eval(nn.Conv2d(1, 2, 3, bias=False).eval(), nn.BatchNorm2d(2).eval())
    Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
    """
    return _fuse("fuse_conv_bn_eval", conv, bn, transpose)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A copy of `linear` that does what linear and then bn do in evaluation.

    Raises:
        ValueError: a module that is training, a norm without running statistics, or of other features than linear's.
    """
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise ValueError(f"fuse_linear_bn_eval: bn must have linear's {linear.out_features} features or 1, got "
                         f"{bn.num_features}")
    return _fuse("fuse_linear_bn_eval", linear, bn, False)
