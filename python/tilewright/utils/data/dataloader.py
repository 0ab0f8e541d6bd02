"""DataLoader: batches of a dataset, made here or in worker processes.

Each worker has its own socket. The main process waits on the sockets and on the processes' ends together, so a worker
that dies is seen at once, and no lock is shared that a killed process could keep.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import multiprocessing
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sized
from multiprocessing.connection import wait
from typing import Any, cast

import tilewright as tw
from tilewright.nn.checks import check_number, check_size
from tilewright.utils.data import transport
from tilewright.utils.data.collate import default_collate, default_convert, pin
from tilewright.utils.data.dataset import Dataset, IterableDataset, Subset, TensorDataset
from tilewright.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler, draw_seed
from tilewright.utils.data.worker import EndOfData, WorkerFailure, WorkerTask, run_worker

_SHUTDOWN_SECONDS = 3.0  # for workers to end by themselves before they are told by signal


class DataLoader:
    """Iterates over `dataset` in batches.

    `shuffle` draws a new order from `generator` (or the engine's own) each time; `sampler` or `batch_sampler` replace
    it; batch_size=None gives single items. num_workers processes prepare prefetch_factor batches each ahead, in order.
    With in_order=False a batch is given out as soon as any is ready. With pin_memory, tensors come in pinned memory
    where there is a GPU; elsewhere it has nothing to do.

    Raises:
        ValueError: sizes below their least, or options that contradict each other.
        RuntimeError: a worker that died (with its pid and exit code), or took longer than `timeout` seconds.

    An exception in a worker is raised here with its class and its traceback in the message.

    >>> import tilewright as tw
    >>> from tilewright.utils.data import DataLoader, TensorDataset
    >>> [x.tolist() for (x,) in DataLoader(TensorDataset(tw.arange(5)), batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, dataset: Dataset, batch_size: int | None = 1, shuffle: bool | None = None,
                 sampler: Iterable | None = None, batch_sampler: Iterable | None = None, num_workers: int = 0,
                 collate_fn: Callable[[list], Any] | None = None, pin_memory: bool = False, drop_last: bool = False,
                 timeout: float = 0, worker_init_fn: Callable[[int], None] | None = None,
                 multiprocessing_context: Any = None, generator: Any = None, *, prefetch_factor: int | None = None,
                 persistent_workers: bool = False, pin_memory_device: str = "", in_order: bool = True) -> None:
        self.num_workers = check_size("DataLoader", "num_workers", num_workers)
        self.timeout = check_number("DataLoader", "timeout", timeout, low=0)
        if batch_size is not None:
            check_size("DataLoader", "batch_size", batch_size, 1)
        if num_workers == 0:
            for name, given in (("timeout", timeout), ("prefetch_factor", prefetch_factor),
                                ("persistent_workers", persistent_workers),
                                ("multiprocessing_context", multiprocessing_context)):
                if given:
                    raise ValueError(f"DataLoader: {name} needs num_workers > 0, got {given!r} with 0 workers")
        self.in_order = in_order
        self.prefetch_factor = 2 if prefetch_factor is None else check_size("DataLoader", "prefetch_factor",
                                                                            prefetch_factor, 1)
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError("DataLoader: an IterableDataset has its own order, got shuffle, sampler or batch_sampler")
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: give either sampler or shuffle, got both")
        if batch_sampler is not None:
            if batch_size not in (None, 1) or shuffle or sampler is not None or drop_last:
                raise ValueError("DataLoader: batch_sampler excludes batch_size, shuffle, sampler and drop_last")
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("DataLoader: drop_last needs batches, got batch_size None")
        if sampler is None and not self._iterable and batch_sampler is None:
            sized = cast(Sized, dataset)
            sampler = RandomSampler(sized, generator=generator) if shuffle else SequentialSampler(sized)
        if batch_sampler is None and batch_size is not None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.sampler, self.batch_sampler, self.generator = sampler, batch_sampler, generator
        self._auto_collation = batch_sampler is not None or (self._iterable and batch_size is not None)
        self.collate_fn = collate_fn or (default_collate if self._auto_collation else default_convert)
        self.pin_memory, self.pin_memory_device = pin_memory, pin_memory_device
        self.worker_init_fn, self.multiprocessing_context = worker_init_fn, multiprocessing_context
        self.persistent_workers = persistent_workers
        self._kept: _WorkerIterator | None = None

    def __len__(self) -> int:
        if self._iterable:
            count = len(cast(Sized, self.dataset))
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else math.ceil(count / self.batch_size)
        return len(cast(Sized, self._order()))

    def __iter__(self) -> Iterator[Any]:
        batches = self._iterator()
        return map(pin, batches) if self.pin_memory and tw.cuda.is_available() else batches

    def _iterator(self) -> Iterator[Any]:
        if self.num_workers == 0:
            draw_seed(self.generator)  # so that a seed gives the same orders with and without workers
            return self._batches_here()
        if not self.persistent_workers:
            return _WorkerIterator(self)
        if self._kept is None or not self._kept.alive:
            self._kept = _WorkerIterator(self)
        else:
            self._kept.start_epoch()
        return self._kept

    def _order(self) -> Iterable[Any]:
        """The sampler that a map-style dataset's batches or items come from."""
        order = self.batch_sampler if self._auto_collation else self.sampler
        assert order is not None
        return order

    def _positions(self) -> Iterator[Any]:
        """What a fetcher is asked for, one thing a batch."""
        if self._iterable:
            return itertools.repeat(None)
        return iter(self._order())

    def _batches_here(self) -> Iterator[Any]:
        fetch = self._make_fetcher()(self.dataset)
        for position in self._positions():
            try:
                batch = fetch(position)
            except StopIteration:
                return
            yield batch

    def _make_fetcher(self) -> Callable[[Any], Callable[[Any], Any]]:
        if self._iterable:
            return _IterableFetcher.maker(self._auto_collation, self.batch_size, self.collate_fn, self.drop_last)
        return _IndexFetcher.maker(self._auto_collation, self.collate_fn)


class _Maker:
    """A fetcher's class and options; called with the dataset, in the process that fetches."""

    def __init__(self, cls: type, options: tuple) -> None:
        self.cls, self.options = cls, options

    def __call__(self, dataset: Any) -> Callable[[Any], Any]:
        return self.cls(dataset, *self.options)


class _IndexFetcher:
    """From indices to a batch."""

    def __init__(self, dataset: Any, auto_collation: bool, collate_fn: Callable) -> None:
        self.dataset, self.auto_collation, self.collate_fn = dataset, auto_collation, collate_fn
        # Plain tensors under the default collate: one index launch a tensor in place of one a sample and a stack.
        self.tensors: TensorDataset | None = None
        self.subsets: list[Subset] = []
        if auto_collation and collate_fn is default_collate:
            while type(dataset) is Subset:
                self.subsets.append(dataset)
                dataset = dataset.dataset
            plain = isinstance(dataset, TensorDataset) and type(dataset).__getitem__ is TensorDataset.__getitem__
            self.tensors = dataset if plain else None

    @classmethod
    def maker(cls, *options: Any) -> _Maker:
        return _Maker(cls, options)

    def __call__(self, indices: Any) -> Any:
        if not self.auto_collation:
            return self.collate_fn(self.dataset[indices])
        if self.tensors is not None:
            for subset in self.subsets:
                indices = [subset.indices[i] for i in indices]
            return self.tensors.take(indices)
        if hasattr(self.dataset, "__getitems__"):
            return self.collate_fn(self.dataset.__getitems__(indices))
        return self.collate_fn([self.dataset[i] for i in indices])


class _IterableFetcher:
    """From the next items of an IterableDataset to a batch; StopIteration at its end."""

    def __init__(self, dataset: Any, auto_collation: bool, batch_size: int, collate_fn: Callable,
                 drop_last: bool) -> None:
        self.items = iter(dataset)
        self.auto_collation, self.batch_size = auto_collation, batch_size
        self.collate_fn, self.drop_last = collate_fn, drop_last

    @classmethod
    def maker(cls, *options: Any) -> _Maker:
        return _Maker(cls, options)

    def __call__(self, _: None) -> Any:
        if not self.auto_collation:
            return self.collate_fn(next(self.items))
        batch = list(itertools.islice(self.items, self.batch_size))
        if not batch or (self.drop_last and len(batch) < self.batch_size):
            raise StopIteration
        return self.collate_fn(batch)


class _Workers:
    """The processes and their sockets, apart from the iterator so that a finalizer can hold them."""

    def __init__(self) -> None:
        self.processes: list = []
        self.connections: list = []
        self._pid = os.getpid()

    def shut_down(self) -> None:
        """Ends every worker: by word, then by SIGTERM, then by SIGKILL."""
        if os.getpid() != self._pid:  # a forked child's copy of this object
            return
        for connection in self.connections:
            # Closing is not enough: workers of another loader, forked since, hold copies of this end.
            with contextlib.suppress(OSError):
                connection.send(None)
            connection.close()
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        for stop in ("terminate", "kill", None):
            for process in self.processes:
                process.join(max(0.0, deadline - time.monotonic()))
            self.processes = [process for process in self.processes if process.is_alive()]
            if stop is None or not self.processes:
                break
            for process in self.processes:
                getattr(process, stop)()
            deadline = time.monotonic() + 1.0


class _WorkerIterator:
    """Batches from worker processes, in order. Batch n is asked of the workers in turn."""

    def __init__(self, loader: DataLoader) -> None:
        context = loader.multiprocessing_context
        if context is None or isinstance(context, str):
            # fork shares the dataset's memory and starts in milliseconds; the engine's thread pool survives it.
            methods = multiprocessing.get_all_start_methods()
            context = multiprocessing.get_context(context or ("fork" if "fork" in methods else None))
        self._loader = loader
        self._workers = workers = _Workers()
        self._finalizer = weakref.finalize(self, workers.shut_down)
        self._epoch = -1
        forks = context.get_start_method() == "fork"
        try:
            for worker_id in range(loader.num_workers):
                ours, theirs = context.Pipe(duplex=True)
                workers.connections.append(ours)
                task = WorkerTask(worker_id, loader.num_workers, loader.dataset, loader._make_fetcher(),
                                  loader.worker_init_fn)
                process = context.Process(target=run_worker, daemon=True,
                                          args=(task, theirs, list(workers.connections) if forks else []))
                process.start()
                theirs.close()
                workers.processes.append(process)
            self.start_epoch()
        except BaseException:
            self._finalizer()
            raise

    @property
    def alive(self) -> bool:
        return self._finalizer.alive

    def start_epoch(self) -> None:
        loader = self._loader
        self._epoch += 1
        base_seed = draw_seed(loader.generator)
        self._positions = enumerate(loader._positions())
        self._owner: dict[int, int] = {}     # batch asked for and not yet given out -> worker
        self._arrived: dict[int, Any] = {}
        self._turn = itertools.cycle(range(loader.num_workers))
        self._ended: set[int] = set()        # workers whose share of an IterableDataset is used up
        for worker in range(loader.num_workers):
            self._tell(worker, ("epoch", self._epoch, base_seed))
        for _ in range(loader.prefetch_factor * loader.num_workers):
            self._ask_for_next()

    def _tell(self, worker: int, message: tuple) -> None:
        try:
            self._workers.connections[worker].send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._fail_for_dead(worker)

    def _ask_for_next(self) -> None:
        if len(self._ended) == self._loader.num_workers:
            return
        try:
            number, position = next(self._positions)
        except StopIteration:
            return
        worker = next(worker for worker in self._turn if worker not in self._ended)
        self._owner[number] = worker
        self._tell(worker, ("batch", self._epoch, number, position))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        try:
            while True:
                if not self._owner:
                    self._finish()
                    raise StopIteration
                batch, worker = self._wait()
                if isinstance(batch, EndOfData):
                    self._ended.add(worker)
                    self._ask_for_next()
                    continue
                self._ask_for_next()
                if isinstance(batch, WorkerFailure):
                    batch.reraise()
                return batch
        except StopIteration:
            raise
        except BaseException:
            self._finalizer()
            self._owner.clear()
            raise

    def _finish(self) -> None:
        if not self._loader.persistent_workers:
            self._finalizer()

    def _ready(self) -> int | None:
        """The number of the batch to give out next, once it has arrived."""
        number = min(self._owner) if self._loader.in_order else next(iter(self._arrived), None)
        return number if number in self._arrived else None

    def _wait(self) -> tuple[Any, int]:
        """The next batch and its worker."""
        deadline = time.monotonic() + self._loader.timeout if self._loader.timeout else None
        connections = {connection: i for i, connection in enumerate(self._workers.connections)}
        sentinels = {process.sentinel: i for i, process in enumerate(self._workers.processes)}
        while (number := self._ready()) is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready: list[Any] = wait([*connections, *sentinels], left)
            if not ready:
                late = self._owner[min(self._owner)]
                raise RuntimeError(f"DataLoader: no batch within timeout {self._loader.timeout} s, waiting for worker "
                                   f"{late} (pid {self._workers.processes[late].pid})")
            with_data = [item for item in ready if item in connections]
            for connection in with_data:
                try:
                    (epoch, position), batch = transport.receive(connection)
                except (EOFError, OSError):  # it died; perhaps in the middle of a message
                    self._fail_for_dead(connections[connection])
                if epoch == self._epoch:
                    self._arrived[position] = batch
            if not with_data:
                # Only now: what a worker sent before it ended is read first.
                self._fail_for_dead(sentinels[ready[0]])
        return self._arrived.pop(number), self._owner.pop(number)

    def _fail_for_dead(self, worker: int) -> None:
        process = self._workers.processes[worker]
        process.join(_SHUTDOWN_SECONDS)
        code = process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"exited with code {code}"
        raise RuntimeError(f"DataLoader: worker {worker} (pid {process.pid}) {how} before its batch was done") from None
