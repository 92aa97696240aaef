"""Datasets: images and labels that become the same batches on every backend.

    data = loading.load("ylecun/mnist", held_out=10_000)
    for batch in data.batches("train", backend, 100, seed=0, epoch=3, start=50):   # 50: the batches already seen

`load` takes an id of the Hugging Face hub, "embedded" for the images inside this package, or a folder in the hub's
layout. What a batch holds is a function of seed, epoch and number alone. Small sets are decoded once, go to the device
once as uint8, and are cropped, mirrored and normalised there; the others stream (see streaming.py). Augmentations and
their names: augmentation.py.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import embedded
from ...machine.environment import cores
from . import augmentation as augmentations
from . import hub
from .augmentation import Augmentation, DataError, Varied
from .hub import Found, Source
from .images import SAMPLED, Dataset, Split, spread
from .left_out import LeftOut
from .streaming import views

__all__ = ("DataError", "Dataset", "Split", "images_per_second", "load")

EMBEDDED = "embedded"  # the name of the images inside this package
IN_MEMORY = 1 << 30  # bytes: larger sets stream
PROBED = 100  # images, evenly spread, whose size and colour are looked at before the rest is decoded
NEAR = 0.02  # between the mean and deviation of a folder's images and those of the dataset whose classes it has
CHUNK = 500  # images that a thread decodes at a time


@dataclass(frozen=True)
class Known:
    """What is known of a dataset: training images, classes, the first and the last one, pixels' mean and deviation."""

    count: int
    classes: tuple[int, str, str]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    measured: bool = True  # whether the deviation is that of all pixels


# Sources: PyTorch's MNIST example; computed on the 60,000 training images; computed on the 50,000 training images;
# torchvision's models. Each is of brightness in [0, 1], per channel.
KNOWN = {
    "ylecun/mnist": Known(60_000, (10, "0", "9"), (0.1307,), (0.3081,)),
    "zalando-datasets/fashion_mnist": Known(60_000, (10, "T - shirt / top", "Ankle boot"), (0.2860,), (0.3530,)),
    "uoft-cs/cifar10": Known(50_000, (10, "airplane", "truck"), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "ILSVRC/imagenet-1k": Known(
        1_281_167, (1000, "tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue"),
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), measured=False,
    ),
}  # fmt: skip


def load(
    name: str, path: str | Path | None = None, held_out: int = 0, augmentation: str = "none",
    normalise: bool = True, stream: bool | None = None, workers: int | None = None,
    config: str | None = None, skip_unreadable: int = 0, layout: Mapping[str, str] | None = None,
) -> Dataset:  # fmt: skip
    """A dataset of the hub, "embedded", or in place of these the one in the folder `path`.

    held_out: training images kept for validation, the last ones of a fixed permutation. normalise: to mean 0 and
    deviation 1 over the training images, per channel; False: brightness in [0, 1]. stream: None streams what is larger
    than 1 GiB, or is resized at random. workers: processes that decode a stream; None: one per core, 0: threads.
    config: one of the dataset's configurations, where it has several. layout: which of its columns and splits are what,
    see hub.LAYOUT. skip_unreadable: how many images may be left out
    that cannot be read. Raises DataError, one sentence.
    """
    plan = augmentations.parse(augmentation)
    if path is None and name == "embedded":
        return embedded_images(plan, held_out, normalise)
    found = hub.find(name, path, config, layout)
    title = name if path is None else str(path)
    known = name if path is None and name in KNOWN else None
    return of_found(
        found, title, held_out, augmentation, normalise, stream, workers, skip_unreadable, known, name in KNOWN
    )


def of_found(
    found: Found, title: str, held_out: int = 0, augmentation: str = "none", normalise: bool = True,
    stream: bool | None = None, workers: int | None = None, skip_unreadable: int = 0, known: str | None = None,
    asked: bool = False,
) -> Dataset:  # fmt: skip
    """The dataset of encoded images and their labels. known: which of the hub's it is; asked: whether it is to be told
    from its images though they are not normalised. Else as `load`."""
    plan = augmentations.parse(augmentation)
    parts = {"train": found.train} if found.test is None else {"train": found.train, "test": found.test}
    left_out = LeftOut(skip_unreadable)
    probed = [image for source in parts.values() for image in left_out.images(source, spread(len(source), PROBED))]
    if not probed:
        raise DataError(f"None of the images of {title} that were looked at can be read: load the dataset anew.")
    sizes = {image.size[::-1] for image in probed}
    grey = all(image.mode == "L" for image in probed)
    resized = plan.kind in ("resize", "centre-crop")
    if not resized and plan.size is None and len(sizes) > 1:
        error = Varied(
            f"The images of {title} vary in size, from {min(sizes)} to {max(sizes)}: choose an augmentation that makes "
            "sizes equal, as centre-crop-224."
        )
        error.size = min(h for h, _ in sizes), min(w for _, w in sizes)
        raise error
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
        pixels = all_decoded(parts, kept, stored, grey, left_out)
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
        cores() if workers is None else workers, left_out,
    )  # fmt: skip
    if known is not None:
        data.recognised = known
    elif normalise or asked:
        data.recognised = recognised(found, left_out)
    if normalise:
        data.mean, data.deviation = moments(data, data.recognised)
    else:
        data.mean, data.deviation = unit(data)
    return data


def recognised(found: Found, left_out: LeftOut) -> str | None:
    """The hub's dataset whose classes' names a folder has and, as names may be mere numbers, whose brightness too."""
    if not found.named:
        return None
    described = (len(found.classes), found.classes[0], found.classes[-1])
    for id, known in KNOWN.items():
        if known.classes == described:
            if not known.measured:
                return id
            images = left_out.images(found.train, spread(len(found.train), SAMPLED), grey=len(known.mean) == 1)
            mean, deviation = measured(np.asarray(image).reshape(-1, len(known.mean)) for image in images)
            near = np.abs([mean - known.mean, deviation - known.deviation]) < NEAR
            return id if np.all(near) else None
    return None


def other_count(name: str, count: int) -> str | None:
    """So many training images, held out or not, where the hub's dataset of that name has another number."""
    if name not in KNOWN or count == KNOWN[name].count:
        return None
    return f"{count:,} training images, {name} has {KNOWN[name].count:,}"


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
    data.recognised = EMBEDDED
    return data


def held(count: int, held_out: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Which images train, and which are held out: the last ones of a permutation that depends on their number alone.
    Raises DataError where none would be left."""
    if not 0 <= held_out < count:
        raise DataError(f"held_out is {held_out}, expected 0 to {count - 1}: {name} has {count} training images.")
    order = augmentations.permutation((augmentations.host_key(0), "held out"), count)
    return np.sort(order[: count - held_out]), np.sort(order[count - held_out :])


def all_decoded(
    sources: dict[str, Source], plan: Augmentation, shape: tuple[int, int], grey: bool, left_out: LeftOut
) -> dict[str, np.ndarray]:
    """All images of some sources, decoded by threads: uint8 (n, *shape, channels), three channels where one of them
    has colour, or where not `grey`; 0 in the place of those left out."""

    def decode(task):
        source, start = task
        rows = np.arange(start, min(start + CHUNK, len(source)))
        return rows, *views(source, rows, plan, None, None if grey else False, False, shape, bool(left_out.most))

    tasks = [(split, start) for split, source in sources.items() for start in range(0, len(source), CHUNK)]
    chunks: dict[str, list[np.ndarray]] = {split: [] for split in sources}
    executor = ThreadPoolExecutor(cores())
    try:
        decoded = executor.map(decode, [(sources[split], start) for split, start in tasks])
        for (split, _), (rows, readable, unreadable) in zip(tasks, decoded, strict=True):
            left_out.add(sources[split].split, unreadable)
            images = np.zeros((len(rows), *readable.shape[1:]), np.uint8)
            images[~np.isin(rows, [row for row, _ in unreadable])] = readable
            chunks[split].append(images)
    finally:
        executor.shutdown(cancel_futures=True)
    channels = max(images.shape[3] for parts in chunks.values() for images in parts)
    return {
        split: np.concatenate([np.broadcast_to(images, (*images.shape[:3], channels)) for images in parts])
        for split, parts in chunks.items()
    }


def unit(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean 0 and deviation 1: brightness in [0, 1] as it is."""
    return np.zeros(data.in_shape[-1]), np.ones(data.in_shape[-1])


def moments(data: Dataset, name: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per channel, (channels,): those known of the hub's dataset of that name; else those of its
    training images, as they come in a test, and of 1000 of them where they stream."""
    known = KNOWN.get(name or "")
    if known and len(known.mean) == data.in_shape[-1]:
        return np.array(known.mean), np.array(known.deviation)
    parts: Iterator[np.ndarray]
    if data.train.pixels is not None:
        pixels = data.train.pixels[data.left_out.readable(data.train.source, data.train.rows)]
        parts = (pixels[i : i + CHUNK] for i in range(0, len(pixels), CHUNK))
    else:
        positions = spread(data.train.count, SAMPLED)
        chunks = [positions[i : i + CHUNK] for i in range(0, len(positions), CHUNK)]
        parts = (images for _, images in data.decoded(data.train, chunks, None))
    return measured(part.reshape(-1, part.shape[3]) for part in parts)


def measured(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of brightness per channel, (channels,), over parts of some pixels, uint8 (n, channels)."""
    sums: Any = 0
    squares: Any = 0
    count = 0
    for part in parts:
        values = np.ascontiguousarray(part.T, np.uint32)  # a channel at a time, which is ten times as fast
        sums = sums + values.sum(axis=1, dtype=np.int64)
        squares, count = squares + (values * values).sum(axis=1, dtype=np.int64), count + len(part)
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
    count = sum(len(part) for _, part in images)
    return count / (time.perf_counter() - began)
