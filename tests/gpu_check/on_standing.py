"""CuPy's backend on what stands for CuPy: a program that says, as JSON, what came of each question.

PYTHONPATH=tests/gpu_check/standing python -m tests.gpu_check.on_standing            steps
NO_GPU=1 PYTHONPATH=tests/gpu_check/standing python -m tests.gpu_check.on_standing   without a device
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import cupy
import numpy as np

from ref_bioplaus import backends, losses, metrics
from ref_bioplaus.backends import BackendError
from ref_bioplaus.experiments.demo import running, work
from ref_bioplaus.experiments.demo.results import Results, Settings
from ref_bioplaus.network import predict
from ref_bioplaus.registry import ROWS, catalogue
from ref_bioplaus.tree import named_leaves
from tests.gpu_check.product import ARCHITECTURES, GENERATED, KERNELS, Combination, optimizer

LIMITS = {"float32": 1e-3, "float64": 1e-10}  # of a difference to NumPy's step, beside its size and 1e-3


def combinations() -> Iterator[Combination]:
    """Every row on one network, one row on all, and generated weights, by both kernels and in both dtypes."""
    for i, row in enumerate(ROWS):
        kernels, dtype = ("portable", "native")[i % 2], ("float32", "float64")[i // 2 % 2]
        yield Combination(row.name, "FC", kernels, dtype, "ieee", optimizer(row))
    for architecture in ARCHITECTURES:
        for kernels in ("portable", "native"):
            for dtype in LIMITS:
                yield Combination("weight-mirror", architecture, kernels, dtype, "ieee")
    for kernels, dtype in zip(KERNELS, LIMITS, strict=True):
        yield Combination(*GENERATED, kernels, dtype, "ieee")


def step(combination: Combination, change: Callable = lambda kernels: kernels) -> list[str]:
    """What is wrong with the first iteration of a combination, its predictions and their errors."""
    found = []
    ours = backends.get("cupy", "cuda:0", combination.dtype, "ieee", combination.kernels)
    ours.kernels = change(ours.kernels)
    results = []
    for library in (ours, backends.get("numpy", None, combination.dtype)):
        case = combination.case()
        algorithm, network = case.build(library.kernels), case.network(library.kernels)
        state, batch = algorithm.init(library.key(1)), library.batch(*case.batch(0))
        cupy.WAITED.clear()
        for name in algorithm.schedule(0, 0):
            state, info = library.compile(algorithm.modes[name], donate=True)(state, batch)
        y = library.eager(lambda: predict(network, losses.cross_entropy(), state, batch.x))()
        wrong = library.eager(lambda: metrics.top_k_error(y, batch.y))()
        results.append(dict(named_leaves((state, info, y, wrong))))
        found += [f"a step asked for a Python value: {who}" for who in dict.fromkeys(cupy.WAITED)]
    for name, wanted in results[1].items():
        value, wanted = ours.to_numpy(results[0][name]), np.asarray(wanted)
        if not isinstance(results[0][name], cupy.ndarray):
            found.append(f"{name} is a {type(results[0][name])}")
        elif (value.shape, value.dtype) != (wanted.shape, wanted.dtype):
            found.append(f"{name} is {value.dtype} {value.shape}, NumPy's {wanted.dtype} {wanted.shape}")
        elif np.any(np.abs(value - wanted) > LIMITS[combination.dtype] * (1e-3 + np.abs(wanted))):
            found.append(f"{name} differs from NumPy's")
    return found


def fused_with_a_number(kernels: Any) -> Any:
    """Gradient descent whose fused function adds a number to what was made of numbers alone."""

    @cupy.fuse()
    def moved(p, g, eta, momentum):
        return p - (1.0 + eta * momentum) * g

    def sgd(p, g, v, keep, eta, momentum, nesterov):
        return [moved(p_, g_, eta, momentum) for p_, g_ in zip(p, g, strict=True)], v

    return kernels._replace(sgd=sgd)


def through(function: Callable) -> Callable:
    """Kernels whose dense product passes what it returns through a function."""
    return lambda kernels: kernels._replace(dense_apply=lambda W, x: function(kernels.dense_apply(W, x)))


FAULTS: dict[str, Callable] = {
    "a function of NumPy's": through(lambda u: u + cupy.asarray(np.asarray(u))),
    "an array of NumPy's": through(lambda u: u + np.zeros(u.shape[1], np.float32)),
    "a sum by NumPy": through(lambda u: u + np.sum(u)),
    "a number that is asked for": through(lambda u: u * float(abs(cupy.sum(u)) + 1)),
    "a decision": through(lambda u: u if cupy.sum(u) > 0 else 2 * u),
    "out": through(lambda u: cupy.add(u, u, out=u[:])),
    "an index": through(lambda u: u * [1.0, 2.0][cupy.argmax(u[:1, :1])]),
    "a function that CuPy lacks": through(lambda u: cupy.vecdot(u, u)),
    "another dtype": through(lambda u: u * cupy.asarray(1.0)),
    "a fused number": fused_with_a_number,
}  # what CuPy refuses, waits for or promotes, and NumPy does not


def steps() -> dict[str, Any]:
    """Every combination, and every fault."""
    case = Combination("backprop", "FC", "portable", "float32", "ieee")
    return {"steps": {c.id: asked(c) for c in combinations()}, "faults": {n: asked(case, f) for n, f in FAULTS.items()}}


def asked(*question: Any) -> list[str]:
    """What a step is found to be, or what it raised."""
    try:
        return step(*question)
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def without_a_device() -> dict[str, Any]:
    """What becomes of the demo and of `list`, and what asking for CuPy says."""
    try:
        backends.get("cupy")
        said = ""
    except BackendError as error:
        said = str(error)
    results = Results(Settings())
    taken = running.available(work.Work(Settings()), results)
    return {
        "said": said, "demo": list(taken), "left_out": results.left_out,
        "list": [list(line) for line in catalogue.backend_table().rows],
    }  # fmt: skip


if __name__ == "__main__":
    json.dump(without_a_device() if os.environ.get("NO_GPU") else steps(), sys.stdout)
