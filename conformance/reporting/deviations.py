"""Where a backend is known to differ: one TOML file per backend, strict. deviations/<backend>.toml holds rows

    [[deviation]]
    id = "1/*/conv/*"             # pattern (fnmatch) of the outcomes' ids
    device = "cuda*"              # pattern: "cpu", "cuda:0"
    dtype = "float32"             # pattern
    mode = "compiled"             # may be left out: every mode
    reason = "Fuses x * y + z."   # one sentence, for the report
    link = "https://..."          # where it is discussed
    since = 2025-06-01
    until = 2026-06-01            # the last day on which it excuses anything

A row excuses failures and errors of reports on its device and dtype. It must have something to excuse: a match that
passes, a row that matches nothing that was run and a row that is past its last day are problems of the report.
"""

import datetime
import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from ref_bioplaus.conformance.checks.outcomes import MODES, Outcome, Report
from ref_bioplaus.conformance.files.reading import Unreadable, shown, toml_of

FOLDER = Path(__file__).parents[1] / "deviations"
EXCUSABLE = ("fail", "error")
KEYS = ("id", "device", "dtype", "reason", "link", "since", "until")
OPTIONAL = ("mode",)
ENOUGH = 3  # ids named in a sentence


class Deviation(NamedTuple):
    """One row."""

    id: str
    device: str
    dtype: str
    reason: str
    link: str
    since: datetime.date
    until: datetime.date
    mode: str = ""  # "": all
    place: str = ""  # "numpy.toml, row 1"

    def concerns(self, report: Report) -> bool:
        """Whether it speaks of a report's device and dtype, and of a mode that was run."""
        kind = device_kind(report.device)
        modes = {outcome.mode for outcome in report.outcomes}
        return (
            any(fnmatchcase(name, self.device) for name in (kind, kind.partition(":")[0]))
            and fnmatchcase(report.dtype, self.dtype)
            and (not self.mode or not modes or self.mode in modes)
        )

    def matches(self, outcome: Outcome) -> bool:
        """Whether an outcome is one of those it names."""
        return fnmatchcase(outcome.id, self.id) and self.mode in ("", outcome.mode)


def folder(place: Path, option: str = "--deviations") -> Path:
    """A folder of such files. Raises ValueError, one sentence, where it is none, or cannot be looked into."""
    try:
        os.listdir(place)
    except OSError as error:
        why = f"{place} is no folder to read ({error.strerror})"
        raise ValueError(f"{why}: name one with {option}, or leave it out") from error
    return place


def load(backend: str, folder: Path = FOLDER) -> tuple[Deviation, ...]:
    """The rows of a backend; none where it has no file. Raises ValueError, one sentence, for a file that is wrong."""
    file = folder / f"{backend}.toml"
    if not os.path.lexists(file):
        return ()
    try:
        content = toml_of(file)
    except Unreadable as error:
        raise ValueError(f"{file} {error}: rows [[deviation]] are expected") from error
    rows = content.pop("deviation", [])
    if content or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        found = ", ".join(map(shown, content)) or '"deviation"'
        raise ValueError(f"{file} has {found} at its top, expected rows [[deviation]] and nothing else")
    return tuple(parse(row, file, i) for i, row in enumerate(rows, 1))


def parse(row: dict[str, Any], file: Path, number: int) -> Deviation:
    """One row of a file. Raises ValueError naming file, row and what was expected."""
    where = f"{file}, row {number}"
    missing = [key for key in KEYS if key not in row]
    unknown = [key for key in row if key not in KEYS + OPTIONAL]
    if missing or unknown:
        wrong = " and ".join([*(f'no "{key}"' for key in missing), *(f"an unknown {shown(key)}" for key in unknown)])
        raise ValueError(f"{where} has {wrong}, expected {', '.join(KEYS)} and, if it matters, {OPTIONAL[0]}")
    texts = {}
    for key in ("id", "device", "dtype", "reason", "link", *(k for k in OPTIONAL if k in row)):
        if not isinstance(row[key], str) or not row[key].strip():
            raise ValueError(f"{where}: {key} is {shown(row[key])}, expected text")
        texts[key] = row[key].strip()
    if texts.get("mode", MODES[0]) not in MODES:
        raise ValueError(f"{where}: mode is {shown(texts['mode'])}, expected one of {', '.join(MODES)}")
    since, until = (day(row[key], f"{where}: {key}") for key in ("since", "until"))
    if since > until:
        raise ValueError(f"{where}: since is {since} and until {until}, expected a first day before the last")
    return Deviation(**texts, since=since, until=until, place=f"{file.name}, row {number}")


def day(value: Any, where: str) -> datetime.date:
    """A date, as TOML's own or as text."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        return datetime.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where} is {shown(value)}, expected a date such as 2025-12-31") from None


def apply(report: Report, rows: Sequence[Deviation], today: datetime.date, left_out: Iterable[str] = ()) -> None:
    """Turn failures that a row excuses into "deviates", and note in report.problems which rows are not in order.

    left_out: ids of checks that this run was not asked for; a row that names one of them may match nothing.
    """
    left_out = tuple(left_out)
    matched = [(row, [o for o in report.outcomes if row.matches(o)]) for row in rows if row.concerns(report)]
    problems = [p for row, outcomes in matched for p in problem(row, outcomes, today, left_out)]
    for row, outcomes in matched:
        for outcome in outcomes if today <= row.until else ():
            if outcome.state in EXCUSABLE:
                raised = f" (it raised {outcome.reason})" if outcome.state == "error" else ""
                outcome.state, outcome.reason = "deviates", f"{row.reason.rstrip('.')}; see {row.link}{raised}"
    report.problems.extend(problems)


def problem(row: Deviation, outcomes: list[Outcome], today: datetime.date, left_out: tuple[str, ...]) -> list[str]:
    """What is out of order in a row, as sentences."""
    subject = f'The deviation "{row.id}" ({row.place})'
    found = []
    if row.until < today:
        found.append(f"{subject} ended on {row.until}: renew or remove it.")
    passing = [f"{o.id} ({o.mode})" for o in outcomes if o.state == "pass"]
    if passing:
        more = f" and {len(passing) - ENOUGH} more" if len(passing) > ENOUGH else ""
        found.append(f"{subject} does not hold any more, for {', '.join(passing[:ENOUGH])}{more} passed: narrow it.")
    ran = any(o.state in (*EXCUSABLE, "pass") for o in outcomes)
    if not ran and not any(fnmatchcase(id, row.id) for id in left_out):
        found.append(f"{subject} matches nothing that was run: correct or remove it.")
    return found


def device_kind(device: str) -> str:
    """A device by what it is, whatever a library calls it: "cpu", "cuda:0"; another one in small letters."""
    found = re.search(r"(cpu|cuda|gpu)\D*(\d*)", device.lower())
    if not found:
        return device.lower()
    return "cpu" if found[1] == "cpu" else f"{found[1]}:{found[2] or 0}"
