"""A small BERT guesses masked words of Grimms' tales from both sides.

    python examples/bert.py

BERT is the Transformer's encoder alone: each word looks at all others, to the left and to the right. It learns from
text without labels by guessing words that were taken out: of those chosen 8 in 10 are masked, one is replaced at
random, one stays (Devlin et al., arXiv:1810.04805). The baselines count: the commonest word, the one commonest after
the left neighbour, and the likeliest between the two neighbours. A book is little: BERT read 3 billion words.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
from common import TALES, Study, arguments, plt, save_picture

import tilewright as tw
from tilewright import optim
from tilewright.models import BERT, BERTConfig, mask_tokens, sinusoids
from tilewright.nn import functional as F
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader

PAD, UNKNOWN, MASK, FIRST = range(4)  # then come the words
SHARE = 0.25  # of the words are to be guessed; the paper has 0.15, but this book is small
SENTENCES = ("the king had a daughter who was so [MASK] .", "she went [MASK] the forest and saw a little house .",
             "the youngest [MASK] said to his father , let me go .", "then the queen [MASK] very angry .",
             "[MASK] , dear mother , said the girl .", "they lived happily together for many [MASK] .")


def tokens(text: str) -> list[str]:
    return re.findall("[a-z]+|[.,;:!?]", text.lower().replace("'s ", " "))


def corpus(least: int = 5, length: int = 12) -> tuple[list[str], tw.Tensor, tw.Tensor]:
    """The vocabulary, and the text in rows of `length` words (n, length): the first nine tenths, and those held out."""
    words = tokens(TALES.read_text())
    vocabulary = ["[PAD]", "[UNK]", "[MASK]", *(word for word, n in Counter(words).most_common() if n >= least)]
    number = {word: i for i, word in enumerate(vocabulary)}
    ids = tw.tensor([number.get(word, UNKNOWN) for word in words])
    rows = ids[:len(ids) // length * length].view(-1, length)
    cut = len(rows) * 9 // 10
    return vocabulary, rows[:cut], rows[cut:]


def held_out(rows: tw.Tensor, size: int, seed: int = 99) -> list[tuple[tw.Tensor, tw.Tensor]]:
    """Each row with one word in seven masked, always the same ones, in batches: the changed rows and the targets."""
    chosen = (tw.rand(*rows.shape, generator=tw.Generator().manual_seed(seed)) < 0.15) & (rows != UNKNOWN)
    return list(zip(tw.where(chosen, MASK, rows).split(size), tw.where(chosen, rows, -100).split(size), strict=True))


def step(model: BERT, batch: Any) -> dict[str, tw.Tensor]:
    """The loss of the words to guess, how often the first guess is right, and one of ten. Training draws them anew."""
    if isinstance(batch, tw.Tensor):
        batch = mask_tokens(batch, MASK, model.config.vocab_size, batch == UNKNOWN, SHARE)
    changed, targets = batch
    there = targets >= 0
    logits, wanted = model(changed).logits[there], targets[there]
    guesses = logits.detach().topk(10)[1] == wanted.unsqueeze(1)
    return {"loss": F.cross_entropy(logits, wanted), "first": guesses[:, 0].float().mean(),
            "ten": guesses.any(1).float().mean()}


def learn(vocabulary: int, train: tw.Tensor, test: Any, epochs: int, width: int = 64, layers: int = 2,
          rate: float = 3e-3, device: str = "cpu", resume: bool = False, **more: Any) -> tuple[BERT, list[dict]]:
    """The trained model and a row an epoch."""
    model = BERT(BERTConfig(vocabulary, width, layers, 4, 4 * width, train.shape[1], dropout=0.0)).to(device)
    places = model.bert.embeddings.position_embeddings.weight  # from sinusoids: neighbours' differ alike everywhere
    places.data.copy_(places.std() * 2**0.5 * sinusoids(*places.shape))
    batches = DataLoader(train, batch_size=32, shuffle=True)
    optimizer = optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * len(batches), pct_start=0.2)
    trainer = Trainer(model, optimizer, step, schedule=schedule, schedule_every="batch", clip_norm=1.0, **more)
    return model, trainer.fit(batches, test, epochs=epochs, resume=resume)


def counted(train: tw.Tensor, test: Any, size: int) -> dict[str, tuple[float, float]]:
    """How often the first and one of ten guesses are right of three ways to count, over the held-out masked words."""
    text, single = train.numpy(), np.bincount(train.flatten().numpy(), minlength=size).astype(float)
    single[:MASK + 1] = 0
    pairs = np.zeros((size, size))
    np.add.at(pairs, (text[:, :-1].ravel(), text[:, 1:].ravel()), 1)
    pairs[:, :MASK + 1] = 0
    after = (pairs + 2 * single / single.sum()) / (pairs.sum(1, keepdims=True) + 2)       # p(word | left)
    before = (pairs + 0.01).T / (pairs.sum(0) + 0.01 * size)[:, None]  # (right, word): p(right | word)
    hits: dict[str, list] = {"commonest word": [], "after the left one": [], "between both": []}
    for changed, targets in test:
        rows, wanted = changed.numpy(), targets.numpy()
        for r, c in zip(*np.nonzero(wanted >= 0), strict=True):
            left = after[rows[r, c - 1]] if c else single / single.sum()
            right = before[rows[r, c + 1]] if c + 1 < rows.shape[1] else np.ones(size)
            for name, score in zip(hits, (single, left, left * right), strict=True):
                best = np.argpartition(-score, 10)[:10]
                hits[name].append((score.argmax() == wanted[r, c], wanted[r, c] in best))
    return {name: tuple(np.mean(found, 0).tolist()) for name, found in hits.items()}


@tw.no_grad()
def guess(model: BERT, vocabulary: list[str], sentence: str, k: int = 5) -> list[tuple[str, float]]:
    """The likeliest words at the [MASK] of a sentence, whose words stand apart, and their probabilities."""
    ids = [MASK if word == "[MASK]" else vocabulary.index(word) for word in sentence.split()]
    logits = model.eval()(tw.tensor([ids], device=next(model.parameters()).device)).logits[0, ids.index(MASK)]
    p, best = F.softmax(logits, 0).topk(k)
    return [(vocabulary[i], value) for i, value in zip(best.tolist(), p.tolist(), strict=True)]


def study_part(options: Any, file: Any, epochs: int) -> dict[str, Any]:
    vocabulary, train, test = corpus()
    model, history = learn(len(vocabulary), train, held_out(test, 64), epochs, device=options.device,
                           resume=options.resume, checkpoint=file)
    return {"history": history, "guesses": [guess(model, vocabulary, sentence) for sentence in SENTENCES],
            "parameters": sum(p.numel() for p in model.parameters())}


def main() -> None:
    options = arguments(__doc__)
    study, epochs = Study(options, "bert"), 60 if options.full else 20
    vocabulary, train, test = corpus()
    counts = study.run("counts", lambda: counted(train, held_out(test, 64), len(vocabulary)))
    run = study.run("BERT", lambda: study_part(options, study.file("BERT"), epochs))

    figure = plt.figure(figsize=(11.8, 5.6))
    grid = figure.add_gridspec(3, 3, width_ratios=[1.2, 1, 1])
    axis, colours = figure.add_subplot(grid[:, 0]), ("tab:blue", "tab:orange")
    for key, colour, label in zip(("first", "ten"), colours, ("first guess", "one of ten guesses"), strict=True):
        axis.plot([row[f"val_{key}"] for row in run["history"]], color=colour, label=f"BERT, {label}")
    for name, (first, ten) in counts.items():
        for value, colour in zip((first, ten), colours, strict=True):
            axis.axhline(value, color=colour, ls="--", lw=0.8)
            axis.annotate(name, (0, value + 0.004), fontsize=7, color=colour)
    axis.set(xlabel="epoch", title="masked words of held-out tales guessed right")
    axis.legend(fontsize=8, loc="center right")
    for i, (sentence, best) in enumerate(zip(SENTENCES, run["guesses"], strict=True)):
        axis = figure.add_subplot(grid[i // 2, 1 + i % 2])
        axis.barh([word for word, _ in best], [value for _, value in best], color="tab:green")
        axis.invert_yaxis()
        axis.set_title(sentence.replace("[MASK]", "____"), fontsize=8)
    save_picture(figure, options, "bert")
    last = run["history"][-1]
    print(f"BERT of {run['parameters']:,} parameters on held-out masked words: first guess right "
          f"{last['val_first']:.3f}, one of ten {last['val_ten']:.3f}, loss {last['val_loss']:.3f}")
    for name, (first, ten) in counts.items():
        print(f"counts, {name:20} first guess right {first:.3f}, one of ten {ten:.3f}")
    for sentence, best in zip(SENTENCES, run["guesses"], strict=True):
        print(f"{sentence:55} {', '.join(f'{word} {value:.2f}' for word, value in best)}")


if __name__ == "__main__":
    main()
