"""The command `predict`. Libraries are imported when the command needs them.

Exit codes: 0 done · 2 not understood, or an image that cannot be read or does not fit; the others are told.
"""

import json as writer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...showing.terminal import complain, new_console, new_table
from ..data.augmentation import DataError
from ..spec.experiment import ExperimentError
from .train import BackendName, ChangedCode, CheckpointName, Code, DeviceName, given, sentences

if TYPE_CHECKING:
    from ..training.loaded import Loaded

Answer = tuple[Path, list[tuple[str, float]]]


def predict(
    out: Annotated[Path, typer.Argument(help="The folder of a run.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    top: Annotated[int, typer.Option(help="How many classes to tell of each image.", min=1)] = 3,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each image.")] = False,
    checkpoint: CheckpointName = None,
    backend: BackendName = None,
    device: DeviceName = None,
    code: Code = None,
    changed_code: ChangedCode = False,
) -> None:
    """The classes that a trained run sees in images, most likely first.

    An image is resized, cropped and normalised as the run's own in a test; where the run does neither, its size must be
    that of those it learned from.
    """
    changes = {"backend": backend, "device": device}

    def work() -> tuple[list[Answer], list[str]]:
        from ..training import given as images_given
        from ..training import loaded

        run = loaded.load(out, checkpoint, code=code, changed_code=changed_code, **given(changes))
        if not run.classes:
            what = "rebuilds its inputs" if run.built.targets == "inputs" else "learned real-valued targets"
            raise ExperimentError(
                f"The run in {out} {what} and knows no classes: ask it in Python, "
                f"experiments.load({str(out)!r}).predict(images).output."
            )
        return answers(run, [path for place in images for path in images_given.files_in(place)], top)

    found, failed = sentences(work)
    if json:
        for path, best in found:
            print(writer.dumps({"image": str(path), "classes": [{"name": n, "output": v} for n, v in best]}))
    elif found:
        shown = new_table(("image", *(("class", "output") * min(top, len(found[0][1])))))
        for path, best in found:
            shown.add_row(str(path), *(text for name, value in best for text in (name, f"{value:.4f}")))
        new_console().print(shown)
    for sentence in failed:
        complain(sentence)
    if failed:
        raise typer.Exit(2)


def answers(run: "Loaded", paths: list[Path], top: int) -> tuple[list[Answer], list[str]]:
    """The best classes of each image that can be read, and a sentence for each that cannot."""
    found: list[Answer] = []
    failed: list[str] = []

    def ask(some: list[Path]) -> None:
        try:
            found.extend(zip(some, run.predict(some).top(top), strict=True))
        except DataError as error:
            if len(some) == 1:
                failed.append(str(error))
                return
            for one in some:
                ask([one])

    size: Any = run.experiment.batch
    for i in range(0, len(paths), size):
        ask(paths[i : i + size])
    return found, failed
