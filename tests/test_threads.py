"""Results do not depend on the number of threads: work is cut by size, so 1, 2 and 5 threads give the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import tilewright as tw
from arrays import FLOATS, bits, check_same_bits
from op_table import ROWS
from op_table.row import Sample, listed, run_backward

COUNTS = (1, 2, 5)
LARGE = [pytest.param(row, id=row.name) for row in ROWS.values() if row.large]


@pytest.mark.parametrize("row", LARGE)
def test_forward_bits(row, threads):
    dtype = next(d for d in row.dtypes if d == "float32" or d not in FLOATS)
    sample = row.large(row.generator(dtype))
    args, kwargs = row.tensors(sample, dtype)
    results = []
    for n in COUNTS:
        threads(n)
        assert tw.get_num_threads() == n
        results.append(bits(listed(row.resolve()(*args, **kwargs))))
    for n, result in zip(COUNTS, results, strict=True):
        check_same_bits(result, results[0], f"{n} threads")


@pytest.mark.parametrize("row", [p for p in LARGE if p.values[0].grad])
def test_backward_bits(row, threads):
    sample = row.large(row.generator("float32"))
    results = []
    for n in COUNTS:
        threads(n)
        results.append(bits(list(run_backward(row, sample, "float32")[0].values())))
    for n, result in zip(COUNTS, results, strict=True):
        check_same_bits(result, results[0], f"gradients with {n} threads")


def test_large_samples_are_accurate():
    """The large samples pass through other paths (blocks, panels, pieces) than the small ones: check them too."""
    from op_table.row import check_forward

    wrong = {}
    for row in ROWS.values():
        if row.large is None or "float32" not in row.dtypes:
            continue
        sample = row.large(row.generator("float32"))
        try:
            check_forward(row, sample, "float32")
        except AssertionError as error:
            wrong[row.name] = f"{sample}: {error}"
    assert not wrong, wrong


def test_training_step_bits(threads):
    """A convolution, a norm, a loss and an optimizer together."""
    results = []
    for n in COUNTS:
        threads(n)
        tw.manual_seed(0)
        x, y = tw.randn(33, 3, 17, 17), tw.randint(0, 10, (33,))
        w = (tw.randn(16, 3, 3, 3) * 0.1).requires_grad_()
        v = (tw.randn(10, 16) * 0.1).requires_grad_()
        optimizer = tw.optim.Adam([w, v], lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            h = tw.nn.functional.conv2d(x, w, padding=1)
            h = tw.nn.functional.batch_norm(h, None, None, training=True).relu()
            h = tw.nn.functional.dropout(h, 0.2).mean((2, 3))
            tw.nn.functional.cross_entropy(h @ v.t(), y).backward()
            optimizer.step()
        results.append(bits([w, v]))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("count", [0, -1])
def test_bad_counts_are_refused(count):
    before = tw.get_num_threads()
    with pytest.raises(ValueError, match=str(count)):
        tw.set_num_threads(count)
    assert tw.get_num_threads() == before


def test_python_threads_compute_together():
    """Several Python threads share the pool, each with its own gradient mode."""
    expected = bits((tw.arange(0, 300_000, dtype=tw.float32).reshape(300, 1000) * 1e-3).exp().sum(0))
    wrong = []

    def work(k):
        for _ in range(5):
            with tw.no_grad() if k % 2 else tw.enable_grad():
                x = tw.arange(0, 300_000, dtype=tw.float32).reshape(300, 1000) * 1e-3
                if bits(x.exp().sum(0)) != expected or tw.is_grad_enabled() == bool(k % 2):
                    wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def run_python(code: str, **env: str) -> subprocess.CompletedProcess:
    env = os.environ | env
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


def test_pool_survives_fork():
    code = """
import os, sys
import tilewright as tw
tw.set_num_threads(3)
def big(): return (tw.ones(2_000_000) * 2).sum().item()
assert big() == 4_000_000
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if big() == 4_000_000 else 1)
    children.append(pid)
assert all(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in children)
assert big() == 4_000_000
print("done")
"""
    done = run_python(code)
    assert done.stdout.strip() == "done", done.stderr


def test_default_count_heeds_affinity():
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); import tilewright as tw; print(tw.get_num_threads())"
    done = run_python(code)
    assert done.stdout.strip() == "1", done.stderr


def test_spare_rows_have_large_samples():
    """Every row that reaches a kernel slot of its own is run with several threads."""
    exempt = {"randperm", "dropout"}
    without = [r.name for r in ROWS.values() if r.slots and r.large is None and r.dtypes and r.name not in exempt]
    small = [n for n in without if not n.startswith("cast_") and not any(
        set(ROWS[n].slots) <= set(o.slots) for o in ROWS.values() if o.large)]  # fmt: skip
    assert not small, small
    for row in ROWS.values():
        if row.large:
            sample = row.large(row.generator("float32" if "float32" in row.dtypes else row.dtypes[0]))
            assert isinstance(sample, Sample)
            assert max(np.size(a) for _, a in sample.spots) > 1000
