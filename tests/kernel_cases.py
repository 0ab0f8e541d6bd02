"""The calls of test_kernels.py: every function of tilewright.kernels beside the engine's op that it must equal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import tilewright as tw
from tilewright import _engine, kernels

FUNCTIONS = sorted(set(dir(kernels)) - {"Plan", "names", "which"})
RNG = np.random.default_rng(5)


def f32(*shape: int) -> np.ndarray:
    return RNG.uniform(0.1, 0.9, shape).astype(np.float32)


def signed(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def empty(*shape: int, dtype=np.float32) -> np.ndarray:
    """Not what any kernel writes."""
    return np.full(shape, 77, dtype)


@dataclass
class Case:
    """One call: `call(*ins, *outs)` must fill the outs with what the engine's op gives on the same inputs."""

    name: str
    ins: list
    outs: list[np.ndarray]
    call: Callable
    expect: Callable  # of the inputs as engine arrays: one engine array, or a tuple of them, None where not compared

    def __str__(self) -> str:
        return self.name


def array(a):
    """An engine array over a copy, so that what a reference writes in place stays with it."""
    return tw.from_numpy(np.array(a, order="C", copy=True).reshape(a.shape)).array if isinstance(a, np.ndarray) else a


def numpy_of(a) -> np.ndarray:
    return np.array(_engine.contiguous(a))


def elementwise_cases():
    parameters = {"leaky_relu": (0.2,), "elu": (1.5,), "softplus": (2.0, 1.0), "clamp": (0.2, 0.7), "addcmul": (0.5,),
                  "addcdiv": (0.5,), "leaky_relu_backward": (0.2,), "elu_backward": (1.5,),
                  "softplus_backward": (2.0, 1.0), "celu": (1.5,), "celu_backward": (1.5,), "hardshrink": (0.4,),
                  "softshrink": (0.4,), "shrink_backward": (0.4,), "threshold": (0.4, 3.0),
                  "threshold_backward": (0.4,), "inside_backward": (0.3, 0.6)}
    for name in FUNCTIONS:
        doc = getattr(kernels, name).__doc__
        if "element by element" not in doc:
            continue
        n, p = re.match(r"\w+\((.*?)out: Array", doc)[1].count("Array"), parameters.get(name, ())
        bits = name.startswith("bitwise")
        shapes = [(3, 1, 7), (5, 1), (3, 5, 7)][:n] if n > 1 else [(4, 9)]
        ins = [RNG.integers(0, 9, s).astype(np.int32) if bits else f32(*s) for s in shapes]
        pad = (*p, 0.0, 0.0)[:2] if n < 3 else (*p, 0.0)[:1]

        def expect(*a, name=name, n=n, p=p, pad=pad):
            return getattr(_engine, name)(*a, *(pad if p or n == 3 else ()))

        made = np.broadcast_shapes(*shapes)
        dtype = np.array(expect(*map(array, ins))).dtype
        yield Case(name, ins, [empty(*made, dtype=np.int32 if bits else dtype)],
                   lambda *a, name=name, p=p: getattr(kernels, name)(*a, *p), expect)


def reduction_cases():
    for name in ("sum", "mean", "prod", "amax", "amin", "any", "all", "argmax", "argmin", "var"):
        dtype = {"any": bool, "all": bool, "argmax": np.int64, "argmin": np.int64}.get(name, np.float32)
        for dim, shape in ((1, (3, 5)), (None, ()), (0, (4, 5)), (-1, (3, 4))):
            if name in ("argmax", "argmin"):
                def expect(x, name=name, dim=dim):
                    return getattr(_engine, name)(x, dim, False)
            elif name == "var":
                def expect(x, dim=dim):
                    return _engine.var(x, None if dim is None else (dim,), 1.0, False)
            else:
                def expect(x, name=name, dim=dim):
                    more = (None,) if name in ("sum", "mean", "prod") else ()
                    return getattr(_engine, name)(x, None if dim is None else (dim,), False, *more)
            yield Case(f"{name}-{dim}", [signed(3, 4, 5)], [empty(*shape, dtype=dtype)],
                       lambda x, out, name=name, dim=dim: getattr(kernels, name)(x, out, dim=dim), expect)
    yield Case("sum-apart", [signed(3, 4, 5)], [empty(4)], lambda x, out: kernels.sum(x, out, dim=(0, 2)),
               lambda x: _engine.sum(x, (0, 2), False, None))
    yield Case("sum-neighbours", [signed(3, 4, 5)], [empty(3, 1, 1)], lambda x, out: kernels.sum(x, out, dim=(1, 2)),
               lambda x: _engine.sum(x, (1, 2), True, None))


def row_cases():
    x, dy, labels, w5, b5 = signed(6, 5), signed(6, 5), np.array([0, 4, -100, 2, 2, 1]), f32(5), signed(5)
    for log in ("", "log_"):
        forward, backward = getattr(_engine, log + "softmax"), getattr(_engine, log + "softmax_backward")
        ours, ours_backward = getattr(kernels, log + "softmax"), getattr(kernels, log + "softmax_backward")
        for shape, dim in (((6, 5), -1), ((2, 7, 3), 1), ((3, 130), 1), ((), 0)):
            yield Case(f"{log}softmax-{dim}", [signed(*shape)], [empty(*shape)],
                       lambda x, out, f=ours, dim=dim: f(x, out=out, dim=dim),
                       lambda x, f=forward, dim=dim: f(x, dim))
        yield Case(f"{log}softmax_backward", [f32(6, 5), dy], [empty(6, 5)],
                   lambda *a, f=ours_backward: f(*a),
                   lambda y, dy, f=backward: f(y, dy, 1))
    for reduction in ("none", "mean", "sum"):
        made = (6,) if reduction == "none" else ()
        yield Case(f"cross_entropy-{reduction}", [x, labels, w5], [empty(*made), empty(13)],
                   lambda x, t, w, out, stats, r=reduction: kernels.cross_entropy(
                       x, t, out, weight=w, stats=stats, reduction=r, label_smoothing=0.1),
                   lambda x, t, w, r=reduction: _engine.cross_entropy(x, t, w, -100, r, 0.1))
        stats = np.array(_engine.cross_entropy(*map(array, (x, labels, w5)), -100, reduction, 0.1)[1])
        yield Case(f"cross_entropy_backward-{reduction}", [f32(*made), x, labels, stats, w5], [empty(6, 5)],
                   lambda dloss, x, t, s, w, out, r=reduction: kernels.cross_entropy_backward(
                       dloss, x, t, s, out, weight=w, reduction=r, label_smoothing=0.1),
                   lambda dloss, x, t, s, w, r=reduction: _engine.cross_entropy_backward(
                       dloss, x, t, w, s, -100, r, 0.1))
    yield Case("layer_norm", [x, w5, b5], [empty(6, 5), empty(6), empty(6)],
               lambda x, w, b, out, mean, rstd: kernels.layer_norm(x, out, w, b, mean, rstd),
               lambda x, w, b: _engine.layer_norm(x, (5,), w, b, 1e-5, False))
    yield Case("layer_norm-plain", [signed(4, 3, 5)], [empty(4, 3, 5)],
               lambda x, out: kernels.layer_norm(x, out, normalized_shape=(3, 5), eps=1e-3),
               lambda x: _engine.layer_norm(x, (3, 5), None, None, 1e-3, False)[:1])
    _, mean, rstd = map(np.array, _engine.layer_norm(array(x), (5,), None, None, 1e-5, False))
    yield Case("layer_norm_backward", [dy, x, mean, rstd, w5], [empty(6, 5), empty(5), empty(5)],
               lambda dy, x, m, r, w, out, dw, db: kernels.layer_norm_backward(dy, x, m, r, out, w, dw, db),
               lambda dy, x, m, r, w: _engine.layer_norm_backward(dy, x, (5,), w, m, r, False, True, True, True))
    yield Case("rms_norm", [x, w5], [empty(6, 5), empty(6)],
               lambda x, w, out, rstd: kernels.rms_norm(x, out, w, rstd, eps=1e-3),
               lambda x, w: _engine.layer_norm(x, (5,), w, None, 1e-3, True)[::2])
    mean, rstd = _engine.layer_norm(array(x), (5,), None, None, 1e-3, True)[1:]
    yield Case("rms_norm_backward", [dy, x, np.array(rstd), w5], [empty(6, 5), empty(5)],
               lambda dy, x, r, w, out, dw: kernels.rms_norm_backward(dy, x, r, out, w, dw),
               lambda dy, x, r, w, mean=mean: _engine.layer_norm_backward(
                   dy, x, (5,), w, mean, r, True, True, True, False)[:2])
    for shape in ((3, 6, 5), (2, 6), (2, 6, 7, 9)):
        x, dy, w, b = signed(*shape), signed(*shape), f32(6), signed(6)
        yield Case(f"group_norm-{len(shape)}", [x, w, b], [empty(*shape), empty(2 * shape[0]), empty(2 * shape[0])],
                   lambda x, w, b, out, mean, rstd: kernels.group_norm(x, out, 2, w, b, mean, rstd),
                   lambda x, w, b: _engine.group_norm("group_norm", x, 2, w, b, 1e-5))
        _, mean, rstd = map(np.array, _engine.group_norm("group_norm", array(x), 2, None, None, 1e-5))
        yield Case(f"group_norm_backward-{len(shape)}", [dy, x, mean, rstd, w], [empty(*shape), empty(6), empty(6)],
                   lambda dy, x, m, r, w, out, dw, db: kernels.group_norm_backward(dy, x, m, r, out, 2, w, dw, db),
                   lambda dy, x, m, r, w: _engine.group_norm_backward(dy, x, 2, w, m, r, True, True, True))
    image, dimage, w3, b3 = signed(4, 3, 6), signed(4, 3, 6), f32(3), signed(3)

    def batch_norm(x, w, b, rm, rv):
        y, mean, rstd = _engine.batch_norm(x, w, b, rm, rv, True, 0.3, 1e-5)
        return y, mean, rstd, rm, rv

    running = [f32(3), f32(3)]
    yield Case("batch_norm-training", [image, w3, b3],
               [empty(4, 3, 6), empty(3), empty(3), *[r.copy() for r in running]],
               lambda x, w, b, out, m, r, rm, rv: kernels.batch_norm(
                   x, out, w, b, rm, rv, m, r, training=True, momentum=0.3),
               lambda x, w, b: batch_norm(x, w, b, *map(array, running)))
    yield Case("batch_norm", [image, w3, b3, *running], [empty(4, 3, 6)],
               lambda x, w, b, rm, rv, out: kernels.batch_norm(x, out, w, b, rm, rv),
               lambda x, w, b, rm, rv: _engine.batch_norm(x, w, b, rm, rv, False, 0.1, 1e-5)[:1])
    _, mean, rstd = map(np.array, _engine.batch_norm(array(image), None, None, None, None, True, 0.1, 1e-5))
    yield Case("batch_norm_backward", [dimage, image, mean, rstd, w3], [empty(4, 3, 6), empty(3), empty(3)],
               lambda dy, x, m, r, w, out, dw, db: kernels.batch_norm_backward(dy, x, m, r, out, w, dw, db),
               lambda dy, x, m, r, w: _engine.batch_norm_backward(dy, x, w, m, r, True, None, True, True, True))


def product_cases():
    a, b, bias = signed(7, 9), signed(9, 11), signed(11)
    yield Case("gemm", [a, b], [empty(7, 11)], lambda a, b, out: kernels.gemm(a, b, out), _engine.matmul)
    yield Case("gemm-strided-out", [a, b], [empty(7, 16)], lambda a, b, out: kernels.gemm(a, b, out[:, 2:13]),
             lambda a, b: framed(_engine.matmul(a, b)))
    yield Case("gemm-transposed", [np.ascontiguousarray(a.T), b], [empty(7, 11)],
               lambda at, b, out: kernels.gemm(at.T if not hasattr(at, "mT") else at.mT, b, out),
               lambda at, b: _engine.matmul(_engine.contiguous(_engine.transpose(at, 0, 1)), b))
    yield Case("gemm-batched", [signed(3, 1, 4, 6), signed(2, 6, 5)], [empty(3, 2, 4, 5)],
               lambda a, b, out: kernels.gemm(a, b, out), _engine.matmul)
    yield Case("gemm-rows", [signed(3, 2, 4, 6), signed(6, 5)], [empty(3, 2, 4, 5)],
               lambda a, b, out: kernels.gemm(a, b, out), _engine.matmul)
    yield Case("gemm-bias-relu", [a, np.ascontiguousarray(b.T), bias], [empty(7, 11)],
               lambda a, bt, bias, out: kernels.gemm(a, bt.mT if hasattr(bt, "mT") else bt.T, out, bias, "relu"),
               lambda a, bt, bias: _engine.linear(a, bt, bias, 1))
    start = signed(7, 11)
    yield Case("gemm-alpha-beta", [a, b], [start.copy()], lambda a, b, out: kernels.gemm(a, b, out, alpha=2, beta=0.5),
               lambda a, b: _engine.addmm(array(start), a, b, 0.5, 2.0))
    for nd, spatial, kernel, stride, padding, groups in ((1, (9,), (3,), 2, 1, 1), (2, (8, 7), (3, 2), (2, 1), 1, 2),
                                                         (3, (5, 6, 4), (2, 3, 3), 1, (1, 0, 1), 1)):
        x, w = signed(2, 4, *spatial), signed(6, 4 // groups, *kernel)
        bias = signed(6)
        arguments = {"stride": stride, "padding": padding, "groups": groups}
        common = ((stride,) * nd if isinstance(stride, int) else stride,
                  (padding,) * nd if isinstance(padding, int) else padding, (1,) * nd, groups)
        y = np.array(_engine.conv(nd, array(x), array(w), None, *common))
        dy = signed(*y.shape)
        yield Case(f"conv-{nd}", [x, w, bias], [empty(*y.shape)],
                   lambda x, w, b, out, k=arguments: kernels.conv(x, w, out, b, **k),
                   lambda x, w, b, nd=nd, c=common: _engine.conv(nd, x, w, b, *c))
        yield Case(f"conv_backward_x-{nd}", [dy, w], [empty(*x.shape)],
                   lambda dy, w, out, k=arguments: kernels.conv_backward_x(dy, w, out, **k),
                   lambda dy, w, nd=nd, c=common, s=x.shape: _engine.conv_backward_x(nd, dy, w, None, s, *c))
        yield Case(f"conv_backward_w-{nd}", [dy, x], [empty(*w.shape)],
                   lambda dy, x, out, k=arguments: kernels.conv_backward_w(dy, x, out, **k),
                   lambda dy, x, nd=nd, c=common, s=w.shape: _engine.conv_backward_w(nd, dy, x, s, *c))
    yield Case("conv-3x3", [signed(1, 16, 12, 12), signed(16, 16, 3, 3)], [empty(1, 16, 12, 12)],
               lambda x, w, out: kernels.conv(x, w, out, padding=1),
               lambda x, w: _engine.conv(2, x, w, None, (1, 1), (1, 1), (1, 1), 1))


def pool_cases():
    for nd, spatial, index in ((1, (9,), np.int32), (2, (7, 8), np.int64), (3, (4, 7, 8), np.int64)):
        x, op, wanted = signed(2, 3, *spatial), f"pool{nd}d", np.dtype(index).itemsize
        window = (3, (2,), 1, 1)
        for ceil in (False, True):
            y, at = map(np.array, _engine.max_pool(op, nd, array(x), *window, ceil, wanted))
            dy = signed(*y.shape)
            yield Case(f"max_pool-{nd}-{ceil}", [x], [empty(*y.shape), empty(*y.shape, dtype=index)],
                       lambda x, out, indices: kernels.max_pool(x, out, 3, stride=2, padding=1, indices=indices),
                       lambda x, nd=nd, op=op, c=ceil, n=wanted, w=window: _engine.max_pool(op, nd, x, *w, c, n))
            yield Case(f"max_pool_backward-{nd}-{ceil}", [dy, at], [empty(*x.shape)],
                       lambda dy, at, out: kernels.max_pool_backward(dy, at, out, 3, stride=2, padding=1),
                       lambda dy, at, nd=nd, op=op, s=x.shape, w=window: _engine.max_pool_backward(
                           op, nd, dy, at, s, w))
            yield Case(f"avg_pool-{nd}-{ceil}", [x], [empty(*y.shape)],
                       lambda x, out: kernels.avg_pool(x, out, 3, stride=2, padding=1, count_include_pad=False),
                       lambda x, nd=nd, op=op, c=ceil: _engine.avg_pool(op, nd, x, 3, (2,), 1, c, False, None))
            yield Case(f"avg_pool_backward-{nd}-{ceil}", [dy], [empty(*x.shape)],
                       lambda dy, out, nd=nd: kernels.avg_pool_backward(
                           dy, out, (3,) * nd, stride=2, padding=1, divisor_override=5),
                       lambda dy, nd=nd, op=op, c=ceil, s=x.shape: _engine.avg_pool_backward(
                           op, nd, dy, s, 3, (2,), 1, c, True, 5))
        for size in ((3, 2, 5)[:nd], (spatial[0], 1, 4)[:nd]):  # uneven windows, and even ones
            made, kind = (2, 3, *size), "x".join(map(str, size))
            at = np.array(_engine.adaptive_max_pool(op, nd, array(x), size, wanted)[1])
            yield Case(f"max_pool-adaptive-{kind}", [x], [empty(*made), empty(*made, dtype=index)],
                       lambda x, out, indices: kernels.max_pool(x, out, None, indices=indices),
                       lambda x, nd=nd, op=op, s=size, n=wanted: _engine.adaptive_max_pool(op, nd, x, s, n))
            yield Case(f"max_pool_backward-adaptive-{kind}", [signed(*made), at], [empty(*x.shape)],
                       lambda dy, at, out: kernels.max_pool_backward(dy, at, out, None),
                       lambda dy, at, nd=nd, op=op, s=x.shape: _engine.max_pool_backward(op, nd, dy, at, s, None))
            yield Case(f"avg_pool-adaptive-{kind}", [x], [empty(*made)],
                       lambda x, out: kernels.avg_pool(x, out, None),
                       lambda x, nd=nd, op=op, s=size: _engine.adaptive_avg_pool(op, nd, x, s))
            yield Case(f"avg_pool_backward-adaptive-{kind}", [signed(*made)], [empty(*x.shape)],
                       lambda dy, out: kernels.avg_pool_backward(dy, out, None),
                       lambda dy, nd=nd, op=op, s=x.shape: _engine.adaptive_avg_pool_backward(op, nd, dy, s))


def linear_table(n: int, out: int, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Where the taps of linear interpolation without align_corners lie, and their weights."""
    at = np.maximum((np.arange(out) + 0.5) * n / out - 0.5, 0)
    low = np.minimum(at.astype(np.int32), n - 1)
    part = at - low
    return np.stack([low, np.minimum(low + 1, n - 1)]).astype(np.int32), np.stack([1 - part, part]).astype(dtype)


def interpolate_cases():
    for dtype in (np.float32, np.float64):  # sizes whose weights are exact
        for nd, spatial, size in ((1, (4,), (8,)), (2, (3, 8), (6, 2)), (3, (2, 4, 5), (8, 2, 10))):
            tables = [a for n, m in zip(spatial, size, strict=True) for a in linear_table(n, m, dtype)]
            yield Case(f"interpolate-{nd}-{np.dtype(dtype)}", [signed(2, 3, *spatial).astype(dtype), *tables],
                       [empty(2, 3, *size, dtype=dtype)],
                       lambda x, *rest: kernels.interpolate(x, rest[-1], rest[:-1:2], rest[1:-1:2]),
                       lambda x, *_, nd=nd, size=size: _engine.interpolate(
                           x, nd, "linear", size, [0.0] * nd, False, False))


def sampler_cases():
    for shape, places in (((2, 3, 5, 7), (4, 6)), ((1, 2, 3, 4, 5), (2, 3, 4))):
        x, grid = signed(*shape), signed(shape[0], *places, len(shape) - 2)
        dy = signed(*shape[:2], *places)
        for mode in ("bilinear", "nearest", "bicubic")[: 7 - len(shape)]:
            how = (mode, "reflection", True)
            yield Case(f"grid_sample-{mode}-{len(shape)}", [x, grid], [empty(*dy.shape)],
                       lambda x, g, out, how=how: kernels.grid_sample(x, g, out, *how),
                       lambda x, g, how=how: _engine.grid_sample(x, g, *how))
            yield Case(f"grid_sample_backward-{mode}-{len(shape)}", [dy, x, grid], [empty(*shape), empty(*grid.shape)],
                       lambda dy, x, g, dx, dgrid, how=how: kernels.grid_sample_backward(dy, x, g, dx, dgrid, *how),
                       lambda dy, x, g, how=how: _engine.grid_sample_backward(dy, x, g, *how, True, True))
    x, dy = signed(2, 3, 8, 9), signed(3, 3, 2, 4)
    boxes = np.array([[0, 1, 1, 6, 7], [1, -2, 0, 3, 9], [1, 2.5, 3, 20, 4]], np.float32)
    yield Case("roi_align", [x, boxes], [empty(*dy.shape)],
               lambda x, b, out: kernels.roi_align(x, b, out, 0.5, 2, True),
               lambda x, b: _engine.roi_align(x, b, 2, 4, 0.5, 2, True))
    yield Case("roi_align_backward", [dy, boxes], [empty(*x.shape)],
               lambda dy, b, out: kernels.roi_align_backward(dy, b, out, 0.5),
               lambda dy, b: _engine.roi_align_backward(dy, b, x.shape, 0.5, -1, False))
    yield Case("roi_pool", [x, boxes], [empty(*dy.shape), empty(*dy.shape, dtype=np.int32)],
               lambda x, b, out, at: kernels.roi_pool(x, b, out, 0.5, at),
               lambda x, b: _engine.roi_pool(x, b, 2, 4, 0.5, True))
    at = np.array(_engine.roi_pool(array(x), array(boxes), 2, 4, 0.5, True)[1])
    yield Case("roi_pool_backward", [dy, boxes, at], [empty(*x.shape)],
               lambda dy, b, at, out: kernels.roi_pool_backward(dy, b, at, out),
               lambda dy, b, at: _engine.roi_pool_backward(dy, b, at, x.shape))
    places = np.sort(f32(70, 2, 2), 1).reshape(70, 4)
    order, groups = RNG.permutation(70), RNG.integers(0, 2, 70)
    yield Case("nms", [places, order, groups], [empty(70, dtype=np.int64), empty(1, dtype=np.int64)],
               lambda b, order, groups, out, count: kernels.nms(b, order, out, count, 0.3, groups),
               lambda b, order, groups: _engine.nms(b, order, groups, 0.3))


def order_cases():
    x, whole, nan = signed(3, 40, 2), RNG.integers(-9, 9, (4, 30)).astype(np.int16), signed(5, 100)
    nan[1, 3] = nan[4] = np.nan
    for op in ("sum", "prod", "max", "min", "logsumexp"):
        picks = op in ("max", "min")
        for dim in (0, 1, -1):
            yield Case(f"scan-{op}-{dim}", [x], [empty(*x.shape)] + [empty(*x.shape, dtype=np.int64)] * picks,
                       lambda x, out, at=None, dim=dim, op=op: kernels.scan(x, out, dim, op, indices=at),
                       lambda x, dim=dim, op=op, n=1 + picks: _engine.scan("scan", x, dim, None, op, False)[:n])
    yield Case("scan-reverse", [x], [empty(*x.shape)], lambda x, out: kernels.scan(x, out, 1, reverse=True),
               lambda x: _engine.scan("scan", x, 1, None, "sum", True)[:1])
    yield Case("scan-integers", [whole], [empty(4, 30, dtype=np.int64)], lambda x, out: kernels.scan(x, out),
               lambda x: _engine.scan("scan", x, 1, None, "sum", False)[:1])
    yield Case("scan-max-alone", [whole], [empty(4, 30, dtype=np.int16)], lambda x, out: kernels.scan(x, out, op="max"),
               lambda x: _engine.scan("scan", x, 1, None, "max", False)[:1])
    for a in (whole, nan):
        rows, n, dtype = *a.shape, a.dtype
        for back in (False, True):
            yield Case(f"sort-{dtype}-{back}", [a], [empty(rows, n, dtype=dtype), empty(rows, n, dtype=np.int64)],
                       lambda x, out, at, back=back: kernels.sort(x, out, at, back),
                       lambda x, back=back: _engine.sort("sort", x, -1, back))
            yield Case(f"topk-{dtype}-{back}", [a], [empty(rows, 7, dtype=dtype), empty(rows, 7, dtype=np.int64)],
                       lambda x, out, at, back=back: kernels.topk(x, out, at, back),
                       lambda x, back=back: _engine.topk(x, 7, -1, back))
        for order, kind, k in (("kth", "kthvalue", 5), ("median", "median", 1), ("nanmedian", "nanmedian", 1)):
            yield Case(f"kth-{dtype}-{order}", [a], [empty(rows, 1, dtype=dtype), empty(rows, 1, dtype=np.int64)],
                       lambda x, out, at, order=order, k=k: kernels.kth(x, out, k, at, order),
                       lambda x, kind=kind, k=k: _engine.kth(kind, x, k, -1, True))


def framed(a):
    """The product inside 77s, as gemm leaves an output that is part of a larger array."""
    whole = empty(7, 16)
    whole[:, 2:13] = np.array(a)
    return array(whole)


def sequence_cases():
    q, k, v, dy = signed(2, 3, 6, 8), signed(2, 1, 7, 8), signed(2, 1, 7, 5), signed(2, 3, 6, 5)
    mask = RNG.random((6, 7)) < 0.7
    rest = (0.25, False, 0.5, False, 3, 4)
    y, lse, _ = _engine.attention(*map(array, (q, k, v, mask)), *rest)
    y, lse = np.array(y), np.array(lse)
    given = {"dropout_p": 0.25, "scale": 0.5, "seed": 3, "offset": 4}
    yield Case("attention", [q, k, v, mask], [empty(*y.shape), empty(*lse.shape)],
               lambda q, k, v, m, out, lse: kernels.attention(q, k, v, out, m, lse, **given),
               lambda *a: _engine.attention(*a, *rest)[:2])
    yield Case("attention-causal", [q, k, v], [empty(2, 3, 6, 5)],
             lambda q, k, v, out: kernels.attention(q, k, v, out, causal=True),
             lambda q, k, v: _engine.attention(q, k, v, None, 0.0, True, 8**-0.5, False, 0, 0)[:1])
    yield Case("attention_backward", [dy, q, k, v, y, lse, mask],
               [empty(2, 3, 6, 8), empty(2, 3, 7, 8), empty(2, 3, 7, 5)],
               lambda dy, q, k, v, y, lse, m, dq, dk, dv: kernels.attention_backward(
                   dy, q, k, v, y, lse, dq, dk, dv, m, **given),
               lambda dy, q, k, v, y, lse, m: _engine.attention_backward(
                   dy, q, k, v, m, y, lse, *rest, True, True, True))
    for number, (cell, gates) in enumerate((("rnn_tanh", 1), ("rnn_relu", 1), ("lstm", 4), ("gru", 3))):
        T, B, width, H, D = 4, 3, 5, 6, 2
        x, states = signed(T, B, width), [signed(D, B, H) for _ in range(2)]
        GH = gates * H
        weights = [signed(*s) / 3 for _ in range(D) for s in ((GH, width), (GH, H), (GH,), (GH,))]
        c0 = states[1:] if cell == "lstm" else []
        outs = [empty(T, B, D * H), empty(D, B, H)]
        outs += [empty(D, B, H)] if cell == "lstm" else []
        outs += [empty(T * B, D * 4 * H)] if gates > 1 else []
        outs += [empty(T * B, D * H)] if cell == "lstm" else []

        def forward(x, *rest, number=number, lstm=cell == "lstm", keep=True):
            h0, c0, weights = rest[0], rest[1] if lstm else None, list(rest[2 if lstm else 1:])
            return tuple(a for a in _engine.rnn(number, x, None, h0, c0, weights, keep) if a is not None)

        def call(x, *rest, cell=cell, lstm=cell == "lstm", gated=gates > 1):
            rest, named = list(rest), {"h0": rest[0]}
            if lstm:
                named["c0"] = rest.pop(1)
            weights, outs = rest[1:9], rest[9:]
            names = ["out", "hn", *["cn"] * lstm, *["gates"] * gated, *["cells"] * lstm]
            kernels.rnn(cell, x, weights, **named, **dict(zip(names, outs, strict=True)))

        yield Case(f"rnn-{cell}", [x, states[0], *c0, *weights], outs, call, forward)
        saved = [np.array(a) for a in forward(*map(array, (x, states[0], *c0, *weights)))]
        y, tail = saved[0], saved[3:] if cell == "lstm" else saved[2:]
        dy, dhn = signed(T, B, D * H), signed(D, B, H)
        grads = [empty(T, B, width), empty(D, B, H), *([empty(D, B, H)] if cell == "lstm" else []),
                 *[empty(*w.shape) for w in weights]]
        n, t = len(c0), len(tail)

        def back(dy, dhn, y, x, h0, *rest, cell=cell, n=n, t=t):
            c0, tail, weights, outs = rest[:n], rest[n:n + t], rest[n + t:n + t + 8], rest[n + t + 8:]
            named = dict(zip(("gates", "cells"), tail, strict=False)) | ({"c0": c0[0], "dc0": outs[2]} if n else {})
            kernels.rnn_backward(cell, dy, x, weights, y, outs[2 + n:], outs[0], outs[1], h0=h0, dhn=dhn, **named)

        def reference(dy, dhn, y, x, h0, *rest, number=number, n=n, t=t):
            c0, tail, weights = rest[0] if n else None, rest[n:n + t], list(rest[n + t:])
            made = _engine.rnn_backward(number, x, None, h0, c0, weights, y, *(*tail, None, None)[:2], dy, dhn, None,
                                        [True, True, bool(n), *[True] * 8])
            return tuple(a for a in made if a is not None)

        yield Case(f"rnn_backward-{cell}", [dy, dhn, y, x, states[0], *c0, *tail, *weights], grads, back, reference)
    x = signed(2, 3, 4, 5)
    for mode, widths in (("constant", (1, 2, 0, 1)), ("reflect", (2, 1, 1, 0)), ("replicate", (1, 1, 0, 0, -1, 2)),
                         ("circular", (0, 0, 3, 1))):
        y = np.array(_engine.pad(array(x), widths, mode, 1.5))
        yield Case(f"pad-{mode}", [x], [empty(*y.shape)],
                   lambda x, out, w=widths, m=mode: kernels.pad(x, out, w, m, 1.5 if m == "constant" else 0.0),
                   lambda x, w=widths, m=mode: _engine.pad(x, w, m, 1.5))
        yield Case(f"pad_backward-{mode}", [signed(*y.shape)], [empty(*x.shape)],
                   lambda dy, out, w=widths, m=mode: kernels.pad_backward(dy, out, w, m),
                   lambda dy, w=widths, m=mode, s=x.shape: _engine.pad_backward(dy, s, w, m))


def data_cases():
    x, rows = signed(4, 5, 3), np.array([[0, 4], [2, 2]])
    yield Case("take", [x, rows], [empty(4, 2, 2, 3)], lambda x, i, out: kernels.take(x, i, out, dim=1),
               lambda x, i: _engine.take("take", x, 1, i))
    yield Case("take_backward", [signed(4, 2, 2, 3), rows], [np.zeros((4, 5, 3), np.float32)],
               lambda dy, i, out: kernels.take_backward(dy, i, out, dim=1),
               lambda dy, i: _engine.take_backward("take", dy, 1, i, 5))
    along = RNG.integers(0, 5, (4, 2, 3))
    yield Case("gather", [x, along], [empty(4, 2, 3)], lambda x, i, out: kernels.gather(x, i, out, dim=1),
               lambda x, i: _engine.gather("gather", x, 1, i))
    for add in (False, True):
        yield Case(f"scatter-{add}", [signed(4, 2, 3), along], [x.copy()],
                   lambda src, i, out, add=add: kernels.scatter(src, i, out, dim=1, add=add),
                   lambda src, i, add=add: _engine.scatter("scatter", array(x), 1, i, src, add))
        for where in ((0, 1), (0, 2), (1,), (1, 2)):
            given = [np.array([-1, 0, 2]) if d in where else None for d in range(3)]
            shape = x[tuple(slice(None) if g is None else g for g in given)].shape

            def put(values, *rest, add=add, where=where):
                at, out = iter(rest[:-1]), rest[-1]
                kernels.index_put(values, [next(at) if d in where else None for d in range(3)], out, add)

            def put_reference(values, *indices, add=add, where=where):
                at, out = iter(indices), array(x)
                _engine.index_put_("index_put_", out, [next(at) if d in where else None for d in range(3)], values, add)
                return out

            yield Case(f"index_put-{where}-{add}", [signed(*shape), *[g for g in given if g is not None]], [x.copy()],
                       put, put_reference)
            if add:
                continue

            def pick(x, *rest, where=where):
                at, out = iter(rest[:-1]), rest[-1]
                kernels.index(x, [next(at) if d in where else None for d in range(3)], out)

            def pick_reference(x, *indices, where=where):
                at = iter(indices)
                return _engine.index(x, [next(at) if d in where else None for d in range(3)])

            yield Case(f"index-{where}", [x, *[g for g in given if g is not None]], [empty(*shape)], pick,
                       pick_reference)
    for name, arguments, dtype in (("uniform", (-1.0, 2.0), np.float32), ("normal", (1.0, 3.0), np.float64),
                                   ("bernoulli", (0.3,), np.uint8), ("randint", (-5, 9), np.int64)):
        def drawn(name=name, arguments=arguments, dtype=dtype):
            y = array(empty(37, dtype=dtype))
            getattr(_engine, name + "_")(y, *arguments, 11, 13)
            return y

        yield Case(name, [], [empty(37, dtype=dtype)],
                   lambda out, name=name, arguments=arguments: getattr(kernels, name)(out, *arguments, 11, 13), drawn)
    yield Case("dropout", [signed(37)], [empty(37), empty(37, dtype=np.uint8)],
               lambda x, out, mask: kernels.dropout(x, out, mask, 0.3, 11, 13),
               lambda x: _engine.dropout(x, 0.3, 11, 13)[:2])


def step_cases():
    shapes = [(3,), (2, 5), (), *[(2,)] * 5]
    params, grads, m, v = ([f32(*s) for s in shapes] for _ in range(4))
    n = len(shapes)

    def sgd(*grads):
        p, buffers = [array(a) for a in params], [array(a) for a in m]
        _engine.sgd_step(p, list(grads), buffers, 0.1, 0.9, 0.1, 0.01, True, False, False)
        return (*p, *buffers)

    yield Case("sgd_step", grads, [a.copy() for a in (*params, *m)],
               lambda *a: kernels.sgd_step(a[n:2 * n], a[:n], a[2 * n:], 0.1, 0.9, 0.1, 0.01, nesterov=True),
               sgd)
    def rule(*grads):
        p, s0, s1, s2 = ([array(a) for a in some] for some in (params, m, v, m))
        _engine.rule_step("rmsprop", p, list(grads), s0, s1, s2, [0.1, 0.5, 0.9, 0.1, 0.8], 0.1, 0.9, True)
        return (*p, *s0, *s1, *s2)

    yield Case("rule_step", grads, [a.copy() for a in (*params, *m, *v, *m)],
               lambda *a: kernels.rule_step("rmsprop", a[n:2 * n], a[:n], [0.1, 0.5, 0.9, 0.1, 0.8], a[2 * n:3 * n],
                                            a[3 * n:4 * n], a[4 * n:], 0.1, 0.9, True), rule)
    yield Case("grad_norm", grads, [np.empty(())], lambda *a: kernels.grad_norm(a[:n], 3.0, out=a[n]),
               lambda *grads: _engine.grad_norm(list(grads), 3.0))

    def scale(factor):
        scaled = [array(a) for a in params]
        _engine.grad_scale(scaled, factor)
        return tuple(scaled)

    yield Case("grad_scale", [np.array(0.75)], [a.copy() for a in params],
               lambda factor, *a: kernels.grad_scale(a, factor), scale)
    for decoupled in (False, True):
        def adam(*grads, decoupled=decoupled):
            p, means, squares = [array(a) for a in params], [array(a) for a in m], [array(a) for a in v]
            _engine.adam_step(p, list(grads), means, squares, [], 3, 0.1, 0.8, 0.99, 1e-6, 0.1, decoupled, False)
            return (*p, *means, *squares)

        yield Case("adamw_step" if decoupled else "adam_step", grads, [a.copy() for a in (*params, *m, *v)],
                   lambda *a, f=kernels.adamw_step if decoupled else kernels.adam_step: f(
                       a[n:2 * n], a[:n], a[2 * n:3 * n], a[3 * n:], 3, 0.1, 0.8, 0.99, 1e-6, 0.1), adam)


def move_cases():
    x = np.where(RNG.random((4, 6)) < 0.5, 1.7, -2.4).astype(np.float32)
    yield Case("copy", [x], [empty(6, 4, dtype=np.int32)],
               lambda x, out: kernels.copy(x.mT if hasattr(x, "mT") else x.T, out),
               lambda x: _engine.cast(_engine.transpose(x, 0, 1), _engine.int32))
    yield Case("where", [x > 0, x, signed(6)], [empty(4, 6)], lambda *a: kernels.where(*a), _engine.where)


CASES = [case for make in (elementwise_cases, reduction_cases, row_cases, product_cases, pool_cases,
                           interpolate_cases, sampler_cases, order_cases, sequence_cases, data_cases,
                           step_cases, move_cases) for case in make()]
