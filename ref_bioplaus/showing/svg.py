"""Pictures as SVG text to put into a page, drawn without any of matplotlib's global state.

Lines have COLOURS, which differ in luminance too, so that they are told apart in grey and by colour-blind readers;
areas have Okabe and Ito's.
"""

import html
import io
import re
from typing import Any

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure

ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE, GREY = (
    "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A",
)  # fmt: skip
COLOURS = ("#00255E", "#AA7C1D", "#781104", "#788DEF", "#642BBA", "#398351", "#056B8A")  # dark, light, ...
MARKED = re.compile(
    r'<g id="mark:(\d+):([^"]*)">(\s*<path d="[^"]*"(?: clip-path="[^"]*")? style="fill: none;[^"]*"/>)?'
)
NEAR = "fill: none; stroke: #000; stroke-opacity: 0; stroke-width: 8; pointer-events: stroke"  # around a line
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a field begins no formula
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#444444",
    "xtick.color": "#888888",
    "ytick.color": "#888888",
    "xtick.labelcolor": "#444444",
    "ytick.labelcolor": "#444444",
}
WIDTH, HEIGHT = 4.4, 2.9  # inches


def mark(artist: Artist, i: int, words: str) -> None:
    """An artist is part of the i-th of a picture's subjects: a pointer on it finds the words and, in a page, dims the
    others."""
    quoted = words.replace('"', "'")  # the attribute then stands in double quotes
    artist.set_gid(f"mark:{i}:{quoted}")


def told(text: str) -> str:
    """SVG text whose marked parts have a class and the words as their title, and lines that a pointer finds easily."""

    def named(found: re.Match[str]) -> str:
        wide = re.sub(r'style="[^"]*"', f'class="near" style="{NEAR}"', found[3] or "")
        return f'<g class="mark m{found[1]}"><title>{found[2]}</title>{found[3] or ""}{wide}'

    return MARKED.sub(named, text)


def svg(figure: Figure, description: str) -> str:
    """The figure as an <svg> element that takes the width it is given and needs nothing from anywhere else."""
    buffer = io.StringIO()
    with rc_context(STYLE | {"svg.hashsalt": description}):  # salted, for ids that are unique within a page
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = told(buffer.getvalue())
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    opening, rest = text.split(">", 1)
    (box,) = re.findall(r'viewBox="[^"]*"', opening)
    return f'<svg {box} role="img" aria-label="{html.escape(description)}">{rest}'
