"""Rows of the losses that are made of other ops: margins, distances, distributions, and CTC."""

from __future__ import annotations

import itertools

import numpy as np

import references as R
import tilewright as tw
from arrays import FLOATS
from op_table.nn import COMPOSED, functional, ones
from op_table.row import Bad, Row, Sample, Tolerance

REDUCTIONS = ("mean", "sum", "none")
DISTANCE = Tolerance(12.0, "array", "two norms of differences and their own difference", 128.0, 2.0)
ALIGNED = Tolerance(32.0, "array", "a log-softmax and one log of a sum of exps a step", 128.0, 2.0)


def above(x):
    return np.maximum(x, 0)


def hinge(x, y, margin=1.0, reduction="mean"):
    return R.reduced(np.where(y == -1, above(margin - x), x), reduction)


def ranking(a, b, y, margin=0.0, reduction="mean"):
    return R.reduced(above(margin - y * (a - b)), reduction)


def cosine(a, b, y, margin=0.0, reduction="mean"):
    similar = (a * b).sum(-1) / np.sqrt(((a * a).sum(-1) + 1e-12) * ((b * b).sum(-1) + 1e-12))
    return R.reduced(np.where(y == 1, 1 - similar, above(similar - margin)), reduction)


def multi_margin(x, label, p=1, margin=1.0, weight=None, reduction="mean"):
    own = label[:, None] == np.arange(x.shape[1])
    loss = above(margin - np.take_along_axis(x, label[:, None], 1) + x) ** p
    loss = loss if weight is None else loss * weight[label][:, None]
    return R.reduced(np.where(own, 0, loss).sum(1) / x.shape[1], reduction)


def multilabel_margin(x, labels, reduction="mean"):
    loss = np.zeros(len(x), x.dtype)
    for i, row in enumerate(labels):
        given = list(itertools.takewhile(lambda label: label >= 0, row))
        for label, other in itertools.product(given, set(range(x.shape[1])) - set(given)):
            loss[i] += above(1 - x[i, label] + x[i, other])
    return R.reduced(loss / x.shape[1], reduction)


def multilabel_soft_margin(x, y, weight=None, reduction="mean"):
    loss = y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)
    return R.reduced((loss if weight is None else loss * weight).mean(-1), reduction)


def triplet(a, p, n, margin=1.0, order=2.0, eps=1e-6, swap=False, reduction="mean"):
    def distance(x, y):
        return (np.abs(x - y + eps) ** order).sum(-1) ** (1 / order)

    far = np.minimum(distance(a, n), distance(p, n)) if swap else distance(a, n)
    return R.reduced(above(margin + distance(a, p) - far), reduction)


def poisson(x, y, log_input=True, full=False, eps=1e-8, reduction="mean"):
    loss = np.exp(x) - y * x if log_input else x - y * np.log(x + eps)
    many = np.where(y > 1, y, 1)
    stirling = np.where(y > 1, many * np.log(many) - many + np.log(2 * np.pi * many) / 2, 0)
    return R.reduced(loss + stirling if full else loss, reduction)


def poisson_terms(x, y, log_input=True, full=False, eps=1e-8, reduction="mean"):
    """What is added and subtracted, which may nearly cancel in the mean."""
    terms = np.exp(x) + abs(y * x) if log_input else abs(x) + abs(y * np.log(x + eps))
    return R.reduced(terms, reduction)


def divergence(x, y, log_target=False, reduction="sum"):
    loss = np.exp(y) * (y - x) if log_target else y * (np.log(y) - x)
    return loss.sum() / len(x) if reduction == "batchmean" else R.reduced(loss, reduction)


def gaussian(x, y, var, full=False, eps=1e-6, reduction="mean"):
    v = np.maximum(var, eps)
    loss = (np.log(v) + (x - y) ** 2 / v) / 2 + (0.5 * np.log(2 * np.pi) if full else 0)
    return R.reduced(loss, reduction)


def ctc(logits, targets, steps, counts, reduction="mean"):
    """Cell by cell, with blank 0."""
    logp, losses = R.log_softmax(logits, 2), []
    for i, (T, S) in enumerate(zip(steps, counts, strict=True)):
        states = [0, *itertools.chain.from_iterable((label, 0) for label in targets[i, :S])]
        alpha = [logits.dtype.type(-np.inf)] * len(states)
        for t in range(T):
            before = alpha if t else [logits.dtype.type(0)] + [logits.dtype.type(-np.inf)] * (len(states) - 1)
            alpha = []
            for k, s in enumerate(states):
                reach = before[k] if k == 0 else np.logaddexp(before[k], before[k - 1])
                if k > 1 and s != 0 and s != states[k - 2]:
                    reach = np.logaddexp(reach, before[k - 2])
                alpha.append(reach + logp[t, i, s])
        losses.append(-np.logaddexp(alpha[-1], alpha[-2] if S else -np.inf))
    losses = np.array(losses)
    return R.reduced(losses / np.maximum(counts, 1) if reduction == "mean" else losses, reduction)


def signs(g, *shape):
    return np.where(g.mask(*shape), 1, -1)


def every(make, *options):
    """Samples `make(g)` for each reduction and set of options."""
    return lambda g: (Sample(*make(g), reduction=r, **o) for o in options or ({},) for r in REDUCTIONS)


def pair_and_signs(g):
    return g.array(3, 43), signs(g, 3, 43)


def ctc_samples(g):
    for reduction in REDUCTIONS:
        targets = np.array([[1, 2, 2, 3], [3, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
        yield Sample(g.array(9, 4, 5), targets, (9, 7, 9, 4), (4, 2, 1, 0), reduction=reduction)


ROWS = [
    Row("hinge_embedding_loss", "F.hinge_embedding_loss", hinge, every(pair_and_signs, {}, {"margin": 0.3}), FLOATS,
        COMPOSED),
    Row("soft_margin_loss", "F.soft_margin_loss", lambda x, y, reduction: R.reduced(np.logaddexp(0, -y * x), reduction),
        every(pair_and_signs), FLOATS, COMPOSED),
    Row("margin_ranking_loss", "F.margin_ranking_loss", ranking, every(
        lambda g: (g.array(129), g.array(129), signs(g, 129)), {}, {"margin": 0.4}), FLOATS, COMPOSED,
        bad=(Bad("dims", lambda g: functional("margin_ranking_loss")(ones(2, 3), ones(2, 3), ones(3)), ValueError,
                 "margin_ranking_loss: inputs and target must have as many dims"),)),
    Row("cosine_embedding_loss", "F.cosine_embedding_loss", cosine, every(
        lambda g: (g.array(7, 33), g.array(7, 33), signs(g, 7)), {}, {"margin": 0.1}), FLOATS, COMPOSED,
        bad=(Bad("target", lambda g: functional("cosine_embedding_loss")(ones(2, 3), ones(2, 3), ones(2, 3)),
                 ValueError, "cosine_embedding_loss: inputs must be"),)),
    Row("multi_margin_loss", "F.multi_margin_loss", multi_margin, lambda g: itertools.chain(
        every(lambda g: (g.array(7, 5), g.indices(7, n=5)), {}, {"p": 2}, {"margin": 0.3})(g),
        [Sample(g.array(7, 5), g.indices(7, n=5), weight=g.array(5, low=0.2))]), FLOATS, COMPOSED, no_grad=("weight",),
        bad=(Bad("p", lambda g: functional("multi_margin_loss")(ones(2, 3), tw.tensor([0, 1]), p=3), ValueError,
                 "multi_margin_loss: p must be 1 or 2, got 3"),)),
    Row("multilabel_margin_loss", "F.multilabel_margin_loss", multilabel_margin, every(
        lambda g: (g.array(3, 4), np.array([[3, 0, -1, 1], [1, 1, 2, -1], [-1, 2, 0, 1]]))), FLOATS, COMPOSED,
        bad=(Bad("shape", lambda g: functional("multilabel_margin_loss")(ones(2, 3), tw.tensor([0, 1])), ValueError,
                 "multilabel_margin_loss: input and target must both"),)),
    Row("multilabel_soft_margin_loss", "F.multilabel_soft_margin_loss", multilabel_soft_margin, lambda g:
        itertools.chain(every(lambda g: (g.array(5, 33), g.array(5, 33, low=0, high=1)))(g), [
            Sample(g.array(3, 5), g.array(3, 5, low=0, high=1), weight=g.array(5, low=0.2))]), FLOATS, COMPOSED),
    Row("triplet_margin_loss", lambda *args, order=2.0, **kw: functional("triplet_margin_loss")(*args, p=order, **kw),
        triplet, every(lambda g: (g.array(7, 33), g.array(7, 33), g.array(7, 33)), {"margin": 5.0},
                       {"margin": 9.0, "order": 1.0}, {"margin": 5.0, "swap": True}), ("float32", "float64"), DISTANCE,
        ops=("triplet_margin_with_distance_loss", "triplet_margin_loss"),
        bad=(Bad("margin", lambda g: functional("triplet_margin_loss")(ones(2), ones(2), ones(2), 0.0), ValueError,
                 "triplet_margin_loss: margin must be positive"),)),
    Row("poisson_nll_loss", "F.poisson_nll_loss", poisson, every(
        lambda g: (g.array(3, 43, low=0.1), g.array(3, 43, low=1.5, high=6)), {}, {"full": True},
        {"log_input": False, "eps": 0.25}), FLOATS, COMPOSED, magnitude=poisson_terms),
    Row("kl_div", "F.kl_div", divergence, lambda g: (
        Sample(g.array(3, 43), g.array(3, 43, low=0.05, high=0.95), log_target=log, reduction=r)
        for log in (False, True) for r in ("batchmean", "sum", "none")), FLOATS, COMPOSED,
        bad=(Bad("reduction", lambda g: functional("kl_div")(ones(2), ones(2), reduction="batch"), ValueError,
                 "kl_div: reduction must be one of 'none', 'batchmean'"),)),
    Row("gaussian_nll_loss", "F.gaussian_nll_loss", gaussian, every(
        lambda g: (g.array(3, 43), g.array(3, 43), g.array(3, 43, low=0.25)), {}, {"full": True}), FLOATS, COMPOSED,
        bad=(Bad("negative", lambda g: functional("gaussian_nll_loss")(ones(2), ones(2), -ones(2)), ValueError,
                 "gaussian_nll_loss: var must not be negative"),)),
    # Its gradient is PyTorch's, which is that of the loss only where log_softmax came before.
    Row("ctc_loss", lambda x, *args, **kw: functional("ctc_loss")(tw.log_softmax(x, 2), *args, **kw), ctc, ctc_samples,
        ("float32", "float64"), ALIGNED, layouts=False, ops=("ctc_loss",),
        bad=(Bad("label", lambda g: functional("ctc_loss")(tw.zeros(4, 1, 3), tw.tensor([[3]]), (4,), (1,)),
                 IndexError, r"ctc_loss: labels must be in \[0, 3\), got 3"),)),
]  # fmt: skip
