"""Is the working tree slower than a commit? Both are measured now, in turns: `make bench`, `make bench BASE=main`.

Exit codes: 0 not slower · 1 slower · 2 not understood, or a benchmark failed · 3 cannot tell
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .decision import CODES, judged, together
from .pairs import measured, subjects
from .trees import ROOT, found, subject, unpacked


def main(
    base: Annotated[str, typer.Option(help="The commit to compare with.")] = "HEAD",
    seconds: Annotated[float, typer.Option(min=0.0, help="Begin no further pair of processes after so many.")] = 160.0,
    only: Annotated[
        list[str] | None,
        typer.Option("--subject", help='What is timed, as in "torch W1 FA" or "numpy conv_apply"; repeatable.'),
    ] = None,
) -> None:
    """Compare the working tree with a commit."""
    names = list(dict.fromkeys(only or subjects()))
    try:
        commit = found(base)
        typer.echo(f"base: {subject(commit)}; against it: the working tree")
        with tempfile.TemporaryDirectory() as folder:
            ratios = measured(unpacked(commit, Path(folder)), ROOT, names, seconds)
    except (ValueError, RuntimeError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    judgements = {name: judged(one) for name, one in ratios.items()}
    for name, judgement in judgements.items():
        typer.echo(f"{name}: {judgement}")
    word = together([judgement.word for judgement in judgements.values()])
    typer.echo(word)
    raise typer.Exit(CODES[word])


if __name__ == "__main__":
    typer.run(main)
