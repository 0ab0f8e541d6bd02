"""From a picture to words: captions with attention, and reports of as many sentences as there are findings.

    python examples/captions.py

A convolutional net reads the picture into places, a decoder writes and looks at them before each word (Vinyals et al.,
arXiv:1411.4555; Xu et al., arXiv:1502.03044). A report is written in two levels (Krause et al., arXiv:1611.06607; of
chest radiographs Jing et al., arXiv:1711.08195): one recurrent net gives each sentence its topic and says after which
to stop, another writes the words of a topic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, plt, save_picture
from generated import TERMS, WORDS, reports, scenes

import tilewright as tw
from tilewright import nn
from tilewright.models import Captioner, ReportWriter
from tilewright.nn import functional as F
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset

CHANNELS, SIDE = 48, 4


class Places(nn.Module):
    """Pictures (N, 1, 32, 32) to (N, CHANNELS, SIDE, SIDE): what is there, and, learned for each place, where it is."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 16, 32, CHANNELS)
        self.what = nn.Sequential(*(layer for i, o, stride in zip(sizes, sizes[1:], (2, 2, 2), strict=False) for layer
                                    in (nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())))
        self.where = nn.Parameter(0.5 * tw.randn(CHANNELS, SIDE, SIDE))

    def forward(self, x: tw.Tensor) -> tw.Tensor:
        return self.what(x) + self.where


class Reporter(nn.Module):
    """A picture's places, and a `ReportWriter` that looks at them."""

    def __init__(self, width: int = 32, hidden: int = 96):
        super().__init__()
        self.places, self.writer = Places(), ReportWriter(len(TERMS), CHANNELS, width, hidden)

    def memory(self, x: tw.Tensor) -> tw.Tensor:
        return self.places(x).flatten(2).transpose(1, 2)


def named(model: Captioner, batch: Any) -> tw.Tensor:
    """The surprise at each word after the right ones before it."""
    x, caption = batch
    return F.cross_entropy(model(x, caption[:, :-1])[0].flatten(0, 1), caption[:, 1:].flatten(), ignore_index=0)


def reported(model: Reporter, batch: Any) -> tw.Tensor:
    """The surprise at the words of the sentences that there are, and at which is the last."""
    x, tokens, count = batch
    said = model.writer(model.memory(x), tokens[..., :-1])
    words = F.cross_entropy(said.logits.flatten(0, 2), tokens[..., 1:].flatten(), ignore_index=0)
    number = tw.arange(1, tokens.shape[1] + 1, device=x.device)
    last = (number == count.unsqueeze(1)).to(x.dtype)
    there = (number <= count.unsqueeze(1)).to(x.dtype)
    return words + F.binary_cross_entropy_with_logits(said.stops, last, weight=there)


def train(model: nn.Module, step: Any, arrays: Any, test: Any, epochs: int, rate: float, resume: bool = False,
          **more: Any) -> list[float]:
    """Held-out losses after each epoch."""
    optimizer = tw.optim.Adam(model.parameters(), lr=rate)
    schedule = tw.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, rate / 10)
    data = DataLoader(TensorDataset(*(tw.tensor(a) for a in arrays)), 64, shuffle=True)
    rows = Trainer(model, optimizer, step, clip_norm=1.0, schedule=schedule, **more).fit(
        data, [tuple(tw.tensor(a) for a in test)], epochs=epochs, resume=resume)
    model.eval()
    return [row["val_loss"] for row in rows]


def sentence(tokens: Any, words: list[str]) -> str:
    """The words up to <stop>."""
    tokens = [int(t) for t in tokens if t != 1]
    return " ".join(words[t] for t in (tokens[:tokens.index(2)] if 2 in tokens else tokens) if t)


def otherwise(caption: str) -> str:
    """The same scene told from the other shape: of two that a picture has, a caption may begin with either."""
    for word, other in (("left of", "right of"), ("above", "below"), ("right of", "left of"), ("below", "above")):
        if f" {word} " in caption:
            return f" {other} ".join(reversed(caption.split(f" {word} ")))
    return caption


def nearest(x: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """The baseline's: for each picture the index of the one it is most like, point by point, of those learned from."""
    a, b = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    return (-2 * b @ a.T + (a**2).sum(1)).argmin(1)


def caption(n: int, epochs: int, rate: float = 4e-3, test: int = 500, device: str = "cpu",
            **more: Any) -> dict[str, Any]:
    """How many of `test` new scenes are told without a mistake, from either shape; some, and where it looked."""
    (x, words), (x_test, asked) = scenes(n), scenes(test, seed=1)
    model = Captioner(Places(), CHANNELS, len(WORDS), 32, 96).to(device)
    losses = train(model, named, (x, words), (x_test, asked), epochs, rate, **more)
    tokens, looked = model.caption(tw.tensor(x_test).to(device), 10)
    truth, said = ([sentence(row, WORDS) for row in rows] for rows in (asked, tokens.tolist()))
    copied = [sentence(words[i], WORDS) for i in nearest(x, x_test)]

    def right(texts: list[str]) -> float:
        return float(np.mean([text in (t, otherwise(t)) for text, t in zip(texts, truth, strict=True)]))

    return {"losses": losses, "exact": right(said), "nearest": right(copied), "said": said, "truth": truth,
            "looked": looked[:8].cpu()}


def report(n: int, epochs: int, rate: float = 4e-3, test: int = 500, device: str = "cpu",
           **more: Any) -> dict[str, Any]:
    """Of `test` new pictures, how many reports are right in each word, and how many sentences of theirs."""
    (x, tokens, count), (x_test, asked, asked_count) = reports(n), reports(test, seed=1)
    model = Reporter().to(device)
    losses = train(model, reported, (x, tokens, count), (x_test, asked, asked_count), epochs, rate, **more)
    with tw.no_grad():
        written = model.writer.write(model.memory(tw.tensor(x_test).to(device)), 4, 10)
    said = [[sentence(s, TERMS) for s in text] for text in written]
    truth, learned = ([[sentence(s, TERMS) for s in rows[:c]] for rows, c in zip(*both, strict=True)]
                      for both in ((asked, asked_count), (tokens, count)))
    copied = [learned[i] for i in nearest(x, x_test)]

    def scores(texts: list[list[str]]) -> dict[str, float]:
        both = list(zip(texts, truth, strict=True))
        shared = sum(len(set(a) & set(b)) for a, b in both)
        return {"exact": float(np.mean([a == b for a, b in both])),
                "length": float(np.mean([len(a) == len(b) for a, b in both])),
                "F1": 2 * shared / sum(len(a) + len(b) for a, b in both)}

    return {"losses": losses, "writer": scores(said), "nearest": scores(copied), "said": said, "truth": truth,
            "always no finding": float(np.mean([t == ["no finding"] for t in truth]))}


def main() -> None:
    options = arguments(__doc__)
    study, more = Study(options, "captions"), 2 if options.full else 1

    def run(part: str, function: Any, *sizes: int) -> Any:
        return study.run(part, lambda: function(*sizes, device=options.device, resume=options.resume,
                                                checkpoint=study.file(part)))

    told, written = run("captions", caption, 6000 * more, 12), run("reports", report, 2500 * more, 8)

    figure, axes = plt.subplots(3, 5, figsize=(9.2, 6.3))
    x = scenes(500, seed=1)[0]
    for row, i in zip(axes[:2], [k for k, said in enumerate(told["said"][:8]) if len(said.split()) > 6][:2],
                      strict=True):
        words = told["said"][i].split()
        row[0].imshow(x[i, 0], cmap="gray")
        row[0].set_title(" ".join(words[:4]) + "\n" + " ".join(words[4:]), fontsize=8)
        for axis, k in zip(row[1:], (1, 2, len(words) - 2, len(words) - 1), strict=True):
            axis.imshow(x[i, 0], cmap="gray", extent=(0, 1, 1, 0))
            axis.imshow(told["looked"][i, k].reshape(SIDE, SIDE), cmap="inferno", alpha=0.6, extent=(0, 1, 1, 0),
                        interpolation="bilinear")
            axis.set_title(f"before \"{words[k]}\"", fontsize=8)
    x = reports(500, seed=1)[0]
    for axis, picture, said, truth in zip(axes[2], x[:, 0], written["said"], written["truth"], strict=False):
        axis.imshow(picture, cmap="gray")
        axis.set_title("\n".join(said) + ("" if said == truth else "\n(wrong)"), fontsize=6, loc="left")
    for axis in axes.flat:
        axis.axis("off")
    save_picture(figure, options, "captions")
    print(f"captions without a mistake: {told['exact']:.3f}; that of the most similar picture: {told['nearest']:.3f}")
    for name in "writer", "nearest":
        score = written[name]
        print(f"reports, {name}: exact {score['exact']:.3f}, as many sentences {score['length']:.3f}, "
              f"F1 of sentences {score['F1']:.3f}")
    print(f"reports, always \"no finding\": {written['always no finding']:.3f}")


if __name__ == "__main__":
    main()
