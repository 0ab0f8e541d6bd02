"""Schedules that go up and down: of `lr_scheduler`, where PyTorch has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tilewright.optim.lr_scheduler import LRScheduler, _per_group, _set_momentum
from tilewright.optim.optimizer import Optimizer


class OneCycleLR(LRScheduler):
    """One rise from max_lr / div_factor to max_lr and one fall to initial / final_div_factor, in total_steps steps.

    The momentum (or Adam's first beta) goes the opposite way between max_momentum and base_momentum. With
    three_phase the fall first mirrors the rise. Source: Smith & Topin 2017 (arXiv:1708.07120).
    """

    def __init__(self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", cycle_momentum: bool = True,
                 base_momentum: float | Sequence[float] = 0.85, max_momentum: float | Sequence[float] = 0.95,
                 div_factor: float = 25.0, final_div_factor: float = 1e4,
                 three_phase: bool = False, last_epoch: int = -1, verbose: bool = False) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: give total_steps, or both epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if total_steps < 1:
            raise ValueError(f"OneCycleLR: total_steps must be >= 1, got {total_steps}")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start must be in [0, 1], got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        groups = optimizer.param_groups
        peaks = _per_group("OneCycleLR", "max_lr", max_lr, groups)
        lows, highs = (_per_group("OneCycleLR", name, value, groups) for name, value in (
            ("base_momentum", base_momentum), ("max_momentum", max_momentum)))
        self.total_steps, self.anneal_strategy, self.cycle_momentum = total_steps, anneal_strategy, cycle_momentum
        rise = pct_start * total_steps - 1
        low, high = ("max_momentum", "base_momentum")  # the momentum is highest where the rate is lowest
        if three_phase:
            self._phases = [(rise, "initial_lr", "max_lr", low, high), (2 * rise, "max_lr", "initial_lr", high, low),
                            (total_steps - 1, "initial_lr", "min_lr", low, low)]
        else:
            self._phases = [(rise, "initial_lr", "max_lr", low, high), (total_steps - 1, "max_lr", "min_lr", high, low)]
        if last_epoch == -1:
            for group, peak, least, most in zip(groups, peaks, lows, highs, strict=True):
                group["lr"] = peak / div_factor
                group["max_lr"], group["min_lr"] = peak, peak / div_factor / final_div_factor
                if cycle_momentum:
                    _set_momentum("OneCycleLR", group, most)
                    group["max_momentum"], group["base_momentum"] = most, least
        super().__init__(optimizer, last_epoch, verbose)

    def _between(self, start: float, end: float, done: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * done + start
        return end + (start - end) / 2.0 * (1 + math.cos(math.pi * done))

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(f"OneCycleLR: step must be called at most total_steps = {self.total_steps} times, got "
                             f"step {step}")
        begin = 0.0
        for phase in self._phases:
            end = phase[0]
            if step <= end or phase is self._phases[-1]:
                break
            begin = end
        done = (step - begin) / (end - begin)
        _, lr_from, lr_to, momentum_from, momentum_to = phase
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[lr_from], group[lr_to], done))
            if self.cycle_momentum:
                _set_momentum("OneCycleLR", group, self._between(group[momentum_from], group[momentum_to], done))
        return rates


class CyclicLR(LRScheduler):
    """Up from base_lr to max_lr in step_size_up steps and back in step_size_down, again and again.

    mode: 'triangular' keeps the height, 'triangular2' halves it each cycle, 'exp_range' multiplies it by gamma each
    step; or a scale_fn of the cycle or, with scale_mode 'iterations', of the step. The momentum (or Adam's first beta)
    goes the opposite way. Source: Smith 2015 (arXiv:1506.01186).
    """

    def __init__(self, optimizer: Optimizer, base_lr: float | Sequence[float], max_lr: float | Sequence[float],
                 step_size_up: int = 2000, step_size_down: int | None = None, mode: str = "triangular",
                 gamma: float = 1.0, scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
                 cycle_momentum: bool = True, base_momentum: float | Sequence[float] = 0.8,
                 max_momentum: float | Sequence[float] = 0.9, last_epoch: int = -1, verbose: bool = False) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"CyclicLR: optimizer must be an Optimizer, got {type(optimizer).__name__}")
        if scale_fn is None and mode not in ("triangular", "triangular2", "exp_range"):
            raise ValueError(f"CyclicLR: mode must be 'triangular', 'triangular2' or 'exp_range', got {mode!r}")
        groups = optimizer.param_groups
        low, self.max_lrs, self.base_momentums, self.max_momentums = (
            _per_group("CyclicLR", name, value, groups) for name, value in (
                ("base_lr", base_lr), ("max_lr", max_lr), ("base_momentum", base_momentum),
                ("max_momentum", max_momentum)))
        self.total_size = float(step_size_up) + float(step_size_up if step_size_down is None else step_size_down)
        self.step_ratio = float(step_size_up) / self.total_size
        self.mode, self.gamma, self.cycle_momentum = mode, gamma, cycle_momentum
        self.scale_mode = scale_mode if scale_fn is not None else "iterations" if mode == "exp_range" else "cycle"
        self._scale_fn = scale_fn
        if last_epoch == -1:
            for group, lr, most, least in zip(groups, low, self.max_momentums, self.base_momentums, strict=True):
                group["lr"] = lr
                if cycle_momentum:
                    _set_momentum("CyclicLR", group, most)
                    group["max_momentum"], group["base_momentum"] = most, least
        super().__init__(optimizer, last_epoch, verbose)
        self.base_lrs = low

    def scale_fn(self, x: float) -> float:
        """The height of cycle or step x."""
        if self._scale_fn is not None:
            return self._scale_fn(x)
        return self.gamma**x if self.mode == "exp_range" else 0.5 ** (x - 1) if self.mode == "triangular2" else 1.0

    def get_lr(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, low, high in zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums,
                                        strict=True):
                _set_momentum("CyclicLR", group, high - (high - low) * height * scale)
        return [low + (high - low) * height * scale for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and a scale_fn of one's own."""
        return {key: value for key, value in super().state_dict().items() if key != "_scale_fn"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({key: value for key, value in state_dict.items() if not key.startswith("_scale_fn")})


class CosineAnnealingWarmRestarts(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi T_cur / T_i)) / 2; after T_i steps T_cur is 0 again and T_i is
    T_mult times as long.

    Source: Loshchilov & Hutter 2016 (arXiv:1608.03983).
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1,
                 verbose: bool = False) -> None:
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            if value < 1 or not isinstance(value, int):
                raise ValueError(f"CosineAnnealingWarmRestarts: {name} must be an int >= 1, got {value}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        self.T_i = T_0
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch, verbose)

    def get_lr(self) -> list[float]:
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]

    def _advance(self, epoch: float | None) -> None:
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            if epoch < 0:
                raise ValueError(f"CosineAnnealingWarmRestarts: epoch must not be negative, got {epoch}")
            # The number of restarts so far: the geometric sum T_0 (T_mult^n - 1) / (T_mult - 1) is within epoch.
            if self.T_mult == 1:
                self.T_cur = epoch % self.T_0
            else:
                n = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
                self.T_cur = epoch - self.T_0 * (self.T_mult**n - 1) // (self.T_mult - 1)
                self.T_i = self.T_0 * self.T_mult**n
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())
