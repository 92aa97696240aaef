"""What the names of an experiment stand for, with sentences of its own: see registry.names, which has most kinds.

A metric of one's own is a function of some of registry.names.READS, by their names, that returns {layer: number}, as
those of `ref_bioplaus.metrics` are. An augmentation is a function (image, words): uint8 (height, width, channels) and
the random words of that image, uint32 (words,), in training alone; it returns an image of the same form. A dataset is
what data/own.py takes for data of one's own, arrays or a function for instance.
"""

from dataclasses import fields, replace
from typing import Any

from ... import naming, registry
from ...naming import NamingError
from ...registry import Row, names
from ...registry.names import AUGMENTATION as AUGMENTATION
from ...registry.names import DATASET as DATASET
from ...registry.names import KINDS as KINDS
from ...registry.names import LOSS as LOSS
from ...registry.names import METRIC as METRIC
from ...registry.names import MODEL as MODEL
from ...registry.names import MODIFICATION as MODIFICATION
from ...registry.names import OPTIMIZER as OPTIMIZER
from ...registry.names import Kind, parameters
from ...showing.words import unknown
from . import places
from .experiment import Experiment, ExperimentError


def find_row(name: str) -> Row:
    """The row of a name, of a label that the papers use, or of a rule of one's own. Raises ExperimentError."""
    for row in registry.ROWS:
        if name in (row.name, row.label) or name.lower() == row.label.lower():
            return row
    try:
        return names.row(name)
    except (KeyError, NamingError) as error:
        raise ExperimentError(f"The {error.args[0]}{'' if isinstance(error, KeyError) else '.'}") from error


def shown_row(name: str) -> Row:
    """The row of a name for a table or a picture, which are drawn of runs whose code is not there: one that cannot
    be built then has the name's label."""
    try:
        return find_row(name)
    except ExperimentError:
        return Row(name, naming.short(name), "", "", "", not_there)


def not_there(*arguments: Any, **options: Any) -> Any:
    """Stands for a rule whose code is not there."""
    raise ExperimentError("The rule's code is not there: name it.")


def thing(kind: Kind, name: str, what: str = "") -> Any:
    """The function of a name. what: the sentence's word for an unknown one. Raises ExperimentError."""
    try:
        return names.thing(kind, name)
    except KeyError as error:
        every = [*kind.known, *naming.enrolled(kind.group)]
        raise ExperimentError(unknown(what or kind.what, name, every)) from error
    except NamingError as error:
        raise ExperimentError(f"The {error}.") from error


def reads(metric: str) -> set[str]:
    """What a metric reads, of READS. Raises ExperimentError."""
    return set(parameters(thing(METRIC, metric)))


def is_own(kind: Kind, name: Any) -> bool:
    """Whether a name is not one of ours: code, or what a package has enrolled."""
    if not isinstance(name, str) or name in kind.known:
        return False
    return naming.is_code(name) or name in naming.enrolled(kind.group)


def bound(experiment: Experiment) -> Experiment:
    """The experiment with the code that it names at hand, looked at, and not read again: but for the backend's. Raises
    ExperimentError."""

    def at_hand(kind, name):
        if kind == "backend" or not isinstance(name, str) or not naming.is_code(name):
            return name
        try:
            return names.bound(KINDS[kind], name)
        except NamingError as error:
            raise ExperimentError(f"The {error}.") from error

    mine = {field.name: getattr(experiment, field.name) for field in fields(experiment)}
    return replace(experiment, **places.changed(mine, at_hand))
