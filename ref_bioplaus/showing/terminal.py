"""Printing in a terminal."""

import sys
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

PIPE_WIDTH = 160  # columns, where no terminal says how wide it is


def width() -> int | None:
    """Columns to print in; None: as many as the terminal has."""
    return None if sys.stdout.isatty() else PIPE_WIDTH


def fail(sentence: str) -> NoReturn:
    """Print one sentence to stderr and stop with exit code 2."""
    Console(stderr=True).print(Text(sentence, style="red"), soft_wrap=True)
    raise typer.Exit(2)
