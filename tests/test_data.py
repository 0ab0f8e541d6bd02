"""utils.data: orders, batches, worker processes, and what happens when a worker fails, dies or is left alone."""

import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter, namedtuple
from typing import ClassVar

import numpy as np
import pytest

import tilewright as tw
from tilewright.utils import data
from tilewright.utils.data import transport
from tilewright.utils.data.dataloader import _WorkerIterator

Point = namedtuple("Point", "x y")


class Squares(data.Dataset):
    """Item i is (i, i squared as a tensor); counts what is asked of it."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        if not 0 <= i < self.size:
            raise IndexError(i)
        return i, tw.full((2,), float(i * i))


class Numbers(data.IterableDataset):
    """0, 1, ..., split between the workers by turns."""

    def __init__(self, size):
        self.size = size

    def __iter__(self):
        info = data.get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.size, step))


def firsts(loader):
    return [batch[0].tolist() for batch in loader]


def children():
    """The ids of this process's children that have not ended; spawn's own resource tracker, which stays, apart."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(parent) == os.getpid() and state != "Z":
                with open(f"/proc/{entry}/cmdline") as file:
                    if "resource_tracker" not in file.read():
                        found.append(int(entry))
    return found


def assert_no_children(seconds=10.0):
    end = time.monotonic() + seconds
    while children() and time.monotonic() < end:
        time.sleep(0.02)
    assert not children()


@pytest.fixture(autouse=True)
def no_processes_left_behind():
    yield
    gc.collect()
    assert_no_children()


# --- datasets and samplers -------------------------------------------------------------------------------------------
def test_datasets():
    pairs = data.TensorDataset(tw.arange(6), tw.arange(12).reshape(6, 2))
    assert len(pairs) == 6 and [v.tolist() for v in pairs[2]] == [2, [4, 5]]
    some = data.Subset(pairs, [5, 0, 3])
    assert len(some) == 3 and some[0][0].item() == 5 and some[-1][0].item() == 3
    joined = data.ConcatDataset([range(3), range(10, 12), range(0), range(20, 21)])
    assert [joined[i] for i in range(len(joined))] == [0, 1, 2, 10, 11, 20] and joined[-2] == 11
    with pytest.raises(IndexError, match=r"\[-6, 6\), got 6"):
        joined[6]
    assert len(Squares(2) + Squares(3)) == 5


@pytest.mark.parametrize("lengths, sizes", [([3, 0, 7], [3, 0, 7]), ([0.5, 0.25, 0.25], [6, 2, 2]), ([1.0], [10])])
def test_random_split(lengths, sizes):
    tw.manual_seed(4)
    parts = data.random_split(range(10), lengths)
    assert [len(part) for part in parts] == sizes
    assert sorted(item for part in parts for item in part) == list(range(10))
    tw.manual_seed(4)
    assert [list(part.indices) for part in data.random_split(range(10), lengths)] == [list(p.indices) for p in parts]


def test_random_sampler():
    tw.manual_seed(0)
    orders = [list(data.RandomSampler(range(50))) for _ in range(2)]
    assert orders[0] != orders[1] and all(sorted(order) == list(range(50)) for order in orders)
    tw.manual_seed(0)
    assert [list(data.RandomSampler(range(50))) for _ in range(2)] == orders
    generator = tw.Generator()
    generator.manual_seed(7)
    own = list(data.RandomSampler(range(50), generator=generator))
    generator.manual_seed(7)
    tw.manual_seed(123)
    assert list(data.RandomSampler(range(50), generator=generator)) == own
    twice = list(data.RandomSampler(range(5), num_samples=13))
    assert len(twice) == 13 and sorted(twice[:5]) == sorted(twice[5:10]) == list(range(5))
    drawn = list(data.RandomSampler(range(3), replacement=True, num_samples=300))
    assert set(drawn) == {0, 1, 2} and len(drawn) == 300
    assert list(data.RandomSampler([])) == []


def test_random_sampler_is_uniform():
    tw.manual_seed(5)
    counts = Counter(tuple(data.RandomSampler(range(3))) for _ in range(1200))
    # 6 orders, 200 expected each: chi-squared with 5 degrees of freedom exceeds 30 once in 70,000 times.
    assert len(counts) == 6 and sum((n - 200) ** 2 / 200 for n in counts.values()) < 30


def test_weighted_and_subset_samplers():
    tw.manual_seed(6)
    counts = Counter(data.WeightedRandomSampler([0.0, 1.0, 3.0], 4000))
    assert counts[0] == 0 and abs(counts[2] - 3000) < 5 * 27.4  # sqrt(4000 * 3/4 * 1/4) = 27.4
    assert sorted(data.WeightedRandomSampler(tw.tensor([1.0, 0.0, 5.0]), 2, replacement=False)) == [0, 2]
    assert sorted(data.SubsetRandomSampler([9, 4, 7])) == [4, 7, 9]


def test_batch_sampler():
    assert list(data.BatchSampler(range(7), 3, False)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(data.BatchSampler(range(7), 3, True)) == [[0, 1, 2], [3, 4, 5]]
    assert [len(data.BatchSampler(range(7), 3, drop)) for drop in (False, True)] == [3, 2]


# --- collate ---------------------------------------------------------------------------------------------------------
def test_default_collate_by_hand():
    collate = data.default_collate
    batch = collate([{"a": (1, 2.5), "s": "x"}, {"a": (3, 4.5), "s": "y"}])
    assert batch["a"][0].tolist() == [1, 3] and batch["a"][0].dtype == tw.int64
    assert batch["a"][1].tolist() == [2.5, 4.5] and batch["a"][1].dtype == tw.float64 and batch["s"] == ["x", "y"]
    point = collate([Point(1, "a"), Point(2, "b")])
    assert point.x.tolist() == [1, 2] and point.y == ("a", "b") and type(point) is Point
    assert collate([tw.ones(2), tw.zeros(2)]).tolist() == [[1, 1], [0, 0]]
    assert collate([np.ones(2, np.float32), np.zeros(2, np.float32)]).dtype == tw.float32
    assert collate([np.float32(1), np.float32(2)]).tolist() == [1, 2]
    assert collate([True, False]).dtype == tw.bool
    assert [c.tolist() for c in collate([[1, 2], [3, 4]])] == [[1, 3], [2, 4]]


SAMPLES = [[1, 2], [1.5, 2.5], [(1, "a", 0.5), (2, "b", 1.5)], [{"k": [1, 2]}, {"k": [3, 4]}], ["a", "b"],
           [True, False], [("x", "y"), ("z", "w")], [np.arange(3), np.arange(3)], [Point(1, 2.0), Point(3, 4.0)],
           [np.float64(1), np.float64(2)], [b"a", b"b"]]


@pytest.mark.parametrize("batch", SAMPLES, ids=[str(s)[:30] for s in SAMPLES])
def test_default_collate_as_pytorch(batch):
    reference = pytest.importorskip("torch.utils.data").default_collate

    def plain(value):
        if hasattr(value, "tolist"):
            return str(value.dtype).rpartition(".")[2], value.tolist()
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        return type(value)._make(map(plain, value)) if hasattr(value, "_fields") else (
            type(value)(map(plain, value)) if isinstance(value, (list, tuple)) else value)

    assert plain(data.default_collate(batch)) == plain(reference(batch))


# --- the loader, with and without workers ----------------------------------------------------------------------------
WORKERS = pytest.mark.parametrize("workers", [0, 1, 3])


@WORKERS
def test_batches_in_order(workers):
    loader = data.DataLoader(Squares(11), batch_size=4, num_workers=workers)
    assert len(loader) == 3
    for _ in range(2):
        batches = list(loader)
        assert [batch[0].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
        assert batches[2][1].tolist() == [[64, 64], [81, 81], [100, 100]]
    dropped = data.DataLoader(Squares(11), batch_size=4, drop_last=True, num_workers=workers)
    assert len(dropped) == 2 and firsts(dropped) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    single = data.DataLoader(Squares(3), batch_size=None, num_workers=workers)
    assert [item[0] for item in single] == [0, 1, 2] and len(single) == 3
    assert list(data.DataLoader(Squares(0), num_workers=workers)) == []


@WORKERS
def test_samplers_and_collate_fn(workers):
    options = {"num_workers": workers}
    assert firsts(data.DataLoader(Squares(5), 2, sampler=[4, 0, 2], **options)) == [[4, 0], [2]]
    assert firsts(data.DataLoader(Squares(5), batch_sampler=[[1], [3, 4, 0]], **options)) == [[1], [3, 4, 0]]
    sums = data.DataLoader(Squares(6), 3, collate_fn=lambda batch: sum(i for i, _ in batch), **options)
    assert list(sums) == [3, 12]
    assert list(data.DataLoader(range(4), 4, collate_fn=list, pin_memory=True, **options)) == [[0, 1, 2, 3]]


@WORKERS
def test_shuffling_is_reproducible(workers):
    loader = data.DataLoader(Squares(20), 5, shuffle=True, num_workers=workers)
    tw.manual_seed(11)
    two = [firsts(loader), firsts(loader)]
    assert two[0] != two[1] and sorted(itertools.chain(*two[0])) == list(range(20))
    tw.manual_seed(11)
    assert [firsts(loader), firsts(loader)] == two
    tw.manual_seed(11)
    assert firsts(data.DataLoader(Squares(20), 5, shuffle=True)) == two[0]  # the same with and without workers
    orders = []
    for seed in (3, 3, 4):
        generator = tw.Generator()
        generator.manual_seed(seed)
        orders.append(firsts(data.DataLoader(Squares(20), 5, shuffle=True, generator=generator, num_workers=workers)))
    assert orders[0] == orders[1] != orders[2]


@WORKERS
def test_iterable_dataset(workers):
    loader = data.DataLoader(Numbers(10), batch_size=3, num_workers=workers)
    batches = [batch.tolist() for batch in loader]
    if workers <= 1:
        assert batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    else:  # each worker batches its own third, and they take turns
        assert batches == [[0, 3, 6], [1, 4, 7], [2, 5, 8], [9]]
    dropped = data.DataLoader(Numbers(7), 2, drop_last=True)
    assert [batch.tolist() for batch in dropped] == [[0, 1], [2, 3], [4, 5]]
    assert sorted(data.DataLoader(Numbers(7), batch_size=None, num_workers=workers)) == list(range(7))


def test_tensor_dataset_takes_one_index_a_batch():
    x, y = tw.arange(20).reshape(10, 2), tw.arange(10)

    class Watched(data.TensorDataset):
        def __getitem__(self, index):
            raise AssertionError("the fast path does not ask for items")

    plain = data.TensorDataset(x, y)
    subset = data.Subset(data.Subset(plain, range(9, -1, -1)), [0, 2, 4])
    batches = list(data.DataLoader(plain, 4))
    slow = list(data.DataLoader(plain, 4, collate_fn=lambda batch: data.default_collate(batch)))
    for a, b in zip(batches, slow, strict=True):
        assert type(a) is type(b) and [v.tolist() for v in a] == [v.tolist() for v in b]
    batches[0][0].fill_(-1)
    assert x[0].tolist() == [0, 1]  # a batch is a copy
    assert [b[1].tolist() for b in data.DataLoader(subset, 2)] == [[9, 7], [5]]
    with pytest.raises(AssertionError):  # a subclass may override items, and is asked for them
        list(data.DataLoader(Watched(x), 4))


def test_getitems_is_used_where_it_exists():
    class Whole(data.Dataset):
        def __len__(self):
            return 5

        def __getitems__(self, indices):
            return [10 * i for i in indices]

    assert [b.tolist() for b in data.DataLoader(Whole(), 3)] == [[0, 10, 20], [30, 40]]


# --- worker processes ------------------------------------------------------------------------------------------------
class Seeds(data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        info = data.get_worker_info()
        return info.id, info.num_workers, info.seed, random.random(), float(np.random.rand()), tw.rand(1).item()


def test_worker_info_and_seeds():
    assert data.get_worker_info() is None
    loader = data.DataLoader(Seeds(), 2, num_workers=2)
    tw.manual_seed(1)
    runs = [[[column.tolist() for column in batch] for batch in loader]]
    tw.manual_seed(1)
    runs.append([[column.tolist() for column in batch] for batch in loader])
    runs.append([[column.tolist() for column in batch] for batch in loader])
    assert runs[0] == runs[1] != runs[2]
    first, second = runs[0]
    assert first[0] == [0, 0] and second[0] == [1, 1] and first[1] == [2, 2]
    assert second[2][0] - first[2][0] == 1  # base seed + id
    for column in (3, 4, 5):  # each source differs between workers and between draws
        assert len({*first[column], *second[column]}) == 4


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "bool", "int64"])
@pytest.mark.parametrize("size", [0, 3, transport.SHARED_MEMORY_BYTES])
def test_every_kind_of_batch_arrives_as_sent(kind, size):
    def make(batch):
        return {"t": (tw.arange(size) % 2).to(getattr(tw, kind)).reshape(-1, 1), "n": np.arange(size, dtype=np.int16),
                "nested": [batch, ("text", None, Point(1, tw.ones(())))], "objects": np.array([None, "x"])}

    (got,) = data.DataLoader([7], collate_fn=make, num_workers=1)
    want = make([7])
    assert got["t"].dtype == want["t"].dtype and tuple(got["t"].shape) == (size, 1)
    assert got["t"].double().tolist() == want["t"].double().tolist()
    np.testing.assert_array_equal(got["n"], want["n"])
    assert got["nested"][0] == [7] and got["nested"][1][:2] == ("text", None) and got["nested"][1][2].y.item() == 1
    got["t"].fill_(1)  # the memory is this process's to write
    got["n"][...] = 5


def test_large_batches_leave_no_files_or_descriptors():
    size = 4 * transport.SHARED_MEMORY_BYTES
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    descriptors = len(os.listdir("/proc/self/fd"))
    kept = []
    for i, batch in enumerate(data.DataLoader(range(8), 1, num_workers=2,
                                              collate_fn=lambda b: tw.full((size,), float(b[0])))):
        kept.append(batch)
        assert batch[0].item() == batch[-1].item() == i
    assert [batch[size // 2].item() for batch in kept] == list(range(8))  # no batch overwrites another
    if before or os.path.isdir("/dev/shm"):
        assert set(os.listdir("/dev/shm")) <= before
    del batch, kept
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


class Fails(data.Dataset):
    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 8

    def __getitem__(self, i):
        if i == 5:
            self.how()
        return i


class Peculiar(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


def raise_value_error():
    raise ValueError("item five is odd")


def raise_key_error():
    raise KeyError("missing\nkey")


def raise_peculiar():
    raise Peculiar(1, 2)


@pytest.mark.parametrize("how, kind, name, line", [
    (raise_value_error, ValueError, "ValueError", "raise_value_error"),
    (raise_key_error, KeyError, "KeyError", "raise_key_error"),
    (raise_peculiar, RuntimeError, "Peculiar", "raise_peculiar"),
])
def test_a_workers_exception_arrives_with_its_traceback(how, kind, name, line):
    got = []
    words = rf"{name} in DataLoader worker \d \(pid \d+\):\nTraceback[\s\S]*{line}"
    with pytest.raises(kind, match=words):
        for batch in data.DataLoader(Fails(how), 2, num_workers=2):
            got.append(batch.tolist())
    assert got == [[0, 1], [2, 3]]  # the batches before the failing one came
    assert_no_children()


def test_a_batch_that_cannot_travel_is_an_error_not_a_hang():
    with pytest.raises((TypeError, RuntimeError, AttributeError), match="DataLoader worker 0"):
        list(data.DataLoader([1], collate_fn=lambda batch: (lambda: batch), num_workers=1))


def test_worker_init_fn_runs_and_may_fail():
    def init(worker_id):
        random.worker = worker_id * 10

    loader = data.DataLoader(range(4), 1, collate_fn=lambda b: random.worker, worker_init_fn=init, num_workers=2)
    assert list(loader) == [0, 10, 0, 10]

    def bad(worker_id):
        raise LookupError("no such file")

    with pytest.raises(LookupError, match=r"DataLoader worker 0[\s\S]*no such file"):
        list(data.DataLoader(range(4), worker_init_fn=bad, num_workers=2))


@pytest.mark.parametrize("how, words", [
    (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by signal 9"),
    (lambda: os._exit(7), "exited with code 7"),
    (lambda: sys.exit(3), "exited with code 3"),
])
def test_a_worker_that_dies_is_named(how, words):
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=rf"DataLoader: worker 0 \(pid \d+\) {words}"):
        list(data.DataLoader(Fails(how), 1, num_workers=1))
    assert time.monotonic() - begin < 10


def test_a_worker_killed_from_outside_while_idle():
    loader = iter(data.DataLoader(Squares(100), 1, num_workers=2))
    next(loader)
    victim = loader._workers.processes[1].pid
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=rf"worker 1 \(pid {victim}\) was killed by signal 9"):
        list(loader)
    assert_no_children()


def test_timeout():
    class Slow(Squares):
        def __getitem__(self, i):
            time.sleep(30)

    with pytest.raises(RuntimeError, match=r"no batch within timeout 0.2 s, waiting for worker 0 \(pid \d+\)"):
        list(data.DataLoader(Slow(3), num_workers=1, timeout=0.2))
    assert_no_children()


def test_an_abandoned_iterator_leaves_no_processes():
    for batch in data.DataLoader(Squares(1000), 1, num_workers=2):
        assert batch[0].item() == 0
        assert len(children()) == 2
        break
    gc.collect()
    assert_no_children()


def test_persistent_workers_are_kept_and_restart_cleanly():
    loader = data.DataLoader(Squares(40), 2, num_workers=2, persistent_workers=True)
    full = [[2 * i, 2 * i + 1] for i in range(20)]
    assert firsts(loader) == full
    pids = sorted(children())
    assert len(pids) == 2
    for _ in range(3):  # an epoch broken off: what was under way must not leak into the next
        next(iter(loader))
    assert firsts(loader) == full and sorted(children()) == pids
    iterable = data.DataLoader(Numbers(7), 2, num_workers=2, persistent_workers=True)
    assert [[b.tolist() for b in iterable] for _ in range(2)] == [[[0, 2], [1, 3], [4, 6], [5]]] * 2
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(RuntimeError, match=f"pid {pids[0]}"):
        list(loader)
    assert firsts(loader) == full  # with fresh workers
    del loader, iterable


def test_large_index_lists_and_results_do_not_deadlock():
    indices = [list(range(60000)) for _ in range(8)]
    loader = data.DataLoader(range(60000), batch_sampler=indices, num_workers=2, prefetch_factor=4,
                             collate_fn=lambda batch: [str(i) for i in batch])
    assert [len(batch) for batch in loader] == [60000] * 8


def test_a_forked_copy_of_the_iterator_ends_no_workers():
    iterator = iter(data.DataLoader(Squares(10), 1, num_workers=1))
    assert isinstance(iterator, _WorkerIterator)
    next(iterator)
    pid = os.fork()
    if pid == 0:
        iterator._finalizer()
        os._exit(0)
    os.waitpid(pid, 0)
    assert [batch[0].item() for batch in iterator] == list(range(1, 10))


SCRIPT = """
import os, sys, time
{prelude}
import tilewright as tw
from tilewright.utils import data

class Slow(data.Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, i):
        if i:
            time.sleep(0.2)
        return i

if __name__ == "__main__":
    loader = data.DataLoader(Slow(), 1, num_workers=2)
    iterator = iter(loader)
    next(iterator)
    print(*(process.pid for process in iterator._workers.processes), flush=True)
    for batch in iterator:
        pass
"""


def run_script():
    prelude = "import tw_shim" if "tw_shim" in sys.modules else ""
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCRIPT).format(prelude=prelude)],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    return child, [int(pid) for pid in child.stdout.readline().split()]


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("stop, whole_group", [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGKILL, False)])
def test_ctrl_c_and_a_killed_main_process_leave_no_workers(stop, whole_group):
    child, workers = run_script()
    assert len(workers) == 2 and all(running(pid) for pid in workers)
    (os.killpg if whole_group else os.kill)(child.pid, stop)
    _, errors = child.communicate(timeout=20)
    assert child.returncode != 0 and ("KeyboardInterrupt" in errors) == (stop == signal.SIGINT)
    assert errors.count("Traceback") == (stop == signal.SIGINT)  # the workers print nothing
    end = time.monotonic() + 15
    while any(map(running, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(running, workers))


def test_spawned_workers():
    loader = data.DataLoader(data.TensorDataset(tw.arange(6)), 2, num_workers=1, multiprocessing_context="spawn")
    if "tw_shim" in sys.modules:
        pytest.skip("the stand-in engine is not importable by a fresh interpreter")
    assert [x.tolist() for (x,) in loader] == [[0, 1], [2, 3], [4, 5]]


# --- names that came later ------------------------------------------------------------------------------------------
def test_stack_and_chain():
    pairs = data.StackDataset([1, 2, 3], "abc")
    named = data.StackDataset(x=data.TensorDataset(tw.arange(4)), y=data.Subset(range(10), [9, 8, 7, 6]))
    assert len(pairs) == 3 and pairs[1] == (2, "b") and pairs.__getitems__([2, 0]) == [(3, "c"), (1, "a")]
    batch = next(iter(data.DataLoader(named, 3)))
    assert batch["x"][0].tolist() == [0, 1, 2] and batch["y"].tolist() == [9, 8, 7]
    for args, kwargs, words in (((), {}, "at least one"), (([1],), {"x": [1]}, "either in order or by keyword"),
                                (([1], [1, 2]), {}, r"one length, got \[1, 2\]")):
        with pytest.raises(ValueError, match=words):
            data.StackDataset(*args, **kwargs)
    chain = Numbers(3) + Numbers(2)
    assert isinstance(chain, data.ChainDataset) and list(chain) == [0, 1, 2, 0, 1]
    assert [b.tolist() for b in data.DataLoader(chain, 2)] == [[0, 1], [2, 0], [1]]
    with pytest.raises(TypeError, match="takes IterableDatasets, got list"):
        list(data.ChainDataset([[1]]))


def test_subsets_ask_for_whole_batches():
    class Batched(Squares):
        asked: ClassVar = []

        def __getitems__(self, indices):
            self.asked.append(indices)
            return [self[i] for i in indices]

    loader = data.DataLoader(data.Subset(data.Subset(Batched(9), [8, 6, 4, 2]), [3, 1, 0]), 2)
    assert firsts(loader) == [[2, 6], [8]] and Batched.asked == [[2, 6], [8]]


@pytest.mark.parametrize("size", [10, 11, 3, 0])
@pytest.mark.parametrize("drop_last", [False, True])
def test_distributed_sampler(size, drop_last):
    torch_data = pytest.importorskip("torch.utils.data")
    for rank in range(4):
        for kind in ("plain", "shuffled"):
            ours = data.DistributedSampler(range(size), 4, rank, kind == "shuffled", seed=3, drop_last=drop_last)
            theirs = torch_data.DistributedSampler(range(size), 4, rank, False, drop_last=drop_last)
            assert len(ours) == len(theirs) == len(list(ours))
            if kind == "plain":
                assert list(ours) == list(theirs)
    shares = [data.DistributedSampler(range(size), 4, rank, seed=3, drop_last=drop_last) for rank in range(4)]
    orders = []
    for epoch in (0, 1):
        for share in shares:
            share.set_epoch(epoch)
        orders.append([list(share) for share in shares])
        together = [i for share in orders[-1] for i in share]
        assert set(together) <= set(range(size)) and (drop_last or set(together) == set(range(size)))
    again = [data.DistributedSampler(range(size), 4, rank, seed=3, drop_last=drop_last) for rank in range(4)]
    assert orders[0] == list(map(list, again))
    assert size < 10 or orders[0] != orders[1]
    assert sorted(data.DistributedSampler(range(size))) == list(range(size))  # one process
    with pytest.raises(ValueError, match=r"rank must be in \[0, 2\), got 2"):
        data.DistributedSampler(range(4), 2, 2)


def test_out_of_order():
    def collate(batch):
        time.sleep(0.3 if batch[0] == 0 else 0)
        return batch[0]

    options = {"num_workers": 2, "collate_fn": collate, "persistent_workers": True}
    assert list(data.DataLoader(range(6), 1, **options)) == [0, 1, 2, 3, 4, 5]
    loader = data.DataLoader(range(6), 1, in_order=False, **options)
    for _ in range(2):
        found = list(loader)
        assert sorted(found) == [0, 1, 2, 3, 4, 5] and found[0] == 1
    assert sorted(i for b in data.DataLoader(Numbers(7), 2, in_order=False, num_workers=2)
                  for i in b.tolist()) == list(range(7))


def test_pinning_keeps_the_structure(monkeypatch):
    from tilewright.utils.data import dataloader
    monkeypatch.setattr(dataloader.tw.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tw.Tensor, "pin_memory", lambda self: self + 100)
    loader = data.DataLoader([{"a": tw.ones(1), "b": (1.0, "x")}], pin_memory=True)
    (batch,) = loader
    assert batch["a"].tolist() == [[101]] and batch["b"][0].tolist() == [101] and batch["b"][1] == ("x",)
    assert data.dataloader.pin(Point([tw.zeros(1)], 2)) == Point([tw.tensor([100.0])], 2)


def test_modules_have_pytorchs_names():
    from tilewright.utils.data.dataloader import DataLoader, default_collate
    from tilewright.utils.data.dataset import random_split
    from tilewright.utils.data.distributed import DistributedSampler
    from tilewright.utils.data.sampler import RandomSampler
    assert (DataLoader, default_collate, random_split, DistributedSampler, RandomSampler) == (
        data.DataLoader, data.default_collate, data.random_split, data.DistributedSampler, data.RandomSampler)
