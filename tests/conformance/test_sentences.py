"""What the judge says of a departure: what came and what was expected, whatever kind of departure it is."""

import math

import numpy as np
import pytest

from ref_bioplaus import backends
from ref_bioplaus.conformance.cases.cases import Case
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.checks.steps import free_run
from ref_bioplaus.conformance.judging.judge import (
    LIMIT,
    PRECISIONS,
    Expected,
    drifted,
    first_departure,
    judge,
    sentence,
)
from ref_bioplaus.conformance.judging.rounding import Rounding

SPACE, TINY = Rounding(PRECISIONS["float64", "ieee"], "float64"), 2.0**-1022
THIRDS = SPACE.exact(np.array([[1.0, 2.0, 4.0], [5.0, 0.0, 7.0]])) / 3.0


def said(expected, got, **options):
    """The judge's sentence on one tensor, "x"."""
    arrays = {} if got is None else {"x": got}
    return sentence(first_departure(judge(Expected({"x": expected}, 0, TINY), arrays)), **options)


def with_one(value):
    """The right values but for one."""
    return np.where(np.arange(6).reshape(2, 3) == 5, value, THIRDS.v)


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        (THIRDS, with_one(2.5), "x[1, 2] departs first: 2.5, expected 2.33333333 to within 1.5e-16; score "),
        (THIRDS, with_one(math.nan), "x[1, 2] departs first: nan, expected 2.33333333 to within 1.5e-16; score inf"),
        (THIRDS, with_one(-math.inf), "x[1, 2] departs first: -inf, expected 2.33333333 to within"),
        (THIRDS, THIRDS.v[:, :2], "x departs first: it has shape (2, 2), expected (2, 3)"),
        (THIRDS, None, "x departs first: it is missing"),
        (
            SPACE.exact(np.array(2**31 - 1, np.int32)),
            np.array(-3, np.int32),
            "x departs first: -3, expected exactly 21",
        ),
        (
            SPACE.exact(np.array([0.0, 0.5])),
            np.array([0.0, 0.1]),
            "x[1] departs first: 0.10000000000000001, expected e",
        ),
    ],
)
def test_every_departure_says_what_came_and_what_was_expected(expected, got, words):
    assert said(expected, got).startswith(words)


def test_a_tensor_too_many_and_axes_are_named():
    scores = judge(Expected({}, 0, 0.0), {"y": np.zeros(2)})
    assert sentence(scores[0]) == "y departs first: it is one tensor more than expected"
    assert said(THIRDS, with_one(9.0), axes="N,units").startswith("x[1, 2] (N,units) departs first: 9, expected 2.33")


def test_a_drift_says_how_far_and_how_far_it_may_be():
    expected = np.array([[1.0, 2.0], [3.0, 4.0]])
    score = drifted("after 3 steps: W", expected + np.array([[0.0, 0.0], [0.25, 1e-9]]), expected, 1e-3, 0.0)
    assert score.score == 250.0 and score.index == (1, 0)
    assert sentence(score) == (
        "after 3 steps: W[1, 0] departs first: 3.25, expected 3: 0.25 away, where correct runs end up to 0.001 apart; "
        "score 250, limit 10"
    )
    lost = drifted("W", np.array([math.nan, 1.0]), np.ones(2), 1e-3, 0.0)
    assert lost.score == math.inf and sentence(lost).startswith("W[0] departs first: nan, expected 1: inf away")
    assert drifted("W", np.ones(2), np.ones(2), 0.0, 1e-300).score == 0.0


def test_a_free_run_that_drifts_says_so():
    def build(case, kernels):
        return case._replace(optimizer="sgd, scheduled").build(kernels)

    check = free_run(Case("feedback-alignment/FC", "feedback-alignment", "FC", "sgd, scheduled"))
    right = check.run(Subject(backends.get("numpy", dtype="float64")), "compiled")
    assert max(score.score for score in right.scores) <= LIMIT

    def wrong(case, kernels):
        made = build(case, kernels)

        def step(state, batch):
            state, info = made.modes["learn"](state, batch)
            first = state.forward.params[1]
            moved = first._replace(W=first.W * (1.0 + 1e-9))
            params = (state.forward.params[0], moved, *state.forward.params[2:])
            return state._replace(forward=state.forward._replace(params=params)), info

        return made._replace(modes={"learn": step})

    found = check.run(Subject(backends.get("numpy", dtype="float64"), wrong), "compiled")
    words = sentence(first_departure(list(found.scores)))
    assert words.startswith("after 40 steps: state/forward/params/") or words.startswith("after 40 steps: forward/")
    assert "away, where correct runs end up to" in words and "limit 10" in words
