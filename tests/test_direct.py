"""Ops as Python meets them: the way straight to the kernel, `out=`, names, copies; results that go past the caches."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F

X = np.array([[-1.5, 0.25, 2.0], [3.0, -0.5, 1.0]], np.float32)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "maximum", "pow", "atan2", "fmod", "remainder"])
def test_a_number_and_a_tensor_of_it_agree(op):
    """Numbers take the direct way, arrays and integers the function's; values and gradients are the same."""
    x, n = tw.tensor(np.abs(X)).requires_grad_(), 1.75
    direct = getattr(tw, op)(x, n)
    other = getattr(tw, op)(x, np.full(X.shape, n, np.float32))
    assert direct.tolist() == other.tolist()
    grads = [tw.autograd.grad(y.sum(), x)[0].tolist() for y in (direct, other)]
    assert grads[0] == grads[1]


def test_what_is_saved_is_what_the_gradient_needs():
    x, y = tw.tensor(X).requires_grad_(), tw.tensor(X)
    product = x * y
    y.add_(1.0)
    with pytest.raises(RuntimeError, match=r"mul: a value saved .* changed in place"):
        product.sum().backward()
    product = x * y
    with tw.no_grad():
        x.add_(1.0)  # nobody wants y's gradient, so x was not saved
    product.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_a_view_of_a_base_that_came_to_need_a_gradient():
    base = tw.zeros(4)
    view = base[1:3]
    w = tw.ones(1, requires_grad=True)
    base.mul_(1.0).add_(w)
    (view * 3.0).sum().backward()
    assert w.grad.tolist() == [6.0]


def test_no_grad_and_integers_record_nothing():
    x = tw.tensor(X).requires_grad_()
    with tw.no_grad():
        assert not (x + x).requires_grad
    assert not (x > 0).requires_grad and (x > 0).dtype is tw.bool
    assert (tw.tensor([1, 2]) + 1).dtype is tw.int64
    assert (tw.tensor([1, 2]) * 0.5).dtype is tw.float32


@pytest.mark.parametrize("bad", [[1.0], None, "x"])
def test_a_wrong_operand_is_named(bad):
    for call in (tw.exp, F.relu, F.mish, tw.sum):
        with pytest.raises(TypeError, match=f"{call.__name__}.*expects a Tensor, got {type(bad).__name__}"):
            call(bad)


def test_ops_are_like_functions():
    assert list(inspect.signature(tw.add).parameters) == ["input", "other", "alpha", "out"]
    assert tw.add.__name__ == "add" and "alpha" in tw.add.__doc__
    assert copy.deepcopy(tw.relu) is tw.relu
    assert pickle.loads(pickle.dumps(tw.exp)) is tw.exp
    assert tw.tensor([1.0]).add(tw.tensor([2.0]), alpha=2).item() == 5.0


@pytest.mark.parametrize("call", [
    lambda x, y, out: tw.add(x, y, alpha=2, out=out), lambda x, y, out: tw.sub(x, 1, out=out),
    lambda x, y, out: tw.mul(x, y, out=out), lambda x, y, out: tw.div(x, y, out=out),
    lambda x, y, out: tw.pow(x, 2, out=out), lambda x, y, out: tw.exp(x, out=out),
    lambda x, y, out: tw.clamp(x, -1, 1, out=out), lambda x, y, out: tw.clamp(x, min=y, out=out),
    lambda x, y, out: tw.where(x > 0, x, y, out=out), lambda x, y, out: tw.matmul(x, y.t(), out=out),
    lambda x, y, out: tw.floor(x, out=out), lambda x, y, out: tw.div(x, y, rounding_mode="trunc", out=out),
])
def test_out(call):
    x, y = tw.tensor(X), tw.tensor(X + 4.0)
    wanted = call(x, y, None)
    empty = tw.empty(0)
    assert call(x, y, empty) is empty and empty.tolist() == wanted.tolist()
    out = tw.zeros(*wanted.shape, dtype=tw.float64)
    assert call(x, y, out) is out and out.dtype is tw.float64
    np.testing.assert_allclose(out.numpy(), wanted.numpy(), rtol=1e-6)
    strided = tw.zeros(*wanted.shape[::-1]).t()
    assert call(x, y, strided).tolist() == wanted.tolist()
    with pytest.raises(ValueError, match="shape"):
        call(x, y, tw.zeros(5, 7))
    with pytest.raises(RuntimeError, match="out= is not recorded"):
        call(x.clone().requires_grad_(), y, out)
    with pytest.raises(TypeError, match="out must be a Tensor, got list"):
        call(x, y, [0.0])


def test_out_casts_only_upwards():
    with pytest.raises(TypeError, match="cannot be stored"):
        tw.exp(tw.tensor(X), out=tw.zeros(2, 3, dtype=tw.int32))
    flags = tw.zeros(2, 3, dtype=tw.bool)
    assert tw.gt(tw.tensor(X), 0, out=flags).tolist() == (X > 0).tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
def test_results_that_go_past_the_caches(dtype):
    """Above 16 MB: odd sizes, an offset of a few bytes, transposed and broadcast operands, casts."""
    rows, cols = 4099, 4111 if dtype == "bool" else 2053
    g = np.random.default_rng(0)
    base = g.standard_normal((rows, cols + 3)).astype(np.float32)
    x, turned = tw.tensor(base)[:, 3:], tw.tensor(np.ascontiguousarray(base[:, 3:].T)).t()
    row = tw.tensor(base[0, 3:])
    if dtype == "bool":
        np.testing.assert_array_equal((turned > row).numpy(), base[:, 3:] > base[0, 3:])
        return
    y = (turned + row).to(getattr(tw, dtype))
    exact = base[:, 3:] + base[0, 3:]
    wanted = exact if dtype == "float32" else tw.tensor(exact[:7]).bfloat16().float().numpy()
    np.testing.assert_array_equal(y.float().numpy()[:len(wanted)], wanted)
    flat = tw.zeros(rows * cols + 5)
    flat[5:].copy_(x.reshape(-1))
    np.testing.assert_array_equal(flat.numpy()[5:], base[:, 3:].reshape(-1))
    assert flat.numpy()[:5].tolist() == [0.0] * 5


def test_rrelu_draws_slopes():
    tw.manual_seed(0)
    x = -tw.ones(20_000)
    y = -F.rrelu(x, 0.2, 0.6, training=True)
    assert y.min().item() >= 0.2 and y.max().item() <= 0.6 and abs(y.mean().item() - 0.4) < 0.005
    assert F.rrelu(x, 0.2, 0.6)[0].item() == pytest.approx(-0.4)
    with pytest.raises(ValueError, match="lower must not be above upper"):
        F.rrelu(x, 0.6, 0.2)


def test_gumbel_softmax_samples_the_softmax():
    tw.manual_seed(0)
    logits = tw.tensor([0.0, 1.0, 2.0]).expand(20_000, 3).clone().requires_grad_()
    hard = F.gumbel_softmax(logits, tau=0.7, hard=True)
    np.testing.assert_allclose(hard.detach().sum(1).numpy(), 1.0, rtol=1e-6)
    wanted = tw.softmax(tw.tensor([0.0, 1.0, 2.0]), 0).numpy()
    np.testing.assert_allclose(hard.detach().mean(0).numpy(), wanted, atol=0.015)
    hard[:, 0].sum().backward()
    assert logits.grad.abs().sum().item() > 0
    with pytest.raises(ValueError, match="tau must be positive"):
        F.gumbel_softmax(logits, tau=0.0)


@pytest.mark.parametrize("op", ["mish", "hardswish", "hardsigmoid", "selu", "celu"])
def test_in_place_activations(op):
    x = tw.tensor(X).requires_grad_()
    wanted = getattr(F, op)(x)
    (dx,) = tw.autograd.grad((wanted * wanted).sum(), x)
    y = x * 1.0
    out = getattr(F, op)(y, inplace=True)
    assert out is y and y.tolist() == wanted.tolist()
    (again,) = tw.autograd.grad((y * y).sum(), x)
    np.testing.assert_allclose(again.numpy(), dx.numpy(), rtol=1e-6)


@pytest.mark.parametrize(("call", "words"), [
    (lambda x: F.celu(x, 0.0), "alpha must not be 0"), (lambda x: F.softshrink(x, -1.0), "lambd must not be negative"),
    (lambda x: F.glu(x), "must be even, got 3"), (lambda x: F.prelu(x, tw.ones(2)), "weight must have 1 or 3 values"),
])
def test_activations_refuse(call, words):
    with pytest.raises(ValueError, match=words):
        call(tw.tensor(X))
