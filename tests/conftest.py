"""Shared by all tests: the report's header, and thread counts put back after each test."""

from __future__ import annotations

import pytest

import tilewright as tw
from arrays import DEVICE


def pytest_configure(config):
    if DEVICE != "cpu":  # the gaps of the device's table: test_simt.py lists them
        config.addinivalue_line("filterwarnings", "ignore:.*there is no CUDA kernel")


def pytest_report_header(config):
    return f"tilewright {tw.__version__}, CPU level {tw.cpu_capability()}, {tw.get_num_threads()} threads"


@pytest.fixture
def threads():
    """`threads(n)` sets the number of threads until the test ends."""
    before = tw.get_num_threads()
    yield tw.set_num_threads
    tw.set_num_threads(before)


def pytest_terminal_summary(terminalreporter):
    """The totals of test_against_torch.py, whose tests record what became of each op's samples."""
    found: dict = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                found.update(v for k, part in report.user_properties if k == "against_torch" for v in part.items())
    if not found:
        return
    ran = {name: counts for name, counts in found.items() if isinstance(counts, dict)}
    totals = {kind: sum(counts[kind] for counts in ran.values()) for kind in next(iter(ran.values()), {})}
    absent = sorted(name for name, what in found.items() if what == "not there yet")
    write = terminalreporter.write_line
    write(f"against PyTorch: {len(found)} ops and layers offered, {len(ran)} are here, {len(absent)} not yet, "
          f"{len(found) - len(ran) - len(absent)} of another system; samples: "
          + ", ".join(f"{n} {kind}" for kind, n in totals.items()))
    write(f"not yet: {' '.join(absent)}")
