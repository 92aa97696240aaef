"""The commands `plot` and `compare`. Libraries are imported when a command needs them.

Exit codes: 0 done · 2 not understood, or cannot be done as asked.
"""

from pathlib import Path
from typing import Annotated

import typer

from ...showing.terminal import new_console, new_table, say
from .train import sentences

Runs = Annotated[list[Path], typer.Argument(help="Folders of runs; those that differ only in their seed are one line.")]


def mount(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(plot)
    app.command()(compare)


def plot(
    runs: Runs,
    figure: Annotated[
        str,
        typer.Option(
            help="learning, angles, gradient-ratio, sign-changes, receptive-fields, reconstructions, precision, boxes, "
            "auxiliary-size, frozen or seeds."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The picture's file, ending in .svg or .png. Default: the figure's name, .svg.")
    ] = None,
) -> None:
    """A picture of runs, from their logs and checkpoints."""

    path = Path(f"{figure}.svg") if out is None else out

    def work():
        from ..figures import curves, series

        curves.check_ending(path)
        picture = curves.draw(figure, [series.read(run) for run in once(runs)])
        curves.save(picture, path)
        return picture

    picture = sentences(work)
    console = new_console()
    say(console, f"The picture is {path}. {picture.caption}")


def compare(
    runs: Runs,
    html: Annotated[Path, typer.Option(help="The page to write, with the tables and all pictures in it.")] = Path(
        "compare.html"
    ),
) -> None:
    """Runs side by side: a table, and a page that needs no other file."""

    def work():
        from ..figures import comparison as program
        from ..figures import series

        found = [series.read(run) for run in once(runs)]
        program.write(found, html)
        return program.table(found), [program.CAPTION, *program.notes(found)]

    (headings, rows), told = sentences(work)
    console = new_console()
    shown = new_table(headings, rows)
    for column in shown.columns[1:]:
        column.justify = "right"
    console.print(shown)
    for sentence in told:
        say(console, sentence)
    say(console, f"The page is {html}.")


def once(runs: list[Path]) -> list[Path]:
    """Every folder once, however often it is named."""
    return list({run.resolve(): run for run in runs}.values())
