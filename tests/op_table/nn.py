"""Rows of softmax, losses, dropout and embedding."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import FLOATS, dtype_of, spacing, to_np
from op_table.row import EXACT, Bad, Row, Sample, Tolerance

SOFTMAX = Tolerance(6.0, "array", "exp of 4 ulp, a sum of positive terms, a division")
LOSS = Tolerance(6.0, "array", "exp, log and a sum over rows of a few ulp each", grad_ulps=64.0)
COMPOSED = Tolerance(6.0, "array", "made of up to four ops; each rounds to the half, as PyTorch's losses do", 64.0, 2.0)
ROW_CASES = (
    ((1,), 0), ((3,), 0), ((127,), -1), ((128,), 0), ((129,), 0), ((3, 5), 0), ((3, 5), 1), ((2, 3, 33), 1),
    ((2, 3, 33), -1), ((5, 200), 1), ((200, 3), 0), ((0, 4), 1), ((2, 1), 1),
)  # fmt: skip


def functional(name):
    return lambda *args, **kw: getattr(tw.nn.functional, name)(*args, **kw)


def ones(*shape):
    return tw.ones(shape)


def rows(g):
    yield from (Sample(g.array(*shape), dim=dim) for shape, dim in ROW_CASES)


def rows_with_extremes(g):
    yield from rows(g)
    x = g.array(3, 40)
    x[0], x[1, 3], x[2, :20] = 60.0, 1000.0, -np.inf
    yield Sample(x, dim=1)


def softmax_sums_to_one():
    y = tw.softmax(tw.linspace(-50, 50, 129 * 7).reshape(7, 129), 1)
    assert np.abs(y.sum(1).numpy() - 1).max() < 1e-6 and bool((y >= 0).all())


def softmax_ignores_a_shift():
    x = tw.arange(0, 129, dtype=tw.float32) / 8
    assert np.array_equal(tw.softmax(x, 0).numpy(), tw.softmax(x + 64, 0).numpy())


def softmax_of_huge_rows():
    """Rows cut for several threads: -inf in whole pieces, a NaN, and gradients."""
    rng = np.random.default_rng(4)
    x = rng.uniform(-5, 5, (3, 200_003)).astype(np.float32)
    x[1, :150_000], x[2, 7] = -np.inf, np.nan
    dy = rng.uniform(-1, 1, x.shape).astype(np.float32)
    for name in ("softmax", "log_softmax"):
        t = tw.tensor(x).requires_grad_()
        y = getattr(tw, name)(t, 1)
        y.backward(tw.tensor(dy))
        wide = x.astype(np.float64)
        want = getattr(R, name)(wide, 1)
        scale = 1 if name == "log_softmax" else want[0].max()
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(y.detach().numpy() / scale, want / scale, rtol=3e-6, atol=1e-6)
        p = R.softmax(wide, 1)[0]
        g = dy[0].astype(np.float64)
        dx = p * (g - (p * g).sum()) if name == "softmax" else g - p * g.sum()
        np.testing.assert_allclose(t.grad.numpy()[0] / np.abs(dx).max(), dx / np.abs(dx).max(), atol=3e-6)


def ce_samples(g, one_class=True):
    for shape in (*(((1, 1),) if one_class else ()), (3, 5), (129, 10), (2, 127), (4, 3, 7), (2, 5, 3, 4)):
        classes, target = shape[1], (shape[0], *shape[2:])
        x, y = g.array(*shape), g.indices(*target, n=classes)
        for kw in ({}, {"reduction": "sum"}, {"reduction": "none"}, {"label_smoothing": 0.1}):
            yield Sample(x, y, **kw)
        weight = g.array(classes, low=0.5, high=2)
        yield Sample(x, y, weight=weight)
        yield Sample(x, y, weight=weight, label_smoothing=0.2, reduction="none")
        if shape[0] > 1:
            some = y.copy()
            some[0] = -100
            yield Sample(x, some)
            y = np.where(y == 0, 1, y)
            y[-1] = 0
            yield Sample(x, y, weight=weight, ignore_index=0, label_smoothing=0.1)
    yield Sample(g.array(7), np.array(3))


def probabilities(g):
    for shape in ((3, 5), (129, 10), (2, 4, 6)):
        raw = g.array(*shape)
        p = g.array(*shape, low=0.1, high=1)
        yield Sample(raw, p)
        yield Sample(raw, p, label_smoothing=0.1, reduction="sum")
        yield Sample(raw, p, weight=g.array(shape[1], low=0.5, high=2), reduction="none")


def nll_samples(g):
    for shape in ((1, 1), (3, 5), (129, 10), (2, 4, 6)):
        y = g.indices(shape[0], *shape[2:], n=shape[1])
        x = g.array(*shape)
        for reduction in ("mean", "sum", "none"):
            yield Sample(x, y, reduction=reduction)
        yield Sample(x, y, weight=g.array(shape[1], low=0.5, high=2))
        if shape[0] > 1:
            y = y.copy()
            y[0] = -100
            yield Sample(x, y)


def loss_samples(shapes=((), (1,), (3, 5), (129,)), low=-3.0, high=3.0, t_low=-3.0, t_high=3.0, **kw):
    def samples(g):
        for shape in shapes:
            for reduction in ("mean", "sum", "none"):
                x, target = g.array(*shape, low=low, high=high), g.array(*shape, low=t_low, high=t_high)
                yield Sample(x, target, reduction=reduction, **kw)

    return samples


def bce_samples(g):
    yield from loss_samples(low=0.05, high=0.95, t_low=0, t_high=1)(g)
    yield Sample(g.array(3, 5, low=0.05, high=0.95), g.array(3, 5, low=0, high=1), weight=g.array(3, 5, low=0.5))


def bce_logits_samples(g):
    yield from loss_samples(t_low=0, t_high=1)(g)
    x, t = g.array(6, 5, low=-20, high=20), g.array(6, 5, low=0, high=1)
    yield Sample(x, t, weight=g.array(6, 5, low=0.5))
    yield Sample(x, t, pos_weight=g.array(5, low=0.5), reduction="sum")
    yield Sample(x, t, weight=g.array(5, low=0.5), pos_weight=g.array(5, low=0.5))


def pairwise_bad(name):
    call = functional(name)
    return (Bad("reduction", lambda g: call(ones(3), ones(3), reduction="average"), ValueError, "average"),
            Bad("shapes", lambda g: call(ones(2, 3), ones(2, 4)), ValueError, r"\(2, 3\).*\(2, 4\)"))  # fmt: skip


def dropout_statistics():
    for dtype in FLOATS:
        x = tw.full((200, 500), 2.0, dtype=dtype_of(dtype)).requires_grad_()
        tw.manual_seed(11)
        y = tw.nn.functional.dropout(x, 0.25)
        got = to_np(y)
        kept = got != 0
        off = np.abs(got[kept].astype(np.float64) - 2 / 0.75)
        assert off.max() <= spacing(2 / 0.75, dtype), "kept elements are x / (1 - p)"
        # 100,000 trials: five standard deviations of the kept share are 0.0068.
        assert abs(kept.mean() - 0.75) < 0.0068
        assert abs(kept.mean(0).std() - np.sqrt(0.75 * 0.25 / 200)) < 0.004, "columns are not independent"
        y.sum().backward()
        grad = to_np(x.grad)
        assert ((grad != 0) == kept).all(), "the gradient uses the forward's mask"
        assert np.unique(grad[kept]).size == 1


def dropout_seed():
    x = tw.ones(1000)
    tw.manual_seed(5)
    a, b = tw.nn.functional.dropout(x, 0.5), tw.nn.functional.dropout(x, 0.5)
    tw.manual_seed(5)
    c = tw.nn.functional.dropout(x, 0.5)
    assert bool((a == c).all()) and not bool((a == b).all())


def dropout_ends():
    x = tw.arange(0, 10, dtype=tw.float32)
    dropout = tw.nn.functional.dropout
    assert bool((dropout(x, 0.0) == x).all()) and bool((dropout(x, 1.0) == 0).all())
    assert bool((dropout(x, 0.9, training=False) == x).all())


def embed(index, weight, padding_idx=None):
    return weight[index]


def embedding_samples(g):
    for shape in ((), (0,), (3,), (2, 127), (129,)):
        yield Sample(g.indices(*shape, n=7), g.array(7, 5))
    yield Sample(g.indices(40, n=3), g.array(3, 33))


def padding_index_has_no_gradient():
    w = tw.ones(5, 3).requires_grad_()
    tw.nn.functional.embedding(tw.tensor([0, 2, 2, 4]), w, padding_idx=2).sum().backward()
    assert w.grad.numpy()[:, 0].tolist() == [1, 0, 0, 0, 1]


def ce_bad():
    cross = functional("cross_entropy")
    logits = (3, 5)
    return (
        Bad("label", lambda g: cross(ones(*logits), tw.tensor([0, 5, 1])), IndexError, "cross_entropy.*5"),
        Bad("negative", lambda g: cross(ones(*logits), tw.tensor([0, -1, 1])), IndexError, "cross_entropy.*-1"),
        Bad("batch", lambda g: cross(ones(*logits), tw.tensor([0, 1])), ValueError, r"cross_entropy.*\(3, 5\).*\(2,\)"),
        Bad("weight", lambda g: cross(ones(*logits), tw.tensor([0, 1, 1]), weight=ones(4)), ValueError, "weight"),
        Bad("smoothing", lambda g: cross(ones(*logits), tw.tensor([0, 1, 1]), label_smoothing=1.5), ValueError,
            "label_smoothing"),
        Bad("reduction", lambda g: cross(ones(*logits), tw.tensor([0, 1, 1]), reduction="avg"), ValueError, "avg"),
        Bad("dtype", lambda g: cross(ones(*logits), tw.tensor([0, 1, 1], dtype=tw.int32).to(tw.bool)), TypeError,
            "cross_entropy.*bool"),
    )  # fmt: skip




ROWS = [
    Row("softmax", "softmax", R.softmax, rows_with_extremes, FLOATS, SOFTMAX, grad_samples=rows,
        slots=("softmax", "softmax_backward"),
        properties=(softmax_sums_to_one, softmax_ignores_a_shift, softmax_of_huge_rows),
        large=lambda g: Sample(g.array(333, 1031), dim=1),
        bad=(Bad("dim", lambda g: tw.softmax(ones(2, 3), 2), IndexError, "softmax.*2"),
             Bad("dtype", lambda g: tw.softmax(tw.ones(3, dtype=tw.int64), 0), TypeError, "softmax.*int64"))),
    Row("log_softmax", "log_softmax", R.log_softmax, rows_with_extremes, FLOATS, SOFTMAX, grad_samples=rows,
        slots=("softmax", "softmax_backward"), large=lambda g: Sample(g.array(333, 131, 7), dim=1)),
    Row("cross_entropy", "F.cross_entropy", R.cross_entropy, ce_samples, FLOATS, LOSS, bad=ce_bad(),
        grad_samples=lambda g: ce_samples(g, False),
        no_grad=("weight",), slots=("cross_entropy", "cross_entropy_backward"),
        large=lambda g: Sample(g.array(3001, 101), g.indices(3001, n=101))),
    Row("cross_entropy_probabilities", "F.cross_entropy", R.cross_entropy, probabilities, FLOATS, COMPOSED,
        no_grad=("weight", 1)),
    Row("nll_loss", "F.nll_loss", R.nll_loss, nll_samples, FLOATS, COMPOSED, no_grad=("weight",),
        large=lambda g: Sample(g.array(3001, 101), g.indices(3001, n=101)),
        bad=(Bad("label", lambda g: functional("nll_loss")(ones(2, 3), tw.tensor([0, 3])), IndexError,
                 "nll_loss.*3"),)),
    Row("mse_loss", "F.mse_loss", R.mse_loss, loss_samples(), FLOATS, COMPOSED, bad=pairwise_bad("mse_loss"),
        large=lambda g: Sample(g.array(301, 1031), g.array(301, 1031))),
    Row("l1_loss", "F.l1_loss", R.l1_loss, loss_samples(), FLOATS, COMPOSED, bad=pairwise_bad("l1_loss")),
    Row("smooth_l1_loss", "F.smooth_l1_loss", R.smooth_l1_loss, lambda g: (s for beta in (1.0, 0.5) for s in
        loss_samples(beta=beta)(g)), FLOATS, COMPOSED, bad=pairwise_bad("smooth_l1_loss")),
    Row("binary_cross_entropy", "F.binary_cross_entropy", R.binary_cross_entropy, bce_samples, FLOATS, COMPOSED,
        no_grad=("weight", 1), bad=pairwise_bad("binary_cross_entropy")),
    Row("binary_cross_entropy_with_logits", "F.binary_cross_entropy_with_logits",
        R.binary_cross_entropy_with_logits, bce_logits_samples, FLOATS, COMPOSED,
        magnitude=lambda x, *_, **__: 1 + np.abs(x), no_grad=("weight", "pos_weight", 1),
        bad=pairwise_bad("binary_cross_entropy_with_logits")),
    Row("dropout", "F.dropout", lambda x, **_: x, lambda g: (Sample(g.array(*s), p=0.3, training=False) for s in
        ((), (0,), (129,), (3, 43))), FLOATS, EXACT,
        slots=("dropout",), properties=(dropout_statistics, dropout_seed, dropout_ends),
        bad=(Bad("p", lambda g: functional("dropout")(ones(3), 1.5), ValueError, r"dropout.*1\.5"),
             Bad("p_negative", lambda g: functional("dropout")(ones(3), -0.1), ValueError, r"dropout.*-0\.1"))),
    Row("embedding", "F.embedding", embed, embedding_samples, FLOATS, EXACT, slots=("take", "take_backward"),
        properties=(padding_index_has_no_gradient,),
        large=lambda g: Sample(g.indices(3001, n=50), g.array(50, 129)),
        bad=(Bad("index", lambda g: functional("embedding")(tw.tensor([0, 7]), ones(7, 2)), IndexError,
                 "embedding.*7"),
             Bad("dtype", lambda g: functional("embedding")(ones(3), ones(7, 2)), TypeError, "embedding.*float32"))),
]  # fmt: skip
