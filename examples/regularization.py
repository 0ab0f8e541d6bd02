"""Regularization with few labels: each method's effect on 1,000 held-out digits, with right labels and with wrong ones.

    python examples/regularization.py

A network with 85,000 weights learns 100 digits by heart, even when a fifth of their labels are wrong (Zhang et al.,
arXiv:1611.03530). What keeps it from that: penalties on weights, L2 (weight decay) and L1; dropout (Srivastava et al.
2014), which trains 2^n networks that share weights, and whose scaled network stands for their mean; dropconnect (Wan
et al. 2013), which drops weights; early stopping where the loss on 50 further digits is least; and augmentation:
images turned, scaled and shifted anew each time. All strengths were chosen on the splits of seeds 100 to 105.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, bar, batches, digits, plt, save_picture

import tilewright as tw
from tilewright import nn
from tilewright.models import MLP

METHODS = "none", "L1", "L2", "dropout", "dropconnect", "augmentation", "dropout, augmentation"
LABELS, VALID = 100, 50


class DropConnectMLP(nn.Module):
    """64-256-256-10; after the first layer each weight is dropped with probability 0.5 for each batch."""

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
    """Each image turned by up to 8 degrees, scaled by up to a twentieth and shifted by up to 0.4 pixels."""
    n, size = len(images), images.shape[-1]
    angle, scale = np.radians(8) * (2 * tw.rand(n) - 1), 1 + 0.05 * (2 * tw.rand(n) - 1)
    shift = 0.4 * (2 * tw.rand(n, 2) - 1) * 2 / size  # from -1 to 1 the image is `size` wide
    theta = tw.stack([tw.stack([scale * angle.cos(), -scale * angle.sin(), shift[:, 0]], 1),
                      tw.stack([scale * angle.sin(), scale * angle.cos(), shift[:, 1]], 1)], 1)
    grid = nn.functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def penalty(model: nn.Module, method: str) -> tw.Tensor | float:
    weights = [p for p in model.parameters() if p.ndim == 2]  # biases are left alone
    if method == "L1":
        return 3e-4 * sum(w.abs().sum() for w in weights)
    return 2e-3 * sum(w.square().sum() for w in weights) if method == "L2" else 0.0


def train(method: str, wrong: float, epochs: int, seed: int, device: str) -> dict[str, Any]:
    """Held-out accuracy of each epoch; the epoch of the least validation loss; of dropout, what its networks score."""
    (x, y), (x_test, y_test) = ([t.to(device) for t in part] for part in digits(test=1000, seed=seed))
    x, y = x[:LABELS + VALID], y[:LABELS + VALID].clone()
    tw.manual_seed(seed)
    fooled = tw.randperm(len(y))[:round(wrong * len(y))].to(device)  # validation has wrong labels, too
    y[fooled] = (y[fooled] + tw.randint(1, 10, (len(fooled),)).to(device)) % 10
    model = (DropConnectMLP() if method == "dropconnect" else
             MLP([64, 256, 256, 10], dropout=0.5 if "dropout" in method else 0.0))
    optimizer = tw.optim.Adam(model.to(device).parameters(), lr=1e-3)
    curve, losses = [], []
    for _ in range(epochs):
        model.train()
        for images, labels in batches(x[:LABELS], y[:LABELS], size=32):
            images = moved(images) if "augmentation" in method else images
            loss = nn.functional.cross_entropy(model(images.flatten(1)), labels) + penalty(model, method)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with tw.no_grad():
            curve.append((model(x_test.flatten(1)).argmax(1) == y_test).float().mean().item())
            losses.append(nn.functional.cross_entropy(model(x[LABELS:].flatten(1)), y[LABELS:]).item())
    result = {"curve": curve, "stop": int(np.argmin(losses))}
    if method == "dropout":
        model.train()
        with tw.no_grad():
            votes = tw.stack([nn.functional.softmax(model(x_test.flatten(1)), 1) for _ in range(30)])
        result["one"] = (votes.argmax(2) == y_test).float().mean().item()
        result["thirty"] = (votes.mean(0).argmax(1) == y_test).float().mean().item()
    return result


def main() -> None:
    options = arguments(__doc__)
    study, count, epochs = Study(options, "regularization"), 20 if options.full else 6, 100
    seeds = range(options.seed, options.seed + count)
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 4))
    for column, wrong in enumerate((0.0, 0.2)):
        runs = {method: [study.run(f"{method} {wrong} {s}", lambda m=method, w=wrong, s=s: train(
            m, w, epochs, s, options.device)) for s in bar(seeds, f"{method}, {wrong:.0%} wrong")]
            for method in METHODS}
        end = {method: np.array([run["curve"][-1] for run in some]) for method, some in runs.items()}
        end["early stopping"] = np.array([run["curve"][run["stop"]] for run in runs["none"]])
        print(f"{LABELS} labels, {wrong:.0%} of them wrong; mean of {count} splits (deviation), change, better in")
        gain = {method: 100 * (scores - end["none"]) for method, scores in end.items()}
        for method, scores in end.items():
            print(f"    {method:22} {scores.mean():.4f} ({scores.std():.4f})  {gain[method].mean():+5.1f} points  "
                  f"{(gain[method] > 0).sum():2} of {count}")
        mean = {key: np.mean([run[key] for run in runs["dropout"]]) for key in ("one", "thirty")}
        print(f"    dropout as model averaging: a random network {mean['one']:.4f}, the mean of 30 "
              f"{mean['thirty']:.4f}, the scaled network {end['dropout'].mean():.4f}", flush=True)

        order = sorted((m for m in gain if m != "none"), key=lambda m: gain[m].mean())
        axis = axes[column + 1]
        axis.barh(order, [gain[m].mean() for m in order], color=["#cc7777" if gain[m].mean() < 0 else "#7799cc"
                                                                 for m in order])
        for row, method in enumerate(order):
            axis.plot(gain[method], [row] * count, "k.", ms=3)
        axis.set(title=f"{wrong:.0%} wrong: change from {end['none'].mean():.1%}", xlabel="points of held-out accuracy")
        axis.tick_params(axis="y", labelsize=8)
    for method, some in runs.items():
        axes[0].plot(np.mean([run["curve"] for run in some], 0), label=method)
    axes[0].plot([run["stop"] for run in runs["none"]], [run["curve"][run["stop"]] for run in runs["none"]], "kx",
                 label="none: stopped early")
    axes[0].set(xlabel="epoch", ylabel="held-out accuracy", ylim=(0.5, 0.85), title=f"{LABELS} labels, 20% wrong")
    axes[0].legend(fontsize=6, loc="lower right")
    save_picture(figure, options, "regularization")


if __name__ == "__main__":
    main()
