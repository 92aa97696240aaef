"""A dot for every seed, and a paper's number as a line: how far apart runs are that differ in their seed alone."""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ...showing.svg import COLOURS, mark
from ..many import table as cells
from . import series
from .axes import DARK, FLOOR, legend
from .lacking import error_name
from .mosaics import Picture
from .series import Group, Run

ROW, LINE = 0.32, 0.17  # inches that a group takes at least, and a line of its name
NAME = 26  # characters of such a line
TICKS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 20, 50, 100)  # %
INK = COLOURS[0]
PAPERS = "#D55E00"  # of the paper's number


def seeds(runs: Sequence[Run], data: Any = None) -> Picture:
    """The lowest error of every run by the last epoch that all seeds of its group have reached, and the error then."""
    groups = series.grouped(runs)
    names = [textwrap.wrap(group.label, NAME) for group in groups]
    row = max(ROW, LINE * max(map(len, names)))
    figure = Figure(figsize=(7.2, row * len(groups) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    drawn, printed = [], False
    for place, group in enumerate(groups):
        epoch, found, ends = by_then(group)
        drawn += found + ends
        axes.plot(ends, [place] * len(ends), "o", color=INK, ms=6, fillstyle="none", label=f"{group.label}, then")
        (dots,) = axes.plot(found, [place] * len(found), "o", color=INK, ms=6, alpha=0.7, label=group.label)
        mark(dots, place, f"{group.label}: {', '.join(f'{error:.2f}' for error in found)}")
        paper = published(group)
        if paper is not None:
            printed = True
            drawn.append(paper)
            (line,) = axes.plot([paper] * 2, [place - 0.38, place + 0.38], color=PAPERS, linewidth=2)
            mark(line, place, f"{group.label}, the paper: {paper:.2f}")
        count = f"{len(found)} seeds" if len(found) > 1 else "1 seed"
        axes.annotate(f"{count}, epoch {epoch:g}", (1.01, place), xycoords=("axes fraction", "data"), va="center",
                      fontsize=9, color=DARK, annotation_clip=False)  # fmt: skip
    axes.set_xscale("log")
    low, high = max(FLOOR, 0.9 * min(drawn)), 1.1 * max(drawn)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{error:g}"))
    splits = " or ".join(dict.fromkeys(str(error_name(run)).removesuffix("_error") for run in runs))
    axes.set_xlabel(f"{splits} error in %")
    axes.set_yticks(range(len(groups)), ["\n".join(lines) for lines in names])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=INK, alpha=0.7, label="a seed, its lowest"),
        Line2D([], [], marker="o", linestyle="", color=INK, fillstyle="none", label="at that epoch"),
    ]
    handles += [Line2D([], [], color=PAPERS, linewidth=2, label="the paper's number")] if printed else []
    legend(figure, handles)
    papers_own = " The paper's number is of its own epochs, the lowest or the last." if printed else ""
    return Picture(figure, "Each seed's lowest error by the last epoch that all seeds of a row have reached, which is "
                   f"named at the right, and its error at that epoch.{papers_own} A difference that is not larger than "
                   "seeds are apart says nothing.")  # fmt: skip


def by_then(group: Group) -> tuple[float, list[float], list[float]]:
    """The last epoch that all of a group's runs reached, the lowest error of each by then, and that of the epoch."""
    by_run = [
        [(r["epoch"], r[name]) for r in run.records if r["step"] and r.get(name) is not None]
        for run in group.runs
        if (name := error_name(run))
    ]
    epoch = min(run[-1][0] for run in by_run)
    until = [[error for at, error in run if at <= epoch] or [run[0][1]] for run in by_run]
    return epoch, [min(errors) for errors in until], [errors[-1] for errors in until]


def published(group: Group) -> float | None:
    """What the paper has where the group's runs lie in a table's folders, and learned from its images."""
    run = group.runs[0]
    cell = cells.cell_at(run.out)
    if cell is None or run.experiment.dataset != cell[1].dataset or error_name(run) != "test_error":
        return None
    return cell[0].cells[cell[2].id, cell[1].id].values.get("test error")


def lacks_learned_errors(run: Run) -> str | None:
    """Why a run has no dot; None where it has one."""
    name = error_name(run)
    if name and any(r["step"] and r.get(name) is not None for r in run.records):
        return None
    return "has no error of what it learned: wait for the end of its first epoch, or draw its learning curve."
