"""Why deep networks were hard to train: the gradient's norm in each of 20 layers, and what mends it.

    python examples/depth.py

A deep network reads the digits. Sigmoid and tanh shrink the gradient layer by layer on its way back, small random
weights shrink it faster, large ones make it explode; He's initialization for ReLU, Glorot's for tanh, normalization and
residual connections keep it alive. The first row is the gradient before any step, the second the loss of training.
"""

from __future__ import annotations

import math
from typing import Any

from common import Study, arguments, batches, digits, plt, save_picture

import tilewright as tw
from tilewright import nn

LAYERS, WIDTH = 20, 64
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
# name: activation, start, norm, residual, largest norm of the gradient
CASES: dict[str, dict[str, tuple[str, str, str, bool, float]]] = {
    "activation": {"sigmoid, Glorot": ("sigmoid", "glorot", "", False, 0),
                   "tanh, Glorot": ("tanh", "glorot", "", False, 0),
                   "ReLU, Glorot": ("relu", "glorot", "", False, 0), "ReLU, He": ("relu", "he", "", False, 0)},
    "start, with ReLU": {"N(0, 0.01)": ("relu", "small", "", False, 0), "Glorot": ("relu", "glorot", "", False, 0),
                         "He": ("relu", "he", "", False, 0), "twice He": ("relu", "large", "", False, 0),
                         "twice He, clipped": ("relu", "large", "", False, 1)},
    "norms and shortcuts, with N(0, 0.01)": {
        "plain": ("relu", "small", "", False, 0), "batch norm": ("relu", "small", "batch", False, 0),
        "layer norm": ("relu", "small", "layer", False, 0), "residual": ("relu", "small", "", True, 0),
        "residual, batch norm": ("relu", "small", "batch", True, 0)},
}


class Deep(nn.Module):
    """64 inputs, 20 hidden layers of 64, 10 outputs."""

    def __init__(self, activation: str, start: str, norm: str, residual: bool):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)])
        kinds = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        self.norms = nn.ModuleList([kinds[norm](WIDTH) if norm else nn.Identity() for _ in range(LAYERS)])
        self.activation, self.residual, self.head = ACTIVATIONS[activation](), residual, nn.Linear(WIDTH, 10)
        deviation = {"small": 0.01, "he": math.sqrt(2 / WIDTH), "large": 2 * math.sqrt(2 / WIDTH),
                     "glorot": math.sqrt(2 / (WIDTH + WIDTH))}[start]
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0, deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, x: tw.Tensor) -> tw.Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            y = self.activation(norm(layer(x)))
            x = x + y if self.residual else y
        return self.head(x)


def run(case: tuple[str, str, str, bool, float], epochs: int, seed: int, device: str) -> dict[str, Any]:
    """The norm of each layer's weight gradient at the start, the loss of each epoch, the held-out accuracy."""
    (x, y), (x_test, y_test) = ([t.to(device) for t in part] for part in digits())
    tw.manual_seed(seed)
    *form, clip = case
    model = Deep(*form).to(device)
    optimizer = tw.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    norms: list[float] = []
    losses = []
    for _ in range(epochs):
        total = 0.0
        for images, labels in batches(2 * x.flatten(1) - 0.6, y):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            norms = norms or [layer.weight.grad.norm().item() for layer in model.layers]
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            total += loss.item() * len(labels)
        losses.append(total / len(y))
    model.eval()
    with tw.no_grad():
        right = (model(2 * x_test.flatten(1) - 0.6).argmax(1) == y_test).float().mean().item()
    return {"norms": norms, "losses": losses, "accuracy": right}


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "depth"), 60 if options.full else 12
    figure, axes = plt.subplots(2, len(CASES), figsize=(15, 7))
    for column, (title, cases) in enumerate(CASES.items()):
        for name, case in cases.items():
            found = study.run(f"{title} {name}", lambda case=case: run(case, epochs, options.seed, options.device))
            ratio = found["norms"][0] / max(found["norms"][-1], 1e-45)
            axes[0][column].semilogy(range(1, LAYERS + 1), [max(n, 1e-30) for n in found["norms"]], label=name)
            axes[1][column].plot(found["losses"], label=f"{name}: {found['accuracy']:.3f} held out")
            print(f"{title:38} {name:22} gradient of the first layer over the last's {ratio:9.2e}   held out "
                  f"{found['accuracy']:.3f}")
        axes[0][column].set(title=title, xlabel="layer", ylabel="norm of the gradient")
        axes[1][column].set(xlabel="epoch", ylabel="training loss", ylim=(0, 2.5))
        for row in axes:
            row[column].legend(fontsize=7)
    save_picture(figure, options, "depth")


if __name__ == "__main__":
    main()
