"""The report as a page that needs no other file: a matrix, margins, failures and what to read, deviations."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from ref_bioplaus import naming
from ref_bioplaus.conformance.checks.outcomes import MODES, STATES, Outcome, Report
from ref_bioplaus.conformance.reporting import report as data
from ref_bioplaus.conformance.reporting.deviations import device_kind
from ref_bioplaus.conformance.reporting.lists import LETTERS, coverage, longest
from ref_bioplaus.registry import ROWS
from ref_bioplaus.showing.pages import template
from ref_bioplaus.showing.svg import COLOURS, STYLE, VERMILION, svg

LEVELS = (
    "primitives", "one step from a stored state", "trajectories", "truths that need no reference",
    "convergence over seeds",
)  # fmt: skip
WITHIN = ((247, 251, 255), (107, 174, 214))  # RGB from a thousandth of the limit up to it
BEYOND = ((253, 200, 160), (166, 54, 3))  # from the limit to 10,000 times
PLAIN = {"error": "#3b3b3b", "deviates": "#e8d44d"}
FILES = {
    "elementwise": "the backend's own function of that name",
    "products": "the backend's matmul and tensordot, and how it sets their precision",
    "moves": "the backend's own functions that move numbers, and its integers",
    "nonlinearity": "ref_bioplaus/local.py",
    "bias": "ref_bioplaus/local.py and kernels.py",
    "optimizers": "ref_bioplaus/optimizers.py and kernels.py",
    "sizes": "ref_bioplaus/kernels.py, and the tiles of the kernel in question",
    "each": "ref_bioplaus/kernels.py",
    "synapses": "ref_bioplaus/linear.py, windows.py and kernels.py",
    "max_pool": "ref_bioplaus/local.py and kernels.py",
    "average_pool": "ref_bioplaus/local.py",
    "batch_norm": "ref_bioplaus/local.py",
    "dropout": "ref_bioplaus/local.py and random.py",
    "loss": "ref_bioplaus/losses.py",
    "random": "ref_bioplaus/random.py",
    "initializers": "ref_bioplaus/initializers.py",
    "backend": "the backend's own functions, as backends/base.py describes them",
    "predict": "ref_bioplaus/network.py: predict",
    "metrics": "ref_bioplaus/metrics.py",
}  # families of primitives


class Column(NamedTuple):
    """A column of the matrix."""

    report: Report
    mode: str
    first: bool  # of its report


class Cell(NamedTuple):
    """What a group came to in a column."""

    letter: str
    number: str  # the largest score in units of the limit; "" where nothing was compared
    colour: str
    ink: str
    note: str  # how many are in another state than the letter's
    title: str


def render(reports: Sequence[Report]) -> str:
    """The page as HTML."""
    shown = [(r, [mode for mode in MODES if any(o.mode == mode for o in r.outcomes)]) for r in reports]
    columns = [Column(r, mode, mode == modes[0]) for r, modes in shown for mode in modes]
    return template(Path(__file__).parent / "templates" / "report.html").render(
        reports=reports,
        verdict=data.verdict(reports),
        sound=data.sound(reports),
        spans=[(r, len(modes)) for r, modes in shown],
        columns=columns,
        matrix=matrix(columns),
        key=[(f"{ratio:g}", *colours("pass" if ratio <= 1 else "fail", ratio)) for ratio in (1e-3, 0.03, 1, 30, 1e4)],
        pictures=[(data.title(r), picture(r), exact(r)) for r in reports],
        levels=[(l, LEVELS[l], [level_counts(r, l) for r in reports]) for l in levels_of(reports)],
        states=STATES,
        failures=[(r, failures(r)) for r in reports if r.count("fail") or r.count("error")],
        deviations=[(r, deviating(r)) for r in reports if r.count("deviates") or r.problems],
        skipped=[(r, skipped(r)) for r in reports if r.count("unsupported") or r.count("not run")],
        seconds=lambda report: sum(o.seconds for o in report.outcomes),
        longest=longest,
        coverage=coverage(reports),
        environment=facts_table(reports),
        title=data.title,
        device_kind=device_kind,
        names=list(dict.fromkeys(r.backend for r in reports)),
    )


# The matrix


def matrix(columns: Sequence[Column]) -> list[tuple[str, list[tuple[str, str, list[Cell | None]]]]]:
    """(heading, rows) for algorithms, in the registry's order, and for primitives. A row: (group, label, cells)."""
    groups = dict.fromkeys(o.group for column in columns for o in column.report.outcomes)
    algorithms = [row for row in ROWS if row.name in groups]
    own = [group for group in groups if naming.is_code(group)]
    others = [group for group in groups if group not in {*own, *(row.name for row in ROWS)}]
    parts = [
        ("Algorithms", [(row.name, row.label) for row in algorithms] + [(name, naming.short(name)) for name in own]),
        ("Primitives", [(group, group.replace("_", " ")) for group in others]),
    ]
    members: dict[tuple[int, str, str], list[Outcome]] = {}
    for report in {id(column.report): column.report for column in columns}.values():
        for o in report.outcomes:
            members.setdefault((id(report), o.mode, o.group), []).append(o)
    return [
        (heading, [
            (group, label, [cell(members.get((id(c.report), c.mode, group), []), c, label) for c in columns])
            for group, label in rows
        ])
        for heading, rows in parts if rows
    ]  # fmt: skip


def cell(outcomes: Sequence[Outcome], column: Column, label: str) -> Cell | None:
    """One cell; None where nothing was asked."""
    if not outcomes:
        return None
    counts = {state: sum(o.state == state for o in outcomes) for state in LETTERS}
    state = next(state for state, n in counts.items() if n)
    compared = [o for o in outcomes if o.comparisons and o.state not in data.UNJUDGED]
    largest = max(compared, key=lambda o: o.score, default=None)
    ratio = 0.0 if largest is None else largest.score / column.report.limit
    colour, ink = colours(state, ratio)
    others = [f"{n} {LETTERS[other]}" for other, n in counts.items() if n and other != state]
    place = f"; largest score {largest.score:.3g} of {column.report.limit:g} in {largest.id}" if largest else ""
    words = ", ".join(f"{n} {other}" for other, n in counts.items() if n)
    return Cell(
        LETTERS[state], "" if largest is None else times(ratio), colour, ink,
        f"{counts[state]} {LETTERS[state]}, {', '.join(others)}" if others else "",
        f"{label}, {data.title(column.report)}, {column.mode}: {words}{place}",
    )  # fmt: skip


def colours(state: str, ratio: float) -> tuple[str, str]:
    """Background and ink for a state and a score in units of the limit, which colour-blind readers can tell apart."""
    if state in PLAIN:
        return PLAIN[state], "#fff" if state == "error" else "#222"
    if state in data.UNJUDGED:
        return "", "#666"
    if state == "fail":
        share = math.log10(ratio) / 4.0 if ratio > 1.0 else 1.0  # what fails for another reason than its score: all
        ends = BEYOND
    else:
        share, ends = (math.log10(ratio) + 3.0) / 3.0 if ratio > 0.0 else 0.0, WITHIN
    share = min(max(share, 0.0), 1.0)
    rgb = [round(a + share * (b - a)) for a, b in zip(*ends, strict=True)]
    return "#" + "".join(f"{part:02x}" for part in rgb), "#fff" if state == "fail" and share > 0.65 else "#222"


def times(ratio: float) -> str:
    """A score in units of the limit, in few characters."""
    if not math.isfinite(ratio):
        return "∞"
    if ratio == 0.0:
        return "0"
    if ratio < 0.01:
        return "<.01"
    if ratio < 10.0:
        return f"{ratio:.2f}" if ratio < 1.1 else f"{ratio:.1f}"
    return f"{ratio:.0f}" if ratio < 1e3 else f"{ratio:.0e}".replace("e+0", "e").replace("e+", "e")


# Margins and counts


def levels_of(reports: Sequence[Report]) -> list[int]:
    """Levels that were asked for."""
    return sorted({o.level for report in reports for o in report.outcomes})


def level_counts(report: Report, level: int) -> tuple[list[int], str]:
    """How many outcomes of a level are in each state, and the largest score in units of the limit."""
    mine = [o for o in report.outcomes if o.level == level]
    largest = data.largest(mine)
    counts = [sum(o.state == state for o in mine) for state in STATES]
    return counts, "–" if largest is None else times(largest / report.limit)


def exact(report: Report) -> tuple[int, int]:
    """How many tensors have score 0, and how many were compared."""
    found = data.histograms(report).values()
    zeros = sum(h.exact for h in found)
    return zeros, zeros + sum(sum(h.counts) for h in found)


def picture(report: Report) -> str:
    """SVG: how many tensors have which score, logarithmic, a line for every level; "" where there are none."""
    found = {level: h for level, h in data.histograms(report).items() if any(h.counts)}
    if not found:
        return ""
    step = data.EDGES[1] / data.EDGES[0]
    edges = [data.EDGES[0] / step, *data.EDGES, data.EDGES[-1] * step]
    with rc_context(STYLE):
        figure = Figure(figsize=(4.4, 2.9))
        axes = figure.add_axes((0.13, 0.26, 0.8, 0.65))
    most = max(max(h.counts) for h in found.values())
    axes.axvspan(1.0, edges[-1], color=VERMILION, alpha=0.08, linewidth=0)
    axes.axvline(1.0, color=VERMILION, linewidth=1.2)
    axes.text(1.0, 1.02, "limit", color=VERMILION, fontsize=9, ha="center", transform=axes.get_xaxis_transform())
    for level, h in found.items():
        axes.stairs(h.counts, edges, color=COLOURS[level], linewidth=1.5, label=f"level {level}", baseline=0.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0.5, most * 2.0)
    axes.set_xticks([1e-4, 1e-2, 1.0, 1e2, 1e4], ["≤0.0001", "0.01", "1", "100", "≥10,000"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("score / limit", loc="right", labelpad=0)
    axes.set_title("tensors", loc="left", fontsize=10, color="#444444")
    figure.legend(loc="lower left", bbox_to_anchor=(0.0, -0.02), ncols=5, frameon=False, fontsize=9, handlelength=1.2,
                  columnspacing=1.0, borderpad=0.1)  # fmt: skip
    return svg(figure, f"How many tensors have which score: {data.title(report)}")


# What to look at


class Failure(NamedTuple):
    """A check that failed, in all the modes in which it failed in the same way."""

    outcome: Outcome
    modes: list[str]
    place: str  # tensor and index
    values: tuple[str, str, str]  # got, expected, allowed
    ratio: str


def failures(report: Report) -> list[tuple[str, str, str, list[Failure]]]:
    """By group: (name, what to read, the command that repeats the first of them, failures)."""
    groups: dict[str, dict[Any, Failure]] = {}
    for o in report.outcomes:
        if o.state in ("fail", "error"):
            same = (o.id, o.state, o.departure.tensor if o.departure else o.reason)
            groups.setdefault(o.group, {}).setdefault(same, failure(o, report)).modes.append(o.mode)
    return [
        (group, what_to_read(group), repeat(report, next(iter(found.values()))), list(found.values()))
        for group, found in groups.items()
    ]


def failure(o: Outcome, report: Report) -> Failure:
    """What a failure's row shows."""
    d = o.departure
    if d is None:
        return Failure(o, [], "", ("", "", ""), "")
    index = f"[{', '.join(map(str, d.index))}]" if d.index else ""
    known = math.isfinite(d.score) and d.allowed > 0.0
    values = (f"{d.got:.9g}", f"{d.expected:.9g}", f"{d.allowed:.2g}") if known else ("", "", "")
    return Failure(o, [], d.tensor + index, values, times(d.score / report.limit))


def what_to_read(group: str) -> str:
    """Which file says what is right."""
    for row in ROWS:
        if row.name == group:
            return f"ref_bioplaus/algorithms/{row.module}.py ({row.paper}: {row.equations})"
    if naming.is_code(group):
        return group
    return FILES.get(group, "conformance/checks/alone/primitives.py")


def repeat(report: Report, found: Failure) -> str:
    """A command that asks the same again."""
    o = found.outcome
    options = {
        "--backend": report.environment.get(data.ASKED, report.backend), "--device": device_kind(report.device),
        "--dtype": report.dtype, "--precision": report.precision, "--mode": found.modes[0], "--level": str(o.level),
        "--case": o.id,
    } | ({"--algorithm": o.group} if naming.is_code(o.group) else {})  # fmt: skip
    return "ref-bioplaus conformance run " + " ".join(f"{name} {shlex.quote(v)}" for name, v in options.items())


def deviating(report: Report) -> list[tuple[str, list[str]]]:
    """(reason, "id (modes)" of what deviates for it)."""
    return by_reason(report, ("deviates",))


def skipped(report: Report) -> list[tuple[str, list[str]]]:
    """(state and reason, "id (modes)" of what was not judged for it)."""
    return by_reason(report, data.UNJUDGED)


def by_reason(report: Report, states: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Outcomes in some states, together where the reason is the same."""
    found: dict[str, dict[str, list[str]]] = {}
    for o in report.outcomes:
        if o.state in states:
            reason = o.reason if len(states) == 1 else f"{o.state}: {o.reason}"
            found.setdefault(reason, {}).setdefault(o.id, []).append(o.mode)
    return [(reason, [f"{id} ({', '.join(modes)})" for id, modes in ids.items()]) for reason, ids in found.items()]


def facts_table(reports: Sequence[Report]) -> list[tuple[str, list[str]]]:
    """(name, what it is in each report)."""
    each = [data.facts(report) for report in reports]
    return [(name, [facts.get(name, "") for facts in each]) for name in dict.fromkeys(n for f in each for n in f)]
