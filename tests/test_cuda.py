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


def script(code: str, device: str = os.environ.get("TILEWRIGHT_TEST_CUDA", "simt"), **more: str) -> str:
    """Runs it on the emulator; gpu.sh names the machine's own device for those of test_hopper*.py."""
    env = {**os.environ, "TILEWRIGHT_CUDA": device, **more}
    code = "import tilewright as tw, numpy as np, warnings\nfrom tilewright import nn, cuda\n" + code
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True,
                          timeout=300)
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
print(tw.kernels.which("gemm", "cuda"), tw.kernels.which("gemm", "cpu"))
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
assert tw.kernels.which("pad", "cuda") == "cpu_" + tw.cpu_capability()
""", TILEWRIGHT_CUDA_WITHOUT="exp,pad")


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
def test_out_of_memory_leaves_the_program_going():
    """First the cache is given back; then the error has what was asked for, used and cached. 64 MiB in all."""
    script("""
x = tw.zeros(5 << 20, device="cuda")  # 20 MiB
y = tw.ones(5 << 20, device="cuda")
del y                                 # 20 MiB cached, which are not of the next size
z = tw.ones(9 << 20, device="cuda")   # 36 MiB: only with the cache emptied
assert cuda.memory_reserved() == cuda.memory_allocated() and z.sum().item() == 9 << 20
try:
    x + 1
except cuda.OutOfMemoryError as e:
    text = str(e)
    assert text.startswith("add: out of memory on cuda:0, asked for 20 MiB of 64 MiB; "), text
    assert " MiB are in tensors" in text and " MiB cached" in text
else:
    raise AssertionError
del z
assert (x + 1).sum().item() == 5 << 20
""", TILEWRIGHT_SIMT_MEMORY="64")


@needs_emulator
def test_no_workspace_is_an_error_of_the_op():
    """The kernels that would have used the missing memory are not launched."""
    script("""
x = tw.arange(1 << 20, dtype=tw.float32, device="cuda")
rest = tw.empty((cuda.mem_get_info()[0] >> 2) - (1 << 20), device="cuda")  # what is left holds the result, no more
try:
    tw.cumsum(x, 0)
except cuda.OutOfMemoryError as e:
    assert str(e).startswith("scan: workspace: out of memory on cuda:0"), e
else:
    raise AssertionError
del rest
assert tw.cumsum(x[:4], 0).tolist() == [0, 1, 3, 6]
""", TILEWRIGHT_SIMT_MEMORY="16")


@needs_emulator
def test_copies_that_do_not_wait():
    script("""
x = tw.randn(1000).pin_memory()
y = x.to("cuda", non_blocking=True)
back = y.to("cpu", non_blocking=True)
cuda.synchronize()
assert back.is_pinned() and (back == x).all() and (x.cuda(non_blocking=True).cpu() == x).all()
z = tw.zeros(1000, device="cuda")
assert (z.copy_(x, non_blocking=True).cpu() == x).all() and (tw.zeros(1000).copy_(y, non_blocking=True) == x).all()
where = x.data_ptr()
del x, back
cuda.synchronize()
assert where in [p.data_ptr() for p in [tw.empty(1000).pin_memory() for _ in range(3)]]  # pinned memory is cached
m = nn.Linear(3, 4)
m.to("cuda", non_blocking=True)
assert m.weight.is_cuda
""")


@needs_emulator
def test_two_devices():
    script("""
assert cuda.device_count() == 2
x = tw.arange(6, dtype=tw.float32, device="cuda:1")
assert cuda.memory_allocated(1) > 0 == cuda.memory_allocated(0) and x.get_device() == 1
y = x.to("cuda:0")
assert str(y.device) == "cuda:0" and (y * 2).tolist() == (x * 2).tolist() == [0, 2, 4, 6, 8, 10]
try:
    x + y
except RuntimeError as e:
    assert "cuda:0" in str(e) and "cuda:1" in str(e), e
else:
    raise AssertionError
with cuda.device(1):
    assert tw.zeros(2, device="cuda").get_device() == 1 and cuda.current_device() == 1
assert cuda.current_device() == 0 and tw.zeros(2, device="cuda").get_device() == 0
w = nn.Linear(6, 2).to("cuda:1")
w(x).sum().backward()
assert w.weight.grad.get_device() == 1
s = cuda.Stream(device=1)
with cuda.stream(s):
    z = x + 1
cuda.synchronize(1)
assert z.tolist() == [1, 2, 3, 4, 5, 6]
try:
    tw.zeros(1, device="cuda:2")
except RuntimeError as e:
    assert "cuda:2" in str(e)
else:
    raise AssertionError
""", TILEWRIGHT_SIMT_DEVICES="2")


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


@needs_emulator
def test_random_numbers_are_the_cpus():
    """Bit for bit, for every dtype, also where y is not aligned, the tail is short and the counter wraps round."""
    script("""
from tilewright import _engine as e
from tilewright.autograd import wrap
floats, ints = (tw.float16, tw.bfloat16, tw.float32, tw.float64), (tw.uint8, tw.int8, tw.int16, tw.int32, tw.int64)
seeds = (2**63 + 11, 5), (3, 2**64 - 3)
draws = [(floats, e.uniform_, (0.0, 1.0)), (floats, e.uniform_, (-2.3, 7.1)), (floats, e.uniform_, (1.0, 1.0)),
         (floats + ints + (tw.bool,), e.bernoulli_, (0.3,)), (ints, e.randint_, (-7, 100)),
         ((tw.int64,), e.randint_, (-2**63, 2**63 - 1)), (floats, e.bernoulli_, (1.0,))]
if tw.cpu_capability() != "scalar":  # whose log, cos and sin round products on their own
    draws += [(floats, e.normal_, (0.0, 1.0)), (floats, e.normal_, (3.0, 0.7))]
for dtypes, fill, args in draws:
    for dtype in dtypes:
        for (n, skip), seed in zip(((1, 0), (3, 1), (129, 0), (4099, 2), (30001, 3)), seeds * 3):
            drawn = []
            for device in ("cpu", "cuda"):
                base = tw.zeros(n + skip + 9, dtype=dtype, device=device)
                used = fill(base[skip:skip + n].array, *args, *seed)
                wide = base.cpu() if dtype in (*ints, tw.bool) else base.cpu().double()
                drawn.append((used, wide.numpy().tobytes()))
            assert drawn[0] == drawn[1], (fill, args, dtype, n)
for dtype in floats:
    for n, p in ((1, 0.5), (131, 0.1), (30001, 0.3), (64, 1.0), (64, 0.0)):
        x = tw.randn(n + 1).to(dtype)
        x[n // 2] = float("nan")
        cpu, device = (e.dropout(t[1:].array, p, 2**63 + 1, 17) for t in (x, x.cuda()))
        for a, b in zip(cpu[:2], device[:2]):
            a, b = (e.cast(e.to_device(t, tw.device("cpu")), tw.float64) for t in (a, b))
            assert wrap(a).numpy().tobytes() == wrap(b).numpy().tobytes(), (dtype, n, p)
        assert cpu[2] == device[2]
for f in (lambda d: tw.rand(70, device=d), lambda d: tw.randperm(50, device=d),
          lambda d: tw.randint(9, (30,), device=d), lambda d: tw.bernoulli(tw.full((40,), 0.4, device=d)),
          lambda d: tw.normal(tw.zeros(8, device=d), tw.ones(8, device=d))):
    drawn = []
    for d in ("cpu", "cuda"):
        tw.manual_seed(4)
        drawn.append(f(d))
    assert drawn[1].is_cuda and abs(drawn[0] - drawn[1].cpu()).max().item() < 1e-6
""")


@needs_emulator
def test_optimizer_steps_are_the_cpus():
    """Over more tensors than one launch takes, of every dtype, aligned and not; on a CPU with FMA the same bits."""
    script("""
rng = np.random.default_rng(2)
sizes = [0, 1, 3, 127, 8192, 20001, *(5 + i for i in range(120))]
values = [rng.normal(0, 1, (2, n)) for n in sizes]
floats = (tw.float32, tw.bfloat16, tw.float64, tw.float16)
for make in (lambda p: tw.optim.SGD(p, lr=0.1),
             lambda p: tw.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
             lambda p: tw.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
             lambda p: tw.optim.AdamW(p, lr=0.01, maximize=True)):
    results = []
    for device in ("cpu", "cuda"):
        params = []
        for i, (v, n) in enumerate(zip(values, sizes)):
            x = tw.tensor(v[0]).to(floats[i % 4]).to(device)
            p = tw.zeros(n + 1, dtype=x.dtype, device=device)[1:] if i % 3 == 0 else x.clone()
            params.append(p.copy_(x).requires_grad_())
        optimizer = make(params)
        for step in range(3):
            for p, v in zip(params, values):
                p.grad = (tw.tensor(v[1]) * (step + 1)).to(p.dtype).to(device)
            optimizer.step()
        results.append([p.detach().cpu().double().numpy() for p in params])
    for a, b in zip(*results):
        if tw.cpu_capability() == "scalar":
            np.testing.assert_allclose(a, b, rtol=1e-2)
        else:
            assert a.tobytes() == b.tobytes()
""")


@needs_emulator
def test_gradients_are_clipped_and_scaled():
    """Over more tensors than one launch takes: the norm against NumPy, the products against the CPU's bits."""
    script("""
from tilewright import _engine as e
from tilewright.autograd import wrap
rng = np.random.default_rng(5)
for dtype in (tw.float32, tw.float64, tw.float16, tw.bfloat16):
    values = [tw.tensor(rng.normal(0, 1, n)).to(dtype) for n in (0, 1, 127, 8193, 30001, *range(120))]
    whole = np.concatenate([v.double().numpy() for v in values])
    for p in (1.0, 2.0, 3.5, float("inf")):
        want = np.abs(whole).max() if p == float("inf") else (np.abs(whole) ** p).sum() ** (1 / p)
        norm = wrap(e.grad_norm([v.cuda().array for v in values], p))
        assert norm.is_cuda and abs(norm.item() - want) <= (1e-14 if dtype is tw.float64 else 4e-7) * want, (dtype, p)
    for factor, bad in ((0.3, 1.0), (1.0, 1.0), (4.0, float("nan")), (1.0, float("inf")), (4.0, 3e38)):
        values[3][8192] = bad
        drawn = []
        for device in ("cpu", "cuda"):
            grads, found = [v.clone().to(device) for v in values], tw.zeros((), device=device)
            by = tw.tensor(factor, dtype=tw.float64, device=device)
            e.grad_scale([g.array for g in grads], by.array, found.array)
            drawn.append((found.item(), [g.cpu().double().numpy().tobytes() for g in grads]))
        assert drawn[0] == drawn[1] and drawn[0][0] == (bad != 1.0 and not (bad == 3e38 and dtype is tw.float64))
    p = tw.zeros(5, device="cuda").requires_grad_()
    p.grad = tw.full((5,), 3.0, device="cuda")
    assert abs(nn.utils.clip_grad_norm_([p], 1.0).item() - 45**0.5) < 1e-5 and abs(p.grad.norm().item() - 1) < 1e-5
""")


@needs_emulator
def test_long_reductions():
    """Rows and columns that are cut into pieces: places with ties and NaN, variances about a large mean."""
    script("""
rng = np.random.default_rng(3)
for shape, dim in (((3, 40000), 1), ((40000, 3), 0), ((2, 17000, 5), 1), ((70 * 16384 + 5,), 0), ((2, 600), 1)):
    x = rng.integers(0, 50, shape).astype(np.float32)
    for dtype in (tw.float32, tw.bfloat16, tw.int8, tw.int64, tw.float64):
        t = tw.tensor(x).to(dtype).cuda()
        assert (t.argmax(dim).cpu().numpy() == x.argmax(dim)).all(), (shape, dtype)
        assert (t.argmin(dim).cpu().numpy() == x.argmin(dim)).all(), (shape, dtype)
    x[tuple(n - 2 for n in shape)] = x[tuple(n - 1 for n in shape)] = np.nan
    assert (tw.tensor(x).cuda().argmin(dim).cpu().numpy() == x.argmin(dim)).all(), shape
    x = (1000 + rng.normal(0, 1, shape)).astype(np.float32)
    want = x.astype(np.float64).var(dim, ddof=1)
    np.testing.assert_allclose(tw.tensor(x).cuda().var(dim).cpu().numpy(), want, rtol=3e-6)
    np.testing.assert_allclose(tw.tensor(x).double().cuda().var(dim).cpu().numpy(), want, rtol=1e-12)
low = tw.full((2, 5000), -float("inf"), device="cuda")
assert low.argmax(1).tolist() == [0, 0] and low.argmin(1).tolist() == [0, 0] and low.argmax(0).sum().item() == 0
""")


@needs_emulator
def test_probes_run_on_the_device():
    """Each checks its own result; the emulator's rates mean nothing."""
    script("""
from tilewright import _engine as e
from tilewright.autograd import wrap
device = tw.device("cuda", 0)
assert e.fma_peak(e.float32, 0.01, device) > 0 and e.fma_peak(e.float64, 0.01, device) > 0
for kind in ("read", "copy", "triad"):
    assert e.stream(kind, 300_000, False, 0.01, device) > 0
""")


@needs_emulator
def test_benchmarks_of_a_device(tmp_path):
    for family, line in (("softmax", "rows=33 cols=100 grad=1"), ("matmul", "m=8 n=9 k=10 dtype=tf32"),
                         ("model", "name=mlp batch=4")):
        (tmp_path / f"{family}.txt").write_text(line + "\n")
    root = Path(__file__).parents[1]
    script(f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(root)!r})
import tilewright as tw
from benchmarks import run
for family in ("softmax", "matmul", "model"):
    out = Path({str(tmp_path)!r}, family + ".json")
    problems = str(out.with_suffix(".txt"))
    assert run.main([family, "--device", "cuda", "--problems", problems, "--peers", "none", "--seconds", "0.01",
                     "--json", str(out)]) == 0
    results = json.loads(out.read_text())
    (row,) = results["rows"]
    assert row["seconds"]["kernel"]["median"] > 0, row
    assert results["machine"]["gpu"]["name"].startswith("tilewright emulator")
assert not tw.backends.cuda.matmul.allow_tf32  # what the run of TF32 products switched on is off again
""")


@needs_emulator
def test_every_kernel_is_on_the_device():
    out = script("""
from tilewright import kernels
print(*(n for n in kernels.names() if kernels.which(n, "cuda") != "cuda_simt"))
""")
    assert out.split() == []


RESOURCES = Path(tw.__file__).parent / "_cuda_resources.csv"
# Kernels that may keep values in local memory, and why; all others keep them in registers.
LOCAL = {f"elementwise_kernel<{name}": "the CUDA library's reduction of large angles" for name in ("Sin", "Cos", "Tan")}


@pytest.mark.skipif(not RESOURCES.exists(), reason="the build has no CUDA kernels (nvcc was not found)")
def test_kernels_keep_their_values_in_registers():
    with open(RESOURCES, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert {r["arch"] for r in rows} >= {"sm_90a"} and any(r["kernel"].startswith("softmax_rows<") for r in rows)
    spilling = [r for r in rows if (int(r["spill_stores"]) or int(r["spill_loads"]) or int(r["stack"]))
                and not r["kernel"].startswith(tuple(f"{name}," for name in LOCAL))]
    assert not spilling, spilling[:5]
    assert not [r for r in rows if int(r["serialized"])], "ptxas waits for each wgmma: see the report's C75.."
