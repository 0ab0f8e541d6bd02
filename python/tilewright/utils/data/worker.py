"""What runs in a DataLoader's worker process, and how its exceptions reach the user."""

from __future__ import annotations

import os
import pickle
import queue
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import tilewright as tw
from tilewright.utils.data import transport


class WorkerInfo(NamedTuple):
    """What get_worker_info() returns inside a worker."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_worker_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The calling worker's id, number of workers, seed and dataset; None in the main process."""
    return _worker_info


class _Text(str):
    """A message whose repr is itself: KeyError prints its argument's repr, which would hide the line breaks."""

    def __repr__(self) -> str:
        return str(self)


class WorkerFailure(NamedTuple):
    """An exception on its way to the main process: its class, if that can travel, and its printed traceback."""

    kind: type | None
    name: str
    trace: str
    where: str

    @classmethod
    def current(cls, where: str) -> WorkerFailure:
        kind, error, trace = sys.exc_info()
        assert kind is not None  # called where an exception is handled
        try:
            travels = pickle.loads(pickle.dumps(kind)) is kind
        except Exception:
            travels = False
        text = "".join(traceback.format_exception(kind, error, trace))
        return cls(kind if travels else None, kind.__name__, text, where)

    def reraise(self) -> None:
        message = f"{self.name} in {self.where}:\n{self.trace.rstrip()}"
        kind: Any = self.kind or RuntimeError
        try:
            error = kind(_Text(message) if kind is KeyError else message)
        except Exception:  # a class that takes other arguments
            error = RuntimeError(message)
        raise error from None


class EndOfData(NamedTuple):
    """A worker's share of an IterableDataset is used up."""


class WorkerTask(NamedTuple):
    """All that a worker needs to start."""

    worker_id: int
    num_workers: int
    dataset: Any
    make_fetcher: Callable[[Any], Callable[[Any], Any]]
    worker_init_fn: Callable[[int], None] | None


class _Tasks:
    """Moves tasks from the socket to a queue in a thread of its own, so that the main process never waits to send.

    When that process says so, closes the socket or is gone, what is queued is dropped, and a worker that is still busy
    some seconds later is ended.
    """

    _GRACE_SECONDS = 10.0

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._closed = False
        self._parent = os.getppid()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                # A process forked elsewhere may hold a copy of the socket's other end, so its closing is not enough.
                while not self._connection.poll(5.0):
                    if os.getppid() != self._parent:
                        raise EOFError
                task = self._connection.recv()
                if task is None:
                    raise EOFError
                self._queue.put(task)
        except (EOFError, OSError):
            self._closed = True
            self._queue.put(None)
            time.sleep(self._GRACE_SECONDS)
            os._exit(1)

    def get(self) -> tuple | None:
        task = self._queue.get()
        return None if self._closed else task


def run_worker(task: WorkerTask, connection: Connection, inherited: list[Connection]) -> None:
    """Answers ('epoch', epoch, seed) by starting anew and ('batch', epoch, number, position) by a batch."""
    global _worker_info
    # Ctrl-C goes to the whole process group; the main process decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # After fork this process holds copies of the main process's ends; while they are open no worker sees it go.
    for other in inherited:
        other.close()
    tw.set_num_threads(1)  # the workers are the parallelism
    tasks = _Tasks(connection)
    where = f"DataLoader worker {task.worker_id} (pid {os.getpid()})"
    fetch: Callable[[Any], Any] | None = None
    failure: WorkerFailure | None = None
    started = False
    while (message := tasks.get()) is not None:
        if message[0] == "epoch":
            seed = message[2] + task.worker_id
            try:
                if not started:
                    _seed_all(seed)
                    _worker_info = WorkerInfo(task.worker_id, task.num_workers, seed, task.dataset)
                    if task.worker_init_fn is not None:
                        task.worker_init_fn(task.worker_id)
                    started = True
                fetch, failure = task.make_fetcher(task.dataset), None
            except Exception:
                failure = WorkerFailure.current(where)
            continue
        _, epoch, number, position = message
        result: Any = failure
        if failure is None:
            try:
                assert fetch is not None  # an epoch begins before its batches are asked for
                result = fetch(position)
            except StopIteration:
                result = EndOfData()
            except Exception:
                result = WorkerFailure.current(where)
        try:
            transport.send(connection, (epoch, number), result)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception:  # a batch that cannot be pickled
            transport.send(connection, (epoch, number), WorkerFailure.current(where))


def _seed_all(seed: int) -> None:
    """Seeds the engine, `random` and (when somebody imported it) NumPy, which would otherwise repeat in each worker."""
    tw.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
