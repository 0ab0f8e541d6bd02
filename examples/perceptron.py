"""The perceptron and the delta rule on two kinds of iris, and on exclusive or, which needs a hidden layer.

    python examples/perceptron.py

Rosenblatt's rule stops after finitely many mistakes where a line parts the classes, and never does on exclusive or. A
network with one hidden layer of two units solves it. The picture shows what 0, 1 and 2 hidden layers make of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, plt, save_picture
from sklearn.datasets import load_iris
from sklearn.linear_model import Perceptron as Baseline

import tilewright as tw
from tilewright import nn
from tilewright.models import MLP, Adaline, Perceptron

XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0])


def iris() -> tuple[tw.Tensor, tw.Tensor]:
    """Length and width of the petals of setosa (0) and versicolor (1), in standard units."""
    data = load_iris()
    x, y = data.data[:100, 2:].astype(np.float32), data.target[:100]
    order = np.random.default_rng(0).permutation(100)
    return tw.tensor((x - x.mean(0)) / x.std(0))[tw.tensor(order)], tw.tensor(y[order])


def learn_xor(hidden: int, seed: int, steps: int = 2000) -> dict[str, Any]:
    """An MLP with so many hidden layers of four units on exclusive or; the best of three starts."""
    x, y = (tw.tensor(a) for a in XOR)
    best: dict[str, Any] = {"loss": float("inf")}
    for start in range(3):
        tw.manual_seed(seed + start)
        model = MLP([2, *[4] * hidden, 1], nn.Tanh)
        optimizer = tw.optim.Adam(model.parameters(), lr=0.03)
        for _ in range(steps):
            loss = nn.functional.binary_cross_entropy_with_logits(model(x).squeeze(1), y.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if loss.item() < best["loss"]:
            grid = tw.cartesian_prod(tw.linspace(-0.5, 1.5, 81), tw.linspace(-0.5, 1.5, 81))
            with tw.no_grad():
                best = {"loss": loss.item(), "right": ((model(x).squeeze(1) > 0) == y.bool()).sum().item(),
                        "map": model(grid).sigmoid().view(81, 81).t().contiguous()}
    return best


def main() -> None:
    options = arguments(__doc__)
    study = Study(options, "perceptron")
    x, y = iris()
    baseline = Baseline(random_state=options.seed).fit(x.numpy(), y.numpy()).score(x.numpy(), y.numpy())

    def rosenblatt() -> dict[str, Any]:
        model = Perceptron(2)
        mistakes = model.fit(x, y)
        return {"mistakes": mistakes, "accuracy": (model(x) == y).float().mean().item(), "weight": model.weight,
                "bias": model.bias}

    def delta() -> dict[str, Any]:
        model = Adaline(2)
        return {"errors": model.fit(x, y, epochs=60), "accuracy": (model(x) == y).float().mean().item()}

    first, second = study.run("iris", rosenblatt), study.run("delta rule", delta)
    xor_x, xor_y = (tw.tensor(a) for a in XOR)
    never = study.run("exclusive or", lambda: Perceptron(2).fit(xor_x, xor_y, epochs=200))
    nets = [study.run(f"{k} hidden", lambda k=k: learn_xor(k, options.seed)) for k in range(3)]

    figure, axes = plt.subplots(1, 5, figsize=(16, 3.2))
    axes[0].scatter(*x.numpy().T, c=y.numpy(), cmap="coolwarm", s=12)
    line = np.linspace(-2, 2, 2)
    w0, w1 = first["weight"].tolist()
    axes[0].plot(line, -(w0 * line + first["bias"].item()) / w1, "k")
    axes[0].set(title="iris: the perceptron's line", xlabel="petal length", ylabel="petal width", ylim=(-2, 2))
    axes[1].plot(first["mistakes"], "o-", label="perceptron, iris")
    axes[1].plot(never[:30], label="perceptron, exclusive or")
    axes[1].plot(np.array(second["errors"][:30]) * 4, label="delta rule, iris: 4 x error")
    axes[1].set(title="mistakes an epoch", xlabel="epoch")
    axes[1].legend(fontsize=7)
    for k, (axis, net) in enumerate(zip(axes[2:], nets, strict=True)):
        axis.imshow(net["map"].numpy(), extent=(-0.5, 1.5, -0.5, 1.5), origin="lower", cmap="coolwarm", vmin=0, vmax=1)
        axis.scatter(*XOR[0].T, c=XOR[1], cmap="coolwarm", edgecolors="k", s=60)
        axis.set_title(f"exclusive or, {k} hidden layer{'s' * (k != 1)}: {net['right']} of 4")
    save_picture(figure, options, "perceptron")
    print(f"iris: perceptron {first['accuracy']:.3f} after {len(first['mistakes'])} epochs, delta rule "
          f"{second['accuracy']:.3f}; scikit-learn's perceptron {baseline:.3f}")
    print(f"exclusive or: the perceptron still makes {min(never)} mistakes an epoch after {len(never)}; with 0, 1, 2 "
          f"hidden layers {', '.join(str(n['right']) for n in nets)} of 4 right")


if __name__ == "__main__":
    main()
