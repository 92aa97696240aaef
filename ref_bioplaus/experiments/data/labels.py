"""Class labels of a dataset's rows: numbers, or words."""

from typing import Any

import numpy as np

from .augmentation import DataError

MANY = 20  # images from which on labels that are all different are no classes


def is_text(table: Any, column: str) -> bool:
    """Whether a column's labels are words."""
    return "string" in str(getattr(table.features[column], "dtype", ""))


def is_real(table: Any, column: str) -> bool:
    """Whether a column's labels are real numbers."""
    return str(getattr(table.features[column], "dtype", "")).startswith(("float", "double"))


def any_label(table: Any, column: str) -> bool:
    """Whether any row of a split has a label."""
    values = table.with_format("arrow")[:][column]
    return values.null_count < len(values)


def words_of(table: Any, column: str, origin: str) -> tuple[str, ...]:
    """The words that are the labels of the training images, in order. Raises DataError where each image has its own."""
    words = sorted(word for word in table.unique(column) if word is not None)
    if len(words) > MANY and len(words) == len(table):
        raise DataError(
            f'Every image of {origin} has a "{column}" of its own, as "{words[0][:40]}": expected names of classes.'
        )
    return tuple(words)


def labels_of(table: Any, column: str, origin: str, split: str, classes: tuple[str, ...]) -> np.ndarray:
    """A split's labels, int32 (n,), words by their place in `classes`; real numbers (n, 1). Raises DataError for a row
    that has none."""
    if not len(table):
        return np.zeros(0, dtype=np.int32)
    values = table.with_format("arrow")[:][column]
    if values.null_count:
        row = values.to_pylist().index(None)
        raise DataError(f'Row {row} of split "{split}" of {origin} has no label: leave it out.')
    if is_real(table, column):
        return np.asarray(values, dtype=np.float64)[:, None]
    if not is_text(table, column):
        return np.asarray(values, dtype=np.int32)
    places = {word: place for place, word in enumerate(classes)}
    for row, word in enumerate(values.to_pylist()):
        if word not in places:
            raise DataError(
                f'Row {row} of split "{split}" of {origin} has the label "{word}", which no training image has: leave '
                "it out."
            )
    return np.array([places[word] for word in values.to_pylist()], dtype=np.int32)


def check_labels(labels: np.ndarray, classes: tuple[str, ...], origin: str, split: str) -> None:
    """Raise DataError for an empty split and for a label that is no class."""
    if not len(labels):
        raise DataError(f'Split "{split}" of {origin} has no images: expected one at least.')
    if labels.ndim == 2:
        wrong = np.flatnonzero(~np.isfinite(labels))
        if len(wrong):
            raise DataError(f'Row {wrong[0]} of split "{split}" of {origin} has no finite label: leave it out.')
        return
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        raise DataError(
            f'Row {wrong[0]} of split "{split}" of {origin} has the label {labels[wrong[0]]}, expected 0 to '
            f"{len(classes) - 1}: correct it, or leave the row out."
        )
