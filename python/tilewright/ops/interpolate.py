"""Interpolation of (N, C, ...) with one, two or three spatial dimensions to another size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.autograd import record
from tilewright.ops import matmul, pool

if TYPE_CHECKING:
    from tilewright.tensor import Tensor

# mode -> (the kernel's name of it, the spatial dimensions it takes)
_MODES = {"nearest": ("nearest", (1, 2, 3)), "nearest-exact": ("nearest-exact", (1, 2, 3)), "area": ("area", (1, 2, 3)),
          "linear": ("linear", (1,)), "bilinear": ("linear", (2,)), "trilinear": ("linear", (3,)),
          "bicubic": ("cubic", (2,))}


def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """input at another size: nearest, nearest-exact, linear, bilinear, trilinear, bicubic, or area (adaptive means).

    Either `size` (an int, or one a spatial dimension) or `scale_factor` (sizes floor(n scale)). Output item o lies at
    o (n - 1) / (m - 1) with align_corners, else at (o + 1/2) n / m - 1/2; 1 / scale_factor stands for n / m unless
    recompute_scale_factor. Linear modes weigh the two items beside it, bicubic the four (Keys, 1981, with a = -0.75).
    With antialias the weights of a smaller output reach over n / m times as many items (as in Pillow; a = -0.5).

    Raises:
        ValueError: both or neither of size and scale_factor, a mode for another number of dimensions, align_corners
        with a mode that has none, antialias with another mode than bilinear and bicubic.

    >>> import tilewright as tw
    >>> tw.nn.functional.interpolate(tw.tensor([[[0.0, 4.0]]]), scale_factor=2, mode="linear").tolist()
    [[[0.0, 1.0, 3.0, 4.0]]]
    """
    shape, nd = input.array.shape, input.array.ndim - 2
    if mode not in _MODES:
        raise ValueError(f"interpolate: mode must be one of {', '.join(_MODES)}, got {mode!r}")
    kernel, dims = _MODES[mode]
    if nd not in dims:
        raise ValueError(f"interpolate: mode {mode!r} takes {' to '.join(str(d + 2) for d in {dims[0], dims[-1]})} "
                         f"dimensions, got {shape}")
    if kernel in ("nearest", "nearest-exact", "area") and align_corners is not None:
        raise ValueError(f"interpolate: align_corners is for the linear and cubic modes, got {align_corners} with "
                         f"{mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolate: antialias is for the modes bilinear and bicubic, got {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ValueError(f"interpolate: exactly one of size and scale_factor must be given, got {size} and "
                         f"{scale_factor}")
    given = tuple(size if scale_factor is None else scale_factor) if isinstance(
        size if scale_factor is None else scale_factor, tuple | list) else (
        size if scale_factor is None else scale_factor,) * nd
    if not all(isinstance(n, int | float) or hasattr(n, "__index__") for n in given):
        raise TypeError(f"interpolate: size and scale_factor must be numbers, got {given}")
    if len(given) != nd:
        raise ValueError(f"interpolate: size and scale_factor must be one number or {nd}, got {given}")
    if size is not None:
        if recompute_scale_factor:
            raise ValueError("interpolate: recompute_scale_factor needs a scale_factor, got a size")
        sizes, factors = tuple(n.__index__() for n in given), [0.0] * nd
    else:
        sizes = tuple(math.floor(n * float(f)) for n, f in zip(shape[2:], given, strict=True))
        factors = [0.0 if recompute_scale_factor else float(f) for f in given]
    if kernel == "area":
        return (pool.adaptive_avg_pool1d, pool.adaptive_avg_pool2d, pool.adaptive_avg_pool3d)[nd - 1](input, sizes)
    if antialias:
        down, across = (_stretched(n, m, f, kernel == "cubic", bool(align_corners)) for n, m, f in
                        zip(shape[2:], sizes, factors, strict=True))
        return matmul.matmul(matmul.matmul(input.new_tensor(down), input), input.new_tensor(across.T))
    return _interpolate(input, nd, kernel, sizes, factors, bool(align_corners))


def _stretched(n: int, m: int, factor: float, cubic: bool, align_corners: bool):
    """The weights (m, n) of antialiased interpolation: rows of a kernel about each output's place, that sum to 1."""
    import numpy as np
    scale = ((n - 1) / (m - 1) if m > 1 else 0.0) if align_corners else 1.0 / factor if factor else n / m
    wide = max(scale, 1.0)
    centre, reach = scale * (np.arange(m) + 0.5), (2 if cubic else 1) * wide
    low, high = (np.trunc(centre + side + 0.5)[:, None] for side in (-reach, reach))
    t = np.abs(np.arange(n) - centre[:, None] + 0.5) / wide
    inner = (1.5 * t - 2.5) * t * t + 1 if cubic else 1 - t
    outer = ((-0.5 * t + 2.5) * t - 4) * t + 2 if cubic else 0 * t
    w = np.where(t < 1, inner, np.where(t < 2, outer, 0.0)) * ((np.arange(n) >= low) & (np.arange(n) < high))
    return w / w.sum(1, keepdims=True)


def _interpolate(x, nd, mode, sizes, factors, align_corners):
    y = _engine.interpolate(x.array, nd, mode, sizes, factors, align_corners, False)
    return record(interpolate_grad, y, (x,), (), (x.array.shape, nd, mode, sizes, factors, align_corners))


def interpolate_grad(node, dy):
    shape, nd, mode, _, *rest = node.attrs
    dx = _engine.interpolate(dy.array, nd, mode, shape[2:], *rest, True)
    return (record(interpolate_backward_grad, dx, (dy,), (), node.attrs[1:]),)


def interpolate_backward_grad(node, ddx):
    return (_interpolate(ddx, *node.attrs),)  # linear, so that its transpose's transpose is itself
