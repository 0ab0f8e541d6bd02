"""Adam and AdamW; the update itself is one kernel launch a group, csrc/kernels/cpu/optim.cpp."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tilewright import _engine
from tilewright.optim.optimizer import Optimizer, check_value, new_state
from tilewright.tensor import Tensor


class Adam(Optimizer):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p = p - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps).

    g = grad + weight_decay p; with amsgrad the largest v so far takes v's place; with maximize the gradient's sign is
    turned; with decoupled_weight_decay it is AdamW.

    Source: Kingma & Ba 2014 (arXiv:1412.6980); amsgrad: Reddi et al. 2018 (arXiv:1904.09237).

    Raises:
        ValueError: an lr, eps or weight_decay that is negative or not finite; betas outside [0, 1).

    >>> import tilewright as tw
    >>> w = tw.nn.Parameter(tw.ones(1))
    >>> w.sum().backward()
    >>> tw.optim.Adam([w], lr=0.25).step()
    >>> round(w.item(), 4)
    0.75
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
                 amsgrad: bool = False, *, foreach: bool | None = None, maximize: bool = False,
                 capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
                 decoupled_weight_decay: bool = False) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach, "fused": fused,
                                  "capturable": capturable, "differentiable": differentiable,
                                  "decoupled_weight_decay": decoupled_weight_decay})

    def _check_options(self, group: dict[str, Any]) -> None:
        owner = type(self).__name__
        for name in ("lr", "eps", "weight_decay"):
            check_value(owner, name, group[name])
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"{owner}: betas must be a pair, got {betas!r}")
        for i, beta in enumerate(betas):
            check_value(owner, f"betas[{i}]", beta, below=1.0)

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        by_step: dict[int, list[Tensor]] = {}
        for param in params:
            state = self.state[param]
            if not state:
                state["step"] = 0
                state["exp_avg"] = new_state(param)
                state["exp_avg_sq"] = new_state(param)
            if group["amsgrad"] and "max_exp_avg_sq" not in state:
                state["max_exp_avg_sq"] = new_state(param)
            by_step.setdefault(int(state["step"]) + 1, []).append(param)
        beta1, beta2 = group["betas"]
        for step, some in by_step.items():
            states = [self.state[param] for param in some]
            largest = [state["max_exp_avg_sq"].array for state in states] if group["amsgrad"] else []
            _engine.adam_step([p.array for p in some], [p.grad.array for p in some],
                              [state["exp_avg"].array for state in states],
                              [state["exp_avg_sq"].array for state in states], largest, step, group["lr"], beta1,
                              beta2, group["eps"], group["weight_decay"], group["decoupled_weight_decay"],
                              group["maximize"])
            for state in states:
                state["step"] = step


class AdamW(Adam):
    """Adam whose weight decay is apart from the gradient: p = p - lr weight_decay p, before the step.

    Source: Loshchilov & Hutter 2017 (arXiv:1711.05101).
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2,
                 amsgrad: bool = False, *, maximize: bool = False, foreach: bool | None = None,
                 capturable: bool = False, differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
                         capturable=capturable, differentiable=differentiable, fused=fused,
                         decoupled_weight_decay=True)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Optimizer's; the decay stays apart, whatever optimizer the state is from."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
