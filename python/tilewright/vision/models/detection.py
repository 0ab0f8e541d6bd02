"""Detection: Faster R-CNN, Ren et al. (arXiv:1506.01497), and a single-shot detector on a grid, after YOLO v2 and v3,
Redmon and Farhadi (arXiv:1612.08242, arXiv:1804.02767).

A target of an image is {"boxes": (n, 4) float, x1 y1 x2 y2 in pixels, "labels": (n,) int64 from 1 on; 0 is nothing}. A
result is {"boxes", "labels", "scores"}, best first. Call a model with targets in training, for its losses by name.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import tilewright as tw
from tilewright import nn
from tilewright.nn import functional as F
from tilewright.tensor import Tensor
from tilewright.vision.ops import batched_nms, box_iou, roi_align

__all__ = ["YOLO", "FasterRCNN", "RegionProposalNetwork", "anchor_boxes", "decode_boxes", "encode_boxes",
           "mean_average_precision"]

Target = dict[str, Tensor]
LARGEST_STEP = math.log(1000 / 16)  # of a box's logarithmic growth, so that exp does not overflow early in training


# --- boxes -----------------------------------------------------------------------------------------------------------
def anchor_boxes(height: int, width: int, stride: int, sizes: Sequence[float],
                 ratios: Sequence[float] = (1.0,)) -> Tensor:
    """(height width len(sizes) len(ratios), 4) boxes round the centres of a grid's cells of `stride` pixels.

    A size is the square root of the area; a ratio is height over width. Cells row by row, in each sizes, then ratios.
    """
    shapes = tw.tensor([[s / math.sqrt(r), s * math.sqrt(r)] for s in sizes for r in ratios])
    y, x = tw.meshgrid(tw.arange(height), tw.arange(width), indexing="ij")
    centres = (tw.stack([x, y], -1).reshape(-1, 1, 2).float() + 0.5) * stride
    return tw.cat([centres - shapes / 2, centres + shapes / 2], -1).reshape(-1, 4)


def _centre(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (n, 2) and sizes (n, 2)."""
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """((cx - ax) / aw, (cy - ay) / ah, log(w / aw), log(h / ah)) of boxes (n, 4) seen from anchors (n, 4)."""
    (at, size), (origin, unit) = _centre(boxes), _centre(anchors)
    return tw.cat([(at - origin) / unit, tw.log(size / unit)], -1)


def decode_boxes(deltas: Tensor, anchors: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """The boxes that `encode_boxes` made the numbers of, cut to an image of `size` (height, width) if given."""
    origin, unit = _centre(anchors)
    at, half = origin + deltas[..., :2] * unit, unit * tw.exp(deltas[..., 2:].clamp(max=LARGEST_STEP)) / 2
    boxes = tw.cat([at - half, at + half], -1)
    if size is None:
        return boxes
    h, w = size
    return tw.minimum(boxes.clamp(min=0), tw.tensor([w, h, w, h], dtype=boxes.dtype, device=boxes.device))


def _assign(anchors: Tensor, boxes: Tensor, high: float, low: float, best_too: bool) -> Tensor:
    """(n,): the box of each anchor with an overlap of `high` or more; -1 below `low`, -2 between. best_too: each box
    also gets the anchors that overlap it most."""
    if boxes.shape[0] == 0:
        return tw.full((anchors.shape[0],), -1, dtype=tw.int64, device=anchors.device)
    iou = box_iou(boxes, anchors)
    best, which = iou.max(0)
    found = tw.where(best >= high, which, tw.where(best < low, -1, -2))
    if best_too:
        most = iou.max(1, keepdim=True)[0]
        found = tw.where(((iou == most) & (most > 0)).any(0), which, found)
    return found


def _sample(assigned: Tensor, count: int, share: float) -> tuple[Tensor, Tensor]:
    """Up to `count` anchors drawn at random, at most `share` of them with a box: (those with one, those without)."""
    def draw(among: Tensor, most: int) -> Tensor:
        return among[tw.randperm(len(among), device=among.device)[:most]]

    positive = draw((assigned >= 0).nonzero().flatten(), int(count * share))
    return positive, draw((assigned == -1).nonzero().flatten(), count - len(positive))


def _best(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """What is left when of overlapping boxes of a label only the best stays: at most so many, best first."""
    wide = ((boxes[:, 2:] - boxes[:, :2]).min(1)[0] >= 1).nonzero().flatten()
    boxes, scores, labels = boxes[wide], scores[wide], labels[wide]
    keep = batched_nms(boxes, scores, labels, overlap)[:most]
    return boxes[keep], scores[keep], labels[keep]


# --- Faster R-CNN ----------------------------------------------------------------------------------------------------
class RegionProposalNetwork(nn.Module):
    """Features (N, channels, H, W) to objectness (N, H W A) and box numbers (N, H W A, 4) of each cell's A anchors."""

    def __init__(self, channels: int, anchors: int):
        super().__init__()
        self.conv, self.cls_logits = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n = x.shape[0]
        y = F.relu(self.conv(x))
        return (self.cls_logits(y).permute(0, 2, 3, 1).reshape(n, -1),
                self.bbox_pred(y).permute(0, 2, 3, 1).reshape(n, -1, 4))


class FasterRCNN(nn.Module):
    """Images (N, C, H, W) by a backbone whose cells are `stride` pixels; num_classes counts nothing as class 0.

    The proposal network's best boxes are pooled from the features (RoI align, pool x pool), classified, and moved once
    more, by class. Losses: loss_objectness, loss_rpn_box_reg, loss_classifier, loss_box_reg.

    Raises:
        ValueError: training without targets, or targets of another number than images.
    """

    def __init__(self, backbone: nn.Module, channels: int, stride: int, num_classes: int,
                 sizes: Sequence[float] = (32, 64, 128), ratios: Sequence[float] = (0.5, 1.0, 2.0),
                 proposals: int = 100, hidden: int = 256, score_thresh: float = 0.05, nms_thresh: float = 0.5,
                 detections: int = 100, pool: int = 7):
        super().__init__()
        self.backbone, self.stride, self.sizes, self.ratios = backbone, stride, tuple(sizes), tuple(ratios)
        self.rpn = RegionProposalNetwork(channels, len(sizes) * len(ratios))
        self.box_head = nn.Sequential(nn.Flatten(), nn.Linear(channels * pool * pool, hidden), nn.ReLU(),
                                      nn.Linear(hidden, hidden), nn.ReLU())
        self.cls_score, self.bbox_pred = nn.Linear(hidden, num_classes), nn.Linear(hidden, 4 * num_classes)
        self.num_classes, self.proposals, self.detections = num_classes, proposals, detections
        self.score_thresh, self.nms_thresh, self.pool = score_thresh, nms_thresh, pool

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> Any:
        if self.training and targets is None:
            raise ValueError("FasterRCNN: training needs targets, got None")
        if targets is not None and len(targets) != images.shape[0]:
            raise ValueError(f"FasterRCNN: one target an image, got {len(targets)} for {images.shape[0]} images")
        size = (int(images.shape[2]), int(images.shape[3]))
        features = self.backbone(images)
        anchors = anchor_boxes(features.shape[2], features.shape[3], self.stride, self.sizes, self.ratios)
        anchors = anchors.to(images.device)
        objectness, deltas = self.rpn(features)
        with tw.no_grad():
            proposals = [self._propose(o, decode_boxes(d, anchors, size))
                         for o, d in zip(objectness.detach(), deltas.detach(), strict=True)]
        if not self.training:
            return self._detect(features, proposals, size)
        assert targets is not None
        return self._rpn_loss(objectness, deltas, anchors, targets) | self._box_loss(features, proposals, targets)

    def _propose(self, objectness: Tensor, boxes: Tensor) -> Tensor:
        top = objectness.topk(min(10 * self.proposals, objectness.shape[0]))[1]
        zeros = tw.zeros_like(top)
        return _best(boxes[top], objectness[top], zeros, 0.7, self.proposals)[0]

    def _pooled(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        x = self.box_head(roi_align(features, boxes, self.pool, 1 / self.stride, 2, aligned=True))
        return self.cls_score(x), self.bbox_pred(x).reshape(len(x), self.num_classes, 4)

    def _rpn_loss(self, objectness: Tensor, deltas: Tensor, anchors: Tensor, targets: Sequence[Target]) -> Target:
        chosen, truth, moved, wanted = [], [], [], []
        for i, target in enumerate(targets):
            assigned = _assign(anchors, target["boxes"], 0.7, 0.3, True)
            positive, negative = _sample(assigned, 256, 0.5)
            chosen.append(objectness[i][tw.cat([positive, negative])])
            truth.append(tw.cat([tw.ones(len(positive)), tw.zeros(len(negative))]).to(objectness.device))
            moved.append(deltas[i][positive])
            wanted.append(encode_boxes(target["boxes"][assigned[positive]], anchors[positive]))
        labels = tw.cat(truth)
        return {"loss_objectness": F.binary_cross_entropy_with_logits(tw.cat(chosen), labels),
                "loss_rpn_box_reg": F.smooth_l1_loss(tw.cat(moved), tw.cat(wanted), beta=1 / 9, reduction="sum")
                / max(len(labels), 1)}

    def _box_loss(self, features: Tensor, proposals: list[Tensor], targets: Sequence[Target]) -> Target:
        boxes, labels, wanted = [], [], []
        for proposed, target in zip(proposals, targets, strict=True):
            proposed = tw.cat([proposed, target["boxes"]])
            assigned = _assign(proposed, target["boxes"], 0.5, 0.5, False)
            positive, negative = _sample(assigned, 128, 0.25)
            boxes.append(proposed[tw.cat([positive, negative])])
            labels.append(tw.cat([target["labels"][assigned[positive]], tw.zeros_like(negative)]))
            wanted.append(encode_boxes(target["boxes"][assigned[positive]], proposed[positive]))
        classes, deltas = self._pooled(features, boxes)
        label = tw.cat(labels)
        positive = (label > 0).nonzero().flatten()
        moved = deltas[positive, label[positive]]
        step = F.smooth_l1_loss(moved, tw.cat(wanted), beta=1 / 9, reduction="sum")
        return {"loss_classifier": F.cross_entropy(classes, label), "loss_box_reg": step / max(len(label), 1)}

    @tw.no_grad()
    def _detect(self, features: Tensor, proposals: list[Tensor], size: tuple[int, int]) -> list[Target]:
        classes, deltas = self._pooled(features, proposals)
        counts = [len(p) for p in proposals]
        results = []
        for p, scores, d in zip(proposals, F.softmax(classes, 1).split(counts), deltas.split(counts), strict=True):
            boxes = decode_boxes(d, p.unsqueeze(1), size)[:, 1:].reshape(-1, 4)
            score = scores[:, 1:].reshape(-1)
            label = tw.arange(1, self.num_classes, device=score.device).repeat(len(p))
            sure = (score > self.score_thresh).nonzero().flatten()
            kept = _best(boxes[sure], score[sure], label[sure], self.nms_thresh, self.detections)
            results.append(dict(zip(("boxes", "scores", "labels"), kept, strict=True)))
        return results


# --- on a grid, in one shot ------------------------------------------------------------------------------------------
class YOLO(nn.Module):
    """Images (N, C, H, W) by a backbone whose cells are `stride` pixels; num_classes counts nothing as class 0.

    Each cell has an anchor of each size (width, height); an anchor says where in the cell its box's centre is, by
    sigmoid, its size over the anchor's, by exp, whether there is one, and of which class. A true box is learned by the
    anchor of its centre's cell whose shape is nearest; other anchors that overlap a box by more than 0.5 learn nothing
    of there being none. Losses: loss_box, loss_objectness, loss_classifier.

    Raises:
        ValueError: training without targets, or targets of another number than images.
    """

    def __init__(self, backbone: nn.Module, channels: int, stride: int, num_classes: int,
                 anchors: Sequence[tuple[float, float]], score_thresh: float = 0.05, nms_thresh: float = 0.5,
                 detections: int = 100):
        super().__init__()
        self.backbone, self.stride, self.classes = backbone, stride, num_classes - 1
        self.register_buffer("anchors", tw.tensor([list(map(float, a)) for a in anchors]))
        self.head = nn.Conv2d(channels, len(anchors) * (5 + self.classes), 1)
        nn.init.normal_(self.head.weight, std=0.01)
        with tw.no_grad():  # hardly any anchor has a box: begin there (Lin et al., arXiv:1708.02002, section 3.3)
            assert self.head.bias is not None
            self.head.bias.zero_()
            self.head.bias[4::5 + self.classes] = -math.log(99)
        self.score_thresh, self.nms_thresh, self.detections = score_thresh, nms_thresh, detections

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> Any:
        if self.training and targets is None:
            raise ValueError("YOLO: training needs targets, got None")
        if targets is not None and len(targets) != images.shape[0]:
            raise ValueError(f"YOLO: one target an image, got {len(targets)} for {images.shape[0]} images")
        y = self.head(self.backbone(images))
        n, _, h, w = y.shape
        y = y.reshape(n, len(self.anchors), 5 + self.classes, h, w).permute(0, 3, 4, 1, 2)  # (N, H, W, A, 5 + classes)
        rows, columns = tw.meshgrid(tw.arange(h, device=y.device), tw.arange(w, device=y.device), indexing="ij")
        cells = tw.stack([columns, rows], -1).reshape(h, w, 1, 2).to(y.dtype)
        centres = (cells + y[..., :2].sigmoid()) * self.stride
        half = self.anchors * tw.exp(y[..., 2:4].clamp(max=LARGEST_STEP)) / 2
        boxes = tw.cat([centres - half, centres + half], -1)
        if self.training:
            assert targets is not None
            return self._loss(y, boxes, targets)
        return self._detect(y, boxes, (int(images.shape[2]), int(images.shape[3])))

    def _loss(self, y: Tensor, boxes: Tensor, targets: Sequence[Target]) -> Target:
        n, h, w, a, _ = y.shape
        where, truth, labels = [], [], []
        counts = tw.ones(n, h * w * a, device=y.device)  # whether an anchor learns of there being a box or not
        for i, target in enumerate(targets):
            if not len(target["boxes"]):
                continue
            at, size = _centre(target["boxes"])
            cell = (at / self.stride).long()
            column, row = cell[:, 0].clamp(0, w - 1), cell[:, 1].clamp(0, h - 1)
            common = tw.minimum(size.unsqueeze(1), self.anchors).prod(-1)
            shape = (common / (size.prod(-1, keepdim=True) + self.anchors.prod(-1) - common)).argmax(1)
            counts[i] = (box_iou(target["boxes"], boxes[i].detach().reshape(-1, 4)).max(0)[0] <= 0.5).to(y.dtype)
            where.append(((i * h + row) * w + column) * a + shape)
            truth.append(target["boxes"])
            labels.append(target["labels"])
        flat = y.reshape(-1, 5 + self.classes)
        wanted, counted = tw.zeros(len(flat), device=y.device), counts.reshape(-1)
        if not where:
            zero = flat.sum() * 0
            none = F.binary_cross_entropy_with_logits(flat[:, 4], wanted)
            return {"loss_box": zero, "loss_objectness": none, "loss_classifier": zero}
        index, true = tw.cat(where), tw.cat(truth)
        wanted[index] = 1.0
        counted[index] = 1.0
        exists = F.binary_cross_entropy_with_logits(flat[:, 4], wanted, counted, reduction="sum")
        mine = flat[index]
        at, size = _centre(true)
        inside = (at / self.stride) % 1
        grown = tw.log(size / self.anchors[index % a])
        box = (mine[:, :2].sigmoid() - inside).square().sum() + (mine[:, 2:4] - grown).square().sum()
        return {"loss_box": box / len(index), "loss_objectness": exists / len(index),
                "loss_classifier": F.cross_entropy(mine[:, 5:], tw.cat(labels) - 1)}

    @tw.no_grad()
    def _detect(self, y: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[Target]:
        high, wide = size
        limit = tw.tensor([wide, high, wide, high], dtype=y.dtype, device=y.device)
        scores = y[..., 4:5].sigmoid() * F.softmax(y[..., 5:], -1)
        results = []
        for score, box in zip(scores.flatten(1, 3), boxes.flatten(1, 3), strict=True):
            best, label = score.max(-1)
            sure = (best > self.score_thresh).nonzero().flatten()
            box = tw.minimum(box[sure].clamp(min=0), limit)
            kept = _best(box, best[sure], label[sure] + 1, self.nms_thresh, self.detections)
            results.append(dict(zip(("boxes", "scores", "labels"), kept, strict=True)))
        return results


# --- how good ---------------------------------------------------------------------------------------------------------
def mean_average_precision(results: Sequence[Target], targets: Sequence[Target], iou: float = 0.5) -> float:
    """The mean over the targets' classes of the area under precision over recall (Everingham et al., PASCAL VOC, 2010).

    Results of all images are taken best first; one is right when it overlaps a box of its class, that no better result
    took, by `iou` or more. Precision at a recall is the best that is reached at that recall or a higher one.

    Raises:
        ValueError: another number of results than of targets.
    """
    if len(results) != len(targets):
        raise ValueError(f"mean_average_precision: one result a target, got {len(results)} and {len(targets)}")
    areas = []
    for label in sorted({int(k) for t in targets for k in t["labels"].tolist()}):
        found: list[tuple[float, bool]] = []
        total = 0
        for result, target in zip(results, targets, strict=True):
            mine, theirs = result["labels"] == label, target["labels"] == label
            boxes, scores, truth = result["boxes"][mine], result["scores"][mine].tolist(), target["boxes"][theirs]
            total += len(truth)
            overlaps = box_iou(boxes, truth).tolist() if len(boxes) and len(truth) else [[]] * len(boxes)
            taken: set[int] = set()
            for k in sorted(range(len(scores)), key=lambda k: -scores[k]):
                free = [(overlaps[k][j], j) for j in range(len(truth)) if j not in taken]
                right = bool(free) and max(free)[0] >= iou
                if right:
                    taken.add(max(free)[1])
                found.append((scores[k], right))
        found.sort(key=lambda pair: -pair[0])
        hits = list(itertools.accumulate(right for _, right in found))
        area, precision = 0.0, 0.0
        for rank in range(len(found), 0, -1):
            precision = max(precision, hits[rank - 1] / rank)
            area += precision * found[rank - 1][1] / total  # recall grows by 1 / total at each right one
        areas.append(area)
    return sum(areas) / len(areas) if areas else 0.0
