"""The papers' networks: one module per paper, one row of code per row of its architecture table."""

from collections.abc import Callable

from ..network import Network
from . import akrout2019 as akrout2019
from . import bartunov2018 as bartunov2018
from . import he2016 as he2016
from . import lee2015 as lee2015
from . import lin2017 as lin2017
from . import moskovitz2018 as moskovitz2018
from . import nokland2016 as nokland2016
from . import xiao2018 as xiao2018

ROWS = (
    bartunov2018.mnist_fc,
    bartunov2018.mnist_lc,
    bartunov2018.mnist_convnet,
    bartunov2018.cifar_fc,
    bartunov2018.cifar_lc,
    bartunov2018.cifar_convnet,
    bartunov2018.imagenet_lc,
    bartunov2018.imagenet_convnet,
    bartunov2018.autoencoder,
    moskovitz2018.mnist,
    moskovitz2018.cifar10_model1,
    moskovitz2018.cifar10_model2,
    moskovitz2018.imagenet_model1,
    moskovitz2018.imagenet_model2,
    xiao2018.alexnet,
    xiao2018.resnet18,
    akrout2019.resnet18,
    akrout2019.resnet50,
    akrout2019.mlp,
    lee2015.mnist,
    nokland2016.mnist,
    he2016.resnet20,
    lin2017.retinanet_resnet18,
    lin2017.retinanet_resnet50,
)

MODELS: dict[str, Callable[..., Network]] = {
    f"{row.__module__.rpartition('.')[2]}/{row.__name__.replace('_', '-')}": row for row in ROWS
}
"""Every model by the name it has on the command line, as in "akrout2019/resnet18"."""
