"""Sign-symmetry (SS). Liao et al. 2015: feedback weights know the sign of the forward weights, not their size.

    delta_l = phi'(y_l) B_{l+1} delta_{l+1}                                   Akrout et al. 2019, eq. (3)

    uniform             uSF    B_t = sign(W_t)                                Liao et al. 2015
    batch_random        brSF   B_t = |M_t| sign(W_t), M_t drawn each step     Liao et al. 2015
    initial_magnitude   frSF   B_t = |B_0| sign(W_t)                          "Init.", Moskovitz et al. 2018, eq. (4)
    strict_norm         SN     B_t = ||W_t|| sign(W_t) / ||sign(W_t)||        Moskovitz et al. 2018, eq. (5)
    fan_out_scale       Xiao   B_t = sign(W_t) sqrt(2 / n_out)                Xiao et al. 2018, their public code

"E/I" is any of these with fixed_signs around the optimizer, "Const." with constant_norm, Batch Manhattan with
batch_manhattan.

State: feedback.params[l].W is B_0 in the layout of W_l, the magnitudes of initial_magnitude; the other rules keep none.
Choices: sign(0) = 0; SN of an all-zero W is 0. brSF draws M ~ N(0, 1 / n_out). Xiao's n_out is k^2 C_out in a
    convolution; in a dense layer their scale is 1 / sqrt(n_in) instead. With symmetric_output the output layer's
    feedback is W itself (Xiao et al.); the other papers do not say, so it is not the default.
"""

from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace

from ..credit import backward
from ..initializers import Initializer, Start, fan_in, fan_out, feedback_params, new_state
from ..kernels import Kernels
from ..linear import LinearMap
from ..network import Network, forward
from ..types import Address, Algorithm, Array, Info, Loss, Optimizer, Pathway, State

Rule = Callable[[LinearMap, Array, Array | None, Address, Kernels], Array]  # W, B_0 where one is stored -> B


def uniform(linear: LinearMap, W: Array, B_0: Array, address: Address, kernels: Kernels) -> Array:
    """uSF."""
    return array_namespace(W).sign(W)


def batch_random(linear: LinearMap, W: Array, B_0: Array, address: Address, kernels: Kernels) -> Array:
    """brSF."""
    xp = array_namespace(W)
    return xp.abs(fan_out(linear, address, W.dtype, kernels)) * xp.sign(W)


def initial_magnitude(linear: LinearMap, W: Array, B_0: Array, address: Address, kernels: Kernels) -> Array:
    """frSF, Init."""
    xp = array_namespace(W)
    return xp.abs(B_0) * xp.sign(W)  # (4)


def strict_norm(linear: LinearMap, W: Array, B_0: Array, address: Address, kernels: Kernels) -> Array:
    """SN."""
    xp = array_namespace(W)
    sign = xp.sign(W)
    nonzero = xp.sum(xp.abs(sign))
    return sign * xp.sqrt(xp.sum(W * W) / xp.maximum(nonzero, xp.ones_like(nonzero)))  # (5)


def fan_out_scale(linear: LinearMap, W: Array, B_0: Array, address: Address, kernels: Kernels) -> Array:
    """Xiao's."""
    convolution = len(linear.weight_shape) == 4
    return array_namespace(W).sign(W) * ((2.0 / linear.fan_out) ** 0.5 if convolution else linear.fan_in**-0.5)


RULES = (uniform, batch_random, initial_magnitude, strict_norm, fan_out_scale)


def magnitudes_at(state: State, l: int) -> Address:
    """The address of M_t of layer l."""
    return (state.key, "sign_symmetry", state.t, l)


def sign_feedback(
    network: Network, state: State, l: int, rule: Rule = strict_norm, symmetric_output: bool = False, **others: Any
) -> Array:
    """B_l at this step; options as in `sign_symmetry`."""
    W, B_0 = (path.params[l].W if path.params else None for path in (state.forward, state.feedback))
    symmetric = symmetric_output and l in network.outputs
    return W if symmetric else rule(network[l].linear, W, B_0, magnitudes_at(state, l), network.kernels)


def sign_symmetry(
    network: Network, loss: Loss, optimizer: Optimizer, rule: Rule = strict_norm, initializer: Start = fan_in,
    feedback_initializer: Initializer = fan_out, symmetric_output: bool = False,
) -> Algorithm:  # fmt: skip
    """SS with one of the five rules above."""

    def init(key):
        stored = rule is initial_magnitude
        B_0 = feedback_params(network, (key, "feedback"), feedback_initializer, symmetric_output) if stored else ()
        return new_state(network, key, optimizer, initializer, Pathway(B_0))

    def learn(state, batch):
        params = state.forward.params
        trace, stats = forward(network, params, state.stats, batch.x, (state.key, "step", state.t))
        u = trace.h[-1]

        def feedback(l, delta):
            return network[l].linear.transport(sign_feedback(network, state, l, rule, symmetric_output), delta[l])

        delta, grads = backward(network, params, trace, loss.gradient(u, batch.y), feedback)
        params, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)

        info = Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads)
        return state._replace(t=state.t + 1, forward=Pathway(params, memory), stats=stats), info

    return Algorithm(init, {"learn": learn})
