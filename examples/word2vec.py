"""Word vectors from a text's neighbourhoods alone: skip-gram and CBOW on Grimms' tales.

    python examples/word2vec.py

A word is known by the company it keeps. word2vec gives each word a vector such that the words around it can be told
from random ones (negative sampling): skip-gram asks each neighbour of the word, CBOW the mean of its neighbours for the
word (Mikolov et al., arXiv:1301.3781 and 1310.4546). Words used alike come to lie close together, and a difference such
as king - man is like queen - woman. Levy and Goldberg (2014) showed that this factors a matrix of counts, the pointwise
mutual information: its singular vectors are the baseline. 100,000 words are few: the papers had a billion.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
from common import TALES, Study, arguments, plt, save_picture

import tilewright as tw
from tilewright import optim
from tilewright.models import Word2Vec, windows
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset

PAIRS = {
    "he and she": "he she, him her, himself herself, king queen, prince princess, man woman, brother sister, "
                  "father mother, son daughter, boy girl, brothers sisters, sons daughters, husband wife",
    "one and many": "day days, year years, hand hands, foot feet, brother brothers, sister sisters, son sons, "
                    "child children, man men, tree trees, bird birds, horse horses, apple apples, word words, "
                    "thing things, head heads, leg legs, door doors, stone stones, raven ravens, girl girls",
    "now and then": "is was, are were, has had, do did, come came, go went, see saw, take took, give gave, say said, "
                    "know knew, think thought, stand stood, sit sat, run ran, fall fell, eat ate, bring brought, "
                    "find found, hear heard, begin began, shall should, will would, can could, may might, get got",
    "opposites": "up down, in out, old young, good bad, great little, day night, black white, rich poor, first last, "
                 "before after, morning evening, here there, come go, give take, eldest youngest, alive dead",
}
GROUPS = {"people": "king queen prince princess man woman boy girl maiden tailor miller soldier servant",
          "animals": "wolf fox bear cat dog mouse bird horse raven frog sparrow ass",
          "body": "head hand hands eyes feet hair heart neck ears mouth",
          "where": "house castle forest wood garden kitchen room cellar palace church",
          "past": "said cried thought answered went came saw took gave found",
          "would": "will would shall should can could may might must"}
SHOWN = "king", "forest", "said", "gold", "wolf", "beautiful"


def corpus(least: int = 5) -> tuple[list[str], np.ndarray]:
    """The words that occur so often, most frequent first, and the text as their numbers."""
    text = TALES.read_text().lower()
    words = re.findall("[a-z]+", text.replace("'s ", " "))
    vocabulary = [word for word, n in Counter(words).most_common() if n >= least]
    number = {word: i for i, word in enumerate(vocabulary)}
    return vocabulary, np.array([number[word] for word in words if word in number])


def examples(kind: str, ids: np.ndarray, window: int) -> TensorDataset:
    """What is given and what is wanted: skip-gram's pairs (N,) and (N,), CBOW's contexts (N, 2 window) and centres."""
    centres, contexts = windows(ids, window)
    if kind == "CBOW":
        return TensorDataset(tw.tensor(contexts), tw.tensor(centres))
    there = contexts >= 0
    return TensorDataset(tw.tensor(np.repeat(centres, 2 * window)[there.ravel()]), tw.tensor(contexts[there]))


def train(kind: str, ids: np.ndarray, epochs: int, width: int = 64, window: int = 2, negatives: int = 5,
          rate: float = 1e-2, device: str = "cpu", resume: bool = False, **more: Any) -> Word2Vec:
    """Vectors of one kind, trained for epochs over the whole text. In so small a text no frequent word is left out."""
    model = Word2Vec(np.bincount(ids).tolist(), width, negatives).to(device)
    batches = DataLoader(examples(kind, ids, window), batch_size=256 if kind == "CBOW" else 1024, shuffle=True)
    optimizer = optim.Adam(model.parameters(), lr=rate)
    schedule = optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, epochs)
    trainer = Trainer(model, optimizer, lambda m, batch: m(*batch), schedule=schedule, **more)
    trainer.fit(batches, epochs=epochs, resume=resume)
    return model


def factored(ids: np.ndarray, width: int = 64, window: int = 2) -> np.ndarray:
    """Singular vectors (words, width) of max(0, log p(a, b) / p(a) p(b)), times the roots of their values."""
    centres, contexts = windows(ids, window)
    there, n = contexts >= 0, int(ids.max()) + 1
    counts = np.zeros((n, n))
    np.add.at(counts, (np.repeat(centres, 2 * window)[there.ravel()], contexts[there]), 1)
    odds = counts.sum(0) ** 0.75  # as the negatives are drawn
    with np.errstate(divide="ignore"):
        information = np.log(counts / counts.sum(1, keepdims=True) / (odds / odds.sum()))
    u, s, _ = np.linalg.svd(np.maximum(information, 0))
    return u[:, :width] * np.sqrt(s[:width])


def measured(vectors: np.ndarray, vocabulary: list[str], k: int = 10) -> dict[str, float]:
    """Of each list of PAIRS, how often a word's partner is among the k nearest; and of analogies a : b = c : d between
    two pairs of one of the first three lists, how often d is among the k nearest to b - a + c."""
    number = {word: i for i, word in enumerate(vocabulary)}
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near, result, solved = unit @ unit.T, {}, []
    np.fill_diagonal(near, -2)
    for name, listed in PAIRS.items():
        pairs = [[number[word] for word in pair.split()] for pair in listed.split(", ")]
        both = pairs + [pair[::-1] for pair in pairs]
        result[name] = float(np.mean([(near[a] > near[a, b]).sum() < k for a, b in both]))
        for a, b in pairs if name != "opposites" else []:
            for c, d in pairs:
                if len({a, b, c, d}) == 4:
                    score = unit @ (unit[b] - unit[a] + unit[c])
                    score[[a, b, c]] = -9
                    solved.append((score > score[d]).sum() < k)
    return result | {"analogies": float(np.mean(solved))}


def flat(vectors: np.ndarray, rows: list[int]) -> np.ndarray:
    """These rows, of length 1, on the plane in which they differ most."""
    x = vectors[rows] / np.linalg.norm(vectors[rows], axis=1, keepdims=True)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    return u[:, :2] * s[:2]


def draw(axes: Any, vectors: np.ndarray, number: dict[str, int], scores: dict[str, dict[str, float]]) -> None:
    for (group, words), colour in zip(GROUPS.items(), plt.cm.Dark2.colors, strict=False):
        every = [word for listed in GROUPS.values() for word in listed.split()]
        places = dict(zip(every, flat(vectors, [number[word] for word in every]), strict=True))
        for i, word in enumerate(words.split()):
            axes[0].scatter(*places[word], s=6, color=colour, label=group if not i else None)
            axes[0].annotate(word, places[word], fontsize=6, color=colour)
    axes[0].set_title("skip-gram's vectors on a plane")
    pairs = [pair.split() for pair in PAIRS["he and she"].split(", ")]
    places = flat(vectors, [number[word] for pair in pairs for word in pair])
    for pair, (a, b) in zip(pairs, places.reshape(-1, 2, 2), strict=True):
        axes[1].annotate("", b, a, arrowprops={"arrowstyle": "->", "color": "grey", "lw": 0.8})
        for word, place, colour in zip(pair, (a, b), ("tab:blue", "tab:red"), strict=True):
            axes[1].scatter(*place, s=8, color=colour)
            axes[1].annotate(word, place, fontsize=7, color=colour)
    axes[1].set_title("from him to her")
    for i, (name, row) in enumerate(scores.items()):
        axes[2].barh(np.arange(len(row)) + 0.2 * i, list(row.values()), 0.2, label=name)
    axes[2].set(title="partner among the 10 nearest", yticks=np.arange(len(row)) + 0.3, yticklabels=list(row))
    axes[2].invert_yaxis()
    for axis in (axes[0], axes[2]):
        axis.legend(fontsize=7)
    for axis in axes[:2]:
        axis.set(xticks=[], yticks=[])


def main() -> None:
    options = arguments(__doc__)
    study, (vocabulary, ids) = Study(options, "word2vec"), corpus()
    number = {word: i for i, word in enumerate(vocabulary)}

    def vectors(kind: str) -> tw.Tensor:
        epochs = (6 if kind == "skip-gram" else 10) * (4 if options.full else 1)
        model = train(kind, ids, epochs, device=options.device, resume=options.resume, checkpoint=study.file(kind))
        return model.centre.weight.detach().cpu()

    kinds = {kind: study.run(kind, lambda kind=kind: vectors(kind)).numpy() for kind in ("skip-gram", "CBOW")}
    kinds["SVD of PPMI"] = study.run("SVD", lambda: tw.tensor(factored(ids))).numpy()
    kinds["random"] = study.run("random", lambda: tw.randn(len(vocabulary), 64)).numpy()
    scores = {kind: measured(table, vocabulary) for kind, table in kinds.items()}

    figure, axes = plt.subplots(1, 3, figsize=(11.8, 4.6))
    draw(axes, kinds["skip-gram"], number, scores)
    save_picture(figure, options, "word2vec")
    model = Word2Vec(np.bincount(ids).tolist())
    for kind in ("skip-gram", "CBOW"):
        model.centre.weight.data.copy_(tw.tensor(kinds[kind]))
        for word in SHOWN:
            near = model.nearest(model.centre.weight[number[word]], 6, [number[word]])
            print(f"{kind:10} {word:10} is near {', '.join(vocabulary[i] for i, _ in near)}")
        best = model.analogy(*(number[word] for word in ("man", "woman", "king")), k=3)
        print(f"{kind:10} man is to woman as king to {', '.join(vocabulary[i] for i, _ in best)}")
    print(f"{'partner among the 10 nearest of ' + str(len(vocabulary)):40}" + "".join(f"{name:>14}" for name in scores))
    for name in scores["random"]:
        print(f"{name:40}" + "".join(f"{row[name]:14.1%}" for row in scores.values()))


if __name__ == "__main__":
    main()
