"""Trains a LeNet-style network on scikit-learn's 1,797 handwritten digits and tells how well it reads unseen ones.

    python examples/digits.py [--seed 0] [--epochs 80] [--out digits_out]

A fifth of the images is held out for the test, and an eighth of the rest decides when to stop: training ends when the
validation loss has not improved for `--patience` epochs, and the best epoch's weights are kept. Writes the weights
(`digits.safetensors`), the curves (`curves.png`) and the confusion matrix (`confusion.png`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn
from tilewright.utils.data import DataLoader, TensorDataset

matplotlib.use("Agg")
import matplotlib.pyplot as plt


class LeNet(nn.Module):
    """Two convolutions with pooling, then two dense layers (after LeCun et al., 1998), for 8 x 8 images."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),  # (N, 32, 8, 8)
            nn.MaxPool2d(2),                                                # (N, 32, 4, 4)
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(2),                                                # (N, 64, 2, 2)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))

    def forward(self, x):
        return self.head(self.features(x))


def shift(images: tw.Tensor, rng: np.random.Generator) -> tw.Tensor:
    """Moves each image by up to one pixel each way, at random: the digits are centred only roughly."""
    n = len(images)
    top, left = rng.integers(0, 3, (2, n, 1, 1))
    rows, columns = np.mgrid[0:8, 0:8]
    padded = F.pad(images, (1, 1, 1, 1))[:, 0]  # (N, 10, 10)
    return padded[np.arange(n)[:, None, None], top + rows, left + columns][:, None]


def evaluate(model: nn.Module, loader: DataLoader) -> tuple[float, float, np.ndarray]:
    """Mean loss, accuracy and predictions over a loader."""
    model.eval()
    loss, guesses, labels = 0.0, [], []
    with tw.no_grad():
        for x, y in loader:
            logits = model(x)
            loss += F.cross_entropy(logits, y, reduction="sum").item()
            guesses.append(logits.argmax(1))
            labels.append(y)
    guess, label = tw.cat(guesses), tw.cat(labels)
    return loss / len(label), (guess == label).float().mean().item(), guess.numpy()


def split(seed: int) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Training, validation and test sets: 70 %, 10 % and 20 % of the images, drawn by the seed."""
    digits = load_digits()
    x = tw.tensor(digits.images[:, None].astype(np.float32) / 16.0)  # (1797, 1, 8, 8), in [0, 1]
    y = tw.tensor(digits.target.astype(np.int64))
    order = np.random.default_rng(seed).permutation(len(y))
    test, valid = len(y) // 5, len(y) // 10
    parts = np.split(order, [test, test + valid])
    held_out, validation, train = (TensorDataset(x[p], y[p]) for p in parts)
    return train, validation, held_out


def train(seed: int, epochs: int, patience: int, out: Path) -> float:
    """One training run; returns the accuracy on the held-out fifth."""
    tw.manual_seed(seed)
    rng = np.random.default_rng(seed)
    train_set, valid_set, test_set = split(seed)
    loaders = [DataLoader(s, batch_size=n, shuffle=n < 256) for s, n in
               ((train_set, 64), (valid_set, 256), (test_set, 256))]
    model = LeNet()
    optimizer = tw.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = tw.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    history: dict[str, list[float]] = {
        "train loss (smoothed labels)": [], "validation loss": [], "validation accuracy": []}
    best, best_state, waited, start = float("inf"), model.state_dict(), 0, time.perf_counter()
    with tqdm(range(epochs), desc=f"seed {seed}", unit="epoch") as progress:
        for _ in progress:
            model.train()
            total = 0.0
            for x, y in loaders[0]:
                loss = F.cross_entropy(model(shift(x, rng)), y, label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(y)
            schedule.step()
            valid_loss, accuracy, _ = evaluate(model, loaders[1])
            for name, value in zip(history, (total / len(train_set), valid_loss, accuracy), strict=True):
                history[name].append(value)
            progress.set_postfix(loss=f"{valid_loss:.3f}", accuracy=f"{accuracy:.3f}")
            if valid_loss < best:
                best, waited = valid_loss, 0
                best_state = {k: v.clone() for k, v in model.state_dict().items()}
            else:
                waited += 1
                if waited == patience:
                    break
    seconds = time.perf_counter() - start
    model.load_state_dict(best_state)
    _, accuracy, guesses = evaluate(model, loaders[2])
    print(f"seed {seed}: test accuracy {accuracy:.2%} on {len(test_set)} held-out digits, "
          f"{len(history['validation loss'])} epochs in {seconds:.1f} s")

    out.mkdir(parents=True, exist_ok=True)
    tw.save(model.state_dict(), out / "digits.safetensors")
    plot_curves(history, out / "curves.png")
    plot_confusion(test_set.tensors[1].numpy(), guesses, accuracy, out / "confusion.png")
    return accuracy


def plot_curves(history: dict[str, list[float]], path: Path) -> None:
    figure, (losses, accuracy) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for name in ("train loss (smoothed labels)", "validation loss"):
        losses.semilogy(history[name], label=name)
    accuracy.plot(history["validation accuracy"], label="validation accuracy")
    losses.set_ylabel("cross-entropy")
    for axes in (losses, accuracy):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_confusion(labels: np.ndarray, guesses: np.ndarray, accuracy: float, path: Path) -> None:
    table = np.zeros((10, 10), int)
    np.add.at(table, (labels, guesses), 1)
    figure, axes = plt.subplots(figsize=(4.8, 4.4), layout="constrained")
    axes.imshow(np.sqrt(table), cmap="Blues")
    for i, j in zip(*np.nonzero(table), strict=True):
        axes.text(j, i, table[i, j], ha="center", va="center", color="white" if table[i, j] > 15 else "black")
    axes.set(xticks=range(10), yticks=range(10), xlabel="read as", ylabel="digit",
             title=f"{accuracy:.2%} of {len(labels)} held-out digits")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--patience", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("digits_out"))
    args = parser.parse_args()
    train(args.seed, args.epochs, args.patience, args.out)
    print(f"weights and pictures are in {args.out}/")


if __name__ == "__main__":
    main()
