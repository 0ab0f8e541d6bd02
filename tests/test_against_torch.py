"""Every op and layer against PyTorch, on the samples of PyTorch's own operator and module databases.

For each op of `op_db`, in float32, float64, int64 and bool where PyTorch has them: the function, the method and the
in-place form give the same values, dtypes, shapes and gradients (by one cotangent), or refuse what PyTorch refuses; and
each error input of the database raises. For each layer of `module_db`: the same keys of `state_dict`, and from the same
weights the same results, gradients and buffers, in training and in evaluation.

Names that tilewright has not are counted, not failed. What it has and does differently stands, with the reason, in
`torch_exclusions.py`; an excluded sample that passes fails the test. conftest.py prints the totals at the end.
"""

from __future__ import annotations

import functools
import inspect
import random
import re
import types
import warnings
import zlib

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # which PyTorch's databases import
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

from torch_exclusions import EXCLUDED, EXCLUDED_MODULES, FOREIGN, GAUGE, LOOSER, RANDOM, TIES  # noqa: E402

# PyTorch's test helpers forbid all later changes of its backends' flags, which scripts that other tests run do make.
torch.backends.disable_global_flags.__globals__["__allow_nonbracketed_mutation_flag"] = True

DTYPES = (torch.float32, torch.float64, torch.int64, torch.bool)
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 2e-5, torch.float64: 1e-10}
# PyTorch raises RuntimeError for nearly everything; the house tells shapes and values (ValueError), dtypes (TypeError)
# and indices (IndexError) apart, and says NotImplementedError where it refuses what PyTorch could do.
COUSINS = (ValueError, TypeError, IndexError, RuntimeError, NotImplementedError)


class NotHere(Exception):
    """A sample that tilewright has no values for: complex numbers, sparse layouts, nine dimensions."""


class Difference(Exception):
    """Where the two libraries differ."""


# --- from one library to the other -----------------------------------------------------------------------------------
def dtype_of(dtype):
    name = str(dtype).removeprefix("torch.")
    if not isinstance(getattr(tw, name, None), tw.dtype):
        raise NotHere(f"dtype {name}")
    return getattr(tw, name)


class Translator:
    """PyTorch's arguments as tilewright's: equal values in the same layout; `pairs` are the leaves of both."""

    def __init__(self):
        self.made, self.pairs = {}, []

    def __call__(self, v):
        if isinstance(v, torch.Tensor):
            if id(v) not in self.made:
                self.made[id(v)] = self.tensor(v)
            return self.made[id(v)]
        if isinstance(v, torch.dtype):
            return dtype_of(v)
        if isinstance(v, torch.device):
            return tw.device(str(v))
        if isinstance(v, dict):
            return {k: self(x) for k, x in v.items()}
        if isinstance(v, torch.Size):
            return tuple(v)
        if isinstance(v, list | tuple):
            return type(v)(self(x) for x in v)
        if isinstance(v, slice):
            return slice(*map(self, (v.start, v.stop, v.step)))
        if isinstance(v, torch.layout | torch.memory_format) and hasattr(tw, str(v).removeprefix("torch.")):
            return getattr(tw, str(v).removeprefix("torch."))
        if isinstance(v, complex | torch.layout | torch.memory_format | torch.Generator):
            raise NotHere(f"{type(v).__name__} {v}")
        if isinstance(v, torch.nn.TransformerEncoderLayer):  # the one layer that is an argument of another
            return nn.TransformerEncoderLayer(
                v.self_attn.embed_dim, v.self_attn.num_heads, v.linear1.out_features, v.dropout.p, self(v.activation),
                v.norm1.eps, v.self_attn.batch_first, v.norm_first, v.linear1.bias is not None)
        if callable(v) and (getattr(v, "__module__", None) or "torch").startswith("torch"):
            if getattr(nn.functional, getattr(v, "__name__", ""), None) is None:
                raise NotHere(f"PyTorch's {v}")
            return getattr(nn.functional, v.__name__)
        return v

    def tensor(self, v):
        if v.layout is not torch.strided or v.is_complex() or v.is_nested or v._is_zerotensor() or v.dim() > 8:
            raise NotHere(f"tensor {v.layout} {v.dtype}")
        dtype, plain = dtype_of(v.dtype), v.detach()
        plain = plain.float() if v.dtype is torch.bfloat16 else plain
        n = plain.untyped_storage().size() // plain.element_size()
        whole = plain.as_strided((n,), (1,), 0) if n else plain  # with what a view leaves out
        t = tw.from_numpy(whole.numpy().copy()).to(dtype)
        t = t.as_strided(plain.shape, plain.stride(), plain.storage_offset()).detach() if n else t
        if v.requires_grad:
            t.requires_grad_()
            self.pairs.append((v, t))
        return t


def flat(y) -> list:
    if isinstance(y, list | tuple):
        return [x for part in y for x in flat(part)]
    return [x for part in y.values() for x in flat(part)] if isinstance(y, dict) else [y]


def array(t):
    t = t.detach()
    return (t.float() if str(t.dtype).endswith("bfloat16") else t).numpy(force=True)


def compare(what, ours, theirs, values=True, dtype=None, looser=1):
    """Raises Difference unless two results agree; `dtype` is that of the inputs, which sets how well."""
    if isinstance(ours, torch.Size | tuple | list) or isinstance(theirs, torch.Size | tuple | list):
        ours, theirs = flat(ours), flat(theirs)
        if len(ours) != len(theirs):
            raise Difference(f"{what}: {len(ours)} results for PyTorch's {len(theirs)}")
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            compare(f"{what} {k}", a, b, values, dtype, looser)
        return
    if not isinstance(theirs, torch.Tensor):
        same = isinstance(ours, tw.Tensor) is False and str(ours).replace("tilewright.", "torch.") == str(theirs)
        if not same and (isinstance(ours, tw.Tensor) or not np.isclose(ours, theirs, rtol=1e-5, equal_nan=True)):
            raise Difference(f"{what}: {ours!r} for PyTorch's {theirs!r}")
        return
    if theirs.is_complex() or theirs.layout is not torch.strided:
        raise NotHere(f"result {theirs.layout} {theirs.dtype}")
    if not isinstance(ours, tw.Tensor):
        raise Difference(f"{what}: {type(ours).__name__} for PyTorch's Tensor")
    if tuple(ours.shape) != tuple(theirs.shape) or f"torch.{ours.dtype.name}" != str(theirs.dtype):
        raise Difference(f"{what}: {ours.dtype.name} {tuple(ours.shape)} for PyTorch's {theirs.dtype} "
                         f"{tuple(theirs.shape)}")
    if not values:
        return
    a, b = array(ours), array(theirs)
    if a.dtype.kind != "f":
        bad = a != b
    else:
        tolerance = max(TOLERANCE[theirs.dtype], TOLERANCE.get(dtype, 0.0)) * looser
        finite = np.isfinite(b)
        scale = max(1.0, float(np.abs(b[finite]).max(initial=0)))
        with np.errstate(all="ignore"):
            bad = ~((a == b) | (np.isnan(a) & np.isnan(b)) | (finite & (np.abs(a - b) <= tolerance * scale)))
    if bad.any():
        raise Difference(f"{what}: {int(bad.sum())} of {bad.size} values, the first {a[bad][:3]} for PyTorch's "
                         f"{b[bad][:3]}")


# --- ops -------------------------------------------------------------------------------------------------------------
def find(name: str, owner=tw):
    for part in name.split("."):
        owner = getattr(owner, part, None)
    return owner


def in_our_words(function):
    """A function of PyTorch's database with `torch` meaning tilewright, and no seeding around it."""
    names = {**function.__globals__, "torch": tw, "wrapper_set_seed": lambda op, *args, **kwargs: op(*args, **kwargs)}
    return types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


def known(function) -> bool:
    """Whether tilewright has the names that a function of the database uses."""
    names = function.__code__.co_names
    if "torch" not in names:
        return all(hasattr(tw.Tensor, n) for n in names)
    return find(".".join(names[names.index("torch") + 1:]).removesuffix(".clone")) is not None


def forms(op) -> dict:
    """{form: (PyTorch's, ours or None)} of an op: function, method, in-place."""
    f, made = op.op, {}
    if isinstance(f, types.FunctionType) and f.__module__.startswith("torch.testing"):
        made["function"] = f, in_our_words(f) if known(f) else None
    elif getattr(f, "__objclass__", None) is torch._C.TensorBase or f is getattr(torch.Tensor, op.name, None):
        made["function"] = f, getattr(tw.Tensor, f.__name__, None)
    else:
        made["function"] = f, find(op.name)
    for form, variant in (("method", op.method_variant), ("inplace", op.inplace_variant)):
        if variant is not None and variant is not f:
            name = getattr(variant, "__name__", op.name + ("_" if form == "inplace" else ""))
            made[form] = variant, getattr(tw.Tensor, name, None)
    return made


def samples_of(op, dtype, gradients) -> list:
    """The database's samples, drawn from one seed an op and dtype."""
    seed = zlib.crc32(f"{op.name} {op.variant_test_name} {dtype}".encode())
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    return list(op.sample_inputs_func(op, "cpu", dtype, gradients))  # without reseeding at each, which is slow


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Samples are small: with more threads, most of the time goes to waking them."""
    before = torch.get_num_threads(), tw.get_num_threads()
    torch.set_num_threads(1)
    tw.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    tw.set_num_threads(before[1])


def check_sample(theirs, ours, sample, *, inplace=False, values=True, ties=False, gauge=False, looser=1,
                 process=None, dtype=None):
    """Raises Difference where forward or gradients differ, or where we take what PyTorch refuses."""
    to_ours = Translator()
    args, kwargs = [sample.input, *sample.args], sample.kwargs
    our_args, our_kwargs = to_ours(args), to_ours(kwargs)
    if inplace:
        args[0], our_args[0] = args[0].clone(), our_args[0].clone()
    try:
        expected = theirs(*args, **kwargs)
    except Exception as error:
        refuses(ours, our_args, our_kwargs, error)
        return
    try:
        result = ours(*our_args, **our_kwargs)
    except Exception as error:
        raise Difference(f"raised {type(error).__name__}: {error}") from error
    if inplace and result is not our_args[0]:
        raise Difference("the in-place form must return its input")
    if ties and not dtype.is_floating_point:
        compare("indices", flat(result)[-1], flat(expected)[-1], False)
        result, expected = flat(result)[:-1], flat(expected)[:-1]
    if gauge:  # vectors up to their sign: the database knows what of them is determined
        compare("result", result, expected, False)
        result, expected = process(result), process(expected)
    compare("result", result, expected, values, dtype, looser)
    if process is not None and not gauge:
        result, expected = process(result), process(expected)
    leaves = to_ours.pairs
    outs = [(a, b) for a, b in zip(flat(result), flat(expected), strict=True)
            if isinstance(b, torch.Tensor) and b.requires_grad]
    if leaves and outs and values:
        compare_gradients(leaves, outs, dtype, looser)


def compare_gradients(leaves, outs, dtype, looser=1):
    rng = np.random.default_rng(1)
    cotangents = [torch.from_numpy(np.asarray(rng.standard_normal(tuple(b.shape)))).to(b.dtype) for _, b in outs]
    try:
        dxs = torch.autograd.grad([b for _, b in outs], [v for v, _ in leaves], cotangents, allow_unused=True)
    except (RuntimeError, NotImplementedError):
        return  # PyTorch has no gradient here
    given = [(a, Translator()(g)) for (a, _), g in zip(outs, cotangents, strict=True) if a.requires_grad]
    try:
        ours = tw.autograd.grad([a for a, _ in given], [t for _, t in leaves], [g for _, g in given],
                                allow_unused=True) if given else [None] * len(leaves)
    except Exception as error:
        raise Difference(f"the gradient raised {type(error).__name__}: {error}") from error
    for k, (a, b, (v, t)) in enumerate(zip(ours, dxs, leaves, strict=True)):  # no gradient and zeros are the same
        compare(f"gradient {k}", tw.zeros_like(t) if a is None else a, torch.zeros_like(v) if b is None else b, True,
                dtype, looser)


def refuses(ours, args, kwargs, error):
    try:
        result = ours(*args, **kwargs)
    except COUSINS:
        return
    except Exception as other:
        raise Difference(f"{type(other).__name__}: {other} for PyTorch's {type(error).__name__}") from other
    shown = result.shape if isinstance(result, tw.Tensor) else result
    raise Difference(f"no error, got {shown}; PyTorch: {type(error).__name__}: {str(error).strip().splitlines()[0]}")


class Tally:
    """What became of each sample of an op."""

    def __init__(self, name: str, exclusions):
        self.name, self.exclusions = name, exclusions
        self.counts = dict.fromkeys(("passed", "failed", "excluded", "not here"), 0)
        self.problems: dict[str, list] = {}
        self.unused = list(exclusions)
    def run(self, form: str, dtype, sample, check):
        entry = next((e for e in self.exclusions if e.matches(form, str(dtype).removeprefix("torch."), sample)), None)
        self.unused = [e for e in self.unused if e is not entry]
        try:
            check()
            outcome = "passed"
        except NotHere:
            outcome = "not here"
        except Difference as difference:
            outcome = "excluded" if entry else "failed"
            if not entry:
                self.note(str(difference), form, dtype, sample)
        else:
            if entry:
                self.note(f"an excluded sample passes, so the exclusion goes or becomes narrower ({entry.reason})",
                          form, dtype, sample)
        self.counts[outcome] += 1

    def note(self, problem: str, form: str, dtype, sample):
        kind = re.sub(r"(, the first.*)|\b\d+ of \d+\b|float(32|64)|int64", "", problem)
        self.problems.setdefault(kind, []).append((problem, f"{form} {dtype}", sample))

    def finish(self, record_property):
        record_property("against_torch", {self.name: self.counts})
        for entry in (e for e in self.unused if e.op == self.name):
            self.problems[f"an exclusion meets no sample, so it goes: {entry.reason}"] = []
        if self.problems:
            lines = [f"{found[0][0]}\n    {', '.join(dict.fromkeys(where for _, where, _ in found))}; {len(found)} "
                     f"samples, such as {shown(found[0][2])}" if found else what
                     for what, found in self.problems.items()]
            raise AssertionError(f"{len(lines)} differences\n" + "\n".join(lines[:12]))


def shown(sample) -> str:
    def brief(v):
        if isinstance(v, torch.Tensor):
            values = f"={v.tolist()}" if v.numel() < 7 else ""
            return f"{str(v.dtype).removeprefix('torch.')}{list(v.shape)}{values}"
        if isinstance(v, list | tuple):
            return f"[{', '.join(map(brief, v))}]"
        return repr(v)

    named = [f"{k}={brief(v)}" for k, v in sample.kwargs.items()]
    return ", ".join([*map(brief, [sample.input, *sample.args]), *named])


def op_id(op) -> str:
    return f"{op.name}-{op.variant_test_name}" if op.variant_test_name else op.name


@pytest.mark.parametrize("op", op_db, ids=op_id)
@pytest.mark.filterwarnings("ignore")
def test_op(op, record_property):
    if op.name.startswith(FOREIGN) or op.name in FOREIGN:
        record_property("against_torch", {op_id(op): "another system's"})
        pytest.skip("another system's")
    there = {form: pair for form, pair in forms(op).items() if pair[1] is not None}
    if "function" not in there:
        record_property("against_torch", {op_id(op): "not there yet"})
        pytest.skip("not there yet")
    tally = Tally(op_id(op), [e for e in EXCLUDED if e.op in (op.name, op_id(op))])
    for dtype in DTYPES:
        if dtype not in op.supported_dtypes("cpu"):
            continue
        gradients = op.supports_autograd and dtype in op.supported_backward_dtypes("cpu")
        for k, sample in enumerate(samples_of(op, dtype, gradients)):
            for form, (theirs, ours) in there.items():
                if (form == "method" and k > 2) or (form == "inplace" and sample.broadcasts_input):
                    continue
                process = sample.output_process_fn_grad if gradients and form != "inplace" else None
                tally.run(form, dtype, sample, functools.partial(
                    check_sample, theirs, ours, sample, inplace=form == "inplace", values=op.name not in RANDOM,
                    ties=op.name in TIES, gauge=op.name in GAUGE and gradients, looser=LOOSER.get(op.name, 1),
                    process=process, dtype=dtype))
    if op.error_inputs_func is not None:
        check_errors(op, there["function"], tally)
    tally.finish(record_property)


def check_errors(op, pair, tally):
    torch.manual_seed(0)
    samples = [wrong.sample_input for wrong in op.error_inputs("cpu")]
    ready = []
    for sample in samples:  # before PyTorch runs any, which may resize what `out` names
        to_ours = Translator()
        try:
            ready.append((sample, to_ours([sample.input, *sample.args]), to_ours(sample.kwargs)))
        except NotHere:
            tally.counts["not here"] += 1
    for sample, args, kwargs in ready:
        try:
            pair[0](sample.input, *sample.args, **sample.kwargs)
        except Exception as error:
            tally.run("error", "any", sample, functools.partial(refuses, pair[1], args, kwargs, error))


# --- layers ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("info", module_db, ids=lambda info: info.formatted_name)
@pytest.mark.filterwarnings("ignore")
def test_module(info, record_property):
    name = info.module_cls.__name__
    ours = getattr(nn, name, None)
    key = f"nn.{info.formatted_name}"
    if ours is None:
        record_property("against_torch", {key: "not there yet"})
        pytest.skip("not there yet")
    tally = Tally(key, [e for e in EXCLUDED_MODULES if e.op == name])
    for dtype in (torch.float32, torch.float64):
        if dtype not in info.dtypes:
            continue
        for training in (True, False):
            torch.manual_seed(zlib.crc32(name.encode()))
            inputs = list(info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True,
                                                  training=training))
            for sample in inputs:
                if sample.forward_input is None:
                    continue
                tally.run("train" if training else "eval", dtype, ModuleSample(sample), functools.partial(
                    check_module, info.module_cls, ours, sample, training, dtype, name in RANDOM and training))
    tally.finish(record_property)


class ModuleSample:
    """A module's sample in the shape of an op's, for exclusions and messages."""

    def __init__(self, sample):
        made, given = sample.constructor_input, sample.forward_input
        self.input, self.args, self.kwargs = made.args, given.args, {**made.kwargs, **given.kwargs}


def check_module(theirs, ours, sample, training, dtype, drawn):
    made, given, to_ours = sample.constructor_input, sample.forward_input, Translator()
    kwargs = dict(made.kwargs)
    if "dtype" in inspect.signature(theirs).parameters:
        kwargs["dtype"] = dtype
    a = theirs(*made.args, **kwargs).to(dtype).train(training)
    try:
        b = ours(*to_ours(list(made.args)), **to_ours(kwargs)).to(dtype_of(dtype)).train(training)
    except Exception as error:
        raise error if isinstance(error, NotHere) else Difference(f"raised {type(error).__name__}: {error}") from error
    if "Lazy" in theirs.__name__:  # the first input says the sizes
        a(*given.args, **given.kwargs)
        b(*to_ours(list(given.args)), **to_ours(given.kwargs))
    state = a.state_dict()
    if list(b.state_dict()) != list(state):
        raise Difference(f"state_dict has {list(b.state_dict())} for PyTorch's {list(state)}")
    b.load_state_dict({k: Translator()(v.detach()) for k, v in state.items()})
    args, keywords = to_ours(list(given.args)), to_ours(given.kwargs)
    expected = a(*given.args, **given.kwargs)
    try:
        result = b(*args, **keywords)
    except Exception as error:
        raise Difference(f"raised {type(error).__name__}: {error}") from error
    compare("result", result, expected, not drawn, dtype)
    if drawn:
        return
    for (k, v), w in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        compare(k, w, v, True, dtype)
    leaves = to_ours.pairs + [(v, w) for (_, v), (_, w) in zip(a.named_parameters(), b.named_parameters(), strict=True)]
    outs = [(x, y) for x, y in zip(flat(result), flat(expected), strict=True)
            if isinstance(y, torch.Tensor) and y.requires_grad]
    if outs:
        compare_gradients(leaves, outs, dtype)
