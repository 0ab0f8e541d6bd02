"""Rows of pooling in one, two and three dimensions, of interpolation, and of their layers against PyTorch."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import FLOATS
from op_table.row import EXACT, SUMS, Bad, Row, Sample, Tolerance

MAX = {
    1: (((2, 3, 17), 2, {}), ((2, 3, 17), 3, {}), ((3, 129), 3, {"stride": 1, "padding": 1}), ((0, 3, 6), 2, {}),
        ((1, 2, 40), 5, {"stride": 4, "dilation": 2, "padding": 2, "ceil_mode": True})),
    2: (((1, 1, 1, 1), 1, {}), ((2, 3, 8, 8), 2, {}), ((1, 2, 7, 9), 3, {"stride": 2, "padding": 1}),
        ((1, 2, 7, 9), (3, 2), {"stride": (1, 2)}), ((2, 2, 8, 7), 3, {"dilation": 2, "stride": 1, "padding": 1}),
        ((1, 2, 7, 8), 3, {"stride": 2, "ceil_mode": True}), ((1, 2, 7, 7), 2, {"ceil_mode": True}),
        ((1, 1, 6, 5), 3, {"stride": 3, "ceil_mode": True, "padding": 1}), ((1, 2, 9, 34), 2, {"stride": (3, 2)}),
        ((3, 5, 5), 2, {}), ((0, 3, 6, 6), 2, {}), ((1, 1, 5, 129), 2, {}), ((1, 1, 4, 130), (1, 4), {"stride": 3}),
        ((1, 2, 5, 67), 5, {"stride": 1, "padding": 2})),
    3: (((1, 2, 4, 6, 8), 2, {}), ((1, 2, 5, 5, 5), 3, {"stride": 2, "padding": 1}), ((2, 5, 4, 35), (1, 2, 2), {}),
        ((1, 1, 6, 5, 7), (2, 3, 2), {"stride": (1, 2, 3), "padding": (1, 1, 0), "ceil_mode": True}),
        ((1, 1, 7, 6, 9), 3, {"dilation": (1, 2, 1), "stride": 1})),
}  # fmt: skip
AVG = {nd: tuple((s, k, {n: v for n, v in kw.items() if n != "dilation"}) for s, k, kw in cases)
       for nd, cases in MAX.items()}  # fmt: skip
AVG[2] += (
    ((1, 2, 7, 9), 3, {"stride": 2, "padding": 1, "count_include_pad": False}),
    ((1, 1, 6, 5), 3, {"stride": 3, "ceil_mode": True, "padding": 1, "count_include_pad": False}),
    ((1, 2, 6, 6), 2, {"divisor_override": 3}),
)
AVG[3] += (((1, 2, 5, 6, 7), 3, {"stride": 2, "padding": 1, "count_include_pad": False, "divisor_override": 5}),)
ADAPTIVE = {
    1: (((2, 3, 17), 1), ((2, 3, 17), 5), ((3, 12), 4)),
    2: (((1, 1, 1, 1), 1), ((2, 3, 8, 8), 1), ((2, 3, 7, 9), (3, 4)), ((1, 2, 5, 5), (7, 5)), ((3, 5, 6), (2, 3)),
        ((1, 2, 5, 6), (None, 3)), ((2, 3, 12, 12), 6), ((1, 1, 9, 70), (3, 32))),
    3: (((1, 2, 4, 6, 8), 1), ((1, 2, 5, 6, 7), (2, 3, 4)), ((2, 4, 4, 6), 2)),
}  # fmt: skip
LARGE = {1: ((9, 16, 1640), 3), 2: ((9, 16, 40, 41), 3), 3: ((2, 16, 12, 20, 41), 3)}


def ones(*shape):
    return tw.ones(shape)


def functional(name, **kw):
    return lambda *args: getattr(tw.nn.functional, name)(*args, **kw)


def pool_bad(name, nd):
    def call(**kw):
        return lambda g: getattr(tw.nn.functional, name)(ones(1, 1, *(4,) * nd), **kw)

    return (Bad("padding", call(kernel_size=2, padding=2), ValueError, "pad"),
            Bad("kernel", call(kernel_size=0), ValueError, "kernel"),
            Bad("stride", call(kernel_size=2, stride=-1), ValueError, "stride"),
            Bad("too_large", call(kernel_size=9), ValueError, name),
            Bad("dims", lambda g: getattr(tw.nn.functional, name)(ones(4), 2), ValueError, rf"{name}.*\(4,\)"),
            Bad("pair", call(kernel_size=(1, 2, 3, 4)), TypeError, f"{name}.*kernel_size"))  # fmt: skip


def cases(of, make, **more):
    return lambda g: (Sample(make(g)(*shape), kernel, **kw, **more) for shape, kernel, kw in of)


def distinct(g):
    return g.distinct


def plain(g):
    return g.array


def with_indices(nd):
    def samples(g):
        yield from cases(MAX[nd], distinct, return_indices=True)(g)
        x = np.zeros((1, *(4,) * nd), np.float32)
        yield Sample(x.astype(g.array(1).dtype), 2, return_indices=True)  # ties: the first wins
        yield Sample(x.astype(g.array(1).dtype), 3, stride=1, padding=1, return_indices=True)

    return samples


def max_rows(nd):
    name, large = f"max_pool{nd}d", LARGE[nd]
    return (
        Row(name, f"F.{name}", R.max_pool(nd), cases(MAX[nd], distinct), FLOATS, EXACT,
            slots=("max_pool", "max_pool_backward"), bad=pool_bad(name, nd),
            properties=(pool_keeps_nan, layers_as_in_pytorch) if nd == 2 else (),
            large=lambda g: Sample(g.array(*large[0]), large[1], stride=2, padding=1)),
        Row(f"{name}_indices", lambda x, k, **kw: tuple(getattr(tw.nn.functional, name)(x, k, **kw)), R.max_pool(nd),
            with_indices(nd), FLOATS, EXACT,
            grad_samples=lambda g: (s for s in with_indices(nd)(g) if s.args[0].any())),
        Row(f"adaptive_{name}", f"F.adaptive_{name}", R.adaptive_pool(nd, np.max),
            lambda g: (Sample(g.distinct(*s), size) for s, size in ADAPTIVE[nd]), FLOATS, EXACT,
            large=lambda g: Sample(g.distinct(*large[0]), (7,) * nd if nd > 1 else 7),
            bad=(Bad("size", lambda g: functional(f"adaptive_{name}")(ones(1, *(4,) * nd), -1), ValueError, "size"),)),
        Row(f"adaptive_{name}_indices", lambda x, n: functional(f"adaptive_{name}", return_indices=True)(x, n),
            lambda x, n: R.adaptive_pool(nd, np.max)(x, n, True),
            lambda g: (Sample(g.distinct(*s), size) for s, size in ADAPTIVE[nd]), FLOATS, EXACT),
        Row(f"max_unpool{nd}d", f"F.max_unpool{nd}d", R.max_unpool(nd), unpool_samples(nd), ("float32", "float64"),
            EXACT,
            bad=(Bad("shape", lambda g: functional(f"max_unpool{nd}d")(ones(1, *(4,) * nd), tw.zeros(3).long(), 2),
                     ValueError, rf"max_unpool{nd}d.*\(3,\)"),
                 Bad("size", lambda g: functional(f"max_unpool{nd}d", output_size=(99,) * nd)(
                     ones(1, *(4,) * nd), tw.zeros(1, *(4,) * nd).long(), 2), ValueError, "output_size"))),
    )  # fmt: skip


def unpool_samples(nd):
    def samples(g):
        for shape, size in (((2, 3, *(3,) * nd), None), ((2, *(4,) * nd), (9,) * nd)):
            x = g.array(*shape)
            items = int(np.prod(size or [2 * n for n in shape[-nd:]]))
            lead, count = shape[:-nd], int(np.prod(shape[-nd:]))
            at = np.stack([g.rng.permutation(items)[:count] for _ in range(int(np.prod(lead)))])
            yield Sample(x, at.reshape(shape), 2, output_size=size)

    return samples


def avg_rows(nd):
    name, large = f"avg_pool{nd}d", LARGE[nd]
    zero = () if nd == 1 else (Bad("divisor", lambda g: functional(name, divisor_override=0)(ones(1, *(4,) * nd), 2),
                                   ValueError, "divisor"),)
    return (
        Row(name, f"F.{name}", R.avg_pool(nd), cases(AVG[nd], plain), FLOATS, SUMS,
            slots=("avg_pool", "avg_pool_backward"), bad=(*pool_bad(name, nd), *zero),
            large=lambda g: Sample(g.array(*large[0]), large[1], stride=2, padding=1)),
        Row(f"adaptive_{name}", f"F.adaptive_{name}", R.adaptive_pool(nd, np.mean),
            lambda g: (Sample(g.array(*s), size) for s, size in ADAPTIVE[nd]), FLOATS, SUMS,
            large=lambda g: Sample(g.array(*large[0]), (6,) * nd if nd > 1 else 6),
            bad=(Bad("size", lambda g: functional(f"adaptive_{name}")(ones(1, *(4,) * nd), -1), ValueError, "size"),)),
        Row(f"lp_pool{nd}d", f"F.lp_pool{nd}d", R.lp_pool(nd),
            lambda g: (Sample(g.array(*s, low=0.5), p, k, **{n: v for n, v in kw.items() if n == "stride"})
                       for s, k, kw in MAX[nd][:3] for p in (2, 3.0)), ("float32", "float64"), COMPOSED),
    )  # fmt: skip


COMPOSED = Tolerance(16.0, "array", "powers, a mean, a root", grad_ulps=128.0)
WEIGHTED = Tolerance(8.0, "array", "weights rounded to the compute type; sums of up to 64 products", grad_ulps=64.0)
INTERPOLATE = (
    ((2, 3, 5), {"scale_factor": 2}, ("nearest", "nearest-exact", "linear", "area")),
    ((1, 2, 17), {"size": 40}, ("nearest", "nearest-exact", "linear")),
    ((2, 2, 40), {"size": 17}, ("nearest", "linear")),
    ((2, 3, 4, 5), {"scale_factor": 2}, ("nearest", "nearest-exact", "bilinear", "bicubic", "area")),
    ((1, 2, 7, 6), {"size": (3, 11)}, ("nearest", "nearest-exact", "bilinear", "bicubic", "area")),
    ((1, 2, 6, 5), {"scale_factor": (1.7, 0.6)}, ("nearest", "nearest-exact", "bilinear", "bicubic")),
    ((1, 2, 6, 5), {"scale_factor": 1.7, "recompute_scale_factor": True}, ("nearest", "bilinear", "bicubic")),
    ((1, 1, 3, 200), {"size": (2, 23)}, ("bilinear", "bicubic")), ((1, 1, 1, 1), {"size": 3}, ("bilinear", "bicubic")),
    ((1, 1, 3, 40), {"scale_factor": 2.0}, ("bilinear", "nearest")), ((0, 1, 3, 4), {"size": 3}, ("bilinear",)),
    ((1, 2, 3, 4, 5), {"scale_factor": 2}, ("nearest", "nearest-exact", "trilinear", "area")),
    ((1, 2, 3, 6, 5), {"size": (4, 3, 9)}, ("nearest", "trilinear")),
)  # fmt: skip


def interpolate_samples(kinds, **kw):
    return lambda g: (Sample(g.array(*shape), **how, mode=mode, **kw)
                      for shape, how, modes in INTERPOLATE for mode in modes if mode in kinds)


def interpolate_bad():
    f = tw.nn.functional.interpolate
    return (Bad("neither", lambda g: f(ones(1, 1, 4)), ValueError, "interpolate.*size and scale_factor"),
            Bad("both", lambda g: f(ones(1, 1, 4), 2, 2.0), ValueError, "interpolate.*size and scale_factor"),
            Bad("mode", lambda g: f(ones(1, 1, 4), 2, mode="cubic"), ValueError, "interpolate.*'cubic'"),
            Bad("dims", lambda g: f(ones(1, 1, 4), 2, mode="bilinear"), ValueError, r"interpolate.*\(1, 1, 4\)"),
            Bad("corners", lambda g: f(ones(1, 1, 4), 2, align_corners=True), ValueError, "align_corners"),
            Bad("antialias", lambda g: f(ones(1, 1, 4, 4), 2, mode="nearest", antialias=True), ValueError,
                "antialias is for the modes bilinear and bicubic, got 'nearest'"),
            Bad("empty", lambda g: f(ones(1, 1, 4), 0), ValueError, "interpolate.*positive"),
            Bad("count", lambda g: f(ones(1, 1, 4), (1, 2)), ValueError, r"interpolate.*\(1, 2\)"))  # fmt: skip


def interpolate_as_pytorch():
    import pytest

    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 12))
    for how in ({"size": (5, 20)}, {"scale_factor": (2.3, 0.7)}, {"scale_factor": 3}, {"size": 7},
                {"scale_factor": 1.9, "recompute_scale_factor": True}):  # fmt: skip
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area"):
            for corners in (None, True) if mode.startswith("bi") else (None,):
                ours = tw.nn.functional.interpolate(tw.tensor(x), **how, mode=mode, align_corners=corners)
                theirs = torch.nn.functional.interpolate(torch.tensor(x), **how, mode=mode, align_corners=corners)
                assert np.allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-5), (how, mode, corners)


def pool_keeps_nan():
    x = tw.zeros(1, 1, 4, 4)
    x[0, 0, 3, 3] = float("nan")
    y = tw.nn.functional.max_pool2d(x, 2)
    assert bool(tw.isnan(y[0, 0, 1, 1])) and int(tw.isnan(y).sum().item()) == 1
    # Of several the last in row order is named, as in PyTorch; of minus infinities the first.
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = float("nan")
    assert tw.nn.functional.max_pool2d(x, 3, 1, return_indices=True)[1].flatten().tolist() == [4, 1, 4, 15]
    low = tw.full((1, 1, 3, 3), -float("inf"))
    assert tw.nn.functional.max_pool2d(low, 3, 2, 1, return_indices=True)[1].flatten().tolist() == [0, 1, 3, 4]


def layers_as_in_pytorch():
    import pytest

    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 8, 10))
    for build in (
        lambda nn, d: getattr(nn, f"MaxPool{d}d")(3, 2, 1, ceil_mode=True),
        lambda nn, d: getattr(nn, f"AvgPool{d}d")(3, 2, 1, count_include_pad=False),
        lambda nn, d: getattr(nn, f"AdaptiveAvgPool{d}d")(4), lambda nn, d: getattr(nn, f"AdaptiveMaxPool{d}d")(3),
        lambda nn, d: getattr(nn, f"LPPool{d}d")(2, 2), lambda nn, d: nn.Upsample(scale_factor=2),
        lambda nn, d: nn.UpsamplingBilinear2d(scale_factor=3) if d == 2 else nn.Upsample(5),
        lambda nn, d: nn.UpsamplingNearest2d(9) if d == 2 else nn.Upsample(5),
    ):  # fmt: skip
        for d in (1, 2, 3):
            image = x[(slice(None), slice(None), *(0,) * (3 - d))]
            ours, theirs = build(tw.nn, d), build(torch.nn, d)
            got, want = ours(tw.tensor(image)).numpy(), theirs(torch.tensor(image)).numpy()
            assert np.allclose(got, want, rtol=0, atol=1e-12), ours
    image = torch.tensor(x[:, :, 0])
    y, at = torch.nn.MaxPool2d(2, return_indices=True)(image)
    ours = tw.nn.MaxUnpool2d(2)(tw.tensor(y.numpy()), tw.tensor(at.numpy()))
    assert np.array_equal(ours.numpy(), torch.nn.MaxUnpool2d(2)(y, at).numpy())


ROWS = [
    *(row for nd in (1, 2, 3) for row in (*max_rows(nd), *avg_rows(nd))),
    Row("interpolate_nearest", "F.interpolate", R.interpolate, interpolate_samples(("nearest", "nearest-exact")),
        FLOATS, Tolerance(0.0, reason="selects values", grad_ulps=32.0), slots=("interpolate",), bad=interpolate_bad()),
    Row("interpolate", "F.interpolate", R.interpolate,
        interpolate_samples(("linear", "bilinear", "trilinear", "bicubic", "area")), FLOATS, WEIGHTED,
        slots=("interpolate",), properties=(interpolate_as_pytorch,),
        large=lambda g: Sample(g.array(5, 8, 40, 41), scale_factor=2, mode="bilinear")),
    Row("interpolate_corners", "F.interpolate", R.interpolate,
        interpolate_samples(("linear", "bilinear", "trilinear", "bicubic"), align_corners=True), FLOATS, WEIGHTED),
]  # fmt: skip
