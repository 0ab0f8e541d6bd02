"""Rows of functions made of other ops; test_surface.py holds the rest of their forms to PyTorch."""

from __future__ import annotations

import numpy as np

import tilewright as tw
from op_table.products import PRODUCT
from op_table.row import SUMS, Bad, Row, Sample, Tolerance

WIDE = ("float32", "float64")
ROOTS = Tolerance(8.0, "array", "a sum of squares and its root, each rounded")


def matrices(g):
    for m, n in ((1, 1), (3, 5), (5, 3), (129, 127)):
        yield Sample(g.array(m, n))


def products(g):
    for m, k, n in ((1, 1, 1), (3, 4, 5), (7, 129, 2)):
        yield Sample(g.array(m, k), g.array(k, n))


def rows_of_two(g):
    for p, r, m in ((1, 1, 1), (3, 4, 5), (7, 2, 129)):
        yield Sample(g.array(p, m), g.array(r, m))


def differences(x, y):
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))


def bincount_counts():
    for n in (0, 1, 1000):
        x = np.random.default_rng(n).integers(0, 50, n)
        counts = tw.bincount(tw.tensor(x, dtype=tw.int64), minlength=3)
        assert np.array_equal(counts.numpy(), np.bincount(x, minlength=3))


def multinomial_takes_only_what_can_be():
    for replacement in (False, True):
        assert set(tw.multinomial(tw.tensor([0.0, 2.0, 0.0, 1.0]), 2, replacement).tolist()) <= {1, 3}


ROWS = [
    Row("einsum", lambda a, b: tw.einsum("ij,jk->ki", a, b), lambda a, b: np.einsum("ij,jk->ki", a, b), products, WIDE,
        PRODUCT, magnitude=lambda a, b: np.abs(a) @ np.abs(b),
        bad=(Bad("letters", lambda g: tw.einsum("ij,j->q", tw.ones(2, 3), tw.ones(3)), ValueError,
                 "einsum: the result's"),
             Bad("terms", lambda g: tw.einsum("ij", tw.ones(2, 3), tw.ones(3)), ValueError, "einsum.*1 terms for 2"))),
    Row("tensordot", lambda a, b: tw.tensordot(a, b, 1), lambda a, b: np.tensordot(a, b, 1), products, WIDE, PRODUCT,
        magnitude=lambda a, b: np.abs(a) @ np.abs(b)),
    Row("trace", "trace", np.trace, matrices, WIDE, SUMS, magnitude=lambda x: np.trace(np.abs(x)),
        bad=(Bad("vector", lambda g: tw.trace(tw.ones(3)), ValueError, "trace: input must be a matrix"),)),
    Row("dist", "dist", lambda x, y: np.sqrt(((x - y) ** 2).sum()),
        lambda g: (Sample(g.array(*s), g.array(*s)) for s in ((1,), (127,), (3, 5))), WIDE, ROOTS),
    Row("cdist", "cdist", differences, rows_of_two, WIDE, ROOTS,
        bad=(Bad("lengths", lambda g: tw.cdist(tw.ones(2, 3), tw.ones(2, 4)), ValueError, "cdist: rows must have"),)),
    Row("bincount", "bincount", None, None, (), grad=False, layouts=False,
        properties=(bincount_counts, multinomial_takes_only_what_can_be),
        ops=("multinomial", "absolute", "arccos", "arcsin", "arctan", "clip", "concat", "divide", "multiply",
             "negative", "ravel", "subtract", "cosine_similarity", "dropout1d", "dropout2d", "dropout3d", "fold",
             "pairwise_distance", "pixel_shuffle", "pixel_unshuffle", "unfold", "upsample"),
        bad=(Bad("negative", lambda g: tw.bincount(tw.tensor([-1])), ValueError, "bincount: values must not"),
             Bad("zeros", lambda g: tw.multinomial(tw.zeros(3), 1), ValueError, "multinomial: weights must be"))),
]  # fmt: skip
