"""What detection models need, under torchvision's names: `ops`, and networks for images: `models`."""

from tilewright.vision import models, ops

__all__ = ["models", "ops"]
