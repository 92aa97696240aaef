"""The command line: what `list` shows, and that a user's mistake gets one sentence and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ref_bioplaus
from ref_bioplaus import backends, modifications, registry
from ref_bioplaus.models import MODELS
from ref_bioplaus.registry.catalogue import first_sentence
from tests.helpers import ROOT
from tests.helpers.commands import command


def table(kind):
    """{first word: rest of the line} of what `list` prints, without the heading."""
    result = command("list", kind)
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()[1:]]
    return {words[0]: words[1].strip() for words in lines}


def test_list_algorithms_has_every_row_with_its_file_paper_and_equations():
    shown = table("algorithms")
    assert list(shown) == [row.name for row in registry.ROWS]
    for row in registry.ROWS:
        for text in (row.label, f"algorithms/{row.module}.py", row.paper, row.equations):
            assert text in shown[row.name], (row.name, text)
        assert (Path(ref_bioplaus.__file__).parent / "algorithms" / f"{row.module}.py").is_file()


def test_list_models_has_every_model_and_its_docstring():
    shown = table("models")
    assert list(shown) == list(MODELS)
    assert all(shown[name] == first_sentence(constructor) for name, constructor in MODELS.items())
    assert all(shown.values())


def test_list_backends_says_what_is_here_and_how_to_get_the_rest(monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda: ("numpy", "torch"))
    shown = table("backends")
    assert list(shown) == list(backends.names())
    for name, text in shown.items():
        assert text.startswith("installed" if name in ("numpy", "torch") else "not installed"), name
        assert text.endswith(backends.INSTALL.get(name, "comes with ref-bioplaus")), name


def test_list_modifications_has_every_wrapper_and_its_first_sentence():
    shown = table("modifications")
    assert list(shown) == list(registry.MODIFICATIONS)
    assert shown["constant-norm"] == modifications.constant_norm.__doc__.split(" A zero W")[0]


def test_first_sentence_ends_where_the_next_begins():
    def documented():
        """As in Liao et al. 2015, eq. 3, and
        on. Another sentence."""

    assert first_sentence(documented) == "As in Liao et al. 2015, eq. 3, and on."
    assert first_sentence(len.__call__.__self__) == "Return the number of items in a container."


def test_version():
    assert command("--version").stdout == f"ref-bioplaus {ref_bioplaus.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--backend", "touch"), ('backend "touch" is unknown', '"torch"')),
        (("--backend", "no_such_module:backend"), ("no_such_module", "install")),
        (
            ("--backend", "tests.experiments.commands.test_cli:broken"),
            ("tests.experiments.commands.test_cli:broken", "did not start", "RuntimeError: no luck"),
        ),
        (("--algorithm", "kolen-polack"), ('algorithm "kolen-polack" is unknown', "kolen-pollack")),
        (("--device", "cpu"), ("--backend",)),
        (("--backend", "numpy", "--device", "cuda"), ('device "cuda" is not there', '"cpu"')),
    ],
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(tmp_path, arguments, words):
    out = tmp_path / "page"
    result = command("demo", *arguments, "--out", out, code=2)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr
    assert not out.exists()


@pytest.mark.parametrize("place", ["file/page", "file", "taken"])
def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch, place):
    from ref_bioplaus.experiments.demo import running

    monkeypatch.setattr(running, "run", lambda *_: pytest.fail("training began"))
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "index.html").mkdir(parents=True)
    result = command("demo", "--out", tmp_path / place, code=2)
    assert result.stderr.count("\n") == 1 and "--out" in result.stderr and str(tmp_path / place) in result.stderr


def test_an_option_out_of_range_is_refused():
    for arguments in (("--steps", "0"), ("--seed", "-1"), ("--seed", str(2**63))):
        command("demo", *arguments, code=2)


def test_help_imports_no_array_library_but_numpy():
    heavy = ("torch", "jax", "cupy", "array_api_strict", "matplotlib", "jinja2")
    program = f"""
import sys
from ref_bioplaus.__main__ import app
try:
    app(["demo", "--help"])
except SystemExit as stop:
    found = [name for name in {heavy} if name in sys.modules]
    print("code", stop.code, "found", found, file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--backend" in result.stdout
    assert "code 0 found []" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="a program replaces itself on POSIX systems only")
@pytest.mark.parametrize(("asked", "given"), [({}, "1 1"), ({"OMP_NUM_THREADS": "3"}, "3 None")])
def test_the_demo_runs_with_one_thread_per_library_unless_told_otherwise(asked, given):
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")} | asked
    telling = "tests.experiments.commands.test_cli:telling"
    command = [sys.executable, "-m", "ref_bioplaus", "demo", "--backend", telling]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 2
    assert f"threads {given}" in result.stderr


def broken(*_):
    """A backend that does not start."""
    raise RuntimeError("no luck")


def telling(*_):
    """A backend that does not start, and says how many threads it was to have."""
    raise RuntimeError(f"threads {os.environ.get('OMP_NUM_THREADS')} {os.environ.get('OPENBLAS_NUM_THREADS')}")
