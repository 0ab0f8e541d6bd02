"""What a row of test_systems.py is, and the faults that a row must not survive."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import tilewright as tw
from tilewright import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))  # the rows train what the examples train, for less long

Fault = Callable[[pytest.MonkeyPatch], None]


def flipped(patch: pytest.MonkeyPatch) -> None:
    """Every backward pass gives gradients of the wrong sign."""
    backward = tw.Tensor.backward
    patch.setattr(tw.Tensor, "backward", lambda self, *rest, **more: backward(-self, *rest, **more))


def frozen(pattern: str) -> Fault:
    """Optimizers are not given the parameters whose name in their module the pattern finds."""
    def plant(patch: pytest.MonkeyPatch) -> None:
        def parameters(self: nn.Module, recurse: bool = True) -> Iterator[nn.Parameter]:
            return (p for name, p in self.named_parameters(recurse=recurse) if not re.search(pattern, name))

        patch.setattr(nn.Module, "parameters", parameters)

    return plant


@dataclass(frozen=True)
class System:
    """learn() seeds the engine, trains a small version and returns what it reached: more is better.

    `bound` lies between what it reaches and what an untrained or broken one does; `why` says what both are. Each fault
    is planted in a run of its own, which must not pass the bound.
    """

    name: str
    learn: Callable[[], float]
    bound: float
    why: str
    faults: dict[str, Fault] = field(default_factory=lambda: {"gradients flipped": flipped})
