"""Tools round the engine: `utils.data` feeds batches to a training loop, `utils.checkpoint` trades time for memory."""

from tilewright.refused import cpp_extension, model_zoo, serialization
from tilewright.utils import _pytree, checkpoint, data

__all__ = ["_pytree", "checkpoint", "cpp_extension", "data", "model_zoo", "serialization"]
