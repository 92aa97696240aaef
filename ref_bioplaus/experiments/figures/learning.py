"""Curves over training: errors of all runs in one picture, and numbers of each layer in a panel for every rule."""

import math
import string
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...showing import ends
from ...showing.svg import COLOURS
from ..spec.names import shown_row
from . import series
from .axes import DARK, FLOOR, LINE, band, dashes, error_axis, group_name, legend, number_axis, time_axis
from .lacking import error_name, test_split
from .mosaics import Picture
from .series import Curve, Group, Run

AXES, ROW = 4.1, 2.9  # inches: how wide the axes of errors are, and how high a row of panels
PANEL, ACROSS = 3.6, 3  # inches of a panel, and how many stand side by side
EDGE = 0.8  # inches above and below the axes
DEPTH, UP_TO = "plasma", 0.65  # a map of colours, and the part of it that is dark enough on white
NAMED_LAYERS = 8  # at most, in a legend
LONG = 36  # letters, of a name that does not fit at a line's end
MARKERS = ("", "o", "s", "^", "v")  # where there are more lines than colours
MANY_SEEDS = "Runs that differ only in their seed are one line, their mean; the band reaches from the lowest seed to "
MANY_SEEDS += "the highest, as far as all of them have come."
TRAIN_ERROR = "Train (dashed): the batches of the epoch as they were met; {test} (solid): all images after it."


def learning(runs: Sequence[Run], data: Any = None) -> Picture:
    """Train and test error over training (Bartunov et al. 2018, fig. 2 and 3); losses where there are no errors.

    Names stand at the ends of the lines of the test images, with the last number, in its order.
    """
    quantity = "error" if all(series.measured(run, "train_error") or error_name(run) for run in runs) else "loss"
    over, groups = series.unit(runs), series.grouped(runs)
    splits = [test_split(group.runs[0]) for group in groups]
    keys = short_names(groups)
    height = max(4.2, ends.LINE * len(groups) + EDGE + 0.2)
    figure = Figure(figsize=(AXES + ends.room([f"00.00 {key}" for key in keys]), height), layout="constrained")
    axes = figure.add_subplot()
    curves, tested = [], []
    for i, (group, test) in enumerate(zip(groups, splits, strict=True)):
        for split, dash in (("train", "--"), (test, "-")):
            found = series.curve(group, f"{split}_{quantity}", over=over)
            curves.append(found)
            band(axes, found, dash, f"{group.label}, {split}", **look(i), thin=split == "train", subject=i)
        tested.append(found)
    below = False
    if quantity == "error":
        below = error_axis(axes, curves)
    else:
        number_axis(axes)
    time_axis(axes, over)
    axes.set_title(quantity, loc="left", fontsize=10, color=DARK)
    found_ends = [
        ends.End(i, f"{number(found, quantity)}\u2002{key}", *last(found), look(i))
        for i, (found, key) in enumerate(zip(tested, keys, strict=True))
    ]
    ends.name_ends(axes, found_ends, AXES, height - EDGE)
    handles = [] if keys == [group_name(group) for group in groups] else [
        Line2D([], [], **look(i), ms=4, label=f"{key}: {group_name(group)}")
        for i, (group, key) in enumerate(zip(groups, keys, strict=True))
    ]  # fmt: skip
    both = " or ".join(dict.fromkeys(splits))
    legend(figure, handles + dashes({"train": "--", both: "-"}))
    lowest = f" Errors below {FLOOR:g} %, as 0, are below the lower edge." if below else ""
    single = " A single point is hollow for train." if any(len(found.x) == 1 for found in curves) else ""
    return Picture(figure, f"{TRAIN_ERROR.format(test=both)} Before each name: its last {both} {quantity}. "
                   f"{MANY_SEEDS}{lowest}{single}")  # fmt: skip


def look(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th run's lines."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i // len(COLOURS) % len(MARKERS)]}


def short_names(groups: Sequence[Group]) -> list[str]:
    """Names for the ends of lines: the groups' own, or letters where one of them is long."""
    names = [group_name(group) for group in groups]
    if max(map(len, names)) <= LONG:
        return names
    letters = string.ascii_lowercase
    return [letters[i % len(letters)] * (1 + i // len(letters)) for i in range(len(names))]


def last(found: Curve) -> tuple[float, float]:
    """Where a curve ends; NaN for one without numbers."""
    return (found.x[-1], found.mean[-1]) if found.x else (0.0, math.nan)


def number(found: Curve, quantity: str) -> str:
    """A curve's last number."""
    if not found.x:
        return "–"
    return f"{found.mean[-1]:.2f}" if quantity == "error" else f"{found.mean[-1]:.3g}"


def by_layer(runs: Sequence[Run], names: Sequence[str], titles: dict[str, str]) -> tuple[Figure, list[Axes]]:
    """A line for every layer over training, in a panel for every metric (below each other) and group, at most ACROSS
    of them side by side. All panels have one axis of time."""
    groups, over = series.grouped(runs), series.unit(runs)
    shown = sorted({l for name in names for l in series.layers(runs, name)}, key=int)
    colours = {l: colormaps[DEPTH](UP_TO * i / max(1, len(shown) - 1)) for i, l in enumerate(shown)}
    labels = [textwrap.fill(group_name(group), int(PANEL / 0.09)) for group in groups]
    height = ROW + LINE * max(label.count("\n") for label in labels)
    across, down = min(len(groups), ACROSS), -(-len(groups) // ACROSS) * len(names)
    figure = Figure(figsize=(PANEL * across + 0.4, height * down + 0.4), layout="constrained")
    every = figure.subplots(down, across, squeeze=False, sharex="all")
    panels = []
    for row in range(down):
        first, name = row // len(names) * ACROSS, names[row % len(names)]
        for axes, group, label in zip(every[row], groups[first : first + ACROSS], labels[first:], strict=False):
            weights = "V" if shown_row(group.runs[0].experiment.algorithm).inverses else "B"
            title = titles[name].format(weights=weights)
            axes.set_title(f"{label}\n{title}", loc="left", fontsize=10, color=DARK)
            panels.append(axes)
            for i, l in enumerate(series.layers(group.runs, name)):
                label_of_line = f"{group.label}, {name}, layer {l}"
                band(axes, series.curve(group, name, l, over), "-", label_of_line, colours[l], subject=i)
            if not axes.get_lines():
                asked = any(name in run.experiment.metrics for run in group.runs)
                why = "none here" if asked else "not measured"  # DFA's B_l has another shape than W_l
                axes.text(0.5, 0.5, why, ha="center", transform=axes.transAxes, color=DARK)
        for axes in every[row][len(groups) - first :]:
            axes.set_axis_off()
    for axes in panels:
        time_axis(axes, over, 6)
        axes.tick_params(labelbottom=True)
    some = [shown[round(i * (len(shown) - 1) / (NAMED_LAYERS - 1))] for i in range(NAMED_LAYERS)]
    named = shown if len(shown) <= NAMED_LAYERS else list(dict.fromkeys(some))
    legend(figure, [Line2D([], [], color=colours[l], label=f"layer {l}") for l in named])
    return figure, panels
