"""SGD with momentum; the update itself is one kernel launch a group, csrc/kernels/cpu/optim.cpp."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tilewright import _engine
from tilewright.optim.optimizer import Optimizer, check_value, new_state
from tilewright.tensor import Tensor


class SGD(Optimizer):
    """g = grad + weight_decay p; v = momentum v + (1 - dampening) g; p = p - lr v.

    The first v is g. With nesterov the step is g + momentum v, without momentum it is g; with maximize the gradient's
    sign is turned. Source: Sutskever et al. 2013 (ICML), with the learning rate outside v, as in PyTorch.

    Raises:
        ValueError: an lr, momentum or weight_decay that is negative or not finite; nesterov without momentum.

    >>> import tilewright as tw
    >>> w = tw.nn.Parameter(tw.ones(2))
    >>> w.sum().backward()
    >>> tw.optim.SGD([w], lr=0.5).step()
    >>> w.tolist()
    [0.5, 0.5]
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-3, momentum: float = 0.0,
                 dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening,
                                  "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
                                  "foreach": foreach, "differentiable": differentiable, "fused": fused})

    def _check_options(self, group: dict[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            check_value("SGD", name, group[name])
        check_value("SGD", "dampening", group["dampening"], low=float("-inf"))
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(f"SGD: nesterov needs momentum > 0 and dampening 0, got {group['momentum']} and "
                             f"{group['dampening']}")

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        if group["momentum"] == 0:
            self._launch(group, params, [], first=False)
            return
        started = [p for p in params if self.state[p].get("momentum_buffer") is not None]
        if started:
            self._launch(group, started, [self.state[p]["momentum_buffer"] for p in started], first=False)
        if len(started) < len(params):
            fresh = [p for p in params if self.state[p].get("momentum_buffer") is None]
            buffers = [new_state(p) for p in fresh]
            self._launch(group, fresh, buffers, first=True)
            for param, buffer in zip(fresh, buffers, strict=True):
                self.state[param]["momentum_buffer"] = buffer

    @staticmethod
    def _launch(group: dict[str, Any], params: list[Tensor], buffers: list[Tensor], first: bool) -> None:
        _engine.sgd_step([p.array for p in params], [p.grad.array for p in params], [b.array for b in buffers],
                         group["lr"], group["momentum"], group["dampening"], group["weight_decay"],
                         group["nesterov"], group["maximize"], first)
