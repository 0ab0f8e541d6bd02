"""Ten-step training curves of six models equal PyTorch's from the same weights, to 1e-4 relative: for each optimizer,
and for each schedule. Where PyTorch is missing, its curves are those of curves.json; `python tests/test_curves.py`
writes that file anew."""

import functools
import json
import pathlib

import numpy as np
import pytest

import tilewright as tw

try:
    import torch

    torch.set_num_threads(1)  # on work this small its threads wait for each other
except ImportError:
    torch = None

STORED = pathlib.Path(__file__).with_name("curves.json")

STEPS = 10


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def labels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 4, shape)


# --- models: each makes a module and a loss of (module, step) ---------------------------------------------------------
def mlp(lib):
    net = lib.nn.Sequential(lib.nn.Linear(6, 16), lib.nn.ReLU(), lib.nn.Linear(16, 12), lib.nn.Tanh(),
                            lib.nn.Linear(12, 4))

    def loss(step):
        return lib.nn.functional.cross_entropy(net(lib.tensor(normal(step, 12, 6))), lib.tensor(labels(step, 12)))

    return net, loss


def cnn(lib):
    # Without biases before the norms: their gradients are 0 but for rounding, which Adam and others make into steps.
    net = lib.nn.Sequential(
        lib.nn.Conv2d(1, 6, 3, padding=1, bias=False), lib.nn.BatchNorm2d(6), lib.nn.ReLU(), lib.nn.MaxPool2d(2),
        lib.nn.Conv2d(6, 8, 3, bias=False), lib.nn.BatchNorm2d(8), lib.nn.LeakyReLU(0.1), lib.nn.AdaptiveAvgPool2d(1),
        lib.nn.Flatten(), lib.nn.Linear(8, 4))

    def loss(step):
        return lib.nn.CrossEntropyLoss(label_smoothing=0.1)(net(lib.tensor(normal(step, 8, 1, 8, 8))),
                                                            lib.tensor(labels(step, 8)))

    return net, loss


def recurrent(lib, kind):
    class Reader(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = lib.nn.Embedding(9, 5)
            self.read = getattr(lib.nn, kind)(5, 8, num_layers=2, batch_first=True)
            self.out = lib.nn.Linear(8, 9)

        def forward(self, x):
            return self.out(self.read(self.embed(x))[0])

    net = Reader()

    def loss(step):
        text = lib.tensor(np.random.default_rng(step).integers(0, 9, (4, 7)))
        return lib.nn.functional.cross_entropy(net(text[:, :-1]).reshape(-1, 9), text[:, 1:].reshape(-1))

    return net, loss


def transformer(lib):
    class Block(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.place = lib.nn.Embedding(9, 8), lib.nn.Parameter(lib.zeros(1, 6, 8))
            self.attend = lib.nn.MultiheadAttention(8, 2, batch_first=True)
            self.first, self.second = lib.nn.LayerNorm(8), lib.nn.LayerNorm(8)
            self.feed = lib.nn.Sequential(lib.nn.Linear(8, 16), lib.nn.GELU(), lib.nn.Linear(16, 8))
            self.out = lib.nn.Linear(8, 9)

        def forward(self, x):
            x = self.embed(x) + self.place
            later = lib.triu(lib.ones(6, 6), diagonal=1) > 0
            h = self.first(x)
            x = x + self.attend(h, h, h, attn_mask=later, need_weights=False)[0]
            return self.out(x + self.feed(self.second(x)))

    net = Block()

    def loss(step):
        text = lib.tensor(np.random.default_rng(step).integers(0, 9, (5, 7)))
        return lib.nn.functional.cross_entropy(net(text[:, :-1]).reshape(-1, 9), text[:, 1:].reshape(-1))

    return net, loss


def vae(lib):
    class Vae(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.mean, self.logvar = lib.nn.Linear(10, 12), lib.nn.Linear(12, 3), lib.nn.Linear(12, 3)
            self.decode = lib.nn.Sequential(lib.nn.Linear(3, 12), lib.nn.ReLU(), lib.nn.Linear(12, 10),
                                            lib.nn.Sigmoid())

        def forward(self, x, noise):
            h = lib.relu(self.encode(x))
            mean, logvar = self.mean(h), self.logvar(h)
            return self.decode(mean + noise * lib.exp(0.5 * logvar)), mean, logvar

    net = Vae()

    def loss(step):
        x = lib.tensor((normal(step, 6, 10) > 0).astype(np.float32))
        y, mean, logvar = net(x, lib.tensor(normal(1000 + step, 6, 3)))
        divergence = -0.5 * lib.sum(1 + logvar - mean.pow(2) - logvar.exp())
        return lib.nn.functional.binary_cross_entropy(y, x, reduction="sum") / 6 + divergence / 6

    return net, loss


MODELS = {"mlp": mlp, "cnn": cnn, "lstm": functools.partial(recurrent, kind="LSTM"),
          "gru": functools.partial(recurrent, kind="GRU"), "transformer": transformer, "vae": vae}


def curve(lib, model, optimizer, options, schedule=None, how=None):
    net, loss_of = MODELS[model](lib)
    weights = np.random.default_rng(11)
    with lib.no_grad():
        for name, p in net.named_parameters():
            bound, centre = (0.4, 0) if p.ndim > 1 else (0.1, int(name.endswith("weight")))  # 1 for the norms' weights
            p.copy_(lib.tensor(weights.uniform(centre - bound, centre + bound, tuple(p.shape)).astype(np.float32)))
    optimizer = getattr(lib.optim, optimizer)(net.parameters(), **options)
    schedule = None if schedule is None else how(lib.optim.lr_scheduler, optimizer) if callable(how) else getattr(
        lib.optim.lr_scheduler, schedule)(optimizer, **how)
    losses = []
    for step in range(STEPS):
        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(step)
            loss.backward()
            if optimizer.__class__.__name__ != "LBFGS":  # whose line search wants the loss's own gradient
                lib.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            return loss

        losses.append(optimizer.step(closure).item())
        if schedule is not None:
            schedule.step(*[losses[-1]] if type(schedule).__name__ == "ReduceLROnPlateau" else [])
    with lib.no_grad():
        net.eval()
        losses.append(loss_of(STEPS).item())  # running statistics count, too
    return losses


@functools.cache
def stored():
    return json.loads(STORED.read_text())


def equal(name, *args):
    ours, kept = curve(tw, *args), stored()[name]
    assert np.isfinite(ours).all() and len(set(ours)) == len(ours)
    theirs = curve(torch, *args) if torch else kept
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    np.testing.assert_allclose(kept, theirs, rtol=1e-4, err_msg="curves.json is out of date")


OPTIMIZERS = {
    "SGD": {"lr": 0.05}, "momentum": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
    "nesterov": {"lr": 0.05, "momentum": 0.9, "nesterov": True}, "Adagrad": {"lr": 0.05}, "Adadelta": {"lr": 1.0},
    "RMSprop": {"lr": 0.003, "momentum": 0.5}, "Adam": {"lr": 0.01}, "AdamW": {"lr": 0.01, "amsgrad": True},
    "Adamax": {"lr": 0.01}, "NAdam": {"lr": 0.01}, "RAdam": {"lr": 0.01}, "Rprop": {"lr": 0.002},
    "ASGD": {"lr": 0.05, "t0": 3}, "LBFGS": {"lr": 0.05, "max_iter": 3},
    "wolfe": {"max_iter": 3, "history_size": 4, "line_search_fn": "strong_wolfe"},
}  # fmt: skip
CLASS = {"momentum": "SGD", "nesterov": "SGD", "wolfe": "LBFGS"}


SCHEDULES = {
    "LambdaLR": {"lr_lambda": lambda t: 0.9**t}, "MultiplicativeLR": {"lr_lambda": lambda t: 0.95},
    "StepLR": {"step_size": 3, "gamma": 0.5}, "MultiStepLR": {"milestones": [2, 6], "gamma": 0.3},
    "ConstantLR": {"factor": 0.5, "total_iters": 4}, "LinearLR": {"total_iters": 6}, "ExponentialLR": {"gamma": 0.8},
    "PolynomialLR": {"total_iters": 12, "power": 2.0}, "CosineAnnealingLR": {"T_max": 6},
    "CosineAnnealingWarmRestarts": {"T_0": 2, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.08, "step_size_up": 3}, "OneCycleLR": {"max_lr": 0.1, "total_steps": 11},
    "ReduceLROnPlateau": {"patience": 0, "factor": 0.5},
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.5, 3), s.ExponentialLR(o, 0.9)]),
    "SequentialLR": lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, total_iters=3), s.CosineAnnealingLR(o, 8)], [4]),
}  # fmt: skip


CASES = {f"{model}-{name}": (model, CLASS.get(name, name), options) for model in MODELS
         for name, options in OPTIMIZERS.items()}
CASES |= {f"{model}-{name}": (model, "SGD", {"lr": 0.05, "momentum": 0.9}, name, how) for model in MODELS
          for name, how in SCHEDULES.items()}


@pytest.mark.parametrize("name", CASES)
def test_curve(name):
    equal(name, *CASES[name])


if __name__ == "__main__":
    rows = [f'"{name}": [{", ".join(f"{v:.7g}" for v in curve(torch, *args))}]' for name, args in CASES.items()]
    STORED.write_text("{\n" + ",\n".join(rows) + "\n}\n")
