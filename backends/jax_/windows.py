"""JAX's synapses that read images by windows, for use under jit.

Convolutions have two forms. GPUs take the library's. XLA's on a CPU is slow on small maps, at strides and for the
product of image and signal, so there a convolution is a product with the pixels of its windows, tile by tile.
Locally connected layers have two as well: one batched product on GPUs; on a CPU a product per window, one after the
other, so that a window's pixels are still in the cache when they are multiplied.
"""

import math
from collections.abc import Callable

import jax.numpy as xp
from jax import Array, lax

from ref_bioplaus.windows import Window

TILE = 1 << 21  # bytes of window pixels at a time: what stays in a core's cache


def contracted(a: Array, b: Array, over: tuple, batch: tuple = ((), ())) -> Array:
    """The product of two arrays, summed over pairs of axes; bfloat16 adds up in float32, and comes as float32."""
    return lax.dot_general(a, b, (over, batch), preferred_element_type=sum_dtype(a))


def sum_dtype(a: Array):
    """The dtype in which products of a's elements add up."""
    return xp.float32 if a.dtype == xp.bfloat16 else a.dtype


# Windows


def padded(x: Array, window: Window, fill: float = 0.0) -> Array:
    """Images with the window's padding around them (negative: pixels cut off)."""
    rows, cols = window.padding
    return lax.pad(x, xp.asarray(fill, dtype=x.dtype), ((0, 0, 0), (*rows, 0), (*cols, 0), (0, 0, 0)))


def entries(x: Array, window: Window, fill: float = 0.0) -> list[Array]:
    """For every kernel pixel, in row-major order, what it reads: (N, height, width, C)."""
    (height, width), (sh, sw), (kh, kw) = window.out_size, window.stride, window.kernel
    x = padded(x, window, fill)
    return [
        x[:, i : i + sh * (height - 1) + 1 : sh, j : j + sw * (width - 1) + 1 : sw, :]
        for i in range(kh)
        for j in range(kw)
    ]


def columns(x: Array, window: Window) -> Array:
    """The pixels of every window: (N, H, W, C) -> (N, height, width, kernel pixels * C)."""
    return xp.concatenate(entries(x, window), axis=3)


def added_up(parts: list[Array], window: Window) -> Array:
    """The adjoint of `entries`: (N, height, width, C) for every kernel pixel -> (N, H, W, C)."""
    (H, W, _), (height, width), (sh, sw) = window.in_shape, window.out_size, window.stride
    (top, _), (left, _), (_, kw) = *window.padding, window.kernel
    total = xp.zeros((parts[0].shape[0], H, W, parts[0].shape[3]), dtype=parts[0].dtype)
    zero = xp.zeros((), dtype=total.dtype)
    for k, part in enumerate(parts):
        i, j = k // kw - top, k % kw - left
        below, right = H - i - (height - 1) * sh - 1, W - j - (width - 1) * sw - 1
        total = total + lax.pad(part, zero, ((0, 0, 0), (i, below, sh - 1), (j, right, sw - 1), (0, 0, 0)))
    return total


def reversed_window(window: Window, channels: int) -> Window:
    """The windows of a convolution's transpose on signals of `channels`, spread out by its strides."""
    axes = zip(window.in_shape[:2], window.kernel, window.stride, window.padding, window.out_size, strict=True)
    sizes, padding = [], []
    for n, k, s, (before, _), m in axes:
        spread = (m - 1) * s + 1
        sizes.append(spread)
        padding.append((k - 1 - before, n + before - spread))
    return Window((sizes[0], sizes[1], channels), window.kernel, (1, 1), (padding[0], padding[1]))


def reversed_filters(W: Array) -> Array:
    """The filters of a convolution's transpose."""
    return xp.permute_dims(xp.flip(W, axis=(0, 1)), (0, 1, 3, 2))


# Convolution. W: (kernel height, kernel width, C, O). x: (N, H, W, C). u: (N, height, width, O).

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolved(W: Array, x: Array, window: Window, spread: tuple[int, int] = (1, 1)) -> Array:
    """The library's convolution of images whose pixels stand `spread` apart."""
    u = lax.conv_general_dilated(
        x, W, window.stride, window.padding, lhs_dilation=spread, dimension_numbers=LAYOUT,
        preferred_element_type=sum_dtype(x),
    )  # fmt: skip
    return u.astype(x.dtype)


def conv_apply(W: Array, x: Array, window: Window) -> Array:
    """u: every window's pixels times the one filter bank."""
    return convolved(W, x, window)


def conv_transport(B: Array, u: Array, window: Window) -> Array:
    """x: a convolution of the signal, spread out by the strides, with the reversed filters."""
    return convolved(reversed_filters(B), u, reversed_window(window, u.shape[3]), window.stride)


def conv_correlate(x: Array, u: Array, window: Window) -> Array:
    """W: a convolution of images with signals whose pixels stand a stride apart, in which samples add up."""
    axes = zip(window.in_shape[:2], window.kernel, window.stride, window.padding, window.out_size, strict=True)
    padding = [(before, (m - 1) * s + k - n - before) for n, k, s, (before, _), m in axes]
    W = lax.conv_general_dilated(
        x, u, (1, 1), padding, rhs_dilation=window.stride, dimension_numbers=("CHWN", "IHWO", "HWNC"),
        preferred_element_type=sum_dtype(x),
    )  # fmt: skip
    return W.astype(x.dtype)


CONVOLUTION = {"conv_apply": conv_apply, "conv_transport": conv_transport, "conv_correlate": conv_correlate}


# The same as products with the windows' pixels, in tiles of the batch.


def tiled(product: Callable, arrays: tuple[Array, ...], samples: int) -> Array:
    """product(*arrays), its samples in a row, computed `samples` at a time."""
    N = arrays[0].shape[0]
    if samples >= N:
        return product(*arrays)
    whole = N - N % samples
    first = [xp.reshape(a[:whole, ...], (-1, samples, *a.shape[1:])) for a in arrays]
    _, y = lax.scan(lambda _, tile: (None, product(*tile)), None, first)
    y = xp.reshape(y, (whole, *y.shape[2:]))
    return y if whole == N else xp.concatenate([y, product(*(a[whole:, ...] for a in arrays))])


def tiled_sum(product: Callable, arrays: tuple[Array, ...], samples: int) -> Array:
    """product(*arrays), a sum over samples, computed `samples` at a time."""
    N = arrays[0].shape[0]
    if samples >= N:
        return product(*arrays)
    whole = N - N % samples
    first = [xp.reshape(a[:whole, ...], (-1, samples, *a.shape[1:])) for a in arrays]
    start = product(*(a[whole:, ...] for a in arrays)) if whole < N else product(*(a[0, ...] for a in first))
    rest = first if whole < N else [a[1:, ...] for a in first]
    total, _ = lax.scan(lambda total, tile: (total + product(*tile), None), start, rest)
    return total


def samples_per_tile(x: Array, window: Window) -> int:
    """How many samples' window pixels fill a tile: a power of 2, which leaves most batches no rest."""
    if window.kernel == (1, 1):
        return x.shape[0]  # they are the image's pixels
    size = math.prod(window.out_size) * math.prod(window.kernel) * x.shape[3] * x.dtype.itemsize
    return 1 << (max(1, TILE // size).bit_length() - 1)


def tiled_apply(W: Array, x: Array, window: Window) -> Array:
    """u: every window's pixels times the one filter bank."""
    filters = xp.reshape(W, (-1, W.shape[3]))

    def product(x):
        return contracted(columns(x, window), filters, ((3,), (0,))).astype(x.dtype)

    return tiled(product, (x,), samples_per_tile(x, window))


def tiled_transport(B: Array, u: Array, window: Window) -> Array:
    """x: as conv_apply with the reversed filters; at strides each window's pixels, added up."""
    if window.stride == (1, 1):
        return tiled_apply(reversed_filters(B), u, reversed_window(window, u.shape[3]))

    def product(u):
        return added_up([contracted(u, f, ((3,), (1,))) for f in filters], window).astype(u.dtype)

    filters = list(xp.reshape(B, (-1, *B.shape[2:])))
    return tiled(product, (u,), samples_per_tile(u[..., :1], window) // window.in_shape[2] or 1)


def tiled_correlate(x: Array, u: Array, window: Window) -> Array:
    """W: the sum over samples and windows of pixel times signal."""

    def product(x, u):
        return contracted(columns(x, window), u, ((0, 1, 2), (0, 1, 2)))

    total = tiled_sum(product, (x, u), samples_per_tile(x, window))
    return xp.reshape(total, (*window.kernel, x.shape[3], u.shape[3])).astype(x.dtype)


TILED = {"conv_apply": tiled_apply, "conv_transport": tiled_transport, "conv_correlate": tiled_correlate}


# Local connection. W: (height, width, kernel pixels * C, O).


def local_apply(W: Array, x: Array, window: Window) -> Array:
    """u: every window's pixels times that window's own filter bank."""
    u = contracted(columns(x, window), W, ((3,), (2,)), ((1, 2), (0, 1)))
    return xp.permute_dims(u, (2, 0, 1, 3)).astype(x.dtype)


def local_transport(B: Array, u: Array, window: Window) -> Array:
    """x: one product per window, added up where windows overlap."""
    p = contracted(u, B, ((3,), (3,)), ((1, 2), (0, 1)))
    parts = xp.split(xp.permute_dims(p, (2, 0, 1, 3)), math.prod(window.kernel), axis=3)
    return added_up(parts, window).astype(u.dtype)


def local_correlate(x: Array, u: Array, window: Window) -> Array:
    """W: the sum over samples of pixel times signal, window by window."""
    return contracted(columns(x, window), u, ((0,), (0,)), ((1, 2), (1, 2))).astype(x.dtype)


LOCAL = {"local_apply": local_apply, "local_transport": local_transport, "local_correlate": local_correlate}


# The same, window after window. k: a window's number, in row-major order.


def corner(window: Window, k: Array) -> tuple:
    """Where the k-th window begins in padded images."""
    width, (sh, sw), zero = window.out_size[1], window.stride, xp.zeros((), dtype=k.dtype)
    return zero, k // width * sh, k % width * sw, zero


def pixels(x: Array, window: Window, k: Array) -> Array:
    """What the k-th window reads of padded images: (N, kernel pixels * C)."""
    seen = lax.dynamic_slice(x, corner(window, k), (x.shape[0], *window.kernel, x.shape[3]))
    return xp.reshape(seen, (x.shape[0], -1))


def signals_first(u: Array) -> Array:
    """(N, height, width, O) -> (windows, N, O)"""
    return xp.reshape(xp.permute_dims(u, (1, 2, 0, 3)), (-1, u.shape[0], u.shape[3]))


def windowed_apply(W: Array, x: Array, window: Window) -> Array:
    """u: every window's pixels times that window's own filter bank."""
    filters, x = xp.reshape(W, (-1, *W.shape[2:])), padded(x, window)
    numbers = xp.arange(filters.shape[0], dtype=xp.int32)
    u = lax.map(lambda k: contracted(pixels(x, window, k), filters[k, ...], ((1,), (0,))), numbers)
    u = xp.reshape(u, (*window.out_size, x.shape[0], W.shape[3]))
    return xp.permute_dims(u, (2, 0, 1, 3)).astype(x.dtype)


def windowed_transport(B: Array, u: Array, window: Window) -> Array:
    """x: one product per window, added up where windows overlap."""
    N, (H, W, C), (rows, cols) = u.shape[0], window.in_shape, window.padding
    filters, signals = xp.reshape(B, (-1, *B.shape[2:])), signals_first(u)

    def add(x, k):
        part = xp.reshape(contracted(signals[k, ...], filters[k, ...], ((1,), (1,))), (N, *window.kernel, C))
        at = corner(window, k)
        return lax.dynamic_update_slice(x, lax.dynamic_slice(x, at, part.shape) + part, at), None

    x = xp.zeros((N, H + sum(rows), W + sum(cols), C), dtype=sum_dtype(u))
    x, _ = lax.scan(add, x, xp.arange(filters.shape[0], dtype=xp.int32))
    cut = [(-before, -after, 0) for before, after in ((0, 0), rows, cols, (0, 0))]
    return lax.pad(x, xp.zeros((), dtype=x.dtype), cut).astype(u.dtype)


def windowed_correlate(x: Array, u: Array, window: Window) -> Array:
    """W: the sum over samples of pixel times signal, window by window."""
    x, signals = padded(x, window), signals_first(u)
    numbers = xp.arange(signals.shape[0], dtype=xp.int32)
    W = lax.map(lambda k: contracted(pixels(x, window, k), signals[k, ...], ((0,), (0,))), numbers)
    return xp.reshape(W, (*window.out_size, *W.shape[1:])).astype(x.dtype)


WINDOWED = {
    "local_apply": windowed_apply, "local_transport": windowed_transport, "local_correlate": windowed_correlate,
}  # fmt: skip
