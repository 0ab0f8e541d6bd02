"""The tape: records ops as they run, and walks back over them to sum gradients.

One `Node` a recorded op. It holds the op's gradient rule, an edge to where each input came from, and the values that
the rule needs. `backward` pops nodes from a heap, newest first: an op's inputs are always older than the op, so when a
node is popped its gradient is complete. No recursion, and saved values are freed as the walk passes.

A rule is a function `rule(node, dy, ...)` that returns one gradient (or None) an input. It stands beside its forward
op in `tilewright.ops`. Rules written with Tensor ops give higher-order gradients, because they are recorded too when
`create_graph=True`; a rule that calls kernels directly is marked `@first_order` and says so by name when asked.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from tilewright import _engine
from tilewright.grad_mode import enable_grad, is_grad_enabled, mode, no_grad, set_grad_enabled

__all__ = [
    "Function", "Node", "backward", "detect_anomaly", "enable_grad", "first_order", "grad", "gradcheck",
    "gradgradcheck", "inplace", "is_anomaly_check_nan_enabled", "is_anomaly_enabled", "is_grad_enabled", "no_grad",
    "once_differentiable", "rebase", "record", "record_many", "set_detect_anomaly", "set_grad_enabled", "wrap",
]

if TYPE_CHECKING:
    from tilewright.tensor import Tensor
else:
    Tensor = None  # set by tilewright.tensor, which needs this module first
watch: Any = None  # while anomaly detection is on: called with a node and its gradients in the rule's place

# record(rule, array, inputs, saved=(), attrs=(), view_of=None) wraps an op's result and, when gradients are on and an
# input needs one, puts the op on the tape. `saved` holds Tensors (inputs) or engine arrays (intermediates, or `array`
# itself); `view_of` names the input whose memory the result shares. csrc/bindings/tape.cpp
record = _engine.record
wrap = _engine.wrap  # a Tensor over an engine array, with no history


def _name(rule) -> str:
    return rule.__name__.removesuffix("_grad")


class Node(_engine.NodeBase):
    """One recorded op: its gradient rule, where its inputs came from, and what the rule needs.

    An edge is (node, slot) of the op that made the input, (leaf tensor, -1), or None. `saved` are the saved values as
    Tensors, after a check that none was changed in place since; `outputs` the (shape, dtype) of each result.
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """The op's name."""
        return _name(self.rule)

    def _refuse(self, k: int):
        """Says why saved value k, or all of them (-1), cannot be given."""
        if k < 0:
            raise RuntimeError(f"{self.name}: its saved values were freed by an earlier backward; pass "
                               f"retain_graph=True to that one to walk the graph again")
        array = self._saved[k] if isinstance(self._saved[k], _engine.Array) else self._saved[k].array
        raise RuntimeError(f"{self.name}: a value saved for its gradient, {array.dtype.name} {array.shape}, was "
                           f"changed in place since (version {array.version})")

    @property
    def next_functions(self) -> tuple:
        """(node, number of its result) that each input came from."""
        return tuple((None, 0) if e is None else e for e in self.edges)

    def __repr__(self) -> str:
        return f"<{self.name} gradient>"


def record_many(rule: Any, arrays: Any, inputs: Any, saved: Any = (), attrs: Any = ()) -> tuple:
    """As `record`, for an op of several results; the rule takes one gradient (or None) a result."""
    outs = tuple(wrap(a) for a in arrays)
    if mode.grad:
        for x in inputs:
            if x._base is not None and x._view_version != x.array.version:
                refresh_view(x)
    if mode.grad and any(x.requires_grad for x in inputs):
        node = Node(rule, inputs, saved, attrs, arrays)
        for k, out in enumerate(outs):
            if out.array.is_float:
                out.requires_grad, out.node, out.slot = True, node, k
    return outs


def first_order(rule: Any) -> Any:
    """Marks a rule whose result is made by kernels, not by recorded ops: it has no second derivative."""
    rule.first_order = True
    return rule


def no_second_derivative_grad(node, *dys):
    raise NotImplementedError(f"{node.attrs[0]}: the second derivative is not implemented; its gradient rule calls a "
                              f"kernel that is not recorded")


def _fit(g, edge):
    """Sums a broadcast gradient to its input's shape and casts it to its dtype."""
    shape, dtype = (edge[0].shape, edge[0].dtype) if edge[1] < 0 else edge[0].outputs[edge[1]]
    if g.array.shape != shape:
        if g.array.ndim < len(shape):  # an assignment's value may have leading dimensions of size 1 more
            g = g.reshape((1,) * (len(shape) - g.array.ndim) + g.array.shape)
        g = g.sum_to_size(shape) if mode.grad else wrap(_engine.sum_to(g.array, shape))
    return g if g.array.dtype is dtype else g.to(dtype)


def _needed(roots, targets) -> set:
    """The nodes from which a target (a leaf's id, or a (node, slot)) can be reached."""
    order, seen, stack = [], set(), [r.node for r in roots if r.node is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        order.append(node)
        stack.extend(e[0] for e in node.edges if e is not None and e[1] >= 0)
    needed = set()
    for node in sorted(order, key=lambda n: n.sequence):
        if any(e is not None and (_key(e) in targets or (e[1] >= 0 and e[0] in needed)) for e in node.edges):
            needed.add(node)
    return needed


def _key(edge):
    return edge if edge[1] >= 0 else id(edge[0])


def _walk(roots, gradients, retain_graph, create_graph, claimed, inputs=None):
    """Backward over the tape. Accumulates into leaves' .grad, or returns the gradients of `inputs`.

    `claimed`: ids of storages that somebody may hold: callers, hooks, user Functions. No leaf takes one as its .grad.
    """
    targets = None if inputs is None else {_key((t.node, t.slot) if t.node else (t, -1)): None for t in inputs}
    needed = None if inputs is None else _needed(roots, targets)
    pending, heap = {}, []
    # A leaf's gradients are summed here and handed over when the walk is done: only then is no other edge about to read
    # the same memory, and a hook sees the whole sum. id(leaf) -> [leaf, sum, whether the sum has memory of its own]
    sums = {}

    def deliver(edge, g):
        target, slot = edge
        if slot < 0:
            had = sums.get(id(target)) if sums else None
            if had is not None:
                if had[2] and not create_graph:
                    _engine.add_out(had[1].array, g.array, had[1].array)
                else:
                    had[1], had[2] = had[1] + g, True
            elif targets is not None:
                if id(target) in targets:
                    sums[id(target)] = [target, g, False]
            elif target.requires_grad:
                if target.grad is None or target._hooks or create_graph:
                    sums[id(target)] = [target, g, False]
                else:
                    _accumulate(target, g, create_graph, claimed)
            return
        slots = pending.get(target)
        if slots is None:
            slots = pending[target] = [None] * target.num_outputs
            heapq.heappush(heap, target)
        slots[slot] = g if slots[slot] is None else slots[slot] + g

    before, mode.grad = mode.grad, create_graph
    try:
        for t, g in zip(roots, gradients, strict=True):
            deliver((t.node, t.slot) if t.node else (t, -1), g)
        while heap:
            node = heapq.heappop(heap)
            dys = pending.pop(node)
            if node.hooks:
                for slot, hook in list(node.hooks.values()):
                    if dys[slot] is not None:
                        dys[slot] = _hooked(hook, dys[slot], claimed)
            if targets is not None:
                for slot, g in enumerate(dys):
                    if (node, slot) in targets:
                        targets[node, slot] = g
                if node not in needed:
                    continue
            edges, needs = node.edges, node.needs
            if targets is None:
                dxs = watch(node, dys) if watch else node.rule(node, *dys)
            else:
                node.needs = tuple(e is not None and (_key(e) in targets or (e[1] >= 0 and e[0] in needed))
                                   for e in edges)
                try:
                    dxs = watch(node, dys) if watch else node.rule(node, *dys)
                finally:
                    needs, node.needs = node.needs, needs
            if node.foreign:
                claimed.update(g.array.storage_id for g in dxs if g is not None)
            if not retain_graph:
                node.free_saved()
            if len(dxs) != len(edges):
                raise RuntimeError(f"{node.name}: its gradient rule must return {len(edges)} gradients, got {len(dxs)}")
            for edge, want, g in zip(edges, needs, dxs, strict=True):
                if not want or g is None:
                    continue
                if not _engine.fits(g, edge):
                    g = _fit(g, edge)
                if create_graph and getattr(node.rule, "first_order", False):
                    g = wrap(g.array)  # the rule may have returned a tensor that has a place on the tape already
                    refusal = Node(no_second_derivative_grad, dys, (), (node.name,), (g.array,))
                    refusal.edges += edges
                    g.requires_grad, g.node = True, refusal
                deliver(edge, g)
        for leaf, g, _ in sums.values():
            for key, hook in list(leaf._hooks.items()) if leaf._hooks else ():
                g = g if isinstance(key, tuple) else _hooked(hook, g, claimed)
            if targets is None:
                _accumulate(leaf, g, create_graph, claimed)
                _after(leaf)
            else:
                targets[id(leaf)] = g
    finally:
        mode.grad = before
    return None if targets is None else [targets[_key((t.node, t.slot) if t.node else (t, -1))] for t in inputs]


def _hooked(hook, g, claimed):
    result = hook(g)
    claimed.add(g.array.storage_id)  # the hook may have kept it
    if result is None:
        return g
    if not isinstance(result, Tensor) or result.array.shape != g.array.shape:
        got = result.array.shape if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(f"register_hook: a hook must return None or a Tensor of the gradient's shape {g.array.shape}, "
                         f"got {got}")
    claimed.add(result.array.storage_id)
    return result.to(g.array.dtype)


def _after(leaf):
    """Calls what `register_post_accumulate_grad_hook` was given."""
    for key, hook in list(leaf._hooks.items()) if leaf._hooks else ():
        if isinstance(key, tuple):
            hook(leaf)


def _accumulate(leaf, g, create_graph, claimed):
    if leaf.grad is not None:
        if create_graph or leaf.grad.requires_grad:
            leaf.grad = leaf.grad + g
        else:
            _engine.add_out(leaf.grad.array, g.array, leaf.grad.array)
        return
    a = g.array
    # A leaf may keep the memory as its own only when nobody else does: scripts change .grad in place.
    if create_graph:
        g = g.clone()
    else:
        if a.storage_id in claimed or a.storage_shared or not a.is_contiguous:
            a = _engine.clone(a)
        g = wrap(a)
        claimed.add(a.storage_id)
    leaf.grad = g


def _root_gradients(op: str, roots, gradients):
    gradients = [None] * len(roots) if gradients is None else list(gradients)
    if len(gradients) != len(roots):
        raise ValueError(f"{op}: needs one gradient a root, got {len(gradients)} for {len(roots)}")
    for k, (t, g) in enumerate(zip(roots, gradients, strict=True)):
        if t._base is not None and t._view_version != t.array.version:
            refresh_view(t)
        if not t.requires_grad:
            raise RuntimeError(f"{op}: the tensor does not require grad and has no history, got {t.dtype.name} "
                               f"{t.shape}")
        if g is None:
            if t.array.numel != 1:
                raise RuntimeError(f"{op}: a gradient must be given for a tensor of more than one element, got "
                                   f"{t.dtype.name} {t.shape}")
            gradients[k] = wrap(_engine.full(t.array.shape, 1, t.array.dtype, t.array.device))
        elif g.array.shape != t.array.shape:
            raise ValueError(f"{op}: the gradient's shape must be the tensor's, got {g.shape} for {t.shape}")
        else:
            gradients[k] = g.to(t.array.dtype)
    return gradients


def backward(tensors: Any, grad_tensors: Any = None, retain_graph: Any = None, create_graph: bool = False,
             inputs: Any = None) -> None:
    """Sums the gradients of `tensors` with respect to the leaves of their graph into the leaves' `.grad`.

    Args:
        tensors: a Tensor or a sequence of them; one that has more than one element needs a gradient.
        grad_tensors: d(something)/d(tensor), of the tensor's shape, for each; None means 1.
        retain_graph: keep saved values for another walk; by default, what `create_graph` is.
        create_graph: record the walk itself, for higher-order gradients.
        inputs: leaves to accumulate into; by default all.

    Raises:
        RuntimeError: no history; a saved value changed in place; a graph that was freed.

    >>> import tilewright as tw
    >>> x = tw.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.tolist()
    [2.0, 4.0]
    """
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if isinstance(grad_tensors, Tensor):
        grad_tensors = [grad_tensors]
    gradients = _root_gradients("backward", roots, grad_tensors)
    keep = create_graph if retain_graph is None else retain_graph
    claimed = {g.array.storage_id for g in gradients}
    if inputs is None:
        _walk(roots, gradients, keep, create_graph, claimed)
        return
    inputs = list({id(t): t for t in ([inputs] if isinstance(inputs, Tensor) else inputs)}.values())
    grads = _walk(roots, gradients, keep, create_graph, claimed, inputs)
    with set_grad_enabled(create_graph):
        for t, g in zip(inputs, grads, strict=True):
            kept = t.node is not None and t.node.hooks and ("retain", t.slot) in t.node.hooks
            if g is not None and not kept:
                _accumulate(t, g, create_graph, claimed)
                _after(t)


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: Any = None, create_graph: bool = False,
         only_inputs: bool = True, allow_unused: Any = None, is_grads_batched: bool = False,
         materialize_grads: bool = False) -> tuple:
    """The gradients of `outputs` with respect to `inputs`, as a tuple; no `.grad` is touched.

    With `materialize_grads`, zeros stand for None.

    Raises:
        RuntimeError: an input is not part of the graph (unless `allow_unused`, which gives None for it).
        NotImplementedError: only_inputs=False, is_grads_batched=True.

    >>> import tilewright as tw
    >>> x = tw.tensor(3.0, requires_grad=True)
    >>> (dx,) = tw.autograd.grad(x ** 3, x, create_graph=True)
    >>> (ddx,) = tw.autograd.grad(dx, x)
    >>> dx.item(), ddx.item()
    (27.0, 18.0)
    """
    if not only_inputs or is_grads_batched:
        raise NotImplementedError("grad: only_inputs=False and is_grads_batched=True are not offered; call backward(), "
                                  "or grad once for each gradient")
    if materialize_grads and allow_unused is False:
        raise ValueError("grad: materialize_grads=True allows unused inputs, got allow_unused=False")
    roots = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if isinstance(grad_outputs, Tensor):
        grad_outputs = [grad_outputs]
    for t in inputs:
        if not t.requires_grad:
            raise RuntimeError(f"grad: every input must require grad, got {t.dtype.name} {t.shape} that does not")
    gradients = _root_gradients("grad", roots, grad_outputs)
    results = _walk(roots, gradients, create_graph if retain_graph is None else retain_graph, create_graph,
                    set(), inputs)
    if materialize_grads:
        results = [x.detach().clone().zero_() if g is None else g for g, x in zip(results, inputs, strict=True)]
    if not allow_unused and any(g is None for g in results):
        unused = [k for k, g in enumerate(results) if g is None]
        raise RuntimeError(f"grad: inputs {unused} are not part of the outputs' graph; pass allow_unused=True to get "
                           f"None for them")
    return tuple(results)


from tilewright.anomaly import (  # noqa: E402 - they build on the tape above
    detect_anomaly,
    is_anomaly_check_nan_enabled,
    is_anomaly_enabled,
    set_detect_anomaly,
)
from tilewright.function import Function, gradcheck, gradgradcheck, once_differentiable  # noqa: E402
from tilewright.inplace import inplace, rebase, refresh_view  # noqa: E402
