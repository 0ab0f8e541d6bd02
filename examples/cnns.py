"""Convolutional nets from LeNet-5 to MobileNet: their sizes, and small members of each family side by side.

    python examples/cnns.py

LeNet-5 (LeCun et al. 1998) set the pattern; AlexNet (Krizhevsky et al. 2012) made it deep and fast, VGG
(arXiv:1409.1556) deeper with 3 x 3 filters only, GoogLeNet and Inception v3 (arXiv:1409.4842, 1512.00567) wide at small
cost; ResNet (arXiv:1512.03385, pre-activation 1603.05027) added what a layer makes to what it gets, DenseNet
(arXiv:1608.06993) hands on all that came before, MobileNet v2 (arXiv:1801.04381) filters each map by itself. A net
without linear layers (arXiv:1412.6806, 1411.4038) takes pictures of any size, and says what is where.

First the nets at ImageNet's shape (all with --full). Then small ones learn (a) from which of eight photographs of
scikit-image a 32 x 32 patch was cut, written to and read from folders of PNG files; held out are strips of the
photographs that no training patch touches; (b) the digits, enlarged.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Study, arguments, digits, plt, save_picture

import tilewright as tw
from tilewright import nn
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset
from tilewright.vision import datasets, models, transforms

# Parameters of the weights that PyTorch publishes; the others' papers give no number to compare with.
PUBLISHED = {"alexnet": 61_100_840, "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544,
             "vgg19": 143_667_240, "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032,
             "resnet101": 44_549_160, "resnet152": 60_192_808, "densenet121": 7_978_856, "densenet161": 28_681_000,
             "densenet169": 14_149_480, "densenet201": 20_013_928, "googlenet": 13_004_888, "inception_v3": 27_161_264,
             "mobilenet_v2": 3_504_872, "fcn_resnet50": 35_322_218, "fcn_resnet101": 54_314_346}
SOME = ("lenet5", "alexnet", "vgg11", "resnet18", "resnet50", "preact_resnet50", "densenet121", "googlenet",
        "inception_v3", "mobilenet_v2", "fcn_resnet50")
ALL = ("lenet5", *PUBLISHED, *(f"preact_resnet{depth}" for depth in (18, 34, 50, 101, 152)))


def measure(name: str, device: str) -> dict[str, Any]:
    """Parameters, and the seconds of a forward pass of one picture: the better of two."""
    net = getattr(models, name)(**({"aux_loss": True} if name.startswith("fcn") else {})).to(device).eval()
    size = {"lenet5": (1, 32, 32), "inception_v3": (3, 299, 299)}.get(name, (3, 224, 224))
    x, seconds = tw.rand(1, *size, device=device), []
    for _ in range(2):
        begin = time.perf_counter()
        with tw.no_grad():
            y = net(x)
            (y["out"] if isinstance(y, dict) else y).sum().item()  # waits for a GPU
        seconds.append(time.perf_counter() - begin)
    return {"parameters": sum(p.numel() for p in net.parameters()), "seconds": min(seconds), "size": size}


# --- data ------------------------------------------------------------------------------------------------------------
TRAIN, TEST = 96, 48  # widths of the strips that patches are cut from


def photographs() -> dict[str, np.ndarray]:
    from skimage import data

    return {"astronaut": data.astronaut(), "cat": data.chelsea(), "coffee": data.coffee(),
            "galaxies": data.hubble_deep_field(), "motorcycle": data.stereo_motorcycle()[0],
            "retina": data.retina()[::3, ::3], "rocket": data.rocket(), "tissue": data.immunohistochemistry()}


def cut(photograph: np.ndarray, height: int, width: int, held_out: bool, rng: np.random.Generator) -> np.ndarray:
    """A piece of the photograph, of its training or of its held-out strips, that is not all one colour."""
    while True:
        strip = (TRAIN + TEST) * rng.integers(0, photograph.shape[1] // (TRAIN + TEST))
        room = TEST if held_out else TRAIN
        left = strip + (TRAIN if held_out else 0) + rng.integers(0, room - width + 1)
        top = rng.integers(0, photograph.shape[0] - height + 1)
        piece = photograph[top:top + height, left:left + width]
        if piece.std((0, 1)).max() > 8:
            return piece


def write_folder(root: Path, train: int, test: int, seed: int) -> None:
    """Patches of 32 x 32 as root/train/CLASS/0001.png and root/test/CLASS/0001.png, so many a class."""
    rng = np.random.default_rng(seed)
    for name, photograph in photographs().items():
        for part, count in (("train", train), ("test", test)):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                patch = transforms.functional.to_pil_image(cut(photograph, 32, 32, part == "test", rng))
                patch.save(root / part / name / f"{i:04}.png")


NORMAL = transforms.Normalize([0.5] * 3, [0.25] * 3)


def read_folder(root: Path) -> tuple[tw.Tensor, tw.Tensor]:
    """All pictures (n, 3, 32, 32) of a folder and their classes (n,)."""
    folder = datasets.ImageFolder(root, transforms.Compose([transforms.ToTensor(), NORMAL]))
    x, y = zip(*DataLoader(folder, batch_size=100), strict=True)
    return tw.cat(x), tw.cat(y)


def large_digits(seed: int) -> list[tw.Tensor]:
    """The digits as (n, 3, 32, 32), as a net for colour pictures takes them."""
    parts = []
    for x, y in digits(seed=seed):
        x = nn.functional.interpolate(x, size=32, mode="bilinear", align_corners=False)
        parts += [NORMAL(x.expand(-1, 3, -1, -1)), y]
    return parts


# --- small nets ------------------------------------------------------------------------------------------------------
class FullyConvolutional(nn.Module):
    """Pictures of any size to scores of every 4 x 4 pixels, `maps`; of a whole picture, their mean."""

    def __init__(self, classes: int, width: int = 16):
        super().__init__()
        layers: list[nn.Module] = []
        for c, o, stride in ((3, width, 1), (width, width, 2), (width, 2 * width, 1), (2 * width, 2 * width, 2),
                             (2 * width, 2 * width, 1)):
            layers += [nn.Conv2d(c, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        self.maps = nn.Sequential(*layers, nn.Conv2d(2 * width, classes, 1))

    def forward(self, x: tw.Tensor) -> tw.Tensor:
        return self.maps(x).mean((2, 3))


NARROW: dict[str, Any] = {"widths": (8, 16, 32), "small": True}
NETS: dict[str, Callable[[int], nn.Module]] = {
    "LeNet-5": lambda k: models.LeNet5(k, 3, activation="relu", pooling="max"),
    "VGG-11, narrow": lambda k: models.VGG(models.vgg_features(11, True, (8, 16, 32, 32, 64)), k, init_weights=False,
                                           dropout=0.0, channels=64, size=1, hidden=64),
    "ResNet-8": lambda k: models.ResNet(models.BasicBlock, (1, 1, 1), k, **NARROW),
    "ResNet-8, pre-activation": lambda k: models.PreActResNet(models.PreActBlock, (1, 1, 1), k, **NARROW),
    "DenseNet-22": lambda k: models.DenseNet(8, (3, 3, 3), 16, 2, num_classes=k),
    "MobileNet v2, short": lambda k: models.MobileNetV2(
        k, inverted_residual_setting=[(1, 8, 1, 1), (4, 16, 2, 2), (4, 24, 2, 2)]),
    "fully convolutional": FullyConvolutional,
}


def step(net: nn.Module, batch: list[tw.Tensor]) -> dict[str, tw.Tensor]:
    x, y = batch
    scores = net(x)
    return {"loss": nn.functional.cross_entropy(scores, y), "accuracy": (scores.argmax(1) == y).float().mean()}


def learn(net: nn.Module, data: list[tw.Tensor], epochs: int, resume: bool = False, **more: Any) -> dict[str, Any]:
    """Trains on the first two tensors, judges on the other two."""
    train, test = DataLoader(TensorDataset(*data[:2]), 64, shuffle=True), DataLoader(TensorDataset(*data[2:]), 100)
    optimizer = tw.optim.AdamW(net.parameters(), lr=6e-3, weight_decay=1e-2)
    schedule = tw.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, epochs * len(train))
    trainer = Trainer(net, optimizer, step, schedule=schedule, schedule_every="batch", **more)
    history = trainer.fit(train, epochs=epochs, resume=resume)
    return {"parameters": sum(p.numel() for p in net.parameters()), "train": history[-1]["accuracy"],
            "test": trainer.evaluate(test)["accuracy"], "seconds": sum(row["seconds"] for row in history),
            "weights": net.state_dict()}


def baseline(data: list[tw.Tensor]) -> float:
    """Held-out accuracy of logistic regression on the pixels, every second of them each way."""
    from sklearn.linear_model import LogisticRegression

    x, y, x_test, y_test = (t.numpy() for t in data)
    x, x_test = (t[:, :, ::2, ::2].reshape(len(t), -1) for t in (x, x_test))
    return float(LogisticRegression(C=1e-3, tol=1e-2).fit(x, y).score(x_test, y_test))


# --- what is where ---------------------------------------------------------------------------------------------------
def mosaic(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture (192, 192, 3) of a held-out piece of 96 x 48 of each photograph, and the class of each pixel."""
    rng, photos = np.random.default_rng(seed), list(photographs().values())
    order = rng.permutation(len(photos))
    pieces = [cut(photos[k], 96, 48, True, rng) for k in order]
    whole = [[np.full((96, 48), k) for k in order[row:row + 4]] for row in (0, 4)]
    return np.concatenate([np.concatenate(pieces[row:row + 4], 1) for row in (0, 4)]), np.block(whole)


def label(net: nn.Module, picture: np.ndarray) -> np.ndarray:
    """The class of each pixel of a picture of any size, by the fully convolutional net's maps, smoothed a little."""
    x = NORMAL(transforms.functional.to_tensor(picture))[None].to(next(net.parameters()).device)
    with tw.no_grad():
        scores = nn.functional.avg_pool2d(net.maps(x), 7, 1, 3, count_include_pad=False)
    scores = nn.functional.interpolate(scores, size=picture.shape[:2], mode="bilinear", align_corners=False)
    return scores[0].argmax(0).cpu().numpy()


def main() -> None:
    options = arguments(__doc__)
    study = Study(options, "cnns")
    print(f"{'net':18} {'parameters':>12} {'published':>12}  {'input':15} {'forward, one picture':>20}")
    for name in ALL if options.full else SOME:
        found = study.run(f"size {name}", lambda name=name: measure(name, options.device))
        published = f"{PUBLISHED[name]:,}" if name in PUBLISHED else "-"
        print(f"{name:18} {found['parameters']:12,} {published:>12}  {' x '.join(map(str, found['size'])):15} "
              f"{found['seconds'] * 1000:17.0f} ms")

    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), *((400, 100) if options.full else (150, 50)), options.seed)
        patches = [*read_folder(Path(folder) / "train"), *read_folder(Path(folder) / "test")]
    sets = {"photographs": (patches, 8, 10), "digits": (large_digits(options.seed), 10, 5)}
    lines = {name: study.run(f"line {name}", lambda data=data: baseline(data)) for name, (data, _, _) in sets.items()}
    results: dict[str, dict[str, Any]] = {}
    for title, (data, classes, epochs) in sets.items():
        results[title] = {}
        for name, make in NETS.items():
            def run(title=title, name=name, make=make, data=data, classes=classes, epochs=epochs) -> dict[str, Any]:
                print(f"{title}: {name}")
                return learn(make(classes).to(options.device), data, 4 * epochs if options.full else epochs,
                             checkpoint=study.file(f"{title} {name}"), resume=options.resume)

            results[title][name] = study.run(f"{title} {name}", run)
    print(f"\n{'held-out accuracy':25} {'parameters':>10} {'photographs':>12} {'digits':>8} {'seconds':>8}")
    print(f"{'logistic regression':25} {'':10} {lines['photographs']:12.3f} {lines['digits']:8.3f}")
    for name in NETS:
        first, second = (results[title][name] for title in sets)
        print(f"{name:25} {first['parameters']:10,} {first['test']:12.3f} {second['test']:8.3f} "
              f"{first['seconds'] + second['seconds']:8.1f}")

    net = FullyConvolutional(8).to(options.device)
    net.load_state_dict(results["photographs"]["fully convolutional"]["weights"])
    net.eval()
    pictures = [mosaic(options.seed + k) for k in range(10)]
    labels = [label(net, picture) for picture, _ in pictures]
    right = np.mean([(mine == truth).mean() for mine, (_, truth) in zip(labels, pictures, strict=True)])
    print(f"fully convolutional on ten mosaics of 192 x 192: {right:.3f} of the pixels right; chance {1 / 8:.3f}")

    figure, axes = plt.subplots(1, 4, figsize=(11, 3), width_ratios=[1.3, 0.8, 1, 1])
    rows = np.arange(len(NETS))
    for k, (title, color) in enumerate((("photographs", "#7799cc"), ("digits", "#cc9977"))):
        axes[0].barh(rows + 0.2 - 0.4 * k, [results[title][name]["test"] for name in NETS], 0.38, color=color,
                     label=title)
        axes[0].axvline(lines[title], color=color, ls="--", label=f"logistic regression {lines[title]:.2f}")
    axes[0].set_yticks(rows, NETS, fontsize=7)
    axes[0].set(xlim=(0.3, 1), title="held-out accuracy")
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.3, -0.1), ncol=2, frameon=False)
    names, (x, y) = list(photographs()), patches[2:]
    grid = np.concatenate([np.concatenate([t.permute(1, 2, 0).numpy() / 4 + 0.5 for t in x[y == k][:4]], 1)
                           for k in range(8)])
    axes[1].imshow(grid.clip(0, 1))
    axes[1].set(title="held-out patches", xticks=[])
    axes[1].set_yticks(16 + 32 * np.arange(8), names, fontsize=7)
    axes[2].imshow(pictures[0][0])
    axes[2].set(title="mosaic of held-out pieces", xticks=[], yticks=[])
    axes[3].imshow(labels[0], cmap="tab10", vmin=0, vmax=9)
    axes[3].contour(pictures[0][1], levels=np.arange(8) + 0.5, colors="k", linewidths=0.8)
    axes[3].set(title=f"fully convolutional: {(labels[0] == pictures[0][1]).mean():.2f} right", xticks=[], yticks=[])
    for axis in axes:
        axis.title.set_fontsize(9)
    save_picture(figure, options, "cnns")


if __name__ == "__main__":
    main()
