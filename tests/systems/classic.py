"""Perceptron, multilayer networks, initialization, optimizers, regularization, ensembles, search."""

from __future__ import annotations

import tilewright as tw
from systems import System, flipped


def exclusive_or() -> float:
    from perceptron import learn_xor

    return -learn_xor(1, seed=0, steps=300)["loss"]


def iris_line() -> float:
    from perceptron import iris

    from tilewright.models import Perceptron

    x, y = iris()
    model = Perceptron(2)
    model.fit(x, y)
    return (model(x) == y).float().mean().item()


def step_turned(patch) -> None:
    """The perceptron's rule adds what it should take away."""
    patch.setattr(tw.Tensor, "__iadd__", tw.Tensor.__isub__)
    patch.setattr(tw.Tensor, "add_", tw.Tensor.sub_)


SYSTEMS = [
    System("perceptron on iris", iris_line, 0.99, "a line parts them: 1.0; the wrong way round about 0", {
        "rule turned": step_turned}),
    System("MLP on exclusive or", exclusive_or, -0.1, "loss 0.01; a line's best is log 2 = 0.69", {
        "gradients flipped": flipped}),
]
