"""word2vec, Mikolov et al. (arXiv:1301.3781, arXiv:1310.4546): skip-gram and CBOW with negative sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tilewright as tw
from tilewright import nn
from tilewright.nn import functional as F
from tilewright.tensor import Tensor

__all__ = ["Word2Vec", "windows"]


class Word2Vec(nn.Module):
    """Two vectors a word, as a centre and as a context; counts (vocabulary,) give the negatives' odds, counts^0.75.

    Called with skip-gram pairs, centres (N,) and contexts (N,), or for CBOW with contexts (N, 2 window), -1 where the
    text ends, and centres (N,): the loss -log s(u_o . v) - sum over `negatives` random words k of log s(-u_k . v), mean
    over N. v is the centre's vector, or the mean of the contexts'.
    """

    def __init__(self, counts: Sequence[int], width: int = 64, negatives: int = 5):
        super().__init__()
        self.negatives = negatives
        self.centre, self.context = nn.Embedding(len(counts), width), nn.Embedding(len(counts), width)
        nn.init.uniform_(self.centre.weight, -0.5 / width, 0.5 / width)
        nn.init.zeros_(self.context.weight)
        odds = np.cumsum(np.asarray(counts, np.float64) ** 0.75)  # a word has its share of a table, as in word2vec.c
        place = (np.arange(1 << 17) + 0.5) / (1 << 17) * odds[-1]
        self.register_buffer("table", tw.tensor(np.searchsorted(odds, place)), persistent=False)

    def forward(self, given: Tensor, wanted: Tensor) -> Tensor:
        if given.ndim == 1:
            v = self.centre(given)
        else:
            there = (given >= 0).unsqueeze(-1).to(self.centre.weight.dtype)
            v = (self.centre(given.clamp(min=0)) * there).sum(1) / there.sum(1).clamp(min=1)
        random = self.table[tw.randint(len(self.table), (len(wanted), self.negatives), device=wanted.device)]
        u = self.context(tw.cat([wanted.unsqueeze(1), random], 1))       # (N, 1 + negatives, width)
        score = (u * v.unsqueeze(1)).sum(2)
        return -(F.logsigmoid(score[:, 0]) + F.logsigmoid(-score[:, 1:]).sum(1)).mean()

    @tw.no_grad()
    def nearest(self, vector: Tensor, k: int = 5, leave_out: Sequence[int] = ()) -> list[tuple[int, float]]:
        """The k words whose vectors have the largest cosine with `vector` (width,), best first, but for some."""
        near = F.normalize(self.centre.weight, dim=1) @ F.normalize(vector, dim=0)
        if leave_out:
            near[tw.tensor(list(leave_out))] = -2.0
        value, index = near.topk(k)
        return list(zip(index.tolist(), value.tolist(), strict=True))

    def analogy(self, a: int, b: int, c: int, k: int = 1) -> list[tuple[int, float]]:
        """What is to c as b is to a: the words nearest to b - a + c."""
        unit = F.normalize(self.centre.weight.detach(), dim=1)
        return self.nearest(unit[b] - unit[a] + unit[c], k, (a, b, c))


def windows(ids: np.ndarray, window: int, counts: Sequence[int] | None = None, rare: float = 1e-4,
            seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N,) and their contexts (N, 2 window), -1 past the ends, of a text of word numbers.

    With counts, frequent words are left out at random first: a word of frequency f stays with sqrt(rare / f).
    """
    if counts is not None:
        share = np.asarray(counts, np.float64) / max(1, int(np.sum(counts)))
        keep = np.sqrt(rare / np.maximum(share, 1e-12))[ids]
        ids = ids[np.random.default_rng(seed).random(len(ids)) < keep]
    padded = np.pad(ids, window, constant_values=-1)
    around = [k for k in range(2 * window + 1) if k != window]
    return ids, np.stack([padded[k:k + len(ids)] for k in around], 1)
