"""This machine: what it is, and its limits measured by the engine's own probes in the same run."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import tilewright as tw
from benchmarks.timing import Clock, calls
from tilewright import _engine

MIB = 1 << 20
CPU = Path("/sys/devices/system/cpu/cpu0/cache")


def cpu_name() -> str:
    """The CPU's model name, with what /proc/cpuinfo tells of a virtual machine's plain name."""
    info: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            info.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = info.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in info:
        name += f" (family {info['cpu family']}, model {info.get('model', '?')})"
    return name


def cache_bytes() -> dict[str, int]:
    """Bytes of each data cache, {"L1": ..., "L2": ..., "L3": ...}; empty where the system does not say."""
    caches = {}
    for index in sorted(CPU.glob("index*")):
        try:
            kind, size = (index / "type").read_text().strip(), (index / "size").read_text().strip()
            level = (index / "level").read_text().strip()
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            caches[f"L{level}"] = int(size[:-1]) * 1024
    return caches


def compiler() -> str | None:
    """The compiler that the engine's file names in its .comment section, if it was kept."""
    found = re.search(rb"(GCC): \([^)]*\) ([\d.]+)|(clang) version ([\d.]+)", Path(_engine.__file__).read_bytes())
    return " ".join(part.decode() for part in found.groups() if part) if found else None


def describe(threads: int, peers: dict[str, str]) -> dict:
    """What a reader of the figures must know of the machine. Names neither the host nor a path."""
    import numpy

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu_name(), "architecture": platform.machine(), "cores_available": _engine.available_cores(),
        "threads": threads, "level": _engine.cpu_capability(), "levels": _engine.cpu_levels(),
        "cache_bytes": cache_bytes(), "memory_gib": round(pages / 2**30, 1),
        "os": f"{platform.system()} {platform.release().split('-')[0]}", "compiler": compiler(),
        "python": platform.python_version(), "tilewright": tw.__version__,
        "versions": {"numpy": numpy.__version__, **peers},
    }


def describe_device(device: str) -> dict:
    """The GPU, its driver, the date and the commit, under "gpu"."""
    def output(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
        except OSError:
            return ""

    driver = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    commit = os.environ.get("TILEWRIGHT_COMMIT") or output("git", "-C", str(Path(__file__).parent), "rev-parse",
                                                           "--short", "HEAD")
    return {"gpu": vars(tw.cuda.get_device_properties(device)) | {
        "driver": driver[0] if driver else "unknown", "date": datetime.date.today().isoformat(),
        "commit": commit or "unknown"}}


def _power_of_two(n: int) -> int:
    """The largest one up to n."""
    return 1 << max(n, 1).bit_length() - 1


class Limits:
    """FMA peak and stream bandwidth, measured when first asked for and again by `refresh`; the best counts."""

    def __init__(self, seconds: float = 0.1):
        self.seconds = seconds
        self.peaks: dict[str, float] = {}
        self.streams: dict[str, dict[str, float]] = {}
        largest = max(cache_bytes().values(), default=0)
        self.memory_set = _power_of_two(max(256 * MIB, min(8 * largest, 1024 * MIB)))

    def peak(self, dtype: str) -> float:
        """Operations a second in registers. float16 and bfloat16 compute in float32, so its peak is theirs."""
        key = "float64" if dtype == "float64" else "float32"
        if key not in self.peaks:
            self._measure_peak(key)
        return self.peaks[key]

    def stream(self, bytes: int) -> tuple[int, dict[str, float]]:
        """(working set, bytes a second of {"read", "write"}) for the largest power of two up to `bytes`.

        A set from a quarter of the memory probe's size on counts as memory. "write" is the best of copy and triad.
        """
        size = max(_power_of_two(bytes), 32 * 1024)
        if size >= self.memory_set // 4:
            size = self.memory_set
        if str(size) not in self.streams:
            self._measure_stream(size)
        return size, self.streams[str(size)]

    def time(self, flops: float, read: int, written: int, dtype: str) -> tuple[float, str]:
        """(seconds, which limit): the larger of flops / peak and bytes / bandwidth of a stream of the same size."""
        compute = flops / self.peak(dtype)
        size, rates = self.stream(read + written)
        # A problem that hardly writes is held to the faster read stream, which pays for no stores.
        moving = (read + written) / rates["read" if 8 * written < read else "write"]
        return max((compute, "flops"), (moving, "memory" if size == self.memory_set else "cache"))

    def refresh(self) -> None:
        """Measures all known limits again: a machine that was busy the first time must not flatter a kernel."""
        for key in self.peaks:
            self._measure_peak(key)
        for size in self.streams:
            self._measure_stream(int(size))

    def as_dict(self) -> dict:
        return {"fma_peak": self.peaks, "stream": self.streams, "memory_set": self.memory_set,
                "units": "operations and bytes a second; stream: by bytes of the working set"}

    def _measure_peak(self, key: str) -> None:
        measured = _engine.fma_peak(getattr(_engine, key), self.seconds)
        self.peaks[key] = max(measured, self.peaks.get(key, 0.0))

    def _measure_stream(self, size: int) -> None:
        def best(*kinds: str) -> float:
            # Past the caches, non-temporal stores save the read of the line that is overwritten.
            stores = (False, True) if size > MIB and kinds != ("read",) else (False,)
            return max(_engine.stream(kind, size, s, self.seconds / 4) for kind in kinds for s in stores)

        old = self.streams.get(str(size), {"read": 0.0, "write": 0.0})
        self.streams[str(size)] = {"read": max(old["read"], best("read")),
                                   "write": max(old["write"], best("copy", "triad"))}
        _engine.empty_cache()


class DeviceLimits(Limits):
    """A GPU's: multiply-adds by the engine's probe, copies by its copy kernel; the matrix units' peak, which no plain
    loop meets, as the best large product of this run in halves or in TF32, ours or PyTorch's."""

    def __init__(self, device: str, clock: Clock, peers: dict[str, Any]):
        super().__init__()
        self.device, self.clock, self.peers = device, clock, peers
        self.memory_set = _power_of_two(16 * tw.cuda.get_device_properties(device).L2_cache_size)

    def peak(self, dtype: str) -> float:
        key = dtype if dtype in ("float32", "float64", "tf32") else "halves"
        if key not in self.peaks:
            self._measure_peak(key)
        return self.peaks[key]

    def _seconds(self, call: Any) -> float:
        run = calls(call)
        run(2)
        return min(self.clock(run, 4) / 4 for _ in range(5))

    def _measure_peak(self, key: str) -> None:
        if key in ("halves", "tf32"):
            n = 8192 if tw.cuda.get_device_properties(self.device).total_memory > 1 << 34 else 128
            best = 0.0
            for module in (tw, *(m for name, m in self.peers.items() if name == "torch")):
                kind = module.float32 if key == "tf32" else module.bfloat16
                a, b = (module.randn(n, n, device=self.device).to(kind) for _ in range(2))
                best = max(best, 2.0 * n**3 / self._seconds(lambda f=module.matmul, a=a, b=b: f(a, b)))
        else:
            best = _engine.fma_peak(getattr(_engine, key), self.seconds, _engine.device(self.device))
        self.peaks[key] = max(best, self.peaks.get(key, 0.0))

    def _measure_stream(self, size: int) -> None:
        x, y = (tw.randn(size // 8, device=self.device) for _ in range(2))
        rate = size / self._seconds(lambda: y.copy_(x))
        old = self.streams.get(str(size), {"read": 0.0, "write": 0.0})
        self.streams[str(size)] = {kind: max(rate, old[kind]) for kind in old}
