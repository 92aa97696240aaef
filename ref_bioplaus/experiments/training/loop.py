"""The loop of a run: learn, look at the loss, evaluate, keep checkpoints."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from os.path import exists
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.base import CompiledStep
from ...machine import environment, files
from ...tree import tree_map
from ...types import Batch, State
from ..data import left_out
from ..data.left_out import LeftOut
from ..runs import checkpoints, headers, segments, sound
from ..runs.checkpoints import Checkpoint, CheckpointError
from ..runs.folder import check_checkpoint, labels_of, prepare_folder
from ..runs.logs import LOG, TENSORBOARD, Log, records_of, reopened, segments_of
from ..runs.weights import Start
from ..spec import phases
from ..spec.building import first_state
from ..spec.experiment import ExperimentError, as_dict
from ..spec.names import reads
from . import comparison, measuring, needs
from .diagnosis import NotFinite, diagnosis, first_not_finite
from .interrupt import Interrupt
from .opening import Opened, measured_splits, ordered
from .progress import CALLBACK, Left, Progress, Run, Stopwatch, at_once, copied, stacked, together, until
from .reporter import Reporter
from .tensorboard import TensorBoard

LOOK_EVERY = 0.5  # seconds between looks at the loss, each of which waits for the device
HELD_LOSSES = 1000  # batches whose losses may wait for a look


class Training:
    """One run: what it works with, and where it is."""

    def __init__(
        self,
        opened: Opened,
        out: Path,
        checkpoint: Checkpoint | None,
        reporter: Reporter,
        start: Start | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        tensorboard: bool = False,
        given: Mapping[str, Any] | None = None,
        despite_lost_log: bool = False,
    ):
        """start: what a new run begins from. given: by whoever called. Raises what is known before anything is learned,
        and writes to the folder last."""
        self.experiment, self.backend, self.data, self.shape, self.built = opened
        self.out, self.reporter, self.callback, self.given = out, reporter, callback, dict(given or {})
        experiment, built = self.experiment, self.built
        steps = experiment.epochs * self.shape.steps
        self.total = steps if experiment.steps is None else min(steps, experiment.steps)
        check_checkpoint(checkpoint, self.data, experiment, out, self.total)
        if checkpoint is not None:
            headers.check_fit(checkpoint, built.network, self.shape.steps)
        self.needs = needs.estimate(experiment, built, self.backend)
        self.reporter.note(f"{self.needs}.")
        needs.check_memory(self.needs, self.backend, f'"{experiment.algorithm}" on "{experiment.model}"')
        if tensorboard:
            TensorBoard.writer()
        self.modes = {name: self.compiled((name,)) for name in built.algorithm.modes}
        self.sequences: dict[tuple[str, ...], CompiledStep] = {}  # of modes, on `at_once` batches
        self.measure = self.backend.wrap(measuring.measuring(built))
        self.state = first = first_state(experiment, built, self.backend)
        self.at, self.log, self.lost = Progress(), Log(out / LOG), 0
        self.left_out: LeftOut | None = getattr(self.data, "left_out", None)
        self.told_of = 0  # of them
        if checkpoint is not None:
            self.go_on_from(checkpoint, first, despite_lost_log)
        lines = self.log.lines()
        self.records, self.segments = records_of(lines), segments_of(lines)
        self.proven = sound.proven(self.records)
        self.take_folder(checkpoint, start)
        self.last_saved = time.monotonic()
        self.tensorboard = (
            TensorBoard(out / TENSORBOARD, self.at.step + 1 if checkpoint else 0) if tensorboard else None
        )
        names = tuple(experiment.metrics)
        start = tree_map(copied, first.forward.params) if any("before" in reads(name) for name in names) else None
        del first  # its feedback weights may be most of what there is
        batch = self.first_batch()
        self.at_once = at_once(self.backend, self.data, batch, len(built.network)) if experiment.checkpoint_every else 1
        if self.at_once > 1:
            self.reporter.note(f"The images lie on the device: {self.at_once} batches are learned from by one call.")
        self.compare = comparison.Comparison(self.backend, built, names, start, batch)

    def compiled(self, modes: tuple[str, ...], steps: int | None = None) -> CompiledStep:
        """A sequence of modes as a step, or as one that takes stacks of so many batches."""
        counted = [measuring.counting(self.built.algorithm.modes[mode], self.built) for mode in modes]
        step = counted[0] if len(counted) == 1 else measuring.in_turn(counted)
        return self.backend.compile(step, donate=True, keep=("loss", "output"), steps=steps)

    def go_on_from(self, checkpoint: Checkpoint, first: State, despite_lost_log: bool) -> None:
        """Be where a checkpoint is."""
        self.state = checkpoints.state_of(self.backend, checkpoint, first)
        self.at = Progress(**({"due": False} | checkpoint.header["progress"]))  # older ones do not say
        if self.left_out is not None:
            self.left_out.restore(checkpoint.header.get("left_out", {}))
        self.log, self.lost = reopened(self.out, checkpoint.header, self.at.due, self.experiment, despite_lost_log)

    def take_folder(self, checkpoint: Checkpoint | None, start: Start | None) -> None:
        """Write to the folder for the first time. What is later than the checkpoint goes: first other checkpoints, then
        the log's lines, of which those would know."""
        prepare_folder(self.out, self.experiment, self.needs.state, checkpoint, start)
        if not exists(self.out / checkpoints.BEST):
            self.at.best = self.at.best_step = None
        self.log.cut()

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The training batches of an epoch from number `start` on."""
        e = self.experiment
        for batch in self.data.batches(
            "train", self.backend, e.batch, e.seed, epoch, start=start, flatten=self.built.flat
        ):
            yield measuring.with_targets(batch, self.built)

    def first_batch(self) -> Batch:
        """The first training batch that has an image. Raises ExperimentError where none has."""
        for batch in self.batches(0, 0):
            if batch.x.shape[0]:
                return batch
        raise ExperimentError("None of the training images can be read: name other data.")

    def begin_segment(self) -> None:
        """Write down what computes from here on."""
        found = segments.segment(
            self.experiment, self.given, self.backend, self.data, self.best_by, len(self.segments) + 1, self.at.step,
            self.at.epoch, self.lost,
        )  # fmt: skip
        if self.segments and self.segments[-1]["data"]["sha256"] != found["data"]["sha256"]:
            now, before = (segments.images_text(one["data"]) for one in (found, self.segments[-1]))
            self.reporter.note(f"The images are not the same bytes as before: {now}; before {before}.")
        self.log.begin(found)
        self.segments.append(found)

    # The loop

    def run(self) -> Run:
        """Learn until the end, or until a signal; the last state is in a checkpoint when this returns."""
        with environment.deterministic(self.backend):
            return self.to_the_end()

    def to_the_end(self) -> Run:
        """The same, in whatever way the libraries compute now."""
        at = self.at
        self.reporter.start(self.total, at.step)
        left = at.step < self.total or at.due
        if not left:
            self.reporter.note(f"Nothing is left to do: the run has taken all of its {self.total:,} steps.")
        with Interrupt() as interrupt:
            if left:
                self.kept_on_disk(self.begin_segment)
            if at.due:
                self.evaluate(interrupt)
                self.save()
            watch = Stopwatch()
            for batches in self.coming(interrupt):
                self.learn(batches)
                ends = at.position == self.shape.steps or at.step == self.total
                if ends or interrupt.name or watch.seconds > LOOK_EVERY or len(at.pending) >= HELD_LOSSES:
                    self.look()
                    with watch.paused() as seconds:
                        at.seconds += seconds
                        at.seen_seconds += seconds
                        self.pause(interrupt)
                elif not self.experiment.checkpoint_every:
                    self.save()
            stopped = interrupt.name
            if checkpoints.found(self.out)[:1] != [self.out / checkpoints.name_at(at.step)]:
                self.save()
        if left:
            self.say_what_it_came_to()
        return Run(
            self.experiment, self.out, self.records, self.state, self.built, self.backend, at.step, stopped,
            self.segments,
        )  # fmt: skip

    def coming(self, interrupt: Interrupt) -> Iterator[tuple[Batch, ...]]:
        """The batches from here to the run's end, or to a signal: those that are learned from by one call together."""
        at, schedule = self.at, self.built.algorithm.schedule
        while at.step < self.total and not interrupt.name:
            before = at.step
            batches = self.awaited(self.batches(at.epoch, at.position))
            for group in together(batches, self.at_once, at, self.total, schedule):
                yield group
                if interrupt.name or at.step >= self.total or at.position == 0:
                    break
            if at.step == before:
                raise ExperimentError(
                    f"The training images say that an epoch has {self.shape.steps} batches of {self.experiment.batch}, "
                    f"but give {at.position} in epoch {at.epoch}: mend the data's `steps` or `batches`."
                )

    def pause(self, interrupt: Interrupt) -> None:
        """Begin the next epoch, evaluate and write a checkpoint, each where it is time to."""
        at, every = self.at, self.experiment.evaluate_every
        ends = at.position == self.shape.steps
        if ends:
            at.epoch, at.position = at.epoch + 1, 0
        if ends and at.epoch % every == 0 or at.step == self.total:
            self.evaluate(interrupt)
        if time.monotonic() - self.last_saved >= self.experiment.checkpoint_every:
            self.save()

    def say_what_it_came_to(self) -> None:
        """Where no forward weight has learned, and by what the best checkpoint was chosen."""
        at = self.at
        unlearned = phases.taken(self.built.row, self.built.algorithm.schedule, self.shape.steps, at.step).sentence()
        if unlearned:
            self.reporter.note(f"The run in {self.out}: {unlearned}.")
        without = left_out.text(self.records[-1]) if self.records else None
        if without:
            self.reporter.note(f"The run in {self.out}: {without}.")
        if at.best is not None:
            by = segments.BEST_BY[self.best_by]
            self.reporter.note(f"The best checkpoint is that of step {at.best_step}, by {by}: {at.best:.4g}.")

    def awaited(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; counts the seconds until each is there."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.at.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    @np.errstate(all="ignore")  # what is not finite gets a sentence
    def learn(self, batches: tuple[Batch, ...]) -> None:
        """The schedule's modes on one batch, or on several by one call."""
        at, (batch, *more) = self.at, batches
        modes = tuple(self.built.algorithm.schedule(at.epoch, at.position)) if batch.x.shape[0] else ()
        steps = [self.modes[mode] for mode in modes]
        if more and modes:
            if modes not in self.sequences:
                self.sequences[modes] = self.compiled(modes, self.at_once)
            steps, batch = [self.sequences[modes]], stacked(batches)
        for step in steps:
            self.state, info = step(self.state, batch)
            if info.loss is not None:
                at.pending.append((at.step, info))
        at.seen += sum(one.x.shape[0] for one in batches)
        at.step += len(batches)
        at.position += len(batches)

    @np.errstate(all="ignore")
    def look(self) -> None:
        """Bring the losses since the last look to the host. Raises NotFinite."""
        at, mean = self.at, None
        for step, info in at.pending:
            found = self.backend.to_numpy(info.loss)
            for i, loss in enumerate(found if found.ndim == 2 else [found]):
                total = float(np.sum(loss, dtype=np.float64))
                if not np.isfinite(total):
                    raise NotFinite(diagnosis(self, step + i))
                mean = total / len(loss)
                at.losses += total
                at.samples += len(loss)
            if info.output is not None:
                at.wrong += int(np.count_nonzero(self.backend.to_numpy(info.output)))
        at.pending.clear()
        self.say_what_is_left_out()
        self.reporter.progress(at.step, mean)

    def say_what_is_left_out(self) -> None:
        """A sentence on each image that this process could not read, once."""
        if self.left_out is not None:
            for sentence in self.left_out.sentences[self.told_of :]:
                self.reporter.note(f"Left out, one of {self.left_out.most} at most: {sentence}")
            self.told_of = len(self.left_out.sentences)

    def evaluate(self, interrupt: Interrupt) -> None:
        """Measure, and write a record. A signal leaves it for when the run goes on."""
        self.at.due = True
        with suppress(Left):
            self.write(self.measurements(interrupt), interrupt)

    def measurements(self, interrupt: Interrupt) -> dict[str, Any]:
        """A record of this step. Raises Left at a signal."""
        at = self.at
        record: dict[str, Any] = {"step": at.step, "epoch": at.epoch}
        record["train_loss"] = at.losses / at.samples if at.samples else None
        if self.built.targets == "classes":
            record["train_error"] = 100.0 * at.wrong / at.samples if at.samples else None
        for split in measured_splits(self.experiment, self.data):
            batches = ordered(self.data, split, self.backend, self.experiment, self.built)
            seen = measuring.seen_of(self.built, self.data, split)
            found = measuring.measured(self.backend, self.measure, self.state, until(interrupt, batches), seen)
            record |= {f"{split}_{name}": comparison.finite(value) for name, value in found.items()}
        record |= left_out.counts(self.data, ("train", *measured_splits(self.experiment, self.data)))
        self.say_what_is_left_out()
        record |= self.compare(self.state)
        speed = at.seen / at.seen_seconds if at.seen_seconds else None
        waiting = 100.0 * at.waited / at.seen_seconds if at.seen_seconds else None
        record |= {"images_per_second": speed, "waiting_for_data": waiting, "seconds": at.seconds}
        return record | {"memory": self.backend.peak_bytes()}

    def write(self, record: dict[str, Any], interrupt: Interrupt) -> None:
        """Hand a record to everyone who waits for it, one of whom may stop the run, and begin the next."""
        at = self.at
        at.losses, at.wrong, at.samples, at.seen, at.seen_seconds, at.waited = 0.0, 0, 0, 0, 0.0, 0.0
        at.due = False
        whole = self.log.whole
        self.kept_on_disk(lambda: self.log.add(record))
        if whole and not self.log.whole:
            self.reporter.note(
                f"The log {self.log.path} was deleted or cut while the run was going on: records are lost, "
                "and `resume` will say how many."
            )
        self.records.append(record)
        self.proven = sound.proven(self.records)
        self.reporter.record(record)
        if self.tensorboard:
            self.tensorboard.add(record)
        stop = self.callback(record) if self.callback else None
        if isinstance(stop, bool | np.bool_) and stop:
            interrupt.name = interrupt.name or CALLBACK
        self.keep_best(record)

    def kept_on_disk(self, write: Callable[[], None]) -> None:
        """Write to the log. Raises CheckpointError where the disk does not take it."""
        try:
            write()
        except OSError as error:
            raise CheckpointError(
                f"The log {self.log.path} cannot be written ({error.strerror}): {files.remedy(error)}, then continue "
                f"with {files.typed('resume', self.out)}."
            ) from error

    @property
    def best_by(self) -> str:
        """The record's number by which the best checkpoint is chosen."""
        split = "validation" if self.experiment.held_out else "train"
        return f"{split}_error" if self.built.targets == "classes" else f"{split}_loss"

    def keep_best(self, record: dict[str, Any]) -> None:
        """A best checkpoint by the validation images, or by the training batches where none are held out.

        The test images have no say in it.
        """
        value = record.get(self.best_by)
        if value is not None and (self.at.best is None or value < self.at.best):
            self.at.best, self.at.best_step = value, self.at.step
            self.save(best=True)

    # Checkpoints

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Which of the steps that have a checkpoint keep it, beside the newest two; see sound.py."""
        until = (self.proven, self.records[-1]["step"]) if self.records else ()
        return {step for limit in until if (step := sound.newest(steps, limit)) is not None}

    def save(self, best: bool = False) -> None:
        """Write a checkpoint of this moment. Raises NotFinite for a state that is not finite."""
        self.look()
        tensors = checkpoints.tensors_of(self.backend, self.state)
        if first_not_finite(tensors.items()):
            raise NotFinite(diagnosis(self, self.at.step - 1))
        progress = {name: value for name, value in vars(self.at).items() if name != "pending"}
        header = {
            "experiment": as_dict(self.experiment),
            "step": self.at.step,
            "epoch": self.at.epoch,
            "position": self.at.position,
            "seed": self.experiment.seed,
            "images": self.data.train.count,
            "labels": labels_of(self.data),
            "progress": progress,
            "best_by": self.best_by,
            "log_size": self.log.size,
            "records": len(self.records),
            "versions": environment.versions(self.backend),
            "changes": segments.changes(self.segments),
        }
        if self.left_out is not None and self.left_out.count:
            header["left_out"] = self.left_out.as_table()
        checkpoints.save(self.out, self.at.step, header, tensors, best, self.kept)
        self.last_saved = time.monotonic()
