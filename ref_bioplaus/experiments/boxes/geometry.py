"""Boxes are corners: arrays (n, 4) of x1, y1, x2, y2 in pixels, x to the right and y downwards, float64.

A pixel is a unit square, so that a box has the area (x2 - x1) (y2 - y1), as in COCO; nothing is added to a side.
"""

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n,); 0 where a corner is on the wrong side of the other."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of a with every box of b, (n, m); 0 for two boxes without area."""
    shared = intersections(a, b)
    union = areas(a)[:, None] + areas(b)[None, :] - shared
    return shared / np.where(union > 0.0, union, 1.0)


def intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The areas that every box of a has in common with every box of b, (n, m)."""
    first, last = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.prod(np.maximum(last - first, 0.0), axis=2)


def clipped(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """The part of every box that is inside of an image."""
    return np.clip(boxes, 0.0, np.array([width, height, width, height], float))


def mirrored(boxes: np.ndarray, width: float) -> np.ndarray:
    """Where the boxes are once the image is turned left to right."""
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)


def checked(boxes: np.ndarray, labels: np.ndarray, width: float, height: float, classes: int, name: str) -> np.ndarray:
    """The boxes, cut where they reach over the border by less than a pixel. Raises ValueError for the first wrong one.

    boxes (n, 4), labels (n,) whole numbers; name: the image's, for the sentence.
    """
    boxes, labels = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(labels)
    if len(labels) != len(boxes):
        raise ValueError(f"{name} has {len(boxes)} boxes and {len(labels)} classes, expected as many: look at its row")
    for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        at = f"{name}: box {i} is {[round(float(v), 2) for v in box]}"
        if not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
            raise ValueError(
                f"{at}, which has no area, expected corners x1 < x2 and y1 < y2 in pixels (not x, y, width, height): "
                "leave it out, or give its corners"
            )
        if min(box) < -1.0 or box[2] > width + 1.0 or box[3] > height + 1.0:
            raise ValueError(
                f"{at}, outside of an image of {width:g} x {height:g} pixels: give corners x1, y1, x2, y2 in pixels"
            )
        if not (label == int(label) and 0 <= label < classes):
            raise ValueError(f"{at} of class {label}, expected a whole number from 0 to {classes - 1}: number them so")
    return clipped(boxes, width, height)
