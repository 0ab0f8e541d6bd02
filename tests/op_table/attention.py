"""Rows of attention."""

from __future__ import annotations

import itertools

import numpy as np

import references as R
import tilewright as tw
from arrays import DEVICE, EPS, FLOATS, quantize, to_np, to_tw
from op_table.row import Bad, Row, Sample, Tolerance

# A GPU's tensor cores take the weights as halves: their rounding, half an ulp, is in every term of the second product.
ATTENTION = Tolerance(8.0, "array", "a product, exp, a sum and a product; scores are rounded before exp", 128.0,
                      1.0 if DEVICE == "cuda" else 0.5)


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
    for dtype in FLOATS:
        q, k = (to_tw(quantize(rng.uniform(-1, 1, (2, n, 8)), dtype), dtype) for n in (L, S))
        v = tw.eye(S, dtype=q.dtype, device=DEVICE).expand(2, S, S)
        plain = to_np(sdpa(q, k, v)).astype(np.float64)
        tw.manual_seed(9)
        y = to_np(sdpa(q, k, v, dropout_p=p)).astype(np.float64)
        kept = y != 0
        np.testing.assert_allclose(y[kept], plain[kept] / (1 - p), rtol=max(1e-5, 2 * EPS[dtype]))
        assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / kept.size)
        tw.manual_seed(9)
        draw = to_np(tw.nn.functional.dropout(tw.ones(2, L, -(-S // 4) * 4, device=DEVICE), p))[..., :S]
        assert ((draw != 0) == kept).all()
        args = [t.detach().requires_grad_() for t in (q, k)]
        args.append(to_tw(quantize(rng.uniform(-1, 1, (2, S, 5)), dtype), dtype, grad=True))
        dy = to_tw(quantize(rng.uniform(-1, 1, (2, L, 5)), dtype), dtype)
        tw.manual_seed(9)
        out = sdpa(*args, dropout_p=p)
        fused = tw.autograd.grad(out, args, dy, retain_graph=True)
        recorded = tw.autograd.grad(out, args, dy, create_graph=True)
        for a, b in zip(fused, recorded, strict=True):
            a, b = to_np(a).astype(np.float64), to_np(b).astype(np.float64)
            np.testing.assert_allclose(a / np.abs(b).max(), b / np.abs(b).max(), atol=max(3e-6, 4 * EPS[dtype]))
        eps = 1e-4
        if dtype == "float64":  # and both are the derivative of the forward with that mask
            for x, grad in zip(args, fused, strict=True):
                direction = to_tw(rng.uniform(-1, 1, tuple(x.shape)), dtype)
                ends = []
                for sign in (1, -1):
                    tw.manual_seed(9)
                    moved = [a.detach() + sign * eps * direction if a is x else a.detach() for a in args]
                    ends.append((sdpa(*moved, dropout_p=p) * dy).sum().item())
                assert abs((ends[0] - ends[1]) / (2 * eps) - (grad * direction).sum().item()) < 1e-5


def halves_of_all_head_sizes():
    """Halves against float64 where a device has other tiles: heads of up to 64, 128 and more columns, whole blocks of
    queries and keys and parts of them, strides that no copy of 16 bytes takes; forward and backward."""
    rng = np.random.default_rng(8)
    cases = ((130, 150, 64, 0, False), (150, 140, 128, 0, True), (131, 129, 64, 1, True), (33, 70, 100, 1, False),
             (9, 70, 160, 0, True))
    for (L, S, E, odd, causal), dtype in itertools.product(cases, ("float16", "bfloat16")):
        shapes = (2, 2, L, E), (2, 1, S, E), (2, 2, S, E), (2, 2, L, E)
        arrays = [np.pad(quantize(rng.uniform(-1, 1, shape), dtype), ((0, 0),) * 3 + ((odd, 0),)) for shape in shapes]
        results = []
        for name in (dtype, "float64"):
            *args, dy = (to_tw(a.astype(np.float64), name) for a in arrays)
            args = [t.requires_grad_() for t in args]
            y = sdpa(*(t[..., odd:] for t in args), is_causal=causal)
            results.append([y, *tw.autograd.grad(y, args, dy[..., odd:])])
        for got, want in zip(*(map(to_np, r) for r in results), strict=True):
            off = np.abs(got.astype(np.float64) - want).max() / np.abs(want).max()
            assert off < 1.5 * EPS[dtype], (L, S, E, dtype, off)


def all_dropped_gives_zero():
    q = tw.ones(1, 3, 4, device=DEVICE).requires_grad_()
    y = sdpa(q, q, q, dropout_p=1.0)
    y.sum().backward()
    assert bool((y == 0).all()) and bool((q.grad == 0).all())


def heads_inside_rows_stay_views():
    """A layer's (batch, row, head, column) operands give a result of that layout, whose reshape copies nothing."""
    x = tw.ones(2, 5, 3, 4, device=DEVICE).transpose(1, 2)
    y = sdpa(x, x, x)
    assert y.transpose(1, 2).is_contiguous() and y.transpose(1, 2).reshape(2, 5, 12).data_ptr() == y.data_ptr()


def ones(*shape, **kw):
    return tw.ones(*shape, **kw)


ROWS = [
    Row("attention", "F.scaled_dot_product_attention", R.attention, zero_sizes, FLOATS, ATTENTION, grad_samples=samples,
        slots=("attention", "attention_backward"),
        properties=(dropout_is_the_draw_of_its_elements, halves_of_all_head_sizes, all_dropped_gives_zero,
                    heads_inside_rows_stay_views),
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
