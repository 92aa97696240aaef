"""The ways in which a function of arrays can be wrong, each with what it is drawn from; and ways to be right.

`fits` says of which functions a kind can be asked. What remembers something is wrapped anew for every function.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from random import Random
from typing import Any

import numpy as np

from ref_bioplaus.conformance.proofs.calls import (
    by_mode,
    dtype,
    from_a_call_on,
    ignored,
    in_memory_order,
    mean,
    reused,
    stale,
    swapped,
    windows,
    written,
)
from ref_bioplaus.conformance.proofs.mistakes import (
    Drawn,
    Facts,
    Kind,
    after,
    each_array,
    either_side,
    is_array,
    log_uniform,
    off,
    rounded,
    size,
    spoiled,
)
from ref_bioplaus.types import Array

LONGEST = 1025  # entries along an axis, up to which something may be right

# Sizes


def beyond(draw: Random, facts: Facts) -> Drawn:
    """Wrong from an index on."""
    axis, start = draw.choice((0, 1, 2, -1)), log_uniform(draw, 2, LONGEST)
    how = draw.choice(("zero", "repeated", "scaled", "its neighbour's"))
    where, wrap = either_side(draw, facts, lambda a: spoiled(a, axis, start, how))
    return Drawn(f"{where} from {start} on along axis {axis} are {how}", wrap)


def partial(draw: Random, facts: Facts) -> Drawn:
    """The last partial tile."""
    axis, tile = draw.choice((0, 1, 2, -1)), log_uniform(draw, 2, 256)
    how = draw.choice(("zero", "repeated"))

    def change(a):
        n = a.shape[axis % a.ndim] if a.ndim else 0
        return spoiled(a, axis, n - n % tile, how, tile) if n > tile and n % tile else a

    where, wrap = either_side(draw, facts, change)
    return Drawn(f"the last partial tile of {tile} along axis {axis} of {where} is {how}", wrap)


def last(draw: Random, facts: Facts) -> Drawn:
    """The last index of an axis, where there are enough."""
    axis, least = draw.choice((0, 1, 2, -1)), log_uniform(draw, 2, 64)
    how = draw.choice(("zero", "its neighbour's"))

    def change(a):
        n = a.shape[axis % a.ndim] if a.ndim else 0
        return spoiled(a, axis, n - 1, how) if n >= least else a

    where, wrap = either_side(draw, facts, change)
    return Drawn(f"the last along axis {axis} of {where} is {how} where there are {least} or more", wrap)


def batch_size(draw: Random, facts: Facts) -> Drawn:
    """One batch size, or all but the first that is seen."""
    first, n = draw.random() < 0.5, log_uniform(draw, 1, 65)

    def wrap(function):
        seen: list[int] = []

        @wraps(function)
        def wrong(*arguments, **options):
            here = size(arguments)
            seen.append(here)
            found = function(*arguments, **options)
            return each_array(off)(found) if (here != seen[0] if first else here == n) else found

        return wrong

    return Drawn("scaled for every batch size but the first" if first else f"scaled for a batch of {n}", wrap)


def single(draw: Random, facts: Facts) -> Drawn:
    """An axis of one entry."""
    axis = draw.choice((0, 1, -1))

    def change(a):
        return off(a) if a.ndim and a.shape[axis % a.ndim] == 1 else a

    where, wrap = either_side(draw, facts, change)
    return Drawn(f"{where} are scaled where axis {axis} has one entry", wrap)


# Values


def put(a: Array, where: Array, new: Any):
    """An array with something else in some places."""
    return np.asarray(np.where(where, new, a), a.dtype)


def values(draw: Random, facts: Facts) -> Drawn:
    """A range of values."""
    c = 10.0 ** draw.uniform(-1, 3)
    small, times = 10.0 ** draw.uniform(-6, -1), 10.0 ** draw.uniform(0, 2.5)

    def off_centre(a):
        with np.errstate(all="ignore"):
            far = a.size > 1 and abs(np.mean(a)) > times * np.std(a)
        return rounded(a, 10) if far else a

    table: dict[str, Callable[[Array], Array]] = {
        f"cut at {c:.3g}": lambda a: np.clip(a, -c, c),
        f"taken for 0 below {small:.2g}": lambda a: put(a, np.abs(a) < small, 0.0),
        "taken for 1e-3 where they are exactly 0": lambda a: put(a, a == 0, 1e-3),
        "scaled where they are negative": lambda a: put(a, a < 0, off(a)),
        "taken for 0 where they are NaN": lambda a: put(a, np.isnan(a), 0.0),
        "taken for 1e30 where they are infinite": lambda a: put(a, np.isinf(a), np.sign(a) * 1e30),
        f"of 10 bits where their mean is over {times:.3g} deviations": off_centre,
    }
    text, change = draw.choice(list(table.items()))
    of_floats = lambda a: change(a) if a.dtype.kind == "f" else a  # noqa: E731
    where, wrap = either_side(draw, facts, of_floats, "f")
    return Drawn(f"{where} are {text}", wrap)


def relative(draw: Random, facts: Facts) -> Drawn:
    """A little off, all of it or every second number."""
    error, every = draw.choice((1e-4, 1e-3)), draw.choice((1, 2))

    def change(a):
        if a.dtype.kind != "f":
            return a
        places = np.arange(a.size).reshape(a.shape) % every == 0
        return put(a, places, a * a.dtype.type(1 + error))

    return Drawn(f"off by {error:g}" + (", every second number" if every == 2 else ""), after(change))


def precision(draw: Random, facts: Facts) -> Drawn:
    """Fewer bits."""
    bits = draw.choice((7, 10, 11, 16))
    where, wrap = either_side(draw, facts, lambda a: rounded(a, bits + 1), "f")
    return Drawn(f"{where} have {bits} bits behind the point", wrap)


def accumulator(draw: Random, facts: Facts) -> Drawn:
    """A sum in chunks whose partial sums lose bits."""
    bits, chunk = draw.choice((8, 11, 16)), log_uniform(draw, 1, 64)

    def wrap(function):
        @wraps(function)
        def wrong(*arguments, **options):
            if any(not is_array(arguments[i]) or not arguments[i].ndim for i, _ in facts.contracts):
                return function(*arguments, **options)
            axes = [(i, axis % arguments[i].ndim) for i, axis in facts.contracts]
            n, total = arguments[axes[0][0]].shape[axes[0][1]], None
            for start in range(0, n, chunk):
                parts = list(arguments)
                for i, axis in axes:
                    parts[i] = np.take(arguments[i], np.arange(start, min(start + chunk, n)), axis=axis)
                found = function(*parts, **options)
                total = found if total is None else rounded(total + found, bits)
            return total

        return wrong

    return Drawn(f"summed in chunks of {chunk} whose sums have {bits} bits", wrap)


def floats(facts: Facts) -> bool:
    """Whether floats come out."""
    return "f" in facts.gives


KINDS: Sequence[Kind] = (
    Kind("beyond a size", beyond),
    Kind("last partial tile", partial),
    Kind("last of an axis", last),
    Kind("batch size", batch_size),
    Kind("axis of one", single),
    Kind("range of values", values, lambda facts: "f" in facts.takes),
    Kind("a little off", relative, floats),
    Kind("lower precision", precision, floats),
    Kind("accumulator", accumulator, lambda facts: bool(facts.contracts)),
    Kind("stale result", stale, lambda facts: bool(facts.takes)),
    Kind("from a call on", from_a_call_on),
    Kind("memory used again", reused),
    Kind("writes into an argument", written, lambda facts: bool(facts.takes)),
    Kind("order in memory", in_memory_order, lambda facts: bool(facts.takes), tells_modes=True),
    Kind("dtype", dtype),
    Kind("one mode", by_mode, tells_modes=True),
    Kind("axes swapped or turned", swapped),
    Kind("window misread", windows, lambda facts: "window" in facts.options),
    Kind("option ignored", ignored, lambda facts: bool(set(facts.options) - {"window"})),
    Kind("mean for a sum", mean, lambda facts: facts.sums),
)


# Right


def last_place(draw: Random, facts: Facts) -> Drawn:
    """The next number that there is; not for products of ones, by which a backend's precision is asked."""

    def change(a):
        return put(a, np.isfinite(a), np.nextafter(a, a.dtype.type(np.inf))) if a.dtype.kind == "f" else a

    return Drawn("off by one in the last place", after(change))


def other_order(draw: Random, facts: Facts) -> Drawn:
    """A sum from its end."""

    def wrap(function):
        def right(*arguments, **options):
            turned = list(arguments)
            for i, axis in facts.contracts:
                turned[i] = np.flip(arguments[i], axis)
            return function(*turned, **options)

        return right

    return Drawn("summed from its end", wrap)


def wider(draw: Random, facts: Facts) -> Drawn:
    """Computed in float64."""

    def wrap(function):
        def right(*arguments, **options):
            wide = each_array(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a)(arguments)
            found = function(*wide, **options)
            return each_array(lambda a: a.astype(np.float32) if a.dtype == np.float64 else a)(found)

        return right

    return Drawn("computed in float64", wrap)


RIGHT: Sequence[Kind] = (
    Kind("as it is", lambda draw, facts: Drawn("as it is", lambda function: function)),
    Kind("last place", last_place, lambda facts: bool(facts.contracts)),
    Kind("other order", other_order, lambda facts: bool(facts.contracts)),
    Kind("wider", wider, lambda facts: bool(facts.contracts)),
)
