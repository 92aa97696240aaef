"""What a step is made of, as cases of level 0: random numbers, first states and schedules (targets.py has the others).

A part is inputs, a function of them that runs on NumPy and on the judge's arrays alike, and the axes of what it gives.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ref_bioplaus import optimizers, random
from ref_bioplaus.conformance.cases.cases import Case, as_held, root, step_cases
from ref_bioplaus.conformance.files import description
from ref_bioplaus.conformance.files.axes import axes_of
from ref_bioplaus.conformance.files.vectors import Tensor, digest, in_dtype, shown
from ref_bioplaus.conformance.judging.judge import PRECISIONS, Expected
from ref_bioplaus.conformance.judging.rounding import Rounding
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.layouts import NUMBER, Axes, places
from ref_bioplaus.tree import named_leaves
from ref_bioplaus.types import Array

Arrays = Mapping[str, Any]
PROBABILITY = 0.3  # of the masks of 0/random/bernoulli


@dataclass(frozen=True)
class Part:
    """A case of level 0."""

    kind: str
    name: str
    dtype: str
    reason: str
    given: Callable[[int], Arrays]  # by a seed; floats in float64
    compute: Callable[[Arrays, Any], dict[str, Array]]  # the outputs, in a dtype of the inputs' namespace
    axes: Callable[[str, Array], Axes]
    said: Mapping[str, Any]  # what its row of a manifest says of it, beside names and arrays
    case: Case | None = None
    first_seed: Callable[[], int] = lambda: 0  # what it is drawn from, unless said otherwise
    given_seed: int | None = None

    @cached_property
    def seed(self) -> int:
        """The seed given, or else the part's own."""
        return self.first_seed() if self.given_seed is None else self.given_seed

    @property
    def id(self) -> str:
        """As in the manifest."""
        return f"0/{self.kind}/{self.name}"

    @property
    def file(self) -> str:
        """The name of its files, without the ending."""
        return re.sub(r"[^A-Za-z0-9._]+", "-", self.id)

    def seeded(self, seed: int) -> "Part":
        """The same from another seed."""
        return replace(self, given_seed=seed)

    @cached_property
    def arrays(self) -> Arrays:
        """The inputs as the dtype holds them, floats in float64."""
        return {name: as_held(np.asarray(array), self.dtype) for name, array in self.given(self.seed).items()}

    def inputs(self) -> dict[str, Tensor]:
        """The inputs in the case's dtype."""
        tensors = self.tensors(self.arrays).items()
        return {name: Tensor(in_dtype(array, self.dtype), axes) for name, (array, axes) in tensors}

    def expected(self, dtype: str | None = None) -> Expected:
        """What a correct implementation computes in a dtype (the case's own, unless said otherwise)."""
        dtype = dtype or self.dtype
        space = Rounding(PRECISIONS[dtype, "ieee"], dtype)
        found = self.compute({name: space.exact(array) for name, array in self.arrays.items()}, dtype)
        tensors = {name: array if hasattr(array, "s") else space.exact(array) for name, array in found.items()}
        return Expected(tensors, space.undecidable, space.precision.tiny)

    def reference(self) -> dict[str, np.ndarray]:
        """What NumPy computes in float64, from the same inputs; random numbers in the case's dtype."""
        return {name: np.asarray(array) for name, array in self.compute(self.arrays, "float64").items()}

    def tensors(self, arrays: Arrays) -> dict[str, Tensor]:
        """Arrays with their axes."""
        return {name: Tensor(array, self.axes(name, array)) for name, array in arrays.items()}

    def describe(self, layout: str = "NHWC") -> dict[str, Any]:
        """The part's row of a manifest, with its arrays as they are in a layout."""
        inputs, outputs = self.inputs(), self.tensors(self.reference())
        return {
            "id": self.id,
            "level": 0,
            **self.said,
            "seed": self.seed,
            "dtype": self.dtype,
            "judge": f"rounding, {self.dtype}, ieee",
            "reason": self.reason,
            "inputs": {name: shown(tensor, layout) for name, tensor in inputs.items()},
            "inputs_sha256": digest({name: tensor.array for name, tensor in inputs.items()}),
            "outputs": {
                name: shown(Tensor(in_dtype(t.array, self.dtype), t.axes), layout) for name, t in outputs.items()
            },
        }


def counted(name: str, array: Array) -> Axes:
    """The axes of numbers that are none of a network's."""
    return Axes("i", "i", {"i": array.shape[0]}) if len(array.shape) == 1 else NUMBER


# Random numbers


@dataclass(frozen=True)
class Drawn:
    """Numbers `start` to `start + count` at an address: root key, names and numbers, time."""

    root: tuple[int, int]
    names: tuple[str | int, ...]
    time: int | None = None
    start: int = 0
    count: int = 9


DRAWN = (
    Drawn((0, 0), ("forward", 1)),
    Drawn((0, 7), ("step", 3, 0), 5, 35),
    Drawn((0, 2**31 - 1), ("corrupt", 12), 2**31 - 1, 2**24 - 4),
    Drawn((-(2**31), -1), ("noisy_gradients", "2/W"), 1, 2**31 - 4),
    Drawn((-5, 123456789), (), None, 2**32 - 9),
    Drawn((1, 1), ("dense", 2, 4), 0, 2**32),
    Drawn((987654321, -2), ("sign_symmetry", 10), 70, 5 * 2**32 + 123),
)
RANDOM = {
    "key": "The key at an address: names and numbers by CRC-32, one number by itself.",
    "words": "The 64 random bits of every number, from the key at its address; far starts.",
    "uniform": "Uniform numbers, which are exact.",
    "normal": "Normal numbers by the table of quantiles, which are exact.",
    "bernoulli": "Masks: 1 where a uniform number lies below a probability, which is taken to 24 bits.",
}


def random_part(kind: str, dtype: str) -> Part:
    """Random numbers of a kind at every address of DRAWN."""

    def given(seed):
        return {f"root/{i}": np.array(at.root, np.int32) for i, at in enumerate(DRAWN)}

    def compute(arrays, wanted):
        found = {}
        for i, at in enumerate(DRAWN):
            key = arrays[f"root/{i}"]
            key = np.asarray(getattr(key, "v", key))  # exact: on NumPy for the judge, too
            times = () if at.time is None else (np.asarray(at.time, np.int32),)
            address, shape = (key, *at.names, *times), (at.count,)
            if kind == "key":
                found[f"key/{i}"] = random.key_at(address)
            elif kind == "words":
                found[f"high/{i}"], found[f"low/{i}"] = random.words(address, shape, PORTABLE, at.start)
            elif kind == "bernoulli":
                kept = random.bernoulli(address, PROBABILITY, shape, PORTABLE, at.start)
                found[f"mask/{i}"] = kept.astype(np.int32)
            else:
                function = {"uniform": random.uniform, "normal": random.normal}[kind]
                drawn = function(address, shape, np.dtype(wanted), PORTABLE, at.start)
                found[f"{kind}/{i}"] = drawn.astype(np.float64)
        return found

    def axes(name, array):
        if name.startswith(("root", "key")):
            return Axes("words", "words", {"words": 2})
        return counted(name, array)

    draws = [asdict(at) | {"root": list(at.root), "names": list(at.names)} for at in DRAWN]
    said = {"draws": draws} | ({"probability": PROBABILITY} if kind == "bernoulli" else {})
    return Part("random", kind, dtype, RANDOM[kind], given, compute, axes, said)


# Schedules

STEPS = optimizers.piecewise((0.3, 0.03, 0.0), (3, 7))
SCHEDULES: dict[str, tuple[Any, str]] = {
    "piecewise": (STEPS, "A value holds until its boundary is reached: the new one from that update on."),
    "staircase": (optimizers.staircase(0.2, 0.7, 4), "A power of a factor, one more after every so many updates."),
    "warm_up": (optimizers.warm_up(0.25, 6), "A rise that begins above 0 and ends at the rate itself."),
    "warm_up of piecewise": (optimizers.warm_up(STEPS, 5), "A rise towards another schedule."),
}
COUNTS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 40, 1000)


def schedule_part(name: str, dtype: str) -> Part:
    """The learning rate of a schedule after every count of COUNTS."""
    eta, reason = SCHEDULES[name]

    def compute(arrays, wanted):
        count = arrays["count"]
        return {"eta": eta(count, np.float64 if isinstance(count, np.ndarray) else wanted)}

    return Part(
        "schedule", name, dtype, reason, lambda seed: {"count": np.array(COUNTS, np.int32)}, compute, counted,
        {"schedule": description.schedule(eta)},
    )  # fmt: skip


# First states


def init_part(case: Case) -> Part:
    """A root key -> every array of the first state."""
    chosen = case.chosen()

    def compute(arrays, wanted):
        state = case._replace(dtype=wanted).build().init(arrays["state/key"])
        return {f"state/{name}": leaf for name, leaf in named_leaves(state)}

    said = {"case": case.id, **description.of_case(case), "initializers": description.initial(case)}
    reason = f"{chosen.label} ({chosen.paper}): the first state, from a key."
    return Part("init", case.id, case.dtype, reason, lambda seed: {"state/key": root(seed)}, compute, of(case), said,
                case, lambda: 3)  # fmt: skip


def of(case: Case) -> Callable[[str, Array], Axes]:
    """The axes of the arrays of a case's network."""
    network = case.network()
    layers = places(network)
    return lambda name, array: axes_of(name, array, network, layers)


def parts(dtype: str) -> Iterator[Part]:
    """Random numbers, schedules, and every first state."""
    for kind in RANDOM:
        yield random_part(kind, dtype)
    for name in SCHEDULES:
        yield schedule_part(name, dtype)
    for case in step_cases(dtype):
        yield init_part(case)
