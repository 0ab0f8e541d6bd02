"""Names that PyTorch scripts still use: typed tensors, Variable, Size, finfo, and switches that do nothing here."""

from __future__ import annotations

import math
from typing import Any

from tilewright import _engine, autograd, creation
from tilewright.grad_mode import no_grad
from tilewright.tensor import Tensor

Size = _engine.Size
pi, e, inf, nan = math.pi, math.e, math.inf, math.nan


class _TypeOf(type):
    """isinstance(x, FloatTensor) asks for the dtype."""

    dtype: Any
    kind = "cpu"

    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(x, Tensor) and x.dtype == cls.dtype and x.device.type == cls.kind

    def __call__(cls, *data: Any) -> Any:
        if len(data) == 1 and isinstance(data[0], Tensor | Storage):
            return (data[0].flat if isinstance(data[0], Storage) else data[0]).to(cls.kind, cls.dtype)
        if len(data) == 1 and (getattr(data[0], "ndim", None) or not hasattr(data[0], "__index__")):
            return creation.tensor(data[0], dtype=cls.dtype, device=cls.kind)
        return creation.empty(*(data or (0,)), dtype=cls.dtype, device=cls.kind)


_NAMES = {"Float": _engine.float32, "Double": _engine.float64, "Half": _engine.float16, "BFloat16": _engine.bfloat16,
          "Byte": _engine.uint8, "Char": _engine.int8, "Short": _engine.int16, "Int": _engine.int32,
          "Long": _engine.int64, "Bool": _engine.bool}


def typed(name: str, kind: str = "cpu") -> _TypeOf:
    """The class FloatTensor, LongTensor, ... of a device."""
    made = _TypeOf(name, (), {"__doc__": f"`{name}(2, 3)` is uninitialised {_NAMES[name[:-6]]} of that shape on "
                                         f"{kind}, `{name}(values)` a tensor of the values."})
    made.dtype, made.kind = _NAMES[name[:-6]], kind
    return made


FloatTensor, DoubleTensor, HalfTensor, BFloat16Tensor, ByteTensor, CharTensor, ShortTensor, IntTensor, LongTensor, \
    BoolTensor = (typed(name + "Tensor") for name in _NAMES)


def type_name(t: Tensor) -> str:
    """What `Tensor.type()` says, and scripts compare with: "torch.FloatTensor", "torch.cuda.LongTensor"."""
    name = next(name for name, dtype in _NAMES.items() if dtype is t.dtype)
    return f"torch.{'cuda.' if t.is_cuda else ''}{name}Tensor"


def dtype_and_device(op: str, of: Any) -> tuple:
    """The dtype, and the device if it says one, of a dtype, a typed tensor class or the name of either."""
    if isinstance(of, str):
        path = of.split(".")
        name = path[-1].removesuffix("Tensor")
        if name in _NAMES and path[-1].endswith("Tensor"):
            return _NAMES[name], "cuda" if "cuda" in path else "cpu"
        of = getattr(_engine, path[-1], of)
    if isinstance(of, _TypeOf):
        return of.dtype, of.kind
    if of is Tensor:
        return (_engine.float32,)
    if not isinstance(of, _engine.dtype):
        raise TypeError(f"{op}: must be a dtype, a typed tensor such as tw.FloatTensor or its name, got {of!r}")
    return (of,)


class Storage:
    """The memory under a tensor, as a flat sequence of one dtype: what `Tensor.storage()` gives.

    >>> import tilewright as tw
    >>> s = tw.ones(2, 2)[1].storage()
    >>> len(s), s[0], s.nbytes()
    (4, 1.0, 16)
    """

    _dtype: Any = _engine.float32

    def __init__(self, data: Any = 0, flat: Tensor | None = None) -> None:
        if flat is None:
            flat = creation.empty(data, dtype=self._dtype) if isinstance(data, int) else creation.tensor(
                data, dtype=self._dtype)
        self.flat = flat

    @classmethod
    def from_buffer(cls, buffer: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> Storage:
        """A copy of a bytes-like object's memory."""
        return cls(flat=creation.frombuffer(bytearray(buffer), dtype=dtype or cls._dtype))

    def __len__(self) -> int:
        return self.flat.numel()

    size = __len__

    def __getitem__(self, i: Any) -> Any:
        return self.flat[i].item() if isinstance(i, int) else type(self)(flat=self.flat[i])

    def __setitem__(self, i: Any, value: Any) -> None:
        self.flat[i] = value

    def __iter__(self) -> Any:
        return iter(self.flat.tolist())

    def tolist(self) -> list:
        return self.flat.tolist()

    def nbytes(self) -> int:
        return self.flat.nbytes

    def element_size(self) -> int:
        return self.flat.element_size()

    def data_ptr(self) -> int:
        return self.flat.data_ptr()

    @property
    def dtype(self) -> Any:
        return self.flat.dtype

    @property
    def device(self) -> Any:
        return self.flat.device

    def clone(self) -> Storage:
        return type(self)(flat=self.flat.clone())

    def fill_(self, value: Any) -> Storage:
        self.flat.fill_(value)
        return self

    def copy_(self, source: Storage) -> Storage:
        self.flat.copy_(source.flat)
        return self

    def __repr__(self) -> str:
        values = "".join(f" {v}\n" for v in self.tolist()[:1000])
        return f"{values}[{type(self).__name__} of {self.dtype.name}, size {len(self)}]"


def _storage(name: str, dtype: Any) -> Any:
    return type(f"{name}Storage", (Storage,), {"_dtype": dtype, "__doc__": f"`Storage` of {dtype.name}."})


FloatStorage, DoubleStorage, HalfStorage, BFloat16Storage, ByteStorage, CharStorage, ShortStorage, IntStorage, \
    LongStorage, BoolStorage = (_storage(name, dtype) for name, dtype in _NAMES.items())


def storage_of(t: Tensor) -> Storage:
    """The memory that t and the tensor it is a view of reach."""
    a = t.array if t._base is None else t._base.array
    reach = a.offset + sum((n - 1) * s for n, s in zip(a.shape, a.strides, strict=True)) + 1 if a.numel else 0
    flat = autograd.wrap(_engine.as_strided(_engine.untracked(a), (reach,), (1,), 0))
    kind = next(name for name, dtype in _NAMES.items() if dtype is t.dtype)
    return globals()[f"{kind}Storage"](flat=flat if a.dtype is t.dtype else flat.view(t.dtype))


def Variable(data: Any, requires_grad: bool = False, volatile: bool | None = None) -> Tensor:
    """A tensor that shares memory with `data`: every Tensor has been a Variable since PyTorch 0.4.

    Raises:
        ValueError: volatile=True: `with no_grad():` says that now.
    """
    if volatile:
        raise ValueError("Variable: volatile=True is gone; run the code under `with tw.no_grad():`")
    made = data.detach() if isinstance(data, Tensor) else creation.as_tensor(data)
    return made.requires_grad_() if requires_grad else made


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
    """Whether it is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a float."""
    return input.is_floating_point()


def is_complex(input: Tensor) -> bool:
    """False: tensors are real."""
    return False


def real(input: Tensor) -> Tensor:
    """The tensor itself: it is real."""
    return input


conj = resolve_conj = real


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


def set_default_tensor_type(t: Any) -> None:
    """Sets the default dtype and device from a typed tensor such as tw.DoubleTensor or tw.cuda.FloatTensor, or its
    name."""
    dtype, *where = dtype_and_device("set_default_tensor_type", t)
    if not where or not dtype.is_floating_point:
        raise TypeError(f"set_default_tensor_type: must be a type of tensors such as tw.DoubleTensor, got {t!r}")
    creation.set_default_device(where[0])
    _engine.set_default_dtype(dtype)


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Results are deterministic always; False asks for nothing either."""


def are_deterministic_algorithms_enabled() -> bool:
    """True: results are deterministic always."""
    return True


def set_num_interop_threads(threads: int) -> None:
    """Ops run one after another here, each on all threads."""


autograd.Variable = Variable  # type: ignore[attr-defined]

__all__ = [
    "BFloat16Storage", "BFloat16Tensor", "BoolStorage", "BoolTensor", "ByteStorage", "ByteTensor", "CharStorage",
    "CharTensor", "DoubleStorage", "DoubleTensor", "FloatStorage", "FloatTensor", "HalfStorage", "HalfTensor",
    "IntStorage", "IntTensor", "LongStorage", "LongTensor", "ShortStorage", "ShortTensor", "Size",
    "are_deterministic_algorithms_enabled", "compile", "conj", "e", "finfo", "iinfo", "inf", "inference_mode",
    "is_complex", "is_floating_point", "is_tensor", "nan", "pi", "real", "resolve_conj", "set_default_tensor_type",
    "set_num_interop_threads", "use_deterministic_algorithms",
]
