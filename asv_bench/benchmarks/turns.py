"""A process that times subjects when it is told to: one of two commits that take turns.

It reads a line {"subject": name} or {"turn": name, "seconds": at least} from its input, and answers with a line of
JSON. What it times are seconds of this process on its cores, which other processes do not lengthen as they do those on
the clock; its libraries have one thread.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREADS, "1") | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
YARDSTICK = "yardstick"
WARM = 5  # calls before a turn counts: JAX compiles in the second one again where memory is laid out otherwise


class Process:
    """A process for the package in a folder; without one, for that which is installed. Raises RuntimeError where it
    ends, with the last it said."""

    def __init__(self, root: Path | None = None, which: int = 0):
        """root: the folder that ref_bioplaus lies in. which: of the cores, counted round, it keeps to."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        place = {} if root is None else {"PYTHONPATH": str(root)}
        self.process: Any = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, str(root or ""), str(which)],  # beside `subjects`
            env=kept | ONE_THREAD | place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def tell(self, **order) -> None:
        """Send an order."""
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    def answer(self):
        """Wait for what comes of it."""
        line = self.process.stdout.readline()
        if not line:
            error = self.process.stderr.read().strip().splitlines()
            raise RuntimeError(error[-1] if error else "the process that measures has ended")
        return json.loads(line)

    def turn(self, name: str, seconds: float) -> float:
        """Seconds a call, of calls that take so many seconds together."""
        self.tell(turn=name, seconds=seconds)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(BrokenPipeError):  # an order that it did not read
                stream.close()


def work() -> None:
    """What the process does until its input ends."""
    if hasattr(os, "sched_setaffinity"):  # before XLA counts how many threads it may have
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(sys.argv[2]) % len(cores)]})
    root = sys.argv[1]
    subjects: Any = import_module("subjects")
    calls = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "subject" in order:
            name = order["subject"]
            library, what = name.split()[:2]
            stick = what == YARDSTICK
            calls[name] = (subjects.yardstick(library), lambda: None) if stick else subjects.subject(name)
            for _ in range(WARM):
                calls[name][0]()
            calls[name][1]()
            found = timed(*calls[name], 0.0)
            check_origin(root)
        else:
            found = timed(*calls[order["turn"]], order["seconds"])
        print(json.dumps(found), flush=True)


def check_origin(root: str) -> None:
    """Raise RuntimeError where a part of the package is from elsewhere than the folder that was given."""
    whole = {name: str(getattr(m, "__file__", None) or "") for name, m in sys.modules.items()}
    for name, file in whole.items():
        own = name.partition(".")[0] == "ref_bioplaus"
        if root and own and file and not Path(file).resolve().is_relative_to(Path(root).resolve()):
            raise RuntimeError(f"{name} that is measured is {file}, expected the one in {root}")


def timed(call, wait, seconds: float) -> float:
    """The median of the seconds a call, each with its wait, of calls that take so many seconds together."""
    found, total = [], 0.0
    while total < seconds or not found:
        began = time.process_time()
        call()
        wait()
        found.append(time.process_time() - began)
        total += found[-1]
    return statistics.median(found)


if __name__ == "__main__":
    work()
