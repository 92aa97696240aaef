"""The embedded images: what the package's file holds, the minibatches made of it, and the script that made it."""

import gzip
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ref_bioplaus import embedded

DATA = Path(embedded.__file__).parent
SCRIPT = DATA / "make_fashion_mnist_small.py"


@pytest.fixture(scope="module")
def images() -> embedded.Images:
    return embedded.fashion_mnist_small()


@pytest.fixture(scope="module")
def numbered() -> embedded.Images:
    """5,000 one-pixel training images whose pixel is their row number; every label row repeats it."""
    rows = np.arange(5000, dtype=np.float32)
    x, y = rows.reshape(-1, 1, 1, 1), np.repeat(rows[:, None], 10, axis=1)
    return embedded.Images(x, y, x[:0], y[:0], embedded.CLASSES)


def row_numbers(images: embedded.Images, batch_size: int, epoch: int, seed: int) -> np.ndarray:
    return np.concatenate([x.ravel() for x, _ in embedded.batches(images, batch_size, epoch, seed)])


# The package's file


@pytest.mark.parametrize(("part", "count"), [("train", 5000), ("test", 1000)])
def test_shapes_and_dtypes(images: embedded.Images, part: str, count: int) -> None:
    x, y = getattr(images, f"{part}_x"), getattr(images, f"{part}_y")
    assert x.shape == (count, 28, 28, 1) and x.dtype == np.float32
    assert y.shape == (count, 10) and y.dtype == np.float32


@pytest.mark.parametrize("part", ["train", "test"])
def test_brightness_is_the_pixel_over_255(images: embedded.Images, part: str) -> None:
    x = getattr(images, f"{part}_x")
    assert x.min() == 0 and x.max() == 1
    with np.load(DATA / embedded.FILE_NAME) as archive:
        np.testing.assert_array_equal(np.rint(x[..., 0] * 255), archive[f"{part}_images"])


@pytest.mark.parametrize(("part", "per_class"), [("train", 500), ("test", 100)])
def test_labels_are_one_hot_and_classes_equally_many(images: embedded.Images, part: str, per_class: int) -> None:
    y = getattr(images, f"{part}_y")
    assert set(np.unique(y)) == {0, 1}
    np.testing.assert_array_equal(y.sum(axis=1), np.ones(len(y)))
    np.testing.assert_array_equal(y.sum(axis=0), np.full(10, per_class))
    with np.load(DATA / embedded.FILE_NAME) as archive:
        np.testing.assert_array_equal(y.argmax(axis=1), archive[f"{part}_labels"])


def test_class_names_fit_the_pictures(images: embedded.Images) -> None:
    assert images.classes == (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    mean = images.train_x[..., 0].mean(axis=(1, 2))
    by_name = {name: mean[images.train_y[:, k] == 1].mean() for k, name in enumerate(images.classes)}
    assert min(by_name, key=by_name.__getitem__) == "Sandal"  # straps only: the least covered picture
    height = (images.train_x[..., 0].max(axis=2) > 0.2).sum(axis=1)  # lit rows
    width = (images.train_x[..., 0].max(axis=1) > 0.2).sum(axis=1)  # lit columns
    ratio = {name: (height / width)[images.train_y[:, k] == 1].mean() for k, name in enumerate(images.classes)}
    assert max(ratio, key=ratio.__getitem__) in ("Trouser", "Dress")  # tall and narrow
    assert min(ratio, key=ratio.__getitem__) == "Sneaker"  # wide and flat


def test_no_test_image_is_a_training_image(images: embedded.Images) -> None:
    train = {x.tobytes() for x in images.train_x}
    assert len(train) == 5000
    assert not train & {x.tobytes() for x in images.test_x}


def test_classes_are_mixed_in_file_order(images: embedded.Images) -> None:
    labels = images.train_y.argmax(axis=1)
    assert np.mean(labels[1:] == labels[:-1]) < 0.15  # 0.1 if independent, 0.998 if sorted by class
    assert images.train_y[:128].sum(axis=0).min() >= 4


def test_file_is_small_and_has_its_licence_beside_it() -> None:
    assert (DATA / embedded.FILE_NAME).stat().st_size < 3_000_000
    licence = (DATA / "LICENSE.fashion_mnist").read_text(encoding="utf-8")
    assert "Copyright (c) 2017 Zalando SE" in licence and "Permission is hereby granted, free of charge" in licence


def test_missing_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "DATA_FOLDER", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"^The data file .*small\.npz is missing: install the package again\.$"
    ):
        embedded.fashion_mnist_small()


@pytest.mark.parametrize("damage", ["cut short", "one byte changed", "empty"])
def test_damaged_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    content = bytearray((DATA / embedded.FILE_NAME).read_bytes())
    if damage == "one byte changed":
        content[len(content) // 2] ^= 1
    else:
        del content[0 if damage == "empty" else 1000 :]
    (tmp_path / embedded.FILE_NAME).write_bytes(content)
    monkeypatch.setattr(embedded, "DATA_FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"^The data file .*small\.npz is damaged: .*\(expected sha256 .*\)\.$"):
        embedded.fashion_mnist_small()


@pytest.mark.parametrize("fault", ["absent", "shape", "dtype"])
def test_arrays_other_than_expected_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    with np.load(DATA / embedded.FILE_NAME) as archive:
        arrays = {name: archive[name] for name in archive.files}
    labels = arrays.pop("test_labels")
    if fault != "absent":
        arrays["test_labels"] = labels[:-1] if fault == "shape" else labels.astype(np.int64)
    np.savez(tmp_path / embedded.FILE_NAME, **arrays)
    monkeypatch.setattr(embedded, "DATA_FOLDER", tmp_path)
    content = (tmp_path / embedded.FILE_NAME).read_bytes()
    monkeypatch.setattr(embedded, "FILE_SHA256", hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match=r"is damaged: .*\(expected test_labels as uint8 of shape \(1000,\)\)\.$"):
        embedded.fashion_mnist_small()


# Minibatches


@pytest.mark.parametrize(("batch_size", "sizes"), [(128, [128] * 39 + [8]), (5000, [5000]), (6000, [5000])])
def test_an_epoch_has_every_image_once_with_its_label(
    numbered: embedded.Images, batch_size: int, sizes: list[int]
) -> None:
    made = list(embedded.batches(numbered, batch_size, epoch=0, seed=0))
    assert [len(x) for x, _ in made] == sizes
    for x, y in made:
        assert x.shape[1:] == (1, 1, 1) and y.shape[1:] == (10,)
        np.testing.assert_array_equal(y, np.repeat(x.reshape(-1, 1), 10, axis=1))
    order = np.concatenate([x.ravel() for x, _ in made])
    np.testing.assert_array_equal(np.sort(order), np.arange(5000))
    assert np.mean(order == np.arange(5000)) < 0.01  # shuffled


def test_same_seed_and_epoch_same_order(numbered: embedded.Images) -> None:
    order = row_numbers(numbered, 128, epoch=3, seed=7)
    np.random.seed(1)  # noqa: NPY002 - the order must not hang on NumPy's global state
    np.testing.assert_array_equal(row_numbers(numbered, 128, epoch=3, seed=7), order)
    np.testing.assert_array_equal(row_numbers(numbered, 5000, epoch=3, seed=7), order)
    documented = np.random.Generator(np.random.Philox(key=[7, 3])).permutation(5000)
    np.testing.assert_array_equal(order, documented)


@pytest.mark.parametrize(("epoch", "seed"), [(4, 7), (3, 8), (7, 3)])
def test_other_epoch_or_seed_other_order(numbered: embedded.Images, epoch: int, seed: int) -> None:
    order = row_numbers(numbered, 5000, epoch=3, seed=7)
    assert np.mean(row_numbers(numbered, 5000, epoch, seed) == order) < 0.01


@pytest.mark.parametrize(
    ("batch_size", "epoch", "seed", "sentence"),
    [
        (0, 0, 0, "batch_size must be at least 1, got 0."),
        (1, -1, 0, "seed and epoch must be from 0 to 2**64 - 1, got seed 0 and epoch -1."),
        (1, 0, 2**64, "seed and epoch must be from 0 to 2**64 - 1, got seed 18446744073709551616 and epoch 0."),
    ],
)
def test_wrong_arguments_are_one_sentence(
    numbered: embedded.Images, batch_size: int, epoch: int, seed: int, sentence: str
) -> None:
    with pytest.raises(ValueError) as caught:
        next(embedded.batches(numbered, batch_size, epoch, seed))
    assert str(caught.value) == sentence


# The script that made the file


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, set to keep 3 training and 2 test images of every class."""
    specification = importlib.util.spec_from_file_location("make_fashion_mnist_small", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "PARTS", {"train": ("train", 3), "test": ("t10k", 2)})
    return module


def write_idx(path: Path, magic: int, array: np.ndarray) -> None:
    header = np.array([magic, *array.shape], dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """Four tiny idx files: every pixel of an image is its number in the file, the labels run in a mixed order."""
    folder = tmp_path / "originals"
    folder.mkdir()
    for part, repeats in {"train": 5, "t10k": 4}.items():
        labels = np.concatenate([np.roll(np.arange(10), 3 * k) for k in range(repeats)])
        numbers = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", 2051, np.tile(numbers, (1, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", 2049, labels)
    return folder


def test_maker_keeps_the_first_of_every_class_in_file_order(maker: ModuleType, originals: Path, tmp_path: Path) -> None:
    # Five runs of 0..9, each rolled by 3 more; swapping the first and the last label makes one class come late.
    labels = np.concatenate([np.roll(np.arange(10), 3 * k) for k in range(5)])
    labels[[0, 49]] = labels[[49, 0]]
    write_idx(originals / "train-labels-idx1-ubyte.gz", 2049, labels)
    maker.main([str(originals), str(tmp_path / "out.npz")])
    with np.load(tmp_path / "out.npz") as archive:
        assert set(archive.files) == {"train_images", "train_labels", "test_images", "test_labels"}
        kept = [i for i, label in enumerate(labels) if list(labels[:i]).count(label) < 3]
        assert kept != list(range(30))  # the swap matters: a plain head of the file would be another pick
        assert archive["train_images"].shape == (30, 28, 28) and archive["train_images"].dtype == np.uint8
        np.testing.assert_array_equal(archive["train_images"][:, 0, 0], kept)
        np.testing.assert_array_equal(archive["train_images"][:, 27, 27], kept)
        np.testing.assert_array_equal(archive["train_labels"], labels[kept])
        np.testing.assert_array_equal(archive["test_images"][:, 5, 9], np.arange(20))
        np.testing.assert_array_equal(
            archive["test_labels"], np.concatenate([np.arange(10), np.roll(np.arange(10), 3)])
        )
        assert archive["test_labels"].dtype == np.uint8


def test_maker_is_byte_reproducible(
    maker: ModuleType, originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    maker.main([str(originals), str(first)])
    monkeypatch.setattr(maker.zipfile.time, "time", lambda: 2e9)  # another day
    monkeypatch.setattr(maker.zipfile.time, "localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    maker.main([str(originals), str(second)])
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("missing", "expected a readable gzipped idx file of Fashion-MNIST"),
        ("not gzip", "expected a readable gzipped idx file of Fashion-MNIST"),
        ("truncated", "expected a readable gzipped idx file of Fashion-MNIST"),
        ("magic", "expected an idx file with magic number 2049, found 2051."),
        ("empty", "expected an idx file with magic number 2049, found 0."),
        ("length", "expected 50 bytes for shape (50,), found 49."),
        ("count", "expected train images of shape (49, 28, 28), found (50, 28, 28)."),
        ("class", "Expected at least 3 images of class 9, found 0."),
    ],
)
def test_maker_ends_on_bad_input_with_one_sentence(
    maker: ModuleType, originals: Path, tmp_path: Path, fault: str, sentence: str
) -> None:
    path = originals / "train-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    if fault == "missing":
        path.unlink()
    elif fault == "not gzip":
        path.write_bytes(b"no gzip at all")
    elif fault == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "magic":
        write_idx(path, 2051, np.zeros((50, 28, 28)))
    elif fault == "empty":
        path.write_bytes(gzip.compress(b""))
    elif fault == "length":
        path.write_bytes(gzip.compress(gzip.decompress(content)[:-1]))
    elif fault == "count":
        write_idx(path, 2049, np.zeros(49))
    elif fault == "class":
        write_idx(path, 2049, np.arange(50) % 9)
    with pytest.raises(SystemExit) as caught:
        maker.main([str(originals), str(tmp_path / "out.npz")])
    assert sentence in str(caught.value.code) and "\n" not in str(caught.value.code)
    assert not (tmp_path / "out.npz").exists()


def test_maker_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT)]
    without = subprocess.run(command, capture_output=True, text=True)
    assert (without.returncode, without.stderr) == (1, "Expected two arguments: FOLDER_WITH_IDX_GZ OUT.npz\n")
    empty = subprocess.run([*command, str(tmp_path), str(tmp_path / "out.npz")], capture_output=True, text=True)
    assert empty.returncode == 1
    assert empty.stderr.count("\n") == 1 and "train-images-idx3-ubyte.gz: expected a readable" in empty.stderr
