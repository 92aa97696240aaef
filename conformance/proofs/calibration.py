"""How far correct backends lie from the limit: python -m ref_bioplaus.conformance.proofs.calibration FILE BACKEND...

Every step of the case table, from 30 stored states each, on every backend named, in float32 and float64: the
distribution of the scores of all comparisons, and what a limit would have called wrong.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from os.path import exists
from pathlib import Path

import numpy as np

from ref_bioplaus import backends
from ref_bioplaus.conformance.cases.cases import step_cases
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.checks.prepared import Prepared
from ref_bioplaus.conformance.checks.steps import answered
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.machine.files import write_whole

SEEDS = range(30)
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


if __name__ == "__main__":
    where = Path(sys.argv[1])
    before = json.loads(where.read_text("utf-8"))["distributions"] if exists(where) else {}
    result = calibrate(sys.argv[2:], ("FC", "LC", "conv", "square", "ResNet, BN after ReLU", "ResNet, BN before ReLU"))
    result["distributions"] = before | result["distributions"]
    write_whole(where, (json.dumps(result, indent=1) + "\n").encode())
