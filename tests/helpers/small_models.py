"""Every model of the papers in float64, as small as its structure allows: few units, tiny images that are no squares.

No map shrinks below one pixel. The fully connected nets keep their hidden layers equal, as in the papers.
"""

from collections.abc import Callable
from functools import partial

from ref_bioplaus.models import MODELS
from ref_bioplaus.network import Network

CLASSES = 4
SIZES: dict[str, dict] = {
    "bartunov2018/mnist-fc": {"in_shape": (9,), "width": 5 / 256},
    "bartunov2018/mnist-lc": {"in_shape": (9, 6, 2), "width": 1 / 16},
    "bartunov2018/mnist-convnet": {"in_shape": (9, 6, 2), "width": 1 / 16},
    "bartunov2018/cifar-fc": {"in_shape": (9,), "width": 5 / 1024},
    "bartunov2018/cifar-lc": {"in_shape": (9, 6, 3), "width": 1 / 32},
    "bartunov2018/cifar-convnet": {"in_shape": (9, 6, 3), "width": 1 / 32},
    "bartunov2018/imagenet-lc": {"in_shape": (33, 20, 2), "width": 1 / 24},
    "bartunov2018/imagenet-convnet": {"in_shape": (33, 20, 2), "width": 1 / 24},
    "bartunov2018/autoencoder": {"in_shape": (9,), "width": 1 / 32},
    "moskovitz2018/mnist": {"in_shape": (10, 6, 2), "width": 1 / 16},
    "moskovitz2018/cifar10-model1": {"in_shape": (10, 8, 3), "width": 1 / 32},
    "moskovitz2018/cifar10-model2": {"in_shape": (9, 6, 3), "width": 1 / 32},
    "moskovitz2018/imagenet-model1": {"in_shape": (33, 24, 2), "width": 1 / 64},
    "moskovitz2018/imagenet-model2": {"in_shape": (100, 60, 2), "width": 1 / 64},
    "xiao2018/alexnet": {"in_shape": (63, 95, 2), "width": 1 / 64},
    "xiao2018/resnet18": {"in_shape": (40, 33, 3), "width": 1 / 32},
    "akrout2019/resnet18": {"in_shape": (40, 33, 3), "width": 1 / 32},
    "akrout2019/resnet50": {"in_shape": (40, 33, 3), "width": 1 / 32},
    "akrout2019/mlp": {"in_shape": (9,), "width": 5 / 500},
    "lee2015/mnist": {"in_shape": (9,), "width": 5 / 240},
    "nokland2016/mnist": {"in_shape": (9,), "width": 5 / 800},
    "he2016/resnet20": {"in_shape": (9, 7, 3), "width": 1 / 8},
    "lin2017/retinanet-resnet18": {"in_shape": (128, 256, 3), "width": 1 / 32, "channels": 64},
    "lin2017/retinanet-resnet50": {"in_shape": (128, 256, 3), "width": 1 / 32, "channels": 64},
}
DETECTORS = [name for name in SIZES if name.startswith("lin2017/")]  # whose output is that of losses.detection


def small(name: str) -> Network:
    """The small version of one model."""
    classes = {} if name == "bartunov2018/autoencoder" else {"classes": CLASSES}
    return MODELS[name](**SIZES[name], **classes).with_dtype("float64")


SMALL: dict[str, Callable[[], Network]] = {name: partial(small, name) for name in SIZES}
