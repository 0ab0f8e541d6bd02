"""Rows of normalization."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import FLOATS
from op_table.row import Bad, Row, Sample, Tolerance

NORM = Tolerance(6.0, "array", "mean and variance are rounded before they are used", grad_ulps=128.0)


def functional(name):
    return lambda *args, **kw: getattr(tw.nn.functional, name)(*args, **kw)


def ones(*shape):
    return tw.ones(shape)


NORM_SHAPES = ((3, 1, 2, 2), (5, 3), (129, 5), (4, 3, 7), (2, 5, 6, 7), (1, 2, 3, 43))


def batch_norm_samples(training):
    def samples(g):
        for i, shape in enumerate(NORM_SHAPES):
            c = shape[1]
            mean, var = g.array(c, low=-1, high=1), g.array(c, low=0.5, high=2)
            affine = {"weight": g.array(c, low=0.5, high=2), "bias": g.array(c)} if i % 2 else {}
            if training:
                yield Sample(g.array(*shape), None, None, training=True, **affine)
            else:
                yield Sample(g.array(*shape), mean, var, training=False, eps=1e-3 if i == 2 else 1e-5, **affine)

    return samples


def running_statistics():
    """In training the running mean and (unbiased) variance move by `momentum` towards the batch's."""
    rng = np.random.default_rng(2)
    x = rng.normal(2, 3, (6, 4, 5)).astype(np.float32)
    mean, var = tw.zeros(4), tw.ones(4)
    for _ in range(2):
        tw.nn.functional.batch_norm(tw.tensor(x), mean, var, training=True, momentum=0.3)
    wide = x.astype(np.float64)
    m, v = np.zeros(4), np.ones(4)
    for _ in range(2):
        m = 0.7 * m + 0.3 * wide.mean((0, 2))
        v = 0.7 * v + 0.3 * wide.var((0, 2), ddof=1)
    np.testing.assert_allclose(mean.numpy(), m, rtol=2e-6)
    np.testing.assert_allclose(var.numpy(), v, rtol=2e-6)


def evaluation_leaves_statistics():
    mean, var = tw.ones(4), tw.ones(4)
    tw.nn.functional.batch_norm(ones(3, 4, 2), mean, var, training=False)
    assert bool((mean == 1).all()) and bool((var == 1).all())


LAYER_CASES = (((3,), (3,)), ((5, 127), (127,)), ((129, 128), (128,)), ((2, 3, 33), (33,)), ((4, 3, 5), (3, 5)),
               ((0, 4), (4,)))  # fmt: skip


def layer_norm_samples(g):
    for i, (shape, normalized) in enumerate(LAYER_CASES):
        x = g.array(*shape)
        yield Sample(x, normalized)
        w, b = g.array(*normalized, low=0.5, high=2), g.array(*normalized)
        yield Sample(x, normalized, w, b, eps=1e-3 if i % 2 else 1e-5)
        yield Sample(x, normalized, weight=w)


def rms_norm_samples(g):
    for shape, normalized in LAYER_CASES:
        x = g.array(*shape)
        eps = 1e-5 if g.dtype == "float64" else None  # whose default is that of the dtype
        yield Sample(x, normalized, eps=eps or 1e-3)
        yield Sample(x, normalized, g.array(*normalized, low=0.5, high=2), **({"eps": eps} if eps else {}))


# Channels of 1 and of few positions (a parameter a column), and of many (a parameter a run).
GROUP_CASES = (((3, 4), 1), ((5, 6, 3), 3), ((2, 4, 3, 5), 1), ((2, 6, 9, 8), 2), ((3, 4, 127), 4), ((2, 2, 130), 1),
               ((0, 4, 3), 2))  # fmt: skip


def group_norm_samples(g):
    for i, (shape, groups) in enumerate(GROUP_CASES):
        x, c = g.array(*shape), shape[1]
        w, b = g.array(c, low=0.5, high=2), g.array(c)
        yield Sample(x, groups, w, b, eps=1e-3 if i % 2 else 1e-5)
        yield Sample(x, groups) if i % 2 else Sample(x, groups, weight=w)


def instance_norm_samples(g):
    for shape in ((3, 2, 5), (2, 3, 7, 9), (2, 3, 8, 16), (1, 2, 3, 4, 5)):
        x, c = g.array(*shape), shape[1]
        yield Sample(x)
        yield Sample(x, weight=g.array(c, low=0.5, high=2), bias=g.array(c))


def huge_rows():
    """Rows cut for several threads agree with their float64 references, forward and backward."""
    rng = np.random.default_rng(8)
    for name, shape, rest in (("layer_norm", (2, 70001), ((70001,),)), ("rms_norm", (2, 70001), ((70001,),)),
                              ("group_norm", (1, 4, 31, 1030), (2,)), ("instance_norm", (1, 2, 70001), ())):
        x = rng.normal(3, 2, shape).astype(np.float32)
        count = shape[1]
        w, b, dy = (rng.uniform(0.5, 2, n).astype(np.float32) for n in (count, count, x.size))
        named = {"weight": w} | ({} if name == "rms_norm" else {"bias": b})
        got = []
        for dtype in (tw.float32, tw.float64):
            xs = [tw.tensor(a, dtype=dtype).requires_grad_() for a in (x, *named.values())]
            y = functional(name)(xs[0], *rest, **dict(zip(named, xs[1:], strict=True)), eps=1e-5)
            y.backward(tw.tensor(dy.reshape(shape), dtype=dtype))
            got.append([y.detach(), *(t.grad for t in xs)])
        for a, e in zip(*got, strict=True):
            a, e = a.numpy(), e.numpy()
            assert np.abs(a - e).max() <= 4e-6 * np.abs(e).max() * (1 if a.size > 10 else 10), name
        wide = x.astype(np.float64)
        args = (wide, *rest) if name != "instance_norm" else (wide,)
        want = getattr(R, name)(*args, **{k: v.astype(np.float64) for k, v in named.items()}, eps=1e-5)
        np.testing.assert_allclose(got[1][0].numpy(), want, rtol=1e-11, atol=1e-11)


def instance_statistics():
    """The running mean and (unbiased) variance move towards the mean over images, and are used when asked for."""
    rng = np.random.default_rng(2)
    x = rng.normal(2, 3, (6, 4, 5)).astype(np.float32)
    mean, var = tw.zeros(4), tw.ones(4)
    tw.nn.functional.instance_norm(tw.tensor(x), mean, var, momentum=0.3)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), 0.3 * wide.mean(2).mean(0), rtol=2e-6)
    np.testing.assert_allclose(var.numpy(), 0.7 + 0.3 * wide.var(2, ddof=1).mean(0), rtol=2e-6)
    y = tw.nn.functional.instance_norm(tw.tensor(x), mean, var, use_input_stats=False)
    want = R.batch_norm(wide, mean.numpy().astype(np.float64), var.numpy().astype(np.float64))
    np.testing.assert_allclose(y.numpy(), want, rtol=1e-5, atol=1e-6)


ROWS = [
    Row("batch_norm_train", "F.batch_norm", R.batch_norm, batch_norm_samples(True), FLOATS, NORM,
        slots=("batch_norm", "batch_norm_backward"), properties=(running_statistics,), ops=("batch_norm",),
        large=lambda g: Sample(g.array(9, 16, 40, 41), None, None, g.array(16), g.array(16), True),
        bad=(Bad("one_value", lambda g: functional("batch_norm")(ones(1, 3), None, None, training=True), ValueError,
                 "batch_norm.*more than 1|batch_norm.*one"),
             Bad("weight", lambda g: functional("batch_norm")(ones(4, 3), None, None, ones(2), training=True),
                 ValueError, "batch_norm.*3.*2|batch_norm.*2.*3"),
             Bad("statistics", lambda g: functional("batch_norm")(ones(4, 3), None, None), ValueError,
                 "batch_norm.*running"))),
    Row("batch_norm_eval", "F.batch_norm", R.batch_norm, batch_norm_samples(False), FLOATS, NORM, no_grad=(1, 2),
        slots=("batch_norm", "batch_norm_backward"), properties=(evaluation_leaves_statistics,)),
    Row("layer_norm", "F.layer_norm", R.layer_norm, layer_norm_samples, FLOATS, NORM,
        slots=("layer_norm", "layer_norm_backward"),
        large=lambda g: Sample(g.array(401, 515), (515,), g.array(515), g.array(515)),
        bad=(Bad("shape", lambda g: functional("layer_norm")(ones(2, 3), (4,)), ValueError, r"layer_norm.*4"),
             Bad("weight", lambda g: functional("layer_norm")(ones(2, 3), (3,), ones(2)), ValueError,
                 "layer_norm.*weight"))),
    Row("rms_norm", "F.rms_norm", R.rms_norm, rms_norm_samples, FLOATS, NORM,
        slots=("layer_norm", "layer_norm_backward"),
        large=lambda g: Sample(g.array(401, 515), (515,), g.array(515)),
        bad=(Bad("shape", lambda g: functional("rms_norm")(ones(2, 3), (4,)), ValueError, r"rms_norm.*4"),
             Bad("weight", lambda g: functional("rms_norm")(ones(2, 3), (3,), ones(2)), ValueError,
                 "rms_norm.*weight"))),
    Row("group_norm", "F.group_norm", R.group_norm, group_norm_samples, FLOATS, NORM,
        slots=("layer_norm", "layer_norm_backward"), properties=(huge_rows,),
        large=lambda g: Sample(g.array(9, 16, 40, 41), 4, g.array(16), g.array(16)),
        bad=(Bad("groups", lambda g: functional("group_norm")(ones(2, 3, 4), 2), ValueError, "group_norm.*3 and 2"),
             Bad("one_value", lambda g: functional("group_norm")(ones(1, 3), 3), ValueError, "group_norm.*more than 1"),
             Bad("weight", lambda g: functional("group_norm")(ones(2, 4), 2, ones(3)), ValueError,
                 "group_norm.*weight"))),
    Row("instance_norm", "F.instance_norm", R.instance_norm, instance_norm_samples, FLOATS, NORM,
        slots=("layer_norm", "layer_norm_backward"), properties=(instance_statistics,),
        large=lambda g: Sample(g.array(9, 16, 40, 41)),
        bad=(Bad("one_value", lambda g: functional("instance_norm")(ones(2, 3, 1)), ValueError,
                 "instance_norm.*more than 1"),
             Bad("statistics", lambda g: functional("instance_norm")(ones(2, 3, 4), use_input_stats=False), ValueError,
                 "instance_norm.*running"),
             Bad("weight", lambda g: functional("instance_norm")(ones(2, 4, 3), weight=ones(3)), ValueError,
                 "instance_norm.*weight"))),
]  # fmt: skip
