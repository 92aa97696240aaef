"""A rule on a network, as the suite can step it, and what its steps move."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from ref_bioplaus import losses, optimizers
from ref_bioplaus.conformance.cases.cases import drawn_inputs, mid_learning, root
from ref_bioplaus.conformance.cases.networks import CLASSES
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.judge import Score, expect
from ref_bioplaus.conformance.judging.rounding import Rounded
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.local import Dropout
from ref_bioplaus.network import Network
from ref_bioplaus.random import words
from ref_bioplaus.registry import Row, task_loss
from ref_bioplaus.tree import named_leaves
from ref_bioplaus.types import Algorithm, Loss, Optimizer, State

ETA = 1.0  # the rate of plain gradient descent, by which a step moves W by its gradient
SEEDS = range(20)  # to look through for a step without undecidable decisions


class NotJudged(Exception):
    """A question that cannot be asked; the message says why."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A rule on a network with a loss and an optimizer."""

    rule: Row
    name: str  # of the network
    net: Network
    task: Loss
    optimizer: Optimizer
    dtype: str = "float64"

    @property
    def id(self) -> str:
        """Under which states and batches are drawn."""
        return f"{self.rule.name}/{self.name}"

    def network(self, kernels: Kernels = PORTABLE) -> Network:
        """The network, in the trial's dtype."""
        return self.net.with_dtype(self.dtype).with_kernels(kernels)

    def build(self, kernels: Kernels = PORTABLE) -> Algorithm:
        """The algorithm, made anew."""
        loss = task_loss(self.rule, self.task, CLASSES)
        return self.rule.build(self.network(kernels), loss, self.optimizer, self.optimizer)

    def _replace(self, **changes) -> "Trial":
        """Another trial, as a named tuple makes it."""
        return replace(self, **changes)

    def start(self, seed: int) -> State:
        """A state in mid-learning, NumPy arrays in float64, held by the dtype."""
        state = self._replace(dtype="float64").build().init(root(seed))
        return mid_learning(state, (root(seed), self.id), self.dtype)

    def batch(self, seed: int, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
        """x (n, *in_shape), of which the first sample is 0 where there are several, and y one-hot, (n, *out_shape)."""
        x, shape = drawn_inputs(self, seed, n), (n, *self.net[self.net.L].out_shape)
        classes = CLASSES if self.rule.auxiliary else shape[-1]
        label, _ = words((root(seed), self.id, "y", n), shape[:-1])
        return x, np.eye(classes)[label % classes]

    def laws(self, task: Loss | None = None) -> "Trial":
        """The rule itself, in float64 under gradient descent of rate 1, without the row's wrappers."""
        plain = self.rule._replace(wrappers=())
        return replace(self, rule=plain, dtype="float64", optimizer=optimizers.sgd(ETA), task=task or self.task)

    def of(self, rule: Row) -> "Trial":
        """Another rule on the same."""
        return replace(self, rule=rule._replace(auxiliary=self.rule.auxiliary))

    @cached_property
    def decided(self) -> dict[tuple[str, int], tuple[State, np.ndarray, np.ndarray]]:
        """What `decidable` has found."""
        return {}

    @cached_property
    def modes(self) -> tuple[str, ...]:
        """The modes of the rule."""
        return tuple(self.build().modes)

    @cached_property
    def teaching(self) -> tuple[str, ...]:
        """The modes that move the forward weights."""
        return tuple(m for m in self.modes if any(np.any(a.v) for n, a in self.moved(m).moves.items() if n[0] == "W"))

    @property
    def drops(self) -> bool:
        """Whether the network has dropout."""
        return any(isinstance(op, Dropout) for layer in self.net.layers for op in layer.local)

    def decidable(self, mode: str, n: int = 6) -> tuple[State, np.ndarray, np.ndarray]:
        """State, x and y of the first seed whose step has no undecidable decision; of the first, where none is."""
        if (mode, n) not in self.decided:
            found = ((self.start(seed), *self.batch(seed, n)) for seed in SEEDS)
            decidable = (given for given in found if not expect(self, mode, *given).undecidable)
            self.decided[mode, n] = next(decidable, None) or (self.start(0), *self.batch(0, n))
        return self.decided[mode, n]

    def moved(
        self, mode: str, given: tuple | None = None, kernels: Kernels = PORTABLE, variances: State | None = None
    ) -> "Step":
        """One step from given (state, x, y), or from the first seed's, on arrays that know their rounding errors."""
        state, x, y = given or self.decidable(mode)
        expected = expect(self, mode, state, x, y, kernels=kernels, variances=variances)
        return Step(expected.tensors, moves(state, expected), expected.undecidable)


class Step(NamedTuple):
    """What a step computed, and by how much it moved each parameter, by name."""

    tensors: dict[str, Rounded]
    moves: dict[str, Rounded]
    undecidable: int


def moves(state: State, expected: judge.Expected) -> dict[str, Rounded]:
    """{name: new - old} of every float in the parameters of both paths."""
    found = {}
    for path in ("forward", "feedback"):
        for place, old in named_leaves(getattr(state, path).params):
            new = expected.tensors.get(f"state/{path}/params/{place}")
            if new is not None and new.s is not None and new.shape == old.shape:
                found[told(f"state/{path}/params/{place}").removeprefix("new ")] = new - new.space.exact(old)
    return found


def told(tensor: str) -> str:
    """A tensor's name in a sentence: "state/forward/params/2/W" as "new W of layer 2"."""
    part, *place = tensor.split("/")
    if part == "state" and place[0] in ("forward", "feedback") and place[1] == "params":
        path, _, layer, *rest = place
        name = rest[-1] if rest[:1] == ["local"] else "/".join(rest)
        if path == "feedback":
            name = "B" if name in ("W", "B", "") else f"feedback's {name}"
        return f"new {name} of layer {layer}"
    if part == "info" and len(place) > 1:
        what, layer, *rest = place
        words = {"grads": "gradient of", "feedback_grads": "gradient in the feedback path of", "targets": "target"}
        return " ".join([words.get(what, what), *rest[-1:], f"of layer {layer}"])
    return "/".join(place) if part == "info" else tensor.removeprefix("state/")


def layer_of(name: str) -> int:
    """The layer in a name of `moves`."""
    return int(name.rpartition(" ")[2])


def departure(found: dict[str, Rounded], wanted: dict[str, Rounded], factor: float = 1.0) -> Score | None:
    """The first of some tensors that is not `factor` times what is wanted, to within the errors of both."""
    scores = []
    for name, expected in wanted.items():
        if name not in found or found[name].shape != expected.shape:
            scores.append(Score(name, np.inf))
            continue
        variance = found[name].s + factor**2 * expected.s
        aim = Rounded(expected.space, factor * expected.v, variance)
        scores.append(judge.score(name, aim, found[name].v, expected.space.precision.tiny))
    return judge.first_departure(scores)


def says(score: Score, moved: str = "moves by", wanted: str = "expected") -> str:
    """A departure in words: which tensor of which layer, where in it, both values."""
    place = f"[{', '.join(map(str, score.index))}]" if score.index else ""
    if not place and not np.isfinite(score.score):
        return f"{score.tensor} has another shape, or is not there"
    return (
        f"{score.tensor}{place} {moved} {score.got:.6g}, {wanted} {score.expected:.6g} (to within {score.allowed:.1g})"
    )


def same_words(key: Any, start: int, n: int) -> tuple[Any, Any]:
    """Random bits that are the same for every element: noise and dropout then treat all samples alike."""
    xp = array_namespace(key)
    return tuple(xp.full((n,), bits, dtype=xp.int32, device=device(key)) for bits in (0x2345_0000, 0x1234_0000))


ALIKE = PORTABLE._replace(random_words=same_words)


# Losses that hand on an error of the caller's choice


def given_error(value: Callable | None = None, output: Callable | None = None, target: Callable | None = None) -> Loss:
    """A loss whose gradient at the output is the target y; the rest as asked for, or as suits it."""

    def linear(u, y):
        return array_namespace(u).sum(u * y, axis=-1)

    return Loss(value or linear, lambda u, y: y, output or (lambda u: u), target or (lambda h, y: h - y))


def silent() -> Loss:
    """A loss whose gradient is exactly 0, and whose target is the output itself."""
    squared = losses.squared_error()
    return squared._replace(gradient=lambda u, y: array_namespace(u).zeros_like(u), target=lambda h, y: h)
