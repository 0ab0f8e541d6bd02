"""What modules do besides computing: hooks, state, parametrizations, lazy shapes. Each scenario is one function of a
library, run with tilewright and with PyTorch; what it returns must be equal."""

import copy
import os
import warnings

import numpy as np
import pytest

import tilewright as tw
from arrays import to_np
from tilewright import nn
from tilewright.nn import functional as F

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.utils.prune")


def real(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-2.0, 2.0, shape).astype(np.float32)


def plain(value):
    """Tensors as arrays, shapes and other sequences as lists."""
    if isinstance(value, (tw.Tensor, torch.Tensor)):
        return to_np(value.detach()) if isinstance(value, tw.Tensor) else value.detach().numpy().copy()
    if isinstance(value, dict):
        return [(k, plain(v)) for k, v in value.items()]
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def compare(a, b):
    if isinstance(b, np.ndarray):
        assert a.shape == b.shape
        largest = np.abs(b[np.isfinite(b)]).max(initial=1.0)  # of its order are the terms of the sums
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-6 * float(largest))
    elif isinstance(b, (list, tuple)):
        assert len(a) == len(b), (a, b)
        for x, y in zip(a, b, strict=True):
            compare(x, y)
    else:
        assert a == b, (a, b)


def filled(lib, module):
    """The module with parameters that both libraries share."""
    with lib.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(lib.tensor(real(*p.shape, seed=i)))
    return module


def net(lib):
    return filled(lib, lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.BatchNorm1d(4), lib.nn.Linear(4, 2)))


SCENARIOS = []


def scenario(function):
    SCENARIOS.append(function)
    return function


def outcome(call):
    """The result, or the error's class and the words that both libraries use."""
    try:
        return call()
    except Exception as error:
        return type(error).__name__


# --- state -----------------------------------------------------------------------------------------------------------
@scenario
def state_dict_hooks(lib):
    log, m = [], net(lib)
    m[1].register_state_dict_pre_hook(lambda module, prefix, keep: log.append(("pre", type(module).__name__, prefix,
                                                                                keep)))
    m[0].register_state_dict_post_hook(lambda module, state, prefix, local: log.append((prefix, list(state), local)))
    handle = m._register_state_dict_hook(lambda module, state, prefix, local: {"all." + k: v for k, v in state.items()})
    first = m.state_dict(prefix="x.", keep_vars=True)
    handle.remove()
    second = m.state_dict()
    return log, first, second, second._metadata, [v.requires_grad for v in second.values()]


@scenario
def load_hooks_rename_and_forgive(lib):
    class Renamed(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = lib.nn.Parameter(lib.zeros(2)), lib.nn.Linear(2, 2)

        def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
            state_dict[prefix + "a"] = state_dict.pop(prefix + "old_a")
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)

    m, log = lib.nn.Sequential(Renamed()), []

    def rename(module, state, prefix, *rest):
        log.append((type(module).__name__, prefix, sorted(state), len(rest)))
        state[prefix + "weight"] = state.pop(prefix + "w")

    m[0].b.register_load_state_dict_pre_hook(rename)
    m._register_load_state_dict_pre_hook(lambda state, prefix, *rest: state.pop("junk"))
    m.register_load_state_dict_post_hook(lambda module, keys: keys.missing_keys.remove("0.b.bias"))
    keys = m.load_state_dict({"0.old_a": lib.ones(2), "0.b.w": lib.ones(2, 2), "junk": 3})
    return log, list(keys), [p for n, p in m.named_parameters() if n != "0.b.bias"]


@scenario
def extra_state(lib):
    class Counter(lib.nn.Module):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    a, b = lib.nn.Sequential(Counter()), lib.nn.Sequential(Counter())
    a[0].count = 5
    keys = b.load_state_dict(a.state_dict())
    return list(a.state_dict()), list(keys), b[0].count, list(b.load_state_dict({}, strict=False))


@scenario
def what_strict_loading_says(lib):
    m = net(lib)
    state = m.state_dict()
    state["0.weight"] = lib.zeros(2, 2)
    del state["2.bias"], state["1.running_var"]
    state["0.w.x"], state["extra"] = lib.zeros(1), lib.zeros(1)
    try:
        m.load_state_dict(state)
    except RuntimeError as error:
        message = str(error).replace("torch.Size", "Size")
    loose = {k: v for k, v in state.items() if k != "0.weight"}
    keys = m.load_state_dict(loose, strict=False)
    return message, repr(keys), repr(m.load_state_dict(m.state_dict()))


@scenario
def checkpoints_of_old_times(lib):
    m = net(lib)
    state = {k: v for k, v in m.state_dict().items() if "num_batches" not in k}
    keys = m.load_state_dict(state)  # BatchNorm had no counter once
    scalar = lib.nn.Module()
    scalar.s = lib.nn.Parameter(lib.zeros(()))
    scalar.load_state_dict({"s": lib.ones(1)})  # and scalars had one dimension
    return list(keys), list(scalar.parameters())


@scenario
def positional_state_dict_and_prefixes(lib):
    m, state = net(lib), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m.state_dict(state, "module.", False)
    lib.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
    return state


# --- walking ---------------------------------------------------------------------------------------------------------
@scenario
def walks(lib):
    m = net(lib)
    m.append(m[0])
    m.unused = None
    memo = set()
    names = [n for n, _ in m.named_modules(memo, "root")]
    doubled = [n for n, _ in m.named_modules(remove_duplicate=False)]
    shared = [n for n, _ in m.named_parameters(prefix="p", remove_duplicate=False)]
    own = [n for n, _ in m.named_parameters(recurse=False)]
    return (names, len(memo), doubled, shared, len(list(m.modules())), own,
            [n for n, _ in m.named_children()], [n for n, _ in m.named_buffers()])


@scenario
def submodules_by_path(lib):
    m = lib.nn.Sequential(net(lib))
    m.set_submodule("0.1", lib.nn.ReLU())
    m.set_submodule("new", lib.nn.Tanh())
    return (repr(m), type(m.get_submodule("0.0")).__name__, m.get_parameter("0.0.bias"),
            outcome(lambda: m.get_submodule("0.9")), outcome(lambda: m.set_submodule("no", lib.nn.Tanh(), strict=True)),
            outcome(lambda: m.set_submodule("", lib.nn.Tanh())), outcome(lambda: m.get_buffer("0.0.bias")))


# --- hooks -----------------------------------------------------------------------------------------------------------
@scenario
def forward_hooks(lib):
    class Scaled(lib.nn.Module):
        def forward(self, x, scale=1.0):
            return x * scale

    log, m, x = [], Scaled(), lib.tensor([1.0, 2.0])
    m.register_forward_pre_hook(lambda m, args: log.append("second"))
    m.register_forward_pre_hook(lambda m, args, kwargs: (args, {"scale": kwargs["scale"] + 1}), with_kwargs=True)
    m.register_forward_pre_hook(lambda m, args: log.append("first") or (args[0] + 1,), prepend=True)
    m.register_forward_hook(lambda m, args, kwargs, y: log.append(kwargs) or y * 10, with_kwargs=True)
    last = m.register_forward_hook(lambda m, args, y: log.append(args) or -y)
    results = [m(x, scale=2.0)]
    last.remove()
    return results, m(x, scale=0.0), log


@scenario
def hooks_that_are_always_called(lib):
    class Failing(lib.nn.Module):
        def forward(self, x):
            raise ValueError("no")

    log, m = [], Failing()
    m.register_forward_hook(lambda m, args, y: log.append("plain"))
    m.register_forward_hook(lambda m, args, y: log.append(("always", y)), always_call=True)
    return outcome(lambda: m(lib.ones(1))), log


@scenario
def backward_hooks(lib):
    log = []
    m = filled(lib, lib.nn.Linear(3, 2))
    m.register_full_backward_pre_hook(lambda m, dy: log.append(("pre", dy)) or (dy[0] * 2,))
    m.register_full_backward_hook(lambda m, dx, dy: log.append((dx, dy)) or (dx[0] + 1,))
    x = lib.tensor(real(4, 3), requires_grad=True)
    m(x).sum().backward()
    return log, x.grad, [p.grad for p in m.parameters()]


@scenario
def hooks_on_every_module(lib):
    log, m = [], net(lib).eval()
    every = lib.nn.modules.module
    handles = [every.register_module_forward_pre_hook(lambda m, args: log.append("pre " + type(m).__name__)),
               every.register_module_forward_hook(lambda m, args, y: log.append("post " + type(m).__name__)),
               every.register_module_full_backward_hook(lambda m, dx, dy: log.append(type(m).__name__))]
    try:
        m(lib.tensor(real(4, 3), requires_grad=True)).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    m(lib.tensor(real(4, 3)))
    return log


# --- state of the whole ----------------------------------------------------------------------------------------------
@scenario
def dtypes_grads_and_emptiness(lib):
    m = net(lib)
    m(lib.tensor(real(4, 3))).sum().backward()
    m.zero_grad(set_to_none=False)
    zeros = [p.grad for p in m.parameters()]
    m.zero_grad()
    none = [p.grad is None for p in m.parameters()]
    m.requires_grad_(False).double()
    kinds = [str(t.dtype).split(".")[1] for t in m.state_dict().values()]
    m.to_empty(device="cpu", recurse=True).bfloat16().float()
    return zeros, none, kinds, [tuple(p.shape) for p in m.parameters()], [p.requires_grad for p in m.parameters()]


@scenario
def sync_batch_norm(lib):
    m = net(lib)
    m[1](lib.tensor(real(5, 4)))
    made = lib.nn.SyncBatchNorm.convert_sync_batchnorm(m)
    one = lib.nn.SyncBatchNorm.convert_sync_batchnorm(lib.nn.BatchNorm2d(3, momentum=None))
    return repr(made), made.state_dict(), made[1].weight is m[1].weight, repr(one)


@scenario
def fused_for_evaluation(lib):
    results = []
    for layer, norm, shape in ((lib.nn.Conv2d(2, 3, 3), lib.nn.BatchNorm2d(3, eps=0.1), (2, 2, 5, 5)),
                               (lib.nn.ConvTranspose1d(2, 3, 3, bias=False), lib.nn.BatchNorm1d(3), (2, 2, 5)),
                               (lib.nn.Linear(4, 3), lib.nn.BatchNorm1d(3), (5, 4))):
        both = filled(lib, lib.nn.Sequential(layer, norm))
        both(lib.tensor(real(*shape)))
        both.eval()
        fuse = lib.nn.utils.fusion
        transposed = {"transpose": True} if layer.bias is None else {}
        made = (fuse.fuse_linear_bn_eval if shape == (5, 4) else fuse.fuse_conv_bn_eval)(*both, **transposed)
        x = lib.tensor(real(*shape, seed=9))
        assert float((made(x) - both(x)).abs().max().item()) < 1e-5
        results += [made.weight, made.bias, made.weight.requires_grad, made.bias.requires_grad]
    return results


@scenario
def norms_of_gradients(lib):
    m = net(lib)
    m(lib.tensor(real(4, 3))).square().sum().backward()
    u = lib.nn.utils
    grads = [p.grad for p in m.parameters()]
    total = u.get_total_norm(grads, 3.0)
    u.clip_grads_with_norm_(m.parameters(), 0.5, total)
    return total, grads, u.get_total_norm([]), u.parameters_to_vector(m.parameters())


# --- computed parameters ---------------------------------------------------------------------------------------------
def symmetric(lib):
    class Symmetric(lib.nn.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).transpose(-1, -2)

        def right_inverse(self, a):
            return a.triu()

    return Symmetric()


@scenario
def parametrized(lib):
    p = lib.nn.utils.parametrize
    m = filled(lib, lib.nn.Linear(3, 3))
    original = m.weight
    p.register_parametrization(m, "weight", symmetric(lib))
    before = repr(m), m.weight, list(m.state_dict()), [n for n, _ in m.named_parameters()]
    assert m.parametrizations.weight.original is original
    m.weight = lib.ones(3, 3)
    with p.cached():
        cached = m.weight is m.weight
    assert m.weight is not m.weight
    p.register_parametrization(m, "weight", lib.nn.Tanh())
    p.register_parametrization(m, "bias", lib.nn.Softplus())
    other = copy.deepcopy(m)
    m.weight.sum().backward()
    grads = original.grad
    flags = p.is_parametrized(m), p.is_parametrized(m, "bias"), p.is_parametrized(lib.nn.ReLU())
    y = m(lib.tensor(real(2, 3)))
    assert float((other(lib.tensor(real(2, 3))) - y).abs().max().item()) == 0
    p.remove_parametrizations(m, "weight", leave_parametrized=False)
    p.remove_parametrizations(m, "bias")
    errors = (outcome(lambda: p.remove_parametrizations(m, "bias")),
              outcome(lambda: p.register_parametrization(m, "nothing", lib.nn.Tanh())),
              outcome(lambda: p.register_parametrization(m, "weight", lib.nn.Flatten(0))))
    return before, cached, grads, y, flags, repr(m), type(m).__name__, m.state_dict(), errors


@scenario
def weight_norm_comes_and_goes(lib):
    u = lib.nn.utils
    m = filled(lib, lib.nn.Linear(3, 4))
    w = m.weight.detach().clone()
    u.weight_norm(m, dim=1)
    names = [n for n, _ in m.named_parameters()]
    again = outcome(lambda: u.weight_norm(m, dim=1))
    with lib.no_grad():
        m.weight_g.mul_(2)
    y = m(lib.tensor(real(2, 3)))
    u.remove_weight_norm(m)
    assert len(m._forward_pre_hooks) == 0
    n = u.parametrizations.weight_norm(filled(lib, lib.nn.Linear(3, 4)))
    kept = n.weight
    lib.nn.utils.parametrize.remove_parametrizations(n, "weight")
    return w, names, again, y, m.state_dict(), kept, n.state_dict(), outcome(lambda: u.remove_weight_norm(m))


@scenario
def spectral_norm_comes_and_goes(lib):
    u = lib.nn.utils
    m = u.spectral_norm(filled(lib, lib.nn.Linear(3, 4)), n_power_iterations=60)
    m(lib.tensor(real(2, 3)))
    sigma = m.weight
    m.eval()
    buffers = m.weight_u.clone()
    m(lib.tensor(real(2, 3)))
    assert bool((m.weight_u == buffers).all())
    u.remove_spectral_norm(m)
    n = u.parametrizations.spectral_norm(filled(lib, lib.nn.Conv1d(2, 3, 3)), n_power_iterations=60)
    w = n.weight
    return (sigma, [n for n, _ in m.named_parameters()], m.weight, list(m.state_dict()), w, list(n.state_dict()),
            outcome(lambda: u.parametrizations.spectral_norm(lib.nn.Linear(2, 2), n_power_iterations=0)))


@scenario
def pruned(lib):
    prune = lib.nn.utils.prune
    m = filled(lib, lib.nn.Sequential(lib.nn.Linear(6, 5)))
    prune.l1_unstructured(m[0], "weight", 0.3)
    prune.l1_unstructured(m[0], "weight", 4)
    prune.random_unstructured(m[0], "bias", 2)
    m(lib.tensor(real(2, 6))).sum().backward()
    state = m.state_dict()
    left = int((m[0].bias != 0).sum()), prune.is_pruned(m)
    prune.remove(m[0], "weight")
    prune.remove(m[0], "bias")
    kept = {k: v for k, v in state.items() if "bias" not in k}
    return (kept, left, m[0].weight_orig.grad if hasattr(m[0], "weight_orig") else m[0].weight.grad, m[0].weight,
            [n for n, _ in m.named_parameters()], prune.is_pruned(m), outcome(lambda: prune.remove(m[0], "weight")),
            outcome(lambda: prune.l1_unstructured(m[0], "weight", 1.5)))


# --- lazy shapes -----------------------------------------------------------------------------------------------------
@scenario
def lazy(lib):
    n = lib.nn
    m = n.Sequential(n.LazyConv2d(4, 3, groups=2), n.LazyBatchNorm2d(), n.Flatten(), n.LazyLinear(2, bias=False))
    before = repr(m), list(m.state_dict()), m[3].has_uninitialized_params(), repr(m[3].weight)
    params = list(m.parameters())
    m(lib.zeros(2, 4, 5, 5))
    assert all(a is b for a, b in zip(params, m.parameters(), strict=True))
    filled(lib, m)[1].reset_running_stats()
    m(lib.tensor(real(2, 4, 5, 5))).square().sum().backward()
    fresh = n.Sequential(n.LazyConv2d(4, 3, groups=2), n.LazyBatchNorm2d(), n.Flatten(), n.LazyLinear(2, bias=False))
    fresh.load_state_dict(m.state_dict())
    x = lib.tensor(real(2, 4, 5, 5, seed=3))
    return before, repr(m), m.state_dict(), m[0].weight.grad, m[3].weight.grad, fresh.eval()(x), type(m[1]).__name__


# --- functions -------------------------------------------------------------------------------------------------------
@scenario
def attention_as_a_function(lib):
    def made(*shape, seed):
        return lib.tensor(real(*shape, seed=seed) / 2, requires_grad=True)

    q, k, v = made(4, 2, 8, seed=1), made(5, 2, 6, seed=2), made(5, 2, 7, seed=3)
    weights = made(8, 8, seed=4), made(8, 6, seed=5), made(8, 7, seed=6)
    bias, out_w, out_b = made(24, seed=7), made(8, 8, seed=8), made(8, seed=9)
    separate = {"use_separate_proj_weight": True, "q_proj_weight": weights[0], "k_proj_weight": weights[1],
                "v_proj_weight": weights[2]}
    call = lib.nn.functional.multi_head_attention_forward
    y, w = call(q, k, v, 8, 2, None, bias, None, None, False, 0.0, out_w, out_b, True, **separate)
    y.square().sum().backward()
    static = {"static_k": made(4, 3, 4, seed=10), "static_v": made(4, 3, 4, seed=11)}
    z, none = call(q, k, v, 8, 2, None, bias, None, None, True, 0.0, out_w, out_b, False, need_weights=False,
                   **separate, **static)
    return y, w, [t.grad for t in (q, k, v, *weights, bias, out_w)], z, none


@scenario
def antialiased(lib):
    results = []
    for mode, more in (("bilinear", {"size": (3, 9)}), ("bicubic", {"scale_factor": (0.4, 1.6)}),
                       ("bilinear", {"scale_factor": 0.5, "align_corners": True}), ("bicubic", {"size": (1, 5)})):
        x = lib.tensor(real(2, 3, 8, 7), requires_grad=True)
        y = lib.nn.functional.interpolate(x, mode=mode, antialias=True, **more)
        y.square().sum().backward()
        results += [y, x.grad]
    return results, outcome(lambda: lib.nn.functional.interpolate(x[0], 4, mode="linear", antialias=True))


@scenario
def older_and_in_place_functions(lib):
    f, x = lib.nn.functional, real(2, 4, 5)

    def changed(name, *args):
        t = lib.tensor(x)
        assert getattr(f, name)(t, *args) is t
        return t

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = lib.tensor(x).unsqueeze(0)
        up = [f.upsample_bilinear(image, scale_factor=2), f.upsample_nearest(image, (8, 9))]
    rows = lib.tensor(real(6, 3), requires_grad=True)
    distances = f.pdist(rows, 3.0)
    distances.sum().backward()
    out = lib.zeros(2, 4, 5)
    f.normalize(lib.tensor(x), dim=-1, out=out)
    rows_ = (("elu_", 0.5), ("celu_", 0.5), ("selu_",), ("leaky_relu_", 0.1), ("hardtanh_", -1, 2),
             ("threshold_", 0.5, -3), ("rrelu_", 0.2, 0.2, True))
    return [changed(*row) for row in rows_], up, distances, rows.grad, out


@scenario
def lists_of_parameters(lib):
    d = lib.nn.ParameterDict({"a": lib.ones(2), "b": lib.zeros(1)})
    d.setdefault("c", lib.ones(3))
    d2 = d.copy()
    gone = d.popitem()[0]
    d2.update({"a": lib.zeros(4)})
    d.clear()
    return gone, len(d), [(k, tuple(v.shape)) for k, v in d2.items()], d2.get("zz"), list(reversed(d2)), "a" in d2


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated", "ignore:Lazy modules", "ignore:enable_nested")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
def test_scenario_as_pytorch(scenario):
    compare(*(plain(scenario(lib)) for lib in (tw, torch)))


# --- what only tilewright can be asked -------------------------------------------------------------------------------
def test_parameters_in_shared_memory():
    m = nn.Linear(2, 2).share_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking with threads
        child = os.fork()
    if not child:
        m.weight.data.fill_(7.0)
        os._exit(0)
    os.waitpid(child, 0)
    assert m.weight.tolist() == [[7.0, 7.0], [7.0, 7.0]] and m.weight.requires_grad


def test_dropped_weights():
    tw.manual_seed(1)
    layer = nn.DropConnect(nn.Linear(50, 40, bias=False), 0.25)
    x = tw.ones(1, 50)
    weight = layer.module.weight
    y = layer(tw.eye(50))
    ratio = to_np((y / weight.T).detach())
    assert np.isclose(ratio, 0).sum() + np.isclose(ratio, 1 / 0.75).sum() == 2000
    assert abs(np.isclose(ratio, 0).mean() - 0.25) < 0.05  # five standard deviations of 2,000 draws
    y.sum().backward()
    assert layer.module.weight is weight and ((weight.grad.T != 0) == (y != 0)).all()
    assert (layer.eval()(x) == layer.module(x)).all()
    lstm = nn.DropConnect(nn.LSTM(3, 4), 1.0, ["weight_hh_l0"])
    seq = tw.randn(5, 2, 3)
    zero = copy.deepcopy(lstm.module)
    with tw.no_grad():
        zero.weight_hh_l0.zero_()
    assert (lstm(seq)[0] == zero(seq)[0]).all()
    with pytest.raises(AttributeError, match="no parameter 'w'"):
        nn.DropConnect(nn.Linear(2, 2), 0.5, ["w"])


@pytest.mark.parametrize("layer", [nn.AlphaDropout(0.3), nn.FeatureAlphaDropout(0.3)], ids=repr)
def test_alpha_dropout_keeps_mean_and_variance(layer):
    tw.manual_seed(2)
    x = tw.randn(300, 200, 4)
    y = to_np(layer(x))
    assert abs(y.mean()) < 0.03 and abs(y.var() - 1) < 0.03  # 60,000 draws or more
    a = 1 / np.sqrt((1.7580993408473766**2 * 0.3 + 1) * 0.7)
    low = -1.7580993408473766 * a + 1.7580993408473766 * a * 0.3
    dropped = np.isclose(y, low, atol=1e-5)
    assert abs(dropped.mean() - 0.3) < 0.02
    kept = to_np(x) * a + 1.7580993408473766 * a * 0.3
    np.testing.assert_allclose(y[~dropped], kept[~dropped], rtol=1e-4, atol=1e-5)
    if isinstance(layer, nn.FeatureAlphaDropout):
        assert (dropped.all(-1) != dropped.any(-1)).mean() < 1e-3  # a few values are the limit by chance
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got 2"):
        layer.__class__(2)


def test_embedding_bag_by_hand_and_refusals():
    table, index = tw.ones(3, 1, requires_grad=True), tw.tensor([2, 1, 2, 0])
    F.embedding_bag(index, table, tw.tensor([0, 1]), mode="sum", scale_grad_by_freq=True).sum().backward()
    assert table.grad.flatten().tolist() == [1.0, 1.0, 1.0]  # 2 occurs twice; PyTorch divides by another row's count
    for args, kwargs, words in (
            ((index, table), {}, "1-d with 1-d offsets"), ((index, table, tw.tensor([1])), {}, "begin with 0"),
            ((index, table, tw.tensor([0, 3, 2])), {}, "not fall"),
            ((index, table, tw.tensor([0, 3])), {"include_last_offset": True}, "up to 4"),
            ((index, table, tw.tensor([0])), {"mode": "min"}, "'sum', 'mean' or 'max', got 'min'"),
            ((index, table, tw.tensor([0])), {"per_sample_weights": tw.ones(4)}, "mode 'sum'"),
            ((index, table, tw.tensor([0])), {"mode": "max", "scale_grad_by_freq": True}, "scale_grad_by_freq")):
        with pytest.raises(ValueError, match=words):
            F.embedding_bag(*args, **kwargs)


@pytest.mark.parametrize("fused, composed", [
    (lambda x: norm_of(x)(x), lambda x: (x - norm_of(x).running_mean.reshape(1, -1, 1)) / (
        norm_of(x).running_var.reshape(1, -1, 1) + norm_of(x).eps).sqrt() * norm_of(x).weight.reshape(1, -1, 1)
        + norm_of(x).bias.reshape(1, -1, 1)),
    (lambda x: attend(x, need_weights=False)[0], lambda x: attend(x, need_weights=True)[0]),
    (lambda x: packed_lstm(x), lambda x: stepped_lstm(x)),
], ids=["batch norm in eval", "attention with masks", "packed sequences"])
def test_fused_as_composed(fused, composed):
    x = tw.tensor(real(3, 8, 8)).requires_grad_()
    results = []
    for f in (fused, composed):
        y = f(x)
        (dx,) = tw.autograd.grad((y * tw.tensor(real(*y.shape, seed=4))).sum(), [x])
        results.append([to_np(y.detach()), to_np(dx)])
    compare(*results)


LENGTHS = [5, 8, 2]  # of the three sequences of 8


def lstm():
    return filled(tw, nn.LSTM(8, 8, bidirectional=True))


def packed_lstm(x):
    rnn = nn.utils.rnn
    packed = rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    return rnn.pad_packed_sequence(lstm()(packed)[0], batch_first=True)[0]


def stepped_lstm(x):
    """Each sequence by itself, step by step, by the equations in Tensor ops."""
    m, rows = lstm(), []
    for n, length in enumerate(LENGTHS):
        halves = []
        for suffix in ("", "_reverse"):
            w_ih, w_hh, b_ih, b_hh = (getattr(m, f"{kind}_l0{suffix}") for kind in
                                      ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            h = c = tw.zeros(8)
            ys = {}
            for t in range(length)[::-1 if suffix else 1]:
                i, f, g, o = (w_ih @ x[n, t] + b_ih + w_hh @ h + b_hh).chunk(4)
                c = tw.sigmoid(f) * c + tw.sigmoid(i) * tw.tanh(g)
                ys[t] = h = tw.sigmoid(o) * tw.tanh(c)
            halves.append(tw.stack([ys[t] for t in range(length)]))
        rows.append(tw.cat(halves, -1))
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def norm_of(x):
    m = filled(tw, nn.BatchNorm1d(8))
    m(tw.tensor(real(9, 8, 4, seed=5)))
    return m.eval()


def attend(x, need_weights):
    m = filled(tw, nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True))
    hidden = tw.arange(8) >= tw.tensor([[8], [5], [6]])
    mask = nn.Transformer.generate_square_subsequent_mask(8)
    return m(x, x, x, attn_mask=mask, key_padding_mask=tw.zeros(3, 8).masked_fill(hidden, float("-inf")),
             need_weights=need_weights)
