"""Random programs of ops, views and in-place changes: gradients against PyTorch and against central differences.

A program is drawn from a seed and depends on nothing but shapes, so that two engines run the same one. Every op is
smooth, for the differences' sake, but for `relu_` and `amax`, whose kinks random float64 values miss.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

import tilewright as tw

PROGRAMS, STEPS = 150, 9
SHAPES = [(3,), (2, 3), (3, 1), (1, 3), (2, 3, 4), (3, 4), (4, 3)]


def draw_leaves(seed):
    draw, values = random.Random(seed), np.random.RandomState(seed)
    return [values.uniform(0.2, 1.5, draw.choice(SHAPES)) for _ in range(3)]


def broadcasts(shape, to):
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def unary(m, draw, x):
    dim = draw.randrange(x.ndim) if x.ndim else None
    ops = [m.sin, m.tanh, lambda x: (x * 0.3).exp(), lambda x: x * 0.5 + 1, lambda x: (x * x + 1).sqrt(),
           lambda x: 1.5 / (x * x + 1), lambda x: x.clone(), lambda x: m.sigmoid(x)]
    if dim is not None:
        ops += [lambda x: x.sum(dim), lambda x: x.mean(dim, keepdim=True), lambda x: x.softmax(dim),
                lambda x: x.amax(dim), lambda x: x.roll(1, dim), lambda x: m.cat([x, x * 2], dim),
                lambda x: m.stack([x, x.sin()], dim), lambda x: x.index_select(dim, m.tensor([0, 0])),
                lambda x: x @ x.transpose(-1, -2) if x.ndim > 1 else x * 2]
    return draw.choice(ops)(x)


def view(draw, x):
    if not x.ndim:
        return x.unsqueeze(0)
    a, b = draw.randrange(x.ndim), draw.randrange(x.ndim)
    n = x.shape[a]
    ops = [lambda: x.transpose(a, b), lambda: x.unsqueeze(a), lambda: x.select(a, draw.randrange(n)),
           lambda: x[..., ::2], lambda: x[draw.randrange(x.shape[0]):], lambda: x.reshape(-1),
           lambda: x.expand(2, *x.shape), lambda: x[None], lambda: x.narrow(a, 0, draw.randint(1, n))]
    if n > 1:
        ops.append(lambda: x.unfold(a, 2, 1))
    if a != b:
        ops.append(lambda: x.diagonal(0, a, b))
    return draw.choice(ops)()


def change(m, draw, x, other):
    """One in-place op on x, a base or a view."""
    if other is not None:
        other = other * 1  # PyTorch reads a part of x itself while it is being written
    def assign():
        x[..., 0] = 0.5

    def assign_part():
        x[...] = x * 0.7

    ops = [lambda: x.mul_(0.8), lambda: x.zero_(), lambda: x.sin_() if hasattr(x, "sin_") else x.copy_(x.sin()),
           lambda: x.tanh_(), lambda: x.sigmoid_(), lambda: x.relu_(), lambda: x.masked_fill_(x > 0.9, 0.4)]
    if other is not None:
        ops += [lambda: x.add_(other), lambda: x.mul_(other), lambda: x.copy_(other), lambda: x.sub_(other, alpha=0.5)]
    if x.ndim:
        ops += [assign, assign_part, lambda: x.index_add_(0, m.tensor([0]), x[:1] * 0.5)]
    draw.choice(ops)()


def loss_of(m, seed, leaves):
    """Runs the program of a seed."""
    draw = random.Random(seed)
    live = [x * 1 for x in leaves] + list(leaves)
    for _ in range(STEPS):
        x, kind = draw.choice(live), draw.random()
        state = draw.random()
        fitting = [y for y in live if broadcasts(tuple(y.shape), tuple(x.shape))]
        other = draw.choice(fitting) if fitting else None
        step = random.Random(state)  # its own stream: a refused step draws as many numbers as one that runs
        if kind < 0.25:
            made = unary(m, step, x)
        elif kind < 0.45 and other is not None:
            made = step.choice([lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - b * 0.5,
                                lambda a, b: a / (b * b + 1)])(x, other)
        elif kind < 0.7:
            made = view(step, x)
        else:
            if not any(x is y for y in leaves):
                change(m, step, x, other)
            continue
        if int(np.prod(made.shape)) <= 120:
            live.append(made)
    return sum(((x * (0.3 + 0.1 * k)).sum() for k, x in enumerate(live[3:], 1)), (live[0] * 0.2).sum())


def gradients(m, seed, arrays):
    """(loss, one gradient a leaf), or None for a program that the engine refuses."""
    leaves = [m.tensor(a.tolist(), dtype=m.float64).requires_grad_() for a in arrays]
    try:
        loss = loss_of(m, seed, leaves)
        loss.backward(retain_graph=True)
        loss.backward()  # twice: the sum must be in memory of the leaf's own
    except (RuntimeError, ValueError, NotImplementedError):
        return None
    assert m is not tw or len({x.grad.data_ptr() for x in leaves}) == len(leaves), "no two leaves share a gradient"
    grads = [np.array(x.grad.tolist()).reshape(a.shape) for x, a in zip(leaves, arrays, strict=True)]
    return float(loss.detach()), grads


def test_random_programs_have_pytorchs_gradients():
    torch = pytest.importorskip("torch")
    compared = 0
    for seed in range(PROGRAMS):
        arrays = draw_leaves(seed)
        ours, theirs = gradients(tw, seed, arrays), gradients(torch, seed, arrays)
        if ours is None or theirs is None:
            continue
        compared += 1
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-9, err_msg=f"loss of program {seed}")
        for k, (a, b) in enumerate(zip(ours[1], theirs[1], strict=True)):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10, err_msg=f"leaf {k} of program {seed}")
    assert compared > PROGRAMS // 3


def test_random_programs_agree_with_central_differences():
    compared, eps = 0, 1e-6
    for seed in range(PROGRAMS):
        arrays = draw_leaves(seed)
        ours = gradients(tw, seed, arrays)
        if ours is None:
            continue
        compared += 1
        directions = [np.random.RandomState(seed + 1000 + k).standard_normal(a.shape) for k, a in enumerate(arrays)]
        ends = []
        for sign in (1, -1):
            moved = [tw.tensor((a + sign * eps * d).tolist(), dtype=tw.float64)
                     for a, d in zip(arrays, directions, strict=True)]
            ends.append(loss_of(tw, seed, moved).item())
        numeric = (ends[0] - ends[1]) / (2 * eps)
        analytic = sum((g * d).sum() for g, d in zip(ours[1], directions, strict=True)) / 2  # of two backwards
        np.testing.assert_allclose(analytic, numeric, rtol=1e-5, atol=1e-6, err_msg=f"program {seed}")
    assert compared > PROGRAMS // 3
