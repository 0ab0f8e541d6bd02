"""Transforms that move pixels: flips, crops, sizes, rotations and warps of pictures and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tilewright as tw
from tilewright.nn.checks import check_number
from tilewright.tensor import Tensor
from tilewright.vision.transforms import functional as F
from tilewright.vision.transforms.base import Transform, integer, uniform
from tilewright.vision.transforms.functional import InterpolationMode


class _Moves(Transform):
    moves = True


class RandomHorizontalFlip(_Moves):
    """Left and right exchanged with probability p."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_number(type(self).__name__, "p", p, 0, 1)

    def draw(self, img: Any) -> Any:
        return uniform(0, 1) < self.p

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.hflip(img) if drawn else img

    def extra_repr(self) -> str:
        return f"p={self.p}"


class RandomVerticalFlip(RandomHorizontalFlip):
    """Top and bottom exchanged with probability p."""

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.vflip(img) if drawn else img


class RandomDepthFlip(RandomHorizontalFlip):
    """First and last slices of a volume (..., D, H, W) exchanged with probability p."""

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return img.flip(-3) if drawn else img


class Pad(_Moves):
    """`functional.pad`: 1, 2, 4 or (volumes) 6 widths; constant, edge, reflect or symmetric."""

    def __init__(self, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> None:
        super().__init__()
        self.padding, self.fill, self.padding_mode = padding, fill, padding_mode

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.pad(img, self.padding, 0 if nearest else self.fill, self.padding_mode)


class CenterCrop(_Moves):
    """The middle part: one size, (height, width), or (depth, height, width) of a volume."""

    def __init__(self, size: Any) -> None:
        super().__init__()
        self.size = F.sizes_of(size)

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.center_crop(img, self.size)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class FiveCrop(_Moves):
    """A tuple of the four corners and the middle."""

    def __init__(self, size: Any) -> None:
        super().__init__()
        self.size = F.sizes_of(size)

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.five_crop(img, self.size)


class TenCrop(FiveCrop):
    """FiveCrop of the picture and of its mirror image."""

    def __init__(self, size: Any, vertical_flip: bool = False) -> None:
        super().__init__(size)
        self.vertical_flip = vertical_flip

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.ten_crop(img, self.size, self.vertical_flip)


class Resize(_Moves):
    """`functional.resize`: (height, width), one number for the shorter side, or (depth, height, width) of a volume."""

    def __init__(self, size: Any, interpolation: Any = InterpolationMode.BILINEAR, max_size: int | None = None,
                 antialias: bool | None = True) -> None:
        super().__init__()
        self.size, self.interpolation, self.max_size, self.antialias = size, interpolation, max_size, antialias

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        how = InterpolationMode.NEAREST if nearest else self.interpolation
        return F.resize(img, self.size, how, self.max_size, self.antialias)

    def extra_repr(self) -> str:
        return f"size={self.size}, interpolation={self.interpolation}, max_size={self.max_size}"


class RandomCrop(_Moves):
    """A part at a random place, after padding; three sizes for volumes.

    Raises:
        ValueError: the picture is smaller than the crop, without pad_if_needed.
    """

    def __init__(self, size: Any, padding: Any = None, pad_if_needed: bool = False, fill: Any = 0,
                 padding_mode: str = "constant") -> None:
        super().__init__()
        self.size, self.padding, self.pad_if_needed = F.sizes_of(size), padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode

    @staticmethod
    def get_params(img: Any, output_size: Sequence[int]) -> tuple[int, ...]:
        """(top, left, height, width), or front, top and left before the three sizes of a volume."""
        have = F._spatial(img, len(output_size))
        if any(n < m for n, m in zip(have, output_size, strict=True)):
            raise ValueError(f"RandomCrop: size must be at most the picture's {tuple(have)}, got {tuple(output_size)}")
        return (*(integer(n - m + 1) for n, m in zip(have, output_size, strict=True)), *output_size)

    def _padded(self, img: Any, fill: Any) -> Any:
        if self.padding is not None:
            img = F.pad(img, self.padding, fill, self.padding_mode)
        if self.pad_if_needed:
            lack = [max(m - n, 0) for n, m in zip(F._spatial(img, len(self.size)), self.size, strict=True)][::-1]
            if any(lack):
                img = F.pad(img, lack * 2, fill, self.padding_mode)
        return img

    def draw(self, img: Any) -> Any:
        return self.get_params(self._padded(img, 0), self.size)

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        dims = len(self.size)
        return F.crop_at(self._padded(img, 0 if nearest else self.fill), drawn[:dims], drawn[dims:])

    def extra_repr(self) -> str:
        return f"size={self.size}, padding={self.padding}"


class RandomResizedCrop(_Moves):
    """A part of random area (a share in `scale`) and shape (width to height in `ratio`), resized to `size`."""

    def __init__(self, size: Any, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3),
                 interpolation: Any = InterpolationMode.BILINEAR, antialias: bool | None = True) -> None:
        super().__init__()
        self.size, self.scale, self.ratio = F.sizes_of(size), scale, ratio
        self.interpolation, self.antialias = interpolation, antialias
        if not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"RandomResizedCrop: scale and ratio must be ranges above 0, got {scale} and {ratio}")

    @staticmethod
    def get_params(img: Any, scale: Sequence[float], ratio: Sequence[float]) -> tuple[int, int, int, int]:
        """(top, left, height, width); the middle, of the nearest shape that is allowed, after ten tries in vain."""
        _, height, width = F.get_dimensions(img)
        for _ in range(10):
            area = height * width * uniform(*scale)
            aspect = math.exp(uniform(math.log(ratio[0]), math.log(ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return integer(height - h + 1), integer(width - w + 1), h, w
        aspect = min(max(width / height, ratio[0]), ratio[1])
        h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
        return (height - h) // 2, (width - w) // 2, h, w

    def draw(self, img: Any) -> Any:
        return self.get_params(img, self.scale, self.ratio)

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        how = InterpolationMode.NEAREST if nearest else self.interpolation
        top, left, height, width = drawn
        return F.resized_crop(img, top, left, height, width, self.size, how, self.antialias)

    def extra_repr(self) -> str:
        return f"size={self.size}, scale={self.scale}, ratio={self.ratio}"


def _symmetric(owner: str, name: str, value: Any) -> tuple[float, ...]:
    """(-v, v) of a number; a pair (or two) as it is."""
    if isinstance(value, int | float):
        return (-check_number(owner, name, value, low=0), value)
    if len(value) not in (2, 4):
        raise ValueError(f"{owner}: {name} must be a number or a range, got {value}")
    return tuple(value)


class _Warp(_Moves):
    """A transform with an interpolation and a fill; masks take nearest and 0."""

    def __init__(self, interpolation: Any, fill: Any) -> None:
        super().__init__()
        self.interpolation, self.fill = interpolation, fill

    def how(self, nearest: bool) -> dict[str, Any]:
        return {"interpolation": InterpolationMode.NEAREST if nearest else self.interpolation,
                "fill": 0 if nearest else self.fill}


class RandomRotation(_Warp):
    """Turned against the clock by a random angle of the range `degrees`, or (-degrees, degrees)."""

    def __init__(self, degrees: Any, interpolation: Any = InterpolationMode.NEAREST, expand: bool = False,
                 center: Sequence[float] | None = None, fill: Any = 0) -> None:
        super().__init__(interpolation, fill)
        self.degrees, self.expand, self.center = _symmetric("RandomRotation", "degrees", degrees), expand, center

    @staticmethod
    def get_params(degrees: Sequence[float]) -> float:
        """The angle."""
        return uniform(degrees[0], degrees[1])

    def draw(self, img: Any) -> Any:
        return self.get_params(self.degrees)

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.rotate(img, drawn, expand=self.expand, center=self.center, **self.how(nearest))

    def extra_repr(self) -> str:
        return f"degrees={self.degrees}"


class RandomAffine(_Warp):
    """Turned, moved by shares of the size, scaled and sheared at random.

    degrees and shear are ranges of degrees, or widths round 0 (shear of x, or with four numbers x and y); translate is
    the largest share of (width, height); scale is a range.
    """

    def __init__(self, degrees: Any, translate: Sequence[float] | None = None, scale: Sequence[float] | None = None,
                 shear: Any = None, interpolation: Any = InterpolationMode.NEAREST, fill: Any = 0,
                 center: Sequence[float] | None = None) -> None:
        super().__init__(interpolation, fill)
        self.degrees, self.translate, self.scale = _symmetric("RandomAffine", "degrees", degrees), translate, scale
        self.shear = None if shear is None else _symmetric("RandomAffine", "shear", shear)
        self.center = center
        if translate is not None and not all(0 <= t <= 1 for t in translate):
            raise ValueError(f"RandomAffine: translate must be shares in [0, 1], got {translate}")
        if scale is not None and not all(s > 0 for s in scale):
            raise ValueError(f"RandomAffine: scale must be > 0, got {scale}")

    @staticmethod
    def get_params(degrees: Sequence[float], translate: Any, scale_ranges: Any, shears: Any,
                   img_size: Sequence[int]) -> tuple:
        """(angle, (x, y) in pixels, scale, (shear x, shear y)); img_size is (width, height)."""
        angle = uniform(degrees[0], degrees[1])
        move = (0, 0) if translate is None else tuple(
            round(uniform(-t * n, t * n)) for t, n in zip(translate, img_size, strict=True))
        scale = 1.0 if scale_ranges is None else uniform(*scale_ranges)
        x = 0.0 if shears is None else uniform(shears[0], shears[1])
        y = uniform(shears[2], shears[3]) if shears is not None and len(shears) == 4 else 0.0
        return angle, move, scale, (x, y)

    def draw(self, img: Any) -> Any:
        return self.get_params(self.degrees, self.translate, self.scale, self.shear, F.get_image_size(img))

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        angle, move, scale, shear = drawn
        return F.affine(img, angle, move, scale, shear, center=self.center, **self.how(nearest))

    def extra_repr(self) -> str:
        return f"degrees={self.degrees}, translate={self.translate}, scale={self.scale}, shear={self.shear}"


class RandomAffine3d(_Warp):
    """A volume (..., D, H, W) turned about its axes z, y and x (a width or range of degrees each, or one for all),
    moved by shares of (depth, height, width) and scaled at random."""

    def __init__(self, degrees: Any, translate: Sequence[float] | None = None, scale: Sequence[float] | None = None,
                 interpolation: Any = InterpolationMode.BILINEAR, fill: Any = 0) -> None:
        super().__init__(interpolation, fill)
        each = [degrees] * 3 if isinstance(degrees, int | float) else list(degrees)
        self.degrees = [_symmetric("RandomAffine3d", "degrees", d) for d in each]
        self.translate, self.scale = translate or (0.0, 0.0, 0.0), scale or (1.0, 1.0)
        if len(self.degrees) != 3 or len(self.translate) != 3:
            raise ValueError(f"RandomAffine3d: degrees and translate must be of three axes, got {degrees}, {translate}")

    def draw(self, img: Any) -> Any:
        move = [uniform(-t * n, t * n) for t, n in zip(self.translate, img.shape[-3:], strict=True)]
        return [uniform(d[0], d[1]) for d in self.degrees], move, uniform(*self.scale)

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.affine3d(img, drawn[0], drawn[1], drawn[2], **self.how(nearest))


class RandomPerspective(_Warp):
    """Seen from a random side with probability p: each corner moves inwards by up to half distortion_scale."""

    def __init__(self, distortion_scale: float = 0.5, p: float = 0.5,
                 interpolation: Any = InterpolationMode.BILINEAR, fill: Any = 0) -> None:
        super().__init__(interpolation, fill)
        self.p = check_number("RandomPerspective", "p", p, 0, 1)
        self.distortion_scale = check_number("RandomPerspective", "distortion_scale", distortion_scale, 0, 1)

    @staticmethod
    def get_params(width: int, height: int, distortion_scale: float) -> tuple[list, list]:
        """The corners (x, y), and where they come to lie."""
        dx, dy = int(distortion_scale * (width // 2)) + 1, int(distortion_scale * (height // 2)) + 1
        corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
        moved = [[abs(x - integer(dx)), abs(y - integer(dy))] for x, y in corners]
        return corners, moved

    def draw(self, img: Any) -> Any:
        width, height = F.get_image_size(img)
        return self.get_params(width, height, self.distortion_scale) if uniform(0, 1) < self.p else None

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return img if drawn is None else F.perspective(img, drawn[0], drawn[1], **self.how(nearest))


class ElasticTransform(_Warp):
    """Pixels moved by smooth random noise, alpha pixels strong and sigma pixels wide; three numbers each for volumes.

    Simard et al., Best practices for convolutional neural networks, ICDAR 2003.
    """

    def __init__(self, alpha: Any = 50.0, sigma: Any = 5.0, interpolation: Any = InterpolationMode.BILINEAR,
                 fill: Any = 0) -> None:
        super().__init__(interpolation, fill)
        self.alpha = [float(alpha)] * 2 if isinstance(alpha, int | float) else [float(a) for a in alpha]
        wide = len(self.alpha)
        self.sigma = [float(sigma)] * wide if isinstance(sigma, int | float) else [float(s) for s in sigma]
        if wide not in (2, 3) or len(self.sigma) != wide:
            raise ValueError(f"ElasticTransform: alpha and sigma must be 1, 2 or 3 numbers, got {alpha}, {sigma}")

    @staticmethod
    def get_params(alpha: Sequence[float], sigma: Sequence[float], size: Sequence[int]) -> Tensor:
        """The displacement (1, *size, dims) in half sizes, x first."""
        moves = []
        for a, s, n in zip(alpha, sigma, size, strict=True):
            noise = tw.rand(1, 1, *size) * 2 - 1
            if s > 0:
                noise = F._blur(noise, [min(int(8 * s + 1) | 1, 2 * m - 1) for m in size], [s] * len(size))
            moves.append(noise[0] * (a / n))
        return tw.stack(moves, -1)

    def draw(self, img: Any) -> Any:
        return self.get_params(self.alpha, self.sigma, F._spatial(img, len(self.alpha)))

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.elastic_transform(img, drawn, **self.how(nearest))
