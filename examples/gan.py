"""Adversarial networks on handwritten digits: GAN, DCGAN and WGAN-GP, and what a classifier says of their samples.

    python examples/gan.py

A generator makes pictures of noise, a discriminator tells them from real ones, and each learns from the other:
min over G, max over D of E log D(x) + E log(1 - D(G(z))), the generator's part as -log D(G(z)) (Goodfellow et al.,
arXiv:1406.2661). The plain one may collapse to a few modes. DCGAN (Radford et al., arXiv:1511.06434) steadies it by
strided convolutions and batch norm; WGAN-GP (Gulrajani et al., arXiv:1704.00028) by another distance, Wasserstein's:
a critic without a sigmoid whose gradient is held at norm 1 between real and made pictures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, bar, batches, digits, plt, save_picture
from vae import plain
from vae import train as train_vae

import tilewright as tw
from tilewright import nn
from tilewright.models import DCDiscriminator, DCGenerator, gradient_penalty
from tilewright.nn import functional as F

KINDS = {  # networks, loss, steps of the generator
    "GAN": ("dense", "GAN", 3000), "GAN, batch norm": ("dense, batch norm", "GAN", 3000),
    "DCGAN": ("convolutional", "GAN", 2000), "WGAN-GP": ("dense", "WGAN-GP", 2500),
    "WGAN-GP, convolutional": ("convolutional", "WGAN-GP", 1500)}
LATENT = 32


def networks(kind: str, wasserstein: bool, width: int = 16) -> tuple[nn.Module, nn.Module]:
    """A generator (N, LATENT) to (N, 1, 8, 8) in (-1, 1), and what judges its pictures by one number each."""
    if kind == "convolutional":
        return DCGenerator(LATENT, 1, 8, width, start=2), DCDiscriminator(1, 8, width, not wasserstein, start=2)
    hidden, layers = 8 * width, []
    for size in (LATENT, hidden):
        norm = [nn.BatchNorm1d(hidden)] if "norm" in kind else []
        layers += [nn.Linear(size, hidden), *norm, nn.ReLU()]
    generator = nn.Sequential(*layers, nn.Linear(hidden, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    return generator, nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden),
                                    nn.LeakyReLU(0.2), nn.Linear(hidden, 1), nn.Flatten(0))


def noise(n: int, like: tw.Tensor) -> tw.Tensor:
    return tw.randn(n, LATENT, device=like.device)


@tw.no_grad()
def draw(generator: nn.Module, n: int, like: tw.Tensor) -> tw.Tensor:
    """n pictures by batch norm's running statistics, so that none depends on the others."""
    generator.eval()
    pictures = generator(noise(n, like))
    generator.train()
    return pictures


def judged(judge: nn.Module, real: tw.Tensor, fake: tw.Tensor, wasserstein: bool) -> tw.Tensor:
    """The judge's loss: cross-entropy of real and fake, or minus Wasserstein's distance with the penalty."""
    a, b = judge(real), judge(fake)
    if wasserstein:
        return b.mean() - a.mean() + 10 * gradient_penalty(judge, real, fake)
    return F.binary_cross_entropy_with_logits(a, tw.ones_like(a)) + F.binary_cross_entropy_with_logits(
        b, tw.zeros_like(b))


def train(kind: str, loss: str, x: tw.Tensor, steps: int, measure: Any = None,
          size: int = 64) -> tuple[nn.Module, list[tuple[int, float]]]:
    """The generator after so many steps on pictures (n, 1, 8, 8) in [-1, 1], and measure(pictures) on the way."""
    wasserstein = loss == "WGAN-GP"
    generator, judge = (m.to(x.device) for m in networks(kind, wasserstein))
    rate = 5e-4 if kind.startswith("dense") and not wasserstein else 1e-3
    optimizers = [tw.optim.Adam(m.parameters(), lr=rate, betas=(0.0, 0.9) if wasserstein else (0.5, 0.999))
                  for m in (generator, judge)]
    curve = []
    for step in bar(range(1, steps + 1), f"{loss}, {kind}"):
        for _ in range(2 if wasserstein else 1):  # the paper's critic learns five times a step; two are enough here
            with tw.no_grad():
                fake = generator(noise(size, x))
            error = judged(judge, x[tw.randint(0, len(x), (size,), device=x.device)], fake, wasserstein)
            optimizers[1].zero_grad()
            error.backward()
            optimizers[1].step()
        verdict = judge(generator(noise(size, x)))
        error = -verdict.mean() if wasserstein else F.binary_cross_entropy_with_logits(verdict, tw.ones_like(verdict))
        optimizers[0].zero_grad()
        error.backward()
        optimizers[0].step()
        if measure is not None and step % (steps // 10) == 0:
            curve.append((step, measure(draw(generator, 1000, x))))
    return generator, curve


# --- what a classifier of real digits says ---------------------------------------------------------------------------
class Classifier(nn.Module):
    """Pictures (N, 1, 8, 8) to ten logits, by 64 features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                                      nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                                      nn.Linear(256, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, x: tw.Tensor) -> tw.Tensor:
        return self.head(self.features(x))


def classifier(x: tw.Tensor, y: tw.Tensor, epochs: int = 15) -> Classifier:
    model = Classifier().to(x.device)
    optimizer = tw.optim.Adam(model.parameters(), lr=2e-3)
    for _ in bar(range(epochs), "classifier"):
        for images, labels in batches(x, y):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@tw.no_grad()
def inception_score(model: Classifier, x: tw.Tensor) -> float:
    """exp E KL(p(class | x) || p(class)), 1 to 10: sure of each, and all classes there (arXiv:1606.03498)."""
    p = F.softmax(model(x), 1)
    return F.kl_div(p.mean(0).log().expand_as(p), p, reduction="batchmean").exp().item()


@tw.no_grad()
def frechet(model: Classifier, x: tw.Tensor, real: tw.Tensor) -> float:
    """Frechet's distance of two normals, fitted to the features of x and of real pictures (arXiv:1706.08500).

    |m - n|^2 + tr(S + T - 2 (T^1/2 S T^1/2)^1/2); 0 where they are alike.
    """
    a, b = (model.features(part).cpu().double() for part in (x, real))
    s, t = a.T.cov(), b.T.cov()
    values, vectors = tw.linalg.eigh(t)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = tw.linalg.eigvalsh(root @ s @ root).clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + s.trace() + t.trace() - 2 * cross).item()


@tw.no_grad()
def scores(model: Classifier, x: tw.Tensor, real: tw.Tensor, train: tw.Tensor) -> dict[str, Any]:
    p = F.softmax(model(x), 1)
    return {"confidence": p.amax(1).mean().item(), "score": inception_score(model, x),
            "distance": frechet(model, x, real), "shares": (p.argmax(1).bincount(minlength=10) / len(x)).cpu(),
            "nearest": tw.cdist(x.flatten(1), train.flatten(1)).amin(1).mean().item(), "pictures": x[:20].cpu()}


def main() -> None:
    options = arguments(__doc__)
    study = Study(options, "gan")
    (x, y), (x_test, y_test) = digits(seed=options.seed)
    x, x_test = (2 * part.to(options.device) - 1 for part in (x, x_test))
    y, flat, n = y.to(options.device), x.flatten(1), len(x)
    model = Classifier().to(options.device)
    model.load_state_dict(study.run("classifier", lambda: classifier(x, y).state_dict()))
    model.eval()
    right = (model(x_test).argmax(1).cpu() == y_test).float().mean().item()
    print(f"classifier: {right:.4f} of the held-out digits right")

    def normal(full: bool) -> tw.Tensor:
        spread = tw.linalg.cholesky(flat.T.cov() + 1e-5 * tw.eye(64, device=x.device)) if full else flat.std(0).diag()
        return (flat.mean(0) + tw.randn(n, 64, device=x.device) @ spread.T).clamp(-1, 1).view(-1, 1, 8, 8)

    def adversarial(kind: str, loss: str, steps: int) -> dict[str, Any]:
        generator, curve = train(kind, loss, x, steps * (5 if options.full else 1), lambda p: frechet(model, p, x_test))
        return scores(model, draw(generator, n, x), x_test, x) | {"curve": curve}

    def decoded(variational: bool) -> dict[str, Any]:
        grey = (flat + 1) / 2
        p = train_vae(grey, None, 8, 100)[0].sample(n) if variational else plain(grey, 8, 100, n)
        return scores(model, 2 * p.view(-1, 1, 8, 8) - 1, x_test, x)

    found = {"real digits": study.run("real", lambda: scores(model, x, x_test, x)),
             "normal by pixel": study.run("by pixel", lambda: scores(model, normal(False), x_test, x)),
             "normal, covariance": study.run("covariance", lambda: scores(model, normal(True), x_test, x)),
             "autoencoder's random codes": study.run("autoencoder", lambda: decoded(False)),
             "VAE": study.run("VAE", lambda: decoded(True))}
    for name, parts in KINDS.items():
        found[name] = study.run(name, lambda parts=parts: adversarial(*parts))
    held = scores(model, x_test, x_test, x)["nearest"]

    figure = plt.figure(figsize=(11.5, 9))
    parts = figure.add_gridspec(2, 2, height_ratios=(2.1, 1))
    rows = parts[0, :].subgridspec(len(found), 20, wspace=0.05, hspace=0.3)
    for r, (name, f) in enumerate(found.items()):
        for c, picture in enumerate(f["pictures"]):
            axis = figure.add_subplot(rows[r, c])
            axis.imshow(picture[0].numpy(), cmap="gray", vmin=-1, vmax=1)
            axis.axis("off")
            if c == 0:
                axis.set_title(f"{name}: distance {f['distance']:.1f}, score {f['score']:.2f}", fontsize=8, loc="left",
                               pad=2)
    axis = figure.add_subplot(parts[1, 0])
    for name in KINDS:
        axis.semilogy(*np.array(found[name]["curve"]).T, ".-", label=name)
    axis.axhline(found["real digits"]["distance"], color="k", ls=":", label="real digits")
    axis.set(xlabel="step of the generator", ylabel="Frechet distance to held-out digits", ylim=(1, 9000))
    axis.legend(fontsize=7, ncol=3, loc="upper center")
    axis = figure.add_subplot(parts[1, 1])
    axis.imshow(np.stack([f["shares"].numpy() for f in found.values()]), cmap="Blues", vmin=0, vmax=0.3, aspect="auto")
    axis.set_xticks(range(10))
    axis.set_yticks(range(len(found)), found, fontsize=7)
    axis.set(xlabel="class, by the classifier", title="share of each class (white: none, dark: 0.3)")
    save_picture(figure, options, "gan")
    print("pictures                   confidence  score of 10  distance  classes above 2 %  nearest training digit")
    for name, f in found.items():
        near = f"{held:.2f} (held-out ones)" if name == "real digits" else f"{f['nearest']:.2f}"
        print(f"{name:26} {f['confidence']:10.3f} {f['score']:12.2f} {f['distance']:9.1f} "
              f"{int((f['shares'] > 0.02).sum()):18}  {near}")


if __name__ == "__main__":
    main()
