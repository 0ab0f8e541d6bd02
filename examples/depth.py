"""Why deep networks were hard to train: the gradient's norm in each of 20 layers, and what mends it.

    python examples/depth.py

On its way back the gradient is multiplied by one Jacobian a layer: where they shrink it, it vanishes (Hochreiter 1991;
Bengio, Simard and Frasconi 1994), where they stretch it, it explodes. Glorot and Bengio (2010) choose the first weights
so that tanh neither shrinks nor stretches, He et al. (arXiv:1502.01852) for ReLU; batch norm (Ioffe and Szegedy,
arXiv:1502.03167), layer norm (Ba et al., arXiv:1607.06450), residual connections (He et al., arXiv:1512.03385) and
clipping (Pascanu et al., arXiv:1211.5063) make it matter less. The upper row shows the gradient before any step, the
lower one the loss of training, each case at the best of three rates, so that no case fails for its rate.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from common import Study, arguments, bar, batches, digits, plt, save_picture

import tilewright as tw
from tilewright import nn

WIDTH = 64
RATES = 0.01, 0.003, 0.001
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "ReLU": nn.ReLU}
NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
STARTS = {  # the deviation of normal weights of (WIDTH, WIDTH)
    "small": 0.05, "Glorot": math.sqrt(2 / (WIDTH + WIDTH)), "He": math.sqrt(2 / WIDTH),
    "large": 1.5 * math.sqrt(2 / WIDTH)}


class Case(NamedTuple):
    activation: str = "ReLU"
    start: str = "small"
    norm: str = ""
    residual: bool = False
    clip: float = 0.0  # the largest norm of the whole gradient; 0: any
    layers: int = 20


CASES = {
    "activations": {"sigmoid, Glorot": Case("sigmoid", "Glorot"), "tanh, Glorot": Case("tanh", "Glorot"),
                    "ReLU, He": Case("ReLU", "He"), "ReLU, one layer": Case("ReLU", "He", layers=1)},
    "first weights, with ReLU": {"N(0, 0.05)": Case(), "Glorot": Case(start="Glorot"), "He": Case(start="He"),
                                 "1.5 He": Case(start="large"), "1.5 He, clipped": Case(start="large", clip=1)},
    "norms and shortcuts, with N(0, 0.05)": {
        "none": Case(), "batch norm": Case(norm="batch"), "layer norm": Case(norm="layer"),
        "layer norm, clipped": Case(norm="layer", clip=1), "residual": Case(residual=True),
        "residual, batch norm": Case(norm="batch", residual=True)},
}


class Deep(nn.Module):
    """64 inputs, hidden layers of 64, 10 outputs."""

    def __init__(self, case: Case):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(case.layers)])
        self.norms = nn.ModuleList([NORMS[case.norm](WIDTH) if case.norm else nn.Identity() for _ in self.layers])
        self.activation, self.residual = ACTIVATIONS[case.activation](), case.residual
        self.head = nn.Linear(WIDTH, 10)
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0, STARTS[case.start])
            nn.init.zeros_(layer.bias)

    def forward(self, x: tw.Tensor) -> tw.Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            y = self.activation(norm(layer(x)))
            x = x + y if self.residual else y
        return self.head(x)


def train(case: Case, rate: float, epochs: int, seed: int, device: str, name: str = "") -> dict[str, Any]:
    """The norm of each layer's weight gradient at the start, the loss of each epoch, the held-out accuracy."""
    (x, y), (x_test, y_test) = ([t.to(device) for t in part] for part in digits(seed=seed))
    x, x_test = (2 * images.flatten(1) - 0.6 for images in (x, x_test))  # mean about 0
    tw.manual_seed(seed)
    model = Deep(case).to(device)
    optimizer = tw.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    norms: list[float] = []
    losses: list[float] = []
    for _ in bar(range(epochs), f"{name} at {rate}"):
        total = 0.0
        for images, labels in batches(x, y):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            norms = norms or [layer.weight.grad.norm().item() for layer in model.layers]
            if case.clip:
                nn.utils.clip_grad_norm_(model.parameters(), case.clip)
            optimizer.step()
            total += loss.item() * len(labels)
        losses.append(total / len(y))
        if not math.isfinite(total):
            break
    model.eval()
    with tw.no_grad():
        right = (model(x_test).argmax(1) == y_test).float().mean().item()
    return {"rate": rate, "norms": norms, "losses": losses, "accuracy": right}


def best_of_rates(case: Case, epochs: int, seed: int, device: str, name: str = "") -> dict[str, Any]:
    """The run with the least training loss at the end; one that went to infinity is the worst."""
    runs = [train(case, rate, epochs, seed, device, name) for rate in RATES]
    return min(runs, key=lambda run: run["losses"][-1] if math.isfinite(run["losses"][-1]) else math.inf)


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "depth"), 60 if options.full else 20
    found: dict[Case, dict[str, Any]] = {}  # two of the cases stand in two columns
    figure, axes = plt.subplots(2, len(CASES), figsize=(11, 6))
    print(f"{'':58}gradient of layer 1 and the last   rate    held out")
    for column, (title, cases) in enumerate(CASES.items()):
        for name, case in cases.items():
            if case not in found:
                found[case] = study.run(f"{title} {name}", lambda case=case, name=name: best_of_rates(
                    case, epochs, options.seed, options.device, name))
            run = found[case]
            axes[0][column].semilogy(range(1, case.layers + 1), run["norms"], ".-", ms=3, lw=1, label=name)
            axes[1][column].plot(run["losses"], lw=1.2, label=f"{name}: {run['accuracy']:.1%} held out")
            diverged = "" if math.isfinite(run["losses"][-1]) else "  diverged at every rate"
            print(f"{title:37} {name:22} {run['norms'][0]:12.1e} {run['norms'][-1]:12.1e} {run['rate']:11g} "
                  f"{run['accuracy']:10.3f}{diverged}", flush=True)
        axes[0][column].set(title=title, xlabel="layer", ylabel="norm of the gradient", xticks=range(1, 21, 3))
        axes[1][column].set(xlabel="epoch", ylabel="training loss", ylim=(0, 3.8))
        axes[0][column].legend(fontsize=7, loc="center right")
        axes[1][column].legend(fontsize=7, loc="upper right")
    save_picture(figure, options, "depth")


if __name__ == "__main__":
    main()
