"""`save` and `load`: nested containers of tensors and plain values in one safetensors file, with no pickle.

Tensors are stored by the safetensors package (https://github.com/huggingface/safetensors) under their path in the
structure ('model.fc.weight'), the structure itself as JSON in the file's metadata. So any safetensors reader can open
the file, and reading a hostile one can run no code. Tensors that share memory are stored once each.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap as _mmap
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

import tilewright as tw
from tilewright import torch_files
from tilewright.tensor import Tensor
from tilewright.utils.raw import dtype_name, from_bytes, to_numpy

_METADATA_KEY = "tilewright"
_MAX_DEPTH = 64  # of containers; far below Python's own recursion limit

# safetensors' names of the dtypes that the engine has.
_DTYPES = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
           "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


class _Writer:
    """Turns an object into JSON and a dict of named tensors.

    A value is written as itself where JSON has it; {"t": name} is a tensor, {"l": [...]} a list, {"u": [...]} a tuple,
    {"d": [[key, value], ...]} a dict, {"f": "nan"} a float that JSON lacks.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._open: set[int] = set()  # containers being written, to find cycles

    def write(self, obj: Any, path: tuple[str, ...] = ()) -> Any:
        if isinstance(obj, Tensor):
            return {"t": self._add(obj, path)}
        if isinstance(obj, np.generic) and obj.dtype.kind in "biuf":
            obj = obj.item()
        if obj is None or type(obj) in (bool, int, str):
            return obj
        if type(obj) is float:
            return obj if math.isfinite(obj) else {"f": repr(obj)}
        if isinstance(obj, (Mapping, list, tuple)):
            if id(obj) in self._open or len(self._open) >= _MAX_DEPTH:
                raise ValueError(f"save: containers must nest at most {_MAX_DEPTH} deep and not hold themselves, got "
                                 f"more at {_show(path)}")
            self._open.add(id(obj))
            written = self._write_container(obj, path)
            self._open.remove(id(obj))
            return written
        raise TypeError(f"save: values must be tensors, numbers, strings, None, dicts, lists or tuples, got "
                        f"{type(obj).__name__} at {_show(path)}")

    def _write_container(self, obj: Any, path: tuple[str, ...]) -> dict:
        if isinstance(obj, Mapping):
            pairs = []
            for key, value in obj.items():
                if key is not None and type(key) not in (bool, int, float, str):
                    raise TypeError(f"save: dict keys must be strings, numbers or None, got {type(key).__name__} at "
                                    f"{_show(path)}")
                pairs.append([self.write(key), self.write(value, (*path, str(key)))])
            return {"d": pairs}
        values = [self.write(value, (*path, str(i))) for i, value in enumerate(obj)]
        return {"u" if isinstance(obj, tuple) else "l": values}

    def _add(self, tensor: Tensor, path: tuple[str, ...]) -> str:
        if dtype_name(tensor.dtype) not in _DTYPES.values():
            raise TypeError(f"save: dtype {tensor.dtype} cannot be stored, at {_show(path)}")
        name = base = ".".join(path) or "tensor"
        count = 1
        # {'a.b': x, 'a': {'b': y}} would give two tensors one name; '__metadata__' is the format's own.
        while name in self.tensors or name == "__metadata__":
            count += 1
            name = f"{base}#{count}"
        self.tensors[name] = tensor
        return name


def _show(path: tuple[str, ...]) -> str:
    return "'" + ".".join(path) + "'" if path else "the top level"


def _encode(obj: Any) -> bytes:
    from safetensors import TensorSpec, serialize

    writer = _Writer()
    structure = writer.write(obj)
    arrays = {name: to_numpy(tensor) for name, tensor in writer.tensors.items()}  # kept alive: specs hold addresses
    specs = {name: TensorSpec(dtype=dtype_name(writer.tensors[name].dtype), shape=list(values.shape),
                              data_ptr=values.ctypes.data, data_len=values.nbytes) for name, values in arrays.items()}
    return serialize(specs, metadata={_METADATA_KEY: json.dumps(structure, separators=(",", ":"))})


def save(obj: Any, f: str | os.PathLike | IO[bytes], pickle_module: None = None, pickle_protocol: int = 2,
         _use_new_zipfile_serialization: bool = True) -> None:
    """Writes `obj` to a path or an open binary file.

    `obj` may be a tensor, number, string, None, or dicts, lists and tuples of these to any depth up to 64: a module's
    or optimizer's state_dict, or a checkpoint of several. Dict classes load as dict, NumPy scalars as Python's.
    A path is replaced in one step after all is on the disk, so an interrupted save leaves the older file whole.
    The last three arguments are PyTorch's, for its pickle; there is none here.

    Raises:
        TypeError: something that cannot be stored, with its key path and type; nothing is written.

    >>> import os, tempfile
    >>> import tilewright as tw
    >>> path = os.path.join(tempfile.mkdtemp(), "checkpoint.safetensors")
    >>> tw.save({"epoch": 3, "weights": [tw.ones(2)]}, path)
    >>> tw.load(path)["weights"][0].tolist()
    [1.0, 1.0]
    """
    if hasattr(f, "write"):
        f.write(_encode(obj))
        return
    data: Any
    if not isinstance(f, (str, os.PathLike)):
        raise TypeError(f"save: f must be a path or a binary file, got {type(f).__name__}")
    path = Path(os.path.realpath(f))  # the file a link points to is replaced, not the link
    data = _encode(obj)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fchmod(out.fileno(), mode)
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself
    finally:
        os.close(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _placer(map_location: Any) -> Callable[[Tensor, str], Tensor]:
    """From map_location to a function of a storage's values and the place it was saved from."""
    def to(tensor: Tensor, where: Any) -> Tensor:
        where = str(where)
        if where != "cpu" and not where.startswith("cuda"):
            raise RuntimeError(f"load: a tensor was saved from {where!r}; use map_location='cpu'")
        if where.startswith("cuda") and map_location is None and not tw.cuda.is_available():
            raise RuntimeError(f"load: a tensor was saved from {where!r}, and there is no GPU; use map_location='cpu'")
        return tensor.to(where)

    def place(tensor: Tensor, saved: str) -> Tensor:
        if map_location is None:
            return to(tensor, saved)
        if isinstance(map_location, Mapping):
            return to(tensor, map_location.get(saved, saved))
        if callable(map_location) and not isinstance(map_location, tw.device):
            try:
                found = map_location(tensor, saved)
            except Exception as error:
                raise RuntimeError(f"load: map_location failed on values saved from {saved!r}: {error}") from error
            return to(tensor, saved) if found is None else found
        return to(tensor, map_location)

    return place


def load(f: str | os.PathLike | IO[bytes], map_location: Any = None, pickle_module: None = None, *,
         weights_only: bool = True, mmap: bool | None = None) -> Any:
    """Reads what `save` wrote, any safetensors file (a flat dict of tensors), and PyTorch's own .pt and .pth files.

    Of PyTorch's files, zip or older, tensors, parameters, numbers, strings, containers and NumPy values are read; a
    name of anything else is refused, since a load here never runs code, whatever weights_only says.

    map_location: a device, a dict from saved to wanted place, or a function of (values, saved place) that returns the
    values where they should be, or None. mmap: tensors of a zip file are pages of the file, read when they are first
    used and copied when written; for a path only.

    Raises:
        ValueError: a file that is not whole, of another format, or names what is no part of weights; with its name.
        RuntimeError: tensors saved from a device that is not here. FileNotFoundError: no such file.
    """
    if pickle_module is not None:
        raise NotImplementedError("load: nothing is unpickled, so that no code can run; leave out pickle_module")
    data: Any
    if not isinstance(f, (str, os.PathLike)):
        if not hasattr(f, "read"):
            raise TypeError(f"load: f must be a path or a binary file, got {type(f).__name__}")
        if mmap:
            raise ValueError("load: mmap=True needs a path, got an open file")
        name, data = str(getattr(f, "name", "the given file")), f.read()
    else:
        name = os.fspath(f)
        with open(f, "rb") as file:
            data = _mmap.mmap(file.fileno(), 0, access=_mmap.ACCESS_COPY) if mmap else file.read()
    if not isinstance(data, (bytes, bytearray, _mmap.mmap)):
        raise TypeError(f"load: the file must be opened in binary mode, got {type(data).__name__} from {name}")
    place = _placer(map_location)
    # A safetensors file begins with its header's length, whose bytes may be a zip's first too, but not with this size.
    if torch_files.begins(bytes(data[:16])) and int.from_bytes(data[:8], "little") > len(data):
        return torch_files.read(data, name, place)
    tensors, metadata = _decode(bytes(data), name)
    tensors = {key: place(tensor, "cpu") for key, tensor in tensors.items()}
    if _METADATA_KEY not in metadata:
        return tensors
    try:
        return _read(json.loads(metadata[_METADATA_KEY]), tensors)
    except (RecursionError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"load: {name} must describe its structure, got a broken description ({error})") from None


def _decode(data: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(data)
    except SafetensorError as error:
        # Asked only now: a header's length, which comes first, may have the same bytes (640 is 80 02).
        if data[:2] in (b"\x80\x02", b"\x80\x04"):
            raise ValueError(f"load: {name} must be a safetensors file or torch.save's, got a plain pickle") from None
        raise ValueError(f"load: {name} must be a whole safetensors file, got {len(data)} bytes with {error}") from None
    tensors = {}
    for key, entry in entries:
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise ValueError(f"load: {name} must hold dtypes {', '.join(_DTYPES)}, got {entry['dtype']} for '{key}'")
        values = entry["data"] if isinstance(entry["data"], bytearray) else bytearray(entry["data"])
        if dtype == "bool" and values.translate(None, b"\0\1"):
            raise ValueError(f"load: {name} must hold 0 or 1 in bool tensors, got other bytes in '{key}'")
        tensors[key] = from_bytes(values, dtype, tuple(entry["shape"]))
    header_size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8:8 + header_size]).get("__metadata__") or {}
    return tensors, metadata


def _read(node: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        if isinstance(node, list):
            raise ValueError("a bare list")
        return node
    (kind, value), = node.items()
    if kind == "t":
        return tensors[value]
    if kind == "l":
        return [_read(item, tensors) for item in value]
    if kind == "u":
        return tuple(_read(item, tensors) for item in value)
    if kind == "d":
        return {_read(key, tensors): _read(item, tensors) for key, item in value}
    if kind == "f" and value in ("nan", "inf", "-inf"):
        return float(value)
    raise ValueError(f"unknown kind '{kind}'")
