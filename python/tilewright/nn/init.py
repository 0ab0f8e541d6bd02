"""Ways to fill a new parameter, all in place and outside the tape.

Xavier: Glorot & Bengio 2010 (AISTATS); Kaiming: He et al. 2015 (arXiv:1502.01852); orthogonal: Saxe et al. 2013
(arXiv:1312.6120).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import tilewright as tw
from tilewright.autograd import no_grad
from tilewright.nn.checks import check_choice, check_number
from tilewright.tensor import Tensor

_skipping = False


@contextlib.contextmanager
def skipped() -> Iterator[None]:
    """In this block uniform_ and normal_ leave tensors as they are; for `nn.utils.skip_init`."""
    global _skipping
    before, _skipping = _skipping, True
    try:
        yield
    finally:
        _skipping = before


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform in [a, b)."""
    if _skipping:
        return tensor
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    if _skipping:
        return tensor
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Every value `val`."""
    with no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Every value 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Every value 0."""
    return constant_(tensor, 0.0)


def _set(tensor: Tensor, values: np.ndarray) -> Tensor:
    """Copies float64 values of the tensor's shape into it."""
    with no_grad():
        return tensor.copy_(tw.from_numpy(np.ascontiguousarray(values)))


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix."""
    if tensor.dim() != 2:
        raise ValueError(f"eye_: tensor must have 2 dimensions, got {tuple(tensor.shape)}")
    rows, columns = tensor.shape
    return _set(tensor, np.eye(rows, columns))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution filter that passes its input channels on: 1 at the window's centre, in each of `groups` groups."""
    shape = tuple(tensor.shape)
    if len(shape) not in (3, 4, 5):
        raise ValueError(f"dirac_: tensor must have 3, 4 or 5 dimensions, got {shape}")
    if groups < 1 or shape[0] % groups:
        raise ValueError(f"dirac_: groups must divide the output channels, got {groups} and {shape[0]}")
    values = np.zeros(shape)
    centre = tuple(size // 2 for size in shape[2:])
    per_group = shape[0] // groups
    for group in range(groups):
        for channel in range(min(per_group, shape[1])):
            values[(group * per_group + channel, channel, *centre)] = 1.0
    return _set(tensor, values)


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """The values that enter and leave one unit: (in, out) sizes times the window's."""
    if tensor.dim() < 2:
        raise ValueError(f"fan_in and fan_out: tensor must have at least 2 dimensions, got {tuple(tensor.shape)}")
    out_size, in_size, *window = tensor.shape
    return in_size * math.prod(window), out_size * math.prod(window)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity; `param` is leaky_relu's slope.

    >>> calculate_gain("tanh")
    1.6666666666666667
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else check_number("calculate_gain", "param", param)
        return math.sqrt(2.0 / (1 + slope**2))
    gains = {"linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv3d": 1.0, "conv_transpose1d": 1.0,
             "conv_transpose2d": 1.0, "conv_transpose3d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3,
             "relu": math.sqrt(2.0), "selu": 3.0 / 4}
    check_choice("calculate_gain", "nonlinearity", nonlinearity, (*gains, "leaky_relu"))
    return gains[nonlinearity]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out))."""
    bound = gain * math.sqrt(6.0 / max(1, sum(_calculate_fan_in_and_fan_out(tensor))))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(1, sum(_calculate_fan_in_and_fan_out(tensor)))), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    check_choice("kaiming", "mode", mode, ("fan_in", "fan_out"))
    fan = _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fan))


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator: Any = None) -> Tensor:
    """Uniform in +-gain sqrt(3 / fan), gain that of the nonlinearity (`a`: leaky_relu's slope)."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator: Any = None) -> Tensor:
    """Normal with standard deviation gain / sqrt(fan)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def default_linear_(weight: Tensor, bias: Tensor | None) -> None:
    """How Linear and Conv layers start: weight and bias uniform in +-1/sqrt(fan_in)."""
    kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1.0 / math.sqrt(max(1, _calculate_fan_in_and_fan_out(weight)[0]))
        uniform_(bias, -bound, bound)


def _truncated_normal(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    """Standard normal values in [low, high], by rejection (Robert 1995, Statistics and Computing 5): from the normal
    itself where the interval holds much of it, else from the uniform distribution weighed by exp(-x^2/2)."""
    inside = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    peak = min(max(0.0, low), high)
    found = np.empty(0)
    while found.size < count:
        if inside > 0.25:
            draw = rng.standard_normal(2 * count)
            found = np.concatenate([found, draw[(draw >= low) & (draw <= high)]])
        else:
            draw = rng.uniform(low, high, 2 * count)
            found = np.concatenate([found, draw[rng.random(2 * count) < np.exp((peak**2 - draw**2) / 2)]])
    return found[:count]


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
                  generator: Any = None) -> Tensor:
    """Normal(mean, std) given that the value is in [a, b] (both are values, not multiples of std).

    Raises:
        ValueError: std not above 0, or a not below b.
    """
    if not std > 0 or not math.isfinite(std):
        raise ValueError(f"trunc_normal_: std must be finite and > 0, got {std}")
    if not a < b or not (math.isfinite(a) and math.isfinite(b)):
        raise ValueError(f"trunc_normal_: a must be < b, both finite, got {a} and {b}")
    seed = tw.randint(0, 2**62, (1,), generator=generator).item()
    # Below 40 standard deviations the density is 0 in float64, so a wider interval is the same distribution.
    low, high = (max(-40.0, min(40.0, (bound - mean) / std)) for bound in (a, b))
    if low == high:
        raise ValueError(f"trunc_normal_: [a, b] must reach within 40 std of mean, got [{a}, {b}] with {mean}, {std}")
    values = _truncated_normal(np.random.default_rng(seed), tensor.numel(), low, high) * std + mean
    return _set(tensor, np.clip(values, a, b).reshape(tuple(tensor.shape)))


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """gain times a random matrix with orthonormal rows or columns; dimensions after the first are flattened."""
    if tensor.dim() < 2:
        raise ValueError(f"orthogonal_: tensor must have at least 2 dimensions, got {tuple(tensor.shape)}")
    shape = tuple(tensor.shape)
    if tensor.numel() == 0:
        return tensor
    rows, cols = shape[0], tensor.numel() // shape[0]
    seed = tw.randint(0, 2**62, (1,), generator=generator).item()
    gauss = np.random.default_rng(seed).standard_normal((max(rows, cols), min(rows, cols)))
    q, r = np.linalg.qr(gauss)
    q *= np.sign(np.diag(r))  # makes the factorisation unique, and so q uniform over orthogonal matrices
    return _set(tensor, (gain * (q if rows >= cols else q.T)).reshape(shape))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Normal(0, std), with ceil(sparsity rows) random values of each column set to 0 (Martens, 2010)."""
    if tensor.dim() != 2:
        raise ValueError(f"sparse_: tensor must have 2 dimensions, got {tuple(tensor.shape)}")
    rows, columns = tensor.shape
    zeros = math.ceil(check_number("sparse_", "sparsity", sparsity, 0, 1) * rows)
    normal_(tensor, 0.0, std, generator)
    with no_grad():
        for column in range(columns):
            tensor[tw.randperm(rows, generator=generator, device=tensor.device)[:zeros], column] = 0
    return tensor


# PyTorch's old names without the underscore, which many public scripts still call.
uniform, normal, constant = uniform_, normal_, constant_
xavier_uniform, xavier_normal = xavier_uniform_, xavier_normal_
kaiming_uniform, kaiming_normal = kaiming_uniform_, kaiming_normal_
orthogonal, eye, dirac, sparse = orthogonal_, eye_, dirac_, sparse_
