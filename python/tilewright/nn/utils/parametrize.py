"""Parameters that are computed from others each time they are read: `weight = f(original)`.

The names in the state dict (`parametrizations.weight.original`, or `original0`, `original1`, ... where right_inverse
gives several) and the rules are those PyTorch documents for `torch.nn.utils.parametrize`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

from tilewright.autograd import no_grad
from tilewright.nn.containers import ModuleDict, ModuleList
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter
from tilewright.tensor import Tensor

_cache: dict[tuple[int, str], Any] = {}
_depth = 0


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """In this block a parametrized tensor is computed once, at its first use."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            _cache.clear()


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, in the order they act, and the original tensor or tensors."""

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        value: Any = original
        with no_grad():
            for module in reversed(self):
                if hasattr(module, "right_inverse"):
                    value = module.right_inverse(value)
        self.is_tensor = isinstance(value, Tensor)
        if not self.is_tensor and not isinstance(value, Sequence):
            raise ValueError(f"parametrize: right_inverse must give a Tensor or a sequence of them, got "
                             f"{type(value).__name__}")
        self.ntensors = 1 if self.is_tensor else len(value)
        for name, tensor in zip(self._originals(), [value] if self.is_tensor else value, strict=True):
            if isinstance(original, Parameter):
                # The first parametrization keeps the parameter that an optimizer may hold.
                kept = original if self.is_tensor and tensor.shape == original.shape else None
                if kept is not None and tensor is not original:
                    kept.data = tensor.detach()
                setattr(self, name, kept if kept is not None else Parameter(tensor.detach(), original.requires_grad))
            else:
                self.register_buffer(name, tensor)
        if not unsafe:
            made = self()
            if not isinstance(made, Tensor) or made.shape != original.shape or made.dtype != original.dtype:
                raise ValueError(f"parametrize: a parametrization must keep shape and dtype unless unsafe, got "
                                 f"{original.dtype} {tuple(original.shape)} to "
                                 f"{getattr(made, 'dtype', type(made).__name__)} {tuple(getattr(made, 'shape', ()))}")

    def _originals(self) -> list[str]:
        return ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]

    def right_inverse(self, value: Tensor) -> None:
        """Changes the originals so that the parametrized tensor becomes `value`, as far as it can."""
        with no_grad():
            result: Any = value
            for module in reversed(self):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(f"parametrize: {type(module).__name__} has no right_inverse, so that the tensor "
                                       f"cannot be assigned")
                result = module.right_inverse(result)
            for name, tensor in zip(self._originals(), [result] if self.is_tensor else result, strict=True):
                getattr(self, name).data = tensor.detach()

    def forward(self) -> Any:
        first = self[0]
        value = first(*(getattr(self, name) for name in self._originals()))
        for module in list(self)[1:]:
            value = module(value)
        return value


def _parametrized_property(name: str) -> property:
    def get(self: Any) -> Any:
        made = self.parametrizations[name]
        if not _depth:
            return made()
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = made()
        return _cache[key]

    def put(self: Any, value: Any) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, put)


class _Parametrized:
    """What the classes of parametrized modules have besides the layer's own."""

    def __setattr__(self, name: str, value: Any) -> None:
        found = getattr(type(self), name, None)
        if isinstance(found, property):
            found.__set__(self, value)
        else:
            super().__setattr__(name, value)

    def __deepcopy__(self: Any, memo: dict) -> Any:
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        raise RuntimeError(f"{type(self).__name__}: parametrized modules cannot be pickled; save the state_dict()")


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module, or this one of its tensors, is parametrized."""
    made: Any = module._modules.get("parametrizations")
    return isinstance(made, ModuleDict) and (len(made) > 0 if tensor_name is None else tensor_name in made)


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *,
                             unsafe: bool = False) -> Module:
    """Makes `module.tensor_name` the value of `parametrization(original)`, computed anew whenever it is read.

    Where the parametrization has a `right_inverse`, the original starts as that of the present value, and assigning to
    the tensor works. Several parametrizations of one tensor act one after the other.

    Raises:
        ValueError: no such tensor; a parametrization that changes shape or dtype, if not unsafe.

    >>> import tilewright as tw
    >>> from tilewright.nn.utils import parametrize
    >>> class Symmetric(tw.nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).transpose(-1, -2)
    >>> layer = parametrize.register_parametrization(tw.nn.Linear(3, 3), "weight", Symmetric())
    >>> bool((layer.weight == layer.weight.T).all())
    True
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        made: Any = module.parametrizations[tensor_name]
        before = getattr(module, tensor_name)
        with no_grad():
            after = parametrization(before)
            if not unsafe and (after.shape != before.shape or after.dtype != before.dtype):
                raise ValueError(f"parametrize: a parametrization must keep shape and dtype unless unsafe, got "
                                 f"{before.dtype} {tuple(before.shape)} to {after.dtype} {tuple(after.shape)}")
            if hasattr(parametrization, "right_inverse"):
                made.right_inverse(parametrization.right_inverse(before))
        made.append(parametrization)
        return module
    held: Any = module._parameters if tensor_name in module._parameters else module._buffers
    original = held.get(tensor_name)
    if original is None:
        raise ValueError(f"parametrize: {type(module).__name__} has no parameter or buffer '{tensor_name}'")
    made = ParametrizationList([parametrization], original, unsafe)
    del held[tensor_name]
    if not is_parametrized(module):
        kind = type(module)
        module.__class__ = type(f"Parametrized{kind.__name__}", (_Parametrized, kind), {"__module__": kind.__module__})
        module._modules["parametrizations"] = ModuleDict()
    setattr(type(module), tensor_name, _parametrized_property(tensor_name))
    module.parametrizations[tensor_name] = made
    return module


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Makes `tensor_name` an ordinary tensor again: of its present value, or of the original if not leave_parametrized.

    Raises:
        ValueError: it is not parametrized, or the originals are several and leave_parametrized is False.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"parametrize: {type(module).__name__} has no parametrization on '{tensor_name}'")
    made: Any = module.parametrizations[tensor_name]
    if not leave_parametrized and not made.is_tensor:
        raise ValueError("parametrize: with several originals leave_parametrized must be True, got False")
    original = getattr(made, made._originals()[0])
    value = getattr(module, tensor_name).detach()
    if leave_parametrized:
        if made.is_tensor and original.shape == value.shape:
            original.data = value
        else:
            original = Parameter(value, original.requires_grad) if isinstance(original, Parameter) else value
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if not len(module.parametrizations):
        del module._modules["parametrizations"]
        module.__class__ = type(module).__mro__[2]
    if isinstance(original, Parameter):
        module.register_parameter(tensor_name, original)
    else:
        module.register_buffer(tensor_name, original)
    return module


def type_before_parametrizations(module: Module) -> type:
    """The layer's own class."""
    return type(module).__mro__[2] if is_parametrized(module) else type(module)
