"""weight_norm and spectral_norm in their older form: hooks that set the weight before each call."""

from __future__ import annotations

from typing import Any, TypeVar

from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter
from tilewright.nn.utils.parametrizations import SpectralPower, check_iterations, norm_except_dim, spectral_dim
from tilewright.tensor import Tensor

M = TypeVar("M", bound=Module)


def _hook_of(module: Module, kind: Any, name: str) -> Any:
    for key, (hook, _) in module._forward_pre_hooks.items():
        if isinstance(hook, kind) and hook.name == name:
            return key, hook
    return None, None


def _install(module: Any, hook: Any, op: str) -> None:
    """Takes the parameter off the module and sets it before each call from now on."""
    if _hook_of(module, type(hook), hook.name)[1] is not None:
        raise RuntimeError(f"{op}: parameter '{hook.name}' has it already")
    weight = module._parameters.get(hook.name)
    if weight is None:
        raise ValueError(f"{op}: {type(module).__name__} has no parameter '{hook.name}'")
    del module._parameters[hook.name]
    hook.split(module, weight)
    setattr(module, hook.name, hook.compute(module))
    module.register_forward_pre_hook(hook)


def _remove(module: Any, kind: type, name: str, op: str, training: bool | None = None) -> None:
    key, hook = _hook_of(module, kind, name)
    if hook is None:
        raise ValueError(f"{op}: '{name}' of {type(module).__name__} does not have it")
    weight = hook.compute(module, training)
    delattr(module, name)
    for part in hook.parts:
        delattr(module, name + part)
    module.register_parameter(name, Parameter(weight.detach()))
    del module._forward_pre_hooks[key]


class WeightNorm:
    """The hook of weight_norm: {name} = {name}_g {name}_v / |{name}_v|."""

    parts = ("_g", "_v")

    def __init__(self, name: str, dim: int) -> None:
        self.name, self.dim = name, dim

    def split(self, module: Any, weight: Parameter) -> None:
        g = norm_except_dim(weight.detach(), 2, self.dim)
        module.register_parameter(self.name + "_g", Parameter(g, weight.requires_grad))
        module.register_parameter(self.name + "_v", Parameter(weight.detach(), weight.requires_grad))

    def compute(self, module: Any, training: bool | None = None) -> Tensor:
        g, v = getattr(module, self.name + "_g"), getattr(module, self.name + "_v")
        return v * (g / norm_except_dim(v, 2, self.dim))

    def __call__(self, module: Any, args: Any) -> None:
        setattr(module, self.name, self.compute(module))


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Splits a parameter into length {name}_g and direction {name}_v: w = g v / |v|, the norm over all dimensions but
    `dim`. `parametrizations.weight_norm` is its newer form.

    Raises:
        ValueError: no such parameter. RuntimeError: it is split already.

    Source: Salimans & Kingma, 2016 (arXiv:1602.07868).
    """
    _install(module, WeightNorm(name, -1 if dim is None else dim), "weight_norm")
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Makes `name` an ordinary parameter of its present value again."""
    _remove(module, WeightNorm, name, "remove_weight_norm")
    return module


class SpectralNorm:
    """The hook of spectral_norm: {name} = {name}_orig / sigma({name}_orig), from the buffers {name}_u and {name}_v."""

    parts = ("_orig", "_u", "_v")

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        self.name = name
        self.n_power_iterations = check_iterations("spectral_norm", n_power_iterations)
        self.power = SpectralPower(dim, eps)

    def split(self, module: Any, weight: Parameter) -> None:
        u, v = self.power.start(weight, 0)
        module.register_parameter(self.name + "_orig", weight)
        module.register_buffer(self.name + "_u", u)
        module.register_buffer(self.name + "_v", v)

    def compute(self, module: Any, training: bool | None = False) -> Tensor:
        weight, u, v = (getattr(module, self.name + part) for part in self.parts)
        matrix = self.power.matrix(weight)
        if training:
            self.power.iterate(matrix.detach().T, v, u, self.n_power_iterations)  # v first
        u, v = u.clone(), v.clone()  # of this call: the next one's iterations change the buffers
        return weight / (u * (matrix @ v)).sum()

    def __call__(self, module: Any, args: Any) -> None:
        setattr(module, self.name, self.compute(module, module.training))


def spectral_norm(module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  dim: int | None = None) -> M:
    """Divides a parameter by its largest singular value, which power iterations estimate in each call that trains.

    The parameter itself becomes {name}_orig. `parametrizations.spectral_norm` is its newer form.

    Raises:
        ValueError: no such parameter; n_power_iterations not positive. RuntimeError: it has spectral_norm already.

    Source: Miyato et al., 2018 (arXiv:1802.05957).
    """
    _install(module, SpectralNorm(name, n_power_iterations, spectral_dim(module, dim), eps), "spectral_norm")
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Makes `name` an ordinary parameter of its present value again."""
    _remove(module, SpectralNorm, name, "remove_spectral_norm", training=False)
    return module
