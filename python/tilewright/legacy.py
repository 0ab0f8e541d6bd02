"""Names that PyTorch scripts still use: typed tensors, Variable, Size, finfo, and switches that do nothing here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright import _engine, autograd, creation
from tilewright.grad_mode import no_grad
from tilewright.tensor import Tensor

pi, e, inf, nan = math.pi, math.e, math.inf, math.nan


class _TypeOf(type):
    """isinstance(x, FloatTensor) asks for the dtype."""

    dtype: Any
    kind = "cpu"

    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(x, Tensor) and x.dtype == cls.dtype and x.device.type == cls.kind

    def __call__(cls, *data: Any) -> Any:
        if len(data) == 1 and isinstance(data[0], Tensor):
            return data[0].to(cls.dtype)
        if len(data) == 1 and not isinstance(data[0], int | np.integer):
            return creation.tensor(data[0], dtype=cls.dtype)
        return creation.empty(*data, dtype=cls.dtype) if data else creation.empty(0, dtype=cls.dtype)


def _typed(name: str, dtype: Any) -> _TypeOf:
    made = _TypeOf(name, (), {"__doc__": f"`{name}(2, 3)` is uninitialised {dtype} of that shape, "
                                         f"`{name}(values)` a {dtype} tensor of the values."})
    made.dtype = dtype
    return made


FloatTensor = _typed("FloatTensor", _engine.float32)
DoubleTensor = _typed("DoubleTensor", _engine.float64)
HalfTensor = _typed("HalfTensor", _engine.float16)
BFloat16Tensor = _typed("BFloat16Tensor", _engine.bfloat16)
ByteTensor = _typed("ByteTensor", _engine.uint8)
CharTensor = _typed("CharTensor", _engine.int8)
ShortTensor = _typed("ShortTensor", _engine.int16)
IntTensor = _typed("IntTensor", _engine.int32)
LongTensor = _typed("LongTensor", _engine.int64)
BoolTensor = _typed("BoolTensor", _engine.bool)


def Variable(data: Any, requires_grad: bool = False, volatile: bool | None = None) -> Tensor:
    """A tensor that shares memory with `data`: every Tensor has been a Variable since PyTorch 0.4.

    Raises:
        ValueError: volatile=True: `with no_grad():` says that now.
    """
    if volatile:
        raise ValueError("Variable: volatile=True is gone; run the code under `with tw.no_grad():`")
    made = data.detach() if isinstance(data, Tensor) else creation.as_tensor(data)
    return made.requires_grad_() if requires_grad else made


class _SizeOf(type):
    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(x, tuple)


class Size(tuple, metaclass=_SizeOf):
    """A shape: a tuple with `numel()`. Shapes themselves are plain tuples, which count as Sizes."""

    __slots__ = ()

    def numel(self) -> int:
        return math.prod(self)


class finfo:
    """The limits of a floating dtype: bits, eps, max, min, tiny, smallest_normal, resolution.

    >>> import tilewright as tw
    >>> tw.finfo(tw.float16).max
    65504.0
    """

    _LAYOUTS = {"float64": (11, 52), "float32": (8, 23), "float16": (5, 10), "bfloat16": (8, 7)}  # noqa: RUF012

    def __init__(self, dtype: Any = None) -> None:
        self.dtype = str(dtype or _engine.get_default_dtype()).rpartition(".")[2]
        if self.dtype not in self._LAYOUTS:
            raise TypeError(f"finfo: dtype must be floating-point, got {dtype}; iinfo is for integers")
        exponent, digits = self._LAYOUTS[self.dtype]
        self.bits, self.eps = 1 + exponent + digits, 2.0**-digits
        self.max = (2 - self.eps) * 2.0 ** (2 ** (exponent - 1) - 1)
        self.min, self.tiny = -self.max, 2.0 ** (2 - 2 ** (exponent - 1))
        self.smallest_normal, self.resolution = self.tiny, 10.0 ** -math.floor(digits * math.log10(2))

    def __repr__(self) -> str:
        return f"finfo(dtype={self.dtype}, eps={self.eps:g}, max={self.max:g}, min={self.min:g}, tiny={self.tiny:g})"


class iinfo:
    """The limits of an integer dtype: bits, max, min."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = str(dtype).rpartition(".")[2]
        if self.dtype not in ("uint8", "int8", "int16", "int32", "int64"):
            raise TypeError(f"iinfo: dtype must be an integer dtype, got {dtype}; finfo is for floats")
        self.bits = 8 * dtype.itemsize
        self.min = 0 if self.dtype == "uint8" else -(1 << (self.bits - 1))
        self.max = (1 << (self.bits - (self.dtype != "uint8"))) - 1

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


def is_tensor(obj: Any) -> bool:
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    return input.is_floating_point()


class inference_mode(no_grad):
    """`no_grad`, under the name of PyTorch's stricter mode; `inference_mode(False)` does nothing."""

    def __new__(cls, mode: Any = True) -> Any:
        self = super().__new__(cls, mode if callable(mode) else None)
        if mode is False:
            self.value = _engine.mode.grad
        return self


def compile(model: Any = None, **options: Any) -> Any:
    """The model itself: kernels are compiled with the wheel, so that nothing is left to do."""
    return model if model is not None else lambda function: function


def dtype_of(op: str, t: Any) -> Any:
    """The dtype meant by a dtype, a typed tensor such as tw.DoubleTensor, or its name."""
    if isinstance(t, _engine.dtype):
        return t
    name = t if isinstance(t, str) else getattr(t, "__name__", "")
    found = globals().get(name.rpartition(".")[2])
    if not isinstance(found, _TypeOf) or "cuda" in name:
        raise TypeError(f"{op}: must be a dtype or a type of CPU tensors such as tw.DoubleTensor, got {t!r}")
    return found.dtype


def set_default_tensor_type(t: Any) -> None:
    """Sets the default dtype from a typed tensor such as tw.DoubleTensor, or its name."""
    _engine.set_default_dtype(dtype_of("set_default_tensor_type", t))


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Results are deterministic always; False asks for nothing either."""


def are_deterministic_algorithms_enabled() -> bool:
    return True


def set_num_interop_threads(threads: int) -> None:
    """Ops run one after another here, each on all threads."""


autograd.Variable = Variable  # type: ignore[attr-defined]

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor",
    "IntTensor", "LongTensor", "ShortTensor", "Size", "are_deterministic_algorithms_enabled", "compile", "e", "finfo",
    "iinfo", "inf", "inference_mode", "is_floating_point", "is_tensor", "nan", "pi", "set_default_tensor_type",
    "set_num_interop_threads", "use_deterministic_algorithms",
]
