"""Every algorithm on every backend: they learn the embedded images, and, judged apart, they agree.

    results = run(Settings(backends=("numpy", "torch"), quick=True))
    results.verdict()                  # one sentence
    page.write(results, Path("demo"))  # a page and a JSON file

Training is float32, in each backend's own time. Agreement is 5 steps in float64 from one stored state, against NumPy.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import count, islice
from typing import Any

import numpy as np

from ... import backends, embedded, metrics, registry
from ...backends import Backend, BackendError
from ...machine.environment import environment
from ...network import Network, predict
from ...registry import Row
from ...registry.rows import feedback_weights
from ...showing.words import sentence
from ...types import Loss
from ..spec import phases
from . import agreement
from .networks import ARCHITECTURES, BATCH, CLASSES, Architecture
from .results import REFERENCE, Comparison, Progress, Results, Settings, Training

CHECKER = "array-api-strict"  # slow by design: it takes part in the agreement, and learns only when it is named
FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the steps: when the test error is measured
SMALL_BATCH = 20  # of the agreement's 5 batches; the last one is smaller, but in a quick run
SAMPLES, SAMPLES_QUICK = 93, 100
FREEZE = 2  # the update at which E/I freezes signs in the agreement's 5 steps


def run(settings: Settings, progress: Progress | None = None) -> Results:
    """Train and compare. A row that fails on a backend is reported in its record and stops nothing else.

    Ctrl-C ends the run early and returns what was finished. Raises BackendError and KeyError, each one sentence, for a
    named backend that cannot be had and an unknown algorithm, before anything runs.
    """
    progress = progress or Progress()
    results = Results(settings)
    try:
        rows = chosen_rows(settings)
        learning = available(settings, results)
        images = embedded.fashion_mnist_small()
        results.environment = environment(learning)
        train_all(rows, learning, images, results, progress)
        compare_all(rows, images, results, progress)
    except KeyboardInterrupt:
        results.interrupted = True
    return results


def chosen_rows(settings: Settings) -> list[Row]:
    """The rows named, in the registry's order. Raises KeyError for an unknown name."""
    named = {registry.row(name).name for name in settings.algorithms}
    return [row for row in registry.ROWS if not named or row.name in named]


def available(settings: Settings, results: Results) -> dict[str, Backend]:
    """The float32 backends that learn, by name. One that was not asked for and cannot be had is left out, and why is
    noted. Raises BackendError for one that was asked for."""
    if settings.device and not settings.backends:
        raise BackendError("a device needs the backends that shall use it: name them with --backend")
    if settings.backends:
        return {name: get(name, settings, "float32") for name in dict.fromkeys(settings.backends)}
    found = {}
    for name in backends.names():
        if name == CHECKER:
            continue
        if name not in backends.installed():
            how = backends.INSTALL.get(name)
            results.left_out[name] = "its library is not installed" + (f": {how}" if how else "")
            continue
        try:
            found[name] = get(name, settings, "float32")
        except BackendError as error:
            results.left_out[name] = str(error)
    return found


def get(name: str, settings: Settings, dtype: str) -> Backend:
    """A backend on the device asked for. Raises BackendError, whatever else the backend's own code raises."""
    try:
        return backends.get(name, device=settings.device if name in settings.backends else None, dtype=dtype)
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(f'backend "{name}" did not start: {sentence(error)}') from error


# Learning


def train_all(
    rows: list[Row], learning: dict[str, Backend], images: embedded.Images, results: Results, progress: Progress
) -> None:
    """Every row of every architecture on every backend; in a quick run on one, in turns."""
    tasks = [(row, architecture) for architecture in ARCHITECTURES for row in rows if architecture.trains(row)]
    for turn, (name, backend) in enumerate(learning.items()):
        mine = tasks[turn :: len(learning)] if results.settings.quick else tasks
        progress.stage(f"Learning on {name}", len(mine))
        for row, architecture in mine:
            steps = results.settings.steps or architecture.steps
            progress.task(f"{row.label} ({architecture.name})", steps)
            try:
                record = train(row, architecture, name, backend, images, steps, results.settings.seed, progress)
            except Exception as error:
                record = Training(row, architecture, name, steps, failure=sentence(error))
            results.trainings.append(record)
            progress.done()


def train(
    row: Row, architecture: Architecture, name: str, backend: Backend, images: embedded.Images, steps: int, seed: int,
    progress: Progress,
) -> Training:  # fmt: skip
    """One row on one backend, from the seed's key, over the seed's batches."""
    network, loss, algorithm = architecture.algorithm(row, backend, images.train_x.shape[1:])
    modes = {mode: backend.compile(step, keep=("loss",)) for mode, step in algorithm.modes.items()}
    probe = backend.wrap(prober(row, network, loss))
    test_x = backend.asarray(images.test_x.reshape(-1, *network[0].out_shape), backend.dtype)
    labels = np.argmax(images.test_y, axis=1)
    state = algorithm.init(backend.key(seed))
    curve: list[tuple[int, float]] = []
    angles: dict[int, list[tuple[int, float]]] = {}

    def measure(step):
        output, found = probe(state, test_x)
        wrong = np.argmax(backend.to_numpy(output)[:, :CLASSES], axis=1) != labels
        curve.append((step, 100.0 * float(np.mean(wrong))))
        for l, angle in found.items():
            angles.setdefault(l, []).append((step, float(backend.to_numpy(angle))))

    def wait():
        backend.synchronize()
        backend.to_numpy(state.t)  # arrives with the rest of the step that made it

    per_epoch = len(images.train_x) // BATCH
    began = time.perf_counter()
    first = backend.batch(*next(batches(images, network, seed))[2:])
    for mode in dict.fromkeys(mode for t in range(steps) for mode in algorithm.schedule(*divmod(t, per_epoch))):
        modes[mode](state, first)  # steps are pure: nothing has been learned
    measure(0)
    wait()
    warm_up_seconds = time.perf_counter() - began

    points, seconds, began = {round(f * steps) for f in FRACTIONS}, 0.0, time.perf_counter()
    for step, (epoch, i, x, y) in enumerate(islice(batches(images, network, seed), steps), start=1):
        for mode in algorithm.schedule(epoch, i):
            state, _ = modes[mode](state, backend.batch(x, y))
        if step in points:
            wait()
            seconds += time.perf_counter() - began
            measure(step)
            began = time.perf_counter()
        progress.advance()
    layers = {l: tuple(points) for l, points in angles.items()}
    parts = phases.taken(row, algorithm.schedule, per_epoch, steps)
    return Training(row, architecture, name, steps, "", seconds, warm_up_seconds, tuple(curve), layers, parts)


def batches(images: embedded.Images, network: Network, seed: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """(epoch, iteration, x, y) without end, images in the shape of the network's input."""
    for epoch in count():
        for i, (x, y) in enumerate(embedded.batches(images, BATCH, epoch, seed)):
            yield epoch, i, x.reshape(-1, *network[0].out_shape), y


def prober(row: Row, network: Network, loss: Loss):
    """A function (state, x) -> output in test mode, {layer: angle from W to B}."""

    def probe(state, x):
        angles = metrics.matrix_angles(state.forward.params, feedback_weights(row, network, state))
        return predict(network, loss, state, x), angles

    return probe


# Agreement


def compare_all(rows: list[Row], images: embedded.Images, results: Results, progress: Progress) -> None:
    """Every row of every architecture, on every backend that is here, against the reference."""
    settings = results.settings
    named = settings.backends or tuple(n for n in backends.installed() if n not in results.left_out)
    checker = (CHECKER,) if CHECKER in backends.installed() else ()
    names = [name for name in dict.fromkeys((*named, *checker)) if name != REFERENCE]
    reference = backends.get(REFERENCE, dtype="float64")
    others: dict[str, Backend | BackendError] = {}
    for name in names:
        try:
            others[name] = get(name, settings, "float64")
        except BackendError as error:
            others[name] = error
    x, y = next(embedded.batches(images, SAMPLES_QUICK if settings.quick else SAMPLES, 0, settings.seed))
    x = x[:, ::3, ::4, :]  # not square: 10 x 7
    tasks = [(row, architecture) for architecture in ARCHITECTURES for row in rows if architecture.trains(row)]
    progress.stage("Agreement", len(tasks))
    for row, architecture in tasks:
        progress.task(f"{row.label} ({architecture.name})", 1 + len(others))
        for record in compare(row, architecture, reference, others, x, y, settings.seed, progress):
            results.comparisons.append(record)
        progress.done()


def compare(
    row: Row, architecture: Architecture, reference: Backend, others: Mapping[str, Backend | BackendError],
    x: np.ndarray, y: np.ndarray, seed: int, progress: Progress,
) -> Iterator[Comparison]:  # fmt: skip
    """One row on every backend against the reference, from one state; what a backend raises is its comparison's."""
    row_early = row._replace(wrappers=tuple((n, early(options)) for n, options in row.wrappers))

    def make(backend):
        return architecture.algorithm(row_early, backend, x.shape[1:], small=True)[2]

    def steps(backend):
        shape = architecture.algorithm(row_early, backend, x.shape[1:], small=True)[0][0].out_shape
        parts = [slice(i, i + SMALL_BATCH) for i in range(0, len(x), SMALL_BATCH)]
        found = agreement.run(backend, make, start, [(x[part].reshape(-1, *shape), y[part]) for part in parts])
        progress.advance()
        return found

    try:
        start = agreement.stored_state(reference, make, seed)
        expected = steps(reference)
    except Exception as error:
        yield Comparison(row, architecture, REFERENCE, failure=f"the reference itself failed: {sentence(error)}")
        return
    for name, backend in others.items():
        try:
            if isinstance(backend, BackendError):
                raise backend
            worst = agreement.difference(expected, steps(backend))
            yield Comparison(row, architecture, name, worst.size, worst.tensor)
        except Exception as error:
            yield Comparison(row, architecture, name, failure=sentence(error))


def early(options: Mapping[str, Any]) -> dict[str, Any]:
    """A wrapper's options with what starts late, as E/I does, started within the few steps of a comparison."""
    return {name: FREEZE if name == "start" else value for name, value in options.items()}
