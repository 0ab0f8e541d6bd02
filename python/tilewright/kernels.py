"""Our kernels over anybody's arrays, the table of kernels, and recorded plans.

Each kernel is a plain function over arrays of any library that speaks DLPack or the buffer protocol (NumPy, PyTorch,
JAX, CuPy, tilewright's own), on memory that the caller gives, with no copy and nothing recorded for gradients:

>>> import numpy as np
>>> from tilewright import kernels
>>> x = np.array([[0, 1], [2, 2]], np.float32)
>>> y = np.empty_like(x)
>>> kernels.softmax(x, out=y) is y
True
>>> kernels.gemm(x, x.T, out=y, alpha=2).tolist()
[[2.0, 4.0], [4.0, 16.0]]

`dir(kernels)` lists them and `help(kernels.softmax)` explains one. docs/kernels/README.md shows the calls from NumPy,
PyTorch and JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tilewright import _engine

if TYPE_CHECKING:
    from tilewright._kernels import *  # noqa: F403


def __getattr__(name: str):
    # The functions live in a module that loads when the first of them is used, so that `import tilewright` stays quick.
    if not name.startswith("_"):
        _engine.cpu_capability()  # a level that TILEWRIGHT_CPU asks for in vain is refused here, in its own words
        functions = vars(importlib.import_module("tilewright._kernels"))
        globals().update({k: v for k, v in functions.items() if not k.startswith("_")})
        if name in functions:
            return functions[name]
    raise AttributeError(f"module 'tilewright.kernels' has no attribute {name!r}")


def __dir__() -> list[str]:
    functions = importlib.import_module("tilewright._kernels")
    return sorted({"Plan", "names", "which", *(n for n in dir(functions) if not n.startswith("_"))})


def names() -> list[str]:
    """Every slot of the kernel table."""
    return _engine.kernel_names()


def which(name: str, device: Any = "cpu") -> str:
    """The table whose kernel runs for an op on a device, such as "cpu_avx512"; "none" where there is no kernel.

    Raises:
        ValueError: no slot has that name.

    >>> from tilewright import kernels
    >>> kernels.which("exp").startswith("cpu_")
    True
    """
    return _engine.which(name, _engine.device(str(device)))


def winograd() -> bool:
    """Whether convolutions with 3x3 filters may go by Winograd's method; the variable TILEWRIGHT_WINOGRAD=0 starts
    with False."""
    return _engine.winograd()


def set_winograd(enabled: bool) -> None:
    """Lets 3x3 filters of stride 1 take Winograd's 16 multiplications a tile in place of 36, or not.

    The method's rounding errors are of the size of the direct sums' (csrc/kernels/cpu/winograd.cpp), but they are
    others: a value that is tiny among large neighbours carries the neighbours' rounding.

    >>> from tilewright import kernels
    >>> kernels.set_winograd(False)
    >>> kernels.winograd()
    False
    >>> kernels.set_winograd(True)
    """
    _engine.set_winograd(enabled)


class Plan:
    """A recording of kernel launches, replayed from C++ over the same memory, with no Python in between.

    A recorded launch also runs at once. Replaying computes again from whatever the arrays hold then, and writes into
    the arrays that the recorded run made; numbers passed by value (learning rates, a draw's seed and offset) stay
    those of the recording.

    >>> import tilewright as tw
    >>> from tilewright.kernels import Plan
    >>> x = tw.zeros(3)
    >>> with Plan() as plan:
    ...     y = x + 1
    >>> _ = x.fill_(5)
    >>> plan.replay()
    >>> y.tolist()
    [6.0, 6.0, 6.0]
    """

    def __init__(self) -> None:
        self._plan = _engine.Plan()

    def __enter__(self) -> Plan:
        self._plan.begin()
        return self

    def __exit__(self, *exc) -> None:
        self._plan.end()

    def __len__(self) -> int:
        return len(self._plan)

    def names(self) -> list[str]:
        """The slot of each recorded launch, in order."""
        return self._plan.names()

    def replay(self, times: int = 1) -> None:
        """Runs the recorded launches again, in order, `times` times."""
        self._plan.replay(times)
