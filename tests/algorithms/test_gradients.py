"""BP's manual gradients equal automatic differentiation through the project's own forward pass."""

from itertools import product

import numpy as np
import pytest

from ref_bioplaus import losses
from ref_bioplaus.algorithms import backprop
from ref_bioplaus.conformance.cases.networks import (
    GRADIENT,
    batch,
    convolutional_chain,
    detector,
    fully_connected,
    pyramid,
    randomised,
)
from ref_bioplaus.models import MODELS
from ref_bioplaus.network import forward
from ref_bioplaus.optimizers import sgd
from ref_bioplaus.tree import leaves, tree_map
from tests.conftest import get
from tests.helpers import some_slow
from tests.helpers.oracles import jax_gradients, torch_gradients, worst_difference
from tests.helpers.small_models import CLASSES, DETECTORS, SMALL

ORACLES = {"torch": torch_gradients, "jax": jax_gradients}
NETWORKS = GRADIENT | {"convolutional chain": convolutional_chain, "pyramid": pyramid} | SMALL
LOSSES = {
    "cross_entropy": losses.cross_entropy(),
    "sigmoid_cross_entropy": losses.sigmoid_cross_entropy(),
    "squared_error": losses.squared_error(),
    "focal": losses.focal(1.5, 0.625),
    "smooth_l1": losses.smooth_l1(0.5),
}


def anchored(network, n):
    """x and targets of losses.detection, of which the first image has no box."""
    (anchors, units), rng = network[network.L].out_shape, np.random.default_rng(4)
    x, _ = batch(network, n)
    label = rng.integers(-2, units - 4, (n, anchors, 1))
    label[0] = np.minimum(label[0], -1)
    boxed = (label >= 0) * 1.0
    return x, np.concatenate([label, boxed, boxed * rng.standard_normal((n, anchors, 4))], axis=-1)


def check(network, loss, x, y, library):
    numpy64 = get("numpy")
    get(library)
    algorithm = backprop(network, loss, sgd(0.1))
    state = randomised(algorithm.init(numpy64.key(1)))
    _, info = algorithm.modes["learn"](state, numpy64.batch(x, y))
    size, where = worst_difference(ORACLES[library](network, loss, state, x, y), info.grads)
    assert size < 1e-10, where


LARGE = (
    *(name.split("/")[-1] for name in DETECTORS),
    "resnet18",
    "resnet50",
    "alexnet",
    "imagenet-convnet",
    "imagenet-lc",
    "imagenet-model2",
    "cifar10-model2",
)


def test_every_model_has_a_small_version():
    assert SMALL.keys() == MODELS.keys()


@pytest.mark.parametrize(
    ("name", "library"),
    some_slow(product(NETWORKS, ORACLES), lambda name, library: library == "jax" and name.split("/")[-1] in LARGE),
)
def test_backprop_is_the_gradient(name, library):
    network = NETWORKS[name]().with_dtype("float64")
    if name in DETECTORS:
        check(network, losses.detection(CLASSES, beta=0.5), *anchored(network, 2), library)
        return
    classes = network[network.L].out_shape[0]
    for n in (3, 1):
        if n == 1 and (library == "jax" or name in SMALL):
            continue
        check(network, LOSSES["cross_entropy"], *batch(network, n, classes=classes), library)


@pytest.mark.parametrize("library", list(ORACLES))
@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("auxiliary", [0, 3])
def test_every_loss_has_its_gradient(loss, library, auxiliary):
    network = fully_connected(4 + auxiliary)
    x, _ = batch(network, 5)
    y = np.random.default_rng(3).dirichlet(np.ones(4), 5)  # soft targets
    chosen = losses.with_auxiliary_output(LOSSES[loss], 4) if auxiliary else LOSSES[loss]
    check(network, chosen, x, y, library)


@pytest.mark.parametrize("library", list(ORACLES))
def test_the_loss_of_a_detector_reaches_the_first_convolution(library):
    network = detector()
    check(network, losses.detection(3, beta=0.5), *anchored(network, 3), library)


def test_a_directional_derivative_of_a_detectors_whole_loss():
    """Along a random direction of all weights, biases, gammas and betas at once, by central differences."""
    network, backend = SMALL["lin2017/retinanet-resnet18"](), get("numpy")
    loss, (x, y) = losses.detection(CLASSES), anchored(network, 2)
    algorithm = backprop(network, loss, sgd(0.1))
    state = randomised(algorithm.init(backend.key(1)))
    _, info = algorithm.modes["learn"](state, backend.batch(x, y))
    rng = np.random.default_rng(6)
    direction = tree_map(lambda p: rng.standard_normal(p.shape) / max(p.size, 1) ** 0.5, state.forward.params)

    def at(step):
        params = tree_map(lambda p, d: p + step * d, state.forward.params, direction)
        trace, _ = forward(network, params, state.stats, x, (state.key, "step", state.t))
        return np.mean(loss.value(trace.h[-1], y))

    slope = sum(np.sum(g * d) for g, d in zip(leaves(info.grads), leaves(direction), strict=True))
    assert abs((at(1e-6) - at(-1e-6)) / 2e-6 / slope - 1.0) < 1e-6
