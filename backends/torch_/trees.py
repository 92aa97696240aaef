"""Trees of tensors as flat lists, and back.

A step takes and returns dozens of tensors in nested tuples. `flatten` and `rebuilt` walk through any tree; for trees
that come again and again `reader` and `writer` write the walk down as straight Python code, several times as fast.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ref_bioplaus.backends.straight import compiled
from ref_bioplaus.types import Tree


def flatten(tree: Tree, tensors: list) -> None:
    """Appends a tree's tensors, dicts in the order of their keys. Raises TypeError for anything that is no tensor."""
    if tree is None:
        return
    if isinstance(tree, dict):
        for key in sorted(tree):
            flatten(tree[key], tensors)
    elif isinstance(tree, tuple | list):
        for branch in tree:
            flatten(branch, tensors)
    elif isinstance(tree, torch.Tensor):
        tensors.append(tree)
    else:
        raise TypeError(f"a compiled step was given {tree!r}, expected trees of tensors only: close over anything else")


def flattened(tree: Tree) -> list[torch.Tensor]:
    """A tree's tensors, in order."""
    tensors: list[torch.Tensor] = []
    flatten(tree, tensors)
    return tensors


def rebuilt(tree: Tree, tensors: Iterator) -> Any:
    """A tree's shape with the tensors of an iterator."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {k: rebuilt(tree[k], tensors) for k in sorted(tree)}
    if isinstance(tree, tuple | list):
        branches = [rebuilt(branch, tensors) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return next(tensors)


def reader(tree: Tree) -> Callable[[Any], list[torch.Tensor] | None]:
    """A function of trees: their tensors where they are like this one, else None.

    Alike are trees of the same structure whose tensors have the same shapes, strides, dtypes and devices.
    """
    known: dict[str, Any] = {}  # what the code compares with, by name
    code: list[str] = []
    found: list[str] = []  # the names of the tensors

    def name(value) -> str:
        known[f"k{len(known)}"] = value
        return f"k{len(known) - 1}"

    def walk(place, tree):
        if tree is None:
            code.append(f"if {place} is not None: return None")
        elif isinstance(tree, torch.Tensor):
            code.append(
                f"if {place}.shape != {name(tree.shape)} or {place}.stride() != {name(tree.stride())}"
                f" or {place}.dtype is not {name(tree.dtype)} or {place}.device != {name(tree.device)}: return None"
            )
            found.append(place)
        else:
            code.append(f"if type({place}) is not {name(type(tree))} or len({place}) != {len(tree)}: return None")
            inside = [f"{place}_{i}" for i in range(len(tree))]
            if isinstance(tree, dict):
                code.extend(f"{part} = {place}[{name(k)}]" for part, k in zip(inside, sorted(tree), strict=True))
                branches = [tree[k] for k in sorted(tree)]
            else:
                code.append(f"[{', '.join(inside)}] = {place}")
                branches = list(tree)
            for part, branch in zip(inside, branches, strict=True):
                walk(part, branch)

    walk("t", tree)
    read = compiled("t", [*code, f"return [{', '.join(found)}]"], known)

    def checked(tree):
        try:
            return read(tree)
        except (KeyError, AttributeError):  # another key in a dict, a number in a tensor's place
            return None

    return checked


def writer(tree: Tree) -> Callable[[Any], Any]:
    """A function of a list that returns this tree's shape with the entries of the list in place of its leaves."""
    known: dict[str, Any] = {}
    leaves: list[str] = []

    def name(value) -> str:
        known[f"k{len(known)}"] = value
        return f"k{len(known) - 1}"

    def walk(tree) -> str:
        if tree is None:
            return "None"
        if isinstance(tree, dict):
            return "{" + ", ".join(f"{name(k)}: {walk(tree[k])}" for k in sorted(tree)) + "}"
        if isinstance(tree, tuple | list):
            branches = "".join(f"{walk(branch)}, " for branch in tree)
            if hasattr(tree, "_fields"):
                return f"{name(type(tree))}({branches})"
            return f"({branches})" if isinstance(tree, tuple) else f"[{branches}]"
        leaves.append(f"t{len(leaves)}")
        return leaves[-1]

    value = walk(tree)
    return compiled("t", [f"[{', '.join(leaves)}] = t", f"return {value}"], known)
