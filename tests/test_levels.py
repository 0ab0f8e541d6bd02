"""CPU levels: the forced one is the one in use, unknown ones are refused, all pass the op table, and all agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw

HERE = Path(__file__).parent
LEVELS = ("scalar", "avx2", "avx512")
# What the machine must have for each level (Linux's names of the features of x86-64-v3 and x86-64-v4).
NEEDS = {
    "scalar": set(),
    "avx2": {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm"},
    "avx512": {"avx2", "fma", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}


def machine_features() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


AVAILABLE = [level for level in LEVELS if NEEDS[level] <= machine_features()]


def python(code_or_args, level: str | None, timeout: float = 120) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k != "TILEWRIGHT_CPU"}
    if level is not None:
        env["TILEWRIGHT_CPU"] = level
    args = ["-c", code_or_args] if isinstance(code_or_args, str) else code_or_args
    return subprocess.run([sys.executable, *args], env=env, capture_output=True, text=True, timeout=timeout, cwd=HERE)


@pytest.mark.parametrize("level", AVAILABLE)
def test_forced_level_is_in_use(level):
    code = """
import tilewright as tw
tw.softmax(tw.ones(3), 0)
print(tw.cpu_capability(), *{tw.kernels.which(name, "cpu") for name in tw.kernels.names()})
"""
    done = python(code, level)
    assert done.stdout.split() == [level, f"cpu_{level}"], done.stderr


def test_best_level_is_the_default():
    done = python("import tilewright as tw; print(tw.cpu_capability())", None)
    assert done.stdout.strip() == AVAILABLE[-1], done.stderr


@pytest.mark.parametrize("level", ["avx9", "AVX2", " "])
def test_unknown_level_is_refused(level):
    done = python("import tilewright as tw; tw.ones(3) + 1", level)
    assert done.returncode != 0
    assert "TILEWRIGHT_CPU" in done.stderr and "scalar" in done.stderr, "the message names the levels there are"
    assert "Error" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("level", [level for level in LEVELS if level not in AVAILABLE])
def test_impossible_level_is_refused(level):
    done = python("import tilewright as tw; tw.ones(3) + 1", level)
    assert done.returncode != 0 and level in done.stderr


def other_levels() -> list[str]:
    """All levels of this machine but the one that this run uses."""
    return [level for level in AVAILABLE if level != tw.cpu_capability()]


@pytest.mark.parametrize("level", AVAILABLE)
def test_op_table_at_level(level):
    """The whole op table at the levels that this run does not use itself."""
    if level not in other_levels():
        pytest.skip("this run's own level")
    done = python(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_op_table.py", "test_ulp.py"],
                  level, 550)  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


DUMP = """
import sys
sys.path.insert(0, ".")
import numpy as np
from arrays import to_np
from op_table import ROWS
from op_table.row import listed, run_backward
out = {}
for row in ROWS.values():
    if "float32" not in row.dtypes:
        continue
    for i, sample in enumerate(row.samples(row.generator("float32"))):
        args, kwargs = row.tensors(sample, "float32")
        for j, r in enumerate(listed(row.resolve()(*args, **kwargs))):
            out[f"{row.name}/{i}/{j}"] = to_np(r)
    if row.grad:
        for i, sample in enumerate((row.grad_samples or row.samples)(row.generator("float32"))):
            for spot, g in run_backward(row, sample, "float32")[0].items():
                out[f"{row.name}/{i}/d{spot}"] = to_np(g)
np.savez(sys.argv[1], **out)
"""


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("levels"), {}
    for level in AVAILABLE:
        path = folder / f"{level}.npz"
        done = python(["-c", DUMP, str(path)], level, 300)
        assert done.returncode == 0, done.stderr[-4000:]
        with np.load(path) as stored:
            found[level] = dict(stored)
    return found


def test_levels_agree(dumps):
    """Each level meets the row's tolerance, so two of them differ by at most twice that; integers and bools agree
    exactly. A gradient may differ by the gradient tolerance of its row, counted at its largest element."""
    from op_table import ROWS

    base, wrong = dumps[AVAILABLE[0]], []
    for level in AVAILABLE[1:]:
        assert dumps[level].keys() == base.keys()
        for key, a in base.items():
            b = dumps[level][key]
            row, is_gradient = ROWS[key.split("/")[0]], "/d" in key
            if a.dtype.kind != "f":
                if not np.array_equal(a, b):
                    wrong.append(f"{key} at {level}: integers differ")
                continue
            if not np.array_equal(np.isnan(a), np.isnan(b)) or not np.array_equal(np.isinf(a), np.isinf(b)):
                wrong.append(f"{key} at {level}: nan or inf at other places")
                continue
            finite = np.isfinite(a)
            if not finite.any():
                continue
            x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
            ulps = 2 * (row.tol.grad_ulps if is_gradient else row.tol.ulps + 4)
            unit = np.spacing(np.abs(x).max().astype(np.float32))
            if np.abs(x - y).max() > ulps * max(unit, np.float32(1e-6) if row.magnitude else 0):
                off = np.abs(x - y).max() / unit
                wrong.append(f"{key} at {level}: differs by {off:.1f} ulp of the largest element")
    assert not wrong, json.dumps(wrong[:20], indent=1)


def test_levels_differ_somewhere(dumps):
    """If every level gave the same bits everywhere, the dumps would likely come from one level."""
    for level in AVAILABLE[1:]:
        assert any(a.tobytes() != dumps[level][key].tobytes() for key, a in dumps[AVAILABLE[0]].items())
