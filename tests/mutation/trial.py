"""A fault is put into a copy of the tree, and the tests say whether they notice.

What they notice counts only where the test that failed first passes without the fault.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tests.mutation.table import Fault

MODULE, WHOLE, HUNG, IMPORT = "module tests", "whole suite", "hung", "at import"
SURVIVED, PASSED = "survived", "survived its module tests"
UNPROVEN = "fails without the fault too"
CAUGHT = (MODULE, WHOLE, HUNG, IMPORT)
OWN_TEST = "tests/project/test_mutation.py"  # which knows the faulty lines by heart: it would notice every fault
SINGLE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Outcome(NamedTuple):
    """How a fault was caught, or that it was not; the test that failed first, and the seconds until then."""

    how: str
    test: str
    seconds: float


class Ended(NamedTuple):
    """What a run of pytest came to."""

    code: int | None  # None: it was stopped at its time limit
    failed: str  # the first test that failed; "" where none did
    importing: bool  # whether tests could not be collected


@contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """A copy of a tree as it is now: what git follows, and new files that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True
    )
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        copy = Path(place).resolve() / "tree"
        for name in filter(None, listed.stdout.split("\0")):
            if os.path.lexists(root / name):  # not deleted
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name, follow_symlinks=False)
        subprocess.run(["git", "init", "-q"], cwd=copy, check=True)  # a test asks git for the tree's files
        yield copy


@contextmanager
def inside(copy: Path, fault: Fault) -> Iterator[None]:
    """The fault is in the copy within this."""
    before = (copy / fault.file).read_bytes()
    (copy / fault.file).write_text(fault.text(copy))
    try:
        yield
    finally:
        (copy / fault.file).write_bytes(before)


def tried(copy: Path, fault: Fault, limits: tuple[float, float], workers: int | None) -> Outcome:
    """What becomes of a fault: its module's tests first and, unless workers is None, the whole suite.

    limits: seconds for the first, and for the second.
    """
    began = time.monotonic()
    first = [*fault.tests, *(["-k", fault.select] if fault.select else [])]
    parts: list[tuple[str, Sequence[str], float]] = [(MODULE, first, limits[0])]
    if workers is not None:
        options = ["-n", str(workers)] if workers > 1 else []
        parts.append((WHOLE, ["--ignore", OWN_TEST, *options], limits[1]))
    for how, arguments, limit in parts:
        with inside(copy, fault):
            found = run(copy, arguments, limit)
        seconds = round(time.monotonic() - began, 1)
        if found.code is None:
            return Outcome(HUNG, f"within {limit:.0f} s of the {how}", seconds)
        if found.importing:
            return Outcome(IMPORT, found.failed, seconds)
        if found.failed:
            return Outcome(how, found.failed, seconds)
    return Outcome(PASSED if workers is None else SURVIVED, "", round(time.monotonic() - began, 1))


def failing_anyway(copy: Path, tests: Sequence[str], limit: float) -> set[str]:
    """Those of some tests that fail without any fault."""
    if not tests or run(copy, list(dict.fromkeys(map(selectable, tests))), limit).code == 0:
        return set()
    return {test for test in tests if run(copy, [selectable(test)], limit).code != 0}


def selectable(test: str) -> str:
    """A test as the command line takes it: without its parameters, where these hold what pytest divides names by."""
    name, _, parameters = test.partition("[")
    return name if any(part in parameters for part in ("[", "::", "\\")) else test


def run(copy: Path, arguments: Sequence[str], limit: float) -> Ended:
    """pytest in the copy, on the package that is there, up to the first failure."""
    report = copy.parent / "report.xml"
    report.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1",
        f"--junitxml={report}", *arguments,
    ]  # fmt: skip
    # no bytecode: a fault of a line's length, within a second of its neighbour, would be taken for what is compiled
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"} | dict.fromkeys(SINGLE, "1")
    environment.pop("PYTEST_ADDOPTS", None)
    output = copy.parent / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=copy, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
            process.wait()
    if code is None or code == 0:
        return Ended(code, "", False)
    if code < 0:
        return Ended(code, f"the tests' process ended with signal {-code}", False)
    failed, importing = first_failure(report)
    if code == 4 and not failed:  # conftest.py, or a name of a test that is not there
        failed, importing = "conftest.py", "ImportError" in output.read_text("utf-8", "replace")
    if not failed:
        raise RuntimeError(f"pytest ended with {code}: {output.read_text('utf-8', 'replace')[-2000:]}")
    return Ended(code, failed, importing)


def first_failure(report: Path) -> tuple[str, bool]:
    """The test that a report of pytest has as failed, and whether it could not be collected."""
    if not report.exists():
        return "", False
    for case in ElementTree.parse(report).iter("testcase"):
        for kind in ("failure", "error"):
            for trouble in case.iter(kind):
                if trouble.get("message") == "collection failure":
                    return case.get("name", ""), True
                return f"{case.get('file')}::{case.get('name')}", False
    return "", False
