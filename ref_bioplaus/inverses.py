"""Forms of target propagation's inverse: layers from h_l back to h_{l-1}, with synapses of their own.

Each takes (network, l) and returns a Layer whose nonlinearity is that of layer l - 1, whose activity it rebuilds.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from .linear import Convolution, Dense, LinearMap, LocalConnection, Transpose
from .local import LocalOperation, Nonlinearity, bias, unit_bias
from .network import Layer, Network
from .windows import Pair, window


def mirrored_inverse(network: Network, l: int) -> Layer:
    """The transpose of layer l's own connectivity: V has the sparsity of W^T (Bartunov et al. 2018, app. 5.4)."""
    return inverse_layer(network, l, Transpose(network[l].linear))


def dense_inverse(network: Network, l: int) -> Layer:
    """Fully connected, from every output of layer l, pooled or not, to every unit below; dense layers as they are."""
    n_out, n_in = (math.prod(shape) for shape in (network[network.output_of(l)].out_shape, network[l].in_shape))
    if network[l].linear.weight_shape == (n_out, n_in):
        return mirrored_inverse(network, l)
    return inverse_layer(network, l, Dense(n_out, n_in, network.kernels))


def wider_inverse(kernel: Pair) -> Callable[[Network, int], Layer]:
    """The transpose of a layer with a larger receptive field; dense layers as they are.

    Raises ValueError where layer l is not padded "same", so that another kernel would change its size.
    """

    def build(network: Network, l: int) -> Layer:
        linear = network[l].linear
        if not isinstance(linear, Convolution | LocalConnection):
            return mirrored_inverse(network, l)
        geometry = window(linear.in_shape, kernel, linear.window.stride, "same")
        if geometry.out_size != linear.window.out_size:
            raise ValueError(
                f"layer {l} ({network[l].name}) has windows {linear.window.out_size}, expected {geometry.out_size} "
                f'as kernel {kernel} has them: a wider inverse needs a layer padded "same"'
            )
        return inverse_layer(network, l, Transpose(type(linear)(geometry, linear.channels, network.kernels)))

    return build


def inverse_layer(network: Network, l: int, linear: LinearMap) -> Layer:
    """Synapses, a bias shared over positions where the weights are, and the nonlinearity of layer l - 1."""
    shared = isinstance(network[l].linear, Convolution)
    c = (bias if shared else unit_bias).build(linear.out_shape)
    operations: list[LocalOperation] = [replace(c, kernels=network.kernels)]
    first = max((k for k in network.weighted if k < l), default=0)  # whose output it is
    below = [op for layer in network.layers[first:l] for op in layer.local if isinstance(op, Nonlinearity)]
    if below:
        last = below[-1]
        operations.append(replace(last, in_shape=linear.out_shape))
    return Layer((), linear, tuple(operations), linear.in_shape, linear.out_shape, f"inverse of {network[l].name}")


def checked(network: Network, l: int, inverse: Layer) -> Layer:
    """The inverse of layer l. Raises ValueError where pooling behind layer l leaves it other units to start from."""
    k = network.output_of(l)
    if math.prod(network[k].out_shape) != math.prod(inverse.in_shape):
        raise ValueError(
            f"layer {k} ({network[k].name}): its output has shape {network[k].out_shape}, but the inverse of layer {l} "
            f"starts from {inverse.in_shape}: pooling has no inverse, choose inverses.dense_inverse"
        )
    return inverse
