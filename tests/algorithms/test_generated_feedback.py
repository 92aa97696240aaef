"""Feedback that is generated tile by tile is the feedback that is stored, and takes less memory."""

import tracemalloc
from contextlib import nullcontext
from itertools import product

import numpy as np
import pytest

from ref_bioplaus import algorithms, backends, bias, chain, dense, initializers, losses, optimizers, random, tanh
from ref_bioplaus.conformance.cases.networks import GRADIENT, batch
from ref_bioplaus.initializers import generated_columns, generated_transport
from ref_bioplaus.kernels import random_words
from ref_bioplaus.linear import Dense
from ref_bioplaus.tree import leaves, named_leaves, tree_map
from tests.conftest import get
from tests.helpers import some_slow

KEY = np.array([7, -20181103], dtype=np.int32)
ADDRESS = (KEY, "feedback", 3)
MAKERS = {
    "DFA": (algorithms.direct_feedback_alignment, {}),
    "DFA, exact skips": (algorithms.direct_feedback_alignment, {"skips": "exact"}),
    "DenseFA": (algorithms.dense_feedback_alignment, {}),
}
SIZES = (6, 5, 1)
BACKENDS = ("numpy", "read-only", "array-api-strict", "torch", "jax")


def jax_each(function, starts, *arrays):
    """The loop of JAX's native kernels."""
    from ref_bioplaus.backends.jax_.kernels import each

    return each(function, starts, *arrays)


def feedback_of(state):
    """The names of all B_k and D_{l,k} of a state."""
    return [name for name, _ in named_leaves(state.feedback.params) if not name.endswith("/W")]


def trained(backend, name, network, feedback):
    """The first state, and state and deltas after a few steps; JAX loops over tiles, which would be a long program."""
    make, options = MAKERS[name]
    kernels = backend.kernels._replace(each=jax_each) if backend.name == "jax" else backend.kernels
    network = network.with_dtype(backend.dtype).with_kernels(kernels)
    algorithm = make(network, losses.cross_entropy(), optimizers.adam(1e-2), feedback=feedback, **options)
    first = state = algorithm.init(backend.key(5))
    step, deltas = backend.compile(algorithm.modes["learn"]), []
    for seed, n in enumerate((6, 6) if backend.compiles else SIZES):  # one compilation
        state, info = step(state, backend.batch(*batch(network, n, seed)))
        deltas.append(info.delta)
    return first, tree_map(backend.to_numpy, (deltas, state._replace(feedback=())))


@pytest.mark.parametrize("start", [0, 7, 31, 36])
@pytest.mark.parametrize("name", ["fan_out", "glorot_uniform", "he_fan_in", "zero"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_are_those_of_the_whole_matrix_bit_for_bit(name, start, dtype, any_backend):
    backend = backends.get(any_backend.name, dtype=dtype)
    initializer, linear, dt = getattr(initializers, name), Dense(37, 5), getattr(backend.xp, dtype)
    address, width = (backend.asarray(KEY), "feedback", 3), min(7, 37 - start)
    whole = initializer(linear, address, dt, backend.kernels)

    def drawn(key, start):
        return generated_columns(initializer, linear, (key, *address[1:]), dt, backend.kernels, start, width)

    for first in (start, backend.asarray(np.array(start, np.int32))):
        part = backend.wrap(lambda key, at=first: drawn(key, at))(address[0])
        assert np.array_equal(backend.to_numpy(part), backend.to_numpy(whole)[:, start : start + width])


@pytest.mark.parametrize(("rows", "columns", "start", "width"), [(7, 2**31 - 1, 2**31 - 6, 5), (5, 2**31 - 3, 0, 4)])
def test_words_of_a_tile_beyond_a_multiple_of_2_to_32(rows, columns, start, width):
    high, low = random.tile_words(KEY, rows, columns, start, width)
    found = list(zip(high, low, strict=True))
    places = [i * columns + j for i in range(rows) for j in range(start, start + width)]
    assert max(places) > 2**32
    assert found == [tuple(word[0] for word in random_words(KEY, place, 1)) for place in places]


@pytest.mark.parametrize("tile", [1, 33, 64, 10**6])
@pytest.mark.parametrize("n", [1, 3])
def test_the_transport_is_that_of_the_stored_matrix(tile, n, any_backend, monkeypatch):
    monkeypatch.setattr(initializers, "TILE", tile)
    linear, kernels = Dense(37, 11), any_backend.kernels
    address = (any_backend.asarray(KEY), *ADDRESS[1:])
    u = any_backend.asarray(np.random.default_rng(n).standard_normal((n, 11)))
    drawn = (initializers.fan_out, linear, address, any_backend.xp.float64, kernels)
    expected = kernels.dense_transport(initializers.fan_out(*drawn[1:]), u)
    found = any_backend.to_numpy(generated_transport(u, *drawn))
    assert found.shape == (n, 37)
    assert np.allclose(found, any_backend.to_numpy(expected), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "architecture", "backend_name"),
    some_slow(
        product(MAKERS, ("FC", "conv", "LC", "ResNet, BN after ReLU"), BACKENDS),
        lambda name, architecture, backend_name: backend_name == "jax" and architecture not in ("FC", "LC"),
    ),
)
def test_generated_feedback_learns_what_stored_feedback_learns(name, architecture, backend_name, monkeypatch):
    backend, network = get(backend_name), GRADIENT[architecture]()
    if name == "DFA, exact skips" and "ResNet" not in architecture:
        pytest.skip("there are no skips")
    if backend.compiles and (architecture in ("FC", "LC") or name == "DFA, exact skips"):
        pytest.skip("compiling takes long: two networks will do")
    start, stored = trained(backend, name, network, "stored")
    assert feedback_of(start)
    first, whole = trained(backend, name, network, "generated")
    monkeypatch.setattr(initializers, "TILE", 500 if "ResNet" in architecture else 20)  # and a last partial tile
    _, tiled = trained(backend, name, network, "generated")
    assert not feedback_of(first)
    for (leaf, expected), a, b in zip(named_leaves(stored), leaves(whole), leaves(tiled), strict=True):
        if backend_name in ("numpy", "read-only", "array-api-strict"):
            assert np.array_equal(a, expected), leaf
        assert np.allclose(a, expected, rtol=1e-9, atol=1e-12), leaf
        assert np.allclose(b, expected, rtol=1e-9, atol=1e-12), leaf


def test_bfloat16_generates_what_it_stores(monkeypatch):
    backend = get("torch", "bfloat16")
    monkeypatch.setattr(initializers, "TILE", 20)
    for name in ("DFA", "DenseFA"):
        _, stored = trained(backend, name, GRADIENT["FC"](), "stored")
        _, generated = trained(backend, name, GRADIENT["FC"](), "generated")
        for (leaf, expected), found in zip(named_leaves(stored), leaves(generated), strict=True):
            assert np.allclose(found, expected, rtol=2**-7, atol=2**-7), leaf


@pytest.mark.parametrize(("backend_name", "precision"), [("torch", "tf32"), ("torch", "bf16"), ("jax", "bf16")])
@pytest.mark.parametrize("name", ["DFA", "DenseFA"])
def test_a_precision_rounds_stored_and_generated_feedback_alike(name, backend_name, precision):
    get(backend_name)  # or skip

    def signals(feedback, precision):  # of the first step, where feedback is all that differs
        backend = backends.get(backend_name, precision=precision, kernels="native")
        network = GRADIENT["FC"]().with_kernels(backend.kernels).with_dtype("float32")
        algorithm = MAKERS[name][0](network, losses.cross_entropy(), optimizers.sgd(1e-2), feedback=feedback)
        step, b = backend.compile(algorithm.modes["learn"]), backend.batch(*batch(network, 5, 0))
        _, info = step(algorithm.init(backend.key(5)), b)
        return [backend.to_numpy(delta) for delta in info.delta[1:]]

    exact, stored, generated = (
        signals(*how) for how in (("stored", "ieee"), ("stored", precision), ("generated", precision))
    )
    for a, b in zip(stored, generated, strict=True):
        assert np.allclose(a, b, rtol=1e-6, atol=1e-7)
    assert not np.allclose(exact[0], stored[0], rtol=1e-5, atol=1e-6)  # the precision is seen


def test_a_loop_traces_a_tile_once(monkeypatch):
    """JAX's native kernels loop over tiles: the program does not grow with their number."""
    jax = pytest.importorskip("jax")
    backend, linear = backends.get("jax", kernels="native"), Dense(301, 3)
    u = backend.asarray(np.random.default_rng(0).standard_normal((4, 3)))
    sizes, results = [], []
    for tile in (150, 6):
        monkeypatch.setattr(initializers, "TILE", tile)

        def transport(key, u):
            address = (key, "feedback", 3)
            return generated_transport(u, initializers.fan_out, linear, address, u.dtype, backend.kernels)

        sizes.append(str(jax.make_jaxpr(transport)(backend.asarray(KEY), u)).count("xor"))
        results.append(backend.to_numpy(backend.wrap(transport)(backend.asarray(KEY), u)))
    assert sizes[0] == sizes[1] > 0
    assert np.allclose(*results, rtol=1e-6, atol=1e-6)


def test_a_captured_loop_is_one_call(monkeypatch):
    """torch's native kernels make one operation of all tiles: the captured line does not grow with their number."""
    torch_capture = pytest.importorskip("ref_bioplaus.backends.torch_.capture")
    backend, linear = backends.get("torch", kernels="native"), Dense(301, 3)
    key, u = backend.asarray(KEY), backend.asarray(np.random.default_rng(0).standard_normal((4, 3)))
    sizes, results = [], []
    for tile in (150, 6):
        monkeypatch.setattr(initializers, "TILE", tile)

        def transport(key, u):
            address = (key, "feedback", 3)
            return generated_transport(2.0 * u, initializers.fan_out, linear, address, u.dtype, backend.kernels)

        captured = torch_capture.Captured(transport, nullcontext, False)
        results += [backend.to_numpy(captured(key, u)), backend.to_numpy(captured(key, u))]
        (line,) = captured.lines
        targets = [str(node.target) for node in line.module.graph.nodes]
        assert targets.count("ref_bioplaus.each.default") == 1
        sizes.append(len([target for target in targets if "getitem" not in target]))
    assert sizes[0] == sizes[1]
    expected = backend.to_numpy(transport(key, u))
    assert all(np.allclose(result, expected, rtol=1e-6, atol=1e-6) for result in results)


@pytest.mark.parametrize("name", ["DFA", "DenseFA"])
def test_generated_feedback_takes_less_memory(name, monkeypatch):
    """The peak of a step from its first state on: with stored feedback it is above the feedback's own size."""
    monkeypatch.setattr(initializers, "TILE", 2**14)
    hidden, outputs = 3000, 200
    network = chain((9,), (dense(hidden), bias, tanh), (dense(40), bias, tanh), (dense(outputs), bias))
    backend = get("numpy", "float32")
    x, y = np.ones((2, 9), np.float32), np.eye(outputs, dtype=np.float32)[:2]
    peaks = {}
    for feedback in ("stored", "generated"):
        make, options = MAKERS[name]
        algorithm = make(network, losses.cross_entropy(), optimizers.sgd(0.1), feedback=feedback, **options)
        tracemalloc.start()
        state = algorithm.init(backend.key(0))
        algorithm.modes["learn"](state, backend.batch(x, y))
        peaks[feedback] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks["stored"] > 4 * hidden * outputs
    assert peaks["generated"] < peaks["stored"] / 3


def test_what_cannot_be_generated_is_refused():
    network = GRADIENT["FC"]()
    for make, which in ((algorithms.direct_feedback_alignment, "feedback_initializer"),
                        (algorithms.dense_feedback_alignment, "dense_initializer")):  # fmt: skip
        with pytest.raises(ValueError, match='"stored" or "generated"'):
            make(network, losses.cross_entropy(), optimizers.sgd(0.1), feedback="drawn")
        with pytest.raises(ValueError, match="orthogonal"):
            options = {which: initializers.orthogonal, "feedback": "generated"}
            make(network, losses.cross_entropy(), optimizers.sgd(0.1), **options)
