"""Every algorithm on every architecture gives the same state on every backend, and compiles once per mode and shape."""

import numpy as np
import pytest

import ref_bioplaus as rb
from ref_bioplaus import backends
from ref_bioplaus.conformance.cases.cases import Case, step_cases
from ref_bioplaus.conformance.cases.networks import CHAINS, GRADIENT
from ref_bioplaus.experiments.demo import agreement
from ref_bioplaus.registry import ROWS
from tests.conftest import get
from tests.helpers import some_slow
from tests.helpers.step_cases import CASES, SIZES, batches, maker

VARIANTS = ("backprop-noise-delta", "weight-mirror-turns")
LONG = {  # of the rows, the architectures whose steps JAX compiles for half a minute
    "weight-mirror": ("conv", "LC", "ResNet, BN after ReLU", "ResNet, BN before ReLU"),
    "weight-mirror-turns": ("conv",),
    "backprop-noise-gradient": ("FC", "conv"),
    **dict.fromkeys(("tp", "sdtp", "ao-sdtp"), ("conv", "LC")),
    **dict.fromkeys(("kolen-pollack", "brsf"), ("ResNet, BN after ReLU", "ResNet, BN before ReLU")),
    **dict.fromkeys(("sn", "usf", "frsf", "xiao", "dfa", "dense-fa"), ("ResNet, BN before ReLU",)),
}


def covering():
    """{row: the architecture that `make test` compiles it on with JAX}: the one that fewest rows before it have, so
    that each has some; `make test-all` has all of them."""
    chosen = {}
    for row in ROWS:
        tried = [a for name, a in reversed(CASES) if name == row.name and a not in LONG.get(name, ())]
        if tried:
            chosen[row.name] = min(tried, key=[*chosen.values()].count)
    return chosen


COVERING = covering()


def compiles_long(name, architecture, backend_name):
    return backend_name == "jax" and COVERING.get(name) != architecture


REFERENCES: dict[tuple[str, str], tuple] = {}


def reference(name, architecture):
    """The stored state, and NumPy's run from it on arrays that refuse to be written to."""
    if (name, architecture) not in REFERENCES:
        make = maker(name, architecture)
        start = agreement.stored_state(get("numpy"), make)
        run = agreement.run(get("read-only"), make, start, batches(name, architecture))
        REFERENCES[name, architecture] = (start, run)
    return REFERENCES[name, architecture]


@pytest.mark.parametrize(
    ("name", "architecture", "backend_name"),
    some_slow([(*c, b) for c in CASES for b in ("array-api-strict", "torch", "jax")], compiles_long),
)
def test_backends_agree_after_four_steps(name, architecture, backend_name):
    backend = get(backend_name)
    start, expected = reference(name, architecture)
    found = agreement.run(backend, maker(name, architecture), start, batches(name, architecture))
    assert expected.largest_gradient > 0.0
    worst = agreement.difference(expected, found)
    assert worst.size < agreement.LIMIT, worst
    if backend_name == "jax":  # one compilation per mode and batch shape
        modes = maker(name, architecture)(backend).modes
        used = {m for i in range(len(SIZES)) for m in maker(name, architecture)(backend).schedule(i, 0)}
        shapes = {m: set() for m in modes}
        for i, n in enumerate(SIZES):
            for m in maker(name, architecture)(backend).schedule(i, 0):
                shapes[m].add(n)
        assert {m: found.traces[m] for m in used} == {m: len(shapes[m]) for m in used}


def test_every_algorithm_is_tried_on_every_architecture():
    assert {*COVERING.values()} == {architecture for _, architecture in CASES}
    for row in ROWS:
        tried = {architecture for name, architecture in CASES if name == row.name}
        variant = row.wrappers or row.name.endswith("-alternating") or row.name in VARIANTS
        assert tried == set(CHAINS if row.inverses else GRADIENT) or (variant and tried), row.name
    assert {case.row for case in step_cases()} == {row.name for row in ROWS}
    assert isinstance(CASES["backprop", "FC"], Case)


@pytest.mark.parametrize("backend_name", ["numpy", "array-api-strict", "torch", "jax"])
def test_states_begin_equal_on_every_backend(backend_name):
    """Initial states are drawn by each backend itself: the same numbers, but for an SVD."""
    for name, architecture in (("dense-fa", "conv"), ("ao-sdtp", "LC"), ("backprop-alignment", "FC")):
        make = maker(name, architecture)
        drawn = agreement.stored_state(get(backend_name), make, seed=3)
        names = [n for n, _ in agreement.named_leaves(drawn)]
        for n, a, b in zip(
            names,
            agreement.leaves(agreement.stored_state(get("numpy"), make, seed=3)),
            agreement.leaves(drawn),
            strict=True,
        ):
            assert agreement.relative(a, b, 1.0) < 1e-15, n


def test_agreement_can_fail():
    """A state that differs by 1e-9 in one weight, is short of a tensor, or is not finite, is found and named."""
    start, run = reference("backprop", "FC")
    assert agreement.difference(run, run) == agreement.Difference("", 0.0)
    for change, where in (
        (lambda a: a * (1.0 + 1e-9), "forward/params/2/W"),
        (lambda a: np.where(a == a.flat[3], np.nan, a), "forward/params/1/W"),
        (lambda a: a[:-1], "forward/params/3/local/0/b"),
    ):
        other = run._replace(state=run.state | {where: change(run.state[where])})
        worst = agreement.difference(run, other)
        assert worst.tensor == where
        assert worst.size > agreement.LIMIT
    missing = run._replace(state={k: v for k, v in run.state.items() if k != "t"})
    assert agreement.difference(run, missing) == agreement.Difference("t", float("inf"))
    assert agreement.relative(np.array([1e-20]), np.array([3e-20]), 1.0) < 1e-19  # rounding noise, by the gradient
    assert agreement.relative(np.array([1e-3]), np.array([1.1e-3]), 1.0) > 0.09


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "kernels"), [("numpy", "portable"), ("numpy", "native"), ("torch", "native"), ("jax", "native")]
)
def test_a_weight_that_is_nan_reaches_the_loss_of_a_step(name, kernels):
    """And every error, through rectifiers and pools: as many of them as with the kernels that define it."""
    get(name)
    backend = backends.get(name, kernels=kernels)
    layers = (rb.conv(3, (3, 2)), rb.bias, rb.relu, rb.max_pool(2)), rb.flatten, (rb.dense(7), rb.bias, rb.relu)
    network = rb.chain((6, 5, 1), *layers, (rb.dense(4), rb.bias)).with_kernels(backend.kernels)
    algorithm = rb.algorithms.feedback_alignment(network, rb.losses.cross_entropy(), rb.optimizers.sgd(0.1))
    state = algorithm.init(backend.key(0))
    W = backend.to_numpy(state.forward.params[1].W).copy()
    W[0, 0, 0, 1] = np.nan  # one of three filters
    first, second, *rest = state.forward.params
    params = (first, second._replace(W=backend.asarray(W)), *rest)
    x = np.random.default_rng(0).standard_normal((3, 6, 5, 1)).astype(np.float32)
    _, info = backend.compile(algorithm.modes["learn"])(
        state._replace(forward=state.forward._replace(params=params)), backend.batch(x, np.eye(4)[:3])
    )
    assert np.isnan(backend.to_numpy(info.loss)).all()
    lost = {l: int(np.isnan(backend.to_numpy(d)).sum()) for l, d in enumerate(info.delta) if d is not None}
    every_place, one_of_each_window = 6 * 5, 3 * 2
    assert lost == {1: 3 * (every_place + 2 * one_of_each_window), 2: 3 * 3 * 2 * 3, 3: 3 * 7, 4: 3 * 4}
