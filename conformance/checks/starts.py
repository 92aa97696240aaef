"""Level 1: where learning starts, from the subject's own key, and its first steps on batches of changing sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from ref_bioplaus.conformance.cases.cases import Case, step_cases
from ref_bioplaus.conformance.cases.settings import Setting
from ref_bioplaus.conformance.checks.outcomes import MODES, Check, Finding, Subject
from ref_bioplaus.conformance.checks.prepared import Prepared, copies
from ref_bioplaus.conformance.checks.steps import WHOLE, judged, wrongly_decided
from ref_bioplaus.conformance.judging.judge import Expected, Score, bounded, expect, judge, named
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding
from ref_bioplaus.kernels import signed
from ref_bioplaus.naming import short
from ref_bioplaus.registry import ROWS, Row
from ref_bioplaus.tree import named_leaves, tree_map
from ref_bioplaus.types import State, in_order

SEEDS = (0, 2**40 + 5, 2**63 - 1)
FEW = (6, 5, 6)  # sizes of batches, one after the other
SIZES = {"compiled": (6, 1, 5, 6), "donating": FEW}  # of one row on two networks; of the others FEW, compiled
ONE = "kolen-pollack"  # that row, whose first state is also made by a compiled function

GIVEN_BY_THE_REFERENCE = (
    "the stored states in mid-learning of levels 1 and 3, which asarray hands over (their key is the subject's own)",
)  # in place of what the subject would have made
NOT_ASKED = (
    "random bits behind the first two million of a stream, but for those at some far places",
    "a first state made by a compiled function, but of one case: programs make it operation by operation",
    "what free_bytes, peak_bytes, forget_peak, be_deterministic and versions say, beyond its kind",
    "whether asarray copies, and whether what to_numpy gives may be written to: no backend promises it",
    "arrays that are read-only, of another byte order, of 64-bit integers or of text",
    "functions of anything but trees of arrays; more than one device",
    "rb.interop: reading a Module, and writing one",
    f"one step of rules other than {', '.join(WHOLE)} on networks other than FC donating, and on others than FC and "
    "conv eagerly",
)  # of what a backend brings


def own_start(subject: Subject, case: Case | Setting, mode: str, seed: int) -> State:
    """The first state of the subject's own key, as everybody makes it, or in one compiled function."""
    init, key = subject.algorithm(case).init, subject.own(subject.backend.key)(seed)
    return (subject.backend.wrap if mode == "compiled" else lambda f: f)(subject.own(init))(key)


def first_state(case: Case | Setting, modes: tuple[str, ...]) -> Check:
    """Weights, biases, statistics, memories, counts, time and key before the first step, of several seeds."""

    def run(subject: Subject, mode: str) -> Finding:
        here = case._replace(dtype=subject.dtype)
        space = Rounding(PRECISIONS[here.dtype, subject.backend.precision], here.dtype)
        scores: list[Score] = []
        for seed in SEEDS if mode == "eager" else SEEDS[1:2]:
            key = space.exact(np.array([signed(seed >> 32), signed(seed)], np.int32))
            expected = {name: bounded(a) for name, a in named_leaves(here.build().init(key))}
            got = dict(named_leaves(own_start(subject, here, mode, seed)))
            problem = next(filter(None, (elsewhere(subject, name, a, expected) for name, a in got.items())), "")
            if problem:
                return Finding(tuple(scores), f"seed {seed}: {problem}")
            arrays = {name: subject.backend.to_numpy(a) for name, a in got.items()}
            scores += named(judge(Expected(expected, 0, space.precision.tiny), arrays), f"seed {seed}")
        return Finding(tuple(scores))

    return Check(f"1/{case.id}/init", 1, case.row, run, modes)


def elsewhere(subject: Subject, name: str, array: Any, expected: dict) -> str:
    """A sentence where an array is of another library, dtype or device than it should be; "" where it is not."""
    like, wanted = subject.backend.batch(np.ones((1, 1)), np.ones((1, 1))).x, expected.get(name)
    if not hasattr(array, "dtype") or array_namespace(array) is not array_namespace(like):
        return f"{name} is a {type(array).__name__}, expected {type(like).__name__}"
    dtype = "int32" if wanted is not None and wanted.s is None else subject.dtype
    found = str(array.dtype).rpartition(".")[2]
    if found != dtype:
        return f"{name} has dtype {found}, expected {dtype}"
    return "" if device(array) == device(like) else f"{name} is on {device(array)}, expected {device(like)}"


def first_steps(case: Case, sizes: Mapping[str, tuple[int, ...]]) -> Check:
    """Steps from the subject's own first state on, each from the state that the one before it left, on batches of
    changing sizes: the results of each, and that no later step changes them."""

    def run(subject: Subject, mode: str) -> Finding:
        here, backend = case._replace(dtype=subject.dtype), subject.backend
        algorithm = here.build()
        prepared = {step: Prepared(subject, here, step, mode) for step in algorithm.modes}
        state, scores = own_start(subject, here, "eager", SEEDS[1]), list[Score]()
        undecidable, results = 0, []
        for i, n in enumerate(sizes[mode]):
            x, y = here.batch(i, n)
            for step in algorithm.schedule(0, i):
                where = f"batch {i} of {n} samples, {step}"
                before = tree_map(lambda a: np.array(backend.to_numpy(a)), state)
                expected = expect(here, step, before, x, y, backend.precision)
                if expected.undecidable:
                    _, decisions = prepared[step].with_decisions(before, x, y)
                    expected = expect(here, step, before, x, y, backend.precision, decisions)
                state, info = prepared[step].run(state, backend.batch(x, y))
                undecidable += expected.undecidable
                if wrongly_decided(expected):
                    return Finding(tuple(scores), f"{where}: {wrongly_decided(expected)}")
                scores += judged(expected, subject, in_order(info, state), where)
                results.append((where, info, copies(info, backend.to_numpy)))
        for where, info, then in results:
            if any(a.tobytes() != b.tobytes() for a, b in zip(then, copies(info, backend.to_numpy), strict=True)):
                return Finding(tuple(scores), f"a later step changed what {where} had returned")
        return Finding(tuple(scores), undecidable=undecidable)

    return Check(f"1/{case.id}/first steps", 1, case.row, run, tuple(sizes))


def checks(rows: Sequence[Row] = ROWS) -> tuple[Check, ...]:
    """The first states of all cases, of variants on plain networks, and the first steps of all others on one or two."""
    found: list[Check] = []
    for case in step_cases(rows=rows):
        one = case.id in (f"{ONE}/FC", f"{ONE}/conv")
        if "ResNet" not in case.architecture or (case.main and "after" in case.architecture):
            found.append(first_state(case, MODES[:2] if case.id == f"{ONE}/FC" else MODES[:1]))
        if one or case.main and case.id == f"{short(case.row)}/FC":
            found.append(first_steps(case, SIZES if one else {"compiled": FEW}))
    return tuple(found)
