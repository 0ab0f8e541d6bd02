"""Linear, and the modules that only reshape or look up: Identity, Flatten, Unflatten, Embedding."""

from __future__ import annotations

import math
from typing import Any

from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.checks import check_size
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter, empty_parameter
from tilewright.tensor import Tensor


class Identity(Module):
    """Returns its input; takes and ignores any argument, as a stand-in for another layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class Linear(Module):
    """y = x W^T + b, with W (out_features, in_features) and b (out_features,).

    Both start uniform in +-1/sqrt(in_features). x is (..., in_features), y is (..., out_features).

    Raises:
        ValueError: a negative size; on a call, a last dimension that is not in_features.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> tuple(nn.Linear(20, 30)(tw.zeros(128, 20)).shape)
    (128, 30)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.in_features = check_size("Linear", "in_features", in_features)
        self.out_features = check_size("Linear", "out_features", out_features)
        self.weight = empty_parameter((out_features, in_features), device, dtype)
        self.bias = empty_parameter((out_features,), device, dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.default_linear_(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _label(self) -> str:
        return f"{type(self).__name__} {self.in_features} -> {self.out_features}"


class Flatten(Module):
    """Merges the dimensions start_dim to end_dim into one; by default all but the batch."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits dimension `dim` into `unflattened_size`; the reverse of Flatten. One size may be -1."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        if not isinstance(dim, int):
            raise TypeError(f"Unflatten: dim must be an int (named dimensions are not offered), got {dim!r}")
        if not isinstance(unflattened_size, (tuple, list)):
            raise TypeError(f"Unflatten: unflattened_size must be a tuple of ints, got {unflattened_size!r}")
        self.dim = dim
        self.unflattened_size = tuple(check_size("Unflatten", "unflattened_size", n, -1) for n in unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        shape = tuple(input.shape)
        if not -len(shape) <= self.dim < len(shape):
            raise IndexError(f"Unflatten: dim must be in [{-len(shape)}, {len(shape)}), got {self.dim}")
        dim = self.dim % len(shape)
        known = math.prod(n for n in self.unflattened_size if n != -1)
        fits = known == shape[dim] if -1 not in self.unflattened_size else known and shape[dim] % known == 0
        if not fits or self.unflattened_size.count(-1) > 1:
            raise ValueError(f"Unflatten: sizes must multiply to that of dim {dim}, got {self.unflattened_size} for "
                             f"{shape[dim]}")
        return input.reshape(shape[:dim] + self.unflattened_size + shape[dim + 1:])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Embedding(Module):
    """y[i] = W[x[i]]: a table of num_embeddings rows of embedding_dim values, started standard normal.

    The row `padding_idx` starts at zero and gets no gradient. max_norm scales the rows looked up, in place, to at most
    that norm_type norm; scale_grad_by_freq divides an index's gradient by how often it occurs. x holds integers of any
    shape, y is (*x.shape, embedding_dim).

    Raises:
        IndexError: an index outside [0, num_embeddings).
        NotImplementedError: sparse.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
                 max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
                 sparse: bool = False, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        if sparse:
            raise NotImplementedError(f"Embedding: sparse is not offered, got {sparse!r}")
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.num_embeddings = check_size("Embedding", "num_embeddings", num_embeddings)
        self.embedding_dim = check_size("Embedding", "embedding_dim", embedding_dim)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"Embedding: padding_idx must be in [-{num_embeddings}, {num_embeddings}), got "
                                 f"{padding_idx}")
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        self.weight = empty_parameter((num_embeddings, embedding_dim), device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.normal_(self.weight)
        if self.padding_idx is not None:
            init.zeros_(self.weight.data[self.padding_idx])

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None,
                        **kwargs: Any) -> Embedding:
        """An Embedding whose table is `embeddings` (rows, dim); not trained unless freeze is False."""
        if embeddings.dim() != 2:
            raise ValueError(f"Embedding: from_pretrained takes a 2-d tensor, got {tuple(embeddings.shape)}")
        rows, columns = embeddings.shape
        layer = cls(rows, columns, padding_idx=padding_idx, **kwargs)
        layer.weight = Parameter(embeddings.detach(), requires_grad=not freeze)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type,
                           self.scale_grad_by_freq)

    def extra_repr(self) -> str:
        parts = [f"{self.num_embeddings}, {self.embedding_dim}"]
        for name, default in (("padding_idx", None), ("max_norm", None), ("norm_type", 2.0),
                              ("scale_grad_by_freq", False)):
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)

    def _label(self) -> str:
        return f"{type(self).__name__} {self.num_embeddings} x {self.embedding_dim}"
