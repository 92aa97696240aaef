"""How many comparisons call a correct backend wrong is counted on seeds that the suite does not have."""

import math

import pytest

from ref_bioplaus.conformance.checks import levels
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.proofs import calibration

SOME = [
    c for c in levels.checks((0, 1)) if c.id.startswith(("0/synapses/dense", "0/batch_norm", "1/backprop/FC/learn"))
]


@pytest.fixture
def few(monkeypatch):
    """A suite of some checks."""
    monkeypatch.setattr(levels, "checks", lambda: SOME)


def test_a_correct_backend_is_asked_from_other_seeds(few):
    told = []
    found = {shift: calibration.judged("numpy", "float32", "portable", shift, told.append) for shift in (0, 5000, 5000)}
    assert all(f["alarms"] == 0 and f["checks"] == [] and f["of all checks"] for f in found.values())
    assert found[0]["comparisons"] == found[5000]["comparisons"] > 100
    assert found[0]["largest score"] != found[5000]["largest score"] > 0.0
    assert len(told) == 3 * len(SOME) and told[-1]["comparisons"] == found[5000]["comparisons"]


def test_an_alarm_is_counted_and_named(few, monkeypatch):
    monkeypatch.setattr(judge.first_departure, "__defaults__", (1e-3,))
    found = calibration.judged("numpy", "float32", "portable", 0, lambda told: None)
    assert 0 < found["alarms"] <= len(SOME) and len(found["checks"]) == found["alarms"]
    assert all("departs first" in words for words in found["checks"])


@pytest.mark.parametrize(("alarms", "most"), [(0, -math.log(0.05)), (1, 4.7439), (3, 7.7537)])
def test_the_bound_is_poissons(alarms, most):
    """3 in n where there is none; Garwood's 95 % bounds of a Poisson mean otherwise."""
    line = {"comparisons": 20_000, "alarms": alarms}
    found = calibration.bounded([line, {"comparisons": 10_000, "alarms": 0}])
    assert found["comparisons"] == 30_000 and found["alarms"] == alarms
    assert found["share at most"] == pytest.approx(most / 30_000, rel=5e-3)
