"""Networks: shapes checked when they are built, sentences for mistakes, and what goes through them."""

import numpy as np
import pytest

from ref_bioplaus import (
    Builder,
    algorithms,
    batch_norm,
    bias,
    chain,
    conv,
    dense,
    dropout,
    flatten,
    global_average_pool,
    initializers,
    inverses,
    losses,
    max_pool,
    predict,
    relu,
    tanh,
)
from ref_bioplaus.conformance.cases.networks import GRADIENT, batch, fully_connected, residual
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.linear import locally_connected
from ref_bioplaus.local import Bias
from ref_bioplaus.network import forward, joined
from ref_bioplaus.optimizers import sgd
from ref_bioplaus.tree import leaves, named_leaves, tree_map, unflatten
from ref_bioplaus.types import Batch
from tests.conftest import get

BACKEND = get("numpy")
KEY = BACKEND.key(0)


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([(conv(4, 3), relu), (dense(5), bias)], r"layer 2, dense\(5\) .*has shape \(8, 6, 4\), expected \(units,\)"),
        ([(flatten,), (conv(4, 3),)], r"layer 2, conv\(4, 3x3\) .*\(144,\), expected \(height, width, channels\)"),
        ([(conv(4, 9, padding="valid"),)], r"layer 1, .*kernel of 9x9 does not fit its input of 8x6"),
        ([(conv(4, 3, padding="full"),)], 'padding "full" is unknown, expected "same", "valid"'),
        ([(conv(4, 0),)], r"kernel \(0, 0\) and stride \(1, 1\) must be at least 1"),
        ([(relu, conv(4, 3))], "layer 1 .*synapses come first and once"),
        ([(conv(4, 3), conv(4, 3))], r"give conv\(4, 3x3\) its own layer"),
        ([(flatten,), (global_average_pool,)], "layer 2, global_average_pool"),
        ([max_pool(2)], "at least one layer with synapses"),
    ],
)
def test_a_layer_that_does_not_fit_is_named(layers, sentence):
    with pytest.raises(ValueError, match=sentence):
        chain((8, 6, 3), *layers)


def test_mistakes_in_a_graph_are_named():
    net = Builder((8, 6, 3))
    a, b = net.add(conv(4, 3)), net.add(conv(5, 3), inputs=(0,))
    with pytest.raises(
        ValueError, match=r"one shape to be summed, got \(8, 6, 4\) from layer 1, \(8, 6, 5\) from layer 2"
    ):
        net.add(relu, inputs=(a, b))
    for axis, inputs in ((0, (a, b)), (1, (a, b)), (3, (a, a)), (-1, (a, a)), (0, (b, net.add(flatten, inputs=(b,))))):
        with pytest.raises(
            ValueError,
            match=rf"layer \d \(relu\): its inputs must have one shape, but for axis {axis}, to be put one behind the "
            r"other along it, got \(8, 6, [45]\) from layer [12], ",
        ):
            net.add(relu, inputs=inputs, concat=axis)
    with pytest.raises(ValueError, match="input 7 does not exist yet, expected layers 0 to 3"):
        net.add(relu, inputs=(7,))
    with pytest.raises(ValueError, match=r"layer 1 \(conv\(4, 3x3\)\) feeds no other layer"):
        net.build()


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (np.zeros((2, 8)), np.zeros((2, 4)), r"x has shape \(2, 8\), expected \(N, 9\)"),
        (np.zeros((2, 9), np.float32), np.zeros((2, 4)), "x has dtype float32, expected float64"),
        (np.zeros((0, 9)), np.zeros((0, 4)), "at least one"),
        (np.zeros((2, 9)), np.zeros(2), r"targets y have shape \(2,\), expected \(2, 4\).*one-hot"),
    ],
)
def test_a_batch_that_does_not_fit_gets_a_sentence(x, y, sentence):
    algorithm = algorithms.backprop(fully_connected(), losses.cross_entropy(), sgd(0.1))
    with pytest.raises(ValueError, match=sentence):
        algorithm.modes["learn"](algorithm.init(KEY), Batch(x, y))


def test_a_key_that_is_none_gets_a_sentence():
    algorithm = algorithms.backprop(fully_connected(), losses.cross_entropy(), sgd(0.1))
    with pytest.raises(ValueError, match=r"expected int32 of shape \(2,\)"):
        algorithm.init(np.array([1, 2, 3], dtype=np.int32))
    with pytest.raises(ValueError, match='"float13" is unknown'):
        algorithms.backprop(fully_connected().with_dtype("float13"), losses.cross_entropy(), sgd(0.1)).init(KEY)


def test_what_layers_feed_and_where_errors_go():
    network = residual(True)
    assert network.weighted == (1, 2, 3, 5, 6, 7, 10)
    assert network.feedback_layers == (2, 3, 5, 6, 7, 10)
    assert network.populations == (1, 2, 4, 5, 9)
    assert network.downstream(4) == (5, 6, 7, 10)
    assert network.downstream(5) == (6, 10)
    assert [network[l].inputs for l in (4, 7, 8)] == [(1, 3), (4,), (7, 6)]


def test_no_error_goes_where_nothing_learns():
    """Dropout on the input has nothing to learn; BatchNorm on the input has."""
    for first, expected in ((dropout(0.2), (3,)), (batch_norm, (2, 3))):
        network = chain((6,), first, (dense(5), tanh), (dense(4), bias), dtype="float64")
        assert network.feedback_layers == expected
        algorithm = algorithms.direct_feedback_alignment(network, losses.cross_entropy(), sgd(0.1))
        x, y = batch(network)
        state, info = algorithm.modes["learn"](algorithm.init(KEY), Batch(x, y))
        assert (info.delta[1] is None) == (first is not batch_norm)
        assert [l for l, b in enumerate(state.feedback.params) if b.B is not None] == [l - 1 for l in expected]


def test_a_network_says_what_it_is():
    text = str(GRADIENT["conv"]())
    assert "max_pool(2x3, stride 2x1, padding (1, 1))" in text
    assert "dense(7)" in text
    assert f"{GRADIENT['conv']().parameter_count:,} parameters, float64" in text
    state = algorithms.backprop(GRADIENT["conv"](), losses.cross_entropy(), sgd(0.1)).init(KEY)
    assert sum(leaf.size for leaf in leaves(state.forward.params)) == GRADIENT["conv"]().parameter_count


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_concatenation_gives_each_input_its_part_of_the_error(axis):
    shapes = [tuple(length if i == axis else n for i, n in enumerate((4, 3, 5))) for length in (2, 1, 6)]
    join, shape = joined(shapes, axis)
    arrays = [np.random.default_rng(i).standard_normal((2, *shape)) for i, shape in enumerate(shapes)]
    x = join.combine(arrays, PORTABLE)
    assert x.shape[1:] == shape and np.array_equal(x, np.concatenate(arrays, axis=axis + 1))
    for found, wanted in zip(join.split(x), arrays, strict=True):
        assert np.array_equal(found, wanted)


def test_a_concatenation_is_shown_by_its_inputs():
    net = Builder((4, 3, 2))
    a, b = net.add(conv(4, 1)), net.add(conv(5, 1), inputs=(0,))
    net.add(inputs=(a, b, a), concat=2)
    assert (net.layers[3].name, net.layers[3].out_shape) == ("[1, 2, 1] concatenation", (4, 3, 13))
    net.add(conv(2, 1), flatten, inputs=(b, 0), concat=2)  # of which the input learns nothing
    net.add(inputs=(4, net.add(flatten, inputs=(3,))), concat=0)
    net.add(dense(2))
    x, y = batch(net.build("float64"), 2, classes=2)
    algorithm = algorithms.backprop(net.build("float64"), losses.cross_entropy(), sgd(0.1))
    _, info = algorithm.modes["learn"](algorithm.init(KEY), Batch(x, y))
    assert info.delta[0] is None and info.delta[3].shape == (2, 4, 3, 13)
    twice = info.delta[3][..., :4] + info.delta[3][..., 9:]  # layer 1 is there twice
    assert np.allclose(info.delta[1], twice, rtol=1e-14)


def test_residual_joins_add():
    net = Builder((5,))
    a = net.add(dense(4))
    b = net.add(dense(4), inputs=(a,))
    net.add(inputs=(a, b))
    net.add(dense(2))
    network = net.build("float64")
    state = algorithms.backprop(network, losses.squared_error(), sgd(0.1)).init(KEY)
    x = np.random.default_rng(0).standard_normal((3, 5))
    W = [p.W for p in state.forward.params]
    trace, _ = forward(network, state.forward.params, state.stats, x)
    assert np.allclose(trace.h[3], x @ W[1].T + x @ W[1].T @ W[2].T)


def test_predict_uses_running_statistics_and_no_dropout():
    network, loss = GRADIENT["conv"](), losses.cross_entropy()
    algorithm = algorithms.backprop(network, loss, sgd(0.1))
    state = algorithm.init(KEY)
    x, y = batch(network, 6)
    for _ in range(3):
        state, info = algorithm.modes["learn"](state, Batch(x, y))
    together = predict(network, loss, state, x)
    alone = np.concatenate([predict(network, loss, state, x[i : i + 1]) for i in range(6)])
    assert np.allclose(together, alone, rtol=1e-12)
    assert np.allclose(together.sum(1), 1.0)
    assert not np.allclose(together, info.output)


def test_initializers_have_their_variance_and_glorot_uniform_its_bound():
    linear = conv(40, (3, 5)).build((9, 7, 20))
    address, kernels = (KEY, "test"), BACKEND.kernels
    n_in, n_out, n = 3 * 5 * 20, 3 * 5 * 40, 3 * 5 * 20 * 40
    for name, variance in {
        "fan_in": 1 / n_in, "fan_out": 1 / n_out, "he_fan_in": 2 / n_in, "he_fan_out": 2 / n_out,
        "glorot_normal": 2 / (n_in + n_out), "glorot_uniform": 2 / (n_in + n_out), "fan_sum": 1 / (n_in + n_out),
    }.items():  # fmt: skip
        W = getattr(initializers, name)(linear, address, np.float64, kernels)
        assert W.shape == (3, 5, 20, 40)
        assert abs(np.var(W) / variance - 1) < 5 * np.sqrt(2 / n), name
        assert abs(np.mean(W)) < 5 * np.sqrt(variance / n)
    limit = (6 / (n_in + n_out)) ** 0.5
    assert 0.99 * limit < np.abs(initializers.glorot_uniform(linear, address, np.float64, kernels)).max() <= limit
    assert abs(np.std(initializers.naive(0.3)(linear, address, np.float64, kernels)) - 0.3) < 0.01
    assert np.all(initializers.zero(linear, address, np.float64, kernels) == 0.0)


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "array-api-strict"])
def test_orthogonal_weights_have_singular_values_of_one(name):
    backend = get(name)
    W = initializers.orthogonal(dense(4).build((7,)), (backend.key(1), "o"), backend.xp.float64, backend.kernels)
    assert np.allclose(np.linalg.svd(backend.to_numpy(W))[1], 1.0, rtol=1e-12)


def test_inverses_of_another_form():
    network = chain(
        (6, 5, 2), (conv(3, 3, stride=2), bias, relu), (locally_connected(4, 2), tanh, flatten), (dense(4), bias),
        dtype="float64",
    )  # fmt: skip
    x, y = batch(network, 6)
    for form, shape in (
        (inverses.mirrored_inverse, (3, 3, 12, 4)),
        (inverses.wider_inverse(3), (3, 3, 27, 4)),
        (inverses.dense_inverse, (27, 36)),
    ):
        algorithm = algorithms.sdtp(
            network, losses.cross_entropy(), sgd(0.1), sgd(0.1), inverse=form, noise={2: 0.1, 3: 0.2}
        )
        state = algorithm.init(KEY)
        assert state.feedback.params[2].W.shape == shape
        state, info = algorithm.modes["parallel"](state, Batch(x, y))
        assert info.targets[1].shape == (6, 3, 3, 3)
        assert [op.name for op in form(network, 2).local[1:]] == ["relu"]  # what layer 1 has
        assert [op.name for op in form(network, 3).local[1:]] == ["tanh"]
    narrow = chain((6, 5, 2), (conv(3, 3), tanh), (conv(3, 3, padding="valid"), tanh, flatten), (dense(4),))
    biases = [inverses.mirrored_inverse(n, 2).local[0].b_shape for n in (network, narrow)]
    assert biases == [(3, 3, 3), (3,)]  # shared over positions where the weights are
    with pytest.raises(ValueError, match='needs a layer padded "same"'):
        inverses.wider_inverse(5)(narrow, 2)


def test_inverses_with_other_neurons():
    network = chain(
        (6, 5, 2), (conv(3, 3, stride=2), bias, relu), (locally_connected(4, 2), tanh, flatten), (dense(4), bias),
        dtype="float64",
    )  # fmt: skip
    x, y = batch(network, 6)
    below = {2: "relu", 3: "tanh"}
    for word, wanted in (
        ("below", below),
        ("none", {2: "LocalOperation", 3: "LocalOperation"}),
        ("own", {2: "tanh", 3: "LocalOperation"}),  # of layer l; the output layer has none
        ("own-softmax", {2: "tanh", 3: "Softmax"}),
    ):
        for form in (inverses.mirrored_inverse, inverses.wider_inverse(3), inverses.dense_inverse):
            for with_bias in (True, False):
                inverse = inverses.with_neurons(form, word, with_bias)
                for l in (2, 3):
                    layer = inverse(network, l)
                    assert isinstance(layer.local[0], Bias) == with_bias
                    last = layer.local[-1]
                    assert getattr(last, "name", type(last).__name__) == wanted[l]
                    assert last.in_shape == layer.out_shape == form(network, l).out_shape
                algorithm = algorithms.sdtp(network, losses.cross_entropy(), sgd(0.1), sgd(0.1), inverse=inverse)
                state, info = algorithm.modes["parallel"](algorithm.init(KEY), Batch(x, y))
                assert info.targets[2].shape == (6, 36)
                assert all((len(p.local) > 0 and "b" in p.local[0]) == with_bias for p in state.feedback.params[2:])
    plain = inverses.with_neurons(inverses.mirrored_inverse)(network, 3)
    assert [type(op) for op in plain.local] == [type(op) for op in inverses.mirrored_inverse(network, 3).local]
    softmax = inverses.Softmax((5,))
    y, _, cache = softmax.forward((), (), np.array([[0.0, 1.0, 800.0, -3.0, 0.5]]), (), True)
    assert y.sum() == 1.0 and np.isfinite(y).all()
    assert not softmax.backward((), cache, np.ones((1, 5)))[0].any()  # all outputs up is no change of a distribution
    with pytest.raises(ValueError, match='nonlinearity "abov" is unknown, expected one of below, none, own, own-soft'):
        inverses.with_neurons(inverses.mirrored_inverse, "abov")


def test_one_hot():
    y = losses.one_hot(np.array([2, 0, 1, 2]), 3, np.float32)
    assert y.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert y.dtype == np.float32


def test_losses_have_known_values():
    u, y = np.array([[0.0, 0.0], [1000.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert np.allclose(losses.cross_entropy().value(u, y), [np.log(2), 1000.0])
    assert np.allclose(losses.sigmoid_cross_entropy().value(u, y), [2 * np.log(2), 1000.0 + np.log(2)])
    assert np.allclose(losses.squared_error().value(u, y), [1.0, 1e6 + 1.0])
    assert np.array_equal(losses.cross_entropy().gradient(u[:1], np.array([[0.5, 0.5]])), [[0.0, 0.0]])
    with pytest.raises(ValueError, match="2 units, expected at least the task's 3"):
        losses.with_auxiliary_output(losses.cross_entropy(), 3).value(u, y)


def test_an_auxiliary_output_has_the_networks_nonlinearity_and_no_error():
    u, y = np.array([[0.3, -0.2, 2.0, -1.0]]), np.array([[0.0, 1.0]])
    for activation, z in ((tanh, np.tanh(u[:, 2:])), (relu, [[2.0, 0.0]])):
        loss = losses.with_auxiliary_output(losses.cross_entropy(), 2, activation)
        h = loss.output(u)
        assert np.allclose(h, np.concatenate([losses.softmax(u[:, :2]), z], axis=1), rtol=1e-15)
        assert np.array_equal(loss.target(h, y), np.concatenate([y, z], axis=1))
        assert np.array_equal(loss.gradient(u, y)[:, 2:], [[0.0, 0.0]])
        assert np.array_equal(loss.gradient(u, y)[:, :2], losses.cross_entropy().gradient(u[:, :2], y))


def test_trees():
    tree = {"b": (np.ones(2), None), "a": [np.zeros(1)]}
    assert [name for name, _ in named_leaves(tree)] == ["a/0", "b/0"]
    doubled = tree_map(lambda a: 2 * a, tree)
    assert doubled["b"][0].tolist() == [2.0, 2.0]
    assert doubled["b"][1] is None
    assert isinstance(doubled["a"], list)
    assert unflatten(tree, [1, 2]) == {"a": [1], "b": (2, None)}
    with pytest.raises(ValueError, match="shorter|longer"):
        tree_map(lambda a, b: a, (1, 2), (1,))


def test_a_gradient_of_dropout_and_batch_norm_keeps_its_place():
    """The same step twice, and from the same state in another order of calls, gives the same numbers."""
    network = chain((9,), (dense(6), batch_norm, relu, dropout(0.4)), (dense(4), bias), dtype="float64")
    algorithm = algorithms.backprop(network, losses.cross_entropy(), sgd(0.1))
    state = algorithm.init(KEY)
    x, y = batch(network, 6)
    first, _ = algorithm.modes["learn"](state, Batch(x, y))
    second, _ = algorithm.modes["learn"](first, Batch(x, y))
    again, _ = algorithm.modes["learn"](state, Batch(x, y))
    assert all(np.array_equal(a, b) for a, b in zip(leaves(first), leaves(again), strict=True))
    assert not np.allclose(first.stats[1][0]["mean"], second.stats[1][0]["mean"])
