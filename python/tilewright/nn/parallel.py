"""PyTorch's wrappers for many devices and many processes, on the one device and in the one process there is here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from tilewright.nn.module import Module


class DataParallel(Module):
    """The module itself, on its one device, under the name `.module` that saved weights expect.

    Raises:
        NotImplementedError: several devices: a batch is not spread over GPUs here.
    """

    def __init__(self, module: Module, device_ids: Sequence | None = None, output_device: Any = None,
                 dim: int = 0) -> None:
        super().__init__()
        _check_devices("DataParallel", device_ids)
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


class DistributedDataParallel(DataParallel):
    """The module itself under the name `.module`: the mean of the gradients of one process is that process's own.

    The other arguments say how PyTorch's processes talk to one another, which one process does not.

    Raises:
        NotImplementedError: several devices.
    """

    def __init__(self, module: Module, device_ids: Sequence | None = None, output_device: Any = None, dim: int = 0,
                 broadcast_buffers: bool = True, **options: Any) -> None:
        unknown = set(options) - {"init_sync", "process_group", "bucket_cap_mb", "find_unused_parameters",
                                  "check_reduction", "gradient_as_bucket_view", "static_graph",
                                  "delay_all_reduce_named_params", "param_to_hook_all_reduce", "mixed_precision",
                                  "device_mesh", "skip_all_reduce_unused_params"}
        if unknown:
            raise TypeError(f"DistributedDataParallel: got an unexpected keyword {', '.join(sorted(unknown))}")
        if options.get("mixed_precision") is not None:
            raise NotImplementedError("DistributedDataParallel: mixed_precision is not offered; use tw.autocast")
        super().__init__(module, device_ids, output_device, dim)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """A block without exchange of gradients, of which there is none anyhow."""
        yield


def _check_devices(op: str, device_ids: Sequence | None) -> None:
    if device_ids is not None and len(device_ids) > 1:
        raise NotImplementedError(f"{op}: a batch cannot be spread over several devices, got device_ids "
                                  f"{list(device_ids)}; leave them out")


def data_parallel(module: Module, inputs: Any, device_ids: Sequence | None = None, output_device: Any = None,
                  dim: int = 0, module_kwargs: dict | None = None) -> Any:
    """module(*inputs, **module_kwargs), on the one device; NotImplementedError for several."""
    _check_devices("data_parallel", device_ids)
    return module(*(inputs if isinstance(inputs, tuple) else (inputs,)), **(module_kwargs or {}))


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotImplementedError(f"nn.parallel.{name}: not offered, for there is one device and one process here")
