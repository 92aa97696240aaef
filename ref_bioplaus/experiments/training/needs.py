"""What an experiment will need, in bytes, from shapes alone: nothing is allocated to find out."""

import math
from typing import NamedTuple

from ...backends import Backend
from ...machine.memory import size
from ...network import Network
from ...tree import leaves
from ...types import Tree
from ..spec.building import Built, first_state
from ..spec.experiment import Experiment, ExperimentError
from ..spec.names import reads

BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}


class Taken(NamedTuple):
    """What a run takes in memory beside its state, counted in its layers, its state and the activations of a batch.

    A checkpoint is the state three times more: as arrays of the host, as bytes, as a file's content. A step holds what
    its forward and backward pass make, torch's all of it at once while the step is captured; two steps are held where
    learning is compared with backpropagation. Of both torch's memory becomes twice as much, as glibc does not put
    together again what is freed in pieces. JAX's compiler takes most of what small runs take.
    """

    base: float  # bytes, whatever runs
    layer: float  # bytes, of programs and their compiler
    saving: float  # times the state, while a checkpoint is made or the first state is drawn
    step: float  # times the activations, for each step that is held


# Found by `python -m asv_bench.estimates` from the peak of resident memory of six whole runs, from an MLP to AlexNet,
# each in a process of its own with one thread: AMD EPYC, glibc 2.36, NumPy 2.4, torch 2.13, JAX 0.10, November 2026.
TAKEN = {  # what is said was 0.8 to 1.3 times what the runs took; portable kernels ran the four small ones alone
    ("numpy", "native"): Taken(5e6, 2e6, 4.5, 1.0),
    ("numpy", "portable"): Taken(1e6, 1e6, 4.5, 1.0),
    ("torch", "native"): Taken(10e6, 1e6, 8.0, 5.0),
    ("torch", "portable"): Taken(10e6, 1e6, 7.5, 1.5),
    ("jax", "native"): Taken(185e6, 9.5e6, 5.0, 2.5),
    ("jax", "portable"): Taken(185e6, 9.5e6, 5.0, 2.5),
}
UNMEASURED = ("numpy", "portable")  # what stands for other libraries on a CPU


class Estimate(NamedTuple):
    """Numbers of each kind, and the bytes of one."""

    parameters: int  # forward weights and local parameters
    feedback: int  # feedback weights, or inverses with their biases
    memory: int  # of optimizers and modifications
    statistics: int  # BatchNorm's running ones
    gradients: int
    activations: int  # what synapses and local operations make of a batch
    itemsize: int
    largest: int  # of the state's tensors
    layers: int = 0
    steps: int = 1  # whose arrays are held at once
    taken: Taken | None = None  # what such runs take; None on a GPU, where none was measured

    @property
    def state(self) -> int:
        """Bytes of the state, and so of a checkpoint."""
        return self.itemsize * (self.parameters + self.feedback + self.statistics) + self.memory_size

    @property
    def memory_size(self) -> int:
        """Bytes of the optimizer's memory, which is in float32 at least (optimizers.in_float32)."""
        return max(self.itemsize, BYTES["float32"]) * self.memory

    @property
    def total(self) -> int:
        """Bytes that are needed at once: on a CPU about, by what runs took; on a GPU at least, by a step or to draw the
        largest tensor before the first one.
        """
        if self.taken is None:
            return self.state + self.itemsize * max(self.gradients + self.activations, self.largest)
        base, layer, saving, step = self.taken
        step *= self.steps * self.itemsize * self.activations
        return round(base + layer * self.layers + self.state + max(saving * self.state, step))

    @property
    def needed(self) -> str:
        """The bytes that are needed, in words."""
        return f"{'at least' if self.taken is None else 'about'} {size(self.total)}"

    def __str__(self) -> str:
        rows = {
            "parameters": (self.parameters, self.parameters * self.itemsize),
            "feedback weights": (self.feedback, self.feedback * self.itemsize),
            "optimizer memory": (self.memory, self.memory_size),
            "activations of a batch": (self.activations, self.activations * self.itemsize),
        }
        parts = [f"{name} {n:,} ({size(held)})" for name, (n, held) in rows.items()]
        return ", ".join(parts) + f"; in all {self.needed}"


def estimate(experiment: Experiment, built: Built, backend: Backend) -> Estimate:
    """What the experiment's state and one step take, counted from their shapes, and a run on this backend."""
    network, state = built.network, first_state(experiment, built, None)
    forward, feedback = state.forward, state.feedback
    parameters, learned = numbers(forward.params), numbers(feedback.params)
    taken = None if backend.on_gpu else TAKEN.get((backend.name, backend.kernels.name), TAKEN[UNMEASURED])
    return Estimate(
        parameters, learned, numbers((forward.memory, feedback.memory)), numbers(state.stats),
        parameters + (learned if leaves(feedback.memory) else 0), experiment.batch * numbers_made(network),
        BYTES[experiment.dtype], max(leaf.size for leaf in leaves(state)), len(network.layers),
        2 if any("reference" in reads(name) for name in experiment.metrics) else 1, taken,
    )  # fmt: skip


def numbers(tree: Tree) -> int:
    """How many numbers a tree's arrays hold; counters, keys and norms are left out."""
    return sum(leaf.size for leaf in leaves(tree) if leaf.ndim and leaf.dtype.kind == "f")


def numbers_made(network: Network) -> int:
    """Numbers that one sample's forward pass makes: what comes in, and what every synapse and operation gives."""
    made = [layer.linear.out_shape for layer in network.layers if layer.linear]
    made += [op.out_shape for layer in network.layers for op in layer.local]
    return sum(map(math.prod, [network[0].out_shape, *made]))


def check_memory(found: Estimate, backend: Backend, what: str) -> None:
    """Raise ExperimentError, with numbers, where an experiment cannot fit on the device."""
    free = backend.free_bytes()
    if free is not None and found.total > free:
        raise ExperimentError(
            f"{what} needs {found.needed} on {backend.device}, which has {size(free)} free: {found}; "
            "choose a smaller batch or model, or another device."
        )
