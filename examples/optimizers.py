"""Gradient methods side by side: their paths on a narrow curved valley, and their curves on handwritten digits.

    python examples/optimizers.py

Momentum (Polyak 1964) and Nesterov's (1983) gather speed along a valley's floor; Adagrad (Duchi et al. 2011), RMSprop
(Tieleman and Hinton 2012) and Adam (Kingma and Ba, arXiv:1412.6980) give each weight a rate of its own. The valley is
Rosenbrock's function, (1 - x)^2 + 20 (y - x^2)^2. On the digits each method trains the same network from the same
start, and plain SGD also with all samples at once and with single ones. The rates on the digits are the best of a grid
of factors of three by the training loss of seed 100: methods differ less at their best rates than at one for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from common import Study, arguments, bar, batches, digits, plt, save_picture

import tilewright as tw
from tilewright import nn, optim
from tilewright.models import MLP

METHODS: dict[str, tuple[Callable[..., Any], float, float, dict[str, Any]]] = {  # class, rates: valley, digits; options
    "SGD": (optim.SGD, 0.004, 1.0, {}),
    "momentum": (optim.SGD, 0.002, 0.3, {"momentum": 0.9}),
    "Nesterov": (optim.SGD, 0.002, 0.3, {"momentum": 0.9, "nesterov": True}),
    "Adagrad": (optim.Adagrad, 0.3, 0.3, {}),
    "RMSprop": (optim.RMSprop, 0.02, 0.01, {}),
    "Adam": (optim.Adam, 0.1, 0.03, {}),
}
SIZES = {1: 0.03, 64: 1.0, 1437: 1.0}  # samples a step, rate


def valley(p: tw.Tensor) -> tw.Tensor:
    return (1 - p[0]) ** 2 + 20 * (p[1] - p[0] ** 2) ** 2


def path(name: str, steps: int) -> tw.Tensor:
    """The places (steps + 1, 2) that a method visits from (-1.5, 1.5)."""
    make, rate, _, more = METHODS[name]
    p = tw.tensor([-1.5, 1.5], requires_grad=True)
    optimizer, places = make([p], lr=rate, **more), [p.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        valley(p).backward()
        optimizer.step()
        places.append(p.detach().clone())
    return tw.stack(places)


def curve(name: str, size: int, epochs: int, seed: int, device: str, rate: float | None = None) -> dict[str, Any]:
    """Mean training loss of each epoch, and the held-out accuracy at the end."""
    (x, y), (x_test, y_test) = ([t.to(device) for t in part] for part in digits(seed=seed))
    tw.manual_seed(seed)
    model = MLP([64, 64, 10]).to(device)
    make, _, usual, more = METHODS[name]
    optimizer = make(model.parameters(), lr=rate or usual, **more)
    losses = []
    for _ in bar(range(epochs), f"{name}, {size} a step"):
        total = 0.0
        for images, labels in batches(x, y, size=size):
            loss = nn.functional.cross_entropy(model(images.flatten(1)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        losses.append(total / len(y))
    with tw.no_grad():
        right = (model(x_test.flatten(1)).argmax(1) == y_test).float().mean().item()
    return {"losses": losses, "accuracy": right}


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "optimizers"), 60 if options.full else 15
    paths = {name: study.run(f"valley {name}", lambda name=name: path(name, 300)) for name in METHODS}
    rest = epochs, options.seed, options.device
    curves = {name: study.run(f"digits {name}", lambda name=name: curve(name, 64, *rest)) for name in METHODS}
    sizes = {size: study.run(f"batch {size}", lambda size=size, rate=rate: curve("SGD", size, *rest, rate))
             for size, rate in SIZES.items()}

    figure, axes = plt.subplots(2, 2, figsize=(8.6, 6.2))
    x, y = np.meshgrid(np.linspace(-1.8, 1.6, 150), np.linspace(-0.5, 2, 150))
    axes[0][0].contour(x, y, np.log((1 - x) ** 2 + 20 * (y - x**2) ** 2 + 0.05), 9, cmap="Greys", linewidths=0.6)
    for name, places in paths.items():
        axes[0][0].plot(*places.numpy().T, "-", lw=0.9, label=name)
        heights = [valley(place).item() for place in places]
        axes[0][1].semilogy(heights, label=f"{name}: {heights[-1]:.0e}")
    axes[0][0].plot(1, 1, "k*", ms=12)
    axes[0][0].set(title="300 steps down a valley", xlim=(-1.8, 1.6), ylim=(-0.5, 2))
    axes[0][1].set(title="height in the valley", xlabel="step", ylim=(1e-4, 30))
    for name, run in curves.items():
        axes[1][0].semilogy(run["losses"], label=f"{name}: {run['accuracy']:.3f} held out")
    axes[1][0].set(title="digits, batches of 64", xlabel="epoch", ylabel="training loss")
    for size, run in sizes.items():
        axes[1][1].semilogy(run["losses"], label=f"{size} a step: {run['accuracy']:.3f} held out")
    axes[1][1].set(title="digits, SGD by batch size", xlabel="epoch", ylabel="training loss")
    for axis in axes.flat:
        axis.legend(fontsize=7)
    save_picture(figure, options, "optimizers")
    for name in METHODS:
        print(f"{name:9} valley {valley(paths[name][-1]).item():9.2e} after 300 steps    digits loss "
              f"{curves[name]['losses'][-1]:.4f}, held out {curves[name]['accuracy']:.4f}")

    for size, run in sizes.items():
        print(f"SGD with {size:4} a step: digits loss {run['losses'][-1]:.4f}, held out {run['accuracy']:.4f}")


if __name__ == "__main__":
    main()
