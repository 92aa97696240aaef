"""States and products from shapes alone are those of the real thing."""

import math
import tracemalloc

import numpy as np
import pytest
from array_api_compat import array_namespace

from ref_bioplaus import initializers, losses, models, optimizers
from ref_bioplaus.conformance.cases.cases import step_cases
from ref_bioplaus.registry import ROWS, row, shapes, task_loss
from ref_bioplaus.tree import named_leaves, tree_map
from ref_bioplaus.types import Algorithm, Pathway
from tests.conftest import get

CASES = [c for c in step_cases() if c.architecture in ("FC", "LC", "conv", "ResNet, BN after ReLU")]


def shape_of(array):
    return array.shape, array.dtype.kind


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_state_has_the_shapes_of_the_real_one(case):
    def make(network):
        return case.chosen().build(network, loss, optimizers.adam(0.1), optimizers.rmsprop(0.1))

    loss = task_loss(case.chosen(), losses.cross_entropy(), 4)
    network = case.network().with_dtype("float32")
    real = dict(named_leaves(make(network).init(get("numpy", "float32").key(0))))
    found = dict(named_leaves(shapes.kept(make, network)))
    assert {name: shape_of(a) for name, a in found.items()} == {name: shape_of(a) for name, a in real.items()}


def test_no_number_of_a_huge_state_is_made():
    """Every connection of DenseFA on ResNet-18: 5 TB, in a few MB."""
    network = models.akrout2019.resnet18()
    dense = row("dense-fa")
    tracemalloc.start()
    state = shapes.kept(lambda n: dense.build(n, losses.cross_entropy(), optimizers.adam(0.1)), network)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 4 * sum(math.prod(a.shape) for _, a in named_leaves(state)) > 1e12
    assert peak < 20e6


def test_a_rule_of_ones_own_may_start_from_whatever_arrays_can_do():
    """What is not known to give one number again is calculated, and right."""
    drawn = []

    def rule(network):
        def init(key):
            W = initializers.orthogonal(network[1].linear, (key, "B"), np.float32, network.kernels)
            xp = array_namespace(W)
            own = (
                xp.tril(W), xp.linalg.qr(W[:5, :5])[0], xp.concat([W, W], axis=0), xp.sum(W, axis=0), W[1:, ::2],
                xp.cumulative_sum(W, axis=0), xp.astype(W > 0, xp.int32), xp.matmul(W[:4, :], xp.matrix_transpose(W)),
            )  # fmt: skip
            drawn.append(own)
            state = row("backprop").build(network, losses.cross_entropy(), optimizers.sgd(0.1)).init(key)
            return state._replace(feedback=Pathway(own))

        return Algorithm(init, {})

    network = models.akrout2019.mlp(in_shape=(11,), hidden=6, classes=3).with_dtype("float32")
    shapes.kept(rule, network)
    rule(network).init(get("numpy", "float32").key(0))
    seen, real = (tree_map(shape_of, own) for own in drawn)
    assert seen == real


@pytest.mark.parametrize("mode_of", [r for r in ROWS if not r.asked.variant], ids=lambda r: r.name)
def test_every_mode_can_be_counted(mode_of):
    def make(network):
        return mode_of.build(network, losses.cross_entropy(), optimizers.sgd(0.1), optimizers.sgd(0.1))

    case = next(c for c in CASES if c.row == mode_of.name)
    for mode in case.build().modes:
        assert shapes.products(make, case.network(), mode) > 0
