"""Classifying nets, transfer learning, what a net sees, segmentation, detection."""

from __future__ import annotations

import numpy as np

import tilewright as tw
from systems import System, flipped, frozen
from tilewright import nn
from tilewright.vision import models


def residual() -> float:
    """Held-out accuracy of the small residual net on the digits as they are."""
    from cnns import learn
    from common import digits

    tw.manual_seed(0)
    data = [t.expand(-1, 3, -1, -1) if t.ndim == 4 else t for part in digits() for t in part]
    net = models.ResNet(models.BasicBlock, (1, 1, 1), 10, widths=(8, 16, 32), small=True)
    return learn(net, data, 4, progress=False)["test"]


def transferred() -> float:
    """How much more an encoder that learned parity reaches, frozen, than one from nothing, two labels a class."""
    from common import digits
    from transfer import accuracy, adapt, few, pretrain

    tw.manual_seed(0)
    (x, y), (x_test, y_test) = digits()
    source, gains = pretrain(x, y, 6), []
    for seed in range(3):
        chosen = few(y, 2, seed)
        new, old = (accuracy(adapt(way, source, x[chosen], y[chosen], 60), x_test, y_test)
                    for way in ("from nothing", "frozen"))
        gains.append(old - new)
    return float(np.mean(gains))


def assisted() -> float:
    """How much more the ten classes gain from two labels a class when parity is learned beside them."""
    from common import digits
    from transfer import accuracy, assist, few

    tw.manual_seed(0)
    (x, y), (x_test, y_test) = digits()
    gains = []
    for seed in range(4):
        chosen, start = few(y, 2, seed), tw.get_rng_state()
        alone = accuracy(assist("", x, y, chosen, 150), x_test, y_test)
        tw.set_rng_state(start)  # both begin alike
        gains.append(accuracy(assist("parity", x, y, chosen, 150), x_test, y_test) - alone)
    return float(np.mean(gains))


def pointing() -> float:
    """How often the class activation map picks the digit that it is asked for out of two among clutter."""
    from common import digits
    from saliency import Net, Pictures, judge, train

    tw.manual_seed(0)
    (x, y), (x_test, y_test) = ((x[y < 3], y[y < 3]) for x, y in digits())
    net = Net(3, width=8)
    train(net, Pictures(x, y), 12, progress=False)
    net.eval()
    return judge(net, x_test, y_test, seed=1)["two, class activation map"]


def nothing_carried(patch) -> None:
    """The new net does not get the old one's weights."""
    patch.setattr(nn.Module, "load_state_dict", lambda self, *rest, **more: None)


SYSTEMS: list[System] = [
    System("residual net on digits", residual, 0.85,
           "0.96 to 0.98 in three seeds; random features under a learned head 0.57", {
        "gradients flipped": flipped, "only its head learns": frozen("^(?!fc)")}),
    System("transfer from parity to ten classes", transferred, 0.07,
           "0.08 to 0.12 more than from nothing in three seeds; random features under a learned head -0.02 to 0.04", {
        "gradients flipped": flipped, "weights not carried over": nothing_carried}),
    System("auxiliary task", assisted, 0.015, "0.035 to 0.044 more than alone in three seeds; without gradients 0", {
        "gradients flipped": flipped, "the encoder frozen": frozen("^encoder")}),
    System("class activation map", pointing, 0.75,
           "0.90 to 0.93 in three seeds; either of the two: 0.5; anywhere: 0.11", {
        "gradients flipped": flipped, "only its head learns": frozen("^(?!head)")}),
]
