"""Small helpers that scripts import from `torch.nn.modules.utils`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tilewright.nn.state import consume_prefix_in_state_dict_if_present as consume_prefix_in_state_dict_if_present


def _ntuple(n: int, name: str = "parse") -> Callable[[Any], tuple]:
    """A function that gives an iterable as a tuple, and anything else n times."""
    def parse(x: Any) -> tuple:
        return tuple(x) if isinstance(x, Iterable) else (x,) * n

    parse.__name__ = name
    return parse


_single, _pair, _triple, _quadruple = (_ntuple(n, f"_{word}") for n, word in
                                       enumerate(("single", "pair", "triple", "quadruple"), 1))


def _reverse_repeat_tuple(t: tuple, n: int) -> tuple:
    """(1, 2), 2 -> (2, 2, 1, 1): sizes of dimensions as F.pad wants them."""
    return tuple(x for x in reversed(t) for _ in range(n))
