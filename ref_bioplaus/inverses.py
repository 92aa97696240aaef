"""Forms of target propagation's inverse: layers from h_l back to h_{l-1}, with synapses of their own.

Each takes (network, l) and returns a Layer whose nonlinearity is that of layer l - 1, whose activity it rebuilds;
`with_neurons` gives any of them another one, or none.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from array_api_compat import array_namespace

from .linear import Convolution, Dense, LinearMap, LocalConnection, SharedConvolution, Transpose
from .local import Bias, LocalOperation, Nonlinearity, bias, unit_bias
from .network import Layer, Network
from .types import Address, Array, Tree
from .windows import Pair, window

NONLINEARITIES = ("below", "none", "own", "own-softmax")  # of an inverse, see with_neurons


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


def with_neurons(
    form: Callable[[Network, int], Layer], nonlinearity: str = "below", bias: bool = True
) -> Callable[[Network, int], Layer]:
    """A form of inverse whose neurons are others.

    nonlinearity: "below", that of layer l - 1, whose activity is rebuilt · "none" · "own", that of layer l, as Bartunov
    et al. 2018, sec. 2.1.2 print it: g(h_l) = sigma_l(V_l h_l + c_l), where the output layer's is none, as its softmax
    is the loss's · "own-softmax", the same with a softmax in the output layer's inverse. bias: whether there is a c_l.
    Raises ValueError for another word.
    """
    if nonlinearity not in NONLINEARITIES:
        known = ", ".join(NONLINEARITIES)
        raise ValueError(f'with_neurons: nonlinearity "{nonlinearity}" is unknown, expected one of {known}')

    def build(network: Network, l: int) -> Layer:
        layer = form(network, l)
        shape, operations = layer.out_shape, [op for op in layer.local if bias or not isinstance(op, Bias)]
        if nonlinearity != "below":
            operations = [op for op in operations if not isinstance(op, Nonlinearity)]
            own = last_nonlinearity(network.layers[l : network.output_of(l) + 1])
            if nonlinearity == "own-softmax" and l == network.L:
                operations.append(Softmax(shape))
            elif nonlinearity != "none" and own:
                operations.append(replace(own, in_shape=shape))
            else:
                operations.append(LocalOperation(shape))
        return replace(layer, local=tuple(operations))

    return build


def inverse_layer(network: Network, l: int, linear: LinearMap) -> Layer:
    """Synapses, a bias shared over positions where the weights are, and the nonlinearity of layer l - 1."""
    shared = isinstance(network[l].linear, Convolution | SharedConvolution)
    c = (bias if shared else unit_bias).build(linear.out_shape)
    operations: list[LocalOperation] = [replace(c, kernels=network.kernels)]
    first = max((k for k in network.weighted if k < l), default=0)  # whose output it is
    if below := last_nonlinearity(network.layers[first:l]):
        operations.append(replace(below, in_shape=linear.out_shape))
    return Layer((), linear, tuple(operations), linear.in_shape, linear.out_shape, f"inverse of {network[l].name}")


def last_nonlinearity(layers: Sequence[Layer]) -> Nonlinearity | None:
    """The one that their output comes from, if there is any."""
    found = [op for layer in layers for op in layer.local if isinstance(op, Nonlinearity)]
    return found[-1] if found else None


@dataclass(frozen=True)
class Softmax(LocalOperation):
    """The distribution over the last axis, which no elementwise nonlinearity gives."""

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """y, and y as the cache."""
        xp = array_namespace(x)
        e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
        y = e / xp.sum(e, axis=-1, keepdims=True)
        return y, stats, y

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """y (dy - <y, dy>)"""
        return cache * (dy - array_namespace(dy).sum(cache * dy, axis=-1, keepdims=True)), {}


def checked(network: Network, l: int, inverse: Layer) -> Layer:
    """The inverse of layer l. Raises ValueError where pooling behind layer l leaves it other units to start from."""
    k = network.output_of(l)
    if math.prod(network[k].out_shape) != math.prod(inverse.in_shape):
        raise ValueError(
            f"layer {k} ({network[k].name}): its output has shape {network[k].out_shape}, but the inverse of layer {l} "
            f"starts from {inverse.in_shape}: pooling has no inverse, choose inverses.dense_inverse"
        )
    return inverse
