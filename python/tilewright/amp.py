"""Mixed precision: `autocast` runs products in half precision, `GradScaler` keeps float16 gradients from vanishing.

>>> import tilewright as tw
>>> x, w = tw.ones(2, 3), tw.ones(3, 2)
>>> with tw.autocast("cpu", dtype=tw.bfloat16):
...     y = x @ w
>>> y.dtype, (x @ w).dtype
(tilewright.bfloat16, tilewright.float32)
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from typing import Any

import tilewright as tw
from tilewright import _engine
from tilewright.autocast import autocast, is_autocast_enabled
from tilewright.autograd import no_grad
from tilewright.optim import Optimizer

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available", "is_autocast_enabled"]


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast knows the device type."""
    return device_type in ("cpu", "cuda")


def custom_fwd(fwd: Any = None, *, device_type: str = "cuda", cast_inputs: Any = None) -> Any:
    """Decorator of an autograd Function's forward: floating inputs in `cast_inputs`, and autocast off within."""
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def wrapped(*args, **kwargs):
        if cast_inputs is None or not is_autocast_enabled():
            return fwd(*args, **kwargs)
        with autocast(device_type, enabled=False):
            return fwd(*(a.to(cast_inputs) if isinstance(a, tw.Tensor) and a.is_floating_point() else a for a in args),
                       **kwargs)

    return wrapped


def custom_bwd(bwd: Any = None, *, device_type: str = "cuda") -> Any:
    """Decorator of an autograd Function's backward; gradients never run under autocast here."""
    return bwd if bwd is not None else lambda function: function


class GradScaler:
    """Multiplies the loss so that float16 gradients stay above the smallest number, and skips steps that overflow.

    The scale grows by growth_factor after growth_interval good steps and shrinks by backoff_factor after one whose
    gradients are not finite. All gradients of an optimizer are unscaled in one launch, which looks for what is not
    finite on its way. Micikevicius et al. 2017 (arXiv:1710.03740).

    Raises:
        RuntimeError: `unscale_` twice, or `update` before any step.
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
                 backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True) -> None:
        if isinstance(device, int | float):  # cuda.amp's scaler has no device
            device, init_scale = "cuda", device
        if not growth_factor > 1 or not 0 < backoff_factor < 1:
            raise ValueError("GradScaler: growth_factor must be > 1 and backoff_factor in (0, 1), got "
                             f"{growth_factor} and {backoff_factor}")
        self._scale, self._growth, self._backoff = float(init_scale), growth_factor, backoff_factor
        self._interval, self._enabled, self._good = growth_interval, enabled, 0
        self._found: dict[int, Any] = {}  # optimizer -> 0-d tensor, 1 where a gradient is not finite
        self._stage: defaultdict[int, str] = defaultdict(lambda: "ready")

    def is_enabled(self) -> bool:
        """Whether it scales at all."""
        return self._enabled

    def get_scale(self) -> float:
        """The factor in use."""
        return self._scale if self._enabled else 1.0

    def scale(self, outputs):
        """The loss (or a list of losses) times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, tw.Tensor):
            return outputs * self._scale
        return type(outputs)(self.scale(x) for x in outputs)

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divides the optimizer's gradients by the scale, before clipping, say; `step` does it otherwise."""
        if not self._enabled:
            return
        if self._stage[id(optimizer)] != "ready":
            raise RuntimeError("GradScaler: unscale_() has been called for this optimizer since the last update()")
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._stage[id(optimizer)] = "unscaled"
        if not grads:
            return
        with no_grad():
            device = grads[0].device
            found = tw.zeros((), device=device)
            _engine.grad_scale([g.array for g in grads], tw.tensor(1 / self._scale, dtype=tw.float64).to(device).array,
                               found.array)
        self._found[id(optimizer)] = found

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """`optimizer.step()`, unless a gradient is not finite."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if self._stage[id(optimizer)] == "stepped":
            raise RuntimeError("GradScaler: step() has been called for this optimizer since the last update()")
        if self._stage[id(optimizer)] == "ready":
            self.unscale_(optimizer)
        self._stage[id(optimizer)] = "stepped"
        found = self._found.get(id(optimizer))
        if found is None:
            raise RuntimeError("GradScaler: no gradients were found; call scale(loss).backward() before step()")
        return None if found.item() else optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | None = None) -> None:
        """Moves the scale for the next round."""
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale)
        elif not self._found:
            raise RuntimeError("GradScaler: update() needs a step() or unscale_() before it")
        elif any(found.item() for found in self._found.values()):
            self._scale, self._good = self._scale * self._backoff, 0
        else:
            self._good += 1
            if self._good == self._interval:
                if math.isfinite(self._scale * self._growth):
                    self._scale *= self._growth
                self._good = 0
        self._found.clear()
        self._stage.clear()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from."""
        return {"scale": self._scale, "growth_factor": self._growth, "backoff_factor": self._backoff,
                "growth_interval": self._interval, "_growth_tracker": self._good} if self._enabled else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a `state_dict()`."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("GradScaler: the state is empty; it was saved by a scaler that was not enabled")
        self._scale, self._good = float(state_dict["scale"]), int(state_dict["_growth_tracker"])
        self._growth, self._backoff = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._interval = state_dict["growth_interval"]


