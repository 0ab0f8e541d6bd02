"""Modules that move values or measure distances."""

from __future__ import annotations

from typing import Any

from tilewright.nn import functional as F
from tilewright.nn.module import Module
from tilewright.tensor import Tensor


class _Options(Module):
    """A function of `nn.functional` with the options that the constructor took."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.__dict__.update(options)
        self._options = tuple(options)

    def _given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._options}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self._given().items())


class PixelShuffle(_Options):
    """(..., C r^2, H, W) to (..., C, H r, W r)."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__(upscale_factor=upscale_factor)

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(_Options):
    """(..., C, H r, W r) to (..., C r^2, H, W)."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__(downscale_factor=downscale_factor)

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)


class ChannelShuffle(_Options):
    """(N, C, ...) with the channels of `groups` groups mixed; see F.channel_shuffle."""

    def __init__(self, groups: int) -> None:
        super().__init__(groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)


class Unfold(_Options):
    """Patches as columns: (N, C, H, W) to (N, C kh kw, L)."""

    def __init__(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> None:
        super().__init__(kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, **self._given())


class Fold(_Options):
    """The sum of patches at their places: (N, C kh kw, L) to (N, C, H, W)."""

    def __init__(self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
                 stride: Any = 1) -> None:
        super().__init__(output_size=output_size, kernel_size=kernel_size, dilation=dilation, padding=padding,
                         stride=stride)

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, **self._given())


class CosineSimilarity(_Options):
    """The cosine of the angle between two tensors along `dim`."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__(dim=dim, eps=eps)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)

    def extra_repr(self) -> str:
        return ""


class PairwiseDistance(_Options):
    """The p-norm of x1 - x2 + eps over the last dimension."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__(p=p, eps=eps, keepdim=keepdim)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)

    def extra_repr(self) -> str:
        return ""
