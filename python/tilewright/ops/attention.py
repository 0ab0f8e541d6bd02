"""Scaled dot-product attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.autocast import lower
from tilewright.autograd import record, wrap
from tilewright.creation import arange
from tilewright.grad_mode import mode
from tilewright.ops.elementwise import NUMBER
from tilewright.ops.random import default_generator

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


@lower
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Any, attn_mask: Tensor | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """dropout(softmax(scale query key^T + mask)) value, with no matrix of all scores in memory.

    query (..., L, E), key (..., S, E), value (..., S, Ev) give (..., L, Ev); leading dimensions broadcast. `attn_mask`
    broadcasts to (..., L, S): bool, True where a key takes part, or floats that are added to the scores. `is_causal`:
    row i sees the keys 0 to i. `scale` is 1 / sqrt(E) unless given. With `enable_gqa` each head of key and value (their
    third last dimension) serves a group of query's heads. Dropout is on whenever `dropout_p` > 0. A row that sees no
    key gives 0.

    Raises:
        ValueError: sizes that do not fit; dropout_p outside [0, 1]; both attn_mask and is_causal.
        TypeError: integers; query, key and value of different dtypes; a mask neither bool, float32 nor query's dtype.

    Vaswani et al., Attention Is All You Need (2017), equation 1; Dao et al., FlashAttention (2022), arXiv:2205.14135.

    >>> import tilewright as tw
    >>> q, k, v = tw.zeros(2, 4), tw.zeros(2, 4), tw.tensor([[1.0], [3.0]])
    >>> tw.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).tolist()
    [[1.0], [2.0]]
    """
    if is_causal and attn_mask is not None:
        raise ValueError("scaled_dot_product_attention: attn_mask must be None when is_causal, got both")
    if scale is None:
        scale = 1.0 / math.sqrt(query.array.shape[-1]) if query.array.ndim and query.array.shape[-1] else 1.0
    g = default_generator
    attrs = (dropout_p, bool(is_causal), float(scale), bool(enable_gqa), g._seed, g._offset)
    y, lse, used = _engine.attention(query.array, key.array, value.array,
                                     None if attn_mask is None else attn_mask.array, *attrs)
    g.advance(used)
    return record(scaled_dot_product_attention_grad, y, (query, key, value, NUMBER if attn_mask is None else attn_mask),
                  (query, key, value, attn_mask, y, lse), attrs)


def scaled_dot_product_attention_grad(node, dy):
    q, k, v, mask, y, lse = node.saved
    if mode.grad or node.needs[3]:
        return _composite_grad(dy, q, k, v, mask, *node.attrs)
    grads = _engine.attention_backward(dy.array, q.array, k.array, v.array, None if mask is None else mask.array,
                                       y.array, lse.array, *node.attrs, *node.needs[:3])
    dq, dk, dv = (None if a is None else wrap(a) for a in grads)
    if node.attrs[3]:
        dk, dv = (_sum_groups(d, x.array.ndim) for d, x in ((dk, k), (dv, v)))
    return dq, dk, dv, None


def _sum_groups(d, ndim):
    """(..., heads, group, rows, columns) to (..., heads, rows, columns)."""
    return d if d is None or d.array.ndim == ndim else d.sum(-3)


def _composite_grad(dy, q, k, v, mask, dropout_p, is_causal, scale, enable_gqa, seed, offset):
    """The gradients by recorded ops, on the whole matrix of scores: for second derivatives and for the mask's own."""
    heads = k.shape[-3] if enable_gqa else 0

    def grouped(t):  # (..., H, rows, columns) to (..., heads, group, rows, columns)
        return t.reshape(*t.shape[:-3], heads, t.shape[-3] // heads, *t.shape[-2:]) if enable_gqa else t

    def ungrouped(t):
        return t.reshape(*t.shape[:-4], -1, *t.shape[-2:]) if enable_gqa else t

    wide = (*dy.array.shape[:-1], k.shape[-2])
    if mask is not None:
        mask = mask.expand(wide) if mask.ndim < len(wide) or enable_gqa else mask
    q, dy = grouped(q), grouped(dy)
    k, v = grouped(k), grouped(v)
    s = q @ k.transpose(-2, -1) * scale
    L, S = s.shape[-2:]
    if mask is not None:
        m = grouped(mask)
        s = s.masked_fill(m.logical_not(), -math.inf) if m.dtype is _engine.bool else s + m
    if is_causal:
        s = s.masked_fill(arange(S, device=s.device) > arange(L, device=s.device).reshape(-1, 1), -math.inf)
    seen = s.detach().amax(-1, True) != -math.inf
    p = s.masked_fill(seen.logical_not(), 0.0).softmax(-1).masked_fill(seen.logical_not(), 0.0)
    z = None
    if dropout_p > 0:
        ones = _engine.full((*wide[:-1], -(-S // 4) * 4), 1, s.dtype, s.device)
        z = grouped(wrap(_engine.dropout(ones, dropout_p, seed, offset)[0]))[..., :S]
    dp = dy @ v.transpose(-2, -1)
    dp = dp if z is None else dp * z
    ds = p * (dp - (p * dp).sum(-1, True))
    dv = (p if z is None else p * z).transpose(-2, -1) @ dy
    dq, dk = ds @ k * scale, ds.transpose(-2, -1) @ q * scale
    dmask = None if mask is None or mask.dtype is _engine.bool else ungrouped(ds)
    if enable_gqa:
        dq, dk, dv = ungrouped(dq), dk.sum(-3), dv.sum(-3)
    return dq, dk, dv, dmask
