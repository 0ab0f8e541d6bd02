"""The tensor itself: creation, views, promotion, NumPy and DLPack both ways, printing, conversion."""

from __future__ import annotations

import copy
import gc
import pickle
import sys

import numpy as np
import pytest

import tilewright as tw
from arrays import FLOATS, INTS, dtype_of, name_of, to_np

ALL = (*FLOATS, *INTS, "bool")


# Creation -----------------------------------------------------------------------------------------------------------


def test_tensor_of_python_values():
    assert tw.tensor(3).dtype == tw.int64 and tw.tensor(3).shape == ()
    assert tw.tensor(2.5).dtype == tw.float32 and tw.tensor(2.5).item() == 2.5
    assert tw.tensor(True).dtype == tw.bool
    assert tw.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert tw.tensor([1, 2.5]).tolist() == [1.0, 2.5]
    assert tw.tensor([]).shape == (0,) and tw.tensor([]).dtype == tw.float32
    assert tw.tensor([[], []]).shape == (2, 0)
    with pytest.raises(ValueError, match=r"length|ragged|sizes"):
        tw.tensor([[1, 2], [3]])


@pytest.mark.parametrize("dtype", ALL)
def test_filled(dtype):
    d = dtype_of(dtype)
    for made, value in ((tw.zeros(2, 3, dtype=d), 0), (tw.ones((2, 3), dtype=d), 1), (tw.full((2, 3), 1, dtype=d), 1)):
        assert made.dtype == d and to_np(made).astype(float).tolist() == [[value] * 3] * 2
    like = tw.zeros_like(tw.ones(4, dtype=d))
    assert like.dtype == d and not to_np(like).any()


def test_ranges():
    assert tw.arange(5).tolist() == [0, 1, 2, 3, 4] and tw.arange(5).dtype == tw.int64
    assert tw.arange(2, 9, 3).tolist() == [2, 5, 8]
    assert tw.arange(5, 0, -2).tolist() == [5, 3, 1]
    np.testing.assert_allclose(tw.arange(0, 1, 0.25).numpy(), [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(tw.linspace(-1, 1, 5).numpy(), [-1, -0.5, 0, 0.5, 1])
    assert tw.linspace(3, 3, 1).tolist() == [3.0]
    assert tw.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]


# Views --------------------------------------------------------------------------------------------------------------

VIEWS = {
    "slice": lambda x: x[1:3],
    "step": lambda x: x[:, ::2],
    "select": lambda x: x[2],
    "column": lambda x: x[:, 1],
    "ellipsis": lambda x: x[..., -1],
    "none": lambda x: x[:, None],
    "negative": lambda x: x[-3:-1, -2:],
    "transpose": lambda x: x.transpose(0, 1),
    "t": lambda x: x.t(),
    "permute": lambda x: x.reshape(2, 2, 6).permute(2, 0, 1),
    "reshape": lambda x: x.reshape(2, 12),
    "view": lambda x: x.view(-1),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "squeeze": lambda x: x.reshape(4, 1, 6).squeeze(1),
    "expand": lambda x: x[:, None].expand(4, 3, 6),
    "flatten": lambda x: x.flatten(),
    "chain": lambda x: x.t()[1:5:2].transpose(0, 1)[::3],
    "detach": lambda x: x.detach(),
}
NUMPY_VIEWS = VIEWS | {
    "transpose": lambda x: x.T,
    "t": lambda x: x.T,
    "permute": lambda x: x.reshape(2, 2, 6).transpose(2, 0, 1),
    "view": lambda x: x.reshape(-1),
    "unsqueeze": lambda x: x[:, None],
    "squeeze": lambda x: x,
    "expand": lambda x: np.broadcast_to(x[:, None], (4, 3, 6)),
    "flatten": lambda x: x.reshape(-1),
    "chain": lambda x: x.T[1:5:2].T[::3],
    "detach": lambda x: x,
}


@pytest.mark.parametrize("name", VIEWS)
def test_view_shares_memory(name):
    x = tw.arange(24, dtype=tw.float32).reshape(4, 6)
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    view, expected = VIEWS[name](x), NUMPY_VIEWS[name](a)
    assert np.array_equal(view.numpy(), expected)
    assert view.stride() == tuple(s // 4 for s in expected.strides) or 1 in expected.shape
    x.add_(100)  # a copy would not follow
    a += 100
    assert np.array_equal(view.numpy(), expected)
    assert np.array_equal(view.contiguous().numpy(), expected)
    if name != "expand":
        view.zero_()
        expected[...] = 0
        assert np.array_equal(x.numpy(), a)


def test_contiguity():
    x = tw.ones(3, 4)
    assert x.is_contiguous() and not x.t().is_contiguous() and x.t().contiguous().is_contiguous()
    assert x.contiguous().data_ptr() == x.data_ptr()
    assert x[:, :1].t().is_contiguous() is np.ones((3, 4))[:, :1].T.flags.c_contiguous
    with pytest.raises((ValueError, RuntimeError), match=r"view"):
        x.t().view(12)
    assert x.t().reshape(12).shape == (12,)


def test_elementwise_results_keep_a_permuted_layout():
    """As in PyTorch, whose strides these are."""
    torch = pytest.importorskip("torch")
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5) - 30
    calls = [lambda m, x: m.relu(x.permute(2, 0, 1)), lambda m, x: x.transpose(0, 2) * 2,
             lambda m, x: x.permute(1, 0, 2) + x.permute(1, 0, 2)[:1], lambda m, x: x[:, ::2].permute(2, 1, 0) + 1,
             lambda m, x: x.permute(2, 1, 0) > m.ones(5, 4, 3), lambda m, x: x.permute(2, 0, 1).to(m.float64),
             lambda m, x: m.where(x.permute(2, 1, 0) > 0, x.permute(2, 1, 0), x.permute(2, 1, 0) / 2),
             lambda m, x: m.ones(3) + x.permute(2, 1, 0), lambda m, x: x[:, :1].expand(3, 4, 5) + 1]
    for i, call in enumerate(calls):
        ours, theirs = call(tw, tw.tensor(values)), call(torch, torch.tensor(values))
        assert ours.stride() == theirs.stride() and np.array_equal(ours.numpy(), theirs.numpy()), i


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "amax", "amin", "argmax", "argmin", "any", "all"])
def test_reductions_into_out(name):
    x, reduce = tw.randn(3, 5, 4), getattr(tw, name)
    expected = reduce(x, dim=1)
    out = tw.zeros(4, 3, dtype=expected.dtype).t()
    assert reduce(x, dim=1, out=out) is out and tw.equal(out, expected)
    empty = tw.zeros(0, dtype=expected.dtype)
    assert tw.equal(reduce(x, dim=1, out=empty), expected)
    for wrong, error, words in ((tw.zeros(3, 5, dtype=expected.dtype), ValueError, "output's shape"),
                                (tw.zeros(3, 4, dtype=tw.int16), TypeError, "output's dtype")):
        with pytest.raises(error, match=f"{name}: the {words}"):
            reduce(x, dim=1, out=wrong)
    with pytest.raises(TypeError, match="out must be a Tensor"):
        reduce(x, dim=1, out=3)
    with pytest.raises(RuntimeError, match="out= is not recorded"):
        reduce(x.requires_grad_(), dim=1, out=out)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
def test_results_written_past_the_caches(dtype):
    """Results of 16 MiB and more: turned, converted, cut anywhere in a line, and along rows of a norm."""
    rng = np.random.default_rng(2)
    rows, cols = 4099, (20 << 20) // np.dtype(dtype).itemsize // 4099
    values = rng.integers(0, 100, (rows, cols)).astype(dtype)
    x = tw.tensor(values)
    assert np.array_equal(x.t().contiguous().numpy(), values.T)
    assert np.array_equal(x[3:, 5:].t().contiguous().numpy(), values[3:, 5:].T)
    assert np.array_equal((x + x).numpy(), values + values)
    out = tw.zeros(rows, cols + 1, dtype=x.dtype)
    assert np.array_equal(tw.add(x, x.t().contiguous().t(), out=out[:, 1:]).numpy(), values + values)
    assert np.array_equal(x.to(tw.float64).numpy(), values.astype("float64"))
    if dtype != "uint8":
        x = x[:, : cols // 64 * 64].contiguous()
        x.requires_grad_()
        weight, dy = tw.randn(x.shape[1], dtype=x.dtype), tw.randn(*x.shape, dtype=x.dtype)
        y = tw.nn.functional.layer_norm(x, x.shape[1:], weight)
        y.backward(dy)
        for part in (slice(0, 512), slice(rows - 512, rows)):
            z = x.detach()[part].contiguous().requires_grad_()
            w = tw.nn.functional.layer_norm(z, x.shape[1:], weight)
            w.backward(dy[part])
            assert tw.equal(y.detach()[part], w.detach()) and tw.equal(x.grad[part], z.grad)


def test_write_through_expand_is_refused():
    x = tw.zeros(3, 1).expand(3, 4)
    with pytest.raises((ValueError, RuntimeError), match=r"expand|overlap|memory"):
        x.add_(1)
    assert not to_np(x).any()


def test_overlapping_copy():
    """Source and destination that share memory give the values from before the copy."""
    x = tw.arange(10)
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    y = tw.arange(9).reshape(3, 3)
    y.copy_(y.t())
    assert y.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    z = tw.arange(6)
    z[:-1].add_(z[1:])
    assert z.tolist() == [1, 3, 5, 7, 9, 5]


@pytest.mark.parametrize("source", ["float32", "bfloat16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("target", ["float32", "float16", "int32", "bool"])
def test_copy_between_strides(source, target):
    rng = np.random.default_rng(1)
    views = {
        "whole": lambda t: t,
        "transposed": lambda t: t.swapaxes(0, -1) if isinstance(t, np.ndarray) else t.transpose(0, -1),
        "strided": lambda t: t[..., ::2],
        "rows": lambda t: t[1:3],
    }
    for shape in ((4,), (3, 3), (129, 129), (5, 2, 5), (3, 4, 2, 3)):
        values = rng.integers(0, 2 if "bool" in (source, target) else 100, shape)
        src = tw.tensor(values).to(dtype_of(source))
        for to_name, to in views.items():
            for from_name, of in views.items():
                dst, expected = tw.ones(shape, dtype=dtype_of(target)), np.ones(shape)
                if to(expected).shape != of(values).shape:
                    continue
                to(dst).copy_(of(src))
                to(expected)[...] = of(values)
                assert np.array_equal(to_np(dst).astype(float), expected), (shape, to_name, from_name)


# Promotion ----------------------------------------------------------------------------------------------------------

ORDER = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")


def promoted(a: str, b: str) -> str:
    """PyTorch's table: floats win over integers; uint8 with a signed type needs one that holds both; two halves
    meet in float32."""
    i, j = sorted((ORDER.index(a), ORDER.index(b)))
    low, high = ORDER[i], ORDER[j]
    if (low, high) == ("float16", "bfloat16"):
        return "float32"
    if (low, high) == ("uint8", "int8"):
        return "int16"
    return high


@pytest.mark.parametrize("a", ORDER)
@pytest.mark.parametrize("b", ORDER)
def test_promotion_of_tensors(a, b):
    x, y = tw.ones(2, dtype=dtype_of(a)), tw.ones(2, dtype=dtype_of(b))
    assert name_of((x + y).dtype) == promoted(a, b)
    assert name_of(tw.result_type(x, y)) == promoted(a, b)
    assert name_of((x / y).dtype) == (promoted(a, b) if promoted(a, b) in FLOATS else "float32")
    assert to_np(x * y).astype(float).tolist() == [1, 1]


@pytest.mark.parametrize("dtype", ORDER)
def test_promotion_with_scalars(dtype):
    """Python numbers and 0-d tensors raise the category (bool, integer, float), never the width."""
    x = tw.ones(2, dtype=dtype_of(dtype))
    with_int = "int64" if dtype == "bool" else dtype
    with_float = dtype if dtype in FLOATS else "float32"
    assert name_of((x + 1).dtype) == name_of((1 + x).dtype) == with_int
    assert name_of((x * 2.5).dtype) == with_float
    assert name_of((x + True).dtype) == dtype
    assert name_of((x + tw.tensor(1)).dtype) == with_int
    wide = "float64" if dtype not in FLOATS else dtype
    assert name_of((x + tw.tensor(1.0, dtype=tw.float64)).dtype) == wide


def test_reversed_operators():
    x = tw.tensor([1.0, 4.0])
    for got, want in ((2 - x, [1, -2]), (2 / x, [2, 0.5]), (2**x, [2, 16]), (7 // x, [7, 1]), (7 % x, [0, 3])):
        assert got.tolist() == want


# NumPy --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [d for d in ALL if d != "bfloat16"])
def test_from_numpy_shares_memory(dtype):
    a = np.zeros((3, 4), dtype)
    t = tw.from_numpy(a)
    assert name_of(t.dtype) == dtype
    a[1, 2] = 1
    assert to_np(t)[1, 2] == 1
    t[0, 0] = 1
    assert a[0, 0] == 1
    assert np.shares_memory(t.numpy(), a)


def test_from_numpy_keeps_strides_and_its_array_alive():
    a = np.arange(24.0).reshape(4, 6)
    t = tw.from_numpy(a.T[::2])
    assert t.stride() == (2, 6) and np.array_equal(t.numpy(), a.T[::2])
    t = tw.from_numpy(np.arange(1000.0))
    gc.collect()
    np.zeros(1000).fill(7)
    assert t[999].item() == 999.0


def test_numpy_outlives_its_tensor():
    a = (tw.arange(1000, dtype=tw.float32) * 2).numpy()
    gc.collect()
    others = [tw.zeros(1000) for _ in range(20)]
    assert a[999] == 1998.0 and len(others) == 20


def test_references_to_a_numpy_array_are_released():
    a = np.zeros(1000)
    before = sys.getrefcount(a)
    t = tw.from_numpy(a)
    view = t[10:]
    del t
    assert sys.getrefcount(a) > before
    del view
    gc.collect()
    assert sys.getrefcount(a) == before


def test_tensor_copies_and_as_tensor_shares():
    a = np.zeros(3, np.float32)
    copied, shared = tw.tensor(a), tw.as_tensor(a)
    a[0] = 5
    assert copied[0].item() == 0 and shared[0].item() == 5


def test_numpy_refusals():
    with pytest.raises(TypeError, match=r"complex|dtype"):
        tw.from_numpy(np.zeros(2, complex))
    with pytest.raises(TypeError, match=r"str|dtype|object|U"):
        tw.from_numpy(np.array(["a"]))
    with pytest.raises(TypeError, match=r"bfloat16"):
        tw.ones(2, dtype=tw.bfloat16).numpy()
    with pytest.raises(RuntimeError, match=r"detach"):
        tw.ones(2).requires_grad_().numpy()
    with pytest.raises(ValueError, match=r"stride"):
        tw.from_numpy(np.arange(4.0)[::-1])


def test_read_only_arrays_are_not_written():
    a = np.arange(4.0)
    a.flags.writeable = False
    try:
        t = tw.from_numpy(a)
        t.add_(1)
    except (ValueError, RuntimeError, TypeError) as error:
        assert "read" in str(error) or "writ" in str(error)
    assert a.tolist() == [0, 1, 2, 3]


def test_array_protocol():
    t = tw.arange(6, dtype=tw.float32).reshape(2, 3)
    assert np.array_equal(np.asarray(t), t.numpy()) and np.asarray(t, dtype=np.float64).dtype == np.float64
    assert np.add(np.ones((2, 3), np.float32), t.numpy()).sum() == 21
    assert np.array_equal(np.stack([t[0], t[1]]), t.numpy())


# DLPack -------------------------------------------------------------------------------------------------------------


def test_dlpack_to_numpy_and_back():
    t = tw.arange(24, dtype=tw.float32).reshape(4, 6).t()[1:4]
    a = np.from_dlpack(t)
    assert np.array_equal(a, t.numpy()) and a.strides == (4, 24)
    back = tw.from_dlpack(np.arange(6, dtype=np.int32).reshape(2, 3).T)
    assert back.tolist() == [[0, 3], [1, 4], [2, 5]] and back.dtype == tw.int32


def test_dlpack_shares_and_keeps_memory():
    a = np.zeros(1000, np.float64)
    t = tw.from_dlpack(a)
    a[3] = 7
    assert t[3].item() == 7
    del a
    gc.collect()
    assert t[3].item() == 7
    b = np.from_dlpack(tw.full((1000,), 3.0))
    gc.collect()
    junk = [tw.zeros(1000) for _ in range(10)]
    assert (b == 3).all() and len(junk) == 10


def test_dlpack_capsule_is_used_once():
    capsule = tw.ones(3).__dlpack__()
    first = tw.from_dlpack(capsule)
    assert first.tolist() == [1, 1, 1]
    with pytest.raises((ValueError, RuntimeError, TypeError), match=r"capsule|consumed|used"):
        tw.from_dlpack(capsule)


def test_unused_dlpack_capsule_releases_its_memory():
    before = tw.memory_stats()["allocated_bytes"]
    capsule = tw.zeros(1 << 18).__dlpack__()
    assert tw.memory_stats()["allocated_bytes"] > before
    del capsule
    gc.collect()
    assert tw.memory_stats()["allocated_bytes"] == before


def test_dlpack_with_pytorch():
    torch = pytest.importorskip("torch")
    t = tw.arange(6, dtype=tw.float32).reshape(2, 3).to(tw.bfloat16)
    other = torch.from_dlpack(t)
    assert other.dtype == torch.bfloat16 and other.tolist() == t.tolist()
    back = tw.from_dlpack(torch.arange(6).reshape(2, 3).t())
    assert back.tolist() == [[0, 3], [1, 4], [2, 5]]


# Conversion and printing --------------------------------------------------------------------------------------------


def test_item_and_python_conversions():
    assert tw.tensor([[2.5]]).item() == 2.5 and float(tw.tensor(2.5)) == 2.5 and int(tw.tensor(7)) == 7
    assert bool(tw.tensor(0)) is False and bool(tw.tensor([3])) is True
    assert list(range(10))[tw.tensor(4)] == 4
    assert [row.tolist() for row in tw.arange(4).reshape(2, 2)] == [[0, 1], [2, 3]]
    assert len(tw.ones(3, 2)) == 3
    assert 2.0 in tw.tensor([1.0, 2.0])
    with pytest.raises((ValueError, RuntimeError), match=r"item|one|1 element|2"):
        tw.ones(2).item()
    with pytest.raises((ValueError, RuntimeError), match=r"bool|ambiguous|truth|2"):
        bool(tw.ones(2))
    with pytest.raises(TypeError, match=r"0-d|length|dimension"):
        len(tw.tensor(1.0))


@pytest.mark.parametrize("dtype", ALL)
def test_repr_shows_values_and_dtype(dtype):
    text = repr(tw.tensor([1, 0, 1]).to(dtype_of(dtype)))
    assert text.startswith("tensor([")
    if dtype == "bool":
        assert "True, False,  True" in text or "True, False, True" in text
    elif dtype not in ("float32", "int64"):
        assert dtype in text
    body = text[text.index("[") : text.index("]") + 1]
    values = eval(body, {"__builtins__": {}, "True": True, "False": False})
    assert [float(v) for v in values] == [1.0, 0.0, 1.0]


def test_repr_of_large_and_special():
    assert "..." in repr(tw.zeros(10_000))
    assert len(repr(tw.zeros(1000, 1000))) < 2000
    text = repr(tw.tensor([float("nan"), float("inf"), -1.5]))
    assert "nan" in text and "inf" in text and "-1.5" in text
    assert "requires_grad=True" in repr(tw.ones(2).requires_grad_())
    assert repr(tw.tensor(3)) == "tensor(3)"
    assert "size=(0, 3)" in repr(tw.zeros(0, 3)) or "[]" in repr(tw.zeros(0, 3))


def test_copy_and_pickle():
    x = tw.arange(6, dtype=tw.float32).reshape(2, 3).t().requires_grad_()
    deep = copy.deepcopy(x)
    assert deep.requires_grad and np.array_equal(to_np(deep), to_np(x)) and deep.data_ptr() != x.data_ptr()
    loaded = pickle.loads(pickle.dumps(x.detach().to(tw.bfloat16)))
    assert loaded.dtype == tw.bfloat16 and np.array_equal(to_np(loaded), to_np(x))


def test_a_users_attributes():
    x = tw.ones(2)
    x.note = "mine"
    assert x.note == "mine" and tw.ones(2) is not x


def test_to_without_change_is_the_same_tensor():
    x = tw.ones(2)
    assert x.to(tw.float32) is x and x.float() is x and x.to("cpu") is x
    assert x.double().dtype == tw.float64 and x.half().dtype == tw.float16 and x.long().dtype == tw.int64


def test_memory_is_reused():
    tw.zeros(1 << 20)
    stats = tw.memory_stats()
    for _ in range(5):
        tw.zeros(1 << 20)
    later = tw.memory_stats()
    assert later["reserved_bytes"] == stats["reserved_bytes"] and later["cache_hits"] >= stats["cache_hits"] + 5
    assert later["allocated_bytes"] == stats["allocated_bytes"]
