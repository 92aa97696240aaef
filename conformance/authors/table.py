"""A rule's trial on one network and the libraries it is run on, with what was computed there already."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ref_bioplaus.backends import Backend
from ref_bioplaus.conformance.authors.trials import Trial, says, told
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.checks.prepared import Prepared, misplaced
from ref_bioplaus.conformance.checks.steps import wrongly_decided
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.judge import Expected, expect
from ref_bioplaus.conformance.reporting.deviations import device_kind
from ref_bioplaus.types import State

IN_FULL = ("dense",)  # where libraries that compile meet every mode and every size of batch, as they take long


@dataclass(frozen=True)
class Library:
    """An array library with one form of kernels."""

    name: str
    backend: Backend
    native: Backend | None = None  # with the library's own kernels, where it has some

    @property
    def device(self) -> str:
        """The kind of its device, in words."""
        return device_kind(str(self.backend.device))

    @property
    def fast(self) -> Backend:
        """As steps run best: native kernels where there are some, and where the library does not compile itself."""
        return self.backend if self.native is None or self.backend.compiles else self.native


@dataclass
class Table:
    """What a check is given."""

    trial: Trial  # in float64
    libraries: Mapping[str, Library]  # numpy among them
    kept: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: tuple, make: Callable) -> Any:
        """What `make` gives, made once."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    @property
    def single(self) -> Trial:
        """The trial in float32."""
        return self.once(("float32",), lambda: self.trial._replace(dtype="float32"))

    @property
    def laws(self) -> Trial:
        """The rule itself under plain gradient descent, in float64."""
        return self.once(("laws",), self.trial.laws)

    @property
    def numpy(self) -> Library:
        """NumPy."""
        return self.libraries["numpy"]

    def plain(self, n: int = 6) -> tuple[State, np.ndarray, np.ndarray]:
        """State, x and y of the first seed, whatever a step of it decides."""
        return self.once(("plain", n), lambda: (self.single.start(0), *self.single.batch(0, n)))

    def given(self, mode: str, n: int = 6) -> tuple[State, np.ndarray, np.ndarray]:
        """State, x and y for a mode, in what float32 holds."""
        return self.once(("given", mode, n), lambda: self.single.decidable(mode, n))

    def expected(self, mode: str, n: int, precision: str) -> Expected:
        """What a correct library makes of the given."""
        return self.once(
            ("expected", mode, n, precision), lambda: expect(self.single, mode, *self.given(mode, n), precision)
        )

    def prepared(self, backend: Backend, mode: str, how: str) -> Prepared:
        """A mode of the rule on a backend."""
        subject = Subject(backend, Trial.build)
        return self.once(("prepared", id(backend), mode, how), lambda: Prepared(subject, self.single, mode, how))

    def computed(self, backend: Backend, mode: str, how: str, n: int = 6) -> tuple[dict[str, Any], Expected]:
        """A step's tensors on a backend, and what is expected of them; of undecidable decisions, those it took."""
        prepared, given = self.prepared(backend, mode, how), self.given(mode, n)
        expected = self.expected(mode, n, backend.precision)
        if not expected.undecidable:
            return prepared(*given), expected
        tensors, decisions = prepared.with_decisions(*given)
        return tensors, expect(self.single, mode, *given, backend.precision, decisions)

    def judged(self, backend: Backend, mode: str, how: str, n: int = 6) -> str:
        """A sentence on the first tensor of a step that departs from the reference; "" for none."""
        tensors, expected = self.computed(backend, mode, how, n)
        subject = Subject(backend, Trial.build)
        problem = misplaced(subject, *self.given(mode, n), tensors) or wrongly_decided(expected)
        if problem:
            return problem
        scores = judge.judge(expected, {name: backend.to_numpy(tensor) for name, tensor in tensors.items()})
        first = judge.first_departure(scores)
        return (
            ""
            if first is None
            else f"{says(judge.replace(first, tensor=told(first.tensor)), 'is')}, score {first.score:.3g}"
        )
