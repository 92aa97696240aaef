"""Segments of a run: one call of `train` or `resume` each, and what it learned from, with what and where.

A segment's first line in log.jsonl is {"segment": {...}}; the records behind it, up to the next such line, are its own:

    number, step, epoch, date   which one it is, where and when it began
    given, experiment           what was given, and all fields that it resolved to
    best_by                     the record's number by which the best checkpoint is chosen
    data                        dataset, as_named (whether the images are that dataset's as far as can be told, None
                                where it cannot), train and test (how many), labels (their digest), sha256 of what
    backend, device, kernels, dtype, precision, versions, processor, instructions, cores, threads
    lost                        records before it that the log had lost when it began, where it had

A run may go on with other numbers of its optimizers: `changes` tells from which step on which held, of its segments'
experiments, and so do every later checkpoint's header and all that is drawn or said of the run.
"""

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ... import naming
from ...backends import Backend
from ...machine.environment import THREADS, cores, instructions, processor, versions
from ..data import hashing
from ..data.contract import Data
from ..data.loading import EMBEDDED, KNOWN
from ..spec.differences import differences
from ..spec.experiment import ADJUSTABLE, OWN, Experiment, as_dict

SHORT = 12  # letters of a hash, for a reader
BEST_BY = {
    "validation_error": "the lowest error on the images held out",
    "validation_loss": "the lowest loss on the images held out",
    "train_error": "the lowest error on the training batches, as no images are held out",
    "train_loss": "the lowest loss on the training batches, as no images are held out",
}
UNKNOWN = "no record of its device, versions and images"


def description(experiment: Experiment, backend: Backend, data: Data) -> dict[str, Any]:
    """What computes, and from which images."""
    found = versions(backend)
    name, device = found.pop("device", ""), str(backend.device)
    return {
        "data": images(experiment, data),
        "backend": backend.name,
        "device": device if name in ("", device) else f"{device} ({name})",
        "kernels": backend.kernels.name,
        "dtype": backend.dtype,
        "precision": backend.precision,
        "versions": found,
        "processor": processor(),
        "instructions": instructions(),
        "cores": cores(),
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
    }


def images(experiment: Experiment, data: Data) -> dict[str, Any]:
    """Which images: what they are called, how many there are, and their hash."""
    as_named = None
    if experiment.dataset in (EMBEDDED, *KNOWN) and hasattr(data, "recognised"):
        as_named = data.recognised == experiment.dataset
    return {
        "dataset": experiment.dataset,
        "as_named": as_named,
        "train": data.train.count,
        "test": None if data.test is None else data.test.count,
        "labels": getattr(data, "fingerprint", None),
    } | hashing.of_data(data)


def segment(
    experiment: Experiment, given: Mapping[str, Any], backend: Backend, data: Data, best_by: str, number: int,
    step: int, epoch: int, lost: int,
) -> dict[str, Any]:  # fmt: skip
    """A segment that begins now."""
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    found = {"number": number, "step": step, "epoch": epoch, "date": began, "given": shortened(given)}
    found |= {"experiment": shortened(as_dict(experiment)), "best_by": best_by}
    found |= description(experiment, backend, data)
    return found | ({"lost": lost} if lost else {})


def shortened(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment's fields but for what stands in experiment.toml alone: the classes' names and, of vectors, mean and
    deviation of each unit, which may be thousands, and where the folder of the images and the file of the first
    weights are, of which their own name is left."""
    found = dict(fields)
    if "inputs" in found:
        inputs = found["inputs"].items()
        found["inputs"] = {
            name: value
            for name, value in inputs
            if name != "classes" and not (isinstance(value, list) and len(value) > SHORT)
        }
    for name in ("data", "start"):
        if name in found:
            found[name] = Path(found[name]).name
    return found


# For readers


def changes(segments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """{step, field, before, now} wherever a run went on with another number of its optimizers. A segment that another
    one begins in the place of has taught nothing."""
    both = pairwise([*segments, None])
    taught = [one for one, after in both if one and (after is None or after["step"] > one["step"])]
    found = []
    for one, after in pairwise(part for part in taught if part.get("experiment")):
        was, now = ({name: part["experiment"].get(name, {}) for name in ADJUSTABLE} for part in (one, after))
        found += [
            {"step": after["step"], "field": field, "before": a, "now": b} for field, a, b in differences(was, now)
        ]
    return found


def changes_told(segments: Sequence[Mapping[str, Any]]) -> str:
    """`changes` in words; "" where there are none."""
    return ", ".join(
        f"{c['field']} is {c['now']} from step {c['step']:,} on, {c['before']} before" for c in changes(segments)
    )


def text(found: Mapping[str, Any]) -> str:
    """What computed a segment, and from which images, in a line."""
    libraries = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"{found['backend']} on {found['device']}, {found['kernels']} kernels, {found['dtype']} "
        f"({found['precision']}); {found['processor']}, {found['cores']} cores; {libraries}; "
        f"{images_text(found['data'])}"
    )


def images_text(data: Mapping[str, Any]) -> str:
    """Which images, in a few words."""
    of = f"of {data['dataset']}" if data["as_named"] else f"under the name {data['dataset']}"
    if data["dataset"] == OWN:
        of = "of one's own"
    elif data["as_named"] is False:
        of += ", whose class names or brightness they do not have"
    sha256 = f"sha256 {data['sha256'][:SHORT]} of {data['of']}" if data["sha256"] else f"a hash of {data['of']}"
    return f"{data['train']:,} training images {of}, {sha256}"


def history(experiment: Experiment, segments: Sequence[Mapping[str, Any]]) -> str:
    """What computed a run, in a line: those of its segments that differ, and from which epoch on; of an older run what
    its experiment says."""
    if not segments:
        e = experiment
        return f"{e.backend}, {e.kernels} kernels, {e.dtype} ({e.precision}) as asked for; {UNKNOWN}"
    parts: list[tuple[Mapping[str, Any], str]] = []
    for found in segments:
        if not parts or text(found) != parts[-1][1]:
            parts.append((found, text(found)))
    lost = sum(found.get("lost", 0) for found in segments)
    told = [words if i == 0 else f"from epoch {found['epoch']} on: {words}" for i, (found, words) in enumerate(parts)]
    changed = changes_told(segments)
    return "; ".join([*told, *([changed] if changed else []), *([f"records lost: {lost}"] if lost else [])])


def told(runs: Iterable[tuple[str, Experiment, Sequence[Mapping[str, Any]]]]) -> list[str]:
    """A line for runs of the same history, with their names; runs: (name, experiment, segments)."""
    found: dict[str, list[str]] = {}
    for name, experiment, segments in runs:
        found.setdefault(history(experiment, segments), []).append(name)
    return [f"{', '.join(names)}: {words}" for words, names in found.items()]


def other_images(segments: Iterable[Mapping[str, Any]]) -> str | None:
    """A sentence where a segment's images are not those of the dataset that is named."""
    for found in segments:
        data = found["data"]
        if data["as_named"] is False:
            return f"learned from images that are not those of {data['dataset']} by their class names and brightness"
    return None


def identity(segments: Sequence[Mapping[str, Any]]) -> str | None:
    """What tells a run's images from others of the same name; None where the name does, or none of this is known."""
    for found in segments:
        data = found["data"]
        if data["dataset"] == OWN or data["as_named"] is False or naming.is_code(data["dataset"]):
            return str(data["sha256"] or data["labels"])[:SHORT]
    return None
