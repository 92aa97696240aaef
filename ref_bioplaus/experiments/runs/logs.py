"""What the folder of a run holds beside its checkpoints: the experiment, the log, why it failed."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...machine import files
from ...machine.files import write_whole
from ..spec.experiment import Experiment, ExperimentError, read

EXPERIMENT = "experiment.toml"
LOG = "log.jsonl"
TENSORBOARD = "tensorboard"
SEGMENT = "segment"  # the key of a line that is no record
IMAGES = {"dataset", "as_named", "train", "labels", "sha256", "of"}  # what a segment says of its data at least
FAILURE = "failure.txt"  # of a run that failed: why


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
        return self.path.stat().st_size if self.path.exists() else 0

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
        content = files.content(self.path) if self.path.exists() else b""
        for line, entry in zip(content.split(b"\n"), read_log(self.path) if content else (), strict=False):
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
    """Raise ValueError for a line that is neither a record nor a segment as its readers expect it."""
    if not isinstance(line, dict):
        raise ValueError("no table")
    found = line.get(SEGMENT, line)
    expected: dict[str, type] = {"step": int}
    if found is not line:
        expected |= dict.fromkeys(("number", "epoch", "cores"), int) | dict.fromkeys(("data", "versions"), dict)
        expected |= dict.fromkeys(("backend", "device", "kernels", "dtype", "precision", "processor"), str)
    wrong = not isinstance(found, dict) or any(type(found.get(name)) is not kind for name, kind in expected.items())
    if wrong or (found is not line and not found["data"].keys() >= IMAGES):
        raise ValueError("no record and no segment")


def segments_of(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The segments among a log's lines."""
    return [line[SEGMENT] for line in lines if SEGMENT in line]


def records_of(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The evaluations among a log's lines."""
    return [line for line in lines if SEGMENT not in line]


def read_log(path: Path, size: int | None = None) -> list[dict[str, Any]]:
    """The whole lines of a log, or of its first bytes. Raises ExperimentError for one that is not understood."""
    found = []
    for number, line in enumerate(files.content(path)[:size].decode("utf-8", "replace").splitlines(keepends=True), 1):
        if line.endswith("\n"):  # the last one may be half written
            try:
                found.append(json.loads(line))
                check_line(found[-1])
            except (ValueError, RecursionError) as error:
                raise ExperimentError(
                    f"The log {path} is damaged in line {number}: delete what is wrong there."
                ) from error
    return found


def stored(out: Path) -> Experiment | None:
    """The experiment of a run's folder, None where there is none. Raises ExperimentError where it cannot be read."""
    path = out / EXPERIMENT
    return read(path) if path.exists() else None


def records(out: Path) -> list[dict[str, Any]]:
    """The evaluations in a run's log; a last line that a kill cut short is left out.

    Raises ExperimentError for a line that is not understood.
    """
    path = out / LOG
    return records_of(read_log(path)) if path.exists() else []


def segments(out: Path) -> list[dict[str, Any]]:
    """The segments in a run's log; none in an older one. Raises ExperimentError for a line that is not understood."""
    path = out / LOG
    return segments_of(read_log(path)) if path.exists() else []
