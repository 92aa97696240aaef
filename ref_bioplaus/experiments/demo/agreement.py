"""Do backends agree? The same steps from one stored state, tensor by tensor.

The difference of a tensor is its largest absolute difference over the reference tensor's largest absolute value. A
tensor whose value is nothing but rounding noise (a gradient that is exactly 0 on paper, as that of a bias before
BatchNorm) has no scale of its own: it is measured against the run's largest gradient.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ...backends import Backend
from ...tree import leaves, named_leaves, tree_map
from ...types import Algorithm, State

LIMIT = 1e-11  # of float64 after a few steps: some 1e4 roundings of 1e-16, far below any wrong formula
NOISE = 1e-10  # a tensor this small against the largest gradient is rounding noise


class Run(NamedTuple):
    """The state after some steps, tensor by tensor, and the largest gradient met on the way."""

    state: dict[str, np.ndarray]
    largest_gradient: float
    traces: dict[str, int]  # per mode: how often its Python code ran


class Difference(NamedTuple):
    """The tensor that differs most, and by how much."""

    tensor: str
    size: float


def stored_state(backend: Backend, make: Callable[[Backend], Algorithm], seed: int = 0) -> State:
    """The state that `make`'s algorithm starts from, as NumPy arrays."""
    return tree_map(backend.to_numpy, make(backend).init(backend.key(seed)))


def run(
    backend: Backend,
    make: Callable[[Backend], Algorithm],
    start: State,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    compiled: bool = True,
) -> Run:
    """Run the algorithm's schedule over the batches, one epoch per batch of modes, from a stored state."""
    algorithm = make(backend)
    state = tree_map(backend.asarray, start)
    modes = {name: backend.compile(step) if compiled else step for name, step in algorithm.modes.items()}
    largest = 0.0
    for i, (x, y) in enumerate(batches):
        for mode in algorithm.schedule(i, 0):
            state, info = modes[mode](state, backend.batch(x, y))
            for g in leaves(info.grads) + leaves(info.feedback_grads):
                largest = max(largest, float(np.max(np.abs(backend.to_numpy(g)), initial=0.0)))
    tensors = {name: backend.to_numpy(leaf) for name, leaf in named_leaves(state)}
    return Run(tensors, largest, {name: getattr(step, "traces", 0) for name, step in modes.items()})


def difference(reference: Run, other: Run) -> Difference:
    """The tensor in which two runs differ most. A tensor that only one has, or that is not finite, differs by inf."""
    worst = Difference("", 0.0)
    for name in sorted(reference.state.keys() | other.state.keys()):
        a, b = reference.state.get(name), other.state.get(name)
        size = relative(a, b, reference.largest_gradient)
        if not size <= worst.size:
            worst = Difference(name, size)
    return worst


def relative(a: np.ndarray | None, b: np.ndarray | None, largest_gradient: float) -> float:
    """The difference of b from a, as the module says; inf for another shape or a value that is not finite."""
    if a is None or b is None or a.shape != b.shape or not np.all(np.isfinite(a)) or not np.all(np.isfinite(b)):
        return float("inf")
    if a.dtype.kind in "iub":
        return 0.0 if np.array_equal(a, b) else float("inf")
    gap = float(np.max(np.abs(a - b), initial=0.0))
    scale = float(np.max(np.abs(a), initial=0.0))
    if scale < NOISE * largest_gradient:
        scale = largest_gradient
    return gap / scale if scale > 0.0 else (0.0 if gap == 0.0 else float("inf"))
