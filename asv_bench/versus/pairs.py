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


def pair(base: Path, new: Path, names: Sequence[str], which: int = 0) -> dict[str, float]:
    """The ratios new / base that one pair finds. Raises RuntimeError where a subject fails, with its name.

    which: the core that both keep to: what else runs there disturbs them alike.
    """
    processes = {"base": Process(base, which), "the working tree": Process(new, which)}
    found = {}
    try:
        for name in names:
            for side, process in processes.items():
                process.tell(subject=name)
                try:
                    process.answer()
                except RuntimeError as error:
                    raise RuntimeError(f"{name} failed in {side}: {error}") from None
        for name in names:
            rounds = []
            for i in range(ROUNDS):
                order = [*processes] if i % 2 == 0 else [*processes][::-1]
                turns = {side: processes[side].turn(name, TURN) for side in order}
                rounds.append(turns["the working tree"] / turns["base"])
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
        for name, ratio in pair(base, new, names, done).items():
            found[name].append(ratio)
        longest = max(longest, time.monotonic() - started)
        tell(done + 1)
    return found
