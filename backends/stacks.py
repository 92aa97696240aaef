"""Several steps by one call: their batches come in a stack, and their Infos go in one."""

from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace

from ref_bioplaus.backends.ownership import Ownership
from ref_bioplaus.tree import tree_map
from ref_bioplaus.types import Array, Batch, Info, State


def one_after_another(step: Callable, joined: Callable, ownership: Ownership | None = None) -> Callable:
    """A step (state, key, batch) as a function of (state, key, stack of batches): each batch learns from where the one
    before it left off, and every array of Info has a first axis as long as the stack.

    joined: makes one array of a list of arrays, along a new first axis. ownership: where the step writes over a state
    that is given away, what says of each state on the way what others see of it.
    """

    def stacked(state: State, key: Array, batches: Batch, **options: Any) -> tuple[State, Info]:
        infos: list[Info] = []
        for i in range(batches.x.shape[0]):
            if i and ownership is not None:
                state = ownership.take(state)
            state, info = step(state, key, Batch(one(batches.x, i), one(batches.y, i)), **options)
            infos.append(info)
        return state, tree_map(lambda *arrays: joined(arrays), *infos)

    return stacked


def one(arrays: Array, i: int) -> Array:
    """One of a stack, in memory of its own: where an array begins may decide how a library adds up its products."""
    return array_namespace(arrays).asarray(arrays[i, ...], copy=True)


def count(batches: Batch) -> int:
    """How many batches are in a stack; 0 where its inputs and targets are not as many."""
    x, y = batches
    return x.shape[0] if x.ndim and y.ndim and x.shape[0] == y.shape[0] else 0
