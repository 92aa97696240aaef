"""Numbers of runs as curves: logs are read, runs that differ only in their seed are taken together.

    runs = [read(Path("runs/fa/seed-0")), read(Path("runs/fa/seed-1"))]
    (group,) = grouped(runs)
    curve(group, "test_error")

A curve is the mean over the seeds, with the lowest and the highest of them, at the steps that all of them measured.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import papers
from ..runs import logs, segments
from ..runs.folder import called
from ..runs.logs import stored
from ..spec import places
from ..spec.differences import free_of
from ..spec.experiment import NOT_LEARNING, Experiment, ExperimentError, as_dict
from ..spec.names import shown_row

SHOWN_FIRST = ("model", "dataset")  # in a label, where any two groups differ in them


class Run(NamedTuple):
    """A run's folder, and what it says."""

    out: Path
    experiment: Experiment
    records: list[dict[str, Any]]
    segments: Sequence[dict[str, Any]] = ()  # what computed which records; none in an older log
    damage: str = ""  # a sentence, where the last line of the log is left out


class Group(NamedTuple):
    """Runs that differ only in their seed, and their name among the other groups."""

    label: str
    runs: list[Run]


class Curve(NamedTuple):
    """Means over seeds, and the lowest and highest, at each x."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def read(out: Path) -> Run:
    """A run from its folder. Raises ExperimentError where there is none, or where it has measured nothing, and
    NotOrdinary where a folder or a link is in the place of its files."""
    experiment = stored(out)
    if experiment is None:
        raise ExperimentError(f"{out} has no experiment.toml, so it is no run: name a folder that `train` made.")
    found = logs.told(out)
    if not found.records:
        raise ExperimentError(
            f"The run {out} has no evaluation in its log yet: wait for the first one."
            if not found.damage
            else f"{found.damage[:-1]}, and no evaluation is left: put it back, or go on with the run."
        )
    return Run(out, experiment, *found)


def identity(experiment: Experiment, without: Sequence[str] = ()) -> dict[str, Any]:
    """{dotted path: value} of what is learned and on which backend, but for the seed and the paths in `without`."""
    free = free_of(experiment, {"seed", *NOT_LEARNING} - {"backend"})
    found = dict(papers.flat(places.changed(as_dict(experiment), called)))
    return {name: v for name, v in found.items() if name.partition(".")[0] not in free and name not in without}


def known_by(run: Run, without: Sequence[str] = ()) -> dict[str, Any]:
    """Its `identity`, with hashes of its images where they have no name that tells, of code of one's own and of the
    weights that it was given to begin from, and what changed on its way."""
    code = {name: one.get("sha256", "") for name, one in (run.experiment.code or {}).items()}
    used = [code[name] for kind, name in places.names(as_dict(run.experiment))
            if kind not in places.NOT_LEARNED and name in code]  # fmt: skip
    own = identity(run.experiment, without)
    more = {"images": segments.identity(run.segments), "changed": segments.changes_told(run.segments)}
    more["code"] = ", ".join(dict.fromkeys(digest[: segments.SHORT] for digest in used))
    more["weights"] = own.pop("start_sha256", "")[: segments.SHORT]
    return own | {name: value for name, value in more.items() if value}


def once(runs: Iterable[Run]) -> tuple[list[Run], list[str]]:
    """The runs, of those with the same experiment and seed the one that has come furthest; a sentence on each other."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        key = repr((sorted(known_by(run).items()), run.experiment.seed))
        found.setdefault(key, []).append(run)
    kept = [max(same, key=lambda run: run.records[-1]["step"]) for same in found.values()]
    return kept, [
        f"{run.out} has the experiment and the seed of {one.out}: they count once, as {one.out}."
        for one, same in zip(kept, found.values(), strict=True)
        for run in same
        if run is not one
    ]


def grouped(runs: Iterable[Run], without: Sequence[str] = ()) -> list[Group]:
    """Runs that differ only in their seed together, in order; `without`: dotted paths that may differ too.

    A group's label is its algorithm's, with the fields in which it differs from others of the same algorithm.
    """
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(repr(sorted(known_by(run, without).items())), []).append(run)
    found = list(members.values())
    identities = [known_by(group[0], without) for group in found]
    return [Group(label(own, identities), group) for own, group in zip(identities, found, strict=True)]


def label(own: dict[str, Any], others: Sequence[dict[str, Any]]) -> str:
    """An algorithm's label, and the fields that this experiment has otherwise than the others."""
    akin = [other for other in others if other["algorithm"] == own["algorithm"]]
    names = [name for name in SHOWN_FIRST if any(other.get(name) != own.get(name) for other in others)]
    names += sorted(
        name
        for name in {name for other in akin for name in other} - set(names)
        if any(other.get(name) != own.get(name) for other in akin)
    )
    short = {name: name.rpartition(".")[2] for name in names}
    twice = {last for last in short.values() if list(short.values()).count(last) > 1}
    told = [f"{name if short[name] in twice else short[name]} {own[name]}" for name in names if name in own]
    return ", ".join([shown_row(own["algorithm"]).label, *told])


# Curves


def epoch_length(run: Run) -> float | None:
    """Batches in an epoch; None where the log does not tell."""
    whole = {r["step"] / r["epoch"] for r in run.records if r["epoch"]}
    ends = [r for r in run.records if r["epoch"] == 0]
    return whole.pop() if len(whole) == 1 and not any(r["step"] for r in ends) else None


def unit(runs: Iterable[Run]) -> str:
    """What curves are drawn over: epochs where every record is at the end of one, else steps."""
    return "epochs" if all(epoch_length(run) for run in runs) else "steps"


def value(record: dict[str, Any], name: str, layer: str | None = None) -> float | None:
    """A record's number, of a layer where it has one for each; None where it was not measured, as an average precision
    of -1: there are no such boxes."""
    found = record.get(name)
    if name.startswith("test_AP") and found == -1:
        return None
    return found.get(layer) if isinstance(found, dict) and layer is not None else found


def layers(runs: Iterable[Run], name: str) -> list[str]:
    """The layers that a metric has numbers of, from the bottom up."""
    found = {l for run in runs for r in run.records for l, v in (r.get(name) or {}).items() if v is not None}
    return sorted(found, key=int)


def measured(run: Run, name: str) -> bool:
    """Whether any record has a number of that name, for any layer."""
    return any(
        v is not None
        for r in run.records
        for v in (r[name].values() if isinstance(r.get(name), dict) else [r.get(name)])
    )


def curve(group: Group, name: str, layer: str | None = None, over: str = "epochs") -> Curve:
    """A number over the run, over "epochs" or "steps"; empty where the seeds have no step in common."""
    place = "epoch" if over == "epochs" else "step"
    by_run = [{r[place]: v for r in run.records if (v := value(r, name, layer)) is not None} for run in group.runs]
    x = sorted(set.intersection(*(set(points) for points in by_run)))
    return summary(x, [[points[i] for points in by_run] for i in x])


def summary(x: Sequence[float], values: Sequence[Sequence[float]]) -> Curve:
    """Mean, lowest and highest of the values at each x."""
    return Curve(
        list(x),
        [sum(v) / len(v) for v in values],
        [min(v) for v in values],
        [max(v) for v in values],
    )


def last(run: Run, name: str, layer: str | None = None) -> float | None:
    """The newest number of that name."""
    found = [v for r in run.records if (v := value(r, name, layer)) is not None]
    return found[-1] if found else None
