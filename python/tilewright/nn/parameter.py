"""Parameter: a tensor that a Module registers and an optimizer trains."""

from __future__ import annotations

from typing import Any

from tilewright import creation
from tilewright.tensor import Tensor


class Parameter(Tensor):
    """A leaf tensor over the memory of `data`; it requires grad unless told otherwise.

    Raises:
        TypeError: data is not a Tensor, or is not floating-point and requires_grad is not False.

    >>> import tilewright as tw
    >>> tw.nn.Parameter(tw.ones(2)).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        if data is None:
            data = creation.empty(0)
        if not isinstance(data, Tensor):
            raise TypeError(f"Parameter: data must be a Tensor, got {type(data).__name__}")
        super().__init__()
        self.array = data.array
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def empty_parameter(shape: tuple[int, ...], device: Any = None, dtype: Any = None, wanted: bool = True) -> Any:
    """An uninitialised Parameter, for a layer to fill; None if it is not wanted."""
    return Parameter(creation.empty(shape, dtype=dtype, device=device)) if wanted else None


class _Lazy:
    """A tensor that waits for its shape; until then it is empty."""

    __slots__ = ()
    _becomes: type

    def materialize(self: Any, shape: tuple[int, ...], device: Any = None, dtype: Any = None) -> None:
        """Gives it an uninitialised value of this shape; it is an ordinary tensor from then on."""
        self.data = creation.empty(shape, device=device or self.device, dtype=dtype or self.dtype)
        self.__class__ = self._becomes


class UninitializedParameter(_Lazy, Parameter):
    """A Parameter of a lazy layer, before the layer's first call."""

    __slots__ = ()
    _becomes = Parameter

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(creation.empty(0, device=device, dtype=dtype), requires_grad)

    def __repr__(self) -> str:
        return "<UninitializedParameter>"


class UninitializedBuffer(_Lazy, Tensor):
    """A buffer of a lazy layer, before the layer's first call."""

    __slots__ = ()
    _becomes = Tensor

    def __init__(self, requires_grad: bool = False, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.array = creation.empty(0, device=device, dtype=dtype).array
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return "<UninitializedBuffer>"


def is_lazy(tensor: Any) -> bool:
    """Whether the tensor still waits for its shape."""
    return isinstance(tensor, _Lazy)
