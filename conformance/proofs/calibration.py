"""How far correct backends lie from the limit: python -m ref_bioplaus.conformance.proofs.calibration FILE BACKEND...

Every step of the case table, from 30 stored states each, on every backend named, in float32 and float64: the
distribution of the scores of all comparisons, and what a limit would have called wrong.

With --alarms in front of FILE: levels 0 to 3 of the suite with other seeds than its own (SHIFTS), every backend in a
process of its own, and how many comparisons called a correct one wrong.
"""

import json
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from os.path import exists
from pathlib import Path
from typing import Any

import numpy as np

from ref_bioplaus import backends
from ref_bioplaus.conformance.cases.cases import root, step_cases
from ref_bioplaus.conformance.checks import levels, runner
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.checks.prepared import Prepared
from ref_bioplaus.conformance.checks.steps import answered
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.proofs.faults import caches, replaced
from ref_bioplaus.machine.files import write_whole
from ref_bioplaus.machine.side_by_side import side_by_side

SEEDS = range(30)
SHIFTS = (1000,)  # added to every seed of the suite
MOST = 2**30  # seeds above are asked for their size, and stay
HOURS = 3600.0  # seconds that a backend may take, for all levels
PERCENTILES = (50, 90, 99, 99.9, 99.99, 100)


def scores(name: str, dtype: str, architectures: Sequence[str]) -> np.ndarray:
    """The scores of all comparisons of a backend, compiled, over SEEDS."""
    subject = Subject(backends.get(name, dtype=dtype))
    found: list[float] = []
    for case in step_cases(dtype):
        if case.architecture in architectures:
            for step in case.build().modes:
                prepared = Prepared(subject, case, step, "compiled")
                for seed in SEEDS:
                    start, (x, y) = case.start(seed), case.batch(seed)
                    tensors, expected = answered(subject, prepared, step, start, x, y)
                    arrays = {n: subject.backend.to_numpy(t) for n, t in tensors.items()}
                    found += [s.score for s in judge.judge(expected, arrays)]
    return np.array(found)


def summary(found: np.ndarray) -> dict:
    """Percentiles, a histogram, and how many comparisons lie above the limit."""
    edges = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, judge.LIMIT, float("inf")]
    counts, _ = np.histogram(found, edges)
    return {
        "comparisons": int(found.size),
        "above the limit": int(np.sum(found > judge.LIMIT)),
        "percentiles": {f"{p:g}": round(float(np.percentile(found, p)), 4) for p in PERCENTILES},
        "histogram": [[low, int(n)] for low, n in zip(edges, counts, strict=False)],
    }


def calibrate(names: Iterable[str], architectures: Sequence[str]) -> dict:
    """The distribution per backend and dtype."""
    return {
        "limit": judge.LIMIT,
        "seeds per step": len(SEEDS),
        "architectures": list(architectures),
        "distributions": {
            f"{name}, {dtype}": summary(scores(name, dtype, architectures))
            for name in names
            for dtype in ("float32", "float64")
        },
    }


def judged(name: str, dtype: str, kernels: str, shift: int, tell: Callable[[dict], None]) -> dict:
    """What the whole suite says of a correct backend, all of its seeds moved by `shift`; told again and again.

    Of every check one mode: compiled, where it has that.
    """
    subject = Subject(backends.get(name, dtype=dtype, kernels=kernels))
    found: dict[str, Any] = {"comparisons": 0, "alarms": 0, "largest score": 0.0, "checks": [], "of all checks": False}
    own = root
    with ExitStack() as stack:
        stack.enter_context(replaced(own, lambda seed: own(seed + shift if seed < MOST else seed), ".conformance"))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for remembering in caches():
            remembering.cache_clear()
            stack.callback(remembering.cache_clear)
        for check in levels.checks():
            mode = "compiled" if "compiled" in check.modes else check.modes[0]
            outcome = runner.outcome_of(subject, check, mode)
            wrong = outcome.state in ("fail", "error")
            found = found | {
                "comparisons": found["comparisons"] + outcome.comparisons,
                "alarms": found["alarms"] + wrong,
                "largest score": max(found["largest score"], outcome.score),
                "checks": [*found["checks"], f"{check.id}: {outcome.reason}"[:300]] if wrong else found["checks"],
            }
            tell(found)
    return found | {"of all checks": True}


def alarms(names: Iterable[str], jobs: int = 1) -> dict:
    """Of every backend in float32 and float64, with the kernels that it has, how many comparisons were false alarms."""
    tasks = [
        (name, dtype, kernels, shift)
        for name in names
        for dtype in ("float32", "float64")
        for kernels in ("portable", "native")
        for shift in SHIFTS
    ]
    return {
        ", ".join(map(str, task)): found
        for task, found, _ in side_by_side(judged, tasks, jobs, HOURS)
        if found is not None  # it has no such kernels
    }


def bounded(found: Iterable[dict]) -> dict:
    """All backends together, with the upper 95 % bound of the share of alarms: 3 in n where there is none."""
    lines = list(found)
    k, n = (sum(line[what] for line in lines) for what in ("alarms", "comparisons"))
    low, high = 0.0, 10.0 + 4.0 * k
    for _ in range(60):  # the mean whose chance of k or fewer is 5 %
        m = (low + high) / 2
        chance = sum(math.exp(-m) * m**i / math.factorial(i) for i in range(k + 1))
        low, high = (m, high) if chance > 0.05 else (low, m)
    return {"comparisons": n, "alarms": k, "share at most": float(f"{high / max(n, 1):.3g}")}


if __name__ == "__main__":
    asked = sys.argv[1:]
    counting = asked[0] == "--alarms"
    where, chosen = Path(asked[counting]), asked[counting + 1 :]
    stored = json.loads(where.read_text("utf-8")) if exists(where) else {}
    if counting:
        new = stored.get("alarms", {}) | alarms(chosen)
        result = stored | {"alarms": new, "alarms of all": bounded(new.values())}
    else:
        architectures = ("FC", "LC", "conv", "square", "ResNet, BN after ReLU", "ResNet, BN before ReLU")
        result = stored | calibrate(chosen, architectures)
        result["distributions"] = stored.get("distributions", {}) | result["distributions"]
    write_whole(where, (json.dumps(result, indent=1) + "\n").encode())
