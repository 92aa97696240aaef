"""Level 4: does the subject learn as well as the reference? An equivalence test over seeds, on real images.

Random numbers are the same everywhere, so that a seed gives a pair of runs. Two one-sided t tests (Schuirmann 1987) ask
whether the mean difference of the test errors lies within half a standard deviation of the reference's own errors over
seeds; not to be told apart is not enough, the test has to show equivalence.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from ref_bioplaus import bias, chain, dense, embedded, losses, predict, tanh
from ref_bioplaus.backends import get
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.kernels import Kernels
from ref_bioplaus.naming import short
from ref_bioplaus.registry import ROWS, Row, row

SEEDS, STEPS, BATCH = range(8), 100, 50
T_95 = 1.895  # Student's t for 7 degrees of freedom, one-sided 95 %


def network(kernels: Kernels, dtype: str):
    """784-48-24-10, tanh."""
    layers = ((dense(48), bias, tanh), (dense(24), bias, tanh), (dense(10), bias))
    return chain((784,), *layers, dtype=dtype).with_kernels(kernels)


def test_error(subject: Subject, name: str, seed: int, mode: str) -> float:
    """The share of test images that an algorithm gets wrong after STEPS steps."""
    backend, images, loss = subject.backend, embedded.fashion_mnist_small(), losses.cross_entropy()
    net = network(backend.kernels, subject.dtype)
    algorithm = row(name).taught(net, loss)
    steps = {
        m: backend.eager(step) if mode == "eager" else backend.compile(step, donate=mode == "donating", keep=())
        for m, step in algorithm.modes.items()
    }
    state = algorithm.init(backend.key(seed))
    for i, (x, y) in enumerate(embedded.batches(images, BATCH, epoch=0, seed=seed)):
        if i == STEPS:
            break
        for m in algorithm.schedule(0, i):
            state, _ = steps[m](state, backend.batch(x.reshape(BATCH, -1), y))
    test = backend.asarray(images.test_x.reshape(len(images.test_x), -1), subject.dtype)
    output = backend.to_numpy(backend.wrap(lambda s, x: predict(net, loss, s, x))(state, test))
    return float(np.mean(np.argmax(output, axis=1) != np.argmax(images.test_y, axis=1)))


@cache
def reference(name: str) -> tuple[float, ...]:
    """NumPy's test errors in float64, over seeds."""
    subject = Subject(get("numpy", dtype="float64"))
    return tuple(test_error(subject, name, seed, "compiled") for seed in SEEDS)


def equivalent(name: str) -> Check:
    """An algorithm's test errors are equivalent to the reference's."""

    def run(subject: Subject, mode: str) -> Finding:
        theirs = np.array(reference(name))
        ours = np.array([test_error(subject, name, seed, mode) for seed in SEEDS])
        gaps = ours - theirs
        margin = 0.5 * float(np.std(theirs, ddof=1))
        reach = abs(float(np.mean(gaps))) + T_95 * float(np.std(gaps, ddof=1)) / math.sqrt(len(gaps))
        if not reach < margin:
            text = f"test errors {ours.mean():.4f} and {theirs.mean():.4f}: the difference may be {reach:.4f}"
            return Finding(problem=f"{text}, equivalence allows {margin:.4f}")
        return Finding()

    return Check(f"4/{short(name)}", 4, name, run, ("compiled",))


def checks(rows: Sequence[Row] = ROWS) -> tuple[Check, ...]:
    """Level 4."""
    return tuple(equivalent(r.name) for r in rows if not r.asked.variant)
