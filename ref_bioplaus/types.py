"""The nouns. Everything that changes while learning is one `State`, a tree of arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .tree import named_leaves

Array = Any  # whatever array_api_compat.array_namespace accepts
DType = Any  # a dtype of that namespace
Shape = tuple[int, ...]  # without the batch
Key = Array  # int32, shape (2,): the root of all random numbers
Address = tuple[Any, ...]  # (key, *names and numbers), where random numbers live: see random.py
Tree = Any  # arrays nested in tuples, named tuples and dicts; None is an empty tree


class Batch(NamedTuple):
    """One minibatch."""

    x: Array  # inputs   (N, *in_shape)
    y: Array  # targets  (N, *out_shape); class labels come one-hot


class LayerParams(NamedTuple):
    """One layer's parameters: the synapses, and what the neuron itself owns."""

    W: Array  # weights with a counterpart in the other pathway; None in a layer without synapses
    local: tuple[dict[str, Array], ...] = ()  # one dict per local operation: bias b, BatchNorm gamma and beta


NO_PARAMS = LayerParams(None)
Params = tuple[LayerParams, ...]  # indexed by layer: params[l].W is the papers' W_l


class Pathway(NamedTuple):
    """The forward path (W, b) or the feedback path (B, or V and c), with its optimizer's memory."""

    params: Tree
    memory: Tree = ()


class State(NamedTuple):
    """What the next step needs, and nothing else."""

    t: Array  # iterations done, int32, ()
    key: Key  # root of all randomness; never changes
    forward: Pathway
    feedback: Pathway
    stats: Tree  # BatchNorm's running statistics, per layer


class Info(NamedTuple):
    """What one step computed, for metrics and conformance; the next step never reads it. None: not computed."""

    loss: Array | None = None  # per sample, (N,)
    output: Array | None = None  # h_L, (N, *out_shape)
    h: tuple[Array, ...] | None = None  # output of every layer, (N, *out_shape_l)
    delta: tuple[Array, ...] | None = None  # error at each layer's pre-activation u_l, (N, *out_shape_l)
    targets: tuple[Array, ...] | None = None  # hhat_l of target propagation, (N, *out_shape_l)
    grads: Tree = None  # forward path, mean over the batch
    feedback_grads: Tree = None  # feedback path, mean over the batch


Step = Callable[[State, Batch], tuple[State, Info]]
Schedule = Callable[[int, int], tuple[str, ...]]  # (epoch, iteration) -> modes to run on this batch


def always(*modes: str) -> Schedule:
    """The schedule that runs these modes, in this order, on every batch."""
    return lambda epoch, iteration: modes


class Algorithm(NamedTuple):
    """A learning algorithm: pure functions, and the order in which to call them."""

    init: Callable[[Key], State]
    modes: Mapping[str, Step]
    schedule: Schedule = always("learn")


class Optimizer(NamedTuple):
    """What turns gradients into changes. Both functions are pure."""

    init: Callable[..., Tree]  # params, address (of its own random numbers), kernels -> memory
    update: Callable[..., tuple[Params, Tree]]  # grads, memory, params, kernels -> params, memory


class Loss(NamedTuple):
    """A task: everything here is a function of the network's last output u, per sample."""

    value: Callable[[Array, Array], Array]  # u, y -> (N,)
    gradient: Callable[[Array, Array], Array]  # u, y -> dL/du, (N, *out_shape)
    output: Callable[[Array], Array]  # u -> h_L, e.g. the predicted distribution
    target: Callable[[Array, Array], Array]  # h_L, y -> argmin_h L(h), target propagation's first target
    learned_units: int | None = None  # how many of the output's units learn; None: all (see with_auxiliary_output)


def in_order(info: Info, state: State) -> dict:
    """Every tensor of a step by name, in order of computation: up the layers, down again, then what they change."""
    parts = info._asdict()
    ordered: dict = {}
    for field in ("h", "output", "loss", "targets"):
        ordered |= {f"info/{field}{'/' if name else ''}{name}": leaf for name, leaf in named_leaves(parts[field])}
    deltas = list(enumerate(parts["delta"] or ()))
    ordered |= {f"info/delta/{l}": d for l, d in reversed(deltas) if d is not None}
    for field in ("grads", "feedback_grads"):
        ordered |= dict(named_leaves(parts[field], f"info/{field}"))
    return ordered | dict(named_leaves(state, "state"))
