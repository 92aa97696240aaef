"""Do the tests notice faults?

    python -m tests.mutation                                    every fault: its module's tests, then the whole suite
    python -m tests.mutation --modules-only                     the first alone
    python -m tests.mutation --against tests/mutation/before.jsonl    and a table of then and now

A result is a JSON line in .mutation/results.jsonl; what stands there, of the same fault, file and tests, is not done
again. Exit codes: 0 every fault was caught, or with --against every one that was caught then · 1 one was not.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.mutation.table import ROOT, TABLE, Fault, read, suite_digest
from tests.mutation.trial import (
    CAUGHT,
    MODULE,
    PASSED,
    SURVIVED,
    UNPROVEN,
    WHOLE,
    Outcome,
    copy_of,
    failing_anyway,
    tried,
)  # fmt: skip

RESULTS = ROOT / ".mutation" / "results.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Do the tests notice faults?")
    parser.add_argument("--only", action="append", metavar="NAME", help="this fault; may be given several times")
    parser.add_argument("--modules-only", action="store_true", help="survivors do not meet the whole suite")
    parser.add_argument("--workers", type=int, default=2, help="processes of the whole suite")
    parser.add_argument("--against", type=Path, metavar="FILE", help="results to compare with")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds of a module's tests")
    parser.add_argument("--whole-limit", type=float, default=3600.0, help="seconds of the whole suite")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree")
    options = parser.parse_args(arguments)
    faults = read(options.table)
    if options.only and (unknown := set(options.only) - {fault.name for fault in faults}):
        parser.error(f"no fault is called {', '.join(sorted(unknown))}")
    chosen = [fault for fault in faults if not options.only or fault.name in options.only]
    workers = None if options.modules_only else options.workers
    found = results(chosen, options.root, options.results, (options.limit, options.whole_limit), workers)
    if options.against:
        before = {line["fault"]: line for line in lines(options.against)}
        if options.only:
            before = {name: line for name, line in before.items() if name in options.only}
        return compared(before, found)
    survivors = [name for name, line in found.items() if line["how"] not in CAUGHT]
    print(f"{len(found) - len(survivors)} of {len(found)} faults were caught", *survivors, sep="\n  ")
    return 1 if survivors else 0


def results(
    faults: Sequence[Fault], root: Path, file: Path, limits: tuple[float, float], workers: int | None
) -> dict[str, dict[str, Any]]:
    """A line for every fault by its name: what the file has of it, or what comes of it now, which is added."""
    suite, there = suite_digest(root), {line["fault"]: line for line in lines(file)}
    found: dict[str, dict[str, Any]] = {}
    waiting = []
    for fault in faults:
        line = there.get(fault.name)
        if line and stands(line, fault.digest(root), suite, workers is not None):
            found[fault.name] = line
        else:
            waiting.append(fault)

    def add(line: dict[str, Any]) -> None:
        found[line["fault"]] = line
        with file.open("a") as out:
            out.write(json.dumps(line) + "\n")

    file.parent.mkdir(parents=True, exist_ok=True)
    if waiting or unproven(found.values()):
        with copy_of(root) as copy:
            for i, fault in enumerate(waiting, 1):
                outcome = tried(copy, fault, limits, workers)
                add({"fault": fault.name} | outcome._asdict() | {"digest": fault.digest(root), "suite": suite})
                print(f"{time.strftime('%H:%M:%S')} {i} of {len(waiting)}  {shown(fault.name, outcome)}", flush=True)
            caught = unproven(found.values())
            failing = failing_anyway(copy, sorted({line["test"] for line in caught}), limits[1])
        for line in caught:
            add(line | ({"how": UNPROVEN} if line["test"] in failing else {"proven": True}))
    return {fault.name: found[fault.name] for fault in faults}


def unproven(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results whose test has not been seen to pass without the fault."""
    return [line for line in found if line["how"] in (MODULE, WHOLE) and "::" in line["test"] and "proven" not in line]


def stands(line: dict[str, Any], digest: str, suite: str, whole: bool) -> bool:
    """Whether a result is still that of today's files, and of as many tests as are asked for."""
    if line["digest"] != digest or line["how"] not in (*CAUGHT, SURVIVED, PASSED):
        return False
    if line["how"] in (WHOLE, SURVIVED):
        return line["suite"] == suite
    return line["how"] != PASSED or not whole


def lines(file: Path) -> list[dict[str, Any]]:
    """The results in a file; a line that was cut short is left out."""
    whole = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in whole if line.endswith("\n")]


def shown(name: str, outcome: Outcome) -> str:
    """A result in a line."""
    return f"{name}: {outcome.how}, {outcome.test or 'no test failed'} ({outcome.seconds:.0f} s)"


def compared(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> int:
    """Print what caught every fault then and now; 1 where one that was caught then is not caught now."""
    print("fault | before | now")
    lost = []
    for name in dict.fromkeys([*before, *now]):
        then, today = before.get(name), now.get(name)
        print(" | ".join([name, *("not tried" if one is None else told(one) for one in (then, today))]))
        if then and then["how"] in CAUGHT and not (today and today["how"] in CAUGHT):
            lost.append(name)
    print(f"{len(lost)} of {sum(line['how'] in CAUGHT for line in before.values())} that were caught are not", *lost)
    return 1 if lost else 0


def told(line: dict[str, Any]) -> str:
    """What caught a fault; how, where it was not a test of its module."""
    return line["test"] if line["how"] == MODULE else f"{line['how']} {line['test']}".strip()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # after the tests that run, and the copy
    sys.exit(main())
