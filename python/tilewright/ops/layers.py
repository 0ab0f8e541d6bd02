"""Functions behind layers that are made of other ops, whose gradients come from theirs, of every order."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.creation import arange
from tilewright.ops import elementwise, index, matmul, pad, pool, random, reduce, shape
from tilewright.ops.composed import einsum
from tilewright.ops.interpolate import interpolate

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


# --- products and channels -------------------------------------------------------------------------------------------
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y_o = x1^T W_o x2 + b_o for x1 (..., I), x2 (..., J), weight (O, I, J) and bias (O,); y is (..., O).

    Raises:
        ValueError: sizes that do not fit.

    >>> import tilewright as tw
    >>> tw.nn.functional.bilinear(tw.ones(2, 3), tw.ones(2, 4), tw.ones(1, 3, 4)).tolist()
    [[12.0], [12.0]]
    """
    if (weight.dim() != 3 or input1.shape[:-1] != input2.shape[:-1]
            or (input1.shape[-1], input2.shape[-1]) != tuple(weight.shape[1:])
            or (bias is not None and tuple(bias.shape) != (weight.shape[0],))):
        raise ValueError(f"bilinear: inputs (..., I) and (..., J) must fit weight (O, I, J) and bias (O,), got "
                         f"{tuple(input1.shape)}, {tuple(input2.shape)}, {tuple(weight.shape)} and "
                         f"{None if bias is None else tuple(bias.shape)}")
    y = einsum("...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else y + bias


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """(N, C, ...) with channel g C/groups + i moved to i groups + g: groups exchange channels.

    Raises:
        ValueError: fewer than 3 dimensions, or groups that do not divide C.

    Source: Zhang et al., ShuffleNet, 2017 (arXiv:1707.01083).

    >>> import tilewright as tw
    >>> tw.nn.functional.channel_shuffle(tw.arange(4).reshape(1, 4, 1), 2).flatten().tolist()
    [0, 2, 1, 3]
    """
    if input.dim() < 3 or groups < 1 or input.shape[1] % groups:
        raise ValueError(f"channel_shuffle: groups must divide the channels of (N, C, ...), got {groups} for "
                         f"{tuple(input.shape)}")
    n, c, *rest = input.shape
    return input.reshape((n, groups, c // groups, *rest)).transpose(1, 2).reshape((n, c, *rest))


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha mean of x^2 over the `size` channels around)^beta for (N, C, ...); outside channels count as 0.

    Raises:
        ValueError: fewer than 3 dimensions.

    Source: Krizhevsky et al., 2012, section 3.3, with alpha divided by size, as in PyTorch.
    """
    if input.dim() < 3:
        raise ValueError(f"local_response_norm: input must have at least 3 dimensions, got {tuple(input.shape)}")
    if not input.numel():
        return input
    n, c = input.shape[:2]
    squares = pad.pad((input * input).reshape((n, 1, c, -1)), (0, 0, size // 2, (size - 1) // 2))
    mean = pool.avg_pool2d(squares, (size, 1), stride=1).reshape(tuple(input.shape))
    return input / (mean * alpha + k) ** beta


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of every pair of rows i < j of (N, M): (N (N - 1) / 2,)."""
    if input.dim() != 2:
        raise ValueError(f"pdist: input must have 2 dimensions, got {tuple(input.shape)}")
    n = input.shape[0]
    first = [i for i in range(n) for _ in range(i + 1, n)]
    second = [j for i in range(n) for j in range(i + 1, n)]
    a, b = (index.index_select(input, 0, input.new_tensor(rows, dtype=_engine.int64)) for rows in (first, second))
    return reduce.norm(a - b, p, -1)


# --- bags of embeddings ----------------------------------------------------------------------------------------------
def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
                  norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """The sum, mean or max (`mode`) over bags of rows of weight (num_embeddings, dim): (bags, dim).

    A 2-d input has a bag in each row; the bags of a 1-d one begin at `offsets` (with include_last_offset the last
    entry is the end). per_sample_weights multiply the rows (mode "sum"). Rows of padding_idx take no part. An empty bag
    gives 0. max_norm, norm_type and scale_grad_by_freq are those of `embedding`.

    Raises:
        ValueError: another mode; offsets missing, falling, not from 0, or beside a 2-d input; per_sample_weights not of
            input's shape, or beside another mode than "sum".
        NotImplementedError: sparse.

    >>> import tilewright as tw
    >>> table = tw.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> tw.nn.functional.embedding_bag(tw.tensor([0, 1, 2]), table, tw.tensor([0, 2]), mode="sum").tolist()
    [[4.0, 6.0], [5.0, 6.0]]
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"embedding_bag: mode must be 'sum', 'mean' or 'max', got {mode!r}")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("embedding_bag: scale_grad_by_freq must be False with mode 'max', got True")
    w = per_sample_weights
    if w is not None and (mode != "sum" or w.shape != input.shape):
        raise ValueError(f"embedding_bag: per_sample_weights must have input's shape and mode 'sum', got "
                         f"{tuple(w.shape)} for {tuple(input.shape)} and mode '{mode}'")
    if input.dim() not in (1, 2) or (offsets is None) != (input.dim() == 2) or (
            offsets is not None and offsets.dim() != 1):
        raise ValueError(f"embedding_bag: input must be 1-d with 1-d offsets, or 2-d without, got "
                         f"{tuple(input.shape)} and {None if offsets is None else tuple(offsets.shape)}")
    flat, n = input.reshape((-1,)), input.numel()
    if offsets is None:
        starts = arange(0, n + 1, input.shape[1]) if n else arange(input.shape[0] + 1) * 0
    else:
        starts = offsets if include_last_offset else shape.cat([offsets, offsets.new_full((1,), n)])
        if not starts.numel() or starts[0].item() or starts[-1].item() != n or (starts[1:] < starts[:-1]).any().item():
            raise ValueError(f"embedding_bag: offsets must begin with 0 and not fall, up to {n}, the number of indices "
                             f"(which the last one is with include_last_offset), got {starts.tolist()}")
    starts = starts.long().to(input.device)
    lengths, bags = starts[1:] - starts[:-1], starts.shape[0] - 1
    bag = shape.repeat_interleave(arange(bags, device=input.device), lengths)
    rows = index.embedding(flat, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    kept = None if padding_idx is None else flat != padding_idx % weight.shape[0]
    if mode == "max":
        return _largest(rows, bag, kept, starts, int(lengths.max().item()) if bags else 0)
    if w is not None:
        rows = rows * w.reshape((-1, 1))
    if kept is not None:
        rows = rows * kept.to(rows.dtype).unsqueeze(1)
    y = index.index_add(rows.new_zeros(bags, weight.shape[1]), 0, bag, rows)
    if mode == "mean":
        ones = rows.new_ones(n) if kept is None else kept.to(rows.dtype)
        y = y / index.index_add(rows.new_zeros(bags), 0, bag, ones).clamp(min=1).unsqueeze(1)
    return y


def _largest(rows: Tensor, bag: Tensor, kept: Tensor | None, starts: Tensor, longest: int) -> Tensor:
    """The maximum over each bag, through a table (bags, longest) of places in rows; the last row is -inf."""
    bags, n = starts.shape[0] - 1, rows.shape[0]
    if not longest:
        return rows.new_zeros(bags, rows.shape[1])
    if kept is not None:
        rows = rows.masked_fill(kept.logical_not().unsqueeze(1), -math.inf)
    places, order = bag.new_full((bags, longest), n), arange(n, device=bag.device)
    places[bag, order - starts[bag]] = order
    rows = shape.cat([rows, rows.new_full((1, rows.shape[1]), -math.inf)])
    y = rows[places].max(1)[0]
    return y.masked_fill(y == -math.inf, 0.0)


# --- dropout that keeps mean and variance ----------------------------------------------------------------------------
_ALPHA = 1.7580993408473766  # minus the value that SELU goes to for large negative inputs


def _alpha_dropout(op: str, input: Tensor, p: float, training: bool, inplace: bool, noise_shape: Any) -> Tensor:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{op}: p must be in [0, 1], got {p}")
    if not training or p == 0 or not input.numel():
        return input
    if p == 1:
        return elementwise.mul_(input, 0.0) if inplace else input * 0.0
    a = 1.0 / math.sqrt((_ALPHA * _ALPHA * p + 1) * (1 - p))
    kept = random.bernoulli_(input.new_empty(noise_shape), 1 - p)
    shift = (kept - 1) * (_ALPHA * a) + _ALPHA * a * p
    return elementwise.add_(elementwise.mul_(input, kept * a), shift) if inplace else input * (kept * a) + shift


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that sets elements to SELU's lower limit, then scales and shifts all so that a mean of 0 and a variance
    of 1 stay.

    Raises:
        ValueError: p outside [0, 1].

    Source: Klambauer et al., 2017 (arXiv:1706.02515).
    """
    return _alpha_dropout("alpha_dropout", input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """alpha_dropout of whole channels of (N, C, ...)."""
    if training and input.dim() < 2:
        raise ValueError(f"feature_alpha_dropout: input must have at least 2 dimensions, got {tuple(input.shape)}")
    noise_shape = (*input.shape[:2], *[1] * (input.dim() - 2))
    return _alpha_dropout("feature_alpha_dropout", input, p, training, inplace, noise_shape)


# --- older names -----------------------------------------------------------------------------------------------------
def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "nearest" under its old name."""
    warnings.warn("upsample_nearest: use interpolate", stacklevel=2)
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "bilinear" and aligned corners under its old name."""
    warnings.warn("upsample_bilinear: use interpolate(..., align_corners=True)", stacklevel=2)
    return interpolate(input, size, scale_factor, "bilinear", True)


# --- attention of several heads --------------------------------------------------------------------------------------
def multi_head_attention_forward(
        query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
        in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
        add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None,
        training: bool = True, key_padding_mask: Tensor | None = None, need_weights: bool = True,
        attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None,
        k_proj_weight: Tensor | None = None, v_proj_weight: Tensor | None = None, static_k: Tensor | None = None,
        static_v: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False, *,
        batch_first: bool = False) -> tuple[Tensor, Tensor | None]:
    """What `nn.MultiheadAttention` does, which says what the arguments are, with its parameters given.

    static_k and static_v (N * num_heads, S, head_dim) take the projected key's and value's place.

    Raises:
        ValueError: sizes or masks that do not fit; is_causal without attn_mask.
        TypeError: a mask neither bool nor floating-point.
    """
    op, E, H = "multi_head_attention_forward", query.shape[-1], num_heads
    first = 0 if batch_first or query.dim() == 2 else 1
    if embed_dim_to_check != E or E % H:
        raise ValueError(f"{op}: query's last size must be embed_dim {embed_dim_to_check} and a multiple of num_heads "
                         f"{H}, got {E}")
    if is_causal and attn_mask is None:
        raise ValueError(f"{op}: is_causal is a hint about attn_mask, which must be given, got None")
    w, b = (None if use_separate_proj_weight else in_proj_weight), in_proj_bias
    if w is not None and query is key and key is value:  # one product does for operands that are the same tensor
        projected = matmul.linear(query, w, b).split(E, -1)
    elif w is not None and key is value:
        projected = (matmul.linear(query, w[:E], None if b is None else b[:E]),
                     *matmul.linear(key, w[E:], None if b is None else b[E:]).split(E, -1))
    else:
        weights: Any = w.split(E) if w is not None else (q_proj_weight, k_proj_weight, v_proj_weight)
        projected = tuple(map(matmul.linear, (query, key, value), weights, (None,) * 3 if b is None else b.split(E)))
    order = (0, 2, 1, 3) if first == 0 else (1, 2, 0, 3)
    q, k, v = ((t if t.dim() == 3 else t.unsqueeze(0)).unflatten(-1, (H, E // H)).permute(*order) for t in projected)
    N, L = q.shape[0], q.shape[2]
    k, v = (t if given is None else given.reshape((N, H, -1, E // H))
            for t, given in ((k, static_k), (v, static_v)))
    S, extra = k.shape[2], (bias_k is not None) + add_zero_attn
    causal = is_causal and key_padding_mask is None and not need_weights and not extra
    mask = None if causal else _merged_masks(attn_mask, key_padding_mask, (N, H, L, S), extra, q.dtype)
    if extra:
        k, v = (_with_extra_rows(t, bias, add_zero_attn) for t, bias in ((k, bias_k), (v, bias_v)))
    p = dropout_p if training else 0.0
    scores = None
    if need_weights:
        scores = q @ k.transpose(-2, -1) * (1.0 / math.sqrt(E // H))
        scores = random.dropout((scores if mask is None else scores + mask).softmax(-1), p)
        heads = scores @ v
        scores = scores.mean(1) if average_attn_weights else scores
        scores = scores if query.dim() == 3 else scores.squeeze(0)
    else:
        from tilewright.ops.attention import scaled_dot_product_attention
        heads = scaled_dot_product_attention(q, k, v, mask, p, causal)
    y = heads.permute(*((0, 2, 1, 3) if first == 0 else (2, 0, 1, 3))).reshape((*((N, L) if first == 0 else (L, N)), E))
    y = matmul.linear(y, out_proj_weight, out_proj_bias)
    return (y if query.dim() == 3 else y.squeeze(0)), scores


def _with_extra_rows(t: Tensor, bias: Tensor | None, zero: bool) -> Tensor:
    """A learned row and a row of zeros behind the keys' own (N, H, S, D), where they are wanted."""
    N, H, _, D = t.shape
    rows = [t] if bias is None else [t, bias.reshape((1, H, 1, D)).expand(N, H, 1, D)]
    return shape.cat([*rows, t.new_zeros(N, H, 1, D)] if zero else rows, 2)


def _merged_masks(attn_mask: Tensor | None, padding: Tensor | None, sizes: tuple[int, ...], extra: int,
                  dtype: Any) -> Tensor | None:
    """What is added to the scores (N, H, L, S + extra), or None."""
    N, H, L, S = sizes
    total = None
    for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", padding)):
        if mask is None:
            continue
        size = tuple(mask.shape)
        allowed: tuple = ((L, S), (N * H, L, S)) if name == "attn_mask" else ((N, S),)
        if name == "key_padding_mask" and N == 1 and size == (S,):
            size = (1, S)
        if size not in allowed:
            raise ValueError(f"multi_head_attention_forward: {name} must have shape "
                             f"{' or '.join(map(str, allowed))}, got {tuple(mask.shape)}")
        if mask.dtype is _engine.bool:
            mask = mask.new_zeros(mask.shape, dtype=dtype).masked_fill(mask, -math.inf)
        elif not mask.is_floating_point():
            raise TypeError(f"multi_head_attention_forward: {name} must be bool or floating-point, got {mask.dtype}")
        if name == "key_padding_mask":
            mask = mask.reshape((N, 1, 1, S))
        elif len(size) == 3:
            mask = mask.reshape((N, H, L, S))
        total = mask.to(dtype) if total is None else total + mask
    return total if total is None or not extra else pad.pad(total, (0, extra))
