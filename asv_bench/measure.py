"""Times that can be compared: subjects take turns in one process, and what counts is the ratio of their medians.

A turn is one step that is not timed, which brings code and data back into the caches (none where a step takes longer
than half a second, and fills them by itself), then as many timed steps as fill the turn. The order turns round from
round to round, the garbage collector rests, and every time ends with the device.

In a contest with NumPy all pause before each turn: OpenBLAS's threads hold their cores for a tenth of a second after a
product (2^OPENBLAS_THREAD_TIMEOUT cycles, 2^28 unless it is set), and would take them from whatever is timed next.
"""

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

TURN = 0.02  # seconds that a turn lasts at least
LONG = 0.5  # seconds of a step that needs none before it
PAUSE = 0.2  # seconds before a turn in a contest with NumPy
RESAMPLES = 1000


class Subject(Protocol):
    """What can be timed."""

    def __call__(self) -> None:
        """One step."""

    def wait(self) -> None:
        """Return once the step is done."""


class Call:
    """A function as a subject; wait: what waits for its device."""

    def __init__(self, function: Callable[[], object], wait: Callable[[], None] = lambda: None):
        self.function, self.wait, self.result = function, wait, None

    def __call__(self) -> None:
        """Call it, and keep what it returns until the next call."""
        self.result = self.function()


class Ratio(NamedTuple):
    """A ratio of medians; low and high: 95 % of its resampled values; spread: the scatter of its log by round."""

    value: float
    low: float
    high: float
    spread: float


@dataclass
class Timings:
    """Seconds per step: one number for every round, by subject."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """The median over rounds."""
        return float(np.median(self.seconds[name]))

    def quartiles(self, name: str) -> tuple[float, float]:
        """The lower and the upper quartile over rounds."""
        low, high = np.percentile(self.seconds[name], (25, 75))
        return float(low), float(high)

    def ratio(self, name: str, against: str) -> Ratio:
        """Time of `name` over time of `against`."""
        a, b = np.array(self.seconds[name]), np.array(self.seconds[against])
        rounds = np.random.default_rng(0).integers(0, len(a), (RESAMPLES, len(a)))
        resampled = np.median(a[rounds], axis=1) / np.median(b[rounds], axis=1)
        low, high = np.percentile(resampled, (2.5, 97.5))
        lower, upper = np.percentile(np.log(a / b), (25, 75))
        value = float(np.median(a) / np.median(b))
        return Ratio(value, float(low), float(high), float(upper - lower) / 1.349)  # a normal's quartiles


def warm_up(subject: Subject) -> float:
    """Run a subject three times; seconds that this took longer than three times the last step: compilation, mostly.

    Where the first step's results lie in memory in another order than what it was given, the second compiles again.
    """
    took = [step_time(subject) for _ in range(3)]
    return max(sum(took) - 3.0 * took[-1], 0.0)


def step_time(subject: Subject, steps: int = 1) -> float:
    """Seconds per step of some steps and the wait behind them."""
    start = time.perf_counter()
    for _ in range(steps):
        subject()
    subject.wait()
    return (time.perf_counter() - start) / steps


def interleaved(subjects: Mapping[str, Subject], seconds: float = 10.0, rounds: int = 7, pause: float = 0.0) -> Timings:
    """Time warm subjects in turn, for about so many seconds without the pauses, and at least so many rounds.

    pause: seconds before each turn. Raises ValueError where there is nothing to time.
    """
    if not subjects:
        raise ValueError("interleaved: there are no subjects, expected at least one")
    took = {name: max(step_time(s), 1e-7) for name, s in subjects.items()}
    steps = {name: max(1, math.ceil(TURN / once)) for name, once in took.items()}
    timings = Timings({name: [] for name in subjects})
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        done, end = 0, time.perf_counter() + seconds
        while done < rounds or time.perf_counter() < end:
            order = list(subjects) if done % 2 == 0 else list(reversed(subjects))
            for name in order:
                time.sleep(pause)
                end += pause
                if took[name] < LONG:
                    step_time(subjects[name])
                timings.seconds[name].append(step_time(subjects[name], steps[name]))
            done += 1
    finally:
        if collecting:
            gc.enable()
    return timings


def peaks(seconds: float = 1.0, device: str = "cpu", precision: str = "ieee") -> dict[str, float]:
    """Operations per second of one large product, by library, and of one convolution where torch is there.

    precision: of a GPU's products, "ieee", "tf32" or "bf16"; a CPU's are float32.
    """
    n, found = 2048, {}
    if device == "cpu":
        a = np.random.default_rng(0).standard_normal((n, n)).astype("float32")
        found["numpy product"] = 2 * n**3 / fastest(lambda: a @ a, seconds)
    try:
        import torch
    except ImportError:
        return found
    n = n if device == "cpu" else 8192
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    on_gpu = device.startswith("cuda")
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    if on_gpu:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    dtype = torch.bfloat16 if on_gpu and precision == "bf16" else torch.float32
    with torch.inference_mode():
        m = torch.randn(n, n, device=device, dtype=dtype)
        found["torch product"] = 2 * n**3 / fastest(lambda: m @ m, seconds, wait)
        x = torch.randn(64, 128, 32, 32, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        w = torch.randn(128, 128, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        work = 2 * 64 * 32 * 32 * 128 * 128 * 9
        run = lambda: torch.conv2d(x, w, padding=1)  # noqa: E731
        found["torch convolution"] = work / fastest(run, seconds, wait)
    if on_gpu:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
    return found


def fastest(function: Callable[[], object], seconds: float, wait: Callable[[], None] = lambda: None) -> float:
    """The shortest of the times that fit into so many seconds."""
    call = Call(function, wait)
    warm_up(call)
    end, best = time.perf_counter() + seconds, math.inf
    while time.perf_counter() < end:
        best = min(best, step_time(call))
    return best
