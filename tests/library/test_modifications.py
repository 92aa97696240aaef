"""The papers' modifications, each against its equation."""

import numpy as np
import pytest

from ref_bioplaus import backends, losses, metrics, modifications
from ref_bioplaus.algorithms import backprop, kolen_pollack, sign_symmetry, weight_mirror
from ref_bioplaus.conformance.cases.networks import GRADIENT, batch, fully_connected, randomised
from ref_bioplaus.modifications import align_to_random, batch_manhattan, constant_norm, fixed_signs, noisy_gradients
from ref_bioplaus.optimizers import adam, piecewise, sgd
from ref_bioplaus.types import NO_PARAMS, Batch, LayerParams
from tests.conftest import get

CE = losses.cross_entropy()
BACKEND = get("numpy")
KEY = BACKEND.key(2)


def trained(algorithm, network, steps, state=None, modes=("learn",)):
    state = algorithm.init(KEY) if state is None else state
    states = [state]
    for t in range(steps):
        x, y = batch(network, 6, t)
        for mode in modes:
            state, _ = algorithm.modes[mode](state, Batch(x, y))
        states.append(state)
    return states


def weights(state):
    return {l: p.W for l, p in enumerate(state.forward.params) if p.W is not None}


def test_batch_manhattan_moves_every_weight_by_eta_and_no_bias():
    network = fully_connected()
    before, after = trained(backprop(network, CE, batch_manhattan(sgd(0.01))), network, 1)
    plain = trained(backprop(network, CE, sgd(0.01)), network, 1)[1]
    for l, W in weights(before).items():
        step = np.abs(weights(after)[l] - W)
        assert np.allclose(step[step > 0], 0.01, rtol=1e-12)
        assert np.array_equal(after.forward.params[l].local[0]["b"], plain.forward.params[l].local[0]["b"])


def test_batch_manhattan_takes_the_sign_before_decay_and_momentum():
    network = fully_connected()
    optimizer = batch_manhattan(sgd(0.01, 0.9, decay=0.1, form="coupled"))
    before, after = trained(backprop(network, CE, optimizer), network, 1)
    grads = backprop(network, CE, sgd(0.0)).modes["learn"](before, Batch(*batch(network, 6, 0)))[1].grads
    for l, W in weights(before).items():
        assert np.allclose(weights(after)[l], W - 0.01 * (np.sign(grads[l].W) + 0.1 * W), rtol=1e-13)


@pytest.mark.parametrize("architecture", list(GRADIENT))
@pytest.mark.parametrize("inner", [adam(0.05), sgd(0.5, 0.9, decay=0.1)])
def test_constant_norm_keeps_every_norm(architecture, inner):
    network = GRADIENT[architecture]()
    states = trained(backprop(network, CE, constant_norm(inner)), network, 4)
    for l, W in weights(states[0]).items():
        assert not np.allclose(weights(states[-1])[l], W)
        for state in states:
            assert np.isclose(np.linalg.norm(weights(state)[l]), np.linalg.norm(W), rtol=1e-14)  # (10)


def test_constant_norm_leaves_a_zero_weight_alone():
    zero = np.zeros((2, 3))
    assert np.array_equal(modifications.scaled_to(zero, 1.5), zero)
    assert np.isclose(np.linalg.norm(modifications.scaled_to(zero + 2.0, 1.5)), 1.5)


@pytest.mark.parametrize("kernels", ["portable", "native"])
@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_a_weight_or_gradient_that_is_nan_stays_nan(name, kernels):
    """Its sign, its clipping and its norm do not make a number of it; other weights are moved as ever."""
    if name not in backends.installed():
        pytest.skip(f"{name} is not installed")
    b = backends.get(name, kernels=kernels)
    W, g = (np.array([values], np.float32) for values in ([np.nan, 1.0, -2.0, 3.0], [1.0, np.nan, 2.0, 0.0]))

    def moved(W, g, key):
        found = []
        for wrap in (batch_manhattan, lambda o: fixed_signs(o, start=0), constant_norm):
            optimizer = wrap(sgd(0.25))
            memory = optimizer.init((LayerParams(0.0 * g + 1.0), LayerParams(None)), (key,), b.kernels)
            params, _ = optimizer.update((LayerParams(g), NO_PARAMS), memory, (LayerParams(W), NO_PARAMS), b.kernels)
            found.append(params[0].W)
        return tuple(found)

    with np.errstate(invalid="ignore"):
        signs, frozen, scaled = map(b.to_numpy, b.wrap(moved)(b.asarray(W), b.asarray(g), b.key(0)))
    nan = np.float32(np.nan)
    np.testing.assert_array_equal(signs, np.array([[nan, nan, -2.25, 3.0]], np.float32))
    np.testing.assert_array_equal(frozen[0, :2], [nan, nan])
    assert np.isnan(scaled).all()  # what a norm is made of is in it


def test_signs_are_fixed_from_the_freeze_on_and_free_before():
    network, start = fully_connected(), 4
    algorithm = sign_symmetry(network, CE, fixed_signs(adam(0.3), start))
    states = trained(algorithm, network, 14)
    frozen = weights(states[start])
    for l, W in frozen.items():
        assert not np.array_equal(np.sign(W), np.sign(weights(states[0])[l]))
        for state in states[start + 1 :]:
            assert np.array_equal(np.sign(weights(state)[l]), np.sign(W))
        assert np.any(np.abs(weights(states[-1])[l]) == 1e-6)  # somebody stands at the margin
    free = trained(sign_symmetry(network, CE, adam(0.3)), network, 14)
    assert any(not np.array_equal(np.sign(weights(free[-1])[l]), np.sign(weights(free[start])[l])) for l in frozen)
    assert all(np.array_equal(weights(free[t])[l], weights(states[t])[l]) for t in range(start + 1) for l in frozen)


def test_a_weight_that_is_zero_at_the_freeze_takes_the_sign_it_started_with():
    network = fully_connected()
    algorithm = backprop(network, CE, fixed_signs(sgd(0.0), 1, margin=0.5))
    state = algorithm.init(KEY)
    W0 = weights(state)[2]
    params = tuple(p._replace(W=0.0 * p.W) if l == 2 else p for l, p in enumerate(state.forward.params))
    state = trained(algorithm, network, 2, state._replace(forward=state.forward._replace(params=params)))[-1]
    assert np.array_equal(weights(state)[2], 0.5 * np.sign(W0))
    with pytest.raises(ValueError, match="expected at least"):
        fixed_signs(sgd(0.1), 1, margin=0.0)


def test_alignment_is_a_penalty_towards_fixed_random_weights():
    network, strength = fully_connected(), 0.05
    algorithm = backprop(network, CE, align_to_random(sgd(0.1), strength))
    before, after = trained(algorithm, network, 1)
    plain = trained(backprop(network, CE, sgd(0.1)), network, 1)[1]
    V = before.forward.memory["V"]
    for l, W in weights(before).items():
        assert np.allclose(weights(after)[l], weights(plain)[l] - 0.1 * 2 * strength * (W - V[l].W), rtol=1e-12)  # (9)
        assert float(metrics.angle(W, V[l].W)) > 45
        assert abs(np.std(V[l].W) / np.std(W) - 1) < 0.6
    heavy = trained(backprop(network, CE, align_to_random(sgd(0.1), 1.0)), network, 30)[-1]
    assert all(float(metrics.angle(W, V[l].W)) < 20 for l, W in weights(heavy).items())


def test_noise_differs_by_update_by_tensor_and_by_path():
    network = fully_connected()
    optimizer = noisy_gradients(sgd(0.1))
    algorithm = kolen_pollack(network, CE, optimizer)
    state = algorithm.init(KEY)
    keys = [path.memory["key"] for path in (state.forward, state.feedback)]
    assert not np.array_equal(*keys)  # W and B hear their own noise
    twins = [trained(backprop(network, CE, optimizer), network, 3)[-1] for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*(weights(t).values() for t in twins), strict=True))


def test_schedules_and_the_freeze_count_engaged_steps_only():
    """Mirror steps move the clock, but neither a learning-rate schedule nor E/I."""
    network = fully_connected()
    eta = piecewise((0.1, 0.0), (3,))
    algorithm = weight_mirror(network, CE, fixed_signs(sgd(eta), 2))
    mirrored, plain = (
        trained(algorithm, network, 5, modes=modes)
        for modes in (("mirror", "engaged", "mirror", "mirror"), ("engaged",))
    )
    counts = [s.forward.memory["inner"]["count"] for s in mirrored]
    assert counts == [0, 1, 2, 3, 4, 5]
    assert mirrored[-1].t == 20
    for states in (mirrored, plain):
        assert not np.array_equal(weights(states[2])[1], weights(states[3])[1])
        assert np.array_equal(weights(states[3])[1], weights(states[5])[1])


def test_frozen_units_needs_a_vector():
    network = GRADIENT["conv"]()
    with pytest.raises(ValueError, match="expected a vector"):
        modifications.frozen_units(sgd(0.1), network, 1, 2)
    with pytest.raises(ValueError, match='expected "weights" or "all"'):
        trained(backprop(network, CE, batch_manhattan(sgd(0.1), on="W")), network, 1)


def test_wrappers_on_all_tensors():
    network = fully_connected()
    state = randomised(backprop(network, CE, sgd(0.1)).init(KEY))
    for wrapper in (batch_manhattan, noisy_gradients, constant_norm):
        algorithm = backprop(network, CE, wrapper(sgd(0.1), on="all"))
        memory = wrapper(sgd(0.1), on="all").init(state.forward.params, (KEY, "optimizer"), BACKEND.kernels)
        own = state._replace(forward=state.forward._replace(memory=memory))
        moved = trained(algorithm, network, 1, own)[-1]
        b = [s.forward.params[1].local[0]["b"] for s in (state, moved)]
        plain = trained(backprop(network, CE, sgd(0.1)), network, 1, state)[-1].forward.params[1].local[0]["b"]
        assert not np.allclose(b[1], plain)
        if wrapper is constant_norm:
            assert np.isclose(np.linalg.norm(b[1]), np.linalg.norm(b[0]))
