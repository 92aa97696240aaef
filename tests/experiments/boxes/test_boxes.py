"""Boxes by slow loops over one box, anchor and pixel at a time."""

import math

import numpy as np
import pytest

from ref_bioplaus.experiments.boxes.anchors import LARGEST, Anchors, covered, decoded, encoded
from ref_bioplaus.experiments.boxes.detections import Found, detections, suppressed
from ref_bioplaus.experiments.boxes.geometry import areas, checked, clipped, intersections, mirrored, overlaps
from ref_bioplaus.experiments.boxes.matching import BACKGROUND, IGNORED, matched

SMALL = Anchors(48, 72, 10.0, levels=(3, 4, 5), scales=(1.0, 1.5), ratios=(0.5, 1.0, 2.0))


def drawn(rng, n, width=72, height=48):
    """Boxes with whole corners, so that some are equal and some touch."""
    x, y = (np.sort(rng.integers(0, side + 1, (n, 2)), axis=1) for side in (width, height))
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(float)
    boxes[:, 2:] += boxes[:, 2:] == boxes[:, :2]
    return boxes


def slow_overlap(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = wide * high if wide > 0 and high > 0 else 0.0
    union = sum(max(c[2] - c[0], 0) * max(c[3] - c[1], 0) for c in (a, b)) - shared
    return shared / union if union > 0 else 0.0


def slow_match(anchors, boxes, labels, ignored, positive, background, best_anchor):
    found = []
    real = [j for j in range(len(boxes)) if not ignored[j]]
    for anchor in anchors:
        label, offsets = BACKGROUND, [0.0] * 4
        if any(slow_overlap(anchor, boxes[j]) >= background for j in range(len(boxes)) if ignored[j]):
            label = IGNORED
        shared = [slow_overlap(anchor, boxes[j]) for j in real]
        most = max(shared, default=0.0)
        if real and most >= background:
            label = IGNORED
        best = any(s > 0 and s == max(slow_overlap(other, boxes[j]) for other in anchors)
                   for j, s in zip(real, shared, strict=True)) if best_anchor else False  # fmt: skip
        if real and (most >= positive or best):
            box = boxes[real[shared.index(most)]]
            label = labels[real[shared.index(most)]]
            w, h, W, H = anchor[2] - anchor[0], anchor[3] - anchor[1], box[2] - box[0], box[3] - box[1]
            offsets = [(box[0] + W / 2 - anchor[0] - w / 2) / w, (box[1] + H / 2 - anchor[1] - h / 2) / h,
                       math.log(W / w), math.log(H / h)]  # fmt: skip
        found.append([label, float(label >= 0), *offsets])
    return np.array(found)


def slow_suppression(boxes, scores, labels, overlap):
    left, order = [], sorted(range(len(boxes)), key=lambda i: -scores[i])
    for i in order:
        if all(labels[i] != labels[j] or slow_overlap(boxes[i], boxes[j]) <= overlap for j in left):
            left.append(i)
    return left


@pytest.mark.parametrize("n", [0, 1, 7])
def test_areas_and_overlaps(n):
    rng = np.random.default_rng(n)
    a, b = drawn(rng, n), drawn(rng, 5)
    b[0], b[1] = [3, 4, 3, 9], [8, 8, 2, 2]  # no width; corners that have changed places
    assert overlaps(a, b).shape == (n, 5)
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            assert overlaps(a, b)[i, j] == slow_overlap(one, other)
            assert intersections(a, b)[i, j] == intersections(b, a)[j, i]
    assert areas(b)[:2].tolist() == [0.0, 0.0] and overlaps(b[:2], b[:2]).tolist() == [[0.0, 0.0]] * 2
    assert np.array_equal(np.diag(overlaps(a, a)), np.ones(n))


def test_anchors_stand_at_every_cell_in_the_order_of_the_output():
    found, k = SMALL.boxes, 0
    for level, size in zip((3, 4, 5), (10.0, 20.0, 40.0), strict=True):
        for row in range(math.ceil(48 / 2**level)):
            for column in range(math.ceil(72 / 2**level)):
                for scale in (1.0, 1.5):
                    for ratio in (0.5, 1.0, 2.0):
                        x, y = (column + 0.5) * 2**level, (row + 0.5) * 2**level
                        x1, y1, x2, y2 = found[k]
                        assert abs((x1 + x2) / 2 - x) + abs((y1 + y2) / 2 - y) < 1e-12
                        assert math.isclose((y2 - y1) / (x2 - x1), ratio)
                        assert math.isclose((y2 - y1) * (x2 - x1), (scale * size) ** 2)
                        k += 1
    assert k == len(found) == sum(SMALL.counts) and SMALL.counts == (54 * 6, 15 * 6, 6 * 6)
    assert SMALL.cells(5) == (2, 3)  # the last column reaches over the border


def test_offsets_there_and_back():
    rng = np.random.default_rng(1)
    boxes, anchors = drawn(rng, 9), SMALL.boxes[rng.integers(0, len(SMALL.boxes), 9)]
    assert np.allclose(decoded(encoded(boxes, anchors), anchors), boxes, rtol=0, atol=1e-11)
    assert not encoded(anchors, anchors).any()
    huge = decoded(np.full((9, 4), 1e4), anchors)
    assert np.isfinite(huge).all()
    assert np.allclose(huge[:, 2:] - huge[:, :2], 62.5 * (anchors[:, 2:] - anchors[:, :2]))
    assert math.isclose(math.exp(LARGEST), 62.5)


@pytest.mark.parametrize("best_anchor", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_anchors_are_matched_as_by_a_double_loop(seed, best_anchor):
    rng = np.random.default_rng(seed)
    n = (0, 1, 2, 4, 6, 5)[seed]
    boxes, labels = drawn(rng, n), rng.integers(0, 3, n)
    ignored = rng.random(n) < (1.0 if seed == 5 else 0.3)
    if n > 3:
        boxes[1] = boxes[0]  # two of the same place: the first counts
        boxes[2] = SMALL.boxes[7] + [0.25, 0.25, 0.25, 0.25]
    found = matched(SMALL.boxes, boxes, labels, ignored, best_anchor=best_anchor)
    wanted = slow_match(SMALL.boxes, boxes, labels, ignored, 0.5, 0.4, best_anchor)
    assert np.array_equal(found[:, :2], wanted[:, :2])
    assert np.allclose(found, wanted, rtol=1e-12, atol=1e-13)
    assert not found[found[:, 1] == 0, 2:].any()
    if best_anchor and (~ignored).any():
        assert found[:, 1].any()
    if n == 0 or ignored.all():
        assert not found[:, 1].any() and (n > 0 or (found[:, 0] == BACKGROUND).all())


def test_a_box_outside_of_every_anchor_gets_none():
    far = np.array([[900.0, 900.0, 910.0, 910.0]])
    assert (matched(SMALL.boxes, far, np.array([1]), best_anchor=True)[:, 0] == BACKGROUND).all()


def test_how_many_boxes_some_anchor_covers():
    rng = np.random.default_rng(3)
    truths = [drawn(rng, n, 36, 24) for n in (6, 0, 5)]
    wanted = sum(max(slow_overlap(a, box) for a in SMALL.boxes) >= 0.5 for boxes in truths for box in boxes)
    assert covered(SMALL.boxes, truths) == (wanted, 11) and 0 < wanted < 11
    assert covered(SMALL.boxes, [np.zeros((0, 4))]) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_a_double_loop(seed):
    rng = np.random.default_rng(seed)
    n = (0, 1, 12, 25, 25)[seed]
    boxes, labels = drawn(rng, n, 20, 14), rng.integers(0, 2, n)
    scores = rng.integers(0, 5, n) / 4.0  # many of them equal
    for overlap in (0.0, 0.3, 0.5):
        assert suppressed(boxes, scores, labels, overlap).tolist() == slow_suppression(boxes, scores, labels, overlap)


@pytest.mark.parametrize(("least", "per_level", "most"), [(0.05, 1000, 300), (0.5, 7, 5), (2.0, 7, 5)])
def test_detections_are_a_slow_loop(least, per_level, most):
    rng = np.random.default_rng(7)
    n = len(SMALL.boxes)
    output = np.concatenate([rng.integers(0, 9, (n, 3)) / 8.0, rng.normal(0, 0.5, (n, 4))], axis=1)
    output[::5, 4:] += 30.0  # far outside of the image
    found = detections(output, SMALL, (70.0, 40.0), least, per_level, 0.4, most)
    boxes, scores, labels, first = [], [], [], 0
    for count in SMALL.counts:
        rows = [(output[i, k], i, k) for i in range(first, first + count) for k in range(3) if output[i, k] > least]
        for score, i, k in sorted(rows, key=lambda row: -row[0])[:per_level]:
            (x, y, w, h), anchor = output[i, 3:], SMALL.boxes[i]
            W, H = anchor[2] - anchor[0], anchor[3] - anchor[1]
            cx, cy = anchor[0] + W / 2 + x * W, anchor[1] + H / 2 + y * H
            w, h = W * math.exp(min(w, LARGEST)), H * math.exp(min(h, LARGEST))
            box = [min(max(v, 0), side) for v, side in zip((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2),
                                                           (70, 40, 70, 40), strict=True)]  # fmt: skip
            if box[2] > box[0] and box[3] > box[1]:
                boxes.append(box)
                scores.append(score)
                labels.append(k)
        first += count
    left = slow_suppression(boxes, scores, labels, 0.4)[:most]
    assert np.allclose(found.boxes, np.array(boxes).reshape(-1, 4)[left], atol=1e-12)
    assert found.labels.tolist() == [labels[i] for i in left] and found.scores.tolist() == [scores[i] for i in left]
    assert (len(found.scores) == 0) == (least > 1) and found.boxes.shape == (len(found.scores), 4)


def test_boxes_move_with_their_image():
    rng = np.random.default_rng(2)
    boxes = drawn(rng, 6)
    assert np.array_equal(mirrored(mirrored(boxes, 72.0), 72.0), boxes)
    image = np.zeros((48, 72))
    x1, y1, x2, y2 = boxes[0].astype(int)
    image[y1:y2, x1:x2] = 1.0
    a, b, c, d = mirrored(boxes, 72.0)[0].astype(int)
    assert image[:, ::-1][b:d, a:c].all() and image.sum() == (d - b) * (c - a)
    assert np.array_equal(clipped(boxes, 10.0, 9.0)[:, 2:].max(axis=0) <= [10.0, 9.0], [True, True])
    twice = Found(boxes, np.zeros(6, int), np.ones(6)).scaled(2.0)
    assert np.array_equal(twice.boxes, 2 * boxes) and len(twice.scores) == 6


@pytest.mark.parametrize(
    ("boxes", "labels", "sentence"),
    [
        ([[5, 5, 5, 9]], [0], r"photo 3: box 0 is \[5.0, 5.0, 5.0, 9.0\], which has no area, expected corners x1 < x2"),
        ([[1, 1, 2, 2], [5, 5, 4, 9]], [0, 0], r"photo 3: box 1 is .*no area.*\(not x, y, width, height\)"),
        ([[1, 1, np.nan, 2]], [0], "photo 3: box 0 is .* which has no area"),
        ([[1, 1, 30, 9]], [0], r"outside of an image of 20 x 10 pixels: give corners"),
        ([[-3, 1, 3, 9]], [0], r"outside of an image of 20 x 10 pixels"),
        ([[1, 1, 3, 9]], [4], r"of class 4, expected a whole number from 0 to 3: number them so"),
        ([[1, 1, 3, 9]], [-1], r"of class -1, expected"),
        ([[1, 1, 3, 9]], [0.5], r"of class 0.5, expected"),
        ([[1, 1, 3, 9]], [0, 1], r"photo 3 has 1 boxes and 2 classes, expected as many: look at its row"),
    ],
)
def test_a_bad_box_gets_a_sentence(boxes, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        checked(np.array(boxes, float), np.array(labels), 20, 10, 4, "photo 3")


def test_good_boxes_are_kept_and_those_on_the_border_cut():
    boxes = checked([[0, 0, 20, 10], [-0.5, 2, 20.5, 10.75]], [3, 0], 20, 10, 4, "photo 3")
    assert boxes.tolist() == [[0, 0, 20, 10], [0, 2, 20, 10]]
    assert checked(np.zeros((0, 4)), [], 20, 10, 4, "photo 3").shape == (0, 4)
