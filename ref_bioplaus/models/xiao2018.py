"""Xiao et al. 2018, "Biologically-plausible learning algorithms can scale to large datasets": the nets of their code.

Which layers learn by asymmetric feedback is the algorithm's choice (sign_symmetry), not the network's.

Choices: none are ours. AlexNet is the one of Krizhevsky 2014 as their code changes it: BatchNorm before every ReLU, no
    bias where a BatchNorm follows, no dropout. ResNet-18 is that of He et al. 2016, table 1, with 1x1 convolutions as
    shortcuts where the shape changes (option B).
"""

from ..linear import conv, dense
from ..local import batch_norm, bias, flatten, max_pool, relu
from ..network import Network, chain
from ..types import Shape
from .residual import BATCH_NORM_BEFORE_RELU, basic_block, imagenet_resnet
from .sizes import scaled


def alexnet(*, in_shape: Shape = (224, 224, 3), classes: int = 1000, width: float = 1.0) -> Network:
    """AlexNet with BatchNorm (Xiao et al. 2018, public code: models/af_alexnet.py)."""
    n = scaled(width)
    return chain(
        in_shape,
        (conv(n(64), 11, stride=4, padding=2), batch_norm, relu),
        max_pool(3, stride=2),
        (conv(n(192), 5, padding=2), batch_norm, relu),
        max_pool(3, stride=2),
        (conv(n(384), 3, padding=1), batch_norm, relu),
        (conv(n(256), 3, padding=1), batch_norm, relu),
        (conv(n(256), 3, padding=1), batch_norm, relu),
        (max_pool(3, stride=2), flatten),
        (dense(n(4096)), batch_norm, relu),
        (dense(n(4096)), batch_norm, relu),
        (dense(classes), bias),
    )


def resnet18(*, in_shape: Shape = (224, 224, 3), classes: int = 1000, width: float = 1.0) -> Network:
    """ResNet-18, BatchNorm before the ReLU (Xiao et al. 2018, public code: models/af_resnet.py)."""
    return imagenet_resnet(in_shape, classes, width, basic_block, (2, 2, 2, 2), BATCH_NORM_BEFORE_RELU)
