"""What stands before a run: its backend, its images, and the network and algorithm built for them."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ... import backends, naming
from ...backends import Backend, NoNativeKernels
from ...machine import environment
from ...types import Batch
from ..boxes import dataset as boxed
from ..data import loading, own
from ..data.contract import Data
from ..data.images import PIXELS
from ..runs import sources, weights
from ..runs.checkpoints import Checkpoint
from ..spec import places
from ..spec.building import Built, Shape, build, detects
from ..spec.checking import told
from ..spec.experiment import OWN, Experiment, ExperimentError, as_dict, from_dict, named_code, plain
from ..spec.names import AUGMENTATION, DATASET, is_own, thing
from . import measuring
from .reporter import Reporter

SHOWN = 12  # classes that a sentence lists


class Opened(NamedTuple):
    """An experiment with all that it needs to run. Nothing has been written anywhere."""

    experiment: Experiment
    backend: Backend
    data: Any  # a Data, but for what `reopened` gives
    shape: Shape
    built: Built


def opened(
    experiment: Experiment, data: Any, reporter: Reporter, run: str, checkpoint: Checkpoint | None = None,
    changed_code: bool = False, start: weights.Start | None = None,
) -> Opened:  # fmt: skip
    """Get backend and images, and build. data: instead of the experiment's own, as own.py takes it. run: what a
    sentence on inputs that do not fit begins with. checkpoint: what is gone on from. changed_code: though code of one's
    own is another now. start: the weights that are begun from. Raises what `train` raises before it runs."""
    backend = get_backend(experiment, reporter)
    experiment = identified(experiment, checkpoint, reporter, changed_code)
    data = load_data(experiment, reporter) if data is None else normalised(experiment, data)
    data = augmented(experiment, data)
    experiment = settled(experiment, data, run)
    check_sigmoids(experiment, data)
    if isinstance(data, boxed.Boxed):
        check_anchors(experiment, data)
        found, there = data.coverage()
        few = f" of the first {boxed.LOOKED_AT:,} images" if data.train.count > boxed.LOOKED_AT else ""
        reporter.note(f"Of {there} boxes{few} to be learned from, some anchor covers {found} by half or more.")
    doubt = own.doubt(data)
    if doubt:
        reporter.note(f"{doubt}.")
    shape = shape_of(data, experiment)
    begin = None if start is None else partial(weights.given_to, start=start)
    return Opened(experiment, backend, data, shape, build(experiment, backend, shape, begin))


def reopened(experiment: Experiment, checkpoint: Checkpoint, changed_code: bool = False) -> Opened:
    """What a checkpoint needs to be asked, without the data that it learned from: `data` is None. Its inputs say the
    shape and the classes. Raises BackendError and ExperimentError."""
    backend = get_backend(experiment, Reporter())
    experiment = identified(experiment, checkpoint, Reporter(), changed_code)
    inputs = plain(experiment.inputs)
    steps = max(-(-checkpoint.header["images"] // experiment.batch), checkpoint.header["progress"]["position"])
    targets, count = told(inputs)
    shape = Shape(tuple(inputs["shape"]), count, steps, targets)
    return Opened(experiment, backend, None, shape, build(experiment, backend, shape))


def get_backend(experiment: Experiment, reporter: Reporter) -> Backend:
    """The experiment's backend; portable kernels, said so, where it has no native ones. Its library is asked for
    determinism before it begins; whoever computes does so within `environment.deterministic`.

    Raises BackendError.
    """
    environment.ask_for_determinism()

    def get(kernels):
        return backends.get(experiment.backend, experiment.device, experiment.dtype, experiment.precision, kernels)

    try:
        return get(experiment.kernels)
    except NoNativeKernels:
        reporter.note(f"{experiment.backend} has no native kernels: the portable ones run instead.")
        return get("portable")


def recorded(checkpoint: Checkpoint, code: Any = None) -> Experiment:
    """The experiment of a checkpoint. code: what names its code again, which is not run otherwise: a name, a file or a
    module that holds it, the function itself, or several of these."""
    return from_dict(checkpoint.header["experiment"], naming.asked(code))


def identified(
    experiment: Experiment, checkpoint: Checkpoint | None, reporter: Reporter, changed_code: bool = False
) -> Experiment:
    """The experiment with the file and hash of the code of one's own that it runs.

    Says so where a run goes on with another backend or metric than it had, and where only Python can go on with it.
    Raises ExperimentError where other code has changed, unless `changed_code`.
    """
    fields = as_dict(experiment)
    kinds = {name: kind for kind, name in places.names(fields)}
    used = {name: naming.identity(name) for name in named_code(fields)}
    for name, now in used.items():
        changed = sources.change(name, now, checkpoint) if checkpoint else ""
        if changed and not changed_code and kinds[name] not in places.NOT_LEARNED:
            raise ExperimentError(f"{changed}: put it back, or go on with what it is now by --changed-code.")
        if changed:
            reporter.note(f"{changed}.")
        if isinstance(name, naming.Given) and not name.lasting:
            sentence = (
                f"{name} has no name that leads to it, so the run can be resumed only from Python: give it again "
                "there, as in resume(out, code=[it])."
            )
            reporter.note(sentence)
            logging.getLogger("ref_bioplaus").warning(sentence)  # in a notebook nobody may report
    return replace(experiment, code=used or None)


def load_data(experiment: Experiment, reporter: Reporter) -> Data:
    """The experiment's dataset, normalised as its inputs say; says so where a folder holds another number of images.

    Raises DataError, and ExperimentError for images that only whoever began the run can give.
    """
    if is_own(DATASET, experiment.dataset):
        return normalised(experiment, own_data(experiment))
    if detects(experiment.model):
        return boxed.load(
            str(experiment.dataset), experiment.data, experiment.config, flip=experiment.augmentation == "flip",
            layout=experiment.layout, **plain(experiment.boxes),
        )  # fmt: skip
    if experiment.dataset == OWN and experiment.data is None:
        raise ExperimentError(
            "The run learns from images of your own, which were given as arrays: give them again (images=), or name "
            "the folder that holds them with --data."
        )
    found = normalised(experiment)
    other = loading.other_count(str(experiment.dataset), found.train.count + experiment.held_out)
    if other:
        reporter.note(f"{experiment.data or experiment.dataset} has {other}.")
    return found


def normalised(experiment: Experiment, value: Any = None) -> Data:
    """What an experiment learns from, normalised as its inputs say. value: data of one's own, instead of its dataset.

    What has the contract of a Data is as it is. Raises DataError and ExperimentError.
    """
    value = own.given(value)
    if value is not None and not isinstance(value, own.Given):
        return value
    mean, deviation = (np.array(experiment.inputs.get(name, ()), np.float64) for name in ("mean", "deviation"))
    as_they_are = not np.any(mean) and np.all(deviation == 1)
    found = own.load(
        str(experiment.dataset), experiment.data, value, held_out=experiment.held_out,
        augmentation="none" if is_own(AUGMENTATION, experiment.augmentation) else experiment.augmentation,
        normalise=experiment.normalise and bool(as_they_are), config=experiment.config,
        skip_unreadable=experiment.skip_unreadable, layout=experiment.layout,
    )  # fmt: skip
    if len(mean) and not as_they_are:
        check_channels(mean, found)
        found.mean, found.deviation = mean, deviation
    return found


def augmented(experiment: Experiment, data: Data) -> Data:
    """The data, which knows the augmentation of one's own that an experiment names. Raises ExperimentError for data
    that has no place for it."""
    if is_own(AUGMENTATION, experiment.augmentation):
        if not hasattr(data, "own"):
            raise ExperimentError(
                f'The augmentation "{experiment.augmentation}" is for images that the program loads: leave it out, and '
                "let the data's own `batches` augment."
            )
        data.own = thing(AUGMENTATION, experiment.augmentation)
    return data


def own_data(experiment: Experiment) -> Any:
    """What the function of one's own gives that an experiment names as its dataset, as own.py understands it. Raises
    ExperimentError and DataError."""
    try:
        with naming.importable(experiment.dataset):
            found = thing(DATASET, experiment.dataset)()
            if found is None:
                raise loading.DataError("it returns nothing, expected data, as arrays (x, y).")
            return own.given(found)
    except loading.DataError as error:
        raise loading.DataError(f'The dataset "{experiment.dataset}": {error}') from error


def check_anchors(experiment: Experiment, data: boxed.Boxed) -> None:
    """Raise ExperimentError where a model has other anchors than its data."""
    asked = experiment.model_options.get("anchors", data.anchors.per_cell)
    if asked != data.anchors.per_cell:
        raise ExperimentError(
            f"model_options.anchors is {asked}, but the boxes here are matched with {data.anchors.per_cell} anchors a "
            "pixel: leave it out."
        )


def check_channels(mean: np.ndarray, data: Any) -> None:
    """Raise ExperimentError where constants are given for another number of channels than the images have."""
    if len(mean) != data.in_shape[-1]:
        raise ExperimentError(
            f"inputs.mean has {len(mean)} channels, but the images have {data.in_shape[-1]}: give one number for each."
        )


def check_sigmoids(experiment: Experiment, data: Any) -> None:
    """Raise ExperimentError where real-valued targets are none that a sigmoid can reach."""
    targets = getattr(data.train, "labels", None) if getattr(data, "outputs", None) else None
    if experiment.loss != "sigmoid-cross-entropy" or targets is None:
        return
    low, high = float(np.min(targets)), float(np.max(targets))
    if low < 0 or high > 1:
        raise ExperimentError(
            f'loss "sigmoid-cross-entropy" needs targets in [0, 1], but those here reach from {low:.4g} to {high:.4g}: '
            'choose "squared-error", or scale them.'
        )


def settled(experiment: Experiment, data: Data, run: str) -> Experiment:
    """The experiment with its inputs filled in from its data. run: what a sentence begins with.

    Raises ExperimentError where the experiment has others already, which were learned from.
    """
    given, here = plain(experiment.inputs), inputs_of(data)
    if "shape" in given:  # those of a run: what it does not say is as usual
        usual = {"scale": PIXELS, "outputs": None}
        for name in [name for name in usual if given.get(name, usual[name]) != here.get(name, usual[name])]:
            raise ExperimentError(
                f"{run} has inputs.{name} = {given.get(name, usual[name])}, but the data here has "
                f"{here.get(name, usual[name])}: name the same data, or start in another folder."
            )
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


def few(values: Any) -> str:
    """A list for a sentence: its ends, where it is long."""
    long = isinstance(values, list) and len(values) > SHOWN
    return f"{len(values)} from {values[0]!r} to {values[-1]!r}" if long else str(values)


def inputs_of(data: Data) -> dict[str, Any]:
    """The shape and classes of some images, and what they are normalised by where they tell."""
    names = data.classes if not isinstance(data.classes, int) else range(data.classes)
    classes = [str(name).encode("utf-8", "backslashreplace").decode() for name in names]  # as a file can hold them
    found: dict[str, Any] = {"shape": [int(n) for n in data.in_shape], "classes": classes}
    plan = getattr(data, "augmentation", None)
    if getattr(data, "resize_first", False) and plan is not None and plan.kind == "crop" and plan.size is not None:
        found["resized"] = True
    more = {"scale": getattr(data, "scale", PIXELS), "outputs": getattr(data, "outputs", None)}
    found |= {name: value for name, value in more.items() if value not in (None, PIXELS)}
    mean, deviation = getattr(data, "mean", None), getattr(data, "deviation", None)
    if mean is None or deviation is None:
        return found
    return found | {"mean": [float(m) for m in mean], "deviation": [float(d) for d in deviation]}


def shape_of(data: Data, experiment: Experiment) -> Shape:
    """What the experiment must know of its data."""
    targets, count = told(inputs_of(data))
    return Shape(tuple(data.in_shape), count, data.train.steps(experiment.batch), targets)


def measured_splits(experiment: Experiment, data: Data) -> tuple[str, ...]:
    """The splits that are measured beside the training images: held-out ones, and test images where there are any."""
    tested = experiment.test and data.test is not None
    return (("validation",) if experiment.held_out else ()) + (("test",) if tested else ())


def ordered(data: Data, split: str, backend: Backend, experiment: Experiment, built: Built) -> Iterator[Batch]:
    """A split's batches in their order, for measuring."""
    for batch in data.batches(split, backend, experiment.batch, experiment.seed, 0, shuffle=False, flatten=built.flat):
        yield measuring.with_targets(batch, built)
