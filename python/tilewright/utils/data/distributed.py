"""DistributedSampler: one process's share of a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import tilewright as tw
from tilewright.nn.checks import check_size
from tilewright.utils.data.sampler import Sampler


class DistributedSampler(Sampler[int]):
    """Every num_replicas-th index from `rank` on, of an order that all processes draw alike from seed + epoch.

    Without drop_last the order is lengthened by its own start until all shares are equal. Both numbers default to
    `tilewright.distributed`'s: one process has all. Call set_epoch(epoch) before each epoch for a new order.

    Raises:
        ValueError: rank outside [0, num_replicas).

    >>> list(DistributedSampler(range(5), num_replicas=2, rank=1, shuffle=False))
    [1, 3, 0]
    """

    def __init__(self, dataset: Any, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
                 seed: int = 0, drop_last: bool = False) -> None:
        self.num_replicas = check_size("DistributedSampler", "num_replicas", tw.distributed.get_world_size()
                                       if num_replicas is None else num_replicas, 1)
        self.rank = check_size("DistributedSampler", "rank", tw.distributed.get_rank() if rank is None else rank)
        if self.rank >= self.num_replicas:
            raise ValueError(f"DistributedSampler: rank must be in [0, {self.num_replicas}), got {rank}")
        self.dataset, self.shuffle, self.seed, self.drop_last, self.epoch = dataset, shuffle, seed, drop_last, 0
        size = len(dataset)
        self.num_samples = size // self.num_replicas if drop_last else math.ceil(size / self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)
        order = (tw.randperm(size, generator=tw.Generator().manual_seed(self.seed + self.epoch)).tolist()
                 if self.shuffle else list(range(size)))
        if order:
            order *= math.ceil(self.total_size / size)
        return iter(order[self.rank:self.total_size:self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """The next order is that of this epoch."""
        self.epoch = epoch
