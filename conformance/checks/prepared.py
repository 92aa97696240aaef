"""Running a step of the subject in one of the modes, and looking at what comes out."""

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, Protocol

import numpy as np
from array_api_compat import device

from ref_bioplaus.conformance.cases.cases import Moment, Stepped
from ref_bioplaus.conformance.cases.variety import in_time, varied
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.judging.decisions import recordable, recorded
from ref_bioplaus.tree import leaves, named_leaves, tree_map
from ref_bioplaus.types import Batch, State, in_order


class Posed(Stepped, Hashable, Protocol):
    """What has stored states and batches: a case of the table, or a setting."""

    @property
    def moments(self) -> tuple[Moment, ...]: ...
    def start(self, seed: int) -> State: ...
    def batch(self, seed: int, n: int) -> tuple[np.ndarray, np.ndarray]: ...


class Prepared:
    """One mode of a case's algorithm on the subject, ready to be run from stored states."""

    def __init__(self, subject: Subject, case: Stepped, step: str, mode: str):
        self.backend = subject.backend
        self.key = subject.own(subject.backend.key)
        self.case = case
        pure = subject.own(subject.algorithm(case).modes[step])
        eager = mode == "eager"
        self.run: Callable = self.backend.eager(pure) if eager else self.backend.compile(pure, mode == "donating")
        observed = subject.own(subject.build)(case, recordable(self.backend.kernels)).modes[step]
        self.recording: Callable = subject.runs(recorded(observed), mode)  # compiled where decisions are asked for

    def inputs(self, start: State, x: np.ndarray, y: np.ndarray) -> tuple[State, Batch]:
        """The stored state and batch on the device, copied, under a key of the subject's own: a step under test may do
        anything to them."""
        high, low = (int(word) & 0xFFFFFFFF for word in start.key)
        state = tree_map(lambda a: self.backend.asarray(np.array(a)), start._replace(key=None))
        return state._replace(key=self.key((high << 32) | low)), self.backend.batch(np.array(x), np.array(y))

    def __call__(self, start: State, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        """Every tensor of one step by name, on the device, in order of computation."""
        state, info = self.run(*self.inputs(start, x, y))
        return in_order(info, state)

    def with_decisions(self, start: State, x: np.ndarray, y: np.ndarray) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Every tensor of one step by name, and what it decided: the same code, its decisions beside its results."""
        state, info, decisions = self.recording(*self.inputs(start, x, y))
        return in_order(info, state), [self.backend.to_numpy(d) for d in decisions]

    def on_host(self, start: State, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        """The same as NumPy arrays."""
        return {name: self.backend.to_numpy(leaf) for name, leaf in self(start, x, y).items()}


def misplaced(subject: Subject, start: State, x: np.ndarray, y: np.ndarray, tensors: dict[str, Any]) -> str:
    """A sentence on the first tensor of another library, dtype or device than it should have; "" for none."""
    like = subject.backend.batch(x, y).x
    integer = {f"state/{name}" for name, leaf in named_leaves(start) if leaf.dtype.kind in "iu"}
    for name, leaf in tensors.items():
        wanted = "int32" if name in integer else subject.dtype
        found = str(leaf.dtype).rpartition(".")[2]
        if type(leaf) is not type(like):
            return f"{name} is a {type(leaf).__name__}, expected {type(like).__name__}"
        if found != wanted:
            return f"{name} has dtype {found}, expected {wanted}"
        if device(leaf) != device(like):
            return f"{name} is on {device(leaf)}, expected {device(like)}"
    return ""


def changed(before: list[np.ndarray], after: Any, to_numpy: Callable) -> bool:
    """Whether any array of a tree differs from the copy made before."""
    return any(not np.array_equal(a, to_numpy(b)) for a, b in zip(before, leaves(after), strict=True))


def copies(tree: Any, to_numpy: Callable) -> list[np.ndarray]:
    """Copies of a tree's arrays on the host."""
    return [np.array(to_numpy(leaf)) for leaf in leaves(tree)]


@cache
def stored(case: Posed, seed: int) -> State:
    """A case's stored state, made once."""
    return case.start(seed)


def posed(case: Posed, seed: int, n: int) -> tuple[State, tuple[np.ndarray, np.ndarray]]:
    """The state and the batch of a seed: each is of another time and of another kind."""
    return in_time(stored(case, seed), case.moments[seed]), varied(case, seed, n, case.batch(seed, n))
