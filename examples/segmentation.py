"""Which pixel belongs to what? Lesions and cysts in noise, in 2-D and 3-D, and the tissues of a real head.

    python examples/segmentation.py

U-Net (Ronneberger et al., arXiv:1505.04597; in 3-D Cicek et al., arXiv:1606.06650) goes down to coarse features and
up again, with shortcuts that bring back where the edges are; the encoder-decoder beside it has none. The loss is
cross-entropy plus Dice (Milletari et al., arXiv:1606.04797), which does not mind that most is background. A second
head on the deepest features says how many lesions there are, learned jointly.

The head is nibabel's example4d.nii.gz (24 slices of 96 x 128, two frames). Nobody drew its tissues, so the target is
what Otsu's two thresholds make of the clean volume: outside, dark (much white matter), bright (grey matter, fluid). The
net sees it through noise of 150 (the thresholds are 220 and 506), learns on patches of slices 1 to 15, and is measured
on slices 17 to 24. The baseline smooths and thresholds; its width and levels do best on the training pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import Study, arguments, plt, save_picture
from generated import lesions
from scipy import ndimage

import tilewright as tw
from tilewright import nn
from tilewright.nn import functional as F
from tilewright.optim.lr_scheduler import OneCycleLR
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset
from tilewright.vision.datasets import read_nifti
from tilewright.vision.models import UNet, dice_loss, dice_score


def train(batches: Any, epochs: int, seed: int, widths: Sequence[int] = (8, 16, 32, 64), dims: int = 2,
          skip: bool = True, counts: int = 0, rate: float = 1e-2, device: str = "cpu", checkpoint: Path | None = None,
          resume: bool = False, progress: bool = True) -> nn.Module:
    """A net for three classes from batches of pictures and masks, and with `counts` also of how many lesions."""
    tw.manual_seed(seed)
    model = UNet(1, 3, widths, dims, skip, scores=counts).to(device)
    with tw.no_grad():  # begin with background, or the first steps push a rare class's features below ReLU's zero
        model.head.bias.copy_(tw.tensor([4.0, 0.0, 0.0]))
    optimizer = tw.optim.Adam(model.parameters(), lr=rate)
    schedule = OneCycleLR(optimizer, rate, total_steps=epochs * len(batches) + 1)

    def step(model: nn.Module, batch: Any) -> dict[str, tw.Tensor]:
        out = model(batch[0])
        masks = out.masks if counts else out
        entropy, dice = F.cross_entropy(masks, batch[1]), dice_loss(masks, batch[1])
        losses = {"loss": entropy + dice, "entropy": entropy, "dice": dice}
        if counts:
            losses["count"] = F.cross_entropy(out.scores, batch[2])
            losses["loss"] = losses["loss"] + 0.3 * losses["count"]
        return losses

    trainer = Trainer(model, optimizer, step, schedule=schedule, schedule_every="batch", checkpoint=checkpoint,
                      progress=progress)
    trainer.fit(batches, epochs=epochs, resume=resume)
    return model.eval()


@tw.no_grad()
def predict(model: nn.Module, x: tw.Tensor, device: str = "cpu") -> tuple[tw.Tensor, tw.Tensor | None]:
    """The classes' logits, and the counts' where the model has that head."""
    outs = [model(part.to(device)) for part in x.split(16)]
    if isinstance(outs[0], tw.Tensor):
        return tw.cat(outs).cpu(), None
    return tw.cat([o.masks for o in outs]).cpu(), tw.cat([o.scores for o in outs]).cpu()


class Patches:
    """Random square patches of slices (n, H, W), each time in other noise: batches for a Trainer."""

    def __init__(self, slices: tw.Tensor, masks: tw.Tensor, noise: float, size: int = 64, batch: int = 8,
                 batches: int = 20):
        self.slices, self.masks, self.noise, self.size = slices, masks, noise, size
        self.batch, self.batches = batch, batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[tw.Tensor, tw.Tensor]]:
        n, h, w = self.slices.shape
        for _ in range(self.batches):
            at = [tw.randint(0, k, (self.batch,)).tolist() for k in (n, h - self.size + 1, w - self.size + 1)]
            places = [(k, slice(y, y + self.size), slice(x, x + self.size)) for k, y, x in zip(*at, strict=True)]
            patch = tw.stack([self.slices[place] for place in places]).unsqueeze(1)
            yield patch + self.noise * tw.randn(*patch.shape), tw.stack([self.masks[place] for place in places])


def head_slices() -> tuple[tuple[tw.Tensor, tw.Tensor], tuple[tw.Tensor, tw.Tensor]]:
    """Slices and masks for training, of both frames, and held out, of the first; intensities over 300."""
    import nibabel
    from skimage.filters import threshold_multiotsu

    values = read_nifti(Path(nibabel.__path__[0]) / "tests" / "data" / "example4d.nii.gz").values
    levels = threshold_multiotsu(values[0].numpy(), 3)
    masks = tw.tensor(np.digitize(values.numpy(), levels))
    values = values / 300
    return (values[:, :15].flatten(0, 1), masks[:, :15].flatten(0, 1)), (values[0, 16:], masks[0, 16:])


def smoothed(x: tw.Tensor, sigma: float) -> np.ndarray:
    return np.stack([ndimage.gaussian_filter(picture, sigma) for picture in x[:, 0].numpy()])


def split(values: np.ndarray, low: float, high: float, order: Sequence[int]) -> tw.Tensor:
    """Logits (n, 3, ...) of the classes, which `order` names from dark to bright."""
    hot = F.one_hot(tw.tensor(np.array(order)[np.digitize(values, (low, high))]), 3)
    return hot.movedim(-1, 1).float()


def best_threshold(x: tw.Tensor, masks: tw.Tensor, order: Sequence[int]) -> dict[str, float]:
    """The smoothing's width and the two levels that do best on these pictures, as arguments of `smoothed`, `split`."""
    best: tuple[float, dict[str, float]] = (-1.0, {})
    share = [(masks == k).float().mean().item() for k in (order[0], order[2])]  # levels that cut off about as much
    factors = 0.7, 0.8, 0.9, 1, 1.1, 1.3, 1.6
    lows, highs = [min(share[0] * f, 1) for f in factors], [max(1 - share[1] * f, 0) for f in factors]
    for sigma in (0.7, 1.0, 1.5, 2.0):
        values = smoothed(x, sigma)
        for low in np.quantile(values, lows):
            for high in (level for level in np.quantile(values, highs) if level > low):
                score = dice_score(split(values, low, high, order), masks)[1:].mean().item()
                best = max(best, (score, {"sigma": sigma, "low": float(low), "high": float(high)}), key=lambda b: b[0])
    return best[1]


def number(masks: tw.Tensor, least: int = 20) -> np.ndarray:
    """How many connected components of lesion of `least` pixels or more each mask has."""
    return np.array([(np.bincount(ndimage.label(mask == 1)[0].ravel())[1:] >= least).sum() for mask in masks.numpy()])


def overlay(axis: Any, picture: tw.Tensor, masks: tw.Tensor | None, title: str, limits: tuple[float, float]) -> None:
    axis.imshow(picture.numpy(), cmap="gray", vmin=limits[0], vmax=limits[1])
    if masks is not None:
        colors = np.array([[0, 0, 0, 0], [1, 0.3, 0.3, 0.55], [0.3, 0.8, 1, 0.55]])
        axis.imshow(colors[masks.numpy()])
    axis.set_title(title, fontsize=7)
    axis.axis("off")


def main() -> None:
    options = arguments(__doc__)
    study, seed, longer = Study(options, "segmentation"), options.seed, 4 if options.full else 1

    def learn(part: str, batches: Any, x_test: tw.Tensor, epochs: int, **more: Any) -> tuple[Any, ...]:
        """Which class where, the Dice scores, and the number of lesions by the second head, if there is one."""
        def function() -> tuple[Any, ...]:
            model = train(batches, epochs * longer, seed, device=options.device, checkpoint=study.file(part),
                          resume=options.resume, **more)
            logits, scores = predict(model, x_test, options.device)
            return logits.argmax(1), None if scores is None else scores.argmax(1)

        return study.run(part, function)

    def by_threshold(part: str, x: tw.Tensor, y: tw.Tensor, x_test: tw.Tensor, order: Sequence[int]) -> tw.Tensor:
        def function() -> tw.Tensor:
            found = best_threshold(x, y, order)
            return split(smoothed(x_test, found["sigma"]), found["low"], found["high"], order).argmax(1)

        return study.run(part, function)

    def dice(found: tw.Tensor, truth: tw.Tensor) -> list[float]:
        return dice_score(F.one_hot(found, 3).movedim(-1, 1).float(), truth)[1:].tolist()

    # Lesions in 2-D, with the count learned jointly.
    flat: dict[str, Any] = {"noise": 0.25, "waves": 0.2}
    x, y, k = (tw.tensor(a) for a in lesions(320, **flat, seed=1000 + seed))
    x_flat, y_flat, k_flat = (tw.tensor(a) for a in lesions(96, **flat, seed=2000 + seed))
    pairs = DataLoader(TensorDataset(x, y, k), batch_size=8, shuffle=True)
    flat_found = {"threshold": by_threshold("threshold", x[:64], y[:64], x_flat, (2, 0, 1))}
    counts = {}
    for name in ("encoder-decoder", "U-Net"):
        flat_found[name], counts[name] = learn(name, pairs, x_flat, 12, skip=name == "U-Net", counts=3)
    # In 3-D.
    size = (24, 24, 24)
    x, y, _ = (tw.tensor(a) for a in lesions(48, size, **flat, seed=1000 + seed))
    x_deep, y_deep, _ = (tw.tensor(a) for a in lesions(16, size, **flat, seed=2000 + seed))
    deep_found = {"threshold": by_threshold("threshold 3-D", x[:16], y[:16], x_deep, (2, 0, 1))}
    pairs = DataLoader(TensorDataset(x, y), batch_size=2, shuffle=True)
    deep_found["U-Net"] = learn("U-Net 3-D", pairs, x_deep, 10, widths=(8, 16, 32), dims=3)[0]
    # The head.
    (x, y), (clean, y_head) = head_slices()
    noise = tw.Generator().manual_seed(seed)
    x_head = (clean + 0.5 * tw.randn(*clean.shape, generator=noise)).unsqueeze(1)
    noisy = (x + 0.5 * tw.randn(*x.shape, generator=noise)).unsqueeze(1)
    head_found = {"threshold": by_threshold("threshold head", noisy, y, x_head, (0, 1, 2))}
    for name in ("encoder-decoder", "U-Net"):
        head_found[name] = learn(f"{name} head", Patches(x, y, 0.5), x_head, 10, skip=name == "U-Net")[0]

    named = {"lesions": (flat_found, y_flat), "volumes": (deep_found, y_deep), "head": (head_found, y_head)}
    scores = {what: {name: dice(found, truth) for name, found in every.items()}
              for what, (every, truth) in named.items()}
    for what, each in scores.items():
        kinds = "dark, bright" if what == "head" else "lesion, cyst"
        print(f"{what}: Dice held out ({kinds}): "
              + "; ".join(f"{name} {a:.3f}, {b:.3f}" for name, (a, b) in each.items()))
    right = {"most frequent": np.bincount(k_flat.numpy()).max() / len(k_flat)}
    right |= {f"components of the {name}'s mask": (number(found) == k_flat.numpy()).mean()
              for name, found in flat_found.items()}
    right |= {f"second head of the {name}": (found == k_flat).float().mean().item() for name, found in counts.items()}
    print("number of lesions right: " + "; ".join(f"{name} {value:.3f}" for name, value in right.items()))

    figure, axes = plt.subplots(3, 5, figsize=(8.6, 5.3))
    i = next(i for i in range(96) if (y_flat[i] == 1).any() and (y_flat[i] == 2).any())
    rows: list[tuple[str, tw.Tensor, tw.Tensor, Any, tuple[float, float]]] = [
        ("lesions", x_flat[i, 0], y_flat[i], lambda f, i=i: f[i], (-2.0, 2.0))]
    i = max(range(16), key=lambda i: len(set(y_deep[i, 12].flatten().tolist())))
    rows.append(("volumes", x_deep[i, 0, 12], y_deep[i, 12], lambda f, i=i: f[i, 12], (-2.0, 2.0)))
    rows.append(("head", x_head[2, 0], y_head[2], lambda f: f[2], (0.0, 3.0)))
    for line, (what, picture, truth, pick, limits) in zip(axes, rows, strict=True):
        overlay(line[0], picture, None, {"lesions": "noisy picture", "volumes": "slice of a noisy volume",
                                         "head": "head in noise"}[what], limits)
        overlay(line[1], picture, truth, "Otsu, clean head" if what == "head" else "truth", limits)
        for axis, name in zip(line[2:], ("threshold", "encoder-decoder", "U-Net"), strict=True):
            if name in named[what][0]:
                a, b = scores[what][name]
                kind = " 3-D" if what == "volumes" and name == "U-Net" else ""
                overlay(axis, picture, pick(named[what][0][name]), f"{name}{kind}: Dice {a:.2f}, {b:.2f}", limits)
        if what == "volumes":
            line[3].axis("off")
    save_picture(figure, options, "segmentation")


if __name__ == "__main__":
    main()
