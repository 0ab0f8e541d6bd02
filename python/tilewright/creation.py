"""New tensors: from values, from other libraries' arrays, and filled."""

from __future__ import annotations

import math
from typing import Any

from tilewright import _engine, autograd
from tilewright.autograd import wrap

device = _engine.device


def _shape(op: str, size) -> tuple:
    """The sizes of `f(2, 3)` or `f((2, 3))`."""
    if len(size) == 1 and isinstance(size[0], tuple | list):
        size = size[0]
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


def check_device(op: str, where) -> device:
    """The device meant by None (the CPU), a name, a GPU's number or a device: RuntimeError for a GPU that is not there,
    ValueError for no device. "cuda" alone is the current GPU."""
    if where is None:
        return _CPU
    if isinstance(where, str) and where == "cuda" and _engine.cuda_available():
        where = _engine.cuda_current_device()
    d = where if isinstance(where, device) else device("cuda", where) if isinstance(where, int) else device(str(where))
    if d.index is not None and d.index >= _engine.cuda_device_count():
        why = _engine.cuda_why_not() or f"there are {_engine.cuda_device_count()}"
        raise RuntimeError(f"{op}: device {d} is not available: {why}; use device='cpu'")
    return d


def _dtype(op: str, dtype):
    if dtype is None:
        return _engine.get_default_dtype()
    if not isinstance(dtype, _engine.dtype):
        raise TypeError(f"{op}: dtype must be a tilewright dtype such as tw.float32, got {dtype!r}")
    return dtype


def _new(op, array, device, requires_grad):
    t = wrap(_engine.to_device(array, check_device(op, device)))
    return t.requires_grad_() if requires_grad else t


def empty(*size, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
    """A tensor whose values are whatever was in memory. Shape `size`, default dtype float32."""
    where = check_device("empty", device)
    return _new("empty", _engine.empty(_shape("empty", size), _dtype("empty", dtype), where), where, requires_grad)


def zeros(*size, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
    """A tensor of zeros.

    >>> import tilewright as tw
    >>> tw.zeros(2, 2).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    where = check_device("zeros", device)
    return _new("zeros", _engine.full(_shape("zeros", size), 0, _dtype("zeros", dtype), where), where, requires_grad)


def ones(*size, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
    """A tensor of ones."""
    where = check_device("ones", device)
    return _new("ones", _engine.full(_shape("ones", size), 1, _dtype("ones", dtype), where), where, requires_grad)


def full(size, fill_value, *, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
    """A tensor of one value; the dtype follows the value's (bool, int64 or the default float) unless given."""
    where = check_device("full", device)
    if dtype is None and isinstance(fill_value, bool):
        dtype = _engine.bool
    elif dtype is None and isinstance(fill_value, int):
        dtype = _engine.int64
    value = fill_value.item() if isinstance(fill_value, autograd.Tensor) else fill_value
    return _new("full", _engine.full(_shape("full", (size,)), value, _dtype("full", dtype), where), where,
                requires_grad)


def empty_like(input, *, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
    """`empty` of the input's shape and dtype."""
    return empty(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def zeros_like(input, *, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
    """`zeros` of the input's shape and dtype."""
    return zeros(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def ones_like(input, *, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
    """`ones` of the input's shape and dtype."""
    return ones(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def full_like(input, fill_value, *, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
    """`full` of the input's shape and dtype."""
    return full(input.shape, fill_value, dtype=dtype or input.dtype, device=device or input.device,
                requires_grad=requires_grad)


def arange(start, end=None, step=1, *, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
    """start, start + step, ... below end; `arange(n)` counts from 0. Integers give int64.

    Raises:
        ValueError: step 0, or bounds in the wrong order.
    """
    if end is None:
        start, end = 0, start
    start, end, step = (v.item() if isinstance(v, autograd.Tensor) else v for v in (start, end, step))
    return _new("arange", _engine.arange(start, end, step, dtype), device, requires_grad)


def linspace(start: float, end: float, steps: int, *, dtype=None, device=None,
             requires_grad: bool = False) -> autograd.Tensor:
    """`steps` evenly spaced values from start to end, both included."""
    return _new("linspace", _engine.linspace(start, end, steps, _dtype("linspace", dtype)), device, requires_grad)


def eye(n: int, m: int | None = None, *, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
    """The (n, m) identity matrix, m = n by default."""
    m = n if m is None else m
    t = zeros(n, m, dtype=dtype, device=device)
    if n and m:
        wrap(_engine.as_strided(t.array, (min(n, m),), (m + 1,), 0)).fill_(1)
    return t.requires_grad_() if requires_grad else t


def from_numpy(ndarray) -> autograd.Tensor:
    """A tensor over a NumPy array's own memory: changes of one show in the other. The array is kept alive.

    Raises:
        TypeError: not an array, or a dtype that tilewright lacks.
        ValueError: negative or fractional strides.
    """
    if not hasattr(ndarray, "__array_interface__"):
        raise TypeError(f"from_numpy: expects a NumPy array, got {type(ndarray).__name__}")
    return wrap(_engine.from_buffer(ndarray))


def from_dlpack(ext_tensor) -> autograd.Tensor:
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
        a = data.array if dtype is None else _engine.cast(data.array, dtype)
        return _engine.clone(a) if copy and a is data.array else a
    if isinstance(data, bool | int | float):
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


def tensor(data: Any, *, dtype=None, device=None, requires_grad: bool = False) -> autograd.Tensor:
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
    return _new("tensor", _from_values("tensor", data, dtype, True), device, requires_grad)


def as_tensor(data: Any, *, dtype=None, device=None) -> autograd.Tensor:
    """As `tensor`, but shares a NumPy array's memory, and returns a Tensor as it is, where dtype and layout allow."""
    if isinstance(data, autograd.Tensor):
        return data.to(device=device or data.device, dtype=dtype)
    return _new("as_tensor", _from_values("as_tensor", data, dtype, False), device, False)


asarray = as_tensor
