"""A run: its parts one after the other, each with its share of the time; what is known is in files at any moment."""

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..machine import files
from ..machine.environment import cores
from ..machine.side_by_side import side_by_side
from . import plan, verdict, work

FILES = {part: f"{part}.jsonl" for part in plan.PARTS}
PAGE, ENVIRONMENT = "gpu.md", "environment.json"
MOST_PROCESSES = 6
MARGIN = 4.0  # seconds in which Python starts and ends
GRACE = 3.0  # seconds that a process may take longer than it was told
LOOKING = 60.0  # seconds in which a library has to say whether it sees the device
SEEDS = range(3)


class Settings(NamedTuple):
    """What was asked for."""

    device: str
    seconds: float
    only: tuple[str, ...] = plan.PARTS
    out: Path = Path("gpu")
    data: str | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether the device is no CPU."""
        return self.device.partition(":")[0] != "cpu"


class NoDevice(RuntimeError):
    """No backend that is installed computes on the device; the message says why of each."""


def run(settings: Settings, say: Callable[[str], None] = lambda sentence: None) -> tuple[str, bool]:
    """The last line, and whether nothing failed. Raises NoDevice, and OSError where the folder cannot be written to."""
    end, out = time.time() + settings.seconds - MARGIN, settings.out
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share the card
    names = plan.ON_GPU if settings.on_gpu else plan.ON_CPU
    found = looked(names, settings, end)
    there = tuple(name for name in names if "versions" in found[name])
    if not there:
        why = "; ".join(f"{plan.label(name)}: {found[name]['why']}" for name in names)
        raise NoDevice(f'no library that is installed computes on "{settings.device}" ({why})')
    about = described(settings, found)
    out.mkdir(parents=True, exist_ok=True)
    for name in (*FILES.values(), PAGE):
        files.to_write(out / name).close()
    files.write_whole(out / ENVIRONMENT, json.dumps(about, indent=2).encode())
    say(f"{about['card']}: {', '.join(map(plan.label, there))}; {settings.seconds:.0f} seconds.")
    absent = {plan.label(name): found[name]["why"] for name in names if name not in there}
    if "conformance" not in settings.only:
        absent = {plan.label(name): "nobody asked for conformance" for name in there} | absent

    def finished() -> tuple[str, bool]:
        forms = verdict.forms(verdict.lines(out / FILES["conformance"]), plan.forms(settings.on_gpu), absent)
        last = verdict.last_line(f"{about['card']} ({settings.device})", forms)
        files.write_whole(out / PAGE, verdict.page(about, forms, out, last).encode())
        return last, not any(form.bad for form in forms)

    try:
        for i, part in enumerate(settings.only):
            until = time.time() + max(0.0, end - time.time() - GRACE) / (len(settings.only) - i)
            PARTS[part](settings, there, until)
            finished()
            for sentence in verdict.prices(verdict.lines(out / FILES[part])):
                say(sentence)
            say(f"{part}: {max(0.0, end - time.time()):.0f} seconds are left.")
    finally:
        result = finished()
    return result


def looked(names: Sequence[str], settings: Settings, end: float) -> dict[str, dict[str, Any]]:
    """What every backend says of the device; each in a process of its own, as some end theirs."""
    found = {name: {"why": "its library did not answer in time"} for name in names}
    tasks = [(name, settings.device) for name in names]
    limit = min(LOOKING, end - time.time())
    for (name, _), answer, _ in side_by_side(work.looked, tasks, processes(settings), limit, time.time() + limit):
        found[name] = answer or {"why": "its process ended without an answer"}
    return found


def processes(settings: Settings) -> int:
    """How many work side by side where nothing is timed: two cores each on a GPU, which they share."""
    return max(1, min(MOST_PROCESSES, cores() // 2 if settings.on_gpu else cores()))


def conformance(settings: Settings, there: Sequence[str], until: float) -> None:
    """Every question, in order, each with its share of the processes' time."""
    asked = [question for question in plan.questions(settings.on_gpu) if question.backend in there]
    beside = processes(settings)
    each = (until - time.time()) * beside / sum(question.weight for question in asked)
    path = settings.out / FILES["conformance"]
    tasks = [(question, settings.device, path, each * question.weight, until) for question in asked]
    for (question, *_), _, _ in side_by_side(work.conforming, tasks, beside, settings.seconds, until + GRACE):
        del question


def speed(settings: Settings, there: Sequence[str], until: float) -> None:
    """One process, with the device to itself; at the end others, for what determinism costs."""
    rounding = tuple(name for name in there if name in plan.ROUNDING)
    task = (tuple(there), rounding, settings.device, not settings.on_gpu, settings.out / FILES["speed"])
    whole = until - time.time()
    end = until - whole * sum(price.share for price in plan.PRICES)
    for price in (None, *plan.PRICES):
        end += whole * price.share if price else 0.0
        list(side_by_side(work.timing, [(*task, end, price)], 1, settings.seconds, end + GRACE))


def learning(settings: Settings, there: Sequence[str], until: float) -> None:
    """Every row of Bartunov's FC column, then the same with other seeds; on a CPU as many rows as run side by side."""
    from ..experiments import papers

    table = papers.table("bartunov2018/table1")
    beside, path = processes(settings), settings.out / FILES["learning"]
    rows = [row.id for row in reversed(table.rows) if (row.id, "mnist-fc") in table.cells]
    rows, seeds = (rows, SEEDS) if settings.on_gpu else (rows[:beside], range(1))
    waves = -(-len(rows) // beside)
    each = (until - time.time()) / waves
    tasks = [(row, seed, there[0], settings.device, settings.data, path, each, until) for seed in seeds for row in rows]
    list(side_by_side(work.learning, tasks, beside, settings.seconds, until + GRACE))


PARTS: dict[str, Callable[[Settings, Sequence[str], float], None]] = {
    "conformance": conformance, "speed": speed, "learning": learning,
}  # fmt: skip


def described(settings: Settings, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The card, its driver and the libraries."""
    about: dict[str, Any] = {"card": platform.processor() or platform.machine(), "device": settings.device}
    about |= {"date": time.strftime("%Y-%m-%d %H:%M %Z"), "seconds": settings.seconds, "ref_bioplaus": __version__}
    about |= {"python": platform.python_version(), "system": platform.platform(), "cores": cores()}
    versions = [answer["versions"] for answer in found.values() if "versions" in answer]
    for one in versions:
        about |= {name: value for name, value in one.items() if name != "device"}
    cards = [one["device"] for one in versions if one.get("device", "cpu") != "cpu"]
    about["card"] = next(iter(cards), about["card"]) if settings.on_gpu else f"CPU {about['card']}"
    program = shutil.which("nvidia-smi") if settings.on_gpu else None
    if program:
        asked = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
        about["nvidia-smi"] = "; ".join(done.stdout.split("\n")).strip("; ")
    return about
