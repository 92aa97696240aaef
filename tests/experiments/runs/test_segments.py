"""What a run says of itself: which images, with what, by which call; and that nothing of it is lost without a word."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ref_bioplaus import predict
from ref_bioplaus.experiments.data import hashing, loading
from ref_bioplaus.experiments.figures import comparison, curves, series
from ref_bioplaus.experiments.runs import checkpoints, logs, segments
from ref_bioplaus.experiments.spec.building import build, first_state
from ref_bioplaus.experiments.spec.experiment import OWN, Experiment, ExperimentError, as_dict, as_toml, from_dict, read
from ref_bioplaus.experiments.training import opening
from ref_bioplaus.experiments.training.starting import evaluate, resume, train
from ref_bioplaus.machine import files
from tests.conftest import get
from tests.helpers.commands import command
from tests.helpers.embedded_data import embedded_data
from tests.helpers.images import encoded, random_images, write
from tests.helpers.runs import PLAIN, Stopping, of, untimed

pytestmark = pytest.mark.usefixtures("own_cache")
SIDES = (5, 3)  # of images, not square
TINY = {"model": "akrout2019/mlp", "model_options": {"hidden": 4}, "batch": 7, "epochs": 1, "metrics": ()}


def own_folder(folder, names=("u", "v"), shape=SIDES, darker=1, seed=0):
    """A folder of colour images in two classes; darker: by how much."""

    def split(n, seed):
        return [encoded(pixels // darker) for pixels in random_images(n, shape, seed=seed)], [i % 2 for i in range(n)]

    return write(folder, names=list(names), train=split(20, seed), test=split(9, seed + 1))


def lines(out):
    return [json.loads(line) for line in (out / logs.LOG).read_text().splitlines()]


# The images: what they are called, and what they were normalised by


def test_images_of_another_known_dataset_are_not_those_that_are_named():
    data = loading.load("embedded")
    for name, own in (("embedded", True), ("ylecun/mnist", False)):
        assert segments.images(Experiment(dataset=name), data)["as_named"] is own


def test_images_of_ones_own_are_never_called_by_a_datasets_name(tmp_path):
    folder, out = own_folder(tmp_path / "mine"), tmp_path / "run"
    train(Experiment(**TINY, data=str(folder)), out)
    assert "ylecun" not in (out / logs.EXPERIMENT).read_text() + (out / logs.LOG).read_text()
    assert read(out / logs.EXPERIMENT).dataset == OWN
    (segment,) = logs.segments(out)
    assert (segment["data"]["dataset"], segment["data"]["as_named"]) == (OWN, None)
    assert segment["given"]["data"] == segment["experiment"]["data"] == "mine" and "dataset" not in segment["given"]
    assert str(tmp_path) not in (out / logs.LOG).read_text()  # where it lies is nobody's business
    given = train(Experiment(**TINY), tmp_path / "arrays", images=embedded_data())
    assert given.experiment.dataset == given.segments[0]["data"]["dataset"] == OWN
    with pytest.raises(ExperimentError, match=r"images of your own, which were given as arrays: give them again"):
        resume(tmp_path / "arrays", epochs=2)
    named = train(Experiment(**TINY, dataset="uoft-cs/cifar10", data=str(folder)), tmp_path / "named")
    assert named.segments[0]["data"]["as_named"] is False
    assert "whose class names or brightness they do not have" in segments.text(named.segments[0])


def test_the_inputs_stand_in_experiment_and_checkpoint_and_are_enough_to_predict(tmp_path):
    """Normalised by hand, from the checkpoint alone."""
    folder, out = own_folder(tmp_path / "mine"), tmp_path / "run"
    run = train(Experiment(**TINY, data=str(folder)), out)
    checkpoint = checkpoints.latest(out)
    inputs = checkpoint.header["experiment"]["inputs"]
    assert inputs == read(out / logs.EXPERIMENT).inputs
    assert (inputs["shape"], inputs["classes"]) == ([*SIDES, 3], ["u", "v"])
    pixels = random_images(20, SIDES, seed=0).reshape(-1, 3) / 255
    np.testing.assert_allclose(inputs["mean"], pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(inputs["deviation"], pixels.std(0), rtol=1e-12)
    x = (random_images(9, SIDES, seed=1) / 255 - inputs["mean"]) / inputs["deviation"]
    backend = get("numpy", "float32")
    experiment = from_dict(checkpoint.header["experiment"])
    shape = opening.Shape(tuple(inputs["shape"]), len(inputs["classes"]), 3)
    built = build(experiment, backend, shape)
    state = checkpoints.state_of(backend, checkpoint, first_state(experiment, built, backend))
    output = predict(built.network, built.loss, state, x.reshape(9, -1).astype(np.float32))
    labels = np.arange(9) % 2
    assert 100 * np.mean(output.argmax(1) != labels) == pytest.approx(run.records[-1]["test_error"])
    assert -np.log(output[np.arange(9), labels]).mean() == pytest.approx(run.records[-1]["test_loss"], rel=1e-5)
    plain = train(Experiment(**TINY, data=str(folder), normalise=False), tmp_path / "plain").experiment.inputs
    assert (plain["mean"], plain["deviation"]) == ([0.0] * 3, [1.0] * 3)
    assert set(train(Experiment(**TINY), tmp_path / "a", images=embedded_data()).experiment.inputs) == {
        "shape",
        "classes",
    }


def test_other_images_are_normalised_by_what_was_learned_with(tmp_path, monkeypatch):
    """Darker ones have another mean, which is not theirs to choose."""
    first, dark, out = own_folder(tmp_path / "a"), own_folder(tmp_path / "b", darker=5), tmp_path / "run"
    train(Experiment(**TINY, data=str(first)), out)
    inputs = checkpoints.latest(out).header["experiment"]["inputs"]
    used, load = [], opening.load_data

    def loaded(experiment, reporter):
        used.append(load(experiment, reporter))
        return used[-1]

    monkeypatch.setattr(opening, "load_data", loaded)
    evaluate(out, data=str(dark))
    resume(out, data=str(dark), epochs=2)
    for data in used:
        assert (list(data.mean), list(data.deviation)) == (inputs["mean"], inputs["deviation"])
    assert checkpoints.latest(out).header["experiment"]["inputs"] == inputs
    assert len({s["data"]["sha256"] for s in logs.segments(out)}) == 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"names": ("u", "w")}, r"inputs.classes = \['u', 'v'\], but the images here have \['u', 'w'\]"),
        ({"shape": (3, 5)}, r"inputs.shape = \[5, 3, 3\], but the images here have \[3, 5, 3\]"),
    ],
)
def test_images_of_other_shape_or_classes_are_refused_and_the_difference_is_shown(other, said, tmp_path):
    out = tmp_path / "run"
    train(Experiment(**TINY, data=str(own_folder(tmp_path / "a"))), out)
    folder = str(own_folder(tmp_path / "b", **other))
    for again in (lambda: evaluate(out, data=folder), lambda: resume(out, data=folder, epochs=2)):
        with pytest.raises(ExperimentError, match=said):
            again()


def test_data_that_are_normalised_otherwise_are_refused(tmp_path):
    data = embedded_data()
    data.mean, data.deviation = np.array([0.25]), np.array([0.5])
    run = train(of(**PLAIN, epochs=1), tmp_path, images=data)
    assert run.experiment.inputs["mean"] == [0.25]
    data.mean = np.array([0.5])
    with pytest.raises(ExperimentError, match=r"inputs.mean = \[0.25\], but the images here have \[0.5\]"):
        resume(tmp_path, images=data, epochs=2)
    numbered = embedded_data()
    numbered.classes = tuple(f"class {i}" for i in range(10))  # those of the run have numbers only
    evaluate(tmp_path, images=numbered)


def test_whatever_classes_are_called_can_be_written_and_gone_on_with(tmp_path):
    data = embedded_data()
    data.classes = ('"', "\n\r", "\x00\x7f", "\ud800", "η", "", "[inputs]", "\\", "a" * 5000, "'" * 3 + "\u2028")
    train(of(**PLAIN, epochs=1), tmp_path, images=data)
    assert read(tmp_path / logs.EXPERIMENT).inputs["classes"][:4] == ['"', "\n\r", "\x00\x7f", "\\ud800"]
    assert resume(tmp_path, epochs=2, images=data).step == 10


def test_given_inputs_are_used_and_must_agree_with_normalise(tmp_path):
    folder = str(own_folder(tmp_path / "a"))
    given = {"mean": [0.5, 0.25, 0.125], "deviation": [0.5, 0.5, 1.0]}
    run = train(Experiment(**TINY, data=folder, inputs=given), tmp_path / "given")
    assert {name: run.experiment.inputs[name] for name in given} == given
    for inputs, normalise, said in (
        ({"mean": [0.5]}, True, "a mean without a deviation"),
        ({"mean": [0.5] * 3, "deviation": [0.0] * 3}, True, "deviation of inputs .* a finite number above 0"),
        ({"mean": [0.5], "deviation": [0.5]}, True, "has 1 channels, but the images have 3"),
        ({"men": [0.5]}, True, 'option of inputs "men" is unknown: did you mean mean'),
        (given, False, "normalise is false, but inputs.mean is"),
        ({"mean": [0.0] * 3, "deviation": [1.0] * 3}, True, r"inputs.mean = \[0.0, 0.0, 0.0\], but the images here"),
    ):
        with pytest.raises(ExperimentError, match=said):
            train(Experiment(**TINY, data=folder, inputs=inputs, normalise=normalise), tmp_path / "refused")


# Segments


def test_a_run_taken_elsewhere_says_which_records_came_from_where(tmp_path):
    get("torch", "float32")
    train(of(**PLAIN, epochs=1), tmp_path, images=embedded_data())
    run = resume(tmp_path, epochs=2, backend="torch", kernels="portable", images=embedded_data())
    kinds = [line["segment"]["backend"] if "segment" in line else line["epoch"] for line in lines(tmp_path)]
    assert kinds == ["numpy", 0, 1, "torch", 2]
    assert logs.segments(tmp_path) == run.segments and logs.records(tmp_path) == run.records
    first, second = run.segments
    assert (first["number"], first["step"], second["number"], second["step"], second["epoch"]) == (1, 0, 2, 5, 1)
    assert second["given"] == {"epochs": 2, "backend": "torch", "kernels": "portable"}
    assert (second["kernels"], first["device"], second["device"]) == ("portable", "cpu", "cpu")
    assert {"ref_bioplaus", "python", "numpy", "torch"} == set(second["versions"])
    assert second["processor"] and second["data"]["sha256"] == first["data"]["sha256"]
    assert second["experiment"]["epochs"] == 2 and "classes" not in second["experiment"]["inputs"]
    assert first["best_by"] == "train_error"
    told = segments.history(run.experiment, run.segments)
    assert told.startswith("numpy on cpu") and "; from epoch 1 on: torch on cpu, portable kernels" in told
    assert any(told in note for note in comparison.notes([series.read(tmp_path)]))
    resume(tmp_path, images=embedded_data())  # with nothing left to do
    assert logs.segments(tmp_path) == run.segments


def test_a_kill_behind_the_line_of_a_segment_leaves_none(tmp_path, monkeypatch):
    experiment = of(**PLAIN, epochs=2)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    out = tmp_path / "run"
    train(replace(experiment, epochs=1), out, images=embedded_data())
    begin = logs.Log.begin

    def killed(log, segment):
        begin(log, segment)
        raise KeyboardInterrupt

    monkeypatch.setattr(logs.Log, "begin", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            resume(out, epochs=2, images=embedded_data())
        assert len(logs.segments(out)) == 2
    monkeypatch.undo()
    run = resume(out, images=embedded_data())
    assert [s["step"] for s in logs.segments(out)] == [0, 5]
    assert untimed(logs.records(out)) == untimed(run.records) == untimed(whole.records)


def test_what_computed_an_older_run_is_said_not_to_be_known():
    told = segments.history(Experiment(backend="jax"), [])
    assert told == "jax, native kernels, float32 (ieee) as asked for; no record of its device, versions and images"


@pytest.mark.parametrize("wrong", ["3", "null", '{"segment": 3}', '{"segment": {"step": 0}}', '{"step": "0"}', "{}"])
def test_a_line_that_is_neither_record_nor_segment_is_damage(wrong, tmp_path):
    train(of(**PLAIN, epochs=1), tmp_path, images=embedded_data())
    assert not [logs.check_line(line) for line in lines(tmp_path)][3:]
    with (tmp_path / logs.LOG).open("a") as log:
        log.write(f"{wrong}\n")
    assert "log.jsonl is damaged in line 4 (" in series.read(tmp_path).damage  # the last one
    with (tmp_path / logs.LOG).open("a") as log:
        log.write(json.dumps(lines(tmp_path)[2]) + "\n")
    with pytest.raises(ExperimentError, match=r"log.jsonl is damaged in line 4 \(.*\): mend that line, or delete it"):
        series.read(tmp_path)


# An edited experiment


def test_an_edited_experiment_is_shown_refused_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "load_data", lambda experiment, reporter: embedded_data())
    out = tmp_path / "run"
    train(of(**PLAIN, epochs=1), out, images=embedded_data())
    path, written = out / logs.EXPERIMENT, (out / logs.EXPERIMENT).read_text()
    edited = written.replace("epochs = 1", "epochs = 20").replace("seed = 0", "seed = 3")
    path.write_text(edited)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for words in (("resume", out), ("resume", out, "--epochs", 2), ("evaluate", out)):
        refused = command(*words, code=2)
        said = refused.stderr.replace("\n", " ")
        assert "epochs = 20 where the run has 1, seed = 3 where the run has 0: take the edit back, or delete" in said
        assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    with pytest.raises(ExperimentError, match="was edited"):
        train(of(**PLAIN, epochs=1), out, images=embedded_data(), resume=True)
    path.write_text(written.replace("epochs = 1", "epochs = 2"))  # named as an option, too
    command("resume", out, "--epochs", 2)
    path.unlink()
    command("resume", out, "--epochs", 3)
    assert read(path).epochs == 3


def test_the_order_of_modifications_is_an_edit_too(tmp_path):
    tables = {"constant-norm": {}, "batch-manhattan": {}}
    experiment = of(**PLAIN, modifications=tables, optimizer={"name": "sgd", "eta": 1e-3}, epochs=1)
    run = train(experiment, tmp_path, images=embedded_data())
    turned = replace(run.experiment, modifications=dict(reversed(tables.items())))
    (tmp_path / logs.EXPERIMENT).write_text(as_toml(turned))
    with pytest.raises(ExperimentError, match="modifications have another order"):
        resume(tmp_path, epochs=2, images=embedded_data())


def test_a_kill_between_checkpoint_and_experiment_is_no_edit(tmp_path, monkeypatch):
    """The checkpoint says two epochs by then, the file still one, and no other checkpoint is there to say so."""
    train(of(**PLAIN, epochs=1), tmp_path, images=embedded_data())
    for path in (tmp_path / checkpoints.name_at(0), tmp_path / checkpoints.BEST):
        path.unlink()
    write_whole = files.write_whole

    def killed(path, content):
        if path.name == logs.EXPERIMENT:
            raise KeyboardInterrupt
        write_whole(path, content)

    monkeypatch.setattr(files, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path, epochs=2, images=embedded_data())
    monkeypatch.undo()
    assert checkpoints.latest(tmp_path).header["experiment"]["epochs"] == 2
    assert read(tmp_path / logs.EXPERIMENT).epochs == 1
    assert resume(tmp_path, images=embedded_data()).step == 10
    assert "experiment_before" not in checkpoints.latest(tmp_path).header


def test_the_best_checkpoint_of_a_shorter_run_is_no_edit(tmp_path):
    """It says one epoch, the file two."""
    train(of(**PLAIN, epochs=1), tmp_path, images=embedded_data())
    resume(tmp_path, epochs=2, images=Stopping(embedded_data(), 2))
    assert checkpoints.latest(tmp_path, "best").header["experiment"]["epochs"] == 1
    assert resume(tmp_path, "best", epochs=3, images=embedded_data()).step == 15


# A log that was deleted or cut


class Cutting:
    """A callback that shortens the log behind the record of an epoch, while the run goes on."""

    def __init__(self, path, epoch, left):
        self.path, self.epoch, self.left = path, epoch, left

    def __call__(self, record):
        if record["epoch"] == self.epoch:
            if self.left is None:
                self.path.unlink()
            else:
                os.truncate(self.path, self.left(self.path.stat().st_size))


@pytest.mark.parametrize(
    ("left", "lost", "kept"),
    [(None, 2, [2, 3]), (lambda size: 0, 2, [2, 3]), (lambda size: size - 9, 1, [0, 2, 3])],
    ids=["deleted", "emptied", "cut within a line"],
)
def test_a_log_that_lost_lines_in_mid_run_is_told_and_gone_on_with_when_asked(left, lost, kept, tmp_path):
    out, notes = tmp_path / "run", []
    teller = SimpleNamespace(note=notes.append, start=lambda *_: 0, progress=lambda *_: 0, record=lambda *_: 0)
    train(of(**PLAIN), out, Cutting(out / logs.LOG, 1, left), images=embedded_data(), reporter=teller)
    assert sum("was deleted or cut while the run was going on" in note for note in notes) == 1
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    said = (
        rf"lacks the records of {lost} of 4 measured epochs: it has \d+ bytes, expected at least .*--despite-lost-log"
    )
    for changes in ({}, {"epochs": 4}):
        with pytest.raises(ExperimentError, match=said):
            resume(out, images=embedded_data(), **changes)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    run = resume(out, images=embedded_data(), epochs=4, despite_lost_log=True)
    assert [r["epoch"] for r in logs.records(out)] == [r["epoch"] for r in run.records] == [*kept, 4]
    assert logs.segments(out)[-1]["lost"] == lost
    assert f"records lost: {lost}" in segments.history(run.experiment, logs.segments(out))
    assert resume(out, images=embedded_data(), epochs=5).finished  # nothing more is missing


def test_a_log_that_lost_lines_is_exit_code_2_and_an_option_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "load_data", lambda experiment, reporter: embedded_data())
    train(of(**PLAIN, epochs=2), tmp_path, images=embedded_data())
    (tmp_path / logs.LOG).unlink()
    refused = command("resume", tmp_path, "--epochs", 3, code=2)
    assert "lacks the records of 3 of 3 measured epochs" in refused.stderr.replace("\n", " ")
    command("resume", tmp_path, "--epochs", 3, "--despite-lost-log")
    assert [r["epoch"] for r in logs.records(tmp_path)] == [3]


def test_an_older_checkpoint_does_not_take_later_lines_for_its_own(tmp_path):
    """The log is long enough again, but its lines are from after the checkpoint."""
    experiment = of(**PLAIN, epochs=6, checkpoint_every=0.0)
    train(replace(experiment, epochs=1), tmp_path, images=embedded_data())
    old = checkpoints.latest(tmp_path)
    resume(tmp_path, epochs=6, images=embedded_data())
    whole = lines(tmp_path)
    (tmp_path / logs.LOG).write_text("".join(json.dumps(line) + "\n" for line in whole[3:]))
    for path in checkpoints.found(tmp_path):
        path.unlink()
    checkpoints.save(tmp_path, old.header["step"], old.header, old.tensors)
    (tmp_path / logs.EXPERIMENT).unlink()
    with pytest.raises(ExperimentError, match="lacks the records of 2 of 2 measured epochs"):
        resume(tmp_path, images=embedded_data())
    run = resume(tmp_path, epochs=2, images=embedded_data(), despite_lost_log=True)
    assert [r["epoch"] for r in run.records] == [2]


def test_a_log_without_segments_and_counts_goes_on(tmp_path):
    """An older run: its checkpoint does not say how many records there are, nor what its inputs were."""
    whole = train(of(**PLAIN, epochs=2), tmp_path / "whole", images=embedded_data())
    out = tmp_path / "run"
    train(of(**PLAIN, epochs=1), out, images=embedded_data())
    records = logs.records(out)
    (out / logs.LOG).write_text("".join(json.dumps(r) + "\n" for r in records))
    stored = checkpoints.latest(out)
    del stored.header["records"], stored.header["best_by"], stored.header["experiment"]["inputs"]
    stored.header["log_size"] = (out / logs.LOG).stat().st_size
    checkpoints.save(out, 5, stored.header, stored.tensors)
    (out / logs.EXPERIMENT).write_text(as_toml(from_dict(stored.header["experiment"])))
    assert series.read(out).segments == []
    os.truncate(out / logs.LOG, len(json.dumps(records[0])) + 3)
    with pytest.raises(ExperimentError, match="lacks the records of 1 of 2 measured epochs"):
        resume(out, epochs=2, images=embedded_data())
    (out / logs.LOG).write_text("".join(json.dumps(r) + "\n" for r in records))
    run = resume(out, epochs=2, images=embedded_data())
    assert untimed(run.records) == untimed(whole.records)
    assert [s["step"] for s in logs.segments(out)] == [5]
    assert read(out / logs.EXPERIMENT).inputs["shape"] == [10, 6, 1]


# Hashes


def test_a_hash_is_of_bytes_and_names_and_of_footers_where_there_is_too_much(tmp_path, monkeypatch):
    for name, content in (
        ("a/x.parquet", b"PAR1 abcd" + b"foot" + (4).to_bytes(4, "little") + b"PAR1"),
        ("y.txt", b""),
    ):
        (tmp_path / "one" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "one" / name).write_bytes(content)
    one = hashing.of_folder(tmp_path / "one")
    assert one["of"] == "the bytes of 2 files"
    (tmp_path / "one" / ".hidden").write_bytes(b"of nobody's interest")
    (tmp_path / "one" / "a" / "loop").symlink_to(tmp_path / "one")
    assert hashing.of_folder(tmp_path / "one") == one
    (tmp_path / "one").rename(tmp_path / "two")
    assert hashing.of_folder(tmp_path / "two") == one  # wherever it lies
    monkeypatch.setattr(hashing, "WHOLE", 10)
    large = hashing.of_folder(tmp_path / "two")
    assert large["of"] == "the names and sizes of 2 files, and 1 parquet footers"
    path = tmp_path / "two" / "a" / "x.parquet"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"abcd", b"abce"))
    assert hashing.of_folder(tmp_path / "two") == large  # says that it would not see this
    monkeypatch.undo()
    assert hashing.of_folder(tmp_path / "two")["sha256"] != one["sha256"]
    monkeypatch.setattr(hashing, "WHOLE", 10)
    path.write_bytes(content.replace(b"foot", b"hand"))
    changed = hashing.of_folder(tmp_path / "two")
    assert changed["sha256"] != large["sha256"]
    (tmp_path / "two" / "y.txt").rename(tmp_path / "two" / "z.txt")
    assert hashing.of_folder(tmp_path / "two")["sha256"] != changed["sha256"]


def test_a_dataset_of_the_hub_is_hashed_by_the_files_of_its_cache(tmp_path):
    data = loading.load("mine", own_folder(tmp_path / "mine"))
    assert data.digest() == hashing.of_folder(tmp_path / "mine")
    for name in ("train", "test"):
        split = getattr(data, name)
        setattr(data, name, replace(split, source=SimpleNamespace(origin="some/body", table=split.source.table)))
    assert data.digest()["of"] == "the bytes of 2 files"
    assert loading.load("embedded").digest()["of"] == "the bytes of 6 arrays"


def test_a_hash_of_arrays_is_of_their_bytes():
    first, again, other = embedded_data(), embedded_data(), embedded_data()
    other.test.x[3, 2, 1, 0] += 1e-6
    assert hashing.of_data(first) == hashing.of_data(again)
    assert hashing.of_data(first)["sha256"] != hashing.of_data(other)["sha256"]
    assert hashing.of_data(first)["of"] == "the bytes of 6 arrays"
    assert hashing.of_data(SimpleNamespace(train=None))["sha256"] is None


# Which runs are one, and which is the best


def test_the_same_seed_twice_counts_once(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(of(**PLAIN, epochs=1, seed=seed), tmp_path / name, images=embedded_data())
    resume(tmp_path / "b", epochs=2, images=embedded_data())
    found = [series.read(tmp_path / name) for name in "abc"]
    kept, told = series.once(found)
    assert [run.out.name for run in kept] == ["b", "c"]
    assert told == [f"{tmp_path / 'a'} has the experiment and the seed of {tmp_path / 'b'}: they count once, as "
                    f"{tmp_path / 'b'}."]  # fmt: skip
    _, rows = comparison.table([found[0], found[0]._replace(out=tmp_path / "copy"), found[2]])
    (row,) = rows
    assert row[1] == "0, 1"
    assert told[0] in comparison.notes(found)
    assert told[0] in curves.draw("learning", found).caption


def test_own_images_that_differ_are_not_seeds_of_one_experiment(tmp_path):
    for name, train_images in (("a", 470), ("b", 460)):
        train(of(**PLAIN, epochs=1), tmp_path / name, images=embedded_data(train=train_images))
    found = [series.read(tmp_path / name) for name in "ab"]
    assert len(series.grouped(found)) == len(series.once(found)[0]) == 2
    assert "images" in series.grouped(found)[0].label


@pytest.mark.parametrize(
    ("held_out", "model", "by"),
    [(0, "akrout2019/mlp", "train_error"), (100, "akrout2019/mlp", "validation_error"),
     (0, "bartunov2018/autoencoder", "train_loss")],
)  # fmt: skip
def test_what_the_best_was_chosen_by_is_said(held_out, model, by, tmp_path):
    notes = []
    teller = SimpleNamespace(note=notes.append, start=lambda *_: 0, progress=lambda *_: 0, record=lambda *_: 0)
    options = {"width": 1 / 32} if "auto" in model else {"hidden": 5}
    experiment = of(**PLAIN, held_out=held_out, model=model, model_options=options, epochs=1)
    train(experiment, tmp_path, images=embedded_data(), reporter=teller)
    assert f"by {segments.BEST_BY[by]}: " in notes[-1]
    assert checkpoints.latest(tmp_path, "best").header["best_by"] == logs.segments(tmp_path)[0]["best_by"] == by
    assert evaluate(tmp_path, "best", images=embedded_data())["best_by"] == by
    assert "best_by" not in evaluate(tmp_path, images=embedded_data())
    assert as_dict(series.read(tmp_path).experiment) == checkpoints.latest(tmp_path).header["experiment"]
