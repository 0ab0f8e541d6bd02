"""Autoencoders, anomaly detection, variational autoencoder, generative adversarial nets."""

from __future__ import annotations

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


SYSTEMS: list[System] = [
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
]
