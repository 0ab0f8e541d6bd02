"""The tape: accumulation, graphs, modes, hooks, in-place changes, views, user functions, higher orders."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import tilewright as tw
from arrays import to_np


def leaf(*values, dtype=None):
    return tw.tensor(list(values), dtype=dtype or tw.float64).requires_grad_()


def test_backward_accumulates_into_leaves():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    (3 * x).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0]
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_diamond_sums_both_paths():
    x = leaf(3.0)
    a = x * 2
    b, c = a * a, a + 1
    (b * c).backward()  # (2x)^2 (2x + 1): derivative 24 x^2 + 8 x
    assert x.grad.tolist() == [24 * 9 + 8 * 3]


def test_same_input_twice():
    x = leaf(3.0)
    (x * x).backward()
    assert x.grad.tolist() == [6.0]


def test_broadcast_gradients_are_summed_to_the_input():
    a, b = tw.ones(3, 1, dtype=tw.float64).requires_grad_(), tw.ones(4, dtype=tw.float64).requires_grad_()
    s = tw.tensor(2.0, dtype=tw.float64).requires_grad_()
    (a * b * s).sum().backward()
    assert a.grad.tolist() == [[8.0]] * 3 and b.grad.tolist() == [6.0] * 4 and s.grad.item() == 12.0


def test_gradient_has_its_inputs_dtype():
    half, full = tw.ones(3, dtype=tw.bfloat16).requires_grad_(), tw.ones(3).requires_grad_()
    (half * full).sum().backward()
    assert half.grad.dtype == tw.bfloat16 and full.grad.dtype == tw.float32


def test_deep_graphs_do_not_recurse():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.backward()
    assert x.grad.tolist() == [1.0]
    del y
    gc.collect()


def test_backward_needs_a_scalar_or_gradients():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"scalar|one element"):
        (x * 2).backward()
    with pytest.raises((ValueError, RuntimeError), match=r"\(3,\)"):
        (x * 2).backward(tw.ones(3, dtype=tw.float64))
    (x * 2).backward(tw.tensor([1.0, 10.0], dtype=tw.float64))
    assert x.grad.tolist() == [2.0, 20.0]


def test_backward_without_graph_is_refused():
    with pytest.raises(RuntimeError, match=r"grad"):
        tw.ones(()).backward()


def test_second_backward_needs_retain_graph():
    x = leaf(2.0)
    y = x.exp()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp([2.0]))
    with pytest.raises(RuntimeError, match=r"retain_graph"):
        y.backward()


def test_no_grad_and_enable_grad():
    x = leaf(1.0)
    with tw.no_grad():
        y = x * 2
        assert not y.requires_grad and not tw.is_grad_enabled()
        with tw.enable_grad():
            z = x * 2
        assert z.requires_grad
    assert tw.is_grad_enabled()
    with pytest.raises(KeyError), tw.no_grad():
        raise KeyError
    assert tw.is_grad_enabled(), "the mode comes back after an exception"

    @tw.no_grad()
    def decorated():
        return x * 2

    assert not decorated().requires_grad and (x * 2).requires_grad
    with tw.set_grad_enabled(False):
        assert not (x * 2).requires_grad


def test_detach_cuts_the_graph_and_shares_memory():
    x = leaf(1.0, 2.0)
    d = x.detach()
    assert not d.requires_grad
    (x * d).sum().backward()
    assert x.grad.tolist() == [1.0, 2.0]
    d[0] = 9.0
    assert x[0].item() == 9.0


def test_requires_grad_of_integers_is_refused():
    with pytest.raises((RuntimeError, TypeError), match=r"int64|floating"):
        tw.tensor([1, 2]).requires_grad_()


def test_grad_returns_without_accumulating():
    x, y = leaf(2.0), leaf(3.0)
    z = x * y
    gx, gy = tw.autograd.grad(z, [x, y])
    assert (gx.item(), gy.item()) == (3.0, 2.0) and x.grad is None and y.grad is None


def test_grad_of_unused_input():
    x, y = leaf(2.0), leaf(3.0)
    with pytest.raises(RuntimeError, match=r"unused|not have been used|allow_unused"):
        tw.autograd.grad(x * 2, [x, y])
    gx, gy = tw.autograd.grad(x * 2, [x, y], allow_unused=True)
    assert gx.item() == 2.0 and gy is None


def test_grad_of_an_intermediate():
    x = leaf(2.0)
    h = x * 3
    (g,) = tw.autograd.grad(h * h, [h])
    assert g.item() == 12.0


def test_retain_grad():
    x = leaf(2.0)
    h = x * 3
    h.retain_grad()
    (h * h).backward()
    assert h.grad.item() == 12.0 and x.grad.item() == 36.0


def test_higher_orders():
    x = leaf(0.7)
    y = (x.sin() * x.exp()).sum()
    (g,) = tw.autograd.grad(y, [x], create_graph=True)
    (h,) = tw.autograd.grad(g.sum(), [x], create_graph=True)
    (k,) = tw.autograd.grad(h.sum(), [x])
    s, c, e = np.sin(0.7), np.cos(0.7), np.exp(0.7)
    np.testing.assert_allclose([g.item(), h.item(), k.item()], [e * (s + c), 2 * e * c, 2 * e * (c - s)], rtol=1e-13)


def test_gradient_penalty():
    """The gradient of a gradient's norm, through a matrix product, against the formula."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 4))
    w, x = tw.tensor(a).requires_grad_(), tw.tensor(rng.normal(size=(4,))).requires_grad_()
    (g,) = tw.autograd.grad(((w @ x) ** 2).sum(), [x], create_graph=True)
    (g * g).sum().backward()
    ata = a.T @ a
    np.testing.assert_allclose(x.grad.numpy(), 8 * ata @ ata @ x.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["exp", "log", "sin", "cos", "tanh", "sigmoid", "sqrt", "reciprocal", "square"])
def test_second_derivatives_by_gradcheck(name):
    x = tw.tensor([0.3, 0.8, 1.7], dtype=tw.float64).requires_grad_()

    def slope(t):
        return tw.autograd.grad(getattr(tw, name)(t).sum(), [t], create_graph=True)[0]

    assert tw.autograd.gradcheck(slope, (x,))


def test_gradcheck_finds_a_wrong_gradient():
    class Wrong(tw.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, dy):
            (x,) = ctx.saved_tensors
            return dy * x

    x = leaf(0.5, 1.5)
    with pytest.raises(Exception, match=r"(?i)gradcheck|jacobian|gradient"):
        tw.autograd.gradcheck(Wrong.apply, (x,))
    assert tw.autograd.gradcheck(lambda t: t * t, (x,))


# Hooks --------------------------------------------------------------------------------------------------------------


def test_hooks_see_and_replace_gradients():
    x = leaf(1.0)
    h = x * 2
    seen = []
    handle = h.register_hook(lambda g: seen.append(g.item()))
    x.register_hook(lambda g: g * 10)
    (h * 3).backward()
    assert seen == [3.0] and x.grad.tolist() == [60.0]
    handle.remove()
    (x * 2 * 3).backward()
    assert seen == [3.0]


# In-place changes and views -----------------------------------------------------------------------------------------


def test_in_place_change_of_a_saved_value_is_an_error():
    x = leaf(1.0, 2.0)
    y = x.exp()
    z = y * y
    y.add_(1)
    with pytest.raises(RuntimeError, match=r"in.?place"):
        z.sum().backward()


def test_in_place_change_through_a_view_is_an_error():
    x = leaf(1.0, 2.0)
    y = x * 1
    z = (y * y).sum()
    y[0:1].mul_(2)
    with pytest.raises(RuntimeError, match=r"in.?place"):
        z.backward()


def test_in_place_change_of_an_input_is_an_error():
    w, x = leaf(1.0, 2.0), tw.tensor([3.0, 4.0], dtype=tw.float64)
    y = (w * x).sum()
    x.zero_()
    with pytest.raises(RuntimeError, match=r"in.?place"):
        y.backward()


def test_in_place_change_of_an_unsaved_value_is_fine():
    x = leaf(1.0, 2.0)
    y = x + 1
    z = y + 1
    y.mul_(2)
    z.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_in_place_ops_are_differentiated():
    x = leaf(1.0, 2.0)
    y = x * 3
    y.mul_(x).add_(1)
    y.sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]


def test_in_place_change_of_a_leaf_is_refused():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match=r"leaf"):
        x.add_(1)
    assert x.tolist() == [1.0], "a refused op changes nothing"
    with tw.no_grad():
        x.add_(1)
    assert x.tolist() == [2.0] and x.requires_grad


def test_assignment_replaces_the_history_of_a_window():
    x, v = leaf(1.0, 2.0, 3.0), leaf(5.0)
    y = x * 2
    y[1:2] = v * v
    (y * y).sum().backward()  # y = (2, 25, 6)
    assert x.grad.tolist() == [8.0, 0.0, 24.0] and v.grad.tolist() == [500.0]


def test_in_place_op_on_a_view_reaches_its_base():
    x = leaf(1.0, 2.0, 3.0)
    y = x * 1
    y[0:2].mul_(10)
    y.sum().backward()
    assert x.grad.tolist() == [10.0, 10.0, 1.0]


def test_a_view_sees_an_in_place_op_on_its_base():
    x = leaf(1.0, 2.0)
    y = x * 1
    view = y[0]
    y.mul_(5)
    view.backward()
    assert x.grad.tolist() == [5.0, 0.0]


def test_overlapping_views_after_an_in_place_op():
    x = tw.arange(0, 6, dtype=tw.float64).requires_grad_()
    y = x * 1
    a, b = y[0:4], y.view(2, 3).t()
    a.mul_(2)
    (b * tw.ones(3, 2, dtype=tw.float64)).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0, 2.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (lambda x: x[1], [[0, 0, 0], [1, 1, 1]]),
        (lambda x: x[:, ::2], [[1, 0, 1], [1, 0, 1]]),
        (lambda x: x.t()[2], [[0, 0, 1], [0, 0, 1]]),
        (lambda x: x.reshape(3, 2)[0], [[1, 1, 0], [0, 0, 0]]),
        (lambda x: x.expand(4, 2, 3), [[4, 4, 4], [4, 4, 4]]),
        (lambda x: x.unsqueeze(0).permute(2, 0, 1)[1], [[0, 1, 0], [0, 1, 0]]),
        (lambda x: x.flatten()[4:], [[0, 0, 0], [0, 1, 1]]),
    ],
)
def test_gradients_of_views(view, expected):
    x = tw.ones(2, 3, dtype=tw.float64).requires_grad_()
    view(x).sum().backward()
    assert x.grad.tolist() == expected


# User functions -----------------------------------------------------------------------------------------------------


class Scaled(tw.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, factor):
        ctx.save_for_backward(x, y)
        ctx.factor = factor
        return x * y * factor, x + y

    @staticmethod
    def backward(ctx, dproduct, dsum):
        x, y = ctx.saved_tensors
        assert ctx.needs_input_grad == (True, True, False)
        return dproduct * y * ctx.factor + dsum, dproduct * x * ctx.factor + dsum, None


def test_function_with_two_results():
    x, y = leaf(2.0), leaf(3.0)
    p, s = Scaled.apply(x, y, 10.0)
    (p + s).backward()
    assert x.grad.tolist() == [31.0] and y.grad.tolist() == [21.0]


def test_function_can_be_differentiated_twice():
    x, y = leaf(2.0), leaf(3.0)
    p, _ = Scaled.apply(x, y, 1.0)
    (g,) = tw.autograd.grad(p, [x], create_graph=True)
    (h,) = tw.autograd.grad(g, [y])
    assert h.item() == 1.0


def test_function_with_the_wrong_number_of_gradients():
    class Short(tw.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, dy):
            return dy

    x, y = leaf(1.0), leaf(2.0)
    with pytest.raises(RuntimeError, match=r"2"):
        Short.apply(x, y).backward()


def test_error_in_a_users_backward_reaches_the_user():
    class Broken(tw.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, dy):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match=r"mine"):
        Broken.apply(leaf(1.0)).backward()
    assert tw.is_grad_enabled()


# Conventions at kinks, as PyTorch's ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "at", "slope"),
    [
        (lambda x: x.relu(), 0.0, 0.0),
        (lambda x: x.abs(), 0.0, 0.0),
        (lambda x: x.clamp(0.0, 1.0), 0.0, 1.0),
        (lambda x: x.clamp(0.0, 1.0), 1.0, 1.0),
        (lambda x: x.clamp(0.0, 1.0), 2.0, 0.0),
        (lambda x: x.sign(), 2.0, 0.0),
        (lambda x: x.floor(), 2.5, 0.0),
        (lambda x: x.pow(0), 0.0, 0.0),
        (lambda x: x.pow(1), 0.0, 1.0),
        (lambda x: x.pow(2), 0.0, 0.0),
        (lambda x: tw.nn.functional.leaky_relu(x, 0.1), 0.0, 0.1),
    ],
)
def test_slopes_at_kinks(fn, at, slope):
    x = leaf(at)
    fn(x).sum().backward()
    assert x.grad.item() == slope


def test_ties_share_or_pick():
    x = leaf(1.0, 1.0)
    x.amax().backward()
    assert x.grad.tolist() == [0.5, 0.5], "amax shares a gradient among equals"
    x.grad = None
    x.max(0)[0].backward()
    assert x.grad.sum().item() == 1.0 and sorted(x.grad.tolist()) == [0.0, 1.0], "max along a dim picks one"
    a, b = leaf(2.0), leaf(2.0)
    tw.maximum(a, b).sum().backward()
    assert (a.grad.item(), b.grad.item()) == (0.5, 0.5)


def test_prod_with_zeros():
    for values, expected in (([2.0, 0.0, 3.0], [0.0, 6.0, 0.0]), ([0.0, 0.0, 3.0], [0.0, 0.0, 0.0])):
        x = leaf(*values)
        x.prod().backward()
        assert x.grad.tolist() == expected


def test_where_does_not_leak_nan():
    x = leaf(0.0, 4.0)
    safe = tw.where(x > 0, x, tw.ones_like(x))
    tw.where(x > 0, safe.sqrt(), tw.zeros_like(x)).sum().backward()
    assert x.grad.tolist() == [0.0, 0.25]


# Memory -------------------------------------------------------------------------------------------------------------


def test_graphs_are_freed_without_the_garbage_collector():
    class Marker:
        pass

    gc.disable()
    try:
        x = leaf(1.0)
        y = (x * 2).exp()
        y.mark = Marker()
        alive = weakref.ref(y.mark)
        z = (y * y).sum()
        z.backward()
        del y, z
        assert alive() is None
    finally:
        gc.enable()


def test_saved_values_are_freed_by_backward():
    x = tw.ones(1 << 20).requires_grad_()
    y = x
    for _ in range(4):
        y = y.exp() * 1e-3
    z = y.sum()
    del y
    before = tw.memory_stats()["allocated_bytes"]
    z.backward()
    x.grad = None
    assert tw.memory_stats()["allocated_bytes"] <= before - 3 * (4 << 20)


def test_unrecorded_ops_save_nothing():
    x = tw.ones(1 << 18)
    before = tw.memory_stats()["allocated_bytes"]
    y = x.exp().exp().exp()
    assert tw.memory_stats()["allocated_bytes"] - before <= 2 * (4 << 18)
    assert to_np(y)[0] == pytest.approx(np.exp(np.exp(np.e)), rel=1e-5)


def test_in_place_region_of_a_gradient_that_is_a_view():
    """cat hands back views of one gradient: the region of an in-place op lies at the view's own offset in it."""
    x, z = tw.ones(4, requires_grad=True), tw.ones(3, requires_grad=True)
    y = x * 1
    y[1:3].mul_(2)
    (tw.cat([z * 5, y]) * tw.arange(7).float()).sum().backward()
    assert x.grad.tolist() == [3, 8, 10, 6]
    assert z.grad.tolist() == [0, 5, 10]


def test_a_leafs_gradient_is_no_memory_that_another_edge_still_needs():
    a, x = leaf(1.0, 2.0), leaf(1.0, 2.0)
    b, d = x * 5, a * 7
    ((a + b) * 2 + d).sum().backward()  # a's second share arrives while b's gradient, which is a's first, is waiting
    assert a.grad.tolist() == [9.0, 9.0] and x.grad.tolist() == [10.0, 10.0]


def test_a_leafs_hook_sees_the_sum_once():
    x, seen = leaf(1.0, 2.0), []
    x.register_hook(lambda g: seen.append(g) or g.clamp(-1, 1))
    (x * 3 + x * x).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0] and [g.tolist() for g in seen] == [[5.0, 7.0]]
    x.grad.zero_()
    assert seen[0].tolist() == [5.0, 7.0]


def test_what_hooks_functions_and_callers_hold_is_never_a_leafs_gradient():
    fixed = tw.tensor([5.0, 6.0], dtype=tw.float64)
    x = leaf(1.0, 2.0)
    x.register_hook(lambda g: fixed)
    y = (x * 3).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [10.0, 12.0] and fixed.tolist() == [5.0, 6.0]

    class Product(tw.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return (x * w).sum()

        @staticmethod
        def backward(ctx, dy):
            return ctx.saved_tensors[1], ctx.saved_tensors[0]

    x, w = leaf(1.0, 2.0), leaf(5.0, 6.0)
    Product.apply(x, w).backward()
    x.grad.zero_()
    assert w.tolist() == [5.0, 6.0] and w.grad.tolist() == [1.0, 2.0]
    a, b = leaf(1.0), leaf(1.0)
    (a + b).backward(inputs=[a, b])
    a.grad.zero_()
    assert b.grad.tolist() == [1.0]
    x = leaf(1.0)
    y = x.clone()
    y.retain_grad()
    (y * 3).backward()
    x.grad.zero_()
    assert y.grad.tolist() == [3.0]


def test_retain_grad_shows_the_last_gradient_of_the_newest_value_once():
    x = leaf(1.0)
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    y.mul_(5)
    y.register_hook(lambda g: g * 10)
    (y * 3).backward()
    assert y.grad.tolist() == [30.0] and x.grad.tolist() == [300.0]
    with pytest.raises(RuntimeError, match=r"retain_grad"):
        tw.ones(1).retain_grad()


def test_a_view_whose_base_changed_has_the_new_history_everywhere():
    class Triple(tw.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 3

        @staticmethod
        def backward(ctx, dy):
            return dy * 3

    for use in (Triple.apply, lambda v: v.amax(0) * 3 if v.ndim == 0 else v * 3):
        x = leaf(1.0, 2.0)
        base = tw.zeros(2, dtype=tw.float64)
        v = base.view(2)
        base.add_(x * 5)
        use(v).sum().backward()
        assert x.grad.tolist() == [15.0, 15.0]
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    base = tw.ones(2, dtype=tw.float64)
    v = base.view(2)
    base.mul_(x)
    (w * v).sum().backward()
    assert x.grad.tolist() == [3.0, 4.0] and w.grad.tolist() == [1.0, 2.0]
    x = leaf(1.0, 2.0, 3.0)
    base = x * 1
    windows = base.unfold(0, 2, 1)
    base.mul_(2)
    windows.sum().backward()
    assert x.grad.tolist() == [2.0, 4.0, 2.0]


def test_functions_second_output_keeps_its_slot_and_nothing_cyclic():
    class Two(tw.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            a, b = x * 2, x.exp()
            ctx.save_for_backward(b)
            return a, b

        @staticmethod
        def backward(ctx, da, db):
            (b,) = ctx.saved_tensors
            return da * 2 + db * b

    x = leaf(1.0)
    a, b = Two.apply(x)
    (dx,) = tw.autograd.grad((a * b).sum(), x, create_graph=True)  # (2 x e^x)' = 2 (x + 1) e^x, then 2 (x + 2) e^x
    (ddx,) = tw.autograd.grad(dx.sum(), x)
    np.testing.assert_allclose([dx.item(), ddx.item()], [4 * np.e, 6 * np.e], rtol=1e-12)
    gc.collect()
    gc.disable()
    try:
        a, b = Two.apply(x)
        gone = weakref.ref(a.node)
        del a, b
        assert gone() is None
    finally:
        gc.enable()


def test_a_dirty_view_changes_its_bases_history():
    class Double(tw.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, dy):
            return dy * 2

    x = leaf(1.0, 2.0)
    b = x * 1
    Double.apply(b[:1])
    b.sum().backward()
    assert b.tolist() == [2.0, 2.0] and x.grad.tolist() == [2.0, 1.0]


def test_roll_and_pad_never_return_their_input():
    x = tw.ones(1, 3)
    for y in (x.roll(1, 0), x.roll(3, 1), tw.nn.functional.pad(x, (0, 0), mode="reflect")):
        y.zero_()
        assert x.tolist() == [[1.0, 1.0, 1.0]]
