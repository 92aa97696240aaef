"""What several test modules use."""

import os
import time
from pathlib import Path

import pytest

from ref_bioplaus import backends

ROOT = Path(__file__).parents[2]  # of the checkout
SOURCES = [
    p
    for folder in ("ref_bioplaus", "backends", "conformance")
    for p in sorted((ROOT / folder).rglob("*.py"))
    if not {ROOT / "ref_bioplaus" / link for link in ("backends", "conformance")} & {*p.parents}
]
COMPILING = "a compiler takes nearly all of its time; its shorter neighbours always run"


def backends_here():
    """The backends that are installed and can be had: CuPy may be installed where there is no GPU."""
    try:
        backends.get("cupy")
        lacking = ""
    except backends.BackendError:
        lacking = "cupy"
    return [name for name in backends.installed() if name != lacking]


def slow(*values, reason=COMPILING):
    """A parameter, or one of several values, whose test `make test` leaves out and `make test-all` runs."""
    return pytest.param(*values, marks=pytest.mark.slow(reason=reason))


def some_slow(cases, are_slow, reason=COMPILING):
    """The parameters of a test, each a tuple, slow where `are_slow(*case)`."""
    return [slow(*case, reason=reason) if are_slow(*case) else case for case in cases]


def asked(name, tell):
    """A task for a process: its name in capitals; "hang" never ends, and "die" takes its process along."""
    tell(f"{name} begins")
    if name == "hang":
        time.sleep(600)
    if name == "die":
        os._exit(3)
    return name.upper()


class Rerun:
    """A stand-in for CUDA graphs: it runs what it recorded again and writes the results where the first ones lay."""

    def __init__(self):
        self.recorded = self.replays = 0

    def warm_up(self, run):
        run()

    def record(self, run):
        self.recorded += 1
        results = run()

        def replay():
            self.replays += 1
            for place, value in zip(results, run(), strict=True):
                if place is not value:
                    place.copy_(value)

        return replay, results
