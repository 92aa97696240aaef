"""How the demo trains: two small networks, on which the registry's rows learn by their recipes."""

from collections.abc import Callable
from typing import NamedTuple

from ... import losses
from ...backends import Backend
from ...linear import dense, locally_connected
from ...local import bias, flatten, tanh, unit_bias
from ...network import Network, chain
from ...registry import Row, task_loss
from ...types import Algorithm, Loss

CLASSES = 10
AUXILIARY_UNITS = 20  # of AO-SDTP
BATCH = 100  # divides the training set: one batch shape, one compilation


class Architecture(NamedTuple):
    """A network to learn on, and its small form for the comparison of backends."""

    name: str
    label: str
    steps: int
    build: Callable[[tuple[int, ...], int, bool], Network]  # image shape, output units, small -> network
    only_named: bool  # only the rows that have a recipe of that name are trained

    def trains(self, row: Row) -> bool:
        """Whether a row learns on this network."""
        return not self.only_named or self.name in row.recipes

    def algorithm(
        self, row: Row, backend: Backend, image: tuple[int, ...], small: bool = False
    ) -> tuple[Network, Loss, Algorithm]:
        """The network for images (height, width, channels), its loss and the algorithm, for one backend."""
        units = CLASSES + (AUXILIARY_UNITS if row.auxiliary else 0)
        network = self.build(image, units, small).with_kernels(backend.kernels).with_dtype(backend.dtype)
        loss = task_loss(row, losses.cross_entropy(), CLASSES)
        return network, loss, row.taught(network, loss, self.name)


def fully_connected(image: tuple[int, ...], units: int, small: bool) -> Network:
    """784-128-64-10 with tanh, on images as vectors."""
    height, width, channels = image
    first, second = (20, 16) if small else (128, 64)
    layers = (dense(first), bias, tanh), (dense(second), bias, tanh), (dense(units), bias)
    return chain((height * width * channels,), *layers)


def local(image: tuple[int, ...], units: int, small: bool) -> Network:
    """Two locally connected layers with stride 2 and tanh, then a dense one."""
    first, second = (3, 4) if small else (8, 12)
    return chain(
        image,
        (locally_connected(first, (3, 2) if small else 5, stride=2), unit_bias, tanh),
        (locally_connected(second, (2, 3) if small else 3, stride=(1, 2) if small else 2), unit_bias, tanh, flatten),
        (dense(units), bias),
    )


ARCHITECTURES = (
    Architecture("fc", "fully connected, 784-128-64-10, tanh", 500, fully_connected, False),
    Architecture("lc", "locally connected, 28×28 → 14×14×8 → 7×7×12 → 10, tanh", 250, local, True),
)
