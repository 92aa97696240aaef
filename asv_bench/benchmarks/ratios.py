"""Every subject against a product of matrices of the same library: a ratio that a machine's mood does not move.

Each is a benchmark of its own, as track_ratio_torch_W1_FA, for every library that is installed: none is "n/a".
"""

import statistics
from collections.abc import Callable

from .subjects import names
from .turns import YARDSTICK, Process

PROCESSES, ROUNDS, TURN = 3, 15, 0.03


def one_process(name: str, rounds: int = ROUNDS, against: str = "") -> float:
    """The ratio in a process of its own, to another subject or the yardstick. Raises RuntimeError where it fails."""
    process, stick = Process(), against or f"{name.split()[0]} {YARDSTICK}"
    try:
        for one in (name, stick):
            process.tell(subject=one)
            process.answer()
        found = []
        for i in range(rounds):
            turns = {one: process.turn(one, TURN) for one in ((name, stick), (stick, name))[i % 2]}
            found.append(turns[name] / turns[stick])
        return statistics.median(found)
    finally:
        process.close()


def tracked(name: str) -> Callable[[], float]:
    """A benchmark: the median over several processes, as memory lies otherwise in each. Larger is slower."""

    def track_ratio() -> float:
        return statistics.median(one_process(name) for _ in range(PROCESSES))

    track_ratio.__name__ = f"track_ratio_{name.replace(' ', '_')}"
    track_ratio.timeout = 600  # type: ignore[attr-defined]
    return track_ratio


globals().update({found.__name__: found for found in map(tracked, names())})
