"""Health records over time: the codes of each visit embedded and summed, visits through a GRU, and beside the outcome
the next laboratory values as auxiliary targets. After Choi et al., Doctor AI (arXiv:1511.05942)."""

from __future__ import annotations

from typing import NamedTuple

from tilewright import nn
from tilewright.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from tilewright.tensor import Tensor

__all__ = ["RecordsNet", "RecordsOutput"]


class RecordsOutput(NamedTuple):
    risk: Tensor         # (N,), the outcome's logit
    labs: Tensor | None  # (N, visits, labs), those of the visit after each


class RecordsNet(nn.Module):
    """codes (N, visits, codes a visit), 0 where there is none, and the number of visits (N,) to a `RecordsOutput`."""

    def __init__(self, vocabulary: int, width: int = 32, hidden: int = 64, labs: int = 0,
                 dropout: float = 0.0):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=0)
        self.visits, self.risk = nn.GRU(width, hidden, batch_first=True), nn.Linear(hidden, 1)
        self.labs = nn.Linear(hidden, labs) if labs else None
        self.dropout = nn.Dropout(dropout)  # of what a visit says, and of what the heads see

    def forward(self, codes: Tensor, visits: Tensor) -> RecordsOutput:
        x = self.dropout(self.embed(codes).sum(2))
        packed = pack_padded_sequence(x, visits, batch_first=True, enforce_sorted=False)
        every, last = self.visits(packed)
        labs = None
        if self.labs is not None:
            padded = pad_packed_sequence(every, batch_first=True, total_length=codes.shape[1])[0]
            labs = self.labs(self.dropout(padded))
        return RecordsOutput(self.risk(self.dropout(last[-1])).squeeze(1), labs)
