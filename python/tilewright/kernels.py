"""The table of kernels: which there are, and which one runs."""

from __future__ import annotations

from tilewright import _engine


def names() -> list[str]:
    """Every slot of the kernel table."""
    return _engine.kernel_names()


def which(name: str, device="cpu") -> str:
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

    def __init__(self):
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
