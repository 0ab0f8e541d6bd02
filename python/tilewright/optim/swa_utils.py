"""Averages of a model's weights over training: stochastic weight averaging and exponential moving averages.

Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization (2018), arXiv:1803.05407.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import tilewright as tw
from tilewright.autograd import no_grad
from tilewright.nn.module import Module
from tilewright.nn.norm import _BatchNorm
from tilewright.optim.lr_scheduler import LRScheduler
from tilewright.optim.optimizer import Optimizer
from tilewright.tensor import Tensor

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn",
           "update_bn"]


def _check_decay(decay: float) -> None:
    if not 0 <= decay <= 1:
        raise ValueError(f"ema: decay must be in [0, 1], got {decay}")


def get_ema_avg_fn(decay: float = 0.999) -> Callable:
    """A function of (average, value, count) that gives decay average + (1 - decay) value."""
    _check_decay(decay)
    return lambda average, value, count: average * decay + value * (1 - decay)


def get_swa_avg_fn() -> Callable:
    """A function of (average, value, count) that gives the mean of count + 1 values."""
    return lambda average, value, count: average + (value - average) / (count + 1)


def _over_lists(average_of: Callable) -> Callable:
    def update(averages: Iterable[Tensor], values: Iterable[Tensor], count: Any) -> None:
        with no_grad():
            for average, value in zip(averages, values, strict=True):
                average.copy_(average_of(average, value, count))

    return update


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable:
    """As get_ema_avg_fn, in place over two lists of tensors; integers are rounded towards 0."""
    return _over_lists(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> Callable:
    """As get_swa_avg_fn, in place over two lists of tensors; integers are rounded towards 0."""
    return _over_lists(get_swa_avg_fn())


class AveragedModel(Module):
    """A copy of a model, `module`, whose parameters are an average of those the model has had at update_parameters.

    Args:
        model: what is copied. device: where the copy lives.
        avg_fn: gives the new average of (average, value, count) of one parameter; by default the mean of all values.
        multi_avg_fn: the same in place over lists of tensors, (averages, values, count).
        use_buffers: average the buffers, too, rather than copy them.

    Raises:
        ValueError: both avg_fn and multi_avg_fn.

    >>> import tilewright as tw
    >>> net = tw.nn.Linear(1, 1, bias=False)
    >>> average = tw.optim.swa_utils.AveragedModel(net)
    >>> for value in (1.0, 2.0, 6.0):
    ...     _ = net.weight.data.fill_(value)
    ...     average.update_parameters(net)
    >>> average.module.weight.item()
    3.0
    """

    def __init__(self, model: Module, device: Any = None, avg_fn: Callable | None = None,
                 multi_avg_fn: Callable | None = None, use_buffers: bool = False) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("AveragedModel: avg_fn and multi_avg_fn must not both be given")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tw.tensor(0, device=device))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Takes the model's parameters into the average; the first time they are copied."""
        with no_grad():
            pairs: list[tuple[Tensor, Tensor]] = list(zip(self.module.parameters(), model.parameters(), strict=True))
            buffers = list(zip(self.module.buffers(), model.buffers(), strict=True))
            pairs += buffers if self.use_buffers else []
            count = self.n_averaged
            if int(count.item()) == 0:
                for average, value in pairs:
                    average.copy_(value.detach())
            elif pairs and self.avg_fn is None:
                update = self.multi_avg_fn or get_swa_multi_avg_fn()
                averages, values = zip(*pairs, strict=True)
                update([t.detach() for t in averages], [t.detach().to(a.device) for t, a in zip(values, averages,
                                                                                              strict=True)], count)
            else:
                average_of = self.avg_fn or get_swa_avg_fn()
                for average, value in pairs:
                    average.copy_(average_of(average.detach(), value.detach().to(average.device), count))
            if not self.use_buffers:
                for own, value in buffers:
                    own.copy_(value.detach())
            self.n_averaged.add_(1)


def update_bn(loader: Iterable, model: Module, device: Any = None) -> None:
    """Computes the running statistics of a model's batch norms anew, as the mean over the batches of `loader`.

    A batch may be a tensor, or a list or tuple whose first part is the model's input.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta, training = [m.momentum for m in norms], model.training
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with no_grad():
        for batch in loader:
            x = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(x if device is None else x.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


class SWALR(LRScheduler):
    """Takes each group's rate to swa_lr within anneal_epochs steps, along a cosine or a line, and keeps it there."""

    def __init__(self, optimizer: Optimizer, swa_lr: float | list[float], anneal_epochs: int = 10,
                 anneal_strategy: str = "cos", last_epoch: int = -1) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"SWALR: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        if isinstance(anneal_epochs, bool) or not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"SWALR: anneal_epochs must be an int >= 0, got {anneal_epochs!r}")
        groups = optimizer.param_groups
        rates = list(swa_lr) if isinstance(swa_lr, (list, tuple)) else [swa_lr] * len(groups)
        if len(rates) != len(groups):
            raise ValueError(f"SWALR: swa_lr must have one value for each group, got {len(rates)} for {len(groups)}")
        for group, rate in zip(groups, rates, strict=True):
            group["swa_lr"] = rate
        self.anneal_epochs, self.anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        """How far the way to swa_lr is gone."""
        done = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return done if self.anneal_strategy == "linear" else (1 - math.cos(math.pi * done)) / 2

    def get_lr(self) -> list[float]:
        step = self._step_count - 1
        step = max(1, step) if self.anneal_epochs == 0 else step
        before, now = self._share(step - 1), self._share(step)
        found = []
        for group in self.optimizer.param_groups:
            goal, lr = group["swa_lr"], float(group["lr"])
            start = goal if before == 1 else (lr - before * goal) / (1 - before)
            found.append(goal * now + start * (1 - now))
        return found
