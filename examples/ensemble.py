"""A cyclical rate and the ensemble of its snapshots, against one network that trained as long, and averaged weights.

    python examples/ensemble.py

The rate falls by a cosine and starts anew (Loshchilov and Hutter, arXiv:1608.03983); the network at the end of each
cycle is kept (Huang et al., arXiv:1704.00109), and their mean probability decides. Beside it: the mean of the weights
along the last cycles (Izmailov et al., arXiv:1803.05407).
"""

from __future__ import annotations

from typing import Any

from common import Study, arguments, batches, digits, plt, save_picture

import tilewright as tw
from tilewright import nn
from tilewright.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts

CYCLES = 6


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 48),
                         nn.ReLU(), nn.Linear(48, 10))


def run(cyclical: bool, epochs: int, seed: int, device: str) -> dict[str, Any]:
    """Held-out accuracy of each snapshot and of their mean; the rate and loss of each epoch."""
    (x, y), (x_test, y_test) = ([t.to(device) for t in part] for part in digits(test=1000))
    x, y = x[:400], y[:400]
    tw.manual_seed(seed)
    model = network().to(device)
    optimizer = tw.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    length = epochs // CYCLES
    schedule = CosineAnnealingWarmRestarts(optimizer, length) if cyclical else CosineAnnealingLR(optimizer, epochs)
    rates, losses, members, votes, averaged = [], [], [], 0.0, None
    for epoch in range(epochs):
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
            with tw.no_grad():
                p = nn.functional.softmax(model(x_test), 1)
                votes = votes + p
                members.append((p.argmax(1) == y_test).float().mean().item())
                if cyclical and epoch >= epochs // 2:
                    averaged = averaged or tw.optim.swa_utils.AveragedModel(model)
                    averaged.update_parameters(model)
    result = {"rates": rates, "losses": losses, "members": members,
              "ensemble": (votes.argmax(1) == y_test).float().mean().item()}
    if averaged is not None:
        with tw.no_grad():
            result["averaged"] = (averaged(x_test).argmax(1) == y_test).float().mean().item()
    return result


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "ensemble"), CYCLES * (20 if options.full else 8)
    cyclic = study.run("cyclical", lambda: run(True, epochs, options.seed, options.device))
    single = study.run("single", lambda: run(False, epochs, options.seed, options.device))
    figure, axes = plt.subplots(1, 2, figsize=(12, 4))
    axes[0].plot(cyclic["rates"], label="cyclical rate")
    axes[0].plot(single["rates"], label="one cosine")
    axes[0].set(xlabel="epoch", ylabel="rate")
    below = axes[0].twinx()
    below.semilogy(cyclic["losses"], ":", label="loss, cyclical")
    below.semilogy(single["losses"], ":", label="loss, one cosine")
    axes[0].legend(loc="upper left", fontsize=7)
    axes[1].bar([f"snapshot {i + 1}" for i in range(CYCLES)], cyclic["members"], color="#7799cc")
    heights = [cyclic["ensemble"], cyclic["averaged"], single["members"][-1]]
    axes[1].bar(["ensemble", "mean weights", "one cosine"], heights, color=["#cc7777", "#88aa77", "#999999"])
    axes[1].set(ylim=(min(cyclic["members"]) - 0.02, 1), ylabel="held-out accuracy")
    axes[1].tick_params(axis="x", rotation=60, labelsize=7)
    save_picture(figure, options, "ensemble")
    mean = sum(cyclic["members"]) / CYCLES
    print(f"snapshots {', '.join(f'{m:.4f}' for m in cyclic['members'])}, mean {mean:.4f}; their ensemble "
          f"{cyclic['ensemble']:.4f}; mean of the last weights {cyclic['averaged']:.4f}; one network as long "
          f"{single['members'][-1]:.4f}")


if __name__ == "__main__":
    main()
