"""Perceptron, multilayer networks, initialization, optimizers, regularization, ensembles, search."""

from __future__ import annotations

import math

import tilewright as tw
from systems import System, flipped, frozen
from tilewright import nn


# --- perceptron, delta rule ------------------------------------------------------------------------------------------
def iris_line() -> float:
    from perceptron import iris

    from tilewright.models import Perceptron

    x, y = iris()
    model = Perceptron(2)
    model.fit(x, y)
    return (model(x) == y).float().mean().item()


def iris_delta_rule() -> float:
    from perceptron import delta_rule, iris

    x, y = iris()
    return delta_rule(x[:70], y[:70], x[70:], y[70:])["accuracy"]


def step_turned(patch) -> None:
    """A rule adds what it should take away."""
    patch.setattr(tw.Tensor, "__iadd__", tw.Tensor.__isub__)
    patch.setattr(tw.Tensor, "add_", tw.Tensor.sub_)


def exclusive_or() -> float:
    from perceptron import exclusive_or, learn

    return -learn(*exclusive_or(), [4], steps=300, seed=0)["loss"]


def no_bend(patch) -> None:
    """Hidden units are linear, and so is the network."""
    patch.setattr(nn.Tanh, "forward", lambda self, x: x)


# --- multilayer perceptron, radial bases -----------------------------------------------------------------------------
def sine_by(kind: str) -> float:
    from mlp import approximate

    return approximate(kind, 8, steps=800, seed=0, device="cpu")["R2"]


def one_wide_base(patch) -> None:
    """All bases have the same centre and width: together they are one bump."""
    import tilewright.models

    def centre(self, x):
        with tw.no_grad():
            self.centres.fill_(0)
        return self

    patch.setattr(tilewright.models.RBFNetwork, "centre", centre)
    frozen("centres|log_width")(patch)


def patients(name: str) -> float:
    from mlp import table

    return table(name, split=0, device="cpu", epochs=20, peers=False)["our MLP"]


# --- depth -----------------------------------------------------------------------------------------------------------
def deep_residual() -> float:
    from depth import Case, train

    return train(Case(residual=True), 0.01, epochs=4, seed=0, device="cpu")["accuracy"]


def no_shortcut(patch) -> None:
    import depth

    build = depth.Deep.__init__
    patch.setattr(depth.Deep, "__init__", lambda self, case: build(self, case._replace(residual=False)))


def exploding() -> float:
    from depth import Case, train

    return -train(Case(start="large", clip=1), 0.01, epochs=5, seed=0, device="cpu")["losses"][-1]


def not_clipped(patch) -> None:
    patch.setattr(nn.utils, "clip_grad_norm_", lambda parameters, most: None)


# --- optimizers ------------------------------------------------------------------------------------------------------
def optimizers_on_digits() -> float:
    from optimizers import METHODS, curve

    return min(curve(name, 64, epochs=8, seed=0, device="cpu")["accuracy"] for name in METHODS)


def momentum_in_the_valley() -> float:
    from optimizers import path, valley

    plain, fast = (valley(path(name, 300)[-1]).item() for name in ("SGD", "momentum"))
    return math.log10(plain / fast) if fast > 0 and math.isfinite(plain / fast) else -math.inf


def momentum_forgotten(patch) -> None:
    from optimizers import METHODS

    patch.setitem(METHODS, "momentum", (*METHODS["momentum"][:3], {}))


# --- regularization --------------------------------------------------------------------------------------------------
def wrong_labels() -> float:
    from regularization import train

    gains = [train("dropout, augmentation", 0.2, 60, seed, "cpu")["curve"][-1] - train("none", 0.2, 60, seed, "cpu")[
        "curve"][-1] for seed in (0, 1)]
    return sum(gains) / len(gains)


def model_averaging() -> float:
    from regularization import train

    result = train("dropout", 0.0, 30, 0, "cpu")
    return result["thirty"] - result["one"] if result["curve"][-1] > 0.8 else 0.0


def nothing_dropped(patch) -> None:
    import regularization

    patch.setattr(nn.Dropout, "forward", lambda self, x: x)
    patch.setattr(regularization, "moved", lambda images: images)


# --- ensembles, search -----------------------------------------------------------------------------------------------
def snapshots() -> float:
    from ensemble import right, train

    gains = []
    for seed in range(4):
        run = train(True, 48, seed, "cpu")
        members = [right(p, run["y"]) for p in run["snapshots"]]
        whole = right(run["snapshots"].mean(0), run["y"])
        gains.append(whole - sum(members) / len(members) if whole > 0.8 else 0.0)
    return sum(gains) / len(gains)


def one_cycle(patch) -> None:
    """The rate falls once and never rises, so that all snapshots are one network."""
    import ensemble

    patch.setattr(ensemble, "CosineAnnealingWarmRestarts", lambda optimizer, length: tw.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: (1 + math.cos(math.pi * min(epoch / length, 1))) / 2))


def grid_search() -> float:
    from search import network
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    from tilewright.sklearn import NetClassifier

    x, y = load_breast_cancer(return_X_y=True)
    grid = GridSearchCV(NetClassifier(network, epochs=5), {"lr": [1e-5, 1e-2]}, cv=StratifiedKFold(3))
    return float(grid.fit(x, y).best_score_)


SYSTEMS = [
    System("perceptron on iris", iris_line, 0.99, "a line parts them: 1.0; the wrong way round about 0", {
        "rule turned": step_turned}),
    System("delta rule on iris", iris_delta_rule, 0.95, "1.0 held out; the wrong way round about 0", {
        "rule turned": step_turned}),
    System("MLP on exclusive or", exclusive_or, -0.1, "loss 0.01; a line's best is log 2 = 0.69", {
        "gradients flipped": flipped, "linear units": no_bend}),
    System("MLP on a sine", lambda: sine_by("MLP"), 0.9, "R2 0.99; a line's best is 0.3", {
        "gradients flipped": flipped, "linear units": no_bend}),
    System("radial bases on a sine", lambda: sine_by("RBF network"), 0.9, "R2 0.999; one bump's best is 0.3", {
        "gradients flipped": flipped, "one centre": one_wide_base}),
    System("MLP on breast cancer", lambda: patients("breast cancer"), 0.9, "0.95 held out; the larger class 0.63", {
        "gradients flipped": flipped, "weights frozen": frozen("weight")}),
    System("MLP on diabetes", lambda: patients("diabetes"), 0.25, "R2 0.35 held out; the mean 0", {
        "gradients flipped": flipped, "weights frozen": frozen("weight")}),
    System("20 residual layers", deep_residual, 0.8, "0.95 held out; without shortcuts 0.1", {
        "gradients flipped": flipped, "no shortcuts": no_shortcut}),
    System("clipping of exploding gradients", exploding, -100, "loss 10; not clipped it is not a number", {
        "gradients flipped": flipped, "not clipped": not_clipped}),
    System("optimizers on digits", optimizers_on_digits, 0.6, "the slowest 0.8 held out; untrained 0.1", {
        "gradients flipped": flipped, "weights frozen": frozen("weight")}),
    System("momentum in a valley", momentum_in_the_valley, 1.5, "10^2.9 lower than SGD after 300 steps", {
        "gradients flipped": flipped, "momentum forgotten": momentum_forgotten}),
    System("dropout and augmentation", wrong_labels, 0.02, "7 points over none when a fifth of labels is wrong", {
        "gradients flipped": flipped, "nothing dropped or moved": nothing_dropped}),
    System("dropout as model averaging", model_averaging, 0.02, "30 random networks are 4 points over one", {
        "gradients flipped": flipped, "nothing dropped": nothing_dropped}),
    System("snapshot ensemble", snapshots, 0.01, "2.4 points over its mean member", {
        "gradients flipped": flipped, "rate does not rise again": one_cycle}),
    System("grid search", grid_search, 0.9, "0.97 over three folds; the larger class 0.63", {
        "gradients flipped": flipped, "weights frozen": frozen("weight")}),
]
