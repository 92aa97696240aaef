"""What has to be exact: bits, moved numbers, dtypes, and the structure around them."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from ref_bioplaus.conformance.cases.cases import as_held
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.judging.judge import Score, named, score
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding
from ref_bioplaus.tree import leaves, tree_map

LARGE = 10**5  # numbers of an array that is not looked at again


class Comparison:
    """Results of a subject beside what they have to be, one after the other, up to the first of another kind."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.scores, self.problem = subject, list[Score](), ""
        self.seen: list[tuple[str, Any, np.ndarray]] = []  # what has to be the same at the end
        self.space = Rounding(PRECISIONS[subject.dtype, "ieee"], subject.dtype)

    def expect(
        self, where: str, expected: Mapping[str, Any], got: Mapping[str, Any], dtype: str | None = None,
        stays: bool = True,
    ) -> None:  # fmt: skip
        """Arrays by name, bit for bit: floats as `dtype` (None: the subject's) holds them, others in their own.

        stays: whether they still have to be what they were when all is done.
        """
        if {*expected} != {*got}:
            self.wrong(f"{where}: {', '.join(got) or 'nothing'} came back, expected {', '.join(expected)}")
            return
        scores = []
        for name, array in expected.items():
            wanted = np.asarray(array)
            of = (dtype or self.subject.dtype) if wanted.dtype.kind == "f" else wanted.dtype.name
            self.kind(f"{where}: {name}", of, got[name])
            exact, found = self.space.exact(as_held(wanted, of)), self.subject.backend.to_numpy(got[name])
            scores.append(score(name, exact, found, self.space.precision.tiny))
            if stays and wanted.size <= LARGE:
                self.seen.append((f"{where}: {name}", got[name], np.array(found)))
        self.scores += named(scores, where)

    def tree(self, where: str, expected: Any, got: Any, stays: bool = True) -> None:
        """The same of nested tuples, dicts and None, whose structure has to be the same as well."""
        if shaped(expected) != shaped(got):
            self.wrong(f"{where}: {shaped(got)} came back, expected {shaped(expected)}")
            return
        pairs = enumerate(zip(leaves(expected), leaves(got), strict=True))
        both = {str(i): pair for i, pair in pairs}
        expected, got = ({i: pair[side] for i, pair in both.items()} for side in (0, 1))
        self.expect(where, expected, got, stays=stays)

    def kind(self, name: str, dtype: str, array: Any) -> None:
        """An array of the subject's library and device, of a dtype."""
        found, like = str(getattr(array, "dtype", type(array).__name__)).rpartition(".")[2], self.like
        if not (isinstance(array, type(like)) or isinstance(like, type(array))):
            self.wrong(f"{name} is a {type(array).__name__}, expected {type(like).__name__}")
        elif found != dtype:
            self.wrong(f"{name} has dtype {found}, expected {dtype}")
        elif device(array) != device(like):
            self.wrong(f"{name} is on {device(array)}, expected {device(like)}")

    @cached_property
    def like(self) -> Any:
        """An array of the subject's, as every array should be."""
        return self.subject.backend.batch(np.ones((1, 1)), np.ones((1, 1))).x

    def wrong(self, sentence: str) -> None:
        """The first thing that is wrong, in words."""
        self.problem = self.problem or sentence

    def finding(self) -> Finding:
        """What was found, then and now."""
        for name, array, then in self.seen:
            if np.asarray(self.subject.backend.to_numpy(array)).tobytes() != then.tobytes():
                self.wrong(f"{name} was changed by what was called after it")
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


def turned(subject: Subject, tree: Any) -> Any:
    """The same, where an array may lie in the order of its last axis first."""

    def back(array):
        return array_namespace(array).permute_dims(array, tuple(reversed(range(array.ndim))))

    rows = tree_map(lambda a: subject.backend.asarray(np.array(np.transpose(a), order="C")), tree)
    return tree_map(subject.backend.eager(back), rows)
