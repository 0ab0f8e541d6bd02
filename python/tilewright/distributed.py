"""One process: what scripts ask before they decide to use several. Many processes are mpi4py's or NCCL's job.

>>> import tilewright as tw
>>> tw.distributed.is_available(), tw.distributed.get_rank(), tw.distributed.get_world_size()
(False, 0, 1)
"""

from __future__ import annotations

from typing import Any


def is_available() -> bool:
    return False


def is_initialized() -> bool:
    return False


def is_nccl_available() -> bool:
    return False


def get_rank(group: Any = None) -> int:
    return 0


def get_world_size(group: Any = None) -> int:
    return 1


def barrier(*args: Any, **kwargs: Any) -> None:
    """One process has nobody to wait for."""


def destroy_process_group(group: Any = None) -> None:
    """There is none."""


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotImplementedError(f"distributed.{name}: tilewright trains in one process; is_available() is False. Average "
                              f"gradients with mpi4py to use several")
