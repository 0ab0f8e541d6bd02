"""Activations as modules. The formulas are those of the functions in `nn.functional`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilewright.nn import functional as F
from tilewright.nn import init as fill
from tilewright.nn.checks import check_choice, check_number
from tilewright.nn.module import Module
from tilewright.nn.parameter import empty_parameter
from tilewright.tensor import Tensor


def _in_place(inplace: bool, before: str = ", ") -> str:
    return f"{before}inplace=True" if inplace else ""


class ReLU(Module):
    """max(x, 0); with inplace=True the input itself is changed."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)

    def extra_repr(self) -> str:
        return _in_place(self.inplace, "")


class LeakyReLU(Module):
    """x for x >= 0, else negative_slope x."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = check_number("LeakyReLU", "negative_slope", negative_slope)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}{_in_place(self.inplace)}"


class ELU(Module):
    """x for x > 0, else alpha (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = check_number("ELU", "alpha", alpha)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}{_in_place(self.inplace)}"


class Hardtanh(Module):
    """min(max(x, min_val), max_val)."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False,
                 min_value: float | None = None, max_value: float | None = None) -> None:
        super().__init__()
        min_val = min_val if min_value is None else min_value  # names of PyTorch's early versions
        max_val = max_val if max_value is None else max_value
        self.min_val = check_number("Hardtanh", "min_val", min_val)
        self.max_val = check_number("Hardtanh", "max_val", max_val)
        if not min_val < max_val:
            raise ValueError(f"Hardtanh: min_val must be < max_val, got {min_val} and {max_val}")
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}{_in_place(self.inplace)}"


class ReLU6(Hardtanh):
    """min(max(x, 0), 6)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return _in_place(self.inplace, "")


class SiLU(Module):
    """x sigmoid(x)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)

    def extra_repr(self) -> str:
        return _in_place(self.inplace, "")


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(Module):
    """tanh(x)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class GELU(Module):
    """x Phi(x), Phi the normal distribution's; approximate='tanh' uses its tanh form (arXiv:1606.08415)."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = check_choice("GELU", "approximate", approximate, ("none", "tanh"))

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """log(1 + exp(beta x)) / beta; x itself where beta x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = check_number("Softplus", "beta", beta)
        self.threshold = check_number("Softplus", "threshold", threshold)

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class _AlongDim(Module):
    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def _dim(self, input: Tensor) -> int:
        """PyTorch's rule for a missing dim: channels of 1-, 3- or 4-d samples, else the last but batch."""
        return self.dim if self.dim is not None else 0 if input.dim() in (0, 1, 3) else 1

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """exp(x) / sum(exp(x)) along dim."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self._dim(input))


class Softmax2d(Module):
    """softmax over the channels of (N, C, H, W) or (C, H, W).

    Raises:
        ValueError: on a call, another number of dimensions.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise ValueError(f"Softmax2d: input must have 3 or 4 dimensions, got {tuple(input.shape)}")
        return F.softmax(input, -3)


class LogSoftmax(_AlongDim):
    """x - log(sum(exp(x))) along dim."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self._dim(input))


class _Curve(Module):
    """A function of `nn.functional` whose arguments after the input are this module's attributes of their names."""

    _function: Callable
    _arguments: tuple[str, ...] = ()

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, **{name: getattr(self, name) for name in self._arguments})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self._arguments
                         if name != "inplace" or self.inplace)


class _InPlace(_Curve):
    _arguments = ("inplace",)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace


class SELU(_InPlace):
    """scale elu(x, alpha), with the constants that keep mean 0 and variance 1."""

    _function = F.selu


class Mish(_InPlace):
    """x tanh(softplus(x))."""

    _function = F.mish


class Hardswish(_InPlace):
    """x hardsigmoid(x)."""

    _function = F.hardswish


class Hardsigmoid(_InPlace):
    """min(max(x / 6 + 1/2, 0), 1)."""

    _function = F.hardsigmoid


class Softsign(_Curve):
    """x / (1 + |x|)."""

    _function = F.softsign


class Tanhshrink(_Curve):
    """x - tanh(x)."""

    _function = F.tanhshrink


class LogSigmoid(_Curve):
    """log(sigmoid(x))."""

    _function = F.logsigmoid


class CELU(_Curve):
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""

    _function, _arguments = F.celu, ("alpha", "inplace")

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = check_number("CELU", "alpha", alpha), inplace


class _Shrink(_Curve):
    _arguments = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = check_number(type(self).__name__, "lambd", lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Hardshrink(_Shrink):
    """x where |x| > lambd, else 0."""

    _function = F.hardshrink


class Softshrink(_Shrink):
    """x moved by lambd towards 0, and 0 where |x| <= lambd."""

    _function = F.softshrink


class Threshold(_Curve):
    """x where x > threshold, else value."""

    _function, _arguments = F.threshold, ("threshold", "value", "inplace")

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = check_number("Threshold", "threshold", threshold)
        self.value = check_number("Threshold", "value", value)
        self.inplace = inplace


class PReLU(Module):
    """x for x >= 0, else weight x, with a learned weight for all or for each channel (dim 1)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = empty_parameter((num_parameters,), device, dtype)
        fill.constant_(self.weight, init)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(Module):
    """x for x >= 0, else a x, a drawn from [lower, upper] in training and their mean in evaluation."""

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower = check_number("RReLU", "lower", lower)
        self.upper = check_number("RReLU", "upper", upper)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}{_in_place(self.inplace)}"


class GLU(_Curve):
    """a sigmoid(b), a and b the halves of x along dim."""

    _function, _arguments = F.glu, ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim


class Softmin(_AlongDim):
    """softmax(-x) along dim."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.dim)
