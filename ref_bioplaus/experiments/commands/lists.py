"""The commands of `list`."""

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...showing.terminal import width

catalogue_app = typer.Typer(no_args_is_help=True, help="What there is: algorithms, models, backends, modifications.")


@catalogue_app.command()
def algorithms() -> None:
    """Every algorithm and variant, its file, the paper and the equations."""
    show_catalogue("algorithms")


@catalogue_app.command()
def models() -> None:
    """The papers' networks."""
    show_catalogue("models")


@catalogue_app.command()
def backends() -> None:
    """Array libraries, whether they are installed, and how to install them."""
    show_catalogue("backend_table")


@catalogue_app.command()
def modifications() -> None:
    """What can be wrapped around an optimizer."""
    show_catalogue("modifications")


def show_catalogue(name: str) -> None:
    """Print one of the catalogue's tables."""
    from ...registry import catalogue

    headings, rows = getattr(catalogue, name)()
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=width()).print(table)
