"""Direct feedback alignment (DFA). Nøkland 2016, whose equation number follows; Moskovitz et al. 2018, sec. 2 and 4.

    delta_l = phi'(u_l) B_l e,   e = delta_L                  (7)   B_l random and fixed

Every population's error comes straight from the output's, instead of through adjacent layers.

State: feedback.params[k].B is B_k, (n_output, *out_shape_k): from the output to population k, one for every layer k
    whose output feeds synapses. None of it where feedback="generated": B_k is then drawn from its address whenever it
    is needed, the same numbers, a tile of columns at a time.
Choices: B ~ N(0, 1 / n_output) (neither paper's; Nøkland's code draws uniform numbers). Where h_k feeds synapses, e B_k
    is its whole error, once: nothing comes down a skip or from a second consumer. Pooling, BatchNorm and joins below it
    are passed exactly. skips="exact" is what public libraries do instead: a B for every consumer of h_k,
    feedback.params[l].B for layer l, and the exact error down the skips as well. e is the gradient averaged over the
    batch, as in every layer.
"""

import math
from typing import NamedTuple

from array_api_compat import array_namespace

from ..credit import backward
from ..initializers import Initializer, Start, check_feedback, fan_in, fan_out, generated_transport, new_state
from ..linear import Dense
from ..network import Network, dtype_of, forward
from ..types import Algorithm, Array, Info, Loss, Optimizer, Pathway


class DirectFeedback(NamedTuple):
    """From the output to one population; None where none is needed."""

    B: Array | None = None


def direct_feedback_alignment(
    network: Network, loss: Loss, optimizer: Optimizer, initializer: Start = fan_in,
    feedback_initializer: Initializer = fan_out, skips: str = "direct", feedback: str = "stored",
) -> Algorithm:  # fmt: skip
    """DFA; skips: "direct" or "exact"; feedback: "stored" or "generated".

    Raises ValueError for another word, for an output that is not a vector, and for a feedback_initializer whose weights
    cannot be generated one by one.
    """
    check_feedback("direct_feedback_alignment", feedback, feedback_initializer)
    if skips not in ("direct", "exact"):
        raise ValueError(f'direct_feedback_alignment: skips="{skips}" is unknown, expected "direct" or "exact"')
    if len(network[network.L].out_shape) != 1:
        raise ValueError(f"DFA needs a vector as output, got {network[network.L].out_shape}: end with `flatten`")
    (n_output,) = network[network.L].out_shape
    direct = skips == "direct"
    reached = {l: network[l].out_shape for l in network.populations}
    if not direct:
        reached = {l: network[l].in_shape for l in network.feedback_layers}

    def synapses(key, l):  # onto population l, as an initializer is asked for them
        linear = Dense(math.prod(reached[l]), n_output)
        return feedback_initializer, linear, (key, "feedback", l), dtype_of(network, key), network.kernels

    def init(key):
        B = [DirectFeedback()] * len(network)
        for l, shape in reached.items() if feedback == "stored" else ():
            initialize, *where = synapses(key, l)
            drawn = initialize(*where)
            B[l] = DirectFeedback(array_namespace(drawn).reshape(drawn, (n_output, *shape)))
        return new_state(network, key, optimizer, initializer, Pathway(tuple(B)))

    def learn(state, batch):
        params, B = state.forward.params, state.feedback.params
        trace, stats = forward(network, params, state.stats, batch.x, (state.key, "step", state.t))
        u = trace.h[-1]
        e, xp = loss.gradient(u, batch.y), array_namespace(u)

        def whole_error(k, delta, arrived):
            output = e if network[network.L].linear is None else delta[network.L]  # e itself behind a last pooling
            if feedback == "stored":
                error = network.kernels.dense_transport(xp.reshape(B[k].B, (n_output, -1)), output)  # (7)
            else:
                error = generated_transport(output, *synapses(state.key, k))  # (7)
            return xp.reshape(error, (-1, *reached[k]))

        def to_consumer(l, delta):
            return whole_error(l, delta, None)

        hooks = (None, whole_error) if direct else (to_consumer, None)
        delta, grads = backward(network, params, trace, e, *hooks)
        params, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)

        info = Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads)
        return state._replace(t=state.t + 1, forward=Pathway(params, memory), stats=stats), info

    return Algorithm(init, {"learn": learn})
