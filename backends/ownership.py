"""What a donating step may write over: memory that nobody but the donated state can see (the rule is in base.py).

Python counts the references to every object. An array that has more of them than the state accounts for, itself or a
tuple or dict on the way to it, is held by somebody else: by another state, an Info, a list, a variable that a step
closes over. Whether memory is shared without such a reference, as by a view, is asked of the library.
"""

import sys
from collections.abc import Callable
from typing import Any

from ref_bioplaus.backends.straight import compiled
from ref_bioplaus.tree import leaves, unflatten
from ref_bioplaus.types import Tree

EXACT = getattr(sys, "_is_gil_enabled", lambda: True)()  # counts are exact under the GIL only


def references(tree: tuple) -> int:
    """What Python counts for a tuple's first entry, read as below."""
    for branch in tree:
        return sys.getrefcount(branch)
    raise ValueError("an empty tuple has no first entry")


ONE = references((object(),))  # where only the tuple holds it


class Ownership:
    """Takes a state for a donating step: what others can see is copied, the rest is the step's to write over."""

    def __init__(self, alone: Callable[[Any], bool], copied: Callable[[Any], Any]):
        """alone: whether no other array shares an array's memory; copied: an array in memory of its own."""
        self.alone, self.copied = alone, copied
        self.shared: Callable[[Any], bool] = lambda tree: True

    def take(self, tree: Tree) -> Any:
        """The tree, with copies of the arrays that somebody else can see. It may be held itself: its parts may not."""
        if not self.shared(tree):
            return tree
        seen: list[bool] = []
        self.look(tree, not EXACT, seen)
        if any(seen):
            return unflatten(tree, [self.copied(a) if s else a for a, s in zip(leaves(tree), seen, strict=True)])
        self.shared = sharing(tree, self.alone)
        return tree

    def look(self, tree: Tree, held: bool, seen: list[bool]) -> None:
        """Appends for each array, in the order of `leaves`, whether others see it; held: they see the whole tree."""
        for branch in map(tree.get, sorted(tree)) if isinstance(tree, dict) else tree:
            others = held or sys.getrefcount(branch) > ONE
            if isinstance(branch, tuple | dict | list):
                self.look(branch, others, seen)
            elif branch is not None:
                seen.append(others or not self.alone(branch))


def sharing(tree: Tree, alone: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A function of trees: whether others can see an array of one that is built like this one; True of any other tree.

    It is `look` written down as straight Python code, several times as fast, for a state that comes again and again.
    """
    known: dict[str, Any] = {"references": sys.getrefcount, "alone": alone}
    code: list[str] = []

    def walk(place: str, tree) -> None:
        known[f"type{place}"] = type(tree)
        code.append(f"if type({place}) is not type{place} or len({place}) != {len(tree)}: return True")
        keys = sorted(tree) if isinstance(tree, dict) else range(len(tree))
        parts = [f"{place}_{i}" for i in range(len(tree))]
        if isinstance(tree, dict):
            known[f"keys{place}"] = tuple(keys)
            code.append(f"if not {place}.keys() >= {{*keys{place}}}: return True")
            code.extend(f"{part} = {place}[keys{place}[{i}]]" for i, part in enumerate(parts))
        elif parts:
            code.append(f"[{', '.join(parts)}] = {place}")
        for part, key in zip(parts, keys, strict=True):
            branch = tree[key]
            if branch is None:
                code.append(f"if {part} is not None: return True")
            elif isinstance(branch, tuple | dict | list):
                if leaves(branch):
                    code.append(f"if references({part}) > {ONE}: return True")
                walk(part, branch)
            else:
                known[f"type{part}"] = type(branch)
                other = f"type({part}) is not type{part} or references({part}) > {ONE} or not alone({part})"
                code.append(f"if {other}: return True")

    walk("t", tree)
    return compiled("t", [*code, "return False"], known)
