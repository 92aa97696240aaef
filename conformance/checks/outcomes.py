"""What a run of the suite is given, and what it finds."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ref_bioplaus.backends import Backend
from ref_bioplaus.conformance.cases.cases import Stepped
from ref_bioplaus.conformance.judging.judge import Score
from ref_bioplaus.kernels import Kernels
from ref_bioplaus.types import Algorithm

STATES = ("pass", "fail", "deviates", "unsupported", "error", "not run")
MODES = ("eager", "compiled", "donating")
GONE = "its process ended without an answer"  # why an outcome is an error of nobody's


def built(asked: Stepped, kernels: Kernels) -> Algorithm:
    """The algorithm of a case, of a setting, or of somebody's own rule on a network, as the library has it."""
    return asked.build(kernels)


@dataclass(frozen=True)
class Subject:
    """What is under test: a backend, and the algorithms as somebody implemented them (ours, unless said otherwise)."""

    backend: Backend
    build: Callable[[Any, Kernels], Algorithm] = built  # of a case, or whatever else is asked
    under: Callable[[], AbstractContextManager] = nullcontext  # what holds while the subject computes, and only then

    @property
    def dtype(self) -> str:
        """Of its parameters."""
        return self.backend.dtype

    def algorithm(self, case: Stepped) -> Algorithm:
        """A case's algorithm, with the backend's kernels."""
        return self.own(self.build)(case, self.backend.kernels)

    def own(self, function: Callable) -> Callable:
        """The function as the subject computes it."""
        if self.under is nullcontext:
            return function

        def run(*arguments: Any) -> Any:
            with self.under():
                return function(*arguments)

        return run

    def runs(self, function: Callable, mode: str) -> Callable:
        """A function of arrays, run by the backend eagerly or compiled."""
        return (self.backend.eager if mode == "eager" else self.backend.wrap)(self.own(function))


class Finding(NamedTuple):
    """What a check found: scores in order of computation, and a sentence where something else is wrong."""

    scores: tuple[Score, ...] = ()
    problem: str = ""  # "" where nothing but scores decides
    undecidable: int = 0
    unsupported: str = ""  # why the subject cannot be asked this


class Check(NamedTuple):
    """One question to a subject, in one mode of execution."""

    id: str  # "1/kolen-pollack/FC/learn/6/0": level, what, on what, how many samples, seed
    level: int
    group: str  # an algorithm's name in the registry, or a family of primitives: a row of the report's matrix
    run: Callable[[Subject, str], Finding]  # subject, mode -> finding
    modes: tuple[str, ...] = MODES
    variants: Callable[[], Mapping[str, "Check"]] = dict  # the same on other sizes, by name, from the smallest up


@dataclass
class Outcome:
    """The answer to one check in one mode."""

    id: str
    level: int
    group: str
    mode: str
    state: str
    score: float = 0.0  # the largest, in units of judge.LIMIT's scale
    comparisons: int = 0
    undecidable: int = 0
    departure: Score | None = None  # the first, in order of computation
    reason: str = ""
    seconds: float = 0.0
    scores: tuple[float, ...] = field(default=(), repr=False)  # one per tensor, for the histogram of margins


@dataclass
class Report:
    """A run of the suite on one subject."""

    backend: str
    device: str
    dtype: str
    precision: str  # as asked for
    probed: str  # as found by multiplying; "" where the dtype has no such policy
    kernels: str
    versions: dict[str, str]
    environment: dict[str, str]
    limit: float
    outcomes: list[Outcome]
    problems: list[str] = field(default_factory=list)  # deviations that are out of date, checks that matched nothing
    diagnosis: list[str] = field(default_factory=list)  # what failures probably are, a sentence each
    not_judged: list[str] = field(default_factory=list)  # what was left out, a sentence each
    coverage: dict[str, str] = field(default_factory=dict)  # the check that judges a name, or "no: " and why

    def count(self, state: str) -> int:
        """How many outcomes are in a state."""
        return sum(outcome.state == state for outcome in self.outcomes)

    @property
    def sound(self) -> bool:
        """Whether nothing failed and every deviation is in order."""
        return not self.problems and not self.count("fail") and not self.count("error")
