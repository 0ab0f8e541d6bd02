"""A vision transformer reads handwritten digits as a row of patches.

    python examples/vit.py

An image is cut into patches, each becomes a token, a class token is put before them, and what follows is the
Transformer's encoder: An image is worth 16 x 16 words (Dosovitskiy et al., arXiv:2010.11929). Nothing tells it that
near pixels belong together, the positions it learns must: so it needs more data, or images moved about a little, than a
convolutional net. The baseline is logistic regression on the pixels. Its attention shows which patches decide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, digits, plt, save_picture

import tilewright as tw
from tilewright import nn, optim
from tilewright.nn import functional as F
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset
from tilewright.vision.models import VisionTransformer


def moved(images: tw.Tensor) -> tw.Tensor:
    """Each image (n, 1, 8, 8) moved by up to a pixel, the whole batch's rows by one draw, its columns by another."""
    padded, (down, right) = F.pad(images, (1, 1, 1, 1)), tw.randint(3, (2,)).tolist()
    return padded[:, :, down:down + 8, right:right + 8]


def learn(x: tw.Tensor, y: tw.Tensor, test: list, epochs: int, move: bool = True, width: int = 48, layers: int = 3,
          patch: int = 2, rate: float = 1e-3, device: str = "cpu", resume: bool = False,
          **more: Any) -> tuple[Any, list[dict]]:
    """The trained model and a row an epoch, with the held-out accuracy in "val_right"."""
    model = VisionTransformer(8, patch, layers, 4, width, 2 * width, num_classes=10, in_channels=1).to(device)
    nn.init.normal_(model.encoder.pos_embedding, std=0.5)  # as large as patches: 0.02, as published, takes far longer

    def step(model: nn.Module, batch: Any) -> dict[str, tw.Tensor]:
        images, labels = batch
        logits = model(moved(images) if move and model.training else images)
        return {"loss": F.cross_entropy(logits, labels), "right": (logits.argmax(1) == labels).float().mean()}

    batches = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
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


def study_part(options: Any, file: Any, move: bool, epochs: int) -> dict[str, Any]:
    (x, y), (x_test, y_test) = digits()
    model, history = learn(x, y, [(x_test, y_test)], epochs, move, device=options.device, resume=options.resume,
                           checkpoint=file)
    shown = tw.stack([x_test[(y_test == digit).nonzero()[0, 0]] for digit in range(10)])
    where = model.encoder.pos_embedding.detach()[0, 1:]
    return {"history": history, "shown": shown, "maps": rollout(model, shown.to(options.device)).cpu(),
            "near": (F.normalize(where, dim=1) @ F.normalize(where, dim=1).T).cpu(),
            "parameters": sum(p.numel() for p in model.parameters())}


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "vit"), 150 if options.full else 40
    (x, y), (x_test, y_test) = digits()
    line = study.run("logistic regression", lambda: logistic(x, y, x_test, y_test))
    kinds = {"as they are": False, "moved about": True}
    runs = {name: study.run(name, lambda name=name, move=move: study_part(options, study.file(name), move, epochs))
            for name, move in kinds.items()}
    best = runs["moved about"]

    figure = plt.figure(figsize=(12, 6.2))
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
    axis = figure.add_subplot(grid[2, :5])
    for name, run in runs.items():
        axis.plot([1 - row["val_right"] for row in run["history"]], label=f"images {name}")
    axis.axhline(1 - line, color="grey", ls="--", label="logistic regression")
    axis.set(yscale="log", xlabel="epoch", title="held-out error")
    axis.legend(fontsize=8)
    axis = figure.add_subplot(grid[2, 6:])
    tiles = best["near"].view(4, 4, 4, 4).permute(0, 2, 1, 3).reshape(16, 16)
    axis.imshow(tiles.numpy(), cmap="viridis")
    axis.set(title="which positions are alike: a map for each patch", xticks=np.arange(3.5, 15, 4), xticklabels=[],
             yticks=np.arange(3.5, 15, 4), yticklabels=[])
    axis.grid(color="white", lw=2)
    save_picture(figure, options, "vit")
    for name, run in runs.items():
        print(f"vision transformer of {run['parameters']:,} parameters, images {name:12} "
              f"{run['history'][-1]['val_right']:.4f} held out")
    print(f"logistic regression on the pixels                          {line:.4f} held out")


if __name__ == "__main__":
    main()
