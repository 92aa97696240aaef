"""Images with boxes: scaled, padded and mirrored with their boxes, and a sentence for what cannot be learned from."""

import io

import numpy as np
import pytest

from ref_bioplaus.experiments.boxes import dataset
from ref_bioplaus.experiments.boxes.anchors import decoded
from ref_bioplaus.experiments.boxes.matching import matched
from ref_bioplaus.experiments.data import hub
from ref_bioplaus.experiments.data.augmentation import DataError
from tests.conftest import get

hf = pytest.importorskip("datasets")
image_of = pytest.importorskip("PIL.Image").fromarray
NAMES = ["cat", "dog", "kite"]
BOXES = [  # per image: its size, and corners with classes in pixels of the file
    ((300, 200), [([60, 40, 180, 160], 1), ([10, 10, 22, 18], 2)]),
    ((100, 128), [([50, 30, 90, 100], 0)]),
    ((64, 64), []),
    ((512, 300), [([0, 0, 512, 300], 2), ([100, 50, 300, 250], 1)]),
]


def rows(boxes=BOXES, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": [image_of(rng.integers(0, 255, (h, w, 3), np.uint8)) for (w, h), _ in boxes],
        "objects": [{"bbox": [b for b, _ in those], "category": [k for _, k in those]} for _, those in boxes],
    }


def folder(tmp_path, train=None, test=None, names=NAMES):
    """A folder in the hub's layout."""
    kind = hf.ClassLabel(names=names) if names else hf.Value("int64")
    objects = {"bbox": hf.List(hf.List(hf.Value("float64"), length=4)), "category": hf.List(kind)}
    features = hf.Features({"image": hf.Image(), "objects": objects})
    (tmp_path / "data").mkdir()
    for name, those in (("train", train or rows()), ("val", test)):
        if those:
            hf.Dataset.from_dict(those, features=features).to_parquet(tmp_path / "data" / f"{name}-00000.parquet")
    return tmp_path


@pytest.fixture(scope="module")
def data(tmp_path_factory, own_cache):
    place = folder(tmp_path_factory.mktemp("boxes"), test=rows(BOXES[1:3], seed=1))
    return dataset.load("own", place, side=128, smallest=16.0, best_anchor=True, ignored_below=8.0, flip=True)


def test_images_are_scaled_by_their_longer_side_and_padded(data):
    assert (data.train.count, data.test.count, data.in_shape, data.classes) == (4, 2, (128, 128, 3), tuple(NAMES))
    assert data.train.sizes.tolist() == [[128, 85], [100, 128], [128, 128], [128, 75]]
    assert np.allclose(data.train.scales, [128 / 300, 1.0, 2.0, 0.25])
    assert not data.train.pixels[0, 85:].any() and data.train.pixels[0, :85].all(axis=2).mean() > 0.9
    first = data.train.truths[0]
    assert np.allclose(first.boxes[0], np.array([60, 40, 180, 160]) * 128 / 300)
    assert first.ignored.tolist() == [False, True] and first.labels.tolist() == [1, 2]  # 12 x 8 pixels of 300
    assert data.train.truths[2].boxes.shape == (0, 4)
    x, y = data.example(data.train, 0)
    assert x.shape == (128, 128, 3) and y.shape == (len(data.anchors.boxes), 6)
    assert not x[85:].any() and np.allclose(x[:85].reshape(-1, 3).mean(axis=0), x[:85].mean(axis=(0, 1)))
    pixel = (data.train.pixels[0, 3, 4] / 255.0 - dataset.MEAN) / dataset.DEVIATION
    assert np.allclose(x[3, 4], pixel)
    found, there = data.coverage()
    assert there == 4 and 0 < found <= 4


def test_a_mirrored_image_has_its_boxes_with_it(data):
    (width, height), truth = data.train.sizes[1], data.train.truths[1]
    (x, y), (turned, other) = (data.example(data.train, 1, turn) for turn in (False, True))
    assert np.array_equal(turned[:height, :width], x[:height, :width][:, ::-1]) and not turned[:, width:].any()
    for targets, corners in ((y, truth.boxes[0]), (other, [width - 90, 30, width - 50, 100])):
        boxed = targets[:, 1] == 1
        assert boxed.any()
        assert np.allclose(decoded(targets[boxed, 2:], data.anchors.boxes[boxed]), corners)
        assert (targets[boxed, 0] == 0).all()
    assert not np.array_equal(y, other)


def test_batches_are_a_function_of_seed_epoch_and_number(data):
    backend = get("numpy", "float32")

    def taken(epoch, start=0, split="train", **options):
        return list(data.batches(split, backend, 3, 7, epoch, start, **options))

    whole = taken(1)
    assert [b.x.shape[0] for b in whole] == [3, 1] and whole[0].y.shape == (3, len(data.anchors.boxes), 6)
    assert np.array_equal(taken(1, 1)[0].x, whole[1].x) and np.array_equal(taken(1)[0].y, whole[0].y)
    assert not all(np.array_equal(a.x, b.x) for a, b in zip(taken(0), whole, strict=True))
    plain = taken(0, shuffle=False)
    for i, x in enumerate(np.concatenate([b.x for b in plain])):
        assert np.array_equal(x, data.example(data.train, i)[0].astype(np.float32))
    turned = [np.array_equal(x, data.example(data.train, i, True)[0].astype(np.float32))
              for epoch in range(8) for x in np.concatenate([b.x for b in taken(epoch)]) for i in range(4)]  # fmt: skip
    assert 4 <= sum(turned) <= 28  # of 32, half on average
    again = taken(0, split="test", shuffle=False)[0]
    boxes = matched(data.anchors.boxes, data.test.truths[0].boxes, [0], best_anchor=True)
    assert np.array_equal(again.y[0], boxes.astype(np.float32))


def test_what_tells_the_images_from_others(data, tmp_path):
    assert data.fingerprint != dataset.Boxed(
        "other", data.test, None, data.classes, data.anchors).fingerprint  # fmt: skip
    assert data.digest()["of"] == "the bytes of 2 files"
    with pytest.raises(DataError, match='has no split "validation"'):
        data.split("validation")


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        (([60, 40, 60, 160], 1), r'row 1 of "train": box 0 is \[60.0, 40.0, 60.0, 160.0\], which has no area'),
        (([60, 40, 500, 160], 1), r"outside of an image of 300 x 200 pixels"),
    ],
)
def test_a_bad_box_is_named_by_its_row(tmp_path, own_cache, box, sentence):
    place = folder(tmp_path, rows([BOXES[0], ((300, 200), [box])]))
    with pytest.raises(DataError, match=sentence):
        dataset.load("own", place, side=128)


def test_a_large_set_is_decoded_batch_by_batch_into_the_same_batches(tmp_path, own_cache, monkeypatch):
    turned = rows()
    lying = io.BytesIO()
    exif = image_of(np.zeros((1, 1, 3), np.uint8)).getexif()
    exif[hub.ORIENTATION] = 6  # its first row is at the right: upright it has 200 x 300 pixels
    turned["image"][0].save(lying, "PNG", exif=exif)
    turned["image"][0] = {"bytes": lying.getvalue(), "path": None}
    place = folder(tmp_path, turned, rows(BOXES[1:3], seed=1))
    kept = dataset.load("own", place, side=128)
    monkeypatch.setattr(dataset, "IN_MEMORY", 1000)
    apart = dataset.load("own", place, side=128, flip=False)
    assert isinstance(apart.train.pixels, dataset.OnDemand) and len(apart.test.pixels) == 2
    assert kept.train.sizes.tolist() == apart.train.sizes.tolist() and kept.train.sizes[0].tolist() == [85, 128]
    backend = get("numpy", "float32")
    for split in ("train", "test"):
        pairs = zip(*(one.batches(split, backend, 3, 7, 1) for one in (kept, apart)), strict=True)
        assert all(np.array_equal(a, b) for two in pairs for a, b in zip(*two, strict=True))
    apart.place = None
    assert apart.digest() == {"sha256": kept.fingerprint, "of": "the training images' boxes"}
    there = kept.coverage()[1]
    monkeypatch.setattr(dataset, "LOOKED_AT", 1)
    assert (there, apart.coverage()[1]) == (5, 2)
    turned["objects"][0]["bbox"][0] = [60, 40, 280, 160]
    (tmp_path / "bad").mkdir()
    with pytest.raises(DataError, match=r'row 0 of "train": box 0 .* outside of an image of 200 x 300 pixels'):
        dataset.load("own", folder(tmp_path / "bad", turned), side=128)


def test_a_set_that_has_no_boxes_gets_a_sentence(tmp_path, own_cache):
    place = folder(tmp_path)
    for side in (100, 0, 130):
        with pytest.raises(DataError, match=rf"side is {side}, expected a multiple of 128 pixels"):
            dataset.load("own", place, side=side)
    with pytest.raises(DataError, match=r"has no boxes, only image, label: expected a column `objects`"):
        dataset.classes_of({"image": None, "label": None}, "pictures")
    with pytest.raises(DataError, match=r"does not name the classes of its boxes"):
        dataset.classes_of({"objects": {"bbox": None, "category": hf.Value("int64")}}, "pictures")
