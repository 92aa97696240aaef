"""Images with boxes as what a detector learns from: a Data, as `train` takes it (experiments/data/contract.py).

A row has an image and `objects`: `bbox`, corners x1, y1, x2, y2 in its pixels, and `category`, one for each; other
columns are not looked at. This is the layout of detection-datasets/coco.

Choices: an image is scaled until its longer side has `side` pixels (Pillow's bilinear filter), normalised, and stands
    in the upper left of a square whose rest is exactly 0. Boxes whose shorter side then has fewer pixels than
    `ignored_below` are ignored in matching and in measuring. Under the augmentation "flip" half of the training images
    are mirrored, with their boxes. Images that need more memory than loading.IN_MEMORY are decoded anew for every
    batch; what anchors cover is counted in the first LOOKED_AT of them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...backends import Backend
from ...types import Batch
from ..data import augmentation as augmentations
from ..data import hashing, hub, inside
from ..data.augmentation import DataError, flipped
from ..data.loading import IN_MEMORY
from .anchors import Anchors, covered
from .geometry import checked, mirrored
from .matching import matched
from .precision import Truth

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pixels in [0, 1], as torchvision has them
DEVIATION = (0.229, 0.224, 0.225)
LOOKED_AT = 1000  # images whose boxes are held against the anchors before a run
EXPECTED = "expected a column `objects` with lists `bbox` (corners x1, y1, x2, y2) and `category`"


@dataclass(eq=False)
class BoxSplit:
    """Images in squares, and what is to be found in them, in pixels of these."""

    name: str
    pixels: "np.ndarray | OnDemand"  # uint8 (count, side, side, 3)
    sizes: np.ndarray  # int (count, 2): width and height of what is no padding
    scales: np.ndarray  # (count,): pixels here for one of the file
    truths: list[Truth]

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.pixels)

    def steps(self, batch: int) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return -(-self.count // batch)


@dataclass(eq=False)
class Boxed:
    """Training and test images with boxes, and how they become batches for losses.detection."""

    name: str
    train: BoxSplit
    test: BoxSplit | None
    classes: tuple[str, ...]
    anchors: Anchors
    best_anchor: bool = False
    flip: bool = False
    place: Path | None = None  # the folder that they are from
    mean: np.ndarray = field(default_factory=lambda: np.array(MEAN))
    deviation: np.ndarray = field(default_factory=lambda: np.array(DEVIATION))

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(side, side, 3)"""
        return self.anchors.height, self.anchors.width, 3

    @property
    def fingerprint(self) -> str:
        """A digest of the training images' boxes and classes, in order."""
        digest = hashlib.sha256()
        for truth in self.train.truths:
            digest.update(truth.boxes.astype("<f8").tobytes() + truth.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def digest(self) -> dict[str, Any]:
        """The hash of the files that the images are from, or of their pixels, of many of their boxes."""
        if self.place is not None:
            return hashing.of_folder(self.place)
        if isinstance(self.train.pixels, OnDemand):
            return {"sha256": self.fingerprint, "of": "the training images' boxes"}
        return {"sha256": hashlib.sha256(self.train.pixels.tobytes()).hexdigest(), "of": "the training images' pixels"}

    def coverage(self, overlap: float = 0.5) -> tuple[int, int]:
        """How many of the training images' boxes that are not ignored some anchor covers so far, of how many, in the
        first images."""
        return covered(self.anchors.boxes, [t.boxes[~t.ignored] for t in self.train.truths[:LOOKED_AT]], overlap)

    def split(self, name: str) -> BoxSplit:
        """A split by name. Raises DataError where there is none."""
        found = {"train": self.train, "test": self.test}.get(name)
        if found is None:
            raise DataError(f'The dataset "{self.name}" has no split "{name}" of images with boxes: choose "train".')
        return found

    def batches(
        self, split: str, backend: Backend, batch: int, seed: int, epoch: int, start: int = 0, shuffle: bool = True,
        flatten: bool = False,
    ) -> Iterator[Batch]:  # fmt: skip
        """The batches of one epoch from number `start` on: x (N, *in_shape), y (N, anchors, 6). Raises DataError."""
        images = self.split(split)
        draw = self.flip and shuffle and split == "train"
        order = np.arange(images.count)
        if shuffle:
            order = augmentations.permutation((augmentations.host_key(seed), "shuffle", split, epoch), images.count)
        for i in range(start, images.steps(batch)):
            rows = order[i * batch : (i + 1) * batch]
            turned = np.zeros(len(rows), bool)
            if draw:
                turned = flipped(augmentations.image_words(augmentations.parse("flip"), seed, epoch, rows))
            pairs = [self.example(images, int(row), bool(turn)) for row, turn in zip(rows, turned, strict=True)]
            x, y = (np.stack(those) for those in zip(*pairs, strict=True))
            yield backend.batch(x, y)

    def example(self, split: BoxSplit, row: int, turn: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """One image, normalised and 0 outside of it, (side, side, 3), and its anchors' targets; turn: mirrored."""
        (width, height), truth = split.sizes[row], split.truths[row]
        inner = (split.pixels[row][:height, :width] / 255.0 - self.mean) / self.deviation
        boxes = mirrored(truth.boxes, float(width)) if turn else truth.boxes
        x = np.zeros(self.in_shape)
        x[:height, :width] = inner[:, ::-1] if turn else inner
        y = matched(self.anchors.boxes, boxes, truth.labels, truth.ignored, best_anchor=self.best_anchor)
        return x, y


def load(
    name: str, path: str | Path | None = None, config: str | None = None, side: int = 256, smallest: float = 32.0,
    best_anchor: bool = False, ignored_below: float = 0.0, flip: bool = False,
    layout: Mapping[str, str] | None = None,
) -> Boxed:  # fmt: skip
    """A dataset of the hub, or the one in the folder `path`, as a detector of images of `side` pixels learns from it.

    smallest: pixels of the first level's anchors. best_anchor: see matching.py. layout: which splits are learned from
    and measured, {train_split, test_split}; both may be the same. Raises DataError, one sentence.
    """
    if side < 128 or side % 128:
        raise DataError(f"side is {side}, expected a multiple of 128 pixels, so that every level has whole cells.")
    for column in ("image_column", "label_column"):
        if column in (layout or {}):
            raise DataError(f"Images with boxes stand in the columns image and objects: leave out {column}.")
    splits = hub.opened(name, None if path is None else Path(path), config)
    title, place = name if path is None else str(path), hub.folder_of(name, path)
    first, tests = hub.names_of_splits(splits, title, layout or {})
    classes = classes_of(splits[first].features, title)
    names = [first, *tests[:1]]
    apart = sum(len(splits[n]) for n in names) * side * side * 3 > IN_MEMORY
    roots = inside.roots_of(place)
    train, *rest = [loaded(n, splits[n], title, roots, len(classes), side, ignored_below, apart) for n in names]
    anchors = Anchors(side, side, smallest)
    return Boxed(title, train, rest[0] if rest else None, classes, anchors, best_anchor, flip, place)


def classes_of(features: Mapping[str, Any], title: str) -> tuple[str, ...]:
    """The names of the classes of boxes. Raises DataError where there are no boxes."""
    objects = features.get("objects")
    objects = getattr(objects, "feature", objects)  # a list of boxes, or lists of what they have
    if not isinstance(objects, Mapping) or not {"bbox", "category"} <= set(objects):
        raise DataError(f"{title} has no boxes, only {', '.join(features)}: {EXPECTED}.")
    names = getattr(getattr(objects["category"], "feature", objects["category"]), "names", None)
    if names is None:
        raise DataError(f"{title} does not name the classes of its boxes: make `category` a ClassLabel in its README.")
    return tuple(names)


class OnDemand:
    """The images of a split in squares, each decoded where it is asked for."""

    def __init__(self, source: hub.Source, side: int):
        self.source, self.side = source, side

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> np.ndarray:
        """uint8 (side, side, 3). Raises DataError."""
        (image,) = self.source.images(np.array([row]), grey=False)
        return squared(image, self.side)[0]


def loaded(
    name: str, table: Any, title: str, roots: tuple[str, ...], classes: int, side: int, ignored_below: float,
    apart: bool,
) -> BoxSplit:  # fmt: skip
    """A split, its images decoded, scaled and padded, or with `apart` left where they are. Raises DataError for an
    image that cannot be read, and for a bad box."""
    source = hub.Source(hub.encoded(table, "image"), "image", title, name, roots)
    objects, pixels = table.select_columns(["objects"]), OnDemand(source, side)
    sizes, scales, truths = np.zeros((len(table), 2), int), np.zeros(len(table)), []
    for row in range(len(table)):
        width, height = source.size(row)
        scales[row] = side / max(width, height)
        sizes[row] = inner_size(width, height, side)
        place = f'{title}, row {row} of "{name}"'
        boxes, labels = boxes_of(objects[row]["objects"], (width, height), classes, place)
        boxes = scales[row] * boxes
        short = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) < ignored_below
        truths.append(Truth(boxes, labels, short))
    kept = pixels if apart else np.stack([pixels[row] for row in range(len(table))])
    return BoxSplit(name, kept, sizes, scales, truths)


def boxes_of(objects: Any, size: tuple[int, int], classes: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Corners and classes of an image of so many pixels, in these. Raises DataError for a bad one."""
    if isinstance(objects, list):
        objects = {key: [one[key] for one in objects] for key in ("bbox", "category")}
    labels = np.array(objects["category"], int)
    try:
        return checked(objects["bbox"], labels, *size, classes, name), labels
    except ValueError as error:
        raise DataError(f"{error}.") from None


def inner_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of an image whose longer side is scaled to so many pixels."""
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def squared(image: Any, side: int) -> tuple[np.ndarray, tuple[int, int], float]:
    """A Pillow image in a square of `side` pixels, uint8 (side, side, 3); its width and height there; the scale."""
    from PIL import Image

    width, height = inner_size(image.width, image.height, side)
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return pixels, (width, height), side / max(image.size)


def of_images(images: Sequence[Any], classes: tuple[str, ...], side: int, smallest: float) -> Boxed:
    """Pillow images in mode RGB, of which nothing is known, as the split "test"."""
    pixels, sizes, scales = zip(*(squared(image, side) for image in images), strict=True)
    nothing = Truth(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
    test = BoxSplit("test", np.stack(pixels), np.array(sizes), np.array(scales), [nothing] * len(images))
    return Boxed("the images given", test, test, classes, Anchors(side, side, smallest))
