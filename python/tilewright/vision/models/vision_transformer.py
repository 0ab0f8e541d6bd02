"""Vision transformer, Dosovitskiy et al., An image is worth 16 x 16 words (arXiv:2010.11929)."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import tilewright as tw
from tilewright import nn
from tilewright.tensor import Tensor
from tilewright.vision.models._parts import with_weights

__all__ = ["VisionTransformer", "vit_b_16", "vit_b_32", "vit_l_16"]


class _Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, heads: int, width: int, hidden: int, dropout: float, attention_dropout: float):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, dropout=attention_dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width),
                                 nn.Dropout(dropout))

    def forward(self, x: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        y = self.ln_1(x)
        y, weights = self.self_attention(y, y, y, need_weights=need_weights)
        x = x + self.dropout(y)
        return x + self.mlp(self.ln_2(x)), weights


class VisionTransformer(nn.Module):
    """Images (N, in_channels, image_size, image_size) to (N, num_classes), by patches, a class token and attention.

    `attention(x)` returns the weights of every layer, (N, tokens, tokens) each, mean over heads; token 0 is the class.

    Raises:
        ValueError: patch_size does not divide image_size, or images of another size.
    """

    def __init__(self, image_size: int, patch_size: int, num_layers: int, num_heads: int, hidden_dim: int, mlp_dim: int,
                 dropout: float = 0.0, attention_dropout: float = 0.0, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"VisionTransformer: patch_size must divide image_size, got {patch_size} and {image_size}")
        self.image_size, self.patch_size = image_size, patch_size
        self.conv_proj = nn.Conv2d(in_channels, hidden_dim, patch_size, patch_size)
        self.class_token = nn.Parameter(tw.zeros(1, 1, hidden_dim))
        self.encoder = nn.Module()
        tokens = (image_size // patch_size) ** 2 + 1
        self.encoder.pos_embedding = nn.Parameter(0.02 * tw.randn(1, tokens, hidden_dim))
        self.encoder.dropout = nn.Dropout(dropout)
        self.encoder.layers = nn.Sequential(OrderedDict(
            (f"encoder_layer_{i}", _Block(num_heads, hidden_dim, mlp_dim, dropout, attention_dropout))
            for i in range(num_layers)))
        self.encoder.ln = nn.LayerNorm(hidden_dim, eps=1e-6)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(hidden_dim, num_classes)))
        fan_in = in_channels * patch_size**2
        nn.init.trunc_normal_(self.conv_proj.weight, std=math.sqrt(1 / fan_in))
        for name, p in self.named_parameters():
            if name in ("conv_proj.bias", "heads.head.weight", "heads.head.bias"):
                nn.init.zeros_(p)
            elif ".mlp." in name:
                nn.init.xavier_uniform_(p) if p.ndim == 2 else nn.init.normal_(p, std=1e-6)

    def _tokens(self, x: Tensor) -> Tensor:
        if tuple(x.shape[-2:]) != (self.image_size,) * 2:
            raise ValueError(f"VisionTransformer: images must be {self.image_size} x {self.image_size}, got "
                             f"{tuple(x.shape)}")
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = tw.cat([self.class_token.expand(x.shape[0], -1, -1), x], 1)
        return self.encoder.dropout(x + self.encoder.pos_embedding)

    def forward(self, x: Tensor) -> Tensor:
        x = self._tokens(x)
        for block in self.encoder.layers:
            x, _ = block(x)
        return self.heads(self.encoder.ln(x)[:, 0])

    @tw.no_grad()
    def attention(self, x: Tensor) -> list[Tensor]:
        """Where each token of each layer looks: see the class."""
        x, seen = self._tokens(x), []
        for block in self.encoder.layers:
            x, weights = block(x, need_weights=True)
            seen.append(weights)
        return seen


def _maker(name: str, count: int, **sizes: int) -> Any:
    def make(*, weights: Any = None, progress: bool = True, image_size: int = 224, **kwargs: Any) -> VisionTransformer:
        return with_weights(VisionTransformer(image_size, **{**sizes, **kwargs}), weights)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"`VisionTransformer` of {sizes}: {count:,} parameters for 1,000 classes of 224 x 224."
    return make


_BASE = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
vit_b_16 = _maker("vit_b_16", 86_567_656, patch_size=16, **_BASE)
vit_b_32 = _maker("vit_b_32", 88_224_232, patch_size=32, **_BASE)
vit_l_16 = _maker("vit_l_16", 304_326_632, patch_size=16, num_layers=24, num_heads=16, hidden_dim=1024, mlp_dim=4096)
