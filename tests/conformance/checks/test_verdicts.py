"""What a failure says: where a tensor is wrong, what it probably is, what was not judged, and what failed before."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from ref_bioplaus import kernels as portable
from ref_bioplaus.conformance.checks import diagnosis, levels, runner
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.judging.patterns import pattern
from ref_bioplaus.conformance.reporting import report as reports
from ref_bioplaus.conformance.reporting.unjudged import not_judged
from tests.conftest import get
from tests.helpers.commands import printed

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=(5, 70))


def wrong_at(*place, by=1.5):
    """VALUES that are wrong somewhere, and where."""
    got, wrong = VALUES.copy(), np.zeros(VALUES.shape, bool)
    got[place] *= by
    wrong[place] = True
    return wrong, VALUES, got


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (wrong_at(slice(None), slice(64, None)), "wrong from 64 on along axis 1 (to 69), 1.5 times what is expected"),
        (wrong_at(3), "wrong at 3 along axis 0 (of 0 to 4), 1.5 times what is expected"),
        (
            wrong_at(slice(2), 7, by=0.0),
            "wrong up to 1 along axis 0 (of 4) and at 7 along axis 1 (of 0 to 69), 0",
        ),
        (
            wrong_at(slice(None), slice(1, None, 2), by=-1.0),
            "wrong at every index 1 + 2 i along axis 1, -1 times",
        ),
        (wrong_at(slice(None)), "all 350 elements are wrong, 1.5 times"),
        (wrong_at(np.abs(VALUES) > 1.5), "elements are wrong, those above 1.49"),
        (wrong_at(np.abs(VALUES) < 0.1), "elements are wrong, those below 0.1"),
        ((np.array(True), np.array(1.0), np.array(2.0)), ""),
        ((np.array([True, False]), np.array([0.0, 1.0]), np.array([1.0, 1.0])), "wrong at 0 (of 0 to 1)"),
        ((np.array([True, False]), np.array([3, 1]), np.array([1, 1])), "wrong at 0 (of 0 to 1)"),
        ((np.array([True, True]), np.array([np.nan, 1.0]), np.array([1.0, np.inf])), "all 2 elements are wrong"),
    ],
)
def test_what_wrong_elements_have_in_common(case, words):
    found = pattern(*case)
    assert found.startswith(words) if not words.startswith("elements") else words in found


def losing_samples(x, u, window):
    """A correlation that knows four samples at most."""
    return portable.conv_correlate(x[:4], u[:4], window)


def subject(**kernels):
    backend = get("numpy", "float32")
    backend.kernels = backend.kernels._replace(name="wrong", **kernels)
    return Subject(backend)


def test_a_failure_is_looked_into_until_the_kernel_and_the_sizes_are_known():
    mine = subject(conv_correlate=losing_samples, dense_apply=lambda W, x: portable.dense_apply(W, x))
    checks = [c for c in levels.checks([1]) if c.id in ("1/backprop/conv/learn/6", "1/backprop/FC/learn/6")]
    report = runner.run(mine, checks, ("eager", "compiled"))
    (found,) = diagnosis.diagnoses(mine, checks, report.outcomes)
    assert found == (
        "1/backprop/conv/learn/6 (eager): it fails for N = 5 | N = 7 | N = 8 and passes for N = 1 | N = 2 | N = 3 | "
        "N = 4; with the portable conv_correlate it passes."
    )


def never_nesterov(p, g, v, keep, eta, momentum, nesterov):
    """Gradient descent that does not look at an option."""
    return portable.sgd(p, g, v, keep, eta, momentum, False)


def test_what_the_wrong_calls_of_a_check_have_in_common_is_said():
    mine = subject(sgd=never_nesterov)
    checks = [c for c in levels.checks([0]) if c.id == "0/optimizers/sgd"]
    report = runner.run(mine, checks, ("compiled",))
    (found,) = diagnosis.diagnoses(mine, checks, report.outcomes)
    assert re.search(r"wrong for \d+ of \d+ calls with .*Nesterov.*; with the portable sgd it passes", found), found


def test_what_fails_when_compiled_only_is_said_to():
    def run(asked, mode):
        return Finding(problem="wrong" if mode == "compiled" else "")

    check = Check("1/x/FC", 1, "x", run, ("eager", "compiled"))
    report = runner.run(subject(), [check])
    assert list(diagnosis.diagnoses(subject(), [check], report.outcomes)) == [
        "1/x/FC (compiled): it fails compiled only; with portable kernels it fails as well: they are not the reason."
    ]


def test_where_kernels_are_not_the_reason_that_is_said():
    mine = replace(subject(dense_apply=lambda W, x: portable.dense_apply(W, x)), build=broken)
    checks = [c for c in levels.checks([1]) if c.id == "1/backprop/FC/learn/6"]
    report = runner.run(mine, checks, ("eager",))
    (found,) = diagnosis.diagnoses(mine, checks, report.outcomes)
    assert "it fails for N = 1 already; with portable kernels it fails as well: they are not the reason" in found


def broken(case, kernels):
    """A rule whose loss is too large by one."""
    algorithm = case.build(kernels)

    def wrong(step):
        def run(state, batch):
            new, info = step(state, batch)
            return new, info._replace(loss=info.loss + 1.0)

        return run

    return algorithm._replace(modes={name: wrong(step) for name, step in algorithm.modes.items()})


def test_a_green_report_says_what_it_has_not_shown():
    found = " ".join(not_judged((0,), ("compiled",), "0/loss*"))
    for words in ("one step of every rule (level 1)", "trajectories (level 2)", "run eager or donating", "0/loss*"):
        assert words in found
    assert "(level" not in " ".join(not_judged(range(5), ("eager", "compiled", "donating")))
    assert "the backend alone (level 0)" in " ".join(not_judged(range(4), ("eager",), own_rows=True))


def test_a_run_that_deviates_throughout_says_so():
    report = runner.run(subject(), [Check("0/x", 0, "x", lambda s, m: Finding(problem="wrong"), ("eager",))])
    for outcome in report.outcomes:
        outcome.state = "deviates"
    assert "deviates by declaration, so that nothing is shown to be right" in reports.verdict([report])


def test_what_failed_in_a_report_is_asked_first(tmp_path, monkeypatch):
    (tmp_path / "twice_convolved.py").write_text(
        "from ref_bioplaus.backends.numpy_.backend import backend as right\n"
        "from ref_bioplaus import kernels\n"
        "def backend(*asked):\n"
        "    made = right(*asked)\n"
        "    made.kernels = made.kernels._replace(name='mine', conv_apply=lambda *a: 2.0 * kernels.conv_apply(*a))\n"
        "    return made\n"
    )
    monkeypatch.chdir(tmp_path)
    run = ["conformance", "run", "--backend", "twice_convolved:backend", "--level", "1", "--mode", "eager"]
    run += ["--case", "1/backprop/*/learn/6", "--json", "a.json"]
    assert "with the portable conv_apply it passes" in printed(*run, code=1)
    assert "checks failed in a.json: these first" in printed(*run, "--since", "a.json", code=1)
    found = json.loads((tmp_path / "a.json").read_text())["reports"][0]
    passed = [isinstance(c["modes"]["eager"], list) for c in found["checks"]]
    assert passed == sorted(passed) and len(set(passed)) == 2
    assert found["diagnosis"] and found["not_judged"]
    assert "--since none.json" in printed(*run, "--since", "none.json", code=2)
    printed(*run, "--jobs", "2", code=1)
    again = json.loads((tmp_path / "a.json").read_text())["reports"][0]
    assert [c["id"] for c in again["checks"]] == sorted((c["id"] for c in found["checks"]), key=by_table)
    assert again["counts"] == found["counts"]


def by_table(id):
    """Where a check stands in the suite."""
    return [check.id for check in levels.checks([1])].index(id)


def test_a_backend_that_ends_its_process_is_an_error_of_one_check(tmp_path, monkeypatch):
    (tmp_path / "ending.py").write_text(
        "import os\n"
        "from ref_bioplaus.backends.numpy_.backend import backend as right\n"
        "from ref_bioplaus import kernels\n"
        "def pool(*a):\n"
        "    os._exit(3)\n"
        "def backend(*asked):\n"
        "    made = right(*asked)\n"
        "    made.kernels = made.kernels._replace(name='ending', max_pool=pool)\n"
        "    return made\n"
    )
    monkeypatch.chdir(tmp_path)
    run = ["conformance", "run", "--backend", "ending:backend", "--level", "0", "--mode", "eager", "--jobs", "2"]
    said = printed(*run, "--case", "0/*pool/[1-9]*", code=1)
    assert "0/max_pool/2 (eager) raised an error: its process ended without an answer" in said
    assert "0/average_pool" not in said
