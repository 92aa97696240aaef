"""Dense feedback alignment (DenseFA). Moskovitz et al. 2018, sec. 4; Baldi et al. 2016. The paper prints no equation.

    delta_l = phi'(u_l) (B_{l+1} delta_{l+1} + sum over k > l + 1 of D_{l,k} delta_k)

FA, "with residual feedback connections from every downstream layer".

State: feedback.params[l].W is B_l, in the layout of W_l (our B is the paper's B^T); feedback.params[l].D[k] is D_{l,k},
    (*shape of u_k, *out_shape_l), for every population l and every layer k with synapses downstream of it that is not
    its own consumer.
Choices: B ~ N(0, 1 / n_out), D_{l,k} ~ N(0, 1 / n_k), summed with weight 1; fully connected D between convolutional
    layers too. In a residual network a population gets its D terms once, however many layers it feeds; the B path
    passes joins exactly, as FA does.
"""

import math
from typing import NamedTuple

from array_api_compat import array_namespace

from ..credit import backward
from ..initializers import fan_in, fan_out, feedback_params, new_state
from ..linear import Dense
from ..network import dtype_of, forward
from ..types import Algorithm, Array, Info, Pathway


class DenseFeedback(NamedTuple):
    """What layer l's own synapses send down (W is B_l), and what comes to population l from further up (D)."""

    W: Array | None
    D: dict[int, Array]


def dense_feedback_alignment(
    network, loss, optimizer, initializer=fan_in, feedback_initializer=fan_out, dense_initializer=fan_out
) -> Algorithm:
    """DenseFA."""

    def init(key):
        B = feedback_params(network, (key, "feedback"), feedback_initializer)
        D: list[dict] = [{} for _ in network.layers]
        for l in network.populations:
            for k in network.downstream(l):
                if l not in network[k].inputs:
                    above, below = network[k].linear.out_shape, network[l].out_shape
                    linear, address = Dense(math.prod(below), math.prod(above)), (key, "dense", l, k)
                    drawn = dense_initializer(linear, address, dtype_of(network, key), network.kernels)
                    D[l][k] = array_namespace(drawn).reshape(drawn, (*above, *below))
        feedback = tuple(DenseFeedback(b.W, d) for b, d in zip(B, D, strict=True))
        return new_state(network, key, optimizer, initializer, Pathway(feedback))

    def learn(state, batch):
        params, feedback_params = state.forward.params, state.feedback.params
        trace, stats = forward(network, params, state.stats, batch.x, (state.key, "step", state.t))
        u = trace.h[-1]
        xp = array_namespace(u)

        def feedback(l, delta):
            return network[l].linear.transport(feedback_params[l].W, delta[l])

        def residual(l, delta, arrived):
            D = feedback_params[l].D
            return sum((xp.tensordot(delta[k], D[k], axes=delta[k].ndim - 1) for k in sorted(D)), start=arrived)

        delta, grads = backward(network, params, trace, loss.gradient(u, batch.y), feedback, residual)
        params, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)

        info = Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads)
        return state._replace(t=state.t + 1, forward=Pathway(params, memory), stats=stats), info

    return Algorithm(init, {"learn": learn})
