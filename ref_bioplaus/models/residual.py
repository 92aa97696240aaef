"""Residual networks, the part that several papers share (He et al. 2016, table 1 and fig. 5).

A block is one branch of convolutions and a shortcut, both feeding the join, a layer without synapses. Convolutions have
no bias, and kernel // 2 pixels of padding on every side, as PyTorch's ResNets have it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..linear import Part, conv, dense
from ..local import LocalOperation, batch_norm, bias, global_average_pool, max_pool, relu
from ..network import Builder, Network
from ..types import Address, Array, Shape, Tree
from ..windows import pad, spread
from .sizes import scaled


class Order(NamedTuple):
    """What follows a convolution: on the way, at the end of a branch, and once the branches are summed."""

    unit: tuple[Part, ...]
    summand: tuple[Part, ...]
    join: tuple[Part, ...]


BATCH_NORM_BEFORE_RELU = Order(unit=(batch_norm, relu), summand=(batch_norm,), join=(relu,))
BATCH_NORM_AFTER_RELU = Order(unit=(relu, batch_norm), summand=(), join=(relu, batch_norm))

Shortcut = Callable[[Builder, int, int, int, Order], int]  # net, layer x, channels, stride, order -> layer to be joined
Block = Callable[[Builder, int, int, int, Order, Shortcut], int]  # the same and the shortcut -> the join


def convolution(channels: int, kernel: int, stride: int = 1) -> Part:
    """Convolution padded by kernel // 2 pixels on every side."""
    return conv(channels, kernel, stride, padding=kernel // 2)


def basic_block(net: Builder, x: int, channels: int, stride: int, order: Order, shortcut: Shortcut) -> int:
    """Two 3x3 convolutions beside a shortcut (He et al. 2016, fig. 5 left)."""
    h = net.add(convolution(channels, 3, stride), *order.unit, inputs=(x,))
    h = net.add(convolution(channels, 3), *order.summand, inputs=(h,))
    return net.add(*order.join, inputs=(h, shortcut(net, x, channels, stride, order)))


def bottleneck(net: Builder, x: int, channels: int, stride: int, order: Order, shortcut: Shortcut) -> int:
    """1x1, 3x3 and 1x1 convolutions to four times the channels, beside a shortcut (He et al. 2016, fig. 5 right)."""
    h = net.add(convolution(channels, 1), *order.unit, inputs=(x,))
    h = net.add(convolution(channels, 3, stride), *order.unit, inputs=(h,))
    h = net.add(convolution(4 * channels, 1), *order.summand, inputs=(h,))
    return net.add(*order.join, inputs=(h, shortcut(net, x, 4 * channels, stride, order)))


def projection(net: Builder, x: int, channels: int, stride: int, order: Order) -> int:
    """Option B: the identity where the shape stays, else a 1x1 convolution (He et al. 2016, sec. 3.3)."""
    if stride == 1 and net.layers[x].out_shape[2] == channels:
        return x
    return net.add(convolution(channels, 1, stride), *order.summand, inputs=(x,))


def identity(net: Builder, x: int, channels: int, stride: int, order: Order) -> int:
    """Option A: the identity, with zeros for channels that x does not have (He et al. 2016, sec. 3.3)."""
    if stride == 1 and net.layers[x].out_shape[2] == channels:
        return x
    return net.add(padded_identity(channels, stride), inputs=(x,))


@dataclass(frozen=True)
class PaddedIdentity(LocalOperation):
    """Every stride-th pixel, followed by channels of zeros. It learns nothing."""

    channels: int
    stride: int

    @property
    def out_shape(self) -> Shape:
        """(height, width, channels), as a convolution of that stride has it."""
        height, width, _ = self.in_shape
        return -(-height // self.stride), -(-width // self.stride), self.channels

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """(N, *in_shape) -> (N, *out_shape)"""
        return pad(x[:, :: self.stride, :: self.stride, :], 3, 0, self.channels - self.in_shape[2]), stats, ()

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """The error goes back to the pixels and channels that were passed on."""
        height, width, channels = self.in_shape
        rows = spread(dy[:, :, :, :channels], 1, self.stride, 0, height)
        return spread(rows, 2, self.stride, 0, width), {}


def padded_identity(channels: int, stride: int) -> Part:
    """The identity at a stride, padded with zeros to `channels`."""
    name = f"padded_identity({channels}, stride {stride})"
    return Part(name, lambda in_shape: PaddedIdentity(in_shape, channels, stride))


def stage(
    net: Builder, x: int, blocks: int, channels: int, stride: int, block: Block, order: Order, shortcut: Shortcut
) -> int:
    """Blocks one after the other, the first of them at a stride: the number of the last join."""
    for i in range(blocks):
        x = block(net, x, channels, stride if i == 0 else 1, order, shortcut)
    return x


def imagenet_resnet(
    in_shape: Shape, classes: int, width: float, block: Block, blocks: tuple[int, int, int, int], order: Order
) -> Network:
    """He et al. 2016, table 1, with projection shortcuts. blocks: how many in conv2_x to conv5_x."""
    net = Builder(in_shape)
    imagenet_stages(net, width, block, blocks, order)
    net.add(global_average_pool)
    net.add(dense(classes), bias)
    network = net.build()
    if order != BATCH_NORM_BEFORE_RELU:
        return network
    names = torchvision_modules(block, blocks)
    layers = [replace(layer, modules=next(names)) if layer.linear else layer for layer in network.layers]
    return replace(network, layers=tuple(layers))


def imagenet_stages(
    net: Builder, width: float, block: Block, blocks: tuple[int, ...], order: Order
) -> tuple[int, int, int, int]:
    """conv1 to conv5_x of He et al. 2016, table 1: the last layers of conv2_x to conv5_x."""
    n = scaled(width)
    net.add(convolution(n(64), 7, stride=2), *order.unit)  # conv1
    x = net.add(max_pool(3, stride=2, padding=1))
    conv2 = stage(net, x, blocks[0], n(64), 1, block, order, projection)
    conv3 = stage(net, conv2, blocks[1], n(128), 2, block, order, projection)
    conv4 = stage(net, conv3, blocks[2], n(256), 2, block, order, projection)
    conv5 = stage(net, conv4, blocks[3], n(512), 2, block, order, projection)
    return conv2, conv3, conv4, conv5


def torchvision_modules(block: Block, blocks: tuple[int, ...]) -> Iterator[tuple[str, ...]]:
    """torchvision's names of the synapses and of what follows them, layer by layer: its ResNets are these networks."""
    yield "conv1", "bn1"
    for stage, count in enumerate(blocks, start=1):
        for i in range(count):
            for j in range(1, 4 if block is bottleneck else 3):
                yield f"layer{stage}.{i}.conv{j}", f"layer{stage}.{i}.bn{j}"
            if i == 0 and (stage > 1 or block is bottleneck):
                yield f"layer{stage}.{i}.downsample.0", f"layer{stage}.{i}.downsample.1"
    yield ("fc",)
