"""The same random numbers on every backend, bit for bit.

Random numbers have an address, a root key followed by names and numbers, and asking twice gives the same answer:

    normal((key, "corrupt", t, l), shape, dtype, kernels)

The root key is an int32 array of shape (2,). Element i of an address depends on the address and i alone, so a part of
an array can be drawn by itself (start=i), and order never matters. Bits come from Threefry-2x32-20 (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3").

Uniforms lie on the grid of 2^-24 in float32 and 2^-53 in float64; the float32 one is the float64 one cut to 24 bits.
Normals are the sum of two entries of a table of 16,384 quantiles of N(0, 1/2), whole multiples of 2^-20, plus or minus
2^-21 so that none is 0: exact in float32, and the same number in float64. They reach 5.67 standard deviations; their
variance is 1 to 1e-7 and their kurtosis 2.9987 (a normal's is 3).
"""

import math
import zlib
from functools import cache
from importlib.resources import files

import numpy as np
from array_api_compat import array_namespace, device

from .kernels import PORTABLE, Kernels, shift_right, signed, threefry
from .types import Address, Array, DType, Key

TABLE_BITS = 14
GRID = 2.0**-21


@cache
def normal_table() -> np.ndarray:
    """Quantiles of N(0, 1/2) at the midpoints of 2^14 equal cells, in units of 2^-20: int32 (16384,)."""
    with files(__package__).joinpath("normal_table.npy").open("rb") as file:
        return np.load(file)


def key_at(address: Address, kernels: Kernels = PORTABLE) -> Key:
    """The key at an address (root, *tags). A tag is a name, an int or, once at most, an int32 array of shape ().

    Names and ints are hashed together to 32 bits (CRC-32), the array is the other word of the counter.
    """
    root, *tags = address
    xp = array_namespace(root)
    times = [tag for tag in tags if hasattr(tag, "shape")]
    if len(times) > 1:
        raise ValueError(f"a random address holds {len(times)} arrays {tags}, expected one at most")
    time = times[0] if times else xp.zeros((), dtype=xp.int32, device=device(root))
    name = "/".join(str(tag) for tag in tags if not hasattr(tag, "shape"))
    time = xp.reshape(time, (1,))
    encrypted = (kernels.threefry or threefry)(root, time, xp.full_like(time, signed(zlib.crc32(name.encode()))))
    return xp.concat(list(encrypted))


def words(address: Address, shape: tuple[int, ...], kernels: Kernels = PORTABLE, start: int = 0) -> tuple[Array, Array]:
    """64 random bits per element: the high and the low word, int32 arrays of `shape`."""
    high, low = kernels.random_words(key_at(address, kernels), start, math.prod(shape))
    xp = array_namespace(high)
    return xp.reshape(high, shape), xp.reshape(low, shape)


def multiples(i: Array, n: int) -> tuple[Array, Array]:
    """i n for int32 i below 2^31 and n below 2^32, none of them negative: high and low word, as multiplied by hand."""
    (i1, i0), (n1, n0) = (shift_right(i, 16), i & 0xFFFF), (n >> 16, n & 0xFFFF)
    last = i0 * n0
    middle = i1 * n0 + shift_right(last, 16)
    other = i0 * n1 + (middle & 0xFFFF)
    return i1 * n1 + shift_right(middle, 16) + shift_right(other, 16), i * signed(n)


def tile_words(key: Key, rows: int, columns: int, start: int | Array, width: int) -> tuple[Array, Array]:
    """Words of some columns of a matrix (rows, columns) whose element (i, j) has word i * columns + j of a key.

    Columns `start` (a number or an int32 array of shape ()) to `start + width`, row by row: two int32 (rows * width,).
    """
    xp = array_namespace(key)
    high, low = multiples(xp.arange(rows, dtype=xp.int32, device=device(key))[:, None], columns)
    counter = low + (xp.arange(width, dtype=xp.int32, device=device(key)) + start)[None, :]
    carried = (counter ^ signed(1 << 31)) < (low ^ signed(1 << 31))  # the 32 bits compared without a sign
    high = high + xp.astype(carried, xp.int32)
    return threefry(key, xp.reshape(high, (-1,)), xp.reshape(counter, (-1,)))


def uniform(
    address: Address, shape: tuple[int, ...], dtype: DType, kernels: Kernels = PORTABLE, start: int = 0
) -> Array:
    """Uniform on [0, 1)."""
    high, low = words(address, shape, kernels, start)
    xp = array_namespace(high)
    if dtype == xp.float64:
        return (xp.astype(shift_right(high, 5), dtype) * 2.0**26 + xp.astype(shift_right(low, 6), dtype)) * 2.0**-53
    return xp.astype(xp.astype(shift_right(high, 8), xp.float32) * 2.0**-24, dtype)


def bernoulli(
    address: Address, probability: float, shape: tuple[int, ...], kernels: Kernels = PORTABLE, start: int = 0
) -> Array:
    """True with a probability, given to 24 bits: integers are compared, so the answer is the same in every dtype."""
    high, _ = words(address, shape, kernels, start)
    return shift_right(high, 8) < round(probability * 2**24)


def normal(
    address: Address, shape: tuple[int, ...], dtype: DType, kernels: Kernels = PORTABLE, start: int = 0
) -> Array:
    """Standard normal, never 0; kernels.drawn at a time, as each takes several numbers of memory on its way."""
    n = math.prod(shape)
    if n > (most := kernels.drawn):
        parts = [normal(address, (min(most, n - i),), dtype, kernels, start + i) for i in range(0, n, most)]
        return array_namespace(parts[0]).reshape(array_namespace(parts[0]).concat(parts), shape)
    high, low = kernels.random_words(key_at(address, kernels), start, n)
    xp = array_namespace(high)
    table = kernels.normal_table
    if table is None:
        table = xp.asarray(normal_table(), dtype=xp.int32, device=device(high))
    first, second = (xp.take(table, shift_right(word, 32 - TABLE_BITS), axis=0) for word in (high, low))
    steps = 2 * (first + second) + (1 - 2 * (low & 1))  # an odd number of 2^-21
    wide = xp.float64 if dtype == xp.float64 else xp.float32
    return xp.reshape(xp.astype(xp.astype(steps, wide) * GRID, dtype), shape)
