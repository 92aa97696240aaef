"""Native kernels under the conformance suite: some steps, and decisions where nobody can look in.

Level 0 is asked in each library's own tests, in every precision.
"""

from functools import partial

import numpy as np
import pytest

from ref_bioplaus import backends
from ref_bioplaus.conformance.cases.cases import Case
from ref_bioplaus.conformance.checks import levels, runner
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.checks.prepared import Prepared, stored
from ref_bioplaus.conformance.commands.asking import combinations
from ref_bioplaus.conformance.judging.decisions import DECIDING, recordable
from ref_bioplaus.conformance.reporting import report
from ref_bioplaus.kernels import PORTABLE
from tests.helpers import slow
from tests.helpers.commands import command

CHECKS = levels.checks([1])
STEPS = ("backprop/FC", "kolen-pollack/conv", "dfa/LC", "dense-fa/conv", "sn/ResNet, BN after ReLU", "dtp/FC")


def made(name, kernels, dtype="float32"):
    """A backend with its kernels; the test is skipped where there are none."""
    if name not in backends.installed():
        pytest.skip(f"{name} is not installed")
    return backends.get(name, dtype=dtype, kernels=kernels)


@pytest.mark.parametrize("name", ["numpy", "torch", slow("jax")])
@pytest.mark.parametrize("case", STEPS)
def test_native_kernels_pass_steps(name, case):
    wanted = [check for check in CHECKS if check.id.startswith(f"1/{case}/")]
    found = runner.run(Subject(made(name, "native")), wanted, ("compiled", "donating"))
    assert found.outcomes
    assert not [f"{o.id} ({o.mode}): {o.reason}" for o in found.outcomes if o.state in ("fail", "error")]


class Opaque:
    """A max-pool's memory that is no array."""

    def __init__(self, first):
        self.first = first


def foreign(**changes):
    """NumPy with kernels that take NumPy's own arrays only, and a pool that remembers something else than a mask."""
    backend = backends.get("numpy")

    def activation(nonlinearity, x):
        assert type(x) is np.ndarray
        return np.fmax(x, np.float32(0)) if nonlinearity.name == "relu" else nonlinearity.function(x)

    def activation_backward(nonlinearity, y, dy):
        assert type(y) is type(dy) is np.ndarray
        relu = nonlinearity.name == "relu"
        return np.where(y > 0, dy, np.float32(0)) if relu else dy * nonlinearity.derivative(y)

    def max_pool(x, window):
        assert type(x) is np.ndarray
        y, first = PORTABLE.max_pool(x, window)
        return y, Opaque(first)

    def max_pool_backward(cache, dy, window):
        return PORTABLE.max_pool_backward(cache.first, dy, window)

    own = {f.__name__: f for f in (activation, activation_backward, max_pool, max_pool_backward)}
    backend.kernels = backend.kernels._replace(name="foreign", **(own | changes))
    return Subject(backend)


@pytest.mark.parametrize("architecture", ["conv", "ResNet, BN after ReLU"])
def test_decisions_inside_foreign_kernels_are_those_of_the_portable_ones(architecture):
    case = Case(f"backprop/{architecture}", "backprop", architecture, "adam", "float32")
    start, (x, y) = stored(case, 0), case.batch(0, 6)
    portable, other = Subject(backends.get("numpy")), foreign()
    runs = [Prepared(subject, case, "learn", "eager") for subject in (portable, other)]
    (expected, decided), (tensors, seen) = (run.with_decisions(start, x, y) for run in runs)
    assert len(decided) == len(seen) > 0
    for a, b in zip(decided, seen, strict=True):
        assert np.array_equal(a, b)
    for name, tensor in runs[1](start, x, y).items():
        assert np.array_equal(tensor, tensors[name])  # what is judged is what the foreign kernels compute
        assert np.allclose(tensor, expected[name], rtol=1e-4, atol=1e-6)


def test_a_foreign_kernel_that_is_wrong_is_found_where_its_decisions_are_recorded():
    case = Case("backprop/conv", "backprop", "conv", "adam", "float32")
    start, (x, y) = stored(case, 0), case.batch(0, 6)
    wrong = foreign(max_pool_backward=lambda cache, dy, window: 2 * PORTABLE.max_pool_backward(cache.first, dy, window))
    right, found = (Prepared(s, case, "learn", "eager").with_decisions(start, x, y)[0] for s in (foreign(), wrong))
    assert any(not np.array_equal(right[name], found[name]) for name in right)


def test_portable_kernels_are_recorded_as_they_are():
    assert recordable(PORTABLE) == PORTABLE
    assert set(DECIDING) <= set(PORTABLE._fields)


def test_reports_of_both_kinds_of_kernels_can_be_told_apart():
    checks = [check for check in levels.checks([0]) if check.id == "0/loss/squared_error"]
    both = [runner.run(Subject(made("torch", kernels)), checks, ["eager"]) for kernels in ("portable", "native")]
    titles = [report.title(r) for r in both]
    assert titles == ["torch cpu float32 ieee", "torch cpu float32 ieee native kernels"]
    assert [r["kernels"] for r in report.to_json(both)["reports"]] == ["portable", "native"]
    page = report.to_html(both)
    assert all(title in page for title in titles)


def test_the_command_takes_kernels():
    assert [str(a) for a in combinations(["numpy"], "float32", "ieee", "native, portable")] == [
        "numpy float32 ieee", "numpy float32 ieee native kernels",
    ]  # fmt: skip
    run = partial(command, "conformance", "run", "--case", "0/loss/squared_error", "--mode", "eager")
    runs = run("--backend", "torch", "--kernels", "portable,native")
    assert "torch cpu float32 ieee native kernels;" in runs.output
    assert "torch cpu float32 ieee;" in runs.output
    refused = run("--backend", "array-api-strict", "--kernels", "native", code=2)
    assert 'backend "array-api-strict" has no native kernels: choose kernels="portable"' in refused.output
    unknown = run("--backend", "numpy", "--kernels", "fast", code=2)
    assert '--kernels is "fast", expected some of portable, native' in unknown.output
