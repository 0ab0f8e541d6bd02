"""Rows of the recurrent nets and their cells. The reference runs every sequence alone, step by step."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import quantize
from op_table.row import Bad, Row, Sample, Tolerance

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
STEPS = Tolerance(16.0, "array", "sums and cells of a few ulp, carried on from step to step", 128.0, 4.0)


def step(mode, x, h, c, w_ih, w_hh, b_ih=0, b_hh=0):
    a, b = w_ih @ x + b_ih, w_hh @ h + b_hh
    if mode == "lstm":
        i, f, g, o = np.split(a + b, 4)
        c = R.sigmoid(f) * c + R.sigmoid(i) * np.tanh(g)
        return R.sigmoid(o) * np.tanh(c), c
    if mode == "gru":
        (xr, xz, xn), (hr, hz, hn) = np.split(a, 3), np.split(b, 3)
        z, n = R.sigmoid(xz + hz), np.tanh(xn + R.sigmoid(xr + hr) * hn)
        return (1 - z) * n + z * h, c
    return (np.tanh if mode == "rnn_tanh" else R.relu)(a + b), c


def net(mode, x, states, weights, layers=1, bias=True, bidirectional=False, sizes=None):
    """x (T, B, I), or rows with the batch sizes of their steps: output and the last states."""
    per, directions, batch = 4 if bias else 2, 2 if bidirectional else 1, states[0].shape[1]
    sizes = [batch] * x.shape[0] if sizes is None else sizes
    rows = x.reshape(sum(sizes), x.shape[-1])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    places = [[starts[t] + n for t, size in enumerate(sizes) if n < size] for n in range(batch)]  # of each sequence
    last = [np.zeros_like(s) for s in states]
    for layer in range(layers):
        hidden = states[0].shape[2]
        out = np.zeros((len(rows), directions * hidden), x.dtype)
        for d in range(directions):
            k = layer * directions + d
            own = weights[per * k:per * (k + 1)]
            for n in range(batch):
                h, c = states[0][k, n], states[-1][k, n]
                for place in reversed(places[n]) if d else places[n]:
                    h, c = step(mode, rows[place], h, c, *own)
                    out[place, d * hidden:(d + 1) * hidden] = h
                for s, value in zip(last, (h, c), strict=False):
                    s[k, n] = value
        rows = out
    return rows.reshape(*x.shape[:-1], -1), *last


def arguments(g, mode, T, B, I, H, layers=1, bias=True, bidirectional=False, sizes=None):
    """x, the states and the parameters of a net, of a size that keeps gates off their flat ends."""
    directions, rows = 2 if bidirectional else 1, GATES[mode] * H
    arrays = [g.array(sum(sizes), I, low=-1, high=1) if sizes else g.array(T, B, I, low=-1, high=1)]
    arrays += [g.array(layers * directions, B, H, low=-1, high=1) for _ in range(2 if mode == "lstm" else 1)]
    for layer in range(layers):
        inputs = directions * H if layer else I
        for _ in range(directions):
            arrays += [g.array(rows, inputs, low=-1, high=1) / 2, g.array(rows, H, low=-1, high=1) / 2 ** (H > 40)]
            arrays += [g.array(rows, low=-1, high=1) for _ in range(2 if bias else 0)]
    arrays = [quantize(a, g.dtype) for a in arrays]
    return Sample(*arrays, layers=layers, bias=bias, bidirectional=bidirectional, sizes=sizes)


CASES = (
    {"T": 3, "B": 2, "I": 3, "H": 3},
    {"T": 2, "B": 1, "I": 2, "H": 5, "bias": False, "layers": 2},
    {"T": 3, "B": 3, "I": 2, "H": 4, "bidirectional": True, "sizes": [3, 2, 1]},
    {"T": 1, "B": 1, "I": 1, "H": 1},
    {"T": 4, "B": 17, "I": 5, "H": 33, "bidirectional": True},
    {"T": 2, "B": 2, "I": 0, "H": 17},
    {"T": 2, "B": 3, "I": 7, "H": 129, "layers": 2},
)


def row(mode, **keywords):
    lstm = mode == "lstm"

    def split(arrays):
        return arrays[1:3] if lstm else arrays[1:2], arrays[3 if lstm else 2:]

    def call(*arrays, layers, bias, bidirectional, sizes):
        states, weights = split(arrays)
        states = states if lstm else states[0]
        rest = (list(weights), bias, layers, 0.0, True, bidirectional)
        if sizes:
            return getattr(tw, mode)(arrays[0], tw.tensor(sizes), states, *rest)
        return getattr(tw, mode)(arrays[0], states, *rest, False)

    def reference(*arrays, **kw):
        return net(mode, arrays[0], *split(arrays), **kw)

    def samples(g):
        return (arguments(g, mode, **case) for case in CASES)

    def bad(change):
        def attempt(g):
            sample = arguments(g, mode, 3, 2, 3, 4)
            args, kwargs = sample.with_arrays(lambda _, a: tw.tensor(a))
            args = list(args)
            change(args)
            return call(*args, **kwargs)

        return attempt

    def put(spot, value):
        def change(args):
            args[spot] = value(args[spot])

        return bad(change)

    first = 3 if lstm else 2
    return Row(mode, call, reference, samples, tol=STEPS, slots=("rnn", "rnn_backward"), ops=(mode,), bad=(
        Bad("state", put(1, lambda s: s[:, :1]), ValueError, rf"{mode}: .*state.*\(1, 1, 4\)"),
        Bad("weight", put(first, lambda w: w[:, :2]), ValueError, rf"{mode}: weight_ih.*\d, 3\).*\d, 2\)"),
        Bad("bias", put(first + 3, lambda b: b[:2]), ValueError, rf"{mode}: bias_hh.*\(2,\)"),
        Bad("dtype", put(first + 1, lambda w: w.to(tw.float64)), TypeError, rf"{mode}: weight_hh.*float64.*float32"),
        Bad("integers", put(0, lambda x: x.to(tw.int64)), TypeError, rf"{mode}: .*int64"),
        Bad("no_steps", put(0, lambda x: x[:0]), ValueError, rf"{mode}: .*at least one step"),
        Bad("few", bad(list.pop), ValueError, rf"{mode}: .*parameters.*got 3"),
    ), **keywords)


def cell_row(mode):
    """One step of (B, I) or (I,), as a net of one step."""
    lstm = mode == "lstm"

    def call(x, *rest):
        states, weights = (rest[:2], rest[2:]) if lstm else (rest[0], rest[1:])
        return getattr(tw, f"{mode}_cell")(x, states, *weights)

    def reference(x, *rest):
        states, weights = (rest[:2], rest[2:]) if lstm else (rest[:1], rest[1:])
        shape = states[0].shape
        states = [s.reshape((1, -1, shape[-1])) for s in states]
        _, *last = net(mode, x.reshape((1, -1, x.shape[-1])), states, weights, bias=len(weights) == 4)
        return [s.reshape(shape) for s in last]

    def samples(g):
        for T, B, I, H, bias in ((1, 2, 3, 4, True), (1, 5, 2, 17, False), (1, 1, 3, 5, True), (1, 33, 20, 129, True)):
            arrays = list(arguments(g, mode, T, B, I, H, bias=bias).args)
            for k in range(3 if lstm else 2):
                arrays[k] = arrays[k].reshape(arrays[k].shape[2:] if B == 1 else arrays[k].shape[1:])
            yield Sample(*arrays)

    return Row(f"{mode}_cell", call, reference, samples, tol=STEPS, ops=(f"{mode}_cell",), bad=(
        Bad("input", lambda g: call(tw.ones(1, 2, 3), *[tw.ones(2, 4)] * (4 if lstm else 3)), ValueError,
            rf"{mode}_cell: .*\(1, 2, 3\)"),
    ))  # fmt: skip


ROWS = [
    row("rnn_tanh", large=lambda g: arguments(g, "rnn_tanh", 3, 150, 20, 65)),
    row("rnn_relu", large=lambda g: arguments(g, "rnn_relu", 3, 5, 20, 200)),
    row("lstm", large=lambda g: arguments(g, "lstm", 3, 5, 20, 150)),
    row("gru", large=lambda g: arguments(g, "gru", 3, 40, 20, 130, bidirectional=True)),
    *(cell_row(mode) for mode in GATES),
]
