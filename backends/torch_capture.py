"""A step captured once per shape as a straight line of torch calls, and run without the Python code that made it.

`torch.fx` records the calls while the real step runs. The graph is then changed in five ways, none of which changes a
number: calls whose results nobody reads go; the same call of the same tensors is made once; what updates the state
moves behind everything else; a copy is dropped where the original is donated and nothing reads it any more; a result
takes the place of an operand that has had its last reader. What shares memory with what is read off the schemas of the
calls.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ref_bioplaus.backends.torch_kernels import dense
from ref_bioplaus.tree import tree_map

aten = torch.ops.aten

IN_PLACE: dict[Any, Any] = {  # elementwise calls that may write their result over their first operand
    aten.add.Tensor: aten.add_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.div.Tensor: aten.div_.Tensor,
    aten.tanh.default: aten.tanh_.default,
    aten.relu.default: aten.relu_.default,
    aten.sigmoid.default: aten.sigmoid_.default,
}
OVER_GRADIENT = {  # the same, into their first operand given as the place of the result
    aten.tanh_backward.default: aten.tanh_backward.grad_input,
    aten.threshold_backward.default: aten.threshold_backward.grad_input,
    aten.sigmoid_backward.default: aten.sigmoid_backward.grad_input,
}
VIEWS_UNDECLARED = (aten._unsafe_view.default,)


class Captured:
    """A function of trees of tensors, captured once for every set of shapes it is called with."""

    def __init__(self, step: Callable, settings: Callable, donating: bool):
        """settings: a function without arguments, giving the context in which the step runs.

        donating: whether the tensors of the first argument, a tree, may be written to.
        """
        self.step, self.settings, self.donating = step, settings, donating
        self.lines: dict[tuple, tuple[Callable, Any]] = {}

    def __call__(self, *arguments):
        """What the step returns."""
        tensors: list[torch.Tensor] = []
        structure = flatten(arguments, tensors)
        own = len(tensors) - len(flattened(arguments[1:])) if self.donating else 0
        part_shared_memory(tensors, own)
        writable = tuple(i for i, t in enumerate(tensors[:own]) if t.is_floating_point() and dense(t))
        layout = (structure, writable, *[(t.shape, t.stride(), t.dtype, t.device) for t in tensors])
        with torch.no_grad(), self.settings():
            if layout not in self.lines:
                self.lines[layout] = capture(self.step, arguments, tensors, writable)
            run, result = self.lines[layout]
            return rebuilt(result, iter(run(*tensors)))


def flatten(tree, tensors: list) -> Any:
    """Appends a tree's tensors; returns its structure, which can be hashed. Dicts go in the order of their keys."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return tuple([(k, flatten(tree[k], tensors)) for k in sorted(tree)])
    if isinstance(tree, tuple | list):
        return tuple([flatten(branch, tensors) for branch in tree])
    if not isinstance(tree, torch.Tensor):
        raise TypeError(f"a compiled step was given {tree!r}, expected trees of tensors only: close over anything else")
    tensors.append(tree)
    return ...


def flattened(tree) -> list[torch.Tensor]:
    """A tree's tensors, in order."""
    tensors: list[torch.Tensor] = []
    flatten(tree, tensors)
    return tensors


def rebuilt(tree, tensors) -> Any:
    """A tree's shape with the tensors of an iterator."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {k: rebuilt(tree[k], tensors) for k in sorted(tree)}
    if isinstance(tree, tuple | list):
        branches = [rebuilt(branch, tensors) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return next(tensors)


def part_shared_memory(tensors: list[torch.Tensor], own: int) -> None:
    """Replace each of the first `own` tensors by a copy where it shares its memory with another one of the list."""
    if own:
        places = [t.untyped_storage().data_ptr() for t in tensors]
        if len(set(places)) < len(places):
            for i in range(own):
                if places.count(places[i]) > 1:
                    tensors[i] = tensors[i].clone()


def capture(step: Callable, arguments: tuple, tensors: list, writable: tuple[int, ...]) -> tuple[Callable, Any]:
    """A function of the flat tensors that returns the step's flat results, and the tree to put these in."""
    shape: list[Any] = []

    def flat(*given):
        result = step(*rebuilt(arguments, iter(given)))
        shape.append(tree_map(lambda _: ..., result))
        return flattened(result)

    module = make_fx(flat)(*tensors)
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    donated = {inputs[i] for i in writable}
    keep_what_is_read(module.graph)
    compute_once(module.graph)
    update_last(module.graph, donated)
    write_in_place(module.graph, donated)
    module.graph.lint()
    module.recompile()
    return module.forward, shape[0]


def is_call(node) -> bool:
    """Whether a node is a call of one of torch's operations."""
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def written(node) -> list:
    """The nodes whose memory a call writes to. Fused updates write to gradients only where these are to be unscaled."""
    found = []
    if is_call(node):
        for i, argument in enumerate(node.target._schema.arguments):
            gradients = argument.name == "grads" and node.kwargs.get("grad_scale") is None
            if argument.alias_info is not None and argument.alias_info.is_write and not gradients:
                value = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
                found += [v for v in (value if isinstance(value, list | tuple) else [value]) if v is not None]
    return found


def origins(graph) -> dict[Any, frozenset]:
    """For every node the nodes that made the memory it lies in. A view has the origins of what it looks at."""
    made: dict[Any, frozenset] = {}
    for node in graph.nodes:
        if is_call(node):
            declared = any(r.alias_info is not None for r in node.target._schema.returns)
            if declared or node.target in VIEWS_UNDECLARED:
                made[node] = frozenset().union(*(made[a] for a in node.all_input_nodes))
                continue
        elif node.op == "call_function":  # one of several results
            source, index = node.args
            views = is_call(source) and any(r.alias_info is not None for r in source.target._schema.returns)
            made[node] = made[source] if views else frozenset({(source, index)})
            continue
        made[node] = frozenset({node})
    return made


def keep_what_is_read(graph) -> None:
    """Drop calls whose results nobody reads, and updates of memory that nobody reads."""
    made = origins(graph)
    read: set[Any] = set()
    for node in reversed(list(graph.nodes)):
        updates = frozenset().union(*(made[w] for w in written(node)))
        if node.op in ("output", "placeholder") or made[node] & read or updates & read:
            for source in node.all_input_nodes:
                read |= made[source]
                read.add(source)
        elif node not in read:
            graph.erase_node(node)


def compute_once(graph) -> None:
    """Let equal calls share their result, where nothing is ever written to it or to what it was computed from."""
    made = origins(graph)
    changing = frozenset().union(*(made[w] for node in graph.nodes for w in written(node)))
    seen: dict[Any, Any] = {}
    for node in list(graph.nodes):
        involved = made[node].union(*(made[a] for a in node.all_input_nodes))
        if not (is_call(node) or node.target is operator.getitem) or involved & changing:
            continue
        arguments = repr((node.target, node.args, node.kwargs))
        if arguments in seen:
            node.replace_all_uses_with(seen[arguments])
            graph.erase_node(node)
        else:
            seen[arguments] = node


def update_last(graph, donated: set) -> None:
    """Move copies of donated tensors, and all that depends on them, behind everything that does not.

    A call depends on an earlier one if it takes its result, reads memory that it wrote, or writes memory that it read.
    """
    made = origins(graph)
    late: set[Any] = set()
    read: set[Any] = set()
    changed: set[Any] = set()
    for node in graph.nodes:
        inputs = frozenset().union(*(made[a] for a in node.all_input_nodes))
        outputs = frozenset().union(*(made[w] for w in written(node)))
        copies = is_call(node) and node.target is aten.clone.default and node.args[0] in donated
        if copies or late.intersection(node.all_input_nodes) or inputs & changed or outputs & read:
            late.add(node)
            read |= inputs
            changed |= outputs
    end = next(node for node in graph.nodes if node.op == "output")
    for node in [n for n in graph.nodes if n in late and n is not end]:
        end.prepend(node)


def write_in_place(graph, donated: set) -> None:
    """Drop copies and write results over operands where the memory is the step's own and has no later reader."""
    made = origins(graph)
    last: dict[Any, int] = {}
    nodes = list(graph.nodes)
    for i, node in enumerate(nodes):
        for source in node.all_input_nodes:
            last |= dict.fromkeys(made[source], i)

    def free(operand, i):
        """Whether the memory under an operand may be written at place i."""
        return len(made[operand]) == 1 and all(
            last[origin] <= i and (origin in donated or not is_given(origin)) for origin in made[operand]
        )

    for i, node in enumerate(nodes):
        if not is_call(node) or not node.args or not isinstance(node.args[0], torch.fx.Node):
            continue
        operand = node.args[0]
        others = [n for n in node.all_input_nodes if n is not operand]
        if not free(operand, i) or not same_layout(operand, node) or any(made[o] & made[operand] for o in others):
            continue
        if node.target is aten.clone.default:
            replacement = operand
        elif node.target in IN_PLACE:
            with graph.inserting_before(node):
                replacement = graph.call_function(IN_PLACE[node.target], node.args, node.kwargs)
        elif node.target in OVER_GRADIENT:
            with graph.inserting_before(node):
                replacement = graph.call_function(OVER_GRADIENT[node.target], node.args, {"grad_input": operand})
        else:
            continue
        (origin,) = made[operand]
        last[origin] = max([last[origin], *(last[o] for o in made[node] if o in last)])
        if replacement is not operand:
            replacement.meta, made[replacement] = node.meta, made[operand]
        for view, lies_in in made.items():  # what lay in the result lies in the operand now
            if node in lies_in:
                made[view] = (lies_in - {node}) | made[operand]
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)


def is_given(origin) -> bool:
    """Whether memory comes from outside: an argument or a constant."""
    return not isinstance(origin, tuple) and origin.op in ("placeholder", "get_attr")


def same_layout(operand, result) -> bool:
    """Whether a result fits exactly over an operand, in which no two entries share their place."""
    a, b = operand.meta.get("val"), result.meta.get("val")
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return False
    one_each = all(step != 0 for step, n in zip(a.stride(), a.shape, strict=True) if n > 1)
    return one_each and (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)
