"""Images and class labels of a Hugging Face dataset, from the hub or from a folder in the hub's layout.

`datasets` finds, downloads and caches; HF_HUB_OFFLINE, HF_HOME and HF_TOKEN mean what they mean to it. Images are
decoded here, from their bytes, so that a damaged one can be named.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from os.path import isdir  # False, too, where a name is too long for a file system
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from ...machine.files import NotOrdinary
from . import inside
from .augmentation import DataError, Unreadable
from .hub_errors import configurations, first_line, from_the_cache, refusal, sentence
from .labels import any_label, check_labels, is_text, labels_of, words_of

T = TypeVar("T")
TESTS = ("test", "validation", "val", "valid", "dev")  # the first one that has labels is the test split
IMAGES = ("image", "img")  # column names, preferred over others of the same type
LABELS = ("label", "labels", "fine_label")
KINDS = "u?int|(large_)?string"  # dtypes of labels
LAYOUT = ("image_column", "label_column", "train_split", "test_split")  # what may be said of a dataset's tables
GREY = ("1", "L", "LA")
NOT_EIGHT_BITS = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION = 0x0112  # the EXIF tag
LYING = (5, 6, 7, 8)  # its values where the image is to be turned by 90 degrees
ANEW = "load the dataset anew, or leave such images out by skip_unreadable"


class Source(NamedTuple):
    """The images of one split, still encoded."""

    table: Any  # a datasets.Dataset with the column of images alone
    column: str
    origin: str  # the hub's id, or the folder
    split: str
    roots: tuple[str, ...]  # folders in which its files may lie

    def __len__(self) -> int:
        return len(self.table)

    def images(
        self, rows: np.ndarray, grey: bool | None = None, unreadable: list[tuple[int, str]] | None = None
    ) -> list:
        """Decoded Pillow images in mode "L" or "RGB". grey: which of them; None: as each one is.

        unreadable: gets (row, sentence) of each that cannot be decoded, in whose place None stands; None: such an image
        raises Unreadable. Raises DataError.
        """
        cells, images = self.table[[int(row) for row in rows]][self.column], []
        for cell, row in zip(cells, rows, strict=True):
            try:
                images.append(self.read(cell, int(row), partial(decoded, grey=grey)))
            except Unreadable as error:
                if unreadable is None:
                    raise
                images.append(None)
                unreadable.append((int(row), str(error)))
        return images

    def size(self, row: int) -> tuple[int, int]:
        """Width and height of an image, upright, without its pixels. Raises Unreadable and DataError."""
        return self.read(self.table[row][self.column], row, size_of)

    def read(self, cell: dict | None, row: int, of: Callable[[BinaryIO], T]) -> T:
        """What a function makes of an image's bytes. Raises Unreadable where they are no image of 8 bits, DataError for
        a path that leads out of the folder."""
        if not cell or (cell["bytes"] is None and cell["path"] is None):
            raise Unreadable(f"{self.place(row, cell)} has no image: leave the row out.")
        try:
            with inside.stream(cell, self.roots) as stream:
                return of(stream)
        except NotOrdinary as error:
            raise DataError(
                f"{self.place(row, cell)} cannot be read ({error.strerror}): only ordinary files inside the folder are."
            ) from None
        except Undecodable as error:
            raise Unreadable(f"{self.place(row, cell)} {error.args[0]}: {error.args[1]}.") from None
        except OSError as error:
            raise Unreadable(f"{self.place(row, cell)} is damaged ({first_line(error)}): {ANEW}.") from None

    def place(self, row: int, cell: dict | None) -> str:
        """Where a row stands, for a sentence that begins with it."""
        name = f" ({Path(cell['path']).name})" if cell and cell.get("path") else ""
        shard = shard_of(self.origin, self.split, row)
        inside = f", row {shard[1]} of {shard[0]}" if shard else f" of {self.origin}"
        return f'The image{name} in row {row} of split "{self.split}"{inside}'


class Undecodable(Exception):
    """Bytes that are no image of 8 bits: (what is wrong with it, what to do), as parts of a sentence."""


@contextmanager
def raster(stream: BinaryIO) -> Iterator[Any]:
    """A file of Pillow's. Raises Undecodable, whatever Pillow's decoders raise, for what is no image of 8 bits."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(stream, formats=inside.rasters()) as file:
            if file.mode in NOT_EIGHT_BITS:
                raise Undecodable(f'has pixels of mode "{file.mode}"', "expected 8 bits per channel")
            yield file
    except Undecodable:
        raise
    except UnidentifiedImageError as error:
        formats = f"expected one of {', '.join(inside.RASTERS)}"
        raise Undecodable(f"is damaged ({first_line(error)}), or of a format that is not read", formats) from None
    except Exception as error:
        raise Undecodable(f"is damaged ({first_line(error)})", ANEW) from None


def decoded(stream: BinaryIO, grey: bool | None) -> Any:
    """The Pillow image of some bytes, upright, in mode "L" or "RGB". grey: which of them; None: as it is itself.

    Raises Undecodable.
    """
    from PIL import ImageOps

    with raster(stream) as file:
        image = ImageOps.exif_transpose(file) if file.getexif().get(ORIENTATION, 1) != 1 else file
        return image.convert("L" if (file.mode in GREY if grey is None else grey) else "RGB")


def size_of(stream: BinaryIO) -> tuple[int, int]:
    """Width and height of the upright image of some bytes. Raises Undecodable."""
    with raster(stream) as file:
        width, height = file.size
        return (height, width) if file.getexif().get(ORIENTATION, 1) in LYING else (width, height)


class Found(NamedTuple):
    """A dataset's training and test images."""

    train: Source
    train_labels: np.ndarray  # int32 (n,)
    test: Source | None
    test_labels: np.ndarray | None
    classes: tuple[str, ...]
    named: bool  # whether the dataset itself names its classes


def find(
    name: str, path: str | Path | None = None, config: str | None = None, layout: Mapping[str, str] | None = None
) -> Found:
    """The splits of a dataset, by the hub's id or in a folder; config: one of its configurations, where it has several;
    layout: see LAYOUT.

    Labels are numbers, or words: the classes are then the words of the training images, in order. A split for measuring
    none of whose images has a label is passed over. Raises DataError, one sentence.
    """
    splits = opened(name, None if path is None else Path(path), config)
    return found(splits, name if path is None else str(path), inside.roots_of(folder_of(name, path)), layout or {})


def found(splits: Any, origin: str, roots: tuple[str, ...], layout: Mapping[str, str] | None = None) -> Found:
    """The training and test images of tables by split. roots: folders in which files of theirs may lie.

    A column of real numbers is taken for targets only where `layout` names it: such labels are floats (n, 1), and there
    are no classes. Raises DataError.
    """
    layout = layout or {}
    train, tests = names_of_splits(splits, origin, layout)
    column, label, classes = columns(splits[train], origin, layout)
    if is_text(splits[train], label):
        classes = words_of(splits[train], label, origin)
    labels = labels_of(splits[train], label, origin, train, classes)
    named = bool(classes)
    if labels.ndim == 1:
        classes = classes or tuple(map(str, range(int(labels.max(initial=0)) + 1)))
    check_labels(labels, classes, origin, train)
    source = Source(encoded(splits[train], column), column, origin, train, roots)
    for split in tests:
        if {column, label} <= set(splits[split].column_names) and any_label(splits[split], label):
            test_labels = labels_of(splits[split], label, origin, split, classes)
            if np.any(test_labels != -1):  # the hub's -1: not made public
                check_labels(test_labels, classes, origin, split)
                test = Source(encoded(splits[split], column), column, origin, split, roots)
                return Found(source, labels, test, test_labels, classes, named)
    return Found(source, labels, None, None, classes, named)


def names_of_splits(splits: Any, origin: str, layout: Mapping[str, str]) -> tuple[str, list[str]]:
    """The split that is learned from, and those that may be the test split: the one that `layout` names, or every one
    of TESTS that has images. Raises DataError where one that is named is not there."""
    train, named = layout.get("train_split", "train"), [layout["test_split"]] if "test_split" in layout else []
    for name, option in ((train, "--train-split"), *((name, "--test-split") for name in named)):
        if name not in splits:
            raise DataError(
                f'{origin} has no split "{name}", only {", ".join(splits)}: choose one with {option}, or rename one in '
                "its README."
            )
    return train, named or [name for name in TESTS if name in splits and name != train and len(splits[name])]


def folder_of(name: str, path: str | Path | None) -> Path | None:
    """The folder that is read: the one named, or one that stands where the hub's id leads."""
    place = Path(name if path is None else path)
    return place if path is not None or isdir(place) else None


def opened(name: str, path: Path | None, config: str | None) -> Any:
    """Every split of a configuration by name. Raises DataError."""
    try:
        import datasets
        import PIL  # noqa: F401
    except ImportError as error:
        raise DataError(f"Images need {error.name}, which is not installed: pip install datasets pillow.") from None
    if path is not None and not isdir(path):
        raise DataError(f"The folder {path} is not there: name one in the layout of the Hugging Face hub.")
    if path is None and (name.count("/") > 1 or name.startswith(("/", ".", "~"))) and not isdir(name):
        raise DataError(
            f'The dataset "{name}" is no id of the Hugging Face hub, and no folder: expected an id as ylecun/mnist, '
            "or a folder that is there."
        )
    inside.check_version()
    folder = folder_of(name, path)
    if folder is not None:
        inside.check_folder(folder)
    place = name if path is None else str(path.resolve())
    refused = refusal() if folder is None else None
    try:
        with from_the_cache(refused is not None):
            builder = datasets.load_dataset_builder(place, config)
            inside.check_builder(builder, inside.roots_of(folder), name if path is None else str(path))
            builder.download_and_prepare()
            return builder.as_dataset()
    except DataError:
        raise
    except Exception as error:  # whatever the hub's client and the file formats raise
        which = configurations(error, place, config, name if path is None else str(path))
        raise DataError(which or sentence(error, name, path, refused)) from error


def columns(table: Any, origin: str, layout: Mapping[str, str]) -> tuple[str, str, tuple[str, ...]]:
    """The columns of images and of class labels, and the classes' names where they are given. Raises DataError."""
    import datasets

    features = table.features
    for name, option in (
        (layout.get("image_column"), "--image-column"),
        (layout.get("label_column"), "--label-column"),
    ):
        if name is not None and name not in features:
            raise DataError(f'{origin} has no column "{name}", only {", ".join(features)}: choose one with {option}.')

    def first(kind, preferred, what, option):
        names = [name for name, feature in features.items() if isinstance(feature, kind)]
        usual = [name for name in preferred if name in names]
        if not usual and len(names) > 1:
            raise DataError(
                f"{origin} has {len(names)} columns of {what}, {', '.join(names)}: choose one with {option}."
            )
        return next(iter(usual or names), None)

    image = layout.get("image_column") or first(datasets.Image, IMAGES, "images", "--image-column")
    if image is None or not isinstance(features[image], datasets.Image):
        which = f'no images in its column "{image}"' if image else "no column of images"
        raise DataError(
            f"{origin} has {which}, only {', '.join(features)}: choose a dataset of images, or a column of them with "
            "--image-column."
        )
    label = layout.get("label_column") or first(datasets.ClassLabel, LABELS, "class labels", "--label-column")
    if label is not None and isinstance(features[label], datasets.ClassLabel):
        return image, label, tuple(features[label].names)
    asked = LABELS if label is None else (label,)
    kinds = KINDS if label is None else KINDS + "|float|double"
    label = next((n for n in asked if re.match(kinds, str(getattr(features.get(n), "dtype", "")))), None)
    if label is None:
        which = f'label for an image in its column "{asked[0]}"' if len(asked) == 1 else "class label for an image"
        boxes = "; boxes are found by a model of lin2017" if "objects" in features else ""
        raise DataError(
            f'{origin} has no {which}, only {", ".join(features)}: expected a column "label" of numbers or words, or '
            f"one that --label-column names{boxes}."
        )
    return image, label, ()


def encoded(table: Any, column: str) -> Any:
    """The column of images alone, as bytes."""
    import datasets

    return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def shard_of(origin: str, split: str, row: int) -> tuple[str, int] | None:
    """The parquet file of a folder that holds a split's row, and the row in it; None where it cannot be told."""
    import datasets
    import pyarrow.parquet

    if not isdir(origin):
        return None
    try:
        files = datasets.load_dataset_builder(str(Path(origin).resolve())).config.data_files[split]
        for file in files:
            count = pyarrow.parquet.read_metadata(file).num_rows
            if row < count:
                return str(file), row
            row -= count
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not of parquet files
    return None
