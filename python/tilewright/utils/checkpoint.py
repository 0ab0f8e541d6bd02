"""Trading time for memory: what a part of the network computed is computed again when its gradient is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tilewright as tw
from tilewright.autograd import enable_grad, no_grad
from tilewright.function import Function


class _Checkpoint(Function):
    @staticmethod
    def forward(ctx: Any, run: Callable, keep_random: bool, always: Any, *args: Any) -> Any:
        ctx.run, ctx.args = run, args
        ctx.state = tw.get_rng_state() if keep_random else None
        with no_grad():
            return run(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        args = [a.detach().requires_grad_(a.requires_grad) if isinstance(a, tw.Tensor) else a for a in ctx.args]
        now = tw.get_rng_state()
        if ctx.state is not None:
            tw.set_rng_state(ctx.state)
        try:
            with enable_grad():
                results = ctx.run(*args)
        finally:
            tw.set_rng_state(now)
        results = results if isinstance(results, tuple) else (results,)
        pairs = [(y, g) for y, g in zip(results, grads, strict=True)
                 if isinstance(y, tw.Tensor) and y.requires_grad and g is not None]
        tw.autograd.backward([y for y, _ in pairs], [g for _, g in pairs])
        return None, None, None, *(a.grad if isinstance(a, tw.Tensor) else None for a in args)


def checkpoint(function: Callable, *args: Any, use_reentrant: bool | None = None, preserve_rng_state: bool = True,
               **kwargs: Any) -> Any:
    """function(*args), keeping its arguments and not what it computed; its backward runs it once more.

    The second run draws the same random numbers. Gradients of parameters that function uses are added to their .grad
    (`autograd.grad` does not see them). `use_reentrant` is PyTorch's choice between two ways; there is one here.
    Chen et al. 2016 (arXiv:1604.06174).

    >>> import tilewright as tw
    >>> x = tw.ones(2, requires_grad=True)
    >>> tw.utils.checkpoint.checkpoint(lambda x: (x * x).sum(), x).backward()
    >>> x.grad.tolist()
    [2.0, 2.0]
    """
    run = (lambda *values: function(*values, **kwargs)) if kwargs else function
    always = tw.zeros((), requires_grad=True)  # on the tape though no argument needs a gradient: parameters may
    return _Checkpoint.apply(run, preserve_rng_state, always, *args)


def checkpoint_sequential(functions: Any, segments: int, input: Any, use_reentrant: bool | None = None,
                          **kwargs: Any) -> Any:
    """A Sequential (or list of functions) cut into `segments` parts, each of them checkpointed but the last."""
    steps = list(functions.children()) if isinstance(functions, tw.nn.Sequential) else list(functions)
    size = max(len(steps) // segments, 1)
    cuts = [steps[i:i + size] for i in range(0, size * (segments - 1), size)]

    def run(part: list) -> Callable:
        def through(x: Any) -> Any:
            for step in part:
                x = step(x)
            return x

        return through

    for part in cuts:
        input = checkpoint(run(part), input, **kwargs)
    return run(steps[size * (segments - 1):])(input)
