"""A network is a list of layers in forward order; layer 0 is the input, so h[0] = x as in the papers.

A layer joins its inputs, passes them through its synapses, then through its local operations:

    x_l = join of h_k over k in inputs        u_l = W_l x_l        h_l = local(u_l)

In a chain inputs = (l - 1,). A residual block is two layers feeding a third without synapses, whose join is their sum.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import accumulate, pairwise, repeat
from typing import Any, NamedTuple, Protocol

from array_api_compat import array_namespace

from .kernels import PORTABLE, Kernels
from .linear import Part
from .local import Bias, LocalOperation, Nonlinearity
from .types import Address, Array, DType, Key, LayerParams, Loss, Params, Shape, State, Tree


class Join(Protocol):
    """How a layer makes x_l of its inputs, and which error each of them gets of the one at x_l."""

    def combine(self, inputs: Sequence[Array], kernels: Kernels) -> Array: ...
    def split(self, error: Array) -> Iterable[Array]: ...


@dataclass(frozen=True)
class Sum:
    """The inputs, of one shape, are added; each gets the whole error."""

    def combine(self, inputs: Sequence[Array], kernels: Kernels) -> Array:
        """(N, *shape) each -> (N, *shape)"""
        return reduce(kernels.add, inputs)

    def split(self, error: Array) -> Iterable[Array]:
        """The error, for as many as there are."""
        return repeat(error)


@dataclass(frozen=True)
class Concatenation:
    """The inputs stand one behind the other along an axis; each gets its own part of the error."""

    axis: int  # of a shape: 0 is the first behind the batch
    lengths: tuple[int, ...]  # of the inputs along that axis

    def combine(self, inputs: Sequence[Array], kernels: Kernels) -> Array:
        """(N, *shape) each, different along the axis alone -> the same, as long as all of them"""
        return array_namespace(*inputs).concat(list(inputs), axis=self.axis + 1)

    def split(self, error: Array) -> Iterable[Array]:
        """Where each of them stands."""
        before, behind = (slice(None),) * (self.axis + 1), (slice(None),) * (error.ndim - self.axis - 2)
        return [error[(*before, slice(a, b), *behind)] for a, b in pairwise(accumulate(self.lengths, initial=0))]


SUM = Sum()


@dataclass(frozen=True)
class Layer:
    """One layer: where its input comes from, its synapses (None: a join or pooling), what its neurons do."""

    inputs: tuple[int, ...]
    linear: Any  # a LinearMap, or None
    local: tuple[LocalOperation, ...]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    name: str = ""
    modules: tuple[str, ...] = ()  # PyTorch's names of its parts (see layouts.py), where a network has such there
    join: Join = SUM


@dataclass(frozen=True, repr=False)
class Network:
    """Layers 0 (the input) to L, the dtype of their parameters, and the kernels they are bound to."""

    layers: tuple[Layer, ...]
    dtype: str = "float32"
    kernels: Kernels = PORTABLE

    def __getitem__(self, l: int) -> Layer:
        return self.layers[l]

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def L(self) -> int:
        """The output layer's number."""
        return len(self.layers) - 1

    @cached_property
    def weighted(self) -> tuple[int, ...]:
        """Layers with synapses, in forward order."""
        return tuple(l for l, layer in enumerate(self.layers) if layer.linear)

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """Layers whose synapses feed no others: the last ones, of which a network with several heads has several."""
        return tuple(l for l in self.weighted if not self.downstream(l))

    @cached_property
    def feedback_layers(self) -> tuple[int, ...]:
        """Layers with something below them that learns, so that an error must pass back through their synapses."""
        return tuple(l for l in self.weighted if self.learning.intersection(self[l].inputs))

    @cached_property
    def populations(self) -> tuple[int, ...]:
        """Layers that learn, or have something below them that does, whose output feeds a layer with synapses."""
        return tuple(sorted(self.learning.intersection(k for l in self.feedback_layers for k in self[l].inputs)))

    @cached_property
    def learning(self) -> frozenset[int]:
        """Layers with parameters, or with a layer somewhere below them that has some: where errors are of use."""
        learning: set[int] = set()
        for l, layer in enumerate(self.layers):
            if layer.linear or any(op.parameter_shapes for op in layer.local) or learning.intersection(layer.inputs):
                learning.add(l)
        return frozenset(learning)

    def downstream(self, k: int) -> tuple[int, ...]:
        """Layers with synapses that the output of layer k reaches, in forward order."""
        reached = {k}
        for l in range(k + 1, len(self)):
            if reached.intersection(self[l].inputs):
                reached.add(l)
        return tuple(l for l in self.weighted if l in reached and l > k)

    def output_of(self, l: int) -> int:
        """The layer whose output is that of layer l in a chain: l itself, or the last without synapses behind it."""
        return min((k for k in self.weighted if k > l), default=len(self)) - 1

    def with_kernels(self, kernels: Kernels) -> "Network":
        """The same network, computed by other kernels."""

        def bound(part):
            return replace(part, kernels=kernels) if hasattr(part, "kernels") else part

        layers = [
            replace(layer, linear=bound(layer.linear) if layer.linear else None, local=tuple(map(bound, layer.local)))
            for layer in self.layers
        ]
        return replace(self, layers=tuple(layers), kernels=kernels)

    def with_dtype(self, dtype: str) -> "Network":
        """The same network with parameters of another dtype, given by name: "float32", "float64", "bfloat16"."""
        return replace(self, dtype=dtype)

    @cached_property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every learned tensor of the forward path by name, as in "3/W", "3/b", "4/gamma"."""
        shapes: dict[str, tuple[int, ...]] = {}
        for l, layer in enumerate(self.layers):
            if layer.linear:
                shapes[f"{l}/W"] = layer.linear.weight_shape
            for op in layer.local:
                shapes |= {f"{l}/{name}": shape for name, shape in op.parameter_shapes.items()}
        return shapes

    @property
    def parameter_count(self) -> int:
        """Learned numbers of the forward path."""
        return sum(math.prod(shape) for shape in self.parameter_shapes.values())

    def __repr__(self) -> str:
        rows = [f"{l:>3}  {layer.name:<58} {layer.out_shape}" for l, layer in enumerate(self.layers)]
        return "\n".join([*rows, f"{self.parameter_count:,} parameters, {self.dtype}"])


class Trace(NamedTuple):
    """One forward pass, per layer: x[l] joined input, h[l] output, cache[l] what the local backward needs."""

    x: tuple[Array, ...]
    h: tuple[Array, ...]
    cache: tuple[Tree, ...]


def forward(
    network: Network, params: Params, stats: Tree, x: Array, key: Address = (), train: bool = True
) -> tuple[Trace, Tree]:
    """All layers' outputs, and BatchNorm's new running statistics.

    x (N, *in_shape). key: the address of this pass's random numbers (dropout). Raises ValueError where x's shape or
    dtype is not the network's.
    """
    check_input(network, params, x)
    h, inputs, new_stats, cache = [x], [x], [stats[0]], [()]
    for l, layer in enumerate(network.layers[1:], start=1):
        x_l = layer.join.combine([h[k] for k in layer.inputs], network.kernels)
        h_l, s, c = layer_forward(layer, params[l], stats[l], x_l, (*key, l), train)
        inputs.append(x_l)
        h.append(h_l)
        new_stats.append(s)
        cache.append(c)
    return Trace(tuple(inputs), tuple(h), tuple(cache)), tuple(new_stats)


def layer_forward(
    layer: Layer, params: LayerParams, stats: Tree, x: Array, key: Address = (), train: bool = True
) -> tuple[Array, Tree, Tree]:
    """x_l -> h_l, new statistics, cache."""
    h = layer.linear.apply(params.W, x) if layer.linear else x
    new_stats, cache = [], []
    for i, op in enumerate(layer.local):
        h, s, c = op.forward(params.local[i], stats[i], h, (*key, i), train)
        new_stats.append(s)
        cache.append(c)
    return h, tuple(new_stats), tuple(cache)


def layer_backward(layer: Layer, params: LayerParams, cache: Tree, dh: Array) -> tuple[Array, tuple[dict, ...]]:
    """Error at h_l -> error delta_l at u_l, gradients of the local parameters: exact, and local to the neuron."""
    grads = []
    for op, p, c in reversed(tuple(zip(layer.local, params.local, cache, strict=True))):
        dh, g = op.backward(p, c, dh)
        grads.append(g)
    return dh, tuple(reversed(grads))


def predict(network: Network, loss: Loss, state: State, x: Array) -> Array:
    """h_L in test mode: no dropout, BatchNorm's running statistics. x (N, *in_shape) -> (N, *out_shape)."""
    trace, _ = forward(network, state.forward.params, state.stats, x, train=False)
    return loss.output(trace.h[-1])


def mirror_response(layer: Layer, params: LayerParams, noise: Array, biases: bool) -> Array:
    """phi(W noise [+ b]): a layer's own synapses, bias and nonlinearity, without BatchNorm, dropout or pooling."""
    response = layer.linear.apply(params.W, noise)
    for op, p in zip(layer.local, params.local, strict=True):
        if isinstance(op, Nonlinearity) or (biases and isinstance(op, Bias)):
            response, _, _ = op.forward(p, {}, response, (), False)
    return response


def check_input(network: Network, params: Params, x: Array) -> None:
    """Raise ValueError where a batch does not fit the network."""
    expected = network[0].out_shape
    if tuple(x.shape[1:]) != expected:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (N, {', '.join(map(str, expected))})")
    W = params[network.weighted[0]].W
    if x.dtype != W.dtype:
        raise ValueError(f"x has dtype {x.dtype}, expected {W.dtype} as the parameters have: convert the batch first")
    if x.shape[0] == 0:
        raise ValueError("x holds no samples: a batch needs at least one")


# Building


class Builder:
    """Collects layers; `add` returns the new layer's number, to be named as an input of later ones."""

    def __init__(self, in_shape: Collection[int]):
        shape = tuple(in_shape)
        self.layers = [Layer((), None, (), shape, shape, "input")]

    def add(self, *parts: Part, inputs: tuple[int, ...] | None = None, concat: int | None = None) -> int:
        """Append a layer: synapses first (or none), then local operations. inputs: the layer before, unless named.

        Several inputs are summed, or, with concat, put one behind the other along that axis, 0 being the first behind
        the batch. Raises ValueError naming the layer, what came in and what was expected.
        """
        l = len(self.layers)
        inputs = (l - 1,) if inputs is None else tuple(inputs)
        name = " · ".join(part.name for part in parts) or ("join" if concat is None else "concatenation")
        for k in inputs:
            if not 0 <= k < l:
                raise ValueError(f"layer {l} ({name}): input {k} does not exist yet, expected layers 0 to {l - 1}")
        shapes = [self.layers[k].out_shape for k in inputs]
        try:
            join, in_shape = joined(shapes, concat)
        except ValueError as error:
            arriving = ", ".join(f"{self.layers[k].out_shape} from layer {k}" for k in inputs)
            raise ValueError(f"layer {l} ({name}): its inputs {error}, got {arriving}") from None
        shape, linear, local = in_shape, None, list[LocalOperation]()
        for part in parts:
            try:
                built = part.build(shape)
            except ValueError as error:
                raise ValueError(f"layer {l}, {part.name} in ({name}): {error}") from None
            if isinstance(built, LocalOperation):
                local.append(built)
            elif linear is not None or local:
                raise ValueError(f"layer {l} ({name}): synapses come first and once; give {part.name} its own layer")
            else:
                linear = built
            shape = built.out_shape
        prefix = "" if inputs == (l - 1,) else f"[{('+' if join == SUM else ', ').join(map(str, inputs))}] "
        self.layers.append(Layer(inputs, linear, tuple(local), in_shape, shape, prefix + name, join=join))
        return l

    def build(self, dtype: str = "float32") -> Network:
        """The network of the layers added. Raises ValueError where a layer feeds nothing or none has synapses."""
        used = {k for layer in self.layers for k in layer.inputs}
        for l in range(1, len(self.layers) - 1):
            if l not in used:
                raise ValueError(f"layer {l} ({self.layers[l].name}) feeds no other layer: name it as an input of one")
        network = Network(tuple(self.layers), dtype)
        if not network.weighted:
            raise ValueError("a network needs at least one layer with synapses (dense, conv or locally_connected)")
        return network


def joined(shapes: Sequence[Shape], concat: int | None) -> tuple[Join, Shape]:
    """How inputs of these shapes become one, and its shape. Raises ValueError for shapes that do not fit."""
    first, axis = shapes[0] if shapes else (), concat
    if axis is None:
        if len({*shapes}) != 1:
            raise ValueError("must have one shape to be summed")
        return SUM, first
    if not 0 <= axis < len(first) or len({(*shape[:axis], -1, *shape[axis + 1 :]) for shape in shapes}) != 1:
        raise ValueError(f"must have one shape, but for axis {axis}, to be put one behind the other along it")
    lengths = tuple(shape[axis] for shape in shapes)
    return Concatenation(axis, lengths), (*first[:axis], sum(lengths), *first[axis + 1 :])


def chain(in_shape: Collection[int], *layers: Part | Collection[Part], dtype: str = "float32") -> Network:
    """Layers one after the other: chain((28, 28, 1), (conv(32, 5), bias, relu), max_pool(2), (dense(10), bias))."""
    builder = Builder(in_shape)
    for parts in layers:
        builder.add(*((parts,) if isinstance(parts, Part) else parts))
    return builder.build(dtype)


def dtype_of(network: Network, key: Array) -> DType:
    """The network's dtype in the namespace of a key. Raises ValueError where that library has none, and for no key."""
    check_key(key)
    xp = array_namespace(key)
    if not hasattr(xp, network.dtype):
        raise ValueError(f'dtype "{network.dtype}" is unknown to {xp.__name__}: choose "float32" or "float64"')
    return getattr(xp, network.dtype)


def check_key(key: Key) -> None:
    """Raise ValueError where the key is not an int32 array of shape (2,)."""
    if not hasattr(key, "shape"):
        raise ValueError(f"the key is {key!r}, expected a backend's: backend.key(seed=0)")
    if tuple(key.shape) != (2,) or key.dtype != array_namespace(key).int32:
        raise ValueError(f"the key has shape {tuple(key.shape)} and dtype {key.dtype}, expected int32 of shape (2,)")
