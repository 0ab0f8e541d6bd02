"""The Transformer's encoder and decoder, Vaswani et al., Attention is all you need (arXiv:1706.03762)."""

from __future__ import annotations

import math

import tilewright as tw
from tilewright import nn
from tilewright.tensor import Tensor

__all__ = ["SequenceTransformer", "sinusoids"]


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width): sin(p / 10000^(2 i / width)) at column 2 i, the cosine at 2 i + 1: section 3.5 of the paper."""
    rate = tw.exp(-math.log(10000.0) / width * tw.arange(0, width, 2).float())
    angle = tw.arange(length).float().unsqueeze(1) * rate
    return tw.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :width]


class _Attention(nn.Module):
    """Attention of queries (N, L, width) to (N, S, width) over several heads; returns the weights too if asked."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor, padding: Tensor | None, causal: bool,
                need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        mask = None
        if causal:
            mask = tw.ones(x.shape[1], memory.shape[1], dtype=tw.bool, device=x.device).triu(1)
        return self.inner(x, memory, memory, key_padding_mask=padding, attn_mask=mask, need_weights=need_weights)


class _Layer(nn.Module):
    """Self-attention, in a decoder attention to the memory, two linear layers; each normalized first and added."""

    def __init__(self, width: int, heads: int, dropout: float, decoder: bool):
        super().__init__()
        self.looks = _Attention(width, heads, dropout)
        self.asks = _Attention(width, heads, dropout) if decoder else None
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3 if decoder else 2)])
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Dropout(dropout),
                                   nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, padding: Tensor | None, memory: Tensor | None = None,
                memory_padding: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        y, weights = self.norms[0](x), None
        x = x + self.dropout(self.looks(y, y, padding, self.asks is not None)[0])
        if self.asks is not None:
            assert memory is not None
            y, weights = self.asks(self.norms[1](x), memory, memory_padding, False, not self.training)
            x = x + self.dropout(y)
        return x + self.dropout(self.inner(self.norms[-1](x))), weights


class SequenceTransformer(nn.Module):
    """Source tokens (N, S) and the target's tokens before (N, L), 0 as padding, to logits (N, L, target).

    Each sublayer is normalized before it (Xiong et al., arXiv:2002.04745), which trains without a warm-up.
    `write(source, n)` takes its own likeliest tokens from `start` to `stop`; `looked(source, tokens)` says where.

    Raises:
        ValueError: more than `longest` tokens.
    """

    def __init__(self, source: int, target: int, width: int = 64, heads: int = 4, layers: int = 2,
                 dropout: float = 0.1, longest: int = 256, start: int = 1, stop: int = 2):
        super().__init__()
        self.start, self.stop, self.longest = start, stop, longest
        self.source, self.target = nn.Embedding(source, width, 0), nn.Embedding(target, width, 0)
        for embedding in (self.source, self.target):  # times sqrt(width) they are of the positions' size, not above it
            nn.init.normal_(embedding.weight, std=width**-0.5)
            embedding.weight.data[0] = 0.0
        self.register_buffer("positions", sinusoids(longest, width), persistent=False)
        self.encoder = nn.ModuleList([_Layer(width, heads, dropout, False) for _ in range(layers)])
        self.decoder = nn.ModuleList([_Layer(width, heads, dropout, True) for _ in range(layers)])
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(width, target)

    def _embedded(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        t = tokens.shape[1]
        if t > self.longest:
            raise ValueError(f"SequenceTransformer: at most {self.longest} tokens, got {t}")
        return self.dropout(embedding(tokens) * math.sqrt(embedding.embedding_dim) + self.positions[:t])

    def encode(self, source: Tensor) -> Tensor:
        """The memory (N, S, width) of source tokens (N, S)."""
        x, padding = self._embedded(self.source, source), source == 0
        for layer in self.encoder:
            x, _ = layer(x, padding)
        return self.norms[0](x)

    def decode(self, tokens: Tensor, memory: Tensor, source: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Logits of what follows each of `tokens` (N, L), and where each layer looked (N, L, S)."""
        x, looked = self._embedded(self.target, tokens), []
        for layer in self.decoder:
            x, weights = layer(x, None, memory, source == 0)
            looked.append(weights)
        return self.head(self.norms[1](x)), looked

    def forward(self, source: Tensor, tokens: Tensor) -> Tensor:
        return self.decode(tokens, self.encode(source), source)[0]

    @tw.no_grad()
    def looked(self, source: Tensor, tokens: Tensor) -> list[Tensor | None]:
        """Of each decoder layer, in evaluation, the weights (N, L, S), mean over heads."""
        return self.decode(tokens, self.encode(source), source)[1]

    @tw.no_grad()
    def write(self, source: Tensor, most: int) -> Tensor:
        """(N, L) tokens with L at most `most`, `stop` from each text's end on."""
        memory = self.encode(source)
        tokens = tw.full((len(source), 1), self.start, dtype=tw.int64, device=source.device)
        for _ in range(most):
            new = self.decode(tokens, memory, source)[0][:, -1].argmax(1)
            done = (tokens == self.stop).any(1)
            tokens = tw.cat([tokens, tw.where(done, self.stop, new).unsqueeze(1)], 1)
            if bool((tokens == self.stop).any(1).all()):
                break
        return tokens[:, 1:]
