"""What is recorded of a run: errors of a whole split, and how learning differs from backpropagation on one batch."""

import math
import resource
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from .. import algorithms, metrics
from ..backends import Backend
from ..network import Network, forward
from ..registry.rows import feedback_weights
from ..types import Array, Batch, Info, Optimizer, Params, State, Step
from .spec.building import Built
from .spec.phases import LEARNING

STILL = Optimizer(lambda params, address, kernels: (), lambda grads, memory, params, kernels: (params, memory))
TOP = 5


def rank(output: Array, y: Array) -> Array:
    """How many classes come before each sample's own, int32 (N,); ties come in their order, and NaN comes last.

    output (N, at least classes), y one-hot (N, classes).
    """
    xp = array_namespace(output)
    output = output[:, : y.shape[-1]]
    index = xp.arange(y.shape[-1], dtype=xp.int32, device=device(y))
    label = xp.astype(xp.argmax(y, axis=-1, keepdims=True), xp.int32)
    own = xp.max(xp.where(index == label, output, xp.full_like(output, -float("inf"))), axis=-1, keepdims=True)
    behind = (own > output) | ((own == output) & (index >= label))
    return y.shape[-1] - xp.sum(xp.astype(behind, xp.int32), axis=-1, dtype=xp.int32)


def counting(step: Step, built: Built) -> Step:
    """A step whose Info has nothing but the loss and, as output, each sample's rank."""

    def run(state: State, batch: Batch) -> tuple[State, Info]:
        state, info = step(state, batch)
        if info.loss is None:
            return state, Info()
        return state, Info(loss=info.loss, output=None if built.rebuilds else rank(info.output, batch.y))

    return run


def measuring(built: Built):
    """A function (forward parameters, statistics, x, y) -> each sample's loss and rank, in test mode."""

    def run(params, stats, x, y):
        trace, _ = forward(built.network, params, stats, x, train=False)
        u = trace.h[-1]
        return built.loss.value(u, y), None if built.rebuilds else rank(built.loss.output(u), y)

    return run


@np.errstate(all="ignore")
def measured(backend: Backend, measure, state: State, batches: Iterable[Batch]) -> dict[str, float]:
    """loss, and for classes the error and top-5 error in percent, over all of a split's batches."""
    losses, ranks, classes = [], [], 0
    for batch in batches:
        loss, place = measure(state.forward.params, state.stats, batch.x, batch.y)
        losses.append(loss)
        classes = batch.y.shape[-1]
        if place is not None:
            ranks.append(place)
    found = {"loss": float(np.mean(np.concatenate([backend.to_numpy(a) for a in losses]), dtype=np.float64))}
    if ranks:
        places = np.concatenate([backend.to_numpy(a) for a in ranks])
        found["error"] = 100.0 * int(np.count_nonzero(places > 0)) / len(places)
        if classes > TOP:
            found["top5_error"] = 100.0 * int(np.count_nonzero(places >= TOP)) / len(places)
    return found


class Comparison:
    """Angles, ratios and sign changes on one batch that stays the same; the state is not touched."""

    def __init__(self, backend: Backend, built: Built, names: tuple[str, ...], start: Params | None, batch: Batch):
        """names: of experiment.METRICS. start: the weights before the first step, for sign changes."""
        self.backend, self.start, self.batch = backend, start, batch
        self.run = backend.wrap(comparing(built, names)) if names else None

    @np.errstate(all="ignore")  # the angle of a zero vector is NaN
    def __call__(self, state: State) -> dict[str, dict[str, float | None]]:
        """{metric: {layer: number}}."""
        if self.run is None:
            return {}
        state = state._replace(forward=state.forward._replace(memory=()), feedback=state.feedback._replace(memory=()))
        found = self.run(state, self.start, self.batch)
        return {
            name: {str(l): finite(float(self.backend.to_numpy(a))) for l, a in by_layer.items()}
            for name, by_layer in found.items()
        }


def comparing(built: Built, names: tuple[str, ...]):
    """A function (state, first weights, batch) -> {metric: {layer: array ()}}, which updates nothing."""
    network, row = built.network, built.row._replace(wrappers=())
    mine = row.build(network, built.loss, STILL, STILL if row.inverses else None)
    step = next(mine.modes[mode] for mode in LEARNING if mode in mine.modes)
    reference = algorithms.backprop(network, built.loss, STILL).modes["learn"]
    compares = {"delta_angles", "gradient_ratios"}.intersection(names) and row.name != "backprop"

    def run(state, start, batch):
        found = {}
        if "matrix_angles" in names:
            found["matrix_angles"] = metrics.matrix_angles(state.forward.params, feedback_weights(row, network, state))
        if compares:
            info, exact = step(state, batch)[1], reference(state, batch)[1]
            if "delta_angles" in names and row.module != "backprop":  # BP + Noise walks back with the clean deltas
                found["delta_angles"] = metrics.delta_angles(info, exact)
            if "gradient_ratios" in names:
                found["gradient_ratios"] = metrics.gradient_ratios(exact, info)
        if "sign_changes" in names:
            found["sign_changes"] = metrics.sign_changes(start, state.forward.params)
        return {name: by_layer for name, by_layer in found.items() if by_layer}

    return run


def finite(number: float) -> float | None:
    """The number; None, which JSON knows, where it is not finite."""
    return number if math.isfinite(number) else None


def first_not_finite(names_and_arrays: Iterable[tuple[str, np.ndarray]]) -> str | None:
    """The name of the first array with an entry that is not finite."""
    for name, array in names_and_arrays:
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            return name
    return None


def place(name: str, network: Network) -> str:
    """A tensor's name with its layer's description, as in "info/h/3, layer 3 (dense 256 · bias · tanh)"."""
    numbers = [int(part) for part in name.split("/") if part.isdigit()]
    if not numbers or numbers[0] >= len(network):
        return name
    return f"{name}, layer {numbers[0]} ({network[numbers[0]].name})"


def peak_memory(backend: Backend) -> int | None:
    """The most bytes held so far: on the device where it says so, and otherwise by this process."""
    found = backend.device
    if backend.name == "torch" and getattr(found, "type", "cpu") == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(found))
    if backend.name == "jax" and found.platform != "cpu":
        return (found.memory_stats() or {}).get("peak_bytes_in_use")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class TensorBoard:
    """The numbers of every record as TensorBoard shows them."""

    def __init__(self, folder: Path, start: int = 0):
        """start: the first step to come; what is there of it or later, TensorBoard discards. Raises ImportError."""
        self.events = self.writer()(str(folder), purge_step=start)

    @staticmethod
    def writer() -> Any:
        """The class that writes. Raises ImportError with a sentence where none is installed."""
        for module in ("torch.utils.tensorboard", "tensorboardX"):
            with suppress(ImportError):
                return import_module(module).SummaryWriter
        raise ImportError(
            "TensorBoard's writer is not installed: pip install tensorboardX, or leave out --tensorboard."
        )

    def add(self, record: dict[str, Any]) -> None:
        """One record's numbers."""
        for name, value in record.items():
            by_layer = value.items() if isinstance(value, dict) else [("", value)]
            for layer, number in by_layer:
                if isinstance(number, int | float):
                    self.events.add_scalar(f"{name}/{layer}" if layer else name, number, record["step"])
        self.events.flush()


def with_targets(batch: Batch, built: Built) -> Batch:
    """The batch; for an autoencoder, with its inputs as its targets."""
    return Batch(batch.x, batch.x) if built.rebuilds else batch
