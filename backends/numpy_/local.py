"""Local operations, block by block: pooling, batch norm, nonlinearities, sums over what shares a bias."""

import math
from typing import Any

import numpy as np

from ref_bioplaus import local
from ref_bioplaus.backends.numpy_ import memory
from ref_bioplaus.backends.numpy_.memory import Workspace, blocks, flat, repeated, whole_rows
from ref_bioplaus.backends.numpy_.windows import Images, padded_size, window_entries
from ref_bioplaus.types import Array, Tree
from ref_bioplaus.windows import Window

NONLINEARITIES = (local.tanh, local.relu, local.sigmoid, local.rectified_tanh)


class LocalOperations:
    """What neurons do by themselves. Nothing passed in is written to."""

    def __init__(self, space: Workspace) -> None:
        self.space, self.images = space, Images(space)
        built = [part.build(()) for part in NONLINEARITIES]
        self.names = {(n.function, n.derivative): n.name for n in built}

    # Pooling, some samples at a time

    def max_pool(self, x: Array, window: Window):
        """The largest pixel of every window, and which it was: the first in row-major order where several are equal."""
        before, size = padded_size(window)
        y = self.space.empty((x.shape[0], *window.out_size, x.shape[3]), x.dtype)
        first = self.space.empty((math.prod(window.kernel), *y.shape), np.bool_)

        def work(parts):
            for n in parts:
                entries = window_entries(self.images.padded(x[n], before, size, -math.inf), window)
                largest = y[n]
                np.copyto(largest, entries[0])
                for entry in entries[1:]:
                    np.maximum(largest, entry, out=largest)
                found = self.space.take("found", largest.shape, np.bool_)
                found.fill(False)
                for entry, is_first in zip(entries, first[:, n], strict=True):
                    np.equal(entry, largest, out=is_first)
                    np.greater(is_first, found, out=is_first)  # and none before it
                    np.logical_or(found, is_first, out=found)
                if not found.all():  # NaN, which equals nothing, is the largest of some window
                    for entry, is_first in zip(entries, first[:, n], strict=True):
                        np.logical_or(is_first, np.isnan(entry) > found, out=is_first)
                        np.logical_or(found, is_first, out=found)

        self.space.share(work, self.samples(y))
        return y, first.transpose(1, 2, 3, 0, 4)

    def max_pool_backward(self, first: Array, dy: Array, window: Window):
        """The error at x: each window hands its error to its first maximum."""
        before, size = padded_size(window)
        height, width, C = window.in_shape
        x = self.space.empty((dy.shape[0], *window.in_shape), dy.dtype)
        tiled = window.kernel == window.stride and before == (0, 0) and size == (height, width)
        tiled = tiled and size == tuple(n * k for n, k in zip(window.out_size, window.kernel, strict=True))
        bits = np.dtype(f"i{dy.itemsize}")

        def chosen(n, k, out):  # a product with the mask would make NaN of an infinite error, and spread it
            every_bit = np.negative(first[n, :, :, k].view(np.int8))
            np.bitwise_and(dy[n].view(bits), every_bit, out=out.view(bits))
            return out

        def work(parts):
            for n in parts:
                if tiled:  # every pixel is in one window
                    for k, entry in enumerate(window_entries(x[n], window)):
                        chosen(n, k, entry)
                    continue
                total = self.space.take("total", (len(dy[n]), *size, C), dy.dtype)
                total.fill(0.0)
                share = self.space.take("share", dy[n].shape, dy.dtype)
                for k, entry in enumerate(window_entries(total, window)):
                    entry += chosen(n, k, share)
                np.copyto(x[n], total[:, before[0] : before[0] + height, before[1] : before[1] + width])

        self.space.share(work, self.samples(dy))
        return x

    def samples(self, y: Array) -> list[slice]:
        """Samples, so many at a time that they are a block of y."""
        step = max(1, memory.BLOCK // max(1, math.prod(y.shape[1:])))
        return [slice(n, min(n + step, len(y))) for n in range(0, len(y), step)]

    # BatchNorm

    def batch_norm(self, x: Array, gamma: Array, beta: Array, epsilon: float):
        """Normalise over all axes but the last: y, mean, population variance, and what the backward pass needs."""
        C, m = x.shape[-1], math.prod(x.shape[:-1])
        z, y = self.space.like(x), self.space.like(x)
        X, Z, Y = flat(x, z, y)
        ones = np.ones(whole_rows(C) // C, x.dtype)
        mean = self.channel_sum(x, tuple(range(x.ndim - 1))) / m
        many = repeated(mean)

        def centre(parts):
            var = np.zeros(C, x.dtype)
            for b in parts:
                n = b.stop - b.start
                squares = self.space.take("squares", (n,), x.dtype)
                np.subtract(X[b], many[:n], out=Z[b])
                np.multiply(Z[b], Z[b], out=squares)
                var += ones[: n // C] @ squares.reshape(-1, C)
            return var

        var = sum(self.space.share(centre, blocks(x.size, C))) / m
        inv_std = 1.0 / np.sqrt(var + epsilon)
        scale, slope, shift = repeated(inv_std), repeated(gamma), repeated(beta)

        def normalise(parts):
            for b in parts:
                n = b.stop - b.start
                np.multiply(Z[b], scale[:n], out=Z[b])
                np.multiply(Z[b], slope[:n], out=Y[b])
                np.add(Y[b], shift[:n], out=Y[b])

        self.space.share(normalise, blocks(x.size, C))
        return y, mean, var, (z, inv_std)

    def batch_norm_backward(self, cache: Tree, gamma: Array, dy: Array):
        """The error at x, and the gradients of gamma and beta, summed over the batch."""
        z, inv_std = cache
        C, m = dy.shape[-1], math.prod(dy.shape[:-1])
        x = self.space.like(dy)
        Z, DY, X = flat(z, dy, x)
        ones = np.ones(whole_rows(C) // C, dy.dtype)

        def sums(parts):
            total = np.zeros((2, C), dy.dtype)
            for b in parts:
                n = b.stop - b.start
                products = self.space.take("squares", (n,), dy.dtype)
                np.multiply(DY[b], Z[b], out=products)
                total[0] += ones[: n // C] @ products.reshape(-1, C)
                total[1] += ones[: n // C] @ DY[b].reshape(-1, C)
            return total

        dgamma, dbeta = sum(self.space.share(sums, blocks(dy.size, C)))
        scale, along, mean = (repeated(a) for a in (gamma * inv_std, dgamma / m, dbeta / m))

        def errors(parts):
            for b in parts:
                n = b.stop - b.start
                np.multiply(Z[b], along[:n], out=X[b])
                np.subtract(DY[b], X[b], out=X[b])
                np.subtract(X[b], mean[:n], out=X[b])
                np.multiply(X[b], scale[:n], out=X[b])

        self.space.share(errors, blocks(dy.size, C))
        return x, dgamma, dbeta

    # Elementwise

    def activation(self, nonlinearity: Any, x: Array):
        """y = function(x); in blocks for the usual ones."""
        name = self.names.get((nonlinearity.function, nonlinearity.derivative))
        if name is None:
            return nonlinearity.function(x)
        y = self.space.like(x)
        X, Y = flat(x, y)

        def work(parts):
            for b in parts:
                a, out = X[b], Y[b]
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

        self.space.share(work, blocks(x.size))
        return y

    def activation_backward(self, nonlinearity: Any, y: Array, dy: Array):
        """dy * derivative(y); in blocks for the usual ones."""
        name = self.names.get((nonlinearity.function, nonlinearity.derivative))
        if name is None:
            return dy * nonlinearity.derivative(y)
        dx = self.space.like(dy)
        Y, DY, DX = flat(y, dy, dx)

        def work(parts):
            for b in parts:
                a, out = Y[b], DX[b]
                if name == "relu":
                    np.multiply(np.sign(a, out=out), DY[b], out=out)  # y is 0 or above
                    continue
                if name == "sigmoid":
                    np.subtract(1.0, a, out=out)
                    np.multiply(out, a, out=out)
                else:
                    np.multiply(a, a, out=out)
                    np.subtract(1.0, out, out=out)
                if name == "rectified_tanh":
                    positive = self.space.take("positive", a.shape, a.dtype)
                    np.multiply(out, np.sign(a, out=positive), out=out)
                np.multiply(out, DY[b], out=out)

        self.space.share(work, blocks(dy.size))
        return dx

    def add(self, a: Array, b: Array):
        """a + b: a bias (the last axes of a), or another array of a's shape."""
        if a.nbytes < memory.LARGE or a.shape[a.ndim - b.ndim :] != b.shape or not b.size:
            return a + b
        y = self.space.empty(a.shape, np.result_type(a, b))
        A, B, Y = flat(a, b, y)
        if b.size < a.size:
            B = repeated(B)

        def work(parts):
            for p in parts:
                np.add(A[p], B[p] if b.size == a.size else B[: p.stop - p.start], out=Y[p])

        self.space.share(work, blocks(a.size, 1 if b.size == a.size else b.size))
        return y

    def channel_sum(self, dy: Array, axes: tuple[int, ...]):
        """The sum over the leading axes: a row of ones times the rest, block by block."""
        kept, n = dy.shape[len(axes) :], math.prod(dy.shape[: len(axes)])
        rows = np.reshape(dy, (n, math.prod(kept)))
        step = max(64, memory.BLOCK // max(1, rows.shape[1]))
        ones = np.ones(min(step, n), dy.dtype)
        total = np.zeros(rows.shape[1], dy.dtype)
        for start in range(0, n, step):
            part = rows[start : start + step]
            total += ones[: len(part)] @ part
        return total.reshape(kept)
