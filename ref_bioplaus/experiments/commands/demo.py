"""The command `demo`. Libraries are imported when it needs them, so that help comes at once."""

from pathlib import Path
from typing import Annotated

import typer

from ...showing.terminal import fail, new_console


def demo(
    backend: Annotated[
        list[str] | None,
        typer.Option(help='A backend to learn on, by name or as "module:object"; repeatable. Default: all installed.'),
    ] = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            help='An algorithm to run, as in `list algorithms`, or as "my_rule.py:my_rule"; repeatable. Default: all '
            "in the list."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of initial weights, noise and batches.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder that gets index.html and demo.json.")] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Each algorithm on one backend only, in turns.")] = False,
    device: Annotated[str | None, typer.Option(help='Of the named backends: "cpu", "cuda", "cuda:1".')] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Batches to learn from, instead of the usual 500.")] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="In which rows run side by side. Default: one a core, at most 4; one on a --device."),
    ] = None,
) -> None:
    """Every algorithm learns real images on every backend, and all backends are compared; makes a page to look at."""
    from ...backends import BackendError
    from ...naming import NamingError
    from ..demo import page, terminal
    from ..demo import running as program
    from ..demo.processes import usual
    from ..demo.results import Settings

    try:
        page.check_writable(out)
    except OSError as error:
        fail(f"The folder {out} cannot be written to ({error.strerror}): name another one with --out.")
    beside = processes or (1 if device else usual())
    settings = Settings(tuple(backend or ()), tuple(algorithm or ()), seed, quick, steps, device, beside)
    console = new_console()
    try:
        with terminal.Bars(console) as bars:
            results = program.run(settings, bars)
    except KeyError as error:
        fail(error.args[0])
    except BackendError as error:
        fail(f"{error}.")
    except NamingError as error:
        fail(f"The {error}.")
    terminal.show(results, console)
    print(f"The page is {page.write(results, out)}, its numbers are in {out / page.DATA}.")
    print(results.verdict(), flush=True)
    raise typer.Exit(130 if results.interrupted else 0 if results.sound else 1)
