"""Tasks side by side, in processes that last as long as there are any, each with its share of the cores."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, cast

from ...machine.environment import cores, shares
from ...showing.words import sentence

MOST = 4  # each loads every array library, some 0.7 GB
FEWEST = 8  # tasks that are worth the start of processes
START = multiprocessing.get_context("spawn")  # afresh: no library likes to be forked while its threads run


def usual() -> int:
    """How many processes this machine has the cores for."""
    return min(cores(), MOST)


class Worker(NamedTuple):
    """A process, and the end of the pipe that leads to it."""

    process: BaseProcess
    pipe: Connection
    share: list[int]  # of the cores


class Pool:
    """So many processes; they end with the `with` block, and with the process that started them."""

    def __init__(self, processes: int):
        self.workers = [started(share) for share in shares(processes, None)]

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: Any) -> None:
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()

    def run(self, function: Callable, tasks: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        """(number of the task, what the function returned for it), as they come; or ChildProcessError, where it raised
        something or its process died."""
        waiting, busy = list(enumerate(tasks)), dict[Connection, int]()
        while waiting or busy:
            for slot, worker in enumerate(self.workers):
                if waiting and worker.pipe not in busy:
                    if not worker.process.is_alive():
                        worker = self.workers[slot] = started(worker.share)
                    busy[worker.pipe], task = waiting.pop(0)
                    worker.pipe.send((function, task))
            for pipe in cast(list[Connection], wait([*busy])):
                i = busy.pop(pipe)
                try:
                    yield i, pipe.recv()
                except (EOFError, OSError):
                    yield i, self.replaced(pipe)

    def replaced(self, pipe: Connection) -> ChildProcessError:
        """What to say of a process that is gone, another one in its place."""
        slot = next(i for i, worker in enumerate(self.workers) if worker.pipe is pipe)
        gone = self.workers[slot]
        gone.process.join()
        self.workers[slot] = started(gone.share)
        return ChildProcessError(f"its process ended with exit code {gone.process.exitcode}")


def started(share: list[int]) -> Worker:
    """A process that waits for tasks."""
    here, there = START.Pipe()
    process = START.Process(target=work_off, args=(there, share), daemon=True)
    process.start()
    there.close()
    return Worker(process, here, share)


def work_off(pipe: Connection, share: list[int]) -> None:
    """Do tasks until nobody sends any more. Ctrl-C is for the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if share and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)
    while True:
        try:
            function, task = pipe.recv()
        except EOFError:
            return
        try:
            found = function(*task)
        except Exception as error:
            found = ChildProcessError(sentence(error))
        pipe.send(found)
