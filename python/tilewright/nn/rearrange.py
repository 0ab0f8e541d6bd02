"""Modules that move values, measure distances, or stand for several devices."""

from __future__ import annotations

from collections.abc import Sequence
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


class PairwiseDistance(_Options):
    """The p-norm of x1 - x2 + eps over the last dimension."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__(p=p, eps=eps, keepdim=keepdim)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)


class DataParallel(Module):
    """The module itself, on its one device, under the name `.module` that saved weights expect.

    Raises:
        NotImplementedError: several devices: a batch is not spread over GPUs here.
    """

    def __init__(self, module: Module, device_ids: Sequence | None = None, output_device: Any = None,
                 dim: int = 0) -> None:
        super().__init__()
        if device_ids is not None and len(device_ids) > 1:
            raise NotImplementedError(f"DataParallel: a batch cannot be spread over several devices, got device_ids "
                                      f"{list(device_ids)}; leave them out")
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)
