"""Samplers: the order in which a DataLoader asks for items."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, Generic, TypeVar, cast

import numpy as np

import tilewright as tw
from tilewright.nn.checks import check_size

T = TypeVar("T", covariant=True)


def draw_seed(generator: Any = None) -> int:
    """An integer of the engine's random stream, or of `generator`'s."""
    return int(tw.randint(0, 2**62, (1,), generator=generator).item())


class Sampler(Generic[T]):
    """Base class: write `__iter__` over indices, and `__len__` if it is known."""

    def __init__(self, data_source: Sized | None = None) -> None:
        pass

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__}: a Sampler writes __iter__")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, ..."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """A new random order each time; with replacement=True, independent draws. num_samples defaults to the length."""

    def __init__(self, data_source: Sized, replacement: bool = False, num_samples: int | None = None,
                 generator: Any = None) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"RandomSampler: replacement must be a bool, got {replacement!r}")
        if num_samples is not None:
            check_size("RandomSampler", "num_samples", num_samples, 1)
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        """How many indices each pass draws."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        count, wanted = len(self.data_source), self.num_samples
        if count == 0:
            if self._num_samples:
                raise ValueError(f"RandomSampler: an empty data source has no samples, got num_samples {wanted}")
            return
        if self.replacement:
            yield from tw.randint(0, count, (wanted,), generator=self.generator).tolist()
            return
        while wanted > 0:
            order = tw.randperm(count, generator=self.generator).tolist()
            yield from order[:wanted]
            wanted -= count

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices in a new random order each time."""

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        for i in tw.randperm(len(self.indices), generator=self.generator).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """num_samples indices, i drawn with a probability in proportion to weights[i].

    Raises:
        ValueError: weights that are negative, not finite or all 0; without replacement, too few above 0.
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True,
                 generator: Any = None) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"WeightedRandomSampler: replacement must be a bool, got {replacement!r}")
        values = weights.tolist() if hasattr(weights, "tolist") else list(weights)
        self.weights = np.asarray(values, dtype=np.float64)
        if self.weights.ndim != 1 or not all(math.isfinite(w) and w >= 0 for w in values) or not sum(values) > 0:
            raise ValueError(f"WeightedRandomSampler: weights must be one row, finite, >= 0 and not all 0, got "
                             f"{values[:8]}{' ...' if len(values) > 8 else ''}")
        self.num_samples = check_size("WeightedRandomSampler", "num_samples", num_samples, 1)
        positive = int((self.weights > 0).sum())
        if not replacement and num_samples > positive:
            raise ValueError(f"WeightedRandomSampler: without replacement num_samples must be at most the number of "
                             f"weights above 0, got {num_samples} and {positive}")
        self.replacement, self.generator = replacement, generator

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(draw_seed(self.generator))
        yield from rng.choice(len(self.weights), self.num_samples, self.replacement,
                              self.weights / self.weights.sum()).tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list]):
    """Lists of batch_size consecutive indices of `sampler`; the last may be shorter, or is left out by drop_last."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        self.sampler = sampler
        self.batch_size = check_size("BatchSampler", "batch_size", batch_size, 1)
        if not isinstance(drop_last, bool):
            raise TypeError(f"BatchSampler: drop_last must be a bool, got {drop_last!r}")
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield batch

    def __len__(self) -> int:
        count = len(cast(Sized, self.sampler))
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
