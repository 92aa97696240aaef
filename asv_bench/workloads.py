"""What is timed: networks W1 to W8, their optimizers, and the algorithms, each ready to run on a backend.

Batches are random numbers: speed does not depend on what is learned. W6 is the ResNet-18 that is usual on 32x32 images,
with a 3x3 convolution in front and no pooling behind it; in all ResNets BatchNorm stands before the ReLU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ref_bioplaus import losses, naming, optimizers
from ref_bioplaus.backends import Backend
from ref_bioplaus.linear import dense
from ref_bioplaus.local import Dropout, LocalOperation, bias, global_average_pool, tanh
from ref_bioplaus.models import akrout2019, bartunov2018, moskovitz2018
from ref_bioplaus.models.residual import BATCH_NORM_BEFORE_RELU, basic_block, convolution, projection, stage
from ref_bioplaus.models.sizes import scaled
from ref_bioplaus.network import Builder, Network, chain
from ref_bioplaus.registry import ROWS, Row, row
from ref_bioplaus.registry.catalogue import first_sentence
from ref_bioplaus.types import Algorithm, Batch, Optimizer, State

TARGETS = ("W1", "W2", "W5")  # workloads on which rows are timed that are not for large networks


@dataclass(frozen=True)
class Workload:
    """A network, how many samples are in its batch, and how it learns."""

    name: str
    label: str
    build: Callable[..., Network]  # takes in_shape, classes and width, by keyword
    in_shape: tuple[int, ...]
    batch: int = 128
    adam: bool = True  # or gradient descent with momentum 0.9
    eta: float = 1e-4
    classes: int = 10
    width: float = 1.0
    needs_gpu: bool = False

    def network(self) -> Network:
        """The network."""
        return self.build(in_shape=self.in_shape, classes=self.classes, width=self.width)

    def optimizer(self, decay: float = 0.0) -> Optimizer:
        """The optimizer; decay in the papers' form."""
        if self.adam:
            return optimizers.adam(self.eta, decay=decay)
        return optimizers.sgd(self.eta, 0.9, decay=decay)

    def data(self, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
        """Inputs (N, *in_shape) and classes (N,), the same ones every time."""
        random = np.random.default_rng(1)
        x = random.standard_normal((self.batch, *self.in_shape)).astype(dtype)
        return x, random.integers(0, self.classes, self.batch)

    def smaller(self, in_shape: tuple[int, ...], batch: int, width: float, classes: int = 4) -> "Workload":
        """The same layers with fewer units, on smaller images."""
        return replace(self, in_shape=in_shape, batch=batch, width=width, classes=classes)


def perceptron(hidden: int, depth: int, *, in_shape, classes, width=1.0) -> Network:
    """A fully connected net of tanh units."""
    n = scaled(width)
    return chain(in_shape, *[(dense(n(hidden)), bias, tanh)] * depth, (dense(classes), bias))


def small_image_resnet18(*, in_shape, classes, width=1.0) -> Network:
    """ResNet-18 for small images."""
    n, net = scaled(width), Builder(in_shape)
    x = net.add(convolution(n(64), 3), *BATCH_NORM_BEFORE_RELU.unit)
    for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        x = stage(net, x, 2, n(channels), stride, basic_block, BATCH_NORM_BEFORE_RELU, projection)
    net.add(global_average_pool)
    net.add(dense(classes), bias)
    return net.build()


RESNETS: dict[str, Any] = {"adam": False, "eta": 0.1}
LARGE: dict[str, Any] = RESNETS | {"classes": 1000, "needs_gpu": True}
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1", "MLP 784-256×5-10, tanh", partial(perceptron, 256, 5), (784,)),
        Workload("W2", "MLP 3072-1024×3-10, tanh", partial(perceptron, 1024, 3), (3072,)),
        Workload("W3", "Moskovitz CIFAR-10 model 1", moskovitz2018.cifar10_model1, (24, 24, 3)),
        Workload("W4", "Moskovitz CIFAR-10 model 2", moskovitz2018.cifar10_model2, (32, 32, 3)),
        Workload("W5", "Bartunov CIFAR-10, locally connected", bartunov2018.cifar_lc, (32, 32, 3)),
        Workload("W6", "ResNet-18, 32×32", small_image_resnet18, (32, 32, 3), 64, **RESNETS),
        Workload("W7", "ResNet-18, 224×224",
                 partial(akrout2019.resnet18, batch_norm_after_relu=False), (224, 224, 3), **LARGE),
        Workload("W8", "ResNet-50, 224×224",
                 partial(akrout2019.resnet50, batch_norm_after_relu=False), (224, 224, 3), **LARGE),
    )
}  # fmt: skip


def without_dropout(network: Network) -> Network:
    """The same network with the identity in place of dropout."""

    def kept(op):
        return LocalOperation(op.in_shape) if isinstance(op, Dropout) else op

    layers = tuple(replace(layer, local=tuple(map(kept, layer.local))) for layer in network.layers)
    return replace(network, layers=layers)


class Method(NamedTuple):
    """An algorithm and the mode that is timed."""

    row: Row
    mode: str
    build: Callable[[Network, Workload], Algorithm]

    @property
    def label(self) -> str:
        """What it is, for a reader."""
        return f"{first_sentence(self.row.make).rstrip('.')}, mode {self.mode}"


def _optimized(row: Row, network: Network, w: Workload, **options) -> Algorithm:
    optimizer = w.optimizer(decay=1e-4 if row.recipe().decay else 0.0)
    return row.build(network, losses.cross_entropy(), optimizer, w.optimizer() if row.inverses else None, **options)


def direct(feedback: str) -> Callable[[Network, Workload], Algorithm]:
    """DFA whose feedback matrices are "stored" or "generated"."""
    return partial(_optimized, row("dfa"), feedback=feedback)


def _methods() -> Iterator[tuple[str, Method]]:
    """Every row that is no variant of another, in the mode that teaches its forward weights; and mirroring."""
    for r in ROWS:
        if not r.asked.variant:
            yield r.short, Method(r, r.learning[0] if r.learning else "learn", partial(_optimized, r))
    mirror = row("weight-mirror")
    yield f"{mirror.short}-mirror", Method(mirror, "mirror", partial(_optimized, mirror))


METHODS = dict(_methods())


def method_of(name: str) -> Method:
    """The method of a name, or of a rule of one's own, as my_rule.py:my_rule: its first mode, or the one that teaches.

    Raises KeyError for an unknown name, and NamingError.
    """
    if not naming.is_code(name):
        return METHODS[name]
    own = row(name)
    return Method(own, own.learning[0] if own.learning else "learn", partial(_optimized, own))


def methods_of(workload: Workload) -> tuple[str, ...]:
    """The algorithms that are timed on a workload."""
    return tuple(name for name, method in METHODS.items() if method.row.asked.large or workload.name in TARGETS)


class Training:
    """One algorithm learning one workload on one backend: call it for one step, `wait` for the device.

    steps: so many of them by every call, on a stack of batches.
    """

    def __init__(
        self, workload: Workload, method: str, backend: Backend, dropout: bool = True,
        build: Callable[[Network, Workload], Algorithm] | None = None, steps: int | None = None,
    ):  # fmt: skip
        network = workload.network()
        network = network if dropout else without_dropout(network)
        self.network = network.with_kernels(backend.kernels).with_dtype(backend.dtype)
        found = method_of(method)
        algorithm = (build or found.build)(self.network, workload)
        self.backend = backend
        self.state: State = algorithm.init(backend.key(0))
        x, labels = workload.data()
        y = np.eye(workload.classes, dtype="float32")[labels]
        self.batch: Batch = backend.batch(*((x, y) if steps is None else (np.stack([a] * steps) for a in (x, y))))
        self.step = backend.compile(algorithm.modes[found.mode], donate=True, keep=("loss",), steps=steps)
        self.loss: Any = None

    def __call__(self) -> None:
        """One step, or a stack of them."""
        self.state, info = self.step(self.state, self.batch)
        self.loss = info.loss

    def wait(self) -> None:
        """Return once the device has done the step; NumPy and torch on a CPU have by then."""
        self.backend.synchronize()
