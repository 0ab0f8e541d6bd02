"""`Module`: a tree of parameters, buffers and submodules with one `forward`.

The rules of attributes, names, state dicts and hooks are those PyTorch documents for `torch.nn.Module`
(https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html), so that its scripts run unchanged.
"""

from __future__ import annotations

import functools
import mmap
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from tilewright.autograd import no_grad
from tilewright.nn.parameter import Parameter
from tilewright.nn.state import IncompatibleKeys as IncompatibleKeys
from tilewright.nn.state import StateDictError as StateDictError
from tilewright.nn.state import Stateful, hook_numbers
from tilewright.tensor import RemovableHandle, Tensor

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_global_hooks: dict[str, OrderedDict] = {kind: OrderedDict() for kind in _HOOKS}

# Exceptions whose first argument is a message for people. KeyError's is a key, OSError's an error number.
_MESSAGE_ERRORS = (ArithmeticError, AssertionError, AttributeError, IndexError, MemoryError, RuntimeError, TypeError,
                   ValueError)


class Module(Stateful):
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

    def __init_subclass__(cls, **options: Any) -> None:
        """Gives a layer whose __init__ is a private base's one of its own name, for Python's errors tell that name."""
        super().__init_subclass__(**options)
        init: Any = cls.__init__
        if "__init__" not in vars(cls) and init.__qualname__.startswith("_"):
            own = types.FunctionType(init.__code__, init.__globals__, "__init__", init.__defaults__, init.__closure__)
            functools.update_wrapper(own, init)
            del own.__wrapped__  # type: ignore[attr-defined]
            own.__qualname__, own.__kwdefaults__ = f"{cls.__qualname__}.__init__", init.__kwdefaults__
            cls.__init__ = own  # type: ignore[method-assign, assignment]

    def __init__(self) -> None:
        attributes = self.__dict__
        attributes["training"] = True
        attributes["_parameters"] = {}
        attributes["_buffers"] = {}
        attributes["_modules"] = {}
        attributes["_non_persistent_buffers"] = set()
        for name in _HOOKS:
            attributes[name] = OrderedDict()  # id -> (hook, with_kwargs)

    # -- calling ------------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What a call computes; each subclass writes its own."""
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

    def _get_name(self) -> str:
        return type(self).__name__

    def _label(self) -> str:
        """A few words for error messages, such as 'Linear 1536 -> 1280'."""
        return self._get_name()

    def _hooks(self, kind: str) -> list[tuple[Callable, bool]]:
        return [*_global_hooks[kind].values(), *self.__dict__[kind].values()]

    def _call_with_hooks(self, args: tuple, kwargs: dict) -> Any:
        output, left = None, self._hooks("_forward_hooks")
        try:
            for hook, with_kwargs in self._hooks("_forward_pre_hooks"):
                if with_kwargs:
                    result = hook(self, args, kwargs)
                    if result is not None:
                        args, kwargs = result
                else:
                    result = hook(self, args)
                    if result is not None:
                        args = result if isinstance(result, tuple) else (result,)
            watch = None
            if self._hooks("_backward_hooks") or self._backward_pre_hooks or _global_hooks["_backward_pre_hooks"]:
                from tilewright.nn.backward_hooks import BackwardWatch

                watch = BackwardWatch(self)
                args = watch.watch_inputs(args)
            output = self.forward(*args, **kwargs)
            while left:
                hook, with_kwargs = left.pop(0)
                result = hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
                if result is not None:
                    output = result
        except Exception:
            for hook, with_kwargs in left:
                if id(hook) in self.__dict__.get("_always_called", ()):
                    try:
                        hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
                    except Exception as error:
                        warnings.warn(f"{self._get_name()}: a hook registered with always_call=True failed after "
                                      f"another error: {error}", stacklevel=2)
            raise
        return watch.watch_outputs(output) if watch else output

    # -- hooks --------------------------------------------------------------------------------------------------------

    def _add_hook(self, hooks: OrderedDict, hook: Callable, with_kwargs: bool, prepend: bool) -> RemovableHandle:
        key = next(hook_numbers)
        hooks[key] = (hook, with_kwargs)
        if prepend:
            hooks.move_to_end(key, last=False)
        self.__dict__["_has_hooks"] = True
        return RemovableHandle(hooks, key)

    def register_forward_pre_hook(self, hook: Callable, *, prepend: bool = False,
                                  with_kwargs: bool = False) -> RemovableHandle:
        """Calls `hook(module, args)` before forward; a result that is not None replaces the arguments."""
        return self._add_hook(self._forward_pre_hooks, hook, with_kwargs, prepend)

    def register_forward_hook(self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False,
                              always_call: bool = False) -> RemovableHandle:
        """Calls `hook(module, args, output)` after forward; a result that is not None replaces the output.

        With always_call the hook runs even where forward or an earlier hook fails, with None for the output.
        """
        if always_call:
            self.__dict__.setdefault("_always_called", set()).add(id(hook))
        return self._add_hook(self._forward_hooks, hook, with_kwargs, prepend)

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(module, grad_input, grad_output)` once the inputs' gradients are known.

        A result that is not None replaces `grad_input`. Only positional tensor arguments are watched.
        """
        return self._add_hook(self._backward_hooks, hook, False, prepend)

    def register_backward_hook(self, hook: Callable) -> RemovableHandle:
        """register_full_backward_hook under its old name, whose gradients PyTorch itself says not to rely on."""
        return self.register_full_backward_hook(hook)

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
        """Adds a parameter under a name; None keeps the name for one that may come."""
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
        """Adds a submodule under a name."""
        self._check_member_name(name, "module")
        if hasattr(self, name) and name not in self._modules:
            raise KeyError(f"{type(self).__name__}: attribute '{name}' already exists")
        if module is not None and not isinstance(module, Module):
            self._refuse(name, "module", "nn.Module or None", module)
        self._modules[name] = module

    register_module = add_module

    # -- walking the tree ---------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct submodules with their names, each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The direct submodules, each once."""
        return (module for _, module in self.named_children())

    def named_modules(self, memo: set | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their paths; those in `memo` are left out."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules(remove_duplicate=remove_duplicate))

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
        """The parameters with their paths, here and (with recurse) below; shared ones once."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, here and (with recurse) below; what an optimizer takes."""
        return (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their paths, here and (with recurse) below."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, here and (with recurse) below."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The submodule at a path such as "encoder.2"; AttributeError if there is none."""
        module: Any = self
        for name in target.split(".") if target else ():
            found = module._modules.get(name)
            if found is None:
                raise AttributeError(f"{type(self).__name__}: no submodule '{target}', {type(module).__name__} has no "
                                     f"module '{name}'")
            module = found
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts `module` at the path `target`; with strict, only in the place of another module.

        Raises:
            ValueError: an empty path. AttributeError: no parent there, or, with strict, nothing to replace.
        """
        if not target:
            raise ValueError(f"{type(self).__name__}: set_submodule needs the path of a submodule, got ''")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if not isinstance(module, Module):
            parent._refuse(name, "module", "nn.Module", module)
        if strict:
            self.get_submodule(target)
        setattr(parent, name, module)

    def _get_member(self, kind: str, word: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        member = self.get_submodule(path).__dict__[kind].get(name)
        if member is None:
            raise AttributeError(f"{type(self).__name__}: no {word} '{target}'")
        return member

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path such as "encoder.2.weight"; AttributeError if there is none."""
        return self._get_member("_parameters", "parameter", target)

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path; AttributeError if there is none."""
        return self._get_member("_buffers", "buffer", target)

    # -- modes ---------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Sets training mode (or, with False, evaluation) here and below: dropout and batch norm act on it."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be a bool, got {mode!r}")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Module:
        """Sets evaluation mode here and below."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Makes all parameters trained, or frozen with False."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets all gradients, or fills them with zeros."""
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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Module:
        """Replaces the contents of every parameter, gradient and buffer by `fn` of it; a parameter keeps its identity,
        so that optimizers go on holding it."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        with no_grad():
            for param in self._parameters.values():
                if param is not None:
                    grad = param.grad
                    param.grad = None
                    old = param.detach()
                    new = fn(old)
                    if new is not old:
                        param.data = new
                    if grad is not None:
                        param.grad = fn(grad)
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        return self

    def to_empty(self, *, device: Any, recurse: bool = True) -> Module:
        """Moves to `device` without copying: every parameter and buffer is left uninitialised."""
        return self._apply(lambda tensor: _top().empty_like(tensor, device=device), recurse)

    def share_memory(self) -> Module:
        """Moves parameters and buffers to memory that processes forked from now on share with this one."""
        return self._apply(_in_shared_memory)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: kernels are compiled with the wheel."""

    def to(self, *args: Any, **kwargs: Any) -> Module:
        """`to(device)`, `to(dtype)`, `to(device, dtype)` or `to(tensor)`, in place; a dtype goes to floats only."""
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        non_blocking = kwargs.pop("non_blocking", False)
        kwargs.pop("memory_format", None)  # every kernel takes every layout, so that there is one
        if kwargs:
            raise TypeError(f"to: got an unexpected keyword {', '.join(map(repr, kwargs))}")
        for arg in args:
            if isinstance(arg, Tensor):
                device, dtype = arg.device, arg.dtype
            elif isinstance(arg, _top().dtype):
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
        """Casts all parameters and buffers, in place."""
        return self._apply(lambda tensor: tensor.type(dst_type))

    def float(self) -> Module:
        """Makes floating-point parameters and buffers float32, in place."""
        return self.to(_top().float32)

    def double(self) -> Module:
        """Makes floating-point parameters and buffers float64, in place."""
        return self.to(_top().float64)

    def half(self) -> Module:
        """Makes floating-point parameters and buffers float16, in place."""
        return self.to(_top().float16)

    def bfloat16(self) -> Module:
        """Makes floating-point parameters and buffers bfloat16, in place."""
        return self.to(_top().bfloat16)

    def cpu(self) -> Module:
        """Moves parameters and buffers to host memory, in place."""
        return self.to("cpu")

    def cuda(self, device: int | str | None = None) -> Module:
        """Moves parameters and buffers to a GPU, in place."""
        return self.to("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)

    # -- printing -----------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What the printed form says between the parentheses; subclasses override it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr().split("\n") if self.extra_repr() else []
        children = [f"({name}): " + "\n  ".join(repr(module).split("\n")) for name, module in self._modules.items()]
        if len(extra) <= 1 and not children:
            return f"{self._get_name()}({''.join(extra)})"
        return f"{self._get_name()}(\n  " + "\n  ".join(extra + children) + "\n)"


def _top() -> Any:
    import tilewright

    return tilewright


def _in_shared_memory(tensor: Tensor) -> Tensor:
    if tensor.is_cuda:
        raise NotImplementedError("share_memory: memory is shared between processes on the CPU only, got a tensor on "
                                  f"{tensor.device}; call .cpu() first")
    import numpy as np

    values = tensor.numpy()
    shared = np.frombuffer(mmap.mmap(-1, max(values.nbytes, 1)), values.dtype, values.size).reshape(values.shape)
    shared[...] = values
    return _top().from_numpy(shared)


def _register_global(kind: str, hook: Callable, with_kwargs: bool = False) -> RemovableHandle:
    Module._has_hooks = True  # from now on every module looks for hooks
    _global_hooks[kind][key := next(hook_numbers)] = (hook, with_kwargs)
    return RemovableHandle(_global_hooks[kind], key)


def register_module_forward_pre_hook(hook: Callable) -> RemovableHandle:
    """`Module.register_forward_pre_hook` on every module there is and will be."""
    return _register_global("_forward_pre_hooks", hook)


def register_module_forward_hook(hook: Callable, *, with_kwargs: bool = False) -> RemovableHandle:
    """`Module.register_forward_hook` on every module there is and will be."""
    return _register_global("_forward_hooks", hook, with_kwargs)


def register_module_full_backward_pre_hook(hook: Callable) -> RemovableHandle:
    """`Module.register_full_backward_pre_hook` on every module there is and will be."""
    return _register_global("_backward_pre_hooks", hook)


def register_module_full_backward_hook(hook: Callable) -> RemovableHandle:
    """`Module.register_full_backward_hook` on every module there is and will be."""
    return _register_global("_backward_hooks", hook)
