"""Lin et al. 2017, "Focal loss for dense object detection": RetinaNet, on a feature pyramid (Lin et al. 2017, FPN).

    C3, C4, C5           what conv3_x to conv5_x of a ResNet give, at strides 8, 16 and 32
    M5 = L C5            M4 = L C4 + M5, enlarged        M3 = L C3 + M4, enlarged        L: a 1x1 convolution each
    P3, P4, P5           a 3x3 convolution of M3, M4 and M5
    P6, P7               3x3 convolutions at stride 2, of P5 and of relu(P6)
    heads                four 3x3 convolutions and relu, and a last 3x3 convolution, shared by P3 to P7: one head for
                         the classes of every anchor, one for the offsets of its box

The output is (anchors, classes + 4), by levels, rows, columns and then the anchors of a pixel: logits and offsets, for
losses.detection. Which layers learn by asymmetric feedback is the algorithm's choice; with symmetric_output it is all
but the last convolution of both heads.

Choices: P6 is made of P5, as in torchvision (the paper's is of C5). BatchNorm of the backbone learns, and trains with
    the batch's own statistics (ours; the paper's begins from ImageNet's weights). Pyramid and heads have biases and no
    BatchNorm. The bias of the last convolution for classes begins at -log((1 - .01) / .01), as printed in sec. 4.1; the
    deviation .01 that is printed for the heads' weights is the initializer's affair. Sides of images are multiples of
    128 (ours), so that every level has whole cells and is enlarged to the size of the one below.
"""

import math
from dataclasses import replace

from ..linear import conv, shared_conv
from ..local import bias, bias_from, relu, rows, upsample
from ..network import Builder, Network
from ..types import Shape
from .residual import (
    BATCH_NORM_BEFORE_RELU,
    Block,
    basic_block,
    bottleneck,
    convolution,
    imagenet_stages,
    torchvision_modules,
)
from .sizes import scaled

CELL = 128  # pixels of a cell of P7
RARE = 0.01  # the share of anchors that an untrained network takes for something


def retinanet_resnet18(
    *, in_shape: Shape = (256, 256, 3), classes: int = 80, width: float = 1.0, channels: int = 256, anchors: int = 9
) -> Network:
    """RetinaNet on ResNet-18 (Lin et al. 2017, sec. 4)."""
    return _retinanet(in_shape, classes, width, channels, anchors, basic_block, (2, 2, 2, 2))


def retinanet_resnet50(
    *, in_shape: Shape = (256, 256, 3), classes: int = 80, width: float = 1.0, channels: int = 256, anchors: int = 9
) -> Network:
    """RetinaNet on ResNet-50 (Lin et al. 2017, sec. 4)."""
    return _retinanet(in_shape, classes, width, channels, anchors, bottleneck, (3, 4, 6, 3))


def _retinanet(
    in_shape: Shape, classes: int, width: float, channels: int, anchors: int, block: Block, blocks: tuple[int, ...]
) -> Network:
    if len(in_shape) != 3 or any(side < CELL or side % CELL for side in in_shape[:2]):
        raise ValueError(
            f"its images have shape {tuple(in_shape)}, expected (height, width, channels) with multiples of {CELL} as "
            "height and width: scale and pad them"
        )
    n, net, names = scaled(width)(channels), Builder(in_shape), dict[int, tuple[str, ...]]()
    _, *taps = imagenet_stages(net, width, block, blocks, BATCH_NORM_BEFORE_RELU)
    for l, those in zip([l for l, layer in enumerate(net.layers) if layer.linear], torchvision_modules(block, blocks)):
        names[l] = tuple(f"backbone.body.{name}" for name in those)

    def add(name, *parts, inputs, concat=None):
        l = net.add(*parts, inputs=inputs, concat=concat)
        names[l] = (name,)
        return l

    laterals = [add(f"backbone.fpn.inner_blocks.{i}.0", conv(n, 1), bias, inputs=(C,)) for i, C in enumerate(taps)]
    merged = laterals[-1:]
    for lateral in laterals[-2::-1]:
        larger = net.add(upsample(2), inputs=(merged[0],))
        merged.insert(0, net.add(inputs=(lateral, larger)))
    P = [add(f"backbone.fpn.layer_blocks.{i}.0", convolution(n, 3), bias, inputs=(M,)) for i, M in enumerate(merged)]
    P.append(add("backbone.fpn.extra_blocks.p6", convolution(n, 3, stride=2), bias, inputs=(P[-1],)))
    above = net.add(relu, inputs=(P[-1],))
    P.append(add("backbone.fpn.extra_blocks.p7", convolution(n, 3, stride=2), bias, inputs=(above,)))
    images = [net.layers[k].out_shape for k in P]
    pixels = net.add(inputs=tuple(net.add(rows(), inputs=(k,)) for k in P), concat=0)

    def head(name, last, units, b):
        """Four layers and the last, of so many units for every anchor: (anchors, units)."""
        x = pixels
        for i in range(4):
            x = add(f"head.{name}.conv.{i}.0", shared_conv(n, 3, images), bias, relu, inputs=(x,))
        return add(f"head.{name}.{last}", shared_conv(anchors * units, 3, images), b, rows(units), inputs=(x,))

    rare = bias_from(-math.log((1.0 - RARE) / RARE))
    scores = head("classification_head", "cls_logits", classes, rare)
    offsets = head("regression_head", "bbox_reg", 4, bias)
    net.add(inputs=(scores, offsets), concat=1)
    network = net.build()
    layers = [replace(layer, modules=names.get(l, ())) for l, layer in enumerate(network.layers)]
    return replace(network, layers=tuple(layers))
