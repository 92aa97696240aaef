"""The command `predict`. Libraries are imported when the command needs them.

Exit codes: 0 done · 2 not understood, or an image that cannot be read or does not fit; the others are told.
"""

import json as writer
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...showing.terminal import complain, new_console, new_table
from ..data.augmentation import DataError
from ..spec.experiment import ExperimentError
from .train import BackendName, ChangedCode, CheckpointName, Code, DeviceName, given, sentences

if TYPE_CHECKING:
    from ..training.loaded import Loaded


def predict(
    out: Annotated[Path, typer.Argument(help="The folder of a run.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    top: Annotated[int, typer.Option(help="How many classes, or boxes, to tell of each image.", min=1)] = 3,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each image.")] = False,
    checkpoint: CheckpointName = None,
    backend: BackendName = None,
    device: DeviceName = None,
    code: Code = None,
    changed_code: ChangedCode = False,
) -> None:
    """The classes that a trained run sees in images, most likely first; of a detector its boxes, the surest first.

    An image is resized, cropped and normalised as the run's own in a test; where the run does neither, its size must be
    that of those it learned from.
    """
    changes = {"backend": backend, "device": device}

    def work() -> tuple[list[Any], list[str]]:
        from ..training import given as images_given
        from ..training import loaded

        run = loaded.load(out, checkpoint, code=code, changed_code=changed_code, **given(changes))
        if run.built.targets == "boxes":
            return answers(run, [path for place in images for path in images_given.files_in(place)], top, boxes)
        if not run.classes:
            what = "rebuilds its inputs" if run.built.targets == "inputs" else "learned real-valued targets"
            raise ExperimentError(
                f"The run in {out} {what} and knows no classes: ask it in Python, "
                f"experiments.load({str(out)!r}).predict(images).output."
            )
        return answers(run, [path for place in images for path in images_given.files_in(place)], top)

    found, failed = sentences(work)
    if found and isinstance(found[0][1], Boxes):
        show_boxes(found, json)
    elif json:
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


class Boxes(list):
    """What a detector finds in an image: (class, score, corners x1, y1, x2, y2 in its pixels), the surest first."""


def classes(run: "Loaded", paths: list[Path], top: int) -> list[Any]:
    """The best classes of each image."""
    return run.predict(paths).top(top)


def boxes(run: "Loaded", paths: list[Path], top: int) -> list[Any]:
    """The surest boxes of each image."""
    names = run.experiment.inputs["classes"]

    def told(found):
        rows = zip(found.labels[:top], found.scores[:top], found.boxes[:top], strict=True)
        return Boxes((names[label], float(score), [round(float(v), 1) for v in box]) for label, score, box in rows)

    return [told(found) for found in run.find(paths)]


def show_boxes(found: list[tuple[Path, Boxes]], json: bool) -> None:
    """A line of JSON for each image, or a row of a table for each box."""
    if json:
        for path, those in found:
            rows = [{"name": name, "score": score, "box": box} for name, score, box in those]
            print(writer.dumps({"image": str(path), "boxes": rows}))
        return
    shown = new_table(("image", "class", "score", "x1", "y1", "x2", "y2"))
    for path, those in found:
        for name, score, box in those or [("nothing", None, [])]:
            numbers = [f"{value:.1f}" for value in box] or [""] * 4
            shown.add_row(str(path), name, "" if score is None else f"{score:.4f}", *numbers)
    new_console().print(shown)


def answers(
    run: "Loaded", paths: list[Path], top: int, of: Callable[["Loaded", list[Path], int], list[Any]] = classes
) -> tuple[list[Any], list[str]]:
    """What a run makes of each image that can be read, and a sentence for each that cannot."""
    found: list[Any] = []
    failed: list[str] = []

    def ask(some: list[Path]) -> None:
        try:
            found.extend(zip(some, of(run, some, top), strict=True))
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
