"""Bartunov et al. 2018, "Assessing the scalability of biologically-motivated deep learning", table 3 and app. 5.5.

tanh between layers, SAME padding, strides in place of pooling. The output layer is linear, its softmax is in
losses.cross_entropy. A ConvNet has the layers of the locally connected net, with shared weights. Every layer has
synapses, as target propagation needs; fully connected nets take images as vectors. auxiliary: units of AO-SDTP's
auxiliary output z, behind the classes (losses.with_auxiliary_output); the paper has 512 on CIFAR.

Choices: a locally connected layer has one bias per unit, a convolution one per channel (the paper does not say, ours).
    The third layer of the CIFAR nets has no stride printed: 1. The autoencoder's code layer has a tanh like the other
    hidden layers, its output is linear (ours).
"""

from ..linear import conv, dense, locally_connected
from ..local import bias, flatten, tanh, unit_bias
from ..network import Network, chain
from ..types import Shape
from .sizes import scaled


def mnist_fc(*, in_shape: Shape = (784,), classes: int = 10, width: float = 1.0, auxiliary: int = 0) -> Network:
    """MNIST, fully connected (Bartunov et al. 2018, table 3)."""
    n = scaled(width)
    return chain(
        in_shape,
        *[(dense(n(256)), bias, tanh)] * 5,
        (dense(classes + auxiliary), bias),
    )


def mnist_lc(*, in_shape: Shape = (28, 28, 1), classes: int = 10, width: float = 1.0, auxiliary: int = 0) -> Network:
    """MNIST, locally connected (Bartunov et al. 2018, table 3)."""
    return _mnist(locally_connected, unit_bias, in_shape, classes + auxiliary, width)


def mnist_convnet(
    *, in_shape: Shape = (28, 28, 1), classes: int = 10, width: float = 1.0, auxiliary: int = 0
) -> Network:
    """MNIST, convolutional (Bartunov et al. 2018, tables 1 and 3)."""
    return _mnist(conv, bias, in_shape, classes + auxiliary, width)


def _mnist(synapses, b, in_shape, outputs, width):
    n = scaled(width)
    return chain(
        in_shape,
        (synapses(n(32), 3, stride=2), b, tanh),
        (synapses(n(64), 3, stride=2), b, tanh, flatten),
        (dense(n(1024)), bias, tanh),
        (dense(outputs), bias),
    )


def cifar_fc(*, in_shape: Shape = (3072,), classes: int = 10, width: float = 1.0, auxiliary: int = 0) -> Network:
    """CIFAR-10, fully connected (Bartunov et al. 2018, table 3)."""
    n = scaled(width)
    return chain(
        in_shape,
        *[(dense(n(1024)), bias, tanh)] * 3,
        (dense(classes + auxiliary), bias),
    )


def cifar_lc(*, in_shape: Shape = (32, 32, 3), classes: int = 10, width: float = 1.0, auxiliary: int = 0) -> Network:
    """CIFAR-10, locally connected (Bartunov et al. 2018, table 3)."""
    return _cifar(locally_connected, unit_bias, in_shape, classes + auxiliary, width)


def cifar_convnet(
    *, in_shape: Shape = (32, 32, 3), classes: int = 10, width: float = 1.0, auxiliary: int = 0
) -> Network:
    """CIFAR-10, convolutional (Bartunov et al. 2018, tables 1 and 3)."""
    return _cifar(conv, bias, in_shape, classes + auxiliary, width)


def _cifar(synapses, b, in_shape, outputs, width):
    n = scaled(width)
    return chain(
        in_shape,
        (synapses(n(64), 5, stride=2), b, tanh),
        (synapses(n(128), 5, stride=2), b, tanh),
        (synapses(n(256), 3), b, tanh, flatten),
        (dense(n(1024)), bias, tanh),
        (dense(outputs), bias),
    )


def imagenet_lc(
    *, in_shape: Shape = (224, 224, 3), classes: int = 1000, width: float = 1.0, auxiliary: int = 0
) -> Network:
    """ImageNet, locally connected (Bartunov et al. 2018, table 3)."""
    return _imagenet(locally_connected, unit_bias, in_shape, classes + auxiliary, width)


def imagenet_convnet(
    *, in_shape: Shape = (224, 224, 3), classes: int = 1000, width: float = 1.0, auxiliary: int = 0
) -> Network:
    """ImageNet, convolutional (Bartunov et al. 2018, tables 2 and 3)."""
    return _imagenet(conv, bias, in_shape, classes + auxiliary, width)


def _imagenet(synapses, b, in_shape, outputs, width):
    n = scaled(width)
    return chain(
        in_shape,
        (synapses(n(48), 9, stride=4), b, tanh),
        (synapses(n(48), 3, stride=2), b, tanh),
        (synapses(n(96), 5), b, tanh),
        (synapses(n(96), 3, stride=2), b, tanh),
        (synapses(n(192), 3), b, tanh),
        (synapses(n(192), 3, stride=2), b, tanh),
        (synapses(n(384), 3), b, tanh, flatten),
        (dense(outputs), bias),
    )


def autoencoder(*, in_shape: Shape = (784,), width: float = 1.0) -> Network:
    """MNIST autoencoder 784-512-64-512-784, of as many outputs as inputs (Bartunov et al. 2018, app. 5.5)."""
    n = scaled(width)
    return chain(
        in_shape,
        (dense(n(512)), bias, tanh),
        (dense(n(64)), bias, tanh),
        (dense(n(512)), bias, tanh),
        (dense(in_shape[0]), bias),
    )
