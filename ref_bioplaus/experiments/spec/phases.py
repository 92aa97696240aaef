"""How much of a run its forward weights have learned: what the algorithm's schedule says of the batches it took.

An alternating algorithm spends whole epochs on its inverses alone, and the forward weights stay as they were.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ... import backends
from ...registry import Row
from ...types import Schedule
from ..data.augmentation import DataError
from .building import Shape, build
from .checking import STEPS, checked
from .experiment import Experiment, ExperimentError
from .names import MODEL, find_row, thing
from .taken import parameters_of

CLASSES = 10  # of a network whose schedule alone is asked for
MANY = 10**6  # steps of which each is asked for


class Phases(NamedTuple):
    """Epochs in which forward weights learned, and those of other modes alone, by their names; parts of them, too."""

    forward: float
    others: Mapping[str, float]

    def __str__(self) -> str:
        """As in "250 forward, 250 inverse"; "" where every batch taught the forward weights."""
        if not self.others:
            return ""
        return ", ".join(f"{count:.4g} {name}" for name, count in {"forward": self.forward, **self.others}.items())

    def sentence(self) -> str:
        """What to say where no forward weight has learned, without a full stop; "" where some did."""
        if self.forward or not self.others:
            return ""
        return (
            f"no forward weight has learned ({self}), so that all errors are those of the first, random weights: more "
            "epochs are needed"
        )


def taken(row: Row, schedule: Schedule, length: int, steps: int) -> Phases:
    """The phases of so many steps of a row, in epochs of `length` batches; of very many the first batch speaks for its
    epoch."""
    counts = Counter[tuple[str, ...]]()
    for epoch in range(-(-steps // length)):
        there = min(length, steps - epoch * length)
        if steps > MANY:
            counts[schedule(epoch, 0)] += there
        else:
            counts.update(schedule(epoch, i) for i in range(there))
    forward, others = 0, Counter[str]()
    for modes, count in counts.items():
        if any(map(row.learns, modes)):
            forward += count
        else:
            others[" and ".join(dict.fromkeys(modes))] += count
    return Phases(forward / length, {name: count / length for name, count in others.items()})


def of_run(
    experiment: Experiment, records: Sequence[Mapping[str, Any]], segments: Sequence[Mapping[str, Any]] = ()
) -> Phases | None:
    """The phases of a run as far as its log goes; its epochs are as long as its segments say, or the records tell.

    None where its algorithm cannot be made without its images, of which an older log does not tell, and beyond a
    million epochs.
    """
    step, epoch = records[-1]["step"], records[-1]["epoch"]
    if segments:
        length = -(-segments[-1]["data"]["train"] // experiment.batch)
    else:
        length = step // epoch if epoch else step  # an older log: records stand at the ends of epochs
    length = max(length, 1)
    if step > MANY * length:
        return None
    try:
        return taken(find_row(experiment.algorithm), schedule_of(experiment), length, step)
    except (ExperimentError, DataError):
        return None


def schedule_of(experiment: Experiment) -> Schedule:
    """The schedule of an experiment, whose network is made but never drawn. Raises ExperimentError and DataError."""
    full = checked(replace(experiment, dtype="float32"))
    default = parameters_of(thing(MODEL, full.model)).get("in_shape")
    found = full.inputs.get("shape") or full.model_options.get("in_shape") or default
    if not isinstance(found, list | tuple):
        raise ExperimentError(f'The model "{full.model}" does not say what images it is for.')
    height, width, channels = (*found, 1, 1)[:3]
    classes = len(full.inputs.get("classes", ())) or full.model_options.get("classes", CLASSES)
    backend = backends.get("numpy", kernels="portable")
    return build(full, backend, Shape((height, width, channels), classes, STEPS)).algorithm.schedule
