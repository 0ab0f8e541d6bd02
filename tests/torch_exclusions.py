"""What `test_against_torch.py` leaves out, each with its reason. The list only shrinks: an excluded sample that passes
fails the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

# Ops of another system: complex numbers, sparse and nested tensors, PyTorch's own internals.
FOREIGN = ("_", "ops.", "torch.ops.", "masked.", "sparse.", "fft.", "jiterator", "to_sparse", "chalf", "complex")

# Draws, and memory with no values in it: shapes and dtypes are compared, values are not.
RANDOM = frozenset()


class Excluded(NamedTuple):
    op: str  # the op's name, or name-variant
    reason: str
    when: Callable = lambda sample: True  # which samples
    forms: tuple = ()  # of function, method, inplace, error (train, eval): all when empty
    dtypes: tuple = ()

    def matches(self, form: str, dtype: str, sample) -> bool:
        return ((not self.forms or form in self.forms) and (not self.dtypes or dtype in self.dtypes)
                and bool(self.when(sample)))


EXCLUDED: list[Excluded] = []
EXCLUDED_MODULES: list[Excluded] = []
