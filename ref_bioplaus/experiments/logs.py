"""What the folder of a run holds beside its checkpoints: the experiment, the log, why it failed."""

import json
import os
from pathlib import Path
from typing import Any

from . import files
from .checkpoints import write_whole
from .experiment import Experiment, ExperimentError, read

EXPERIMENT = "experiment.toml"
LOG = "log.jsonl"
TENSORBOARD = "tensorboard"
FAILURE = "failure.txt"  # of a run that failed: why


class Log:
    """One JSON line per evaluation."""

    def __init__(self, path: Path, size: int = 0):
        """size: bytes of what is there that `cut` keeps. Raises ExperimentError where the file is shorter than that.

        Raises NotOrdinary where a link or a pipe is in its place.
        """
        self.path, self.kept = path, size
        files.check_place(path)
        there = path.stat().st_size if path.exists() else 0
        if there < size:
            raise ExperimentError(
                f"The log {path} has {there} bytes, expected at least {size} as its checkpoint says: lines are lost; "
                "continue from an older checkpoint with --checkpoint, or start in another folder."
            )

    def records(self) -> list[dict[str, Any]]:
        """Every line to keep. Raises ExperimentError for one that is not understood."""
        return read_log(self.path, self.kept) if self.kept else []

    def cut(self) -> None:
        """Leave only what is to be kept; the file is there after this, and of no other name."""
        if files.check_place(self.path):
            write_whole(self.path, files.content(self.path)[: self.kept])
        with files.to_write(self.path, append=True) as file:
            file.truncate(self.kept)
            os.fsync(file.fileno())

    def add(self, record: dict[str, Any]) -> None:
        """One more line, on the disk when this returns."""
        with files.to_write(self.path, append=True) as file:
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def size(self) -> int:
        """Bytes written."""
        return self.path.stat().st_size


def read_log(path: Path, size: int | None = None) -> list[dict[str, Any]]:
    """The whole lines of a log, or of its first bytes. Raises ExperimentError for one that is not understood."""
    found = []
    for number, line in enumerate(files.content(path)[:size].decode("utf-8", "replace").splitlines(keepends=True), 1):
        if line.endswith("\n"):  # the last one may be half written
            try:
                found.append(json.loads(line))
            except ValueError as error:
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
    return read_log(path) if path.exists() else []
