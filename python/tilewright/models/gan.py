"""Adversarial networks: Goodfellow et al. (arXiv:1406.2661), DCGAN, Radford et al. (arXiv:1511.06434), and WGAN's
gradient penalty, Gulrajani et al. (arXiv:1704.00028)."""

from __future__ import annotations

from collections.abc import Callable

import tilewright as tw
from tilewright import nn
from tilewright.tensor import Tensor

__all__ = ["DCDiscriminator", "DCGenerator", "gradient_penalty"]


def _normal(model: nn.Module) -> None:
    """DCGAN's start: weights N(0, 0.02), norms' gains N(1, 0.02)."""
    for name, p in model.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.02)


def _doublings(name: str, size: int, start: int) -> int:
    """How often `start` doubles until `size`."""
    n = (size // start).bit_length() - 1 if start > 0 else 0
    if n < 1 or size != start << n:
        raise ValueError(f"{name}: size must be start times a power of two, 2 times at least, got size {size} and "
                         f"start {start}")
    return n


class DCGenerator(nn.Module):
    """Noise (N, latent) to images (N, channels, size, size) in (-1, 1), by doublings of a square of side `start`.

    width: channels of the last hidden layer, doubled in each one before it. The paper starts at 4; small pictures gain
    a layer from 2.

    >>> import tilewright as tw
    >>> tuple(DCGenerator(10, size=8, start=2)(tw.randn(3, 10)).shape)
    (3, 1, 8, 8)

    Raises:
        ValueError: a size that is not start times a power of two.
    """

    def __init__(self, latent: int = 64, channels: int = 1, size: int = 8, width: int = 32, start: int = 4):
        super().__init__()
        doublings = _doublings("DCGenerator", size, start)
        self.latent, c = latent, width << (doublings - 1)
        parts: list[nn.Module] = [nn.ConvTranspose2d(latent, c, start, bias=False), nn.BatchNorm2d(c), nn.ReLU()]
        for _ in range(doublings - 1):
            parts += [nn.ConvTranspose2d(c, c // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(c // 2), nn.ReLU()]
            c //= 2
        self.body = nn.Sequential(*parts, nn.ConvTranspose2d(c, channels, 4, 2, 1), nn.Tanh())
        _normal(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z[:, :, None, None])


class DCDiscriminator(nn.Module):
    """Images (N, channels, size, size) to one logit each, (N,), by halvings to a square of side `start`.

    norm=False for WGAN-GP, whose penalty is by sample.

    Raises:
        ValueError: a size that is not start times a power of two.
    """

    def __init__(self, channels: int = 1, size: int = 8, width: int = 32, norm: bool = True, start: int = 4):
        super().__init__()
        parts: list[nn.Module] = []
        c, o = channels, width
        for i in range(_doublings("DCDiscriminator", size, start)):
            parts.append(nn.Conv2d(c, o, 4, 2, 1, bias=i == 0 or not norm))
            parts += [nn.BatchNorm2d(o)] if i and norm else []
            parts.append(nn.LeakyReLU(0.2))
            c, o = o, 2 * o
        self.body = nn.Sequential(*parts, nn.Conv2d(c, 1, start), nn.Flatten(0))
        _normal(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """mean((|d critic(x) / dx| - 1)^2) at random points x between real and fake samples (N, ...); it can be trained."""
    mix = tw.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
    x = (mix * real.detach() + (1 - mix) * fake.detach()).requires_grad_()
    (gradient,) = tw.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).square().sum(1).add(1e-12).sqrt() - 1).square().mean()
