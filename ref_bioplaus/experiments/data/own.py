"""Data of one's own, in Python or in files: arrays, a `datasets.Dataset`, or a function that gives one of these.

    train(experiment, out, images=(x, y))
    train(experiment, out, images={"train": (x, y), "test": (x_test, y_test)})       or the pair of both
    train(experiment, out, images=datasets.load_dataset("imagefolder", data_dir="pictures"))
    train(experiment, out, images=blocks)                                            yields (x, y), of training samples

x   images (N, height, width) or (N, height, width, channels) of any number of channels, or vectors (N, units). Images
    in uint8 are brightness, 255 of it white; all other numbers are taken as they are.
y   whole numbers (N,), those of classes; texts (N,), their names; floats (N, outputs), real-valued targets; None, or x
    alone: the targets are the inputs. One-hot rows are refused, as they might be either.

Mean and deviation are those of the training samples per channel, of vectors per unit. Arrays of more than IN_MEMORY
bytes (loading.py) stay where they are, on disk where they are memory-mapped: batches are taken when they are needed,
and are the same. A set without "test" has its test split under one of the names of hub.TESTS, or none.
"""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import arrays, hub, loading
from . import augmentation as augmentations
from .arrays import Given, Part
from .augmentation import Augmentation, DataError
from .images import PIXELS, VALUES, Dataset, Split, numbers

WANTED = (
    'expected arrays (x, y), splits {"train": (x, y), "test": (x, y)}, a datasets.Dataset, or a function that gives '
    "one of these"
)


def given(value: Any, place: str | None = None) -> Any:
    """What is to be learned from, understood: a Data as it is; None where there is nothing.

    place: where no value is given, a folder or file that is taken where it holds arrays. Raises DataError.
    """
    if value is None:
        found = arrays.opened(place) if isinstance(place, str) and arrays.holds(place) else None
        return None if found is None else arrays.of_arrays(found, place or "", arrays.names(place or ""))
    if isinstance(value, Given) or callable(getattr(value, "batches", None)):
        return value
    if callable(value):
        value = called(value)
        if value is None or callable(value):
            raise DataError(f"The function that was given for images returns {kind(value)}: {WANTED}.")
        return given(value)
    if isinstance(value, Iterator):
        return given(joined(value))
    splits = splits_of(value)
    if any(is_table(one) for one in splits.values()):
        if not all(is_table(one) for one in splits.values()):
            raise DataError(f"images has splits of both tables and arrays: {WANTED}.")
        if not all(hasattr(one, "__len__") for one in splits.values()):
            raise DataError(
                f"{kind(next(iter(splits.values())))} is a stream, without a length: load it without streaming."
            )
        return Given("classes", {}, tables=splits)
    return arrays.of_arrays({name: pair(name, one) for name, one in splits.items()})


def called(function: Any) -> Any:
    """What a function gives, blocks put together. Raises DataError where it needs arguments."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        name = getattr(function, "__name__", kind(function))
        raise DataError(f"The function {name} was given for images, but needs arguments: give one without.") from None
    except ValueError:
        pass  # has no signature: see what it says
    return function()


def joined(blocks: Iterator[Any]) -> tuple[Any, Any]:
    """Blocks (x, y) as one. Raises DataError."""
    found = list(blocks)
    if not found:
        raise DataError("The function that was given for images yields nothing: expected blocks (x, y).")
    if not all(isinstance(block, tuple) and len(block) == 2 for block in found):
        raise DataError("The function that was given for images yields other things than blocks (x, y).")
    try:
        x = np.concatenate([np.asarray(x) for x, _ in found])
        y = None if all(y is None for _, y in found) else np.concatenate([np.asarray(y) for _, y in found])
    except (ValueError, TypeError) as error:
        raise DataError(f"The blocks (x, y) that were given for images do not fit together ({error}).") from None
    return x, y


def is_table(value: Any) -> bool:
    """Whether a value is a datasets.Dataset."""
    return hasattr(value, "features") and hasattr(value, "column_names") and hasattr(value, "select_columns")


def is_array(value: Any) -> bool:
    """Whether NumPy takes a value for an array."""
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


def kind(value: Any) -> str:
    """What a value is, for a sentence."""
    return f"a {type(value).__name__}"


def splits_of(value: Any) -> dict[str, Any]:
    """Splits by name, "train" and maybe "test". Raises DataError."""
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, tuple) or is_table(v) for v in value):
        return dict(zip(("train", "test"), value, strict=True))
    if not isinstance(value, Mapping):
        return {"train": value}
    if "train" not in value:
        raise DataError(f'images has no split "train", only {", ".join(map(str, value))}: name one so.')
    unknown = [str(name) for name in value if name not in ("train", *hub.TESTS)]
    tables = any(is_table(one) for one in value.values())
    if unknown and not tables:
        raise DataError(f'images has the split "{unknown[0]}", expected "train" and "test".')
    if tables:
        return dict(value)
    tests = [value[name] for name in hub.TESTS if name in value]
    return {"train": value["train"]} | ({"test": tests[0]} if tests else {})


def pair(split: str, value: Any) -> tuple[Any, Any]:
    """(x, y) of a split; y is None where x alone is given. Raises DataError."""
    if isinstance(value, tuple) and len(value) != 2:
        raise DataError(f'images are {len(value)} things for the split "{split}": {WANTED}.')
    if isinstance(value, str | bytes | Mapping) or (not isinstance(value, Sequence) and not is_array(value)):
        raise DataError(f'images are {kind(value)} for the split "{split}": {WANTED}.')
    return value if isinstance(value, tuple) else (value, None)


# To a Dataset


def load(
    name: str, path: str | None = None, value: Given | None = None, held_out: int = 0, augmentation: str = "none",
    normalise: bool = True, skip_unreadable: int = 0, config: str | None = None,
    layout: Mapping[str, str] | None = None, **streaming: Any,
) -> Dataset:  # fmt: skip
    """What a run learns from: data that was given, arrays in the place `path`, or else a dataset as loading.load takes
    it. layout: which columns and splits of tables are what, see hub.LAYOUT. Raises DataError, one sentence."""
    value = given(None, path) if value is None else value
    if value is None:
        return loading.load(
            name, path, held_out=held_out, augmentation=augmentation, normalise=normalise, config=config,
            skip_unreadable=skip_unreadable, layout=layout, **streaming,
        )  # fmt: skip
    if value.tables is not None:
        found = hub.found(value.tables, value.origin, (os.path.abspath(os.sep),), layout)  # the caller's own files
        return loading.of_found(found, value.origin, held_out, augmentation, normalise, skip_unreadable=skip_unreadable)
    for option, chosen in (("config", config), *(layout or {}).items()):
        if chosen:
            raise DataError(f'{option} is "{chosen}", but {value.origin} are arrays, without any: leave it out.')
    return dataset(value, held_out, augmentation, normalise)


def dataset(given: Given, held_out: int = 0, augmentation: str = "none", normalise: bool = True) -> Dataset:
    """Arrays that were understood, as what a run learns from; options as those of loading.load. Raises DataError."""
    plan = augmentations.parse(augmentation)
    train = given.parts["train"]
    shape, channels = train.x.shape[1:3], train.x.shape[3]
    check_augmentation(plan, shape, given.vectors)
    for part in given.parts.values():
        arrays.check_finite(part)
    apart = sum(part.x.nbytes for part in given.parts.values()) > loading.IN_MEMORY
    chosen, validation = loading.held(len(train.x), held_out, given.origin)

    def split(name: str, rows: np.ndarray, part: Part) -> Split:
        if apart:
            return Split(name, rows, part.labels[rows], apart=part.x)
        return Split(name, rows, part.labels[rows], numbers(np.ascontiguousarray(part.x[rows])))

    test = given.parts.get("test")
    found = Dataset(
        given.origin, split("train", chosen, train), split("validation", validation, train) if held_out else None,
        None if test is None else split("test", np.arange(len(test.x)), test), given.classes,
        (channels,) if given.vectors else (*(plan.size or shape), channels), plan, np.zeros(channels),
        np.ones(channels), scale=PIXELS if train.x.dtype == np.uint8 and not given.vectors else VALUES,
    )  # fmt: skip
    if normalise:
        found.mean, found.deviation = moments(found)
    return found


def check_augmentation(plan: Augmentation, shape: tuple[int, ...], vectors: bool) -> None:
    """Raise DataError where arrays are not augmented so."""
    if vectors and plan.name != "none":
        raise DataError(f'The augmentation is "{plan.name}", but the samples are vectors: choose none.')
    if plan.kind not in ("none", "crop") or not augmentations.covers(plan, (shape[0], shape[1])):
        raise DataError(
            f"The arrays of images of {shape[0]} x {shape[1]} are not resized: choose another augmentation than "
            f'"{plan.name}".'
        )


def doubt(data: Any) -> str | None:
    """A sentence on real-valued targets that may be meant for classes; None where nothing speaks for it."""
    labels = getattr(data.train, "labels", None) if getattr(data, "outputs", None) == 1 else None
    if labels is None or not np.all(labels == np.round(labels)):
        return None
    return "The targets are whole numbers in floats, so they are real-valued: give integers where they are classes"


def moments(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the training samples per channel, (channels,); of what does not vary, deviation 1."""
    train, channels = data.train, data.in_shape[-1]
    rows, many = np.arange(train.count), arrays.at_a_time(data.image_shape)
    parts = (train.host(rows[i : i + many]).reshape(-1, channels) for i in range(0, train.count, many))
    if data.scale == PIXELS:
        return loading.measured(parts)
    count, mean, squares = 0, np.zeros(channels), np.zeros(channels)
    for part in parts:
        values = np.ascontiguousarray(part.T, np.float64)
        centre, more = values.mean(axis=1), len(part)
        apart = centre - mean
        squares = squares + ((values - centre[:, None]) ** 2).sum(axis=1) + apart**2 * (count * more / (count + more))
        mean = mean + apart * (more / (count + more))
        count += more
    deviation = np.sqrt(squares / count)
    return mean, np.where(deviation > 0, deviation, 1.0)
