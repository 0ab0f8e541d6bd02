"""What detection models need, under torchvision's names: `ops`."""

from tilewright.vision import ops

__all__ = ["ops"]
