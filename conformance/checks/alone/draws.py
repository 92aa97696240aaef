"""Level 0: random numbers, which have to be exact, and dropout."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ref_bioplaus import local, random
from ref_bioplaus.conformance.cases.cases import as_held, root
from ref_bioplaus.conformance.checks.alone.bits import KEY, LONG, int32
from ref_bioplaus.conformance.checks.alone.exact import Comparison, exact_check
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.judging.judge import Expected, Score, judge, named
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.random import normal

IMAGE = (7, 5, 3)
PROBABILITIES = (0.0, 1.0, 0.3, 0.5, 2.0**-24, 1.0 - 2.0**-24, 2.0**-26, 1.0 - 2.0**-26)
DROPPED = (0.4, 0.0, 0.75)
ADDRESSES: tuple[tuple, ...] = (
    (), ("a",), ("b",), (3,), ("a", 3), ("a/3",), (3, "a"), ("feedback optimizer", "noisy_gradients", "12/W"),
    ("corrupt", "t", 2), ("δ", 2**31), ("t", "corrupt", 2), (-1, 0),
)  # fmt: skip


def random_check(kind: str) -> Check:
    """Random numbers, which have to be exact: bits, uniforms, normals, masks; other addresses give other numbers."""

    def draw(key, t, dtype, kernels):
        address, shape = (key, "conformance", t, 3), (3, 5, 7)
        if kind == "words":
            return dict(zip(("high", "low"), random.words(address, shape, kernels), strict=True))
        if kind == "bernoulli":
            return {"kept": random.bernoulli(address, 0.3, shape, kernels)}
        function = {"uniform": random.uniform, "normal": random.normal}[kind]
        return {
            "whole": function(address, shape, dtype, kernels),
            "part": function(address, (2, 7), dtype, kernels, 35),
        }

    def run(subject: Subject, mode: str) -> Finding:
        backend = subject.backend
        dtype = getattr(backend.xp, subject.dtype)
        found = subject.runs(lambda key, t: draw(key, t, dtype, backend.kernels), mode)
        host = np.float64 if subject.dtype == "float64" else np.float32
        space = Rounding(PRECISIONS[subject.dtype, "ieee"], subject.dtype)
        scores: list[Score] = []
        seen = []
        for seed, t in ((0, 0), (1, 0), (0, 1), (2**31 - 1, 5)):
            time = np.array(t, np.int32)
            expected = draw(root(seed), time, host, PORTABLE).items()
            tensors = {name: space.exact(as_held(np.asarray(v), subject.dtype)) for name, v in expected}
            got = found(backend.asarray(root(seed)), backend.asarray(time))
            arrays = {name: backend.to_numpy(a) for name, a in got.items()}
            judged = judge(Expected(tensors, 0, space.precision.tiny), arrays)
            scores += named(judged, f"seed {seed}, t {t}")
            seen.append(next(iter(arrays.values())))
        if any(np.array_equal(a, b) for i, a in enumerate(seen) for b in seen[:i]):
            return Finding(tuple(scores), "two addresses gave the same random numbers: the stream repeats")
        return Finding(tuple(scores))

    return Check(f"0/random/{kind}", 0, "random", run, ("eager", "compiled"))


def dropout_check() -> Check:
    """Dropout: the mask of its address, and the rest scaled by 1 / (1 - p)."""

    def compute(kernels, key, x, dy):
        op = replace(local.dropout(0.4).build(IMAGE), kernels=kernels)
        y, _, cache = op.forward({}, {}, x, (key, "dropout"), True)
        test, _, _ = op.forward({}, {}, x, (key, "dropout"), False)
        return {"y": y, "dx": op.backward({}, cache, dy)[0], "y in test": test}

    def run(subject: Subject, mode: str) -> Finding:
        backend = subject.backend
        x, dy = (as_held(normal((root(0), "dropout", i), (4, *IMAGE), np.float64), subject.dtype) for i in (0, 1))
        space = Rounding(PRECISIONS[subject.dtype, backend.precision], subject.dtype)
        tensors = compute(PORTABLE, space.exact(root(7)), space.exact(x), space.exact(dy))
        found = subject.runs(lambda *a: compute(backend.kernels, *a), mode)
        got = found(*(backend.asarray(a) for a in (root(7), x, dy)))
        arrays = {name: backend.to_numpy(a) for name, a in got.items()}
        return Finding(tuple(judge(Expected(tensors, 0, space.precision.tiny), arrays)))

    return Check("0/dropout", 0, "dropout", run, ("eager", "compiled"))


def numbers(address: Any, shape: tuple[int, ...], dtype: Any, kernels: Kernels) -> dict[str, Any]:
    """All kinds of random numbers at an address."""
    return {"uniform": random.uniform(address, shape, dtype, kernels),
            "normal": random.normal(address, shape, dtype, kernels),
            "bernoulli": random.bernoulli(address, 0.3, shape, kernels)}  # fmt: skip


def exactly(name: str, draw: Callable, *given: np.ndarray) -> Check:
    """draw(kernels, dtype, *arrays), a tree of random numbers, bit for bit."""

    def look(subject: Subject, comparison: Comparison, mode: str) -> None:
        backend = subject.backend
        host, dtype = np.float64 if subject.dtype == "float64" else np.float32, getattr(backend.xp, subject.dtype)
        got = subject.runs(lambda *arrays: draw(backend.kernels, dtype, *arrays), mode)(*map(backend.asarray, given))
        comparison.tree(name, draw(PORTABLE, host, *given), got)

    return exact_check(name, "random", look, ("eager", "compiled"))


def in_parts(kernels: Kernels, dtype: Any, key: Any) -> dict[str, Any]:
    """Normal numbers made so many at a time, with rests and without."""
    few = kernels._replace(drawn=min(kernels.drawn, 1000))
    return {str(n): random.normal((key, "parts"), (n,), dtype, few) for n in (1000, 1001, 3999)}


def at_addresses(kernels: Kernels, dtype: Any, key: Any, t: Any) -> list:
    """A few numbers at addresses of names and numbers, with a time among them and without."""
    every = [random.words((key, *tags), (2,), kernels) for tags in ADDRESSES]
    return every + [random.words((key, *tags[:1], t, *tags[1:]), (2,), kernels) for tags in ADDRESSES[:4]]


def of_given_words(kernels: Kernels, dtype: Any, key: Any, high: Any, low: Any) -> dict[str, Any]:
    """What is made of remarkable words: the ends of the grids and the table, and both sides of each probability."""
    given = kernels._replace(random_words=lambda key, start, n: (high, low))
    shape = tuple(high.shape)
    found = numbers((key, "given"), shape, dtype, given)
    chosen = {str(p): random.bernoulli((key, "given"), p, shape, given) for p in PROBABILITIES}
    return found | chosen


def remarkable() -> tuple[np.ndarray, np.ndarray]:
    """Pairs of words: bits at the ends of what numbers are made of, and thresholds of probabilities."""
    edges = [0, 1 << 5, 1 << 6, 1 << 8, 1 << 18, 1 << 31, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFF00, 0xFFFC0000]
    edges += [(round(p * 2**24) << 8) & 0xFFFFFFFF for p in PROBABILITIES]
    near = sorted({(edge + by) & 0xFFFFFFFF for edge in edges for by in (-1, 0, 1, 256)})
    high, low = (int32(*words) for words in zip(*((a, b) for a in near for b in near[::3]), strict=True))
    return high, low


def wide_dropout() -> Check:
    """Masks of many units, all that are kept, and a few: exact, as are the numbers that they scale 0 and 1 to."""

    def masks(kernels: Kernels, dtype: Any, key: Any, x: Any) -> list:
        ops = [replace(local.dropout(p).build((7001,)), kernels=kernels) for p in DROPPED]
        return [op.forward({}, {}, x, (key, "wide"), True)[0] == 0.0 for op in ops]

    return exactly("masks of dropout", masks, KEY, np.ones((9, 7001)))


def checks() -> tuple[Check, ...]:
    """Level 0's random numbers."""
    kinds = {
        "uniform": lambda kernels, dtype, key: random.uniform((key, "long"), (3, 21845), dtype, kernels),
        "normal": lambda kernels, dtype, key: random.normal((key, "long"), (LONG,), dtype, kernels),
        "bernoulli": lambda kernels, dtype, key: random.bernoulli((key, "long"), 0.7, (65537,), kernels),
    }
    long = [exactly(f"{kind}, long", draw, KEY) for kind, draw in kinds.items()]
    return (
        *map(random_check, ("words", "uniform", "normal", "bernoulli")), *long,
        exactly("normal, in parts", in_parts, KEY),
        exactly("addresses", at_addresses, KEY, np.array(-3, np.int32)),
        exactly("of given words", of_given_words, KEY, *remarkable()),
        dropout_check(), wide_dropout(),
    )  # fmt: skip
