"""Pictures of benchmarks: how goals fare, and how steps grow with the network. SVG text to put into a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from ref_bioplaus.showing import ends
from ref_bioplaus.showing.svg import COLOURS, GREY, HEIGHT, STYLE, WIDTH, mark, svg

from ..where import place

INK = "#222222"
LOOKS: dict[str, dict[str, Any]] = {  # of bars: they differ in luminance, and in hatching
    "reached": {"facecolor": "#056B8A"},
    "undecided": {"facecolor": "#C9D3D6", "edgecolor": GREY, "hatch": "||||"},
    "missed": {"facecolor": "#F2B48C", "edgecolor": "#A33E00", "hatch": "////"},
    "no goal": {"facecolor": GREY},
}
NAMED = 7  # sizes on an axis
EDGE = 0.8  # inches above and below the axes


def pictures(records: Sequence[dict[str, Any]], goals: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """{title: SVG}: ratios to native with goals; and scaling in batch, width and depth, a line for every algorithm."""
    found = {}
    for backend, mine in goals.items():
        members = [r for r in records if r["kind"] == "native" and place(r) == backend]
        if members:
            title = f"{backend} against native"
            found[title] = goal_picture(members, mine, title)
    scaling = [r for r in records if r["kind"] == "scaling"]
    for name in dict.fromkeys(place(r) for r in scaling):
        for axis in dict.fromkeys(r["axis"] for r in scaling):
            members = [r for r in scaling if place(r) == name and r["axis"] == axis]
            if members:
                title = f"W1 on {name}: {axis}"
                found[title] = scaling_picture(members, axis, title)
    return found


def goal_picture(members: Sequence[dict[str, Any]], goals: Mapping[str, float], title: str) -> str:
    """A bar with its interval for every workload, and a mark at its goal."""
    members = sorted(members, key=lambda r: r["workload"])
    with rc_context(STYLE | {"hatch.linewidth": 0.6}):
        figure = Figure(figsize=(WIDTH, HEIGHT + 0.25), layout="constrained")
        axes = figure.add_subplot()
        states = []
        for i, r in enumerate(members):
            value, low, high = (1.0 / r["ratio"][which] for which in ("value", "high", "low"))
            goal = goals.get(r["workload"])
            states.append(state(value, low, high, goal))
            axes.bar([i], [value], width=0.62, **LOOKS[states[-1]])
            axes.errorbar(
                [i], [value], [[value - low], [high - value]], fmt="none", ecolor=INK, capsize=4, linewidth=1.2
            )
            if goal is not None:
                axes.plot([i - 0.4, i + 0.4], [goal, goal], color=INK, linewidth=2.2, solid_capstyle="butt",
                          path_effects=[withStroke(linewidth=4.4, foreground="white")])  # fmt: skip
        axes.set_xticks(range(len(members)), [r["workload"] for r in members])
        axes.axhline(1.0, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.set_title("native's time over ours, 95 % interval; thick: goal", loc="left", fontsize=10, color="#444444")
        shown = [Patch(label=f"{name}: {states.count(name)}", **look) for name, look in LOOKS.items() if name in states]
        figure.legend(handles=shown, loc="outside lower left", ncols=4, frameon=False, fontsize=9, handlelength=1.3,
                      columnspacing=1.0)  # fmt: skip
        return svg(figure, title)


def state(value: float, low: float, high: float, goal: float | None) -> str:
    """Whether a ratio that should be above its goal is; undecided where the goal lies within the interval."""
    if goal is None:
        return "no goal"
    return "undecided" if low < goal < high else "reached" if value >= goal else "missed"


def scaling_picture(members: Sequence[dict[str, Any]], axis: str, title: str) -> str:
    """Milliseconds a step over one size, both on logarithmic scales, with the quartiles of the rounds."""
    methods = list(dict.fromkeys(r["method"] for r in members))
    width, height = WIDTH - 0.55 - ends.room(methods), HEIGHT - EDGE
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT))
        axes = figure.add_axes((0.5 / WIDTH, 0.5 / HEIGHT, width / WIDTH, height / HEIGHT))
        found = []
        for i, method in enumerate(methods):
            mine = sorted((r for r in members if r["method"] == method), key=lambda r: r["value"])
            x, y = [r["value"] for r in mine], [1e3 * r["seconds"] for r in mine]
            spread = [[1e3 * abs(r["seconds"] - r["quartiles"][which]) for r in mine] for which in (0, 1)]
            colour = COLOURS[i % len(COLOURS)]
            look = {"color": colour, "linestyle": "-" if i < len(COLOURS) else "--"}
            axes.errorbar(x, y, spread, fmt="none", ecolor=colour, linewidth=0.9, capsize=2)
            (line,) = axes.plot(x, y, marker="o", markersize=3, label=method, **look)
            mark(line, i, method)
            found.append(ends.End(i, method, x[-1], y[-1], look))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        sizes = sorted({r["value"] for r in members})
        axes.xaxis.set_major_locator(FixedLocator(sizes) if len(sizes) <= NAMED else LogLocator(base=2, numticks=NAMED))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=NAMED))
        for one in (axes.xaxis, axes.yaxis):
            one.set_minor_locator(NullLocator())
            one.set_minor_formatter(NullFormatter())
            one.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
        axes.set_xlabel(axis)
        axes.set_title("ms a step, quartiles", loc="left", fontsize=10, color="#444444")
        ends.name_ends(axes, found, width, height)
        return svg(figure, title)
