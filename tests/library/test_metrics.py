"""Metrics: known answers, zero vectors, ties."""

import numpy as np
import pytest

from ref_bioplaus import algorithms, losses, metrics
from ref_bioplaus.conformance.cases.networks import GRADIENT, batch, fully_connected
from ref_bioplaus.inverses import mirrored_inverse
from ref_bioplaus.optimizers import sgd
from ref_bioplaus.types import Batch, Pathway
from tests.conftest import get

CE = losses.cross_entropy()
BACKEND = get("numpy")
KEY = BACKEND.key(0)


def test_angles():
    a = np.array([[3.0, 0.0], [0.0, 0.0]])
    b = np.array([[0.0, 2.0], [0.0, 0.0]])
    with np.errstate(invalid="ignore"):
        assert np.isnan(metrics.angle(a, 0.0 * a))
    assert metrics.angle(a, b) == pytest.approx(90.0, abs=1e-12)
    assert metrics.angle(a, -2.0 * a) == pytest.approx(180.0, abs=1e-12)
    assert metrics.angle(a, 5.0 * a) == 0.0
    assert metrics.angle(a, a + b * 1.5) == pytest.approx(45.0, abs=1e-12)
    tiny = np.array([[1.0, 1e-9]])
    assert metrics.angle(np.array([[1.0, 0.0]]), tiny) == pytest.approx(np.degrees(1e-9), rel=1e-6)  # acos gives 0


@pytest.mark.parametrize("architecture", list(GRADIENT))
def test_matrix_angles_name_the_layers_with_feedback_of_their_shape(architecture):
    network = GRADIENT[architecture]()
    for name, layers in (
        ("feedback_alignment", network.feedback_layers),
        ("direct_feedback_alignment", ()),
        ("backprop", ()),
    ):
        state = getattr(algorithms, name)(network, CE, sgd(0.1)).init(KEY)
        assert tuple(metrics.matrix_angles(state.forward.params, state.feedback.params)) == layers
    symmetric = metrics.matrix_angles(state.forward.params, state.forward.params)
    assert all(float(a) == 0.0 for a in symmetric.values())


def test_delta_angles_and_gradient_ratios_against_backprop():
    network = fully_connected()
    bp, fa = (make(network, CE, sgd(0.1)) for make in (algorithms.backprop, algorithms.feedback_alignment))
    state = bp.init(KEY)
    own = Pathway(tuple(p._replace(W=3.0 * p.W, local=()) for p in state.forward.params[1:]))
    own = Pathway((state.forward.params[0], *own.params))
    x, y = batch(network)
    _, reference = bp.modes["learn"](state, Batch(x, y))
    _, info = fa.modes["learn"](state._replace(feedback=own), Batch(x, y))
    assert all(float(a) == pytest.approx(0.0, abs=1e-6) for a in metrics.delta_angles(info, reference).values())
    ratios = {l: float(r) for l, r in metrics.gradient_ratios(reference, info).items()}
    assert ratios == pytest.approx({1: 1 / 9, 2: 1 / 3, 3: 1.0})  # (8)


def test_sign_changes_count_zeros_as_signs_of_their_own():
    network = fully_connected()
    params = algorithms.backprop(network, CE, sgd(0.1)).init(KEY).forward.params
    W = params[1].W.copy()
    W[0, :] = -W[0, :]
    W[1, 0] = 0.0
    after = (params[0], params[1]._replace(W=W), *params[2:])
    changes = metrics.sign_changes(params, after)
    assert {l: float(c) for l, c in changes.items()} == pytest.approx({1: 10 / 99, 2: 0.0, 3: 0.0})
    W[1, 1] = np.nan
    assert np.isnan(metrics.sign_changes(params, after)[1])  # no fraction is known


def test_reconstruction_error_is_one_for_a_silent_inverse_and_falls_with_learning():
    network = fully_connected()
    algorithm = algorithms.sdtp(network, CE, sgd(0.1), sgd(0.1), noise=0.01)
    state = algorithm.init(KEY)
    layers = {l: mirrored_inverse(network, l) for l in (2, 3)}
    x, y = batch(network, 12)
    silent = state._replace(
        feedback=Pathway(tuple(p if p.W is None else p._replace(W=0.0 * p.W) for p in state.feedback.params))
    )
    x = x + 0.1
    assert {l: float(e) for l, e in metrics.reconstruction_errors(network, CE, layers, silent, x).items()} == {
        2: 1.0,
        3: 1.0,
    }
    before = metrics.reconstruction_errors(network, CE, layers, state, x)
    for _ in range(200):
        state, _ = algorithm.modes["inverse"](state, Batch(x, y))
    after = metrics.reconstruction_errors(network, CE, layers, state, x)
    assert all(float(after[l]) < 0.7 * float(before[l]) for l in layers)


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "array-api-strict"])
def test_top_k_error_and_its_ties(name):
    backend = get(name)
    output = backend.asarray(np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.3], [0.2, 0.0, 0.8], [0.0, 0.0, 1.0]]))
    y = backend.asarray(np.eye(3)[[1, 1, 0, 1]])
    assert [float(metrics.top_k_error(output, y, k)) for k in (1, 2, 3)] == [0.75, 0.25, 0.0]
    missing = backend.asarray(np.array([[np.nan, 0.5, 0.4], [0.1, np.nan, 0.3], [0.1, 0.5, 0.4], [0.1, 0.5, 0.4]]))
    assert float(metrics.top_k_error(missing, y, 3)) == 0.5
    with pytest.raises(ValueError, match="expected 1 to 3"):
        metrics.top_k_error(output, y, 4)
