"""The Transformer: its encoder and decoder layers, their stacks, and the whole (Vaswani et al., 2017, arXiv:1706.03762;
norm_first: Xiong et al., 2020, arXiv:2002.04745).

Sequences are (L, N, d_model), or (N, L, d_model) where batch_first, or (L, d_model). In bool masks True hides a key;
floats are added to the scores. A `..._is_causal` says that the mask beside it is the causal one, which is much faster.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import tilewright as tw
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.attention import MultiheadAttention
from tilewright.nn.containers import ModuleList
from tilewright.nn.dropout import Dropout
from tilewright.nn.linear import Linear
from tilewright.nn.module import Module
from tilewright.nn.norm import LayerNorm
from tilewright.tensor import Tensor

Activation = str | Callable[[Tensor], Tensor]


def _get_activation_fn(activation: str) -> Callable[[Tensor], Tensor]:
    if activation in ("relu", "gelu"):
        return getattr(F, activation)
    raise ValueError(f"Transformer: activation must be 'relu', 'gelu' or a function, got {activation!r}")


def _get_clones(module: Module, n: int) -> ModuleList:
    return ModuleList(copy.deepcopy(module) for _ in range(n))


def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
    """The mask (sz, sz) that hides the future: -inf above the diagonal, 0 elsewhere.

    >>> generate_square_subsequent_mask(2).tolist()
    [[0.0, -inf], [0.0, 0.0]]
    """
    return tw.full((sz, sz), float("-inf"), dtype=dtype, device=device).triu(1)


def _is_causal(mask: Tensor | None, given: bool | None) -> bool:
    """`given`, or whether the mask is the one of generate_square_subsequent_mask."""
    if given is not None or mask is None:
        return bool(given)
    if mask.dim() != 2 or mask.shape[0] != mask.shape[1]:
        return False
    causal = generate_square_subsequent_mask(mask.shape[0], mask.device)
    causal = causal != 0 if mask.dtype is tw.bool else causal.to(mask.dtype)
    return bool((mask == causal).all())


class _Block(Module):
    """What both kinds of layer share: attention to itself and a net of two layers, each with its norm and dropout."""

    def _set_up(self, attentions: tuple[str, ...], d_model: int, nhead: int, dim_feedforward: int, dropout: float,
                activation: Activation, layer_norm_eps: float, batch_first: bool, norm_first: bool, bias: bool,
                device: Any, dtype: Any) -> None:
        kind = {"device": device, "dtype": dtype}
        for name in attentions:
            setattr(self, name, MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, **kind))
        self.linear1 = Linear(d_model, dim_feedforward, bias, **kind)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **kind)
        self.norm_first = norm_first
        count = len(attentions) + 1
        for i in range(1, count + 1):
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, bias=bias, **kind))
        for i in range(1, count + 1):
            setattr(self, f"dropout{i}", Dropout(dropout))
        self.activation = _get_activation_fn(activation) if isinstance(activation, str) else activation

    def _attend(self, i: int, attention: Module, x: Tensor, memory: Tensor | None, mask: Tensor | None,
                padding: Tensor | None, is_causal: bool) -> Tensor:
        """x plus attention to `memory`, or to itself, normed before or after; norm{i} and dropout{i} are the step's."""
        norm, drop = getattr(self, f"norm{i}"), getattr(self, f"dropout{i}")
        query = norm(x) if self.norm_first else x
        key = query if memory is None else memory
        y = attention(query, key, key, attn_mask=mask, key_padding_mask=padding, is_causal=is_causal,
                      need_weights=False)[0]
        return x + drop(y) if self.norm_first else norm(x + drop(y))

    def _feed_forward(self, i: int, x: Tensor) -> Tensor:
        norm, drop = getattr(self, f"norm{i}"), getattr(self, f"dropout{i}")
        hidden = self.activation(self.linear1(norm(x) if self.norm_first else x))
        y = drop(self.linear2(self.dropout(hidden)))
        return x + y if self.norm_first else norm(x + y)


class TransformerEncoderLayer(_Block):
    """x = norm(x + attention(x, x)); x = norm(x + linear2(activation(linear1(x)))), with dropout; norm_first norms what
    goes into each step instead.

    Raises:
        ValueError: d_model not a multiple of nhead, another name of an activation; on a call, masks that do not fit.

    >>> import tilewright as tw
    >>> layer = tw.nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    >>> tuple(layer(tw.zeros(3, 5, 8)).shape)
    (3, 5, 8)
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = F.relu, layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self._set_up(("self_attn",), d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
                     norm_first, bias, device, dtype)

    def forward(self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                is_causal: bool = False) -> Tensor:
        x = self._attend(1, self.self_attn, src, None, src_mask, src_key_padding_mask, is_causal)
        return self._feed_forward(2, x)


class TransformerDecoderLayer(_Block):
    """An encoder layer with a third step between its two: attention to the encoder's output, `memory`."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = F.relu, layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self._set_up(("self_attn", "multihead_attn"), d_model, nhead, dim_feedforward, dropout, activation,
                     layer_norm_eps, batch_first, norm_first, bias, device, dtype)

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
                tgt_is_causal: bool = False, memory_is_causal: bool = False) -> Tensor:
        x = self._attend(1, self.self_attn, tgt, None, tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        x = self._attend(2, self.multihead_attn, x, memory, memory_mask, memory_key_padding_mask, memory_is_causal)
        return self._feed_forward(3, x)


class TransformerEncoder(Module):
    """num_layers copies of a layer one after another, and a last norm if given.

    enable_nested_tensor and mask_check are PyTorch's choices between ways to the same result, and change nothing here:
    places that src_key_padding_mask hides are computed like others (PyTorch's fast way in evaluation gives 0 there).
    """

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None,
                 enable_nested_tensor: bool = True, mask_check: bool = True) -> None:
        super().__init__()
        self.layers = _get_clones(encoder_layer, num_layers)
        self.num_layers, self.norm = num_layers, norm
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(self, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                is_causal: bool | None = None) -> Tensor:
        causal = _is_causal(mask, is_causal)
        for layer in self.layers:
            src = layer(src, src_mask=mask, is_causal=causal, src_key_padding_mask=src_key_padding_mask)
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(Module):
    """num_layers copies of a decoder layer one after another, and a last norm if given."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _get_clones(decoder_layer, num_layers)
        self.num_layers, self.norm = num_layers, norm

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
                tgt_is_causal: bool | None = None, memory_is_causal: bool = False) -> Tensor:
        causal = _is_causal(tgt_mask, tgt_is_causal)
        for layer in self.layers:
            tgt = layer(tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
                        tgt_key_padding_mask=tgt_key_padding_mask, memory_key_padding_mask=memory_key_padding_mask,
                        tgt_is_causal=causal, memory_is_causal=memory_is_causal)
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """Encoder and decoder: y = decoder(tgt, encoder(src)), each with a last LayerNorm; matrices start Xavier uniform.

    Raises:
        ValueError: as the layers; on a call, src and tgt of other batches or widths.

    >>> import tilewright as tw
    >>> model = tw.nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    >>> tuple(model(tw.zeros(3, 5, 8), tw.zeros(3, 4, 8)).shape)
    (3, 4, 8)
    """

    def __init__(self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
                 dim_feedforward: int = 2048, dropout: float = 0.1, activation: Activation = F.relu,
                 custom_encoder: Any = None, custom_decoder: Any = None, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        layer = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias,
                 device, dtype)

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)

        self.encoder = custom_encoder if custom_encoder is not None else TransformerEncoder(
            TransformerEncoderLayer(*layer), num_encoder_layers, norm())
        self.decoder = custom_decoder if custom_decoder is not None else TransformerDecoder(
            TransformerDecoderLayer(*layer), num_decoder_layers, norm())
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for p in self.parameters():
            if p.dim() > 1:
                init.xavier_uniform_(p)

    generate_square_subsequent_mask = staticmethod(generate_square_subsequent_mask)

    def forward(self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None, tgt_mask: Tensor | None = None,
                memory_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
                src_is_causal: bool | None = None, tgt_is_causal: bool | None = None,
                memory_is_causal: bool = False) -> Tensor:
        batch = 0 if self.batch_first else 1
        if (src.dim() != tgt.dim() or src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model
                or (src.dim() == 3 and src.shape[batch] != tgt.shape[batch])):
            raise ValueError(f"Transformer: src and tgt must be of one batch and of d_model {self.d_model}, got "
                             f"{tuple(src.shape)} and {tuple(tgt.shape)}")
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
                            tgt_key_padding_mask=tgt_key_padding_mask, memory_key_padding_mask=memory_key_padding_mask,
                            tgt_is_causal=tgt_is_causal, memory_is_causal=memory_is_causal)
