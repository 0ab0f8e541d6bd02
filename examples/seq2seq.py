"""Sequence to sequence: dates in six ways of writing to one, with attention and without, and where it looks.

    python examples/seq2seq.py

An encoder reads the source, a decoder writes the target a token at a time, told the right ones before it in training
and its own in use (Sutskever et al., arXiv:1409.3215). Without attention all that it knows of the source is one
vector of fixed size; with attention (Bahdanau et al., arXiv:1409.0473) it looks, before each token, at the places
that it needs, and learns an alignment which nobody told it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, plt, save_picture
from generated import CHARACTERS, dates

import tilewright as tw
from tilewright.models import Seq2Seq
from tilewright.models.seq2seq import AdditiveAttention
from tilewright.nn import functional as F
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset


class Everywhere(AdditiveAttention):
    """No attention: the mean over the source, the same before each token."""

    def forward(self, query: tw.Tensor, memory: tw.Tensor, mask: tw.Tensor | None = None,
                keys: tw.Tensor | None = None) -> tuple[tw.Tensor, tw.Tensor]:
        there = tw.ones_like(memory[..., 0]) if mask is None else mask.to(memory.dtype)
        weights = there / there.sum(1, keepdim=True)
        return (weights.unsqueeze(1) @ memory).squeeze(1), weights


def translator(attention: bool, width: int = 32, hidden: int = 64) -> Seq2Seq:
    model = Seq2Seq(len(CHARACTERS), len(CHARACTERS), width, hidden)
    if not attention:
        model.decoder.attention = Everywhere(hidden, 2 * hidden, hidden)
    return model


def taught(model: Seq2Seq, batch: Any) -> tw.Tensor:
    """The surprise at each token after the right ones before it (teacher forcing)."""
    source, target = batch
    return F.cross_entropy(model(source, target[:, :-1])[0].flatten(0, 1), target[:, 1:].flatten())


def exact(model: Seq2Seq, source: tw.Tensor, target: tw.Tensor) -> float:
    """The part of dates that the model writes without a mistake, told nothing."""
    written = model.translate(source, target.shape[1] - 1)[0]
    written = F.pad(written, (0, target.shape[1] - 1 - written.shape[1]), value=2)
    return (written == target[:, 1:]).all(1).float().mean().item()


def held_out(n: int, learned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Days that are not among the learned ones, in any way of writing."""
    source, target = dates(n, seed=1)
    fresh = ~(target[:, None] == np.unique(learned, axis=0)).all(2).any(1)
    return source[fresh], target[fresh]


def learn(attention: bool, n: int, epochs: int, rate: float = 5e-3, device: str = "cpu", resume: bool = False,
          **more: Any) -> dict[str, Any]:
    """Held-out losses after each epoch, the exact matches, and for some dates what it wrote and where it looked."""
    source, target = dates(n)
    test = [tw.tensor(a).to(device) for a in held_out(1000, target)]
    data = DataLoader(TensorDataset(tw.tensor(source), tw.tensor(target)), 64, shuffle=True)
    model = translator(attention).to(device)
    optimizer = tw.optim.Adam(model.parameters(), lr=rate)
    schedule = tw.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, rate / 10)
    trainer = Trainer(model, optimizer, taught, clip_norm=1.0, schedule=schedule, **more)
    rows = trainer.fit(data, [tuple(test)], epochs=epochs, resume=resume)
    model.eval()
    written, looked = model.translate(test[0][:40], 11)
    return {"losses": [row["val_loss"] for row in rows], "exact": exact(model, *test),
            "source": test[0][:40].cpu(), "written": written.cpu(), "looked": looked.cpu()}


def text(tokens: Any) -> list[str]:
    return [CHARACTERS[k] if k > 2 else "·" for k in tokens]


def main() -> None:
    options = arguments(__doc__)
    study = Study(options, "seq2seq")
    sizes = (250, 500, 1000, 2000, 4000, 8000) if options.full else (250, 500, 1000, 2000)
    runs = {}
    for attention in (True, False):
        for n in sizes:
            part = f"{n} dates {'with' if attention else 'without'} attention"
            runs[attention, n] = study.run(part, lambda part=part, attention=attention, n=n: learn(
                attention, n, 12000 // n + 6, device=options.device, resume=options.resume,
                checkpoint=study.file(part)))
    best = runs[True, sizes[-1]]

    figure, axes = plt.subplots(1, 4, figsize=(11.8, 4.6), width_ratios=(1.3, 1, 1, 1))
    for attention, name in ((True, "with attention"), (False, "without")):
        axes[0].plot(sizes, [runs[attention, n]["exact"] for n in sizes], "o-", label=name)
    axes[0].set(xscale="log", xlabel="dates learned from", ylim=(0, 1.02), title="new days without a mistake")
    axes[0].set_xticks(sizes, [str(n) for n in sizes])
    axes[0].minorticks_off()
    axes[0].legend()
    lengths = (best["source"] != 0).sum(1).tolist()
    chosen = sorted({text(best["source"][i].tolist()[:5])[0] + str(n): i for i, n in enumerate(lengths)}.values(),
                    key=lambda i: -lengths[i])
    for axis, i in zip(axes[1:], (chosen[0], chosen[len(chosen) // 2], chosen[-1]), strict=True):
        source = text(best["source"][i].tolist()[:lengths[i]])
        axis.imshow(best["looked"][i, :10, :lengths[i]].T, cmap="viridis", aspect="auto")
        axis.set_yticks(range(len(source)), source, fontsize=8)
        axis.set_xticks(range(10), text(best["written"][i, :10].tolist()), fontsize=8)
        axis.set_title("where it looked", fontsize=9)
    save_picture(figure, options, "seq2seq")
    for n in sizes:
        print(f"{n} dates learned: exact with attention {runs[True, n]['exact']:.3f}, without "
              f"{runs[False, n]['exact']:.3f}")
    for i in range(5):
        print(f"  {''.join(text(best['source'][i].tolist()[:lengths[i]])):20s} -> "
              f"{''.join(text(best['written'][i].tolist()[:10]))}")


if __name__ == "__main__":
    main()
