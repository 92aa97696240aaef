"""The command `ref-bioplaus`, and `python -m ref_bioplaus`: Python then looks for modules in the current folder first,
but for -P.

Exit codes: 0 all is well · 1 backends disagree, or something failed · 2 the command was not understood or cannot be
done as asked · 130 interrupted. Libraries are imported when a command needs them, so that help comes at once.
"""

import sys
from typing import Annotated

import typer

from . import __version__
from .conformance.commands.check import check
from .conformance.commands.conformance import conformance_app
from .experiments.commands import data, demo, exporting, figures, predict, reproduce, search, train
from .experiments.commands.lists import catalogue_app
from .gpu.command import gpu


class Program(typer.Typer):
    """The command as the shell starts it."""

    def __call__(self, *args, **kwargs):
        """Run, on any terminal, with nothing from the current folder that is not asked for; the demo with one thread
        for each array library."""
        from .machine import environment
        from .showing import printing

        printing.print_as_far_as_possible()
        if sys.argv[1:2] == ["demo"]:
            environment.restart_with_one_thread_per_library()
        environment.leave_the_current_folder_alone()
        return super().__call__(*args, **kwargs)


app = Program(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
app.add_typer(catalogue_app, name="list")
app.add_typer(conformance_app, name="conformance")
for command in (data.data, train.train, train.resume, train.evaluate, predict.predict, exporting.export):
    app.command()(command)
app.command()(check)
reproduce.mount(app, catalogue_app)
app.command()(search.search)
figures.mount(app)
app.command()(demo.demo)
app.command()(gpu)


def print_version(wanted: bool) -> None:
    """Print the version and stop, where it was asked for."""
    if wanted:
        print(f"ref-bioplaus {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Reference implementation of biologically plausible learning, the same on every array library."""


if __name__ == "__main__":
    app()
