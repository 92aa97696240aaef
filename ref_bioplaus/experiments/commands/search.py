"""The command `search`: random search over declared ranges, for one experiment or for several rows of a table alike.

Exit codes as in reproduce.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from os.path import isdir
from pathlib import Path
from typing import Annotated, Any

import typer

from ...showing.terminal import new_console, new_table, say
from ..many import across
from ..many import search as searching
from ..many import table as cells
from ..spec.experiment import ExperimentError, overridden, read
from .reproduce import Devices, Jobs, Precision, Threads, carry_out, fields, finish
from .train import BackendName, Code, DataFolder, Epochs, Settings, sentences

BEST_TRIALS = 6


def search(
    ranges: Annotated[
        str,
        typer.Argument(help="A TOML file of ranges, or one that is here: bartunov2018-table4, bartunov2018-unknowns."),
    ],
    out: Annotated[Path, typer.Option(help="The folder of the trials and of the results.")],
    experiment: Annotated[Path | None, typer.Option(help="A TOML file with the experiment to search.")] = None,
    table: Annotated[str | None, typer.Option(help="Instead of a file: a paper's table, with --method.")] = None,
    column: Annotated[str | None, typer.Option(help="The table's column.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="The table's row; repeatable: trials then have the same values in every row."),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Default: as many as the ranges say.")] = None,
    trial: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Only this trial, by its number; repeatable: to run the best longer."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the values drawn.")] = 0,
    held_out: Annotated[
        int | None, typer.Option(min=1, help="Training images that judge. Default: the experiment's, or 10,000.")
    ] = None,
    epochs: Epochs = None,
    data: DataFolder = None,
    backend: BackendName = None,
    device: Devices = None,
    precision: Precision = None,
    jobs: Jobs = 1,
    threads: Threads = None,
    setting: Settings = None,
    code: Code = None,
    report: Annotated[bool, typer.Option("--report", help="Run nothing, only report what is there.")] = False,
) -> None:
    """Random search over declared ranges, judged on held-out training images; the test images are never looked at.

    Trials that have ended are left as they are, trials that were stopped go on.
    """
    console = new_console()
    changes = fields(epochs=epochs, data=data, backend=backend, device=device, precision=precision)
    several = method is not None and len(method) > 1 and table is not None and experiment is None

    def begun_in_all():
        chosen = searching.read_ranges(ranges)
        found = across.across(
            str(table), column, method or (), chosen, out, trials, seed, held_out, setting or (), trial or (), **changes
        )
        return found, [] if report else found.todo()

    if several:
        joint, todo = sentences(begun_in_all)
        outcomes, stopped = carry_out(todo, jobs, threads, console, device or (), joint.points)
        say(console, across.as_markdown(joint, sentences(joint.points)))
        if isdir(out):
            say(console, f"This is in {out / across.EFFECTS}, the points are in {out / across.POINTS}.")
        return finish(outcomes, stopped, console)

    def begun():
        chosen = searching.read_ranges(ranges)
        base = searched(experiment, table, column, method, changes, setting or (), code or ())
        found = searching.Search(base, chosen, out, trials or chosen.trials, seed, held_out, tuple(trial or ()))
        return found, [] if report else found.todo()

    chosen, todo = sentences(begun)
    outcomes, stopped = carry_out(todo, jobs, threads, console, device or (), chosen.collected)
    lines = sentences(chosen.collected)
    counted = [found for found in lines if found["repeats"] is None]
    best = counted[:BEST_TRIALS]
    results = new_table(("", *(f"trial {found['trial']}" for found in best)))
    results.add_row("validation", *("none" if f["score"] is None else f"{f['score']:.4g}" for f in best))
    results.add_row("at epoch", *(f"{f['epoch']} of {f['epochs']}" for f in best))
    for path in sorted(chosen.chosen):
        results.add_row(path, *(f"{f['values'][path]:.4g}" if isinstance(f["values"][path], float) else
                                str(f["values"][path]) for f in best))  # fmt: skip
    console.print(results)
    say(
        console,
        f"{len(lines)} of {max(len(lines), len(chosen.numbers))} trials have ended; the best are shown, by the lowest "
        "validation error of all their epochs, or loss where there are no classes.",
    )
    for found in lines:
        if found["repeats"] is not None:
            say(console, f"Trial {found['trial']} has the values of trial {found['repeats']}: they count once.")
        elif found["unlearned"]:
            say(console, f"Trial {found['trial']}: {found['unlearned']}.")
        elif found["changed"]:
            say(
                console,
                f"Trial {found['trial']} does not count, as its values are not those drawn: {found['changed']}.",
            )
    for sentence in chosen.computed(found["trial"] for found in best):
        say(console, f"{sentence}.")
    if lines and lines[0]["score"] is not None:
        say(console, f"The best experiment is {out / searching.BEST}, all results are in {out / searching.RESULTS}.")
    finish(outcomes, stopped, console)


def searched(
    path: Path | None,
    table: str | None,
    column: str | None,
    methods: Sequence[str] | None,
    changes: dict[str, Any],
    settings: Iterable[str],
    code: Iterable[str] = (),
) -> Any:
    """The experiment to search, from a file or from a table's cell. Raises ExperimentError."""
    if (path is None) == (table is None) or (table is None) != (not methods):
        raise ExperimentError("Name what to search: either --experiment FILE, or --table, --column and --method.")
    if path is not None:
        base = read(path, code)
    else:
        chosen = cells.find_table(str(table))
        by_column = cells.find_column(chosen, column)
        (row,) = cells.find_rows(chosen, by_column.id, list(methods or ()))
        base = cells.experiment_of(chosen.name, by_column.id, row.id)
    return overridden(replace(base, **changes), settings)
