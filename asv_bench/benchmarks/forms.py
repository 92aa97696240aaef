"""One step in two forms, as a ratio: by public names that not every older commit has."""

import statistics

from .ratios import PROCESSES, one_process
from .subjects import LIBRARIES, TOGETHER


def track_ratio_to_single_steps(network: str, library: str) -> float:
    """A step among several by one call, against a step by a call of its own."""
    name = f"{library} {network} BP"
    return statistics.median(one_process(f"{name} together", against=name) for _ in range(PROCESSES)) / TOGETHER


def track_ratio_to_bfloat16_alone(library: str) -> float:
    """A step in bfloat16 with float32 copies of the weights and moments in float32, against one without either."""
    name = f"{library} W1 BP"
    return statistics.median(one_process(f"{name} mixed", against=f"{name} bfloat16") for _ in range(PROCESSES))


track_ratio_to_single_steps.params = (["W1", "W2"], list(LIBRARIES))  # type: ignore[attr-defined]
track_ratio_to_bfloat16_alone.params = ([name for name in ("torch", "jax") if name in LIBRARIES],)  # type: ignore[attr-defined]
track_ratio_to_single_steps.timeout = track_ratio_to_bfloat16_alone.timeout = 600  # type: ignore[attr-defined]
