"""The case table: every row of the registry on its architectures, and every optimizer. A new row is enrolled by itself.

A case says which algorithm learns on which network from which stored state; everything about it is drawn by address
from its own id and a seed (ref_bioplaus.random), so that anybody can draw it again, bit for bit.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ref_bioplaus import losses, optimizers
from ref_bioplaus.conformance.cases.networks import CHAINS, CLASSES, EQUAL, GRADIENT
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.naming import short
from ref_bioplaus.network import Network
from ref_bioplaus.optimizers import LearningRate
from ref_bioplaus.random import normal, words
from ref_bioplaus.registry import ROWS, Row, row, task_loss
from ref_bioplaus.tree import named_leaves, tree_map, unflatten
from ref_bioplaus.types import Algorithm, Optimizer, State, Tree

DECAYED = 0.01
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {  # made when a case is built
    "sgd": lambda: optimizers.sgd(0.05, momentum=0.9, decay=DECAYED),
    "adam": lambda: optimizers.adam(1e-3),
    "sgd, scheduled": lambda: optimizers.sgd(stepped()),
    "sgd, Nesterov, decoupled": lambda: optimizers.sgd(stepped(), 0.9, nesterov=True, decay=DECAYED, form="decoupled"),
    "sgd, coupled on all": lambda: optimizers.sgd(0.05, 0.9, decay=DECAYED, form="coupled", on="all"),
    "adam, epsilon 1e-3": lambda: optimizers.adam(1e-2, 0.9, 0.99, 1e-3),
    "adam, epsilon-hat 1e-3": lambda: optimizers.adam(1e-2, 0.9, 0.99, 1e-3, epsilon_form="hat", decay=DECAYED),
    "adam, decoupled": lambda: optimizers.adam(1e-2, decay=DECAYED, form="decoupled"),
    "rmsprop": lambda: optimizers.rmsprop(1e-2),
}
UPDATES = 1  # done before a stored state


class Moment(NamedTuple):
    """When a step is taken: the iterations done, and the updates done in each path."""

    t: int
    forward: int
    feedback: int


MOMENTS = (Moment(1, UPDATES, UPDATES), Moment(1000, 10, 7), Moment(2**27 + 1, 400, 1000))  # by seed


def stepped() -> LearningRate:
    """A learning rate that falls after two updates."""
    return optimizers.piecewise((0.05, 0.02), (2,))


class Stepped(Protocol):
    """What a step is taken of: a case of the table, or somebody's own rule on a network."""

    @property
    def id(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    def network(self, kernels: Kernels = PORTABLE) -> Network:
        """The network, in its dtype."""

    def build(self, kernels: Kernels = PORTABLE) -> Algorithm:
        """The algorithm."""


class Case(NamedTuple):
    """One algorithm on one network with one optimizer."""

    id: str
    row: str
    architecture: str
    optimizer: str
    dtype: str = "float64"

    @property
    def moments(self) -> tuple[Moment, ...]:
        """When its steps are taken, by seed."""
        return MOMENTS

    def chosen(self) -> Row:
        """The registry's row, with wrappers that act within a few steps."""
        chosen = row(self.row)
        wrappers = tuple((n, {"start": 2} if n == "fixed-signs" else dict(options)) for n, options in chosen.wrappers)
        return chosen._replace(wrappers=wrappers)

    @property
    def main(self) -> bool:
        """Whether the row is asked everything: it is no variant of another."""
        return not row(self.row).asked.variant

    def network(self, kernels: Kernels = PORTABLE) -> Network:
        """The network, in the case's dtype."""
        chosen = row(self.row)
        build: Callable[..., Network] = ((CHAINS if chosen.inverses else GRADIENT) | EQUAL)[self.architecture]
        network = build(CLASSES + 3) if chosen.auxiliary else build()
        return network.with_dtype(self.dtype).with_kernels(kernels)

    def build(self, kernels: Kernels = PORTABLE) -> Algorithm:
        """The algorithm.

        Under softmax the errors of the classes sum to 0, so that a unit whose feedback weights are all alike gets
        nothing but rounding noise, which Batch Manhattan and Adam would make a full step: Batch Manhattan learns
        another loss, and the sign rules learn by SGD.
        """
        chosen = self.chosen()
        manhattan = any(name == "batch-manhattan" for name, _ in chosen.wrappers)
        loss = losses.squared_error() if manhattan else task_loss(chosen, losses.cross_entropy(), CLASSES)
        return chosen.build(self.network(kernels), loss, OPTIMIZERS[self.optimizer](), optimizers.sgd(1e-2))

    def batch(self, seed: int, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
        """x (n, *in_shape), of which the first sample is 0, and y (n, classes) one-hot: NumPy, held by every dtype."""
        x, (label, _) = drawn_inputs(self, seed, n), words((root(seed), self.id, "y", n), (n,))
        return x, np.eye(CLASSES)[label % CLASSES]

    def start(self, seed: int) -> State:
        """A state in mid-learning, NumPy arrays in float64: an update is counted, nothing has its first value.

        Some weight is exactly 0. Every number is one that the case's dtype holds.
        """
        state = self._replace(dtype="float64").build().init(root(seed))
        return mid_learning(state, (root(seed), self.id), self.dtype)


def drawn_inputs(asked: Stepped, seed: int, n: int, zero: bool = True) -> np.ndarray:
    """Inputs (n, *in_shape) that the dtype holds, of which the first sample is 0 where there are several; not zero: is
    like the others."""
    shape = (n, *asked.network()[0].out_shape)
    x = normal((root(seed), asked.id, "x", n), shape, np.float64)
    return as_held(np.concatenate([np.zeros_like(x[:1]), x[1:]]) if zero and n > 1 else x, asked.dtype)


def mid_learning(state: State, address: tuple, dtype: str) -> State:
    """A first state, NumPy arrays in float64, as after an update: see Case.start."""

    def stirred(params):
        return tuple(
            p._replace(
                W=p.W if p.W is None else with_zeros(p.W),
                local=tuple(
                    {k: v + 0.1 * normal((*address, "start", l, i, k), v.shape, np.float64) for k, v in op.items()}
                    for i, op in enumerate(p.local)
                ),
            )
            for l, p in enumerate(params)
        )

    forward, feedback = (
        path._replace(memory=remembering(path.memory, (*address, "start", name)))
        for name, path in (("forward", state.forward), ("feedback", state.feedback))
    )
    forward = forward._replace(params=stirred(state.forward.params))
    state = state._replace(t=np.asarray(UPDATES, np.int32), forward=forward, feedback=feedback)
    return tree_map(lambda a: as_held(a, dtype), state)


def remembering(memory: Tree, address: tuple):
    """An optimizer's memory after some updates: counts, first moments around 0, second moments above 0."""
    moments = {"m": (0.0, 0.01), "a": (0.0, 0.01), "v": (0.02, 0.01), "n": (0.02, 0.01)}  # kind -> least, size

    def at(name, leaf):
        kinds = [part for part in name.split("/") if part in moments]
        if name.endswith("count"):
            return np.asarray(UPDATES, np.int32)
        if not kinds:
            return leaf
        least, size = moments[kinds[0]]
        drawn = size * normal((*address, name), leaf.shape, np.float64)
        return least + np.abs(drawn) if least else drawn

    return unflatten(memory, [at(name, leaf) for name, leaf in named_leaves(memory)])


def root(seed: int) -> np.ndarray:
    """The root key of a seed."""
    return np.array([0, seed], dtype=np.int32)


def with_zeros(W: np.ndarray) -> np.ndarray:
    """W with its first entry exactly 0."""
    flat = W.reshape(-1)
    return np.concatenate([np.zeros_like(flat[:1]), flat[1:]]).reshape(W.shape)


def as_held(array: np.ndarray, dtype: str) -> np.ndarray:
    """Floats rounded to what a dtype holds, as float64; other arrays as they are."""
    if array.dtype.kind != "f":
        return array
    if dtype == "bfloat16":
        bits = array.astype(np.float32).view(np.uint32)
        bits = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        return bits.view(np.float32).astype(np.float64)
    return array.astype(dtype).astype(np.float64)


def step_cases(dtype: str = "float64", rows: Sequence[Row] = ROWS) -> Iterator[Case]:
    """Every algorithm on all of its architectures, modifications and variants on two, every optimizer on one; of other
    rows than the registry's the same without the optimizers."""
    for r in rows:
        architectures = list(CHAINS if r.inverses else GRADIENT)
        if r.wrappers or r.asked.brief:
            windowed = "LC" if any(name == "batch-manhattan" for name, _ in r.wrappers) else "conv"
            architectures = ["FC"] if r.inverses else ["FC", windowed]
        optimizer = "adam" if r.asked.adam else "sgd"
        for architecture in architectures:
            yield Case(f"{short(r.name)}/{architecture}", r.name, architecture, optimizer, dtype)
    for r in rows:
        if not r.asked.variant:
            yield from (Case(f"{short(r.name)}/{equal}", r.name, equal, "sgd", dtype) for equal in EQUAL)
    for optimizer in OPTIMIZERS if rows is ROWS else ():
        yield Case(f"kolen-pollack/FC/{optimizer}", "kolen-pollack", "FC", optimizer, dtype)
