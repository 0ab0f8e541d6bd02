"""tilewright: a compact tensor engine with hand-written kernels, a thin autograd and PyTorch's names.

>>> import tilewright as tw
>>> x = tw.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
>>> (x @ x).sum().backward()
>>> x.grad
tensor([[ 7., 11.],
        [ 9., 13.]])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tilewright.tensor import Tensor  # isort: skip - first: the function `tensor` below takes the submodule's name
from tilewright import autograd, cuda, kernels
from tilewright._engine import (
    bfloat16,
    bool,
    device,
    dtype,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    set_default_dtype,
    uint8,
)
from tilewright.autocast import autocast, get_autocast_dtype, is_autocast_enabled
from tilewright.autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from tilewright.creation import (
    arange,
    as_tensor,
    asarray,
    empty,
    empty_like,
    eye,
    from_dlpack,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from tilewright.legacy import *  # noqa: F403 - names of older scripts
from tilewright.legacy import __all__ as _legacy
from tilewright.ops.exports import *  # noqa: F403 - the op functions
from tilewright.ops.exports import __all__ as _ops
from tilewright.runtime import (
    cpu_capability,
    empty_cache,
    get_float32_matmul_precision,
    get_num_threads,
    memory_stats,
    promote_types,
    reset_peak_memory_stats,
    result_type,
    set_float32_matmul_precision,
    set_num_threads,
)

__version__ = "0.1.0"

float, double, half = float32, float64, float16
short, int, long = int16, int32, int64

if TYPE_CHECKING:
    from tilewright import amp, backends, distributed, nn, optim, testing, utils, vision  # noqa: F401
    from tilewright.serialization import load, save  # noqa: F401

_SUBMODULES = ("amp", "backends", "distributed", "nn", "optim", "testing", "utils", "vision")
_SAVING = ("load", "save")

__all__ = [
    "Tensor", "arange", "as_tensor", "asarray", "autograd", "bfloat16", "bool", "cpu_capability", "cuda", "device",
    "double", "dtype", "empty", "empty_cache", "empty_like", "enable_grad", "eye", "float", "float16", "float32",
    "float64", "from_dlpack", "from_numpy", "full", "full_like", "get_default_dtype", "get_num_threads", "half",
    "int", "int8", "int16", "int32", "int64", "is_grad_enabled", "kernels", "linspace", "long", "memory_stats",
    "no_grad", "ones", "ones_like", "promote_types", "reset_peak_memory_stats", "result_type", "set_default_dtype",
    "set_grad_enabled", "set_num_threads", "short", "tensor", "uint8", "zeros", "zeros_like", "autocast",
    "get_autocast_dtype", "is_autocast_enabled",
    "get_float32_matmul_precision", "set_float32_matmul_precision", *_legacy, *_ops, *_SAVING, *_SUBMODULES,
]


def __getattr__(name: str):
    # The layer API loads when it is first used, so that `import tilewright` stays quick.
    if name in _SUBMODULES:
        return importlib.import_module(f"tilewright.{name}")
    if name in _SAVING:
        return getattr(importlib.import_module("tilewright.serialization"), name)
    raise AttributeError(f"module 'tilewright' has no attribute {name!r}")
