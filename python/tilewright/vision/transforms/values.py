"""Transforms of values: colours, blur, noise of missing parts, and mixtures of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tilewright as tw
from tilewright.nn import Module
from tilewright.nn.checks import check_number
from tilewright.tensor import Tensor
from tilewright.utils.data.sampler import draw_seed
from tilewright.vision.transforms import functional as F
from tilewright.vision.transforms.base import Transform, integer, uniform

Range = float | Sequence[float]


class Normalize(Transform):
    """(x - mean_c) / std_c for each channel of a float Tensor (..., C, H, W); dims=3 for volumes (..., C, D, H, W)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False, dims: int = 2) -> None:
        super().__init__()
        self.mean, self.std, self.inplace, self.dims = mean, std, inplace, dims

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.normalize(img, self.mean, self.std, self.inplace, self.dims)

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"


class Grayscale(Transform):
    """Gray, in one channel or three equal ones."""

    def __init__(self, num_output_channels: int = 1) -> None:
        super().__init__()
        self.num_output_channels = num_output_channels

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.rgb_to_grayscale(img, self.num_output_channels)


class RandomGrayscale(Transform):
    """Gray with probability p, in as many channels as before."""

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p = check_number("RandomGrayscale", "p", p, 0, 1)

    def draw(self, img: Any) -> Any:
        return uniform(0, 1) < self.p

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.rgb_to_grayscale(img, F.get_dimensions(img)[0]) if drawn else img


class RandomInvert(RandomGrayscale):
    """White minus the picture with probability p."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.invert(img) if drawn else img


def _range(name: str, value: Range, center: float, low: float, high: float) -> tuple[float, float] | None:
    if isinstance(value, int | float):
        value = (max(low, center - value), center + value) if value >= 0 else (-math.inf, 0)
    bounds = (float(value[0]), float(value[1]))
    if not low <= bounds[0] <= bounds[1] <= high:
        raise ValueError(f"ColorJitter: {name} must be a width >= 0 or a range in [{low}, {high}], got {value}")
    return None if bounds == (center, center) else bounds


class ColorJitter(Transform):
    """Random brightness, contrast, saturation and hue, in a random order.

    A number v draws a factor from [max(0, 1 - v), 1 + v], for hue a turn from [-v, v]; a pair is the range itself.
    """

    def __init__(self, brightness: Range = 0, contrast: Range = 0, saturation: Range = 0, hue: Range = 0) -> None:
        super().__init__()
        self.brightness = _range("brightness", brightness, 1, 0, math.inf)
        self.contrast = _range("contrast", contrast, 1, 0, math.inf)
        self.saturation = _range("saturation", saturation, 1, 0, math.inf)
        self.hue = _range("hue", (-hue, hue) if isinstance(hue, int | float) else hue, 0, -0.5, 0.5)

    @staticmethod
    def get_params(brightness: Any, contrast: Any, saturation: Any, hue: Any) -> tuple:
        """(order of the four, brightness, contrast, saturation, hue); None for what stays."""
        order = tw.randperm(4)
        return (order, *(None if r is None else uniform(*r) for r in (brightness, contrast, saturation, hue)))

    def draw(self, img: Any) -> Any:
        return self.get_params(self.brightness, self.contrast, self.saturation, self.hue)

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
        for i in drawn[0].tolist():
            if drawn[1 + i] is not None:
                img = adjust[i](img, drawn[1 + i])
        return img

    def extra_repr(self) -> str:
        return f"brightness={self.brightness}, contrast={self.contrast}, saturation={self.saturation}, hue={self.hue}"


class GaussianBlur(Transform):
    """Blurs by Gaussian weights over kernel_size odd pixels, of a random deviation in the range sigma."""

    def __init__(self, kernel_size: Any, sigma: Range = (0.1, 2.0)) -> None:
        super().__init__()
        self.kernel_size = [kernel_size] * 2 if isinstance(kernel_size, int) else list(kernel_size)
        low, high = (sigma, sigma) if isinstance(sigma, int | float) else (sigma[0], sigma[-1])
        if not 0 < low <= high:
            raise ValueError(f"GaussianBlur: sigma must be > 0 and a range, got {sigma}")
        self.sigma = (float(low), float(high))

    @staticmethod
    def get_params(sigma_min: float, sigma_max: float) -> float:
        """The deviation."""
        return uniform(sigma_min, sigma_max)

    def draw(self, img: Any) -> Any:
        return self.get_params(*self.sigma)

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.gaussian_blur(img, self.kernel_size, [drawn] * len(self.kernel_size))


class RandomErasing(Transform):
    """Fills a random rectangle of a Tensor with `value`, or with normal noise for value="random", with probability p.

    `scale` is the range of its share of the area, `ratio` that of height to width. Zhong et al., arXiv:1708.04896.
    """

    def __init__(self, p: float = 0.5, scale: Sequence[float] = (0.02, 0.33), ratio: Sequence[float] = (0.3, 3.3),
                 value: Any = 0, inplace: bool = False) -> None:
        super().__init__()
        self.p = check_number("RandomErasing", "p", p, 0, 1)
        if not 0 <= scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"RandomErasing: scale must be a range in [0, 1], ratio above 0, got {scale}, {ratio}")
        if isinstance(value, str) and value != "random":
            raise ValueError(f"RandomErasing: value must be a number, one a channel, or 'random', got {value!r}")
        self.scale, self.ratio, self.value, self.inplace = scale, ratio, value, inplace

    @staticmethod
    def get_params(img: Tensor, scale: Sequence[float], ratio: Sequence[float], value: Any = None) -> tuple:
        """(top, left, height, width, values); the whole picture itself when no rectangle fits in ten tries."""
        channels, height, width = img.shape[-3:]
        for _ in range(10):
            area = height * width * uniform(*scale)
            aspect = math.exp(uniform(math.log(ratio[0]), math.log(ratio[1])))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                fill = tw.randn(channels, h, w) if value is None else tw.tensor(value).reshape(-1, 1, 1)
                if fill.shape[0] not in (1, channels):
                    raise ValueError(f"RandomErasing: value must be one number or {channels}, got {value}")
                return integer(height - h + 1), integer(width - w + 1), h, w, fill.to(img.device, img.dtype)
        return 0, 0, height, width, img

    def draw(self, img: Any) -> Any:
        if uniform(0, 1) >= self.p:
            return None
        return self.get_params(img, self.scale, self.ratio, None if self.value == "random" else self.value)

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        if drawn is None:
            return img
        top, left, height, width, values = drawn
        return F.erase(img, top, left, height, width, values, self.inplace)


class _Mixture(Module):
    """What MixUp and CutMix share: a share lam of each picture and of its label, the rest of its neighbour's."""

    def __init__(self, *, alpha: float = 1.0, num_classes: int | None = None,
                 labels_getter: Callable | None = None) -> None:
        super().__init__()
        self.alpha = check_number(type(self).__name__, "alpha", alpha, low=1e-9)
        self.num_classes, self.labels_getter = num_classes, labels_getter

    def mix(self, images: Tensor, lam: float) -> tuple[Tensor, float]:
        """The mixed images, and the share that is their own."""
        raise NotImplementedError

    def forward(self, images: Tensor, labels: Any = None) -> tuple[Tensor, Tensor]:
        owner = type(self).__name__
        if labels is None:
            images, labels = images  # a batch as a DataLoader gives it
        if self.labels_getter is not None:
            labels = self.labels_getter((images, labels))
        if images.ndim < 4 or not images.is_floating_point() or labels.shape[:1] != images.shape[:1]:
            raise ValueError(f"{owner}: expects float images (N, C, H, W) and N labels, got {images.dtype} "
                             f"{tuple(images.shape)} and {tuple(labels.shape)}")
        if labels.ndim == 1:
            if self.num_classes is None:
                raise ValueError(f"{owner}: labels that are class numbers need num_classes")
            labels = tw.nn.functional.one_hot(labels, self.num_classes)
        lam = float(np.random.default_rng(draw_seed()).beta(self.alpha, self.alpha))
        mixed, lam = self.mix(images, lam)
        labels = labels.to(images.dtype)
        return mixed, labels * lam + labels.roll(1, 0) * (1 - lam)


class MixUp(_Mixture):
    """A batch's (images, labels) as lam times each plus 1 - lam times its neighbour's, lam of Beta(alpha, alpha).

    Labels are class numbers, with num_classes, or (N, classes). Zhang et al., arXiv:1710.09412.

    >>> import tilewright as tw
    >>> images, labels = MixUp(num_classes=3)(tw.ones(2, 1, 4, 4), tw.tensor([0, 2]))
    >>> labels.sum(1).tolist()
    [1.0, 1.0]
    """

    def mix(self, images: Tensor, lam: float) -> tuple[Tensor, float]:
        return images * lam + images.roll(1, 0) * (1 - lam), lam


class CutMix(_Mixture):
    """A batch's (images, labels) with a rectangle of each taken from its neighbour, labels by the share of the area.

    Yun et al., arXiv:1905.04899.
    """

    def mix(self, images: Tensor, lam: float) -> tuple[Tensor, float]:
        height, width = images.shape[-2:]
        x, y, r = integer(width), integer(height), 0.5 * math.sqrt(1 - lam)
        left, right = (min(max(int(x + s * r * width), 0), width) for s in (-1, 1))
        top, bottom = (min(max(int(y + s * r * height), 0), height) for s in (-1, 1))
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
        return mixed, 1 - (right - left) * (bottom - top) / (width * height)
