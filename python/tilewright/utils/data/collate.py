"""default_collate: from a list of samples to a batch of the same structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tilewright as tw
from tilewright.tensor import Tensor


def default_collate(batch: list) -> Any:
    """Stacks tensors, NumPy arrays and numbers; keeps strings; goes through dicts, tuples and lists.

    Floats become float64, ints int64, as in PyTorch.

    Raises:
        ValueError: an empty batch, or samples whose shapes or structures differ.
        TypeError: a sample of another type.

    >>> default_collate([(1, 'a'), (2, 'b')])[1]
    ('a', 'b')
    """
    if not batch:
        raise ValueError("default_collate: a batch must hold at least one sample, got none")
    first = batch[0]
    if isinstance(first, Tensor):
        shapes = {tuple(sample.shape) for sample in batch}
        if len(shapes) > 1:
            raise ValueError(f"default_collate: samples must have one shape, got {sorted(shapes)}; pad them or give a "
                             "collate_fn")
        return tw.stack(batch)
    if isinstance(first, np.ndarray):
        if first.dtype.kind not in "biuf":
            raise TypeError(f"default_collate: arrays must be numeric, got dtype {first.dtype}")
        return default_collate([tw.tensor(sample) for sample in batch])
    if isinstance(first, np.generic):
        return tw.tensor(np.asarray(batch))
    if isinstance(first, (bool, int, float)):
        return tw.tensor(batch, dtype=tw.float64 if isinstance(first, float) else None)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        collated = {}
        for key in first:
            if any(key not in sample for sample in batch):
                raise ValueError(f"default_collate: every sample must have the key {key!r}")
            collated[key] = default_collate([sample[key] for sample in batch])
        return collated
    if isinstance(first, Sequence):
        sizes = {len(sample) for sample in batch}
        if len(sizes) > 1:
            raise ValueError(f"default_collate: samples must have one length, got {sorted(sizes)}")
        columns = [column if isinstance(column[0], (str, bytes)) else default_collate(list(column))
                   for column in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise TypeError(f"default_collate: a sample must be a tensor, array, number, string, dict or sequence, got "
                    f"{type(first).__name__}; give a collate_fn")


def default_convert(data: Any) -> Any:
    """What a DataLoader does without batches: NumPy arrays and scalars become tensors, the rest stays."""
    if isinstance(data, (np.ndarray, np.generic)) and data.dtype.kind in "biuf":
        return tw.tensor(data)
    if isinstance(data, Mapping):
        return {key: default_convert(value) for key, value in data.items()}
    if isinstance(data, tuple):
        values = [default_convert(value) for value in data]
        return type(data)(*values) if hasattr(data, "_fields") else values
    if isinstance(data, list):
        return [default_convert(value) for value in data]
    return data


def pin(data: Any) -> Any:
    """The same structure with its tensors, and whatever else has a `pin_memory()`, in pinned memory."""
    if hasattr(data, "pin_memory"):
        return data.pin_memory()
    if isinstance(data, Mapping):
        return {key: pin(value) for key, value in data.items()}
    if isinstance(data, (tuple, list)):
        values = [pin(value) for value in data]
        return type(data)(*values) if hasattr(data, "_fields") else type(data)(values)
    return data
