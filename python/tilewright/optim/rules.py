"""The optimizers beside SGD and Adam. Each step is one kernel launch a group, by the formulas of
csrc/kernels/optim_rules.h; g is grad + weight_decay p, its sign turned with `maximize`.

`foreach` and `fused` choose between PyTorch's implementations; here there is one, which is fused. `capturable` and
`differentiable` are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

from tilewright import _engine
from tilewright.optim.optimizer import Optimizer, check_value, new_state
from tilewright.tensor import Tensor


class _Ruled(Optimizer):
    """What they share: the states of each parameter, its step count, and one launch for all that are as far."""

    _rule = ""
    _extra: ClassVar[dict[str, float]] = {}  # further numbers in a parameter's state, and where they begin
    _limits: ClassVar[dict[str, dict[str, float]]] = {}  # option -> bounds of check_value; others must be >= 0

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], options: dict[str, Any]) -> None:
        self._scalars = {"step": int, **dict.fromkeys(self._extra, float)}  # type: ignore[misc]
        super().__init__(params, options)

    def _check_options(self, group: dict[str, Any]) -> None:
        owner = type(self).__name__
        for name in self.defaults:
            value = group[name]
            if isinstance(value, tuple | list):
                if len(value) != 2:
                    raise ValueError(f"{owner}: {name} must be a pair, got {value!r}")
                for i, part in enumerate(value):
                    check_value(owner, f"{name}[{i}]", part, **self._limits.get(name, {}))
            elif value is not None and not isinstance(value, bool):
                check_value(owner, name, value, **self._limits.get(name, {}))

    def _states(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        """The names of the rule's three states, None for one that this group does without."""
        raise NotImplementedError

    def _new(self, name: str, group: dict[str, Any], param: Tensor) -> Tensor:
        return new_state(param)

    def _numbers(self, group: dict[str, Any], t: int, extra: dict[str, float]) -> list[float]:
        """c of the rule for step t; changes `extra` to what it is after it."""
        raise NotImplementedError

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        names = self._states(group)
        together: dict[tuple, list[Tensor]] = {}
        for param in params:
            state = self.state[param]
            if not state:
                state.update(step=0, **{key: group["lr"] if key == "eta" else value
                                        for key, value in self._extra.items()})
            for name in names:
                if name and name not in state:
                    state[name] = self._new(name, group, param)
            key = (int(state["step"]) + 1, *(float(state[name]) for name in self._extra))
            together.setdefault(key, []).append(param)
        for (t, *values), some in together.items():
            states = [self.state[param] for param in some]
            extra = dict(zip(self._extra, values, strict=True))
            numbers = self._numbers(group, t, extra)
            decay, apart = group.get("weight_decay", 0.0), group.get("decoupled_weight_decay", False)
            first, second, third = ([state[name].array for state in states] if name else [] for name in names)
            _engine.rule_step(self._rule, [p.array for p in some], [p.grad.array for p in some], first, second, third,
                              numbers, 0.0 if apart else decay, 1 - group["lr"] * decay if apart else 1.0,
                              group["maximize"])
            for state in states:
                state.update(step=t, **extra)


class RMSprop(_Ruled):
    """v = alpha v + (1 - alpha) g^2; p = p - lr g / (sqrt(v) + eps); centered: v less the square of g's average; with
    momentum b = momentum b + g / (...) in the fraction's place.

    Raises:
        ValueError: an option that is negative or not finite.

    Source: Hinton, lecture 6e (2012); centred: Graves, arXiv:1308.0850.

    >>> import tilewright as tw
    >>> w = tw.nn.Parameter(tw.ones(1))
    >>> w.sum().backward()
    >>> tw.optim.RMSprop([w], lr=0.01).step()
    >>> round(w.item(), 4)
    0.9
    """

    _rule = "rmsprop"

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-2, alpha: float = 0.99,
                 eps: float = 1e-8, weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
                 capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
                                  "weight_decay": weight_decay, "maximize": maximize, "foreach": foreach,
                                  "capturable": capturable, "differentiable": differentiable})

    def _states(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("square_avg", "grad_avg" if group["centered"] else None,
                "momentum_buffer" if group["momentum"] > 0 else None)

    def _numbers(self, group: dict[str, Any], t: int, extra: dict[str, float]) -> list[float]:
        return [group["lr"], group["eps"], group["alpha"], 1 - group["alpha"], group["momentum"]]


class Adagrad(_Ruled):
    """s = s + g^2; p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps).

    Source: Duchi, Hazan, Singer, JMLR 12 (2011).
    """

    _rule = "adagrad"

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-2, lr_decay: float = 0.0,
                 weight_decay: float = 0.0, initial_accumulator_value: float = 0.0, eps: float = 1e-10,
                 foreach: bool | None = None, *, maximize: bool = False, differentiable: bool = False,
                 fused: bool | None = None) -> None:
        super().__init__(params, {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                                  "initial_accumulator_value": initial_accumulator_value, "maximize": maximize,
                                  "foreach": foreach, "fused": fused, "differentiable": differentiable})

    def _states(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("sum", None, None)

    def _new(self, name: str, group: dict[str, Any], param: Tensor) -> Tensor:
        return new_state(param).fill_(group["initial_accumulator_value"])

    def _numbers(self, group: dict[str, Any], t: int, extra: dict[str, float]) -> list[float]:
        return [group["lr"] / (1 + (t - 1) * group["lr_decay"]), group["eps"]]


class Adadelta(_Ruled):
    """s = rho s + (1 - rho) g^2; d = sqrt(u + eps) / sqrt(s + eps) g; u = rho u + (1 - rho) d^2; p = p - lr d.

    Source: Zeiler 2012 (arXiv:1212.5701).
    """

    _rule = "adadelta"
    _limits: ClassVar[dict[str, dict[str, float]]] = {"rho": {"below": 1.0 + 1e-12}}

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1.0, rho: float = 0.9,
                 eps: float = 1e-6, weight_decay: float = 0.0, foreach: bool | None = None, *,
                 capturable: bool = False, maximize: bool = False, differentiable: bool = False) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay,
                                  "maximize": maximize, "foreach": foreach, "capturable": capturable,
                                  "differentiable": differentiable})

    def _states(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("square_avg", "acc_delta", None)

    def _numbers(self, group: dict[str, Any], t: int, extra: dict[str, float]) -> list[float]:
        return [group["lr"], group["eps"], group["rho"], 1 - group["rho"]]


class Adamax(_Ruled):
    """m = b1 m + (1 - b1) g; u = max(b2 u, |g| + eps); p = p - lr / (1 - b1^t) m / u.

    Source: Kingma & Ba 2014 (arXiv:1412.6980), section 7.1.
    """

    _rule = "adamax"
    _limits: ClassVar[dict[str, dict[str, float]]] = {"betas": {"below": 1.0}}

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 2e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
                 foreach: bool | None = None, *, maximize: bool = False, differentiable: bool = False,
                 capturable: bool = False) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "maximize": maximize, "foreach": foreach, "capturable": capturable,
                                  "differentiable": differentiable})

    def _states(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("exp_avg", "exp_inf", None)

    def _numbers(self, group: dict[str, Any], t: int, extra: dict[str, float]) -> list[float]:
        beta1, beta2 = group["betas"]
        return [group["lr"] / (1 - beta1**t), group["eps"], beta2, 1 - beta1]


class NAdam(_Ruled):
    """Adam with Nesterov's momentum: mu_t = b1 (1 - 0.96^(t momentum_decay) / 2), M the product of all mu up to t;
    p = p - lr ((1 - mu_t) / (1 - M) g + mu_(t+1) / (1 - M mu_(t+1)) m) / (sqrt(v / (1 - b2^t)) + eps).

    Source: Dozat 2016, "Incorporating Nesterov Momentum into Adam".
    """

    _rule = "moments"
    _extra: ClassVar[dict[str, float]] = {"mu_product": 1.0}
    _limits: ClassVar[dict[str, dict[str, float]]] = {"betas": {"below": 1.0}}

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 2e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
                 momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False, differentiable: bool = False) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay,
                                  "maximize": maximize, "foreach": foreach, "capturable": capturable,
                                  "differentiable": differentiable})

    def _states(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("exp_avg", "exp_avg_sq", None)

    def _numbers(self, group: dict[str, Any], t: int, extra: dict[str, float]) -> list[float]:
        (beta1, beta2), lr = group["betas"], group["lr"]
        mu, following = (beta1 * (1 - 0.5 * 0.96 ** (n * group["momentum_decay"])) for n in (t, t + 1))
        extra["mu_product"] = product = extra["mu_product"] * mu
        return [lr * (1 - mu) / (1 - product), group["eps"], lr * following / (1 - product * following), 1 - beta1,
                beta2, 1 - beta2, 1 / math.sqrt(1 - beta2**t), 0.0]


class RAdam(_Ruled):
    """Adam whose step is without v while v's variance is unknown, and rectified by it after: with r = 2 / (1 - b2) - 1
    and r_t = r - 2 t b2^t / (1 - b2^t), for r_t > 5 Adam's step times
    sqrt((r_t - 4) (r_t - 2) r / ((r - 4) (r - 2) r_t)), else p = p - lr m / (1 - b1^t).

    Source: Liu et al. 2019 (arXiv:1908.03265).
    """

    _rule = "moments"
    _limits: ClassVar[dict[str, dict[str, float]]] = {"betas": {"below": 1.0}}

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
                 decoupled_weight_decay: bool = False, *, foreach: bool | None = None, maximize: bool = False,
                 capturable: bool = False, differentiable: bool = False) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize,
                                  "foreach": foreach, "capturable": capturable, "differentiable": differentiable})

    def _states(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("exp_avg", "exp_avg_sq", None)

    def _numbers(self, group: dict[str, Any], t: int, extra: dict[str, float]) -> list[float]:
        beta1, beta2 = group["betas"]
        rate, left = group["lr"] / (1 - beta1**t), 1 - beta2**t
        most = 2 / (1 - beta2) - 1
        known = most - 2 * t * beta2**t / left
        if known <= 5:
            return [0.0, group["eps"], 0.0, 1 - beta1, beta2, 1 - beta2, 1.0, rate]
        rectified = math.sqrt((known - 4) * (known - 2) * most / ((most - 4) * (most - 2) * known))
        return [0.0, group["eps"], rate * rectified * math.sqrt(left), 1 - beta1, beta2, 1 - beta2, 1.0, 0.0]


class Rprop(_Ruled):
    """Each value has a step size of its own, which grows by etas[1] while the gradient keeps its sign and shrinks by
    etas[0] where it turns (there the value rests once); p = p - sign(g) size.

    Source: Riedmiller & Braun, ICNN 1993.
    """

    _rule = "rprop"

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-2,
                 etas: tuple[float, float] = (0.5, 1.2), step_sizes: tuple[float, float] = (1e-6, 50.0), *,
                 capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False) -> None:
        super().__init__(params, {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize,
                                  "foreach": foreach, "capturable": capturable, "differentiable": differentiable})

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if not 0 < group["etas"][0] < 1 < group["etas"][1]:
            raise ValueError(f"Rprop: etas must be below and above 1, got {group['etas']}")

    def _states(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("prev", "step_size", None)

    def _new(self, name: str, group: dict[str, Any], param: Tensor) -> Tensor:
        return new_state(param).fill_(group["lr"] if name == "step_size" else 0.0)

    def _numbers(self, group: dict[str, Any], t: int, extra: dict[str, float]) -> list[float]:
        return [*group["etas"], *group["step_sizes"]]


class ASGD(_Ruled):
    """p = (1 - lambd eta) p - eta g, and state["ax"] = the average of p from step t0 on, where
    eta = lr / (1 + lambd lr t)^alpha.

    Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    _rule = "asgd"
    _extra: ClassVar[dict[str, float]] = {"eta": 0.0, "mu": 1.0}

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-2, lambd: float = 1e-4,
                 alpha: float = 0.75, t0: float = 1e6, weight_decay: float = 0.0, foreach: bool | None = None,
                 maximize: bool = False, differentiable: bool = False, capturable: bool = False) -> None:
        super().__init__(params, {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
                                  "maximize": maximize, "foreach": foreach, "capturable": capturable,
                                  "differentiable": differentiable})

    def _states(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("ax", None, None)

    def _numbers(self, group: dict[str, Any], t: int, extra: dict[str, float]) -> list[float]:
        numbers = [extra["eta"], 1 - group["lambd"] * extra["eta"], extra["mu"]]
        extra["eta"] = group["lr"] / (1 + group["lambd"] * group["lr"] * t) ** group["alpha"]
        extra["mu"] = 1 / max(1.0, t - group["t0"])
        return numbers


class SparseAdam:
    """Refused: there are no sparse gradients here; Adam and Adagrad take an Embedding's dense ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("SparseAdam: tilewright has no sparse tensors; use tw.optim.Adam, whose step over a "
                                  "dense gradient is one launch")
