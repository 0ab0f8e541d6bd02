"""What the examples share: their arguments, where pictures go, data from scikit-learn as tensors, and batches."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image
from tqdm import tqdm

import tilewright as tw

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OUTPUT = Path(__file__).parent / "output"
TALES = Path(__file__).parent / "text" / "grimm.txt"


def arguments(doc: str, **more: Any) -> argparse.Namespace:
    """--seed --device --full --resume --out, and --NAME of each further keyword with its default; seeds the engine."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--full", action="store_true", help="train longer, on more")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--out", type=Path, default=OUTPUT, help="the folder for pictures and checkpoints")
    for name, value in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tw.manual_seed(options.seed)
    np.random.seed(options.seed)
    return options


class Study:
    """Results of an example's parts, kept in NAME.results as each is done: --resume skips what is there.

    A part is seeded by itself, so what it gives does not depend on which others ran. Inside, `file(part)` is where a
    Trainer keeps its checkpoint, so that the part which Ctrl-C cut goes on after its last whole epoch; a part without
    one begins anew. Either way its curve is that of a run which nobody cut.
    """

    def __init__(self, options: argparse.Namespace, name: str):
        self.options, self.name, self.path = options, name, options.out / f"{name}.results"
        self.asked = {k: v for k, v in vars(options).items() if k not in ("resume", "out")}
        self.done: dict[str, Any] = {}
        if not options.resume:  # else a part that this run never reaches would be resumed from an older run's
            for old in options.out.glob(f"{name}-*.checkpoint"):
                old.unlink()
        if options.resume and self.path.exists():
            asked, self.done = tw.load(self.path)
            if asked != self.asked:
                raise SystemExit(f"--resume: {self.path} is of a run with {asked}, not {self.asked}")

    def file(self, part: str) -> Path:
        """The part's own checkpoint."""
        return self.options.out / f"{self.name}-{part}.checkpoint".replace(" ", "-")

    def run(self, part: str, function: Callable[[], Any]) -> Any:
        """What function() returns: tensors and plain values in dicts, lists or tuples."""
        if part not in self.done:
            tw.manual_seed(self.options.seed)
            np.random.seed(self.options.seed)
            try:
                self.done[part] = function()
            except KeyboardInterrupt:
                raise SystemExit(f"stopped in {part}; --resume goes on there") from None
            tw.save((self.asked, self.done), self.path)
        return self.done[part]


def bar(steps: Iterable[Any], what: str) -> Any:
    """The steps with a progress bar, which goes when they are done and stays away where nobody looks."""
    return tqdm(steps, desc=what, leave=False, disable=None)


def save_picture(figure: Any, options: argparse.Namespace, name: str) -> None:
    """Writes the figure to NAME.png and says where."""
    path = options.out / f"{name}.png"
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    with Image.open(path) as picture:  # 256 colours are enough, and a third of the bytes where there is noise
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"picture: {path}")


def show_images(figure_rows: list[np.ndarray], titles: list[str] | None = None, size: float = 1.0) -> Any:
    """A figure of rows of grey pictures, each row an array (k, H, W)."""
    columns = max(len(row) for row in figure_rows)
    figure, axes = plt.subplots(len(figure_rows), columns, figsize=(size * columns, size * len(figure_rows) + 0.3),
                                squeeze=False)
    for r, row in enumerate(figure_rows):
        for c in range(columns):
            axes[r][c].axis("off")
            if c < len(row):
                axes[r][c].imshow(row[c], cmap="gray")
        if titles is not None:
            axes[r][0].set_title(titles[r], fontsize=8, loc="left")
    return figure


def digits(test: float = 0.2, seed: int = 0) -> tuple[tuple[tw.Tensor, tw.Tensor], tuple[tw.Tensor, tw.Tensor]]:
    """scikit-learn's 1,797 digits as images (n, 1, 8, 8) in [0, 1] and classes (n,): for training, and held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    parts = train_test_split((data.images / 16).astype(np.float32)[:, None], data.target, test_size=test,
                             random_state=seed, stratify=data.target)
    x, x_test, y, y_test = (tw.tensor(part) for part in parts)
    return (x, y), (x_test, y_test)


def batches(*tensors: tw.Tensor, size: int = 64, shuffle: bool = True) -> Iterator[tuple[tw.Tensor, ...]]:
    """The tensors' rows together in batches, in random order."""
    order = tw.randperm(len(tensors[0])) if shuffle else tw.arange(len(tensors[0]))
    for rows in order.split(size):
        yield tuple(t[rows] for t in tensors)
