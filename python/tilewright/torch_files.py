"""Reads the files of PyTorch's `torch.save`, zip (since 1.6) and older, without its pickle machinery: no code can run.

A file is a pickle whose tensors are calls of `_rebuild_tensor_v2(storage, offset, size, stride, ...)`, with the bytes
of each storage in an entry of its own. Here a small interpreter walks over the opcodes that `pickletools` parses. Names
in the file stand for entries of one table of harmless makers (`_NAMES`); any other name, and any opcode that could
reach more, is refused with the file's name. Format: PyTorch, torch/serialization.py; opcodes: Python, pickletools.
"""

from __future__ import annotations

import io
import mmap as _mmap
import pickletools
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

import tilewright as tw
from tilewright import _engine
from tilewright.autograd import wrap
from tilewright.tensor import Tensor
from tilewright.utils.raw import from_bytes

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # how a file of before 1.6 begins

_STORAGES = {"Bool": "bool", "Byte": "uint8", "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64",
             "Half": "float16", "BFloat16": "bfloat16", "Float": "float32", "Double": "float64"}
_LACKING = ("complex32", "complex64", "complex128", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2",
            "float8_e4m3fnuz", "float8_e5m2fnuz")


class Refused(ValueError):
    """What is wrong with the file, without its name."""


class _Kind:
    """A storage's class in the pickle: the dtype that its tensors have, None where they say it themselves."""

    def __init__(self, dtype: str | None) -> None:
        self.dtype = dtype


def _strided(storage: Any, dtype: str | None, offset: Any, size: Any, stride: Any) -> Tensor:
    """A tensor over a storage, within its bounds."""
    if not isinstance(storage, _Storage):
        raise Refused("a tensor's storage must be one of the file's")
    flat = storage.typed(dtype)
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 2**59 for n in numbers):
        raise Refused(f"a tensor's offset, size and stride must be counts, got {offset}, {size} and {stride}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= flat.numel():
        raise Refused(f"a tensor must lie in its storage of {flat.numel()} elements, got offset {offset}, size "
                      f"{tuple(size)} and stride {tuple(stride)}")
    if 0 in size:
        return flat.new_empty(tuple(size))
    return wrap(_engine.as_strided(flat.array, tuple(size), tuple(stride), offset))


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
    t = _strided(storage, None, offset, size, stride)
    return t.requires_grad_() if requires_grad is True else t


def _tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None):
    t = _strided(storage, str(dtype).rpartition(".")[2], offset, size, stride)
    return t.requires_grad_() if requires_grad is True else t


def _parameter(data, requires_grad=True, hooks=None, state=None):
    from tilewright.nn import Parameter

    if not isinstance(data, Tensor):
        raise Refused("a Parameter's data must be a tensor")
    return _attributes(Parameter(data.detach(), bool(requires_grad)), state)


def _attributes(t, state):
    """A user's own attributes of a tensor."""
    if isinstance(state, dict):
        t.__dict__.update({k: v for k, v in state.items() if isinstance(k, str) and not hasattr(Tensor, k)})
    return t


def _from_type(function, kind, args, state):
    if function not in (_tensor, _tensor_v3, _parameter):
        raise Refused("a tensor must be made by one of PyTorch's _rebuild functions")
    return _attributes(function(*args), state)


def _encode(text, encoding="latin1"):
    return text.encode("utf-8" if encoding == "utf-8" else "latin1")


def _bytearray(value=b"", encoding="latin1"):
    if type(value) not in (bytes, str):
        raise Refused(f"a bytearray must be made of bytes, got {type(value).__name__}")
    return bytearray(value if type(value) is bytes else _encode(value, encoding))


def _numpy_dtype(name, *flags):
    dtype = np.dtype(name if isinstance(name, str) and len(name) <= 4 else "O")
    if dtype.kind not in "biuf":
        raise Refused(f"NumPy values must be numbers or bools, got dtype {name!r}")
    return dtype


def _numpy_scalar(dtype, data):
    return np.frombuffer(data, np.dtype(dtype))[0].item()


def _numpy_array(kind, shape, code):
    return np.empty(0)


def _size(sizes=()):
    return tw.Size(tuple(sizes))


_FACTORIES = (list, dict, int, float, str, bool, tuple)  # a defaultdict's; not called here
_BUILTINS: dict[str, Any] = {"set": set, "frozenset": frozenset, "bytearray": _bytearray,
                             **{f.__name__: f for f in _FACTORIES}}
_NAMES: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict, "collections.Counter": Counter, "collections.defaultdict": defaultdict,
    "_codecs.encode": _encode, "torch.Size": _size, "torch.device": tw.device, "torch.Tensor": Tensor,
    "torch._utils._rebuild_tensor": _tensor, "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3, "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter, "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.nn.parameter.Parameter": _parameter, "torch.storage.UntypedStorage": _Kind(None),
    "torch.storage._UntypedStorage": _Kind(None), "numpy.dtype": _numpy_dtype, "numpy.ndarray": np.ndarray,
    **{f"{m}.{n}": v for n, v in _BUILTINS.items() for m in ("builtins", "__builtin__")},
    **{f"torch.{d}": getattr(tw, d) for d in _STORAGES.values()},
    **{f"{m}.{n}Storage": _Kind(d) for n, d in _STORAGES.items() for m in ("torch", "torch.cuda")},
    **{f"numpy.{m}.multiarray.{n}": v for m in ("core", "_core")
       for n, v in (("scalar", _numpy_scalar), ("_reconstruct", _numpy_array))},
}
_CALLABLE = [v for v in _NAMES.values() if callable(v) and v not in (Tensor, np.ndarray, *_FACTORIES)]


def _name(module: str, name: str) -> Any:
    full = f"{module}.{name}"
    if full in _NAMES:
        return _NAMES[full]
    if full.startswith("torch.") and (full[6:] in _LACKING or name.startswith("Complex")):
        raise Refused(f"dtypes must be {', '.join(_STORAGES.values())}, got {full}")
    raise Refused(f"it names {full}, which is no part of weights and is never run; save a state_dict() of tensors, "
                  "numbers, strings and containers instead")


def _build(obj: Any, state: Any) -> None:
    """BUILD, for the three kinds of object that may have state."""
    if type(obj) is OrderedDict and isinstance(state, dict) and set(state) <= {"_metadata"}:
        obj.__dict__.update(state)  # versions of a state_dict's modules
    elif isinstance(obj, np.ndarray) and type(state) is tuple and len(state) == 5 and type(state[4]) in (bytes, str):
        version, shape, dtype, fortran, data = state
        if not isinstance(dtype, np.dtype):
            raise Refused("an array's dtype must be one")
        obj.__setstate__((version, shape, dtype, fortran, data if type(data) is bytes else _encode(data)))
    elif not isinstance(obj, np.dtype) or state[1] == ">":
        raise Refused(f"a {type(obj).__name__} cannot have the state {str(state)[:40]}")


def _call(function: Any, args: Any) -> Any:
    if not any(function is known for known in _CALLABLE) or type(args) is not tuple:
        raise Refused(f"only a known name can be called, got {type(function).__name__}")
    return function(*args)


_PUSH = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
         "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
         "BINUNICODE8", "FLOAT", "BINFLOAT"}
_MAKE: dict[str, Callable[[], Any]] = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
                                       "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_OF_MARKED: dict[str, Callable[[list], Any]] = {"LIST": list, "TUPLE": tuple, "FROZENSET": frozenset,
                                                "DICT": lambda v: dict(zip(v[::2], v[1::2], strict=True))}


def unpickle(file: Any, persistent: Callable[[Any], Any]) -> Any:
    """The object that a pickle stands for, of the table's kinds alone. `persistent` answers for storages."""
    stack: list[Any] = []
    outer: list[list] = []  # the stacks below each mark
    memo: dict[int, Any] = {}

    def marked() -> list:
        nonlocal stack
        values, stack = stack, outer.pop()
        return values

    for opcode, value, _ in pickletools.genops(file):
        op: str = opcode.name
        arg: Any = value
        if op in _PUSH:
            stack.append(arg)
        elif op in _MAKE:
            stack.append(_MAKE[op]())
        elif op in _OF_MARKED:
            values = marked()
            stack.append(_OF_MARKED[op](values))
        elif op in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if op == "MEMOIZE" else arg] = stack[-1]
        elif op in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[arg])
        elif op in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(op[-1])
            stack[-n:] = [tuple(stack[-n:])]
        elif op == "MARK":
            outer.append(stack)
            stack = []
        elif op in ("APPEND", "APPENDS", "ADDITEMS"):
            values = [stack.pop()] if op == "APPEND" else marked()
            if type(stack[-1]) not in (list, set):
                raise Refused(f"{op} must go to a list or set, got {type(stack[-1]).__name__}")
            (stack[-1].update if type(stack[-1]) is set else stack[-1].extend)(values)
        elif op in ("SETITEM", "SETITEMS"):
            values = [stack.pop(-2), stack.pop()] if op == "SETITEM" else marked()
            if not isinstance(stack[-1], dict):
                raise Refused(f"{op} must go to a dict, got {type(stack[-1]).__name__}")
            stack[-1].update(zip(values[::2], values[1::2], strict=True))
        elif op == "GLOBAL":
            stack.append(_name(*arg.split(" ", 1)))
        elif op == "STACK_GLOBAL":
            name = stack.pop()
            stack.append(_name(str(stack.pop()), str(name)))
        elif op in ("REDUCE", "NEWOBJ"):
            args = stack.pop()
            stack.append(_call(stack.pop(), args))
        elif op == "BUILD":
            state = stack.pop()
            _build(stack[-1], state)
        elif op == "BINPERSID":
            stack.append(persistent(stack.pop()))
        elif op == "POP":
            stack.pop()
        elif op == "POP_MARK":
            marked()
        elif op == "DUP":
            stack.append(stack[-1])
        elif op == "STOP":
            if len(stack) != 1:
                raise Refused(f"a pickle must end with one value, got {len(stack)}")
            return stack[0]
        elif op not in ("PROTO", "FRAME"):
            raise Refused(f"the pickle opcode {op} is no part of weights")


class _Storage:
    """Bytes of the file and the dtype, if any, that their storage's class says."""

    def __init__(self, data: Any, dtype: str | None, place: Callable[[Tensor], Tensor]) -> None:
        self.data, self.dtype, self._place = data, dtype, place
        self._made: dict[str, Tensor] = {}

    def typed(self, dtype: str | None) -> Tensor:
        """All of it as one row, which its tensors share."""
        dtype = dtype or self.dtype or "uint8"
        if dtype not in self._made:
            size = getattr(tw, dtype).itemsize
            if len(self.data) % size:
                raise Refused(f"a storage of {dtype} must have a multiple of {size} bytes, got {len(self.data)}")
            if dtype == "bool" and bytes(self.data).translate(None, b"\0\1"):
                raise Refused("a bool storage must hold bytes 0 and 1, got others")
            data = self.data
            if len(data) and np.frombuffer(data, np.uint8).ctypes.data % size:  # of a mapped file
                data = bytearray(data)
            self._made[dtype] = self._place(from_bytes(data, dtype, (len(data) // size,)))
        return self._made[dtype]


def _storage_id(pid: Any) -> tuple[_Kind, str, str, int, Any]:
    """(class, key, location, number of elements, view) of a persistent id."""
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage" or not isinstance(pid[1], _Kind):
        what = pid[0] if type(pid) is tuple and pid else type(pid).__name__
        raise Refused(f"a persistent id must be a storage's, got {what!r}; of a whole module, save the state_dict()")
    _, kind, key, location, numel, *view = pid
    if type(numel) is not int or numel < 0 or not isinstance(location, str):
        raise Refused(f"a storage must have a count and a location, got {numel!r} and {location!r}")
    return kind, str(key), location, numel, view[0] if view else None


def _itemsize(kind: _Kind) -> int:
    return getattr(tw, kind.dtype).itemsize if kind.dtype else 1


def read_zip(data: Any, name: str, place: Callable[[Tensor, str], Tensor]) -> Any:
    """The object of a zip file. Entries are stored, not compressed, and read only when a tensor asks for them."""
    mapped, size = isinstance(data, _mmap.mmap), len(data)
    archive = zipfile.ZipFile(name if mapped else io.BytesIO(data))
    pickles = [n for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1]
    if len(pickles) != 1:
        raise Refused(f"a zip file must be torch.save's, with one data.pkl, got {archive.namelist()[:4]}")
    root = pickles[0][: -len("data.pkl")]
    if f"{root}constants.pkl" in archive.namelist():
        raise Refused("a TorchScript archive is not read; save a state_dict() with torch.save")
    storages: dict[str, _Storage] = {}
    total = 0

    def entry(part: str) -> Any:
        nonlocal total
        info = archive.getinfo(part)
        total += info.file_size
        plain = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
        if not plain or info.flag_bits & 1 or total > size:  # bit 0: encrypted
            raise Refused(f"entries must be stored as they are, each once, got {part} of {info.file_size} bytes")
        if not mapped or part == pickles[0]:
            return bytearray(archive.read(info))
        head = data[info.header_offset:info.header_offset + 30]
        start = info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        if start + info.file_size > size:
            raise Refused(f"{part} must lie in the file, got bytes {start} to {start + info.file_size} of {size}")
        return memoryview(data)[start:start + info.file_size]

    def storage(pid: Any) -> _Storage:
        kind, key, location, numel, _ = _storage_id(pid)
        if key not in storages:
            block = entry(f"{root}data/{key}")
            if len(block) != numel * _itemsize(kind):
                raise Refused(f"storage {key} must have {numel * _itemsize(kind)} bytes, got {len(block)}")
            storages[key] = _Storage(block, kind.dtype, lambda t: place(t, location))
        elif storages[key].dtype != kind.dtype:
            raise Refused(f"storage {key} must have one dtype, got {storages[key].dtype} and {kind.dtype}")
        return storages[key]

    with archive:
        if f"{root}byteorder" in archive.namelist() and bytes(entry(f"{root}byteorder")) != b"little":
            raise Refused("its byte order must be little-endian")
        return unpickle(io.BytesIO(entry(pickles[0])), storage)


def read_legacy(data: bytes, place: Callable[[Tensor, str], Tensor]) -> Any:
    """The object of a file of before 1.6: pickles of magic number, version, machine, object and keys, then storages.

    The bytes lie behind the object, so it is read twice: once for the storages' sizes, then with their bytes.
    """
    file = io.BytesIO(data)
    _, version, machine = (unpickle(file, _storage_id) for _ in range(3))
    if version != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused(f"it must be of protocol 1001 and little-endian, got {version!r} and {machine!r}")
    start = file.tell()
    blocks: dict[str, Any] = {}

    def storage(pid: Any, known: bool) -> _Storage:
        kind, key, location, numel, view = _storage_id(pid)
        item = _itemsize(kind)
        if not known and sum(map(len, blocks.values())) + (0 if key in blocks else numel * item) > len(data):
            raise Refused(f"its storages must fit into {len(data)} bytes, got one of {numel} elements")
        block = memoryview(blocks.setdefault(key, bytearray(numel * item)))
        if len(block) != numel * item:
            raise Refused(f"storage {key} must have one size, got {len(block)} and {numel * item} bytes")
        if view is not None:
            _, first, count = view
            block = block[first * item:(first + count) * item]
        made = _Storage(block, kind.dtype, lambda t: place(t, location) if known else t)
        return storages.setdefault((key, kind.dtype, str(view)), made)

    storages: dict[Any, _Storage] = {}
    unpickle(file, lambda pid: storage(pid, False))
    keys = unpickle(file, _storage_id)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(blocks):
        raise Refused(f"it must list the storages that the object has, got {keys}")
    storages.clear()
    for key in map(str, keys):
        size, content = int.from_bytes(file.read(8), "little"), file.read(len(blocks[key]))
        if len(content) != len(blocks[key]) or len(content) % max(size, 1):
            raise Refused(f"storage {key} must have {len(blocks[key])} bytes, got {len(content)} for {size} elements")
        blocks[key][:] = content
    return unpickle(io.BytesIO(data[start:]), lambda pid: storage(pid, True))


def begins(start: bytes) -> bool:
    """Whether a file that starts so is a zip or PyTorch's older format."""
    return start.startswith((b"PK\x03\x04", MAGIC))


def read(data: Any, name: str, place: Callable[[Tensor, str], Tensor]) -> Any:
    """The object of a file's bytes (or map of them); ValueError with the file's name for one refused or broken."""
    try:
        return read_legacy(bytes(data), place) if data[:1] == MAGIC[:1] else read_zip(data, name, place)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, EOFError, RecursionError,
            zipfile.BadZipFile, NotImplementedError) as error:
        why = error if isinstance(error, Refused) else f"it is broken ({type(error).__name__}: {error})"
        raise ValueError(f"load: {name} must hold weights of PyTorch, but {why}") from None
