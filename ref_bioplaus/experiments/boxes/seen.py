"""What a detector finds in a split, gathered batch by batch and then measured, in pixels of the files."""

import numpy as np

from .dataset import Boxed
from .detections import Found, detections
from .precision import NAMES, WITH_IGNORED, Truth, average_precision


class Seen:
    """The detections of a split's images in their order."""

    def __init__(self, data: Boxed, split: str):
        self.data, self.split, self.found = data, data.split(split), list[Found]()

    def add(self, output: np.ndarray) -> None:
        """A batch of outputs of losses.detection, (N, anchors, classes + 4)."""
        for one in output:
            row = len(self.found)
            width, height = self.split.sizes[row]
            found = detections(one, self.data.anchors, (float(width), float(height)))
            self.found.append(found.scaled(1.0 / self.split.scales[row]))

    def precision(self) -> dict[str, float]:
        """AP and its kin; where boxes are ignored, AP50_all, which counts them as well. Raises MissingPackage."""
        classes = len(self.data.classes)
        pairs = zip(self.split.truths, self.split.scales, strict=True)
        truths = [Truth(t.boxes / scale, t.labels, t.ignored) for t, scale in pairs][: len(self.found)]
        found = average_precision(truths, self.found, classes)
        if any(t.ignored.any() for t in truths):
            every = [t._replace(ignored=np.zeros(len(t.ignored), bool)) for t in truths]
            found[WITH_IGNORED] = average_precision(every, self.found, classes)[NAMES[1]]
        return found
