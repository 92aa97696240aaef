"""What is measured of a run: loss and errors of the batches learned from and of whole splits."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from ...backends import Backend
from ...network import forward
from ...types import Array, Batch, Info, State, Step
from ..boxes.seen import Seen
from ..spec.building import Built

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
        ranked = built.targets == "classes" and info.output is not None
        return state, Info(loss=info.loss, output=rank(info.output, batch.y) if ranked else None)

    return run


def in_turn(steps: Sequence[Step]) -> Step:
    """Several modes on one batch, of `counting`, as one step; its Info has the losses and ranks of all of them."""

    def run(state: State, batch: Batch) -> tuple[State, Info]:
        infos = []
        for step in steps:
            state, info = step(state, batch)
            infos.append(info)
        losses, ranks = ([a for a in arrays if a is not None] for arrays in zip(*(i[:2] for i in infos), strict=True))
        return state, Info(*(array_namespace(found[0]).concat(found) if found else None for found in (losses, ranks)))

    return run


def measuring(built: Built):
    """A function (forward parameters, statistics, x, y) -> each sample's loss and rank, in test mode; of a detector its
    output in the rank's place."""

    def run(params, stats, x, y):
        trace, _ = forward(built.network, params, stats, x, train=False)
        u = trace.h[-1]
        if built.targets == "boxes":
            return built.loss.value(u, y), built.loss.output(u)
        return built.loss.value(u, y), rank(built.loss.output(u), y) if built.targets == "classes" else None

    return run


@np.errstate(all="ignore")
def measured(
    backend: Backend, measure: Callable, state: State, batches: Iterable[Batch], seen: Seen | None = None
) -> dict[str, float]:
    """loss, and for classes the error and top-5 error in percent, over all of a split's batches.

    seen: of a detector, what gathers and measures what it finds. Raises DataError where that needs a package.
    """
    losses, ranks, classes = [], [], 0
    for batch in (batch for batch in batches if batch.x.shape[0]):
        loss, place = measure(state.forward.params, state.stats, batch.x, batch.y)
        losses.append(loss)
        if seen is not None:
            seen.add(backend.to_numpy(place))
            continue
        classes = batch.y.shape[-1]
        if place is not None:
            ranks.append(place)
    if not losses:
        return {"loss": math.nan}
    found = {"loss": float(np.mean(np.concatenate([backend.to_numpy(a) for a in losses]), dtype=np.float64))}
    if seen is not None:
        found |= seen.precision()
    if ranks:
        places = np.concatenate([backend.to_numpy(a) for a in ranks])
        found["error"] = 100.0 * int(np.count_nonzero(places > 0)) / len(places)
        if classes > TOP:
            found["top5_error"] = 100.0 * int(np.count_nonzero(places >= TOP)) / len(places)
    return found


def seen_of(built: Built, data: Any, split: str) -> Seen | None:
    """What gathers what a detector finds in a split; None of other networks."""
    return Seen(data, split) if built.targets == "boxes" else None


def with_targets(batch: Batch, built: Built) -> Batch:
    """The batch; where the targets are the inputs, with these, as vectors where the output is one."""
    if built.targets != "inputs":
        return batch
    x, vectors = batch.x, len(built.network[built.network.L].out_shape) == 1
    if vectors and x.ndim > 2:
        return Batch(x, array_namespace(x).reshape(x, (x.shape[0], math.prod(x.shape[1:]))))
    return Batch(x, x)
