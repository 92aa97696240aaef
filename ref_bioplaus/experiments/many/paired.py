"""The spread of seeds: what runs of several seeds came to by the same epoch, and rows compared on the same seeds.

Rows that were run with one seed begin with the same weights where their networks are alike, and meet the images in the
same order, so that the difference of two rows is taken seed by seed: what all rows of a seed have in common falls out.
Each number is the lowest test error by the last epoch that all runs of the comparison reached. An interval is
Student's, of as many degrees of freedom as there are seeds less one; for a row it is where one more run of it would
lie, which is what a paper's single number may be held against.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from ...showing.words import table_of
from ..runs.logs import records
from ..runs.seeds import LEVEL, half_width, shown, spread
from . import table as cells

QUANTITY = "test error"
Series = Mapping[int, Mapping[int, float]]  # by seed and epoch
ROWS = ("method", "by epoch", "test error of each seed", "mean", f"{LEVEL:.0%} of further runs", "paper")
PAIRS = ("methods", "by epoch", "difference of each seed", "mean", f"interval of {LEVEL:.0%}", "")


class Row(NamedTuple):
    """A row's seeds by the same epoch."""

    label: str
    epoch: int
    best: dict[int, float]  # by seed
    low: float  # of the interval of one more run
    high: float
    published: float | None  # by the paper's own epoch


class Pair(NamedTuple):
    """Two rows on the seeds that both have, by the same epoch: the first less the second."""

    label: str
    epoch: int
    differences: dict[int, float]  # by seed
    low: float  # of the interval of their mean
    high: float

    @property
    def counts(self) -> bool:
        """Whether it is more than the spread of seeds explains."""
        return self.low > 0 or self.high < 0


def by_row(report: cells.Report, out: Path) -> Mapping[str, Series]:
    """Of each row's id its errors by seed and epoch, of runs that learned with the paper's settings from its images."""
    name, _ = cells.MEASURED[QUANTITY]
    found: dict[str, dict[int, dict[int, float]]] = {}
    for result in report.results:
        if result.departures or not result.same_images or result.seed in found.get(result.row, {}):
            continue
        folder = cells.folder(out, report.table.name, report.column.id, result.row, result.seed)
        measured = {r["epoch"]: r[name] for r in records(folder) if r.get(name) is not None and r["step"] > 0}
        if measured:
            found.setdefault(result.row, {})[result.seed] = measured
    return found


def best_by(series: Series, epoch: int) -> dict[int, float]:
    """Each seed's lowest error up to an epoch, where any was measured by then."""
    until = {seed: [v for at, v in errors.items() if at <= epoch] for seed, errors in series.items()}
    return {seed: min(errors) for seed, errors in until.items() if errors}


def reached(*several: Series) -> int:
    """The last epoch that all runs reached."""
    return min(max(errors) for series in several for errors in series.values())


def rows(report: cells.Report, found: Mapping[str, Series]) -> list[Row]:
    """The rows that have several seeds."""
    made = []
    for row in report.table.rows:
        series = found.get(row.id, {})
        best = best_by(series, reached(series)) if series else {}
        if len(best) < 2:
            continue
        mean, deviation = known(best)
        half = half_width(deviation, len(best), more=1)
        published = report.table.cell(row.id, report.column.id).values.get(QUANTITY)
        made.append(Row(row.label, reached(series), best, mean - half, mean + half, published))
    return made


def pairs(report: cells.Report, found: Mapping[str, Series]) -> list[Pair]:
    """All pairs of rows that share several seeds."""
    made = []
    for a, b in combinations([row for row in report.table.rows if row.id in found], 2):
        seeds = sorted(found[a.id].keys() & found[b.id].keys())
        both = [{seed: found[row.id][seed] for seed in seeds} for row in (a, b)]
        epoch = reached(*both) if seeds else 0
        first, second = (best_by(series, epoch) for series in both)
        differences = {seed: first[seed] - second[seed] for seed in seeds if seed in first and seed in second}
        if len(differences) < 2:
            continue
        mean, deviation = known(differences)
        half = half_width(deviation, len(differences))
        made.append(Pair(f"{a.label} less {b.label}", epoch, differences, mean - half, mean + half))
    return made


def known(numbers: Mapping[int, float]) -> tuple[float, float]:
    """Mean and sample standard deviation of the numbers of several seeds."""
    found = spread(numbers.values())
    assert found is not None and found.deviation is not None  # there are several
    return found.mean, found.deviation


def as_markdown(report: cells.Report, out: Path) -> list[str]:
    """The lines of a page's part on seeds; none where no row was run."""
    found = by_row(report, out)
    if not found:
        return []
    several, compared = rows(report, found), pairs(report, found)
    lines = ["", "## The spread of seeds", ""]
    if not several:
        return [*lines, "One seed of each row: no difference here has been held against the spread of seeds."]
    single = [row.label for row in report.table.rows if len(found.get(row.id, {})) == 1]
    lines += [
        f"The lowest test error by the epoch that all seeds of a row, or of a pair of rows, have reached; epochs that "
        f"teach inverses alone count too. One more run of a row would lie in its interval in {LEVEL:.0%} of cases, if "
        f"errors are normally distributed; the paper's number is of its own: {report.table.statistic}. A "
        "difference of two rows counts where its interval is without 0. Few seeds make wide intervals."
        + (f" One seed, so that nothing is known of the spread: {'; '.join(single)}." if single else ""),
        "",
        *table_of(ROWS, [
            (row.label, str(row.epoch), each(row.best, "{:.2f}"), mean_of(row.best),
             f"{row.low:.2f} to {row.high:.2f}", "–" if row.published is None else f"{row.published:.2f}")
            for row in several
        ], left=1),
    ]  # fmt: skip
    if compared:
        lines += ["", *table_of(PAIRS, [
            (pair.label, str(pair.epoch), each(pair.differences, "{:+.2f}"), mean_of(pair.differences),
             f"{pair.low:+.2f} to {pair.high:+.2f}", "counts" if pair.counts else "within the spread of seeds")
            for pair in compared
        ], left=1)]  # fmt: skip
    return lines


def each(numbers: Mapping[int, float], form: str) -> str:
    """The numbers in the order of their seeds."""
    return ", ".join(form.format(numbers[seed]) for seed in sorted(numbers))


def mean_of(numbers: Mapping[int, float]) -> str:
    """Their mean with its spread."""
    return shown(spread(numbers.values()), 2)
