"""Pruning: a parameter becomes {name}_orig times the buffer {name}_mask, which a hook multiplies before each call."""

from __future__ import annotations

import numbers
from typing import Any, TypeVar

import tilewright as tw
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter
from tilewright.tensor import Tensor

M = TypeVar("M", bound=Module)


class _Pruned:
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: Any, args: Any) -> None:
        setattr(module, self.name, getattr(module, self.name + "_orig") * getattr(module, self.name + "_mask"))


def _hook_key(module: Module, name: str | None) -> Any:
    return next((key for key, (hook, _) in module._forward_pre_hooks.items()
                 if isinstance(hook, _Pruned) and name in (None, hook.name)), None)


def is_pruned(module: Module) -> bool:
    """Whether any parameter of the module or of its submodules is pruned."""
    return any(_hook_key(m, None) is not None for m in module.modules())


def custom_from_mask(module: M, name: str, mask: Tensor) -> M:
    """Prunes the parameter where `mask` is 0; a mask that it has already stays in force.

    Raises:
        ValueError: no such parameter, or a mask of another shape.
    """
    fresh = _hook_key(module, name) is None
    weight: Any = module._parameters.get(name if fresh else name + "_orig")
    if weight is None or weight.shape != mask.shape:
        raise ValueError(f"prune: mask must have the shape of parameter '{name}', got {tuple(mask.shape)} for "
                         f"{None if weight is None else tuple(weight.shape)}")
    mask = mask.to(weight.dtype)
    if fresh:
        del module._parameters[name]
        module.register_parameter(name + "_orig", weight)
        module.register_buffer(name + "_mask", mask)
        hook = _Pruned(name)
        module.register_forward_pre_hook(hook)
    else:
        held: Any = module._buffers
        held[name + "_mask"] = held[name + "_mask"] * mask
        hook = module._forward_pre_hooks[_hook_key(module, name)][0]
    hook(module, None)
    return module


def _lowest(module: Any, name: str, amount: float, scores: Tensor) -> Any:
    """Prunes the `amount` (a count, or a share) lowest scores among the values that are left."""
    before = getattr(module, name + "_mask", None)
    flat = scores.detach().reshape((-1,))
    left = flat.numel() if before is None else int(before.sum().item())
    if isinstance(amount, bool) or not isinstance(amount, numbers.Real) or amount < 0 or (
            amount > 1 if not isinstance(amount, numbers.Integral) else amount > left):
        raise ValueError(f"prune: amount must be a share in [0, 1] or a count of at most {left}, got {amount!r}")
    count = int(amount) if isinstance(amount, numbers.Integral) else round(amount * left)
    mask = tw.ones_like(flat)
    if count:
        if before is not None:  # what is pruned already is not counted again
            flat = flat.masked_fill(before.reshape((-1,)) == 0, float("inf"))
        mask[flat.topk(count, largest=False)[1]] = 0
    return custom_from_mask(module, name, mask.reshape(tuple(scores.shape)))


def l1_unstructured(module: M, name: str, amount: float, importance_scores: Tensor | None = None) -> M:
    """Prunes the values of the smallest |value|, or of the lowest importance_scores: `amount` is a share or a count.

    Raises:
        ValueError: no such parameter, or an amount outside [0, 1] or above the number of values left.

    >>> import tilewright as tw
    >>> layer = tw.nn.utils.prune.l1_unstructured(tw.nn.Linear(4, 5), "weight", 0.5)
    >>> int((layer.weight == 0).sum())
    10
    """
    value = getattr(module, name, None)
    if not isinstance(value, Tensor):
        raise ValueError(f"prune: {type(module).__name__} has no parameter '{name}'")
    return _lowest(module, name, amount, value.abs() if importance_scores is None else importance_scores)


def random_unstructured(module: M, name: str, amount: float) -> M:
    """Prunes values at random: `amount` is a share or a count."""
    return _lowest(module, name, amount, tw.rand_like(getattr(module, name).detach()))


def remove(module: M, name: str) -> M:
    """Makes the parameter an ordinary one again, with 0 where it was pruned.

    Raises:
        ValueError: it is not pruned.
    """
    key = _hook_key(module, name)
    if key is None:
        raise ValueError(f"prune: parameter '{name}' of {type(module).__name__} must be pruned to be removed")
    kept: Any = module._parameters.pop(name + "_orig")
    with tw.no_grad():
        kept.data = (kept * module._buffers.pop(name + "_mask")).detach()
    delattr(module, name)
    module.register_parameter(name, kept if isinstance(kept, Parameter) else Parameter(kept))
    del module._forward_pre_hooks[key]
    return module
