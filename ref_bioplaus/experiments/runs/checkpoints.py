"""Checkpoints: safetensors files with a JSON header, which a kill at any moment leaves whole.

A file is written under a temporary name in its own folder, synced, and renamed; then the folder is synced. The two
newest are kept, the best, and one or two from before the loss may have risen (see sound.py), FILES at most. The
header's checksum covers the header and every tensor. bfloat16 is stored as float32, which holds it exactly.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Sequence
from os.path import exists, isdir
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...backends import Backend
from ...machine import files
from ...machine.files import TEMPORARY, write_whole
from ...tree import named_leaves, unflatten
from ...types import State

KEPT = 2  # newest
FILES = KEPT + 3  # of a run: the best, the one proven, and the one that may be
BEST = "best.safetensors"
FORMAT = 1
ENTRY = "ref_bioplaus"  # of the safetensors metadata


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written; the message is one sentence that says what to do."""


class Checkpoint(NamedTuple):
    """What a file holds: the state's tensors by their path in the tree, and the header."""

    path: Path
    header: dict[str, Any]
    tensors: dict[str, np.ndarray]


def name_at(step: int) -> str:
    """The file name of a step's checkpoint."""
    return f"step-{step:012d}.safetensors"


def found(folder: Path) -> list[Path]:
    """A folder's checkpoints, the newest first; the best, which is a copy of one of them, is not among them."""
    there = folder.glob("step-*.safetensors") if isdir(folder) else ()
    return sorted((path for path in there if not isdir(path)), reverse=True)


def step_of(path: Path) -> int:
    """The step in the file name of a checkpoint."""
    return int("".join(filter(str.isdecimal, path.stem)) or 0)


def save(
    folder: Path, step: int, header: dict[str, Any], tensors: dict[str, np.ndarray], best: bool = False,
    kept: Callable[[Sequence[int]], Collection[int]] = lambda steps: (),
) -> Path:  # fmt: skip
    """Write a checkpoint, and first the best one where this is it; then delete all others but the newest before it, and
    those that `kept` names of the steps up to it.

    In this order a kill between the two leaves a run that goes on from before and finds the same best again. Raises
    CheckpointError where the disk does not take it.
    """
    content = encoded(header, tensors)
    path = folder / name_at(step)
    try:
        if best:
            write_whole(folder / BEST, content)
        write_whole(path, content)
        older = [other for other in found(folder) if other < path]
        steps = kept([step, *map(step_of, older)])
        keep = [path, *older[: KEPT - 1], *(other for other in older if step_of(other) in steps)]
        for other in found(folder):
            if other not in keep:
                os.unlink(other)
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint {path} cannot be written ({error.strerror}): {files.remedy(error)}, then continue with "
            f"{files.typed('resume', folder)}."
        ) from error
    return path


def encoded(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> bytes:
    """The content of a checkpoint's file."""
    from safetensors.numpy import save as serialized

    whole = header | {"format": FORMAT, "checksum": checksum(header | {"format": FORMAT}, tensors)}
    return serialized(tensors, {ENTRY: json.dumps(whole)})  # in their order, which modifications have


def checksum(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 of the header without its checksum and of every tensor with its name, dtype and shape."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype.str}\0{tensor.shape}\0".encode())
        digest.update(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def load(path: Path) -> Checkpoint:
    """A checkpoint from its file. Raises CheckpointError where it is missing, truncated or altered.

    The sentence names the checkpoint before it, where there is one.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialized

    try:
        content = files.content(path)
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read ({error.strerror}): {before(path)}.") from error
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][ENTRY])
        tensors = deserialized(content)
        expected = header.pop("checksum")
        whole = checksum(header, tensors) == expected
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, MemoryError, RecursionError):
        whole = False
    if not whole:
        raise CheckpointError(f"The checkpoint {path} is truncated or altered: {before(path)}.")
    if header["format"] != FORMAT:
        raise CheckpointError(f"The checkpoint {path} has format {header['format']}, expected {FORMAT}.")
    return Checkpoint(path, header, tensors)


def header_of(path: Path) -> dict[str, Any]:
    """A checkpoint's header alone, unchecked; {} where it cannot be read."""
    try:
        with files.to_read(path) as file:
            size = int.from_bytes(file.read(8), "little")
            return dict(json.loads(json.loads(file.read(size))["__metadata__"][ENTRY]))
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError, RecursionError):
        return {}


def before(path: Path) -> str:
    """What to do instead of reading a damaged checkpoint."""
    older = (
        [other for other in found(path.parent) if other.name < path.name] if path.name != BEST else found(path.parent)
    )
    if not older:
        return "there is none before it, so start again in another folder"
    return f"continue from the one before it with {files.typed('resume', path.parent, '--checkpoint', older[0].name)}"


def latest(folder: Path, name: str | None = None) -> Checkpoint:
    """A folder's newest checkpoint, or the one of that file name ("best" for the best). Raises CheckpointError."""
    if name is not None:
        wanted = folder / (BEST if name == "best" else name)
        if wanted not in (*found(folder), folder / BEST) or not exists(wanted):
            there = [p.name for p in found(folder)] + ([BEST] if exists(folder / BEST) else [])
            raise CheckpointError(
                f'The folder {folder} has no checkpoint "{name}": it has {", ".join(there) if there else "none"}.'
            )
        return load(wanted)
    newest = found(folder)
    if not newest:
        start = files.typed("train", "--out", folder)
        raise CheckpointError(f"The folder {folder} has no checkpoint: start with {start}.")
    return load(newest[0])


def tensors_of(backend: Backend, state: State) -> dict[str, np.ndarray]:
    """A state's tensors on the host, by their path in the tree; on a CPU they may be the state's own memory."""
    return {name: np.asarray(backend.to_numpy(leaf), order="C") for name, leaf in named_leaves(state)}


def state_of(backend: Backend, checkpoint: Checkpoint, like: State) -> State:
    """The state of a checkpoint on a backend, in the tree of `like`. Raises CheckpointError where it does not fit."""
    shapes = {name: tuple(leaf.shape) for name, leaf in named_leaves(like)}
    stored = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    for name in sorted(shapes.keys() | stored.keys()):
        if shapes.get(name) != stored.get(name):
            raise CheckpointError(
                f"The checkpoint {checkpoint.path} does not fit its experiment: {name} has shape {stored.get(name)}, "
                f"expected {shapes.get(name)}."
            )
    dtypes = {name: str(leaf.dtype).rpartition(".")[2] for name, leaf in named_leaves(like)}
    for name, wanted in dtypes.items():
        stored_as = checkpoint.tensors[name].dtype
        if stored_as.name != wanted and not (stored_as.kind == "f" and "float" in wanted):  # another precision is taken
            raise CheckpointError(
                f"The checkpoint {checkpoint.path} does not fit its experiment: {name} has dtype {stored_as}, expected "
                f"{wanted}."
            )
    return unflatten(like, [backend.asarray(checkpoint.tensors[name], dtype) for name, dtype in dtypes.items()])


def keep_until(folder: Path, checkpoint: Checkpoint, experiment: dict[str, Any]) -> None:
    """Make a checkpoint the newest of its folder, with the experiment's fields as they are from here on, beside those
    of before: the run takes another way, a kill or not. Raises CheckpointError."""
    newest = folder / name_at(checkpoint.header["step"])
    header = checkpoint.header | {"experiment": experiment}
    if header != checkpoint.header:
        header |= {"experiment_before": checkpoint.header["experiment"]}
    try:
        if checkpoint.path != newest or header != checkpoint.header:  # the best one's own file may be gone, or damaged
            write_whole(newest, encoded(header, checkpoint.tensors))
        for other in found(folder):
            if other > newest:
                other.unlink()
    except OSError as error:
        raise CheckpointError(
            f"The folder {folder} cannot be written to ({error.strerror}): {files.remedy(error)}."
        ) from error


def write_best(checkpoint: Checkpoint) -> None:
    """Make a checkpoint the best of its folder, where it has none. Raises OSError."""
    place = checkpoint.path.with_name(BEST)
    if not exists(place):
        write_whole(place, encoded(checkpoint.header, checkpoint.tensors))


def remove_temporaries(folder: Path) -> None:
    """Delete what a kill left half written."""
    for path in folder.glob(f"*{TEMPORARY}"):
        path.unlink()
