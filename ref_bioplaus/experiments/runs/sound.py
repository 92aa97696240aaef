"""Which of a run's checkpoints are from before its loss rose: what to go back to where it is not finite any more.

A state is proven where a whole interval between two evaluations has been learned from it on and the interval's mean
loss, over the batches as they were met, was no higher than the (lower) median of the intervals before it. The first
state, which has learned nothing, is proven from the start. Any other may lead to a loss that is not finite, however
many checkpoints are written after it: a loss that is doomed to rise may still be small. So a run keeps, beside its two
newest checkpoints, the newest proven one, and the newest that the next evaluation may prove; with the best, five files
at most.
"""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any


def proven(records: Sequence[Mapping[str, Any]]) -> int:
    """The step up to which states are proven. Intervals without a loss, where inverses alone learned, prove nothing."""
    step, before = 0, list[float]()
    for first, last in pairwise(records):
        loss = last.get("train_loss")
        if loss is not None:
            if not before or loss <= before[(len(before) - 1) // 2]:
                step = first["step"]
            insort(before, loss)
    return step


def newest(steps: Iterable[int], until: int) -> int | None:
    """The last of the steps up to one; None where there is none."""
    return max((step for step in steps if step <= until), default=None)
