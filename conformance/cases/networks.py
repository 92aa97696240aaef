"""Small networks on which every algorithm is tried: layers, images and kernels that are not square throughout."""

import numpy as np

import ref_bioplaus as rb
from ref_bioplaus import (
    Builder,
    batch_norm,
    bias,
    chain,
    conv,
    dense,
    dropout,
    flatten,
    global_average_pool,
    locally_connected,
    max_pool,
    rectified_tanh,
    relu,
    sigmoid,
    tanh,
    unit_bias,
)
from ref_bioplaus.network import Network
from ref_bioplaus.types import State

CLASSES = 4
IMAGE = (8, 6, 3)


def fully_connected(outputs: int = CLASSES):
    """Two hidden layers of tanh."""
    return chain((9,), (dense(11), bias, tanh), (dense(7), bias, tanh), (dense(outputs), bias), dtype="float64")


def locally_connected_net(outputs: int = CLASSES):
    """Two locally connected layers of tanh, then a dense one."""
    return chain(
        IMAGE,
        (locally_connected(4, (3, 2), stride=2), unit_bias, tanh),
        (locally_connected(5, 3, stride=(1, 2)), unit_bias, tanh, flatten),
        (dense(outputs), bias),
        dtype="float64",
    )


def convolutional():
    """Convolution, max-pool, BatchNorm, dropout, and every nonlinearity but tanh."""
    return chain(
        IMAGE,
        (conv(4, (3, 5)), bias, relu),
        max_pool((2, 3), stride=(2, 1), padding=(1, 1)),
        (conv(5, 3, stride=2, padding=1), batch_norm, relu, flatten),
        (dense(7), bias, sigmoid, dropout(0.5)),
        (dense(CLASSES), bias),
        dtype="float64",
    )


def convolutional_chain(outputs: int = CLASSES):
    """Without pooling, which a mirrored inverse cannot undo."""
    return chain(
        IMAGE,
        (conv(4, (3, 5), stride=2), bias, tanh),
        (conv(5, 3, stride=(1, 2)), bias, rectified_tanh, flatten),
        (dense(outputs), bias),
        dtype="float64",
    )


def residual(batch_norm_after_relu: bool):
    """A residual net with an identity skip, a projected skip and BatchNorm on either side of the ReLU."""
    net = Builder(IMAGE)
    unit = (relu, batch_norm) if batch_norm_after_relu else (batch_norm, relu)
    linear = () if batch_norm_after_relu else (batch_norm,)
    join = (relu, batch_norm) if batch_norm_after_relu else (relu,)
    x = net.add(conv(5, 3), *unit)
    y = net.add(conv(5, 3), *unit, inputs=(x,))
    y = net.add(conv(5, 3), *linear, inputs=(y,))
    x = net.add(*join, inputs=(x, y))
    y = net.add(conv(6, 3, stride=2), *unit, inputs=(x,))
    y = net.add(conv(6, 3), *linear, inputs=(y,))
    s = net.add(conv(6, 1, stride=2), *linear, inputs=(x,))
    net.add(*join, inputs=(s, y))
    net.add(global_average_pool)
    net.add(dense(CLASSES), bias)
    return net.build("float64")


def residual_after():
    """BatchNorm after the ReLU."""
    return residual(True)


def residual_before():
    """BatchNorm before the ReLU."""
    return residual(False)


def heads(net: Builder):
    """Two maps of one image, the coarse one enlarged onto the fine one, and convolutions that both share. They end in
    two layers of synapses that feed no others, whose units stand side by side: (60, 3) and (60, 4)."""
    fine = net.add(conv(5, 3), bias, tanh)
    coarse = net.add(conv(5, (3, 2), stride=2), batch_norm, tanh, inputs=(fine,))
    larger = net.add(rb.upsample(2), inputs=(coarse,))
    fine = net.add(tanh, inputs=(fine, larger))
    sizes = [net.layers[k].out_shape for k in (fine, coarse)]
    pixels = [net.add(rb.rows(), inputs=(k,)) for k in (fine, coarse)]
    h = net.add(rb.shared_conv(4, (3, 2), sizes), bias, tanh, inputs=tuple(pixels), concat=0)
    a = net.add(
        rb.shared_conv(6, 3, sizes, stride=(2, 1), padding=1), rb.local.bias_from(-0.5), rb.rows(3), inputs=(h,)
    )
    b = net.add(rb.shared_conv(2 * CLASSES, (3, 1), sizes, stride=(2, 1), padding=(1, 0)), rb.rows(4), inputs=(h,))
    return net.add(inputs=(a, b), concat=1)


def pyramid(outputs: int = CLASSES):
    """What `heads` gives, as a vector for a last dense layer."""
    net = Builder(IMAGE)
    heads(net)
    net.add(tanh, flatten)
    net.add(dense(outputs), bias)
    return net.build("float64")


def detector():
    """`heads` alone: for every anchor three classes and four offsets."""
    net = Builder(IMAGE)
    heads(net)
    return net.build("float64")


GRADIENT = {
    "FC": fully_connected,
    "LC": locally_connected_net,
    "conv": convolutional,
    "ResNet, BN after ReLU": residual_after,
    "ResNet, BN before ReLU": residual_before,
}


def square(outputs: int = CLASSES):
    """Equal layers: where a transposed weight, and that of another layer from the output, has the right shape."""
    return chain((9,), (dense(7), bias, tanh), (dense(7), bias, tanh), (dense(outputs), bias), dtype="float64")


def equal(outputs: int = CLASSES):
    """All layers but the last equal: where the weights of one have the right shape for another."""
    hidden = (dense(7), bias, tanh)
    return chain((7,), hidden, hidden, hidden, (dense(outputs), bias), dtype="float64")


EQUAL = {"square": square}
CHAINS = {"FC": fully_connected, "LC": locally_connected_net, "conv": convolutional_chain}


def batch(network: Network, n: int = 6, seed: int = 0, classes: int = CLASSES):
    """x (n, *in_shape) with some exact zeros, y (n, classes) one-hot: NumPy arrays in float64."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *network[0].out_shape))
    x[0] = 0.0
    return x, np.eye(classes)[rng.integers(0, classes, n)]


def randomised(state: State, seed: int = 0):
    """A NumPy state whose biases and BatchNorm parameters are not 0 and 1."""
    rng = np.random.default_rng(seed)
    params = tuple(
        p._replace(local=tuple({k: v + 0.1 * rng.standard_normal(v.shape) for k, v in op.items()} for op in p.local))
        for p in state.forward.params
    )
    return state._replace(forward=state.forward._replace(params=params))
