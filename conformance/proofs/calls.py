"""Wrong by what a call remembers, by where it writes, in which mode it is made, and by what it was told.

What remembers something is wrapped anew for every function.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from inspect import signature
from random import Random
from typing import Any

import numpy as np

from ref_bioplaus.conformance.proofs.mistakes import (
    Drawn,
    Facts,
    after,
    before,
    each_array,
    either_side,
    is_array,
    log_uniform,
    off,
    shapes,
    size,
)
from ref_bioplaus.tree import leaves
from ref_bioplaus.types import Array
from ref_bioplaus.windows import Window

# Memory


def stale(draw: Random, facts: Facts) -> Drawn:
    """The first result again."""
    where = draw.choice(("every shape", "the shape of its first argument"))

    def wrap(function):
        kept: dict[tuple, Any] = {}

        @wraps(function)
        def wrong(*arguments, **options):
            by = shapes(arguments if where == "every shape" else arguments[:1])
            found = kept.get(by)
            if found is None:
                found = kept[by] = function(*arguments, **options)
            new = function(*arguments, **options)  # of another shape, it would be seen at once
            return found if shapes(found) == shapes(new) else new

        return wrong

    return Drawn(f"the first result for {where}, again and again", wrap)


def from_a_call_on(draw: Random, facts: Facts) -> Drawn:
    """Right at first."""
    nth, forever = log_uniform(draw, 2, 64), draw.random() < 0.5

    def wrap(function):
        calls: list[None] = []

        @wraps(function)
        def wrong(*arguments, **options):
            calls.append(None)
            found = function(*arguments, **options)
            hit = len(calls) >= nth if forever else len(calls) == nth
            return each_array(off)(found) if hit else found

        return wrong

    return Drawn(f"scaled {'from call' if forever else 'at call'} {nth}{' on' if forever else ''}", wrap)


def reused(draw: Random, facts: Facts) -> Drawn:
    """One memory for the results of a shape: a later call writes over what an earlier one returned."""

    def wrap(function):
        memory: dict[tuple, Array] = {}

        @wraps(function)
        def wrong(*arguments, **options):
            places: list[None] = []

            def put(a):
                places.append(None)
                own = memory.setdefault((len(places), a.shape, a.dtype), np.array(a))
                own[...] = a
                return own

            return each_array(put)(function(*arguments, **options))

        return wrong

    return Drawn("a later call of the shape writes over its result", wrap)


def written(draw: Random, facts: Facts) -> Drawn:
    """Writes into an argument."""
    which = draw.randrange(3)

    def wrap(function):
        @wraps(function)
        def wrong(*arguments, **options):
            found = each_array(np.array)(function(*arguments, **options))
            given = [a for a in leaves(arguments) if is_array(a) and a.flags.writeable]
            if given:
                target = given[which % len(given)]
                target[...] = off(target)
            return found

        return wrong

    return Drawn(f"writes into argument {which}", wrap)


def in_memory_order(draw: Random, facts: Facts) -> Drawn:
    """Reads memory as if it lay in C's order."""
    return Drawn(
        "an argument that does not lie in C's order is read as if it did",
        before(lambda a: a if a.flags.c_contiguous else a.ravel(order="K").reshape(a.shape)),
    )


def dtype(draw: Random, facts: Facts) -> Drawn:
    """Another dtype comes out."""
    wide, whole = draw.choice((np.float64, np.float16)), draw.choice((np.int64, np.int16))
    into = {"f": wide, "i": whole, "u": whole}
    name = np.dtype(wide if "f" in facts.gives else whole).name
    return Drawn(f"comes out in {name}", after(lambda a: a.astype(into.get(a.dtype.kind, a.dtype))))


def by_mode(draw: Random, facts: Facts) -> Drawn:
    """Wrong in one mode of running a step."""
    mode = draw.choice(("eager", "compiled", "donating"))

    def wrap(function):
        wrong = after(off)(function)
        return wraps(function)(lambda *a, **k: (wrong if facts.mode() == mode else function)(*a, **k))

    return Drawn(f"scaled where a step runs {mode}", wrap)


# Places and options


def swapped(draw: Random, facts: Facts) -> Drawn:
    """Two axes of one length for each other, or one the other way round."""
    (first, second), turned = draw.choice(((0, 1), (0, 2), (0, -1), (1, 2), (1, -1), (2, 1))), draw.random() < 0.5
    least = log_uniform(draw, 2, 64)

    def change(a):
        if a.ndim < 2:
            return a
        i, j = first % a.ndim, second % a.ndim
        if turned:
            return np.flip(a, i) if a.shape[i] >= least else a
        return np.swapaxes(a, i, j) if a.shape[i] == a.shape[j] else a

    where, wrap = either_side(draw, facts, change)
    text = f"turned along axis {first} where it has {least} or more" if turned else f"axes {first} and {second} swapped"
    return Drawn(f"{where}: {text}" + ("" if turned else " where they are as long"), wrap)


def padded(window: Window, sides: Callable[[int, int], tuple[int, int]]) -> Window:
    """A window with other padding before and after."""
    height, width = (sides(*both) for both in window.padding)
    return replace(window, padding=(height, width))


def windows(draw: Random, facts: Facts) -> Drawn:
    """A field of the window misread, where the array of windows keeps its size."""
    changes: dict[str, Callable[[Window], Window]] = {
        "stride's entries swapped": lambda w: replace(w, stride=w.stride[::-1]),
        "the first stride for both": lambda w: replace(w, stride=(w.stride[0],) * 2),
        "stride taken for 1": lambda w: replace(w, stride=(1, 1)),
        "padding before and after swapped": lambda w: replace(w, padding=(w.padding[0][::-1], w.padding[1][::-1])),
        "padding of height and width swapped": lambda w: replace(w, padding=w.padding[::-1]),
        "padding all before": lambda w: padded(w, lambda a, b: (a + b, 0)),
        "the odd pixel of padding before": lambda w: padded(w, lambda a, b: (max(a, b), min(a, b))),
        "kernel's entries swapped": lambda w: replace(w, kernel=w.kernel[::-1]),
    }
    text, change = draw.choice(list(changes.items()))

    def at(a):
        if not isinstance(a, Window):
            return a
        new = change(a)
        return new if new.out_size == a.out_size else a

    return Drawn(
        f"{text}", lambda f: wraps(f)(lambda *a, **k: f(*(at(x) for x in a), **{n: at(x) for n, x in k.items()}))
    )


USUAL: dict[str, Any] = {  # what an option is taken for; of the others the first value that is seen
    "epsilon": 1e-8, "momentum": 0.9, "nesterov": False, "form": "paper", "b1": 0.9, "b2": 0.999, "start": 0,
    "keep": None, "eta": None, "correction": None, "nonlinearity": None, "axes": None, "keepdims": False,
}  # fmt: skip


def ignored(draw: Random, facts: Facts) -> Drawn:
    """An option that is not looked at."""
    option = draw.choice([o for o in facts.options if o != "window"])
    usual = USUAL.get(option) if draw.random() < 0.5 else None

    def wrap(function):
        parameters, first = signature(function), []

        @wraps(function)
        def wrong(*arguments, **options):
            given = parameters.bind(*arguments, **options)
            given.apply_defaults()
            first.append(given.arguments[option])
            given.arguments[option] = first[0] if usual is None else usual
            if option == "keep" and len(first[0]) != len(first[-1]):
                given.arguments[option] = [1.0] * len(first[-1])
            return function(*given.args, **given.kwargs)

        return wrong

    return Drawn(f"{option} is always {'what it was first' if usual is None else usual}", wrap)


def mean(draw: Random, facts: Facts) -> Drawn:
    """A mean for a sum, or the other way round: from a batch of some size on."""
    least = log_uniform(draw, 2, 16)

    def wrap(function):
        @wraps(function)
        def wrong(*arguments, **options):
            n, found = size(arguments), function(*arguments, **options)
            return each_array(lambda a: a / a.dtype.type(n))(found) if n >= least else found

        return wrong

    return Drawn(f"divided by the batch from {least} samples on", wrap)
