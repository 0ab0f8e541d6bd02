"""L-BFGS: a quasi-Newton method whose inverse Hessian is made of the latest steps and changes of the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tilewright as tw
from tilewright.autograd import enable_grad, no_grad
from tilewright.optim.optimizer import Optimizer, check_value
from tilewright.tensor import Tensor


class _Point(NamedTuple):
    """A place on the line of a search: the step t, the loss there, its gradient, and its slope along the line."""

    t: float
    loss: float
    gradient: Tensor
    slope: float


def _cubic(a: _Point, b: _Point, low: float, high: float) -> float:
    """Where the cubic through two points, with their slopes, is lowest, within [low, high]: equation 3.59."""
    first = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = first * first - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    a, b = (a, b) if a.t <= b.t else (b, a)
    root = math.sqrt(square)
    bottom = b.slope - a.slope + 2 * root
    t = b.t - (b.t - a.t) * (b.slope + root - first) / bottom if bottom else (low + high) / 2
    return min(max(t, low), high)


def _strong_wolfe(evaluate: Callable[[float], _Point], start: _Point, t: float, size: float, tolerance: float,
                  c1: float = 1e-4, c2: float = 0.9, most: int = 25) -> tuple[_Point, int]:
    """A point where the loss has fallen enough and the slope is small (algorithms 3.5 and 3.6), and how many
    evaluations it took. `size` is the direction's largest value."""

    def too_high(point: _Point, rival: _Point, strictly: bool = True) -> bool:
        return point.loss > start.loss + c1 * point.t * start.slope or (strictly and point.loss >= rival.loss)

    def flat(point: _Point) -> bool:
        return abs(point.slope) <= -c2 * start.slope

    # Bracketing: longer steps until an interval must hold such a point.
    before, now, count, rounds = start, evaluate(t), 1, 0
    bracket: list[_Point] = []
    while rounds < most:
        if too_high(now, before, rounds > 1):
            bracket = [before, now]
            break
        if flat(now):
            return now, count
        if now.slope >= 0:
            bracket = [before, now]
            break
        t = _cubic(before, now, now.t + 0.01 * (now.t - before.t), now.t * 10)
        before, now = now, evaluate(t)
        count, rounds = count + 1, rounds + 1
    bracket = bracket or [start, now]

    # Zooming in.
    def lower() -> int:
        return 0 if bracket[0].loss <= bracket[1].loss else 1

    low = lower()
    slow = False  # whether the latest step was close to an end of the interval
    while rounds < most:
        left, right = sorted(point.t for point in bracket)
        if (right - left) * size < tolerance:
            break
        t = _cubic(bracket[0], bracket[1], left, right)
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:
            if slow or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                slow = False
            else:
                slow = True
        else:
            slow = False
        now = evaluate(t)
        count, rounds = count + 1, rounds + 1
        if too_high(now, bracket[low]):
            bracket[1 - low] = now
            low = lower()
        elif flat(now):
            return now, count
        else:
            if now.slope * (bracket[1 - low].t - bracket[low].t) >= 0:
                bracket[1 - low] = bracket[low]
            bracket[low] = now
    return bracket[low], count


class LBFGS(Optimizer):
    """p = p - t H grad, H the inverse Hessian by the two-loop recursion over the latest `history_size` steps.

    One step runs up to `max_iter` iterations, or `max_eval` calls of the closure, which it needs: it must clear the
    gradients, compute the loss, call backward and return the loss. t is lr (smaller in the first iteration), or found
    by a line search, line_search_fn="strong_wolfe". There is one parameter group, whose gradients form one vector.

    Raises:
        ValueError: more than one group; another line_search_fn; an lr that is negative or not finite.

    Source: Nocedal & Wright, Numerical Optimization (2006), algorithms 7.4, 7.5, 3.5 and 3.6.

    >>> import tilewright as tw
    >>> w = tw.nn.Parameter(tw.tensor([4.0, -3.0]))
    >>> optimizer = tw.optim.LBFGS([w], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = ((w - 1) ** 2 * tw.tensor([1.0, 9.0])).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item()
    153.0
    >>> [round(v, 3) for v in w.tolist()]
    [1.0, 1.0]
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1, max_iter: int = 20,
                 max_eval: int | None = None, tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9,
                 history_size: int = 100, line_search_fn: str | None = None) -> None:
        super().__init__(params, {"lr": lr, "max_iter": max_iter,
                                  "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                                  "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
                                  "history_size": history_size, "line_search_fn": line_search_fn})
        if len(self.param_groups) != 1:
            raise ValueError(f"LBFGS: there must be one parameter group, got {len(self.param_groups)}")

    def _check_options(self, group: dict[str, Any]) -> None:
        for name in ("lr", "max_iter", "max_eval", "tolerance_grad", "tolerance_change", "history_size"):
            check_value("LBFGS", name, group[name])
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ValueError(f"LBFGS: line_search_fn must be None or 'strong_wolfe', got {group['line_search_fn']!r}")

    def _fits(self, key: str, value: Any, param: Tensor) -> bool:
        return True  # its vectors are of all parameters together

    def _take(self, key: str, value: Any, param: Tensor) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._take(key, v, param) for v in value]
        return value.detach().clone() if isinstance(value, Tensor) else value

    def _gradient(self, params: list[Tensor]) -> Tensor:
        return tw.cat([tw.zeros(p.numel(), dtype=p.dtype, device=p.device) if p.grad is None else p.grad.reshape(-1)
                       for p in params])

    @staticmethod
    def _move(params: list[Tensor], t: float, direction: Tensor) -> None:
        start = 0
        for p in params:
            p.add_(direction[start:start + p.numel()].reshape(p.shape), alpha=t)
            start += p.numel()

    @staticmethod
    def _direction(state: dict[str, Any], gradient: Tensor) -> Tensor:
        """-H gradient, by algorithm 7.4; old_stps are the steps s, old_dirs the gradient's changes y, ro 1 / (s y)."""
        q, shares = -gradient, []
        pairs = list(zip(state["old_stps"], state["old_dirs"], state["ro"], strict=True))
        for s, y, ro in reversed(pairs):
            shares.append(s.dot(q) * ro)
            q = q - y * shares[-1]
        r = q * state["H_diag"]
        for (s, y, ro), share in zip(pairs, reversed(shares), strict=True):
            r = r + s * (share - y.dot(r) * ro)
        return r

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Runs up to max_iter iterations; returns the loss that the closure gave first."""
        if closure is None:
            raise TypeError("LBFGS: step needs a closure, which computes the loss anew and calls backward")
        with no_grad():
            return self._iterate(closure)

    def _iterate(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        self._check(group)
        params, lr = group["params"], float(group["lr"])
        state = self.state[params[0]]

        def loss_of() -> Any:
            with enable_grad():
                return closure()

        first = loss_of()
        loss, gradient = float(first), self._gradient(params)
        evaluations, rounds = 1, 0
        state["func_evals"] = state.get("func_evals", 0) + 1
        state.setdefault("n_iter", 0)
        small = gradient.abs().max().item() <= group["tolerance_grad"]
        while not small and rounds < group["max_iter"]:
            rounds += 1
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                state.update(d=-gradient, old_dirs=[], old_stps=[], ro=[], H_diag=1)
                t = min(1.0, 1.0 / gradient.abs().sum().item()) * lr
            else:
                change, step = gradient - state["prev_flat_grad"], state["d"] * state["t"]
                along = change.dot(step)
                if along.item() > 1e-10:  # else the curvature is not positive, and would spoil H
                    for name, value in (("old_dirs", change), ("old_stps", step), ("ro", 1.0 / along)):
                        state[name] = [*state[name], value][-group["history_size"]:]
                    state["H_diag"] = along / change.dot(change)
                state["d"] = self._direction(state, gradient)
                t = lr
            state["prev_flat_grad"], state["prev_loss"], state["t"] = gradient.clone(), loss, t
            direction = state["d"]
            slope = gradient.dot(direction).item()
            if slope > -group["tolerance_change"]:
                break
            calls = 0
            if group["line_search_fn"] is not None:
                origin = [p.clone() for p in params]

                def restore(origin: list[Tensor] = origin) -> None:
                    for p, value in zip(params, origin, strict=True):
                        p.copy_(value)

                def evaluate(t: float, direction: Tensor = direction, restore: Callable = restore) -> _Point:
                    self._move(params, t, direction)
                    loss, gradient = float(loss_of()), self._gradient(params)
                    restore()
                    return _Point(t, loss, gradient, gradient.dot(direction).item())

                best, calls = _strong_wolfe(evaluate, _Point(0.0, loss, gradient, slope), t,
                                            direction.abs().max().item(), 1e-9)
                t, loss, gradient = best.t, best.loss, best.gradient
                state["t"] = t
                self._move(params, t, direction)
            else:
                self._move(params, t, direction)
                if rounds != group["max_iter"]:
                    loss, gradient, calls = float(loss_of()), self._gradient(params), 1
            small = gradient.abs().max().item() <= group["tolerance_grad"]
            evaluations += calls
            state["func_evals"] += calls
            if (evaluations >= group["max_eval"] or (direction * t).abs().max().item() <= group["tolerance_change"]
                    or abs(loss - state["prev_loss"]) < group["tolerance_change"]):
                break
        return first
