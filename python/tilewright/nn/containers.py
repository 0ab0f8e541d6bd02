"""Modules that hold other modules or parameters: Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

import itertools
import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter
from tilewright.tensor import Tensor


def _position(owner: Module, index: int, length: int) -> int:
    place = operator.index(index)
    if not -length <= place < length:
        raise IndexError(f"{type(owner).__name__}: index must be in [-{length}, {length}), got {place}")
    return place % length


class _ModuleSequence(Module):
    """What Sequential and ModuleList share: submodules named '0', '1', ... that behave as a list."""

    _from_items: Any  # each subclass's way to be made from (name, module) pairs

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def _key(self, index: int) -> str:
        return list(self._modules)[_position(self, index, len(self))]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._from_items(list(self._modules.items())[index])
        return self._modules[self._key(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._key(index), module)

    def __delitem__(self, index: int | slice) -> None:
        keys = list(self._modules)[index] if isinstance(index, slice) else [self._key(index)]
        for key in keys:
            del self._modules[key]
        self._renumber(list(self._modules.items()))

    def _renumber(self, items: list[tuple[str, Module]]) -> None:
        """Numbers in order; names that a user gave (Sequential of an OrderedDict) stay."""
        self.__dict__["_modules"] = {name if not name.isdigit() else str(i): module
                                     for i, (name, module) in enumerate(items)}

    def append(self, module: Module) -> Any:
        self.add_module(str(len(self)), module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: insert takes a Module, got {type(module).__name__}")
        items = list(self._modules.items())
        items.insert(index, (str(index if index >= 0 else len(items)), module))
        self._renumber(items)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        if not isinstance(modules, Iterable):
            raise TypeError(f"{type(self).__name__}: extend takes an iterable of modules, got {type(modules).__name__}")
        for module in list(modules):
            self.append(module)
        return self

    def pop(self, index: int = -1) -> Module:
        module = self[index]
        del self[index]
        return module

    def __add__(self, other: Iterable[Module]) -> Any:
        return type(self)._from_items([(str(i), module) for i, module in enumerate([*self, *other])])

    def __iadd__(self, other: Iterable[Module]) -> Any:
        return self.extend(other)


class Sequential(_ModuleSequence):
    """Calls its modules one after another: y = f_n(... f_1(x)).

    >>> from tilewright import nn
    >>> nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *args: Module | OrderedDict) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            items: Iterable = args[0].items()
        else:
            items = ((str(i), module) for i, module in enumerate(args))
        for name, module in items:
            self.add_module(name, module)

    @classmethod
    def _from_items(cls, items: list) -> Sequential:
        # A subclass that makes its modules from other arguments, as models.MLP from widths, gives a plain Sequential.
        return (cls if cls.__init__ is Sequential.__init__ else Sequential)(OrderedDict(items))

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input


class ModuleList(_ModuleSequence):
    """A list of modules; it has no forward."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    @classmethod
    def _from_items(cls, items: list) -> ModuleList:
        return cls(module for _, module in items)

    def __repr__(self) -> str:
        """Neighbours that print alike share a line: (0-5): 6 x Linear(...)."""
        runs = [(text, len(list(group))) for text, group in itertools.groupby(map(repr, self))]
        lines, start = [], 0
        for text, count in runs:
            label = f"({start}): {text}" if count == 1 else f"({start}-{start + count - 1}): {count} x {text}"
            lines.append(label.replace("\n", "\n  "))
            start += count
        return f"{self._get_name()}(" + ("\n  " + "\n  ".join(lines) + "\n" if lines else "") + ")"


class ModuleDict(Module):
    """A dict of modules, in insertion order; it has no forward."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        """The names, in order."""
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        """The values, in order of their names."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """(name, value) pairs, in order."""
        return self._modules.items()

    def clear(self) -> None:
        """Removes all."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Removes one by its name and returns it."""
        return self._modules.pop(key)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Adds or replaces those of a mapping or of pairs."""
        for key, module in modules.items() if hasattr(modules, "items") else modules:
            self[key] = module


def _as_parameter(value: Any) -> Any:
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


class ParameterList(Module):
    """A list of parameters; a plain tensor put into it becomes a Parameter."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        if values is not None:
            self.extend(values)

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._parameters.values()))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._parameters[str(_position(self, index, len(self)))]

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(_position(self, index, len(self))), _as_parameter(value))

    def append(self, value: Any) -> ParameterList:
        """Adds a value at the end."""
        self.register_parameter(str(len(self)), _as_parameter(value))
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Adds several values at the end."""
        if isinstance(values, Tensor) or not isinstance(values, Iterable):
            raise TypeError(f"ParameterList: extend takes an iterable of tensors, got {type(values).__name__}")
        for value in list(values):
            self.append(value)
        return self

    __iadd__ = extend

    def extra_repr(self) -> str:
        return "\n".join(f"  ({i}): {_describe(p, p.dtype)}" for i, p in self._parameters.items())


class ParameterDict(Module):
    """A dict of parameters, in insertion order; a plain tensor put into it becomes a Parameter."""

    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None) -> None:
        super().__init__()
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Any:
        return self._parameters[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.register_parameter(key, _as_parameter(value))

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __contains__(self, key: str) -> bool:
        return key in self._parameters

    def keys(self) -> Iterable[str]:
        """The names, in order."""
        return self._parameters.keys()

    def values(self) -> Iterable[Any]:
        """The values, in order of their names."""
        return self._parameters.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, value) pairs, in order."""
        return self._parameters.items()

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a name, or the default."""
        return self._parameters.get(key, default)

    def pop(self, key: str) -> Any:
        """Removes one by its name and returns it."""
        return self._parameters.pop(key)

    def popitem(self) -> tuple[str, Any]:
        """Removes the last and returns its name and value."""
        return self._parameters.popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of a name, which is set to the default if it is not there."""
        if key not in self:
            self[key] = default
        return self[key]

    def clear(self) -> None:
        """Removes all."""
        self._parameters.clear()

    def copy(self) -> ParameterDict:
        """Another of the same values."""
        return ParameterDict(self.items())

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._parameters))

    def update(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Adds or replaces those of a mapping or of pairs."""
        for key, value in parameters.items() if hasattr(parameters, "items") else parameters:
            self[key] = value

    def extra_repr(self) -> str:
        return "\n".join(f"  ({key}): {'Object of type: NoneType' if p is None else _describe(p, p.type())}"
                         for key, p in self._parameters.items())


def _describe(param: Parameter, kind: Any) -> str:
    place = f" ({param.device})" if param.is_cuda else ""
    return f"Parameter containing: [{kind} of size {'x'.join(map(str, param.shape))}{place}]"
