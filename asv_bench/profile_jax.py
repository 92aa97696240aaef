"""Where the time of a compiled JAX step goes, by the parts of XLA's program: what its profiler notes, added up."""

import gzip
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

WORKERS = re.compile(r"tf_XLA|Stream")  # names of the threads, and on a GPU of the streams, that run a program
WAITING = "ThunkExecutor::Execute"  # what a thread does beside operations: most of it is to wait for the others


def by_program_part(training: Callable[[], object], run: Callable) -> tuple[dict[str, list[float]], int]:
    """{part: [calls, seconds]} of all threads together, and how many steps they were. run: takes the training, and
    returns its seconds and steps."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            _, steps = run(training)
        (path,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return added_up(events), steps


def added_up(events: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """{part: [calls, seconds]}: each without what is inside of it, and nothing for waiting; "dot.3" and "dot.7" are one
    part."""
    threads: dict[tuple, list] = {}
    found: dict[str, list[float]] = {}
    for event in events:
        place = event.get("pid"), event.get("tid")
        if event.get("ph") == "M" and event["name"] == "thread_name" and WORKERS.search(event["args"]["name"]):
            threads[place] = []
    for event in events:
        place = event.get("pid"), event.get("tid")
        if event.get("ph") == "X" and place in threads:
            threads[place].append((event["ts"], -event["dur"], event["name"]))
    for calls in threads.values():
        inside: list[tuple[float, str]] = []  # (end, part) of every call that has begun
        for start, minus, name in sorted(calls):
            while inside and inside[-1][0] <= start:
                inside.pop()
            part = WAITING if name.startswith(WAITING) else re.sub(r"(\.\d+)+$", "", name)
            mine = found.setdefault(part, [0.0, 0.0])
            mine[0] += 1
            mine[1] -= minus / 1e6
            if inside:
                found[inside[-1][1]][1] += minus / 1e6
            inside.append((start - minus, part))
    return {part: both for part, both in found.items() if part != WAITING}
