"""What every anchor should say: the targets of losses.detection.

An anchor whose best box it covers with an intersection over union of `positive` or more has its class and offsets; one
below `background` with every box is background; between the two it is ignored (Lin et al. 2017, sec. 4.1).

Choices: of equal overlaps the first box counts. best_anchor=True (torchvision's rule; the paper has none) adds, for
    each box, all anchors that no other anchor covers it better than, with the box that the anchor itself covers best;
    an anchor that meets no box is never among them. Boxes to be ignored, as COCO ignores crowds, have no positives: an
    anchor that is none by another box, and covers such a box with `background` or more, is ignored.
"""

import numpy as np

from .anchors import encoded
from .geometry import overlaps

IGNORED, BACKGROUND = -1.0, -2.0


def matched(
    anchors: np.ndarray, boxes: np.ndarray, labels: np.ndarray, ignored: np.ndarray | None = None,
    positive: float = 0.5, background: float = 0.4, best_anchor: bool = False,
) -> np.ndarray:  # fmt: skip
    """(anchors, 6): class, -1 (ignored) or -2 (background); whether it has a box; the box's offsets.

    boxes (n, 4), labels (n,), ignored (n,) of bool: boxes that are neither to be found nor background.
    """
    passed = np.zeros(len(boxes), bool) if ignored is None else np.asarray(ignored, bool)
    found = np.full(len(anchors), BACKGROUND)
    offsets = np.zeros((len(anchors), 4))
    if passed.any():
        found[overlaps(anchors, boxes[passed]).max(axis=1) >= background] = IGNORED
    boxes, labels = boxes[~passed], np.asarray(labels)[~passed]
    if len(boxes):
        overlap = overlaps(anchors, boxes)
        nearest, most = overlap.argmax(axis=1), overlap.max(axis=1)
        found[most >= background] = IGNORED
        chosen = most >= positive
        if best_anchor:
            chosen |= ((overlap == overlap.max(axis=0)) & (overlap > 0.0)).any(axis=1)
        found[chosen] = labels[nearest[chosen]]
        offsets[chosen] = encoded(boxes[nearest[chosen]], anchors[chosen])
    return np.concatenate([found[:, None], (found >= 0.0)[:, None] * 1.0, offsets], axis=1)
