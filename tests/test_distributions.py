"""Distributions against PyTorch: densities, moments, entropies, divergences and their gradients; samples by their
moments, and reparametrized gradients."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw

torch = pytest.importorskip("torch")
D, T = tw.distributions, torch.distributions
RNG = np.random.default_rng(0)


def positive(*shape):
    return RNG.uniform(0.5, 3.0, shape)


def real(*shape):
    return RNG.standard_normal(shape)


def simplex(*shape):
    x = RNG.uniform(0.1, 1, shape)
    return x / x.sum(-1, keepdims=True)


def tril(n):
    return np.tril(real(n, n), -1) + np.diag(positive(n))


# class: (parameters, values)
CASES = {
    "Normal": ({"loc": real(3), "scale": positive(3)}, real(2, 3)),
    "LogNormal": ({"loc": real(3), "scale": positive(3)}, positive(2, 3)),
    "Laplace": ({"loc": real(3), "scale": positive(3)}, real(2, 3)),
    "Cauchy": ({"loc": real(3), "scale": positive(3)}, real(2, 3)),
    "Gumbel": ({"loc": real(3), "scale": positive(3)}, real(2, 3)),
    "Uniform": ({"low": np.array([-1.0, 0.0]), "high": np.array([1.0, 3.0])}, np.array([[0.5, 2.0], [-0.5, 0.1]])),
    "Exponential": ({"rate": positive(3)}, positive(2, 3)),
    "Gamma": ({"concentration": positive(3) - 0.3, "rate": positive(3)}, positive(2, 3)),
    "Chi2": ({"df": positive(3)}, positive(2, 3)),
    "Beta": ({"concentration1": positive(3), "concentration0": positive(3)}, RNG.uniform(0.1, 0.9, (2, 3))),
    "Dirichlet": ({"concentration": positive(2, 4)}, simplex(3, 2, 4)),
    "StudentT": ({"df": positive(3) + 2.5, "loc": real(3), "scale": positive(3)}, real(2, 3)),
    "MultivariateNormal": ({"loc": real(2, 3), "scale_tril": tril(3)}, real(4, 2, 3)),
    "MultivariateNormal-covariance": ({"loc": real(3), "covariance_matrix": 2 * np.eye(3) + 1}, real(4, 3)),
    "Bernoulli": ({"probs": RNG.uniform(0.1, 0.9, 3)}, np.array([[0.0, 1, 1], [1, 0, 1]])),
    "Bernoulli-logits": ({"logits": 4 * real(3)}, np.array([[0.0, 1, 1], [1, 0, 1]])),
    "Geometric": ({"probs": RNG.uniform(0.2, 0.8, 3)}, np.array([0.0, 3, 1])),
    "Binomial": ({"total_count": 5, "probs": RNG.uniform(0.2, 0.8, 3)}, np.array([0.0, 3, 5])),
    "Categorical": ({"probs": positive(2, 4)}, np.array([[0.0, 3], [1, 1], [2, 0]])),
    "Categorical-logits": ({"logits": real(2, 4)}, np.array([[0.0, 3], [1, 1], [2, 0]])),
    "OneHotCategorical": ({"probs": positive(2, 4)}, np.eye(4)[[[0, 3], [1, 1]]]),
    "Multinomial": ({"total_count": 4, "probs": positive(2, 3)}, np.array([[1.0, 3, 0], [2, 1, 1]])),
    "Poisson": ({"rate": positive(3)}, np.array([0.0, 2, 5])),
}  # fmt: skip


def make(lib, name, parameters):
    given = {k: lib.tensor(v, requires_grad=True) if isinstance(v, np.ndarray) else v for k, v in parameters.items()}
    return getattr(lib.distributions, name.partition("-")[0])(**given), [
        v for v in given.values() if hasattr(v, "backward")]


def compare(name, of):
    """of(library, distribution) and its gradients agree."""
    results = []
    for lib in (tw, torch):
        d, leaves = make(lib, name, CASES[name][0])
        try:
            y = of(lib, d)
        except NotImplementedError:
            results.append(None)
            continue
        found = [y.detach().numpy()]
        if y.requires_grad:
            grads = lib.autograd.grad(y.sum(), leaves, allow_unused=True)
            found += [np.zeros(tuple(v.shape)) if g is None else g.numpy() for v, g in zip(leaves, grads, strict=True)]
        results.append(found)
    ours, theirs = results
    if theirs is None:
        return
    assert ours is not None, f"{name}: PyTorch has it"
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_density_moments_entropy(name):
    values = CASES[name][1]
    compare(name, lambda lib, d: d.log_prob(lib.tensor(values)))
    compare(name, lambda lib, d: d.mean)
    compare(name, lambda lib, d: d.variance)
    compare(name, lambda lib, d: d.stddev)
    if name not in ("Binomial", "Multinomial", "Geometric", "Cauchy"):
        compare(name, lambda lib, d: d.mode if hasattr(type(d), "mode") else d.mean * 0)
    if name not in ("Binomial", "Multinomial", "Poisson", "StudentT"):
        compare(name, lambda lib, d: d.entropy())
    if name in ("Normal", "LogNormal", "Laplace", "Cauchy", "Uniform", "Exponential"):
        compare(name, lambda lib, d: d.cdf(lib.tensor(values)))
        compare(name, lambda lib, d: d.icdf(lib.tensor(np.array([0.1, 0.6]).repeat(len(values[0]))[:len(values[0])])))
    if name.startswith(("Bern", "Cat", "OneHot")):
        compare(name, lambda lib, d: d.enumerate_support())
    ours, theirs = make(tw, name, CASES[name][0])[0], make(torch, name, CASES[name][0])[0]
    assert [tuple(ours.batch_shape), tuple(ours.event_shape)] == [tuple(theirs.batch_shape), tuple(theirs.event_shape)]
    larger, reference = (d.expand((2, 5, *d.batch_shape)) for d in (ours, theirs))
    np.testing.assert_allclose(larger.log_prob(tw.tensor(values[0])).detach().numpy(),
                               reference.log_prob(torch.tensor(values[0])).detach().numpy())


@pytest.mark.parametrize("name", CASES)
def test_samples_have_the_moments(name):
    tw.manual_seed(0)
    d, leaves = make(tw, name, CASES[name][0])
    x = d.sample((20_000,))
    assert tuple(x.shape) == (20_000, *d.batch_shape, *d.event_shape) and not x.requires_grad
    d._check_value(x)
    if name.partition("-")[0] in ("Cauchy", "Categorical"):
        if name.startswith("Cat"):
            share = tw.nn.functional.one_hot(x, 4).double().mean(0)
            np.testing.assert_allclose(share.numpy(), d.probs.detach().numpy(), atol=0.02)
        return
    mean, variance = d.mean.detach().numpy(), d.variance.detach().numpy()
    np.testing.assert_allclose(x.mean(0).numpy(), mean, atol=5 * np.sqrt(variance.max() / 20_000))
    if name != "LogNormal":
        np.testing.assert_allclose(x.var(0).numpy(), variance, rtol=0.2, atol=1e-3)
    if d.has_rsample:
        y = d.rsample((3,))
        assert all(g is not None for g in tw.autograd.grad(y.sum(), leaves))
        assert y.shape == (3, *d.batch_shape, *d.event_shape)


def test_reparametrized_gradient():
    loc, scale = (tw.tensor(v, requires_grad=True) for v in (1.0, 2.0))
    tw.manual_seed(1)
    x = D.Normal(loc, scale).rsample((5,))
    (dloc, dscale) = tw.autograd.grad(x.sum(), (loc, scale))
    assert dloc.item() == 5 and abs(dscale.item() - ((x - 1) / 2).sum().item()) < 1e-5


PAIRS = ["Normal", "Laplace", "Cauchy", "Exponential", "Gamma", "Beta", "Dirichlet", "MultivariateNormal", "Bernoulli",
         "Geometric", "Binomial", "Categorical", "Categorical-logits", "OneHotCategorical", "Poisson"]


@pytest.mark.parametrize("name", PAIRS)
def test_kl_divergence(name):
    other = {k: (v[::-1].copy() if k != "scale_tril" else v * 1.5) if isinstance(v, np.ndarray) else v
             for k, v in CASES[name][0].items()}
    results = []
    for lib in (tw, torch):
        (p, a), (q, b) = make(lib, name, CASES[name][0]), make(lib, name, other)
        y = lib.distributions.kl_divergence(p, q)
        results.append([y.detach().numpy(), *(g.numpy() for g in lib.autograd.grad(y.sum(), a + b))])
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9)


def test_uniform_and_independent_divergences():
    inside, outside = D.Uniform(0.0, 1.0), D.Uniform(-1.0, 3.0)
    assert D.kl_divergence(inside, outside).item() == pytest.approx(np.log(4)) and D.kl_divergence(
        outside, inside).item() == float("inf")
    loc, scale = real(2, 3), positive(2, 3)
    ours, theirs = (lib.distributions.Independent(lib.distributions.Normal(lib.tensor(loc), lib.tensor(scale)), 1)
                    for lib in (tw, torch))
    assert tuple(ours.batch_shape) == (2,) and tuple(ours.event_shape) == (3,)
    np.testing.assert_allclose(ours.log_prob(tw.tensor(loc + 1)).numpy(),
                               theirs.log_prob(torch.tensor(loc + 1)).numpy())
    np.testing.assert_allclose(ours.entropy().numpy(), theirs.entropy().numpy())
    unit = D.Independent(D.Normal(tw.zeros(2, 3).double(), 1.0), 1)
    reference = T.Independent(T.Normal(torch.zeros(2, 3).double(), 1.0), 1)
    np.testing.assert_allclose(D.kl_divergence(ours, unit).numpy(), T.kl_divergence(theirs, reference).numpy())


@pytest.mark.parametrize("call, error, words", [
    (lambda: D.Normal(0.0, -1.0), ValueError, "Normal: scale must be positive, got"),
    (lambda: D.Bernoulli(tw.tensor([0.5, 1.5])), ValueError, "Bernoulli: probs must be unit interval"),
    (lambda: D.Categorical(), ValueError, "Categorical: exactly one of probs and logits must be given, got neither"),
    (lambda: D.Categorical(tw.ones(3)).log_prob(tw.tensor(3)), ValueError, "Categorical: the value must be below 3"),
    (lambda: D.Uniform(1.0, 0.0), ValueError, "Uniform: low must be below high"),
    (lambda: D.Normal(tw.zeros(2), 1.0).log_prob(tw.zeros(3)), ValueError, "broadcast_shapes: sizes must agree"),
    (lambda: D.Dirichlet(tw.ones(3)).log_prob(tw.ones(3)), ValueError, "Dirichlet: the value must be simplex"),
    (lambda: D.Gamma(1.0, 1.0).rsample(), NotImplementedError, "Gamma: rsample is not offered; use sample"),
    (lambda: D.kl_divergence(D.Normal(0.0, 1.0), D.Cauchy(0.0, 1.0)), NotImplementedError, "no formula for Normal and"),
    (lambda: D.MultivariateNormal(tw.zeros(2)), ValueError, "MultivariateNormal: exactly one of"),
])
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()
