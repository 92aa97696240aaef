"""What the folder of a run holds beside its checkpoints: the experiment, the log, why it failed."""

import json
import os
from collections.abc import Iterable, Mapping
from os.path import exists
from pathlib import Path
from typing import Any, NamedTuple

from ...machine import files
from ...machine.files import write_whole
from ...showing.words import shown
from ..boxes import precision
from ..spec.experiment import METRICS, Experiment, ExperimentError, read
from .headers import FINITE, FLAG, TABLE, TEXT, WHOLE, Kind

EXPERIMENT = "experiment.toml"
LOG = "log.jsonl"
TENSORBOARD = "tensorboard"
SEGMENT = "segment"  # the key of a line that is no record
FAILURE = "failure.txt"  # of a run that failed: why


def or_null(kind: Kind) -> Kind:
    """A value of a kind, or none."""
    words, fits = kind
    return f"{words} or null", lambda v: v is None or fits(v)


NUMBER = or_null(FINITE)
LAYERS: Kind = (
    "a table of layers' numbers",
    lambda v: isinstance(v, dict) and all(l.isascii() and l.isdigit() and len(l) < 7 and NUMBER[1](v[l]) for l in v),
)
MEASURED = [f"{split}_{what}" for split in ("train", "validation", "test") for what in ("loss", "error", "top5_error")]
MEASURED += [f"test_{what}" for what in (*precision.NAMES, precision.WITH_IGNORED)]  # of a detector
# What a line's readers rely on; a kind that is not null is there. More than this may be in a line.
RECORD: dict[str, Kind] = (
    {"step": WHOLE, "epoch": WHOLE, "seconds": FINITE}
    | dict.fromkeys((*MEASURED, "images_per_second", "waiting_for_data", "memory"), NUMBER)
    | dict.fromkeys(METRICS, or_null(LAYERS))
)
OF_SEGMENT: dict[str, Kind] = (
    dict.fromkeys(("number", "step", "epoch", "cores"), WHOLE)
    | dict.fromkeys(("backend", "device", "kernels", "dtype", "precision", "processor"), TEXT)
    | {"data": TABLE, "versions": TABLE, "experiment": or_null(TABLE), "lost": or_null(WHOLE)}
)
OF_DATA: dict[str, Kind] = {
    "dataset": TEXT, "as_named": or_null(FLAG), "train": WHOLE, "labels": or_null(TEXT), "sha256": or_null(TEXT),
    "of": TEXT,
}  # fmt: skip


class Log:
    """One JSON line per evaluation, and one where each segment of the run begins (see segments.py).

    size: bytes of all lines that are to be there, so that a file which was deleted or cut meanwhile is shorter.
    """

    def __init__(self, path: Path, size: int = 0):
        """size: bytes of what is there that `cut` keeps. Raises NotOrdinary where a link or a pipe is in its place."""
        files.check_place(path)
        self.path, self.size = path, size
        self.whole = True  # as far as it was seen when a line was added

    @property
    def there(self) -> int:
        """Bytes of the file; 0 where there is none."""
        return self.path.stat().st_size if exists(self.path) else 0

    def lines(self) -> list[dict[str, Any]]:
        """Every line to keep, segments and records. Raises ExperimentError for one that is not understood."""
        return read_log(self.path, self.size) if self.size and self.there else []

    def records(self) -> list[dict[str, Any]]:
        """Every evaluation to keep. Raises ExperimentError for a line that is not understood."""
        return records_of(self.lines())

    def lost(self, count: int, step: int) -> int:
        """How many of the records up to a step, so many, are not there; 1 at least where bytes are missing."""
        left = sum(record["step"] <= step for record in self.records())
        return max(int(self.there < self.size), count - left)

    def keep_what_is_left(self, step: int, due: bool) -> None:
        """Keep the whole lines from before a step that has been taken, where lines are lost.

        due: whether the step itself has not been measured. Raises ExperimentError for a line that is not understood.
        """
        end, self.size = 0, 0
        for number, line in enumerate(whole_lines(self.path)[0] if exists(self.path) else (), 1):
            entry = understood(self.path, number, line)
            end += len(line) + 1
            found = entry.get(SEGMENT, entry)
            if found["step"] < step or (found["step"] == step and entry is found and not due):
                self.size = end

    def cut(self) -> None:
        """Leave only what is to be kept; the file is there after this, and of no other name."""
        if files.check_place(self.path):
            write_whole(self.path, files.content(self.path)[: self.size])
        with files.to_write(self.path, append=True) as file:
            file.truncate(self.size)
            os.fsync(file.fileno())

    def begin(self, segment: dict[str, Any]) -> None:
        """The line of a segment that begins, on the disk when this returns."""
        self.append({SEGMENT: segment})

    def add(self, record: dict[str, Any]) -> None:
        """One more record, on the disk when this returns."""
        self.append(record)

    def append(self, line: dict[str, Any]) -> None:
        """One more line; `whole` says from here on where those before it are not all there any more."""
        content = json.dumps(line, allow_nan=False).encode() + b"\n"
        self.whole = self.whole and self.there >= self.size
        with files.to_write(self.path, append=True) as file:
            if not self.whole:  # no line goes on from half of another
                file.truncate(files.content(self.path).rfind(b"\n") + 1)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.size += len(content)


def reopened(out: Path, header: Mapping[str, Any], due: bool, experiment: Experiment, despite: bool) -> tuple[Log, int]:
    """The log of a run that goes on from a checkpoint, and how many records are lost.

    due: whether the checkpoint's own step has not been measured. Raises ExperimentError for a log that has lost some,
    unless `despite` it the run is to go on with what is left.
    """
    log = Log(out / LOG, header["log_size"])
    count = header.get("records", 0)
    if not count and log.there < log.size:  # an older checkpoint, which does not say
        count = 1 + header["epoch"] // experiment.evaluate_every
    lost = log.lost(count, header["step"])
    if lost and not despite:
        raise ExperimentError(
            f"The log {log.path} lacks the records of {lost} of {max(lost, count)} measured epochs: it has {log.there} "
            f"bytes, expected at least {log.size} as its checkpoint says; put it back, or go on with what is left by "
            f"{files.typed('resume', out, '--despite-lost-log')}."
        )
    if lost:
        log.keep_what_is_left(header["step"], due)
    return log, lost


def check_line(line: Any) -> None:
    """Raise ValueError for a line that is neither a record nor a segment as its readers expect it; what a segment does
    not say of its data is None from here on."""
    if not isinstance(line, dict):
        raise ValueError("no table")
    if SEGMENT not in line:
        check_kinds(line, RECORD)
        return
    if not isinstance(line[SEGMENT], dict):
        raise ValueError(f"{SEGMENT} is {shown(line[SEGMENT])}, expected {TABLE[0]}")
    check_kinds(line[SEGMENT], OF_SEGMENT)
    check_kinds(line[SEGMENT]["data"], OF_DATA)
    line[SEGMENT]["data"] = dict.fromkeys(OF_DATA) | line[SEGMENT]["data"]


def check_kinds(found: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """Raise ValueError for an entry that is of another kind, or is not there."""
    for name, (words, fits) in kinds.items():
        if not fits(found.get(name)):
            raise ValueError(f"{name} is {shown(found[name]) if name in found else 'missing'}, expected {words}")


def segments_of(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The segments among a log's lines."""
    return [line[SEGMENT] for line in lines if SEGMENT in line]


def records_of(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The evaluations among a log's lines."""
    return [line for line in lines if SEGMENT not in line]


def whole_lines(path: Path, size: int | None = None) -> tuple[list[bytes], bytes]:
    """The lines of a log, or of its first bytes, and what is half written behind them. Raises OSError."""
    *lines, rest = files.content(path)[:size].split(b"\n")
    return lines, rest


def understood(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """A line of a log. Raises ExperimentError for one that is damaged."""
    try:
        found = json.loads(line)
        check_line(found)
    except json.JSONDecodeError as error:
        why = f"{error.msg.lower()}, expected a table in JSON"
    except (ValueError, RecursionError) as error:  # not UTF-8, thousands of digits, a depth of thousands
        why = str(error)
    else:
        return found
    raise ExperimentError(f"The log {path} is damaged in line {number} ({why}): mend that line, or delete it.")


def read_log(path: Path, size: int | None = None) -> list[dict[str, Any]]:
    """The whole lines of a log, or of its first bytes. Raises ExperimentError for one that is not understood."""
    lines, _ = whole_lines(path, size)
    return [understood(path, number, line) for number, line in enumerate(lines, 1)]


class Told(NamedTuple):
    """What a run's log tells its readers."""

    records: list[dict[str, Any]]
    segments: list[dict[str, Any]]  # none in an older one
    damage: str = ""  # a sentence, where the last line is left out


def told(out: Path) -> Told:
    """What a run's log holds, but for a last line that is damaged or that a kill cut short; nothing of no log.

    Raises ExperimentError for any other line that is not understood.
    """
    path, damage = out / LOG, ""
    if not exists(path):
        return Told([], [])
    lines, rest = whole_lines(path)
    found = [understood(path, number, line) for number, line in enumerate(lines[:-1], 1)]
    if rest:
        damage = f"The log {path} ends in half a line, line {len(lines) + 1}, which is left out."
    if lines:
        try:
            found.append(understood(path, len(lines), lines[-1]))
        except ExperimentError as error:
            if rest:
                raise
            damage = f"{str(error).partition('): ')[0]}), its last, which is left out."
    return Told(records_of(found), segments_of(found), damage)


def stored(out: Path) -> Experiment | None:
    """The experiment of a run's folder, None where there is none. Raises ExperimentError where it cannot be read."""
    path = out / EXPERIMENT
    return read(path) if exists(path) else None


def records(out: Path) -> list[dict[str, Any]]:
    """The evaluations that `told` finds."""
    return told(out).records


def segments(out: Path) -> list[dict[str, Any]]:
    """The segments that `told` finds."""
    return told(out).segments
