"""A recorded run again, for its first epochs: are its numbers the same, or as near as they can be?

    plan = planned("bartunov2018/table1", "mnist-fc", ["fa"], 1, Path("results"), Path("again"), epochs=2)
    jobs.run([one.job for one in plan])
    compared(plan, Path("results"))               a Compared for each

Where all that computes is what the log recorded (backend, device, kernels, precision, versions, the processor with its
vector instructions, cores, the libraries' threads), every number has to be the same, bit for bit. Elsewhere sums are
rounded otherwise, and learning makes two runs that differ by a rounding drift apart, so that no bound of rounding holds
after some tens of steps. There two things are asked: before the first step, where only rounding can tell them apart,
numbers agree to ROUNDING; afterwards they lie within LIMIT standard deviations over seeds, of the other runs of the
column, or else below OUT, that differ in their seed alone, at the same epoch. A number for which no such runs are there
is "open".
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os.path import isdir
from pathlib import Path
from typing import Any, NamedTuple

from ... import naming
from ...machine.environment import cores
from ..runs import segments
from ..runs.logs import EXPERIMENT, LOG, MEASURED, told
from ..spec.experiment import Experiment, ExperimentError, as_dict, read
from . import own_rows, tidy
from . import table as cells
from .jobs import Job

SAME, ROUNDED, WITHIN, OPEN, DIFFERS = VERDICTS = (  # the worse the later
    "same", "within rounding", "within the spread of seeds", "open", "differs",
)  # fmt: skip
ROUNDING = 1e-4  # of a number, before anything is learned
IMAGES, DEGREES = 0.05, 0.1  # and so much more of an error in %, and of an angle, which is steep near 0
LIMIT = 10.0  # standard deviations, as the judge of conformance has it
KIND = ("backend", "device", "kernels", "dtype", "precision", "processor", "instructions", "cores")
NO_MATTER = ("ref_bioplaus", "python")  # versions that may be others: the former is what is checked
LONG = {"instructions": "the processor's vector instructions are others, or were not recorded"}
FIRST = 2  # epochs that are compared where none are named: the first may teach inverses alone

Key = tuple[str, int]  # quantity and epoch
Numbers = dict[tuple[str, int, str], float | None]  # by quantity, epoch and layer ("" where there are none)


class Again(NamedTuple):
    """A recorded run, and the one that is compared with it."""

    folder: Path
    records: list[dict[str, Any]]  # of the epochs that are compared
    segments: list[dict[str, Any]]  # none in an older log
    job: Job


class Line(NamedTuple):
    """One quantity of one epoch, at the layer where it differs most."""

    epoch: int
    quantity: str
    layer: str
    recorded: float | None
    now: float | None
    verdict: str


class Compared(NamedTuple):
    """What became of a run: why not every bit is asked for, if it is not, and a line for every number."""

    name: str
    other: list[str]  # none: bit for bit
    lines: list[Line]

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return bool(self.lines) and all(line.verdict != DIFFERS for line in self.lines)


class Deviation(NamedTuple):
    """A standard deviation over seeds, as a share of the mean, and of how many experiments with several seeds."""

    share: float
    experiments: int


class Beside(NamedTuple):
    """A recorded run: its folder, its experiment but for the seed, and its numbers."""

    folder: Path
    experiment: str
    numbers: Numbers


# What to run


def planned(
    table: str,
    column: str | None,
    methods: Sequence[str],
    seeds: int,
    out: Path,
    into: Path,
    epochs: int | None = None,
    **changes: Any,
) -> list[Again]:
    """The recorded runs of a column below OUT, each with a job in the folder INTO that learns the same for its first
    epochs, FIRST of them where none are named. changes: fields that may be others, as data or backend.

    Raises ExperimentError, also for a row that is named and has no log.
    """
    if changes.get("data") and not isdir(changes["data"]):
        raise ExperimentError(f"The folder {changes['data']} is not there: name the one that holds the images.")
    chosen = cells.find_table(table)
    by_column = cells.find_column(chosen, column)
    chosen = own_rows.with_rules(chosen, by_column.id, methods)
    found = []
    for seed in range(seeds):
        for row in cells.find_rows(chosen, by_column.id, list(map(own_rows.id_of, methods))):
            folder = cells.folder(out, chosen.name, by_column.id, row.id, seed)
            one = again(folder, into, f"{row.label} seed {seed}", FIRST if epochs is None else epochs, methods, changes)
            if one is not None:
                found.append(one)
            elif methods:
                raise ExperimentError(
                    f"No run of {row.label} with seed {seed} is recorded in {folder}: name another one, or the folder "
                    "that holds it with --out."
                )
    if not found:
        place = out / chosen.name / by_column.id
        raise ExperimentError(f"No run is recorded in {place}: name the folder of recorded runs with --out.")
    return found


def planned_below(place: Path, into: Path, epochs: int | None = None, **changes: Any) -> list[Again]:
    """The same of every recorded run below a folder, whatever it is of. Raises ExperimentError."""
    folders = sorted(Path(at) for at, _, names in os.walk(place) if {EXPERIMENT, LOG} <= {*names})
    named = [(folder, folder.relative_to(place.parent).as_posix()) for folder in folders]
    count = FIRST if epochs is None else epochs
    found = [one for folder, name in named if (one := again(folder, into, name, count, (), changes))]
    if not found:
        raise ExperimentError(f"No run is recorded below {place}: name a folder that holds one.")
    return found


def again(
    folder: Path, into: Path, name: str, epochs: int, named: Iterable[str], changes: Mapping[str, Any]
) -> Again | None:
    """A recorded run and a job for its first epochs; None where there is none. Raises ExperimentError."""
    log = told(folder)
    records = [record for record in log.records if record["epoch"] <= epochs]
    if not isdir(folder) or not any(record["step"] for record in records):
        return None
    last, path = records[-1], folder / EXPERIMENT
    if segments.changes([part for part in log.segments if part["step"] < last["step"]]):
        raise ExperimentError(
            f"The run in {folder} went on with other numbers of its optimizer before its epoch {last['epoch']}: choose "
            "fewer epochs."
        )
    experiment = replace(read(path, list(filter(naming.is_code, named))), steps=last["step"], **changes)
    if experiment.data is not None and not isdir(experiment.data):
        raise ExperimentError(
            f"The images of {folder} lay in {experiment.data}, which is not there: name the folder with --data."
        )
    before = [part for part in log.segments if part["step"] < last["step"]]
    return Again(folder, records, before, Job(name, experiment, into / name.replace("/", "-")))


def recorded_cores(plan: Iterable[Again]) -> int | None:
    """On how many cores all of these runs were recorded; None where these are as many as this process has, where it was
    not one number, and where it is not known."""
    found = {part["cores"] for one in plan for part in one.segments or [{"cores": None}]} - {cores()}
    return found.pop() if len(found) == 1 else None


# What came of it


def compared(plan: Sequence[Again], out: Path) -> list[Compared]:
    """The runs of a plan that have been run again, with what is recorded below OUT. Raises ExperimentError."""
    found: list[Compared] = []
    column, every = list[Beside](), list[Beside]()
    for one in plan:
        now = told(one.job.out)
        other = differences(one, now.segments[-1]) if now.segments else []
        deviations = None
        if other:
            column = column or list(beside(one.folder.parents[1]))
            deviations = over_seeds(column, one.folder)
            if not deviations:
                every = every or list(beside(out))
                deviations = over_seeds(every, one.folder)
        lines = lines_of(one.records, now.records, deviations) if now.records else []
        found.append(Compared(one.job.name, other, lines))
    return found


def lines_of(
    recorded: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]], deviations: Mapping[Key, Deviation] | None
) -> list[Line]:
    """A line for each quantity of each recorded epoch. deviations: over seeds; None: every bit is asked for."""
    mine = numbers(now)
    worst: dict[Key, tuple[tuple[int, float], Line]] = {}
    for (quantity, epoch, layer), was in numbers(recorded).items():
        found = mine.get((quantity, epoch, layer))
        if deviations is None:
            verdict = SAME if was == found else DIFFERS
        else:
            verdict = judged(quantity, epoch, was, found, deviations.get((quantity, epoch)))
        rank = (VERDICTS.index(verdict), distance(was, found))
        if (quantity, epoch) not in worst or rank > worst[quantity, epoch][0]:
            worst[quantity, epoch] = rank, Line(epoch, quantity, layer, was, found, verdict)
    return sorted((line for _, line in worst.values()), key=lambda line: line.epoch)


def differences(one: Again, now: Mapping[str, Any]) -> list[str]:
    """In what that computes now is not what the log recorded, or what it does not say, in words."""
    if not one.segments:
        was = as_dict(read(one.folder / EXPERIMENT))
        found = ["recorded on an unknown processor, with unknown versions"]
        found += [f"{n} was {was[n]}, is {now[n]}" for n in KIND if n in was and n != "device" and was[n] != now[n]]
        return found
    found = []
    for part in one.segments:
        before, after = kind(part), kind(now)
        names = [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
        found += [
            LONG.get(name) or f"{name} was {was_or_not(before, name)}, is {was_or_not(after, name)}" for name in names
        ]
        was, is_now = part["data"], now["data"]
        if was["sha256"] and was["of"] == is_now["of"] and was["sha256"] != is_now["sha256"]:
            found.append("the images are other bytes")
    return list(dict.fromkeys(found))


def was_or_not(found: Mapping[str, Any], name: str) -> str:
    """A value, or that there is none."""
    return "not recorded" if found.get(name) is None else str(found[name])


def kind(segment: Mapping[str, Any]) -> dict[str, Any]:
    """All of a segment that the bits of a result may depend on, but for its images."""
    kept = {name: version for name, version in segment["versions"].items() if name not in NO_MATTER}
    return {name: segment.get(name) for name in KIND} | kept | dict(segment.get("threads", {}))


def numbers(records: Iterable[Mapping[str, Any]]) -> Numbers:
    """All that records measured of what was learned, not of how fast."""
    found: Numbers = {}
    for record in records:
        for name, value in record.items():
            if name in MEASURED and value is not None:
                found[name, record["epoch"], ""] = value
            elif name != "skipped" and isinstance(value, Mapping):
                found |= {(name, record["epoch"], layer): number for layer, number in value.items()}
    return found


def judged(quantity: str, epoch: int, was: float | None, now: float | None, deviation: Deviation | None) -> str:
    """One of VERDICTS, where sums may have been rounded otherwise."""
    if was == now:
        return SAME
    if was is None or now is None:
        return DIFFERS
    size = max(abs(was), abs(now))
    slack = ROUNDING * size + (IMAGES if quantity.endswith("_error") else DEGREES if "angles" in quantity else 0.0)
    if abs(was - now) <= slack:
        return ROUNDED
    if epoch == 0:
        return DIFFERS
    if deviation is None:
        return OPEN
    return WITHIN if abs(was - now) <= LIMIT * deviation.share * size else DIFFERS


def distance(was: float | None, now: float | None) -> float:
    """How far apart two numbers are, of their size."""
    if was is None or now is None:
        return 0.0 if was is now else math.inf
    return abs(was - now) / max(abs(was), abs(now), 1e-12)


def beside(place: Path) -> Iterator[Beside]:
    """All recorded runs below a folder. Raises ExperimentError for a damaged log."""
    for name, experiment, log in tidy.runs(place):
        yield Beside(place / name, without_seed(experiment), numbers(log.records))


def over_seeds(recorded: Iterable[Beside], but: Path) -> dict[Key, Deviation]:
    """The standard deviation over seeds of each quantity at each epoch, pooled over layers and over all experiments of
    several seeds; without the run `but`, which is judged by it."""
    groups: dict[str, list[Numbers]] = defaultdict(list)
    for one in recorded:
        if one.folder != but:
            groups[one.experiment].append(one.numbers)
    squares: dict[Key, list[tuple[float, int, str]]] = defaultdict(list)
    for name, runs in groups.items():
        for quantity, epoch, layer in set().union(*runs) if len(runs) > 1 else ():
            known = [number for run in runs if (number := run.get((quantity, epoch, layer))) is not None]
            mean = math.fsum(known) / max(1, len(known))
            if len(known) > 1 and mean > 0:
                squares[quantity, epoch].append((sum((x / mean - 1) ** 2 for x in known), len(known) - 1, name))
    return {
        key: Deviation(math.sqrt(sum(s for s, *_ in parts) / sum(n for _, n, _ in parts)), len({p[2] for p in parts}))
        for key, parts in squares.items()
    }


def without_seed(experiment: Experiment) -> str:
    """What tells experiments apart that differ in more than their seed and in where they were run."""
    fields = {name: value for name, value in as_dict(experiment).items() if name not in cells.OWN}
    return json.dumps(fields, sort_keys=True)
