"""What is tried first: one layer of weights, and images with a flatten or a pool in front of the weights."""

import numpy as np
import pytest

from ref_bioplaus import (
    algorithms,
    average_pool,
    backends,
    bias,
    chain,
    conv,
    dense,
    flatten,
    inverses,
    losses,
    max_pool,
    metrics,
    registry,
    relu,
    tanh,
)
from ref_bioplaus.conformance.cases.networks import GRADIENT, IMAGE
from ref_bioplaus.network import forward
from ref_bioplaus.optimizers import adam, by_layer, rmsprop, sgd
from ref_bioplaus.tree import leaves
from ref_bioplaus.types import Batch, LayerParams
from tests.conftest import get

CE = losses.cross_entropy()
BACKEND = get("numpy")
KEY = BACKEND.key(1)
OPTIMIZERS = {
    "sgd": sgd(0.1),
    "Nesterov": sgd(0.1, momentum=0.9, nesterov=True, decay=1e-3, form="decoupled"),
    "adam": adam(0.01, decay=1e-3, form="coupled", on="all"),
    "rmsprop": rmsprop(0.01, decay=1e-3),
    "by layer": by_layer(sgd(0.1), {1: adam(0.01)}),
}
INVERTING = [row for row in registry.ROWS if row.inverses]


def same(a, b):
    """Whether two trees are equal bit for bit."""
    a, b = leaves(a), leaves(b)
    return len(a) == len(b) and all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def data(shape, n, classes, seed=0):
    """A batch; one of its inputs is 0 in every sample."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *shape))
    x.reshape(n, -1)[:, 1] = 0.0
    return Batch(x, np.eye(classes)[rng.integers(0, classes, n)])


# One layer of weights


@pytest.mark.parametrize("shape", [(6,), (3, 2, 1)], ids=["vectors", "images"])
@pytest.mark.parametrize("row", registry.ROWS, ids=[row.name for row in registry.ROWS])
def test_with_one_layer_of_weights_every_algorithm_is_the_delta_rule(row, shape):
    """Delta W = -eta (softmax(W x + b) - y) x^T, whatever the optimizer: there is no weight to transport."""
    front = [flatten] if len(shape) == 3 else []
    network = chain(shape, *front, (dense(4), bias), dtype="float64")
    loss = registry.task_loss(row, CE, 4)
    for name, optimizer in OPTIMIZERS.items():
        plain = registry.row("backprop")._replace(wrappers=row.wrappers).build(network, loss, optimizer)
        algorithm = row.build(network, loss, optimizer, optimizer if row.inverses else None)
        for mode, step in algorithm.modes.items():
            expected = plain.init(KEY)
            state = algorithm.init(KEY)._replace(forward=expected.forward)
            for n in (5, 1):
                batch, before = data(shape, n, 4, seed=n), state.forward
                state, _ = step(state, batch)
                expected, info = plain.modes["learn"](expected, batch)
                if not row.learns(mode):
                    assert same(state.forward, before)
                    continue
                if row.name != "backprop-noise-delta":
                    assert same(state.forward, expected.forward), (name, mode)
                if name == "sgd" and not row.wrappers and not row.options.get("noise_on_delta"):
                    x, W, b = batch.x.reshape(n, -1), before.params[network.L].W, before.params[network.L].local[0]["b"]
                    e = np.exp(x @ W.T + b)
                    delta = e / e.sum(axis=1, keepdims=True) - batch.y
                    assert np.allclose(state.forward.params[network.L].W, W - 0.1 * delta.T @ x / n, rtol=1e-12)


@pytest.mark.parametrize(("library", "name"), [("torch", "kolen-pollack"), ("torch", "sdtp"), ("jax", "kolen-pollack")])
def test_with_one_layer_of_weights_compiled_steps_learn_as_backprop(library, name):
    backend, row = backends.get(library, dtype="float64", kernels="native"), registry.row(name)
    network = chain((6,), (dense(4), bias), dtype="float64").with_kernels(backend.kernels)
    optimizer = OPTIMIZERS["adam"]
    plain, other = (r.build(network, CE, optimizer, optimizer) for r in (registry.row("backprop"), row))
    expected = plain.init(backend.key(1))
    state = other.init(backend.key(1))._replace(forward=plain.init(backend.key(1)).forward)
    mode = next(filter(row.learns, other.modes))
    runs = [backend.compile(step, donate=True) for step in (plain.modes["learn"], other.modes[mode])]
    for n in (5, 1):
        batch = backend.batch(*data((6,), n, 4))
        (expected, _), (state, _) = runs[0](expected, batch), runs[1](state, batch)
    for a, b in zip(leaves(expected.forward.params), leaves(state.forward.params), strict=True):
        assert np.array_equal(backend.to_numpy(a), backend.to_numpy(b))


# A flatten or a pool in front


def counterparts(network, other):
    """Layers with synapses of two networks, in pairs."""
    return list(zip(network.weighted, other.weighted, strict=True))


def given_weights(network, state, other, source):
    """`state` with the weights, biases and inverses of another network's state."""
    forward, feedback = list(state.forward.params), list(state.feedback.params)
    for l, k in counterparts(network, other):
        W, (b, *_) = source.forward.params[k]
        forward[l] = LayerParams(W, (b, *forward[l].local[1:]))
        if source.feedback.params[k].W is not None:
            feedback[l] = source.feedback.params[k]
    return state._replace(
        forward=state.forward._replace(params=tuple(forward)), feedback=state.feedback._replace(params=tuple(feedback))
    )


def assert_same_learning(row, network, other, prepared, noise=0.0):
    """Both learn bit for bit the same in every mode, from the weights of the second.

    prepared: what the second gets for the first one's images. noise: 0 where the layers have other numbers, and so
    other random numbers.
    """
    loss = registry.task_loss(row, CE, 3)
    built = [row.build(n, loss, OPTIMIZERS["Nesterov"], OPTIMIZERS["adam"], noise=noise) for n in (network, other)]
    expected = built[1].init(KEY)
    state = given_weights(network, built[0].init(KEY), other, expected)
    for t, (mode, n) in enumerate([("parallel", 5), ("inverse", 5), ("forward", 1), ("parallel", 1), ("parallel", 5)]):
        x, y = data(network[0].out_shape, n, 3, seed=t)
        state, info = built[0].modes[mode](state, Batch(x, y))
        expected, _ = built[1].modes[mode](expected, Batch(prepared(x), y))
        for l, k in counterparts(network, other):
            (W, (b, *_)), (W_expected, (b_expected, *_)) = state.forward.params[l], expected.forward.params[k]
            assert np.array_equal(W, W_expected) and same(b, b_expected), (t, l)
            if expected.feedback.params[k].W is not None:
                assert same(state.feedback.params[l], expected.feedback.params[k]), (t, l)
    return info


HIDDEN = ((dense(7), bias, tanh), (dense(6), bias, tanh))


def blocks(x):
    """(N, 4, 6, C) cut into blocks of (2, 3)."""
    return x.reshape(len(x), 2, 2, 2, 3, x.shape[-1])


def vectors(x):
    """Every image as a vector."""
    return x.reshape(len(x), -1)


PREPARED = {  # in front of all weights: what the network does, and the same done to the images
    "flatten": ((4, 3, 2), [flatten], vectors),
    "max-pool": ((4, 6, 2), [max_pool((2, 3)), flatten], lambda x: vectors(blocks(x).max(axis=(2, 4)))),
    "mean-pool": ((4, 6, 2), [(average_pool((2, 3)), flatten)], lambda x: vectors(blocks(x).mean(axis=(2, 4)))),
}  # fmt: skip


@pytest.mark.parametrize("front", PREPARED)
@pytest.mark.parametrize("row", INVERTING, ids=[row.name for row in INVERTING])
def test_what_stands_in_front_of_the_weights_only_prepares_the_images(row, front):
    shape, layers, prepared = PREPARED[front]
    outputs = 3 + 2 * row.auxiliary
    network = chain(shape, *layers, *HIDDEN, (dense(outputs), bias), dtype="float64")
    other = chain(prepared(np.zeros((1, *shape))).shape[1:], *HIDDEN, (dense(outputs), bias), dtype="float64")
    assert_same_learning(row, network, other, prepared)


@pytest.mark.parametrize("row", INVERTING, ids=[row.name for row in INVERTING])
def test_images_and_vectors_are_corrupted_by_the_same_noise(row):
    outputs = 3 + 2 * row.auxiliary
    layers = (flatten, *HIDDEN, (dense(outputs), bias))
    network, other = (chain(shape, *layers, dtype="float64") for shape in ((4, 3, 2), (24,)))
    assert_same_learning(row, network, other, vectors, noise=0.3)


@pytest.mark.parametrize("row", INVERTING, ids=[row.name for row in INVERTING])
def test_pooling_behind_a_convolution_is_that_of_its_layer(row):
    """As a layer of its own or as the last operations of the convolution's: the same targets, the same learning."""
    outputs, front = 3 + 2 * row.auxiliary, (conv(4, (3, 5)), bias, relu)
    above = (*HIDDEN, (dense(outputs), bias))
    together = chain(IMAGE, (*front, max_pool((2, 3)), flatten), *above, dtype="float64")
    apart = chain(IMAGE, front, max_pool((2, 3)), flatten, *above, dtype="float64")
    info = assert_same_learning(row, apart, together, lambda x: x)
    assert info.targets[3].shape == (5, 32)
    assert [op.name for op in inverses.mirrored_inverse(apart, 4).local[1:]] == ["relu"]


def test_pooling_above_other_weights_asks_for_a_dense_inverse():
    """Its inverse learns the gradient of ||g(f(h)) - h||^2, by central differences."""
    network = chain(
        IMAGE, (conv(2, (3, 2)), tanh), (conv(3, 3), bias, tanh), max_pool((2, 3)), flatten, (dense(4), bias),
        dtype="float64",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"layer 4 .flatten.*inverse of layer 2 .*choose inverses.dense_inverse"):
        algorithms.sdtp(network, CE, sgd(0.1), sgd(0.1))
    algorithm = algorithms.sdtp(network, CE, sgd(0.1), sgd(1.0), inverse=inverses.dense_inverse, noise=0.0)
    state, batch = algorithm.init(KEY), data(IMAGE, 5, 4)
    new, _ = algorithm.modes["inverse"](state, batch)
    h = forward(network, state.forward.params, state.stats, batch.x)[0].h
    V, c = state.feedback.params[2].W, state.feedback.params[2].local[0]["b"]
    step = V - new.feedback.params[2].W

    def loss(V):
        difference = np.tanh(h[4] @ V.T + c) - h[1].reshape(5, -1)
        return (difference * difference).sum() / 5

    across = np.random.default_rng(2).standard_normal(V.shape)
    assert np.sum(step * across) == pytest.approx((loss(V + 1e-5 * across) - loss(V - 1e-5 * across)) / 2e-5, rel=1e-7)
    _, info = algorithm.modes["parallel"](state, batch)
    rebuilt, wanted = (np.tanh(h_4 @ V.T + c) for h_4 in (h[4], info.targets[4]))
    assert np.allclose(info.targets[1].reshape(5, -1), h[1].reshape(5, -1) - rebuilt + wanted, rtol=1e-12)  # (2)
    built = {2: inverses.dense_inverse(network, 2)}
    error = metrics.reconstruction_errors(network, CE, built, state, batch.x)[2]
    below = h[1].reshape(5, -1)
    assert float(error) == pytest.approx(np.mean(((rebuilt - below) ** 2).sum(1) / (below**2).sum(1)), rel=1e-12)


@pytest.mark.parametrize("network", ["joined", "pooled output"])
def test_target_propagation_refuses_what_is_no_chain(network):
    network, refused = {
        "joined": (GRADIENT["ResNet, BN after ReLU"](), r"layer 4 .\[1\+3\] relu"),
        "pooled output": (
            chain((4, 3, 2), (conv(3, 2), bias), (average_pool((4, 3)), flatten)),
            "layer 2 .average_pool",
        ),
    }[network]
    with pytest.raises(ValueError, match=f"{refused}.*needs a chain that ends in synapses"):
        algorithms.sdtp(network, CE, sgd(0.1), sgd(0.1))


def test_a_dense_inverse_of_a_dense_layer_has_the_layout_of_its_weights():
    """Square layers, where the transpose has the same shape: B = W stands at 0 degrees."""
    network = chain((5,), *[(dense(5), tanh)] * 2, (dense(5),), dtype="float64")
    algorithm = algorithms.sdtp(network, CE, sgd(0.1), sgd(0.1), inverse=inverses.dense_inverse)
    state = algorithm.init(KEY)
    W, u = state.forward.params[2].W, data((5,), 3, 5).x
    assert np.allclose(inverses.dense_inverse(network, 2).linear.apply(W, u), u @ W, rtol=1e-14)
    angles = metrics.matrix_angles(state.forward.params, state.feedback.params)
    assert list(angles) == [2, 3] and all(30 < float(a) < 150 for a in angles.values())


@pytest.mark.parametrize("name", ["dtp", "sdtp"])
def test_inverses_behind_a_flatten_have_angles_and_are_exported(name):
    network = chain((4, 3, 2), flatten, *HIDDEN, (dense(3), bias), dtype="float64")
    state = registry.row(name).build(network, CE, sgd(0.1), sgd(0.1)).init(KEY)
    layers = [2, 3] if name == "dtp" else [2, 3, 4]
    assert list(metrics.matrix_angles(state.forward.params, state.feedback.params)) == layers
    units = np.arange(24.0)
    c = state.feedback.params[2]._replace(local=({"b": units},))
    lam = (*state.feedback.params[:2], c, *state.feedback.params[3:])
    arrays = BACKEND.export_params(network, lam)
    assert np.array_equal(arrays["2.0.bias"], units.reshape(4, 3, 2).transpose(2, 0, 1).reshape(-1))
    assert [key for key in arrays if key.endswith("0.weight")] == [f"{l}.0.weight" for l in layers]
    assert same(BACKEND.import_params(network, state.feedback.params, arrays), lam)
