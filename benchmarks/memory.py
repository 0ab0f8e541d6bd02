"""The peak memory of a training step, each library in a process of its own.

    python -m benchmarks.memory torch unet 8 float32

prints the bytes by which the process grew at its highest, during three steps and the making of the model, over what
it held after its imports (a step of a tiny model first brings in what a library imports when first used).
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path


def _resident(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"memory: /proc/self/status has no {key}")


def peak(library: str, name: str, batch: int, dtype: str) -> int:
    """Bytes that this process grew by at most; once in a process."""
    from benchmarks.families.models import training_step

    module = importlib.import_module(library)
    training_step(module, "mlp", 1, dtype)[0]()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew: proc(5)
    step, _ = training_step(module, name, batch, dtype)
    for _ in range(3):
        step()
    return _resident("VmHWM") - before


def peak_of_fresh_process(library: str, model: str) -> int | None:
    """`peak` of "name batch dtype" in a new interpreter; None where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    run = subprocess.run([sys.executable, "-m", "benchmarks.memory", library, *model.split()], capture_output=True,
                         text=True, check=False, cwd=Path(__file__).parents[1])
    if run.returncode:
        raise RuntimeError(f"memory: {library} {model} failed: {run.stderr.strip().splitlines()[-1:]}")
    return int(run.stdout)


if __name__ == "__main__":
    print(peak(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
