"""Each system of the lectures learns, on a small version of its example, and a planted fault keeps it from learning."""

from __future__ import annotations

import pytest

from systems import attention, classic, generative, pictures, sequences

PARTS = classic, generative, pictures, sequences, attention
SYSTEMS = {system.name: system for part in PARTS for system in part.SYSTEMS}
FAULTS = [pytest.param(system, fault, id=f"{system.name}-{name}")
          for system in SYSTEMS.values() for name, fault in system.faults.items()]


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
def test_learns(system):
    reached = system.learn()
    assert reached > system.bound, f"{reached:.4g}; {system.why}"


@pytest.mark.parametrize(("system", "plant"), FAULTS)
def test_a_fault_is_seen(system, plant, monkeypatch):
    plant(monkeypatch)
    reached = system.learn()
    assert not reached > system.bound, f"{reached:.4g} in spite of it; {system.why}"
