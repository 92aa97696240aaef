"""A run whose loss is not finite any more goes on from before, with a smaller rate, and everything says so."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ref_bioplaus.experiments.figures import comparison, curves, series
from ref_bioplaus.experiments.many import jobs, search
from ref_bioplaus.experiments.many import table as reproduce
from ref_bioplaus.experiments.runs import checkpoints, headers, logs, segments, sound
from ref_bioplaus.experiments.runs.checkpoints import name_at
from ref_bioplaus.experiments.spec.experiment import ExperimentError, read
from ref_bioplaus.experiments.training import opening
from ref_bioplaus.experiments.training.starting import NotFinite, resume, train
from ref_bioplaus.machine import files
from tests.helpers.commands import command
from tests.helpers.embedded_data import embedded_data
from tests.helpers.runs import PLAIN, Stopping, assert_same, of

SGD = {"name": "sgd", "eta": 0.05, "momentum": 0.9}
TURN = 10  # updates, after which the rate is huge; an epoch has 5
DOOMED = {"kind": "piecewise", "values": [0.02, 3e37], "updates": [TURN]}


def rows(*losses):
    return [{"step": 5 * i, "train_loss": loss} for i, loss in enumerate([None, *losses])]


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ((), 0),
        ((2.0,), 0),
        ((2.0, 1.0), 5),
        ((2.0, 2.0), 5),
        ((2.0, 1.0, 9.0), 5),
        ((2.0, 1.0, 9.0, 8.0), 5),  # it falls, and is still far above
        ((2.0, 1.0, 9.0, 8.0, 1.5), 20),
        ((2.0, None, 1.0), 10),  # inverses alone learned in between
        ((2.0, 1.0, None, None), 5),
        ((3.0, 0.5, 0.4, 0.41, 0.39, 0.405), 25),  # noise on a plateau
    ],
)
def test_a_state_is_proven_by_an_interval_whose_loss_did_not_rise(losses, step):
    assert sound.proven(rows(*losses)) == step


def test_the_newest_up_to_a_step():
    assert [sound.newest([0, 7, 5], until) for until in (-1, 0, 6, 7, 9)] == [None, 0, 5, 7, 7]


def test_an_older_run_without_segments_has_no_changes():
    older = {"step": 0}  # nor has a segment that does not say its experiment
    assert segments.changes([]) == segments.changes([older]) == segments.changes([older, {"step": 5}]) == []


def doomed(out, **fields):
    """A run that ends in a loss that is not finite, and what it says."""
    experiment = of(**PLAIN, optimizer=SGD | {"eta": DOOMED}, checkpoint_every=0.0, epochs=6, **fields)
    with pytest.raises(NotFinite) as error, np.errstate(all="ignore"):
        train(experiment, out, images=embedded_data())
    return str(error.value)


def test_a_run_that_diverges_goes_on_from_before_with_a_smaller_rate(tmp_path, monkeypatch):
    sentence = doomed(tmp_path)
    steps = [checkpoints.step_of(path) for path in checkpoints.found(tmp_path)]
    assert min(steps[:2]) > TURN and steps[2:] == [10, 5]  # the newest two are lost
    assert len(list(tmp_path.glob("*.safetensors"))) == checkpoints.FILES
    assert f"--checkpoint {name_at(5)} --set optimizer.eta=..." in sentence
    assert f"the last finite state is the checkpoint {tmp_path / name_at(steps[0])}" in sentence
    for newest in steps[:2]:
        with pytest.raises(NotFinite), np.errstate(all="ignore"):
            resume(tmp_path, name_at(newest), images=embedded_data())
    monkeypatch.setattr(opening, "load_data", lambda experiment, reporter: embedded_data())
    words = ("resume", tmp_path, "--checkpoint", name_at(5), "--set", "optimizer.eta=0.01")
    command(*words, "--set", "evaluate_every=2")
    first, *_, second = logs.segments(tmp_path)
    assert first["experiment"]["optimizer"]["eta"] == DOOMED and second["experiment"]["optimizer"]["eta"] == 0.01
    assert (second["step"], second["given"]["set"]) == (5, ["optimizer.eta=0.01", "evaluate_every=2"])
    records = logs.records(tmp_path)
    assert [r["step"] for r in records] == [0, 5, 10, 20, 30] and all(np.isfinite(r["test_loss"]) for r in records)
    header = headers.latest(tmp_path).header
    (change,) = header["changes"]
    assert change == {"step": 5, "field": "optimizer.eta", "before": DOOMED, "now": 0.01}
    assert header["experiment"]["optimizer"]["eta"] == read(tmp_path / logs.EXPERIMENT).optimizer["eta"] == 0.01
    best = checkpoints.latest(tmp_path, "best").header  # not one of what was left behind
    assert best["experiment"]["optimizer"]["eta"] == 0.01 and best["step"] == header["progress"]["best_step"]


def test_from_the_start_with_the_smaller_rate_is_the_run_that_always_had_it(tmp_path):
    experiment = of(**PLAIN, optimizer=SGD | {"eta": 3e38}, checkpoint_every=0.0, epochs=2)
    with pytest.raises(NotFinite, match="it has learned nothing yet.* --set optimizer.eta=3e.37"):
        train(experiment, tmp_path / "run", images=embedded_data())
    run = resume(tmp_path / "run", name_at(0), settings=["optimizer.eta=0.05"], images=embedded_data())
    whole = train(replace(experiment, optimizer=SGD), tmp_path / "whole", images=embedded_data())
    assert_same(whole, run)
    assert segments.changes(run.segments) == []  # the first segment taught nothing
    assert series.known_by(series.read(run.out)) == series.known_by(series.read(whole.out))


def test_a_changed_rate_is_kept_and_is_what_a_schedule_would_have_done(tmp_path):
    """Twice resumed, once in the midst of an epoch, and bit for bit a run whose schedule changes at that update."""
    experiment = of(**PLAIN, optimizer=SGD, epochs=1)
    train(experiment, tmp_path / "run", images=embedded_data())
    stopped = resume(
        tmp_path / "run", settings=["optimizer.eta=0.01"], epochs=3, images=Stopping(embedded_data(), 3)
    )  # fmt: skip
    assert stopped.stopped_by and 5 < stopped.step < 10
    run = resume(tmp_path / "run", images=embedded_data())
    eta = {"kind": "piecewise", "values": [0.05, 0.01], "updates": [5]}
    whole = train(
        replace(experiment, optimizer=SGD | {"eta": eta}, epochs=3), tmp_path / "whole", images=embedded_data()
    )
    assert_same(whole, run)
    assert [s["experiment"]["optimizer"]["eta"] for s in run.segments] == [0.05, 0.01, 0.01]
    assert [(c["step"], c["before"], c["now"]) for c in segments.changes(run.segments)] == [(5, 0.05, 0.01)]


FORBIDDEN = {
    "model=akrout2019/mlp": "has model = 'bartunov2018/mnist-fc', not 'akrout2019/mlp'",
    "seed=3": "has seed = 0, not 3",
    "batch=50": "has batch = 100, not 50",
    "optimizer.name=rmsprop": "has optimizer = ",
    "modifications.batch-manhattan={}": "has modifications = ",
    "inputs.shape=[14, 56, 1]": "has inputs.shape = ",
    "steps=2": "has taken 5 steps, so it cannot end after 2",
    "optimizer.momentum=0.0": "does not fit its experiment",
    "eta=0.01": 'The field "eta" is unknown',
}


def test_what_would_make_another_network_or_another_run_is_refused_in_a_sentence(tmp_path):
    train(of(**PLAIN, optimizer=SGD, epochs=1), tmp_path, images=embedded_data())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for setting, said in FORBIDDEN.items():
        with pytest.raises((ExperimentError, checkpoints.CheckpointError), match=said):
            resume(tmp_path, settings=[setting], images=embedded_data())
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("back", "best", "eta"), [(10, 10, 0.05), (14, 15, 5.0)])
def test_the_best_is_never_one_of_what_was_left_behind(back, best, eta, tmp_path):
    """Its own where it was the best itself; the best since then, where the file of the one before is gone."""
    train(of(**PLAIN, optimizer=SGD, checkpoint_every=0.0), tmp_path, images=embedded_data())
    assert checkpoints.latest(tmp_path, "best").header["step"] == 15
    stored = checkpoints.load(tmp_path / name_at(back))
    stored.header["progress"]["best"] = 0.0  # which nothing later is below
    files.write_whole(stored.path, checkpoints.encoded(stored.header, stored.tensors))
    resume(tmp_path, name_at(back), settings=["optimizer.eta=5.0"], images=embedded_data())
    header = checkpoints.latest(tmp_path, "best").header
    assert (header["step"], header["experiment"]["optimizer"]["eta"]) == (best, eta)
    assert checkpoints.latest(tmp_path).header["progress"]["best_step"] == best


def test_images_are_not_normalised_otherwise_from_here_on(tmp_path):
    train(of(**PLAIN, dataset="embedded", steps=1), tmp_path)
    with pytest.raises(ExperimentError, match="has inputs.mean = "):
        resume(tmp_path, steps=2, settings=["inputs.mean=[0.5]", "inputs.deviation=[0.2]"])


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Runs that differ in their seed, the second of which went on with another rate for its last epoch."""
    folder = tmp_path_factory.mktemp("changed")
    for seed in (0, 1):
        train(of(**PLAIN, optimizer=SGD, epochs=1, seed=seed), folder / str(seed), images=embedded_data())
    settings = {0: [], 1: ["optimizer.eta=0.01"]}
    for seed, chosen in settings.items():
        resume(folder / str(seed), settings=chosen, epochs=2, images=embedded_data())
    if settings[1]:  # and back, so that the experiments are the same
        resume(folder / "1", settings=["optimizer.eta=0.05"], epochs=3, images=embedded_data())
        resume(folder / "0", epochs=3, images=embedded_data())
    return [folder / "0", folder / "1"]


WORDS = (
    "optimizer.eta is 0.01 from step 5 on, 0.05 before, optimizer.eta is 0.05 from step 10 on, 0.01 before"
)  # fmt: skip


def test_pages_say_from_which_step_on_which_value_held_and_never_average_over_it(changed):
    runs = [series.read(out) for out in changed]
    assert runs[0].experiment == replace(runs[1].experiment, seed=0)
    assert len(series.grouped(runs)) == 2 and len(comparison.table(runs)[1]) == 2
    assert any(WORDS in note for note in comparison.notes(runs))
    assert f"{changed[1]}: {WORDS}." in curves.draw("learning", runs).caption
    assert WORDS in comparison.as_page(runs)


def test_a_tables_cell_and_a_searchs_trial_say_it_too(changed, tmp_path):
    table, column, row = "bartunov2018/table1", "mnist-fc", "backprop"
    for seed, out in enumerate(changed):
        place = reproduce.folder(tmp_path, table, column, row, seed)
        place.mkdir(parents=True)
        for name in (logs.EXPERIMENT, logs.LOG):
            (place / name).write_bytes((out / name).read_bytes())
    report = reproduce.reported(table, column, tmp_path, [row])
    assert [line.seeds for line in report.lines] == [(0,), (1,)]
    assert f"backprop seed 1: {WORDS}" in report.notes
    ranges = tmp_path / "ranges.toml"
    ranges.write_text('[[range]]\n[range.of]\n"optimizer.eta" = {kind = "choice", values = [0.05]}\n')
    base = of(**PLAIN, dataset="embedded", optimizer=SGD, epochs=1)
    trial = search.Search(base, search.read_ranges(str(ranges)), tmp_path / "search", 1, held_out=100)
    job = trial.job(0)
    train(job.experiment, job.out, images=None)
    (line,) = trial.collected()
    assert line["score"] is not None
    resume(job.out, epochs=2, settings=["optimizer.eta=0.01"])
    assert jobs.is_finished(job)
    (line,) = trial.collected()
    assert line["score"] is None and "optimizer.eta is 0.01 from step" in line["changed"]
    assert json.loads((tmp_path / "search" / search.RESULTS).read_text())["changed"] == line["changed"]
