"""Nested lists, tuples and dicts of leaves: flattened, put together again, mapped over.

>>> leaves, spec = tree_flatten({"a": [1, 2], "b": (3,)})
>>> leaves, tree_unflatten([10 * v for v in leaves], spec)
([1, 2, 3], {'a': [10, 20], 'b': (30,)})
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "LeafSpec", "TreeSpec", "tree_all", "tree_any", "tree_flatten", "tree_leaves", "tree_map", "tree_map_only",
    "tree_unflatten",
]


@dataclass
class TreeSpec:
    """A tree without its leaves: the container's type, what it needs besides, and the specs of its children."""

    type: Any
    context: Any
    children_specs: list[TreeSpec]

    @property
    def num_leaves(self) -> int:
        return 1 if self.type is None else sum(c.num_leaves for c in self.children_specs)


def LeafSpec() -> TreeSpec:
    return TreeSpec(None, None, [])


def _children(tree: Any) -> tuple[Any, list] | None:
    """(context, children) of a container, None of a leaf."""
    if type(tree) in (dict, OrderedDict):
        return list(tree), list(tree.values())
    if type(tree) is defaultdict:
        return (tree.default_factory, list(tree)), list(tree.values())
    if type(tree) in (list, tuple) or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        return None, list(tree)
    return None


def tree_flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list, TreeSpec]:
    """The leaves in order, and the spec that puts them together again."""
    found = None if is_leaf is not None and is_leaf(tree) else _children(tree)
    if found is None:
        return [tree], LeafSpec()
    leaves, specs = [], []
    for child in found[1]:
        more, spec = tree_flatten(child, is_leaf)
        leaves += more
        specs.append(spec)
    return leaves, TreeSpec(type(tree), found[0], specs)


def tree_unflatten(leaves: Iterable, treespec: TreeSpec) -> Any:
    """The tree of a spec, with these leaves. ValueError where their number differs."""
    leaves = list(leaves)
    if len(leaves) != treespec.num_leaves:
        raise ValueError(f"tree_unflatten: needs {treespec.num_leaves} leaves, got {len(leaves)}")
    if treespec.type is None:
        return leaves[0]
    children, at = [], 0
    for spec in treespec.children_specs:
        children.append(tree_unflatten(leaves[at : at + spec.num_leaves], spec))
        at += spec.num_leaves
    kind, context = treespec.type, treespec.context
    if kind in (dict, OrderedDict):
        return kind(zip(context, children, strict=True))
    if kind is defaultdict:
        return defaultdict(context[0], zip(context[1], children, strict=True))
    return kind(*children) if hasattr(kind, "_fields") else kind(children)


def tree_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list:
    return tree_flatten(tree, is_leaf)[0]


def tree_map(func: Callable, tree: Any, *rests: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The tree with func of each leaf, and of the leaves at its place in other trees of its form."""
    leaves, spec = tree_flatten(tree, is_leaf)
    others = [tree_leaves(r, is_leaf) for r in rests]
    return tree_unflatten([func(*v) for v in zip(leaves, *others, strict=True)], spec)


def tree_map_only(kind: Any, func: Callable, tree: Any) -> Any:
    """`tree_map` of the leaves of a type; the others stay."""
    return tree_map(lambda v: func(v) if isinstance(v, kind) else v, tree)


def tree_any(pred: Callable, tree: Any) -> bool:
    return any(map(pred, tree_leaves(tree)))


def tree_all(pred: Callable, tree: Any) -> bool:
    return all(map(pred, tree_leaves(tree)))
