"""What stands before a run: its folder, its backend and its images."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import backends, naming
from ..backends import Backend, BackendError
from ..machine import environment, files, memory
from ..machine.files import TEMPORARY
from ..types import Batch
from . import checkpoints, monitor
from .checkpoints import Checkpoint
from .contracts import Reporter
from .data.contract import Data
from .logs import EXPERIMENT, FAILURE, LOG, TENSORBOARD
from .spec.building import Built, Shape
from .spec.differences import differences, same, understood
from .spec.experiment import (
    NOT_LEARNING,
    OWN,
    Experiment,
    ExperimentError,
    as_dict,
    as_toml,
    from_dict,
    named_code,
    plain,
    read,
)

SHOWN = 12  # classes that a sentence lists
BEGUN = (EXPERIMENT, LOG, TENSORBOARD, FAILURE, checkpoints.BEST)  # what a run has before its first checkpoint


class Busy(ExperimentError):
    """A folder whose run another process has taken."""


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """A run's folder, made where it is not there, for this process alone; taken away again where it stays empty.

    Raises Busy, ExperimentError where the folder cannot be made or read, and NotOrdinary where the run would write to a
    link.
    """
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise ExperimentError(
            f"The folder {out} cannot be written to ({error.strerror}): name another one with --out."
        ) from error
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"Another process is running {out}: wait for it, or name another folder.") from error
        except OSError:
            pass  # a file system without locks
        for name in (EXPERIMENT, LOG):
            files.check_place(out / name)  # before what is there is read
        yield
    finally:
        os.close(folder)
        if made:
            with suppress(OSError):
                out.rmdir()


def check_empty(out: Path, begun: bool) -> None:
    """Raise ExperimentError unless a folder is not there yet or empty; begun: it may hold a run without checkpoints."""
    there = list(out.iterdir())
    others = [path for path in there if path.name not in BEGUN and path.suffix != TEMPORARY]
    if there and not others and not begun:
        raise ExperimentError(
            f"{out} holds a run that has no checkpoint yet: start it again with --resume, or name another folder."
        )
    if others:
        raise ExperimentError(
            f"{out} is there already and not empty: continue it with {files.typed('resume', out)}, "
            "or name another folder."
        )


def check_same(experiment: Experiment, stored: Experiment, out: Path) -> None:
    """Raise ExperimentError where two experiments do not learn the same."""
    mine, theirs = as_dict(experiment), as_dict(stored)
    for name in sorted(mine.keys() | theirs.keys()):
        a, b = mine.get(name), theirs.get(name)
        moved = name == "modifications" and list(a or ()) != list(b or ())  # each is wrapped around those before it
        if name not in NOT_LEARNING and (a != b or moved):
            raise ExperimentError(
                f"The run in {out} has {name} = {b!r}, not {a!r}: leave it as it is, or start in another folder."
            )
    shared = any("start_share" in options for options in stored.modifications.values())
    if shared and experiment.epochs != stored.epochs:
        raise ExperimentError(
            f"The run in {out} fixes signs after a share of its {stored.epochs} epochs, so it cannot become one of "
            f"{experiment.epochs}: leave epochs as it is, or start in another folder."
        )


def check_unedited(out: Path, checkpoint: Checkpoint, experiment: Experiment) -> None:
    """Raise ExperimentError where a run's experiment.toml was changed since it was written, and show how; NotOrdinary
    where it is a link.

    It may hold what any checkpoint of the folder says or said before the run was resumed with changes, or `experiment`,
    what is to be from here on.
    """
    path = out / EXPERIMENT
    files.check_place(path)
    if not path.exists():
        return
    headers = [checkpoint.header, *map(checkpoints.header_of, (*checkpoints.found(out), out / checkpoints.BEST))]
    said = [header.get(name) for header in headers for name in ("experiment", "experiment_before")]
    there, run = as_dict(read(path)), as_dict(from_dict(checkpoint.header["experiment"]))
    if not any(same(there, fields) for fields in (run, as_dict(experiment), *map(understood, said))):
        shown = [f"{name} = {mine!r} where the run has {theirs!r}" for name, mine, theirs in differences(there, run)]
        raise ExperimentError(
            f"The file {path} was edited, {', '.join(shown) or 'its modifications have another order'}: take the edit "
            "back, or delete the file, which is then written anew, and name what is to be changed as an option, as "
            "--epochs 20."
        )


def labels_of(data: Data) -> str | None:
    """What tells training images from others; None where the data does not say."""
    return getattr(data, "fingerprint", None)


def check_checkpoint(checkpoint: Checkpoint | None, data: Data, experiment: Experiment, out: Path, total: int) -> None:
    """Raise ExperimentError where a run goes on with other images, or would have to go back. total: its steps."""
    if checkpoint is None:
        return
    header, now = checkpoint.header, data.train.count
    place = experiment.data or (None if experiment.dataset == OWN else experiment.dataset)
    before = header.get("images", now)
    if now != before:
        raise ExperimentError(
            f"The run in {out} learned from {before:,} training images, but here are {now:,}: "
            "name the same data, or start in another folder."
        )
    if None not in (header.get("labels"), labels_of(data)) and header["labels"] != labels_of(data):
        raise ExperimentError(
            f"The run in {out} learned from images with other labels than those "
            f"{f'of {place}' if place else 'given here'}: name the same data, or start in another folder."
        )
    if header["step"] > total:
        raise ExperimentError(
            f"The run in {out} has taken {header['step']:,} steps, so it cannot end after {total:,}: ask "
            "for more epochs or steps."
        )


def prepare_folder(out: Path, experiment: Experiment, state: int, checkpoint: Checkpoint | None) -> None:
    """Write the experiment into the folder, and first into the checkpoint that is gone on from, where there is one.

    state: its bytes. Raises ExperimentError where there is no room or no right to.
    """
    needed = (checkpoints.KEPT + 2) * (state + 100_000)
    try:
        checkpoints.remove_temporaries(out)
        (out / FAILURE).unlink(missing_ok=True)
        free = memory.free_disk(out)
        if free is not None and free < needed:
            raise ExperimentError(
                f"The folder {out} has {memory.size(free)} free, but the checkpoints need "
                f"{memory.size(needed)}: make room, or name another folder with --out."
            )
        if checkpoint is None:
            (out / checkpoints.BEST).unlink(missing_ok=True)
        else:
            checkpoints.keep_until(out, checkpoint, as_dict(experiment))
        files.write_whole(out / EXPERIMENT, as_toml(experiment).encode())
    except OSError as error:
        raise ExperimentError(
            f"The folder {out} cannot be written to ({error.strerror}): name another one with --out."
        ) from error


def get_backend(experiment: Experiment, reporter: Reporter) -> Backend:
    """The experiment's backend, deterministic on a GPU; portable kernels, said so, where it has no native ones.

    Raises BackendError.
    """
    environment.ask_for_determinism()

    def get(kernels):
        found = backends.get(experiment.backend, experiment.device, experiment.dtype, experiment.precision, kernels)
        environment.make_deterministic(found)
        return found

    try:
        return get(experiment.kernels)
    except BackendError as error:
        if experiment.kernels != "native" or "no native kernels" not in str(error):
            raise
        reporter.note(f"{experiment.backend} has no native kernels: the portable ones run instead.")
        return get("portable")


def identified(experiment: Experiment, checkpoint: Checkpoint | None, reporter: Reporter) -> Experiment:
    """The experiment with the file and hash of the code of one's own that it runs; says so where a run goes on with
    another file than it had."""
    used = {name: naming.identity(name) for name in named_code(as_dict(experiment)) if naming.is_code(name)}
    before = (checkpoint.header["experiment"].get("code") or {}) if checkpoint else {}
    for name, now in used.items():
        digest = before.get(name, {}).get("sha256")
        if digest and digest != now.get("sha256"):
            reporter.note(f"{name} is not what this run has had so far: sha256 {now.get('sha256')}, before {digest}.")
    return replace(experiment, code=used or None)


def load_data(experiment: Experiment, reporter: Reporter) -> Data:
    """The experiment's dataset, normalised as its inputs say; says so where a folder holds another number of images.

    Raises datasets.DataError, and ExperimentError for images that only whoever began the run can give.
    """
    from .data import loading

    if experiment.dataset == OWN and experiment.data is None:
        raise ExperimentError(
            "The run learns from images of your own, which were given as arrays: give them again (images=), or name "
            "the folder that holds them with --data."
        )
    mean, deviation = (np.array(experiment.inputs.get(name, ()), np.float64) for name in ("mean", "deviation"))
    as_they_are = not np.any(mean) and np.all(deviation == 1)
    found = loading.load(
        str(experiment.dataset), experiment.data, held_out=experiment.held_out, augmentation=experiment.augmentation,
        normalise=experiment.normalise and bool(as_they_are), config=experiment.config,
    )  # fmt: skip
    if len(mean) and not as_they_are:
        check_channels(mean, found)
        found.mean, found.deviation = mean, deviation
    other = loading.other_count(str(experiment.dataset), found.train.count + experiment.held_out)
    if other:
        reporter.note(f"{experiment.data or experiment.dataset} has {other}.")
    return found


def check_channels(mean: np.ndarray, data: Any) -> None:
    """Raise ExperimentError where constants are given for another number of channels than the images have."""
    if len(mean) != data.in_shape[-1]:
        raise ExperimentError(
            f"inputs.mean has {len(mean)} channels, but the images have {data.in_shape[-1]}: give one number for each."
        )


def settled(experiment: Experiment, data: Data, run: str) -> Experiment:
    """The experiment with its inputs filled in from its data. run: what a sentence begins with.

    Raises ExperimentError where the experiment has others already, which were learned from.
    """
    given, here = plain(experiment.inputs), inputs_of(data)
    numbers = [str(i) for i in range(len(here["classes"]))]
    for name, value in here.items():
        before = given.setdefault(name, value)
        unnamed = name == "classes" and len(before) == len(value) and numbers in (before, value)
        if before != value and not unnamed:
            raise ExperimentError(
                f"{run} has inputs.{name} = {few(before)}, but the images here have {few(value)}: name the same data, "
                "or leave out inputs and start in another folder."
            )
    return replace(experiment, inputs=given)


def few(values: list) -> str:
    """A list for a sentence: its ends, where it is long."""
    return str(values) if len(values) <= SHOWN else f"{len(values)} from {values[0]!r} to {values[-1]!r}"


def inputs_of(data: Data) -> dict[str, Any]:
    """The shape and classes of some images, and what they are normalised by where they tell."""
    names = data.classes if not isinstance(data.classes, int) else range(data.classes)
    classes = [str(name).encode("utf-8", "backslashreplace").decode() for name in names]  # as a file can hold them
    found = {"shape": [int(n) for n in data.in_shape], "classes": classes}
    mean, deviation = getattr(data, "mean", None), getattr(data, "deviation", None)
    if mean is None or deviation is None:
        return found
    return found | {"mean": [float(m) for m in mean], "deviation": [float(d) for d in deviation]}


def shape_of(data: Data, experiment: Experiment) -> Shape:
    """What the experiment must know of its data."""
    classes = data.classes
    count = classes if isinstance(classes, int) else len(classes)
    return Shape(tuple(data.in_shape), count, data.train.steps(experiment.batch))


def measured_splits(experiment: Experiment, data: Data) -> tuple[str, ...]:
    """The splits that are measured beside the training images: held-out ones, and test images where there are any."""
    tested = experiment.test and data.test is not None
    return (("validation",) if experiment.held_out else ()) + (("test",) if tested else ())


def ordered(data: Data, split: str, backend: Backend, experiment: Experiment, built: Built) -> Iterator[Batch]:
    """A split's batches in their order, for measuring."""
    for batch in data.batches(split, backend, experiment.batch, experiment.seed, 0, shuffle=False, flatten=built.flat):
        yield monitor.with_targets(batch, built)
