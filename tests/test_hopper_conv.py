"""Convolution on sm_90 (kernels/cuda/conv_sm90.cu), emulated. Each test is a script of its own process."""

from __future__ import annotations

import pytest

from test_cuda import needs_emulator, script

# x, w, dy and what float64 makes of them; `run` compares y, dx and dw with it. Integers, so that every sum is exact and
# a result is its rounding: a wrong tap, pixel, stage or tail moves a value.
COMMON = """
rng = np.random.default_rng(5)
F = nn.functional
def windows(x, w, dy, stride, pad, dilation):  # of each tap: its place in w, and the part of padded x that it meets
    for tap in np.ndindex(w.shape[2:]):
        yield tap, (..., *(slice(t * d, t * d + (n - 1) * s + 1, s)
                           for t, d, n, s in zip(tap, dilation, dy.shape[2:], stride)))
def reference(x, w, dy, stride, pad, dilation):
    edges = [(0, 0), (0, 0), *((p, p) for p in pad)]
    padded = np.pad(x, edges)
    y, dx, dw = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(w.shape)
    for tap, part in windows(x, w, dy, stride, pad, dilation):
        of_tap = w[(..., *tap)]
        y += np.einsum("oc,nc...->no...", of_tap, padded[part])
        dx[part] += np.einsum("oc,no...->nc...", of_tap, dy)
        dw[(..., *tap)] = np.einsum("nop,ncp->oc", dy.reshape(*dy.shape[:2], -1),
                                    padded[part].reshape(*x.shape[:2], -1))
    return y, dx[tuple(slice(a, n - b) for (a, b), n in zip(edges, padded.shape))], dw
def device(x, dtype):
    return tw.tensor(x.astype(np.float32)).to(dtype).cuda()
def numbers(t):
    return t.detach().cpu().float().numpy()
def made(shape, high):
    return rng.integers(-high, high + 1, shape).astype(np.float64)
def gradients(X, W, B, DY, stride, pad, dilation):
    X, W = X.detach().requires_grad_(), W.detach().requires_grad_()
    cuda.reset_peak_memory_stats()
    before = cuda.memory_allocated()
    Y = getattr(F, f"conv{X.ndim - 2}d")(X, W, B, stride, pad, dilation)
    used, item = cuda.max_memory_allocated() - before, 16 // X.itemsize
    panels = W.nbytes // W.shape[1] * -(-W.shape[1] // item) * item
    assert used > Y.nbytes + panels + 4096  # images with channels last: it is this path that runs
    Y.backward(DY)
    return Y, X.grad, W.grad
def case(N, C, O, size, kernel, stride=1, pad=0, dilation=1, numbers_of=made):
    stride, pad, dilation = ((v,) * len(size) if isinstance(v, int) else v for v in (stride, pad, dilation))
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, pad, dilation)]
    shapes = (((N, C, *size), 3), ((O, C, *kernel), 2), ((N, O, *out), 3), ((O,), 9))
    x, w, dy, b = (numbers_of(*s) for s in shapes)
    return x, w, b, dy, stride, pad, dilation
def run(dtype, *args, **more):
    x, w, b, dy, *how = case(*args, **more)
    want = reference(x, w, dy, *how)
    X, W, B, DY = (device(v, dtype) for v in (x, w, b, dy))
    got = gradients(X, W, B, DY, *how)
    for name, g, r in zip(("y", "dx", "dw"), got, (want[0] + b.reshape(-1, *[1] * len(how[0])), *want[1:])):
        assert bool((g.cpu() == tw.tensor(r.astype(np.float32)).to(dtype)).all()), (name, args, more)
"""

# Rows of 64 and of more than 64 in one block and two, blocks that share rows or columns, channels that end within a
# chunk and within 16 bytes, images that end within a run of pixels.
CASES = {
    "3x3": "run(tw.float16, 2, 40, 36, (9, 13), (3, 3), pad=1)",
    "3x3 of parts": "run(tw.bfloat16, 5, 33, 35, (14, 11), (3, 3), stride=2, pad=1)",
    "3x3 dilated": "run(tw.bfloat16, 2, 72, 130, (11, 12), (3, 3), pad=2, dilation=2)",
    "1x1": "run(tw.bfloat16, 3, 70, 260, (7, 7), (1, 1))",
    "1x1 strided": "run(tw.float16, 2, 32, 140, (16, 16), (1, 1), stride=2)",
    "7x7": "run(tw.bfloat16, 2, 34, 66, (23, 20), (7, 7), stride=2, pad=3)",
    "1x3 of three tiles": "run(tw.bfloat16, 2, 40, 384, (8, 9), (1, 3), pad=(0, 1))",
    "2x2, slices in pairs": "run(tw.bfloat16, 1, 32, 40, (16, 20), (2, 2))",
    "strides": "run(tw.float16, 2, 40, 36, (19, 13), (3, 3), stride=(1, 3), pad=1)",
    "volumes": "run(tw.bfloat16, 2, 32, 40, (5, 6, 7), (3, 3, 3), pad=1)",
    "volumes strided": "run(tw.bfloat16, 2, 32, 33, (6, 7, 9), (3, 2, 3), stride=(2, 1, 2), pad=(1, 0, 1))",
    "lines": "run(tw.float16, 3, 48, 50, (200,), (5,), stride=3, pad=2, dilation=3)",
}


@needs_emulator
@pytest.mark.parametrize("seed", [0, 1])
def test_hopper_convolution(seed):
    for i, code in enumerate(CASES.values()):
        if i % 2 == seed:
            script(COMMON + code, TILEWRIGHT_SIMT_SEED=str(seed + i))


@needs_emulator
def test_hopper_convolution_has_no_findings():
    """Every access watched: bounds, alignment, order."""
    for seed, name in enumerate(("3x3", "1x1", "volumes strided")):
        script(COMMON + CASES[name], TILEWRIGHT_SIMT_CHECKS="1", TILEWRIGHT_SIMT_SEED=str(seed))


@needs_emulator
def test_hopper_convolution_of_tf32():
    """y and dx; dw is another kernel's. The numbers are TF32's own, so that nothing is rounded."""
    script(COMMON + """
tw.backends.cudnn.allow_tf32 = True
run(tw.float32, 2, 72, 130, (11, 12), (3, 3), pad=2, dilation=2)
run(tw.float32, 5, 33, 35, (14, 11), (3, 3), stride=2, pad=1)
x = rng.normal(0, 1, (2, 40, 9, 9))
y = numbers(F.conv2d(device(x, tw.float32), tw.eye(40, device="cuda").reshape(40, 40, 1, 1)))
assert (abs(y - x) <= 1.001 * 2.0**-11 * abs(x)).all() and (abs(y - x) > 2.0**-13 * abs(x)).any()  # rounded once
""")


@needs_emulator
def test_hopper_transposed_convolution():
    """backward_x with a bias, and pixels that no tap meets."""
    script(COMMON + """
for kernel, stride in (((2, 2), 2), ((1, 2), (2, 3))):
    x, w, b = made((3, 40, 6, 8), 3), made((40, 72, *kernel), 2), made((72,), 9)
    got = F.conv_transpose2d(*(device(v, tw.bfloat16) for v in (x, w, b)), stride)
    s = (stride, stride) if isinstance(stride, int) else stride
    want = reference(np.zeros((3, 72, *got.shape[2:])), w, x, s, (0, 0), (1, 1))[1] + b.reshape(-1, 1, 1)
    assert bool((got.cpu() == tw.tensor(want.astype(np.float32)).to(tw.bfloat16)).all()), kernel
""")


@needs_emulator
def test_hopper_convolution_keeps_its_error_bound_and_its_bits():
    """Normal numbers: K 2^-24 of the sum of magnitudes and one rounding; the same bits again, and of other layouts."""
    script(COMMON + """
x, w, b, dy, *how = case(3, 72, 70, (9, 10), (3, 3), pad=1, numbers_of=lambda s, h: rng.normal(0, 1, s))
X, W, DY = (device(v, tw.bfloat16) for v in (x, w, dy))
exact = [numbers(t).astype(np.float64) for t in (X, W, DY)]
want, most = reference(*exact, *how), reference(*(abs(v) for v in exact), *how)
got = gradients(X, W, None, DY, *how)
for g, r, m, K in zip(got, want, most, (9 * 72, 9 * 70, dy.size // 70)):
    assert (abs(numbers(g) - r) <= 1.01 * K * 2.0**-24 * m + 2.0**-8 * abs(r)).all()
def odd(t):  # the same values, two bytes further
    room = tw.zeros(t.numel() + 1, dtype=t.dtype, device="cuda")
    room[1:] = t.reshape(-1)
    return room[1:].reshape(t.shape)
def turned(t):  # the same values, channels last in memory
    return t.transpose(1, 3).contiguous().transpose(1, 3)
for same in (lambda t: t, odd, turned):
    for g, r in zip(gradients(same(X), same(W), None, same(DY), *how), got):
        assert (numbers(g) == numbers(r)).all()
""")
