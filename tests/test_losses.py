"""The losses against PyTorch: functions and modules, every reduction and option, values and gradients of each input."""

import inspect
import itertools
import math
import time

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # on work this small its threads wait for each other
rng = np.random.default_rng(0)


def reals(*shape, low=-2.0, high=2.0):
    return rng.uniform(low, high, shape)


def signs(*shape):
    return rng.choice([-1.0, 1.0], shape)


def simplex(*shape):
    e = np.exp(reals(*shape))
    return e / e.sum(1, keepdims=True)


LABELS = rng.integers(0, 5, 7)
SOME_IGNORED = np.where(np.arange(7) % 3 == 0, 2, LABELS)
ROWS_OF_LABELS = np.array([[3, 0, -1, 1], [1, 1, 2, -1], [-1, 2, 0, 1], [0, 1, 2, 3]])
WEIGHT = reals(5, low=0.2)
PIXELS = rng.integers(0, 5, (2, 3, 4))
X, Y = reals(4, 3), reals(4, 3)

# name, arrays (float ones get gradients, unless their place is in `fixed`), options, fixed
CASES = [
    ("l1_loss", (X, Y), [{}, {"weight": reals(4, 3, low=0.1)}], ()),
    ("mse_loss", (X, Y), [{}, {"weight": reals(4, 3, low=0.1)}], ()),
    ("smooth_l1_loss", (X, Y), [{}, {"beta": 0.25}, {"beta": 0.0}], ()),
    ("huber_loss", (X, Y), [{}, {"delta": 0.5}, {"weight": reals(4, 3, low=0.1)}], ()),
    ("binary_cross_entropy", (reals(4, 3, low=0.01, high=0.99), reals(4, 3, low=0, high=1)),
     [{}, {"weight": reals(4, 3, low=0)}, {"weight": reals(3, low=0)}], ()),
    ("binary_cross_entropy_with_logits", (X * 9, reals(4, 3, low=0, high=1)),
     [{}, {"weight": reals(3, low=0)}, {"pos_weight": reals(3, low=0.1), "weight": reals(4, 3, low=0)}], ()),
    ("cross_entropy", (reals(7, 5), SOME_IGNORED), [{}, {"weight": WEIGHT}, {"ignore_index": 2, "weight": WEIGHT},
                                                    {"label_smoothing": 0.2, "weight": WEIGHT, "ignore_index": 2}], ()),
    ("cross_entropy", (reals(2, 5, 3, 4), PIXELS), [{}, {"label_smoothing": 0.1, "ignore_index": 1}], ()),
    ("cross_entropy", (reals(5), np.array(3)), [{}], ()),
    ("cross_entropy", (reals(7, 5), simplex(7, 5)), [{}, {"weight": WEIGHT, "label_smoothing": 0.3}], ()),
    ("cross_entropy", (reals(2, 5, 3, 4), simplex(2, 5, 3, 4)), [{}, {"weight": WEIGHT}], ()),
    ("nll_loss", (reals(7, 5), SOME_IGNORED), [{}, {"weight": WEIGHT, "ignore_index": 2}], ()),
    ("nll_loss", (reals(2, 5, 3, 4), PIXELS), [{}, {"weight": WEIGHT, "ignore_index": 0}], ()),
    ("kl_div", (reals(4, 3), simplex(4, 3)), [{}], ()),
    ("kl_div", (reals(4, 3), np.array([[0.0, 0.5, 0.5]] * 4)), [{}], (1,)),
    ("kl_div", (reals(4, 3), reals(4, 3)), [{"log_target": True}], ()),
    ("poisson_nll_loss", (reals(4, 3), reals(4, 3, low=0.1, high=5)), [{}, {"full": True}], ()),
    ("poisson_nll_loss", (reals(4, 3, low=0.1), reals(4, 3, low=0.1, high=5)),
     [{"log_input": False, "full": True}, {"log_input": False, "eps": 0.5}], ()),
    ("gaussian_nll_loss", (X, Y, reals(4, 3, low=0.01, high=1)), [{}, {"full": True}, {"eps": 0.5}], ()),
    ("gaussian_nll_loss", (X, Y, reals(4, low=0.01, high=1)), [{}], ()),
    ("gaussian_nll_loss", (X, Y, reals(4, 1, low=0.01, high=1)), [{}], ()),
    ("gaussian_nll_loss", (X, Y), [{"var": 0.7}], ()),
    ("hinge_embedding_loss", (X, signs(4, 3)), [{}, {"margin": 0.3}], (1,)),
    ("soft_margin_loss", (X, signs(4, 3)), [{}], (1,)),
    ("margin_ranking_loss", (X, Y, signs(4, 3)), [{}, {"margin": 0.4}], ()),
    ("cosine_embedding_loss", (X, Y, signs(4)), [{}, {"margin": 0.2}], (2,)),
    ("cosine_embedding_loss", (X[0], Y[0], np.array(-1)), [{}], ()),
    ("multi_margin_loss", (reals(7, 5), LABELS), [{}, {"p": 2}, {"margin": 0.3, "weight": WEIGHT}], ()),
    ("multi_margin_loss", (reals(5), np.array(3)), [{"p": 2, "weight": WEIGHT}], ()),
    ("multi_margin_loss", (reals(), np.array(0)), [{}], ()),
    ("multilabel_margin_loss", (reals(), np.array(0)), [{}], ()),
    ("multilabel_margin_loss", (reals(4, 4), ROWS_OF_LABELS), [{}], ()),
    ("multilabel_margin_loss", (reals(4), ROWS_OF_LABELS[0]), [{}], ()),
    ("multilabel_soft_margin_loss", (X, reals(4, 3, low=0, high=1)), [{}, {"weight": reals(3, low=0)}], ()),
    ("triplet_margin_loss", (X, Y, reals(4, 3)), [{}, {"margin": 2.5, "p": 1}, {"swap": True, "p": 3, "eps": 0.01}],
     ()),
    ("triplet_margin_loss", (X[0], Y[0], X[1]), [{"margin": 9.0}], ()),
    ("triplet_margin_with_distance_loss", (X, Y, reals(4, 3)), [{}, {"margin": 3.0, "swap": True}], ()),
]
MODULES = {
    "l1_loss": "L1Loss", "mse_loss": "MSELoss", "smooth_l1_loss": "SmoothL1Loss", "huber_loss": "HuberLoss",
    "binary_cross_entropy": "BCELoss", "binary_cross_entropy_with_logits": "BCEWithLogitsLoss",
    "cross_entropy": "CrossEntropyLoss", "nll_loss": "NLLLoss", "kl_div": "KLDivLoss",
    "poisson_nll_loss": "PoissonNLLLoss", "gaussian_nll_loss": "GaussianNLLLoss",
    "hinge_embedding_loss": "HingeEmbeddingLoss", "soft_margin_loss": "SoftMarginLoss",
    "margin_ranking_loss": "MarginRankingLoss", "cosine_embedding_loss": "CosineEmbeddingLoss",
    "multi_margin_loss": "MultiMarginLoss", "multilabel_margin_loss": "MultiLabelMarginLoss",
    "multilabel_soft_margin_loss": "MultiLabelSoftMarginLoss", "triplet_margin_loss": "TripletMarginLoss",
    "triplet_margin_with_distance_loss": "TripletMarginWithDistanceLoss",
}  # fmt: skip


def numbers(t):
    return t.detach().numpy()


def both(function, arrays, options, fixed=(), dtype=np.float64):
    """(results, gradients) of `function(library, tensors, options)` in both libraries."""
    found = []
    for lib in (tw, torch):
        tensors = []
        for i, a in enumerate(arrays):
            t = lib.tensor(a.astype(dtype) if a.dtype.kind == "f" else a)
            tensors.append(t.requires_grad_() if a.dtype.kind == "f" and i not in fixed else t)
        given = {k: lib.tensor(v.astype(dtype)) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        y = function(lib, tensors, given)
        y = y if isinstance(y, tuple) else (y,)
        wanted = [t for t in tensors if t.requires_grad]
        seeds = [np.random.default_rng(3).uniform(0.5, 1.5, tuple(v.shape)).astype(dtype) for v in y]
        grads = lib.autograd.grad(y, wanted, [lib.tensor(s) for s in seeds], retain_graph=True)
        found.append([numbers(v) for v in (*y, *grads)])
    return found


def agree(found, rtol=1e-9, atol=1e-11):
    ours, theirs = found
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.filterwarnings("ignore:.*'mean' divides")
@pytest.mark.parametrize("name, arrays, options, fixed", CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_as_pytorch(name, arrays, options, fixed):
    for given, reduction in itertools.product(options, ("mean", "sum", "none")):
        given = {**given, "reduction": reduction}
        agree(both(lambda lib, ts, kw: getattr(lib.nn.functional, name)(*ts, **kw), arrays, given, fixed))
        agree(both(lambda lib, ts, kw: getattr(lib.nn.functional, name)(*ts, **kw), arrays, given, fixed, np.float32),
              2e-4, 2e-5)
        if set(given) <= set(inspect.signature(getattr(nn, MODULES[name])).parameters):
            agree(both(lambda lib, ts, kw: getattr(lib.nn, MODULES[name])(**kw)(*ts), arrays, given, fixed))


def test_batchmean():
    for log_target in (False, True):
        given = {"reduction": "batchmean", "log_target": log_target}
        agree(both(lambda lib, ts, kw: lib.nn.functional.kl_div(*ts, **kw), (reals(4, 3), simplex(4, 3)), given))
        agree(both(lambda lib, ts, kw: lib.nn.KLDivLoss(**kw)(*ts), (reals(4, 3), simplex(4, 3)), given))
    with pytest.warns(UserWarning, match="kl_div: reduction 'mean'"):
        F.kl_div(tw.zeros(2, 2), tw.ones(2, 2))


# Second order: those made of recorded ops. PyTorch refuses some of these itself.
@pytest.mark.parametrize("name, arrays", [
    ("smooth_l1_loss", (X, Y)), ("huber_loss", (X, Y)), ("mse_loss", (X, Y)), ("binary_cross_entropy_with_logits",
     (X, reals(4, 3, low=0, high=1))), ("binary_cross_entropy", (reals(4, 3, low=0.1, high=0.9), reals(4, 3, low=0,
     high=1))), ("cross_entropy", (reals(7, 5), LABELS)), ("nll_loss", (reals(7, 5), LABELS)),
    ("soft_margin_loss", (X, signs(4, 3))), ("triplet_margin_loss", (X, Y, X[::-1].copy())),
    ("poisson_nll_loss", (X, np.abs(Y))), ("gaussian_nll_loss", (X, Y, np.abs(Y) + 0.1)),
    ("cosine_embedding_loss", (X, Y, signs(4))),
])
def test_second_order(name, arrays):
    def penalty(lib, ts, kw):
        y = getattr(lib.nn.functional, name)(*ts[:len(arrays)])
        (g,) = lib.autograd.grad(y, ts[0], create_graph=True)
        return (g * g).sum() + y

    agree(both(penalty, arrays, {}, fixed=(1, 2)), 1e-7, 1e-9)


# --- old words -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size_average, reduce, reduction", [
    (None, True, "mean"), (True, None, "mean"), (False, None, "sum"), (False, True, "sum"), (True, False, "none"),
    (None, False, "none")])
def test_legacy_words(size_average, reduce, reduction):
    x, y = tw.tensor([1.0, 5.0]), tw.tensor([0.0, 2.0])
    with pytest.warns(UserWarning, match=f"mse_loss: size_average and reduce are old.*'{reduction}'"):
        found = F.mse_loss(x, y, size_average=size_average, reduce=reduce)
    assert found.tolist() == F.mse_loss(x, y, reduction=reduction).tolist()
    with pytest.warns(UserWarning, match="MSELoss: size_average"):
        assert nn.MSELoss(size_average, reduce).reduction == reduction


def test_nll_loss_2d():
    with pytest.warns(FutureWarning, match="NLLLoss2d"):
        loss = nn.NLLLoss2d(ignore_index=3)
    x = tw.tensor(reals(2, 5, 3, 4))
    assert loss(x, tw.tensor(PIXELS)).item() == F.nll_loss(x, tw.tensor(PIXELS), ignore_index=3).item()


@pytest.mark.parametrize("call, error, words", [
    (lambda x: F.mse_loss(x, x, reduction="avg"), ValueError, "mse_loss: reduction must be one of 'none'"),
    (lambda x: F.mse_loss(x, x, weight=x[0]), ValueError, "mse_loss: weight must have the input's shape"),
    (lambda x: nn.HuberLoss(reduction="batchmean"), ValueError, "HuberLoss: reduction must be"),
    (lambda x: F.multi_margin_loss(x, tw.tensor([0, 1]), p=3), ValueError, "p must be 1 or 2, got 3"),
    (lambda x: F.multi_margin_loss(x, tw.tensor([0, 3])), IndexError, "3"),
    (lambda x: F.multi_margin_loss(x, tw.tensor([0, 1]), weight=tw.ones(2)), ValueError, "one value a class"),
    (lambda x: F.multilabel_margin_loss(x, tw.tensor([0, 1])), ValueError, "multilabel_margin_loss: input and target"),
    (lambda x: F.cosine_embedding_loss(x, x, x), ValueError, r"cosine_embedding_loss: inputs must be \(N, D\)"),
    (lambda x: F.margin_ranking_loss(x, x, x[0]), ValueError, "margin_ranking_loss: inputs and target"),
    (lambda x: F.triplet_margin_loss(x, x, x, margin=0), ValueError, "margin must be positive, got 0"),
    (lambda x: nn.TripletMarginLoss(-1.0), ValueError, "TripletMarginLoss: margin must be positive, got -1.0"),
    (lambda x: F.gaussian_nll_loss(x, x, -x - 1), ValueError, "var must not be negative, got -2"),
    (lambda x: F.gaussian_nll_loss(x, x, tw.ones(3)), ValueError, "var must have the input's shape"),
    (lambda x: F.cross_entropy(x, x, ignore_index=1), ValueError, "ignore_index needs class labels"),
    (lambda x: tw.vision.ops.sigmoid_focal_loss(x, x, alpha=2), ValueError, r"alpha must be in \[0, 1\]"),
])
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call(tw.ones(2, 3))


def test_nll_of_small_label_types_and_no_rows():
    x = reals(4, 3)
    for labels in (np.array([0, 2, 1, 2], np.uint8), np.array([0, 2, 1, 2], np.int32)):
        ours = F.nll_loss(tw.tensor(x), tw.tensor(labels), weight=tw.tensor(WEIGHT[:3]))
        theirs = torch.nn.functional.nll_loss(torch.tensor(x), torch.tensor(labels).long(), torch.tensor(WEIGHT[:3]))
        np.testing.assert_allclose(ours.item(), theirs.item(), rtol=1e-12)
    assert math.isnan(F.nll_loss(tw.zeros(0, 3), tw.zeros(0, dtype=tw.int64)).item())
    assert math.isnan(F.nll_loss(tw.zeros(2, 3), tw.full((2,), -100)).item())
    assert F.nll_loss(tw.zeros(0, 3), tw.zeros(0, dtype=tw.int64), reduction="sum").item() == 0


def test_halves_and_empty():
    for name, arrays, options, _ in CASES:
        if name in ("kl_div", "cross_entropy", "nll_loss"):
            continue
        y = getattr(F, name)(*(tw.tensor(a).half() if a.dtype.kind == "f" else tw.tensor(a) for a in arrays),
                             **{k: v for k, v in options[0].items() if not isinstance(v, np.ndarray)})
        assert y.dtype == tw.float16 and math.isfinite(y.item()), name
    empty = tw.zeros(0, 3)
    assert math.isnan(F.soft_margin_loss(empty, empty).item()) and F.huber_loss(empty, empty, "sum").item() == 0
    assert F.multilabel_soft_margin_loss(empty, empty, reduction="none").shape == (0,)


# --- CTC -------------------------------------------------------------------------------------------------------------
PADDED = np.array([[1, 2, 2, 3], [3, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
JOINED = np.array([1, 2, 2, 3, 3, 1, 2])
COUNTS, STEPS = (4, 2, 1, 0), (9, 7, 9, 4)


def ctc(lib, ts, kw):
    logits, = ts
    return lib.nn.functional.ctc_loss(logits.log_softmax(-1), kw.pop("targets"), *kw.pop("lengths"), **kw)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ctc(joined, reduction):
    def run(lib, ts, kw):
        lengths = STEPS, COUNTS
        lengths = lengths if not joined else tuple(lib.tensor(v) for v in lengths)
        return ctc(lib, ts, {"targets": lib.tensor(JOINED if joined else PADDED), "lengths": lengths,
                             "reduction": reduction})

    agree(both(run, (reals(9, 4, 5),), {}), 1e-9, 1e-11)
    agree(both(run, (reals(9, 4, 5),), {}, dtype=np.float32), 1e-4, 1e-5)


def test_ctc_other_blank_and_module():
    def run(lib, ts, kw):
        return lib.nn.CTCLoss(blank=4, reduction="sum")(ts[0].log_softmax(2), lib.tensor(PADDED), STEPS, COUNTS)

    agree(both(run, (reals(9, 4, 5),), {}))

    def alone(lib, ts, kw):
        return lib.nn.functional.ctc_loss(ts[0].log_softmax(1), lib.tensor(PADDED[0]), lib.tensor(8), lib.tensor(4))

    agree(both(alone, (reals(9, 5),), {}))


def test_ctc_too_short():
    def run(lib, ts, kw):
        return ctc(lib, ts, {"targets": lib.tensor([[1, 1, 1], [2, 3, 0]]), "lengths": ((4, 4), (3, 2)), **kw})

    for reduction in ("none", "mean"):
        agree(both(run, (reals(4, 2, 5),), {"zero_infinity": True, "reduction": reduction}))
    ours, theirs = both(run, (reals(4, 2, 5),), {"reduction": "none"})
    assert ours[0][0] == math.inf and theirs[0][0] == math.inf
    np.testing.assert_allclose(ours[0][1], theirs[0][1])
    np.testing.assert_allclose(ours[1][:, 1], theirs[1][:, 1], rtol=1e-9)
    assert np.isnan(ours[1][:, 0]).all()


def test_ctc_of_sure_and_impossible_classes():
    x = np.full((3, 1, 3), -np.inf)
    x[0, 0, 1] = x[1, 0, 0] = x[2, 0, 2] = 0.0  # the alignment 1 - 2, surely
    assert F.ctc_loss(tw.tensor(x), tw.tensor([[1, 2]]), (3,), (2,)).item() == 0.0
    assert F.ctc_loss(tw.tensor(x), tw.tensor([[2, 1]]), (3,), (2,)).item() == math.inf


@pytest.mark.parametrize("given, error, words", [
    ({"input_lengths": (10, 9, 9, 9)}, ValueError, r"input_lengths must be in \[0, 9\]"),
    ({"target_lengths": (5, 1, 1, 1)}, ValueError, r"target_lengths must be in \[0, 4\]"),
    ({"target_lengths": (1, 1)}, ValueError, "one length a sequence, got 2 for 4"),
    ({"blank": 5}, ValueError, r"blank must be a class in \[0, 5\), got 5"),
    ({"targets": tw.tensor(PADDED + 3)}, IndexError, r"labels must be in \[0, 5\), got 5"),
    ({"targets": tw.tensor(JOINED[:3])}, ValueError, "target_lengths must be in"),
])
def test_ctc_errors(given, error, words):
    usual = {"targets": tw.tensor(PADDED), "input_lengths": STEPS, "target_lengths": COUNTS}
    with pytest.raises(error, match=words):
        F.ctc_loss(tw.zeros(9, 4, 5), **{**usual, **given})


def test_ctc_is_vectorised_over_the_batch():
    logits, targets = tw.tensor(reals(200, 32, 30).astype(np.float32)), tw.tensor(rng.integers(1, 30, (32, 40)))
    logits.requires_grad_()
    start = time.perf_counter()
    F.ctc_loss(logits.log_softmax(2), targets, (200,) * 32, (40,) * 32).backward()
    assert time.perf_counter() - start < 2.0  # about 0.05 s; cell by cell in Python it would be a minute
    assert math.isfinite(logits.grad.sum().item())


# --- focal -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("alpha, gamma", [(0.25, 2), (-1, 2), (0.6, 0.5), (0.25, 0)])
def test_focal(alpha, gamma):
    def by_definition(lib, ts, kw):
        x, y = ts
        p = lib.sigmoid(x)
        true = lib.where(y == 1, p, 1 - p)
        loss = -((1 - true) ** gamma) * lib.log(true)
        return loss if alpha < 0 else loss * lib.where(y == 1, lib.full_like(x, alpha), lib.full_like(x, 1 - alpha))

    x, y = reals(4, 3, low=-4, high=4), (signs(4, 3) + 1) / 2
    _, theirs = both(by_definition, (x, y), {}, fixed=(1,))
    ours, _ = both(lambda lib, ts, kw: tw.vision.ops.sigmoid_focal_loss(*ts, alpha, gamma) if lib is tw
                   else by_definition(lib, ts, kw), (x, y), {}, fixed=(1,))
    agree((ours, theirs), 1e-8)
    total = tw.vision.ops.sigmoid_focal_loss(tw.tensor(x), tw.tensor(y), alpha, gamma, "sum")
    np.testing.assert_allclose(total.item(), theirs[0].sum())
