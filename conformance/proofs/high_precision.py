"""The float64 reference against 50 digits: the same steps, unchanged, on `mparray`, whose numbers are mpmath's.

    ref-bioplaus conformance regenerate [--all]

It writes vectors/high_precision.json: for every step of the case table and every tensor the largest score, under the
judge of float64, and the largest error over the tensor's largest value. Two references are compared, and the larger
error counts: what the judge's own namespace computes (against which everything is judged), and what NumPy computes
(which the vectors store). Integers must be equal. All steps take about two minutes; those whose digest is in the file
already are not compared again unless all are asked for.

mparray's integers are Python's and do not wrap at 32 bits. The generator reads only the lower 32 bits of its words, so
that it draws the same numbers nevertheless.
"""

import json
import math
from importlib.metadata import version
from os.path import exists
from pathlib import Path
from typing import Any

import numpy as np

from ref_bioplaus.conformance.files.vectors import FOLDER, Vector, pretty, steps
from ref_bioplaus.conformance.judging.rounding import Rounded
from ref_bioplaus.machine.files import content as content_of
from ref_bioplaus.machine.files import write_whole
from ref_bioplaus.tree import tree_map
from ref_bioplaus.types import Batch, in_order

FILE = FOLDER / "high_precision.json"
DIGITS = 50


def exact(vector: Vector, digits: int = DIGITS) -> dict[str, np.ndarray]:
    """Every tensor of a vector's step in many digits, as NumPy arrays of mpmath's numbers or Python's integers.

    Raises ImportError where mparray is not installed.
    """
    import mparray
    from mpmath import mp

    def lifted(array):
        array = np.asarray(array)
        return mparray.asarray(array, dtype=mparray.float64 if array.dtype.kind == "f" else mparray.int32)

    state, x, y = vector.start
    step = vector.case.build().modes[vector.mode]
    with mp.workdps(digits):
        state, info = step(tree_map(lifted, state), Batch(lifted(x), lifted(y)))
    return {name: leaf._data for name, leaf in in_order(info, state).items()}


def compared(vector: Vector, digits: int = DIGITS) -> dict[str, tuple[float, float]]:
    """Per tensor: the larger of the two references' scores, and of their errors over the tensor's largest value."""
    expected, numpy = vector.expected(), vector.reference()
    truth = exact(vector, digits)
    if truth.keys() != expected.tensors.keys() or truth.keys() != numpy.keys():
        raise ValueError(f"{vector.id}: a step in {digits} digits gives other tensors than the reference")
    found = {}
    for name, tensor in expected.tensors.items():
        both = [distance(tensor, value, truth[name], expected.tiny, digits) for value in (tensor.v, numpy[name])]
        found[name] = (max(s for s, _ in both), max(e for _, e in both))
    return found


def distance(tensor: Rounded, value: np.ndarray, truth: np.ndarray, tiny: float, digits: int) -> tuple[float, float]:
    """Score and relative error of one reference's tensor; inf for another shape or another integer."""
    from mpmath import mp

    if value.shape != truth.shape:
        return math.inf, math.inf
    if tensor.s is None:
        equal = bool(np.all(value == truth.astype(value.dtype)))
        return (0.0, 0.0) if equal else (math.inf, math.inf)
    with mp.workdps(digits):
        pairs = zip(value.ravel(), truth.ravel(), strict=True)
        errors = np.array([float(abs(mp.mpf(float(v)) - t)) for v, t in pairs]).reshape(value.shape)
    largest = math.sqrt(max(1.0, 2.0 * math.log(max(value.size, 1))))
    score = np.max(errors / (np.sqrt(tensor.s) + tiny), initial=0.0) / largest
    return float(score), float(np.max(errors, initial=0.0) / (np.max(np.abs(value), initial=0.0) or 1.0))


def content(rows: dict[str, dict[str, tuple[float, float]]], identities: dict[str, str]) -> dict[str, Any]:
    """What the file holds."""
    pairs = [pair for row in rows.values() for pair in row.values()]
    return {
        "digits": DIGITS,
        "made_with": {name: version(name) for name in ("mparray", "mpmath", "numpy")},
        "judge": "rounding, float64, ieee",
        "tensors": len(pairs),
        "largest_score": rounded(max(score for score, _ in pairs)),
        "largest_relative_error": rounded(max(error for _, error in pairs)),
        "identities": identities,
        "columns": ["score", "relative error"],
        "steps": {id: {name: list(map(rounded, pair)) for name, pair in row.items()} for id, row in rows.items()},
    }


def rounded(value: float) -> float:
    """Two significant digits."""
    return float(f"{value:.1e}")


def regenerate(all: bool = False, file: Path = FILE) -> list[str]:
    """Compare the steps that are new, or all of them, and write the file; returns the ids of those compared.

    Raises ImportError where there are any and mparray is not installed.
    """
    stored = json.loads(content_of(file)) if exists(file) and not all else {}
    known, identities, rows, new = stored.get("identities", {}), {}, {}, []
    for vector in steps():
        identities[vector.id] = vector.identity()
        if known.get(vector.id) == identities[vector.id]:
            rows[vector.id] = {name: tuple(pair) for name, pair in stored["steps"][vector.id].items()}
        else:
            new.append(vector.id)
            rows[vector.id] = compared(vector)
    found = (pretty(content(rows, identities)) + "\n").encode()
    if new or rows.keys() != stored["steps"].keys():
        write_whole(file, found)
    return new
