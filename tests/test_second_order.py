"""Second derivatives of whole families against PyTorch, a WGAN-GP penalty that trains, and gradgradcheck."""

import numpy as np
import pytest

import tilewright as tw

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # on work this small its threads wait for each other


def uniform(*shape, low=-1.0, high=1.0):
    return np.random.default_rng(sum(shape) + 1).uniform(low, high, shape)


def positive(*shape):
    return uniform(*shape, low=0.3, high=1.7)


def each(names, *arrays, family="", then=lambda y: y):
    """A case for each function of a library, by name."""
    def case(name):
        return lambda lib, *xs: then(getattr(lib.nn.functional if family else lib, name)(*xs))

    # Of the rarer functions, those that are offered.
    return {family + name: (case(name), arrays) for name in names.split() if family or hasattr(tw, name)}


X, ZEROS = uniform(2, 3), np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
CASES = {
    **each("exp exp2 expm1 sin cos tan tanh sigmoid sinh cosh erf abs square atan neg", X),
    **each("log log2 log10 log1p sqrt rsqrt reciprocal lgamma acosh digamma", uniform(3, low=1.2, high=2.0)),
    **each("asin acos atanh erfinv logit", uniform(3, low=0.1, high=0.8)),
    **each("add sub mul div maximum minimum atan2 pow hypot fmod remainder xlogy", positive(2, 3), positive(3)),
    **each("addcmul addcdiv", X, positive(3), positive(2, 1)),
    "where": (lambda lib, a, b: lib.where(a > 0, a * a * b, b**3), (X, positive(3))),
    "clamp": (lambda lib, x: lib.clamp(x, -0.5, 0.5) ** 2, (X,)),
    "powers": (lambda lib, x: x**3 + x**1.7 + 2**x, (positive(3),)),
    "in place": (lambda lib, x: (x * 1).mul_(x).tanh_() ** 2, (X,)),
    **each("matmul", uniform(2, 2, 3), uniform(3, 2)), **each("bmm", uniform(2, 2, 3), uniform(2, 3, 2)),
    **each("mv", X, uniform(3)), **each("dot", uniform(3), positive(3)), **each("outer", uniform(2), uniform(3)),
    **each("addmm", uniform(2, 2), X, uniform(3, 2)),
    **each("baddbmm", uniform(2, 2, 2), uniform(2, 2, 3), uniform(2, 3, 2)),
    "linear": (lambda lib, x, w, b: lib.nn.functional.linear(x, w, b), (X, uniform(4, 3), uniform(4))),
    "einsum": (lambda lib, a, b: lib.einsum("ij,kj->ik", a, b), (X, positive(2, 3))),
    **each("sum mean prod var std amax amin norm nansum", positive(2, 3)),
    "reductions of a dim": (lambda lib, x: x.prod(1) * x.var(1) + x.std(1) * x.norm(dim=1) + x.amax(1) ** 2
                            + x.logsumexp(1) + x.mean(1) ** 3 + x.max(1)[0] ** 2, (positive(2, 3),)),
    "norms": (lambda lib, x: x.norm(3) + x.norm(1) ** 2 + x.norm() ** 3, (X,)),
    "prod of zeros": (lambda lib, x: x.prod(1) + x.prod(), (ZEROS,)),
    "prod of one zero": (lambda lib, x: x.prod() + x.prod(0), (ZEROS[0],)),
    "scans": (lambda lib, x: x.cumsum(1) ** 2 + x.cumprod(1), (positive(2, 3),)),
    "cumprod of zeros": (lambda lib, x: x.cumprod(1) + x.cumprod(0), (ZEROS,)),
    "sort": (lambda lib, x: x.sort(1)[0] ** 2 + x.topk(3, 1)[0] ** 3, (X,)),
    **{k: (f, (X,)) for k, f in {
        "softmax": lambda lib, x: lib.softmax(x, 1), "log_softmax": lambda lib, x: lib.log_softmax(x, 1),
        "leaky": lambda lib, x: lib.nn.functional.leaky_relu(x, 0.2) ** 2,
        "gelu tanh": lambda lib, x: lib.nn.functional.gelu(x, approximate="tanh"),
        "softplus": lambda lib, x: lib.nn.functional.softplus(x, 3.0), "glu": lambda lib, x:
        lib.nn.functional.glu(lib.cat([x, x * 2], 1), 1)}.items()},
    **each("relu leaky_relu elu gelu silu hardtanh relu6 logsigmoid mish hardswish selu celu softsign "
           "tanhshrink hardshrink softshrink", uniform(2, 3, low=-2, high=2), family="F.", then=lambda y: y * y),
    **each("prelu", X, uniform(3), family="F."),
    "layer_norm": (lambda lib, x, w, b: lib.nn.functional.layer_norm(x, (3,), w, b), (X, uniform(3), uniform(3))),
    "rms_norm": (lambda lib, x, w: lib.nn.functional.rms_norm(x, (3,), w), (X, uniform(3))),
    "group_norm": (lambda lib, x, w, b: lib.nn.functional.group_norm(x, 2, w, b),
                   (uniform(2, 4, 2), uniform(4), uniform(4))),
    "instance_norm": (lambda lib, x, w, b: lib.nn.functional.instance_norm(x, weight=w, bias=b),
                      (uniform(2, 2, 3), uniform(2), uniform(2))),
    "batch_norm": (lambda lib, x, w, b: lib.nn.functional.batch_norm(x, None, None, w, b, True),
                   (uniform(3, 2, 2), uniform(2), uniform(2))),
    "batch_norm eval": (lambda lib, x, w, b: lib.nn.functional.batch_norm(
        x, lib.zeros(2, dtype=lib.float64), lib.full((2,), 0.7, dtype=lib.float64), w, b),
        (uniform(3, 2, 2), uniform(2), uniform(2))),
    **each("conv1d", uniform(1, 2, 4), uniform(2, 2, 2), uniform(2), family="F."),
    **each("conv2d", uniform(1, 2, 4, 3), uniform(2, 2, 2, 3), uniform(2), family="F."),
    **each("conv3d", uniform(1, 1, 3, 2, 3), uniform(2, 1, 2, 2, 2), uniform(2), family="F."),
    **each("conv_transpose1d", uniform(1, 2, 3), uniform(2, 1, 2), uniform(1), family="F."),
    **each("conv_transpose2d", uniform(1, 2, 3, 2), uniform(2, 3, 2, 2), uniform(3), family="F."),
    **each("conv_transpose3d", uniform(1, 2, 2, 1, 2), uniform(2, 1, 2, 2, 2), uniform(1), family="F."),
    "conv2d grouped": (lambda lib, x, w: lib.nn.functional.conv2d(x, w, None, 2, 1, 1, 2),
                       (uniform(1, 2, 5, 4), uniform(2, 1, 3, 3))),
    "conv2d dilated": (lambda lib, x, w: lib.nn.functional.conv2d(x, w, None, 1, 2, 2),
                       (uniform(1, 1, 4, 4), uniform(2, 1, 3, 3))),
    "conv_transpose2d strided": (lambda lib, x, w: lib.nn.functional.conv_transpose2d(x, w, None, 2, 1, 1),
                                 (uniform(1, 2, 3, 2), uniform(2, 2, 3, 3))),
    "pools": (lambda lib, x: lib.nn.functional.max_pool2d(x, 2) ** 2 + lib.nn.functional.avg_pool2d(x, 2) ** 3,
              (uniform(1, 1, 4, 4),)),
}  # fmt: skip


def derivatives(lib, f, arrays):
    """The gradients of a random sum of the gradients of a random sum of f."""
    xs = [lib.tensor(a).requires_grad_() for a in arrays]
    y = f(lib, *xs)
    seeds = np.random.default_rng(1)

    def weighted(t):
        return (t * lib.tensor(seeds.uniform(0.5, 1.5, tuple(t.shape)))).sum()

    first = lib.autograd.grad(weighted(y), xs, create_graph=True)
    total = sum(weighted(g) for g in first)
    second = lib.autograd.grad(total, xs, allow_unused=True) if total.requires_grad else [None] * len(xs)
    force = {} if lib is tw else {"force": True}  # PyTorch's gradient of sign is a tensor without memory
    return [g.detach().numpy() for g in first], [np.zeros(a.shape) if g is None else g.detach().numpy(**force)
                                                 for a, g in zip(arrays, second, strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives(name):
    f, arrays = CASES[name]
    ours, theirs = derivatives(tw, f, arrays), derivatives(torch, f, arrays)
    for a, b in zip(ours[0] + ours[1], theirs[0] + theirs[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


# --- a penalty on the critic's gradient, arXiv:1704.00028 -------------------------------------------------------------
def critic(lib, norm):
    layers = [lib.nn.Conv2d(1, 4, 3, stride=2, padding=1), lib.nn.LeakyReLU(0.2), lib.nn.Conv2d(4, 8, 3, padding=1)]
    layers.append(lib.nn.BatchNorm2d(8) if norm == "batch" else lib.nn.LayerNorm([8, 4, 4]) if norm == "layer"
                  else lib.nn.InstanceNorm2d(8, affine=True))
    return lib.nn.Sequential(*layers, lib.nn.LeakyReLU(0.2), lib.nn.Flatten(), lib.nn.Linear(128, 1))


@pytest.mark.parametrize("norm", ["batch", "layer", "instance"])
def test_gradient_penalty_trains(norm):
    tw.manual_seed(3)
    rng = np.random.default_rng(7)
    ours, theirs = critic(tw, norm), critic(torch, norm)
    theirs.load_state_dict({k: torch.tensor(v.detach().numpy()) for k, v in ours.state_dict().items()})
    batch = [rng.standard_normal((6, 1, 8, 8)).astype(np.float32) for _ in range(2)]
    curves = []
    for lib, net in ((tw, ours), (torch, theirs)):
        optimizer, curve = lib.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.9)), []
        real, fake = map(lib.tensor, batch)
        for _ in range(12):
            between = (real * 0.3 + fake * 0.7).requires_grad_()
            (g,) = lib.autograd.grad(net(between).sum(), between, create_graph=True)
            penalty = ((g.reshape(6, -1).norm(2, dim=1) - 1) ** 2).mean()
            loss = net(fake).mean() - net(real).mean() + 10 * penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append([loss.item(), penalty.item()])
        curves.append(curve)
    np.testing.assert_allclose(*curves, rtol=1e-3, atol=1e-4)
    (first, gap), (last, closed) = curves[0][0], curves[0][-1]
    assert last < first and closed < gap / 2  # of one batch: the critic tells the two apart, with slopes near 1


# --- gradgradcheck ----------------------------------------------------------------------------------------------------
class Cubed(tw.autograd.Function):
    """Its own derivative is right; that of the derivative is not."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * 3 * x.detach() ** 2


def test_gradgradcheck():
    x = tw.tensor([0.4, 1.3], dtype=tw.float64, requires_grad=True)
    w = tw.tensor(uniform(2, 2)).requires_grad_()
    assert tw.autograd.gradgradcheck(lambda x, w: (tw.tanh(w @ x), x.exp()), (x, w))
    q, k, v = (tw.tensor(uniform(1, 1, n, 2)).requires_grad_() for n in (2, 3, 3))  # these two PyTorch refuses
    assert tw.autograd.gradgradcheck(tw.nn.functional.scaled_dot_product_attention, (q, k, v))
    assert tw.autograd.gradgradcheck(lambda x: tw.nn.functional.hardsigmoid(x) ** 2, (x,))
    assert tw.autograd.gradcheck(Cubed.apply, (x,)) and tw.autograd.gradcheck(Cubed.apply, x, fast_mode=True)
    with pytest.raises(RuntimeError, match="gradcheck: gradient of output"):
        tw.autograd.gradgradcheck(Cubed.apply, (x,))
    assert not tw.autograd.gradgradcheck(Cubed.apply, (x,), tw.ones(2, dtype=tw.float64), raise_exception=False)
