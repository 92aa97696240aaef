"""What runs in processes of its own: each writes a line as soon as it knows something, and stops by itself in time.

A line is a table of JSON at the end of its part's file, of {"what": "begins", "outcome", "ends", "record", "failed"}.
"""

import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from ..machine import environment, files
from .plan import Price, Question, label, library

TOLD = 300  # characters of a reason


def write(path: Path, **line: Any) -> None:
    """A line at the end of a file."""
    with files.to_write(path, append=True) as file:
        file.write(json.dumps(line, default=str).encode() + b"\n")


def short(error: BaseException) -> str:
    """What was raised, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:TOLD]


def looked(name: str, device: str | None, tell: Callable) -> dict[str, Any]:
    """What a backend says of a device: its versions, or why it cannot be had there."""
    from .. import backends

    if find_spec(library(name)) is None:
        return {"why": "not installed"}
    try:
        made = backends.get(name, device=device)
        return {"versions": made.versions(), "device": str(made.device)}
    except Exception as error:  # a library that breaks on a device is a result
        sentence = short(error)
        if isinstance(error, backends.BackendError):  # it begins with the backend's name, and ours is a label
            sentence = " ".join(str(error).split()).removeprefix(f'backend "{library(name)}"').lstrip(": ")
            sentence = sentence.removeprefix(label(name).partition(" ")[2]).lstrip()
        return {"why": sentence.rstrip(".")}


def conforming(
    question: Question, device: str | None, path: Path, seconds: float, until: float, tell: Callable
) -> None:
    """The checks of a question in an order that mixes all rows, for so many seconds. until: by time.time()."""
    from ..conformance.checks import levels, runner
    from ..conformance.checks.outcomes import Subject
    from ..conformance.commands.asking import Asked, start

    about = {"question": str(question), "form": question.form}
    try:
        asked = Asked(question.backend, question.dtype, question.precision, question.kernels)
        subject = Subject(start(asked, device))
        checks = list(levels.checks(question.levels))
    except Exception as error:
        write(path, what="failed", **about, reason=short(error).removeprefix("ValueError: "))
        return
    planned = runner.planned(checks, question.modes)
    write(path, what="begins", **about, planned=planned, versions=subject.backend.versions())
    Random(0).shuffle(checks)
    until, done = min(until, time.time() + seconds), 0
    for outcome in runner.outcomes_of(subject, checks, question.modes):
        excused(subject.backend, outcome)
        done += 1
        write(path, what="outcome", **about, id=outcome.id, mode=outcome.mode, state=outcome.state,
              score=round(outcome.score, 3), reason=outcome.reason[:TOLD])  # fmt: skip
        if time.time() > until:
            break
    write(path, what="ends", **about, done=done)


def excused(backend: Any, outcome: Any) -> None:
    """Let an outcome that is declared with a reason deviate, as in a report."""
    import datetime

    from ..conformance.checks.outcomes import Report
    from ..conformance.reporting import deviations

    rows = deviations.load(backend.name)
    if rows:
        about = (backend.name, str(backend.device), backend.dtype, backend.precision, "", backend.kernels.name)
        deviations.apply(Report(*about, {}, {}, 0.0, [outcome]), rows, datetime.date.today())


def timing(
    names: tuple[str, ...], rounding: tuple[str, ...], device: str | None, small: bool, path: Path, until: float,
    price: Price | None, tell: Callable,
) -> None:  # fmt: skip
    """What asv_bench measures, where there is a checkout. price: the steps alone that tell what determinism costs, in a
    process whose libraries were asked for it before they were imported."""
    if price is not None:
        environment.ask_for_determinism(price.flag)
    try:
        from asv_bench.gpu import timing
    except ImportError as error:
        why = f"what is timed lies in asv_bench, which only a checkout with its extra `bench` has ({error})"
        write(path, what="failed", reason=why)
        return
    items = timing.items(names, rounding, small)
    if price is not None:
        items = timing.prices([name for name in rounding if name in price.backends], small, price.kind)
    for line in timing.lines(items, device, small, until):
        write(path, **line)


def learning(
    row: str, seed: int, backend: str, device: str | None, data: str | None, path: Path, seconds: float, until: float,
    tell: Callable,
) -> None:  # fmt: skip
    """A row of Bartunov's FC column on MNIST, where `data` names its folder, or on the embedded images, for so many
    seconds: a line after every epoch."""
    from ..experiments import papers
    from ..experiments.spec.experiment import Experiment
    from ..experiments.training.starting import train

    until = min(until, time.time() + seconds)
    about = {"row": row, "seed": seed, "backend": label(backend)}

    def told(record: dict[str, Any]) -> bool:
        wanted = ("epoch", "train_loss", "train_error", "test_error", "images_per_second")
        write(path, what="record", **about, **{name: record.get(name) for name in wanted})
        return time.time() > until

    fields = papers.experiment("bartunov2018/table1", column="mnist-fc", row=row)
    fields |= {"data": data} if data else {"dataset": "embedded"}
    fields |= {"seed": seed, "backend": backend, "device": device, "metrics": (), "checkpoint_every": 1e6}
    try:
        with TemporaryDirectory() as folder:
            train(Experiment(**fields), Path(folder) / "run", callback=told)
    except Exception as error:
        write(path, what="failed", **about, reason=short(error))
