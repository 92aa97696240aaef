"""The memory of a captured step: who made each piece of it, who reads and writes it, and what may be written over."""

import sys
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
VIEWS_UNDECLARED = (aten._unsafe_view.default,)
RANDOM = "the state of torch's random numbers"  # what every draw of random numbers reads and changes


class Memory:
    """A piece of memory is known by what made it: a call, an argument or a constant of the step.

    A call may write over what the step itself made or was given for good, once nobody reads it any more; a step's
    results are read at its end. Constants and all other arguments belong to others. That nobody else sees a donated
    argument is seen to before the step is called (ownership.py). A piece is in doubt, and left alone, where a node may
    lie in one of several.
    """

    def __init__(self, graph: torch.fx.Graph, donated: frozenset | set = frozenset()):
        """donated: the arguments that may be written over."""
        self.made, self.donated = origins(graph), donated
        self.changed = frozenset().union(*(self.changed_by(node) for node in graph.nodes))
        self.place = {node: i for i, node in enumerate(graph.nodes)}
        self.last: dict[Any, int] = {}  # by piece: the place of its last reader
        for node, i in self.place.items():
            self.last |= dict.fromkeys(self.read_by(node), i)

    def read_by(self, node: torch.fx.Node) -> frozenset:
        """The pieces that a call takes."""
        drawn = {RANDOM} if draws(node) else ()
        return frozenset().union(drawn, *(self.made[a] for a in node.all_input_nodes))

    def changed_by(self, node: torch.fx.Node) -> frozenset:
        """The pieces that a call writes to."""
        drawn = {RANDOM} if draws(node) else ()
        return frozenset().union(drawn, *(self.made[w] for w in written(node)))

    def changes(self, node: torch.fx.Node) -> bool:
        """Whether any call writes to what a call takes or to its result, so that its place in the line matters."""
        return bool((self.made[node] | self.read_by(node)) & self.changed)

    def may_become(self, operand: torch.fx.Node, node: torch.fx.Node) -> bool:
        """Whether a call may write its result over one of its operands."""
        pieces, i = self.made[operand], self.place[node]
        others = (a for a in node.all_input_nodes if a is not operand)
        return (
            len(pieces) == 1
            and all(self.last[p] <= i and (p in self.donated or not is_given(p)) for p in pieces)
            and not any(self.made[a] & pieces for a in others)
        )

    def becomes(self, operand: torch.fx.Node, node: torch.fx.Node, replacement: torch.fx.Node) -> None:
        """Take down that the result of a call lies in an operand's memory from now on, where `replacement` shows it."""
        (piece,) = self.made[operand]
        self.last[piece] = max([self.last[piece], *(self.last[p] for p in self.made[node] if p in self.last)])
        self.made[replacement] = self.made[operand]
        for view, pieces in self.made.items():  # what lay in the result
            if node in pieces:
                self.made[view] = (pieces - {node}) | self.made[operand]


def draws(node: Any) -> bool:
    """Whether a call draws random numbers: two equal ones give different numbers."""
    return is_call(node) and torch.Tag.nondeterministic_seeded in node.target.tags


def is_call(node: torch.fx.Node) -> bool:
    """Whether a node is a call of one of torch's operations."""
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def marked(node: Any, wanted: Callable) -> list:
    """The nodes given for those arguments of a call that are `wanted`, a function of an argument of its schema."""
    found: list[Any] = []
    for i, argument in enumerate(node.target._schema.arguments):
        if argument.alias_info is not None and wanted(argument):
            value = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            found += [v for v in (value if isinstance(value, list | tuple) else [value]) if v is not None]
    return found


def written(node: torch.fx.Node) -> list:
    """The nodes whose memory a call writes to. Fused updates write to gradients only where these are to be unscaled."""
    if not is_call(node):
        return []
    unscaled = node.kwargs.get("grad_scale") is None
    return marked(node, lambda argument: argument.alias_info.is_write and not (unscaled and argument.name == "grads"))


def shown(node: Any) -> list:
    """The nodes in whose memory the results of a call lie."""
    if node.target in VIEWS_UNDECLARED:
        return node.all_input_nodes
    declared = any(r.alias_info is not None for r in node.target._schema.returns)
    return marked(node, lambda argument: True) if declared else []


def origins(graph: torch.fx.Graph) -> dict[Any, frozenset]:
    """For every node the nodes that made the memory it lies in. A view has the origins of what it looks at."""
    made: dict[Any, frozenset] = {}
    for node in graph.nodes:
        if is_call(node):
            made[node] = frozenset().union(*(made[a] for a in shown(node))) or frozenset({node})
        elif node.op == "call_function":  # one of several results
            source, index = node.args
            made[node] = made[source] if is_call(source) and shown(source) else frozenset({(source, index)})
        else:
            made[node] = frozenset({node})
    return made


def is_given(origin: Any) -> bool:
    """Whether memory comes from outside: an argument or a constant."""
    return not isinstance(origin, tuple) and origin.op in ("placeholder", "get_attr")


# Memory at run time. Torch's own counts are private: without them everything is in somebody's sight.

storage_owners = getattr(torch._C, "_storage_Use_Count", lambda address: sys.maxsize)
tensor_owners = getattr(torch.Tensor, "_use_count", lambda t: sys.maxsize)


def owners(storage: torch.UntypedStorage) -> int:
    """How many own a storage: tensors, views of them, and Python's own handle."""
    return storage_owners(storage._cdata)


def alone(t: torch.Tensor) -> bool:
    """Whether nothing else lies in a tensor's memory, a view, an array of another library or a storage."""
    return tensor_owners(t) == 1 and storage_owners(t.untyped_storage()._cdata) == 2
