"""tilewright.cuda on the emulated device: memory, streams, copies, errors. Each test is a script of its own process."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tilewright as tw

needs_emulator = pytest.mark.skipif(not (Path(tw.__file__).parent / "_simt.so").exists(),
                                    reason="the build has no emulator (TILEWRIGHT_SIMT=ON)")


def script(code: str, device: str = "simt") -> str:
    env = {**os.environ, "TILEWRIGHT_CUDA": device}
    code = "import tilewright as tw, numpy as np, warnings\nfrom tilewright import nn, cuda\n" + code
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_without_cuda():
    script("""
assert not cuda.is_available() and cuda.device_count() == 0 and "TILEWRIGHT_CUDA=off" in cuda.why_not()
try:
    tw.zeros(2, device="cuda")
except RuntimeError as e:
    assert "TILEWRIGHT_CUDA=off" in str(e)
else:
    raise AssertionError
cuda.empty_cache(), cuda.manual_seed(1)
""", "off")


@needs_emulator
def test_copies_and_where_things_live():
    script("""
x = tw.randn(3, 4)
y = x.cuda()
assert y.is_cuda and y.device == tw.device("cuda", 0) and y.device.type == "cuda" and not y.cpu().is_cuda
assert (y.t().cpu().numpy() == x.t().numpy()).all() and y.to("cuda:0") is y
assert tw.zeros_like(y).is_cuda and y.new_ones(2).is_cuda and tw.arange(3, device="cuda").is_cuda
assert tw.tensor([1.5], device="cuda").item() == 1.5 and "device='cuda:0'" in repr(y) and y.tolist() == x.tolist()
for f in (lambda: y.numpy(), lambda: np.asarray(y)):
    try:
        f()
    except TypeError as e:
        assert "cpu()" in str(e)
    else:
        raise AssertionError
x.copy_(y * 2)
assert not x.is_cuda and (x == (y * 2).cpu()).all()
p = x.pin_memory()
assert p.is_pinned() and not x.is_pinned() and (p.cuda().cpu() == x).all()
assert (tw.from_dlpack(y).cpu() == y.cpu()).all() and y.__dlpack_device__() == (2, 0)
""")


@needs_emulator
def test_training_step_on_the_device_is_the_cpus():
    out = script("""
warnings.simplefilter("ignore")
results = []
for device in ("cpu", "cuda"):
    tw.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3)).to(device)
    x = tw.randn(5, 6, device=device)
    optimizer = tw.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        loss = nn.functional.softmax(model(x), 1).pow(2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.is_cuda == (device == "cuda") for p in model.parameters())
    results.append([p.detach().cpu().numpy() for p in model.parameters()])
for a, b in zip(*results):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
print(tw.kernels.which("gemm", "cuda"), tw.kernels.which("fma_peak", "cuda"))
""")
    assert out.split() == ["cuda_simt", f"cpu_{tw.cpu_capability()}"]


@needs_emulator
def test_an_op_without_a_kernel_warns_once():
    script("""
x = tw.randn(8).cuda()
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    a = nn.functional.pad(x, (1, 1))
    b = nn.functional.pad(x, (1, 1))
assert [str(w.message) for w in seen] == ["pad: there is no CUDA kernel, it runs on the CPU over copies"]
assert a.is_cuda and (a.cpu().numpy() == np.pad(x.cpu().numpy(), 1)).all()
""")


@needs_emulator
def test_two_devices_in_one_op():
    script("""
x, y = tw.ones(3), tw.ones(3, device="cuda")
for f in (lambda: x + y, lambda: nn.functional.linear(tw.ones(2, 3), tw.ones(4, 3, device="cuda")), lambda: y.add_(x)):
    try:
        f()
    except RuntimeError as e:
        assert "cpu" in str(e) and "cuda:0" in str(e), e
    else:
        raise AssertionError
assert (y + tw.tensor(2.0)).tolist() == [3, 3, 3] and (y * 2).is_cuda  # a 0-d tensor is a number
""")


@needs_emulator
def test_memory_is_cached_and_counted():
    script("""
cuda.empty_cache()
start = cuda.memory_allocated()
x = tw.empty(1000, device="cuda")
assert cuda.memory_allocated() - start == 4096 <= cuda.memory_reserved()
where = x.data_ptr()
del x
assert cuda.memory_allocated() == start and cuda.memory_reserved() >= 4096
assert tw.empty(1000, device="cuda").data_ptr() == where and cuda.memory_stats()["cache_hits"] >= 1
cuda.empty_cache()
assert cuda.memory_reserved() == start
cuda.reset_peak_memory_stats()
assert cuda.max_memory_allocated() == start
free, total = cuda.mem_get_info()
assert 0 < free <= total == cuda.get_device_properties().total_memory
keep = tw.empty(1 << 20, device="cuda")
del keep
try:
    tw.empty(1 << 32, device="cuda")
except cuda.OutOfMemoryError as e:
    assert "asked for 16384 MiB" in str(e) and "empty" in str(e)
else:
    raise AssertionError
assert cuda.memory_reserved() == start and tw.ones(3, device="cuda").sum().item() == 3
s = cuda.Stream()
with cuda.stream(s):
    a = tw.empty(1000, device="cuda")
where = a.data_ptr()
del a
b = tw.empty(1000, device="cuda")  # of another stream: not the block of the first
assert b.data_ptr() != where
with cuda.stream(s):
    assert tw.empty(1000, device="cuda").data_ptr() == where
b.record_stream(s)
""")


@needs_emulator
def test_streams_and_events():
    script("""
assert cuda.current_stream() == cuda.default_stream()
s, start, end = cuda.Stream(), cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
with cuda.stream(s):
    assert cuda.current_stream() == s
    start.record()
    x = tw.ones(100, device="cuda") + 1
    end.record()
cuda.current_stream().wait_stream(s)
end.synchronize()
cuda.synchronize()
assert s.query() and end.query() and start.elapsed_time(end) >= 0 and x.sum().item() == 200
assert cuda.current_stream() == cuda.default_stream() and cuda.get_device_capability() == (9, 0)
with cuda.device(0):
    assert cuda.current_device() == 0
try:
    cuda.Event().elapsed_time(end)
except ValueError:
    pass
else:
    raise AssertionError
""")


@needs_emulator
def test_fork_after_start_is_refused():
    script("""
import csv
import os
x = tw.ones(2, device="cuda")
if os.fork() == 0:
    try:
        tw.ones(2, device="cuda")
    except RuntimeError as e:
        os._exit(7 if "spawn" in str(e) else 1)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
""")


RESOURCES = Path(tw.__file__).parent / "_cuda_resources.csv"
# Kernels that may keep values in local memory, and why; all others keep them in registers.
SPILLS: dict[str, str] = {}


@pytest.mark.skipif(not RESOURCES.exists(), reason="the build has no CUDA kernels (nvcc was not found)")
def test_kernels_keep_their_values_in_registers():
    with open(RESOURCES, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert {r["arch"] for r in rows} >= {"sm_90a"} and any(r["kernel"].startswith("softmax_rows<") for r in rows)
    spilling = [r for r in rows if (int(r["spill_stores"]) or int(r["spill_loads"]) or int(r["stack"]))
                and r["kernel"].partition("<")[0] not in SPILLS]
    assert not spilling, spilling[:5]
