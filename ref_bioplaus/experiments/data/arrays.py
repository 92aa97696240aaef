"""Arrays in hand or in files, understood: which targets they have, of which classes, and whether they fit together.

Files are x_train.npy, y_train.npy, x_test.npy and y_test.npy of a folder, of which only the first has to be there, or
one .npz with these names. Those of a folder are memory-mapped; nothing is ever unpickled.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

import numpy as np

from ...machine import files
from . import inside
from .augmentation import DataError
from .images import numbers
from .labels import MANY

TOGETHER = 1 << 21  # numbers that are looked at together
MOST = 100_000  # classes without a sample of each
SPLITS = ("train", "test")
FIRST = "x_train.npy"
ARCHIVE = ".npz"
WORDS = {"numbers": "whole numbers", "texts": "texts", "values": "real-valued targets", "none": "no targets"}
TARGETS = {"numbers": "classes", "texts": "classes", "values": "values", "none": "inputs"}


@dataclass(frozen=True, eq=False)
class Part:
    """One split: inputs and labels as a Dataset has them."""

    x: np.ndarray  # (n, height, width, channels), of vectors (n, 1, 1, units): the caller's own memory, or a file's
    labels: np.ndarray  # int32 (n,), or floats (n, outputs)
    name: str  # of x, for sentences


@dataclass(frozen=True, eq=False)
class Given:
    """Data that was understood: of arrays, looked at as far as that is quick and not copied, or of tables."""

    targets: str  # "classes", "values" or "inputs"
    parts: Mapping[str, Part]  # "train" and maybe "test"; none where there are tables
    classes: tuple[str, ...] = ()
    vectors: bool = False
    tables: Any = None  # {split: datasets.Dataset}
    origin: str = "images"


def of_arrays(
    splits: Mapping[str, tuple[Any, Any]], origin: str = "images", names: Mapping[str, str] | None = None
) -> Given:
    """Arrays by split, looked at but for whether their numbers are finite. names: what x_train and so on are called.

    Raises DataError, one sentence.
    """
    called = {f"{of}_{split}": f'{of} of split "{split}"' for split in splits for of in "xy"} | dict(names or {})
    x = {split: inputs(one, called[f"x_{split}"]) for split, (one, _) in splits.items()}
    shapes = {split: (one.shape[1:], one.dtype == np.uint8) for split, one in x.items()}
    for split, (shape, bits) in shapes.items():
        if shape != shapes["train"][0] or bits != shapes["train"][1]:
            raise DataError(
                f"{called['x_train']} has samples of {sample(x['train'])}, and {called[f'x_{split}']} of "
                f"{sample(x[split])}: give both in one form."
            )
    y = {split: None if one is None else as_array(one, called[f"y_{split}"]) for split, (_, one) in splits.items()}
    kinds = {split: kind_of(one, called[f"y_{split}"]) for split, one in y.items()}
    for split, found in kinds.items():
        if found != kinds["train"]:
            raise DataError(
                f"{called['y_train']} has {WORDS[kinds['train']]}, and {called[f'y_{split}']} {WORDS[found]}: give "
                "both in one form."
            )
        count = len(x[split]) if (one := y[split]) is None else len(one)
        if count != len(x[split]):
            raise DataError(
                f"{called[f'x_{split}']} has {len(x[split]):,} samples, and {called[f'y_{split}']} {count:,} targets: "
                "give one for each."
            )
    classes = classes_of(y["train"], kinds["train"], called["y_train"])
    vectors = len(shapes["train"][0]) == 1
    parts = {
        split: Part(as_images(x[split]), labels_of(y[split], kinds[split], classes, called[f"y_{split}"], len(x[split]),
                    y["train"]), called[f"x_{split}"])
        for split in splits
    }  # fmt: skip
    return Given(TARGETS[kinds["train"]], parts, classes, vectors, origin=origin)


def as_array(value: Any, name: str) -> np.ndarray:
    """A NumPy array of a value, its memory where it has some. Raises DataError."""
    if isinstance(value, np.ma.MaskedArray) and np.any(value.mask):
        raise DataError(f"{name} has masked numbers, which would be taken for what lies under the mask: fill them.")
    try:
        found = np.asarray(value)
    except Exception as error:  # whatever another library's array raises that cannot be had, as one on a GPU
        raise DataError(f"{name} cannot be read as an array ({' '.join(str(error).split())[:200]}).") from None
    if found.dtype == object and found.size and all(isinstance(one, str) for one in found.reshape(-1)):
        return found.astype(str)
    if found.dtype.kind not in "biufU":
        raise DataError(f"{name} has the dtype {found.dtype}, expected numbers, or texts for classes.")
    return found


def inputs(value: Any, name: str) -> np.ndarray:
    """Images or vectors as an array. Raises DataError for one of another form, or without numbers."""
    x = as_array(value, name)
    if x.dtype.kind == "U":
        raise DataError(f"{name} has texts, expected numbers.")
    if x.ndim not in (2, 3, 4) or not x.size:
        raise DataError(
            f"{name} has the shape {x.shape}, expected images (N, height, width) or (N, height, width, channels), or "
            "vectors (N, units), one at least."
        )
    return x


def sample(x: np.ndarray) -> str:
    """The form of samples, for a sentence."""
    return f"{' x '.join(map(str, x.shape[1:]))} in {x.dtype}"


def as_images(x: np.ndarray) -> np.ndarray:
    """(N, height, width, channels) of images and vectors; no number is copied."""
    if x.ndim == 2:
        return x[:, None, None, :]
    return x[..., None] if x.ndim == 3 else x


def kind_of(y: np.ndarray | None, name: str) -> str:
    """What targets are: "numbers" or "texts" of classes, real-valued "values", or "none". Raises DataError."""
    if y is None:
        return "none"
    one_hot = y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf" and is_one_hot(y)
    if one_hot or y.ndim not in (1, 2) or (y.dtype.kind != "f" and y.ndim == 2 and y.shape[1] != 1) or not y.size:
        rows = " of one-hot rows" if one_hot else ""
        raise DataError(
            f"{name} has the shape {y.shape}{rows} in {y.dtype}, expected whole numbers (N,) of classes, as "
            "np.argmax(y, axis=1) makes of one-hot rows, their names (N,), or real-valued targets (N, outputs) in "
            "floats."
        )
    if y.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(y))
        if len(bad):
            raise DataError(not_finite(name, len(bad), int(bad[0]) // (y.size // len(y))))
        return "values"
    return "texts" if y.dtype.kind == "U" else "numbers"


def is_one_hot(y: np.ndarray) -> bool:
    """Whether every row has one 1, and 0 elsewhere."""
    return bool(np.all((y == 0) | (y == 1)) and np.all(np.count_nonzero(y, axis=1) == 1))


def not_finite(name: str, count: int, row: int) -> str:
    """A sentence on NaN and infinities."""
    what = "number that is" if count == 1 else "numbers that are"
    return f"{name} has {count:,} {what} not finite (NaN or infinity), the first in row {row}: leave such rows out."


def classes_of(y: np.ndarray | None, kind: str, name: str) -> tuple[str, ...]:
    """The names of the training targets' classes: their texts in order, or "0", "1", ... Raises DataError."""
    if y is None or kind == "values":
        return ()
    if kind == "texts":
        words = [str(word) for word in np.unique(y)]
        if len(words) > MANY and len(words) == len(y):
            raise DataError(
                f'Every sample of {name} has a text of its own, as "{words[0][:40]}": expected names of classes.'
            )
        return tuple(words)
    low, high = int(y.min()), int(y.max())
    if low < 0:
        row = int(np.flatnonzero(y.reshape(-1) < 0)[0])
        raise DataError(f"Row {row} of {name} has the class {low}, expected whole numbers from 0 on.")
    if high >= max(MOST, len(y)):
        raise DataError(f"{name} has the class {high}, for {len(y):,} samples: number the classes from 0 on.")
    return tuple(map(str, range(high + 1)))


def labels_of(
    y: np.ndarray | None, kind: str, classes: tuple[str, ...], name: str, count: int, train: np.ndarray | None
) -> np.ndarray:
    """Targets as a Split has them. train: those of the training samples. Raises DataError for a class that is none."""
    if y is None:
        return np.zeros((count, 0), np.float32)
    if kind == "values":
        if train is not None and y.shape[1:] != train.shape[1:]:
            raise DataError(f"{name} has targets of {y.shape[1:]} numbers, the training samples of {train.shape[1:]}.")
        return numbers(y.reshape(len(y), -1))
    y = y.reshape(-1)
    if kind == "texts":
        places = {word: place for place, word in enumerate(classes)}
        labels = np.array([places.get(str(word), -1) for word in y], np.int32)
    else:
        labels = np.where((y >= 0) & (y < len(classes)), y, -1).astype(np.int32)
    wrong = np.flatnonzero(labels < 0)
    if len(wrong):
        raise DataError(
            f'Row {wrong[0]} of {name} has the class "{y[wrong[0]]}", which no training sample can have: expected one '
            f"of {len(classes)}, {classes[0]} to {classes[-1]}."
        )
    return labels


def at_a_time(shape: tuple[int, ...]) -> int:
    """How many samples of a shape are looked at together."""
    return max(1, TOGETHER // math.prod(shape))


def check_finite(part: Part) -> None:
    """Raise DataError where a number is not finite, with how many there are and the first one's row."""
    if part.x.dtype.kind != "f":
        return
    count, first, many = 0, None, at_a_time(part.x.shape[1:])
    for start in range(0, len(part.x), many):
        piece = np.asarray(part.x[start : start + many])
        bad = ~np.isfinite(piece.reshape(len(piece), -1))
        if bad.any():
            first = start + int(np.flatnonzero(bad.any(axis=1))[0]) if first is None else first
            count += int(np.count_nonzero(bad))
    if first is not None:
        raise DataError(not_finite(part.name, count, first))


# In files


def holds(place: str) -> bool:
    """Whether arrays are in a place: a folder that has the first of the files, or an .npz."""
    return (place.endswith(ARCHIVE) and isfile(place)) or isfile(os.path.join(place, FIRST))


def names(place: str) -> dict[str, str]:
    """What the arrays of a place are called in sentences, by x_train and so on."""
    entries = [f"{of}_{split}" for split in SPLITS for of in "xy"]
    if isdir(place):
        return {name: os.path.join(place, f"{name}.npy") for name in entries}
    return {name: f"{name} of {place}" for name in entries}


def opened(place: str) -> dict[str, tuple[Any, Any]]:
    """(x, y) by split; y is None where it is not there. Raises DataError, one sentence."""
    found = mapped(Path(place)) if isdir(place) else unpacked(place)
    if "x_train" not in found:
        raise DataError(f"{place} has no x_train, only {', '.join(found) or 'nothing'}: expected x_train and y_train.")
    if "y_test" in found and "x_test" not in found:
        raise DataError(f"{place} has y_test without x_test: give both.")
    return {split: (found[f"x_{split}"], found.get(f"y_{split}")) for split in SPLITS if f"x_{split}" in found}


def mapped(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a folder's files, on disk. Raises DataError for a file that is none, or lies elsewhere."""
    found = {}
    for name in names(str(folder)):
        path = folder / f"{name}.npy"
        if not os.path.lexists(path):
            continue
        if not inside.within(str(path), (os.path.realpath(folder),)):
            raise DataError(f"The file {path} leads out of its folder: only ordinary files inside the folder are read.")
        try:
            files.to_read(path).close()
            found[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except files.NotOrdinary as error:
            raise DataError(f"{path} cannot be read ({error.strerror}): only ordinary files are.") from None
        except Exception as error:  # whatever damage makes of it
            raise DataError(unreadable(str(path), error)) from None
        if not isinstance(found[name], np.ndarray):  # an .npz under this name
            raise DataError(f"The file {path} is no .npy: np.save makes one.")
    return found


def unpacked(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz. Raises DataError."""
    try:
        with files.to_read(path) as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names(path) if name in archive.files}
    except Exception as error:  # whatever damage makes of it
        raise DataError(unreadable(path, error)) from None


def unreadable(name: str, error: Exception) -> str:
    """A sentence on a file that is damaged, or would have to be unpickled."""
    text = " ".join(str(error).split())[:200]
    if "pickle" in text or "Python objects" in text:
        return f"The file {name} holds Python objects, which are not read: save an array of numbers, or of texts."
    return f"The file {name} cannot be read ({type(error).__name__}: {text}): save it anew by np.save or np.savez."
