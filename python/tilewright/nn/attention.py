"""MultiheadAttention (Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, section 3.2.2)."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import Any

from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.checks import check_number, check_size
from tilewright.nn.linear import NonDynamicallyQuantizableLinear
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
        self.register_parameter("q_proj_weight", None if same else empty_parameter((embed_dim, embed_dim), **kind))
        self.register_parameter("k_proj_weight", None if same else empty_parameter((embed_dim, self.kdim), **kind))
        self.register_parameter("v_proj_weight", None if same else empty_parameter((embed_dim, self.vdim), **kind))
        self.register_parameter("in_proj_weight", empty_parameter((3 * embed_dim, embed_dim), **kind) if same else None)
        self.register_parameter("in_proj_bias", empty_parameter((3 * embed_dim,), **kind) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, **kind)
        self.register_parameter("bias_k", empty_parameter((1, 1, embed_dim), **kind) if add_bias_kv else None)
        self.register_parameter("bias_v", empty_parameter((1, 1, embed_dim), **kind) if add_bias_kv else None)
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
        self._check(query, key, value)
        return F.multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, self.in_proj_weight, self.in_proj_bias, self.bias_k,
            self.bias_v, self.add_zero_attn, self.dropout, self.out_proj.weight, self.out_proj.bias, self.training,
            key_padding_mask, need_weights, attn_mask, not self._qkv_same_embed_dim, self.q_proj_weight,
            self.k_proj_weight, self.v_proj_weight, None, None, average_attn_weights, is_causal,
            batch_first=self.batch_first)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
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
