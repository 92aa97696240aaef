"""What the header of a run's checkpoint says, checked before anything is done with it."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...network import Network
from ...showing.words import shown
from . import checkpoints
from .checkpoints import Checkpoint, CheckpointError

Kind = tuple[str, Callable[[Any], bool]]  # in words, and whether a value is of it

WHOLE: Kind = ("a whole number from 0 to 2^63 - 1", lambda v: type(v) is int and 0 <= v < 1 << 63)
FINITE: Kind = ("a finite number", lambda v: type(v) in (int, float) and abs(v) < 1e300)
FLAG: Kind = ("true or false", lambda v: type(v) is bool)
TEXT: Kind = ("a text", lambda v: isinstance(v, str))
TABLE: Kind = ("a table", lambda v: isinstance(v, dict))
LIST: Kind = ("a list", lambda v: isinstance(v, list))
PROGRESS: dict[str, Kind] = (
    dict.fromkeys(("step", "epoch", "position", "wrong", "samples", "seen"), WHOLE)
    | dict.fromkeys(("seconds", "losses", "seen_seconds", "waited", "best"), FINITE)
    | {"best_step": WHOLE, "due": FLAG}
)
ROWS: Kind = (
    "a table of rows",
    lambda v: isinstance(v, dict) and all(isinstance(rows, list) and all(map(WHOLE[1], rows)) for rows in v.values()),
)
NEEDED: dict[str, Kind] = dict.fromkeys(("step", "epoch", "log_size"), WHOLE) | {"experiment": TABLE, "progress": TABLE}
MORE: dict[str, Kind] = dict.fromkeys(("format", "position", "seed", "images", "records"), WHOLE) | {
    "labels": TEXT, "best_by": TEXT, "versions": TABLE, "experiment_before": TABLE, "changes": LIST,
    "left_out": ROWS,
}  # fmt: skip
NONE = ("labels", "best", "best_step")  # what may be null


def latest(folder: Path, name: str | None = None) -> Checkpoint:
    """A run's newest checkpoint, or the one of that name, whose header is that of a run. Raises CheckpointError."""
    found = checkpoints.latest(folder, name)
    header = found.header
    check(found, header, NEEDED, NEEDED | MORE, "")
    check(found, header["progress"], ("step", "epoch", "position"), PROGRESS, "progress.")
    for entry in ("step", "epoch", "position"):
        if header.get(entry, header["progress"][entry]) != header["progress"][entry]:
            raise CheckpointError(
                f"The checkpoint {found.path} contradicts itself: {entry} is {header[entry]}, and progress.{entry} "
                f"{header['progress'][entry]}: {checkpoints.before(found.path)}."
            )
    return found


def check(
    checkpoint: Checkpoint, table: Mapping, needed: Iterable[str], kinds: Mapping[str, Kind], prefix: str
) -> None:
    """Raise CheckpointError where a table of the header lacks an entry, or has one unknown or of another kind."""
    for name in needed:
        if name not in table:
            raise CheckpointError(
                f"The checkpoint {checkpoint.path} lacks {prefix}{name}: {checkpoints.before(checkpoint.path)}."
            )
    for name, value in table.items():
        words, fits = kinds.get(name, ("no such entry", lambda value: False))
        if not fits(value) and not (value is None and name in NONE):
            raise CheckpointError(
                f"The checkpoint {checkpoint.path} says that {prefix}{name} is {shown(value)}, expected {words}: "
                f"{checkpoints.before(checkpoint.path)}."
            )


def check_fit(checkpoint: Checkpoint, network: Network, steps: int) -> None:
    """Raise CheckpointError where a checkpoint has another number of parameters than a network, before any is drawn, or
    has taken more batches of its epoch than there are steps."""
    count = sum(tensor.size for name, tensor in checkpoint.tensors.items() if name.startswith("forward/params/"))
    position = checkpoint.header["progress"]["position"]
    for found, what, expected in ((count, "parameters", network.parameter_count), (position, "batches learned", steps)):
        if found > expected or (found < expected and what == "parameters"):
            raise CheckpointError(
                f"The checkpoint {checkpoint.path} does not fit its experiment: it has {found:,} {what}, expected "
                f"{expected:,}{'' if what == 'parameters' else ' in an epoch at most'}."
            )
