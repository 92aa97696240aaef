"""Moskovitz et al. 2018, "Feedback alignment in deep convolutional networks", supplementary tables 2 and 3.

The softmax is in losses.cross_entropy; what its row leaves here is a dense layer, or nothing after a global pooling.

Choices: convolutions are padded to SAME size. The tables' 8x8 and 4x4 maps before the global pooling require it in
    cifar10_model2 and imagenet_model2; in the other three it is ours, and as in TensorFlow's tutorials, whose MNIST and
    CIFAR-10 nets these resemble. Pooling is not padded (ours; all the maps they pool have even sizes).
    Dropout is printed for mnist and cifar10_model2 only; imagenet_model2 has none (ours). "After the input layer" is on
    the images themselves. After a global pooling the softmax has no weights of its own (ours); the ReLU on the last
    convolution is the tables'. A convolution has one bias per channel: eq. (1) has a b, its shape is ours.
"""

from ..linear import conv, dense
from ..local import bias, dropout, flatten, global_average_pool, max_pool, relu
from ..network import Network, chain
from ..types import Shape
from .sizes import scaled


def mnist(*, in_shape: Shape = (28, 28, 1), classes: int = 10, width: float = 1.0) -> Network:
    """MNIST (Moskovitz et al. 2018, supplementary table 2, first column)."""
    n = scaled(width)
    return chain(
        in_shape,
        (conv(n(32), 5), bias, relu),
        max_pool(2),
        (conv(n(64), 5), bias, relu),
        (max_pool(2), flatten),
        (dense(n(1024)), bias, relu, dropout(0.5)),
        (dense(classes), bias),
    )


def cifar10_model1(*, in_shape: Shape = (24, 24, 3), classes: int = 10, width: float = 1.0) -> Network:
    """CIFAR-10 model 1, like LeNet (Moskovitz et al. 2018, supplementary table 2, second column)."""
    n = scaled(width)
    return chain(
        in_shape,
        (conv(n(64), 5), bias, relu),
        max_pool(2),
        (conv(n(64), 5), bias, relu),
        (max_pool(2), flatten),
        (dense(n(384)), bias, relu),
        (dense(n(192)), bias, relu),
        (dense(classes), bias),
    )


def cifar10_model2(*, in_shape: Shape = (32, 32, 3), classes: int = 10, width: float = 1.0) -> Network:
    """CIFAR-10 model 2, all convolutional (Moskovitz et al. 2018, supplementary table 2, third column)."""
    n = scaled(width)
    return chain(
        in_shape,
        dropout(0.2),
        (conv(n(96), 3), bias, relu),
        (conv(n(96), 3), bias, relu),
        (conv(n(96), 3, stride=2), bias, relu, dropout(0.5)),
        (conv(n(192), 3), bias, relu),
        (conv(n(192), 3), bias, relu),
        (conv(n(192), 3, stride=2), bias, relu, dropout(0.5)),
        (conv(n(192), 3), bias, relu),
        (conv(n(192), 1), bias, relu),
        (conv(classes, 1), bias, relu),
        global_average_pool,
    )


def imagenet_model1(*, in_shape: Shape = (299, 299, 3), classes: int = 1000, width: float = 1.0) -> Network:
    """ImageNet model 1, like LeNet (Moskovitz et al. 2018, supplementary table 3, first column)."""
    n = scaled(width)
    return chain(
        in_shape,
        (conv(n(192), 9, stride=2), bias, relu),
        max_pool(2),
        (conv(n(192), 5, stride=2), bias, relu),
        (max_pool(2), flatten),
        (dense(n(512)), bias, relu),
        (dense(n(512)), bias, relu),
        (dense(classes), bias),
    )


def imagenet_model2(*, in_shape: Shape = (299, 299, 3), classes: int = 1000, width: float = 1.0) -> Network:
    """ImageNet model 2, all convolutional (Moskovitz et al. 2018, supplementary table 3, second column)."""
    n = scaled(width)
    return chain(
        in_shape,
        (conv(n(192), 9, stride=4), bias, relu),
        (conv(n(192), 3, stride=2), bias, relu),
        (conv(n(192), 3, stride=3), bias, relu),
        (conv(n(256), 5, stride=2), bias, relu),
        (conv(n(256), 3), bias, relu),
        (conv(n(256), 3, stride=2), bias, relu),
        (conv(n(512), 3), bias, relu),
        (conv(n(512), 1), bias, relu),
        (conv(classes, 1), bias, relu),
        global_average_pool,
    )
