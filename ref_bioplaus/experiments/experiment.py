"""An experiment as a value: everything that is needed to repeat it, checked before anything starts.

    experiment = Experiment(algorithm="kolen-pollack", data="mnist", backend="jax", epochs=5)
    experiment = overridden(read(Path("kp.toml")), ["optimizer.eta=0.01", "seed=3"])

A learning rate is a number or a schedule, in epochs or in the optimizer's own updates:

    {kind = "piecewise", values = [1e-4, 1e-5], epochs = [20]}
    {kind = "staircase", eta = 0.1, factor = 0.1, epochs = 10}
    {kind = "warm-up", eta = 0.1, epochs = 5}                          eta may itself be a schedule
"""

import difflib
import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from .. import algorithms, initializers, inverses, losses, optimizers
from ..backends import Backend
from ..models import MODELS
from ..network import Network
from ..types import Algorithm, Loss, Optimizer
from . import recipes, registry

Table = Mapping[str, Any]


class ExperimentError(ValueError):
    """An experiment that cannot be run as it stands; the message is one sentence that says what to change."""


@dataclass(frozen=True)
class Experiment:
    """What is learned, by which rule, from what, with what; None and {} are filled in by `checked`."""

    algorithm: str = "backprop"  # a name of `list algorithms`, or a label of the papers, as "KP"
    algorithm_options: Table = field(default_factory=dict)  # of its function in algorithms/
    model: str = "bartunov2018/mnist-fc"
    model_options: Table = field(default_factory=dict)
    dataset: str | None = None  # an id of the Hugging Face hub, or "embedded"; None: what the model is made for
    data: str | None = None  # a folder in the hub's layout
    augmentation: str = "none"
    normalise: bool = True  # pixels to mean 0 and deviation 1 per channel over the training images; false: 0 to 1
    held_out: int = 0  # training images kept for validation
    test: bool = True  # whether the test images are measured
    loss: str = "cross-entropy"
    optimizer: Table = field(default_factory=dict)  # {name, eta, ...}, by_layer: {layer number or "last": {eta, ...}}
    inverse_optimizer: Table = field(default_factory=dict)  # of target propagation
    modifications: Table = field(default_factory=dict)  # {name: options}, innermost first, behind the algorithm's own
    batch: int = 100
    epochs: int = 10
    steps: int | None = None  # batches after which to stop, wherever in an epoch
    seed: int = 0
    backend: str = "numpy"
    device: str | None = None
    dtype: str = "float32"
    precision: str = "ieee"
    kernels: str = "native"
    evaluate_every: int = 1  # epochs
    checkpoint_every: float = 60.0  # seconds; 0: after every step
    metrics: tuple[str, ...] = ("matrix_angles", "delta_angles", "gradient_ratios", "sign_changes")


METRICS = Experiment().metrics
NOT_LEARNING = (
    "backend",
    "device",
    "kernels",
    "data",
    "epochs",
    "steps",
    "evaluate_every",
    "checkpoint_every",
    "metrics",
    "test",
)
LOSSES: dict[str, Callable[[], Loss]] = {
    "cross-entropy": losses.cross_entropy,
    "sigmoid-cross-entropy": losses.sigmoid_cross_entropy,
    "squared-error": losses.squared_error,
}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": optimizers.sgd,
    "adam": optimizers.adam,
    "rmsprop": optimizers.rmsprop,
}
INITIALIZERS: dict[str, Any] = {
    "fan_in": initializers.fan_in,
    "fan_out": initializers.fan_out,
    "fan_sum": initializers.fan_sum,
    "he_fan_in": initializers.he_fan_in,
    "he_fan_out": initializers.he_fan_out,
    "glorot_normal": initializers.glorot_normal,
    "glorot_uniform": initializers.glorot_uniform,
    "orthogonal": initializers.orthogonal,
    "naive": initializers.naive(),
    "zero": initializers.zero,
}
WORDS: dict[str, dict[str, Any]] = {  # options of algorithms that are functions, by the names they have in a file
    "initializer": INITIALIZERS,
    "feedback_initializer": INITIALIZERS,
    "inverse_initializer": INITIALIZERS,
    "dense_initializer": INITIALIZERS,
    "rule": {
        rule.__name__.replace("_", "-"): rule
        for rule in (
            algorithms.uniform, algorithms.batch_random, algorithms.initial_magnitude, algorithms.strict_norm,
            algorithms.fan_out_scale,
        )
    },
    "inverse": {"mirrored": inverses.mirrored_inverse, "dense": inverses.dense_inverse},
}  # fmt: skip
SCHEDULES = {"piecewise": ("values",), "staircase": ("eta", "factor"), "warm-up": ("eta",)}
DATASETS = {"mnist": "ylecun/mnist", "cifar": "uoft-cs/cifar10", "imagenet": "ILSVRC/imagenet-1k"}
CIFAR_MODELS = ("he2016/resnet20",)
MNIST_MODELS = ("akrout2019/mlp", "bartunov2018/autoencoder")
AUXILIARY = 512  # units of AO-SDTP's output on CIFAR (Bartunov et al. 2018, sec. 3.2); ours elsewhere


class Shape(NamedTuple):
    """What an experiment must know of its data."""

    in_shape: tuple[int, ...]  # of an image, (height, width, channels)
    classes: int
    steps: int  # batches in an epoch


class Built(NamedTuple):
    """An experiment's network, loss and algorithm, bound to a backend's kernels and dtype."""

    network: Network
    loss: Loss
    algorithm: Algorithm
    row: registry.Row
    rebuilds: bool  # the targets are the inputs: an autoencoder

    @property
    def flat(self) -> bool:
        """Whether the network takes images as vectors."""
        return len(self.network[0].out_shape) == 1


# Files


def read(path: Path) -> Experiment:
    """The experiment of a TOML file. Raises ExperimentError where it cannot be read or understood."""
    try:
        return from_dict(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ExperimentError(f"The experiment {path} cannot be read ({error.strerror}): name another file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExperimentError(f"The experiment {path} is not TOML ({error}).") from error


def as_toml(experiment: Experiment) -> str:
    """The text of a TOML file that `read` turns into the same experiment."""
    import tomli_w

    return tomli_w.dumps(as_dict(experiment))


def as_dict(experiment: Experiment) -> dict[str, Any]:
    """Its fields, without those that are None."""
    return {name: plain(value) for name, value in asdict(experiment).items() if value is not None}


def from_dict(values: Table) -> Experiment:
    """The experiment of these fields. Raises ExperimentError for an unknown field or a value of a wrong type."""
    known = {f.name: f for f in fields(Experiment)}
    for name, value in values.items():
        if name not in known:
            raise ExperimentError(unknown("field", name, known))
        check_type(name, value, FIELD_TYPES[name])
    given = dict(values)
    if "metrics" in given:
        given["metrics"] = tuple(given["metrics"])
    if "checkpoint_every" in given:
        given["checkpoint_every"] = float(given["checkpoint_every"])
    return Experiment(**given)


FIELD_TYPES: dict[str, tuple[type, ...]] = (
    dict.fromkeys(("algorithm", "model", "augmentation", "loss", "backend", "dtype", "precision", "kernels"), (str,))
    | dict.fromkeys(("dataset", "data", "device"), (str, type(None)))
    | dict.fromkeys(("held_out", "batch", "epochs", "seed", "evaluate_every"), (int,))
    | dict.fromkeys(("algorithm_options", "model_options", "modifications"), (dict,))
    | dict.fromkeys(("optimizer", "inverse_optimizer"), (dict,))
    | dict.fromkeys(("test", "normalise"), (bool,))
    | {"steps": (int, type(None)), "checkpoint_every": (float,), "metrics": (list, tuple)}
)


def overridden(experiment: Experiment, settings: Iterable[str]) -> Experiment:
    """The experiment with settings "optimizer.eta=0.01": a dotted path, and a value as in TOML (or a bare word).

    Raises ExperimentError for a setting that is none, an unknown field and a value of a wrong type.
    """
    values = as_dict(experiment)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ExperimentError(f'The setting "{setting}" is not understood: write it as optimizer.eta=0.01.')
        *tables, last = path.strip().split(".")
        place = values
        for name in tables:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ExperimentError(f'The setting "{setting}" is not understood: "{name}" is a value, not a table.')
        place[last] = toml_value(text.strip())
    return from_dict(values)


def toml_value(text: str) -> Any:
    """A value as TOML reads it; what TOML does not know is a word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


# Checking


def checked(experiment: Experiment) -> Experiment:
    """The experiment with every default filled in and every name in its full form.

    Optimizers that are not named are ours: those of the demo. Raises ExperimentError, one sentence, for whatever is
    unknown, missing or out of range, as far as it can be known before the data is there.
    """
    from_dict(as_dict(experiment))
    row = find_row(experiment.algorithm)
    if experiment.model not in MODELS:
        raise ExperimentError(unknown("model", experiment.model, MODELS))
    if experiment.loss not in LOSSES:
        raise ExperimentError(unknown("loss", experiment.loss, LOSSES))
    for name in experiment.metrics:
        if name not in METRICS:
            raise ExperimentError(unknown("metric", name, METRICS))
    least = {"batch": 1, "epochs": 1, "steps": 1, "held_out": 0, "seed": 0, "evaluate_every": 1, "checkpoint_every": 0}
    for name, smallest in least.items():
        value = getattr(experiment, name)
        if value is not None and not value >= smallest:
            raise ExperimentError(f"{name} is {value}, expected at least {smallest}.")
    if not experiment.test and not experiment.held_out:
        raise ExperimentError("test is false and held_out is 0, so nothing would be measured: hold out some images.")
    full = replace(
        experiment,
        algorithm=row.name,
        algorithm_options=default_options(experiment, row),
        model_options=default_model_options(experiment, row),
        dataset=experiment.dataset or dataset_of(experiment.model),
        optimizer=default_optimizer(experiment, row),
        inverse_optimizer=default_inverse_optimizer(experiment, row),
    )
    check_options(f'model "{full.model}"', MODELS[full.model], full.model_options)
    resolve_options(row, full.algorithm_options)
    make_optimizer("optimizer", full.optimizer, 1)
    if row.inverses:
        make_optimizer("inverse_optimizer", full.inverse_optimizer, 1)
    elif full.inverse_optimizer:
        raise ExperimentError(f'inverse_optimizer is given, but "{row.name}" learns no inverses: leave it out.')
    wrapped_row(full, row, 1)
    return full


def find_row(name: str) -> registry.Row:
    """The registry's row of a name, or of a label that the papers use. Raises ExperimentError for an unknown one."""
    for row in registry.ROWS:
        if name in (row.name, row.label) or name.lower() == row.label.lower():
            return row
    try:
        return registry.row(name)
    except KeyError as error:
        raise ExperimentError(f"The {error.args[0]}") from error


def dataset_of(model: str) -> str:
    """The dataset that a model of the papers is made for."""
    if model in CIFAR_MODELS:
        return DATASETS["cifar"]
    if model in MNIST_MODELS:
        return DATASETS["mnist"]
    return next((id for word, id in DATASETS.items() if word in model), DATASETS["imagenet"])


def default_options(experiment: Experiment, row: registry.Row) -> dict[str, Any]:
    """The algorithm's options; those of the weight mirror, where none is given, are the demo's."""
    given = plain(experiment.algorithm_options)
    return dict(recipe(row).options) | given if row.module == "weight_mirror" else given


def default_model_options(experiment: Experiment, row: registry.Row) -> dict[str, Any]:
    """The model's options; an auxiliary output where the algorithm needs one."""
    given = plain(experiment.model_options)
    if row.auxiliary:
        if "auxiliary" not in inspect.signature(MODELS[experiment.model]).parameters:
            raise ExperimentError(
                f'"{row.name}" needs an auxiliary output, which model "{experiment.model}" cannot have: '
                "choose one of bartunov2018."
            )
        given = {"auxiliary": AUXILIARY} | given
    return given


def recipe(row: registry.Row) -> recipes.Recipe:
    """How the demo trains a row."""
    return recipes.FULLY_CONNECTED.get(row.name, recipes.DEFAULT_INVERSE if row.inverses else recipes.DEFAULT)


def default_optimizer(experiment: Experiment, row: registry.Row) -> dict[str, Any]:
    """The optimizer, of which the name or the rate may have been left out: ours, as in the demo."""
    found = recipe(row)
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
        completed(given, {"name": "adam", "eta": recipe(row).inverse_eta}, "inverse_optimizer")
        if row.inverses
        else given
    )


def completed(given: dict[str, Any], ours: dict[str, Any], where: str) -> dict[str, Any]:
    """`ours` with what is given; another optimizer than ours needs a rate of its own. Raises ExperimentError."""
    if given.get("name", ours["name"]) == ours["name"]:
        return ours | given
    if "eta" not in given:
        raise ExperimentError(f'{where}.name is "{given["name"]}", but {where}.eta is missing: give a learning rate.')
    return given


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence on an unknown name, with the nearest ones."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3) or sorted(names)
    return f'The {kind} "{name}" is unknown: did you mean {", ".join(close)}?'


def check_type(path: str, value: Any, expected: tuple[type, ...]) -> None:
    """Raise ExperimentError where a value has another type; a whole number is a number, a bool is none."""
    if object in expected or isinstance(value, expected) and not (isinstance(value, bool) and bool not in expected):
        return
    if float in expected and isinstance(value, int) and not isinstance(value, bool):
        return
    names = {
        float: "a number",
        int: "a whole number",
        str: "a text",
        bool: "true or false",
        dict: "a table",
        list: "a list",
    }
    wanted = " or ".join(dict.fromkeys(names[t] for t in expected if t in names))
    raise ExperimentError(f"{path} is {value!r}, expected {wanted}.")


def check_options(what: str, function: Callable, options: Table, known: Iterable[str] | None = None) -> None:
    """Raise ExperimentError for an option that a function does not take, or whose type is not its default's."""
    parameters = inspect.signature(function).parameters
    names = list(parameters if known is None else known)
    for name, value in options.items():
        if name not in names:
            raise ExperimentError(unknown(f"option of {what}", name, names))
        default = parameters[name].default if name in parameters else None
        if isinstance(default, bool | int | float | str) and not (name == "noise" and isinstance(value, dict)):
            check_type(f"{name} of {what}", value, (float,) if name == "mirror_per_batch" else (type(default),))


# Building


def algorithm_parameters(row: registry.Row) -> tuple[str, ...]:
    """The options that a row's algorithm takes."""
    own = inspect.signature(row.make).parameters
    names = set(own) - {"network", "loss", "optimizer", "inverse_optimizer", "options"}
    if "options" in own:
        shared = inspect.signature(algorithms.target_propagation.target_propagation).parameters
        names |= {"noise", "schedule", "inverse", "initializer", "inverse_initializer"} & set(shared)
    return tuple(sorted(names))


def resolve_options(row: registry.Row, options: Table) -> dict[str, Any]:
    """An algorithm's options, with functions in the place of their names. Raises ExperimentError."""
    what = f'algorithm "{row.name}"'
    resolved = {}
    check_options(what, row.make, options, algorithm_parameters(row))
    for name, value in options.items():
        if name in WORDS and isinstance(value, str):
            words = WORDS[name]
            word = value.replace("-", "_") if words is INITIALIZERS else value
            if word not in words:
                raise ExperimentError(unknown(f"{name} of {what}", value, words))
            value = words[word]
        elif name == "inverse" and isinstance(value, dict) and set(value) == {"wider"}:
            kernel = value["wider"]
            value = inverses.wider_inverse(tuple(kernel) if isinstance(kernel, list) else kernel)
        elif name == "naive" or name in WORDS:
            raise ExperimentError(f"{name} of {what} is {value!r}, expected one of {', '.join(WORDS[name])}.")
        elif name == "schedule":
            known = {"parallel": algorithms.target_propagation.parallel, "alternating": algorithms.alternating}
            if value not in known:
                raise ExperimentError(unknown(f"schedule of {what}", str(value), known))
            value = known[value]
        elif name == "noise" and isinstance(value, dict):
            value = {int(l): float(sigma) for l, sigma in value.items()}
        resolved[name] = value
    return resolved


def rate(where: str, eta: Any, steps: int) -> Any:
    """A learning rate as `optimizers` has it, for so many updates an epoch. Raises ExperimentError."""
    if not isinstance(eta, dict):
        check_type(f"{where}.eta", eta, (float,))
        return float(eta)
    kind = eta.get("kind")
    if kind not in SCHEDULES:
        raise ExperimentError(unknown(f"schedule kind of {where}.eta", str(kind), SCHEDULES))
    allowed = {"kind", "epochs", "updates", *SCHEDULES[kind]}
    for name in eta:
        if name not in allowed:
            raise ExperimentError(unknown(f"entry of {where}.eta", name, allowed))
    missing = [name for name in SCHEDULES[kind] if name not in eta]
    if missing or ("epochs" in eta) == ("updates" in eta):
        raise ExperimentError(
            f'{where}.eta of kind "{kind}" needs {", ".join(SCHEDULES[kind])}, and either epochs or updates, not both.'
        )
    factor = steps if "epochs" in eta else 1
    when: Any = eta.get("epochs", eta.get("updates"))
    try:
        if kind == "piecewise":
            return optimizers.piecewise(tuple(map(float, eta["values"])), tuple(round(e * factor) for e in when))
        if kind == "staircase":
            return optimizers.staircase(float(eta["eta"]), float(eta["factor"]), max(1, round(when * factor)))
        return optimizers.warm_up(rate(where, eta["eta"], steps), max(1, round(when * factor)))
    except (TypeError, ValueError) as error:
        raise ExperimentError(f"{where}.eta is not understood: {error}.") from error


def make_optimizer(where: str, options: Table, steps: int, last: int | None = None) -> Optimizer:
    """An optimizer from its table; last: the number of the network's last layer with synapses.

    Raises ExperimentError for what it does not take.
    """
    own = dict(options)
    by_layer = own.pop("by_layer", {})
    name = own.pop("name")
    if name not in OPTIMIZERS:
        raise ExperimentError(unknown(f"{where}.name", str(name), OPTIMIZERS))
    check_options(f'{where} "{name}"', OPTIMIZERS[name], own)
    eta = rate(where, own.pop("eta"), steps)
    try:
        default = OPTIMIZERS[name](eta, **own)
    except ValueError as error:
        raise ExperimentError(f"{where}: {error}.") from error
    check_type(f"{where}.by_layer", by_layer, (dict,))
    if not by_layer:
        return default
    special = {}
    for layer, changes in by_layer.items():
        if layer != "last" and not str(layer).isdigit():
            raise ExperimentError(f'{where}.by_layer names "{layer}", expected the number of a layer or "last".')
        check_type(f"{where}.by_layer.{layer}", changes, (dict,))
        number = (last or 0) if layer == "last" else int(layer)
        mine = {k: v for k, v in options.items() if k != "by_layer"}
        special[number] = make_optimizer(f"{where}.by_layer.{layer}", mine | changes, steps)
    return optimizers.by_layer(default, special)


def wrapped_row(experiment: Experiment, row: registry.Row, total: int) -> registry.Row:
    """The row with the experiment's modifications: options of its own wrappers, and further ones around them.

    total: batches of the whole run, of which `start_share` of E/I is a share. Raises ExperimentError.
    """
    given = {name: dict(options) for name, options in plain(experiment.modifications).items()}
    chosen = [(name, dict(options) | given.pop(name, {})) for name, options in row.wrappers] + list(given.items())
    wrappers = []
    for name, options in chosen:
        if name not in registry.MODIFICATIONS:
            raise ExperimentError(unknown("modification", name, registry.MODIFICATIONS))
        if name == "fixed-signs":
            if "start_share" in options:
                check_type("start_share of fixed-signs", options["start_share"], (float,))
                options["start"] = round(options.pop("start_share") * total)
            if "start" not in options:
                raise ExperimentError('The modification "fixed-signs" needs start (updates) or start_share (0 to 1).')
        check_options(f'modification "{name}"', registry.MODIFICATIONS[name], options)
        wrappers.append((name, options))
    return row._replace(wrappers=tuple(wrappers))


def build_network(experiment: Experiment, shape: Shape) -> tuple[Network, bool]:
    """The network for data of that shape, and whether its targets are its inputs. Raises ExperimentError."""
    constructor, options = MODELS[experiment.model], plain(experiment.model_options)
    parameters = inspect.signature(constructor).parameters
    vector = len(options.get("in_shape", parameters["in_shape"].default)) == 1
    in_shape: tuple[int, ...] = shape.in_shape
    if vector:
        in_shape = (in_shape[0] * in_shape[1] * in_shape[2],)
    if tuple(options.pop("in_shape", in_shape)) != in_shape:
        asked = experiment.model_options["in_shape"]
        raise ExperimentError(f"model_options.in_shape is {asked}, but the images have {in_shape}: leave it out.")
    rebuilds = "classes" not in parameters
    if not rebuilds and options.setdefault("classes", shape.classes) < shape.classes:
        asked = options["classes"]
        raise ExperimentError(f"model_options.classes is {asked}, but the dataset has {shape.classes}: leave it out.")
    try:
        return constructor(in_shape=in_shape, **options), rebuilds
    except (ValueError, TypeError) as error:
        raise ExperimentError(
            f'The model "{experiment.model}" cannot be built for images {shape.in_shape}: {error}.'
        ) from error


def build(experiment: Experiment, backend: Backend, shape: Shape) -> Built:
    """The network, loss and algorithm of a checked experiment. Raises ExperimentError."""
    row = find_row(experiment.algorithm)
    network, rebuilds = build_network(experiment, shape)
    network = network.with_kernels(backend.kernels).with_dtype(backend.dtype)
    outputs = network[network.L].out_shape[0] - experiment.model_options.get("auxiliary", 0)
    loss = registry.task_loss(row, LOSSES[experiment.loss](), outputs)
    last = network.weighted[-1]
    row = wrapped_row(experiment, row, experiment.epochs * shape.steps)._replace(
        options=dict(row.options) | resolve_options(row, experiment.algorithm_options)
    )
    optimizer = make_optimizer("optimizer", experiment.optimizer, shape.steps, last)
    inverse = (
        make_optimizer("inverse_optimizer", experiment.inverse_optimizer, shape.steps, last) if row.inverses else None
    )
    try:
        return Built(network, loss, row.build(network, loss, optimizer, inverse), row, rebuilds)
    except ValueError as error:
        raise ExperimentError(f'The algorithm "{row.name}" cannot learn on "{experiment.model}": {error}.') from error


def plain(value: Any) -> Any:
    """Nested dicts and lists, as TOML has them."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
