"""Weight mirror (WM). Akrout et al. 2019, sec. 4, whose equation numbers follow.

Engaged mode is feedback alignment with the present B:

    delta_l = phi'(y_l) B_{l+1} delta_{l+1}                               (3)
    Delta W_{l+1} = -eta_W delta_{l+1} y_l^T                              (4)

In mirror mode the neurons of layer l fire noise, and the feedback path learns from what it does to layer l + 1:

    delta_l = y_l,   y_l ~ N(0, sigma^2),   y_{l+1} = phi(W_{l+1} y_l + b_{l+1})            (6)
    Delta B_{l+1} = eta_B delta_l delta_{l+1}^T                                             (7)

so that E[Delta B_{l+1}] = eta_B sigma^2 phi' W_{l+1}^T (11); with decay B -> (eta_B sigma^2 phi' / lambda_B) W^T.

State: feedback.params[l].W is B_l, in the layout of W_l (our B is the paper's B^T).
Choices: (7) is averaged over the batch and over the positions where a shared weight reads a pixel, so that (11) holds
    in convolutional layers as it stands. The response is that of a layer's own synapses, bias and nonlinearity:
    BatchNorm, dropout, pooling and joins take no part, and BatchNorm's statistics do not move. With bias_blocking (12)
    the bias is left out too. Layers mirror at once, each from noise of its own, or in turns ("mirror_2", "mirror_3",
    ...: one mode a layer). Norm control is weight decay lambda_B or, with norm=f, synaptic scaling to ||B_l|| =
    f(linear map of l). The batch lends mirror mode its size and dtype. eta_B, lambda_B, sigma and the schedule are
    ours: the paper's appendix D.1 is missing.
"""

from collections.abc import Callable

from ..credit import backward, per_synapse
from ..initializers import Initializer, Start, fan_in, fan_out, feedback_params, new_state
from ..linear import LinearMap
from ..modifications import scaled_to
from ..network import Network, forward, mirror_response
from ..random import normal
from ..types import Algorithm, Info, Loss, Optimizer, Pathway, Schedule


def mirroring(per_batch: float = 1, initial: int = 0, modes: tuple[str, ...] = ("mirror",)) -> Schedule:
    """`initial` mirror steps before the first engaged one, then `per_batch` of them after each.

    per_batch below 1, as in 0.25, mirrors after every fourth engaged step. modes: one step, of all layers or in turns.
    """

    def schedule(epoch, iteration):
        before = modes * initial if (epoch, iteration) == (0, 0) else ()
        steps = int((iteration + 1) * per_batch + 1e-9) - int(iteration * per_batch + 1e-9)
        return (*before, "engaged", *(modes * steps))

    return schedule


def weight_mirror(
    network: Network, loss: Loss, optimizer: Optimizer, eta_B: float = 0.1, lambda_B: float = 0.1, sigma: float = 1.0,
    bias_blocking: bool = False, norm: Callable[[LinearMap], float] | None = None, layers: str = "together",
    mirror_per_batch: float = 1, initial_mirroring: int = 0, initializer: Start = fan_in,
    feedback_initializer: Initializer = fan_out, symmetric_output: bool = False,
) -> Algorithm:  # fmt: skip
    """WM; layers: "together" or "turns". Raises ValueError for another word."""
    if layers not in ("together", "turns"):
        raise ValueError(f'weight_mirror: layers="{layers}" is unknown, expected "together" or "turns"')

    def init(key):
        B = feedback_params(network, (key, "feedback"), feedback_initializer, symmetric_output)
        return new_state(network, key, optimizer, initializer, Pathway(B))

    def engaged(state, batch):
        params, B = state.forward.params, state.feedback.params
        trace, stats = forward(network, params, state.stats, batch.x, (state.key, "step", state.t))
        u = trace.h[-1]

        def feedback(l, delta):
            symmetric = B[l].W is None
            return network[l].linear.transport(params[l].W if symmetric else B[l].W, delta[l])  # (3)

        delta, grads = backward(network, params, trace, loss.gradient(u, batch.y), feedback)
        params, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)  # (4)

        info = Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads)
        return state._replace(t=state.t + 1, forward=Pathway(params, memory), stats=stats), info

    def mirror(mirrored):
        def step(state, batch):
            params, B = state.forward.params, state.feedback.params
            N, dtype, Delta = batch.x.shape[0], batch.x.dtype, {}
            for l in mirrored:
                linear, address = network[l].linear, (state.key, "mirror", state.t, l)
                y = sigma * normal(address, (N, *linear.in_shape), dtype, network.kernels)
                response = mirror_response(network[l], params[l], y, biases=not bias_blocking)  # (6)
                Delta[l] = linear.position_mean(linear.correlate(y, response)) / N  # (7)

            def moved(l):
                if norm is None:
                    return (1.0 - lambda_B) * B[l].W + eta_B * Delta[l]
                return scaled_to(B[l].W + eta_B * Delta[l], norm(network[l].linear))

            new = [B[l]._replace(W=moved(l)) if l in mirrored else B[l] for l in range(len(network))]
            info = Info(feedback_grads=per_synapse(network, Delta))
            return state._replace(t=state.t + 1, feedback=state.feedback._replace(params=tuple(new))), info

        return step

    left_out = network.outputs if symmetric_output else ()
    learned = tuple(l for l in network.feedback_layers if l not in left_out)
    turns = {f"mirror_{l}": mirror((l,)) for l in learned}
    modes = tuple(turns) if layers == "turns" else ("mirror",)
    schedule = mirroring(mirror_per_batch, initial_mirroring, modes)
    return Algorithm(init, {"engaged": engaged, "mirror": mirror(learned), **turns}, schedule)
