"""How a batch goes from a worker process to the training process.

The structure is pickled; each tensor and NumPy array leaves a placeholder there. Large ones travel in one anonymous
shared-memory file whose descriptor is passed over the socket: it has no name, so the kernel frees it when the last
process lets go, however that process ends, and nothing can leak. The receiver maps it and copies nothing.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import numpy as np

from tilewright.tensor import Tensor
from tilewright.utils.raw import dtype_name, from_bytes, to_numpy

# Below this a batch is cheaper through the socket than through a fresh mapping and its page faults.
SHARED_MEMORY_BYTES = 1 << 16
_ALIGNMENT = 64
_HAS_MEMFD = hasattr(os, "memfd_create")


class _Pickler(pickle.Pickler):
    """Moves tensors' and arrays' memory out of the pickle stream; `blocks` are (array, offset in the payload)."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.blocks: list[tuple[np.ndarray, int]] = []
        self.size = 0

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            values, kind = to_numpy(obj), dtype_name(obj.dtype)
        elif type(obj) is np.ndarray and obj.dtype.kind in "biufc":
            values, kind = np.ascontiguousarray(obj), obj.dtype
        else:
            return None
        offset = self.size
        self.size += -(-values.nbytes // _ALIGNMENT) * _ALIGNMENT
        self.blocks.append((values, offset))
        return kind, tuple(obj.shape), offset, values.nbytes

    def write_to(self, payload: Any) -> None:
        target = np.frombuffer(payload, dtype=np.uint8)
        for values, offset in self.blocks:
            target[offset:offset + values.nbytes] = values.reshape(-1).view(np.uint8)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, payload: Any) -> None:
        super().__init__(file)
        self._payload = memoryview(payload)

    def persistent_load(self, pid: Any) -> Any:
        kind, shape, offset, nbytes = pid
        block = self._payload[offset:offset + nbytes]
        if isinstance(kind, str):
            return from_bytes(block, kind, shape)
        return np.frombuffer(block, dtype=kind).reshape(shape)


def send(connection: Connection, header: tuple, data: Any) -> None:
    """Sends `header` and `data`; raises before anything is sent when `data` cannot be pickled."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(data)
    body = file.getvalue()
    if not (_HAS_MEMFD and pickler.size >= SHARED_MEMORY_BYTES):
        payload = bytearray(pickler.size)
        pickler.write_to(payload)
        connection.send((header, body, payload))
        return
    fd = os.memfd_create("tilewright-batch")
    try:
        os.ftruncate(fd, pickler.size)
        with mmap.mmap(fd, pickler.size) as memory:
            pickler.write_to(memory)
        connection.send((header, body, pickler.size))
        send_handle(connection, fd, None)
    finally:
        os.close(fd)


def receive(connection: Connection) -> tuple[tuple, Any]:
    header, body, payload = connection.recv()
    if isinstance(payload, int):
        fd = recv_handle(connection)
        try:
            payload = mmap.mmap(fd, payload)
        finally:
            os.close(fd)
    return header, _Unpickler(io.BytesIO(body), payload).load()
