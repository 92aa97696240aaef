"""The judge: how far a result lies from the reference, in standard deviations of what a correct one may err.

A comparison is one tensor. Its score is its largest error over the standard deviation that `rounding` allows that
element, divided by what the largest of so many normal errors comes to, sqrt(2 ln n). LIMIT separates correct from
wrong: correct backends stay below it (reports/calibration.json), the suite's wrong ones lie far above.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ref_bioplaus.conformance.cases.cases import Stepped
from ref_bioplaus.conformance.judging.patterns import pattern
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounded, Rounding
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.tree import tree_map
from ref_bioplaus.types import Batch, State, in_order

LIMIT = 10.0


@dataclass(frozen=True)
class Score:
    """The judgement of one tensor, at its worst element."""

    tensor: str
    score: float
    index: tuple[int, ...] = ()
    expected: float = 0.0
    got: float = 0.0
    allowed: float = 0.0  # one standard deviation; 0: it must be equal
    words: str = ""  # what departs, where it is not one value: a shape, a tensor that is missing, a run's drift
    hint: str = ""  # what the wrong elements have in common


class Expected(NamedTuple):
    """What a correct implementation computes: every tensor in order of computation, and its undecidable decisions."""

    tensors: dict[str, Rounded]
    undecidable: int
    tiny: float
    wrong_decisions: int = 0


def expect(
    case: Stepped, mode: str, start: State, x: np.ndarray, y: np.ndarray, precision: str = "ieee",
    decisions: Sequence[np.ndarray] | None = None, kernels: Kernels = PORTABLE, variances: State | None = None,
) -> Expected:  # fmt: skip
    """One step of a case, run on the namespace that knows its rounding errors.

    decisions: those of the implementation under test, in order (see decisions.py), taken where they are undecidable.
    variances: of the errors that the state has already, a tree like it; none if left out.
    """
    space = Rounding(PRECISIONS[case.dtype, precision], case.dtype, decisions)
    step = case.build(kernels).modes[mode]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        begin = tree_map(space.exact, start) if variances is None else tree_map(space.unsure, start, variances)
        state, info = step(begin, Batch(space.exact(x), space.exact(y)))
    return Expected(in_order(info, state), space.undecidable, space.precision.tiny, space.wrong_decisions)


def score(name: str, expected: Rounded, got: np.ndarray, tiny: float) -> Score:
    """The score of one tensor: inf for another shape, another integer, and NaN or an infinity on one side alone."""
    if tuple(got.shape) != tuple(expected.shape):
        return reshaped(name, tuple(got.shape), tuple(expected.shape))
    if expected.v.size == 0:
        return Score(name, 0.0)
    if expected.s is None:
        wrong = np.asarray(got != expected.v)
        allowed, errors = np.zeros(expected.shape), np.where(wrong, np.inf, 0.0)
    else:
        small = (expected.s == 0.0) & np.isfinite(expected.b)  # a square below 1e-308 is 0; a bound may overflow
        allowed = np.where(small, expected.b, np.sqrt(expected.s))
        with np.errstate(invalid="ignore", over="ignore"):  # a stranger's numbers may be of any size
            errors = np.abs(got.astype(np.float64) - expected.v) / (allowed + tiny)
            same = np.isnan(got) & np.isnan(expected.v) | np.isinf(expected.v) & (got == expected.v)
        errors = np.where(same, 0.0, np.where(np.isfinite(errors), errors, np.inf))
    worst = np.unravel_index(int(np.argmax(errors)), expected.shape)
    largest = math.sqrt(max(1.0, 2.0 * math.log(expected.v.size)))
    place = tuple(int(i) for i in worst)
    wanted, given, deviation = float(expected.v[worst]), float(got[worst]), float(allowed[worst])
    wrong = errors > LIMIT * largest
    with np.errstate(over="ignore", invalid="ignore"):
        hint = pattern(wrong, expected.v, got) if wrong.any() else ""
    return Score(name, float(errors[worst]) / largest, place, wanted, given, deviation, hint=hint)


def reshaped(name: str, got: tuple[int, ...], expected: tuple[int, ...], axes: str = "") -> Score:
    """The score of a tensor of another shape than expected."""
    words = f"it has shape {got}, expected {expected}{f' ({axes})' if axes else ''}"
    return Score(name, math.inf, (), math.prod(expected), math.prod(got), words=words)


def drifted(name: str, got: np.ndarray, expected: np.ndarray, drift: float, tiny: float) -> Score:
    """The score of a tensor behind many steps that nothing set right: its distance over that of correct runs."""
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.abs(got.astype(np.float64) - expected)
    gaps = np.where(np.isfinite(gaps), gaps, np.inf)
    if not gaps.size:
        return Score(name, 0.0)
    worst = np.unravel_index(int(np.argmax(gaps)), gaps.shape)
    size, place = float(gaps[worst]) / (drift + tiny), tuple(int(i) for i in worst)
    words = (
        f"{got[worst]:.9g}, expected {expected[worst]:.9g}: {gaps[worst]:.3g} away, where correct runs end up to "
        f"{drift:.2g} apart; score {size:.3g}, limit {LIMIT:.3g}"
    )
    return Score(name, size, place, float(expected[worst]), float(got[worst]), drift, words)


def named(scores: list[Score], prefix: str) -> list[Score]:
    """The scores with a prefix on the names of their tensors."""
    return [replace(s, tensor=f"{prefix}: {s.tensor}") for s in scores]


def bounded(tensor: Rounded) -> Rounded:
    """The tensor with variances that make an error of its rigorous bound score exactly LIMIT."""
    largest = math.sqrt(max(1.0, 2.0 * math.log(max(tensor.v.size, 1))))
    return (
        tensor if tensor.s is None else Rounded(tensor.space, tensor.v, (tensor.b / (LIMIT * largest)) ** 2, tensor.b)
    )


def judge(expected: Expected, got: Mapping[str, np.ndarray]) -> list[Score]:
    """The scores of all tensors, in order of computation; one that only one side has scores inf."""
    scores = [
        score(name, tensor, got[name], expected.tiny) if name in got else Score(name, math.inf, words="it is missing")
        for name, tensor in expected.tensors.items()
    ]
    more = "it is one tensor more than expected"
    return scores + [Score(name, math.inf, words=more) for name in got if name not in expected.tensors]


def first_departure(scores: list[Score], limit: float = LIMIT) -> Score | None:
    """The first tensor, in order of computation, that no correct implementation gives."""
    return next((s for s in scores if not s.score <= limit), None)


def sentence(departure: Score, axes: str = "", unit: str = "") -> str:
    """Where the first departure is, in words: what came and what was expected.

    axes: the names of the tensor's axes, to stand behind the place. unit: said of what is allowed.
    """
    d = departure
    place = f"[{', '.join(map(str, d.index))}]" if d.index else ""
    where = f"{d.tensor}{place}{f' ({axes})' if axes else ''} departs first"
    hint = f"; {d.hint}" if d.hint else ""
    if d.words:
        return f"{where}: {d.words}"
    if not d.allowed:
        return f"{where}: {d.got:.17g}, expected exactly {d.expected:.17g}{hint}"
    expected = f"{d.got:.9g}, expected {d.expected:.9g} to within {d.allowed:.2g}{unit}"
    return f"{where}: {expected}; score {d.score:.3g}, limit {LIMIT:.3g}{hint}"
