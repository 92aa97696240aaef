"""JAX's own forms of the kernels, for use under jit.

Convolutions and locally connected layers have a form for GPUs and one for CPUs, see windows.py.
Adam divides once per weight, where the portable form divides three times: a compiler keeps divisions as they stand.
Batch norm, activations, bias sums, other optimizers and random bits stay portable and are left to the compiler.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as xp
from jax import Array, lax

from ref_bioplaus.backends.jax_.windows import CONVOLUTION, LOCAL, TILED, WINDOWED, added_up, contracted, entries
from ref_bioplaus.kernels import PORTABLE, Kernels, scaled
from ref_bioplaus.windows import Window


def native_kernels(platform: str, dtype: str, precision: str) -> Kernels:
    """The kernels for arrays of a dtype on a platform ("cpu", "gpu").

    precision: of float32 products, "ieee", "tf32" or "bf16".
    """
    products: dict[str, Any] = DENSE | (TILED | WINDOWED if platform == "cpu" else CONVOLUTION | LOCAL)
    rounded = operand_rounding(platform, dtype, precision)
    if rounded:
        products = {name: with_operands(rounded, product) for name, product in products.items()}
    return PORTABLE._replace(
        name="native", max_pool=max_pool, max_pool_backward=max_pool_backward, adam=adam, each=each,
        mean_of_product=True, **products,
    )  # fmt: skip


# Precision


def operand_rounding(platform: str, dtype: str, precision: str) -> Callable | None:
    """What float32 operands pass through before they are multiplied; None: nothing.

    XLA rounds to TF32 itself, but not on a CPU. bfloat16 it would take for TF32 on a GPU: what was rounded to bfloat16
    before goes through that exactly.
    """
    if dtype != "float32" or precision == "ieee" or (platform != "cpu" and precision == "tf32"):
        return None
    bits = {"bf16": 7, "tf32": 10}[precision]
    return lambda x: lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)


def with_operands(rounded: Callable, product: Callable) -> Callable:
    """A product of two arrays that passes both through `rounded` first."""

    def of_rounded(a, b, *geometry):
        return product(rounded(a), rounded(b), *geometry)

    return of_rounded


# Dense. W: (n_out, n_in). x: (N, n_in). u: (N, n_out).


def dense_apply(W: Array, x: Array) -> Array:
    """u = x W^T"""
    return contracted(x, W, ((1,), (1,))).astype(x.dtype)


def dense_transport(B: Array, u: Array) -> Array:
    """x = u B"""
    return contracted(u, B, ((1,), (0,))).astype(u.dtype)


def dense_correlate(x: Array, u: Array) -> Array:
    """W = u^T x"""
    return contracted(u, x, ((0,), (0,))).astype(x.dtype)


DENSE = {"dense_apply": dense_apply, "dense_transport": dense_transport, "dense_correlate": dense_correlate}


# Local operations


def max_pool(x: Array, window: Window) -> tuple[Array, Array]:
    """The largest pixel of every window, and the number of the first such kernel pixel, both (N, height, width, C)."""
    pixels = entries(x, window, fill=-math.inf)
    y, index = pixels[0], xp.zeros(pixels[0].shape, dtype=xp.int32)
    for k, pixel in enumerate(pixels[1:], start=1):
        index = xp.where(~(pixel <= y) & (y == y), k, index)  # larger, or the first NaN
        y = xp.maximum(y, pixel)
    return y, index


def max_pool_backward(index: Array, dy: Array, window: Window) -> Array:
    """The error at x: each window hands its error to its first maximum."""
    return added_up([xp.where(index == k, dy, 0) for k in range(math.prod(window.kernel))], window)


# Optimizers


def adam(
    p: list, g: list, m: list, v: list, keep: list, eta: float | Array, correction: tuple, b1: float, b2: float,
    epsilon: float, form: str,
) -> tuple[list, list, list]:  # fmt: skip
    """m, v <- moving averages of g, g^2;  p <- keep p - size m / (scale sqrt(v) + epsilon)."""
    c1, c2 = correction
    root = xp.sqrt(c2)
    size, scale = (eta / c1, 1.0 / root) if form == "paper" else (eta * root / c1, 1.0)
    m = [b1 * m_ + (1.0 - b1) * g_ for m_, g_ in zip(m, g, strict=True)]
    v = [b2 * v_ + (1.0 - b2) * (g_ * g_) for v_, g_ in zip(v, g, strict=True)]
    step = [size * m_ / (scale * xp.sqrt(v_) + epsilon) for m_, v_ in zip(m, v, strict=True)]
    return [scaled(k, p_) - s for p_, s, k in zip(p, step, keep, strict=True)], m, v


# Loops


def each(function: Callable, starts: list[int], *arrays: Array) -> list[Array]:
    """[function(start, *arrays) for every start], `function` traced once."""
    return list(lax.map(lambda start: function(start, *arrays), xp.asarray(starts, dtype=xp.int32)))
