"""The command `ref-bioplaus`.

Exit codes: 0 all is well · 1 backends disagree, or something failed · 2 the command was not understood or cannot be
done as asked · 130 interrupted. Libraries are imported when a command needs them, so that help comes at once.
"""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import __version__
from .conformance.commands.conformance import conformance_app
from .experiments import commands, picture_commands, reproduce_commands


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
catalogue_app = typer.Typer(no_args_is_help=True, help="What there is: algorithms, models, backends, modifications.")
app.add_typer(catalogue_app, name="list")
app.add_typer(conformance_app, name="conformance")
for command in (commands.train, commands.resume, commands.evaluate):
    app.command()(command)
reproduce_commands.mount(app, catalogue_app)
picture_commands.mount(app)

PIPE_WIDTH = 160  # columns, where no terminal says how wide it is


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


@app.command()
def demo(
    backend: Annotated[
        list[str] | None,
        typer.Option(help='A backend to learn on, by name or as "module:object"; repeatable. Default: all installed.'),
    ] = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(help="An algorithm to run, named as in `list algorithms`; repeatable. Default: all."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of initial weights, noise and batches.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder that gets index.html and demo.json.")] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Each algorithm on one backend only, in turns.")] = False,
    device: Annotated[str | None, typer.Option(help='Of the named backends: "cpu", "cuda", "cuda:1".')] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Batches to learn from, instead of the usual 500.")] = None,
) -> None:
    """Every algorithm learns real images on every backend, and all backends are compared; makes a page to look at."""
    from .backends import BackendError
    from .experiments.demo import page, terminal
    from .experiments.demo import running as program
    from .experiments.demo.results import Settings

    try:
        page.check_writable(out)
    except OSError as error:
        fail(f"The folder {out} cannot be written to ({error.strerror}): name another one with --out.")
    settings = Settings(tuple(backend or ()), tuple(algorithm or ()), seed, quick, steps, device)
    console = Console(width=width())
    try:
        with terminal.Bars(console) as bars:
            results = program.run(settings, bars)
    except KeyError as error:
        fail(error.args[0])
    except BackendError as error:
        fail(f"{error}.")
    terminal.show(results, console)
    print(f"The page is {page.write(results, out)}, its numbers are in {out / page.DATA}.")
    print(results.verdict(), flush=True)
    raise typer.Exit(130 if results.interrupted else 0 if results.sound else 1)


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
    from .registry import catalogue

    headings, rows = getattr(catalogue, name)()
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=width()).print(table)


def width() -> int | None:
    """Columns to print in; None: as many as the terminal has."""
    return None if sys.stdout.isatty() else PIPE_WIDTH


def fail(sentence: str) -> NoReturn:
    """Print one sentence to stderr and stop with exit code 2."""
    Console(stderr=True).print(Text(sentence, style="red"), soft_wrap=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    app()
