"""Pairs of processes that take turns, one for each of two trees."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..benchmarks.subjects import LIBRARIES
from ..benchmarks.turns import Process
from .decision import LEAST, MOST

ROUNDS, TURN = 20, 0.02  # turns of each process in a pair, and the seconds that one takes at least


def subjects() -> list[str]:
    """W1's step in every library that is installed, and two kernels in the first of torch, JAX and NumPy."""
    first = next(name for name in ("torch", "jax", "numpy") if name in LIBRARIES)
    return [*(f"{name} W1 BP" for name in LIBRARIES), f"{first} conv_apply", f"{first} local_apply"]


def pair(base: Path, new: Path, names: Sequence[str]) -> dict[str, float]:
    """The ratios new / base that one pair finds. Raises RuntimeError where a subject fails, with its name."""
    processes = {root: Process(root) for root in (base, new)}
    found = {}
    try:
        for name in names:
            for process in processes.values():  # both at once: they are not timed yet
                process.tell(subject=name)
            for which, process in processes.items():
                try:
                    process.answer()
                except RuntimeError as error:
                    raise RuntimeError(
                        f"{name} failed in {'base' if which == base else 'the working tree'}: {error}"
                    ) from None
        for name in names:
            rounds = []
            for i in range(ROUNDS):
                turns = {root: processes[root].turn(name, TURN) for root in ((base, new), (new, base))[i % 2]}
                rounds.append(turns[new] / turns[base])
            found[name] = statistics.median(rounds)
    finally:
        for process in processes.values():
            process.close()
    return found


def measured(
    base: Path, new: Path, names: Sequence[str], seconds: float, tell: Callable[[int], None] = lambda done: None
) -> dict[str, list[float]]:
    """{subject: ratios of the pairs}: as many pairs as are done in so many seconds, LEAST at least, MOST at most."""
    found: dict[str, list[float]] = {name: [] for name in names}
    began, longest = time.monotonic(), 0.0
    for done in range(MOST):
        started = time.monotonic()
        if done >= LEAST and started - began + longest > seconds:
            break
        for name, ratio in pair(base, new, names).items():
            found[name].append(ratio)
        longest = max(longest, time.monotonic() - started)
        tell(done + 1)
    return found
