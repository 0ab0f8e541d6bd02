"""`Optimizer`: parameter groups, per-parameter state and their state dict, in PyTorch's format."""

from __future__ import annotations

import math
import numbers
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import tilewright as tw
from tilewright.autograd import enable_grad, no_grad
from tilewright.tensor import Tensor


def check_value(owner: str, name: str, value: Any, low: float = 0.0, below: float = math.inf) -> None:
    """A finite number in [low, below)."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number:
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
    if not (math.isfinite(value) and low <= value < below):
        rule = f"finite and >= {low:g}" if below == math.inf else f"in [{low:g}, {below:g})"
        raise ValueError(f"{owner}: {name} must be {rule}, got {value}")


def new_state(param: Tensor) -> Tensor:
    """Zeros for a running average of `param`; float32 for half precision, where small squares would vanish."""
    half = param.dtype in (tw.float16, tw.bfloat16)
    return tw.zeros(tuple(param.shape), dtype=tw.float32 if half else param.dtype, device=param.device)


class Optimizer:
    """Base class: holds `param_groups` (a list of dicts with 'params' and options) and `state` (tensor -> dict).

    Raises:
        ValueError: no parameters, one given twice, or one that is not a leaf.
        TypeError: something that is not a Tensor, or a lone Tensor in place of a list.
    """

    _scalars: ClassVar[dict[str, type]] = {"step": int}  # numbers in a parameter's state

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._checked: dict[int, list] = {}
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

    def _check_options(self, group: dict[str, Any]) -> None:
        """Refuses options that cannot work; called when a group is added and before each step."""

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
        seen = {id(param) for group in self.param_groups for param in group["params"]}
        for i, param in enumerate(params):
            if not isinstance(param, Tensor):
                raise TypeError(f"{name}: parameter {i} must be a Tensor, got {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError(f"{name}: parameter {i} must be a leaf, got a result of shape {tuple(param.shape)}")
            if id(param) in seen:
                raise ValueError(f"{name}: each parameter must be given once, got parameter {i} again")
            seen.add(id(param))
        group = {**self.defaults, **param_group, "params": params}
        self._check_options(group)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad = param.grad.detach().zero_()

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
                self._check_options(group)
                self._checked[id(group)] = options
        with no_grad():
            for group in self.param_groups:
                params = [param for param in group["params"] if param.grad is not None]
                if params:
                    self._update(group, params)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        raise NotImplementedError(f"{type(self).__name__}: an optimizer writes step() or _update()")

    def state_dict(self) -> dict[str, Any]:
        """{'state': {index: ...}, 'param_groups': [...]}, parameters counted over all groups in order."""
        numbers_of: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                numbers_of.setdefault(id(param), len(numbers_of))
            packed = {key: value for key, value in group.items() if key != "params"}
            groups.append({**packed, "params": [numbers_of[id(param)] for param in group["params"]]})
        state = {numbers_of[id(param)]: dict(values) for param, values in self.state.items() if id(param) in numbers_of}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the state and options of `state_dict`; this optimizer's own parameters stay.

        Raises:
            ValueError: another number of groups or parameters, or a state tensor of another shape; nothing is changed.
        """
        name = type(self).__name__
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
            groups.append({**own, **group, "params": own["params"]})
            self._check_options(groups[-1])
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        misfits = []
        for number, values in state_dict["state"].items():
            param = param_of.get(number)
            if param is None:
                misfits.append(f"state of parameter {number}, which no group holds")
                continue
            for key, value in values.items():
                fits = not isinstance(value, Tensor) or key in self._scalars or value.shape == param.shape
                if not fits:
                    misfits.append(f"{key} of parameter {number}: {tuple(value.shape)}, parameter {tuple(param.shape)}")
            if misfits:
                continue
            state[param] = {key: self._take(key, value, param) for key, value in values.items()}
        if misfits:
            raise ValueError(f"{name}: state_dict must fit the parameters, got\n  " + "\n  ".join(misfits))
        self.param_groups, self.state = groups, state

    def _take(self, key: str, value: Any, param: Tensor) -> Any:
        """A private copy of a state value, in the state's dtype; PyTorch's 0-d tensors become numbers."""
        if not isinstance(value, Tensor):
            return value
        if key in self._scalars:
            return self._scalars[key](value.item())
        return new_state(param).copy_(value.detach())

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])
