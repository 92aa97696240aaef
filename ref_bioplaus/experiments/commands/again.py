"""`reproduce --check`: recorded runs again for their first epochs, and whether their numbers are what the logs say.

Exit codes: 0 nothing differs · 1 a number differs, or a run failed · 2 as in reproduce.py, also where no log is there ·
130 and 143 stopped; nothing is kept of what was run again.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from os.path import isdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from ...showing.terminal import complain, new_table, say
from ..many import again
from ..many import jobs as running
from .train import sentences

HEADINGS = ("epoch", "quantity", "recorded", "now", "")


def check(
    table: str,
    column: str | None,
    methods: Sequence[str],
    seeds: int,
    out: Path,
    epochs: int | None,
    changes: dict[str, Any],
    threads: int | None,
    console: Console,
    carry_out: Callable[[list[running.Job], int | None], tuple[list[running.Outcome], int | None]],
) -> None:
    """Run what OUT holds of a column again, or every run below a folder that is named in the table's place; elsewhere.
    Prints a line for every epoch and quantity."""
    place = Path(table)

    def planned() -> list[again.Again]:
        if isdir(place) and column is None and not methods:
            return again.planned_below(place, Path(into), epochs, **changes)
        return again.planned(table, column, methods, seeds, out, Path(into), epochs, **changes)

    with TemporaryDirectory() as into:
        plan = sentences(planned)
        cores = again.recorded_cores(plan) if threads is None else threads
        outcomes, stopped = carry_out([one.job for one in plan], cores)
        if stopped:
            say(console, "Stopped: nothing is kept of what was run again.")
            raise typer.Exit(128 + stopped)
        failed = [outcome for outcome in outcomes if outcome.end != running.FINISHED]
        for outcome in failed:
            complain(f"{outcome.job.name}: {outcome.sentence}")
        found = sentences(lambda: again.compared(plan, place if isdir(place) else out))
    for one in found:
        show(one, console)
    if failed or not all(one.agrees for one in found):
        raise typer.Exit(1)


def show(one: again.Compared, console: Console) -> None:
    """A run's lines, what was asked of them, and what came of it."""
    say(console, f"{one.name}: {asked(one.other)}")
    lines = new_table(HEADINGS)
    for line in one.lines:
        name = line.quantity + (f", layer {line.layer}" if line.layer else "")
        lines.add_row(*map(Text, (str(line.epoch), name, *written(line.recorded, line.now), line.verdict)))
    console.print(lines)
    say(console, f"{one.name}: {came_to(one)}")


def asked(other: Sequence[str]) -> str:
    """By what numbers are judged."""
    if not other:
        return "backend, versions, processor and cores are those that the log recorded: every bit has to be the same."
    return (
        f"compared as another machine's ({', '.join(other)}): before the first step numbers agree to "
        f"{again.ROUNDING:g} of their size (errors to {again.IMAGES:g} points, angles to {again.DEGREES:g} degrees "
        f"more), afterwards to {again.LIMIT:g} standard deviations over recorded seeds."
    )


def written(recorded: float | None, now: float | None) -> tuple[str, str]:
    """Two numbers, with as many digits as tell them apart."""
    short, exact = ((form(recorded), form(now)) for form in (few_digits, repr))
    return exact if recorded != now and short[0] == short[1] else short


def few_digits(number: float | None) -> str:
    """A number for a reader."""
    return "–" if number is None else f"{number:.6g}"


def came_to(one: again.Compared) -> str:
    """How many lines have which verdict, in words."""
    counts = Counter(line.verdict for line in one.lines)
    if counts[again.SAME] == len(one.lines) > 0:
        return f"all {len(one.lines)} lines are the same, bit for bit."
    words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in again.VERDICTS if counts[verdict])
    wrong = ", ".join(f"{line.quantity} of epoch {line.epoch}" for line in one.lines if line.verdict == again.DIFFERS)
    unknown = "; open: no seeds are recorded to judge them by" if counts[again.OPEN] else ""
    return f"{words or 'nothing to compare'}{f'; what differs: {wrong}' if wrong else ''}{unknown}."
