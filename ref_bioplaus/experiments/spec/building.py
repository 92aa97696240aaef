"""From an experiment to what learns: names become functions, tables optimizers, and all of it an algorithm.

Whatever cannot be built is said in one sentence, an ExperimentError, that names the value and what to change.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

from ... import optimizers, registry
from ...backends import Backend
from ...initializers import Given
from ...network import Network
from ...optimizers import feedback_in_float32, in_float32
from ...registry import shapes
from ...registry.names import parameters
from ...showing.words import unknown
from ...types import Algorithm, Loss, Optimizer, State
from .experiment import Experiment, ExperimentError, Table, check_type, plain
from .names import LOSS, MODEL, MODIFICATION, OPTIMIZER, find_row, is_own, thing
from .options import INT32, layer_number, own, parsed, positive, whole
from .taken import OPTIONS, algorithm_parameters, options_of, parameters_of, resolve_options

SHARES = {"fixed-signs": ("start_share",)}  # of the run's updates, in the place of `start`
SCHEDULES = {"piecewise": ("values",), "staircase": ("eta", "factor"), "warm-up": ("eta",)}


class Shape(NamedTuple):
    """What an experiment must know of its data."""

    in_shape: tuple[int, ...]  # of an image, (height, width, channels), or of a vector
    classes: int  # or how many numbers a target has
    steps: int  # batches in an epoch
    targets: str = "classes"  # real-valued "values", or "inputs"


class Built(NamedTuple):
    """An experiment's network, loss and algorithm, bound to a backend's kernels and dtype."""

    network: Network
    loss: Loss
    make: Callable[[Network], Algorithm]
    algorithm: Algorithm
    row: registry.Row
    targets: str  # what is learned: "classes", "boxes", real-valued "values", or "inputs" themselves (an autoencoder)

    @property
    def flat(self) -> bool:
        """Whether the network takes images as vectors."""
        return len(self.network[0].out_shape) == 1


def rate(where: str, eta: Any, steps: int) -> Any:
    """A learning rate as `optimizers` has it, for so many updates an epoch. Raises ExperimentError."""
    if not isinstance(eta, dict):
        return positive(f"{where}.eta", eta)
    kind = str(eta.get("kind"))
    if kind not in SCHEDULES:
        raise ExperimentError(unknown(f"schedule kind of {where}.eta", kind, SCHEDULES))
    allowed = {"kind", "epochs", "updates", *SCHEDULES[kind]}
    for name in eta:
        if name not in allowed:
            raise ExperimentError(unknown(f"entry of {where}.eta", name, allowed))
    missing = [name for name in SCHEDULES[kind] if name not in eta]
    if missing or ("epochs" in eta) == ("updates" in eta):
        raise ExperimentError(
            f'{where}.eta of kind "{kind}" needs {", ".join(SCHEDULES[kind])}, and either epochs or updates, not both.'
        )
    unit, factor = ("epochs", steps) if "epochs" in eta else ("updates", 1)
    several = kind == "piecewise"
    check_type(f"{where}.eta.{unit}", eta[unit], (list if several else float,))
    given = eta[unit] if several else [eta[unit]]
    times = [min(round(factor * positive(f"{where}.eta.{unit}", t)), INT32) for t in given]
    if several:
        check_type(f"{where}.eta.values", eta["values"], (list,))
        values = tuple(positive(f"{where}.eta.values", value) for value in eta["values"])
        try:
            return optimizers.piecewise(values, tuple(times))
        except ValueError as error:
            raise ExperimentError(f"{where}.eta is not understood: {error}.") from error
    if kind == "staircase":
        if not positive(f"{where}.eta.factor", eta["factor"]):
            raise ExperimentError(f"{where}.eta.factor is 0, expected a number above 0.")
        return optimizers.staircase(positive(f"{where}.eta.eta", eta["eta"]), float(eta["factor"]), max(1, times[0]))
    return optimizers.warm_up(rate(where, eta["eta"], steps), max(1, times[0]))


def make_optimizer(where: str, options: Table, steps: int, network: Network | None = None) -> Optimizer:
    """An optimizer from its table; network: says which layers there are, where it is known already.

    Raises ExperimentError for what it does not take.
    """
    given = dict(options)
    by_layer = given.pop("by_layer", {})
    name = given.pop("name")
    check_type(f"{where}.name", name, (str,))
    make = thing(OPTIMIZER, name, f"{where}.name")
    given = options_of(f'{where} "{name}"', make, given, more={"eta": lambda path, eta: rate(where, eta, steps)})
    try:
        default = giving(Optimizer, f'{where} "{name}"', make)(**given)
    except ExperimentError:
        raise
    except ValueError as error:
        raise ExperimentError(f"{where}: {error}.") from error
    check_type(f"{where}.by_layer", by_layer, (dict,))
    if not by_layer:
        return default
    special = {}
    for layer, changes in by_layer.items():
        last = 0 if network is None else network.weighted[-1]
        l = last if layer == "last" else layer_number(f"{where}.by_layer", layer, ' or "last"')
        check_type(f"{where}.by_layer.{layer}", changes, (dict,))
        if network is not None and l > network.L:
            raise ExperimentError(f"{where}.by_layer names layer {l}, expected one of 0 to {network.L}.")
        mine = {k: v for k, v in options.items() if k != "by_layer"}
        special[l] = make_optimizer(f"{where}.by_layer.{layer}", mine | changes, steps)
    return optimizers.by_layer(default, special)


def wrapped_row(experiment: Experiment, row: registry.Row, total: int) -> registry.Row:
    """The row with the experiment's modifications: options of its own wrappers, and further ones around them.

    total: batches of the whole run, of which `start_share` of E/I is a share. Raises ExperimentError.
    """
    given = plain(experiment.modifications)
    for name, options in given.items():
        check_type(f"modifications.{name}", options, (dict,))
    chosen = [(name, dict(options) | given.pop(name, {})) for name, options in row.wrappers] + list(given.items())
    wrappers: list[tuple[Any, Table]] = []
    for name, options in chosen:
        what, wrapper = f'modification "{name}"', name if callable(name) else thing(MODIFICATION, name)
        if own(wrapper):
            options = options_of(what, wrapper, options, 1)
            wrappers.append((giving(Optimizer, what, wrapper), options))
            continue
        options = parsed(what, [*list(parameters(wrapper))[1:], *SHARES.get(name, ())], options, OPTIONS)
        if "start_share" in options:
            options["start"] = round(options.pop("start_share") * total)
        if name == "fixed-signs" and "start" not in options:
            raise ExperimentError('The modification "fixed-signs" needs start (updates) or start_share (0 to 1).')
        wrappers.append((name, options))
    return row._replace(wrappers=tuple(wrappers))


def giving(kind: type, what: str, make: Callable) -> Callable:
    """A function of one's own, which raises ExperimentError where it returns anything else than it has to."""

    def called(*arguments, **options):
        found = make(*arguments, **options)
        if not isinstance(found, kind):
            raise ExperimentError(f"The {what} returns a {type(found).__name__}, expected {kind.__name__}.")
        return found

    return called


def rebuilds(model: str) -> bool:
    """Whether a model's targets are its inputs: it has no classes."""
    found = parameters(thing(MODEL, model))
    return "classes" not in found and not any(p.kind == p.VAR_KEYWORD for p in found.values())


def detects(model: str) -> bool:
    """Whether a model finds boxes: its function takes how many anchors a pixel has."""
    return "anchors" in parameters(thing(MODEL, model))


def targets_of(model: str, given: str) -> str:
    """What a model learns from data with such targets: "classes", "boxes", "values" or "inputs"."""
    return "boxes" if detects(model) else "inputs" if rebuilds(model) else given


def learned(experiment: Experiment, shape: Shape, network: Network) -> str:
    """What a network learns; one that does not ask for the number of classes learns real-valued targets where it has an
    output for each, and else its inputs. Raises ExperimentError where it has not as many outputs as these."""
    targets, inputs = targets_of(experiment.model, shape.targets), math.prod(shape.in_shape)
    if targets == "boxes":
        return targets
    outputs = math.prod(network[network.L].out_shape) - experiment.model_options.get("auxiliary", 0)
    if targets != "inputs":
        if outputs != shape.classes and not is_own(LOSS, experiment.loss):
            kind = {"classes": "classes"}.get(shape.targets, "numbers in a target")
            raise ExperimentError(
                f'The model "{experiment.model}" has {outputs} outputs, but the data have {shape.classes} {kind}: '
                "make as many outputs as `classes` says."
            )
        return targets
    if shape.targets == "values" and outputs == shape.classes:
        return "values"
    if outputs != inputs:
        raise ExperimentError(
            f'The model "{experiment.model}" takes no number of classes, so its targets are its {inputs} inputs, but '
            f"it has {outputs} outputs: give its function the parameter classes."
        )
    return targets


def check_loss(experiment: Experiment, targets: str) -> None:
    """Raise ExperimentError where a loss is not of such targets."""
    if (targets == "boxes") != (experiment.loss == "detection") and not is_own(LOSS, experiment.loss):
        what = f'model "{experiment.model}" finds boxes' if targets == "boxes" else "nothing here finds boxes"
        usual = {"boxes": "detection", "classes": "cross-entropy"}.get(targets, "squared-error")
        raise ExperimentError(f'loss is "{experiment.loss}", but {what}: choose "{usual}".')
    if targets == "boxes":
        return
    if targets == "classes" or experiment.loss == "squared-error" or is_own(LOSS, experiment.loss):
        return
    if targets == "values" and experiment.loss != "cross-entropy":
        return
    kind = f'of model "{experiment.model}" are its inputs' if targets == "inputs" else "here are real-valued"
    whole = ", or give whole numbers, which are those of classes" if targets == "values" else ""
    raise ExperimentError(
        f'loss is "{experiment.loss}", but the targets {kind}, not classes: choose "squared-error"{whole}.'
    )


def build_loss(experiment: Experiment, classes: int) -> Loss:
    """The task, of so many classes where it asks for them. Raises ExperimentError."""
    make, what = thing(LOSS, experiment.loss), f'loss "{experiment.loss}"'
    given = (classes,) if experiment.loss == "detection" else ()
    options = options_of(what, make, plain(experiment.loss_options), len(given))
    try:
        return giving(Loss, what, make)(*given, **options)
    except ExperimentError:
        raise
    except ValueError as error:
        raise ExperimentError(f"The {what} cannot be built: {error}.") from error


def build_network(experiment: Experiment, shape: Shape) -> Network:
    """The network for data of that shape. Raises ExperimentError."""
    constructor, options = thing(MODEL, experiment.model), plain(experiment.model_options)
    usual = parameters_of(constructor).get("in_shape")
    vector = len(options.get("in_shape", usual if isinstance(usual, tuple | list) else shape.in_shape)) == 1
    in_shape: tuple[int, ...] = shape.in_shape
    if vector:
        in_shape = (math.prod(in_shape),)
    elif len(in_shape) == 1:
        raise ExperimentError(
            f'The model "{experiment.model}" takes images, but the samples are vectors of {in_shape[0]} numbers: give '
            "them as (N, height, width, channels), or choose a model of vectors, as bartunov2018/mnist-fc."
        )
    if tuple(options.pop("in_shape", in_shape)) != in_shape:
        asked = experiment.model_options["in_shape"]
        raise ExperimentError(f"model_options.in_shape is {asked}, but the images have {in_shape}: leave it out.")
    if not rebuilds(experiment.model) and options.setdefault("classes", shape.classes) != shape.classes:
        asked, kind = options["classes"], {"classes": ""}.get(shape.targets, " outputs")
        raise ExperimentError(
            f"model_options.classes is {asked}, but the dataset has {shape.classes}{kind}: leave it out."
        )
    try:
        return giving(Network, f'model "{experiment.model}"', constructor)(in_shape=in_shape, **options)
    except ExperimentError:
        raise
    except (ValueError, TypeError) as error:
        raise ExperimentError(
            f'The model "{experiment.model}" cannot be built for images {shape.in_shape}: {error}.'
        ) from error


def build(
    experiment: Experiment, backend: Backend, shape: Shape, begin: Callable[[Network], Given] | None = None
) -> Built:
    """The network, loss and algorithm of a checked experiment. begin: gives the first weights, where they are given.

    Raises ExperimentError.
    """
    row = find_row(experiment.algorithm)
    network = build_network(experiment, shape)
    network = network.with_kernels(backend.kernels).with_dtype(backend.dtype)
    outputs = network[network.L].out_shape[0] - experiment.model_options.get("auxiliary", 0)
    targets = learned(experiment, shape, network)
    check_loss(experiment, targets)
    loss = registry.task_loss(row, build_loss(experiment, shape.classes), outputs)
    total = experiment.epochs * shape.steps
    whole()("the number of updates", min(total, experiment.steps or total))
    row = wrapped_row(experiment, row, total)._replace(
        options=dict(row.options) | resolve_options(row, experiment.algorithm_options)
    )
    if begin is not None:
        row = row._replace(options=dict(row.options) | {"initializer": started(experiment, row, network, begin)})
    optimizer = make_optimizer("optimizer", experiment.optimizer, shape.steps, network)
    inverse = None
    if row.inverses:
        inverse = make_optimizer("inverse_optimizer", experiment.inverse_optimizer, shape.steps, network)
        check_noise(row, network)

    learning = row._replace(make=with_float32(row)) if experiment.dtype == "bfloat16" else row

    def make(network: Network) -> Algorithm:
        return giving(Algorithm, f'algorithm "{row.name}"', learning.build)(network, loss, optimizer, inverse)

    try:
        algorithm = make(network)
        check_modes(row, algorithm)
        return Built(network, loss, make, algorithm, row, targets)
    except ExperimentError:
        raise
    except ValueError as error:
        raise ExperimentError(f'The algorithm "{row.name}" cannot learn on "{experiment.model}": {error}.') from error


def with_float32(row: registry.Row) -> Callable[..., Algorithm]:
    """A row's rule whose optimizers, with all that is wrapped around them, learn in float32 what is held in bfloat16;
    and so do modes of its own that move feedback weights without one."""

    @wraps(row.make)
    def made(network: Network, loss: Loss, *given: Optimizer, **options: Any) -> Algorithm:
        algorithm = row.make(network, loss, *map(in_float32, given), **options)
        aside = [mode for mode in algorithm.modes if not (row.inverses or row.learns(mode))]
        return feedback_in_float32(algorithm, aside) if aside else algorithm

    return made


def started(experiment: Experiment, row: registry.Row, network: Network, begin: Callable[[Network], Given]) -> Given:
    """The first weights, in the place of an initializer. Raises ExperimentError where the algorithm draws its own."""
    if "initializer" not in algorithm_parameters(row):
        raise ExperimentError(
            f'The algorithm "{row.name}" takes no initializer, so it cannot begin from given weights: give its '
            "function the parameter initializer, and hand that to initializers.new_state."
        )
    if "initializer" in experiment.algorithm_options:
        raise ExperimentError(
            "algorithm_options.initializer draws the first weights, but the run begins from given ones: leave out one "
            "of them."
        )
    return begin(network)


def check_modes(row: registry.Row, algorithm: Algorithm) -> None:
    """Raise ExperimentError where a rule's schedule asks for a mode that it does not have."""
    for mode in algorithm.schedule(0, 0):
        if mode not in algorithm.modes:
            raise ExperimentError(
                f'The algorithm "{row.name}" has the modes {", ".join(algorithm.modes) or "none"}, but its schedule '
                f'asks for "{mode}": call one so, or give Algorithm a schedule.'
            )


def first_state(experiment: Experiment, built: Built, backend: Backend | None) -> State:
    """The state before the first step: the same each time. None: its shapes alone. Raises ExperimentError."""
    try:
        if backend is None:
            return shapes.kept(built.make, built.network)
        return built.algorithm.init(backend.key(experiment.seed))
    except ValueError as error:
        raise ExperimentError(
            f'The algorithm "{built.row.name}" cannot start on "{experiment.model}": {error}.'
        ) from error


def check_noise(row: registry.Row, network: Network) -> None:
    """Raise ExperimentError where noise is given by layer, but not for every layer whose inverse is learned."""
    noise = row.options.get("noise")
    last = network.L - 1 if "alpha" in parameters_of(row.make) else network.L
    needed = [l for l in network.weighted if 1 < l <= last]
    if isinstance(noise, dict) and not set(needed) <= set(noise):
        raise ExperimentError(
            f"algorithm_options.noise names layers {sorted(noise)}, expected all of {needed}, or one number."
        )
