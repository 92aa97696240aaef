"""The oldest versions that pyproject.toml permits are those that `make test-oldest` installs and tests with."""

import os
import runpy
import sys
import tomllib
from importlib.metadata import version

import pytest

from tests.helpers import ROOT

packaging = pytest.importorskip("packaging.requirements")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
GPU = {"cuda12", "cuda13", "gpu", "gpu-check"}  # extras that need one, or do without it what can be done
OLDEST = runpy.run_path(str(ROOT / ".ci" / "oldest.py"))["oldest"]()


def permitted():
    """Every requirement of pyproject.toml that can be installed without a GPU."""
    extras = PROJECT["optional-dependencies"]
    return [
        packaging.Requirement(text)
        for text in (*PROJECT["dependencies"], *(one for name in extras if name not in GPU for one in extras[name]))
    ]


def test_every_requirement_has_one_oldest_version():
    for requirement in permitted():
        (bound,) = requirement.specifier
        assert bound.operator in (">=", "==") and bound.version == OLDEST[requirement.name], requirement
    assert {requirement.name for requirement in permitted()} == OLDEST.keys()


def test_the_makefile_installs_them():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipe = makefile.partition(".venv-oldest/ready: ")[2].partition("\n\n")[0]
    assert "pyproject.toml" in recipe and ".ci/oldest.py > .venv-oldest/oldest.txt" in recipe
    assert "-c .venv-oldest/oldest.txt" in recipe and '".[torch,jax,bench,test]"' in recipe


@pytest.mark.skipif("REF_BIOPLAUS_OLDEST" not in os.environ, reason="make test-oldest has the oldest versions")
def test_the_oldest_versions_are_here():
    from packaging.version import Version

    for requirement in permitted():
        if requirement.marker is None or requirement.marker.evaluate():
            found = Version(Version(version(requirement.name)).public)
            assert found == Version(OLDEST[requirement.name]), requirement.name
    assert str(ROOT / ".venv-oldest") in sys.prefix
