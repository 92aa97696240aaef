"""NumPy's own forms of the kernels: few passes over memory, and products by BLAS.

Where a result is large, an operation works through it in blocks that stay in the cache. Windows are gathered some
megabytes at a time into a buffer that is used again, each chunk followed by its product, which BLAS spreads over the
cores. Large results lie in memory that is used again as soon as nobody holds it (see Arena): fresh pages cost as much
as the arithmetic on them.
"""

import math
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ref_bioplaus import local
from ref_bioplaus.kernels import PARITY, ROTATIONS, Kernels
from ref_bioplaus.windows import Window

BLOCK = 1 << 14  # elements worked on at a time: several such arrays stay in a core's cache
COLUMNS = 1 << 22  # bytes of windows gathered for one product
LARGE = 1 << 20  # bytes from which on memory is worth keeping
FORGET = 1000  # requests to the arena after which a size that nobody asked for is given back
NONLINEARITIES = (local.tanh, local.relu, local.sigmoid, local.rectified_tanh)


class Arena:
    """Memory for results, handed out again once every array and every view of it is gone.

    A result is a view of a buffer, and so is every view of a result: where nothing refers to a buffer but the arena,
    nobody can see it. What somebody keeps, an array of an old state or a view of one, is therefore never reused.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.buffers: dict[int, list[np.ndarray]] = {}  # by size in bytes
        self.asked: dict[int, int] = {}  # by size: the latest request for it
        self.requests = 0
        self.unshared = self.references([np.empty(1, np.uint8)], 0)
        self.counts = getattr(sys, "_is_gil_enabled", lambda: True)()  # reference counts are exact under the GIL only

    @staticmethod
    def references(buffers: list[np.ndarray], i: int) -> int:
        """How many references there are to an entry of a list."""
        return sys.getrefcount(buffers[i])

    def empty(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """An array of any content that nobody else can see."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < LARGE or not self.counts:
            return np.empty(shape, dtype)
        with self.lock:
            return self.buffer(size).view(dtype).reshape(shape)

    def buffer(self, size: int) -> np.ndarray:
        """An unused buffer of so many bytes."""
        self.requests += 1
        self.asked[size] = self.requests
        buffers = self.buffers.setdefault(size, [])
        for i in range(len(buffers)):
            if self.references(buffers, i) == self.unshared:
                return buffers[i]
        for other in [s for s, last in self.asked.items() if self.requests - last > FORGET]:
            del self.asked[other], self.buffers[other]
        buffers.append(np.empty(size, np.uint8))
        return buffers[-1]


class Scratch(threading.local):
    """Buffers that no result shows, one set per thread."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, Any], np.ndarray] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
        """The buffer of that name, with any content, valid until it is taken again."""
        size = math.prod(shape)
        buffer = self.buffers.get((name, dtype))
        if buffer is None or buffer.size < size:
            buffer = self.buffers[name, dtype] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)


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


class Phase(NamedTuple):
    """Pixels a stride apart: they are read through the same kernel entries, at windows next to each other."""

    pixels: tuple[slice, slice]
    entries: tuple[slice, slice]
    gathering: Gathering  # of windows into u, whose entries are in reversed order


def phases(window: Window) -> Iterator[Phase]:
    """The transpose of a convolution as convolutions at stride 1, one per phase of the stride."""
    for p in axis_phases(window, 0):
        for q in axis_phases(window, 1):
            (pixels_y, entries_y, before_y, taps_y, n_y), (pixels_x, entries_x, before_x, taps_x, n_x) = p, q
            into = Gathering((before_y, before_x), (taps_y, taps_x), (1, 1), (n_y, n_x))
            yield Phase((pixels_y, pixels_x), (entries_y, entries_x), into)


def axis_phases(window: Window, axis: int) -> Iterator[tuple[slice, slice, int, int, int]]:
    """Along one axis: pixels, kernel entries, windows before the first that reads pixel 0, entries, pixels."""
    n, k, s, pad = window.in_shape[axis], window.kernel[axis], window.stride[axis], window.padding[axis][0]
    for offset in range(min(s, n)):
        entry, window_of_entry = (offset + pad) % s, (offset + pad) // s
        taps = len(range(entry, k, s))
        yield slice(offset, n, s), slice(entry, k, s), taps - 1 - window_of_entry, taps, len(range(offset, n, s))


class NumpyKernels:
    """The kernels, and the memory they share. Nothing that is passed in is written to."""

    def __init__(self) -> None:
        self.arena, self.scratch = Arena(), Scratch()
        built = [part.build(()) for part in NONLINEARITIES]
        self.names = {(n.function, n.derivative): n.name for n in built}

    # Dense

    def dense_apply(self, W, x):
        """u = x W^T"""
        return np.matmul(x, W.T, out=self.arena.empty((x.shape[0], W.shape[0]), x.dtype))

    def dense_transport(self, B, u):
        """x = u B"""
        return np.matmul(u, B, out=self.arena.empty((u.shape[0], B.shape[1]), u.dtype))

    def dense_correlate(self, x, u):
        """W = u^T x"""
        return np.matmul(u.T, x, out=self.arena.empty((u.shape[1], x.shape[1]), x.dtype))

    # Convolution

    def image(self, x, before: tuple[int, int], size: tuple[int, int], fill: float = 0.0) -> np.ndarray:
        """Images of `size` pixels: those of x moved by `before` (either sign), and `fill` around them."""
        if before == (0, 0) and size == x.shape[1:3] and x.flags.c_contiguous:
            return x
        inside, taken = [], []
        for b, n, m in zip(before, x.shape[1:3], size, strict=True):
            first, last = max(0, b), max(0, b, min(m, n + b))
            inside.append(slice(first, last))
            taken.append(slice(first - b, last - b))
        image = self.scratch.take("image", (x.shape[0], *size, x.shape[3]), x.dtype)
        if fill or size != x.shape[1:3] or before != (0, 0):
            image.fill(fill)
        image[:, inside[0], inside[1]] = x[:, taken[0], taken[1]]
        return image

    def windows(self, x, at: Gathering) -> np.ndarray:
        """(N, height, width, kernel height, kernel width * C), a view of the padded images."""
        (height, width), (kh, kw), (sh, sw) = at.out_size, at.kernel, at.stride
        image = self.image(x, at.before, ((height - 1) * sh + kh, (width - 1) * sw + kw))
        n, row, pixel, number = image.strides
        shape = (x.shape[0], height, width, kh, kw * x.shape[3])
        return as_strided(image, shape, (n, sh * row, sw * pixel, row, number), writeable=False)

    def columns(self, x, at: Gathering) -> Iterator[tuple[slice, np.ndarray]]:
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
            windows = self.windows(x[n : n + samples], at)
            for top in range(0, height, rows):
                part = windows[:, top : top + rows]
                c = self.scratch.take("columns", (math.prod(part.shape[:3]), K), x.dtype)
                np.copyto(c.reshape(part.shape), part)
                start = (n * height + top) * width
                yield slice(start, start + len(c)), c

    def convolve(self, F, x, at: Gathering, u):
        """Every window's pixels times F (kernel pixels * C, O), written into u (positions, O)."""
        for positions, c in self.columns(x, at):
            np.matmul(c, F, out=u[positions])

    def conv_apply(self, W, x, window):
        """u: every window's pixels times the one filter bank."""
        u = self.arena.empty((x.shape[0], *window.out_size, W.shape[3]), x.dtype)
        self.convolve(W.reshape(-1, W.shape[3]), x, gathering(window), u.reshape(-1, W.shape[3]))
        return u

    def conv_transport(self, B, u, window):
        """x: for each phase of the stride, a convolution of u with the entries that reach it, reversed."""
        N, C = u.shape[0], window.in_shape[2]
        x = self.arena.empty((N, *window.in_shape), u.dtype)
        for phase in phases(window):
            at = phase.gathering
            if 0 in at.kernel:  # between windows: no entry reads these pixels
                x[:, phase.pixels[0], phase.pixels[1]] = 0.0
                continue
            F = B[phase.entries][::-1, ::-1].transpose(0, 1, 3, 2).reshape(-1, C)
            if window.stride == (1, 1):
                self.convolve(F, u, at, x.reshape(-1, C))
            else:
                p = self.scratch.take("phase", (N, *at.out_size, C), u.dtype)
                self.convolve(F, u, at, p.reshape(-1, C))
                x[:, phase.pixels[0], phase.pixels[1]] = p
        return x

    def conv_correlate(self, x, u, window):
        """W: the sum over chunks of the pixels' transpose times the signal."""
        O = u.shape[3]
        signal = u.reshape(-1, O)
        W = self.arena.empty((math.prod(window.kernel) * window.in_shape[2], O), x.dtype)
        for positions, c in self.columns(x, gathering(window)):
            if positions.start == 0:
                np.matmul(c.T, signal[positions], out=W)
            else:
                W += np.matmul(c.T, signal[positions], out=self.scratch.take("product", W.shape, x.dtype))
        return W.reshape(*window.kernel, window.in_shape[2], O)

    # Local connection: one product per window, (height, width, N, K) at a time

    def local_columns(self, x, window: Window) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows of windows, and their pixels (rows, width, N, kernel pixels * C)."""
        windows = self.windows(x, gathering(window)).transpose(1, 2, 0, 3, 4)
        for rows in self.local_rows(x, window):
            part = windows[rows]
            c = self.scratch.take("columns", (*part.shape[:3], part.shape[3] * part.shape[4]), x.dtype)
            np.copyto(c.reshape(part.shape), part)
            yield rows, c

    def local_rows(self, x, window: Window) -> list[slice]:
        """Rows of windows, so many at a time that their pixels fill a chunk."""
        height, width = window.out_size
        K = math.prod(window.kernel) * window.in_shape[2]
        n = max(1, COLUMNS // (width * x.shape[0] * K * x.itemsize))
        return [slice(top, min(top + n, height)) for top in range(0, height, n)]

    def local_apply(self, W, x, window):
        """u: every window's pixels times that window's own filter bank."""
        u = self.arena.empty((x.shape[0], *window.out_size, W.shape[3]), x.dtype)
        for rows, c in self.local_columns(x, window):
            np.matmul(c, W[rows], out=u[:, rows].transpose(1, 2, 0, 3))
        return u

    def local_transport(self, B, u, window):
        """x: the exact transpose of local_apply, each window's pixels added back in place."""
        (H, W, C), (kh, kw), (sh, sw) = window.in_shape, window.kernel, window.stride
        (top, _), (left, _) = window.padding
        width = window.out_size[1]
        x = self.arena.empty((u.shape[0], H, W, C), u.dtype)
        x.fill(0.0)
        by_column = x.transpose(1, 2, 0, 3)
        for rows in self.local_rows(u, window):
            signal = u[:, rows].transpose(1, 2, 0, 3)
            p = self.scratch.take("columns", (*signal.shape[:3], kh * kw * C), u.dtype)
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

    def local_correlate(self, x, u, window):
        """W: the sum over samples of pixel times signal, window by window."""
        K = math.prod(window.kernel) * window.in_shape[2]
        W = self.arena.empty((*window.out_size, K, u.shape[3]), x.dtype)
        for rows, c in self.local_columns(x, window):
            np.matmul(c.swapaxes(2, 3), u[:, rows].transpose(1, 2, 0, 3), out=W[rows])
        return W

    # Local operations

    def max_pool(self, x, window):
        """The largest pixel of every window, and which it was: the first in row-major order where several are equal."""
        before, size = padded_size(window)
        entries = window_entries(self.image(x, before, size, -math.inf), window)
        y = self.arena.empty(entries[0].shape, x.dtype)
        np.copyto(y, entries[0])
        for entry in entries[1:]:
            np.maximum(y, entry, out=y)
        first = self.arena.empty((len(entries), *y.shape), np.bool_)
        found = np.zeros(y.shape, np.bool_)
        for entry, is_first in zip(entries, first, strict=True):
            np.equal(entry, y, out=is_first)
            np.greater(is_first, found, out=is_first)  # and none before it
            np.logical_or(found, is_first, out=found)
        return y, first.transpose(1, 2, 3, 0, 4)

    def max_pool_backward(self, first, dy, window):
        """The error at x: each window hands its error to its first maximum."""
        before, size = padded_size(window)
        x = self.arena.empty((dy.shape[0], *window.in_shape), dy.dtype)
        tiled = window.kernel == window.stride and before == (0, 0) and size == window.in_shape[:2]
        if tiled and size == tuple(n * k for n, k in zip(window.out_size, window.kernel, strict=True)):
            for k, entry in enumerate(window_entries(x, window)):
                np.multiply(dy, first[:, :, :, k], out=entry)
            return x
        total = self.scratch.take("total", (dy.shape[0], *size, dy.shape[3]), dy.dtype)
        total.fill(0.0)
        share = self.scratch.take("share", dy.shape, dy.dtype)
        for k, entry in enumerate(window_entries(total, window)):
            entry += np.multiply(dy, first[:, :, :, k], out=share)
        height, width, _ = window.in_shape
        np.copyto(x, total[:, before[0] : before[0] + height, before[1] : before[1] + width])
        return x

    def batch_norm(self, x, gamma, beta, epsilon):
        """Normalise over all axes but the last: y, mean, population variance, and what the backward pass needs."""
        C, m, flat = x.shape[-1], math.prod(x.shape[:-1]), np.reshape(x, -1)
        mean = self.channel_sum(x, tuple(range(x.ndim - 1))) / m
        z, y = self.arena.empty(x.shape, x.dtype), self.arena.empty(x.shape, x.dtype)
        flat_z, flat_y = z.reshape(-1), y.reshape(-1)
        squares = self.scratch.take("squares", (whole_rows(C),), x.dtype)
        ones = np.ones(whole_rows(C) // C, x.dtype)
        var = np.zeros(C, x.dtype)
        many = self.repeated(mean)
        for b in blocks(x.size, C):
            n = b.stop - b.start
            np.subtract(flat[b], many[:n], out=flat_z[b])
            np.multiply(flat_z[b], flat_z[b], out=squares[:n])
            var += ones[: n // C] @ squares[:n].reshape(-1, C)
        var /= m
        inv_std = 1.0 / np.sqrt(var + epsilon)
        scale, slope, shift = self.repeated(inv_std), self.repeated(gamma), self.repeated(beta)
        for b in blocks(x.size, C):
            n = b.stop - b.start
            np.multiply(flat_z[b], scale[:n], out=flat_z[b])
            np.multiply(flat_z[b], slope[:n], out=flat_y[b])
            np.add(flat_y[b], shift[:n], out=flat_y[b])
        return y, mean, var, (z, inv_std)

    def batch_norm_backward(self, cache, gamma, dy):
        """The error at x, and the gradients of gamma and beta, summed over the batch."""
        z, inv_std = cache
        C, m = dy.shape[-1], math.prod(dy.shape[:-1])
        flat_z, flat_dy = np.reshape(z, -1), np.reshape(dy, -1)
        x = self.arena.empty(dy.shape, dy.dtype)
        flat_x = x.reshape(-1)
        products = self.scratch.take("squares", (whole_rows(C),), dy.dtype)
        ones = np.ones(whole_rows(C) // C, dy.dtype)
        dgamma, dbeta = np.zeros(C, dy.dtype), np.zeros(C, dy.dtype)
        for b in blocks(dy.size, C):
            n = b.stop - b.start
            np.multiply(flat_dy[b], flat_z[b], out=products[:n])
            dgamma += ones[: n // C] @ products[:n].reshape(-1, C)
            dbeta += ones[: n // C] @ flat_dy[b].reshape(-1, C)
        scale, along, mean = (self.repeated(a) for a in (gamma * inv_std, dgamma / m, dbeta / m))
        for b in blocks(dy.size, C):
            n = b.stop - b.start
            np.multiply(flat_z[b], along[:n], out=flat_x[b])
            np.subtract(flat_dy[b], flat_x[b], out=flat_x[b])
            np.subtract(flat_x[b], mean[:n], out=flat_x[b])
            np.multiply(flat_x[b], scale[:n], out=flat_x[b])
        return x, dgamma, dbeta

    def repeated(self, a):
        """A vector (C,) again and again, so that a block of whole rows is one run of memory."""
        return np.tile(a, whole_rows(len(a)) // len(a))

    def activation(self, nonlinearity, x):
        """y = function(x); in blocks for the usual ones."""
        name = self.names.get((nonlinearity.function, nonlinearity.derivative))
        if name is None:
            return nonlinearity.function(x)
        y = self.arena.empty(x.shape, x.dtype)
        flat_x, flat_y = np.reshape(x, -1), y.reshape(-1)
        for b in blocks(x.size):
            a, out = flat_x[b], flat_y[b]
            if name == "sigmoid":
                np.multiply(a, 0.5, out=out)
                np.tanh(out, out=out)
                np.add(out, 1.0, out=out)
                np.multiply(out, 0.5, out=out)
            else:
                if name != "tanh":
                    a = np.maximum(a, 0.0, out=out)
                if name != "relu":
                    np.tanh(a, out=out)
        return y

    def activation_backward(self, nonlinearity, y, dy):
        """dy * derivative(y); in blocks for the usual ones."""
        name = self.names.get((nonlinearity.function, nonlinearity.derivative))
        if name is None:
            return dy * nonlinearity.derivative(y)
        dx = self.arena.empty(dy.shape, dy.dtype)
        flat_y, flat_dy, flat_dx = np.reshape(y, -1), np.reshape(dy, -1), dx.reshape(-1)
        positive = self.scratch.take("positive", (BLOCK,), np.bool_)
        for b in blocks(dy.size):
            a, out = flat_y[b], flat_dx[b]
            if name == "relu":
                np.multiply(flat_dy[b], np.greater(a, 0.0, out=positive[: len(a)]), out=out)
                continue
            if name == "sigmoid":
                np.subtract(1.0, a, out=out)
                np.multiply(out, a, out=out)
            else:
                np.multiply(a, a, out=out)
                np.subtract(1.0, out, out=out)
            if name == "rectified_tanh":
                np.multiply(out, np.greater(a, 0.0, out=positive[: len(a)]), out=out)
            np.multiply(out, flat_dy[b], out=out)
        return dx

    def channel_sum(self, dy, axes):
        """The sum over the leading axes: a row of ones times the rest, block by block."""
        kept, n = dy.shape[len(axes) :], math.prod(dy.shape[: len(axes)])
        rows = np.reshape(dy, (n, math.prod(kept)))
        step = max(64, BLOCK // max(1, rows.shape[1]))
        ones = np.ones(min(step, n), dy.dtype)
        total = np.zeros(rows.shape[1], dy.dtype)
        for start in range(0, n, step):
            part = rows[start : start + step]
            total += ones[: len(part)] @ part
        return total.reshape(kept)

    # Optimizers

    def sgd(self, p, g, v, keep, eta, momentum, nesterov):
        """v <- momentum v + g;  p <- keep p - eta v, or keep p - eta (g + momentum v) with Nesterov's."""
        new_p, new_v = [], []
        for p_, g_, v_, k in zip(p, g, v, keep, strict=True):
            number = p_.dtype.type
            moved, velocity = self.like(p_), self.like(p_) if momentum else g_
            P, G, V, to, U = (np.reshape(a, -1) for a in (p_, g_, v_, moved, velocity))
            step = self.scratch.take("step", (min(BLOCK, p_.size),), p_.dtype)
            for b in blocks(p_.size):
                s = step[: b.stop - b.start]
                if momentum:
                    np.multiply(V[b], momentum, out=U[b])
                    np.add(U[b], G[b], out=U[b])
                used = U[b]
                if nesterov:
                    np.multiply(used, momentum, out=s)
                    used = np.add(s, G[b], out=s)
                np.multiply(used, number(eta), out=s)
                np.subtract(kept_part(k, P[b], to[b]), s, out=to[b])
            new_p.append(moved)
            new_v.append(velocity)
        return new_p, new_v

    def adam(self, p, g, m, v, keep, eta, correction, b1, b2, epsilon, form):
        """m, v <- moving averages of g, g^2;  p <- keep p - eta m_hat / (sqrt(v_hat) + epsilon), or the "hat" form."""
        c1, c2 = (float(c) for c in correction)
        root = math.sqrt(c2)
        size = float(eta) / c1 * (root if form == "hat" else 1.0)
        shrink = 1.0 if form == "hat" else 1.0 / root
        new_p, new_m, new_v = [], [], []
        for p_, g_, m_, v_, k in zip(p, g, m, v, keep, strict=True):
            moved, mean, square = self.like(p_), self.like(p_), self.like(p_)
            P, G, M, V, to, A, S = (np.reshape(a, -1) for a in (p_, g_, m_, v_, moved, mean, square))
            step = self.scratch.take("step", (min(BLOCK, p_.size),), p_.dtype)
            for b in blocks(p_.size):
                s = step[: b.stop - b.start]
                np.multiply(G[b], 1.0 - b1, out=s)
                np.multiply(M[b], b1, out=A[b])
                np.add(A[b], s, out=A[b])
                np.multiply(G[b], G[b], out=s)
                np.multiply(s, 1.0 - b2, out=s)
                np.multiply(V[b], b2, out=S[b])
                np.add(S[b], s, out=S[b])
                np.sqrt(S[b], out=s)
                if form == "paper":
                    np.multiply(s, shrink, out=s)
                np.add(s, epsilon, out=s)
                np.divide(A[b], s, out=s)
                np.multiply(s, size, out=s)
                np.subtract(kept_part(k, P[b], to[b]), s, out=to[b])
            new_p.append(moved)
            new_m.append(mean)
            new_v.append(square)
        return new_p, new_m, new_v

    def like(self, p):
        """An array of p's shape and dtype, of any content."""
        return self.arena.empty(p.shape, p.dtype)

    # Random bits

    def random_words(self, key, start, n):
        """Words `start` to `start + n` of the stream of a key: Threefry-2x32-20, block by block."""
        high, low = divmod(start, 1 << 32)
        if low + n > 1 << 32:
            raise ValueError(f"{n} random words from {start} on cross a multiple of 2^32: draw them in two tiles")
        k0, k1 = (int(k) for k in np.asarray(key).view(np.uint32))
        keys = (k0, k1, k0 ^ k1 ^ PARITY)
        words = self.arena.empty((2, n), np.uint32)
        scratch = self.scratch.take("words", (min(BLOCK, n),), np.uint32)
        for b in blocks(n):
            x0, x1 = words[0, b], words[1, b]
            s = scratch[: len(x0)]
            x0.fill((high + k0) & 0xFFFFFFFF)
            np.add(np.arange(b.start, b.stop, dtype=np.uint32), np.uint32((low + k1) & 0xFFFFFFFF), out=x1)
            for i in range(5):
                for r in ROTATIONS[i % 2]:
                    np.add(x0, x1, out=x0)
                    np.left_shift(x1, np.uint32(r), out=s)
                    np.right_shift(x1, np.uint32(32 - r), out=x1)
                    np.bitwise_or(x1, s, out=x1)
                    np.bitwise_xor(x1, x0, out=x1)
                np.add(x0, np.uint32(keys[(i + 1) % 3]), out=x0)
                np.add(x1, np.uint32((keys[(i + 2) % 3] + i + 1) & 0xFFFFFFFF), out=x1)
        words = words.view(np.int32)
        return words[0], words[1]


def blocks(size: int, channels: int = 1) -> list[slice]:
    """Consecutive parts of `size` elements, each of whole rows of `channels`."""
    step = whole_rows(channels)
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def whole_rows(channels: int) -> int:
    """The elements of a block of whole rows."""
    return max(1, BLOCK // channels) * channels


def kept_part(keep, p, out):
    """keep * p in `out`, and p itself where keep is the number 1."""
    return p if isinstance(keep, float) and keep == 1.0 else np.multiply(p, p.dtype.type(keep), out=out)


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


def native() -> Kernels:
    """NumPy's kernels, with memory of their own."""
    own = NumpyKernels()
    return Kernels(
        "native", **{name: getattr(own, name) for name in Kernels._fields[1 : Kernels._fields.index("normal_table")]}
    )
