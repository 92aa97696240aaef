"""Pictures made of images: first-layer weights, and what an autoencoder makes of its inputs."""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ...backends import Backend
from ...network import forward
from ...showing.svg import STYLE
from ...types import State
from ..runs import checkpoints
from ..spec.building import Built, first_state
from ..spec.experiment import Experiment, ExperimentError
from ..training import opening
from ..training.reporter import Reporter
from .series import Run, grouped

WEIGHTS = re.compile(r"forward/params/(\d+)/W")
FIELDS, FIELDS_WIDE = 64, 8
PANEL, TITLE_LINE = 3.4, 0.2  # inches
ACROSS = 3  # panels side by side
TITLE_WIDTH = 38  # letters, as many as a panel has room for
REBUILT = 10  # images
TITLE = {"loc": "left", "fontsize": 10, "color": STYLE["axes.labelcolor"]}


class Picture(NamedTuple):
    """A figure, and what it shows."""

    figure: Figure
    caption: str


def receptive_fields(runs: Sequence[Run], data: Any = None) -> Picture:
    """The weights into the first units of the first layer, each unit on a scale of its own.

    data: tells the images' shape; without it the run does. Those of an older run are taken for square, or else read
    from its dataset. Raises CheckpointError, ExperimentError and DataError.
    """
    panels = []
    for run in runs:
        checkpoint = checkpoints.latest(run.out)
        pixels = fields(run, first_weights(checkpoint.tensors), data)
        tiles = np.stack([scaled(field) for field in pixels[:FIELDS]])
        counted = f"epoch {checkpoint.header['epoch']}, {len(tiles)} of {len(pixels)} units"
        panels.append((mosaic(tiles, FIELDS_WIDE), tiles.shape[-1] == 1, counted))
    labels = names(runs)
    titles = [textwrap.wrap(labels[run.out], TITLE_WIDTH) for run in runs]
    across = min(ACROSS, len(runs))
    down = -(-len(runs) // across)
    highest = PANEL * min(1.0, max(whole.shape[0] / whole.shape[1] for whole, _, _ in panels))
    height = highest + TITLE_LINE * (max(map(len, titles)) + 1) + 0.1
    figure = Figure(figsize=(PANEL * across + 0.2, height * down), layout="constrained")
    every = figure.subplots(down, across, squeeze=False).ravel()
    for axes in every[len(runs) :]:
        axes.set_axis_off()
    for axes, (whole, grey, counted), title in zip(every, panels, titles, strict=False):
        axes.imshow(whole, cmap="PuOr" if grey else None, vmin=-1.0, vmax=1.0, interpolation="nearest")
        axes.set_title("\n".join([*title, counted]), **TITLE)
        axes.set_anchor("NW")  # the title has the panel's whole width
        axes.set_axis_off()
    return Picture(
        figure,
        "Weights from the input to units of the first layer, of the newest checkpoint, each unit scaled by its largest "
        "weight. Of grey images: white is 0, purple excites, orange inhibits; of colour images: grey is 0.",
    )


def first_weights(tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Those of the lowest layer that has any: below it there may be one that flattens or normalises the image."""
    layers = {int(found[1]): name for name in tensors if (found := WEIGHTS.fullmatch(name))}
    return tensors[layers[min(layers)]]


def fields(run: Run, W: np.ndarray, data: Any) -> np.ndarray:
    """First-layer weights as images (units, height, width, channels); of a locally connected layer those of the middle
    position."""
    if W.ndim == 2:  # dense: (units, pixels)
        return W.reshape(len(W), *image_shape(run, W.shape[1], data))
    if W.shape[2] <= 3:  # convolution: (height, width, channels, units)
        return np.moveaxis(W, 3, 0)
    middle = W[W.shape[0] // 2, W.shape[1] // 2]  # locally connected: (rows, columns, pixels x channels, units)
    shape = square(len(middle))
    if shape is None:
        raise ExperimentError(f"The run {run.out} has first-layer kernels that are not square, which are not drawn.")
    return np.moveaxis(middle.reshape(*shape, -1), 3, 0)


def image_shape(run: Run, pixels: int, data: Any) -> tuple[int, ...]:
    """(height, width, channels) of inputs of so many numbers."""
    if data is not None:
        return tuple(data.in_shape)
    shape = tuple(run.experiment.inputs.get("shape", ()))
    if math.prod(shape) == pixels:
        return shape
    return square(pixels) or tuple(opening.load_data(run.experiment, Reporter()).in_shape)


def square(pixels: int) -> tuple[int, int, int] | None:
    """The shape of a square grey or colour image of so many numbers; None where there is none."""
    for channels in (1, 3):
        side = math.isqrt(pixels // channels)
        if side * side * channels == pixels:
            return side, side, channels
    return None


def scaled(field: np.ndarray) -> np.ndarray:
    """From -1 to 1, 0 where it was; a colour image from 0 to 1, with 0 at a half."""
    found = field / max(float(np.max(np.abs(field))), np.finfo(np.float32).tiny)
    return found if field.shape[-1] == 1 else 0.5 + 0.5 * found


def mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Images (n, height, width, channels) in rows of so many, one pixel apart, as imshow takes them."""
    n, height, width, channels = tiles.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    whole = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), np.nan, dtype=np.float32)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        whole[top : top + height, left : left + width] = tile
    return whole[..., 0] if channels == 1 else np.nan_to_num(whole, nan=1.0)


def reconstructions(runs: Sequence[Run], data: Any = None) -> Picture:
    """Images not learned from and, below each, each autoencoder's output (Bartunov et al. 2018, app. 5.5).

    data: images as `train` takes them, instead of the runs' own. Raises CheckpointError, ExperimentError and DataError.
    """
    labels = names(runs)
    rows: list[tuple[str, np.ndarray]] = []
    for run in runs:
        inputs, outputs = rebuilt(run, data)
        if not any(title == "input" and np.array_equal(inputs, images) for title, images in rows):
            rows.append(("input", inputs))
        rows.append((labels[run.out], outputs))
    figure = Figure(figsize=(7.2, 0.95 * len(rows) + 0.1), layout="constrained")
    low, high = float(rows[0][1].min()), float(rows[0][1].max())
    for axes, (title, images) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        tiles = mosaic(np.clip((images - low) / (high - low), 0.0, 1.0), REBUILT)
        axes.imshow(tiles, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        axes.set_title(title, **TITLE)
        axes.set_axis_off()
    return Picture(figure, "The first test images, or those held out, and what the newest checkpoint makes of them.")


def rebuilt(run: Run, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first images not learned from and the network's outputs, both (n, height, width, channels)."""
    experiment, backend, data, built, state = by_numpy(run, data)
    split = ("train", *opening.measured_splits(experiment, data))[-1]
    x = next(opening.ordered(data, split, backend, experiment, built)).x[:REBUILT]
    trace, _ = forward(built.network, state.forward.params, state.stats, x, train=False)
    shape = (len(x), *data.in_shape)
    outputs = backend.to_numpy(built.loss.output(trace.h[-1]))
    return backend.to_numpy(x).reshape(shape), outputs.reshape(shape)


def by_numpy(run: Run, data: Any) -> tuple[Experiment, Backend, Any, Built, State]:
    """A run's newest checkpoint on NumPy, whatever it learned on, with its data or that given."""
    dtype = "float32" if run.experiment.dtype == "bfloat16" else run.experiment.dtype
    experiment = replace(run.experiment, backend="numpy", device=None, dtype=dtype, precision="ieee")
    experiment, backend, data, _, built = opening.opened(experiment, data, Reporter(), f"The run in {run.out}")
    checkpoint = checkpoints.latest(run.out)
    state = checkpoints.state_of(backend, checkpoint, first_state(experiment, built, backend))
    return experiment, backend, data, built, state


def names(runs: Sequence[Run]) -> dict[Any, str]:
    """Every run's label by its folder, with the seed where several runs have the same one."""
    found = {}
    for group in grouped(runs):
        for run in group.runs:
            seed = f", seed {run.experiment.seed}" if len(group.runs) > 1 else ""
            found[run.out] = f"{group.label}{seed}"
    return found
