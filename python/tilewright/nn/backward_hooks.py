"""Full backward hooks: identity nodes on a module's inputs and outputs that show the gradients passing by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilewright.autograd import Function
from tilewright.tensor import Tensor

if TYPE_CHECKING:
    from tilewright.nn.module import Module


class BackwardHook(Function):
    """y = x for each tensor; backward replaces the gradients by `callback(gradients)`."""

    @staticmethod
    def forward(ctx: Any, callback: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.callback = callback
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        return (None, *ctx.callback(grads))


class BackwardWatch:
    """One call of a module whose backward is watched; lives as long as the graph that call recorded."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._grad_output: tuple | None = None
        self._num_inputs = 0
        self._input_places: list[int] = []

    def watch_inputs(self, args: tuple) -> tuple:
        self._num_inputs = len(args)
        self._input_places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.requires_grad]
        return self._watch(args, self._input_places, self._inputs_done)

    def watch_outputs(self, output: Any) -> Any:
        outputs = output if isinstance(output, (tuple, list)) else (output,)
        places = [i for i, out in enumerate(outputs) if isinstance(out, Tensor) and out.requires_grad]

        def outputs_done(grads: tuple) -> tuple:
            self._grad_output = self._spread(grads, places, len(outputs))
            for hook, _ in self._module._hooks("_backward_pre_hooks"):
                result = hook(self._module, self._grad_output)
                if result is not None:
                    self._grad_output = result if isinstance(result, tuple) else (result,)
            if not self._input_places:  # nobody asks for the inputs' gradients, so this is the last chance to tell
                self._call_hooks((None,) * self._num_inputs)
            return tuple(self._grad_output[i] for i in places)

        watched = self._watch(tuple(outputs), places, outputs_done)
        return type(output)(watched) if isinstance(output, (tuple, list)) else watched[0]

    @staticmethod
    def _watch(values: tuple, places: list[int], callback: Any) -> tuple:
        if not places:
            return values
        watched = BackwardHook.apply(callback, *(values[i] for i in places))
        replaced = dict(zip(places, watched, strict=True))
        return tuple(replaced.get(i, value) for i, value in enumerate(values))

    @staticmethod
    def _spread(grads: tuple, places: list[int], count: int) -> tuple:
        by_place = dict(zip(places, grads, strict=True))
        return tuple(by_place.get(i) for i in range(count))

    def _inputs_done(self, grads: tuple) -> tuple:
        grad_input = self._call_hooks(self._spread(grads, self._input_places, self._num_inputs))
        return tuple(grad_input[i] for i in self._input_places)

    def _call_hooks(self, grad_input: tuple) -> tuple:
        for hook, _ in self._module._hooks("_backward_hooks"):
            result = hook(self._module, grad_input, self._grad_output)
            if result is not None:
                grad_input = result if isinstance(result, tuple) else (result,)
        return grad_input
