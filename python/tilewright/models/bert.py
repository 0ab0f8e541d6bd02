"""BERT, Devlin et al. (arXiv:1810.04805), with its weights' public names, and the masking of words it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import tilewright as tw
from tilewright import nn
from tilewright.nn import functional as F
from tilewright.tensor import Tensor

__all__ = ["BERT", "BERTConfig", "BERTOutput", "mask_tokens"]


@dataclass
class BERTConfig:
    """Sizes under their public names; the defaults are BERT base's."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("BERTConfig: num_attention_heads must divide hidden_size, got "
                             f"{self.num_attention_heads} and {self.hidden_size}")


def _group(**parts: nn.Module) -> nn.Module:
    """Modules under names, as the public weights nest them."""
    group = nn.Module()
    for name, part in parts.items():
        group.add_module(name, part)
    return group


class Residual(nn.Module):
    """norm(x + dropout(dense(y)))."""

    def __init__(self, config: BERTConfig, in_features: int):
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return self.LayerNorm(x + self.dropout(self.dense(y)))


class SelfAttention(nn.Module):
    """Every token of (B, T, hidden) looks at all tokens that the mask (B, 1, 1, T) lets it see."""

    def __init__(self, config: BERTConfig):
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.dropout
        self.query, self.key, self.value = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, t, width = x.shape
        q, k, v = (layer(x).view(b, t, self.heads, width // self.heads).transpose(1, 2)
                   for layer in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        return y.transpose(1, 2).reshape(b, t, width)


class Layer(nn.Module):
    """Attention, then two linear layers with GELU between them; each added to what came in and normalized."""

    def __init__(self, config: BERTConfig):
        super().__init__()
        self.attention = _group(self=SelfAttention(config), output=Residual(config, config.hidden_size))
        self.intermediate = _group(dense=nn.Linear(config.hidden_size, config.intermediate_size))
        self.output = Residual(config, config.intermediate_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention.output(self.attention.self(x, mask), x)
        return self.output(F.gelu(self.intermediate.dense(x)), x)


class Embeddings(nn.Module):
    """The sum of a token's, a position's and a segment's vector, normalized."""

    def __init__(self, config: BERTConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, segments: Tensor | None) -> Tensor:
        positions = self.position_embeddings(tw.arange(ids.shape[1], device=ids.device))
        kinds = self.token_type_embeddings(tw.zeros_like(ids) if segments is None else segments)
        return self.dropout(self.LayerNorm(self.word_embeddings(ids) + positions + kinds))


class BERTOutput(NamedTuple):
    logits: Tensor    # (B, T, vocab_size): which word stands at each place
    next: Tensor      # (B, 2): whether the second segment follows the first
    features: Tensor  # (B, T, hidden_size), of the last layer
    pooled: Tensor    # (B, hidden_size), made from the first token's


class BERT(nn.Module):
    """Token numbers (B, T) to a `BERTOutput`; 110,106,428 parameters by default.

    attention_mask (B, T): 1 or True at tokens, 0 at padding. token_type_ids (B, T): the segment of each token.

    Raises:
        ValueError: more tokens than max_position_embeddings.

    >>> import tilewright as tw
    >>> model = BERT(BERTConfig(20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32))
    >>> tuple(model(tw.ones(2, 5, dtype=tw.int64)).logits.shape)
    (2, 5, 20)
    """

    def __init__(self, config: BERTConfig):
        super().__init__()
        self.config = config
        width, eps = config.hidden_size, config.layer_norm_eps
        layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.bert = _group(embeddings=Embeddings(config), encoder=_group(layer=layers),
                           pooler=_group(dense=nn.Linear(width, width)))
        transform = _group(dense=nn.Linear(width, width), LayerNorm=nn.LayerNorm(width, eps))
        self.cls = _group(predictions=_group(transform=transform, decoder=nn.Linear(width, config.vocab_size)),
                          seq_relationship=nn.Linear(width, 2))
        words, decoder = self.bert.embeddings.word_embeddings, self.cls.predictions.decoder
        for p in self.parameters():
            if p.ndim == 2:  # the paper's 0.02 at its width; a narrow model's attention would not begin to differ
                nn.init.normal_(p, 0.0, 0.02 * (768 / width) ** 0.5)
        for m in self.modules():
            if isinstance(m, nn.Linear) and m.bias is not None:
                nn.init.zeros_(m.bias)
        with tw.no_grad():
            words.weight[0] = 0.0
        decoder.weight = words.weight

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None,
                token_type_ids: Tensor | None = None) -> BERTOutput:
        if ids.shape[1] > self.config.max_position_embeddings:
            raise ValueError(f"BERT: at most {self.config.max_position_embeddings} tokens, got {ids.shape[1]}")
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        x = self.bert.embeddings(ids, token_type_ids)
        for layer in self.bert.encoder.layer:
            x = layer(x, mask)
        pooled = tw.tanh(self.bert.pooler.dense(x[:, 0]))
        head = self.cls.predictions
        guess = head.transform.LayerNorm(F.gelu(head.transform.dense(x)))
        return BERTOutput(head.decoder(guess), self.cls.seq_relationship(pooled), x, pooled)


def mask_tokens(ids: Tensor, mask_id: int, vocab_size: int, special: Tensor | None = None, share: float = 0.15,
                generator: tw.Generator | None = None) -> tuple[Tensor, Tensor]:
    """The paper's task: of `share` of the tokens, 8 in 10 become mask_id, 1 a random token, 1 stays.

    Returns the tokens (B, T) and the targets: the true token where one was chosen, -100, which cross_entropy leaves
    out, elsewhere. `special` (B, T) is True where none may be chosen.
    """
    draw, kind = (tw.rand(*ids.shape, generator=generator, device=ids.device) for _ in range(2))
    chosen = draw < share
    if special is not None:
        chosen = chosen & ~special
    other = tw.randint(0, vocab_size, tuple(ids.shape), generator=generator, device=ids.device)
    changed = tw.where(kind < 0.8, mask_id, tw.where(kind < 0.9, other, ids))
    return tw.where(chosen, changed, ids), tw.where(chosen, ids, -100)
