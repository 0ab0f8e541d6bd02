"""Gradient methods side by side: their paths on a narrow curved valley, and their curves on handwritten digits.

    python examples/optimizers.py

The valley is Rosenbrock's function, (1 - x)^2 + 20 (y - x^2)^2. On the digits each method trains the same network from
the same start, and one of them, plain SGD, with all samples at once, with batches of 64, and with single samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from common import Study, arguments, batches, digits, plt, save_picture

import tilewright as tw
from tilewright import nn, optim
from tilewright.models import MLP

METHODS: dict[str, tuple[Callable[..., Any], float, float, dict[str, Any]]] = {  # class, rates: valley, digits; options
    "SGD": (optim.SGD, 0.004, 0.05, {}),
    "momentum": (optim.SGD, 0.002, 0.02, {"momentum": 0.9}),
    "Nesterov": (optim.SGD, 0.002, 0.02, {"momentum": 0.9, "nesterov": True}),
    "Adagrad": (optim.Adagrad, 0.3, 0.03, {}),
    "RMSprop": (optim.RMSprop, 0.02, 0.002, {}),
    "Adam": (optim.Adam, 0.1, 0.003, {}),
}


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


def curve(name: str, size: int, epochs: int, seed: int, device: str) -> dict[str, Any]:
    """Mean training loss of each epoch, and the held-out accuracy at the end."""
    (x, y), (x_test, y_test) = ([t.to(device) for t in part] for part in digits())
    tw.manual_seed(seed)
    model = MLP([64, 64, 10]).to(device)
    make, _, rate, more = METHODS[name]
    optimizer = make(model.parameters(), lr=rate if size > 1 else rate / 5, **more)
    losses = []
    for _ in range(epochs):
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
    sizes = {size: study.run(f"batch {size}", lambda size=size: curve("SGD", size, *rest)) for size in (1, 64, 1437)}

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4))
    x, y = np.meshgrid(np.linspace(-2, 2, 200), np.linspace(-1, 3, 200))
    axes[0].contour(x, y, np.log((1 - x) ** 2 + 20 * (y - x**2) ** 2 + 0.05), 25, cmap="Greys", linewidths=0.6)
    for name, places in paths.items():
        axes[0].plot(*places.numpy().T, ".-", ms=2, lw=0.8, label=name)
    axes[0].plot(1, 1, "k*", ms=12)
    axes[0].set(title="300 steps down a valley", xlim=(-2, 2), ylim=(-1, 3))
    titles = "digits, batches of 64", "digits, SGD by batch size"
    for axis, runs, title in zip(axes[1:], (curves, sizes), titles, strict=True):
        for name, run in runs.items():
            axis.semilogy(run["losses"], label=f"{name}: {run['accuracy']:.3f} held out")
        axis.set(title=title, xlabel="epoch", ylabel="training loss")
    for axis in axes:
        axis.legend(fontsize=7)
    save_picture(figure, options, "optimizers")
    for name in METHODS:
        print(f"{name:9} valley {valley(paths[name][-1]).item():9.2e} after 300 steps    digits loss "
              f"{curves[name]['losses'][-1]:.4f}, held out {curves[name]['accuracy']:.4f}")


if __name__ == "__main__":
    main()
