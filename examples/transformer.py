"""A Transformer told what to do with a row of symbols, reverse it or sort it, and an RNN told the same.

    python examples/transformer.py

The encoder lets every symbol look at every other, the decoder writes the answer, each step looking at what it wrote and
at the whole source: Attention is all you need (Vaswani et al., arXiv:1706.03762). An RNN encoder-decoder (Sutskever et
al., arXiv:1409.3215) must squeeze the row through one state. Attention itself knows no order: without the sinusoids
that mark positions a row is a bag of symbols, which can be sorted still but not reversed.
"""

from __future__ import annotations

from typing import Any

from common import Study, arguments, plt, save_picture

import tilewright as tw
from tilewright import nn, optim
from tilewright.models import SequenceTransformer
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset

PAD, START, STOP, REVERSE, SORT, FIRST = range(6)  # then come the symbols, as many as SYMBOLS
SYMBOLS, SHORTEST = 10, 3
NAMES = ["", "", "stop", "reverse", "sort", *"abcdefghij"]


def rows(n: int, longest: int, generator: tw.Generator | None = None) -> tuple[tw.Tensor, tw.Tensor]:
    """Sources (n, longest + 1), a task and its symbols, at least SHORTEST, and answers (n, longest + 2) up to STOP."""
    symbols = tw.randint(FIRST, FIRST + SYMBOLS, (n, longest), generator=generator)
    length = tw.randint(SHORTEST, longest + 1, (n, 1), generator=generator)
    task = tw.randint(REVERSE, SORT + 1, (n, 1), generator=generator)
    place = tw.arange(longest)
    there = place < length
    back = symbols.gather(1, (length - 1 - place).clamp(min=0))
    rising = tw.where(there, symbols, 99).sort(1)[0]
    answer = tw.where(there, tw.where(task == REVERSE, back, rising), tw.where(place == length, STOP, PAD))
    last = tw.where(length == longest, STOP, PAD)
    return (tw.cat([task, tw.where(there, symbols, PAD)], 1), tw.cat([tw.full((n, 1), START), answer, last], 1))


class RecurrentPair(nn.Module):
    """A GRU reads the source, a second one writes the answer from the first one's last state."""

    def __init__(self, words: int, width: int):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.reader, self.writer = (nn.GRU(width, width, batch_first=True) for _ in range(2))
        self.head = nn.Linear(width, words)

    def read(self, source: tw.Tensor) -> tw.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(source), (source != PAD).sum(1), batch_first=True,
                                                   enforce_sorted=False)
        return self.reader(packed)[1]

    def forward(self, source: tw.Tensor, tokens: tw.Tensor) -> tw.Tensor:
        return self.head(self.writer(self.embed(tokens), self.read(source))[0])

    @tw.no_grad()
    def write(self, source: tw.Tensor, most: int) -> tw.Tensor:
        state, token, written = self.read(source), tw.full((len(source), 1), START, device=source.device), []
        for _ in range(most):
            y, state = self.writer(self.embed(token), state)
            token = self.head(y).argmax(2)
            written.append(token)
        return tw.cat(written, 1)


def make(kind: str, width: int = 48) -> nn.Module:
    """The Transformer, with or without positions, or an RNN pair of about as many parameters."""
    words = FIRST + SYMBOLS
    if kind == "RNN":
        return RecurrentPair(words, 2 * width)
    model = SequenceTransformer(words, words, width, heads=4, layers=2, dropout=0.0, longest=32, start=START, stop=STOP)
    if kind == "no positions":
        model.positions.zero_()
    return model


def loss(model: nn.Module, batch: Any) -> tw.Tensor:
    """Cross-entropy of each token of the answer, told the source and the answer's tokens before it."""
    source, answer = batch
    return nn.functional.cross_entropy(model(source, answer[:, :-1]).flatten(0, 1), answer[:, 1:].flatten(),
                                       ignore_index=PAD)


def exact(model: nn.Module, source: tw.Tensor, answer: tw.Tensor) -> dict[str, float]:
    """Of each task, the share of rows whose whole answer, written token by token, is right."""
    model.eval()
    written, wanted = model.write(source, answer.shape[1] - 1), answer[:, 1:]
    written = nn.functional.pad(written, (0, wanted.shape[1] - written.shape[1]), value=PAD)
    right = ((written == wanted) | (wanted == PAD)).all(1).float()
    return {NAMES[task]: right[source[:, 0] == task].mean().item() for task in (REVERSE, SORT)}


def learn(kind: str, longest: int, samples: int, epochs: int, device: str = "cpu", rate: float = 3e-3,
          **more: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The trained model, its loss an epoch, its parameters and its exact matches on 500 new rows."""
    held = [t.to(device) for t in rows(500, longest, tw.Generator().manual_seed(99))]
    batches = DataLoader(TensorDataset(*rows(samples, longest)), batch_size=64, shuffle=True)
    model = make(kind).to(device)
    optimizer = optim.Adam(model.parameters(), lr=rate)
    steps = epochs * len(batches)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    resume = more.pop("resume", False)
    trainer = Trainer(model, optimizer, loss, schedule=schedule, schedule_every="batch", clip_norm=1.0, **more)
    history = trainer.fit(batches, epochs=epochs, resume=resume)
    return model, {"losses": [row["loss"] for row in history], "parameters": sum(p.numel() for p in model.parameters()),
                   **exact(model, *held)}


def study_part(options: Any, file: Any, kind: str, longest: int, epochs: int) -> dict[str, Any]:
    model, result = learn(kind, longest, 6400, epochs, options.device, resume=options.resume, checkpoint=file)
    if kind == "Transformer":
        source = rows(40, longest, tw.Generator().manual_seed(5))[0].to(options.device)
        picked = [int((source[:, 0] == task).nonzero()[0, 0]) for task in (REVERSE, SORT)]
        source, start = source[picked], tw.full((2, 1), START, device=source.device)
        tokens = tw.cat([start, model.write(source, longest + 1)], 1)
        looked = [weights for weights in model.looked(source, tokens[:, :-1]) if weights is not None]
        result |= {"source": source.cpu(), "tokens": tokens.cpu(), "looked": tw.stack(looked).cpu()}
    return result


def main() -> None:
    options = arguments(__doc__)
    study, longest = Study(options, "transformer"), 16
    parts = {"Transformer": 10, "no positions": 4, "RNN": 10}
    more = 3 if options.full else 1
    results = {kind: study.run(kind, lambda kind=kind, epochs=epochs: study_part(
        options, study.file(kind), kind, longest, more * epochs)) for kind, epochs in parts.items()}
    best = results["Transformer"]

    figure, axes = plt.subplots(1, 3, figsize=(11.8, 4.2))
    for i, axis in enumerate(axes[:2]):
        source = [NAMES[t] for t in best["source"][i].tolist() if t != PAD]
        written = [NAMES[t] for t in best["tokens"][i, 1:].tolist()][:len(source)]
        layer = best["looked"][:, i].max(-1)[0].mean(1).argmax().item()  # the layer that looks the most sharply
        axis.imshow(best["looked"][layer, i, :len(written), :len(source)].numpy(), cmap="magma", vmin=0)
        axis.set(xticks=range(len(source)), yticks=range(len(written)), xlabel="source", ylabel="written",
                 title=f"where it looks while it writes (layer {layer + 1})")
        axis.set_xticklabels(source, fontsize=7)
        axis.set_yticklabels(written, fontsize=7)
    for kind, result in results.items():
        axes[2].semilogy(result["losses"], label=f"{kind}: reverse {result['reverse']:.0%}, sort {result['sort']:.0%}")
    axes[2].set(xlabel="epoch of 100 batches", ylabel="training loss", title="whole rows right, of 500 new ones")
    axes[2].legend(fontsize=8)
    save_picture(figure, options, "transformer")
    for kind, result in results.items():
        print(f"{kind:13} of {result['parameters']:,} parameters: whole answers right of 500 new rows: "
              f"reverse {result['reverse']:.3f}, sort {result['sort']:.3f}")


if __name__ == "__main__":
    main()
