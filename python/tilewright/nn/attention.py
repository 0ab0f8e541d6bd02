"""MultiheadAttention (Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, section 3.2.2)."""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Iterator
from typing import Any

import tilewright as tw
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.checks import check_number, check_size
from tilewright.nn.linear import Linear
from tilewright.nn.module import Module
from tilewright.nn.parameter import empty_parameter
from tilewright.tensor import Tensor


class SDPBackend(enum.IntEnum):
    """PyTorch's ways to compute attention; here one kernel serves all."""

    ERROR, MATH, FLASH_ATTENTION, EFFICIENT_ATTENTION, CUDNN_ATTENTION, OVERRIDEABLE = range(-1, 5)


@contextlib.contextmanager
def sdpa_kernel(backends: SDPBackend | list[SDPBackend], set_priority: bool = False) -> Iterator[None]:
    """A block in which PyTorch would use the named kernels only; results here are the same whichever are named.

    Raises:
        TypeError: what is no SDPBackend. ValueError: none.
    """
    given = [backends] if isinstance(backends, SDPBackend) else list(backends)
    if not given:
        raise ValueError("sdpa_kernel: at least one backend must be named, got none")
    for backend in given:
        if not isinstance(backend, SDPBackend):
            raise TypeError(f"sdpa_kernel: backends must be SDPBackend, got {backend!r}")
    yield


class MultiheadAttention(Module):
    """Concat(head_1, ..., head_h) W_out^T + b, head_i = attention of slices of query, key and value after projection.

    query (L, N, embed_dim), key (S, N, kdim) and value (S, N, vdim), or with the batch N first where `batch_first`, or
    without it. Returns the result, shaped as query, and the weights: (N, L, S), the mean over heads, or (N, num_heads,
    L, S) if not `average_attn_weights`, or None if not `need_weights`, which is much the faster way, for then no matrix
    of all scores is made. In the bool masks True hides a key; floats are added to the scores.

    Raises:
        ValueError: embed_dim is not a multiple of num_heads; on a call, sizes or masks that do not fit.
        TypeError: on a call, a mask neither bool nor floating-point.

    >>> import tilewright as tw
    >>> layer = tw.nn.MultiheadAttention(8, 2, batch_first=True)
    >>> x = tw.zeros(3, 5, 8)
    >>> y, weights = layer(x, x, x)
    >>> tuple(y.shape), tuple(weights.shape)
    ((3, 5, 8), (3, 5, 5))
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        name = "MultiheadAttention"
        self.embed_dim, self.num_heads = check_size(name, "embed_dim", embed_dim, 1), check_size(name, "num_heads",
                                                                                                num_heads, 1)
        if embed_dim % num_heads:
            raise ValueError(f"{name}: embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}")
        self.kdim = embed_dim if kdim is None else check_size(name, "kdim", kdim, 1)
        self.vdim = embed_dim if vdim is None else check_size(name, "vdim", vdim, 1)
        self.dropout = check_number(name, "dropout", dropout, 0, 1)
        self.batch_first, self.add_zero_attn, self.head_dim = batch_first, add_zero_attn, embed_dim // num_heads
        kind = {"device": device, "dtype": dtype}
        same = self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.q_proj_weight = None if same else empty_parameter((embed_dim, embed_dim), **kind)
        self.k_proj_weight = None if same else empty_parameter((embed_dim, self.kdim), **kind)
        self.v_proj_weight = None if same else empty_parameter((embed_dim, self.vdim), **kind)
        self.in_proj_weight = empty_parameter((3 * embed_dim, embed_dim), **kind) if same else None
        self.in_proj_bias = empty_parameter((3 * embed_dim,), **kind) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, **kind)
        self.bias_k = empty_parameter((1, 1, embed_dim), **kind) if add_bias_kv else None
        self.bias_v = empty_parameter((1, 1, embed_dim), **kind) if add_bias_kv else None
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
                need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        self._check(query, key, value, is_causal, attn_mask)
        batched = query.dim() == 3
        q, k, v = self._projected(query, key, value, 0 if not batched or self.batch_first else 1)
        N, L, S = q.shape[0], q.shape[2], k.shape[2]
        extra = (self.bias_k is not None) + self.add_zero_attn
        causal = is_causal and key_padding_mask is None and not need_weights and not extra
        mask = None if causal else self._mask(attn_mask, key_padding_mask, N, L, S, extra, q.dtype)
        if extra:
            k, v = self._with_extra_rows(k, self.bias_k), self._with_extra_rows(v, self.bias_v)
        p = self.dropout if self.training else 0.0
        if need_weights:
            scores = q @ k.transpose(-2, -1) * (1.0 / math.sqrt(self.head_dim))
            weights = F.dropout(F.softmax(scores if mask is None else scores + mask, -1), p)
            heads = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            heads, weights = F.scaled_dot_product_attention(q, k, v, mask, p, causal), None
        order = (0, 2, 1, 3) if not batched or self.batch_first else (2, 0, 1, 3)
        merged = heads.permute(*order).reshape(*((N, L) if order[0] == 0 else (L, N)), self.embed_dim)
        y = F.linear(merged, self.out_proj.weight, self.out_proj.bias)
        return (y if batched else y.squeeze(0)), weights

    def _check(self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool, attn_mask: Tensor | None) -> None:
        shapes = tuple(tuple(t.shape) for t in (query, key, value))
        ndim = query.dim()
        rest = all(s[:-1] == shapes[1][:-1] for s in shapes[1:]) and all(len(s) == ndim for s in shapes)
        batch = 0 if self.batch_first else 1
        if ndim not in (2, 3) or not rest or (ndim == 3 and shapes[0][batch] != shapes[1][batch]):
            raise ValueError(f"MultiheadAttention: query, key and value must be of 2 or 3 dimensions and of one batch, "
                             f"key and value of one length, got {shapes}")
        if tuple(s[-1] for s in shapes) != (self.embed_dim, self.kdim, self.vdim):
            raise ValueError(f"MultiheadAttention: the last sizes must be embed_dim, kdim and vdim "
                             f"({self.embed_dim}, {self.kdim}, {self.vdim}), got {shapes}")
        if is_causal and attn_mask is None:
            raise ValueError("MultiheadAttention: is_causal is a hint about attn_mask, which must be given, got None")

    def _projected(self, query: Tensor, key: Tensor, value: Tensor, batch: int) -> list[Tensor]:
        """Three of (N, heads, rows, head_dim). One product does for operands that are the same tensor."""
        E = self.embed_dim
        w, b = self.in_proj_weight, self.in_proj_bias
        if w is not None and query is key and key is value:
            projected = F.linear(query, w, b).split(E, -1)
        elif w is not None and key is value:
            projected = (F.linear(query, w[:E], None if b is None else b[:E]),
                         *F.linear(key, w[E:], None if b is None else b[E:]).split(E, -1))
        else:
            weights = w.split(E) if w is not None else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            biases = (None,) * 3 if b is None else b.split(E)
            projected = tuple(map(F.linear, (query, key, value), weights, biases))
        order = (0, 2, 1, 3) if batch == 0 else (1, 2, 0, 3)
        return [(t if t.dim() == 3 else t.unsqueeze(0)).unflatten(-1, (self.num_heads, self.head_dim)).permute(*order)
                for t in projected]

    def _with_extra_rows(self, t: Tensor, bias: Tensor | None) -> Tensor:
        """A learned row and a row of zeros behind the keys' own, where they are wanted."""
        N, H, _, D = t.shape
        rows = [t]
        if bias is not None:
            rows.append(bias.reshape(1, H, 1, D).expand(N, H, 1, D))
        if self.add_zero_attn:
            rows.append(tw.zeros(N, H, 1, D, dtype=t.dtype, device=t.device))
        return tw.cat(rows, 2)

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, N: int, L: int, S: int, extra: int,
              dtype: Any) -> Tensor | None:
        """What is added to the scores (N, heads, L, S + extra), or None."""
        total = None
        for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", padding)):
            if mask is None:
                continue
            shape = tuple(mask.shape)
            shapes: tuple = ((L, S), (N * self.num_heads, L, S)) if name == "attn_mask" else ((N, S),)
            if name == "key_padding_mask" and N == 1 and shape == (S,):
                shape = (1, S)
            if shape not in shapes:
                raise ValueError(f"MultiheadAttention: {name} must have shape {' or '.join(map(str, shapes))}, got "
                                 f"{tuple(mask.shape)}")
            if mask.dtype is tw.bool:
                mask = tw.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)
            elif not mask.is_floating_point():
                raise TypeError(f"MultiheadAttention: {name} must be bool or floating-point, got {mask.dtype}")
            if name == "key_padding_mask":
                mask = mask.reshape(N, 1, 1, S)
            elif len(shape) == 3:
                mask = mask.reshape(N, self.num_heads, L, S)
            total = mask.to(dtype) if total is None else total + mask
        return total if total is None or not extra else F.pad(total, (0, extra))
