"""`Module`: a tree of parameters, buffers and submodules with one `forward`.

The rules of attributes, names, state dicts and hooks are those PyTorch documents for `torch.nn.Module`
(https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html), so that its scripts run unchanged.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tilewright.autograd import no_grad
from tilewright.nn.parameter import Parameter
from tilewright.tensor import RemovableHandle, Tensor


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` did not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class StateDictError(RuntimeError, ValueError):
    """A state dict that does not fit. A ValueError by its nature and a RuntimeError because PyTorch raises one."""


_hook_numbers = itertools.count()

# Exceptions whose first argument is a message for people. KeyError's is a key, OSError's an error number.
_MESSAGE_ERRORS = (ArithmeticError, AssertionError, AttributeError, IndexError, MemoryError, RuntimeError, TypeError,
                   ValueError)


class Module:
    """Base class of layers and models: assign parameters and submodules as attributes, write `forward`.

    Raises:
        ValueError, ...: an error of `forward` keeps its class and gains the path of the module it came from.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc = nn.Linear(3, 2)
    ...     def forward(self, x):
    ...         return self.fc(x)
    >>> [name for name, _ in Net().named_parameters()]
    ['fc.weight', 'fc.bias']
    >>> Net()(tw.zeros(4, 5))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: in fc (Linear 3 -> 2): ...
    """

    training: bool
    _has_hooks = False  # set on an instance once it is given a hook; without one a call goes straight to forward

    def __init__(self) -> None:
        attributes = self.__dict__
        attributes["training"] = True
        attributes["_parameters"] = {}
        attributes["_buffers"] = {}
        attributes["_modules"] = {}
        attributes["_non_persistent_buffers"] = set()
        for name in ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"):
            attributes[name] = OrderedDict()  # id -> (hook, with_kwargs)

    # -- calling ------------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}: forward must be written by the subclass")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._has_hooks:
                return self._call_with_hooks(args, kwargs)
            return self.forward(*args, **kwargs)
        except _MESSAGE_ERRORS as error:
            self._name_path(error)
            raise

    def _name_path(self, error: BaseException) -> None:
        """Puts the failing module's path, as seen from this module, in front of the message.

        Each call on the way out rewrites it, so the message the user sees starts at the outermost module.
        """
        if not error.args or not isinstance(error.args[0], str):
            return
        origin = getattr(error, "_tw_origin", None)
        if origin is None:
            path, label, message, child = "", self._label(), error.args[0], None
        else:
            path, label, message, child = origin
        if child is not None and child is not self:
            name = next((n for n, m in self.named_modules() if m is child), type(child).__name__)
            path = f"{name}.{path}" if path else name
        where = f"{path} ({label})" if path else label
        error._tw_origin = (path, label, message, self)  # type: ignore[attr-defined]
        error.args = (f"in {where}: {message}", *error.args[1:])

    def _label(self) -> str:
        """A few words for error messages, such as 'Linear 1536 -> 1280'."""
        return type(self).__name__

    def _call_with_hooks(self, args: tuple, kwargs: dict) -> Any:
        for hook, with_kwargs in tuple(self._forward_pre_hooks.values()):
            if with_kwargs:
                result = hook(self, args, kwargs)
                if result is not None:
                    args, kwargs = result
            else:
                result = hook(self, args)
                if result is not None:
                    args = result if isinstance(result, tuple) else (result,)
        watch = None
        if self._backward_hooks or self._backward_pre_hooks:
            from tilewright.nn.backward_hooks import BackwardWatch

            watch = BackwardWatch(self)
            args = watch.watch_inputs(args)
        output = self.forward(*args, **kwargs)
        for hook, with_kwargs in tuple(self._forward_hooks.values()):
            result = hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
            if result is not None:
                output = result
        return watch.watch_outputs(output) if watch else output

    # -- hooks --------------------------------------------------------------------------------------------------------

    def _add_hook(self, hooks: OrderedDict, hook: Callable, with_kwargs: bool, prepend: bool) -> RemovableHandle:
        key = next(_hook_numbers)
        hooks[key] = (hook, with_kwargs)
        if prepend:
            hooks.move_to_end(key, last=False)
        self.__dict__["_has_hooks"] = True
        return RemovableHandle(hooks, key)

    def register_forward_pre_hook(self, hook: Callable, *, prepend: bool = False,
                                  with_kwargs: bool = False) -> RemovableHandle:
        """Calls `hook(module, args)` before forward; a result that is not None replaces the arguments."""
        return self._add_hook(self._forward_pre_hooks, hook, with_kwargs, prepend)

    def register_forward_hook(self, hook: Callable, *, prepend: bool = False,
                              with_kwargs: bool = False) -> RemovableHandle:
        """Calls `hook(module, args, output)` after forward; a result that is not None replaces the output."""
        return self._add_hook(self._forward_hooks, hook, with_kwargs, prepend)

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(module, grad_input, grad_output)` once the inputs' gradients are known.

        A result that is not None replaces `grad_input`. Only positional tensor arguments are watched.
        """
        return self._add_hook(self._backward_hooks, hook, False, prepend)

    def register_full_backward_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(module, grad_output)` before the module's backward; its result replaces `grad_output`."""
        return self._add_hook(self._backward_pre_hooks, hook, False, prepend)

    # -- attributes ---------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        attributes = self.__dict__
        for kind in ("_parameters", "_buffers", "_modules"):
            members = attributes.get(kind)
            if members is not None and name in members:
                return members[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        attributes = self.__dict__
        parameters: Any = attributes.get("_parameters")
        if isinstance(value, Parameter):
            self._need_init("parameters")
            self._forget(name, keep="_parameters")
            parameters[name] = value
        elif isinstance(value, Module):
            self._need_init("modules")
            if name in parameters:
                self._refuse(name, "parameter", "nn.Parameter or None", value)
            self._forget(name, keep="_modules")
            attributes["_modules"][name] = value
        elif parameters is None:
            object.__setattr__(self, name, value)
        elif name in parameters:
            if value is not None:
                self._refuse(name, "parameter", "nn.Parameter or None", value)
            parameters[name] = None
        elif name in attributes["_modules"]:
            if value is not None:
                self._refuse(name, "module", "nn.Module or None", value)
            attributes["_modules"][name] = None
        elif name in attributes["_buffers"]:
            if value is not None and not isinstance(value, Tensor):
                self._refuse(name, "buffer", "Tensor or None", value)
            attributes["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        for kind in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(kind, ()):
                del self.__dict__[kind][name]
                self._non_persistent_buffers.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = set(object.__dir__(self)) | set(self._parameters) | set(self._buffers) | set(self._modules)
        return sorted(name for name in names if not name[:1].isdigit())

    def _need_init(self, kind: str) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {kind}")

    def _refuse(self, name: str, kind: str, wanted: str, value: Any) -> None:
        raise TypeError(f"{type(self).__name__}: {kind} '{name}' must be {wanted}, got {type(value).__name__}")

    def _forget(self, name: str, keep: str) -> None:
        """Removes every other meaning of `name`, so that the new member is what attribute access finds."""
        self.__dict__.pop(name, None)
        for kind in ("_parameters", "_buffers", "_modules"):
            if kind != keep:
                self.__dict__[kind].pop(name, None)
        self._non_persistent_buffers.discard(name)

    def _check_member_name(self, name: str, kind: str) -> None:
        self._need_init(kind + "s")
        if not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: {kind} name must be a str, got {type(name).__name__}")
        if name == "" or "." in name:
            raise KeyError(f"{type(self).__name__}: {kind} name must be non-empty and without '.', got '{name}'")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        self._check_member_name(name, "parameter")
        if hasattr(self, name) and name not in self._parameters:
            raise KeyError(f"{type(self).__name__}: attribute '{name}' already exists")
        if param is not None and not isinstance(param, Parameter):
            self._refuse(name, "parameter", "nn.Parameter or None", param)
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is part of the state but not trained; `persistent=False` keeps it out of state_dict."""
        self._check_member_name(name, "buffer")
        if hasattr(self, name) and name not in self._buffers:
            raise KeyError(f"{type(self).__name__}: attribute '{name}' already exists")
        if tensor is not None and not isinstance(tensor, Tensor):
            self._refuse(name, "buffer", "Tensor or None", tensor)
        self._buffers[name] = tensor
        (self._non_persistent_buffers.discard if persistent else self._non_persistent_buffers.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        self._check_member_name(name, "module")
        if hasattr(self, name) and name not in self._modules:
            raise KeyError(f"{type(self).__name__}: attribute '{name}' already exists")
        if module is not None and not isinstance(module, Module):
            self._refuse(name, "module", "nn.Module or None", module)
        self._modules[name] = module

    register_module = add_module

    # -- walking the tree ---------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def named_modules(self, memo: set | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def _named_members(self, kind: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, member in module.__dict__[kind].items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield f"{path}.{name}" if path else name, member

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        module: Any = self
        for name in target.split(".") if target else ():
            found = module._modules.get(name)
            if found is None:
                raise AttributeError(f"{type(self).__name__}: no submodule '{target}', {type(module).__name__} has no "
                                     f"module '{name}'")
            module = found
        return module

    def _get_member(self, kind: str, word: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        member = self.get_submodule(path).__dict__[kind].get(name)
        if member is None:
            raise AttributeError(f"{type(self).__name__}: no {word} '{target}'")
        return member

    def get_parameter(self, target: str) -> Parameter:
        return self._get_member("_parameters", "parameter", target)

    def get_buffer(self, target: str) -> Tensor:
        return self._get_member("_buffers", "buffer", target)

    # -- state --------------------------------------------------------------------------------------------------------

    def _own_state(self) -> Iterator[tuple[str, dict, Tensor]]:
        """(name, the dict that holds it, tensor) of what this module itself puts into a state dict."""
        for name, param in self._parameters.items():
            if param is not None:
                yield name, self._parameters, param
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers:
                yield name, self._buffers, buffer

    def state_dict(self, *, destination: dict | None = None, prefix: str = "",
                   keep_vars: bool = False) -> dict[str, Tensor]:
        """All parameters and persistent buffers by path; detached, and sharing memory with the module."""
        destination = OrderedDict() if destination is None else destination
        for name, _, tensor in self._own_state():
            destination[prefix + name] = tensor if keep_vars else tensor.detach()
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        return destination

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True,
                        assign: bool = False) -> IncompatibleKeys:
        """Copies `state_dict` into this module's parameters and buffers, converting between floating-point types.

        With `strict=False` names found on one side only are reported, not refused; with `assign=True` the tensors
        themselves take the place of the module's.

        Raises:
            StateDictError: (a ValueError and RuntimeError) listing every missing and unexpected name and every wrong
                shape and dtype at once; the module is then unchanged.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: state_dict must be a mapping, got {type(state_dict).__name__}")
        slots = {f"{path}.{name}" if path else name: (holder, name, tensor)
                 for path, module in self.named_modules(remove_duplicate=False)
                 for name, holder, tensor in module._own_state()}
        missing = [name for name in slots if name not in state_dict]
        unexpected = [name for name in state_dict if name not in slots]
        misfits = []
        if strict:
            misfits += [f"missing: {name}" for name in missing] + [f"unexpected: {name}" for name in unexpected]
        for key, (_, _, own) in slots.items():
            if key in state_dict:
                misfits += _misfit(key, own, state_dict[key])
        if misfits:
            raise StateDictError(f"load_state_dict: {type(self).__name__} and state_dict must agree, got "
                                 f"{len(misfits)} misfit{'s' * (len(misfits) > 1)}:\n  " + "\n  ".join(misfits))
        with no_grad():
            for key, (holder, name, own) in slots.items():
                if key not in state_dict:
                    continue
                given = state_dict[key]
                if not assign:
                    own.copy_(given)
                elif isinstance(own, Parameter):
                    holder[name] = given if isinstance(given, Parameter) else Parameter(given, own.requires_grad)
                else:
                    holder[name] = given
        return IncompatibleKeys(missing, unexpected)

    def train(self, mode: bool = True) -> Module:
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be a bool, got {mode!r}")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Module:
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        for param in self.parameters():
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                param.grad = param.grad.detach().zero_()

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Calls `fn` on every submodule, children first, and then on this module."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # -- dtype and device ---------------------------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Module:
        """Replaces the contents of every parameter, gradient and buffer by `fn` of it; a parameter keeps its identity,
        so that optimizers go on holding it."""
        with no_grad():
            for module in self.modules():
                for param in module._parameters.values():
                    if param is not None:
                        grad = param.grad
                        param.grad = None
                        old = param.detach()
                        new = fn(old)
                        if new is not old:
                            param.data = new
                        if grad is not None:
                            param.grad = fn(grad)
                for name, buffer in module._buffers.items():
                    if buffer is not None:
                        module._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Module:
        """`to(device)`, `to(dtype)`, `to(device, dtype)` or `to(tensor)`, in place; a dtype goes to floats only."""
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        non_blocking = kwargs.pop("non_blocking", False)
        if kwargs:
            raise TypeError(f"to: got an unexpected keyword {', '.join(map(repr, kwargs))}")
        for arg in args:
            if isinstance(arg, Tensor):
                device, dtype = arg.device, arg.dtype
            elif isinstance(arg, _dtype_class()):
                dtype = arg
            elif isinstance(arg, bool):
                non_blocking = arg
            elif arg is not None:
                device = arg
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"to: a module's dtype must be a floating-point type, got {dtype}")

        def convert(tensor: Tensor) -> Tensor:
            if device is not None:
                tensor = tensor.to(device, non_blocking=non_blocking)
            return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor

        return self._apply(convert)

    def type(self, dst_type: Any) -> Module:
        return self._apply(lambda tensor: tensor.to(dst_type))

    def float(self) -> Module:
        return self.to(_named_dtype("float32"))

    def double(self) -> Module:
        return self.to(_named_dtype("float64"))

    def half(self) -> Module:
        return self.to(_named_dtype("float16"))

    def bfloat16(self) -> Module:
        return self.to(_named_dtype("bfloat16"))

    def cpu(self) -> Module:
        return self.to("cpu")

    def cuda(self, device: int | str | None = None) -> Module:
        return self.to("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)

    # -- printing -----------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr().split("\n") if self.extra_repr() else []
        children = [f"({name}): " + "\n  ".join(repr(module).split("\n")) for name, module in self._modules.items()]
        if len(extra) <= 1 and not children:
            return f"{type(self).__name__}({''.join(extra)})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(extra + children) + "\n)"


def _misfit(key: str, own: Tensor, given: Any) -> list[str]:
    if not isinstance(given, Tensor):
        return [f"type: {key} must be a Tensor, got {type(given).__name__}"]
    if tuple(own.shape) != tuple(given.shape):
        return [f"shape: {key} must be {tuple(own.shape)}, got {tuple(given.shape)}"]
    if own.dtype != given.dtype and not (own.is_floating_point() and given.is_floating_point()):
        return [f"dtype: {key} must be {own.dtype}, got {given.dtype}"]
    return []


def _named_dtype(name: str) -> Any:
    import tilewright

    return getattr(tilewright, name)


def _dtype_class() -> type:
    return type(_named_dtype("float32"))
