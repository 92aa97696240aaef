"""Runs checks on a subject, one after the other, and says what came of each."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ref_bioplaus import __version__
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Outcome, Report, Subject
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.judge import sentence
from ref_bioplaus.machine.environment import settings


def run(
    subject: Subject,
    checks: Sequence[Check],
    modes: Sequence[str] = ("eager", "compiled", "donating"),
    progress: Callable[[Outcome], None] = lambda outcome: None,
) -> Report:
    """Every check in every mode that it has. An exception is an outcome ("error"), not the end."""
    return reported(subject, outcomes_of(subject, checks, modes), progress)


def reported(subject: Subject, answers: Iterable[Outcome], progress: Callable[[Outcome], None]) -> Report:
    """The report of outcomes, as they come."""
    outcomes = []
    for outcome in answers:
        outcomes.append(outcome)
        progress(outcome)
    backend = subject.backend
    return Report(
        backend=backend.name,
        device=str(backend.device),
        dtype=backend.dtype,
        precision=backend.precision,
        probed=backend.probe() if backend.dtype == "float32" else "",
        kernels=backend.kernels.name,
        versions=backend.versions() | {"ref_bioplaus": __version__},
        environment=environment(),
        limit=judge.LIMIT,
        outcomes=outcomes,
    )


def planned(checks: Iterable[Check], modes: Sequence[str]) -> int:
    """How many outcomes a run will have."""
    return sum(mode in check.modes for check in checks for mode in modes)


def outcomes_of(subject: Subject, checks: Sequence[Check], modes: Sequence[str]) -> Iterator[Outcome]:
    """One outcome per check and mode."""
    for check in checks:
        for mode in modes:
            if mode in check.modes:
                yield outcome_of(subject, check, mode)


def outcome_of(subject: Subject, check: Check, mode: str) -> Outcome:
    """Ask one question."""
    began = time.perf_counter()
    outcome = Outcome(check.id, check.level, check.group, mode, "pass")
    try:
        finding = check.run(subject, mode)
    except Exception as error:  # whatever a stranger's backend raises is a result
        outcome.state, outcome.reason = "error", f"{type(error).__name__}: {error}"
    else:
        settle(outcome, finding)
    outcome.seconds = time.perf_counter() - began
    return outcome


def settle(outcome: Outcome, finding: Finding) -> None:
    """From what a check found to pass, fail, unsupported or not run."""
    outcome.scores = tuple(s.score for s in finding.scores)
    outcome.comparisons, outcome.undecidable = len(finding.scores), finding.undecidable
    outcome.score = max(outcome.scores, default=0.0)
    outcome.departure = judge.first_departure(list(finding.scores))
    if finding.unsupported:
        outcome.state, outcome.reason = "unsupported", finding.unsupported
    elif finding.problem:
        outcome.state, outcome.reason = "fail", finding.problem
    elif finding.undecidable and not finding.scores:
        outcome.state = "not run"
        outcome.reason = f"{finding.undecidable} decisions are undecidable in this precision"
    elif outcome.departure is not None:
        outcome.state, outcome.reason = "fail", sentence(outcome.departure)


def environment() -> dict[str, str]:
    """The machine, and the settings that change what libraries compute."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
    } | settings()
