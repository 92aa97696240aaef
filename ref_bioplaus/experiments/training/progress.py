"""Where a run is, how many batches it takes at a time, and what it came to."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from array_api_compat import array_namespace

from ...backends import Backend
from ...types import Array, Batch, Schedule, State
from ..spec.building import Built
from ..spec.experiment import Experiment
from .interrupt import Interrupt

HELD_BATCHES = 1 << 22  # numbers of batches that are learned from by one call, at most
SMALL_DEPTH = 16  # layers of a network whose steps are run together: where there are more, compiling takes long
CALLBACK = "callback"  # what has stopped a run where no signal has


@dataclass
class Run:
    """What a run came to. `records` is a list of flat rows but for the metrics per layer, as pandas takes it."""

    experiment: Experiment
    out: Path
    records: list[dict[str, Any]]
    state: State
    built: Built
    backend: Backend
    step: int
    stopped_by: str | None = None  # the signal's name, or CALLBACK
    segments: list[dict[str, Any]] = field(default_factory=list)  # what computed which records, see segments.py

    @property
    def finished(self) -> bool:
        """Whether it ran to its end."""
        return self.stopped_by is None


@dataclass
class Progress:
    """Where a run is: everything a checkpoint keeps beside the state."""

    step: int = 0  # batches learned from
    epoch: int = 0
    position: int = 0  # batches of this epoch learned from
    seconds: float = 0.0  # spent learning
    losses: float = 0.0  # sums since the last record
    wrong: int = 0
    samples: int = 0
    seen: int = 0  # samples since the last record, of any mode
    seen_seconds: float = 0.0
    waited: float = 0.0  # of them, for batches
    best: float | None = None
    best_step: int | None = None
    due: bool = True  # whether this step is still to be measured
    pending: list = field(default_factory=list, repr=False)  # (step, Info) not looked at yet


def at_once(backend: Backend, data: Any, batch: Batch, layers: int) -> int:
    """How many batches are learned from by one call: more than one where they and the network are small, they lie on
    the device, and the backend is quicker so."""
    if not getattr(data, "resident", False) or layers > SMALL_DEPTH:
        return 1
    return max(1, min(backend.at_once, HELD_BATCHES // sum(math.prod(a.shape) for a in batch)))


def together(
    batches: Iterator[Batch], most: int, at: Progress, total: int, schedule: Schedule
) -> Iterator[tuple[Batch, ...]]:
    """The batches of an epoch, `most` at a time or one by one.

    Those from a multiple of `most` on go together, whether a run was stopped before or not, where all of them are there
    and alike, and the schedule has one sequence of modes for them. `at` says where the run is, `total` where it ends.
    """
    while True:
        places = [(at.epoch, at.position + i) for i in range(most if most > 1 else 0)]
        whole = (
            at.position % most == 0
            and at.step + most <= total
            and len({tuple(schedule(*place)) for place in places}) == 1
        )
        group = tuple(islice(batches, most if whole else 1))
        if not group:
            return
        alike = len({(b.x.shape, b.y.shape) for b in group}) == 1 and group[0].x.shape[0] > 0
        if whole and alike and len(group) == most:
            yield group
        else:
            yield from ((batch,) for batch in group)


def stacked(batches: tuple[Batch, ...]) -> Batch:
    """Batches as a stack."""
    return Batch(*(array_namespace(arrays[0]).stack(arrays) for arrays in zip(*batches, strict=True)))


def copied(array: Array) -> Array:
    """An array of its own, which a step that consumes its state leaves alone."""
    return array_namespace(array).asarray(array, copy=True)


class Left(Exception):
    """A signal came while the run was being measured."""


def until(interrupt: Interrupt, batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches. Raises Left at a signal."""
    for batch in batches:
        if interrupt.name:
            raise Left
        yield batch


class Stopwatch:
    """Seconds spent learning: it stands still while a run is measured and kept."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since it began, or went on."""
        return time.perf_counter() - self.began

    @contextmanager
    def paused(self) -> Iterator[float]:
        """Stand still within this; the seconds until here."""
        yield self.seconds
        self.began = time.perf_counter()
