"""What a CNN sees: its first filters, maps of activation, saliency, and class activation maps, judged by a game.

    python examples/saliency.py

A net learns the ten digits from 24 x 24 pictures in which a digit stands somewhere among clutter; it is never told
where. Saliency is the gradient of a class's score by the pixels (Simonyan et al., arXiv:1312.6034). Where the last maps
are averaged before one linear layer, that layer's weights of a class mix the maps to a class activation map (Zhou et
al., arXiv:1512.04150). The pointing game (Zhang et al., arXiv:1608.00507) asks whether the map's maximum lies on the
object; here also whether it picks the digit that it is asked for out of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from common import Study, arguments, digits, plt, save_picture

import tilewright as tw
from tilewright import nn
from tilewright.train import Trainer

SIDE, SMALL = 24, 8


def clutter(x: np.ndarray, y: np.ndarray, seed: int, count: int = 1) -> tuple[tw.Tensor, tw.Tensor, tw.Tensor]:
    """Pictures (n, 1, 24, 24): eight fragments of 4 x 4 of any digits, over them `count` digits of x (n, 1, 8, 8), of
    different classes and apart from each other, and noise; the classes (n, count) and the corners (n, count, 2)."""
    rng = np.random.default_rng(seed)
    pictures = np.zeros((len(x), 1, SIDE, SIDE), np.float32)
    classes, corners = np.zeros((len(x), count), np.int64), np.zeros((len(x), count, 2), np.int64)
    for i, picture in enumerate(pictures[:, 0]):
        for row, column in rng.integers(0, SIDE - 3, (8, 2)):
            r, c = rng.integers(0, 5, 2)
            picture[row:row + 4, column:column + 4] = x[rng.integers(len(x)), 0, r:r + 4, c:c + 4]
        for k in range(count):
            which = i
            while k and y[which] in classes[i, :k]:
                which = rng.integers(len(x))
            corner = rng.integers(0, SIDE - SMALL + 1, 2)
            while k and (abs(corner - corners[i, :k]).max(1) < SMALL).any():
                corner = rng.integers(0, SIDE - SMALL + 1, 2)
            picture[corner[0]:corner[0] + SMALL, corner[1]:corner[1] + SMALL] = x[which, 0]
            classes[i, k], corners[i, k] = y[which], corner
    pictures += rng.normal(0, 0.1, pictures.shape).astype(np.float32)
    return tw.tensor(pictures), tw.tensor(classes), tw.tensor(corners)


class Pictures:
    """Batches of the digits, each epoch among new clutter."""

    def __init__(self, x: tw.Tensor, y: tw.Tensor, size: int = 64):
        self.x, self.y, self.size = x.numpy(), y.numpy(), size

    def __iter__(self) -> Iterator[tuple[tw.Tensor, tw.Tensor]]:
        x, y, _ = clutter(self.x, self.y, int(tw.randint(0, 2**31, (1,)).item()))
        for rows in tw.randperm(len(x)).split(self.size):
            yield x[rows], y[rows, 0]


class Net(nn.Module):
    """Three convolutions with norms, the mean of each map, and one linear layer."""

    def __init__(self, classes: int = 10, width: int = 16):
        super().__init__()
        self.first = nn.Conv2d(1, width, 5, padding=2)
        self.maps = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width), nn.ReLU(), nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.BatchNorm2d(4 * width), nn.ReLU())
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: tw.Tensor) -> tw.Tensor:
        return self.head(self.maps(self.first(x)).mean((2, 3)))


def train(net: Net, data: Any, epochs: int, **more: Any) -> list[dict[str, float]]:
    optimizer = tw.optim.Adam(net.parameters(), lr=3e-3)
    schedule = tw.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    resume = more.pop("resume", False)
    trainer = Trainer(net, optimizer, lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1]),
                      schedule=schedule, **more)
    return trainer.fit(data, epochs=epochs, resume=resume)


def saliency(net: Net, x: tw.Tensor, classes: tw.Tensor) -> tw.Tensor:
    """|d score of the class / d pixel|, (n, 24, 24)."""
    x = x.detach().requires_grad_()
    score = net(x).gather(1, classes[:, None]).sum()
    return tw.autograd.grad(score, x)[0].abs()[:, 0]


@tw.no_grad()
def class_activation(net: Net, x: tw.Tensor, classes: tw.Tensor) -> tw.Tensor:
    """The last maps mixed by the class's weights, drawn to the picture's size (n, 24, 24)."""
    maps = net.maps(net.first(x))
    mixed = (net.head.weight[classes][:, :, None, None] * maps).sum(1, keepdim=True)
    return nn.functional.interpolate(mixed, size=x.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def points(maps: tw.Tensor, corners: tw.Tensor) -> float:
    """How often a map's (n, 24, 24) maximum lies in the 8 x 8 square from the corner (n, 2)."""
    best = maps.flatten(1).argmax(1)
    place = tw.stack([best // SIDE, best % SIDE], 1) - corners
    return ((place >= 0) & (place < SMALL)).all(1).float().mean().item()


def judge(net: Net, x: tw.Tensor, y: tw.Tensor, seed: int) -> dict[str, float]:
    """Held-out accuracy, and the pointing game of every method on one digit and on two."""
    device = next(net.parameters()).device
    single, labels, corners = (t.to(device) for t in clutter(x.numpy(), y.numpy(), seed))
    with tw.no_grad():
        result = {"accuracy": (net(single).argmax(1) == labels[:, 0]).float().mean().item()}
    centre = tw.zeros(len(x), SIDE, SIDE, device=device)
    centre[:, SIDE // 2, SIDE // 2] = 1

    def methods(x: tw.Tensor, classes: tw.Tensor) -> dict[str, tw.Tensor]:
        bright = nn.functional.avg_pool2d(nn.functional.pad(x, (3, 4, 3, 4)), SMALL, 1)[:, 0]
        blurred = nn.functional.avg_pool2d(saliency(net, x, classes)[:, None], 5, 1, 2)[:, 0]
        return {"class activation map": class_activation(net, x, classes), "saliency, blurred": blurred,
                "brightest 8 x 8": bright, "centre": centre}

    for name, maps in methods(single, labels[:, 0]).items():
        result[f"one, {name}"] = points(maps, corners[:, 0])
    double, labels, corners = (t.to(device) for t in clutter(x.numpy(), y.numpy(), seed + 1, count=2))
    for name, maps in methods(double, labels[:, 0]).items():
        result[f"two, {name}"], result[f"two, {name}, other"] = (points(maps, corners[:, k]) for k in (0, 1))
    return result


def picture(net: Net, x: tw.Tensor, y: tw.Tensor, seed: int) -> Any:
    """Filters; then pictures with maps of activation, saliency and class activation; then two digits and both maps."""
    device = next(net.parameters()).device
    figure, axes = plt.subplots(5, 8, figsize=(11, 7.4))
    for axis, kernel in zip(axes[0], net.first.weight.detach().cpu().numpy()[:, 0], strict=False):
        axis.imshow(kernel, cmap="coolwarm", vmin=-abs(kernel).max(), vmax=abs(kernel).max())
    axes[0][0].set_title("first filters, 8 of 16", loc="left", fontsize=9)

    def over(axis: Any, image: np.ndarray, heat: np.ndarray, title: str, corner: np.ndarray) -> None:
        axis.imshow(image, cmap="gray")
        axis.imshow(heat, cmap="inferno", alpha=0.6)
        axis.add_patch(plt.Rectangle(corner[::-1] - 0.5, SMALL, SMALL, fill=False, color="cyan", lw=1))
        axis.set_title(title, fontsize=8)

    for count, rows in ((1, (1, 2)), (2, (3, 4))):
        pictures, labels, corners = (t[:2].to(device) for t in clutter(x.numpy(), y.numpy(), seed + 5, count))
        heats = [[f(net, pictures, labels[:, k]).cpu().numpy() for f in (saliency, class_activation)]
                 for k in range(count)]
        with tw.no_grad():
            maps = nn.functional.relu(net.maps[0](net.first(pictures))).cpu().numpy()
        for n, row in enumerate(rows):
            image = pictures[n, 0].cpu().numpy()
            axes[row][0].imshow(image, cmap="gray")
            axes[row][0].set_title(" and ".join(str(c) for c in labels[n].tolist()), fontsize=8)
            column = 1
            for k in range(count):
                for name, heat in zip(("saliency", "activation map"), heats[k], strict=True):
                    over(axes[row][column], image, heat[n], f"{name} of {labels[n, k].item()}",
                         corners[n, k].cpu().numpy())
                    column += 1
            for axis, kind in zip(axes[row][column:], np.argsort(-maps[n].std((1, 2))), strict=False):
                axis.imshow(maps[n, kind], cmap="viridis")
                axis.set_title(f"filter {kind}", fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    return figure


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "saliency"), 80 if options.full else 30
    (x, y), (x_test, y_test) = digits(seed=options.seed)

    def learn() -> dict[str, Any]:
        net = Net().to(options.device)
        history = train(net, Pictures(x, y), epochs, checkpoint=study.file("net"), resume=options.resume)
        return {"weights": net.state_dict(), "loss": [row["loss"] for row in history]}

    learned = study.run("net", learn)
    net = Net().to(options.device)
    net.load_state_dict(learned["weights"])
    net.eval()
    found = study.run("judged", lambda: judge(net, x_test, y_test, options.seed + 100))
    print(f"held-out accuracy, digits among clutter: {found['accuracy']:.3f}")
    print(f"pointing game on {len(x_test)} held-out pictures; chance is {SMALL**2 / SIDE**2:.2f}")
    print(f"  {'method':22} {'one digit':>9} {'two: asked for':>15} {'the other':>10}")
    for name in ("class activation map", "saliency, blurred", "brightest 8 x 8", "centre"):
        print(f"  {name:22} {found[f'one, {name}']:9.3f} {found[f'two, {name}']:15.3f} "
              f"{found[f'two, {name}, other']:10.3f}")
    save_picture(picture(net, x_test, y_test, options.seed), options, "saliency")


if __name__ == "__main__":
    main()
