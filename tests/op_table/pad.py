"""Rows of padding: one of constants, one of each other mode; and the layers against NumPy's pads."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import FLOATS
from op_table.row import EXACT, SUMS, Bad, Row, Sample
from tilewright import _engine

CONSTANT = (
    ((3,), (1, 2)), ((127,), (0, 3)), ((2, 3), (1, 0, 2, 1)), ((2, 3, 5), (1, -1)), ((2, 3, 4, 5), (1, 1, 2, 2)),
    ((2, 3), (0, 0)), ((4,), (-2, -1)), ((0, 3), (1, 0, 2, 0)), ((2, 3, 5), (0, 0, 2, 1)),
    ((3, 2, 33), (0, 0, 0, 0, 1, 2)), ((2, 9, 7, 130), (3, 2, -1, 4, 1, 0)), ((3,), (-1, 4)), ((2, 3), (-3, 0)),
    ((1, 2, 3, 4, 5), (1, 0, 0, 0, 1, 1, 0, 2)),
)  # fmt: skip
# Widths that each mode allows: below the size for reflect, up to it for circular, any for replicate.
OTHERS = (
    ((5,), (2, 1)), ((2, 3), (1, 2)), ((127,), (126, 3)), ((1, 2, 4, 5), (4, 3, 0, 2)), ((2, 3, 4, 5), (1, 1, 2, 2)),
    ((2, 6), (-1, 2)), ((2, 6), (3, -2)), ((2, 6), (-3, -2)), ((2, 4, 5, 6), (2, 1, 1, 0, 0, 3)), ((2, 3, 33), (0, 0)),
    ((2, 5, 3), (0, 0, 2, 4)), ((3, 2, 5, 129), (1, 2, 4, 1)),
)  # fmt: skip


def ones(*shape):
    return tw.ones(shape)


def constant_samples(g):
    for shape, widths in CONSTANT:
        yield Sample(g.array(*shape), widths)
        yield Sample(g.array(*shape), widths, value=2)


def mode_samples(mode):
    wide = {"circular": ((3,), (3, 3)), "replicate": ((2, 3, 1), (5, 4, 2, 9)), "reflect": ((1, 1), (0, 0))}[mode]
    return lambda g: (Sample(g.array(*shape), widths, mode=mode) for shape, widths in (*OTHERS, wide))


def mode_row(mode, bad):
    return Row(f"pad_{mode}", "F.pad", R.pad, mode_samples(mode), (*FLOATS, "int64", "uint8"), SUMS,
               slots=("pad", "pad_backward"), large=lambda g: Sample(g.array(9, 16, 40, 41), (1, 2, 3, 0), mode=mode),
               bad=(Bad("width", lambda g: tw.nn.functional.pad(*bad, mode=mode), ValueError, f"pad: {mode}.*got"),
                    Bad("crop", lambda g: tw.nn.functional.pad(ones(1, 3), (-2, -2), mode=mode), ValueError, "crop"),
                    Bad("value", lambda g: tw.nn.functional.pad(ones(1, 3), (1, 1), mode, 2), ValueError, "value")))


def layers_pad_as_numpy():
    names = {"Constant": "constant", "Zero": "constant", "Reflection": "reflect", "Replication": "edge",
             "Circular": "wrap"}
    x = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.float32).reshape(2, 3, 4, 5, 6)
    for name, mode in names.items():
        for dims in (1, 2, 3):
            widths = (2, 1, 0, 2, 1, 1)[: 2 * dims]
            extra = (7.0,) if name == "Constant" else ()
            layer = getattr(tw.nn, f"{name}Pad{dims}d")(widths, *extra)
            image = x[(0,) * (3 - dims)]
            grow = [(0, 0)] * (image.ndim - dims) + [widths[2 * d : 2 * d + 2] for d in reversed(range(dims))]
            want = np.pad(image, grow, mode, **({"constant_values": (*extra, 0)[0]} if mode == "constant" else {}))
            assert np.array_equal(layer(tw.tensor(image)).numpy(), want), layer
            assert layer.padding == widths and str(widths) in repr(layer)


def engine_gradient_of_constant_pads():
    """The engine's pad_backward takes every mode, and a gradient of no other shape than the result's."""
    for shape, widths in CONSTANT:
        at = np.asarray(R.pad(np.arange(1, np.prod(shape) + 1).reshape(shape), widths))  # 0 where the pad added an item
        dy = np.random.default_rng(3).standard_normal(at.shape).astype(np.float32)
        want = np.zeros(shape, np.float32)
        want.flat[at[at > 0].astype(int) - 1] = dy[at > 0]
        got = np.array(_engine.pad_backward(tw.tensor(dy).array, shape, widths, "constant"))
        assert np.array_equal(got, want), (shape, widths)
    for mode in ("constant", "reflect", "replicate", "circular"):
        try:
            _engine.pad_backward(tw.ones(2, 5).array, (2, 3), (1, 0), mode)
        except ValueError as error:
            assert str(error) == "pad_backward: the gradient must have shape (2, 4), got (2, 5)"
        else:
            raise AssertionError(f"{mode}: a gradient of a wrong shape was taken")


ROWS = [
    Row("pad", "F.pad", R.pad, constant_samples, (*FLOATS, "int64", "uint8", "bool"), EXACT, slots=("pad",),
        large=lambda g: Sample(g.array(9, 16, 40, 41), (1, 2, 1, 0)),
        properties=(layers_pad_as_numpy, engine_gradient_of_constant_pads),
        bad=(Bad("odd", lambda g: tw.nn.functional.pad(ones(3), (1,)), ValueError, "pad"),
             Bad("many", lambda g: tw.nn.functional.pad(ones(3), (1, 1, 1, 1)), ValueError, "pad"),
             Bad("negative", lambda g: tw.nn.functional.pad(ones(3), (-2, -2)), ValueError, "pad"),
             Bad("mode", lambda g: tw.nn.functional.pad(ones(3), (1, 1), "mirror"), ValueError, "mirror"),
             Bad("layer", lambda g: tw.nn.ZeroPad2d((1, 1)), ValueError, r"ZeroPad2d.*\(1, 1\)"),
             Bad("layer_input", lambda g: tw.nn.ZeroPad2d(1)(ones(3)), ValueError, "ZeroPad2d.*1 dim"))),
    mode_row("reflect", (tw.ones(2, 3), (3, 0))),
    mode_row("replicate", (tw.ones(2, 0), (1, 0))),
    mode_row("circular", (tw.ones(2, 3), (0, 4))),
]  # fmt: skip
