"""The commands of `list`."""

import typer

from ...showing.terminal import new_console, new_table

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
    new_console().print(new_table(headings, rows))
