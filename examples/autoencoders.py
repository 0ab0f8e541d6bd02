"""Autoencoders: a net gives back its input through a narrow, noisy, sparse or deep code, and so learns what is in it.

    python examples/autoencoders.py

What the lectures say: trained by squared error, a linear one finds the plane of the principal components (PCA; Baldi
and Hornik 1989), so PCA of the same code size is what a curved one has to beat. Denoising ones see noise and must give
back the clean input (Vincent et al. 2008). Sparse ones have many units of which few may be active (Ng 2011). Deep ones
of sigmoid units learned only after pretraining a layer at a time (Hinton and Salakhutdinov 2006). Convolutional ones
take pictures of any size (Masci et al. 2011). Errors are mean squared ones per pixel, of pixels from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Study, arguments, bar, digits, plt, save_picture
from sklearn.neighbors import KNeighborsClassifier

import tilewright as tw
from tilewright import nn
from tilewright.models import Autoencoder, ConvAutoencoder, sparsity
from tilewright.nn.functional import mse_loss
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset

SIZES = 1, 2, 4, 8, 16
DEEP = [64, 256, 128, 64, 32, 2]
LEARN_FROM = "astronaut", "moon", "page", "text", "chelsea", "coffee", "brick", "rocket"
HELD_OUT = "camera", "coins"
PART = slice(None), slice(None), slice(64, 168), slice(192, 296)  # of a picture, to look at


def restore(model: nn.Module, batch: list[tw.Tensor]) -> tw.Tensor:
    return mse_loss(model(batch[0]), batch[0])


def restore_sparsely(model: Autoencoder, batch: list[tw.Tensor]) -> tw.Tensor:
    code = model.encoder(batch[0])
    return mse_loss(model.decoder(code), batch[0]) + 3e-3 * sparsity(code, 0.05)


def train(model: nn.Module, x: tw.Tensor, epochs: int, rate: float = 2e-3, size: int = 32, step: Any = restore,
          checkpoint: Path | None = None, resume: bool = False) -> Any:
    """The model trained by Adam to give back x, its rate falling to nothing along a cosine; ready for use."""
    optimizer = tw.optim.Adam(model.parameters(), lr=rate)
    schedule = tw.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    trainer = Trainer(model, optimizer, step, schedule=schedule, checkpoint=checkpoint, progress=checkpoint is not None)
    trainer.fit(DataLoader(TensorDataset(x), size, shuffle=True), epochs=epochs, resume=resume)
    return model.eval()


class PCA:
    """The best linear autoencoder: the code is the projection on the directions of greatest variance."""

    def __init__(self, x: tw.Tensor, size: int):
        self.mean = x.mean(0)
        self.basis = tw.linalg.eigh((x - self.mean).T @ (x - self.mean))[1][:, -size:]

    def encoder(self, x: tw.Tensor) -> tw.Tensor:
        return (x - self.mean) @ self.basis

    def __call__(self, x: tw.Tensor) -> tw.Tensor:
        return self.mean + self.encoder(x) @ self.basis.T


def cut(images: tw.Tensor, side: int) -> tw.Tensor:
    """The squares of images (n, 1, H, W) as rows (k, side * side)."""
    return nn.functional.unfold(images, side, stride=side).transpose(1, 2).reshape(-1, side**2)


def of_squares(model: Callable[[tw.Tensor], tw.Tensor], images: tw.Tensor, side: int) -> tw.Tensor:
    """A model of vectors at work on images (n, 1, H, W), on each square of the side by itself."""
    made = model(cut(images, side)).reshape(len(images), -1, side**2)
    return nn.functional.fold(made.transpose(1, 2), images.shape[2:], side, stride=side)


def flat_digits(seed: int, device: str) -> list[tw.Tensor]:
    """Digits as vectors of 64 and their classes: x, y, and held out x, y."""
    (x, y), (x_test, y_test) = digits(seed=seed)
    return [t.to(device) for t in (x.flatten(1), y, x_test.flatten(1), y_test)]


@tw.no_grad()
def judge(model: Any, seed: int, device: str) -> dict[str, Any]:
    """Held-out error and codes, and how well the class is told from the code of five neighbours."""
    x, y, x_test, y_test = flat_digits(seed, device)
    code, test = model.encoder(x).cpu().numpy(), model.encoder(x_test).cpu()
    told = KNeighborsClassifier(5).fit(code, y.cpu().numpy()).score(test.numpy(), y_test.cpu().numpy())
    return {"error": restore(model, [x_test]).item(), "code": test, "classes": y_test.cpu(), "told": told,
            "pictures": model(x_test[:8]).cpu()}


def bottleneck(size: int, epochs: int, seed: int, device: str) -> dict[str, Any]:
    """Digits through a code of the size, and through PCA's."""
    x = flat_digits(seed, device)[0]
    model = train(Autoencoder([64, 256, 128, size]).to(device), x, epochs)
    return {"PCA": judge(PCA(x, size), seed, device), "net": judge(model, seed, device)}


def deep(pretraining: int, epochs: int, seed: int, device: str) -> dict[str, Any]:
    """Five layers of sigmoid units each way, from nothing or pretrained, for as many epochs in all."""
    x = flat_digits(seed, device)[0]
    model = Autoencoder(DEEP, nn.Sigmoid).to(device)
    if pretraining:
        model.pretrain(x, pretraining, rate=3e-3)
    return judge(train(model, x, epochs - pretraining, rate=3e-3, size=64), seed, device)


@tw.no_grad()
def denoised(models: dict[str, Any], clean: tw.Tensor, noise: float) -> dict[str, Any]:
    """Errors from the clean images, of the noisy ones and of what each model makes of them; and a look at each."""
    noisy = clean + noise * tw.randn_like(clean)
    made = {"noisy": noisy} | {name: model(noisy) for name, model in models.items()}
    return {name: {"error": mse_loss(m, clean).item(), "pictures": (m[:8] if m.ndim == 2 else m[PART]).cpu()}
            for name, m in made.items()}


def denoising(epochs: int, seed: int, device: str, noise: float = 0.3) -> dict[str, Any]:
    """Digits under noise through a code of 16, of nets that learned with and without noise, and through PCA's."""
    x, _, x_test, _ = flat_digits(seed, device)
    models = {"PCA": PCA(x, 16)} | {name: train(Autoencoder([64, 256, 16], noise=level).to(device), x, epochs)
                                    for name, level in (("plain net", 0.0), ("denoising net", noise))}
    return denoised(models, x_test, noise)


@tw.no_grad()
def strongest(model: Autoencoder, x: tw.Tensor, k: int) -> tw.Tensor:
    """What comes back when only each row's k most active units of the code are kept."""
    code = model.encoder(x)
    return model.decoder(code * (code >= code.topk(k, 1)[0][:, -1:]))


def sparse(epochs: int, seed: int, device: str, step: Any = restore_sparsely) -> dict[str, Any]:
    """A code of 100 sigmoid units: how many are active (above 0.1), and how well each digit's 16 strongest do alone."""
    x, _, x_test, _ = flat_digits(seed, device)
    model = train(Autoencoder([64, 100], code=nn.Sigmoid).to(device), x, epochs, rate=3e-3, size=64, step=step)
    with tw.no_grad():
        active = (model.encoder(x_test) > 0.1).float().mean().item()
        return {"error": restore(model, [x_test]).item(), "active": active,
                "of 16": mse_loss(strongest(model, x_test, 16), x_test).item(),
                "strokes": model.decoder[0].weight.T.cpu()}


def picture(name: str) -> tw.Tensor:
    """One of scikit-image's bundled pictures, grey, (1, 1, H, W) in [0, 1] with sides divisible by 16."""
    from skimage import color, data, util

    values = util.img_as_float32(getattr(data, name)())
    values = color.rgb2gray(values[..., :3]) if values.ndim == 3 else values
    h, w = (side // 16 * 16 for side in values.shape)
    return tw.tensor(np.ascontiguousarray(values[None, None, :h, :w], np.float32))


def patches(n: int, side: int, seed: int) -> tw.Tensor:
    """(n, 1, side, side) from anywhere in the pictures to learn from."""
    rng, pictures = np.random.default_rng(seed), [picture(name) for name in LEARN_FROM]
    found = []
    for i in range(n):
        whole = pictures[i % len(pictures)]
        top, left = (int(rng.integers(s - side + 1)) for s in whole.shape[2:])
        found.append(whole[0, :, top:top + side, left:left + side])
    return tw.stack(found)


def compression(n: int, epochs: int, seed: int, device: str, **keep: Any) -> dict[str, Any]:
    """Pictures never seen, through two numbers for every 8 x 8 pixels; PCA's, of 8 x 8 and of 16 x 16 at once."""
    x = patches(n, 32, seed).to(device)
    net = train(ConvAutoencoder(1, (32, 64, 2)).to(device), x, epochs, **keep)
    pca = {side: PCA(cut(x, side), side**2 // 32) for side in (8, 16)}
    result: dict[str, Any] = {}
    with tw.no_grad():
        for name in HELD_OUT:
            whole = picture(name).to(device)
            made = {"PCA of 8 x 8": of_squares(pca[8], whole, 8), "PCA of 16 x 16": of_squares(pca[16], whole, 16),
                    "convolutional net": net(whole)}
            result[name] = {"pictures": {k: v[PART].cpu() for k, v in ({"original": whole} | made).items()},
                            "errors": {k: mse_loss(v, whole).item() for k, v in made.items()}}
    return result


def picture_denoising(n: int, epochs: int, seed: int, device: str, noise: float = 0.1, **keep: Any) -> dict[str, Any]:
    """Pictures never seen, under noise; PCA of 8 x 8 pixels keeps the number of components that does best on x."""
    x = patches(n, 32, seed).to(device)
    net = train(ConvAutoencoder(1, (32, 32), noise=noise).to(device), x, epochs, **keep)
    squares = cut(x, 8)
    noisy = squares + noise * tw.randn_like(squares)
    best = min((mse_loss(p(noisy), squares).item(), k) for k in range(1, 64) for p in [PCA(squares, k)])[1]
    pca = PCA(squares, best)
    models = {f"PCA of 8 x 8, {best} kept": lambda images: of_squares(pca, images, 8), "denoising net": net}
    return {name: denoised(models, picture(name).to(device), noise) for name in HELD_OUT}


def main() -> None:
    options = arguments(__doc__)
    study, where, more = Study(options, "autoencoders"), (options.seed, options.device), 3 if options.full else 1

    def long(part: str, function: Callable[..., Any], epochs: int) -> Any:
        return study.run(part, lambda: function(4000 * more, epochs, *where, checkpoint=study.file(part), size=16,
                                                resume=options.resume))

    sizes = {k: study.run(f"code of {k}", lambda k=k: bottleneck(k, 60 * more, *where)) for k in bar(SIZES, "sizes")}
    stacks = {n: study.run(f"pretraining {n}", lambda n=n: deep(n, 160, *where)) for n in bar((0, 40), "deep")}
    clean = study.run("denoising", lambda: denoising(60 * more, *where))
    codes = {name: study.run(f"code {name}", lambda step=step: sparse(150, *where, step))
             for name, step in bar((("free", restore), ("sparse", restore_sparsely)), "sparse")}
    small = long("compression", compression, 12)
    calm = long("picture denoising", picture_denoising, 6)

    for k, run in sizes.items():
        print(f"digits, code of {k:2}: held-out error {run['net']['error']:.4f}, PCA {run['PCA']['error']:.4f}")
    for n, run in stacks.items():
        print(f"digits, {len(DEEP) - 1} sigmoid layers each way, code of 2, {n} of 160 epochs of pretraining: "
              f"{run['error']:.4f}")
    print("class told from a code of 2: " + ", ".join(f"{name} {run['told']:.3f}" for name, run in (
        ("PCA", sizes[2]["PCA"]), ("net", sizes[2]["net"]), ("pretrained", stacks[40]))))
    print("digits under noise, error: " + ", ".join(f"{k} {v['error']:.4f}" for k, v in clean.items()))
    for name, run in codes.items():
        print(f"digits, 100 units, {name}: {100 * run['active']:.0f} % active, error {run['error']:.4f}, by each "
              f"digit's 16 strongest {run['of 16']:.4f} (PCA of 16 {sizes[16]['PCA']['error']:.4f})")
    for name in HELD_OUT:
        print(f"{name}, a number for 32 pixels: " + ", ".join(f"{k} {v:.5f}" for k, v in small[name]["errors"].items()))
        print(f"{name} under noise: " + ", ".join(f"{k} {v['error']:.5f}" for k, v in calm[name].items()))
    draw(options, sizes, stacks, clean, codes, small["camera"], calm["camera"])


def tiles(rows: list[tw.Tensor]) -> np.ndarray:
    """Rows of 8 x 8 digits as one picture, with a grey line between."""
    return np.vstack([np.hstack([np.pad(d, 1, constant_values=0.5) for d in row.reshape(-1, 8, 8).numpy()])
                      for row in rows]).clip(0, 1)


def draw(options: Any, sizes: Any, stacks: Any, clean: Any, codes: Any, small: Any, calm: Any) -> None:
    figure = plt.figure(figsize=(11.7, 7.4))
    grid = figure.add_gridspec(3, 12, height_ratios=(3.0, 1.5, 2.0))
    axis = figure.add_subplot(grid[0, :3])
    for name in ("PCA", "net"):
        axis.loglog(list(sizes), [run[name]["error"] for run in sizes.values()], "o-", base=2, label=name)
    axis.set(title="digits: held-out error", xlabel="numbers in the code")
    axis.legend()
    maps = ("PCA", sizes[2]["PCA"]), ("six ReLU layers", sizes[2]["net"]), ("ten sigmoid, pretrained", stacks[40])
    for i, (name, run) in enumerate(maps):
        axis = figure.add_subplot(grid[0, 3 + 3 * i:6 + 3 * i])
        axis.scatter(*run["code"].numpy().T, c=run["classes"].numpy(), cmap="tab10", s=12, lw=0,
                     antialiased=False)
        axis.set(title=f"{name}: {run['error']:.4f}", xticks=[], yticks=[])
    x = flat_digits(options.seed, "cpu")[2][:8]
    strokes = {name: run["strokes"][:32].reshape(4, 8, 64) for name, run in codes.items()}
    shown = {"held out, PCA of 4, net of 4": [x, sizes[4]["PCA"]["pictures"], sizes[4]["net"]["pictures"]],
             "noisy, PCA of 16, denoising net": [clean[k]["pictures"] for k in ("noisy", "PCA", "denoising net")]}
    for name, w in strokes.items():
        shown[f"units of a {name} code"] = list(0.5 + w / (2 * w.abs().amax(-1, keepdim=True)))
    for i, (name, rows) in enumerate(shown.items()):
        axis = figure.add_subplot(grid[1, 3 * i:3 * i + 3])
        axis.imshow(tiles(rows), cmap="gray", interpolation="nearest")
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    row = {k: v for k, v in small["pictures"].items() if k != "PCA of 8 x 8"}
    row |= {k: v["pictures"] for k, v in calm.items()}
    for i, (name, image) in enumerate(row.items()):
        axis = figure.add_subplot(grid[2, 2 * i:2 * i + 2])
        greys = (24 * image[0, 0].clamp(0, 1)).round().numpy()  # few, to keep the file small
        axis.imshow(greys, cmap="gray", interpolation="nearest")
        axis.set_title(name, fontsize=8)
        axis.axis("off")
    save_picture(figure, options, "autoencoders")


if __name__ == "__main__":
    main()
