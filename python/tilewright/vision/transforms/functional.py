"""Transforms of one picture as functions, under the names of torchvision.transforms.functional.

A picture is a Tensor (..., C, H, W), a PIL image, or a NumPy array (H, W) or (H, W, C), and so is the result. Integer
pictures are computed in float32 and rounded. A size of three numbers, or dims=3, means volumes (..., C, D, H, W).
"""

from __future__ import annotations

import enum
import functools
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

import tilewright as tw
from tilewright.nn import functional as F
from tilewright.tensor import Tensor


class InterpolationMode(enum.Enum):
    """How values between pixels are made."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


def _is_pil(img: Any) -> bool:
    return type(img).__module__.startswith("PIL.")


def _pillow(op: str) -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        raise RuntimeError(f"{op}: pictures need Pillow, which is not installed; pip install pillow") from None


Function = TypeVar("Function", bound=Callable)


def any_picture(function: Function) -> Function:
    """Lets a function of a Tensor take and return PIL images and NumPy arrays too."""
    @functools.wraps(function)
    def wrapped(img: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(img, Tensor):
            if img.ndim < 2:
                raise ValueError(f"{function.__name__}: a picture must be (..., H, W), got {tuple(img.shape)}")
            return function(img, *args, **kwargs)
        if _is_pil(img):
            def back(y: Tensor) -> Any:
                keep = img.mode if y.shape[0] == len(img.getbands()) and img.mode != "1" else None
                made = to_pil_image(y, keep)
                if keep == "P":
                    made.putpalette(img.getpalette())
                return made

            y = function(pil_to_tensor(img), *args, **kwargs)
        elif isinstance(img, np.ndarray) and img.ndim in (2, 3):
            def back(y: Tensor) -> Any:
                return (y[0] if img.ndim == 2 and y.shape[0] == 1 else y.permute(1, 2, 0)).contiguous().numpy()

            x = tw.tensor(img)
            y = function(x.unsqueeze(0) if img.ndim == 2 else x.permute(2, 0, 1), *args, **kwargs)
        else:
            raise TypeError(f"{function.__name__}: expects a Tensor, a PIL image or an array (H, W[, C]), got "
                            f"{type(img).__name__}")
        return tuple(map(back, y)) if isinstance(y, tuple) else back(y)

    return cast(Function, wrapped)


def _top(dtype: Any) -> float:
    """The value of white."""
    return 1.0 if dtype.is_floating_point else float(tw.iinfo(dtype).max)


def _float(img: Tensor) -> Tensor:
    return img if img.is_floating_point() else img.float()


def _like(y: Tensor, dtype: Any) -> Tensor:
    """Rounded, where the picture was of integers."""
    if dtype.is_floating_point or dtype == tw.bool:
        return y.to(dtype)
    limits = tw.iinfo(dtype)
    return y.round().clamp(limits.min, limits.max).to(dtype)


def get_dimensions(img: Any) -> list[int]:
    """[channels, height, width] of a picture."""
    if _is_pil(img):
        return [len(img.getbands()), img.height, img.width]
    if isinstance(img, np.ndarray):
        return [1 if img.ndim == 2 else img.shape[2], *img.shape[:2]]
    return [img.shape[-3] if img.ndim > 2 else 1, *img.shape[-2:]]


def get_image_size(img: Any) -> list[int]:
    """[width, height] of a picture."""
    return get_dimensions(img)[:0:-1]


def _spatial(img: Any, dims: int) -> list[int]:
    return list(img.shape[-dims:]) if isinstance(img, Tensor) else get_dimensions(img)[1:]


# --- kinds of picture ------------------------------------------------------------------------------------------------
def pil_to_tensor(pic: Any) -> Tensor:
    """The PIL image as (C, H, W), its values as they are: uint8, or int32 and float32 of modes I and F.

    Raises:
        TypeError: not a PIL image.
    """
    if not _is_pil(pic):
        raise TypeError(f"pil_to_tensor: expects a PIL image, got {type(pic).__name__}")
    values = np.array(pic, dtype=np.uint8) * 255 if pic.mode == "1" else np.array(pic)
    if values.dtype == np.uint16:  # mode I;16
        values = values.astype(np.int32)
    x = tw.tensor(values)
    return x.unsqueeze(0) if x.ndim == 2 else x.permute(2, 0, 1).contiguous()


def to_tensor(pic: Any) -> Tensor:
    """A PIL image or array (H, W[, C]) as (C, H, W); values of uint8 as float32 in [0, 1], others as they are.

    >>> import numpy
    >>> to_tensor(numpy.array([[0, 255]], dtype=numpy.uint8)).tolist()
    [[[0.0, 1.0]]]
    """
    if isinstance(pic, np.ndarray):
        if pic.ndim not in (2, 3):
            raise ValueError(f"to_tensor: an array must be (H, W) or (H, W, C), got {pic.shape}")
        x = tw.tensor(pic[:, :, None] if pic.ndim == 2 else pic).permute(2, 0, 1).contiguous()
    else:
        x = pil_to_tensor(pic)
    return x.to(tw.get_default_dtype()) / 255 if x.dtype == tw.uint8 else x


def to_pil_image(pic: Any, mode: str | None = None) -> Any:
    """A Tensor (C, H, W) or (H, W), or array (H, W[, C]), as a PIL image; floats in [0, 1] become 0 to 255.

    Raises:
        ValueError: other shapes, more than 4 channels, or a mode for another number of channels.
    """
    image = _pillow("to_pil_image")
    if isinstance(pic, Tensor):
        if pic.ndim not in (2, 3):
            raise ValueError(f"to_pil_image: a picture must be (C, H, W) or (H, W), got {tuple(pic.shape)}")
        if pic.is_floating_point() and mode != "F":
            pic = (pic * 255).to(tw.uint8)
        values = pic.detach().cpu().contiguous().numpy()
        values = values.transpose(1, 2, 0) if values.ndim == 3 else values
    elif isinstance(pic, np.ndarray):
        values = pic
    else:
        raise TypeError(f"to_pil_image: expects a Tensor or array, got {type(pic).__name__}")
    if values.ndim == 2:
        values = values[:, :, None]
    channels = values.shape[2] if values.ndim == 3 else 0
    kinds: dict[str, tuple[str, ...]] = {"uint8": ("L", "P"), "int16": ("I",), "int32": ("I",), "float32": ("F",)}
    fit = kinds.get(str(values.dtype), ()) if channels == 1 else {
        2: ("LA",), 3: ("RGB", "YCbCr", "HSV", "LAB"), 4: ("RGBA", "CMYK", "RGBX")}.get(channels, ())
    if not fit or (mode is not None and mode not in fit) or (channels > 1 and values.dtype != np.uint8):
        raise ValueError(f"to_pil_image: the mode must be one of {fit or 'none'} for {channels} channels of "
                         f"{values.dtype}, got {mode}")
    values = values[:, :, 0] if channels == 1 else values
    made = image.fromarray(np.ascontiguousarray(values.astype(np.int32) if fit[0] == "I" else values))
    if mode in (None, made.mode):
        return made
    return image.frombytes(mode, made.size, made.tobytes())


def convert_image_dtype(image: Tensor, dtype: Any = None) -> Tensor:
    """Another dtype, with white staying white: 255 of uint8 is 1.0 of a float."""
    dtype = tw.get_default_dtype() if dtype is None else dtype
    if image.dtype == dtype:
        return image
    if dtype.is_floating_point:
        return image.to(dtype) if image.is_floating_point() else image.to(dtype) / _top(image.dtype)
    if image.is_floating_point():
        if _top(dtype) > 2 ** 24 and image.dtype != tw.float64:
            raise ValueError(f"convert_image_dtype: {image.dtype} cannot hold {dtype}'s values; use float64 first")
        return (image * (_top(dtype) + 1 - 1e-3)).to(dtype)
    have, want = int(_top(image.dtype)) + 1, int(_top(dtype)) + 1
    return image.to(tw.int64).mul(want // have).to(dtype) if want > have else (image // (have // want)).to(dtype)


# --- values ----------------------------------------------------------------------------------------------------------
def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False,
              dims: int = 2) -> Tensor:
    """(x - mean_c) / std_c for each channel c of a float Tensor (..., C, H, W).

    Raises:
        TypeError: no floats. ValueError: a std of 0, or fewer dimensions.
    """
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"normalize: expects a Tensor of floats, got {kind}; use ToTensor first")
    if tensor.ndim <= dims:
        raise ValueError(f"normalize: a picture must be (..., C, {'D, ' * (dims == 3)}H, W), got {tuple(tensor.shape)}")
    m, s = (tw.as_tensor(v, dtype=tensor.dtype, device=tensor.device).reshape(-1, *[1] * dims) for v in (mean, std))
    if bool((s == 0).any()):
        raise ValueError(f"normalize: std must not be 0 in {tensor.dtype}, got {std}")
    return (tensor if inplace else tensor.clone()).sub_(m).div_(s)


def _blend(a: Tensor, b: Tensor, ratio: float) -> Tensor:
    return (_float(a) * ratio + _float(b) * (1 - ratio)).clamp(0, _top(a.dtype)).to(a.dtype)


def _gray(img: Tensor) -> Tensor:
    if img.ndim < 3 or img.shape[-3] not in (1, 3):
        raise ValueError(f"rgb_to_grayscale: a picture must have 1 or 3 channels, got {tuple(img.shape)}")
    if img.shape[-3] == 1:
        return img
    r, g, b = _float(img).unbind(-3)
    return (0.2989 * r + 0.587 * g + 0.114 * b).to(img.dtype).unsqueeze(-3)


@any_picture
def rgb_to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """0.2989 R + 0.587 G + 0.114 B, in one channel or three equal ones."""
    if num_output_channels not in (1, 3):
        raise ValueError(f"rgb_to_grayscale: num_output_channels must be 1 or 3, got {num_output_channels}")
    y = _gray(img)
    return y.expand(*y.shape[:-3], 3, *y.shape[-2:]).clone() if num_output_channels == 3 else y


to_grayscale = rgb_to_grayscale


def _factor(op: str, factor: float) -> float:
    if factor < 0:
        raise ValueError(f"{op}: the factor must be >= 0, got {factor}")
    return float(factor)


@any_picture
def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """The picture times a factor: 0 is black, 1 the same, 2 twice as bright."""
    return _blend(img, tw.zeros_like(img), _factor("adjust_brightness", brightness_factor))


@any_picture
def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """Mixed with its mean gray: 0 is that gray, 1 the same."""
    gray = _float(_gray(img)).mean((-3, -2, -1), keepdim=True)
    return _blend(img, gray, _factor("adjust_contrast", contrast_factor))


@any_picture
def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """Mixed with its gray version: 0 is that, 1 the same."""
    factor = _factor("adjust_saturation", saturation_factor)
    return img if img.shape[-3] == 1 else _blend(img, _gray(img), factor)


@any_picture
def adjust_hue(img: Any, hue_factor: float) -> Any:
    """Turns the hue of RGB by hue_factor of the whole circle, in [-0.5, 0.5] (Smith, Color gamut transform, 1978)."""
    if not -0.5 <= hue_factor <= 0.5:
        raise ValueError(f"adjust_hue: hue_factor must be in [-0.5, 0.5], got {hue_factor}")
    if img.shape[-3] == 1:
        return img
    x = convert_image_dtype(img, tw.float32) if not img.is_floating_point() else img
    r, g, b = x.unbind(-3)
    high, low = x.amax(-3), x.amin(-3)
    span = high - low
    safe = tw.where(span == 0, tw.ones_like(span), span)
    h = tw.where(high == r, (g - b) / safe, tw.where(high == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    h = (h / 6 + 1 + hue_factor).remainder(1.0) * 6
    # Channel n at hue h is high - span * clamp(min(k, 4 - k), 0, 1), k = (n + h) mod 6, n = 5, 3, 1.
    k = [(n + h).remainder(6.0) for n in (5, 3, 1)]
    y = tw.stack([high - span * tw.minimum(v, 4 - v).clamp(0, 1) for v in k], -3)
    return y if img.is_floating_point() else convert_image_dtype(y, img.dtype)


@any_picture
def adjust_gamma(img: Any, gamma: float, gain: float = 1) -> Any:
    """gain * x^gamma, for x in [0, 1]."""
    x = _float(img) / _top(img.dtype)
    y = (gain * x ** _factor("adjust_gamma", gamma)).clamp(0, 1)
    return y if img.is_floating_point() else convert_image_dtype(y, img.dtype)


@any_picture
def invert(img: Any) -> Any:
    """White minus the picture."""
    return (_top(img.dtype) - _float(img)).to(img.dtype)


def _blur(x: Tensor, sizes: Sequence[int], sigmas: Sequence[float]) -> Tensor:
    """Gaussian weights along each of the last dimensions in turn, mirrored at the ends."""
    for dim, (size, sigma) in enumerate(zip(sizes, sigmas, strict=True), -len(sizes)):
        t = np.arange(size) - (size - 1) / 2
        w = np.exp(-0.5 * (t / sigma) ** 2)
        weights = tw.tensor(w / w.sum(), dtype=x.dtype, device=x.device).reshape(1, 1, size)
        row = x.movedim(dim, -1)
        flat = F.pad(row.reshape(-1, 1, row.shape[-1]), (size // 2, size // 2), mode="reflect")
        x = F.conv1d(flat, weights).reshape(row.shape).movedim(-1, dim)
    return x


@any_picture
def gaussian_blur(img: Any, kernel_size: Any, sigma: Any = None) -> Any:
    """Blurs with Gaussian weights over kernel_size odd pixels, (x, y[, z]) or one for all.

    sigma is in pixels, 0.3 ((k - 1) / 2 - 1) + 0.8 by default.
    """
    sizes = [kernel_size] * 2 if isinstance(kernel_size, int) else list(kernel_size)
    if any(k <= 0 or k % 2 == 0 for k in sizes):
        raise ValueError(f"gaussian_blur: kernel_size must be odd and > 0, got {kernel_size}")
    if sigma is None:
        sigmas = [k * 0.15 + 0.35 for k in sizes]
    else:
        sigmas = [float(sigma)] * len(sizes) if isinstance(sigma, int | float) else [float(s) for s in sigma]
        sigmas = sigmas * len(sizes) if len(sigmas) == 1 else sigmas
    if len(sigmas) != len(sizes) or min(sigmas) <= 0:
        raise ValueError(f"gaussian_blur: sigma must be > 0, one or {len(sizes)}, got {sigma}")
    return _like(_blur(_float(img), sizes[::-1], sigmas[::-1]), img.dtype)


def erase(img: Tensor, i: int, j: int, h: int, w: int, v: Any, inplace: bool = False) -> Tensor:
    """The Tensor (..., C, H, W) with v in rows i to i + h and columns j to j + w."""
    if not isinstance(img, Tensor):
        raise TypeError(f"erase: expects a Tensor, got {type(img).__name__}; use ToTensor first")
    y = img if inplace else img.clone()
    y[..., i:i + h, j:j + w] = v
    return y


# --- size and place --------------------------------------------------------------------------------------------------
@any_picture
def hflip(img: Any) -> Any:
    """Left and right exchanged."""
    return img.flip(-1)


@any_picture
def vflip(img: Any) -> Any:
    """Top and bottom exchanged."""
    return img.flip(-2)


@any_picture
def pad(img: Any, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> Any:
    """Grows the picture: padding is one number, (x, y), (left, top, right, bottom), or six numbers for volumes.

    padding_mode: "constant" (fill), "edge", "reflect" (without the edge) or "symmetric" (with it).
    """
    given = [padding] if isinstance(padding, int) else list(padding)
    if len(given) not in (1, 2, 4, 6):
        raise ValueError(f"pad: padding must be 1, 2, 4 or 6 numbers, got {padding}")
    full = given * 4 if len(given) == 1 else given * 2 if len(given) == 2 else given
    dims = len(full) // 2
    widths = [n for pair in zip(full[:dims], full[dims:], strict=True) for n in pair]
    if padding_mode == "constant":
        return F.pad(img, widths, value=fill)
    if padding_mode not in ("edge", "reflect", "symmetric"):
        raise ValueError(f"pad: padding_mode must be constant, edge, reflect or symmetric, got {padding_mode!r}")
    for dim in range(1, dims + 1):
        low, high, n = widths[2 * dim - 2], widths[2 * dim - 1], img.shape[-dim]
        most = {"edge": 2 ** 30, "reflect": n - 1, "symmetric": n}[padding_mode]
        if max(low, high) > most:
            raise ValueError(f"pad: {padding_mode} padding must be at most {most} for size {n}, got {padding}")
        at = np.arange(-low, n + high)
        if padding_mode == "edge":
            at = at.clip(0, n - 1)
        elif padding_mode == "reflect":
            at = n - 1 - np.abs(n - 1 - np.abs(at))
        else:
            at = np.where(at < 0, -1 - at, np.where(at >= n, 2 * n - 1 - at, at))
        img = img.index_select(-dim, tw.tensor(at, device=img.device))
    return img


@any_picture
def crop_at(img: Any, start: Sequence[int], size: Sequence[int]) -> Any:
    """The part of `size` that begins at `start`, over the last dimensions; 0 where that lies outside."""
    shape = img.shape[-len(size):]
    widths = [w for s, m, n in zip(start[::-1], size[::-1], shape[::-1], strict=True) for w in (-s, s + m - n)]
    return F.pad(img, widths)


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """height rows and width columns from (top, left) on; 0 where that lies outside the picture."""
    return crop_at(img, [top, left], [height, width])


def sizes_of(size: Any, dims: int = 2) -> list[int]:
    """One number for all directions, or one each."""
    given = [size] if isinstance(size, int) else [int(n) for n in size]
    if len(given) not in (1, 2, 3) or min(given) <= 0:
        raise ValueError(f"size must be one number, (height, width) or (depth, height, width), all > 0, got {size}")
    return given * dims if len(given) == 1 else given


def center_crop(img: Any, output_size: Any) -> Any:
    """The middle part, with 0 round it where the picture is smaller; three sizes for volumes."""
    size = sizes_of(output_size)
    return crop_at(img, [round((n - m) / 2.0) for n, m in zip(_spatial(img, len(size)), size, strict=True)], size)


def five_crop(img: Any, size: Any) -> tuple:
    """The four corners (top left, top right, bottom left, bottom right) and the middle."""
    h, w = sizes_of(size)
    _, height, width = get_dimensions(img)
    if h > height or w > width:
        raise ValueError(f"five_crop: size must be at most {height, width}, got {h, w}")
    corners = [crop(img, i, j, h, w) for i in (0, height - h) for j in (0, width - w)]
    return (*corners, center_crop(img, (h, w)))


def ten_crop(img: Any, size: Any, vertical_flip: bool = False) -> tuple:
    """five_crop of the picture and of its mirror image."""
    return five_crop(img, size) + five_crop(vflip(img) if vertical_flip else hflip(img), size)


def _mode(op: str, interpolation: Any) -> str:
    try:
        return InterpolationMode(interpolation).value
    except ValueError:
        raise ValueError(f"{op}: interpolation must be one of {[m.name for m in InterpolationMode]}, got "
                         f"{interpolation!r}") from None


def resize(img: Any, size: Any, interpolation: Any = InterpolationMode.BILINEAR, max_size: int | None = None,
           antialias: bool | None = True) -> Any:
    """Another size: (height, width), one number for the shorter side, or (depth, height, width) of a volume (linear).

    max_size bounds the longer side. antialias applies to bilinear and bicubic; PIL images always have it.
    """
    mode, wanted = _mode("resize", interpolation), [size] if isinstance(size, int) else list(size)
    old = _spatial(img, max(2, len(wanted)))
    if len(wanted) == 1:
        short, long = min(old), max(old)
        new_short, new_long = sizes_of(wanted[0])[0], int(wanted[0] * long / short)
        if max_size is not None and new_long > max_size:
            new_short, new_long = int(max_size * new_short / new_long), max_size
        wanted = [new_short, new_long] if old[0] <= old[1] else [new_long, new_short]
    elif max_size is not None:
        raise ValueError(f"resize: max_size needs a size of one number, got {size}")
    if wanted == old:
        return img
    if _is_pil(img):
        how = _pillow("resize").Resampling
        return img.resize(wanted[::-1], {"bilinear": how.BILINEAR, "bicubic": how.BICUBIC}.get(mode, how.NEAREST))
    return _resize(img, sizes_of(wanted), mode, antialias)


@any_picture
def _resize(img: Any, size: list[int], mode: str, antialias: bool | None) -> Any:
    dims = len(size)
    if dims == 3 and mode == "bilinear":
        mode, antialias = "trilinear", False
    x = _float(img)
    flat = x.reshape(1, -1, *x.shape[-dims:])
    y = F.interpolate(flat, size, mode=mode, antialias=bool(antialias) and mode in ("bilinear", "bicubic"))
    return _like(y.reshape(*x.shape[:-dims], *size), img.dtype)


def resized_crop(img: Any, top: int, left: int, height: int, width: int, size: Any,
                 interpolation: Any = InterpolationMode.BILINEAR, antialias: bool | None = True) -> Any:
    """`crop` and then `resize`."""
    return resize(crop(img, top, left, height, width), size, interpolation, antialias=antialias)


# --- geometry by a grid of places ------------------------------------------------------------------------------------
@any_picture
def _sample(img: Any, grid: np.ndarray, mode: str, fill: Any) -> Any:
    """The picture at grid (h, w, 2) or (d, h, w, 3), places as grid_sample's; `fill` outside."""
    dims = grid.shape[-1]
    x = _float(img)
    flat = x.reshape(1, -1, *x.shape[-dims:])
    places = tw.tensor(grid[None], dtype=x.dtype, device=x.device)
    mode = "nearest" if mode == "nearest-exact" else mode
    y = F.grid_sample(flat, places, mode=mode, align_corners=False)
    y = y.reshape(*x.shape[:-dims], *grid.shape[:-1])
    if fill is not None and not (isinstance(fill, int | float) and fill == 0):
        inside = F.grid_sample(tw.ones_like(flat[:, :1]), places, mode=mode, align_corners=False)[0, 0]
        values = tw.tensor(fill, dtype=x.dtype, device=x.device).reshape(-1, *[1] * dims)
        y = tw.where(inside < 0.5, values, y) if mode == "nearest" else y * inside + (1 - inside) * values
    return _like(y, img.dtype)


def _affine_grid(matrix: np.ndarray, size: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """Places for `_sample`: matrix (dims, dims + 1) maps a result's pixel, from the middle, to the picture's."""
    axes = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in new], indexing="ij")
    points = np.stack([*axes[::-1], np.ones_like(axes[0])], -1)
    return points @ matrix.T / (np.asarray(size[::-1]) / 2)


def _inverse_affine(center: Sequence[float], angle: float, translate: Sequence[float], scale: float,
                    shear: Sequence[float]) -> np.ndarray:
    """From a result's place to the picture's, of: shear, turn by `angle` and scale about center, then move."""
    rot, sx, sy = (math.radians(v) for v in (angle, *shear))
    turn = np.array([[math.cos(rot - sy), 0], [math.sin(rot - sy), 0]]) / math.cos(sy)
    turn[:, 1] = [-turn[0, 0] * math.tan(sx) - math.sin(rot), -turn[1, 0] * math.tan(sx) + math.cos(rot)]
    back = np.linalg.inv(scale * turn)
    c = np.asarray(center, dtype=np.float64)
    return np.concatenate([back, (c - back @ (c + np.asarray(translate)))[:, None]], 1)


def _from_middle(img: Any, center: Sequence[float] | None) -> list[float]:
    width, height = get_image_size(img)
    return [0.0, 0.0] if center is None else [center[0] - width / 2, center[1] - height / 2]


def rotate(img: Any, angle: float, interpolation: Any = InterpolationMode.NEAREST, expand: bool = False,
           center: Sequence[float] | None = None, fill: Any = None) -> Any:
    """Turned by `angle` degrees against the clock about `center` (x, y), the middle by default; expand shows all of it.
    """
    mode, size = _mode("rotate", interpolation), _spatial(img, 2)
    matrix = _inverse_affine(_from_middle(img, center), -angle, [0, 0], 1.0, [0, 0])
    new = size
    if expand:
        h, w = size
        corners = np.array([[x, y, 1] for x in (-w / 2, w / 2) for y in (-h / 2, h / 2)]) @ matrix.T
        reach = np.round(corners + np.array([w / 2, h / 2]), 4)
        new = [int(n) for n in (np.ceil(reach.max(0)) - np.floor(reach.min(0)))[::-1]]
    return _sample(img, _affine_grid(matrix, size, new), mode, fill)


def affine(img: Any, angle: float, translate: Sequence[float], scale: float, shear: Any,
           interpolation: Any = InterpolationMode.NEAREST, fill: Any = None,
           center: Sequence[float] | None = None) -> Any:
    """Turned by `angle` degrees with the clock, scaled, sheared by (x, y) degrees about the center; moved by pixels."""
    if scale <= 0:
        raise ValueError(f"affine: scale must be > 0, got {scale}")
    sheared = [float(shear), 0.0] if isinstance(shear, int | float) else [*shear, shear[0]][:2]
    size = _spatial(img, 2)
    matrix = _inverse_affine(_from_middle(img, center), angle, translate, scale, sheared)
    return _sample(img, _affine_grid(matrix, size, size), _mode("affine", interpolation), fill)


def affine3d(img: Any, angles: Sequence[float], translate: Sequence[float] = (0, 0, 0), scale: float = 1.0,
             interpolation: Any = InterpolationMode.BILINEAR, fill: Any = None) -> Any:
    """A volume (..., D, H, W) turned by degrees about its z, then y, then x axis, scaled, and moved by (z, y, x)."""
    if scale <= 0:
        raise ValueError(f"affine3d: scale must be > 0, got {scale}")
    turn = np.eye(3)  # in order (x, y, z), as grids have it
    for angle, (a, b) in zip(angles, ((0, 1), (2, 0), (1, 2)), strict=True):
        one, t = np.eye(3), math.radians(angle)
        one[a, a] = one[b, b] = math.cos(t)
        one[a, b], one[b, a] = -math.sin(t), math.sin(t)
        turn = one @ turn
    back = np.linalg.inv(scale * turn)
    matrix = np.concatenate([back, (-back @ np.asarray(translate[::-1]))[:, None]], 1)
    size = _spatial(img, 3)
    return _sample(img, _affine_grid(matrix, size, size), _mode("affine3d", interpolation), fill)


def perspective(img: Any, startpoints: Sequence, endpoints: Sequence,
                interpolation: Any = InterpolationMode.BILINEAR, fill: Any = None) -> Any:
    """The picture seen so that the four points (x, y) of startpoints come to lie at endpoints."""
    rows, places = [], []
    for (x, y), (u, v) in zip(endpoints, startpoints, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        places += [u, v]
    a = np.linalg.lstsq(np.array(rows, dtype=np.float64), np.array(places, dtype=np.float64), rcond=None)[0]
    h, w = _spatial(img, 2)
    y, x = np.mgrid[:h, :w] + 0.5
    depth = a[6] * x + a[7] * y + 1
    u, v = (a[0] * x + a[1] * y + a[2]) / depth, (a[3] * x + a[4] * y + a[5]) / depth
    grid = np.stack([u * 2 / w - 1, v * 2 / h - 1], -1)
    return _sample(img, grid, _mode("perspective", interpolation), fill)


def elastic_transform(img: Any, displacement: Tensor, interpolation: Any = InterpolationMode.BILINEAR,
                      fill: Any = None) -> Any:
    """The picture at places moved by displacement (1, H, W, 2), or (1, D, H, W, 3) of a volume, in half sizes.

    Simard et al., Best practices for convolutional neural networks, ICDAR 2003.
    """
    dims = displacement.ndim - 2
    size = _spatial(img, dims)
    if tuple(displacement.shape) != (1, *size, dims):
        raise ValueError(f"elastic_transform: displacement must be {(1, *size, dims)}, got {tuple(displacement.shape)}")
    axes = np.meshgrid(*[(2 * np.arange(n) + 1) / n - 1 for n in size], indexing="ij")
    grid = np.stack(axes[::-1], -1) + displacement[0].detach().cpu().numpy()
    return _sample(img, grid, _mode("elastic_transform", interpolation), fill)
