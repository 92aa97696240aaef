"""Map over nested tuples, named tuples, lists and dicts of arrays; None is an empty tree."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any


def tree_map(f: Callable, tree: Any, *rest: Any) -> Any:
    """The tree of f(leaf, *leaves of the other trees at the same place). Dicts go in the order of their sorted keys."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {k: tree_map(f, tree[k], *(r[k] for r in rest)) for k in sorted(tree)}
    if isinstance(tree, tuple | list):
        children = [tree_map(f, *branches) for branches in zip(tree, *rest, strict=True)]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
    return f(tree, *rest)


def leaves(tree: Any) -> list:
    """The arrays of a tree, in order."""
    return [leaf for _, leaf in named_leaves(tree)]


def unflatten(tree: Any, flat: Iterable) -> Any:
    """The tree's shape with the arrays of the sequence `flat`, in the order of `leaves`."""
    remaining = iter(flat)
    return tree_map(lambda _: next(remaining), tree)


def named_leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs (path, array), a path being names and numbers joined by "/", as in "forward/params/2/W"."""
    if tree is None:
        return
    if hasattr(tree, "_fields"):
        branches = list(zip(tree._fields, tree, strict=True))
    elif isinstance(tree, tuple | list):
        branches = list(enumerate(tree))
    elif isinstance(tree, dict):
        branches = [(k, tree[k]) for k in sorted(tree)]
    else:
        yield prefix, tree
        return
    for name, branch in branches:
        yield from named_leaves(branch, f"{prefix}/{name}" if prefix else str(name))
