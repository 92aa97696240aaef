"""Average precisions are pycocotools', on random images with ties, crowds, no truths and no detections."""

import contextlib
import io

import numpy as np
import pytest

from ref_bioplaus.experiments.boxes import precision
from ref_bioplaus.experiments.boxes.detections import Found
from ref_bioplaus.experiments.boxes.precision import NAMES, Truth, average_precision

CLASSES = 3


def drawn(rng):
    """Truths and detections of a few images: boxes near truths with scores of five values, empty images, crowds."""
    truths, found = [], []
    for _ in range(rng.integers(1, 4)):
        n = rng.integers(0, 5)
        corner = rng.integers(0, 120, (n, 2)).astype(float)
        boxes = np.concatenate([corner, corner + rng.choice([4.0, 20.0, 50.0, 110.0], (n, 2))], axis=1)
        labels = rng.integers(0, CLASSES, n)
        truths.append(Truth(boxes, labels, rng.random(n) < 0.2))
        near = rng.integers(0, max(n, 1), rng.integers(0, 7)) if n else np.zeros(0, int)
        moved = boxes[near] + rng.integers(-3, 4, (len(near), 4)) * rng.choice([0.0, 1.0, 4.0], (len(near), 1))
        away = rng.integers(0, 100, (rng.integers(0, 3), 2)).astype(float)
        moved = np.concatenate([moved, np.concatenate([away, away + 30.0], axis=1)])
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1.0)
        kinds = np.concatenate([labels[near], rng.integers(0, CLASSES, len(away))]).astype(int)
        kinds = np.where(rng.random(len(kinds)) < 0.2, rng.integers(0, CLASSES, len(kinds)), kinds)
        found.append(Found(moved, kinds, rng.integers(1, 6, len(kinds)) / 5.0))
    return truths, found


def by_pycocotools(truths, found):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth, results = COCO(), precision.as_results(found)
        truth.dataset = precision.as_coco(truths, CLASSES)
        truth.createIndex()
        if results:
            theirs = truth.loadRes(results)
        else:
            theirs = COCO()
            theirs.dataset = truth.dataset | {"annotations": []}
            theirs.createIndex()
        judge = COCOeval(truth, theirs, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(NAMES, judge.stats[:6], strict=True))


def test_two_hundred_random_cases():
    pytest.importorskip("faster_coco_eval")
    kinds = set()
    for seed in range(200):
        truths, found = drawn(np.random.default_rng(seed))
        ours, theirs = average_precision(truths, found, CLASSES), by_pycocotools(truths, found)
        assert set(ours) == set(theirs)
        for name in NAMES:
            assert abs(ours[name] - theirs[name]) < 1e-12, (seed, name)
        kinds |= {
            "no truth" if ours["AP"] == -1 else "none right" if ours["AP"] == 0 else
            "all right" if ours["AP"] == 1 else "some",
            *(["no detection"] if not any(len(f.scores) for f in found) else []),
            *(["an empty image"] if any(len(t.labels) == 0 for t in truths) else []),
            *(["tied scores"] if any(len(set(f.scores)) < len(f.scores) for f in found) else []),
        }  # fmt: skip
    assert kinds == {"no truth", "none right", "some", "all right", "no detection", "an empty image", "tied scores"}


def test_what_is_ignored_counts_neither_way():
    pytest.importorskip("faster_coco_eval")
    boxes, labels = np.array([[0.0, 0, 40, 40], [60, 60, 100, 100]]), np.array([0, 0])
    truth = Truth(boxes, labels, np.array([False, True]))
    for seen, wanted in (([0], 1.0), ([0, 1], 1.0), ([1], 0.0)):
        found = Found(boxes[seen], labels[seen], np.array([0.5, 0.9])[seen])
        assert average_precision([truth], [found], CLASSES)["AP"] == wanted
    whole = truth._replace(ignored=np.array([False, False]))
    assert (
        abs(average_precision([whole], [Found(boxes[:1], labels[:1], np.ones(1))], CLASSES)["AP50"] - 51 / 101) < 1e-12
    )


def test_without_the_package_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    with pytest.raises(precision.MissingPackage, match=r"pip install 'ref-bioplaus\[detection\]'"):
        average_precision([], [], CLASSES)
