"""What is done to the captured calls of a step before they are run, none of which changes a number.

A pass stays while it buys 3 % somewhere (one left out at a time, on two cores of an AMD EPYC with AVX-512, steps of
small and of 1024-unit MLPs, a convolutional net and ResNet-18): write_in_place 11 to 26 % on the MLPs, called_directly
4 to 10 % on the small one, compute_constants and sign_without_mask 5 % of sign-symmetry's steps; keep_what_is_read 3 to
5 % of these; update_last 3 % of ResNet-18's, and memory, as without it no update is written in place.
mask_without_index is there for GPUs. What compute_once buys was not told from nothing; it shares copies of kernels and
padded images.

Calls whose results nobody reads go; the same call of the same tensors is made once; calls of constants are made when
the step is captured; what updates the state moves behind everything else; a copy is dropped where the original is
donated and nothing reads it any more; a result takes the place of an operand that has had its last reader. Who may
write to which memory is memory.py's to say.
"""

import operator
from typing import Any

import torch
from torch.fx.node import map_arg

from ref_bioplaus.backends.torch_.memory import RANDOM, Memory, is_call

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
RANGES = {aten.arange.default, aten.arange.start, aten.arange.start_step}
SHORT = 1 << 12  # entries of a range that is kept as a constant

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


def keep_what_is_read(graph: torch.fx.Graph) -> None:
    """Drop calls whose results nobody reads, and updates of memory that nobody reads; not draws of random numbers."""
    memory = Memory(graph)
    read: set[Any] = {RANDOM}
    for node in reversed(list(graph.nodes)):
        if node.op in ("output", "placeholder") or memory.made[node] & read or memory.changed_by(node) & read:
            for source in node.all_input_nodes:
                read |= memory.made[source]
                read.add(source)
        elif node not in read:
            graph.erase_node(node)


def compute_once(graph: torch.fx.Graph) -> None:
    """Let equal calls share their result, where nothing is ever written to it or to what it was computed from."""
    memory = Memory(graph)
    seen: dict[Any, Any] = {}
    for node in list(graph.nodes):
        if not (is_call(node) or node.target is operator.getitem) or memory.changes(node):
            continue
        arguments = repr((node.target, node.args, node.kwargs))
        if arguments in seen:
            node.replace_all_uses_with(seen[arguments])
            graph.erase_node(node)
        else:
            seen[arguments] = node


def mask_without_index(graph: torch.fx.Graph) -> None:
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
    """Make the calls of constants, and short ranges, now, where nothing is ever written to what is involved."""
    graph = module.graph
    memory = Memory(graph)
    values = {node: getattr(module, node.target) for node in graph.nodes if node.op == "get_attr"}
    for node in list(graph.nodes):
        sources = node.all_input_nodes
        known = values.keys() >= {*sources} and (sources or node.target in RANGES and node.meta["val"].numel() < SHORT)
        if not is_call(node) or not known or memory.changes(node):
            continue
        value = node.target(*map_arg(node.args, values.get), **map_arg(node.kwargs, values.get))
        if isinstance(value, torch.Tensor):
            name = f"constant_{len(values)}"
            module.register_buffer(name, value)
            with graph.inserting_before(node):
                constant = graph.get_attr(name)
            constant.meta, values[constant] = node.meta, value
            memory.made[constant] = frozenset({constant})
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


def update_last(graph: torch.fx.Graph, donated: set) -> None:
    """Move copies of donated tensors, and all that depends on them, behind everything that does not.

    A call depends on an earlier one if it takes its result, reads memory that it wrote, or writes memory that it read.
    """
    memory = Memory(graph)
    late: set[Any] = set()
    read: set[Any] = set()
    changed: set[Any] = set()
    for node in graph.nodes:
        inputs, outputs = memory.read_by(node), memory.changed_by(node)
        copies = is_call(node) and node.target is aten.clone.default and node.args[0] in donated
        if copies or late.intersection(node.all_input_nodes) or inputs & changed or outputs & read:
            late.add(node)
            read |= inputs
            changed |= outputs
    end = next(node for node in graph.nodes if node.op == "output")
    for node in [n for n in graph.nodes if n in late and n is not end]:
        end.prepend(node)


def write_in_place(graph: torch.fx.Graph, donated: set) -> None:
    """Drop copies and write results over operands where the memory is the step's own and has no later reader."""
    memory = Memory(graph, donated)
    for node in list(graph.nodes):
        if not is_call(node) or not node.args or not isinstance(node.args[0], torch.fx.Node):
            continue
        operand = node.args[0]
        if not same_layout(operand, node) or not memory.may_become(operand, node):
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
        if replacement is not operand:
            replacement.meta = node.meta
        memory.becomes(operand, node, replacement)
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)


def same_layout(operand: torch.fx.Node, result: torch.fx.Node) -> bool:
    """Whether a result fits exactly over an operand, in which no two entries share their place."""
    a, b = operand.meta.get("val"), result.meta.get("val")
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return False
    one_each = all(step != 0 for step, n in zip(a.stride(), a.shape, strict=True) if n > 1)
    return one_each and (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)
