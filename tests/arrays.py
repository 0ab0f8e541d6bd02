"""NumPy and tilewright side by side: conversion, rounding to a dtype, memory layouts, and comparison by bits."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import numpy as np

import tilewright as tw

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTS = ("int8", "uint8", "int16", "int32", "int64")
SIGNED = ("int8", "int16", "int32", "int64")
BOOL = ("bool",)
DEVICE = os.environ.get("TILEWRIGHT_TEST_DEVICE", "cpu")  # that arguments are put on
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
MIN_EXPONENT = {"float64": -1022, "float32": -126, "float16": -14, "bfloat16": -126}

# NumPy has no bfloat16: such values live in float32 arrays that hold only bfloat16 numbers.
NUMPY_DTYPE = {"bfloat16": np.dtype(np.float32), "bool": np.dtype(bool)}
NUMPY_DTYPE |= {name: np.dtype(name) for name in ("float32", "float64", "float16", *INTS)}


def dtype_of(name: str):
    return getattr(tw, name)


def name_of(dtype) -> str:
    """The bare name of a tilewright dtype: "float32"."""
    return str(dtype).rpartition(".")[2]


def round_bfloat16(a) -> np.ndarray:
    """The nearest bfloat16 (ties to even), as float32: adds half of the last kept bit and cuts the lower 16 bits."""
    a = np.asarray(a, np.float64)
    f = a.astype(np.float32)
    # Rounding twice (to float32, then to bfloat16) can differ from rounding once; make the first rounding to odd.
    with np.errstate(all="ignore"):
        inexact = (f.astype(np.float64) != a) & np.isfinite(f)
        toward = np.where(np.abs(f) > np.abs(a), np.nextafter(f, np.float32(0)), f)
    u = toward.reshape(-1).view(np.uint32) | inexact.reshape(-1).astype(np.uint32)
    rounded = (u + (((u >> 16) & 1) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)
    out = rounded.astype(np.uint32).view(np.float32).reshape(a.shape)
    return np.where(np.isnan(a), np.float32(np.nan), out).astype(np.float32)


def quantize(a, dtype: str) -> np.ndarray:
    """Round an array to a dtype; the result is stored in NUMPY_DTYPE[dtype]."""
    with np.errstate(all="ignore"):
        return round_bfloat16(a) if dtype == "bfloat16" else np.asarray(a).astype(NUMPY_DTYPE[dtype])


def spacing(a, dtype: str) -> np.ndarray:
    """The size of one unit in the last place of a dtype at each |a|, subnormals included."""
    a = np.abs(np.asarray(a, np.float64))
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(np.where(np.isfinite(a), a, 1.0))
        exponent = np.maximum(exponent - 1, MIN_EXPONENT[dtype])
        return np.ldexp(EPS[dtype], exponent)


def to_tw(a: np.ndarray, dtype: str | None = None, grad: bool = False):
    """A tilewright tensor that owns a copy of `a`; `a` already holds values of `dtype`."""
    a = np.array(a, order="C", copy=True)
    t = tw.tensor(a, device=DEVICE)
    if dtype is not None and name_of(t.dtype) != dtype:
        t = t.to(dtype_of(dtype))
    return t.requires_grad_() if grad else t


def to_np(t) -> np.ndarray:
    """The values of a tensor, exactly: bfloat16 comes back as float32. Python scalars pass through np.asarray."""
    if not isinstance(t, tw.Tensor):
        return np.asarray(t)
    t = t.detach()
    if name_of(t.dtype) == "bfloat16":
        t = t.to(tw.float32)
    return np.array(t.cpu().numpy())


def bits(t) -> tuple:
    """Shape, dtype and bytes: what two results must share to be called the same. Lists and tuples go item by item."""
    if isinstance(t, (list, tuple)):
        return tuple(bits(part) for part in t)
    a = to_np(t)
    return a.shape, name_of(t.dtype), np.ascontiguousarray(a).tobytes()


def check_same_bits(got: tuple, want: tuple, what: str) -> None:
    """Assert that two answers of `bits` agree, without printing their bytes."""
    if len(got) == 3 and isinstance(got[2], bytes):
        got, want = (got,), (want,)
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if a != b:
            size = max(len(a[2]) // max(int(np.prod(a[0])), 1), 1)
            off = [k for k in range(0, len(a[2]), size) if a[2][k : k + size] != b[2][k : k + size]]
            raise AssertionError(f"{what}: result {i}, {a[0]} {a[1]} and {b[0]} {b[1]}, {len(off)} elements differ")


def block_bytes(nbytes: int) -> int:
    """The size of the allocator's block for so many bytes: four classes an octave, at least 64 bytes."""
    if nbytes <= 64:
        return 64
    top = (nbytes - 1).bit_length() - 1
    step = 1 << (top - 2)
    return (1 << top) + ((nbytes - 1 - (1 << top)) // step + 1) * step


def poison_cache(sizes, pattern: int, blocks: int = 24) -> set[int]:
    """Leave cached blocks full of a byte pattern, so that the next allocations of those sizes get them. Returns their
    addresses."""
    taken = [tw.empty(block_bytes(n), dtype=tw.uint8) for n in sizes for _ in range(blocks)]
    for t in taken:
        t.fill_(pattern)
    return {t.data_ptr() for t in taken}


def slack(t) -> bytes:
    """What lies in a fresh tensor's block behind its last element."""
    nbytes = t.numel() * t.element_size()
    return ctypes.string_at(t.data_ptr() + nbytes, block_bytes(nbytes) - nbytes)


def _filled(shape: tuple[int, ...], like: np.ndarray) -> np.ndarray:
    """A base array whose unused elements are poison: a kernel that reads one shows it in its result."""
    poison = np.nan if like.dtype.kind == "f" else (True if like.dtype.kind == "b" else 77)
    return np.full(shape, poison, like.dtype)


def transposed(a: np.ndarray, dtype: str | None):
    return to_tw(a.T, dtype).permute(*reversed(range(a.ndim))) if a.ndim > 1 else to_tw(a, dtype)


def strided(a: np.ndarray, dtype: str | None):
    if a.ndim == 0:
        return to_tw(a, dtype)
    base = _filled((*a.shape[:-1], 2 * a.shape[-1]), a)
    base[..., ::2] = a
    return to_tw(base, dtype)[..., ::2]


def offset(a: np.ndarray, dtype: str | None):
    base = _filled((a.size + 3,), a)
    base[3:] = a.reshape(-1)
    return to_tw(base, dtype)[3:].view(a.shape)


def windowed(a: np.ndarray, dtype: str | None):
    """A window of a larger array in every dim."""
    base = _filled(tuple(n + 3 for n in a.shape), a)
    window = tuple(slice(2, 2 + n) for n in a.shape)
    base[window] = a
    t = to_tw(base, dtype)
    return t[window] if a.ndim else t


LAYOUTS: dict[str, Callable] = {
    "transposed": transposed, "strided": strided, "offset": offset, "windowed": windowed,
}  # fmt: skip


def expanded(a: np.ndarray, dtype: str | None):
    """The first slice of dim 0 seen `shape[0]` times with stride 0."""
    if a.ndim == 0 or a.shape[0] < 2:
        return to_tw(a, dtype)
    return to_tw(a[:1], dtype).expand(*a.shape)


def expanded_copy(a: np.ndarray) -> np.ndarray:
    """What `expanded` shows, as a plain array."""
    return a if a.ndim == 0 or a.shape[0] < 2 else np.ascontiguousarray(np.broadcast_to(a[:1], a.shape))
