"""One step in two forms, as a ratio: by public names that not every older commit has. There they are "n/a"."""

import inspect
import statistics
from collections.abc import Callable

import ref_bioplaus as rb

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


def needs(there: bool) -> Callable[..., None]:
    """A benchmark's setup: passes over it where the package lacks what it measures, as asv wants it."""

    def setup(*_: object) -> None:
        if not there:
            raise NotImplementedError

    return setup


track_ratio_to_single_steps.setup = needs("steps" in inspect.signature(rb.backends.Backend.compile).parameters)  # type: ignore[attr-defined]
track_ratio_to_bfloat16_alone.setup = needs(hasattr(rb.optimizers, "in_float32"))  # type: ignore[attr-defined]
track_ratio_to_single_steps.params = (["W1", "W2"], list(LIBRARIES))  # type: ignore[attr-defined]
track_ratio_to_bfloat16_alone.params = ([name for name in ("torch", "jax") if name in LIBRARIES],)  # type: ignore[attr-defined]
track_ratio_to_single_steps.timeout = track_ratio_to_bfloat16_alone.timeout = 600  # type: ignore[attr-defined]
