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
