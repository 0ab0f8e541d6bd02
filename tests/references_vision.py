"""What the samplers and the ops on boxes mean, in NumPy, as references.py says."""

from __future__ import annotations

import itertools
import math

import numpy as np

from references import each

# Samples of images ---------------------------------------------------------------------------------------------------


def grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=None):
    """Each axis gives a place its items and weights; all combinations of items are summed (PyTorch's conventions)."""
    N, C, *sizes = x.shape
    places = grid.reshape(N, math.prod(grid.shape[1:-1]), len(sizes))
    taps = []  # of each axis: (items, weights, present)
    for axis, n in enumerate(sizes):
        g = places[..., len(sizes) - 1 - axis]
        at = (g + 1) / 2 * (n - 1) if align_corners else ((g + 1) * n - 1) / 2

        def inside(at, n=n):
            if padding_mode == "reflection":
                low, span = (0, n - 1) if align_corners else (-0.5, n)
                away = np.abs(at - low)
                turns = np.floor(away / span) if span else 0 * away
                rest = away - turns * span
                at = low + np.where(turns % 2 == 1, span - rest, rest)
            return at if padding_mode == "zeros" else np.clip(at, 0, n - 1)

        if mode == "bicubic":
            low = np.floor(at)
            d = [np.abs(at - low - k) for k in (-1, 0, 1, 2)]
            items = [inside(low + k) for k in (-1, 0, 1, 2)]
            weights = [-0.75 * (d[k]**3 - 5 * d[k]**2 + 8 * d[k] - 4) if k in (0, 3) else
                       1.25 * d[k]**3 - 2.25 * d[k]**2 + 1 for k in range(4)]
        elif mode == "nearest":
            items, weights = [np.round(inside(at))], [np.ones_like(at)]
        else:
            at = inside(at)
            low = np.floor(at)
            items, weights = [low, low + 1], [1 - (at - low), at - low]
        taps.append([(np.clip(i, 0, n - 1).astype(int), w * ((i >= 0) & (i <= n - 1)))
                     for i, w in zip(items, weights, strict=True)])
    y = np.zeros((N, C, places.shape[1]), x.dtype)
    for chosen in itertools.product(*taps):
        weight = math.prod(w for _, w in chosen)
        for image in range(N):
            y[image] += weight[image] * x[image][(slice(None), *(i[image] for i, _ in chosen))]
    return y.reshape(N, C, *grid.shape[1:-1])


def affine_grid(theta, size, align_corners=None):
    axes = []
    for n in size[2:]:
        ends = 0 if n == 1 else 1 if align_corners else (n - 1) / np.longdouble(n)
        axes.append(np.linspace(-ends, ends, n, dtype=np.longdouble).astype(theta.dtype))
    base = np.stack([*reversed(np.meshgrid(*axes, indexing="ij")), np.ones(size[2:], theta.dtype)], -1)
    return np.einsum("...k,njk->n...j", base, theta)


def roi_align(x, images, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False):
    """The mean over a bin's samples, one by one (torchvision's conventions)."""
    oh, ow = each(output_size, 2)
    _, C, H, W = x.shape
    y = np.zeros((len(boxes), C, oh, ow), x.dtype)

    def taps(p, n):
        if not -1 <= p <= n:
            return ()
        p = min(max(p, 0), n - 1)
        low = int(p)
        return ((low, 1 - (p - low)), (min(low + 1, n - 1), p - low))

    for k, box in enumerate(boxes):
        x1, y1, x2, y2 = box * x.dtype.type(spatial_scale) - x.dtype.type(0.5 * aligned)
        h, w = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
        rows, cols = (sampling_ratio,) * 2 if sampling_ratio > 0 else (math.ceil(h / oh), math.ceil(w / ow))
        for i, j in itertools.product(range(oh), range(ow)):
            for r, c in itertools.product(range(rows), range(cols)):
                at_y = y1 + (i + (r + x.dtype.type(0.5)) / rows) * h / oh
                at_x = x1 + (j + (c + x.dtype.type(0.5)) / cols) * w / ow
                for (u, wu), (v, wv) in itertools.product(taps(at_y, H), taps(at_x, W)):
                    y[k, :, i, j] += wu * wv * x[images[k], :, u, v]
            y[k, :, i, j] /= max(rows * cols, 1)
    return y


def roi_pool(x, images, boxes, output_size, spatial_scale=1.0):
    oh, ow = each(output_size, 2)
    _, C, H, W = x.shape
    y = np.zeros((len(boxes), C, oh, ow), x.dtype)

    def away(v):  # half away from zero
        return math.floor(v + 0.5) if v >= 0 else -math.floor(0.5 - v)

    for k, box in enumerate(boxes):
        x1, y1, x2, y2 = (away(v) for v in box * x.dtype.type(spatial_scale))
        h, w = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j in itertools.product(range(oh), range(ow)):
            r0, r1 = (min(max(v, 0), H) for v in (y1 + i * h // oh, y1 - (-(i + 1) * h // oh)))
            c0, c1 = (min(max(v, 0), W) for v in (x1 + j * w // ow, x1 - (-(j + 1) * w // ow)))
            if r1 > r0 and c1 > c0:
                y[k, :, i, j] = x[images[k], :, r0:r1, c0:c1].max((1, 2))
    return y


def box_area(b):
    return (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])


def box_iou(a, b):
    both = np.prod(np.clip(np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2]), 0, None), -1)
    return both / (box_area(a)[:, None] + box_area(b) - both)


def batched_nms(boxes, scores, idxs, iou_threshold):
    overlap, keep = box_iou(boxes, boxes), []
    for i in np.argsort(-scores, kind="stable"):
        if not any(overlap[k, i] > iou_threshold and idxs[k] == idxs[i] for k in keep):
            keep.append(i)
    return np.array(keep, np.int64)
