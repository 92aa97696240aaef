"""Images that cannot be read and are left out, counted, of which there may be so many and no more.

Nothing else depends on them. An image's place in an epoch, its augmentation and its batch come from its row, so a batch
with such an image is smaller by one, and all other images stay where they are: a run that goes on meets the same
batches, and it is all the same whether images stream or not, and who finds an image first. A batch of which nothing is
left is a step that teaches nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .augmentation import DataError
from .hub import Source

SHOWN = 12  # rows that a sentence names


class LeftOut:
    """What could not be read so far. most: how many images may be left out; 0: the first one ends whatever needs it."""

    def __init__(self, most: int = 0):
        self.most = most
        self.rows: dict[str, set[int]] = {}  # by the name that a split has in its source
        self.sentences: list[str] = []  # on those found by this process

    @property
    def count(self) -> int:
        """How many images."""
        return sum(map(len, self.rows.values()))

    def add(self, split: str, found: Iterable[tuple[int, str]]) -> None:
        """Rows of a source's split, each with a sentence on it. Raises DataError where they become too many."""
        for row, sentence in found:
            if row not in self.rows.setdefault(split, set()):
                self.rows[split].add(row)
                self.sentences.append(sentence)
            if self.count > self.most:
                raise DataError(
                    f"{self.count} images cannot be read, and skip_unreadable leaves out {self.most} at most. The last "
                    f"one: {sentence}"
                )

    def images(self, source: Source, rows: np.ndarray, grey: bool | None = None) -> list:
        """The images of some rows as `Source.images` has them, without those that cannot be read."""
        found: list[tuple[int, str]] = []
        images = source.images(rows, grey, found if self.most else None)
        self.add(source.split, found)
        return [image for image in images if image is not None]

    def readable(self, source: Source | None, rows: np.ndarray) -> np.ndarray:
        """For each of some rows whether it could be read as far as is known, bool (len(rows),)."""
        known = self.rows.get(source.split, ()) if source is not None else ()
        return ~np.isin(rows, list(known))

    def as_table(self) -> dict[str, list[int]]:
        """The rows by split, for a checkpoint."""
        return {split: sorted(rows) for split, rows in sorted(self.rows.items())}

    def restore(self, table: Mapping[str, Iterable[int]]) -> None:
        """What a checkpoint knows of."""
        for split, rows in table.items():
            self.rows.setdefault(split, set()).update(rows)


def counts(data: Any, splits: Iterable[str]) -> dict[str, Any]:
    """For a record: how many images of some splits are left out, and the rows of all; {} where none may be."""
    left_out = getattr(data, "left_out", None)
    if left_out is None or not left_out.most:
        return {}
    found: dict[str, Any] = {}
    for name in splits:
        split = data.split(name)
        found[f"{name}_skipped"] = int(np.count_nonzero(~left_out.readable(split.source, split.rows)))
    return found | {"skipped": [f"{split} {row}" for split, rows in left_out.as_table().items() for row in rows]}


def text(record: Mapping[str, Any]) -> str | None:
    """What a record says of images that were left out, in a few words; None where there are none."""
    named = record.get("skipped")
    if not named:
        return None
    images = "1 image that cannot be read was" if len(named) == 1 else f"{len(named)} images that cannot be read were"
    more = ", ..." if len(named) > SHOWN else ""
    return f"{images} left out ({', '.join(map(str, named[:SHOWN]))}{more})"
