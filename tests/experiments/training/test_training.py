"""Training: it learns, is recorded, and goes on after a stop as if there had been none."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ref_bioplaus.backends import Backend
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding
from ref_bioplaus.experiments.runs import checkpoints, folder, logs
from ref_bioplaus.experiments.runs.checkpoints import CheckpointError
from ref_bioplaus.experiments.spec.building import Shape, build
from ref_bioplaus.experiments.spec.checking import checked
from ref_bioplaus.experiments.spec.experiment import ExperimentError, read
from ref_bioplaus.experiments.training import loop, measuring, needs, opening, tensorboard
from ref_bioplaus.experiments.training import starting as training
from ref_bioplaus.experiments.training.starting import NotFinite, resume, train
from ref_bioplaus.machine import memory
from ref_bioplaus.tree import named_leaves, tree_map
from ref_bioplaus.types import Batch
from tests.conftest import get
from tests.helpers import ROOT, slow, some_slow
from tests.helpers.commands import command
from tests.helpers.embedded_data import embedded_data
from tests.helpers.runs import PLAIN, Stopping, Untested, arrays, assert_same, of

SCHEDULE = {"kind": "piecewise", "values": [0.05, 0.01], "updates": [7]}


CASES = {
    "adam": of(**PLAIN, algorithm="backprop", optimizer={"name": "adam", "eta": 1e-3}, held_out=100),
    "schedule": of(algorithm="KP", optimizer={"name": "sgd", "eta": SCHEDULE, "momentum": 0.9, "decay": 1e-3}),
    "weight mirror": of(
        **PLAIN, algorithm="weight-mirror", algorithm_options={"mirror_per_batch": 2, "initial_mirroring": 3}
    ),
    "dtp alternating": of(**PLAIN, algorithm="dtp-alternating", epochs=4),
    "dropout": of(**PLAIN, algorithm="sn", model="moskovitz2018/mnist", model_options={"width": 1 / 16}, epochs=2),
    "batch norm": of(
        **PLAIN, algorithm="feedback-alignment", model="he2016/resnet20", model_options={"width": 1 / 8}, epochs=2
    ),
}


LONG = {  # of the backends, the cases that they compile for long; JAX's batch norm is left out for good
    "torch": ("schedule", "weight mirror", "dropout", "batch norm"),
    "jax": ("schedule", "weight mirror", "dropout", "dtp alternating"),
}


@pytest.mark.parametrize(
    ("case", "name"),
    some_slow(
        [(c, n) for c in CASES for n in ("numpy", "torch", "jax") if (c, n) != ("batch norm", "jax")],
        lambda case, name: case in LONG.get(name, ()),
    ),
)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(case, name, tmp_path, quick_compiler):
    get(name, "float32")
    experiment = replace(CASES[case], backend=name)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    stopped = train(experiment, tmp_path / "parts", images=Stopping(embedded_data(), 7))
    assert (stopped.stopped_by, stopped.step, stopped.finished) == ("SIGINT", 7, False)
    again = resume(tmp_path / "parts", images=Stopping(embedded_data(), 2, signal.SIGTERM))
    assert (again.stopped_by, again.step) == ("SIGTERM", 9)
    assert_same(whole, resume(tmp_path / "parts", images=embedded_data()))
    assert whole.step == 5 * experiment.epochs
    assert [r["epoch"] for r in whole.records] == list(range(experiment.epochs + 1))


def test_a_stop_at_the_end_of_an_epoch_does_not_measure_twice(tmp_path):
    experiment = of()
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    stopped = train(experiment, tmp_path / "parts", images=Stopping(embedded_data(), 5))
    assert stopped.step == 5
    assert_same(whole, resume(tmp_path / "parts", images=embedded_data()))
    assert_same(whole, resume(tmp_path / "parts", images=embedded_data()))  # with nothing left to do


@pytest.mark.parametrize(("at", "step", "measured"), [(1, 0, 0), (4, 5, 1), (8, 15, 3)])
def test_a_stop_while_it_is_measured_leaves_that_for_later(at, step, measured, tmp_path):
    """Two batches are measured each time: the signal comes in the first, in the second, and at the very end."""
    experiment = of(algorithm="FA", checkpoint_every=0.0)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    stopped = train(experiment, tmp_path / "parts", images=Stopping(embedded_data(), at, split="test"))
    assert (stopped.stopped_by, stopped.step, len(stopped.records)) == ("SIGINT", step, measured)
    again = resume(tmp_path / "parts", images=Stopping(embedded_data(), 2, split="test"))  # leaves it once more
    assert (again.stopped_by, again.step, len(again.records)) == ("SIGINT", step, measured)
    assert_same(whole, resume(tmp_path / "parts", images=embedded_data()))
    assert_same(whole, resume(tmp_path / "parts", images=embedded_data()))


def test_an_older_checkpoint_that_does_not_say_whether_it_was_measured_was(tmp_path):
    experiment = of(**PLAIN)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    train(replace(experiment, epochs=1), tmp_path / "parts", images=embedded_data())
    stored = checkpoints.latest(tmp_path / "parts")
    del stored.header["progress"]["due"]
    checkpoints.save(tmp_path / "parts", stored.header["step"], stored.header, stored.tensors)
    assert_same(whole, resume(tmp_path / "parts", epochs=3, images=embedded_data()))


def test_modifications_keep_their_order_over_a_stop(tmp_path):
    """Each is wrapped around those before it, so that their order is part of what is learned."""
    tables = {"fixed-signs": {"start": 2}, "constant-norm": {}, "batch-manhattan": {}}
    experiment = of(**PLAIN, modifications=tables, optimizer={"name": "sgd", "eta": 1e-3})
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    train(experiment, tmp_path / "parts", images=Stopping(embedded_data(), 7))
    assert_same(whole, resume(tmp_path / "parts", images=embedded_data()))
    turned = replace(experiment, modifications=dict(reversed(tables.items())))
    with pytest.raises(ExperimentError, match="has modifications = "):
        train(turned, tmp_path / "parts", resume=True, images=embedded_data())


def test_signs_fixed_after_a_share_of_the_run_forbid_another_number_of_epochs(tmp_path):
    experiment = of(**PLAIN, epochs=2, modifications={"fixed-signs": {"start_share": 0.5}})
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    train(experiment, tmp_path / "run", images=Stopping(embedded_data(), 3))
    for again in (
        lambda: resume(tmp_path / "run", epochs=3, images=embedded_data()),
        lambda: train(replace(experiment, epochs=3), tmp_path / "run", resume=True, images=embedded_data()),
    ):
        with pytest.raises(ExperimentError, match="fixes signs after a share of its 2 epochs, so it cannot become"):
            again()
    assert_same(whole, resume(tmp_path / "run", epochs=2, images=embedded_data()))


def test_more_epochs_lift_a_limit_on_steps_and_are_as_if_there_had_been_none(tmp_path):
    whole = train(of(**PLAIN, epochs=2), tmp_path / "whole", images=embedded_data())
    assert train(of(**PLAIN, epochs=1, steps=5), tmp_path / "run", images=embedded_data()).step == 5
    assert_same(whole, resume(tmp_path / "run", epochs=2, images=embedded_data()))
    assert resume(tmp_path / "run", epochs=3, steps=11, images=embedded_data()).step == 11


@pytest.mark.parametrize("again", ["resume", "train"])
def test_more_epochs_outlive_a_kill_before_the_next_checkpoint(again, tmp_path, monkeypatch):
    whole = train(of(**PLAIN, epochs=2), tmp_path / "whole", images=embedded_data())
    out = tmp_path / "run"
    train(of(**PLAIN, epochs=1), out, images=embedded_data())
    before = checkpoints.latest(out)
    monkeypatch.setattr(loop.Training, "run", lambda training: None)  # killed before its first step
    if again == "resume":
        resume(out, epochs=2, images=embedded_data())
    else:
        train(of(**PLAIN, epochs=2), out, images=embedded_data(), resume=True)
    monkeypatch.undo()
    after = checkpoints.latest(out)
    assert (after.header["experiment"]["epochs"], read(out / "experiment.toml").epochs) == (2, 2)
    kept = before.header | {"experiment": None, "experiment_before": before.header["experiment"]}
    assert after.header | {"experiment": None} == kept
    assert_same(whole, resume(out, images=embedded_data()))


def test_another_number_of_training_images_is_refused(tmp_path):
    train(of(**PLAIN), tmp_path, images=Stopping(embedded_data(), 3))
    with pytest.raises(ExperimentError, match="learned from 470 training images, but here are 400"):
        resume(tmp_path, images=embedded_data(train=400))


def test_a_run_that_was_killed_before_its_first_checkpoint_just_starts(tmp_path):
    experiment = of(**PLAIN, held_out=100)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    run = tmp_path / "run"
    (run / "tensorboard").mkdir(parents=True)
    (run / "experiment.toml").write_text((tmp_path / "whole" / "experiment.toml").read_text())
    (run / "log.jsonl").write_text('{"step": 0')
    (run / checkpoints.BEST).write_bytes(b"of this run, or of one that was to be another")
    (run / f"{checkpoints.name_at(0)}.tmp").write_bytes(b"half")
    with pytest.raises(ExperimentError, match="has no checkpoint yet: start it again with --resume"):
        train(experiment, run, images=embedded_data())
    assert_same(whole, train(experiment, run, images=embedded_data(), resume=True))
    assert not list(run.glob("*.tmp"))
    assert checkpoints.latest(run, "best").header == checkpoints.latest(tmp_path / "whole", "best").header
    other = tmp_path / "other"
    other.mkdir()
    (other / "experiment.toml").write_text("")
    (other / "thesis.txt").write_text("")
    with pytest.raises(ExperimentError, match="there already and not empty"):
        train(experiment, other, images=embedded_data(), resume=True)
    (other / "thesis.txt").unlink()
    (other / checkpoints.BEST).write_bytes(b"of another run")
    with pytest.raises(NotFinite), np.errstate(all="ignore"):
        train(of(**PLAIN, optimizer={"name": "sgd", "eta": 3e38}), other, images=embedded_data(), resume=True)
    assert not (other / checkpoints.BEST).exists()


def test_tensorboard_gets_every_number_and_is_missed_before_a_folder_is_made(tmp_path, monkeypatch):
    """A stand-in for the writer, which is no dependency."""
    written, purged = [], []

    class Writer:
        def __init__(self, folder, purge_step):
            purged.append(purge_step)

        def add_scalar(self, name, number, step):
            written.append((name, number, step))

        def flush(self):
            pass

    monkeypatch.setattr(tensorboard, "import_module", lambda name: SimpleNamespace(SummaryWriter=Writer))
    experiment = of(algorithm="FA")
    train(experiment, tmp_path / "run", images=Stopping(embedded_data(), 7), tensorboard=True)
    run = resume(tmp_path / "run", images=embedded_data(), tensorboard=True)
    assert purged == [0, 8]
    last = run.records[-1]
    assert ("test_error", last["test_error"], 15) in written
    assert ("matrix_angles/2", last["matrix_angles"]["2"], 15) in written
    assert sorted({step for _, _, step in written}) == [0, 5, 10, 15]

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(tensorboard, "import_module", missing)
    with pytest.raises(ImportError, match="TensorBoard's writer is not installed"):
        train(experiment, tmp_path / "other", images=embedded_data(), tensorboard=True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("first", "second"), [("numpy", "torch"), ("torch", "jax"), ("jax", "numpy")])
def test_the_first_step_on_another_backend_is_within_the_judges_score(first, second, tmp_path):
    """The step after a run was taken to another backend, judged as the conformance suite judges steps."""
    for name in (first, second):
        get(name, "float32")
    experiment = of(algorithm="KP", model_options={"width": 5 / 256}, backend=first, dtype="float32")
    train(experiment, tmp_path / "run", images=Stopping(embedded_data(), 6))
    stored = checkpoints.latest(tmp_path / "run")
    moved = resume(tmp_path / "run", backend=second, steps=7, images=embedded_data())
    assert moved.backend.name == second
    assert moved.step == 7

    numpy = get("numpy", "float64")
    data = embedded_data()
    shape = opening.shape_of(data, experiment)
    reference = build(checked(experiment), numpy, shape)
    start = checkpoints.state_of(numpy, stored, reference.algorithm.init(numpy.key(experiment.seed)))
    batch = next(data.batches("train", numpy, 100, experiment.seed, 1, start=1, flatten=True))
    space = Rounding(PRECISIONS["float32", "ieee"], "float32", None)
    single = build(checked(experiment), get("numpy", "float32"), shape)
    state, _ = single.algorithm.modes["learn"](
        tree_map(lambda a: space.exact(np.asarray(a)), start), Batch(space.exact(batch.x), space.exact(batch.y))
    )
    assert not space.undecidable
    names = dict(named_leaves(state))
    scores = judge.judge(judge.Expected(names, 0, space.precision.tiny), arrays(moved))
    assert len(scores) > 20
    worst = max(scores, key=lambda s: s.score)
    assert worst.score < judge.LIMIT, worst
    before = judge.judge(judge.Expected(names, 0, space.precision.tiny), stored.tensors)
    assert max(s.score for s in before) > judge.LIMIT


def test_learning_is_seen_in_the_records(tmp_path):
    met = []
    run = train(of(epochs=6, held_out=100), tmp_path, callback=met.append, images=embedded_data())
    assert met == run.records == logs.Log(tmp_path / "log.jsonl", (tmp_path / "log.jsonl").stat().st_size).records()
    first, last = met[0], met[-1]
    assert last["train_error"] < first["test_error"] - 15
    assert last["test_loss"] < first["test_loss"]
    assert first["train_error"] is None
    assert {"validation_error", "validation_loss", "test_top5_error", "sign_changes"} <= set(last)
    assert last["images_per_second"] > 0
    assert 0 < last["sign_changes"]["1"] < 1
    assert set(first["sign_changes"].values()) == {0.0}


def test_errors_are_those_of_the_whole_split(tmp_path):
    """Counted anew, one image at a time, from the network's own outputs."""
    data = embedded_data(test=130)
    run = train(of(epochs=2), tmp_path, images=data)
    from ref_bioplaus import predict

    x = run.backend.asarray(data.test.x.reshape(len(data.test.x), -1), "float32")
    output = predict(run.built.network, run.built.loss, run.state, x)
    order = np.argsort(-output, axis=1, kind="stable")
    label = np.argmax(data.test.y, axis=1)
    top5 = np.mean([label[i] not in order[i, :5] for i in range(130)])
    assert run.records[-1]["test_error"] == pytest.approx(100 * np.mean(order[:, 0] != label))
    assert run.records[-1]["test_top5_error"] == pytest.approx(100 * top5)
    loss = -np.log(output[np.arange(130), label])
    assert run.records[-1]["test_loss"] == pytest.approx(np.mean(loss), rel=1e-5)
    assert training.evaluate(tmp_path, images=data)["test_error"] == run.records[-1]["test_error"]


def test_ranks_with_ties_and_what_is_no_number():
    y = np.eye(3, dtype=np.float32)[[0, 1, 2, 1, 0, 2]]
    output = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 5, 9], [np.nan, 1, 1], [np.inf, 1, -np.inf]], np.float32)
    assert list(measuring.rank(output, y)[:4]) == [0, 1, 2, 1]
    assert measuring.rank(output, y)[4] > 0
    assert measuring.rank(output, y)[5] > 0
    assert list(measuring.rank(np.array([[9.0, 0.0, 1.0, 8.0]]), np.array([[0.0, 1.0, 0.0]]))) == [2]


def test_angles_of_backprop_and_of_feedback_alignment(tmp_path):
    run = train(of(algorithm="FA", epochs=1), tmp_path, images=embedded_data())
    exact = run.records[-1]
    assert exact["delta_angles"]["6"] == 0.0
    assert 60 < exact["matrix_angles"]["2"] < 120
    assert exact["gradient_ratios"]["6"] == 1.0
    bp = train(of(epochs=1), tmp_path / "bp", images=embedded_data()).records[-1]
    assert "delta_angles" not in bp
    assert "sign_changes" in bp
    noisy = train(of(algorithm="backprop-noise-delta", epochs=1), tmp_path / "n", images=embedded_data()).records[-1]
    assert "delta_angles" not in noisy  # its weights do not learn from the deltas that Info holds
    assert 0.5 < noisy["gradient_ratios"]["1"] < 0.9  # 1 / sqrt(2) where noise and gradient are of one size


def test_an_autoencoder_has_a_loss_and_no_error(tmp_path):
    experiment = of(model="bartunov2018/autoencoder", model_options={"width": 1 / 32})
    run = train(experiment, tmp_path, images=embedded_data())
    assert read(tmp_path / "experiment.toml").loss == "squared-error"
    assert checkpoints.latest(tmp_path).header["experiment"]["loss"] == "squared-error"
    assert run.records[-1]["test_loss"] < run.records[0]["test_loss"]
    assert "test_error" not in run.records[-1]
    assert checkpoints.latest(tmp_path, "best").header["step"] == 15


def test_the_best_is_chosen_by_validation_or_training_images_never_by_test_images(tmp_path):
    run = train(of(epochs=5, held_out=100), tmp_path, images=embedded_data())
    errors = [r["validation_error"] for r in run.records]
    assert checkpoints.latest(tmp_path, "best").header["epoch"] == errors.index(min(errors))


def test_of_equals_the_first_is_the_best(tmp_path):
    still = {"name": "sgd", "eta": 0.0, "momentum": 0.0}
    run = train(of(**PLAIN, optimizer=still, epochs=2, held_out=100), tmp_path, images=embedded_data())
    assert len({r["validation_error"] for r in run.records}) == 1
    assert checkpoints.latest(tmp_path, "best").header["epoch"] == 0


def test_epochs_between_are_not_measured_and_the_last_one_is(tmp_path):
    run = train(of(**PLAIN, epochs=5, evaluate_every=2), tmp_path, images=embedded_data())
    assert [r["epoch"] for r in run.records] == [0, 2, 4, 5]


def test_data_without_test_images_is_learned_and_evaluated(tmp_path):
    run = train(of(**PLAIN, held_out=100, epochs=1), tmp_path / "run", images=Untested(embedded_data()))
    record = training.evaluate(run.out, images=Untested(embedded_data()))
    for found in (run.records[-1], record):
        assert {name for name in found if "error" in name} >= {"train_error", "validation_error"}
        assert not any(name.startswith("test") for name in found)


def test_a_batch_of_one_and_a_single_step(tmp_path):
    run = train(of(batch=1, steps=2, epochs=1), tmp_path, images=embedded_data(train=3, test=2))
    assert run.step == 2
    assert [r["step"] for r in run.records] == [0, 2]


def test_a_loss_that_is_not_finite_names_step_layer_and_checkpoint(tmp_path):
    experiment = of(optimizer={"name": "sgd", "eta": 3e38, "momentum": 0.0})
    with pytest.raises(NotFinite) as error, np.errstate(all="ignore"):
        train(experiment, tmp_path, images=embedded_data())
    sentence = str(error.value)
    assert "not finite after step 2; the first tensor that is not: info/h/6, layer 6 (dense(10)" in sentence
    assert checkpoints.name_at(0) in sentence
    assert len(logs.records(tmp_path)) == 1


OVERFLOW = {"noisy-gradients": {"strength": 1e38}}  # whose first update is larger than float32 holds


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_sentence_is_all_that_is_said(tmp_path):
    """NumPy's warnings are not: neither before a loss that is not finite, nor at the angle of a zero vector."""
    for name, modifications in (("loss", {}), ("update", OVERFLOW)):
        with pytest.raises(NotFinite):
            experiment = of(optimizer={"name": "sgd", "eta": 3e38}, modifications=modifications)
            train(experiment, tmp_path / name, images=embedded_data())
    still = of(algorithm="FA", algorithm_options={"feedback_initializer": "zero"}, epochs=1)
    run = train(still, tmp_path / "still", images=embedded_data())
    assert run.records[-1]["matrix_angles"]["2"] is None
    training.evaluate(run.out, images=embedded_data())


def test_a_state_that_is_not_finite_is_never_written(tmp_path):
    experiment = of(
        optimizer={"name": "sgd", "eta": 3e38}, modifications=OVERFLOW, checkpoint_every=0.0, epochs=1
    )  # fmt: skip
    with pytest.raises(NotFinite, match="state/forward/params/1/W, layer 1"), np.errstate(all="ignore"):
        train(experiment, tmp_path, images=embedded_data())
    (checkpoint,) = checkpoints.found(tmp_path)
    assert checkpoints.load(checkpoint).header["step"] == 0


def test_what_is_refused_before_anything_runs(tmp_path, monkeypatch):
    data = embedded_data(train=20, test=10)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    with pytest.raises(ExperimentError, match="there already and not empty: continue it with"):
        train(of(), tmp_path / "full", images=data)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match="cannot be written to"):
        train(of(), tmp_path / "file" / "below", images=data)
    monkeypatch.setattr(memory, "free_disk", lambda folder: 1000)
    with pytest.raises(ExperimentError, match="has 1.0 kB free, but the checkpoints need"):
        train(of(), tmp_path / "small", images=data)
    monkeypatch.undo()
    monkeypatch.setattr(Backend, "free_bytes", lambda self: 10**6)
    with pytest.raises(
        ExperimentError,
        match=r"needs about \d+\.\d MB on cpu, which has 1.0 MB free: parameters .*; in all about",
    ):
        train(of(model_options={}), tmp_path / "big", images=data)
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        resume(tmp_path / "nothing", images=data)


def test_resuming_with_another_rule_is_refused_and_a_shorter_log_too(tmp_path):
    data = embedded_data(train=20, test=10)
    train(of(), tmp_path, images=data)
    with pytest.raises(ExperimentError, match="has algorithm = 'backprop', not 'dfa'"):
        train(of(algorithm="DFA"), tmp_path, images=data, resume=True)
    with pytest.raises(ExperimentError, match="has batch = 100, not 50"):
        resume(tmp_path, batch=50, images=data)
    assert train(of(epochs=5), tmp_path, images=data, resume=True).step == 5
    newest = checkpoints.latest(tmp_path)
    further = {"step": 6, "progress": newest.header["progress"] | {"step": 6}}
    checkpoints.save(tmp_path, 6, newest.header | further, newest.tensors)
    there, stored = [path.read_bytes() for path in checkpoints.found(tmp_path)], read(tmp_path / "experiment.toml")
    assert len(there) == 2
    (tmp_path / "log.jsonl").write_text("")
    for name in (None, checkpoints.found(tmp_path)[1].name):
        with pytest.raises(ExperimentError, match="expected at least"):
            resume(tmp_path, name, epochs=7, images=data)
    assert [path.read_bytes() for path in checkpoints.found(tmp_path)] == there
    assert read(tmp_path / "experiment.toml") == stored


def test_a_run_never_goes_back_and_says_where_nothing_is_left(tmp_path):
    experiment = of(**PLAIN, epochs=2)
    train(experiment, tmp_path, images=embedded_data())
    before = (tmp_path / "experiment.toml").read_text()
    with pytest.raises(ExperimentError, match="has taken 10 steps, so it cannot end after 5: ask for more"):
        resume(tmp_path, epochs=1, images=embedded_data())
    assert (tmp_path / "experiment.toml").read_text() == before
    told = []

    class Teller(training.Reporter):
        def note(self, sentence):
            told.append(sentence)

    resume(tmp_path, images=embedded_data(), reporter=Teller())
    assert told[-1] == "Nothing is left to do: the run has taken all of its 10 steps."


class Slow(Stopping):
    """Data whose training batches come late."""

    def batches(self, *arguments, **options):
        for found in self.data.batches(*arguments, **options):
            time.sleep(0.1 if arguments[0] == "train" else 0.0)
            yield found


def test_waiting_for_data_is_recorded(tmp_path):
    slow = train(of(**PLAIN, epochs=1), tmp_path / "slow", images=Slow(embedded_data(), 0)).records
    quick = train(of(**PLAIN, epochs=1), tmp_path / "quick", images=embedded_data()).records
    assert slow[0]["waiting_for_data"] is None
    assert 0 <= quick[1]["waiting_for_data"] < slow[1]["waiting_for_data"] <= 100
    assert slow[1]["waiting_for_data"] * slow[1]["seconds"] / 100 >= 0.4  # of five batches at least four


def test_the_best_checkpoint_goes_on_where_its_steps_own_file_is_damaged(tmp_path):
    experiment = of(**PLAIN, epochs=2)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    train(of(**PLAIN, epochs=1), tmp_path / "run", images=embedded_data())
    newest = checkpoints.found(tmp_path / "run")[0]
    shutil.copy(newest, tmp_path / "run" / checkpoints.BEST)
    newest.write_bytes(newest.read_bytes()[:-1])
    found = checkpoints.latest(tmp_path / "run", "best")
    checkpoints.keep_until(tmp_path / "run", found, found.header["experiment"])
    assert checkpoints.load(newest).header["step"] == 5
    assert_same(whole, resume(tmp_path / "run", epochs=2, images=embedded_data()))


def test_as_many_images_with_other_labels_are_refused(tmp_path):
    train(of(**PLAIN, epochs=1), tmp_path, images=embedded_data())
    other = embedded_data()
    assert checkpoints.latest(tmp_path).header["labels"] == other.fingerprint
    other.fingerprint = "other"
    with pytest.raises(ExperimentError, match="learned from images with other labels than those given here:"):
        resume(tmp_path, epochs=2, images=other)


def test_another_process_is_kept_out(tmp_path):
    train(of(**PLAIN, epochs=1), tmp_path, images=embedded_data())
    with folder.alone(tmp_path):
        for go in (lambda: resume(tmp_path, images=embedded_data()), lambda: train(of(), tmp_path, resume=True)):
            with pytest.raises(folder.Busy, match="Another process is running"):
                go()
    assert resume(tmp_path, epochs=2, images=embedded_data()).finished


def test_a_folder_made_for_a_run_that_is_refused_is_taken_away(tmp_path):
    with pytest.raises(ExperimentError, match=r"in_shape is \[784\]"):
        train(of(model_options={"in_shape": [784]}), tmp_path / "a" / "b", images=embedded_data(train=7))
    assert not (tmp_path / "a" / "b").exists()


@pytest.mark.parametrize("from_best", [False, True])
def test_going_on_from_an_older_checkpoint_and_being_killed_loses_nothing(from_best, tmp_path, monkeypatch):
    """The log is cut where the older checkpoint was, so that the newer ones must be gone before."""
    experiment = of(**PLAIN, checkpoint_every=0.0, epochs=2)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    train(experiment, tmp_path / "run", images=embedded_data())
    name = checkpoints.found(tmp_path / "run")[1].name
    if from_best:
        shutil.copy(tmp_path / "run" / name, tmp_path / "run" / checkpoints.BEST)
        (tmp_path / "run" / name).unlink()
        name = "best"
    step = checkpoints.latest(tmp_path / "run", name).header["step"]
    assert step < 10
    monkeypatch.setattr(loop.Training, "run", lambda training: None)  # killed before its first step
    resume(tmp_path / "run", name, images=embedded_data())
    monkeypatch.undo()
    assert checkpoints.latest(tmp_path / "run").header["step"] == step
    assert_same(whole, resume(tmp_path / "run", images=embedded_data()))


def test_a_checkpoint_of_another_folder_or_another_file_is_refused(tmp_path):
    for name in ("a", "b"):
        train(of(**PLAIN, epochs=1), tmp_path / name, images=embedded_data())
    for name in ("../b/best.safetensors", "log.jsonl", str(tmp_path / "b" / "best.safetensors")):
        with pytest.raises(CheckpointError, match="has no checkpoint .*: it has step-0"):
            training.evaluate(tmp_path / "a", name, images=embedded_data())


def test_a_damaged_checkpoint_is_refused_and_the_one_before_goes_on(tmp_path):
    experiment = of(checkpoint_every=0.0)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    train(experiment, tmp_path / "run", images=Stopping(embedded_data(), 8))
    newest, before, *_ = checkpoints.found(tmp_path / "run")
    content = newest.read_bytes()
    newest.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=f"before it with `ref-bioplaus resume .* --checkpoint {before.name}`"):
        resume(tmp_path / "run", images=embedded_data())
    assert_same(whole, resume(tmp_path / "run", before.name, images=embedded_data()))


def test_a_disk_that_is_full_when_the_log_grows_is_a_sentence_and_the_run_goes_on_later(tmp_path, monkeypatch):
    experiment = of(**PLAIN, checkpoint_every=0.0)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    add = logs.Log.add

    def full(log, record):
        if record["step"] == 10:
            with log.path.open("a") as file:
                file.write('{"step": 1')  # what still found room
            raise OSError(28, "No space left on device")
        add(log, record)

    monkeypatch.setattr(logs.Log, "add", full)
    with pytest.raises(CheckpointError, match=r"log.jsonl cannot be written \(No space left on device\): make room"):
        train(experiment, tmp_path / "run", images=embedded_data())
    monkeypatch.undo()
    assert_same(whole, resume(tmp_path / "run", images=embedded_data()))


ROWS = ("backprop-alignment", "kolen-pollack", "dfa", "dense-fa", "frsf-ei", "sn", "dtp", "sdtp", "ao-sdtp", "xiao")


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("model", ["bartunov2018/mnist-fc", "bartunov2018/mnist-lc"])
@pytest.mark.parametrize("optimizer", [{"name": "adam", "eta": 0.1}, {"name": "rmsprop", "eta": 0.1}])
def test_the_estimate_is_what_the_state_takes(row, model, optimizer):
    """Counters, keys and norms, single numbers, are left out of the estimate."""
    options = {"width": 5 / 256} | ({"auxiliary": 7} if row.startswith("ao") else {})
    experiment = checked(of(algorithm=row, model=model, model_options=options, optimizer=optimizer, dtype="float64"))
    backend = get("numpy")
    built = build(experiment, backend, Shape((9, 6, 2), 4, 5))
    state = built.algorithm.init(backend.key(0))
    exact = sum(leaf.size for _, leaf in named_leaves(state) if leaf.dtype.kind == "f" and leaf.ndim)
    found = needs.estimate(experiment, built, backend)
    assert found.state == 8 * exact
    assert str(found).startswith(f"parameters {found.parameters:,} (")
    assert memory.size(999) == "999 bytes"
    assert memory.size(3_200_000) == "3.2 MB"


@pytest.mark.parametrize("model", ["bartunov2018/mnist-lc", "moskovitz2018/cifar10-model2", "he2016/resnet20"])
def test_the_estimate_counts_what_a_forward_pass_makes(model):
    """Every array: pools make less than what they are made from, and BatchNorm and dropout as much again."""
    experiment = checked(of(model=model, model_options={"width": 1 / 8}, batch=3))
    backend = get("numpy", "float32")
    built = build(experiment, backend, Shape((12, 10, 1), 4, 5))
    state, made = built.algorithm.init(backend.key(0)), []
    h = [np.ones((3, 12, 10, 1), np.float32)]
    if built.flat:
        h = [h[0].reshape(3, -1)]
    made.append(h[0].size)
    for layer, p, s in zip(built.network.layers[1:], state.forward.params[1:], state.stats[1:], strict=True):
        x = sum(h[k] for k in layer.inputs)
        if layer.linear:
            x = layer.linear.apply(p.W, x)
            made.append(x.size)
        for i, op in enumerate(layer.local):
            x, _, _ = op.forward(p.local[i], s[i], x, (backend.key(1), i), True)
            made.append(x.size)
        h.append(x)
    assert needs.estimate(experiment, built, backend).activations == sum(made)


def test_the_estimate_of_a_whole_run_is_about_what_was_measured_where_it_was():
    """It grows with the batch and with what is measured, and on a device without measurements it is a lower bound."""
    backend = get("numpy", "float32")

    def estimated(backend=backend, **fields):
        experiment = checked(of(model="he2016/resnet20", model_options={}, **fields))
        return needs.estimate(experiment, build(experiment, get("numpy", "float32"), Shape((12, 10, 1), 4, 5)), backend)

    found, taken = estimated(batch=64), needs.TAKEN["numpy", "portable"]
    assert found.taken == taken
    assert str(found).endswith(f"; in all about {memory.size(found.total)}")
    assert estimated(batch=128).total - found.total == pytest.approx(taken.step * 2 * 4 * found.activations, abs=2)
    alone = estimated(batch=64, metrics=["matrix_angles"])
    assert found.total - alone.total == pytest.approx(taken.step * 4 * found.activations, abs=2)
    wide = estimated(batch=1)
    assert wide.total >= taken.base + (1.0 + taken.saving) * wide.state
    gpu = SimpleNamespace(name="torch", on_gpu=True, kernels=backend.kernels)
    there = estimated(gpu, batch=64)
    assert there.total == there.state + 4 * (there.gradients + there.activations)
    assert str(there).endswith(f"; in all at least {memory.size(there.total)}")
    stranger = SimpleNamespace(name="mine", on_gpu=Backend.on_gpu.fget(backend), kernels=backend.kernels)
    assert estimated(stranger).taken == taken
    assert needs.TAKEN.keys() == {(n, k) for n in ("numpy", "torch", "jax") for k in ("native", "portable")}


def test_the_estimate_counts_statistics():
    experiment = checked(of(model="he2016/resnet20", model_options={"width": 1 / 8}))
    backend = get("numpy", "float32")
    built = build(experiment, backend, Shape((10, 6, 1), 4, 5))
    state = built.algorithm.init(backend.key(0))
    exact = sum(leaf.size for _, leaf in named_leaves(state) if leaf.dtype.kind == "f" and leaf.ndim)
    assert needs.estimate(experiment, built, backend).state == 4 * exact


# As a library


@pytest.mark.parametrize("name", ["numpy", slow("torch"), slow("jax")])
def test_the_example_learns_on_every_backend(name, capsys, quick_compiler):
    from ref_bioplaus.experiments.examples import fa_on_mnist

    get(name, "float32")
    records = fa_on_mnist.learn(name, epochs=1)
    assert [r["epoch"] for r in records] == [0, 1]
    assert records[1]["test_error"] < 50 < records[0]["test_error"]
    assert capsys.readouterr().out.splitlines() == [f"{name}: {r['test_error']:.2f} %" for r in records]


# As a program


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from tests.helpers.embedded_data import embedded_data
from ref_bioplaus.experiments import Experiment, train
from tests.helpers.runs import of
train(of(epochs={epochs}, checkpoint_every=0.0), {out!r}, resume=True, images=embedded_data())
print("finished")
"""


def start(out, epochs=30):
    code = PROGRAM.format(root=str(ROOT), out=str(out), epochs=epochs)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed_at_random(out, kills, seed, epochs=30):
    """Kill a run again and again, at random moments: in turns after it has written something, and at any time from its
    start on, where it loads and draws its first state; then let it finish."""
    moments = np.random.default_rng(seed).uniform(0.0, 0.4, kills)
    steps = []
    for i, moment in enumerate(moments):
        before = checkpoints.found(out)
        process = start(out, epochs)
        while i % 2 == 0 and process.poll() is None and checkpoints.found(out)[:1] == before[:1]:
            time.sleep(0.005)
        time.sleep(moment if i % 2 == 0 else 5 * moment)
        process.kill()
        process.communicate()
        steps.append(checkpoints.latest(out).header["step"])
    process = start(out, epochs)
    output, errors = process.communicate()
    assert output == "finished\n", errors
    assert steps == sorted(steps)
    return steps


def test_sigkill_loses_nothing_but_the_steps_since_the_last_checkpoint(tmp_path):
    kills = int(os.environ.get("REF_BIOPLAUS_KILLS", "3"))
    epochs = 30 if kills <= 3 else 2000
    steps = killed_at_random(tmp_path / "killed", kills, 0, epochs)
    assert len(steps) == kills
    whole = train(of(epochs=epochs, checkpoint_every=0.0), tmp_path / "whole", images=embedded_data())
    after = resume(tmp_path / "killed", images=embedded_data())
    assert_same(whole, after)
    assert not list((tmp_path / "killed").glob("*.tmp"))


@pytest.fixture
def embedded(monkeypatch):
    """The commands train on the embedded images."""
    monkeypatch.setattr(opening, "load_data", lambda experiment, reporter: embedded_data())


def test_the_commands_train_resume_and_evaluate(tmp_path, embedded):
    out = tmp_path / "run"
    done = command("train", "--algorithm", "KP", "--epochs", 2, "--out", out, "--set", "model_options.width=0.03")
    assert "parameters" in done.output
    assert "Done: epoch 2, step 10" in done.output
    command("resume", out, "--epochs", 3, "--backend", "numpy")
    shown = json.loads(command("evaluate", out, "--checkpoint", "best").stdout)
    assert set(shown) >= {"checkpoint", "train_error", "test_error", "test_loss"}
    command("train", "--experiment", out / "experiment.toml", "--out", tmp_path / "again")
    assert len(logs.records(out)) == 4
    assert (tmp_path / "again" / "experiment.toml").read_text() == (out / "experiment.toml").read_text()


def test_the_data_folder_is_the_one_that_the_command_names(tmp_path, embedded, monkeypatch):
    """`--data` of `resume` and `evaluate` goes into the experiment, as that of `train` does."""
    asked = []

    def load(experiment, reporter):
        asked.append(experiment.data)
        return embedded_data()

    monkeypatch.setattr(opening, "load_data", load)
    out = tmp_path / "run"
    small = ("--set", "model_options.width=0.03")
    command("train", "--epochs", 1, "--data", "here", "--out", out, *small)
    command("resume", out, "--epochs", 2, "--data", "moved")
    command("evaluate", out, "--data", "elsewhere")
    assert asked == ["here", "moved", "elsewhere"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--algorithm", "koln-pollack"], "did you mean kolen-pollack"),
        (["--model", "bartunov2018/mnist-cf"], "did you mean bartunov2018/mnist-lc, bartunov2018/mnist-fc"),
        (["--backend", "nunpy"], 'did you mean "numpy"'),
        (["--set", "optimizer.etta=0.1"], "did you mean eta"),
        (["--set", "batch=many"], "batch is 'many', expected a whole number"),
        (["--batch", "0"], "batch is 0, expected at least 1"),
        (["--experiment", "nowhere.toml"], "cannot be read"),
        (["--seed", str(1 << 63)], "expected at most 9223372036854775807"),
        (["--dataset", "embeded"], 'The dataset "embeded" is unknown: did you mean embedded?'),
        (["--dataset", "mnist"], "did you mean ylecun/mnist?"),
        (["--augmentation", "flp-crop"], "did you mean flip-crop"),
        (["--set", "optimizer.name=sgdd"], 'optimizer.name "sgdd" is unknown: did you mean sgd'),
        (
            ["--set", "optimizer.momentum=-3"],
            "is -3, expected a number of at least 0 and below 1",
        ),
        (
            ["--set", "optimizer={name='adam', eta=0.1, b1=2.0}"],
            "is 2.0, expected a number of at least 0 and below 1",
        ),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(arguments, sentence, tmp_path, embedded):
    result = command("train", *arguments, "--out", tmp_path / "out", code=2)
    assert sentence in result.stderr.replace("\n", " ")


def test_a_library_that_trains_is_imported_late():
    look = "sorted({'torch', 'jax', 'safetensors', 'tomli_w'} & set(sys.modules))"
    code = f"import sys, ref_bioplaus.__main__; print({look})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_data_that_gives_fewer_batches_than_it_says_is_refused_where_it_ends(tmp_path):
    data = embedded_data(train=50, test=10)

    class Short:
        def __getattr__(self, name):
            return getattr(data, name)

        def batches(self, split, *rest, **options):
            found = list(data.batches(split, *rest, **options))
            return iter(found[:-1] if split == "train" else found)

    with pytest.raises(ExperimentError, match="has 5 batches of 10, but give 4 in epoch 0: mend the data's"):
        train(of(**PLAIN | {"batch": 10, "epochs": 2}), tmp_path / "short", images=Short())
