"""What the seeds of a check differ in beyond their numbers: the time of the step, and the kind of the batch.

A step is a function of the state and the batch. One that is right in the first iterations, on centred inputs or with
one-hot targets alone is wrong: seed 0 is the ordinary case, the others leave it.
"""

import numpy as np

from ref_bioplaus.conformance.cases.cases import Moment, Stepped, as_held, drawn_inputs, root
from ref_bioplaus.random import uniform
from ref_bioplaus.tree import named_leaves, unflatten
from ref_bioplaus.types import State


def in_time(state: State, moment: Moment) -> State:
    """The state with other counts, and running statistics that are neither 0 nor 1; nothing else is changed."""

    def counted(memory, count):
        moved = [np.asarray(count, np.int32) if name.endswith("count") else leaf for name, leaf in named_leaves(memory)]
        return unflatten(memory, moved)

    forward, feedback = (
        path._replace(memory=counted(path.memory, count))
        for path, count in ((state.forward, moment.forward), (state.feedback, moment.feedback))
    )
    stats = unflatten(state.stats, [away(leaf) for _, leaf in named_leaves(state.stats)])
    return state._replace(t=np.asarray(moment.t, np.int32), forward=forward, feedback=feedback, stats=stats)


def away(statistics: np.ndarray) -> np.ndarray:
    """Running means of 0 or variances of 1, moved by quarters, which every dtype holds; no two neighbours alike."""
    return np.asarray(statistics) + 0.25 * (1.0 + np.arange(np.size(statistics)) % 3)


def varied(asked: Stepped, seed: int, n: int, given: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a seed. 0: the one that is given. 1: inputs far from 0, of one class, no image all of
    one colour (nobody could tell the largest of equal pixels). 2: sparse inputs, of which
    every second is that before it once more, with soft targets."""
    x, y = given
    kind = seed % 3
    if kind == 1:
        return as_held(drawn_inputs(asked, seed, n, zero=False) + 3.0, asked.dtype), np.repeat(y[:1], n, axis=0)
    if kind == 2:
        kept = uniform((root(seed), asked.id, "kept", n), x.shape, np.float64) < 0.3
        again = np.arange(n) // 2 * 2
        soft = 0.5 * y + 0.25 * np.roll(y, 1, axis=1) + 0.25 * np.roll(y, 2, axis=1)  # every dtype holds it
        return np.where(kept, x, 0.0)[again], soft
    return x, y
