"""The papers' own statements, and the identities they imply: each needs no reference implementation."""

import numpy as np
import pytest

from ref_bioplaus import (
    algorithms,
    batch_norm,
    bias,
    chain,
    conv,
    dense,
    global_average_pool,
    losses,
    metrics,
    modifications,
    relu,
    tanh,
)
from ref_bioplaus.algorithms.sign_symmetry import RULES
from ref_bioplaus.algorithms.target_propagation import difference_corrected
from ref_bioplaus.conformance.cases.networks import (
    CHAINS,
    GRADIENT,
    batch,
    convolutional_chain,
    fully_connected,
    randomised,
)
from ref_bioplaus.linear import Dense
from ref_bioplaus.network import forward, layer_backward
from ref_bioplaus.optimizers import adam, sgd
from ref_bioplaus.tree import leaves, named_leaves
from ref_bioplaus.types import Batch, LayerParams, Pathway
from tests.conftest import get

CE = losses.cross_entropy()
BACKEND = get("numpy")
KEY = BACKEND.key(1)


def step(algorithm, state, network, seed=0, n=6, mode="learn", y=None):
    x, labels = batch(network, n, seed)
    return algorithm.modes[mode](state, Batch(x, labels if y is None else y))


def started(algorithm):
    return randomised(algorithm.init(KEY))


def with_feedback(state, weights):
    """The state with B_l from a dict in place of its feedback weights."""
    params = tuple(LayerParams(weights.get(l)) for l in range(len(state.forward.params)))
    return state._replace(feedback=state.feedback._replace(params=params))


def forward_weights(network, state, factor=lambda l: 1.0):
    return {l: factor(l) * state.forward.params[l].W for l in network.feedback_layers}


# Feedback alignment


@pytest.mark.parametrize("architecture", list(GRADIENT))
def test_feedback_alignment_with_B_equal_to_W_is_backprop_bit_for_bit(architecture):
    network = GRADIENT[architecture]()
    bp, fa = (make(network, CE, sgd(0.1)) for make in (algorithms.backprop, algorithms.feedback_alignment))
    state = started(bp)
    _, expected = step(bp, state, network)
    new, found = step(fa, with_feedback(state, forward_weights(network, state)), network)
    for name, a in named_leaves(expected):
        assert np.array_equal(a, dict(named_leaves(found))[name]), name
    _, with_its_own = step(fa, started(fa), network)  # and its own B is not W
    assert not np.allclose(with_its_own.delta[1], expected.delta[1])


@pytest.mark.parametrize("name", ["feedback_alignment", "kolen_pollack", "weight_mirror"])
@pytest.mark.parametrize("architecture", list(GRADIENT))
def test_errors_go_down_through_B_and_not_through_W(name, architecture):
    """(3): what arrives at x_l is transport(B_l, delta_l), told from transport(W_l, delta_l)."""
    network = GRADIENT[architecture]()
    algorithm = getattr(algorithms, name)(network, CE, sgd(0.1, decay=0.01))
    state = started(algorithm)
    _, info = step(algorithm, state, network, mode="engaged" if name == "weight_mirror" else "learn")
    trace, _ = forward(network, state.forward.params, state.stats, batch(network)[0], (KEY, "step", state.t))
    consumers = {k: [l for l in range(len(network)) if k in network[l].inputs] for k in range(1, network.L)}
    for path, same in ((state.feedback.params, True), (state.forward.params, False)):
        for k, layers in consumers.items():
            arriving = [
                network[l].linear.transport(path[l].W, info.delta[l]) if network[l].linear else info.delta[l]
                for l in layers
            ]
            at_u, _ = layer_backward(network[k], state.forward.params[k], trace.cache[k], sum(arriving))
            synaptic = any(network[l].linear for l in layers)
            if same or synaptic:
                assert np.allclose(info.delta[k], at_u, rtol=1e-11, atol=1e-14) == same, k


@pytest.mark.parametrize("name", ["feedback_alignment", "sign_symmetry", "weight_mirror"])
def test_symmetric_output_makes_the_last_synapses_backprops(name):
    network = fully_connected()
    bp = algorithms.backprop(network, CE, sgd(0.1))
    symmetric, asymmetric = (
        getattr(algorithms, name)(network, CE, sgd(0.1), symmetric_output=yes) for yes in (True, False)
    )
    mode = "engaged" if name == "weight_mirror" else "learn"
    L = network.L
    state = started(bp)
    _, expected = step(bp, state, network)
    for algorithm, same in ((symmetric, True), (asymmetric, False)):
        own = started(algorithm)
        _, found = step(algorithm, own._replace(forward=state.forward), network, mode=mode)
        assert np.array_equal(found.delta[L - 1], expected.delta[L - 1]) == same
        assert not np.allclose(found.delta[L - 2], expected.delta[L - 2])


# Sign-symmetry


def rule_of(name):
    return {rule.__name__: rule for rule in RULES}[name]


def flat_magnitude(state, sizes=None):
    """The state with every W_l = +-c_l."""
    params = tuple(
        p if p.W is None else p._replace(W=np.sign(p.W) * (0.1 * (l + 1))) for l, p in enumerate(state.forward.params)
    )
    return state._replace(forward=Pathway(params, state.forward.memory))


@pytest.mark.parametrize("architecture", ["FC", "LC", "conv"])
@pytest.mark.parametrize("name", ["strict_norm", "initial_magnitude", "uniform"])
def test_sign_symmetry_with_constant_magnitudes_is_backprop_up_to_a_factor_per_layer(architecture, name):
    network = GRADIENT[architecture]()
    bp = algorithms.backprop(network, CE, sgd(0.1))
    ss = algorithms.sign_symmetry(network, CE, sgd(0.1), rule=rule_of(name))
    state = flat_magnitude(started(bp))
    _, expected = step(bp, state, network)
    factor = dict.fromkeys(network.feedback_layers, 1.0)
    if name == "initial_magnitude":
        factor = {l: 2.0 + l for l in network.feedback_layers}
        state = with_feedback(state, forward_weights(network, state, lambda l: -factor[l]))  # |B_0| = c |W|
    elif name == "uniform":
        factor = {l: 1.0 / (0.1 * (l + 1)) for l in network.feedback_layers}
    else:
        state = state._replace(feedback=ss.init(KEY).feedback)
    _, found = step(ss, state, network)
    total = 1.0
    for l in range(network.L, 0, -1):
        scale = np.max(np.abs(expected.delta[l]))
        assert np.allclose(found.delta[l], total * expected.delta[l], rtol=1e-11, atol=1e-13 * scale * total), l
        total *= factor.get(l, 1.0)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("linear", [Dense(7, 5), convolutional_chain()[1].linear], ids=["dense", "conv"])
def test_feedback_of_sign_rules(rule, linear):
    rng = np.random.default_rng(0)
    W, B_0 = rng.standard_normal(linear.weight_shape), rng.standard_normal(linear.weight_shape)
    W[0] = 0.0  # exact zeros
    address, kernels = (KEY, "rule", BACKEND.asarray(np.array(4, np.int32)), 2), BACKEND.kernels
    B, B_of_larger = (rule(linear, a, B_0, address, kernels) for a in (W, 4.0 * W))
    assert np.array_equal(np.sign(B), np.sign(W))  # sign(0) = 0
    assert np.array_equal(B_of_larger, 4.0 * B if rule.__name__ == "strict_norm" else B)
    magnitudes = np.abs(B[W != 0])
    if rule.__name__ == "strict_norm":
        assert np.isclose(np.linalg.norm(B), np.linalg.norm(W), rtol=1e-14)  # (5)
        assert np.all(rule(linear, 0.0 * W, B_0, address, kernels) == 0.0)
    if rule.__name__ in ("strict_norm", "uniform", "fan_out_scale"):
        assert np.allclose(magnitudes, magnitudes[0], rtol=1e-15)
    if rule.__name__ == "uniform":
        assert magnitudes[0] == 1.0
    if rule.__name__ == "fan_out_scale":
        k = linear.weight_shape
        assert np.isclose(magnitudes[0], (2 / (k[0] * k[1] * k[3])) ** 0.5 if len(k) == 4 else k[1] ** -0.5)
    if rule.__name__ == "initial_magnitude":
        assert np.array_equal(magnitudes, np.abs(B_0)[W != 0])  # (4)
    if rule.__name__ == "batch_random":
        later = rule(linear, W, B_0, (*address[:2], address[2] + 1, 2), kernels)
        assert not np.allclose(later, B)  # drawn anew each step


# Direct feedback


def test_dfa_with_one_hidden_layer_is_feedback_alignment():
    network = chain((5,), (dense(7), tanh), (dense(3),), dtype="float64")
    fa, dfa = (
        make(network, CE, sgd(0.1)) for make in (algorithms.feedback_alignment, algorithms.direct_feedback_alignment)
    )
    state = fa.init(KEY)
    direct = dfa.init(KEY)
    direct = direct._replace(
        feedback=Pathway(
            tuple(
                b._replace(B=state.feedback.params[2].W) if l == 1 else b for l, b in enumerate(direct.feedback.params)
            )
        )
    )
    x, y = batch(network, 6, classes=3)
    _, a = fa.modes["learn"](state, Batch(x, y))
    _, b = dfa.modes["learn"](direct, Batch(x, y))
    assert np.allclose(a.delta[1], b.delta[1], rtol=1e-14, atol=0)
    assert direct.feedback.params[1].B.shape == (3, 7)


def test_dfa_sends_the_whole_error_once_to_each_population_and_nothing_down_a_skip():
    network = GRADIENT["ResNet, BN before ReLU"]()
    dfa = algorithms.direct_feedback_alignment(network, CE, sgd(0.1))
    state = started(dfa)
    _, info = step(dfa, state, network)
    e = info.delta[network.L]
    trace, _ = forward(network, state.forward.params, state.stats, batch(network)[0], (KEY, "step", state.t))
    assert network[4].inputs == (1, 3)  # layer 1 feeds a skip as well as synapses
    for l in network.populations:
        whole = np.tensordot(e, state.feedback.params[l].B, axes=1)
        expected, _ = layer_backward(network[l], state.forward.params[l], trace.cache[l], whole)
        assert np.allclose(info.delta[l], expected, rtol=1e-12, atol=1e-15), l
    sizes = {l: b.B.shape for l, b in enumerate(state.feedback.params) if b.B is not None}
    assert sizes == {l: (4, *network[l].out_shape) for l in network.populations}


def test_dfa_sends_the_outputs_own_error_where_a_pooling_comes_last():
    """e has an entry for each class, the error below the pooling one for each class and position."""
    layers = (conv(3, (3, 2)), bias, tanh), (conv(4, 1), bias, relu), global_average_pool
    network = chain((4, 6, 2), *layers, dtype="float64")
    dfa = algorithms.direct_feedback_alignment(network, CE, sgd(0.1))
    state = started(dfa)
    _, info = step(dfa, state, network)
    x, y = batch(network)
    trace, _ = forward(network, state.forward.params, state.stats, x, (KEY, "step", state.t))
    whole = np.tensordot(losses.softmax(trace.h[3]) - y, state.feedback.params[1].B, axes=1)
    expected, _ = layer_backward(network[1], state.forward.params[1], trace.cache[1], whole)
    assert np.allclose(info.delta[1], expected, rtol=1e-12, atol=1e-15)


def test_dfa_with_exact_skips_is_what_public_libraries_do():
    network = GRADIENT["ResNet, BN before ReLU"]()
    dfa = algorithms.direct_feedback_alignment(network, CE, sgd(0.1), skips="exact")
    state = started(dfa)
    _, info = step(dfa, state, network)
    e = info.delta[network.L]
    join = next(l for l in network.populations if network[l].linear is None)
    consumers = [l for l in range(len(network)) if join in network[l].inputs]
    arriving = sum(
        np.tensordot(e, state.feedback.params[l].B, axes=1) if network[l].linear else info.delta[l] for l in consumers
    )
    trace, _ = forward(network, state.forward.params, state.stats, batch(network)[0], (KEY, "step", state.t))
    assert np.allclose(info.delta[join], arriving * (trace.h[join] > 0), rtol=1e-13, atol=1e-15)
    with pytest.raises(ValueError, match='"direct" or "exact"'):
        algorithms.direct_feedback_alignment(network, CE, sgd(0.1), skips="none")


@pytest.mark.parametrize("architecture", list(GRADIENT))
def test_dense_feedback_without_D_is_feedback_alignment(architecture):
    network = GRADIENT[architecture]()
    fa, dense_fa = (
        make(network, CE, sgd(0.1)) for make in (algorithms.feedback_alignment, algorithms.dense_feedback_alignment)
    )
    state, dense_state = started(fa), started(dense_fa)
    silent = tuple(b._replace(D={k: 0.0 * D for k, D in b.D.items()}) for b in dense_state.feedback.params)
    _, a = step(fa, state, network)
    _, b = step(dense_fa, dense_state._replace(feedback=Pathway(silent)), network)
    _, c = step(dense_fa, dense_state, network)
    for l in range(1, len(network)):
        assert np.array_equal(a.delta[l], b.delta[l])
    assert not np.allclose(a.delta[1], c.delta[1])


def test_dense_feedback_adds_a_term_from_every_layer_further_downstream():
    network = fully_connected()
    algorithm = algorithms.dense_feedback_alignment(network, CE, sgd(0.1))
    state = started(algorithm)
    _, info = step(algorithm, state, network)
    feedback = state.feedback.params
    assert [sorted(b.D) for b in feedback] == [[], [3], [], []]
    at_h1 = info.delta[2] @ feedback[2].W + info.delta[3] @ feedback[1].D[3]
    trace, _ = forward(network, state.forward.params, state.stats, batch(network)[0])
    assert np.allclose(info.delta[1], at_h1 * (1 - trace.h[1] ** 2), rtol=1e-13, atol=0)


@pytest.mark.parametrize("architecture", list(GRADIENT))
@pytest.mark.parametrize(
    "name",
    ["backprop", "feedback_alignment", "direct_feedback_alignment", "dense_feedback_alignment", "sign_symmetry",
     "kolen_pollack", "weight_mirror"],
)  # fmt: skip
def test_zero_error_at_the_output_gives_zero_gradients(architecture, name):
    network = GRADIENT[architecture]()
    algorithm = getattr(algorithms, name)(network, losses.squared_error(), sgd(0.1))
    state = started(algorithm)
    trace, _ = forward(network, state.forward.params, state.stats, batch(network)[0], (KEY, "step", state.t))
    mode = "engaged" if name == "weight_mirror" else "learn"
    _, info = step(algorithm, state, network, mode=mode, y=trace.h[-1])
    _, other = step(algorithm, state, network, mode=mode)
    for g, o in zip(info.grads, other.grads, strict=True):
        if g.W is not None:
            assert np.all(g.W == 0.0)
            assert np.any(o.W != 0.0)


@pytest.mark.parametrize("architecture", list(GRADIENT))
def test_permuting_the_batch_changes_nothing_beyond_rounding(architecture):
    network = GRADIENT[architecture]()
    if architecture == "conv":  # dropout is drawn by place in the batch
        network = convolutional_chain()
    algorithm = algorithms.kolen_pollack(network, CE, sgd(0.1, decay=0.01))
    state = started(algorithm)
    x, y = batch(network, 6)
    order = np.random.default_rng(5).permutation(6)
    a, _ = algorithm.modes["learn"](state, Batch(x, y))
    b, _ = algorithm.modes["learn"](state, Batch(x[order], y[order]))
    for name, leaf in named_leaves(a):
        assert np.allclose(leaf, dict(named_leaves(b))[name], rtol=1e-11, atol=1e-13), name


# Kolen-Pollack


@pytest.mark.parametrize("architecture", list(GRADIENT))
def test_kolen_pollack_difference_shrinks_by_one_minus_lambda(architecture):
    network, decay, eta = GRADIENT[architecture](), 0.05, 0.02
    for form, factor in (("paper", 1 - decay), ("decoupled", 1 - eta * decay)):
        for momentum in (0.0, 0.9):
            algorithm = algorithms.kolen_pollack(network, CE, sgd(eta, momentum, decay=decay, form=form))
            first = state = started(algorithm)
            for t in range(5):
                state, _ = step(algorithm, state, network, seed=t)
            for l in network.feedback_layers:
                D_0, D = (s.forward.params[l].W - s.feedback.params[l].W for s in (first, state))
                assert np.max(np.abs(D - factor**5 * D_0)) < 1e-13 * np.max(np.abs(D_0)), (form, momentum, l)


def test_kolen_pollack_with_momentum_and_coupled_decay_obeys_its_recursion():
    network, decay, eta, mu = fully_connected(), 0.5, 0.1, 0.9
    algorithm = algorithms.kolen_pollack(network, CE, sgd(eta, mu, decay=decay, form="coupled"))
    state = started(algorithm)
    D = {l: state.forward.params[l].W - state.feedback.params[l].W for l in network.feedback_layers}
    v = {l: 0.0 * d for l, d in D.items()}
    for t in range(6):
        state, _ = step(algorithm, state, network, seed=t)
        for l in D:
            v[l] = mu * v[l] + decay * D[l]
            D[l] = D[l] - eta * v[l]
            found = state.forward.params[l].W - state.feedback.params[l].W
            assert np.allclose(found, D[l], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("architecture", list(GRADIENT))
def test_kolen_pollack_started_symmetric_stays_backprop(architecture):
    network, optimizer = GRADIENT[architecture](), adam(1e-2, decay=1e-3)
    bp, kp = (make(network, CE, optimizer) for make in (algorithms.backprop, algorithms.kolen_pollack))
    state, mine = started(bp), started(kp)
    mine = with_feedback(mine._replace(forward=state.forward), forward_weights(network, state))
    for t in range(4):
        state, _ = step(bp, state, network, seed=t)
        mine, _ = step(kp, mine, network, seed=t)
    for (name, a), b in zip(named_leaves(state.forward.params), leaves(mine.forward.params), strict=True):
        assert np.array_equal(a, b), name


def test_kolen_pollack_without_decay_never_converges():
    network = fully_connected()
    algorithm = algorithms.kolen_pollack(network, CE, sgd(0.1))
    first = state = started(algorithm)
    for t in range(5):
        state, _ = step(algorithm, state, network, seed=t)
    for l in network.feedback_layers:
        D_0, D = (s.forward.params[l].W - s.feedback.params[l].W for s in (first, state))
        assert np.allclose(D, D_0, rtol=1e-12, atol=1e-14)


# Weight mirror


def mean_slope(network, l, W, sigma):
    """E[phi'(u)] of a layer that hears noise of standard deviation sigma: exact, by Stein's lemma and quadrature."""
    names = [op.name for op in network[l].local if hasattr(op, "derivative")]
    if names and names[0] == "sigmoid":  # dense here: every unit's u is normal with sigma ||w||
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        y = 1.0 / (1.0 + np.exp(-sigma * np.linalg.norm(W, axis=1, keepdims=True) * nodes))
        return np.sum(weights * y * (1 - y), axis=1, keepdims=True) / np.sum(weights)
    return {"relu": 0.5, "rectified_tanh": 0.5, "tanh": 1.0}[names[0]] if names else 1.0  # tanh: of a little noise


@pytest.mark.parametrize("architecture", list(GRADIENT))
def test_weight_mirror_learns_the_transpose_in_angle_and_magnitude(architecture):
    """B -> (eta_B sigma^2 phi' / lambda_B) W in every layer, and BatchNorm's statistics do not move."""
    network, sigma, rate = GRADIENT[architecture](), 0.05 if architecture in ("FC", "LC") else 2.0, 0.02
    algorithm = algorithms.weight_mirror(network, CE, sgd(0.1), rate / sigma**2, rate, sigma, bias_blocking=True)
    first = state = started(algorithm)
    x, y = batch(network, 128)
    for _ in range(300):
        state, _ = algorithm.modes["mirror"](state, Batch(x, y))
    for l in network.feedback_layers:
        W, B = state.forward.params[l].W, state.feedback.params[l].W
        expected = mean_slope(network, l, W, sigma) * W
        assert float(metrics.angle(expected, B)) < 12.0, l
        assert abs(np.sum(B * expected) / np.sum(expected * expected) - 1) < 0.05, l
    for (name, a), b in zip(named_leaves(first.stats), leaves(state.stats), strict=True):
        assert np.array_equal(a, b), name


@pytest.mark.parametrize("after", [True, False])
def test_weight_mirror_aligns_a_small_resnet_and_then_it_learns(after):
    network = GRADIENT["ResNet, BN after ReLU" if after else "ResNet, BN before ReLU"]()
    algorithm = algorithms.weight_mirror(network, CE, sgd(0.05, 0.9), eta_B=0.05, lambda_B=0.05, sigma=1.2)
    state = algorithm.init(KEY)
    x, y = batch(network, 32)
    before = metrics.matrix_angles(state.forward.params, state.feedback.params)
    assert min(map(float, before.values())) > 60
    for _ in range(150):
        state, _ = algorithm.modes["mirror"](state, Batch(x, y))
    angles = metrics.matrix_angles(state.forward.params, state.feedback.params)
    assert angles.keys() == set(network.feedback_layers)
    for l, found in angles.items():
        W, B = state.forward.params[l].W, state.feedback.params[l].W
        assert float(found) < 15.0, l
        assert 0.5 < np.linalg.norm(B) / np.linalg.norm(W) < 2.0, l
    first = None
    for _ in range(30):
        state, info = algorithm.modes["engaged"](state, Batch(x, y))
        first = np.mean(info.loss) if first is None else first
    assert np.mean(info.loss) < 0.5 * first


def test_bias_blocking_leaves_no_shift_and_the_bias_counts_without_it():
    with_bias = fully_connected()
    shifts = {}
    for blocked in (True, False):
        algorithm = algorithms.weight_mirror(with_bias, CE, sgd(0.1), 1.0, 0.0, 0.1, bias_blocking=blocked)
        state = randomised(algorithm.init(KEY))
        loud = tuple(
            p._replace(local=tuple({k: v + 3.0 for k, v in op.items()} for op in p.local)) for p in state.forward.params
        )
        quiet_response = step(algorithm, state, with_bias, mode="mirror")[1].feedback_grads
        loud_response = step(
            algorithm, state._replace(forward=state.forward._replace(params=loud)), with_bias, mode="mirror"
        )[1].feedback_grads
        shifts[blocked] = max(
            np.max(np.abs(a.W - b.W)) for a, b in zip(quiet_response, loud_response, strict=True) if a.W is not None
        )
    assert shifts[True] == 0.0
    assert shifts[False] > 1e-3


def test_mirroring_in_turns_reaches_each_layer_alone():
    network = fully_connected()
    together, turns = (
        algorithms.weight_mirror(network, CE, sgd(0.1), layers=layers, mirror_per_batch=2, initial_mirroring=3)
        for layers in ("together", "turns")
    )
    one_by_one = ("mirror_2", "mirror_3")
    assert together.schedule(0, 0) == ("mirror",) * 3 + ("engaged",) + ("mirror",) * 2
    assert together.schedule(0, 1) == together.schedule(1, 0) == ("engaged", "mirror", "mirror")
    assert turns.schedule(0, 0) == one_by_one * 3 + ("engaged",) + one_by_one * 2
    state = started(turns)
    moved, _ = step(turns, state, network, mode="mirror_3")
    assert np.array_equal(moved.feedback.params[2].W, state.feedback.params[2].W)
    assert not np.allclose(moved.feedback.params[3].W, state.feedback.params[3].W)
    whole, _ = step(together, state, network, mode="mirror")
    assert np.array_equal(moved.feedback.params[3].W, whole.feedback.params[3].W)
    seldom = algorithms.weight_mirror(network, CE, sgd(0.1), mirror_per_batch=0.25)
    assert [len(seldom.schedule(0, i)) for i in range(8)] == [1, 1, 1, 2, 1, 1, 1, 2]
    with pytest.raises(ValueError, match='"together" or "turns"'):
        algorithms.weight_mirror(network, CE, sgd(0.1), layers="all")


def test_synaptic_scaling_holds_the_norm():
    network = GRADIENT["ResNet, BN after ReLU"]()
    algorithm = algorithms.weight_mirror(network, CE, sgd(0.1), eta_B=5.0, norm=lambda linear: linear.fan_in**0.5)
    state = started(algorithm)
    for _ in range(3):
        state, _ = step(algorithm, state, network, mode="mirror")
    for l in network.feedback_layers:
        assert np.isclose(np.linalg.norm(state.feedback.params[l].W), network[l].linear.fan_in ** 0.5, rtol=1e-13)


# Target propagation


@pytest.mark.parametrize("architecture", list(CHAINS))
def test_dtp_with_the_jacobians_transpose_as_inverse_is_backprop_times_two_alpha(architecture):
    """Bartunov et al. 2018, app. 5.6: the loss has no 1/2, so that the factor is 2 alpha below L, and 1 in L."""
    network, alpha = CHAINS[architecture](), 0.3
    bp = algorithms.backprop(network, CE, sgd(0.1))
    state = started(bp)
    x, y = batch(network)
    _, expected = bp.modes["learn"](state, Batch(x, y))
    params = state.forward.params
    trace, _ = forward(network, params, state.stats, x)

    def transposed_jacobian(l, h):
        delta, _ = layer_backward(network[l], params[l], trace.cache[l], h)
        return network[l].linear.transport(params[l].W, delta)

    L, h = network.L, trace.h
    first = h[L - 1] - alpha * transposed_jacobian(L, CE.gradient(h[L], y))
    hhat = difference_corrected({l: l for l in range(L - 1, 1, -1)}, h, {L - 1: first}, transposed_jacobian)
    for l in range(1, L):
        delta, _ = layer_backward(network[l], params[l], trace.cache[l], 2.0 * (h[l] - hhat[l]))
        assert np.allclose(delta, 2 * alpha * expected.delta[l], rtol=1e-10, atol=1e-14), l
    dtp = algorithms.dtp(network, CE, sgd(0.1), sgd(0.1), alpha=alpha)
    own = dtp.init(KEY)
    _, info = dtp.modes["forward"](own._replace(forward=state.forward), Batch(x, y))
    assert np.array_equal(info.delta[L], expected.delta[L])
    assert np.allclose(info.delta[L - 1], 2 * alpha * expected.delta[L - 1], rtol=1e-11, atol=1e-15)


def test_sdtp_with_a_perfect_linear_inverse_reaches_its_target():
    rng = np.random.default_rng(0)
    W = {l: rng.standard_normal((5, 5)) for l in (1, 2, 3)}
    h = [rng.standard_normal((4, 5))]
    for l in (1, 2, 3):
        h.append(h[-1] @ W[l].T)
    target = rng.standard_normal((4, 5))
    hhat = difference_corrected({3: 3, 2: 2}, h, {3: target}, lambda l, a: a @ np.linalg.inv(W[l]).T)
    for l in (2, 3):
        assert np.allclose(hhat[l - 1] @ W[l].T, hhat[l], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["tp", "dtp", "sdtp"])
@pytest.mark.parametrize("architecture", list(CHAINS))
def test_inverses_learn_the_gradient_of_their_loss(name, architecture):
    """By torch.autograd: noise-preserving for DTP, de-noising for SDTP and TP."""
    torch = pytest.importorskip("torch")
    from ref_bioplaus.inverses import mirrored_inverse
    from ref_bioplaus.network import layer_forward
    from ref_bioplaus.random import normal
    from ref_bioplaus.tree import tree_map

    network, sigma = CHAINS[architecture](), 0.3
    algorithm = getattr(algorithms, name)(network, CE, sgd(0.1), sgd(0.1), noise=sigma)
    state = started(algorithm)
    x, y = batch(network)
    _, info = algorithm.modes["inverse"](state, Batch(x, y))
    trace, _ = forward(network, state.forward.params, state.stats, x)
    h = [*trace.h[:-1], CE.output(trace.h[-1])]
    inverted = [l for l, p in enumerate(state.feedback.params) if p.W is not None]
    assert inverted == list(range(2, network.L + (name != "dtp")))
    for l in inverted:
        corrupted = h[l - 1] + sigma * normal((KEY, "corrupt", state.t, l), h[l - 1].shape, np.float64)
        above, _, _ = layer_forward(network[l], state.forward.params[l], state.stats[l], corrupted)
        above = CE.output(above) if l == network.L else above
        layer = mirrored_inverse(network, l)
        lam = tree_map(lambda a: torch.tensor(a, requires_grad=True), state.feedback.params[l])
        above = torch.tensor(above).reshape(6, *layer.in_shape)
        rebuilt, _, _ = layer_forward(layer, lam, ((),) * len(layer.local), above)
        wanted = torch.tensor(corrupted if name == "dtp" else h[l - 1]).reshape(rebuilt.shape)
        ((rebuilt - wanted) ** 2).reshape(6, -1).sum(1).mean().backward()
        assert np.allclose(info.feedback_grads[l].W, lam.W.grad.numpy(), rtol=1e-10, atol=1e-13)
        assert np.allclose(info.feedback_grads[l].local[0]["b"], lam.local[0]["b"].grad.numpy(), rtol=1e-10, atol=1e-13)


def test_forward_losses_are_the_distances_to_the_targets():
    """By torch.autograd: dW_l is the gradient of mean ||f(h_{l-1}) - hhat_l||^2 with the target held."""
    torch = pytest.importorskip("torch")
    from ref_bioplaus.network import layer_forward
    from ref_bioplaus.tree import tree_map

    network = CHAINS["LC"]()
    for name in ("tp", "dtp", "sdtp"):
        algorithm = getattr(algorithms, name)(network, CE, sgd(0.1), sgd(0.1))
        state = started(algorithm)
        x, y = batch(network)
        _, info = algorithm.modes["forward"](state, Batch(x, y))
        for l in range(1, network.L):
            theta = tree_map(lambda a: torch.tensor(a, requires_grad=True), state.forward.params[l])
            h, _, _ = layer_forward(network[l], theta, state.stats[l], torch.tensor(info.h[l - 1]))
            ((h - torch.tensor(info.targets[l])) ** 2).reshape(6, -1).sum(1).mean().backward()
            assert np.allclose(info.grads[l].W, theta.W.grad.numpy(), rtol=1e-10, atol=1e-13), (name, l)


def test_targets_are_what_each_variant_says():
    network = fully_connected()
    x, y = batch(network)

    for name in ("tp", "sdtp"):
        algorithm = getattr(algorithms, name)(network, CE, sgd(0.1), sgd(0.1))
        state = started(algorithm)
        _, info = algorithm.modes["forward"](state, Batch(x, y))
        lam = state.feedback.params
        h = [*info.h[:-1], info.output]

        def g(l, a, lam=lam):
            return np.tanh(a @ lam[l].W + lam[l].local[0]["b"])

        assert np.array_equal(info.targets[3], y)
        for l in (3, 2):
            through = g(l, info.targets[l])
            wanted = through if name == "tp" else h[l - 1] + through - g(l, h[l])  # (2)
            assert np.allclose(info.targets[l - 1], wanted, rtol=1e-13, atol=1e-15)


def test_alternating_updates_one_path_at_a_time():
    network = fully_connected()
    algorithm = algorithms.sdtp(network, CE, adam(0.1), adam(0.1), schedule=algorithms.alternating)
    assert [algorithm.schedule(epoch, 5) for epoch in range(3)] == [("inverse",), ("forward",), ("inverse",)]
    state = started(algorithm)
    after_inverse, _ = step(algorithm, state, network, mode="inverse")
    after_forward, _ = step(algorithm, state, network, mode="forward")
    after_both, _ = step(algorithm, state, network, mode="parallel")

    def same(a, b):
        return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))

    assert same(after_inverse.forward, state.forward)
    assert not same(after_inverse.feedback.params, state.feedback.params)
    assert same(after_forward.feedback, state.feedback)
    assert not same(after_forward.forward.params, state.forward.params)
    assert same(after_both.forward, after_forward.forward)  # both losses use the same old parameters
    assert same(after_both.feedback, after_inverse.feedback)


def test_inverse_learning_leaves_batch_norms_statistics_alone():
    network = chain((5,), (dense(7), batch_norm, tanh), (dense(6), tanh), (dense(4),), dtype="float64")
    algorithm = algorithms.dtp(network, CE, adam(0.1), adam(0.1))
    state = algorithm.init(KEY)
    for mode, moves in (("inverse", False), ("forward", True), ("parallel", True)):
        new, _ = step(algorithm, state, network, mode=mode)
        same = [np.array_equal(a, b) for a, b in zip(leaves(state.stats), leaves(new.stats), strict=True)]
        assert any(same) != moves


@pytest.mark.parametrize("wrap", ["decay", "noise", "norm", "alignment"])
def test_auxiliary_units_keep_their_weights_bit_for_bit(wrap):
    network, loss = fully_connected(4 + 3), losses.with_auxiliary_output(CE, 4)
    optimizer = {
        "decay": adam(0.01, decay=0.01, on="all"),
        "noise": modifications.noisy_gradients(sgd(0.1), on="all"),
        "norm": modifications.constant_norm(sgd(0.1, decay=0.1), on="weights"),
        "alignment": modifications.align_to_random(sgd(0.1, 0.9), 0.1),
    }[wrap]
    algorithm = algorithms.ao_sdtp(network, loss, optimizer, adam(0.01))
    state = first = started(algorithm)
    for t in range(4):
        state, info = step(algorithm, state, network, seed=t, mode="parallel")
    for name in ("W", "b"):
        old, new = (s.forward.params[3].W if name == "W" else s.forward.params[3].local[0]["b"] for s in (first, state))
        assert np.array_equal(old[4:], new[4:])
        assert not np.any(old[:4] == new[:4])
    assert np.array_equal(info.targets[3][:, 4:], info.output[:, 4:])  # (3): the target keeps z
    with pytest.raises(ValueError, match="auxiliary"):
        algorithms.ao_sdtp(network, CE, optimizer, adam(0.01))


@pytest.mark.parametrize("mode", ["parallel", "inverse", "forward"])
def test_without_auxiliary_units_ao_sdtp_is_sdtp_bit_for_bit(mode):
    """The left end of fig. 4."""
    network, found = fully_connected(4), []
    for make, loss in ((algorithms.sdtp, CE), (algorithms.ao_sdtp, losses.with_auxiliary_output(CE, 4))):
        algorithm = make(network, loss, adam(0.01, decay=0.01, on="all"), adam(0.01))
        state = started(algorithm)
        for t in range(4):
            state, _ = step(algorithm, state, network, seed=t, mode=mode)
        found.append(leaves(state))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


# BP + Noise


def test_noise_of_equal_variance_stands_at_45_degrees():
    network = chain((40,), (dense(60), tanh), (dense(50), tanh), (dense(30),), dtype="float64")
    x, y = batch(network, 64, classes=30)
    plain = algorithms.backprop(network, CE, sgd(0.1))
    state = plain.init(KEY)
    _, clean = plain.modes["learn"](state, Batch(x, y))
    noisy = algorithms.backprop(network, CE, sgd(0.1), noise_on_delta=1.0)
    _, info = noisy.modes["learn"](state, Batch(x, y))
    recorded = {}

    def recording(grads, memory, params, kernels):
        recorded["grads"] = grads
        return params, memory

    wrapped = modifications.noisy_gradients(sgd(0.1)._replace(update=recording))
    wrapped.update(clean.grads, wrapped.init(state.forward.params, (KEY, "optimizer"), BACKEND.kernels),
                   state.forward.params, BACKEND.kernels)  # fmt: skip
    for l in network.weighted:
        assert np.array_equal(info.delta[l], clean.delta[l])
        assert abs(float(metrics.angle(clean.grads[l].W, recorded["grads"][l].W)) - 45.0) < 2.0
        added = info.grads[l].W - clean.grads[l].W
        assert abs(np.sum(added * clean.grads[l].W)) < 0.1 * np.linalg.norm(added) * np.linalg.norm(clean.grads[l].W)
    twice = [noisy.modes["learn"](s, Batch(x, y))[1].grads[1].W for s in (state, state._replace(t=state.t + 1))]
    assert not np.allclose(*twice)
