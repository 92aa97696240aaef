"""The command `export`. Libraries are imported when it needs them.

Exit codes: 0 done · 2 not understood, or cannot be done as asked.
"""

from pathlib import Path
from typing import Annotated

import typer

from ...showing.terminal import new_console, say
from .train import BackendName, ChangedCode, CheckpointName, Code, given, sentences


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    out: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    checkpoint: CheckpointName = None,
    backend: BackendName = None,
    code: Code = None,
    changed_code: ChangedCode = False,
) -> None:
    """What a run has learned, as a file that a torch Module of the same layers loads by load_state_dict."""

    def work():
        from ..training import loaded

        return loaded.export(run, out, checkpoint, code, changed_code, **given({"backend": backend}))

    arrays = sentences(work)
    names, console = list(arrays), new_console()
    numbers = sum(array.size for array in arrays.values())
    say(console, f"{out} holds {len(names)} tensors, {names[0]} to {names[-1]}, of {numbers:,} numbers.")
