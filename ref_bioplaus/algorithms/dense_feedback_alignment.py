"""Dense feedback alignment (DenseFA). Moskovitz et al. 2018, sec. 4; Baldi et al. 2016. The paper prints no equation.

    delta_l = phi'(u_l) (B_{l+1} delta_{l+1} + sum over k > l + 1 of D_{l,k} delta_k)

FA, "with residual feedback connections from every downstream layer".

State: feedback.params[l].W is B_l, in the layout of W_l (our B is the paper's B^T); feedback.params[l].D[k] is D_{l,k},
    (*shape of u_k, *out_shape_l), for every population l and every layer k with synapses downstream of it that is not
    its own consumer. No D where feedback="generated": D_{l,k} is then drawn from its address whenever it is needed, the
    same numbers, a tile of columns at a time. B_l, no larger than W_l, is stored. None of it changes.
Choices: B ~ N(0, 1 / n_out), D_{l,k} ~ N(0, 1 / n_k), summed with weight 1; fully connected D between convolutional
    layers too. The D are added to FA's path; the paper's number on MNIST was met with W in B's place (RESULTS.md). In a
    residual network a population gets its D terms once, however many layers it feeds; the B path passes joins exactly,
    as FA does.
"""

import math
from typing import NamedTuple

from array_api_compat import array_namespace

from ..credit import backward
from ..initializers import (
    Initializer,
    Start,
    check_feedback,
    fan_in,
    fan_out,
    feedback_params,
    generated_transport,
    new_state,
)
from ..linear import Dense
from ..network import Network, dtype_of, forward
from ..types import Algorithm, Array, Info, Loss, Optimizer, Pathway


class DenseFeedback(NamedTuple):
    """What layer l's own synapses send down (W is B_l), and what comes to population l from further up (D)."""

    W: Array | None
    D: dict[int, Array]


def dense_feedback_alignment(
    network: Network, loss: Loss, optimizer: Optimizer, initializer: Start = fan_in,
    feedback_initializer: Initializer = fan_out, dense_initializer: Initializer = fan_out, feedback: str = "stored",
) -> Algorithm:  # fmt: skip
    """DenseFA; feedback: "stored" or "generated".

    Raises ValueError for another word, and for a dense_initializer whose weights cannot be generated one by one.
    """
    check_feedback("dense_feedback_alignment", feedback, dense_initializer)
    sources = {
        l: tuple(k for k in network.downstream(l) if l not in network[k].inputs) for l in network.populations
    }  # the layers k with a D_{l,k}

    def synapses(key, l, k):  # D_{l,k}, as an initializer is asked for it
        linear = Dense(math.prod(network[l].out_shape), math.prod(network[k].linear.out_shape))
        return dense_initializer, linear, (key, "dense", l, k), dtype_of(network, key), network.kernels

    def init(key):
        B = feedback_params(network, (key, "feedback"), feedback_initializer)
        D: list[dict] = [{} for _ in network.layers]
        for l in sources if feedback == "stored" else ():
            for k in sources[l]:
                initialize, *where = synapses(key, l, k)
                drawn = initialize(*where)
                shape = (*network[k].linear.out_shape, *network[l].out_shape)
                D[l][k] = array_namespace(drawn).reshape(drawn, shape)
        pathway = Pathway(tuple(DenseFeedback(b.W, d) for b, d in zip(B, D, strict=True)))
        return new_state(network, key, optimizer, initializer, pathway)

    def learn(state, batch):
        params, stored = state.forward.params, state.feedback.params
        trace, stats = forward(network, params, state.stats, batch.x, (state.key, "step", state.t))
        u = trace.h[-1]
        xp = array_namespace(u)

        def adjacent(l, delta):
            return network[l].linear.transport(stored[l].W, delta[l])

        def through(l, k, delta_k):
            signal = xp.reshape(delta_k, (delta_k.shape[0], -1))
            if feedback == "stored":
                D = xp.reshape(stored[l].D[k], (signal.shape[1], -1))
                error = network.kernels.dense_transport(D, signal)
            else:
                error = generated_transport(signal, *synapses(state.key, l, k))
            return xp.reshape(error, (-1, *network[l].out_shape))

        def residual(l, delta, arrived):
            return sum((through(l, k, delta[k]) for k in sources[l]), start=arrived)

        delta, grads = backward(network, params, trace, loss.gradient(u, batch.y), adjacent, residual)
        params, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)

        info = Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads)
        return state._replace(t=state.t + 1, forward=Pathway(params, memory), stats=stats), info

    return Algorithm(init, {"learn": learn})
