"""Transforms of pictures and volumes, with torchvision's signatures and meanings.

Pictures are Tensors (..., C, H, W), PIL images or NumPy arrays (H, W[, C]); volumes are Tensors (..., C, D, H, W), and
sizes of three numbers mean them. A transform called with an image and its masks moves all alike:

>>> import tilewright as tw
>>> from tilewright.vision import transforms
>>> both = transforms.Compose([transforms.RandomCrop(2), transforms.ColorJitter(brightness=0.5)])
>>> image, mask = both(tw.rand(3, 4, 4), tw.arange(16).reshape(1, 4, 4))
>>> image.shape, mask.shape
((3, 2, 2), (1, 2, 2))

All random numbers come from tilewright's generator: `tw.manual_seed` repeats them.
"""

from tilewright.vision.transforms import functional
from tilewright.vision.transforms.base import (
    Compose,
    ConvertImageDtype,
    Lambda,
    PILToTensor,
    RandomApply,
    RandomChoice,
    RandomOrder,
    ToPILImage,
    ToTensor,
    Transform,
)
from tilewright.vision.transforms.functional import InterpolationMode
from tilewright.vision.transforms.geometry import (
    CenterCrop,
    ElasticTransform,
    FiveCrop,
    Pad,
    RandomAffine,
    RandomAffine3d,
    RandomCrop,
    RandomDepthFlip,
    RandomHorizontalFlip,
    RandomPerspective,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
    TenCrop,
)
from tilewright.vision.transforms.values import (
    ColorJitter,
    CutMix,
    GaussianBlur,
    Grayscale,
    MixUp,
    Normalize,
    RandomErasing,
    RandomGrayscale,
    RandomInvert,
)

__all__ = [
    "CenterCrop", "ColorJitter", "Compose", "ConvertImageDtype", "CutMix", "ElasticTransform", "FiveCrop",
    "GaussianBlur", "Grayscale", "InterpolationMode", "Lambda", "MixUp", "Normalize", "PILToTensor", "Pad",
    "RandomAffine", "RandomAffine3d", "RandomApply", "RandomChoice", "RandomCrop", "RandomDepthFlip", "RandomErasing",
    "RandomGrayscale", "RandomHorizontalFlip", "RandomInvert", "RandomOrder", "RandomPerspective", "RandomResizedCrop",
    "RandomRotation", "RandomVerticalFlip", "Resize", "TenCrop", "ToPILImage", "ToTensor", "Transform", "functional",
]
