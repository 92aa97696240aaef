"""The commands `reproduce` and `list experiments`, and what runs side by side in a terminal.

Libraries are imported when a command needs them.

Exit codes: 0 done · 1 a run failed · 2 not understood, or cannot be done as asked · 130 and 143 stopped by Ctrl-C or
SIGTERM, with a checkpoint of every run.
"""

import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ...showing.terminal import bars, complain, fail, new_console, new_table, say
from .. import papers
from ..many import jobs as running
from ..many import side_by_side
from ..many import table as cells
from ..spec.experiment import ExperimentError
from . import again as checking
from .train import BackendName, Bar, DataFolder, Epochs, Settings, given, sentences

EVERY = 60.0  # seconds between the lines of a run where no terminal shows its bar

Jobs = Annotated[int, typer.Option(min=1, help="Runs side by side, each in a process of its own.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Cores of each run. Default: an equal share of all.")]
Devices = Annotated[
    list[str] | None,
    typer.Option(help='As "cpu" or "cuda:1"; repeatable: runs side by side share them. Default: the library\'s usual.'),
]
Precision = Annotated[str | None, typer.Option(help='Of float32 products: "ieee", "tf32" or "bf16".')]


def mount(app: typer.Typer, catalogue_app: typer.Typer) -> None:
    """Add the commands to the program and to its `list`."""
    app.command()(reproduce)
    catalogue_app.command("experiments")(experiments)


def experiments(
    table: Annotated[str | None, typer.Argument(help="A table, to see its numbers. Default: all tables.")] = None,
) -> None:
    """The papers' tables, of which every cell is an experiment that `reproduce` runs."""
    console = new_console()
    if table is None:
        overview = new_table(("table", "column", "dataset", "numbers published", "rows"))
        for found in papers.tables():
            for column in found.columns:
                rows = [row.id for row in found.rows if (row.id, column.id) in found.cells]
                count = f"{sum(len(found.cells[row, column.id].values) for row in rows)}"
                overview.add_row(*map(Text, (found.name, column.id, column.dataset, count, ", ".join(rows))))
        console.print(overview)
        return
    chosen = sentences(lambda: cells.find_table(table))
    say(console, f"{chosen.paper.authors} {chosen.paper.year}, {chosen.source}: {chosen.caption}")
    say(console, f"{', '.join(chosen.quantities)} · {chosen.statistic}")
    numbers = new_table(("row", "method", *(column.id for column in chosen.columns)))
    for row in chosen.rows:
        printed = [paper_numbers(chosen.quantities, chosen.cells.get((row.id, c.id))) for c in chosen.columns]
        numbers.add_row(*map(Text, (row.id, row.label, *printed)))
    console.print(numbers)


def paper_numbers(quantities: Iterable[str], cell: Any) -> str:
    """A cell as the paper prints it."""
    if cell is None:
        return ""
    if len(set(cell.missing.values())) == 1 and not cell.values:
        return next(iter(cell.missing.values()))
    return " / ".join(side_by_side.published(cell, quantity, 2) for quantity in quantities)


def reproduce(
    table: Annotated[str, typer.Argument(help="A table of a paper, as in `list experiments`.")],
    out: Annotated[Path, typer.Option(help="The folder of the runs and of the report.")] = Path("runs"),
    column: Annotated[str | None, typer.Option(help="The column: a network and its dataset.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A row by its id or label, as dtp-alternating or bp, or a rule of your own in its place, as "
            '"my_rule.py:my_rule"; repeatable, in this order. Default: all.'
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every row, with seeds 0, 1, and so on.")] = 1,
    epochs: Epochs = None,
    data: DataFolder = None,
    backend: BackendName = None,
    device: Devices = None,
    precision: Precision = None,
    jobs: Jobs = 1,
    threads: Threads = None,
    setting: Settings = None,
    report: Annotated[bool, typer.Option("--report", help="Run nothing, only report what is there.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Run what OUT has recorded, or a folder in TABLE's place, again for its first --epochs (default: 2), "
            "elsewhere, and compare.",
        ),
    ] = False,
) -> None:
    """A table of a paper again: run its rows and seeds, and print the paper's numbers and ours side by side.

    Runs that are finished are left as they are, runs that were stopped go on; nothing runs where one of them learned
    with other settings or from other images. The report that is written has every row of the column.
    """
    console = new_console()
    if check:
        if setting or report:
            fail("--check runs what is recorded, with the settings it was recorded with: leave out --set and --report.")
        return checking.check(
            table, column, method or (), seeds, out, epochs,
            fields(data=data, backend=backend, device=device, precision=precision), threads, console,
            lambda todo, cores: carry_out(todo, jobs, cores, console, device or ()),
        )  # fmt: skip
    changes = fields(epochs=epochs, data=data, backend=backend, device=device, precision=precision)

    def shown() -> None:
        chosen = sentences(lambda: cells.reported(table, column, out, method or ()))
        show(chosen, sentences(lambda: cells.reported(table, column, out)) if method else chosen, out, console)

    if report:
        shown()
        return
    plan = sentences(lambda: cells.planned(table, column, method or (), seeds, out, setting or (), **changes))
    sentences(lambda: cells.check_folder(out))
    todo = [job for job in plan if not running.is_finished(job)]
    say(console, f"{len(plan)} runs, {len(plan) - len(todo)} of them finished.")
    outcomes, stopped = carry_out(todo, jobs, threads, console, device or ())
    shown()
    finish(outcomes, stopped, console)


def fields(data: Path | None, device: list[str] | None, **named: Any) -> dict[str, Any]:
    """The fields of an experiment that the command line names; of several devices the first."""
    own = {"data": None if data is None else str(data), "device": device[0] if device else None}
    return given(own | named)


def show(report: Any, whole: Any, out: Path, console: Console) -> None:
    """Print a report of the rows that were asked for, and write that of all the column's rows to OUT."""
    say(console, side_by_side.caption(report))
    found = new_table(side_by_side.HEADINGS)
    for column in found.columns[2:]:
        column.justify = "right"
    for row in side_by_side.text_rows(report):
        found.add_row(*map(Text, row))
    console.print(found)
    for note in [*report.notes, *report.computed]:
        say(console, note)
    page, numbers = sentences(lambda: written(whole, out))
    say(console, f"The report is {page}, its numbers are in {numbers}.")


def written(report: Any, out: Path) -> tuple[Path, Path]:
    """Write a report. Raises ExperimentError where the folder cannot be written to."""
    try:
        return side_by_side.write(report, out)
    except OSError as error:
        raise ExperimentError(f"The folder {out} cannot be written to ({error.strerror}): name another one.") from error


def carry_out(
    todo: list,
    parallel: int,
    threads: int | None,
    console: Console,
    devices: Sequence[str],
    after_each: Callable[[], Any] | None = None,
) -> tuple[list, int | None]:
    """Run jobs and show how they go; their outcomes, and the signal that stopped them."""
    asked: list[int] = []
    with watcher(console, after_each) as watching:
        outcomes = running.run(todo, parallel, threads, watching, asked, devices)
    return outcomes, asked[0] if asked else None


def finish(outcomes: list, stopped: int | None, console: Console) -> None:
    """Say what did not end well, and stop with the exit code of it."""
    failed = [outcome for outcome in outcomes if outcome.end in (running.FAILED, running.BUSY)]
    for outcome in failed:
        complain(f"{outcome.job.name}: {outcome.sentence}")
    if stopped:
        say(console, "Stopped, with a checkpoint of every run: the same command goes on from there.")
        raise typer.Exit(128 + stopped)
    if any(outcome.end == running.STOPPED for outcome in outcomes):
        say(console, "A run was stopped from outside: the same command goes on from its checkpoint.")
        raise typer.Exit(128 + signal.SIGTERM)
    if failed:
        raise typer.Exit(1)


@contextmanager
def watcher(console: Console, after_each: Callable[[], Any] | None = None):
    """A watcher with a bar for every run in a terminal, and lines in a file."""

    class Bars(running.Watcher):
        """The runs in a terminal."""

        def __init__(self) -> None:
            self.bars: dict[str, Bar] = {}

        def begun(self, job):
            say(console, f"{job.name}: {job.out}")
            self.bars[job.name] = Bar(console, rich, job.name, EVERY)
            return self.bars[job.name]

        def ended(self, outcome):
            rich.remove_task(self.bars.pop(outcome.job.name).task)
            say(console, f"{outcome.job.name}: {outcome.sentence}")
            if after_each is not None:
                after_each()

    with bars(console) as rich:
        yield Bars()
