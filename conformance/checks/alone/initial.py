"""Level 0: initial weights, each initializer on every kind of synapses; generated where they are not stored; given."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ref_bioplaus import initializers
from ref_bioplaus.conformance.cases.cases import Case, as_held
from ref_bioplaus.conformance.checks.alone.bits import KEY
from ref_bioplaus.conformance.checks.alone.exact import Comparison, exact_check
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.judging.judge import Expected, bounded, judge
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounded, Rounding
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.linear import Dense, LinearMap, conv, dense, locally_connected
from ref_bioplaus.random import normal
from ref_bioplaus.tree import tree_map

IMAGE = (7, 5, 3)
NAMES = ("fan_in", "fan_out", "he_fan_in", "he_fan_out", "glorot_normal", "fan_sum", "glorot_uniform", "zero")
BY_COLUMNS = ("fan_out", "glorot_uniform")
COLUMNS = ((3, 11), (36, 1))  # start, width
TILES = Dense(4000, 1100)  # two whole tiles, and a rest
WORDS = ("forward", "feedback")


def maps() -> Iterator[tuple[str, LinearMap]]:
    """Synapses whose axes all differ, with fans that do."""
    for part in (conv(4, (2, 3), stride=2), locally_connected(4, (3, 2))):
        yield part.name, part.build(IMAGE)
    for n_in, n_out in ((11, 6), (70, 130)):
        yield f"{n_in} to {n_out}", dense(n_out).build((n_in,))


def named_ones() -> dict[str, Callable[[], Any]]:
    """Initializers by name, looked up when they are needed: whoever computes has its own."""
    found = {name: lambda name=name: getattr(initializers, name) for name in NAMES}
    return found | {"naive": lambda: initializers.naive(), "naive, 0.3": lambda: initializers.naive(0.3)}


def drawn(initializer: Any, key: Any, dtype: Any, kernels: Kernels) -> dict[str, Any]:
    """Weights of all kinds, forward and feedback."""
    return {
        f"{name}, {word}": initializers.draw(initializer, linear, (key, word, 3), dtype, kernels)
        for name, linear in maps() for word in WORDS
    }  # fmt: skip


def initializer_check(name: str, made: Callable[[], Any]) -> Check:
    """One initializer, to within the rigorous bound of its roundings; 0 where it has to be."""

    def run(subject: Subject, mode: str) -> Finding:
        dtype = getattr(subject.backend.xp, subject.dtype)
        got = subject.runs(lambda key: drawn(made(), key, dtype, subject.backend.kernels), mode)
        space = Rounding(PRECISIONS[subject.dtype, subject.backend.precision], subject.dtype)
        expected = drawn(made(), space.exact(KEY), subject.dtype, PORTABLE)
        return judged(subject, space, {n: bounded(a) for n, a in expected.items()}, got(subject.backend.asarray(KEY)))

    return Check(f"0/initializers/{name}", 0, "initializers", run, ("eager",))


def judged(subject: Subject, space: Rounding, expected: dict[str, Rounded], got: dict[str, Any]) -> Finding:
    """The scores of arrays by name, and whether they are where and what they should be."""
    comparison = Comparison(subject)
    for name, array in got.items():
        comparison.kind(name, subject.dtype, array)
    arrays = {name: subject.backend.to_numpy(array) for name, array in got.items()}
    return Finding(tuple(judge(Expected(expected, 0, space.precision.tiny), arrays)), comparison.problem)


def orthogonal_check() -> Check:
    """All singular values 1: the nearest such matrix to a Gaussian, which a rounding moves by its condition."""

    def run(subject: Subject, mode: str) -> Finding:
        if subject.dtype == "bfloat16":
            return Finding(unsupported="libraries have no singular value decomposition in bfloat16")
        dtype = getattr(subject.backend.xp, subject.dtype)
        found = subject.runs(lambda key: drawn(initializers.orthogonal, key, dtype, subject.backend.kernels), mode)
        space = Rounding(PRECISIONS[subject.dtype, subject.backend.precision], subject.dtype)
        expected = {}
        for name, linear in maps():
            for word in WORDS:
                g = normal((KEY, word, 3), linear.weight_shape, np.float64)
                U, sizes, Vh = np.linalg.svd(g.reshape(-1, g.shape[-1]), full_matrices=False)
                u = max(space.precision.array, space.precision.operand)
                error = 4.0 * u * sizes[0] / sizes[-1] / np.sqrt(max(g.shape[-1], 1))
                Q = linear.existing((U @ Vh).reshape(g.shape))
                expected[f"{name}, {word}"] = Rounded(space, Q, np.where(Q == 0.0, 0.0, error**2))
        return judged(subject, space, expected, found(subject.backend.asarray(KEY)))

    return Check("0/initializers/orthogonal", 0, "initializers", run, ("eager",))


def columns_check(name: str) -> Check:
    """Some columns of a matrix, drawn by themselves: those of the whole, from a number and from an array on."""
    linear, address = Dense(37, 5), ("feedback", 2)

    def run(subject: Subject, mode: str) -> Finding:
        backend = subject.backend
        dtype = getattr(backend.xp, subject.dtype)

        def columns(key, *starts):
            pairs = [(c, s) for (first, width), shown in zip(COLUMNS, starts, strict=True)
                     for c, s in (((first, width), first), ((first, width), shown))]  # fmt: skip
            made = getattr(initializers, name)
            return {
                f"columns {c}, {'an array' if hasattr(s, 'shape') else 'a number'}": initializers.generated_columns(
                    made, linear, (key, *address), dtype, backend.kernels, s, c[1])
                for c, s in pairs
            }  # fmt: skip

        starts = [backend.asarray(np.array(first, np.int32)) for first, _ in COLUMNS]
        space = Rounding(PRECISIONS[subject.dtype, backend.precision], subject.dtype)
        whole = getattr(initializers, name)(linear, (space.exact(KEY), *address), subject.dtype, PORTABLE)
        expected = {
            f"columns {(first, width)}, {how}": bounded(whole[:, first : first + width])
            for first, width in COLUMNS for how in ("a number", "an array")
        }  # fmt: skip
        return judged(subject, space, expected, subject.runs(columns, mode)(backend.asarray(KEY), *starts))

    return Check(f"0/initializers/generated columns/{name}", 0, "initializers", run, ("eager", "compiled"))


def transport_check() -> Check:
    """An error sent down through weights that are generated tile by tile, of which there are several."""

    def run(subject: Subject, mode: str) -> Finding:
        backend, dtype = subject.backend, getattr(subject.backend.xp, subject.dtype)
        u, t = as_held(normal((KEY, "u"), (2, TILES.n_out), np.float64), subject.dtype), np.array(5, np.int32)

        def sent(key, t, u):
            made = initializers.fan_out
            return {"x": initializers.generated_transport(u, made, TILES, (key, t, "B"), dtype, backend.kernels)}

        got = subject.runs(sent, mode)(*map(backend.asarray, (KEY, t, u)))
        space = Rounding(PRECISIONS[subject.dtype, backend.precision], subject.dtype)
        B, std = whole_feedback(int(t)), TILES.fan_out**-0.5
        weights = space.unsure(B * std, (space.u * B * std) ** 2)
        return judged(subject, space, {"x": PORTABLE.dense_transport(weights, space.exact(u))}, got)

    return Check("0/initializers/generated transport", 0, "initializers", run, ("compiled",))


@lru_cache(maxsize=1)
def whole_feedback(t: int) -> np.ndarray:
    """The normal numbers of all tiles."""
    return normal((KEY, np.array(t, np.int32), "B"), TILES.weight_shape, np.float64)


def given_ones(subject: Subject, comparison: Comparison, mode: str) -> None:
    """Weights, biases and statistics that are there already: copied, each into its place; of another shape refused."""
    for architecture in ("conv", "ResNet, BN after ReLU"):
        case = Case(f"given/{architecture}", "kolen-pollack", architecture, "sgd", subject.dtype)
        there, key = case.start(1), subject.backend.asarray(KEY)
        params, stats = tree_map(np.array, (there.forward.params, there.stats))
        network = case.network(subject.backend.kernels)

        def start(key, params=params, stats=stats, network=network):
            return initializers.forward_params(network, (key, "forward"), initializers.given(params, stats))

        found = subject.runs(start, mode)(key)
        tree_map(lambda a: np.copyto(a, 0.0), (params, stats))  # whatever becomes of what was given
        comparison.tree(architecture, (there.forward.params, there.stats), found)
        wrong = tree_map(lambda a: np.concatenate([a, a]), params)
        try:
            subject.runs(lambda key, p=wrong, start=start: start(key, p), mode)(key)
        except ValueError:
            continue
        comparison.wrong("given weights of another shape were taken, and nothing was raised")


def checks() -> tuple[Check, ...]:
    """What initial weights are made by."""
    return (
        *(initializer_check(name, made) for name, made in named_ones().items()), orthogonal_check(),
        *map(columns_check, BY_COLUMNS), transport_check(),
        exact_check("given", "initializers", given_ones, ("eager",)),
    )  # fmt: skip
