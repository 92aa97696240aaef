"""The single kernels that are timed: the three faces, pooling, BatchNorm, random words, the optimizers."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ref_bioplaus.backends import Backend
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.windows import window

N = 128
CONV = window((16, 16, 64), 3)
STRIDED = window((32, 32, 64), 3, 2)
LOCAL = window((16, 16, 64), 5, 2)
POOL = window((24, 24, 64), 2, 2, "valid")
CHANNELS, UNITS, WORDS = 96, 1024, 1_000_000

NAMES = (
    "dense_apply", "dense_transport", "dense_correlate", "conv_apply", "conv_transport", "conv_correlate",
    "strided_conv_apply", "strided_conv_transport", "strided_conv_correlate", "local_apply", "local_transport",
    "local_correlate", "max_pool", "max_pool_backward", "batch_norm", "batch_norm_backward", "random_words", "sgd",
    "adam",
)  # fmt: skip


def primitive(name: str, backend: Backend, kernels: Kernels) -> Callable:
    """A kernel bound to its arrays, eager or compiled as the backend does it. Raises KeyError for another name."""
    return bound(name, backend, kernels, np.random.default_rng(0))


def bound(name: str, backend: Backend, kernels: Kernels, random: np.random.Generator) -> Callable:
    """See `primitive`."""

    def array(*shape):
        return backend.asarray(random.standard_normal(shape), "float32")

    def arrays(count=4):
        return [array(UNITS, UNITS) for _ in range(count)]

    geometry = STRIDED if name.startswith("strided") else LOCAL if name.startswith("local") else CONV
    face = name.removeprefix("strided_")
    signal = (N, *geometry.out_size, CHANNELS)
    filters = (*geometry.kernel, geometry.in_shape[2], CHANNELS)
    if name.startswith("local"):
        filters = (*geometry.out_size, filters[0] * filters[1] * filters[2], CHANNELS)
    if name.startswith("dense"):
        function, inputs = getattr(kernels, name), [array(UNITS, UNITS), array(N, UNITS)]
        if name == "dense_correlate":
            inputs[0] = array(N, UNITS)
        return wrapped(backend, function, *inputs)
    if face.endswith("_correlate"):
        return wrapped(backend, lambda x, u: getattr(kernels, face)(x, u, geometry),
                       array(N, *geometry.in_shape), array(*signal))  # fmt: skip
    if face.endswith("_apply") or face.endswith("_transport"):
        other = (N, *geometry.in_shape) if face.endswith("_apply") else signal
        return wrapped(backend, lambda W, a: getattr(kernels, face)(W, a, geometry), array(*filters), array(*other))
    x = array(N, *POOL.in_shape)
    if name == "max_pool":
        return wrapped(backend, lambda a: kernels.max_pool(a, POOL)[0], x)
    if name == "max_pool_backward":
        _, first = kernels.max_pool(x, POOL)
        dy = array(N, *POOL.out_size, POOL.in_shape[2])
        kept, whole = taken_apart(first)
        return wrapped(backend, lambda d, *c: kernels.max_pool_backward(whole(iter(c)), d, POOL), dy, *kept)
    gamma, beta = array(POOL.in_shape[2]), array(POOL.in_shape[2])
    if name == "batch_norm":
        return wrapped(backend, lambda a, g, b: kernels.batch_norm(a, g, b, 1e-5)[0], x, gamma, beta)
    if name == "batch_norm_backward":
        *_, cache = kernels.batch_norm(x, gamma, beta, 1e-5)
        kept, whole = taken_apart(cache)
        return wrapped(
            backend, lambda g, d, *c: kernels.batch_norm_backward(whole(iter(c)), g, d), gamma, array(*x.shape), *kept
        )
    if name == "random_words":
        return wrapped(backend, lambda key: kernels.random_words(key, 0, WORDS), backend.key(0))
    if name == "sgd":
        return wrapped(backend, lambda p, g, v: kernels.sgd(p, g, v, [1.0] * 4, 0.1, 0.9, False),
                       arrays(), arrays(), arrays())  # fmt: skip
    if name == "adam":
        one = backend.asarray(np.asarray(0.5), "float32")
        squares = [a * a for a in arrays()]
        return wrapped(
            backend, lambda p, g, m, v, c: kernels.adam(p, g, m, v, [1.0] * 4, 1e-3, (c, c), 0.9, 0.999, 1e-8, "paper"),
            arrays(), arrays(), arrays(), squares, one,
        )  # fmt: skip
    raise KeyError(f'primitive "{name}" is unknown, expected one of {", ".join(NAMES)}')


def taken_apart(cache: Any) -> tuple[list, Callable]:
    """What a kernel keeps for its backward pass: its arrays, and a function of an iterator over them that puts it
    together again. The rest of it, numbers, no compiled step takes as an argument."""
    if isinstance(cache, tuple):
        parts = [taken_apart(part) for part in cache]
        return [a for arrays, _ in parts for a in arrays], lambda given: tuple(whole(given) for _, whole in parts)
    if hasattr(cache, "shape") and hasattr(cache, "dtype"):
        return [cache], lambda given: next(given)
    return [], lambda given: cache


def wrapped(backend: Backend, function: Callable, *inputs) -> Callable:
    """The function as the backend runs it, of these inputs."""
    run = backend.wrap(function)
    return lambda: run(*inputs)


def both(backend: Backend) -> Iterator[tuple[str, Kernels]]:
    """The portable kernels, and the backend's own where it has some of its own."""
    yield "portable", PORTABLE._replace(normal_table=backend.kernels.normal_table)
    if backend.kernels.name != "portable":
        yield backend.kernels.name, backend.kernels
