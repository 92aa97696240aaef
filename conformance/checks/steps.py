"""Levels 1 and 2: one step of every algorithm from a stored state, every intermediate by name; and trajectories."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256

import numpy as np

from ref_bioplaus.conformance.cases.cases import Case, Moment, as_held, root, step_cases
from ref_bioplaus.conformance.cases.networks import EQUAL
from ref_bioplaus.conformance.cases.settings import Setting
from ref_bioplaus.conformance.cases.variety import in_time
from ref_bioplaus.conformance.checks.outcomes import MODES, Check, Finding, Subject
from ref_bioplaus.conformance.checks.prepared import Prepared, misplaced, posed, stored
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.judge import Score, expect
from ref_bioplaus.naming import short
from ref_bioplaus.registry import ROWS, Row
from ref_bioplaus.tree import leaves, named_leaves, tree_map
from ref_bioplaus.types import Algorithm, State, in_order

BOTH = ("eager", "compiled")  # how steps are run is the backend's more than a rule's, and some compile every operation:
WHOLE = ("backprop", "kolen-pollack", "dtp")  # these rows are asked in all modes, others on some networks (`modes_of`)
BEGINNING, FURTHER = range(5), range(5, 9)  # batches of a shadowed trajectory: from its first state, from LATER on
LATER = Moment(98, 7, 98)
OTHERS = (1, 2, 3, 4, 5, 7, 8)  # batch sizes that a failure is tried on
FREE = 40  # steps of a free run
REPLICAS = 6  # of the reference, with noise of one rounding a step, that say how far a free run may drift
ALONE = {False: ("FC", "conv"), True: ("LC",)}  # where there is a batch of one, without and with learned inverses


def one_step(case: Case | Setting, step: str, n: int, modes: tuple[str, ...] = MODES) -> Check:
    """One step of one mode of an algorithm, from states in mid-learning, over seeds: one for each of its moments."""

    def run(subject: Subject, mode: str) -> Finding:
        here = case._replace(dtype=subject.dtype)
        prepared = Prepared(subject, here, step, mode)
        scores: list[Score] = []
        undecidable = 0
        for seed in range(len(case.moments)):
            start, (x, y) = posed(here, seed, n)
            known = expected_of(here, step, n, seed, subject.backend.precision)
            tensors, expected = answered(subject, prepared, step, start, x, y, known)
            undecidable += expected.undecidable
            problem = misplaced(subject, start, x, y, tensors) or wrongly_decided(expected)
            if problem:
                return Finding(tuple(scores), problem)
            scores += judged(expected, subject, tensors, f"seed {seed}")
        return Finding(tuple(scores), undecidable=undecidable)

    def variants() -> dict[str, Check]:
        return {f"N = {other}": one_step(case, step, other, modes) for other in OTHERS if other != n}

    return Check(f"1/{case.id}/{step}/{n}", 1, case.row, run, modes, variants=variants)


@lru_cache(maxsize=16)  # one check after the other, each in several modes
def expected_of(case: Case | Setting, step: str, n: int, seed: int, precision: str) -> judge.Expected:
    """What the reference makes of one step."""
    start, batch = posed(case, seed, n)
    return expect(case, step, start, *batch, precision)


def answered(
    subject: Subject, prepared: Prepared, step: str, start: State, x: np.ndarray, y: np.ndarray,
    expected: judge.Expected | None = None,
) -> tuple[dict, judge.Expected]:  # fmt: skip
    """A step's tensors and what is expected of them; of undecidable decisions, those that the subject took.

    expected: where it is known already what the reference makes of it.
    """
    precision = subject.backend.precision
    expected = expected or expect(prepared.case, step, start, x, y, precision)
    if not expected.undecidable:
        return prepared(start, x, y), expected
    tensors, decisions = prepared.with_decisions(start, x, y)
    return tensors, expect(prepared.case, step, start, x, y, precision, decisions)


def wrongly_decided(expected: judge.Expected) -> str:
    """A sentence where the subject decided otherwise than every correct implementation; "" where it did not."""
    n = expected.wrong_decisions
    return f"{n} decisions (a comparison, a sign, a largest element) differ where they are decidable" if n else ""


def judged(expected: judge.Expected, subject: Subject, tensors: dict, prefix: str) -> list[Score]:
    """The scores of a step's tensors, named after where they were computed."""
    arrays = {name: subject.backend.to_numpy(tensor) for name, tensor in tensors.items()}
    return judge.named(judge.judge(expected, arrays), prefix)


def shadowed(case: Case, modes: tuple[str, ...] = MODES) -> Check:
    """Steps of the subject along its own trajectory, each judged from the state that it started from.

    Its state stays where it is from one step to the next, consumed where it is donated: memories, counts, schedules,
    random numbers. It starts before the first step, and once more shortly before the hundredth.
    """

    def run(subject: Subject, mode: str) -> Finding:
        here = case._replace(dtype=subject.dtype)
        algorithm = here.build()
        prepared = {step: Prepared(subject, here, step, mode) for step in algorithm.modes}
        first = tree_map(lambda a: as_held(a, here.dtype), here._replace(dtype="float64").build().init(root(0)))
        scores: list[Score] = []
        undecidable = 0
        for begin, seeds in ((first, BEGINNING), (in_time(stored(here, 0), LATER), FURTHER)):
            state = tree_map(lambda a: subject.backend.asarray(np.array(a)), begin)
            for i in seeds[:2] if mode == "eager" else seeds:
                batch = here.batch(i)
                for step in algorithm.schedule(i, 0):
                    start = tree_map(lambda a: np.array(subject.backend.to_numpy(a)), state)
                    expected = known(here, step, Start(start), i, subject.backend.precision)
                    state, info = prepared[step].run(state, subject.backend.batch(*map(np.array, batch)))
                    tensors = in_order(info, state)
                    if expected.undecidable:
                        tensors, expected = answered(subject, prepared[step], step, start, *batch, expected)
                    undecidable += expected.undecidable
                    if wrongly_decided(expected):
                        return Finding(tuple(scores), wrongly_decided(expected))
                    scores += judged(expected, subject, tensors, f"step {int(start.t)}, {step}")
        return Finding(tuple(scores), undecidable=undecidable)

    return Check(f"2/shadow/{case.id}", 2, case.row, run, modes)


class Start:
    """A state that is known by its bits."""

    def __init__(self, state: State):
        self.state = state
        arrays = [(name, leaf.dtype.str, leaf.shape, leaf.tobytes()) for name, leaf in named_leaves(state)]
        self.digest = sha256(repr(arrays).encode()).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Start) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@lru_cache(maxsize=32)  # one check after the other, whose modes may go the same way
def known(case: Case, step: str, start: Start, seed: int, precision: str) -> judge.Expected:
    """What the reference makes of a step from a state."""
    return expect(case, step, start.state, *case.batch(seed), precision)


def free_run(case: Case) -> Check:
    """A trajectory of many steps, nowhere set right, of smooth units: as near as a rounding of every step allows.

    How far it may drift is found by letting the reference drift: replicas whose state gets noise of one unit round-off
    after every step.
    """

    def run(subject: Subject, mode: str) -> Finding:
        here = case._replace(dtype=subject.dtype)
        exact, drift, tiny = drifts(here, subject.backend.precision)
        algorithm = subject.algorithm(here)
        prepared = {step: Prepared(subject, here, step, mode) for step in algorithm.modes}
        state, batches = tree_map(subject.backend.asarray, stored(here, 0)), schedule(here, algorithm)
        for step, x, y in batches:
            state, _ = prepared[step].run(state, subject.backend.batch(x, y))
        scores = []
        for (name, leaf), expected, allowed in zip(named_leaves(state), leaves(exact), leaves(drift), strict=True):
            got = subject.backend.to_numpy(leaf)
            scores.append(judge.drifted(f"after {len(batches)} steps: {name}", got, expected, float(allowed), tiny))
        return Finding(tuple(scores))

    return Check(f"2/free/{case.id}", 2, case.row, run, ("compiled", "donating"))


def schedule(case: Case, algorithm: Algorithm) -> list:
    """(mode, x, y) of every step of a free run."""
    return [(step, *case.batch(i % 7)) for i in range(FREE) for step in algorithm.schedule(i, i)]


@lru_cache(maxsize=1)  # one check after the other, each in several modes
def drifts(case: Case, precision: str):
    """The reference's free run, and per tensor the largest distance of its replicas; and the smallest normal number."""
    unit = judge.PRECISIONS[case.dtype, precision]
    reference = case._replace(dtype="float64").build()
    steps = schedule(case, reference)

    def go(replica):
        state, noise = stored(case, 0), np.random.default_rng(replica)
        for step, x, y in steps:
            before = state
            state, _ = reference.modes[step](state, judge.Batch(x, y))
            if replica is not None:
                state = stirred(state, before, noise, max(unit.array, unit.operand))
        return state

    exact = go(None)
    gaps = [tree_map(lambda a, b: np.max(np.abs(a - b), initial=0.0), exact, go(r)) for r in range(REPLICAS)]
    return exact, tree_map(lambda *g: np.max(g), *gaps), unit.tiny


def stirred(state: State, before: State, noise: np.random.Generator, unit: float) -> State:
    """A state with every float that a step has changed multiplied by 1 + unit N(0, 1)."""

    def moved(a, b):
        if np.asarray(a).dtype.kind != "f" or np.array_equal(a, b):
            return a
        return np.asarray(a) * (1.0 + unit * noise.standard_normal(np.shape(a)))

    return tree_map(moved, state, before)


def modes_of(case: Case) -> tuple[str, ...]:
    """The modes in which one step of a case is asked: all of them on FC, by some rows everywhere."""
    if case.architecture == "FC" or case.row in WHOLE:
        return MODES
    return BOTH if case.architecture == "conv" else BOTH[1:]


def checks(levels: Iterable[int], rows: Sequence[Row] = ROWS) -> tuple[Check, ...]:
    """Levels 1 and 2, those of them that are asked for."""
    found: list[Check] = []
    cases = list(step_cases(rows=rows))
    if 1 in levels:
        for case in cases:
            first = case.main and case.id == f"{short(case.row)}/{case.architecture}"
            modes = modes_of(case)
            if case.architecture in ("FC", "LC", "conv", *EQUAL) or (first and "after" in case.architecture):
                found += [one_step(case, step, 6, modes) for step in case.build().modes]
            if first and case.architecture in ALONE[case.chosen().inverses]:
                found += [one_step(case, step, 1, BOTH) for step in case.build().modes]
    if 2 in levels:
        found += [
            shadowed(case, MODES if case.architecture == "FC" or case.row == WHOLE[0] else BOTH)
            for case in cases
            if case.architecture in ("FC", "ResNet, BN before ReLU") or case.id == "backprop/conv"
        ]
        smooth = [case for case in cases if case.main and case.chosen().asked.smooth]
        found += [free_run(case) for case in smooth if case.id in (f"{short(case.row)}/FC", f"{short(case.row)}/LC")]
    return tuple(found)
