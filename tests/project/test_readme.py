"""The README cannot go stale: its tables are the code's, its examples run, the files it names exist."""

import re

import pytest

from ref_bioplaus.experiments.runs import checkpoints
from ref_bioplaus.models import MODELS
from ref_bioplaus.registry import MODIFICATIONS, ROWS, readme
from tests.conftest import get
from tests.helpers import ROOT
from tests.helpers.commands import printed

TEXT = (ROOT / "README.md").read_text()


def test_generated_sections_are_what_the_code_says():
    assert readme.rewritten(TEXT) == TEXT, "run: make generated"
    for name in [*(row.name for row in ROWS), *MODIFICATIONS, *MODELS]:
        assert f"`{name}`" in TEXT or f"| {name} |" in TEXT, name
    with pytest.raises(ValueError, match="no section"):
        readme.rewritten(TEXT.replace("<!-- end choices -->", ""))


def test_every_paragraph_of_choices_is_on_the_page():
    """Wherever `Choices:` stands in the library, its words stand in the README."""
    for path in (ROOT / "ref_bioplaus").glob("**/*.py"):
        if (
            path.name == "readme.py"
            or "experiments" in path.parts
            or path.is_relative_to(ROOT / "ref_bioplaus/backends")
        ):
            continue
        for text in re.findall(r"^ *Choices: (.*?)(?=\n\n|\n\S|\"\"\")", path.read_text(), re.S | re.M):
            assert " ".join(text.split()) in TEXT, path


def test_files_it_names_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_its_example_runs_on_every_backend(name, capsys):
    get(name, "float32")
    code, *others = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    for other in others:
        compile(other, "README.md", "exec")
    assert 'get("numpy")' in code
    scope = {}
    exec(code.replace('get("numpy")', f'get("{name}")'), scope)
    angles = scope["rb"].metrics.matrix_angles(scope["state"].forward.params, scope["state"].feedback.params)
    assert list(angles) == [3]
    assert float(angles[3]) < 85.0
    assert capsys.readouterr().out.startswith("{3: ")


def test_its_rule_is_feedback_alignment(tmp_path, monkeypatch):
    """Learned by its command, and bit for bit what ours learns."""
    (rule,) = re.findall(r"```python\n(# my_rule.py\n.*?)```", TEXT, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rule.py").write_text(rule)
    (given,) = re.findall(r"^ref-bioplaus (train --algorithm my_rule.*)$", TEXT, re.M)
    small = ("--model", "akrout2019/mlp", "--batch", 500, "--steps", 3)
    printed(*given.replace("gain=0.5", "gain=1").split(), *small)
    printed("train", "--algorithm", "feedback-alignment", "--dataset", "embedded", "--out", "runs/fa", *small)
    mine, ours = (checkpoints.latest(tmp_path / "runs" / name).tensors for name in ("mine", "fa"))
    assert mine.keys() == ours.keys()
    assert all(mine[name].tobytes() == ours[name].tobytes() for name in ours)


def test_the_commands_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", TEXT, re.M):
        assert f"\n{target}:" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text()
