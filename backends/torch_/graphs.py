"""CUDA graphs: the calls of a step recorded once on the GPU, and replayed by a single call.

A graph always works on the same memory. `Replayed` hides that: arguments are copied to where the graph reads them,
results are copied out, and tensors that the step may write over live in the graph's memory from the first step on.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack, to_dlpack

from ref_bioplaus.backends.torch_.memory import owners

aten = torch.ops.aten
WARM_UP = 3  # steps before the recording, in which libraries choose their algorithms and take their memory


class CudaGraphs:
    """Records calls on a CUDA device. The graphs made by one object share memory, and replay one at a time."""

    def __init__(self, device: torch.device):
        self.device, self.pool = device, torch.cuda.graph_pool_handle()

    def warm_up(self, run: Callable[[], Any]) -> None:
        """Run the calls, on a stream of their own."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        torch.cuda.synchronize(self.device)

    def record(self, run: Callable[[], list]) -> tuple[Callable[[], None], list]:
        """A function that makes the calls again, and their results, whose memory each replay writes anew.

        Raises RuntimeError where the calls cannot be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self.pool):
            results = run()
        return graph.replay, results


class Replayed:
    """A function of tensors that copies them into a graph's memory and replays the graph.

    Tensors in `writable` places, which the caller gives away, are moved to the graph's memory for good: what the
    function returns for them lies there, and where it comes back with the next call nothing is copied. While somebody
    sees such memory, by whatever tensor, and calls with another one, the calls are made without the graph.
    """

    def __init__(self, run: Callable[..., list], tensors: list[torch.Tensor], writable: tuple[int, ...], graphs: Any):
        """graphs: a CudaGraphs. Raises RuntimeError where the calls cannot be recorded."""
        self.run = run
        self.inputs = [torch.empty_like(t) for t in tensors]
        copy(self.inputs, tensors)
        graphs.warm_up(lambda: run(*self.inputs))
        self.replay, self.results = graphs.record(lambda: run(*self.inputs))
        places = {id(self.inputs[i]): i for i in writable}
        self.moved = {j: places[id(t)] for j, t in enumerate(self.results) if id(t) in places}
        self.kept = [j for j in range(len(self.results)) if j not in self.moved]
        self.lent = {i: storage_of_its_own(self.inputs[i]) for i in self.moved.values()}  # what callers see of them

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """The results of the calls."""
        out = {i for i, storage in self.lent.items() if owners(storage) > 1}
        back = {i for i in out if tensors[i].untyped_storage()._cdata == self.lent[i]._cdata}
        if out > back:
            return self.run(*tensors)
        copied = [i for i in range(len(tensors)) if i not in back]
        copy([self.inputs[i] for i in copied], [tensors[i] for i in copied])
        self.replay()
        own = {i: tensors[i] if i in back else alias(self.inputs[i], self.lent[i]) for i in self.lent}
        new = {j: torch.empty_like(self.results[j]) for j in self.kept}
        copy(list(new.values()), [self.results[j] for j in self.kept])
        return [new[j] if j in new else own[self.moved[j]] for j in range(len(self.results))]


def copy(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Write one list of tensors over another, which may be empty."""
    if targets:
        torch._foreach_copy_(targets, sources)


def alias(t: torch.Tensor, storage: torch.UntypedStorage | None = None) -> torch.Tensor:
    """Another tensor on the same memory, or in the same place of another storage."""
    empty = torch.empty(0, dtype=t.dtype, device=t.device)
    return empty.set_(t.untyped_storage() if storage is None else storage, t.storage_offset(), t.shape, t.stride())


def storage_of_its_own(t: torch.Tensor) -> torch.UntypedStorage:
    """The memory of a tensor as another storage, whose owners are counted apart."""
    return from_dlpack(to_dlpack(alias(t))).untyped_storage()


def synchronising(graph: Any) -> str | None:
    """The first call of a captured step that waits for the GPU, and so cannot be recorded; None where there is none."""
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        values = [a.meta.get("val") for a in node.all_input_nodes]
        masks = any(isinstance(v, torch.Tensor) and v.dtype == torch.bool for v in values)
        if node.target in (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default):
            return str(node.target)
        if masks and node.target in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            return f"{node.target} with a mask"
        if "device" in node.kwargs and node.target is aten._to_copy.default:
            return f"{node.target} to another device"
    return None
