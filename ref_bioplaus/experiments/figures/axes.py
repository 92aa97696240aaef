"""Lines, points, axes and legends, as the pictures of runs share them."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    AutoLocator,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from ...showing.svg import mark
from .series import Curve, Group

DARK = "#444444"
SHADE = 0.2
FLOOR = 0.1  # %, below which no error is shown
ERROR_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # %
TICKS = 12  # at most
HIGH_ERROR_TICKS = (60, 70, 80, 90, 100)  # %, where all are high
LINE = 0.18  # inches that one more line of names takes


def band(
    axes: Axes, found: Curve, dash: str, name: str, color: Any = DARK, marker: str = "", thin: bool = False,
    subject: int = 0,
) -> None:  # fmt: skip
    """The mean as a line, or a single point (hollow where thin), and the range of the seeds around it, of the picture's
    so-many-th subject."""
    alone = len(found.x) == 1
    marker, every = marker or ("o" if alone else ""), max(1, len(found.x) // 8)
    (line,) = axes.plot(
        found.x, found.mean, dash, color=color, marker=marker, markevery=every, markersize=4, label=name,
        linewidth=1.0 if thin else 1.6, fillstyle="none" if alone and thin else "full",
    )  # fmt: skip
    mark(line, subject, name)
    if found.low != found.high:
        mark(axes.fill_between(found.x, found.low, found.high, color=color, alpha=SHADE, linewidth=0), subject, name)


def bars(axes: Axes, found: Curve, dash: str, name: str, colour: str, marker: str) -> None:
    """Points joined by a line, with the range of the seeds where they differ."""
    if found.low != found.high:
        spread = [
            [m - l for m, l in zip(found.mean, found.low, strict=True)],
            [h - m for m, h in zip(found.mean, found.high, strict=True)],
        ]
        axes.errorbar(found.x, found.mean, spread, fmt="none", ecolor=colour, capsize=3, linewidth=1)
    axes.plot(found.x, found.mean, dash, color=colour, marker=marker, markersize=4, label=name, linewidth=1.6)


def error_axis(axes: Axes, curves: Sequence[Curve]) -> bool:
    """Errors in percent on a logarithmic scale; whether some are below its lower edge, as 0 is."""
    errors = [v for found in curves for v in found.low]
    bottom = max(FLOOR, 0.7 * min((v for v in errors if v > 0), default=1.0))
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(bottom, 100.0)
    ticks = [tick for tick in ERROR_TICKS if tick >= bottom]
    axes.yaxis.set_major_locator(FixedLocator(ticks if len(ticks) > 1 else HIGH_ERROR_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{error:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return any(v < bottom for v in errors)


def number_axis(axes: Axes) -> None:
    """Numbers on a logarithmic scale, with two ticks at least."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    choices = [LogLocator(subs=subs, numticks=TICKS) for subs in ((1.0, 2.0, 5.0), (1.0,), range(1, 10))]
    shown = [sum(low <= tick <= high for tick in locator.tick_values(low, high)) for locator in choices]
    fit = (locator for locator, count in zip(choices, shown, strict=True) if 2 <= count <= TICKS)
    axes.yaxis.set_major_locator(next(fit, AutoLocator()))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))


def time_axis(axes: Axes, over: str, ticks: int | None = None) -> None:
    """Epochs or steps, whole numbers from 0 on, also where there is but one."""
    axes.set_xlabel(over)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=ticks or "auto"))
    places = {float(x) for line in axes.get_lines() for x in np.asarray(line.get_xdata())}
    if len(places) == 1:
        (only,) = places
        axes.set_xlim(only - 1 if only else -0.05, only + 1)


def group_name(group: Group) -> str:
    """Its label, and how many seeds it has where it has several."""
    return f"{group.label} ({len(group.runs)} seeds)" if len(group.runs) > 1 else group.label


def dashes(by_name: dict[str, Any]) -> list[Line2D]:
    """What the kinds of line stand for, for a legend."""
    return [Line2D([], [], color=DARK, linestyle=dash, label=name) for name, dash in by_name.items()]


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """The lines' names below the axes, in as many columns as there is room for; longer ones in several lines."""
    width, height = figure.get_size_inches()
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(width / (0.45 + 0.085 * longest))))
    for handle in handles:
        lines = textwrap.wrap(str(handle.get_label()), int((width - 0.45) / 0.085))
        handle.set_label("\n".join(lines))
        height += LINE * (len(lines) - 1)
    figure.set_size_inches(width, height)
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)
