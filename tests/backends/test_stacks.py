"""Several steps by one call: the numbers of as many calls, on every backend and for every row."""

import numpy as np
import pytest

from ref_bioplaus import algorithms, backends, losses
from ref_bioplaus.backends import BackendError
from ref_bioplaus.conformance.cases.cases import step_cases
from ref_bioplaus.conformance.cases.networks import batch
from ref_bioplaus.linear import conv, dense
from ref_bioplaus.local import batch_norm, bias, dropout, flatten, max_pool, tanh
from ref_bioplaus.network import chain
from ref_bioplaus.optimizers import adam
from ref_bioplaus.tree import leaves, tree_map
from ref_bioplaus.types import Batch, Info
from tests.conftest import get
from tests.helpers import some_slow

BACKENDS = (("numpy", "portable"), ("numpy", "native"), ("torch", "portable"), ("torch", "native"), ("jax", "native"),
            ("array-api-strict", "portable"))  # fmt: skip
CASES = {c.row: c for c in step_cases() if c.id == f"{c.row}/FC"}
IN_PART = {  # the rows that are always tried where steps are compiled or captured
    "jax, native": ("backprop",), "torch, native": ("backprop", "weight-mirror-turns", "dtp", "frsf-ei"),
}  # fmt: skip
ROWS = [(library, kernels, row) for library, kernels in BACKENDS for row in CASES]
MIXED = chain(
    (6, 5, 2), (conv(3, (3, 2), stride=(1, 2)), batch_norm, tanh, max_pool(2, 2)), flatten, dropout(0.25),
    (dense(4), bias),
)  # fmt: skip


def made(library, kernels, dtype="float64"):
    get(library)
    return backends.get(library, dtype=dtype, kernels=kernels)


def stack_of(backend, network, n, start, k):
    """Batches of n samples, one by one and as a stack."""
    given = [batch(network, n, start + i) for i in range(k)]
    return [backend.batch(*one) for one in given], backend.batch(*map(np.stack, zip(*given, strict=True)))


def host(backend, tree):
    return [np.array(backend.to_numpy(leaf)) for leaf in leaves(tree)]


def same(backend, one, other):
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(*(host(backend, t) for t in (one, other))))


def joined(backend, infos):
    return tree_map(lambda *arrays: np.stack([backend.to_numpy(a) for a in arrays]), *infos)


@pytest.mark.parametrize(
    ("library", "kernels", "row"),
    some_slow(ROWS, lambda library, kernels, row: row not in IN_PART.get(f"{library}, {kernels}", CASES)),
)
def test_a_stack_is_as_many_calls_bit_by_bit(library, kernels, row):
    """Every mode of every row; a last shorter stack, then the first length again."""
    backend, case = made(library, kernels), CASES[row]
    algorithm, network = case.build(backend.kernels), case.network()
    start = algorithm.init(backend.key(3))
    for mode, step in algorithm.modes.items():
        single = backend.compile(step, keep=("loss", "grads", "feedback_grads"))
        stacked = backend.compile(step, donate=True, keep=("loss", "grads", "feedback_grads"), steps=3)
        a, b = start, tree_map(lambda leaf: backend.xp.asarray(leaf, copy=True), start)
        for k in (3, 2, 3):
            ones, stack = stack_of(backend, network, 6, 10 * k, k)
            infos = []
            for one in ones:
                a, info = single(a, one)
                infos.append(info)
            b, info = stacked(b, stack)
            assert same(backend, a, b), f"the state of {mode} after {k} batches"
            wanted = joined(backend, infos)
            assert all(map(np.array_equal, leaves(wanted), host(backend, info))), f"the Info of {mode}"


@pytest.mark.parametrize(
    ("library", "kernels", "donate"),
    some_slow(
        [(*b, d) for b in BACKENDS for d in (False, True)], lambda library, _, donate: library == "jax" and not donate
    ),
)
def test_layers_of_all_kinds_and_who_owns_what(library, kernels, donate):
    """Pooling, BatchNorm's statistics, dropout; what the caller gave and got stays, and a donated state is refused."""
    backend = made(library, kernels, "float32")
    algorithm = algorithms.backprop(MIXED.with_kernels(backend.kernels), losses.cross_entropy(), adam(0.01))
    single = backend.compile(algorithm.modes["learn"])
    stacked = backend.compile(algorithm.modes["learn"], donate=donate, steps=2)
    state = algorithm.init(backend.key(1))
    kept = []
    for n in (5, 1) if library != "jax" else (1,):
        ones, stack = stack_of(backend, MIXED, n, n, 2)
        wanted, infos = state, []
        for one in ones:
            wanted, info = single(wanted, one)
            infos.append(info)
        held = state.stats, state.forward.params[1]
        kept += [(tree, host(backend, tree)) for tree in (stack, held, wanted)]
        before = state
        state, info = stacked(state, stack)
        kept += [(info, host(backend, info))]
        assert same(backend, wanted, state)
        assert all(map(np.array_equal, leaves(joined(backend, infos)), host(backend, info)))
        assert info.loss.shape == (2, n)
        if donate:
            with pytest.raises(BackendError, match="was donated"):
                stacked(before, stack)
    for tree, then in kept:
        assert all(map(np.array_equal, host(backend, tree), then))
    assert int(backend.to_numpy(state.t)) == (4 if library != "jax" else 2)


def test_wrong_stacks_get_one_sentence(numpy64):
    def step(state, given):
        return state._replace(t=state.t + 1), Info()

    state, given = algorithms.backprop(MIXED, losses.cross_entropy(), adam(0.1)).init(numpy64.key(0)), np.zeros
    run = numpy64.compile(step, steps=2)
    for x, y in (((3, 5, 1), (3, 5, 1)), ((0, 5), (0, 5)), ((2, 5), (1, 5)), ((), ())):
        with pytest.raises(BackendError, match=r"expected x and y of 1 to 2 batches along their first axis"):
            run(state, Batch(given(x), given(y)))
    for steps in (0, -1):
        with pytest.raises(BackendError, match=f"steps is {steps}, expected None for single batches, or 1 or more"):
            numpy64.compile(step, steps=steps)
    assert run(state, Batch(given((2, 5)), given((2, 5))))[0].t == 2
