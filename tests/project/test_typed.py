"""A user's script under mypy --strict and pyright, against an editable install and against the wheel."""

import ast
import json
import re
import site
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import ref_bioplaus as rb
from ref_bioplaus import experiments
from tests.helpers import ROOT, slow
from tests.helpers.packages import editable_of_the_tree, run, wheel_of_the_tree

SCRIPT = ROOT / "tests" / "project" / "typed_script.py"
STRICT = {
    "include": [SCRIPT.name],
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": False,  # mypy's
    "reportUnnecessaryTypeIgnoreComment": "error",
}
LONG = "reads NumPy's and torch's types anew"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """How an environment is made, with the package in it as pip puts it there: a folder, its Python's path."""

    def make(kind):
        folder = tmp_path_factory.mktemp(kind)
        package, _ = (wheel_of_the_tree if kind == "wheel" else editable_of_the_tree)(folder)
        venv.create(folder / "environment", with_pip=False)
        (packages,) = (folder / "environment" / "lib").glob("*/site-packages")
        zipfile.ZipFile(package).extractall(packages)
        (packages / "others.pth").write_text("\n".join(site.getsitepackages()))  # whose .pth files are not read
        (folder / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
        return folder, folder / "environment" / "bin" / "python"

    return make


def by_mypy(folder, python):
    strict = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", folder.parent / "mypy")
    return run(*strict, "--python-executable", python, SCRIPT.name, cwd=folder)


def by_pyright(folder, python):
    (folder / "pyrightconfig.json").write_text(json.dumps(STRICT))
    return run(sys.executable, "-m", "pyright", "--pythonpath", python, cwd=folder)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("editable", by_pyright),
        slow("wheel", by_pyright, reason="a second build; the editable install always runs"),
        slow("editable", by_mypy, reason=LONG),
        slow("wheel", by_mypy, reason=LONG),
    ],
)
def test_a_users_script_is_accepted_but_for_its_wrong_lines(kind, check, environment):
    pytest.importorskip("torch")  # the script has rb.interop read its Modules
    if check is by_pyright:
        pytest.importorskip("pyright")
    said = check(*environment(kind))
    assert re.search("no issues found in 1 source file|^0 errors, 0 warnings", said), said


def named(module):
    """The names that a module's `if TYPE_CHECKING` has for type checkers."""
    (block,) = (n for n in ast.parse(Path(module.__file__).read_text()).body if isinstance(n, ast.If) and n.orelse)
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imported = {a.asname or a.name for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    return imported | {n.targets[0].id for n in block.body if isinstance(n, ast.Assign)}


def test_checkers_see_the_names_that_are_found_later():
    assert named(rb) - {"authors"} == {*rb.LATER}
    assert named(experiments) == {*experiments.PLACES}
