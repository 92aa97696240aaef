"""What the demo does for one row: it learns on one backend, or is compared on all of them. Each stands for itself.

Training is float32, in each backend's own time. Agreement is 5 steps in float64 from one stored state, against NumPy.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np

from ... import backends, embedded, metrics, registry
from ...backends import Backend, BackendError, NoNativeKernels
from ...network import Network, predict
from ...registry import Row, feedback_weights
from ...showing.words import sentence
from ...types import Loss
from ..spec import phases
from . import agreement
from .networks import ARCHITECTURES, BATCH, CLASSES, Architecture
from .results import REFERENCE, Comparison, Progress, Record, Settings, Training

FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the steps: when the test error is measured
SMALL_BATCH = 20  # of the agreement's 5 batches; the last one is smaller, but in a quick run
SAMPLES, SAMPLES_QUICK = 93, 100
FREEZE = 2  # the update at which E/I freezes signs in the agreement's 5 steps


class Task(NamedTuple):
    """A row to learn on a backend, or, where none is named, to compare on all."""

    row: str
    architecture: str
    backend: str = ""

    @property
    def label(self) -> str:
        """For a reader."""
        return f"{registry.row(self.row).label} ({self.architecture})" + (f" on {self.backend}" if self.backend else "")


class Work:
    """Everything that tasks need, got once: images and backends."""

    def __init__(self, settings: Settings):
        self.settings, self.images = settings, embedded.fashion_mnist_small()
        self.found: dict[tuple[str, str], Backend | BackendError] = {}

    def backend(self, name: str, dtype: str) -> Backend | BackendError:
        """That backend, or why it cannot be had."""
        if (name, dtype) not in self.found:
            try:
                self.found[name, dtype] = get(name, self.settings, dtype)
            except BackendError as error:
                self.found[name, dtype] = error
        return self.found[name, dtype]

    def steps(self, task: Task, names: Sequence[str]) -> int:
        """What the progress of a task counts: batches, or backends and the reference."""
        own = architecture_named(task.architecture).steps
        return (self.settings.steps or own) if task.backend else 1 + len(names)

    def done(self, task: Task, names: Sequence[str], progress: Progress) -> list[Record]:
        """A task's records. names: of the backends to compare."""
        return [self.learned(task, progress)] if task.backend else [*self.compared(task, names, progress)]

    def learned(self, task: Task, progress: Progress) -> Training:
        """One row on one backend; what is raised is the record's."""
        row, architecture = registry.row(task.row), architecture_named(task.architecture)
        steps = self.settings.steps or architecture.steps
        try:
            backend = self.backend(task.backend, "float32")
            if isinstance(backend, BackendError):
                raise backend
            return train(row, architecture, task.backend, backend, self.images, steps, self.settings.seed, progress)
        except Exception as error:
            return Training(row, architecture, task.backend, steps, failure=sentence(error))

    def compared(self, task: Task, names: Sequence[str], progress: Progress) -> list[Comparison]:
        """One row on the backends of those names against the reference."""
        row, architecture = registry.row(task.row), architecture_named(task.architecture)
        reference = backends.get(REFERENCE, dtype="float64")
        others = {name: self.backend(name, "float64") for name in names}
        samples = SAMPLES_QUICK if self.settings.quick else SAMPLES
        x, y = next(embedded.batches(self.images, samples, 0, self.settings.seed))
        x = x[:, ::3, ::4, :]  # not square: 10 x 7
        return list(compare(row, architecture, reference, others, x, y, self.settings.seed, progress))


def in_process(settings: Settings, task: Task, names: Sequence[str]) -> list[dict[str, Any]]:
    """The fields of a task's records, from a process of its own; but for row and network, which cannot be sent."""
    work = lasting(settings)
    records = work.done(task, names, Progress())
    kept = [f.name for f in fields(records[0]) if f.name not in ("row", "architecture")] if records else []
    return [{name: getattr(record, name) for name in kept} for record in records]


def received(task: Task, sent: list[dict[str, Any]] | ChildProcessError, steps: int) -> list[Record]:
    """The records of a task in another process; where the process has failed, one that says so."""
    row, architecture = registry.row(task.row), architecture_named(task.architecture)
    kind: Any = Training if task.backend else Comparison
    if isinstance(sent, ChildProcessError):
        known = {"backend": task.backend, "steps": steps} if task.backend else {"backend": REFERENCE}
        return [kind(row, architecture, failure=sentence(sent), **known)]
    return [kind(row, architecture, **values) for values in sent]


@cache
def lasting(settings: Settings) -> Work:
    """The work of a process that does nothing else."""
    return Work(settings)


def architecture_named(name: str) -> Architecture:
    """The network of that name."""
    return next(architecture for architecture in ARCHITECTURES if architecture.name == name)


def get(name: str, settings: Settings, dtype: str) -> Backend:
    """A backend on the device asked for: to learn in float32 with native kernels where it has any, and to be compared
    in float64 with the portable ones, which are the definition. Raises BackendError, whatever the backend's own code
    raises."""
    device = settings.device if name in settings.backends else None
    try:
        if dtype == "float32":
            with suppress(NoNativeKernels):
                return backends.get(name, device=device, dtype=dtype, kernels="native")
        return backends.get(name, device=device, dtype=dtype)
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(f'backend "{name}" did not start: {sentence(error)}') from error


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
