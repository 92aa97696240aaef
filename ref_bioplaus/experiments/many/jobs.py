"""Runs side by side: each experiment in a process of its own, which stops with a checkpoint when it is asked to.

`main` is such a process. It reads what to do from the first line of its standard input, writes a JSON line per event to
its standard output, and stops when its standard input ends: with whatever started it, even where that was killed. It
imports the same ref_bioplaus, behind the standard library, and nothing from the current folder.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ... import backends
from ...backends import BackendError
from ...machine import files
from ...machine.environment import THREADS, keep_freed_memory, shares
from ...machine.files import NotOrdinary
from ..data.loading import DataError
from ..runs import checkpoints
from ..runs.folder import Busy
from ..runs.logs import FAILURE, records
from ..spec.experiment import Experiment, ExperimentError, as_dict, from_dict, named_code
from ..training import starting
from ..training.reporter import Reporter

FINISHED, STOPPED, FAILED, BUSY = "finished", "stopped", "failed", "busy"
WAIT = 0.2  # seconds between looks at signals
POSIX = os.name == "posix"
NEW_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # on Windows, in place of a process group
PLACE = str(Path(__file__).parents[3])  # of the package
START = """
import os, sys
if sys.argv[1] not in sys.path:
    sys.path.insert(sys.path.index(os.path.dirname(os.__file__)) + 1, sys.argv[1])
from ref_bioplaus.experiments.many.jobs import main
main()
"""


class Job(NamedTuple):
    """An experiment and the folder of its run."""

    name: str
    experiment: Experiment
    out: Path


class Outcome(NamedTuple):
    """How a job ended: FINISHED, STOPPED by a signal, FAILED, or BUSY in another process; and a sentence on it."""

    job: Job
    end: str
    sentence: str


class Watcher:
    """Told how jobs go; this one keeps quiet."""

    def begun(self, job: Job) -> Reporter:
        """A job's process has started; who is told how its run goes."""
        return Reporter()

    def ended(self, outcome: Outcome) -> None:
        """A job is over."""


def run(
    jobs: Sequence[Job],
    parallel: int = 1,
    threads: int | None = None,
    watcher: Watcher | None = None,
    stopped: list[int] | None = None,
    devices: Sequence[str] = (),
) -> list[Outcome]:
    """Run jobs in their order, so many at once, and return how each that was begun ended.

    threads: of each job; None: an equal share of the cores. SIGINT and SIGTERM stop all with a checkpoint, and no other
    job is begun; a second one stops them at once. stopped: gets the signals. devices: taken in turns, each job in its
    place of those side by side; none: the experiments' own.
    """
    stopped = [] if stopped is None else stopped
    watcher, waiting, outcomes = watcher or Watcher(), list(jobs), []
    events: queue.SimpleQueue[tuple[int, dict[str, Any] | None]] = queue.SimpleQueue()
    each = shares(parallel, threads)
    running: dict[int, Process] = {}
    with forwarded(running, stopped):
        while running or (waiting and not stopped):
            while waiting and not stopped and len(running) < parallel:
                slot = next(i for i in range(parallel) if i not in running)
                job = waiting.pop(0)
                if devices:
                    device = devices[slot % len(devices)]
                    job = job._replace(experiment=replace(job.experiment, device=device))
                running[slot] = Process(job, slot, each[slot], events, watcher.begun(job))
            try:
                slot, event = events.get(timeout=WAIT)
            except queue.Empty:
                continue
            if event is not None:
                running[slot].hear(**event)
                continue
            outcomes.append(running.pop(slot).outcome())
            watcher.ended(outcomes[-1])
    return outcomes


@contextmanager
def forwarded(running: Mapping[int, "Process"], stopped: list[int]) -> Iterator[None]:
    """List every SIGINT and SIGTERM, and pass it on to what runs as SIGTERM."""

    def asked(number, frame):
        stopped.append(number)
        for process in list(running.values()):
            process.stop()

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for process in running.values():
            process.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


class Process:
    """A job's process, and a thread that listens to it."""

    def __init__(self, job: Job, slot: int, share: list[int], events: queue.SimpleQueue, reporter: Reporter):
        self.job, self.end, self.sentence, self.reporter = job, FAILED, "", reporter
        environment = os.environ | (dict.fromkeys(THREADS, str(len(share))) if share else {})
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, PLACE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, process_group=0, creationflags=NEW_GROUP,
        )  # fmt: skip
        fields = as_dict(job.experiment)
        task = {"experiment": fields, "named": named_code(fields), "out": str(job.out), "cores": share}
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # where it has died already, `outcome` says so
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
        threading.Thread(target=self.listen, args=(slot, events), daemon=True).start()

    def stop(self) -> None:
        """Ask for a stop with a checkpoint; a second time, for one at once."""
        assert self.process.stdin is not None
        if POSIX or self.process.stdin.closed:
            self.process.terminate()
        else:  # there `terminate` asks nobody, and the process stops when its standard input ends
            self.process.stdin.close()

    def listen(self, slot: int, events: queue.SimpleQueue) -> None:
        """Hand on every event, and None after the last."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            events.put((slot, json.loads(text)))
        self.process.wait()
        events.put((slot, None))

    def hear(self, event: str, **values: Any) -> None:
        """Keep how the job ends; the rest is for the reporter, whose methods events are named by."""
        if event == "end":
            self.end, self.sentence = values["end"], values["sentence"]
        else:
            getattr(self.reporter, event)(**values)

    def outcome(self) -> Outcome:
        """How the job ended, when its process has."""
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        code = self.process.returncode
        if code in (-signal.SIGINT, -signal.SIGTERM):
            return Outcome(self.job, STOPPED, "Stopped at once; its last checkpoint is kept.")
        if code != 0 or not self.sentence:
            said = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            kept = (
                "; its last checkpoint is kept" if checkpoints.found(self.job.out) else ", before its first checkpoint"
            )
            return Outcome(self.job, FAILED, f"Its process ended with {said}{kept}.")
        return Outcome(self.job, self.end, self.sentence)


# In the process of a job


def main() -> None:
    """One job."""
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no event
    task = json.loads(sys.stdin.readline())
    if task["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, task["cores"])
    threading.Thread(target=stop_with_parent, daemon=True).start()
    keep_freed_memory()

    def tell(event: str, **values: Any) -> None:
        try:
            lines.write(json.dumps({"event": event} | values) + "\n")
            lines.flush()
        except BrokenPipeError:  # nobody listens any more: the run is about to be asked to stop
            os.dup2(os.open(os.devnull, os.O_WRONLY), lines.fileno())

    end, sentence = carried_out(from_dict(task["experiment"], task["named"]), Path(task["out"]), tell)
    tell("end", end=end, sentence=sentence)


def stop_with_parent() -> None:
    """Ask this process to stop when its standard input ends."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    if POSIX:  # to the process: whichever thread waits for something is woken
        os.kill(os.getpid(), signal.SIGTERM)
    else:  # where that would end it at once
        signal.raise_signal(signal.SIGTERM)


def carried_out(experiment: Experiment, out: Path, tell: Callable) -> tuple[str, str]:
    """Train, from the newest checkpoint where there is one; how it ended, and a sentence on it."""

    class Teller(Reporter):
        """Every word becomes an event."""

        def note(self, sentence):
            tell("note", sentence=sentence)

        def start(self, steps, done):
            tell("start", steps=steps, done=done)

        def progress(self, step, loss):
            tell("progress", step=step, loss=loss)

        def record(self, record):
            tell("record", record=record)

    expected = (BackendError, checkpoints.CheckpointError, ExperimentError, DataError, NotOrdinary, ImportError)
    try:
        done = starting.train(experiment, out, resume=True, reporter=Teller())
    except Busy as error:
        return BUSY, f"{error}."
    except starting.NotFinite as error:
        files.write_whole(out / FAILURE, str(error).encode())
        return FAILED, str(error)
    except expected as error:
        return FAILED, f"{str(error).rstrip('.')}."
    if done.finished:
        return FINISHED, f"Done: {done.step} steps."
    return STOPPED, f"Stopped after step {done.step}, with a checkpoint."


# Before and after a run


def check_backends(experiments: Iterable[Experiment]) -> None:
    """Raise BackendError for a backend that is unknown, not installed or named by a file alone, and for words that none
    takes; those installed are not imported."""
    installed = backends.installed()
    for e in experiments:
        backends.check_words(e.device, e.dtype, e.precision, e.kernels)
        if e.backend not in installed:
            backends.loader(e.backend)


def is_finished(job: Job) -> bool:
    """Whether a job's run has reached its last epoch or step, and has the checkpoint of that moment."""
    found, newest = records(job.out), checkpoints.found(job.out)
    if not found or not newest:
        return False
    last, wanted = found[-1], job.experiment
    enough = last["epoch"] >= wanted.epochs or (wanted.steps is not None and last["step"] >= wanted.steps)
    return enough and newest[0].name == checkpoints.name_at(last["step"])
