"""Values of images at given places between their items, and the places that an affine map gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.autograd import first_order, record, wrap
from tilewright.ops import shape
from tilewright.ops.matmul import matmul

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Tensor:
    """y[n, c, o] = input[n, c] at the place grid[n, o] of [-1, 1]^2 or [-1, 1]^3, whose last dimension comes first.

    -1 and 1 are the centres of the outer items with align_corners, else their outer edges: with size n, coordinate g is
    item (g + 1) (n - 1) / 2 or ((g + 1) n - 1) / 2. mode: "nearest" (half to even), "bilinear" (the 2 items an axis
    beside it), "bicubic" (the 4; Keys, 1981, with a = -0.75). padding_mode, for what lies outside: "zeros", "border"
    (the outermost item) or "reflection" (at the places -1 and 1). A coordinate that is NaN lies outside.

    Shapes: input (N, C, H, W) and grid (N, h, w, 2) give (N, C, h, w); input (N, C, D, H, W) and grid (N, d, h, w, 3)
    give (N, C, d, h, w). Jaderberg et al., Spatial Transformer Networks, arXiv:1506.02025.

    Raises:
        ValueError: other shapes, an unknown mode, bicubic of 5 dimensions. TypeError: dtypes that differ.

    >>> import tilewright as tw
    >>> x, grid = tw.tensor([[[[0.0, 4.0]]]]), tw.tensor([[[[-1.0, 0.0], [0.5, 0.0]]]])
    >>> tw.nn.functional.grid_sample(x, grid, align_corners=True).tolist()
    [[[[0.0, 3.0]]]]
    """
    how = (mode, padding_mode, bool(align_corners))
    return record(grid_sample_grad, _engine.grid_sample(input.array, grid.array, *how), (input, grid), (input, grid),
                  how)


@first_order
def grid_sample_grad(node, dy):
    x, grid = node.saved
    grads = _engine.grid_sample_backward(dy.array, x.array, grid.array, *node.attrs, *node.needs)
    return tuple(None if g is None else wrap(g) for g in grads)


def affine_grid(theta: Tensor, size: Any, align_corners: bool | None = None) -> Tensor:
    """The places for grid_sample that theta maps an image's items to: grid[n, o] = theta[n] (x_o, y_o, 1).

    (x_o, y_o) is item o's place in [-1, 1]^2, from -1 to 1 with align_corners, else from 1/n - 1 to 1 - 1/n. theta
    (N, 2, 3) and size (N, C, H, W) give (N, H, W, 2); theta (N, 3, 4) and size (N, C, D, H, W) give (N, D, H, W, 3).

    Raises:
        ValueError: other shapes, sizes below 1. TypeError: theta is no floating-point tensor.

    >>> import tilewright as tw
    >>> theta = tw.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])
    >>> tw.nn.functional.affine_grid(theta, (1, 1, 1, 2)).tolist()
    [[[[0.0, 0.0], [1.0, 0.0]]]]
    """
    size, given = tuple(size), theta.array.shape
    nd = len(size) - 2
    if nd not in (2, 3) or given != (size[0], nd, nd + 1):
        raise ValueError(f"affine_grid: theta must be (N, 2, 3) for a size (N, C, H, W), or (N, 3, 4) for "
                         f"(N, C, D, H, W), got {given} for {size}")
    if min(size) < 1:
        raise ValueError(f"affine_grid: size must be positive, got {size}")
    if not theta.array.is_float:
        raise TypeError(f"affine_grid: theta must be floating point, got {theta.array.dtype.name}")
    dtype = theta.dtype
    work = _engine.float64 if dtype is _engine.float64 else _engine.float32
    columns = []
    for axis in reversed(range(nd)):
        n = size[2 + axis]
        end = 0.0 if n == 1 else 1.0 if align_corners else 1 - 1 / n
        places = wrap(_engine.to_device(_engine.linspace(-end, end, n, work), theta.device))
        columns.append(shape.expand(shape.reshape(places, (n, *(1,) * (nd - 1 - axis))), size[2:]))
    columns.append(wrap(_engine.full(size[2:], 1, work, theta.device)))
    base = shape.reshape(shape.stack(columns, -1), (-1, nd + 1))
    grid = matmul(base, shape.transpose(theta.to(work), 1, 2))
    return shape.reshape(grid, (size[0], *size[2:], nd)).to(dtype)
