"""Level 0: sizes. Kernels work in tiles, chunks and vectors of so many numbers; what is left over is easily forgotten.

Along every axis the powers of 2 up to 1024 and what is one below and above. Dense maps take one axis at a time; where a
compiler takes long, several axes of one shape have such sizes, packed so that every size of every axis occurs.
Then some with several axes of hundreds, and some larger than a chunk of ours (kernels.COLUMNS, and the constants of the
native kernels) with a rest. All faces of a map at one size are one function, which meets the sizes one after the other,
and some of them again with other numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from ref_bioplaus import local
from ref_bioplaus.conformance.cases.cases import root
from ref_bioplaus.conformance.checks.alone import operations, synapses
from ref_bioplaus.conformance.checks.alone.asking import COMPILED, Call, Prepare, Question, as_drawn
from ref_bioplaus.kernels import Kernels
from ref_bioplaus.linear import Dense, conv, locally_connected
from ref_bioplaus.random import normal

SIZES = tuple(sorted({2**k + d for k in range(11) for d in (-1, 0, 1)} - {0}))
PACKED = (*range(1, 10), 15, 16, 17, 31, 33, 63, 65, 127, 129, 255, 257, 511, 513, 1025)  # of packed shapes
BATCHES = (6, 1, 5, 6, 2, 33, 7, 101)  # in this order
ALL = range(1, 130)  # batches, where no library compiles each
KERNEL = (2, 2)
FILLERS = (3, 2, 1, 5)
PERIOD = 100_003  # numbers are drawn once in so many: a prime, which no tile divides
AGAIN = 5  # one in so many sizes is asked again, with other numbers
LARGE = (65535, 65536, 65537, 131075, 2**18 + 1)

Shapes = Callable[..., Sequence[tuple[int, ...]]]  # sizes -> the arguments' shapes


def numbers(name: str, shapes: Sequence[tuple[int, ...]], seed: int) -> tuple[np.ndarray, ...]:
    """Normal numbers of some shapes, large ones by repetition."""
    drawn = (normal((root(seed), name, i), (min(prod(s), PERIOD),), np.float64) for i, s in enumerate(shapes))
    return tuple(np.resize(a, s) for a, s in zip(drawn, shapes, strict=True))


def sized(
    name: str, axes: str, compute: Callable[..., dict[str, Any]], shapes: Shapes, all_sizes: Iterable[tuple[int, ...]],
    change: Prepare = as_drawn, eagerly: Iterable[tuple[int, ...]] = (),
) -> Question:  # fmt: skip
    """A question over sizes. axes: their names, as in "samples, inputs, outputs"; change: of the normal numbers.

    eagerly: more sizes, where no library compiles each.
    """
    found = tuple(all_sizes)

    def calls(dtype: str) -> Iterator[Call]:
        for seed, some in enumerate((found, found[::AGAIN])):
            for size in some:
                label = ", ".join(f"{n} {axis}" for n, axis in zip(size, axes.split(", "), strict=True))
                yield Call(label + ", again" * seed, change(*numbers(name, shapes(*size), seed)))

    others = tuple(eagerly)

    def more(dtype: str) -> Iterator[Call]:
        for size in others:
            yield Call(f"{size[0]} samples", change(*numbers(name, shapes(*size), 2)))

    return Question(f"sizes/{name}", compute, calls, COMPILED, more=more)


def over_batches(
    name: str, axes: str, compute: Callable[..., dict[str, Any]], shapes: Shapes, *rest: int, change: Prepare = as_drawn
) -> Question:
    """A question over numbers of samples before other sizes, some of them again and again."""
    some, every = ([(n, *rest) for n in numbers] for numbers in (BATCHES, ALL))
    return sized(f"{name}/batches", axes, compute, shapes, some, change, every)


def one_axis(small: tuple[int, ...], axis: int) -> Iterator[tuple[int, ...]]:
    """Every size along one axis, the others small."""
    return ((*small[:axis], n, *small[axis + 1 :]) for n in SIZES)


def packed(axes: int, fits: Callable[..., bool]) -> list[tuple[int, ...]]:
    """Shapes that have every size along every axis: as many of them in one as fit, the largest first."""
    left, found = [list(PACKED) for _ in range(axes)], list[tuple[int, ...]]()
    while any(left):
        shape = [FILLERS[(len(found) + i) % len(FILLERS)] for i in range(axes)]
        for i in sorted(range(axes), key=lambda i: -max(left[i], default=0)):
            fitting = [n for n in left[i] if fits(*shape[:i], n, *shape[i + 1 :])]
            if fitting:
                shape[i] = max(fitting)
                left[i].remove(shape[i])
        found.append(tuple(shape))
    return found


# Synapses


def dense_faces(kernels: Kernels, W: Any, x: Any, u: Any) -> dict[str, Any]:
    """A dense map's three faces."""
    return synapses.faces(Dense(W.shape[1], W.shape[0]), kernels, W, x, u)


def dense_shapes(n: int, n_in: int, n_out: int) -> tuple[tuple[int, ...], ...]:
    """Of W, x and u."""
    return (n_out, n_in), (n, n_in), (n, n_out)


def dense_questions() -> Iterator[Question]:
    """One axis at a time; several at once; and longer than any tile."""
    axes = "samples, inputs, outputs"
    several = [
        (211, 307, 251), (65, 65, 65), (64, 64, 64), (33, 131, 129), (257, 66, 127), (3, 512, 511), (3, 512, 512),
        (3, 512, 513), (2, 1021, 257), (513, 512, 3), (2, 65537, 3), (65537, 3, 2), (2, 3, 65537), (1, 4099, 1),
        (13, 13, 13), (19, 19, 5), (5, 23, 23), (23, 5, 23),
    ]  # fmt: skip
    lists = {name: one_axis((3, 5, 7), i) for i, name in enumerate(axes.split(", "))}
    for name, found in (lists | {"several": several}).items():
        yield sized(f"dense/{name}", axes, dense_faces, dense_shapes, found)
    yield over_batches("dense", axes, dense_faces, dense_shapes, 5, 7)


PARTS = {"conv": conv, "locally_connected": locally_connected}
WINDOWED = "samples, rows, columns, channels in, channels out"


def window_shapes(kind: str, stride: tuple[int, int]) -> Shapes:
    """Of W, x and u."""

    def shapes(n, height, width, c_in, c_out):
        linear = PARTS[kind](c_out, KERNEL, stride).build((height, width, c_in))
        return linear.weight_shape, (n, *linear.in_shape), (n, *linear.out_shape)

    return shapes


def window_faces(kind: str, stride: tuple[int, int]) -> Callable[..., dict[str, Any]]:
    """A map's three faces on images of any size."""

    def compute(kernels, W, x, u):
        linear = PARTS[kind](u.shape[3], KERNEL, stride).build(tuple(x.shape[1:]))
        return synapses.faces(linear, kernels, W, x, u)

    return compute


def light(weights_by_window: bool) -> Callable[..., bool]:
    """Whether a shape costs the judge little: pixels and weights, and their products."""

    def fits(n, height, width, c_in, c_out):
        pixels, weights = n * height * width, 4 * c_in * c_out
        kept = weights * (height * width if weights_by_window else 1)
        return pixels * (4 * c_in + c_out) + kept <= 2**18 and pixels * weights <= 2**22

    return fits


def window_questions() -> Iterator[Question]:
    """Convolutions and locally connected maps, at stride 1 and with strides."""
    chunked = {"conv": [(131, 31, 29, 9, 2), (37, 31, 29, 33, 2), (19, 31, 29, 5, 33), (1, 61, 59, 73, 2)],
               "locally_connected": [(131, 31, 29, 9, 2)]}  # fmt: skip
    equal = [(5, 5, 5, 5, 5), (2, 7, 7, 2, 2), (6, 6, 3, 6, 2)]
    several = {"conv": [(5, 13, 11, 67, 131), (7, 17, 19, 37, 33), *equal],
               "locally_connected": [(5, 5, 7, 67, 33), (2, 1, 2, 255, 128), (2, 1, 2, 257, 128), *equal]}  # fmt: skip
    for kind in PARTS:
        shapes = packed(5, light(kind != "conv"))
        for name, stride, found in (
            ("stride 1", (1, 1), shapes[::2]), ("stride 2x1", (2, 1), shapes[1::2]),
            ("several", (1, 1), several[kind]), ("chunks", (1, 1), chunked[kind]),
        ):  # fmt: skip
            faces, of = window_faces(kind, stride), window_shapes(kind, stride)
            yield sized(f"{kind}/{name}", WINDOWED, faces, of, found)
        faces, of = window_faces(kind, (1, 1)), window_shapes(kind, (1, 1))
        yield over_batches(kind, WINDOWED, faces, of, 3, 5, 2, 3)


# Operations


def pooled(stride: tuple[int, int]) -> Callable[..., dict[str, Any]]:
    """Largest values and means of windows and images, forward and backward."""
    parts = {"largest": local.max_pool(KERNEL, stride, "same"), "mean": local.average_pool(KERNEL, stride, "same")}

    def compute(kernels, x, dy, dz):
        found: dict[str, Any] = {}
        for name, part in parts.items():
            for word, array in operations.forward_and_backward(part)(kernels, x, dy).items():
                found[f"{word} of {name}"] = array
        whole = operations.forward_and_backward(local.global_average_pool)(kernels, x, dz)
        found = {n: a for n, a in found.items() if "another" not in n}
        return found | {"y of the whole": whole["y"], "dx of the whole": whole["dx"]}

    return compute


def pool_shapes(stride: tuple[int, int]) -> Shapes:
    """Of images, errors at pools, and errors at means."""

    def shapes(n, height, width, channels):
        out = local.max_pool(KERNEL, stride, "same").build((height, width, channels)).out_shape
        return (n, height, width, channels), (n, *out), (n, channels)

    return shapes


def one_sign(x: np.ndarray, dy: np.ndarray, dz: np.ndarray) -> tuple[np.ndarray, ...]:
    """Errors that do not cancel where windows overlap: an order in which they do would have no error at all."""
    return x, np.abs(dy), dz


def normalised(kernels: Kernels, x: Any, dy: Any, gamma: Any, beta: Any) -> dict[str, Any]:
    """BatchNorm, with two errors from one cache."""
    found = operations.normalised(kernels, x, dy, gamma, beta, beta, gamma)
    return {name: a for name, a in found.items() if "another" not in name}


def norm_shapes(*sizes: int) -> tuple[tuple[int, ...], ...]:
    """Of x and its error, gamma and beta."""
    return sizes, sizes, sizes[-1:], sizes[-1:]


def pointwise(kernels: Kernels, x: Any, dy: Any, b: Any) -> dict[str, Any]:
    """Activations, sums of arrays and sums over samples."""
    found = {"sum": kernels.channel_sum(x, (0,)), "biased": kernels.add(x, b), "added": kernels.add(x, dy)}
    for name in ("tanh", "relu", "sigmoid", "rectified_tanh"):
        op = operations.with_kernels(operations.NONLINEARITIES[name].build(()), kernels)
        y = kernels.activation(op, x)
        found |= {name: y, f"dx of {name}": kernels.activation_backward(op, y, dy)}
    return found


def operation_questions() -> Iterator[Question]:
    """Pools, BatchNorm, activations and sums."""
    image, vector, small = "samples, rows, columns, channels", "samples, channels", 2**15
    images = packed(4, lambda *shape: prod(shape) <= small) + [(5, 5, 5, 5), (2, 7, 7, 2)]
    rows = packed(2, lambda *shape: prod(shape) <= small) + [(11, 11), (37, 37)]
    blocks = [(9363, 7), (65537, 1), (3, 70001), (65, 2003), (1, 65536), (131, 1031)]
    for name, stride, found in (
        ("stride 2x1", (2, 1), images),
        ("chunks", (1, 1), [(131, 31, 29, 9), (7, 31, 29, 73)]),
    ):  # fmt: skip
        yield sized(f"pools/{name}", image, pooled(stride), pool_shapes(stride), found, one_sign)
    yield over_batches("pools", image, pooled((1, 1)), pool_shapes((1, 1)), 3, 5, 2, change=one_sign)
    yield sized("batch_norm/images", image, normalised, norm_shapes, [*images[::2], (7, 31, 29, 73), (67, 31, 37, 1)])
    yield sized("batch_norm/vectors", vector, normalised, norm_shapes, [*rows, *blocks])
    yield over_batches("batch_norm", vector, normalised, norm_shapes, 5)

    def shapes(*sizes):
        return sizes, sizes, sizes[1:]

    yield sized("pointwise/vectors", vector, pointwise, shapes, [*rows, *blocks])
    yield sized("pointwise/long", vector, pointwise, shapes, [(n, 1) for n in LARGE] + [(1, n) for n in LARGE])
    yield over_batches("pointwise", vector, pointwise, shapes, 5)


# The namespace


def functions(_: Any, x: Any, y: Any) -> dict[str, Any]:
    """What the library calls most, on three axes."""
    xp = array_namespace(x)
    index = xp.arange(x.shape[2], dtype=xp.int32, device=device(x))
    word = (index + 12345) * 7919
    found = {f: getattr(xp, f)(x) for f in ("tanh", "exp", "expm1", "abs", "sign", "ceil")}
    found |= {f: getattr(xp, f)(y * y + 0.5) for f in ("log", "log1p", "sqrt")}
    for axis in range(3):
        found |= {f"{f} over {axis}": getattr(xp, f)(x, axis=axis) for f in ("sum", "max", "argmax")}
        found |= {
            f"concat along {axis}": xp.concat([x, y], axis=axis),
            f"expanded {axis}": xp.expand_dims(x, axis=axis),
        }
        found[f"flipped along {axis}"] = xp.flip(x, axis=axis)
    return found | {
        "x + y": x + y, "x - y": x - y, "x * y": x * y, "x / y": x / y, "-x": -x, "x < y": x < y, "x >= y": x >= y,
        "x == y": x == y, "where": xp.where(x > y, x, y), "maximum": xp.maximum(x, y), "minimum": xp.minimum(x, y),
        "over two": xp.sum(x, axis=(0, 1)), "mean over two": xp.mean(x, axis=(1, 2)), "mean": xp.mean(x, axis=0),
        "turned": xp.permute_dims(x, (2, 0, 1)), "reshaped": xp.reshape(x, (-1,)), "stack": xp.stack([x, y], axis=1),
        "transposed": xp.matrix_transpose(x), "taken": xp.take(x, index[::2], axis=2),
        "zeros": xp.zeros_like(x), "ones": xp.ones_like(x), "filled": xp.full_like(x, 2.5),
        "kept": xp.astype(x, x.dtype),
        "small": xp.astype(index & 127, x.dtype), "counted": index * 2 + 1, "moved": index << 3, "or": word | 8,
        "words": word ^ 255,
        "and": word & 0xFFFF, "right": word >> 3, "broadcast": xp.broadcast_to(x[:, :, None, :1], (*x.shape[:2], 3, 2)),
    }  # fmt: skip


def namespace_questions() -> Iterator[Question]:
    """Arrays of three axes."""
    cubes = [(7, 7, 7), (1025, 2, 3), (2, 1023, 1), (1, 3, 1025), (33, 17, 5), (3, 65, 33), (18, 1, 65), (129, 9, 2),
             (5, 257, 8), (2, 19, 19), (19, 19, 3), (1, 1, 1), (513, 1, 1), (4, 39, 31)]  # fmt: skip
    yield sized("namespace", "by, by, numbers", functions, lambda *size: (size, size), cubes)
    yield over_batches("namespace", "by, by, numbers", functions, lambda *size: (size, size), 3, 2)


# Optimizers: tensors of all sizes in one call


def tensors(arrays: Sequence[Any], lists: int) -> list[list[Any]]:
    """The arrays, dealt into so many lists."""
    n = len(arrays) // lists
    return [list(arrays[n * i : n * (i + 1)]) for i in range(lists)]


def descended(kernels: Kernels, *arrays: Any) -> dict[str, Any]:
    """Gradient descent with Nesterov's momentum."""
    p, g, v = tensors(arrays, 3)
    lists = kernels.sgd(p, g, v, [0.99, *[1.0] * (len(p) - 1)], 0.05, 0.9, True)
    return {f"{name}[{i}]": a for name, some in zip("pv", lists, strict=True) for i, a in enumerate(some)}


def adapted(kernels: Kernels, c1: Any, c2: Any, *arrays: Any) -> dict[str, Any]:
    """Adam."""
    p, g, m, v = tensors(arrays, 4)
    keep = [0.99, *[1.0] * (len(p) - 1)]
    squares, correction = [a * a for a in v], (0.0 * c1 + 0.271, 0.0 * c2 + 0.002997001)  # after 3 updates
    lists = kernels.adam(p, g, m, squares, keep, 0.05, correction, 0.9, 0.999, 1e-8, "paper")
    return {f"{name}[{i}]": a for name, some in zip("pmv", lists, strict=True) for i, a in enumerate(some)}


def only(scalars: list[tuple[()]], lists: int, n: int) -> tuple[tuple[int, ...], ...]:
    """Of lists of one tensor each."""
    return (*scalars, *((n,),) * lists)


def optimizer_questions() -> Iterator[Question]:
    """Every size as a tensor among others, in one call; every size as the only one; then larger ones."""
    small = [(n,) for n in SIZES] + [(3, 5, 7), (129, 65), (1, 1), (6, 6), (4, 4, 4)]
    large: list[tuple[int, ...]] = [(n,) for n in LARGE] + [(257, 257), (9363, 7)]
    for name, compute, lists in (("sgd", descended, 3), ("adam", adapted, 4)):
        scalars = [()] * (2 if lists == 4 else 0)
        alone = partial(only, scalars, lists)
        yield sized(f"{name}/alone", "numbers", compute, alone, [(n,) for n in (*PACKED, 65537)])
        for kind, shapes in (("small", small), ("large", large)):
            yield sized(f"{name}/{kind}", "calls", compute, lambda _, s=(*scalars, *shapes * lists): s, [(1,)])


def questions() -> Iterator[Question]:
    """All of them."""
    yield from namespace_questions()
    yield from dense_questions()
    yield from window_questions()
    yield from operation_questions()
    yield from optimizer_questions()
