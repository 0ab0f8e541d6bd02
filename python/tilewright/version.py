"""Versions, as scripts ask for them. `version.cuda` is None where no GPU can be used, else "12.0", the oldest CUDA
toolkit that builds the kernels."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
debug, hip, git_version = False, None, "unknown"


def __getattr__(name: str) -> Any:
    if name != "cuda":
        raise AttributeError(f"module 'tilewright.version' has no attribute {name!r}")
    from tilewright import cuda

    return "12.0" if cuda.is_available() else None
