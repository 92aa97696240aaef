"""The suite is tested: every wrong backend and algorithm fails, at its level, for its reason; the right ones pass."""

from fnmatch import fnmatch
from unittest import mock

import array_api_compat.numpy as compat
import numpy as np
import pytest

from ref_bioplaus.conformance.checks import levels, runner
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.proofs.mutants import MUTANTS
from tests.conftest import get
from tests.helpers import slow

CHECKS = levels.checks((0, 1, 2, 3))
WITHOUT_A_SCORE = {  # found by what stays equal, or does not, and by what is counted
    "FA that silently is BP",
    "alternating that updates both",
    "AO-SDTP whose z learns",
    "mirroring that sums over positions",
    "a step that writes into its argument",
    "a compiled step that retraces",
}


def asked(mutant):
    found = [check for check in CHECKS if fnmatch(check.id, mutant.checks) and mutant.mode in check.modes]
    assert found, f"no check matches {mutant.checks}"
    assert {check.level for check in found} == {mutant.level}
    return found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_mistake_is_found_at_its_level_for_its_reason(mutant):
    checks = asked(mutant)
    with mock.patch.multiple(compat, **mutant.namespace) if mutant.namespace else mock.patch.dict({}):
        report = runner.run(mutant.subject(), checks, (mutant.mode,))
    reasons = [o.reason for o in report.outcomes if o.state == "fail"]
    assert [r for r in reasons if mutant.reason in r], [(o.id, o.state, o.reason) for o in report.outcomes]
    assert not report.sound
    scores = [o.score for o in report.outcomes if o.departure is not None]
    assert bool(scores) == (mutant.name not in WITHOUT_A_SCORE)
    assert max(scores, default=np.inf) > 1.5 * judge.LIMIT  # the margin: far outside, and right results inside
    right = runner.run(Subject(get("numpy", mutant.dtype)), checks, (mutant.mode,))
    assert right.sound
    assert max((o.score for o in right.outcomes), default=0.0) < judge.LIMIT


AGAIN = "levels 0 to 3 once more"
SOME = ("/backprop/", "/kolen-pollack/", "/dtp/")


@pytest.mark.parametrize(
    ("precision", "bits", "rows"),
    [
        slow("tf32", 10, "", reason=AGAIN),
        slow("bf16", 7, "", reason=AGAIN),
        ("bf16", 7, SOME),
    ],
)
def test_right_products_of_a_lower_precision_pass_where_they_are_claimed(precision, bits, rows, monkeypatch):
    """Operands rounded to nearest: at home in their own precision at every level, and found out as ieee."""

    def rounded(a):
        if np.asarray(a).dtype != np.float32:
            return a
        words = np.ascontiguousarray(a).view(np.uint32).astype(np.uint64)
        drop = 23 - bits
        words = words + (1 << (drop - 1)) - 1 + ((words >> drop) & 1)
        return ((words >> drop) << drop).astype(np.uint32).view(np.float32)

    backend = get("numpy", "float32")
    monkeypatch.setattr(compat, "matmul", lambda x, y: np.matmul(rounded(x), rounded(y)))
    backend.precision = precision
    checks = [c for c in CHECKS if c.id.startswith(("0/products", "0/synapses", "1/", "2/shadow", "3/"))]
    checks = [c for c in checks if c.level == 0 or any(row in c.id for row in rows or ("",))]
    report = runner.run(Subject(backend), checks, ("compiled",))
    assert [(o.id, o.reason) for o in report.outcomes if o.state not in ("pass", "not run")] == []
    assert report.count("pass") > 0.9 * len(report.outcomes)
    backend.precision = "ieee"
    claimed = runner.run(Subject(backend), [c for c in checks if "/FC" in c.id or c.level == 0], ("compiled",))
    assert claimed.count("fail") > 30


def test_there_are_enough_mistakes_and_no_two_of_one_name():
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 25
