"""Anchors: boxes that stand at every cell of a pyramid's levels, and boxes as offsets from them.

Lin et al. 2017, sec. 4: on the level whose cells are 2^k pixels wide, three sizes (a third of an octave apart) times
three ratios, from 32 pixels on the first level (k = 3) to 512 on the last (k = 7). Offsets are those of Faster R-CNN:

    dx = (x - x_a) / w_a    dy = (y - y_a) / h_a    dw = log(w / w_a)    dh = log(h / h_a)        of centres and sides

Choices: an anchor's centre is its cell's middle, (i + 1/2) 2^k (torchvision's is the cell's corner), and its sides are
    not cut to whole pixels (torchvision's are). A ratio is height over width, at the same area. What is decoded is at
    most 62.5 times as long as its anchor (1000 / 16, as in torchvision), so that no exponential overflows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .geometry import overlaps

LARGEST = math.log(1000.0 / 16.0)


@dataclass(frozen=True)
class Anchors:
    """The anchors of images of one size, in the order of a detector's output: levels, rows, columns, then anchors."""

    height: int
    width: int
    smallest: float = 32.0  # the first level's size in pixels; each level has twice that of the one before
    levels: tuple[int, ...] = (3, 4, 5, 6, 7)  # of which the cells are 2^level pixels wide
    scales: tuple[float, ...] = (1.0, 2.0 ** (1 / 3), 2.0 ** (2 / 3))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    @property
    def per_cell(self) -> int:
        """Anchors of one cell."""
        return len(self.scales) * len(self.ratios)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Anchors of every level."""
        return tuple(self.per_cell * math.prod(self.cells(level)) for level in self.levels)

    def cells(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's cells, of which the last may reach over the border."""
        return -(-self.height // 2**level), -(-self.width // 2**level)

    @cached_property
    def boxes(self) -> np.ndarray:
        """(anchors, 4)"""
        return np.concatenate([self.of_level(i) for i in range(len(self.levels))])

    def of_level(self, i: int) -> np.ndarray:
        """The anchors of the i-th level, (rows * columns * per_cell, 4)."""
        step = 2 ** self.levels[i]
        size = self.smallest * 2.0 ** (self.levels[i] - self.levels[0])
        sides = np.array(
            [(scale * size / ratio**0.5, scale * size * ratio**0.5) for scale in self.scales for ratio in self.ratios]
        )  # (per_cell, 2): width, height
        y, x = ((np.arange(n) + 0.5) * step for n in self.cells(self.levels[i]))
        centres = np.stack(np.broadcast_arrays(x[None, :, None], y[:, None, None]), axis=-1)  # (rows, columns, 1, 2)
        corners = np.concatenate([centres - 0.5 * sides, centres + 0.5 * sides], axis=-1)
        return corners.reshape(-1, 4)


def encoded(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Boxes as offsets from as many anchors, (n, 4)."""
    (centre, sides), (at, size) = middle(boxes), middle(anchors)
    return np.concatenate([(centre - at) / size, np.log(sides / size)], axis=1)


def decoded(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The boxes of offsets from as many anchors, (n, 4)."""
    at, size = middle(anchors)
    centre, sides = at + offsets[:, :2] * size, size * np.exp(np.minimum(offsets[:, 2:], LARGEST))
    return np.concatenate([centre - 0.5 * sides, centre + 0.5 * sides], axis=1)


def middle(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and sides of boxes, (n, 2) each."""
    return 0.5 * (boxes[:, :2] + boxes[:, 2:]), boxes[:, 2:] - boxes[:, :2]


def covered(anchors: np.ndarray, truths: Sequence[np.ndarray], overlap: float = 0.5) -> tuple[int, int]:
    """How many boxes, of all images, some anchor covers with that intersection over union; and how many there are."""
    best = [overlaps(anchors, boxes).max(axis=0) for boxes in truths if len(boxes)]
    return sum(int(np.sum(b >= overlap)) for b in best), sum(map(len, truths))
