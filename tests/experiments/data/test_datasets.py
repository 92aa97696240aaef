"""Datasets: what is loaded, how it becomes batches, and that these are the same everywhere."""

import gc
import os
import struct
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ref_bioplaus import backends, embedded
from ref_bioplaus.experiments.data import augmentation, loading, streaming
from ref_bioplaus.experiments.data.loading import DataError
from ref_bioplaus.experiments.spec.experiment import Experiment, read
from ref_bioplaus.experiments.training.starting import train
from ref_bioplaus.tree import named_leaves
from tests.conftest import get
from tests.helpers import ROOT, slow
from tests.helpers.images import NAMES, SHAPE, encoded, labels_for, random_images, write

hf = pytest.importorskip("datasets")
REAL = Path(os.environ.get("REF_BIOPLAUS_DATA", ROOT.parent / "shared" / "data"))
pytestmark = pytest.mark.usefixtures("own_cache")
LIBRARIES = [name for name in ("numpy", "torch", "jax", "array-api-strict") if name in backends.installed()]


@pytest.fixture(scope="module")
def pixels():
    return random_images(23), random_images(5, seed=1)


@pytest.fixture(scope="module")
def colour(tmp_path_factory, pixels):
    """Images of 10 x 7 in colour, lossless, one all zero."""
    pixels[0][4] = 0
    train, test = ([encoded(image) for image in part] for part in pixels)
    return write(tmp_path_factory.mktemp("colour"), train=(train, labels_for(23)), test=(test, labels_for(5)))


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """JPEGs whose sizes vary, one of them grey, column "img", and a split "validation"."""
    rng = np.random.default_rng(5)
    images = []
    for i in range(21):
        height, width = int(rng.integers(30, 60)), int(rng.integers(30, 60))
        image = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((width, height))
        images.append(encoded(np.array(image.convert("L") if i == 3 else image), "JPEG", quality=95))
    folder = tmp_path_factory.mktemp("varied")
    return write(folder, "img", train=(images[:17], labels_for(17)), validation=(images[17:], labels_for(4)))


def epoch(data, backend=None, split="train", batch=8, seed=3, number=2, **options):
    backend = backend or backends.get("numpy")
    batches = data.batches(split, backend, batch, seed, number, **options)
    return [(backend.to_numpy(b.x), backend.to_numpy(b.y)) for b in batches]


def brightness(x):
    return np.round(x * 255).astype(np.uint8)


def assert_same(first, second):
    assert len(first) == len(second)
    for (x, y), (x2, y2) in zip(first, second, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)


# What is loaded


def test_splits_labels_and_pixels_are_the_folders(colour, pixels):
    data = loading.load("unused", colour, normalise=False)
    assert (data.splits, data.in_shape, data.classes) == (("train", "test"), (10, 7, 3), tuple(NAMES))
    assert (data.train.count, data.test.count) == (23, 5)
    for split, expected in zip(data.splits, pixels, strict=True):
        batches = epoch(data, split=split, shuffle=False)
        np.testing.assert_array_equal(brightness(np.concatenate([x for x, _ in batches])), expected)
        labels = np.argmax(np.concatenate([y for _, y in batches]), axis=1)
        np.testing.assert_array_equal(labels, labels_for(len(expected)))
        assert [len(x) for x, _ in batches] == ([8, 8, 7] if split == "train" else [5])


def test_grey_images_have_one_channel_and_grey_among_colour_three(tmp_path):
    grey, colour = random_images(3, channels=1), random_images(1)
    folder = write(tmp_path / "grey", train=([encoded(i) for i in grey], [0, 1, 2]))
    data = loading.load("x", folder, normalise=False)
    assert data.in_shape == (10, 7, 1)
    np.testing.assert_array_equal(brightness(epoch(data, shuffle=False)[0][0])[..., 0], grey)
    folder = write(tmp_path / "both", train=([encoded(i) for i in (*grey, *colour)], [0, 1, 2, 0]))
    x = brightness(epoch(loading.load("x", folder, normalise=False), shuffle=False)[0][0])
    np.testing.assert_array_equal(x, [*np.repeat(grey[..., None], 3, axis=3), *colour])


def test_colour_that_is_met_late_still_makes_three_channels(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "PROBED", 2)
    monkeypatch.setattr(loading, "CHUNK", 2)
    grey, colour = random_images(5, channels=1), random_images(1)
    images = [encoded(grey[0]), encoded(grey[1]), encoded(colour[0]), encoded(grey[2]), encoded(grey[3])]
    folder = write(tmp_path, train=(images, labels_for(5)), test=([encoded(grey[4])], [1]))
    data = loading.load("x", folder, normalise=False)
    assert data.in_shape == (10, 7, 3)
    assert data.test.pixels.shape == (1, 10, 7, 3)
    np.testing.assert_array_equal(data.train.pixels[2], colour[0])
    np.testing.assert_array_equal(data.train.pixels[3], np.repeat(grey[2][..., None], 3, axis=2))


def test_an_image_that_lies_on_its_side_is_turned_upright(tmp_path):
    image = random_images(1)[0]
    tags = Image.Exif()
    tags[0x0112] = 6  # turn by 270 degrees
    folder = write(tmp_path, train=([encoded(image, exif=tags)], [1]))
    data = loading.load("x", folder, normalise=False)
    np.testing.assert_array_equal(data.train.pixels[0], np.rot90(image, 3))


def test_sizes_that_vary_need_an_augmentation_that_makes_them_equal(varied):
    with pytest.raises(DataError, match=r"vary in size.*choose an augmentation"):
        loading.load("x", varied)
    data = loading.load("x", varied, augmentation="centre-crop-16x12")
    assert (data.splits, data.in_shape, data.streams, data.test.count) == (("train", "test"), (16, 12, 3), False, 4)


def test_a_test_split_without_labels_gives_way_to_validation(tmp_path):
    image = [encoded(i) for i in random_images(3)]
    folder = write(tmp_path, train=(image, [0, 1, 2]), test=(image, [-1, -1, -1]), validation=(image[:2], [2, 0]))
    data = loading.load("x", folder)
    assert data.test.source.split == "validation" and list(data.test.labels) == [2, 0]


def test_a_test_split_of_null_labels_gives_way_too_and_a_single_null_is_named(tmp_path):
    image = [encoded(i) for i in random_images(3)]
    folder = write(tmp_path / "a", train=(image, [0, 1, 2]), test=(image, [None] * 3), validation=(image[:2], [2, 0]))
    data = loading.load("x", folder)
    assert data.test.source.split == "validation" and list(data.test.labels) == [2, 0]
    folder = write(tmp_path / "b", train=(image, [0, 1, 2]), test=(image, [0, None, 1]))
    with pytest.raises(DataError, match='Row 1 of split "test" of .* has no label: leave it out'):
        loading.load("x", folder)


def test_labels_that_are_words_are_classes_in_order(tmp_path):
    image = [encoded(i) for i in random_images(4)]
    words = ["dog", "ant", "dog", "cat"]
    folder = write(tmp_path / "a", names=None, train=(image, words), test=(image[:2], ["cat", "ant"]))
    data = loading.load("x", folder)
    assert data.classes == ("ant", "cat", "dog")
    assert list(data.train.labels) == [2, 0, 2, 1] and list(data.test.labels) == [1, 0]
    folder = write(tmp_path / "b", names=None, train=(image, words), test=(image[:2], ["ant", "cow"]))
    with pytest.raises(DataError, match='Row 1 of split "test" of .* has the label "cow", which no training image has'):
        loading.load("x", folder)
    many = [encoded(i) for i in random_images(21)]
    folder = write(tmp_path / "c", names=None, train=(many, [f"a picture, number {i}" for i in range(21)]))
    with pytest.raises(DataError, match='Every image of .* has a "label" of its own, as "a picture, number 0"'):
        loading.load("x", folder)


def test_of_several_configurations_one_is_chosen(tmp_path):
    image = [encoded(i) for i in random_images(4)]
    for name, labels in (("cropped", [0, 1, 2, 0]), ("full", [2, 2, 1, 0])):
        write(tmp_path / name, train=(image, labels), test=(image[:1], labels[:1]))
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/data/train-*\n"
        for name in ("cropped", "full")
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    with pytest.raises(DataError, match="has 2 configurations: choose one of cropped, full with --config"):
        loading.load("x", tmp_path)
    with pytest.raises(DataError, match='has no configuration "fall": choose one of cropped, full with --config'):
        loading.load("x", tmp_path, config="fall")
    assert list(loading.load("x", tmp_path, config="full").train.labels) == [2, 2, 1, 0]
    small = Experiment(
        model="akrout2019/mlp",
        model_options={"hidden": 4},
        data=str(tmp_path),
        test=False,
        held_out=1,
        batch=2,
        epochs=1,
    )
    with pytest.raises(DataError, match="2 configurations"):
        train(small, tmp_path / "none")
    train(replace(small, config="cropped"), tmp_path / "run")
    assert read(tmp_path / "run" / "experiment.toml").config == "cropped"


def test_held_out_images_are_a_fixed_choice(colour):
    whole, data = loading.load("x", colour), loading.load("x", colour, held_out=6)
    assert data.splits == ("train", "validation", "test")
    assert (data.train.count, data.validation.count) == (17, 6)
    np.testing.assert_array_equal(np.sort([*data.train.rows, *data.validation.rows]), np.arange(23))
    np.testing.assert_array_equal(data.validation.rows, loading.load("x", colour, held_out=6).validation.rows)
    assert set(data.validation.rows) < set(loading.load("x", colour, held_out=7).validation.rows)
    assert list(data.validation.rows) != list(range(17, 23))
    np.testing.assert_array_equal(data.validation.pixels, whole.train.pixels[data.validation.rows])
    np.testing.assert_array_equal(data.validation.labels, whole.train.labels[data.validation.rows])
    for wrong in (-1, 23):
        with pytest.raises(DataError, match=f"held_out is {wrong}, expected 0 to 22"):
            loading.load("x", colour, held_out=wrong)


def test_the_mean_and_deviation_are_those_of_the_training_images(colour, pixels):
    data = loading.load("x", colour)
    np.testing.assert_allclose(data.mean, pixels[0].mean(axis=(0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(data.deviation, pixels[0].std(axis=(0, 1, 2)) / 255, rtol=1e-12)
    x = np.concatenate([x for x, _ in epoch(data, backends.get("numpy", dtype="float64"))])
    np.testing.assert_allclose(x.mean(axis=(0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(x.std(axis=(0, 1, 2)), 1, rtol=1e-12)
    held = loading.load("x", colour, held_out=6)
    np.testing.assert_allclose(held.mean, held.train.pixels.mean(axis=(0, 1, 2)) / 255, rtol=1e-12)


def test_images_of_one_brightness_are_not_divided_by_zero(tmp_path):
    folder = write(tmp_path, train=([encoded(np.full((10, 7), 9, np.uint8))], [0]))
    data = loading.load("x", folder)
    assert np.all(epoch(data)[0][0] == 0)
    assert (data.mean, data.deviation) == (9 / 255, 1.0)  # other images keep their differences of brightness


def test_a_local_copy_is_known_by_its_classes_and_its_brightness(tmp_path):
    """Digits of another brightness, or numbered by no names, have a mean and a deviation of their own."""
    like = np.zeros((28, 28), np.uint8)
    like.flat[:120] = 218  # mean 0.131, deviation 0.308
    for name, image in (("like", like), ("bright", 255 - like), ("dark", like // 2)):
        for options in ({}, {"stream": True, "augmentation": "crop-9", "workers": 0}):
            folder = write(tmp_path / name, names=list("0123456789"), train=([encoded(image)] * 3, [0, 4, 9]))
            data = loading.load("x", folder, held_out=1, **options)
            assert ((data.mean, data.deviation) == (0.1307, 0.3081)) == (name == "like")
            data.close()
    cells = [{"bytes": encoded(like), "path": None}] * 2
    table = hf.Dataset.from_dict({"image": cells, "label": [0, 9]}).cast_column("image", hf.Image())
    (tmp_path / "integers" / "data").mkdir(parents=True)
    table.to_parquet(tmp_path / "integers" / "data" / "train.parquet")
    data = loading.load("x", tmp_path / "integers")
    assert (data.mean, data.deviation) == (pytest.approx(like.mean() / 255), pytest.approx(like.std() / 255))


def test_the_embedded_images():
    data, images = loading.load("embedded", held_out=1000), embedded.fashion_mnist_small()
    assert (data.train.count, data.validation.count, data.test.count) == (4000, 1000, 1000)
    x, y = epoch(loading.load("embedded", normalise=False), split="test", batch=999, shuffle=False)[1]
    np.testing.assert_allclose(x, images.test_x[999:], rtol=1e-6)
    np.testing.assert_array_equal(y, images.test_y[999:])
    with pytest.raises(DataError, match="not resized"):
        loading.load("embedded", augmentation="resize-8")


# Batches


@pytest.mark.parametrize("name", ["none", "flip", "flip-crop", "flip-crop-6x5"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_are_the_same_on_every_library(colour, name, dtype):
    data = loading.load("x", colour, augmentation=name)
    expected = epoch(data, backends.get("numpy", dtype=dtype))
    assert [x.shape[0] for x, _ in expected] == [8, 8, 7] and expected[0][0].dtype == dtype
    for library in LIBRARIES:
        assert_same(expected, epoch(data, backends.get(library, dtype=dtype)))


@pytest.mark.parametrize("name", ["none", "flip-crop", "flip-crop-6x5", "flip-random-resized-crop-9"])
def test_an_epoch_continues_in_its_middle(colour, name):
    data = loading.load("x", colour, augmentation=name, workers=0)
    whole = epoch(data)
    for start in (1, 2, 3):
        assert_same(whole[start:], epoch(data, start=start))


def test_orders_differ_between_epochs_seeds_and_splits(colour):
    data = loading.load("x", colour, held_out=11)
    orders = [data.order("train", seed, number) for seed, number in ((0, 0), (0, 1), (1, 0), (1 << 40, 0))]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(12))
    data.validation = replace(data.train, name="validation")  # as many images
    orders.append(data.order("validation", 0, 0))
    assert len({tuple(order) for order in orders}) == 5
    np.testing.assert_array_equal(data.order("train", 0, 1, shuffle=False), np.arange(12))


def test_labels_stay_with_their_images(colour, pixels):
    data = loading.load("x", colour, normalise=False)
    known = {image.tobytes(): i % 3 for i, image in enumerate(pixels[0])}
    for x, y in epoch(data):
        assert [known[image.tobytes()] for image in brightness(x)] == list(np.argmax(y, axis=1))
        assert np.all(y.sum(axis=1) == 1)


def test_a_batch_of_one_the_last_batch_and_vectors(colour):
    data = loading.load("x", colour)
    assert [len(x) for x, _ in epoch(data, batch=1)] == [1] * 23 and data.train.steps(1) == 23
    assert [len(x) for x, _ in epoch(data, batch=9)] == [9, 9, 5]
    assert data.train.steps(9) == 3 and data.train.steps(100) == 1
    for (x, _), (flat, _) in zip(epoch(data), epoch(data, flatten=True), strict=True):
        np.testing.assert_array_equal(x.reshape(len(x), -1), flat)


def test_what_cannot_be_a_batch_is_refused(colour):
    data, backend = loading.load("x", colour), backends.get("numpy")
    with pytest.raises(DataError, match='no split "validation": load it with held_out'):
        data.batches("validation", backend, 8, 0, 0)
    with pytest.raises(DataError, match="batch is 0"):
        data.batches("train", backend, 0, 0, 0)
    with pytest.raises(DataError, match="seed is -1"):
        data.batches("train", backend, 8, -1, 0)


def test_images_go_to_the_device_once(colour, monkeypatch):
    data, backend = loading.load("x", colour, augmentation="flip-crop"), backends.get("numpy")
    sent = []
    asarray = type(backend).asarray
    monkeypatch.setattr(
        type(backend), "asarray", lambda self, a, d=None: (sent.append(np.size(a)), asarray(self, a, d))[1]
    )
    epoch(data, backend)
    assert max(sent) >= data.train.pixels.size
    del sent[:]
    epoch(data, backend, number=3)
    assert max(sent) <= 8 * 10 * 7


@pytest.mark.parametrize("name", ["numpy", "jax"])
def test_what_was_on_a_device_goes_with_its_backend(colour, name, quick_compiler):
    get(name, "float32")
    for augmented in ("none", "flip-crop"):
        data, functions = loading.load("x", colour, augmentation=augmented), set()
        for _ in range(3):
            backend = backends.get(name)
            for number in (0, 1):
                epoch(data, backend, number=number)
            functions.add(len(backend.kept))
        del backend
        gc.collect()
        assert (len(data.on_device), functions) == (0, {1})


# Augmentation, against plain forms of it


def words_of(data, seed=3, number=2):
    """The random words of every image of the source, (n, words)."""
    return augmentation.image_words(data.augmentation, seed, number, np.arange(100))


def fraction(word):
    return int(word) / 2**32


def plain_crop(image, words, size, border):
    padded = np.pad(image, ((border, border), (border, border), (0, 0)))
    top = int(fraction(words[1]) * (padded.shape[0] - size[0] + 1))
    left = int(fraction(words[2]) * (padded.shape[1] - size[1] + 1))
    image = padded[top : top + size[0], left : left + size[1]]
    return np.flip(image, 1) if fraction(words[0]) >= 0.5 else image


@pytest.mark.parametrize(
    ("name", "size", "border"), [("flip", SHAPE, 0), ("flip-crop", SHAPE, 4), ("flip-crop-6x5", (6, 5), 0)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_crops_and_flips(colour, pixels, name, size, border, stream):
    data = loading.load("x", colour, augmentation=name, normalise=False, stream=stream, workers=0, held_out=4)
    words, order = words_of(data), data.order("train", 3, 2)
    found = brightness(np.concatenate([x for x, _ in epoch(data)]))
    for image, row in zip(found, data.train.rows[order], strict=True):
        np.testing.assert_array_equal(image, plain_crop(pixels[0][row], words[row], size, border))
    flips = [fraction(w[0]) >= 0.5 for w in words]
    assert 30 < sum(flips) < 70


@pytest.mark.parametrize("stream", [False, True])
def test_outside_training_the_crop_is_central_and_nothing_is_mirrored(colour, pixels, stream):
    for name, rows, columns in (("flip-crop", slice(None), slice(None)), ("flip-crop-6x5", slice(2, 8), slice(1, 6))):
        data = loading.load("x", colour, augmentation=name, normalise=False, stream=stream, workers=0)
        for split, images in zip(("train", "test"), pixels, strict=True):
            found = brightness(np.concatenate([x for x, _ in epoch(data, split=split, shuffle=False)]))
            np.testing.assert_array_equal(found, images[:, rows, columns])


def opened(folder, split, row):
    table = hf.load_dataset(str(folder))[split]
    return table[row]["img"].convert("RGB")


def test_centre_crops_are_torchvisions(varied):
    """Resize so that the shorter side is 256 for 224, then the central crop."""
    data = loading.load("x", varied, augmentation="centre-crop-21", normalise=False)
    found = brightness(np.concatenate([x for x, _ in epoch(data, split="test", shuffle=False)]))
    for row, image in enumerate(found):
        source = opened(varied, "validation", row)
        w, h = source.size
        size = (24, int(24 * h / w)) if w <= h else (int(24 * w / h), 24)
        source = source.resize(size, Image.BILINEAR)
        left, top = round((size[0] - 21) / 2), round((size[1] - 21) / 2)
        np.testing.assert_array_equal(image, np.array(source)[top : top + 21, left : left + 21])


def plain_box(width, height, words):
    """torchvision's RandomResizedCrop, with our random words."""
    words = list(words[3:])
    for _ in range(10):
        area, ratio, y, x = (fraction(words.pop(0)) for _ in range(4))
        area = (0.08 + 0.92 * area) * width * height
        ratio = np.exp(np.log(0.75) + ratio * (np.log(4 / 3) - np.log(0.75)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(y * (height - h + 1)), int(x * (width - w + 1))
            return left, top, left + w, top + h
    raise AssertionError("no attempt fitted")


def test_random_resized_crops(varied):
    data = loading.load("x", varied, augmentation="flip-random-resized-crop-14x11", normalise=False, workers=0)
    assert data.streams and data.in_shape == (14, 11, 3)
    words, order = words_of(data), data.order("train", 3, 2)
    found = brightness(np.concatenate([x for x, _ in epoch(data)]))
    for image, row in zip(found, order, strict=True):
        source = opened(varied, "train", int(row))
        box = plain_box(*source.size, words[row])
        expected = np.array(source.crop(box).resize((11, 14), Image.BILINEAR))
        np.testing.assert_array_equal(image, expected[:, ::-1] if fraction(words[row][0]) >= 0.5 else expected)


def test_boxes_of_random_area_and_aspect_lie_in_the_image():
    plan = augmentation.parse("random-resized-crop-5")
    words = augmentation.image_words(plan, 0, 0, np.arange(400))
    boxes = np.array([augmentation.random_box(30, 47, w) for w in words])
    top, left, height, width = boxes.T
    assert np.all((top >= 0) & (left >= 0) & (top + height <= 30) & (left + width <= 47))
    assert 0.07 < (height * width / (30 * 47)).min() < 0.12 and (height * width / (30 * 47)).max() > 0.8
    assert 0.7 < (width / height).min() < 0.85 and 1.2 < (width / height).max() < 1.4
    narrow = augmentation.random_box(100, 4, np.zeros(43, np.uint32) + np.uint32(2**32 - 1))
    assert narrow == (47, 0, 5, 4)  # no attempt fits: the central box of the nearest aspect


def test_small_and_varied_images_are_resized_before_a_crop_of_a_size(varied):
    data = loading.load("x", varied, augmentation="crop-21", normalise=False, workers=0)
    words, order = words_of(data), data.order("train", 3, 2)
    found = brightness(np.concatenate([x for x, _ in epoch(data)]))
    for image, row in zip(found, order, strict=True):
        source = opened(varied, "train", int(row))
        w, h = source.size
        source = source.resize((24, int(24 * h / w)) if w <= h else (int(24 * w / h), 24), Image.BILINEAR)
        expected = plain_crop(np.array(source), [0, *words[row][1:3]], (21, 21), 0)
        np.testing.assert_array_equal(image, expected)


def test_resizing_in_memory_and_streaming_agree(varied):
    for name in ("flip-resize-9x8", "flip-centre-crop-9"):
        memory = loading.load("x", varied, augmentation=name, held_out=3)
        stream = loading.load("x", varied, augmentation=name, held_out=3, stream=True, workers=0)
        assert (memory.streams, stream.streams) == (False, True)
        np.testing.assert_allclose(memory.mean, stream.mean, rtol=1e-12)
        stream.mean, stream.deviation = memory.mean, memory.deviation
        for split in memory.splits:
            assert_same(epoch(memory, split=split), epoch(stream, split=split))


@pytest.mark.parametrize("name", ["", "crop-0", "centre-crop", "flip-none", "crop-4x", "rotate-3", "resize-5x0"])
def test_unknown_augmentations_are_refused(name):
    with pytest.raises(DataError, match="is unknown: .* none, flip, crop, crop-24"):
        augmentation.parse(name)


def test_permutations_are_even():
    """Each of 4 numbers stands in each of 4 places a quarter of the time."""
    keys = [augmentation.permutation((augmentation.host_key(seed), "shuffle"), 4) for seed in range(800)]
    counts = np.array([[sum(k[place] == n for k in keys) for n in range(4)] for place in range(4)])
    assert counts.min() > 150 and counts.max() < 250


# Streams


def test_processes_give_the_same_batches_and_end(varied):
    options = {"augmentation": "flip-random-resized-crop-14x11", "normalise": False}
    threads, data = (loading.load("x", varied, workers=workers, **options) for workers in (0, 2))
    assert_same(epoch(threads, batch=5), epoch(data, batch=5))
    left = data.batches("train", backends.get("numpy"), 5, 0, 0)
    next(left)  # an epoch begun and left does not hold up another
    assert_same(epoch(threads, split="test"), epoch(data, split="test"))
    assert loading.images_per_second(data, batch=4, batches=3) > 0
    for library in LIBRARIES:
        assert_same(epoch(threads), epoch(data, backends.get(library)))
    left.close()
    assert len(data.decoders.free) == data.decoders.ahead
    processes = list(data.decoders.executor._processes.values())
    assert len(processes) == 2
    data.close()
    assert not any(p.is_alive() for p in processes)


def test_what_was_decoded_does_not_lie_where_the_next_task_writes():
    decoders = streaming.Decoders({}, (2, 3, 1), 0)
    decoders.slots = np.ones((1, streaming.PART, 2, 3, 1), np.uint8)
    done = Future()
    done.set_result(None)
    pixels = decoders.take(streaming.Task(done, 0, 5))
    assert decoders.free == [0]
    decoders.slots[0] = 0
    assert np.array_equal(pixels, np.ones((5, 2, 3, 1), np.uint8))
    decoders.close()


def test_prefetching_is_bounded(varied, monkeypatch):
    monkeypatch.setattr(streaming, "PART", 1)
    data = loading.load("x", varied, augmentation="random-resized-crop-9", normalise=False, workers=0)
    data.workers = 0
    monkeypatch.setattr(streaming, "AHEAD", 3)
    monkeypatch.setattr(streaming, "cores", lambda: 1)
    submitted = []
    submit = streaming.Decoders.submit
    monkeypatch.setattr(streaming.Decoders, "submit", lambda self, *a: (submitted.append(1), submit(self, *a))[1])
    batches = data.batches("train", backends.get("numpy"), 2, 0, 0)
    assert not submitted
    next(batches)
    assert len(submitted) == 4  # 3 at first, and one more when the first was taken


def damaged_folder(folder, at=5):
    images = [encoded(i, "JPEG") for i in random_images(9, (40, 30))]
    images[at] = images[at][:300]
    return write(folder, train=(images, labels_for(9)), shards=2)


@pytest.mark.parametrize("options", [{"stream": False}, {"stream": True, "workers": 0}, {"stream": True, "workers": 1}])
def test_a_damaged_image_is_named_with_its_file_and_row(tmp_path, monkeypatch, options):
    monkeypatch.setattr(loading, "PROBED", 2)
    folder = damaged_folder(tmp_path)
    with pytest.raises(
        DataError, match=r"\(5.img\) in row 5 of split \"train\", row 0 of .*train-00001-of-00002.parquet is damaged"
    ):
        data = loading.load("x", folder, normalise=False, **options)
        try:
            epoch(data)
        finally:
            data.close()


def test_what_any_decoder_raises_names_the_image(tmp_path, monkeypatch):
    images = [encoded(i) for i in random_images(3, (40, 30))]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # a bomb has twice as many
    with pytest.raises(DataError, match=r"row 0 .* is damaged \(DecompressionBombError"):
        loading.load("x", write(tmp_path / "bomb", train=(images, labels_for(3))))
    monkeypatch.undo()
    folder = write(tmp_path / "short", train=(images, labels_for(3)))
    monkeypatch.setattr(Image, "open", raising(struct.error("unpack requires a buffer of 12 bytes")))
    with pytest.raises(DataError, match=r"row 0 .* is damaged \(error: unpack requires"):
        loading.load("x", folder)


def test_an_image_of_another_size_met_late_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "PROBED", 2)
    images = [encoded(i) for i in random_images(3)]
    images[1] = encoded(random_images(1, (9, 8))[0])
    folder = write(tmp_path, train=(images, [0, 1, 2]))
    with pytest.raises(DataError, match="row 1 .* has 9 x 8 pixels, not 10 x 7 as others"):
        loading.load("x", folder)


SCRIPT = """
import os, signal, sys, time
from ref_bioplaus import backends
from ref_bioplaus.experiments.data import loading
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    data = loading.load("x", sys.argv[1], augmentation="random-resized-crop-9", normalise=False, workers=2)
    batches = data.batches("train", backends.get("numpy"), 2, 0, 0)
    next(batches)
    print(*data.decoders.executor._processes, flush=True)
    {end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("os.kill(os.getpid(), 9)", -9), ("raise RuntimeError", 1), ("os.kill(os.getpid(), 2); time.sleep(60)", -2)],
    ids=["killed", "exception", "ctrl-c"],
)
def test_no_process_is_left_behind(varied, tmp_path, end, code):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("{end}", end))
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, script, varied],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=100,
    )
    assert done.returncode == code
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) == 2
    until = time.monotonic() + 10
    while any(map(running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(running, workers))


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_process_that_dies_is_said_to_have(varied):
    data = loading.load("x", varied, augmentation="random-resized-crop-9", normalise=False, workers=1)
    batches = data.batches("train", backends.get("numpy"), 1, 0, 0)
    next(batches)
    for process in data.decoders.executor._processes.values():
        process.kill()
        process.join()
    time.sleep(0.2)
    with pytest.raises(DataError, match="has died"):
        epoch(data)
    data.close()


# What cannot be had


def test_folders_without_images_or_labels(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        loading.load("x", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no images"):
        loading.load("x", tmp_path / "empty")
    (tmp_path / "text" / "data").mkdir(parents=True)
    hf.Dataset.from_dict({"label": [1], "text": ["a"]}).to_parquet(tmp_path / "text" / "data" / "train.parquet")
    with pytest.raises(DataError, match="no column of images, only label, text"):
        loading.load("x", tmp_path / "text")
    (tmp_path / "bare" / "data").mkdir(parents=True)
    image = {"bytes": encoded(random_images(1)[0]), "path": None}
    table = hf.Dataset.from_dict({"image": [image], "name": ["a"]}).cast_column("image", hf.Image())
    table.to_parquet(tmp_path / "bare" / "data" / "train.parquet")
    with pytest.raises(DataError, match="no class label for an image, only image, name"):
        loading.load("x", tmp_path / "bare")
    folder = write(tmp_path / "tests", test=([image["bytes"]], [0]))
    with pytest.raises(DataError, match='no split "train", only test'):
        loading.load("x", folder)


def test_integer_labels_without_names(tmp_path):
    images = [{"bytes": encoded(i), "path": None} for i in random_images(3)]
    table = hf.Dataset.from_dict({"image": images, "label": [0, 4, 2]}).cast_column("image", hf.Image())
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data" / "train.parquet")
    data = loading.load("x", tmp_path)
    assert data.classes == ("0", "1", "2", "3", "4") and list(data.train.labels) == [0, 4, 2] and data.test is None


def test_wrong_and_missing_labels_and_images(tmp_path):
    images = [encoded(i) for i in random_images(3)]
    folder = write(tmp_path / "minus", train=(images, [0, -1, 2]))
    with pytest.raises(DataError, match="Row 1 .* has the label -1, expected 0 to 2"):
        loading.load("x", folder)
    (tmp_path / "many" / "data").mkdir(parents=True)
    for split, label in (("train", 1), ("test", 2)):
        table = hf.Dataset.from_dict({"image": [{"bytes": images[0], "path": None}], "label": [label]})
        table.cast_column("image", hf.Image()).to_parquet(tmp_path / "many" / "data" / f"{split}.parquet")
    with pytest.raises(DataError, match='Row 0 of split "test" .* has the label 2, expected 0 to 1'):
        loading.load("x", tmp_path / "many")
    folder = write(tmp_path / "none", train=(images, [0, 1, None]))
    with pytest.raises(DataError, match="Row 2 .* has no label"):
        loading.load("x", folder)
    cells = hf.Features(
        {"image": {"bytes": hf.Value("binary"), "path": hf.Value("string")}, "label": hf.Value("int64")}
    )
    table = hf.Dataset.from_dict({"image": [{"bytes": images[0], "path": None}, None], "label": [0, 1]}, features=cells)
    (tmp_path / "bytes" / "data").mkdir(parents=True)
    table.cast_column("image", hf.Image()).to_parquet(tmp_path / "bytes" / "data" / "train.parquet")
    with pytest.raises(DataError, match="row 1 .* has no image"):
        loading.load("x", tmp_path / "bytes")
    deep = encoded(np.arange(70, dtype=np.uint16).reshape(10, 7) * 900)
    folder = write(tmp_path / "deep", train=([deep], [0]))
    with pytest.raises(DataError, match='pixels of mode "I;16": expected 8 bits'):
        loading.load("x", folder)


def test_a_damaged_file_is_named(tmp_path):
    images = [encoded(i) for i in random_images(4, (40, 30))]
    folder = write(tmp_path, train=(images, labels_for(4)), test=(images, labels_for(4)))
    file = next((folder / "data").glob("test*"))
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataError, match=rf"The file .*{file.name} is damaged"):
        loading.load("x", folder)


def raising(error):
    def load_dataset(*arguments, **options):
        raise error

    return load_dataset


def test_the_hubs_refusals_become_sentences(monkeypatch):
    monkeypatch.setattr(hf.config, "HF_HUB_OFFLINE", False)

    def refused(error):
        monkeypatch.setattr(hf, "load_dataset_builder", raising(error))
        with pytest.raises(DataError) as caught:
            loading.load("ILSVRC/imagenet-1k")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    gated = hf.exceptions.DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub. You must be authenticated")
    assert "accept its terms on https://huggingface.co/datasets/ILSVRC/imagenet-1k" in refused(gated)
    assert "has no dataset" in refused(hf.exceptions.DatasetNotFoundError("Dataset 'x' doesn't exist on the Hub"))
    assert "cannot be reached" in refused(ConnectionError("Couldn't reach 'x' on the Hub"))
    nested = RuntimeError("outer")
    nested.__cause__ = TimeoutError("timed out")
    assert "cannot be reached" in refused(nested)
    assert "delete its cache" in refused(ValueError("strange"))


def test_a_cache_that_cannot_be_written_is_not_the_folders_fault(colour, monkeypatch):
    for error in (FileNotFoundError(2, "No such file", "/proc/nope"), PermissionError(13, "Denied", "/elsewhere/lock")):
        monkeypatch.setattr(hf, "load_dataset_builder", raising(error))
        for arguments in (("x", colour), ("ylecun/mnist",)):
            with pytest.raises(DataError, match=rf"cache .* cannot be used .*{error.filename}\): set HF_HOME"):
                loading.load(*arguments)
    monkeypatch.setattr(hf, "load_dataset_builder", raising(PermissionError(13, "Denied", str(colour / "data"))))
    with pytest.raises(DataError, match="The folder .* cannot be read"):
        loading.load("x", colour)


def test_an_id_of_three_parts_is_refused_unless_it_is_a_folder(colour):
    for name in ("a/b/c", "/nowhere", "./nowhere"):
        with pytest.raises(DataError, match=f'The dataset "{name}" is no id of the Hugging Face hub, and no folder'):
            loading.load(name)
    assert loading.load(str(colour)).train.count == 23


def test_offline_without_a_cache_is_said_so(tmp_path):
    program = (
        "from ref_bioplaus.experiments.data import loading\n"
        "try: loading.load('ylecun/mnist')\n"
        "except loading.DataError as error: print(error)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_DATASETS_CACHE", None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.startswith('The dataset "ylecun/mnist" is not in the cache, and HF_HUB_OFFLINE'), done
    assert done.stdout.count("\n") == 1


def test_without_the_extra_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets pillow"):
        loading.load("ylecun/mnist")
    assert loading.load("embedded").train.count == 5000


def test_the_import_is_late():
    look = "{'datasets', 'PIL', 'torch', 'jax'} & set(sys.modules)"
    program = f"import sys, ref_bioplaus.experiments.data.loading; print({look})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# The real folders


def real(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is not there: set REF_BIOPLAUS_DATA to a folder that holds it")
    return REAL / name


def test_real_mnist():
    data = loading.load("x", real("mnist"), held_out=10_000)
    assert (data.train.count, data.validation.count, data.test.count) == (50_000, 10_000, 10_000)
    assert (data.in_shape, data.classes) == ((28, 28, 1), tuple("0123456789"))
    pixels = np.concatenate([data.train.pixels, data.validation.pixels])
    assert (round(pixels.mean() / 255, 4), round(pixels.std() / 255, 4)) == (data.mean[0], data.deviation[0])
    assert list(np.bincount(data.test.labels)) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize(
    ("name", "augmented", "splits", "shape"),
    [
        ("cifar10-small", "flip-crop", ("train", "test"), (32, 32, 3)),
        ("cifar10-small", "flip-crop-24", ("train", "test"), (24, 24, 3)),
        ("imagenet-mini", "none", ("train", "test"), (224, 224, 3)),
        ("imagenet-mini", "flip-random-resized-crop-224", ("train", "test"), (224, 224, 3)),
        ("imagenet-fullsize", "flip-crop-299", ("train",), (299, 299, 3)),
        ("imagenet-fullsize", "centre-crop-224", ("train",), (224, 224, 3)),
    ],
)
def test_the_real_folders_load(name, augmented, splits, shape):
    data = loading.load("x", real(name), augmentation=augmented, workers=0)
    assert (data.splits, data.in_shape) == (splits, shape)
    batches = data.batches("train", backends.get("numpy"), 16, 0, 0)
    x, y = next(batches)
    assert x.shape == (16, *shape) and y.shape == (16, len(data.classes)) and 0.5 < x.std() < 2
    batches.close()
    data.close()


def test_real_boxes_are_no_classes():
    with pytest.raises(DataError, match="no class label for an image"):
        loading.load("x", real("coco-mini"))


REAL_IMAGES = {"cifar10-small": "flip-crop", "imagenet-mini": "flip-random-resized-crop-224"}


def resnet18_learns(folder, out, **fields):
    """The mean loss of a narrow ResNet-18's first three steps on real images, a state that has moved behind it."""
    experiment = Experiment(
        algorithm="sn", model="akrout2019/resnet18", model_options={"width": 1 / 16}, data=str(real(folder)), batch=10,
        augmentation=REAL_IMAGES[folder], steps=3, held_out=4, test=False, metrics=(),
        optimizer={"name": "sgd", "eta": 1e-3}, **fields,
    )  # fmt: skip
    run = train(experiment, out)
    assert run.step == run.records[-1]["step"] == 3
    for name, leaf in named_leaves((run.state.forward.params, run.state.forward.memory)):
        array = run.backend.to_numpy(leaf)
        assert np.all(np.isfinite(array)) and np.any(array), name
    return run.records[-1]["train_loss"]


@pytest.fixture(scope="module", params=REAL_IMAGES)
def learned_in_double(request, tmp_path_factory):
    """A folder, and the loss of NumPy in double precision with two seeds."""
    out, double = tmp_path_factory.mktemp(request.param), {"kernels": "portable", "dtype": "float64"}
    return request.param, *(resnet18_learns(request.param, out / str(seed), seed=seed, **double) for seed in (0, 1))


@pytest.mark.parametrize("name", ["numpy", "torch", slow("jax")])
def test_resnet18_learns_the_same_from_real_images_on_every_backend(learned_in_double, name, tmp_path):
    get(name, "float32")
    folder, loss, other = learned_in_double
    assert resnet18_learns(folder, tmp_path, backend=name) == pytest.approx(loss, rel=1e-3)
    assert other != pytest.approx(loss, rel=1e-3)
