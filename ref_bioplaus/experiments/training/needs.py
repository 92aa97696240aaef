"""What an experiment will need, in bytes, from geometry alone: nothing is allocated to find out."""

import math
from typing import NamedTuple

from ...backends import Backend
from ...machine.memory import free_host_memory, size
from ...network import Network
from ..spec.building import Built
from ..spec.experiment import Experiment, ExperimentError

BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}
SLOTS = {"adam": 2, "rmsprop": 3}  # tensors of an optimizer's memory per tensor it moves; sgd: 1 with momentum
COMPARING = {"delta_angles", "gradient_ratios"}  # metrics for which a step of backpropagation runs beside the own one


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
        return self.itemsize * (self.parameters + self.feedback + self.memory + self.statistics)

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
            "parameters": self.parameters, "feedback weights": self.feedback, "optimizer memory": self.memory,
            "activations of a batch": self.activations,
        }  # fmt: skip
        parts = [f"{name} {n:,} ({size(n * self.itemsize)})" for name, n in rows.items()]
        return ", ".join(parts) + f"; in all {self.needed}"


def estimate(experiment: Experiment, built: Built, backend: Backend) -> Estimate:
    """What the experiment's state and one step take, counted from the network's geometry, and a run on this backend."""
    network, module = built.network, built.row.module
    weights = {l: math.prod(network[l].linear.weight_shape) for l in network.weighted}
    parameters = network.parameter_count
    local = parameters - sum(weights.values())
    feedback, feedback_weights = feedback_size(experiment, built, weights)
    memory = optimizer_size(experiment.optimizer, parameters)
    learned_feedback = 0
    if module == "kolen_pollack":
        memory += optimizer_size(experiment.optimizer, feedback)
        learned_feedback = feedback
    if built.row.inverses:
        memory += optimizer_size(experiment.inverse_optimizer, feedback)
        learned_feedback = feedback
    for name, options in built.row.wrappers:
        moved = parameters - (0 if options.get("on") == "all" else local)
        moved += feedback_weights if module == "kolen_pollack" else 0
        memory += moved if name in ("align-to-random", "fixed-signs") else 0
    statistics = sum(2 * math.prod(s) for n, s in network.parameter_shapes.items() if n.endswith("/gamma"))
    taken = TAKEN.get((backend.name, backend.kernels.name), TAKEN[UNMEASURED]) if on_host(backend) else None
    return Estimate(
        parameters, feedback, memory, statistics, parameters + learned_feedback,
        experiment.batch * numbers_made(network), BYTES[experiment.dtype], largest_tensor(built, weights),
        len(network.layers), 2 if COMPARING.intersection(experiment.metrics) else 1, taken,
    )  # fmt: skip


def numbers_made(network: Network) -> int:
    """Numbers that one sample's forward pass makes: what comes in, and what every synapse and operation gives."""
    made = [layer.linear.out_shape for layer in network.layers if layer.linear]
    made += [op.out_shape for layer in network.layers for op in layer.local]
    return sum(map(math.prod, [network[0].out_shape, *made]))


def optimizer_size(options, count: int) -> int:
    """Numbers in the memory of an optimizer that moves so many; its counters are left out."""
    slots = SLOTS.get(options["name"], 1 if options.get("momentum") else 0)
    return slots * count


def feedback_size(experiment: Experiment, built: Built, weights: dict[int, int]) -> tuple[int, int]:
    """Numbers of the feedback path, and those of them that are weights."""
    network, row = built.network, built.row
    options, module = row.options, row.module
    generated = options.get("feedback") == "generated"  # drawn whenever it is needed
    if module == "direct_feedback_alignment":
        n = 0 if generated else sum(direct_sizes(built))
        return n, n
    if module == "target_propagation":
        return inverse_size(built)
    kept = [l for l in network.feedback_layers if not (options.get("symmetric_output") and l == network.weighted[-1])]
    n = sum(weights[l] for l in kept)
    if module == "dense_feedback_alignment" and not generated:
        n += dense_size(network)
    if module == "sign_symmetry" and options["rule"].__name__ != "initial_magnitude":
        n = 0
    return (0, 0) if module == "backprop" else (n, n)


def direct_sizes(built: Built) -> list[int]:
    """Numbers of each of DFA's feedback matrices."""
    network = built.network
    reached = [network[l].out_shape for l in network.populations]
    if built.row.options.get("skips") == "exact":
        reached = [network[l].in_shape for l in network.feedback_layers]
    return [network[network.L].out_shape[0] * math.prod(shape) for shape in reached]


def largest_tensor(built: Built, weights: dict[int, int]) -> int:
    """Numbers of the largest weights of the state, DenseFA's and the inverses' left out."""
    generated = built.row.options.get("feedback") == "generated"
    direct = built.row.module == "direct_feedback_alignment" and not generated
    return max([*weights.values(), *(direct_sizes(built) if direct else [])])


def dense_size(network: Network) -> int:
    """Numbers of DenseFA's connections from every layer further up."""
    return sum(
        math.prod(network[k].linear.out_shape) * math.prod(network[l].out_shape)
        for l in network.populations
        for k in network.downstream(l)
        if l not in network[k].inputs
    )


def inverse_size(built: Built) -> tuple[int, int]:
    """Numbers of target propagation's inverses, and those of them that are weights."""
    from ...inverses import mirrored_inverse

    network = built.network
    inverse = built.row.options.get("inverse", mirrored_inverse)
    top = network.L - 1 if built.row.name.startswith("dtp") else network.L
    layers = [inverse(network, l) for l in network.weighted if 1 < l <= top]
    weights = sum(math.prod(layer.linear.weight_shape) for layer in layers)
    local = sum(math.prod(s) for layer in layers for op in layer.local for s in op.parameter_shapes.values())
    return weights + local, weights


# What there is


def free_memory(backend: Backend) -> int | None:
    """Bytes that are free on the backend's device, as far as it says; None where it does not."""
    device = backend.device
    if on_host(backend):
        return free_host_memory()
    if backend.name == "torch":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if backend.name == "cupy":
        import cupy

        with device:
            return int(cupy.cuda.runtime.memGetInfo()[0])
    found = device.memory_stats() or {}
    return found["bytes_limit"] - found["bytes_in_use"] if "bytes_limit" in found else None


def on_host(backend: Backend) -> bool:
    """Whether the backend computes in the memory in which checkpoints are made."""
    kind = getattr(backend.device, "type", getattr(backend.device, "platform", "cpu"))
    return backend.name != "cupy" and kind == "cpu"


def check_memory(found: Estimate, backend: Backend, what: str) -> None:
    """Raise ExperimentError, with numbers, where an experiment cannot fit on the device."""
    free = free_memory(backend)
    if free is not None and found.total > free:
        raise ExperimentError(
            f"{what} needs {found.needed} on {backend.device}, which has {size(free)} free: {found}; "
            "choose a smaller batch or model, or another device."
        )
