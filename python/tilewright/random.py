"""The default generator's functions, and `fork_rng`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tilewright.ops.random import default_generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state

__all__ = ["default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """A block after which the random numbers go on as if it had drawn none.

    >>> import tilewright as tw
    >>> with tw.random.fork_rng():
    ...     x = tw.rand(3)
    >>> bool((tw.rand(3) == x).all())
    True
    """
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)
