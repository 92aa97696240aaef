"""Credit assignment: the walk back through the layers, shared by every algorithm.

An algorithm answers one question: what error do the feedback synapses of layer l deliver to that layer's inputs?
"""

import math
from collections.abc import Callable

from .linear import LinearMap
from .network import Network, Trace, layer_backward
from .tree import tree_map
from .types import NO_PARAMS, Array, LayerParams, Params, Tree

Deltas = dict[int, Array]  # delta_l for every layer from the present one up
Feedback = Callable[[int, Deltas], Array]  # (l, delta) -> error at x_l, (N, *in_shape_l)
Population = Callable[[int, Deltas, Array | None], Array]  # (k, delta, error that arrived at h_k) -> error at h_k


def backward(
    network: Network,
    params: Params,
    trace: Trace,
    error: Array,
    feedback: Feedback | None,
    population: Population | None = None,
) -> tuple[tuple[Array, ...], Params]:
    """Error at the output -> delta_l at every layer's pre-activation, and the gradients they imply.

        delta_l = local'(u_l) * sum of what the layers above deliver to h_l
        dW_l    = delta_l x_l^T, averaged over the batch

    Layers without synapses (joins, pooling) hand delta_l down as it is, in every algorithm: there is no weight to
    transport. Of several inputs each gets what the layer's join says: the whole error of a sum, its own part of a
    concatenation. feedback=None: synapses deliver nothing. population: has the last word on the error at h_k, for every
    population k whose output feeds synapses (DFA and DenseFA, whose errors come from further up).
    """
    at_h = {network.L: error}  # error at each layer's output
    delta: Deltas = {}
    grads = {l: LayerParams(None, ({},) * len(layer.local)) for l, layer in enumerate(network.layers)}
    N = error.shape[0]
    for l in sorted(network.learning, reverse=True):
        layer = network[l]
        if population and l in network.populations:
            at_h[l] = population(l, delta, at_h.get(l))
        delta[l], local = layer_backward(layer, params[l], trace.cache[l], at_h.pop(l))
        dW = mean_correlation(layer.linear, trace.x[l], delta[l]) if layer.linear else None
        grads[l] = LayerParams(dW, batch_mean(N, local))
        if not network.learning.intersection(layer.inputs) or (layer.linear and feedback is None):
            continue
        arriving = feedback(l, delta) if layer.linear and feedback else delta[l]
        for k, part in zip(layer.inputs, layer.join.split(arriving)):
            if k in network.learning:
                at_h[k] = network.kernels.add(at_h[k], part) if k in at_h else part
    order = range(len(network))
    return tuple(delta.get(l) for l in order), tuple(grads[l] for l in order)


def mean_correlation(linear: LinearMap, x: Array, delta: Array) -> Array:
    """delta x^T averaged over the batch; what is divided by N is the signal or the product, whatever costs less."""
    N = x.shape[0]
    if math.prod(delta.shape) <= math.prod(linear.weight_shape) and not linear.kernels.mean_of_product:
        return linear.correlate(x, delta / N)
    return linear.correlate(x, delta) / N


def batch_mean(count: int, sums: Tree) -> Tree:
    """Sums over the batch -> means."""
    return tree_map(lambda g: g / count, sums)


def per_synapse(network: Network, values: dict[int, Array]) -> Params:
    """{l: array in the layout of W_l} as parameters: nothing in the other layers."""
    return tuple(LayerParams(values[l]) if l in values else NO_PARAMS for l in range(len(network)))
