"""A step captured once per shape as a straight line of torch calls, and run without the Python code that made it.

`torch.fx` records the calls while the real step runs, and torch_passes.py makes fewer and quicker ones of them. On a
GPU the line is then recorded once more, as a CUDA graph.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ref_bioplaus.backends import torch_passes
from ref_bioplaus.backends.torch_graphs import Replayed, synchronising
from ref_bioplaus.backends.torch_optimizers import dense
from ref_bioplaus.backends.torch_trees import flattened, reader, rebuilt, writer
from ref_bioplaus.tree import tree_map


class Line(NamedTuple):
    """A captured step, for arguments of one structure and one layout."""

    read: Callable  # arguments -> flat list of tensors; None where they are not of this structure and layout
    run: Callable  # tensors -> flat list of results
    write: Callable  # flat list of results -> the step's own tree of results
    own: int  # how many of the tensors it may write to
    module: torch.fx.GraphModule  # the calls, to look at
    reason: str  # why there is no CUDA graph; "" where there is one


class Captured:
    """A function of trees of tensors, captured once for every set of shapes it is called with."""

    def __init__(self, step: Callable, settings: Callable, donating: bool, graphs: Any = None):
        """settings: a function without arguments, giving the context in which the step runs.

        donating: whether the tensors of the first argument, a tree, may be written to. graphs: a CudaGraphs, or None.
        """
        self.step, self.settings, self.donating, self.graphs = step, settings, donating, graphs
        self.lines: list[Line] = []

    def __call__(self, *arguments):
        """What the step returns."""
        with torch.no_grad(), self.settings():
            line, tensors = self.find(arguments)
            return line.write(line.run(*tensors))

    def find(self, arguments: tuple) -> tuple[Line, list[torch.Tensor]]:
        """The line for these arguments, captured where there is none yet, and their tensors."""
        for line in self.lines:
            tensors = line.read(arguments)
            if tensors is not None:
                if part_shared_memory(tensors, line.own):
                    return self.find(rebuilt(arguments, iter(tensors)))
                return line, tensors
        tensors = flattened(arguments)
        own = len(flattened(arguments[0])) if self.donating else 0
        if part_shared_memory(tensors, own):
            return self.find(rebuilt(arguments, iter(tensors)))
        line = self.capture(arguments, tensors, own)
        self.lines.append(line)
        return line, tensors

    def capture(self, arguments: tuple, tensors: list[torch.Tensor], own: int) -> Line:
        """The line for arguments with these tensors, the first `own` of which it may write to."""
        shape: list[Any] = []

        def flat(*given):
            result = self.step(*rebuilt(arguments, iter(given)))
            shape.append(tree_map(lambda _: ..., result))
            return flattened(result)

        module = make_fx(flat)(*tensors)
        inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
        writable = tuple(i for i, t in enumerate(tensors[:own]) if t.is_floating_point() and dense(t))
        torch_passes.improve(module, {inputs[i] for i in writable})
        run: Callable = torch_passes.called_directly(module).forward
        reason = "not on a GPU"
        if self.graphs is not None:
            run, reason = replayed(run, tensors, writable, self.graphs, module.graph)
        return Line(reader(arguments), run, writer(shape[0]), own, module, reason)


def replayed(run: Callable, tensors: list, writable: tuple[int, ...], graphs, graph) -> tuple[Callable, str]:
    """The calls as a CUDA graph, and no reason; or the calls themselves, and the reason why there is no graph."""
    reason = synchronising(graph)
    if reason is None:
        try:
            return Replayed(run, tensors, writable, graphs), ""
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
    warnings.warn(f"this step runs call by call, not as a CUDA graph: {reason}", stacklevel=2)
    return run, reason


def part_shared_memory(tensors: list[torch.Tensor], own: int) -> bool:
    """Replace each of the first `own` tensors by a copy where it shares its memory with another one of the list.

    Returns whether there was one.
    """
    found = False
    if own:
        places = [t.untyped_storage().data_ptr() for t in tensors]
        if len(set(places)) < len(places):
            for i in range(own):
                if places.count(places[i]) > 1 and tensors[i].numel():
                    tensors[i], found = tensors[i].clone(), True
    return found
