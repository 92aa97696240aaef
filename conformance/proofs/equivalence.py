"""Is a mutant one at all? The right function and the wrong one on random inputs that are not the suite's.

It is equivalent where none of EQUIVALENT inputs tells the two apart: to the bit, or to within the judge's score where
something is computed. Every second input has the shapes of the one before, so that what remembers can go wrong; what a
function writes into its arguments, or into what it returned before, tells it apart, too.
"""

import operator
from collections.abc import Callable
from typing import Any

import array_api_compat.numpy as compat
import numpy as np

from ref_bioplaus import kernels as portable
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.conformance.judging.judge import LIMIT, score
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding
from ref_bioplaus.conformance.proofs.generated import Mutant, Target
from ref_bioplaus.conformance.proofs.samplers import KERNELS, Rng, Sampler, any_array, lengths, numbers, positive, whole
from ref_bioplaus.random import normal_table
from ref_bioplaus.tree import leaves, tree_map
from ref_bioplaus.types import Array, Tree

EQUIVALENT = 10_000  # inputs
ENOUGH = 100  # that differ, to say which share does
MODES = ("eager", "compiled", "donating")
COMPUTED: dict[str, Callable] = {  # operators
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
}  # fmt: skip


def compared(mutant: Mutant, most: int = EQUIVALENT) -> tuple[int, int]:
    """(inputs tried, how many differ); (0, 0) where there is no sampler."""
    target, mode = mutant.target, ["eager"]
    sampler = SAMPLERS.get(target.place, {}).get(target.name)
    if sampler is None:
        return 0, 0
    right = original(target)
    wrong = mutant.drawn(lambda: mode[-1]).wrap(right)
    if target.name == "normal_table":
        right, wrong = (lambda i, t=t: t[i] for t in (right, wrong))
    rng, tried, found, before = np.random.default_rng([mutant.seed, mutant.number]), 0, 0, ((), ())
    with np.errstate(all="ignore"):
        while tried < most and found < ENOUGH:
            arguments = sampler(rng)
            for given in (arguments, tree_map(moved, arguments)):
                mode.append(MODES[tried % 3])
                copy = tree_map(copied, given)
                expected = run(right, tree_map(copied, given))
                try:
                    got = run(wrong, given)
                except Exception:  # whatever a wrong function raises where the right one did not
                    got = None
                written = not same(given, copy) or not same(*before)
                before = got, tree_map(copied, got)
                found += written or not agree(target, copy, expected, got)
                tried += 1
    return tried, found


def run(function: Callable, given: tuple) -> Tree:
    """What it makes of what a sampler draws: arguments, and a dict of options at their end or none."""
    *arguments, last = given
    return function(*arguments, **last) if isinstance(last, dict) else function(*given)


def original(target: Target) -> Any:
    """The right function, or table."""
    if target.name == "normal_table":
        return normal_table()
    if target.place == "kernels":
        return getattr(portable, target.name)
    if target.place == "xp":
        return getattr(compat, target.name)
    if target.place == "operator":
        return getattr(np, target.name)
    if target.name in ("eager", "wrap", "wrap_donating"):
        return lambda *arrays: tree_map(lambda a: a * 2, arrays)
    return getattr(NumpyBackend(compat, "cpu", "float32", "ieee", "portable"), target.name)


def copied(a: Any):
    """A copy of an array in its own order; other leaves as they are."""
    return np.array(a, order="K") if isinstance(a, np.ndarray) else a


def moved(a: Any):
    """An array of the shape with other values, that are as good; other leaves as they are."""
    if not isinstance(a, np.ndarray):
        return a
    turned = np.roll(a.ravel(), 1).reshape(a.shape)
    return turned * np.float32(0.75) if a.dtype == np.float32 else turned


def same(a: Tree, b: Tree) -> bool:
    """Whether two trees hold the same arrays, to the bit but for what kind of NaN."""
    one, other = ([x for x in leaves(t) if isinstance(x, np.ndarray | np.generic)] for t in (a, b))
    return len(one) == len(other) and all(map(equal, one, other))


def equal(a: Array, b: Array) -> bool:
    """Whether two arrays are the same."""
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def agree(target: Target, given: tuple, expected: Tree, got: Tree) -> bool:
    """Whether a result is right: the same, or by the judge's score."""
    if same(expected, got):
        return True
    pairs = list(zip(leaves(expected), leaves(got), strict=False))
    if len(leaves(expected)) != len(leaves(got)) or any(a.dtype != b.dtype or a.shape != b.shape for a, b in pairs):
        return False
    space = Rounding(PRECISIONS["float32", "ieee"], "float32")
    try:
        judged = leaves(run(reference(target, space), tree_map(lambda a: space.exact(a) if is_array(a) else a, given)))
    except (AttributeError, KeyError, TypeError, ValueError):  # it is not computed, or not by the judge
        return False
    if space.undecidable:
        return True
    return all(score("", e, np.asarray(b), space.precision.tiny).score <= LIMIT
               for e, (_, b) in zip(judged, pairs, strict=True))  # fmt: skip


def is_array(a: Any) -> bool:
    """Whether a leaf is an array."""
    return isinstance(a, np.ndarray)


def reference(target: Target, space: Rounding) -> Callable:
    """The right function on arrays that know their errors."""
    if target.place == "kernels":
        return getattr(portable, target.name)
    if target.place == "xp":
        return getattr(space, target.name)
    return COMPUTED[target.name]


# Inputs of a namespace's functions, of its arrays' operators, and of a backend's methods


def axis_of(a: Array, rng: Rng) -> int:
    """One of its axes."""
    return int(rng.integers(a.ndim))


def of_one(domain: Callable[[Array], Array]) -> Sampler:
    """An array that lies in a domain."""
    return lambda rng: (domain(any_array(rng)),)


def of_two(rng: Rng) -> tuple:
    """Two arrays of a shape, or one and a row or a number."""
    a = any_array(rng)
    b = (numbers(rng, *a.shape), numbers(rng, *a.shape[-1:]), float(rng.normal()))[rng.integers(3)]
    return (a, b) if rng.random() < 0.8 or isinstance(b, float) else (a, a)


def of_two_whole(rng: Rng) -> tuple:
    """Two arrays of 32 bits."""
    n = lengths(rng, 1)
    return whole(rng, *n), whole(rng, *n)


def shifted(rng: Rng) -> tuple:
    """An array of 32 bits, and by how many."""
    return whole(rng, *lengths(rng, 1)), int(rng.integers(1, 32))


def matrices(rng: Rng) -> tuple:
    """For a product, one of them transposed or not, or stacks of them."""
    n, i, o = lengths(rng, 3)
    stack = tuple(int(k) for k in rng.integers(1, 4, size=rng.integers(0, 3))) if n * i * o < 10_000 else ()
    x = numbers(rng, *stack, n, i) if rng.random() < 0.6 else np.swapaxes(numbers(rng, *stack, i, n), -1, -2)
    return x, numbers(rng, *stack, i, o)


def reshaped(rng: Rng) -> tuple:
    """An array and another shape."""
    a = any_array(rng)
    return a, ((-1,), (a.shape[0], -1), (*a.shape, 1), (1, a.size))[rng.integers(4)]


def reduced(rng: Rng) -> tuple:
    """An array without what is not finite in a float, and axes."""
    a = any_array(rng)
    axes = (None, axis_of(a, rng), tuple(range(a.ndim - 1)) or None)[rng.integers(3)]
    return a, {"axis": axes}


def along(rng: Rng) -> tuple:
    """An array and an axis."""
    a = any_array(rng)
    return a, {"axis": axis_of(a, rng)}


def several(rng: Rng) -> tuple:
    """Arrays of a shape, and an axis."""
    a = any_array(rng)
    return [a, *(numbers(rng, *a.shape) for _ in range(rng.integers(0, 4)))], {"axis": axis_of(a, rng)}


def taken(rng: Rng) -> tuple:
    """A table and which of it."""
    a = any_array(rng)
    return a, rng.integers(0, a.shape[0], size=lengths(rng, 1)).astype(np.int32), {"axis": 0}


def chosen(rng: Rng) -> tuple:
    """A mask and two arrays."""
    a = any_array(rng)
    return rng.random(a.shape) < 0.5, a, numbers(rng, *a.shape)


def held(rng: Rng) -> Array:
    """Floats or whole numbers."""
    return any_array(rng) if rng.random() < 0.7 else whole(rng, *lengths(rng, 1))


def broadcast(rng: Rng) -> tuple:
    """An array and what shape it gets."""
    a = any_array(rng)
    return a, (int(rng.integers(1, 5)), *a.shape)


def truths(rng: Rng) -> tuple:
    """Of some arrays."""
    a = any_array(rng)
    return (a > 0 if rng.random() < 0.5 else np.full(a.shape, rng.random() < 0.5),)


FUNCTIONS: dict[str, Sampler] = {
    **dict.fromkeys(("abs", "exp", "expm1", "sign", "ceil", "tanh", "zeros_like", "ones_like"), of_one(lambda a: a)),
    **dict.fromkeys(("log", "log1p", "sqrt"), lambda rng: (positive(rng, *lengths(rng, int(rng.integers(1, 4)))),)),
    **dict.fromkeys(("maximum", "minimum", "atan2"), of_two),
    **dict.fromkeys(("sum", "mean", "max"), reduced),
    **dict.fromkeys(("argmax", "argsort", "expand_dims"), along),
    **dict.fromkeys(("concat", "stack"), several),
    **dict.fromkeys(("any", "all"), truths),
    "matmul": matrices, "matrix_transpose": lambda rng: (numbers(rng, *lengths(rng, int(rng.integers(2, 5)))),),
    "reshape": reshaped, "take": taken, "where": chosen, "broadcast_to": broadcast,
    "permute_dims": lambda rng: (a := any_array(rng), tuple(int(i) for i in rng.permutation(a.ndim))),
    "astype": lambda rng: (held(rng), (np.float32, np.float64, np.int32)[rng.integers(3)]),
    "asarray": lambda rng: (held(rng),), "arange": lambda rng: (lengths(rng, 1)[0], {"dtype": np.int32}),
    "zeros": lambda rng: (tuple(lengths(rng, int(rng.integers(0, 4)))), {"dtype": np.float32}),
    "full": lambda rng: (tuple(lengths(rng, int(rng.integers(0, 4)))), float(rng.normal()), {"dtype": np.float32}),
    "full_like": lambda rng: (any_array(rng), float(rng.normal())),
}  # fmt: skip
SAMPLERS: dict[str, dict[str, Sampler]] = {
    "kernels": KERNELS,
    "xp": FUNCTIONS,
    "operator": {
        **dict.fromkeys(("add", "subtract", "multiply", "divide", "less", "greater_equal", "equal"), of_two),
        "negative": of_one(lambda a: a),
        **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), of_two_whole),
        **dict.fromkeys(("left_shift", "right_shift"), shifted),
    },
    "backend": {
        "asarray": lambda rng: (held(rng), (None, "float32", "float64")[rng.integers(3)]),
        "to_numpy": lambda rng: (held(rng),),
        "key": lambda rng: (int(2.0 ** rng.uniform(0, 62.9)),),
        "batch": lambda rng: (a := any_array(rng), numbers(rng, a.shape[0], 3)),
        **dict.fromkeys(("eager", "wrap", "wrap_donating"), lambda rng: (any_array(rng), whole(rng, 2), held(rng))),
    },
}  # fmt: skip
