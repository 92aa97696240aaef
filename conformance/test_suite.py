"""The suite under pytest: pytest --pyargs ref_bioplaus.conformance --rb-backend torch. One test per check and mode.

The options are those of `ref-bioplaus conformance run` with --rb- before them (ref_bioplaus_pytest.py), for one
backend, dtype, precision and form of kernels at a time. A failure that a deviation excuses is an expected one.
"""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ref_bioplaus.conformance.checks import levels, runner
from ref_bioplaus.conformance.checks import outcomes as records
from ref_bioplaus.conformance.commands import asking
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.reporting import deviations
from ref_bioplaus_pytest import OPTIONS

SUBJECT = pytest.StashKey[tuple[records.Subject, tuple[deviations.Deviation, ...]]]()


def pytest_generate_tests(metafunc: pytest.Metafunc):
    """A test per check and mode that is asked for; a mistake in an option is one sentence."""
    if "check" not in metafunc.fixturenames:
        return
    asked_for = {
        name: metafunc.config.getoption(f"--rb-{name}", default)  # the default, too, where no plugins are loaded
        for name, (default, _) in OPTIONS.items()
    }
    try:
        modes = asking.choose(asked_for["mode"], records.MODES, "--rb-mode")
        chosen = asking.parse_levels(asked_for["level"], "--rb-level")
        rows = asking.chosen_rows(asking.split([asked_for["algorithm"] or ""]))
        checks = asking.select(chosen, asked_for["case"], modes, "--rb-case", rows)
        metafunc.config.stash[SUBJECT] = subject(asked_for)
    except ValueError as error:
        raise pytest.Collector.CollectError(f"{error}.") from error
    asked = [(check, mode) for check in checks for mode in modes if mode in check.modes]
    metafunc.parametrize(("check", "mode"), asked, ids=[f"{check.id}-{mode}" for check, mode in asked])


def subject(asked_for: Mapping[str, str]) -> tuple[records.Subject, tuple[deviations.Deviation, ...]]:
    """The backend under test, with our algorithms, and what is known of it. Raises ValueError, one sentence."""
    dtype, precision, kernels = (asked_for[name] for name in ("dtype", "precision", "kernels"))
    backends = asking.split([asked_for["backend"]])
    asked, *others = asking.combinations(backends, dtype, precision, kernels, prefix="--rb-")
    if others:
        raise ValueError(f"pytest checks one at a time, and {asked} and {others[0]} are asked for: name one of them")
    backend = asking.start(asked, asked_for["device"])
    place = asked_for["deviations"]
    folder = deviations.FOLDER if place is None else deviations.folder(Path(place), "--rb-deviations")
    return records.Subject(backend), deviations.load(backend.name, folder)


def judged(config: pytest.Config, outcomes: Sequence[records.Outcome], others: Sequence[str]) -> list[str]:
    """What is out of order in the deviations that concern some outcomes, which they then excuse.

    others: ids of checks that a row may name though these outcomes are not of them.
    """
    (under_test, rows), today = config.stash[SUBJECT], datetime.date.today()
    backend = under_test.backend
    report = records.Report(
        backend.name, str(backend.device), backend.dtype, backend.precision, "", backend.kernels.name, {}, {},
        judge.LIMIT, list(outcomes),
    )  # fmt: skip
    mine = [row for row in rows if not outcomes or any(row.matches(outcome) for outcome in outcomes)]
    deviations.apply(report, mine, today, others)
    return report.problems


def test_conformance(check: Any, mode: str, pytestconfig: pytest.Config):
    """A check passes, or the test fails with the sentence that says where the first departure is."""
    outcome = runner.outcome_of(pytestconfig.stash[SUBJECT][0], check, mode)
    problems = judged(pytestconfig, [outcome], [outcome.id])
    assert not problems, " ".join(problems)
    if outcome.state in ("unsupported", "not run"):
        pytest.skip(outcome.reason)
    if outcome.state == "deviates":
        pytest.xfail(outcome.reason)
    assert outcome.state == "pass", outcome.reason


def test_deviations(pytestconfig: pytest.Config):
    """Every deviation of the backend is in force, and names a check of the suite."""
    ids = [check.id for check in levels.checks(levels.LEVELS)] if pytestconfig.stash[SUBJECT][1] else []
    problems = judged(pytestconfig, [], ids)
    assert not problems, " ".join(problems)
