"""The table of what is judged by what: it has every name, and each of its checks fails where that name is wrong."""

from functools import cache
from pathlib import Path

import pytest

from ref_bioplaus.conformance.cases import options
from ref_bioplaus.conformance.checks import levels, runner
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.proofs.coverage import brought
from ref_bioplaus.conformance.proofs.coverage import table as coverage
from tests.conftest import get

ROOT = Path(__file__).parents[3]
JUDGED = [name for name in coverage.judges() if name.partition(".")[0] in ("kernels", "backend")]  # test_settings: more


@cache
def checks():
    return {check.id: check for check in levels.checks()}


def test_every_name_has_a_line_and_every_line_a_name():
    names = coverage.names()
    assert len(set(names)) == len(names) > 200
    judged, left = coverage.judges(), coverage.unjudged()
    assert not judged.keys() & left.keys()
    assert set(names) == judged.keys() | left.keys()
    assert all(check in checks() for check in judged.values())
    assert all(len(why.split()) > 4 for why in left.values())


def test_a_new_name_has_no_line(monkeypatch):
    monkeypatch.setattr(brought.Backend, "entirely_new", lambda self, *, how=1: None, raising=False)
    with pytest.raises(KeyError, match=r"backend.entirely_new"):
        list(coverage.lines())


@pytest.mark.parametrize("name", JUDGED)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_fault_in_exactly_this_name_fails_the_check_that_its_line_names(name):
    check = checks()[coverage.judges()[name]]
    wrong = runner.run(coverage.faulty(name), [check])
    assert wrong.count("fail") + wrong.count("error"), (name, check.id, wrong.outcomes)
    assert runner.run(Subject(get("numpy", "float32")), [check]).sound


def test_the_table_on_the_page_is_what_the_code_gives():
    page = (ROOT / "conformance" / "README.md").read_text("utf-8")
    assert coverage.rewritten(page) == page
    assert set(options.IGNORED) <= set(coverage.names())
