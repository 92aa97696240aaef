"""Images that cannot be read: left out, counted, bounded, and without any effect on all others."""

import json

import numpy as np
import pytest

from ref_bioplaus import backends
from ref_bioplaus.experiments.data import left_out, loading
from ref_bioplaus.experiments.data.loading import DataError
from ref_bioplaus.experiments.figures.comparison import notes
from ref_bioplaus.experiments.figures.series import read
from ref_bioplaus.experiments.runs import checkpoints, logs
from ref_bioplaus.experiments.spec.experiment import Experiment
from ref_bioplaus.experiments.training.reporter import Reporter
from ref_bioplaus.experiments.training.starting import evaluate, resume, train
from ref_bioplaus.tree import named_leaves
from tests.helpers.commands import command
from tests.helpers.images import encoded, labels_for, random_images, write

pytestmark = pytest.mark.usefixtures("own_cache")
BAD = (3, 8)  # of the training images, one of them the first that is looked at in a batch of its own
WAYS = [{"stream": False}, {"stream": True, "workers": 0}, {"stream": True, "workers": 1}]
TIMES = ("images_per_second", "waiting_for_data", "seconds", "memory")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """23 training images of 10 x 7, two of which are damaged and empty; 5 test images, one of them damaged."""
    train, test = ([encoded(image) for image in random_images(n, seed=n)] for n in (23, 5))
    train[3], train[8], test[1] = train[3][:60], b"", b"nothing"
    cells = {"train": (train, labels_for(23)), "test": (test, labels_for(5))}
    return write(tmp_path_factory.mktemp("images"), **cells)


@pytest.fixture
def streaming(monkeypatch):
    """Images stream without processes, and few are looked at before the run, none of them damaged."""
    monkeypatch.setattr(loading, "IN_MEMORY", 0)
    monkeypatch.setattr(loading, "PROBED", 2)
    monkeypatch.setattr(loading, "cores", lambda: 0)


def batches(data, *, batch=4, start=0, epoch=0, split="train", flatten=False):
    backend = backends.get("numpy")
    found = data.batches(split, backend, batch, 5, epoch, start=start, flatten=flatten)
    return [(np.asarray(b.x), np.asarray(b.y)) for b in found]


@pytest.mark.parametrize("options", WAYS, ids=("held", "threads", "processes"))
@pytest.mark.parametrize("augmentation", ["none", "flip-crop"])
def test_the_others_stay_where_they_are(folder, options, augmentation):
    """Against a folder whose bad images are readable: batch by batch the same, but for those."""
    data = loading.load("x", folder, normalise=False, skip_unreadable=3, augmentation=augmentation, **options)
    data.train.labels[:] = np.arange(23) % 3
    whole = loading.load("x", write_whole(folder), normalise=False, augmentation=augmentation)
    for epoch in (0, 1):
        order = data.order("train", 5, epoch)
        mine, theirs = (batches(one, epoch=epoch) for one in (data, whole))
        for number, ((x, y), (all_x, all_y)) in enumerate(zip(mine, theirs, strict=True)):
            kept = ~np.isin(order[4 * number : 4 * number + 4], BAD)
            assert np.array_equal(x, all_x[kept]) and np.array_equal(y, all_y[kept])
        assert sum(len(x) for x, _ in mine) == 21 and len(mine) == 6
    again = batches(data, epoch=1, start=2)
    assert all(np.array_equal(a, b) for a, b in zip(again[0], mine[2], strict=True))
    assert sorted(data.left_out.rows["train"]) == list(BAD)
    batches(data, split="test")
    assert left_out.counts(data, data.splits) == {
        "train_skipped": 2, "test_skipped": 1, "skipped": ["test 1", "train 3", "train 8"],
    }  # fmt: skip
    data.close()


def write_whole(folder):
    """The same images, all of them readable."""
    train, test = ([encoded(image) for image in random_images(n, seed=n)] for n in (23, 5))
    place = folder.parent / f"{folder.name}-whole"
    return place if place.exists() else write(place, train=(train, labels_for(23)), test=(test, labels_for(5)))


@pytest.mark.parametrize("options", WAYS[:2], ids=("held", "streamed"))
@pytest.mark.parametrize("flatten", [False, True])
def test_a_batch_of_which_nothing_is_left(folder, options, flatten):
    data = loading.load("x", folder, normalise=False, skip_unreadable=3, **options)
    found = batches(data, batch=1, flatten=flatten)
    empty = [i for i, (x, _) in enumerate(found) if not len(x)]
    assert [int(data.order("train", 5, 0)[i]) for i in empty] in ([3, 8], [8, 3]) and len(found) == 23
    x, y = found[empty[0]]
    assert (x.shape, y.shape) == ((0, 210) if flatten else (0, 10, 7, 3), (0, 3))
    assert x.dtype == found[empty[0] - 1][0].dtype


@pytest.mark.parametrize("options", WAYS[:2], ids=("held", "streamed"))
def test_more_than_allowed_end_in_a_sentence(folder, options, monkeypatch):
    monkeypatch.setattr(loading, "PROBED", 2)

    def use(most):
        data = loading.load("x", folder, normalise=False, skip_unreadable=most, **options)
        try:
            return len(batches(data) + batches(data, split="test"))
        finally:
            data.close()

    last = r"The last one: The image \(\d\.img\) in row \d of split \"\w+\", row \d of .*parquet (is damaged|has no)"
    for most in (1, 2):
        with pytest.raises(DataError, match=f"^{most + 1} images .*skip_unreadable leaves out {most} at most. {last}"):
            use(most)
    with pytest.raises(DataError, match=r"^The image \(\d.img\) in row \d"):  # the first one
        use(0)
    assert use(3) == 8


def test_mean_and_deviation_are_those_of_what_can_be_read(folder):
    data = loading.load("x", folder, stream=False, skip_unreadable=3)
    values = np.delete(random_images(23, seed=23), BAD, axis=0).reshape(-1, 3) / 255
    assert np.allclose(data.mean, values.mean(axis=0), rtol=1e-12)
    assert np.allclose(data.deviation, values.std(axis=0), rtol=1e-12)
    streamed = loading.load("x", folder, stream=True, workers=0, skip_unreadable=3)
    assert np.allclose(streamed.mean, data.mean, rtol=1e-12)


def test_a_path_that_leads_out_of_the_folder_is_never_left_out(folder, monkeypatch):
    from ref_bioplaus.experiments.data import hub
    from ref_bioplaus.machine import files

    def elsewhere(cell, roots):
        raise files.NotOrdinary(22, "x is not in the folder", "x")

    monkeypatch.setattr(hub.inside, "stream", elsewhere)
    with pytest.raises(DataError, match="only ordinary files inside the folder are"):
        loading.load("x", folder, skip_unreadable=50)


def test_none_that_can_be_read(tmp_path):
    place = write(tmp_path, train=([b"no"] * 4, labels_for(4)))
    with pytest.raises(DataError, match="None of the images of .* that were looked at can be read"):
        loading.load("x", place, skip_unreadable=9)


# A run


def of(folder, **fields):
    common = {"algorithm": "feedback-alignment", "model": "akrout2019/mlp", "model_options": {"hidden": 4}}
    fixed = {"data": str(folder), "batch": 1, "epochs": 2, "held_out": 4, "checkpoint_every": 0.0, "normalise": False}
    return Experiment(**common | fixed | {"optimizer": {"name": "sgd", "eta": 0.01}} | fields)


class Notes(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, sentence):
        self.notes.append(sentence)


def lasting(records):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


def test_a_run_that_an_image_ended_goes_on_as_if_it_had_been_left_out_from_the_start(folder, tmp_path, streaming):
    whole = train(of(folder, skip_unreadable=3), tmp_path / "whole")
    with pytest.raises(DataError, match="leave such images out by skip_unreadable|has no image"):
        train(of(folder, test=False), tmp_path / "run")
    with pytest.raises(DataError, match="^2 images cannot be read"):
        resume(tmp_path / "run", skip_unreadable=1, test=True)
    told = Notes()
    run = resume(tmp_path / "run", skip_unreadable=3, reporter=told)
    for (name, a), (_, b) in zip(named_leaves(whole.state), named_leaves(run.state), strict=True):
        assert np.array_equal(a, b), name
    last = lasting(run.records)[-1]
    assert last == lasting(whole.records)[-1]
    assert (last["train_skipped"] + last["validation_skipped"], last["test_skipped"]) == (2, 1)
    assert last["skipped"] == ["test 1", "train 3", "train 8"]
    assert told.notes[-2] == (
        f"The run in {run.out}: 3 images that cannot be read were left out (test 1, train 3, train 8)."
    )
    assert sum(note.startswith("Left out, one of 3 at most: The image (") for note in told.notes) >= 1
    header = checkpoints.latest(run.out).header
    assert header["left_out"] == {"test": [1], "train": [3, 8]}
    assert any("3 images that cannot be read were left out" in line for line in notes([read(run.out)]))
    measured = evaluate(run.out)
    assert measured["test_skipped"] == 1 and measured["test_error"] == last["test_error"]


@pytest.mark.parametrize("at", [1, 6])
def test_a_resumed_run_meets_the_same_batches_and_counts(folder, tmp_path, streaming, at):
    whole = train(of(folder, skip_unreadable=3, batch=3), tmp_path / "whole")
    train(of(folder, skip_unreadable=3, batch=3, steps=at), tmp_path / "run")
    run = resume(tmp_path / "run", epochs=2)
    for (name, a), (_, b) in zip(named_leaves(whole.state), named_leaves(run.state), strict=True):
        assert np.array_equal(a, b), name
    assert lasting(whole.records)[-1] == lasting(run.records)[-1]


def test_held_and_streamed_runs_learn_the_same(folder, tmp_path, monkeypatch):
    held = train(of(folder, skip_unreadable=3), tmp_path / "held")
    monkeypatch.setattr(loading, "IN_MEMORY", 0)
    monkeypatch.setattr(loading, "cores", lambda: 0)
    streamed = train(of(folder, skip_unreadable=3), tmp_path / "streamed")
    assert lasting(held.records)[1:] == lasting(streamed.records)[1:]


def test_nothing_is_said_where_nothing_may_be_left_out(tmp_path):
    run = train(of(None, dataset="embedded", data=None, batch=2500, epochs=1), tmp_path)
    assert not [name for name in run.records[-1] if "skipped" in name]


def test_the_command(folder, tmp_path):
    out = str(tmp_path / "run")
    common = ["--model", "akrout2019/mlp", "--algorithm", "fa", "--data", str(folder), "--batch", "4", "--epochs", "1"]
    done = command("train", *common, "--out", out, "--set", "model_options.hidden=4", code=2)
    assert "skip_unreadable" in done.output
    done = command("train", *common, "--out", out, "--skip-unreadable", "3", "--set", "model_options.hidden=4")
    assert "2 train images left out, 1 test images left out" in done.output
    assert logs.records(tmp_path / "run")[-1]["test_skipped"] == 1
    done = command("evaluate", out, "--skip-unreadable", "5")
    assert json.loads(done.output)["train_skipped"] == 2
    done = command("train", *common, "--out", tmp_path / "x", "--skip-unreadable", "-1", code=2)
    assert "skip_unreadable is -1" in done.output
