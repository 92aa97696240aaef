"""To and from torch: any rule trains a Module of one's own, and its weights go back. Found as `rb.interop`.

    network, params, stats = rb.interop.from_torch(module, torch.zeros(1, 3, 32, 32))
    algorithm = rb.algorithms.kolen_pollack(network, loss, optimizer, initializer=rb.initializers.given(params, stats))
    ...
    module.load_state_dict(rb.interop.state_dict(backend, network, state))

A Module is read one node of its torch.fx graph after the other. What a node gives is a `Value`: the output of a layer
that grows part by part, until synapses, a pool, a join or a second reader begin another one. `kinds.py` says which
parts a Module is.
"""

import operator
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

from ref_bioplaus import local
from ref_bioplaus.backends.base import Backend, listed
from ref_bioplaus.backends.numpy_.backend import backend as numpy_backend
from ref_bioplaus.backends.torch_.kinds import (
    ADDITIONS,
    CONCATENATIONS,
    FUNCTIONS,
    KINDS,
    OF_THE_LOSS,
    SAME_MEMORY,
    SUPPORTED,
    VIEWS,
    WRITING,
    Attribute,
    Padded,
    Shape,
    Unreadable,
    module_of_operation,
    module_of_synapses,
)
from ref_bioplaus.initializers import forward_params, zero
from ref_bioplaus.inverses import mirrored_inverse
from ref_bioplaus.layouts import tensors
from ref_bioplaus.linear import Part
from ref_bioplaus.network import Builder, Concatenation, Layer, Network
from ref_bioplaus.types import Params, State, Tree

BATCH = 7919  # what a Module is told that a batch has: no number that stands in one
POOLS = (local.MaxPool, local.AveragePool, local.GlobalAveragePool)  # layers of their own, as in models/
SHAPES = ("size", "dim", "shape")  # what is asked of a tensor without reading its numbers


class FromTorch(NamedTuple):
    """A Module as a network, with its weights and BatchNorm's running statistics as NumPy arrays in our layout."""

    network: Network
    params: Params
    stats: Tree


def from_torch(module: nn.Module, example: torch.Tensor) -> FromTorch:
    """A Module's layers as a Network, and the weights that it has now.

    example: a batch as the Module takes it, (N, channels, height, width) or (N, units), of which the shape is read. The
    network takes (N, height, width, channels), is of float64 where the Module is, else of float32, and its layers have
    the Module's names, so that `state_dict` and `export_params` give what the Module loads. Layers are grouped as in
    models/: synapses with what follows them; pools and joins begin a layer. The Module is left as it is. Whether a
    Module trains, and which of its parameters are frozen, is not read: a rule teaches all of them.

    Raises ValueError, one sentence, where torch.fx cannot trace the Module, and for the first node that has no
    counterpart here.
    """
    if not isinstance(module, nn.Module) or not isinstance(example, torch.Tensor) or example.ndim not in (2, 4):
        shape = f"a tensor of shape {tuple(example.shape)}" if isinstance(example, torch.Tensor) else repr(example)
        raise ValueError(
            f"from_torch: given a {type(module).__name__} and {shape}, expected a Module and a batch as it takes them, "
            "(N, channels, height, width) or (N, units)"
        )
    theirs, held = tuple(example.shape[1:]), module.state_dict()
    check(module)
    dtype = "float64" if any(tensor.dtype == torch.float64 for tensor in held.values()) else "float32"
    network = Reading(module, (*theirs[1:], theirs[0]) if len(theirs) == 3 else theirs).network(dtype)
    params, stats = forward_params(network, (np.zeros(2, np.int32),), zero)
    read = tensors(network, params, stats, mirrored_inverse)
    unread = [name for name in held if name not in read]
    if unread:
        raise ValueError(f"from_torch: {listed(unread)} not used by the Module's forward pass: take away what is not")
    arrays = {name: tensor.detach().to("cpu", getattr(torch, dtype)).numpy() for name, tensor in held.items()}
    return FromTorch(network, *numpy_backend(dtype=dtype).import_params(network, params, arrays, stats))


def state_dict(backend: Backend, network: Network, state: State) -> dict[str, torch.Tensor]:
    """A state's forward weights and statistics as tensors on the CPU, under PyTorch's names and in its layout.

    A Module that `from_torch` has read takes them by load_state_dict(strict=True); layouts.py says which names other
    networks give. BatchNorm's num_batches_tracked, which only momentum=None reads, is 0. Raises ValueError for a state
    of another network.
    """
    arrays = backend.export_params(network, state.forward.params, state.stats)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def to_torch(network: Network) -> nn.Module:
    """A Module of a network's layers, with weights of torch's own, in the network's dtype.

    It takes images channels first, and by load_state_dict(strict=True) what `state_dict` and `export` give of the
    network; its `code` shows what it does. Raises ValueError for the first layer that torch has no Module of.
    """
    root, graph = nn.Module(), fx.Graph()
    known = [graph.placeholder("x")]
    for l, layer in enumerate(network.layers[1:], start=1):
        value = known[layer.inputs[0]]
        if isinstance(layer.join, Concatenation):
            dim = (2, 3, 1)[layer.join.axis] if len(layer.in_shape) == 3 else layer.join.axis + 1
            value = graph.call_function(torch.cat, ([known[k] for k in layer.inputs], dim))
        else:
            for k in layer.inputs[1:]:
                value = graph.call_function(operator.add, (value, known[k]))
        try:
            modules = modules_of(layer)
        except Unreadable as error:
            raise ValueError(f"to_torch: layer {l} ({layer.name}): {error}") from None
        for n, (module, padding, fill) in enumerate(modules):
            if padding:
                value = graph.call_function(nn.functional.pad, (value, padding), {"value": fill})
            own = f"{l}.{n}" if module.state_dict() else f"part_{l}_{n}"  # in the way of no name of a Module read
            name = (layer.modules[n] if n < len(layer.modules) else "") or own
            placed(root, name, module)
            value = graph.call_module(name, (value,))
        known.append(value)
    graph.output(known[-1])
    return fx.GraphModule(root, graph).to(getattr(torch, network.dtype))


def modules_of(layer: Layer) -> list[Padded]:
    """The Modules of a layer's parts; the bias behind synapses is theirs. Raises Unreadable."""
    follows = layer.local[0] if layer.linear and layer.local else None
    bias = isinstance(follows, local.Bias) and len(follows.b_shape) == 1
    first = [module_of_synapses(layer.linear, bias)] if layer.linear else []
    return [*first, *map(module_of_operation, layer.local[bias:])]


def placed(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put a Module into another one under a dotted name."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


def check(module: nn.Module) -> None:
    """Raise ValueError for what no graph shows: hooks, and parameters that have two names."""
    for name, part in module.named_modules():
        if part._forward_hooks or part._forward_pre_hooks:
            raise ValueError(f'from_torch: module "{name}" has hooks, which are not read: remove them')
    names: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        first = names.setdefault(id(parameter), name)
        if first != name:
            raise ValueError(f'from_torch: "{first}" and "{name}" are one parameter, and layers do not share weights')


class Written(fx.Proxy):
    """A tensor of a Module that is traced, of which `a += b` is another call than `a + b`."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class Tracer(fx.Tracer):
    """torch.fx's, which notes what is written over."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for a node's tensor."""
        return Written(node, self)


def traced(module: nn.Module) -> fx.Graph:
    """A Module's graph, as it trains. Raises ValueError where torch.fx finds none, and where it is another in test."""
    modes, graphs = {part: part.training for part in module.modules()}, []
    try:
        for training in (False, True):
            for part in modes:
                part.training = training
            graphs.append(Tracer().trace(module))
    except Exception as error:  # whatever the Module's own code raises
        raise ValueError(
            f"from_torch: torch.fx cannot trace the {type(module).__name__} ({' '.join(str(error).split())}): its "
            "forward pass must be the same for every input"
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    in_test, in_training = ([(node.op, node.target) for node in graph.nodes] for graph in graphs)
    if in_test != in_training:
        raise ValueError(
            f"from_torch: the {type(module).__name__} has other calls in training than in test, expected the same but "
            "for training=self.training of dropout and BatchNorm"
        )
    return graphs[1]


@dataclass(frozen=True)
class Value:
    """What a node gives: parts behind the sum, or the concatenation, of some layers' outputs."""

    shape: Shape
    inputs: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()
    modules: tuple[str, ...] = ()  # torch's names of the parts, as in Layer.modules
    layer: int | None = None  # its number, where nothing can join it any more
    concat: int | None = None  # the axis along which the inputs stand one behind the other; None: they are added
    averaged: Shape | None = None  # the image of which the last part is the mean, one pixel

    @property
    def theirs(self) -> Shape:
        """torch's shape: (N, C, H, W) or (N, units)."""
        return (BATCH, self.shape[2], *self.shape[:2]) if len(self.shape) == 3 else (BATCH, *self.shape)


class Reading:
    """A Module's graph on its way to a network."""

    def __init__(self, module: nn.Module, shape: Shape):
        """shape: of an input, ours. Raises ValueError where torch.fx cannot trace the Module."""
        self.module, self.shape, self.graph = module, shape, traced(module)
        self.at = {node: i for i, node in enumerate(self.graph.nodes)}
        self.builder = Builder(shape)
        self.modules: dict[int, tuple[str, ...]] = {}  # of each layer
        self.used: set[str] = set()  # Modules with parameters that have been called
        self.together: dict[fx.Node, set[fx.Node]] = {}  # nodes whose memory may be the same

    def network(self, dtype: str) -> Network:
        """The network. Raises ValueError for the first node that has no counterpart."""
        known: dict[fx.Node, Any] = {}
        for node in self.graph.nodes:
            try:
                known[node] = self.value(node, known)
            except (ValueError, TypeError) as error:
                of_the_loss = "leave it out, as the loss has it here: rb.losses.cross_entropy()"
                why = of_the_loss if self.kind(node) in OF_THE_LOSS else str(error)
                raise ValueError(f"from_torch cannot read {self.told(node)}: {why}") from None
        network = self.builder.build(dtype)
        layers = [replace(layer, modules=self.modules.get(l, ())) for l, layer in enumerate(network.layers)]
        return replace(network, layers=tuple(layers))

    def kind(self, node: fx.Node) -> str:
        """The name of a node's Module, function or method."""
        if node.op == "call_module":
            return type(self.module.get_submodule(str(node.target))).__name__
        return getattr(node.target, "__name__", str(node.target))

    def told(self, node: fx.Node) -> str:
        """A node in a sentence."""
        if node.op == "call_module":
            return f'module "{node.target}", of kind {self.kind(node)}'
        if node.op in ("placeholder", "output"):
            return f'the Module\'s {"input" if node.op == "placeholder" else "output"} "{node.name}"'
        return f'node "{node.name}", a call of {self.kind(node)}'

    def value(self, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
        """What a node gives: a Value, an Attribute, or what Python calculates. Raises ValueError."""
        args: Any = fx.node.map_arg(node.args, known.__getitem__)
        named: Any = fx.node.map_arg(node.kwargs, known.__getitem__)
        self.together[node] = {node}
        if node.op == "placeholder":
            if known and not node.args:
                raise Unreadable("expected one input, and a default for every other")
            return node.args[0] if known else Value(self.shape, layer=0)
        if node.op == "get_attr":
            return Attribute(str(node.target), operator.attrgetter(str(node.target))(self.module))
        if node.op == "output":
            if not isinstance(args[0], Value):
                raise Unreadable(f"it is a {type(args[0]).__name__}, expected one tensor that layers have made")
            return self.closed(args[0])
        if node.op == "call_function" and all(map(is_plain, (*args, *named.values()))):
            calculate: Any = node.target
            return calculate(*args, **named)  # with sizes
        if isinstance(args[0], Value) and (what := asks(node)):
            return sizes(what, args[0], *args[1 + (what == "shape") :], **named)
        found = self.made(node, args, {name: given for name, given in named.items() if name != "input"})
        self.check_memory(node)
        readers = [user for user in node.users if not asks(user)]
        return self.closed(found) if len(readers) > 1 else found

    def made(self, node: fx.Node, args: tuple, named: dict[str, Any]) -> Value:
        """What a node makes of what arrives. Raises ValueError."""
        if node.target in CONCATENATIONS:
            return self.concatenation(*args, **named)
        if not isinstance(args[0], Value):
            raise Unreadable(f"expected {SUPPORTED}, of what layers have made")
        if node.op == "call_module":
            return self.extended(args[0], self.module.get_submodule(str(node.target)), str(node.target))
        if node.target in ADDITIONS:
            return self.sum(*args, **named)
        if node.target in VIEWS:
            return self.view(*args, **named)
        if node.target not in FUNCTIONS:
            raise Unreadable(f"expected {SUPPORTED}")
        module = FUNCTIONS[node.target](*args[1:], **named)
        if isinstance(module, nn.Sequential):
            return self.extended(self.extended(args[0], module[0]), module[1])
        given = {name: held for name, held in getattr(module, "attributes", {}).items() if held is not None}
        place = given["weight"].name.rpartition(".")[0] if "weight" in given else ""
        if any(held.name != f"{place}.{name}" for name, held in given.items()) or (given and not place):
            names = ", ".join(f'"{held.name}"' for held in given.values())
            raise Unreadable(f'it is given {names}, expected names as "fc.weight", of a Module in the Module')
        return self.extended(args[0], module, place)

    def extended(self, value: Value, module: Any, name: str = "") -> Value:
        """A value behind which a Module stands. Raises ValueError."""
        kind = getattr(module, "kind", type(module))
        if kind not in KINDS:
            raise Unreadable(f"expected {SUPPORTED}")
        parts = KINDS[kind](module, value.shape)
        if getattr(module, "weight", None) is not None or hasattr(module, "attributes"):
            if name in self.used:
                raise Unreadable("it is called twice, and layers do not share weights")
            self.used.add(name)
        averaged = value.shape if kind is nn.AdaptiveAvgPool2d and parts else None
        if parts == [local.flatten] and value.averaged:  # the mean of an image as a vector
            value = replace(value, shape=value.averaged, parts=value.parts[:-1], modules=value.modules[:-1])
            parts = [local.global_average_pool]
        for i, part in enumerate(parts):
            built = part.build(value.shape)
            synapses = not isinstance(built, local.LocalOperation)
            if value.layer is not None or synapses or (isinstance(built, POOLS) and value.parts):
                value = Value(value.shape, (self.number(value),))
            modules = value.modules if i else (*value.modules, name)  # synapses and their bias are one Module
            value = replace(value, shape=built.out_shape, parts=(*value.parts, part), modules=modules)
        return replace(value, averaged=averaged) if parts else value

    def sum(self, a: Value, b: Any = None, other: Any = None, alpha: float = 1) -> Value:
        """The sum of two values. Raises Unreadable."""
        b = other if b is None else b
        if not isinstance(b, Value) or alpha != 1:
            raise Unreadable("expected the sum of two tensors that layers have made")
        if a.shape != b.shape:
            raise Unreadable(f"expected two of one shape, got {a.theirs[1:]} and {b.theirs[1:]} for each sample")
        return Value(a.shape, (self.number(a), self.number(b)))

    def concatenation(self, tensors: Any, dim: int = 0) -> Value:
        """Values one behind the other. Raises Unreadable."""
        if not tensors or not all(isinstance(value, Value) for value in tensors):
            raise Unreadable("expected a list of tensors that layers have made")
        first, *more = (value.shape for value in tensors)
        axis = (2, 0, 1)[dim % 4 - 1] if len(first) == 3 else dim % 2 - 1  # of our shapes, without the batch
        if dim % (len(first) + 1) == 0:
            raise Unreadable(f"its dim is {dim}, which is the batch, expected one of a sample's own")
        if any(len(shape) != len(first) or without(axis, shape) != without(axis, first) for shape in more):
            shapes = " and ".join(str(value.theirs[1:]) for value in tensors)
            raise Unreadable(f"expected tensors that differ only along dim {dim}, got {shapes} for each sample")
        shape = (*first[:axis], sum(value.shape[axis] for value in tensors), *first[axis + 1 :])
        return Value(shape, tuple(map(self.number, tensors)), concat=axis)

    def view(self, value: Value, *shape: Any) -> Value:
        """A value as a vector, or as it is. Raises Unreadable for other shapes."""
        given = tuple(shape[0]) if shape and isinstance(shape[0], list | tuple) else shape
        if not all(isinstance(n, int) for n in given) or given.count(-1) > 1 or 0 in given:
            raise Unreadable("expected sizes that are known, as in x.view(x.size(0), -1)")
        rest = prod(value.theirs) // prod(n for n in given if n != -1)
        wanted = tuple(rest if n == -1 else n for n in given)
        if wanted != value.theirs and wanted != (BATCH, prod(value.shape)):
            raise Unreadable(
                f"expected each sample as a vector, as x.flatten(1) gives it, of {prod(value.shape)} numbers"
            )
        return value if wanted == value.theirs else self.extended(value, nn.Flatten())

    def closed(self, value: Value) -> Value:
        """A value of a layer that is there."""
        return Value(value.shape, layer=self.number(value))

    def number(self, value: Value) -> int:
        """The number of a value's layer, which is added where it is not there yet."""
        if value.layer is not None:
            return value.layer
        l = self.builder.add(*value.parts, inputs=value.inputs, concat=value.concat)
        self.modules[l] = value.modules
        return l

    def check_memory(self, node: fx.Node) -> None:
        """Note which nodes may be the same memory. Raises Unreadable where one is written over that is read later."""
        module = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        target = None if module is not None else node.target
        writes = bool(getattr(module, "inplace", False) or node.kwargs.get("inplace")) or target in WRITING
        if not writes and self.kind(node) not in SAME_MEMORY:
            return
        first = node.all_input_nodes[0]
        together = self.together[first] | {node}
        for one in together:
            self.together[one] = together
        later = [user for one in together - {node} for user in one.users if self.at[user] > self.at[node]]
        if writes and not all(map(asks, later)):
            raise Unreadable("it writes over what is read again later: leave out inplace")


def asks(node: fx.Node) -> str:
    """What a node asks of a tensor's shape: "size", "dim" or "shape"; "" where it asks nothing."""
    name = node.args[1] if node.target is getattr else node.target
    return str(name) if name in SHAPES and node.op in ("call_function", "call_method") else ""


def sizes(what: str, value: Value, dim: int | None = None) -> Any:
    """What is asked of a value's shape, as torch has it."""
    if what == "dim":
        return len(value.theirs)
    return value.theirs if dim is None else value.theirs[dim]


def without(axis: int, shape: Shape) -> Shape:
    """A shape's other sides."""
    return (*shape[:axis], *shape[axis + 1 :])


def is_plain(value: Any) -> bool:
    """Whether Python calculates with a value: numbers, words and tuples of them."""
    if isinstance(value, list | tuple) and not isinstance(value, Attribute):
        return all(map(is_plain, value))
    return value is None or isinstance(value, int | float | str | slice)
