"""What is done to the captured calls of a step before they are run, none of which changes a number.

Calls whose results nobody reads go; the same call of the same tensors is made once; calls of constants are made when
the step is captured; what updates the state moves behind everything else; a copy is dropped where the original is
donated and nothing reads it any more; a result takes the place of an operand that has had its last reader. What shares
memory with what is read off the schemas of the calls.
"""

import operator
from typing import Any

import torch
from torch.fx.node import map_arg

aten = torch.ops.aten

IN_PLACE: dict[Any, Any] = {  # elementwise calls that may write their result over their first operand
    aten.add.Tensor: aten.add_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.div.Tensor: aten.div_.Tensor,
    aten.tanh.default: aten.tanh_.default,
    aten.relu.default: aten.relu_.default,
    aten.sigmoid.default: aten.sigmoid_.default,
    aten.clamp.default: aten.clamp_.default,
    aten.ceil.default: aten.ceil_.default,
}
OVER_GRADIENT = {  # the same, into their first operand given as the place of the result
    aten.tanh_backward.default: aten.tanh_backward.grad_input,
    aten.sigmoid_backward.default: aten.sigmoid_backward.grad_input,
}
VIEWS_UNDECLARED = (aten._unsafe_view.default,)


# torch's own functions for calls of its operations: the same code behind them, with a third of the time to get there.
DIRECT: dict[Any, Any] = {
    getattr(getattr(aten, name), overload): getattr(torch, name)
    for overload, names in {
        "default": "mm addmm bmm t tanh exp log log1p expm1 sqrt neg abs sign round amax clone permute maximum minimum "
        "index_select zeros_like ones_like convolution isnan cat squeeze unsqueeze rsqrt reciprocal relu sigmoid clamp "
        "ceil",
        "Tensor": "add sub mul div bitwise_and bitwise_or bitwise_xor",
        "Scalar": "bitwise_and bitwise_xor rsub lt",
        "dim_IntList": "sum",
        "self": "where",
    }.items()
    for name in names.split()
} | {
    getattr(getattr(aten, name), overload): getattr(torch.Tensor, name)
    for overload, names in {
        "default": "view tanh_ relu_ sigmoid_ clamp_ ceil_",
        "Tensor": "add_ sub_ mul_ div_",
    }.items()
    for name in names.split()
}


def improve(module: torch.fx.GraphModule, donated: set) -> None:
    """All of it, on a module that make_fx returned; donated: the inputs that may be written to."""
    graph = module.graph
    keep_what_is_read(graph)
    turn_back(graph)
    mask_without_index(graph)
    compute_once(graph)
    compute_constants(module)
    sign_without_mask(module)
    keep_what_is_read(graph)
    update_last(graph, donated)
    write_in_place(graph, donated)
    graph.lint()
    module.recompile()


def called_directly(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """The same calls, by torch's own functions where there are some."""
    graph = torch.fx.Graph()
    output = graph.graph_copy(module.graph, {})
    graph.output(output)
    for node in graph.nodes:
        node.target = DIRECT.get(node.target, node.target)
    return torch.fx.GraphModule(module, graph)


def is_call(node) -> bool:
    """Whether a node is a call of one of torch's operations."""
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def marked(node, wanted) -> list:
    """The nodes given for those arguments of a call that are `wanted`, a function of an argument of its schema."""
    found: list[Any] = []
    for i, argument in enumerate(node.target._schema.arguments):
        if argument.alias_info is not None and wanted(argument):
            value = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            found += [v for v in (value if isinstance(value, list | tuple) else [value]) if v is not None]
    return found


def written(node) -> list:
    """The nodes whose memory a call writes to. Fused updates write to gradients only where these are to be unscaled."""
    if not is_call(node):
        return []
    unscaled = node.kwargs.get("grad_scale") is None
    return marked(node, lambda argument: argument.alias_info.is_write and not (unscaled and argument.name == "grads"))


def shown(node) -> list:
    """The nodes in whose memory the results of a call lie."""
    if node.target in VIEWS_UNDECLARED:
        return node.all_input_nodes
    declared = any(r.alias_info is not None for r in node.target._schema.returns)
    return marked(node, lambda argument: True) if declared else []


def origins(graph) -> dict[Any, frozenset]:
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


def turn_back(graph) -> None:
    """A matrix transposed twice is the matrix."""
    for node in list(graph.nodes):
        if node.target is aten.t.default and node.args[0].target is aten.t.default:
            node.replace_all_uses_with(node.args[0].args[0])
            graph.erase_node(node)


def mask_without_index(graph) -> None:
    """x[mask] = value without a list of the places where the mask holds, for which the host would wait for a GPU."""
    for node in list(graph.nodes):
        if node.target is not aten.index_put_.default or len(node.args) > 3 or node.kwargs:
            continue
        x, index, value = node.args
        inside: list[Any] = [None if n is None else n.meta.get("val") for n in (x, *index, value)]
        if len(inside) == 3 and all(isinstance(v, torch.Tensor) for v in inside):
            entries, mask, filling = inside
            if mask.dtype == torch.bool and mask.shape == entries.shape and filling.ndim == 0:
                with graph.inserting_before(node):
                    filled = graph.call_function(aten.masked_fill_.Tensor, (x, index[0], value))
                filled.meta = node.meta
                node.replace_all_uses_with(filled)
                graph.erase_node(node)


def compute_constants(module: torch.fx.GraphModule) -> None:
    """Make the calls of constants now, where nothing is ever written to what is involved."""
    graph = module.graph
    made = origins(graph)
    changing = frozenset().union(*(made[w] for node in graph.nodes for w in written(node)))
    values = {node: getattr(module, node.target) for node in graph.nodes if node.op == "get_attr"}
    for node in list(graph.nodes):
        sources = node.all_input_nodes
        if (
            not is_call(node)
            or not sources
            or written(node)
            or made[node] & changing
            or not values.keys() >= {*sources}
        ):
            continue
        value = node.target(*map_arg(node.args, values.get), **map_arg(node.kwargs, values.get))
        if isinstance(value, torch.Tensor):
            name = f"constant_{len(values)}"
            module.register_buffer(name, value)
            with graph.inserting_before(node):
                constant = graph.get_attr(name)
            constant.meta, values[constant] = node.meta, value
            node.replace_all_uses_with(constant)
            graph.erase_node(node)


def sign_without_mask(module: torch.fx.GraphModule) -> None:
    """The sign of a tensor, NaN where that is NaN, by scaling and clipping: torch's own loses NaN, and array_api_compat
    puts it back through a mask, for ten times the time of the sign. Twice this power of 2 takes every number but 0
    beyond 1, the smallest subnormal too.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is not aten.masked_fill_.Tensor:
            continue
        sign, mask, value = node.args
        if (
            (sign.target, mask.target, value.op) == (aten.sign.default, aten.isnan.default, "get_attr")
            and sign.args == mask.args
            and set(sign.users) == {node}
            and bool(getattr(module, value.target).isnan())
        ):
            (x,) = sign.args
            power = 2.0 ** (1023 if x.meta["val"].dtype == torch.float64 else 127)
            with graph.inserting_before(sign):  # where x is still what it was
                result = x
                scale, clip = (aten.mul.Tensor, [power]), (aten.clamp.default, [-1, 1])
                for call, arguments in (scale, scale, clip):
                    result = graph.call_function(call, (result, *arguments))
                    result.meta = sign.meta
            node.replace_all_uses_with(result)
            graph.erase_node(node)


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
