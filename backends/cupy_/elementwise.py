"""The bodies of CuPy's elementwise kernels, each compiled once for every dtype, and what calls them.

Every element of a result is computed by a thread of its own, in a fixed order and without atomic additions: results do
not change from run to run. Bodies are the part of C that CUDA shares with it, so that tests compile them for a CPU.
None of this was ever run on a GPU.
"""

import math
from collections.abc import Callable
from typing import Any

from ref_bioplaus import local
from ref_bioplaus.kernels import PARITY, ROTATIONS
from ref_bioplaus.types import Array, Key, Tree
from ref_bioplaus.windows import Window

FORWARD = {  # y from x; what is not a number stays so
    local.tanh: "y = tanh(x)",
    local.relu: "y = x < 0 ? (T)0 : x",
    local.sigmoid: "y = (T)0.5 * (tanh((T)0.5 * x) + (T)1)",
    local.rectified_tanh: "y = x < 0 ? (T)0 : tanh(x)",
}
BACKWARD = {  # dx from y and dy, whose product is NaN where either is; an output that is not above 0 is 0 or NaN
    local.tanh: "dx = dy * ((T)1 - y * y)",
    local.relu: "dx = dy * (y > 0 ? (T)1 : y)",
    local.sigmoid: "dx = dy * (y * ((T)1 - y))",
    local.rectified_tanh: "dx = dy * ((y > 0 ? (T)1 : y) * ((T)1 - y * y))",
}

GEOMETRY = "int32 H, int32 W, int32 C, int32 height, int32 width, int32 kh, int32 kw, int32 sh, int32 sw, "
GEOMETRY += "int32 top, int32 left"
MAX_POOL = """
const long long c = i % C, px = i / C % width, py = i / C / width % height, sample = i / C / width / height;
T best = lowest;
int entry = 0, found = 0;
for (int a = 0; a < kh; ++a) {
    const long long row = py * sh + a - top;
    for (int b = 0; b < kw; ++b) {
        const long long column = px * sw + b - left;
        const int inside = row >= 0 && row < H && column >= 0 && column < W;
        const T v = inside ? x[((sample * H + row) * W + column) * C + c] : lowest;
        if (!found || v > best || (v != v && best == best)) { best = v; entry = a * kw + b; found = 1; }
    }
}
y = best;
first = entry;
"""
MAX_POOL_BACKWARD = """
const long long c = i % C, column = i / C % W, row = i / C / W % H, sample = i / C / W / H;
T total = 0;
for (int a = 0; a < kh; ++a) {
    const long long py = (row + top - a) / sh;
    if (row + top - a < 0 || (row + top - a) % sh != 0 || py >= height) continue;
    for (int b = 0; b < kw; ++b) {
        const long long px = (column + left - b) / sw;
        if (column + left - b < 0 || (column + left - b) % sw != 0 || px >= width) continue;
        const long long o = ((sample * height + py) * width + px) * C + c;
        if (first[o] == a * kw + b) total += dy[o];
    }
}
dx = total;
"""


def rounds(x0: str, x1: str) -> str:
    """Threefry-2x32-20 of the counter (x0, x1), two expressions in C, under a key; unrolled."""
    lines = [
        "const unsigned int k[3] = {(unsigned int)key[0], (unsigned int)key[1],",
        f"                           (unsigned int)key[0] ^ (unsigned int)key[1] ^ {PARITY}u}};",
        f"unsigned int x0 = {x0} + k[0], x1 = {x1} + k[1];",
    ]
    for i in range(5):
        lines += [f"x0 += x1; x1 = ((x1 << {r}) | (x1 >> {32 - r})) ^ x0;" for r in ROTATIONS[i % 2]]
        lines.append(f"x0 += k[{(i + 1) % 3}]; x1 += k[{(i + 2) % 3}] + {i + 1}u;")
    return "\n".join([*lines, "first = (int)x0;", "second = (int)x1;"])


class Elementwise:
    """Local operations and random bits. xp: cupy, or what stands for it in tests."""

    def __init__(self, xp: Any):
        self.xp = xp
        kernel: Callable = xp.ElementwiseKernel
        self.activations = {}
        for part in FORWARD:
            op = part.build(())
            self.activations[op.function, op.derivative] = (
                kernel("T x", "T y", FORWARD[part], f"{op.name}_forward"),
                kernel("T y, T dy", "T dx", BACKWARD[part], f"{op.name}_backward"),
            )
        self.pool = kernel(f"raw T x, T lowest, {GEOMETRY}", "T y, int32 first", MAX_POOL, "max_pool")
        self.pool_backward = kernel(
            f"raw int32 first, raw T dy, {GEOMETRY}", "T dx", MAX_POOL_BACKWARD, "max_pool_backward"
        )
        self.centre = kernel("T x, T mean", "T d, T square", "d = x - mean; square = d * d", "centre")
        self.normalise = kernel(
            "T d, T scale, T gamma, T beta", "T z, T y", "z = d * scale; y = gamma * z + beta", "normalise"
        )
        self.batch_norm_error = kernel(
            "T dy, T z, T scale, T along, T mean", "T dx", "dx = scale * (dy - mean - z * along)", "batch_norm_error"
        )
        self.words = kernel(
            "raw int32 key, uint32 high, uint32 low", "int32 first, int32 second",
            rounds("high", "low + (unsigned int)i"), "random_words",
        )  # fmt: skip
        self.encrypted = kernel(
            "raw int32 key, int32 high, int32 low", "int32 first, int32 second",
            rounds("(unsigned int)high", "(unsigned int)low"), "threefry",
        )  # fmt: skip

    def activation(self, nonlinearity: Any, x: Array):
        """y = function(x); a nonlinearity that is not the package's own by its own function."""
        kernels = self.activations.get((nonlinearity.function, nonlinearity.derivative))
        return kernels[0](x) if kernels else nonlinearity.function(x)

    def activation_backward(self, nonlinearity: Any, y: Array, dy: Array):
        """dy * derivative(y)"""
        kernels = self.activations.get((nonlinearity.function, nonlinearity.derivative))
        return kernels[1](y, dy) if kernels else dy * nonlinearity.derivative(y)

    def max_pool(self, x: Array, window: Window):
        """The largest pixel of every window, and its entry in the kernel: the first in row-major order of equal ones.

        Both (N, height, width, C). Padding is the lowest number there is.
        """
        shape = (x.shape[0], *window.out_size, x.shape[3])
        y, first = self.xp.empty(shape, dtype=x.dtype), self.xp.empty(shape, dtype=self.xp.int32)
        self.pool(self.xp.ascontiguousarray(x), -math.inf, *geometry(window), y, first)
        return y, first

    def max_pool_backward(self, first: Array, dy: Array, window: Window):
        """The error at x: every pixel collects from the windows whose first maximum it is."""
        dx = self.xp.empty((dy.shape[0], *window.in_shape), dtype=dy.dtype)
        self.pool_backward(first, self.xp.ascontiguousarray(dy), *geometry(window), dx)
        return dx

    def batch_norm(self, x: Array, gamma: Array, beta: Array, epsilon: float):
        """Normalise over all axes but the last: y, mean, population variance, and what the backward pass needs."""
        axes, m = tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])
        mean = self.xp.sum(x, axis=axes) / m
        d, square = self.centre(x, mean)
        var = self.xp.sum(square, axis=axes) / m
        inv_std = 1.0 / self.xp.sqrt(var + epsilon)
        z, y = self.normalise(d, inv_std, gamma, beta)
        return y, mean, var, (z, inv_std)

    def batch_norm_backward(self, cache: Tree, gamma: Array, dy: Array):
        """The error at x, and the gradients of gamma and beta, summed over the batch."""
        z, inv_std = cache
        axes, m = tuple(range(dy.ndim - 1)), math.prod(dy.shape[:-1])
        dbeta, dgamma = self.xp.sum(dy, axis=axes), self.xp.sum(dy * z, axis=axes)
        return self.batch_norm_error(dy, z, gamma * inv_std, dgamma / m, dbeta / m), dgamma, dbeta

    def random_words(self, key: Key, start: Array, n: int):
        """Words `start` to `start + n` of the stream of a key, int32 (2,): two int32 arrays (n,).

        Raises ValueError where a tile would cross a multiple of 2^32.
        """
        high, low = divmod(start, 1 << 32)
        if low + n > 1 << 32:
            raise ValueError(f"{n} random words from {start} on cross a multiple of 2^32: draw them in two tiles")
        first, second = self.xp.empty(n, dtype=self.xp.int32), self.xp.empty(n, dtype=self.xp.int32)
        key = self.xp.ascontiguousarray(key)
        self.words(key, self.xp.uint32(high & 0xFFFFFFFF), self.xp.uint32(low), first, second)
        return first, second

    def threefry(self, key: Key, x0: Array, x1: Array):
        """Encrypt the counters (x0, x1), two int32 (n,), under a key, int32 (2,)."""
        return self.encrypted(self.xp.ascontiguousarray(key), x0, x1)


def geometry(window: Window) -> tuple[int, ...]:
    """The numbers of GEOMETRY, in its order."""
    (top, _), (left, _) = window.padding
    return (*window.in_shape, *window.out_size, *window.kernel, *window.stride, top, left)
