"""Datasets: images and labels that become the same batches on every backend.

    data = datasets.load("ylecun/mnist", held_out=10_000)
    for batch in data.batches("train", backend, 100, seed=0, epoch=3, start=50):   # 50: the batches already seen

`load` takes an id of the Hugging Face hub, "embedded" for the images inside this package, or a folder in the hub's
layout. What a batch holds is a function of seed, epoch and number alone. Small sets are decoded once, go to the device
once as uint8, and are cropped, mirrored and normalised there; the others stream (see streaming.py). Augmentations and
their names: augmentation.py.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from array_api_compat import array_namespace

from .. import losses
from ..backends import Backend
from ..types import Array, Batch
from . import augmentation as augmentations
from . import embedded, hub
from .augmentation import Augmentation, DataError
from .hub import Source
from .streaming import Decoders, cores, views

__all__ = ("DataError", "Dataset", "Split", "images_per_second", "load")

IN_MEMORY = 1 << 30  # bytes: larger sets stream
PROBED = 100  # images, evenly spread, whose size and colour are looked at before the rest is decoded
SAMPLED = 1000  # images, evenly spread, that give a streamed set its mean and deviation
CHUNK = 500  # images that a thread decodes at a time


@dataclass(frozen=True)
class Known:
    """What is known of a dataset: how many classes, the first and the last one, and its pixels' mean and deviation."""

    classes: tuple[int, str, str]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


# Sources: PyTorch's MNIST example; computed on the 60,000 training images; computed on the 50,000 training images;
# torchvision's models. Each is of brightness in [0, 1], per channel.
KNOWN = {
    "ylecun/mnist": Known((10, "0", "9"), (0.1307,), (0.3081,)),
    "zalando-datasets/fashion_mnist": Known((10, "T - shirt / top", "Ankle boot"), (0.2860,), (0.3530,)),
    "uoft-cs/cifar10": Known((10, "airplane", "truck"), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "ILSVRC/imagenet-1k": Known(
        (1000, "tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue"),
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Split:
    """The images of training, validation or test."""

    name: str
    rows: np.ndarray  # which images of the source, int64 (count,): a name for each, of which its augmentation is made
    labels: np.ndarray  # int32 (count,)
    pixels: np.ndarray | None = None  # uint8 (count, height, width, channels); None: they stream
    source: Source | None = None

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.rows)

    def steps(self, batch: int, drop_last: bool = False) -> int:
        """Batches in an epoch; the last one may be smaller, and counts unless it is dropped."""
        return self.count // batch if drop_last else -(-self.count // batch)


@dataclass(eq=False)
class Dataset:
    """Splits of images of one kind, and how they become batches. `validation` is None without held-out images, `test`
    where the dataset has no labelled test images."""

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    classes: tuple[str, ...]
    in_shape: tuple[int, int, int]  # of what the network gets, (height, width, channels)
    augmentation: Augmentation
    mean: np.ndarray  # per channel, of brightness in [0, 1]
    deviation: np.ndarray
    resize_first: bool = False
    workers: int = 0
    on_device: weakref.WeakKeyDictionary = field(default_factory=weakref.WeakKeyDictionary, repr=False)
    decoders: Decoders | None = field(default=None, repr=False)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits there are."""
        return tuple(name for name in ("train", "validation", "test") if getattr(self, name) is not None)

    @property
    def streams(self) -> bool:
        """Whether images are decoded whenever they are needed."""
        return self.train.pixels is None

    @property
    def bytes(self) -> int:
        """What the images take in memory, on the host and once more on each device: 0 where they stream."""
        pixels = [getattr(self, name).pixels for name in self.splits]
        return sum(p.nbytes for p in pixels if p is not None)

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
        flatten: bool = False, drop_last: bool = False, augment: bool | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """The batches of one epoch from number `start` on: x (N, *in_shape), or (N, units) if flattened, and one-hot y
        (N, classes), in the backend's dtype on its device.

        augment: whether to augment; None: training images, if they are shuffled. Raises DataError.
        """
        if batch < 1 or start < 0:
            raise DataError(f"batch is {batch} and start is {start}, expected at least 1 and 0.")
        chosen = self.split(split)
        order = self.order(split, seed, epoch, shuffle)
        augmented = (shuffle and split == "train") if augment is None else augment
        draw = (seed, epoch) if augmented else None
        parts = [order[i * batch : (i + 1) * batch] for i in range(start, chosen.steps(batch, drop_last))]
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
        plain = shape == self.in_shape[:2] and (draw is None or self.augmentation.name == "none")

        images = pixels["rows" if plain else "flat"]
        run = self.making(backend, "rows" if plain else "flat", flatten)
        for positions in parts:
            on_device = backend.asarray(positions.astype(np.int32))
            if plain:
                yield run(images, labels, *normal, on_device)
                continue
            words = None if draw is None else augmentations.image_words(self.augmentation, *draw, split.rows[positions])
            zero = split.count * shape[0] * shape[1]
            index = augmentations.gather(self.augmentation, shape, positions, words, zero)
            yield run(images, labels, *normal, on_device, backend.asarray(index))

    def device_arrays(self, backend: Backend, split: Split) -> tuple["Forms", Array, tuple[Array, Array]]:
        """A split's pixels and labels, and what normalises them, on the device: sent once."""
        kept = self.on_device.setdefault(backend, {})
        if split.name not in kept:
            assert split.pixels is not None
            kept[split.name] = (Forms(backend, split.pixels), backend.asarray(split.labels), self.normal(backend))
        return kept[split.name]

    def normal(self, backend: Backend) -> tuple[Array, Array]:
        """What is taken from uint8 pixels and what they are then multiplied by, (channels,), in float64 or float32."""
        wide = "float64" if backend.dtype == "float64" else "float32"
        centre, factor = 255 * self.mean, 1 / (255 * self.deviation)
        return backend.asarray(centre.astype(wide), wide), backend.asarray(factor.astype(wide), wide)

    def making(self, backend: Backend, form: str, flatten: bool) -> Callable[..., Batch]:
        """The function that makes a batch on the device, the same one at every call: of stored "rows" or "flat" pixels,
        or of "images" just sent there. Compiled, where the backend compiles; no sum follows a product, which it could
        then round but once."""
        shape = (-1,) if flatten else self.in_shape

        def finished(images, labels, centre, factor):
            xp = array_namespace(images)
            dtype = getattr(backend.xp, backend.dtype)
            count = labels.shape[0]
            x = xp.astype(xp.reshape(images, (count, -1, self.in_shape[2])), factor.dtype)
            x = xp.astype((x - centre) * factor, dtype, copy=False)
            return Batch(xp.reshape(x, (count, *shape)), losses.one_hot(labels, len(self.classes), dtype))

        def of_rows(pixels, labels, centre, factor, positions):
            xp = array_namespace(pixels)
            return finished(xp.take(pixels, positions, axis=0), xp.take(labels, positions, axis=0), centre, factor)

        def of_flat(pixels, labels, centre, factor, positions, index):
            xp = array_namespace(pixels)
            chosen = xp.take(pixels, xp.reshape(index, (-1,)), axis=0)
            return finished(chosen, xp.take(labels, positions, axis=0), centre, factor)

        kept = self.on_device.setdefault(backend, {})
        if (form, flatten) not in kept:
            functions: dict[str, Callable[..., Batch]] = {"rows": of_rows, "flat": of_flat, "images": finished}
            function = functions[form]
            kept[form, flatten] = backend.wrap(function) if backend.compiles else backend.eager(function)
        return kept[form, flatten]

    def streamed(
        self, split: Split, backend: Backend, parts: list[np.ndarray], draw: tuple[int, int] | None, flatten: bool
    ) -> Iterator[Batch]:
        """Batches of images that are decoded as they are needed."""
        normal, run = self.normal(backend), self.making(backend, "images", flatten)
        for positions, images in zip(parts, self.decoded(split, parts, draw), strict=True):
            yield run(backend.asarray(images), backend.asarray(split.labels[positions]), *normal)

    def decoded(self, split: Split, parts: list[np.ndarray], draw: tuple[int, int] | None) -> Iterator[np.ndarray]:
        """A streaming split's images on the host, uint8 (N, *in_shape), batch by batch. Raises DataError."""
        if self.decoders is None:
            sources = {name: s.source for name in self.splits if (s := getattr(self, name)).source is not None}
            self.decoders = Decoders(sources, self.in_shape, self.workers)
            weakref.finalize(self, self.decoders.executor.shutdown, wait=False, cancel_futures=True)
        rows = [split.rows[positions] for positions in parts]
        grey = self.in_shape[2] == 1
        return self.decoders.batches(split.name, rows, self.augmentation, draw, grey, self.resize_first, self.in_shape)

    def close(self) -> None:
        """End the processes that decode, if there are any; the next batch starts them anew."""
        if self.decoders is not None:
            self.decoders.close()
            self.decoders = None


class Forms(dict):
    """Pixels on a device, by form, each made when it is first asked for: "rows" (n, height, width, channels), and
    "flat" (n * height * width + 1, channels), whose last pixel is 0."""

    def __init__(self, backend: Backend, pixels: np.ndarray):
        super().__init__()
        self.backend, self.pixels = backend, pixels

    def __missing__(self, form: str) -> Array:
        pixels = self.pixels
        if form == "flat":
            channels = pixels.shape[3]
            pixels = np.concatenate([pixels.reshape(-1, channels), np.zeros((1, channels), np.uint8)])
        self[form] = self.backend.asarray(pixels)
        return self[form]


def load(
    name: str, path: str | Path | None = None, held_out: int = 0, augmentation: str = "none",
    normalise: bool = True, stream: bool | None = None, workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:  # fmt: skip
    """A dataset of the hub, "embedded", or in place of these the one in the folder `path`.

    held_out: training images kept for validation, the last ones of a fixed permutation. normalise: to mean 0 and
    deviation 1 over the training images, per channel; False: brightness in [0, 1]. stream: None streams what is larger
    than 1 GiB, or is resized at random. workers: processes that decode a stream; None: one per core, 0: threads.
    progress: told how many images are decoded, of how many. Raises DataError, one sentence.
    """
    plan = augmentations.parse(augmentation)
    if path is None and name == "embedded":
        return embedded_images(plan, held_out, normalise)
    found = hub.find(name, path)
    title = name if path is None else str(path)
    parts = {"train": found.train} if found.test is None else {"train": found.train, "test": found.test}
    probed = [image for source in parts.values() for image in source.images(spread(len(source), PROBED))]
    sizes = {image.size[::-1] for image in probed}
    grey = all(image.mode == "L" for image in probed)
    resized = plan.kind in ("resize", "centre-crop")
    if not resized and plan.size is None and len(sizes) > 1:
        raise DataError(
            f"The images of {title} vary in size, from {min(sizes)} to {max(sizes)}: choose an augmentation that makes "
            "sizes equal, as centre-crop-224."
        )
    resize_first = len(sizes) > 1 or not augmentations.covers(plan, next(iter(sizes)))
    at_random = plan.kind == "random-resized-crop" or (plan.kind == "crop" and plan.size is not None and resize_first)
    out = plan.size or next(iter(sizes))
    stored = out if resized else next(iter(sizes))
    bytes_needed = sum(map(len, parts.values())) * stored[0] * stored[1] * (1 if grey else 3)
    if stream is False and at_random:
        raise DataError(
            f'Images cannot stay in memory under the augmentation "{augmentation}": leave out stream=False.'
        )
    if stream is None:
        stream = at_random or bytes_needed > IN_MEMORY
    pixels: dict[str, np.ndarray] = {}
    if not stream:
        kept = plan if resized else augmentations.parse("none")
        pixels = all_decoded(parts, kept, stored, grey, progress)
        grey = pixels["train"].shape[3] == 1
        if resized:
            plan = Augmentation(plan.name, "none", plan.flip, None)
    train, validation = held(len(found.train), held_out, title)

    def part(split, rows, of, labels):
        chosen = np.ascontiguousarray(pixels[of][rows]) if pixels else None
        return Split(split, rows, labels[rows], chosen, parts[of])

    data = Dataset(
        title,
        part("train", train, "train", found.train_labels),
        part("validation", validation, "train", found.train_labels) if held_out else None,
        None if found.test is None else part("test", np.arange(len(found.test)), "test", found.test_labels),
        found.classes, (*out, 1 if grey else 3), plan, np.zeros(1), np.ones(1), resize_first,
        cores() if workers is None else workers,
    )  # fmt: skip
    data.mean, data.deviation = moments(data, name if path is None else None) if normalise else unit(data)
    return data


def embedded_images(plan: Augmentation, held_out: int, normalise: bool) -> Dataset:
    """The images inside this package as a dataset."""
    try:
        images = embedded.fashion_mnist_small()
    except (OSError, ValueError) as error:
        raise DataError(str(error)) from error
    shape = images.train_x.shape[1:3]
    if plan.kind not in ("none", "crop") or not augmentations.covers(plan, shape):
        raise DataError(
            f'The embedded images of 28 x 28 are not resized: choose another augmentation than "{plan.name}".'
        )
    train, validation = held(len(images.train_x), held_out, "embedded")
    train_x, test_x = (np.round(x * 255).astype(np.uint8) for x in (images.train_x, images.test_x))
    train_y, test_y = (np.argmax(y, axis=1).astype(np.int32) for y in (images.train_y, images.test_y))
    data = Dataset(
        "embedded", Split("train", train, train_y[train], train_x[train]),
        Split("validation", validation, train_y[validation], train_x[validation]) if held_out else None,
        Split("test", np.arange(len(test_x)), test_y, test_x), images.classes, (*(plan.size or shape), 1), plan,
        np.zeros(1), np.ones(1),
    )  # fmt: skip
    data.mean, data.deviation = moments(data, None) if normalise else unit(data)
    return data


def held(count: int, held_out: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Which images train, and which are held out: the last ones of a permutation that depends on their number alone.
    Raises DataError where none would be left."""
    if not 0 <= held_out < count:
        raise DataError(f"held_out is {held_out}, expected 0 to {count - 1}: {name} has {count} training images.")
    order = augmentations.permutation((augmentations.host_key(0), "held out"), count)
    return np.sort(order[: count - held_out]), np.sort(order[count - held_out :])


def spread(count: int, most: int) -> np.ndarray:
    """At most so many of 0 to count - 1, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def all_decoded(
    sources: dict[str, Source], plan: Augmentation, shape: tuple[int, int], grey: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """All images of some sources, decoded by threads: uint8 (n, *shape, channels), three channels where one of them
    has colour, or where not `grey`."""

    def decode(task):
        source, start = task
        rows = np.arange(start, min(start + CHUNK, len(source)))
        return views(source, rows, plan, None, None if grey else False, False, shape)

    tasks = [(split, start) for split, source in sources.items() for start in range(0, len(source), CHUNK)]
    chunks: dict[str, list[np.ndarray]] = {split: [] for split in sources}
    done, total = 0, sum(map(len, sources.values()))
    executor = ThreadPoolExecutor(cores())
    try:
        decoded = executor.map(decode, [(sources[split], start) for split, start in tasks])
        for (split, _), images in zip(tasks, decoded, strict=True):
            chunks[split].append(images)
            done += len(images)
            if progress is not None:
                progress(done, total)
    finally:
        executor.shutdown(cancel_futures=True)
    channels = max(images.shape[3] for parts in chunks.values() for images in parts)
    return {
        split: np.concatenate([np.broadcast_to(images, (*images.shape[:3], channels)) for images in parts])
        for split, parts in chunks.items()
    }


def unit(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean 0 and deviation 1: brightness in [0, 1] as it is."""
    return np.zeros(data.in_shape[2]), np.ones(data.in_shape[2])


def moments(data: Dataset, name: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per channel, (channels,): those known of the dataset, or of the one whose classes it has; else
    those of its training images, as they come in a test, and of 1000 of them where they stream."""
    described = (len(data.classes), data.classes[0], data.classes[-1])
    for id, known in KNOWN.items():
        if (id == name or known.classes == described) and len(known.mean) == data.in_shape[2]:
            return np.array(known.mean), np.array(known.deviation)
    parts: Iterator[np.ndarray]
    sums, squares, count = np.zeros(data.in_shape[2]), np.zeros(data.in_shape[2]), 0
    if data.train.pixels is not None:
        pixels = data.train.pixels
        parts = (pixels[i : i + CHUNK] for i in range(0, data.train.count, CHUNK))
    else:
        positions = spread(data.train.count, SAMPLED)
        parts = data.decoded(data.train, [positions[i : i + CHUNK] for i in range(0, len(positions), CHUNK)], None)
    for part in parts:
        values = part.reshape(-1, part.shape[3]).astype(np.int64)
        sums, squares, count = sums + values.sum(axis=0), squares + (values * values).sum(axis=0), count + len(values)
    mean = sums / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0.0))
    return mean / 255, np.where(deviation > 0, deviation, 255.0) / 255


def images_per_second(data: Dataset, batch: int = 64, batches: int = 20) -> float:
    """How many training images a second are decoded and augmented on the host, for a dataset that streams: the first
    batch, which starts the processes, is not counted. Raises DataError where nothing streams."""
    if not data.streams:
        raise DataError(f'The dataset "{data.name}" does not stream: its images are in memory.')
    order = np.concatenate(
        [data.order("train", 0, epoch) for epoch in range(1 + (batches + 1) * batch // data.train.count)]
    )
    parts = [order[i * batch : (i + 1) * batch] for i in range(batches + 1)]
    images = data.decoded(data.train, parts, (0, 0))
    next(images)
    began = time.perf_counter()
    count = sum(len(part) for part in images)
    return count / (time.perf_counter() - began)
