"""Rows of the functions of layers that are made of other ops; test_layers.py and test_module.py compare more of their
forms with PyTorch's."""

from __future__ import annotations

import numpy as np

import tilewright as tw
from op_table.products import PRODUCT
from op_table.row import EXACT, Bad, Row, Sample, Tolerance

WIDE = ("float32", "float64")
STEPS = Tolerance(16.0, "array", "a sum, a quotient and a power, each rounded")
MIXED = Tolerance(16.0, "array", "four products and a softmax, each rounded; the terms are the last product's")
F = tw.nn.functional


def bilinear(x, y, w, b):
    return np.einsum("bi,oij,bj->bo", x, w, y) + b


def shuffled(x, groups):
    n, c, *rest = x.shape
    return x.reshape(n, groups, c // groups, *rest).swapaxes(1, 2).reshape(x.shape)


def response_norm(x, size, alpha, beta, k):
    padded = np.pad(x * x, [(0, 0), (size // 2, (size - 1) // 2)] + [(0, 0)] * (x.ndim - 2))
    total = sum(padded[:, i:i + x.shape[1]] for i in range(size))
    return x / (k + total * (alpha / size)) ** beta


def pairs(x, p):
    first, second = np.triu_indices(x.shape[0], 1)
    return (np.abs(x[first] - x[second]) ** p).sum(-1) ** (1 / p)


def bags(index, w, offsets, mode="mean", per_sample_weights=None, padding_idx=None):
    out = np.zeros((len(offsets), w.shape[1]), w.dtype)
    for b, (start, end) in enumerate(zip(offsets, [*offsets[1:], len(index)], strict=True)):
        places = [i for i in range(start, end) if index[i] != padding_idx]
        rows = w[index[places]]
        if per_sample_weights is not None:
            rows = rows * per_sample_weights[places, None]
        if places:
            out[b] = rows.sum(0) if mode == "sum" else rows.mean(0) if mode == "mean" else rows.max(0)
    return out


def bag_samples(g):
    offsets = np.array([0, 3, 3, 8])
    for mode, pad in (("mean", None), ("sum", 2), ("mean", 1), ("max", 0)):
        yield Sample(g.indices(12, n=6), g.distinct(6, 5), offsets, mode=mode, padding_idx=pad)
    yield Sample(g.indices(12, n=6), g.array(6, 5), offsets, mode="sum", per_sample_weights=g.array(12))


def attention(x, w, b, out_w, out_b):
    """Self-attention of two heads, (L, N, E)."""
    L, N, E = x.shape
    q, k, v = (t.reshape(L, N, 2, E // 2).transpose(1, 2, 0, 3) for t in np.split(x @ w.T + b, 3, -1))
    s = q @ k.swapaxes(-1, -2) / np.sqrt(np.asarray(E // 2, x.dtype))
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return (p @ v).transpose(2, 0, 1, 3).reshape(L, N, E) @ out_w.T + out_b


def attend(x, w, b, out_w, out_b):
    return F.multi_head_attention_forward(x, x, x, 4, 2, w, b, None, None, False, 0.0, out_w, out_b)[0]


def dropouts_do_nothing_in_evaluation():
    x = tw.ones(2, 3, 4, 5)
    assert F.alpha_dropout(x, 0.5) is x and F.feature_alpha_dropout(x, 0.5) is x
    assert bool((F.alpha_dropout(x, 1.0, True) == 0).all())


ROWS = [
    Row("bilinear", "F.bilinear", bilinear,
        lambda g: (Sample(g.array(b, i), g.array(b, j), g.array(o, i, j), g.array(o))
                   for b, i, j, o in ((1, 1, 1, 1), (3, 4, 5, 2), (2, 33, 7, 3))), WIDE, PRODUCT,
        magnitude=lambda *a: bilinear(*map(np.abs, a)),
        bad=(Bad("sizes", lambda g: F.bilinear(tw.ones(2, 3), tw.ones(2, 4), tw.ones(1, 4, 3)), ValueError,
                 r"bilinear: inputs .*\(1, 4, 3\)"),)),
    Row("channel_shuffle", "F.channel_shuffle", shuffled, lambda g: (Sample(g.array(2, 6, 3), n) for n in (1, 2, 3)),
        WIDE, EXACT, bad=(Bad("groups", lambda g: F.channel_shuffle(tw.ones(1, 5, 2), 2), ValueError,
                              r"groups must divide.*2 for \(1, 5, 2\)"),)),
    Row("local_response_norm", "F.local_response_norm", response_norm,
        lambda g: (Sample(g.array(*s), n, 0.3, 0.75, 1.5) for s in ((2, 7, 3), (1, 5, 4, 3)) for n in (1, 4, 5)), WIDE,
        STEPS, bad=(Bad("flat", lambda g: F.local_response_norm(tw.ones(2, 3), 2), ValueError, "at least 3 dim"),)),
    Row("pdist", "F.pdist", pairs, lambda g: (Sample(g.array(n, 5), p) for n in (1, 2, 6) for p in (2.0, 3.0)), WIDE,
        STEPS, bad=(Bad("vector", lambda g: F.pdist(tw.ones(3)), ValueError, r"pdist: input must have 2.*\(3,\)"),)),
    Row("embedding_bag", "F.embedding_bag", bags, bag_samples, WIDE, STEPS,
        bad=(Bad("offsets", lambda g: F.embedding_bag(tw.tensor([1, 0]), tw.ones(2, 2)), ValueError, "1-d offsets"),)),
    Row("multi_head_attention_forward", attend, attention,
        lambda g: (Sample(*(g.array(*shape, low=-1, high=1) for shape in ((*s, 4), (12, 4), (12,), (4, 4), (4,))))
                   for s in ((1, 1), (5, 2))), WIDE, MIXED, ops=("alpha_dropout", "feature_alpha_dropout",
                                                               "upsample_bilinear", "upsample_nearest"),
        magnitude=lambda x, *a: np.full(x.shape, 20.0), properties=(dropouts_do_nothing_in_evaluation,),
        bad=(Bad("heads", lambda g: F.multi_head_attention_forward(
            *(tw.ones(2, 1, 4),) * 3, 4, 3, tw.ones(12, 4), None, None, None, False, 0.0, tw.ones(4, 4), None),
            ValueError, "multiple of num_heads 3"),)),
]  # fmt: skip
