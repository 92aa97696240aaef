"""Every subject against a product of matrices of the same library: a ratio that a machine's mood does not move."""

import statistics

from .subjects import names
from .turns import YARDSTICK, Process

PROCESSES, ROUNDS, TURN = 3, 15, 0.03


class Ratios:
    """Ours over the library's product, in turns, in several processes: memory lies otherwise in each."""

    params = (names(),)
    param_names = ("subject",)
    timeout = 600

    def track_ratio(self, name):
        """The median over processes of the median over rounds: larger is slower."""
        return statistics.median(one_process(name) for _ in range(PROCESSES))


def one_process(name: str, rounds: int = ROUNDS) -> float:
    """The ratio in a process of its own. Raises RuntimeError where it fails."""
    process, stick = Process(), f"{name.split()[0]} {YARDSTICK}"
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
