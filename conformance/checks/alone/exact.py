"""What has to be exact: bits, moved numbers, dtypes, and the structure around them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from array_api_compat import device

from ref_bioplaus.conformance.cases.cases import as_held
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.judging.judge import Score, named, score
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding
from ref_bioplaus.tree import leaves, tree_map


class Comparison:
    """Results of a subject beside what they have to be, one after the other, up to the first of another kind."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.scores, self.problem = subject, list[Score](), ""
        self.space = Rounding(PRECISIONS[subject.dtype, "ieee"], subject.dtype)

    def expect(
        self, where: str, expected: Mapping[str, Any], got: Mapping[str, Any], dtype: str | None = None
    ) -> None:  # fmt: skip
        """Arrays by name, bit for bit: floats as `dtype` (None: the subject's) holds them, others in their own."""
        if {*expected} != {*got}:
            self.wrong(f"{where}: {', '.join(got) or 'nothing'} came back, expected {', '.join(expected)}")
            return
        scores = []
        for name, array in expected.items():
            wanted = np.asarray(array)
            of = (dtype or self.subject.dtype) if wanted.dtype.kind == "f" else wanted.dtype.name
            self.kind(f"{where}: {name}", of, got[name])
            exact = self.space.exact(as_held(wanted, of))
            scores.append(score(name, exact, self.subject.backend.to_numpy(got[name]), self.space.precision.tiny))
        self.scores += named(scores, where)

    def tree(self, where: str, expected: Any, got: Any) -> None:
        """The same of nested tuples, dicts and None, whose structure has to be the same as well."""
        if shaped(expected) != shaped(got):
            self.wrong(f"{where}: {shaped(got)} came back, expected {shaped(expected)}")
            return
        pairs = enumerate(zip(leaves(expected), leaves(got), strict=True))
        both = {str(i): pair for i, pair in pairs}
        self.expect(where, {i: a for i, (a, _) in both.items()}, {i: b for i, (_, b) in both.items()})

    def kind(self, name: str, dtype: str, array: Any) -> None:
        """An array of the subject's library and device, of a dtype."""
        found, like = str(getattr(array, "dtype", type(array).__name__)).rpartition(".")[2], self.like
        if not (isinstance(array, type(like)) or isinstance(like, type(array))):
            self.wrong(f"{name} is a {type(array).__name__}, expected {type(like).__name__}")
        elif found != dtype:
            self.wrong(f"{name} has dtype {found}, expected {dtype}")
        elif device(array) != device(like):
            self.wrong(f"{name} is on {device(array)}, expected {device(like)}")

    @property
    def like(self) -> Any:
        """An array of the subject's, as every array should be."""
        return self.subject.backend.batch(np.ones((1, 1)), np.ones((1, 1))).x

    def wrong(self, sentence: str) -> None:
        """The first thing that is wrong, in words."""
        self.problem = self.problem or sentence

    def finding(self) -> Finding:
        """What was found."""
        return Finding(tuple(self.scores), self.problem)


def shaped(tree: Any) -> str:
    """A tree's structure in words: names of tuples, keys in order, None; "*" for an array."""
    if isinstance(tree, tuple | list) and not hasattr(tree, "_fields"):
        inside = ", ".join(map(shaped, tree))
        return f"[{inside}]" if isinstance(tree, list) else f"({inside})"
    if isinstance(tree, dict):
        return f"{{{', '.join(f'{k}: {shaped(tree[k])}' for k in sorted(tree))}}}"
    if hasattr(tree, "_fields"):
        return f"{type(tree).__name__}({', '.join(map(shaped, tree))})"
    return "None" if tree is None else "*"


def exact_check(
    name: str, group: str, look: Callable[[Subject, Comparison, str], None], modes: tuple[str, ...]
) -> Check:  # fmt: skip
    """The check 0/group/name, which lets `look` compare (subject, comparison, mode)."""

    def run(subject: Subject, mode: str) -> Finding:
        comparison = Comparison(subject)
        look(subject, comparison, mode)
        return comparison.finding()

    return Check(f"0/{group}/{name}", 0, group, run, modes)


def on_device(subject: Subject, tree: Any) -> Any:
    """A tree of NumPy arrays as the subject's."""
    return tree_map(subject.backend.asarray, tree)
