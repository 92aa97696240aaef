"""The loop of a run: learn, look at the loss, evaluate, keep checkpoints."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .. import __version__
from ..backends import Backend
from ..conformance.judge import in_order
from ..tree import tree_map
from ..types import Array, Batch, State
from . import checkpoints, estimates, monitor
from .building import Built, build
from .checkpoints import Checkpoint, CheckpointError
from .contracts import Data, Reporter
from .experiment import Experiment, ExperimentError, as_dict, as_toml
from .interrupt import Interrupt
from .logs import EXPERIMENT, FAILURE, LOG, TENSORBOARD, Log
from .preparing import get_backend, load_data, measured_splits, ordered, shape_of

LOOK_EVERY = 0.5  # seconds between looks at the loss, each of which waits for the device
HELD_LOSSES = 1000  # batches whose losses may wait for a look
LOOKED_BACK = 3  # steps examined tensor by tensor before a loss that is not finite


@dataclass
class Run:
    """What a run came to. `records` is a list of flat rows but for the metrics per layer, as pandas takes it."""

    experiment: Experiment
    out: Path
    records: list[dict[str, Any]]
    state: State
    built: Built
    backend: Backend
    step: int
    stopped_by: str | None = None  # the signal's name

    @property
    def finished(self) -> bool:
        """Whether it ran to its end."""
        return self.stopped_by is None


@dataclass
class Progress:
    """Where a run is: everything a checkpoint keeps beside the state."""

    step: int = 0  # batches learned from
    epoch: int = 0
    position: int = 0  # batches of this epoch learned from
    seconds: float = 0.0  # spent learning
    losses: float = 0.0  # sums since the last record
    wrong: int = 0
    samples: int = 0
    seen: int = 0  # samples since the last record, of any mode
    seen_seconds: float = 0.0
    waited: float = 0.0  # of them, for batches
    best: float | None = None
    best_step: int | None = None
    pending: list = field(default_factory=list, repr=False)  # (step, Info) not looked at yet


def copied(array: Array) -> Array:
    """An array of its own, which a step that consumes its state leaves alone."""
    return array_namespace(array).asarray(array, copy=True)


class NotFinite(RuntimeError):
    """A loss that is not finite; the message says where it began."""


class Training:
    """One run: what it works with, and where it is."""

    def __init__(self, experiment, out, checkpoint, data, reporter, callback, tensorboard):
        self.experiment: Experiment = experiment
        self.out: Path = out
        self.reporter: Reporter = reporter or Reporter()
        self.callback = callback
        self.checkpoint: Checkpoint | None = checkpoint
        self.backend = get_backend(experiment, self.reporter)
        self.data: Data = data or load_data(experiment, self.reporter)
        self.shape = shape_of(self.data, experiment)
        self.total = experiment.epochs * self.shape.steps
        if experiment.steps is not None:
            self.total = min(self.total, experiment.steps)
        self.check_checkpoint()
        self.built = build(experiment, self.backend, self.shape)
        self.needs = estimates.estimate(experiment, self.built)
        self.reporter.note(f"{self.needs}.")
        estimates.check_memory(self.needs, self.backend, f'"{experiment.algorithm}" on "{experiment.model}"')
        if tensorboard:
            monitor.TensorBoard.writer()
        self.prepare_folder()
        self.modes = {
            name: self.backend.compile(monitor.counting(step, self.built), donate=True, keep=("loss", "output"))
            for name, step in self.built.algorithm.modes.items()
        }
        self.measure = self.backend.wrap(monitor.measuring(self.built))
        first = self.first_state()
        self.state = first
        self.at = Progress()
        self.last_saved = time.monotonic()
        log_size = 0
        if checkpoint is not None:
            self.state = checkpoints.state_of(self.backend, checkpoint, first)
            self.at = Progress(**checkpoint.header["progress"])
            log_size = checkpoint.header["log_size"]
            checkpoints.keep_until(out, checkpoint)
        self.tensorboard = (
            monitor.TensorBoard(out / TENSORBOARD, self.at.step + 1 if checkpoint else 0) if tensorboard else None
        )
        self.log = Log(out / LOG, log_size)
        self.records = self.log.records()
        names = tuple(experiment.metrics)
        start = tree_map(copied, first.forward.params) if "sign_changes" in names else None
        del first  # its feedback weights may be most of what there is
        self.compare = monitor.Comparison(self.backend, self.built, names, start, next(self.batches(0, 0)))

    def check_checkpoint(self) -> None:
        """Raise ExperimentError where a run goes on with other images, or would have to go back."""
        if self.checkpoint is None:
            return
        header, now = self.checkpoint.header, self.data.train.count
        before = header.get("images", now)
        if now != before:
            raise ExperimentError(
                f"The run in {self.out} learned from {before:,} training images, but here are {now:,}: "
                "name the same data, or start in another folder."
            )
        if None not in (header.get("labels"), self.labels()) and header["labels"] != self.labels():
            raise ExperimentError(
                f"The run in {self.out} learned from images with other labels than those of {self.experiment.data}: "
                "name the same data, or start in another folder."
            )
        if header["step"] > self.total:
            raise ExperimentError(
                f"The run in {self.out} has taken {header['step']:,} steps, so it cannot end after {self.total:,}: ask "
                "for more epochs or steps."
            )

    def labels(self) -> str | None:
        """What tells these training images from others; None where the data does not say."""
        return getattr(self.data, "fingerprint", None)

    def prepare_folder(self) -> None:
        """Write the experiment into the folder. Raises ExperimentError where there is no room or no right to."""
        needed = (checkpoints.KEPT + 2) * (self.needs.state + 100_000)
        try:
            checkpoints.remove_temporaries(self.out)
            (self.out / FAILURE).unlink(missing_ok=True)
            if self.checkpoint is None:
                (self.out / checkpoints.BEST).unlink(missing_ok=True)
            checkpoints.write_whole(self.out / EXPERIMENT, as_toml(self.experiment).encode())
            free = estimates.free_disk(self.out)
        except OSError as error:
            raise ExperimentError(
                f"The folder {self.out} cannot be written to ({error.strerror}): name another one with --out."
            ) from error
        if free is not None and free < needed:
            raise ExperimentError(
                f"The folder {self.out} has {estimates.size(free)} free, but the checkpoints need "
                f"{estimates.size(needed)}: make room, or name another folder with --out."
            )

    def first_state(self) -> State:
        """The state before the first step: the same each time."""
        return self.built.algorithm.init(self.backend.key(self.experiment.seed))

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The training batches of an epoch from number `start` on."""
        e = self.experiment
        for batch in self.data.batches(
            "train", self.backend, e.batch, e.seed, epoch, start=start, flatten=self.built.flat
        ):
            yield monitor.with_targets(batch, self.built)

    # The loop

    def run(self) -> Run:
        """Learn until the end, or until a signal; the last state is in a checkpoint when this returns."""
        at, stopped = self.at, None
        self.reporter.start(self.total, at.step)
        if self.checkpoint is not None and at.step == self.total:
            self.reporter.note(f"Nothing is left to do: the run has taken all of its {self.total:,} steps.")
        with Interrupt() as interrupt:
            if self.checkpoint is None:
                self.evaluate()
                self.save()
            began = looked = time.perf_counter()
            while at.step < self.total and not stopped:
                for batch in self.awaited(self.batches(at.epoch, at.position)):
                    self.learn(batch)
                    now = time.perf_counter()
                    ends = at.position == self.shape.steps or at.step == self.total
                    due = ends and (at.epoch + 1) % self.experiment.evaluate_every == 0 or at.step == self.total
                    if now - looked > LOOK_EVERY or len(at.pending) >= HELD_LOSSES or ends or interrupt.name:
                        self.look()
                        looked = now = time.perf_counter()
                        at.seconds += now - began
                        at.seen_seconds += now - began
                        if at.position == self.shape.steps:
                            at.epoch, at.position = at.epoch + 1, 0
                        if due:
                            self.evaluate()
                        if time.monotonic() - self.last_saved >= self.experiment.checkpoint_every:
                            self.save()
                        began = time.perf_counter()
                    elif not self.experiment.checkpoint_every:
                        self.save()
                    stopped = interrupt.name
                    if stopped or at.step >= self.total or at.position == 0:
                        break
            if checkpoints.found(self.out)[:1] != [self.out / checkpoints.name_at(at.step)]:
                self.save()
        return Run(self.experiment, self.out, self.records, self.state, self.built, self.backend, at.step, stopped)

    def awaited(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; counts the seconds until each is there."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.at.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def learn(self, batch: Batch) -> None:
        """The schedule's modes on one batch."""
        at = self.at
        for mode in self.built.algorithm.schedule(at.epoch, at.position):
            self.state, info = self.modes[mode](self.state, batch)
            if info.loss is not None:
                at.pending.append((at.step, info))
        at.seen += batch.x.shape[0]
        at.step += 1
        at.position += 1

    def look(self) -> None:
        """Bring the losses since the last look to the host. Raises NotFinite."""
        at, mean = self.at, None
        for step, info in at.pending:
            loss = self.backend.to_numpy(info.loss)
            total = float(np.sum(loss, dtype=np.float64))
            if not np.isfinite(total):
                raise NotFinite(self.diagnosis(step))
            mean = total / len(loss)
            at.losses += total
            at.samples += len(loss)
            if info.output is not None:
                at.wrong += int(np.count_nonzero(self.backend.to_numpy(info.output)))
        at.pending.clear()
        self.reporter.progress(at.step, mean)

    def evaluate(self) -> None:
        """Measure, and write a record."""
        at = self.at
        record: dict[str, Any] = {"step": at.step, "epoch": at.epoch}
        record["train_loss"] = at.losses / at.samples if at.samples else None
        if not self.built.rebuilds:
            record["train_error"] = 100.0 * at.wrong / at.samples if at.samples else None
        for split in measured_splits(self.experiment, self.data):
            batches = ordered(self.data, split, self.backend, self.experiment, self.built)
            found = monitor.measured(self.backend, self.measure, self.state, batches)
            record |= {f"{split}_{name}": monitor.finite(value) for name, value in found.items()}
        record |= self.compare(self.state)
        speed = at.seen / at.seen_seconds if at.seen_seconds else None
        waiting = 100.0 * at.waited / at.seen_seconds if at.seen_seconds else None
        record |= {"images_per_second": speed, "waiting_for_data": waiting, "seconds": at.seconds}
        record["memory"] = monitor.peak_memory(self.backend)
        at.losses, at.wrong, at.samples, at.seen, at.seen_seconds, at.waited = 0.0, 0, 0, 0, 0.0, 0.0
        try:
            self.log.add(record)
        except OSError as error:
            raise CheckpointError(
                f"The log {self.log.path} cannot be written ({error.strerror}): make room, then continue with "
                f"`ref-bioplaus resume {self.out}`."
            ) from error
        self.records.append(record)
        self.reporter.record(record)
        if self.tensorboard:
            self.tensorboard.add(record)
        if self.callback:
            self.callback(record)
        self.keep_best(record)

    def keep_best(self, record: dict[str, Any]) -> None:
        """A best checkpoint by the validation images, or by the training batches where none are held out.

        The test images have no say in it.
        """
        split = "validation" if self.experiment.held_out else "train"
        value = record.get(f"{split}_loss" if self.built.rebuilds else f"{split}_error")
        if value is not None and (self.at.best is None or value < self.at.best):
            self.at.best, self.at.best_step = value, self.at.step
            self.save(best=True)

    # Checkpoints

    def save(self, best: bool = False) -> None:
        """Write a checkpoint of this moment. Raises NotFinite for a state that is not finite."""
        self.look()
        tensors = checkpoints.tensors_of(self.backend, self.state)
        if monitor.first_not_finite(tensors.items()):
            raise NotFinite(self.diagnosis(self.at.step - 1))
        progress = {name: value for name, value in vars(self.at).items() if name != "pending"}
        header = {
            "experiment": as_dict(self.experiment),
            "step": self.at.step,
            "epoch": self.at.epoch,
            "position": self.at.position,
            "seed": self.experiment.seed,
            "images": self.data.train.count,
            "labels": self.labels(),
            "progress": progress,
            "log_size": self.log.size,
            "versions": {"ref_bioplaus": __version__, "python": sys.version.split()[0]} | self.backend.versions(),
        }
        checkpoints.save(self.out, self.at.step, header, tensors, best)
        self.last_saved = time.monotonic()

    def diagnosis(self, bad: int) -> str:
        """A sentence on the first tensor that was not finite, up to step `bad`: the steps since the last checkpoint
        are run again, the last of them tensor by tensor."""
        step, epoch, position = 0, 0, 0
        state, where = self.first_state(), "the start"
        if checkpoints.found(self.out):
            checkpoint = checkpoints.latest(self.out)
            state = checkpoints.state_of(self.backend, checkpoint, state)
            step, epoch, position = (checkpoint.header[name] for name in ("step", "epoch", "position"))
            where = f"the checkpoint {checkpoint.path}, of step {step}"
        shown = {name: self.backend.compile(mode) for name, mode in self.built.algorithm.modes.items()}
        found = None
        while step <= bad and not found:
            for batch in self.batches(epoch, position):
                for mode in self.built.algorithm.schedule(epoch, position):
                    if step <= bad - LOOKED_BACK:
                        state, _ = self.modes[mode](state, batch)
                    else:
                        state, info = shown[mode](state, batch)
                        arrays = ((n, self.backend.to_numpy(a)) for n, a in in_order(info, state).items())
                        found = found or monitor.first_not_finite(arrays)
                step, position = step + 1, position + 1
                if found or step > bad:
                    break
            if position == self.shape.steps:
                epoch, position = epoch + 1, 0
        what = f"{monitor.place(found, self.built.network)}, at step {step - 1}" if found else "not found again"
        return (
            f"The loss is not finite after step {bad}; the first tensor that is not: {what}; the last good state is "
            f"{where}: try a smaller learning rate."
        )
