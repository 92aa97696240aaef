"""Where the time of a step goes: `python -m asv_bench.profile W1 torch SN`.

On torch, by operation, and on JAX, by the parts of XLA's program (of all threads together, without their waiting), as
their own profilers have it; on NumPy and CuPy, by kernel. All of them cost time themselves.
"""

import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ref_bioplaus import backends
from ref_bioplaus.backends import Backend
from ref_bioplaus.kernels import Kernels
from ref_bioplaus.machine.environment import keep_freed_memory

from .measure import warm_up
from .workloads import METHODS, WORKLOADS, Training

STEPS = 30  # at most
SECONDS = 20.0  # after which no further step begins


class Part:
    """What calls of one name took: seconds without those spent in other parts that they called."""

    def __init__(self) -> None:
        self.calls, self.seconds = 0, 0.0


def timed(kernels: Kernels, parts: dict[str, Part], wait: Callable[[], None]) -> Kernels:
    """The kernels, each of which adds what it took to the part of its name."""
    inside: list[float] = []  # per call that runs, the seconds of the calls it made

    def with_clock(name, kernel):
        def call(*arguments, **options):
            inside.append(0.0)
            start = time.perf_counter()
            result = kernel(*arguments, **options)
            wait()
            took = time.perf_counter() - start
            part = parts.setdefault(name, Part())
            part.calls, part.seconds = part.calls + 1, part.seconds + took - inside.pop()
            if inside:
                inside[-1] += took
            return result

        return call

    return kernels._replace(**{n: with_clock(n, k) for n, k in kernels._asdict().items() if callable(k)})


def by_kernel(workload: str, method: str, backend: Backend) -> tuple[dict[str, Part], float, int]:
    """The parts of the steps taken, the seconds of all of them, and how many they were."""
    parts: dict[str, Part] = {}
    backend.kernels = timed(backend.kernels, parts, backend.synchronize)
    training = Training(WORKLOADS[workload], method, backend)
    warm_up(training)
    parts.clear()
    seconds, steps = run(training)
    rest = parts.setdefault("everything else", Part())
    rest.calls, rest.seconds = steps, seconds - sum(part.seconds for part in parts.values())
    return parts, seconds, steps


def by_operation(workload: str, method: str, backend: Backend) -> tuple[dict[str, Part], float, int]:
    """The same, by torch's operations."""
    import torch

    training = Training(WORKLOADS[workload], method, backend)
    warm_up(training)
    with torch.profiler.profile() as profile:
        seconds, steps = run(training)
    parts: dict[str, Part] = {}
    for row in profile.key_averages():
        part = parts.setdefault(row.key, Part())
        part.calls = row.count
        part.seconds = (row.self_device_time_total if backend.on_gpu else row.self_cpu_time_total) / 1e6
    return parts, sum(part.seconds for part in parts.values()), steps


def by_program(workload: str, method: str, backend: Backend) -> tuple[dict[str, Part], float, int]:
    """The same, by the parts of XLA's program."""
    from .profile_jax import by_program_part

    training = Training(WORKLOADS[workload], method, backend)
    warm_up(training)
    found, steps = by_program_part(training, run)
    parts: dict[str, Part] = {}
    for name, (calls, seconds) in found.items():
        parts[name] = part = Part()
        part.calls, part.seconds = int(calls), seconds
    return parts, sum(part.seconds for part in parts.values()), steps


SPLIT = {"torch": by_operation, "jax": by_program, "numpy": by_kernel, "cupy": by_kernel}


def run(training: Training) -> tuple[float, int]:
    """The seconds that some steps took, and how many they were."""
    start, steps = time.perf_counter(), 0
    while steps < STEPS and (not steps or time.perf_counter() - start < SECONDS):
        training()
        steps += 1
    training.wait()
    return time.perf_counter() - start, steps


def rows(parts: dict[str, Part], seconds: float, steps: int, most: int) -> Iterator[tuple[str, ...]]:
    """The parts that took longest: name, calls and milliseconds per step, share."""
    for name, part in sorted(parts.items(), key=lambda item: -item[1].seconds)[:most]:
        share = f"{100 * part.seconds / seconds:.0f}%"
        yield name, f"{part.calls / steps:.0f}", f"{1e3 * part.seconds / steps:.3f}", share


def main(
    workload: Annotated[str, typer.Argument(help="W1 to W8.")],
    backend: Annotated[str, typer.Argument(help="torch, jax, numpy or cupy.")],
    method: Annotated[str, typer.Argument(help="As in BP, FA, KP.")] = "BP",
    device: Annotated[str | None, typer.Option(help="As in cpu or cuda.")] = None,
    most: Annotated[int, typer.Option(help="Rows to show.")] = 12,
) -> None:
    """Where the time of a step goes."""
    for given, known in ((workload, WORKLOADS), (method, METHODS), (backend, SPLIT)):
        if given not in known:
            raise typer.BadParameter(f'"{given}" is unknown, expected one of {", ".join(known)}')
    keep_freed_memory()
    made: Any = backends.get(backend, device=device, kernels="native")
    parts, seconds, steps = SPLIT[backend](workload, method, made)
    table = Table(title=f"{method} on {workload}, {backend}: {1e3 * seconds / steps:.2f} ms a step")
    for column, side in (("part", "left"), ("calls", "right"), ("ms a step", "right"), ("share", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for row in rows(parts, seconds, steps, most):
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
