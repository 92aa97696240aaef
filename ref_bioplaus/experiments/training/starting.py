"""Training: an experiment runs, is recorded, can be stopped at any moment and goes on as if it never had been.

    run = train(Experiment(algorithm="kolen-pollack", data="mnist", epochs=5), "runs/kp")
    run.records[-1]["test_error"]

The folder gets experiment.toml, log.jsonl with one line per evaluation, and the checkpoints; before the lines of each
call stands one that says what computes them (see segments.py). A record's train_loss and train_error are means over the
batches learned from since the record before, as they were met; waiting_for_data is the share of the time since then, in
percent, in which a step waited for its batch. Where images may be left out that cannot be read (see left_out.py),
train_skipped, validation_skipped and test_skipped count those met so far, and skipped names them all.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from os.path import isdir
from pathlib import Path
from typing import Any

from ... import naming
from ...machine import environment
from ..data import own
from ..data.contract import Data
from ..runs import checkpoints, headers, weights
from ..runs.folder import alone, check_empty, check_same, check_unedited
from ..spec.checking import checked, told
from ..spec.experiment import (
    OWN,
    Experiment,
    ExperimentError,
    as_dict,
    changed,
    from_dict,
    name_of,
    overridden,
    plain,
)
from ..spec.names import DATASET, is_own
from .loaded import Loaded, Prediction, load
from .loop import NotFinite, Run, Training
from .opening import few, inputs_of, opened, own_data, recorded
from .reporter import Reporter

__all__ = ("Data", "Loaded", "NotFinite", "Prediction", "Reporter", "Run", "evaluate", "load", "resume", "train")


@environment.as_it_was()
def train(
    experiment: Experiment,
    out: str | Path,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    resume: bool = False,
    images: Any = None,
    reporter: Reporter | None = None,
    tensorboard: bool = False,
    params: Any = None,
) -> Run:
    """Run an experiment, its results in the folder `out`.

    callback: called with each record; where it returns True the run stops, with a checkpoint to go on from. resume:
    continue what the folder holds, where it holds anything; start, where a run in it was killed before its first
    checkpoint. images: data of your own, instead of the experiment's dataset: arrays (x, y), splits of them, a
    datasets.Dataset, a function that gives one of these (own.py), or a Data. params: the weights to begin from, a file
    that `export` wrote, a Module's state_dict(), or (params, stats) as from_torch gives them; feedback weights are
    drawn as always (see weights.py). Raises ExperimentError (Busy where another process runs it), BackendError,
    DataError and CheckpointError, each one sentence, before anything runs where it can be known, and NotFinite.
    """
    given, out, targets = given_fields(experiment), Path(out), None
    if images is None and is_own(DATASET, experiment.dataset):
        images = own_data(experiment)
    images = own.given(images, experiment.data if images is None else None)
    if images is not None:
        targets = images.targets if isinstance(images, own.Given) else told(inputs_of(images))[0]
    if images is not None and experiment.dataset is None:
        name = getattr(images, "name", None)
        loaded = name is not None and name == getattr(images, "recognised", None)
        experiment = replace(experiment, dataset=name if loaded else OWN)
    experiment = checked(experiment, targets)
    with alone(out):
        goes_on = resume and bool(checkpoints.found(out))
        start = weights.start_of(experiment, params, needed=not goes_on)
        if start is not None:
            experiment = replace(experiment, start_sha256=start.sha256)
        if goes_on:
            checkpoint = headers.latest(out)
            check_same(experiment, from_dict(checkpoint.header["experiment"]), out)
            check_unedited(out, checkpoint, experiment)
            experiment = learned_inputs(experiment, checkpoint)
        else:
            checkpoint = None
            check_empty(out, resume)
        return begun(experiment, out, checkpoint, images, reporter, start, callback, tensorboard, given).run()


@environment.as_it_was()
def resume(
    out: str | Path,
    checkpoint: str | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    images: Any = None,
    reporter: Reporter | None = None,
    tensorboard: bool = False,
    despite_lost_log: bool = False,
    settings: Iterable[str] = (),
    code: Any = None,
    changed_code: bool = False,
    **changes: Any,
) -> Run:
    """Continue the run in a folder from its newest checkpoint, or from the one of that file name.

    despite_lost_log: go on with what is left of a log.jsonl that was deleted or cut. changes: fields of the experiment
    that are to be others from here on, as backend="jax" or epochs=20; only those that leave what is learned as it is.
    epochs without steps lifts a limit on steps. settings: such fields as "evaluate_every=2", and numbers of the
    optimizers, as "optimizer.eta=0.01", which the log's next segment tells (see segments.py). code: names code of one's
    own again, which no file has run: a name, its file or module, the function itself, or several; changed_code: go on
    though it is another now. Going back, the checkpoints of what is left behind are deleted. Raises as `train` does.
    """
    out = Path(out)
    if not isdir(out):
        checkpoints.latest(out, checkpoint)  # raises
    with alone(out):
        found = headers.latest(out, checkpoint)
        stored, names = recorded(found, code), naming.asked(code)
        settings = list(settings)
        given = {name: name_of(name, value) for name, value in changes.items()}
        given |= ({"checkpoint": checkpoint} if checkpoint else {}) | ({"set": settings} if settings else {})
        if "epochs" in changes:
            changes = {"steps": None} | changes
        experiment = checked(overridden(changed(stored, changes), settings, names))
        check_same(experiment, stored, out, adjusting=True)
        experiment = learned_inputs(experiment, found)
        check_unedited(out, found, experiment)
        more = (callback, tensorboard, given, despite_lost_log)
        return begun(experiment, out, found, images, reporter, None, *more, changed_code=changed_code).run()


def begun(
    experiment: Experiment, out: Path, checkpoint: checkpoints.Checkpoint | None, images: Any,
    reporter: Reporter | None, start: weights.Start | None, *more: Any, changed_code: bool = False,
) -> Training:  # fmt: skip
    """A run that is ready to learn, from a checkpoint where there is one."""
    reporter, run = reporter or Reporter(), f"The run in {out}" if checkpoint else "The experiment"
    if checkpoint and experiment.start_sha256 and "sign_changes" in experiment.metrics:  # since the first weights
        start = start or weights.kept(out, experiment.start_sha256)
    ready = opened(experiment, images, reporter, run, checkpoint, changed_code, start)
    return Training(ready, out, checkpoint, reporter, start, *more)


def given_fields(experiment: Experiment) -> dict[str, Any]:
    """The fields of an experiment that are not left as they are by default."""
    usual = as_dict(Experiment())
    return {name: value for name, value in as_dict(experiment).items() if value != usual.get(name)}


def learned_inputs(experiment: Experiment, checkpoint: checkpoints.Checkpoint) -> Experiment:
    """The experiment with the inputs that a run has learned from and the hash of the weights that it began from, where
    it is given none. Raises ExperimentError."""
    first = experiment.start_sha256 or checkpoint.header["experiment"].get("start_sha256")
    stored = checkpoint.header["experiment"].get("inputs", {})
    for name, value in plain(experiment.inputs).items():
        if value != stored.get(name, value):
            raise ExperimentError(
                f"The run in {checkpoint.path.parent} has inputs.{name} = {few(stored[name])}, not {few(value)}: leave "
                "it as it is, or start in another folder."
            )
    return replace(experiment, inputs=plain(experiment.inputs) | stored, start_sha256=first)


def evaluate(
    out: str | Path, checkpoint: str | None = None, images: Any = None, code: Any = None, changed_code: bool = False,
    **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """The loss and errors of a folder's newest checkpoint, or another ("best"), on every split.

    Images are normalised as those that the run learned from. code, changed_code: see `resume`. Raises as `train` does.
    """
    return load(out, checkpoint, images, code, changed_code, **changes).evaluate()
