"""The commands `ref-bioplaus conformance emit`, `judge` and `regenerate`.

Exit codes: 0 all is well · 1 something departs, or nothing was judged · 2 the command or a file was not understood.
"""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ref_bioplaus.showing.terminal import fail, new_console, say
from ref_bioplaus.showing.words import one_line

exchange_app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
SHOWN = 3  # names of missing outputs to print


def path(text: str) -> Path:
    """A path of the command line. Raises typer.BadParameter for an empty one, such as "$UNSET", which is not "."."""
    if not text.strip():
        raise typer.BadParameter('it is empty, expected a path ("." for the current folder).')
    return Path(text)


@exchange_app.callback()
def main() -> None:
    """Check an implementation in any language by files, and the stored vectors."""


@exchange_app.command()
def emit(
    folder: Annotated[Path, typer.Argument(help="Gets manifest.json and inputs/.", metavar="DIR", parser=path)],
    case: Annotated[str, typer.Option(help='Only cases whose id matches, as "1/dtp/*" or "0/random/*".')] = "*",
    layout: Annotated[str, typer.Option(help="NHWC (channels last) or NCHW (channels first).")] = "NHWC",
    dtype: Annotated[str, typer.Option(help="Of the computation under test: float32 or float64.")] = "float64",
) -> None:
    """Write the inputs of single steps and of their parts, and a manifest that explains them, to be computed."""
    from ref_bioplaus.conformance.files import exchange

    try:
        ids = exchange.emit(folder, case, layout, dtype)
    except exchange.ExchangeError as error:
        fail(str(error))
    tell(f"{folder / 'manifest.json'} describes {exchange.counted(len(ids))}, with inputs in {folder / 'inputs'}.")
    judging = f"ref-bioplaus conformance judge {shlex.quote(str(folder))}"
    tell(f"Write any of their outputs to {folder / 'outputs'}, then: {judging}")


@exchange_app.command()
def judge(
    folder: Annotated[Path, typer.Argument(help="As written by emit.", metavar="DIR", parser=path)],
    outputs: Annotated[
        Path | None, typer.Option(help="Where the outputs are. Default: DIR/outputs.", metavar="DIR", parser=path)
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the computation under test. Default: as emitted.")] = None,
) -> None:
    """Say of every case whether its outputs pass, or where they first depart in order of computation."""
    from ref_bioplaus.conformance.files import exchange

    found = []
    try:
        for verdict in exchange.verdicts(folder, outputs, dtype):
            found.append(verdict)
            report(verdict)
    except exchange.ExchangeError as error:
        fail(str(error))
    tell(exchange.summary(found))
    if note := exchange.unsigned(found):
        tell(note)
    states = {verdict.state for verdict in found}
    raise typer.Exit(2 if "error" in states else 1 if "fail" in states or "pass" not in states else 0)


def report(verdict: Any) -> None:
    """Print one verdict."""
    if verdict.state == "pass":
        tell(f"pass     {verdict.id}: {verdict.given} outputs, largest score {verdict.score:.2g}")
    else:
        tell(f"{verdict.state:<8} {verdict.id}: {verdict.text}")
    if verdict.missing:
        more = f" and {len(verdict.missing) - SHOWN} more" if len(verdict.missing) > SHOWN else ""
        tell(f"         not given: {', '.join(verdict.missing[:SHOWN])}{more}")


@exchange_app.command()
def regenerate(
    check: Annotated[bool, typer.Option("--check", help="Prove that the files are what the source gives.")] = False,
    all: Annotated[
        bool, typer.Option("--all", help="Those that are there already, too: an algorithm has changed.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Of the vectors. Default: the package's own.", metavar="DIR", parser=path)
    ] = None,
) -> None:
    """Write the stored vectors that are new, and their comparison with 50 digits; or check them."""
    from ref_bioplaus.conformance.files import vectors
    from ref_bioplaus.conformance.proofs import high_precision

    own = folder is None
    folder = folder or vectors.FOLDER
    if check:
        try:
            problems = vectors.check(folder)
        except OSError as error:
            fail(f"The folder {folder} cannot be read ({error.strerror}): name another with --folder.")
        for problem in problems:
            tell(problem)
        if problems:
            raise typer.Exit(1)
        tell(f"The {len(vectors.chosen())} vectors in {folder} are what the source gives.")
        return
    try:
        made = vectors.regenerate(folder, all=all)
        compared = high_precision.regenerate(all) if own else []
    except OSError as error:
        fail(f"The folder {folder} cannot be written to ({error.strerror}): name another with --folder.")
    except ImportError as error:
        fail(f"New steps are compared with 50 digits, which needs {error.name}: pip install mparray.")
    tell(f"{len(vectors.chosen())} vectors are in {folder}; {len(made)} were made anew: {some(made)}.")
    if own:
        tell(f"{len(compared)} steps were compared with {high_precision.DIGITS} digits: {some(compared)}.")


def some(ids: list[str]) -> str:
    """The first of some ids."""
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more or "none"


def tell(sentence: str) -> None:
    """One line, whatever the names in it are made of."""
    say(new_console(), one_line(sentence))
