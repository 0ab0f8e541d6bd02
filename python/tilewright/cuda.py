"""CUDA devices: this build has kernels for the CPU only, and says so."""

from __future__ import annotations

from typing import Any, NoReturn


def is_available() -> bool:
    """Whether tensors can live on a GPU: False in this build."""
    return False


def device_count() -> int:
    """How many GPUs can be used: 0 in this build."""
    return 0


def manual_seed(seed: int) -> None:
    """Seeds the current GPU's generator; there is none, so nothing happens, as in PyTorch without a GPU."""


def manual_seed_all(seed: int) -> None:
    """Seeds every GPU's generator; there is none, so nothing happens, as in PyTorch without a GPU."""


def empty_cache() -> None:
    """Frees cached GPU memory; there is none."""


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def unavailable(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(f"cuda.{name}: this build has no CUDA kernels; check cuda.is_available() first")

    return unavailable
