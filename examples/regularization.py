"""Regularization on 150 labelled digits: each method's effect on 1,000 held-out ones.

    python examples/regularization.py

Weight penalties L1 and L2, dropout (of units, with its model averaging by the mean network and by 30 random ones),
dropconnect (of weights), early stopping on 50 further digits, and shifted, turned copies of the images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, batches, digits, plt, save_picture

import tilewright as tw
from tilewright import nn
from tilewright.models import MLP

METHODS = ("none", "L1", "L2", "dropout", "dropconnect", "early stopping", "augmentation", "dropout and augmentation")


class DropConnectMLP(nn.Module):
    """64-256-256-10 whose hidden weights are dropped with probability 0.5 (Wan et al. 2013)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 256), nn.Linear(256, 256), nn.Linear(256, 10)])

    def forward(self, x: tw.Tensor) -> tw.Tensor:
        for i, layer in enumerate(self.layers):
            weight = nn.functional.dropout(layer.weight, 0.5, self.training and i > 0)
            x = nn.functional.linear(x, weight, layer.bias)
            x = nn.functional.relu(x) if i < 2 else x
        return x


def moved(images: tw.Tensor) -> tw.Tensor:
    """Each image turned by up to 15 degrees, scaled by up to a tenth and shifted by up to a pixel."""
    n, size = len(images), images.shape[-1]
    angle = np.radians(15) * (2 * tw.rand(n) - 1)
    scale, shift = 1 + 0.1 * (2 * tw.rand(n) - 1), (2 * tw.rand(n, 2) - 1) * 2 / size
    theta = tw.stack([tw.stack([scale * angle.cos(), -angle.sin(), shift[:, 0]], 1),
                      tw.stack([angle.sin(), scale * angle.cos(), shift[:, 1]], 1)], 1)
    grid = nn.functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def run(method: str, epochs: int, seed: int, device: str) -> dict[str, Any]:
    """Held-out accuracy of each epoch, at the end, and for dropout by averaging random networks."""
    (x, y), (x_test, y_test) = ([t.to(device) for t in part] for part in digits(test=1000, seed=seed))
    train, valid = slice(0, 150), slice(150, 200)
    tw.manual_seed(seed)
    model = (DropConnectMLP() if method == "dropconnect" else
             MLP([64, 256, 256, 10], dropout=0.5 if "dropout" in method else 0.0)).to(device)
    optimizer = tw.optim.Adam(model.parameters(), lr=1e-3)
    curve, best = [], (0.0, 0.0, 0)  # best: accuracy on the 50, on the held out, epoch
    for epoch in range(epochs):
        model.train()
        for images, labels in batches(x[train], y[train], size=32):
            images = moved(images) if "augmentation" in method else images
            loss = nn.functional.cross_entropy(model(images.flatten(1)), labels)
            weights = [p for p in model.parameters() if p.ndim == 2]
            if method == "L1":
                loss = loss + 5e-4 * sum(w.abs().sum() for w in weights)
            elif method == "L2":
                loss = loss + 5e-3 * sum(w.square().sum() for w in weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with tw.no_grad():
            scores = [(model(a.flatten(1)).argmax(1) == b).float().mean().item()
                      for a, b in ((x[valid], y[valid]), (x_test, y_test))]
        curve.append(scores[1])
        if scores[0] > best[0]:
            best = (scores[0], scores[1], epoch)
    result: dict[str, Any] = {"curve": curve, "accuracy": best[1] if method == "early stopping" else curve[-1]}
    if method == "early stopping":
        result["epoch"] = best[2]
    if method == "dropout":
        model.train()
        with tw.no_grad():
            votes = sum(nn.functional.softmax(model(x_test.flatten(1)), 1) for _ in range(30))
        result["averaged"] = (votes.argmax(1) == y_test).float().mean().item()
    return result


def main() -> None:
    options = arguments(__doc__)
    study, seeds, epochs = Study(options, "regularization"), 10 if options.full else 3, 100 if options.full else 60
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.5))
    means = {}
    for method in METHODS:
        runs = [study.run(f"{method} {seed}", lambda m=method, s=seed: run(m, epochs, s, options.device))
                for seed in range(options.seed, options.seed + seeds)]
        scores = np.array([r["accuracy"] for r in runs])
        means[method] = scores.mean()
        axes[0].plot(np.mean([r["curve"] for r in runs], 0), label=method)
        note = f"   30 random networks {np.mean([r['averaged'] for r in runs]):.4f}" if method == "dropout" else ""
        print(f"{method:26} held out {scores.mean():.4f} +- {scores.std():.4f}{note}")
    axes[0].set(xlabel="epoch", ylabel="held-out accuracy", ylim=(0.7, 1), title="150 labels")
    axes[0].legend(fontsize=7)
    order = sorted(means, key=means.__getitem__)
    axes[1].barh(order, [means[m] for m in order], color=["#cc7777" if m == "none" else "#7799cc" for m in order])
    axes[1].set(xlim=(0.8, 1), xlabel=f"held-out accuracy, mean of {seeds}")
    save_picture(figure, options, "regularization")


if __name__ == "__main__":
    main()
