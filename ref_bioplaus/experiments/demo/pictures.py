"""The demo's pictures: SVG text to put into a page, drawn without any of matplotlib's global state.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ...showing.svg import COLOURS, GREY, HEIGHT, LEGEND_ROW, NARROW, STYLE, WIDTH, svg
from .networks import ARCHITECTURES
from .results import Training

DASHES = {architecture.name: dash for architecture, dash in zip(ARCHITECTURES, ("-", "--", ":"), strict=False)}
ERROR_TICKS = (10, 15, 20, 30, 50, 90)  # %


class Line(NamedTuple):
    """One line of a picture."""

    label: str
    points: Sequence[tuple[int, float]]
    colour: str
    dash: str


FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Backpropagation", ("backprop",)),
    ("Random feedback", ("feedback_alignment", "direct_feedback_alignment", "dense_feedback_alignment")),
    ("Sign-symmetry", ("sign_symmetry",)),
    ("Learned feedback weights", ("kolen_pollack", "weight_mirror")),
    ("Target propagation", ("target_propagation",)),
)  # title, files in algorithms/


def family_of(training: Training) -> str:
    """The title of the picture that a row's curve belongs to; a new file's own name."""
    for title, modules in FAMILIES:
        if training.row.module in modules:
            return title
    return training.row.module.replace("_", " ").capitalize()


def learning_curves(trainings: Sequence[Training]) -> dict[str, str]:
    """{title: SVG}: test error over steps, a picture for every family, and one for every further network.

    Backpropagation is drawn in grey where it is not the subject.
    """
    good = one_backend(trainings)
    groups: dict[str, list[Training]] = {}
    for t in good:
        title = family_of(t) if t.architecture is ARCHITECTURES[0] else t.architecture.label.split(",")[0].capitalize()
        groups.setdefault(title, []).append(t)
    pictures = {}
    for title, members in groups.items():
        baseline = [t for t in good if t.row.name == "backprop" and t.architecture is members[0].architecture]
        grey = [Line(t.row.label, t.curve, GREY, "-") for t in baseline if t not in members]
        pictures[title] = error_picture([*grey, *coloured(members)], title)
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


def angle_curves(trainings: Sequence[Training], names: Sequence[str]) -> dict[str, str]:
    """{label: SVG}: the angle between W and B over steps, a line for every layer, a picture for every row named."""
    pictures = {}
    for name in names:
        mine = [t for t in one_backend(trainings) if t.row.name == name and t.angles]
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


def error_picture(lines: Sequence[Line], title: str) -> str:
    """Test error over steps, the error on a logarithmic scale."""
    figure, axes = canvas(lines)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(ERROR_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    lowest = min((error for line in lines for _, error in line.points), default=10.0)
    axes.set_ylim(max(1.0, min(lowest * 0.9, 13.0)), 100.0)
    axes.set_title("test error", loc="left", fontsize=10, color="#444444")
    return svg(figure, f"Test error over steps: {title}")


def angle_picture(lines: Sequence[Line], title: str) -> str:
    """Degrees between W and B over steps; 90 is chance, 0 is backpropagation."""
    figure, axes = canvas(lines, NARROW)
    axes.axhline(90.0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_ylim(0.0, max([95.0, *(1.05 * angle for line in lines for _, angle in line.points if angle == angle)]))
    axes.set_yticks([0, 30, 60, 90])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}°"))
    axes.set_title("angle between W and B", loc="left", fontsize=10, color="#444444")
    return svg(figure, f"Angle between W and B over steps: {title}")


def canvas(lines: Sequence[Line], width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure with the lines in it and their names below, in two columns."""
    legend = LEGEND_ROW * -(-len(lines) // 2) + 0.1
    with rc_context(STYLE):
        figure = Figure(figsize=(width, HEIGHT + legend))
        axes = figure.add_axes(
            (0.5 / width, (0.42 + legend) / (HEIGHT + legend), 1 - 0.65 / width, (HEIGHT - 0.72) / (HEIGHT + legend))
        )
        for label, points, colour, dash in lines:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, dash, color=colour, linewidth=1.6, label=label, solid_capstyle="round")
        axes.margins(x=0.02)
        axes.set_xlabel("steps", loc="right", labelpad=0)
        figure.legend(
            loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=2, frameon=False, fontsize=9.5, handlelength=1.6,
            labelspacing=0.25, columnspacing=1.2, borderpad=0.1,
        )  # fmt: skip
    return figure, axes
