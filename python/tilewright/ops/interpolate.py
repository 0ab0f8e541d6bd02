"""Interpolation of (N, C, ...) with one, two or three spatial dimensions to another size."""

from __future__ import annotations

import math

from tilewright import _engine
from tilewright.autograd import record
from tilewright.creation import as_tensor
from tilewright.ops import pool
from tilewright.ops.matmul import matmul

# mode -> (the kernel's name of it, the spatial dimensions it takes)
_MODES = {"nearest": ("nearest", (1, 2, 3)), "nearest-exact": ("nearest-exact", (1, 2, 3)), "area": ("area", (1, 2, 3)),
          "linear": ("linear", (1,)), "bilinear": ("linear", (2,)), "trilinear": ("linear", (3,)),
          "bicubic": ("cubic", (2,))}


def interpolate(input, size=None, scale_factor=None, mode: str = "nearest", align_corners: bool | None = None,
                recompute_scale_factor: bool | None = None, antialias: bool = False):
    """input at another size: nearest, nearest-exact, linear, bilinear, trilinear, bicubic, or area (adaptive means).

    Either `size` (an int, or one a spatial dimension) or `scale_factor` (sizes floor(n scale)). Output item o lies at
    o (n - 1) / (m - 1) with align_corners, else at (o + 1/2) n / m - 1/2; 1 / scale_factor stands for n / m unless
    recompute_scale_factor. Linear modes weigh the two items beside it, bicubic the four (Keys, 1981, with a = -0.75).
    With antialias (bilinear, bicubic) a smaller result weighs as many items as it has fewer, as Pillow does (a = -0.5).

    Raises:
        ValueError: both or neither of size and scale_factor, a mode for another number of dimensions, align_corners
        with a mode that has none, antialias with a mode that has none.

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
        raise ValueError(f"interpolate: antialias is for bilinear and bicubic, got {mode!r}")
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
        for dim, size, factor in zip((-1, -2), sizes[::-1], factors[::-1], strict=True):
            w = _antialias_weights(kernel, input.array.shape[dim], size, factor, bool(align_corners))
            weights = as_tensor(w, dtype=input.dtype, device=input.device)
            input = matmul(input, weights.t()) if dim == -1 else matmul(weights, input)
        return input
    return _interpolate(input, nd, kernel, sizes, factors, bool(align_corners))


def _antialias_weights(kernel, n, m, factor, align_corners):
    """(m, n): row o weighs the items round o's place by the kernel, stretched to the step where that is above 1."""
    import numpy

    step = 1 / factor if factor else (n - 1) / max(m - 1, 1) if align_corners else n / m
    stretch = max(step, 1.0)
    centre = step * (numpy.arange(m)[:, None] + 0.5)
    items = numpy.arange(n)
    t = numpy.abs(items - centre + 0.5) / stretch
    reach = (1 if kernel == "linear" else 2) * stretch
    near = (items >= numpy.trunc(centre - reach + 0.5)) & (items < numpy.trunc(centre + reach + 0.5))
    if kernel == "linear":
        w = numpy.maximum(1 - t, 0)
    else:
        w = numpy.where(t < 1, (1.5 * t - 2.5) * t * t + 1, numpy.where(t < 2, ((-0.5 * t + 2.5) * t - 4) * t + 2, 0))
    w = w * near
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
