"""What ways to be wrong are made of: a draw, and a function that makes the wrong function of the right one.

They know nothing of the suite, and wrap any function whose arguments and results are trees with NumPy arrays in them.
"""

from collections.abc import Callable
from functools import wraps
from random import Random
from typing import Any, NamedTuple

import numpy as np

from ref_bioplaus.tree import leaves, tree_map
from ref_bioplaus.types import Array

Wrap = Callable[[Callable], Callable]
SHIFT = 1e-2  # relative, of what is "scaled"


class Drawn(NamedTuple):
    """A mistake with its parameters: one line, and what makes a function wrong."""

    text: str
    wrap: Wrap


class Facts(NamedTuple):
    """What is known of a function before it is called: kinds that need what it lacks are not drawn for it."""

    takes: str = "f"  # kinds of NumPy dtypes among its arguments' arrays: f floats, i integers and bools
    gives: str = "f"  # among its results'
    options: tuple[str, ...] = ()  # parameters that are no arrays
    contracts: tuple[tuple[int, int], ...] = ()  # (argument, axis) that a sum runs over, where it runs over one
    sums: bool = False  # whether its result is a sum that somebody may take the mean for
    mode: Callable[[], str] = lambda: "eager"  # in which a step is run while it is called


class Kind(NamedTuple):
    """A way to be wrong."""

    name: str
    draw: Callable[[Random, Facts], Drawn]
    fits: Callable[[Facts], bool] = lambda facts: True
    tells_modes: bool = False  # whether it is not alike in all modes of a check


# Trees with arrays in them


def is_array(a: Any) -> bool:
    """Whether a leaf is an array, of no axes too (and no window, function or Python's number)."""
    return isinstance(a, np.ndarray | np.generic)


def each_array(change: Callable[[Array], Array]) -> Callable[[Any], Any]:
    """A change of arrays as one of trees."""
    return lambda tree: tree_map(lambda a: change(np.asanyarray(a)) if is_array(a) else a, tree)


def after(change: Callable[[Array], Array]) -> Wrap:
    """Changes what a function returns."""
    return lambda function: wraps(function)(lambda *a, **k: each_array(change)(function(*a, **k)))


def before(change: Callable[[Array], Array], which: int | None = None) -> Wrap:
    """Changes the arrays that a function is given: all of them, or that of number `which` (mod their count)."""

    def wrap(function):
        @wraps(function)
        def wrong(*arguments, **options):
            n = sum(is_array(a) for a in leaves(arguments))
            seen = iter(range(n))
            chosen = None if which is None or not n else which % n
            new = each_array(lambda a: change(a) if chosen in (None, next(seen)) else a)(arguments)
            return function(*new, **options)

        return wrong

    return wrap


def shapes(tree: Any) -> tuple:
    """What a cache may go by."""
    return tuple(a.shape if is_array(a) else type(a) for a in leaves(tree))


def size(tree: Any) -> int:
    """The batch: the first axis of the last array that has one."""
    found = [a.shape[0] for a in leaves(tree) if is_array(a) and a.ndim]
    return found[-1] if found else 0


def off(a: Array) -> Array:
    """Scaled; of integers the last bit turned, of bools all."""
    return a * a.dtype.type(1 + SHIFT) if a.dtype.kind == "f" else ~a if a.dtype.kind == "b" else a ^ a.dtype.type(1)


def spoiled(a: Array, axis: int, start: int, how: str, period: int = 0) -> Array:
    """An array that is wrong from an index of an axis on."""
    if not a.ndim or a.shape[axis % a.ndim] <= start or a.dtype.kind not in "fiub":
        return a
    new = np.array(a, order="K", subok=True)
    view, old = np.moveaxis(new, axis % a.ndim, 0), np.moveaxis(a, axis % a.ndim, 0)
    n = np.arange(start, old.shape[0])
    if how == "zero":
        view[start:] = 0
    elif how == "scaled":
        view[start:] = off(old[start:])
    else:
        view[start:] = old[n - 1 if how == "its neighbour's" else n % (period or start)]
    return new


def rounded(a: Array, bits: int) -> Array:
    """Floats with so many significant bits."""
    if a.dtype.kind != "f":
        return a
    with np.errstate(all="ignore"):
        mantissa, exponent = np.frexp(a)
        return np.ldexp(np.rint(mantissa * 2.0**bits), exponent - bits).astype(a.dtype)


def log_uniform(draw: Random, low: int, high: int) -> int:
    """A whole number from low to high, every octave as likely as another."""
    return min(int(low * ((high + 1) / low) ** draw.random()), high)


def either_side(draw: Random, facts: Facts, change: Callable[[Array], Array], kinds: str = "fib") -> tuple[str, Wrap]:
    """A change of the results, or of one of the arrays that come in: where there are such of these dtypes' kinds."""
    sides = [side for side, has in (("results", facts.gives), ("arguments", facts.takes)) if set(has) & set(kinds)]
    side = draw.choice(sides)
    which = draw.randrange(3)
    return ("its results", after(change)) if side == "results" else (f"argument {which}", before(change, which))
