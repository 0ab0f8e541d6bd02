"""Linear, Bilinear, and the modules that only reshape or look up: Identity, Flatten, Unflatten, Embedding, bags."""

from __future__ import annotations

import math
from typing import Any

from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.checks import check_choice, check_size
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
        self.register_parameter("bias", empty_parameter((out_features,), device, dtype, bias))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        init.default_linear_(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _label(self) -> str:
        return f"{type(self).__name__} {self.in_features} -> {self.out_features}"


class NonDynamicallyQuantizableLinear(Linear):
    """Linear, under the name that PyTorch gives to an attention's output projection."""


class Bilinear(Module):
    """y_o = x1^T W_o x2 + b_o, with W (out_features, in1_features, in2_features) and b (out_features,).

    Both start uniform in +-1/sqrt(in1_features). x1 is (..., in1_features), x2 (..., in2_features).

    Raises:
        ValueError: a size below 1; on a call, last dimensions that are not those.
    """

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.in1_features = check_size("Bilinear", "in1_features", in1_features, 1)
        self.in2_features = check_size("Bilinear", "in2_features", in2_features)
        self.out_features = check_size("Bilinear", "out_features", out_features)
        self.weight = empty_parameter((out_features, in1_features, in2_features), device, dtype)
        self.register_parameter("bias", empty_parameter((out_features,), device, dtype, bias))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        bound = 1 / math.sqrt(self.in1_features)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
                f"out_features={self.out_features}, bias={self.bias is not None}")


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


class _Table(Module):
    """What Embedding and EmbeddingBag share: a table of num_embeddings rows, started standard normal."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, max_norm: float | None,
                 norm_type: float, scale_grad_by_freq: bool, sparse: bool, weight: Tensor | None,
                 device: Any, dtype: Any) -> None:
        super().__init__()
        owner = type(self).__name__
        if sparse:
            raise NotImplementedError(f"{owner}: sparse gradients are not offered, got sparse={sparse!r}; leave it "
                                      f"out, and use a dense optimizer such as Adam")
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.sparse = False
        self.num_embeddings = check_size(owner, "num_embeddings", num_embeddings)
        self.embedding_dim = check_size(owner, "embedding_dim", embedding_dim)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"{owner}: padding_idx must be in [-{num_embeddings}, {num_embeddings}), got "
                                 f"{padding_idx}")
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        if weight is None:
            self.weight = empty_parameter((num_embeddings, embedding_dim), device, dtype)
            self.reset_parameters()
        elif tuple(weight.shape) == (num_embeddings, embedding_dim):
            self.weight = Parameter(weight.detach())
        else:
            raise ValueError(f"{owner}: _weight must have shape {(num_embeddings, embedding_dim)}, got "
                             f"{tuple(weight.shape)}")

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            init.zeros_(self.weight.data[self.padding_idx])

    @classmethod
    def _of(cls, embeddings: Tensor, freeze: bool, **kwargs: Any) -> Any:
        if embeddings.dim() != 2:
            raise ValueError(f"{cls.__name__}: from_pretrained takes a 2-d tensor, got {tuple(embeddings.shape)}")
        made = cls(*embeddings.shape, _weight=embeddings, **kwargs)  # type: ignore[arg-type, call-arg, misc]
        made.weight.requires_grad_(not freeze)
        return made

    def extra_repr(self) -> str:
        parts = [f"{self.num_embeddings}, {self.embedding_dim}"]
        for name, default in (("padding_idx", None), ("max_norm", None), ("norm_type", 2.0),
                              ("scale_grad_by_freq", False)):
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)

    def _label(self) -> str:
        return f"{type(self).__name__} {self.num_embeddings} x {self.embedding_dim}"


class Embedding(_Table):
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
                 sparse: bool = False, _weight: Tensor | None = None, _freeze: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
                         _weight, device, dtype)
        self.weight.requires_grad_(not _freeze)

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None,
                        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
                        sparse: bool = False) -> Embedding:
        """An Embedding whose table is `embeddings` (rows, dim); not trained unless freeze is False."""
        return cls._of(embeddings, freeze, padding_idx=padding_idx, max_norm=max_norm, norm_type=norm_type,
                       scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type,
                           self.scale_grad_by_freq)


class EmbeddingBag(_Table):
    """The sum, mean or max (`mode`) over bags of an embedding table's rows; see F.embedding_bag.

    Raises:
        ValueError: another mode; on a call, offsets or per_sample_weights that do not fit.
        NotImplementedError: sparse.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None, norm_type: float = 2.0,
                 scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                 _weight: Tensor | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
                         _weight, device, dtype)
        self.mode = check_choice("EmbeddingBag", "mode", mode, ("sum", "mean", "max"))
        self.include_last_offset = include_last_offset

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, max_norm: float | None = None,
                        norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
                        sparse: bool = False, include_last_offset: bool = False,
                        padding_idx: int | None = None) -> EmbeddingBag:
        """An EmbeddingBag whose table is `embeddings` (rows, dim); not trained unless freeze is False."""
        return cls._of(embeddings, freeze, max_norm=max_norm, norm_type=norm_type, mode=mode, sparse=sparse,
                       scale_grad_by_freq=scale_grad_by_freq, include_last_offset=include_last_offset,
                       padding_idx=padding_idx)

    def forward(self, input: Tensor, offsets: Tensor | None = None,
                per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq,
                               self.mode, False, per_sample_weights, self.include_last_offset, self.padding_idx)

    def extra_repr(self) -> str:
        parts = [f"{self.num_embeddings}, {self.embedding_dim}"]
        for name, default in (("max_norm", None), ("norm_type", 2.0), ("scale_grad_by_freq", False)):
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        parts.append(f"mode={self.mode!r}")
        return ", ".join(parts + ([] if self.padding_idx is None else [f"padding_idx={self.padding_idx}"]))
