"""Pictures and volumes, under torchvision's names: `ops` for detection, `transforms`, and `datasets` of local files."""

from tilewright.vision import datasets, ops, transforms

__all__ = ["datasets", "ops", "transforms"]
