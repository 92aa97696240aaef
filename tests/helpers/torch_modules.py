"""Any network as a plain torch Module, written from its layers alone: images are channels first throughout.

Layer l is an nn.Sequential of its parts, under its number; a part that the network gives a name of its own to stands
under that. The Module's state_dict() is what an export has to fit.
"""

import importlib.util
import sys
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ref_bioplaus import local
from ref_bioplaus.linear import Convolution, Dense, LocalConnection, SharedConvolution
from ref_bioplaus.models.residual import PaddedIdentity
from ref_bioplaus.network import SUM


def padded(x, window, value=0.0):
    """An image with a window's padding around it, TensorFlow's SAME among them."""
    (top, bottom), (left, right) = window.padding
    return F.pad(x, (left, right, top, bottom), value=value)


class Conv(nn.Conv2d):
    """nn.Conv2d with the padding of a window, which may have one pixel more behind than before."""

    def __init__(self, linear, bias, dtype):
        window = linear.window
        super().__init__(window.in_shape[2], linear.channels, window.kernel, window.stride, bias=bias, dtype=dtype)
        self.window = window

    def forward(self, x):
        return super().forward(padded(x, self.window))


class LocallyConnected(nn.Module):
    """A filter bank for each position: weight (height, width, O, C, kernel height, kernel width), bias (O, H, W)."""

    def __init__(self, linear, bias, dtype):
        super().__init__()
        self.window, (height, width), channels = linear.window, linear.window.out_size, linear.channels
        shape = (height, width, channels, linear.window.in_shape[2], *linear.window.kernel)
        self.weight = nn.Parameter(torch.zeros(shape, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros((channels, height, width), dtype=dtype)) if bias else None

    def forward(self, x):
        columns = F.unfold(padded(x, self.window), self.window.kernel, stride=self.window.stride)
        u = torch.einsum("nkp,pok->nop", columns, self.weight.flatten(3).flatten(0, 1))
        u = u.reshape(x.shape[0], -1, *self.window.out_size)
        return u if self.bias is None else u + self.bias


class Bias(nn.Module):
    """A bias that follows no synapses, one per channel or per unit."""

    def __init__(self, op, dtype):
        super().__init__()
        shape = op.b_shape if len(op.b_shape) == 1 else (op.b_shape[2], *op.b_shape[:2])
        self.image = len(op.in_shape) == 3
        self.bias = nn.Parameter(torch.zeros(shape, dtype=dtype))

    def forward(self, x):
        return x + (self.bias[:, None, None] if self.image and self.bias.ndim == 1 else self.bias)


class Function(nn.Module):
    """A part without parameters."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def pool(op):
    """Max-pooling, over padding that never wins."""
    return Function(lambda x: F.max_pool2d(padded(x, op.window, float("-inf")), op.window.kernel, op.window.stride))


def average(op):
    """Average-pooling over the pixels inside the image: sums of the image over sums of ones."""

    def function(x):
        def sums(image):
            windows = F.unfold(padded(image, op.window), op.window.kernel, stride=op.window.stride)
            windows = windows.reshape(*image.shape[:2], -1, windows.shape[-1])
            return windows.sum(2).reshape(*image.shape[:2], *op.window.out_size)

        return sums(x) / sums(torch.ones_like(x))

    return Function(function)


def padded_identity(op):
    """Every stride-th pixel, followed by channels of zeros."""
    more = op.channels - op.in_shape[2]
    return Function(lambda x: F.pad(x[:, :, :: op.stride, :: op.stride], (0, 0, 0, 0, 0, more)))


class Shared(nn.Conv2d):
    """nn.Conv2d of several images, whose pixels come as rows (N, pixels, channels)."""

    def __init__(self, linear, bias, dtype):
        self.windows = linear.windows
        window = linear.window
        super().__init__(window.in_shape[2], linear.channels, window.kernel, window.stride, bias=bias, dtype=dtype)

    def forward(self, x):
        sizes = [w.in_shape[0] * w.in_shape[1] for w in self.windows]
        found = []
        for rows, window in zip(torch.split(x, sizes, dim=1), self.windows, strict=True):
            image = rows.reshape(len(x), *window.in_shape).permute(0, 3, 1, 2)
            found.append(super().forward(padded(image, window)).flatten(2).transpose(1, 2))
        return torch.cat(found, dim=1)


def as_rows(op):
    """Rows of units, from channels last."""
    return Function(lambda x: (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).reshape(len(x), -1, op.units))


def synapses(linear, bias, dtype):
    """The Module of a layer's synapses."""
    if isinstance(linear, Dense):
        return nn.Linear(linear.n_in, linear.n_out, bias=bias, dtype=dtype)
    kinds = {Convolution: Conv, LocalConnection: LocallyConnected, SharedConvolution: Shared}
    return kinds[type(linear)](linear, bias, dtype)


def operation(op, dtype):
    """The Module of what neurons do."""
    if isinstance(op, local.BatchNorm):
        kind = nn.BatchNorm2d if len(op.in_shape) == 3 else nn.BatchNorm1d
        return kind(op.in_shape[-1], eps=op.epsilon, momentum=op.rate, dtype=dtype)
    if isinstance(op, local.Nonlinearity):
        return {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[op.name]()
    return {
        local.Bias: lambda op: Bias(op, dtype),
        local.MaxPool: pool,
        local.AveragePool: average,
        local.GlobalAveragePool: lambda op: Function(lambda x: x.mean((2, 3))),
        local.Flatten: lambda op: nn.Flatten(),
        local.Rows: as_rows,
        local.Upsample: lambda op: nn.Upsample(scale_factor=op.factor),
        local.Dropout: lambda op: nn.Dropout(op.probability),
        PaddedIdentity: padded_identity,
    }[type(op)](op)


class TorchNetwork(nn.Module):
    """A network, layer by layer."""

    def __init__(self, network, dtype=torch.float64):
        super().__init__()
        self.inputs, self.parts = [(layer.inputs, layer.join) for layer in network.layers], []
        for l, layer in enumerate(network.layers):
            operations, modules = list(layer.local), []
            if layer.linear:
                bias = bool(operations) and isinstance(operations[0], local.Bias)
                if isinstance(layer.linear, Convolution | SharedConvolution):  # nn.Conv2d has a bias per channel
                    bias = bias and operations[0].b_shape == (layer.linear.channels,)
                modules.append(synapses(layer.linear, bias, dtype))
                operations = operations[bias:]
            modules += [operation(op, dtype) for op in operations]
            for n, module in enumerate(modules):
                *path, last = (layer.modules[n] if n < len(layer.modules) else f"{l}.{n}").split(".")
                parent = self
                for name in path:
                    if name not in parent._modules:
                        parent.add_module(name, nn.Module())
                    parent = parent._modules[name]
                parent.add_module(last, module)
            self.parts.append(modules)

    def forward(self, x):
        """The last layer's output."""
        h = [x]
        for (inputs, join), modules in zip(self.inputs[1:], self.parts[1:], strict=True):
            if join == SUM:
                value = sum((h[k] for k in inputs[1:]), start=h[inputs[0]])
            else:
                value = torch.cat([h[k] for k in inputs], dim=join.axis + 1)  # of rows and vectors
            for module in modules:
                value = module(value)
            h.append(value)
        return h[-1]


def channels_first(x):
    """Images as torch has them; vectors as they are."""
    return torch.as_tensor(x).permute(0, 3, 1, 2) if x.ndim == 4 else torch.as_tensor(x)


def torchvision_models():
    """torchvision's models. Its wheel is built for CUDA, and its compiled operations, which no model needs, are asked
    for where they are described to the compiler: that module is left out."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))
    from torchvision import models

    return models
