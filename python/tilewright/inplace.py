"""In-place ops and views on the tape.

A view shares its base's memory, so changing one changes the other. When an in-place op is recorded on a view, the base
gets a new history (itself, with the view's region replaced by the new value), and the view becomes a view of that.
Other views of the base notice by the storage's version, and take their history from the base anew when next used.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tilewright import _engine
from tilewright.autograd import Node, _name, wrap
from tilewright.grad_mode import mode


def inplace(rule: Any, x: Any, write: Any, inputs: Any, saved: Any = (), attrs: Any = ()) -> Any:
    """Runs `write()`, which changes x's memory, and makes the op x's newest history. Returns x.

    `saved` may hold `x.array` for the value after the write; a Tensor there means its value before it.
    """
    name = _name(rule).removesuffix("_") + "_"
    tracked = mode.grad and any(v.requires_grad for v in (x, *inputs))
    if mode.grad and x._base is not None and x._base.requires_grad:
        tracked = True
    if not tracked:
        write()
        return x
    base = x._base
    for t, what in ((x, "a leaf"), (base, "a view of a leaf")):
        if t is not None and t.requires_grad and t.node is None:
            raise RuntimeError(f"{name}: {what} that requires grad cannot be changed in place while gradients "
                               f"are recorded; use no_grad() or .data")
    if not x.array.is_float:
        write()
        return x
    if base is not None and not base.array.is_contiguous:
        raise NotImplementedError(f"{name}: an in-place change of a view is recorded only when its base is "
                                  f"contiguous, got strides {base.array.strides}; clone the base first")
    if base is not None and _overlaps(x.array.shape, x.array.strides):
        raise ValueError(f"{name}: elements of the view share memory, got shape {x.array.shape} with strides "
                         f"{x.array.strides}; clone it first")
    for v in (x, *inputs):
        if v._base is not None and v._view_version != v.array.version:
            refresh_view(v)
    if base is not None:
        _check_custom(x)
    node = Node(rule, inputs, saved, attrs, (x.array,))
    write()
    for k, s in enumerate(saved):
        if s is x.array:
            node.mark_own(k, 0)
    rebase(x, node, 0)
    return x


def rebase(x: Any, node: Any, slot: Any) -> Any:
    """Makes output `slot` of `node` the newest history of x, whose memory the op has just changed."""
    _move(x, node, slot)
    base = x._base
    if base is not None:
        # The base becomes itself with the view's region replaced, and the view a view of that.
        a, b = x.array, base.array
        place = (a.shape, a.strides, a.offset - b.offset)
        _move(base, Node(copy_slices_grad, (base, x), (), (place,), (b,)), 0)
        _renew(x)


def _move(t, node, slot):
    """Gives t its new place on the tape; what `retain_grad` asked for moves with it."""
    if t.node is not None and t.node.hooks:
        keep = t.node.hooks.pop(("retain", t.slot), None)
        if keep is not None:
            node.hooks = {**(node.hooks or {}), ("retain", slot): (slot, keep[1])}
    t.requires_grad, t.node, t.slot = True, node, slot


def refresh_view(v: Any) -> Any:
    """Makes a view's history that of its base as it is now, after an in-place change through another name."""
    base = v._base
    if base.requires_grad:
        if v.requires_grad and v.node is None:
            raise RuntimeError(f"view: a view that was made a leaf was changed in place through its base, which has a "
                               f"history, got {v.array.dtype.name} {v.array.shape}")
        _check_custom(v)
        if not base.array.is_contiguous:
            raise NotImplementedError(f"view: after an in-place change its history is taken only from a contiguous "
                                      f"base, got strides {base.array.strides}; clone the base first")
        _renew(v)
    v._view_version = v.array.version


def _renew(v):
    base, a, b = v._base, v.array, v._base.array
    node = Node(view_grad, (base,), (), ((a.shape, a.strides, a.offset - b.offset), b.shape), (a,))
    _move(v, node, 0)
    v._view_version = a.version


def _check_custom(v):
    """A view that a user's Function returned has the user's gradient, which a new history would go around."""
    if v.node is not None and v.node.foreign:
        raise RuntimeError(f"{v.node.name}: an output that shares memory with an input was changed in place, itself or "
                           f"through another view; return a clone from forward, or declare mark_dirty")


def _overlaps(shape, strides) -> bool:
    """Whether two elements of such a view may have one address."""
    reach = 0
    for stride, n in sorted(zip(strides, shape, strict=True)):
        if n > 1:
            if stride <= reach:
                return True
            reach += stride * (n - 1)
    return False


def _region(t, place):
    from tilewright.ops.shape import as_strided
    shape, strides, offset = place
    return as_strided(t, shape, strides, t.array.offset + offset)  # the gradient may itself be a view


def view_grad(node, dy):
    place, shape = node.attrs
    if _overlaps(*place[:2]):  # windows and expanded dimensions: their gradients sum
        from tilewright.ops.shape import as_strided_grad
        return as_strided_grad(SimpleNamespace(attrs=(place, shape, True)), dy)
    dx = wrap(_engine.full(shape, 0, dy.array.dtype, dy.array.device))
    _region(dx, place).copy_(dy)
    return (dx,)


def copy_slices_grad(node, dy):
    (place,) = node.attrs
    dy = dy.contiguous()
    dbase = None
    if node.needs[0]:
        dbase = dy.clone()
        _region(dbase, place).zero_()
    return dbase, _region(dy, place).clone() if node.needs[1] else None
