"""A vision transformer reads handwritten digits as a row of patches.

    python examples/vit.py

An image is cut into patches, each becomes a token, a class token is put before them, and what follows is the
Transformer's encoder: An image is worth 16 x 16 words (Dosovitskiy et al., arXiv:2010.11929). Nothing but the learned
positions tells it where a patch is: begun as small as published, 0.02, they stay drowned by what the patches show for
most of a short training. The baseline is logistic regression. Its attention shows which patches reach the class token.
"""

from __future__ import annotations

from typing import Any

from common import Study, arguments, digits, plt, save_picture

import tilewright as tw
from tilewright import nn, optim
from tilewright.nn import functional as F
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset
from tilewright.vision.models import VisionTransformer


def learn(x: tw.Tensor, y: tw.Tensor, test: list, epochs: int, begin: float = 0.5, width: int = 48, layers: int = 3,
          patch: int = 2, rate: float = 1e-3, device: str = "cpu", resume: bool = False,
          **more: Any) -> tuple[Any, list[dict]]:
    """The trained model, whose positions began with deviation `begin`, and a row an epoch: "val_right" is held out."""
    model = VisionTransformer(8, patch, layers, 4, width, 2 * width, num_classes=10, in_channels=1).to(device)
    nn.init.normal_(model.encoder.pos_embedding, std=begin)

    def step(model: nn.Module, batch: Any) -> dict[str, tw.Tensor]:
        images, labels = batch
        logits = model(images)
        return {"loss": F.cross_entropy(logits, labels), "right": (logits.argmax(1) == labels).float().mean()}

    batches = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    optimizer = optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * len(batches), pct_start=0.2)
    trainer = Trainer(model, optimizer, step, schedule=schedule, schedule_every="batch", clip_norm=1.0, **more)
    return model, trainer.fit(batches, test, epochs=epochs, resume=resume)


def rollout(model: VisionTransformer, images: tw.Tensor) -> tw.Tensor:
    """How much of each patch reaches the class token (n, 4, 4): the layers' attention, each half kept by the skip
    connection, multiplied through (Abnar and Zuidema, arXiv:2005.00928)."""
    through = tw.eye(17, device=images.device).expand(len(images), -1, -1)
    for weights in model.eval().attention(images):
        through = (weights + tw.eye(17, device=images.device)) / 2 @ through
    return through[:, 0, 1:].view(-1, 4, 4)


def logistic(x: tw.Tensor, y: tw.Tensor, x_test: tw.Tensor, y_test: tw.Tensor) -> float:
    """scikit-learn's logistic regression on the pixels, its held-out accuracy."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(x.flatten(1).numpy(), y.numpy())
    return float(model.score(x_test.flatten(1).numpy(), y_test.numpy()))


def study_part(options: Any, file: Any, begin: float, epochs: int) -> dict[str, Any]:
    (x, y), (x_test, y_test) = digits()
    model, history = learn(x, y, [(x_test, y_test)], epochs, begin, device=options.device, resume=options.resume,
                           checkpoint=file)
    shown = tw.stack([x_test[(y_test == digit).nonzero()[0, 0]] for digit in range(10)])
    return {"history": history, "shown": shown, "maps": rollout(model, shown.to(options.device)).cpu(),
            "layers": [w[:, 0, 1:].mean(0).view(4, 4).cpu() for w in model.attention(x_test.to(options.device))],
            "parameters": sum(p.numel() for p in model.parameters())}


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "vit"), 100 if options.full else 25
    (x, y), (x_test, y_test) = digits()
    line = study.run("logistic regression", lambda: logistic(x, y, x_test, y_test))
    runs = {begin: study.run(f"from {begin}", lambda begin=begin: study_part(
        options, study.file(f"from {begin}"), begin, epochs)) for begin in (0.5, 0.02)}
    best = runs[0.5]

    figure = plt.figure(figsize=(11.8, 5.8))
    grid = figure.add_gridspec(3, 10, height_ratios=[1, 1, 2.2])
    for digit in range(10):
        for row in range(2):
            axis = figure.add_subplot(grid[row, digit])
            axis.imshow(best["shown"][digit, 0].numpy(), cmap="gray", extent=(0, 8, 8, 0))
            if row:
                axis.imshow(best["maps"][digit].numpy(), cmap="magma", alpha=0.7, extent=(0, 8, 8, 0))
            axis.set_axis_off()
            if not digit:
                axis.set_title("where the class token looks" if row else "held-out digits", fontsize=9, loc="left")
    axis = figure.add_subplot(grid[2, :4])
    for begin, run in runs.items():
        axis.plot([1 - row["val_right"] for row in run["history"]], label=f"positions from {begin}")
    axis.axhline(1 - line, color="grey", ls="--", label="logistic regression")
    axis.set(yscale="log", xlabel="epoch", title="held-out error")
    axis.legend(fontsize=8)
    for i, weights in enumerate(best["layers"]):
        axis = figure.add_subplot(grid[2, 4 + 2 * i:6 + 2 * i])
        axis.imshow(weights.numpy(), cmap="magma")
        axis.set_axis_off()
        axis.set_title(f"class token, layer {i + 1}", fontsize=8)
    save_picture(figure, options, "vit")
    for begin, run in runs.items():
        print(f"vision transformer of {run['parameters']:,} parameters, positions from {begin:4}: "
              f"{run['history'][-1]['val_right']:.4f} of {len(y_test)} held-out digits right")
    print(f"logistic regression on the pixels: {line:.4f}")


if __name__ == "__main__":
    main()
