"""One search for several rows of a table: a trial's values are the same in all of them, and which explains all of them?

    joint = across("bartunov2018/table1", "mnist-fc", ["dtp", "fa"], ranges, Path("search"), trials=60, epochs=10)
    jobs.run(joint.todo())                        one trial of every row, then the next; each in OUT/<row>/trial-<n>
    joint.points()                                a line per trial that has ended in every row
    about_effects(joint, joint.points())          what each value of each range does, with intervals

A point's misfit is the mean over rows of |ln(score / published error)|: 0 where all are the paper's. The effect of a
value is by how much points that have it differ from the mean of the other values' points, all ranges being fitted
together by least squares: of the misfit as a difference, of each row's error as a ratio, from the ranges that the row
has. Intervals hold where points that diverge scatter far more than others (HC3, MacKinnon and White 1985); there is
none where a single point tells what a value does. That values act together is not fitted, and is in the scatter.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    known: dict[int, dict[str, Any]] = field(default_factory=dict)  # points that have ended, by trial

    def todo(self) -> list[Job]:
        """What has not ended, trial by trial. Raises ExperimentError and BackendError."""
        waiting = [
            job._replace(name=f"{row}, {job.name}") for row, search in self.searches.items() for job in search.todo()
        ]
        return sorted(waiting, key=lambda job: job.out.name)  # which keeps the order of the rows

    def points(self) -> list[dict[str, Any]]:
        """{trial, values, scores, misfit} of each trial that has ended in every row, also written to OUT."""
        for trial in range(max(search.trials for search in self.searches.values())):
            point = self.known.get(trial) or self.point(trial)
            if point:
                self.known[trial] = point
        found = [self.known[trial] for trial in sorted(self.known)]
        if isdir(self.out):
            text = "".join(json.dumps(point, allow_nan=False) + "\n" for point in found)
            write_whole(self.out / POINTS, text.encode())
            write_whole(self.out / EFFECTS, as_markdown(self, found).encode())
        return found

    def point(self, trial: int) -> dict[str, Any] | None:
        """One of `points`; None where the trial has not ended in every row, or went on with other values than were
        drawn."""
        if not all(isdir(search.folder(trial)) for search in self.searches.values()):
            return None
        jobs = {row: search.job(trial) for row, search in self.searches.items()}
        if not all(map(has_told, jobs.values())):
            return None
        lines = {row: self.searches[row].line(trial, job) for row, job in jobs.items()}
        scores = {row: NOTHING if line["failed"] else line["score"] for row, line in lines.items()}
        if None in scores.values():
            return None
        values = values_of((search.chosen for search in self.searches.values()), self.seed, trial)
        return {"trial": trial, "values": values, "scores": scores, "misfit": misfit_of(scores, self.published)}

    @property
    def seed(self) -> int:
        """Of the values drawn."""
        return next(iter(self.searches.values())).seed


def across(
    table: str, column: str | None, rows: Sequence[str], ranges: Ranges, out: Path,
    trials: int | None = None, seed: int = 0, held_out: int | None = None, settings: Iterable[str] = (),
    only: Iterable[int] = (), **changes: Any,
) -> Joint:  # fmt: skip
    """The searches of rows of a table's column; trials: None for as many as the ranges say; only: these of them.

    Raises ExperimentError, also for a row of which no error is published.
    """
    chosen = cells.find_table(table)
    by_column, settings, only = cells.find_column(chosen, column), list(settings), tuple(only)
    found, published = {}, {}
    for row in cells.find_rows(chosen, by_column.id, rows):
        cell = chosen.cell(row.id, by_column.id)
        if not cell.values.get(QUANTITY):
            raise ExperimentError(f'{chosen.name} has no {QUANTITY} of "{row.id}", which points are judged by.')
        base = overridden(replace(cells.experiment_of(chosen.name, by_column.id, row.id), **changes), settings)
        found[row.id] = Search(base, ranges, out / row.id, trials or ranges.trials, seed, held_out, only)
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


class Difference(NamedTuple):
    """Of the points that have a value from those that have another one of its range."""

    mean: float
    half: float | None  # the interval's width to either side; None where no freedom is left to tell it


class Effect(NamedTuple):
    """What one value of one range does."""

    name: str
    value: str
    points: int  # that have it
    misfit: Difference | None  # below 0: nearer to the paper; None where other values cannot be told from it
    scores: Mapping[str, Difference | None]  # of ln(error), by row; rows that do not have the range are missing


def effects(points: Sequence[Mapping[str, Any]], ranges: Mapping[str, Iterable[str]]) -> list[Effect]:
    """Of every value that some points have and others have not, in the order of the ranges' names; `ranges` are the
    names that each row has."""
    if len(points) < 2:
        return []
    values = [point["values"] for point in points]
    named = {name for name in points[0]["values"] if len({v[name] for v in values}) > 1}
    misfits = fitted(values, named, np.array([point["misfit"] for point in points]))
    rows = {
        row: fitted(values, named & set(mine), np.array([logarithm(point["scores"][row]) for point in points]))
        for row, mine in ranges.items()
    }
    return [
        Effect(name, value, sum(v[name] == value for v in values), misfit,
               {row: found[name, value] for row, found in rows.items() if (name, value) in found})
        for (name, value), misfit in misfits.items()
    ]  # fmt: skip


def fitted(
    values: Sequence[Mapping[str, str]], names: Iterable[str], measured: np.ndarray
) -> dict[tuple[str, str], Difference | None]:
    """What every value of the named ranges does, by least squares of all of them together."""
    columns, contrasts = [np.ones(len(values))], {}
    for name in sorted(names):
        *levels, last = sorted({v[name] for v in values})
        first = len(columns)
        columns += [np.array([(v[name] == level) - (v[name] == last) for v in values], float) for level in levels]
        share = (len(levels) + 1) / len(levels)  # from the mean of all values to the mean of the others
        for i, level in enumerate(levels):
            contrasts[name, level] = {first + i: share}
        contrasts[name, last] = {first + i: -share for i in range(len(levels))}
    x = np.stack(columns, axis=1)
    inverse = np.linalg.pinv(x.T @ x)
    solution = inverse @ x.T
    freedom = len(values) - int(np.linalg.matrix_rank(x))
    left = measured - x @ (solution @ measured)
    leverage = np.einsum("ij,ji->i", x, solution)
    alone = leverage > 1 - 1e-6  # a point that the fit meets whatever was measured: it says nothing of its own scatter
    scatter = np.where(alone, 0.0, left / np.where(alone, 1.0, 1 - leverage))
    found: dict[tuple[str, str], Difference | None] = {}
    for key, weights in contrasts.items():
        c = np.zeros(x.shape[1])
        c[list(weights)] = list(weights.values())
        tells = c @ solution  # the weight of each point
        told = freedom and not (np.abs(tells[alone]) > 1e-9).any()
        half = student(freedom) * float(np.linalg.norm(tells * scatter)) if told else None
        found[key] = Difference(float(tells @ measured), half) if np.allclose(tells @ x, c) else None
    return found


def as_markdown(joint: Joint, points: Sequence[Mapping[str, Any]]) -> str:
    """The points, the nearest to the paper first, and the effects."""
    rows = list(joint.searches)
    total = len(next(iter(joint.searches.values())).numbers)
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
    ranges = {row: {str(r.get("as", path)) for path, r in s.chosen.items()} for row, s in joint.searches.items()}
    found = effects(points, ranges)
    if not found:
        return ["What each value does is told from two points on that differ in it."]
    told = [d for effect in found for d in (effect.misfit, *effect.scores.values()) if d and d.half is not None]
    return [
        "Each value against the others of its range, all ranges fitted together: its points, its effect on the misfit "
        "(below 0: nearer to the paper), and by what each row's error is multiplied, where the row has the range; "
        f"with intervals of {LEVEL:.0%}, which a dash says are not told by so few points. Of {len(told)} intervals "
        f"some {(1 - LEVEL) * len(told):.0f} are without 0, or 1, by chance alone; a range of two values has one "
        "effect twice.",
        "",
        *table_of(["range", "value", "points", "misfit", *ranges], [
            [e.name, e.value, str(e.points), interval(e.misfit, "+.2f"),
             *(interval(e.scores[row], ".2f", math.exp) if row in e.scores else "" for row in ranges)]
            for e in found
        ]),
    ]  # fmt: skip


def interval(found: Difference | None, form: str, of: Callable[[float], float] = float) -> str:
    """A difference and its interval, in words."""
    if found is None:
        return "–"
    if found.half is None:
        return f"{of(found.mean):{form}} (–)"
    low, high = (of(found.mean + sign * found.half) for sign in (-1, 1))
    return f"{of(found.mean):{form}} ({low:{form}} to {high:{form}})"
