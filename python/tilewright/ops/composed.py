"""Functions made of other ops, whose gradients come from theirs, of every order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.arguments import into, takes_out
from tilewright.ops import conv, elementary, elementwise, matmul, pad, random, reduce, scan, search, shape, sort
from tilewright.ops.interpolate import interpolate

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


# --- sums over named dimensions --------------------------------------------------------------------------------------
def _labels(equation: str, operands: list) -> tuple[list[list], list]:
    """The labels of each operand's dimensions and of the result's; those of `...` are numbers, counted from the end."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        raise ValueError(f"einsum: the equation must name each operand, got {len(terms)} terms for {len(operands)} "
                         f"operands in '{equation}'")
    most, labels = 0, []
    for term, x in zip(terms, operands, strict=True):
        letters = term.replace("...", "")
        hidden = x.dim() - len(letters) if "..." in term else 0
        if hidden < 0 or len(letters) + hidden != x.dim() or not (letters + "a").isalpha():
            raise ValueError(f"einsum: '{term}' must have a letter for each dimension, got shape {tuple(x.shape)}")
        before = term.partition("...")[0] if "..." in term else letters
        labels.append([*before, *range(-hidden, 0), *letters[len(before):]])
        most = max(most, hidden)
    if not arrow:  # the letters met once, in alphabetical order
        seen = [c for term in labels for c in term if isinstance(c, str)]
        result = ("..." if most else "") + "".join(sorted(c for c in set(seen) if seen.count(c) == 1))
    letters = result.replace("...", "")
    unknown = [c for c in letters if not any(c in term for term in labels)]
    if unknown or len(set(letters)) != len(letters):
        raise ValueError(f"einsum: the result's letters must be the operands', each once, got '{equation}'")
    before = result.partition("...")[0] if "..." in result else letters
    return labels, [*before, *(range(-most, 0) if "..." in result else ()), *letters[len(before):]]


def _lay(x, labels: list, order: list):
    """x with dimensions in `order`; a label that x lacks gets a dimension of size 1."""
    x = shape.permute(x, [labels.index(c) for c in order if c in labels])
    for i, c in enumerate(order):
        if c not in labels:
            x = shape.unsqueeze(x, i)
    return x


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """The sum over products of operands whose dimensions are named by letters: "bij,bjk->bik" is a batched product.

    A letter that the result lacks is summed over; one that a term has twice takes the diagonal; `...` stands for
    dimensions that broadcast. Without "->" the result has the letters met once, in alphabetical order. Two operands at
    a time become one matrix product, from left to right.

    Raises:
        ValueError: terms that do not fit the operands, sizes of one letter that differ.

    >>> import tilewright as tw
    >>> tw.einsum("ij,jk->ik", tw.ones(2, 3), tw.ones(3, 2)).tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else list(operands)
    labels, result = _labels(equation, tensors)
    sizes: dict = {}
    for i, x in enumerate(tensors):
        for c in [c for c in labels[i] if labels[i].count(c) > 1]:
            if labels[i].count(c) > 1:
                first, second = [k for k, other in enumerate(labels[i]) if other == c][:2]
                x = shape.diagonal(x, 0, first, second)
                labels[i] = [other for k, other in enumerate(labels[i]) if k not in (first, second)] + [c]
        tensors[i] = x
        for c, n in zip(labels[i], x.shape, strict=True):
            if 1 not in (n, sizes.get(c, 1)) and sizes[c] != n:
                raise ValueError(f"einsum: sizes of '{c}' must agree, got {sizes[c]} and {n} in '{equation}'")
            sizes[c] = n if n != 1 else sizes.get(c, 1)
    x, have = tensors[0], labels[0]
    for i, (y, more) in enumerate(zip(tensors[1:], labels[1:], strict=True), 1):
        later = {c for rest in labels[i + 1:] for c in rest} | set(result)
        x, have = _without(x, have, later | set(more))
        y, more = _without(y, more, later | set(have))
        # A size of 1 that broadcasts against the other operand cannot be contracted by a product.
        both = [c for c in have if c in more]
        x, y = (_spread(v, names, both, sizes) for v, names in ((x, have), (y, more)))
        batch, summed = [c for c in both if c in later], [c for c in both if c not in later]
        left, right = [c for c in have if c not in both], [c for c in more if c not in both]
        a = _lay(x, have, batch + left + summed).reshape([math.prod(sizes[c] for c in batch), -1 if x.numel() else
                                                          math.prod(x.shape[have.index(c)] for c in left),
                                                          math.prod(sizes[c] for c in summed)])
        b = _lay(y, more, batch + summed + right).reshape([math.prod(sizes[c] for c in batch),
                                                           math.prod(sizes[c] for c in summed), -1 if y.numel() else
                                                           math.prod(y.shape[more.index(c)] for c in right)])
        out = [*(sizes[c] for c in batch), *(x.shape[have.index(c)] for c in left),
               *(y.shape[more.index(c)] for c in right)]
        x, have = matmul.bmm(a, b).reshape(out), batch + left + right
    x, have = _without(x, have, set(result))
    return _lay(x, have, result)


def _without(x, labels: list, needed: set) -> tuple:
    """x summed over the dimensions that nobody needs any more."""
    extra = [i for i, c in enumerate(labels) if c not in needed]
    return (reduce.sum(x, extra), [c for c in labels if c in needed]) if extra else (x, labels)


def _spread(x, labels: list, both: list, sizes: dict):
    return shape.broadcast_to(x, [sizes[c] if c in both else n for c, n in zip(labels, x.shape, strict=True)])


@takes_out
def tensordot(a: Tensor, b: Tensor, dims: int | tuple = 2) -> Tensor:
    """The sum of products over `dims` dimensions: the last of a with the first of b, or two lists of dimensions.

    >>> import tilewright as tw
    >>> tw.tensordot(tw.ones(2, 3), tw.ones(3, 4), dims=1).shape
    (2, 4)
    """
    if isinstance(dims, int):
        dims = (list(range(a.dim() - dims, a.dim())), list(range(dims)))
    over_a, over_b = ([d % x.dim() for d in ([ds] if isinstance(ds, int) else ds)] for x, ds in zip((a, b), dims,
                                                                                                    strict=True))
    letters = [chr(97 + i) for i in range(a.dim() + b.dim())]
    of_a, of_b = letters[:a.dim()], letters[a.dim():]
    for i, j in zip(over_a, over_b, strict=True):
        of_b[j] = of_a[i]
    rest = [c for i, c in enumerate(of_a) if i not in over_a] + [c for j, c in enumerate(of_b) if j not in over_b]
    return einsum(f"{''.join(of_a)},{''.join(of_b)}->{''.join(rest)}", a, b)


def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal."""
    if input.dim() != 2:
        raise ValueError(f"trace: input must be a matrix, got shape {tuple(input.shape)}")
    return reduce.sum(shape.diagonal(input))


# --- distances -------------------------------------------------------------------------------------------------------
def dist(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm of input - other."""
    return reduce.norm(elementwise.sub(input, other), p)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm distances of the rows of x1 (..., P, M) and x2 (..., R, M): (..., P, R).

    With p = 2 and more than 25 rows a side, or by compute_mode, through |a|^2 + |b|^2 - 2 a b, as in PyTorch: one
    product, with an error of the squares' size.

    >>> import tilewright as tw
    >>> tw.cdist(tw.tensor([[0.0, 0.0]]), tw.tensor([[3.0, 4.0]])).item()
    5.0
    """
    if x1.dim() < 2 or x2.dim() < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ValueError(f"cdist: rows must have one length, got {tuple(x1.shape)} and {tuple(x2.shape)}")
    product = {"use_mm_for_euclid_dist": True, "donot_use_mm_for_euclid_dist": False,
               "use_mm_for_euclid_dist_if_necessary": x1.shape[-2] > 25 or x2.shape[-2] > 25}
    if compute_mode not in product:
        raise ValueError(f"cdist: compute_mode must be of {', '.join(product)}, got '{compute_mode}'")
    if p != 2 or not product[compute_mode]:
        difference = elementwise.sub(shape.unsqueeze(x1, -2), shape.unsqueeze(x2, -3))
        return reduce.norm(difference, p, -1)
    a, b = (reduce.sum(elementary.square(x), -1, keepdim=True) for x in (x1, x2))
    squares = (a + b.transpose(-1, -2) - 2 * matmul.matmul(x1, x2.transpose(-1, -2))).clamp(min=0)
    zero = squares == 0  # whose root has no slope: its gradient is 0, as the norm's
    return elementwise.where(zero, squares, elementary.sqrt(elementwise.where(zero, 1.0, squares)))


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps over the last dimension."""
    return reduce.norm(elementwise.sub(x1, x2) + eps, p, -1, keepdim)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 x2 / (max(|x1|, eps) max(|x2|, eps)) over a dimension.

    >>> import tilewright as tw
    >>> tw.nn.functional.cosine_similarity(tw.tensor([[1.0, 0.0]]), tw.tensor([[1.0, 0.0]])).item()
    1.0
    """
    x1, x2 = shape.broadcast_tensors(x1, x2)
    a, b = (reduce.norm(x, 2, dim, True).clamp(min=eps) for x in (x1, x2))
    return reduce.sum((x1 / a) * (x2 / b), dim)


# --- counts and draws ------------------------------------------------------------------------------------------------
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, ... occurs in a 1-d tensor of integers, or the sum of `weights` there.

    >>> import tilewright as tw
    >>> tw.bincount(tw.tensor([0, 2, 2])).tolist()
    [1, 0, 2]
    """
    if input.dim() != 1 or input.is_floating_point():
        raise ValueError(f"bincount: input must be 1-d and of integers, got {input.dtype} {tuple(input.shape)}")
    if input.numel() and input.min().item() < 0:
        raise ValueError(f"bincount: values must not be negative, got {input.min().item()}")
    n = max(int(input.max().item()) + 1 if input.numel() else 0, minlength)
    ones = input.new_ones(input.shape[0], dtype=_engine.int64) if weights is None else weights
    if weights is not None and ones.dtype is not _engine.float32:
        ones = ones.double()
    return ones.new_zeros(n).scatter_add(0, input.long(), ones)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None,
                out: Tensor | None = None) -> Tensor:
    """Indices drawn from each row of weights (not negative, of a positive sum): (num_samples,) or (rows, num_samples).

    With replacement by the inverse of the cumulated weights; without, the num_samples largest of weight / exponential
    variate (Efraimidis & Spirakis 2006).

    Raises:
        ValueError: weights negative, not finite or all 0; more samples than weights above 0.
        TypeError: out is not of int64.

    >>> import tilewright as tw
    >>> tw.multinomial(tw.tensor([0.0, 1.0, 0.0]), 2, replacement=True).tolist()
    [1, 1]
    """
    if out is not None:
        if out.dtype is not _engine.int64:
            raise TypeError(f"multinomial: out must be of int64, got {out.dtype}")
        return into("multinomial", multinomial(input, num_samples, replacement, generator=generator), out)
    if num_samples < 1:
        raise ValueError(f"multinomial: num_samples must be at least 1, got {num_samples}")
    if input.dim() not in (1, 2) or not input.is_floating_point():
        raise ValueError(f"multinomial: input must be float weights of 1 or 2 dimensions, got {input.dtype} "
                         f"{tuple(input.shape)}")
    with autograd.no_grad():
        weights = input.detach().float() if input.dtype in (_engine.float16, _engine.bfloat16) else input.detach()
        least, total = weights.min().item(), weights.sum(-1)
        if not least >= 0 or not total.min().item() > 0 or not math.isfinite(total.max().item()):
            raise ValueError("multinomial: weights must be finite, not negative and of a positive sum in each row, got "
                             f"a least weight of {least:g} and a least sum of {total.min().item():g}")
        draw = random.rand(*weights.shape[:-1], num_samples if replacement else weights.shape[-1],
                           dtype=weights.dtype, device=weights.device, generator=generator)
        if not replacement:
            fewest = int((weights > 0).sum(-1).min().item())
            if num_samples > fewest:
                raise ValueError("multinomial: without replacement num_samples must be at most the number of weights "
                                 f"above 0, got {num_samples} for {fewest}")
            return sort.topk(weights / -elementary.log1p(-draw).clamp(max=-1e-38), num_samples, -1)[1]
        below = scan.cumsum(weights, -1)
        below = below / below[..., -1:]
        if draw.numel() * input.shape[-1] > 1 << 20:  # bisection is many launches, comparing with all is many values
            return search.searchsorted(below, draw, right=True).clamp(max=input.shape[-1] - 1)
        return reduce.sum(shape.unsqueeze(draw, -1) >= shape.unsqueeze(below, -2), -1).clamp(max=input.shape[-1] - 1)


# --- pictures --------------------------------------------------------------------------------------------------------
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C r^2, H, W) as (..., C, H r, W r). Shi et al. 2016 (arXiv:1609.05158)."""
    r, (*lead, channels, height, width) = upscale_factor, input.shape
    if channels % r**2:
        raise ValueError(f"pixel_shuffle: channels must be a multiple of {r**2}, got {tuple(input.shape)}")
    x, n = input.reshape(*lead, channels // r**2, r, r, height, width), len(lead)
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return shape.permute(x, order).reshape(*lead, channels // r**2, height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H r, W r) as (..., C r^2, H, W)."""
    r, (*lead, channels, height, width) = downscale_factor, input.shape
    if height % r or width % r:
        raise ValueError(f"pixel_unshuffle: height and width must be multiples of {r}, got {tuple(input.shape)}")
    x, n = input.reshape(*lead, channels, height // r, r, width // r, r), len(lead)
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return shape.permute(x, order).reshape(*lead, channels * r**2, height // r, width // r)


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def unfold(input: Tensor, kernel_size: int | Sequence[int], dilation: int | Sequence[int] = 1,
           padding: int | Sequence[int] = 0, stride: int | Sequence[int] = 1) -> Tensor:
    """The patches under a window as columns: (N, C, H, W) gives (N, C kh kw, L), L the number of places.

    >>> import tilewright as tw
    >>> tw.nn.functional.unfold(tw.ones(1, 2, 4, 4), 2, stride=2).shape
    (1, 8, 4)
    """
    x = input if input.dim() == 4 else shape.unsqueeze(input, 0)
    if x.dim() != 4:
        raise ValueError(f"unfold: input must be (N, C, H, W) or (C, H, W), got {tuple(input.shape)}")
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = map(_pair, (kernel_size, dilation, padding, stride))
    x = pad.pad(x, (pw, pw, ph, ph)).contiguous() if ph or pw else x.contiguous()
    n, c, height, width = x.shape
    oh, ow = ((size - d * (k - 1) - 1) // s + 1 for size, d, k, s in ((height, dh, kh, sh), (width, dw, kw, sw)))
    if oh <= 0 or ow <= 0:
        raise ValueError(f"unfold: the window must fit, got kernel_size {(kh, kw)} for {tuple(input.shape)}")
    a, b, d, e = x.stride()
    patches = shape.as_strided(x, (n, c, kh, kw, oh, ow), (a, b, d * dh, e * dw, d * sh, e * sw), x.storage_offset())
    columns = patches.reshape(n, c * kh * kw, oh * ow)
    return columns if input.dim() == 4 else columns[0]


def fold(input: Tensor, output_size: int | Sequence[int], kernel_size: int | Sequence[int],
         dilation: int | Sequence[int] = 1, padding: int | Sequence[int] = 0,
         stride: int | Sequence[int] = 1) -> Tensor:
    """The sum of patches at their places, unfold's gradient: (N, C kh kw, L) gives (N, C, H, W).

    It is a transposed convolution with one weight of 1 for each place of the window.
    """
    x = input if input.dim() == 3 else shape.unsqueeze(input, 0)
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = map(_pair, (kernel_size, dilation, padding, stride))
    height, width = _pair(output_size)
    oh, ow = ((size + 2 * p - d * (k - 1) - 1) // s + 1
              for size, p, d, k, s in ((height, ph, dh, kh, sh), (width, pw, dw, kw, sw)))
    n, channels, places = x.shape
    if channels % (kh * kw) or places != oh * ow:
        raise ValueError(f"fold: input must be (N, C * {kh * kw}, {oh * ow}), got {tuple(input.shape)}")
    one = input.new_ones(kh * kw).diag().reshape(kh * kw, 1, kh, kw)
    spare: Any = tuple(size - ((o - 1) * s - 2 * p + d * (k - 1) + 1) for size, o, s, p, d, k in
                  ((height, oh, sh, ph, dh, kh), (width, ow, sw, pw, dw, kw)))
    c = channels // (kh * kw)
    y = conv.conv_transpose2d(x.reshape(n * c, kh * kw, oh, ow), one, None, (sh, sw), (ph, pw), spare, 1, (dh, dw))
    y = y.reshape(n, c, height, width)
    return y if input.dim() == 3 else y[0]


def _feature_dropout(op: str, input, p: float, training: bool, inplace: bool, spatial: int):
    lead = input.dim() - spatial
    if lead not in (1, 2):
        raise ValueError(f"{op}: input must have {spatial + 1} or {spatial + 2} dimensions, got {tuple(input.shape)}")
    if not training or p == 0:
        return input
    mask = random.dropout(input.new_ones([*input.shape[:lead], *[1] * spatial]), p, True)
    return elementwise.mul_(input, mask) if inplace else input * mask


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, L) or (C, L). Tompson et al. 2015 (arXiv:1411.4280)."""
    return _feature_dropout("dropout1d", input, p, training, inplace, 1)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, H, W) or (C, H, W)."""
    return _feature_dropout("dropout2d", input, p, training, inplace, 2)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    return _feature_dropout("dropout3d", input, p, training, inplace, 3)


def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """`interpolate` under its old name."""
    warnings.warn("upsample: use interpolate", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)
