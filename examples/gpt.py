"""A small GPT writes tales letter by letter, and is measured against counts of two, three and four letters.

    python examples/gpt.py

A language model says what comes next. GPT is the Transformer's decoder alone: at every place it guesses the next token,
and a causal mask keeps it from looking there (Radford et al., 2018 and 2019). So one pass over a window trains all its
places. When it writes, the keys and values of what stands there already never change: kept in a cache, each new letter
costs one place's work instead of the whole window's. Counts of letters with back-off (Shannon, 1948) are the baseline.
"""

from __future__ import annotations

import textwrap
import time
from typing import Any

import numpy as np
from characters import counted
from common import TALES, Study, arguments, plt, save_picture

import tilewright as tw
from tilewright import optim
from tilewright.models import GPT, GPTConfig
from tilewright.nn import functional as F
from tilewright.train import Trainer

BEGIN = "Once upon a time"


def letters() -> tuple[str, tw.Tensor, tw.Tensor]:
    """The alphabet, the text's first nine tenths as numbers of letters, and its last tenth, which is held out."""
    text = TALES.read_text()
    alphabet = "".join(sorted(set(text)))
    ids = tw.tensor([alphabet.index(letter) for letter in text])
    cut = len(text) * 9 // 10
    return alphabet, ids[:cut], ids[cut:]


class Windows:
    """As many batches of windows from anywhere in a text, drawn anew in each pass, and the letters one place on."""

    def __init__(self, ids: tw.Tensor, window: int, size: int, batches: int):
        self.ids, self.window, self.size, self.batches = ids, window, size, batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Any:
        place = tw.arange(self.window + 1)
        for _ in range(self.batches):
            rows = self.ids[tw.randint(len(self.ids) - self.window, (self.size, 1)) + place]
            yield rows[:, :-1], rows[:, 1:]


def held_out(ids: tw.Tensor, window: int) -> list[tuple[tw.Tensor, tw.Tensor]]:
    """Windows that overlap by half; only their second halves count, so that each guess has half a window before it."""
    rows = ids.unfold(0, window + 1, window // 2)
    targets = rows[:, 1:].clone()
    targets[:, :window // 2] = -100
    return list(zip(rows[:, :-1].split(64), targets.split(64), strict=True))


def learn(size: int, train: Any, test: Any, window: int, epochs: int, width: int = 96, layers: int = 3, heads: int = 4,
          rate: float = 3e-3, device: str = "cpu", resume: bool = False, **more: Any) -> tuple[GPT, list[dict]]:
    """The trained model and a row an epoch with its training and held-out loss a letter."""
    model = GPT(GPTConfig(size, window, width, layers, heads, dropout=0.0)).to(device)
    optimizer = optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * len(train), pct_start=0.1)
    trainer = Trainer(model, optimizer, lambda m, batch: m(*batch)[1], schedule=schedule, schedule_every="batch",
                      clip_norm=1.0, **more)
    return model, trainer.fit(train, test, epochs=epochs, resume=resume)


@tw.no_grad()
def without_cache(model: GPT, ids: tw.Tensor, n: int) -> tw.Tensor:
    """The likeliest n letters after ids (B, T), each from all the letters before it anew."""
    for _ in range(n):
        ids = tw.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], 1)
    return ids


def cache_study(model: GPT, ids: tw.Tensor, lengths: list[int]) -> dict[str, Any]:
    """Seconds with and without the cache for so many new letters, and whether they are the same letters."""
    result: dict[str, Any] = {"lengths": lengths, "cache": [], "anew": [], "same": True}
    model.eval()
    for n in lengths:
        begin = time.perf_counter()
        cached = model.generate(ids, n, temperature=0)
        middle = time.perf_counter()
        anew = without_cache(model, ids, n)
        result["anew"].append(time.perf_counter() - middle)
        result["cache"].append(middle - begin)
        result["same"] &= tw.equal(cached, anew)
    return result


def study_part(options: Any, file: Any, epochs: int, window: int = 64) -> dict[str, Any]:
    alphabet, train, test = letters()
    tests = [tuple(t.to(options.device) for t in batch) for batch in held_out(test, window)]
    model, history = learn(len(alphabet), Windows(train, window, 16, 100), tests[::3], window, epochs,
                           device=options.device, resume=options.resume, checkpoint=file)
    trainer = Trainer(model, None, lambda m, batch: m(*batch)[1])
    begin = tw.tensor([[alphabet.index(letter) for letter in BEGIN]], device=options.device)
    samples = {heat: "".join(alphabet[i] for i in model.generate(begin, 300, heat)[0].tolist()) for heat in (0.5, 0.8)}
    with tw.no_grad():
        logits = model.eval()(tests[0][0][:1])[0]
        surprise = F.cross_entropy(logits, test[1:window + 1].to(options.device), reduction="none").cpu()
    return {"history": history, "loss": trainer.evaluate(tests)["loss"], "samples": samples, "surprise": surprise,
            "cache": cache_study(model, begin[:, -4:].repeat(8, 1), [8, 20, 40, 60]),
            "parameters": sum(p.numel() for p in model.parameters())}


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "gpt"), 60 if options.full else 14
    alphabet, train, test = letters()
    counts = study.run("counts", lambda: [
        float(-np.log(counted(train.numpy(), test.numpy(), n, len(alphabet), 4.0)).mean()) for n in range(1, 5)])
    run = study.run("GPT", lambda: study_part(options, study.file("GPT"), epochs))

    figure, axes = plt.subplots(2, 2, figsize=(11.8, 6.2))
    axes[0, 0].plot([row["loss"] for row in run["history"]], label="GPT, training")
    axes[0, 0].plot([row["val_loss"] for row in run["history"]], label="GPT, held out")
    for n, loss in enumerate(counts):
        axes[0, 0].axhline(loss, ls="--", lw=0.8, color="grey")
        axes[0, 0].annotate(f"counts of {n + 1}", (0, loss + 0.02), fontsize=7, color="grey")
    axes[0, 0].set(xlabel="epoch of 100 batches", title="loss a letter")
    axes[0, 0].legend(fontsize=8)
    shown = test[1:65].tolist()
    axes[0, 1].bar(range(64), run["surprise"].numpy(), color="tab:red")
    axes[0, 1].set(title="surprise at each letter of a held-out line", xticks=range(64))
    axes[0, 1].set_xticklabels([alphabet[i] for i in shown], fontsize=7)
    study_of = run["cache"]
    for name, label in (("anew", "all letters anew"), ("cache", "keys and values kept")):
        axes[1, 0].plot(study_of["lengths"], study_of[name], "o-", label=label)
    axes[1, 0].set(xlabel="letters written, 8 texts at once", ylabel="seconds", title="what the cache saves")
    axes[1, 0].legend(fontsize=8)
    axes[1, 1].axis("off")
    text = "".join(letter if letter != "\n" else " / " for letter in run["samples"][0.5])
    lines = textwrap.fill(text, 66)
    axes[1, 1].text(0, 0.95, f"It writes, at temperature 0.5:\n\n{lines}", va="top", family="monospace", fontsize=8)
    save_picture(figure, options, "gpt")
    print(f"GPT of {run['parameters']:,} parameters: {run['loss']:.3f} a held-out letter, perplexity "
          f"{np.exp(run['loss']):.2f}; counts of " + ", ".join(
              f"{n + 1} letters {loss:.3f} ({np.exp(loss):.2f})" for n, loss in enumerate(counts)))
    print(f"60 letters of 8 texts: {study_of['cache'][-1]:.3f} s with the cache, {study_of['anew'][-1]:.3f} s without; "
          f"the same letters: {study_of['same']}")
    print(f"at temperature 0.8: {run['samples'][0.8]}")


if __name__ == "__main__":
    main()
