"""Array functions that a library may have a faster form of. The ones written here are portable, and the definition.

A backend offers a `Kernels` of its own; `network.with_kernels(backend.kernels)` binds it to every layer, and the
algorithms hand `network.kernels` to their optimizer and to their random numbers.

A NaN is passed on by every kernel, so that it reaches the loss. What is computed from a NaN is NaN: sums, products, an
activation, its slope, and an error times a slope, whichever of the two it is (an infinite error times a slope of 0 is
NaN too). What is chosen is chosen whole: NaN is the maximum of a window that holds one, and takes that window's error.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from .types import Array
from .windows import Window, overlap_add, patches

COLUMNS = 2**22  # numbers that the windows of one chunk of samples hold: 16 MiB in float32


def each(function: Callable, starts: list[int], *arrays: Array) -> list:
    """[function(start, *arrays) for every start]; `function` uses no other arrays.

    Compilers have loops that trace `function` once, with an int32 array (), or not at all.
    """
    return [function(start, *arrays) for start in starts]


def add(a: Array, b: Array) -> Array:
    """a + b: a bias b, the last axes of a, or the sum of two arrays of one shape. A native form owns the memory."""
    return a + b


class Kernels(NamedTuple):
    """Plain functions of arrays, and the table of normal quantiles (None: the package's own, put on the device).

    threefry: None for the one below. drawn: normal numbers that are made at a time, with what makes them.
    mean_of_product: whether the mean over a batch always divides the product of input and signal, which costs nothing
    where a compiler joins it with the optimizer, and not the smaller of signal and product.
    """

    name: str
    dense_apply: Callable
    dense_transport: Callable
    dense_correlate: Callable
    conv_apply: Callable
    conv_transport: Callable
    conv_correlate: Callable
    local_apply: Callable
    local_transport: Callable
    local_correlate: Callable
    max_pool: Callable
    max_pool_backward: Callable
    batch_norm: Callable
    batch_norm_backward: Callable
    activation: Callable
    activation_backward: Callable
    channel_sum: Callable
    sgd: Callable
    adam: Callable
    random_words: Callable
    normal_table: Array | None = None
    each: Callable = each
    threefry: Callable | None = None
    add: Callable = add
    mean_of_product: bool = False
    drawn: int = 2**24


# Dense. W: (n_out, n_in). x: (N, n_in). u: (N, n_out).


def dense_apply(W: Array, x: Array) -> Array:
    """u = x W^T"""
    xp = array_namespace(W, x)
    return xp.matmul(x, xp.matrix_transpose(W))


def dense_transport(B: Array, u: Array) -> Array:
    """x = u B"""
    return array_namespace(B, u).matmul(u, B)


def dense_correlate(x: Array, u: Array) -> Array:
    """W: the sum over samples of signal times input, u^T x."""
    xp = array_namespace(x, u)
    return xp.matmul(xp.matrix_transpose(u), x)


# Convolution. W: (kernel height, kernel width, C, O). x: (N, H, W, C). u: (N, height, width, O).
# Like local connections and pools below it takes a chunk of samples at a time: memory stays near that of x, u and W.


def conv_apply(W: Array, x: Array, window: Window) -> Array:
    """u: every window's pixels times the one filter bank."""
    xp = array_namespace(W, x)
    return joined(in_chunks(lambda x: xp.matmul(columns(x, window), filter_matrix(W)), window, x))


def conv_transport(B: Array, u: Array, window: Window) -> Array:
    """x: the exact transpose of conv_apply."""
    xp = array_namespace(B, u)

    def transport(u):
        p = xp.matmul(u, xp.matrix_transpose(filter_matrix(B)))
        return overlap_add(xp.reshape(p, (*u.shape[:3], -1, window.in_shape[2])), window)

    return joined(in_chunks(transport, window, u))


def conv_correlate(x: Array, u: Array, window: Window) -> Array:
    """W: the sum over samples and windows of pixel times signal."""
    xp = array_namespace(x, u)

    def correlate(x, u):
        c = columns(x, window)
        c, signal = xp.reshape(c, (-1, c.shape[-1])), xp.reshape(u, (-1, u.shape[-1]))
        return xp.matmul(xp.matrix_transpose(c), signal)

    return xp.reshape(summed(in_chunks(correlate, window, x, u)), (*window.kernel, window.in_shape[2], u.shape[-1]))


def in_chunks(function: Callable, window: Window, *arrays: Array) -> Iterator:
    """`function` of some samples at a time: as many as have COLUMNS numbers in their windows, and one at least."""
    N = arrays[0].shape[0]
    samples = max(COLUMNS // (math.prod(window.out_size) * math.prod(window.kernel) * window.in_shape[2]), 1)
    if samples >= N:
        yield function(*arrays)
        return
    for start in range(0, N, samples):
        yield function(*(a[start : min(start + samples, N), ...] for a in arrays))


def joined(chunks: Iterable[Array]) -> Array:
    """The samples of all chunks."""
    parts = list(chunks)
    return array_namespace(parts[0]).concat(parts, axis=0) if len(parts) > 1 else parts[0]


def summed(chunks: Iterator[Array]) -> Array:
    """The sum of all chunks, one after the other."""
    return sum(chunks, start=next(chunks))


def columns(x: Array, window: Window) -> Array:
    """(N, height, width, kernel pixels * C)"""
    p = patches(x, window)
    return array_namespace(p).reshape(p, (*p.shape[:3], -1))


def filter_matrix(W: Array) -> Array:
    """(kernel pixels * C, O)"""
    return array_namespace(W).reshape(W, (-1, W.shape[-1]))


# Local connection. W: (height, width, kernel pixels * C, O), a filter bank of its own at every window.


def local_apply(W: Array, x: Array, window: Window) -> Array:
    """u: every window's pixels times that window's own filter bank."""
    xp = array_namespace(W, x)
    return joined(in_chunks(lambda x: samples_first(xp.matmul(windows_first(columns(x, window)), W)), window, x))


def local_transport(B: Array, u: Array, window: Window) -> Array:
    """x: the exact transpose of local_apply."""
    xp = array_namespace(B, u)

    def transport(u):
        p = samples_first(xp.matmul(windows_first(u), xp.matrix_transpose(B)))
        return overlap_add(xp.reshape(p, (*p.shape[:3], -1, window.in_shape[2])), window)

    return joined(in_chunks(transport, window, u))


def local_correlate(x: Array, u: Array, window: Window) -> Array:
    """W: the sum over samples of pixel times signal, window by window."""
    xp = array_namespace(x, u)

    def correlate(x, u):
        return xp.matmul(xp.matrix_transpose(windows_first(columns(x, window))), windows_first(u))

    return summed(in_chunks(correlate, window, x, u))


def windows_first(a: Array) -> Array:
    """(N, height, width, K) -> (height, width, N, K)"""
    return array_namespace(a).permute_dims(a, (1, 2, 0, 3))


def samples_first(a: Array) -> Array:
    """(height, width, N, K) -> (N, height, width, K)"""
    return array_namespace(a).permute_dims(a, (2, 0, 1, 3))


# Local operations.


def max_pool(x: Array, window: Window) -> tuple[Array, Array]:
    """The largest pixel of every window, and which it was: the first in row-major order where several are equal.

    x (N, H, W, C) -> y (N, height, width, C) and a bool mask (N, height, width, kernel pixels, C). Of several NaN in a
    window, and of padding and -inf where nothing is above, libraries choose as they like.
    """
    xp = array_namespace(x)

    def largest(x):
        p = patches(x, window, fill=-float("inf"))
        index = xp.reshape(xp.arange(p.shape[3], dtype=xp.int32, device=device(x)), (1, 1, 1, -1, 1))
        first = index == xp.astype(xp.argmax(p, axis=3, keepdims=True), xp.int32)
        return xp.max(p, axis=3), first

    y, first = zip(*in_chunks(largest, window, x), strict=True)
    return joined(y), joined(first)


def max_pool_backward(first: Array, dy: Array, window: Window) -> Array:
    """The error at x: each window hands its error to its first maximum, and 0 to the rest, whatever the error is."""
    xp = array_namespace(dy)

    def spread(first, dy):
        return overlap_add(xp.where(first, dy, xp.zeros_like(dy)), window)

    return joined(in_chunks(spread, window, first, xp.expand_dims(dy, axis=3)))


def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array, tuple]:
    """Normalise over all axes but the last (Ioffe and Szegedy 2015, algorithm 1).

    x (..., C) -> y (..., C), the batch's mean (C,), its population variance (C,), and what the backward pass needs.
    """
    xp = array_namespace(x)
    axes = tuple(range(x.ndim - 1))
    mean = xp.mean(x, axis=axes)
    centred = x - mean
    var = xp.mean(centred * centred, axis=axes)
    inv_std = 1.0 / xp.sqrt(var + epsilon)
    z = centred * inv_std
    return gamma * z + beta, mean, var, (z, inv_std)


def batch_norm_backward(cache: tuple, gamma: Array, dy: Array) -> tuple[Array, Array, Array]:
    """The error at x, and the gradients of gamma and beta, summed over the batch."""
    xp = array_namespace(dy)
    z, inv_std = cache
    axes = tuple(range(dy.ndim - 1))
    dbeta, dgamma = xp.sum(dy, axis=axes), xp.sum(dy * z, axis=axes)
    m = math.prod(dy.shape[:-1])
    dx = gamma * inv_std * (dy - dbeta / m - z * (dgamma / m))
    return dx, dgamma, dbeta


def activation(nonlinearity: Any, x: Array) -> Array:
    """y = function(x), elementwise. nonlinearity: a local.Nonlinearity; native forms know the usual ones' functions."""
    return nonlinearity.function(x)


def activation_backward(nonlinearity: Any, y: Array, dy: Array) -> Array:
    """dy * derivative(y): the slope as a function of the output."""
    return dy * nonlinearity.derivative(y)


def channel_sum(dy: Array, axes: tuple[int, ...]) -> Array:
    """The sum over the leading axes: samples, and positions that share a bias."""
    return array_namespace(dy).sum(dy, axis=axes)


# Optimizers. p, g, m, v, keep are lists with one entry per tensor; `keep` scales p before the step (see optimizers.py),
# eta is a number or an array ().


def sgd(
    p: list, g: list, v: list, keep: list, eta: float | Array, momentum: float, nesterov: bool
) -> tuple[list, list]:
    """v <- momentum v + g;  p <- keep p - eta v, or keep p - eta (g + momentum v) with Nesterov's."""
    v = [momentum * v_ + g_ for v_, g_ in zip(v, g, strict=True)] if momentum else g
    step = [g_ + momentum * v_ for g_, v_ in zip(g, v, strict=True)] if nesterov else v
    return [scaled(k, p_) - eta * s for p_, s, k in zip(p, step, keep, strict=True)], v


def adam(
    p: list, g: list, m: list, v: list, keep: list, eta: float | Array, correction: tuple, b1: float, b2: float,
    epsilon: float, form: str,
) -> tuple[list, list, list]:  # fmt: skip
    """m, v <- moving averages of g, g^2;  p <- keep p - eta m_hat / (sqrt(v_hat) + epsilon).

    correction: the arrays (1 - b1^t, 1 - b2^t). form: "paper" or "hat" (see optimizers.adam).
    """
    xp = array_namespace(*p)
    c1, c2 = correction
    m = [b1 * m_ + (1.0 - b1) * g_ for m_, g_ in zip(m, g, strict=True)]
    v = [b2 * v_ + (1.0 - b2) * (g_ * g_) for v_, g_ in zip(v, g, strict=True)]
    if form == "paper":
        step = [eta * (m_ / c1) / (xp.sqrt(v_ / c2) + epsilon) for m_, v_ in zip(m, v, strict=True)]
    else:
        step = [(eta * xp.sqrt(c2) / c1) * m_ / (xp.sqrt(v_) + epsilon) for m_, v_ in zip(m, v, strict=True)]
    return [scaled(k, p_) - s for p_, s, k in zip(p, step, keep, strict=True)], m, v


def scaled(keep: Array, p: Array) -> Array:
    """keep * p, and p itself where keep is the number 1."""
    return p if isinstance(keep, float) and keep == 1.0 else keep * p


# Random bits. Threefry-2x32 with 20 rounds (Salmon et al. 2011) in wrapping int32 arithmetic.

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def random_words(key: Array, start: int, n: int) -> tuple[Array, Array]:
    """Words `start` to `start + n` of the stream of a key, int32 (2,): two int32 arrays (n,).

    Word i encrypts the counter (i >> 32, i mod 2^32). Raises ValueError where a tile would cross a multiple of 2^32.
    """
    high, low = divmod(start, 1 << 32)
    if low + n > 1 << 32:
        raise ValueError(f"{n} random words from {start} on cross a multiple of 2^32: draw them in two tiles")
    xp = array_namespace(key)
    counter = xp.arange(n, dtype=xp.int32, device=device(key)) + signed(low)
    return threefry(key, xp.full_like(counter, signed(high)), counter)


def threefry(key: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """Encrypt the counters (x0, x1), two int32 (n,), under a key, int32 (2,)."""
    k0, k1 = key[0:1], key[1:2]
    ks = (k0, k1, k0 ^ k1 ^ PARITY)
    x0, x1 = x0 + ks[0], x1 + ks[1]
    for i in range(5):
        for r in ROTATIONS[i % 2]:
            x0 = x0 + x1
            x1 = rotate_left(x1, r) ^ x0
        x0, x1 = x0 + ks[(i + 1) % 3], x1 + (ks[(i + 2) % 3] + (i + 1))
    return x0, x1


def rotate_left(x: Array, r: int) -> Array:
    """The 32 bits of x turned left by r places."""
    return (x << r) | shift_right(x, 32 - r)


def shift_right(x: Array, r: int) -> Array:
    """The 32 bits of x moved right by r places, zeros coming in (>> on int32 would copy the sign bit)."""
    return (x >> r) & ((1 << (32 - r)) - 1)


def signed(word: int) -> int:
    """The same 32 bits as a signed number."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word


PORTABLE = Kernels(
    "portable", dense_apply, dense_transport, dense_correlate, conv_apply, conv_transport, conv_correlate, local_apply,
    local_transport, local_correlate, max_pool, max_pool_backward, batch_norm, batch_norm_backward, activation,
    activation_backward, channel_sum, sgd, adam, random_words,
)  # fmt: skip
