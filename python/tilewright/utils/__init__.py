"""Tools round the engine: `utils.data` feeds batches to a training loop, `utils.checkpoint` trades time for memory."""

from tilewright.utils import checkpoint, data

__all__ = ["checkpoint", "data"]
