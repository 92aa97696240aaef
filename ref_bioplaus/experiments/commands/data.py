"""The command `data`. Libraries are imported when a command needs them.

Exit codes: 0 done · 2 not understood, or cannot be done as asked.
"""

from os.path import exists
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ...showing.terminal import new_console, new_table, say
from ..spec.experiment import OWN, Experiment, ExperimentError
from .train import Config, ImageColumn, LabelColumn, TestSplit, TrainSplit, given, sentences

BAR = 30  # characters of the longest bar
SHOWN = 20  # classes, outputs or channels that get a row
COLUMNS, SIDE = 8, 14  # images side by side in a terminal, and their width in characters


def data(
    name: Annotated[
        str,
        typer.Argument(
            help='A folder or an .npz, as --data takes it, a name of the hub, "embedded", or as "my_data.py:data".'
        ),
    ],
    config: Config = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    train_split: TrainSplit = None,
    test_split: TestSplit = None,
    held_out: Annotated[int, typer.Option(help="Training samples kept for validation.")] = 0,
    augmentation: Annotated[str, typer.Option(help="How images of several sizes are made equal.")] = "none",
    out: Annotated[Path | None, typer.Option(help="A file for the first images, ending in .png or .svg.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON instead.")] = False,
) -> None:
    """What the program understands of data before it learns: splits, classes, brightness, and what is odd."""
    layout = given(
        {"image_column": image_column, "label_column": label_column, "train_split": train_split,
         "test_split": test_split}
    )  # fmt: skip

    def look():
        from ..figures import curves, looking
        from ..spec.checking import check_dataset

        dataset, place = (OWN, name) if exists(name) else (name, None)
        experiment = Experiment(
            dataset=dataset, data=place, config=config, layout=layout, held_out=held_out, augmentation=augmentation
        )
        check_dataset(experiment)
        if out is not None:
            curves.check_ending(out)
        found, before = looking.loaded(experiment)
        try:
            described = looking.described(found, before)
            if out is not None and described["kind"] != "images":
                raise ExperimentError(
                    f"The samples of {name} are vectors, of which there is no picture: leave out --out."
                )
            if out is not None:
                curves.save(looking.picture(found), out)
            images = looking.first_images(found) if described["kind"] == "images" else None
        finally:
            found.close()
        return described, images

    described, images = sentences(look)
    if json:
        import json as form

        print(form.dumps(described))
        return
    console = new_console()
    show(console, described)
    if images is not None and console.is_terminal and console.color_system:
        console.print(blocks(images, console.width))
    if out is not None:
        say(console, f"The first images are in {out}.")


def show(console: Console, found: dict[str, Any]) -> None:
    """Print what was found, and what is odd last."""
    say(console, heading(found))
    train = found["splits"]["train"]
    if found["targets"] == "classes":
        console.print(balance(found))
    if found["targets"] == "values":
        rows = [
            (str(i), *(f"{one[name]:.4g}" for name in ("mean", "deviation", "low", "high")))
            for i, one in enumerate(train["outputs"][:SHOWN])
        ]
        console.print(new_table(("output", "mean", "deviation", "low", "high"), rows))
    unit = "unit" if found["kind"] == "vectors" else "channel"
    rows = [
        (str(i), *(f"{one[name]:.4f}" if found["scale"] == "pixels" else f"{one[name]:.4g}" for name in one))
        for i, one in enumerate(found["channels"][:SHOWN])
    ]
    console.print(new_table((unit, "mean", "deviation"), rows))
    if len(found["channels"]) > SHOWN:
        say(console, f"and {len(found['channels']) - SHOWN:,} {unit}s more.")
    for sentence in found["odd"]:
        say(console, f"Odd: {sentence}", "yellow")
    if not found["odd"]:
        say(console, "Nothing is odd.")


def heading(found: dict[str, Any]) -> str:
    """What it is, in a sentence."""
    counts = [f"{one['samples']:,} {name}" for name, one in found["splits"].items()]
    many = f"{', '.join(counts[:-1])} and {counts[-1]}" if len(counts) > 1 else counts[0]
    form = " x ".join(map(str, found["shape"])) + (" numbers" if found["kind"] == "vectors" else "")
    numbers = "brightness in uint8" if found["scale"] == "pixels" else "numbers as they are"
    targets = {
        "classes": f"{len(found['splits']['train'].get('classes', ())):,} classes",
        "values": f"{found['outputs']} real-valued targets",
        "inputs": "no targets but the inputs",
    }[found["targets"]]
    where = {"streams": ", decoded as they are needed", "on disk": ", taken as they are needed"}.get(found["where"], "")
    recognised = found["recognised"]
    known = f", known as {recognised}" if recognised not in (None, found["name"]) else ""
    return f"{found['name']}{known}: {many} {found['kind']} of {form}, {numbers}{where}; {targets}."


def balance(found: dict[str, Any]) -> Any:
    """A table of classes, with their numbers of samples and a bar for those of training."""
    splits = found["splits"]
    names = list(splits["train"]["classes"])
    most = max(splits["train"]["classes"].values())
    rows = [
        (name, "█" * max(round(BAR * splits["train"]["classes"][name] / most), 0),
         *(f"{one['classes'][name]:,}" for one in splits.values()))
        for name in names[:SHOWN]
    ]  # fmt: skip
    if len(names) > SHOWN:
        rest = names[SHOWN:]
        rows.append((f"{len(rest):,} more", "", *(f"{sum(s['classes'][n] for n in rest):,}" for s in splits.values())))
    table = new_table(("class", "", *splits), rows)
    for column in table.columns[2:]:
        column.justify = "right"
    return table


def blocks(images: Any, width: int) -> Text:
    """Images (n, height, width, channels) from 0 to 1 in half blocks, each two pixels high, for a terminal."""
    import numpy as np

    columns = max(1, min(COLUMNS, len(images), width // (SIDE + 1)))
    height, wide = images.shape[1:3]
    across = min(SIDE, wide)
    down = max(2, 2 * round(across * height / wide / 2))
    y, x = (np.arange(n) * size // n for n, size in ((down, height), (across, wide)))
    small = np.round(255 * np.clip(images[:columns][:, y][:, :, x], 0, 1)).astype(int)
    small = np.broadcast_to(small, (*small.shape[:3], 3))
    text = Text()
    for row in range(0, down, 2):
        for image in small:
            for column in range(across):
                upper, lower = ("#{:02x}{:02x}{:02x}".format(*image[row + i, column]) for i in (0, 1))
                text.append("▀", f"{upper} on {lower}")
            text.append(" ")
        text.append("\n")
    return text
