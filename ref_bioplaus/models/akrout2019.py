"""Akrout et al. 2019, "Deep learning without weight transport": ResNets (sec. 6) and the net of their public code.

Choices: the paper names ResNet-18 and ResNet-50 (He et al. 2016, table 1), and BatchNorm after the ReLU (sec. 6 and
    app. D.3) or before it; the rest is ours. "After" puts one BatchNorm behind every ReLU, those at the joins included,
    and none elsewhere, so shortcuts have none. Shortcuts that change shape are 1x1 convolutions (option B). ResNet-50
    takes its stride in the 3x3 convolution. Convolutions have no bias and kernel // 2 pixels of padding on every side.
    The public code's net ends in sigmoids, which are in losses.sigmoid_cross_entropy; it draws its first biases, ours
    are 0.
"""

from ..linear import dense
from ..local import bias, sigmoid
from ..network import Network, chain
from ..types import Shape
from .residual import BATCH_NORM_AFTER_RELU, BATCH_NORM_BEFORE_RELU, basic_block, bottleneck, imagenet_resnet
from .sizes import scaled


def resnet18(
    *, in_shape: Shape = (224, 224, 3), classes: int = 1000, width: float = 1.0, batch_norm_after_relu: bool = True
) -> Network:
    """ResNet-18 (Akrout et al. 2019, sec. 6, fig. 3a)."""
    order = BATCH_NORM_AFTER_RELU if batch_norm_after_relu else BATCH_NORM_BEFORE_RELU
    return imagenet_resnet(in_shape, classes, width, basic_block, (2, 2, 2, 2), order)


def resnet50(
    *, in_shape: Shape = (224, 224, 3), classes: int = 1000, width: float = 1.0, batch_norm_after_relu: bool = True
) -> Network:
    """ResNet-50 (Akrout et al. 2019, sec. 6, fig. 3b)."""
    order = BATCH_NORM_AFTER_RELU if batch_norm_after_relu else BATCH_NORM_BEFORE_RELU
    return imagenet_resnet(in_shape, classes, width, bottleneck, (3, 4, 6, 3), order)


def mlp(*, in_shape: Shape = (784,), classes: int = 10, width: float = 1.0, hidden: int = 500) -> Network:
    """784-500-10 for MNIST (Akrout et al. 2019, public code); in_shape=(3072,), hidden=1000 is theirs for CIFAR-10."""
    n = scaled(width)
    return chain(
        in_shape,
        (dense(n(hidden)), bias, sigmoid),
        (dense(classes), bias),
    )
