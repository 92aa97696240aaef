"""One search for several rows of a table: a trial's values are the same in all of them, and which explains all of them?

    joint = across("bartunov2018/table1", "mnist-fc", ["dtp", "fa"], ranges, Path("search"), trials=60, epochs=10)
    jobs.run(joint.todo())                        one trial of every row, then the next; each in OUT/<row>/trial-<n>
    joint.points()                                a line per trial that has ended in every row
    effects(joint.points(), joint.published)      what each value of each range does

A point's misfit is the mean over rows of |ln(score / published error)|: 0 where all are the paper's. The effect of a
value is the mean of the points that have it less the mean of the others, with Student's interval for means of unequal
variances (Welch 1947), as points that diverge scatter far more; there is none where either mean is of a single point.
Other ranges' values are not held fixed, as they are drawn independently; what they do is in the scatter, and with few
points the interval is wide.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import exists, isdir
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...machine.files import write_whole
from ...showing.words import table_of
from ..runs.logs import FAILURE, records
from ..runs.seeds import LEVEL, student
from ..spec.experiment import ExperimentError, overridden
from . import table as cells
from .jobs import Job
from .search import Range, Ranges, Search, drawn

POINTS, EFFECTS = "points.jsonl", "effects.md"
NOTHING = 100.0  # the error, in %, of a run whose loss was not finite
QUANTITY = "test error"


@dataclass
class Joint:
    """The searches of some rows, by their ids, and the errors that are published of them."""

    searches: Mapping[str, Search]
    published: Mapping[str, float]
    out: Path

    def todo(self) -> list[Job]:
        """What has not ended, trial by trial. Raises ExperimentError and BackendError."""
        waiting = [
            job._replace(name=f"{row}, {job.name}") for row, search in self.searches.items() for job in search.todo()
        ]
        return sorted(waiting, key=lambda job: job.out.name)  # which keeps the order of the rows

    def points(self) -> list[dict[str, Any]]:
        """{trial, values, scores, misfit} of each trial that has ended in every row, also written to OUT."""
        found = []
        for trial in range(max(search.trials for search in self.searches.values())):
            if not all(isdir(search.folder(trial)) for search in self.searches.values()):
                continue
            jobs = {row: search.job(trial) for row, search in self.searches.items()}
            if all(map(has_told, jobs.values())):
                lines = {row: self.searches[row].line(trial, job) for row, job in jobs.items()}
                scores = {row: NOTHING if line["failed"] else line["score"] for row, line in lines.items()}
                if None not in scores.values():  # a run that went on with other values than were drawn
                    values = values_of((s.chosen for s in self.searches.values()), self.seed, trial)
                    misfit = misfit_of(scores, self.published)
                    found.append({"trial": trial, "values": values, "scores": scores, "misfit": misfit})
        if isdir(self.out):
            text = "".join(json.dumps(point, allow_nan=False) + "\n" for point in found)
            write_whole(self.out / POINTS, text.encode())
            write_whole(self.out / EFFECTS, as_markdown(self, found).encode())
        return found

    @property
    def seed(self) -> int:
        """Of the values drawn."""
        return next(iter(self.searches.values())).seed


def across(
    table: str, column: str | None, rows: Sequence[str], ranges: Ranges, out: Path,
    trials: int | None = None, seed: int = 0, held_out: int | None = None, settings: Iterable[str] = (), **changes: Any,
) -> Joint:  # fmt: skip
    """The searches of rows of a table's column; trials: None for as many as the ranges say.

    Raises ExperimentError, also for a row of which no error is published.
    """
    chosen = cells.find_table(table)
    by_column, settings = cells.find_column(chosen, column), list(settings)
    found, published = {}, {}
    for row in cells.find_rows(chosen, by_column.id, rows):
        cell = chosen.cell(row.id, by_column.id)
        if not cell.values.get(QUANTITY):
            raise ExperimentError(f'{chosen.name} has no {QUANTITY} of "{row.id}", which points are judged by.')
        base = overridden(replace(cells.experiment_of(chosen.name, by_column.id, row.id), **changes), settings)
        found[row.id] = Search(base, ranges, out / row.id, trials or ranges.trials, seed, held_out)
        published[row.id] = cell.values[QUANTITY]
    return Joint(found, published, out)


def has_told(job: Job) -> bool:
    """Whether a log goes to the end; its checkpoint, which `has_ended` asks for as well, need not be kept."""
    found = records(job.out)
    return exists(job.out / FAILURE) or bool(found and found[-1]["epoch"] >= job.experiment.epochs)


def values_of(chosen: Iterable[Mapping[str, Range]], seed: int, trial: int) -> dict[str, str]:
    """A trial's values over all rows, by the names of their ranges, in words."""
    found: dict[str, str] = {}
    for ranges in chosen:
        for path, value in drawn(ranges, seed, trial).items():
            if ranges[path]["kind"] == "choice":
                words = ranges[path].get("words", ranges[path]["values"])
                value = words[ranges[path]["values"].index(value)]
            found.setdefault(str(ranges[path].get("as", path)), f"{value:.4g}" if type(value) is float else str(value))
    return found


def misfit_of(scores: Mapping[str, float], published: Mapping[str, float]) -> float:
    """The mean over rows of |ln(score / published error)|."""
    return float(np.mean([abs(logarithm(score) - logarithm(published[row])) for row, score in scores.items()]))


def logarithm(error: float) -> float:
    """Of an error in %; of none at all that of one image in 10,000."""
    return math.log(max(error, 0.01))


class Effect(NamedTuple):
    """What one value of one range does."""

    name: str
    value: str
    points: int  # that have it
    effect: float  # on the misfit: negative is nearer to the paper
    half: float | None  # the interval's width to either side; None where a mean is of a single point
    scores: Mapping[str, float]  # each row's geometric mean


def effects(points: Sequence[Mapping[str, Any]]) -> list[Effect]:
    """Of every value that some points have and others have not, in the order of the ranges' names."""
    if not points:
        return []
    misfit = np.array([point["misfit"] for point in points])
    found = []
    for name in sorted(points[0]["values"]):
        for value in sorted({point["values"][name] for point in points}):
            has = np.array([point["values"][name] == value for point in points])
            if has.all():
                continue
            mine = [point["scores"] for point, yes in zip(points, has, strict=True) if yes]
            scores = {row: math.exp(np.mean([logarithm(score[row]) for score in mine])) for row in mine[0]}
            both = misfit[has], misfit[~has]
            found.append(Effect(name, value, len(mine), float(both[0].mean() - both[1].mean()), welch(*both), scores))
    return found


def welch(some: np.ndarray, others: np.ndarray) -> float | None:
    """Half the interval of LEVEL of the difference of two means; None where one of them is of a single number."""
    if min(some.size, others.size) < 2:
        return None
    parts = [numbers.var(ddof=1) / numbers.size for numbers in (some, others)]
    if not any(parts):
        return 0.0
    shares = [part**2 / (numbers.size - 1) for part, numbers in zip(parts, (some, others), strict=True)]
    return float(student(sum(parts) ** 2 / sum(shares)) * math.sqrt(sum(parts)))


def as_markdown(joint: Joint, points: Sequence[Mapping[str, Any]]) -> str:
    """The points, the nearest to the paper first, and the effects."""
    rows = list(joint.searches)
    total = max(search.trials for search in joint.searches.values())
    lines = [
        f"{len(points)} of {total} points are finished. Errors in % on images held out, the lowest of all epochs; a "
        f"loss that was not finite counts as {NOTHING:.0f}. Misfit: the mean over rows of |ln(error / published)|.",
        "",
        *table_of(["point", "misfit", *rows], [
            ["published", "", *(f"{joint.published[row]:.2f}" for row in rows)],
            *([str(p["trial"]), f"{p['misfit']:.2f}", *(f"{p['scores'][row]:.2f}" for row in rows)]
              for p in sorted(points, key=lambda point: point["misfit"])),
        ]),
        "",
        *about_effects(joint, points),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def about_effects(joint: Joint, points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of effects, or why there is none, and how many of them chance alone would show."""
    found, rows = effects(points), list(joint.searches)
    if not found:
        return ["What each value does is told from two points on that differ in it."]
    count = sum(effect.half is not None for effect in found)
    return [
        f"Each value: its points, its effect on the misfit with the interval of {LEVEL:.0%} (below 0: nearer to the "
        "paper; none where either mean is of a single point), and the geometric mean of every row's errors. Of "
        f"{count} intervals some {(1 - LEVEL) * count:.1f} are without 0 by chance alone; a range of two values has "
        "one effect twice, with either sign.",
        "",
        *table_of(["range", "value", "points", "effect", "interval", *rows], [
            [e.name, e.value, str(e.points), f"{e.effect:+.2f}",
             "–" if e.half is None else f"{e.effect - e.half:+.2f} to {e.effect + e.half:+.2f}",
             *(f"{e.scores[row]:.2f}" for row in rows)]
            for e in found
        ]),
    ]  # fmt: skip
