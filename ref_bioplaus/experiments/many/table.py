"""A table of a paper again: its rows and seeds as runs, and the paper's numbers and ours side by side.

    plan = planned("bartunov2018/table1", "mnist-fc", ["bp", "dtp-alternating"], seeds=3, out=Path("runs"))
    jobs.run([job for job in plan if not jobs.is_finished(job)])
    report = reported("bartunov2018/table1", "mnist-fc", Path("runs"))

The run of a cell is in OUT/<table>/<column>/<row>/seed-<n>. "final" is the last epoch, "best" the lowest of all epochs,
each quantity for itself; no choice depends on the test images. The train error is the mean over the batches of an epoch
as they were met, the last epoch that has one: where inverses alone learn, there is none. Seeds that reached different
epochs, or that learned with other settings, are never averaged together, and a seed that is there twice counts once.
The paper's numbers do not stand beside those of other images.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os.path import exists, isdir
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from ... import naming
from ...machine.files import content
from ...showing.words import one_line
from .. import papers
from ..data import left_out, own
from ..data.loading import other_count
from ..runs import checkpoints, logs, segments
from ..runs.folder import check_checkpoint, check_same, check_unedited
from ..runs.logs import FAILURE, records, stored
from ..runs.seeds import Spread, spread
from ..spec import phases
from ..spec.checking import checked
from ..spec.differences import differences, free_of
from ..spec.experiment import NOT_LEARNING, Experiment, ExperimentError, as_dict, from_dict, overridden
from ..spec.phases import Phases
from . import own_rows
from .jobs import Job, check_backends

MEASURED = {  # a table's quantity: the record's number, and whether the paper means the best epoch's
    "train error": ("train_error", None),
    "test error": ("test_error", None),
    "best test error": ("test_error", "best"),
    "top-5 test error": ("test_top5_error", None),
    "reconstruction loss": ("test_loss", None),
    "AP": ("test_AP", None),
    "AP50": ("test_AP50", None),
}
HIGHEST = ("AP", "AP50")  # of which more is better
OWN = ("seed", *NOT_LEARNING)  # in what runs of one cell may differ


class Result(NamedTuple):
    """What one run came to, as far as it did."""

    row: str
    seed: int
    epoch: int  # the last one measured
    final: dict[str, float]  # by quantity
    best: dict[str, float]
    best_epoch: dict[str, int]
    seconds: float  # spent learning
    experiment: Experiment
    departures: tuple[str, ...]  # from the paper's experiment
    failure: str  # "" where there was none
    folder: str = ""
    same_images: bool = True  # as the paper's, as far as is known
    phases: Phases | None = None  # of its epochs
    segments: Sequence[dict[str, Any]] = ()  # what computed it; none in an older log
    damage: str = ""  # a sentence, where the last line of its log is left out


@dataclass(frozen=True)
class Line:
    """A row's seeds that learned the same as far as the same epoch; `seeds` is empty where there is no run."""

    row: papers.Row
    cell: papers.Cell
    seeds: tuple[int, ...]
    epoch: int
    epochs: int  # the paper's
    final: dict[str, Spread]
    best: dict[str, Spread]
    same_images: bool = True
    phases: Phases | None = None
    repeated: tuple[str, ...] = ()  # a sentence for every run that has the seed of another
    seconds: float = 0.0  # that a run has learned for, the seeds' mean

    @property
    def published(self) -> Mapping[str, float]:
        """The paper's numbers to compare with, by quantity; none where the images are others."""
        return self.cell.values if self.same_images else {}


@dataclass(frozen=True)
class Report:
    """A column of a table, the paper's and ours."""

    table: papers.Table
    column: papers.Column
    lines: tuple[Line, ...]
    results: tuple[Result, ...]

    @property
    def notes(self) -> list[str]:
        """What a reader must know of single runs: departures and failures."""
        found: dict[str, list[str]] = {}
        for result in self.results:
            unlearned = result.phases.sentence() if result.phases else ""
            failed = f"failed: {result.failure}" if result.failure else ""
            for text in filter(None, [*result.departures, unlearned, failed, result.damage]):
                found.setdefault(text, []).append(f"{result.row} seed {result.seed}")
        notes = [f"{', '.join(runs)}: {text}" for text, runs in found.items()]
        return notes + [text for line in self.lines for text in line.repeated]

    @property
    def computed(self) -> list[str]:
        """What computed which runs."""
        return segments.told((f"{r.row} seed {r.seed}", r.experiment, r.segments) for r in self.results)


# What to run


def experiment_of(table: str, column: str, row: str) -> Experiment:
    """The paper's experiment of a cell, checked. Raises ExperimentError for names that are unknown."""
    with_sentences(lambda: papers.experiment(table, column=column, row=row))
    return checked(from_dict(papers.experiment(table, column=column, row=row)))


def with_sentences(find: Callable[[], Any]) -> Any:
    """What `find` returns; its KeyError as an ExperimentError, which the commands print as a sentence."""
    try:
        return find()
    except KeyError as error:
        text = str(error.args[0])
        raise ExperimentError(text[:1].upper() + text[1:]) from error


def find_table(name: str) -> papers.Table:
    """A table by its name. Raises ExperimentError with the nearest names for an unknown one."""
    return with_sentences(lambda: papers.table(name))


def find_column(table: papers.Table, name: str | None) -> papers.Column:
    """A table's column by its id; the only one of the paper's where none is named. Raises ExperimentError."""
    printed = [column for column in table.columns if not column.like]
    if name is None and len(printed) > 1:
        raise ExperimentError(f"{table.name} has several columns, name one: {', '.join(c.id for c in table.columns)}")
    return printed[0] if name is None else with_sentences(lambda: table.column(name))


def find_rows(table: papers.Table, column: str, names: Sequence[str]) -> list[papers.Row]:
    """Rows by their ids or the papers' labels ("bp"), in that order; all of the column where none is named.

    Raises ExperimentError for an unknown one, and for one that the column does not have.
    """
    if not names:
        return [row for row in table.rows if (row.id, column) in table.cells]
    known = {row.id: row for row in table.rows} | {row.label.lower(): row for row in table.rows}
    found: list[papers.Row] = []
    for name in names:
        if name.lower() not in known:
            close = difflib.get_close_matches(name.lower(), known, n=3) or [row.id for row in table.rows]
            raise ExperimentError(f'The row "{name}" of {table.name} is unknown: did you mean {", ".join(close)}?')
        if known[name.lower()] not in found:
            found.append(known[name.lower()])
    for row in found:
        with_sentences(partial(table.cell, row.id, column))
    return found


def planned(
    table: str,
    column: str | None,
    methods: Sequence[str] = (),
    seeds: int = 1,
    out: Path = Path("runs"),
    settings: Iterable[str] = (),
    **changes: Any,
) -> list[Job]:
    """The runs of a column: every row's first seed, in the order of `methods`, then every row's second one. A method
    may be a rule of one's own, see own_rows.py.

    changes: fields of every experiment, as epochs=5 or backend="jax"; settings: others, as "optimizer.eta=0.01".
    Raises ExperimentError, also for a folder of images that is not there and for a run in `out` that has learned
    otherwise; BackendError, and DataError for images that cannot be read.
    """
    if changes.get("data") and not isdir(changes["data"]):
        raise ExperimentError(f"The folder {changes['data']} is not there: name the one that holds the images.")
    chosen = find_table(table)
    by_column, settings = find_column(chosen, column), list(settings)
    chosen = own_rows.with_rules(chosen, by_column.id, methods)
    for setting in settings:
        if setting.partition("=")[0].strip() == "seed":
            raise ExperimentError(
                f'The setting "{setting}" would be that of every run: leave it out, --seeds 3 runs seeds 0, 1 and 2.'
            )
    rows = find_rows(chosen, by_column.id, list(map(own_rows.id_of, methods)))
    found = []
    for seed in range(seeds):
        for row in rows:
            theirs = experiment_of(table, by_column.id, own_rows.basis(chosen, by_column.id, row.id))
            theirs = own_rows.learning(theirs, row)
            mine = checked(overridden(replace(theirs, seed=seed, **changes), settings))
            found.append(Job(f"{row.label} seed {seed}", mine, folder(out, table, by_column.id, row.id, seed)))
    check_backends(job.experiment for job in found)
    for job in found:
        check_begun(job)
    return found


def folder(out: Path, table: str, column: str, row: str, seed: int) -> Path:
    """Where a run is."""
    return out / table / column / row / f"seed-{seed}"


def cell_at(out: Path) -> tuple[papers.Table, papers.Column, papers.Row] | None:
    """The cell whose run a folder is, by its place; None where it is none's."""
    *_, paper, table, column, row, _ = ("", "", "", "", *out.resolve().parts)
    found = next((one for one in papers.tables() if one.name == f"{paper}/{table}"), None)
    if found is None or (row, column) not in found.cells:
        return None
    return found, found.column(column), found.row(row)


def check_begun(job: Job) -> None:
    """Raise ExperimentError where the job's folder has a run that learned otherwise, finished or not."""
    before, newest = stored(job.out), checkpoints.found(job.out)
    if before is None or not (newest or records(job.out)):
        return
    check_same(job.experiment, before, job.out)
    header = checkpoints.header_of(newest[0]) if newest else {}
    if "experiment" in header:
        check_unedited(job.out, checkpoints.Checkpoint(newest[0], header, {}), job.experiment)
    check_images(job, before, newest)


def check_images(job: Job, before: Experiment, newest: Sequence[Path]) -> None:
    """Raise ExperimentError where a run learned from other images than those of the folder that is named now."""
    now = job.experiment
    if now.data is None or (before.data is not None and Path(now.data).resolve() == Path(before.data).resolve()):
        return
    header = checkpoints.header_of(newest[0]) if newest else {}
    if "images" not in header:
        raise ExperimentError(
            f"The run in {job.out} learned from the images of {before.data or before.dataset}, not of {now.data}: "
            "name the same data, or start in another folder."
        )
    data = own.load(
        str(now.dataset),
        now.data,
        None,
        now.held_out,
        "none" if naming.is_code(now.augmentation) else now.augmentation,
        normalise=False,
        config=now.config,
        layout=now.layout,
        stream=True,
        workers=0,
    )  # streamed, so that hardly an image is decoded
    check_checkpoint(checkpoints.Checkpoint(newest[0], header, {}), data, now, job.out, header["step"])


def check_folder(out: Path) -> None:
    """Raise ExperimentError where the folder of the runs cannot be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExperimentError(
            f"The folder {out} cannot be written to ({error.strerror}): name another one with --out."
        ) from error


# What came of it


def reported(table: str, column: str | None, out: Path, methods: Sequence[str] = ()) -> Report:
    """Paper and ours, from the runs that are there. Raises ExperimentError."""
    chosen = find_table(table)
    by_column = find_column(chosen, column)
    chosen = own_rows.with_runs(chosen, by_column.id, out)
    lines: list[Line] = []
    results: list[Result] = []
    for row in find_rows(chosen, by_column.id, list(map(own_rows.id_of, methods))):
        mine = results_of(chosen, by_column, row, out)
        results += mine
        lines += lines_of(chosen, by_column, row, mine)
    return Report(chosen, by_column, tuple(lines), tuple(results))


def results_of(table: papers.Table, column: papers.Column, row: papers.Row, out: Path) -> list[Result]:
    """What the runs of a cell came to, in the order of their seeds."""
    theirs = experiment_of(table.name, column.id, own_rows.basis(table, column.id, row.id))
    place = out / table.name / column.id / row.id
    there = place.glob("seed-*/experiment.toml") if isdir(place) else ()
    numbered = [path for path in there if re.fullmatch(r"seed-\d+", path.parent.name)]
    runs = sorted(numbered, key=lambda path: int(path.parent.name.partition("-")[2]))
    found = []
    for path in runs:
        mine, (rows, parts, damage) = stored(path.parent), logs.told(path.parent)
        if mine is not None and rows:
            failure = path.with_name(FAILURE)
            why = one_line(content(failure).decode("utf-8", "replace")) if exists(failure) else ""
            one = result(table, row, mine, theirs, rows, why)
            told = (segments.other_images(parts), segments.changes_told(parts), left_out.text(rows[-1]))
            found.append(one._replace(
                departures=(*one.departures, *other_images(path.parent, mine), *filter(None, told)),
                folder=path.parent.name,
                same_images=mine.dataset == theirs.dataset and not segments.other_images(parts),
                phases=phases.of_run(mine, rows, parts), segments=parts, damage=damage,
            ))  # fmt: skip
    return found


def result(
    table: papers.Table, row: papers.Row, mine: Experiment, theirs: Experiment, rows: list[dict[str, Any]], failure: str
) -> Result:
    """One run's numbers by quantity: the last, and that of the best epoch."""
    final, best, best_epoch = {}, {}, {}
    for quantity in table.quantities:
        name, _ = MEASURED[quantity]
        measured = [(r[name], r["epoch"]) for r in rows if r.get(name) is not None and r["step"] > 0]
        if measured:
            final[quantity] = measured[-1][0]
            first = max if quantity in HIGHEST else min
            best[quantity] = first(number for number, _ in measured)
            best_epoch[quantity] = min(epoch for number, epoch in measured if number == best[quantity])
    last = rows[-1]
    departing = tuple(departures(mine, theirs))
    return Result(row.id, mine.seed, last["epoch"], final, best, best_epoch, last["seconds"], mine, departing, failure)


def other_images(out: Path, mine: Experiment) -> list[str]:
    """A sentence where a run's newest checkpoint tells of another number of training images than the dataset has."""
    images = [checkpoints.header_of(path).get("images") for path in checkpoints.found(out)[:1]]
    told = [other_count(str(mine.dataset), count + mine.held_out) for count in images if count is not None]
    return [f"learned from {text}" for text in told if text]


def departures(mine: Experiment, theirs: Experiment) -> list[str]:
    """In what an experiment learns otherwise than the paper's."""
    return [
        f"{name} is {'not given' if here is None else here}, the paper's experiment has "
        f"{'none' if there is None else there}"
        for name, here, there in differences(as_dict(mine), as_dict(theirs), free_of(mine, OWN))
    ]


def lines_of(table: papers.Table, column: papers.Column, row: papers.Row, results: Sequence[Result]) -> list[Line]:
    """A line for every epoch that runs of a cell reached with the same settings, the furthest first; one without runs
    where there is none."""
    cell = table.cell(row.id, column.id)
    epochs = experiment_of(table.name, column.id, own_rows.basis(table, column.id, row.id)).epochs
    found, alike = [], dict.fromkeys((r.epoch, r.departures) for r in results)
    for epoch, departing in sorted(alike, key=lambda key: key[0], reverse=True):
        every = [r for r in results if (r.epoch, r.departures) == (epoch, departing)]
        by_seed = {r.seed: r for r in reversed(every)}
        here = [r for r in every if by_seed[r.seed] is r]
        repeated = tuple(
            f"{row.id}, {r.folder}: has the experiment and the seed of {by_seed[r.seed].folder}, so they count once"
            for r in every if by_seed[r.seed] is not r
        )  # fmt: skip
        final, best = ({q: spread(getattr(r, which).get(q) for r in here) for q in table.quantities}
                       for which in ("final", "best"))  # fmt: skip
        found.append(
            Line(
                row,
                cell,
                tuple(r.seed for r in here),
                epoch,
                epochs,
                without_none(final),
                without_none(best),
                here[0].same_images,
                here[0].phases,
                repeated,
                fmean(r.seconds for r in here),
            )  # fmt: skip
        )
    return found or [Line(row, cell, (), 0, epochs, {}, {})]


def without_none(found: dict[str, Spread | None]) -> dict[str, Spread]:
    """The quantities that were measured."""
    return {name: value for name, value in found.items() if value is not None}


# As text
