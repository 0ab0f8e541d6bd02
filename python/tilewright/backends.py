"""PyTorch's switches for other libraries. Scripts set them; here no library stands behind them, and results are
deterministic in any case.

>>> import tilewright as tw
>>> tw.backends.cudnn.benchmark = True
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any


def _library(name: str, available: bool = False, version: int | None = None, **switches: Any) -> types.ModuleType:
    """A module of its own, for `import tilewright.backends.cudnn as cudnn`."""
    made = sys.modules[f"{__name__}.{name}"] = types.ModuleType(f"{__name__}.{name}", f"Switches of {name}.")
    made.__dict__.update(is_available=lambda: available, version=lambda: version, **switches)
    return made


@contextlib.contextmanager
def _nothing(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


cudnn = _library("cudnn", benchmark=False, deterministic=True, enabled=False, allow_tf32=False, flags=_nothing)
mkl, mkldnn, openmp, mps = (_library(name) for name in ("mkl", "mkldnn", "openmp", "mps"))
cuda = _library("cuda", matmul=types.SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=False),
                sdp_kernel=_nothing, enable_flash_sdp=lambda enabled: None, enable_math_sdp=lambda enabled: None,
                enable_mem_efficient_sdp=lambda enabled: None)
