"""Datasets: what has a length and items, or can be iterated."""

from __future__ import annotations

import csv
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


class CSVDataset(TensorDataset):
    """Rows of a text table, the first of which has the columns' names: items are (features,) or (features, target).

    `columns` chooses features, by default all but the target, as numbers of `dtype`. A target of whole numbers is
    int64, of other numbers `dtype`; one of other texts becomes the number of its place in `classes`, their sorted list.

    Raises:
        ValueError: no rows, an unknown or repeated column, a line of another length, or a value that is no finite
        number; with the file, the line and the column.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "flowers.csv")
    >>> with open(path, "w") as file:
    ...     _ = file.write("length,width,kind\\n5.1,3.5,setosa\\n6.2,2.9,virginica\\n")
    >>> data = CSVDataset(path, target="kind")
    >>> data.classes, data[1][1].item()
    (['setosa', 'virginica'], 1)
    """

    def __init__(self, path: Any, target: str | None = None, columns: Sequence[str] | None = None,
                 delimiter: str = ",", dtype: Any = None, encoding: str = "utf-8-sig") -> None:
        with open(path, newline="", encoding=encoding) as file:
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            try:
                rows = [(lines.line_num, row) for row in lines if row]
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"CSVDataset: {path} must be a table, got {error} at line {lines.line_num}") from None
        names = [name.strip() for name in rows[0][1]] if rows else []
        self.columns = [n for n in names if n != target] if columns is None else list(columns)
        wanted = [*self.columns, *([] if target is None else [target])]
        if len(rows) < 2 or not set(wanted) <= set(names) or len(set(names)) < len(names):
            raise ValueError(f"CSVDataset: {path} must have rows and the columns {wanted} once each, got {len(rows)} "
                             f"lines and {names}")
        for line, row in rows[1:]:
            if len(row) != len(names):
                raise ValueError(f"CSVDataset: {path} line {line} must have {len(names)} values, got {len(row)}")

        def numbers(name: str) -> list[float]:
            values = []
            for line, row in rows[1:]:
                text = row[names.index(name)]
                try:
                    values.append(float(text))
                except ValueError:
                    values.append(math.nan)
                if not math.isfinite(values[-1]):
                    raise ValueError(f"CSVDataset: {path} line {line}, column {name!r}: must be a finite number, got "
                                     f"{text!r}")
            return values

        kind = tw.get_default_dtype() if dtype is None else dtype
        tensors = [tw.tensor([numbers(name) for name in self.columns], dtype=tw.float64).t().contiguous().to(kind)]
        self.classes: list[str] | None = None
        if target is not None:
            texts = [row[names.index(target)].strip() for _, row in rows[1:]]
            try:
                tensors.append(tw.tensor([int(text) for text in texts], dtype=tw.int64))
            except ValueError:
                if all(_is_number(text) for text in texts):
                    tensors.append(tw.tensor(numbers(target), dtype=kind))
                else:
                    self.classes = sorted(set(texts))
                    tensors.append(tw.tensor([self.classes.index(text) for text in texts], dtype=tw.int64))
        super().__init__(*tensors)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
