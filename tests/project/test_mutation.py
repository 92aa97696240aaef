"""`make mutation`: its faults are of today's files and tests, and what it says of a package of three lines is true."""

import ast
import json
import subprocess
from collections import Counter

import pytest

from tests.mutation import table, trial
from tests.mutation.__main__ import main
from tests.mutation.table import ROOT

FAULTS = table.read()
ADDER = "def double(x):\n    return x + x\n\n\ndef unused(x):\n    return x\n"
TEST = """import time

from tiny.adder import double


def test_first():
    assert double(0) == 0


def test_doubles():
    time.sleep(0 if double(3) < 1000 else 60)
    assert double(3) == 6
"""
TABLE = """
[[fault]]
name = "{name}"
file = "tiny/adder.py"
old = "{old}"
new = "{new}"
tests = ["{tests}"]
"""


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_stands_once_in_its_file_and_its_tests_are_there(fault):
    assert (ROOT / fault.file).resolve() == ROOT / fault.file, "a link: name the file itself"
    text = fault.text(ROOT)
    ast.parse(text)
    assert text != (ROOT / fault.file).read_text()
    assert fault.tests
    for test in fault.tests:
        file, _, function = test.partition("::")
        names = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert function in names if function else names


def test_there_are_enough_faults_and_no_two_of_one_name():
    assert len(FAULTS) >= 40
    assert max(Counter(fault.name for fault in FAULTS).values()) == 1
    assert len({fault.file for fault in FAULTS}) >= 40


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A tree with a package, two tests and no faults yet: (folder, a function that runs the command on a table)."""
    root = tmp_path / "tree"
    for name, text in (("tiny/__init__.py", ""), ("tiny/adder.py", ADDER), ("tests/test_adder.py", TEST)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # pytest begins in half a second
    place = tmp_path / "results.jsonl"

    def run(faults, *options):
        rows = [TABLE.format(**{"tests": "tests/test_adder.py"} | fault) for fault in faults]
        (tmp_path / "faults.toml").write_text("".join(rows))
        paths = ["--root", str(root), "--table", str(tmp_path / "faults.toml"), "--results", str(place)]
        return main([*paths, "--workers", "1", *options])

    return root, place, run


PRODUCT = {"name": "product", "old": "return x + x", "new": "return x * x"}
UNUSED = {"name": "unused", "old": "return x\\n", "new": "return -x\\n"}
BROKEN = {"name": "broken", "old": "def double(", "new": "def doubled("}
HANGING = {"name": "hanging", "old": "return x + x", "new": "return 1000 * x"}


def test_a_fault_is_caught_or_survives(tiny, capsys):
    """Caught by a test, at the import of the tests, at the time limit; not at all; and nothing is done twice."""
    root, place, run = tiny
    assert run([PRODUCT, BROKEN, UNUSED], "--modules-only") == 1
    found = {line["fault"]: (line["how"], line["test"]) for line in map(json.loads, place.read_text().splitlines())}
    assert found == {
        "product": (trial.MODULE, "tests/test_adder.py::test_doubles"),
        "broken": (trial.IMPORT, "tests.test_adder"),
        "unused": (trial.PASSED, ""),
    }
    assert (root / "tiny/adder.py").read_text() == ADDER
    assert run([HANGING], "--limit", "4") == 0
    assert json.loads(place.read_text().splitlines()[-1])["how"] == trial.HUNG
    before = place.read_text()
    assert run([PRODUCT, BROKEN, UNUSED], "--modules-only") == 1
    assert place.read_text() == before  # the files are the same
    assert run([PRODUCT | {"new": "return x - x"}]) == 0
    assert len(place.read_text()) > len(before)  # another fault of that name
    assert "product: module tests, tests/test_adder.py::test_doubles" in capsys.readouterr().out


def test_survivors_meet_the_whole_suite_and_a_fault_lost_since_is_an_error(tiny, tmp_path, capsys):
    """A fault that its module's tests miss; and the same one once the test that saw it is gone."""
    root, place, run = tiny
    first, before = PRODUCT | {"tests": "tests/test_adder.py::test_first"}, tmp_path / "before.jsonl"
    assert run([first]) == 0
    before.write_text(place.read_text())
    found = json.loads(before.read_text().splitlines()[-1])
    assert (found["how"], found["test"], found["proven"]) == (trial.WHOLE, "tests/test_adder.py::test_doubles", True)
    (root / "tests/test_adder.py").write_text(TEST.replace("== 6", "> 0"))
    assert run([first], "--against", str(before)) == 1
    assert "product | whole suite tests/test_adder.py::test_doubles | survived" in capsys.readouterr().out
    before.write_text(place.read_text())
    assert run([first], "--against", str(before)) == 0  # what survived before may survive
    assert run([], "--against", str(tmp_path / "none.jsonl")) == 0
    before.write_text(before.read_text().replace(trial.SURVIVED, trial.MODULE))
    assert run([], "--against", str(before)) == 1  # no longer in the table


def test_parameters_that_pytest_would_divide_are_left_out():
    plain, odd = "tests/test_a.py::test_b[conv, 3x3-1]", 'tests/test_a.py::test_b[name "\\[\\]" is]'
    assert (trial.selectable(plain), trial.selectable(odd)) == (plain, "tests/test_a.py::test_b")


def test_a_test_that_fails_without_the_fault_proves_nothing(tiny):
    root, place, run = tiny
    (root / "tests/test_adder.py").write_text(TEST.replace("double(0) == 0", "double(1) == 1"))
    assert run([UNUSED]) == 1
    assert json.loads(place.read_text().splitlines()[-1])["how"] == trial.UNPROVEN
