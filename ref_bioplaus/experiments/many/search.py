"""Random search: values drawn from declared ranges, judged on held-out training images; the test images stay closed.

    ranges = read_ranges("bartunov2018-table4")
    search = Search(base, ranges, Path("search"), trials=60)
    jobs.run(search.todo(), watcher=...)          each trial a run in OUT/trial-<n>
    search.collected()                            a line per trial that has ended, kept in OUT/results.jsonl

A file of ranges has `source`, `trials`, and one [[range]] or more, which applies to the `algorithms` it names, to all
where it names none; its [range.of] has a table for each dotted path of an experiment:

    "optimizer.eta" = { kind = "log-uniform", low = 1e-5, high = 3e-4 }
    "algorithm_options.noise" = { kind = "uniform", low = 0.01, high = 0.3 }
    "optimizer.b2" = { kind = "choice", values = [0.99, 0.999] }

A trial's values depend on the search's seed, the trial's number and each range's name alone, so that rows of a table
whose ranges bear the same names learn with the same values. The name is the path, or what `as` says: ranges with one
are drawn together, as the same form for two optimizers. `words` says in a report what the values of a choice mean.
A trial's score is the lowest validation error of all epochs, or the lowest loss where there are no classes; two trials
of the same values are one experiment, and count once.
"""

import json
import math
import tomllib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from os.path import exists, isdir
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...machine import files
from ...machine.files import write_whole
from ...showing.words import unknown
from ..runs import logs
from ..runs.logs import FAILURE, segments
from ..runs.segments import changes_told, told
from ..spec import phases
from ..spec.checking import checked
from ..spec.differences import differences
from ..spec.experiment import (
    NOT_LEARNING,
    Experiment,
    ExperimentError,
    as_dict,
    as_toml,
    check_type,
    from_dict,
    named_code,
)
from .jobs import Job, check_backends, is_finished

KINDS = {"uniform": ("low", "high"), "log-uniform": ("low", "high"), "choice": ("values",)}
MAY = {"as", "words"}  # a range may say
RESULTS, SEARCH, BEST = "results.jsonl", "search.json", "best.toml"
HELD_OUT = 10_000
FREE = set(NOT_LEARNING) - {"epochs", "steps", "test"}  # in what a search that goes on may differ

Range = Mapping[str, Any]


class Ranges(NamedTuple):
    """A file of ranges: where they are from, the usual number of trials, and (algorithms, {path: range}) of each."""

    source: str
    trials: int
    parts: tuple[tuple[tuple[str, ...], Mapping[str, Range]], ...]

    def of(self, algorithm: str) -> dict[str, Range]:
        """The ranges of an algorithm, by path. Raises ExperimentError where it has none."""
        found: dict[str, Range] = {}
        for algorithms, ranges in self.parts:
            if not algorithms or algorithm in algorithms:
                found |= ranges
        if not found:
            raise ExperimentError(f'The ranges of "{self.source}" have none for algorithm "{algorithm}".')
        return found


def shipped() -> dict[str, Any]:
    """The files of ranges that come with the package, by name."""
    return {
        path.name.removesuffix(".toml"): path
        for path in (resources.files(__package__) / "ranges").iterdir()
        if path.name.endswith(".toml")
    }


def read_ranges(name: str) -> Ranges:
    """The ranges of a file, or of a name in `shipped`. Raises ExperimentError where they are not understood."""
    known, word = shipped(), name.replace("/", "-")
    try:
        if Path(name).suffix != ".toml" and word not in known:
            raise ExperimentError(unknown("file of ranges", name, known))
        text = known[word].read_text("utf-8") if word in known else files.content(name).decode("utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise ExperimentError(f"The ranges {name} cannot be read ({error.strerror}): name another file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExperimentError(f"The ranges {name} are not TOML ({error}).") from error
    if not isinstance(content.get("range"), list) or not all(isinstance(r.get("of"), dict) for r in content["range"]):
        raise ExperimentError(f"The ranges {name} have no [[range]] with a [range.of]: write at least one.")
    check_type(f"trials of {name}", content.get("trials", 1), (int,))
    parts = tuple((tuple(r.get("algorithms", ())), r["of"]) for r in content["range"])
    for _, ranges in parts:
        for path, chosen in ranges.items():
            check_range(path, chosen)
    return Ranges(content.get("source", name), content.get("trials", 1), parts)


def check_range(path: str, chosen: Any) -> None:
    """Raise ExperimentError for a range that nothing can be drawn from."""
    kind = chosen.get("kind") if isinstance(chosen, dict) else None
    if kind not in KINDS:
        raise ExperimentError(unknown(f"kind of range of {path}", str(kind), KINDS))
    if set(chosen) - MAY != {"kind", *KINDS[kind]}:
        raise ExperimentError(
            f'The range of {path}, of kind "{kind}", needs {" and ".join(KINDS[kind])}, nothing else.'
        )
    if kind == "choice":
        if not isinstance(chosen["values"], list) or not chosen["values"]:
            raise ExperimentError(f"The range of {path} has values {chosen['values']!r}, expected a list of some.")
        words = chosen.get("words", chosen["values"])
        if not isinstance(words, list) or len(words) != len(chosen["values"]):
            raise ExperimentError(f"The range of {path} has words {words!r}, expected one for each of its values.")
        return
    low, high = chosen["low"], chosen["high"]
    numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in (low, high))
    if not numbers or not low <= high or (kind == "log-uniform" and low <= 0):
        above = ", both above 0" if kind == "log-uniform" else ""
        raise ExperimentError(f"The range of {path} goes from {low!r} to {high!r}, expected numbers in order{above}.")


def drawn(ranges: Mapping[str, Range], seed: int, trial: int) -> dict[str, Any]:
    """A trial's values, by path: for each the uniform number in [0, 1) of its name."""
    found = {}
    for path in sorted(ranges):
        chosen = ranges[path]
        key, counter = [seed, trial], [0, 0, 0, zlib.crc32(str(chosen.get("as", path)).encode())]
        share = float(np.random.Generator(np.random.Philox(key=key, counter=counter)).random())
        if chosen["kind"] == "choice":
            found[path] = chosen["values"][int(share * len(chosen["values"]))]
        elif chosen["kind"] == "uniform":
            found[path] = chosen["low"] + share * (chosen["high"] - chosen["low"])
        else:
            found[path] = float(chosen["low"] * (chosen["high"] / chosen["low"]) ** share)
    return found


def with_values(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """The experiment with values at dotted paths. Raises ExperimentError for what it does not have.

    Code that a value names is named by the file of ranges, and is not imported.
    """
    fields = as_dict(experiment)
    named = named_code(fields)
    for path, value in values.items():
        *tables, last = path.split(".")
        place = fields
        for name in tables:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ExperimentError(f'The range of {path} is not understood: "{name}" is a value, not a table.')
        place[last] = value
    return from_dict(fields, named)


@dataclass
class Search:
    """A search and its folder. `base` is the experiment to which the drawn values are added."""

    base: Experiment
    ranges: Ranges
    out: Path
    trials: int
    seed: int = 0
    held_out: int | None = None  # training images that judge; None: the experiment's own, or HELD_OUT
    only: tuple[int, ...] = ()  # of the trials; none: all

    def __post_init__(self) -> None:
        """Raises ExperimentError where the experiment cannot be searched, or the folder has another search."""
        for trial in self.only:
            if not 0 <= trial < self.trials:
                raise ExperimentError(f"Trial {trial} is not one of this search: name one of 0 to {self.trials - 1}.")
        held_out = self.held_out or self.base.held_out or HELD_OUT
        self.blind = checked(replace(self.base, held_out=held_out, test=False))
        self.chosen = self.ranges.of(self.blind.algorithm)
        self.check_folder()

    @property
    def numbers(self) -> list[int]:
        """Of the trials that are asked for."""
        return sorted(set(self.only)) or list(range(self.trials))

    def searched(self) -> dict[str, Any]:
        """What every trial of the folder has in common."""
        return {
            "experiment": {name: value for name, value in as_dict(self.blind).items() if name not in FREE},
            "ranges": dict(self.chosen),
            "seed": self.seed,
        }

    def check_folder(self) -> None:
        """Raise ExperimentError where the folder has trials of another search, and name the first difference."""
        path = self.out / SEARCH
        if not exists(path) or not any(self.out.glob("trial-*")):
            return
        try:
            there = dict(json.loads(files.content(path)))
            usual = {name: value for name, value in as_dict(Experiment()).items() if name not in FREE}
            there["experiment"] = usual | there["experiment"]  # of fields that there were not yet
            different = list(differences(there, self.searched()))
        except (ValueError, TypeError, KeyError) as error:
            raise ExperimentError(f"The file {path} is damaged: name another folder with --out.") from error
        for name, theirs, mine in different:
            raise ExperimentError(
                f"The search in {self.out} has {name} = {theirs!r}, not {mine!r}: leave it as it is, or name another "
                "folder."
            )

    def write_folder(self) -> None:
        """Write down what is searched. Raises ExperimentError where the folder cannot be written to."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            for name in (RESULTS, BEST):
                files.check_place(self.out / name)
            write_whole(self.out / SEARCH, (json.dumps(self.searched(), indent=1) + "\n").encode())
        except OSError as error:
            raise ExperimentError(
                f"The folder {self.out} cannot be written to ({error.strerror}): name another one with --out."
            ) from error

    def job(self, trial: int) -> Job:
        """A trial's run. Raises ExperimentError for values that the experiment does not take."""
        mine = checked(with_values(self.blind, drawn(self.chosen, self.seed, trial)))
        return Job(f"trial {trial}", mine, self.folder(trial))

    def folder(self, trial: int) -> Path:
        """Where a trial's run is."""
        return self.out / f"trial-{trial:04d}"

    def todo(self) -> list[Job]:
        """The trials that have not ended; what is searched is written down once all of them are understood.

        Raises ExperimentError and BackendError.
        """
        check_backends([self.blind])
        jobs = [self.job(trial) for trial in self.numbers]
        check_backends(job.experiment for job in jobs)
        self.write_folder()
        return [job for job in jobs if not has_ended(job)]

    def collected(self) -> list[dict[str, Any]]:
        """A line for each trial that has ended, the best first; written to OUT, with the best experiment.

        Where there is no such folder yet, none is made.
        """
        lines: list[dict[str, Any]] = []
        trial = 0
        while trial < self.trials or exists(self.folder(trial)):
            job = self.job(trial)
            if has_ended(job):
                found = self.line(trial, job)
                same = (line["trial"] for line in lines if line["values"] == found["values"])
                lines.append(found | {"repeats": next(same, None)})
            trial += 1
        if not isdir(self.out):
            return []
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        write_whole(self.out / RESULTS, text.encode())
        lines.sort(key=lambda line: (math.inf if line["score"] is None else line["score"], line["trial"]))
        if lines and lines[0]["score"] is not None:
            best = checked(with_values(self.base, lines[0]["values"]))
            write_whole(self.out / BEST, as_toml(best).encode())
        return lines

    def computed(self, trials: Iterable[int]) -> list[str]:
        """What computed which trials."""
        runs = [(job.name, job.experiment, logs.told(job.out)) for job in map(self.job, trials)]
        damages = [found.damage.rstrip(".") for _, _, found in runs if found.damage]
        return told((name, experiment, found.segments) for name, experiment, found in runs) + damages

    def line(self, trial: int, job: Job) -> dict[str, Any]:
        """What a trial came to; its score is None where its loss was not finite, and where it went on with other values
        than were drawn."""
        failed, (found, parts, _) = exists(job.out / FAILURE), logs.told(job.out)
        changed = changes_told([{"step": -1, "experiment": as_dict(job.experiment)}, *parts])
        counts = not failed and not changed
        measured = [(number, r["epoch"]) for r in found if (number := score(r)) is not None and r["step"] > 0]
        best = min(measured) if measured and counts else (None, None)
        return {
            "trial": trial,
            "values": drawn(self.chosen, self.seed, trial),
            "score": best[0],
            "epoch": best[1],
            "final": measured[-1][0] if measured and counts else None,
            "epochs": found[-1]["epoch"] if found else 0,
            "failed": failed,
            "unlearned": unlearned(job, found),
            "changed": changed,
        }


def unlearned(job: Job, found: list[dict[str, Any]]) -> str:
    """A sentence on a trial in which no forward weight has learned; "" where some did."""
    if not found or any(record.get("train_loss") is not None for record in found):
        return ""
    parts = phases.of_run(job.experiment, found, segments(job.out))
    return parts.sentence() if parts else ""


def score(record: Mapping[str, Any]) -> float | None:
    """The validation error of a record; its loss where there are no classes."""
    return record.get("validation_error", record.get("validation_loss"))


def has_ended(job: Job) -> bool:
    """Whether a trial is finished, or its loss was not finite."""
    return exists(job.out / FAILURE) or is_finished(job)
