"""Tensor's further methods: ops made of other ops, and the in-place forms that have no kernel of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tilewright import _engine, autograd
from tilewright.arguments import wants
from tilewright.grad_mode import mode
from tilewright.ops import arrange, elementwise, maths, random, search
from tilewright.tensor import Tensor

# Functions whose first argument is the tensor.
_METHODS: dict[Any, str] = {
    maths: "acosh angle arccosh arcsinh arctan2 arctanh asinh atanh clamp_max clamp_min copysign deg2rad digamma erfc "
           "erfinv fix float_power fmax fmin gcd greater greater_equal heaviside hypot is_nonzero isneginf isposinf "
           "isreal lcm ldexp less less_equal lgamma logaddexp logaddexp2 logit mvlgamma nan_to_num not_equal polygamma "
           "positive rad2deg sgn signbit sinc true_divide xlogy",
    search: "corrcoef cov diff histc mode nanquantile quantile take",
    arrange: "addbmm addmv addr adjoint diag_embed diagflat diagonal_scatter dsplit fill_diagonal_ ger hsplit "
             "index_reduce inner kron masked_scatter moveaxis put put_ renorm rot90 scatter_reduce select_scatter "
             "slice_scatter swapaxes swapdims tensor_split vdot vsplit",
    random: "cauchy_ exponential_ geometric_ log_normal_",
}
# Ops of which `op_` is made here: the result, written over the input, with the op's own history.
_IN_PLACE = (
    "absolute acos acosh addbmm addmm addmv addr arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan "
    "atan2 atanh baddbmm bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil "
    "clamp_max clamp_min clip copysign cos cosh cumprod cumsum deg2rad digamma divide eq erf erfc erfinv exp2 expm1 "
    "fix float_power floor floor_divide fmod frac gcd ge greater greater_equal gt heaviside hypot index_reduce lcm "
    "ldexp le less less_equal lgamma log10 log1p log2 logical_and logical_not logical_or logical_xor logit lt "
    "masked_scatter multiply mvlgamma nan_to_num ne negative not_equal polygamma rad2deg reciprocal remainder renorm "
    "round rsqrt scatter_reduce sgn sign sin sinc sinh square subtract tan true_divide trunc xlogy")


def _in_place(name: str, op: Callable) -> Callable:
    def rule(node: Any, dy: Any) -> tuple:
        return None, dy

    rule.__name__ = f"{name}__grad"

    @functools.wraps(op)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = op(elementwise._before(self) if mode.grad and wants(self) else self, *args, **kwargs)
        if y.array.shape != self.array.shape:
            raise ValueError(f"{name}_: the result must have the tensor's shape, got {y.shape} for {self.shape}")
        if name == "float_power" and self.dtype is not y.dtype:
            raise TypeError(f"float_power_: the tensor must be float64, as the result is, got {self.dtype.name}")
        if not maths.can_cast(y.dtype, self.dtype) and y.dtype is not _engine.bool:
            raise TypeError(f"{name}_: a result of {y.dtype.name} cannot be written into {self.dtype.name}")
        return autograd.inplace(rule, self, lambda: _engine.copy_into(self.array, y.array), (self, y))

    method.__name__ = method.__qualname__ = f"{name}_"
    method.__doc__ = f"`{name}`, in place."
    return method


def _polygamma(self: Tensor, n: int) -> Tensor:
    """The n-th derivative of digamma."""
    return maths.polygamma(n, self)


for _module, _names in _METHODS.items():
    for _name in _names.split():
        setattr(Tensor, _name, getattr(_module, _name))
for _name, _method in {"arccos": Tensor.acos, "arcsin": Tensor.asin, "arctan": Tensor.atan,
                       "polygamma": _polygamma}.items():
    setattr(Tensor, _name, _method)
for _name in _IN_PLACE.split():
    setattr(Tensor, _name + "_", _in_place(_name, getattr(Tensor, _name)))
