"""A rule is one file, one line that imports it and one row: shown by one that is thrown away, in a copy of the tree.

Nothing of the package is imported here, so that what is missing is said even where the registry cannot be imported.
"""

import ast
import os
import shutil
import subprocess
import sys

import pytest

from tests.helpers import ROOT

NAME = "binary-feedback"
LINE = "from .binary_feedback import binary_feedback as binary_feedback"
ROW = f'Row("{NAME}", "BinFA", "binary_feedback", "Nobody 2026", "(1), (3), (4)", algorithms.binary_feedback),'
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "results", "*.egg-info", "shared")


def lacking(folder):
    """The lines that a tree's algorithms/__init__.py lacks for files that are there."""
    listed = ast.parse((folder / "__init__.py").read_text()).body
    named = {node.module for node in listed if isinstance(node, ast.ImportFrom)}
    for path in sorted(folder.glob("[!_]*.py")):
        made = [n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
        own = path.stem if path.stem in made else made[-1]
        if path.stem not in named:
            yield f"from .{path.stem} import {own} as {own}"


def test_algorithms_are_imported_where_they_are_looked_for():
    """The list does not fill itself: type checkers could not see what is in it."""
    assert [*lacking(ROOT / "ref_bioplaus/algorithms")] == [], "lines that ref_bioplaus/algorithms/__init__.py lacks"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the tree with the rule, feedback alignment by the signs of B: a file, a line and a row."""
    copy = tmp_path_factory.mktemp("rule") / "tree"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=LEFT_OUT)
    folder, rows = copy / "ref_bioplaus/algorithms", copy / "ref_bioplaus/registry/rows.py"
    text = (folder / "feedback_alignment.py").read_text()
    for old, new in (
        ("Feedback alignment (FA).", "Binary feedback (BinFA)."),
        ("def feedback_alignment(", "def binary_feedback("),
        ("from ..credit", "from array_api_compat import array_namespace\n\nfrom ..credit"),
        ("else B[l].W, delta[l])", "else array_namespace(B[l].W).sign(B[l].W), delta[l])"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "binary_feedback.py").write_text(text)
    assert [*lacking(folder)] == [LINE]
    listed = (folder / "__init__.py").read_text()
    (folder / "__init__.py").write_text(listed.replace("from .dense_", f"{LINE}\nfrom .dense_", 1))
    before, first, after = rows.read_text().partition('    _ss("usf", ')
    rows.write_text(f"{before}    {ROW}\n{first}{after}")
    return copy


def run(copy, *command, code=0):
    """What a command says in the copy."""
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def program(copy, *words):
    """What the program says in the copy."""
    return run(copy, sys.executable, "-m", "ref_bioplaus", *words)


def test_a_row_enrols_a_rule_in_the_programs(copy):
    assert f"{NAME}" in program(copy, "list", "algorithms")
    said = program(copy, "demo", "--quick", "--backend", "numpy", "--algorithm", NAME, "--steps", "5", "--out", "shown")
    assert "BinFA" in said and "Binary feedback" in (copy / "shown/index.html").read_text()
    said = program(copy, "train", "--algorithm", NAME, "--model", "akrout2019/mlp", "--dataset", "embedded",
                   "--steps", "3", "--out", "runs/rule")  # fmt: skip
    assert "feedback weights 5,000 (" in said
    for level, case in (("1", "1/binary-feedback/[Fs][Cq]*/6"), ("2", "2/free/binary-feedback/FC")):
        said = program(copy, "conformance", "run", "--backend", "numpy", "--mode", "compiled", "--level", level,
                       "--case", case)  # fmt: skip
        assert "PASS" in said


@pytest.mark.slow(reason="everything that is generated is checked against its source, twice")
def test_one_command_makes_what_is_new(copy):
    """The failing tests name it, and what was there stays as it was, bit for bit."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    pytest_of = (sys.executable, "-m", "pytest", "-q", "-n", "0")
    files = "tests/project/test_readme.py", "tests/conformance/test_exchange.py"
    generated = (*pytest_of, *files, "-k", "generated_sections or source_gives or every_step")
    assert "run: make generated" in run(copy, *generated, code=1)
    stored = {file.name: file.read_bytes() for file in (copy / "conformance/vectors").iterdir()}
    said = run(copy, "make", "-o", ".venv/ready", "generated", f"BIN={os.path.dirname(sys.executable)}")
    assert "7 were made anew: 1/binary-feedback/" in said and "7 steps were compared with 50 digits" in said
    changed = {
        file.name for file in (copy / "conformance/vectors").iterdir() if stored.get(file.name) != file.read_bytes()
    }
    assert changed == {"binary_feedback.npz", "high_precision.json", "manifest.json"}
    run(copy, *generated)
    said = program(copy, "conformance", "run", "--backend", "numpy", "--level", "0-3", "--case", f"*/{NAME}*")
    assert "PASS" in said
    mutants = (*pytest_of, "tests/conformance/test_mutants.py", "-k", "BinFA")
    assert run(copy, *mutants).startswith(".. ")
    code = "from asv_bench.workloads import *; from asv_bench.flops import step_flops as n; w = WORKLOADS['W7']"
    run(copy, sys.executable, "-c", f"{code}; assert n(w.network(), 'BinFA', w) == n(w.network(), 'FA', w)")
