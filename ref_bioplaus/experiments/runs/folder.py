"""A run's folder: for one process alone, with what it may hold and what it must."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from os.path import exists
from pathlib import Path

from ... import naming
from ...machine import files, locking, memory
from ...machine.files import TEMPORARY, NotOrdinary
from ..data.contract import Data
from ..spec import places
from ..spec.differences import differences, same, takes_a_share, understood
from ..spec.experiment import (
    ADJUSTABLE,
    NOT_LEARNING,
    OWN,
    Experiment,
    ExperimentError,
    as_dict,
    as_toml,
    from_dict,
    read,
)
from . import checkpoints, sources, weights
from .checkpoints import Checkpoint
from .logs import EXPERIMENT, FAILURE, LOG, TENSORBOARD

# What a run has before its first checkpoint
BEGUN = (EXPERIMENT, LOG, TENSORBOARD, FAILURE, sources.FOLDER, checkpoints.BEST, weights.START)


class Busy(ExperimentError):
    """A folder whose run another process has taken."""


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """A run's folder, made where it is not there, for this process alone; taken away again where it stays empty.

    Raises Busy, ExperimentError where the folder cannot be made or read, and NotOrdinary where the run would write to a
    link or a folder.
    """
    made = not exists(out)
    try:
        with ExitStack() as held:
            try:
                out.mkdir(parents=True, exist_ok=True)
                held.enter_context(locking.locked(out))
                for name in (EXPERIMENT, LOG, FAILURE, checkpoints.BEST, weights.START):
                    files.check_place(out / name)  # before what is there is read
            except NotOrdinary:
                raise
            except BlockingIOError as error:
                raise Busy(f"Another process is running {out}: wait for it, or name another folder.") from error
            except OSError as error:  # also a name too long for anything in the folder
                raise not_writable(out, error) from error
            yield
    finally:
        if made:
            with suppress(OSError):
                out.rmdir()


def not_writable(out: Path, error: OSError) -> ExperimentError:
    """What to say of a folder that does not take a run."""
    return ExperimentError(f"The folder {out} cannot be written to ({error.strerror}): name another one with --out.")


def takes_another_way(out: Path, experiment: Experiment, checkpoint: Checkpoint) -> bool:
    """Whether a run goes on from a checkpoint with other numbers than it had, and its best one is of what it leaves."""
    now, before = as_dict(experiment), checkpoint.header["experiment"]
    other = any(now.get(name) != before.get(name) for name in ADJUSTABLE)
    return other and checkpoints.header_of(out / checkpoints.BEST).get("step", 0) > checkpoint.header["step"]


def check_empty(out: Path, begun: bool) -> None:
    """Raise ExperimentError unless a folder is not there yet or empty; begun: it may hold a run without checkpoints."""
    there = [path for path in out.iterdir() if path.name != locking.LOCK]
    others = [path for path in there if path.name not in BEGUN and path.suffix != TEMPORARY]
    if there and not others and not begun:
        raise ExperimentError(
            f"{out} holds a run that has no checkpoint yet: start it again with --resume, or name another folder."
        )
    if others:
        raise ExperimentError(
            f"{out} is there already and not empty: continue it with {files.typed('resume', out)}, "
            "or name another folder."
        )


def check_same(experiment: Experiment, stored: Experiment, out: Path, adjusting: bool = False) -> None:
    """Raise ExperimentError where two experiments do not learn the same; adjusting: but for optimizers' numbers."""
    mine, theirs = (places.changed(as_dict(one), called) for one in (experiment, stored))
    for name in sorted(mine.keys() | theirs.keys()):
        a, b = mine.get(name), theirs.get(name)
        if adjusting and name in ADJUSTABLE and a and b and a.get("name") == b.get("name"):
            continue
        moved = name == "modifications" and list(a or ()) != list(b or ())  # each is wrapped around those before it
        if name == "start_sha256" and a is None:  # not given
            continue
        if name not in NOT_LEARNING and (a != b or moved):
            raise ExperimentError(
                f"The run in {out} has {name} = {b!r}, not {a!r}: leave it as it is, or start in another folder."
            )
    if takes_a_share(stored) and experiment.epochs != stored.epochs:
        raise ExperimentError(
            f"The run in {out} fixes signs after a share of its {stored.epochs} epochs, so it cannot become one of "
            f"{experiment.epochs}: leave epochs as it is, or start in another folder."
        )


def called(kind: str, name: str) -> str:
    """What a name is called wherever its file lies, to be compared."""
    return naming.short(name) if isinstance(name, str) and naming.is_code(name) else name


def check_unedited(out: Path, checkpoint: Checkpoint, experiment: Experiment) -> None:
    """Raise ExperimentError where a run's experiment.toml was changed since it was written, and show how; NotOrdinary
    where it is a link.

    It may hold what any checkpoint of the folder says or said before the run was resumed with changes, or `experiment`,
    what is to be from here on.
    """
    path = out / EXPERIMENT
    files.check_place(path)
    if not exists(path):
        return
    headers = [checkpoint.header, *map(checkpoints.header_of, (*checkpoints.found(out), out / checkpoints.BEST))]
    said = [header.get(name) for header in headers for name in ("experiment", "experiment_before")]
    there, run = as_dict(read(path)), as_dict(from_dict(checkpoint.header["experiment"]))
    if not any(same(there, fields) for fields in (run, as_dict(experiment), *map(understood, said))):
        shown = [f"{name} = {mine!r} where the run has {theirs!r}" for name, mine, theirs in differences(there, run)]
        raise ExperimentError(
            f"The file {path} was edited, {', '.join(shown) or 'its modifications have another order'}: take the edit "
            "back, or delete the file, which is then written anew, and name what is to be changed as an option, as "
            "--epochs 20."
        )


def labels_of(data: Data) -> str | None:
    """What tells training images from others; None where the data does not say."""
    return getattr(data, "fingerprint", None)


def check_checkpoint(checkpoint: Checkpoint | None, data: Data, experiment: Experiment, out: Path, total: int) -> None:
    """Raise ExperimentError where a run goes on with other images, or would have to go back. total: its steps."""
    if checkpoint is None:
        return
    header, now = checkpoint.header, data.train.count
    place = experiment.data or (None if experiment.dataset == OWN else experiment.dataset)
    before = header.get("images", now)
    if now != before:
        raise ExperimentError(
            f"The run in {out} learned from {before:,} training images, but here are {now:,}: "
            "name the same data, or start in another folder."
        )
    if None not in (header.get("labels"), labels_of(data)) and header["labels"] != labels_of(data):
        raise ExperimentError(
            f"The run in {out} learned from images with other labels than those "
            f"{f'of {place}' if place else 'given here'}: name the same data, or start in another folder."
        )
    if header["step"] > total:
        raise ExperimentError(
            f"The run in {out} has taken {header['step']:,} steps, so it cannot end after {total:,}: ask "
            "for more epochs or steps."
        )


def prepare_folder(
    out: Path, experiment: Experiment, state: int, checkpoint: Checkpoint | None, start: weights.Start | None = None
) -> None:
    """Write the experiment into the folder, and first into the checkpoint that is gone on from, where there is one.

    state: its bytes. start: what a new run begins from. Raises ExperimentError where there is no room or no right to.
    """
    needed = (checkpoints.FILES + 1) * (state + 100_000)
    try:
        checkpoints.remove_temporaries(out)
        (out / FAILURE).unlink(missing_ok=True)
        free = memory.free_disk(out)
        if free < needed:
            raise ExperimentError(
                f"The folder {out} has {memory.size(free)} free, but the checkpoints need "
                f"{memory.size(needed)}: make room, or name another folder with --out."
            )
        if checkpoint is None or takes_another_way(out, experiment, checkpoint):
            (out / checkpoints.BEST).unlink(missing_ok=True)
        if checkpoint is not None:
            if checkpoint.header["progress"].get("best_step") == checkpoint.header["step"]:
                checkpoints.write_best(checkpoint)
            checkpoints.keep_until(out, checkpoint, as_dict(experiment))
        elif start is not None:
            files.write_whole(out / weights.START, start.content)
        sources.keep(out, experiment)
        files.write_whole(out / EXPERIMENT, as_toml(experiment).encode())
    except OSError as error:
        raise not_writable(out, error) from error
