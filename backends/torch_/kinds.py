"""Which layer a torch Module is: for each kind that there is, a function from (Module, shape that arrives) to parts;
and the Modules of a layer.

Shapes are ours, (height, width, channels) or (units,). A functional form is called as torch calls it, without its
input, and gives the Module that does the same. Whatever has no counterpart raises Unreadable.
"""

import operator
from collections.abc import Callable
from math import prod
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ref_bioplaus import linear, local
from ref_bioplaus.linear import Part
from ref_bioplaus.windows import Window, pair

Shape = tuple[int, ...]


class Unreadable(ValueError):
    """What has no counterpart here; the message says why, in half a sentence."""


class Attribute(NamedTuple):
    """A parameter or statistic that a functional form is given, by its name in the Module."""

    name: str
    tensor: torch.Tensor


def only(module: Any, **wanted: Any) -> None:
    """Raise Unreadable where a Module has another value of an option than the one that there is."""
    for name, value in wanted.items():
        found = getattr(module, name)
        if found not in (value, (value, value)):
            raise Unreadable(f"its {name} is {found!r}, expected {value!r}")


def image(shape: Shape) -> Shape:
    """Height and width of what arrives. Raises Unreadable for a vector."""
    if len(shape) != 3:
        raise Unreadable(f"what arrives is a vector of {prod(shape)} units, expected an image")
    return shape[:2]


def with_bias(part: Part, module: Any) -> list[Part]:
    """Synapses, and the bias where the Module has one."""
    return [part] if module.bias is None else [part, local.bias]


def dense(module: Any, shape: Shape) -> list[Part]:
    """nn.Linear"""
    if len(shape) != 1:
        raise Unreadable(
            f"what arrives is an image of {shape[0]}x{shape[1]} pixels, expected a vector: flatten it before"
        )
    return with_bias(linear.dense(module.out_features), module)


def convolution(module: Any, shape: Shape) -> list[Part]:
    """nn.Conv2d"""
    image(shape)
    only(module, groups=1, dilation=1, padding_mode="zeros")
    padding = module.padding
    if not isinstance(padding, str | int) and padding[0] == padding[1]:
        padding = padding[0]
    return with_bias(linear.conv(module.out_channels, pair(module.kernel_size), pair(module.stride), padding), module)


def batch_norm(module: Any, shape: Shape) -> list[Part]:
    """nn.BatchNorm1d and nn.BatchNorm2d"""
    only(module, affine=True, track_running_stats=True)
    if module.momentum is None:
        raise Unreadable("its momentum is None, for a mean over all batches, expected a number")
    return [local.batch_norm_with(module.momentum, module.eps)]


def pool(module: Any, shape: Shape) -> tuple[tuple[int, int], tuple[int, int], Any]:
    """A pool's kernel, stride and padding."""
    size, kernel, padding = image(shape), pair(module.kernel_size), pair(module.padding)
    stride = pair(module.stride) if module.stride else kernel
    rests = [(n + 2 * p - k) % s for n, k, s, p in zip(size, kernel, stride, padding, strict=True)]
    if module.ceil_mode and any(rests):
        raise Unreadable("its ceil_mode adds windows that reach over the border, expected ceil_mode=False")
    return kernel, stride, padding if any(padding) else "valid"


def max_pool(module: Any, shape: Shape) -> list[Part]:
    """nn.MaxPool2d"""
    only(module, dilation=1, return_indices=False)
    return [local.max_pool(*pool(module, shape))]


def average_pool(module: Any, shape: Shape) -> list[Part]:
    """nn.AvgPool2d"""
    only(module, divisor_override=None)
    kernel, stride, padding = pool(module, shape)
    if padding != "valid" and module.count_include_pad:
        raise Unreadable("it counts padding as pixels, expected count_include_pad=False")
    return [local.average_pool(kernel, stride, padding)]


def adaptive_average_pool(module: Any, shape: Shape) -> list[Part]:
    """nn.AdaptiveAvgPool2d: to one pixel, or to as many as arrive."""
    size = image(shape)
    wanted = tuple(n if given is None else given for given, n in zip(pair(module.output_size), size, strict=True))
    if wanted not in (size, (1, 1)):
        (a, b), (c, d) = size, wanted
        raise Unreadable(
            f"it makes {c}x{d} pixels of {a}x{b}, expected 1x1 or what arrives: give images of another size"
        )
    return [] if wanted == size else [local.average_pool((size[0], size[1]))]


def flatten(module: Any, shape: Shape) -> list[Part]:
    """nn.Flatten"""
    only(module, start_dim=1)
    if module.end_dim not in (-1, len(shape)):
        raise Unreadable(f"its end_dim is {module.end_dim}, expected -1")
    return [] if len(shape) == 1 else [local.flatten]


def upsample(module: Any, shape: Shape) -> list[Part]:
    """nn.Upsample, to a whole number of times as many pixels"""
    size = image(shape)
    only(module, mode="nearest")
    if module.size is not None:
        wanted = pair(module.size)
    else:
        factors = module.scale_factor if isinstance(module.scale_factor, tuple) else (module.scale_factor,) * 2
        wanted = size[0] * factors[0], size[1] * factors[1]
    factor = int(wanted[0] // size[0])
    if factor < 1 or [factor * n for n in size] != [*wanted]:
        (a, b), (c, d) = size, wanted
        raise Unreadable(f"it makes {c:g}x{d:g} pixels of {a}x{b}, expected as many times as many in both directions")
    return [local.upsample(factor)]


KINDS: dict[type, Callable[[Any, Shape], list[Part]]] = {
    nn.Linear: dense,
    nn.Conv2d: convolution,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: average_pool,
    nn.AdaptiveAvgPool2d: adaptive_average_pool,
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d), upsample),
    nn.ReLU: lambda module, shape: [local.relu],
    nn.Tanh: lambda module, shape: [local.tanh],
    nn.Sigmoid: lambda module, shape: [local.sigmoid],
    nn.Flatten: flatten,
    nn.Dropout: lambda module, shape: [local.dropout(module.p)] if module.p else [],
    nn.Identity: lambda module, shape: [],
}
JOINS = "additions, concatenations, views as vectors, and their functional forms"
SUPPORTED = f"{', '.join(kind.__name__ for kind in KINDS)}, {JOINS}"


# The other way: the Modules of a layer, and what pads the image before each


class Padded(NamedTuple):
    """A Module, and the pixels of padding that it cannot add itself: (left, right, top, bottom), of a value."""

    module: nn.Module
    padding: tuple[int, int, int, int] | None = None
    value: float = 0.0


def windowed(window: Window, make: Callable[..., nn.Module], fill: float = 0.0) -> Padded:
    """A Module whose windows stand as these: it pads by itself where both sides get the same."""
    (top, bottom), (left, right) = window.padding
    if (top, left) == (bottom, right) and 2 * top <= window.kernel[0] and 2 * left <= window.kernel[1]:
        return Padded(make((top, left)))
    return Padded(make((0, 0)), (left, right, top, bottom), fill)


def module_of_synapses(synapses: Any, bias: bool) -> Padded:
    """The Module of a layer's synapses. Raises Unreadable for locally connected ones."""
    if isinstance(synapses, linear.Dense):
        return Padded(nn.Linear(synapses.n_in, synapses.n_out, bias))
    if not isinstance(synapses, linear.Convolution):
        raise Unreadable(f"torch has no Module of a {type(synapses).__name__}")
    window, channels = synapses.window, synapses.channels

    def make(padding):
        return nn.Conv2d(window.in_shape[2], channels, window.kernel, window.stride, padding, bias=bias)

    return windowed(window, make)


def module_of_operation(op: local.LocalOperation) -> Padded:
    """The Module of what neurons do. Raises Unreadable where torch has none."""
    if isinstance(op, local.BatchNorm):
        kind = nn.BatchNorm2d if len(op.in_shape) == 3 else nn.BatchNorm1d
        return Padded(kind(op.in_shape[-1], eps=op.epsilon, momentum=op.rate))
    if isinstance(op, local.Nonlinearity) and op.name in NONLINEARITIES:
        return Padded(NONLINEARITIES[op.name]())
    if isinstance(op, local.MaxPool):
        window = op.window
        return windowed(window, lambda padding: nn.MaxPool2d(window.kernel, window.stride, padding), float("-inf"))
    if isinstance(op, local.AveragePool):
        found = windowed(
            op.window, lambda p: nn.AvgPool2d(op.window.kernel, op.window.stride, p, count_include_pad=False)
        )
        if found.padding is None:
            return found
    if isinstance(op, local.GlobalAveragePool):
        return Padded(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    if isinstance(op, local.Flatten):
        return Padded(nn.Flatten())
    if isinstance(op, local.Upsample):
        return Padded(nn.Upsample(scale_factor=op.factor))
    if isinstance(op, local.Dropout):
        return Padded(nn.Dropout(op.probability))
    raise Unreadable(f"torch has no Module of a {getattr(op, 'name', type(op).__name__)}")


NONLINEARITIES = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


# Functional forms


def f_linear(weight: Attribute, bias: Attribute | None = None) -> SimpleNamespace:
    """F.linear"""
    return SimpleNamespace(
        kind=nn.Linear, attributes={"weight": weight, "bias": bias}, out_features=len(weight.tensor), bias=bias
    )


def f_conv2d(
    weight: Attribute, bias: Attribute | None = None, stride: int | tuple[int, int] = 1,
    padding: str | int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1, groups: int = 1,
) -> SimpleNamespace:  # fmt: skip
    """F.conv2d"""
    return SimpleNamespace(
        kind=nn.Conv2d, attributes={"weight": weight, "bias": bias}, out_channels=len(weight.tensor), bias=bias,
        kernel_size=tuple(weight.tensor.shape[2:]), stride=stride, padding=padding, dilation=dilation, groups=groups,
        padding_mode="zeros",
    )  # fmt: skip


def f_batch_norm(
    running_mean: Attribute | None, running_var: Attribute | None, weight: Attribute | None = None,
    bias: Attribute | None = None, training: bool = False, momentum: float | None = 0.1, eps: float = 1e-5,
) -> SimpleNamespace:  # fmt: skip
    """F.batch_norm"""
    if not training:
        raise Unreadable("its training is False while the Module trains, expected training=self.training")
    found = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    return SimpleNamespace(
        kind=nn.BatchNorm2d, attributes=found, momentum=momentum, eps=eps, affine=None not in (weight, bias),
        track_running_stats=None not in (running_mean, running_var),
    )  # fmt: skip


def f_max_pool2d(
    kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None, padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> nn.Module:  # fmt: skip
    """F.max_pool2d, whose arguments have another order than the Module's"""
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, return_indices, ceil_mode)


def f_dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    """F.dropout"""
    return nn.Dropout(p if training else 0.0, inplace)


def f_interpolate(
    size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> nn.Module:  # fmt: skip
    """F.interpolate"""
    if antialias:
        raise Unreadable("its antialias is True, expected False")
    return nn.Upsample(size, scale_factor, mode, align_corners, recompute_scale_factor)


def f_flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    """torch.flatten"""
    return nn.Flatten(start_dim, end_dim)


def f_mean(dim: Any = None, keepdim: bool = False) -> nn.Module:
    """torch.mean over an image: one pixel, or a vector"""
    dims = dim if isinstance(dim, list | tuple) else (dim,)
    if sorted(n % 4 for n in dims if isinstance(n, int)) != [2, 3]:
        raise Unreadable(f"its dim is {dim!r}, expected (2, 3)")
    return nn.AdaptiveAvgPool2d(1) if keepdim else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


FUNCTIONS: dict[Any, Callable[..., Any]] = {  # methods go by their names
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), nn.ReLU),
    **dict.fromkeys((torch.tanh, torch.tanh_, "tanh", "tanh_"), nn.Tanh),
    **dict.fromkeys((torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_"), nn.Sigmoid),
    **dict.fromkeys((torch.flatten, "flatten"), f_flatten),
    **dict.fromkeys((torch.mean, "mean"), f_mean),
    F.linear: f_linear,
    F.conv2d: f_conv2d,
    F.batch_norm: f_batch_norm,
    F.max_pool2d: f_max_pool2d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.dropout: f_dropout,
    F.interpolate: f_interpolate,
    "contiguous": nn.Identity,
}
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
VIEWS = (torch.reshape, "view", "reshape")
WRITING = (operator.iadd, F.relu_, torch.relu_, torch.tanh_, torch.sigmoid_, "add_", "relu_", "tanh_", "sigmoid_")
# By name, what may give the memory that it was given
SAME_MEMORY = {"view", "reshape", "flatten", "Flatten", "contiguous", "Identity", "dropout", "Dropout",
               "AdaptiveAvgPool2d", "adaptive_avg_pool2d"}  # fmt: skip
OF_THE_LOSS = {"Softmax", "LogSoftmax", "softmax", "log_softmax"}
