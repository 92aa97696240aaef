"""What the program understands of data before it learns: splits, classes, moments, first images, and what is odd.

Of images that stream, SAMPLED of each split are looked at, evenly spread; of all others every one.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..data import arrays, own
from ..data.augmentation import Varied
from ..data.images import PIXELS, SAMPLED, Dataset, Split, spread
from ..spec.experiment import Experiment, ExperimentError
from ..spec.names import DATASET, is_own
from ..training.opening import own_data
from .mosaics import Picture, mosaic

ALL = 10**9  # images that may be left out here, and are counted
FIRST, WIDE = 40, 10  # images of the mosaic, and how many stand side by side
UNEQUAL = 10  # times as many samples in one class as in another
NAMED = 5  # classes or rows that a sentence names
CHANNELS = (1, 2, 3, 4)  # of images whose channels come last, as a rule


def loaded(experiment: Experiment) -> tuple[Dataset, list[str]]:
    """The data of an experiment, not augmented, and what was odd before it could be looked at. Raises DataError, and
    ExperimentError for data of one's own that cannot be looked at."""
    value = own_data(experiment) if is_own(DATASET, experiment.dataset) else None
    if value is not None and not isinstance(value, own.Given):
        if not isinstance(value, Dataset):
            kind = type(value).__name__
            raise ExperimentError(f'The dataset "{experiment.dataset}" is a {kind}, of which only `train` knows.')
        return value, []

    def load(augmentation: str) -> Dataset:
        return own.load(
            str(experiment.dataset), experiment.data, value, held_out=experiment.held_out, augmentation=augmentation,
            config=experiment.config, skip_unreadable=ALL, layout=experiment.layout, workers=0,
        )  # fmt: skip

    try:
        return load(experiment.augmentation), []
    except Varied as error:
        return load(f"resize-{error.size[0]}x{error.size[1]}"), [str(error)]


class Looked:
    """What was seen of a split: by the hash of its bytes where each sample stands, and which do not vary."""

    def __init__(self, data: Dataset, split: Split):
        self.split = split
        self.hashes: dict[bytes, int] = {}
        self.constant: list[int] = []
        self.twice, self.seen, self.grey, self.whole = 0, 0, data.in_shape[-1] == 3, data.scale != PIXELS
        self.low, self.high = np.inf, -np.inf
        for positions, images in samples(data, split):
            flat = images.reshape(len(images), -1)
            self.seen += len(images)
            low, high = flat.min(axis=1), flat.max(axis=1)
            self.constant += [int(row) for row in split.rows[positions[low == high]]]
            self.low, self.high = min(self.low, float(low.min())), max(self.high, float(high.max()))
            self.grey = self.grey and bool(np.all(images == images[..., :1]))
            self.whole = self.whole and bool(np.all(flat == np.round(flat)))
            for row, sample in zip(split.rows[positions], flat, strict=True):
                digest = hashlib.blake2b(np.ascontiguousarray(sample).tobytes(), digest_size=16).digest()
                self.twice += digest in self.hashes
                self.hashes.setdefault(digest, int(row))


def samples(data: Dataset, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions, and what stands there: (N, height, width, channels), without images that cannot be read."""
    many = arrays.at_a_time(data.image_shape)
    streams = split.pixels is None and split.apart is None
    positions = spread(split.count, SAMPLED) if streams else np.arange(split.count)
    parts = [positions[i : i + many] for i in range(0, len(positions), many)]
    if streams:
        yield from ((rows, images) for rows, images in data.decoded(split, parts, None) if len(rows))
        return
    readable = data.left_out.readable(split.source, split.rows)
    for part in (part[readable[part]] for part in parts):
        if len(part):
            yield part, split.host(part)


def described(data: Dataset, before: Sequence[str] = ()) -> dict[str, Any]:
    """What a dataset is, in words and numbers that JSON has. before: what was odd already."""
    looked = {name: Looked(data, data.split(name)) for name in data.splits}
    return {
        "name": data.name,
        "recognised": data.recognised,
        "kind": "vectors" if len(data.in_shape) == 1 else "images",
        "shape": [int(n) for n in data.in_shape],
        "scale": data.scale,
        "targets": data.targets,
        "outputs": data.outputs,
        "where": "streams" if data.streams else "on disk" if data.train.apart is not None else "in memory",
        "splits": {name: of_split(data, one) for name, one in looked.items()},
        "channels": [{"mean": float(m), "deviation": float(d)} for m, d in zip(*constants(data), strict=True)],
        "odd": [*before, *odd(data, looked)],
    }


def constants(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per channel that inputs are normalised by."""
    return np.asarray(data.mean), np.asarray(data.deviation)


def of_split(data: Dataset, looked: Looked) -> dict[str, Any]:
    """A split's samples, and its classes or targets."""
    split = looked.split
    found: dict[str, Any] = {"samples": split.count, "looked_at": looked.seen, "low": looked.low, "high": looked.high}
    if data.targets == "classes":
        counts = np.bincount(split.labels, minlength=len(data.classes))
        found["classes"] = {name: int(n) for name, n in zip(data.classes, counts, strict=True)}
    if data.targets == "values":
        y = split.labels.astype(np.float64)
        columns = zip(y.mean(axis=0), y.std(axis=0), y.min(axis=0), y.max(axis=0), strict=True)
        names = ("mean", "deviation", "low", "high")
        found["outputs"] = [dict(zip(names, map(float, column), strict=True)) for column in columns]
    return found


# What is odd, a sentence each


def odd(data: Dataset, looked: dict[str, Looked]) -> list[str]:
    """Sentences on what hardly anybody means."""
    found = []
    if data.left_out.count:
        found.append(
            f"{data.left_out.count} image{'' if data.left_out.count == 1 else 's'} cannot be read, left out by "
            f"--skip-unreadable {data.left_out.count}. The first one: {data.left_out.sentences[0]}"
        )
    for name, one in looked.items():
        if one.constant:
            found.append(f"{counted(len(one.constant), name)} of one value throughout: {rows(one.constant)}.")
        if one.twice:
            found.append(f"{one.twice:,} of the {name} samples come more than once in {name}.")
    found += [sentence for name in ("validation", "test") if name in looked for sentence in shared(looked, name)]
    if all(one.grey and one.seen for one in looked.values()):
        found.append("Every image is grey, but stored in three equal channels.")
    height, _, channels = data.image_shape
    if len(data.in_shape) == 3 and height in (1, 3) and channels not in CHANNELS:
        found.append(
            f"Images have {channels} channels and a height of {height}: are channels first? They are expected last."
        )
    train = looked["train"]
    if train.whole and 1 < train.high <= 255 and train.low >= 0 and len(data.in_shape) == 3:
        found.append(
            f"Images are whole numbers from {train.low:g} to {train.high:g}, but not in uint8, so they are taken as "
            "they are: are they brightness?"
        )
    doubt = own.doubt(data)
    if doubt:
        found.append(f"{doubt}.")
    return found + (of_classes(data) if data.targets == "classes" else [])


def of_classes(data: Dataset) -> list[str]:
    """Sentences on classes that are missing, or of very unequal size."""
    counts = {name: np.bincount(data.split(name).labels, minlength=len(data.classes)) for name in data.splits}
    numbered = data.classes == tuple(map(str, range(len(data.classes))))
    if numbered and len(data.classes) > 1 and not sum(int(n[0]) for n in counts.values()):
        return ["No sample has the class 0: do the labels start at 1? Then the network has an output too many."]
    found = []
    for name, n in counts.items():
        missing = [data.classes[i] for i in np.flatnonzero(n == 0)]
        if missing:
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            found.append(f"{len(missing)} classes have no {name} sample: {', '.join(missing[:NAMED])}{more}.")
    some = counts["train"][counts["train"] > 0]
    if some.max() > UNEQUAL * some.min():
        most, least = (data.classes[int(np.flatnonzero(counts["train"] == n)[0])] for n in (some.max(), some.min()))
        found.append(f"Classes are very unequal: {some.max():,} training samples of {most}, {some.min():,} of {least}.")
    return found


def shared(looked: dict[str, Looked], name: str) -> list[str]:
    """A sentence on samples that are in another split and in training, too."""
    train, other = looked["train"].hashes, looked[name].hashes
    both = [digest for digest in other if digest in train]
    if not both:
        return []
    first = f"row {other[both[0]]} of {name} is row {train[both[0]]} of train"
    return [f"{counted(len(both), name)} in train, too: {first}."]


def counted(n: int, name: str) -> str:
    """So many samples of a split, for the beginning of a sentence."""
    return f"{n:,} {name} sample is" if n == 1 else f"{n:,} {name} samples are"


def rows(found: Sequence[int]) -> str:
    """Rows, the first few of them."""
    more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    return f"row{'' if len(found) == 1 else 's'} {', '.join(map(str, found[:NAMED]))}{more}"


# Pictures


def first_images(data: Dataset) -> np.ndarray:
    """The first training images, from 0 to 1, (n, height, width, 1 or 3): of other channels the first one."""
    images = next(samples(data, data.train))[1][:FIRST].astype(np.float64)
    images = images if images.shape[-1] == 3 else images[..., :1]
    low, high = (0.0, 255.0) if data.scale == PIXELS else (float(images.min()), float(images.max()))
    return (images - low) / max(high - low, np.finfo(np.float64).tiny)


def picture(data: Dataset) -> Picture:
    """The first training images as a mosaic."""
    images = first_images(data)
    tiles = mosaic(images, WIDE)
    figure = Figure(figsize=(6.0, 6.0 * tiles.shape[0] / tiles.shape[1] + 0.1), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(tiles, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_axis_off()
    return Picture(figure, f"The first {len(images)} training images of {data.name}.")
