"""An experiment as a value: everything that is needed to repeat it, checked before anything starts.

    experiment = Experiment(algorithm="kolen-pollack", data="mnist", backend="jax", epochs=5)
    experiment = overridden(read(Path("kp.toml")), ["optimizer.eta=0.01", "seed=3"])

A learning rate is a number or a schedule, in epochs or in the optimizer's own updates:

    {kind = "piecewise", values = [1e-4, 1e-5], epochs = [20]}
    {kind = "staircase", eta = 0.1, factor = 0.1, epochs = 10}
    {kind = "warm-up", eta = 0.1, epochs = 5}                          eta may itself be a schedule

Of algorithm_options an initializer is a word, {normal = 3.0} (a deviation) or {uniform = 1.0} (a bound); the inverse of
target propagation "mirrored", "dense", {wider = 5}, or one of these with neurons of another kind (inverses.py):

    inverse = {form = "dense", nonlinearity = "none", bias = false}

What names a thing (see places.py) takes one of ours, one that an installed package enrols, "module:object" or
"path/file.py:object", and in Python the thing itself: `Experiment(algorithm=my_rule)`.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ... import naming
from ...machine import files
from ...registry import names
from ...showing.words import shown, unknown
from . import places

Table = Mapping[str, Any]
Name = Any  # a text; a call may give what it stands for, and the field then holds the name of that
PLACES = (*places.FIELDS, *places.OPTIMIZERS, "modifications", "metrics")  # fields that name things
METRICS = tuple(names.METRIC.known)


class ExperimentError(ValueError):
    """An experiment that cannot be run as it stands; the message is one sentence that says what to change."""


@dataclass(frozen=True)
class Experiment:
    """What is learned, by which rule, from what, with what; None and {} are filled in by `checked`."""

    algorithm: Name = "backprop"  # a name of `list algorithms`, or a label of the papers, as "KP"
    algorithm_options: Table = field(default_factory=dict)  # of its function in algorithms/
    model: Name = "bartunov2018/mnist-fc"
    model_options: Table = field(default_factory=dict)
    dataset: Name = None  # an id of the Hugging Face hub, or "embedded"; None: what the model is made for, or OWN
    data: str | None = None  # a folder in the hub's layout
    config: str | None = None  # of the dataset's configurations, where it has several
    layout: Table = field(default_factory=dict)  # {image_column, label_column, train_split, test_split} of its tables
    boxes: Table = field(default_factory=dict)  # of a detector: {side, smallest, best_anchor, ignored_below}
    augmentation: Name = "none"
    normalise: bool = True  # pixels to mean 0 and deviation 1 per channel over the training images; false: 0 to 1
    inputs: Table = field(default_factory=dict)  # {shape, classes, mean, ...}: what the network gets, see INPUTS
    held_out: int = 0  # training images kept for validation
    skip_unreadable: int = 0  # images that may be left out as they cannot be read; see left_out.py
    test: bool = True  # whether the test images are measured
    loss: Name = None  # None: cross-entropy, or squared-error where no classes are learned
    loss_options: Table = field(default_factory=dict)  # of its function in losses.py
    optimizer: Table = field(default_factory=dict)  # {name, eta, ...}, by_layer: {layer number or "last": {eta, ...}}
    inverse_optimizer: Table = field(default_factory=dict)  # of target propagation
    modifications: Table = field(default_factory=dict)  # {name: options}, innermost first, behind the algorithm's own
    start: str | None = None  # a file of weights to begin from, as `export` writes; None: they are drawn
    start_sha256: str | None = None  # of the weights that are begun from, as a run has found it
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
    metrics: tuple[Name, ...] = METRICS
    code: Table | None = None  # of each name of code above {file, sha256}, as a run has found it

    def __post_init__(self) -> None:
        nameless = dict[str, naming.Given]()

        def named(kind, value):
            name = name_of(kind, value)
            if isinstance(name, naming.Given) and naming.nameless(name):
                name = naming.told_apart(name, nameless)
                nameless[name] = name
            return name

        for name, value in places.changed(vars(self), named).items():
            if name == "modifications" and isinstance(value, dict) and len(value) < len(self.modifications):
                raise ExperimentError("modifications has two functions of one name: give one of them another.")
            if name in PLACES:
                object.__setattr__(self, name, value)


def name_of(kind: str, value: Any) -> Any:
    """The name of a thing that a call has given; what is no thing stays as it is."""
    text = value is None or isinstance(value, str | int | float | list | dict | os.PathLike) or type(value) is tuple
    return value if text else names.name_of(kind, value)


DEEPEST = 20  # tables within each other; a schedule of schedules for one layer has five
OWN = "own"  # the dataset of images that are given, in a folder or as arrays, without the name of one
# The images that a run learned from, for whoever predicts with what it learned: (height, width, channels), the classes'
# names, per channel what brightness in [0, 1] is reduced and then divided by, and whether images varied in size and
# were resized before they were cropped. A run fills them in from its data, but for images that do not tell; those that
# are given are used. Only of what are no images of 8 bits: the scale "values", of numbers that are as they are; only of
# real-valued targets: outputs, how many. No classes and no outputs: the targets are the inputs.
INPUTS = ("shape", "classes", "mean", "deviation", "resized", "scale", "outputs")
NOT_LEARNING = (
    "backend",
    "device",
    "kernels",
    "data",
    "start",
    "inputs",
    "skip_unreadable",
    "epochs",
    "steps",
    "evaluate_every",
    "checkpoint_every",
    "metrics",
    "test",
    "code",
)
ADJUSTABLE = ("optimizer", "inverse_optimizer")  # whose numbers a run may go on with others of


# Files


def read(path: Path, named: Iterable[str] = ()) -> Experiment:
    """The experiment of a TOML file. named: see `from_dict`. Raises ExperimentError where it cannot be read or
    understood."""
    text = ""
    try:
        text = files.content(path).decode("utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise ExperimentError(f"The experiment {path} cannot be read ({error.strerror}): name another file.") from error
    except RecursionError as error:
        raise ExperimentError(f"The experiment {path} is nested too deeply.") from error
    except ValueError as error:  # not TOML, not UTF-8, or an integer of thousands of digits
        raise ExperimentError(f"The experiment {path} is not TOML ({error}){respelled(text, error)}.") from error
    return from_dict(values, named)


def respelled(text: str, error: ValueError) -> str:
    """For a sentence: how TOML writes the number, true or false that it does not read in a line."""
    line = re.search(r"at line (\d+)", str(error))
    for word in re.split(r"[\s=,{}\[\]]+", text.splitlines()[int(line[1]) - 1]) if line else ():
        if isinstance(toml_value(word), str) and (written := spelled(word)):
            return f": write {word} as {written}"
    return ""


def spelled(word: str) -> str | None:
    """How TOML writes a number, true or false that Python writes otherwise, as .01, 1. or True; None of other words."""
    if word.lower() in ("true", "false"):
        return word.lower()
    try:
        return str(int(word)) if word.lstrip("+-").isdigit() else repr(float(word))
    except ValueError:
        return None


def as_toml(experiment: Experiment) -> str:
    """The text of a TOML file that `read` turns into the same experiment."""
    import tomli_w

    return tomli_w.dumps(as_dict(experiment))


def as_dict(experiment: Experiment) -> dict[str, Any]:
    """Its fields, without those that are None."""
    return {name: plain(value) for name, value in asdict(experiment).items() if value is not None}


def from_dict(values: Table, named: Iterable[str] = ()) -> Experiment:
    """The experiment of these fields. Raises ExperimentError for an unknown field or a value of a wrong type.

    named: names of code that a call or a command gave, and files and modules that hold some. Those of `values` that are
    not among them are taken for a file's: naming.Stored, so that nothing is imported for them.
    """
    known = {f.name: f for f in fields(Experiment)}
    for name, value in values.items():
        if name not in known:
            raise ExperimentError(unknown("field", name, known))
        check_type(name, value, FIELD_TYPES[name])
        if depth([value]) > DEEPEST:
            raise ExperimentError(f"{name} is nested too deeply: expected at most {DEEPEST} tables within each other.")
    given = dict(values)
    if "metrics" in given:
        given["metrics"] = tuple(given["metrics"])
    if "checkpoint_every" in given:
        given["checkpoint_every"] = float(given["checkpoint_every"])
    known_code = given.get("code") or {}
    for name, record in known_code.items():
        check_type(f'code."{name}"', record, (dict,))
        for key, value in record.items():
            check_type(f'code."{name}".{key}', value, (str,))
    asked = list(named)
    nameless = given_again(list(places.names(given)), asked)

    def again(kind, name):
        if not isinstance(name, str) or isinstance(name, naming.Given) or not naming.is_code(name):
            return name
        found = nameless.get(name) if naming.nameless(name) else naming.named_again(name, asked)
        option = f"--{kind}" if kind == "backend" else "--code"
        return naming.stored(name, option, known_code.get(name)) if found is None else found

    return Experiment(**places.changed(given, again))


def given_again(stored: Iterable[tuple[str, Any]], asked: Iterable[str]) -> dict[str, naming.Given]:
    """What a call gives for names that lead to nothing, as those of lambdas: for each the first that can be its kind,
    as nothing else tells them apart; those that the fewest can be choose first."""
    wanted = {name: kind for kind, name in stored if isinstance(name, str)}
    spare = [one for one in asked if isinstance(one, naming.Given) and (naming.nameless(one) or one not in wanted)]
    left = {id(one) for one in spare}  # several are equal as texts
    able = {
        name: [one for one in spare if names.fits(kind, naming.made_of(one))]
        for name, kind in wanted.items()
        if naming.is_code(name) and naming.nameless(name)
    }
    found = dict[str, naming.Given]()
    for name in sorted(able, key=lambda name: len(able[name])):
        one = next((one for one in able[name] if id(one) in left), None)
        if one is not None:
            left.remove(id(one))
            found[name] = naming.at_hand(name, one.thing, one.module, lasting=False)
    return found


def changed(experiment: Experiment, changes: Table) -> Experiment:
    """The experiment with other values in some fields. Raises ExperimentError for a field that there is not."""
    known = [f.name for f in fields(Experiment)]
    for name in changes:
        if name not in known:
            raise ExperimentError(unknown("field", name, known))
    return replace(experiment, **changes)


FIELD_TYPES: dict[str, tuple[type, ...]] = (
    dict.fromkeys(("algorithm", "model", "augmentation", "backend", "dtype", "precision", "kernels"), (str,))
    | dict.fromkeys(("dataset", "data", "config", "device", "loss", "start", "start_sha256"), (str, type(None)))
    | dict.fromkeys(("held_out", "skip_unreadable", "batch", "epochs", "seed", "evaluate_every"), (int,))
    | dict.fromkeys(("algorithm_options", "model_options", "loss_options", "modifications"), (dict,))
    | dict.fromkeys(("optimizer", "inverse_optimizer", "inputs", "layout", "boxes"), (dict,))
    | dict.fromkeys(("test", "normalise"), (bool,))
    | {"steps": (int, type(None)), "checkpoint_every": (float,), "metrics": (list, tuple), "code": (dict, type(None))}
)


def named_code(values: Table) -> tuple[str, ...]:
    """The names of code in an experiment's fields, as `as_dict` has them, that a call or a command gave itself."""
    return naming.named(name for _, name in places.names(values) if isinstance(name, str) and naming.is_code(name))


def to_name_again(experiment: Experiment) -> tuple[str, ...]:
    """The words of a command that name the code of an experiment again, which `resume` asks for."""
    code = [(kind, name) for kind, name in places.names(as_dict(experiment)) if naming.is_code(name)]
    files_of = dict.fromkeys(naming.parts(name)[0] for kind, name in code if kind != "backend")
    backend = [("--backend", name) for kind, name in code if kind == "backend"]
    return tuple(word for pair in [*backend, *(("--code", file) for file in files_of)] for word in pair)


def overridden(experiment: Experiment, settings: Iterable[str], named: Iterable[str] = ()) -> Experiment:
    """The experiment with settings "optimizer.eta=0.01": a dotted path, and a value as in TOML (or a bare word). Code
    that a setting names is named by the command, as what `named` has (see `from_dict`).

    Raises ExperimentError for a setting that is none, an unknown field and a value of a wrong type.
    """
    values = as_dict(experiment)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ExperimentError(f'The setting "{setting}" is not understood: write it as optimizer.eta=0.01.')
        *tables, last = keys(path.strip())
        place = values
        for name in tables:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ExperimentError(f'The setting "{setting}" is not understood: "{name}" is a value, not a table.')
        place[last] = toml_value(text.strip())
    return from_dict(values, (*named_code(values), *named))


def keys(path: str) -> list[str]:
    """The parts of a dotted path, as TOML reads them: modifications."my_rule.py:clip".strength has three."""
    if '"' not in path:
        return path.split(".")
    try:
        place, found = tomllib.loads(f"{path} = 0"), list[str]()
    except ValueError as error:
        raise ExperimentError(f"The setting {path} is not understood: write its path as TOML does.") from error
    while isinstance(place, dict):
        ((key, place),) = place.items()
        found.append(key)
    return found


def toml_value(text: str) -> Any:
    """A value as TOML reads it; what TOML does not know is a word."""
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits
        raise ExperimentError(f"The value {text[:20]}... is too long or nested too deeply.") from error
    return found["value"] if len(found) == 1 else text


# For sentences


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
    written = spelled(value) if isinstance(value, str) and {float, int, bool}.intersection(expected) else None
    raise ExperimentError(
        f"{path} is {shown(value)}, expected {wanted}{f': write it as {written}' if written else ''}."
    )


def depth(value: Any) -> int:
    """How many tables and lists stand within each other."""
    found, level = 0, [value]
    while level := [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]:
        found, level = found + 1, [inner for inner in level if isinstance(inner, dict | list | tuple)]
    return found


def plain(value: Any) -> Any:
    """Nested dicts and lists, as TOML has them."""
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else str(k): plain(v) for k, v in value.items() if v is not None}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
