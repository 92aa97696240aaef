"""The commands of `list`."""

import typer

from ... import naming
from ...registry import catalogue, names
from ...showing.terminal import new_console, new_table

catalogue_app = typer.Typer(no_args_is_help=True, help="What there is: algorithms, models, backends, modifications.")


@catalogue_app.command()
def algorithms() -> None:
    """Every algorithm and variant, its file, the paper and the equations."""
    show_catalogue("algorithms", names.ALGORITHM.group)


@catalogue_app.command()
def models() -> None:
    """The papers' networks."""
    show_catalogue("models", names.MODEL.group)


@catalogue_app.command()
def backends() -> None:
    """Array libraries, whether they are installed, and how to install them."""
    show_catalogue("backend_table")


@catalogue_app.command()
def modifications() -> None:
    """What can be wrapped around an optimizer."""
    show_catalogue("modifications", names.MODIFICATION.group)


def show_catalogue(name: str, group: str = "") -> None:
    """Print one of the catalogue's tables, and behind it what installed packages enrol in a group."""
    headings, rows = getattr(catalogue, name)()
    more = sorted(naming.enrolled(group).items()) if group else []
    rows = (*rows, *((known, place, *[""] * (len(headings) - 2)) for known, place in more))
    new_console().print(new_table(headings, rows))
