"""Rows, architectures, kernels and precisions: all that go together, and a part that covers each of them."""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ref_bioplaus import backends
from ref_bioplaus.conformance.cases.cases import OPTIMIZERS, Case
from ref_bioplaus.conformance.cases.networks import CHAINS, GRADIENT
from ref_bioplaus.conformance.cases.settings import Setting, settings
from ref_bioplaus.registry import ROWS, Row
from ref_bioplaus.tree import named_leaves, tree_map

PRECISIONS = (("float32", "ieee"), ("float32", "tf32"), ("float32", "bf16"), ("float64", "ieee"), ("bfloat16", "ieee"))
KERNELS = ("portable", "native")
ARCHITECTURES = (*GRADIENT,)  # of conformance/cases/networks.py
STACKED = (("backprop", "FC"), ("dfa", "FC"), ("weight-mirror", "conv"), ("sdtp-alternating", "FC"))  # also in stacks
AT_ONCE = "3 at once"  # of these: batches that one call takes
GENERATED = ("dense-fa", "FC, generated")  # whose feedback weights are drawn in tiles: a row with options of its own


class Combination(NamedTuple):
    """One row on one architecture, and how it is computed."""

    row: str
    architecture: str
    kernels: str
    dtype: str
    precision: str
    optimizer: str = "sgd"
    batches: str = ""  # AT_ONCE, or one

    @property
    def id(self) -> str:
        """Its name in reports."""
        return "/".join(filter(None, self))

    @property
    def bits(self) -> bool:
        """Whether its random bits are drawn by all of their calls, and its first state, too: of everything in one
        precision, as neither hangs on it, and of what draws noise, masks and weights in all."""
        noisy = (self.row, self.architecture, self.batches) == ("weight-mirror", "conv", "")
        return (self.dtype, self.precision) == PRECISIONS[0] or noisy or self[:2] == GENERATED

    @property
    def steps(self) -> int | None:
        """How many batches a call takes in a stack; None for one batch."""
        return int(self.batches[0]) if self.batches else None

    def given(self) -> list[np.ndarray]:
        """What a step is given on the host: x and y of a batch, or of a stack."""
        return [self.stacked(array) for array in self.case().batch(0)]

    def stacked(self, array: Any) -> np.ndarray:
        """What a stack has in the place of a batch's array."""
        return np.stack([array] * self.steps) if self.steps else array

    def case(self) -> Case | Setting:
        """The case whose algorithm it is."""
        if self[:2] == GENERATED:
            return next(s for s in settings() if s.id == "/".join(GENERATED))._replace(dtype=self.dtype)
        return Case(f"{self.row}/{self.architecture}", self.row, self.architecture, self.optimizer, self.dtype)


def architectures(row: Row) -> tuple[str, ...]:
    """Those that a row takes."""
    return tuple(name for name in ARCHITECTURES if name in (CHAINS if row.inverses else GRADIENT))


def optimizer(row: Row) -> str:
    """The one that the conformance suite's cases of a row have."""
    return "adam" if row.asked.adam else "sgd"


def whole() -> Iterator[Combination]:
    """Every row on every architecture that it takes, by every kernels in every precision; and every optimizer, stacks
    of batches and weights that are generated."""
    for row in ROWS:
        for architecture in architectures(row):
            for kernels in KERNELS:
                for precision in PRECISIONS:
                    yield Combination(row.name, architecture, kernels, *precision, optimizer(row))
    for name in OPTIMIZERS:
        for kernels in KERNELS:
            yield Combination("kolen-pollack", "FC", kernels, *PRECISIONS[0], name)
    for kernels in KERNELS:
        for precision in PRECISIONS:
            yield Combination(*GENERATED, kernels, *precision)
            for of in STACKED:
                yield Combination(*of, kernels, *precision, batches=AT_ONCE)


def covering() -> Iterator[Combination]:
    """Every row in every precision, and every architecture, every optimizer, stacks and generated weights by all
    kernels."""
    for i, row in enumerate(ROWS):
        for j, precision in enumerate(PRECISIONS):
            yield Combination(row.name, "FC", KERNELS[(i + j) % 2], *precision, optimizer(row))
    for i, architecture in enumerate(ARCHITECTURES[1:]):
        for j, kernels in enumerate(KERNELS):
            yield Combination("kolen-pollack", architecture, kernels, *PRECISIONS[(2 * i + j) % len(PRECISIONS)])
    for i, name in enumerate(OPTIMIZERS):
        yield Combination("kolen-pollack", "FC", KERNELS[i % 2], *PRECISIONS[0], name)
        yield Combination("kolen-pollack", "FC", KERNELS[1 - i % 2], *PRECISIONS[3], name)
    for i, kernels in enumerate(KERNELS):
        yield Combination(*GENERATED, kernels, *PRECISIONS[2 * i])
        yield Combination("backprop", "FC", kernels, *PRECISIONS[2 * i], batches=AT_ONCE)
        yield Combination("sdtp-alternating", "FC", kernels, *PRECISIONS[4 - i], batches=AT_ONCE)


@cache
def expected(combination: Combination) -> tuple:
    """The first state, and (state, info) of every mode, as NumPy gives them in float64; of a stack as of one batch, but
    for the first axis of info."""
    case, numpy = combination._replace(dtype="float64").case(), backends.get("numpy", None, "float64")
    algorithm = case.build(numpy.kernels)
    state, batch = algorithm.init(numpy.key(1)), numpy.batch(*case.batch(0))
    ends = {name: step(state, batch) for name, step in algorithm.modes.items()}
    return state, {name: (end, tree_map(combination.stacked, info)) for name, (end, info) in ends.items()}


def shapes(tree: Any, float64: str = "float64") -> dict[str, tuple]:
    """Shape and dtype of every array by name; float64 by another name."""
    kinds = {"float64": float64}
    named = ((name, tuple(a.shape), str(a.dtype).rpartition(".")[2]) for name, a in named_leaves(tree))
    return {name: (shape, kinds.get(kind, kind)) for name, shape, kind in named}


def differing_shapes(what: str, found: Any, wanted: Any, dtype: str) -> list[str]:
    """Arrays of another shape or dtype than NumPy's."""
    found, wanted = shapes(found), shapes(wanted, dtype)
    names = sorted(found.keys() | wanted.keys())
    return [
        f"{what} has {name} {found.get(name)}, NumPy's {wanted.get(name)}"
        for name in names
        if found.get(name) != wanted.get(name)
    ]
