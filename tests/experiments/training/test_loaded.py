"""A trained run that is loaded and asked says of images what `evaluate` says of them, on every backend."""

import json
import math
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ref_bioplaus import experiments
from ref_bioplaus.experiments.data import images as images_module
from ref_bioplaus.experiments.data.augmentation import DataError
from ref_bioplaus.experiments.runs import checkpoints, logs
from ref_bioplaus.experiments.runs.checkpoints import CheckpointError
from ref_bioplaus.experiments.spec.experiment import Experiment, ExperimentError
from ref_bioplaus.experiments.training.starting import evaluate, resume, train
from tests.conftest import get
from tests.helpers.commands import command, printed
from tests.helpers.embedded_data import embedded_data
from tests.helpers.images import NAMES, encoded, labels_for, random_images, write
from tests.helpers.runs import PLAIN, assert_same, of

TESTED = 23  # images, in batches of 10


def learned(folder, **fields):
    """A run on a folder of images, left after its first epoch."""
    options = {"algorithm": "KP", "model": "akrout2019/mlp", "batch": 10, "epochs": 1, "data": str(folder / "images")}
    return train(Experiment(**PLAIN, **(options | fields)), folder / "run")


def images_of(folder, shape=(10, 7), channels=3, varied=False):
    """A folder of random images, and those of its test split."""

    def made(n, seed):
        found = random_images(n, shape, channels, seed)
        return [image[: len(image) - i % 3] for i, image in enumerate(found)] if varied else found

    train_x, test_x = made(40, 0), made(TESTED, 1)
    write(folder / "images", train=([*map(encoded, train_x)], labels_for(40)),
          test=([*map(encoded, test_x)], labels_for(TESTED)))  # fmt: skip
    return test_x


def check(run, images, batch=10):
    """A run's answers on test images against its own measures of them."""
    found, told = run.predict(images), run.evaluate()
    wrong = sum(name != NAMES[label] for name, label in zip(found.names, labels_for(TESTED), strict=True))
    assert told["test_error"] == 100.0 * wrong / TESTED
    own = found.output[np.arange(TESTED), labels_for(TESTED)].astype(np.float64)
    assert float(np.mean(-np.log(own))) == pytest.approx(told["test_loss"], rel=1e-5)
    assert found.classes == tuple(NAMES) and found.output.shape == (TESTED, 3)
    return found


@pytest.mark.parametrize("augmentation", ["flip-crop", "crop-8x5", "centre-crop-6x8", "resize-6x9"])
def test_predictions_are_what_evaluate_measures(augmentation, tmp_path):
    images = images_of(tmp_path)
    learned(tmp_path, augmentation=augmentation)
    run = experiments.load(tmp_path / "run")
    found = check(run, images)
    as_files = [tmp_path / f"{i}.png" for i in range(TESTED)]
    for path, image in zip(as_files, images, strict=True):
        Image.fromarray(image).save(path)
    floats = images.astype(np.float32) / 255
    for given in (list(images), floats, as_files, [Image.open(path) for path in as_files], images.astype(np.int64)):
        assert np.array_equal(run.predict(given).output, found.output)
    one = run.predict(images[4])
    assert one.output.shape == (1, 3) and one.names == (found.names[4],)
    np.testing.assert_allclose(one.output, found.output[4:5], rtol=1e-5)


@pytest.mark.parametrize("augmentation", ["crop-6x5", "centre-crop-6x5"])
def test_images_that_vary_in_size_are_resized_as_they_were(augmentation, tmp_path, monkeypatch):
    threads = partial(images_module.Decoders, workers=0)  # processes take seconds to start
    monkeypatch.setattr(images_module, "Decoders", lambda sources, shape, workers: threads(sources, shape))
    images = images_of(tmp_path, varied=True)
    learned(tmp_path, augmentation=augmentation)
    run = experiments.load(tmp_path / "run")
    assert run.experiment.inputs.get("resized", False) == (augmentation == "crop-6x5")
    check(run, images)


def test_on_every_backend_after_a_resume_elsewhere(tmp_path, quick_compiler):
    images = images_of(tmp_path, channels=1)
    learned(tmp_path, algorithm="FA")
    for epochs, name in enumerate(("torch", "jax", "numpy"), 2):
        get(name, "float32")
        resume(tmp_path / "run", epochs=epochs, backend=name)
    outputs = []
    for name in ("numpy", "torch", "jax"):
        run = experiments.load(tmp_path / "run", backend=name)
        assert (run.backend.name, run.header["epoch"]) == (name, 4)
        outputs.append(check(run, images).output)
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=1e-4, atol=1e-6)


def test_one_image_and_several_are_told_apart_by_the_runs_shape(tmp_path):
    images = images_of(tmp_path, channels=1)
    learned(tmp_path)
    run = experiments.load(tmp_path / "run")
    expected = run.predict(images).output
    assert np.array_equal(run.predict(images[:, :, :, None]).output, expected)
    for one in (images[3], images[3][:, :, None], images[3][None], images[3] / 255.0):
        np.testing.assert_allclose(run.predict(one).output, expected[3:4], rtol=1e-5)
    smooth = images[3] / 255.0 * 0.999  # of no whole brightness
    near = run.predict(smooth).output
    assert not np.array_equal(near, expected[3:4])
    np.testing.assert_allclose(near, expected[3:4], rtol=0.05)


def test_images_that_do_not_fit_get_a_sentence(tmp_path):
    images = images_of(tmp_path)
    learned(tmp_path)
    run = experiments.load(tmp_path / "run")
    for wrong, sentence in (
        (images[0][:9], r"has 9 x 7 pixels \(height x width\), but the run learned from images of 10 x 7: resize it"),
        (images[0][:, :, 0], r"has 1 channels, but the run learned from images with 3 \(colour\): convert it"),
        (images[0] / 100.0, "is of float64 from 0 to 2.55: expected uint8 from 0 to 255, or floats from 0 to 1"),
        (images[0] / 255.0 - 0.5, "expected uint8 from 0 to 255, or floats from 0 to 1, which the run normalises"),
        (np.full((10, 7, 3), np.nan), "from nan to nan"),
        ([images[0], images[1][:, 1:]], "The image number 1 has 10 x 6 pixels"),
        ([], "No image is given"),
        (np.zeros(210, np.uint8), r"The images have shape \(210,\), expected \(height, width\)"),
        ({"x": 1}, "The images are a dict, expected an array of numbers"),
        ([tmp_path / "none.png"], "none.png cannot be read"),
        (tmp_path / "images" / "data", "cannot be read"),
    ):
        with pytest.raises(DataError, match=sentence):
            run.predict(wrong)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(encoded(images[0])[:40])
    with pytest.raises(DataError, match="The image .*damaged.png is damaged"):
        run.predict(damaged)


def test_a_run_tells_its_network_state_history_and_checkpoint(tmp_path):
    pd = pytest.importorskip("pandas")
    done = train(of(algorithm="KP", epochs=2), tmp_path / "run", images=embedded_data())
    run = experiments.load(tmp_path / "run", checkpoint="best")
    assert run.network.parameter_count == done.built.network.parameter_count
    assert run.state.forward.params[1].W.shape == done.state.forward.params[1].W.shape
    table = pd.DataFrame(run.history)
    assert list(table["epoch"]) == [0, 1, 2]
    assert table["matrix_angles.2"].iloc[0] == logs.records(tmp_path / "run")[0]["matrix_angles"]["2"]
    assert not any(isinstance(value, dict) for row in run.history for value in row.values())
    assert repr(run).startswith("<kolen-pollack on ") and "best.safetensors" in repr(run)
    with pytest.raises(ExperimentError, match="did not say what images were normalised by"):
        run.predict(np.zeros((10, 6), np.uint8))
    told = run.evaluate(embedded_data())
    assert told == evaluate(tmp_path / "run", "best", embedded_data())
    inputs = {"mean": [0.3], "deviation": [0.4]}
    assert experiments.load(tmp_path / "run", inputs=run.experiment.inputs | inputs).predict(
        np.zeros((3, 10, 6), np.uint8)
    ).output.shape == (3, 10)


def test_what_an_autoencoder_rebuilds_has_the_images_shape(tmp_path):
    images = images_of(tmp_path, channels=1)
    learned(tmp_path, algorithm="FA", model="bartunov2018/autoencoder", model_options={"width": 1 / 64})
    run = experiments.load(tmp_path / "run")
    found = run.predict(images)
    assert found.output.shape == (TESTED, 10, 7, 1) and found.classes == () == run.classes
    for ask in (lambda: found.labels, lambda: found.names, found.top):
        with pytest.raises(ExperimentError, match="learned no classes, so its answers have none: ask for .output"):
            ask()
    mean, deviation = (run.experiment.inputs[name][0] for name in ("mean", "deviation"))
    x = (images[..., None] / 255.0 - mean) / deviation
    loss = np.mean(np.sum((found.output - x) ** 2, axis=(1, 2, 3)))
    assert loss == pytest.approx(run.evaluate()["test_loss"], rel=1e-4)
    assert "rebuilds its inputs and knows no classes" in printed("predict", tmp_path / "run", tmp_path, code=2)


def test_a_checkpoint_of_an_older_version_is_told_by_its_data(tmp_path):
    images = images_of(tmp_path)
    learned(tmp_path)
    expected = experiments.load(tmp_path / "run").predict(images).output
    (tmp_path / "old").mkdir()
    stored = checkpoints.latest(tmp_path / "run")
    stored.header["experiment"].pop("inputs")
    checkpoints.save(tmp_path / "old", stored.header["step"], stored.header, stored.tensors)
    run = experiments.load(tmp_path / "old")
    assert np.array_equal(run.predict(images).output, expected)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is not there"):
        experiments.load(tmp_path / "old")
    moved = experiments.load(tmp_path / "old", data=str(tmp_path / "elsewhere"))
    assert np.array_equal(moved.predict(images).output, expected)


def test_a_run_does_not_need_its_data_to_be_asked(tmp_path):
    images = images_of(tmp_path)
    learned(tmp_path)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    run = experiments.load(tmp_path / "run")
    assert run.predict(images).output.shape == (TESTED, 3)
    with pytest.raises(DataError, match="is not there"):
        run.evaluate()
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        experiments.load(tmp_path / "elsewhere")
    with pytest.raises(ExperimentError, match="speed"):
        experiments.load(tmp_path / "run", speed=3)


def test_a_callback_that_returns_true_stops_the_run(tmp_path):
    experiment = of(algorithm="FA")
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    seen = []

    def enough(record):
        seen.append(record["epoch"])
        return np.bool_(record["epoch"] == 1)  # what a comparison of NumPy's numbers gives

    stopped = train(experiment, tmp_path / "parts", enough, images=embedded_data())
    assert (seen, stopped.stopped_by, stopped.step, stopped.finished) == ([0, 1], "callback", 5, False)
    assert_same(whole, resume(tmp_path / "parts", images=embedded_data(), callback=lambda record: 1))
    with pytest.raises(ZeroDivisionError):
        train(experiment, tmp_path / "error", lambda record: 1 / 0, images=embedded_data())


def test_the_command_tells_the_classes_of_files_and_folders(tmp_path):
    images = images_of(tmp_path)
    learned(tmp_path)
    place = tmp_path / "some" / "deeper"
    place.mkdir(parents=True)
    for i, image in enumerate(images[:11]):
        Image.fromarray(image).save(place / f"{i:02}.png")
    (place / "notes.txt").write_text("no image")
    found = experiments.load(tmp_path / "run").predict(images[:11])
    lines = command("predict", tmp_path / "run", place.parent, "--json", "--top", 2).stdout.splitlines()
    for line, name, output in zip(lines, found.names, found.output, strict=True):
        told = json.loads(line)["classes"]
        assert [told[0]["name"], len(told)] == [name, 2]
        assert math.isclose(told[0]["output"], float(output.max()), rel_tol=1e-6)
    shown = printed("predict", tmp_path / "run", place / "03.png", place / "05.png")
    assert f"{found.names[3]} {found.output[3].max():.4f}" in shown and "05.png" in shown
    (place / "04.png").write_bytes(b"no image")
    result = command("predict", tmp_path / "run", place, "--json", code=2)
    assert len(result.stdout.splitlines()) == 10 and "04.png is damaged" in " ".join(result.stderr.split())
    assert "holds no image" in printed("predict", tmp_path / "run", tmp_path / "run", code=2)
    assert "cannot be read" in printed("predict", tmp_path / "run", tmp_path / "nowhere.png", code=2)
