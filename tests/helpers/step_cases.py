"""Every algorithm on the architectures that the conformance suite steps it on, and batches for them."""

from ref_bioplaus.conformance.cases.cases import step_cases
from ref_bioplaus.conformance.cases.networks import batch

SIZES = (6, 6, 6, 1)  # a last partial batch, of one
CASES = {(c.row, c.architecture): c for c in step_cases() if c.id == f"{c.row}/{c.architecture}"}
CASES = {key: case for key, case in CASES.items() if case.architecture != "square"}


def maker(name, architecture):
    """A function backend -> algorithm."""
    return lambda backend: CASES[name, architecture].build(backend.kernels)


def batches(name, architecture):
    network = CASES[name, architecture].network()
    return [batch(network, n, seed) for seed, n in enumerate(SIZES)]
