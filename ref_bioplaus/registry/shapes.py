"""What an algorithm keeps and multiplies, by shapes alone: its own code, run on arrays that are one number each.

Such an array has any shape in the memory of that one number. Whatever makes an array of all different numbers of it
gives an ordinary one, which is right as well, and takes memory.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import PORTABLE, Kernels
from ..network import Network
from ..types import Algorithm, Batch, State
from ..windows import Window


class Constant(np.ndarray):
    """A NumPy array of one number, everywhere."""

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if ufunc is np.matmul and method == "__call__":
            (*_, rows, _), (*_, columns) = inputs[0].shape, inputs[1].shape
            outer = np.broadcast_shapes(*(array.shape[:-2] for array in inputs))
            return constant(one(inputs[0]) * one(inputs[1]), (*outer, rows, columns))
        if method != "__call__" or ufunc.signature or options:
            return getattr(ufunc, method)(*map(plain, inputs), **options)
        return constant(ufunc(*map(one, inputs)), np.broadcast_shapes(*map(np.shape, inputs)))

    def __array_function__(self, function, types, arguments, options):
        if function in KNOWN:
            return KNOWN[function](*arguments, **options)
        arguments, options = plain(arguments), {name: plain(value) for name, value in options.items()}
        result = function(*arguments, **options)
        same = isinstance(result, np.ndarray) and result.ndim > 0 and not any(result.strides)
        return result.view(Constant) if same else result

    def astype(self, dtype: Any, copy: bool = True):  # type: ignore[override]
        """The same shape."""
        return constant(one(self).astype(dtype), self.shape)


def constant(number: Any, shape: tuple[int, ...]) -> np.ndarray:
    """An array of one number."""
    return np.broadcast_to(np.asarray(number), shape).view(Constant)


def plain(value: Any) -> Any:
    """Constants as ordinary arrays of the same memory, in lists and tuples too; anything else as it is."""
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value.view(np.ndarray) if isinstance(value, Constant) else value


def one(value: Any) -> Any:
    """An array's first number, which stands for all; anything else as it is."""
    return plain(value)[(0,) * value.ndim] if isinstance(value, np.ndarray) and value.size else value


def _like(array, number=1, dtype=None, **options):
    return constant(np.asarray(number, dtype or array.dtype), array.shape)


def _joined(arrays, axis=0):
    arrays = [array.reshape(-1) for array in arrays] if axis is None else list(arrays)
    shape = list(arrays[0].shape)
    shape[axis or 0] = sum(array.shape[axis or 0] for array in arrays)
    return constant(one(arrays[0]), tuple(shape))


def _decomposed(matrix, full_matrices=True, **options):
    rows, columns = matrix.shape
    rank = min(rows, columns)
    return tuple(constant(one(matrix), shape) for shape in ((rows, rank), (rank,), (rank, columns)))


def _chosen(condition, *values):
    given = (condition, *values)
    return constant(np.where(*map(one, given)), np.broadcast_shapes(*map(np.shape, given)))


KNOWN: dict[Callable, Callable] = {  # functions whose result is one number again, which NumPy would write out
    **dict.fromkeys((np.zeros_like, np.ones_like, np.full_like), _like), np.concatenate: _joined, np.where: _chosen,
    np.linalg.svd: _decomposed,
    np.take: lambda table, indices, axis=0: constant(one(table), np.shape(indices)),
}  # fmt: skip
KEY = np.zeros(2, np.int32)
BITS = PORTABLE._replace(
    normal_table=constant(np.int32(1), (1,)), drawn=2**63,
    random_words=lambda key, start, n: (constant(np.int32(1), (n,)),) * 2,
)  # fmt: skip


def kept(make: Callable[[Network], Algorithm], network: Network) -> State:
    """The state before the first step, without its numbers. make: the algorithm on a network."""
    return make(network.with_kernels(BITS).with_dtype("float32")).init(KEY)


def products(make: Callable[[Network], Algorithm], network: Network, mode: str) -> int:
    """Floating-point operations of the products in one step of a mode, for one sample.

    A multiplication and an addition are two operations, at every place of every window, padding included.
    """
    count: list[int] = []
    network = network.with_kernels(counting(count)).with_dtype("float32")
    algorithm = make(network)
    state = algorithm.init(KEY)
    x, u = (constant(np.float32(1), (1, *network[l].out_shape)) for l in (0, network.L))
    count.clear()
    algorithm.modes[mode](state, Batch(x, u))
    return sum(count)


def counting(count: list[int]) -> Kernels:
    """Kernels that note the operations of every product and calculate none."""

    def made(n: int, *shape: int) -> np.ndarray:
        count.append(2 * n)
        return constant(np.float32(1), shape)

    def read(w: Window) -> int:
        return math.prod(w.out_size) * math.prod(w.kernel) * w.in_shape[2]

    def apply(W, x, w):
        return made(len(x) * read(w) * W.shape[-1], len(x), *w.out_size, W.shape[-1])

    def transport(B, u, w):
        return made(len(u) * read(w) * B.shape[-1], len(u), *w.in_shape)

    def shared(x, u, w):
        return made(len(x) * read(w) * u.shape[-1], *w.kernel, w.in_shape[2], u.shape[-1])

    def local(x, u, w):
        return made(len(x) * read(w) * u.shape[-1], *w.out_size, math.prod(w.kernel) * w.in_shape[2], u.shape[-1])

    return BITS._replace(
        dense_apply=lambda W, x: made(len(x) * W.size, len(x), len(W)),
        dense_transport=lambda B, u: made(len(u) * B.size, len(u), B.shape[1]),
        dense_correlate=lambda x, u: made(x.size * u.shape[1], u.shape[1], x.shape[1]),
        conv_apply=apply, conv_transport=transport, conv_correlate=shared,
        local_apply=apply, local_transport=transport, local_correlate=local,
    )  # fmt: skip
