"""The checks of one report in several processes, each with the backend and the modes of a check to itself."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from tempfile import TemporaryDirectory
from typing import Any

from ref_bioplaus.conformance.checks import levels as suite
from ref_bioplaus.conformance.checks.outcomes import GONE, Check, Outcome, Subject
from ref_bioplaus.conformance.checks.runner import outcomes_of
from ref_bioplaus.conformance.commands.asking import Asked, chosen_rows, start
from ref_bioplaus.machine.side_by_side import side_by_side
from ref_bioplaus.registry import ROWS

HOURS = 24 * 3600.0  # no check is hurried


def outcomes(
    asked: Asked, device: str | None, rules: Sequence[str], checks: Sequence[Check], modes: Sequence[str], jobs: int
) -> Iterator[Outcome]:
    """The outcomes of some checks as they come; a check whose process ends without an answer raised an error."""
    known = {check.id: check for check in checks}
    with TemporaryDirectory() as programs:
        tasks = [((asked, device, programs), tuple(rules), check.level, check.id, tuple(modes)) for check in checks]
        for (*_, id, _), found, _ in side_by_side(answered, tasks, jobs, HOURS):
            check = known[id]
            yield from found or [
                Outcome(id, check.level, check.group, mode, "error", reason=GONE)
                for mode in modes
                if mode in check.modes
            ]


def answered(
    of: tuple[Asked, str | None, str], rules: tuple[str, ...], level: int, id: str, modes: tuple[str, ...], tell: Any
) -> list[Outcome]:
    """One check in all of its modes, in a process that may have answered others."""
    return list(outcomes_of(subject(*of), [by_id(level, rules)[id]], modes))


@lru_cache(maxsize=1)
def subject(asked: Asked, device: str | None, programs: str) -> Subject:
    """The backend under test; what one process compiles for it the others find in a folder."""
    backend = start(asked, device)
    backend.share_programs(programs)
    return Subject(backend)


@lru_cache(maxsize=len(suite.LEVELS))
def by_id(level: int, rules: tuple[str, ...]) -> dict[str, Check]:
    """The checks of a level."""
    return {check.id: check for check in suite.checks([level], chosen_rows(rules) or ROWS)}
