"""An experiment checked before anything starts, and whatever it leaves open filled in."""

import difflib
import math
from dataclasses import replace
from typing import Any

from ... import naming, registry
from .building import build_loss, check_loss, detects, make_optimizer, targets_of, wrapped_row
from .experiment import INPUTS, OWN, Experiment, ExperimentError, Table, as_dict, check_type, from_dict, plain
from .names import AUGMENTATION, DATASET, LOSS, METRIC, MODEL, OPTIMIZER, bound, find_row, is_own, thing
from .options import above_0, finite, flag, list_of, parsed, positive, text, whole, word
from .taken import options_of, parameters_of, resolve_options

DATASETS = {"mnist": "ylecun/mnist", "cifar": "uoft-cs/cifar10", "imagenet": "ILSVRC/imagenet-1k",
            "lin2017": "detection-datasets/coco"}  # fmt: skip
CIFAR_MODELS = ("he2016/resnet20",)
MNIST_MODELS = ("akrout2019/mlp", "bartunov2018/autoencoder")
STEPS = 10**6  # in an epoch, as long as the data is not there: no two of a schedule's moments fall together
IMAGES = {
    "shape": list_of(whole(1)), "classes": list_of(text), "mean": list_of(finite), "deviation": list_of(above_0),
    "resized": flag, "scale": word({"pixels": "pixels", "values": "values"}), "outputs": whole(1),
}  # fmt: skip
BOXES = {"side": 256, "smallest": 32.0, "best_anchor": False, "ignored_below": 0.0}  # see boxes/dataset.py
OF_BOXES = {"side": whole(128), "smallest": above_0, "best_anchor": flag, "ignored_below": positive}
FIELDS = {  # of an experiment, that are numbers
    **dict.fromkeys(("batch", "epochs", "steps", "evaluate_every"), whole(1)),
    **dict.fromkeys(("held_out", "skip_unreadable"), whole()),
    "seed": whole(0, 2**63 - 1),
    "checkpoint_every": positive,
}
AUXILIARY = 512  # units of AO-SDTP's output on CIFAR (Bartunov et al. 2018, sec. 3.2); ours elsewhere


def checked(experiment: Experiment, targets: str | None = None) -> Experiment:
    """The experiment with every default filled in and every name in its full form.

    targets: of its data, "classes", "values" or "inputs", where they are known; else its own inputs may tell.
    Optimizers that are not named are ours: those of the demo. Raises ExperimentError, one sentence, for whatever is
    unknown, missing or out of range, as far as it can be known before the data is there; augmentation.DataError for the
    augmentation.
    """
    from_dict(as_dict(experiment))
    for name in experiment.metrics:
        check_type("an entry of metrics", name, (str,))
    experiment = bound(experiment)
    row = find_row(experiment.algorithm)
    check_model(experiment)
    experiment = replace(experiment, loss=loss_of(experiment, targets))
    if not is_own(LOSS, experiment.loss):
        build_loss(experiment, 1)
    shown = [naming.short(name) for name in experiment.metrics]
    for name in experiment.metrics:
        thing(METRIC, name)
        if naming.is_code(name) and shown.count(naming.short(name)) > 1:
            raise ExperimentError(f"metrics has {naming.short(name)} twice: leave out one, or call it otherwise.")
    for name, parse in FIELDS.items():
        if getattr(experiment, name) is not None:
            parse(name, getattr(experiment, name))
    check_dataset(experiment)
    check_inputs(experiment)
    experiment = replace(experiment, boxes=boxes_of(experiment))
    if not experiment.test and not experiment.held_out:
        raise ExperimentError("test is false and held_out is 0, so nothing would be measured: hold out some images.")
    full = replace(
        experiment,
        algorithm=experiment.algorithm if naming.is_code(experiment.algorithm) else row.name,
        algorithm_options=default_options(experiment, row),
        model_options=default_model_options(experiment, row),
        dataset=experiment.dataset or (OWN if experiment.data else dataset_of(experiment.model)),
        optimizer=default_optimizer(experiment, row),
        inverse_optimizer=default_inverse_optimizer(experiment, row),
    )
    resolve_options(row, full.algorithm_options)
    make_optimizer("optimizer", full.optimizer, STEPS)
    if row.inverses:
        make_optimizer("inverse_optimizer", full.inverse_optimizer, STEPS)
    elif full.inverse_optimizer:
        raise ExperimentError(f'inverse_optimizer is given, but "{row.name}" learns no inverses: leave it out.')
    wrapped_row(full, row, 1)
    return full


def loss_of(experiment: Experiment, targets: str | None) -> str:
    """The loss; where none is given, the one that the targets ask for. Raises ExperimentError."""
    targets = targets_of(experiment.model, targets or told(experiment.inputs)[0])
    usual = {"classes": "cross-entropy", "boxes": "detection"}.get(targets, "squared-error")
    loss = usual if experiment.loss is None else experiment.loss
    thing(LOSS, loss)
    check_loss(replace(experiment, loss=loss), targets)
    return loss


def told(inputs: Table) -> tuple[str, int]:
    """What the inputs of a run say that it learns, "classes", "values" or "inputs", and how many numbers each target
    has; classes where they do not say."""
    if "outputs" in inputs:
        return "values", inputs["outputs"]
    if "classes" in inputs and not inputs["classes"]:
        return "inputs", math.prod(inputs.get("shape", ()))
    return "classes", len(inputs.get("classes", ()))


def check_model(experiment: Experiment) -> None:
    """Raise ExperimentError for a model or for options that there are not."""
    make, given = thing(MODEL, experiment.model), plain(experiment.model_options)
    options_of(f'model "{experiment.model}"', make, given, has=("in_shape", "classes"))  # which the data has


def check_dataset(experiment: Experiment) -> None:
    """Raise ExperimentError for a dataset that can be none of the hub's, where no folder stands in its place."""
    from ..data.augmentation import parse
    from ..data.hub import LAYOUT
    from ..data.loading import KNOWN

    name = experiment.dataset
    elsewhere = name is None or experiment.data is not None or naming.is_code(name) or "/" in name
    known = () if elsewhere else (OWN, "embedded", *KNOWN, *naming.enrolled(DATASET.group))
    if not elsewhere and name not in known:
        ends = {id.rpartition("/")[2]: id for id in known}
        close = difflib.get_close_matches(name.lower(), ends, n=3)
        raise ExperimentError(
            f'The dataset "{name}" is unknown: did you mean {", ".join(ends[c] for c in close) or ", ".join(known)}?'
        )
    if not is_own(AUGMENTATION, experiment.augmentation):
        parse(experiment.augmentation)
    parsed("layout", LAYOUT, plain(experiment.layout), dict.fromkeys(LAYOUT, text))


def boxes_of(experiment: Experiment) -> dict[str, Any]:
    """What a detector's images are made into, filled in. Raises ExperimentError, also where nothing finds boxes."""
    given = plain(experiment.boxes)
    if not detects(experiment.model):
        if given:
            raise ExperimentError(f'boxes is given, but the model "{experiment.model}" finds none: leave it out.')
        return given
    parsed("boxes", BOXES, given, OF_BOXES)
    if experiment.held_out or not experiment.normalise or experiment.augmentation not in ("none", "flip"):
        raise ExperimentError(
            "Images with boxes are not held out, always normalised, and mirrored at most: leave out held_out and "
            "normalise, and choose the augmentation none or flip."
        )
    return BOXES | given


def check_inputs(experiment: Experiment) -> None:
    """Raise ExperimentError for inputs that cannot be those of images."""
    given = plain(experiment.inputs)
    parsed("inputs", INPUTS, given, IMAGES)
    if ("mean" in given) != ("deviation" in given) or len(given.get("mean", ())) != len(given.get("deviation", ())):
        raise ExperimentError("inputs has a mean without a deviation, or not as many: give both, a number per channel.")
    if not experiment.normalise and any((m, d) != (0, 1) for m, d in constants(given)):
        raise ExperimentError(
            f"normalise is false, but inputs.mean is {given['mean']} and inputs.deviation {given['deviation']}: "
            "leave out one of them."
        )


def constants(inputs: dict[str, Any]) -> list[tuple[float, float]]:
    """Mean and deviation of every channel, as far as they are given."""
    return list(zip(inputs.get("mean", ()), inputs.get("deviation", ()), strict=True))


def dataset_of(model: str) -> str:
    """The dataset that a model of the papers is made for. Raises ExperimentError for a model of one's own."""
    if model not in MODEL.known:
        raise ExperimentError(
            f'The model "{model}" is none of the papers\', which would say what it learns: name a dataset, or a folder '
            "with data."
        )
    if model in CIFAR_MODELS:
        return DATASETS["cifar"]
    if model in MNIST_MODELS:
        return DATASETS["mnist"]
    return next((id for word, id in DATASETS.items() if word in model), DATASETS["imagenet"])


def default_options(experiment: Experiment, row: registry.Row) -> dict[str, Any]:
    """The algorithm's options; those that the demo's recipe names, where none is given, are the demo's."""
    given = plain(experiment.algorithm_options)
    return dict(row.recipe().options) | given


def default_model_options(experiment: Experiment, row: registry.Row) -> dict[str, Any]:
    """The model's options; an auxiliary output where the algorithm needs one."""
    given = plain(experiment.model_options)
    if row.auxiliary:
        if "auxiliary" not in parameters_of(thing(MODEL, experiment.model)):
            raise ExperimentError(
                f'"{row.name}" needs an auxiliary output, which model "{experiment.model}" cannot have: '
                "choose one of bartunov2018."
            )
        return {"auxiliary": AUXILIARY} | given
    if given.get("auxiliary"):
        raise ExperimentError(f'model_options.auxiliary is given, but "{row.name}" has no use for it: leave it out.')
    return given


def default_optimizer(experiment: Experiment, row: registry.Row) -> dict[str, Any]:
    """The optimizer, of which the name or the rate may have been left out: ours, as in the demo."""
    found = row.recipe()
    if experiment.loss != "cross-entropy" or found.adam:
        ours: dict[str, Any] = {"name": "adam", "eta": found.eta if found.adam else 1e-3}
    else:
        ours = {"name": "sgd", "eta": found.eta, "momentum": found.momentum}
    if found.decay:
        ours["decay"] = found.decay
    return completed(plain(experiment.optimizer), ours, "optimizer")


def default_inverse_optimizer(experiment: Experiment, row: registry.Row) -> dict[str, Any]:
    """The inverses' optimizer; {} for algorithms without inverses."""
    given = plain(experiment.inverse_optimizer)
    return (
        completed(given, {"name": "adam", "eta": row.recipe().inverse_eta}, "inverse_optimizer")
        if row.inverses
        else given
    )


def completed(given: dict[str, Any], ours: dict[str, Any], where: str) -> dict[str, Any]:
    """`ours` with what is given; another optimizer than ours needs a rate of its own. Raises ExperimentError."""
    check_type(f"{where}.name", given.get("name", ours["name"]), (str,))
    if given.get("name", ours["name"]) == ours["name"]:
        return ours | given
    taken = parameters_of(thing(OPTIMIZER, given["name"], f"{where}.name"))
    if "eta" in taken and "eta" not in given:
        raise ExperimentError(f'{where}.name is "{given["name"]}", but {where}.eta is missing: give a learning rate.')
    return given
