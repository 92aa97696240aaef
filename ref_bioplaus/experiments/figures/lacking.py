"""What a run must have recorded before a picture can show it, and which of its numbers are shown.

Each `lacks_...` returns what to do about a run that cannot be drawn, a sentence without its subject, or None.
"""

from collections.abc import Sequence
from typing import Any

from ...registry.rows import BACKPROP
from ..runs import checkpoints
from ..spec.checking import told
from ..spec.experiment import METRICS
from ..spec.names import shown_row
from . import series
from .series import Run

NO_DETECTOR = "finds no boxes: draw a run of a detector, as lin2017/retinanet-resnet18."


def lacks_errors(run: Run) -> str | None:
    """For `learning`."""
    if test_name(run) or series.measured(run, "train_loss"):
        return None
    return "has measured no error yet: wait for the end of its first epoch."


def lacks_metrics(names: Sequence[str], run: Run) -> str | None:
    """For pictures of metrics per layer, of which one is enough."""
    if any(series.measured(run, name) for name in names):
        return None
    wanted = " and ".join(names)
    if run.experiment.algorithm == BACKPROP.name and "sign_changes" not in names:
        return f"is backpropagation, against which {wanted} are measured: leave it out."
    if set(names) & set(run.experiment.metrics):
        return f"has no {wanted}, which its algorithm or its log so far does not have: leave it out."
    asked = ", ".join(f'"{name}"' for name in METRICS)
    return f"has no {wanted}: train again with --set 'metrics=[{asked}]' to record them."


def lacks_checkpoint(run: Run) -> str | None:
    """For pictures of weights."""
    return None if checkpoints.found(run.out) else "has no checkpoint: continue it with `ref-bioplaus resume`."


def lacks_images(run: Run) -> str | None:
    """For pictures made of images."""
    shape = run.experiment.inputs.get("shape", (1, 1, 1))
    if len(shape) != 3 or shape[2] not in (1, 3):
        what = "vectors" if len(shape) != 3 else f"images of {shape[2]} channels"
        return f"learned from {what}, which are not drawn: leave it out."
    return lacks_checkpoint(run)


def lacks_reconstructions(run: Run) -> str | None:
    """For `reconstructions`."""
    if "autoencoder" not in run.experiment.model and told(run.experiment.inputs)[0] != "inputs":
        return f'learned "{run.experiment.model}", which is no autoencoder: draw a run of bartunov2018/autoencoder.'
    return lacks_images(run)


def lacks_precision(run: Run) -> str | None:
    """For `precision`."""
    if not run.experiment.boxes:
        return NO_DETECTOR
    return None if series.measured(run, "test_AP") else "has measured no test images, so it has no precision."


def lacks_boxes(run: Run) -> str | None:
    """For `boxes`."""
    return lacks_checkpoint(run) if run.experiment.boxes else NO_DETECTOR


def lacks_auxiliary(run: Run) -> str | None:
    """For `auxiliary-size`."""
    if "auxiliary" not in run.experiment.model_options:
        return (
            f'learned by "{run.experiment.algorithm}", which has no auxiliary units: train ao-sdtp with several '
            "numbers of them, as --set model_options.auxiliary=256."
        )
    return None if final_name(run) else lacks_errors(run) or "has no final error yet: wait for its first epoch."


def lacks_freeze(run: Run) -> str | None:
    """For `frozen`."""
    options = freezing(run)
    if not options:
        return "fixes no signs: train it with --set modifications.fixed-signs.start_share=0.2, and other shares."
    if "start_share" not in options and not series.epoch_length(run):
        return "fixes its signs at an update whose epoch its log does not tell: let it end with a whole epoch."
    return None if final_name(run) else "has no final error yet: wait for the end of its first epoch."


def freezing(run: Run) -> dict[str, Any]:
    """The options of fixed-signs, {} where it has none."""
    own = dict(shown_row(run.experiment.algorithm).wrappers).get("fixed-signs", {})
    return dict(own) | run.experiment.modifications.get("fixed-signs", {})


# Which numbers a run has


def test_split(run: Run) -> str:
    """The images that errors are shown of: the test images, or those held out where the former are not measured."""
    return "test" if series.measured(run, "test_loss") else "validation"


def error_name(run: Run) -> str | None:
    """The record's number that has the error of images not learned from."""
    name = f"{test_split(run)}_error"
    return name if series.measured(run, name) else None


def test_name(run: Run) -> str | None:
    """The error of images not learned from, or where there is none their loss."""
    name = f"{test_split(run)}_loss"
    return error_name(run) or (name if series.measured(run, name) else None)


def final_name(run: Run) -> str | None:
    """The error after learning."""
    return test_name(run) if run.records[-1]["step"] else None
