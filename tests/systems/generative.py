"""Autoencoders, anomaly detection, variational autoencoder, generative adversarial nets."""

from __future__ import annotations

import functools

import tilewright as tw
from systems import System, flipped, frozen
from tilewright import nn
from tilewright.models import Autoencoder, ConvAutoencoder


# --- autoencoders ----------------------------------------------------------------------------------------------------
def bottleneck() -> float:
    from autoencoders import bottleneck

    tw.manual_seed(0)
    run = bottleneck(4, 15, 0, "cpu")
    return 1 - run["net"]["error"] / run["PCA"]["error"]


def denoising() -> float:
    from autoencoders import denoising

    tw.manual_seed(0)
    run = denoising(15, 0, "cpu")
    return 1 - run["denoising net"]["error"] / run["PCA"]["error"]


def sparse() -> float:
    from autoencoders import flat_digits, sparse

    tw.manual_seed(0)
    run = sparse(60, 0, "cpu")
    return (1 - run["active"]) * (1 - run["error"] / flat_digits(0, "cpu")[2].var(0).mean().item())


def pretrained() -> float:
    from autoencoders import deep, flat_digits

    tw.manual_seed(0)
    return 1 - deep(15, 50, 0, "cpu")["error"] / flat_digits(0, "cpu")[2].var(0).mean().item()


def convolutional() -> float:
    from autoencoders import denoised, patches, picture, train

    tw.manual_seed(0)
    model = train(ConvAutoencoder(1, (16, 16), noise=0.1), patches(500, 32, 0), 6, rate=4e-3, size=16)
    run = denoised({"net": model}, picture("camera")[:, :, :256, :256], 0.1)
    return 1 - run["net"]["error"] / run["noisy"]["error"]


def anomalies() -> float:
    from anomaly import planned

    tw.manual_seed(0)
    run = planned(1600, 40, 0, "cpu", others=False)
    return run["blamed"] * run["auc"]["autoencoder"]


def straight(patch) -> None:
    """Units are linear, and so is the whole net."""
    patch.setattr(nn.ReLU, "forward", lambda self, x: x)


def unspoilt(patch) -> None:
    """The input is clean in training too."""
    for model in (Autoencoder, ConvAutoencoder):
        patch.setattr(model, "forward", lambda self, x: self.decoder(self.encoder(x)))


def free(patch) -> None:
    """Activity costs nothing."""
    import autoencoders

    patch.setattr(autoencoders, "sparsity", lambda *rest: 0.0)


def not_pretrained(patch) -> None:
    """All layers learn at once from the beginning."""
    patch.setattr(Autoencoder, "pretrain", lambda *rest, **more: [])


def unscaled(patch) -> None:
    """A feature's error counts as it is, whatever it is on normal cases."""
    import anomaly

    patch.setattr(anomaly.Detector, "deviations", lambda self, x: (self.model(x) - x).detach())


# --- generative nets -------------------------------------------------------------------------------------------------
def _held_out_elbo() -> float:
    """Nats a digit that a VAE's bound lies above the log-likelihood of pixels by themselves."""
    from common import digits
    from vae import binary, by_pixel, train

    (x, _), (x_test, _) = digits()
    x, valid = x.flatten(1), binary(x_test)
    tw.manual_seed(0)
    model, _ = train(x, None, 8, 25, hidden=128)
    return model.log_weights(valid, 20).mean().item() - by_pixel(x, valid)


def no_noise(patch) -> None:
    """z is the mean in training, so that the decoder never learns what lies around it."""
    patch.setattr(tw, "randn_like", tw.zeros_like)


def no_divergence(patch) -> None:
    """The codes are not held near N(0, 1)."""
    import vae

    patch.setattr(vae, "vae_loss", functools.partial(vae.vae_loss, beta=0.0))


@functools.cache
def _judge() -> tw.nn.Module:
    """A classifier of real digits; scikit-learn trains it, so that no planted fault is in it."""
    from common import digits
    from sklearn.linear_model import LogisticRegression

    (x, y), _ = digits()
    line = LogisticRegression(max_iter=200).fit(2 * x.flatten(1).numpy() - 1, y.numpy())
    model = tw.nn.Linear(64, 10)
    model.load_state_dict({"weight": tw.tensor(line.coef_).float(), "bias": tw.tensor(line.intercept_).float()})
    return tw.nn.Sequential(tw.nn.Flatten(), model)


def _samples(kind: str, loss: str, steps: int) -> float:
    """The inception score, 1 to 10, of a thousand samples, after so many steps of the generator."""
    from common import digits
    from gan import draw, inception_score, train

    (x, _), _ = digits()
    tw.manual_seed(0)
    generator, _ = train(kind, loss, 2 * x - 1, steps)
    return inception_score(_judge(), draw(generator, 1000, x))


def gan() -> float:
    return _samples("dense, batch norm", "GAN", 1000)


def dcgan() -> float:
    return _samples("convolutional", "GAN", 400)


def wgan() -> float:
    return _samples("dense", "WGAN-GP", 800)


def generator_frozen(patch) -> None:
    """Only the judge learns."""
    import gan

    made = gan.networks

    def networks(*args):
        generator, judge = made(*args)
        return generator.requires_grad_(False), judge

    patch.setattr(gan, "networks", networks)


def same_noise(patch) -> None:
    """Every picture is made of the same z."""
    import gan

    patch.setattr(gan, "noise", lambda n, like: tw.ones(n, gan.LATENT))


def no_penalty(patch) -> None:
    """The critic's gradient is not held at 1."""
    import gan

    patch.setattr(gan, "gradient_penalty", lambda judge, real, fake: 0.0)


SYSTEMS = [
    System("bottleneck autoencoder", bottleneck, 0.2,
           "1 - error / PCA's with a code of 4: 0.34 to 0.38; a linear one 0 at best", {
               "gradients flipped": flipped, "linear units": straight, "encoder frozen": frozen("encoder")}),
    System("denoising autoencoder", denoising, 0.2,
           "1 - error / PCA's on noisy digits: 0.34 to 0.36; taught with clean ones 0", {
               "gradients flipped": flipped, "clean input": unspoilt}),
    System("sparse autoencoder", sparse, 0.45,
           "share of units at rest times share of variance that comes back: 0.61; without the penalty none rests", {
               "gradients flipped": flipped, "no penalty": free}),
    System("layerwise pretraining", pretrained, 0.25,
           "share of variance that comes back through ten sigmoid layers: 0.40; not pretrained 0", {
               "gradients flipped": flipped, "left out": not_pretrained}),
    System("convolutional autoencoder", convolutional, 0.65,
           "1 - error / noise's, on a picture never seen: 0.75 to 0.78; from a random encoder 0.5", {
               "gradients flipped": flipped, "encoder frozen": frozen("encoder")}),
    System("anomaly detection", anomalies, 0.95,
           "AUC times share of faulty plans whose first suspect is truly wrong: 0.98", {
               "gradients flipped": flipped, "encoder frozen": frozen("encoder"), "errors unscaled": unscaled}),
    System("VAE", _held_out_elbo, 2.0, "2.75 to 2.83 nats by seed; single pixels by themselves: 0", {
        "gradients flipped": flipped, "noise not sampled": no_noise, "divergence left out": no_divergence}),
    # Of real digits the judge's score is 8.5, of normal samples by pixel 3.4, of pictures that are all alike 1.
    System("GAN", gan, 4.5, "5.4 to 5.7 by seed; 1.6 with a random generator", {
        "gradients flipped": flipped, "generator frozen": generator_frozen}),
    System("DCGAN", dcgan, 4.0, "5.0 to 5.5 by seed; about 1 untrained", {
        "gradients flipped": flipped, "one z for all": same_noise}),
    System("WGAN-GP", wgan, 4.0, "4.7 to 5.3 by seed; about 1 untrained", {
        "gradients flipped": flipped, "penalty left out": no_penalty}),
]
