"""Pictures of runs, from their logs and checkpoints.

    figure = draw("angles", [series.read(Path("runs/fa")), series.read(Path("runs/kp"))])
    save(figure, Path("angles.svg"))

Runs that differ only in their seed are one line: their mean, with a band from the lowest seed to the highest. Colours
are those that colour-blind readers can tell apart.
"""

import copy
import io
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from ...machine import files
from ...machine.files import write_whole
from ...showing.svg import COLOURS, STYLE, told
from ...showing.words import unknown
from ..runs import segments
from ..spec.experiment import ExperimentError
from . import detection, mosaics, series
from .axes import DARK, bars, dashes, group_name, legend, number_axis
from .dots import lacks_learned_errors, seeds
from .lacking import (  # fmt: skip
    error_name,
    freezing,
    lacks_auxiliary,
    lacks_boxes,
    lacks_errors,
    lacks_freeze,
    lacks_images,
    lacks_metrics,
    lacks_precision,
    lacks_reconstructions,
    test_split,
)
from .learning import MANY_SEEDS, MARKERS, TRAIN_ERROR, by_layer, learning
from .mosaics import Picture
from .series import Curve, Group, Run

CAPTION_LINE = 0.145  # inches
NAMED_PLACES = 6  # at most, on an axis


class Kind(NamedTuple):
    """A kind of picture."""

    title: str
    draw: Callable[..., Picture]  # (runs, data) -> Picture
    lacks: Callable[[Run], str | None]  # what to do about a run that cannot be drawn; None for one that can be


def draw(name: str, runs: Sequence[Run], data: Any = None) -> Picture:
    """The picture of that name, of FIGURES. data: images as `train` takes them, instead of the runs' own.

    Raises ExperimentError for an unknown picture and for a run that lacks what it shows, CheckpointError and DataError
    where it needs a checkpoint or images that cannot be read.
    """
    if name not in FIGURES:
        raise ExperimentError(unknown("figure", name, FIGURES))
    if not runs:
        raise ExperimentError("There is no run to draw: name the folder of at least one.")
    kind = FIGURES[name]
    for run in runs:
        if missing := kind.lacks(run):
            raise ExperimentError(f"The run {run.out} {missing}")
    kept, repeated = series.once(runs)
    with rc_context(STYLE):
        picture = kind.draw(kept, data)
    changed = [f"{run.out}: {words}." for run in kept if (words := segments.changes_told(run.segments))]
    told = changed + [run.damage for run in runs if run.damage]
    return picture._replace(caption=" ".join([picture.caption, *repeated, *told]))


def save(picture: Picture, out: Path) -> None:
    """Write a picture with its caption, as SVG or PNG after the file's ending. Raises ExperimentError."""
    check_ending(out)
    with rc_context(STYLE | {"svg.hashsalt": files.visible(out.name)}):
        figure = with_room_below(picture)
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if out.suffix == ".svg" else {}
        drawn = io.BytesIO()
        try:
            figure.savefig(drawn, format=out.suffix[1:], dpi=150, facecolor="white", metadata=metadata)
            whole = drawn.getvalue()
            write_whole(out, told(whole.decode()).encode() if metadata else whole)
        except OSError as error:
            raise ExperimentError(
                f"The picture {out} cannot be written ({error.strerror}): name another file."
            ) from error


def with_room_below(picture: Picture) -> Figure:
    """A copy of the figure that is higher, with the caption at its bottom."""
    figure = copy.deepcopy(picture.figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # everything keeps its place above the caption
    width, height = figure.get_size_inches()
    text = textwrap.wrap(picture.caption, int(width * 14.5))
    room = CAPTION_LINE * len(text) + 0.12
    whole = height + room
    for axes in figure.axes:
        box = axes.get_position(original=True)
        axes.set_position((box.x0, (box.y0 * height + room) / whole, box.width, box.height * height / whole))
    for names in figure.legends:
        names.set_bbox_to_anchor((0.0, room / whole, 1.0, height / whole), figure.transFigure)
    figure.set_size_inches(width, whole)
    figure.text(0.08 / width, (room - 0.02) / whole, files.visible("\n".join(text)), va="top", fontsize=8, color=DARK)
    return figure


def check_ending(out: Path) -> None:
    """Raise ExperimentError for a file that is neither .svg nor .png."""
    if out.suffix not in (".svg", ".png"):
        raise ExperimentError(f'The picture {out} ends in "{out.suffix}", expected .svg or .png: rename it.')


# Curves over training


def angles(runs: Sequence[Run], data: Any = None) -> Picture:
    """Angles between W and B, of target propagation between W and V, and between the error signals and
    backpropagation's (Akrout et al. 2019, fig. 4)."""
    titles = {"matrix_angles": "angle between W and {weights}", "delta_angles": "angle to backpropagation's deltas"}
    names = [name for name in titles if any(series.measured(run, name) for run in runs)]
    figure, panels = by_layer(runs, names, titles)
    drawn = [float(np.max(np.asarray(line.get_ydata()))) for axes in panels for line in axes.get_lines()]
    top = max([95.0, *(1.03 * highest for highest in drawn)])
    for axes in panels:
        axes.axhline(90.0, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.set_ylim(0.0, top)
        axes.set_yticks([degrees for degrees in range(0, 181, 30) if degrees <= top])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda degrees, _: f"{degrees:g}°"))
    return Picture(figure, f"90° is chance, 0° is backpropagation; the last layer's deltas are the same. {MANY_SEEDS}")


def sign_changes(runs: Sequence[Run], data: Any = None) -> Picture:
    """The share of weights whose sign is not the one they began with (Moskovitz et al. 2018, fig. 5)."""
    figure, panels = by_layer(runs, ["sign_changes"], {"sign_changes": "weights of another sign than at the start"})
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0.0, top)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    return Picture(figure, MANY_SEEDS)


def gradient_ratio(runs: Sequence[Run], data: Any = None) -> Picture:
    """How much larger backpropagation's gradient is, by depth (Moskovitz et al. 2018, eq. 8 and fig. 2)."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(1.0, color="#bbbbbb", linewidth=0.8, zorder=0)
    groups = series.grouped(runs)
    for i, group in enumerate(groups):
        look = {"colour": COLOURS[i % len(COLOURS)], "marker": MARKERS[1:][i // len(COLOURS) % 4]}
        for dash, which in ((":", 0), ("-", -1)):
            found = ratios_by_depth(group, which)
            bars(axes, found, dash, f"{group.label}, {'first' if which == 0 else 'last'}", **look)
    number_axis(axes)
    axes.set_xlabel("layer, from the input up")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("||gradient of backpropagation|| / ||update signal||", loc="left", fontsize=10, color=DARK)
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[1:][i // len(COLOURS) % 4], ms=4,
               label=group_name(group)) for i, group in enumerate(groups)
    ]  # fmt: skip
    legend(figure, handles + dashes({"first evaluation": ":", "last evaluation": "-"}))
    return Picture(figure, "Both gradients are of the same weights and batch. Means over the runs that differ only in "
                   "their seed; the bars reach from the lowest seed to the highest.")  # fmt: skip


def ratios_by_depth(group: Group, which: int) -> Curve:
    """Ratios by layer in every run's first (0) or last (-1) record that has them."""
    by_run = [[r["gradient_ratios"] for r in run.records if r.get("gradient_ratios")][which] for run in group.runs]
    known = [l for l in by_run[0] if all(ratios.get(l) is not None for ratios in by_run)]
    known.sort(key=int)
    return series.summary([int(l) for l in known], [[ratios[l] for ratios in by_run] for l in known])


# Final errors


def auxiliary_size(runs: Sequence[Run], data: Any = None) -> Picture:
    """Final errors against the number of auxiliary units (Bartunov et al. 2018, fig. 4)."""
    path = "model_options.auxiliary"
    return final_errors(
        runs, [path], lambda run: run.experiment.model_options["auxiliary"], "auxiliary units", integer=True
    )


def frozen(runs: Sequence[Run], data: Any = None) -> Picture:
    """Final errors against the epoch from which on no weight changes its sign (Moskovitz et al. 2018, sec. 4)."""
    paths = ["modifications.fixed-signs.start_share", "modifications.fixed-signs.start"]
    if len({run.experiment.epochs for run in runs}) == 1:
        paths.append("epochs")  # which only those with a share are told apart by
    return final_errors(runs, paths, freezing_epoch, "epoch from which on signs are fixed")


def freezing_epoch(run: Run) -> float:
    """When a run's signs are fixed."""
    options = freezing(run)
    if "start_share" in run.experiment.modifications.get("fixed-signs", {}):
        return options["start_share"] * run.experiment.epochs
    length = series.epoch_length(run)
    assert length is not None  # lacks_freeze has asked
    return options["start"] / length


def final_errors(
    runs: Sequence[Run], paths: Sequence[str], place: Callable[[Run], float], axis: str, integer: bool = False
) -> Picture:
    """Errors at the last evaluation, train dashed and test solid, against a number of each run."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    groups, test = series.grouped(runs, paths), test_split(runs[0])
    quantity = "error" if all(error_name(run) for run in runs) else "loss"
    for i, group in enumerate(groups):
        x = sorted({place(run) for run in group.runs})
        for split, dash in (("train", "--"), (test, "-")):
            name = f"{split}_{quantity}"
            found = {at: [series.last(run, name) for run in group.runs if place(run) == at] for at in x}
            known = {at: [v for v in values if v is not None] for at, values in found.items()}
            drawn = [at for at in x if known[at]]
            bars(
                axes, series.summary(drawn, [known[at] for at in drawn]), dash, f"{group.label}, {split}",
                COLOURS[i % len(COLOURS)], "o",
            )  # fmt: skip
    unit = " in %" if quantity == "error" else ""
    axes.set_title(f"final {quantity}{unit}", loc="left", fontsize=10, color=DARK)
    axes.set_ylim(bottom=0.0, top=1.05 * axes.get_ylim()[1])
    axes.set_xlabel(axis)
    places = sorted({place(run) for run in runs})
    few = FixedLocator(places) if len(places) <= NAMED_PLACES else MaxNLocator(integer=integer)
    axes.xaxis.set_major_locator(few)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:.4g}"))
    handles = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=g.label) for i, g in enumerate(groups)]
    handles += dashes({"train": "--", test: "-"})
    legend(figure, handles)
    epochs = sorted({run.records[-1]["epoch"] for run in runs})
    reached = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    return Picture(figure, f"After {reached} epochs. {TRAIN_ERROR.format(test=test)} Means over the runs "
                   "that differ only in their seed; the bars reach from the lowest seed to the highest.")  # fmt: skip


FIGURES = {
    "learning": Kind("Learning curves", learning, lacks_errors),
    "angles": Kind("Angles", angles, partial(lacks_metrics, ("matrix_angles", "delta_angles"))),
    "gradient-ratio": Kind("Gradients by depth", gradient_ratio, partial(lacks_metrics, ("gradient_ratios",))),
    "sign-changes": Kind("Sign changes", sign_changes, partial(lacks_metrics, ("sign_changes",))),
    "receptive-fields": Kind("First-layer weights", mosaics.receptive_fields, lacks_images),
    "reconstructions": Kind("Reconstructions", mosaics.reconstructions, lacks_reconstructions),
    "precision": Kind("Average precision", detection.precision, lacks_precision),
    "boxes": Kind("Boxes", detection.boxes, lacks_boxes),
    "auxiliary-size": Kind("Number of auxiliary units", auxiliary_size, lacks_auxiliary),
    "frozen": Kind("Signs fixed from an epoch on", frozen, lacks_freeze),
    "seeds": Kind("Seeds", seeds, lacks_learned_errors),
}
