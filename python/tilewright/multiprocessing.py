"""Python's multiprocessing, and `spawn`. Tensors are copied on their way to another process."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import traceback
from collections.abc import Callable
from multiprocessing import *  # noqa: F403 - the same names
from typing import Any

__all__ = [*multiprocessing.__all__, "ProcessContext", "ProcessRaisedException", "get_all_sharing_strategies",
           "get_sharing_strategy", "set_sharing_strategy", "spawn"]


class ProcessRaisedException(Exception):
    """A process of `spawn` failed; the message holds its traceback."""


def _run(fn: Callable, i: int, args: tuple, errors: Any) -> None:
    try:
        fn(i, *args)
    except KeyboardInterrupt:
        raise SystemExit(1) from None
    except Exception:
        errors.put((i, traceback.format_exc()))
        raise SystemExit(1) from None


class ProcessContext:
    """The processes of a `spawn(join=False)`."""

    def __init__(self, processes: list, errors: Any) -> None:
        self.processes, self._errors = processes, errors

    def pids(self) -> list:
        return [p.pid for p in self.processes]

    def join(self, timeout: float | None = None) -> bool:
        """Waits for a process to end; True when all have. The first failure ends the others and is raised."""
        waiting = [p.sentinel for p in self.processes if p.is_alive()]
        if waiting:
            multiprocessing.connection.wait(waiting, timeout)
        codes = [p.exitcode for p in self.processes]
        failed = [k for k, code in enumerate(codes) if code not in (None, 0)]
        if failed:
            for p in self.processes:
                if p.is_alive():
                    p.terminate()
                p.join()
            k, text = (failed[0], f"exit code {codes[failed[0]]}") if self._errors.empty() else \
                self._errors.get()
            raise ProcessRaisedException(f"spawn: process {k} failed:\n{text}")
        return None not in codes


def spawn(fn: Callable, args: tuple = (), nprocs: int = 1, join: bool = True, daemon: bool = False,
          start_method: str = "spawn") -> ProcessContext | None:
    """Runs fn(i, *args) in `nprocs` processes, i = 0, 1, ...; waits for them unless `join` is False.

    Raises:
        ProcessRaisedException: one failed; the others are ended.
    """
    context = multiprocessing.get_context(start_method)
    errors = context.SimpleQueue()
    processes = [context.Process(target=_run, args=(fn, i, args, errors), daemon=daemon)  # type: ignore[attr-defined]
                 for i in range(nprocs)]
    for p in processes:
        p.start()
    made = ProcessContext(processes, errors)
    if not join:
        return made
    while not made.join():
        pass
    return None


def get_sharing_strategy() -> str:
    """How workers hand tensors over."""
    return "file_system"


def get_all_sharing_strategies() -> set[str]:
    """The strategies there are."""
    return {"file_system"}


def set_sharing_strategy(new_strategy: str) -> None:
    """Workers of a DataLoader hand tensors over in files of shared memory, whichever strategy is named."""
    if new_strategy not in ("file_system", "file_descriptor"):
        raise ValueError(f"set_sharing_strategy: must be 'file_system' or 'file_descriptor', got {new_strategy!r}")
