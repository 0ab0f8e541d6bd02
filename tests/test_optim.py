"""Optimizers and schedules step for step against PyTorch, and against the update formulas in float64 without it."""

import copy
import math

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn, optim
from tilewright.optim import lr_scheduler

# PyTorch's remark and ours that a schedule went on though its optimizer made no step.
pytestmark = [pytest.mark.filterwarnings("ignore:Detected call of"),
              pytest.mark.filterwarnings("ignore:.*before optimizer.step")]

SHAPES = [(3, 4), (5,), (), (0, 2), (129,)]  # odd sizes and an empty one: tails of every vector width


def start(dtype=np.float32):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def gradients(step, dtype=np.float32):
    rng = np.random.default_rng(1000 + step)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def values(tensor):
    return np.array(tensor.detach().numpy())


OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.5, "maximize": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.0, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "maximize": True}),
    ("Adam", {"lr": 0.01, "betas": (0.0, 0.0)}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.3, "amsgrad": True}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "centered": True, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9}),
    ("RMSprop", {"lr": 0.01, "centered": True}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.1}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1}),
    ("Adamax", {"lr": 0.01}),
    ("Adamax", {"lr": 0.01, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.01}),
    ("NAdam", {"lr": 0.01, "weight_decay": 0.1, "momentum_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.01}),
    ("RAdam", {"lr": 0.01, "betas": (0.5, 0.9), "weight_decay": 0.1}),
    ("Rprop", {"lr": 0.01}),
    ("Rprop", {"lr": 0.1, "etas": (0.4, 1.5), "step_sizes": (0.05, 0.2)}),
    ("ASGD", {"lr": 0.1}),
    ("ASGD", {"lr": 0.1, "lambd": 0.1, "t0": 4, "weight_decay": 0.1}),
]
IDS = [f"{name}-{'-'.join(options)}" for name, options in OPTIMIZERS]


@pytest.mark.parametrize("dtype, rtol, atol", [(np.float32, 1e-5, 1e-6), (np.float64, 1e-12, 1e-13)])
@pytest.mark.parametrize("name, options", OPTIMIZERS, ids=IDS)
def test_steps_as_pytorch(name, options, dtype, rtol, atol):
    torch = pytest.importorskip("torch")
    ours = [nn.Parameter(tw.tensor(value)) for value in start(dtype)]
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in start(dtype)]
    optimizer, reference = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    if name in ("NAdam", "ASGD"):  # PyTorch keeps mu_product, eta and mu in float32
        rtol, atol = max(rtol, 1e-6), max(atol, 1e-7)
    for step in range(12):
        for i, grad in enumerate(gradients(step, dtype)):
            # Parameter 1 joins late, so that momentum buffers and step counts differ within the group.
            late = i == 1 and step < 3
            ours[i].grad = None if late else tw.tensor(grad)
            theirs[i].grad = None if late else torch.tensor(grad)
        if step == 8:
            for opt in (optimizer, reference):
                opt.param_groups[0]["lr"] *= 0.5
        optimizer.step()
        reference.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(values(p), values(q), rtol=rtol, atol=atol)
    for p, q in zip(ours, theirs, strict=True):
        for key, expected in reference.state[q].items():
            found = optimizer.state[p][key]
            if key in ("step", "mu_product", "eta", "mu"):
                assert found == pytest.approx(float(expected), rel=1e-6)
            elif expected is not None:
                np.testing.assert_allclose(values(found), values(expected), rtol=rtol, atol=atol, err_msg=key)


def reference_rule(name, o, p, g, s, t):
    """The formulas of optim/rules.py in float64; g has its sign and decay."""
    lr = o.get("lr", {"Adadelta": 1.0}.get(name))
    if name == "RMSprop":
        alpha, momentum = o.get("alpha", 0.99), o.get("momentum", 0.0)
        s["v"] = alpha * s.get("v", 0.0) + (1 - alpha) * g * g
        s["mean"] = alpha * s.get("mean", 0.0) + (1 - alpha) * g
        d = g / (np.sqrt(s["v"] - (s["mean"] ** 2 if o.get("centered") else 0)) + 1e-8)
        s["b"] = momentum * s.get("b", 0.0) + d
        return p - lr * s["b"]
    if name == "Adagrad":
        s["sum"] = s.get("sum", o.get("initial_accumulator_value", 0.0)) + g * g
        return p - lr / (1 + (t - 1) * o.get("lr_decay", 0.0)) * g / (np.sqrt(s["sum"]) + 1e-10)
    if name == "Adadelta":
        rho, eps = o.get("rho", 0.9), o.get("eps", 1e-6)
        s["v"] = rho * s.get("v", 0.0) + (1 - rho) * g * g
        d = np.sqrt(s.get("u", 0.0) + eps) / np.sqrt(s["v"] + eps) * g
        s["u"] = rho * s.get("u", 0.0) + (1 - rho) * d * d
        return p - lr * d
    if name == "Rprop":
        (low, high), (least, most) = o.get("etas", (0.5, 1.2)), o.get("step_sizes", (1e-6, 50.0))
        turn = g * s.get("g", 0.0)
        factor = np.where(turn > 0, high, np.where(turn < 0, low, 1.0))
        s["size"] = np.clip(s.get("size", lr) * factor, least, most)
        s["g"] = np.where(turn < 0, 0.0, g)
        return p - np.sign(s["g"]) * s["size"]
    if name == "ASGD":
        lambd, eta = o.get("lambd", 1e-4), s.get("eta", lr)
        s["eta"] = lr / (1 + lambd * lr * t) ** 0.75
        return p * (1 - lambd * eta) - eta * g
    b1, b2 = o.get("betas", (0.9, 0.999))
    eps = o.get("eps", 1e-8)
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    if name == "Adamax":
        s["u"] = np.maximum(b2 * s.get("u", 0.0), np.abs(g) + eps)
        return p - lr / (1 - b1**t) * s["m"] / s["u"]
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
    if name == "NAdam":
        mu, after = (b1 * (1 - 0.5 * 0.96 ** (n * o.get("momentum_decay", 4e-3))) for n in (t, t + 1))
        s["product"] = s.get("product", 1.0) * mu
        root = np.sqrt(s["v"] / (1 - b2**t)) + eps
        return p - lr * ((1 - mu) / (1 - s["product"]) * g + after / (1 - s["product"] * after) * s["m"]) / root
    r = 2 / (1 - b2) - 1
    known = r - 2 * t * b2**t / (1 - b2**t)
    if known <= 5:
        return p - lr * s["m"] / (1 - b1**t)
    rect = math.sqrt((known - 4) * (known - 2) * r / ((r - 4) * (r - 2) * known))
    return p - lr * rect * s["m"] / (1 - b1**t) * math.sqrt(1 - b2**t) / (np.sqrt(s["v"]) + eps)


def reference_step(name, o, p, g, state, t):
    """The formulas of the docstrings in float64."""
    g = -g if o.get("maximize") else g
    wd = o.get("weight_decay", 0.01 if name == "AdamW" else 0.0)
    if name not in ("SGD", "Adam", "AdamW"):
        if o.get("decoupled_weight_decay"):
            return reference_rule(name, o, p * (1 - o["lr"] * wd), g, state, t)
        return reference_rule(name, o, p, g + wd * p, state, t)
    if name == "SGD":
        g = g + wd * p
        if o.get("momentum"):
            v = g if t == 1 else o["momentum"] * state["v"] + (1 - o.get("dampening", 0.0)) * g
            state["v"] = v
            g = g + o["momentum"] * v if o.get("nesterov") else v
        return p - o["lr"] * g
    if name == "AdamW":
        p = p - o["lr"] * wd * p
    else:
        g = g + wd * p
    b1, b2 = o.get("betas", (0.9, 0.999))
    state["m"] = b1 * state.get("m", 0.0) + (1 - b1) * g
    state["s"] = b2 * state.get("s", 0.0) + (1 - b2) * g * g
    state["max"] = np.maximum(state.get("max", 0.0), state["s"])
    second = state["max"] if o.get("amsgrad") else state["s"]
    return p - o["lr"] * (state["m"] / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + o.get("eps", 1e-8))


# Half precision rounds the parameter once a step; 2**-11 and 2**-8 are half an ulp, twelve steps add up.
@pytest.mark.parametrize("dtype, tolerance", [("float32", 3e-6), ("float64", 1e-13), ("float16", 12 * 2.0**-11),
                                              ("bfloat16", 12 * 2.0**-8)])
@pytest.mark.parametrize("name, options", OPTIMIZERS, ids=IDS)
def test_steps_follow_the_formula(name, options, dtype, tolerance):
    half = dtype in ("float16", "bfloat16")
    kind = getattr(tw, dtype)
    params = [nn.Parameter(tw.tensor(value).to(kind)) for value in start(np.float64)]
    expected = [values(p.double()) for p in params]
    states = [{} for _ in params]
    optimizer = getattr(optim, name)(params, **options)
    for step in range(1, 13):
        for i, grad in enumerate(gradients(step, np.float64)):
            params[i].grad = tw.tensor(grad).to(kind)
            expected[i] = reference_step(name, options, expected[i], values(params[i].grad.double()), states[i], step)
        optimizer.step()
    for p, e in zip(params, expected, strict=True):
        assert p.dtype == kind
        # With betas of 0 a step is lr * g / |g|, exact in the formula and steep in half precision's stored state.
        np.testing.assert_allclose(values(p.double()), e, rtol=tolerance, atol=tolerance * (4 if half else 1))


def test_noncontiguous_gradients_and_parameters():
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    for name, options in OPTIMIZERS[:2] + OPTIMIZERS[6:7]:
        results = []
        for view in (lambda t: t, lambda t: t.t().contiguous().t()):  # same values, other strides
            param = nn.Parameter(view(tw.tensor(base)))
            optimizer = getattr(optim, name)([param], **options)
            for step in range(3):
                param.grad = tw.tensor(base[0] + step).expand(3, 4)
                optimizer.step()
            results.append(values(param))
        np.testing.assert_array_equal(*results)


def test_a_step_is_seen_by_the_tape():
    param = nn.Parameter(tw.ones(3))
    loss = (param * param).sum()
    param.grad = tw.ones(3)
    optim.SGD([param], lr=0.1).step()
    with pytest.raises(RuntimeError):  # the saved value was overwritten: its gradient would be wrong
        loss.backward()


def test_groups_have_their_own_options():
    first, second = nn.Parameter(tw.ones(1)), nn.Parameter(tw.ones(1))
    optimizer = optim.SGD([{"params": first, "lr": 0.5}], lr=0.1)
    optimizer.add_param_group({"params": [second], "weight_decay": 1.0})
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    first.grad, second.grad = tw.ones(1), tw.ones(1)
    optimizer.step()
    assert first.item() == 0.5 and second.item() == pytest.approx(0.8)
    with pytest.raises(ValueError, match="given once"):
        optimizer.add_param_group({"params": [first]})
    assert len(optimizer.param_groups) == 2


def test_zero_grad_and_closure():
    param = nn.Parameter(tw.tensor([3.0]))
    optimizer = optim.SGD([param], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (param * param).sum()
        loss.backward()
        return loss

    with tw.no_grad():
        assert optimizer.step(closure).item() == 9.0
    assert param.item() == pytest.approx(2.4)
    optimizer.zero_grad(set_to_none=False)
    assert param.grad.item() == 0
    optimizer.zero_grad()
    assert param.grad is None
    optimizer.step()  # no gradient, no step
    assert param.item() == pytest.approx(2.4)


def run(optimizer, params, steps):
    for step in steps:
        for param, grad in zip(params, gradients(step), strict=True):
            param.grad = tw.tensor(grad)
        optimizer.step()


@pytest.mark.parametrize("name, options", [OPTIMIZERS[i] for i in (1, 8, 11, 13, 17, 20, 23, 29)])
def test_resuming_continues_bit_for_bit(name, options):
    params = [nn.Parameter(tw.tensor(value)) for value in start()]
    optimizer = getattr(optim, name)(params, **options)
    run(optimizer, params, range(4))
    saved, at_save = copy.deepcopy(optimizer.state_dict()), [values(p) for p in params]
    run(optimizer, params, range(4, 8))
    resumed = [nn.Parameter(tw.tensor(value)) for value in at_save]
    other = getattr(optim, name)(resumed, lr=99.0)
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == options["lr"] and other.param_groups[0]["params"][0] is resumed[0]
    run(other, resumed, range(4, 8))
    for p, q in zip(params, resumed, strict=True):
        np.testing.assert_array_equal(values(p), values(q))


def test_state_dict_has_pytorchs_format():
    torch = pytest.importorskip("torch")
    params = [nn.Parameter(tw.tensor(value)) for value in start()]
    ours = optim.Adam(params[:2], lr=0.01)
    ours.add_param_group({"params": params[2:], "lr": 0.2})
    theirs_params = [torch.nn.Parameter(torch.tensor(value)) for value in start()]
    theirs = torch.optim.Adam(theirs_params[:2], lr=0.01)
    theirs.add_param_group({"params": theirs_params[2:], "lr": 0.2})
    run(ours, params, range(1))
    for param, grad in zip(theirs_params, gradients(0), strict=True):
        param.grad = torch.tensor(grad)
    theirs.step()
    a, b = ours.state_dict(), theirs.state_dict()
    assert a.keys() == b.keys() and a["state"].keys() == b["state"].keys()
    assert [g["params"] for g in a["param_groups"]] == [g["params"] for g in b["param_groups"]]
    assert {k: v.keys() for k, v in a["state"].items()} == {k: v.keys() for k, v in b["state"].items()}
    assert set(a["param_groups"][0]) <= set(b["param_groups"][0])
    # PyTorch keeps 'step' in a tensor; such a state loads, and goes on from the same count.
    a["state"][0]["step"] = tw.tensor(5.0)
    ours.load_state_dict(a)
    assert ours.state[params[0]]["step"] == 5


SCHEDULES = [
    ("LambdaLR", {"lr_lambda": lambda epoch: 0.9**epoch}),
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 5, 9], "gamma": 0.3}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("LinearLR", {"start_factor": 0.25, "end_factor": 0.75, "total_iters": 6}),
    ("CosineAnnealingLR", {"T_max": 6, "eta_min": 0.01}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 20}),
    ("OneCycleLR", {"max_lr": [1.0, 2.0], "epochs": 5, "steps_per_epoch": 4, "anneal_strategy": "linear",
                    "three_phase": True, "pct_start": 0.4}),
]


def two_groups(lib, name):
    params = [lib.nn.Parameter(lib.ones(2)), lib.nn.Parameter(lib.ones(3))]
    options = {"momentum": 0.9} if name == "SGD" else {}
    return getattr(lib.optim, name)([{"params": params[:1]}, {"params": params[1:], "lr": 0.4}], lr=0.2, **options)


@pytest.mark.parametrize("name, options", SCHEDULES, ids=[f"{i}-{row[0]}" for i, row in enumerate(SCHEDULES)])
def test_schedule_as_pytorch(name, options):
    torch = pytest.importorskip("torch")
    kind = "Adam" if "three_phase" in options else "SGD"
    ours, theirs = two_groups(tw, kind), two_groups(torch, kind)
    schedule = getattr(lr_scheduler, name)(ours, **options)
    reference = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for step in range(19):
        for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert a["lr"] == pytest.approx(float(b["lr"]), rel=1e-12), step
            if name == "OneCycleLR":
                key = "betas" if kind == "Adam" else "momentum"
                assert a[key] == pytest.approx(b[key], rel=1e-12), step
        assert schedule.get_last_lr() == pytest.approx([float(lr) for lr in reference.get_last_lr()], rel=1e-12)
        if step == 10:  # a fresh schedule with the loaded state goes on alike
            state = schedule.state_dict()
            schedule = getattr(lr_scheduler, name)(two_groups(tw, kind), **options)
            schedule.load_state_dict(state)
            schedule.optimizer = ours
        schedule.step()
        reference.step()


@pytest.mark.parametrize("name, options, expected", [
    ("StepLR", {"step_size": 2, "gamma": 0.5}, [0.2, 0.2, 0.1, 0.1, 0.05]),
    ("MultiStepLR", {"milestones": [1, 3], "gamma": 0.5}, [0.2, 0.1, 0.1, 0.05, 0.05]),
    ("ExponentialLR", {"gamma": 0.5}, [0.2, 0.1, 0.05, 0.025, 0.0125]),
    ("LinearLR", {"start_factor": 0.5, "total_iters": 2}, [0.1, 0.15, 0.2, 0.2, 0.2]),
    ("CosineAnnealingLR", {"T_max": 4}, [0.1 * (1 + math.cos(math.pi * t / 4)) for t in range(5)]),
    ("LambdaLR", {"lr_lambda": lambda t: 1 / (1 + t)}, [0.2, 0.1, 0.2 / 3, 0.05, 0.04]),
])
def test_schedule_by_formula_and_by_epoch(name, options, expected):
    optimizer = two_groups(tw, "SGD")
    schedule = getattr(lr_scheduler, name)(optimizer, **options)
    found = []
    for _ in expected:
        found.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-16)
    for epoch in (3, 1, 4):
        schedule.step(epoch)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected[epoch], rel=1e-12, abs=1e-16)


@pytest.mark.parametrize("options", [
    {"patience": 1}, {"patience": 0, "cooldown": 2, "factor": 0.5}, {"mode": "max", "patience": 1},
    {"threshold": 0.5, "threshold_mode": "abs", "patience": 1, "min_lr": [0.05, 0.1]}, {"patience": 0, "eps": 0.3},
])
def test_plateau_as_pytorch(options):
    torch = pytest.importorskip("torch")
    ours, theirs = two_groups(tw, "SGD"), two_groups(torch, "SGD")
    schedule = lr_scheduler.ReduceLROnPlateau(ours, **options)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    for metric in [3.0, 2.0, 2.0, 2.5, 1.9, 1.9, 1.9, 1.9, 0.3, 0.4, 0.5, 0.6, float("nan"), 0.1, 9.0, 9.0]:
        schedule.step(metric)
        reference.step(metric)
        assert [g["lr"] for g in ours.param_groups] == pytest.approx([g["lr"] for g in theirs.param_groups], rel=1e-12)
        assert schedule.num_bad_epochs == reference.num_bad_epochs


def test_schedule_errors():
    optimizer = two_groups(tw, "SGD")
    with pytest.raises(TypeError, match="StepLR: optimizer must be an Optimizer, got int"):
        lr_scheduler.StepLR(3, 1)
    with pytest.raises(ValueError, match="step_size must be >= 1"):
        lr_scheduler.StepLR(optimizer, 0)
    with pytest.raises(ValueError, match="lr_lambda must have one value for each group, got 3 for 2"):
        lr_scheduler.LambdaLR(optimizer, [abs] * 3)
    with pytest.raises(KeyError, match="no 'initial_lr'"):
        lr_scheduler.StepLR(two_groups(tw, "SGD"), 1, last_epoch=4)
    with pytest.raises(ValueError, match="give total_steps, or both"):
        lr_scheduler.OneCycleLR(optimizer, 1.0)
    with pytest.raises(ValueError, match=r"factor must be in \[0, 1\), got 1.5"):
        lr_scheduler.ReduceLROnPlateau(optimizer, factor=1.5)
    schedule = lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=2)
    schedule.step()
    schedule.step()
    with pytest.raises(ValueError, match="at most total_steps = 2"):
        schedule.step()


def test_training_a_small_network_as_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((32, 6)).astype(np.float32), rng.integers(0, 3, 32)

    def build(lib):
        return lib.nn.Sequential(lib.nn.Linear(6, 16), lib.nn.BatchNorm1d(16), lib.nn.Tanh(), lib.nn.Linear(16, 3))

    ours, theirs = build(tw), build(torch)
    theirs.load_state_dict({k: torch.from_numpy(values(v)) for k, v in ours.state_dict().items()})
    curves = []
    for lib, net in ((tw, ours), (torch, theirs)):
        optimizer = lib.optim.AdamW(net.parameters(), lr=0.02)
        schedule = lib.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
        criterion, curve = lib.nn.CrossEntropyLoss(), []
        for _ in range(30):
            optimizer.zero_grad()
            loss = criterion(net(lib.from_numpy(x)), lib.from_numpy(y))
            loss.backward()
            lib.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[0][-1] < 0.6 * curves[0][0]
    # Thirty steps of feedback amplify the last bits of both engines.
    np.testing.assert_allclose(*curves, rtol=1e-3)
