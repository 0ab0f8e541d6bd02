"""PyTorch's names that concern another system: each says, when it is used, what to use in its place.

Importing such a name works, for scripts import more than they use; calling it, or making a subclass of it, raises
NotImplementedError.

>>> import tilewright as tw
>>> tw.hub.load("pytorch/vision", "resnet18")
Traceback (most recent call last):
NotImplementedError: hub.load: nothing is downloaded here; fetch the file yourself and read it with tw.load(path)
"""

from __future__ import annotations

import sys
import types
from typing import Any, NoReturn


class Refusal:
    """A name that is not offered, and what to use instead."""

    def __init__(self, name: str, instead: str) -> None:
        self.__name__, self.instead = name, instead
        self.__doc__ = f"Not offered: {instead}."

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"{self.__name__}: {self.instead}")

    def __mro_entries__(self, bases: tuple) -> NoReturn:
        self()

    def __instancecheck__(self, x: Any) -> bool:
        return False

    def __getattr__(self, name: str) -> Refusal:
        if name.startswith("__"):
            raise AttributeError(name)
        return Refusal(f"{self.__name__}.{name}", self.instead)

    def __repr__(self) -> str:
        return f"<{self.__name__}, not offered: {self.instead}>"


def _itself(function: Any = None, *args: Any, **kwargs: Any) -> Any:
    """The function or module itself, which runs as Python; also with arguments, as a decorator."""
    return function if callable(function) else _itself


def _namespace(name: str, instead: str, **offered: Any) -> types.ModuleType:
    module = types.ModuleType(f"tilewright.{name}", f"Not offered: {instead}.")

    def missing(attribute: str) -> Refusal:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Refusal(f"{name}.{attribute}", instead)

    module.__dict__.update(offered, __getattr__=missing)
    sys.modules[module.__name__] = module
    return module


_DOWNLOADS = "nothing is downloaded here; fetch the file yourself and read it with tw.load(path)"
_SPARSE = "sparse tensors are not offered; use scipy.sparse, or index_select and index_add"
_COMPLEX = "complex tensors are not offered; keep real and imaginary parts in two tensors, or use NumPy"
_QUANTIZED = "quantized tensors are not offered; use half precision: tw.autocast or model.half()"
_FUNCTIONS = "functional transforms are not offered; call autograd.grad in a loop, or batch the computation"

hub = _namespace("hub", _DOWNLOADS)
jit = _namespace("jit", "models run as Python; nothing is traced or compiled; keep weights with tw.save and tw.load",
                 script=_itself, ignore=_itself, unused=_itself, export=_itself, script_method=_itself,
                 script_if_tracing=_itself, is_scripting=lambda: False, is_tracing=lambda: False,
                 annotate=lambda kind, value: value, Final=Any)
onnx = _namespace("onnx", "models are not exported; keep weights with tw.save, build graphs with the onnx package",
                  is_in_onnx_export=lambda: False)
compiler = _namespace("compiler", "kernels are compiled with the wheel; tw.compile gives the model itself",
                      disable=_itself, is_compiling=lambda: False, reset=lambda: None)
fx = _namespace("fx", "models are not traced to graphs; use hooks and named_modules to look into them", wrap=_itself)
sparse = _namespace("sparse", _SPARSE)
fft = _namespace("fft", _COMPLEX.replace("use NumPy", "use numpy.fft"))
ao = _namespace("ao", _QUANTIZED)
quantization = _namespace("quantization", _QUANTIZED)
func = _namespace("func", _FUNCTIONS)
profiler = _namespace("profiler", "profiling is not offered; use cProfile, or nsys for a GPU")
model_zoo = _namespace("utils.model_zoo", _DOWNLOADS)
cpp_extension = _namespace("utils.cpp_extension", "extensions are not built here; see tilewright.kernels for calling "
                                                  "kernels, and autograd.Function for an op of your own")
serialization = _namespace("utils.serialization", "files of Lua Torch are not read; convert them with an old PyTorch")

NAMESPACES = {m.__name__.removeprefix("tilewright."): m for m in (
    compiler, hub, jit, onnx, fx, sparse, fft, ao, quantization, func, profiler, model_zoo, cpp_extension,
    serialization)}
_REFUSED = {
    _SPARSE: "sparse_coo_tensor sparse_csr_tensor spmm smm sspaddmm hspmm",
    _COMPLEX: "view_as_real view_as_complex complex polar complex64 complex128 cfloat cdouble stft istft imag",
    _QUANTIZED: "quantize_per_tensor quantize_per_channel qint8 quint8 qint32",
    _FUNCTIONS: "vmap",
    "use linalg.eigh": "symeig",
    "use linalg.eigh, or numpy.linalg.eig where values may be complex": "eig",
    "use linalg.solve(A, B)": "solve",
    "use linalg.lstsq(A, B)": "lstsq",
    "use linalg.solve, or scipy.linalg.lu": "lu",
    "use int32 or int64": "uint16 uint32 uint64",
}
NAMES = {name: instead for instead, names in _REFUSED.items() for name in names.split()}


def find(name: str) -> Any:
    """The namespace or refusal of a name of `tilewright`; None for others."""
    return NAMESPACES.get(name) or (Refusal(name, NAMES[name]) if name in NAMES else None)
