"""How much of a run its forward weights have learned: what the algorithm's schedule says of the batches it took.

An alternating algorithm spends whole epochs on its inverses alone, and the forward weights stay as they were.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from .. import backends
from ..models import MODELS
from ..types import Schedule
from .building import Shape, build, parameters_of
from .checking import STEPS
from .experiment import Experiment
from .monitor import LEARNING

CLASSES = 10  # of a network whose schedule alone is asked for


class Phases(NamedTuple):
    """Epochs in which forward weights learned, and those of other modes alone, by their names; parts of them, too."""

    forward: float
    others: Mapping[str, float]

    def __str__(self) -> str:
        """As in "250 forward, 250 inverse"; "" where every batch taught the forward weights."""
        if not self.others:
            return ""
        return ", ".join(f"{count:.6g} {name}" for name, count in {"forward": self.forward, **self.others}.items())

    def sentence(self) -> str:
        """What to say where no forward weight has learned, without a full stop; "" where some did."""
        if self.forward or not self.others:
            return ""
        return (
            f"no forward weight has learned ({self}), so that all errors are those of the first, random weights: more "
            "epochs are needed"
        )


def taken(schedule: Schedule, length: int, steps: int) -> Phases:
    """The phases of so many steps, in epochs of `length` batches."""
    counts = Counter(schedule(*divmod(step, length)) for step in range(steps))
    forward, others = 0, Counter[str]()
    for modes, count in counts.items():
        if any(mode in LEARNING for mode in modes):
            forward += count
        else:
            others[" and ".join(dict.fromkeys(modes))] += count
    return Phases(forward / length, {name: count / length for name, count in others.items()})


def of_run(experiment: Experiment, records: list[dict[str, Any]], segments: Sequence[Mapping[str, Any]]) -> Phases:
    """The phases of a run as far as its log goes; its epochs are as long as its segments say, or the records tell."""
    step, epoch = records[-1]["step"], records[-1]["epoch"]
    if segments:
        length = -(-segments[-1]["data"]["train"] // experiment.batch)
    else:
        length = step // epoch if epoch else max(step, 1)  # an older log, whose records stand at the ends of epochs
    return taken(schedule_of(experiment), length, step)


def schedule_of(experiment: Experiment) -> Schedule:
    """The schedule of an experiment, whose network is made but never drawn. Raises ExperimentError."""
    default = parameters_of(MODELS[experiment.model])["in_shape"]
    found = experiment.inputs.get("shape") or experiment.model_options.get("in_shape") or default
    height, width, channels = (*found, 1, 1)[:3]
    classes = len(experiment.inputs.get("classes", ())) or experiment.model_options.get("classes", CLASSES)
    backend = backends.get("numpy", kernels="portable")
    plain = replace(experiment, dtype=backend.dtype)
    return build(plain, backend, Shape((height, width, channels), classes, STEPS)).algorithm.schedule
