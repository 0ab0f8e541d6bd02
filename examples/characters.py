"""The characters of a text: what comes next, by an LSTM that reads it through and by counts, and what it writes.

    python examples/characters.py

A language model says of each next character how likely it is; its perplexity, exp of the mean of -log p, is among how
many it hesitates (Bengio et al. 2003 for words; Sutskever et al. 2011 and Graves, arXiv:1308.0850, for characters).
Counts of the n before need a table that grows as the alphabet to the n; a recurrent net needs a state. The text is too
long to unroll: gradients go back 64 steps, the state goes on (truncated backpropagation through time).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from common import TALES, Study, arguments, plt, save_picture
from recurrent import train

import tilewright as tw
from tilewright.models import RecurrentNet
from tilewright.nn import functional as F


def characters(text: str) -> tuple[np.ndarray, str]:
    """Numbers of the characters in an alphabet of those that occur ten times; others are the first, a space."""
    alphabet = " " + "".join(sorted(c for c in set(text) - {" "} if text.count(c) >= 10))
    return np.array([max(alphabet.find(c), 0) for c in text]), alphabet


class Stream:
    """A text as `rows` that run beside each other, in parts (x, y, whether the part is the first): the state which one
    part leaves is where the next begins."""

    def __init__(self, ids: np.ndarray, rows: int = 32, steps: int = 64):
        self.ids, self.steps = tw.tensor(ids[:(len(ids) - 1) // rows * rows + 1]), steps
        self.x, self.y = (t.reshape(rows, -1) for t in (self.ids[:-1], self.ids[1:]))

    def __len__(self) -> int:
        return -(-self.x.shape[1] // self.steps)

    def __iter__(self) -> Iterator[tuple[tw.Tensor, tw.Tensor, bool]]:
        for k in range(0, self.x.shape[1], self.steps):
            yield self.x[:, k:k + self.steps], self.y[:, k:k + self.steps], k == 0


class Surprise:
    """Trainer's step: mean -log p of the next character, with the state carried from part to part."""

    state: Any = None

    def __call__(self, model: RecurrentNet, batch: Any) -> tw.Tensor:
        x, y, first = batch
        logits, self.state = model.carry(x, None if first else self.state)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def counted(ids: np.ndarray, test: np.ndarray, n: int, size: int, weight: float = 5.0) -> np.ndarray:
    """Chances of each test character after the n - 1 before it, from counts; those of n - 1 stand for `weight` more."""
    below = np.full(len(test), 1 / size) if n == 0 else counted(ids, test, n - 1, size, weight)
    if n == 0:
        return below

    def keys(x: np.ndarray, k: int) -> np.ndarray:  # a number for the k characters that end at each place
        return sum(np.pad(x, (j, 0))[:len(x)].astype(np.int64) * size**j for j in range(k))

    def count(seen: np.ndarray, asked: np.ndarray) -> np.ndarray:
        values, times = np.unique(seen, return_counts=True)
        place = np.searchsorted(values, asked).clip(max=len(values) - 1)
        return np.where(values[place] == asked, times[place], 0)

    before = np.pad(keys(ids, n - 1), (1, 0))[:-1] if n > 1 else 0 * ids
    asked = np.pad(keys(test, n - 1), (1, 0))[:-1] if n > 1 else 0 * test
    return (count(keys(ids, n), keys(test, n)) + weight * below) / (count(before, asked) + weight)


def read(epochs: int, text: str, hidden: int = 192, rate: float = 4e-3, rows: int = 32, device: str = "cpu",
         **more: Any) -> dict[str, Any]:
    """Perplexities of the last tenth: of an LSTM after each epoch, of counts; and 300 characters that it writes."""
    ids, alphabet = characters(text)
    ids, test, size = ids[:-len(ids) // 10], ids[-len(ids) // 10:], len(alphabet)
    model = RecurrentNet("lstm", 32, hidden, size, every=True, vocabulary=size).to(device)
    losses = train(model, Surprise(), Stream(ids, rows), Stream(test, rows), epochs, rate, **more)
    counts = {f"{n}-gram": float(np.exp(-np.log(counted(ids, test, n, size)).mean())) for n in (1, 2, 3, 4, 5)}
    written = "\nOnce upon a time"
    c, state = tw.tensor([[alphabet.index(c) for c in written]], device=device), None
    with tw.no_grad():
        for _ in range(300):
            logits, state = model.carry(c, state)
            c = tw.multinomial(F.softmax(logits[:, -1] / 0.7, 1), 1)
            written += alphabet[int(c)]
    return {"counts": counts, "perplexity": np.exp(losses).tolist(), "written": written}


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "characters"), 20 if options.full else 7
    text = study.run("text", lambda: read(epochs, TALES.read_text(encoding="utf-8"), device=options.device,
                                          resume=options.resume, checkpoint=study.file("text")))
    figure, (a, b) = plt.subplots(1, 2, figsize=(11, 3.8))
    a.plot(range(1, len(text["perplexity"]) + 1), text["perplexity"], "o-", label="LSTM")
    for k, (name, value) in enumerate(list(text["counts"].items())[2:]):
        a.axhline(value, color=f"C{k + 1}", ls="--", label=f"{name} {value:.2f}")
    a.set(title="perplexity of the next character, held out", xlabel="epoch")
    a.legend(fontsize=8)
    b.axis("off")
    b.set_title("it writes", loc="left")
    b.text(0, 0.97, text["written"].strip(), wrap=True, va="top", family="serif", fontsize=11)
    save_picture(figure, options, "characters")
    print(f"perplexity of the LSTM {text['perplexity'][-1]:.2f}, of counts",
          ", ".join(f"{k} {v:.2f}" for k, v in text["counts"].items()))
    print(f"it writes: {text['written']!r}")


if __name__ == "__main__":
    main()
