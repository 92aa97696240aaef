"""Lines, points, axes and legends, as the pictures of runs share them."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from .series import Curve, Group

DARK = "#444444"
SHADE = 0.2
ERROR_TICKS = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100)  # %


def band(
    axes: Axes, found: Curve, dash: str, name: str, color: Any = DARK, marker: str = "", thin: bool = False
) -> None:
    """The mean as a line, and the range of the seeds around it."""
    every = max(1, len(found.x) // 8)
    axes.plot(
        found.x, found.mean, dash, color=color, marker=marker, markevery=every, markersize=4, label=name,
        linewidth=1.0 if thin else 1.6,
    )  # fmt: skip
    if found.low != found.high:
        axes.fill_between(found.x, found.low, found.high, color=color, alpha=SHADE, linewidth=0)


def bars(axes: Axes, found: Curve, dash: str, name: str, colour: str, marker: str) -> None:
    """Points joined by a line, with the range of the seeds where they differ."""
    if found.low != found.high:
        spread = [
            [m - l for m, l in zip(found.mean, found.low, strict=True)],
            [h - m for m, h in zip(found.mean, found.high, strict=True)],
        ]
        axes.errorbar(found.x, found.mean, spread, fmt="none", ecolor=colour, capsize=3, linewidth=1)
    axes.plot(found.x, found.mean, dash, color=colour, marker=marker, markersize=4, label=name, linewidth=1.6)


def error_axis(axes: Axes, curves: Sequence[Curve]) -> None:
    """Errors in percent on a logarithmic scale, on which 0 is below the lower edge."""
    positive = [v for found in curves for v in found.low if v > 0]
    lowest = min(positive, default=1.0)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(0.7 * lowest, 100.0)
    ticks = [tick for tick in ERROR_TICKS if tick >= 0.7 * lowest]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{error:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def group_name(group: Group) -> str:
    """Its label, and how many seeds it has where it has several."""
    return f"{group.label} ({len(group.runs)} seeds)" if len(group.runs) > 1 else group.label


def dashes(by_name: dict[str, Any]) -> list[Line2D]:
    """What the kinds of line stand for, for a legend."""
    return [Line2D([], [], color=DARK, linestyle=dash, label=name) for name, dash in by_name.items()]


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """The lines' names below the axes, in as many columns as there is room for."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_size_inches()[0] / (0.45 + 0.085 * longest))))
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)
