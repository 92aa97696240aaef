"""The command `ref-bioplaus conformance`. Exit codes: 0 sound · 1 not · 2 not understood, or cannot be done as asked.

Libraries are imported when a command needs them, so that help comes at once.
"""

import datetime
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import TextColumn

from ref_bioplaus.conformance.commands.asking import (
    choose,
    chosen_rows,
    combinations,
    driver,
    failures_of,
    left_out,
    parse_levels,
    select,
    split,
    start,
)
from ref_bioplaus.conformance.commands.exchange import exchange_app, path
from ref_bioplaus.conformance.commands.mutants import mutants_app
from ref_bioplaus.showing.terminal import bars, fail, new_console, new_table, say
from ref_bioplaus.showing.words import on_one_line

if TYPE_CHECKING:
    from ref_bioplaus.conformance.checks.outcomes import Report

ENOUGH = 20  # sentences of one kind

conformance_app = typer.Typer(no_args_is_help=True, help="Check a backend, or an implementation of your own.")


@conformance_app.command()
def run(
    backend: Annotated[
        list[str] | None,
        typer.Option(help='A backend by name or as "module:object"; repeatable, or several with commas between.'),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help='"cpu", "cuda", "cuda:1"; the backend\'s usual one if left out.')
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64, bfloat16, with commas between.")] = "float32",
    precision: Annotated[
        str, typer.Option(help="Of float32 products: ieee, tf32, bf16, with commas between.")
    ] = "ieee",
    kernels: Annotated[
        str, typer.Option(help="portable, or native (the library's own forms), with commas between.")
    ] = "portable",
    mode: Annotated[
        str, typer.Option(help="eager, compiled, donating, with commas between.")
    ] = "eager,compiled,donating",
    level: Annotated[str, typer.Option(help='0 to 4, as "0-2" or "0,2". Level 4 takes long.')] = "0-3",
    case: Annotated[str, typer.Option(help='Only checks whose id matches, as "1/kolen-pollack/*".')] = "*",
    algorithm: Annotated[
        list[str] | None,
        typer.Option(help='Only this rule, by name or as "my_rule.py:my_rule"; repeatable. Default: the registry\'s.'),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(help="Write the report here, see conformance/reporting/schema.json.", metavar="FILE", parser=path),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page to look at here.", metavar="FILE", parser=path)
    ] = None,
    deviations: Annotated[
        Path | None,
        typer.Option(
            help="The folder with <backend>.toml, what is known to differ; ours if left out.",
            metavar="DIR",
            parser=path,
        ),
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(help="An earlier --json report: what failed there is asked first.", metavar="FILE", parser=path),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the checks.")] = 1,
) -> None:
    """Run the checks on a backend, judge every tensor, and say where the first one departs."""
    from ref_bioplaus.conformance.checks import diagnosis, outcomes, runner
    from ref_bioplaus.conformance.commands.jobs import outcomes as shared
    from ref_bioplaus.conformance.proofs.coverage.table import judged_by
    from ref_bioplaus.conformance.reporting import deviations as known
    from ref_bioplaus.conformance.reporting.report import ASKED, sound, verdict
    from ref_bioplaus.conformance.reporting.unjudged import not_judged

    console = new_console()
    try:
        files = check_files({"--json": json, "--html": html})
        modes = choose(mode, outcomes.MODES, "--mode")
        levels = parse_levels(level)
        wanted = combinations(split(backend or ()), dtype, precision, kernels)
        place = known.FOLDER if deviations is None else known.folder(deviations)
        subjects = [(asked, start(asked, device)) for asked in wanted]
        deviating = [known.load(b.name, place) for _, b in subjects]
        rows = chosen_rows(algorithm or ())
        checks = select(levels, case, modes, rows=rows)
        failed = set() if since is None else failures_of(since)
        others = left_out(checks) if any(deviating) else []
    except ValueError as error:
        fail(f"{error}.")
    if since is not None:
        checks = tuple(sorted(checks, key=lambda check: check.id not in failed))
        say(console, f"{sum(c.id in failed for c in checks):,} checks failed in {since}: these first.")
    reports = []
    for (asked, made), mine in zip(subjects, deviating):
        subject = outcomes.Subject(made)
        with Bar(console, str(asked), runner.planned(checks, modes)) as bar:
            if jobs == 1:
                report = runner.run(subject, checks, modes, bar.advance)
            else:
                answers = shared(asked, device, algorithm or (), checks, modes, jobs)
                report = runner.reported(subject, answers, bar.advance)
                order = {check.id: i for i, check in enumerate(checks)}
                report.outcomes.sort(key=lambda o: order[o.id])
        report.environment |= driver(made) | ({ASKED: asked.backend} if asked.backend != report.backend else {})
        known.apply(report, mine, datetime.date.today(), others)
        report.diagnosis += diagnosis.diagnoses(subject, checks, report.outcomes)
        report.not_judged += not_judged(levels, modes, case, rows is not None)
        report.coverage |= judged_by() if rows is None else {}
        reports.append(report)
        show(report, console)
    unwritten = write(reports, files)
    say(console, verdict(reports), "green" if sound(reports) else "bold red")
    for line in reports[0].not_judged:
        say(console, line)
    if unwritten:
        fail(unwritten)
    raise typer.Exit(0 if sound(reports) else 1)


conformance_app.registered_commands += exchange_app.registered_commands + mutants_app.registered_commands


# What comes of it


def check_files(files: dict[str, Path | None]) -> dict[str, Path]:
    """The files that are asked for. Raises ValueError where one cannot be written. Makes nothing."""
    named = {option: file for option, file in files.items() if file is not None}
    for option, file in named.items():
        try:
            look_at(file.absolute())
        except OSError as error:
            raise ValueError(f"{file} cannot be written ({error.strerror}): name another file with {option}") from error
    if len({file.absolute() for file in named.values()}) < len(named):
        raise ValueError(f"{' and '.join(named)} name one file: give each its own")
    return named


def look_at(file: Path) -> None:
    """Raise OSError where a file cannot be written, as far as can be seen beforehand."""
    from ref_bioplaus.machine.files import check_place

    check_place(file)
    there = next(place for place in (file, *file.parents) if os.path.lexists(place))
    hindrances = {
        errno.EISDIR: os.path.isdir(file),
        errno.ENOTDIR: there != file and not os.path.isdir(there),
        errno.EACCES: not os.access(there, os.W_OK),
    }
    for number, holds in hindrances.items():
        if holds:
            raise OSError(number, os.strerror(number))


def write(reports: "Sequence[Report]", files: dict[str, Path]) -> str:
    """Write the files that are asked for; returns a sentence on those that cannot be written, "" where all can."""
    from ref_bioplaus.conformance.reporting import report
    from ref_bioplaus.machine.files import write_whole

    makers = {
        "--json": lambda: report.as_text(report.to_json(reports)) + "\n",
        "--html": lambda: report.to_html(reports),
    }
    wrong = []
    for option, file in files.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, makers[option]().encode("utf-8", "replace"))
        except OSError as error:
            wrong.append(f"{file} could not be written ({error.strerror})")
    return f"{' and '.join(wrong)}: run it again with other names." if wrong else ""


class Bar:
    """A bar that counts outcomes and names the last; without a terminal, one line."""

    def __init__(self, console: Console, name: str, total: int):
        self.rich = bars(console, TextColumn("{task.fields[at]}", markup=False), remaining=False)
        self.task = self.rich.add_task(name, total=total, at="")
        if not console.is_terminal:
            say(console, f"{name}: {total:,} outcomes")

    def __enter__(self) -> "Bar":
        self.rich.start()
        return self

    def __exit__(self, *error) -> None:
        self.rich.stop()

    def advance(self, outcome: Any) -> None:
        """One more is there."""
        self.rich.update(self.task, advance=1, at=f"{outcome.id} ({outcome.mode})")


def show(report: "Report", console: Console) -> None:
    """Print a report: a table, then what is wrong, a sentence each."""
    from ref_bioplaus.conformance.checks.outcomes import STATES
    from ref_bioplaus.conformance.reporting.report import largest, title

    table = new_table(title=f"{title(report)}; limit {report.limit:g}")
    for heading in ("level", *STATES, "largest score", "seconds"):
        table.add_column(heading, justify="right")
    for l in sorted({o.level for o in report.outcomes}):
        mine = [o for o in report.outcomes if o.level == l]
        counts = {state: sum(o.state == state for o in mine) for state in STATES}
        score = largest(mine)
        table.add_row(str(l), *(f"{n:,}" if n else "" for n in counts.values()),
                      "" if score is None else f"{score:.3g}", f"{sum(o.seconds for o in mine):,.1f}",
                      style="red" if counts["fail"] or counts["error"] else None)  # fmt: skip
    console.print(table)
    words = {"fail": "fails", "error": "raised an error", "deviates": "deviates"}
    for state, style in (("fail", "red"), ("error", "red"), ("deviates", "")):
        found = [o for o in report.outcomes if o.state == state]
        for o in found[:ENOUGH]:
            say(console, on_one_line(f"{o.id} ({o.mode}) {words[state]}: {o.reason}"), style)
        if len(found) > ENOUGH:
            say(console, f"... and {len(found) - ENOUGH:,} more; --html or --json name them all.", style)
    for line in report.diagnosis:
        say(console, on_one_line(f"Looked into: {line}"), "yellow")
    for problem in report.problems:
        say(console, on_one_line(problem), "red")
    console.print()
