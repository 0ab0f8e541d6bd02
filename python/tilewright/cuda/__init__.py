"""CUDA devices, with PyTorch's names: which there are, their memory, streams and events.

Work on a device is done in the order of its current stream, while the program goes on; `.item()` and `.cpu()` wait for
what they need. The random numbers of a seed are the same on every device, from one generator.

`TILEWRIGHT_CUDA=simt` makes the device an emulator that runs the kernels on the CPU, slowly and watching them
(docs/kernels/cuda.md); `TILEWRIGHT_CUDA=off` leaves it away.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import Any

from tilewright import _engine
from tilewright.ops import random as _random

OutOfMemoryError = _engine.OutOfMemoryError
_engine.cuda_folder(os.path.dirname(_engine.__file__))


def is_available() -> bool:
    """Whether tensors can live on a GPU; `why_not` tells what is missing."""
    return _engine.cuda_available()


def why_not() -> str:
    """Why `is_available` is False: no CUDA in this build, no driver, a driver too old, no device. Empty where it is
    True."""
    return _engine.cuda_why_not()


def init() -> None:
    """Starts CUDA now rather than at its first use. RuntimeError where it is not available."""
    if not is_available():
        raise RuntimeError(f"cuda.init: not available: {why_not()}")


def is_initialized() -> bool:
    """Whether a GPU has been used."""
    return is_available()


def device_count() -> int:
    """How many GPUs can be used."""
    return _engine.cuda_device_count()


def _index(where: Any = None) -> int:
    if where is None:
        return _engine.cuda_current_device()
    if isinstance(where, int):
        return where
    d = _engine.device(str(where))
    if d.index is None:
        raise ValueError(f"cuda: expects a CUDA device, got {d}")
    return _engine.cuda_current_device() if str(where) == "cuda" else d.index


def current_device() -> int:
    """The number of the GPU that "cuda" means in this thread."""
    init()
    return _engine.cuda_current_device()


def set_device(device: Any) -> None:
    """Makes a GPU the one that "cuda" means in this thread.

    Raises:
        ValueError: there is no such GPU.
    """
    _engine.cuda_set_device(_index(device))


class device(contextlib.ContextDecorator):
    """`with cuda.device(1):` makes another GPU the current one for a while."""

    def __init__(self, device: Any) -> None:
        self.idx = _index(device)

    def __enter__(self) -> device:
        self._before = _engine.cuda_current_device()
        _engine.cuda_set_device(self.idx)
        return self

    def __exit__(self, *exc: Any) -> None:
        _engine.cuda_set_device(self._before)


class _Properties:
    """What `get_device_properties` returns: name, major, minor, total_memory, multi_processor_count and more."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    def __repr__(self) -> str:
        return f"_CudaDeviceProperties({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


def get_device_properties(device: Any = None) -> Any:
    """Name, compute capability, memory, multiprocessors and limits of a GPU."""
    return _Properties(_engine.cuda_properties(_index(device)))


def get_device_name(device: Any = None) -> str:
    """The GPU's name."""
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The compute capability, such as (9, 0)."""
    p = get_device_properties(device)
    return p.major, p.minor


def is_bf16_supported() -> bool:
    """Whether kernels take bfloat16."""
    return is_available() and get_device_capability()[0] >= 8


def synchronize(device: Any = None) -> None:
    """Waits until all work on a GPU is done. RuntimeError names an op whose kernel failed."""
    _engine.cuda_synchronize(_index(device))


# --- memory ----------------------------------------------------------------------------------------------------------
def memory_stats(device: Any = None) -> dict[str, int]:
    """Bytes of the caching allocator: allocated now and at peak, reserved (allocated and cached); how many allocations
    were asked for and how many of them the cache served."""
    return _engine.cuda_memory_stats(_index(device)) if is_available() else {}


def memory_allocated(device: Any = None) -> int:
    """Bytes in live tensors, rounded to the allocator's sizes."""
    return memory_stats(device).get("allocated_bytes", 0)


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes in tensors since the start, or since `reset_peak_memory_stats`."""
    return memory_stats(device).get("peak_allocated_bytes", 0)


def memory_reserved(device: Any = None) -> int:
    """Bytes taken from the device: in tensors, or cached for the next ones."""
    return memory_stats(device).get("reserved_bytes", 0)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Starts the peak anew from what is allocated now."""
    if is_available():
        _engine.cuda_reset_peak(_index(device))


reset_max_memory_allocated = reset_peak_memory_stats


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Free and total bytes of the device."""
    return _engine.cuda_memory_info(_index(device))


def empty_cache() -> None:
    """Gives cached memory back to the device."""
    _engine.cuda_empty_cache()


# --- random numbers --------------------------------------------------------------------------------------------------
def manual_seed(seed: int) -> None:
    """Seeds the generator that all devices share, so that a seed means the same numbers on each."""
    _random.manual_seed(seed)


manual_seed_all = manual_seed


# --- streams and events ----------------------------------------------------------------------------------------------
class Stream:
    """A queue of work on a GPU; work of two streams may run at the same time.

    Lower priorities go first (0 or -1). `with cuda.stream(s):` makes it the current one.
    """

    def __init__(self, device: Any = None, priority: int = 0, *, _handle: int | None = None) -> None:
        init()
        self.device_index = _index(device)
        self._own = _handle is None
        self.cuda_stream: int = (_engine.cuda_stream_create(self.device_index, priority) if _handle is None
                                 else _handle)

    @property
    def device(self) -> Any:
        """The GPU of the stream."""
        return _engine.device("cuda", self.device_index)

    def synchronize(self) -> None:
        """Waits until the stream's work is done."""
        _engine.cuda_stream_synchronize(self.cuda_stream)

    def query(self) -> bool:
        """Whether the stream's work is done."""
        return _engine.cuda_stream_query(self.cuda_stream)

    def wait_event(self, event: Event) -> None:
        """Later work of this stream waits for the event."""
        _engine.cuda_stream_wait(self.cuda_stream, event._made())

    def wait_stream(self, stream: Stream) -> None:
        """Later work of this stream waits for what the other one has been given so far."""
        self.wait_event(stream.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        """An event that happens when the stream's work so far is done."""
        event = event or Event()
        event.record(self)
        return event

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.cuda_stream == other.cuda_stream

    def __hash__(self) -> int:
        return hash(self.cuda_stream)

    def __repr__(self) -> str:
        return f"<tilewright.cuda.Stream device=cuda:{self.device_index} cuda_stream={self.cuda_stream:#x}>"

    def __del__(self) -> None:
        if getattr(self, "_own", False) and hasattr(self, "cuda_stream"):
            _engine.cuda_stream_destroy(self.cuda_stream)


class Event:
    """A mark in a stream, to wait for, or to take times between: `start.elapsed_time(end)` in milliseconds."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        if interprocess:
            raise NotImplementedError("Event: interprocess events are not offered")
        self._timing, self._handle = enable_timing, 0

    def _made(self) -> int:
        if not self._handle:
            self._handle = _engine.cuda_event_create(self._timing)
        return self._handle

    def record(self, stream: Stream | None = None) -> None:
        """Marks the point that the stream (the current one by default) has been given."""
        _engine.cuda_event_record(self._made(), (stream or current_stream()).cuda_stream)

    def wait(self, stream: Stream | None = None) -> None:
        """Makes a stream wait for the event."""
        (stream or current_stream()).wait_event(self)

    def query(self) -> bool:
        """Whether the work before the mark is done."""
        return not self._handle or _engine.cuda_event_query(self._handle)

    def synchronize(self) -> None:
        """Waits until the event has happened."""
        if self._handle:
            _engine.cuda_event_synchronize(self._handle)

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this mark to the other. Both need enable_timing=True.

        Raises:
            ValueError: an event without timing, or not yet recorded.
        """
        if not (self._timing and end_event._timing and self._handle and end_event._handle):
            raise ValueError("elapsed_time: both events must have been made with enable_timing=True and recorded")
        return _engine.cuda_event_elapsed(self._handle, end_event._handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            _engine.cuda_event_destroy(self._handle)


def current_stream(device: Any = None) -> Stream:
    """The stream that ops of this thread go to."""
    init()
    where = _index(device)
    return Stream(where, _handle=_engine.cuda_current_stream(where))


def default_stream(device: Any = None) -> Stream:
    """The stream that work goes to unless told otherwise."""
    return Stream(device, _handle=0)


def set_stream(stream: Stream) -> None:
    """Ops of this thread go to the stream from now on."""
    _engine.cuda_set_stream(stream.device_index, stream.cuda_stream)


class stream(contextlib.ContextDecorator):
    """`with cuda.stream(s):` ops of this thread go to s; nothing changes for None."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> stream:
        if self.stream is not None:
            self._before = current_stream(self.stream.device_index)
            set_stream(self.stream)
        return self

    def __exit__(self, *exc: Any) -> None:
        if self.stream is not None:
            set_stream(self._before)


# --- older names -----------------------------------------------------------------------------------------------------
def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The allocator's figures as lines of text."""
    return "\n".join(f"{name:>24}: {value}" for name, value in memory_stats(device).items())


def __getattr__(name: str) -> Any:
    if name == "amp":
        return importlib.import_module("tilewright.cuda.amp")
    if name.endswith("Tensor"):
        from tilewright import legacy

        if name[:-6] in legacy._NAMES:  # cuda.FloatTensor, ...; always the same class
            globals()[name] = legacy.typed(name, "cuda")
            return globals()[name]
    raise AttributeError(f"module 'tilewright.cuda' has no attribute {name!r}")
