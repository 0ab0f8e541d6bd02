"""`Optimizer`: parameter groups, per-parameter state and their state dict, in PyTorch's format."""

from __future__ import annotations

import functools
import itertools
import math
import numbers
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import tilewright as tw
from tilewright.autograd import enable_grad, no_grad
from tilewright.tensor import RemovableHandle, Tensor

_numbers = itertools.count()  # of hooks


def check_value(owner: str, name: str, value: Any, low: float = 0.0, below: float = math.inf) -> None:
    """A finite number in [low, below), maybe in a tensor."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number:
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
    if not (math.isfinite(value) and low <= value < below):
        rule = f"finite and >= {low:g}" if below == math.inf else f"in [{low:g}, {below:g})"
        raise ValueError(f"{owner}: {name} must be {rule}, got {value}")


def _native(value: Any) -> Any:
    """A tensor of another library, or a NumPy array, as a Tensor; lists and tuples of them alike."""
    if isinstance(value, (list, tuple)):
        return type(value)(_native(v) for v in value)
    foreign = hasattr(value, "__array__") and not isinstance(value, Tensor)
    return tw.tensor(value.detach().cpu().numpy() if hasattr(value, "detach") else value) if foreign else value


def new_state(param: Tensor) -> Tensor:
    """Zeros for a running average of `param`; float32 for half precision, where small squares would vanish."""
    half = param.dtype in (tw.float16, tw.bfloat16)
    return tw.zeros(tuple(param.shape), dtype=tw.float32 if half else param.dtype, device=param.device)


_FLAGS = ("foreach", "fused", "capturable", "differentiable")


def _check_flags(owner: str, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
                 differentiable: bool = False) -> None:
    """The options by which PyTorch chooses an implementation. There is one here, and it is fused over all parameters;
    what it cannot do is refused."""
    if differentiable:
        raise NotImplementedError(f"{owner}: differentiable=True is not offered: a step is one kernel, which is not "
                                  f"recorded; write the update with tensor ops on autograd.grad(..., "
                                  f"create_graph=True)")
    if capturable:
        raise NotImplementedError(f"{owner}: capturable=True is not offered: the step count is a number of the launch; "
                                  f"leave it out, and do not replay a step from a recorded plan")
    if foreach and fused:
        raise ValueError(f"{owner}: foreach and fused must not both be True")


def _hooked(step: Callable) -> Callable:
    """`step` with the optimizer's hooks round it; an inner step of a base class calls none."""

    @functools.wraps(step)
    def wrapped(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        self._stepped = True
        if self._stepping or not self._hooks_of:
            return step(self, *args, **kwargs)
        self._stepping = True
        try:
            for hook in list(self._hooks("step_pre").values()):
                changed = hook(self, args, kwargs)
                if changed is not None:
                    args, kwargs = changed
            loss = step(self, *args, **kwargs)
            for hook in list(self._hooks("step_post").values()):
                hook(self, args, kwargs)
        finally:
            self._stepping = False
        return loss

    return wrapped


class Optimizer:
    """Base class: holds `param_groups` (a list of dicts with 'params' and options) and `state` (tensor -> dict).

    Parameters may be named, as `model.named_parameters()` gives them; a group then has 'param_names', too.

    Raises:
        ValueError: no parameters, one given twice, or one that is not a leaf.
        TypeError: something that is not a Tensor, or a lone Tensor in place of a list.
    """

    _scalars: ClassVar[dict[str, type]] = {"step": int}  # numbers in a parameter's state
    _stepping = False
    _stepped = False  # whether there was a step; schedules look
    _hooks_of: ClassVar[dict[str, dict[int, Callable]]] = {}  # of an instance once it is given a hook

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _hooked(cls.__dict__["step"])  # type: ignore[method-assign]

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._checked: dict[int, list] = {}
        self._tensors = False  # whether an option is in a tensor
        name = type(self).__name__
        if isinstance(params, (Tensor, dict)):
            raise TypeError(f"{name}: params must be an iterable of tensors or dicts, got a {type(params).__name__}")
        groups: list[Any] = list(params)
        if not groups:
            raise ValueError(f"{name}: params must hold at least one parameter, got an empty list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _hooks(self, kind: str) -> dict[int, Callable]:
        return self._hooks_of.get(kind, {})

    def _add_hook(self, kind: str, hook: Callable, prepend: bool = False) -> RemovableHandle:
        hooks, key = self.__dict__.setdefault("_hooks_of", {}).setdefault(kind, {}), next(_numbers)
        hooks[key] = hook
        if prepend:
            later = [(k, f) for k, f in hooks.items() if k != key]
            for k, f in later:
                del hooks[k]
                hooks[k] = f
        return RemovableHandle(hooks, key)

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls hook(optimizer, args, kwargs) before each step; it may return other (args, kwargs)."""
        return self._add_hook("step_pre", hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls hook(optimizer, args, kwargs) after each step."""
        return self._add_hook("step_post", hook)

    def register_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls hook(optimizer) before state_dict."""
        return self._add_hook("state_dict_pre", hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls hook(optimizer, state_dict) after state_dict; it may return another."""
        return self._add_hook("state_dict_post", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls hook(optimizer, state_dict) before load_state_dict, with a shallow copy; it may return another."""
        return self._add_hook("load_pre", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls hook(optimizer) after load_state_dict."""
        return self._add_hook("load_post", hook, prepend)

    def _check_options(self, group: dict[str, Any]) -> None:
        """Refuses options that cannot work; called when a group is added and before each step."""

    def _check(self, group: dict[str, Any]) -> None:
        _check_flags(type(self).__name__, **{name: group[name] for name in _FLAGS if name in group})
        self._check_options(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a dict with 'params' and any options that differ from the defaults."""
        name = type(self).__name__
        if not isinstance(param_group, dict):
            raise TypeError(f"{name}: a parameter group must be a dict, got {type(param_group).__name__}")
        params = param_group.get("params")
        if params is None or isinstance(params, (set, frozenset, str)):
            raise TypeError(f"{name}: a group's 'params' must be a tensor or an ordered iterable of them, got "
                            f"{type(params).__name__}")
        params = [params] if isinstance(params, Tensor) else list(params)
        names = {}
        if params and all(isinstance(param, tuple) and len(param) == 2 for param in params):
            names["param_names"] = [key for key, _ in params]
            params = [param for _, param in params]
        if any(("param_names" in group) != bool(names) for group in self.param_groups):
            raise ValueError(f"{name}: either all groups or none must name their parameters, got both")
        seen = {id(param) for group in self.param_groups for param in group["params"]}
        for i, param in enumerate(params):
            if not isinstance(param, Tensor):
                raise TypeError(f"{name}: parameter {i} must be a Tensor, got {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError(f"{name}: parameter {i} must be a leaf, got a result of shape {tuple(param.shape)}")
            if id(param) in seen:
                raise ValueError(f"{name}: each parameter must be given once, got parameter {i} again")
            seen.add(id(param))
        group = {**self.defaults, **param_group, "params": params, **names}
        self._check(group)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops all gradients, or with set_to_none=False fills them with 0."""
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad = param.grad.detach().zero_()

    @_hooked
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient. `closure` computes the loss anew; its value is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            # Options change seldom: those that were right at the last step are not looked at again.
            options = [group.get(name) for name in self.defaults]
            if self._checked.get(id(group)) != options:
                self._check(group)
                self._checked[id(group)] = options
                self._tensors = any(isinstance(v, Tensor) for g in self.param_groups for v in g.values())
        with no_grad():
            for group in self.param_groups:
                params = [param for param in group["params"] if param.grad is not None]
                if not params:
                    continue
                if self._tensors:  # a rate in a tensor, say
                    group = {k: v.item() if isinstance(v, Tensor) else v for k, v in group.items()}
                self._update(group, params)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        raise NotImplementedError(f"{type(self).__name__}: an optimizer writes step() or _update()")

    def state_dict(self) -> dict[str, Any]:
        """{'state': {index: ...}, 'param_groups': [...]}, parameters counted over all groups in order."""
        for hook in list(self._hooks("state_dict_pre").values()):
            hook(self)
        numbers_of: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                numbers_of.setdefault(id(param), len(numbers_of))
            packed = {key: value for key, value in group.items() if key != "params"}
            groups.append({**packed, "params": [numbers_of[id(param)] for param in group["params"]]})
        state = {numbers_of[id(param)]: dict(values) for param, values in self.state.items() if id(param) in numbers_of}
        found = {"state": state, "param_groups": groups}
        for hook in list(self._hooks("state_dict_post").values()):
            changed = hook(self, found)
            found = found if changed is None else changed
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the state and options of `state_dict`; this optimizer's own parameters stay.

        PyTorch's own state_dict will do: its tensors, and NumPy arrays, are copied.

        Raises:
            ValueError: another number of groups or parameters, or a state tensor of another shape; nothing is changed.
        """
        name = type(self).__name__
        state_dict = dict(state_dict) if isinstance(state_dict, dict) else state_dict
        for hook in list(self._hooks("load_pre").values()):
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= state_dict.keys():
            raise ValueError(f"{name}: a state_dict must have 'state' and 'param_groups'")
        saved = state_dict["param_groups"]
        own_sizes, saved_sizes = ([len(g["params"]) for g in groups] for groups in (self.param_groups, saved))
        if own_sizes != saved_sizes:
            raise ValueError(f"{name}: state_dict must have groups of {own_sizes} parameters, got {saved_sizes}")
        numbers_saved = [number for group in saved for number in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        param_of = dict(zip(numbers_saved, params, strict=True))
        groups = []
        for own, group in zip(self.param_groups, saved, strict=True):
            given = {key: _native(value) for key, value in group.items() if key not in (*_FLAGS, "param_names")}
            groups.append({**own, **given, "params": own["params"]})
            self._check(groups[-1])
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        misfits = []
        for number, values in state_dict["state"].items():
            param = param_of.get(number)
            if param is None:
                misfits.append(f"state of parameter {number}, which no group holds")
                continue
            values = {key: _native(value) for key, value in values.items()}
            for key, value in values.items():
                if not self._fits(key, value, param):
                    misfits.append(f"{key} of parameter {number}: {tuple(value.shape)}, parameter {tuple(param.shape)}")
            if misfits:
                continue
            state[param] = {key: self._take(key, value, param) for key, value in values.items()}
        if misfits:
            raise ValueError(f"{name}: state_dict must fit the parameters, got\n  " + "\n  ".join(misfits))
        self.param_groups, self.state = groups, state
        for hook in list(self._hooks("load_post").values()):
            hook(self)

    def _fits(self, key: str, value: Any, param: Tensor) -> bool:
        """Whether a saved value can be state of this parameter; what a user's own optimizer keeps is not known."""
        own = type(self).__module__.startswith("tilewright.")
        return not own or not isinstance(value, Tensor) or key in self._scalars or value.shape == param.shape

    def _take(self, key: str, value: Any, param: Tensor) -> Any:
        """A private copy of a state value, in the state's dtype; PyTorch's 0-d tensors become numbers."""
        if not isinstance(value, Tensor):
            return value
        if key in self._scalars:
            return self._scalars[key](value.item())
        if value.shape != param.shape:
            return value.detach().clone().to(param.dtype if value.is_floating_point() else value.dtype)
        return new_state(param).copy_(value.detach())

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])
