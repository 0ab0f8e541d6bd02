"""Checks of layer arguments, made when a layer is built, so that a wrong one is named where it was written."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any


def check_size(owner: str, name: str, value: Any, minimum: int = 0) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{owner}: {name} must be an int, got {value!r}")
    value = operator.index(value)
    if value < minimum:
        raise ValueError(f"{owner}: {name} must be >= {minimum}, got {value}")
    return value


def check_pair(owner: str, name: str, value: Any, minimum: int = 0) -> tuple[int, int]:
    """An int for both directions, or (vertical, horizontal)."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{owner}: {name} must be an int or a pair, got {tuple(value)}")
        return (check_size(owner, name, value[0], minimum), check_size(owner, name, value[1], minimum))
    size = check_size(owner, name, value, minimum)
    return (size, size)


def check_number(owner: str, name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A real number in [low, high]; NaN is in no interval."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number:
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
    if not low <= value <= high:
        bounds = f">= {low}" if high == math.inf else f"in [{low}, {high}]"
        raise ValueError(f"{owner}: {name} must be {bounds}, got {value}")
    return value


def check_choice(owner: str, name: str, value: Any, choices: tuple) -> Any:
    if value not in choices:
        raise ValueError(f"{owner}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
