"""A trained run in hand: what it makes of images, how well it does, and what it has learned.

    run = experiments.load("runs/kp")                       # or checkpoint="best", backend="torch"
    run.predict(images).labels                              # uint8 images, as they are in their files
    run.evaluate()["test_error"]

Nothing of it is written anywhere, and the data that the run learned from is needed for `evaluate` alone: a checkpoint
says what its network's inputs are and what they are normalised by.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...backends import Backend
from ...machine import environment
from ...network import Network, forward
from ...types import State
from ..boxes import dataset as boxed
from ..boxes.detections import Found
from ..boxes.seen import Seen
from ..data import left_out
from ..runs import checkpoints, headers, logs, segments, weights
from ..runs.folder import check_unedited
from ..spec.building import Built, first_state
from ..spec.checking import checked
from ..spec.experiment import Experiment, ExperimentError, changed, plain
from ..spec.names import AUGMENTATION, is_own
from . import given, measuring, opening
from .opening import Opened, measured_splits, ordered
from .reporter import Reporter


class Prediction(NamedTuple):
    """What a run makes of N images. Where it learned no classes there are none to ask for: ExperimentError."""

    output: np.ndarray  # (N, classes): a distribution where the loss is a cross-entropy; of real-valued targets
    # (N, outputs), of an autoencoder (N, *shape)
    classes: tuple[str, ...]  # () where none are learned

    @property
    def labels(self) -> np.ndarray:
        """The number of each image's class, int64 (N,): the first of those with the largest output."""
        self.check_classes()
        return np.argmax(np.where(np.isnan(self.output), -np.inf, self.output), axis=-1)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each image's class."""
        return tuple(self.classes[label] for label in self.labels)

    def top(self, count: int = 5) -> list[list[tuple[str, float]]]:
        """Of each image the `count` classes with the largest outputs, largest first, and these."""
        self.check_classes()
        order = np.argsort(np.where(np.isnan(self.output), np.inf, -self.output), axis=-1, kind="stable")[:, :count]
        return [[(self.classes[i], float(row[i])) for i in best] for row, best in zip(self.output, order, strict=True)]

    def check_classes(self) -> None:
        """Raise ExperimentError where none are learned."""
        if not self.classes:
            raise ExperimentError("The run learned no classes, so its answers have none: ask for .output.")


class Loaded:
    """A run's checkpoint on a backend."""

    def __init__(self, out: Path, checkpoint: checkpoints.Checkpoint, opened: Opened):
        """Raises CheckpointError where the checkpoint does not fit."""
        self.out, self.experiment, self.backend, self.data = out, opened.experiment, opened.backend, opened.data
        self.built, self.header, self.checkpoint = opened.built, checkpoint.header, checkpoint.path.name
        headers.check_fit(checkpoint, opened.built.network, opened.shape.steps)
        self.state = checkpoints.state_of(
            self.backend, checkpoint, first_state(self.experiment, self.built, self.backend)
        )
        self.measure = self.backend.wrap(measuring.measuring(self.built))
        self.answer = self.backend.wrap(answering(self.built, opened.shape.classes))

    experiment: Experiment
    backend: Backend
    built: Built
    state: State

    def __repr__(self) -> str:
        e = self.experiment
        return (
            f'<{e.algorithm} on "{e.model}", epoch {self.header["epoch"]}, {self.out / self.checkpoint}, {e.backend}>'
        )

    @property
    def network(self) -> Network:
        """What it learned in."""
        return self.built.network

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, in the order of the outputs; () where none are learned."""
        return tuple(self.experiment.inputs["classes"]) if self.built.targets == "classes" else ()

    @property
    def history(self) -> list[dict[str, Any]]:
        """A flat row for each evaluation, as pandas.DataFrame takes it: "matrix_angles.2" is layer 2's. Raises
        ExperimentError for a log that is not understood."""
        return [flat(record) for record in logs.records(self.out)]

    @np.errstate(all="ignore")
    def predict(self, images: Any) -> Prediction:
        """What the run makes of one or several images, as its data set gives them (see given.py): it resizes or
        crops and normalises them as its own in a test. Raises DataError, and ExperimentError where the run does not say
        what it was normalised by."""
        if self.built.targets == "boxes":
            raise ExperimentError(f"The run in {self.out} finds boxes: ask for .find(images).")
        inputs = plain(self.experiment.inputs)
        lacking = [name for name in ("mean", "deviation") if name not in inputs]
        if lacking:
            raise ExperimentError(
                f"The run in {self.out} learned from data that did not say what images were normalised by, so they "
                f"cannot be here: load it with inputs = {{mean = [...], deviation = [...]}}, a number per channel."
            )
        own = is_own(AUGMENTATION, self.experiment.augmentation)  # which is for training alone
        data = given.dataset(images, inputs, "none" if own else self.experiment.augmentation)
        batch, params, stats = self.experiment.batch, self.state.forward.params, self.state.stats
        batches = data.batches("test", self.backend, batch, 0, 0, shuffle=False, flatten=self.built.flat)
        with environment.deterministic(self.backend):
            outputs = [self.backend.to_numpy(self.answer(params, stats, batch.x)) for batch in batches]
        output = np.concatenate(outputs)
        rebuilds = self.built.targets == "inputs"
        return Prediction(output.reshape(-1, *inputs["shape"]) if rebuilds else output, self.classes)

    @np.errstate(all="ignore")
    def find(self, images: Any) -> list[Found]:
        """Of a detector what it finds in each of one or several images, as `predict` takes them, of any size: boxes in
        pixels of the image, the numbers of their classes, and scores, the surest first. Raises DataError, and
        ExperimentError where the run finds no boxes."""
        if self.built.targets != "boxes":
            raise ExperimentError(f"The run in {self.out} finds no boxes: ask for .predict(images).")
        e, asked = self.experiment, plain(self.experiment.boxes)
        pictures = given.pictures(images)
        data = boxed.of_images(pictures, tuple(e.inputs["classes"]), asked["side"], asked["smallest"])
        seen = Seen(data, "test")
        with environment.deterministic(self.backend):
            for batch in data.batches("test", self.backend, e.batch, 0, 0, shuffle=False):
                _, output = self.measure(self.state.forward.params, self.state.stats, batch.x, batch.y)
                seen.add(self.backend.to_numpy(output))
        return seen.found

    def evaluate(self, images: Any = None) -> dict[str, Any]:
        """The loss and errors on every split of the run's own data, or of `images`, as `train` takes them, normalised
        as the run's own.

        Raises DataError and ExperimentError.
        """
        run = f"The run in {self.out}"
        data = self.data if images is None else opening.normalised(self.experiment, images)
        data = opening.load_data(self.experiment, Reporter()) if data is None else data
        experiment = opening.settled(self.experiment, data, run)
        record: dict[str, Any] = {
            "checkpoint": self.checkpoint, "step": self.header["step"], "epoch": self.header["epoch"],
        }  # fmt: skip
        if self.checkpoint == checkpoints.BEST and "best_by" in self.header:
            record["best_by"] = self.header["best_by"]
        splits = ("train", *measured_splits(experiment, data))
        for split in splits:
            batches = ordered(data, split, self.backend, experiment, self.built)
            seen = measuring.seen_of(self.built, data, split)
            with environment.deterministic(self.backend):
                found = measuring.measured(self.backend, self.measure, self.state, batches, seen)
            record |= {f"{split}_{name}": value for name, value in found.items()}
        record |= left_out.counts(data, splits)
        return record | segments.description(experiment, self.backend, data)

    def export(self, file: str | Path) -> dict[str, np.ndarray]:
        """Write weights, biases and running statistics to a safetensors file, which a torch Module of the same layers
        loads strictly; gives what it holds, by PyTorch's names (see layouts.py). Raises ExperimentError."""
        arrays = self.backend.export_params(self.network, self.state.forward.params, self.state.stats)
        weights.write(file, arrays)
        return arrays


@environment.as_it_was()
def load(
    out: str | Path, checkpoint: str | None = None, images: Any = None, code: Any = None,
    changed_code: bool = False, **changes: Any,
) -> Loaded:  # fmt: skip
    """The newest checkpoint of a run's folder, or the one of that file name ("best" for the best).

    images: in place of the run's data, for `evaluate`. code: names code of one's own again, which no file has run: a
    name, its file or module, the function itself, or several; changed_code: though it is another now. changes: fields
    that leave what is learned as it is, as backend="torch" or data="a/folder". A checkpoint of an older version, which
    does not say what its inputs are, is told by its data. Raises CheckpointError, ExperimentError, BackendError and
    DataError, each one sentence.
    """
    out = Path(out)
    found = headers.latest(out, checkpoint)
    experiment = checked(changed(opening.recorded(found, code), changes))
    check_unedited(out, found, experiment)
    known = {"shape", "classes"} <= set(experiment.inputs) and "images" in found.header
    if images is not None or not known:
        run = f"The run in {out}"
        return Loaded(out, found, opening.opened(experiment, images, Reporter(), run, found, changed_code))
    return Loaded(out, found, opening.reopened(experiment, found, changed_code))


def export(
    out: str | Path, file: str | Path, checkpoint: str | None = None, code: Any = None, changed_code: bool = False,
    **changes: Any,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Write what a run has learned to a file for torch, as `Loaded.export` does; arguments and errors as of `load`."""
    return load(out, checkpoint, None, code, changed_code, **changes).export(file)


def answering(built: Built, classes: int):
    """A function (forward parameters, statistics, x) -> the network's output in test mode, (N, classes), or as many
    numbers as a target has."""

    def run(params, stats, x):
        trace, _ = forward(built.network, params, stats, x, train=False)
        output = built.loss.output(trace.h[-1])
        return output if built.targets == "inputs" else output[:, :classes]

    return run


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose tables are columns of their own."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return found
