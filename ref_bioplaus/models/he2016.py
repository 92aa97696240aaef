"""ResNet-20 for CIFAR. He et al. 2016, "Deep residual learning for image recognition", sec. 4.2 and table 6.

Choices: shortcuts are identities with zeros for new channels (option A), as the paper has them on CIFAR; that the zeros
    follow the old channels, and that these are every second pixel, is ours. The 3x3 convolutions are padded by one
    pixel on every side (ours: the paper gives map sizes only).
"""

from ..linear import dense
from ..local import bias, global_average_pool
from ..network import Builder, Network
from ..types import Shape
from .residual import BATCH_NORM_BEFORE_RELU, basic_block, convolution, identity, stage
from .sizes import scaled


def resnet20(*, in_shape: Shape = (32, 32, 3), classes: int = 10, width: float = 1.0) -> Network:
    """ResNet-20 (He et al. 2016, sec. 4.2: n = 3)."""
    n, net, order = scaled(width), Builder(in_shape), BATCH_NORM_BEFORE_RELU
    x = net.add(convolution(n(16), 3), *order.unit)
    x = stage(net, x, 3, n(16), 1, basic_block, order, identity)
    x = stage(net, x, 3, n(32), 2, basic_block, order, identity)
    x = stage(net, x, 3, n(64), 2, basic_block, order, identity)
    net.add(global_average_pool)
    net.add(dense(classes), bias)
    return net.build()
