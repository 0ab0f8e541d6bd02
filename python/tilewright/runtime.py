"""The machine as the engine sees it: CPU level, threads, memory, and the rules of promotion."""

from __future__ import annotations

from typing import Any

from tilewright import _engine, autograd


def cpu_capability() -> str:
    """The CPU level in use: "scalar", "avx2" or "avx512", the best that the machine has, or what `TILEWRIGHT_CPU` says.

    Raises:
        RuntimeError: `TILEWRIGHT_CPU` names a level that this machine or build lacks.
    """
    return _engine.cpu_capability()


def get_num_threads() -> int:
    """How many threads a kernel may use; by default the cores that affinity and the cgroup's quota leave."""
    return _engine.num_threads()


def set_num_threads(n: int) -> None:
    """Lets kernels use n threads, the calling one included. Results have the same bits for any n.

    Raises:
        ValueError: n below 1.
    """
    _engine.set_num_threads(n)


_medium = False  # what 'high' cannot be told from by the engine's flag


def get_float32_matmul_precision() -> str:
    """What float32 products on CUDA keep of their operands, as `set_float32_matmul_precision` chose."""
    return "highest" if not _engine.matmul_tf32() else "medium" if _medium else "high"


def set_float32_matmul_precision(precision: str) -> None:
    """How float32 products on CUDA (matmul, linear, einsum and what is made of them) take their operands.

    "highest", the default: whole. "high" and "medium": rounded to TF32, 10 bits of fraction, for the tensor cores; sums
    stay float32. Each operand then has a relative error of at most 2^-11. The CPU's products are whole in any case.

    Raises:
        ValueError: another word.

    >>> import tilewright as tw
    >>> tw.set_float32_matmul_precision("high")
    >>> tw.get_float32_matmul_precision(), tw.backends.cuda.matmul.allow_tf32
    ('high', True)
    >>> tw.backends.cuda.matmul.allow_tf32 = False
    >>> tw.get_float32_matmul_precision()
    'highest'
    """
    global _medium
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"set_float32_matmul_precision: must be 'highest', 'high' or 'medium', got {precision!r}")
    _medium = precision == "medium"
    _engine.set_matmul_tf32(precision != "highest")


def memory_stats() -> dict[str, int]:
    """Bytes of the caching CPU allocator: allocated now and at peak, reserved (allocated and cached); and how many
    allocations were asked for and how many of them the cache served.

    >>> import tilewright as tw
    >>> sorted(tw.memory_stats())
    ['allocated_bytes', 'allocations', 'cache_hits', 'peak_allocated_bytes', 'reserved_bytes']
    """
    return _engine.memory_stats()


def reset_peak_memory_stats() -> None:
    """Starts the peak anew from what is allocated now."""
    _engine.reset_peak_memory_stats()


def empty_cache() -> None:
    """Gives cached blocks back to the system."""
    _engine.empty_cache()


def promote_types(type1: Any, type2: Any) -> Any:
    """The dtype that holds both, by PyTorch's rules.

    >>> import tilewright as tw
    >>> tw.promote_types(tw.int32, tw.float16)
    tilewright.float16
    """
    return _engine.promote_types(type1, type2)


def result_type(tensor1: Any, tensor2: Any) -> Any:
    """The dtype of an operation on two Tensors or numbers: tensors with dimensions come before 0-d ones, and these
    before numbers, unless a later one is of a higher category (bool, integer, float)."""
    operands = [v.array if isinstance(v, autograd.Tensor) else v for v in (tensor1, tensor2)]
    return _engine.result_type(*operands)
