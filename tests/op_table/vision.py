"""Rows of samples between items (grid_sample, affine_grid), regions of interest, and overlaps of boxes."""

from __future__ import annotations

import warnings

import numpy as np

import references_vision as R
import tilewright as tw
from arrays import DEVICE, FLOATS, quantize, to_np, to_tw
from op_table.row import Bad, Row, Sample, Tolerance

PADS = ("zeros", "border", "reflection")
# A place's coordinate, up to 40 items, is rounded before it is split into an item and a weight; so are slopes.
PLACED = Tolerance(64.0, "array", "a coordinate of up to 40 items rounds to 2^-19 of an item", grad_ulps=512.0)
BOXED = Tolerance(32.0, "array", "samples' coordinates round; sums of up to 100 products", grad_ulps=256.0)


def ones(*shape):
    return tw.ones(shape)


def ops():
    return tw.vision.ops


# --- places ----------------------------------------------------------------------------------------------------------
GRIDS = (((2, 3, 5, 7), (4, 6)), ((1, 1, 1, 1), (3, 2)), ((1, 2, 6, 1), (2, 9)), ((2, 17, 4, 3), (1, 33)),
         ((0, 2, 3, 3), (2, 2)), ((2, 1, 3, 40), (5, 0)), ((1, 2, 3, 4, 5), (2, 3, 4)), ((2, 1, 2, 1, 3), (1, 5, 2)))


def grid_samples(modes, corners=None, gradients=False):
    def samples(g):
        for mode in modes:
            for pad in PADS:
                for shape, size in GRIDS:
                    if (mode == "bicubic" and len(shape) == 5) or (gradients and (0 in size or max(shape[2:]) == 1)):
                        continue  # of one item everywhere the gradient is 0 but for rounding
                    far = 1.2 if pad == "zeros" else 3.7
                    grid = g.array(shape[0], *size, len(shape) - 2, low=-far, high=far)
                    yield Sample(g.array(*shape), grid, mode=mode, padding_mode=pad, align_corners=corners)

    return samples


def grid_as_pytorch():
    import pytest

    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    for shape, size in GRIDS:
        x, grid = rng.standard_normal(shape), rng.uniform(-2.5, 2.5, (shape[0], *size, len(shape) - 2))
        if grid.size > 8:  # what lies at the ends, between two items, far away, and nowhere
            grid.reshape(-1)[:5] = -1, 1, 0, 1e3, -1e3
        for mode in ("bilinear", "nearest", "bicubic"):
            if mode == "bicubic" and len(shape) == 5:
                continue
            for pad in PADS:
                for corners in (False, True):
                    how = {"mode": mode, "padding_mode": pad, "align_corners": corners}
                    ours = [tw.tensor(a).requires_grad_() for a in (x, grid)]
                    theirs = [torch.tensor(a, requires_grad=True) for a in (x, grid)]
                    y = tw.nn.functional.grid_sample(*ours, **how)
                    want = torch.nn.functional.grid_sample(*theirs, **how)
                    dy = rng.standard_normal(want.shape)
                    y.backward(tw.tensor(dy))
                    want.backward(torch.tensor(dy))
                    pairs = [(y, want), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))]
                    for what, (got, wanted) in zip(("y", "dx", "dgrid"), pairs, strict=True):
                        assert np.allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=1e-9, atol=1e-9), (
                            what, shape, how)
    theta = rng.standard_normal((2, 2, 3)), rng.standard_normal((2, 3, 4))
    for t, size in ((theta[0], (2, 3, 4, 5)), (theta[0], (2, 1, 1, 7)), (theta[1], (2, 1, 3, 1, 4))):
        for corners in (False, True):
            got = tw.nn.functional.affine_grid(tw.tensor(t), size, corners).numpy()
            with warnings.catch_warnings():  # of sizes of 1
                warnings.simplefilter("ignore")
                want = torch.nn.functional.affine_grid(torch.tensor(t), size, corners).numpy()
            assert np.allclose(got, want, rtol=0, atol=1e-12), (size, corners)


def nan_lies_outside():
    """PyTorch's CPU and CUDA kernels differ here: under zeros the latter gives 0 too."""
    x, grid = tw.tensor([[[[5.0, 7.0]]]]).to(DEVICE), tw.tensor([[[[float("nan"), 0.0]]]]).to(DEVICE)
    for mode in ("bilinear", "nearest"):
        got = [tw.nn.functional.grid_sample(x, grid, mode, pad).item() for pad in PADS]
        assert got == [0, 5, 5], (mode, got)
    assert tw.nn.functional.grid_sample(x, grid, "bicubic").item() == 0


def infinities_and_nan_stay_where_they_are():
    """In the gradient by the input, however many terms meet at an item."""
    x, grid = np.zeros((1, 1, 1, 5)), np.array([-0.8, -0.8, -0.4, -0.4, 0, 0, 0.4, 0.4, 0.8]).reshape(1, 1, 9, 1)
    grid = np.concatenate([grid, np.zeros_like(grid)], -1)
    dy = np.array([1.0, 2.0, np.inf, 1.0, np.inf, -np.inf, np.nan, 1.0, 1e30]).reshape(1, 1, 1, 9)
    for dtype in ("float32", "float64", "bfloat16"):
        t = to_tw(x, dtype).requires_grad_()
        y = tw.nn.functional.grid_sample(t, to_tw(quantize(grid, dtype), dtype), mode="nearest")
        y.backward(to_tw(quantize(dy, dtype), dtype))
        want = np.array([3, np.inf, np.nan, np.nan, quantize(1e30, dtype)])
        assert np.array_equal(to_np(t.grad).reshape(5), want, equal_nan=True), (dtype, to_np(t.grad))


def grid_bad():
    f = tw.nn.functional.grid_sample
    return (Bad("dims", lambda g: f(ones(1, 2, 3), ones(1, 3, 1)), ValueError, r"grid_sample.*\(1, 2, 3\)"),
            Bad("batch", lambda g: f(ones(2, 1, 3, 3), ones(1, 3, 3, 2)), ValueError, r"grid_sample.*\(1, 3, 3, 2\)"),
            Bad("coordinates", lambda g: f(ones(1, 1, 3, 3), ones(1, 3, 3, 3)), ValueError, "2 coordinates"),
            Bad("empty", lambda g: f(ones(1, 1, 0, 3), ones(1, 3, 3, 2)), ValueError, "1 to 2"),
            Bad("mode", lambda g: f(ones(1, 1, 3, 3), ones(1, 3, 3, 2), "linear"), ValueError, "'linear'"),
            Bad("padding", lambda g: f(ones(1, 1, 3, 3), ones(1, 3, 3, 2), padding_mode="wrap"), ValueError, "'wrap'"),
            Bad("bicubic", lambda g: f(ones(1, 1, 2, 3, 3), ones(1, 2, 3, 3, 3), "bicubic"), ValueError, "bicubic"),
            Bad("dtypes", lambda g: f(ones(1, 1, 3, 3), ones(1, 3, 3, 2).double()), TypeError, "float32 and float64"),
            Bad("integers", lambda g: f(ones(1, 1, 3, 3).long(), ones(1, 3, 3, 2).long()), TypeError, "floating"))


def affine(*args):
    return tw.nn.functional.affine_grid(*args)


def affine_samples(corners):
    return lambda g: (Sample(g.array(size[0], len(size) - 2, len(size) - 1), size, align_corners=corners)
                      for size in ((2, 3, 4, 5), (1, 1, 1, 1), (3, 1, 1, 33), (2, 1, 3, 4, 2)))


# --- regions ---------------------------------------------------------------------------------------------------------
def boxes(g, n, h, w, step):
    """(n, 4) boxes in multiples of step, some of which reach out of their image of h x w items."""
    a = np.sort(g.rng.uniform(-0.2, 1.2, (n, 2, 2)) * (w, h), 1).reshape(n, 4)
    return quantize(np.round(a / step) * step, g.dtype)


def regions(f):
    """f of boxes whose images' numbers are given apart."""
    def call(x, images, b, *args, **kwargs):
        return f(x, tw.cat([images[:, None].to(b.dtype), b], 1), *args, **kwargs)

    return call


REGIONS = (((2, 3, 9, 11), 5, (3, 2)), ((1, 1, 1, 1), 2, (2, 2)), ((1, 9, 16, 40), 3, (7, 7)),
           ((3, 2, 6, 5), 0, (1, 1)), ((2, 0, 4, 4), 2, (2, 3)))
SAMPLING = ((1.0, 2, False), (0.5, -1, True), (0.25, -1, False), (1.0, 3, True), (1.0, 1, False),
            (0.5, -1, False), (1.0, -1, True), (0.5, 3, True), (1.0, 0, True), (1.0, 2, True))  # scale, ratio, aligned


def align_samples(g):
    for (shape, n, size), (scale, ratio, aligned) in zip(REGIONS * 2, SAMPLING, strict=True):
        b = boxes(g, n, shape[2] / scale, shape[3] / scale, 1 / 64)
        b[:1] = 1.5, 1.25, 1.5, 1.0  # no width, and backwards
        yield Sample(g.array(*shape), g.indices(n, n=shape[0]), b, size, spatial_scale=scale, sampling_ratio=ratio,
                     aligned=aligned)


def pool_samples(g):
    for (shape, n, size), scale in zip(REGIONS * 2, (1.0, 0.5, 0.25, 1.0, 1.0) * 2, strict=True):
        b = boxes(g, n, shape[2] / scale, shape[3] / scale, 0.25)
        yield Sample(g.distinct(*shape), g.indices(n, n=shape[0]), b, size, spatial_scale=scale)


def region_bad(f):
    x = tw.ones(2, 1, 4, 4)
    return (Bad("image", lambda g: f(x.to(DEVICE), box(1, 5), 2).cpu(), IndexError,
                r"roi_\w+: index must be in \[0, 2\), got 5 at position 1"),
            Bad("boxes", lambda g: f(x, tw.ones(3, 4), 2), ValueError, r"boxes must be \(K, 5\).*\(3, 4\)"),
            Bad("list", lambda g: f(x, [tw.ones(3, 5)], 2), ValueError, r"boxes must be \(n, 4\), got \(3, 5\)"),
            Bad("kind", lambda g: f(x, [3], 2), TypeError, "int"),
            Bad("size", lambda g: f(x, tw.ones(3, 5), 0), ValueError, "output_size"),
            Bad("pair", lambda g: f(x, tw.ones(3, 5), (1, 2, 3)), TypeError, "output_size"),
            Bad("dims", lambda g: f(x[0], tw.ones(3, 5), 2), ValueError, r"\(1, 4, 4\)"),
            Bad("integers", lambda g: f(x.long(), tw.ones(3, 5), 2), TypeError, "int64"))


def box(*images):
    return tw.tensor([[float(i), 0, 0, 2, 2] for i in images]).to(DEVICE)


def boxes_come_in_lists():
    rng = np.random.default_rng(0)
    x = tw.tensor(rng.standard_normal((2, 3, 8, 8)))
    each = [tw.tensor(np.sort(rng.uniform(0, 8, (n, 2, 2)), 1).reshape(n, 4)) for n in (2, 3)]
    whole = tw.cat([tw.cat([tw.full((b.shape[0], 1), float(i), dtype=b.dtype), b], 1) for i, b in enumerate(each)])
    layers = ops().RoIAlign((2, 3), 0.5, 2, True), ops().RoIPool((2, 3), 0.5)
    for f, layer in zip((ops().roi_align, ops().roi_pool), layers, strict=True):
        how = (0.5, 2, True) if f is ops().roi_align else (0.5,)
        got = f(x, each, (2, 3), *how)
        assert np.array_equal(to_np(got), to_np(f(x, whole, (2, 3), *how)))
        assert np.array_equal(to_np(got), to_np(layer(x, whole)))
    assert ops().roi_align(x, [], 2).shape == (0, 3, 2, 2)
    assert repr(layers[0]) == "RoIAlign(output_size=(2, 3), spatial_scale=0.5, sampling_ratio=2, aligned=True)"
    assert repr(layers[1]) == "RoIPool(output_size=(2, 3), spatial_scale=0.5)"


def wild_boxes_end():
    x = tw.ones(1, 1, 4, 4).to(DEVICE)
    wild = tw.tensor([[0, -1e9, -1e9, 1e9, 1e9], [0, 0, 0, float("inf"), 2], [0, float("nan"), 0, 2, 2]]).to(DEVICE)
    for aligned in (False, True):
        y = to_np(ops().roi_align(x, wild, 2, 1.0, -1, aligned))
        assert y.shape == (3, 1, 2, 2) and np.all(np.isfinite(y) | np.isnan(y))
    assert to_np(ops().roi_pool(x, wild, 2))[0].tolist() == [[[1, 1], [1, 1]]]


def roi_pool_keeps_nan_and_ties():
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 1, 1] = x[0, 0, 2, 0] = np.nan
    t = tw.tensor(x).to(DEVICE).requires_grad_()
    y = ops().roi_pool(t, tw.tensor([[0.0, 0, 0, 3, 3]]).to(DEVICE), 2)
    assert np.isnan(to_np(y)).tolist() == [[[[True, False], [True, False]]]]
    y.backward(tw.ones(1, 1, 2, 2).to(DEVICE))
    want = np.zeros((4, 4))
    want[1, 1] = want[0, 2] = want[2, 0] = want[2, 2] = 1  # the first NaN, the first of equals
    assert np.array_equal(to_np(t.grad)[0, 0], want)


# --- overlaps --------------------------------------------------------------------------------------------------------
def plain_boxes(g, n, low=0.0, high=10.0):
    return quantize(np.sort(g.rng.uniform(low, high, (n, 2, 2)), 1).reshape(n, 4), g.dtype)


def iou_samples(g):
    for n, m in ((3, 5), (1, 1), (0, 2), (2, 0), (17, 33)):
        yield Sample(plain_boxes(g, n), plain_boxes(g, m, 2.0, 12.0))


def nms_samples(g):
    for n, thr in ((1, 0.5), (0, 0.5), (5, 0.375), (64, 0.25), (65, 0.0), (129, 0.4375), (300, 0.125)):
        b = plain_boxes(g, n)
        scores = g.distinct(n) if n < 256 else g.array(n)  # the last ones have equals
        yield Sample(*mixed(b, scores), thr)


def mixed(b, scores):
    b[1::4] = b[: len(b[1::4])]  # boxes that are the same
    return b, scores


def batched_samples(g):
    for s, kinds in zip(nms_samples(g), (1, 1, 2, 3, 2, 5, 3), strict=True):
        b, scores, thr = s.args
        idxs = g.indices(len(b), n=kinds) * ((1 << 40) + 1)
        yield Sample(b, scores, idxs, thr)


def exact_overlaps():
    """Half of each is shared, so the overlap is 1/3: as float32 above 1/3, which the threshold is compared with."""
    b = tw.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [9, 9, 9, 9], [9, 9, 9, 9]]).to(DEVICE)
    scores = tw.tensor([0.9, 0.8, 0.7, 0.6]).to(DEVICE)
    assert ops().nms(b, scores, 1 / 3).tolist() == [0, 2, 3]
    assert ops().nms(b, scores, float(np.float32(1) / np.float32(3))).tolist() == [0, 1, 2, 3]


def nms_bad(f, *more):
    s = tw.ones(3)
    return (Bad("boxes", lambda g: f(tw.ones(3, 5), s, *more, 0.5), ValueError, r"nms.*\(3, 5\)"),
            Bad("scores", lambda g: f(tw.ones(2, 4), s, *more, 0.5), ValueError, r"nms.*\(2, 4\) and \(3,\)"),
            Bad("integers", lambda g: f(tw.ones(3, 4).long(), s, *more, 0.5), TypeError, "nms.*int64"))


ROWS = [
    Row("grid_sample", "F.grid_sample", R.grid_sample, grid_samples(("bilinear", "bicubic")), FLOATS, PLACED,
        slots=("grid_sample", "grid_sample_backward"),
        properties=(grid_as_pytorch, nan_lies_outside, infinities_and_nan_stay_where_they_are),
        large=lambda g: Sample(g.array(2, 9, 40, 41), g.array(2, 50, 60, 2, low=-1.1, high=1.1)), bad=grid_bad(),
        grad_samples=grid_samples(("bilinear", "bicubic"), gradients=True)),
    Row("grid_sample_corners", "F.grid_sample", R.grid_sample, grid_samples(("bilinear", "bicubic"), True), FLOATS,
        PLACED, grad_samples=grid_samples(("bilinear", "bicubic"), True, True)),
    Row("grid_sample_nearest", "F.grid_sample", R.grid_sample, grid_samples(("nearest",)), FLOATS,
        Tolerance(0.0, reason="selects values")),
    Row("affine_grid", "F.affine_grid", R.affine_grid, affine_samples(None), FLOATS, PLACED,
        bad=(Bad("theta", lambda g: affine(ones(2, 3, 3), (2, 1, 4, 4)), ValueError, r"affine_grid.*\(2, 3, 3\)"),
             Bad("size", lambda g: affine(ones(2, 2, 3), (2, 1, 4)), ValueError, r"affine_grid.*\(2, 1, 4\)"),
             Bad("empty", lambda g: affine(ones(2, 2, 3), (2, 1, 4, 0)), ValueError, "affine_grid.*positive"),
             Bad("integers", lambda g: affine(ones(2, 2, 3).long(), (2, 1, 4, 4)), TypeError, "affine_grid.*int64"))),
    Row("affine_grid_corners", "F.affine_grid", R.affine_grid, affine_samples(True), FLOATS, PLACED),
    Row("roi_align", regions(lambda *a, **k: ops().roi_align(*a, **k)), R.roi_align, align_samples, FLOATS, BOXED,
        no_grad=(2,), slots=("roi_align", "roi_align_backward"), bad=region_bad(lambda *a: ops().roi_align(*a)),
        properties=(boxes_come_in_lists, wild_boxes_end), grad_samples=lambda g: (
            s for s in align_samples(g) if s.args[0].size and s.args[1].size),
        large=lambda g: Sample(g.array(2, 20, 30, 31), g.indices(40, n=2), boxes(g, 40, 30, 31, 1 / 64), 7,
                               sampling_ratio=2)),
    Row("roi_pool", regions(lambda *a, **k: ops().roi_pool(*a, **k)), R.roi_pool, pool_samples, FLOATS,
        Tolerance(0.0, reason="selects values"), no_grad=(2,), slots=("roi_pool", "roi_pool_backward"),
        bad=region_bad(lambda *a: ops().roi_pool(*a)), properties=(roi_pool_keeps_nan_and_ties,),
        grad_samples=lambda g: (s for s in pool_samples(g) if s.args[0].size and s.args[1].size),
        large=lambda g: Sample(g.distinct(2, 20, 30, 31), g.indices(40, n=2), boxes(g, 40, 30, 31, 0.25), 7)),
    Row("box_area", lambda b: ops().box_area(b), R.box_area, lambda g: (Sample(plain_boxes(g, n)) for n in (0, 1, 129)),
        ("float32", "float64"), bad=(Bad("shape", lambda g: ops().box_area(ones(3, 5)), ValueError, r"\(3, 5\)"),
                                     Bad("kind", lambda g: ops().box_area([1]), TypeError, "list"))),
    Row("box_iou", lambda a, b: ops().box_iou(a, b), R.box_iou, iou_samples, ("float32", "float64"),
        Tolerance(8.0, "array", "eight rounded operations"),
        bad=(Bad("shape", lambda g: ops().box_iou(ones(3, 4), ones(3)), ValueError, r"\(3,\)"),)),
    Row("nms", lambda *a: ops().nms(*a), lambda b, s, t: R.batched_nms(b, s, 0 * s, t), nms_samples, FLOATS, grad=False,
        slots=("nms",), bad=nms_bad(lambda *a: ops().nms(*a)), properties=(exact_overlaps,),
        large=lambda g: Sample(plain_boxes(g, 1500), g.array(1500), 0.3)),
    Row("batched_nms", lambda *a: ops().batched_nms(*a), R.batched_nms, batched_samples, FLOATS, grad=False,
        bad=(*nms_bad(lambda *a: ops().batched_nms(*a), tw.ones(3).long()),
             Bad("idxs", lambda g: ops().batched_nms(ones(3, 4), ones(3), ones(3), 0.5), TypeError, "float32"))),
]  # fmt: skip
