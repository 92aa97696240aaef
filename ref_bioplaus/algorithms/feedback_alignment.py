"""Feedback alignment (FA). Lillicrap et al. 2016; equation numbers are those of Akrout et al. 2019, sec. 3.

    y_{l+1} = phi(W_{l+1} y_l + b_{l+1})                      (1)
    delta_l = phi'(y_l) B_{l+1} delta_{l+1}                   (3)   B random and fixed
    Delta W_{l+1} = -eta_W delta_{l+1} y_l^T                  (4)

In convolutional layers (3) is Moskovitz et al. 2018, eq. (3), with B in the layout of the kernel W.

State: feedback.params[l].W is B_l, in the layout of W_l (our B is the paper's B^T), for every layer l that has other
    neurons below it. It never changes.
Choices: B ~ N(0, 1 / n_out), Moskovitz et al., sec. 5.1; with symmetric_output the output layer's feedback is W
    itself, as in Xiao et al. 2018.
"""

from ..credit import backward
from ..initializers import Initializer, Start, fan_in, fan_out, feedback_params, new_state
from ..network import Network, forward
from ..types import Algorithm, Info, Loss, Optimizer, Pathway


def feedback_alignment(
    network: Network, loss: Loss, optimizer: Optimizer, initializer: Start = fan_in,
    feedback_initializer: Initializer = fan_out, symmetric_output: bool = False,
) -> Algorithm:  # fmt: skip
    """FA."""

    def init(key):
        B = feedback_params(network, (key, "feedback"), feedback_initializer, symmetric_output)
        return new_state(network, key, optimizer, initializer, Pathway(B))

    def learn(state, batch):
        params, B = state.forward.params, state.feedback.params
        trace, stats = forward(network, params, state.stats, batch.x, (state.key, "step", state.t))  # (1)
        u = trace.h[-1]

        def feedback(l, delta):
            symmetric = B[l].W is None
            return network[l].linear.transport(params[l].W if symmetric else B[l].W, delta[l])  # (3)

        delta, grads = backward(network, params, trace, loss.gradient(u, batch.y), feedback)
        params, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)  # (4)

        info = Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads)
        return state._replace(t=state.t + 1, forward=Pathway(params, memory), stats=stats), info

    return Algorithm(init, {"learn": learn})
