"""From a detector's output to boxes with classes and scores.

On each level the anchors' classes with a score above `least`, the best 1,000 of them; their boxes, cut at the image's
border; of boxes of one class that overlap, the best alone; of what is left of the whole image the best 300
(torchvision's numbers; Lin et al. 2017, sec. 4.1, have none for the last).

Choices: stable sorts, so that of equal scores the first anchor and class counts. A box without area is left out.
"""

from typing import NamedTuple

import numpy as np

from .anchors import Anchors, decoded
from .geometry import areas, clipped, overlaps


class Found(NamedTuple):
    """What was found in one image, the surest first."""

    boxes: np.ndarray  # (n, 4)
    labels: np.ndarray  # (n,), int64
    scores: np.ndarray  # (n,), from 0 to 1

    def scaled(self, factor: float) -> "Found":
        """In an image that is so many times as large."""
        return self._replace(boxes=factor * self.boxes)


def detections(
    output: np.ndarray, anchors: Anchors, size: tuple[float, float] | None = None, least: float = 0.05,
    per_level: int = 1000, overlap: float = 0.5, most: int = 300,
) -> Found:  # fmt: skip
    """output (anchors, classes + 4), of losses.detection: scores and offsets of one image -> its boxes.

    size: (width, height) of the image where the rest is padding.
    """
    scores, offsets = output[:, :-4].astype(np.float64), output[:, -4:].astype(np.float64)
    classes, first, kept = scores.shape[1], 0, []
    for count in anchors.counts:
        flat = scores[first : first + count].reshape(-1)
        above = np.flatnonzero(flat > least)
        above = above[np.argsort(-flat[above], kind="stable")[:per_level]]
        kept.append(above + first * classes)
        first += count
    chosen = np.concatenate(kept)
    anchor, label = chosen // classes, chosen % classes
    width, height = size or (anchors.width, anchors.height)
    boxes = clipped(decoded(offsets[anchor], anchors.boxes[anchor]), width, height)
    score = scores.reshape(-1)[chosen]
    real = areas(boxes) > 0.0
    boxes, label, score = boxes[real], label[real], score[real]
    left = suppressed(boxes, score, label, overlap)[:most]
    return Found(boxes[left], label[left].astype(np.int64), score[left])


def suppressed(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, overlap: float = 0.5) -> np.ndarray:
    """Which boxes stay, the best first: a box goes where a better one of its class covers it by more than `overlap`."""
    order = np.argsort(-scores, kind="stable")
    stays = np.ones(len(order), bool)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        shared = overlaps(boxes[mine], boxes[mine]) > overlap
        for i in range(len(mine)):
            if stays[mine[i]]:
                stays[mine[i + 1 :][shared[i, i + 1 :]]] = False
    return order[stays[order]]
