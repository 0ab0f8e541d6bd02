"""PyTorch's further names: functions made of others against PyTorch, older names, mixed precision, checkpoints."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn

RNG = np.random.default_rng(0)


def real(*shape):
    return RNG.standard_normal(shape)


def pair(torch, *arrays):
    return ([tw.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays],
            [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays])


def same_with_gradients(function, *arrays):
    """function(library, functional, tensors): results and gradients of both libraries agree in float64."""
    torch = pytest.importorskip("torch")
    ours, theirs = pair(torch, *arrays)
    y, z = function(tw, F, *ours), function(torch, torch.nn.functional, *theirs)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-9, atol=1e-9)
    if not z.requires_grad:
        return
    weight = RNG.standard_normal(tuple(z.shape))
    (y * tw.tensor(weight)).sum().backward()
    (z * torch.tensor(weight)).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        if b.grad is not None:
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("equation, shapes", [
    ("ij,jk->ik", [(2, 3), (3, 4)]), ("bij,bjk", [(2, 3, 4), (2, 4, 5)]), ("ii->i", [(3, 3)]), ("ii", [(3, 3)]),
    ("i,j->ij", [(2,), (3,)]), ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]), ("bhqd,bhkd->bhqk", [(2, 3, 4, 5),
                                                                                                     (2, 3, 6, 5)]),
    ("ij->ji", [(2, 3)]), ("ij->", [(2, 3)]), ("ijk,jil,kl->il", [(2, 3, 4), (3, 2, 5), (4, 5)]),
    ("a,a->", [(4,), (4,)]), ("ab,cb->ac", [(0, 3), (2, 3)]), ("i...,i...->...", [(3, 2), (3, 2)]),
    ("ij,ij->ij", [(2, 1), (2, 3)]),
])  # fmt: skip
def test_einsum(equation, shapes):
    same_with_gradients(lambda lib, f, *x: lib.einsum(equation, *x), *(real(*s) for s in shapes))


COMPOSED = {
    "tensordot": (lambda lib, f, a, b: lib.tensordot(a, b, dims=([1, 2], [0, 1])), [(2, 3, 4), (3, 4, 5)]),
    "trace": (lambda lib, f, x: lib.trace(x), [(3, 4)]),
    "dist": (lambda lib, f, a, b: lib.dist(a, b, 3), [(3, 4), (3, 4)]),
    "cdist": (lambda lib, f, a, b: lib.cdist(a, b), [(2, 3, 4), (2, 5, 4)]),
    "cdist-product": (lambda lib, f, a, b: lib.cdist(a, b), [(30, 4), (40, 4)]),
    "cdist-p": (lambda lib, f, a, b: lib.cdist(a, b, p=1.0), [(3, 4), (5, 4)]),
    "cosine": (lambda lib, f, a, b: f.cosine_similarity(a, b, dim=1), [(3, 4, 2), (3, 4, 2)]),
    "pairwise": (lambda lib, f, a, b: f.pairwise_distance(a, b, keepdim=True), [(3, 4), (3, 4)]),
    "shuffle": (lambda lib, f, x: f.pixel_shuffle(x, 2), [(2, 8, 3, 2)]),
    "unshuffle": (lambda lib, f, x: f.pixel_unshuffle(x, 2), [(8, 6, 4)]),
    "unfold": (lambda lib, f, x: f.unfold(x, (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1)), [(2, 3, 7, 6)]),
    "fold": (lambda lib, f, x: f.fold(x, (7, 6), (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1)),
             [(2, 18, 16)]),
    "kl_div": (lambda lib, f, x: f.kl_div(f.log_softmax(x, 1), lib.tensor([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]],
                                                                         dtype=lib.float64), reduction="batchmean"),
               [(2, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSED)
def test_composed(name):
    function, shapes = COMPOSED[name]
    same_with_gradients(function, *(real(*s) for s in shapes))


def test_bincount():
    x = np.array([0, 3, 1, 3, 3])
    same_with_gradients(lambda lib, f, x: lib.bincount(x, minlength=6), x)
    same_with_gradients(lambda lib, f, x, w: lib.bincount(x, weights=w.detach()), x, real(5))
    assert tw.bincount(tw.tensor([], dtype=tw.int64), minlength=2).tolist() == [0, 0]


def test_multinomial_follows_the_weights():
    tw.manual_seed(0)
    weights = tw.tensor([1.0, 0.0, 3.0, 6.0])
    draws = tw.multinomial(weights, 20_000, replacement=True).numpy()
    np.testing.assert_allclose(np.bincount(draws, minlength=4) / 20_000, [0.1, 0, 0.3, 0.6], atol=0.015)
    many = tw.multinomial(weights, 300_000, replacement=True).numpy()  # so many are found by bisection
    np.testing.assert_allclose(np.bincount(many, minlength=4) / 300_000, [0.1, 0, 0.3, 0.6], atol=0.004)
    rows = tw.multinomial(weights.expand(4000, 4), 2).numpy()
    assert rows.shape == (4000, 2) and (rows[:, 0] != rows[:, 1]).all() and not (rows == 1).any()
    np.testing.assert_allclose(np.bincount(rows[:, 0], minlength=4) / 4000, [0.1, 0, 0.3, 0.6], atol=0.03)


@pytest.mark.parametrize("call, words", [
    (lambda: tw.einsum("ij,jk->ik", tw.ones(2, 3)), "einsum: the equation must name each operand"),
    (lambda: tw.einsum("ij,jk->ik", tw.ones(2, 3), tw.ones(4, 2)), "einsum: sizes of 'j' must agree, got 3 and 4"),
    (lambda: tw.einsum("ij->ik", tw.ones(2, 3)), "einsum: the result's letters must be the operands'"),
    (lambda: tw.multinomial(tw.zeros(3), 1), "multinomial: weights must be finite"),
    (lambda: tw.multinomial(tw.tensor([1.0, 0.0]), 2), "multinomial: without replacement .* got 2 for 1"),
    (lambda: F.fold(tw.ones(1, 7, 4), 3, 2), "fold: input must be"),
    (lambda: F.pixel_shuffle(tw.ones(1, 3, 2, 2), 2), "pixel_shuffle: channels must be a multiple of 4"),
    (lambda: tw.autograd.Variable(tw.ones(1), volatile=True), "volatile=True is gone"),
    (lambda: tw.amp.GradScaler(growth_factor=0.5), "growth_factor must be > 1"),
])
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_feature_dropout_drops_whole_channels(dims):
    tw.manual_seed(0)
    layer = getattr(nn, f"Dropout{dims}d")(0.25)
    x = tw.ones(40, 50, *[3] * dims)
    y = layer(x).numpy().reshape(2000, -1)
    assert (y == y[:, :1]).all() and set(np.unique(y[:, 0])) == {0.0, np.float32(1 / 0.75)}
    assert abs((y[:, 0] == 0).mean() - 0.25) < 0.04
    assert layer.eval()(x) is x


def test_modules_are_their_functions():
    x = tw.tensor(real(2, 8, 4, 4))
    assert (nn.PixelShuffle(2)(x) == F.pixel_shuffle(x, 2)).all()
    assert (nn.PixelUnshuffle(2)(nn.PixelShuffle(2)(x)) == x).all()
    columns = nn.Unfold(2, stride=2)(x)
    assert columns.shape == (2, 32, 4) and (nn.Fold(4, 2, stride=2)(columns) == x).all()
    assert (nn.CosineSimilarity()(x, x) - 1).abs().max().item() < 1e-12
    model = nn.DataParallel(nn.Linear(2, 3))
    assert list(model.state_dict()) == ["module.weight", "module.bias"] and model(tw.ones(1, 2)).shape == (1, 3)
    with pytest.raises(NotImplementedError, match="several devices"):
        nn.DataParallel(model, device_ids=[0, 1])
    assert "upscale_factor=2" in repr(nn.PixelShuffle(2))


def test_older_names():
    x = tw.FloatTensor([1, 2])
    assert x.dtype == tw.float32 and isinstance(x, tw.FloatTensor) and not isinstance(x, tw.LongTensor)
    assert tw.LongTensor(2, 3).shape == (2, 3) and tw.ByteTensor([1]).dtype == tw.uint8
    v = tw.autograd.Variable(x, requires_grad=True)
    assert v.requires_grad and not x.requires_grad and v.data_ptr() == x.data_ptr()
    assert isinstance(x.shape, tw.Size) and tw.Size((2, 3)).numel() == 6 == tw.zeros(5, 2, 3).shape[1:].numel()
    assert isinstance(x.shape[:1] + (2,), tw.Size) and not isinstance((2, 3), tw.Size)  # noqa: RUF005
    assert tw.Size([]).numel() == 1
    assert pickle.loads(pickle.dumps(x.shape)) == x.shape and tw.is_tensor(x) and not tw.is_tensor(1)
    for name in ("float64", "float32", "float16"):
        ours, theirs = tw.finfo(getattr(tw, name)), np.finfo(name)
        assert (ours.max, ours.eps, ours.tiny, ours.bits) == (theirs.max, theirs.eps, theirs.tiny, theirs.bits)
    for name in ("uint8", "int8", "int16", "int32", "int64"):
        ours, theirs = tw.iinfo(getattr(tw, name)), np.iinfo(name)
        assert (ours.max, ours.min, ours.bits) == (theirs.max, theirs.min, theirs.bits)
    with tw.inference_mode():
        assert not (v * 2).requires_grad
    with tw.inference_mode(False):
        assert (v * 2).requires_grad
    model = nn.Linear(1, 1)
    assert tw.compile(model) is model and not tw.distributed.is_initialized()
    with pytest.raises(NotImplementedError, match="init_process_group"):
        tw.distributed.init_process_group("nccl", world_size=2, rank=0)
    tw.backends.cudnn.benchmark = True
    tw.set_default_tensor_type(tw.DoubleTensor)
    try:
        assert tw.zeros(1).dtype == tw.float64
    finally:
        tw.set_default_tensor_type("torch.FloatTensor")


def test_tf32_switches():
    """PyTorch's three words and two flags, and no effect on the CPU's products."""
    def state():
        return tw.get_float32_matmul_precision(), tw.backends.cuda.matmul.allow_tf32, tw.backends.cudnn.allow_tf32

    assert state() == ("highest", False, False)
    x, w = tw.randn(30, 40), tw.randn(5, 3, 3, 3)
    before = x @ x.t(), tw.nn.functional.conv2d(tw.ones(1, 3, 8, 8), w)
    try:
        tw.set_float32_matmul_precision("medium")
        assert state() == ("medium", True, False)
        tw.backends.cuda.matmul.allow_tf32 = True
        assert state() == ("high", True, False)
        with tw.backends.cudnn.flags(enabled=True, allow_tf32=True):
            assert state() == ("high", True, True)
            assert (x @ x.t() == before[0]).all()
            assert (tw.nn.functional.conv2d(tw.ones(1, 3, 8, 8), w) == before[1]).all()
        assert state() == ("high", True, False)
        with pytest.raises(ValueError, match="highest"):
            tw.set_float32_matmul_precision("low")
    finally:
        tw.set_float32_matmul_precision("highest")
    assert state() == ("highest", False, False)


def test_shapes_changed_in_place():
    x = tw.arange(6).reshape(1, 2, 3).clone()
    assert x.squeeze_().shape == (2, 3) and x.t_().tolist() == [[0, 3], [1, 4], [2, 5]]
    assert x.unsqueeze_(0).shape == (1, 3, 2) and x.transpose_(0, 1).shape == (3, 1, 2)
    assert x.resize_(2, 2).tolist() == [[0, 3], [1, 4]] and x.new([1.5]).tolist() == [1] and x.new(2, 3).shape == (2, 3)
    with pytest.raises(RuntimeError, match="requires grad cannot change its shape"):
        tw.ones(2, 3, requires_grad=True).transpose_(0, 1)
    leaf = tw.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    y = leaf * 2  # what is recorded takes its history along, and so do changes in place that follow
    y.squeeze_(0).mul_(y.detach() + 1).unsqueeze_(1).t_()
    (y * tw.tensor([[1.0, 10.0, 100.0]])).sum().backward()
    assert y.tolist() == [[6.0, 20.0, 42.0]] and leaf.grad.tolist() == [[6.0, 100.0, 1400.0]]
    x = tw.zeros(2, 3)
    row = x[1:2]
    row.squeeze_().add_(1)
    assert row.shape == (3,) and x.tolist() == [[0.0] * 3, [1.0] * 3]


def test_sparse_adam_says_what_to_use():
    with pytest.raises(NotImplementedError, match=r"SparseAdam: .* use tw\.optim\.Adam"):
        tw.optim.SparseAdam([tw.ones(1, requires_grad=True)])


def test_assert_close():
    tw.testing.assert_close({"a": [tw.ones(2)]}, {"a": [tw.ones(2) + 1e-7]})
    for actual, expected, words in ((tw.ones(2), tw.tensor([1.0, 1.1]), "1 of 2 values differ"),
                                    (tw.ones(2), tw.ones(3), "shapes differ"),
                                    (tw.ones(2), tw.ones(2).double(), "dtypes differ")):
        with pytest.raises(AssertionError, match=words):
            tw.testing.assert_close(actual, expected)


def test_autocast():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x = tw.randn(5, 4)
    with tw.autocast("cpu"):
        assert tw.is_autocast_enabled()
        y = model(x)
        loss = F.cross_entropy(y, tw.tensor([0, 1, 2, 0, 1]))
        with tw.autocast("cpu", enabled=False):
            assert model(x).dtype == tw.float32
    assert y.dtype == tw.bfloat16 and loss.dtype == tw.float32 and not tw.is_autocast_enabled()
    loss.backward()
    assert all(p.grad.dtype == tw.float32 for p in model.parameters())
    exact = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    F.cross_entropy(model(x), tw.tensor([0, 1, 2, 0, 1])).backward()
    for p, g in zip(model.parameters(), exact, strict=True):
        assert (p.grad - g).abs().max().item() <= 0.05 * p.grad.abs().max().item()


def test_scaler_skips_overflow_and_grows():
    w = nn.Parameter(tw.ones(3))
    optimizer = tw.optim.SGD([w], lr=0.5)
    scaler = tw.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    for factor, scale in ((1.0, 8.0), (1.0, 16.0), (float("inf"), 8.0), (1.0, 8.0)):
        before = w.detach().clone()
        optimizer.zero_grad()
        scaler.scale((w * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == scale
        moved = (before - w.detach()).tolist()
        assert moved == ([0.0] * 3 if factor == float("inf") else [0.5] * 3)
    optimizer.zero_grad()
    scaler.scale(w.sum()).backward()
    scaler.unscale_(optimizer)
    assert w.grad.tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="unscale_"):
        scaler.unscale_(optimizer)
    other = tw.amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == scaler.get_scale()


def test_checkpoint_has_the_same_gradients():
    tw.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))
    x = tw.randn(5, 4)
    results = []
    for run in (model, lambda x: tw.utils.checkpoint.checkpoint(model, x),
                lambda x: tw.utils.checkpoint.checkpoint_sequential(model, 2, x)):
        tw.manual_seed(7)
        model.zero_grad()
        run(x).square().sum().backward()
        results.append([p.grad.clone() for p in model.parameters()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert (a == b).all()


def test_grad_with_inputs_that_are_unused():
    x, y = tw.ones(2, requires_grad=True), tw.ones(3, requires_grad=True)
    assert tw.autograd.grad(x.sum(), (x, y), allow_unused=True)[1] is None
    assert tw.autograd.grad(x.sum(), (x, y), materialize_grads=True)[1].tolist() == [0, 0, 0]
    with pytest.raises(NotImplementedError, match="only_inputs=False"):
        tw.autograd.grad(x.sum(), x, only_inputs=False)


def test_types_by_older_names():
    x = tw.arange(3)
    assert x.type() == "torch.LongTensor" and x.float().type() == "torch.FloatTensor"
    for kind in (tw.DoubleTensor, "torch.DoubleTensor", tw.float64, x.double().type()):
        assert x.type(kind).dtype == tw.float64
    with pytest.raises(TypeError, match="type: "):
        x.type("torch.NoTensor")
    import tilewright.backends.cudnn as cudnn
    assert cudnn is tw.backends.cudnn and not cudnn.is_available()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape, options", [
    ((2, 3, 13, 17), {"size": (5, 6)}), ((1, 1, 7, 7), {"size": (19, 4)}), ((1, 2, 9, 9), {"scale_factor": 0.37}),
    ((1, 2, 9, 9), {"size": (4, 4), "align_corners": True}),
    ((1, 2, 9, 9), {"scale_factor": 0.37, "recompute_scale_factor": True}),
])
def test_antialiased_interpolation(mode, shape, options):
    same_with_gradients(lambda lib, f, x: f.interpolate(x, mode=mode, antialias=True, **options), real(*shape))


def test_typed_tensors_of_arrays():
    assert tw.LongTensor(np.array([[1, 2]])).tolist() == [[1, 2]] and tw.FloatTensor(np.int64(2)).shape == (2,)
