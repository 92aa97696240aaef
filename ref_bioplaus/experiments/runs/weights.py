"""Weights in files: what a run has learned, written for torch, and what a run begins from.

    export("runs/kp", "kp.safetensors")
    module.load_state_dict(safetensors.torch.load_file("kp.safetensors"), strict=True)

A file holds every weight, bias and running statistic in PyTorch's layout and under its names, as `layouts.py` says.
What a run begins from is such a file, a Module's state_dict(), or the arrays of a network: their bytes are kept in the
run's folder, as START, and their hash in its experiment.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ... import backends
from ...initializers import Given, forward_params, given, zero
from ...machine import files
from ...network import Network
from ...tree import leaves, named_leaves, unflatten
from ..spec.experiment import Experiment, ExperimentError
from . import checkpoints

START = "start.safetensors"  # in a run's folder
OURS = ("params/", "stats/")  # how names of arrays in our layout begin


class Start(NamedTuple):
    """What a run begins from: the content of a file of weights, and its SHA-256."""

    content: bytes
    sha256: str
    source: str  # for a sentence


def write(file: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write weights by name to a file. Raises ExperimentError where it cannot be written."""
    try:
        files.write_whole(Path(file), encoded(arrays))
    except OSError as error:
        raise ExperimentError(f"The file {file} cannot be written ({error.strerror}): name another one.") from error


def encoded(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of a file of weights."""
    from safetensors.numpy import save

    return save({name: np.asarray(array, order="C") for name, array in arrays.items()}, {"format": "pt"})


def start_of(experiment: Experiment, params: Any, needed: bool = True) -> Start | None:
    """What a run begins from, where it is given weights: `params`, or else the file that the experiment names.

    params: a file, a Module's state_dict(), or (params, stats) as from_torch and algorithms have them.
    needed: whether the run begins now. Raises ExperimentError where they cannot be read, or are not those that the
    experiment says.
    """
    if params is None and experiment.start is None:
        if experiment.start_sha256 is None or not needed:
            return None
        raise ExperimentError(
            f"The experiment begins from weights of sha256 {experiment.start_sha256}, which are not here: name their "
            "file with --start."
        )
    source = experiment.start if params is None else params
    if isinstance(source, str | Path):
        name = f"The weights in {source}"
        try:
            content = files.content(source)
        except OSError as error:
            raise ExperimentError(f"{name} cannot be read ({error.strerror}): name another file.") from error
    else:
        name = "The weights that are given"
        content = encoded(arrays_of(source, name))
    found = Start(content, hashlib.sha256(content).hexdigest(), name)
    if experiment.start_sha256 not in (None, found.sha256):
        raise ExperimentError(
            f"{name} have sha256 {found.sha256}, but the experiment begins from {experiment.start_sha256}: name those, "
            "or leave out start_sha256."
        )
    return found


def arrays_of(source: Any, name: str) -> dict[str, np.ndarray]:
    """Weights by name: a Module's as they are, those of a tree by their path. Raises ExperimentError."""
    if not isinstance(source, Mapping):
        pair = source[-2:] if isinstance(source, tuple) and len(source) in (2, 3) else None  # of from_torch, three
        if pair is None or not leaves(pair[0]):
            raise ExperimentError(
                f"{name} are a {type(source).__name__}, expected a safetensors file, a Module's state_dict() or "
                "(params, stats)."
            )
        source = dict(named_leaves(dict(zip(("params", "stats"), pair, strict=True))))
    try:
        return {str(n): np.asarray(array) for n, array in source.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExperimentError(
            f"{name} cannot be read by NumPy ({error}): give NumPy arrays, or tensors on the CPU."
        ) from error


def kept(out: Path, sha256: str) -> Start:
    """What the run in a folder began from. Raises CheckpointError where its file is missing or another."""
    path = out / START
    try:
        content = files.content(path)
    except OSError as error:
        raise checkpoints.CheckpointError(
            f"The weights that the run began from, {path}, cannot be read ({error.strerror}): put the file back, or "
            "leave sign_changes out of the run's metrics."
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise checkpoints.CheckpointError(
            f"The weights that the run began from, {path}, were altered: put the file back, or leave sign_changes out "
            "of the run's metrics."
        )
    return Start(content, sha256, f"The weights in {path}")


def blank(network: Network) -> tuple[Any, Any]:
    """Parameters and statistics of a network's shapes, as NumPy arrays; of bfloat16 in float32."""
    dtype = "float64" if network.dtype == "float64" else "float32"
    return forward_params(network.with_dtype(dtype), (np.zeros(2, np.int32),), zero)


def given_to(network: Network, start: Start) -> Given:
    """A run's first weights as an algorithm's initializer. Raises ExperimentError where they are not the network's."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(start.content)
    except (SafetensorError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise ExperimentError(
            f"{start.source} are no safetensors that NumPy reads ({' '.join(str(error).split())}): write them by "
            "`ref-bioplaus export`, or in float32 by safetensors.torch.save_file."
        ) from error
    if {"t", "key"} <= arrays.keys():  # a State
        raise unfit(start, f"they are a checkpoint: write them by {files.typed('export', 'RUN', 'FILE')} first")
    params, stats = blank(network)
    if all(name.startswith(OURS) for name in arrays):
        tree = {"params": params, "stats": stats}
        wanted, there = ({n: tuple(a.shape) for n, a in found} for found in (named_leaves(tree), arrays.items()))
        for name in (*wanted, *there):
            if wanted.get(name) != there.get(name):
                raise unfit(start, f"{name} has shape {there.get(name)}, expected {wanted.get(name)}")
        tree = unflatten(tree, [arrays[name] for name in wanted])
        return given(tree["params"], tree["stats"])
    try:
        return given(*backends.get("numpy").import_params(network, params, arrays, stats))
    except (KeyError, ValueError) as error:
        raise unfit(start, error.args[0]) from error


def unfit(start: Start, why: str) -> ExperimentError:
    """What to say of weights that are not the network's."""
    return ExperimentError(f"{start.source} do not fit the model: {why}.")
