"""State dicts: how a tree of modules gives out its parameters and buffers by name, and takes them back.

The protocol (which method or hook is called when, with what) is the one PyTorch documents for `torch.nn.Module`,
because public modules override `_load_from_state_dict` and register hooks to rename what older checkpoints hold.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tilewright.autograd import no_grad
from tilewright.nn.parameter import Parameter
from tilewright.tensor import RemovableHandle, Tensor

_EXTRA, _PENDING = "_extra_state", "tilewright.pending"
hook_numbers = itertools.count()


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` did not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class StateDictError(RuntimeError, ValueError):
    """A state dict that does not fit. A ValueError by its nature and a RuntimeError because PyTorch raises one."""


class Stateful:
    """The part of `Module` that saves and loads."""

    _version: int | None = 1  # of the layout of this class's state; saved beside it
    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]
    _non_persistent_buffers: set[str]

    # -- hooks --------------------------------------------------------------------------------------------------------

    def _add_state_hook(self, kind: str, hook: Any) -> RemovableHandle:
        hooks = self.__dict__.setdefault(kind, OrderedDict())
        hooks[key := next(hook_numbers)] = hook
        return RemovableHandle(hooks, key)

    def _state_hooks(self, kind: str) -> tuple[Callable, ...]:
        return tuple(self.__dict__.get(kind, {}).values())

    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls `hook(module, prefix, keep_vars)` before this module's state is gathered."""
        return self._add_state_hook("_state_dict_pre_hooks", hook)

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls `hook(module, state_dict, prefix, local_metadata)` once this module's state is gathered."""
        return self._add_state_hook("_state_dict_post_hooks", hook)

    def _register_state_dict_hook(self, hook: Callable) -> RemovableHandle:
        """As register_state_dict_post_hook; a result that is not None becomes the state dict."""
        return self._add_state_hook("_state_dict_hooks", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls `hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)`
        before this module takes its part of state_dict, which the hook may change."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def _register_load_state_dict_pre_hook(self, hook: Callable, with_module: bool = False) -> RemovableHandle:
        return self._add_state_hook("_load_state_dict_pre_hooks", _WithModule(hook) if with_module else hook)

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls `hook(module, incompatible_keys)` once this module is loaded; it may change the lists of keys."""
        return self._add_state_hook("_load_state_dict_post_hooks", hook)

    def get_extra_state(self) -> Any:
        """What a subclass adds to its state dict besides tensors; a class that writes it writes set_extra_state too."""
        raise NotImplementedError(f"{type(self).__name__}: get_extra_state must be written by the subclass")

    def set_extra_state(self, state: Any) -> None:
        """Takes back what get_extra_state gave."""
        raise NotImplementedError(f"{type(self).__name__}: set_extra_state must be written by the subclass")

    # -- saving -------------------------------------------------------------------------------------------------------

    def _own_state(self) -> Iterator[tuple[str, dict, Tensor]]:
        """(name, the dict that holds it, tensor) of what this module itself puts into a state dict."""
        for name, param in self._parameters.items():
            if param is not None:
                yield name, self._parameters, param
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers:
                yield name, self._buffers, buffer

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        """Puts what this module itself holds into `destination`; subclasses may override it."""
        for name, _, tensor in self._own_state():
            destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if type(self).get_extra_state is not Stateful.get_extra_state:
            destination[prefix + _EXTRA] = self.get_extra_state()

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "",
                   keep_vars: bool = False) -> dict[str, Any]:
        """All parameters and persistent buffers by path; detached, and sharing memory with the module."""
        given: list[Any] = [destination, prefix, keep_vars]
        destination, prefix, keep_vars = [*args, *given[len(args):]]
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local
        for hook in self._state_hooks("_state_dict_pre_hooks"):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_hooks("_state_dict_post_hooks"):
            hook(self, destination, prefix, local)
        for hook in self._state_hooks("_state_dict_hooks"):
            result = hook(self, destination, prefix, local)
            destination = destination if result is None else result
        return destination

    # -- loading ------------------------------------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, strict: bool,
                              missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str]) -> None:
        """Takes this module's own part of `state_dict`; subclasses may override it, and call this one.

        What is wrong is added to the lists. Nothing is copied before the whole tree is known to fit.
        """
        for hook in self._state_hooks("_load_state_dict_pre_hooks"):
            args = (state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
            hook.hook(self, *args) if isinstance(hook, _WithModule) else hook(*args)
        pending = local_metadata.get(_PENDING)
        own_names = set(self._modules)
        for name, holder, own in self._own_state():
            key = prefix + name
            own_names.add(name)
            if key not in state_dict:
                missing_keys += [key] if strict else []
                continue
            given = state_dict[key]
            if isinstance(given, Tensor) and own.dim() == 0 and tuple(given.shape) == (1,):
                given = given[0]  # scalars of checkpoints from before PyTorch 0.4
            error = _misfit(key, own, given)
            if error:
                error_msgs.append(error)
                continue
            job = (holder, name, own, given, local_metadata.get("assign_to_params_buffers", False))
            _take(*job) if pending is None else pending.append(job)
        if type(self).set_extra_state is not Stateful.set_extra_state:
            own_names.add(_EXTRA)
            if prefix + _EXTRA in state_dict:
                self.set_extra_state(state_dict[prefix + _EXTRA])
            elif strict:
                missing_keys.append(prefix + _EXTRA)
        if strict:
            unexpected_keys += [key for key in state_dict
                                if key.startswith(prefix) and key[len(prefix):].partition(".")[0] not in own_names]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True,
                        assign: bool = False) -> IncompatibleKeys:
        """Copies `state_dict` into this module's parameters and buffers, converting between floating-point types.

        With `strict=False` names found on one side only are reported, not refused; with `assign=True` the tensors
        themselves take the place of the module's.

        Raises:
            StateDictError: (a ValueError and RuntimeError) listing every missing and unexpected name and every wrong
                shape and dtype at once; the module is then unchanged, if it has no load_state_dict_post_hook.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: state_dict must be a mapping, got {type(state_dict).__name__}")
        metadata = getattr(state_dict, "_metadata", {}) or {}
        keys = IncompatibleKeys([], [])
        errors: list[str] = []
        pending: list[tuple] = []
        hooks: list[tuple[Callable, Any]] = []

        def load(module: Any, part: dict, prefix: str) -> None:
            local = {**metadata.get(prefix[:-1], {}), _PENDING: pending, "assign_to_params_buffers": assign}
            module._load_from_state_dict(part, prefix, local, True, *keys, errors)
            parts: dict[str, dict] = {}
            for key, value in part.items():
                if key.startswith(prefix):
                    parts.setdefault(key[len(prefix):].partition(".")[0], {})[key] = value
            for name, child in module._modules.items():
                if child is not None:
                    load(child, parts.get(name, {}), f"{prefix}{name}.")
            hooks.extend((hook, module) for hook in module._state_hooks("_load_state_dict_post_hooks"))

        load(self, dict(state_dict), "")
        if hooks and not errors:
            for job in pending:
                _take(*job)
            for hook, module in hooks:
                hook(module, keys)
        lists = (("Unexpected", keys.unexpected_keys), ("Missing", keys.missing_keys)) if strict else ()
        for word, names in lists:
            if names:
                quoted = ", ".join(f'"{name}"' for name in names)
                errors.insert(0, f"{word} key(s) in state_dict: {quoted}. ")
        if errors:
            raise StateDictError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(errors))
        if not hooks:
            for job in pending:
                _take(*job)
        return keys


class _WithModule:
    """A load_state_dict pre-hook that wants its module first."""

    def __init__(self, hook: Callable) -> None:
        self.hook = hook


def _misfit(key: str, own: Tensor, given: Any) -> str:
    if not isinstance(given, Tensor):
        return f"type mismatch for {key}: must be a Tensor, got {type(given).__name__}."
    if tuple(own.shape) != tuple(given.shape):
        return (f"size mismatch for {key}: copying a param with shape Size({list(given.shape)}) from checkpoint, the "
                f"shape in current model is Size({list(own.shape)}).")
    if own.dtype != given.dtype and not (own.is_floating_point() and given.is_floating_point()):
        return f"dtype mismatch for {key}: must be {own.dtype}, got {given.dtype}."
    return ""


def _take(holder: dict, name: str, own: Tensor, given: Tensor, assign: bool) -> None:
    with no_grad():
        if not assign:
            own.copy_(given)
        elif isinstance(own, Parameter):
            holder[name] = given if isinstance(given, Parameter) else Parameter(given, own.requires_grad)
        else:
            holder[name] = given


def consume_prefix_in_state_dict_if_present(state_dict: dict[str, Any], prefix: str) -> None:
    """Takes `prefix` (such as "module.", which DataParallel leaves) off the names in state_dict, in place.

    >>> state = {"module.weight": 1, "other": 2}
    >>> consume_prefix_in_state_dict_if_present(state, "module.")
    >>> state
    {'weight': 1, 'other': 2}
    """
    for key in list(state_dict):
        state_dict[key.removeprefix(prefix)] = state_dict.pop(key)
    metadata: Any = getattr(state_dict, "_metadata", {})
    for key in list(metadata):
        if key:
            stem = prefix.removesuffix(".")
            new = "" if key == stem else key.removeprefix(prefix)
            metadata[new] = metadata.pop(key)
