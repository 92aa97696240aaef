"""Every algorithm on every architecture gives the same state on every backend, and compiles once per mode and shape."""

import numpy as np
import pytest

from ref_bioplaus import losses
from ref_bioplaus.conformance import agreement
from ref_bioplaus.conformance.architectures import CHAINS, CLASSES, GRADIENT, batch
from ref_bioplaus.experiments.registry import ROWS, row, task_loss
from ref_bioplaus.optimizers import adam, sgd
from tests.conftest import get

WRAPPED = [r.name for r in ROWS if r.wrappers or r.name in ("backprop-noise-delta", "weight-mirror-turns")]
ALTERNATING = [r.name for r in ROWS if r.name.endswith("-alternating")]
PLAIN = [r.name for r in ROWS if r.name not in WRAPPED and r.name not in ALTERNATING]
SIZES = (6, 6, 6, 1)  # a last partial batch, of one


def cases():
    """(row, architecture): every algorithm on all of its architectures, modifications on two."""
    for r in ROWS:
        architectures = list(CHAINS if r.inverses else GRADIENT)
        if r.name in WRAPPED:
            architectures = ["FC", "LC" if "manhattan" in r.name else "conv"]
        elif r.name in ALTERNATING:
            architectures = ["FC"]
        for architecture in architectures:
            yield r.name, architecture


def network_of(chosen, architecture):
    if chosen.inverses:
        return CHAINS[architecture](CLASSES + 3 if chosen.auxiliary else CLASSES)
    return GRADIENT[architecture]()


def maker(name, architecture):
    """A function backend -> algorithm; KP has its decay, E/I freezes in between.

    Under softmax the errors of the classes sum to 0, so that a unit whose feedback weights are all alike (uSF, SN) gets
    nothing but rounding noise. Adam and Batch Manhattan would blow that up to a full step: the sign rules learn by SGD
    here, and Batch Manhattan another loss, and without BatchNorm, under which a filter's gradient cancels.
    """
    chosen = row(name)
    manhattan = any(n == "batch-manhattan" for n, _ in chosen.wrappers)
    loss = losses.squared_error() if manhattan else task_loss(chosen, losses.cross_entropy(), CLASSES)
    plain = chosen.label in ("KP", "FA") or chosen.module == "sign_symmetry"
    optimizer = sgd(0.05, momentum=0.9, decay=0.01) if plain else adam(1e-3)
    wrappers = tuple((n, {"start": 2} if n == "fixed-signs" else dict(options)) for n, options in chosen.wrappers)

    def make(backend):
        network = network_of(chosen, architecture).with_kernels(backend.kernels)
        return chosen._replace(wrappers=wrappers).build(network, loss, optimizer, sgd(1e-2))

    return make


def batches(name, architecture):
    network = network_of(row(name), architecture)
    return [batch(network, n, seed) for seed, n in enumerate(SIZES)]


CASES = list(cases())
REFERENCES: dict[tuple[str, str], tuple] = {}


def reference(name, architecture):
    """The stored state, and NumPy's run from it on arrays that refuse to be written to."""
    if (name, architecture) not in REFERENCES:
        make = maker(name, architecture)
        start = agreement.stored_state(get("numpy"), make)
        run = agreement.run(get("read-only"), make, start, batches(name, architecture))
        REFERENCES[name, architecture] = (start, run)
    return REFERENCES[name, architecture]


@pytest.mark.parametrize("backend_name", ["array-api-strict", "torch", "jax"])
@pytest.mark.parametrize(("name", "architecture"), CASES, ids=["-".join(case) for case in CASES])
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
