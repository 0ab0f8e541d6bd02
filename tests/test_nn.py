"""Layers against PyTorch where it is installed, and against hand-computed values; the rules of Module by themselves."""

import copy
import math
import pickle

import numpy as np
import pytest

import tilewright as tw
from tilewright import models, nn
from tilewright.nn import functional as F
from tilewright.nn import init

# float32 against float32 by another engine: both err by a few ulp of sums of at most some hundred terms.
RTOL, ATOL = 2e-5, 2e-6


def array(shape, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def values(tensor):
    return np.array(tensor.detach().numpy())


def torch_twin(ours, theirs):
    """Gives PyTorch's module our parameters and buffers, which also checks that names and shapes agree."""
    import torch

    theirs.load_state_dict({k: torch.from_numpy(values(v)) for k, v in ours.state_dict().items()})
    return theirs


LOSSES = [
    ("mse", lambda nn, t, r: nn.MSELoss(reduction=r), "real"),
    ("l1", lambda nn, t, r: nn.L1Loss(reduction=r), "real"),
    ("smooth l1", lambda nn, t, r: nn.SmoothL1Loss(reduction=r, beta=0.7), "real"),
    ("cross entropy", lambda nn, t, r: nn.CrossEntropyLoss(reduction=r), "class"),
    ("cross entropy options", lambda nn, t, r: nn.CrossEntropyLoss(weight=t([0.5, 1.0, 2.0, 0.1]), ignore_index=2,
                                                                   reduction=r, label_smoothing=0.1), "class"),
    ("cross entropy soft", lambda nn, t, r: nn.CrossEntropyLoss(reduction=r, label_smoothing=0.2), "soft"),
    ("nll", lambda nn, t, r: nn.NLLLoss(weight=t([0.5, 1.0, 2.0, 0.1]), ignore_index=1, reduction=r), "class"),
    ("bce", lambda nn, t, r: nn.BCELoss(weight=t([0.5, 1.0, 2.0, 0.1]), reduction=r), "probability"),
    ("bce logits", lambda nn, t, r: nn.BCEWithLogitsLoss(reduction=r, pos_weight=t([0.5, 1.0, 2.0, 0.1])), "soft"),
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name, build, kind", LOSSES, ids=[row[0] for row in LOSSES])
def test_loss_as_pytorch(name, build, kind, reduction):
    torch = pytest.importorskip("torch")
    data = array((6, 4), seed=1, low=0.05, high=0.95) if kind == "probability" else array((6, 4), seed=1)
    target = array((6, 4), seed=2) if kind == "real" else array((6, 4), seed=2, low=0.0, high=1.0)
    if kind == "class":
        target = np.array([0, 1, 2, 3, 1, 0], dtype=np.int64)
    elif name == "cross entropy soft":
        target /= target.sum(1, keepdims=True)
    results = []
    for lib, modules in ((tw, nn), (torch, torch.nn)):
        x = lib.tensor(data, requires_grad=True)
        loss = build(modules, lib.tensor, reduction)(x, lib.tensor(target))
        (loss * loss).sum().backward()  # squared, so that the incoming gradients of 'none' differ
        results.append((values(loss), values(x.grad)))
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=RTOL, atol=ATOL)


def test_embedding_as_pytorch():
    torch = pytest.importorskip("torch")
    ours = nn.Embedding(7, 3, padding_idx=-2)
    theirs = torch_twin(ours, torch.nn.Embedding(7, 3, padding_idx=-2))
    index = np.array([[0, 5, 6], [5, 1, 1]])
    weight = array((2, 3, 3), seed=9)
    y, ty = ours(tw.tensor(index)), theirs(torch.tensor(index))
    np.testing.assert_array_equal(values(y), values(ty))
    (y * tw.from_numpy(weight)).sum().backward()
    (ty * torch.from_numpy(weight)).sum().backward()
    np.testing.assert_allclose(values(ours.weight.grad), values(theirs.weight.grad), rtol=RTOL, atol=ATOL)
    assert values(ours.weight)[5].tolist() == [0, 0, 0]
    assert values(ours.weight.grad)[5].tolist() == [0, 0, 0]
    frozen = nn.Embedding.from_pretrained(tw.ones(2, 2))
    assert not frozen.weight.requires_grad and values(frozen(tw.tensor([1]))).tolist() == [[1, 1]]


@pytest.mark.parametrize("kwargs", ({"max_norm": 1.5}, {"max_norm": 1.0, "norm_type": 1.0},
                                    {"scale_grad_by_freq": True},
                                    {"max_norm": 1.0, "scale_grad_by_freq": True, "padding_idx": 1}), ids=str)
def test_embedding_options_as_pytorch(kwargs):
    torch = pytest.importorskip("torch")
    ours = nn.Embedding(7, 3, **kwargs)
    theirs = torch_twin(ours, torch.nn.Embedding(7, 3, **kwargs))
    index, weight = np.array([[0, 5, 6], [5, 1, 1]]), array((2, 3, 3), seed=9)
    (ours(tw.tensor(index)) * tw.from_numpy(weight)).sum().backward()
    (theirs(torch.tensor(index)) * torch.from_numpy(weight)).sum().backward()
    np.testing.assert_allclose(values(ours.weight), values(theirs.weight), rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(values(ours.weight.grad), values(theirs.weight.grad), rtol=RTOL, atol=ATOL)
    assert repr(ours) == repr(theirs)


def test_linear_and_losses_by_hand():
    layer = nn.Linear(2, 1)
    with tw.no_grad():
        layer.weight.copy_(tw.tensor([[2.0, -1.0]]))
        layer.bias.fill_(0.5)
    x = tw.tensor([[1.0, 3.0], [2.0, 0.0]])
    y = layer(x)
    assert values(y).tolist() == [[-0.5], [4.5]]
    nn.MSELoss()(y, tw.tensor([[0.5], [3.5]])).backward()  # d/dy = (y - t) = [-1, 1]
    assert values(layer.weight.grad).tolist() == [[1.0, -3.0]] and values(layer.bias.grad).tolist() == [0.0]
    uniform = nn.CrossEntropyLoss()(tw.zeros(3, 8), tw.tensor([0, 3, 7]))
    assert uniform.item() == pytest.approx(math.log(8), rel=1e-6)


def test_dropout_scales_and_stops_in_eval():
    tw.manual_seed(3)
    drop = nn.Dropout(0.25)
    y = values(drop(tw.ones(200, 100)))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    # 20,000 draws: the share kept is within 5 standard deviations (0.0031 each) of 0.75.
    assert abs((y > 0).mean() - 0.75) < 5 * math.sqrt(0.25 * 0.75 / y.size)
    assert (values(drop.eval()(tw.ones(10))) == 1).all()
    assert (values(nn.Dropout(1.0)(tw.ones(10))) == 0).all()


def test_inplace_activation_changes_its_input():
    for layer, expected in ((nn.ReLU(inplace=True), [0.0, 2.0]), (nn.LeakyReLU(0.5, inplace=True), [-0.5, 2.0]),
                            (nn.Hardtanh(inplace=True), [-1.0, 1.0])):
        x = tw.tensor([-1.0, 2.0])
        assert values(layer(x)).tolist() == expected and values(x).tolist() == expected


def test_repr():
    net = nn.Sequential(nn.Conv2d(1, 6, 5, 2, padding=2, groups=1, bias=False), nn.ReLU(inplace=True),
                        nn.Sequential(nn.Flatten(), nn.Dropout(0.2)))
    assert repr(net) == """Sequential(
  (0): Conv2d(1, 6, kernel_size=(5, 5), stride=(2, 2), padding=(2, 2), bias=False)
  (1): ReLU(inplace=True)
  (2): Sequential(
    (0): Flatten(start_dim=1, end_dim=-1)
    (1): Dropout(p=0.2, inplace=False)
  )
)"""
    assert repr(nn.MaxPool2d(2)) == "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"
    assert repr(nn.Embedding(3, 2, padding_idx=-1)) == "Embedding(3, 2, padding_idx=2)"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        self.scale = nn.Parameter(tw.ones(2))
        self.register_buffer("seen", tw.zeros(1))
        self.register_buffer("scratch", tw.zeros(1), persistent=False)

    def forward(self, x):
        return self.body(x) * self.scale


NAMES = ["scale", "body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"]


def test_names_and_walks():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_buffers()] == ["seen", "scratch"]
    assert [name for name, _ in net.named_modules()] == ["", "body", "body.0", "body.1", "body.2"]
    assert [name for name, _ in net.named_children()] == ["body"]
    assert set(net.state_dict()) == {*NAMES, "seen"}
    assert net.get_submodule("body.2") is net.body[2] and net.get_parameter("body.0.bias") is net.body[0].bias
    assert net.get_buffer("seen") is net.seen
    with pytest.raises(AttributeError, match=r"no submodule 'body\.7'"):
        net.get_submodule("body.7")
    with pytest.raises(AttributeError, match=r"no parameter 'body\.0\.nothing'"):
        net.get_parameter("body.0.nothing")


def test_shared_parameters_are_named_once():
    net = Net()
    net.body[2].weight = nn.Parameter(tw.ones(2, 4))
    net.again = net.body[2]
    net.tied = net.scale
    assert len(list(net.parameters())) == len(NAMES)
    assert len(list(net.named_parameters(remove_duplicate=False))) == len(NAMES) + 3
    assert "again.weight" in net.state_dict() and "tied" in net.state_dict()


def test_attributes_can_be_replaced():
    net = Net()
    net.scale = nn.Parameter(tw.zeros(2))
    assert (values(net(tw.ones(1, 3))) == 0).all()
    with pytest.raises(TypeError, match=r"parameter 'scale' must be nn.Parameter or None, got"):
        net.scale = tw.ones(2)
    net.scale = None
    assert "scale" not in dict(net.named_parameters())
    del net.scale
    assert not hasattr(net, "scale")
    net.scale = tw.full((2,), 3.0)  # a plain tensor is a plain attribute once the parameter is gone
    assert "scale" not in net.state_dict() and values(net(tw.zeros(1, 3))).shape == (1, 2)
    net.forward = lambda x: x + 1  # methods too
    assert values(net(tw.zeros(1))).tolist() == [1]
    net.seen = tw.ones(1)
    assert values(net.state_dict()["seen"]).tolist() == [1]
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'nothing'"):
        _ = net.nothing
    with pytest.raises(KeyError, match="attribute 'body' already exists"):
        net.register_buffer("body", tw.ones(1))
    with pytest.raises(KeyError, match=r"without '\.'"):
        net.add_module("a.b", nn.ReLU())


def test_init_must_come_first():
    class Hasty(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"Hasty: call super\(\).__init__\(\) before"):
        Hasty()


def test_state_dict_round_trip_and_partial():
    first, second = Net(), Net()
    second.load_state_dict(first.state_dict())
    for (key, a), (_, b) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        np.testing.assert_array_equal(values(a), values(b), err_msg=key)
    some = {"body.0.bias": tw.ones(4), "other": tw.ones(1)}
    report = second.load_state_dict(some, strict=False)
    assert set(report.missing_keys) == {*NAMES, "seen"} - {"body.0.bias"}
    assert report.unexpected_keys == ["other"]
    assert values(second.body[0].bias).tolist() == [1, 1, 1, 1]
    bias = second.body[0].bias
    second.load_state_dict({"body.0.bias": tw.zeros(4, dtype=tw.float64)}, strict=False)
    assert second.body[0].bias is bias and bias.dtype == tw.float32 and values(bias).tolist() == [0] * 4
    second.load_state_dict({"body.0.bias": tw.full((4,), 2.0)}, strict=False, assign=True)
    assert second.body[0].bias is not bias and second.body[0].bias.requires_grad
    assert values(second.body[0].bias).tolist() == [2] * 4


def test_state_dict_shares_memory_and_keep_vars_keeps_parameters():
    net = Net()
    with tw.no_grad():
        net.state_dict()["scale"].fill_(5)
    assert values(net.scale).tolist() == [5, 5]
    assert not net.state_dict()["scale"].requires_grad and net.state_dict(keep_vars=True)["scale"] is net.scale


def test_train_eval_apply_requires_grad_and_zero_grad():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    order = []
    net.apply(lambda m: order.append(type(m).__name__))
    assert order == ["Linear", "ReLU", "Linear", "Sequential", "Net"]
    net(tw.ones(2, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all((values(p.grad) == 0).all() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.body.requires_grad_(False)
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["scale"]


def test_dtype_changes_keep_identity_and_integers():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    weight = net[0].weight
    before = values(weight)
    net(tw.ones(4, 3)).sum().backward()
    assert net.double() is net
    assert net[0].weight is weight and weight.dtype == tw.float64 and weight.grad.dtype == tw.float64
    assert net[1].running_mean.dtype == tw.float64 and net[1].num_batches_tracked.dtype == tw.int64
    assert net(tw.ones(4, 3, dtype=tw.float64)).dtype == tw.float64
    net.to(tw.float32)
    np.testing.assert_array_equal(values(weight), before)
    assert net.half()[0].bias.dtype == tw.float16 and net.bfloat16()[0].bias.dtype == tw.bfloat16
    assert net.to(tw.ones(1, dtype=tw.float64))[0].bias.dtype == tw.float64
    assert net.to("cpu", tw.float32)[0].bias.dtype == tw.float32
    with pytest.raises(TypeError, match="must be a floating-point type"):
        net.to(tw.int64)


def test_deepcopy_and_pickle_are_independent():
    net = Net()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert [name for name, _ in twin.named_parameters()] == NAMES
        assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in twin.parameters())
        x = tw.tensor(array((2, 3)))
        np.testing.assert_array_equal(values(twin(x)), values(net(x)))
        with tw.no_grad():
            twin.scale.fill_(7)
        assert values(net.scale).tolist() == [1, 1]


def test_deepcopy_keeps_sharing():
    net = Net()
    net.tied = net.scale
    twin = copy.deepcopy(net)
    assert twin.tied is twin.scale and twin.tied is not net.tied


def test_forward_hooks():
    layer = nn.Linear(2, 2)
    x = tw.ones(1, 2)
    plain = values(layer(x))
    seen = []
    pre = layer.register_forward_pre_hook(lambda m, args: seen.append("pre") or (args[0] * 2,))
    post = layer.register_forward_hook(lambda m, args, out: seen.append("post") or out + 1)
    layer.register_forward_hook(lambda m, args, kwargs, out: seen.append("first"), prepend=True, with_kwargs=True)
    doubled = values(layer(x))
    assert seen == ["pre", "first", "post"]
    np.testing.assert_allclose(doubled, 2 * plain - values(layer.bias) + 1, rtol=1e-6, atol=1e-6)
    pre.remove()
    with post:
        np.testing.assert_allclose(values(layer(x)), plain + 1, rtol=1e-6)
    np.testing.assert_array_equal(values(layer(x)), plain)


def test_full_backward_hooks():
    layer = nn.Linear(2, 1)
    with tw.no_grad():
        layer.weight.copy_(tw.tensor([[3.0, 5.0]]))
    seen = {}

    def hook(module, grad_input, grad_output):
        seen["in"], seen["out"] = values(grad_input[0]), values(grad_output[0])
        return (grad_input[0] * 10,)

    handle = layer.register_full_backward_hook(hook)
    x = tw.ones(1, 2, requires_grad=True)
    (layer(x) * 2).sum().backward()
    assert seen["out"].tolist() == [[2]] and seen["in"].tolist() == [[6, 10]]
    assert values(x.grad).tolist() == [[60, 100]]
    handle.remove()
    pre = layer.register_full_backward_pre_hook(lambda module, grad_output: (grad_output[0] * 7,))
    x.grad = None
    layer(x).sum().backward()
    assert values(x.grad).tolist() == [[21, 35]]
    pre.remove()
    calls = []
    layer.register_full_backward_hook(lambda module, grad_input, grad_output: calls.append(grad_input))
    layer(tw.ones(1, 2)).sum().backward()  # an input that needs no gradient has none to show
    assert calls == [(None,)]


def test_sequential_and_module_list():
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    seq = nn.Sequential(a, b, c)
    assert len(seq) == 3 and seq[-1] is c and list(seq) == [a, b, c] and list(seq[1:]) == [b, c]
    seq.insert(1, nn.Tanh())
    assert [type(m).__name__ for m in seq] == ["Linear", "Tanh", "ReLU", "Linear"]
    assert [name for name, _ in seq.named_children()] == ["0", "1", "2", "3"]
    del seq[1]
    assert list(seq) == [a, b, c]
    seq[1] = nn.Sigmoid()
    assert type(seq[1]) is nn.Sigmoid and seq.pop(-1) is c and len(seq) == 2
    with pytest.raises(IndexError, match=r"Sequential: index must be in \[-2, 2\), got 2"):
        seq[2]
    from collections import OrderedDict
    named = nn.Sequential(OrderedDict([("first", a), ("last", c)]))
    assert named.first is a and list(named.state_dict()) == ["first.weight", "first.bias", "last.weight", "last.bias"]
    sliced = models.MLP([2, 3, 1])[:2]  # a subclass that takes widths, not modules
    assert type(sliced) is nn.Sequential and list(map(type, sliced)) == [nn.Linear, nn.ReLU]
    modules = nn.ModuleList([a])
    modules.extend([b]).append(c)
    modules += [nn.Identity()]
    assert len(modules) == 4 and modules[2] is c and [n for n, _ in modules.named_parameters()][2] == "2.weight"
    with pytest.raises(NotImplementedError, match="ModuleList: forward"):
        modules(tw.ones(1))
    with pytest.raises(TypeError, match=r"must be nn\.Module or None, got int"):
        modules.append(3)


def test_module_and_parameter_dicts():
    modules = nn.ModuleDict({"a": nn.Linear(1, 2)})
    modules["b"] = nn.ReLU()
    assert list(modules) == ["a", "b"] and "a" in modules and len(modules) == 2
    assert [n for n, _ in modules.named_parameters()] == ["a.weight", "a.bias"]
    del modules["a"]
    assert list(modules.keys()) == ["b"]
    params = nn.ParameterList([tw.ones(2), nn.Parameter(tw.zeros(1))])
    assert all(isinstance(p, nn.Parameter) for p in params) and list(params.state_dict()) == ["0", "1"]
    params[0] = tw.zeros(3)
    assert params[0].shape[0] == 3 and len(params[:1]) == 1
    table = nn.ParameterDict({"w": tw.ones(2)})
    table["v"] = nn.Parameter(tw.zeros(1))
    assert list(table.state_dict()) == ["w", "v"] and table["w"].requires_grad and table.get("q") is None


# --- init ------------------------------------------------------------------------------------------------------------
def spread(tensor):
    flat = values(tensor).reshape(-1).astype(np.float64)
    return flat.min(), flat.max(), flat.std()


@pytest.mark.parametrize("layer, fan_in", [(nn.Linear(64, 100), 64), (nn.Conv2d(8, 100, 3, groups=2), 36)],
                         ids=["linear", "conv"])
def test_default_initialisation(layer, fan_in):
    bound = 1 / math.sqrt(fan_in)
    low, high, std = spread(layer.weight)
    # Uniform over the whole interval: 3,600 values or more reach within 1 % of its ends.
    assert -bound <= low < -0.99 * bound and 0.99 * bound < high <= bound
    assert std == pytest.approx(bound / math.sqrt(3), rel=0.05)
    low, high, _ = spread(layer.bias)
    assert -bound <= low < -0.8 * bound and 0.8 * bound < high <= bound


@pytest.mark.parametrize("fill, bound, std", [
    (lambda t: init.xavier_uniform_(t, gain=2.0), 2 * math.sqrt(6 / 300), None),
    (lambda t: init.xavier_normal_(t), None, math.sqrt(2 / 300)),
    (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(2) * math.sqrt(3 / 100), None),
    (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), None, math.sqrt(2 / 200)),
    (lambda t: init.uniform_(t, -3.0, 3.0), 3.0, None),
    (lambda t: init.normal_(t, 0.0, 0.5), None, 0.5),
], ids=["xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "uniform", "normal"])
def test_init_distributions(fill, bound, std):
    tw.manual_seed(1)
    tensor = tw.empty(200, 100)
    assert fill(tensor) is tensor
    low, high, found = spread(tensor)
    if bound:
        assert -bound <= low < -0.99 * bound and 0.99 * bound < high <= bound
        std = bound / math.sqrt(3)
    # 20,000 values: the standard deviation's own is 0.5 %.
    assert found == pytest.approx(std, rel=0.025) and abs(values(tensor).mean()) < 5 * std / math.sqrt(20000)


def test_init_exact_values():
    assert (values(init.constant_(tw.empty(3), 2.5)) == 2.5).all()
    assert (values(init.ones_(tw.empty(3))) == 1).all() and (values(init.zeros_(tw.empty(3))) == 0).all()
    assert values(init.eye_(tw.empty(2, 3))).tolist() == [[1, 0, 0], [0, 1, 0]]
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
    init.dirac_(conv.weight, groups=2)
    x = tw.tensor(array((1, 4, 5, 5)))
    np.testing.assert_array_equal(values(conv(x)), values(x))
    assert init.calculate_gain("leaky_relu", 0.2) == math.sqrt(2 / 1.04)
    assert init._calculate_fan_in_and_fan_out(tw.empty(8, 4, 3, 2)) == (24, 48)


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3), (4, 2, 3)])
def test_orthogonal(shape):
    matrix = values(init.orthogonal_(tw.empty(*shape), gain=2.0)).reshape(shape[0], -1).astype(np.float64)
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(min(matrix.shape)), atol=1e-5)


@pytest.mark.parametrize("mean, std, a, b", [(0.0, 1.0, -2.0, 2.0), (0.0, 0.02, -2.0, 2.0), (0.0, 1.0, 2.5, 4.0),
                                             (1.0, 2.0, -0.5, 0.5)])
def test_trunc_normal(mean, std, a, b):
    tw.manual_seed(2)
    sample = values(init.trunc_normal_(tw.empty(20000), mean, std, a, b)).astype(np.float64)
    assert sample.min() >= a and sample.max() <= b
    # The mean of a truncated normal: mean + std (phi(low) - phi(high)) / (Phi(high) - Phi(low)).
    low, high = (a - mean) / std, (b - mean) / std
    phi = [math.exp(-(v**2) / 2) / math.sqrt(2 * math.pi) for v in (low, high)]
    mass = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    expected = mean + std * (phi[0] - phi[1]) / mass
    assert abs(sample.mean() - expected) < 5 * sample.std() / math.sqrt(sample.size)
    tw.manual_seed(2)
    np.testing.assert_array_equal(sample, values(init.trunc_normal_(tw.empty(20000), mean, std, a, b)))


# --- nn.utils --------------------------------------------------------------------------------------------------------
def with_grads(*grads):
    params = []
    for grad in grads:
        param = nn.Parameter(tw.zeros(len(grad)))
        param.grad = tw.tensor(grad)
        params.append(param)
    return params


@pytest.mark.parametrize("norm_type, norm", [(2.0, 13.0), (1.0, 19.0), (math.inf, 12.0)])
def test_clip_grad_norm(norm_type, norm):
    params = with_grads([3.0, -4.0], [12.0])
    total = nn.utils.clip_grad_norm_(params, 2.0, norm_type)
    assert total.item() == pytest.approx(norm, rel=1e-6)
    scale = 2.0 / (norm + 1e-6)
    np.testing.assert_allclose(values(params[0].grad), np.array([3, -4]) * scale, rtol=1e-6)
    np.testing.assert_allclose(values(params[1].grad), np.array([12]) * scale, rtol=1e-6)
    nn.utils.clip_grad_norm_(params, 100.0, norm_type)
    np.testing.assert_allclose(values(params[1].grad), np.array([12]) * scale, rtol=1e-6)


def test_clip_grad_norm_nonfinite_and_clip_value():
    params = with_grads([math.inf, 1.0])
    with pytest.raises(RuntimeError, match="clip_grad_norm_: the norm must be finite, got inf"):
        nn.utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert values(params[0].grad).tolist() == [math.inf, 1.0]
    params = with_grads([3.0, -0.5], [-9.0])
    nn.utils.clip_grad_value_(params, 1.0)
    assert values(params[0].grad).tolist() == [1.0, -0.5] and values(params[1].grad).tolist() == [-1.0]


def test_parameters_to_vector_and_back():
    net = Net()
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert tuple(vector.shape) == (2 + 12 + 4 + 8 + 2,)
    nn.utils.vector_to_parameters(tw.arange(28, dtype=tw.float32), net.parameters())
    assert values(net.scale).tolist() == [0, 1] and values(net.body[2].bias).tolist() == [26, 27]
    assert values(net.body[0].weight)[1].tolist() == [5, 6, 7]


def test_functional_is_what_layers_use():
    x = tw.tensor(array((2, 3)))
    layer = nn.Linear(3, 2)
    np.testing.assert_array_equal(values(F.linear(x, layer.weight, layer.bias)), values(layer(x)))
    assert all(callable(getattr(F, name)) for name in F.__all__)
