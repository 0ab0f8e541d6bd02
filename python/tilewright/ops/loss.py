"""Losses. `reduction` is "mean", "sum" or "none"; size_average and reduce are PyTorch's older words for the choice."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.autocast import widen
from tilewright.autograd import record, wrap
from tilewright.grad_mode import mode, no_grad
from tilewright.ops import elementary as _m
from tilewright.ops import elementwise as _e
from tilewright.ops import index
from tilewright.ops import reduce as _r
from tilewright.ops.activation import sigmoid
from tilewright.ops.softmax import log_softmax, softmax

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def reduction_of(op: Any, size_average: Any, reduce: Any, reduction: Any,
                 choices: Any = ("none", "mean", "sum")) -> Any:
    """`reduction`, or what the older words for it ask for, with a warning that they are old."""
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
        warnings.warn(f"{op}: size_average and reduce are old names; write reduction='{reduction}'", UserWarning,
                      stacklevel=3)
    if reduction not in choices:
        raise ValueError(f"{op}: reduction must be one of {', '.join(map(repr, choices))}, got {reduction!r}")
    return reduction


def reduced(loss: Any, reduction: Any, dtype: Any = None, count: Any = None) -> Tensor:
    """The loss of a function made of several ops, which runs in float32 for halves, in its inputs' dtype. `count` is
    what the mean divides by, where it is not the number of values."""
    if reduction != "none":
        mean = reduction == "mean" and count is None
        loss = _r.mean(loss) if mean else _r.sum(loss)
        loss = loss / count if reduction == "mean" and not mean else loss
    return loss if dtype is None else loss.to(dtype)


def _weighted(op, loss, weight, input):
    """The loss times `weight`, which must not broadcast."""
    if weight.array.shape != input.array.shape:
        raise ValueError(f"{op}: weight must have the input's shape, got {weight.shape} and {input.shape}")
    return loss * weight


def _wide(*tensors):
    """Tensors to compute with, halves as float32; and the dtype of the result."""
    dtype = tensors[0].dtype
    for t in tensors[1:]:
        dtype = _engine.promote_types(dtype, t.dtype)
    return (*(t.float() if t.array.is_float and t.dtype.itemsize == 2 else t for t in tensors), dtype)


def _same_shape(op, input, target, may_broadcast):
    if input.array.shape == target.array.shape:
        return
    shapes = f"{input.shape} and {target.shape}"
    try:
        fits = may_broadcast and _engine.add(input.array, target.array) is not None
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{op}: input and target must have one shape, got {shapes}")
    warnings.warn(f"{op}: input and target have different shapes, {shapes}, and are broadcast; this is probably not "
                  f"what you want", UserWarning, stacklevel=3)


# --- classes ---------------------------------------------------------------------------------------------------------
@widen
def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
                  ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """-weight[t] log softmax(x)[t] of logits x and class labels t, or -sum_c t_c weight_c log softmax(x)_c of class
    probabilities t.

    Args:
        input: logits (C,), (N, C) or (N, C, d...).
        target: labels without the class dim, integers; or probabilities of the input's shape.
        weight: (C,), a factor for each class; the mean divides by the sum of the labels' weights.
        ignore_index: rows of this label count nothing.
        label_smoothing: the share of the target that is spread evenly over the classes.

    Raises:
        IndexError: a label that is neither a class nor ignore_index. ValueError: shapes that do not fit.
        TypeError: integer logits.

    Smoothing: Szegedy et al. (2016), arXiv:1512.00567, section 7.

    >>> import tilewright as tw
    >>> loss = tw.nn.functional.cross_entropy(tw.tensor([[0.0, 0.0], [0.0, 0.0]]), tw.tensor([0, 1]))
    >>> round(loss.item(), 4)
    0.6931
    """
    reduction = reduction_of("cross_entropy", size_average, reduce, reduction)
    if target.array.is_float:
        if ignore_index >= 0:
            raise ValueError(f"cross_entropy: ignore_index needs class labels (integers), got {ignore_index} and a "
                             f"target of {target.dtype.name}")
        return _cross_entropy_of_probabilities(input, target, weight, reduction, label_smoothing)
    loss, stats = _engine.cross_entropy(input.array, target.array, None if weight is None else weight.array,
                                        ignore_index, reduction, label_smoothing)
    return record(cross_entropy_grad, loss, (input,), (input, target, weight, stats),
                  (ignore_index, reduction, label_smoothing))


def cross_entropy_grad(node, dy):
    (x, target, weight, stats), (ignore_index, reduction, smoothing) = node.saved, node.attrs
    if not mode.grad:
        return (wrap(_engine.cross_entropy_backward(dy.array, x.array, target.array, None if weight is None else
                                                    weight.array, stats.array, ignore_index, reduction, smoothing)),)
    dim = 1 if x.ndim > 1 else 0
    classes = x.shape[dim]
    column = (-1,) + (1,) * (x.ndim - dim - 1)
    labels = wrap(_engine.arange(0, classes, 1, _engine.int64, x.device))
    label = labels.reshape(column) == target.unsqueeze(dim)
    valid = (target != ignore_index).unsqueeze(dim).to(x.dtype)
    label = _e.logical_and(label, valid != 0)
    w = wrap(_engine.full((), 1, x.dtype, x.device)) if weight is None else weight.to(x.dtype).reshape(column)
    picked = _r.sum(_e.where(label, w, 0.0), dim, True)
    own, even = picked * (1.0 - smoothing), valid * (smoothing / classes)
    total = classes if weight is None else _r.sum(w)
    g = dy.unsqueeze(dim) if reduction == "none" else dy / _r.sum(picked) if reduction == "mean" else dy
    return (g * (softmax(x, dim) * (own + even * total) - _e.where(label, own, 0.0) - even * w),)


def _cross_entropy_of_probabilities(input, target, weight, reduction, smoothing):
    if input.array.shape != target.array.shape:
        raise ValueError(f"cross_entropy: probabilities must have the logits' shape, got logits {input.shape} and "
                         f"target {target.shape} of {target.dtype.name} (class labels are integers)")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], got {smoothing}")
    dim = 1 if input.ndim > 1 else 0
    classes = input.shape[dim]
    input, target, dtype = _wide(input, target)
    if smoothing:
        target = target * (1.0 - smoothing) + smoothing / classes
    terms = log_softmax(input, dim) * target
    if weight is not None:
        if weight.shape != (classes,):
            raise ValueError(f"cross_entropy: weight must have one value a class, got {weight.shape} for {classes} "
                             f"classes")
        terms = terms * weight.reshape((-1,) + (1,) * (input.ndim - dim - 1))
    loss = -_r.sum(terms, dim)
    # The mean is over rows, not over elements of the target.
    return reduced(loss, reduction, dtype)


@widen
def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
             ignore_index: int = -100, reduce: Any = None, reduction: str = "mean") -> Tensor:
    """-weight[t] x[t] of log-probabilities x, (C,), (N, C) or (N, C, d...), and class labels t.

    Raises:
        IndexError: a label that is neither a class nor ignore_index. ValueError: shapes that do not fit.

    >>> import tilewright as tw
    >>> tw.nn.functional.nll_loss(tw.tensor([[-1.0, -2.0]]), tw.tensor([1])).item()
    2.0
    """
    reduction = reduction_of("nll_loss", size_average, reduce, reduction)
    dim = 1 if input.ndim > 1 else 0
    if target.array.is_float or input.ndim == 0 or target.shape != input.shape[:dim] + input.shape[dim + 1:]:
        raise ValueError(f"nll_loss: target must be integer labels of the input's shape without the classes, got input "
                         f"{input.shape} and {target.dtype.name} {target.shape}")
    classes = input.shape[dim]
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"nll_loss: weight must have one value a class, got {weight.shape} for {classes} classes")
    ignored = target == ignore_index
    label = _e.where(ignored, 0, target).long()
    # On a GPU, where reading a value waits, `gather` tells of a wrong label instead.
    if input.device.type == "cpu" and label.numel() and not (
            _engine.item(_engine.amin(label.array, None, False)) >= 0
            and _engine.item(_engine.amax(label.array, None, False)) < classes):
        bad = next(int(t) for t in label.reshape(-1).tolist() if not 0 <= t < classes)
        raise IndexError(f"nll_loss: labels must be in [0, {classes}) or ignore_index {ignore_index}, got {bad}")
    picked, dtype = _wide(index.gather(input, dim, label.unsqueeze(dim)).squeeze(dim))
    w = 1.0 if weight is None else weight.to(picked.dtype)[label]
    w = _e.where(ignored, 0.0, w)
    loss = _e.where(ignored, 0.0, -picked * w)
    return reduced(loss, reduction, dtype, _r.sum(w) if reduction == "mean" else None)


# --- numbers ---------------------------------------------------------------------------------------------------------
@_e.in_float32
@widen
def mse_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
             weight: Tensor | None = None) -> Tensor:
    """(x - y)^2; with `weight`, of the input's shape, the mean is weighted.

    Raises:
        ValueError: shapes that do not broadcast (those that do get a warning); a weight of another shape.

    >>> import tilewright as tw
    >>> tw.nn.functional.mse_loss(tw.tensor([1.0, 4.0]), tw.tensor([1.0, 2.0])).item()
    2.0
    """
    reduction = reduction_of("mse_loss", size_average, reduce, reduction)
    _same_shape("mse_loss", input, target, True)
    x, y, dtype = _wide(input, target)
    loss = _m.square(x - y)
    if weight is None:
        return reduced(loss, reduction, dtype)
    return reduced(_weighted("mse_loss", loss, weight, input), reduction, dtype, _r.sum(weight))


@_e.in_float32
@widen
def l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
            weight: Tensor | None = None) -> Tensor:
    """|x - y|; with `weight`, of the input's shape, the mean is weighted.

    Raises:
        ValueError: shapes that do not broadcast (those that do get a warning); a weight of another shape.
    """
    reduction = reduction_of("l1_loss", size_average, reduce, reduction)
    _same_shape("l1_loss", input, target, True)
    x, y, dtype = _wide(input, target)
    loss = _m.abs(x - y)
    if weight is None:
        return reduced(loss, reduction, dtype)
    return reduced(_weighted("l1_loss", loss, weight, input), reduction, dtype, _r.sum(weight))


@_e.in_float32
@widen
def smooth_l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                   beta: float = 1.0) -> Tensor:
    """d^2 / (2 beta) where d = |x - y| < beta, else d - beta / 2; beta 0 is `l1_loss`.

    Raises:
        ValueError: beta negative; shapes that do not broadcast (those that do get a warning).

    Girshick (2015), arXiv:1504.08083, equation 3.
    """
    reduction = reduction_of("smooth_l1_loss", size_average, reduce, reduction)
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    _same_shape("smooth_l1_loss", input, target, True)
    x, y, dtype = _wide(input, target)
    d = _m.abs(x - y)
    return reduced(_e.where(d < beta, _m.square(d) * (0.5 / beta), d - 0.5 * beta) if beta else d, reduction, dtype)


@_e.in_float32
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """d^2 / 2 where d = |x - y| < delta, else delta (d - delta / 2); times `weight`, of the input's shape.

    Raises:
        ValueError: delta not positive; shapes that do not broadcast (those that do get a warning); a weight of another
            shape.
    """
    reduction = reduction_of("huber_loss", None, None, reduction)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    _same_shape("huber_loss", input, target, True)
    x, y, dtype = _wide(input, target)
    d = _m.abs(x - y)
    loss = _e.where(d < delta, _m.square(d) * 0.5, (d - 0.5 * delta) * delta)
    return reduced(loss if weight is None else _weighted("huber_loss", loss, weight, input), reduction, dtype)


# --- two classes -----------------------------------------------------------------------------------------------------
@_e.in_float32
def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
                         reduce: Any = None, reduction: str = "mean") -> Tensor:
    """-(y log p + (1 - y) log(1 - p)) of probabilities p, each logarithm at least -100; times `weight`.

    Raises:
        ValueError: shapes that differ; p outside [0, 1].

    >>> import tilewright as tw
    >>> round(tw.nn.functional.binary_cross_entropy(tw.tensor([0.5]), tw.tensor([1.0])).item(), 4)
    0.6931
    """
    reduction = reduction_of("binary_cross_entropy", size_average, reduce, reduction)
    _same_shape("binary_cross_entropy", input, target, False)
    if input.numel():
        low, high = (_engine.item(f(input.array, None, False)) for f in (_engine.amin, _engine.amax))
        if not (low >= 0 and high <= 1):
            raise ValueError(f"binary_cross_entropy: probabilities must be in [0, 1], got values in [{low}, {high}]")
    input, target, dtype = _wide(input, target)
    with no_grad():
        log_p, log_q = _clamped_logs(input)
        loss = -(target * log_p + (1.0 - target) * log_q)
    loss = record(binary_cross_entropy_grad, loss.array, (input, target), (input, target))
    return reduced(loss if weight is None else loss * weight, reduction, dtype)


def _clamped_logs(p):
    return _e.clamp(_m.log(p), min=-100.0), _e.clamp(_m.log1p(-p), min=-100.0)


def binary_cross_entropy_grad(node, dy):
    p, y = node.saved
    dp = dy * ((p - y) / _e.clamp((1.0 - p) * p, min=1e-12)) if node.needs[0] else None
    if not node.needs[1]:
        return dp, None
    log_p, log_q = _clamped_logs(p)
    return dp, dy * (log_q - log_p)


@_e.in_float32
@widen
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                                     pos_weight: Tensor | None = None) -> Tensor:
    """-(pos_weight y log s + (1 - y) log(1 - s)), s = sigmoid(x), times `weight`; computed as
    (1 - y) x + (1 + (pos_weight - 1) y) log(1 + exp(-x)), which neither overflows nor loses small values.

    Raises:
        ValueError: shapes that differ.

    >>> import tilewright as tw
    >>> loss = tw.nn.functional.binary_cross_entropy_with_logits(tw.tensor([0.0, 1000.0]), tw.tensor([1.0, 1.0]))
    >>> round(loss.item(), 4)
    0.3466
    """
    reduction = reduction_of("binary_cross_entropy_with_logits", size_average, reduce, reduction)
    _same_shape("binary_cross_entropy_with_logits", input, target, False)
    input, target, dtype = _wide(input, target)
    with no_grad():
        tail = _log1p_exp_minus(input)
        loss = (1.0 - target) * input + (tail if pos_weight is None else ((pos_weight - 1.0) * target + 1.0) * tail)
    loss = record(binary_cross_entropy_with_logits_grad, loss.array,
                  (input, target, _e.NUMBER if pos_weight is None else pos_weight), (input, target, pos_weight))
    return reduced(loss if weight is None else loss * weight, reduction, dtype)


def _log1p_exp_minus(x):
    return _m.log1p(_m.exp(-_m.abs(x))) + _e.maximum(-x, 0.0)


def binary_cross_entropy_with_logits_grad(node, dy):
    x, y, pos_weight = node.saved
    dx = dtarget = dweight = None
    if node.needs[0]:
        s = sigmoid(x)
        dx = dy * (s - y) if pos_weight is None else dy * ((1.0 - y) - ((pos_weight - 1.0) * y + 1.0) * sigmoid(-x))
    if node.needs[1]:
        dtarget = dy * (-x if pos_weight is None else (pos_weight - 1.0) * _log1p_exp_minus(x) - x)
    if node.needs[2]:
        dweight = dy * (y * _log1p_exp_minus(x))
    return dx, dtarget, dweight


# --- distributions ---------------------------------------------------------------------------------------------------
@_e.in_float32
@widen
def kl_div(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
           log_target: bool = False) -> Tensor:
    """target (log target - input): input holds log probabilities, target probabilities (or their logs).

    `reduction`: 'batchmean' (the divergence: the sum over the batch's size), 'sum', 'mean' or 'none'. 'mean' warns that
    it divides by the number of values, which is not the divergence.

    >>> import tilewright as tw
    >>> loss = tw.nn.functional.kl_div(tw.tensor([[0.5, 0.5]]).log(), tw.tensor([[1.0, 0.0]]), reduction="batchmean")
    >>> round(loss.item(), 4)
    0.6931
    """
    reduction = reduction_of("kl_div", size_average, reduce, reduction, ("none", "batchmean", "mean", "sum"))
    if reduction == "mean":
        warnings.warn("kl_div: reduction 'mean' divides by the number of values; the divergence of a batch is "
                      "reduction='batchmean'", UserWarning, stacklevel=2)
    if log_target:
        loss = _m.exp(target) * (target - input)
    else:
        loss = target * _m.log(_e.where(target == 0, 1.0, target)) - target * input
    if reduction == "batchmean":
        return _r.sum(loss) / (input.shape[0] if input.dim() else 1)
    return reduced(loss, reduction)


@_e.in_float32
@widen
def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: Any = None, eps: float = 1e-08, reduce: Any = None,
                     reduction: str = "mean") -> Tensor:
    """exp(x) - y x of log rates x, or x - y log(x + eps) of rates; -log of the Poisson probability of counts y.

    `full` adds Stirling's y log y - y + log(2 pi y) / 2 for log(y!), where y > 1.

    >>> import tilewright as tw
    >>> tw.nn.functional.poisson_nll_loss(tw.tensor([0.0]), tw.tensor([3.0])).item()
    1.0
    """
    reduction = reduction_of("poisson_nll_loss", size_average, reduce, reduction)
    loss = _m.exp(input) - target * input if log_input else input - target * _m.log(input + eps)
    if full:
        many = target > 1
        y = _e.where(many, target, 1.0)
        loss = loss + _e.where(many, y * _m.log(y) - y + _m.log(y * (2 * math.pi)) * 0.5, 0.0)
    return reduced(loss, reduction)


@_e.in_float32
@widen
def gaussian_nll_loss(input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-06,
                      reduction: str = "mean") -> Tensor:
    """(log v + (x - y)^2 / v) / 2, v = max(var, eps); `full` adds log(2 pi) / 2. Gradients pass to var unclamped.

    var: a number; or of the input's shape, or without its last dim, or with one dim of size 1 in place of the input's.
    Nix and Weigend, Estimating the mean and variance of the target probability distribution (1994).

    Raises:
        ValueError: a negative variance, or one of another shape.

    >>> import tilewright as tw
    >>> tw.nn.functional.gaussian_nll_loss(tw.tensor([1.0]), tw.tensor([3.0]), tw.tensor([1.0])).item()
    2.0
    """
    reduction = reduction_of("gaussian_nll_loss", None, None, reduction)
    if not isinstance(var, autograd.Tensor):
        var = wrap(_engine.full((), var, input.dtype, input.device)).expand(input.shape)
    elif var.shape != input.shape:
        if var.shape == input.shape[:-1]:
            var = var.unsqueeze(-1)
        elif var.ndim != input.ndim or [m for m, n in zip(var.shape, input.shape, strict=True) if m != n] != [1]:
            raise ValueError(f"gaussian_nll_loss: var must have the input's shape, or all but one dim of it, got "
                             f"{var.shape} and {input.shape}")
    if var.numel() and not _engine.item(_engine.amin(var.array, None, False)) >= 0:
        raise ValueError("gaussian_nll_loss: var must not be negative, got "
                         f"{_engine.item(_engine.amin(var.array, None, False)):g}")
    var = var + (_e.clamp(var, min=eps) - var).detach()
    loss = (_m.log(var) + _m.square(input - target) / var) * 0.5
    return reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)
