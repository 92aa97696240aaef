"""Tasks side by side, each in a process of its own kind that lasts, with a time limit for each task."""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, cast

from .environment import THREADS

START = multiprocessing.get_context("spawn")  # afresh: no library likes to be forked while its threads run
LOOK = 1.0  # seconds between looks at the time
GRACE = 1.0  # seconds in which a process may end by itself


class Worker(NamedTuple):
    """A process, and the end of the pipe that leads to it."""

    process: BaseProcess
    pipe: Connection


class Busy(NamedTuple):
    """What a worker does, since when, and what it told last."""

    worker: Worker
    task: tuple
    since: float | None = None  # not yet, while its process starts
    told: Any = None


def side_by_side(
    function: Callable, tasks: Sequence[tuple], jobs: int, limit: float, until: float = math.inf
) -> Iterator[tuple[tuple, Any, float]]:
    """(task, what `function(*task, tell)` returned, seconds), as they come. Of a task that takes more than `limit`
    seconds, or whose process dies, what it told last. The processes end with the generator, and at the moment `until`,
    by time.time(), after which nothing more comes."""
    waiting, idle, busy = list(tasks), list[Worker](), dict[Connection, Busy]()
    try:
        while (waiting or busy) and time.time() < until:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else started(function)
                busy[worker.pipe] = Busy(worker, task := waiting.pop(0))
                worker.pipe.send(task)
            for pipe in cast(list[Connection], wait([*busy], timeout=LOOK)):
                now = busy[pipe]
                try:
                    kind, value = pipe.recv()
                except (EOFError, OSError):
                    kind, value = "died", now.told
                if kind == "begun":
                    busy[pipe] = now._replace(since=time.monotonic())
                    continue
                if kind == "told":
                    busy[pipe] = now._replace(told=value)
                    continue
                del busy[pipe]
                if kind == "done":
                    idle.append(now.worker)
                yield now.task, value, time.monotonic() - (now.since or time.monotonic())
            for pipe, now in list(busy.items()):
                if now.since is not None and (seconds := time.monotonic() - now.since) > limit:
                    ended([busy.pop(pipe).worker])
                    yield now.task, now.told, seconds
    finally:
        ended([*idle, *(now.worker for now in busy.values())])


def started(function: Callable) -> Worker:
    """A process that waits for tasks, its libraries with one thread each."""
    here, there = START.Pipe()
    process = START.Process(target=work_off, args=(there, function), daemon=True)
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    there.close()
    return Worker(process, here)


def ended(workers: Sequence[Worker]) -> None:
    """End processes: those that learn take the signal for a wish to keep what they have, and get a moment for it."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(GRACE)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()


def work_off(pipe: Connection, function: Callable) -> None:
    """Do tasks until nobody sends any more. Ctrl-C is for the process that started this one, whose end is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(("begun", None))
        found = function(*task, lambda value: pipe.send(("told", value)))
        pipe.send(("done", found))


def end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
