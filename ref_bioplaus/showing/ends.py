"""Names at the ends of a picture's lines, in the order of where these end, so that no legend must be looked up."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from .svg import mark

LINE = 0.155  # inches that a name takes
LETTER = 0.077  # inches, of the size that names have
SIZE = 9
ARM = 0.24  # inches between the axes and a name
INK = "#333333"


class End(NamedTuple):
    """A line's end: the i-th subject's, with its name, and how it looks."""

    i: int
    name: str
    x: float
    y: float  # NaN for a line that has none: its name stands at the top
    look: dict[str, Any]


def places(wanted: Sequence[float], gap: float) -> list[float]:
    """Where names stand that would stand at `wanted`: from 0 to 1 in the same order, `gap` apart if there is room, and
    in sum of squares as near as that permits."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, 1.0 / max(1, len(order) - 1))
    blocks: list[tuple[float, int]] = []  # (mean, how many), of what is pushed together
    for place, i in enumerate(order):
        mean, count = wanted[i] - place * gap, 1
        while blocks and blocks[-1][0] >= mean:
            before, n = blocks.pop()
            mean, count = (before * n + mean * count) / (n + count), n + count
        blocks.append((mean, count))
    highest = 1.0 - (len(order) - 1) * gap
    found = [min(max(mean, 0.0), highest) for mean, count in blocks for _ in range(count)]
    by_line = dict(zip(order, (base + place * gap for place, base in enumerate(found)), strict=True))
    return [by_line[i] for i in range(len(wanted))]


def room(names: Sequence[str]) -> float:
    """Inches that names take at the right of the axes."""
    return ARM + LETTER * max(map(len, names), default=0)


def name_ends(axes: Axes, ends: Sequence[End], width: float, height: float) -> None:
    """Write the names at the right of axes that have their limits, and so many inches."""
    if not ends:
        return
    scaled = axes.transScale + axes.transLimits
    wanted = []
    for end in ends:
        at = float(scaled.transform((end.x, end.y))[1]) if np.isfinite(end.y) else 1.0
        wanted.append(min(max(at, 0.0), 1.0) if np.isfinite(at) else 0.0)
    for end, start, place in zip(ends, wanted, places(wanted, LINE / height), strict=True):
        whole, arm = axes.transAxes, ARM / width
        stopped = float(scaled.transform((end.x, 1.0))[0])
        parts = axes.plot((1.005, 1.0 + 0.5 * arm, 1.0 + 0.78 * arm), (start, place, place), transform=whole,
                          clip_on=False, linewidth=1.4, label="_", markevery=[1], **{"ms": 4} | end.look)  # fmt: skip
        if stopped < 0.9 and np.isfinite(end.y):
            parts += axes.plot((stopped, 1.005), (start, start), transform=whole, linewidth=0.7, label="_",
                               **end.look | {"linestyle": (0, (1, 3)), "marker": ""})  # fmt: skip
        for part in parts:
            mark(part, end.i, end.name)
        text = axes.annotate(end.name, (1.0, place), (1.0 + arm, place), xycoords=whole, textcoords=whole, va="center",
                             fontsize=SIZE, color=INK, annotation_clip=False)  # fmt: skip
        mark(text, end.i, end.name)
