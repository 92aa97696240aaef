"""Level 0: what `compile` promises of its steps beside their numbers."""

import threading
from typing import Any

from ref_bioplaus.conformance.checks.alone.exact import Comparison, exact_check, on_device
from ref_bioplaus.conformance.checks.backend.running import batch_of, bound, counted, first_state, sideways
from ref_bioplaus.conformance.checks.outcomes import Check, Subject
from ref_bioplaus.types import Batch, State, Step

STEPS = 12  # of each thread


def refusals(subject: Subject, comparison: Comparison, mode: str) -> None:
    """A call that raises at its batch has not consumed its state; states that share a t are one state."""
    backend, run = subject.backend, bound(subject, mode, counted)
    for n in (6, 2):
        given, state = first_state(n), on_device(subject, first_state(n))
        for units in (4, 3):
            x, y = batch_of(n, 1, units)
            try:
                found = run(state, backend.batch(x, y))
            except Exception:
                if units == 3:
                    return comparison.wrong("a state was refused after a call that raised at its batch's shape")
            else:
                if units == 4:
                    return comparison.wrong("a batch of a wrong shape was taken, and nothing was raised")
                comparison.tree("the step after one that raised", counted(given, Batch(x, y)), found)
        if mode == "donating":
            try:
                run(state._replace(stats=state.stats), backend.batch(*batch_of(n, 1)))
            except Exception:
                continue
            return comparison.wrong("a state that shares its t with a donated one was taken, and nothing was raised")


def threads(subject: Subject, comparison: Comparison, mode: str) -> None:
    """Two threads, each with a state of its own, run two steps in turns: the numbers that each gets alone."""
    steps: tuple[tuple[Any, Step], ...] = tuple((bound(subject, mode, pure), pure) for pure in (counted, sideways))
    ready, found, raised = threading.Barrier(2), {}, []

    def work(seed: int) -> None:
        try:
            state, sizes = on_device(subject, first_state(seed)), (5, 2 + seed)
            ready.wait(60)
            for i in range(STEPS):
                step, _ = steps[i % 2]
                state, info = step(state, subject.backend.batch(*batch_of(sizes[i // 2 % 2], i + seed)))
                found[seed, i] = info
            found[seed, STEPS] = state
        except Exception as error:  # it is told below
            raised.append(f"a thread raised {type(error).__name__}: {error}")

    workers = [threading.Thread(target=work, args=(seed,)) for seed in (0, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if raised:
        return comparison.wrong(raised[0])
    for seed in (0, 3):
        state: State = first_state(seed)
        for i in range(STEPS):
            state, info = steps[i % 2][1](state, Batch(*batch_of((5, 2 + seed)[i // 2 % 2], i + seed)))
            comparison.tree(f"step {i} of the thread with state {seed}", info, found[seed, i])
        comparison.tree(f"the last state of the thread with state {seed}", state, found[seed, STEPS])


def checks() -> tuple[Check, ...]:
    """What is owed beside numbers."""
    return (
        exact_check("refusals", "backend", refusals, ("compiled", "donating")),
        exact_check("threads", "backend", threads, ("compiled", "donating")),
    )
