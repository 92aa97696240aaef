"""The ways to be wrong that only one function has, by its name in the table or in Backend: see kinds.py."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from random import Random
from typing import Any

import numpy as np

from ref_bioplaus import kernels as portable
from ref_bioplaus.conformance.proofs.mistakes import Drawn, Facts, Kind, after, log_uniform
from ref_bioplaus.types import Array, Key
from ref_bioplaus.windows import Window, patches

Draw = Callable[[Random, Facts], Drawn]


def one_of(*choices: tuple[str, Callable]) -> Draw:
    """A draw of some named functions, each in the place of the right one."""

    def draw(random, facts):
        text, wrong = random.choice(choices)
        return Drawn(text, lambda right: wrong)

    return draw


# Random bits


def bits(draw: Random, facts: Facts) -> Drawn:
    """Bits of a word that are wrong, from some word on."""
    word, bit, start = draw.randrange(2), draw.randrange(32), draw.choice((0, log_uniform(draw, 2, 1025)))
    how = draw.choice(("0", "1", "turned"))
    mask = np.array([1 << bit], np.uint32).view(np.int32)[0]

    def change(a):
        wrong = a & ~mask if how == "0" else a | mask if how == "1" else a ^ mask
        return np.where(np.arange(a.size).reshape(a.shape) >= start, wrong, a)

    def wrap(function):
        return wraps(function)(
            lambda *a, **k: tuple(change(w) if i == word else w for i, w in enumerate(function(*a, **k)))
        )

    return Drawn(f"bit {bit} of word {word} is {how} from {start} on", wrap)


def far_on(draw: Random, facts: Facts) -> Drawn:
    """A stream that begins again."""
    k = draw.choice((8, 12, 16, 20, 24, 31, 32))
    return Drawn(f"words from 2^{k} on are the first again",
                 lambda f: wraps(f)(lambda key, start, n: f(key, start % (1 << k), n)))  # fmt: skip


def half_a_key(draw: Random, facts: Facts) -> Drawn:
    """A word of the key that is not looked at."""
    word = draw.randrange(2)
    text = f"word {word} of the key is not looked at"
    return Drawn(
        text, lambda f: wraps(f)(lambda key, *a: f(np.where(np.arange(2) == word, 0, key).astype(np.int32), *a))
    )


def half_a_counter(draw: Random, facts: Facts) -> Drawn:
    """A word of the counter that is not looked at."""
    word = draw.randrange(2)

    def wrap(function):
        return wraps(function)(
            lambda key, *x: function(key, *(np.zeros_like(w) if i == word else w for i, w in enumerate(x)))
        )

    return Drawn(f"word {word} of the counter is not looked at", wrap)


def fewer_rounds(draw: Random, facts: Facts) -> Drawn:
    """Threefry of 12 or 16 rounds."""
    rounds = draw.choice((12, 16))

    def wrong(key: Key, x0: Array, x1: Array):
        k0, k1 = key[0:1], key[1:2]
        ks = (k0, k1, k0 ^ k1 ^ portable.PARITY)
        x0, x1 = x0 + ks[0], x1 + ks[1]
        for i in range(rounds // 4):
            for r in portable.ROTATIONS[i % 2]:
                x0 = x0 + x1
                x1 = portable.rotate_left(x1, r) ^ x0
            x0, x1 = x0 + ks[(i + 1) % 3], x1 + (ks[(i + 2) % 3] + (i + 1))
        return x0, x1

    return Drawn(f"{rounds} rounds", lambda right: wrong)


def table(draw: Random, facts: Facts) -> Drawn:
    """Wrong entries of the table of normal quantiles."""
    first, how = draw.randrange(1 << 14), draw.choice(("an entry", "all from there", "the last bit from there"))

    def wrong(right):
        new = np.array(right)
        last = first + 1 if how == "an entry" else new.size
        new[first:last] = new[first:last] ^ 1 if how == "the last bit from there" else -new[first:last] + 2
        return new

    return Drawn(f"{how} is wrong, at {first}", wrong)


# Kernels


def last_maximum(x: Array, window: Window):
    """The last of several maxima takes the error."""
    p = patches(x, window, fill=-np.inf)
    last = p.shape[3] - 1 - np.argmax(p[:, :, :, ::-1, :], axis=3, keepdims=True)
    return p.max(axis=3), np.arange(p.shape[3]).reshape(1, 1, 1, -1, 1) == last


def every_maximum(x: Array, window: Window):
    """Every maximum takes the error."""
    p = patches(x, window, fill=-np.inf)
    return p.max(axis=3), p == p.max(axis=3, keepdims=True)


def filled(draw: Random, facts: Facts) -> Drawn:
    """Padding that is a number."""
    fill = draw.choice((0.0, -1.0, -1e3, -1e30))

    def wrong(x: Array, window: Window):
        p = patches(x, window, fill=fill)
        first = np.arange(p.shape[3]).reshape(1, 1, 1, -1, 1) == np.argmax(p, axis=3, keepdims=True)
        return p.max(axis=3), first

    return Drawn(f"padding is {fill:g}", lambda right: wrong)


def statistics(variance: Callable[[Array, Array, int], Array], root: Callable[[Array, float], Array]) -> Callable:
    """BatchNorm with another variance, or root."""

    def wrong(x: Array, gamma: Array, beta: Array, epsilon: float):
        axes, m = tuple(range(x.ndim - 1)), int(np.prod(x.shape[:-1]))
        mean = np.mean(x, axis=axes)
        var = variance(x, mean, m)
        inv_std = (1.0 / root(var, epsilon)).astype(x.dtype)
        z = (x - mean) * inv_std
        return gamma * z + beta, mean, var, (z, inv_std)

    return wrong


def population(x: Array, mean: Array, m: int):
    """As it is defined."""
    return np.mean((x - mean) ** 2, axis=tuple(range(x.ndim - 1)))


def sample(x: Array, mean: Array, m: int):
    """Divided by m - 1."""
    return population(x, mean, m) * x.dtype.type(m / max(m - 1, 1))


def in_one_pass(x: Array, mean: Array, m: int):
    """The mean of squares less the square of the mean."""
    return np.maximum(np.mean(x * x, axis=tuple(range(x.ndim - 1))) - mean * mean, 0)


def usual_root(var: Array, epsilon: float):
    """As it is defined."""
    return np.sqrt(var + epsilon)


def uncorrected(p: list, g: list, m: list, v: list, keep: list, eta: Any, correction: tuple, *rest: Any):
    """Adam without bias correction."""
    one = correction[0] * 0 + 1
    return portable.adam(p, g, m, v, keep, eta, (one, one), *rest)


def kept_late(p: list, g: list, v: list, keep: list, eta: Any, momentum: float, nesterov: bool):
    """SGD that shrinks p after the step."""
    new, v = portable.sgd(p, g, v, [1.0] * len(p), eta, momentum, nesterov)
    return [portable.scaled(k, n) for k, n in zip(keep, new, strict=True)], v


def damped(p: list, g: list, v: list, keep: list, eta: Any, momentum: float, nesterov: bool):
    """SGD whose gradient is damped by its momentum."""
    return portable.sgd(p, [(1 - momentum) * a for a in g], v, keep, eta, momentum, nesterov)


def known_by_name(draw: Random, facts: Facts) -> Drawn:
    """A nonlinearity that is taken for another."""
    name, at_zero = draw.choice(("tanh", "relu", "sigmoid", "rectified_tanh")), draw.random() < 0.5

    def wrap(function):
        @wraps(function)
        def wrong(part, *arrays):
            found = function(part, *arrays)
            if part.name != name:
                return found
            return np.where(arrays[0] == 0, 0.5, found).astype(found.dtype) if at_zero else -found

        return wrong

    return Drawn(f"{name} {'is 0.5 at exactly 0' if at_zero else 'has the other sign'}", wrap)


# Backend


def seeds(draw: Random, facts: Facts) -> Drawn:
    """A seed that is cut."""
    k = draw.choice((8, 16, 24, 31, 32, 48))
    return Drawn(f"seeds are cut to {k} bits", lambda f: wraps(f)(lambda seed=0: f(seed % (1 << k))))


def dtype_ignored(draw: Random, facts: Facts) -> Drawn:
    """The dtype that is asked for."""
    whole = draw.random() < 0.5

    def wrap(function):
        def wrong(array, dtype=None):
            found = function(array, None)
            return found.astype(np.float32) if whole and found.dtype.kind in "iu" else found

        return wrong

    return Drawn("every number a float32" if whole else "no dtype but its own", wrap)


def wrong_order(draw: Random, facts: Facts) -> Drawn:
    """Arrays whose axes change places where one cannot see it."""
    first, second = draw.choice(((0, 1), (-1, -2), (1, 2), (2, 3), (0, -1)))

    def change(a):
        n = a.ndim if hasattr(a, "ndim") else 0
        if n < 2 or max(first, second) >= n:
            return a
        return np.swapaxes(a, first, second) if a.shape[first] == a.shape[second] else a

    return Drawn(f"axes {first} and {second} change places where they are as long", after(change))


def compiled(draw: Random, facts: Facts) -> Drawn:
    """Steps that are not bound as they were asked for."""
    how = draw.choice(("keep is not looked at", "the key is that of the first call", "t stands", "always donates",
                       "loss and output change places in keep"))  # fmt: skip

    def wrap(function):
        def wrong(step, donate=False, keep=None, steps=None):
            if how == "keep is not looked at":
                return function(step, donate, None, steps)
            if how == "always donates":
                return function(step, True, keep, steps)
            if how == "loss and output change places in keep" and keep is not None:
                other = {"loss": "output", "output": "loss"}
                return function(step, donate, tuple(other.get(name, name) for name in keep), steps)
            run, first = function(step, donate, keep, steps), []

            def called(state, batch):
                first.append(state.key)
                given = state._replace(key=first[0]) if how.startswith("the key") else state
                new, info = run(given, batch)
                return new._replace(key=state.key, t=np.array(state.t) if how == "t stands" else new.t), info

            return called

        return wrong

    return Drawn(how, wrap)


SPECIAL: Mapping[str, Sequence[Kind]] = {
    "random_words": (
        Kind("random bits", bits), Kind("far on in a stream", far_on), Kind("half a key", half_a_key),
    ),
    "threefry": (
        Kind("random bits", bits), Kind("half a key", half_a_key), Kind("half a counter", half_a_counter),
        Kind("fewer rounds", fewer_rounds),
    ),
    "normal_table": (Kind("table of quantiles", table),),
    "max_pool": (
        Kind("ties", one_of(("the last maximum", last_maximum), ("every maximum", every_maximum))),
        Kind("padding", filled),
    ),
    "batch_norm": (
        Kind("another variance", one_of(
            ("the sample's variance", statistics(sample, usual_root)),
            ("the variance in one pass", statistics(in_one_pass, usual_root)),
            ("epsilon outside of the root", statistics(population, lambda var, e: np.sqrt(var) + np.float32(e))),
        )),
    ),
    "adam": (Kind("another optimizer", one_of(("no bias correction", uncorrected))),),
    "sgd": (Kind("another optimizer", one_of(("p shrinks after the step", kept_late), ("g is damped", damped))),),
    "activation": (Kind("nonlinearity by name", known_by_name),),
    "activation_backward": (Kind("nonlinearity by name", known_by_name),),
    "key": (Kind("seeds", seeds),),
    "asarray": (Kind("dtype not looked at", dtype_ignored),),
    "export_params": (Kind("axes of another layout", wrong_order),),
    "import_params": (Kind("axes of another layout", wrong_order),),
    "compile": (Kind("step bound wrongly", compiled, tells_modes=True),),
}  # fmt: skip
