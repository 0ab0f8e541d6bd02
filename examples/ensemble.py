"""A cyclical rate and the ensemble of its snapshots, against one network that trained as long, and averaged weights.

    python examples/ensemble.py

The rate falls by a cosine and starts anew (Loshchilov and Hutter, arXiv:1608.03983), so that the network leaves one
minimum and falls into another; its snapshot at the end of each cycle is kept (Huang et al., arXiv:1704.00109), and
their mean probability decides: six networks for the training of one. Beside it: networks trained one by one, which cost
six times as much, and the mean of the snapshots' weights (Izmailov et al., arXiv:1803.05407), which answers as fast as
one. Rate and network were chosen on the splits of seeds 100 to 102.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, bar, batches, digits, plt, save_picture

import tilewright as tw
from tilewright import nn
from tilewright.models import MLP
from tilewright.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts
from tilewright.optim.swa_utils import AveragedModel, update_bn

CYCLES, LABELS = 6, 200


def train(cyclical: bool, epochs: int, seed: int, device: str, split: int | None = None) -> dict[str, Any]:
    """Probabilities (CYCLES, held out, 10) of the network after each sixth of the training, and of the mean of the
    weights of the last half's; the rate and loss of each epoch."""
    (x, y), (x_test, y_test) = ([t.to(device) for t in part] for part in digits(
        test=1000, seed=seed if split is None else split))
    x, y, x_test = x[:LABELS].flatten(1), y[:LABELS], x_test.flatten(1)
    tw.manual_seed(seed)
    model = MLP([64, 64, 64, 10], norm=nn.BatchNorm1d).to(device)
    averaged = AveragedModel(model)
    optimizer = tw.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-3)
    length = epochs // CYCLES
    schedule = CosineAnnealingWarmRestarts(optimizer, length) if cyclical else CosineAnnealingLR(optimizer, epochs)
    rates, losses, snapshots = [], [], []
    for epoch in range(epochs):
        model.train()
        rates.append(optimizer.param_groups[0]["lr"])
        total = 0.0
        for images, labels in batches(x, y, size=32):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        losses.append(total / len(y))
        schedule.step()
        if (epoch + 1) % length == 0:
            model.eval()
            with tw.no_grad():
                snapshots.append(nn.functional.softmax(model(x_test), 1))
            if epoch >= epochs // 2:
                averaged.update_parameters(model)
    update_bn([x], averaged)  # the mean of weights has means and variances of its own
    averaged.eval()
    with tw.no_grad():
        mean_weights = nn.functional.softmax(averaged(x_test), 1)
    return {"rates": rates, "losses": losses, "snapshots": tw.stack(snapshots), "mean weights": mean_weights,
            "y": y_test}


def right(probabilities: tw.Tensor, y: tw.Tensor) -> float:
    return (probabilities.argmax(1) == y).float().mean().item()


def scores(epochs: int, seed: int, device: str) -> dict[str, Any]:
    """Held-out accuracies on one split of the members, of ensembles of 1 to 6 of them, and of their rivals."""
    cyclic = train(True, epochs, seed, device)
    members, y = cyclic["snapshots"], cyclic["y"]
    alone = tw.stack([train(False, epochs, 1000 * k + seed, device, seed)["snapshots"][-1] for k in range(CYCLES)])
    count = range(1, CYCLES + 1)
    return {"rates": cyclic["rates"], "losses": cyclic["losses"], "members": [right(p, y) for p in members],
            "snapshots": [right(members[-k:].mean(0), y) for k in count],
            "apart": [right(alone[:k].mean(0), y) for k in count], "mean weights": right(cyclic["mean weights"], y)}


def main() -> None:
    options = arguments(__doc__)
    study, count, epochs = Study(options, "ensemble"), 20 if options.full else 10, CYCLES * 8
    runs = [study.run(f"split {seed}", lambda seed=seed: scores(epochs, seed, options.device))
            for seed in bar(range(options.seed, options.seed + count), "splits")]
    members, snapshots, apart, mean_weights = (
        np.array([run[key] for run in runs]) for key in ("members", "snapshots", "apart", "mean weights"))
    whole = snapshots[:, -1]

    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.8))
    axes[0].plot(runs[0]["rates"], label="rate")
    axes[0].set(xlabel="epoch", ylabel="rate", title="six cycles")
    loss = axes[0].twinx()
    loss.semilogy(runs[0]["losses"], "C1", label="training loss")
    loss.legend(loc="upper right", fontsize=7)
    axes[0].legend(loc="upper left", fontsize=7)
    rivals = {f"snapshot {k + 1}": members[:, k] for k in range(CYCLES)} | {
        "one network as long": apart[:, 0], "mean of weights": mean_weights, "ensemble of snapshots": whole,
        "six networks, six times as long": apart[:, -1]}
    colours = ["#aabbdd"] * CYCLES + ["#999999", "#88aa77", "#cc7777", "#bb99cc"]
    axes[1].barh(list(rivals), [r.mean() for r in rivals.values()], color=colours,
                 xerr=[r.std() / count**0.5 for r in rivals.values()])
    axes[1].set(xlim=(0.89, 0.945), xlabel=f"held-out accuracy, mean of {count} splits")
    axes[1].tick_params(axis="y", labelsize=7)
    axes[2].plot(range(1, CYCLES + 1), snapshots.mean(0), "o-", color="#cc7777", label="last k snapshots")
    axes[2].plot(range(1, CYCLES + 1), apart.mean(0), "o-", color="#bb99cc", label="k networks trained apart")
    axes[2].set(xlabel="networks in the ensemble", ylabel="held-out accuracy")
    axes[2].legend(fontsize=7)
    save_picture(figure, options, "ensemble")

    best = members.max(1)  # chosen on the held-out images themselves, which flatters the member
    print(f"{LABELS} labels, held-out accuracy, mean of {count} splits")
    for name, score in rivals.items():
        print(f"    {name:32} {score.mean():.4f}   the ensemble of snapshots is better on {(whole > score).sum()}, "
              f"worse on {(whole < score).sum()}")
    print(f"    {'mean member':32} {members.mean():.4f}   {(whole > members.mean(1)).sum()}, "
          f"{(whole < members.mean(1)).sum()}\n    {'best member of each split':32} {best.mean():.4f}   "
          f"{(whole > best).sum()}, {(whole < best).sum()}")


if __name__ == "__main__":
    main()
