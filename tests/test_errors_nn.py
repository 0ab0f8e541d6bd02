"""Bad arguments to layers, optimizers and the rest: the class and words of each error, and that nothing was changed."""

import math

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn, optim
from tilewright.nn import init
from tilewright.utils import data

# what is tried, exception, words
CASES = [
    (lambda: nn.Linear(-1, 2), ValueError, "Linear: in_features must be >= 0, got -1"),
    (lambda: nn.Linear(2, 2.5), TypeError, "Linear: out_features must be an int, got 2.5"),
    (lambda: nn.Conv2d(0, 2, 3), ValueError, "Conv2d: in_channels must be >= 1, got 0"),
    (lambda: nn.Conv2d(4, 2, 0), ValueError, "Conv2d: kernel_size must be >= 1, got 0"),
    (lambda: nn.Conv2d(4, 2, (3, 3, 3)), ValueError, "Conv2d: kernel_size must be an int or a pair"),
    (lambda: nn.Conv2d(4, 2, 3, stride=0), ValueError, "Conv2d: stride must be >= 1, got 0"),
    (lambda: nn.Conv2d(4, 2, 3, padding=-1), ValueError, "Conv2d: padding must be >= 0, got -1"),
    (lambda: nn.Conv2d(4, 6, 3, groups=3), ValueError, "Conv2d: groups must divide in_channels, got groups 3"),
    (lambda: nn.Conv2d(4, 6, 3, groups=4), ValueError, "Conv2d: groups must divide out_channels, got groups 4"),
    (lambda: nn.Conv2d(4, 6, 3, padding="most"), ValueError, "Conv2d: padding must be one of 'same', 'valid'"),
    (lambda: nn.Conv2d(4, 6, 3, 2, padding="same"), ValueError, "padding 'same' needs stride 1"),
    (lambda: nn.Conv3d(4, 2, (3, 3)), ValueError, "Conv3d: kernel_size must be an int or three ints, got"),
    (lambda: nn.ConvTranspose2d(4, 2, 3, padding="same"), TypeError, "ConvTranspose2d: padding must be an int"),
    (lambda: nn.ConvTranspose2d(4, 2, 3, padding_mode="reflect"), ValueError, "padding_mode must be one of 'zeros'"),
    (lambda: nn.ConvTranspose1d(4, 2, 3, 2)(tw.zeros(1, 4, 5), (13,)), ValueError,
     "ConvTranspose1d: output_size must lie between .11,. and .12,., got .13,."),
    (lambda: nn.Conv2d(4, 6, 3, padding_mode="odd"), ValueError, "padding_mode must be one of"),
    (lambda: nn.MaxPool2d(2, padding=2), ValueError, "MaxPool2d: padding must be at most half of kernel_size"),
    (lambda: nn.AvgPool2d(2, 0), ValueError, "AvgPool2d: stride must be >= 1, got 0"),
    (lambda: nn.AvgPool2d(2, divisor_override=0), ValueError, "divisor_override must be >= 1, got 0"),
    (lambda: nn.AdaptiveAvgPool2d((1, 2, 3)), ValueError, "output_size must be an int or 2 ints"),
    (lambda: nn.BatchNorm2d(-3), ValueError, "BatchNorm2d: num_features must be >= 0, got -3"),
    (lambda: nn.BatchNorm1d(3, momentum=2.0), ValueError, r"BatchNorm1d: momentum must be in \[0, 1\], got 2.0"),
    (lambda: nn.LayerNorm(()), ValueError, "normalized_shape must have at least one dimension"),
    (lambda: nn.LayerNorm((3, -1)), ValueError, "LayerNorm: normalized_shape must be >= 0, got -1"),
    (lambda: nn.Dropout(1.5), ValueError, r"Dropout: p must be in \[0, 1\], got 1.5"),
    (lambda: nn.Dropout(math.nan), ValueError, r"Dropout: p must be in \[0, 1\], got nan"),
    (lambda: nn.Hardtanh(1.0, 1.0), ValueError, "Hardtanh: min_val must be < max_val"),
    (lambda: nn.GELU("erf"), ValueError, "GELU: approximate must be one of 'none', 'tanh', got 'erf'"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, r"padding_idx must be in \[-3, 3\), got 3"),
    (lambda: nn.Embedding(3, 2, sparse=True), NotImplementedError, "Embedding: sparse gradients are not offered"),
    (lambda: nn.Unflatten(1, (2, 2))(tw.zeros(3, 5)), ValueError, "Unflatten: sizes must multiply to that of dim 1"),
    (lambda: nn.MSELoss(reduction="avg"), ValueError, "MSELoss: reduction must be one of 'none', 'mean', 'sum'"),
    (lambda: nn.CrossEntropyLoss(label_smoothing=1.1), ValueError, r"label_smoothing must be in \[0, 1\]"),
    (lambda: nn.BatchNorm2d(3)(tw.zeros(2, 3)), ValueError, r"input must have 4 dimensions, got \(2, 3\)"),
    (lambda: nn.Sequential(3), TypeError, "Sequential: module '0' must be nn.Module or None, got int"),
    (lambda: init.xavier_normal_(tw.empty(3)), ValueError, r"at least 2 dimensions, got \(3,\)"),
    (lambda: init.calculate_gain("swish"), ValueError, "nonlinearity must be one of"),
    (lambda: init.kaiming_normal_(tw.empty(2, 2), mode="in"), ValueError, "mode must be one of 'fan_in', 'fan_out'"),
    (lambda: init.trunc_normal_(tw.empty(2), std=0.0), ValueError, "std must be finite and > 0, got 0.0"),
    (lambda: init.trunc_normal_(tw.empty(2), a=1.0, b=1.0), ValueError, "a must be < b"),
    (lambda: init.eye_(tw.empty(2)), ValueError, r"eye_: tensor must have 2 dimensions, got \(2,\)"),
    (lambda: nn.utils.clip_grad_norm_([], -1.0), ValueError, "max_norm must be >= 0, got -1.0"),
    (lambda: nn.utils.vector_to_parameters(tw.zeros(3), [tw.zeros(2)]), ValueError, r"shape \(2,\), got \(3,\)"),
    (lambda: optim.SGD([], 0.1), ValueError, "SGD: params must hold at least one parameter"),
    (lambda: optim.SGD(tw.zeros(2), 0.1), TypeError, "SGD: params must be an iterable of tensors or dicts"),
    (lambda: optim.SGD([3], 0.1), TypeError, "SGD: parameter 0 must be a Tensor, got int"),
    (lambda: optim.SGD([{"lr": 0.1}]), TypeError, "a group's 'params' must be a tensor"),
    (lambda: optim.Adam([tw.ones(2, requires_grad=True) * 2]), ValueError, "parameter 0 must be a leaf"),
    (lambda: optim.Adam([nn.Parameter(tw.ones(1))] * 2), ValueError, "each parameter must be given once"),
    (lambda: data.TensorDataset(tw.zeros(3), tw.zeros(4)), ValueError, "must have the same first size"),
    (lambda: data.TensorDataset(tw.zeros(())), ValueError, "must have the same first size"),
    (lambda: data.random_split(range(5), [2, 2]), ValueError, r"lengths must sum to the dataset's 5, got \[2, 2\]"),
    (lambda: data.random_split(range(5), [0.5, 0.4]), ValueError, "fractions must sum to 1"),
    (lambda: data.random_split(range(5), [6, -1]), ValueError, "lengths must be >= 0"),
    (lambda: data.ConcatDataset([]), ValueError, "at least one dataset"),
    (lambda: data.BatchSampler(range(3), 0, False), ValueError, "BatchSampler: batch_size must be >= 1, got 0"),
    (lambda: data.RandomSampler(range(3), num_samples=0), ValueError, "num_samples must be >= 1, got 0"),
    (lambda: data.WeightedRandomSampler([1.0, -1.0], 2), ValueError, "weights must be one row, finite, >= 0"),
    (lambda: data.WeightedRandomSampler([1.0, 0.0], 2, replacement=False), ValueError, "got 2 and 1"),
    (lambda: data.DataLoader(range(3), batch_size=0), ValueError, "DataLoader: batch_size must be >= 1, got 0"),
    (lambda: data.DataLoader(range(3), num_workers=-1), ValueError, "num_workers must be >= 0, got -1"),
    (lambda: data.DataLoader(range(3), timeout=-1), ValueError, "timeout must be >= 0, got -1"),
    (lambda: data.DataLoader(range(3), prefetch_factor=2), ValueError, "prefetch_factor needs num_workers > 0"),
    (lambda: data.DataLoader(range(3), persistent_workers=True), ValueError, "persistent_workers needs num_workers"),
    (lambda: data.DataLoader(range(3), shuffle=True, sampler=range(3)), ValueError, "either sampler or shuffle"),
    (lambda: data.DataLoader(range(3), batch_sampler=[[0]], drop_last=True), ValueError, "batch_sampler excludes"),
    (lambda: data.DataLoader(range(3), batch_size=None, drop_last=True), ValueError, "drop_last needs batches"),
    (lambda: data.DataLoader(data.IterableDataset(), shuffle=True), ValueError, "IterableDataset has its own order"),
    (lambda: data.default_collate([]), ValueError, "a batch must hold at least one sample"),
    (lambda: data.default_collate([object()]), TypeError, "got object; give a collate_fn"),
    (lambda: data.default_collate([tw.zeros(2), tw.zeros(3)]), ValueError, r"one shape, got \[\(2,\), \(3,\)\]"),
    (lambda: data.default_collate([[1], [1, 2]]), ValueError, r"one length, got \[1, 2\]"),
]


@pytest.mark.parametrize("attempt, kind, words", CASES, ids=[row[2][:40] for row in CASES])
def test_bad_arguments(attempt, kind, words):
    with pytest.raises(kind, match=words):
        attempt()


@pytest.mark.parametrize("build", [optim.SGD, optim.Adam, optim.AdamW])
@pytest.mark.parametrize("lr", [math.nan, math.inf, -0.1])
def test_learning_rate_is_checked_at_construction_and_step(build, lr):
    name = build.__name__
    with pytest.raises(ValueError, match=f"{name}: lr must be finite and >= 0, got {lr}"):
        build([nn.Parameter(tw.ones(1))], lr=lr)
    first, second = nn.Parameter(tw.ones(1)), nn.Parameter(tw.ones(1))
    optimizer = build([{"params": [first]}, {"params": [second]}], lr=0.1)
    first.grad, second.grad = tw.ones(1), tw.ones(1)
    optimizer.param_groups[1]["lr"] = lr
    with pytest.raises(ValueError, match=f"{name}: lr must be finite and >= 0, got {lr}"):
        optimizer.step()
    assert first.item() == 1.0 and not optimizer.state  # the sound group was not moved either


@pytest.mark.parametrize("option, words", [
    ({"momentum": -0.5}, "momentum must be finite and >= 0, got -0.5"),
    ({"weight_decay": math.inf}, "weight_decay must be finite and >= 0, got inf"),
    ({"dampening": math.nan}, "dampening must be finite"),
    ({"nesterov": True}, "nesterov needs momentum > 0 and dampening 0"),
    ({"lr": "0.1"}, "lr must be a number, got '0.1'"),
])
def test_sgd_options(option, words):
    with pytest.raises((ValueError, TypeError), match=f"SGD: {words}"):
        optim.SGD([nn.Parameter(tw.ones(1))], **{"lr": 0.1, **option})


@pytest.mark.parametrize("option, words", [
    ({"betas": (1.0, 0.9)}, r"betas\[0\] must be in \[0, 1\), got 1.0"),
    ({"betas": (0.9, -0.1)}, r"betas\[1\] must be in \[0, 1\), got -0.1"),
    ({"betas": 0.9}, "betas must be a pair, got 0.9"),
    ({"eps": -1e-8}, "eps must be finite and >= 0"),
])
def test_adam_options(option, words):
    with pytest.raises(ValueError, match=f"AdamW: {words}"):
        optim.AdamW([nn.Parameter(tw.ones(1))], **option)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), Block()])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 5)

    def forward(self, x):
        return self.fc1(x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()

    def forward(self, x):
        return self.encoder(x)


def test_error_names_the_path_once():
    model = Model()
    with pytest.raises(ValueError) as caught:
        model(tw.zeros(2, 4))
    message = str(caught.value)
    assert message.startswith("in encoder.layers.1.fc1 (Linear 3 -> 5): linear: "), message
    assert message.count("in encoder") == 1 and message.count("fc1") == 1 and "(2, 4)" in message
    frames = [entry.name for entry in caught.traceback]
    assert frames[1:].count("forward") >= 3  # the user sees the way down


def test_error_of_a_lone_layer_and_of_a_users_own_forward():
    with pytest.raises(ValueError, match=r"^in Linear 3 -> 5: linear: "):
        nn.Linear(3, 5)(tw.zeros(2, 4))

    class Picky(nn.Module):
        def forward(self, x):
            raise self.error

    picky = Picky()
    outer = nn.Sequential(nn.Identity(), picky)
    for error in (ValueError("no"), RuntimeError("no"), TypeError("no")):
        picky.error = error
        with pytest.raises(type(error), match=r"^in 1 \(Picky\): no$"):
            outer(tw.zeros(1))
    for error in (KeyError("key"), OSError(2, "no file"), StopIteration("end"), ValueError(), ValueError(3)):
        picky.error, before = error, error.args  # not messages: left as they are
        with pytest.raises(type(error)) as caught:
            outer(tw.zeros(1))
        assert caught.value is error and caught.value.args == before


def test_error_with_hooks_and_shared_and_unregistered_modules():
    model = Model()
    model.encoder.register_forward_hook(lambda *args: None)
    with pytest.raises(ValueError, match=r"^in encoder.layers.1.fc1 \(Linear 3 -> 5\)"):
        model(tw.zeros(2, 4))

    class Borrower(nn.Module):
        def __init__(self, other):
            super().__init__()
            self.hidden = [other]  # a plain list: not a registered module

        def forward(self, x):
            return self.hidden[0](x)

    with pytest.raises(ValueError, match=r"^in Linear \(Linear 3 -> 5\): linear"):
        Borrower(nn.Linear(3, 5))(tw.zeros(2, 4))


def test_all_misfits_at_once_and_nothing_changed():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = {key: np.array(value.numpy()) for key, value in net.state_dict().items()}
    state = dict(net.state_dict())
    state["0.weight"] = tw.zeros(2, 3)
    state["0.bias"] = tw.zeros(3, dtype=tw.int64)
    state["1.weight"] = tw.full((3,), 9.0)  # this one fits, and must not be copied
    state["1.bias"] = [0.0, 0.0, 0.0]
    state["extra"] = tw.zeros(1)
    del state["1.running_mean"]
    with pytest.raises(ValueError) as caught:
        net.load_state_dict(state)
    assert isinstance(caught.value, RuntimeError)  # what PyTorch's scripts catch
    message = str(caught.value)
    for words in ("Error(s) in loading state_dict for Sequential:", 'Missing key(s) in state_dict: "1.running_mean". ',
                  'Unexpected key(s) in state_dict: "extra". ',
                  "size mismatch for 0.weight: copying a param with shape Size([2, 3]) from checkpoint, the shape in "
                  "current model is Size([3, 2]).", "dtype mismatch for 0.bias: must be tilewright.float32, got "
                  "tilewright.int64", "type mismatch for 1.bias: must be a Tensor, got list"):
        assert words in message, message
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
    with pytest.raises(ValueError, match=r"size mismatch for 0\.weight"):
        net.load_state_dict(state, strict=False)
    with pytest.raises(TypeError, match="state_dict must be a mapping, got list"):
        net.load_state_dict([])


def test_optimizer_state_that_does_not_fit():
    param = nn.Parameter(tw.ones(3))
    optimizer = optim.Adam([param], lr=0.1)
    param.grad = tw.ones(3)
    optimizer.step()
    good = optimizer.state_dict()
    other = optim.Adam([nn.Parameter(tw.ones(3)), nn.Parameter(tw.ones(3))])
    with pytest.raises(ValueError, match=r"Adam: state_dict must have groups of \[2\] parameters, got \[1\]"):
        other.load_state_dict(good)
    with pytest.raises(ValueError, match="must have 'state' and 'param_groups'"):
        other.load_state_dict({})
    wider = optim.Adam([nn.Parameter(tw.ones(4))], lr=0.7)
    with pytest.raises(ValueError, match=r"exp_avg of parameter 0: \(3,\), parameter \(4,\)"):
        wider.load_state_dict(good)
    bad = {**good, "param_groups": [{**good["param_groups"][0], "lr": math.nan}]}
    with pytest.raises(ValueError, match="lr must be finite"):
        wider.load_state_dict(bad)
    assert wider.param_groups[0]["lr"] == 0.7 and not wider.state


def test_a_refused_batch_is_not_counted():
    norm = nn.BatchNorm1d(3)
    with pytest.raises((ValueError, RuntimeError), match="in BatchNorm1d 3: "):
        norm(tw.zeros(4, 2))
    assert norm.num_batches_tracked.item() == 0 and norm.running_mean.tolist() == [0, 0, 0]


def test_train_mode_must_be_bool():
    with pytest.raises(ValueError, match="train: mode must be a bool, got 1"):
        nn.ReLU().train(1)


def test_a_forgotten_argument_names_the_layer():
    for make, name in ((lambda: nn.Conv2d(3, 4), "Conv2d"), (lambda: nn.MaxPool2d(), "MaxPool2d"),
                       (lambda: nn.BatchNorm2d(), "BatchNorm2d"), (lambda: nn.LSTM(), "LSTM")):
        with pytest.raises(TypeError, match=rf"^{name}\.__init__\(\) missing"):
            make()
