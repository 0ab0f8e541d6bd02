"""The census of names and keywords, refusals, signatures, printing, indexing and views beside PyTorch."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import re
import sys
import types

import numpy as np
import pytest

import tilewright as tw
from tilewright import compat


# --- coverage --------------------------------------------------------------------------------------------------------
def test_every_name_that_three_repositories_use_is_offered_or_refused():
    rows = compat.coverage()
    assert len(rows) > 500 and min(row.repos for row in rows) == 3
    assert [row.name for row in rows if row.status == "missing"] == []
    unexplained = [row.name for row in rows if row.status in ("refused", "elsewhere")
                   and not any(row.name == n or row.name.startswith(n + ".") for n in compat.ELSEWHERE)]
    assert unexplained == []
    assert sum(row.uses for row in rows if row.status == "offered") / sum(row.uses for row in rows) > 0.99


def test_every_keyword_that_three_repositories_pass_is_taken():
    assert {row.name: row.unknown for row in compat.coverage() if row.unknown} == {}


def test_report_counts_what_coverage_found(capsys):
    compat.report()
    printed = capsys.readouterr().out
    total = re.search(r"^all +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)", printed, re.M)
    counts = [int(v) for v in total.groups()]
    rows = compat.coverage()
    assert counts == [len(rows), *(sum(r.status == s for r in rows) for s in ("offered", "refused", "elsewhere",
                                                                             "missing"))]
    assert "refused: torch.hub.load (3 repositories): an engine downloads nothing" in printed


@pytest.mark.parametrize("call, words", [
    (lambda: tw.hub.load_state_dict_from_url("http://x"), r"hub\.load_state_dict_from_url: .* tw\.load\(path\)"),
    (lambda: importlib.import_module("tilewright.utils").model_zoo.load_url("x"), r"model_zoo\.load_url: .* tw\.load"),
    (lambda: tw.sparse_coo_tensor([[0]], [1.0]), "sparse_coo_tensor: .* use scipy.sparse"),
    (lambda: tw.view_as_complex(tw.ones(2)), "view_as_complex: .* real and imaginary parts in two tensors"),
    (lambda: tw.jit.trace(lambda x: x, tw.ones(1)), r"jit\.trace: models run as Python"),
    (lambda: tw.onnx.export(None, None, "x"), r"onnx\.export: .* onnx package"),
    (lambda: tw.fx.symbolic_trace(None), r"fx\.symbolic_trace: "),
    (lambda: tw.quantization.quantize_dynamic(None), r"quantization\.quantize_dynamic: .* half precision"),
    (lambda: tw.symeig(tw.eye(2)), r"symeig: use linalg\.eigh"),
    (lambda: tw.vmap(lambda x: x), "vmap: "),
    (lambda: type("Model", (tw.jit.ScriptModule,), {}) if False else tw.jit.ScriptModule.__mro_entries__(()),
     r"jit\.ScriptModule: "),
    (lambda: tw.ones(2).values(), "values: only sparse tensors"),
    (lambda: tw.ones(2).share_memory_(), "share_memory_: .* multiprocessing"),
    (lambda: tw.distributed.rpc, r"distributed\.rpc: tilewright trains in one process"),
    (lambda: tw.zeros(2, layout="sparse"), r"zeros: layout must be tw\.strided"),
])
def test_refusals_say_what_to_use(call, words):
    with pytest.raises(NotImplementedError, match=words):
        call()


def test_imports_of_scripts():
    """The forms in which scripts import: what is refused can be imported, and refuses when it is called."""
    code = """
import tilewright as torch, tilewright.nn as nn, tilewright.nn.functional as F
import tilewright.utils.model_zoo as model_zoo
import tilewright.hub, tilewright.multiprocessing as mp, tilewright.backends.cudnn as cudnn
from tilewright.cuda.amp import autocast, GradScaler
from tilewright.hub import load_state_dict_from_url
from tilewright.jit import script, ignore
from tilewright.distributions import Categorical, kl_divergence
from tilewright.utils._pytree import tree_flatten
from tilewright.nn.attention import SDPBackend, sdpa_kernel
from tilewright.linalg import inv
from tilewright.version import cuda
"""
    names: dict = {}
    exec(code, names)
    assert names["script"](len) is len and names["ignore"](drop=True)(len) is len
    with pytest.raises(NotImplementedError, match="nothing is downloaded"):
        names["load_state_dict_from_url"]("x")
    with names["autocast"](dtype=tw.bfloat16), names["sdpa_kernel"](names["SDPBackend"].MATH):
        assert (tw.ones(2, 2) @ tw.ones(2, 2)).dtype == tw.bfloat16
    assert names["GradScaler"](enabled=False).scale(3) == 3
    with pytest.raises(TypeError, match="sdpa_kernel: backends must be SDPBackend"), names["sdpa_kernel"](["math"]):
        pass
    assert not hasattr(tw, "no_such_name") and tw.relu_(tw.tensor([-1.0])).item() == 0
    with pytest.raises(AttributeError, match=r"no attribute 'no_such_name'; tilewright\.compat\.report\(\) lists"):
        _ = tw.no_such_name


# --- signatures ------------------------------------------------------------------------------------------------------
def parameters_of(docstring: str, name: str) -> list[list[str]]:
    """The parameter names in each `name(...)` line of a PyTorch docstring."""
    found = []
    for line in (docstring or "").splitlines():
        line = line.strip().removeprefix(".. function:: ")
        if line.startswith(f"{name}(") and "->" in line:
            line = line[len(name) + 1 : line.rindex("->")].rstrip(" )")
            line = re.sub(r"\[[^\]]*\]|\([^)]*\)", "", line.replace("\\", ""))
            found.append([re.split("[:=]", p)[0].strip(" *") for p in line.split(",")])
    return [[p for p in names if p.isidentifier()] for names in found]


# Overloads by position that our one signature takes under other names, and what has no meaning here.
OTHERWISE = {"out_dtype", "names", "LongTensor", "Tensor", "self", "values", "indices", "value", "batch2", "divisor",
             "tensor2", "sections", "split_size_or_sections", "kwargs"}
KNOWN = {"dropout": {"train"}, "set_num_threads": {"int"}, "set_num_interop_threads": {"int"}, "max": {"max"},
         "embedding": {"indices"}, "where": {"y"}, "resize_as_": {"tensor"}, "type_as": {"tensor"},
         "result_type": {"tensor"}, "random_": {"from", "to"}, "uniform_": {"from", "to"}, "arange": {"torch"},
         # names of the documentation that PyTorch itself does not take
         "broadcast_to": {"shape"}, "std_mean": {"out"}, "var_mean": {"out"}, "true_divide": {"dividend"},
         "atanh_": {"other"}, "arctanh_": {"other"}, "dot": {"other"}, "index_copy_": {"tensor"},
         "is_set_to": {"tensor"}, "masked_scatter": {"tensor"}, "narrow": {"dimension"}}


def test_parameters_have_pytorchs_names():
    torch = pytest.importorskip("torch")
    wrong = {}
    for ours, theirs in ((tw, torch), (tw.Tensor, torch.Tensor)):
        for name in dir(ours):
            function = getattr(ours, name, None)
            if name.startswith("_") or not callable(function) or isinstance(function, type) or not hasattr(theirs,
                name):
                continue
            try:
                mine = inspect.signature(function).parameters
            except ValueError:
                continue
            if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in mine.values()):
                continue
            for names in parameters_of(getattr(theirs, name).__doc__, name):
                missing = set(names) - set(mine) - OTHERWISE - KNOWN.get(name, set())
                if missing:
                    wrong[f"{ours.__name__}.{name}"] = sorted(missing)
    assert wrong == {}


# --- printing --------------------------------------------------------------------------------------------------------
def random_values(rng):
    shape = tuple(int(v) for v in rng.choice([0, 1, 2, 3, 5, 7, 8, 30], rng.integers(0, 4),
                                             p=[0.03, 0.17, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1]))
    odd = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0])
    kinds = [lambda: rng.standard_normal(shape), lambda: rng.random(shape) < 0.5, lambda: np.zeros(shape),
             lambda: rng.integers(-10 ** rng.integers(1, 6), 10 ** rng.integers(1, 6), shape),
             lambda: rng.integers(-5, 10 ** rng.integers(0, 10) + 1, shape).astype(float),
             lambda: rng.standard_normal(shape) * 10.0 ** rng.integers(-8, 12),
             lambda: rng.standard_normal(shape) * 10.0 ** rng.integers(-5, 5, shape),
             lambda: np.where(rng.random(shape) < 0.3, odd, rng.standard_normal(shape)),
             lambda: np.where(rng.random(shape) < 0.3, odd, rng.integers(-9, 9, shape))]
    return np.asarray(kinds[rng.integers(len(kinds))]())


def test_printing_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    try:
        for _ in range(600):
            values, options = random_values(rng), {"profile": "default"}
            if rng.random() < 0.3:
                options = {"precision": int(rng.integers(0, 7)), "threshold": int(rng.choice([5, 100, 1000])),
                           "edgeitems": int(rng.integers(1, 5)), "linewidth": int(rng.choice([40, 80, 120])),
                           "sci_mode": [None, None, True, False][rng.integers(4)]}
            kind = {"f": ["float32", "float64", "float16", "bfloat16"], "i": ["int64", "int32"], "b": ["bool"]}
            dtype = str(rng.choice(kind[values.dtype.kind]))
            needs = values.dtype.kind == "f" and rng.random() < 0.2
            shown = []
            for lib in (tw, torch):
                lib.set_printoptions(**options)
                text = str(lib.tensor(values, dtype=getattr(lib, dtype), requires_grad=bool(needs)))
                # "tilewright" is longer than "torch", so that a suffix may start a line earlier.
                shown.append(re.sub(r",\s+(dtype|requires_grad|size)", r", \1", text.replace("tilewright", "torch")))
            assert shown[0] == shown[1]
    finally:
        for lib in (tw, torch):
            lib.set_printoptions(profile="default")
    with pytest.raises(ValueError, match="set_printoptions: profile must be"):
        tw.set_printoptions(profile="long")


# --- indexing --------------------------------------------------------------------------------------------------------
def random_key(rng, shape):
    def number(low, high):
        return int(rng.integers(low, high))

    key, d, ellipsis = [], 0, False
    common = tuple(number(1, 4) for _ in range(number(0, 3)))
    while d < len(shape) and rng.random() < 0.92:
        n, kind = shape[d], rng.random()
        if kind < 0.17:
            key.append(None if kind < 0.1 or ellipsis else Ellipsis)
            if key[-1] is Ellipsis:
                ellipsis, d = True, number(d, len(shape) + 1)
            continue
        if kind < 0.35:
            ends = [None if rng.random() < 0.4 else number(-n - 2, n + 3) for _ in range(2)]
            key.append(slice(*ends, None if rng.random() < 0.5 else number(1, 4)))
        elif kind < 0.5:
            dims = number(1, len(shape) - d + 1)
            key.append(rng.random(shape[d : d + dims]) < 0.5)
            d += dims - 1
        elif kind < 0.6 or not n:
            key.append([number(-n, n) for _ in range(number(0, 3))] if n else [])
        elif kind < 0.75:
            key.append(number(-n, n) if rng.random() < 0.7 else np.array(number(-n, n)))
        else:
            size = [1 if rng.random() < 0.2 else m for m in common[number(0, len(common) + 1) :]]
            key.append(rng.integers(-n, n, size).astype(rng.choice(["int64", "int32"])))
        d += 1
    if rng.random() < 0.03:
        key.append(number(-9, 9))
    return tuple(key)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore")
def test_indexing_is_pytorchs(seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)

    def outcome(lib, a, key, what, value):
        at = tuple(lib.tensor(i) if isinstance(i, np.ndarray) else i for i in key)
        x = lib.tensor(a, requires_grad=True)
        if what == "get":
            y = x[at]
            (y * y).sum().backward()
            here = y.data_ptr() == x.data_ptr() if y.numel() else None
            return [y.detach().numpy(), x.grad.numpy()], here
        y, v = x * 1, lib.tensor(value, requires_grad=True) if what == "set" else 7.5
        y[at] = v
        (y * lib.tensor(np.arange(a.size).reshape(a.shape) + 1.0)).sum().backward()
        return [y.detach().numpy(), x.grad.numpy(), *([v.grad.numpy()] if what == "set" else [])], None

    for _ in range(150):
        shape = tuple(int(rng.integers(0 if rng.random() < 0.1 else 1, 6)) for _ in range(rng.integers(0, 5)))
        a, key, value = rng.standard_normal(shape), random_key(rng, shape), None
        for what in ("get", "number", "set"):
            found = []
            for lib in (torch, tw):
                try:
                    found.append(outcome(lib, a, key, what, value))
                except (IndexError, ValueError, RuntimeError, TypeError) as error:
                    found.append(error)
            theirs, ours = found
            assert isinstance(theirs, Exception) == isinstance(ours, Exception), (shape, key, what, theirs, ours)
            if isinstance(theirs, Exception):
                break
            for x, y in zip(theirs[0], ours[0], strict=True):
                np.testing.assert_allclose(y, x, err_msg=f"{shape} {key} {what}")
            assert theirs[1] == ours[1], (shape, key)
            if what == "get":
                size = [1 if rng.random() < 0.2 else n for n in theirs[0][0].shape]
                value = rng.standard_normal(size[rng.integers(0, len(size) + 1) if rng.random() < 0.3 else 0 :])


# --- views -----------------------------------------------------------------------------------------------------------
def random_view(rng, x):
    """A random view op for a tensor of x's shape, as a function of the tensor."""
    n = x.dim()
    d, e = (int(rng.integers(-n, n)), int(rng.integers(-n, n))) if n else (0, 0)
    size = x.shape[d] if n else 1
    start = int(rng.integers(0, size + 1))
    order = tuple(int(i) for i in rng.permutation(n))
    choices = [lambda t: t.unsqueeze(d), lambda t: t.squeeze(), lambda t: t.reshape(-1), lambda t: t.flatten(),
               lambda t: t[None], lambda t: t.detach(), lambda t: t.view(*t.shape, 1), lambda t: t.contiguous(),
               lambda t: t.to(t.dtype), lambda t: t.expand(2, *t.shape)]
    if n:
        choices += [lambda t: t.transpose(d, e), lambda t: t.permute(order), lambda t: t.narrow(d, start, size - start),
                    lambda t: t.split(2, d)[-1], lambda t: t.chunk(2, d)[0], lambda t: t.movedim(d, e),
                    lambda t: t[..., ::2], lambda t: t.reshape(*t.shape[:-1], 1, t.shape[-1]),
                    lambda t: t.unflatten(d, (1, -1)), lambda t: t.tensor_split(2, d)[0], lambda t: t.swapaxes(d, e)]
        if size:
            choices += [lambda t: t.select(d, start - 1), lambda t: t.unbind(d)[start - 1],
                        lambda t: t.unfold(d, 1 + start // 2, 1 + start // 3) if size >= 1 + start // 2 else t]
    if n > 1:
        choices += [lambda t: t.diagonal(0, 0, 1), lambda t: t.mT, lambda t: t.flatten(0, 1)]
    return choices[rng.integers(len(choices))]


@pytest.mark.filterwarnings("ignore")
def test_views_alias_as_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    for _ in range(400):
        a = rng.standard_normal(tuple(int(n) for n in rng.integers(1, 5, rng.integers(0, 4))))
        bases = [lib.tensor(a) for lib in (tw, torch)]
        views = list(bases)
        for _ in range(int(rng.integers(1, 5))):
            op = random_view(rng, views[1])
            made = []
            for v in views:
                try:
                    made.append(op(v))
                except (RuntimeError, ValueError, IndexError) as error:
                    made.append(error)
            assert isinstance(made[0], Exception) == isinstance(made[1], Exception), (a.shape, made)
            if isinstance(made[0], Exception) or made[1].dim() > 7:
                break
            views = made
            assert tuple(views[0].shape) == tuple(views[1].shape)
            if views[1].numel():
                assert views[0].is_contiguous() == views[1].is_contiguous()
        ours, theirs = views
        reach = sum((n - 1) * k for n, k in zip(theirs.shape, theirs.stride(), strict=True)) + 1
        places = torch.arange(reach).as_strided(theirs.shape, theirs.stride()) if theirs.numel() else torch.ones(2)
        if len(places.unique()) == places.numel():  # no element is written twice
            ours.mul_(3.0)
            theirs.mul_(3.0)
            assert [n * s for n, s in zip(ours.shape, ours.stride(), strict=True) if n > 1] == [
                n * s for n, s in zip(theirs.shape, theirs.stride(), strict=True) if n > 1]
        np.testing.assert_array_equal(bases[0].numpy(), bases[1].numpy(), f"{theirs.shape} {theirs.stride()}")
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


# --- creation, devices, generators, storages -------------------------------------------------------------------------
def test_default_device_and_dtype():
    with tw.device("cpu") as where:
        assert where == tw.get_default_device() and tw.ones(1).device.type == "cpu"
    calls = []

    @tw.device("cpu")
    def function(x):
        calls.append(tw.get_default_device())
        return x

    assert function(3) == 3 and calls == [tw.device("cpu")]
    tw.set_default_device("cpu")
    tw.set_default_dtype(tw.float64)
    try:
        assert tw.ones(1).dtype == tw.float64 == tw.tensor([1.0]).dtype and str(tw.ones(1)) == "tensor([1.])"
        assert tw.arange(0, 1, 0.5).dtype == tw.float64
    finally:
        tw.set_default_dtype(tw.float32)
    if not tw.cuda.is_available():
        with pytest.raises(RuntimeError, match="is not available"), tw.device("cuda"):
            pass
    assert tw.get_default_device() == tw.device("cpu")


def test_creation_takes_pytorchs_arguments():
    assert tw.zeros(size=(2, 1)).shape == (2, 1) == tw.randn(size=(2, 1)).shape == tw.empty(size=(2, 1)).shape
    out = tw.empty(3)
    assert tw.arange(3, out=out) is out and out.tolist() == [0, 1, 2] and tw.zeros(3, out=out).tolist() == [0] * 3
    assert tw.randint(high=2, size=(50,)).max().item() == 1 and tw.randint(3, 5, (50,)).min().item() == 3
    assert tw.range(1, 4).tolist() == [1, 2, 3, 4] and tw.logspace(0, 2, 3, base=2).tolist() == [1, 2, 4]
    assert tw.full((2,), tw.tensor(3)).dtype == tw.int64 and tw.scalar_tensor(2).dtype == tw.float32
    x = tw.ones(1, 2, 3, 4, requires_grad=True)
    y = x.to(memory_format=tw.channels_last)
    assert y.stride() == (24, 1, 8, 2) and y.is_contiguous(memory_format=tw.channels_last) and not y.is_contiguous()
    assert y.contiguous().is_contiguous() and y.clone(memory_format=tw.channels_last).stride() == y.stride()
    (y * 2).sum().backward()
    assert (x.grad == 2).all() and tw.zeros_like(x, memory_format=tw.channels_last).stride() == y.stride()
    assert x.new_zeros(2, dtype=tw.int64).dtype == tw.int64 and x.new_full((2,), 0.0).tolist() == [0, 0]
    with pytest.raises(ValueError, match="channels_last: the tensor must have 4 dimensions"):
        tw.ones(2).contiguous(memory_format=tw.channels_last)
    a = np.arange(3.0)
    assert tw.asarray(a).data_ptr() == a.ctypes.data != tw.asarray(a, copy=True).data_ptr()
    with pytest.raises(ValueError, match="asarray: copy=False"):
        tw.asarray(a, dtype=tw.float32, copy=False)
    assert tw.frombuffer(b"\x00\x00\x80\x3f", dtype=tw.float32).item() == 1


def test_generators():
    g = tw.Generator().manual_seed(3)
    for draw in (lambda: tw.rand(3, generator=g), lambda: tw.randn(3, generator=g), lambda: tw.randperm(9, generator=g),
                 lambda: tw.randint(9, (3,), generator=g), lambda: tw.normal(0.0, 1.0, (3,), generator=g),
                 lambda: tw.bernoulli(tw.full((9,), 0.5), generator=g), lambda: tw.rand_like(tw.ones(3), generator=g),
                 lambda: tw.multinomial(tw.ones(9), 3, generator=g), lambda: tw.empty(3).exponential_(generator=g),
                 lambda: tw.empty(3).uniform_(generator=g), lambda: tw.empty(3).random_(0, 9, generator=g),
                 lambda: tw.poisson(tw.full((3,), 9.0), generator=g), lambda: tw.empty(3).geometric_(0.2, generator=g)):
        state, other = g.get_state(), g.clone_state()
        first = draw()
        g.set_state(state)
        assert (draw() == first).all() and other.get_state().tolist() == state.tolist() != g.get_state().tolist()
    x = tw.empty(40_000)
    for fill, mean in ((lambda: x.exponential_(2.0), 0.5), (lambda: x.geometric_(0.25), 4.0),
                       (lambda: x.log_normal_(0.0, 0.5), np.exp(0.125)), (lambda: x.cauchy_(1.0, 0.5).clamp_(-9, 11),
                           1)):
        assert fill() is x and abs(x.mean().item() - mean) < 0.04 * mean
    counts = tw.poisson(tw.tensor([0.5, 40.0]).expand(20_000, 2))
    np.testing.assert_allclose(counts.mean(0).numpy(), [0.5, 40.0], rtol=0.03)
    np.testing.assert_allclose(counts.var(0).numpy(), [0.5, 40.0], rtol=0.05)
    assert tw.empty(4000, dtype=tw.uint8).random_().max().item() == 255 and tw.bernoulli(tw.empty(9), 1.0).sum() == 9
    with tw.random.fork_rng():
        inside = tw.rand(2)
    assert (tw.rand(2) == inside).all()


def test_copies_and_pickles():
    for thing in (tw.float32, tw.device("cpu"), tw.channels_last, tw.strided, tw.Generator().manual_seed(5),
                  tw.distributions.Normal(0.0, 1.0)):
        for again in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing)):
            assert type(again) is type(thing) and repr(again)[:20] == repr(thing)[:20]
    for dtype in (tw.float16, tw.bfloat16, tw.bool, tw.uint8):
        x = tw.tensor([[0.0, 1.0], [2.0, 3.0]]).to(dtype).t()
        for again in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x)):
            assert again.dtype == dtype and (again == x).all()
    assert copy.copy(x).data_ptr() == x.data_ptr() != copy.deepcopy(x).data_ptr()


def test_typed_tensors_and_storages():
    x = tw.arange(6, dtype=tw.float32).reshape(2, 3)
    assert x.type() == "torch.FloatTensor" and x.type("torch.LongTensor").dtype == tw.int64
    assert x.type(tw.DoubleTensor).dtype == tw.float64 == x.type("DoubleTensor").dtype == x.type(tw.float64).dtype
    assert x.type(x.long().type()).type() == "torch.LongTensor" and x.type_as(x.half()).dtype == tw.float16
    assert tw.cuda.FloatTensor is tw.cuda.FloatTensor and not isinstance(x, tw.cuda.FloatTensor)
    with pytest.raises(TypeError, match="type: must be a dtype, a typed tensor"):
        x.type("Float")
    s = x[1].storage()
    assert len(s) == s.size() == 6 and s[4] == 4 and s.nbytes() == 24 and s.data_ptr() == x.data_ptr()
    s[5] = 50
    assert x[1, 2].item() == 50 and s.tolist()[-1] == 50 and isinstance(s, tw.FloatStorage)
    with pytest.raises(IndexError, match=r"a 0-d tensor has no dimension to index, got \[0\]; use \.item\(\)"):
        x.sum().data[0]
    pixels = tw.ByteTensor(tw.ByteStorage.from_buffer(b"\x01\x02\xff"))
    assert pixels.tolist() == [1, 2, 255] and pixels.dtype == tw.uint8
    bits = x.view(tw.int32)
    bits[0, 0] = 0x40000000
    assert x[0, 0].item() == 2.0 and x.view(tw.uint8).shape == (2, 12) and x.view(tw.int16)[0, 1].item() == 0x4000
    assert tw.ones(2, 4).view(tw.float64).shape == (2, 2)
    assert x.name is None and x.is_cpu and not x.is_meta and x.layout is tw.strided and x.H.shape == (3, 2)
    assert x.is_signed() and not pixels.is_signed() and x.is_set_to(x[:]) and not x.is_set_to(x[0])
    with pytest.warns(DeprecationWarning, match="resize: use reshape"):
        assert x.resize(3, 2).shape == (3, 2)


def test_a_group_of_one_process():
    dist = tw.distributed
    with pytest.raises(RuntimeError, match="all_reduce: there is no group; call init_process_group first"):
        dist.all_reduce(tw.ones(1))
    with pytest.raises(NotImplementedError, match="one process, got world_size=4"):
        dist.init_process_group("nccl", world_size=4, rank=0)
    dist.init_process_group("nccl", init_method="env://")
    try:
        x, places = tw.tensor([1.0, 2.0]), [tw.zeros(2)]
        assert dist.is_initialized() and dist.get_backend() == "nccl" and dist.new_group([0]) is None
        assert dist.all_reduce(x, op=dist.ReduceOp.SUM, async_op=True).wait() and x.tolist() == [1, 2]
        dist.broadcast(x, src=0)
        dist.barrier()
        dist.all_gather(places, x)
        assert places[0].tolist() == [1, 2] and places[0].data_ptr() != x.data_ptr()
        dist.scatter(x, [places[0] * 2], src=0)
        dist.reduce_scatter(places[0], [x])
        assert places[0].tolist() == x.tolist() == [2, 4]
        objects = [None]
        dist.all_gather_object(objects, {"a": 1})
        assert objects == [{"a": 1}]
        with pytest.raises(ValueError, match="broadcast: the only rank is 0, got 1"):
            dist.broadcast(x, 1)
    finally:
        dist.destroy_process_group()
    assert not dist.is_initialized()


def test_summary_writer_takes_tensors(monkeypatch):
    from tilewright.utils.tensorboard import SummaryWriter

    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        SummaryWriter()
    calls = []

    class Writer:
        def __init__(self, *args, **kwargs):
            calls.append(("made", args, kwargs["max_queue"]))

        def __getattr__(self, name):
            return lambda *args, **kwargs: calls.append((name, args, kwargs))

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=Writer))
    with SummaryWriter("runs") as writer:
        writer.add_scalar("loss", tw.tensor(2.0, requires_grad=True) * 2, 3)
        writer.add_scalars("both", {"a": tw.tensor(1)}, global_step=4)
        writer.add_histogram("w", tw.ones(2, dtype=tw.bfloat16))
        with pytest.raises(NotImplementedError, match="add_graph: models are not traced"):
            writer.add_graph(None)
    assert calls[:3] == [("made", ("runs", ""), 10), ("add_scalar", ("loss", 4.0, 3), {}),
                         ("add_scalars", ("both", {"a": 1}), {"global_step": 4})]
    assert calls[3][1][1].tolist() == [1, 1] and calls[4][0] == "close"


def test_pytree():
    from collections import OrderedDict, namedtuple

    from tilewright.utils import _pytree as trees

    pair = namedtuple("pair", ("a", "b"))
    tree = {"x": [1, (2, None)], "y": pair(3, OrderedDict(z=4))}
    leaves, spec = trees.tree_flatten(tree)
    assert leaves == [1, 2, None, 3, 4] and trees.tree_unflatten(leaves, spec) == tree and spec.num_leaves == 5
    assert trees.tree_map_only(int, lambda v: -v, tree)["y"] == pair(-3, OrderedDict(z=-4))
    assert trees.tree_map(lambda a, b: a + b, [1, [2]], [10, [20]]) == [11, [22]]
    with pytest.raises(ValueError, match="tree_unflatten: needs 5 leaves, got 1"):
        trees.tree_unflatten([1], spec)


def _child(i, scale):
    if i * scale == 6:
        raise ValueError(f"child {i} says no")


def test_spawn():
    assert tw.multiprocessing.spawn(_child, args=(2,), nprocs=2, start_method="fork") is None
    with pytest.raises(tw.multiprocessing.ProcessRaisedException, match=r"process 1 failed(.|\n)*child 1 says no"):
        tw.multiprocessing.spawn(_child, args=(6,), nprocs=2, start_method="fork")
