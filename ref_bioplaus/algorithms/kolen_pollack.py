"""Kolen-Pollack (KP). Kolen and Pollack 1994; equation numbers are those of Akrout et al. 2019, sec. 5.

    delta_l = phi'(y_l) B_{l+1} delta_{l+1}                               (3)
    Delta W_{l+1} = -eta_W delta_{l+1} y_l^T - lambda W_{l+1}             (16)
    Delta B_{l+1} = -eta_W y_l delta_{l+1}^T - lambda B_{l+1}             (17)

Both synapses see the same two signals, y_l and delta_{l+1}, and apply the same rule, so
W(t) - B(t)^T = (1 - lambda)^t (W(0) - B(0)^T): the feedback weights converge to the transposes of the forward ones.

State: feedback.params[l].W is B_l, in the layout of W_l (our B is the paper's B^T); feedback.memory is its optimizer's.
Choices: one optimizer drives both pathways, so eta_W, lambda, momentum and the form of decay agree, with a memory for
    each; lambda is its `decay`, and "paper" its form. The product y_l delta_{l+1}^T of (17) is the transpose of that of
    (16): it is computed once and used for both.
"""

from ..credit import backward, per_synapse
from ..initializers import Initializer, Start, fan_in, fan_out, feedback_params, new_state
from ..network import Network, forward
from ..types import Algorithm, Info, Loss, Optimizer, Pathway, State


def kolen_pollack(
    network: Network, loss: Loss, optimizer: Optimizer, initializer: Start = fan_in,
    feedback_initializer: Initializer = fan_out,
) -> Algorithm:  # fmt: skip
    """KP: give the optimizer a decay, or B stays as far from W as it started."""

    def init(key):
        B = feedback_params(network, (key, "feedback"), feedback_initializer)
        memory = optimizer.init(B, (key, "feedback optimizer"), network.kernels)
        return new_state(network, key, optimizer, initializer, Pathway(B, memory))

    def learn(state, batch):
        params, B = state.forward.params, state.feedback.params
        trace, stats = forward(network, params, state.stats, batch.x, (state.key, "step", state.t))
        u = trace.h[-1]

        def feedback(l, delta):
            return network[l].linear.transport(B[l].W, delta[l])  # (3)

        delta, grads = backward(network, params, trace, loss.gradient(u, batch.y), feedback)
        B_grads = per_synapse(network, {l: grads[l].W for l in network.feedback_layers})
        params, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)  # (16)
        B, B_memory = optimizer.update(B_grads, state.feedback.memory, B, network.kernels)  # (17)

        info = Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads, feedback_grads=B_grads)
        return State(state.t + 1, state.key, Pathway(params, memory), Pathway(B, B_memory), stats), info

    return Algorithm(init, {"learn": learn})
