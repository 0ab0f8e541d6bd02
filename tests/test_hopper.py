"""Products, attention and TF32 on sm_90 (gemm_sm90.cu, attention_*_sm90.cu), emulated: a script of its own each."""

from __future__ import annotations

import pytest

from test_cuda import needs_emulator, script

# Integers, so that every sum is exact and the result is its rounding: a wrong fragment, stage or tail moves a value.
HOPPER = """
rng = np.random.default_rng(3)
def halves(x, dtype):
    return tw.tensor(x.astype(np.float32)).to(dtype)
def operand(x, across, dtype):
    return halves(x.swapaxes(-1, -2).copy(), dtype).cuda().transpose(-1, -2) if across else halves(x, dtype).cuda()
def product(a_shape, b_shape, dtype, across_a=False, across_b=True):
    a, b = rng.integers(-4, 5, a_shape), rng.integers(-4, 5, b_shape)
    got = (operand(a, across_a, dtype) @ operand(b, across_b, dtype)).cpu()
    assert bool((got == halves(a @ b, dtype)).all()), (a_shape, b_shape, dtype, across_a, across_b)
"""


@needs_emulator
@pytest.mark.parametrize("across_b", [False, True])
@pytest.mark.parametrize("across_a", [False, True])
def test_hopper_product(across_a, across_b):
    """gemm_sm90: tails of M, N and K, a block past the last row, a ring that wraps, more tiles than blocks."""
    for seed, dtype in enumerate(("float16", "bfloat16")):
        script(HOPPER + f"product((304, 616), (616, 520), tw.{dtype}, {across_a}, {across_b})",
               TILEWRIGHT_SIMT_SEED=str(seed))


@needs_emulator
def test_hopper_product_of_other_layouts():
    """Operands that the copy engine cannot take are copied; batches have up to two dimensions, broadcast or not."""
    script(HOPPER + """
product((131, 129), (129, 201), tw.bfloat16, True, True)  # rows of odd length
product((2, 136, 128), (2, 128, 136), tw.float16, False, True)
product((2, 1, 129, 136), (3, 136, 136), tw.bfloat16, True, False)
product((2, 1, 2, 129, 128), (2, 1, 128, 136), tw.float16)  # three dimensions that do not merge
x = halves(rng.integers(-4, 5, (300, 140)), tw.float16).cuda()
y = halves(rng.integers(-4, 5, (140, 300)), tw.float16).cuda()
wide = tw.zeros(300, 280, dtype=tw.float16, device="cuda")
wide[:, ::2] = x
assert bool((wide[:, ::2] @ y == x @ y).all())
""")


@needs_emulator
def test_hopper_epilogue():
    """alpha, beta, bias and activation as on the CPU, in rows that allow 16 bytes an access and in rows that do not."""
    script(HOPPER + """
for n, activation, out in ((200, "relu", tw.bfloat16), (201, "gelu", tw.float32), (136, "none", tw.float16)):
    dtype = tw.float16 if out is tw.float16 else tw.bfloat16
    a, b = halves(rng.integers(-4, 5, (150, 192)), dtype), halves(rng.integers(-4, 5, (192, n)), dtype)
    c, bias = halves(rng.integers(-9, 10, (150, n)), tw.float32).to(out), halves(rng.integers(-9, 10, n), dtype)
    results = []
    for device in ("cpu", "cuda"):
        to = c.to(device, copy=True)
        tw.kernels.gemm(a.to(device), b.to(device), out=to, bias=bias.to(device), activation=activation,
                        alpha=0.03125, beta=0.5)
        results.append(to.cpu().to(tw.float32).numpy())
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6, atol=1e-6)
""")


@needs_emulator
def test_hopper_product_has_no_findings():
    """Every access watched: bounds, alignment, order."""
    script(HOPPER + "product((136, 392), (392, 136), tw.bfloat16, True, False)", TILEWRIGHT_SIMT_CHECKS="1",
           TILEWRIGHT_SIMT_SEED="2")


HOPPER_ATTENTION = """
sdpa = nn.functional.scaled_dot_product_attention
rng = np.random.default_rng(4)
def halves(dtype, *shape):
    return tw.tensor(rng.uniform(-1, 1, shape).astype(np.float32)).to(dtype).cuda()
def doubles(x):
    return x.detach().cpu().to(tw.float64).numpy()
def gradients(q, k, v, dy, **how):
    args = [x.detach().requires_grad_() for x in (q, k, v)]
    y = sdpa(*args, **how)
    return [y, *tw.autograd.grad(y, args, dy)]
def check(dtype, L, S, E, causal):
    # Each element of y and of the gradients against its own bound. u: half an ulp, tiny: half of the smallest half, f:
    # what float32 does to a score, with 2^-22 for the exponential and lse. p and ds are rounded once, results once.
    q, k, v, dy = halves(dtype, 1, L, E), halves(dtype, 1, S, E), halves(dtype, 1, S, E), halves(dtype, 1, L, E)
    got = [doubles(x)[0] for x in gradients(q, k, v, dy, is_causal=causal)]
    q, k, v, dy, scale = (*(doubles(x)[0] for x in (q, k, v, dy)), E ** -0.5)
    u, tiny = (2.0 ** -11, 2.0 ** -25) if dtype is tw.float16 else (2.0 ** -8, 2.0 ** -134)
    f = 2.0 ** -24 * (E + 8) * (abs(q) @ abs(k).T).max() * scale + 2.0 ** -22
    p = np.exp(scale * (q @ k.T))
    p = np.tril(p) if causal else p
    p /= p.sum(1, keepdims=True)
    D, sizes = (dy * got[0]).sum(1, keepdims=True), abs(dy) @ abs(v).T + (abs(dy) * abs(got[0])).sum(1, keepdims=True)
    ds = p * (dy @ v.T - D)
    off_p, off_ds = u * p + f * p + tiny * (p > 0), u * abs(ds) + p * sizes * (f + 2.0 ** -24 * E) + tiny * (p > 0)
    most = 0
    for x, want, off in zip(got, (p @ v, scale * ds @ k, scale * ds.T @ q, p.T @ dy),
                            (off_p @ abs(v), scale * off_ds @ abs(k), scale * off_ds.T @ abs(q), off_p.T @ abs(dy))):
        off = off + u * abs(want) + tiny
        most = max(most, (abs(x - want) / off).max())
    assert 0.1 < most <= 1, (dtype, L, S, E, causal, most)  # the bound holds, and is not idle
"""


@needs_emulator
@pytest.mark.parametrize("E, seed", [(64, 5), (128, 0)])
def test_hopper_attention(E, seed):
    """attention_sm90 and attention_backward_sm90: parts of tiles on both sides, rings that wrap, keys that no query
    sees, sizes on either side of what they take."""
    script(HOPPER_ATTENTION + f"""
half, other = (tw.float16, tw.bfloat16)[::{1 if E == 64 else -1}]
check(half, 1, 129, {E}, False)
check(half, 127, 130, {E}, True)
for L, S in ((128, 128), (129, 300), (330, 129)):
    check(half, L, S, {E}, True)
    check(other, L, S, {E}, False)
check(other, 577, 132, {E}, True)
check(half, 132, 577, {E}, False)
check(half, 132, 577, {E}, True)
""", TILEWRIGHT_SIMT_SEED=str(seed))


@needs_emulator
def test_hopper_attention_of_other_layouts():
    """Heads inside rows, operands that the copy engine cannot take, broadcast and grouped heads: the bits of contiguous
    operands, and the same bits again; each gradient alone is what it is among all three."""
    script(HOPPER_ATTENTION + """
def same(xs, ys):
    assert all((doubles(x) == doubles(y)).all() for x, y in zip(xs, ys, strict=True))
q, k, v, dy = (halves(tw.bfloat16, 2, 2, n, 64) for n in (136, 150, 150, 136))
want = gradients(q, k, v, dy, is_causal=True)
same(gradients(q, k, v, dy, is_causal=True), want)
inside = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, dy)]
same(gradients(*inside, is_causal=True), want)
odd = [tw.cat([x[..., :1], x], -1)[..., 1:] for x in (q, k, v, dy)]
same(gradients(*odd, is_causal=True), want)
for i, x in enumerate((q, k, v)):
    args = [x.detach() for x in (q, k, v)]
    args[i].requires_grad_()
    same(tw.autograd.grad(sdpa(*args, is_causal=True), args[i], dy), want[i + 1:i + 2])
apart = [x.reshape(2, 1, 2, 1, *x.shape[2:]).expand(2, 2, 2, 2, *x.shape[2:]) for x in (q, k, v, dy)]
results = gradients(*apart, is_causal=True)  # four dimensions of the batch, two of them broadcast
for i in range(2):
    same([x[:, i, :, 1 - i] for x in results], want)
few = [x[:, :1] for x in (k, v)]
grouped = gradients(q, *few, dy, enable_gqa=True)
same(grouped[:2], gradients(q, *(x.expand(2, 2, 150, 64) for x in few), dy)[:2])
for x, each in zip(grouped[2:], gradients(q, *(x.expand(2, 2, 150, 64).contiguous() for x in few), dy)[2:]):
    off = abs(doubles(x)[:, 0] - doubles(each).sum(1))
    assert (off <= 2.0 ** -8 * (abs(doubles(x)[:, 0]) + abs(doubles(each)).sum(1))).all()
""")


@needs_emulator
def test_hopper_attention_has_no_findings():
    script(HOPPER_ATTENTION + "check(tw.bfloat16, 330, 129, 128, True), check(tw.float16, 129, 200, 64, True)",
           TILEWRIGHT_SIMT_CHECKS="1", TILEWRIGHT_SIMT_SEED="2")


# Operands as TF32 has them, rounded to 10 bits of fraction: against the products of these in float64 only the order of
# float32 sums is left, K 2^-24 of the sum of magnitudes. Fresh operands are 2^-10 of it away, and some more than 2^-17.
TF32 = """
rng = np.random.default_rng(5)
def rounded(x):
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xffffe000)).view(np.float32)
def check(got, product, a, b, terms):
    a, b = a.astype(np.float32), b.astype(np.float32)
    got, size = got.cpu().numpy().astype(np.float64), product(abs(a.astype(np.float64)), abs(b.astype(np.float64)))
    error = abs(got - product(rounded(a).astype(np.float64), rounded(b).astype(np.float64)))
    assert (error <= terms * 2**-24 * size).all(), (a.shape, b.shape, (error / size).max())
    fresh = abs(got - product(a.astype(np.float64), b.astype(np.float64)))
    assert (fresh <= (2**-10 * 1.001 + terms * 2**-24) * size).all() and (fresh > 2**-17 * size).any()
def matmul(a_shape, b_shape, across_a=False, across_b=True):
    a, b = rng.standard_normal(a_shape).astype(np.float32), rng.standard_normal(b_shape).astype(np.float32)
    at = lambda x, across: (tw.tensor(x.swapaxes(-1, -2).copy()).cuda().transpose(-1, -2) if across
                            else tw.tensor(x).cuda())
    check(at(a, across_a) @ at(b, across_b), np.matmul, a, b, a_shape[-1])
tw.backends.cuda.matmul.allow_tf32 = tw.backends.cudnn.allow_tf32 = True
"""


@needs_emulator
def test_tf32_products():
    """mma.sync: all transpositions, tails of M, N and K, odd strides, a batch, slices of a long K."""
    for seed, across_a in enumerate((False, True)):
        script(TF32 + f"""
for across_b in (False, True):
    matmul((132, 72), (72, 60), {across_a}, across_b)
matmul((3, 33), (33, 5), {across_a})
matmul((2, 20, 37), (37, 130), {across_a})
matmul((40, 1030), (1030, 20), {across_a})
""", TILEWRIGHT_SIMT_SEED=str(seed))


@needs_emulator
def test_tf32_on_hopper():
    """wgmma: b across K takes a's place, both across copy one, odd strides copy; batches; slices."""
    for seed, across_a in enumerate((False, True)):
        script(TF32 + f"""
for across_b in (False, True):
    matmul((300, 100), (100, 136), {across_a}, across_b)
matmul((131, 67), (67, 257), {across_a}, {across_a})
matmul((2, 136, 64), (2, 64, 140), {across_a}, {not across_a})
matmul((136, 1100), (1100, 132), {across_a}, {across_a})
""", TILEWRIGHT_SIMT_SEED=str(seed))


@needs_emulator
def test_tf32_has_no_findings():
    script(TF32 + "matmul((136, 70), (70, 140), True, True)\nmatmul((50, 1030), (1030, 20), True, False)",
           TILEWRIGHT_SIMT_CHECKS="1", TILEWRIGHT_SIMT_SEED="2")


@needs_emulator
def test_tf32_convolutions():
    """Forward and both gradients through the tensor cores: many and few rows, odd rows of pixels, strides, groups."""
    script(TF32 + """
from tilewright import _engine
conv = lambda x, w, **how: nn.functional.conv2d(tw.tensor(x), tw.tensor(w), **how).numpy()
for N, C, O, H, W, k, groups, how in ((2, 9, 70, 7, 9, 3, 1, dict(padding=1)), (1, 24, 24, 9, 8, 3, 2, dict(stride=2)),
                                      (2, 16, 20, 4, 8, 2, 1, {}), (3, 20, 72, 4, 4, 1, 1, {})):
    how = dict(how, groups=groups)
    x = rng.standard_normal((N, C, H, W)).astype(np.float32)
    w = rng.standard_normal((O, C // groups, k, k)).astype(np.float32)
    y = nn.functional.conv2d(tw.tensor(x).cuda(), tw.tensor(w).cuda(), **how)
    check(y, lambda x, w: conv(x, w, **how), x, w, C // groups * k * k)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    array = lambda v, device: tw.tensor(v).to(device).array
    rest = [how.get("stride", 1)], [how.get("padding", 0)], [1], groups
    def dx(device, dy, w):
        return _engine.conv_backward_x(2, array(dy, device), array(w, device), None, x.shape, *rest)
    def dw(device, dy, x):
        return _engine.conv_backward_w(2, array(dy, device), array(x, device), w.shape, *rest)
    of = lambda a: tw.autograd.wrap(a)
    check(of(dx("cuda", dy, w)), lambda a, b: of(dx("cpu", a, b)).numpy(), dy, w, O // groups * k * k)
    check(of(dw("cuda", dy, x)), lambda a, b: of(dw("cpu", a, b)).numpy(), dy, x, y.numel() // O)
""")


@needs_emulator
def test_slices_of_a_long_product():
    """Cut along K, summed in order, and ended once: the same bits whatever the order of blocks and the layout."""
    code = HOPPER + """
for dtype, shape, n in ((tw.bfloat16, (130, 2100), 33), (tw.float16, (136, 1100), 136), (tw.float32, (70, 530), 68)):
    a, b, c = rng.standard_normal(shape), rng.standard_normal((shape[1], n)), rng.standard_normal((shape[0], n))
    bias = rng.standard_normal(n)
    bits = []
    for across in (False, True):
        to = halves(c, tw.float32).cuda()
        tw.kernels.gemm(operand(a, across, dtype), operand(b, across, dtype), out=to, bias=halves(bias, dtype).cuda(),
                        activation="relu", alpha=0.25, beta=0.5)
        bits.append(to.cpu().numpy())
    wide = [halves(v, dtype).to(tw.float64).numpy() for v in (a, b, bias)]
    expected = np.maximum(0.25 * (wide[0] @ wide[1]) + 0.5 * c.astype(np.float32) + wide[2], 0)
    np.testing.assert_allclose(bits[0], expected, rtol=1e-5, atol=1e-4)
    assert (bits[0] == bits[1]).all()
    print(bits[0].tobytes().hex()[:4000])
"""
    assert script(code, TILEWRIGHT_SIMT_SEED="0") == script(code, TILEWRIGHT_SIMT_SEED="1")
