"""The suite under pytest: pytest --pyargs ref_bioplaus.conformance --backend torch. One test per check and mode."""

import pytest

from ref_bioplaus.conformance.runner import outcome_of


def test_conformance(check, mode, conformance_subject):
    """A check passes, or the test fails with the sentence that says where the first departure is."""
    outcome = outcome_of(conformance_subject, check, mode)
    if outcome.state in ("unsupported", "not run"):
        pytest.skip(outcome.reason)
    assert outcome.state == "pass", outcome.reason
