"""Target propagation: TP, DTP, SDTP and AO-SDTP. Bartunov et al. 2018, sec. 2.1.2, algorithm 1; Lee et al. 2015.

    h_l = f(h_{l-1}; theta_l)                        (1)   forward
    g(h_l; lambda_l) = sigma(V_l h_l + c_l)                learned inverse of f
    hhat_L = argmin_h L(h)                                 the correct label distribution

    hhat_{l-1} = g(hhat_l)                                 TP
    hhat_{l-1} = h_{l-1} - g(h_l) + g(hhat_l)        (2)   SDTP, at every layer
    hhat_{L-1} = h_{L-1} - alpha dL/dh_{L-1}               DTP, at the penultimate layer; (2) below it
    hhat_{L-1} = h_{L-1} - g(o, z) + g(ohat, z)      (3)   AO-SDTP, whose output is h_L = [o, z]

    L_l     = ||f(h_{l-1}; theta_l) - hhat_l||^2              trains theta_l for l < L; the task loss trains theta_L
    L_l^inv = ||g(f(htilde; theta_l); lambda_l) - r||^2       trains lambda_l;  htilde = h_{l-1} + N(0, sigma^2)

    r = htilde   noise-preserving: DTP (Lee's, as Bartunov's app. 5.1 says)
    r = h_{l-1}  de-noising: SDTP and AO-SDTP (algorithm 1)

State: feedback.params[l] is lambda_l: W is V_l, in the layout of W_l (our V is the paper's V^T), and c_l its bias;
    feedback.memory is the inverse optimizer's. For l = L to 2 with synapses; DTP has none of L, which it never uses.
Choices: algorithm 1 misprints indices; f carries theta_l and L_l compares with hhat_l. Losses are sums over units and
    means over the batch, without 1/2; alpha steps along each sample's own gradient. TP's inverse loss is de-noising
    (the paper gives none). over_units="mean" makes every local loss a mean over its layer's units. g's nonlinearity is
    that of the layer whose activity it rebuilds, not sigma_l as printed (inverses.with_neurons has both, and none: with
    table 5's values for MNIST FC SDTP diverges but for none, see experiments/results/RESULTS.md). c is shared over
    positions where W is. V is drawn as W is (Glorot). Parallel: both losses use the same old parameters;
    in_turn: on every batch the inverses first. Alternating: epochs of one loss, the inverse first. z has the network's
    nonlinearity, and its rows of W_L and b_L are frozen. A layer without synapses (flatten, pooling) belongs to the
    synapses below it: h_l and hhat_l are those behind it, and errors pass it exactly. One below all synapses only
    prepares x; the inverse above it learns, but no weights by its target.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from array_api_compat import array_namespace

from ..credit import backward, batch_mean, mean_correlation
from ..initializers import Initializer, Start, draw, glorot_normal, new_state
from ..inverses import checked, mirrored_inverse
from ..layouts import Inverse
from ..modifications import frozen_units
from ..network import Network, dtype_of, forward, layer_backward, layer_forward
from ..random import normal
from ..types import NO_PARAMS, Algorithm, Array, Info, LayerParams, Loss, Optimizer, Pathway, Schedule, State, always

Ends = Mapping[int, int]  # {l: where the output of layer l is}, downwards
Targets = dict[int, Array]  # hhat_l, by layer
Inverted = Callable[[int, Array], Array]  # (l, h_l) -> g(h_l; lambda_l)


def propagated(ends: Ends, h: Sequence[Array], first: Targets, g: Inverted) -> Targets:
    """Targets of TP, by layer; first: the target known."""
    hhat = dict(first)
    for l, k in ends.items():
        hhat[l - 1] = g(l, hhat[k])
    return hhat


def difference_corrected(ends: Ends, h: Sequence[Array], first: Targets, g: Inverted) -> Targets:
    """Targets of DTP (from L - 1 down) and SDTP."""
    hhat = dict(first)
    for l, k in ends.items():
        hhat[l - 1] = h[l - 1] - g(l, h[k]) + g(l, hhat[k])  # (2), and (3) where h_L = [o, z]
    return hhat


def noise_preserving(h: Array, htilde: Array) -> Array:
    """What DTP's inverse rebuilds."""
    return htilde


def de_noising(h: Array, htilde: Array) -> Array:
    """What SDTP's inverse rebuilds."""
    return h


parallel = always("parallel")
in_turn = always("inverse", "forward")


def alternating(epoch: int, iteration: int) -> tuple[str, ...]:
    """One epoch of inverse learning, one of forward learning, and so on (Lee et al. 2015)."""
    return ("inverse",) if epoch % 2 == 0 else ("forward",)


def tp(network: Network, loss: Loss, optimizer: Optimizer, inverse_optimizer: Optimizer, **options: Any) -> Algorithm:
    """TP; options as in `target_propagation`."""
    return target_propagation(network, loss, optimizer, inverse_optimizer, propagated, de_noising, **options)


def dtp(
    network: Network, loss: Loss, optimizer: Optimizer, inverse_optimizer: Optimizer, alpha: float = 0.1, **options: Any
) -> Algorithm:
    """DTP with its first target a step of alpha down the loss; options as in `target_propagation`."""
    return target_propagation(
        network, loss, optimizer, inverse_optimizer, difference_corrected, noise_preserving, alpha=alpha, **options
    )


def sdtp(network: Network, loss: Loss, optimizer: Optimizer, inverse_optimizer: Optimizer, **options: Any) -> Algorithm:
    """SDTP; options as in `target_propagation`."""
    return target_propagation(network, loss, optimizer, inverse_optimizer, difference_corrected, de_noising, **options)


def ao_sdtp(
    network: Network, loss: Loss, optimizer: Optimizer, inverse_optimizer: Optimizer, **options: Any
) -> Algorithm:
    """AO-SDTP, for a loss from losses.with_auxiliary_output. Raises ValueError for another loss."""
    if loss.learned_units is None:
        raise ValueError("ao_sdtp: the loss has no auxiliary output, expected losses.with_auxiliary_output(loss, n)")
    frozen = frozen_units(optimizer, network, network.L, loss.learned_units)
    return sdtp(network, loss, frozen, inverse_optimizer, **options)


def target_propagation(
    network: Network, loss: Loss, optimizer: Optimizer, inverse_optimizer: Optimizer,
    targets: Callable[[Ends, Sequence[Array], Targets, Inverted], Targets],
    reconstructed: Callable[[Array, Array], Array], alpha: float | None = None,
    noise: float | Mapping[int, float] = 0.1, schedule: Schedule = parallel, inverse: Inverse = mirrored_inverse,
    initializer: Start = glorot_normal, inverse_initializer: Initializer = glorot_normal, over_units: str = "sum",
) -> Algorithm:  # fmt: skip
    """The four algorithms' common form.

    alpha: DTP's step, None for the others. noise: sigma, a number or one per layer, {l: sigma}. inverse: (network, l)
    -> the Layer that computes g from h_l to h_{l-1} (see inverses.py). A rate per layer is an inverse_optimizer made
    with optimizers.by_layer. over_units: "sum" or "mean". Raises ValueError for another word, and unless the network is
    a chain that ends in synapses.
    """
    if over_units not in ("sum", "mean"):
        raise ValueError(f'target propagation: over_units="{over_units}" is unknown, expected "sum" or "mean"')
    L = network.L
    for l in range(1, L + 1):
        if network[l].inputs != (l - 1,) or (l == L and network[l].linear is None):
            raise ValueError(f"layer {l} ({network[l].name}): target propagation needs a chain that ends in synapses")
    ends = {l: network.output_of(l) for l in reversed(network.weighted) if 1 < l < L or (l == L > 1 and alpha is None)}
    g_layer = {l: checked(network, l, inverse(network, l)) for l in reversed(ends)}

    def init(key):
        state, lam = new_state(network, key, optimizer, initializer), [NO_PARAMS] * len(network)
        for l, layer in g_layer.items():
            V = draw(inverse_initializer, layer.linear, (key, "feedback", l), dtype_of(network, key), network.kernels)
            lam[l] = LayerParams(V, tuple(op.init(key, V.dtype)[0] for op in layer.local))
        memory = inverse_optimizer.init(tuple(lam), (key, "feedback optimizer"), network.kernels)
        return state._replace(feedback=Pathway(tuple(lam), memory))

    def apply_inverse(l, lam, h):
        """g(h_l; lambda_l), with what its backward pass needs."""
        layer = g_layer[l]
        h = array_namespace(h).reshape(h, (h.shape[0], *layer.in_shape))
        u, _, cache = layer_forward(layer, lam[l], ((),) * len(layer.local), h)
        return array_namespace(u).reshape(u, (h.shape[0], *network[l].in_shape)), h, cache

    def slope(difference):
        """The gradient of a local loss, ||difference||^2."""
        return 2.0 / (math.prod(difference.shape[1:]) if over_units == "mean" else 1) * difference

    def learn_inverses(state, h):
        params, lam, grads = state.forward.params, state.feedback.params, [NO_PARAMS] * len(network)
        address = (state.key, "step", state.t)
        for l, layer in g_layer.items():
            sigma = noise[l] if isinstance(noise, dict) else noise
            epsilon = normal((state.key, "corrupt", state.t, l), h[l - 1].shape, h[l - 1].dtype, network.kernels)
            above = htilde = h[l - 1] + sigma * epsilon
            for k in range(l, ends[l] + 1):
                above, _, _ = layer_forward(network[k], params[k], state.stats[k], above, (*address, k))
            above = loss.output(above) if l == L else above
            rebuilt, above, cache = apply_inverse(l, lam, above)
            error = slope(rebuilt - reconstructed(h[l - 1], htilde))  # the gradient of L_l^inv at g
            error = array_namespace(error).reshape(error, (error.shape[0], *layer.out_shape))
            delta, local = layer_backward(layer, lam[l], cache, error)
            grads[l] = LayerParams(mean_correlation(layer.linear, above, delta), batch_mean(delta.shape[0], local))
        path = Pathway(*inverse_optimizer.update(tuple(grads), state.feedback.memory, lam, network.kernels))
        return path, tuple(grads)

    def learn_forward(state, batch, trace, h):
        params, lam, u = state.forward.params, state.feedback.params, trace.h[-1]
        error = loss.gradient(u, batch.y)

        def g(l, h):
            return apply_inverse(l, lam, h)[0]

        if alpha is None:
            hhat = targets(ends, h, {L: loss.target(h[L], batch.y)}, g)
        else:
            delta_L, _ = layer_backward(network[L], params[L], trace.cache[L], error)
            gradient = network[L].linear.transport(params[L].W, delta_L)  # dL/dh_{L-1}
            hhat = targets(ends, h, {L - 1: h[L - 1] - alpha * gradient}, g)

        def feedback(l, delta):
            return slope(h[l - 1] - hhat[l - 1])  # the gradient of L_{l-1} at h_{l-1}

        delta, grads = backward(network, params, trace, error, feedback)
        path = Pathway(*optimizer.update(grads, state.forward.memory, params, network.kernels))
        order = tuple(hhat.get(l) for l in range(len(network)))
        return path, Info(loss.value(u, batch.y), h[L], trace.h, delta, order, grads)

    def mode(inverses, weights):
        def step(state, batch):
            params, address = state.forward.params, (state.key, "step", state.t)
            trace, stats = forward(network, params, state.stats, batch.x, address)  # (1)
            h = (*trace.h[:-1], loss.output(trace.h[-1]))
            info, forward_path, feedback_path = Info(h=trace.h), state.forward, state.feedback
            if weights:
                forward_path, info = learn_forward(state, batch, trace, h)
            if inverses:
                feedback_path, grads = learn_inverses(state, h)
                info = info._replace(feedback_grads=grads)
            stats = stats if weights else state.stats
            return State(state.t + 1, state.key, forward_path, feedback_path, stats), info

        return step

    modes = {"parallel": mode(True, True), "inverse": mode(True, False), "forward": mode(False, True)}
    return Algorithm(init, modes, schedule)
