"""The command `ref-bioplaus check`. Exit codes: 0 every check passes · 1 one does not · 2 not understood.

Libraries are imported when the command needs them, so that help comes at once.
"""

from contextlib import ExitStack
from typing import Annotated

import typer

from ref_bioplaus import naming
from ref_bioplaus.conformance.commands.asking import split
from ref_bioplaus.showing.terminal import fail, new_console, say

STYLES = {"fail": "red", "not judged": "yellow", "measured": ""}


def check(
    rule: Annotated[
        str,
        typer.Argument(help='Your algorithm, "my_rule.py:my_rule" or "package.module:my_rule", or a registry name.'),
    ],
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="dense, equal, local, conv, residual, or a network of your own; repeatable. All, if left out."
        ),
    ] = None,
    oracle: Annotated[
        str | None, typer.Option(help="One step of it in plain NumPy, as my_rule.py:oracle; see conformance/README.md.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="cross-entropy, as if left out, squared-error, or a loss of your own.")
    ] = None,
    declares: Annotated[
        list[str] | None, typer.Option(help='What is true of it, as "B stays"; repeatable. See README.md.')
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="A backend; repeatable, or with commas between. All here, if left out.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Dense networks on NumPy alone.")] = False,
) -> None:
    """Is my rule right? Check an algorithm by what every rule has to do, what is declared of it, and its oracle."""
    from ref_bioplaus import backends
    from ref_bioplaus.conformance import authors
    from ref_bioplaus.registry.names import LOSS, row, thing

    console = new_console()
    names = [rule, *(network or ()), *filter(None, (oracle, loss))]
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(naming.importable(name))
        try:
            nets = [naming.load(n, {}, "network") if naming.is_code(n) else n for n in split(network or ())]
            result = authors.check_algorithm(
                row(rule),
                nets or None,
                naming.load(oracle, {}, "oracle") if oracle else None,
                declares=tuple(declares or ()),
                loss=thing(LOSS, loss)() if loss else None,
                backends=split(backend or ()) or None,
                quick=quick,
                on_fail=None,
                callback=lambda outcome: say(console, str(outcome), STYLES.get(outcome.state, "")),
            )
        except KeyError as error:
            fail(f"{str(error.args[0]).removesuffix('?')}.")
        except (ValueError, TypeError, ImportError, backends.BackendError) as error:
            fail(f"{str(error).removesuffix('?')}.")
    say(console, f"{result.verdict}.", "green" if result.passed else "bold red")
    say(console, result.not_judged)
    raise typer.Exit(0 if result.passed else 1)
