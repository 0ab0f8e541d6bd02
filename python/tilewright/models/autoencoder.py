"""Autoencoders: plain, denoising and sparse, deep with layerwise pretraining (Hinton and Salakhutdinov 2006),
convolutional, and variational (Kingma and Welling, arXiv:1312.6114)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import tilewright as tw
from tilewright import nn
from tilewright.models.perceptron import MLP
from tilewright.nn import functional as F
from tilewright.tensor import Tensor

__all__ = ["VAE", "Autoencoder", "ConvAutoencoder", "VAEOutput", "sparsity", "vae_loss"]


class Autoencoder(nn.Module):
    """(N, widths[0]) through ever narrower layers to the code (N, widths[-1]) and back by the same widths.

    noise: deviation of normal noise on the input in training, which makes it a denoising one (Vincent et al. 2008).
    The result is linear, and so is the code unless `code` names its activation. `pretrain` trains a layer at a time.

    >>> import tilewright as tw
    >>> model = Autoencoder([64, 32, 2])
    >>> x = tw.rand(5, 64)
    >>> tuple(model(x).shape), tuple(model.encoder(x).shape)
    ((5, 64), (5, 2))
    """

    def __init__(self, widths: Sequence[int], activation: type[nn.Module] = nn.ReLU, noise: float = 0.0,
                 code: type[nn.Module] = nn.Identity):
        super().__init__()
        self.noise = noise
        self.encoder, self.decoder = MLP(widths, activation), MLP(widths[::-1], activation)
        self.encoder.append(code())

    def forward(self, x: Tensor) -> Tensor:
        noisy = x + self.noise * tw.randn_like(x) if self.noise and self.training else x
        return self.decoder(self.encoder(noisy))

    def pretrain(self, x: Tensor, epochs: int = 20, batch: int = 64, rate: float = 1e-3) -> list[float]:
        """Trains each pair of layers, outermost first, to give back what the layers outside it make of (N, features).

        Returns the last mean squared error of each pair.
        """
        down, after = list(self.encoder)[::2], list(self.encoder)[1::2]  # linear layers, and what follows each
        outer: nn.Module = nn.Identity()  # what the decoder has behind a layer is what made that layer's target
        seen, errors = x.detach(), []
        for a, inner, b in zip(down, after, list(self.decoder)[::-2], strict=True):
            optimizer = tw.optim.Adam([*a.parameters(), *b.parameters()], lr=rate)
            for _ in range(epochs):
                for rows in tw.randperm(len(seen)).split(batch):
                    loss = F.mse_loss(outer(b(inner(a(seen[rows])))), seen[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            errors.append(loss.item())
            with tw.no_grad():
                seen, outer = inner(a(seen)), inner
        return errors


def sparsity(code: Tensor, rate: float = 0.05) -> Tensor:
    """The penalty of a sparse code: sum over units of KL(rate || mean activation) of (N, units) in [0, 1].

    Ng, Sparse autoencoder (2011).
    """
    mean = code.mean(0).clamp(1e-6, 1 - 1e-6)
    return (rate * tw.log(rate / mean) + (1 - rate) * tw.log((1 - rate) / (1 - mean))).sum()


class ConvAutoencoder(nn.Module):
    """Images (N, channels, H, W), sides divisible by 2^len(widths), through convolutions that halve and back.

    The code (N, widths[-1], ...) and the result are linear.

    >>> import tilewright as tw
    >>> tuple(ConvAutoencoder(1, (8, 4))(tw.rand(2, 1, 16, 16)).shape)
    (2, 1, 16, 16)
    """

    def __init__(self, channels: int = 1, widths: Sequence[int] = (16, 8), noise: float = 0.0):
        super().__init__()
        self.noise = noise
        sizes = (channels, *widths)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for c, o in itertools.pairwise(sizes):
            down += [nn.ReLU(), nn.Conv2d(c, o, 3, stride=2, padding=1)]
            up = [nn.ConvTranspose2d(o, c, 4, stride=2, padding=1), nn.ReLU(), *up]
        down, up = down[1:], up[:-1]  # the code and the result are linear
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)

    def forward(self, x: Tensor) -> Tensor:
        noisy = x + self.noise * tw.randn_like(x) if self.noise and self.training else x
        return self.decoder(self.encoder(noisy))


class VAEOutput(NamedTuple):
    logits: Tensor   # (N, features) of Bernoulli pixels
    mean: Tensor     # (N, latent), of q(z | x)
    log_var: Tensor  # (N, latent)


class VAE(nn.Module):
    """(N, features) in [0, 1] to a `VAEOutput`: q(z | x) normal with diagonal covariance, p(x | z) Bernoulli.

    In training z is drawn, by z = mean + deviation e; in evaluation it is the mean, so that `vae_loss` is a bound in
    training only: `log_weights` gives held-out ones. `sample(n)` draws pictures.
    """

    def __init__(self, features: int, hidden: int = 256, latent: int = 2):
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(nn.Linear(features, hidden), nn.ReLU())
        self.mean, self.log_var = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decoder = MLP([latent, hidden, features])

    def forward(self, x: Tensor) -> VAEOutput:
        h = self.encoder(x)
        mean, log_var = self.mean(h), self.log_var(h)
        z = mean + tw.exp(0.5 * log_var) * tw.randn_like(mean) if self.training else mean
        return VAEOutput(self.decoder(z), mean, log_var)

    @tw.no_grad()
    def log_weights(self, x: Tensor, draws: int = 1) -> Tensor:
        """log p(x, z) / q(z | x) of (N, features) at so many z from q(z | x), as (draws, N).

        Its mean is the evidence's lower bound; log mean exp over the draws is a tighter one, which reaches log p(x)
        with ever more of them: Burda et al. (arXiv:1509.00519).
        """
        h = self.encoder(x)
        mean, log_var = self.mean(h), self.log_var(h)
        e = tw.randn(draws, *mean.shape, device=mean.device)
        z = mean + tw.exp(0.5 * log_var) * e
        logits = self.decoder(z)
        surprise = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        return 0.5 * (e.square() + log_var - z.square()).sum(-1) - surprise  # the two normals' constants cancel

    @tw.no_grad()
    def sample(self, n: int, generator: tw.Generator | None = None) -> Tensor:
        """Pixels' probabilities (n, features) of z drawn from the standard normal."""
        where = self.mean.weight.device
        return self.decoder(tw.randn(n, self.latent, generator=generator, device=where)).sigmoid()


def vae_loss(output: VAEOutput, x: Tensor, beta: float = 1.0) -> Tensor:
    """The negative of the evidence's lower bound, mean over samples: -log p(x | z) + beta KL(q(z | x) || N(0, 1)).

    KL = -1/2 sum(1 + log_var - mean^2 - exp(log_var)): appendix B of the paper.
    """
    surprise = F.binary_cross_entropy_with_logits(output.logits, x, reduction="sum")
    kl = -0.5 * (1 + output.log_var - output.mean.square() - output.log_var.exp()).sum()
    return (surprise + beta * kl) / len(x)
