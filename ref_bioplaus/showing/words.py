"""Words for sentences: names, values and errors as a reader is told them."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any


def nearest(name: str, names: list[str]) -> list[str]:
    """The names that contain a text; else those like it, or like it after their "/"; else none."""
    within = [known for known in names if name.lower() in known.lower()]
    ends = {known.rpartition("/")[2]: known for known in names}
    like = difflib.get_close_matches(name, names, n=3)
    return within or like or [ends[end] for end in difflib.get_close_matches(name, ends, n=3)]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence on an unknown name, with the nearest ones."""
    names = list(known)
    close = nearest(name, names) or sorted(names)
    return f'The {kind} "{name}" is unknown: did you mean {", ".join(close)}?'


def shown(value: Any) -> str:
    """A value in a sentence."""
    try:
        return repr(value)
    except ValueError:
        return "a number of thousands of digits"


def one_line(sentence: str) -> str:
    """A sentence to print: what is no character to see is escaped, and a word of hundreds of them is cut."""
    visible = "".join(c if c.isprintable() else repr(c)[1:-1] for c in sentence)
    return re.sub(r"\S{300,}", lambda word: f"{word[0][:100]}...", visible)


def on_one_line(text: str) -> str:
    """What has several lines, on one, to print."""
    return one_line(" ".join(text.split()))


def sentence(error: Exception) -> str:
    """An error as one line of at most 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def table_of(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int | None = None) -> list[str]:
    """The lines of a table in Markdown, whose columns from `left` on are numbers, to the right."""
    bars = ["---" if left is None or i < left else "---:" for i in range(len(headings))]
    return [f"| {' | '.join(row)} |" for row in (headings, bars, *rows)]
