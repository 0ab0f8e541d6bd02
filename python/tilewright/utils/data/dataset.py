"""Datasets: what has a length and items, or can be iterated."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import accumulate
from typing import Any, Generic, TypeVar, cast

import tilewright as tw
from tilewright.tensor import Tensor

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """Base class: write `__getitem__(index)` and, for samplers, `__len__`.

    A `__getitems__(indices)` that returns a list of items is used for a whole batch where it exists.
    """

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__}: a Dataset writes __getitem__")

    def __add__(self, other: Dataset) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """Base class of datasets that only iterate; with workers, `get_worker_info()` tells each its share."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__}: an IterableDataset writes __iter__")

    def __add__(self, other: Dataset) -> Any:
        return ChainDataset([self, other])


class ChainDataset(IterableDataset[T]):
    """The items of one IterableDataset after another's."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self.datasets = datasets

    def __iter__(self) -> Iterator[T]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise TypeError(f"ChainDataset: takes IterableDatasets, got {type(dataset).__name__}")
            yield from dataset

    def __len__(self) -> int:
        return sum(len(cast(Sized, dataset)) for dataset in self.datasets)


class TensorDataset(Dataset[tuple]):
    """Item i is (t[i] for each tensor); all tensors have the same first size.

    Raises:
        ValueError: no tensors, a 0-d tensor, or first sizes that differ.
    """

    def __init__(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"TensorDataset: takes tensors, got {type(tensor).__name__}")
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if not shapes or any(not shape or shape[0] != shapes[0][0] for shape in shapes):
            raise ValueError(f"TensorDataset: tensors must have the same first size, got shapes {shapes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple:
        return tuple(tensor[index] for tensor in self.tensors)

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        """The batch of these items: what collating them gives, by one index launch a tensor."""
        index = tw.tensor(indices, dtype=tw.int64)
        return [tensor[index] for tensor in self.tensors]

    def __len__(self) -> int:
        return self.tensors[0].shape[0]


def _items(dataset: Any, indices: list[int]) -> list:
    """Several items of any dataset."""
    return dataset.__getitems__(indices) if hasattr(dataset, "__getitems__") else [dataset[i] for i in indices]


class StackDataset(Dataset[Any]):
    """Item i is a tuple of each dataset's item i, or a dict of them when they are given by keyword.

    Raises:
        ValueError: no datasets, both ways at once, or lengths that differ.

    >>> StackDataset(image=[1, 2], label="ab")[1]
    {'image': 2, 'label': 'b'}
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if bool(args) == bool(kwargs):
            raise ValueError("StackDataset: give datasets either in order or by keyword, at least one")
        self.datasets: Any = args or kwargs
        sizes = [len(dataset) for dataset in (args or kwargs.values())]
        if len(set(sizes)) > 1:
            raise ValueError(f"StackDataset: datasets must have one length, got {sizes}")
        self._length = sizes[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {key: dataset[index] for key, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __getitems__(self, indices: list[int]) -> list:
        if isinstance(self.datasets, dict):
            columns = [_items(dataset, indices) for dataset in self.datasets.values()]
            return [dict(zip(self.datasets, row, strict=True)) for row in zip(*columns, strict=True)]
        return list(zip(*(_items(dataset, indices) for dataset in self.datasets), strict=True))

    def __len__(self) -> int:
        return self._length


class Subset(Dataset[T]):
    """The items of `dataset` at `indices`."""

    def __init__(self, dataset: Dataset[T], indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: Any) -> T:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[T]:
        return _items(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[T]):
    """One dataset after another."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset: there must be at least one dataset, got an empty list")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise TypeError("ConcatDataset: an IterableDataset has no length; use ChainDataset")
        self.cumulative_sizes = list(accumulate(len(cast(Sized, dataset)) for dataset in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"ConcatDataset: index must be in [-{size}, {size}), got {index}")
        index %= size
        which = bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]


def random_split(dataset: Dataset[T], lengths: Sequence[int | float], generator: Any = None) -> list[Subset[T]]:
    """Splits at random into parts of the given lengths, or fractions that sum to 1 (leftovers go to the first parts).

    Raises:
        ValueError: lengths that are negative or do not sum to the dataset's, or fractions that do not sum to 1.
    """
    total = len(cast(Sized, dataset))
    sizes: list[Any] = list(lengths)
    if any(not size >= 0 for size in sizes):
        raise ValueError(f"random_split: lengths must be >= 0, got {list(lengths)}")
    if any(isinstance(size, float) for size in sizes):
        if not math.isclose(sum(sizes), 1):
            raise ValueError(f"random_split: fractions must sum to 1, got {list(lengths)}")
        sizes = [math.floor(total * fraction) for fraction in sizes]
        for i in range(total - sum(sizes)):
            sizes[i % len(sizes)] += 1
    if sum(sizes) != total:
        raise ValueError(f"random_split: lengths must sum to the dataset's {total}, got {list(lengths)}")
    order = tw.randperm(total, generator=generator).tolist()
    ends = list(accumulate(sizes))
    return [Subset(dataset, order[end - size:end]) for end, size in zip(ends, sizes, strict=True)]
