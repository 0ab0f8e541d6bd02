"""Bad input gets an error that names the op, the rule and the values, and everything stays as it was."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tilewright as tw
from arrays import bits
from op_table import ROWS

F = tw.nn.functional


def ones(*shape, dtype=None):
    return tw.ones(shape, dtype=dtype or tw.float32)


# In-place ops that fail must not have begun -------------------------------------------------------------------------

IN_PLACE = {
    "add_ shapes": (lambda x: x.add_(ones(5)), ValueError, r"add.*\(4, 3\).*\(5,\)|add.*\(5,\).*\(4, 3\)"),
    "add_ grows": (lambda x: x.add_(ones(2, 4, 3)), ValueError, r"add.*\(4, 3\)"),
    "mul_ complex": (lambda x: x.mul_("two"), TypeError, "mul|str"),
    "copy_ shapes": (lambda x: x.copy_(ones(4)), ValueError, r"copy.*\(4,\)"),
    "assign shapes": (lambda x: x.__setitem__(slice(1, 3), ones(3, 3)), ValueError, r"\(3, 3\).*\(2, 3\)"),
    "assign index": (lambda x: x.__setitem__(tw.tensor([0, 1, 2, 4]), 7.0), IndexError, "4"),
    "assign negative index": (lambda x: x.__setitem__(tw.tensor([0, -5]), 7.0), IndexError, "-5"),
    "assign mask": (lambda x: x.__setitem__(tw.ones(5) > 0, 7.0), (IndexError, ValueError), r"5"),
    "assign values of mask": (lambda x: x.__setitem__(x > 0, ones(5)), (IndexError, ValueError), "5"),
    "scatter_add_ index": (
        lambda x: x.scatter_add_(0, tw.tensor([[0, 1, 2], [3, 9, 1]]), ones(2, 3)), IndexError, "scatter_add.*9"),
    "scatter_add_ negative": (
        lambda x: x.scatter_add_(0, tw.tensor([[0, 1, 2], [3, -1, 1]]), ones(2, 3)), IndexError, "scatter_add.*-1"),
    "scatter_add_ dtype": (
        lambda x: x.scatter_add_(0, tw.tensor([[0]]), ones(1, 1, dtype=tw.float64)), TypeError, "scatter_add.*float64"),
    "index_add_ index": (lambda x: x.index_add_(0, tw.tensor([0, 4]), ones(2, 3)), IndexError, "index_add.*4"),
    "masked_fill_ dtype": (lambda x: x.masked_fill_(ones(4, 3), 1.0), TypeError, "masked_fill.*float32"),
    "uniform_ range": (lambda x: x.uniform_(2, 1), ValueError, "uniform"),
    "normal_ std": (lambda x: x.normal_(0, -1), ValueError, "normal.*-1"),
    "bernoulli_ p": (lambda x: x.bernoulli_(1.5), ValueError, r"bernoulli.*1\.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PLACE)
def test_refused_in_place_op_changes_nothing(name):
    call, error, words = IN_PLACE[name]
    x = (tw.arange(0, 12, dtype=tw.float32) - 2).reshape(4, 3)
    before, version = bits(x), x._version
    with pytest.raises(error, match=re.compile(words, re.S)):
        call(x)
    assert bits(x) == before
    assert x._version == version


@pytest.mark.parametrize("name", ["add_", "mul_", "div_", "copy_float"])
def test_in_place_ops_do_not_change_the_dtype(name):
    """An integer tensor cannot hold a float result: refused rather than cut. copy_ casts, as its name says."""
    x = tw.tensor([1, 2, 3])
    if name == "copy_float":
        assert x.copy_(tw.tensor([1.7, -1.7, 3.0])).tolist() == [1, -1, 3]
        return
    with pytest.raises((TypeError, RuntimeError), match=r"int64"):
        getattr(x, name)(tw.tensor([0.5, 0.5, 0.5]))
    assert x.tolist() == [1, 2, 3]


# Sizes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [tw.zeros, tw.ones, tw.empty, tw.rand, tw.randn])
def test_bad_sizes(fn):
    with pytest.raises(ValueError, match=r"-1"):
        fn(2, -1)
    with pytest.raises((TypeError, ValueError), match=r"2.5|float|integer"):
        fn(2.5)
    with pytest.raises((ValueError, OverflowError, MemoryError), match=r"\d{6}|overflow|too (large|many)"):
        fn(2**31, 2**31, 2**31)
    with pytest.raises((OverflowError, ValueError, TypeError, MemoryError), match=r"\d{6}|int|overflow"):
        fn(2**64)
    with pytest.raises((MemoryError, ValueError, OverflowError, RuntimeError), match=r"\d{6}|bytes|memory|overflow"):
        fn(2**61)


def test_out_of_memory_is_an_exception_and_the_engine_goes_on():
    with pytest.raises(MemoryError, match=r"\d"):
        tw.empty(2**52)
    assert (tw.ones(3) + 1).tolist() == [2, 2, 2]


def test_products_of_sizes_that_overflow():
    with pytest.raises((ValueError, OverflowError, MemoryError, RuntimeError), match=r"\d"):
        tw.ones(1, 1).expand(2**32, 2**32).contiguous()
    with pytest.raises((ValueError, OverflowError, MemoryError, RuntimeError), match=r"\d"):
        tw.cat([tw.ones(1).expand(2**62), tw.ones(1).expand(2**62), tw.ones(1).expand(2**62)])
    with pytest.raises((ValueError, OverflowError, MemoryError, RuntimeError), match=r"\d"):
        F.pad(tw.ones(1), (2**62, 2**62))


def test_too_many_dimensions():
    with pytest.raises(ValueError, match=r"8|dim"):
        tw.zeros(*[1] * 9)
    x = tw.zeros(*[1] * 8)
    with pytest.raises(ValueError, match=r"8|dim"):
        x.unsqueeze(0)


# Zero-size where undefined, and where defined -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["amax", "amin", "argmax", "argmin"])
def test_extremes_of_nothing(name):
    fn = getattr(tw, name)
    with pytest.raises((ValueError, IndexError), match=name):
        fn(ones(3, 0), 1)
    assert tuple(fn(ones(0, 3), 1).shape) == (0,), "no row at all is not an empty row"
    with pytest.raises((ValueError, IndexError), match=name.removeprefix("a")):
        fn(ones(0), 0)


def test_neutral_elements_of_nothing():
    empty = ones(3, 0)
    assert empty.sum(1).tolist() == [0, 0, 0] and empty.prod(1).tolist() == [1, 1, 1]
    assert np.isnan(empty.mean(1).numpy()).all() and np.isnan(ones(0).mean().item())
    assert not (empty > 0).any(1).numpy().any() and (empty > 0).all(1).numpy().all()
    assert (ones(2, 0) @ ones(0, 3)).tolist() == [[0, 0, 0]] * 2
    assert tw.cat([ones(0), ones(2)]).tolist() == [1, 1]
    assert np.isnan(F.cross_entropy(ones(0, 3), tw.zeros(0, dtype=tw.int64)).item())


# Dtypes and devices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tw.zeros(2, dtype="float"), "float"),
        (lambda: tw.zeros(2, dtype="complex64"), "complex64"),
        (lambda: ones(2) & ones(2), "bitwise_and.*float32"),
        (lambda: ~ones(2), "bitwise_not.*float32"),
        (lambda: tw.bitwise_left_shift(ones(2), ones(2)), "shift.*float32"),
        (lambda: tw.tensor([True]) - tw.tensor([True]), "sub.*bool"),
        (lambda: -tw.tensor([True]), "neg.*bool"),
        (lambda: ones(2) + "x", "str|add"),
        (lambda: tw.tensor(object()), "object"),
        (lambda: tw.where(ones(2), 1.0, 0.0), "where.*float32"),
        (lambda: F.embedding(ones(2), ones(3, 3)), "embedding.*float32"),
        (lambda: F.conv2d(tw.ones(1, 1, 3, 3, dtype=tw.int64), tw.ones(1, 1, 1, 1, dtype=tw.int64)), "conv2d.*int64"),
        (lambda: tw.tensor([1, 2]).softmax(0), "softmax.*int64"),
        (lambda: tw.tensor([1, 2]).var(), "var.*int64"),
    ],
)
def test_wrong_dtypes(call, words):
    with pytest.raises(TypeError, match=re.compile(words, re.S)):
        call()


def test_devices():
    with pytest.raises((ValueError, RuntimeError), match=r"tpu"):
        tw.ones(2, device="tpu")
    with pytest.raises(ValueError, match=r"cuda:x"):
        tw.device("cuda:x")
    with pytest.raises((ValueError, RuntimeError), match=r"-1"):
        tw.device("cuda:-1")
    assert str(tw.ones(2, device="cpu").device) == "cpu"
    if not tw.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"(?i)cuda"):
            tw.ones(2, device="cuda")
        with pytest.raises(RuntimeError, match=r"(?i)cuda"):
            tw.ones(2).to("cuda")


# Dims and indices ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, -3, 100, -(2**40)])
@pytest.mark.parametrize(
    "name", ["sum", "mean", "amax", "argmax", "softmax", "unsqueeze", "squeeze", "logsumexp", "var", "any", "flip"]
)
def test_dims_out_of_range(name, dim):
    x = ones(2, 3)
    dim = dim + 1 if name == "unsqueeze" and dim == 2 else dim - 1 if name == "unsqueeze" and dim == -3 else dim
    with pytest.raises((IndexError, OverflowError), match=r"\d"):
        getattr(x, name)((dim,) if name == "flip" else dim)


@pytest.mark.parametrize(
    "key", [3, -4, (0, 2), (slice(None), slice(None), 0), "a", 1.5, (0, None, 2)]
)
def test_keys_out_of_range(key):
    x = ones(3, 2)
    with pytest.raises((IndexError, TypeError), match=r"."):
        x[key]
    with pytest.raises((IndexError, TypeError), match=r"."):
        x[key] = 0.0
    assert x.tolist() == [[1, 1]] * 3


def test_labels_out_of_range_name_the_label():
    x = ones(3, 5).requires_grad_()
    for labels, bad in (([0, 5, 1], "5"), ([0, -1, 1], "-1"), ([0, 1, 2**40], str(2**40))):
        with pytest.raises(IndexError, match=f"cross_entropy.*{bad}"):
            F.cross_entropy(x, tw.tensor(labels))
    assert x.grad is None
    F.cross_entropy(x, tw.tensor([0, -100, 1])).backward()
    assert x.grad is not None


def test_indices_near_the_ends_of_int64():
    x = ones(3)
    for bad in (2**63 - 1, -(2**63)):
        with pytest.raises(IndexError):
            x[tw.tensor([bad])]
        with pytest.raises(IndexError):
            tw.index_select(x, 0, tw.tensor([bad]))
        with pytest.raises(IndexError):
            tw.gather(x, 0, tw.tensor([bad]))
    assert x[2**62 :].tolist() == [] and x[-(2**62) :].tolist() == [1, 1, 1]


# Words --------------------------------------------------------------------------------------------------------------


def test_messages_begin_with_the_op_and_show_values():
    """An error reads `op: rule, got values`; the rows' refusals are checked for that form."""
    shapeless = []
    for row in ROWS.values():
        for bad in row.bad:
            try:
                bad.call(row.generator("float32"))
            except Exception as error:
                message = str(error)
                if not re.match(r"(in [^:]+: )?[\w.]+: ", message) or not re.search(r"got|\d", message):
                    shapeless.append(f"{row.name}-{bad.name}: {message}")
    assert not shapeless, shapeless


def test_errors_inside_a_module_name_its_path():
    class Net(tw.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = tw.nn.Sequential(tw.nn.Linear(4, 3), tw.nn.ReLU(), tw.nn.Linear(5, 2))

        def forward(self, x):
            return self.encoder(x)

    with pytest.raises(ValueError, match=r"encoder\.2 \(Linear.*linear: .*\(2, 3\)"):
        Net()(ones(2, 4))
