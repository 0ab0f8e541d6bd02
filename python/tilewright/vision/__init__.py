"""Pictures and volumes under torchvision's names: `models`, `ops` for detection, `transforms`, `datasets` of files."""

from tilewright.vision import datasets, models, ops, transforms

__all__ = ["datasets", "models", "ops", "transforms"]
