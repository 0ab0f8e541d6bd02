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
from tilewright import autograd, cuda, kernels, refused
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
from tilewright.autocast import (
    autocast,
    get_autocast_cpu_dtype,
    get_autocast_dtype,
    get_autocast_gpu_dtype,
    is_autocast_cpu_enabled,
    is_autocast_enabled,
)
from tilewright.autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from tilewright.creation import (
    arange,
    as_tensor,
    asarray,
    channels_last,
    channels_last_3d,
    contiguous_format,
    empty,
    empty_like,
    eye,
    from_dlpack,
    from_numpy,
    frombuffer,
    full,
    full_like,
    get_default_device,
    layout,
    linspace,
    logspace,
    memory_format,
    ones,
    ones_like,
    preserve_format,
    scalar_tensor,
    set_default_device,
    strided,
    tensor,
    zeros,
    zeros_like,
)
from tilewright.legacy import *  # noqa: F403 - names of older scripts
from tilewright.legacy import __all__ as _legacy
from tilewright.ops.exports import *  # noqa: F403 - the op functions
from tilewright.ops.exports import _names as _ops
from tilewright.printing import set_printoptions
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
dtype.__doc__ = "What a tensor's elements are, such as tilewright.float32."

if TYPE_CHECKING:
    from tilewright import amp, backends, compat, distributed, distributions, linalg, nn, optim, testing, utils, vision  # noqa: F401
    from tilewright.serialization import load, save  # noqa: F401

_SUBMODULES = ("amp", "backends", "compat", "distributed", "distributions", "linalg", "models", "multiprocessing", "nn",
               "optim", "random", "special", "testing", "train", "utils", "version", "vision")
_FUNCTIONAL = ("adaptive_avg_pool1d", "avg_pool1d", "bilinear", "celu", "channel_shuffle", "cosine_similarity",
               "group_norm", "hardshrink", "layer_norm", "max_pool1d", "max_pool2d", "max_pool3d", "pairwise_distance",
               "pdist", "pixel_shuffle", "pixel_unshuffle", "prelu", "rms_norm", "threshold")
_LINALG = {"cholesky": "old_cholesky", "cholesky_inverse": "", "cholesky_solve": "", "cross": "old_cross", "det": "",
           "inverse": "inv", "logdet": "", "matrix_power": "", "pinverse": "", "qr": "old_qr", "slogdet": "",
           "svd": "old_svd", "triangular_solve": ""}
_SAVING = ("load", "save")

__all__ = [
    "Tensor", "arange", "as_tensor", "asarray", "autocast", "autograd", "bfloat16", "bool", "channels_last",
    "channels_last_3d", "contiguous_format", "cpu_capability", "cuda", "device", "double", "dtype", "empty",
    "empty_cache", "empty_like", "enable_grad", "eye", "float", "float16", "float32", "float64", "from_dlpack",
    "from_numpy", "frombuffer", "full", "full_like", "get_autocast_cpu_dtype", "get_autocast_dtype",
    "get_autocast_gpu_dtype", "get_default_device", "get_default_dtype", "get_float32_matmul_precision",
    "get_num_threads", "half", "int", "int16", "int32", "int64", "int8", "is_autocast_cpu_enabled",
    "is_autocast_enabled", "is_grad_enabled", "kernels", "layout", "linspace", "logspace", "long", "memory_format",
    "memory_stats", "no_grad", "ones", "ones_like", "preserve_format", "promote_types", "reset_peak_memory_stats",
    "result_type", "scalar_tensor", "set_default_device", "set_default_dtype", "set_float32_matmul_precision",
    "set_grad_enabled", "set_num_threads", "set_printoptions", "short", "strided", "tensor", "uint8", "zeros",
    "zeros_like", *_legacy, *_ops, *_SAVING, *_LINALG, *_SUBMODULES,
]


def __getattr__(name: str):
    # The layer API loads when it is first used, so that `import tilewright` stays quick.
    if name in _SUBMODULES:
        return importlib.import_module(f"tilewright.{name}")
    if name == "range":  # not in this file's names, where it would hide Python's
        return importlib.import_module("tilewright.creation").range
    if name in _SAVING:
        return getattr(importlib.import_module("tilewright.serialization"), name)
    if name in _LINALG:
        return getattr(importlib.import_module("tilewright.linalg"), _LINALG[name] or name)
    if name in _FUNCTIONAL:
        return getattr(importlib.import_module("tilewright.nn.functional"), name)
    if name.endswith("_") and not name.startswith("_") and hasattr(Tensor, name):
        return getattr(Tensor, name)  # tw.relu_(x) is x.relu_()
    refusal = refused.find(name)
    if refusal is None:
        raise AttributeError(f"module 'tilewright' has no attribute {name!r}; tilewright.compat.report() lists "
                             f"PyTorch's names that are and are not here")
    return refusal
