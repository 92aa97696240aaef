"""Printing in a terminal, or to where none is."""

import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .words import one_line

PIPE_WIDTH = 160  # columns, where no terminal says how wide it is


def new_console() -> Console:
    """As wide as the terminal; of PIPE_WIDTH columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def say(console: Console, sentence: str, style: str = "") -> None:
    """One line, whatever is in it."""
    console.print(Text(sentence, style=style), soft_wrap=True)


def complain(sentence: str) -> None:
    """One sentence to stderr."""
    say(Console(stderr=True), one_line(sentence), "red")


def fail(sentence: str, code: int = 2) -> NoReturn:
    """One sentence to stderr, and the end of the program."""
    complain(sentence)
    raise typer.Exit(code)


def new_table(headings: Iterable[str] = (), rows: Iterable[Iterable[str]] = (), title: str | None = None) -> Table:
    """A table in the program's style; the first column, of names, is not wrapped unless it would take most of it."""
    cells = [list(row) for row in rows]
    table = Table(
        *headings, title=title, title_justify="left", box=None, pad_edge=False, header_style="" if title else "bold"
    )
    for column in table.columns[:1]:
        column.no_wrap = all(len(row[0]) <= PIPE_WIDTH // 2 for row in cells)
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def bars(console: Console, *more: Any, remaining: bool = True) -> Progress:
    """Bars that go when they are done; none where there is no terminal. more: columns behind the count."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    columns += [TimeRemainingColumn()] if remaining else []
    return Progress(*columns, *more, console=console, transient=True, disable=not console.is_terminal)
