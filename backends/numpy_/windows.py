"""Windows on images as NumPy's native kernels gather them: views of padded images, and their geometry."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ref_bioplaus.backends.numpy_.memory import Workspace
from ref_bioplaus.types import Array, DType
from ref_bioplaus.windows import Window

COLUMNS = 1 << 22  # bytes of windows gathered for one product


class Gathering(NamedTuple):
    """Which pixels windows read: window (y, x) those from (y, x) * stride - before on, zeros outside the image."""

    before: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    out_size: tuple[int, int]

    @property
    def whole(self) -> bool:
        """Whether each window is one pixel, in order."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.before == (0, 0)


def gathering(window: Window) -> Gathering:
    """The pixels that a layer's windows read."""
    (top, _), (left, _) = window.padding
    return Gathering((top, left), window.kernel, window.stride, window.out_size)


class AxisPhase(NamedTuple):
    """Along one axis: pixels a stride apart. They are read through the same kernel entries.

    Entry t of `entries` reads pixel q of `pixels` in window q + last - t.
    """

    pixels: slice
    entries: slice
    taps: int  # how many entries
    n: int  # how many pixels
    last: int

    @property
    def before(self) -> int:
        """Windows before pixel 0 that a window of `taps` reversed entries on the signal reads."""
        return self.taps - 1 - self.last


def axis_phases(n: int, kernel: int, stride: int, before: int) -> list[AxisPhase]:
    """The phases of an axis of n pixels with `before` pixels of padding in front."""
    found = []
    for offset in range(min(stride, n)):
        entry, last = (offset + before) % stride, (offset + before) // stride
        taps, pixels = len(range(entry, kernel, stride)), len(range(offset, n, stride))
        found.append(AxisPhase(slice(offset, n, stride), slice(entry, kernel, stride), taps, pixels, last))
    return found


class Phase(NamedTuple):
    """Pixels a stride apart along both axes."""

    pixels: tuple[slice, slice]
    entries: tuple[slice, slice]
    gathering: Gathering  # of windows into u, whose entries are in reversed order


def phases(window: Window) -> Iterator[Phase]:
    """The transpose of a convolution as convolutions at stride 1, one per phase of the stride."""
    axes = zip(window.in_shape[:2], window.kernel, window.stride, window.padding, strict=True)
    rows, columns = (axis_phases(n, k, s, before) for n, k, s, (before, _) in axes)
    for p in rows:
        for q in columns:
            into = Gathering((p.before, q.before), (p.taps, q.taps), (1, 1), (p.n, q.n))
            yield Phase((p.pixels, q.pixels), (p.entries, q.entries), into)


def reached(phase: AxisPhase, t: int, windows: int) -> tuple[slice, slice]:
    """The pixels that entry t of a phase reads, and the windows that it reads them in."""
    shift = phase.last - t
    first, stop = max(0, -shift), min(phase.n, windows - shift)
    return slice(first, max(first, stop)), slice(first + shift, max(first, stop) + shift)


class Images:
    """Padded images, and the windows on them, in buffers that are used again."""

    def __init__(self, space: Workspace) -> None:
        self.space = space

    def padded(self, x: Array, before: tuple[int, int], size: tuple[int, int], fill: float = 0.0) -> np.ndarray:
        """Images of `size` pixels: those of x moved by `before` (either sign), and `fill` around them."""
        if before == (0, 0) and size == x.shape[1:3] and x.flags.c_contiguous:
            return x
        inside, taken = [], []
        for b, n, m in zip(before, x.shape[1:3], size, strict=True):
            first, last = max(0, b), max(0, b, min(m, n + b))
            inside.append(slice(first, last))
            taken.append(slice(first - b, last - b))
        image = self.space.take("image", (x.shape[0], *size, x.shape[3]), x.dtype)
        if fill or size != x.shape[1:3] or before != (0, 0):
            image.fill(fill)
        image[:, inside[0], inside[1]] = x[:, taken[0], taken[1]]
        return image

    def windows(self, x: Array, at: Gathering) -> np.ndarray:
        """(N, height, width, kernel height, kernel width * C), a view of the padded images."""
        (height, width), (kh, kw), (sh, sw) = at.out_size, at.kernel, at.stride
        image = self.padded(x, at.before, ((height - 1) * sh + kh, (width - 1) * sw + kw))
        n, row, pixel, number = image.strides
        shape = (x.shape[0], height, width, kh, kw * x.shape[3])
        return as_strided(image, shape, (n, sh * row, sw * pixel, row, number), writeable=False)

    def columns(self, x: Array, at: Gathering) -> Iterator[tuple[slice, np.ndarray]]:
        """Windows' pixels, (positions, kernel pixels * C), chunk by chunk, with their place in N * height * width."""
        N, C = x.shape[0], x.shape[3]
        height, width = at.out_size
        if at.whole and (height, width) == x.shape[1:3]:
            yield slice(0, N * height * width), np.reshape(x, (-1, C))
            return
        K = at.kernel[0] * at.kernel[1] * C
        rows = max(1, COLUMNS // (width * K * x.itemsize))
        samples, rows = max(1, rows // height), min(rows, height)
        for n in range(0, N, samples):
            part = x[n : n + samples]
            for top in range(0, height, rows):
                bottom = min(top + rows, height)
                c = self.space.take("columns", (len(part) * (bottom - top) * width, K), x.dtype)
                if rows == height:
                    self.gather(part, at, c)
                else:
                    windows = self.windows(part, at)[:, top:bottom]
                    np.copyto(c.reshape(windows.shape), windows)
                start = (n * height + top) * width
                yield slice(start, start + len(c)), c

    def gather(self, x: Array, at: Gathering, c: np.ndarray) -> None:
        """Write the pixels of all windows of some samples into c, each thread those of some samples."""
        c = c.reshape(len(x), *at.out_size, at.kernel[0], -1)

        def work(samples):
            windows = self.windows(x[samples.start : samples.stop], at)
            np.copyto(c[samples.start : samples.stop], windows)

        self.space.share(work, range(len(x)))


def padded_size(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding above and to the left, and the padded images' size."""
    (top, bottom), (left, right) = window.padding
    return (top, left), (window.in_shape[0] + top + bottom, window.in_shape[1] + left + right)


def window_entries(x: np.ndarray, window: Window) -> list[np.ndarray]:
    """Views of padded images: for every entry of the kernel the pixel of each window, (N, height, width, C)."""
    (height, width), (sh, sw), (kh, kw) = window.out_size, window.stride, window.kernel
    return [
        x[:, i : i + sh * (height - 1) + 1 : sh, j : j + sw * (width - 1) + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]


def pixel_count(window: Window) -> int:
    """Numbers that one window holds."""
    return math.prod(window.kernel) * window.in_shape[2]


def chunks(N: int, numbers: int, dtype: DType) -> Iterator[slice]:
    """Parts of N, so large that `numbers` of each of their members fill a chunk."""
    step = max(1, COLUMNS // (numbers * np.dtype(dtype).itemsize))
    return (slice(n, min(n + step, N)) for n in range(0, N, step))
