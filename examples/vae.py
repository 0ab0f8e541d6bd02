"""A variational autoencoder on handwritten digits: bounds of their likelihood, samples, a walk through its plane.

    python examples/vae.py

An encoder gives each picture x a normal q(z | x), a decoder gives each code z the pixels' probabilities; both climb the
evidence's lower bound (ELBO), E log p(x | z) - KL(q(z | x) || N(0, 1)) <= log p(x), through z = mean + deviation e
(Kingma and Welling, arXiv:1312.6114). Codes drawn from N(0, 1) then decode to digits; those of a plain autoencoder
need not. The bound is over binary pixels: each is on with its grey value as probability, drawn anew each time in
training and once for the held-out ones (Salakhutdinov and Murray 2008).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Study, arguments, bar, batches, digits, plt, save_picture

import tilewright as tw
from tilewright import nn
from tilewright.models import VAE, Autoencoder, vae_loss
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset

LATENTS = 2, 4, 8, 16


def binary(x: tw.Tensor, seed: int = 0) -> tw.Tensor:
    """The grey pictures (n, ...) as the held-out sets (n, 64) of pixels on and off, by a generator of their own."""
    return tw.bernoulli(x.flatten(1), generator=tw.Generator(x.device).manual_seed(seed))


def step(model: VAE, batch: tuple[tw.Tensor, ...]) -> dict[str, Any]:
    """In training on grey pictures, made binary anew; in evaluation on binary ones. The bound needs a drawn z."""
    if model.training:
        x = tw.bernoulli(batch[0])
        loss = vae_loss(model(x), x)
    else:
        loss = -model.log_weights(batch[0], 8).mean()
    return {"loss": loss}


def train(x: tw.Tensor, valid: tw.Tensor | None, latent: int, epochs: int, hidden: int = 256, rate: float = 2e-3,
          file: Path | None = None, resume: bool = False) -> tuple[VAE, list[dict[str, float]]]:
    """A VAE of grey pictures (n, 64), and for each epoch minus the bounds on them and on binary ones."""
    model = VAE(x.shape[1], hidden, latent).to(x.device)
    optimizer = tw.optim.Adam(model.parameters(), lr=rate)
    schedule = tw.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    trainer = Trainer(model, optimizer, step, schedule=schedule, checkpoint=file, progress=False)
    data = DataLoader(TensorDataset(x), batch_size=64, shuffle=True)
    for epoch in bar(range(epochs), f"VAE of {latent}"):  # one bar in place of a line an epoch
        trainer.fit(data, None if valid is None else [(valid,)], epochs=epoch + 1, resume=resume and epoch == 0)
    return model.eval(), trainer.history


def by_pixel(x: tw.Tensor, valid: tw.Tensor) -> float:
    """The held-out log-likelihood where each pixel is by itself, on as often as in training."""
    p = (x.sum(0) + 1) / (len(x) + 2)
    return (valid * p.log() + (1 - valid) * (1 - p).log()).sum(1).mean().item()


def mixture(x: tw.Tensor, valid: tw.Tensor, kinds: int, steps: int = 60) -> float:
    """The same of a mixture of so many such models, fitted by expectation maximization to pictures drawn anew."""
    p = tw.rand(kinds, x.shape[1], device=x.device) * 0.5 + 0.25
    weight = tw.full((kinds,), 1 / kinds, device=x.device)

    def joint(b: tw.Tensor) -> tw.Tensor:
        return b @ p.log().T + (1 - b) @ (1 - p).log().T + weight.log()

    for _ in range(steps):
        b = tw.bernoulli(x)
        share = joint(b).softmax(1)
        weight, p = (share.sum(0) + 1) / (len(x) + kinds), (share.T @ b + 1) / (share.sum(0)[:, None] + 2)
    return joint(valid).logsumexp(1).mean().item()


def plain(x: tw.Tensor, latent: int, epochs: int, n: int = 20) -> tw.Tensor:
    """Pixels (n, 64) of a plain autoencoder of the same shape, for codes drawn from the normal that fits its own."""
    model = Autoencoder([x.shape[1], 256, latent]).to(x.device)
    optimizer = tw.optim.Adam(model.parameters(), lr=2e-3)
    for _ in bar(range(epochs), "plain autoencoder"):
        for (images,) in batches(x):
            loss = nn.functional.binary_cross_entropy_with_logits(model(images), images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with tw.no_grad():
        code = model.encoder(x)
        return model.decoder(code.mean(0) + code.std(0) * tw.randn(n, latent, device=x.device)).sigmoid()


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "vae"), 1000 if options.full else 200
    (x, _), (x_test, y_test) = digits(seed=options.seed)
    x, grey = x.flatten(1).to(options.device), x_test.flatten(1).to(options.device)
    valid = binary(grey)

    def learn(latent: int) -> dict[str, Any]:
        model, history = train(x, valid, latent, epochs, file=study.file(f"latent {latent}"), resume=options.resume)
        weights = model.log_weights(valid, 500)
        q = model(valid)
        return {"state": model.state_dict(), "curve": [-row["val_loss"] for row in history],
                "bound": weights.mean().item(), "tighter": (weights.logsumexp(0) - np.log(500)).mean().item(),
                "kl": (0.5 * (q.mean**2 + q.log_var.exp() - 1 - q.log_var)).mean(0).detach().cpu(),
                "samples": model.sample(20)}

    found = {latent: study.run(f"latent {latent}", lambda latent=latent: learn(latent)) for latent in LATENTS}
    base = study.run("by pixel", lambda: by_pixel(x, valid))
    mix = {kinds: study.run(f"mixture {kinds}", lambda kinds=kinds: mixture(x, valid, kinds)) for kinds in (10, 40)}
    random = study.run("plain", lambda: plain(x, 8, epochs))
    entropy = tw.where((grey > 0) & (grey < 1), -grey * grey.log() - (1 - grey) * (1 - grey).log(), 0.0)

    vae = VAE(64, latent=2).to(options.device).eval()
    vae.load_state_dict(found[2]["state"])
    side = 12
    steps = tw.distributions.Normal(0.0, 1.0).icdf((tw.arange(side) + 0.5) / side).to(options.device)
    codes = tw.stack(tw.meshgrid(-steps, steps, indexing="ij")[::-1], -1).view(-1, 2)
    with tw.no_grad():
        tiles = nn.functional.pad(vae.decoder(codes).sigmoid().view(side, side, 8, 8), (1, 1, 1, 1), value=0.25)
        places = vae(grey).mean.cpu().numpy()
    walk = tiles.movedim(2, 1).reshape(side * 10, side * 10).cpu()

    figure = plt.figure(figsize=(11.5, 8))
    parts = figure.add_gridspec(2, 3, height_ratios=(1.7, 1), width_ratios=(1.3, 1, 1))
    axis = figure.add_subplot(parts[0, 0])
    axis.imshow(walk.numpy(), cmap="gray", vmin=0, vmax=1)
    axis.axis("off")
    axis.set_title("walk through the plane, by quantiles of N(0, 1)", fontsize=9)
    axis = figure.add_subplot(parts[0, 1])
    points = axis.scatter(*places.T, c=y_test.numpy(), cmap="tab10", s=10, vmin=-0.5, vmax=9.5)
    figure.colorbar(points, ax=axis, ticks=range(10), location="bottom", shrink=0.8)
    axis.set_title("held-out digits' places in it, by class", fontsize=9)
    axis = figure.add_subplot(parts[0, 2])
    for latent, f in found.items():
        axis.plot(range(1, len(f["curve"]) + 1), f["curve"], lw=0.8, label=f"{latent} numbers: {f['bound']:.2f}")
    for value, label, style in ((base, "pixels by themselves", ":"), (mix[10], "mixture of 10", "--"),
                                (mix[40], "mixture of 40", "-.")):
        axis.axhline(value, color="k", ls=style, lw=0.8, label=f"{label}: {value:.2f}")
    axis.set(xlabel="epoch", xscale="log", ylim=(base - 2, max(f["bound"] for f in found.values()) + 0.5))
    axis.set_title("held-out ELBO, nats a digit", fontsize=9)
    axis.legend(fontsize=7)
    rows = {"real": grey[:20], "VAE, 2 numbers": found[2]["samples"], "VAE, 8 numbers": found[8]["samples"],
            "plain autoencoder, 8 numbers, codes at random": random,
            "pixels by themselves": binary(x.mean(0).expand(20, -1))}
    grid = parts[1, :].subgridspec(len(rows), 20, wspace=0.05, hspace=0.3)
    for r, (name, pictures) in enumerate(rows.items()):
        for c, picture in enumerate(pictures.cpu().view(-1, 8, 8).numpy()):
            axis = figure.add_subplot(grid[r, c])
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axis.axis("off")
            if c == 0:
                axis.set_title(name, fontsize=8, loc="left", pad=2)
    save_picture(figure, options, "vae")
    print("held-out binary digits, nats each; more is better: log p, and for the VAEs bounds below it")
    print(f"pixels by themselves      {base:7.2f}")
    for kinds, value in mix.items():
        print(f"mixture of {kinds} such         {value:7.2f}")
    for latent, f in found.items():
        active = int((f["kl"] > 0.1).sum())
        print(f"VAE of {latent:2} numbers         {f['bound']:7.2f} ({f['curve'][0]:.2f} after one epoch), by 500 "
              f"draws together {f['tighter']:.2f}; {active} numbers in use, KL {f['kl'].sum().item():.2f}")
    noise = -entropy.sum(1).mean().item()
    print(f"no model passes           {noise:7.2f}, minus the entropy of drawing binary pixels from grey ones")


if __name__ == "__main__":
    main()
