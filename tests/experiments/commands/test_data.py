"""The command `data`: what is said of data before anything learns it, and the options that choose its columns."""

import json

import numpy as np
import pytest
from PIL import Image

from ref_bioplaus.experiments.commands import data as program
from ref_bioplaus.experiments.data import loading
from ref_bioplaus.experiments.data.loading import DataError
from ref_bioplaus.experiments.runs import checkpoints
from ref_bioplaus.experiments.training.starting import resume
from tests.helpers.commands import command, printed
from tests.helpers.images import encoded, labels_for, random_images, write

hf = pytest.importorskip("datasets")
pytestmark = pytest.mark.usefixtures("own_cache")
COLOUR = random_images(23)
RNG = np.random.default_rng(3)


def described(*words):
    return json.loads(command("data", *words, "--json").stdout)


def odd(*words):
    return " ".join(described(*words)["odd"])


def arrays(place, **named):
    place.mkdir(exist_ok=True)
    for name, array in named.items():
        np.save(place / f"{name}.npy", array)
    return place


def test_a_folder_is_described_and_drawn(tmp_path):
    images = [encoded(i) for i in COLOUR]
    folder = write(tmp_path / "d", train=(images, [i % 3 for i in range(23)]), test=(images[:1], [0]))
    found = described(folder)
    assert (found["kind"], found["shape"], found["scale"], found["targets"]) == (
        "images",
        [10, 7, 3],
        "pixels",
        "classes",
    )
    train, test = found["splits"]["train"], found["splits"]["test"]
    assert (train["samples"], train["classes"]) == (23, {"cat": 8, "dog": 8, "owl": 7})
    assert (test["samples"], test["classes"]) == (1, {"cat": 1, "dog": 0, "owl": 0})
    wide = COLOUR / 255
    for i, channel in enumerate(found["channels"]):
        assert channel["mean"] == pytest.approx(wide[..., i].mean())
        assert channel["deviation"] == pytest.approx(wide[..., i].std())
    said = printed("data", folder, "--out", tmp_path / "first.png")
    assert "23 train and 1 test images of 10 x 7 x 3, brightness in uint8; 3 classes." in said
    assert f"cat {'█' * 30} 8 1 dog {'█' * 30} 8 0 owl {'█' * 26} 7 0" in said
    assert "Odd: 1 test sample is in train, too: row 0 of test is row 0 of train." in said
    assert "Odd: 2 classes have no test sample: dog, owl." in said
    with Image.open(tmp_path / "first.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 100
    assert described(folder, "--held-out", 5)["splits"]["validation"]["samples"] == 5


def test_what_is_odd_is_said(tmp_path):
    images = random_images(30, channels=1)
    images[4] = 7
    grey = np.repeat(images[..., None], 3, axis=3)
    labels = np.array([1] * 28 + [2] * 2)
    said = odd(arrays(tmp_path / "a", x_train=grey, y_train=labels))
    assert "1 train sample is of one value throughout: row 4." in said
    assert "Every image is grey, but stored in three equal channels." in said
    assert "No sample has the class 0: do the labels start at 1?" in said
    said = odd(arrays(tmp_path / "b", x_train=images.astype(float), y_train=labels - 1))
    assert "whole numbers from 0 to 255, but not in uint8" in said and "grey" not in said
    assert "Classes are very unequal: 28 training samples of 0, 2 of 1." in said
    twice = np.concatenate([images, images[:2]])
    said = odd(arrays(tmp_path / "c", x_train=twice, x_test=images[5:8]))
    assert "2 of the train samples come more than once in train." in said
    assert "3 test samples are in train, too: row 0 of test is row 5 of train." in said
    said = odd(arrays(tmp_path / "d", x_train=RNG.normal(size=(9, 3, 8, 6)), y_train=np.arange(9.0)))
    assert "6 channels and a height of 3: are channels first?" in said
    assert "The targets are whole numbers in floats, so they are real-valued" in said
    fine = arrays(tmp_path / "e", x_train=RNG.normal(size=(9, 4)), y_train=RNG.normal(size=(9, 2)))
    assert odd(fine) == ""
    said = printed("data", fine)
    assert "9 train vectors of 4 numbers, numbers as they are; 2 real-valued targets. output mean" in said
    assert said.endswith("Nothing is odd.")
    assert "9 train vectors" in printed("data", arrays(tmp_path / "f", x_train=RNG.normal(size=(9, 4)).astype("f4")))


def test_images_that_cannot_be_read_and_sizes_that_vary_are_odd(tmp_path):
    images = [encoded(i) for i in COLOUR]
    images[5] = images[5][:40]
    folder = write(tmp_path / "damaged", train=(images, labels_for(23)))
    found = described(folder)
    assert found["splits"]["train"]["looked_at"] == 22
    assert found["odd"][0].startswith("1 image cannot be read, left out by --skip-unreadable 1. The first one: ")
    images = [encoded(i) for i in (*COLOUR[:3], *random_images(3, (12, 5)))]
    found = described(write(tmp_path / "varied", train=(images, labels_for(6))))
    assert "vary in size, from (10, 7) to (12, 5): choose an augmentation" in found["odd"][0]
    assert found["shape"] == [10, 5, 3]


def test_images_that_stream_are_looked_at_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "IN_MEMORY", 0)
    monkeypatch.setattr("ref_bioplaus.experiments.figures.looking.SAMPLED", 5)
    images = [encoded(i) for i in COLOUR]
    found = described(write(tmp_path, train=(images, labels_for(23))))
    assert (found["where"], found["splits"]["train"]["looked_at"]) == ("streams", 5)


def test_embedded_images_are_described_and_shown_in_a_terminal(capsys):
    assert "of 28 x 28 x 1, brightness in uint8; 10 classes. class train test" in printed("data", "embedded")
    text = program.blocks(np.linspace(0, 1, 2 * 6 * 4 * 1).reshape(2, 6, 4, 1), 80)
    lines = text.plain.split("\n")
    assert lines[:3] == ["▀▀▀▀ ▀▀▀▀ "] * 3
    assert str(text.spans[0].style) == "#000000 on #161616"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nothing",), 'The dataset "nothing" is unknown'),
        (("FOLDER", "--out", "first.gif"), "expected .svg or .png"),
        (("FOLDER", "--image-column", "picture"), "are arrays, without any: leave it out"),
        (("FOLDER", "--out", "first.png"), "are vectors, of which there is no picture"),
    ],
)
def test_a_mistake_gets_one_sentence(words, sentence, tmp_path):
    folder = arrays(tmp_path / "a", x_train=RNG.normal(size=(9, 4)))
    assert sentence in printed("data", *(folder if word == "FOLDER" else word for word in words), code=2)


# Columns and splits of tables


def table(folder, splits, **columns):
    """A folder of tables with columns of these features."""
    features = hf.Features({name: feature for name, (feature, _) in columns.items()})
    (folder / "data").mkdir(parents=True)
    for split, n in splits.items():
        rows = {name: values[:n] for name, (_, values) in columns.items()}
        hf.Dataset.from_dict(rows, features=features).to_parquet(folder / "data" / f"{split}-0.parquet")
    return folder


@pytest.fixture
def strange(tmp_path):
    """Two columns of images, two of classes, one of real numbers, and splits of uncommon names."""
    cells = [{"bytes": encoded(i), "path": None} for i in COLOUR]
    other = [{"bytes": encoded(255 - i), "path": None} for i in COLOUR]
    kind = hf.ClassLabel(names=["a", "b", "c"])
    columns = {
        "left": (hf.Image(), cells), "right": (hf.Image(), other), "shape": (kind, labels_for(23)),
        "hue": (kind, labels_for(23)[::-1]), "size": (hf.Value("float32"), [i / 4 for i in range(23)]),
        "note": (hf.Value("string"), [f"note {i}" for i in range(23)]),
    }  # fmt: skip
    folder = table(tmp_path / "strange", {"first": 23, "second": 6}, **columns)
    files = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in ("first", "second"))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    return folder


CHOSEN = ("--image-column", "right", "--label-column", "hue", "--train-split", "first", "--test-split", "second")


def test_columns_and_splits_are_chosen_and_outlive_a_stop(strange, tmp_path):
    found = described(strange, *CHOSEN)
    assert {name: one["samples"] for name, one in found["splits"].items()} == {"train": 23, "test": 6}
    layout = {"image_column": "right", "label_column": "hue", "train_split": "first", "test_split": "second"}
    data = loading.load("x", strange, layout=layout)
    np.testing.assert_array_equal(data.train.pixels, 255 - COLOUR)
    assert data.train.labels.tolist() == labels_for(23)[::-1]
    words = ("--model", "akrout2019/mlp", "--set", "model_options.hidden=4", "--epochs", 1, "--set", "metrics=[]")
    command("train", "--data", strange, *CHOSEN, *words, "--out", tmp_path / "run")
    assert checkpoints.latest(tmp_path / "run").header["experiment"]["layout"] == layout
    assert resume(tmp_path / "run", epochs=2).step == 2
    sentence = printed("train", "--data", strange, *CHOSEN[:2], "--label-column", "shape", *CHOSEN[4:], *words, "--out",
                       tmp_path / "run", "--resume", code=2)  # fmt: skip
    assert "has layout = " in sentence


def test_what_trains_is_not_what_tests(tmp_path):
    images = [encoded(i) for i in COLOUR]
    folder = write(tmp_path, test=(images, labels_for(23)), validation=(images[:4], labels_for(4)))
    found = described(folder, "--train-split", "test")
    assert {name: one["samples"] for name, one in found["splits"].items()} == {"train": 23, "test": 4}


def test_a_column_of_real_numbers_is_learned_where_it_is_named(strange, tmp_path):
    found = described(strange, *CHOSEN[:3], "size", *CHOSEN[4:])
    assert (found["targets"], found["outputs"]) == ("values", 1)
    words = ("--model", "akrout2019/mlp", "--set", "model_options.hidden=4", "--epochs", 1, "--set", "metrics=[]")
    words = ("train", "--data", strange, *CHOSEN[:3], "size", *CHOSEN[4:], *words, "--out", tmp_path / "run")
    assert "but the targets here are real-valued" in printed(*words, code=2)
    assert "test loss" in printed(*words, "--set", "loss=squared-error")


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        ({}, 'has no split "train", only first, second: choose one with --train-split'),
        ({"train_split": "first", "test_split": "test"}, 'has no split "test", only .*: choose one with --test-split'),
        ({"train_split": "first"}, "has 2 columns of images, left, right: choose one with --image-column"),
        ({"train_split": "first", "image_column": "up"}, 'has no column "up", only left, .* with --image-column'),
        ({"train_split": "first", "image_column": "note"}, 'has no images in its column "note", only .*--image-column'),
        ({"train_split": "first", "image_column": "left"}, "2 columns of class labels, shape, hue: .* --label-column"),
        ({"train_split": "first", "image_column": "left", "label_column": "right"}, 'an image in its column "right"'),
        ({"train_split": "first", "image_column": "left", "label_column": "x"}, 'no column "x", .* --label-column'),
        ({"train_split": "first", "image_column": "left", "label_column": "note"}, 'has a "note" of its own'),
    ],
)  # fmt: skip
def test_the_sentence_names_the_option(layout, sentence, strange):
    with pytest.raises(DataError, match=sentence):
        loading.load("x", strange, layout=layout)


def test_what_functions_of_ones_own_give_is_looked_at(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\ndef bars():\n    return np.zeros((6, 5, 4), np.uint8), np.arange(6) % 2\n\n\n"
        "class Foreign:\n    def batches(self):\n        return []\n\n\ndef foreign():\n    return Foreign()\n"
    )
    shown = printed("data", f"{tmp_path / 'mine.py'}:bars")
    assert "6 train images of 5 x 4 x 1" in shown and "2 classes" in shown
    assert "has no" in printed("data", f"{tmp_path / 'mine.py'}:none", code=2)
    assert "of which only `train` knows" in printed("data", f"{tmp_path / 'mine.py'}:foreign", code=2)
