"""Enlarged, concatenated and shared layers on every backend, with portable and native kernels."""

from dataclasses import replace

import numpy as np
import pytest

import ref_bioplaus as rb
from ref_bioplaus import losses, optimizers
from ref_bioplaus.conformance.cases.networks import batch, detector, pyramid
from ref_bioplaus.experiments import Experiment, evaluate, export, resume, train
from ref_bioplaus.experiments.demo import agreement
from ref_bioplaus.registry import row, shapes
from ref_bioplaus.tree import leaves, named_leaves
from tests.conftest import get
from tests.helpers import some_slow
from tests.helpers.embedded_data import embedded_data

BACKENDS = [(name, kernels) for name in ("numpy", "torch", "jax", "array-api-strict") for kernels in
            ("portable", "native") if (name, kernels) != ("array-api-strict", "native")]  # fmt: skip

LONG = ("jax", "native")  # compiles for as long as the portable kernels, which are tried here


def kolen_pollack(backend):
    return rb.algorithms.kolen_pollack(
        pyramid().with_kernels(backend.kernels), losses.cross_entropy(), optimizers.adam(0.01, decay=0.01)
    )


@pytest.mark.parametrize(("name", "kernels"), some_slow(BACKENDS, lambda name, kernels: (name, kernels) == LONG))
def test_every_backend_takes_the_same_steps(name, kernels):
    numpy, batches = get("numpy"), [batch(pyramid(), 3, seed=i) for i in (1, 2)]
    start = agreement.stored_state(numpy, kolen_pollack)
    wanted = agreement.run(get("read-only"), kolen_pollack, start, batches)
    get(name)
    found = agreement.run(rb.backends.get(name, dtype="float64", kernels=kernels), kolen_pollack, start, batches)
    worst = agreement.difference(wanted, found)
    assert worst.size < agreement.LIMIT, worst


def test_what_a_shared_layer_multiplies_and_keeps_is_counted():
    """The products of a detector's step and its state, by shapes alone."""

    def make(network):
        return row("xiao").build(network, losses.l1(), optimizers.adam(0.1), None)

    network, operations = detector(), 0
    for l in network.weighted:  # once forwards, once for the gradient, once backwards where something learns below
        linear = network[l].linear
        for c in getattr(linear, "each", [linear]):
            product = 2 * int(np.prod(c.weight_shape)) * c.out_shape[0] * c.out_shape[1]
            operations += product * (3 if l in network.feedback_layers else 2)
    assert shapes.products(make, network, "learn") == operations
    kept = shapes.kept(make, network)
    real = make(network.with_dtype("float32")).init(get("numpy", "float32").key(0))
    assert [a.shape for a in leaves(kept)] == [a.shape for a in leaves(real)]


def model(*, in_shape, classes):
    """Two images of one, and a convolution that they share."""
    net = rb.Builder(in_shape)
    fine = net.add(rb.conv(3, 3), rb.batch_norm, rb.relu)
    coarse = net.add(rb.max_pool(2), inputs=(fine,))
    rows = [net.add(rb.rows(), inputs=(k,)) for k in (fine, coarse)]
    net.add(rb.shared_conv(2, 3, [(10, 6), (5, 3)]), rb.bias, rb.tanh, rb.flatten, inputs=tuple(rows), concat=0)
    net.add(rb.dense(classes), rb.bias)
    return net.build()


def test_a_run_with_shared_synapses_is_resumed_evaluated_and_exported(tmp_path):
    experiment = Experiment(
        algorithm="kolen-pollack", model=model, batch=100, steps=6, metrics=("matrix_angles",), checkpoint_every=3,
        optimizer={"name": "sgd", "eta": 0.1, "momentum": 0.9, "decay": 1e-3},
    )  # fmt: skip
    images = embedded_data()
    whole = train(experiment, tmp_path / "whole", images=images)
    train(replace(experiment, steps=4), tmp_path / "run", images=images)
    run = resume(tmp_path / "run", steps=6, images=images, code=model)
    for (name, a), b in zip(named_leaves(whole.state), leaves(run.state), strict=True):
        assert np.array_equal(a, b), name
    assert run.built.network.parameter_count == 27 + 6 + 54 + 2 + 1500 + 10
    found = evaluate(tmp_path / "run", images=images, code=model)
    assert found["test_error"] == run.records[-1]["test_error"]
    arrays = export(tmp_path / "run", tmp_path / "run.safetensors", code=model)
    assert arrays["5.0.weight"].shape == (2, 3, 3, 3) and arrays["6.0.weight"].shape == (10, 150)
