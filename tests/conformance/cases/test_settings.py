"""Every option is in a judged step: where one is ignored, the check that its line names fails."""

from collections import Counter

import pytest

from ref_bioplaus.conformance.cases.options import IGNORED, UNJUDGED, options
from ref_bioplaus.conformance.cases.settings import settings
from ref_bioplaus.conformance.checks import levels, runner
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.proofs.faults import option_ignored
from tests.conftest import get

CHECKS = {check.id: check for check in levels.checks((1, 3))}
BY_CHECK = sorted(IGNORED, key=lambda name: IGNORED[name].check)  # what the reference makes of a step is kept


def test_every_option_has_a_line_and_every_line_an_option():
    found = set(options())
    assert len(found) > 80
    assert found == set(IGNORED) | set(UNJUDGED)
    assert not set(IGNORED) & set(UNJUDGED) and all(len(reason) > 20 for reason in UNJUDGED.values())
    assert {ignored.check for ignored in IGNORED.values()} <= set(CHECKS)


@pytest.mark.parametrize("name", BY_CHECK)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_where_an_option_is_ignored_its_check_fails(name):
    check, subject = CHECKS[IGNORED[name].check], Subject(get("numpy", "float64"), under=option_ignored(name))
    assert runner.outcome_of(subject, check, check.modes[0]).state in ("fail", "error")


@pytest.mark.parametrize("id", sorted({ignored.check for ignored in IGNORED.values()}))
def test_those_checks_pass_where_nothing_is_ignored(id):
    outcome = runner.outcome_of(Subject(get("numpy", "float64")), CHECKS[id], CHECKS[id].modes[0])
    assert outcome.state == "pass", outcome.reason


def test_settings_are_named_once_and_reach_the_suite():
    names = Counter(setting.id for setting in settings())
    assert max(names.values()) == 1 and len(names) > 25
    for setting in settings():
        assert setting.asks
        assert all(any(id.startswith(f"1/{setting.id}/{ask}") for id in CHECKS) for ask in setting.asks)
