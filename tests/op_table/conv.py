"""Rows of the convolutions: one, two and three dimensions, plain and transposed."""

from __future__ import annotations

import math

import numpy as np

import references as R
import tilewright as tw
from arrays import FLOATS
from op_table.products import PRODUCT
from op_table.row import Bad, Row, Sample

# shape of x (no batch: one number less), shape of w, then the keywords. The 3x3 of stride 1 with more than a few
# channels are Winograd's.
CONV1D = (
    ((1, 1, 1), (1, 1, 1), {}), ((2, 3, 7), (4, 3, 3), {}), ((2, 4, 130), (6, 2, 2), {"dilation": 4, "groups": 2}),
    ((1, 4, 9), (6, 4, 3), {"stride": 2, "padding": 1}), ((1, 3, 6), (2, 3, 4), {"padding": "same", "dilation": 3}),
    ((2, 6, 129), (6, 1, 3), {"groups": 6, "padding": 1}), ((4, 33), (5, 4, 5), {"padding": 4, "stride": 3}),
    ((0, 3, 5), (4, 3, 3), {}), ((3, 5, 127), (7, 5, 1), {}),
)  # fmt: skip
CONV2D = (
    ((1, 1, 1, 1), (1, 1, 1, 1), {}), ((2, 3, 5, 7), (4, 3, 3, 3), {}), ((2, 3, 8, 8), (4, 3, 3, 3), {"padding": 1}),
    ((1, 4, 9, 9), (6, 4, 3, 3), {"stride": 2, "padding": 1}),
    ((2, 4, 7, 6), (6, 4, 3, 2), {"stride": (2, 1), "padding": (1, 0)}), ((1, 2, 11, 9), (3, 2, 3, 3), {"dilation": 2}),
    ((2, 4, 6, 6), (8, 2, 3, 3), {"groups": 2, "padding": 1}),
    ((2, 6, 7, 7), (6, 1, 3, 3), {"groups": 6, "padding": 1}),
    ((1, 4, 7, 7), (8, 1, 5, 5), {"groups": 4, "padding": 2, "stride": 2}), ((3, 5, 4, 4), (7, 5, 1, 1), {}),
    ((2, 5, 5, 5), (7, 5, 1, 1), {"stride": 2}), ((0, 3, 5, 5), (4, 3, 3, 3), {}),
    ((1, 16, 10, 10), (17, 16, 3, 3), {}),
    ((1, 3, 6, 6), (2, 3, 3, 3), {"padding": "same"}), ((1, 3, 6, 6), (2, 3, 3, 3), {"padding": "valid"}),
    ((1, 1, 28, 28), (6, 1, 5, 5), {}), ((1, 3, 4, 4), (2, 3, 3, 3), {"padding": 4, "dilation": 3, "stride": 3}),
    ((3, 5, 5), (2, 3, 3, 3), {}), ((2, 34, 10, 9), (43, 34, 3, 3), {"padding": 1}),
    ((1, 35, 8, 6), (65, 35, 3, 3), {"padding": (2, 0)}), ((1, 33, 37, 35), (40, 33, 3, 3), {"padding": "same"}),
    ((2, 80, 8, 6), (72, 40, 3, 3), {"padding": 1, "groups": 2}), ((3, 5, 6, 7), (70, 5, 2, 2), {}),
)  # fmt: skip
CONV3D = (
    ((1, 1, 1, 1, 1), (1, 1, 1, 1, 1), {}), ((2, 3, 4, 5, 6), (4, 3, 3, 3, 3), {"padding": 1}),
    ((1, 2, 5, 7, 6), (3, 2, 3, 2, 1), {"stride": (2, 1, 3), "padding": (1, 0, 2)}),
    ((1, 4, 5, 5, 4), (6, 2, 2, 2, 2), {"groups": 2, "dilation": (1, 3, 2)}), ((2, 3, 4, 4, 4), (5, 3, 1, 1, 1), {}),
    ((1, 3, 4, 3, 3), (3, 1, 3, 3, 3), {"groups": 3, "padding": "same"}), ((2, 4, 5, 6), (3, 2, 2, 2, 2), {}),
    ((0, 3, 3, 3, 3), (4, 3, 3, 3, 3), {}),
)  # fmt: skip
TRANSPOSE1D = (
    ((1, 1, 1), (1, 1, 1), {}), ((2, 3, 7), (3, 4, 3), {}),
    ((1, 4, 9), (4, 3, 4), {"stride": 2, "padding": 1, "groups": 2}),
    ((1, 3, 6), (3, 2, 2), {"stride": 3, "output_padding": 2}), ((4, 33), (4, 5, 5), {"padding": 4}),
    ((2, 6, 17), (6, 1, 3), {"groups": 6, "padding": 1, "stride": 2}),
    ((1, 2, 5), (2, 3, 3), {"dilation": 3, "output_padding": 2, "stride": 2, "padding": 1}), ((0, 3, 5), (3, 4, 3), {}),
)  # fmt: skip
TRANSPOSE2D = (
    ((1, 1, 1, 1), (1, 1, 1, 1), {}), ((2, 3, 5, 7), (3, 4, 3, 3), {}),
    ((1, 4, 5, 4), (4, 6, 4, 4), {"stride": 2, "padding": 1}),
    ((2, 4, 4, 3), (4, 2, 3, 2), {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "groups": 2}),
    ((1, 5, 6, 5), (5, 4, 2, 2), {"stride": 2}), ((3, 4, 4), (3, 2, 3, 3), {"dilation": 2, "padding": 2}),
    ((1, 6, 5, 5), (6, 1, 3, 3), {"groups": 6, "stride": 2, "padding": 1, "output_padding": 1}),
    ((1, 40, 6, 8), (40, 36, 3, 3), {"padding": 1}), ((2, 3, 1, 1), (3, 4, 4, 4), {}), ((3, 5, 4, 4), (5, 7, 1, 1), {}),
)  # fmt: skip
TRANSPOSE3D = (
    ((1, 1, 1, 1, 1), (1, 1, 1, 1, 1), {}), ((2, 3, 2, 3, 4), (3, 2, 2, 2, 2), {"stride": 2}),
    ((1, 4, 3, 2, 3), (4, 3, 3, 1, 2), {"stride": (2, 1, 3), "padding": (1, 0, 0), "output_padding": (1, 0, 2),
                                         "groups": 2}),
    ((3, 3, 3, 3), (3, 2, 3, 3, 3), {"padding": 1}),
)  # fmt: skip


def samples(cases, transposed=False):
    def make(g):
        for i, (shape, kernel, kw) in enumerate(cases):
            out = kernel[1] * kw.get("groups", 1) if transposed else kernel[0]
            b = g.array(out) if i % 2 else None
            yield Sample(g.array(*shape, low=-1, high=1), g.array(*kernel, low=-1, high=1), b, **kw)

    return make


def terms(ref):
    """The size of the sums' terms: the same convolution of absolute values."""
    return lambda x, w, b=None, *a, **kw: ref(np.abs(x), np.abs(w), None if b is None else np.abs(b), *a, **kw)


def flops(s):
    return 2 * R.conv(*s.args, **s.kwargs).size * math.prod(s.args[1].shape[1:])


def ones(*shape):
    return tw.ones(shape)


def bad(nd):
    name = f"conv{nd}d"
    f, tail, k = getattr(tw.nn.functional, name), (5,) * nd, (3,) * nd
    return (
        Bad("channels", lambda g: f(ones(1, 3, *tail), ones(2, 4, *k)), ValueError, rf"{name}.*4 channels, got 3"),
        Bad("groups", lambda g: f(ones(1, 4, *tail), ones(3, 2, *k), groups=2), ValueError,
            rf"{name}: groups must divide.*4 channels in and 3 out for 2 groups"),
        Bad("no_groups", lambda g: f(ones(1, 4, *tail), ones(3, 2, *k), groups=0), ValueError, f"{name}: groups.*0"),
        Bad("kernel", lambda g: f(ones(1, 1, *(2,) * nd), ones(1, 1, *k)), ValueError,
            f"{name}: kernel must fit.*3.*2"),
        Bad("stride", lambda g: f(ones(1, 1, *tail), ones(1, 1, *k), stride=0), ValueError, f"{name}: stride.*0"),
        Bad("padding", lambda g: f(ones(1, 1, *tail), ones(1, 1, *k), padding=-1), ValueError, f"{name}: padding.*-1"),
        Bad("same", lambda g: f(ones(1, 1, *tail), ones(1, 1, *k), stride=2, padding="same"), ValueError,
            f"{name}: padding 'same'"),
        Bad("bias", lambda g: f(ones(1, 1, *tail), ones(2, 1, *k), ones(3)), ValueError, f"{name}: bias.*2.*3"),
        Bad("dims", lambda g: f(ones(*tail), ones(2, 1, *k)), ValueError, f"{name}: input must be"),
        Bad("weight", lambda g: f(ones(1, 1, *tail), ones(2, 1, *k, 3)), ValueError, f"{name}: weight must be"),
        Bad("dtypes", lambda g: f(ones(1, 1, *tail), ones(2, 1, *k).to(tw.float64)), TypeError, f"{name}.*float64"),
        Bad("ints", lambda g: f(ones(1, 1, *tail), ones(2, 1, *k), stride=1.5), TypeError, f"{name}: stride.*1.5"),
    )


def transposed_bad(nd):
    name = f"conv_transpose{nd}d"
    f, tail, k = getattr(tw.nn.functional, name), (5,) * nd, (3,) * nd
    return (
        Bad("channels", lambda g: f(ones(1, 3, *tail), ones(4, 2, *k)), ValueError, rf"{name}.*4 channels, got 3"),
        Bad("groups", lambda g: f(ones(1, 3, *tail), ones(3, 2, *k), groups=2), ValueError,
            f"{name}: groups must divide the channels, got 3 for 2"),
        Bad("extra", lambda g: f(ones(1, 1, *tail), ones(1, 1, *k), stride=2, output_padding=2), ValueError,
            f"{name}: output_padding must be smaller.*2"),
        Bad("empty", lambda g: f(ones(1, 1, *tail), ones(1, 1, *k), padding=4), ValueError,
            f"{name}: the output must not be empty, got size -1"),
        Bad("bias", lambda g: f(ones(1, 1, *tail), ones(1, 2, *k), ones(3)), ValueError, f"{name}: bias.*2.*3"),
        Bad("padding", lambda g: f(ones(1, 1, *tail), ones(1, 1, *k), padding=-1), ValueError, f"{name}: padding.*-1"),
        Bad("dims", lambda g: f(ones(*tail), ones(2, 1, *k)), ValueError, f"{name}: input must be"),
        Bad("weight", lambda g: f(ones(1, 1, *tail), ones(1, 1, *k, 3)), ValueError, f"{name}: weight must be"),
        Bad("dtypes", lambda g: f(ones(1, 1, *tail), ones(1, 2, *k).to(tw.float64)), TypeError, f"{name}.*float64"),
        Bad("integers", lambda g: f(ones(1, 1, *tail).to(tw.int64), ones(1, 2, *k).to(tw.int64)), TypeError,
            f"{name}.*floating point.*int64"),
    )


SLOTS = ("conv", "conv_backward_x", "conv_backward_w")


def winograd_can_be_switched_off():
    """Both ways are exact on small integers; on normal numbers they differ, in the last bits."""
    rng = np.random.default_rng(5)
    whole = rng.integers(-4, 5, (2, 64, 9, 10)), rng.integers(-4, 5, (64, 64, 3, 3)) * 4
    normal = rng.standard_normal((2, 64, 9, 10)), rng.standard_normal((64, 64, 3, 3))
    assert tw.kernels.winograd()
    try:
        results = []
        for on in (True, False):
            tw.kernels.set_winograd(on)
            assert tw.kernels.winograd() is on
            results += [tw.nn.functional.conv2d(tw.tensor(x, dtype=tw.float32), tw.tensor(w, dtype=tw.float32),
                                                padding=1).numpy() for x, w in (whole, normal)]
    finally:
        tw.kernels.set_winograd(True)
    assert np.array_equal(results[0], R.conv(*whole, padding=1)) and np.array_equal(results[0], results[2])
    exact = R.conv(*(a.astype(np.float32).astype(np.float64) for a in normal), padding=1)
    errors = [np.abs(r - exact).max() for r in (results[1], results[3])]
    assert not np.array_equal(results[1], results[3]) and errors[0] < 1.5 * errors[1]


def row(name, cases, large, transposed=False, properties=()):
    ref = R.conv_transpose if transposed else R.conv
    nd = int(name[-2])
    return Row(name, f"F.{name}", ref, samples(cases, transposed), FLOATS, PRODUCT, magnitude=terms(ref), slots=SLOTS,
               flops=None if transposed else flops, bad=transposed_bad(nd) if transposed else bad(nd),
               properties=properties, large=lambda g: next(samples((large,), transposed)(g)))


ROWS = [
    row("conv1d", CONV1D, ((3, 20, 1500), (33, 20, 2), {"dilation": 8})),
    row("conv2d", CONV2D, ((5, 16, 30, 31), (33, 16, 3, 3), {"padding": 1}),
        properties=(winograd_can_be_switched_off,)),
    row("conv3d", CONV3D, ((2, 9, 12, 13, 14), (17, 9, 3, 3, 3), {"padding": 1})),
    row("conv_transpose1d", TRANSPOSE1D, ((3, 33, 300), (33, 20, 4), {"stride": 2, "padding": 1}), True),
    row("conv_transpose2d", TRANSPOSE2D, ((3, 33, 15, 16), (33, 20, 4, 4), {"stride": 2, "padding": 1}), True),
    row("conv_transpose3d", TRANSPOSE3D, ((2, 17, 7, 6, 8), (17, 9, 2, 2, 2), {"stride": 2}), True),
    Row("conv2d_winograd", "F.conv2d", R.conv,
        lambda g: (Sample(g.array(1, 2, 4, 5), g.array(3, 2, 3, 3)),
                   Sample(g.array(2, 50, 9, 12), g.array(45, 50, 3, 3), g.array(45), 1, 1)), FLOATS, PRODUCT,
        magnitude=terms(R.conv), large=lambda g: Sample(g.array(3, 70, 40, 41), g.array(65, 70, 3, 3), None, 1, 1)),
    Row("conv2d_strided", "F.conv2d", R.conv,
        lambda g: (Sample(g.array(2, 5, 9, 11), g.array(7, 5, 3, 3), None, 2, 1),
                   Sample(g.array(2, 3, 37, 35), g.array(9, 3, 7, 7), None, 2, 3),
                   Sample(g.array(1, 10, 45, 40), g.array(12, 10, 3, 3), None, 2, 1)), FLOATS, PRODUCT,
        magnitude=terms(R.conv), large=lambda g: Sample(g.array(4, 20, 30, 31), g.array(33, 20, 3, 3), None, 2, 1)),
    Row("conv2d_direct", "F.conv2d", R.conv,
        lambda g: (Sample(g.array(1, 3, 9, 8), g.array(40, 3, 5, 3), None, 1, 2, (1, 2)),
                   Sample(g.array(2, 4, 9, 9), g.array(130, 4, 3, 3), g.array(130), 2, 1),
                   Sample(g.array(2, 36, 6, 13), g.array(40, 18, 3, 3), None, (1, 2), 1, 1, 2),
                   Sample(g.array(2, 17, 12, 9), g.array(20, 17, 3, 3), g.array(20), 1, (4, 3), (2, 3)),
                   Sample(g.array(16, 10, 14), g.array(16, 16, 3, 3), None, 1, 2, 2),
                   Sample(g.array(2, 2, 6, 13), g.array(40, 1, 3, 3), None, 2, 1, 1, 2),
                   Sample(g.array(3, 5, 25, 17), g.array(18, 5, 2, 3), None)), FLOATS, PRODUCT,
        magnitude=terms(R.conv), large=lambda g: Sample(g.array(4, 18, 20, 29), g.array(34, 18, 5, 5), None, 1, 2)),
    Row("conv3d_direct", "F.conv3d", R.conv,
        lambda g: (Sample(g.array(1, 16, 4, 6, 7), g.array(17, 16, 3, 3, 3), None, 1, (2, 1, 1), (2, 1, 1)),
                   Sample(g.array(2, 34, 3, 8, 6), g.array(20, 34, 2, 3, 3), g.array(20), 1, 1),
                   Sample(g.array(2, 3, 4, 7, 9), g.array(6, 3, 3, 2, 3), g.array(6), (1, 2, 1), 1, (2, 1, 1)),
                   Sample(g.array(1, 4, 7, 8, 9), g.array(18, 4, 2, 3, 3), None, (2, 2, 1), 1)), FLOATS, PRODUCT,
        magnitude=terms(R.conv),
        large=lambda g: Sample(g.array(2, 17, 9, 14, 13), g.array(33, 17, 3, 3, 3), None, 1, 1)),
    Row("conv_transpose2d_direct", "F.conv_transpose2d", R.conv_transpose,
        lambda g: (Sample(g.array(2, 18, 5, 6), g.array(18, 20, 4, 4), None, 2, 1),
                   Sample(g.array(1, 20, 7, 5), g.array(20, 33, 3, 2), g.array(33), (2, 3), (0, 1))), FLOATS, PRODUCT,
        magnitude=terms(R.conv_transpose)),
    Row("conv2d_pointwise", "F.conv2d", R.conv,
        lambda g: (Sample(g.array(2, 5, 9, 11), g.array(7, 5, 1, 1)),
                   Sample(g.array(8, 128, 6, 6), g.array(64, 128, 1, 1)),
                   Sample(g.array(2, 9, 8, 16), g.array(10, 9, 1, 1), g.array(10))), FLOATS, PRODUCT,
        magnitude=terms(R.conv), large=lambda g: Sample(g.array(4, 70, 30, 31), g.array(65, 70, 1, 1), g.array(65))),
    Row("conv2d_depthwise", "F.conv2d", R.conv,
        lambda g: (Sample(g.array(2, 5, 6, 7), g.array(5, 1, 3, 3), None, 1, 1, 1, 5),
                   Sample(g.array(2, 5, 9, 8), g.array(5, 1, 3, 3), None, 2, 1, 1, 5),
                   Sample(g.array(1, 3, 33, 40), g.array(3, 1, 3, 3), None, (2, 1), (1, 0), 2, 3)), FLOATS, PRODUCT,
        large=lambda g: Sample(g.array(4, 32, 40, 41), g.array(32, 1, 3, 3), None, 1, 1, 1, 32)),
]  # fmt: skip
