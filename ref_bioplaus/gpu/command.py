"""The command `gpu`. Libraries are imported when it needs them, so that help comes at once."""

from pathlib import Path
from typing import Annotated

import typer

from ..showing.terminal import fail
from . import plan


def gpu(
    device: Annotated[
        str, typer.Option(help='As "cuda", "cuda:1"; "cpu" runs everything small, to see that it runs.')
    ] = "cuda",
    seconds: Annotated[
        float, typer.Option(min=20.0, help="The time for all of it; what did not fit is listed as not measured.")
    ] = 330.0,
    only: Annotated[str, typer.Option(help="Parts of it, which share the time.")] = ",".join(plan.PARTS),
    out: Annotated[Path, typer.Option(help="The folder that gets five files; those of an earlier run go.")] = Path(
        "gpu"
    ),
    data: Annotated[
        str | None, typer.Option(help="A folder with MNIST, for learning. Default: the embedded images.")
    ] = None,
) -> None:
    """Whether a GPU can be trusted with which backend and precision, how fast it is, and that it learns, in minutes.

    No network is used. Results are written as they come, so that what was measured is there whenever it is stopped.
    The speed part needs a checkout. Exit codes: 0 nothing failed, 1 a check failed, 2 there is no such device.
    """
    from .running import NoDevice, Settings, run

    chosen = tuple(dict.fromkeys(word.strip() for word in only.split(",") if word.strip()))
    unknown = [word for word in chosen if word not in plan.PARTS]
    if unknown or not chosen:
        wrong = f'has "{unknown[0]}"' if unknown else "names nothing"
        fail(f"--only {wrong}, expected some of {', '.join(plan.PARTS)}.")
    parts = tuple(part for part in plan.PARTS if part in chosen)
    try:
        last, sound = run(Settings(device, seconds, parts, out, data), lambda sentence: print(sentence, flush=True))
    except NoDevice as error:
        fail(f"{str(error).capitalize()[:1]}{str(error)[1:]}: install a library that does, or name another --device.")
    except OSError as error:
        fail(f"The folder {out} cannot be written to ({error.strerror}): name another one with --out.")
    print(f"The page is {out / 'gpu.md'}.")
    print(last, flush=True)
    raise typer.Exit(0 if sound else 1)
