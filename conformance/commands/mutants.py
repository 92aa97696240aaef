"""The command `ref-bioplaus conformance mutants`: does the suite find wrong backends that nobody wrote by hand?

Exit codes: 0 it catches enough · 1 it does not · 2 the command or a file was not understood.
"""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import TextColumn

from ref_bioplaus.conformance.commands.exchange import path
from ref_bioplaus.showing.terminal import bars, fail, new_console, new_table, say
from ref_bioplaus.showing.words import on_one_line

mutants_app = typer.Typer()


@mutants_app.callback()
def main() -> None:
    """The suite itself under test."""


@mutants_app.command()
def mutants(
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn: function, kind, parameters.")] = 0,
    levels: Annotated[str, typer.Option(help='Of the suite, 0 to 3, as "0-3" or "0,2".')] = "0-3",
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    json: Annotated[
        Path | None,
        typer.Option(help="Add a line of JSON for each mutant to this file.", metavar="FILE", parser=path),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with that file.")] = False,
    goal: Annotated[float, typer.Option(min=0.0, max=1.0, help="The share that has to be caught.")] = 0.95,
    limit: Annotated[float, typer.Option(min=1.0, help="Seconds for a mutant; one that takes longer hangs.")] = 600.0,
) -> None:
    """Make wrong backends from the code, run the suite on each, and say which share it catches, and what survives."""
    from ref_bioplaus.conformance.commands.asking import parse_levels
    from ref_bioplaus.conformance.proofs import trials

    console = new_console()
    try:
        plan = trials.Plan(seed, count, parse_levels(levels, "--levels"))
        if resume and json is None:
            raise ValueError("--resume goes on with a file: name it with --json")
        lines = collected(console, plan, trials.trials(plan, json, jobs, limit, resume))
    except ValueError as error:
        fail(f"{error}.")
    except OSError as error:
        fail(f"{json} cannot be used ({error.strerror}): name another file with --json.")
    except KeyboardInterrupt:
        kept = f"what was found is in {json}; --resume goes on" if json else "nothing is kept without --json"
        fail(f"Stopped: {kept}.", 130)
    raise typer.Exit(0 if shown(console, plan, lines) >= goal else 1)


def collected(console: Console, plan: Any, trials: Any) -> list[dict]:
    """A line for every mutant, beside a bar."""
    name = f"seed {plan.seed}"
    if not console.is_terminal:
        say(console, f"{name}: {plan.many:,} mutants")
    lines = []
    with bars(console, TextColumn("{task.fields[at]}", markup=False)) as bar, closing(trials) as found:
        task = bar.add_task(name, total=plan.many, at="")
        for line in found:
            lines.append(line)
            bar.update(task, advance=1, at=line["state"])
    return lines


def shown(console: Console, plan: Any, lines: list[dict]) -> float:
    """Print what was caught at which level, and every survivor; the share that was caught."""
    from ref_bioplaus.conformance.proofs.trials import SURVIVED, counted, share, wilson

    table = new_table(
        ("", "mutants", "caught up to here", "95 % interval"), title=f"Generated mutants, seed {plan.seed}"
    )
    for i, (what, n) in enumerate(counted(lines, plan.levels).items()):
        k, of = share(lines, plan.levels[: i + 1])
        low, high = wilson(k, of)
        interval = (f"{k / max(of, 1):.1%}", f"{low:.1%} to {high:.1%}") if i < len(plan.levels) else ("", "")
        table.add_row(what, f"{n:,}", *interval)
    console.print(table)
    for line in lines:
        if line["state"] == SURVIVED:
            tried, found = line["inputs"], line["differing"]
            seen = f"; {found:,} of {tried:,} random inputs tell it apart" if tried else "; no random inputs for it"
            say(console, on_one_line(f"{line['id']} survives: {line['mutant']}{seen}"), "red")
    caught, of = share(lines, plan.levels)
    say(console, f"{caught:,} of {of:,} wrong backends were caught.")
    return caught / of if of else 1.0
