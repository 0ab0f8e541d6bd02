"""The clock: rounds in which every contender runs once, one after the other, so that drift hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from itertools import repeat

import numpy as np

from tilewright import cuda

ROUNDS_WANTED, ROUNDS_LEAST, ROUNDS_MOST = 15, 5, 60
# Before a contender's turn the machine rests: PyTorch's OpenMP threads were seen to spin for 4 to 8 ms after their last
# call (processor time during a sleep after it), and would take a core from whoever comes next.
REST = 0.01

Runner = Callable[[int], object]  # runs the contender so many times
Clock = Callable[[Runner, int], float]  # the seconds that so many runs take


def calls(function: Callable[[], object]) -> Runner:
    """The runner of a Python callable."""
    def run(times: int) -> None:
        for _ in repeat(None, times):
            function()

    return run


def host_clock(run: Runner, times: int) -> float:
    start = time.perf_counter()
    run(times)
    return time.perf_counter() - start


def device_clock() -> Clock:
    """Seconds between two events in the device's default stream, where all contenders launch."""
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)

    def clock(run: Runner, times: int) -> float:
        start.record()
        run(times)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return clock


def _times_for(run: Runner, sample: float, clock: Clock) -> int:
    """How many runs take about `sample` seconds."""
    times = 1
    run(1)
    while True:
        took = clock(run, times)
        if took >= sample / 4 or times >= 1 << 24:
            return max(1, round(times * sample / max(took, 1e-9)))
        times = max(times * 2, min(times * 100, int(times * sample / 2 / max(took, 1e-9))))


def measure(runners: dict[str, Runner], seconds: float, rest: float = REST,
            clock: Clock = host_clock) -> dict[str, np.ndarray]:
    """Seconds a run of each contender, one figure a round. All take about `seconds` together, at least five rounds."""
    sample = seconds / (ROUNDS_WANTED * len(runners))
    times = {name: _times_for(run, sample, clock) for name, run in runners.items()}
    rounds: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    gc.collect()
    spent, n = 0.0, 0
    while n < ROUNDS_LEAST or (spent < seconds and n < ROUNDS_MOST):
        for name in order:
            time.sleep(rest)
            if times[name] > 1:  # wake threads and fill caches
                runners[name](max(1, times[name] // 8))
            took = clock(runners[name], times[name])
            rounds[name].append(took / times[name])
            spent += took
        order.append(order.pop(0))  # nobody always follows the same neighbour from the same place
        n += 1
    return {name: np.array(values) for name, values in rounds.items()}


def summary(values: np.ndarray) -> dict[str, float]:
    """Median, quartiles and the least."""
    least, q1, median, q3 = (float(v) for v in np.percentile(values, [0, 25, 50, 75]))
    return {"median": median, "q1": q1, "q3": q3, "least": least, "rounds": len(values)}
