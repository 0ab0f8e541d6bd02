"""Rows of attention."""

from __future__ import annotations

import numpy as np

import references as R
import tilewright as tw
from arrays import FLOATS
from op_table.row import Bad, Row, Sample, Tolerance

ATTENTION = Tolerance(8.0, "array", "a product, exp, a sum and a product; scores are rounded before exp", 128.0)


def sdpa(*args, **kwargs):
    return tw.nn.functional.scaled_dot_product_attention(*args, **kwargs)


def operands(g, *shape, S=None, Ev=None, heads=None):
    """query (*shape), key and value with S rows; value with Ev columns; `heads` of key and value."""
    *lead, L, E = shape
    S, Ev, few = S or L, Ev or E, [*lead[:-1], heads] if heads else lead
    return g.array(*shape), g.array(*few, S, E), g.array(*few, S, Ev)


def samples(g):
    yield Sample(*operands(g, 1, 1))
    yield Sample(*operands(g, 3, 5))
    yield Sample(*operands(g, 2, 33, 16, S=40), is_causal=True)
    yield Sample(*operands(g, 2, 2, 35, 8, S=150, Ev=24), scale=0.5)
    yield Sample(*operands(g, 1, 2, 129, 33, Ev=7), is_causal=True)
    yield Sample(*operands(g, 4, 6, 16, S=5, heads=2), enable_gqa=True)
    yield Sample(*operands(g, 2, 4, 7, 8, heads=1), enable_gqa=True, is_causal=True)
    q, k, v = operands(g, 2, 3, 6, 8, S=9)
    yield Sample(q, k[:, :1], v[0])
    yield Sample(q, k, v, g.mask(6, 9) | np.eye(6, 9, dtype=bool))
    yield Sample(q, k, v, g.mask(2, 1, 1, 9))
    yield Sample(q, k, v, g.array(3, 6, 9))
    empty = g.mask(6, 9)
    empty[2] = False
    yield Sample(q, k, v, empty)
    yield Sample(*operands(g, 4, 6, 16, S=5, heads=2), g.array(4, 6, 5), enable_gqa=True)


def zero_sizes(g):
    yield from samples(g)
    yield Sample(*operands(g, 2, 6, 8, S=9), g.array(6, 1))  # whose gradient is 0: a row's scores all move alike
    yield Sample(g.array(2, 0, 4), g.array(2, 3, 4), g.array(2, 3, 4))
    yield Sample(g.array(2, 3, 4), g.array(2, 0, 4), g.array(2, 0, 5))


def float_masks(g):
    q, k, v = operands(g, 3, 36, 8, S=131)
    for shape in ((36, 131), (1, 1, 131), (3, 36, 1)):
        yield Sample(q, k, v, g.array(*shape))
    hidden = np.where(g.mask(36, 131), 0, -np.inf).astype(q.dtype)
    hidden[:3] = -np.inf
    yield Sample(q, k, v, hidden)


def dropout_is_the_draw_of_its_elements():
    """With values that are unit vectors the result is the weights themselves: dropped ones are 0, others are scaled;
    a seed gives the same mask for any thread count, forward and backward, and in the gradient's recorded form."""
    L, S, p = 37, 131, 0.3
    rng = np.random.default_rng(3)
    q, k = (tw.tensor(rng.uniform(-1, 1, (2, n, 8)).astype(np.float32)) for n in (L, S))
    v = tw.eye(S).expand(2, S, S)
    plain = sdpa(q, k, v).numpy()
    tw.manual_seed(9)
    y = sdpa(q, k, v, dropout_p=p).numpy()
    kept = y != 0
    np.testing.assert_allclose(y[kept], plain[kept] / (1 - p), rtol=1e-5)
    assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / kept.size)
    tw.manual_seed(9)
    draw = tw.nn.functional.dropout(tw.ones(2, L, -(-S // 4) * 4), p).numpy()[..., :S]
    assert ((draw != 0) == kept).all()
    for dtype in (tw.float32, tw.float64):
        args = [t.to(dtype).requires_grad_() for t in (q, k, tw.tensor(rng.uniform(-1, 1, (2, S, 5))))]
        dy = tw.tensor(rng.uniform(-1, 1, (2, L, 5)), dtype=dtype)
        tw.manual_seed(9)
        out = sdpa(*args, dropout_p=p)
        fused = tw.autograd.grad(out, args, dy, retain_graph=True)
        recorded = tw.autograd.grad(out, args, dy, create_graph=True)
        for a, b in zip(fused, recorded, strict=True):
            scale = np.abs(b.detach().numpy()).max()
            np.testing.assert_allclose(a.numpy() / scale, b.detach().numpy() / scale, atol=3e-6)
        eps = 1e-4
        if dtype is tw.float64:  # and both are the derivative of the forward with that mask
            for x, grad in zip(args, fused, strict=True):
                direction = tw.tensor(rng.uniform(-1, 1, tuple(x.shape)))
                ends = []
                for sign in (1, -1):
                    tw.manual_seed(9)
                    moved = [a.detach() + sign * eps * direction if a is x else a.detach() for a in args]
                    ends.append((sdpa(*moved, dropout_p=p) * dy).sum().item())
                assert abs((ends[0] - ends[1]) / (2 * eps) - (grad * direction).sum().item()) < 1e-5


def all_dropped_gives_zero():
    q = tw.ones(1, 3, 4).requires_grad_()
    y = sdpa(q, q, q, dropout_p=1.0)
    y.sum().backward()
    assert bool((y == 0).all()) and bool((q.grad == 0).all())


def heads_inside_rows_stay_views():
    """A layer's (batch, row, head, column) operands give a result of that layout, so that its reshape copies nothing."""
    x = tw.ones(2, 5, 3, 4).transpose(1, 2)
    y = sdpa(x, x, x)
    assert y.transpose(1, 2).is_contiguous() and y.transpose(1, 2).reshape(2, 5, 12).data_ptr() == y.data_ptr()


def ones(*shape, **kw):
    return tw.ones(*shape, **kw)


ROWS = [
    Row("attention", "F.scaled_dot_product_attention", R.attention, zero_sizes, FLOATS, ATTENTION, grad_samples=samples,
        slots=("attention", "attention_backward"),
        properties=(dropout_is_the_draw_of_its_elements, all_dropped_gives_zero, heads_inside_rows_stay_views),
        large=lambda g: Sample(*operands(g, 3, 2, 300, 40, S=517)),
        bad=(Bad("columns", lambda g: sdpa(ones(3, 4), ones(3, 5), ones(3, 5)), ValueError, r"\(3, 4\), \(3, 5\)"),
             Bad("rows", lambda g: sdpa(ones(3, 4), ones(5, 4), ones(6, 4)), ValueError, "as many rows"),
             Bad("heads", lambda g: sdpa(ones(4, 3, 4), ones(3, 3, 4), ones(3, 3, 4), enable_gqa=True), ValueError,
                 "heads"),
             Bad("lead", lambda g: sdpa(ones(4, 3, 4), ones(3, 3, 4), ones(3, 3, 4)), ValueError, "4.*3"),
             Bad("mask", lambda g: sdpa(ones(3, 4), ones(5, 4), ones(5, 4), ones(5, 3)), ValueError, r"\(3, 5\)"),
             Bad("mask_dtype", lambda g: sdpa(ones(3, 4), ones(5, 4), ones(5, 4), ones(3, 5, dtype=tw.int32)),
                 TypeError, "attn_mask.*int32"),
             Bad("both", lambda g: sdpa(ones(3, 4), ones(3, 4), ones(3, 4), ones(3, 3), is_causal=True), ValueError,
                 "is_causal"),
             Bad("p", lambda g: sdpa(ones(3, 4), ones(5, 4), ones(5, 4), dropout_p=1.5), ValueError, r"1\.5"),
             Bad("dims", lambda g: sdpa(ones(4), ones(5, 4), ones(5, 4)), ValueError, "2 dimensions"),
             Bad("dtype", lambda g: sdpa(ones(3, 4), ones(5, 4, dtype=tw.float64), ones(5, 4)), TypeError, "float64"),
             Bad("integers", lambda g: sdpa(*[ones(3, 4, dtype=tw.int64)] * 3), TypeError, "int64"))),
    Row("attention_mask", "F.scaled_dot_product_attention", R.attention, float_masks, FLOATS, ATTENTION, no_grad=(3,),
        slots=("attention", "attention_backward")),
]  # fmt: skip
