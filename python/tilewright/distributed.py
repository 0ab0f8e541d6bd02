"""A group of one process: what scripts for many processes ask, and do, when they run as one. Many processes are the job
of mpi4py or NCCL.

>>> import tilewright as tw
>>> tw.distributed.init_process_group("gloo", world_size=1, rank=0)
>>> tw.distributed.get_rank(), tw.distributed.get_world_size()
(0, 1)
>>> tw.distributed.destroy_process_group()
"""

from __future__ import annotations

import copy
import enum
import os
from collections.abc import Sequence
from typing import Any

_group: list[str] = []  # the backend's name while there is a group


class ReduceOp(enum.Enum):
    """How values of several processes become one; the value of one stays as it is."""

    SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR, BXOR, PREMUL_SUM = range(9)


reduce_op = ReduceOp


class Work:
    """What a collective with async_op=True returns: it is done already."""

    def wait(self, timeout: Any = None) -> bool:
        """True: it is done."""
        return True

    def is_completed(self) -> bool:
        """True: it is done."""
        return True


def is_available() -> bool:
    """False: there are no several processes. A script that asks runs as one."""
    return False


def is_initialized() -> bool:
    """Whether there is a group."""
    return bool(_group)


def is_nccl_available() -> bool:
    """False: no backend stands behind the group."""
    return False


is_gloo_available = is_mpi_available = is_torchelastic_launched = is_nccl_available


def init_process_group(backend: str | None = None, init_method: str | None = None, timeout: Any = None,
                       world_size: int = -1, rank: int = -1, store: Any = None, group_name: str = "",
                       pg_options: Any = None, device_id: Any = None) -> None:
    """Makes the group of this one process, whichever the backend and the way to meet are.

    Raises:
        NotImplementedError: a world_size (or WORLD_SIZE in the environment) above 1. RuntimeError: there is a group.
    """
    size = world_size if world_size >= 0 else int(os.environ.get("WORLD_SIZE", 1))
    if size != 1 or rank > 0:
        raise NotImplementedError(f"distributed.init_process_group: tilewright trains in one process, got world_size="
                                  f"{size}, rank={rank}; run one, or average gradients with mpi4py to use several")
    if _group:
        raise RuntimeError("distributed.init_process_group: the group exists; call destroy_process_group first")
    _group.append(backend or "gloo")


def destroy_process_group(group: Any = None) -> None:
    """Ends the group, if there is one."""
    _group.clear()


def get_backend(group: Any = None) -> str:
    """The name the group was made with."""
    _check("get_backend")
    return _group[0]


def get_rank(group: Any = None) -> int:
    """This process's number: 0."""
    return 0


def get_world_size(group: Any = None) -> int:
    """The number of processes: 1."""
    return 1


def new_group(ranks: Sequence[int] | None = None, *args: Any, **kwargs: Any) -> Any:
    """The group itself: there is no other. ValueError for other ranks than 0."""
    _check("new_group")
    if ranks is not None and list(ranks) != [0]:
        raise ValueError(f"distributed.new_group: the only rank is 0, got {list(ranks)}")
    return None


def _check(op: str, *roots: int | None) -> None:
    if not _group:
        raise RuntimeError(f"distributed.{op}: there is no group; call init_process_group first")
    if any(r not in (None, 0) for r in roots):
        raise ValueError(f"distributed.{op}: the only rank is 0, got {roots[0]}")


def _done(async_op: bool) -> Work | None:
    return Work() if async_op else None


def barrier(group: Any = None, async_op: bool = False, device_ids: Any = None) -> Work | None:
    """One process has nobody to wait for."""
    return _done(async_op)


def all_reduce(tensor: Any, op: ReduceOp = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Work | None:
    """The tensor stays: it is the sum (mean, largest, ...) over one process."""
    _check("all_reduce")
    return _done(async_op)


def reduce(tensor: Any, dst: int | None = None, op: ReduceOp = ReduceOp.SUM, group: Any = None,
           async_op: bool = False, group_dst: int | None = None) -> Work | None:
    """The tensor stays."""
    _check("reduce", dst, group_dst)
    return _done(async_op)


def broadcast(tensor: Any, src: int | None = None, group: Any = None, async_op: bool = False,
              group_src: int | None = None) -> Work | None:
    """The tensor stays."""
    _check("broadcast", src, group_src)
    return _done(async_op)


def all_gather(tensor_list: list, tensor: Any, group: Any = None, async_op: bool = False) -> Work | None:
    """Writes the tensor into the list's one tensor."""
    _check("all_gather")
    (place,) = tensor_list
    place.copy_(tensor)
    return _done(async_op)


def all_gather_into_tensor(output_tensor: Any, input_tensor: Any, group: Any = None,
                           async_op: bool = False) -> Work | None:
    """Writes the input into the output."""
    _check("all_gather_into_tensor")
    output_tensor.copy_(input_tensor.reshape(output_tensor.shape))
    return _done(async_op)


reduce_scatter_tensor = all_gather_into_tensor


def gather(tensor: Any, gather_list: list | None = None, dst: int | None = None, group: Any = None,
           async_op: bool = False, group_dst: int | None = None) -> Work | None:
    """Writes the tensor into the list's one tensor."""
    _check("gather", dst, group_dst)
    return all_gather(gather_list or [tensor], tensor, async_op=async_op)


def scatter(tensor: Any, scatter_list: list | None = None, src: int | None = None, group: Any = None,
            async_op: bool = False, group_src: int | None = None) -> Work | None:
    """Writes the list's one tensor into the tensor."""
    _check("scatter", src, group_src)
    (given,) = scatter_list or [tensor]
    tensor.copy_(given)
    return _done(async_op)


def reduce_scatter(output: Any, input_list: list, op: ReduceOp = ReduceOp.SUM, group: Any = None,
                   async_op: bool = False) -> Work | None:
    """Writes the list's one tensor into the output."""
    _check("reduce_scatter")
    return scatter(output, input_list, async_op=async_op)


def all_gather_object(object_list: list, obj: Any, group: Any = None) -> None:
    """Puts a copy of the object into the list's one place."""
    _check("all_gather_object")
    object_list[0] = copy.deepcopy(obj)


def broadcast_object_list(object_list: list, src: int | None = None, group: Any = None, device: Any = None,
                          group_src: int | None = None) -> None:
    """The list stays."""
    _check("broadcast_object_list", src, group_src)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotImplementedError(f"distributed.{name}: tilewright trains in one process; is_available() is False. Average "
                              f"gradients with mpi4py to use several")
