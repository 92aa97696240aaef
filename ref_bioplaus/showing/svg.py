"""Pictures as SVG text to put into a page, drawn without any of matplotlib's global state.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

import html
import io
import re
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE, GREY = (
    "#E69F00", "#56B4E9", "#009E73", "#D9C400", "#0072B2", "#D55E00", "#CC79A7", "#999999",
)  # fmt: skip
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, YELLOW)
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
WIDTH, NARROW, HEIGHT, LEGEND_ROW = 4.4, 3.2, 2.9, 0.19  # inches


def svg(figure: Figure, description: str) -> str:
    """The figure as an <svg> element that takes the width it is given and needs nothing from anywhere else."""
    buffer = io.StringIO()
    with rc_context(STYLE | {"svg.hashsalt": description}):  # salted, for ids that are unique within a page
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    opening, rest = text.split(">", 1)
    (box,) = re.findall(r'viewBox="[^"]*"', opening)
    return f'<svg {box} role="img" aria-label="{html.escape(description)}">{rest}'
