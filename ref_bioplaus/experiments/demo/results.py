"""What the demo was asked for, what it found, and who is told while it runs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ... import registry
from ...registry import Row
from ..spec.phases import Phases
from . import agreement
from .networks import BATCH, Architecture

REFERENCE = "numpy"


@dataclass(frozen=True)
class Settings:
    """What to run. backends, algorithms: names, or functions of one's own; empty for all that are installed, and all
    rows."""

    backends: tuple[str, ...] = ()
    algorithms: tuple[Any, ...] = ()
    seed: int = 0
    quick: bool = False  # each row on one backend only, in turns
    steps: int | None = None  # None: each architecture's own
    device: str | None = None  # of the named backends
    processes: int = 1  # in which rows learn and are compared side by side


@dataclass(frozen=True)
class Training:
    """One row learning on one backend."""

    row: Row
    architecture: Architecture
    backend: str
    steps: int
    failure: str = ""  # what was raised; the rest is then empty
    seconds: float = math.nan  # of the steps; compilation, warm-up and tests not counted
    warm_up_seconds: float = math.nan
    curve: tuple[tuple[int, float], ...] = ()  # (step, test error in %)
    angles: dict[int, tuple[tuple[int, float], ...]] = field(default_factory=dict)  # {layer: (step, degrees W to B)}
    phases: Phases | None = None  # of its epochs

    @property
    def note(self) -> str:
        """What a reader must know of its steps; often nothing."""
        if self.phases is None or not str(self.phases):
            return self.row.note
        return self.phases.sentence() or f"of its epochs {self.phases}"

    @property
    def error(self) -> float:
        """The last test error in %; NaN where it failed."""
        return self.curve[-1][1] if self.curve else math.nan

    @property
    def images_per_second(self) -> float:
        """Training images per second; a batch counts once, however many modes it runs."""
        return self.steps * BATCH / self.seconds

    @property
    def angle(self) -> float:
        """Degrees from W to B after the last step, mean over layers; NaN where no layer has both."""
        last = [points[-1][1] for points in self.angles.values() if not math.isnan(points[-1][1])]
        return sum(last) / len(last) if last else math.nan


@dataclass(frozen=True)
class Comparison:
    """One row's state on one backend against the reference's, after the same steps."""

    row: Row
    architecture: Architecture
    backend: str
    difference: float = math.nan
    tensor: str = ""
    failure: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the limit."""
        return self.difference <= agreement.LIMIT


Record = Training | Comparison


class Progress:
    """Is told what happens while it happens; this one says nothing."""

    def stage(self, title: str, tasks: int) -> None:
        """So many tasks begin."""

    def task(self, label: str, steps: int) -> None:
        """One of them begins."""

    def advance(self) -> None:
        """One of its steps is done."""

    def done(self, records: Sequence[Record]) -> None:
        """It is done, with these records."""


@dataclass
class Results:
    """What has been finished so far."""

    settings: Settings
    trainings: list[Training] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # {backend: why, a sentence}
    environment: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    seconds: dict[str, float] = field(default_factory=dict)  # {part of the run: on the clock}

    def add(self, records: Iterable[Record]) -> None:
        """Add what has been finished."""
        for record in records:
            if isinstance(record, Training):
                self.trainings.append(record)
            else:
                self.comparisons.append(record)

    def learned(self, architecture: Architecture) -> list[Training]:
        """The trainings of one architecture, in the registry's order, those of one's own behind."""
        order = {row.name: i for i, row in enumerate(registry.ROWS)}
        mine = [t for t in self.trainings if t.architecture is architecture]
        return sorted(mine, key=lambda t: order.get(t.row.name, len(order)))

    def time(self) -> str:
        """One sentence: where the time went."""
        work = sum(t.seconds + t.warm_up_seconds for t in self.trainings if not t.failure)
        first = sum(t.warm_up_seconds for t in self.trainings if not t.failure)
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        beside = f" in {self.settings.processes} processes" if "processes" in self.environment else ""
        return (
            f"Time: {parts}{beside}; of {work:.0f} s spent on learning {first:.0f} s went to the first call of each "
            "mode, where libraries compile."
        )

    @property
    def worst(self) -> Comparison | None:
        """The comparison with the largest difference, among those that came to one."""
        return max((c for c in self.comparisons if not c.failure), key=lambda c: c.difference, default=None)

    @property
    def failures(self) -> list[Record]:
        """What raised an error."""
        records: list[Record] = [*self.trainings, *self.comparisons]
        return [record for record in records if record.failure]

    @property
    def disagreeing(self) -> list[Comparison]:
        """Comparisons beyond the limit."""
        return [c for c in self.comparisons if not c.failure and not c.agrees]

    @property
    def agree(self) -> bool | None:
        """Whether all backends agree in everything that was compared; None where nothing was."""
        return all(c.agrees for c in self.comparisons) if self.comparisons else None

    @property
    def sound(self) -> bool:
        """Whether everything ran, and all backends agree."""
        return not (self.interrupted or self.failures or self.disagreeing)

    def verdict(self) -> str:
        """One sentence: whether all backends agree, and by how much they differ at most."""
        judged = list(dict.fromkeys(c.backend for c in self.comparisons))
        names = ", ".join([REFERENCE, *judged])
        worst = self.worst
        where = "" if worst is None else "not one bit differs"
        if worst is not None and worst.difference > 0.0:
            where = (
                f"the largest difference is {worst.difference:.1e} (limit {agreement.LIMIT:g}), "
                f"{worst.row.label} ({worst.architecture.name}) on {worst.backend}, tensor {worst.tensor}"
            )
        counts = {"training": 0, "comparison": 0}
        for record in self.failures:
            counts["training" if isinstance(record, Training) else "comparison"] += 1
        trouble = [f"{n} {what}{'s' if n > 1 else ''} failed" for what, n in counts.items() if n]
        if self.interrupted:
            judgement = "Interrupted: agreement was not judged in full"
        elif self.disagreeing:
            differing = ", ".join(dict.fromkeys(c.backend for c in self.disagreeing))
            judgement = f"DISAGREEMENT of {differing} with {REFERENCE}"
        elif any(c.failure for c in self.comparisons):
            judgement = f"NOT ALL BACKENDS AGREE: of {names} some could not be compared"
        elif not judged:
            judgement = f"There is nothing that {REFERENCE} could agree with: install another backend"
        else:
            judgement = f"All backends agree ({names})"
        return "; ".join([judgement, *([where] if where else []), *trouble]) + "."
