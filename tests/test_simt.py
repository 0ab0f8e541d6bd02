"""The emulator of kernels/simt finds each planted fault of tests/simt, and has nothing to say of clean kernels."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw

LIBRARY = Path(tw.__file__).parent / "_simt_tests.so"
pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="the build has no emulator (TILEWRIGHT_SIMT=ON)")
SEEDS = range(8)
SANITIZED = LIBRARY.exists() and b"__asan_init" in LIBRARY.read_bytes()  # it has no checks but AddressSanitizer's
checked = pytest.mark.skipif(SANITIZED, reason="AddressSanitizer's build has no other checks")

# fault -> what a finding says. "nan" and "wrong": the result shows it, with some seeds or with all.
FAULTS = {
    "write_past_end": "out of bounds", "read_past_end": "out of bounds", "read_host_memory": "no device memory",
    "shared_past_end": "out of bounds", "misaligned": "misaligned", "misaligned_vector": "misaligned",
    "uninitialised_shared": "nan", "divergent_barrier": "divergent barrier", "two_barriers": "divergent barrier",
    "absent_lane": "absent lane", "lane_outside_mask": "does not name", "race_in_shared": "race",
    "race_after_read": "race", "race_in_warp": "race", "race_of_blocks": "race", "race_after_atomic": "race",
    "too_few_bytes": "nobody can go on", "refill_too_early": "race|nobody can go on", "too_much_shared": "launch",
    "copy_without_barrier": "race",
}  # fmt: skip
CLEAN = ("clean_sum", "clean_parts", "clean_pipeline", "clean_cluster")


@pytest.fixture(scope="module")
def library():
    lib = ctypes.CDLL(str(LIBRARY))
    for name in ("run", "product", "copy_boxes", "copy_pixels"):
        getattr(lib, name).restype = ctypes.c_char_p
    return lib


def run(library, monkeypatch, name: str, seed: int) -> str:
    monkeypatch.setenv("TILEWRIGHT_SIMT_SEED", str(seed))
    return library.run(name.encode()).decode()


@checked
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found(library, monkeypatch, fault):
    for seed in SEEDS:
        text = run(library, monkeypatch, fault, seed)
        assert re.search(FAULTS[fault], text), f"seed {seed}: {text!r}"
        if FAULTS[fault] not in ("nan", "launch"):
            for part in ("kernel ", "block ", "thread ", f"seed {seed}"):
                assert part in text, text


def test_copy_used_too_early_is_seen_with_some_seed(library, monkeypatch):
    texts = [run(library, monkeypatch, "early_use_of_copy", seed) for seed in SEEDS]
    assert any("nan" in t for t in texts)


@pytest.mark.parametrize("name", CLEAN)
def test_clean_kernel_is_not_blamed(library, monkeypatch, name):
    for seed in SEEDS:
        assert run(library, monkeypatch, name, seed) == ""


@checked
def test_findings_name_the_kernel_and_the_memory(library, monkeypatch):
    text = run(library, monkeypatch, "race_in_shared", 3)
    assert "kernel race_in_shared" in text and "tile + " in text and "seed 3" in text
    text = run(library, monkeypatch, "write_past_end", 3)
    assert "byte 128 of a block of 128 bytes made by the test" in text and "thread (31,0,0)" in text


def pointer(a):
    return a.ctypes.data_as(ctypes.c_void_p)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", range(9))
def test_products(library, monkeypatch, kind, bf16):
    """ldmatrix, mma and wgmma in every layout give the matrix product: a wrong fragment would move a value."""
    rng = np.random.default_rng(kind)
    M, N, K = (64, 64, 64) if 2 <= kind <= 5 else (16, 8, 8) if kind == 6 else (16, 8, 16) if kind < 2 else (64, 64, 32)
    a, b = (rng.integers(-8, 8, s).astype(np.float32) for s in ((M, K), (K, N)))  # exact in every dtype
    across_a, across_b = kind == 1, kind in (1, 3, 5, 6)

    def stored(x):
        if kind >= 6:
            return np.ascontiguousarray(x) * np.float32(1 + 2**-13)  # which rounding to TF32 takes away
        if not bf16:
            return np.ascontiguousarray(x.astype(np.float16))
        return (np.ascontiguousarray(x).view(np.uint32) >> 16).astype(np.uint16)

    x, y = stored(a.T if across_a else a), stored(b if across_b else b.T)
    for seed in range(4):
        monkeypatch.setenv("TILEWRIGHT_SIMT_SEED", str(seed))
        c = np.full((M, N), np.nan, np.float32)
        assert library.product(kind, bf16, pointer(x), pointer(y), pointer(c)) == b""
        np.testing.assert_array_equal(c, a @ b)


@pytest.mark.parametrize("swizzle", [0, 64, 128])
def test_boxes_of_the_copy_engine(library, monkeypatch, swizzle):
    """Boxes that hang over the edges, sent to two blocks of a cluster, and written back by both."""
    x = np.arange(720, dtype=np.float32).reshape(20, 36)
    for seed in range(4):
        monkeypatch.setenv("TILEWRIGHT_SIMT_SEED", str(seed))
        y = np.zeros((60, 36), np.float32)
        assert library.copy_boxes(pointer(x), pointer(y), swizzle) == b""
        np.testing.assert_array_equal(y[:20], x)
        np.testing.assert_array_equal(y[40:], x)


@pytest.mark.parametrize("size, lower, upper, step, by", [
    ((6, 5, 1), (-1, -2, 0), (-1, -2, 0), (1, 1, 1), (0, 1, 0)),
    ((7, 4, 1), (-1, 0, 0), (-2, 0, 0), (2, 3, 1), (2, 0, 0)),
    ((5, 4, 3), (-2, -1, -1), (-1, 1, -1), (1, 2, 1), (3, 0, 2))])
def test_pixels_of_the_copy_engine(library, monkeypatch, size, lower, upper, step, by):
    """im2col: runs of pixels over rows, planes and images, zeros outside of them and behind the last."""
    n, ndim = 3, 4 if size[2] == 1 else 5
    x = np.arange(1, n * np.prod(size) * 8 + 1, dtype=np.float32).reshape(n, *size[::-1], 8)
    ranges = [range(lo, s + up, st) for s, lo, up, st in zip(size, lower, upper, step, strict=True)]
    want = []
    for i, pz, py, px in np.ndindex(n, *(len(r) for r in ranges[::-1])):
        at = [r[p] + b for r, p, b in zip(ranges, (px, py, pz), by, strict=True)]
        inside = all(0 <= a < s for a, s in zip(at, size, strict=True))
        want.append(x[i, at[2], at[1], at[0]] if inside else np.zeros(8, np.float32))
    blocks = len(want) // 16 + 1
    want = np.concatenate([want, np.zeros((blocks * 16 - len(want), 8))])
    pixels = np.array([size, lower, upper, step, by, [len(r) for r in ranges]], np.int32)
    for seed in range(2):
        monkeypatch.setenv("TILEWRIGHT_SIMT_SEED", str(seed))
        y = np.full((blocks * 16, 8), np.nan, np.float32)
        assert library.copy_pixels(pointer(x), pointer(y), n, ndim, pointer(pixels), blocks) == b""
        np.testing.assert_array_equal(y, want)


def python(code: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, "TILEWRIGHT_CUDA": "simt", **env},
                          capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(not SANITIZED, reason="a build without AddressSanitizer (TILEWRIGHT_SANITIZE=ON)")
@pytest.mark.parametrize("fault", ["write_past_end", "read_past_end", "shared_past_end"])
def test_address_sanitizer_stops_at_the_fault(fault):
    done = python(f"import ctypes; ctypes.CDLL({str(LIBRARY)!r}).run(b{fault!r})", UBSAN_OPTIONS="halt_on_error=0")
    assert done.returncode != 0
    assert "AddressSanitizer: use-after-poison" in done.stderr and fault in done.stderr, done.stderr[-2000:]


@pytest.mark.parametrize("checks", ["0", pytest.param("1", marks=checked)])
def test_device_column_of_the_op_table(checks):
    """The ops that have CUDA kernels, on the emulated device; with checks, under seeds of their own."""
    names = "add or mul or exp or gelu or where or sum or amax or softmax or matmul or linear"
    test = ("test_forward" if checks == "0" else "test_forward and float32 and not layout")
    env = {**os.environ, "TILEWRIGHT_CUDA": "simt", "TILEWRIGHT_TEST_DEVICE": "cuda", "TILEWRIGHT_SIMT_CHECKS": checks,
           "TILEWRIGHT_SIMT_SEED": checks}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
                           "test_op_table.py", "-k", f"{test} and ({names})"],
                          env=env, capture_output=True, text=True, timeout=550, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stdout[-4000:]
