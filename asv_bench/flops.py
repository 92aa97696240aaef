"""How many floating-point operations a step's products take, counted as the step's own code asks for them.

What is not a product (optimizer, nonlinearities, random numbers) is not counted.
"""

from ref_bioplaus.network import Network
from ref_bioplaus.registry.shapes import products

from .workloads import Workload, method_of


def step_flops(network: Network, method: str, workload: Workload) -> int:
    """Operations of one step of a method, see workloads.method_of, on a batch. Raises KeyError for another one."""
    found = method_of(method)
    return workload.batch * products(lambda network: found.build(network, workload), network, found.mode)
