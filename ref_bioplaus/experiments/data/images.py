"""A dataset in hand: splits of images or vectors, and how they become batches.

They are in memory, streaming (see loading.py), or in an array too large for that, of which a batch is taken when it is
needed. Batches are the same, to the bit.
"""

import hashlib
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os.path import isdir
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ... import losses
from ...backends import Backend
from ...types import Array, Batch
from . import augmentation as augmentations
from . import hashing
from .augmentation import Augmentation, DataError
from .hub import Source
from .left_out import LeftOut
from .streaming import Decoders

SAMPLED = 1000  # images, evenly spread, that stand for all where all would take long
PIXELS, VALUES = "pixels", "values"  # scales: of brightness in [0, 1], 255 of it in uint8; of numbers as they are


@dataclass(frozen=True, eq=False)
class Split:
    """The images of training, validation or test."""

    name: str
    rows: np.ndarray  # which images of the source, int64 (count,): a name for each, of which its augmentation is made
    labels: np.ndarray  # int32 (count,) of classes, or real-valued targets, floats (count, outputs): 0 for the inputs
    pixels: np.ndarray | None = None  # uint8 or floats (count, height, width, channels); None: they are not in memory
    source: Source | None = None
    apart: np.ndarray | None = None  # (n, height, width, channels): `rows` of it are the images, taken when needed

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.rows)

    def steps(self, batch: int) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return -(-self.count // batch)

    def host(self, positions: np.ndarray) -> np.ndarray:
        """Images in an array on the host, (N, height, width, channels)."""
        if self.apart is not None:
            return numbers(np.asarray(self.apart[self.rows[positions]]))
        assert self.pixels is not None
        return self.pixels[positions]


@dataclass(eq=False)
class Dataset:
    """Splits of images of one kind, and how they become batches. `validation` is None without held-out images, `test`
    where the dataset has no labelled test images."""

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    classes: tuple[str, ...]
    in_shape: tuple[int, ...]  # of what the network gets, (height, width, channels), or (units,) of vectors
    augmentation: Augmentation
    mean: np.ndarray  # per channel, of brightness in [0, 1] or of values as they are, see `scale`
    deviation: np.ndarray
    resize_first: bool = False
    workers: int = 0
    left_out: LeftOut = field(default_factory=LeftOut, repr=False)  # images that cannot be read
    own: Callable | None = None  # the augmentation, where it is of one's own: see augmentation.changed_by
    recognised: str | None = None  # the hub's dataset that these images are, by its id or as far as can be told
    scale: str = PIXELS
    on_device: weakref.WeakKeyDictionary = field(default_factory=weakref.WeakKeyDictionary, repr=False)  # by backend
    decoders: Decoders | None = field(default=None, repr=False)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits there are."""
        return tuple(name for name in ("train", "validation", "test") if getattr(self, name) is not None)

    @property
    def streams(self) -> bool:
        """Whether images are decoded whenever they are needed."""
        return self.train.pixels is None and self.train.apart is None

    @property
    def resident(self) -> bool:
        """Whether training images lie on the device, and batches are made of them there."""
        return self.train.pixels is not None and self.train.apart is None and self.own is None

    @property
    def targets(self) -> str:
        """What is learned: "classes", real-valued "values", or the "inputs" themselves."""
        if self.train.labels.ndim == 1:
            return "classes"
        return "values" if self.train.labels.shape[1] else "inputs"

    @property
    def outputs(self) -> int | None:
        """How many real-valued targets a sample has; None where there are others."""
        return self.train.labels.shape[1] if self.targets == "values" else None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`in_shape`, of vectors as images of one pixel."""
        h, w, channels = self.in_shape if len(self.in_shape) == 3 else (1, 1, *self.in_shape)
        return h, w, channels

    @property
    def fingerprint(self) -> str:
        """What tells the training images from others: a digest of their targets in order, or of inputs where these are
        the targets."""
        if self.targets == "inputs":
            return hashlib.sha256(self.train.host(spread(self.train.count, SAMPLED)).tobytes()).hexdigest()
        kind = "<i4" if self.targets == "classes" else "<f8"
        return hashlib.sha256(self.train.labels.astype(kind).tobytes()).hexdigest()

    def digest(self) -> dict[str, Any]:
        """The hash of the files that the images are from, or of the arrays where they are from none."""
        sources = {name: s.source for name in self.splits if (s := getattr(self, name)).source is not None}
        if not sources:
            return hashing.of_arrays(self)
        origin = Path(sources["train"].origin)
        if isdir(origin):
            return hashing.of_folder(origin)
        cached = [Path(file["filename"]) for source in sources.values() for file in source.table.cache_files]
        return hashing.of_files({path.name: path for path in cached})

    def split(self, name: str) -> Split:
        """A split by name. Raises DataError where there is none."""
        if name not in self.splits:
            how = "load it with held_out" if name == "validation" else f"choose one of {', '.join(self.splits)}"
            raise DataError(f'The dataset "{self.name}" has no split "{name}": {how}.')
        return getattr(self, name)

    def order(self, split: str, seed: int, epoch: int, shuffle: bool = True) -> np.ndarray:
        """The positions of a split's images in the order of an epoch, int64 (count,)."""
        count = self.split(split).count
        if not shuffle:
            return np.arange(count)
        return augmentations.permutation((augmentations.host_key(seed), "shuffle", split, epoch), count)

    def batches(
        self, split: str, backend: Backend, batch: int, seed: int, epoch: int, start: int = 0, shuffle: bool = True,
        flatten: bool = False,
    ) -> Iterator[Batch]:  # fmt: skip
        """The batches of one epoch from number `start` on: x (N, *in_shape), or (N, units) if flattened, and y, one-hot
        (N, classes) or (N, outputs), in the backend's dtype on its device. N is smaller by the images that are left out
        (left_out.py). Training images, if they are shuffled, are augmented. Raises DataError.
        """
        if batch < 1 or start < 0:
            raise DataError(f"batch is {batch} and start is {start}, expected at least 1 and 0.")
        chosen = self.split(split)
        order = self.order(split, seed, epoch, shuffle)
        draw = (seed, epoch) if shuffle and split == "train" else None
        parts = [order[i * batch : (i + 1) * batch] for i in range(start, chosen.steps(batch))]
        if chosen.apart is not None:
            return self.from_host(chosen, backend, parts, draw, flatten)
        if chosen.pixels is None:
            return self.streamed(chosen, backend, parts, draw, flatten)
        return self.in_memory(chosen, backend, parts, draw, flatten)

    def in_memory(
        self, split: Split, backend: Backend, parts: list[np.ndarray], draw: tuple[int, int] | None, flatten: bool
    ) -> Iterator[Batch]:
        """Batches of images that are on the device."""
        assert split.pixels is not None
        pixels, labels, normal = self.device_arrays(backend, split)
        shape = split.pixels.shape[1:3]
        plain = shape == self.image_shape[:2] and (draw is None or self.augmentation.name == "none")

        images = pixels.on(backend, "rows" if plain else "flat")
        run = self.making(backend, "rows" if plain else "flat", flatten)
        readable = self.left_out.readable(split.source, split.rows)
        for part in parts:
            positions = part[readable[part]]
            if not len(positions):
                yield self.nothing(backend, flatten)
                continue
            if self.own is not None and draw is not None:
                changed = augmentations.changed_by(self.own, *draw, split.rows[positions], split.pixels[positions])
                run_sent = self.making(backend, "images", flatten)
                yield run_sent(on_device(backend, changed), backend.asarray(split.labels[positions]), *normal)
                continue
            chosen = backend.asarray(positions.astype(np.int32))
            if plain:
                yield run(images, labels, *normal, chosen)
                continue
            words = None if draw is None else augmentations.image_words(self.augmentation, *draw, split.rows[positions])
            zero = split.count * shape[0] * shape[1]
            index = augmentations.gather(self.augmentation, shape, positions, words, zero)
            yield run(images, labels, *normal, chosen, backend.asarray(index))

    def from_host(
        self, split: Split, backend: Backend, parts: list[np.ndarray], draw: tuple[int, int] | None, flatten: bool
    ) -> Iterator[Batch]:
        """Batches of images that are taken from an array on the host, or on disk, as they are needed."""
        normal, run = self.normal(backend), self.making(backend, "images", flatten)
        for positions in parts:
            words = None if draw is None else augmentations.image_words(self.augmentation, *draw, split.rows[positions])
            images = augmentations.of_arrays(self.augmentation, split.host(positions), words)
            if self.own is not None and draw is not None:
                images = augmentations.changed_by(self.own, *draw, split.rows[positions], images)
            yield run(on_device(backend, images), backend.asarray(split.labels[positions]), *normal)

    def device_arrays(self, backend: Backend, split: Split) -> tuple["Forms", Array, tuple[Array, Array]]:
        """A split's pixels and labels, and what normalises them, on the device: sent once."""
        kept = self.on_device.setdefault(backend, {})
        if split.name not in kept:
            assert split.pixels is not None
            kept[split.name] = (Forms(split.pixels), backend.asarray(split.labels), self.normal(backend))
        return kept[split.name]

    def normal(self, backend: Backend) -> tuple[Array, Array]:
        """What is taken from pixels and what they are then multiplied by, (channels,), in float64 or float32."""
        wide, unit = wide_of(backend), 255 if self.scale == PIXELS else 1
        centre, factor = unit * self.mean, 1 / (unit * self.deviation)
        return backend.asarray(centre.astype(wide), wide), backend.asarray(factor.astype(wide), wide)

    def making(self, backend: Backend, form: str, flatten: bool) -> Callable[..., Batch]:
        """The function that makes a batch on the device, the same one at every call: of stored "rows" or "flat" pixels,
        or of "images" just sent there. Compiled, where the backend compiles; no sum follows a product, which it could
        then round but once."""
        channels, shape = self.in_shape[-1], (math.prod(self.in_shape),) if flatten else self.in_shape
        classes = len(self.classes) if self.targets == "classes" else None

        def finished(images, labels, centre, factor):
            xp = array_namespace(images)
            dtype = getattr(backend.xp, backend.dtype)
            count = labels.shape[0]
            x = xp.astype(xp.reshape(images, (count, -1, channels)), factor.dtype)
            x = xp.astype((x - centre) * factor, dtype, copy=False)
            y = xp.astype(labels, dtype) if classes is None else losses.one_hot(labels, classes, dtype)
            return Batch(xp.reshape(x, (count, *shape)), y)

        def of_rows(pixels, labels, centre, factor, positions):
            xp = array_namespace(pixels)
            return finished(xp.take(pixels, positions, axis=0), xp.take(labels, positions, axis=0), centre, factor)

        def of_flat(pixels, labels, centre, factor, positions, index):
            xp = array_namespace(pixels)
            chosen = xp.take(pixels, xp.reshape(index, (-1,)), axis=0)
            return finished(chosen, xp.take(labels, positions, axis=0), centre, factor)

        key = ("batches", form, shape, channels, classes)
        if key not in backend.kept:
            functions: dict[str, Callable[..., Batch]] = {"rows": of_rows, "flat": of_flat, "images": finished}
            function = functions[form]
            backend.kept[key] = backend.wrap(function) if backend.compiles else backend.eager(function)
        return backend.kept[key]

    def streamed(
        self, split: Split, backend: Backend, parts: list[np.ndarray], draw: tuple[int, int] | None, flatten: bool
    ) -> Iterator[Batch]:
        """Batches of images that are decoded as they are needed."""
        normal, run = self.normal(backend), self.making(backend, "images", flatten)
        for positions, images in self.decoded(split, parts, draw):
            if len(positions):
                if self.own is not None and draw is not None:
                    images = augmentations.changed_by(self.own, *draw, split.rows[positions], images)
                yield run(backend.asarray(images), backend.asarray(split.labels[positions]), *normal)
            else:
                yield self.nothing(backend, flatten)

    def nothing(self, backend: Backend, flatten: bool) -> Batch:
        """A batch of no image."""
        shape = (math.prod(self.in_shape),) if flatten else self.in_shape
        width = len(self.classes) if self.targets == "classes" else self.train.labels.shape[1]
        return Batch(*(backend.asarray(np.zeros((0, *of))) for of in (shape, (width,))))

    def decoded(
        self, split: Split, parts: list[np.ndarray], draw: tuple[int, int] | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A streaming split's images on the host, uint8 (N, *in_shape), batch by batch, and before them their
        positions, without those left out. Raises DataError."""
        if self.decoders is None:
            sources = {name: s.source for name in self.splits if (s := getattr(self, name)).source is not None}
            self.decoders = Decoders(sources, self.image_shape, self.workers)
            weakref.finalize(self, self.decoders.executor.shutdown, wait=False, cancel_futures=True)
        rows = [split.rows[positions] for positions in parts]
        grey = self.in_shape[-1] == 1
        arguments = (self.augmentation, draw, grey, self.resize_first, self.in_shape, bool(self.left_out.most))
        for positions, (images, unreadable) in zip(
            parts, self.decoders.batches(split.name, rows, *arguments), strict=True
        ):
            assert split.source is not None
            self.left_out.add(split.source.split, unreadable)
            yield positions[~np.isin(split.rows[positions], [row for row, _ in unreadable])], images

    def close(self) -> None:
        """End the processes that decode, if there are any; the next batch starts them anew."""
        if self.decoders is not None:
            self.decoders.close()
            self.decoders = None


class Forms(dict):
    """Pixels on a device, by form, each made when it is first asked for: "rows" (n, height, width, channels), and
    "flat" (n * height * width + 1, channels), whose last pixel is 0. No backend is kept: they go when it does."""

    def __init__(self, pixels: np.ndarray):
        super().__init__()
        self.pixels = pixels

    def on(self, backend: Backend, form: str) -> Array:
        """The pixels in a form, on the backend's device."""
        if form not in self:
            pixels = self.pixels
            if form == "flat":
                channels = pixels.shape[3]
                pixels = np.concatenate([pixels.reshape(-1, channels), np.zeros((1, channels), pixels.dtype)])
            self[form] = on_device(backend, pixels)
        return self[form]


def numbers(images: np.ndarray) -> np.ndarray:
    """Images as they are kept: uint8 as it is, other numbers as float32, or as float64 where that may lose some."""
    if images.dtype == np.uint8:
        return images
    return images.astype(np.float32 if np.can_cast(images.dtype, np.float32) else np.float64, copy=False)


def wide_of(backend: Backend) -> str:
    """The dtype in which inputs are normalised: float64, or float32 for what is shorter."""
    return "float64" if backend.dtype == "float64" else "float32"


def on_device(backend: Backend, images: np.ndarray) -> Array:
    """Images on a device: uint8 as it is, other numbers in the dtype in which they are normalised."""
    return backend.asarray(images, None if images.dtype == np.uint8 else wide_of(backend))


def spread(count: int, most: int) -> np.ndarray:
    """At most so many of 0 to count - 1, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
