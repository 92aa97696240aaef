"""Level 0: what algorithms are made of, judged by its rounding errors.

Here are the functions of the array namespace that the library calls, each alone, as a backend brings them, too. Kernels
are asked in modules of their own.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from ref_bioplaus.conformance.cases.cases import as_held
from ref_bioplaus.conformance.checks.alone import operations, sizes, synapses, updates, values
from ref_bioplaus.conformance.checks.alone.asking import COMPILED, Question, as_drawn, question
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding
from ref_bioplaus.kernels import rotate_left, shift_right

RANGE = {"tanh": 50.0, "exp": 85.0, "expm1": 85.0, "abs": 1e30, "sign": 1e30, "ceil": 1e4}  # the largest argument
SMALLEST = [0.0, 2.0**-126, -1e-30]
CALLS = 70  # of what nothing but metrics calls, seldom
NUMBERS = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, -0.5, 1.0, -2.5, 3.0])
PAIRS = np.stack(np.meshgrid(NUMBERS, NUMBERS), axis=0).reshape(2, -1)
WORDS = np.array([0, 1, -1, 2**31 - 1, -(2**31), 0x1BD11BDA, -0x1BD11BDA, 12345, -7], np.int32)
WORD_PAIRS = np.stack(np.meshgrid(WORDS, WORDS), axis=0).reshape(2, -1)


def named(*names: str) -> Callable[..., dict[str, Any]]:
    """Functions of one array, by their names in the namespace."""
    return lambda _, x: {name: getattr(array_namespace(x), name)(x) for name in names}


def elementwise() -> Iterator[Question]:
    """Functions of one number, over tables from the tiny to the large, with exact zeros; and of what is not finite."""
    for name, largest in RANGE.items():
        kinds: dict[str, Any] = {
            "": lambda x, n=largest: (np.concatenate([values.table(n), x]),), "about 2": lambda x: (2.0 + 0.1 * x,)
        }  # fmt: skip
        if name in ("tanh", "exp", "expm1"):
            kinds["overflowing"] = lambda x, n=largest: (np.resize([1e4, -1e4], values.table(n).size + x.size),)
        yield question(f"elementwise/{name}", ((64,),), named(name), kinds)
    for name in ("log", "log1p", "sqrt"):
        positive = {"": lambda x: (np.concatenate([np.abs(values.table(1e30)[1:]) + 1e-30, np.abs(x) + 1e-3]),)}
        yield question(f"elementwise/{name}", ((64,),), named(name), positive, bounds=1.0)
    yield question("elementwise/arithmetic", ((5, 31), (5, 31)), arithmetic, {
        "": as_drawn, "large": values.scaled(1e20, 1e15), "tiny": values.scaled(1e-20, 1e-15),
        "large by tiny": values.scaled(1e20, 1e-15)})  # fmt: skip
    yield question("elementwise/choices", ((2, 10, 11),), choices, {
        "": lambda x: tuple(x), "ties": lambda x: tuple(values.tied(x)), "far apart": lambda x: (1e30 * x[0], x[1]),
        "far from 0": lambda x: tuple(4000.0 + 16.0 * values.tied(x)),
        "tiny": lambda x: [np.resize(a, x.shape[1:]) for a in (values.TINY, SMALLEST)],
        "tiny, turned": lambda x: [np.resize(a, x.shape[1:]) for a in (SMALLEST, values.TINY)]})  # fmt: skip
    for name in ("tanh", "exp", "expm1", "abs", "sign", "ceil", "log", "log1p", "sqrt"):
        yield question(f"elementwise/{name}/not finite", ((10,),), named(name), {"": lambda x: (NUMBERS,)}, COMPILED)
    often = {str(i): lambda x, y, i=i: (np.abs(values.tied(np.roll(x, i))), np.abs(y)) for i in range(CALLS)}
    yield question("elementwise/atan2", ((9, 131), (9, 131)), quadrant, often)
    for name, compute in {"arithmetic": arithmetic, "choices": choices}.items():
        kinds = {"": lambda x: tuple(PAIRS)}
        yield question(f"elementwise/{name}/not finite", ((1,),), compute, kinds, COMPILED)


def quadrant(_: Any, x: Any, y: Any) -> dict[str, Any]:
    """Angles from 0 to a right one, as the metrics ask for."""
    xp = array_namespace(x)
    given = {
        "angle": (x, y),
        "of a row": (x[:1, :], y[:1, :]),
        "of a column": (x[:, :1], y[:, :1]),
        "of a square": (x[:, : x.shape[0]], y[:, : x.shape[0]]),
        "of one": (x[0, 0], y[0, 0]),
    }
    return {name: xp.atan2(a, b) for name, (a, b) in given.items()}


def arithmetic(_: Any, x: Any, y: Any) -> dict[str, Any]:
    """Two arrays, and an array with Python numbers, on either side."""
    return {"x + y": x + y, "x * y": x * y, "x / y": x / y, "x - y": x - y, "-x": -x, "2 x": 2.0 * x, "x 0.1": x * 0.1,
            "1 - x": 1.0 - x, "x - 1": x - 1.0, "x + 1": x + 1.0, "x / 3": x / 3.0, "1 / x": 1.0 / x}  # fmt: skip


def choices(_: Any, x: Any, y: Any) -> dict[str, Any]:
    """Comparisons, the larger and the smaller of two, and one of two."""
    xp = array_namespace(x)
    return {"x < y": x < y, "x <= y": x <= y, "x > y": x > y, "x >= y": x >= y, "x == y": x == y, "x != y": x != y,
            "maximum": xp.maximum(x, y), "minimum": xp.minimum(x, y), "where": xp.where(x > y, x, y),
            "where not": xp.where(x == x, xp.zeros_like(x), y), "as numbers": xp.astype(x > y, x.dtype)}  # fmt: skip


def products() -> Iterator[Question]:
    """Products and sums, with what is far from 0, sparse, large and tiny."""

    def matmul(_, x, y):
        return {"xy": array_namespace(x).matmul(x, y)}

    kinds: dict[str, Any] = {"": as_drawn, "far from 0": values.moved(True, True),
    "large by tiny": values.scaled(1e20, 1e-20),
             "sparse": values.changing(values.sparse, values.sparse), "one-hot": values.changing(values.one_hot),
             "NaN": values.changing(values.with_one(np.nan)),
             "NaN times 0": values.changing(values.zero, values.with_one(np.nan)),
             "infinite": values.changing(None, values.with_one(np.inf))}  # fmt: skip
    yield question("products/matmul", ((7, 33), (33, 5)), matmul, kinds)
    yield question("products/batched", ((2, 3, 4, 9), (2, 3, 9, 5)), matmul, kinds)
    yield question("products/broadcast", ((3, 1, 4, 9), (2, 9, 5)), matmul)
    yield question(
        "products/tensordot", ((4, 3, 5), (3, 5, 2)), lambda _, x, y: {"xy": array_namespace(x).tensordot(x, y, axes=2)}
    )
    yield question("products/long", ((3, 1500), (1500, 2)), matmul, modes=COMPILED)
    kinds = {"": as_drawn, "far from 0": values.moved(True), "large": values.scaled(1e30),
             "tiny": values.scaled(1e-30), "ties": values.changing(values.tied),
             "below -1e30": lambda x: (-1e31 - 1e30 * x**2,),
             "NaN": values.changing(values.with_one(np.nan)), "infinite": values.changing(values.with_one(-np.inf)),
             "both infinities": lambda x: (np.where(x > 1.5, np.inf, np.where(x < -1.5, -np.inf, x)),)}  # fmt: skip
    yield question("products/sums", ((6, 5, 4, 3),), sums, kinds)
    yield question("products/largest", ((6, 5, 4, 3),), largest, kinds)


def sums(_: Any, x: Any) -> dict[str, Any]:
    """Sums and means over all kinds of axes."""
    xp = array_namespace(x)
    axes: list[Any] = [0, 1, 2, 3, -1, (0, 1), (1, 2), (0, 1, 2), (0, 3)]
    found = {f"{f} over {a}": getattr(xp, f)(x, axis=a) for f in ("sum", "mean") for a in axes}
    return found | {"sum": xp.sum(x), "kept": xp.sum(x, axis=-1, keepdims=True), "mean": xp.mean(x)}


def largest(_: Any, x: Any) -> dict[str, Any]:
    """The largest along an axis, and where it is."""
    xp = array_namespace(x)
    found = {f"{f} along {a}": getattr(xp, f)(x, axis=a) for f in ("max", "argmax") for a in range(4)}
    kept = {f"{f} along 3, kept": getattr(xp, f)(x, axis=3, keepdims=True) for f in ("max", "argmax")}
    return found | kept | {"max along -1": xp.max(x, axis=-1), "max along -1, kept": xp.max(x, axis=-1, keepdims=True)}


def moving(_: Any, x: Any, y: Any, i: Any) -> dict[str, Any]:
    """Rearrangements of x (4, 5, 3) and y (4, 5, 3), and entries i of them."""
    xp = array_namespace(x)
    where = {"dtype": x.dtype, "device": device(x)}
    return {
        "reshaped": xp.reshape(x, (-1, 6)), "turned": xp.permute_dims(x, (2, 0, 1)), "mT": xp.matrix_transpose(x),
        "expanded": xp.expand_dims(x, axis=1), "concat 0": xp.concat([x, y], axis=0),
        "concat 1": xp.concat([x, y, x], axis=1),
        "stack 0": xp.stack([x, y], axis=0), "stack 3": xp.stack([x, y], axis=3), "taken": xp.take(x, i, axis=1),
        "flipped": xp.flip(x, axis=1), "broadcast": xp.broadcast_to(x[:, None, :, :1], (4, 2, 5, 3)),
        "every second": x[::2, 1::3, ...], "last": x[..., -1], "row": x[1, ...], "some": x[1:3, :, None, 0:2],
        "full": xp.full((2, 3), 0.3, **where), "zeros": xp.zeros((2, 3), **where), "filled": xp.full_like(x, -2.5),
        "zeros like": xp.zeros_like(x), "ones like": xp.ones_like(x), "filled otherwise": xp.full_like(x, 7.0),
        "full of others": xp.full((2, 3), -8.0, **where),
        "a column full": xp.full((3, 1), 5.0, **where), "a cube full": xp.full((2, 3, 2), 6.0, **where),
        "as it is": xp.astype(x, x.dtype),
        "given": xp.asarray([[1.0, 2.0, 0.5], [3.0, -4.0, 0.0]], **where),
        "a cube given": xp.asarray([[[1.0, 2.0], [math.inf, 4.0]], [[math.nan, 6.0], [7.0, -math.inf]]], **where),
        "from integers": xp.astype(i, x.dtype), "counted": xp.arange(7, dtype=xp.int32, device=device(x)),
    }  # fmt: skip


def integers(_: Any, a: Any, b: Any) -> dict[str, Any]:
    """The int32 arithmetic of random bits and counters, which wraps."""
    xp = array_namespace(a)
    return {
        "a + b": a + b, "a - b": a - b, "a * b": a * b, "a + 1": a + 1, "2 a": 2 * a, "1 - a": 1 - a, "a ^ b": a ^ b,
        "a & b": a & b, "a | b": a | b, "a ^ parity": a ^ 0x1BD11BDA, "a & 255": a & 255, "a // 7": a // 7,
        "a < b": a < b, "a >= b": a >= b, "a == b": a == b, "a >= 3": a >= 3, "chosen": xp.where(a < b, a, b),
        "carried": xp.astype(a < b, xp.int32), "zeros": xp.zeros_like(a),
        "joined": xp.concat([a[:2], b[:2]]), "filled": xp.full_like(a, -3),
    } | {f"{f.__name__} by {r}": f(a, r) for f in (rotate_left, shift_right) for r in (1, 5, 13, 16, 29, 31)} | {
        f"moved by {r}": (a << r) | (a >> r) for r in (1, 8, 31)
    }  # fmt: skip


def moves() -> Iterator[Question]:
    """What moves numbers, and integers: exact."""

    def index(x, y):
        return x, y, np.array([4, 0, 2, 2, 1, 3, 0], np.int32)

    def not_finite(x, y):
        return index(np.where(x > 1, np.nan, np.where(x < -1, np.inf, x)), y)

    yield question("moves/floats", ((4, 5, 3), (4, 5, 3)), moving, {"": index, "not finite": not_finite})
    yield question("moves/integers", ((1,),), integers, {"": lambda x: tuple(WORD_PAIRS)})


def precision_check() -> Check:
    """Products have the precision that the backend claims, found by multiplying, not by asking."""

    def run(subject: Subject, mode: str) -> Finding:
        if subject.dtype != "float32":
            return Finding(unsupported=f"precision is a policy of float32 products, not of {subject.dtype}")
        found, claimed = subject.backend.probe(), subject.backend.precision
        return Finding(problem="" if found == claimed else f"products are in {found}, but the backend claims {claimed}")

    return Check("0/products/precision", 0, "products", run, ("compiled",))


def constant_check() -> Check:
    """A product of constants, whose roundings are not independent: within the rigorous error bound."""

    def compute(x, y):
        xp = array_namespace(x)
        return {"xy": xp.matmul(x, y), "sum": xp.sum(x, axis=1)}

    def run(subject: Subject, mode: str) -> Finding:
        backend = subject.backend
        x, y = (as_held(np.full(shape, value), subject.dtype) for shape, value in (((3, 700), 0.1), ((700, 2), 0.3)))
        space = Rounding(PRECISIONS[subject.dtype, backend.precision], subject.dtype)
        tensors = compute(space.exact(x), space.exact(y))
        got = subject.runs(compute, mode)(backend.asarray(x), backend.asarray(y))
        for name, tensor in tensors.items():
            excess = np.abs(backend.to_numpy(got[name]).astype(np.float64) - tensor.v) / tensor.b
            if not np.all(excess <= 1.0):
                return Finding(
                    problem=f"{name} of constants is {np.max(excess):.3g} times its rigorous error bound away"
                )
        return Finding()

    return Check("0/products/constants", 0, "products", run, ("eager", "compiled"))


def checks() -> tuple[Check, ...]:
    """Level 0, but for random bits, and how arrays come and steps run."""
    families = (
        elementwise, products, moves, synapses.questions, operations.questions, updates.questions, sizes.questions,
    )  # fmt: skip
    return precision_check(), constant_check(), *(q.check for family in families for q in family())
