"""The perceptron and the delta rule on two kinds of iris, and on exclusive or, which needs a hidden layer.

    python examples/perceptron.py

Rosenblatt's rule (1958) stops after at most (R / margin)^2 mistakes where a plane parts the classes (Novikoff 1962).
None parts exclusive or: b < 0, w1 + b >= 0, w2 + b >= 0 and w1 + w2 + b < 0 contradict each other (Minsky and Papert
1969), and the rule comes back to weights that it had before, hence goes round for ever. The delta rule (Widrow and Hoff
1960) follows the gradient of the squared error and settles where the classes touch. One hidden layer solves exclusive
or; two spirals, which take one layer of eight units to its limit, two such layers draw with ease.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, bar, plt, save_picture
from sklearn.datasets import load_iris
from sklearn.linear_model import Perceptron as Baseline
from sklearn.svm import SVC

import tilewright as tw
from tilewright import nn
from tilewright.models import MLP, Adaline, Perceptron


def iris() -> tuple[tw.Tensor, tw.Tensor]:
    """Length and width of the petals of setosa (0) and versicolor (1), in standard units, in random order."""
    data = load_iris()
    x, y = data.data[:100, 2:].astype(np.float32), data.target[:100]
    order = np.random.default_rng(0).permutation(100)
    return tw.tensor((x - x.mean(0)) / x.std(0))[tw.tensor(order)], tw.tensor(y[order])


def exclusive_or() -> tuple[tw.Tensor, tw.Tensor]:
    return tw.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), tw.tensor([0, 1, 1, 0])


def spirals(n: int = 100, noise: float = 0.03, seed: int = 0) -> tuple[tw.Tensor, tw.Tensor]:
    """Two arms of n points, one and a half turns each, with normal noise."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], n)
    t = np.tile(np.linspace(0.15, 1, n), 2)
    angle = 3.5 * np.pi * t + np.pi * y
    x = t[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, noise, (2 * n, 2))
    return tw.tensor(x.astype(np.float32)), tw.tensor(y)


def learn(x: tw.Tensor, y: tw.Tensor, hidden: list[int], steps: int, seed: int, device: str = "cpu",
          starts: int = 3) -> dict[str, Any]:
    """An MLP with such hidden layers, the best of so many starts: its loss, accuracy and map of the plane."""
    x, y = x.to(device), y.to(device)
    low, high = x.min().item() - 0.5, x.max().item() + 0.5
    line = tw.linspace(low, high, 81)
    best: dict[str, Any] = {"loss": float("inf")}
    for start in range(starts):
        tw.manual_seed(seed * starts + start)
        model = MLP([2, *hidden, 1], nn.Tanh).to(device)
        optimizer = tw.optim.Adam(model.parameters(), lr=0.03)
        for _ in bar(range(steps), f"hidden layers {hidden}"):
            loss = nn.functional.binary_cross_entropy_with_logits(model(x).squeeze(1), y.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if loss.item() < best["loss"]:
            with tw.no_grad():
                right = ((model(x).squeeze(1) > 0) == y.bool()).float().mean().item()
                plane = model(tw.cartesian_prod(line, line).to(device)).sigmoid().view(81, 81).t()
            best = {"loss": loss.item(), "right": right, "map": plane.contiguous().cpu(), "range": (low, high)}
    return best


def rosenblatt(x: tw.Tensor, y: tw.Tensor, x_test: tw.Tensor, y_test: tw.Tensor) -> dict[str, Any]:
    model = Perceptron(x.shape[1])
    mistakes = model.fit(x, y)
    return {"mistakes": mistakes, "accuracy": (model(x_test) == y_test).float().mean().item(), "weight": model.weight,
            "bias": model.bias}


def delta_rule(x: tw.Tensor, y: tw.Tensor, x_test: tw.Tensor, y_test: tw.Tensor, epochs: int = 60) -> dict[str, Any]:
    model = Adaline(x.shape[1])
    errors = model.fit(x, y, epochs)
    return {"errors": errors, "accuracy": (model(x_test) == y_test).float().mean().item(), "weight": model.weight,
            "bias": model.bias}


def round_and_round(x: tw.Tensor, y: tw.Tensor, epochs: int = 30) -> dict[str, Any]:
    """Mistakes of each epoch, and after how many epochs the weights were first as so many epochs before."""
    model, seen, mistakes = Perceptron(x.shape[1]), {}, []  # type: ignore[var-annotated]
    found: dict[str, Any] = {"mistakes": mistakes}
    for epoch in range(epochs):
        state = (*model.weight.tolist(), model.bias.item())
        if state in seen and "after" not in found:  # the rule sees nothing but the weights: all repeats from here
            found |= {"after": epoch, "period": epoch - seen[state]}
        seen[state] = epoch
        mistakes += model.fit(x, y, epochs=1)
    return found


def bound(x: tw.Tensor, y: tw.Tensor) -> float:
    """Novikoff's: (R / margin)^2 of rows with a 1 for the bias, the margin that of a hard support vector machine."""
    rows = np.c_[x.numpy(), np.ones(len(x))] * (2 * y.numpy() - 1)[:, None]
    machine = SVC(kernel="linear", C=1e6).fit(x.numpy(), y.numpy())
    w = np.r_[machine.coef_[0], machine.intercept_]
    return float((rows**2).sum(1).max() / ((rows @ w).min() / np.linalg.norm(w)) ** 2)


def main() -> None:
    options = arguments(__doc__)
    study, steps = Study(options, "perceptron"), 5000 if options.full else 1500
    x, y = iris()
    data = x[:70], y[:70], x[70:], y[70:]
    first = study.run("iris", lambda: rosenblatt(*data))
    second = study.run("delta rule", lambda: delta_rule(*data))
    never = study.run("exclusive or", lambda: round_and_round(*exclusive_or()))
    tasks = {"exclusive or": (*exclusive_or(), ([], [4], [4, 4])), "spirals": (*spirals(), ([], [8], [8, 8]))}
    nets = {name: [study.run(f"{name} {hidden}", lambda a=a, b=b, h=hidden: learn(
        a, b, h, steps, options.seed, options.device)) for hidden in layers] for name, (a, b, layers) in tasks.items()}

    figure, axes = plt.subplots(2, 4, figsize=(11.5, 6))
    axes[0][0].scatter(*x.numpy().T, c=y.numpy(), cmap="coolwarm", s=12)
    line = np.linspace(-2, 2, 2)
    for run, style, name in ((first, "k", "perceptron"), (second, "k--", "delta rule")):
        w0, w1 = run["weight"].tolist()
        axes[0][0].plot(line, -(w0 * line + run["bias"].item()) / w1, style, label=name)
    axes[0][0].set(title="iris: two lines", xlabel="petal length", ylabel="petal width", ylim=(-2, 2))
    axes[0][0].legend(fontsize=7)
    axes[1][0].plot(np.array(first["mistakes"]) / 70, "o-", label="perceptron, iris: mistakes")
    axes[1][0].plot(np.array(never["mistakes"]) / 4, "o-", label="perceptron, exclusive or: mistakes")
    axes[1][0].plot(second["errors"][:30], label="delta rule, iris: squared error")
    axes[1][0].set(title="mistakes a sample", xlabel="epoch", ylim=(-0.05, 1.7))
    axes[1][0].legend(fontsize=7)
    for row, (name, (a, b, _)) in zip(axes, tasks.items(), strict=True):
        for k, (axis, net) in enumerate(zip(row[1:], nets[name], strict=True)):
            line = np.linspace(*net["range"], 81)
            axis.contourf(line, line, net["map"].numpy(), np.linspace(0, 1, 9), cmap="coolwarm")
            axis.scatter(*a.numpy().T, c=b.numpy(), cmap="coolwarm", edgecolors="k", s=60 if len(a) == 4 else 8, lw=0.3)
            axis.set_title(f"{k} hidden layer{'s' * (k != 1)}: {net['right']:.0%}")
    save_picture(figure, options, "perceptron")

    peer = Baseline(random_state=options.seed).fit(data[0].numpy(), data[1].numpy())
    print(f"iris, 30 held out: perceptron {first['accuracy']:.3f} after {sum(first['mistakes'])} mistakes (Novikoff's "
          f"bound: {bound(*data[:2]):.0f}), delta rule {second['accuracy']:.3f}, scikit-learn's perceptron "
          f"{peer.score(data[2].numpy(), data[3].numpy()):.3f}")
    print(f"exclusive or: after {never['after']} epochs the perceptron has the weights of {never['period']} "
          f"before, so it makes {never['mistakes'][-1]} mistakes an epoch for ever")
    for name, runs in nets.items():
        right, losses = (", ".join(f"{run[key]:.3f}" for run in runs) for key in ("right", "loss"))
        print(f"{name}: right with 0, 1, 2 hidden layers {right}; loss {losses} (a coin: 0.693)")


if __name__ == "__main__":
    main()
