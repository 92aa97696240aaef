"""What `compile` promises beside numbers: whoever breaks it is found."""

import time

import pytest

from ref_bioplaus.conformance.checks import runner
from ref_bioplaus.conformance.checks.backend import promises
from ref_bioplaus.conformance.checks.outcomes import Subject
from tests.conftest import get

CHECKS = {check.id: check for check in promises.checks()}


def one_memory(right):
    """Steps that share one place for their arguments."""
    place = {}

    def wrap(step):
        run = right(step)

        def wrong(*arguments):
            place["arguments"] = arguments
            time.sleep(0.002)
            return run(*place["arguments"])

        return wrong

    return wrap


def consuming_first(right):
    """Steps that give their state away before anything can go wrong."""

    def compile(step, donate=False, keep=None):
        run, gone = right(step, donate, keep), []

        def wrong(state, batch):
            if any(state.t is t for t in gone):
                raise ValueError("it is gone")
            gone.append(state.t)
            return run(state, batch)

        return wrong

    return compile


def by_place(right):
    """Steps that know a donated state by the tuple that it is."""

    def compile(step, donate=False, keep=None):
        run, gone = right(step, False, keep), []

        def wrong(state, batch):
            if any(state is other for other in gone):
                raise ValueError("it is gone")
            found = run(state, batch)
            gone.extend([state] if donate else [])
            return found

        return wrong

    return compile


def shapeless(right):
    """Steps that take a batch of any width."""
    return lambda step, donate=False, keep=None: right(
        lambda state, batch: step(state, batch._replace(x=batch.x[:, :3])), donate, keep
    )


@pytest.mark.parametrize(
    ("method", "fault", "id", "words"),
    [
        ("wrap", one_memory, "0/backend/threads", "thread"),
        ("compile", consuming_first, "0/backend/refusals", "after a call that raised"),
        ("compile", by_place, "0/backend/refusals", "shares its t"),
        ("compile", shapeless, "0/backend/refusals", "wrong shape was taken"),
    ],
)
def test_a_broken_promise_is_found(method, fault, id, words):
    mine = get("numpy", "float32")
    setattr(mine, method, fault(getattr(mine, method)))
    report = runner.run(Subject(mine), [CHECKS[id]], ("donating",))
    assert report.outcomes[0].state == "fail" and words in report.outcomes[0].reason, report.outcomes[0]


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "array-api-strict"])
def test_promises_that_are_kept_pass(name):
    report = runner.run(Subject(get(name, "float32")), list(CHECKS.values()))
    assert [(o.id, o.mode, o.reason) for o in report.outcomes if o.state != "pass"] == []
