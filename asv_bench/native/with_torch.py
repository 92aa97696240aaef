"""The opponent: the same networks in PyTorch as its users write them, with autograd and the fused optimizer.

Forms: "eager" (NCHW), "channels-last", each of them under torch.compile (on a GPU in its mode "reduce-overhead"), and
there also with the whole step as one CUDA graph; locally connected layers by unfold and either bmm or einsum.
"""

import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from ref_bioplaus.backends.torch_.graphs import CudaGraphs
from ref_bioplaus.layouts import places, weights
from ref_bioplaus.linear import Convolution, Dense, LocalConnection
from ref_bioplaus.local import (  # fmt: skip
    BatchNorm,
    Bias,
    Dropout,
    Flatten,
    GlobalAveragePool,
    LocalOperation,
    MaxPool,
    Nonlinearity,
)
from ref_bioplaus.network import Network
from ref_bioplaus.types import Params

from ..workloads import Workload

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


def forms(network: Network, compiled: bool = True, on_gpu: bool = False) -> tuple[str, ...]:
    """The forms that make sense for a network; torch.compile's where asked for and a C++ compiler is there."""
    linear = [network[l].linear for l in network.weighted]
    if any(isinstance(map_, LocalConnection) for map_ in linear):
        plain: tuple[str, ...] = ("eager, bmm", "eager, einsum")
    elif any(isinstance(map_, Convolution) for map_ in linear):
        plain = ("eager", "eager, channels-last")
    else:
        plain = ("eager",)
    if on_gpu:
        plain += tuple(form.replace("eager", "graph") for form in plain)
    if compiled and (shutil.which("g++") or shutil.which("clang++") or torch.cuda.is_available()):
        return plain + tuple(form.replace("eager", "compiled") for form in plain if form.startswith("eager"))
    return plain


def forget_compiled() -> None:
    """Let torch.compile begin anew: after other networks it would take sizes for variable, and in the end give up."""
    if "torch._dynamo" in sys.modules:  # the compiler, which takes seconds to import
        torch.compiler.reset()


class TorchTraining:
    """A network learning by autograd; called as workloads.Training is. params: where to start, as torch tensors.

    precision: of float32 products on a GPU, "ieee" or "tf32"; "bf16" is autocast. graphs: what records the whole step
    of a "graph" form (see backends/torch_/graphs.py); None: CUDA.
    """

    def __init__(
        self, workload: Workload, network: Network, params: Params, form: str, device: str = "cpu",
        dtype: str = "float32", precision: str = "ieee", graphs: Any = None,
    ):  # fmt: skip
        self.network, self.device = network, torch.device(device)
        self.autocast = precision == "bf16"
        if self.device.type == "cuda" and precision != "bf16":
            # these set torch's older and newer switches alike; its compiler reads the older ones
            torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
        image = len(network[0].out_shape) == 3
        last = "channels-last" in form
        layout = torch.channels_last if last else torch.contiguous_format
        x, labels = workload.data()
        x = torch.as_tensor(x).to(self.device, getattr(torch, dtype))
        self.x = x.permute(0, 3, 1, 2).contiguous(memory_format=layout) if image else x
        self.y = torch.as_tensor(labels).to(self.device)
        self.layers: list[tuple[tuple[int, ...], list[Callable]]] = []
        self.statistics: list[tuple[torch.Tensor, torch.Tensor]] = []
        tensors: list[torch.Tensor] = []
        for l in range(1, len(network)):
            self.layers.append((network[l].inputs, self.operations(l, params[l], tensors, layout, "bmm" in form)))
        self.tensors = tensors
        if workload.adam:
            recorded = form.startswith("graph") and self.device.type == "cuda"
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
                tensors, lr=workload.eta, fused=True, capturable=recorded
            )
        else:
            self.optimizer = torch.optim.SGD(tensors, lr=workload.eta, momentum=0.9, fused=True)
        self.compute: Callable = self.loss_of
        if form.startswith("compiled"):
            graphs = "reduce-overhead" if self.device.type == "cuda" else None  # CUDA graphs
            self.compute = torch.compile(self.loss_of, mode=graphs, dynamic=False)
        self.loss: torch.Tensor | None = None
        self.replay: Callable[[], None] | None = None
        if form.startswith("graph"):
            self.record(CudaGraphs(self.device) if graphs is None else graphs)

    def record(self, graphs: Any) -> None:
        """Have the whole step be one graph from now on, from the parameters that were there before."""
        before = [t.detach().clone() for t in [*self.tensors, *(t for pair in self.statistics for t in pair)]]
        graphs.warm_up(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.replay, (self.loss,) = graphs.record(lambda: [self.step()])
        with torch.no_grad():
            states = [t for state in self.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
            for t in states:
                t.zero_()
            for t, old in zip([*self.tensors, *(t for pair in self.statistics for t in pair)], before, strict=True):
                t.copy_(old)

    def operations(self, l: int, params, tensors: list, layout, bmm: bool) -> list[Callable]:
        """The functions of one layer, its bias inside its synapses; what they learn is appended to `tensors`."""
        layer, functions, local = self.network[l], [], list(zip(self.network[l].local, params.local, strict=True))

        def learned(tensor, order=torch.contiguous_format):
            tensor = tensor.detach().to(self.device).clone(memory_format=order).requires_grad_()
            tensors.append(tensor)
            return tensor

        if layer.linear is not None:
            W, b = weights(layer.linear, places(self.network)[l].arriving).to("NCHW", params.W), None
            if isinstance(layer.linear, Dense):
                W = learned(W)
            elif isinstance(layer.linear, Convolution):
                W = learned(W, layout)
            else:  # (height, width, O, C, kernel) -> (positions, C * kernel, O), as F.unfold orders pixels
                W = learned(W.flatten(3).transpose(2, 3).flatten(0, 1))
            if local and isinstance(local[0][0], Bias):
                b = local.pop(0)[1]["b"]
                b = learned(b.reshape(-1, b.shape[-1]) if isinstance(layer.linear, LocalConnection) else b)
            functions.append(synapses(layer.linear, W, b, bmm))
        for op, p in local:
            if isinstance(op, BatchNorm):
                gamma, beta = learned(p["gamma"]), learned(p["beta"])
                running = torch.zeros_like(gamma).detach(), torch.ones_like(gamma).detach()
                self.statistics.append(running)
                functions.append(batch_norm(running, gamma, beta, op))
            else:
                functions.append(operation(op))
        return functions

    def loss_of(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch."""
        h = [x]
        for inputs, functions in self.layers:
            value = h[inputs[0]]
            for k in inputs[1:]:
                value = value + h[k]
            for function in functions:
                value = function(value)
            h.append(value)
        return F.cross_entropy(h[-1], y)

    def __call__(self) -> None:
        """One step."""
        if self.replay is None:
            self.loss = self.step()
        else:
            self.replay()

    def step(self) -> torch.Tensor:
        """Forward, backward, the optimizer; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.autocast:
            with torch.autocast(self.device.type, torch.bfloat16):
                loss = self.compute(self.x, self.y)
        else:
            loss = self.compute(self.x, self.y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def wait(self) -> None:
        """Wait for a GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def synapses(linear, W: torch.Tensor, b: torch.Tensor | None, bmm: bool) -> Callable:
    """u = W x + b."""
    if isinstance(linear, Dense):
        return lambda x: F.linear(x, W, b)
    (top, bottom), (left, right) = linear.window.padding
    stride, kernel = linear.window.stride, linear.window.kernel
    even = top == bottom and left == right
    inside = (top, left) if even else (0, 0)

    def padded(x):
        return x if even else F.pad(x, (left, right, top, bottom))

    if isinstance(linear, Convolution):
        return lambda x: F.conv2d(padded(x), W, b, stride, inside)

    def local(x):
        columns = F.unfold(padded(x), kernel, padding=inside, stride=stride)  # (N, C * kernel, positions)
        if bmm:
            columns = columns.permute(2, 0, 1)
            bias = b[:, None, :] if b is not None else torch.zeros((), dtype=x.dtype, device=x.device)
            u = torch.baddbmm(bias, columns, W).permute(1, 2, 0)
        else:
            u = torch.einsum("nkp,pko->nop", columns, W)
            u = u if b is None else u + b.T
        return u.reshape(x.shape[0], -1, *linear.window.out_size)

    return local


def batch_norm(running, gamma, beta, op: BatchNorm) -> Callable:
    """BatchNorm over a batch, which moves the running statistics."""
    return lambda x: F.batch_norm(x, *running, gamma, beta, True, op.rate, op.epsilon)


def operation(op: LocalOperation) -> Callable:
    """A local operation without parameters. Raises ValueError for one that no workload has."""
    if isinstance(op, Nonlinearity):
        return ACTIVATIONS[op.name]
    if isinstance(op, Dropout):
        return lambda x: F.dropout(x, op.probability)
    if isinstance(op, MaxPool):
        (before, _), _ = op.window.padding
        return lambda x: F.max_pool2d(x, op.window.kernel, op.window.stride, before)
    if isinstance(op, GlobalAveragePool):
        return lambda x: x.mean((2, 3))
    if isinstance(op, Flatten):
        return lambda x: x.flatten(1)
    if type(op) is LocalOperation:
        return lambda x: x
    raise ValueError(f"{type(op).__name__} has no native form here: add it to asv_bench/native/with_torch.py")
