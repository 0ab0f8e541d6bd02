"""GPT-2, Radford et al., Language models are unsupervised multitask learners (2019), with its weights' public names."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import tilewright as tw
from tilewright import nn
from tilewright.nn import functional as F
from tilewright.serialization import load
from tilewright.tensor import Tensor

__all__ = ["GPT", "GPTConfig"]

Cache = list[tuple[Tensor, Tensor]]  # of each layer: keys and values (B, heads, T, head_dim)


@dataclass
class GPTConfig:
    """Sizes under their public names; the defaults are GPT-2's of 124 million parameters."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    dropout: float = 0.1  # of embeddings, attention weights and residual branches
    layer_norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"GPTConfig: n_head must divide n_embd, got {self.n_head} and {self.n_embd}")


class Affine(nn.Module):
    """x w + b with w (in, out): a linear layer whose weight is stored as GPT-2's are, transposed."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(tw.empty(in_features, out_features))
        self.bias = nn.Parameter(tw.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.t(), self.bias)


class Attention(nn.Module):
    """Causal self-attention of (B, T, n_embd), with the keys and values of earlier calls in a cache."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.dropout
        self.c_attn, self.c_proj = Affine(config.n_embd, 3 * config.n_embd), Affine(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        b, t, width = x.shape
        q, k, v = (part.view(b, t, self.n_head, width // self.n_head).transpose(1, 2)
                   for part in self.c_attn(x).split(width, dim=2))
        if past is not None:
            k, v = tw.cat([past[0], k], 2), tw.cat([past[1], v], 2)
        seen = k.shape[2] - t
        mask = None
        if seen and t > 1:  # new tokens see all old ones, and of the new those up to themselves
            mask = tw.ones(t, k.shape[2], dtype=tw.bool, device=x.device).tril(seen)
        y = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0, is_causal=not seen)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(b, t, width))), (k, v)


class MLP(nn.Module):
    """Four times as wide inside, with GELU by tanh."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc, self.c_proj = Affine(config.n_embd, 4 * config.n_embd), Affine(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, kept = self.attn(self.ln_1(x), past)
        x = x + y
        return x + self.mlp(self.ln_2(x)), kept


class GPT(nn.Module):
    """Token numbers (B, T) to logits (B, T, vocab_size) of the token that follows each.

    The head's weight is the tokens' embedding. `model(ids, targets)` returns (logits, mean cross-entropy); targets of
    -100 do not count. `model.generate(ids, 20)` continues a text.

    Raises:
        ValueError: more tokens than n_positions.

    >>> import tilewright as tw
    >>> model = GPT(GPTConfig(vocab_size=10, n_positions=8, n_embd=16, n_layer=2, n_head=2))
    >>> tuple(model(tw.zeros(3, 5, dtype=tw.int64)).shape)
    (3, 5, 10)
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(config.vocab_size, config.n_embd),
            "wpe": nn.Embedding(config.n_positions, config.n_embd),
            "drop": nn.Dropout(config.dropout), "h": nn.ModuleList([Block(config) for _ in range(config.n_layer)]),
            "ln_f": nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)})
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight
        for name, p in self.named_parameters():
            if p.ndim == 2:  # 0.02 at the paper's width; less for what is added to the residual stream
                deviation = 0.02 * math.sqrt(768 / config.n_embd)
                nn.init.normal_(p, 0.0, deviation / (math.sqrt(2 * config.n_layer) if "c_proj" in name else 1))

    @classmethod
    def from_file(cls, path: str | os.PathLike, n_head: int | None = None, **options: float) -> GPT:
        """The model whose weights a local file has; sizes come from their shapes, heads are of 64 unless given.

        GPT-2's public files are read with or without their "transformer." prefix and their stored causal masks.
        """
        state = {k if k.startswith(("transformer.", "lm_head.")) else f"transformer.{k}": v
                 for k, v in load(path).items() if not k.endswith((".attn.bias", ".attn.masked_bias"))}
        vocabulary, width = state["transformer.wte.weight"].shape
        layers = 1 + max(int(k.split(".")[2]) for k in state if k.startswith("transformer.h."))
        model = cls(GPTConfig(vocabulary, state["transformer.wpe.weight"].shape[0], width, layers,
                              n_head or width // 64, **options))
        state.setdefault("lm_head.weight", state["transformer.wte.weight"])
        model.load_state_dict(state)
        model.eval()
        return model

    def features(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """The last layer's (B, T, n_embd), normalized, and the keys and values for the call that goes on after it."""
        first = cache[0][0].shape[2] if cache else 0
        t = ids.shape[1]
        if first + t > self.config.n_positions:
            raise ValueError(f"GPT: at most {self.config.n_positions} tokens, got {first + t}")
        parts = self.transformer
        x = parts["drop"](parts["wte"](ids) + parts["wpe"](tw.arange(first, first + t, device=ids.device)))
        kept: Cache = []
        for i, block in enumerate(parts["h"]):
            x, pair = block(x, cache[i] if cache else None)
            kept.append(pair)
        return parts["ln_f"](x), kept

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.lm_head(self.features(ids)[0])
        if targets is None:
            return logits
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @tw.no_grad()
    def generate(self, ids: Tensor, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
                 generator: tw.Generator | None = None) -> Tensor:
        """The tokens (B, T) with `max_new_tokens` more, drawn one by one; each costs one token's work, by the cache.

        temperature 0 takes the likeliest; top_k draws among so many. Past n_positions, the window begins anew with the
        last half of it.
        """
        training = self.training
        self.eval()
        cache: Cache | None = None
        new = ids[:, -self.config.n_positions:]
        for _ in range(max_new_tokens):
            if cache and cache[0][0].shape[2] + 1 > self.config.n_positions:
                cache, new = None, ids[:, -max(1, self.config.n_positions // 2):]
            x, cache = self.features(new, cache)
            logits = self.lm_head(x[:, -1])
            if temperature == 0:
                new = logits.argmax(-1, keepdim=True)
            else:
                logits = logits / temperature
                if top_k is not None and top_k < logits.shape[-1]:
                    least = logits.topk(top_k)[0][:, -1:]
                    logits = logits.masked_fill(logits < least, -math.inf)
                new = tw.multinomial(F.softmax(logits, -1), 1, generator=generator)
            ids = tw.cat([ids, new], 1)
        self.train(training)
        return ids
