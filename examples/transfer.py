"""Transfer learning on the digits: an encoder that told even from odd helps to tell ten classes from few labels.

    python examples/transfer.py

An encoder trained where labels are many is put to a task where they are few: kept as it is (frozen) under a new head,
or tuned on, with a smaller rate for what is already learned (rates by group; Howard and Ruder, arXiv:1801.06146).
Yosinski et al. (arXiv:1411.1792) measured how far features transfer. Several tasks may share an encoder (Caruana 1997),
and a task that is only there to help is an auxiliary one: here parity, which is known for every picture, or drawing the
picture again, which needs no label. Any second task also shakes the encoder, which helps by itself; a control with
shuffled parities shows how much. Every number is of several draws of the labelled pictures and of the start.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from common import Study, arguments, bar, batches, digits, plt, save_picture

import tilewright as tw
from tilewright import nn

F = nn.functional
TASKS = {"digit": 10, "parity": 2, "loops": 3, "shuffled": 2, "redraw": 64}
LOOPS = tw.tensor([1, 0, 0, 0, 1, 0, 1, 0, 2, 1])  # the closed ones of each figure
WAYS = "from nothing", "frozen", "one rate", "rates by group"
HELPERS = {"alone": "", "shuffled parity": "shuffled", "parity": "parity", "redrawing": "redraw"}
TOGETHER = "digit", "parity", "loops"
Table = dict[str, list[float]]


def targets(y: tw.Tensor) -> dict[str, tw.Tensor]:
    return {"digit": y, "parity": y % 2, "loops": LOOPS.to(y.device)[y]}


class Net(nn.Module):
    """Pictures (n, 1, 8, 8) to a dict of scores: one encoder of 512 features, a linear head for each task."""

    def __init__(self, tasks: Sequence[str]):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten())
        self.heads = nn.ModuleDict({task: nn.Linear(512, TASKS[task]) for task in tasks})

    def forward(self, x: tw.Tensor) -> dict[str, tw.Tensor]:
        code = self.encoder(x)
        return {task: head(code) for task, head in self.heads.items()}


def loss_of(net: Net, x: tw.Tensor, y: dict[str, tw.Tensor], tasks: Sequence[str]) -> tw.Tensor:
    """The sum of the tasks' cross-entropies; of redrawing, half the squared error of each picture."""
    found, loss = net(x), tw.zeros((), device=x.device)
    for task in tasks:
        loss = loss + (32 * F.mse_loss(found[task], x.flatten(1)) if task == "redraw" else
                       F.cross_entropy(found[task], y[task]))
    return loss


@tw.no_grad()
def accuracy(net: Net, x: tw.Tensor, y: tw.Tensor, task: str = "digit") -> float:
    return (net(x)[task].argmax(1) == targets(y)[task]).float().mean().item()


def pretrain(x: tw.Tensor, y: tw.Tensor, epochs: int, task: str = "parity") -> Net:
    """A net that learned one task from all of the pictures."""
    net = Net([task]).to(x.device)
    optimizer = tw.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(epochs):
        for images, labels in batches(x, targets(y)[task]):
            optimizer.zero_grad()
            loss_of(net, images, {task: labels}, [task]).backward()
            optimizer.step()
    return net


def few(y: tw.Tensor, count: int, seed: int) -> tw.Tensor:
    """The numbers of `count` pictures of each class."""
    rng, labels = np.random.default_rng(seed), y.cpu().numpy()
    return tw.tensor(np.concatenate([rng.permutation(np.where(labels == c)[0])[:count] for c in range(10)]))


def adapt(way: str, source: Net, x: tw.Tensor, y: tw.Tensor, steps: int) -> Net:
    """Ten classes from the few pictures x, with a new head on the source's encoder, but for "from nothing".

    By groups, the encoder stays frozen for a third of the steps and then learns at a tenth of the head's rate.
    """
    net, by_group = Net(["digit"]).to(x.device), way == "rates by group"
    if way != "from nothing":
        net.encoder.load_state_dict(source.encoder.state_dict())
    net.encoder.requires_grad_(way in ("from nothing", "one rate"))
    optimizer = tw.optim.Adam([{"params": net.encoder.parameters(), "lr": 3e-4 if by_group else 3e-3},
                               {"params": net.heads.parameters(), "lr": 3e-3}])
    for step in range(steps):
        if by_group and step == steps // 3:
            net.encoder.requires_grad_(True)
        optimizer.zero_grad()
        loss_of(net, x, {"digit": y}, ["digit"]).backward()
        optimizer.step()
    return net


def share(tasks: Sequence[str], x: tw.Tensor, y: tw.Tensor, steps: int) -> Net:
    """One encoder for all of the tasks, from the pictures x."""
    net = Net(tasks).to(x.device)
    optimizer = tw.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(net, x, targets(y), tasks).backward()
        optimizer.step()
    return net


def assist(helper: str, x: tw.Tensor, y: tw.Tensor, chosen: tw.Tensor, steps: int) -> Net:
    """Ten classes from the chosen pictures, and at each step the helper's task, if there is one, on 48 of all pictures,
    with three times the weight. Of the others' labels only their parity is looked at, and by redrawing none."""
    net = Net(["digit", helper] if helper else ["digit"]).to(x.device)
    optimizer, parity = tw.optim.Adam(net.parameters(), lr=3e-3), targets(y)["parity"]
    known = {"parity": parity, "shuffled": parity[tw.randperm(len(y), device=x.device)]}
    for _ in range(steps):
        loss = loss_of(net, x[chosen], {"digit": y[chosen]}, ["digit"])
        if helper:
            rows = tw.randint(0, len(x), (48,), device=x.device)
            loss = loss + 3 * loss_of(net, x[rows], {task: value[rows] for task, value in known.items()}, [helper])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def show(title: str, tables: dict[int, Table]) -> None:
    """Means, and in how many draws each is better than the first."""
    names = list(next(iter(tables.values())))
    print(f"{title:22}" + "".join(f"{name:>22}" for name in names))
    for count, table in tables.items():
        first = np.array(table[names[0]])
        better = ["" if n == names[0] else f" ({(np.array(table[n]) > first).sum()} of {len(first)})" for n in names]
        print(f"{count:22}" + "".join(f"{f'{np.mean(table[n]):.3f}' + b:>22}" for n, b in zip(names, better,
                                                                                             strict=True)))


def main() -> None:
    options = arguments(__doc__)
    study, draws, steps = Study(options, "transfer"), 20 if options.full else 5, 300 if options.full else 100
    (x, y), (x_test, y_test) = ([t.to(options.device) for t in part] for part in digits(seed=options.seed))
    seeds = [100 * options.seed + draw for draw in range(draws)]

    def encoders() -> list[dict[str, tw.Tensor]]:
        return [pretrain(x, y, 15).state_dict() for _ in bar(seeds, "parity")]

    sources = [Net(["parity"]).to(options.device) for _ in seeds]
    for source, weights in zip(sources, study.run("parity", encoders), strict=True):
        source.load_state_dict(weights)

    def transfers(count: int) -> Table:
        table: Table = {way: [] for way in WAYS}
        for source, seed in zip(sources, bar(seeds, f"transfer, {count} a class"), strict=True):
            chosen = few(y, count, seed)
            for way in WAYS:
                tw.manual_seed(seed)  # the same start for all ways
                table[way].append(accuracy(adapt(way, source, x[chosen], y[chosen], steps), x_test, y_test))
        return table

    def helped(count: int) -> Table:
        table: Table = {name: [] for name in HELPERS}
        for seed in bar(seeds, f"auxiliary task, {count} a class"):
            for name, helper in HELPERS.items():
                tw.manual_seed(seed)
                net = assist(helper, x, y, few(y, count, seed), 2 * steps)
                table[name].append(accuracy(net, x_test, y_test))
        return table

    def shared(count: int) -> Table:
        table: Table = {f"{task}, {how}": [] for task in TOGETHER for how in ("own", "shared")}
        for seed in bar(seeds, "shared encoder"):
            chosen = few(y, count, seed)
            together = share(TOGETHER, x[chosen], y[chosen], steps)
            for task in TOGETHER:
                own = share([task], x[chosen], y[chosen], steps)
                table[f"{task}, own"].append(accuracy(own, x_test, y_test, task))
                table[f"{task}, shared"].append(accuracy(together, x_test, y_test, task))
        return table

    counts = (1, 2, 5, 10)
    moved = {count: study.run(f"transfer {count}", lambda count=count: transfers(count)) for count in counts}
    aided = {count: study.run(f"auxiliary {count}", lambda count=count: helped(count)) for count in counts[1:3]}
    common = study.run("shared", lambda: shared(5))
    print(f"accuracy on {len(y_test)} held-out pictures, mean of {draws} draws (and in how many better than the first)")
    print(f"parity, from all labels: {np.mean([accuracy(s, x_test, y_test, 'parity') for s in sources]):.3f}")
    show("ten classes, labels each", moved)
    show("auxiliary task", aided)
    print("three tasks from 5 labels a class, each with an encoder of its own, or one shared:")
    for task in TOGETHER:
        own, together = (np.array(common[f"{task}, {how}"]) for how in ("own", "shared"))
        print(f"  {task:8} {own.mean():.3f} alone   {together.mean():.3f} shared, better in {(together > own).sum()}, "
              f"worse in {(together < own).sum()} of {draws}")

    figure, axes = plt.subplots(1, 3, figsize=(11.8, 4))
    for way in WAYS:
        axes[0].plot(counts, [np.mean(moved[c][way]) for c in counts], "o-", label=way)
    axes[0].set(xlabel="labels a class", ylabel="held-out accuracy",
                title="even or odd, then ten classes")
    axes[0].legend()
    for k, (count, table) in enumerate(aided.items()):
        places = 5 * k + np.arange(4)
        axes[1].plot(places, np.array(list(table.values())), color="#bbbbbb", lw=0.8)
        axes[1].plot(places, [np.mean(v) for v in table.values()], "o-", label=f"{count} labels a class")
    axes[1].set_xticks([5 * k + j for k in range(2) for j in range(4)], list(HELPERS) * 2, rotation=40, ha="right",
                       fontsize=8)
    axes[1].set(title="an auxiliary task; grey: each draw", ylabel="held-out accuracy")
    axes[1].legend()
    with tw.no_grad():
        code = sources[0].encoder(x_test)
        code = code - code.mean(0)
        plane = (code @ tw.linalg.svd(code, full_matrices=False)[2][:2].T).cpu().numpy()
    for digit in range(10):
        rows = y_test.cpu().numpy() == digit
        axes[2].scatter(*plane[rows].T, s=14, color=plt.cm.tab10(digit), marker="ox"[digit % 2], label=str(digit))
    axes[2].set(title="what told even (o) from odd (x), in 2-D", xticks=[], yticks=[])
    axes[2].legend(fontsize=7, ncol=2)
    save_picture(figure, options, "transfer")


if __name__ == "__main__":
    main()
