"""Lists on the report's page: what is judged by what, and where the time went."""

from collections.abc import Sequence

from ref_bioplaus.conformance.checks.outcomes import Outcome, Report

LETTERS = {"error": "E", "fail": "F", "deviates": "D", "pass": "P", "not run": "N", "unsupported": "U"}  # worst first
LONGEST = 15  # checks whose time is told


def coverage(reports: Sequence[Report]) -> list[tuple[str, str, list[str]]]:
    """Every name, what judges it, and what came of that in every report; [] where no report has the table."""
    table = next((r.coverage for r in reports if r.coverage), {})
    states = [{id: {o.state for o in mine} for id, mine in by_id(r).items()} for r in reports]
    return [
        (name, check, [min(s.get(check, {""}), key=lambda state: [*LETTERS, ""].index(state)) for s in states])
        for name, check in table.items()
    ]


def by_id(report: Report) -> dict[str, list[Outcome]]:
    """The outcomes of every check."""
    found: dict[str, list[Outcome]] = {}
    for o in report.outcomes:
        found.setdefault(o.id, []).append(o)
    return found


def longest(report: Report) -> list[tuple[str, str, float]]:
    """The checks that took the longest: (id, modes, seconds of all of them together)."""
    rows = [(id, ", ".join(o.mode for o in mine), sum(o.seconds for o in mine)) for id, mine in by_id(report).items()]
    return sorted(rows, key=lambda row: (-round(row[2], 2), row[0]))[:LONGEST]
