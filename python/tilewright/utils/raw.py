"""A tensor's bytes through NumPy, for files and worker processes. NumPy has no bfloat16: it travels as int16."""

from __future__ import annotations

from typing import Any

import numpy as np

import tilewright as tw
from tilewright import _engine
from tilewright.autograd import wrap
from tilewright.tensor import Tensor


def dtype_name(dtype: Any) -> str:
    """'float32' of tw.float32."""
    return str(dtype).rpartition(".")[2]


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The values, contiguous; those of bfloat16 as their bit patterns."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == tw.bfloat16:
        tensor = wrap(_engine.bitcast(tensor.array, tw.int16))
    return tensor.numpy()


def from_bytes(buffer: Any, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor over `buffer` (no copy); the tensor keeps the buffer alive."""
    tensor = tw.from_numpy(np.ndarray(shape, "int16" if dtype == "bfloat16" else dtype, buffer))
    return wrap(_engine.bitcast(tensor.array, tw.bfloat16)) if dtype == "bfloat16" else tensor
