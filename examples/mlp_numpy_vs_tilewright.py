"""The same small network twice: backpropagation by hand in NumPy, and the ten-line training loop in tilewright.

    python examples/mlp_numpy_vs_tilewright.py

Both start from the same weights and see the same batches of scikit-learn's digits, so their losses must agree: the
script prints both side by side, and fails if they part.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn

STEPS, BATCH, RATE = 300, 64, 0.5


def data() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Images (1797, 64) in [0, 1], labels, and the indices of each step's batch."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, len(digits.target), BATCH) for _ in range(STEPS)]
    return (digits.data / 16.0).astype(np.float32), digits.target.astype(np.int64), batches


def by_hand(x: np.ndarray, y: np.ndarray, batches: list[np.ndarray], weights: list[np.ndarray]) -> list[float]:
    """One hidden layer, ReLU, softmax cross-entropy, SGD: every gradient written out."""
    w1, b1, w2, b2 = (w.copy() for w in weights)
    losses = []
    for rows in batches:
        xb, yb = x[rows], y[rows]
        h = np.maximum(xb @ w1.T + b1, 0)                       # (64, 128)
        z = h @ w2.T + b2                                       # (64, 10)
        z -= z.max(1, keepdims=True)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        losses.append(float(-np.log(p[np.arange(BATCH), yb]).mean()))
        dz = p
        dz[np.arange(BATCH), yb] -= 1                           # d loss / d z = (p - one-hot) / batch
        dz /= BATCH
        dh = (dz @ w2) * (h > 0)
        for w, dw in ((w1, dh.T @ xb), (b1, dh.sum(0)), (w2, dz.T @ h), (b2, dz.sum(0))):
            w -= RATE * dw
    return losses


def with_tilewright(x: np.ndarray, y: np.ndarray, batches: list[np.ndarray], model: nn.Module) -> list[float]:
    """The same, with autograd: this is the loop that the README prints."""
    images, labels, losses = tw.tensor(x), tw.tensor(y), []
    optimizer = tw.optim.SGD(model.parameters(), lr=RATE)
    for rows in batches:
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    tw.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    x, y, batches = data()
    weights = [p.detach().numpy().copy() for p in model.parameters()]
    ours, theirs = with_tilewright(x, y, batches, model), by_hand(x, y, batches, weights)
    print("step   NumPy by hand   tilewright")
    for step in (*range(0, STEPS, 50), STEPS - 1):
        print(f"{step:4d}   {theirs[step]:13.5f}   {ours[step]:10.5f}")
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    if apart > 1e-3:
        raise SystemExit(f"the losses part by {apart:.2e}")
    with tw.no_grad():
        accuracy = (model(tw.tensor(x)).argmax(1) == tw.tensor(y)).float().mean().item()
    print(f"largest difference {apart:.1e}; accuracy on the training digits {accuracy:.1%}")


if __name__ == "__main__":
    main()
