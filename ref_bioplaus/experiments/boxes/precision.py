"""Average precision as COCO counts it, by faster-coco-eval.

AP is the mean over ten overlaps (.50 to .95), classes and 101 recalls; AP50 and AP75 are those of one overlap; AP of
small, medium and large boxes by their areas (below 32^2, to 96^2, above), at most 100 detections an image. -1 where
there is no such truth. A truth to be ignored is one of COCO's crowds: what lies on it counts neither way.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..data.augmentation import DataError
from .detections import Found
from .geometry import areas

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
WITH_IGNORED = "AP50_all"  # AP50 that counts the truths that are ignored elsewhere, where there are any


class Truth(NamedTuple):
    """What is to be found in one image."""

    boxes: np.ndarray  # (n, 4)
    labels: np.ndarray  # (n,)
    ignored: np.ndarray  # (n,) of bool


class MissingPackage(DataError):
    """faster-coco-eval is not there; the message says how to get it."""


def average_precision(truths: Sequence[Truth], found: Sequence[Found], classes: int) -> dict[str, float]:
    """NAMES -> from 0 to 1, or -1; images in the same order. Raises MissingPackage."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingPackage(
            f"average precision is counted by faster-coco-eval ({error}): pip install 'ref-bioplaus[detection]'."
        ) from None
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(as_coco(truths, classes))
        judge = COCOeval_faster(truth, loaded(truth, found), iouType="bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {name: float(value) for name, value in zip(NAMES, judge.stats[:6], strict=True)}


def loaded(truth: Any, found: Sequence[Found]) -> Any:
    """Detections beside the truths of a COCO object; of none at all the same object without boxes."""
    rows = as_results(found)
    if rows:
        return truth.loadRes(rows)
    return type(truth)(truth.dataset | {"annotations": []})


def as_coco(truths: Sequence[Truth], classes: int) -> dict:
    """Truths as COCO's annotations; images and boxes are numbered from 1, boxes are x, y, width, height."""
    rows: list[dict] = []
    for image, truth in enumerate(truths, start=1):
        columns = zip(truth.boxes, truth.labels, truth.ignored, areas(truth.boxes), strict=True)
        for box, label, ignored, area in columns:
            rows.append({
                "id": len(rows) + 1, "image_id": image, "category_id": int(label) + 1, "bbox": corner_and_sides(box),
                "area": float(area), "iscrowd": int(ignored),
            })  # fmt: skip
    return {
        "info": {}, "licenses": [], "images": [{"id": i + 1} for i in range(len(truths))], "annotations": rows,
        "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
    }  # fmt: skip


def as_results(found: Sequence[Found]) -> list[dict]:
    """Detections as COCO's results."""
    return [
        {"image_id": image, "category_id": int(label) + 1, "bbox": corner_and_sides(box), "score": float(score)}
        for image, one in enumerate(found, start=1)
        for box, label, score in zip(one.boxes, one.labels, one.scores, strict=True)
    ]


def corner_and_sides(box: np.ndarray) -> list[float]:
    """x, y, width and height of a box."""
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]
