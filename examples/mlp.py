"""Multilayer perceptron and radial-basis network: tables of patients, and a sine from ever more units.

    python examples/mlp.py

One hidden layer of enough units comes as near to any continuous function as one likes (Cybenko 1989; Hornik et al.
1989): with a squashing function of a weighted sum each unit is a soft step, with radial bases (Broomhead and Lowe 1988)
a bump round its centre. How many are enough the theorem does not say: the sine shows it. On tables of a few hundred
patients the same networks stand against scikit-learn's network, support vector machine and linear model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from common import Study, arguments, bar, batches, plt, save_picture
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

import tilewright as tw
from tilewright import nn
from tilewright.models import MLP, RBFNetwork

WIDTHS = 1, 2, 4, 8, 16, 32
TABLES = {"breast cancer": (load_breast_cancer, "accuracy"), "diabetes": (load_diabetes, "R2")}


def learn(model: nn.Module, x: tw.Tensor, y: tw.Tensor, loss: Callable[..., tw.Tensor], epochs: int, rate: float,
          size: int = 32, decay: float = 0.0) -> nn.Module:
    """The model after so many epochs of AdamW, whose rate falls to 0 by a cosine."""
    optimizer = tw.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    schedule = tw.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for some, target in batches(x, y, size=size):
            value = loss(model(some), target)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        schedule.step()
    return model


# --- a sine ----------------------------------------------------------------------------------------------------------
def sine(n: int) -> tuple[tw.Tensor, tw.Tensor]:
    x = tw.linspace(-1, 1, n).unsqueeze(1)
    return x, tw.sin(2 * np.pi * x)


def approximate(kind: str, width: int, steps: int, seed: int, device: str) -> dict[str, Any]:
    """The best of three starts by its training error: what each unit gives at 499 places between, the sum, and R2."""
    (x, y), (between, truth) = ([t.to(device) for t in sine(n)] for n in (100, 499))
    best: dict[str, Any] = {"error": float("inf")}
    for start in range(3):
        tw.manual_seed(3 * seed + start)
        model = MLP([1, width, 1], nn.Tanh) if kind == "MLP" else RBFNetwork(1, width, 1).centre(x.cpu())
        learn(model.to(device), x, y, nn.functional.mse_loss, steps, 0.03, len(x))
        with tw.no_grad():
            error, values = nn.functional.mse_loss(model(x), y).item(), model(between)
            head, hidden = (model[-1], model[:-1]) if kind == "MLP" else (model.head, model.bases)
            units = hidden(between) * head.weight
        if error < best["error"]:
            best = {"error": error, "values": values.squeeze(1), "units": units,
                    "R2": 1 - nn.functional.mse_loss(values, truth).item() / truth.square().mean().item()}
    return best


def approximate_with_sklearn(width: int, seed: int) -> float:
    """R2 of scikit-learn's network of the same width, by its second-order solver, the best of three starts."""
    (x, y), (between, truth) = ([t.numpy() for t in sine(n)] for n in (100, 499))
    nets = [MLPRegressor(hidden_layer_sizes=(width,), activation="tanh", solver="lbfgs", alpha=0, max_iter=3000,
                         random_state=3 * seed + start).fit(x, y[:, 0]) for start in range(3)]
    return float(r2_score(truth, min(nets, key=lambda net: net.loss_).predict(between)))


# --- tables ----------------------------------------------------------------------------------------------------------
def table(name: str, split: int, device: str, epochs: int = 40, peers: bool = True) -> dict[str, float]:
    """Accuracy or R2 of each method on the quarter that was held out in the split; peers: scikit-learn's, too."""
    data = TABLES[name][0]()
    classes = name == "breast cancer"
    x, x_test, y, y_test = train_test_split(data.data, data.target, test_size=0.25, random_state=split,
                                            stratify=data.target if classes else None)
    scaler = StandardScaler().fit(x)
    x, x_test = (scaler.transform(part).astype(np.float32) for part in (x, x_test))
    mean, deviation = (0, 1) if classes else (y.mean(), y.std())
    rows, rows_test = tw.tensor(x).to(device), tw.tensor(x_test).to(device)
    target = tw.tensor(y if classes else ((y - mean) / deviation).astype(np.float32)[:, None]).to(device)
    loss = nn.functional.cross_entropy if classes else nn.functional.mse_loss
    score, outputs = (accuracy_score, 2) if classes else (r2_score, 1)
    found = {}
    tw.manual_seed(split)
    for kind, model in (("our MLP", MLP([x.shape[1], 16, outputs], dropout=0.2)),
                        ("our RBF network", RBFNetwork(x.shape[1], 24, outputs).centre(tw.tensor(x)))):
        learn(model.to(device), rows, target, loss, epochs, 3e-3, decay=0.1).eval()
        with tw.no_grad():
            out = model(rows_test).cpu().numpy()
        found[kind] = score(y_test, out.argmax(1) if classes else out[:, 0] * deviation + mean)
    baselines = {"MLP": MLPClassifier if classes else MLPRegressor, "SVM": SVC if classes else SVR,
                 "linear": LogisticRegression if classes else Ridge}
    more: dict[str, dict[str, Any]] = {"MLP": {"hidden_layer_sizes": (16,), "alpha": 0.1, "max_iter": 10 * epochs,
                                               "random_state": split, "early_stopping": not classes}}
    for kind, make in baselines.items() if peers else ():
        machine = make(**more.get(kind, {})).fit(x, y if classes else (y - mean) / deviation)
        out = machine.predict(x_test)
        found[f"scikit-learn's {kind}"] = score(y_test, out if classes else out * deviation + mean)
    return {kind: float(value) for kind, value in found.items()}


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)  # scikit-learn's networks are stopped like ours
    options = arguments(__doc__)
    study, steps, splits = Study(options, "mlp"), 6000 if options.full else 2000, 20 if options.full else 10
    sines = {kind: [study.run(f"{kind} of {width}", lambda k=kind, w=width: approximate(
        k, w, steps, options.seed, options.device)) for width in bar(WIDTHS, f"sine, {kind}")]
        for kind in ("MLP", "RBF network")}
    peers = study.run("sine, scikit-learn", lambda: [approximate_with_sklearn(w, options.seed) for w in WIDTHS])
    tables = {name: [study.run(f"{name} {split}", lambda n=name, s=split: table(n, s, options.device))
                     for split in bar(range(options.seed, options.seed + splits), name)] for name in TABLES}

    figure, axes = plt.subplots(2, 3, figsize=(11.5, 6.4))
    between, truth = (t.squeeze(1).numpy() for t in sine(499))
    for axis, (kind, runs) in zip(axes[0], sines.items(), strict=False):
        axis.plot(between, truth, "k:", lw=2)
        for width, run in zip(WIDTHS[:5], runs, strict=False):
            axis.plot(between, run["values"].cpu().numpy(), label=f"{width} unit{'s' * (width > 1)}")
        axis.set(title=f"a sine by {'an MLP' if kind == 'MLP' else 'radial bases'}")
        axis.legend(fontsize=7)
    for kind, runs in sines.items():
        axes[0][2].loglog(WIDTHS, [1 - run["R2"] for run in runs], "o-", label=f"our {kind}")
    axes[0][2].loglog(WIDTHS, [1 - r2 for r2 in peers], "x--", color="grey", label="scikit-learn's MLP")
    axes[0][2].set(title="what is left of the sine: 1 - R2", xlabel="units", xticks=WIDTHS, xticklabels=WIDTHS)
    axes[0][2].legend(fontsize=7)
    for axis, (name, runs) in zip(axes[1], tables.items(), strict=False):
        kinds = list(runs[0])[::-1]
        for row, kind in enumerate(kinds):
            values = [run[kind] for run in runs]
            axis.plot(values, [row] * splits, "o", color="C0" if "our" in kind else "grey", alpha=0.4)
            axis.plot(np.mean(values), row, "k|", ms=18)
        axis.set_yticks(range(len(kinds)), kinds, fontsize=8)
        axis.set(title=f"{name}, {splits} splits and mean", xlabel=f"held-out {TABLES[name][1]}")
    bumps = sines["RBF network"][WIDTHS.index(4)]
    for k, unit in enumerate(bumps["units"].cpu().numpy().T):
        axes[1][2].plot(between, unit, "C1", label=None if k else "each of four bases")
    axes[1][2].plot(between, bumps["values"].cpu().numpy(), "k:", lw=2, label="their sum, with the bias")
    axes[1][2].set(title="how bumps make a sine")
    axes[1][2].legend(fontsize=7)
    save_picture(figure, options, "mlp")

    for k, width in enumerate(WIDTHS):
        print(f"sine, {width:2} units: R2 of our MLP {sines['MLP'][k]['R2']:.5f}, RBF network "
              f"{sines['RBF network'][k]['R2']:.5f}, scikit-learn's MLP {peers[k]:.5f}")
    for name, runs in tables.items():
        print(f"{name}: held-out {TABLES[name][1]}, mean (deviation) of {splits} splits")
        for kind in runs[0]:
            values = [run[kind] for run in runs]
            print(f"    {kind:22} {np.mean(values):.4f} ({np.std(values):.4f})")


if __name__ == "__main__":
    main()
