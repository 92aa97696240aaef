"""Level 3: truths that need no reference implementation, and what every step owes its caller.

An identity between two results of the subject is judged by the sum of the variances that each may have.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ref_bioplaus.conformance.cases.cases import Case, step_cases
from ref_bioplaus.conformance.cases.networks import CLASSES
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.checks.prepared import Prepared, changed, copies, stored
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.judge import expect
from ref_bioplaus.conformance.judging.rounding import Rounded
from ref_bioplaus.naming import short
from ref_bioplaus.registry import ROWS, Row
from ref_bioplaus.registry.rows import BACKPROP
from ref_bioplaus.tree import leaves, tree_map
from ref_bioplaus.types import Batch, LayerParams, Pathway, State

ARCHITECTURES = ("FC", "LC", "conv", "ResNet, BN after ReLU")
DECAY = 0.01  # of cases.OPTIMIZERS["sgd"]


def case_of(row: str, architecture: str, dtype: str, optimizer: str = "sgd") -> Case:
    """The suite's case of an algorithm on an architecture."""
    return Case(f"{short(row)}/{architecture}", row, architecture, optimizer, dtype)


def teaching(row: Row) -> str:
    """The mode in which a row's forward weights learn."""
    return next(filter(row.learns, case_of(row.name, "FC", "float64").build().modes))


def differences(
    a: dict, b: dict, expected_a: dict, expected_b: dict, names: list[tuple[str, str]], factor: float = 1.0
) -> list:
    """Scores of a[i] - factor b[j], expected to be 0, for pairs of names."""
    scores = []
    for i, j in names:
        variance = expected_a[i].s + factor**2 * expected_b[j].s
        zero = Rounded(expected_a[i].space, np.zeros(expected_a[i].shape), variance)
        gap = a[i].astype(np.float64) - factor * b[j].astype(np.float64)
        scores.append(judge.score(f"{i} - {factor:g} {j}", zero, gap, expected_a[i].space.precision.tiny))
    return scores


def symmetric(state: State, case: Case) -> State:
    """The state with B_l = W_l in every layer."""
    layers = case.network().feedback_layers
    B = tuple(LayerParams(p.W if l in layers else None) for l, p in enumerate(state.forward.params))
    memory = state.feedback.memory
    return state._replace(feedback=Pathway(B, memory))


def is_backprop_when_symmetric(row: str, step: str, architecture: str) -> Check:
    """FA, KP and WM with B = W are BP; with their own B they are not."""

    def run(subject: Subject, mode: str) -> Finding:
        case, bp = (case_of(name, architecture, subject.dtype) for name in (row, BACKPROP.name))
        own, (x, y) = stored(case, 0), case.batch(0)
        start = symmetric(own, case)
        plain = stored(bp, 0)._replace(forward=start.forward, stats=start.stats)
        precision = subject.backend.precision
        expected = [expect(c, s, st, x, y, precision) for c, s, st in ((case, step, start), (bp, "learn", plain))]
        if any(e.undecidable for e in expected):
            return Finding(undecidable=sum(e.undecidable for e in expected))
        prepared = Prepared(subject, case, step, mode)
        found, reference = prepared.on_host(start, x, y), Prepared(subject, bp, "learn", mode).on_host(plain, x, y)
        names = [(n, n) for n in expected[1].tensors if n.startswith(("info/delta", "info/grads"))]
        scores = differences(found, reference, expected[0].tensors, expected[1].tensors, names)
        others = prepared.on_host(own, x, y)
        first = f"info/delta/{case.network().feedback_layers[0] - 1}"
        own_gap = differences(others, reference, expected[0].tensors, expected[1].tensors, [(first, first)])
        if not judge.first_departure(own_gap):
            return Finding(tuple(scores), f"with its own B, {first} is still backprop's: W is used in place of B")
        return Finding(tuple(scores))

    return Check(f"3/backprop when B = W/{row}/{architecture}", 3, row, run)


def at_rest(state: State) -> State:
    """The state with memories of 0: W's momentum and B's have to be the same for W - B to shrink alone."""
    paths = (path._replace(memory=tree_map(np.zeros_like, path.memory)) for path in (state.forward, state.feedback))
    forward, feedback = paths
    return state._replace(forward=forward, feedback=feedback)


def kolen_pollack_shrinks(architecture: str, optimizer: str, factor: float) -> Check:
    """W - B after a step is (1 - lambda) times what it was, whatever the gradients; (1 - eta lambda) decoupled."""

    def run(subject: Subject, mode: str) -> Finding:
        case = case_of("kolen-pollack", architecture, subject.dtype, optimizer)
        start, (x, y) = at_rest(stored(case, 1)), case.batch(1)
        expected = expect(case, "learn", start, x, y, subject.backend.precision)
        if expected.undecidable:
            return Finding(undecidable=expected.undecidable)
        found = Prepared(subject, case, "learn", mode).on_host(start, x, y)
        scores = []
        for l in case.network().feedback_layers:
            W, B = (f"state/{path}/params/{l}/W" for path in ("forward", "feedback"))
            before = factor * (start.forward.params[l].W - start.feedback.params[l].W)
            variance = expected.tensors[W].s + expected.tensors[B].s
            wanted = Rounded(expected.tensors[W].space, before, variance)
            got = found[W].astype(np.float64) - found[B].astype(np.float64)
            scores.append(judge.score(f"W - B of layer {l}", wanted, got, expected.tiny))
        return Finding(tuple(scores))

    return Check(f"3/kolen-pollack shrinks W - B/{architecture}/{optimizer}", 3, "kolen-pollack", run)


def batch_order(row: str, step: str, architecture: str) -> Check:
    """Permuting the batch changes nothing beyond rounding, without noise and dropout."""

    def run(subject: Subject, mode: str) -> Finding:
        case = case_of(row, architecture, subject.dtype)
        start, (x, y) = stored(case, 2), case.batch(2)
        expected = expect(case, step, start, x, y, subject.backend.precision)
        if expected.undecidable:
            return Finding(undecidable=expected.undecidable)
        prepared, order = Prepared(subject, case, step, mode), np.array([3, 0, 5, 1, 4, 2])
        a, b = prepared.on_host(start, x, y), prepared.on_host(start, x[order], y[order])
        names = [(n, n) for n in expected.tensors if n.startswith("state/") and expected.tensors[n].s is not None]
        return Finding(tuple(differences(a, b, expected.tensors, expected.tensors, names)))

    return Check(f"3/order of the batch/{row}/{architecture}", 3, row, run)


def bits_that_stay(row: str, step: str, architecture: str, what: str, kept: Callable[[Case, State], list]) -> Check:
    """Parts of the state that a step must not change, bit for bit; anything else in the path must change."""

    def run(subject: Subject, mode: str) -> Finding:
        case = case_of(row, architecture, subject.dtype)
        start, (x, y) = stored(case, 0), case.batch(0)
        prepared = Prepared(subject, case, step, mode)
        new, _ = prepared.run(*prepared.inputs(start, x, y))
        before, after = (kept(case, tree_map(np.asarray, s)) for s in (start, tree_map(subject.backend.to_numpy, new)))
        if any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
            return Finding(problem=f"{what} changed, and must not in mode {step}")
        return Finding()

    return Check(f"3/stays/{what}/{row}/{architecture}/{step}", 3, row, run)


def auxiliary_rows(case: Case, state: State) -> list:
    """z's rows of W_L and b_L."""
    top = state.forward.params[case.network().L]
    return [top.W[CLASSES:], top.local[0]["b"][CLASSES:]]


def manners(case: Case, step: str) -> Check:
    """What every step owes."""

    def run(subject: Subject, mode: str) -> Finding:
        here = case._replace(dtype=subject.dtype)
        prepared = Prepared(subject, here, step, mode)
        return Finding(problem=unmannerly(prepared, mode, stored(here, 0), here.batch(0), here.batch(0, 2)))

    return Check(f"3/manners/{case.id}/{step}", 3, case.row, run)


def unmannerly(prepared: Prepared, mode: str, start: State, given: tuple, smaller: tuple) -> str:
    """A sentence where nothing was to be mutated (donating: only the state consumed), the same was to come out twice,
    and a compiled step to trace once per shape; "" where all is well. given, smaller: (x, y) of two sizes."""
    backend = prepared.backend
    state, batch = prepared.inputs(start, *given)
    key = state.key
    held, asked = copies(state, backend.to_numpy), copies((batch, key), backend.to_numpy)
    first, _ = prepared.run(state, batch)
    if mode != "donating" and changed(held, state, backend.to_numpy):
        return "the step wrote into the state it was given"
    if changed(asked, (batch, key), backend.to_numpy):
        return "the step wrote into the batch or the key it was given"
    if mode == "donating" and not refuses(prepared, state, batch):
        return "a donated state was used again, and nothing was raised"
    again, _ = prepared.run(*prepared.inputs(start, *given))
    if changed(copies(first, backend.to_numpy), again, backend.to_numpy):
        return "the same step from the same state gave other bits the second time"
    prepared.run(*prepared.inputs(start, *smaller))
    if backend.compiles and mode != "eager" and prepared.run.traces != 2:  # type: ignore[attr-defined]
        traces = prepared.run.traces  # type: ignore[attr-defined]
        return f"{traces} traces for two batch shapes: the compiled step retraces"
    return ""


def refuses(prepared: Prepared, state: State, batch: Batch) -> bool:
    """Whether a consumed state is refused."""
    try:
        prepared.run(state, batch)
    except Exception:
        return True
    return False


def mirroring(architecture: str) -> Check:
    """Mirror steps bring B to W in angle and size, whatever B was; BatchNorm's statistics stay."""

    def run(subject: Subject, mode: str) -> Finding:
        case = case_of("weight-mirror", architecture, subject.dtype)
        algorithm_step = Prepared(subject, case, "mirror", mode)
        backend = subject.backend
        state, batch = algorithm_step.inputs(stored(case, 0), *case.batch(0, 64))
        stats = copies(state.stats, backend.to_numpy)
        for _ in range(80):
            state, _ = algorithm_step.run(state, batch)
        if changed(stats, state.stats, backend.to_numpy):
            return Finding(problem="mirror mode moved BatchNorm's statistics")
        for l in case.network().feedback_layers:
            W, B = (
                np.asarray(backend.to_numpy(p[l].W), np.float64) for p in (state.forward.params, state.feedback.params)
            )
            cosine = np.sum(W * B) / np.linalg.norm(W) / np.linalg.norm(B)
            ratio = np.linalg.norm(B) / np.linalg.norm(W)
            if not (cosine > np.cos(np.radians(25.0)) and 0.3 < ratio < 2.0):
                angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
                return Finding(
                    problem=f"layer {l}: after mirroring B is {angle:.0f} degrees from W, {ratio:.2g} times as large"
                )
        return Finding()

    return Check(f"3/mirroring/{architecture}", 3, "weight-mirror", run, ("compiled",))


def checks(rows: Sequence[Row] = ROWS) -> tuple[Check, ...]:
    """Level 3; of other rows than the registry's what is asked of any."""
    found: list[Check] = []
    main = [r for r in rows if not r.asked.variant]
    for architecture in ARCHITECTURES:
        found += [
            is_backprop_when_symmetric(r.name, teaching(r), architecture)
            for r in main
            if "equals BP when B = W" in r.declares
        ]
        found += [kolen_pollack_shrinks(architecture, "sgd", 1 - DECAY)] if rows is ROWS else []
    found += [kolen_pollack_shrinks("FC", "sgd, Nesterov, decoupled", 1 - 0.05 * DECAY)] if rows is ROWS else []
    for r in main:
        if not r.asked.noisy:
            found += [batch_order(r.name, teaching(r), a) for a in ("FC", "LC", "ResNet, BN after ReLU")]
    found += statements() if rows is ROWS else []
    for r in main:
        if "B stays" in r.declares:
            stays = bits_that_stay(r.name, teaching(r), "conv", "the feedback weights", lambda c, s: leaves(s.feedback))
            found.append(stays)
    found += [mirroring(a) for a in ("ResNet, BN before ReLU", "ResNet, BN after ReLU")] if rows is ROWS else []
    for case in step_cases(rows=rows):
        if case.architecture in ("FC", "conv") and case.id.count("/") == 1:
            found += [manners(case, step) for step in case.build().modes]
    return tuple(found)


def statements() -> list[Check]:
    """What some rows say of parts of their state."""
    found: list[Check] = []
    for row in (case.row for case in step_cases() if case.chosen().inverses and case.architecture == "LC"):
        found.append(bits_that_stay(row, "inverse", "LC", "the forward path", lambda c, s: leaves(s.forward)))
        found.append(bits_that_stay(row, "forward", "LC", "the inverses", lambda c, s: leaves(s.feedback)))
    for step in ("forward", "parallel"):
        found.append(bits_that_stay("ao-sdtp", step, "FC", "the auxiliary units", auxiliary_rows))
    found.append(bits_that_stay("weight-mirror", "mirror", "ResNet, BN after ReLU", "the forward path and BatchNorm",
                                lambda c, s: leaves((s.forward, s.stats))))  # fmt: skip
    return found
