"""Schedules over fifty steps, states that go from PyTorch's optimizers to ours and back, L-BFGS, hooks and averages."""

import copy
import warnings

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn, optim
from tilewright.optim import lr_scheduler, swa_utils

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # on work this small its threads wait for each other


def two_groups(lib, kind="SGD", lr=0.2):
    params = [lib.nn.Parameter(lib.ones(2)), lib.nn.Parameter(lib.ones(3))]
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(lib.optim, kind)([{"params": params[:1]}, {"params": params[1:], "lr": 2 * lr}], lr=lr,
                                         **options)
    for p in params:
        p.grad = lib.zeros(p.shape)
    optimizer.step()
    return optimizer


class Halving:
    def __init__(self):
        self.base = 0.5

    def __call__(self, epoch):
        return self.base ** (epoch // 7)


def chained(lib, optimizer, **_):
    s = lib.optim.lr_scheduler
    return s.ChainedScheduler([s.ConstantLR(optimizer, 0.1, 4), s.ExponentialLR(optimizer, 0.9)])


def sequential(lib, optimizer, **_):
    s = lib.optim.lr_scheduler
    return s.SequentialLR(optimizer, [s.LinearLR(optimizer, 0.1, total_iters=5), s.CosineAnnealingLR(optimizer, 20),
                                      s.StepLR(optimizer, 4)], [6, 30])


def nested(lib, optimizer, **_):
    s = lib.optim.lr_scheduler
    restarts = s.CosineAnnealingWarmRestarts(optimizer, 5)
    inner = s.SequentialLR(optimizer, [s.ConstantLR(optimizer, 0.1, 3), restarts], [4])
    return s.SequentialLR(optimizer, [inner, s.PolynomialLR(optimizer, 9, 2.0)], [25])


def named(name, **options):
    def make(lib, optimizer, **more):
        return getattr(lib.optim.lr_scheduler, name)(optimizer, **options, **more)

    return pytest.param(make, id=f"{name}-{'-'.join(options)}")


def own(epoch):
    return 1.0 / (1 + epoch)


SCHEDULES = [
    named("LambdaLR", lr_lambda=own), named("LambdaLR", lr_lambda=[own, Halving()]),
    named("MultiplicativeLR", lr_lambda=lambda epoch: 0.95), named("StepLR", step_size=7),
    named("MultiStepLR", milestones=[3, 3, 20, 40], gamma=0.3), named("ConstantLR"),
    named("ConstantLR", factor=0.2, total_iters=11), named("LinearLR"),
    named("LinearLR", start_factor=0.2, end_factor=0.6, total_iters=30), named("ExponentialLR", gamma=0.93),
    named("PolynomialLR"), named("PolynomialLR", total_iters=33, power=1.7), named("CosineAnnealingLR", T_max=12),
    named("CosineAnnealingLR", T_max=60, eta_min=0.01), named("CosineAnnealingWarmRestarts", T_0=7),
    named("CosineAnnealingWarmRestarts", T_0=4, T_mult=2, eta_min=0.02),
    named("CyclicLR", base_lr=0.1, max_lr=0.5, step_size_up=6),
    named("CyclicLR", base_lr=[0.1, 0.2], max_lr=[0.5, 0.7], step_size_up=4, step_size_down=9, mode="triangular2"),
    named("CyclicLR", base_lr=0.1, max_lr=0.5, step_size_up=5, mode="exp_range", gamma=0.97, base_momentum=0.7),
    named("CyclicLR", base_lr=0.1, max_lr=0.5, step_size_up=5, scale_fn=own, scale_mode="iterations"),
    named("OneCycleLR", max_lr=1.0, total_steps=60),
    named("OneCycleLR", max_lr=[1.0, 2.0], epochs=6, steps_per_epoch=10, anneal_strategy="linear", three_phase=True,
          base_momentum=[0.8, 0.7]),
]  # fmt: skip
TOGETHER = [pytest.param(f, id=f.__name__) for f in (chained, sequential, nested)]


def same_rates(ours, theirs, schedule, reference, step):
    for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert float(a["lr"]) == pytest.approx(float(b["lr"]), rel=1e-10, abs=1e-15), step
        for key in ("momentum", "betas"):
            if key in a:
                assert a[key] == pytest.approx(b[key], rel=1e-12), step
    assert schedule.get_last_lr() == pytest.approx([float(lr) for lr in reference.get_last_lr()], rel=1e-10, abs=1e-15)


def fifty(ours, theirs, schedule, reference, fresh=None, steps=50):
    for step in range(steps):
        same_rates(ours, theirs, schedule, reference, step)
        if step == 20 and fresh is not None:  # a fresh schedule goes on from the saved state, or from PyTorch's
            state = copy.deepcopy(schedule.state_dict())
            schedule = fresh()
            schedule.load_state_dict(state)
            schedule.optimizer = ours
            for inner in getattr(schedule, "_schedulers", ()):
                inner.optimizer = ours
        ours.step(), theirs.step(), schedule.step(), reference.step()
    same_rates(ours, theirs, schedule, reference, steps)


@pytest.mark.filterwarnings("ignore:Detected call of")  # PyTorch's, of nested schedules
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("make", SCHEDULES + TOGETHER)
def test_fifty_steps(make, kind):
    ours, theirs = two_groups(tw, kind), two_groups(torch, kind)
    fresh = (lambda: make(tw, two_groups(tw, kind))) if make is not nested else None
    fifty(ours, theirs, make(tw, ours), make(torch, theirs), fresh)


@pytest.mark.parametrize("make", SCHEDULES)
def test_resumed_by_last_epoch(make):
    ours, theirs = two_groups(tw), two_groups(torch)
    first, second = make(tw, ours), make(torch, theirs)
    for _ in range(10):
        ours.step(), theirs.step(), first.step(), second.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fifty(ours, theirs, make(tw, ours, last_epoch=9), make(torch, theirs, last_epoch=9), steps=30)


@pytest.mark.parametrize("make", SCHEDULES)
def test_pytorchs_schedule_state_loads(make):
    ours, theirs = two_groups(tw), two_groups(torch)
    reference = make(torch, theirs)
    schedule = make(tw, ours)
    for _ in range(12):
        theirs.step(), reference.step()
    ours.load_state_dict(theirs.state_dict())
    schedule.load_state_dict(reference.state_dict())
    fifty(ours, theirs, schedule, reference, steps=20)


@pytest.mark.parametrize("make", [p for p in SCHEDULES if "Cycle" not in p.id and "Multiplicative" not in p.id])
def test_step_to_an_epoch(make):
    ours, theirs = two_groups(tw), two_groups(torch)
    schedule, reference = make(tw, ours), make(torch, theirs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that this form is old
        for epoch in (3, 1, 17, 5, 0, 30):
            ours.step(), theirs.step(), schedule.step(epoch), reference.step(epoch)
            same_rates(ours, theirs, schedule, reference, epoch)


def test_rates_in_tensors():
    p, q = nn.Parameter(tw.ones(2)), torch.nn.Parameter(torch.ones(2))
    ours, theirs = optim.Adam([p], lr=tw.tensor(0.1)), torch.optim.Adam([q], lr=torch.tensor(0.1), foreach=False)
    schedule, reference = lr_scheduler.StepLR(ours, 1, 0.5), torch.optim.lr_scheduler.StepLR(theirs, 1, 0.5)
    for _ in range(3):
        p.grad, q.grad = tw.ones(2), torch.ones(2)
        ours.step(), theirs.step(), schedule.step(), reference.step()
    assert isinstance(ours.param_groups[0]["lr"], tw.Tensor) and schedule.get_last_lr() == pytest.approx([0.0125])
    np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-6)


def test_schedules_warn_and_refuse():
    p = nn.Parameter(tw.ones(1))
    optimizer = optim.SGD([p], lr=0.1)
    with pytest.warns(UserWarning, match="StepLR: verbose prints nothing"):
        schedule = lr_scheduler.StepLR(optimizer, 2, verbose=True)
    with pytest.warns(UserWarning, match="StepLR: lr_scheduler.step.* before optimizer.step"):
        schedule.step()
    with pytest.warns(UserWarning, match="ReduceLROnPlateau: verbose"):
        assert isinstance(lr_scheduler.ReduceLROnPlateau(optimizer, verbose=True), lr_scheduler.LRScheduler)
    with pytest.raises(ValueError, match="CyclicLR: mode must be"):
        lr_scheduler.CyclicLR(optimizer, 0.1, 0.2, mode="saw")
    with pytest.raises(ValueError, match="cycle_momentum needs"):
        lr_scheduler.CyclicLR(optim.Adagrad([p]), 0.1, 0.2)
    with pytest.raises(ValueError, match="T_0 must be an int >= 1, got 0"):
        lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 0)
    with pytest.raises(ValueError, match="one milestone fewer than schedulers, got 2 for 1"):
        lr_scheduler.SequentialLR(optimizer, [schedule], [1, 2])
    with pytest.raises(ValueError, match="of one optimizer, got another for scheduler 1"):
        lr_scheduler.ChainedScheduler([schedule, lr_scheduler.StepLR(optim.SGD([p]), 1)])


# --- states between PyTorch's optimizers and ours --------------------------------------------------------------------
OPTIMIZERS = [
    ("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}), ("AdamW", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}), ("Adagrad", {"lr": 0.1}),
    ("Adadelta", {"lr": 0.5}), ("Adamax", {"lr": 0.01}), ("NAdam", {"lr": 0.01}), ("RAdam", {"lr": 0.01}),
    ("Rprop", {"lr": 0.01}), ("ASGD", {"lr": 0.1, "t0": 2}), ("LBFGS", {"lr": 0.05, "max_iter": 4}),
    ("LBFGS", {"max_iter": 3, "history_size": 2, "line_search_fn": "strong_wolfe"}),
]  # fmt: skip
IDS = [f"{i}-{name}" for i, (name, _) in enumerate(OPTIMIZERS)]
SHAPES = [(3, 4), (), (5,)]


def start(lib):
    rng = np.random.default_rng(0)
    return [lib.nn.Parameter(lib.tensor(rng.standard_normal(shape).astype(np.float32))) for shape in SHAPES]


def train(lib, optimizer, params, steps):
    """Losses that are no parabola, so that L-BFGS has something to do; a new one each step."""
    losses = []
    for step in steps:
        rng = np.random.default_rng(step)
        goals = [lib.tensor(rng.standard_normal(shape).astype(np.float32)) for shape in SHAPES]

        def closure(goals=goals):
            optimizer.zero_grad()
            loss = sum((((p - g) ** 2 + 1).sqrt() * (i + 1)).sum() for i, (p, g) in enumerate(zip(params, goals,
                                                                                              strict=True)))
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
    return losses


def as_torch(value):
    if isinstance(value, tw.Tensor):
        return torch.tensor(value.detach().numpy())
    if isinstance(value, dict):
        return {k: as_torch(v) for k, v in value.items()}
    return [as_torch(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name, options", OPTIMIZERS, ids=IDS)
def test_state_from_pytorch_and_back(name, options):
    theirs = start(torch)
    reference = getattr(torch.optim, name)(theirs, **options)
    train(torch, reference, theirs, range(4))
    ours = [nn.Parameter(tw.tensor(p.detach().numpy())) for p in theirs]
    optimizer = getattr(optim, name)(ours, lr=0.77)
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    assert optimizer.param_groups[0]["lr"] == options.get("lr", 1)
    np.testing.assert_allclose(train(tw, optimizer, ours, range(4, 10)), train(torch, reference, theirs, range(4, 10)),
                               rtol=2e-5)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-4, atol=1e-5)
    # and back: PyTorch goes on from our state
    again = [torch.nn.Parameter(torch.tensor(p.detach().numpy())) for p in ours]
    resumed = getattr(torch.optim, name)(again, lr=0.77)
    state = optimizer.state_dict()
    if name != "LBFGS":
        assert state["param_groups"][0].keys() == reference.state_dict()["param_groups"][0].keys()
    resumed.load_state_dict(as_torch(state))
    np.testing.assert_allclose(train(tw, optimizer, ours, range(10, 14)), train(torch, resumed, again, range(10, 14)),
                               rtol=2e-5)


def test_state_of_a_run_with_other_flags():
    p, q = nn.Parameter(tw.ones(3)), torch.nn.Parameter(torch.ones(3))
    reference = torch.optim.Adam([q], foreach=True)
    q.grad = torch.ones(3)
    reference.step()
    optimizer = optim.AdamW([p])
    optimizer.load_state_dict(reference.state_dict())
    assert optimizer.param_groups[0]["decoupled_weight_decay"] and optimizer.param_groups[0]["foreach"] is None
    state = reference.state_dict()
    state["state"][0]["exp_avg"] = torch.ones(2)
    with pytest.raises(ValueError, match="exp_avg of parameter 0"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("name", sorted({name for name, _ in OPTIMIZERS} - {"LBFGS"}))
def test_flags(name):
    p = nn.Parameter(tw.ones(2))
    make = getattr(optim, name)
    assert make([p], foreach=True).param_groups[0]["foreach"] is True
    with pytest.raises(NotImplementedError, match=f"{name}: differentiable=True is not offered"):
        make([p], differentiable=True)
    if name not in ("SGD", "Adagrad"):
        with pytest.raises(NotImplementedError, match=f"{name}: capturable=True is not offered"):
            make([p], capturable=True)
    if name in ("SGD", "Adam", "AdamW", "Adagrad"):
        with pytest.raises(ValueError, match=f"{name}: foreach and fused"):
            make([p], foreach=True, fused=True)


def test_named_parameters():
    net = nn.Linear(2, 1)
    optimizer = optim.SGD(net.named_parameters(), lr=0.1)
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    with pytest.raises(ValueError, match="either all groups or none"):
        optimizer.add_param_group({"params": [nn.Parameter(tw.ones(1))]})
    optimizer.add_param_group({"params": [("more", nn.Parameter(tw.ones(1)))], "lr": 0.5})
    assert optimizer.param_groups[1]["param_names"] == ["more"] and optimizer.param_groups[1]["lr"] == 0.5


# --- L-BFGS ----------------------------------------------------------------------------------------------------------
def rosenbrock(lib, name, **options):
    p = lib.nn.Parameter(lib.tensor([-1.5, 2.0, 0.5], dtype=lib.float64))
    optimizer = getattr(lib.optim, name)([p], **options)
    path = []
    for _ in range(6):
        def closure():
            optimizer.zero_grad()
            loss = (100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2).sum()
            loss.backward()
            return loss

        path.append([optimizer.step(closure).item(), *p.tolist()])
    return np.array(path), optimizer.state[p]


@pytest.mark.parametrize("options", [
    {"lr": 1e-3}, {"lr": 0.01, "history_size": 3}, {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "max_iter": 4, "history_size": 2}, {"line_search_fn": "strong_wolfe",
                                                                          "max_eval": 7, "lr": 0.1},
    {"line_search_fn": "strong_wolfe", "tolerance_grad": 1.0, "tolerance_change": 1e-3},
])
def test_lbfgs_as_pytorch(options):
    (ours, mine), (theirs, its) = rosenbrock(tw, "LBFGS", **options), rosenbrock(torch, "LBFGS", **options)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-8)
    assert mine["n_iter"] == its["n_iter"] and mine["func_evals"] == its["func_evals"]
    if options.get("line_search_fn") and len(options) == 1:
        np.testing.assert_allclose(ours[-1][1:], 1.0, atol=0.1)


def test_lbfgs_refuses():
    p, q = nn.Parameter(tw.ones(1)), nn.Parameter(tw.ones(1))
    with pytest.raises(ValueError, match="one parameter group, got 2"):
        optim.LBFGS([{"params": [p]}, {"params": [q]}])
    with pytest.raises(ValueError, match="line_search_fn must be None or 'strong_wolfe', got 'armijo'"):
        optim.LBFGS([p], line_search_fn="armijo")
    with pytest.raises(TypeError, match="step needs a closure"):
        optim.LBFGS([p]).step()


# --- hooks -----------------------------------------------------------------------------------------------------------
def test_optimizer_hooks():
    p = nn.Parameter(tw.ones(1))
    optimizer, seen = optim.SGD([p], lr=0.1), []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("before"))
    handle = optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", p.item())))
    p.grad = tw.ones(1)
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert seen == ["before", ("after", pytest.approx(0.9)), "before"]
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "extra": 3})
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("saving"))
    state = optimizer.state_dict()
    assert state["extra"] == 3 and seen[-1] == "saving"

    def halve(o, state):
        state["param_groups"] = [{**g, "lr": g["lr"] / 2} for g in state["param_groups"]]

    optimizer.register_load_state_dict_pre_hook(halve)
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.05 and state["param_groups"][0]["lr"] == 0.1 and seen[-1] == "loaded"


def test_hooks_of_a_users_optimizer():
    class Half(optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad.mul_(0.5)
            return super().step(closure)

    p, count = nn.Parameter(tw.ones(1)), []
    optimizer = Half([p], lr=1.0)
    optimizer.register_step_post_hook(lambda *_: count.append(1))
    p.grad = tw.ones(1)
    optimizer.step()
    assert p.item() == 0.5 and count == [1]


def test_state_of_a_users_optimizer_has_any_shape():
    class Rows(optim.Optimizer):
        def step(self):
            for p in self.param_groups[0]["params"]:
                self.state[p]["rows"] = p.grad.sum(1)

    p, q = nn.Parameter(tw.ones(2, 3)), nn.Parameter(tw.ones(2, 3))
    p.grad = tw.ones(2, 3)
    first, second = Rows([p], {}), Rows([q], {})
    first.step()
    second.load_state_dict(first.state_dict())
    assert second.state[q]["rows"].tolist() == [3.0, 3.0]


# --- averages --------------------------------------------------------------------------------------------------------
def build(lib):
    net = lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.BatchNorm1d(4), lib.nn.ReLU(), lib.nn.Linear(4, 2))
    rng = np.random.default_rng(2)
    net.load_state_dict({k: lib.tensor(rng.uniform(0.1, 1, tuple(v.shape)).astype(np.float32)) if v.ndim else v
                         for k, v in net.state_dict().items()})
    return net


# PyTorch's own multi_avg_fn of means refuses the integers among the buffers.
@pytest.mark.parametrize("kind, use_buffers", [("mean", False), ("mean", True), ("ema", False), ("ema", True),
                                               ("multi", False), ("own", False), ("own", True)])
def test_averaged_model(kind, use_buffers):
    found = []
    rng = np.random.default_rng(4)
    batches = [rng.standard_normal((8, 3)).astype(np.float32) for _ in range(5)]
    for lib in (tw, torch):
        swa, net = lib.optim.swa_utils, build(lib)
        given = {"mean": {}, "ema": {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.9)},
                 "multi": {"multi_avg_fn": swa.get_swa_multi_avg_fn()},
                 "own": {"avg_fn": lambda a, p, n: 0.3 * a + 0.7 * p}}[kind]
        if kind == "own" and use_buffers:
            given = {"avg_fn": swa.get_ema_avg_fn(0.9)}
        average = swa.AveragedModel(net, use_buffers=use_buffers, **given)
        optimizer = lib.optim.SGD(net.parameters(), lr=0.1)
        schedule = swa.SWALR(optimizer, 0.05, anneal_epochs=3)
        for batch in batches:
            optimizer.zero_grad()
            (net(lib.tensor(batch)) ** 2).mean().backward()
            optimizer.step()
            average.update_parameters(net)
            schedule.step()
        if not use_buffers:
            swa.update_bn([[lib.tensor(b)] for b in batches], average)
        assert average.training
        found.append(({k: v.detach().numpy() for k, v in average.state_dict().items()},
                      average(lib.tensor(batches[0])).detach().numpy()))
    (ours, y), (theirs, z) = found
    assert ours.keys() == theirs.keys() and ours["n_averaged"] == theirs["n_averaged"] == 5
    for key in ours:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-6, err_msg=key)
    np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"anneal_epochs": 10}, {"anneal_epochs": 7, "anneal_strategy": "linear"},
                                     {"anneal_epochs": 0}])
def test_swalr(options):
    ours, theirs = two_groups(tw), two_groups(torch)
    fifty(ours, theirs, swa_utils.SWALR(ours, [0.01, 0.02], **options),
          torch.optim.swa_utils.SWALR(theirs, [0.01, 0.02], **options), steps=20)


# --- clipping --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("norm", [2.0, 1.0, 3.0, float("inf")])
def test_clipping(norm):
    rng = np.random.default_rng(8)
    grads = [rng.standard_normal(shape).astype(np.float32) * 3 for shape in SHAPES]
    found = []
    for lib in (tw, torch):
        params = start(lib)
        for p, g in zip(params, grads, strict=True):
            p.grad = lib.tensor(g)
        total = lib.nn.utils.clip_grad_norm_(params, 1.5, norm_type=norm)
        lib.nn.utils.clip_grad_value_(params, 0.25)
        found.append([total.item(), *(p.grad.numpy() for p in params)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
