"""Backpropagation (BP). Rumelhart, Hinton and Williams 1986; equation numbers are those of Akrout et al. 2019, sec. 2.

    y_{l+1} = phi(W_{l+1} y_l + b_{l+1})                      (1)
    delta_l = phi'(y_l) W_{l+1}^T delta_{l+1}                 (2)   weight transport
    Delta W_{l+1} = -eta_W delta_{l+1} y_l^T                  (4)

State: nothing in the feedback path; its weights are the forward ones.
Choices: BP + Noise (Moskovitz et al. 2018, sec. 5.3) adds noise to "the error signal" but sizes it by "the BP
    gradients": noise_on_delta = 1 gives every delta_l Gaussian noise of its own mean square where W_l learns from it,
    independent in every layer (the walk back and biases keep the clean delta, so that the angle is 45 degrees in each
    layer); modifications.noisy_gradients adds it to Delta W.
"""

from ..credit import backward
from ..initializers import Start, fan_in, new_state
from ..modifications import noisy_delta_gradients
from ..network import Network, forward
from ..types import Algorithm, Info, Loss, Optimizer, Pathway


def backprop(
    network: Network, loss: Loss, optimizer: Optimizer, initializer: Start = fan_in, noise_on_delta: float = 0.0
) -> Algorithm:
    """BP; noise_on_delta: the noise's variance over that of each delta_l."""

    def init(key):
        return new_state(network, key, optimizer, initializer)

    def learn(state, batch):
        params = state.forward.params
        trace, stats = forward(network, params, state.stats, batch.x, (state.key, "step", state.t))  # (1)
        u = trace.h[-1]

        def feedback(l, delta):
            return network[l].linear.transport(params[l].W, delta[l])  # (2)

        delta, grads = backward(network, params, trace, loss.gradient(u, batch.y), feedback)
        if noise_on_delta:
            grads = noisy_delta_gradients(network, trace, delta, grads, noise_on_delta, (state.key, state.t))
        params, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)  # (4)

        info = Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads)
        return state._replace(t=state.t + 1, forward=Pathway(params, memory), stats=stats), info

    return Algorithm(init, {"learn": learn})
