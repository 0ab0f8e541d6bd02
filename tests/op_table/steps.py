"""Rows whose results no reference gives element by element: random numbers (statistics) and optimizer steps."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import dtype_of, quantize, spacing, to_np
from op_table.row import EXACT, Bad, Row
from tilewright import _engine
from tilewright.autograd import wrap

N = 200_000  # samples of a distribution; five standard deviations bound every statistic below


def checked_row(name, slots, properties, bad=(), ops=()):
    """A row that consists of properties only."""
    return Row(name, name, None, None, (), EXACT, grad=False, slots=slots, properties=properties, bad=bad, ops=ops,
               layouts=False)  # fmt: skip


def draw(fn, *args, seed=7, **kwargs):
    tw.manual_seed(seed)
    return to_np(fn(*args, **kwargs))


def seeded(fn, *args, **kwargs):
    """One seed gives one sequence, another seed another, and two calls in a row differ."""
    a, b = draw(fn, *args, **kwargs), draw(fn, *args, **kwargs)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, draw(fn, *args, seed=8, **kwargs))
    tw.manual_seed(7)
    first, second = to_np(fn(*args, **kwargs)), to_np(fn(*args, **kwargs))
    assert np.array_equal(first, a) and not np.array_equal(first, second)


def threaded(fn, *args, **kwargs):
    before = tw.get_num_threads()
    try:
        draws = []
        for n in (1, 2, 5):
            tw.set_num_threads(n)
            draws.append(draw(fn, *args, **kwargs).tobytes())
    finally:
        tw.set_num_threads(before)
    assert draws[0] == draws[1] == draws[2]


def uniform_moments():
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        x = draw(tw.rand, N, dtype=dtype_of(dtype)).astype(np.float64)
        assert x.min() >= 0 and x.max() < 1, "uniform numbers lie in [0, 1)"
        assert abs(x.mean() - 0.5) < 5 * np.sqrt(1 / 12 / N) + spacing(0.5, dtype)
        assert abs(x.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / N) + spacing(0.5, dtype)
        share = np.histogram(x, 16, (0, 1))[0] / N
        assert np.abs(share - 1 / 16).max() < 5 * np.sqrt(15 / 256 / N) + spacing(0.5, dtype)
        assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 5 / np.sqrt(N)


def uniform_range():
    tw.manual_seed(3)
    x = to_np(tw.empty(N).uniform_(-2, 5)).astype(np.float64)
    assert x.min() >= -2 and x.max() < 5 and abs(x.mean() - 1.5) < 5 * 7 / np.sqrt(12 * N)


def normal_moments():
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        x = draw(tw.randn, N, dtype=dtype_of(dtype)).astype(np.float64)
        slack = spacing(1, dtype)
        assert np.isfinite(x).all()
        assert abs(x.mean()) < 5 / np.sqrt(N)
        assert abs(x.var() - 1) < 5 * np.sqrt(2 / N) + slack
        assert abs((x**4).mean() - 3) < 5 * np.sqrt(96 / N) + 3 * slack, "the fourth moment shows the tails"
        for edge, mass in ((-1.0, 0.158655), (0.0, 0.5), (2.0, 0.977250)):
            assert abs((x < edge).mean() - mass) < 5 * np.sqrt(mass * (1 - mass) / N) + slack
        assert abs(np.corrcoef(x[0::2], x[1::2])[0, 1]) < 5 / np.sqrt(N / 2), "the two numbers of a pair"


def normal_scaled():
    tw.manual_seed(3)
    x = to_np(tw.empty(N).normal_(3, 0.5)).astype(np.float64)
    assert abs(x.mean() - 3) < 5 * 0.5 / np.sqrt(N) and abs(x.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * N)


def bernoulli_share():
    for p in (0.0, 0.1, 0.5, 1.0):
        x = draw(lambda p=p: tw.bernoulli(tw.full((N,), p)))
        assert set(np.unique(x)) <= {0.0, 1.0}
        assert abs(x.mean() - p) <= 5 * np.sqrt(p * (1 - p) / N)


def bernoulli_fills():
    for dtype in ("float32", "bfloat16", "int64", "bool"):
        tw.manual_seed(2)
        x = to_np(tw.empty(N, dtype=dtype_of(dtype)).bernoulli_(0.3)).astype(np.float64)
        assert set(np.unique(x)) == {0.0, 1.0} and abs(x.mean() - 0.3) < 5 * np.sqrt(0.21 / N)


def draws_stay_in_their_window():
    """Filling a strided view writes that view only, with the numbers that a contiguous tensor gets."""
    for fill in (lambda t: t.uniform_(), lambda t: t.normal_(), lambda t: t.bernoulli_(0.5)):
        base = tw.full((9, 300), 77.0)
        tw.manual_seed(1)
        fill(base[2:7, 1:250:2])
        tw.manual_seed(1)
        whole = fill(tw.empty(5, 125))
        assert np.array_equal(to_np(base[2:7, 1:250:2]), to_np(whole))
        base[2:7, 1:250:2] = 77.0
        assert bool((base == 77.0).all())


def randint_shares():
    for low, high in ((0, 7), (-3, 4), (5, 6), (0, 2**40)):
        x = draw(tw.randint, low, high, (N,))
        assert x.dtype == np.int64 and x.min() >= low and x.max() < high
        if high - low < 10:
            share = np.bincount(x - low, minlength=high - low) / N
            assert np.abs(share - 1 / (high - low)).max() <= 5 * np.sqrt(0.25 / N)
        else:
            assert abs(x.mean() / 2**40 - 0.5) < 5 * np.sqrt(1 / 12 / N)
            assert abs((x & 1).mean() - 0.5) < 5 * np.sqrt(0.25 / N)


def generators():
    """A generator of its own has its own stream, and a stored state goes on where it was."""
    g = tw.Generator()
    g.manual_seed(7)
    assert np.array_equal(to_np(tw.rand(100, generator=g)), draw(tw.rand, 100)) and g.initial_seed() == 7
    state = tw.get_rng_state()
    first = to_np(tw.randn(50))
    assert not np.array_equal(first, to_np(tw.randn(50)))
    tw.set_rng_state(state)
    assert np.array_equal(first, to_np(tw.randn(50)))
    assert tw.initial_seed() == 7
    tw.seed()
    assert tw.initial_seed() != 7


def of_the_inputs_kind():
    x = tw.zeros(40, 500, dtype=tw.float64)
    u, n, i = draw(tw.rand_like, x), draw(tw.randn_like, x), draw(tw.randint_like, x, 3, 9)
    assert u.dtype == n.dtype == i.dtype == np.float64 and u.shape == n.shape == i.shape == (40, 500)
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.011 and abs(n.std() - 1) < 0.026
    assert set(np.unique(i)) == {3, 4, 5, 6, 7, 8}
    x = draw(tw.normal, tw.full((N,), 3.0), tw.full((N,), 2.0))
    assert abs(x.mean() - 3) < 5 * 2 / np.sqrt(N) and abs(x.std() - 2) < 5 * 2 / np.sqrt(2 * N)


def permutation_is_one():
    for n in (0, 1, 2, 129, 10_000):
        assert np.array_equal(np.sort(draw(tw.randperm, n)), np.arange(n))
    places = np.array([draw(tw.randperm, 5, seed=s) for s in range(2000)])
    share = np.array([[(places[:, i] == v).mean() for v in range(5)] for i in range(5)])
    assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.16 / 2000), "every value comes to every place alike"


def seeds_of_uniform():
    seeded(tw.rand, 1001)
    threaded(tw.rand, 300_001)


def seeds_of_normal():
    seeded(tw.randn, 1001)
    threaded(tw.randn, 300_001)


def seeds_of_randint():
    seeded(tw.randint, 0, 1000, (1001,))
    threaded(tw.randint, 0, 1000, (300_001,))


def seeds_of_bernoulli():
    seeded(lambda: tw.bernoulli(tw.full((1001,), 0.5)))
    threaded(lambda: tw.bernoulli(tw.full((300_001,), 0.5)))


def seeds_of_permutation():
    seeded(tw.randperm, 1001)
    threaded(tw.randperm, 100_001)


def a_prefix_is_shared():
    """Element i depends on the seed and i alone, so a shorter draw is the start of a longer one."""
    assert np.array_equal(draw(tw.rand, 1000), draw(tw.rand, 100_000)[:1000])


def run_optimizer(make, step, options, dtype, steps=4, large=False):
    """Several steps over parameters of awkward sizes against the NumPy rule; nothing beside a parameter is written."""
    rng = np.random.default_rng(17)
    shapes = ((), (1,), (3,), (127,), (129,), (2, 3, 33), (0,), *(((100_003,),) if large else ()))
    bases, params, wide, states = [], [], [], []
    for shape in shapes:
        size = int(np.prod(shape))
        values = quantize(rng.normal(0, 1, size), dtype)
        base = tw.full((size + 8,), 77.0, dtype=dtype_of(dtype))
        base[4 : 4 + size] = tw.tensor(values).to(dtype_of(dtype))
        bases.append(base)
        params.append(base[4 : 4 + size].view(shape).requires_grad_())
        wide.append(values.reshape(shape).astype(np.float64))
        states.append({})
    optimizer = make(params, **options)
    for _ in range(steps):
        for i, p in enumerate(params):
            grad = quantize(rng.normal(0, 1, tuple(p.shape)), dtype)
            p.grad = tw.tensor(grad).to(dtype_of(dtype))
            wide[i] = step(wide[i], grad.astype(np.float64), states[i])
        optimizer.step()
    for base, p, want in zip(bases, params, wide, strict=True):
        got = to_np(p).astype(np.float64)
        size = np.maximum(np.abs(want), 1)
        worst = (np.abs(got - want) / spacing(size, dtype)).max(initial=0)
        # Each step rounds the parameter once and its update a few times; halves keep their state in half too.
        assert worst <= (4 if dtype == "float32" else 8) * steps, f"{worst:.1f} ulp off after {steps} steps: {options}"
        edges = to_np(base)
        assert (edges[:4] == 77).all() and (edges[-4:] == 77).all(), "memory beside a parameter was written"


def sgd_steps():
    for options in ({}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "dampening": 0.3},
                    {"weight_decay": 0.1}, {"momentum": 0.8, "weight_decay": 0.1, "nesterov": True},
                    {"maximize": True}):  # fmt: skip
        for dtype in ("float32", "float64", "bfloat16"):
            run_optimizer(lambda p, **o: tw.optim.SGD(p, lr=0.1, **o),
                          lambda p, g, s, o=options: R.sgd_step(p, g, s, 0.1, **o), options, dtype)  # fmt: skip


def adam_steps():
    for options in ({}, {"weight_decay": 0.1}, {"betas": (0.8, 0.95), "eps": 1e-6}, {"amsgrad": True},
                    {"maximize": True}):  # fmt: skip
        for dtype in ("float32", "float64"):
            run_optimizer(lambda p, **o: tw.optim.Adam(p, lr=0.01, **o),
                          lambda p, g, s, o=options: R.adam_step(p, g, s, 0.01, **o), options, dtype)  # fmt: skip


def adamw_steps():
    for options in ({}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "amsgrad": True}):
        for dtype in ("float32", "float64"):
            full = {"weight_decay": 0.01, **options}
            run_optimizer(lambda p, **o: tw.optim.AdamW(p, lr=0.01, **o),
                          lambda p, g, s, o=full: R.adam_step(p, g, s, 0.01, decoupled=True, **o),
                          options, dtype)  # fmt: skip


def steps_over_large_parameters():
    run_optimizer(lambda p: tw.optim.SGD(p, lr=0.1, momentum=0.9),
                  lambda p, g, s: R.sgd_step(p, g, s, 0.1, 0.9), {}, "float32", 2, True)  # fmt: skip
    run_optimizer(lambda p: tw.optim.Adam(p, lr=0.1), lambda p, g, s: R.adam_step(p, g, s, 0.1), {}, "float32", 2, True)


def other_rules():
    """One rule with each number of states, over awkward sizes; test_optim.py has all of them step for step."""
    def rmsprop(p, g, s):
        s["v"] = 0.9 * s.get("v", 0.0) + 0.1 * g * g
        return p - 0.05 * g / (np.sqrt(s["v"]) + 0.01)

    def adagrad(p, g, s):
        s["sum"] = s.get("sum", 0.1) + g * g
        return p - 0.1 * g / (np.sqrt(s["sum"]) + 1e-10)

    def adadelta(p, g, s):
        s["v"] = 0.9 * s.get("v", 0.0) + 0.1 * g * g
        d = np.sqrt(s.get("u", 0.0) + 1e-2) / np.sqrt(s["v"] + 1e-2) * g
        s["u"] = 0.9 * s.get("u", 0.0) + 0.1 * d * d
        return p - d

    for dtype in ("float32", "float64"):
        for make, step, options in ((tw.optim.RMSprop, rmsprop, {"lr": 0.05, "alpha": 0.9, "eps": 0.01}),
                                    (tw.optim.Adagrad, adagrad, {"lr": 0.1, "initial_accumulator_value": 0.1}),
                                    (tw.optim.Adadelta, adadelta, {"eps": 1e-2})):
            run_optimizer(make, step, options, dtype)


def clipping_one_list():
    """grad_norm and grad_scale over a list of awkward sizes, of every dtype, against NumPy in float64."""
    rng = np.random.default_rng(5)
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        values = [quantize(rng.normal(0, 1, n), dtype) for n in (0, 1, 127, 1025, 70_001)]
        whole = np.concatenate(values).astype(np.float64)
        for p in (1.0, 2.0, 3.5, np.inf):
            params = [tw.zeros(len(v), dtype=dtype_of(dtype)).requires_grad_() for v in values]
            for param, v in zip(params, values, strict=True):
                param.grad = tw.tensor(v).to(dtype_of(dtype))
            norm = wrap(_engine.grad_norm([param.grad.array for param in params], p))
            want = np.abs(whole).max() if p == np.inf else (np.abs(whole) ** p).sum() ** (1 / p)
            slack = (1e-15 if dtype == "float64" else 4e-7) * want
            assert abs(norm.item() - want) <= slack, (dtype, p, norm.item(), want)
            total = tw.nn.utils.clip_grad_norm_(params, 0.5, p)
            assert abs(total.item() - want) <= spacing(np.asarray(want), dtype) + slack
            for param, v in zip(params, values, strict=True):
                scaled = v * (0.5 / (want + 1e-6))
                assert (np.abs(to_np(param.grad) - scaled) <= 2 * spacing(scaled, dtype)).all(), (dtype, p)


def scaling_finds_what_is_not_finite():
    for bad in (np.nan, np.inf, 3e38):
        grads = [tw.ones(3), tw.tensor([1.0] * 900 + [bad] + [2.0] * 99)]
        found = tw.zeros(())
        _engine.grad_scale([grad.array for grad in grads], tw.tensor(4.0, dtype=tw.float64).array, found.array)
        assert found.item() == 1 and to_np(grads[0]).tolist() == [4, 4, 4] and to_np(grads[1])[-1] == 8
    found = tw.zeros(())
    _engine.grad_scale([grads[0].array], tw.tensor(0.5, dtype=tw.float64).array, found.array)
    assert found.item() == 0 and to_np(grads[0]).tolist() == [2, 2, 2]


def refused(make):
    return lambda g: make([tw.ones(3).requires_grad_()])


OPTIM_BAD = (
    Bad("nan_lr", refused(lambda p: tw.optim.SGD(p, lr=float("nan"))), ValueError, "lr|learning rate"),
    Bad("inf_lr", refused(lambda p: tw.optim.SGD(p, lr=float("inf"))), ValueError, "lr|learning rate"),
    Bad("negative_lr", refused(lambda p: tw.optim.SGD(p, lr=-1.0)), ValueError, "lr|learning rate"),
    Bad("nesterov", refused(lambda p: tw.optim.SGD(p, lr=0.1, nesterov=True)), ValueError, "[Nn]esterov"),
    Bad("empty", lambda g: tw.optim.SGD([], lr=0.1), ValueError, "empty|no param"),
)
ADAM_BAD = (
    Bad("betas", refused(lambda p: tw.optim.Adam(p, betas=(1.0, 0.9))), ValueError, "beta"),
    Bad("eps", refused(lambda p: tw.optim.Adam(p, eps=-1.0)), ValueError, "eps"),
    Bad("nan_lr", refused(lambda p: tw.optim.Adam(p, lr=float("nan"))), ValueError, "lr|learning rate"),
)


def machine_probes():
    """The benchmarks' probes; a stream itself raises when it wrote something wrong (more in test_benchmarks.py)."""
    assert _engine.fma_peak(tw.float32, 0.001) > 1e6
    for kind in ("read", "copy", "triad"):
        assert _engine.stream(kind, 100_000, True, 0.001) > 1e6


PROBES_BAD = (
    Bad("dtype", lambda g: _engine.fma_peak(tw.int32), TypeError, "fma_peak: must be float32 or float64, got int32"),
    Bad("kind", lambda g: _engine.stream("write", 4096), ValueError, "stream: kind must be .* got 'write'"),
    Bad("bytes", lambda g: _engine.stream("read", 1), ValueError, "stream: bytes must be in .* got 1"),
)

ROWS = [
    checked_row("rand", ("uniform",), (uniform_moments, uniform_range, seeds_of_uniform, a_prefix_is_shared,
                                     draws_stay_in_their_window, generators),
                (Bad("negative", lambda g: tw.rand(-1), ValueError, "-1"),),
                ("uniform", "Generator", "default_generator", "manual_seed", "seed", "initial_seed", "get_rng_state",
                 "set_rng_state")),
    checked_row("randn", ("normal",), (normal_moments, normal_scaled, seeds_of_normal, of_the_inputs_kind),
                ops=("normal", "rand_like", "randn_like", "randint_like")),
    checked_row("bernoulli", ("bernoulli",), (bernoulli_share, bernoulli_fills, seeds_of_bernoulli),
                (Bad("range", lambda g: tw.bernoulli(tw.full((3,), 1.5)), ValueError, "bernoulli"),)),
    checked_row("randint", ("randint",), (randint_shares, seeds_of_randint),
                (Bad("empty", lambda g: tw.randint(3, 3, (2,)), ValueError, "randint.*3"),)),
    checked_row("randperm", (), (permutation_is_one, seeds_of_permutation),
                (Bad("negative", lambda g: tw.randperm(-1), ValueError, "-1"),)),
    checked_row("optim.SGD", ("sgd_step",), (sgd_steps, steps_over_large_parameters), OPTIM_BAD),
    checked_row("optim.Adam", ("adam_step",), (adam_steps,), ADAM_BAD),
    checked_row("optim.AdamW", ("adam_step",), (adamw_steps,)),
    checked_row("optim.RMSprop", ("rule_step",), (other_rules,),
                (Bad("lr", refused(lambda p: tw.optim.RMSprop(p, lr=-1.0)), ValueError, "RMSprop: lr must be"),
                 Bad("betas", refused(lambda p: tw.optim.NAdam(p, betas=(1.0, 0.9))), ValueError, r"betas\[0\]"),
                 Bad("etas", refused(lambda p: tw.optim.Rprop(p, etas=(1.5, 2.0))), ValueError, "Rprop: etas must be"),
                 Bad("rule", lambda g: _engine.rule_step("x", [], [], [], [], [], [], 0.0, 1.0, False), ValueError,
                     "rule_step: no such rule, got 'x'"))),
    checked_row("grad_norm", ("grad_norm", "grad_scale"), (clipping_one_list, scaling_finds_what_is_not_finite),
                (Bad("p", lambda g: _engine.grad_norm([tw.ones(3).array], 0.0), ValueError,
                     "grad_norm: p must be > 0, got 0"),
                 Bad("none", lambda g: _engine.grad_norm([], 2.0), ValueError, "at least one gradient"),
                 Bad("integers", lambda g: _engine.grad_norm([tw.arange(3).array], 2.0), TypeError,
                     "grad_norm: grads must be floating-point, got int64"),
                 Bad("factor", lambda g: _engine.grad_scale([tw.ones(3).array], tw.ones(1).array), ValueError,
                     r"grad_scale: factor must have shape \(\), got \(1,\)"))),
    checked_row("machine", ("fma_peak", "stream_read", "stream_copy", "stream_triad"), (machine_probes,), PROBES_BAD),
]  # fmt: skip
