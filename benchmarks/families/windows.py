"""Pooling, interpolation and padding."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from benchmarks.families.common import OURS, Case, Setup, sampled, small, to_numpy


def _image_op(s: Setup, name: str, x: dict, grad: int, bound: Callable) -> Case:
    """nn.functional.<name> of an image, against PyTorch's; its reference is PyTorch's in float64, or ours."""
    makers = {k: bound(f) for k, f in s.named(f"nn.functional.{name}").items() if k in (OURS, "torch")}
    timed = s.backward(makers, x)
    ours = makers[OURS](x[OURS])
    x_bytes, y_bytes = math.prod(x["numpy"].shape) * s.itemsize, math.prod(ours.shape) * s.itemsize
    if grad:
        return Case(**timed, flops=0, read=x_bytes + y_bytes, written=x_bytes + y_bytes, tolerance=32)
    expected = timed["expected"][: sampled(to_numpy(ours)).size]
    return Case(s.each(makers, x), expected, flops=0, read=x_bytes, written=y_bytes, tolerance=32,
                shape=tuple(ours.shape), pick=sampled)


def _sizes(hw: int, nd: int) -> tuple[int, ...]:
    return (hw,) * nd


@small("n=2 c=3 hw=8 k=2", "n=2 c=3 hw=9 k=3 stride=2 pad=1 grad=1", "op=avg n=1 c=2 hw=6 k=2 nd=3 grad=1",
       "op=adaptive_avg n=2 c=3 hw=7 out=1", "op=adaptive_max n=2 c=3 hw=9 out=4", "op=max n=2 c=3 hw=20 nd=1 k=2")
def pool(s: Setup, n: int, c: int, hw: int, op: str = "max", nd: int = 2, k: int = 2, stride: int = 0, pad: int = 0,
         out: int = 1, grad: int = 0) -> Case:
    """max, avg, adaptive_max or adaptive_avg pooling of (n, c, hw, ...), nd spatial dims; grad=1: both directions."""
    if op not in ("max", "avg", "adaptive_max", "adaptive_avg"):
        raise ValueError(f"unknown op {op}")
    x = s.normal(n, c, *_sizes(hw, nd))
    given = {"output_size": _sizes(out, nd) if nd > 1 else out} if op.startswith("adaptive") else {
        "kernel_size": k, "stride": stride or k, "padding": pad}
    return _image_op(s, f"{op}_pool{nd}d", x, grad, lambda f: partial(f, **given))


@small("n=2 c=3 hw=4", "mode=bilinear n=2 c=3 hw=4 grad=1", "mode=trilinear n=1 c=2 hw=3 nd=3 grad=1",
       "mode=bicubic n=1 c=2 hw=5 scale=0.6")
def interpolate(s: Setup, n: int, c: int, hw: int, mode: str = "nearest", nd: int = 2, scale: str = "2",
                grad: int = 0) -> Case:
    """F.interpolate of (n, c, hw, ...) by a factor; grad=1: both directions."""
    x = s.normal(n, c, *_sizes(hw, nd))
    return _image_op(s, "interpolate", x, grad, lambda f: partial(f, scale_factor=float(scale), mode=mode))


@small("n=2 c=3 hw=4", "mode=reflect n=2 c=3 hw=4 width=2 grad=1", "mode=replicate n=1 c=2 hw=3 nd=3",
       "mode=circular n=1 c=2 hw=5 nd=1 grad=1")
def pad(s: Setup, n: int, c: int, hw: int, mode: str = "constant", nd: int = 2, width: int = 1, grad: int = 0) -> Case:
    """F.pad of (n, c, hw, ...) by `width` on every side of the spatial dims; grad=1: both directions."""
    x = s.normal(n, c, *_sizes(hw, nd))
    return _image_op(s, "pad", x, grad, lambda f: partial(f, pad=(width,) * (2 * nd), mode=mode))
