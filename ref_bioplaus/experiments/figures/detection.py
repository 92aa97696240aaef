"""What a detector finds: average precision over training, and its boxes in images beside those to be found."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ...machine.files import visible
from ...showing.svg import SKY, VERMILION
from ..boxes.dataset import BoxSplit
from ..boxes.detections import Found
from ..boxes.precision import Truth
from ..boxes.seen import Seen
from ..training import measuring, opening
from . import mosaics, series
from .axes import DARK, band, dashes, group_name, legend, number_axis, time_axis
from .learning import MANY_SEEDS, look
from .mosaics import TITLE, Picture
from .series import Run

SHOWN = 4  # images of a run
SURE = 0.3  # the score of a box that is drawn
SIDE = 2.6  # inches of an image


class Scene(NamedTuple):
    """An image, what is to be found in it and what is found, in its pixels."""

    pixels: np.ndarray  # uint8 (height, width, 3)
    truth: Truth
    found: Found


def precision(runs: Sequence[Run], data: Any = None) -> Picture:
    """Average precision of the test images' boxes over training, and the losses beside it."""
    over, groups = series.unit(runs), series.grouped(runs)
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    panels = {
        "average precision": {"test_AP": "--", "test_AP50": "-"},
        "loss": {"train_loss": "--", "test_loss": "-"},
    }
    both = figure.subplots(1, 2)
    for axes, (title, lines) in zip(both, panels.items(), strict=True):
        for i, group in enumerate(groups):
            for name, dash in lines.items():
                words = f"{group.label}, {name.replace('_', ' ')}"
                found = series.curve(group, name, over=over)
                band(axes, found, dash, words, **look(i), thin=dash == "--", subject=i)
        time_axis(axes, over, 6)
        axes.set_title(title, loc="left", fontsize=10, color=DARK)
    both[0].set_ylim(0.0, 1.0)
    number_axis(both[1])
    handles = [Line2D([], [], **look(i), ms=4, label=group_name(group)) for i, group in enumerate(groups)]
    legend(figure, handles + dashes({"AP, train loss": "--", "AP50, test loss": "-"}))
    return Picture(figure, "AP is the mean over overlaps of .50 to .95, AP50 that of .50, of the test images' boxes. "
                   f"Train loss: the batches of the epoch as they were met. {MANY_SEEDS}")  # fmt: skip


def boxes(runs: Sequence[Run], data: Any = None) -> Picture:
    """The boxes that each run finds in the first images not learned from, or where all are, in the first ones.

    data: images with boxes as `train` takes them, instead of the runs' own. Raises CheckpointError, ExperimentError and
    DataError.
    """
    labels = mosaics.names(runs)
    rows = [(labels[run.out], *scenes(run, data)) for run in runs]
    across = max(len(found) for _, found, _ in rows)
    figure = Figure(figsize=(SIDE * across + 0.2, (SIDE + 0.3) * len(rows) + 0.1), layout="constrained")
    for row, (name, found, classes) in zip(figure.subplots(len(rows), across, squeeze=False), rows, strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, scene in zip(row, found, strict=False):
            draw(axes, scene, classes)
        row[0].set_title(name, **TITLE)
    handles = [
        Line2D([], [], color=SKY, linestyle="--", label="to be found"),
        Line2D([], [], color=VERMILION, label="found, with its score"),
    ]
    legend(figure, handles)
    return Picture(figure, f"What the newest checkpoint finds with a score of {SURE:g} or more. Boxes to be found that "
                   "are dotted are ignored in learning and measuring.")  # fmt: skip


def scenes(run: Run, data: Any) -> tuple[list[Scene], tuple[str, ...]]:
    """The first images of a run's last split with what it finds in them, and the names of its classes."""
    experiment, backend, data, built, state = mosaics.by_numpy(run, data)
    split = ("train", *opening.measured_splits(experiment, data))[-1]
    measure, seen, images = measuring.measuring(built), Seen(data, split), data.split(split)
    for batch in opening.ordered(data, split, backend, experiment, built):
        rest = SHOWN - len(seen.found)
        _, output = measure(state.forward.params, state.stats, batch.x[:rest, ...], batch.y[:rest, ...])
        seen.add(backend.to_numpy(output))
        if len(seen.found) == SHOWN:
            break
    return [scene(images, row, found) for row, found in enumerate(seen.found)], data.classes


def scene(images: BoxSplit, row: int, found: Found) -> Scene:
    """An image of a split with what was found in pixels of its file."""
    width, height = images.sizes[row]
    sure = found.scores >= SURE
    kept = Found(found.boxes[sure], found.labels[sure], found.scores[sure])
    return Scene(images.pixels[row][:height, :width], images.truths[row], kept.scaled(float(images.scales[row])))


def draw(axes: Axes, scene: Scene, classes: Sequence[str]) -> None:
    """An image with its boxes."""
    axes.imshow(scene.pixels, interpolation="nearest")
    for box, label, ignored in zip(*scene.truth, strict=True):
        outline(axes, box, SKY, ":" if ignored else "--")
        axes.text(box[0], box[3], visible(classes[label]), color=SKY, fontsize=6, va="top", clip_on=True)
    for box, label, score in zip(*scene.found, strict=True):
        outline(axes, box, VERMILION, "-")
        words = f"{visible(classes[label])} {score:.2f}"
        axes.text(box[0], box[1], words, color=VERMILION, fontsize=6, va="bottom", clip_on=True)


def outline(axes: Axes, box: np.ndarray, colour: str, dash: str) -> None:
    """The outline of a box of corners, (4,)."""
    x, y, right, below = (float(v) for v in box)
    axes.add_patch(Rectangle((x, y), right - x, below - y, fill=False, edgecolor=colour, linestyle=dash, linewidth=1.2))
