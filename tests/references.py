"""What each op means, in NumPy: straight from the definitions, in the dtype of the arguments, with no regard for speed.

The tests call these in float64 (or long double) for the exact result and in the op's own dtype for the error that a
plain evaluation makes.
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def _per_element(fn):
    """A Python float function applied to each element, in the array's dtype."""
    table = np.vectorize(fn, otypes=[np.float64])

    def apply(x):
        x = np.asarray(x)
        out = table(x.astype(np.float64)) if x.size else np.zeros(x.shape)
        return np.asarray(out).astype(x.dtype if x.dtype.kind == "f" else np.float64)

    return apply


erf = _per_element(math.erf)
erfc = _per_element(math.erfc)


def widened(x):
    """Integers and bools count as float64 in functions whose results are real."""
    x = np.asarray(x)
    return x if x.dtype.kind == "f" else x.astype(np.float64)


# Elementwise, one argument ------------------------------------------------------------------------------------------


def sigmoid(x):
    x = widened(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def softplus(x, beta=1.0, threshold=20.0):
    z = x * beta
    return np.where(z > threshold, x, (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta)


def gelu(x, approximate="none"):
    if approximate == "tanh":
        k = np.sqrt(2 / np.asarray(np.pi, x.dtype))
        return 0.5 * x * (1 + np.tanh(k * (x + 0.044715 * x**3)))
    half = x / np.sqrt(np.asarray(2.0, x.dtype))
    if x.dtype == np.float32:  # the plain evaluation, which cancels for negative x
        return 0.5 * x * (1 + erf(half))
    return (0.5 * x * erfc(-half)).astype(x.dtype)


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def selu(x):
    """The two constants make mean 0 and variance 1 a fixed point (Klambauer et al., 2017)."""
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return scale * elu(x, alpha)


def leaky_relu(x, negative_slope=0.01):
    return np.where(x > 0, x, x * negative_slope)


def relu(x):
    return np.where(np.isnan(x), x, np.maximum(x, 0)) if x.dtype.kind == "f" else np.maximum(x, 0)


def clamp(x, min=None, max=None):
    y = x
    if min is not None:
        y = np.maximum(y, np.asarray(min, x.dtype) if np.isscalar(min) else min)
    if max is not None:
        y = np.minimum(y, np.asarray(max, x.dtype) if np.isscalar(max) else max)
    return y


# Elementwise, more arguments ----------------------------------------------------------------------------------------


def div(a, b, rounding_mode=None):
    if rounding_mode is None:
        return widened(a) / (widened(b) if not np.isscalar(b) else b)
    if rounding_mode == "floor":
        return np.floor_divide(a, b)
    if np.asarray(a).dtype.kind == "f":
        return np.trunc(a / b)
    return (np.sign(a.astype(np.int64)) * np.sign(b.astype(np.int64)) *
            (np.abs(a.astype(np.int64)) // np.abs(b.astype(np.int64)))).astype(a.dtype)  # fmt: skip


def lerp(a, b, weight):
    """a + w (b - a), counted from the nearer end, so that w = 1 gives b exactly."""
    w = np.asarray(weight, a.dtype)
    return np.where(np.abs(w) < 0.5, a + w * (b - a), b - (b - a) * (1 - w))


# Reductions ---------------------------------------------------------------------------------------------------------


def axes(dim):
    """PyTorch's dim as NumPy's axis."""
    return tuple(dim) if isinstance(dim, (list, tuple)) else dim


def total(x, dim=None, keepdim=False):
    x = np.asarray(x)
    return np.sum(x, axis=axes(dim), keepdims=keepdim, dtype=x.dtype if x.dtype.kind == "f" else np.int64)


def prod(x, dim=None, keepdim=False):
    return np.prod(x, axis=dim, keepdims=keepdim, dtype=x.dtype if x.dtype.kind == "f" else np.int64)


def mean(x, dim=None, keepdim=False):
    x, axis = np.asarray(x), axes(dim)
    n = x.size if axis is None else math.prod(x.shape[a] for a in np.atleast_1d(axis))
    return np.sum(x, axis=axis, keepdims=keepdim) / np.asarray(n, x.dtype)


def var(x, dim=None, correction=1, keepdim=False):
    x, axis = np.asarray(x), axes(dim)
    away = x - np.mean(x, axis=axis, keepdims=True)
    n = x.size if axis is None else math.prod(x.shape[a] for a in np.atleast_1d(axis))
    squares = np.sum(away * away, axis=axis, keepdims=keepdim)
    return squares / np.asarray(max(n - correction, 0), x.dtype)


def std(x, dim=None, correction=1, keepdim=False):
    return np.sqrt(var(x, dim, correction, keepdim))


def max_dim(x, dim, keepdim=False):
    return np.max(x, axis=dim, keepdims=keepdim), np.argmax(x, axis=dim, keepdims=keepdim)


def min_dim(x, dim, keepdim=False):
    return np.min(x, axis=dim, keepdims=keepdim), np.argmin(x, axis=dim, keepdims=keepdim)


def logsumexp(x, dim, keepdim=False):
    axis = axes(dim)
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    y = top + np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True))
    return y if keepdim else np.squeeze(y, axis=axis)


# Products and windows -----------------------------------------------------------------------------------------------


def linear(x, w, b=None):
    y = np.matmul(x, w.T)
    return y if b is None else y + b


def each(v, n):
    return tuple(v) * n if isinstance(v, (tuple, list)) and len(v) == 1 else (
        tuple(v) if isinstance(v, (tuple, list)) else (v,) * n)


def conv(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, sizes) or (C, sizes) with (O, C / groups, kernel), any number of dimensions; padding may be pairs."""
    nd, kernel = w.ndim - 2, w.shape[2:]
    if x.ndim == nd + 1:
        return conv(x[None], w, b, stride, padding, dilation, groups)[0]
    stride, dilation = each(stride, nd), each(dilation, nd)
    if padding == "same":
        padding = [((k - 1) * d // 2, (k - 1) * d - (k - 1) * d // 2) for k, d in zip(kernel, dilation, strict=True)]
    padding = [p if isinstance(p, tuple) else (p, p) for p in each(0 if padding == "valid" else padding, nd)]
    big = np.pad(x, ((0, 0), (0, 0), *padding))
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(big, spans, tuple(range(2, 2 + nd)))
    view = view[(slice(None), slice(None), *(slice(None, None, s) for s in stride),
                 *(slice(None, None, d) for d in dilation))]
    n, c, out, o = x.shape[0], x.shape[1], view.shape[2:2 + nd], w.shape[0]
    inner = c // groups * math.prod(kernel)
    view = view.reshape(n, groups, c // groups, *out, *kernel)
    columns = np.moveaxis(view, (1, 2), (0, 2 + nd)).reshape(groups, n * math.prod(out), inner)
    y = np.matmul(columns, w.reshape(groups, o // groups, inner).transpose(0, 2, 1))
    y = np.moveaxis(y.reshape(groups, n, *out, o // groups), (0, -1), (1, 2)).reshape(n, o, *out)
    return y if b is None else y + b.reshape(-1, *(1,) * nd)


def conv_transpose(x, w, b=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Spreads x with stride - 1 zeros between its elements, then correlates it with the turned filters."""
    nd, kernel = w.ndim - 2, w.shape[2:]
    if x.ndim == nd + 1:
        return conv_transpose(x[None], w, b, stride, padding, output_padding, groups, dilation)[0]
    stride, padding, extra, dilation = (each(v, nd) for v in (stride, padding, output_padding, dilation))
    sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    spread = np.zeros((*x.shape[:2], *sizes), x.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, s) for s in stride))] = x
    crop, grow = [], []
    for k, p, e, d in zip(kernel, padding, extra, dilation, strict=True):
        before, after = d * (k - 1) - p, d * (k - 1) - p + e
        grow.append((max(before, 0), max(after, 0)))
        crop.append(slice(max(-before, 0), -max(-after, 0) or None))
    spread = np.pad(spread[(slice(None), slice(None), *crop)], ((0, 0), (0, 0), *grow))
    c, per_group = w.shape[:2]
    turned = np.flip(w, tuple(range(2, 2 + nd))).reshape(groups, c // groups, per_group, *kernel)
    turned = turned.swapaxes(1, 2).reshape(groups * per_group, c // groups, *kernel)
    return conv(spread, turned, b, 1, 0, dilation, groups)


def out_size(n, k, stride, pad, dilation, ceil_mode=False):
    """Windows that fit; with ceil_mode the last may hang over, as long as it starts inside the image or left pad."""
    span = n + 2 * pad - dilation * (k - 1) - 1
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (count - 1) * stride >= n + pad:
        count -= 1
    return count


def windows(nd, x, kernel, stride, padding, dilation, fill, ceil_mode=False):
    """All windows along the last nd dims as (..., outs, window), out-of-image elements being `fill`; and the outs."""
    outs, stride = [], kernel if stride is None else stride
    given = (each(v, nd) for v in (kernel, stride, padding, dilation))
    for axis, k, s, p, d in zip(range(-nd, 0), *given, strict=True):
        n = x.shape[axis - len(outs)]
        out = out_size(n, k, s, p, d, ceil_mode)
        grow = [(0, 0)] * x.ndim
        grow[axis - len(outs)] = (p, max((out - 1) * s + d * (k - 1) + 1 - n - p, 0))
        x = np.take(np.pad(x, grow, constant_values=fill), np.arange(out)[:, None] * s + np.arange(k) * d,
                    axis - len(outs))
        x = np.moveaxis(x, axis - len(outs), -1)  # the window's items of this dim come last
        outs.append(out)
    return x.reshape(*x.shape[:-nd], math.prod(x.shape[-nd:]))


def max_pool(nd):
    def pool(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        view = windows(nd, x, kernel_size, stride, padding, dilation, -np.inf, ceil_mode)
        if not return_indices:
            return view.max(-1)
        where = np.arange(math.prod(x.shape[-nd:])).reshape(x.shape[-nd:]).astype(np.float64)
        spots = np.broadcast_to(windows(nd, where, kernel_size, stride, padding, dilation, -1, ceil_mode), view.shape)
        best = view.argmax(-1)[..., None]
        return view.max(-1), np.take_along_axis(spots, best, -1)[..., 0].astype(np.int64)

    return pool


def avg_pool(nd):
    def pool(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
        sums = windows(nd, x, kernel_size, stride, padding, 1, 0, ceil_mode).sum(-1)
        if divisor_override is not None:
            return sums / np.asarray(divisor_override, x.dtype)
        # The divisor counts the elements in the image, and the padding (but not what hangs over beyond it) if asked.
        inside = np.ones(x.shape[-nd:], x.dtype)
        pads = each(padding, nd)
        if count_include_pad:
            inside, pads = np.pad(inside, [(p, p) for p in pads], constant_values=1), 0
        stride = kernel_size if stride is None else stride
        counts = windows(nd, inside, kernel_size, stride, pads, 1, 0, ceil_mode).sum(-1)
        return sums / counts[tuple(slice(n) for n in sums.shape[-nd:])]

    return pool


def adaptive_pool(nd, fold):
    def pool(x, output_size, return_indices=False):
        sizes = [out or n for out, n in zip(each(output_size, nd), x.shape[-nd:], strict=True)]
        y = np.zeros((*x.shape[:-nd], *sizes), x.dtype)
        at = np.zeros(y.shape, np.int64)
        where = np.arange(math.prod(x.shape[-nd:])).reshape(x.shape[-nd:])
        for spot in itertools.product(*map(range, sizes)):
            window = tuple(slice(i * n // m, -(-(i + 1) * n // m))
                           for i, n, m in zip(spot, x.shape[-nd:], sizes, strict=True))
            part = x[(..., *window)]
            y[(..., *spot)] = fold(part, tuple(range(-nd, 0)))
            at[(..., *spot)] = where[window].ravel()[part.reshape(*part.shape[:-nd], -1).argmax(-1)]
        return (y, at) if return_indices else y

    return pool


def max_unpool(nd):
    def unpool(x, indices, kernel_size, stride=None, padding=0, output_size=None):
        sizes = output_size or [
            (n - 1) * s + k - 2 * p for n, k, s, p in zip(
                x.shape[-nd:], *(each(v, nd) for v in (kernel_size, stride or kernel_size, padding)), strict=True)]
        y = np.zeros((*x.shape[:-nd], math.prod(sizes)), x.dtype)
        flat = (*x.shape[:-nd], -1)
        np.put_along_axis(y, indices.reshape(flat), x.reshape(flat), -1)
        return y.reshape(*x.shape[:-nd], *sizes)

    return unpool


def lp_pool(nd):
    def pool(x, norm_type, kernel_size, stride=None, ceil_mode=False):
        p = np.asarray(norm_type, x.dtype)
        return windows(nd, x**p, kernel_size, stride, 0, 1, 0, ceil_mode).sum(-1) ** (1 / p)

    return pool


def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None):
    """Dense matrices of weights, one a dimension (PyTorch's conventions; cubic is Keys's with a = -0.75)."""
    nd = x.ndim - 2
    factors = (0,) * nd if scale_factor is None or recompute_scale_factor else each(scale_factor, nd)
    sizes = each(size, nd) if size is not None else [
        math.floor(n * f) for n, f in zip(x.shape[2:], each(scale_factor, nd), strict=True)]
    if mode == "area":
        return adaptive_pool(nd, np.mean)(x, tuple(sizes))
    for axis, (m, f) in enumerate(zip(sizes, factors, strict=True)):
        n = x.shape[2 + axis]
        step = 1 / np.longdouble(f) if f else np.longdouble(n) / m
        o = np.arange(m, dtype=np.longdouble)
        if mode in ("nearest", "nearest-exact"):
            taps = [(np.minimum(np.floor((o + 0.5 * (mode == "nearest-exact")) * np.float32(step)), n - 1), 0 * o + 1)]
        else:
            at = o * (n - 1) / max(m - 1, 1) if align_corners else (o + 0.5) * step - 0.5
            at = at if mode == "bicubic" else np.clip(at, 0, n - 1)
            low = np.floor(at)
            t = at - low
            if mode == "bicubic":
                def keys(d, a=-0.75):
                    d = np.abs(d)
                    return np.where(d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4))

                taps = [(low + k, keys(t - k)) for k in (-1, 0, 1, 2)]
            else:
                taps = [(low, 1 - t), (low + 1, t)]
        weights = np.zeros((m, n), np.longdouble)
        for index, w in taps:
            np.add.at(weights, (np.arange(m), np.clip(index, 0, n - 1).astype(int)), w)
        x = np.moveaxis(np.moveaxis(x, 2 + axis, -1) @ weights.T.astype(x.dtype), -1, 2 + axis)
    return x


# Rows, losses, normalization ----------------------------------------------------------------------------------------


def softmax(x, dim):
    e = np.exp(x - np.max(x, axis=dim, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=dim, keepdims=True)


def log_softmax(x, dim):
    x = x - np.max(x, axis=dim, keepdims=True, initial=-np.inf)
    return x - np.log(np.exp(x).sum(axis=dim, keepdims=True))


def reduced(loss, reduction, weight=None):
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / (np.asarray(loss.size, loss.dtype) if weight is None
                                                               else weight.sum())  # fmt: skip


def nll_loss(logp, target, weight=None, ignore_index=-100, reduction="mean"):
    """logp (N, C, ...), target (N, ...); a class's loss and its count in the mean are scaled by its weight."""
    if logp.ndim == 1:
        return nll_loss(logp[None], target[None], weight, ignore_index, "sum" if reduction == "none" else reduction)
    rows = np.moveaxis(logp, 1, -1)
    kept = target != ignore_index
    label = np.where(kept, target, 0)
    scale = (np.ones(logp.shape[1], logp.dtype) if weight is None else weight)[label] * kept
    return reduced(-np.take_along_axis(rows, label[..., None], -1)[..., 0] * scale, reduction, scale)


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    classes_dim = 1 if x.ndim > 1 else 0
    logp, classes = log_softmax(x, classes_dim), x.shape[classes_dim]
    scale = np.ones(classes, x.dtype) if weight is None else weight
    smooth = np.asarray(label_smoothing, x.dtype)
    if target.dtype.kind == "f":
        p = target * (1 - smooth) + smooth / classes
        loss = -(p * logp * scale.reshape(-1, *[1] * (x.ndim - classes_dim - 1))).sum(classes_dim)
        samples = max(loss.size, 1)
        return loss if reduction == "none" else loss.sum() / (1 if reduction == "sum" else samples)
    main = nll_loss(logp, target, weight, ignore_index, reduction)
    if label_smoothing == 0:
        return main
    kept = target != ignore_index
    flat = -(np.moveaxis(logp, classes_dim, -1) * scale).sum(-1) * kept
    weights = scale[np.where(kept, target, 0)] * kept
    return (1 - smooth) * main + smooth / classes * reduced(flat, reduction, weights)


def mse_loss(x, target, reduction="mean"):
    return reduced((x - target) ** 2, reduction)


def l1_loss(x, target, reduction="mean"):
    return reduced(np.abs(x - target), reduction)


def smooth_l1_loss(x, target, reduction="mean", beta=1.0):
    away = np.abs(x - target)
    return reduced(np.where(away < beta, 0.5 * away**2 / beta, away - 0.5 * beta), reduction)


def binary_cross_entropy(p, target, weight=None, reduction="mean"):
    loss = -(target * np.maximum(np.log(p), -100) + (1 - target) * np.maximum(np.log1p(-p), -100))
    return reduced(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits(x, target, weight=None, reduction="mean", pos_weight=None):
    log_weight = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    loss = (1 - target) * x + log_weight * (np.log1p(np.exp(-np.abs(x))) + np.maximum(-x, 0))
    return reduced(loss if weight is None else loss * weight, reduction)


def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    along = (1, -1, *[1] * (x.ndim - 2))
    rest = (0, *range(2, x.ndim))
    mu, var_ = (x.mean(rest), np.mean((x - x.mean(rest, keepdims=True)) ** 2, rest)) if training else (
        running_mean, running_var)  # fmt: skip
    y = (x - mu.reshape(along)) / np.sqrt(var_.reshape(along) + np.asarray(eps, x.dtype))
    y = y if weight is None else y * weight.reshape(along)
    return y if bias is None else y + bias.reshape(along)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    rest = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    away = x - x.mean(rest, keepdims=True)
    y = away / np.sqrt(np.mean(away * away, rest, keepdims=True) + np.asarray(eps, x.dtype))
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def rms_norm(x, normalized_shape, weight=None, eps=None):
    rest = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    eps = np.finfo(np.float32).eps if eps is None else eps
    y = x / np.sqrt(np.mean(x * x, rest, keepdims=True) + np.asarray(eps, x.dtype))
    return y if weight is None else y * weight


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    along = (1, -1, *[1] * (x.ndim - 2))
    flat = x.reshape(x.shape[0], num_groups, int(np.prod(x.shape[1:])) // num_groups)
    y = layer_norm(flat, (0,), eps=eps).reshape(x.shape)
    y = y if weight is None else y * weight.reshape(along)
    return y if bias is None else y + bias.reshape(along)


def instance_norm(x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, eps=1e-5):
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
    return group_norm(x, x.shape[1], weight, bias, eps)


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """A query that sees no key gives 0."""
    if enable_gqa:
        k, v = (np.repeat(t, q.shape[-3] // t.shape[-3], -3) for t in (k, v))
    s = q @ np.swapaxes(k, -1, -2) * q.dtype.type(1 / np.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = np.tril(np.ones(s.shape[-2:], bool))
    if attn_mask is not None:
        s = np.where(attn_mask, s, -np.inf) if attn_mask.dtype == bool else s + attn_mask
    top = s.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(np.isneginf(top), 0, top)).astype(q.dtype)
    total = e.sum(-1, keepdims=True)
    return (e / np.where(total == 0, 1, total)) @ v


# Selection and arrangement ------------------------------------------------------------------------------------------


def gather(x, dim, index):
    """y[i][j][k] = x[index[i][j][k]][j][k] for dim 0; index may be smaller than x in the other dims."""
    if x.ndim == 0:
        return x
    spots = list(np.indices(index.shape, sparse=True))
    spots[dim] = index
    return x[tuple(spots)]


def scatter_add(x, dim, index, src):
    y, spots = x.copy(), list(np.indices(index.shape, sparse=True))
    spots[dim] = index
    np.add.at(y, tuple(np.broadcast_arrays(*spots)), src[tuple(slice(n) for n in index.shape)])
    return y


def index_add(x, dim, index, src):
    y = np.moveaxis(x.copy(), dim, 0)
    np.add.at(y, index, np.moveaxis(src, dim, 0))
    return np.moveaxis(y, 0, dim)


def pad(x, pad, mode="constant", value=0):
    """`pad` lists (before, after) from the last dim backwards; negative numbers cut."""
    amounts = [(0, 0)] * x.ndim
    for i in range(len(pad) // 2):
        amounts[x.ndim - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    cut = tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(amounts, x.shape, strict=True))
    grow = [(max(a, 0), max(b, 0)) for a, b in amounts]
    if mode == "constant":
        return np.pad(x[cut], grow, constant_values=value or 0)
    if mode == "circular":
        return np.pad(x[cut], grow, mode="wrap")
    grown = np.pad(x, grow, mode={"reflect": "reflect", "replicate": "edge"}[mode])
    return grown[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(amounts, grown.shape, strict=True))]


# Optimizers: one step of one parameter; state is a dict that the step fills and updates ---------------------------


def sgd_step(p, g, state, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False):
    g = (-g if maximize else g) + weight_decay * p
    if momentum:
        first = "momentum" not in state
        state["momentum"] = g if first else momentum * state["momentum"] + (1 - dampening) * g
        g = g + momentum * state["momentum"] if nesterov else state["momentum"]
    return p - lr * g


def adam_step(p, g, state, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False, amsgrad=False,
              maximize=False):  # fmt: skip
    g = -g if maximize else g
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    t = state["step"] = state.get("step", 0) + 1
    m = state["m"] = betas[0] * state.get("m", 0 * p) + (1 - betas[0]) * g
    v = state["v"] = betas[1] * state.get("v", 0 * p) + (1 - betas[1]) * g * g
    if amsgrad:
        v = state["top"] = np.maximum(state.get("top", 0 * p), v)
    return p - lr / (1 - betas[0] ** t) * m / (np.sqrt(v) / np.sqrt(1 - betas[1] ** t) + eps)
