"""The whole product of what can be proved without a GPU: see the package.

    python -m tests.gpu_check                           all that has not been looked at yet, then the report
    python -m tests.gpu_check --part jax --seconds 600  so much of one part
    python -m tests.gpu_check --report                  the report of what has been looked at

Results are JSON lines in .gpu-check/, one for each thing that was looked at; what stands there is not looked at again.
Exit codes: 0 nothing is wrong · 1 something is.
"""

import argparse
import datetime
import importlib
import json
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.helpers import ROOT

RESULTS = ROOT / ".gpu-check"
REPORT = ROOT / "tests" / "gpu_check" / "report.json"
PARTS = {"torch": "torch_faked", "jax": "jax_lowered", "cupy": "cupy_compiled"}  # and the modules that look


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check", description="What can be proved without a GPU")
    parser.add_argument("--part", action="append", choices=PARTS, help="this part; may be given several times")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--fresh", action="store_true", help="look again at what has been looked at")
    parser.add_argument("--report", action="store_true", help="only write the report of what has been looked at")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.seconds
    for part in () if options.report else options.part or PARTS:
        file = options.results / f"{part}.jsonl"
        if options.fresh:
            file.unlink(missing_ok=True)
        look(part, file, end)
    found = report(options.results)
    REPORT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for part, of in found["parts"].items():
        print(f"{part}: {of['looked_at']} of {of['of']} looked at, {len(of['wrong'])} wrong")
    return int(any(of["wrong"] for of in found["parts"].values()))


def module(part: str) -> Any:
    """What looks: it has tasks(), functions without arguments by name that return sentences, and versions()."""
    return importlib.import_module(f"tests.gpu_check.{PARTS[part]}")


def look(part: str, file: Path, end: float) -> None:
    """Look at what has not been looked at, until a moment of time.monotonic."""
    known = {line["name"] for line in lines(file)}
    tasks = module(part).tasks()
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    file.parent.mkdir(exist_ok=True)
    for name in sorted(tasks.keys() - known, key=lambda name: zlib.crc32(name.encode())):  # a part has some of all
        if time.monotonic() > end:
            return
        began = time.monotonic()
        line = {"name": name, "found": tasks[name](), "seconds": round(time.monotonic() - began, 2)}
        with file.open("a", encoding="utf-8") as to:
            to.write(json.dumps(line | {"commit": head.stdout.strip(), "day": day()}, ensure_ascii=False) + "\n")
        for sentence in line["found"]:
            print(f"{name}: {sentence}", flush=True)


def day() -> str:
    """Today."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def lines(file: Path) -> list[dict]:
    """The lines of a file of results, of which there may be none."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def report(results: Path) -> dict[str, Any]:
    """What was looked at, when and at which commits, and all that is wrong."""
    parts = {}
    for part in PARTS:
        if not (done := lines(results / f"{part}.jsonl")):
            continue
        tasks = module(part).tasks()
        done = [line for line in done if line["name"] in tasks]
        parts[part] = {
            "looked_at": len(done), "of": len(tasks), "day": max(line["day"] for line in done),
            "commits": dict(Counter(line["commit"] for line in done)), "versions": module(part).versions(),
            "seconds": round(sum(line["seconds"] for line in done)),
            "by": counted(done), "wrong": {line["name"]: line["found"] for line in done if line["found"]},
        }  # fmt: skip
    return {"what": "proved without a GPU: python -m tests.gpu_check", "parts": parts}


def counted(done: Sequence[dict]) -> dict[str, list[int]]:
    """How many were looked at, and how many of them are wrong: of steps by "kernels/dtype/precision", of CuPy's kernels
    by dtype, and all else by name."""
    by: dict[str, list[int]] = {}
    for line in done:
        words = line["name"].split("/")
        key = "/".join(words[2:5]) if len(words) > 3 else words[1] if len(words) == 3 else words[0]
        looked, wrong = by.get(key, (0, 0))
        by[key] = [looked + 1, wrong + bool(line["found"])]
    return dict(sorted(by.items()))


if __name__ == "__main__":
    sys.exit(main())
