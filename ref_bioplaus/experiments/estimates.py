"""What an experiment will need, in bytes, from geometry alone: nothing is allocated to find out."""

import math
import os
from pathlib import Path
from typing import NamedTuple

from ..backends import Backend
from ..network import Network
from .building import Built
from .experiment import Experiment, ExperimentError

BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}
SLOTS = {"adam": 2, "rmsprop": 3}  # tensors of an optimizer's memory per tensor it moves; sgd: 1 with momentum
SAVING = 3  # the state, and two copies of it as bytes, while a checkpoint is made
PER_UNIT = 3  # numbers kept for each unit and sample of a step: the output, what its backward pass needs, the error


class Estimate(NamedTuple):
    """Numbers of each kind, and the bytes of one."""

    parameters: int  # forward weights and local parameters
    feedback: int  # feedback weights, or inverses with their biases
    memory: int  # of optimizers and modifications
    statistics: int  # BatchNorm's running ones
    gradients: int
    activations: int
    itemsize: int
    largest: int  # of the state's tensors

    @property
    def state(self) -> int:
        """Bytes of the state, and so of a checkpoint."""
        return self.itemsize * (self.parameters + self.feedback + self.memory + self.statistics)

    @property
    def total(self) -> int:
        """Bytes that are needed at once at least: by a step, or before the first one, to draw the largest tensor."""
        return self.state + self.itemsize * max(self.gradients + self.activations, self.largest)

    def __str__(self) -> str:
        rows = {
            "parameters": self.parameters, "feedback weights": self.feedback, "optimizer memory": self.memory,
            "activations of a batch": self.activations,
        }  # fmt: skip
        parts = [f"{name} {n:,} ({size(n * self.itemsize)})" for name, n in rows.items()]
        return ", ".join(parts) + f"; in all at least {size(self.total)}"


def size(count: float) -> str:
    """Bytes for a reader: "3.2 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def estimate(experiment: Experiment, built: Built) -> Estimate:
    """What the experiment's state and one step take, counted from the network's geometry."""
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
    units = sum(math.prod(layer.out_shape) for layer in network.layers)
    return Estimate(
        parameters, feedback, memory, statistics, parameters + learned_feedback, PER_UNIT * units * experiment.batch,
        BYTES[experiment.dtype], largest_tensor(built, weights),
    )  # fmt: skip


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
    from ..inverses import mirrored_inverse

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


def free_host_memory() -> int | None:
    """Bytes that the system can still give, a container's own limit included; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return min(free, int(limit) - used) if limit != "max" else free
    except (OSError, ValueError):
        return free


def free_disk(folder: Path) -> int | None:
    """Bytes that may still be written to a folder's disk; None where the system does not say. Raises OSError."""
    if not hasattr(os, "statvfs"):
        return None
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def check_memory(found: Estimate, backend: Backend, what: str) -> None:
    """Raise ExperimentError, with numbers, where an experiment cannot fit on the device."""
    free = free_memory(backend)
    needed = max(found.total, SAVING * found.state if on_host(backend) else 0)
    if free is not None and needed > free:
        when = " while a checkpoint is made," if needed > found.total else ""
        raise ExperimentError(
            f"{what} needs at least {size(needed)}{when} on {backend.device}, which has {size(free)} free: {found}; "
            "choose a smaller batch or model, or another device."
        )
