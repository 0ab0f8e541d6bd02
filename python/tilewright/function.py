"""A user's own op (`Function`), by the same door as a built-in one, and the numerical check of a gradient."""

from __future__ import annotations

from typing import Any

from tilewright import _engine, autograd
from tilewright.autograd import Node, first_order, wrap
from tilewright.grad_mode import mode, no_grad


class Context:
    """What `forward` leaves for `backward`; attributes of the user's own are welcome."""

    def __init__(self):
        self._to_save = ()
        self._non_differentiable = ()
        self._dirty = ()
        self._materialize = True
        self._node = None
        self.needs_input_grad = ()

    def save_for_backward(self, *tensors) -> None:
        """Keeps tensors (inputs, outputs, intermediates) for backward; in-place changes to them are detected."""
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple:
        values = iter(self._node.saved)
        return tuple(None if t is None else next(values) for t in self._to_save)

    def mark_non_differentiable(self, *tensors) -> None:
        self._non_differentiable = tensors

    def mark_dirty(self, *tensors) -> None:
        self._dirty = tensors

    def set_materialize_grads(self, value: bool) -> None:
        self._materialize = value


class Function:
    """An op with a gradient of the user's own making.

    Subclass with static methods `forward(ctx, *args)` and `backward(ctx, *grad_outputs)`, and call `apply`. `backward`
    returns one gradient (or None) for each argument of forward. Written with Tensor ops it can be differentiated again.

    >>> import tilewright as tw
    >>> class Square(tw.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x
    ...     @staticmethod
    ...     def backward(ctx, dy):
    ...         (x,) = ctx.saved_tensors
    ...         return 2 * x * dy
    >>> x = tw.tensor([3.0], requires_grad=True)
    >>> Square.apply(x).backward()
    >>> x.grad.tolist()
    [6.0]
    """

    @staticmethod
    def forward(ctx, *args):
        """The result, and what backward needs kept on ctx; a subclass writes it."""
        raise NotImplementedError("Function: forward must be defined by the subclass")

    @staticmethod
    def backward(ctx, *grad_outputs):
        """The gradients of forward's inputs; a subclass writes it."""
        raise NotImplementedError("Function: backward must be defined by the subclass")

    @classmethod
    def apply(cls, *args):
        """Runs forward and records backward."""
        Tensor = autograd.Tensor
        ctx = Context()
        inputs = [a if isinstance(a, Tensor) else None for a in args]
        if mode.grad:
            for a in inputs:
                if a is not None and a._base is not None and a._view_version != a.array.version:
                    autograd.refresh_view(a)
        ctx.needs_input_grad = tuple(a is not None and a.requires_grad for a in inputs)
        tracked = mode.grad and any(ctx.needs_input_grad)
        with no_grad():
            result = cls.forward(ctx, *args)
        outs = list(result) if isinstance(result, tuple) else [result]
        if not tracked:
            return result
        tensors = [k for k, o in enumerate(outs) if isinstance(o, Tensor)]
        bases = [a if a._base is None else a._base for a in inputs if a is not None]
        for k in tensors:
            o = outs[k]
            if any(o is a for a in inputs) and not any(o is d for d in ctx._dirty):
                outs[k] = wrap(o.array)  # an input returned as it is becomes a tensor of its own, a view of it
                outs[k]._base, outs[k]._view_version = o if o._base is None else o._base, o.array.version
            elif o._base is not None and not any(o._base is b for b in bases):
                o._base = None  # a view of what forward made: nobody else writes there
        for t in ctx._dirty:
            if any(v is not None and v.requires_grad and v.node is None for v in (t, t._base)):
                raise RuntimeError(f"{cls.__name__}: a leaf that requires grad was changed in place (mark_dirty)")
        num_args, num_outs = len(args), len(outs)  # the rule must hold neither the arguments nor the results

        def rule(node, *dys):
            ctx._node = node  # for `saved_tensors`; always held, it would be a cycle
            if ctx._materialize:
                dys = [wrap(_engine.full(shape, 0, dtype)) if d is None else d
                       for d, (shape, dtype) in zip(dys, node.outputs, strict=True)]
            given = iter(dys)
            try:
                grads = cls.backward(ctx, *(next(given) if k in tensors else None for k in range(num_outs)))
            finally:
                ctx._node = None
            grads = list(grads) if isinstance(grads, tuple) else [grads]
            while len(grads) > num_args and grads[-1] is None:
                grads.pop()
            return grads

        rule.__name__ = cls.__name__
        rule.first_order = getattr(cls.backward, "first_order", False)
        # A saved output is held as its array, so that the node does not hold the tensor that holds the node.
        saved = [s.array if any(s is o for o in outs) else s for s in ctx._to_save if s is not None]
        node = Node(rule, inputs, saved, (), [outs[k].array for k in tensors])
        node.foreign = True
        for slot, k in enumerate(tensors):
            o = outs[k]
            if o.array.is_float and not any(o is n for n in ctx._non_differentiable):
                for at, s in enumerate(saved):
                    if s is o.array:
                        node.mark_own(at, slot)
                if any(o is d for d in ctx._dirty):
                    autograd.rebase(o, node, slot)
                else:
                    o.requires_grad, o.node, o.slot = True, node, slot
        ctx._to_save = tuple(None if s is None else True for s in ctx._to_save)
        ctx._dirty = ctx._non_differentiable = ()
        return tuple(outs) if isinstance(result, tuple) else outs[0]


def once_differentiable(backward: Any) -> Any:
    """Decorator for a `Function.backward` that is not made of Tensor ops: differentiating it again is refused."""

    def wrapped(ctx, *grads):
        with no_grad():
            return backward(ctx, *grads)

    return first_order(wrapped)


def gradcheck(func: Any, inputs: Any, *, eps: float = 1e-06, atol: float = 1e-05, rtol: float = 0.001,
              raise_exception: bool = True, nondet_tol: float = 0.0, fast_mode: bool = False) -> bool:
    """Compares each gradient of `func` with central differences, element by element, in float64.

    Args:
        func: takes the inputs and returns a Tensor or a tuple of them.
        inputs: Tensors; those that require grad (float64) are checked.
        eps: the step; atol, rtol: |analytic - numeric| <= atol + rtol * |numeric|.
        nondet_tol, fast_mode: taken for PyTorch's sake; kernels are deterministic, and every element is checked.

    Raises:
        RuntimeError: a gradient differs (when `raise_exception`), with the input, element and both values.
        TypeError: a checked input is not float64.

    >>> import tilewright as tw
    >>> x = tw.rand(3, dtype=tw.float64, requires_grad=True)
    >>> tw.autograd.gradcheck(tw.sin, (x,))
    True
    """
    import numpy

    Tensor = autograd.Tensor
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [k for k, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: at least one input must require grad")
    for k in checked:
        if inputs[k].array.dtype is not _engine.float64:
            raise TypeError(f"gradcheck: inputs must be float64, got {inputs[k].array.dtype.name} for input {k}")
    result = func(*inputs)
    outs = [o for o in (result if isinstance(result, tuple | list) else [result]) if o.requires_grad]

    def values():
        r = func(*inputs)  # recorded, for functions that call autograd.grad themselves
        r = r if isinstance(r, tuple | list) else [r]
        return [o.detach().numpy().ravel().copy() for o in r if o.requires_grad]

    for j, out in enumerate(outs):
        for e in range(out.array.numel):
            seed = wrap(_engine.full(out.array.shape, 0, out.array.dtype))
            seed.reshape(-1)[e] = 1.0
            grads = autograd.grad(out, [inputs[k] for k in checked], seed, retain_graph=True, allow_unused=True)
            for k, g in zip(checked, grads, strict=True):
                x = inputs[k].detach().numpy()  # a view: its changes are not in-place ops, the graph stays valid
                analytic = [0.0] * x.size if g is None else g.reshape(-1).tolist()
                for i, at in enumerate(numpy.ndindex(x.shape)):
                    had = x[at]
                    x[at] = had + eps
                    above = values()[j][e]
                    x[at] = had - eps
                    below = values()[j][e]
                    x[at] = had
                    numeric = (above - below) / (2 * eps)
                    if not abs(analytic[i] - numeric) <= atol + rtol * abs(numeric):
                        if not raise_exception:
                            return False
                        raise RuntimeError(f"gradcheck: gradient of output {j}[{e}] by input {k}[{i}] must be about "
                                           f"{numeric:.8g} by central differences, got {analytic[i]:.8g}")
    return True


def gradgradcheck(func: Any, inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-06, atol: float = 1e-05,
                  rtol: float = 0.001, raise_exception: bool = True, nondet_tol: float = 0.0,
                  fast_mode: bool = False) -> bool:
    """`gradcheck` of the gradients of `func`, as functions of its inputs and of the gradients that come in.

    grad_outputs: those gradients, float64; by default random ones.

    >>> import tilewright as tw
    >>> x = tw.rand(3, dtype=tw.float64, requires_grad=True)
    >>> tw.autograd.gradgradcheck(tw.sin, (x,))
    True
    """
    Tensor = autograd.Tensor
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    wanted = [k for k, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]

    def results(*args):
        outs = func(*args)
        return [o for o in (outs if isinstance(outs, tuple | list) else [outs]) if o.requires_grad]

    if grad_outputs is None:
        from tilewright.ops.random import randn
        grad_outputs = [randn(o.shape, dtype=o.dtype, device=o.device).requires_grad_() for o in results(*inputs)]
    seeds = (grad_outputs,) if isinstance(grad_outputs, Tensor) else tuple(grad_outputs)
    seeds = tuple(g if g.requires_grad else g.detach().clone().requires_grad_() for g in seeds)

    def gradients(*args):
        outs, own = results(*args[:len(inputs)]), args[len(inputs):]
        found = autograd.grad(outs, [args[k] for k in wanted], own, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(gradients, (*inputs, *seeds), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception)
