"""Data of one's own: arrays, splits, tables, functions and files become the same batches, and are learned."""

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest

from ref_bioplaus import backends, experiments
from ref_bioplaus.experiments.data import hashing, loading, own
from ref_bioplaus.experiments.data.loading import DataError
from ref_bioplaus.experiments.runs import checkpoints
from ref_bioplaus.experiments.spec.experiment import Experiment, ExperimentError, read
from ref_bioplaus.experiments.training import starting as training
from ref_bioplaus.experiments.training.starting import resume, train
from ref_bioplaus.linear import dense
from ref_bioplaus.local import bias, tanh
from ref_bioplaus.models import MODELS
from ref_bioplaus.network import chain
from tests.conftest import get
from tests.helpers import some_slow
from tests.helpers.commands import command, printed
from tests.helpers.images import NAMES, encoded, labels_for, random_images, write
from tests.helpers.runs import PLAIN, Stopping, assert_same

LIBRARIES = [name for name in ("numpy", "torch", "jax") if name in backends.installed()]
SMALL = Experiment(model_options={"width": 5 / 256}, batch=10, epochs=2, checkpoint_every=1000.0, **PLAIN)
MLP = replace(SMALL, model="akrout2019/mlp", model_options={"hidden": 12})
RNG = np.random.default_rng(7)
COLOUR = random_images(23)
FIVE = RNG.normal(3.0, 2.0, (23, 6, 4, 5)).astype(np.float32)
VECTORS = RNG.normal(-2.0, 5.0, (23, 7))
CLASSES = np.array(labels_for(23))
TARGETS = RNG.normal(size=(23, 2))
NUMBERS = {
    "colour": COLOUR,
    "five channels": FIVE,
    "vectors": VECTORS,
    "two channels": COLOUR[..., :2],
    "grey": COLOUR[..., 0],
}
KINDS = {"colour": CLASSES, "five channels": TARGETS, "vectors": None, "two channels": TARGETS, "grey": CLASSES}


def data_of(value, **options):
    return own.load("own", None, own.given(value), **options)


def epoch(data, backend=None, split="train", batch=8, seed=3, number=2, **options):
    backend = backend or backends.get("numpy")
    return [
        (backend.to_numpy(b.x), backend.to_numpy(b.y))
        for b in data.batches(split, backend, batch, seed, number, **options)
    ]


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for mine, theirs in zip(a, b, strict=True):
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
            assert mine.tobytes() == theirs.tobytes()


# What batches hold


@pytest.mark.parametrize("augmentation", ["none", "flip-crop", "crop-8x5"])
def test_images_in_uint8_are_those_of_a_folder(augmentation, tmp_path, own_cache):
    folder = write(tmp_path, train=([encoded(i) for i in COLOUR], labels_for(23)), test=([encoded(COLOUR[3])], [1]))
    theirs = loading.load("x", folder, held_out=4, augmentation=augmentation)
    splits = {"train": (COLOUR, CLASSES), "test": (COLOUR[3:4], CLASSES[1:2])}
    mine = data_of(splits, held_out=4, augmentation=augmentation)
    assert (mine.mean.tolist(), mine.deviation.tolist()) == (theirs.mean.tolist(), theirs.deviation.tolist())
    assert (mine.in_shape, mine.splits, mine.fingerprint) == (theirs.in_shape, theirs.splits, theirs.fingerprint)
    assert (mine.classes, theirs.classes) == (("0", "1", "2"), tuple(NAMES))
    for split in mine.splits:
        assert_equal(epoch(mine, split=split), epoch(theirs, split=split))


@pytest.mark.parametrize(
    ("numbers", "name"),
    some_slow(
        [(numbers, name) for numbers in KINDS for name in LIBRARIES],
        lambda numbers, name: name != "numpy" and numbers not in ("colour", "vectors"),
    ),
)
def test_what_stays_on_disk_gives_the_same_batches_to_the_bit(numbers, name, tmp_path, monkeypatch):
    backend, y = get(name, "float32"), KINDS[numbers]
    np.save(tmp_path / "x.npy", NUMBERS[numbers])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    augmentation = "none" if numbers == "vectors" else "flip-crop"
    options = {"held_out": 6, "augmentation": augmentation}
    memory = data_of(((NUMBERS[numbers], y), (NUMBERS[numbers][:5], None if y is None else y[:5])), **options)
    monkeypatch.setattr(loading, "IN_MEMORY", NUMBERS[numbers].nbytes - 1)
    disk = data_of(((mapped, y), (mapped[:5], None if y is None else y[:5])), **options)
    assert memory.train.apart is None and disk.train.pixels is None
    assert np.shares_memory(disk.train.apart, mapped)
    assert (memory.mean.tolist(), memory.deviation.tolist()) == (disk.mean.tolist(), disk.deviation.tolist())
    assert memory.fingerprint == disk.fingerprint
    for split in ("train", "validation", "test"):
        for flatten in (False, True):
            assert_equal(*(epoch(data, backend, split, flatten=flatten) for data in (memory, disk)))
    assert_equal(epoch(memory, backend)[1:], epoch(disk, backend, start=1))


def test_a_batch_reads_its_own_samples_and_no_others(monkeypatch):
    monkeypatch.setattr(loading, "IN_MEMORY", 0)
    data = data_of((FIVE, CLASSES), normalise=False)
    read = []
    host = type(data.train).host
    monkeypatch.setattr(type(data.train), "host", lambda split, rows: read.append(rows.tolist()) or host(split, rows))
    batches = data.batches("train", backends.get("numpy"), 10, 0, 0, start=1)
    order = data.order("train", 0, 0)
    next(batches)
    assert read == [order[10:20].tolist()]
    np.testing.assert_array_equal(next(batches).x, FIVE[order[20:]])
    assert len(read[1]) == 3


@pytest.mark.parametrize("x", [FIVE, VECTORS, np.arange(46).reshape(23, 2)], ids=["five", "vectors", "whole numbers"])
def test_values_are_normalised_by_channel_or_left_as_they_are(x):
    wide, axes = x.astype(np.float64), tuple(range(x.ndim - 1))
    data = data_of((x, TARGETS))
    np.testing.assert_allclose(data.mean, wide.mean(axis=axes), rtol=1e-12)
    np.testing.assert_allclose(data.deviation, wide.std(axis=axes), rtol=1e-12)
    found = np.concatenate([b for b, _ in epoch(data, get("numpy"), shuffle=False)])
    np.testing.assert_allclose(found, (wide - data.mean) / data.deviation, rtol=1e-12, atol=1e-12)
    (first, y), *_ = epoch(data_of((x, TARGETS), normalise=False), get("numpy"), shuffle=False)
    np.testing.assert_array_equal(first, x[:8])
    np.testing.assert_array_equal(y, TARGETS[:8])
    assert (data.scale, data.outputs, data.in_shape) == ("values", 2, x.shape[1:])


def test_what_does_not_vary_is_not_divided_by_zero_and_a_large_mean_costs_no_digits():
    x = np.stack([np.full(1000, 4.0), 1e8 + np.arange(1000) % 2], axis=1)
    data = data_of((x, None))
    np.testing.assert_array_equal(data.deviation, [1.0, 0.5])
    assert set(np.unique(epoch(data, get("numpy"), batch=1000)[0][0])) == {-1.0, 0.0, 1.0}


def test_moments_are_the_same_however_many_samples_are_looked_at_together(monkeypatch):
    whole = data_of((FIVE, None))
    monkeypatch.setattr("ref_bioplaus.experiments.data.arrays.TOGETHER", 6 * 4 * 5 * 4)
    parts = data_of((FIVE, None))
    np.testing.assert_allclose(whole.mean, parts.mean, rtol=1e-14)
    np.testing.assert_allclose(whole.deviation, parts.deviation, rtol=1e-14)


# What is taken for data


def test_classes_are_numbers_or_names_and_targets_numbers_or_none():
    names = np.array(NAMES)[CLASSES]
    for y in (names, names.tolist(), names.astype(object)):
        data = data_of((COLOUR, y))
        assert (data.classes, data.train.labels.tolist()) == (tuple(NAMES), CLASSES.tolist())
    assert data_of((COLOUR, CLASSES[:, None])).train.labels.tolist() == CLASSES.tolist()
    assert data_of((COLOUR, CLASSES > 1)).classes == ("0", "1")
    assert data_of((COLOUR, TARGETS[:, 0])).outputs == 1
    for nothing in (COLOUR, (COLOUR, None), COLOUR.tolist()):
        data = data_of(nothing)
        assert (data.targets, data.outputs, data.classes) == ("inputs", None, ())
    splits = {"train": (FIVE, CLASSES), "validation": (FIVE[:3], CLASSES[:3])}
    assert data_of(splits).test.count == 3
    assert data_of(splits | {"test": (FIVE[:2], CLASSES[:2])}).test.count == 2
    assert data_of(((FIVE, CLASSES), (FIVE[:4], CLASSES[:4]))).test.count == 4


def test_a_function_gives_data_or_yields_blocks_of_it():
    whole = epoch(data_of((FIVE, CLASSES)))

    def blocks():
        for start in range(0, 23, 10):
            yield FIVE[start : start + 10], CLASSES[start : start + 10]

    for function in (lambda: (FIVE, CLASSES), blocks, lambda: {"train": (FIVE, CLASSES)}):
        assert_equal(epoch(data_of(function)), whole)


def test_a_table_of_the_hubs_library_is_the_folder_that_it_is_from(tmp_path, own_cache):
    import datasets

    images = [encoded(i) for i in COLOUR]
    folder = write(tmp_path, train=(images, labels_for(23)), test=(images[:4], labels_for(4)))
    tables = datasets.load_dataset(str(folder))
    expected = loading.load("x", folder)
    for value in (tables, (tables["train"], tables["test"])):
        data = data_of(value)
        assert (data.classes, data.test.count) == (tuple(NAMES), 4)
        assert_equal(epoch(data), epoch(expected))
    assert data_of(tables["train"]).test is None
    for wrong in ({"train": tables["train"], "test": (FIVE, CLASSES)}, tables["train"].to_iterable_dataset()):
        with pytest.raises(DataError, match="both tables and arrays|is a stream, without a length: load it without"):
            own.given(wrong)


def one_changed(x, value, row=3):
    changed = np.array(x)
    changed[row, ..., 0] = value
    return changed


REFUSED = {
    "lengths": ((FIVE, CLASSES[:-1]), 'x of split "train" has 23 samples, and y of split "train" 22 targets'),
    "nan": ((one_changed(VECTORS, np.nan), TARGETS), "1 number that is not finite .*, the first in row 3"),
    "infinite": ((one_changed(FIVE, -np.inf), CLASSES), "24 numbers that are not finite .*, the first in row 3"),
    "target": ((FIVE, one_changed(TARGETS, np.nan, 5)), 'y of split "train" has 1 number .*, the first in row 5'),
    "objects": ((np.array([[{}], [None]], object), None), "has the dtype object, expected numbers"),
    "masked": ((np.ma.masked_array(VECTORS, VECTORS > 1), None), "has masked numbers, .*: fill them"),
    "texts": ((np.array([["a"], ["b"]]), None), "has texts, expected numbers"),
    "ragged": (([[1.0], [1.0, 2.0]], None), "cannot be read as an array"),
    "one axis": ((np.zeros(5), None), r"has the shape \(5,\), expected images"),
    "no sample": ((np.zeros((0, 3)), None), r"has the shape \(0, 3\), expected images"),
    "negative": ((FIVE, CLASSES - 1), 'Row 0 of y of split "train" has the class -1, expected whole numbers from 0'),
    "ids": ((FIVE, CLASSES + 10**6), "has the class 1000002, for 23 samples: number the classes from 0 on"),
    "one-hot": ((FIVE, np.eye(3)[CLASSES]), r"shape \(23, 3\) of one-hot rows .* np.argmax\(y, axis=1\)"),
    "two columns": ((FIVE, np.stack([CLASSES, CLASSES], 1)), r"shape \(23, 2\) in int64, expected whole numbers"),
    "own texts": ((FIVE, [f"text {i}" for i in range(23)]), 'has a text of its own, as "text 0"'),
    "new class": (((FIVE, CLASSES), (FIVE, CLASSES + 1)), 'Row 2 of y of split "test" has the class "3"'),
    "new name": (((FIVE, ["a", "b"] * 11 + ["a"]), (FIVE[:1], ["c"])), 'has the class "c", which no training sample'),
    "other shape": (((FIVE, None), (FIVE[:, 1:], None)), "samples of 6 x 4 x 5 in float32, and .* of 5 x 4 x 5"),
    "other dtype": (((COLOUR, None), (COLOUR / 255, None)), "in uint8, and .* in float64: give both in one form"),
    "other targets": (((FIVE, CLASSES), (FIVE, TARGETS)), "has whole numbers, and .* real-valued targets"),
    "other outputs": (((FIVE, TARGETS), (FIVE, TARGETS[:, :1])), r"targets of \(1,\) numbers, the training samples"),
    "no train": ({"test": (FIVE, None)}, 'no split "train", only test'),
    "strange split": ({"train": FIVE, "tset": FIVE}, 'the split "tset", expected "train" and "test"'),
    "three": ((FIVE, CLASSES, CLASSES), "3 things for the split"),
    "a text": ("mnist", 'a str for the split "train": expected arrays'),
    "a number": (7, 'a int for the split "train": expected arrays'),
    "needs arguments": (lambda path: None, "needs arguments: give one without"),
    "gives nothing": (lambda: None, "returns a NoneType: expected arrays"),
    "yields nothing": (lambda: iter(()), "yields nothing"),
    "yields others": (lambda: iter([FIVE]), "yields other things than blocks"),
    "blocks apart": (lambda: iter([(FIVE, CLASSES), (VECTORS, CLASSES)]), "do not fit together"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_learned_gets_one_sentence(case, tmp_path):
    value, sentence = REFUSED[case]
    with pytest.raises(DataError, match=sentence) as error:
        train(MLP, tmp_path / "run", images=value)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_not_finite_are_counted_in_all_pieces(monkeypatch):
    monkeypatch.setattr("ref_bioplaus.experiments.data.arrays.TOGETHER", 7 * 4)
    x = one_changed(one_changed(VECTORS, np.inf, 13), np.nan, 22)
    with pytest.raises(DataError, match="has 2 numbers that are not finite .*, the first in row 13"):
        data_of(x)


def test_the_hash_of_arrays_that_are_large_is_of_rows_among_all(monkeypatch):
    whole = data_of(np.arange(8000.0).reshape(4000, 2)).digest()
    monkeypatch.setattr(hashing, "WHOLE", 30_000)
    monkeypatch.setattr(hashing, "SAMPLED", 5)
    data = data_of(np.arange(8000.0).reshape(4000, 2))
    sampled = data.digest()
    assert sampled["of"] == "the bytes of 3 arrays, of 2 of them 5 rows" and sampled["sha256"] != whole["sha256"]
    data.train.pixels[1] += 1.0
    assert data.digest() == sampled
    data.train.pixels[3999] += 1.0
    assert data.digest()["sha256"] != sampled["sha256"]


# Learning


def linear(count=400, seed=0):
    """Vectors, and three numbers that are a known linear map of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(1.0, 2.0, (count, 6))
    return x, x @ np.array([[0.3, -0.2, 0.1], [0.0, 0.4, -0.1]] * 3) + np.array([1.0, 0.0, -2.0])


@pytest.mark.parametrize("algorithm", ["backprop", "feedback-alignment", "dtp"])
def test_a_known_linear_map_is_learned(algorithm, tmp_path):
    (x, y), (test_x, test_y) = linear(), linear(50, 1)
    adam = {"name": "adam", "eta": 0.02}
    experiment = replace(MLP, algorithm=algorithm, model_options={"hidden": 40}, batch=30, epochs=16, optimizer=adam)
    run = train(experiment, tmp_path, images={"train": (x, y), "test": (test_x, test_y)})
    assert run.experiment.loss == "squared-error" and run.experiment.dataset == "own"
    inputs = run.experiment.inputs
    assert (inputs["shape"], inputs["classes"], inputs["outputs"], inputs["scale"]) == ([6], [], 3, "values")
    np.testing.assert_allclose(inputs["mean"], x.mean(axis=0))
    record, variance = run.records[-1], float(((test_y - test_y.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert not [name for name in record if name.endswith("error")]
    assert record["test_loss"] < 0.05 * variance
    assert checkpoints.latest(tmp_path).header["best_by"] == "train_loss"
    assert read(tmp_path / "experiment.toml").inputs == inputs
    found = training.evaluate(tmp_path, images=lambda: ((x, y), (test_x, test_y)))
    assert found["test_loss"] == record["test_loss"]


AUTOENCODERS = {
    "bartunov2018/autoencoder": ({"width": 1 / 32}, COLOUR),
    "akrout2019/mlp": ({"hidden": 12}, VECTORS),
    "bartunov2018/mnist-convnet": ({"width": 1 / 16}, FIVE),
}


@pytest.mark.parametrize("model", AUTOENCODERS)
def test_without_targets_the_inputs_are_rebuilt(model, tmp_path):
    options, x = AUTOENCODERS[model]
    run = train(replace(SMALL, model=model, model_options=options, epochs=8), tmp_path, images=x)
    assert run.built.targets == "inputs" and run.experiment.inputs["classes"] == []
    assert run.built.network[run.built.network.L].out_shape == (x[0].size,)
    first, last = run.records[0], run.records[-1]
    assert set(first) == set(last) and "train_error" not in last and "outputs" not in run.experiment.inputs
    losses = [r["train_loss"] for r in run.records[1:]]
    assert losses[-1] < losses[0]


WHOLE = {
    "classes": (COLOUR, CLASSES), "names": (FIVE, np.array(NAMES)[CLASSES]), "values": (VECTORS, TARGETS),
    "inputs": (VECTORS, None),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
def test_a_run_on_arrays_goes_on_bit_for_bit(case, tmp_path):
    data = WHOLE[case]
    whole = train(MLP, tmp_path / "whole", images=(data, data))
    stopped = train(MLP, tmp_path / "parts", images=Stopping(data_of((data, data)), 4))
    assert (stopped.step, whole.step) == (4, 6)  # 3 batches an epoch, the last of 3 samples
    assert_same(whole, resume(tmp_path / "parts", images=lambda: (data, data)))
    assert_same(whole, train(MLP, tmp_path / "parts", images=(data, data), resume=True))
    with pytest.raises(ExperimentError, match="given as arrays: give them again"):
        resume(tmp_path / "parts", epochs=3)


def test_a_run_goes_on_with_its_own_data_and_no_other(tmp_path):
    train(MLP, tmp_path / "values", images=(VECTORS, TARGETS))
    train(MLP, tmp_path / "inputs", images=VECTORS)
    train(MLP, tmp_path / "pixels", images=(COLOUR, CLASSES))
    for name, other, sentence in (
        ("values", (VECTORS, TARGETS[::-1]), "with other labels than those given here"),
        ("values", (VECTORS, 1.0001 * TARGETS), "with other labels than those given here"),
        ("values", (VECTORS, CLASSES), "has inputs.outputs = 2, but the data here has None"),
        ("values", (VECTORS[:-1], TARGETS[:-1]), "learned from 23 training images, but here are 22"),
        ("values", (VECTORS[:, 1:], TARGETS), "inputs.mean has 7 channels, but the images have 6"),
        ("inputs", VECTORS[::-1], "with other labels than those given here"),
        ("pixels", (COLOUR / 255, CLASSES), "has inputs.scale = pixels, but the data here has values"),
        ("pixels", (COLOUR, (CLASSES + 1) % 3), "with other labels"),
    ):
        with pytest.raises(ExperimentError, match=sentence):
            resume(tmp_path / name, epochs=3, images=other)


@pytest.mark.parametrize("name", [name for name in LIBRARIES if name != "numpy"])
def test_a_run_on_arrays_goes_on_elsewhere(name, tmp_path, quick_compiler):
    get(name, "float32")
    whole = train(MLP, tmp_path / "whole", images=(FIVE, TARGETS))
    train(replace(MLP, epochs=1), tmp_path / "parts", images=(FIVE, TARGETS))
    moved = resume(tmp_path / "parts", images=(FIVE, TARGETS), epochs=2, backend=name)
    assert moved.backend.name == name
    assert moved.records[-1]["train_loss"] == pytest.approx(whole.records[-1]["train_loss"], rel=1e-5)


def test_a_network_that_asks_for_no_classes_learns_what_it_has_outputs_for(tmp_path, monkeypatch):
    def of(outputs):
        return lambda *, in_shape=(4,): chain(in_shape, (dense(3), bias, tanh), (dense(outputs), bias))

    for outputs, y, targets in ((2, TARGETS, "values"), (7, TARGETS, "inputs"), (7, CLASSES, "inputs")):
        monkeypatch.setitem(MODELS, "mine", of(outputs))
        experiment = replace(SMALL, model="mine", model_options={})
        run = train(experiment, tmp_path / f"{outputs}-{y.ndim}", images=(VECTORS, y))
        assert (run.built.targets, run.experiment.loss) == (targets, "squared-error")
    monkeypatch.setitem(MODELS, "mine", of(5))
    with pytest.raises(ExperimentError, match="its targets are its 7 inputs, but it has 5 outputs: give its function"):
        train(experiment, tmp_path / "five", images=(VECTORS, TARGETS))


ASKED = {
    "vectors": (VECTORS, TARGETS, {}), "five channels": (FIVE, TARGETS, {"loss": "squared-error"}),
    "grey": (FIVE[..., 0], CLASSES, {}), "cropped": (FIVE, CLASSES, {"augmentation": "flip-crop-5x3"}),
    "inputs": (VECTORS, None, {}), "uint8": (COLOUR[..., :2], TARGETS, {"normalise": False}),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_what_a_loaded_run_answers_is_what_evaluate_measures(case, tmp_path):
    x, y, changes = ASKED[case]
    train(replace(MLP, **changes), tmp_path, images=(x, y))
    run = experiments.load(tmp_path)
    output = run.predict(x).output
    mine = run.evaluate((x, y))["train_loss"]
    assert mine == training.evaluate(tmp_path, images=(x, y))["train_loss"]
    if y is CLASSES:
        assert mine == pytest.approx(float(np.mean(-np.log(output[np.arange(23), y]))), rel=1e-5)
        assert run.predict(x).names == tuple(run.classes[i] for i in output.argmax(axis=1))
    else:
        wide = (x - np.array(run.experiment.inputs["mean"])) / run.experiment.inputs["deviation"] if y is None else y
        assert output.shape == wide.shape and run.classes == ()
        assert mine == pytest.approx(float(((output - wide) ** 2).sum(axis=1).mean()), rel=1e-5)
    np.testing.assert_allclose(run.predict(x[3]).output[0], output[3], rtol=1e-4, atol=1e-6)
    for wrong in (x[:, 1:, ...], np.zeros(())) if x.dtype != np.uint8 and "crop" not in case else ():
        with pytest.raises(DataError, match="have shape"):
            run.predict(wrong)


def test_one_sample_is_learned(tmp_path):
    run = train(replace(MLP, batch=1), tmp_path, images=(FIVE[:1], CLASSES[:1]))
    assert (run.step, run.built.network[run.built.network.L].out_shape) == (2, (1,))


def test_a_rule_with_an_auxiliary_output_learns_real_valued_targets(tmp_path):
    options = {"width": 5 / 256, "auxiliary": 3}
    run = train(replace(SMALL, algorithm="ao-sdtp", model_options=options), tmp_path, images=(FIVE, TARGETS))
    assert run.built.network[run.built.network.L].out_shape == (5,)
    assert np.isfinite(run.records[-1]["train_loss"])


@pytest.mark.parametrize(
    ("changes", "images", "sentence"),
    [
        (
            {"loss": "cross-entropy"},
            (FIVE, TARGETS),
            "targets here are real-valued, not classes: choose .squared-error",
        ),
        ({"loss": "sigmoid-cross-entropy"}, (FIVE, TARGETS), r"needs targets in \[0, 1\], but those here reach from -"),
        (
            {"model": "bartunov2018/mnist-lc", "model_options": {}},
            (VECTORS, CLASSES),
            "takes images, but the samples are vectors of 7",
        ),
        (
            {"model_options": {"hidden": 4, "classes": 5}},
            (FIVE, TARGETS),
            "classes is 5, but the dataset has 2 outputs",
        ),
        ({"augmentation": "flip"}, (VECTORS, CLASSES), "but the samples are vectors: choose none"),
        ({"augmentation": "resize-8"}, (FIVE, CLASSES), "images of 6 x 4 are not resized"),
        ({"held_out": 23}, (FIVE, CLASSES), "held_out is 23, expected 0 to 22"),
    ],
)
def test_what_does_not_go_together_gets_one_sentence(changes, images, sentence, tmp_path):
    with pytest.raises((DataError, ExperimentError), match=sentence):
        train(replace(MLP, **changes), tmp_path / "run", images=images)
    assert not (tmp_path / "run").exists()


def test_several_yes_and_no_are_learned_by_sigmoids(tmp_path):
    run = train(replace(MLP, loss="sigmoid-cross-entropy"), tmp_path, images=(FIVE, (TARGETS > 0).astype(float)))
    assert run.records[-1]["train_loss"] > 0


# Files of arrays


def folder_of(place, **arrays):
    place.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(place / f"{name}.npy", array)
    return place


def test_the_command_learns_a_folder_of_arrays_and_an_npz(tmp_path):
    arrays = {
        "x_train": FIVE,
        "y_train": TARGETS.astype(">f4"),
        "x_test": FIVE[:4],
        "y_test": TARGETS[:4].astype(">f4"),
    }
    folder = folder_of(tmp_path / "arrays", **arrays)
    np.savez(tmp_path / "arrays.npz", **arrays)
    words = ("--model", "akrout2019/mlp", "--set", "model_options.hidden=12", "--batch", 10, "--set", "metrics=[]")
    for name, data in (("folder", folder), ("npz", tmp_path / "arrays.npz")):
        done = command("train", *words, "--epochs", 1, "--data", data, "--out", tmp_path / name)
        assert "test loss" in done.output and "error" not in done.output
        command("resume", tmp_path / name, "--epochs", 2)
    digests = [hashlib.sha256((checkpoints.latest(tmp_path / name).tensors["forward/params/2/W"]).tobytes()).hexdigest()
               for name in ("folder", "npz")]  # fmt: skip
    assert digests[0] == digests[1]
    run = train(
        replace(MLP, epochs=2), tmp_path / "python", images=((FIVE, arrays["y_train"]), (FIVE[:4], arrays["y_test"]))
    )
    assert hashlib.sha256(run.backend.to_numpy(run.state.forward.params[2].W).tobytes()).hexdigest() == digests[0]
    folder_of(folder, y_train=TARGETS[::-1])
    assert "with other labels" in command("resume", tmp_path / "folder", "--epochs", 3, code=2).output


def test_classes_in_floats_are_doubted_and_runs_without_errors_are_compared(tmp_path):
    folder = folder_of(tmp_path / "arrays", x_train=VECTORS, y_train=CLASSES.astype(float), x_test=VECTORS)
    folder_of(folder, y_test=CLASSES.astype(float))
    words = ("--model", "akrout2019/mlp", "--set", "model_options.hidden=4", "--epochs", 1)
    for algorithm in ("backprop", "feedback-alignment"):
        said = printed("train", *words, "--data", folder, "--algorithm", algorithm, "--out", tmp_path / algorithm)
        assert "The targets are whole numbers in floats, so they are real-valued: give integers" in said
    runs = (tmp_path / "backprop", tmp_path / "feedback-alignment")
    said = command("compare", *runs, "--html", tmp_path / "page.html").output
    assert "test loss" in said and "error" not in said.splitlines()[0]
    for figure in ("receptive-fields", "reconstructions"):
        command("plot", runs[0], "--figure", figure, "--out", tmp_path / "x.svg", code=2)
    command("plot", *runs, "--figure", "learning", "--out", tmp_path / "learning.svg")


class Harmful:
    """What runs code where it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def test_files_that_are_wrong_get_one_sentence_and_run_nothing(tmp_path):
    def say(place):
        with pytest.raises(DataError) as error:
            own.given(None, str(place))
        assert "\n" not in str(error.value)
        return str(error.value)

    harmful = np.array([Harmful(), Harmful()], dtype=object)
    folder = tmp_path / "objects"
    folder.mkdir()
    np.save(folder / "x_train.npy", harmful, allow_pickle=True)
    assert "x_train.npy holds Python objects, which are not read" in say(folder)
    np.savez(tmp_path / "objects.npz", x_train=harmful, allow_pickle=True)
    assert "objects.npz holds Python objects, which are not read" in say(tmp_path / "objects.npz")
    (folder / "x_train.npy").write_bytes(b"\x80\x04pickle.")
    assert "x_train.npy" in say(folder) and "Python objects" in say(folder)
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 and nothing")
    assert "damaged.npz cannot be read (BadZipFile" in say(tmp_path / "damaged.npz")
    np.savez(tmp_path / "other.npz", images=FIVE)
    assert "has no x_train, only nothing" in say(tmp_path / "other.npz")

    whole = folder_of(tmp_path / "cut", x_train=FIVE)
    content = (whole / "x_train.npy").read_bytes()
    (whole / "x_train.npy").write_bytes(content[:-100])
    assert "cannot be read (ValueError: mmap length is greater than file size" in say(whole)
    folder_of(whole, x_train=FIVE, y_train=np.zeros(23, [("a", int)]))
    assert "y_train.npy has the dtype [('a', '<i8')], expected numbers" in say(whole)
    folder_of(whole, y_train=CLASSES[:5])
    assert "x_train.npy has 23 samples, and" in say(whole) and "y_train.npy 5 targets" in say(whole)
    (whole / "y_train.npy").unlink()
    folder_of(whole, y_test=CLASSES)
    assert "has y_test without x_test" in say(whole)

    outside = folder_of(tmp_path / "outside", x_train=FIVE)
    (outside / "y_train.npy").symlink_to(tmp_path / "arrays.npy")
    np.save(tmp_path / "arrays.npy", CLASSES)
    assert "y_train.npy leads out of its folder" in say(outside)
    if hasattr(os, "mkfifo"):
        (outside / "y_train.npy").unlink()
        os.mkfifo(outside / "y_train.npy")  # nobody ever writes to it
        assert "y_train.npy is a pipe, not an ordinary file" in say(outside)
