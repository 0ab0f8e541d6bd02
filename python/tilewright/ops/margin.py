"""Losses that ask for a margin: between a score and its target, two scores, the classes of a row, or two distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.autocast import widen
from tilewright.autograd import wrap
from tilewright.ops import elementary as _m
from tilewright.ops import elementwise as _e
from tilewright.ops import index, scan
from tilewright.ops import reduce as _r
from tilewright.ops.activation import logsigmoid
from tilewright.ops.composed import pairwise_distance
from tilewright.ops.loss import reduced, reduction_of

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


def _above(x):
    return _e.clamp(x, min=0.0)


# --- two classes, y = 1 or -1 ----------------------------------------------------------------------------------------
@_e.in_float32
@widen
def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, size_average: Any = None,
                         reduce: Any = None, reduction: str = "mean") -> Tensor:
    """x where y = 1, max(0, margin - x) where y = -1, of distances x.

    >>> import tilewright as tw
    >>> tw.nn.functional.hinge_embedding_loss(tw.tensor([0.5, 0.25]), tw.tensor([1, -1]), reduction="none").tolist()
    [0.5, 0.75]
    """
    reduction = reduction_of("hinge_embedding_loss", size_average, reduce, reduction)
    loss = _e.where(target != 1, _above(margin - input), 0.0) + _e.where(target != -1, input, 0.0)
    return reduced(loss, reduction)


@_e.in_float32
@widen
def soft_margin_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                     reduction: str = "mean") -> Tensor:
    """log(1 + exp(-y x)), which does not overflow here.

    >>> import tilewright as tw
    >>> round(tw.nn.functional.soft_margin_loss(tw.tensor([0.0]), tw.tensor([1.0])).item(), 4)
    0.6931
    """
    reduction = reduction_of("soft_margin_loss", size_average, reduce, reduction)
    return reduced(-logsigmoid(target * input), reduction)


@_e.in_float32
@widen
def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, size_average: Any = None,
                        reduce: Any = None, reduction: str = "mean") -> Tensor:
    """max(0, margin - y (x1 - x2)): y = 1 wants x1 larger, -1 x2.

    Raises:
        ValueError: inputs and target of different numbers of dimensions.
    """
    reduction = reduction_of("margin_ranking_loss", size_average, reduce, reduction)
    if not input1.ndim == input2.ndim == target.ndim:
        raise ValueError(f"margin_ranking_loss: inputs and target must have as many dims, got {input1.shape}, "
                         f"{input2.shape} and {target.shape}")
    return reduced(_above(margin - target * (input1 - input2)), reduction)


@_e.in_float32
@widen
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, size_average: Any = None,
                          reduce: Any = None, reduction: str = "mean") -> Tensor:
    """1 - cos(x1, x2) where y = 1, max(0, cos(x1, x2) - margin) where y = -1, of rows (N, D) and y (N,), or of (D,)
    and one y.

    Raises:
        ValueError: shapes that do not fit.

    >>> import tilewright as tw
    >>> x = tw.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> tw.nn.functional.cosine_embedding_loss(x, x, tw.tensor([1, -1]), reduction="none").tolist()
    [0.0, 1.0]
    """
    reduction = reduction_of("cosine_embedding_loss", size_average, reduce, reduction)
    if target.ndim > 1 or input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        raise ValueError(f"cosine_embedding_loss: inputs must be (N, D) and target (N,), or (D,) and (), got "
                         f"{input1.shape}, {input2.shape} and {target.shape}")
    dot, a, b = (_r.sum(x * y, -1) for x, y in ((input1, input2), (input1, input1), (input2, input2)))
    cosine = dot / _m.sqrt((a + 1e-12) * (b + 1e-12))
    loss = _e.where(target == 1, 1.0 - cosine, 0.0) + _e.where(target == -1, _above(cosine - margin), 0.0)
    return reduced(loss, reduction)


# --- many classes ----------------------------------------------------------------------------------------------------
@widen
def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
                      size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> Tensor:
    """weight_y sum over c != y of max(0, margin - x_y + x_c)^p / C of scores (N, C) or (C,) and labels y; p is 1 or 2.

    Raises:
        ValueError: another p; shapes that do not fit. IndexError: a label that is no class.

    >>> import tilewright as tw
    >>> tw.nn.functional.multi_margin_loss(tw.tensor([[0.0, 0.5, 3.0]]), tw.tensor([2])).item()
    0.0
    """
    reduction = reduction_of("multi_margin_loss", size_average, reduce, reduction)
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p must be 1 or 2, got {p}")
    if input.ndim > 2 or (target.shape != input.shape[:-1] and target.numel() != 1):
        raise ValueError(f"multi_margin_loss: input must be (N, C) or (C,), and target without the classes, got "
                         f"{input.shape} and {target.shape}")
    classes = input.shape[-1] if input.ndim else 1
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"multi_margin_loss: weight must have one value a class, got {weight.shape} for {classes}")
    x, label = input.reshape(-1, classes), target.reshape(-1, 1)
    loss = _above(margin - index.gather(x, 1, label) + x)
    loss = loss if p == 1 else _m.square(loss)
    if weight is not None:
        loss = loss * weight[label]
    own = wrap(_engine.arange(0, classes, 1, _engine.int64, input.device)) == label
    loss = _r.sum(_e.where(own, 0.0, loss), 1) / classes
    return reduced(loss.reshape(input.shape[:-1]), reduction)


@_e.in_float32
@widen
def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                           reduction: str = "mean") -> Tensor:
    """sum over labels y and classes c that are none of max(0, 1 - x_y + x_c) / C of scores (N, C) or (C,).

    target: int64 of the input's shape; a row's labels stand first, and -1 ends them.

    Raises:
        ValueError: shapes that differ. IndexError: a label that is no class.

    >>> import tilewright as tw
    >>> x, y = tw.tensor([[0.0, 0.25, 0.5, 1.0]]), tw.tensor([[3, 0, -1, 1]])
    >>> tw.nn.functional.multilabel_margin_loss(x, y).item()
    0.875
    """
    reduction = reduction_of("multilabel_margin_loss", size_average, reduce, reduction)
    if input.ndim > 2 or target.shape != input.shape:
        raise ValueError(f"multilabel_margin_loss: input and target must both be (N, C) or (C,), got {input.shape} and "
                         f"{target.shape}")
    classes = input.shape[-1] if input.ndim else 1
    x, labels = input.reshape(-1, classes), target.reshape(-1, classes)
    given = scan.cumprod((labels >= 0).long(), 1)
    labels = labels * given
    is_label = index.scatter_add(given.new_zeros(given.shape), 1, labels, given) > 0
    apart = _above(1.0 - index.gather(x, 1, labels).unsqueeze(2) + x.unsqueeze(1))  # (N, labels, classes)
    counts = _e.logical_and(given.unsqueeze(2) != 0, _e.logical_not(is_label).unsqueeze(1))
    loss = _r.sum(_e.where(counts, apart, 0.0), (1, 2)) / classes
    return reduced(loss.reshape(input.shape[:-1]), reduction)


@_e.in_float32
@widen
def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
                                reduce: Any = None, reduction: str = "mean") -> Tensor:
    """-mean over classes of weight (y log s + (1 - y) log(1 - s)), s = sigmoid(x), of (..., C)."""
    reduction = reduction_of("multilabel_soft_margin_loss", size_average, reduce, reduction)
    loss = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    return reduced(_r.mean(loss if weight is None else loss * weight, -1), reduction)


# --- distances of three ----------------------------------------------------------------------------------------------
def _triplet(op, distance, anchor, positive, negative, margin, swap, reduction):
    if not margin > 0:
        raise ValueError(f"{op}: margin must be positive, got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ValueError(f"{op}: anchor, positive and negative must have as many dims, got {anchor.shape}, "
                         f"{positive.shape} and {negative.shape}")
    far = distance(anchor, negative)
    if swap:
        far = _e.minimum(far, distance(positive, negative))
    return reduced(_above(margin + distance(anchor, positive) - far), reduction)


@_e.in_float32
@widen
def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0,
                        eps: float = 1e-06, swap: bool = False, size_average: Any = None, reduce: Any = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, margin + d(a, p) - d(a, n)), d the p-norm of the difference + eps over the last dim.

    With `swap` the smaller of d(a, n) and d(p, n) stands for d(a, n). Balntas et al., Learning local feature
    descriptors with triplets and shallow convolutional neural networks (2016).

    Raises:
        ValueError: margin not positive; different numbers of dims.

    >>> import tilewright as tw
    >>> a, p, n = tw.tensor([[0.0]]), tw.tensor([[0.5]]), tw.tensor([[1.25]])
    >>> round(tw.nn.functional.triplet_margin_loss(a, p, n).item(), 3)
    0.25
    """
    reduction = reduction_of("triplet_margin_loss", size_average, reduce, reduction)
    return _triplet("triplet_margin_loss", lambda x, y: pairwise_distance(x, y, p, eps), anchor, positive, negative,
                    margin, swap, reduction)


def triplet_margin_with_distance_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *,
                                      distance_function: Any = None, margin: float = 1.0, swap: bool = False,
                                      reduction: str = "mean") -> Tensor:
    """`triplet_margin_loss` with a distance of one's own, a function of two tensors; by default pairwise_distance."""
    name = "triplet_margin_with_distance_loss"
    return _triplet(name, distance_function or pairwise_distance, anchor, positive, negative, margin, swap,
                    reduction_of(name, None, None, reduction))
