"""A step captured once per shape as a straight line of torch calls, and run without the Python code that made it.

`torch.fx` records the calls while the real step runs, and passes.py makes fewer and quicker ones of them. On a
GPU the line is then recorded once more, as a CUDA graph.
"""

import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ref_bioplaus.backends.torch_ import loops as torch_loops
from ref_bioplaus.backends.torch_ import passes
from ref_bioplaus.backends.torch_.graphs import Replayed, alias, synchronising
from ref_bioplaus.backends.torch_.optimizers import dense
from ref_bioplaus.backends.torch_.trees import flattened, reader, rebuilt, writer
from ref_bioplaus.tree import tree_map

TRACING = threading.RLock()  # torch.fx patches torch while it traces: one thread at a time


class Line(NamedTuple):
    """A captured step, for arguments of one structure and one layout."""

    read: Callable  # arguments -> flat list of tensors; None where they are not of this structure and layout
    run: Callable  # tensors -> flat list of results
    write: Callable  # flat list of results -> the step's own tree of results
    module: torch.fx.GraphModule  # the calls, to look at
    loops: list[torch_loops.Loop]  # those that it calls: they live as long as it does
    reason: str  # why there is no CUDA graph; "" where there is one


class Captured:
    """A function of trees of tensors, captured once for every set of shapes it is called with."""

    def __init__(self, step: Callable, settings: Callable, donating: bool, graphs: Any = None):
        """settings: a function without arguments, giving the context in which the step runs.

        donating: whether the tensors of the first argument, a tree, may be written to, as nobody else can see them.
        graphs: a CudaGraphs, or None.
        """
        self.step, self.settings, self.donating, self.graphs = step, settings, donating, graphs
        self.lines: list[Line] = []
        self.turns = nullcontext() if graphs is None else threading.RLock()  # a graph works on its one memory

    def __call__(self, *arguments, begin: Callable[[], Any] = lambda: None):
        """What the step returns. begin: called before anything is written to."""
        with torch.no_grad(), self.settings(), self.turns:
            line, tensors = self.find(arguments)
            begin()
            return line.write(line.run(*tensors))

    def find(self, arguments: tuple) -> tuple[Line, list[torch.Tensor]]:
        """The line for these arguments, captured where there is none yet, and their tensors."""
        for line in self.lines:
            tensors = line.read(arguments)
            if tensors is not None:
                return line, tensors
        with TRACING:
            tensors = flattened(arguments)
            line = self.capture(arguments, tensors, len(flattened(arguments[0])) if self.donating else 0)
        self.lines.append(line)
        return line, tensors

    def capture(self, arguments: tuple, tensors: list[torch.Tensor], own: int) -> Line:
        """The line for arguments with these tensors, the first `own` of which it may write to.

        It is traced on other tensors in their memory: one of them that the step closes over is a constant, not the
        argument. What the step draws from torch's random numbers while it is traced is drawn again when it runs.
        """
        shape: list[Any] = []

        def flat(*given):
            result = self.step(*rebuilt(arguments, iter(given)))
            shape.append(tree_map(lambda _: ..., result))
            return flattened(result)

        devices = {t.device for t in tensors if t.device.type == "cuda"}
        with torch.random.fork_rng(devices), torch_loops.collected() as loops:
            module = make_fx(flat)(*map(alias, tensors))
        inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
        writable = tuple(i for i, t in enumerate(tensors[:own]) if t.is_floating_point() and dense(t))
        passes.improve(module, {inputs[i] for i in writable})
        run: Callable = passes.called_directly(module).forward
        reason = "not on a GPU"
        if self.graphs is not None:
            run, reason = replayed(run, tensors, writable, self.graphs, module.graph)
        return Line(reader(arguments), run, writer(shape[0]), module, loops, reason)


def replayed(run: Callable, tensors: list, writable: tuple[int, ...], graphs: Any, graph: Any) -> tuple[Callable, str]:
    """The calls as a CUDA graph, and no reason; or the calls themselves, and the reason why there is no graph."""
    reason = synchronising(graph)
    if reason is None:
        try:
            return Replayed(run, tensors, writable, graphs), ""
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
    warnings.warn(f"this step runs call by call, not as a CUDA graph: {reason}", stacklevel=2)
    return run, reason
