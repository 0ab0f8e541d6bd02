"""Boxes, regions of interest and the focal loss, under the names of torchvision.ops.

A box is (x1, y1, x2, y2), x1 <= x2, y1 <= y2.
"""

from __future__ import annotations

from typing import Any

from tilewright import _engine, autograd
from tilewright.autograd import first_order, record, wrap
from tilewright.nn.module import Module
from tilewright.ops import elementwise, shape
from tilewright.ops.activation import sigmoid
from tilewright.ops.loss import binary_cross_entropy_with_logits, reduced, reduction_of
from tilewright.tensor import Tensor

__all__ = ["RoIAlign", "RoIPool", "batched_nms", "box_area", "box_iou", "nms", "roi_align", "roi_pool",
           "sigmoid_focal_loss"]

Size = int | tuple[int, int]


# --- boxes -----------------------------------------------------------------------------------------------------------
def _boxes(op: str, boxes: Any) -> Tensor:
    """(n, 4) boxes, halves as float32."""
    if not isinstance(boxes, autograd.Tensor):
        raise TypeError(f"{op}: boxes must be a Tensor, got {type(boxes).__name__}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{op}: boxes must be (n, 4), got {tuple(boxes.shape)}")
    return boxes.float() if boxes.dtype in (_engine.float16, _engine.bfloat16) else boxes


def box_area(boxes: Tensor) -> Tensor:
    """(x2 - x1) (y2 - y1) of (n, 4) boxes, as (n,); halves give float32.

    Raises:
        ValueError: another shape.

    >>> import tilewright as tw
    >>> tw.vision.ops.box_area(tw.tensor([[0.0, 0.0, 2.0, 3.0]])).tolist()
    [6.0]
    """
    b = _boxes("box_area", boxes)
    return (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of each pair of (n, 4) and (m, 4) boxes, as (n, m); halves give float32.

    Raises:
        ValueError: other shapes.

    >>> import tilewright as tw
    >>> a, b = tw.tensor([[0.0, 0.0, 2.0, 2.0]]), tw.tensor([[1.0, 0.0, 3.0, 2.0], [2.0, 2.0, 3.0, 3.0]])
    >>> (tw.vision.ops.box_iou(a, b) * 3).tolist()
    [[1.0, 0.0]]
    """
    a, b = _boxes("box_iou", boxes1), _boxes("box_iou", boxes2)
    low, high = elementwise.maximum(a[:, None, :2], b[:, :2]), elementwise.minimum(a[:, None, 2:], b[:, 2:])
    sides = (high - low).clamp(min=0)
    both = sides[..., 0] * sides[..., 1]
    return both / (box_area(a)[:, None] + box_area(b) - both)


def _kept(op: str, boxes: Tensor, scores: Tensor, iou_threshold: float, groups: Any = None) -> Tensor:
    n = boxes.shape[0] if boxes.ndim == 2 else None
    if scores.array.shape != (n,) or (groups is not None and groups.array.shape != (n,)):
        given = (boxes, scores) if groups is None else (boxes, scores, groups)
        raise ValueError(f"{op}: boxes must be (n, 4), and scores and idxs (n,), got "
                         f"{' and '.join(str(t.array.shape) for t in given)}")
    order = _engine.sort(op, scores.array, 0, True)[1]
    keep, count = _engine.nms(boxes.array, order, None if groups is None else groups.array, float(iou_threshold))
    return wrap(keep)[: int(wrap(count).item())]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The int64 positions of the boxes that stay, best score first, when each removes the worse ones that it overlaps.

    A box goes when its intersection over union with a better one that stays is above iou_threshold. Of equal scores the
    first box is the better one. boxes (n, 4), scores (n,).

    Raises:
        ValueError: other shapes. TypeError: boxes that are not floating point.

    >>> import tilewright as tw
    >>> boxes = tw.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0], [5.0, 5.0, 6.0, 6.0]])
    >>> tw.vision.ops.nms(boxes, tw.tensor([0.5, 0.9, 0.7]), 0.5).tolist()
    [1, 2]
    """
    return _kept("nms", boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """As nms, where only boxes of the same category idxs (n,) remove each other.

    Raises:
        ValueError: other shapes. TypeError: boxes that are not floating point, idxs that are no integers.

    >>> import tilewright as tw
    >>> boxes = tw.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0]])
    >>> tw.vision.ops.batched_nms(boxes, tw.tensor([0.5, 0.9]), tw.tensor([3, 7]), 0.5).tolist()
    [1, 0]
    """
    if idxs.is_floating_point():
        raise TypeError(f"batched_nms: idxs must be integers, got {idxs.dtype}")
    groups = _engine.cast(idxs.array, _engine.int64)
    return _kept("batched_nms", boxes, scores, iou_threshold, wrap(groups))


# --- regions ---------------------------------------------------------------------------------------------------------
def _regions(op: str, input: Tensor, boxes: Any) -> Tensor:
    """Boxes as (K, 5): the image and the box."""
    if isinstance(boxes, tuple | list):
        if not boxes:
            return wrap(_engine.full((0, 5), 0, input.array.dtype, input.device))
        each = [_boxes(op, b).detach() for b in boxes]
        images = [wrap(_engine.full((b.shape[0], 1), i, b.array.dtype, b.device)) for i, b in enumerate(each)]
        return shape.cat([shape.cat(images, 0), shape.cat(each, 0)], 1)
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(f"{op}: boxes must be (K, 5), or a list of (n, 4) for each image, got {tuple(boxes.shape)}")
    return boxes


def _pair(op: str, output_size: Any) -> tuple[int, int]:
    sizes = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size, output_size)
    if len(sizes) != 2 or not all(hasattr(n, "__index__") and not isinstance(n, bool) for n in sizes):
        raise TypeError(f"{op}: output_size must be an int or a pair of ints, got {output_size!r}")
    return sizes


def roi_align(input: Tensor, boxes: Any, output_size: Size, spatial_scale: float = 1.0, sampling_ratio: int = -1,
              aligned: bool = False) -> Tensor:
    """Each box of an image cut into output_size bins; a bin's value is the mean of bilinear samples within it.

    input (N, C, H, W); boxes (K, 5), each (image, x1, y1, x2, y2), or a list of (n, 4), one an image; gives (K, C, oh,
    ow). Coordinates are scaled by spatial_scale and, where aligned, moved by -1/2 (else sizes are at least 1). A bin
    has sampling_ratio samples an axis, or as many as it is long, rounded up. Samples more than 1 outside count as 0.
    Boxes get no gradient. He et al., Mask R-CNN, arXiv:1703.06870.

    Raises:
        ValueError: other shapes, sizes below 1. TypeError: dtypes. IndexError: a box of no image.

    >>> import tilewright as tw
    >>> x = tw.arange(16.0).reshape(1, 1, 4, 4)
    >>> tw.vision.ops.roi_align(x, [tw.tensor([[0.0, 0.0, 2.0, 2.0]])], 1, sampling_ratio=1).tolist()
    [[[[5.0]]]]
    """
    rois = _regions("roi_align", input, boxes)
    return _aligned(input, rois.array, (*_pair("roi_align", output_size), float(spatial_scale), int(sampling_ratio),
                                        bool(aligned)))


def _aligned(x, rois, how):
    y = _engine.roi_align(x.array, rois, *how)
    return record(roi_align_grad, y, (x,), (rois,), (x.array.shape, how))


def roi_align_grad(node, dy):
    (rois,), (size, how) = node.saved, node.attrs
    dx = _engine.roi_align_backward(dy.array, rois.array, size, *how[2:])
    return (record(roi_align_backward_grad, dx, (dy,), (rois,), (how,)),)


def roi_align_backward_grad(node, ddx):
    return (_aligned(ddx, node.saved[0].array, node.attrs[0]),)  # linear, so that its transpose's transpose is itself


def roi_pool(input: Tensor, boxes: Any, output_size: Size, spatial_scale: float = 1.0) -> Tensor:
    """Each box of an image cut into output_size bins; a bin's value is the maximum of its items, 0 if it has none.

    input and boxes as in roi_align; corners are scaled and rounded to items, and both belong to the box. Bins overlap
    where sizes do not divide. NaN where a bin holds one. Girshick, Fast R-CNN, arXiv:1504.08083.

    Raises:
        ValueError: other shapes, sizes below 1. TypeError: dtypes. IndexError: a box of no image.

    >>> import tilewright as tw
    >>> x = tw.arange(16.0).reshape(1, 1, 4, 4)
    >>> tw.vision.ops.roi_pool(x, tw.tensor([[0.0, 0.0, 0.0, 3.0, 1.0]]), (1, 2)).tolist()
    [[[[5.0, 7.0]]]]
    """
    rois = _regions("roi_pool", input, boxes).array
    tracked = input.requires_grad and autograd.is_grad_enabled()
    y, indices = _engine.roi_pool(input.array, rois, *_pair("roi_pool", output_size), float(spatial_scale), tracked)
    return record(roi_pool_grad, y, (input,), (rois, indices) if tracked else (), (input.array.shape,))


@first_order
def roi_pool_grad(node, dy):
    rois, indices = node.saved
    return (wrap(_engine.roi_pool_backward(dy.array, rois.array, indices.array, *node.attrs)),)


class RoIAlign(Module):
    """roi_align with fixed arguments.

    >>> import tilewright as tw
    >>> tw.vision.ops.RoIAlign(7, spatial_scale=0.25, sampling_ratio=2)
    RoIAlign(output_size=7, spatial_scale=0.25, sampling_ratio=2, aligned=False)
    """

    def __init__(self, output_size: Size, spatial_scale: float, sampling_ratio: int, aligned: bool = False) -> None:
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, input: Tensor, rois: Any) -> Tensor:
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        return (f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
                f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}")


class RoIPool(Module):
    """roi_pool with fixed arguments."""

    def __init__(self, output_size: Size, spatial_scale: float) -> None:
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale

    def forward(self, input: Tensor, rois: Any) -> Tensor:
        return roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


# --- losses ----------------------------------------------------------------------------------------------------------
def sigmoid_focal_loss(inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2,
                       reduction: str = "none") -> Tensor:
    """Binary cross-entropy of logits, times (1 - p)^gamma, p the probability given to the true class: what is easy
    counts little. alpha weights class 1 and 1 - alpha class 0; alpha -1 leaves it out. Targets are 0 or 1.

    Raises:
        ValueError: shapes that differ; alpha outside [0, 1] and not -1.

    Lin et al., Focal Loss for Dense Object Detection, arXiv:1708.02002, equation 5.

    >>> import tilewright as tw
    >>> loss = tw.vision.ops.sigmoid_focal_loss(tw.tensor([0.0, 5.0]), tw.tensor([1.0, 1.0]))
    >>> [round(v, 6) for v in loss.tolist()]
    [0.043322, 0.0]
    """
    reduction = reduction_of("sigmoid_focal_loss", None, None, reduction)
    if not (0 <= alpha <= 1 or alpha == -1):
        raise ValueError(f"sigmoid_focal_loss: alpha must be in [0, 1], or -1 for none, got {alpha}")
    p = sigmoid(inputs)
    missing = p + targets - 2 * p * targets  # 1 - p of the true class
    loss = binary_cross_entropy_with_logits(inputs, targets, reduction="none") * missing**gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return reduced(loss, reduction)
