"""What all transforms share: random draws, several pictures at once, and transforms made of transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tilewright as tw
from tilewright.nn import Module
from tilewright.vision.transforms import functional as F


def uniform(low: float, high: float) -> float:
    """A number in [low, high) of the engine's generator, so that `manual_seed` repeats every transform."""
    return low + (high - low) * float(tw.rand(1).item())


def integer(count: int) -> int:
    """One of 0 ... count - 1."""
    return int(tw.randint(0, count, (1,)).item())


class Transform(Module):
    """Base class: `draw(img)` draws what is random, and `make(img, drawn, nearest)` makes one picture.

    Called with several pictures it returns a tuple: the first is the image, the others are masks of its size. A
    transform that moves pixels (`moves`) moves all alike, masks without new values between theirs and with 0 outside;
    one that changes values leaves masks as they are.
    """

    moves = False

    def draw(self, img: Any) -> Any:
        """What is random, drawn once for all pictures of a call."""
        return None

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        """One picture, from what was drawn; `nearest` for a mask."""
        raise NotImplementedError(f"{type(self).__name__}: a Transform writes make")

    def forward(self, img: Any, *masks: Any) -> Any:
        drawn = self.draw(img)
        image = self.make(img, drawn)
        if not masks:
            return image
        return (image, *(self.make(mask, drawn, nearest=True) if self.moves else mask for mask in masks))


def run(transform: Callable, pictures: tuple) -> tuple:
    """Any callable over an image and its masks: one that is no Transform takes the image alone."""
    if len(pictures) == 1:
        return (transform(*pictures),)
    if isinstance(transform, Transform | Compose | RandomApply):
        return tuple(transform(*pictures))
    return (transform(pictures[0]), *pictures[1:])


def _checked(owner: str, transforms: Any) -> Sequence[Callable]:
    if not isinstance(transforms, Sequence) and not hasattr(transforms, "__iter__"):
        raise TypeError(f"{owner}: transforms must be a sequence, got {type(transforms).__name__}")
    return transforms


class Compose:
    """One transform after another; called with an image and masks, each gets all that it can move.

    >>> import tilewright as tw
    >>> t = Compose([lambda x: x + 1, lambda x: x * 2])
    >>> t(tw.tensor([1.0])).tolist()
    [4.0]
    """

    def __init__(self, transforms: Sequence[Callable]) -> None:
        self.transforms = _checked("Compose", transforms)

    def __call__(self, img: Any, *masks: Any) -> Any:
        pictures = (img, *masks)
        for transform in self.transforms:
            pictures = run(transform, pictures)
        return pictures if masks else pictures[0]

    def __repr__(self) -> str:
        return "\n    ".join([f"{type(self).__name__}(", *map(repr, self.transforms)]) + "\n)"


class RandomApply(Module):
    """All of the transforms with probability p, else none."""

    def __init__(self, transforms: Sequence[Callable], p: float = 0.5) -> None:
        super().__init__()
        self.transforms, self.p = _checked(type(self).__name__, transforms), p

    def chosen(self) -> Sequence[Callable]:
        """The transforms of this call."""
        return self.transforms if uniform(0, 1) < self.p else ()

    def forward(self, img: Any, *masks: Any) -> Any:
        return Compose(self.chosen())(img, *masks)


class RandomChoice(RandomApply):
    """One of the transforms, by the probabilities p, equal ones by default."""

    def __init__(self, transforms: Sequence[Callable], p: Sequence[float] | None = None) -> None:
        super().__init__(transforms)
        if p is not None and len(p) != len(transforms):
            raise ValueError(f"RandomChoice: p must have {len(transforms)} probabilities, got {len(p)}")
        self.weights = tw.tensor([1.0] * len(transforms) if p is None else list(p))

    def chosen(self) -> Sequence[Callable]:
        return [self.transforms[int(tw.multinomial(self.weights, 1).item())]]


class RandomOrder(RandomApply):
    """All of the transforms in a random order."""

    def __init__(self, transforms: Sequence[Callable]) -> None:
        super().__init__(transforms)

    def chosen(self) -> Sequence[Callable]:
        return [self.transforms[i] for i in tw.randperm(len(self.transforms)).tolist()]


class Lambda(Module):
    """A function of one's own as a transform."""

    def __init__(self, lambd: Callable) -> None:
        super().__init__()
        if not callable(lambd):
            raise TypeError(f"Lambda: expects a function, got {type(lambd).__name__}")
        self.lambd = lambd

    def forward(self, img: Any) -> Any:
        return self.lambd(img)


class ToTensor(Transform):
    """`functional.to_tensor`: a PIL image or array as (C, H, W), bytes as floats in [0, 1]. Masks keep their values."""

    def forward(self, img: Any, *masks: Any) -> Any:
        image = F.to_tensor(img)
        return (image, *map(PILToTensor(), masks)) if masks else image


class PILToTensor(Transform):
    """`functional.pil_to_tensor`: a PIL image (or array) as (C, H, W) with its values as they are."""

    moves = True

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        if hasattr(img, "__array_interface__") and hasattr(img, "ndim"):
            return tw.tensor(img).unsqueeze(0) if img.ndim == 2 else tw.tensor(img).permute(2, 0, 1).contiguous()
        return F.pil_to_tensor(img)


class ToPILImage(Transform):
    """`functional.to_pil_image`: a Tensor or array as a PIL image."""

    moves = True

    def __init__(self, mode: str | None = None) -> None:
        super().__init__()
        self.mode = mode

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.to_pil_image(img, None if nearest else self.mode)


class ConvertImageDtype(Transform):
    """`functional.convert_image_dtype`: another dtype, with white staying white."""

    def __init__(self, dtype: Any) -> None:
        super().__init__()
        self.dtype = dtype

    def make(self, img: Any, drawn: Any, nearest: bool = False) -> Any:
        return F.convert_image_dtype(img, self.dtype)
