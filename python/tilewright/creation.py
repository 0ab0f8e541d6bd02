"""New tensors: from values, from other libraries' arrays, and filled."""

from __future__ import annotations

import functools
import math
import threading
from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.arguments import into
from tilewright.autograd import wrap

if TYPE_CHECKING:
    from tilewright.tensor import Tensor

device = _engine.device


def _shape(op: str, size) -> tuple:
    """The sizes of `f(2, 3)` or `f((2, 3))`."""
    if len(size) == 1 and isinstance(size[0], tuple | list):
        size = size[0]
    for n in size:  # the usual case, without the generators below
        if type(n) is not int or n < 0:
            break
    else:
        if math.prod(size) < 2**59:
            return tuple(size)
    for n in size:
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"{op}: sizes must be integers, got {size!r}")
    shape = tuple(n.__index__() for n in size)
    if any(n < 0 for n in shape):
        raise ValueError(f"{op}: sizes must not be negative, got {shape}")
    if math.prod(shape) >= 2**59:
        raise OverflowError(f"{op}: the number of elements overflows int64, got shape {shape}")
    return shape


_CPU = device("cpu")


# --- where and how ---------------------------------------------------------------------------------------------------
class _Place(threading.local):
    """The device of tensors that are given none: `set_default_device`, or `with device("cuda"):` in this thread."""

    device = _CPU

    def __init__(self) -> None:
        self.before: list = []


_place = _Place()


def _enter(self):
    _place.before.append(_place.device)
    _place.device = check_device("device", self)
    return self


def _exit(self, *exc) -> None:
    _place.device = _place.before.pop()


def _decorate(self, function):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with self:
            return function(*args, **kwargs)

    return wrapped


for _name, _method in {"__enter__": _enter, "__exit__": _exit, "__call__": _decorate,
                       "__reduce__": lambda self: (device, (str(self),))}.items():
    setattr(device, _name, _method)


def set_default_device(device: Any) -> None:
    """Where this thread makes tensors that are given no device; None is the CPU. `with tw.device("cuda"):` does so for
    a block.

    >>> import tilewright as tw
    >>> tw.set_default_device("cpu")
    >>> tw.get_default_device()
    device(type='cpu')
    """
    _place.device = _CPU if device is None else check_device("set_default_device", device)


def get_default_device() -> Any:
    """Where tensors are made that are given no device."""
    return _place.device


def check_device(op: str, where: Any) -> device:
    """The device meant by None (the default one), a name, a GPU's number or a device: RuntimeError for a GPU that is
    not there, ValueError for no device. "cuda" alone is the current GPU."""
    if where is None:
        return _place.device
    if isinstance(where, str) and where == "cuda" and _engine.cuda_available():
        where = _engine.cuda_current_device()
    d = where if isinstance(where, device) else device("cuda", where) if isinstance(where, int) else device(str(where))
    if d.index is not None and d.index >= _engine.cuda_device_count():
        why = _engine.cuda_why_not() or f"there are {_engine.cuda_device_count()}"
        raise RuntimeError(f"{op}: device {d} is not available: {why}; use device='cpu'")
    return d


class layout:
    """How elements are stored; `strided` is the only one here."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"tilewright.{self.name}"

    def __reduce__(self):
        return self.name


class memory_format(layout):
    """The order of dimensions in memory: rows last, as they are, or channels last."""


strided = layout("strided")
contiguous_format, preserve_format = memory_format("contiguous_format"), memory_format("preserve_format")
channels_last, channels_last_3d = memory_format("channels_last"), memory_format("channels_last_3d")


def _check_layout(op: str, layout) -> None:
    if layout not in (None, strided):
        raise NotImplementedError(f"{op}: layout must be tw.strided, got {layout!r}; sparse tensors are not offered")


def _dtype(op: str, dtype):
    if dtype is None:
        return _engine.get_default_dtype()
    if not isinstance(dtype, _engine.dtype):
        raise TypeError(f"{op}: dtype must be a tilewright dtype such as tw.float32, got {dtype!r}")
    return dtype


def _finish(op, t, out=None, layout=None, pin_memory=False, requires_grad=False, memory_format=None):
    """What all functions of this file take beside values, dtype and device."""
    if layout is not None:
        _check_layout(op, layout)
    if memory_format is not None:
        t = t.contiguous(memory_format=memory_format)
    if out is not None:
        t = into(op, t, out)
    if pin_memory:
        t = t.pin_memory()
    return t.requires_grad_() if requires_grad else t


def _new(op, array, device, requires_grad=False, out=None, layout=None, pin_memory=False):
    t = wrap(_engine.to_device(array, check_device(op, device)))
    if out is not None or layout is not None or pin_memory:
        return _finish(op, t, out, layout, pin_memory, requires_grad)
    return t.requires_grad_() if requires_grad else t


def _filled(op, value, args, size, out, dtype, layout, device, pin_memory, requires_grad):
    shape, where = _shape(op, args if size is None else (size,)), check_device(op, device)
    t = wrap(_engine.full(shape, value, out.dtype if out is not None and dtype is None else _dtype(op, dtype), where))
    if out is None and layout is None and not pin_memory:
        return t.requires_grad_() if requires_grad else t
    return _finish(op, t, out, layout, pin_memory, requires_grad)


# --- filled ----------------------------------------------------------------------------------------------------------
def empty(*args: Any, size: Any = None, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
          device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
          memory_format: Any = None) -> autograd.Tensor:
    """A tensor whose values are whatever was in memory, of shape `size`, given as one or as several numbers."""
    where = check_device("empty", device)
    t = wrap(_engine.empty(_shape("empty", args if size is None else (size,)), _dtype("empty", dtype), where))
    if memory_format is None or memory_format in (contiguous_format, preserve_format):
        return _finish("empty", t, out, layout, pin_memory, requires_grad)
    return _finish("empty", t, out, layout, pin_memory, requires_grad, memory_format)


def zeros(*args: Any, size: Any = None, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
          device: Any = None, pin_memory: bool = False, requires_grad: bool = False) -> autograd.Tensor:
    """A tensor of zeros, of shape `size`, given as one or as several numbers.

    >>> import tilewright as tw
    >>> tw.zeros(2, 2).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    return _filled("zeros", 0, args, size, out, dtype, layout, device, pin_memory, requires_grad)


def ones(*args: Any, size: Any = None, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
         device: Any = None, pin_memory: bool = False, requires_grad: bool = False) -> autograd.Tensor:
    """A tensor of ones, of shape `size`, given as one or as several numbers."""
    return _filled("ones", 1, args, size, out, dtype, layout, device, pin_memory, requires_grad)


def full(size: Any, fill_value: Any, *, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
         device: Any = None, pin_memory: bool = False, requires_grad: bool = False) -> autograd.Tensor:
    """A tensor of one value; the dtype follows the value's (bool, int64 or the default float) unless given."""
    if isinstance(fill_value, autograd.Tensor):
        dtype, fill_value = dtype or fill_value.dtype, fill_value.item()
    if dtype is None and out is None and isinstance(fill_value, bool | int):
        dtype = _engine.bool if isinstance(fill_value, bool) else _engine.int64
    return _filled("full", fill_value, (size,), None, out, dtype, layout, device, pin_memory, requires_grad)


def scalar_tensor(s: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
                  requires_grad: bool = False) -> autograd.Tensor:
    """A 0-d tensor of a number, in the default float dtype unless given another."""
    return _filled("scalar_tensor", s, (), (), None, dtype, layout, device, pin_memory, requires_grad)


def _like(op, make, input, dtype, layout, device, pin_memory, requires_grad, memory_format):
    t = make(dtype or input.dtype, device or input.device)
    if memory_format is None and layout is None and not pin_memory:
        return t.requires_grad_() if requires_grad else t
    return _finish(op, t, None, layout, pin_memory, requires_grad, memory_format)


def empty_like(input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
               requires_grad: bool = False, memory_format: Any = None) -> autograd.Tensor:
    """`empty` of the input's shape and dtype."""
    return _like("empty_like", lambda dtype, where: empty(input.shape, dtype=dtype, device=where), input, dtype, layout,
                 device, pin_memory, requires_grad, memory_format)


def zeros_like(input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
               requires_grad: bool = False, memory_format: Any = None) -> autograd.Tensor:
    """`zeros` of the input's shape and dtype."""
    return _like("zeros_like", lambda dtype, where: zeros(input.shape, dtype=dtype, device=where), input, dtype, layout,
                 device, pin_memory, requires_grad, memory_format)


def ones_like(input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
              requires_grad: bool = False, memory_format: Any = None) -> autograd.Tensor:
    """`ones` of the input's shape and dtype."""
    return _like("ones_like", lambda dtype, where: ones(input.shape, dtype=dtype, device=where), input, dtype, layout,
                 device, pin_memory, requires_grad, memory_format)


def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
              pin_memory: bool = False, requires_grad: bool = False, memory_format: Any = None) -> autograd.Tensor:
    """`full` of the input's shape and dtype."""
    return _like("full_like", lambda dtype, where: full(input.shape, fill_value, dtype=dtype, device=where), input,
                 dtype, layout, device, pin_memory, requires_grad, memory_format)


# --- sequences -------------------------------------------------------------------------------------------------------
def arange(start: Any = 0, end: Any = None, step: Any = 1, *, out: Tensor | None = None, dtype: Any = None,
           layout: Any = None, device: Any = None, pin_memory: bool = False,
           requires_grad: bool = False) -> autograd.Tensor:
    """start, start + step, ... below end; `arange(n)` counts from 0. Integers give int64.

    Raises:
        ValueError: step 0, or bounds in the wrong order.
    """
    if end is None:
        start, end = 0, start
    start, end, step = (v.item() if hasattr(v, "item") else v for v in (start, end, step))
    return _new("arange", _engine.arange(start, end, step, dtype), device, requires_grad, out, layout, pin_memory)


def range(start: Any = 0, end: Any = None, step: Any = 1, **options: Any) -> autograd.Tensor:
    """start, start + step, ... up to and with end, as floats; `arange`, which leaves end out, is today's name."""
    if end is None:
        start, end = 0, start
    options.setdefault("dtype", _engine.get_default_dtype())
    return arange(start, start + step * math.floor((end - start) / step + 1), step, **options)


def linspace(start: Any, end: Any, steps: int, *, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
             device: Any = None, pin_memory: bool = False, requires_grad: bool = False) -> autograd.Tensor:
    """`steps` evenly spaced values from start to end, both included."""
    start, end = (v.item() if hasattr(v, "item") else v for v in (start, end))
    return _new("linspace", _engine.linspace(start, end, steps, _dtype("linspace", dtype)), device, requires_grad,
                out, layout, pin_memory)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, **options: Any) -> autograd.Tensor:
    """base to the power of `steps` evenly spaced exponents from start to end."""
    dtype = _dtype("logspace", options.pop("dtype", None))
    exponents = linspace(start, end, steps, dtype=_engine.float64)
    if not dtype.is_floating_point:  # as in PyTorch
        start, end = (int(v) for v in (start, end))
        exponents = linspace(start, end, steps, dtype=_engine.float64)
    return _new("logspace", _engine.cast((base**exponents).array, dtype), options.pop("device", None), **options)


def eye(n: int, m: int | None = None, *, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
        device: Any = None, pin_memory: bool = False, requires_grad: bool = False) -> autograd.Tensor:
    """The (n, m) identity matrix, m = n by default."""
    m = n if m is None else m
    t = zeros(n, m, dtype=dtype, device=device)
    if n and m:
        wrap(_engine.as_strided(t.array, (min(n, m),), (m + 1,), 0)).fill_(1)
    return _finish("eye", t, out, layout, pin_memory, requires_grad)


# --- from other memory -----------------------------------------------------------------------------------------------
def from_numpy(ndarray: Any) -> autograd.Tensor:
    """A tensor over a NumPy array's own memory: changes of one show in the other. The array is kept alive.

    Raises:
        TypeError: not an array, or a dtype that tilewright lacks.
        ValueError: negative or fractional strides.
    """
    if not hasattr(ndarray, "__array_interface__"):
        raise TypeError(f"from_numpy: expects a NumPy array, got {type(ndarray).__name__}")
    return wrap(_engine.from_buffer(ndarray))


def from_dlpack(ext_tensor: Any) -> autograd.Tensor:
    """A tensor over the memory of any array with `__dlpack__` (PyTorch, JAX, NumPy, CuPy), without a copy.

    On a GPU, the current stream waits for what the producer's has been given.

    Raises:
        TypeError: no DLPack, or a dtype that tilewright lacks. RuntimeError: neither on the CPU nor on a CUDA device.
    """
    if not hasattr(ext_tensor, "__dlpack__"):
        if type(ext_tensor).__name__ == "PyCapsule":
            return wrap(_engine.from_dlpack(ext_tensor))
        raise TypeError(f"from_dlpack: expects an array with __dlpack__, got {type(ext_tensor).__name__}")
    kind, index = ext_tensor.__dlpack_device__()
    stream = {}
    if kind == 2:
        from tilewright import cuda

        stream["stream"] = cuda.current_stream(index).cuda_stream or 1  # 1: the default stream, in DLPack's numbers
    try:
        capsule = ext_tensor.__dlpack__(max_version=(1, 1), **stream)
    except TypeError:  # a producer from before DLPack 1.0
        capsule = ext_tensor.__dlpack__(**stream)
    return wrap(_engine.from_dlpack(capsule))


def _from_values(op: str, data, dtype, copy: bool):
    if isinstance(data, autograd.Tensor):
        a: Any = data.array if dtype is None else _engine.cast(data.array, dtype)
        return _engine.clone(a) if copy and a is data.array else a
    if type(data) in (bool, int, float):  # NumPy's float64 is a float too, of its own dtype
        kind = _engine.bool if isinstance(data, bool) else _engine.int64 if isinstance(data, int) else None
        return _engine.full((), data, dtype or kind or _engine.get_default_dtype())
    import numpy

    if isinstance(data, list | tuple) and data and _has_tensor(data):
        data = _values_of(data)
    is_array = isinstance(data, numpy.ndarray | numpy.generic)
    try:
        a = numpy.asarray(data)
    except ValueError:
        raise ValueError(f"{op}: nested sequences must have one length at each depth") from None
    if a.dtype == object or a.dtype.kind not in "biufe":
        raise TypeError(f"{op}: values must be numbers or bools, got {type(data).__name__} of {a.dtype}")
    if not is_array and not hasattr(data, "__array_interface__") and a.dtype == numpy.float64:
        dtype = dtype or _engine.get_default_dtype()
    if a.dtype.byteorder == ">":
        a = a.astype(a.dtype.newbyteorder("="))
    fresh = a is not data and not is_array
    if not all(s >= 0 and s % a.itemsize == 0 for s in a.strides) or not a.flags.aligned:
        a, fresh = a.copy(), True
    array = _engine.from_buffer(a)
    if dtype is not None and array.dtype is not dtype:
        return _engine.cast(array, dtype)
    return _engine.clone(array) if copy or fresh else array


def _has_tensor(data) -> bool:
    return any(isinstance(v, autograd.Tensor) or (isinstance(v, list | tuple) and _has_tensor(v)) for v in data)


def _values_of(data):
    return [v.tolist() if isinstance(v, autograd.Tensor) else _values_of(v) if isinstance(v, list | tuple) else v
            for v in data]


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
           pin_memory: bool = False) -> autograd.Tensor:
    """A tensor with a copy of the data: a number, nested sequences of one length a depth, a NumPy array or a Tensor.

    Python floats give the default dtype (float32), ints int64, bools bool; arrays keep theirs.

    Raises:
        ValueError: ragged sequences. TypeError: values that are not numbers.

    >>> import tilewright as tw
    >>> tw.tensor([[1, 2], [3, 4]]).dtype
    tilewright.int64
    """
    if dtype is not None:
        _dtype("tensor", dtype)
    if device is None and isinstance(data, autograd.Tensor):
        device = data.device
    t = _new("tensor", _from_values("tensor", data, dtype, True), device, requires_grad)
    return t.pin_memory() if pin_memory else t


def as_tensor(data: Any, *, dtype: Any = None, device: Any = None) -> autograd.Tensor:
    """As `tensor`, but shares a NumPy array's memory, and returns a Tensor as it is, where dtype and layout allow."""
    if isinstance(data, autograd.Tensor):
        return data.to(device=device or data.device, dtype=dtype)
    return _new("as_tensor", _from_values("as_tensor", data, dtype, False), device, False)


def asarray(obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None,
            requires_grad: bool = False) -> autograd.Tensor:
    """As `as_tensor`; always a copy if `copy` is True, and never if it is False.

    Raises:
        ValueError: copy=False where dtype, device or layout need one.
    """
    t = as_tensor(obj, dtype=dtype, device=device)
    had = obj if isinstance(obj, autograd.Tensor) else None
    shared = had is not None and t.array is had.array
    if not shared and had is None and hasattr(obj, "__array_interface__"):
        shared = t.array.data_ptr == obj.__array_interface__["data"][0]
    if copy is False and not shared:
        raise ValueError(f"asarray: copy=False, but {type(obj).__name__} needs a copy to become {t.dtype.name}")
    t = wrap(_engine.clone(t.array)) if copy and shared else t
    return t.requires_grad_() if requires_grad else t


def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0,
               requires_grad: bool = False) -> autograd.Tensor:
    """A 1-d tensor over the memory of a bytes-like object, from byte `offset` on, without a copy."""
    if dtype is _engine.bfloat16:
        return wrap(_engine.bitcast(frombuffer(buffer, dtype=_engine.int16, count=count, offset=offset).array, dtype))
    import numpy

    t = wrap(_engine.from_buffer(numpy.frombuffer(buffer, dtype.name, count, offset)))
    return t.requires_grad_() if requires_grad else t
