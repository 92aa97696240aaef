"""How many floating-point operations a step's products take, counted from the network's geometry.

A multiplication and an addition are two operations, at every place of every window, padding included. What is not a
product (optimizer, nonlinearities, random numbers) is not counted.
"""

import math

from ref_bioplaus.linear import Convolution, LocalConnection
from ref_bioplaus.network import Network


def face(linear) -> int:
    """Operations of one face (apply, transport or correlate) for one sample."""
    if isinstance(linear, Convolution | LocalConnection):
        return 2 * math.prod(linear.window.out_size) * linear.fan_in * linear.channels
    return 2 * linear.n_in * linear.n_out


def step_flops(network: Network, method: str, batch: int) -> int:
    """Operations of one step of a method of workloads.METHODS. Raises KeyError for another one."""
    every = sum(face(network[l].linear) for l in network.weighted)  # one face of all layers
    passed = sum(face(network[l].linear) for l in network.feedback_layers)  # of those that pass errors back
    (outputs,) = network[network.L].out_shape
    direct = sum(2 * outputs * math.prod(network[l].out_shape) for l in network.populations)

    def inverses(top):
        return sum(face(network[l].linear) for l in network.weighted if 2 <= l <= top)

    def targets(top):  # g twice for the target; f, g and one correlation for the inverse's own learning
        return 2 * every + 5 * inverses(top)

    counts = {
        **dict.fromkeys(("BP", "FA", "SN", "KP", "WM"), 2 * every + passed),
        "WM-mirror": 2 * passed,
        "DFA": 2 * every + direct,
    }
    if method == "DTP":
        return batch * (targets(network.L - 1) + face(network[network.L].linear))
    return batch * (targets(network.L) if method == "SDTP" else counts[method])
