"""Level 3: what stays true over many steps, without a reference: counts, the key, B's bits, signs once they are fixed,
norms, units that do not learn."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ref_bioplaus.conformance.cases.cases import Case, step_cases
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.checks.prepared import Prepared, stored
from ref_bioplaus.conformance.checks.truths import auxiliary_rows
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.registry import ROWS, Row
from ref_bioplaus.tree import leaves, named_leaves, tree_map
from ref_bioplaus.types import State

LONG = 60  # batches


def lasting(case: Case) -> Check:
    """Steps of many batches, each from the state that the one before it left."""

    def run(subject: Subject, mode: str) -> Finding:
        here, backend = case._replace(dtype=subject.dtype), subject.backend
        chosen, algorithm = here.chosen(), here.build()
        prepared = {step: Prepared(subject, here, step, mode) for step in algorithm.modes}
        start = tree_map(np.asarray, stored(here, 0))
        state, done = tree_map(lambda a: backend.asarray(np.array(a)), start), []
        for i in range(LONG):
            for step in algorithm.schedule(i, i):
                state, _ = prepared[step].run(state, backend.batch(*here.batch(i % 5)))
                done.append(step)
        return Finding(problem=not_lasting(here, chosen, start, tree_map(backend.to_numpy, state), done))

    return Check(f"3/over {LONG} batches/{case.id}", 3, case.row, run, ("donating",))


def not_lasting(case: Case, chosen: Row, start: State, end: State, done: list[str]) -> str:
    """A sentence on the first thing that should have stayed true over the steps that were done; "" for none."""
    taught = sum(map(chosen.learns, done))
    inverted = sum(step in ("parallel", "inverse") for step in done) if chosen.inverses else taught
    wanted = {"t": len(done), "forward": taught, "feedback": inverted}
    for name, before, after in ((n, a, b) for (n, a), b in zip(named_leaves(start), leaves(end), strict=True)):
        path = name.partition("/")[0]
        if (path == "t" or name.endswith("count")) and after - before != wanted[path]:
            return f"{name} went from {before} to {after} in {wanted[path]} steps that count"
        if (name == "key" or name.startswith("feedback") and "B stays" in chosen.declares) and not same(before, after):
            return f"{name} changed"
    u = judge.PRECISIONS[case.dtype, "ieee"].array
    memories = list(inner_memories(end.forward.memory))
    for l in case.network().weighted:
        W = np.asarray(end.forward.params[l].W, np.float64)
        for memory in memories:
            if "signs" in memory and not np.array_equal(np.sign(W), memory["signs"][l].W):
                return f"layer {l}: {np.sum(np.sign(W) != memory['signs'][l].W)} weights have not the sign they keep"
            if "norm" in memory and abs(np.linalg.norm(W) / float(memory["norm"][l].W) - 1.0) > 32 * u:
                return f"layer {l}: W's norm is {np.linalg.norm(W):.6g}, expected {float(memory['norm'][l].W):.6g}"
    if chosen.auxiliary and not all(map(same, auxiliary_rows(case, start), auxiliary_rows(case, end))):
        return "the auxiliary units changed"
    return ""


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same numbers."""
    return np.array_equal(np.asarray(a, np.asarray(b).dtype), b)


def inner_memories(memory: Any) -> Iterator[dict]:
    """An optimizer's memory, and those of what it is wrapped around."""
    while isinstance(memory, dict):
        yield memory
        memory = memory.get("inner")


def checks(rows: Sequence[Row] = ROWS) -> tuple[Check, ...]:
    """Of every row that says of something that it stays, and of one whose layers learn in turns."""
    found = []
    for case in step_cases(rows=rows):
        chosen = case.chosen()
        wrapped = any(name in ("fixed-signs", "constant-norm") for name, _ in chosen.wrappers)
        stays = wrapped or chosen.auxiliary or "B stays" in chosen.declares or case.row == "weight-mirror-turns"
        if stays and (case.id.endswith("/FC") or case.id == "frsf-ei/conv"):
            found.append(lasting(case))
    return tuple(found)
