"""The demo's pictures: SVG text to put into a page, drawn without any of matplotlib's global state.

A line's name stands at its end, in the order of the results.
"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ...registry.rows import BACKPROP
from ...showing import ends
from ...showing.svg import COLOURS, GREY, HEIGHT, STYLE, WIDTH, mark, svg
from .networks import ARCHITECTURES
from .results import Training

DASHES = {architecture.name: dash for architecture, dash in zip(ARCHITECTURES, ("-", "--", ":"), strict=False)}
ERROR_TICKS = (10, 12, 14, 16, 18, 20, 25, 30, 40, 50, 70, 90)  # %
BEGUN, ERROR_TOP = 0.4, 30.0  # the share of the steps whose errors may be above the picture, and its least height in %
EDGE = 0.72  # inches above and below the axes


class Line(NamedTuple):
    """One line of a picture."""

    label: str
    points: Sequence[tuple[int, float]]
    colour: str
    dash: str


def family_of(training: Training) -> str:
    """The title of the picture that a row's curve belongs to; a file's own name where its row names none."""
    return training.row.family or training.row.module.replace("_", " ").capitalize()


def learning_curves(trainings: Sequence[Training]) -> dict[str, str]:
    """{title: SVG}: test error over steps, a picture for every family, and one for every further network.

    Backpropagation is drawn in grey where it is not the subject. All pictures have one axis.
    """
    good = one_backend(trainings)
    axis = limits(good)
    groups: dict[str, list[Training]] = {}
    for t in good:
        title = family_of(t) if t.architecture is ARCHITECTURES[0] else t.architecture.label.split(",")[0].capitalize()
        groups.setdefault(title, []).append(t)
    pictures = {}
    for title, members in groups.items():
        baseline = [t for t in good if t.row.name == BACKPROP.name and t.architecture is members[0].architecture]
        grey = [Line(t.row.label, t.curve, GREY, "-") for t in baseline if t not in members]
        pictures[title] = error_picture([*grey, *coloured(members)], title, axis)
    return pictures


def coloured(members: Sequence[Training]) -> list[Line]:
    """A colour for every row; a variant, as dtp-alternating is of dtp, has its colour dashed."""
    colours: dict[str, str] = {}
    lines = []
    for t in members:
        origin = t.row.name.rpartition("-")[0]
        variant = origin in colours
        colours[t.row.name] = colours[origin] if variant else COLOURS[len(set(colours.values())) % len(COLOURS)]
        lines.append(Line(t.row.label, t.curve, colours[t.row.name], "--" if variant else "-"))
    return lines


def angle_curves(trainings: Sequence[Training]) -> dict[str, str]:
    """{label: SVG}: the angle between W and B over steps, a line for every layer, a picture for every row that is no
    variant of another and has B."""
    pictures = {}
    good = [t for t in one_backend(trainings) if not t.row.asked.variant and not t.row.inverses]
    for name in dict.fromkeys(t.row.name for t in good):
        mine = [t for t in good if t.row.name == name and t.angles]
        lines = [
            Line(f"{t.architecture.name}, layer {l}", points, COLOURS[i % len(COLOURS)], DASHES[t.architecture.name])
            for t in mine
            for i, (l, points) in enumerate(sorted(t.angles.items()))
        ]
        if lines:
            pictures[mine[0].row.label] = angle_picture(lines, mine[0].row.label)
    return pictures


def one_backend(trainings: Sequence[Training]) -> list[Training]:
    """Of every row and network the first training that came to an end."""
    first = {(t.row.name, t.architecture.name): t for t in reversed(trainings) if not t.failure}
    return [t for t in trainings if first.get((t.row.name, t.architecture.name)) is t]


def limits(trainings: Sequence[Training]) -> tuple[float, float]:
    """Of the axis of errors in %: from below the lowest one to above what is met after the first steps."""
    lowest = min((error for t in trainings for _, error in t.curve), default=10.0)
    learned = [error for t in trainings for step, error in t.curve if step >= BEGUN * t.steps]
    return max(1.0, min(lowest * 0.94, 13.0)), min(100.0, 1.1 * max([*learned, ERROR_TOP]))


def error_picture(lines: Sequence[Line], title: str, axis: tuple[float, float]) -> str:
    """Test error over steps, the error on a logarithmic scale that leaves out the first steps."""
    names = [f"{line.points[-1][1]:.1f}\u2002{line.label}" for line in lines]
    figure, axes = canvas(lines, names)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(ERROR_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(*axis)
    axes.set_title("test error", loc="left", fontsize=10, color="#444444")
    named(axes, lines, names)
    return svg(figure, f"Test error over steps: {title}")


def angle_picture(lines: Sequence[Line], title: str) -> str:
    """Degrees between W and B over steps; 90 is chance, 0 is backpropagation."""
    names = [line.label for line in lines]
    figure, axes = canvas(lines, names)
    axes.axhline(90.0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_ylim(0.0, max([95.0, *(1.05 * angle for line in lines for _, angle in line.points if angle == angle)]))
    axes.set_yticks([0, 30, 60, 90])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}°"))
    axes.set_title("angle between W and B", loc="left", fontsize=10, color="#444444")
    named(axes, lines, names)
    return svg(figure, f"Angle between W and B over steps: {title}")


def canvas(lines: Sequence[Line], names: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure with the lines in it and room for their names at the right."""
    width, height = inside(names)
    whole = height + EDGE
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, whole))
        axes = figure.add_axes((0.5 / WIDTH, 0.42 / whole, width / WIDTH, height / whole))
        for i, (label, points, colour, dash) in enumerate(lines):
            steps, values = zip(*points, strict=True)
            (line,) = axes.plot(steps, values, dash, color=colour, linewidth=1.5, label=label, solid_capstyle="round")
            mark(line, i, label)
        axes.margins(x=0.02)
        axes.set_xlabel("steps", loc="right", labelpad=0)
    return figure, axes


def inside(names: Sequence[str]) -> tuple[float, float]:
    """Width and height of the axes in inches, beside so many names."""
    return WIDTH - 0.55 - ends.room(names), max(HEIGHT - EDGE, ends.LINE * len(names))


def named(axes: Axes, lines: Sequence[Line], names: Sequence[str]) -> None:
    """Write the lines' names at their ends."""
    found = [
        ends.End(i, name, *line.points[-1], {"color": line.colour, "linestyle": line.dash})
        for i, (line, name) in enumerate(zip(lines, names, strict=True))
    ]
    with rc_context(STYLE):
        ends.name_ends(axes, found, *inside(names))
