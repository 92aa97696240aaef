"""Synapses: products by BLAS, which spreads them over the cores.

A convolution's windows are gathered some megabytes at a time into a buffer that is used again, each chunk followed by
its product. BLAS is at its best where a product's sides are alike, and windows of many pixels times few filters are
not. So, where a row of a window holds enough numbers, only rows of windows are gathered, and the kernel's rows stand on
the filters' side: apply multiplies every row once by all kernel rows' filters and adds the results up where they
belong; correlate multiplies it by the signals of all the windows that read it. The arithmetic is the same, what is
gathered is smaller by the kernel's height, and the products are larger.
"""

import numpy as np

from ref_bioplaus.backends.numpy_.memory import Workspace
from ref_bioplaus.backends.numpy_.windows import (  # fmt: skip
    AxisPhase,
    Gathering,
    Images,
    axis_phases,
    chunks,
    gathering,
    phases,
    pixel_count,
    reached,
)
from ref_bioplaus.types import Array
from ref_bioplaus.windows import Window

ROW = 32  # numbers in a window's row from which on rows are gathered in place of windows


class Products:
    """The three faces of dense, convolutional and locally connected layers. Nothing passed in is written to."""

    def __init__(self, space: Workspace) -> None:
        self.space, self.images = space, Images(space)

    # Dense

    def dense_apply(self, W: Array, x: Array):
        """u = x W^T"""
        return np.matmul(x, W.T, out=self.space.empty((x.shape[0], W.shape[0]), x.dtype))

    def dense_transport(self, B: Array, u: Array):
        """x = u B"""
        return np.matmul(u, B, out=self.space.empty((u.shape[0], B.shape[1]), u.dtype))

    def dense_correlate(self, x: Array, u: Array):
        """W = u^T x"""
        return np.matmul(u.T, x, out=self.space.empty((u.shape[1], x.shape[1]), x.dtype))

    # Convolution

    def conv_apply(self, W: Array, x: Array, window: Window):
        """u: every window's pixels times the one filter bank."""
        u = self.space.empty((x.shape[0], *window.out_size, W.shape[3]), x.dtype)
        self.convolve(W, x, gathering(window), u)
        return u

    def conv_transport(self, B: Array, u: Array, window: Window):
        """x: for each phase of the stride, a convolution of u with the entries that reach it, reversed."""
        N, C = u.shape[0], window.in_shape[2]
        x = self.space.empty((N, *window.in_shape), u.dtype)
        for phase in phases(window):
            at = phase.gathering
            if 0 in at.kernel:  # between windows: no entry reads these pixels
                x[:, phase.pixels[0], phase.pixels[1]] = 0.0
                continue
            F = B[phase.entries][::-1, ::-1].transpose(0, 1, 3, 2)
            if window.stride == (1, 1):
                self.convolve(F, u, at, x)
            else:
                p = self.space.take("phase", (N, *at.out_size, C), u.dtype)
                self.convolve(F, u, at, p)
                x[:, phase.pixels[0], phase.pixels[1]] = p
        return x

    def conv_correlate(self, x: Array, u: Array, window: Window):
        """W: the sum over chunks of the pixels' transpose times the signal."""
        at = gathering(window)
        if by_rows(at, x.shape[3]):
            return self.correlate_rows(x, u, at)
        O = u.shape[3]
        signal = np.reshape(u, (-1, O))
        W = np.zeros((O, pixel_count(window)), x.dtype)
        for positions, c in self.images.columns(x, at):
            W += np.matmul(signal[positions].T, c, out=self.space.take("product", W.shape, x.dtype))
        return np.ascontiguousarray(W.T).reshape(*window.kernel, window.in_shape[2], O)

    def convolve(self, F: Array, x: Array, at: Gathering, u: Array):
        """Every window's pixels times F (kernel height, kernel width, C, O), written into u (N, height, width, O)."""
        if by_rows(at, x.shape[3]):
            self.convolve_rows(F, x, at, u)
            return
        F, u = F.reshape(-1, F.shape[3]), u.reshape(-1, F.shape[3])
        for positions, c in self.images.columns(x, at):
            np.matmul(c, F, out=u[positions])

    def rows(self, x: Array, at: Gathering, phase: AxisPhase) -> np.ndarray:
        """Rows of windows on the rows of a phase: (N * rows * width, kernel width * C), in a buffer."""
        only_rows = Gathering((0, at.before[1]), (1, at.kernel[1]), (1, at.stride[1]), (phase.n, at.out_size[1]))
        c = self.space.take("columns", (len(x) * phase.n * at.out_size[1], at.kernel[1] * x.shape[3]), x.dtype)
        self.images.gather(x[:, phase.pixels], only_rows, c)
        return c

    def convolve_rows(self, F: Array, x: Array, at: Gathering, u: Array):
        """As `convolve`: every row times the filters of all kernel rows that read it, added up at their windows."""
        _, kw, C, O = F.shape
        height, width = at.out_size
        steps = [p for p in axis_phases(x.shape[1], at.kernel[0], at.stride[0], at.before[0]) if p.taps]
        filters = [F[p.entries].reshape(p.taps, kw * C, O).transpose(1, 0, 2).reshape(kw * C, -1) for p in steps]
        numbers = x.shape[1] * width * max(kw * C, F.shape[0] * O)
        for samples in chunks(len(x), numbers, x.dtype):
            part = u[samples]
            part.fill(0.0)
            for p, many in zip(steps, filters, strict=True):
                c = self.rows(x[samples], at, p)
                product = self.space.take("product", (len(c), p.taps * O), x.dtype)
                np.matmul(c, many, out=product)
                product = product.reshape(len(part), p.n, width, p.taps, O)
                for t in range(p.taps):
                    pixels, windows = reached(p, t, height)
                    part[:, windows] += product[:, pixels, :, t]

    def correlate_rows(self, x: Array, u: Array, at: Gathering) -> np.ndarray:
        """As `conv_correlate`: every row times the signals of all windows that read it."""
        (kh, kw), (height, width), C, O = at.kernel, at.out_size, x.shape[3], u.shape[3]
        W = np.zeros((kh, kw * C, O), x.dtype)
        for p in axis_phases(x.shape[1], kh, at.stride[0], at.before[0]):
            if not p.taps:
                continue
            total = np.zeros((p.taps * O, kw * C), x.dtype)
            for samples in chunks(len(x), p.n * width * max(kw * C, p.taps * O), x.dtype):
                c, part = self.rows(x[samples], at, p), u[samples]
                signals = self.space.take("signals", (len(part), p.n, width, p.taps, O), x.dtype)
                for t in range(p.taps):
                    pixels, windows = reached(p, t, height)
                    signals[:, : pixels.start, :, t] = 0.0
                    signals[:, pixels, :, t] = part[:, windows]
                    signals[:, pixels.stop :, :, t] = 0.0
                product = self.space.take("product", total.shape, x.dtype)
                total += np.matmul(signals.reshape(-1, p.taps * O).T, c, out=product)
            W[p.entries] = total.reshape(p.taps, O, kw * C).transpose(0, 2, 1)
        return W.reshape(kh, kw, C, O)

    # Local connection: one product per window, (height, width, N, K) at a time

    def local_columns(self, x: Array, window: Window):
        """Rows of windows, and their pixels (rows, width, N, kernel pixels * C)."""
        windows = self.images.windows(x, gathering(window)).transpose(1, 2, 0, 3, 4)
        for rows in self.local_rows(x, window):
            part = windows[rows]
            c = self.space.take("columns", (*part.shape[:3], part.shape[3] * part.shape[4]), x.dtype)
            np.copyto(c.reshape(part.shape), part)
            yield rows, c

    def local_rows(self, x: Array, window: Window) -> list[slice]:
        """Rows of windows, so many at a time that their pixels fill a chunk."""
        height, width = window.out_size
        return list(chunks(height, width * x.shape[0] * pixel_count(window), x.dtype))

    def local_apply(self, W: Array, x: Array, window: Window):
        """u: every window's pixels times that window's own filter bank."""
        u = self.space.empty((x.shape[0], *window.out_size, W.shape[3]), x.dtype)
        for rows, c in self.local_columns(x, window):
            np.matmul(c, W[rows], out=u[:, rows].transpose(1, 2, 0, 3))
        return u

    def local_transport(self, B: Array, u: Array, window: Window):
        """x: the exact transpose of local_apply, each window's pixels added back in place."""
        (H, W, C), (kh, kw), (sh, sw) = window.in_shape, window.kernel, window.stride
        (top, _), (left, _) = window.padding
        width = window.out_size[1]
        x = self.space.empty((u.shape[0], H, W, C), u.dtype)
        x.fill(0.0)
        by_column = x.transpose(1, 2, 0, 3)
        for rows in self.local_rows(u, window):
            signal = u[:, rows].transpose(1, 2, 0, 3)
            p = self.space.take("columns", (*signal.shape[:3], kh * kw * C), u.dtype)
            np.matmul(signal, B[rows].swapaxes(2, 3), out=p)
            p = p.reshape(*signal.shape[:3], kh, kw, C)
            for y in range(rows.start, rows.stop):
                for i in range(max(0, top - y * sh), min(kh, H + top - y * sh)):
                    for j in range(kw):
                        first = max(0, -((j - left) // sw))  # the first and last window whose entry j is a pixel
                        last = min(width, (W - 1 + left - j) // sw + 1)
                        if first < last:
                            start = first * sw + j - left
                            columns = slice(start, start + (last - first - 1) * sw + 1, sw)
                            by_column[y * sh + i - top, columns] += p[y - rows.start, first:last, :, i, j]
        return x

    def local_correlate(self, x: Array, u: Array, window: Window):
        """W: the sum over samples of pixel times signal, window by window."""
        W = self.space.empty((*window.out_size, pixel_count(window), u.shape[3]), x.dtype)
        for rows, c in self.local_columns(x, window):
            np.matmul(c.swapaxes(2, 3), u[:, rows].transpose(1, 2, 0, 3), out=W[rows])
        return W


def by_rows(at: Gathering, channels: int) -> bool:
    """Whether rows of windows are gathered, in place of windows."""
    return at.kernel[0] > 1 and at.kernel[1] * channels >= ROW
