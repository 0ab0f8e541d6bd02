"""Tools round the engine: `utils.data` feeds batches to a training loop."""

from tilewright.utils import data

__all__ = ["data"]
